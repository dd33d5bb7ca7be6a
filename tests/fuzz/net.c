/* SPDX-License-Identifier: MIT */
/*
 * The network device between a hostile driver and a hostile wire: the input of this test is a list of steps that send frames with any
 * header, give receive buffers of any size, run commands of the control queue, let frames come, and stop and start queues.
 *
 * The device's files are part of this one; queues and the host end are made up here. Checked besides the sanitizers' rules: the host
 * gets frames whose headers make sense and ask for no more than it can, the driver gets frames whose buffers are complete, and
 * commands change nothing that is out of bounds.
 */
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
#include "move.h"

enum { STEPS_MAX = 300, PAIRS = 2, BUFFERS = 600, SPACE = 70000, PIECES = 7 };

enum {
	OP_SEND,
	OP_SEND_IP,
	OP_BUFFERS,
	OP_FRAME,
	OP_COMMAND,
	OP_STOP,
	OP_START,
	OP_FULL,
	OP_RARP,
	OP_STATE,
	OP_LINK,
	OPS
};

struct buffer {
	struct element e;
	struct iovec iov[PIECES];
	uint8_t *bytes;
	bool out;
};

struct virtqueue {
	unsigned index, first, n; /* waiting buffers: indices first…first + n of order */
	unsigned order[BUFFERS];
	bool running, broken, woken;
	struct buffer buffer[BUFFERS];
	unsigned next;
};

static struct {
	struct backend b;
	struct net *net;
	struct net_host host;
	struct virtqueue queue[PAIRS * 2 + 1];
	uint8_t config[sizeof(struct virtio_net_config)];
	struct input in;
	bool pull, full;
	uint8_t frame[SPACE];
	size_t frame_len; /* 0: none is there */
	struct virtio_net_hdr_v1 frame_hdr;
	unsigned owed; /* buffers of the frame that is being given to the driver */
} f;

/* The core, as far as a network device sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct buffer *b;

	require(!f.owed, "no pop between the buffers of a frame");
	if (q->broken || !q->running || !q->n)
		return NULL;
	b = &q->buffer[q->order[q->first % BUFFERS]];
	q->first++;
	q->n--;
	b->out = true;
	return &b->e;
}

static void check_received(struct virtqueue *q, struct buffer *b)
{
	struct net_pair *p = &f.net->pairs[q->index / 2];
	struct virtio_net_hdr_v1 h;

	if (!f.owed) {
		require(b->e.wr.done >= p->hdr_len + (p->mergeable ? 0 : NET_MIN_FRAME),
			"a frame has a header");
		memcpy(&h, b->iov[0].iov_base, MIN(b->iov[0].iov_len, sizeof(h)));
		if (b->iov[0].iov_len < sizeof(h))
			return;
		if (p->hdr_len >= NET_HDR)
			f.owed = le16toh(h.num_buffers);
		else
			f.owed = 1;
		require(f.owed > 0 && (p->mergeable || f.owed == 1), "the number of buffers");
		require(!(net_needs_guest(&h) & ~p->offloads), "the driver takes the frame");
	}
	f.owed--;
}

void virtqueue_push(struct element *e)
{
	struct virtqueue *q = e->queue;
	struct buffer *b = container_of(e, struct buffer, e);

	require(b->out, "a buffer comes back once");
	b->out = false;
	if (q->index % 2 == 0 && (int)q->index != net_ctrl_index(f.net))
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
	(void)q;
	return f.b.loop;
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

/* The host end */

static unsigned host_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	unsigned i, k;

	require(lane < h->lanes, "the lane exists");
	for (i = 0; i < n; i++) {
		size_t len = 0;
		uint8_t sum = 0;

		require(p[i].len >= NET_MIN_FRAME && p[i].len <= NET_MAX_FRAME, "the frame's size");
		require(!(net_needs(&p[i].hdr) & ~h->takes), "no more than the host can");
		require(!net_needs(&p[i].hdr) || net_hdr_valid(&p[i].hdr, p[i].len),
			"the header makes sense");
		for (k = 0; k < p[i].n; k++) {
			const uint8_t *bytes = p[i].iov[k].iov_base;

			len += p[i].iov[k].iov_len;
			for (size_t at = 0; at < p[i].iov[k].iov_len; at += 97)
				sum ^= bytes[at];
		}
		require(len == p[i].len || sum == 255 - sum, "the pieces are the frame");
	}
	return f.full ? n / 2 : n;
}

static ssize_t host_recv(struct net_host *h, unsigned lane, struct iovec *v, unsigned n)
{
	struct iovec frame = {f.frame, f.frame_len};
	size_t at = 0;

	(void)h;
	(void)lane;
	if (!f.frame_len)
		return -EAGAIN;
	memcpy(v[0].iov_base, &f.frame_hdr, NET_HDR);
	for (unsigned i = 1; i < n && at < frame.iov_len; i++) {
		size_t m = MIN(v[i].iov_len, frame.iov_len - at);

		memcpy(v[i].iov_base, f.frame + at, m);
		at += m;
	}
	require(at == f.frame_len, "there is room for any frame");
	f.frame_len = 0;
	return (ssize_t)(NET_HDR + at);
}

static void host_listen(struct net_host *h, unsigned lane, struct loop *loop, bool on)
{
	(void)h;
	(void)lane;
	(void)loop;
	(void)on;
}

static void host_room(struct net_host *h)
{
	struct iovec v[2] = {
		{f.frame, f.frame_len / 2}, {f.frame + f.frame_len / 2, f.frame_len - f.frame_len / 2}};
	struct net_packet p = {.hdr = f.frame_hdr, .iov = v, .n = 2, .len = f.frame_len};

	if (f.frame_len && net_receive(h, &p, 1))
		f.frame_len = 0;
}

static void host_close(struct net_host *h)
{
	(void)h;
}

static const struct net_host_ops pull_ops = {
	.close = host_close, .send = host_send, .recv = host_recv, .listen = host_listen};
static const struct net_host_ops push_ops = {.close = host_close, .send = host_send, .room = host_room};

int net_user_open(struct net_host **out, struct net *net)
{
	f.host.net = net;
	f.host.loop = net->b->loop;
	net_link(&f.host, true);
	*out = &f.host;
	return 0;
}

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
NO_HOST(net_switch_open)

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

/* Steps */

static void turn(void)
{
	unsigned i, k;

	loop_stop(f.b.loop);
	loop_run(f.b.loop);
	for (i = 0; i < 1000; i++) {
		bool any = false;

		for (k = 0; k < ARRAY_SIZE(f.queue); k++) {
			struct virtqueue *q = &f.queue[k];

			if (!q->woken || !q->running || q->broken)
				continue;
			q->woken = false;
			any = true;
			net_ready(&f.b, q);
			require(!f.owed, "a frame's buffers come together");
		}
		if (!any)
			return;
	}
	require(false, "the queues come to rest");
}

/* A buffer of len bytes in some pieces; nrd of them are for reading. */
static struct buffer *offer(struct virtqueue *q, size_t rd, size_t wr, unsigned pieces)
{
	struct buffer *b = NULL;
	size_t at = 0, len = rd + wr;
	unsigned i, n = 0, nrd;

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
	nrd = n;
	if (wr)
		b->iov[n++] = (struct iovec){b->bytes + rd, wr};
	cursor_init(&b->e.rd, b->iov, nrd);
	cursor_init(&b->e.wr, b->iov + nrd, n - nrd);
	q->order[(q->first + q->n) % BUFFERS] = (unsigned)(b - q->buffer);
	q->n++;
	q->woken = true;
	return b;
}

static size_t any_size(void)
{
	uint16_t v = input_u16(&f.in);

	return v < 0xf000 ? v % 2200 : SPACE - v % 5000;
}

static void step_send(bool ip)
{
	static const uint8_t heads[4][16] = {{8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6},
		{0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64},
		{0x81, 0, 0, 5, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17},
		{8, 0, 0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17}};
	struct virtqueue *q = &f.queue[1 + input_u8(&f.in) % PAIRS * 2];
	struct net_pair *p = &f.net->pairs[q->index / 2];
	size_t len = any_size();
	uint8_t head[64];
	struct buffer *b = offer(q, len, 0, input_u8(&f.in) % 5 + 1);

	input_bytes(&f.in, head, sizeof(head));
	if (!b)
		return;
	if (ip)
		memcpy(head + MIN(p->hdr_len, 20u) + 12, heads[head[63] % 4], 16);
	memcpy(b->bytes, head, MIN(len, sizeof(head)));
}

static void step_buffers(void)
{
	struct virtqueue *q = &f.queue[input_u8(&f.in) % PAIRS * 2];
	unsigned n = input_u8(&f.in) % 80 + 1;
	size_t size = any_size() + 1;

	while (n--)
		offer(q, 0, size, 1);
}

static void step_frame(void)
{
	unsigned i;

	if (f.frame_len)
		return;
	memset(&f.frame_hdr, 0, sizeof(f.frame_hdr));
	f.frame_len = any_size() + NET_MIN_FRAME;
	f.frame_len = MIN(f.frame_len, (size_t)NET_MAX_FRAME);
	input_bytes(&f.in, f.frame, 60);
	if (input_u8(&f.in) & 1)
		input_bytes(&f.in, &f.frame_hdr, 10);
	f.frame_hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	if (!net_hdr_valid(&f.frame_hdr, f.frame_len)) /* a host end sees to that */
		memset(&f.frame_hdr, 0, sizeof(f.frame_hdr));
	for (i = 0; i < PAIRS; i++)
		f.queue[i * 2].woken = true;
}

static void state_right(void)
{
	unsigned i;

	require(f.net->filter.count <= NET_MACS && f.net->filter.first_multi <= f.net->filter.count,
		"the filter's size");
	require(f.net->active >= 1 && f.net->active <= PAIRS, "the pairs in use");
	require(f.net->rss.mask < NET_RSS_TABLE, "the table's size");
	for (i = 0; i < NET_RSS_TABLE; i++)
		require(f.net->rss.table[i] < PAIRS, "the table's entries");
	require(!(f.net->guest_offloads & ~f.b.features), "offloads that were negotiated");
}

static void step_command(void)
{
	int ctrl = net_ctrl_index(f.net);
	uint8_t wr;
	size_t n = input_u8(&f.in);
	struct buffer *b;

	if (ctrl < 0)
		return;
	wr = input_u8(&f.in);
	b = offer(&f.queue[ctrl], n, wr % 8 ? 1u + wr / 16 : 0, 2);
	if (b)
		input_bytes(&f.in, b->bytes, n);
	turn();
	state_right();
}

static void start(unsigned i)
{
	struct virtqueue *q = &f.queue[i];

	if (q->running)
		return;
	q->broken = false;
	q->running = q->woken = true;
	require(net_start(&f.b, q) == 0, "queues start");
}

static void stop(unsigned i)
{
	struct virtqueue *q = &f.queue[i];
	unsigned k;

	if (!q->running)
		return;
	net_stop(&f.b, q);
	q->running = false;
	for (k = 0; k < BUFFERS; k++)
		require(!q->buffer[k].out, "all buffers came back");
}

/* Another process goes on with the state of this one, or with what became of it on the way. */
static void step_state(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		stop(i);
	require(move_state(&f.b, &f.in) != MOVE_REFUSED, "it can always be saved");
	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		start(i);
	state_right();
}

static void step(void)
{
	unsigned i;

	switch (input_u8(&f.in) % OPS) {
	case OP_SEND:
		step_send(false);
		break;
	case OP_SEND_IP:
		step_send(true);
		break;
	case OP_BUFFERS:
		step_buffers();
		break;
	case OP_FRAME:
		step_frame();
		break;
	case OP_COMMAND:
		step_command();
		break;
	case OP_STOP:
		stop(input_u8(&f.in) % ARRAY_SIZE(f.queue));
		break;
	case OP_START:
		for (i = 0; i < ARRAY_SIZE(f.queue); i++)
			start(i);
		break;
	case OP_FULL:
		f.full = !f.full;
		for (i = 0; i < f.host.lanes; i++)
			net_tx_room(&f.host, i);
		break;
	case OP_STATE:
		step_state();
		break;
	case OP_RARP:
		send_rarp(f.net, (const uint8_t *)"\1\2\3\4\5\6");
		break;
	default:
		net_link(&f.host, input_u8(&f.in) & 1);
	}
	turn();
}

static void set_up(void)
{
	static const uint64_t lacks[] = {
		0, NET_HOST_OFFLOADS, BIT(NET_F_HOST_USO), BIT(VIRTIO_NET_F_HOST_TSO4)};
	uint8_t how = input_u8(&f.in);
	unsigned i;

	log_set_level(LOG_LEVEL_ERROR);
	f.b = (struct backend){.dev = &device_net, .config = f.config, .offered = device_net.features};
	f.net = calloc(1, sizeof(*f.net));
	require(f.net && loop_new(&f.b.loop, "fuzz") == 0, "memory");
	f.b.state = f.net;
	memset(f.config, 0, sizeof(f.config));
	memset(f.queue, 0, sizeof(f.queue));
	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		f.queue[i].index = i;
	f.pull = how & 1;
	f.full = false;
	f.frame_len = f.owed = 0;
	f.host = (struct net_host){.ops = f.pull ? &pull_ops : &push_ops,
		.kind = "fuzz",
		.lanes = how & 2 ? PAIRS : 1,
		.takes = NET_HOST_OFFLOADS & ~lacks[how >> 2 & 3],
		.gives = NET_GUEST_OFFLOADS};
	if (!f.pull)
		f.host.lanes = 1;
	f.net->npairs = PAIRS;
	f.net->threads_given = f.net->offload = f.net->mac_given = true;
	require(net_open(&f.b) == 0, "the device opens");
	f.b.features = (f.b.offered | BIT(FEATURE_VERSION_1)) & ~input_u64(&f.in);
	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		start(i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned i, k;

	f.in = (struct input){data, data + size};
	set_up();
	for (i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		stop(i);
	net_reset(&f.b);
	net_close(&f.b);
	for (i = 0; i < ARRAY_SIZE(f.queue); i++)
		for (k = 0; k < BUFFERS; k++)
			free(f.queue[i].buffer[k].bytes);
	loop_free(f.b.loop);
	free(f.net);
	return 0;
}

/* Regular use, on each kind of host end, with and without mergeable buffers. */
void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t tcp[10] = {1, 1, 54, 0, 100, 0, 34, 0, 16, 0};
	unsigned how, i;
	static char names[16][8];

	for (how = 0; how < 16; how++) {
		struct seed s = {.n = 0};

		seed_u8(&s, (uint8_t)how);
		seed_u64(&s, how & 4   ? BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(57)
			     : how & 8 ? BIT(57) | BIT(60)
				       : 0);
		for (i = 0; i < 4; i++) {
			seed_u8(&s, OP_BUFFERS);
			seed_u8(&s, (uint8_t)i);
			seed_u8(&s, 60);
			seed_u16(&s, 1536);
		}
		for (i = 0; i < 3; i++) {
			seed_u8(&s, OP_FRAME);
			seed_u16(&s, i == 2 ? 0xffff : 1000);
			for (unsigned k = 0; k < 60; k++)
				seed_u8(&s, (uint8_t)(k * i));
			seed_u8(&s, 0);
		}
		for (i = 0; i < 4; i++) {
			seed_u8(&s, OP_SEND_IP);
			seed_u8(&s, (uint8_t)i);
			seed_u16(&s, 1100);
			seed_u8(&s, (uint8_t)i);
			seed_put(&s, tcp, 10);
			for (unsigned k = 0; k < 54; k++)
				seed_u8(&s, k == 53 ? 0 : 0x50);
		}
		for (i = 0; i < 7; i++) {
			seed_u8(&s, OP_COMMAND);
			seed_u8(&s, 20);
			seed_u8(&s, 1);
			seed_u8(&s, (uint8_t)i);
			for (unsigned k = 0; k < 19; k++)
				seed_u8(&s, k < 2 ? (uint8_t)k : 0);
		}
		seed_u8(&s, OP_STOP);
		seed_u8(&s, 0);
		seed_u8(&s, OP_START);
		seed_u8(&s, OP_FULL);
		seed_u8(&s, OP_SEND);
		seed_u8(&s, 0);
		seed_u16(&s, 100);
		snprintf(names[how], sizeof(names[how]), "host%u", how);
		emit(names[how], s.bytes, s.n);
	}
}
