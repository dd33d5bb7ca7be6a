/* SPDX-License-Identifier: MIT */
/*
 * Limits per second, shared by the lanes of a disk.
 *
 * A bucket is one number: the time at which it will be full again. Who takes n units moves that time on by what n units
 * last at the limit's rate, and may use them as soon as the time is no farther ahead than a burst lasts. So to take is
 * to be given a date, and whoever takes first has the earlier one: nobody starves. A request that is larger than a burst
 * goes when the bucket is full, and those that follow wait longer.
 *
 * A lane takes a slice at a time, what the limit allows in a millisecond, and then spends it without looking at the
 * bucket. It has no second date before it has spent up to the first, so that lanes under load take turns.
 */
#ifndef DISK_THROTTLE_H
#define DISK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

enum { THROTTLE_OPS, THROTTLE_BYTES, THROTTLE_BUCKETS };

struct throttle_bucket {
	uint64_t rate;	       /* units per second; 0: no limit */
	uint64_t burst, slice; /* units */
	uint64_t full_at;      /* monotonic ns; atomic */
};

struct throttle {
	struct throttle_bucket bucket[THROTTLE_BUCKETS];
};

struct throttle_lane {
	struct {
		uint64_t units, at; /* may be used from then on, ns */
	} credit[THROTTLE_BUCKETS];
};

/* burst 0: a tenth of a second's. */
void throttle_bucket_init(struct throttle_bucket *b, uint64_t rate, uint64_t burst);
/* When n units may be used; at most now: at once. */
uint64_t throttle_take(struct throttle_bucket *b, uint64_t now, uint64_t n);
/* 0: a request of this size may go now, and was counted; else when to ask again. */
uint64_t throttle_ask(struct throttle *t, struct throttle_lane *l, uint64_t now, uint64_t bytes);
/* It goes anyway, and is counted. */
void throttle_charge(struct throttle *t, struct throttle_lane *l, uint64_t now, uint64_t bytes);

#endif
