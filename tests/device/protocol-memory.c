/* SPDX-License-Identifier: MIT */
/*
 * Guest memory through the protocol: many regions, odd offsets, duplicates, overlaps; memory that comes and goes
 * while requests use it; files that shrink under the process.
 */
#include "protocol.h"

#include "huge-pages.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

static const uint64_t GIB = UINT64_C(1) << 30;

/* One request into the first n bytes of a region. */
static void use_region(struct fe_queue *q, struct fe_region *r, uint32_t n)
{
	struct vring_driver_buf b = {r->w.gpa, n, true};
	uint8_t sum = 0;

	memset(r->ptr, 0, n);
	CHECK_EQ(fe_transact(q, &b, 1), n);
	for (uint32_t i = 0; i < n; i++)
		sum |= r->ptr[i];
	CHECK(sum);
}

/* --- regions --- */

static void many_regions(const struct fe_mode *m)
{
	unsigned fds, n = 507;
	struct fe_queue *q;
	struct fe fe;
	int file;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fds = fe_process_fds(&fe.process);
	file = fe_memfd(n * 8192);
	for (unsigned round = 0; round < 2; round++) {
		/* not in the order of addresses, with gaps */
		for (unsigned i = 0; i < n; i++) {
			unsigned k = i * 200 % n;

			fe_region_add(&fe, fe_region_make(&fe, 8 * GIB + k * 16384, 4096, 64 * GIB + k * 8192,
						   file, k * 8192));
		}
		for (unsigned i = 2; i < fe.nregions; i += 23)
			use_region(q, &fe.regions[i], 4096);
		use_region(q, &fe.regions[fe.nregions - 1], 100);
		rng_traffic(q, 100);
		while (fe.nregions > 2)
			fe_region_remove(&fe, &fe.regions[2 + (fe.nregions - 2) / 2]);
		rng_works(q);
		CHECK_EQ(fe_process_fds(&fe.process), fds);
	}
	close(file);
	fe_end(&fe);
}

static void too_many_regions(const struct fe_mode *m)
{
	struct fe_mem_reg w = {.region = {0, 4096, 0, 0}};
	uint64_t refused = 0;
	unsigned n;
	struct fe fe;
	int file;

	fe_start(&fe, m, FE_ARGS("rng"));
	file = fe_memfd(4096);
	for (n = 2; n < 2000 && !refused; n++) {
		w.region.gpa = 8 * GIB + n * UINT64_C(4096);
		w.region.uaddr = 64 * GIB + n * UINT64_C(4096);
		refused = fe_ack(&fe, FE_ADD_MEM_REG, &w, sizeof(w), &file, 1);
	}
	CHECK(refused);
	CHECK_EQ(n - 1, fe.max_slots);
	rng_works(fe_queue_up(&fe, 0, 16));
	close(file);
	fe_end(&fe);
}

/* Front-ends with several queue pairs add each region once for each. */
static void duplicates(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe_mem_reg w = {0};
	unsigned fds;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fds = fe_process_fds(&fe.process);
	for (unsigned i = 0; i < 10; i++) {
		fe_region_add(&fe, &fe.regions[i % 2]);
		rng_works(q);
		/* not there: gone already, as far as the front-end can tell */
		w.region = fe.regions[1].w;
		w.region.gpa += 4096;
		CHECK_EQ(fe_ack(&fe, FE_REM_MEM_REG, &w, sizeof(w), NULL, 0), 0);
		w.region.gpa -= 4096;
		w.region.size -= 4096;
		CHECK_EQ(fe_ack(&fe, FE_REM_MEM_REG, &w, sizeof(w), &fe.regions[0].fd, 1), 0);
		rng_works(q);
	}
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	fe_end(&fe);
}

static void try_region(
	struct fe *fe, const char *what, uint64_t gpa, uint64_t size, uint64_t uaddr, uint64_t offset, int fd)
{
	struct fe_mem_reg w = {.region = {gpa, size, uaddr, offset}};

	if (!fe_ack(fe, FE_ADD_MEM_REG, &w, sizeof(w), &fd, 1))
		FAIL("%s: expected the region to be refused", what);
	rng_works(fe->queues[0]);
}

static void bad_regions(const struct fe_mode *m)
{
	const struct fe_wire_region *r;
	uint64_t top = UINT64_MAX - 4095;
	char path[64];
	unsigned fds;
	struct fe fe;
	int file, ro;

	fe_start(&fe, m, FE_ARGS("rng"));
	rng_works(fe_queue_up(&fe, 0, 16));
	file = fe_memfd(1 << 20);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	CHECK_SYS(ro = open(path, O_RDONLY | O_CLOEXEC));
	r = &fe.regions[1].w;
	fds = fe_process_fds(&fe.process);
	try_region(&fe, "empty", 8 * GIB, 0, 64 * GIB, 0, file);
	try_region(&fe, "guest addresses wrap", top, 8192, 64 * GIB, 0, file);
	try_region(&fe, "user addresses wrap", 8 * GIB, 8192, top, 0, file);
	try_region(&fe, "file offset wraps", 8 * GIB, 8192, 64 * GIB, top, file);
	try_region(&fe, "file too short", 8 * GIB, 2 << 20, 64 * GIB, 0, file);
	try_region(&fe, "offset past the end", 8 * GIB, 4096, 64 * GIB, 1 << 20, file);
	try_region(&fe, "size of 2^63", 8 * GIB, UINT64_C(1) << 63, 64 * GIB, 0, file);
	try_region(&fe, "guest addresses overlap", r->gpa + r->size - 4096, 8192, 64 * GIB, 0, file);
	try_region(&fe, "guest addresses inside another", r->gpa + 4096, 4096, 64 * GIB, 0, file);
	try_region(&fe, "guest addresses around another", fe.regions[0].w.gpa - 4096, 1 << 21, 64 * GIB, 0,
		file);
	try_region(&fe, "user addresses overlap", 8 * GIB, 8192, r->uaddr - 4096, 0, file);
	try_region(&fe, "read-only file", 8 * GIB, 8192, 64 * GIB, 0, ro);
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	close(ro);
	close(file);
	fe_end(&fe);
}

/* Offsets and sizes that are no multiple of a page. */
static void odd_offsets(const struct fe_mode *m)
{
	static const uint64_t offsets[] = {0x200, 0x1200, 0x1ff0, 0x10001};
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
		uint32_t size = 10000 + i * 777;
		struct fe_region *r =
			fe_region_make(&fe, 8 * GIB + i * GIB, size, 64 * GIB + i * GIB, -1, offsets[i]);

		fe_region_add(&fe, r);
		use_region(q, r, size);
		fe_region_remove(&fe, r);
	}
	fe_end(&fe);
}

static void huge_pages(const struct fe_mode *m)
{
	const size_t page = 2 << 20;
	struct fe_queue *q;
	struct fe_region *r;
	struct fe fe;
	void *p;
	int fd;

	fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26);
	if (fd < 0 || ftruncate(fd, (off_t)(2 * page)) < 0)
		tap_skip("no huge pages: %s", strerror(errno));
	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		tap_skip("no huge pages: %s", strerror(errno));
	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	/* a region that begins in the middle of a huge page: 64 KiB into it, to the end of the next */
	r = &fe.regions[fe.nregions++];
	*r = (struct fe_region){.w = {8 * GIB, 2 * page - 65536, 64 * GIB, 65536}, .fd = fd};
	r->ptr = (uint8_t *)p + 65536;
	fe_region_add(&fe, r);
	use_region(q, r, 1 << 16);
	fe.nregions--;
	munmap(p, 2 * page);
	close(fd);
	fe_end(&fe);
}

/* --- buffers over several regions --- */

static void straddle(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	/* neighbours in guest addresses only */
	for (unsigned i = 0; i < 4; i++)
		fe_region_add(
			&fe, fe_region_make(&fe, 8 * GIB + i * 8192, 8192, (70 - i) * GIB, -1, 4096 * i));
	b = (struct vring_driver_buf){8 * GIB, 4 * 8192, true};
	for (unsigned i = 0; i < 8; i++) {
		uint64_t from = i * 1000, to = 4 * 8192 - i * 777;

		for (unsigned k = 2; k < 6; k++)
			memset(fe.regions[k].ptr, 0, 8192);
		b.addr = 8 * GIB + from;
		b.len = (uint32_t)(to - from);
		CHECK_EQ(fe_transact(q, &b, 1), b.len);
		for (uint64_t at = 0; at < 4 * 8192; at += 8) {
			uint64_t v = *(uint64_t *)(fe.regions[2 + at / 8192].ptr + at % 8192);

			if (at < to && at + 8 > to) /* a byte that was written may be 0, eight hardly */
				CHECK_EQ(le64toh(v) >> 8 * (to - at), 0);
			else if ((v != 0) != (at >= from && at < to))
				FAIL("bytes at %llu of %llu..%llu: expected them %s", (unsigned long long)at,
					(unsigned long long)from, (unsigned long long)to,
					v ? "untouched" : "written");
		}
	}
	/* an indirect table over the border of two regions, one descriptor cut in half */
	for (unsigned cut = 0; cut < 64; cut += 8) {
		uint8_t table[64];
		uint64_t gpa = 8 * GIB + 8192 - cut;
		struct vring_driver_buf bufs[4];
		int n;

		for (unsigned i = 0; i < 4; i++)
			bufs[i] = (struct vring_driver_buf){8 * GIB + 16384 + 100 * i, 50, true};
		n = vring_driver_add_indirect(&q->ring, bufs, 4, table, gpa, q->spare);
		CHECK(n >= 0);
		q->spare = q->spare->next;
		memcpy(fe.regions[2].ptr + 8192 - cut, table, cut);
		memcpy(fe.regions[3].ptr, table + cut, 64 - cut);
		fe_flush(q);
		CHECK_EQ(fe_wait(q, NULL), 200);
	}
	fe_end(&fe);
}

/* --- memory that comes and goes --- */

static void submit_some(struct fe_queue *q, struct vring_driver_buf *b, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fe_submit(q, b, 1, NULL);
	fe_flush(q);
}

static void hot_plug(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct fe_queue *q;
	struct fe fe;
	unsigned fds;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	fds = fe_process_fds(&fe.process);
	b = fe_wr(&fe, fe_alloc(&fe, 2000, 1, NULL), 2000);
	for (unsigned i = 0; i < 100; i++) {
		struct fe_region *r;

		submit_some(q, &b, 20);
		r = fe_region_make(&fe, 8 * GIB, 1 << 20, 64 * GIB, -1, 0);
		fe_region_add(&fe, r);
		submit_some(q, &b, 20);
		for (unsigned k = 0; k < 40; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
		use_region(q, r, 5000);
		submit_some(q, &b, 20);
		fe_region_remove(&fe, r);
		for (unsigned k = 0; k < 20; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
	}
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	fe_end(&fe);
}

/* A removal is acknowledged when no request uses the memory any more, and messages wait meanwhile. */
static void removal_waits(const struct fe_mode *m)
{
	struct fe_mem_reg w = {0};
	struct vring_driver_buf b;
	struct fe_queue *q;
	struct source src;
	struct fe_msg r;
	struct fe fe;

	source_open(&src);
	fe_start(&fe, m, FE_ARGS("rng", src.option));
	q = fe_queue_up(&fe, 0, 16);
	fe_region_add(&fe, fe_region_make(&fe, 8 * GIB, 1 << 20, 64 * GIB, -1, 0));
	b = (struct vring_driver_buf){8 * GIB, 100, true};
	for (unsigned i = 0; i < 10; i++) {
		fe_region_add(&fe, &fe.regions[2]);
		/* the device has taken the second request when the first comes back: it asks the source again */
		fe_submit(q, &b, 1, NULL);
		submit_some(q, &b, 1);
		source_feed(&src, 100);
		CHECK_EQ(fe_wait(q, NULL), 100);
		w.region = fe.regions[2].w;
		fe_send(&fe, FE_REM_MEM_REG, FE_NEED_REPLY, &w, sizeof(w), NULL, 0);
		CHECK(!fe_poll(fe.sock, POLLIN, 20));
		source_feed(&src, 100);
		fe_expect(&fe, FE_REM_MEM_REG, 8, &r);
		CHECK_EQ(*(uint64_t *)r.body, 0);
		CHECK_EQ(fe_wait(q, NULL), 100);
		source_check(i * UINT64_C(200) + 100, fe.regions[2].ptr, 100);
		fe_barrier(&fe);
	}
	fe_end(&fe);
	source_close(&src);
}

/* The front-end goes while a removal waits. */
static void removal_abandoned(const struct fe_mode *m)
{
	struct vring_driver_buf b = {8 * GIB, 100, true};
	struct fe_mem_reg w = {0};
	struct source src;
	struct server s;

	source_open(&src);
	server_start(&s, m, FE_ARGS(src.option));
	for (unsigned i = 0; i < 5; i++) {
		struct fe_queue *q;

		fe_handshake(&s.fe);
		fe_memory_default(&s.fe);
		q = fe_queue_up(&s.fe, 0, 16);
		fe_region_add(&s.fe, fe_region_make(&s.fe, 8 * GIB, 1 << 20, 64 * GIB, -1, 0));
		submit_some(q, &b, 3);
		fe_barrier(&s.fe);
		w.region = s.fe.regions[2].w;
		fe_send(&s.fe, FE_REM_MEM_REG, FE_NEED_REPLY, &w, sizeof(w), NULL, 0);
		fe_poll(s.fe.sock, POLLIN, 10);
		server_reconnect(&s);
	}
	fe_barrier(&s.fe);
	server_end(&s);
	source_close(&src);
}

/* The ring itself loses its memory: it breaks, and works again elsewhere. */
static void ring_removed(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	fe_region_make(&fe, 8 * GIB, 1 << 20, 64 * GIB, -1, 0);
	fe_region_add(&fe, &fe.regions[2]);
	fe.regions[0].used = fe.regions[0].w.size;
	fe.regions[1].used = fe.regions[1].w.size;
	q = fe_queue_up(&fe, 0, 16);
	CHECK(q->desc_gpa >= 8 * GIB);
	fe.regions[0].used = fe.regions[1].used = 0;
	rng_works(q);
	{
		struct fe_mem_reg w = {.region = fe.regions[2].w};

		CHECK_EQ(fe_ack(&fe, FE_REM_MEM_REG, &w, sizeof(w), NULL, 0), 0);
	}
	fe_queue_fails(q);
	fe_kick(q);
	fe_barrier(&fe);
	fe_queue_stop(q);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_end(&fe);
}

/* Without CONFIGURE_MEM_SLOTS the whole table is replaced, with rings running. */
static void table_replaced(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct fe_queue *q;
	struct fe fe;
	unsigned fds;

	fe_init(&fe, m);
	fe.protocol_mask = BIT(FE_P_REPLY_ACK) | BIT(FE_P_RESET_DEVICE);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	fds = fe_process_fds(&fe.process);
	b = fe_wr(&fe, fe_alloc(&fe, 2000, 1, NULL), 2000);
	for (unsigned i = 0; i < 30; i++) {
		submit_some(q, &b, 20);
		for (unsigned k = 0; k < 5; k++)
			fe_region_make(&fe, (8 + k) * GIB, 1 << 16, (64 + k) * GIB, -1, 4096);
		fe_memory_send(&fe);
		for (unsigned k = 0; k < 20; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
		for (unsigned k = 0; k < 5; k++)
			use_region(q, &fe.regions[2 + k], 3000);
		submit_some(q, &b, 20);
		for (unsigned k = 0; k < 5; k++) {
			struct fe_region *r = &fe.regions[--fe.nregions];

			munmap(r->ptr, r->w.size);
			close(r->fd);
		}
		fe_memory_send(&fe);
		submit_some(q, &b, 20);
		for (unsigned k = 0; k < 40; k++)
			CHECK_EQ(fe_wait(q, NULL), 2000);
	}
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	fe_end(&fe);
}

/* --- files that shrink --- */

static void expect_lost(struct server *s)
{
	if (!fe_poll(s->fe.sock, POLLRDHUP, fe_limit_ms))
		FAIL("expected the session to end after a memory file was truncated");
	fe_expect_eof(&s->fe);
	CHECK(fe_process_running(&s->fe.process));
	server_reconnect(s);
	server_up(s);
	server_end(s);
}

static void truncated_ring(const struct fe_mode *m)
{
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, NULL);
	q = server_up(&s);
	CHECK_SYS(ftruncate(s.fe.regions[0].fd, 0));
	fe_kick(q);
	expect_lost(&s);
}

static void truncated_buffers(const struct fe_mode *m, const char *option, struct source *src)
{
	struct vring_driver_buf b;
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, option ? FE_ARGS(option) : NULL);
	fe_handshake(&s.fe);
	fe_memory_default(&s.fe);
	q = fe_queue_up(&s.fe, 0, 16);
	fe_region_add(&s.fe, fe_region_make(&s.fe, 8 * GIB, 1 << 20, 64 * GIB, -1, 0));
	b = (struct vring_driver_buf){8 * GIB + 4096, 4096, true};
	CHECK_SYS(ftruncate(s.fe.regions[2].fd, 0));
	submit_some(q, &b, 3);
	if (src)
		source_feed(src, 3 * 4096);
	if (!fe_poll(s.fe.sock, POLLRDHUP, fe_limit_ms))
		FAIL("expected the session to end after a memory file was truncated");
	CHECK(fe_process_running(&s.fe.process));
	server_reconnect(&s);
	fe_handshake(&s.fe);
	fe_memory_default(&s.fe);
	q = fe_queue_up(&s.fe, 0, 16);
	if (src)
		source_feed(src, 64);
	b = fe_wr(&s.fe, fe_alloc(&s.fe, 64, 1, NULL), 64);
	CHECK(fe_transact(q, &b, 1) > 0);
	server_end(&s);
}

static void truncated_payload(const struct fe_mode *m)
{
	truncated_buffers(m, NULL, NULL);
}

/* The kernel writes to the buffer here, and gets EFAULT instead of SIGBUS. */
static void truncated_payload_kernel(const struct fe_mode *m)
{
	struct source src;

	source_open(&src);
	truncated_buffers(m, src.option, &src);
	source_close(&src);
}

static void truncated_log(const struct fe_mode *m)
{
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, NULL);
	q = server_up(&s);
	fe_log_set(&s.fe, 1 << 20, 0);
	q->log = true;
	fe_set_features(&s.fe, s.fe.features | BIT(FE_F_LOG_ALL));
	fe_queue_send_addr(q);
	rng_works(q);
	CHECK_SYS(ftruncate(s.fe.log_fd, 0));
	submit_some(q, &(struct vring_driver_buf){fe_gpa(&s.fe, fe_alloc(&s.fe, 64, 1, NULL)), 64, true}, 1);
	expect_lost(&s);
}

static void truncated_inflight(const struct fe_mode *m)
{
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, NULL);
	fe_handshake(&s.fe);
	fe_memory_default(&s.fe);
	fe_inflight_get(&s.fe, 1, 16);
	fe_inflight_set(&s.fe);
	q = fe_queue_up(&s.fe, 0, 16);
	rng_works(q);
	CHECK_SYS(ftruncate(s.fe.inflight_fd, 0));
	submit_some(q, &(struct vring_driver_buf){fe_gpa(&s.fe, fe_alloc(&s.fe, 64, 1, NULL)), 64, true}, 1);
	expect_lost(&s);
}

int main(void)
{
	static const struct fe_mode split = {0};
	struct huge_pages pages;

	fe_each_layout("509 regions", many_regions);
	fe_case("as many regions as were promised, no more", too_many_regions, &split);
	fe_each_layout("regions added and removed twice", duplicates);
	fe_case("regions that make no sense", bad_regions, &split);
	fe_each_layout("file offsets that are no multiple of a page", odd_offsets);
	huge_pages_reserve(&pages);
	fe_case("huge pages", huge_pages, &split);
	huge_pages_release(&pages);
	fe_each_mode("buffers and tables over several regions", straddle);
	fe_each_mode("regions come and go under requests", hot_plug);
	fe_each_layout("a removal waits for requests", removal_waits);
	fe_each_layout("the front-end goes while a removal waits", removal_abandoned);
	fe_each_layout("the ring's memory is removed", ring_removed);
	fe_each_layout("SET_MEM_TABLE under requests", table_replaced);
	fe_each_mode("the ring's file is truncated", truncated_ring);
	fe_each_layout("the buffers' file is truncated", truncated_payload);
	fe_each_layout("the buffers' file is truncated, the kernel writes", truncated_payload_kernel);
	fe_each_layout("the dirty log's file is truncated", truncated_log);
	fe_each_layout("the in-flight area's file is truncated", truncated_inflight);
	return tap_done();
}
