/* SPDX-License-Identifier: MIT */
/*
 * A histogram of times, cheap enough for every request: plain counters in one thread. Buckets are a quarter of a power
 * of two wide, so a quantile is right to 25 %.
 */
#ifndef STATS_H
#define STATS_H

#include <stdint.h>

#include "json.h"
#include "util.h"

enum { STATS_BUCKETS = 160 }; /* the last one begins at 1.75 * 2^40 ns, half an hour, and has no end */

struct stats_histogram {
	uint64_t bucket[STATS_BUCKETS];
	uint64_t count, sum, max; /* ns */
};

static inline unsigned stats_bucket(uint64_t ns)
{
	unsigned e, i;

	if (ns < 4)
		return (unsigned)ns;
	e = 63 - (unsigned)__builtin_clzll(ns);
	i = (e - 1) * 4 + (unsigned)(ns >> (e - 2) & 3);
	return MIN(i, STATS_BUCKETS - 1u);
}

static inline void stats_add(struct stats_histogram *h, uint64_t ns)
{
	h->bucket[stats_bucket(ns)]++;
	h->count++;
	h->sum += ns;
	h->max = MAX(h->max, ns);
}

/* The first value above bucket i; UINT64_MAX for the last. */
uint64_t stats_bucket_end(unsigned i);
/* An upper bound of the quantile per_mille (500: median): the end of its bucket, the maximum at most. 0: empty. */
uint64_t stats_quantile(const struct stats_histogram *h, unsigned per_mille);
/* Values below ns; exact where a bucket ends there. */
uint64_t stats_below(const struct stats_histogram *h, uint64_t ns);
/* An object: count, sum, max, p50, p90, p99, p999 in ns, and buckets: [[end, count]…] of those that are not empty. */
void stats_write(struct json *out, const struct stats_histogram *h);

#endif
