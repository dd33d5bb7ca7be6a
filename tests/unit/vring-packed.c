/* SPDX-License-Identifier: MIT */
/* The packed layout: sizes that are no powers of two, wrap counters, notifications, and rings that a driver got wrong. */
#include "rig.h"

#include "le.h"

/* Started again at every place of the ring, in both laps. */
static void bases(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 5};
	unsigned i;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	for (i = 0; i < 40; i++) {
		uint32_t base;

		rig_turn(&r);
		rig_signals(r.call);
		rig_traffic(&r, 1 + i % 7, 1 + i % 3, i % 2);
		rig_stop(&r, false);
		rig_turn(&r);
		base = virtqueue_base(r.q);
		CHECK_EQ(base, rig_driver_base(&r));
		virtqueue_free(r.q);
		rig_queue_make(&r);
		r.q->base = base;
		CHECK_EQ(rig_start(&r), 0);
	}
	rig_stop(&r, true);
	rig_turn(&r);
	r.q->base = 5 | 5u << 16; /* outside */
	CHECK_EQ(rig_start(&r), -EINVAL);
	r.q->base = 5u << 16;
	CHECK_EQ(rig_start(&r), -EINVAL);
	rig_close(&r);
}

/* The lower half alone, as some front-ends have it. */
static void half_base(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 5};
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	rig_turn(&r);
	rig_stop(&r, false);
	rig_turn(&r);
	virtqueue_free(r.q);
	rig_queue_make(&r);
	r.q->base = 0x8000;
	CHECK_EQ(rig_start(&r), 0);
	rig_turn(&r);
	rig_traffic(&r, 17, 2, true);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(virtqueue_base(r.q), rig_driver_base(&r));
	rig_close(&r);
}

/* Buffers of several descriptors, used in any order: the driver finds each at the place where the last one ended. */
static void out_of_order(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 11};
	unsigned round, i;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	for (round = 0; round < 2000; round++) {
		while (rig_add(&r, 16, 1 + rig_random(2), 8, rig_random(3), 0) == 0)
			;
		rig_publish(&r);
		rig_turn(&r);
		rig_collect(&r, NULL, 11);
		CHECK_EQ(r.nheld, r.d.nbusy);
		while (r.nheld) {
			i = rig_random(r.nheld);
			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
			r.held[i] = r.held[--r.nheld];
			if (rig_random(3))
				break;
		}
		rig_turn(&r);
	}
	rig_close(&r);
}

static void device_flags(const struct rig *r, unsigned want)
{
	CHECK_EQ(le16_load(r->ram + r->addr[2] + 2), want);
}

static void flags(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 8, .event_idx = *(bool *)arg};
	unsigned i, on = m.event_idx ? 2 : 0;
	struct rig r;

	rig_open(&r, &m);
	r.device = rig_echo;
	rig_turn(&r);
	device_flags(&r, on);
	rig_signals(r.call);
	for (i = 0; i < 40; i++) {
		if (i % 2)
			vring_driver_disarm(&r.d);
		else
			vring_driver_arm(&r.d);
		rig_add_small(&r);
		CHECK(rig_publish(&r));
		rig_turn(&r);
		device_flags(&r, on);
		if (on)
			CHECK_EQ(le16_load(r.ram + r.addr[2]), (r.d.next_avail | r.d.avail_wrap << 15));
		CHECK_EQ(rig_collect(&r, NULL, 2), 1);
		CHECK_EQ(rig_signals(r.call), !(i % 2));
	}
	r.device = NULL; /* leaves buffers behind: no more kicks */
	rig_add_small(&r);
	CHECK(rig_publish(&r));
	rig_turn(&r);
	device_flags(&r, 1);
	rig_add_small(&r);
	CHECK(!rig_publish(&r));
	r.device = rig_echo;
	virtqueue_wake(r.q);
	rig_turn(&r);
	device_flags(&r, on);
	CHECK_EQ(rig_collect(&r, NULL, 3), 2);
	rig_close(&r);
}

/* An interrupt exactly when the descriptor that was asked for is used; places counted without wrapping around. */
static void used_event(void *arg)
{
	struct rig_mode m = {.packed = true, .num = *(uint16_t *)arg, .event_idx = true};
	unsigned round, calls = 0;
	uint64_t at = 0;
	struct rig r;

	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	rig_signals(r.call);
	for (round = 0; round < 3000; round++) {
		unsigned n = 1 + rig_random(m.num), event = rig_random(m.num), wrap = rig_random(2), i;
		bool want = false;

		le32_store(r.ram + r.addr[1], event | wrap << 15 | 2u << 16);
		for (i = 0; i < n; i++) {
			uint64_t p = at + i;

			want |= p % m.num == event && (p / m.num % 2 == 0) == wrap;
			rig_add_small(&r);
		}
		CHECK(rig_publish(&r));
		rig_turn(&r);
		CHECK_EQ(r.nheld, n);
		while (r.nheld)
			virtqueue_push(r.held[--r.nheld]);
		rig_turn(&r);
		CHECK_EQ(rig_signals(r.call), want);
		CHECK_EQ(rig_collect(&r, NULL, m.num), n);
		calls += want;
		at += n;
	}
	CHECK(calls > 300 && calls < 2700);
	rig_close(&r);
}

/* --- what a driver must not do --- */

enum { NEXT = 1, WRITE = 2, INDIRECT = 4, AVAIL = 1 << 7 };

static void put(uint8_t *ring, unsigned i, uint64_t addr, uint32_t len, uint16_t id, uint16_t f)
{
	le64_store(ring + 16 * i, addr);
	le32_store(ring + 16 * i + 8, len);
	le16_store(ring + 16 * i + 12, id);
	le16_store(ring + 16 * i + 14, f);
}

#define GOOD  (RIG_GPA + 0x1000)
#define TABLE (RIG_GPA + 0x1800)

static const struct bad {
	const char *name;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags;
	} d[4], t[4];
	bool fine;
} bad[] = {
	{"two good descriptors", {{GOOD, 8, NEXT}, {GOOD, 8, WRITE}}, {{0}}, true},
	{"readable after writable", {{GOOD, 8, NEXT | WRITE}, {GOOD, 8, 0}}, {{0}}, false},
	{"a chain without an end", {{GOOD, 8, NEXT}, {GOOD, 8, NEXT}, {GOOD, 8, NEXT}, {GOOD, 8, NEXT}},
		{{0}}, false},
	{"an indirect table", {{TABLE, 32, INDIRECT}}, {{GOOD, 8, 0}, {GOOD, 8, WRITE}}, true},
	{"an indirect table whose flags say next", {{TABLE, 32, INDIRECT}},
		{{GOOD, 8, NEXT}, {GOOD, 8, WRITE | NEXT}}, true},
	{"an indirect table behind a descriptor", {{GOOD, 8, NEXT}, {TABLE, 16, INDIRECT}},
		{{GOOD, 8, WRITE}}, true},
	{"an indirect table and a next one", {{TABLE, 16, INDIRECT | NEXT}, {GOOD, 8, 0}}, {{GOOD, 8, 0}},
		false},
	{"a table in a table", {{TABLE, 32, INDIRECT}}, {{GOOD, 8, 0}, {TABLE, 16, INDIRECT}}, false},
	{"a table of nothing", {{TABLE, 0, INDIRECT}}, {{0}}, false},
	{"a table of 17 bytes", {{TABLE, 17, INDIRECT}}, {{0}}, false},
	{"a table of 4 GiB", {{TABLE, 0xfffffff0, INDIRECT}}, {{0}}, false},
	{"a table elsewhere", {{64, 16, INDIRECT}}, {{0}}, false},
	{"readable after writable in a table", {{TABLE, 32, INDIRECT}}, {{GOOD, 8, WRITE}, {GOOD, 8, 0}},
		false},
};

static void bad_ring(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 4, .chunk = 4096};
	const struct bad *b = arg;
	unsigned i;
	struct rig r;

	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	for (i = 0; i < 4; i++) {
		put(rig_ram(&r, TABLE), i, b->t[i].addr, b->t[i].len, 0, b->t[i].flags);
		if (b->d[i].addr)
			put(r.ram + r.addr[0], i, b->d[i].addr, b->d[i].len, 77, b->d[i].flags | AVAIL);
	}
	CHECK_EQ(eventfd_write(r.kick, 1), 0);
	rig_turn(&r);
	CHECK_EQ(r.q->broken, !b->fine);
	CHECK_EQ(r.nheld, b->fine);
	CHECK_EQ(rig_signals(r.err), !b->fine);
	if (b->fine) {
		CHECK_EQ(r.held[0]->rd.left, 8);
		CHECK_EQ(r.held[0]->wr.left, 8);
		virtqueue_push(r.held[--r.nheld]); /* the id is the driver's affair */
		rig_turn(&r);
		CHECK_EQ(le16_load(r.ram + r.addr[0] + 12), 77);
	}
	rig_close(&r);
}

/* All of the ring is out, and its first descriptor is available again. */
static void too_many(void *arg)
{
	struct rig_mode m = {.packed = true, .num = 4};
	unsigned i;
	struct rig r;

	(void)arg;
	rig_open(&r, &m);
	r.device = rig_hold;
	rig_turn(&r);
	for (i = 0; i < 4; i++)
		rig_add_small(&r);
	rig_publish(&r);
	rig_turn(&r);
	CHECK_EQ(r.nheld, 4);
	put(r.ram + r.addr[0], 0, RIG_GPA, 8, 1, 1 << 15); /* of the next lap */
	CHECK_EQ(eventfd_write(r.kick, 1), 0);
	rig_turn(&r);
	CHECK_EQ(r.nheld, 4);
	CHECK(r.q->broken);
	rig_close(&r);
}

static void addresses(void *arg)
{
	static const uint64_t off[3] = {2, 2, 2}, room[3] = {16, 2, 2};

	(void)arg;
	rig_bad_addresses(&(struct rig_mode){.packed = true, .num = 8}, off, room);
}

int main(void)
{
	static const struct rig_mode modes[] = {{.packed = true, .num = 1}, {.packed = true, .num = 2},
		{.packed = true, .num = 3}, {.packed = true, .num = 7}, {.packed = true, .num = 255},
		{.packed = true, .num = 256}};
	static const uint16_t events[] = {1, 2, 7, 8};
	static const bool yes = true, no = false;
	unsigned i;
	char name[80];

	rig_size_cases(modes, ARRAY_SIZE(modes));
	tap_case("any base", bases, NULL);
	tap_case("half a base", half_base, NULL);
	tap_case("chains out of order", out_of_order, NULL);
	tap_case("flags", flags, (void *)&no);
	tap_case("flags, event index", flags, (void *)&yes);
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(name, sizeof(name), "the used event, a ring of %u", events[i]);
		tap_case(name, used_event, (void *)&events[i]);
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i].name, bad_ring, (void *)&bad[i]);
	tap_case("more than the ring holds", too_many, NULL);
	tap_case("addresses", addresses, NULL);
	return tap_done();
}
