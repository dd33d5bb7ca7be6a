/* SPDX-License-Identifier: MIT */
/*
 * Where IP packets of a datagram link go to: a TUN interface of the kernel, or a network in user space. That one speaks Ethernet, so
 * packets get a header on their way there, and lose it on their way back. Its router knows a host when it has announced itself by
 * ARP (RFC 826: a request for its own address); we do so for each address that the guest begins to use.
 *
 * As in any network, packets that cannot go on are lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "caif.h"
#include "user-net.h"

#define RETRY_NS (UINT64_C(1000) * 1000 * 1000)

enum { ETHER = 14, ETHER_IP4 = 0x0800, ETHER_ARP = 0x0806, PACKET = 1600, SEGMENTS = 16 };
enum { IP4_HEAD = 20, IP4_SOURCE = 12 };

struct caif_ip {
	struct caif_channel *ch;
	struct watch watch; /* of the TUN interface */
	int fd;		    /* of the same; -1: it is gone */
	bool want;
	struct timer retry;
	struct user_net *net; /* NULL: it is a TUN interface */
	uint8_t source[4];    /* the guest's address that was announced */
	size_t len;	      /* of the packet that waits for the guest; 0: none */
	uint8_t packet[PACKET];
};

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* TUN */

static int tun_attach(struct caif_ip *ip)
{
	struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	strcpy(r.ifr_name, ip->ch->ip_config.tun);
	if (ioctl(fd, TUNSETIFF, &r) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	ip->fd = fd;
	return 0;
}

static void tun_listen(struct caif_ip *ip)
{
	if (ip->fd < 0 || !ip->want)
		watch_del(&ip->watch);
	else if (ip->watch.fd < 0)
		watch_add(ip->ch->caif->b->loop, &ip->watch, ip->fd, EPOLLIN);
}

static void tun_lost(struct caif_ip *ip)
{
	log_warn("channel pdp: the interface %s is gone", ip->ch->ip_config.tun);
	watch_del(&ip->watch);
	fd_close(&ip->fd);
	timer_arm_in(ip->ch->caif->b->loop, &ip->retry, RETRY_NS);
}

/* Not made anew by us: who removed it shall decide. */
static void tun_retry(struct timer *t)
{
	struct caif_ip *ip = container_of(t, struct caif_ip, retry);
	const char *name = ip->ch->ip_config.tun;

	if (!if_nametoindex(name) || tun_attach(ip) < 0) {
		timer_arm_in(ip->ch->caif->b->loop, &ip->retry, RETRY_NS);
		return;
	}
	log_warn("channel pdp: the interface %s is back", name);
	tun_listen(ip);
}

static void tun_send(struct caif_ip *ip, const struct iovec *v, unsigned n)
{
	ssize_t r;

	if (ip->fd < 0)
		return;
	do
		r = writev(ip->fd, v, (int)n);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == EBADFD)
		tun_lost(ip);
}

static ssize_t tun_receive(struct caif_ip *ip, const struct iovec *v)
{
	uint8_t more;
	struct iovec all[2] = {*v, {&more, 1}};
	ssize_t r;

	if (ip->fd < 0)
		return 0;
	do
		r = readv(ip->fd, all, 2);
	while (r < 0 && errno == EINTR);
	if (r > (ssize_t)v->iov_len)
		return -EMSGSIZE;
	if (r < 0 && errno != EAGAIN)
		tun_lost(ip);
	return MAX(r, 0);
}

static void tun_ready(struct watch *w, uint32_t events)
{
	struct caif_ip *ip = container_of(w, struct caif_ip, watch);
	uint8_t none;

	(void)events;
	if (ip->ch->link)
		caif_host_data(ip->ch);
	else
		tun_receive(ip, &(struct iovec){&none, 1}); /* there is nobody for it */
}

/* Network in user space */

static void announce(struct caif_ip *ip)
{
	uint8_t f[ETHER + 28] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x08, 0x06,
		/* ARP: */ 0, 1, 0x08, 0, 6, 4, 0, 1};
	struct iovec v = {f, sizeof(f)};

	memcpy(f + 6, guest_mac, 6);
	memcpy(f + 22, guest_mac, 6);
	memcpy(f + 28, ip->source, 4);
	memcpy(f + 38, ip->source, 4);
	user_net_send(ip->net, &v, 1, sizeof(f));
}

static void user_send(struct caif_ip *ip, const struct iovec *v, unsigned n, size_t len)
{
	static const uint8_t head[ETHER] = {
		0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 0x08, 0};
	struct iovec frame[SEGMENTS + 1] = {{(void *)head, ETHER}};
	const uint8_t *first = v->iov_base;

	if (v->iov_len < IP4_HEAD || first[0] >> 4 != 4)
		return;
	if (memcmp(ip->source, first + IP4_SOURCE, sizeof(ip->source)) != 0) {
		memcpy(ip->source, first + IP4_SOURCE, sizeof(ip->source));
		announce(ip);
	}
	memcpy(frame + 1, v, n * sizeof(*v));
	user_net_send(ip->net, frame, n + 1, ETHER + len);
}

static bool user_frame(void *owner, const void *frame, size_t len)
{
	struct caif_ip *ip = owner;
	const uint8_t *f = frame;

	if (len <= ETHER || len > ETHER + PACKET || (f[12] << 8 | f[13]) != ETHER_IP4)
		return true;
	if (!ip->ch->link)
		return true;
	if (ip->len)
		return false;
	ip->len = len - ETHER;
	memcpy(ip->packet, f + ETHER, ip->len);
	caif_host_data(ip->ch);
	return true;
}

static ssize_t user_receive(struct caif_ip *ip, const struct iovec *v)
{
	size_t len = ip->len;

	if (!len)
		return 0;
	ip->len = 0;
	if (len <= v->iov_len)
		memcpy(v->iov_base, ip->packet, len);
	user_net_room(ip->net);
	return len <= v->iov_len ? (ssize_t)len : -EMSGSIZE;
}

static int user_open(struct caif_ip *ip)
{
	const struct caif_ip_config *config = &ip->ch->ip_config;
	int err = user_net_open(&ip->net, &(struct user_net_config){.loop = ip->ch->caif->b->loop,
						  .restricted = config->restricted,
						  .option = "--channel=pdp",
						  .frame = user_frame,
						  .owner = ip});

	for (unsigned i = 0; !err && i < config->nforwards; i++) {
		err = user_net_forward(ip->net, config->forward[i]);
		if (err)
			log_errno(-err, "--channel=pdp,forward=%s", config->forward[i]);
	}
	return err;
}

/* What the modem calls */

void caif_ip_send(struct caif_ip *ip, const struct iovec *v, unsigned n, size_t len)
{
	n = MIN(n, (unsigned)SEGMENTS);
	if (ip->net && n)
		user_send(ip, v, n, len);
	else if (n)
		tun_send(ip, v, n);
}

ssize_t caif_ip_receive(struct caif_ip *ip, const struct iovec *v)
{
	return ip->net ? user_receive(ip, v) : tun_receive(ip, v);
}

void caif_ip_want(struct caif_ip *ip, bool want)
{
	ip->want = want;
	if (!ip->net)
		tun_listen(ip);
	else if (want && ip->len)
		caif_host_data(ip->ch);
}

const char *caif_ip_item(struct caif_ip_config *c, const char *name, const char *value)
{
	const char *why;

	if (strcmp(name, "tun") == 0 && value) {
		if (!value[0] || strlen(value) >= sizeof(c->tun))
			return "the name of an interface has 1 to 15 characters";
		strcpy(c->tun, value);
		return NULL;
	}
	if (strcmp(name, "user") == 0 && !value) {
		c->user = true;
		return NULL;
	}
	if (strcmp(name, "restrict") == 0 && !value) {
		c->restricted = true;
		return NULL;
	}
	if (strcmp(name, "forward") != 0 || !value)
		return "only tun=, user, restrict and forward= can be said of a pdp channel";
	why = user_net_check_forward(value);
	if (why)
		return why;
	if (c->nforwards == ARRAY_SIZE(c->forward) || strlen(value) >= sizeof(c->forward[0]))
		return "there are 8 already";
	strcpy(c->forward[c->nforwards++], value);
	return NULL;
}

const char *caif_ip_check(const struct caif_ip_config *c)
{
	if (!c->tun[0] == !c->user)
		return "either tun= or user";
	if (!c->user && (c->restricted || c->nforwards))
		return "restrict and forward= are for user only";
	return NULL;
}

int caif_ip_open(struct caif_ip **out, struct caif_channel *ch)
{
	struct caif_ip *ip = calloc(1, sizeof(*ip));
	int err;

	if (!ip)
		return log_errno(ENOMEM, "--channel");
	ip->ch = ch;
	ip->fd = ip->watch.fd = -1;
	ip->watch.ready = tun_ready;
	ip->retry.expired = tun_retry;
	if (ch->ip_config.user) {
		err = user_open(ip);
	} else {
		err = tun_attach(ip);
		if (err)
			log_errno(-err, "--channel=pdp,tun=%s", ch->ip_config.tun);
	}
	if (err) {
		caif_ip_close(ip);
		return err;
	}
	*out = ip;
	return 0;
}

void caif_ip_close(struct caif_ip *ip)
{
	if (!ip)
		return;
	user_net_close(ip->net);
	timer_disarm(&ip->retry);
	watch_del(&ip->watch);
	fd_close(&ip->fd);
	free(ip);
}

void caif_ip_describe(const struct caif_ip *ip, struct json *out)
{
	json_key(out, "ip");
	json_string(out, ip->net ? "user" : ip->ch->ip_config.tun);
	if (ip->net)
		return;
	json_key(out, "connected");
	json_bool(out, ip->fd >= 0);
}
