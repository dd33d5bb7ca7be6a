/* SPDX-License-Identifier: MIT */
/* Chains that are long, cut at the wrong places, without bytes, or not in memory. */
#include "rig.h"

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
		rig_take_many(&r, 20);
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

int main(void)
{
	static const struct rig_case cases[] = {
		{"long chains", many_segments},
		{"more long chains than may be out", many_long_chains},
		{"a chain that is too long", too_many_segments},
		{"descriptors without bytes", zero_lengths},
		{"buffers across regions", across_regions},
		{"buffers that are not memory", not_memory},
	};

	rig_cases(cases, ARRAY_SIZE(cases));
	return tap_done();
}
