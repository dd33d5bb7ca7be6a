/* SPDX-License-Identifier: MIT */
/* A network in user space as host end of a network device. */
#include <errno.h>
#include <stdlib.h>

#include "net-host.h"
#include "user-net.h"

struct user {
	struct net_host h;
	struct user_net *net;
};

static struct user *user_of(struct net_host *h)
{
	return container_of(h, struct user, h);
}

static bool user_frame(void *owner, const void *frame, size_t len)
{
	struct user *u = owner;
	struct iovec v = {(void *)frame, len};
	struct net_packet p = {.iov = &v, .n = 1, .len = len};

	return net_receive(&u->h, &p, 1);
}

static unsigned user_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	(void)lane;
	for (unsigned i = 0; i < n; i++)
		user_net_send(user_of(h)->net, p[i].iov, p[i].n, p[i].len);
	return n;
}

static void user_room(struct net_host *h)
{
	user_net_room(user_of(h)->net);
}

static void user_close(struct net_host *h)
{
	struct user *u = user_of(h);

	user_net_close(u->net);
	free(u);
}

static const struct net_host_ops user_ops = {.close = user_close, .send = user_send, .room = user_room};

static int add_forwards(struct user *u)
{
	const struct net *net = u->h.net;

	for (unsigned i = 0; i < net->nforwards; i++) {
		int err = user_net_forward(u->net, net->forwards[i]);

		if (err)
			return log_errno(-err, "--forward=%s", net->forwards[i]);
	}
	return 0;
}

int net_user_open(struct net_host **out, struct net *net)
{
	struct user *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return log_errno(ENOMEM, "--user");
	u->h = (struct net_host){
		.ops = &user_ops, .net = net, .loop = net->b->loop, .kind = "user", .lanes = 1};
	err = user_net_open(&u->net, &(struct user_net_config){.loop = net->b->loop,
					     .restricted = net->restricted,
					     .option = "--user",
					     .frame = user_frame,
					     .owner = u});
	if (!err)
		err = add_forwards(u);
	if (err) {
		user_close(&u->h);
		return err;
	}
	net_link(&u->h, true);
	*out = &u->h;
	return 0;
}
