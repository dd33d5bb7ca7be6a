/* SPDX-License-Identifier: MIT */
/*
 * Network cards for fuzz targets: the device's files, and queues that are made up here. A target says in PAIRS and BUFFERS how many
 * there are of each, and looks at what a driver got in card_got().
 */
#ifndef TESTS_FUZZ_NET_CARDS_H
#define TESTS_FUZZ_NET_CARDS_H

#include "fuzz.h"
#include "pop-many.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../devices/net-ctrl.c"
#include "../../devices/net-filter.c"
#include "../../devices/net-offload.c"
#include "../../devices/net-queue.c"
#include "../../devices/net-receive.c"
#include "../../devices/net-send.c"
#include "../../devices/net-state.c"
#include "../../devices/net.c"

enum { PIECES = 7, CARD_QUEUES = PAIRS * 2 + 1 };

struct buffer {
	struct element e;
	struct iovec iov[PIECES];
	unsigned nrd, nwr; /* of iov */
	uint8_t *bytes;
	bool out;
};

struct virtqueue {
	struct card *card;
	unsigned index, first, n; /* waiting buffers: indices first…first + n of order */
	unsigned order[BUFFERS];
	bool running, broken, woken;
	struct buffer buffer[BUFFERS];
	unsigned next;
};

struct card {
	struct backend b;
	struct net *net;
	struct virtqueue queue[CARD_QUEUES];
	uint8_t config[sizeof(struct virtio_net_config)];
	unsigned owed; /* buffers of the frame that is being given to the driver */
};

/* One more buffer of a frame, of which more follow. */
static void card_got(struct card *c, const uint8_t *bytes, size_t len, unsigned more);

/* The core, as far as a network device sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct buffer *b;

	require(!q->card->owed, "no pop between the buffers of a frame");
	if (q->broken || !q->running || !q->n)
		return NULL;
	b = &q->buffer[q->order[q->first % BUFFERS]];
	q->first++;
	q->n--;
	cursor_init(&b->e.rd, b->iov, b->nrd);
	cursor_init(&b->e.wr, b->iov + b->nrd, b->nwr);
	b->out = true;
	return &b->e;
}

static void check_received(struct virtqueue *q, struct buffer *b)
{
	struct card *c = q->card;
	struct net_pair *p = &c->net->pairs[q->index / 2];
	struct virtio_net_hdr_v1 h;

	if (!c->owed) {
		require(b->e.wr.done >= p->hdr_len + (p->mergeable ? 0 : NET_MIN_FRAME),
			"a frame has a header");
		memcpy(&h, b->iov[0].iov_base, MIN(b->iov[0].iov_len, sizeof(h)));
		if (b->iov[0].iov_len < sizeof(h))
			return;
		if (p->hdr_len >= NET_HDR)
			c->owed = le16toh(h.num_buffers);
		else
			c->owed = 1;
		require(c->owed > 0 && (p->mergeable || c->owed == 1), "the number of buffers");
		require(!(net_needs_guest(&h) & ~p->offloads), "the driver takes the frame");
		require(!h.flags || p->offloads & BIT(VIRTIO_NET_F_GUEST_CSUM),
			"flags that the driver knows");
	}
	card_got(c, b->iov[0].iov_base, b->e.wr.done, --c->owed);
}

void virtqueue_push(struct element *e)
{
	struct virtqueue *q = e->queue;
	struct buffer *b = container_of(e, struct buffer, e);

	require(b->out, "a buffer comes back once");
	b->out = false;
	if (q->index % 2 == 0 && (int)q->index != net_ctrl_index(q->card->net))
		check_received(q, b);
	free(b->bytes);
	b->bytes = NULL;
}

void virtqueue_push_many(struct element *const *e, unsigned n)
{
	require(n > 0, "some are pushed");
	for (unsigned i = 0; i < n; i++)
		virtqueue_push(e[i]);
}

void virtqueue_unpop(struct element *e)
{
	struct virtqueue *q = e->queue;
	struct buffer *b = container_of(e, struct buffer, e);

	require(b->out, "a buffer comes back once");
	b->out = false;
	q->first--;
	q->n++;
	q->order[q->first % BUFFERS] = (unsigned)(b - q->buffer);
}

void virtqueue_wake(void *arg)
{
	struct virtqueue *q = arg;

	q->woken = true;
}

void virtqueue_refill(struct virtqueue *q)
{
	(void)q;
}

void virtqueue_break(struct virtqueue *q, const char *fmt, ...)
{
	(void)fmt;
	q->broken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	return q->card->b.loop;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	(void)q;
	return false;
}

bool virtqueue_resumed(const struct virtqueue *q)
{
	(void)q;
	return false;
}

void backend_config_changed(struct backend *b)
{
	(void)b;
}

bool backend_event_wanted(const struct backend *b)
{
	(void)b;
	return false;
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	(void)b;
	(void)name;
	(void)data;
}

/* What is behind the cards, unless the target has it */

#define NO_HOST(name)                                    \
	int name(struct net_host **out, struct net *net) \
	{                                                \
		(void)out;                               \
		(void)net;                               \
		return -ENODEV;                          \
	}

NO_HOST(net_tap_open)
NO_HOST(net_stream_open)
NO_HOST(net_dgram_open)
NO_HOST(net_packet_open)

const char *user_net_check_forward(const char *text)
{
	(void)text;
	return NULL;
}

int net_pcap_open(struct net *net)
{
	(void)net;
	return 0;
}

void net_tee(struct net *net, const struct net_packet *p, unsigned n)
{
	(void)net;
	(void)p;
	(void)n;
}

/* A buffer of rd bytes to read in some pieces, and wr to write. NULL: there are too many. */
static struct buffer *offer(struct virtqueue *q, size_t rd, size_t wr, unsigned pieces)
{
	struct buffer *b = NULL;
	size_t at = 0, len = rd + wr;
	unsigned i, n = 0;

	for (i = 0; i < BUFFERS && !b; i++)
		if (!q->buffer[q->next++ % BUFFERS].bytes)
			b = &q->buffer[(q->next - 1) % BUFFERS];
	if (!b || !len)
		return NULL;
	b->bytes = malloc(len);
	require(b->bytes != NULL, "memory");
	memset(b->bytes, 0, len);
	b->e = (struct element){.queue = q};
	for (i = 0; i < pieces && at < rd; i++) {
		size_t m = i + 1 == pieces ? rd - at : MIN(rd - at, rd / pieces + 1);

		b->iov[n++] = (struct iovec){b->bytes + at, m};
		at += m;
	}
	b->nrd = n;
	b->nwr = wr > 0;
	if (wr)
		b->iov[n] = (struct iovec){b->bytes + rd, wr};
	q->order[(q->first + q->n) % BUFFERS] = (unsigned)(b - q->buffer);
	q->n++;
	q->woken = true;
	return b;
}

/* Life */

/* Its loop is the caller's; the options come between this and net_open(). */
static void card_init(struct card *c, struct loop *loop)
{
	memset(c, 0, sizeof(*c));
	c->net = calloc(1, sizeof(*c->net));
	require(c->net != NULL, "memory");
	c->net->npairs = PAIRS;
	c->net->threads_given = c->net->offload = c->net->mac_given = true;
	c->b = (struct backend){.dev = &device_net,
		.state = c->net,
		.config = c->config,
		.loop = loop,
		.offered = device_net.features};
	for (unsigned i = 0; i < CARD_QUEUES; i++) {
		c->queue[i].index = i;
		c->queue[i].card = c;
	}
}

static void card_start(struct card *c, unsigned i)
{
	struct virtqueue *q = &c->queue[i];

	if (q->running)
		return;
	q->broken = false;
	q->running = q->woken = true;
	require(net_start(&c->b, q) == 0, "queues start");
}

static void card_stop(struct card *c, unsigned i)
{
	struct virtqueue *q = &c->queue[i];

	if (!q->running)
		return;
	net_stop(&c->b, q);
	q->running = false;
	for (unsigned k = 0; k < BUFFERS; k++)
		require(!q->buffer[k].out, "all buffers came back");
}

static void card_free(struct card *c)
{
	for (unsigned i = 0; i < CARD_QUEUES; i++)
		for (unsigned k = 0; k < BUFFERS; k++)
			free(c->queue[i].buffer[k].bytes);
	free(c->net);
}

/* Each queue that was woken has its turn. False: there was none. */
static bool card_turn(struct card *c)
{
	bool any = false;

	for (unsigned i = 0; i < CARD_QUEUES; i++) {
		struct virtqueue *q = &c->queue[i];

		if (!q->woken || !q->running || q->broken)
			continue;
		q->woken = false;
		any = true;
		net_ready(&c->b, q);
		require(!c->owed, "a frame's buffers come together");
	}
	return any;
}

static void card_right(const struct card *c)
{
	const struct net *net = c->net;

	require(net->filter.count <= NET_MACS && net->filter.first_multi <= net->filter.count,
		"the filter's size");
	require(net->active >= 1 && net->active <= PAIRS, "the pairs in use");
	require(net->rss.mask < NET_RSS_TABLE, "the table's size");
	for (unsigned i = 0; i < NET_RSS_TABLE; i++)
		require(net->rss.table[i] < PAIRS, "the table's entries");
	require(!(net->guest_offloads & ~c->b.features), "offloads that were negotiated");
}

/* A command of the control queue; the caller looks at what became of it after the turn. */
static void card_command(struct card *c, struct input *in)
{
	int ctrl = net_ctrl_index(c->net);
	uint8_t wr;
	size_t n = input_u8(in);
	struct buffer *b;

	if (ctrl < 0)
		return;
	wr = input_u8(in);
	b = offer(&c->queue[ctrl], n, wr % 8 ? 1u + wr / 16 : 0, 2);
	if (b)
		input_bytes(in, b->bytes, n);
}

/* A frame of len bytes with its header, which nothing need be true of; ip: it may be taken for IP. */
static struct buffer *card_send(struct card *c, unsigned pair, size_t len, bool ip, struct input *in)
{
	static const uint8_t heads[4][16] = {{8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6},
		{0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64},
		{0x81, 0, 0, 5, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17},
		{8, 0, 0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17}};
	uint8_t head[64];
	struct buffer *b = offer(&c->queue[1 + pair * 2], len, 0, input_u8(in) % 5 + 1);

	input_bytes(in, head, sizeof(head));
	if (!b)
		return NULL;
	if (ip)
		memcpy(head + MIN(c->net->pairs[pair].hdr_len, 20u) + 12, heads[head[63] % 4], 16);
	memcpy(b->bytes, head, MIN(len, sizeof(head)));
	return b;
}

#endif
