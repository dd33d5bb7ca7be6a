/* SPDX-License-Identifier: MIT */
/* The split layout: sizes, indices that wrap around, notifications, and rings that a driver got wrong. */
#include "rig.h"

#include "le.h"

static uint8_t *used(const struct rig *r)
{
	return r->ram + r->addr[2];
}

/* Without the event index: the flags, and what they say is what we do. */
static void flags(void *arg)
{
	struct rig_mode m = {.num = 8};
	unsigned i;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	r.device = rig_echo;
	rig_turn(&r);
	CHECK_EQ(le16_load(used(&r)), 0);
	rig_signals(r.call);
	for (i = 0; i < 20; i++) {
		uint64_t calls = r.q->stats.calls, saved = r.q->stats.calls_suppressed;

		if (i % 2)
			vring_driver_disarm(&r.d);
		else
			vring_driver_arm(&r.d);
		rig_add_small(&r);
		CHECK(rig_publish(&r));
		rig_turn(&r);
		CHECK_EQ(rig_collect(&r, NULL, 2), 1);
		CHECK_EQ(rig_signals(r.call), !(i % 2));
		CHECK_EQ(r.q->stats.calls - calls, !(i % 2));
		CHECK_EQ(r.q->stats.calls_suppressed - saved, i % 2);
	}
	r.device = NULL; /* leaves buffers behind: no more kicks */
	rig_add_small(&r);
	CHECK(rig_publish(&r));
	rig_turn(&r);
	CHECK_EQ(le16_load(used(&r)), 1);
	rig_add_small(&r);
	CHECK(!rig_publish(&r));
	r.device = rig_echo;
	virtqueue_wake(r.q);
	rig_turn(&r);
	CHECK_EQ(le16_load(used(&r)), 0);
	CHECK_EQ(rig_collect(&r, NULL, 3), 2);
	rig_close(&r);
}

/* An interrupt exactly when the index that was asked for is passed, from anywhere to anywhere. */
static void used_event(void *arg)
{
	struct rig_mode m = {.num = 16, .event_idx = true, .base = 65500};
	unsigned round, calls = 0;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	rig_turn(&r);
	rig_signals(r.call);
	r.device = rig_echo;
	for (round = 0; round < 3000; round++) {
		uint16_t old = r.d.next_used, n = (uint16_t)(1 + rig_random(16)), event, i, rest;
		bool want;

		event = (uint16_t)(old + rig_random(40) - 20);
		le16_store(r.ram + r.addr[1] + 4 + 2 * m.num, event);
		want = vring_need_event(event, (uint16_t)(old + n), old);
		for (i = 0; i < n; i++)
			rig_add_small(&r);
		CHECK(rig_publish(&r));
		/* in one batch, so that there is one decision */
		r.device = rig_hold;
		rig_turn(&r);
		rest = (uint16_t)r.nheld;
		while (r.nheld)
			virtqueue_push(r.held[--r.nheld]);
		r.device = rig_echo;
		rig_turn(&r);
		CHECK_EQ(rest, n);
		CHECK_EQ(rig_signals(r.call), want);
		calls += want;
		CHECK_EQ(rig_collect(&r, NULL, 16), n);
	}
	CHECK(calls > 500 && calls < 2500);
	rig_close(&r);
}

/* The driver uses the event index though we were not told: both kinds of asking for kicks are there. */
static void unnoticed_event_index(void *arg)
{
	struct rig_mode m = {.num = 8};
	unsigned i;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	r.device = rig_echo;
	r.d.mode.event_idx = true;
	rig_turn(&r);
	for (i = 0; i < 100; i++) {
		rig_signals(r.call);
		vring_driver_arm(&r.d);
		rig_add_small(&r);
		CHECK(rig_publish(&r));
		rig_turn(&r);
		CHECK_EQ(rig_signals(r.call), 1);
		CHECK_EQ(rig_collect(&r, NULL, 2), 1);
	}
	rig_close(&r);
}

/* --- what a driver must not do --- */

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static void put(uint8_t *table, unsigned i, uint64_t addr, uint32_t len, uint16_t f, uint16_t next)
{
	le64_store(table + 16 * i, addr);
	le32_store(table + 16 * i + 8, len);
	le16_store(table + 16 * i + 12, f);
	le16_store(table + 16 * i + 14, next);
}

static void offer(struct rig *r, uint16_t head, uint16_t idx)
{
	uint8_t *avail = r->ram + r->addr[1];

	le16_store(avail + 4, head);
	le16_store(avail + 2, idx);
	CHECK_EQ(eventfd_write(r->kick, 1), 0);
}

#define GOOD  (RIG_GPA + 0x1000)
#define TABLE (RIG_GPA + 0x1800)

static const struct bad {
	const char *name;
	uint16_t head, idx;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d[4], t[4];
	bool fine;
} bad[] = {
	{"two good descriptors", 0, 1, {{GOOD, 8, NEXT, 3}, {0}, {0}, {GOOD, 8, WRITE, 0}}, {{0}}, true},
	{"a head outside", 8, 1, {{GOOD, 8, 0, 0}}, {{0}}, false},
	{"a head far outside", 65535, 1, {{GOOD, 8, 0, 0}}, {{0}}, false},
	{"an index ahead", 0, 9, {{GOOD, 8, 0, 0}}, {{0}}, false},
	{"an index behind", 0, 65535, {{GOOD, 8, 0, 0}}, {{0}}, false},
	{"a next one outside", 0, 1, {{GOOD, 8, NEXT, 8}}, {{0}}, false},
	{"a loop of one", 0, 1, {{GOOD, 8, NEXT, 0}}, {{0}}, false},
	{"a loop of two", 0, 1, {{GOOD, 8, NEXT, 1}, {GOOD, 8, NEXT, 0}}, {{0}}, false},
	{"a loop of no bytes", 0, 1, {{GOOD, 0, NEXT, 1}, {GOOD, 0, NEXT, 0}}, {{0}}, false},
	{"readable after writable", 0, 1, {{GOOD, 8, NEXT | WRITE, 1}, {GOOD, 8, 0, 0}}, {{0}}, false},
	{"an indirect table", 0, 1, {{TABLE, 32, INDIRECT, 0}}, {{GOOD, 8, NEXT, 1}, {GOOD, 8, WRITE, 0}},
		true},
	{"an indirect table behind a descriptor", 0, 1, {{GOOD, 8, NEXT, 1}, {TABLE, 16, INDIRECT, 0}},
		{{GOOD, 8, WRITE, 0}}, true},
	{"an indirect table and a next one", 0, 1, {{TABLE, 16, INDIRECT | NEXT, 1}, {GOOD, 8, 0, 0}},
		{{GOOD, 8, 0, 0}}, false},
	{"a table in a table", 0, 1, {{TABLE, 32, INDIRECT, 0}},
		{{GOOD, 8, NEXT, 1}, {TABLE, 16, INDIRECT, 0}}, false},
	{"a table with a loop", 0, 1, {{TABLE, 32, INDIRECT, 0}}, {{GOOD, 8, NEXT, 1}, {GOOD, 8, NEXT, 0}},
		false},
	{"a table that ends early", 0, 1, {{TABLE, 16, INDIRECT, 0}}, {{GOOD, 8, NEXT, 1}, {GOOD, 8, 0, 0}},
		false},
	{"a table of nothing", 0, 1, {{TABLE, 0, INDIRECT, 0}}, {{GOOD, 8, 0, 0}}, false},
	{"a table of 17 bytes", 0, 1, {{TABLE, 17, INDIRECT, 0}}, {{GOOD, 8, 0, 0}}, false},
	{"a table of 4 GiB", 0, 1, {{TABLE, 0xfffffff0, INDIRECT, 0}}, {{GOOD, 8, 0, 0}}, false},
	{"a table elsewhere", 0, 1, {{64, 16, INDIRECT, 0}}, {{GOOD, 8, 0, 0}}, false},
	{"a table at the end of all addresses", 0, 1, {{UINT64_MAX - 15, 16, INDIRECT, 0}}, {{GOOD, 8, 0, 0}},
		false},
	{"readable after writable in a table", 0, 1, {{TABLE, 32, INDIRECT, 0}},
		{{GOOD, 8, NEXT | WRITE, 1}, {GOOD, 8, 0, 0}}, false},
};

static void bad_ring(void *arg)
{
	const struct bad *b = arg;
	struct rig_mode m = {.num = 8, .chunk = 1024};
	unsigned i;
	struct rig r;

	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	for (i = 0; i < 4; i++) {
		put(r.ram + r.addr[0], i, b->d[i].addr, b->d[i].len, b->d[i].flags, b->d[i].next);
		put(rig_ram(&r, TABLE), i, b->t[i].addr, b->t[i].len, b->t[i].flags, b->t[i].next);
	}
	offer(&r, b->head, b->idx);
	rig_turn(&r);
	CHECK_EQ(r.q->broken, !b->fine);
	CHECK_EQ(r.nheld, b->fine);
	CHECK_EQ(rig_signals(r.err), !b->fine);
	if (b->fine) {
		CHECK_EQ(r.held[0]->rd.left, 8);
		CHECK_EQ(r.held[0]->wr.left, 8);
	}
	rig_close(&r);
}

static void twice(void *arg)
{
	struct rig_mode m = {.num = 8, .chunk = 1024};
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	put(r.ram + r.addr[0], 0, GOOD, 8, 0, 0);
	offer(&r, 0, 1);
	rig_turn(&r);
	CHECK_EQ(r.nheld, 1);
	le16_store(r.ram + r.addr[1] + 6, 0);
	offer(&r, 0, 2);
	rig_turn(&r);
	CHECK_EQ(r.nheld, 1);
	CHECK(r.q->broken);
	rig_close(&r);
}

static void addresses(void *arg)
{
	static const uint64_t off[3] = {8, 1, 2}, room[3] = {16, 16, 16};

	(void)arg;
	rig_bad_addresses(&(struct rig_mode){.num = 8}, off, room);
}

int main(void)
{
	static const struct rig_mode modes[] = {
		{.num = 1, .base = 65000}, {.num = 2}, {.num = 8, .base = 65000}, {.num = 256}};
	unsigned i;

	rig_size_cases(modes, ARRAY_SIZE(modes));
	tap_case("flags", flags, NULL);
	tap_case("the used event", used_event, NULL);
	tap_case("an event index that we don't know of", unnoticed_event_index, NULL);
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i].name, bad_ring, (void *)&bad[i]);
	tap_case("a head twice", twice, NULL);
	tap_case("addresses", addresses, NULL);
	return tap_done();
}
