/* SPDX-License-Identifier: MIT */
/* Steps that several tests of virtqueues take; see rig.h. */
#include "rig.h"

void rig_add_many(struct rig *r, unsigned n)
{
	while (n--)
		rig_add_small(r);
}

void rig_collect_exactly(struct rig *r, uint32_t first, unsigned n)
{
	uint32_t tags[256];
	unsigned i, got;

	CHECK(n <= ARRAY_SIZE(tags));
	got = rig_collect(r, tags, ARRAY_SIZE(tags));
	CHECK_EQ(got, n);
	for (i = 0; i < n; i++)
		CHECK_EQ(tags[i], first + i);
}

void rig_works(struct rig *r)
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

void rig_take_many(struct rig *r, unsigned n)
{
	while (n--)
		r->held[r->nheld++] = rig_take(r);
}

void rig_shuffle(struct element **e, unsigned n)
{
	while (n > 1) {
		unsigned i = rig_random(n--);
		struct element *t = e[i];

		e[i] = e[n];
		e[n] = t;
	}
}

void rig_give_back(struct rig *r, unsigned n)
{
	struct element **youngest = r->held + r->nheld - n;
	unsigned i;

	rig_shuffle(youngest, n);
	for (i = 0; i < n; i++)
		virtqueue_unpop(youngest[i]);
	r->nheld -= n;
}

void rig_check_held(struct rig *r, uint32_t first)
{
	for (unsigned i = 0; i < r->nheld; i++)
		CHECK_EQ(rig_tag(r->held[i]), first + i);
}

uint32_t rig_driver_base(const struct rig *r)
{
	const struct vring_driver *d = &r->d;

	if (!r->mode.packed)
		return d->next_avail;
	return d->next_avail | (uint32_t)d->avail_wrap << 15 | (uint32_t)d->next_used << 16 |
	       (uint32_t)d->used_wrap << 31;
}

void rig_push_held(struct rig *r, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		rig_answer(r->held[i]);
		virtqueue_push(r->held[i]);
	}
}

static void size_case(void *arg)
{
	const struct rig_size_case *t = arg;
	struct rig r;

	rig_seed(t->mode.num + t->chains);
	rig_open(&r, &t->mode);
	rig_turn(&r);
	rig_signals(r.call);
	rig_traffic(&r, t->requests, t->chains, t->hold);
	CHECK_EQ(r.completed, t->requests);
	CHECK_EQ(r.q->stats.popped, t->requests);
	CHECK_EQ(r.q->stats.pushed, t->requests);
	CHECK_EQ(r.q->stats.breaks, 0);
	CHECK_EQ(virtqueue_outstanding(r.q), 0);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(virtqueue_base(r.q), rig_driver_base(&r));
	rig_close(&r);
}

void rig_size_cases(const struct rig_mode *modes, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < 4; k++) {
			struct rig_size_case t = {
				.mode = modes[i], .requests = 70000, .chains = k & 2 ? 4 : 1, .hold = k & 2};
			char name[80];

			t.mode.event_idx = k & 1;
			snprintf(name, sizeof(name), "70000 requests, a ring of %u%s%s", t.mode.num,
				k & 1 ? ", event index" : "", k & 2 ? ", chains, any order" : "");
			tap_case(name, size_case, &t);
		}
}

struct run {
	void (*fn)(const struct rig_mode *m);
	struct rig_mode mode;
	unsigned seed;
};

static void run(void *arg)
{
	const struct run *t = arg;

	rig_seed(t->seed);
	t->fn(&t->mode);
}

void rig_cases(const struct rig_case *cases, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < 4; k++) {
			struct run t = {.fn = cases[i].fn,
				.mode = {.num = 256, .packed = k & 2, .event_idx = k & 1},
				.seed = i + 1};
			char name[80];

			snprintf(name, sizeof(name), "%s, %s%s", cases[i].name, k & 2 ? "packed" : "split",
				k & 1 ? ", event index" : "");
			tap_case(name, run, &t);
		}
}

void rig_bad_addresses(const struct rig_mode *m, const uint64_t off[3], const uint64_t room[3])
{
	const uint64_t far = 1u << 30;
	struct ring_addr good;
	struct rig r;

	rig_prepare(&r, m);
	good = r.q->addr;
	for (unsigned i = 0; i < 9; i++) {
		uint64_t *a = i % 3 == 0 ? &r.q->addr.desc : i % 3 == 1 ? &r.q->addr.avail : &r.q->addr.used;

		*a += i < 3 ? off[i % 3] : i < 6 ? far : RIG_UADDR + r.ram_size - *a - room[i % 3];
		CHECK_EQ(rig_start(&r), -EFAULT);
		CHECK_EQ(r.q->phase, VRING_RESTING);
		r.q->addr = good;
	}
	CHECK_EQ(rig_start(&r), 0);
	good.used += far; /* while it runs: refused, it goes on */
	CHECK_EQ(virtqueue_set_addr(r.q, &good), -EFAULT);
	rig_turn(&r);
	rig_signals(r.call);
	rig_traffic(&r, 100, 1, false);
	rig_close(&r);
}
