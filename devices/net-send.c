/* SPDX-License-Identifier: MIT */
/*
 * Frames from transmit queues to the host end (virtio 1.3, 5.1.6.2).
 *
 * A turn's buffers become a batch of frames whose bytes stay in guest memory, with a checked copy of each header; the host takes
 * them in one call, as far as it can, and what it did not take goes back to the ring until it has room. A frame that asks for
 * more than the host can do is made into some that ask for nothing first.
 */
#include <string.h>

#include "net-queue.h"

void net_tx_room(struct net_host *h, unsigned lane)
{
	unsigned i;

	for (i = lane; i < h->net->npairs; i += h->lanes)
		if (h->net->pairs[i].tx)
			virtqueue_wake(h->net->pairs[i].tx);
}

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

/* How many of n are sent, or lost because there is no link. */
static unsigned tx_host(struct net_pair *p, const struct net_packet *packets, unsigned n)
{
	struct net *net = p->net;
	struct net_host *h = net->host;
	unsigned i, sent;
	uint64_t bytes = 0;

	if (net_unlinked(net)) {
		p->count.tx_dropped += n;
		return n;
	}
	sent = h->ops->send(h, p->index % h->lanes, packets, n);
	if (unlikely(net->pcap))
		net_tee(net, packets, sent);
	for (i = 0; i < sent; i++)
		bytes += packets[i].len;
	p->count.tx_packets += sent;
	p->count.tx_bytes += bytes;
	net_bucket_take(&net->tx_bucket, bytes);
	return sent;
}

/* False: the host has no room, and what was not sent is in the ring again. */
static bool tx_send(struct net_pair *p, struct tx_batch *t)
{
	unsigned n = t->n, sent;

	if (!n)
		return true;
	sent = tx_host(p, t->packets, n);
	net_tx_done(p, t->elements + t->first, sent);
	t->first += sent;
	t->n = t->segs = 0;
	if (unlikely(sent < n))
		tx_give_back(t);
	return sent == n;
}

/* Sends what is left of a frame that was cut. False: the host has no room. */
static bool tx_cuttings(struct net_pair *p)
{
	struct net_cuttings *t = &p->scratch->tx;
	unsigned sent;

	if (likely(!t->n))
		return true;
	sent = tx_host(p, t->packets + t->first, t->n);
	t->first += sent;
	t->n -= sent;
	return !t->n;
}

/* One frame that the host can't take as it is. */
static bool tx_segments(struct net_pair *p, const struct net_packet *packet)
{
	struct net_cuttings *t = &p->scratch->tx;
	size_t len = net_gather(t->frame, NET_MAX_FRAME, packet);

	t->first = 0;
	t->n = net_segment(&packet->hdr, t->frame, len, t->out, t->iov, t->packets, NET_SEGMENTS);
	p->count.segmented++;
	if (!t->n)
		p->count.tx_dropped++;
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
	const struct cursor *c = &e->rd;
	struct iovec *v = &t->iov[t->segs];
	unsigned i;
	size_t len = 0;

	packet->iov = v;
	if (likely(packet->len <= c->iov->iov_len - c->off && t->segs < NET_BATCH_SEGS)) {
		*v = (struct iovec){(uint8_t *)c->iov->iov_base + c->off, packet->len};
		packet->n = 1;
		t->segs++;
		return true;
	}
	packet->n = cursor_iovec(c, packet->len, v, NET_BATCH_SEGS - t->segs);
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
	net_tx_done(p, &t->elements[t->first++], 1);
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
	net_tx_done(p, &t->elements[t->first++], 1);
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
	while (net_bucket_ready(&p->net->tx_bucket, p->net->b->loop)) {
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

void net_tx_start(struct net_pair *p, struct virtqueue *q)
{
	p->tx = q;
}

void net_tx_stop(struct net_pair *p)
{
	p->scratch->tx.n = 0;
	net_tx_flush(p);
	p->tx = NULL;
}
