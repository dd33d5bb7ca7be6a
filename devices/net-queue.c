/* SPDX-License-Identifier: MIT */
/*
 * Frames between the queues and the host end (virtio 1.3, 5.1.6.2 to 5.1.6.4).
 *
 * Transmission: a turn's buffers become a batch of frames whose bytes stay in guest memory, with a checked copy of each header;
 * the host takes them in one call, as far as it can, and what it did not take goes back to the ring until it has room. A frame
 * that asks for more than the host can do is made into some that ask for nothing first.
 *
 * Reception: some buffers are always taken ahead ("at hand"). A host end that can be read puts the frame right into them; its
 * length is not known before, so the list of pieces ends in a spill area of ours, and when it was needed more buffers are taken
 * and what lies in the spill area is copied there. How many buffers a read begins with follows what came lately. Other hosts
 * have the frame in memory, and one copy puts it into buffers. The buffers of a frame are pushed with no pop in between, so the
 * driver finds them together.
 */
#include <errno.h>
#include <string.h>

#include "net-host.h"
#include "net-offload.h"

enum { EXPECT_MIN = 2048, CALM = 256, BURST_NS = 10 * 1000 * 1000, REFILL_NS = 1000 * 1000 };

/* A frame in one piece and what is made of it. */
struct cuttings {
	uint8_t frame[NET_MAX_FRAME + 2];
	uint8_t out[NET_SCRATCH];
	struct iovec iov[NET_SEGMENTS];
	struct net_packet packets[NET_SEGMENTS];
	unsigned first, n; /* of packets: the host had no room for these yet */
};

struct net_scratch {
	uint8_t frame[NET_MAX_FRAME + 2]; /* read, for any pair */
	uint8_t spill[NET_MAX_FRAME + 2];
	struct cuttings rx, tx;
};

static void rx_flush(struct net_pair *p);
static void tx_flush(struct net_pair *p);

static void rx_timer_expired(struct timer *t)
{
	rx_flush(container_of(t, struct net_pair, rx_timer));
}

static void tx_timer_expired(struct timer *t)
{
	tx_flush(container_of(t, struct net_pair, tx_timer));
}

int net_pair_init(struct net_pair *p, struct net *net, unsigned index)
{
	p->net = net;
	p->index = index;
	p->rx_timer.expired = rx_timer_expired;
	p->tx_timer.expired = tx_timer_expired;
	p->scratch = calloc(1, sizeof(*p->scratch));
	return p->scratch ? 0 : -ENOMEM;
}

void net_pair_free(struct net_pair *p)
{
	free(p->scratch);
}

/* Rate limits */

static bool bucket_ready(struct net_bucket *b, struct loop *loop)
{
	int64_t most = (int64_t)(b->rate / 10) + NET_MAX_FRAME;
	uint64_t now;

	if (likely(!b->rate))
		return true;
	now = time_ns();
	if (now - b->at >= REFILL_NS) { /* not so often that fractions of a byte get lost */
		b->tokens += b->at ? (int64_t)((double)(now - b->at) * (double)b->rate / 1e9) : most;
		b->tokens = MIN(b->tokens, most);
		b->at = now;
	}
	if (b->tokens > 0)
		return true;
	timer_arm_in(loop, &b->timer, (uint64_t)((double)-b->tokens / (double)b->rate * 1e9) + BURST_NS);
	return false;
}

static void bucket_take(struct net_bucket *b, size_t len)
{
	if (b->rate)
		b->tokens -= (int64_t)len;
}

/* Buffers given back, at once or coalesced */

static void rx_flush(struct net_pair *p)
{
	unsigned i;

	timer_disarm(&p->rx_timer);
	for (i = 0; i < p->nrx_held; i++)
		virtqueue_push(p->rx_held[i]);
	p->nrx_held = p->rx_held_packets = 0;
}

static void tx_flush(struct net_pair *p)
{
	unsigned i;

	timer_disarm(&p->tx_timer);
	for (i = 0; i < p->ntx_held; i++)
		virtqueue_push(p->tx_held[i]);
	p->ntx_held = 0;
}

static void rx_done(struct net_pair *p, struct element *const *e, unsigned n)
{
	const struct net_coalesce *c = &p->rx_coalesce;
	unsigned i;

	if (likely(!c->usecs) || p->nrx_held + n > NET_BATCH) {
		rx_flush(p);
		virtqueue_push_many(e, n);
		return;
	}
	for (i = 0; i < n; i++)
		p->rx_held[p->nrx_held++] = e[i];
	if (++p->rx_held_packets >= c->packets)
		rx_flush(p);
	else if (!p->rx_timer.at)
		timer_arm_in(virtqueue_loop(p->rx), &p->rx_timer, (uint64_t)c->usecs * 1000);
}

static void tx_hold(struct net_pair *p, struct element *e)
{
	const struct net_coalesce *c = &p->tx_coalesce;

	p->tx_held[p->ntx_held++] = e;
	if (p->ntx_held >= c->packets || p->ntx_held == NET_BATCH)
		tx_flush(p);
	else if (!p->tx_timer.at)
		timer_arm_in(virtqueue_loop(p->tx), &p->tx_timer, (uint64_t)c->usecs * 1000);
}

static void tx_done(struct net_pair *p, struct element *const *e, unsigned n)
{
	unsigned i;

	if (likely(!p->tx_coalesce.usecs)) {
		if (n)
			virtqueue_push_many(e, n);
		return;
	}
	for (i = 0; i < n; i++)
		tx_hold(p, e[i]);
}

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
	rx_done(p, done, count);
	p->count.rx_packets++;
	p->count.rx_bytes += len;
	bucket_take(&p->net->rx_bucket, len);
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
	if (net_needs_guest(&p->pending_hdr) & ~p->offloads) {
		p->count.rx_dropped++; /* left over from before the driver changed its mind */
		return true;
	}
	if (unlikely(p->net->pcap))
		net_tee(p->net, &tee, 1);
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
	if (!bucket_ready(&net->rx_bucket, net->b->loop)) {
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
		if (!bucket_ready(&net->rx_bucket, net->b->loop)) {
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
	rx_complete(p, &h, packet->len, 0, packet->iov, packet->n);
	return true;
}

static size_t gather(uint8_t *dst, size_t max, const struct net_packet *packet)
{
	size_t at = 0;
	unsigned i;

	for (i = 0; i < packet->n && at < max; i++) {
		size_t n = MIN(max - at, packet->iov[i].iov_len);

		memcpy(dst + at, packet->iov[i].iov_base, n);
		at += n;
	}
	return at;
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
	len = gather(head, sizeof(head), packet);
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

static bool receive(struct net_host *host, const struct net_packet *packet)
{
	struct net *net = host->net;
	struct rx_header h = {0};
	struct net_pair *p = steer(net, packet, &h);
	struct cuttings *s = &p->scratch->rx;
	unsigned i, n;
	size_t len;

	if (!p->rx || p->rx_dead) {
		p->count.rx_dropped++;
		return true;
	}
	if (!net_filter_pass(&p->filter, packet->iov, packet->n, packet->len)) {
		p->count.rx_filtered++;
		return true;
	}
	if (!bucket_ready(&net->rx_bucket, net->b->loop))
		return false;
	if (likely(!(net_needs_guest(&packet->hdr) & ~p->offloads))) {
		if (!rx_put(p, packet, &h))
			return false;
		if (unlikely(net->pcap))
			net_tee(net, packet, 1);
		return true;
	}
	if (!hand_fill(p, p->hdr_len))
		return false;
	len = gather(s->frame, NET_MAX_FRAME, packet);
	n = net_hdr_valid(&packet->hdr, len)
		    ? net_segment(&packet->hdr, s->frame, len, s->out, s->iov, s->packets, NET_SEGMENTS)
		    : 0;
	for (i = 0; i < n && rx_put(p, &s->packets[i], &h); i++)
		;
	if (unlikely(net->pcap))
		net_tee(net, s->packets, i);
	p->count.segmented++;
	if (i < n || !n)
		p->count.rx_dropped++;
	return true;
}

static inline void copy_small(uint8_t *dst, const uint8_t *src, size_t n)
{
	if (n >= 64 && n <= 128) { /* known sizes are a few instructions, and they may overlap */
		memcpy(dst, src, 64);
		memcpy(dst + n - 64, src + n - 64, 64);
	} else {
		memcpy(dst, src, n);
	}
}

/* A frame in one piece, into a buffer in one piece. False: it is not that simple, nothing was done. */
static inline bool rx_put_simple(struct net_pair *p, struct element *e, const struct net_packet *packet)
{
	struct virtio_net_hdr_v1 hdr = packet->hdr;
	size_t room = e->wr.left;
	uint8_t *at;

	if (unlikely(packet->n != 1) ||
		(!net_hdr_plain(&packet->hdr) && (net_needs_guest(&packet->hdr) & ~p->offloads)))
		return false;
	at = cursor_piece(&e->wr, NET_HDR + packet->len);
	if (unlikely(!at))
		return false;
	hdr.num_buffers = htole16(1);
	memcpy(at, &hdr, NET_HDR);
	copy_small(at + NET_HDR, packet->iov->iov_base, packet->len);
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
		rx_done(p, done, count);
	else
		for (n = 0; n < count; n++)
			rx_done(p, done + n, 1);
	return i;
}

unsigned net_receive(struct net_host *host, const struct net_packet *packet, unsigned n)
{
	struct net *net = host->net;
	struct net_pair *p = &net->pairs[0];
	unsigned i = 0;

	while (i < n) {
		if (likely(net->active == 1 && !net->rss.on && p->hdr_len == NET_HDR && p->rx &&
			    !net->rx_bucket.rate && net->pcap == NULL))
			i += receive_simple(p, packet + i, n - i);
		if (i < n && !receive(host, &packet[i++]))
			return i - 1;
	}
	return n;
}

unsigned net_deliver(struct net_host *h, const struct net_packet *packet, unsigned n)
{
	unsigned i;

	for (i = 0; i < h->net->active; i++)
		if (h->net->pairs[i].rx)
			virtqueue_refill(h->net->pairs[i].rx);
	return net_receive(h, packet, n);
}

void net_rx_wake(struct net_host *h, unsigned lane)
{
	struct net_pair *p = &h->net->pairs[lane];

	if (p->rx)
		virtqueue_wake(p->rx);
}

void net_tx_room(struct net_host *h, unsigned lane)
{
	unsigned i;

	for (i = lane; i < h->net->npairs; i += h->lanes)
		if (h->net->pairs[i].tx)
			virtqueue_wake(h->net->pairs[i].tx);
}

/* Transmission */

struct tx_batch {
	struct element *elements[NET_BATCH]; /* taken of the ring */
	unsigned taken, first;		     /* of these; the first one that is not done */
	struct net_packet packets[NET_BATCH];
	struct iovec iov[NET_BATCH_SEGS];
	unsigned n, segs; /* frames from the first one on that are not sent yet, and their pieces */
};

static void tx_give_back(struct tx_batch *t)
{
	while (t->taken > t->first)
		virtqueue_unpop(t->elements[--t->taken]);
}

/* False: the host has no room, and what was not sent is in the ring again. */
static bool tx_send(struct net_pair *p, struct tx_batch *t)
{
	struct net *net = p->net;
	struct net_host *h = net->host;
	unsigned i, n = t->n, sent = n;
	uint64_t bytes = 0;

	if (!n)
		return true;
	if (likely(__atomic_load_n(&net->link, __ATOMIC_RELAXED)))
		sent = h->ops->send(h, p->index % h->lanes, t->packets, n);
	if (unlikely(net->pcap))
		net_tee(net, t->packets, sent);
	for (i = 0; i < sent; i++)
		bytes += t->packets[i].len;
	p->count.tx_packets += sent;
	p->count.tx_bytes += bytes;
	bucket_take(&net->tx_bucket, bytes);
	tx_done(p, t->elements + t->first, sent);
	t->first += sent;
	t->n = t->segs = 0;
	if (unlikely(sent < n))
		tx_give_back(t);
	return sent == n;
}

/* Sends what is left of a frame that was cut. False: the host has no room. */
static bool tx_cuttings(struct net_pair *p)
{
	struct cuttings *t = &p->scratch->tx;
	struct net_host *h = p->net->host;
	unsigned sent = t->n;

	if (likely(!t->n))
		return true;
	if (likely(__atomic_load_n(&p->net->link, __ATOMIC_RELAXED)))
		sent = h->ops->send(h, p->index % h->lanes, t->packets + t->first, t->n);
	if (unlikely(p->net->pcap))
		net_tee(p->net, t->packets + t->first, sent);
	p->count.tx_packets += sent;
	t->first += sent;
	t->n -= sent;
	return !t->n;
}

/* One frame that the host can't take as it is. */
static bool tx_segments(struct net_pair *p, const struct net_packet *packet)
{
	struct cuttings *t = &p->scratch->tx;
	size_t len = gather(t->frame, NET_MAX_FRAME, packet);

	t->first = 0;
	t->n = net_segment(&packet->hdr, t->frame, len, t->out, t->iov, t->packets, NET_SEGMENTS);
	p->count.segmented++;
	p->count.tx_bytes += len;
	if (!t->n)
		p->count.tx_dropped++;
	bucket_take(&p->net->tx_bucket, len);
	return tx_cuttings(p);
}

/* The header, checked, and what the frame needs of the host. False: the frame is dropped. */
static bool tx_header(struct net_pair *p, struct element *e, struct net_packet *packet, uint64_t *needs)
{
	uint8_t hdr[NET_HDR_MAX];
	const void *at = cursor_piece(&e->rd, p->hdr_len);

	if (unlikely(!at)) {
		cursor_get(&e->rd, hdr, p->hdr_len);
		at = hdr;
	}
	packet->hdr.num_buffers = 0;
	memcpy(&packet->hdr, at, 10);
	packet->len = e->rd.left;
	*needs = 0;
	if (unlikely(e->rd.bad) || packet->len < NET_MIN_FRAME || packet->len > NET_MAX_FRAME)
		return false;
	if (likely(net_hdr_plain(&packet->hdr))) {
		memset(&packet->hdr, 0, sizeof(packet->hdr));
		return true;
	}
	packet->hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	*needs = net_needs(&packet->hdr);
	return net_hdr_valid(&packet->hdr, packet->len) && !(*needs & ~p->net->b->features);
}

/* The pieces of the frame; false: the batch has no place for them. */
static bool tx_pieces(struct tx_batch *t, const struct element *e, struct net_packet *packet)
{
	struct iovec *v = &t->iov[t->segs];
	unsigned i;
	size_t len = 0;

	packet->iov = v;
	packet->n = cursor_iovec(&e->rd, packet->len, v, NET_BATCH_SEGS - t->segs);
	for (i = 0; i < packet->n; i++)
		len += v[i].iov_len;
	if (len < packet->len)
		return false;
	t->segs += packet->n;
	return true;
}

static void tx_drop(struct net_pair *p, struct tx_batch *t)
{
	log_guest_warn("queue %u: a frame to send is not valid and was dropped", virtqueue_index(p->tx));
	virtqueue_count_error(p->tx);
	p->count.tx_dropped++;
	tx_done(p, &t->elements[t->first++], 1);
}

/* The next one of those taken. False: the host has no room. */
static bool tx_one(struct net_pair *p, struct tx_batch *t)
{
	struct element *e = t->elements[t->first + t->n];
	struct net_packet *packet = &t->packets[t->n], copy;
	uint64_t needs;
	bool valid = tx_header(p, e, packet, &needs);

	needs &= ~p->net->host->takes;
	if (likely(valid && !needs) && likely(tx_pieces(t, e, packet))) {
		t->n++;
		return true;
	}
	copy = *packet;
	if (!tx_send(p, t))
		return false;
	if (!valid) {
		tx_drop(p, t);
		return true;
	}
	t->packets[0] = copy;
	tx_pieces(t, e, &t->packets[0]);
	if (!needs) {
		t->n++;
		return true;
	}
	valid = tx_segments(p, &t->packets[0]);
	tx_done(p, &t->elements[t->first++], 1);
	t->segs = 0;
	if (!valid)
		tx_give_back(t);
	return valid;
}

void net_tx_ready(struct net_pair *p)
{
	struct tx_batch t;

	if (!tx_cuttings(p))
		return;
	while (bucket_ready(&p->net->tx_bucket, p->net->b->loop)) {
		t.taken = virtqueue_pop_many(p->tx, t.elements, NET_BATCH);
		if (!t.taken)
			return;
		t.first = t.n = t.segs = 0;
		while (t.first + t.n < t.taken)
			if (!tx_one(p, &t))
				return;
		if (!tx_send(p, &t))
			return;
	}
}

/* Start and stop */

void net_pair_use(struct net_pair *p)
{
	struct net_host *h = p->net->host;
	bool use = p->rx && p->index < p->net->active;

	if (use == p->used || p->index >= h->lanes || !h->ops->use)
		return;
	p->used = use;
	h->ops->use(h, p->index, use);
}

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
	rx_flush(p);
	for (i = p->nhand; i > 0; i--)
		virtqueue_unpop(hand_at(p, i - 1));
	p->nhand = 0;
	p->room = 0;
	p->pending = p->bounced = 0;
}

void net_tx_start(struct net_pair *p, struct virtqueue *q)
{
	p->tx = q;
}

void net_tx_stop(struct net_pair *p)
{
	p->scratch->tx.n = 0;
	tx_flush(p);
	p->tx = NULL;
}
