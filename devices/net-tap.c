/* SPDX-License-Identifier: MIT */
/*
 * A TAP interface of the kernel as host end: every queue of it is a lane. Frames go with a header (IFF_VNET_HDR), so checksums
 * and segments are the kernel's business in both directions, and frames move between guest memory and the kernel directly. One call
 * moves one frame: batches of 32 through io_uring cost the processor 6 to 10 % more for each.
 *
 * An interface that is removed takes the link down; one that we opened by name is looked for every second.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

#include "net-host.h"

#define RETRY_NS (UINT64_C(1000) * 1000 * 1000)

enum { TUN_USO4 = 0x20, TUN_USO6 = 0x40 };

struct tap_lane {
	struct tap *tap;
	unsigned index;
	int fd;	       /* -1: the interface is gone */
	bool attached; /* the kernel gives it frames, and takes some */
	struct watch watch;
};

struct tap {
	struct net_host h;
	const char *name; /* NULL: descriptors were given */
	bool multi, headers;
	unsigned lost; /* lanes that found the interface gone; atomic */
	struct post lost_post;
	struct timer retry;
	unsigned offloads; /* TUN_F_*, as set */
	struct tap_lane lane[];
};

static struct tap *tap_of(struct net_host *h)
{
	return container_of(h, struct tap, h);
}

/* The lanes that received stop doing so in their own loops when the control loop takes the descriptors away. */
static void lane_lost(struct tap_lane *l)
{
	struct tap *t = l->tap;

	watch_del(&l->watch);
	if (!__atomic_exchange_n(&t->lost, 1, __ATOMIC_RELAXED))
		loop_post(t->h.loop, &t->lost_post);
}

static unsigned tap_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	struct tap *t = tap_of(h);
	struct tap_lane *l = t->lane[lane].attached ? &t->lane[lane] : &t->lane[0];
	struct iovec v[NET_BATCH_SEGS + 1];
	bool headers = tap_of(h)->headers;
	unsigned i;

	for (i = 0; i < n; i++) {
		unsigned segs = MIN(p[i].n, (unsigned)NET_BATCH_SEGS);
		ssize_t r;

		v[0] = (struct iovec){(void *)&p[i].hdr, NET_HDR};
		memcpy(v + 1, p[i].iov, segs * sizeof(*v));
		do
			r = headers ? writev(l->fd, v, (int)segs + 1) : writev(l->fd, v + 1, (int)segs);
		while (r < 0 && errno == EINTR);
		if (r >= 0)
			continue;
		if (errno == EAGAIN && l->watch.fd >= 0 && watch_modify(&l->watch, EPOLLIN | EPOLLOUT) == 0)
			return i;
		if (errno == EBADFD)
			lane_lost(l);
		/* EIO: the interface is down; EINVAL: the kernel does not like the frame */
	}
	return n;
}

static ssize_t tap_recv(struct net_host *h, unsigned lane, struct iovec *v, unsigned n)
{
	struct tap_lane *l = &tap_of(h)->lane[lane];
	bool headers = tap_of(h)->headers;
	ssize_t r;

	do
		r = headers ? readv(l->fd, v, (int)n) : readv(l->fd, v + 1, (int)n - 1);
	while (r < 0 && errno == EINTR);
	if (r >= 0 && headers)
		return r;
	if (r >= 0) {
		memset(v[0].iov_base, 0, NET_HDR);
		return NET_HDR + r;
	}
	if (errno == EAGAIN)
		return -EAGAIN;
	lane_lost(l);
	return -ENODEV;
}

static void lane_ready(struct watch *w, uint32_t events)
{
	struct tap_lane *l = container_of(w, struct tap_lane, watch);

	if (events & EPOLLOUT) {
		watch_modify(w, EPOLLIN);
		net_tx_room(&l->tap->h, l->index);
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		net_rx_wake(&l->tap->h, l->index);
}

static void tap_listen(struct net_host *h, unsigned lane, struct loop *loop, bool on)
{
	struct tap_lane *l = &tap_of(h)->lane[lane];

	if (!on)
		watch_del(&l->watch);
	else if (l->fd >= 0)
		watch_add(loop, &l->watch, l->fd, EPOLLIN);
}

/* The kernel spreads frames over the queues that are attached. */
static void tap_use(struct net_host *h, unsigned lane, bool on)
{
	struct tap *t = tap_of(h);
	struct ifreq r = {.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	if (!t->multi || !lane || t->lane[lane].fd < 0)
		return; /* the first stays: it stands for the interface */
	if (ioctl(t->lane[lane].fd, TUNSETQUEUE, &r) < 0)
		log_guest_warn("tap: queue %u: %s", lane, strerror(errno));
	else
		t->lane[lane].attached = on;
}

static void tap_accept(struct net_host *h, uint64_t offloads)
{
	static const struct {
		unsigned bit, flag;
	} map[] = {{VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM}, {VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6}, {VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
		{VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO}, {NET_F_GUEST_USO4, TUN_USO4},
		{NET_F_GUEST_USO6, TUN_USO6}};
	struct tap *t = tap_of(h);
	unsigned i, flags = 0;

	for (i = 0; i < ARRAY_SIZE(map); i++)
		if (offloads & BIT(map[i].bit))
			flags |= map[i].flag;
	t->offloads = flags;
	if (t->headers && t->lane[0].fd >= 0 && ioctl(t->lane[0].fd, TUNSETOFFLOAD, flags) < 0)
		log_warn("tap: offloads 0x%x: %s", flags, strerror(errno));
}

static int lane_setup(struct tap *t, int fd)
{
	int size = NET_HDR, little = 1;

	if (t->headers && (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0 || ioctl(fd, TUNSETVNETLE, &little) < 0))
		return -errno;
	return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int lane_open(struct tap *t, unsigned i)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	if (t->multi)
		r.ifr_flags |= IFF_MULTI_QUEUE;
	memcpy(r.ifr_name, t->name, strlen(t->name));
	err = ioctl(fd, TUNSETIFF, &r) < 0 ? -errno : lane_setup(t, fd);
	if (err) {
		close(fd);
		return err;
	}
	t->lane[i].fd = fd;
	t->lane[i].attached = true;
	return 0;
}

static void close_lanes(struct tap *t)
{
	unsigned i;

	for (i = 0; i < t->h.lanes; i++)
		fd_close(&t->lane[i].fd);
}

/* By name: the interface must exist, unless we may make it. */
static int open_lanes(struct tap *t)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < t->h.lanes && !err; i++)
		err = lane_open(t, i);
	if (err)
		close_lanes(t);
	return err;
}

struct lane_loop {
	struct tap_lane *l;
	bool on;
};

static void relisten(void *arg)
{
	struct lane_loop *a = arg;
	struct net_pair *p = &a->l->tap->h.net->pairs[a->l->index];

	if (!a->on) {
		watch_del(&a->l->watch);
		fd_close(&a->l->fd);
		return;
	}
	p->listening = false;
	if (p->rx)
		virtqueue_wake(p->rx);
}

static void each_lane(struct tap *t, bool on)
{
	unsigned i;

	for (i = 0; i < t->h.lanes; i++) {
		struct lane_loop a = {&t->lane[i], on};
		struct virtqueue *q = t->h.net->pairs[i].rx;

		if (q)
			loop_call(virtqueue_loop(q), relisten, &a);
		else
			relisten(&a);
	}
}

static void tap_lost(struct post *post)
{
	struct tap *t = container_of(post, struct tap, lost_post);

	log_warn("tap: the interface is gone");
	each_lane(t, false);
	net_link(&t->h, false);
	if (t->name)
		timer_arm_in(t->h.loop, &t->retry, RETRY_NS);
}

/* Not made anew by us: who removed it shall decide. */
static void tap_retry(struct timer *timer)
{
	struct tap *t = container_of(timer, struct tap, retry);
	unsigned i;

	if (!if_nametoindex(t->name) || open_lanes(t) < 0) {
		timer_arm_in(t->h.loop, &t->retry, RETRY_NS);
		return;
	}
	__atomic_store_n(&t->lost, 0, __ATOMIC_RELAXED);
	tap_accept(&t->h, t->h.net->guest_offloads);
	for (i = 0; i < t->h.lanes; i++)
		if (!t->h.net->pairs[i].used)
			tap_use(&t->h, i, false);
	log_warn("tap: the interface %s is back", t->name);
	each_lane(t, true);
	net_link(&t->h, true);
}

static void tap_close(struct net_host *h)
{
	struct tap *t = tap_of(h);

	timer_disarm(&t->retry);
	close_lanes(t);
	free(t);
}

static void tap_describe(struct net_host *h, struct json *out)
{
	struct tap *t = tap_of(h);

	if (t->name) {
		json_key(out, "interface");
		json_string(out, t->name);
	}
}

static const struct net_host_ops tap_ops = {
	.close = tap_close,
	.send = tap_send,
	.recv = tap_recv,
	.listen = tap_listen,
	.use = tap_use,
	.accept = tap_accept,
	.describe = tap_describe,
};

/* A descriptor that somebody opened for us tells by itself what it is. */
static int adopt(struct tap *t, const int *fds, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		struct ifreq r = {0};
		int err;

		if (ioctl(fds[i], TUNGETIFF, &r) < 0 || !(r.ifr_flags & IFF_TAP) ||
			!(r.ifr_flags & IFF_NO_PI)) {
			log_error("--tap-fd=%d: no TAP interface without packet information", fds[i]);
			return -EINVAL;
		}
		if (i && t->headers != !!(r.ifr_flags & IFF_VNET_HDR)) {
			log_error("--tap-fd=%d: unlike the others, it has %s headers", fds[i],
				t->headers ? "no" : "");
			return -EINVAL;
		}
		t->headers = r.ifr_flags & IFF_VNET_HDR;
		t->multi = r.ifr_flags & IFF_MULTI_QUEUE;
		err = lane_setup(t, fds[i]);
		if (err)
			return log_errno(err, "--tap-fd=%d", fds[i]);
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
		t->lane[i].fd = fds[i];
		t->lane[i].attached = true;
	}
	return 0;
}

static void probe_offloads(struct tap *t)
{
	const uint64_t both = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |
			      BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
			      BIT(VIRTIO_NET_F_HOST_UFO);
	int fd = t->lane[0].fd;

	if (!t->headers)
		return;
	t->h.takes = both;
	t->h.gives = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
		     BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO);
	if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_USO4 | TUN_USO6) == 0) {
		t->h.takes |= BIT(NET_F_HOST_USO);
		t->h.gives |= BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6);
	}
	ioctl(fd, TUNSETOFFLOAD, 0);
}

int net_tap_open(struct net_host **out, struct net *net)
{
	unsigned i, n = net->tap ? net->npairs : net->ntap_fds;
	struct tap *t;
	int err;

	if (net->tap && strlen(net->tap) >= IFNAMSIZ) {
		log_error("--tap=%s: a name has at most %d characters", net->tap, IFNAMSIZ - 1);
		return -EINVAL;
	}
	if (!net->tap && n != net->npairs) {
		log_error("--tap-fd: %u given for %u queue pairs", n, net->npairs);
		return -EINVAL;
	}
	t = calloc(1, sizeof(*t) + n * sizeof(t->lane[0]));
	if (!t)
		return log_errno(ENOMEM, "tap");
	t->h = (struct net_host){
		.ops = &tap_ops, .net = net, .loop = net->b->loop, .kind = "tap", .lanes = n};
	t->name = net->tap;
	t->multi = n > 1;
	t->headers = true;
	t->lost_post.run = tap_lost;
	t->retry.expired = tap_retry;
	for (i = 0; i < n; i++) {
		t->lane[i].tap = t;
		t->lane[i].index = i;
		t->lane[i].fd = t->lane[i].watch.fd = -1;
		t->lane[i].watch.ready = lane_ready;
	}
	err = net->tap ? open_lanes(t) : adopt(t, net->tap_fds, n);
	if (err) {
		if (net->tap)
			log_errno(err, "--tap=%s", net->tap);
		free(t);
		return err;
	}
	probe_offloads(t);
	for (i = 1; i < n; i++)
		tap_use(&t->h, i, false); /* until the guest receives there */
	net_link(&t->h, true);
	*out = &t->h;
	return 0;
}
