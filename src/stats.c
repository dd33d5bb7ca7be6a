/* SPDX-License-Identifier: MIT */
/* What a histogram says; see stats.h. */
#include "stats.h"

uint64_t stats_bucket_end(unsigned i)
{
	unsigned e = (i + 1) / 4 + 1;

	if (i >= STATS_BUCKETS - 1)
		return UINT64_MAX;
	if (i + 1 < 4)
		return i + 1;
	return (UINT64_C(4) + (i + 1) % 4) << (e - 2);
}

uint64_t stats_quantile(const struct stats_histogram *h, unsigned per_mille)
{
	uint64_t rank = h->count / 1000 * per_mille + (h->count % 1000 * per_mille + 999) / 1000;
	uint64_t seen = 0;
	unsigned i;

	if (!h->count)
		return 0;
	for (i = 0; i < STATS_BUCKETS - 1; i++) {
		seen += h->bucket[i];
		if (seen >= rank)
			break;
	}
	return MIN(stats_bucket_end(i), h->max);
}

uint64_t stats_below(const struct stats_histogram *h, uint64_t ns)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < STATS_BUCKETS && stats_bucket_end(i) <= ns; i++)
		n += h->bucket[i];
	return n;
}

static void member(struct json *out, const char *key, uint64_t value)
{
	json_key(out, key);
	json_u64(out, value);
}

void stats_write(struct json *out, const struct stats_histogram *h)
{
	json_object_begin(out);
	member(out, "count", h->count);
	member(out, "sum", h->sum);
	member(out, "max", h->max);
	member(out, "p50", stats_quantile(h, 500));
	member(out, "p90", stats_quantile(h, 900));
	member(out, "p99", stats_quantile(h, 990));
	member(out, "p999", stats_quantile(h, 999));
	json_key(out, "buckets");
	json_array_begin(out);
	for (unsigned i = 0; i < STATS_BUCKETS; i++) {
		if (!h->bucket[i])
			continue;
		json_array_begin(out);
		json_u64(out, stats_bucket_end(i));
		json_u64(out, h->bucket[i]);
		json_array_end(out);
	}
	json_array_end(out);
	json_object_end(out);
}
