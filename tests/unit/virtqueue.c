/* SPDX-License-Identifier: MIT */
/* What both ring layouts have in common: the turn, giving back, the end of a queue, memory and log under way. */
#include "rig.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static void add_many(struct rig *r, unsigned n)
{
	while (n--)
		rig_add_small(r);
}

/* Everything that is out comes back, tag by tag in this order. */
static void collect_exactly(struct rig *r, uint32_t first, unsigned n)
{
	uint32_t tags[256];
	unsigned i, got;

	CHECK(n <= ARRAY_SIZE(tags));
	got = rig_collect(r, tags, ARRAY_SIZE(tags));
	CHECK_EQ(got, n);
	for (i = 0; i < n; i++)
		CHECK_EQ(tags[i], first + i);
}

/* The queue serves what comes now. */
static void works(struct rig *r)
{
	unsigned i, before = r->completed;

	r->device = rig_echo;
	virtqueue_wake(r->q);
	rig_turn(r);
	rig_collect(r, NULL, r->mode.num);
	before = r->completed;
	for (i = 0; i < 3u * r->mode.num; i++) {
		uint32_t tag = rig_add_small(r), got;

		rig_publish(r);
		rig_turn(r);
		CHECK_EQ(rig_collect(r, &got, 1), 1);
		CHECK_EQ(got, tag);
	}
	CHECK_EQ(r->completed, before + i);
	CHECK_EQ(r->submitted, r->completed);
}

/* --- the turn --- */

static void echo(const struct rig_mode *m)
{
	struct rig r;
	unsigned i;

	rig_open(&r, m);
	r.device = rig_echo;
	for (i = 0; i < 300; i++) {
		CHECK_EQ(rig_add(&r, 20 + i % 50, 2, 100, 3, i % 101), 0);
		CHECK_EQ(rig_add(&r, 8, 1, 0, 0, 0), 0);
		CHECK_EQ(rig_add_indirect(&r, 30, 4, 50, 2, 50), 0);
		rig_publish(&r);
		rig_turn(&r);
		collect_exactly(&r, i * 3, 3);
	}
	CHECK_EQ(r.q->stats.popped, 900);
	CHECK_EQ(r.q->stats.pushed, 900);
	CHECK_EQ(r.q->stats.breaks, 0);
	CHECK_EQ(virtqueue_outstanding(r.q), 0);
	CHECK_EQ(r.q->stats.calls + r.q->stats.calls_suppressed, 301 - !r.q->resumed);
	rig_close(&r);
}

/* 64 in a turn, then others have theirs, without a kick in between. */
static void budget_device(struct rig *r)
{
	unsigned *per_turn = r->user, before = r->nheld;

	rig_hold(r);
	if (r->nheld > before)
		*per_turn = *per_turn * 1000 + r->nheld - before;
}

static void budget(const struct rig_mode *m)
{
	unsigned per_turn = 0;
	struct rig r;

	rig_open(&r, m);
	r.device = budget_device;
	r.user = &per_turn;
	rig_turn(&r);
	add_many(&r, 150);
	CHECK(rig_publish(&r));
	rig_turn(&r);
	CHECK_EQ(per_turn, 64064022);
	CHECK_EQ(r.q->stats.kicks, 1);
	while (r.nheld)
		virtqueue_push(r.held[--r.nheld]);
	works(&r);
	rig_close(&r);
}

static void pops_one(struct rig *r)
{
	struct element *e = rig_pop(r);

	if (e) {
		rig_answer(e);
		virtqueue_push(e);
	}
}

/* Buffers that are left in the ring on purpose: no kicks meanwhile, wake-ups are joined. */
static void wake(const struct rig_mode *m)
{
	struct rig r;
	unsigned i;

	rig_open(&r, m);
	r.device = pops_one;
	rig_turn(&r);
	add_many(&r, 10);
	CHECK(rig_publish(&r));
	for (i = 0; i < 10; i++) {
		rig_turn(&r);
		collect_exactly(&r, i, 1);
		CHECK(virtqueue_pending(r.q) == (i < 9));
		rig_turn(&r);
		CHECK_EQ(rig_collect(&r, NULL, 1), 0);
		virtqueue_wake(r.q);
		virtqueue_wake(r.q);
		virtqueue_wake(r.q);
	}
	rig_turn(&r); /* finds it empty: kicks are on again */
	rig_add_small(&r);
	CHECK(rig_publish(&r));
	rig_turn(&r);
	collect_exactly(&r, 10, 1);
	CHECK_EQ(r.q->stats.kicks, 2);
	rig_close(&r);
}

/* A device may take buffers when something of its own happened; the turn's rules hold there too. */
static void pop_between_turns(const struct rig_mode *m)
{
	unsigned i, n;
	struct rig r;

	rig_open(&r, m);
	rig_turn(&r);
	add_many(&r, 200);
	rig_publish(&r);
	rig_turn(&r);
	for (n = 0; n < 200; rig_turn(&r)) { /* each turn gives a new budget */
		unsigned had = n;

		while ((r.held[r.nheld] = rig_pop(&r))) {
			CHECK_EQ(rig_tag(r.held[r.nheld++]), n);
			n++;
		}
		CHECK(n > had);
	}
	CHECK(!rig_pop(&r));
	rig_turn(&r); /* that was the ring's end, so kicks are on */
	while (r.nheld)
		virtqueue_push(r.held[--r.nheld]);
	rig_turn(&r);
	CHECK_EQ(rig_collect(&r, NULL, 256), 200);
	for (i = 0; i < 100; i++) {
		struct element *e;

		rig_add_small(&r);
		CHECK(rig_publish(&r));
		rig_turn(&r);
		e = rig_take(&r);
		virtqueue_push(e);
		CHECK(!rig_pop(&r));
		rig_turn(&r);
		CHECK_EQ(rig_collect(&r, NULL, 2), 1);
	}
	rig_close(&r);
}

/* --- giving back --- */

static void take(struct rig *r, unsigned n)
{
	while (n--)
		r->held[r->nheld++] = rig_take(r);
}

static void shuffle(struct element **e, unsigned n)
{
	while (n > 1) {
		unsigned i = rig_random(n--);
		struct element *t = e[i];

		e[i] = e[n];
		e[n] = t;
	}
}

/* The youngest n that are held go back, in any order. */
static void give_back(struct rig *r, unsigned n)
{
	struct element **youngest = r->held + r->nheld - n;
	unsigned i;

	shuffle(youngest, n);
	for (i = 0; i < n; i++)
		virtqueue_unpop(youngest[i]);
	r->nheld -= n;
}

static void check_held(struct rig *r, uint32_t first)
{
	for (unsigned i = 0; i < r->nheld; i++)
		CHECK_EQ(rig_tag(r->held[i]), first + i);
}

static void unpop_running(const struct rig_mode *m)
{
	unsigned round, i;
	struct rig r;

	rig_open(&r, m);
	for (round = 0; round < 200; round++) {
		unsigned n = 1 + rig_random(9), back;

		for (i = 0; i < n; i++) /* chains of several lengths */
			CHECK_EQ(rig_add(&r, 16, 1 + rig_random(3), 8, 1 + rig_random(2), 8), 0);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, n);
		back = rig_random(n + 1);
		give_back(&r, back);
		CHECK_EQ(virtqueue_outstanding(r.q), n - back);
		CHECK(virtqueue_pending(r.q) == (back > 0));
		take(&r, back);
		CHECK(!rig_pop(&r));
		check_held(&r, r.next_tag - n);
		for (i = 0; i < n; i++) {
			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
		}
		r.nheld = 0;
		rig_turn(&r);
		collect_exactly(&r, r.next_tag - n, n);
	}
	works(&r);
	rig_close(&r);
}

/* What is given back while the queue comes to rest is there at the next start. */
static void unpop_draining(const struct rig_mode *m)
{
	unsigned round;
	struct rig r;

	rig_open(&r, m);
	for (round = 0; round < 100; round++) {
		unsigned n = 1 + rig_random(9), back = rig_random(n + 1), i, rested = r.rested;

		for (i = 0; i < n; i++)
			CHECK_EQ(rig_add(&r, 16, 1 + rig_random(3), 8, 1 + rig_random(2), 8), 0);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, n);
		rig_stop(&r, false);
		CHECK(!rig_pop(&r));
		if (rig_random(2)) { /* the older ones are done first, or last */
			give_back(&r, back);
			rig_turn(&r);
			CHECK_EQ(r.rested, rested + (back == n));
		}
		for (i = 0; i < n - back; i++) {
			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
		}
		if (r.nheld == n) {
			rig_turn(&r);
			give_back(&r, back);
		}
		r.nheld = 0;
		rig_turn(&r);
		CHECK_EQ(r.rested, rested + 1);
		collect_exactly(&r, r.next_tag - n, n - back);
		CHECK_EQ(rig_start(&r), 0);
		rig_turn(&r);
		take(&r, back);
		check_held(&r, r.next_tag - back);
		for (i = 0; i < back; i++) {
			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
		}
		r.nheld = 0;
		rig_turn(&r);
		collect_exactly(&r, r.next_tag - back, back);
	}
	works(&r);
	rig_close(&r);
}

/* A younger buffer was used already: the ring can't go back behind it, so the older one is returned, empty. */
static void unpop_too_late(const struct rig_mode *m)
{
	uint32_t tags[4];
	struct rig r;

	rig_open(&r, m);
	add_many(&r, 4);
	rig_publish(&r);
	rig_turn(&r);
	take(&r, 4);
	rig_stop(&r, false);
	virtqueue_push(r.held[2]);
	virtqueue_unpop(r.held[1]);
	virtqueue_unpop(r.held[3]);
	rig_turn(&r);
	CHECK_EQ(r.rested, 0);
	virtqueue_push(r.held[0]);
	r.nheld = 0;
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_collect(&r, tags, 4), 3);
	CHECK_EQ(tags[0] + tags[1] + tags[2], 0 + 1 + 2);
	CHECK_EQ(rig_start(&r), 0);
	rig_turn(&r);
	take(&r, 1);
	CHECK_EQ(rig_tag(r.held[0]), 3);
	virtqueue_push(r.held[0]);
	r.nheld = 0;
	works(&r);
	rig_close(&r);
}

/* Completed in any order, seen by the driver in order. */
static void in_order(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	unsigned round, i;
	struct rig r;

	mode.in_order = true;
	rig_open(&r, &mode);
	for (round = 0; round < 300; round++) {
		unsigned n = 1 + rig_random(12), seen = 0;

		for (i = 0; i < n; i++)
			CHECK_EQ(rig_add(&r, 16, 1 + rig_random(3), 8, 1 + rig_random(2), 8), 0);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, n);
		shuffle(r.held, n);
		for (i = 0; i < n; i++) {
			uint32_t tags[16];
			unsigned got, k;

			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
			rig_turn(&r);
			got = rig_collect(&r, tags, 16);
			for (k = 0; k < got; k++)
				CHECK_EQ(tags[k], r.next_tag - n + seen++);
		}
		CHECK_EQ(seen, n);
		r.nheld = 0;
	}
	works(&r);
	rig_close(&r);
}

/* --- the end --- */

static uint32_t base_now(const struct rig *r)
{
	const struct vring_driver *d = &r->d;

	if (!r->mode.packed)
		return d->next_avail;
	return d->next_avail | (uint32_t)d->avail_wrap << 15 | (uint32_t)d->next_used << 16 |
	       (uint32_t)d->used_wrap << 31;
}

static void stop_waits(const struct rig_mode *m)
{
	unsigned round, i;
	struct rig r;

	rig_open(&r, m);
	for (round = 0; round < 30; round++) {
		unsigned n = 1 + rig_random(8), rested = r.rested;

		add_many(&r, n);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, n);
		add_many(&r, 2); /* comes too late */
		rig_publish(&r);
		rig_stop(&r, false);
		CHECK_EQ(r.stopped, round + 1);
		CHECK(!virtqueue_running(r.q));
		for (i = 0; i < n; i++) {
			rig_turn(&r);
			CHECK_EQ(r.rested, rested);
			CHECK(!rig_pop(&r));
			rig_answer(r.held[i]);
			virtqueue_push(r.held[i]);
			if (round % 3 == 0)
				rig_stop(&r, false); /* asked again */
		}
		r.nheld = 0;
		rig_turn(&r);
		CHECK(r.rested > rested);
		collect_exactly(&r, r.next_tag - 2 - n, n);
		CHECK(rig_signals(r.call) > 0);
		CHECK_EQ(rig_start(&r), 0);
		r.device = rig_echo;
		rig_turn(&r);
		collect_exactly(&r, r.next_tag - 2, 2);
		r.device = NULL;
		rig_stop(&r, false);
		rig_turn(&r);
		CHECK_EQ(virtqueue_base(r.q), base_now(&r));
		CHECK_EQ(rig_start(&r), 0);
		r.stopped = round + 1;
	}
	works(&r);
	rig_close(&r);
}

static size_t used_bytes(const struct rig *r)
{
	struct vring_driver_layout l;

	vring_driver_layout(r->mode.packed, r->mode.num, &l);
	return r->mode.packed ? l.desc : l.device;
}

/* After the front-end went, nothing is written to the ring, and the last element ends the wait. */
static void stop_discards(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	unsigned late, how;

	for (how = 0; how < 8; how++) {
		struct rig r;
		uint8_t *ring, *copy;

		mode.in_order = how & 4;
		late = how & 1; /* discard follows an orderly stop */
		rig_open(&r, &mode);
		ring = r.ram + (r.mode.packed ? r.addr[0] : r.addr[2]);
		copy = malloc(used_bytes(&r));
		CHECK(copy);
		add_many(&r, 6);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, 6);
		if (mode.in_order)
			virtqueue_push(r.held[4]); /* held back */
		else
			virtqueue_unpop(r.held[5]);
		rig_turn(&r);
		if (late)
			rig_stop(&r, false);
		if (how & 2 && late && !mode.in_order)
			virtqueue_unpop(r.held[4]);
		memcpy(copy, ring, used_bytes(&r));
		rig_stop(&r, true);
		rig_signals(r.call);
		virtqueue_push(r.held[0]);
		virtqueue_unpop(r.held[1]);
		rig_turn(&r);
		CHECK_EQ(r.rested, 0);
		virtqueue_push(r.held[2]);
		virtqueue_push(r.held[3]);
		if (mode.in_order)
			virtqueue_push(r.held[5]);
		else if (!(how & 2 && late))
			virtqueue_push(r.held[4]);
		r.nheld = 0;
		rig_turn(&r);
		CHECK_EQ(r.rested, 1);
		CHECK_MEM(ring, copy, used_bytes(&r));
		CHECK_EQ(rig_signals(r.call), 0);
		free(copy);
		rig_close(&r);
	}
}

/* In-order, and an older element is given back when younger ones are done and held back. */
static void unpop_in_order(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct rig r;

	mode.in_order = true;
	rig_open(&r, &mode);
	add_many(&r, 4);
	rig_publish(&r);
	rig_turn(&r);
	take(&r, 4);
	rig_stop(&r, false);
	virtqueue_push(r.held[1]);
	virtqueue_push(r.held[2]);
	virtqueue_unpop(r.held[0]);
	virtqueue_unpop(r.held[3]);
	r.nheld = 0;
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	collect_exactly(&r, 0, 3);
	CHECK_EQ(rig_start(&r), 0);
	rig_turn(&r);
	take(&r, 1);
	CHECK_EQ(rig_tag(r.held[0]), 3);
	virtqueue_push(r.held[0]);
	r.nheld = 0;
	works(&r);
	rig_close(&r);
}

static void breaks(const struct rig_mode *m)
{
	struct rig r;

	rig_open(&r, m);
	add_many(&r, 5);
	rig_publish(&r);
	rig_turn(&r);
	take(&r, 2);
	CHECK_EQ(rig_signals(r.err), 0);
	virtqueue_break(r.q, "a test of %d", 1);
	CHECK_EQ(rig_signals(r.err), 1);
	CHECK_EQ(r.q->stats.breaks, 1);
	CHECK(!rig_pop(&r));
	CHECK(!virtqueue_pending(r.q));
	r.device = rig_hold;
	virtqueue_wake(r.q);
	rig_add_small(&r);
	vring_driver_publish(&r.d);
	CHECK_EQ(eventfd_write(r.kick, 1), 0);
	rig_turn(&r);
	CHECK_EQ(r.nheld, 2);
	virtqueue_push(r.held[0]); /* what was taken still comes back */
	virtqueue_push(r.held[1]);
	r.nheld = 0;
	rig_turn(&r);
	collect_exactly(&r, 0, 2);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_start(&r), 0);
	works(&r);
	CHECK_EQ(r.completed, 6 + 3u * m->num);
	rig_close(&r);
}

/* --- chains --- */

/* So many long chains are out that the others wait in the ring, until one comes back. */
static void many_long_chains(const struct rig_mode *mode)
{
	enum { TOTAL = VRING_MAX_LONG + 500 };
	struct rig_mode m = *mode;
	unsigned got = 0;
	struct rig r;

	m.num = 2048;
	m.chunk = 1024;
	rig_open(&r, &m);
	r.device = rig_hold;
	for (unsigned i = 0; i < TOTAL; i++)
		CHECK(rig_add_indirect(&r, 60, 12, 60, 12, 60) >= 0);
	rig_publish(&r);
	rig_turn(&r);
	CHECK_EQ(r.nheld, VRING_MAX_LONG);
	CHECK(!r.q->broken);
	while (got < TOTAL) {
		unsigned n = r.nheld;

		CHECK(n > 0);
		r.nheld = 0;
		for (unsigned i = 0; i < n; i++) {
			struct element *e = r.held[i];

			rig_answer(e);
			virtqueue_push(e);
		}
		rig_turn(&r);
		got += rig_collect(&r, NULL, TOTAL);
	}
	CHECK_EQ(got, TOTAL);
	CHECK_EQ(r.q->nlong, 0);
	rig_close(&r);
}

static void many_segments(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	static const unsigned counts[] = {1, 7, 8, 9, 10, 100, 1000, 1027, 1028};
	struct rig r;
	unsigned i, k;

	mode.chunk = 32768;
	mode.num = 2048;
	rig_open(&r, &mode);
	r.device = rig_echo;
	for (i = 0; i < ARRAY_SIZE(counts); i++)
		for (k = 0; k < 3; k++) {
			unsigned nrd = k == 0	? 1
				       : k == 1 ? counts[i]
						: (counts[i] + 1) / 2,
				 nwr = counts[i] - nrd;
			uint32_t wr = nwr ? 5000 : 0;
			int err;

			/* pieces of no bytes are no segments */
			if (k == 2 && mode.num % 2)
				err = rig_add(&r, 6000, nrd, wr, nwr, wr / 2);
			else
				err = rig_add_indirect(&r, 6000, nrd, wr, nwr, wr / 2);
			CHECK_EQ(err, 0);
			CHECK_EQ(rig_add(&r, 6000, nrd, wr, nwr, wr), 0);
			rig_publish(&r);
			rig_turn(&r);
			CHECK_EQ(rig_collect(&r, NULL, 3), 2);
		}
	/* several long ones at a time: rooms are kept for the next ones */
	r.device = NULL;
	for (k = 0; k < 3; k++) {
		for (i = 0; i < 20; i++)
			CHECK_EQ(rig_add_indirect(&r, 5000, 500, 5000, 500, 1000), 0);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, 20);
		for (i = 0; i < 20; i++)
			rig_answer(r.held[i]);
		while (r.nheld)
			virtqueue_push(r.held[--r.nheld]);
		rig_turn(&r);
		CHECK_EQ(rig_collect(&r, NULL, 20), 20);
	}
	rig_close(&r);
}

/* One segment more than there may be: the queue breaks and says so. */
static void too_many_segments(const struct rig_mode *m)
{
	struct vring_driver_buf *b = calloc(1200, sizeof(*b));
	struct rig_mode mode = *m;
	unsigned i, n;

	CHECK(b);
	mode.num = 2048;
	for (n = VRING_MAX_SEGS; n <= VRING_MAX_SEGS + 1; n++) {
		struct rig r;

		rig_open(&r, &mode);
		r.device = rig_hold;
		for (i = 0; i < n; i++)
			b[i] = (struct vring_driver_buf){
				.addr = RIG_GPA + r.ring_end + i * 16, .len = 16, .wr = i > 5};
		CHECK(vring_driver_add(&r.d, b, n, NULL) >= 0);
		rig_publish(&r);
		rig_turn(&r);
		CHECK_EQ(r.nheld, n == VRING_MAX_SEGS);
		CHECK_EQ(r.q->broken, n != VRING_MAX_SEGS);
		CHECK_EQ(rig_signals(r.err), n != VRING_MAX_SEGS);
		if (r.nheld) {
			CHECK_EQ(r.held[0]->rd.left, 6 * 16);
			CHECK_EQ(r.held[0]->wr.left, (n - 6) * 16);
		}
		rig_close(&r);
	}
	free(b);
}

static void zero_lengths(const struct rig_mode *m)
{
	struct vring_driver_buf b[5] = {0};
	struct element *e;
	struct rig r;

	rig_open(&r, m);
	rig_turn(&r);
	b[0].addr = b[2].addr = 3; /* not memory at all, but no bytes either */
	b[1].addr = RIG_GPA + r.ring_end;
	b[1].len = 8;
	b[3].addr = RIG_GPA;
	b[4].addr = RIG_GPA + r.ring_end + 8;
	b[4].len = 4;
	b[3].wr = b[4].wr = true;
	CHECK(vring_driver_add(&r.d, b, 5, NULL) >= 0);
	CHECK(vring_driver_add(&r.d, b, 1, NULL) >= 0);
	rig_publish(&r);
	rig_turn(&r);
	e = rig_take(&r);
	CHECK(!e->fault);
	CHECK_EQ(e->rd.left, 8);
	CHECK_EQ(e->rd.n, 1);
	CHECK_EQ(e->wr.left, 4);
	CHECK_EQ(e->wr.n, 1);
	virtqueue_push(e);
	e = rig_take(&r);
	CHECK_EQ(e->rd.left + e->wr.left, 0);
	virtqueue_push(e);
	rig_turn(&r);
	CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
	CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
	CHECK_EQ(r.q->stats.breaks, 0);
	rig_close(&r);
}

/* Buffers, and an indirect table, that begin in one region and end in another. */
static void across_regions(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct vring_driver_buf b[2];
	unsigned k, piece;
	struct rig r;

	mode.pieces = 7;
	mode.chunk = 1000;
	rig_open(&r, &mode);
	rig_turn(&r);
	for (piece = 1; piece < 7; piece++) {
		uint64_t edge = RIG_GPA + piece * r.piece;

		if (edge - 1000 < RIG_GPA + r.ring_end)
			continue;
		for (k = 1; k < 40; k++) {
			uint64_t table = edge - 16;
			struct element *e;
			struct iovec v[4];
			uint8_t in[40], out[40];
			unsigned i;

			for (i = 0; i < sizeof(in); i++)
				in[i] = (uint8_t)(i * k + piece);
			b[0] = (struct vring_driver_buf){.addr = edge - 200 - k, .len = 40};
			b[1] = (struct vring_driver_buf){.addr = edge - k, .len = 40, .wr = true};
			memcpy(rig_ram(&r, b[0].addr), in, 40);
			if (k % 4) {
				CHECK(vring_driver_add(&r.d, b, 2, NULL) >= 0);
			} else {
				b[1].addr += 100;
				CHECK(vring_driver_add_indirect(
					      &r.d, b, 2, rig_ram(&r, table), table, NULL) >= 0);
			}
			rig_publish(&r);
			rig_turn(&r);
			e = rig_take(&r);
			CHECK(!e->fault);
			CHECK(cursor_get(&e->rd, out, 40));
			CHECK_MEM(out, in, 40);
			if (k % 4)
				CHECK_EQ(cursor_iovec(&e->wr, 40, v, 4), 2);
			CHECK(cursor_put(&e->wr, in, 40));
			virtqueue_push(e);
			rig_turn(&r);
			CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
			CHECK_MEM(rig_ram(&r, b[1].addr), in, 40);
		}
	}
	rig_close(&r);
}

/* What is not memory is left out and said; without a place for a status at the end the queue can't go on. */
static void not_memory(const struct rig_mode *m)
{
	static const struct {
		uint64_t rd, wr;
		bool rd_bad, wr_bad, broken;
	} cases[] = {
		{0, 0, false, false, false},
		{5, 0, true, false, false},
		{RIG_GPA - 1, 0, true, false, false},
		{UINT64_MAX - 3, 0, true, false, false},
		{0, 5, false, true, true},
		{0, UINT64_MAX, false, true, true},
		{7, RIG_GPA - 4, true, true, true},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vring_driver_buf b[2];
		struct element *e;
		struct rig r;

		rig_open(&r, m);
		rig_turn(&r);
		b[0] = (struct vring_driver_buf){
			.addr = cases[i].rd ? cases[i].rd : RIG_GPA + r.ring_end, .len = 8};
		b[1] = (struct vring_driver_buf){
			.addr = cases[i].wr ? cases[i].wr : RIG_GPA + r.ring_end, .len = 8, .wr = true};
		CHECK(vring_driver_add(&r.d, b, 2, NULL) >= 0);
		rig_publish(&r);
		rig_turn(&r);
		e = rig_pop(&r);
		CHECK_EQ(r.q->broken, cases[i].broken);
		CHECK_EQ(!e, cases[i].broken);
		CHECK_EQ(rig_signals(r.err), cases[i].broken);
		if (e) {
			CHECK_EQ(e->fault, cases[i].rd_bad);
			CHECK_EQ(e->rd.bad, cases[i].rd_bad);
			CHECK_EQ(e->rd.left, cases[i].rd_bad ? 0 : 8);
			CHECK(!e->wr.bad);
			virtqueue_push(e);
		}
		rig_close(&r);
	}
}

/* --- memory and log under way --- */

static void note_release(void *arg)
{
	++*(int *)arg;
}

static struct guestmem *map_of(const struct rig *r, uint64_t size)
{
	struct guestmem_spec spec = {.gpa = RIG_GPA, .uaddr = RIG_UADDR, .size = size};
	struct guestmem *empty = guestmem_new(), *out = NULL;
	int fd = fcntl(r->file, F_DUPFD_CLOEXEC, 0);

	CHECK_EQ(guestmem_add(empty, &spec, &fd, PROT_READ | PROT_WRITE, &out), 0);
	guestmem_unref(empty);
	return out;
}

/* Gives the queue a map of its own; *released counts when the old one goes. */
static void new_map(struct rig *r, uint64_t size, int *released)
{
	struct guestmem *m = map_of(r, size);

	virtqueue_set_memory(r->q, m);
	guestmem_on_release(r->mem, note_release, released);
	guestmem_unref(r->mem);
	r->mem = m;
}

static void memory_changes(const struct rig_mode *m)
{
	int released[4] = {0};
	struct rig r;
	unsigned i;

	rig_open(&r, m);
	for (i = 0; i < 3; i++) { /* three maps, two elements on each */
		add_many(&r, 2);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, 2);
		new_map(&r, r.ram_size, &released[i]);
		CHECK_EQ(released[i], 0);
	}
	new_map(&r, r.ram_size, &released[3]);
	CHECK_EQ(released[3], 1); /* nobody used it */
	add_many(&r, 2);
	rig_publish(&r);
	rig_turn(&r);
	take(&r, 2);
	for (i = 0; i < 8; i++) /* old and new addresses are good */
		rig_answer(r.held[i]);
	virtqueue_push(r.held[2]);
	virtqueue_push(r.held[7]);
	rig_turn(&r);
	CHECK_EQ(released[0] + released[1] + released[2], 0);
	virtqueue_push(r.held[3]);
	rig_turn(&r);
	CHECK_EQ(released[1], 1);
	CHECK_EQ(released[0] + released[2], 0);
	virtqueue_push(r.held[0]);
	virtqueue_push(r.held[4]);
	rig_turn(&r);
	CHECK_EQ(released[0] + released[2], 0);
	rig_stop(&r, false);
	virtqueue_push(r.held[5]);
	rig_turn(&r);
	CHECK_EQ(released[2], 1);
	CHECK_EQ(r.rested, 0);
	virtqueue_push(r.held[1]);
	virtqueue_push(r.held[6]);
	r.nheld = 0;
	rig_turn(&r);
	CHECK_EQ(released[0], 1);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_collect(&r, NULL, 8), 8);
	CHECK_EQ(rig_start(&r), 0);
	works(&r);
	rig_close(&r);
}

/* A map without the ring: the queue breaks, nothing is touched, and it comes to rest when all came back. */
static void memory_lost(const struct rig_mode *m)
{
	struct guestmem *none;
	int released = 0;
	struct rig r;

	rig_open(&r, m);
	add_many(&r, 3);
	rig_publish(&r);
	rig_turn(&r);
	take(&r, 3);
	virtqueue_push(r.held[0]); /* staged */
	none = guestmem_new();
	virtqueue_set_memory(r.q, none);
	guestmem_on_release(r.mem, note_release, &released);
	guestmem_unref(r.mem);
	CHECK_EQ(rig_signals(r.err), 1);
	CHECK(r.q->broken);
	CHECK_EQ(released, 0);
	virtqueue_push(r.held[1]);
	rig_turn(&r);
	CHECK_EQ(released, 0);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(r.rested, 0);
	virtqueue_unpop(r.held[2]);
	r.nheld = 0;
	CHECK_EQ(released, 1);
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_collect(&r, NULL, 3), 0);
	/* where it stood is known all the same */
	CHECK_EQ(virtqueue_base(r.q) & 0x7fff, 3);
	r.mem = none;
	CHECK_EQ(rig_start(&r), -EFAULT);
	CHECK_EQ(r.q->phase, VRING_RESTING);
	rig_close(&r);
}

struct bits {
	struct dirtylog *log;
	uint8_t *map;
	size_t size;
};

/* Bits count from guest address 0, so the file is sparse. */
static struct bits log_open(const struct rig *r)
{
	struct bits b = {.size = (RIG_GPA + r->ram_size) / PAGE / 8 + 1};
	int fd = memfd_create("log", MFD_CLOEXEC);

	CHECK_SYS(fd);
	CHECK_EQ(ftruncate(fd, (off_t)b.size), 0);
	b.map = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(b.map != MAP_FAILED);
	CHECK_EQ(dirtylog_new(&b.log, &fd, b.size, 0), 0);
	return b;
}

static bool log_take(const struct bits *b, uint64_t gpa)
{
	uint64_t page = gpa / PAGE;
	bool was = b->map[page / 8] & (1 << page % 8);

	b->map[page / 8] &= (uint8_t) ~(1 << page % 8);
	return was;
}

static void log_empty(const struct bits *b)
{
	for (size_t i = 0; i < b->size; i++)
		if (b->map[i])
			FAIL("byte %zu of the log is 0x%02x", i, b->map[i]);
}

static void log_close(struct bits *b)
{
	dirtylog_unref(b->log);
	munmap(b->map, b->size);
}

/* One request with n bytes to write at gpa, written from offset `at` on, in two parts. */
static void log_request(struct rig *r, uint64_t gpa, uint32_t n, uint32_t wrote)
{
	struct vring_driver_buf b[3] = {{.addr = RIG_GPA + r->ring_end, .len = 8},
		{.addr = gpa, .len = n / 3, .wr = true}, {.addr = gpa + n / 3, .len = n - n / 3, .wr = true}};
	struct element *e;

	CHECK(vring_driver_add(&r->d, b, 3, NULL) >= 0);
	rig_publish(r);
	rig_turn(r);
	e = rig_take(r);
	CHECK(cursor_zero(&e->wr, wrote));
	virtqueue_push(e);
	rig_turn(r);
	CHECK_EQ(vring_driver_get(&r->d, NULL, NULL), 1);
}

static void log_exact(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	uint64_t data, ring, events;
	struct bits bits;
	unsigned i;
	struct rig r;

	mode.chunk = 64 * PAGE;
	mode.num = 8;
	rig_open(&r, &mode);
	rig_turn(&r);
	bits = log_open(&r);
	data = ALIGN_UP(RIG_GPA + r.ring_end, PAGE) + 3 * PAGE;
	ring = RIG_GPA + (mode.packed ? r.addr[0] : r.addr[2]);
	events = RIG_GPA + r.addr[2];
	log_request(&r, data, 3 * PAGE, 3 * PAGE); /* no log, no marks */
	log_empty(&bits);
	virtqueue_set_log(r.q, bits.log, true);
	for (i = 0; i < 20; i++) {
		uint32_t n = 1 + rig_random(5 * PAGE), wrote = rig_random(n + 1), off = rig_random(PAGE);
		uint64_t p;

		log_request(&r, data + off, n, wrote);
		CHECK(log_take(&bits, ring)); /* everything of the ring is in one page */
		log_take(&bits, events);
		for (p = 0; p < off + wrote && wrote; p += PAGE)
			CHECK(log_take(&bits, data + p));
		log_empty(&bits);
	}
	virtqueue_set_log(r.q, bits.log, false); /* the ring only */
	log_request(&r, data, 5 * PAGE, 5 * PAGE);
	CHECK(log_take(&bits, ring));
	log_take(&bits, events);
	log_empty(&bits);
	virtqueue_set_log(r.q, NULL, true);
	log_request(&r, data, 5 * PAGE, 5 * PAGE);
	log_empty(&bits);
	/* an element that is out while the log is switched on is logged in full */
	{
		struct vring_driver_buf b = {.addr = data, .len = 2 * PAGE, .wr = true};
		struct element *e;

		CHECK(vring_driver_add(&r.d, &b, 1, NULL) >= 0);
		rig_publish(&r);
		rig_turn(&r);
		e = rig_take(&r);
		CHECK(cursor_zero(&e->wr, PAGE + 1));
		virtqueue_set_log(r.q, bits.log, true);
		CHECK(cursor_zero(&e->wr, 1));
		virtqueue_push(e);
		rig_turn(&r);
		CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
		CHECK(log_take(&bits, data));
		CHECK(log_take(&bits, data + PAGE));
	}
	rig_close(&r);
	log_close(&bits);
}

/* A part that was split off and written alone, behind a gap: all that is writable counts. */
static void log_gap(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct vring_driver_buf b;
	struct cursor head;
	struct element *e;
	struct bits bits;
	struct rig r;

	mode.chunk = 16 * PAGE;
	mode.num = 4;
	rig_open(&r, &mode);
	rig_turn(&r);
	bits = log_open(&r);
	virtqueue_set_log(r.q, bits.log, true);
	b = (struct vring_driver_buf){
		.addr = ALIGN_UP(RIG_GPA + r.ring_end, PAGE) + PAGE, .len = 4 * PAGE, .wr = true};
	CHECK(vring_driver_add(&r.d, &b, 1, NULL) >= 0);
	rig_publish(&r);
	rig_turn(&r);
	e = rig_take(&r);
	CHECK(cursor_split(&e->wr, 4 * PAGE - 1, &head));
	CHECK(cursor_zero(&e->wr, 1));
	virtqueue_push(e);
	rig_turn(&r);
	CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
	CHECK(log_take(&bits, b.addr + 3 * PAGE));
	rig_close(&r);
	log_close(&bits);
}

/* --- the device's own bytes --- */

static void request_bytes(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	unsigned i, k;
	struct rig r;

	mode.req_size = 100;
	rig_open(&r, &mode);
	rig_turn(&r);
	for (i = 0; i < 50; i++) {
		add_many(&r, 3);
		rig_publish(&r);
		rig_turn(&r);
		take(&r, 3);
		for (k = 0; k < 3; k++) {
			static const uint8_t zeros[100];
			uint8_t *p = r.held[k]->req;

			CHECK(p && (uintptr_t)p % 16 == 0);
			CHECK_MEM(p, zeros, 100);
			memset(p, 0xff, 100);
		}
		shuffle(r.held, 3);
		while (r.nheld)
			virtqueue_push(r.held[--r.nheld]);
		rig_turn(&r);
		CHECK_EQ(rig_collect(&r, NULL, 3), 3);
	}
	CHECK(virtqueue_state(r.q) != NULL);
	CHECK_EQ(virtqueue_index(r.q), 0);
	CHECK(virtqueue_loop(r.q) == r.loop);
	rig_close(&r);
}

/* Memory and descriptors of queues that come and go. */
static void start_stop(const struct rig_mode *m)
{
	struct rig r;

	rig_open(&r, m);
	for (unsigned i = 0; i < 50; i++) {
		works(&r);
		rig_stop(&r, i % 2);
		rig_turn(&r);
		CHECK_EQ(r.rested, i + 1);
		if (i % 2) /* discarded: the base is the front-end's affair */
			r.q->base = base_now(&r);
		CHECK_EQ(rig_start(&r), 0);
		rig_turn(&r);
	}
	rig_close(&r);
}

static const struct {
	const char *name;
	void (*fn)(const struct rig_mode *m);
} cases[] = {
	{"requests are answered", echo},
	{"a turn has a budget", budget},
	{"buffers left behind and a wake-up", wake},
	{"taking buffers between turns", pop_between_turns},
	{"the youngest go back, in any order", unpop_running},
	{"the youngest go back at the end", unpop_draining},
	{"an old one goes back too late", unpop_too_late},
	{"in order", in_order},
	{"in order, an old one goes back", unpop_in_order},
	{"a stop waits", stop_waits},
	{"a stop that discards", stop_discards},
	{"a broken queue", breaks},
	{"long chains", many_segments},
	{"more long chains than may be out", many_long_chains},
	{"a chain that is too long", too_many_segments},
	{"descriptors without bytes", zero_lengths},
	{"buffers across regions", across_regions},
	{"buffers that are not memory", not_memory},
	{"memory changes under elements", memory_changes},
	{"the ring loses its memory", memory_lost},
	{"the log has what was written", log_exact},
	{"the log and gaps", log_gap},
	{"the device's bytes", request_bytes},
	{"start and stop", start_stop},
};

struct run {
	unsigned test;
	struct rig_mode mode;
};

static void run(void *arg)
{
	const struct run *t = arg;

	rig_seed(t->test + 1);
	cases[t->test].fn(&t->mode);
}

int main(void)
{
	unsigned i, k;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		for (k = 0; k < 4; k++) {
			struct run t = {.test = i, .mode = {.num = 256, .packed = k & 2, .event_idx = k & 1}};
			char name[80];

			snprintf(name, sizeof(name), "%s, %s%s", cases[i].name, k & 2 ? "packed" : "split",
				k & 1 ? ", event index" : "");
			tap_case(name, run, &t);
		}
	return tap_done();
}
