/* SPDX-License-Identifier: MIT */
/*
 * The dirty log: after a write of the device the page's bit is set, exactly the pages it wrote to, soon enough, in
 * the log that is valid. Driver-written memory is nobody's business here.
 */
#include "protocol.h"

#include <sys/mman.h>

enum { PAGE = 4096, LOG_SIZE = 256 << 10 };

static struct fe_queue *log_start(struct fe *fe, const struct fe_mode *m, const char *option, bool ring)
{
	struct fe_queue *q;

	fe_init(fe, m);
	fe->ring_align = PAGE;
	fe_spawn(fe, option ? FE_ARGS("rng", option) : FE_ARGS("rng"));
	fe_handshake(fe);
	fe_memory_default(fe);
	q = fe_queue_up(fe, 0, 64);
	/* whatever comes next begins on a page of its own */
	fe_alloc(fe, PAGE, PAGE, NULL);
	fe_log_set(fe, LOG_SIZE, 0);
	/* the order of QEMU */
	fe_set_features(fe, fe->features | BIT(FE_F_LOG_ALL));
	q->log = ring;
	fe_queue_send_addr(q);
	return q;
}

/* Where the device writes when it gives buffers back, and where it may write. */
static uint64_t used_page(const struct fe_queue *q)
{
	return (q->fe->mode.packed ? q->desc_gpa : q->device_gpa) / PAGE;
}

static bool ring_page(const struct fe_queue *q, uint64_t page)
{
	return page == used_page(q) || page == q->device_gpa / PAGE;
}

/* Every dirty page is in [from, to) or of the ring. */
static void check_only(const struct fe_queue *q, uint64_t from, uint64_t to)
{
	const struct fe *fe = q->fe;

	for (size_t i = 0; i < fe->log_size; i++)
		for (unsigned bit = 0; fe->log[i] && bit < 8; bit++) {
			uint64_t page = i * 8 + bit;

			if (!(fe->log[i] >> bit & 1) || ring_page(q, page))
				continue;
			if (page * PAGE < ALIGN_DOWN(from, PAGE) || page * PAGE >= to)
				FAIL("page 0x%llx is dirty, expected only 0x%llx to 0x%llx",
					(unsigned long long)(page * PAGE), (unsigned long long)from,
					(unsigned long long)to);
		}
}

static void check_all(const struct fe *fe, uint64_t from, uint64_t to)
{
	for (uint64_t gpa = ALIGN_DOWN(from, PAGE); gpa < to; gpa += PAGE)
		if (!fe_log_dirty(fe, gpa))
			FAIL("page 0x%llx: expected it to be dirty", (unsigned long long)gpa);
}

/* A part of a buffer that is larger: only what was written counts. */
static void exact_pages(const struct fe_mode *m)
{
	static const struct {
		uint32_t at, len, fed;
	} cases[] = {{0, 3 * PAGE, PAGE}, {0, 3 * PAGE, PAGE + 1}, {100, 3 * PAGE, 50},
		{PAGE - 1, 3 * PAGE, 2}, {PAGE - 1, 3 * PAGE, 1}, {0, 8 * PAGE, 8 * PAGE}, {5, 1, 1},
		{PAGE, 2 * PAGE, 2 * PAGE - 1}};
	struct source src;
	struct fe_queue *q;
	struct fe fe;

	source_open(&src);
	q = log_start(&fe, m, src.option, true);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vring_driver_buf b;
		uint64_t gpa;

		fe_alloc(&fe, 16 * PAGE, PAGE, &gpa);
		b = (struct vring_driver_buf){gpa + cases[i].at, cases[i].len, true};
		fe_barrier(&fe);
		fe_log_clear(&fe);
		source_feed(&src, cases[i].fed);
		CHECK_EQ(fe_transact(q, &b, 1), cases[i].fed);
		check_all(&fe, b.addr, b.addr + cases[i].fed);
		check_only(q, b.addr, b.addr + cases[i].fed);
		fe_barrier(&fe);
		CHECK(fe_log_dirty(&fe, used_page(q) * PAGE));
	}
	fe_end(&fe);
	source_close(&src);
}

/* Buffers all over the place, read-only ones too. */
static void scattered(const struct fe_mode *m)
{
	struct vring_driver_buf b[6];
	struct fe_queue *q;
	uint64_t gpa;
	struct fe fe;

	q = log_start(&fe, m, NULL, true);
	fe_alloc(&fe, 64 * PAGE, PAGE, &gpa);
	for (unsigned i = 0; i < 6; i++)
		b[i] = (struct vring_driver_buf){gpa + (i * 7 + 3) % 32 * 2 * PAGE + i * 10, 3000, i >= 2};
	fe_barrier(&fe);
	fe_log_clear(&fe);
	CHECK_EQ(fe_transact(q, b, 6), 4 * 3000);
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(fe_log_dirty(&fe, b[i].addr), i >= 2);
	check_only(q, gpa, gpa + 64 * PAGE);
	CHECK(fe_log_count(&fe) <= 4 + 2);
	fe_end(&fe);
}

/* A ring of several pages: just the ones with the used elements, and the first of a split ring with its index. */
static void large_ring(const struct fe_mode *m)
{
	const uint16_t num = 2048;
	unsigned per_page = m->packed ? PAGE / 16 : PAGE / 8, pages = num / per_page;
	struct fe_queue *q;
	uint64_t gpa, ring;
	struct fe fe;

	fe_init(&fe, m);
	fe.ring_align = PAGE;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	fe_log_set(&fe, LOG_SIZE, 0);
	fe_set_features(&fe, fe.features | BIT(FE_F_LOG_ALL));
	q = fe_queue_make(&fe, 0, num, FE_FRESH);
	q->log = true;
	fe_queue_send(q, m->packed ? 0x80008000 : 0);
	fe_queue_enable(q, true);
	fe_alloc(&fe, PAGE, PAGE, &gpa);
	ring = m->packed ? q->desc_gpa : q->device_gpa;
	/* one, then pairs, so that some pair is on both sides of a page's end */
	for (unsigned i = 0, n = 1; i + 8 < num; i += n, n = 2) {
		struct vring_driver_buf b = {gpa, 16, true};
		unsigned from = m->packed ? i * 16 : 4 + i * 8, to = from + n * (m->packed ? 16 : 8) - 1;

		fe_barrier(&fe);
		fe_log_clear(&fe);
		for (unsigned k = 0; k < n; k++)
			fe_submit(q, &b, 1, NULL);
		fe_flush(q);
		for (unsigned k = 0; k < n; k++)
			CHECK_EQ(fe_wait(q, NULL), 16);
		fe_barrier(&fe);
		for (unsigned p = 0; p < pages; p++) {
			bool here = p >= from / PAGE && p <= to / PAGE;
			bool dirty = fe_log_dirty(&fe, ring + p * PAGE);

			/* the first has the index of a split ring */
			if (!m->packed && p == 0)
				here = true;
			if (here != dirty)
				FAIL("used element %u: page %u of the ring is %s", i, p,
					dirty ? "dirty" : "clean");
		}
	}
	fe_end(&fe);
}

/* Without LOG_ALL nothing is logged; without the ring's flag only buffers are. */
static void what_is_asked_for(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	q = log_start(&fe, m, NULL, false);
	fe_barrier(&fe);
	fe_log_clear(&fe);
	rng_fill(q, 100, 1);
	fe_barrier(&fe);
	CHECK(fe_log_count(&fe) > 0);
	CHECK(!fe_log_dirty(&fe, used_page(q) * PAGE));
	fe_set_features(&fe, fe.features & ~BIT(FE_F_LOG_ALL));
	fe_log_clear(&fe);
	rng_traffic(q, 100);
	fe_barrier(&fe);
	CHECK_EQ(fe_log_count(&fe), 0);
	fe_set_features(&fe, fe.features | BIT(FE_F_LOG_ALL));
	rng_fill(q, 100, 1);
	CHECK(fe_log_count(&fe) > 0);
	fe_end(&fe);
}

/* The payload's bit is set when the driver can see that the buffer was used. */
static void before_completion(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct fe_queue *q;
	uint64_t gpa;
	struct fe fe;

	q = log_start(&fe, m, NULL, true);
	fe_alloc(&fe, PAGE, PAGE, &gpa);
	b = (struct vring_driver_buf){gpa, 64, true};
	for (unsigned i = 0; i < 3000; i++) {
		int64_t end = fe_now_ms() + fe_limit_ms;

		__atomic_fetch_and(
			&fe.log[gpa / PAGE / 8], (uint8_t) ~(1u << gpa / PAGE % 8), __ATOMIC_SEQ_CST);
		fe_submit(q, &b, 1, NULL);
		vring_driver_disarm(&q->ring);
		fe_flush(q);
		while (!vring_driver_pending(&q->ring))
			CHECK(fe_now_ms() < end);
		if (!fe_log_dirty(&fe, gpa))
			FAIL("round %u: the buffer is used and its page is clean", i);
		CHECK(fe_collect(q, NULL, NULL));
	}
	fe_end(&fe);
}

static void submit_many(struct fe_queue *q, uint64_t gpa, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct vring_driver_buf b = {gpa + (q->submitted * 7919 % 64) * PAGE, 2000, true};

		fe_submit(q, &b, 1, NULL);
	}
	fe_flush(q);
}

/* After the reply to SET_LOG_BASE the old log gets nothing any more, and the new one everything. */
static void switch_log(const struct fe_mode *m)
{
	struct fe_queue *q;
	uint64_t gpa;
	struct fe fe;

	q = log_start(&fe, m, NULL, true);
	fe_alloc(&fe, 64 * PAGE, PAGE, &gpa);
	for (unsigned i = 0; i < 50; i++) {
		uint8_t *old = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fe.log_fd, 0);

		CHECK(old != MAP_FAILED);
		submit_many(q, gpa, 32);
		fe_log_set(&fe, LOG_SIZE, 0);
		for (unsigned k = 0; k < LOG_SIZE; k++)
			old[k] = 0;
		submit_many(q, gpa, 32);
		for (unsigned k = 0; k < 64; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
		for (unsigned k = 0; k < LOG_SIZE; k++)
			if (old[k])
				FAIL("round %u: the old log was written to after the switch", i);
		CHECK(fe_log_count(&fe) >= 32);
		munmap(old, LOG_SIZE);
	}
	fe_end(&fe);
}

/* A log that begins inside its file, and one that ends before the memory does. */
static void odd_logs(const struct fe_mode *m)
{
	struct fe_queue *q;
	uint64_t gpa;
	struct fe fe;
	unsigned fds;

	q = log_start(&fe, m, NULL, true);
	fe_alloc(&fe, 2 << 20, PAGE, &gpa);
	CHECK(gpa >= UINT64_C(1) << 32);
	fe_log_set(&fe, LOG_SIZE, 3 * PAGE);
	rng_works(q);
	CHECK(fe_log_count(&fe) > 0);
	fe_barrier(&fe);
	fds = fe_process_fds(&fe.process);
	/* covers the first GiB only */
	fe_log_set(&fe, 32768, 0);
	submit_many(q, gpa, 10);
	for (unsigned k = 0; k < 10; k++)
		CHECK_EQ(fe_wait(q, NULL), 2000);
	fe_log_set(&fe, 8, 0);
	submit_many(q, gpa, 10);
	for (unsigned k = 0; k < 10; k++)
		CHECK_EQ(fe_wait(q, NULL), 2000);
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	fe_barrier(&fe);
	fe_end(&fe);
}

static void bad_logs(const struct fe_mode *m)
{
	static const struct fe_wire_log bad[] = {{0, 0}, {UINT64_MAX, 0}, {4096, UINT64_MAX - 4095},
		{8192, 0}, {4096, 4096}, {UINT64_C(1) << 62, 0}};
	struct fe_queue *q;
	struct fe_msg r;
	struct fe fe;
	int fd;

	q = log_start(&fe, m, NULL, true);
	fd = fe_memfd(4096);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		/* the reply comes in any case: QEMU waits for it without having asked */
		fe_ask(&fe, FE_SET_LOG_BASE, &bad[i], sizeof(bad[i]), &fd, 1, &r, FE_ANY);
		rng_works(q);
	}
	fe_send(&fe, FE_SET_LOG_BASE, FE_NEED_REPLY, &(struct fe_wire_log){4096, 0}, 16, &fd, 1);
	fe_expect(&fe, FE_SET_LOG_BASE, FE_ANY, &r);
	fe_barrier(&fe);
	close(fd);
	fe_end(&fe);
}

/* --- a migration --- */

struct copy {
	struct fe *fe;
	uint8_t *pages; /* of the second region, as far as it is allocated */
	size_t size;
};

/* As a migration thread: takes the bits, then copies the pages. */
static unsigned copy_dirty(struct copy *c)
{
	const struct fe_region *r = &c->fe->regions[1];
	unsigned n = 0;

	for (size_t i = r->w.gpa / PAGE / 8; i < c->fe->log_size; i++) {
		uint8_t bits = __atomic_exchange_n(&c->fe->log[i], 0, __ATOMIC_SEQ_CST);

		for (unsigned bit = 0; bits && bit < 8; bit++) {
			uint64_t at = (i * 8 + bit) * PAGE - r->w.gpa;

			if (!(bits >> bit & 1) || at + PAGE > c->size)
				continue;
			memcpy(c->pages + at, r->ptr + at, PAGE);
			n++;
		}
	}
	return n;
}

static void migration(const struct fe_mode *m)
{
	struct copy c = {.fe = NULL};
	struct fe_queue *q;
	uint64_t gpa, used;
	struct fe fe;
	size_t used_len;

	fe_init(&fe, m);
	fe.ring_align = PAGE;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	fe.regions[0].used = fe.regions[0].w.size; /* all of it in the second region */
	q = fe_queue_up(&fe, 0, 64);
	fe_alloc(&fe, 64 * PAGE, PAGE, &gpa);
	c.fe = &fe;
	rng_traffic(q, 200);
	c.size = ALIGN_UP(fe.regions[1].used, PAGE);
	c.pages = malloc(c.size);
	CHECK(c.pages);
	/* on: log, features, ring addresses; then everything is copied once */
	fe_log_set(&fe, LOG_SIZE, 0);
	fe_set_features(&fe, fe.features | BIT(FE_F_LOG_ALL));
	q->log = true;
	fe_queue_send_addr(q);
	memcpy(c.pages, fe.regions[1].ptr, c.size);
	for (unsigned i = 0; i < 200; i++) {
		submit_many(q, gpa, 30);
		copy_dirty(&c);
		for (unsigned k = 0; k < 30; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
		copy_dirty(&c);
	}
	submit_many(q, gpa, 30);
	fe_queue_stop(q);
	CHECK(copy_dirty(&c) > 0);
	/* all that the device wrote: the buffers, and the used ring */
	CHECK_MEM(c.pages + (gpa - fe.regions[1].w.gpa), fe_ptr(&fe, gpa), 64 * PAGE);
	used = q->device_gpa;
	used_len = m->packed ? 4 : 6 + 8 * 64;
	CHECK_MEM(c.pages + (used - fe.regions[1].w.gpa), fe_ptr(&fe, used), used_len);
	if (m->packed) { /* the newest used descriptor, which nobody touched since */
		uint64_t desc = q->desc_gpa + 16 * q->ring.next_used;

		CHECK_MEM(c.pages + (desc - fe.regions[1].w.gpa), fe_ptr(&fe, desc), 16);
	}
	free(c.pages);
	fe_end(&fe);
}

int main(void)
{
	static const struct fe_mode split = {0};

	fe_each_mode("exactly the pages that were written", exact_pages);
	fe_each_mode("scattered buffers", scattered);
	fe_each_layout("a ring of several pages", large_ring);
	fe_each_layout("only what is asked for", what_is_asked_for);
	fe_each_layout("dirty before the buffer is seen as used", before_completion);
	fe_each_mode("the log is switched under requests", switch_log);
	fe_each_layout("logs too short, or inside a file", odd_logs);
	fe_case("logs that make no sense", bad_logs, &split);
	fe_each_mode("a migration", migration);
	return tap_done();
}
