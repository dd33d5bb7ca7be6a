/* SPDX-License-Identifier: MIT */
/* Queue pairs: what reception (net-receive.c) and transmission (net-send.c) have in common. */
#include "net-queue.h"

#include <errno.h>
#include <string.h>

enum { BURST_NS = 10 * 1000 * 1000, REFILL_NS = 1000 * 1000 };

static void rx_timer_expired(struct timer *t)
{
	net_rx_flush(container_of(t, struct net_pair, rx_timer));
}

static void tx_timer_expired(struct timer *t)
{
	net_tx_flush(container_of(t, struct net_pair, tx_timer));
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

void net_pair_use(struct net_pair *p)
{
	struct net_host *h = p->net->host;
	bool use = p->rx && p->index < p->net->active;

	if (use == p->used || p->index >= h->lanes || !h->ops->use)
		return;
	p->used = use;
	h->ops->use(h, p->index, use);
}

/* Rate limits */

bool net_bucket_ready(struct net_bucket *b, struct loop *loop)
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

void net_bucket_take(struct net_bucket *b, size_t len)
{
	if (b->rate)
		b->tokens -= (int64_t)len;
}

/* Buffers given back, at once or coalesced */

void net_rx_flush(struct net_pair *p)
{
	unsigned i;

	timer_disarm(&p->rx_timer);
	for (i = 0; i < p->nrx_held; i++)
		virtqueue_push(p->rx_held[i]);
	p->nrx_held = p->rx_held_packets = 0;
}

void net_tx_flush(struct net_pair *p)
{
	unsigned i;

	timer_disarm(&p->tx_timer);
	for (i = 0; i < p->ntx_held; i++)
		virtqueue_push(p->tx_held[i]);
	p->ntx_held = 0;
}

void net_rx_done(struct net_pair *p, struct element *const *e, unsigned n)
{
	const struct net_coalesce *c = &p->rx_coalesce;
	unsigned i;

	if (likely(!c->usecs) || p->nrx_held + n > NET_BATCH) {
		net_rx_flush(p);
		virtqueue_push_many(e, n);
		return;
	}
	for (i = 0; i < n; i++)
		p->rx_held[p->nrx_held++] = e[i];
	if (++p->rx_held_packets >= c->packets)
		net_rx_flush(p);
	else if (!p->rx_timer.at)
		timer_arm_in(virtqueue_loop(p->rx), &p->rx_timer, (uint64_t)c->usecs * 1000);
}

static void tx_hold(struct net_pair *p, struct element *e)
{
	const struct net_coalesce *c = &p->tx_coalesce;

	p->tx_held[p->ntx_held++] = e;
	if (p->ntx_held >= c->packets || p->ntx_held == NET_BATCH)
		net_tx_flush(p);
	else if (!p->tx_timer.at)
		timer_arm_in(virtqueue_loop(p->tx), &p->tx_timer, (uint64_t)c->usecs * 1000);
}

void net_tx_done(struct net_pair *p, struct element *const *e, unsigned n)
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

size_t net_gather(uint8_t *dst, size_t max, const struct net_packet *packet)
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
