/* SPDX-License-Identifier: MIT */
/* The end of a queue's run: what is out, what is given back meanwhile, what is dropped; and queues that broke. */
#include "rig.h"

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
		rig_take_many(&r, n);
		rig_stop(&r, false);
		CHECK(!rig_pop(&r));
		if (rig_random(2)) { /* the older ones are done first, or last */
			rig_give_back(&r, back);
			rig_turn(&r);
			CHECK_EQ(r.rested, rested + (back == n));
		}
		rig_push_held(&r, 0, n - back);
		if (r.nheld == n) {
			rig_turn(&r);
			rig_give_back(&r, back);
		}
		r.nheld = 0;
		rig_turn(&r);
		CHECK_EQ(r.rested, rested + 1);
		rig_collect_exactly(&r, r.next_tag - n, n - back);
		CHECK_EQ(rig_start(&r), 0);
		rig_turn(&r);
		rig_take_many(&r, back);
		rig_check_held(&r, r.next_tag - back);
		rig_push_held(&r, 0, back);
		r.nheld = 0;
		rig_turn(&r);
		rig_collect_exactly(&r, r.next_tag - back, back);
	}
	rig_works(&r);
	rig_close(&r);
}

/* A younger buffer was used already: the ring can't go back behind it, so the older one is returned, empty. */
static void unpop_too_late(const struct rig_mode *m)
{
	uint32_t tags[4];
	struct rig r;

	rig_open(&r, m);
	rig_add_many(&r, 4);
	rig_publish(&r);
	rig_turn(&r);
	rig_take_many(&r, 4);
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
	rig_take_many(&r, 1);
	CHECK_EQ(rig_tag(r.held[0]), 3);
	virtqueue_push(r.held[0]);
	r.nheld = 0;
	rig_works(&r);
	rig_close(&r);
}

static void stop_waits(const struct rig_mode *m)
{
	unsigned round, i;
	struct rig r;

	rig_open(&r, m);
	for (round = 0; round < 30; round++) {
		unsigned n = 1 + rig_random(8), rested = r.rested;

		rig_add_many(&r, n);
		rig_publish(&r);
		rig_turn(&r);
		rig_take_many(&r, n);
		rig_add_many(&r, 2); /* comes too late */
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
		rig_collect_exactly(&r, r.next_tag - 2 - n, n);
		CHECK(rig_signals(r.call) > 0);
		CHECK_EQ(rig_start(&r), 0);
		r.device = rig_echo;
		rig_turn(&r);
		rig_collect_exactly(&r, r.next_tag - 2, 2);
		r.device = NULL;
		rig_stop(&r, false);
		rig_turn(&r);
		CHECK_EQ(virtqueue_base(r.q), rig_driver_base(&r));
		CHECK_EQ(rig_start(&r), 0);
		r.stopped = round + 1;
	}
	rig_works(&r);
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
		rig_add_many(&r, 6);
		rig_publish(&r);
		rig_turn(&r);
		rig_take_many(&r, 6);
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
	rig_add_many(&r, 4);
	rig_publish(&r);
	rig_turn(&r);
	rig_take_many(&r, 4);
	rig_stop(&r, false);
	virtqueue_push(r.held[1]);
	virtqueue_push(r.held[2]);
	virtqueue_unpop(r.held[0]);
	virtqueue_unpop(r.held[3]);
	r.nheld = 0;
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	rig_collect_exactly(&r, 0, 3);
	CHECK_EQ(rig_start(&r), 0);
	rig_turn(&r);
	rig_take_many(&r, 1);
	CHECK_EQ(rig_tag(r.held[0]), 3);
	virtqueue_push(r.held[0]);
	r.nheld = 0;
	rig_works(&r);
	rig_close(&r);
}

static void breaks(const struct rig_mode *m)
{
	struct rig r;

	rig_open(&r, m);
	rig_add_many(&r, 5);
	rig_publish(&r);
	rig_turn(&r);
	rig_take_many(&r, 2);
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
	rig_collect_exactly(&r, 0, 2);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_start(&r), 0);
	rig_works(&r);
	CHECK_EQ(r.completed, 6 + 3u * m->num);
	rig_close(&r);
}

int main(void)
{
	static const struct rig_case cases[] = {
		{"the youngest go back at the end", unpop_draining},
		{"an old one goes back too late", unpop_too_late},
		{"in order, an old one goes back", unpop_in_order},
		{"a stop waits", stop_waits},
		{"a stop that discards", stop_discards},
		{"a broken queue", breaks},
	};

	rig_cases(cases, ARRAY_SIZE(cases));
	return tap_done();
}
