/* SPDX-License-Identifier: MIT */
/*
 * Three guests of one process on its switch: two that behave, and a hostile one. The input is a list of steps that send frames of all of
 * them, give buffers, run commands, let time go by, and stop and start queues.
 *
 * Checked besides the sanitizers' rules: what the two send arrives as it was sent, in its order, once, and not at its sender; their
 * queues don't break; and in the end, whatever the third did, all that they want to send is gone after a while, and they
 * reach each other. The third doesn't pretend to be one of them: a switch that learns would believe that.
 */
enum { PAIRS = 1, BUFFERS = 160 };

#include "net-cards.h"

static uint64_t now = 1;

#define loop_now(loop) ((void)(loop), now)

#include "../../devices/net-ring.c"
#include "../../devices/net-switch.c"

enum { STEPS_MAX = 200, CARDS = 3, HOSTILE = 2, SPACE = 70000, BUFFER = 2048, ROUNDS = 300 };

enum {
	OP_TALK,
	OP_ATTACK,
	OP_ATTACK_IP,
	OP_BUFFERS,
	OP_COMMAND,
	OP_STOP,
	OP_START,
	OP_RESET,
	OP_LINK,
	OP_TIME,
	OP_RARP,
	OPS
};

static struct {
	struct card card[CARDS];
	struct loop *loop;
	struct input in;
	uint32_t sent,
		got[CARDS][CARDS];   /* numbers of frames: the last one, and the last one of each to each */
	uint8_t frame[CARDS][SPACE]; /* that a card is getting now */
	size_t have[CARDS];
} f;

/* What else a switch needs of its surroundings */

NO_HOST(net_user_open)

struct backend *backend_of_socket(struct backend *b, unsigned i)
{
	(void)b;
	return &f.card[i].b;
}

int mesh_open(struct port *p)
{
	(void)p;
	return -ENODEV;
}

void mesh_close(struct port *p)
{
	(void)p;
}

void peer_close(struct peer *peer)
{
	(void)peer;
}

void peer_wake(const struct peer *peer)
{
	(void)peer;
}

/* Frames of those that behave: addresses, type, number, length, and bytes that depend on the number */

enum { FRAME_MIN = 20, HOSTILE_MAC = 0x0a };

static void mac_of(uint8_t *mac, unsigned card)
{
	const uint8_t bytes[6] = {0x52, 0x54, 0, 0, 0, (uint8_t)(card + 1)};

	memcpy(mac, bytes, 6);
}

static void frame_make(uint8_t *p, unsigned from, const uint8_t *to, uint32_t number, size_t len)
{
	memcpy(p, to, 6);
	mac_of(p + 6, from);
	memcpy(p + 12, "\x88\xb5", 2);
	le32_store(p + 14, number);
	le16_store(p + 18, (uint16_t)len);
	for (size_t i = FRAME_MIN; i < len; i++)
		p[i] = (uint8_t)(number * 7 + i);
}

static void frame_check(unsigned at, const uint8_t *p, size_t len)
{
	uint8_t want[BUFFER], mac[6];
	uint32_t number;
	unsigned from;

	require(len >= NET_MIN_FRAME, "a frame has addresses");
	if (p[6] == HOSTILE_MAC)
		return;
	for (from = 0; from < HOSTILE; from++) {
		mac_of(mac, from);
		if (memcmp(p + 6, mac, 6) == 0)
			break;
	}
	require(from < HOSTILE && from != at, "somebody else has sent it");
	require(len >= FRAME_MIN && len <= sizeof(want), "its size");
	number = le32_load(p + 14);
	frame_make(want, from, p, number, len);
	require(memcmp(p, want, len) == 0, "it is as it was sent");
	require(number > f.got[at][from] && number <= f.sent, "it is in its order");
	f.got[at][from] = number;
}

static void card_got(struct card *c, const uint8_t *bytes, size_t len, unsigned more)
{
	unsigned i = (unsigned)(c - f.card);
	const struct net_pair *p = c->net->pairs;

	if (i == HOSTILE)
		return;
	require(f.have[i] + len <= SPACE, "a frame's size");
	memcpy(f.frame[i] + f.have[i], bytes, len);
	f.have[i] += len;
	if (more)
		return;
	frame_check(i, f.frame[i] + p->hdr_len, f.have[i] - p->hdr_len);
	f.have[i] = 0;
}

/* Steps */

static void turn(void)
{
	loop_stop(f.loop);
	loop_run(f.loop);
	for (unsigned i = 0; i < 1000; i++) {
		bool any = false;

		for (unsigned k = 0; k < CARDS; k++)
			any |= card_turn(&f.card[k]);
		if (!any)
			break;
		require(i < 999, "the queues come to rest");
	}
	for (unsigned i = 0; i < HOSTILE; i++)
		for (unsigned k = 0; k < CARD_QUEUES; k++)
			require(!f.card[i].queue[k].broken, "a queue that was used well goes on");
}

/* False: there is no place in the queue. */
static bool talk(unsigned from, const uint8_t *to, size_t len)
{
	struct card *c = &f.card[from];
	size_t hdr = c->net->pairs[0].hdr_len;
	struct buffer *b = offer(&c->queue[1], hdr + len, 0, len % 3 + 1);

	if (b)
		frame_make(b->bytes + hdr, from, to, ++f.sent, len);
	return b;
}

static void step_talk(void)
{
	uint8_t to[5][6] = {
		{0}, {HOSTILE_MAC, 1}, {255, 255, 255, 255, 255, 255}, {1, 0, 0x5e, 0, 0, 1}, {2, 2}};
	unsigned from = input_u8(&f.in) % HOSTILE, where = input_u8(&f.in) % ARRAY_SIZE(to);
	unsigned n = input_u8(&f.in) % 20 + 1;
	size_t len = FRAME_MIN + input_u16(&f.in) % 1400;

	mac_of(to[0], !from);
	while (n-- && talk(from, to[where], len))
		;
}

static size_t any_size(void)
{
	uint16_t v = input_u16(&f.in);

	return v < 0xf000 ? v % 2200 : SPACE - v % 5000;
}

static void step_attack(bool ip)
{
	struct card *c = &f.card[HOSTILE];
	size_t len = any_size(), hdr = c->net->pairs[0].hdr_len;
	struct buffer *b = card_send(c, 0, len, ip, &f.in);
	uint8_t to = input_u8(&f.in) % 4;

	if (!b || len <= NET_HDR + 6)
		return;
	if (to < HOSTILE && len >= hdr + 6)
		mac_of(b->bytes + hdr, to);
	else if (to == HOSTILE && len >= hdr + 6)
		memset(b->bytes + hdr, 255, 6);
	b->bytes[NET_HDR + 6] = HOSTILE_MAC;
	if (len > NET_HDR_MAX + 6) /* of which size the header is when it is sent */
		b->bytes[NET_HDR_MAX + 6] = HOSTILE_MAC;
}

static void give(unsigned card, unsigned n, size_t size)
{
	while (n-- && offer(&f.card[card].queue[0], 0, size, 1))
		;
}

static void step_buffers(void)
{
	unsigned i = input_u8(&f.in) % CARDS, n = input_u8(&f.in) % 80 + 1;

	give(i, n, i == HOSTILE ? any_size() + 1 : BUFFER);
}

static void start_all(struct card *c)
{
	for (unsigned i = 0; i < CARD_QUEUES; i++)
		card_start(c, i);
}

static void step_reset(void)
{
	struct card *c = &f.card[HOSTILE];

	for (unsigned i = 0; i < CARD_QUEUES; i++)
		card_stop(c, i);
	net_reset(&c->b);
	c->b.features = (c->b.offered & ~input_u64(&f.in)) | BIT(FEATURE_VERSION_1);
	start_all(c);
}

static void pass(uint64_t ns)
{
	now += ns;
	for (unsigned i = 0; i < CARDS; i++)
		stall_expired(&port_of(f.card[i].net->host)->stall);
}

static void step_rarp(void)
{
	uint8_t mac[6];

	input_bytes(&f.in, mac, sizeof(mac));
	mac[0] = HOSTILE_MAC;
	send_rarp(f.card[HOSTILE].net, mac);
}

static void step(void)
{
	unsigned i;

	switch (input_u8(&f.in) % OPS) {
	case OP_TALK:
		step_talk();
		break;
	case OP_ATTACK:
		step_attack(false);
		break;
	case OP_ATTACK_IP:
		step_attack(true);
		break;
	case OP_BUFFERS:
		step_buffers();
		break;
	case OP_COMMAND:
		card_command(&f.card[HOSTILE], &f.in);
		break;
	case OP_STOP:
		i = input_u8(&f.in) % CARDS;
		card_stop(&f.card[i], input_u8(&f.in) % CARD_QUEUES);
		break;
	case OP_START:
		start_all(&f.card[input_u8(&f.in) % CARDS]);
		break;
	case OP_RESET:
		step_reset();
		break;
	case OP_LINK:
		f.card[HOSTILE].net->link_off = input_u8(&f.in) & 1;
		link_update(f.card[HOSTILE].net);
		break;
	case OP_TIME:
		pass(input_u16(&f.in) * UINT64_C(10000000));
		break;
	default:
		step_rarp();
	}
	turn();
	card_right(&f.card[HOSTILE]);
}

/* With buffers and time, the two get rid of all they have, and reach each other. */
static void end(void)
{
	unsigned i, round;

	for (i = 0; i < HOSTILE; i++)
		start_all(&f.card[i]);
	turn();
	for (round = 0; f.card[0].queue[1].n || f.card[1].queue[1].n; round++) {
		require(round < ROUNDS, "nobody waits for ever");
		pass(STALL_NS);
		for (i = 0; i < HOSTILE; i++)
			give(i, BUFFERS, BUFFER);
		turn();
	}
	for (i = 0; i < HOSTILE; i++) {
		uint8_t to[6];

		mac_of(to, !i);
		for (round = 0; f.got[!i][i] < f.sent || !round; round++) {
			require(round < ROUNDS, "they reach each other");
			if (!round)
				require(talk(i, to, 100), "the queue is empty");
			give(!i, BUFFERS, BUFFER);
			turn();
			pass(STALL_NS / 2);
		}
	}
}

static void set_up(void)
{
	uint64_t lacks = input_u64(&f.in);

	log_set_level(LOG_LEVEL_ERROR);
	memset(f.got, 0, sizeof(f.got));
	memset(f.have, 0, sizeof(f.have));
	f.sent = 0;
	require(loop_new(&f.loop, "fuzz") == 0, "memory");
	for (unsigned i = 0; i < CARDS; i++) {
		struct card *c = &f.card[i];

		card_init(c, f.loop);
		mac_of(c->net->mac, 0);
		c->b.socket = i;
		c->b.num_sockets = CARDS;
		require(net_open(&c->b) == 0, "the device opens");
	}
	for (unsigned i = 0; i < CARDS; i++) {
		struct card *c = &f.card[i];

		c->b.features = c->b.offered | BIT(FEATURE_VERSION_1);
		if (i == HOSTILE)
			c->b.features &= ~lacks | BIT(FEATURE_VERSION_1);
		else
			c->b.features &= ~(i ? NET_GUEST_OFFLOADS | BIT(VIRTIO_NET_F_MRG_RXBUF) : BIT(57));
		start_all(c);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	f.in = (struct input){data, data + size};
	set_up();
	for (unsigned i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	end();
	for (unsigned i = 0; i < CARDS; i++) {
		for (unsigned k = 0; k < CARD_QUEUES; k++)
			card_stop(&f.card[i], k);
		net_reset(&f.card[i].b);
		net_close(&f.card[i].b);
		card_free(&f.card[i]);
	}
	loop_free(f.loop);
	return 0;
}

/* All talk to all, with a third that has many features or few, and too few buffers, or of a bad size. */
void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t tcp[10] = {1, 1, 54, 0, 100, 0, 34, 0, 16, 0};
	static char names[8][8];

	for (unsigned how = 0; how < 8; how++) {
		struct seed s = {.n = 0};

		seed_u64(&s, how & 1 ? NET_GUEST_OFFLOADS | BIT(57) : 0);
		for (unsigned i = 0; i < CARDS; i++) {
			seed_u8(&s, OP_BUFFERS);
			seed_u8(&s, (uint8_t)i);
			seed_u8(&s, i == HOSTILE && how & 2 ? 1 : 60);
			if (i == HOSTILE)
				seed_u16(&s, how & 4 ? 40 : 1536);
		}
		for (unsigned i = 0; i < 10; i++) {
			seed_u8(&s, OP_TALK);
			seed_u8(&s, (uint8_t)i);
			seed_u8(&s, (uint8_t)(4 - i / 2));
			seed_u8(&s, 3);
			seed_u16(&s, (uint16_t)(i * 100));
			seed_u8(&s, i % 2 ? OP_ATTACK_IP : OP_ATTACK);
			seed_u16(&s, 1100);
			seed_u8(&s, 3);
			seed_put(&s, tcp, 10);
			for (unsigned k = 0; k < 54; k++)
				seed_u8(&s, k == 53 ? 0 : 0x50);
			seed_u8(&s, (uint8_t)i);
		}
		for (unsigned i = 0; i < 7; i++) {
			seed_u8(&s, OP_COMMAND);
			seed_u8(&s, 20);
			seed_u8(&s, 1);
			seed_u8(&s, (uint8_t)i);
			for (unsigned k = 0; k < 19; k++)
				seed_u8(&s, k < 2 ? (uint8_t)k : 0);
		}
		seed_u8(&s, OP_STOP);
		seed_u8(&s, HOSTILE);
		seed_u8(&s, 0);
		seed_u8(&s, OP_START);
		seed_u8(&s, HOSTILE);
		seed_u8(&s, OP_TIME);
		seed_u16(&s, 3);
		seed_u8(&s, OP_RARP);
		seed_u32(&s, 5);
		seed_u16(&s, 5);
		seed_u8(&s, OP_RESET);
		seed_u64(&s, BIT(VIRTIO_NET_F_MRG_RXBUF));
		seed_u8(&s, OP_LINK);
		seed_u8(&s, 1);
		snprintf(names[how], sizeof(names[how]), "third%u", how);
		emit(names[how], s.bytes, s.n);
	}
}
