/* SPDX-License-Identifier: MIT */
/* The histogram: its buckets touch, its quantiles are bounds, its JSON says the same. */
#include "stats.h"

#include "tap.h"

static void buckets(void *arg)
{
	uint64_t start = 0;

	(void)arg;
	for (unsigned i = 0; i < STATS_BUCKETS; i++) {
		uint64_t end = stats_bucket_end(i);

		CHECK(end > start);
		CHECK_EQ(stats_bucket(start), i);
		CHECK_EQ(stats_bucket(end - 1), i);
		if (start >= 8 && end != UINT64_MAX)
			CHECK((end - start) * 4 <= start);
		start = end;
	}
	CHECK_EQ(start, UINT64_MAX);
	CHECK_EQ(stats_bucket(UINT64_MAX), STATS_BUCKETS - 1);
	for (unsigned shift = 2; shift <= 40; shift++)
		CHECK_EQ(stats_bucket_end(stats_bucket(BIT(shift) - 1)), BIT(shift));
}

static void quantiles(void *arg)
{
	struct stats_histogram h = {0};

	(void)arg;
	CHECK_EQ(stats_quantile(&h, 500), 0);
	stats_add(&h, 100);
	CHECK_EQ(stats_quantile(&h, 1), 100);
	CHECK_EQ(stats_quantile(&h, 1000), 100);
	h = (struct stats_histogram){0};
	for (uint64_t i = 1; i <= 100000; i++)
		stats_add(&h, i);
	CHECK_EQ(h.count, 100000);
	CHECK_EQ(h.sum, UINT64_C(100000) * 100001 / 2);
	CHECK_EQ(h.max, 100000);
	for (unsigned p = 1; p <= 1000; p++) {
		uint64_t exact = (uint64_t)p * 100, got = stats_quantile(&h, p);

		CHECK(got >= exact);
		CHECK(got <= exact + exact / 4 + 1);
	}
	stats_add(&h, UINT64_MAX);
	CHECK_EQ(stats_quantile(&h, 1000), UINT64_MAX);
	CHECK_EQ(stats_quantile(&h, 500), stats_quantile(&h, 499));
}

static void below(void *arg)
{
	struct stats_histogram h = {0};

	(void)arg;
	for (uint64_t i = 0; i < 5000; i++)
		stats_add(&h, i);
	CHECK_EQ(stats_below(&h, 0), 0);
	CHECK_EQ(stats_below(&h, 1), 1);
	CHECK_EQ(stats_below(&h, 1024), 1024);
	CHECK_EQ(stats_below(&h, 4096), 4096);
	CHECK_EQ(stats_below(&h, UINT64_MAX), 5000);
}

static void as_json(void *arg)
{
	CLEANUP_JSON struct json *out = json_new(false);
	struct stats_histogram h = {0};

	(void)arg;
	stats_add(&h, 3);
	stats_add(&h, 3);
	stats_add(&h, 1000);
	stats_write(out, &h);
	CHECK_STR(json_text(out, NULL),
		"{\"count\":3,\"sum\":1006,\"max\":1000,\"p50\":4,\"p90\":1000,\"p99\":1000,"
		"\"p999\":1000,\"buckets\":[[4,2],[1024,1]]}");
}

int main(void)
{
	tap_case("buckets touch and are a quarter wide", buckets, NULL);
	tap_case("quantiles are upper bounds, right to a quarter", quantiles, NULL);
	tap_case("values below a limit", below, NULL);
	tap_case("as JSON", as_json, NULL);
	return tap_done();
}
