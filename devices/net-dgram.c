/* SPDX-License-Identifier: MIT */
/*
 * Unix datagrams as host end, a frame each, as QEMU's "-netdev dgram" has them. Frames move between guest memory and the socket
 * directly, a batch in a system call. While nobody is bound to the other path, the link is down.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net-host.h"
#include "sockpath.h"

#define RETRY_NS (UINT64_C(500) * 1000 * 1000)

struct dgram {
	struct net_host h;
	int fd;
	struct sockaddr_un peer;
	char *local; /* bound, ours to unlink */
	struct watch watch;
	bool listening, full, connected;
	struct timer retry;
};

static struct dgram *dgram_of(struct net_host *h)
{
	return container_of(h, struct dgram, h);
}

static void watch_update(struct dgram *d)
{
	uint32_t events = (d->listening ? EPOLLIN : 0u) | (d->full ? EPOLLOUT : 0u);

	if (!events)
		watch_del(&d->watch);
	else if (d->watch.fd >= 0)
		watch_modify(&d->watch, events);
	else
		watch_add(d->h.loop, &d->watch, d->fd, events);
}

static void lost(struct dgram *d)
{
	if (!d->connected)
		return;
	log_warn("--dgram=%s: nobody is there", d->peer.sun_path);
	d->connected = false;
	net_link(&d->h, false);
	timer_arm_in(d->h.loop, &d->retry, RETRY_NS);
}

static unsigned dgram_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	struct dgram *d = dgram_of(h);
	struct mmsghdr m[NET_BATCH] = {0};
	unsigned i, done = 0;

	(void)lane;
	while (done < n && d->connected) {
		unsigned count = MIN(n - done, (unsigned)NET_BATCH);
		int sent;

		for (i = 0; i < count; i++) {
			m[i].msg_hdr.msg_iov = (struct iovec *)p[done + i].iov;
			m[i].msg_hdr.msg_iovlen = p[done + i].n;
		}
		sent = sendmmsg(d->fd, m, count, MSG_NOSIGNAL);
		if (sent >= 0) {
			done += (unsigned)sent;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			d->full = true;
			watch_update(d);
			return done;
		}
		if (errno == ECONNREFUSED || errno == ENOTCONN || errno == ECONNRESET)
			lost(d);
		done++; /* whatever is wrong with it, it is not sent */
	}
	return n;
}

static ssize_t dgram_recv(struct net_host *h, unsigned lane, struct iovec *v, unsigned n)
{
	struct msghdr m = {.msg_iov = v + 1, .msg_iovlen = n - 1};
	ssize_t r;

	(void)lane;
	do
		r = recvmsg(dgram_of(h)->fd, &m, MSG_DONTWAIT);
	while (r < 0 && (errno == EINTR || errno == ECONNRESET));
	if (r < 0)
		return -EAGAIN;
	memset(v[0].iov_base, 0, NET_HDR);
	return m.msg_flags & MSG_TRUNC ? NET_HDR : NET_HDR + r;
}

static void dgram_listen(struct net_host *h, unsigned lane, struct loop *loop, bool on)
{
	struct dgram *d = dgram_of(h);

	(void)lane;
	(void)loop;
	d->listening = on;
	watch_update(d);
}

static void socket_ready(struct watch *w, uint32_t events)
{
	struct dgram *d = container_of(w, struct dgram, watch);

	if (d->full && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
		d->full = false;
		watch_update(d);
		net_tx_room(&d->h, 0);
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		net_rx_wake(&d->h, 0);
}

static void try_connect(struct timer *t)
{
	struct dgram *d = container_of(t, struct dgram, retry);

	if (connect(d->fd, (struct sockaddr *)&d->peer, sizeof(d->peer)) < 0) {
		timer_arm_in(d->h.loop, &d->retry, RETRY_NS);
		return;
	}
	d->connected = true;
	net_link(&d->h, true);
}

static void dgram_close(struct net_host *h)
{
	struct dgram *d = dgram_of(h);

	timer_disarm(&d->retry);
	watch_del(&d->watch);
	fd_close(&d->fd);
	if (d->local)
		unlink(d->local);
	free(d->local);
	free(d);
}

static const struct net_host_ops dgram_ops = {
	.close = dgram_close,
	.send = dgram_send,
	.recv = dgram_recv,
	.listen = dgram_listen,
};

/* Without a path of its own the socket gets a name from the kernel, so that it can be answered. */
static int bind_local(struct dgram *d, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(sa_family_t);
	int err;

	if (path) {
		err = sockpath_address(&a, "--dgram-local", path);
		if (err)
			return err;
		size = sizeof(a);
	}
	if (path && connect(d->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == ECONNREFUSED)
		unlink(path);
	if (bind(d->fd, (struct sockaddr *)&a, size) < 0)
		return log_errno(errno, "--dgram-local=%s", path ? path : "");
	if (!path)
		return 0;
	d->local = strdup(path);
	return d->local ? 0 : -ENOMEM;
}

int net_dgram_open(struct net_host **out, struct net *net)
{
	struct dgram *d = calloc(1, sizeof(*d));
	int err, size = 1 << 20;

	if (!d)
		return log_errno(ENOMEM, "--dgram");
	d->h = (struct net_host){
		.ops = &dgram_ops, .net = net, .loop = net->b->loop, .kind = "dgram", .lanes = 1};
	d->watch.fd = -1;
	d->watch.ready = socket_ready;
	d->retry.expired = try_connect;
	d->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	err = d->fd < 0 ? log_errno(errno, "--dgram") : sockpath_address(&d->peer, "--dgram", net->dgram);
	if (!err)
		err = bind_local(d, net->dgram_local);
	if (err) {
		dgram_close(&d->h);
		return err;
	}
	setsockopt(
		d->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)); /* as far as the system's limit allows */
	try_connect(&d->retry);
	*out = &d->h;
	return 0;
}
