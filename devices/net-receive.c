/* SPDX-License-Identifier: MIT */
/*
 * Frames from the host end into receive queues (virtio 1.3, 5.1.6.3 and 5.1.6.4).
 *
 * Some buffers are always taken ahead ("at hand"). A host end that can be read puts the frame right into them; its length is not
 * known before, so the list of pieces ends in a spill area of ours, and when it was needed more buffers are taken and what lies
 * in the spill area is copied there. How many buffers a read begins with follows what came lately. Other hosts have frames in
 * memory, several at a time, and one copy puts each into buffers. The buffers of a frame are pushed with no pop in between, so
 * the driver finds them together.
 */
#include <errno.h>
#include <string.h>

#include "net-queue.h"

enum { EXPECT_MIN = 2048, CALM = 256 };

/* Receive buffers at hand */

static struct element *hand_at(const struct net_pair *p, unsigned i)
{
	return p->hand[(p->hand_first + i) % NET_HAND];
}

/* Bytes that a frame may use of them, header included. */
static size_t hand_room(const struct net_pair *p)
{
	if (p->mergeable)
		return p->room;
	return p->nhand ? hand_at(p, 0)->wr.left : 0;
}

/* Takes up to n buffers more. False: there are none now. */
static bool hand_take(struct net_pair *p, unsigned n)
{
	unsigned at = (p->hand_first + p->nhand) % NET_HAND, i;

	if (p->rx_dead)
		return false;
	n = MIN(n, NET_HAND - p->nhand);
	n = virtqueue_pop_many(p->rx, p->hand + at, MIN(n, NET_HAND - at));
	p->nhand += n;
	for (i = 0; i < n; i++) {
		size_t room = p->hand[at + i]->wr.left;

		if (unlikely(room < p->hdr_len)) {
			p->rx_dead = true;
			virtqueue_break(
				p->rx, "a receive buffer of %zu bytes has no room for a header", room);
			return false;
		}
		p->room += room;
	}
	return n;
}

/* Takes buffers until there is room for n bytes. False: there are not enough now. */
static bool hand_fill(struct net_pair *p, size_t n)
{
	while (p->mergeable ? p->room < n : !p->nhand)
		if (p->nhand == NET_HAND || !hand_take(p, 1))
			return false;
	return true;
}

/* Pieces of the buffers at hand behind the place for the header. */
static unsigned hand_iovec(const struct net_pair *p, size_t max, struct iovec *v, unsigned n)
{
	unsigned i, used = 0, last = p->mergeable ? p->nhand : 1;
	size_t skip = p->hdr_len;

	for (i = 0; i < last && used < n && max; i++) {
		struct cursor c = hand_at(p, i)->wr;
		unsigned got, j;

		c.up = NULL;
		cursor_skip(&c, skip);
		skip = 0;
		got = cursor_iovec(&c, max, v + used, n - used);
		for (j = 0; j < got; j++)
			max -= v[used + j].iov_len;
		used += got;
	}
	return used;
}

struct rx_header {
	struct virtio_net_hdr_v1 hdr;
	uint8_t hash[NET_HDR_MAX - NET_HDR]; /* le32 value, le16 report, padding */
};

/*
 * A frame of len bytes goes into the buffers at hand, which have room: the first `placed` bytes lie there already, the others come
 * from the pieces iov.
 */
static void rx_complete(struct net_pair *p, struct rx_header *h, size_t len, size_t placed,
	const struct iovec *iov, unsigned n)
{
	struct element *done[NET_HAND];
	struct cursor src;
	unsigned count = 0;
	size_t left = len, room = 0;

	cursor_init(&src, iov, n);
	for (count = 0; room < p->hdr_len + len; count++)
		room += hand_at(p, count)->wr.left;
	h->hdr.num_buffers = htole16((uint16_t)count);
	room = p->hdr_len;
	for (unsigned i = 0; i < count; i++) {
		struct element *e = hand_at(p, i);
		size_t here, m;

		p->room -= e->wr.left;
		if (i == 0)
			cursor_put(&e->wr, h, room);
		m = MIN(e->wr.left, left);
		left -= m;
		here = MIN(m, placed);
		cursor_skip(&e->wr, here);
		placed -= here;
		m -= here;
		while (m) {
			struct iovec v;
			size_t k;

			if (!cursor_iovec(&src, m, &v, 1))
				break;
			k = v.iov_len;
			cursor_put(&e->wr, v.iov_base, k);
			cursor_skip(&src, k);
			m -= k;
		}
		done[i] = e;
	}
	p->hand_first = (p->hand_first + count) % NET_HAND;
	p->nhand -= count;
	net_rx_done(p, done, count);
	p->count.rx_packets++;
	p->count.rx_bytes += len;
	net_bucket_take(&p->net->rx_bucket, len);
}

/* Reception from host ends that can be read */

static void listen(struct net_pair *p, bool on)
{
	struct net_host *h = p->net->host;

	if (p->listening == on || p->index >= h->lanes)
		return;
	p->listening = on;
	h->ops->listen(h, p->index, virtqueue_loop(p->rx), on);
}

/* How much to have at hand follows the frames that came. */
static void expect(struct net_pair *p, size_t total)
{
	if (total > p->expect) {
		p->expect = NET_MAX_FRAME + NET_HDR_MAX;
		p->calm = 0;
	} else if (total > EXPECT_MIN) {
		p->calm = 0;
	} else if (p->expect > EXPECT_MIN && ++p->calm >= CALM) {
		p->expect = EXPECT_MIN;
	}
}

/* False: buffers are lacking. */
static bool rx_finish(struct net_pair *p)
{
	struct rx_header h = {.hdr = p->pending_hdr};
	struct iovec rest = {p->scratch->spill, p->pending - p->placed};
	size_t len = p->pending;

	if (p->hdr_len + len > hand_room(p) && !hand_fill(p, p->hdr_len + len)) {
		if (p->nhand < NET_HAND && p->mergeable)
			return false;
		p->count.rx_dropped++; /* buffers so small that no number of them would do */
		p->pending = 0;
		return true;
	}
	if (p->hdr_len + len > hand_room(p)) {
		p->count.rx_dropped++;
		p->pending = 0;
		return true;
	}
	p->pending = 0;
	rx_complete(p, &h, len, p->placed, &rest, 1);
	return true;
}

static void rx_cut(struct net_pair *p, const struct net_packet *packet, const struct rx_header *h, bool tee);

/* Reads a frame into guest memory. 1: done, 0: no frame or no buffers, or it waits. */
static bool rx_read(struct net_pair *p)
{
	struct net_host *h = p->net->host;
	struct iovec v[NET_BATCH_SEGS];
	struct net_packet tee;
	unsigned i, n;
	size_t len, room;
	ssize_t got;

	if (!hand_fill(p, p->expect) && !p->nhand) {
		listen(p, false); /* comes again with new buffers */
		return false;
	}
	v[0] = (struct iovec){&p->pending_hdr, NET_HDR};
	n = 1 + hand_iovec(p, NET_MAX_FRAME, v + 1, NET_BATCH_SEGS / 2);
	for (i = 1, room = 0; i < n; i++)
		room += v[i].iov_len;
	v[n] = (struct iovec){p->scratch->spill, NET_MAX_FRAME - room};
	got = h->ops->recv(h, p->index, v, n + 1);
	if (got < 0) {
		listen(p, got == -EAGAIN);
		return false;
	}
	if (got < NET_HDR + NET_MIN_FRAME)
		return true;
	len = (size_t)got - NET_HDR;
	tee = (struct net_packet){.iov = v + 1, .n = n, .len = len};
	expect(p, len + p->hdr_len);
	if (!net_filter_pass(&p->filter, v + 1, n, len)) {
		p->count.rx_filtered++;
		return true;
	}
	if (net_unlinked(p->net)) {
		p->count.rx_dropped++;
		return true;
	}
	if (unlikely(net_needs_guest(&p->pending_hdr) & ~p->offloads)) {
		tee.hdr = p->pending_hdr;
		rx_cut(p, &tee, &(struct rx_header){0}, p->net->pcap);
		return true;
	}
	if (unlikely(p->net->pcap))
		net_tee(p->net, &tee, 1);
	if (unlikely(!(p->offloads & BIT(VIRTIO_NET_F_GUEST_CSUM))))
		p->pending_hdr.flags = 0;
	p->pending = len;
	p->placed = MIN(len, room);
	return true;
}

/* Any lane's frame for any pair: they are read into memory of ours first. */
static bool bouncing(const struct net *net)
{
	return net->host->lanes < net->active || net->rss.on || net->pairs[0].hdr_len == NET_HDR_MAX;
}

static bool rx_bounce(struct net_pair *lane)
{
	struct net_host *h = lane->net->host;
	struct net_scratch *s = lane->scratch;
	struct iovec frame;
	struct net_packet packet;

	if (!lane->bounced) {
		struct iovec v[2] = {{&lane->bounced_hdr, NET_HDR}, {s->frame, NET_MAX_FRAME}};
		ssize_t got = h->ops->recv(h, lane->index, v, 2);

		if (got < 0) {
			listen(lane, got == -EAGAIN);
			return false;
		}
		if (got < NET_HDR + NET_MIN_FRAME)
			return true;
		lane->bounced = (size_t)got - NET_HDR;
	}
	frame = (struct iovec){s->frame, lane->bounced};
	packet = (struct net_packet){.hdr = lane->bounced_hdr, .iov = &frame, .n = 1, .len = lane->bounced};
	if (!net_receive(h, &packet, 1)) {
		listen(lane, false);
		return false;
	}
	lane->bounced = 0;
	return true;
}

static void rx_bounce_all(struct net *net)
{
	unsigned i, k;

	for (i = 0; i < net->host->lanes && i < net->npairs; i++) {
		if (!net->pairs[i].rx)
			continue;
		for (k = 0; k < NET_BATCH && rx_bounce(&net->pairs[i]); k++)
			;
	}
}

void net_rx_ready(struct net_pair *p)
{
	struct net *net = p->net;
	unsigned i;

	if (!p->rx || p->rx_dead)
		return;
	if (!net_bucket_ready(&net->rx_bucket, net->b->loop)) {
		if (net->host->ops->recv)
			listen(p, false);
		return;
	}
	if (!net->host->ops->recv) {
		net->host->ops->room(net->host);
		return;
	}
	if (bouncing(net)) {
		rx_bounce_all(net);
		return;
	}
	if (p->index >= net->host->lanes)
		return;
	for (i = 0; i < NET_BATCH; i++) {
		if (p->pending && !rx_finish(p)) {
			listen(p, false);
			return;
		}
		if (!net_bucket_ready(&net->rx_bucket, net->b->loop)) {
			listen(p, false);
			return;
		}
		if (!rx_read(p))
			return;
	}
	if (p->pending && !rx_finish(p))
		listen(p, false);
	else
		listen(p, true); /* it is others' turn; what is left is found at once */
}

/* Reception from host ends that have the frame in memory */

/* False: no buffers now. */
static bool rx_put(struct net_pair *p, const struct net_packet *packet, const struct rx_header *proto)
{
	struct rx_header h = *proto;
	size_t need = p->hdr_len + packet->len;

	if (!hand_fill(p, need)) {
		if (!p->rx_dead && (p->nhand < NET_HAND || !p->mergeable))
			return false;
		p->count.rx_dropped++;
		return true;
	}
	if (need > hand_room(p)) {
		p->count.rx_dropped++;
		return true;
	}
	h.hdr = packet->hdr;
	if (!(p->offloads & BIT(VIRTIO_NET_F_GUEST_CSUM)))
		h.hdr.flags = 0;
	rx_complete(p, &h, packet->len, 0, packet->iov, packet->n);
	return true;
}

/* A frame that the driver can't take as it is. Pieces that find no buffers are lost. */
static void rx_cut(struct net_pair *p, const struct net_packet *packet, const struct rx_header *h, bool tee)
{
	struct net_cuttings *s = &p->scratch->rx;
	size_t len = net_gather(s->frame, MIN(packet->len, (size_t)NET_MAX_FRAME), packet);
	unsigned i, n = 0;

	if (net_hdr_valid(&packet->hdr, len))
		n = net_segment(&packet->hdr, s->frame, len, s->out, s->iov, s->packets, NET_SEGMENTS);
	for (i = 0; i < n && rx_put(p, &s->packets[i], h); i++)
		;
	if (unlikely(tee))
		net_tee(p->net, s->packets, i);
	p->count.segmented++;
	if (i < n || !n)
		p->count.rx_dropped++;
}

/* The pair that a frame is for, and what the driver is told about its flow. */
static struct net_pair *steer(struct net *net, const struct net_packet *packet, struct rx_header *h)
{
	static const struct net_rss spread = {.types = 0x3f,
		.key = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
			0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
			0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa}};
	uint8_t head[256];
	uint32_t hash = 0;
	uint16_t report = 0;
	bool tell = net->pairs[0].hdr_len == NET_HDR_MAX;
	size_t len;

	if (net->active == 1 && !tell && !net->rss.on)
		return &net->pairs[0];
	len = net_gather(head, sizeof(head), packet);
	if (net->rss.types) {
		hash = net_hash(&net->rss, head, len, &report);
		le32_store(h->hash, hash);
		le16_store(h->hash + 4, report);
	}
	if (net->rss.on)
		return &net->pairs[report ? net->rss.table[hash & net->rss.mask] : net->rss.unclassified];
	if (!report || tell)
		hash = net_hash(&spread, head, len, &report);
	return &net->pairs[hash % net->active];
}

static bool receive(struct net_host *host, const struct net_packet *packet, bool tee)
{
	struct net *net = host->net;
	struct rx_header h = {0};
	struct net_pair *p = steer(net, packet, &h);

	if (!p->rx || p->rx_dead || net_unlinked(net)) {
		p->count.rx_dropped++;
		return true;
	}
	if (!net_filter_pass(&p->filter, packet->iov, packet->n, packet->len)) {
		p->count.rx_filtered++;
		return true;
	}
	if (!net_bucket_ready(&net->rx_bucket, net->b->loop))
		return false;
	if (likely(!(net_needs_guest(&packet->hdr) & ~p->offloads))) {
		if (!rx_put(p, packet, &h))
			return false;
		if (unlikely(tee))
			net_tee(net, packet, 1);
		return true;
	}
	if (!hand_fill(p, p->hdr_len))
		return false;
	rx_cut(p, packet, &h, tee);
	return true;
}

/* A frame in one piece, into a buffer in one piece. False: it is not that simple, nothing was done. */
static inline bool rx_put_simple(struct net_pair *p, struct element *e, const struct net_packet *packet)
{
	const uint16_t one = htole16(1); /* num_buffers */
	size_t room = e->wr.left;
	uint8_t *at;

	if (unlikely(packet->n != 1) ||
		(!net_hdr_plain(&packet->hdr) && (net_needs_guest(&packet->hdr) & ~p->offloads)))
		return false;
	at = cursor_piece(&e->wr, NET_HDR + packet->len);
	if (unlikely(!at))
		return false;
	memcpy(at, &packet->hdr, NET_HDR - 2);
	memcpy(at + NET_HDR - 2, &one, 2);
	net_copy(at + NET_HDR, packet->iov->iov_base, packet->len);
	p->room -= room;
	return true;
}

/* The first of n frames, as long as they are simple and there are buffers. */
static unsigned receive_simple(struct net_pair *p, const struct net_packet *packet, unsigned n)
{
	struct element *done[NET_BATCH];
	bool all = net_filter_open(&p->filter);
	unsigned i, count = 0;
	uint64_t bytes = 0;

	n = MIN(n, NET_BATCH);
	if (p->nhand < n)
		hand_take(p, n - p->nhand);
	for (i = 0; i < n && count < p->nhand && !p->rx_dead; i++) {
		struct element *e = hand_at(p, count);

		if (!all && !net_filter_pass(&p->filter, packet[i].iov, packet[i].n, packet[i].len)) {
			p->count.rx_filtered++;
			continue;
		}
		if (!rx_put_simple(p, e, &packet[i]))
			break;
		bytes += packet[i].len;
		done[count++] = e;
	}
	p->hand_first = (p->hand_first + count) % NET_HAND;
	p->nhand -= count;
	p->count.rx_packets += count;
	p->count.rx_bytes += bytes;
	if (likely(!p->rx_coalesce.usecs && count))
		net_rx_done(p, done, count);
	else
		for (n = 0; n < count; n++)
			net_rx_done(p, done + n, 1);
	return i;
}

static unsigned receive_many(struct net_host *host, const struct net_packet *packet, unsigned n, bool tee)
{
	struct net *net = host->net;
	struct net_pair *p = &net->pairs[0];
	unsigned i = 0;

	while (i < n) {
		if (likely(net->active == 1 && !net->rss.on && p->hdr_len == NET_HDR && p->rx &&
			    !net->rx_bucket.rate && !tee && !net_unlinked(net)))
			i += receive_simple(p, packet + i, n - i);
		if (i < n && !receive(host, &packet[i++], tee))
			return i - 1;
	}
	return n;
}

unsigned net_receive(struct net_host *h, const struct net_packet *packet, unsigned n)
{
	return receive_many(h, packet, n, h->net->pcap);
}

unsigned net_deliver(struct net_host *h, const struct net_packet *packet, unsigned n)
{
	unsigned i;

	for (i = 0; i < h->net->active; i++)
		if (h->net->pairs[i].rx)
			virtqueue_refill(h->net->pairs[i].rx);
	return receive_many(h, packet, n, false);
}

void net_rx_wake(struct net_host *h, unsigned lane)
{
	struct net_pair *p = &h->net->pairs[lane];

	if (p->rx)
		virtqueue_wake(p->rx);
}

/* Start and stop */

void net_rx_start(struct net_pair *p, struct virtqueue *q)
{
	struct net_host *h = p->net->host;

	p->rx = q;
	p->rx_dead = false;
	p->pending = p->bounced = 0;
	p->expect = EXPECT_MIN;
	p->filter = p->net->filter;
	p->offloads = p->net->guest_offloads;
	p->rx_coalesce = p->net->rx_coalesce[p->index];
	p->tx_coalesce = p->net->tx_coalesce[p->index];
	net_pair_use(p);
	if (p->index < h->lanes || !h->ops->recv)
		virtqueue_wake(q);
}

void net_rx_stop(struct net_pair *p)
{
	struct net_host *h = p->net->host;
	unsigned i;

	if (h->ops->recv)
		listen(p, false);
	p->rx = NULL;
	net_pair_use(p);
	net_rx_flush(p);
	for (i = p->nhand; i > 0; i--)
		virtqueue_unpop(hand_at(p, i - 1));
	p->nhand = 0;
	p->room = 0;
	p->pending = p->bounced = 0;
}
