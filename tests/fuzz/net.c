/* SPDX-License-Identifier: MIT */
/*
 * The network device between a hostile driver and a hostile wire: the input of this test is a list of steps that send frames with any
 * header, give receive buffers of any size, run commands of the control queue, let frames come, and stop and start queues.
 *
 * The host end is made up here. Checked besides the sanitizers' rules: the host gets frames whose headers make sense and ask for no
 * more than it can, the driver gets frames whose buffers are complete, and commands change nothing that is out of bounds.
 */
enum { PAIRS = 2, BUFFERS = 600 };

#include "net-cards.h"

#include "move.h"

enum { STEPS_MAX = 300, SPACE = 70000 };

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

static struct {
	struct card card;
	struct net_host host;
	struct input in;
	bool pull, full;
	uint8_t frame[SPACE];
	size_t frame_len; /* 0: none is there */
	struct virtio_net_hdr_v1 frame_hdr;
} f;

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

NO_HOST(net_switch_open)

static void card_got(struct card *c, const uint8_t *bytes, size_t len, unsigned more)
{
	(void)c;
	(void)bytes;
	(void)len;
	(void)more;
}

/* Steps */

static void turn(void)
{
	unsigned i;

	loop_stop(f.card.b.loop);
	loop_run(f.card.b.loop);
	for (i = 0; i < 1000; i++) {
		if (!card_turn(&f.card))
			return;
	}
	require(false, "the queues come to rest");
}

static size_t any_size(void)
{
	uint16_t v = input_u16(&f.in);

	return v < 0xf000 ? v % 2200 : SPACE - v % 5000;
}

static void step_send(bool ip)
{
	unsigned pair = input_u8(&f.in) % PAIRS;

	card_send(&f.card, pair, any_size(), ip, &f.in);
}

static void step_buffers(void)
{
	struct virtqueue *q = &f.card.queue[input_u8(&f.in) % PAIRS * 2];
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
	f.frame_hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
	if (!net_hdr_valid(&f.frame_hdr, f.frame_len)) /* a host end sees to that */
		memset(&f.frame_hdr, 0, sizeof(f.frame_hdr));
	for (i = 0; i < PAIRS; i++)
		f.card.queue[i * 2].woken = true;
}

static void step_command(void)
{
	card_command(&f.card, &f.in);
	turn();
	card_right(&f.card);
}

/* Another process goes on with the state of this one, or with what became of it on the way. */
static void step_state(void)
{
	unsigned i;

	for (i = 0; i < CARD_QUEUES; i++)
		card_stop(&f.card, i);
	require(move_state(&f.card.b, &f.in) != MOVE_REFUSED, "it can always be saved");
	for (i = 0; i < CARD_QUEUES; i++)
		card_start(&f.card, i);
	card_right(&f.card);
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
		card_stop(&f.card, input_u8(&f.in) % CARD_QUEUES);
		break;
	case OP_START:
		for (i = 0; i < CARD_QUEUES; i++)
			card_start(&f.card, i);
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
		send_rarp(f.card.net, (const uint8_t *)"\1\2\3\4\5\6");
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
	struct loop *loop;
	unsigned i;

	log_set_level(LOG_LEVEL_ERROR);
	require(loop_new(&loop, "fuzz") == 0, "memory");
	card_init(&f.card, loop);
	f.pull = how & 1;
	f.full = false;
	f.frame_len = 0;
	f.host = (struct net_host){.ops = f.pull ? &pull_ops : &push_ops,
		.kind = "fuzz",
		.lanes = how & 2 ? PAIRS : 1,
		.takes = NET_HOST_OFFLOADS & ~lacks[how >> 2 & 3],
		.gives = NET_GUEST_OFFLOADS};
	if (!f.pull)
		f.host.lanes = 1;
	require(net_open(&f.card.b) == 0, "the device opens");
	f.card.b.features = (f.card.b.offered | BIT(FEATURE_VERSION_1)) & ~input_u64(&f.in);
	for (i = 0; i < CARD_QUEUES; i++)
		card_start(&f.card, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned i;

	f.in = (struct input){data, data + size};
	set_up();
	for (i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	for (i = 0; i < CARD_QUEUES; i++)
		card_stop(&f.card, i);
	net_reset(&f.card.b);
	net_close(&f.card.b);
	loop_free(f.card.b.loop);
	card_free(&f.card);
	return 0;
}

/* Regular use, on each kind of host end, with and without mergeable buffers. */
void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t tcp[10] = {1, 1, 54, 0, 100, 0, 34, 0, 16, 0};
	static const uint8_t valid[10] = {VIRTIO_NET_HDR_F_DATA_VALID};
	unsigned how, i;
	static char names[16][8];

	for (how = 0; how < 16; how++) {
		struct seed s = {.n = 0};

		seed_u8(&s, (uint8_t)how);
		seed_u64(&s, how & 4   ? BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(57)
			     : how & 8 ? BIT(57) | BIT(60) | BIT(VIRTIO_NET_F_GUEST_CSUM)
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
			seed_u8(&s, i == 1);
			if (i == 1)
				seed_put(&s, valid, sizeof(valid));
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
