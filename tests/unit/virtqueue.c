/* SPDX-License-Identifier: MIT */
/* What both ring layouts have in common: the turn, giving buffers back, the device's own bytes, starts and stops. */
#include "rig.h"

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
		rig_collect_exactly(&r, i * 3, 3);
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
	rig_add_many(&r, 150);
	CHECK(rig_publish(&r));
	rig_turn(&r);
	CHECK_EQ(per_turn, 64064022);
	CHECK_EQ(r.q->stats.kicks, 1);
	while (r.nheld)
		virtqueue_push(r.held[--r.nheld]);
	rig_works(&r);
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
	rig_add_many(&r, 10);
	CHECK(rig_publish(&r));
	for (i = 0; i < 10; i++) {
		rig_turn(&r);
		rig_collect_exactly(&r, i, 1);
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
	rig_collect_exactly(&r, 10, 1);
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
	rig_add_many(&r, 200);
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
		rig_take_many(&r, n);
		back = rig_random(n + 1);
		rig_give_back(&r, back);
		CHECK_EQ(virtqueue_outstanding(r.q), n - back);
		CHECK(virtqueue_pending(r.q) == (back > 0));
		rig_take_many(&r, back);
		CHECK(!rig_pop(&r));
		rig_check_held(&r, r.next_tag - n);
		rig_push_held(&r, 0, n);
		r.nheld = 0;
		rig_turn(&r);
		rig_collect_exactly(&r, r.next_tag - n, n);
	}
	rig_works(&r);
	rig_close(&r);
}

static void take_a_turn_and_give_it_back(struct rig *r)
{
	struct element *e[VRING_BUDGET];
	unsigned n;

	for (n = 0; n < VRING_BUDGET && (e[n] = rig_pop(r)); n++)
		;
	while (n--)
		virtqueue_unpop(e[n]);
}

/* A device that has no use for what it took is not asked again before it says so. */
static void unpop_all(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct rig r;

	mode.num = 2 * VRING_BUDGET;
	rig_open(&r, &mode);
	r.device = rig_echo;
	rig_turn(&r); /* after which it waits for a kick */
	r.calls = 0;
	r.device = take_a_turn_and_give_it_back;
	for (unsigned i = 0; i < VRING_BUDGET + 10; i++)
		rig_add_small(&r);
	rig_publish(&r);
	rig_turn(&r);
	CHECK_EQ(r.calls, 1);
	r.device = rig_echo;
	virtqueue_wake(r.q);
	rig_turn(&r);
	rig_collect_exactly(&r, r.next_tag - (VRING_BUDGET + 10), VRING_BUDGET + 10);
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
		rig_take_many(&r, n);
		rig_shuffle(r.held, n);
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
	rig_works(&r);
	rig_close(&r);
}

/* --- several at once --- */

/* Device: takes up to max into held[]; how many. */
static unsigned take_at_once(struct rig *r, unsigned max)
{
	unsigned n = virtqueue_pop_many(r->q, r->held + r->nheld, max);

	r->nheld += n;
	return n;
}

/* Held ones go back to the driver with one call. */
static void push_at_once(struct rig *r)
{
	for (unsigned i = 0; i < r->nheld; i++)
		rig_answer(r->held[i]);
	virtqueue_push_many(r->held, r->nheld);
	r->nheld = 0;
	rig_turn(r);
}

/* A small ring, so that most batches go around its end; some go back in part. */
static void batches(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct rig r;

	mode.num = 16;
	rig_open(&r, &mode);
	rig_turn(&r);
	for (unsigned round = 0; round < 500; round++) {
		unsigned n = 1 + rig_random(5), i, first_part, back;
		uint32_t first = r.next_tag;

		for (i = 0; i < n; i++)
			if (rig_random(2))
				CHECK_EQ(rig_add(&r, 16, 1 + rig_random(2), 8, 1, 8), 0);
			else
				CHECK_EQ(rig_add_indirect(&r, 16, 1 + rig_random(3), 8, 2, 8), 0);
		rig_publish(&r);
		rig_turn(&r);
		first_part = 1 + rig_random(n);
		CHECK_EQ(take_at_once(&r, first_part), first_part);
		CHECK_EQ(take_at_once(&r, VRING_BUDGET), n - first_part);
		CHECK_EQ(take_at_once(&r, VRING_BUDGET), 0);
		rig_check_held(&r, first);
		back = rig_random(n + 1);
		rig_give_back(&r, back);
		CHECK_EQ(virtqueue_outstanding(r.q), n - back);
		CHECK(virtqueue_pending(r.q) == (back > 0));
		CHECK_EQ(take_at_once(&r, n), back);
		rig_check_held(&r, first);
		push_at_once(&r);
		rig_collect_exactly(&r, first, n);
	}
	rig_close(&r);
}

/* No more than what is left of the turn; the next one goes on by itself. */
static void batches_device(struct rig *r)
{
	unsigned n, *per_turn = r->user, sum = 0;

	while ((n = take_at_once(r, 40)))
		sum += n;
	if (sum)
		*per_turn = *per_turn * 1000 + sum;
}

static void batch_budget(const struct rig_mode *m)
{
	unsigned per_turn = 0;
	struct rig r;

	rig_open(&r, m);
	r.device = batches_device;
	r.user = &per_turn;
	rig_turn(&r);
	rig_add_many(&r, 150);
	rig_publish(&r);
	rig_turn(&r);
	CHECK_EQ(per_turn, 64064022);
	CHECK_EQ(r.q->stats.popped, 150);
	r.device = NULL;
	rig_give_back(&r, 150); /* which adds nothing to a turn */
	virtqueue_wake(r.q);
	rig_turn(&r);
	CHECK_EQ(take_at_once(&r, 200), 64);
	CHECK_EQ(take_at_once(&r, 200), 0);
	push_at_once(&r);
	rig_collect_exactly(&r, 0, 64);
	rig_close(&r);
}

/* What came before a chain that breaks the queue is served, what comes behind it is not looked at. */
static void batch_with_a_bad_one(const struct rig_mode *m)
{
	static const struct {
		uint64_t gpa;
		bool wr_first;
	} cases[] = {{RIG_GPA, true}, {5, false}};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vring_driver_buf b[2] = {{.addr = RIG_GPA, .len = 8, .wr = cases[i].wr_first},
			{.addr = cases[i].gpa, .len = 8, .wr = !cases[i].wr_first}};
		struct rig r;

		rig_open(&r, m);
		rig_turn(&r);
		rig_add_many(&r, 3);
		CHECK(vring_driver_add(&r.d, b, 2, NULL) >= 0);
		rig_add_many(&r, 3);
		CHECK(vring_driver_add(&r.d, b, 2, NULL) >= 0);
		rig_publish(&r);
		rig_turn(&r);
		CHECK_EQ(take_at_once(&r, 10), 3);
		CHECK(r.q->broken);
		CHECK_EQ(r.q->stats.breaks, 1);
		CHECK_EQ(rig_signals(r.err), 1);
		CHECK_EQ(take_at_once(&r, 10), 0);
		CHECK_EQ(virtqueue_outstanding(r.q), 3);
		rig_check_held(&r, 0);
		push_at_once(&r);
		rig_collect_exactly(&r, 0, 3);
		CHECK_EQ(r.q->stats.breaks, 1);
		rig_close(&r);
	}
}

static void request_bytes(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	unsigned i, k;
	struct rig r;

	mode.req_size = 100;
	rig_open(&r, &mode);
	rig_turn(&r);
	for (i = 0; i < 50; i++) {
		rig_add_many(&r, 3);
		rig_publish(&r);
		rig_turn(&r);
		rig_take_many(&r, 3);
		for (k = 0; k < 3; k++) {
			static const uint8_t zeros[100];
			uint8_t *p = r.held[k]->req;

			CHECK(p && (uintptr_t)p % 16 == 0);
			CHECK_MEM(p, zeros, 100);
			memset(p, 0xff, 100);
		}
		rig_shuffle(r.held, 3);
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
		rig_works(&r);
		rig_stop(&r, i % 2);
		rig_turn(&r);
		CHECK_EQ(r.rested, i + 1);
		if (i % 2) /* discarded: the base is the front-end's affair */
			r.q->base = rig_driver_base(&r);
		CHECK_EQ(rig_start(&r), 0);
		rig_turn(&r);
	}
	rig_close(&r);
}

int main(void)
{
	static const struct rig_case cases[] = {
		{"requests are answered", echo},
		{"a turn has a budget", budget},
		{"buffers left behind and a wake-up", wake},
		{"taking buffers between turns", pop_between_turns},
		{"the youngest go back, in any order", unpop_running},
		{"a turn goes back whole", unpop_all},
		{"in order", in_order},
		{"several at once", batches},
		{"a turn's budget, several at once", batch_budget},
		{"a bad chain among several", batch_with_a_bad_one},
		{"the device's bytes", request_bytes},
		{"start and stop", start_stop},
	};

	rig_cases(cases, ARRAY_SIZE(cases));
	return tap_done();
}
