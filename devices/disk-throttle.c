/* SPDX-License-Identifier: MIT */
/* Limits per second, see disk-throttle.h. */
#include "disk-throttle.h"

#include "util.h"

#define SECOND	 UINT64_C(1000000000)
#define LONGEST	 (UINT64_C(1) << 50) /* ns that a request may cost: keeps the sums small */
#define SLICES	 1000u		     /* a second */
#define PER_REST 10u		     /* what the limit allows in 1/10 s may come at once */

static uint64_t duration(const struct throttle_bucket *b, uint64_t n)
{
	unsigned __int128 ns = (unsigned __int128)n * SECOND / b->rate;

	return ns > LONGEST ? LONGEST : (uint64_t)ns;
}

void throttle_bucket_init(struct throttle_bucket *b, uint64_t rate, uint64_t burst)
{
	b->rate = rate;
	b->burst = burst != 0 ? burst : MAX(rate / PER_REST, 1u);
	b->slice = MIN(MAX(rate / SLICES, 1u), b->burst);
	b->full_at = 0;
}

uint64_t throttle_take(struct throttle_bucket *b, uint64_t now, uint64_t n)
{
	uint64_t cost = duration(b, n), burst = duration(b, b->burst);
	uint64_t old = __atomic_load_n(&b->full_at, __ATOMIC_RELAXED), from;

	do
		from = MAX(old, now);
	while (!__atomic_compare_exchange_n(
		&b->full_at, &old, from + cost, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	burst -= MIN(burst, cost);
	return from > burst ? from - burst : 0;
}

/* Makes sure that the lane has the units, now or later. */
static void provide(struct throttle *t, struct throttle_lane *l, int i, uint64_t now, uint64_t units)
{
	struct throttle_bucket *b = &t->bucket[i];
	uint64_t missing, at;

	if (l->credit[i].units >= units)
		return;
	missing = MAX(units - l->credit[i].units, b->slice);
	at = throttle_take(b, now, missing);
	l->credit[i].at = MAX(l->credit[i].at, at);
	l->credit[i].units += missing;
}

static uint64_t units_of(int i, uint64_t bytes)
{
	return i == THROTTLE_OPS ? 1 : bytes;
}

static uint64_t prepare(struct throttle *t, struct throttle_lane *l, uint64_t now, uint64_t bytes)
{
	uint64_t at = 0;

	for (int i = 0; i < THROTTLE_BUCKETS; i++) {
		if (t->bucket[i].rate == 0 || units_of(i, bytes) == 0)
			continue;
		provide(t, l, i, now, units_of(i, bytes));
		at = MAX(at, l->credit[i].at);
	}
	return at;
}

static void spend(struct throttle *t, struct throttle_lane *l, uint64_t bytes)
{
	for (int i = 0; i < THROTTLE_BUCKETS; i++)
		if (t->bucket[i].rate != 0)
			l->credit[i].units -= units_of(i, bytes);
}

uint64_t throttle_ask(struct throttle *t, struct throttle_lane *l, uint64_t now, uint64_t bytes)
{
	uint64_t at = prepare(t, l, now, bytes);

	if (at > now)
		return at;
	spend(t, l, bytes);
	return 0;
}

void throttle_charge(struct throttle *t, struct throttle_lane *l, uint64_t now, uint64_t bytes)
{
	prepare(t, l, now, bytes);
	spend(t, l, bytes);
}
