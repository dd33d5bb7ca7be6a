/* SPDX-License-Identifier: MIT */
/*
 * A network interface of the host as host end, through a packet socket (packet(7)): the guest is on the wire that the interface is
 * on. Frames go with a header (PACKET_VNET_HDR), so checksums and segments are the kernel's business. The kernel takes VLAN tags out
 * of frames that it receives; they are put back.
 *
 * The guest's link follows the interface's.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net-host.h"

#define LOOK_NS (UINT64_C(500) * 1000 * 1000)

enum { SHORT = 10, TAG = 4, MACS = 12, IGNORE_OUTGOING = 23 };

struct packet {
	struct net_host h;
	int fd;
	struct watch watch;
	bool listening, full;
	struct timer look; /* at the interface */
	uint8_t frame[NET_MAX_FRAME];
};

static struct packet *packet_of(struct net_host *h)
{
	return container_of(h, struct packet, h);
}

static void watch_update(struct packet *k)
{
	uint32_t events = (k->listening ? EPOLLIN : 0u) | (k->full ? EPOLLOUT : 0u);

	if (!events)
		watch_del(&k->watch);
	else if (k->watch.fd >= 0)
		watch_modify(&k->watch, events);
	else
		watch_add(k->h.loop, &k->watch, k->fd, events);
}

static unsigned packet_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	struct packet *k = packet_of(h);
	struct mmsghdr m[NET_BATCH] = {0};
	struct iovec v[NET_BATCH_SEGS + NET_BATCH];
	unsigned done = 0;

	(void)lane;
	while (done < n) {
		unsigned count = 0, used = 0;
		int sent;

		for (; done + count < n && count < NET_BATCH; count++) {
			const struct net_packet *one = &p[done + count];

			if (used + one->n + 1 > NET_BATCH_SEGS + NET_BATCH)
				break;
			m[count].msg_hdr.msg_iov = v + used;
			m[count].msg_hdr.msg_iovlen = one->n + 1;
			v[used++] = (struct iovec){(void *)&one->hdr, SHORT};
			memcpy(v + used, one->iov, one->n * sizeof(*v));
			used += one->n;
		}
		sent = sendmmsg(k->fd, m, count, MSG_DONTWAIT);
		if (sent > 0) {
			done += (unsigned)sent;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == ENOBUFS) {
			k->full = true;
			watch_update(k);
			return done;
		}
		done++; /* the kernel does not like it, or the interface is down */
	}
	return n;
}

/* Puts a tag behind the addresses of a frame that lies in pieces. */
static ssize_t add_tag(
	struct packet *k, const struct iovec *v, unsigned n, size_t len, const struct tpacket_auxdata *aux)
{
	uint16_t tag[2] = {
		htobe16(aux->tp_status & TP_STATUS_VLAN_TPID_VALID ? aux->tp_vlan_tpid : ETHERTYPE_VLAN),
		htobe16(aux->tp_vlan_tci)};
	struct cursor c;

	if (len < MACS || len + TAG > NET_MAX_FRAME)
		return 0;
	cursor_init(&c, v, n);
	cursor_get(&c, k->frame, MACS);
	memcpy(k->frame + MACS, tag, TAG);
	cursor_get(&c, k->frame + MACS + TAG, len - MACS);
	cursor_init(&c, v, n);
	cursor_put(&c, k->frame, len + TAG);
	return c.bad ? 0 : (ssize_t)(len + TAG);
}

/* Where checksums are counted from has moved with the frame. */
static void move_header(struct virtio_net_hdr_v1 *h)
{
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		h->csum_start = htole16((uint16_t)(le16toh(h->csum_start) + TAG));
	if (h->gso_type)
		h->hdr_len = htole16((uint16_t)(le16toh(h->hdr_len) + TAG));
}

static ssize_t packet_recv(struct net_host *h, unsigned lane, struct iovec *v, unsigned n)
{
	struct packet *k = packet_of(h);
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control;
	struct msghdr m = {
		.msg_iov = v, .msg_iovlen = n, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	ssize_t r;

	(void)lane;
	memset(v[0].iov_base, 0, NET_HDR);
	v[0].iov_len = SHORT;
	do
		r = recvmsg(k->fd, &m, MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	v[0].iov_len = NET_HDR;
	if (r < 0)
		return -EAGAIN; /* the interface's state is looked at by itself */
	if (r < SHORT || m.msg_flags & MSG_TRUNC)
		return NET_HDR;
	r -= SHORT;
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		if (!(aux.tp_status & TP_STATUS_VLAN_VALID))
			continue;
		r = add_tag(k, v + 1, n - 1, (size_t)r, &aux);
		move_header(v[0].iov_base);
	}
	return NET_HDR + r;
}

static void packet_listen(struct net_host *h, unsigned lane, struct loop *loop, bool on)
{
	struct packet *k = packet_of(h);

	(void)lane;
	(void)loop;
	k->listening = on;
	watch_update(k);
}

static void socket_ready(struct watch *w, uint32_t events)
{
	struct packet *k = container_of(w, struct packet, watch);
	int err;
	socklen_t size = sizeof(err);

	if (events & EPOLLERR) /* the interface went down: taken off the socket, told by look() */
		getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &err, &size);
	if (k->full && events & EPOLLOUT) {
		k->full = false;
		watch_update(k);
		net_tx_room(&k->h, 0);
	}
	if (events & EPOLLIN)
		net_rx_wake(&k->h, 0);
}

static int bind_to(struct packet *k)
{
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htobe16(ETH_P_ALL)};
	struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};

	a.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(k->h.net->packet);
	if (!a.sll_ifindex)
		return -errno;
	if (bind(k->fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
		setsockopt(k->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) < 0)
		return -errno;
	return 0;
}

static bool carrier(struct packet *k)
{
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", k->h.net->packet);
	return ioctl(k->fd, SIOCGIFFLAGS, &r) == 0 && r.ifr_flags & IFF_UP && r.ifr_flags & IFF_RUNNING;
}

static void look(struct timer *t)
{
	struct packet *k = container_of(t, struct packet, look);
	bool up = carrier(k);

	if (up && !k->h.net->host_up && bind_to(k) < 0) /* maybe another interface of that name */
		up = false;
	if (up != k->h.net->host_up)
		net_link(&k->h, up);
	timer_arm_in(k->h.loop, &k->look, LOOK_NS);
}

static void packet_close(struct net_host *h)
{
	struct packet *k = packet_of(h);

	timer_disarm(&k->look);
	watch_del(&k->watch);
	fd_close(&k->fd);
	free(k);
}

static const struct net_host_ops packet_ops = {
	.close = packet_close,
	.send = packet_send,
	.recv = packet_recv,
	.listen = packet_listen,
};

static int set_up(struct packet *k)
{
	int one = 1;

	k->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (k->fd < 0 || setsockopt(k->fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0 ||
		setsockopt(k->fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)) < 0 ||
		setsockopt(k->fd, SOL_PACKET, IGNORE_OUTGOING, &one, sizeof(one)) < 0)
		return -errno;
	return bind_to(k);
}

int net_packet_open(struct net_host **out, struct net *net)
{
	struct packet *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return log_errno(ENOMEM, "--packet");
	k->h = (struct net_host){.ops = &packet_ops,
		.net = net,
		.loop = net->b->loop,
		.kind = "packet",
		.lanes = 1,
		.takes = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
			 BIT(VIRTIO_NET_F_HOST_ECN),
		.gives = NET_GUEST_OFFLOADS};
	k->fd = k->watch.fd = -1;
	k->watch.ready = socket_ready;
	k->look.expired = look;
	err = set_up(k);
	if (err) {
		log_errno(err, "--packet=%s", net->packet);
		packet_close(&k->h);
		return err;
	}
	look(&k->look);
	*out = &k->h;
	return 0;
}
