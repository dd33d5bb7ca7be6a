/* SPDX-License-Identifier: MIT */
/* Guest memory of the test front-end: regions in memfds, an allocator, addresses, the dirty log. */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>

int fe_memfd(size_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		FAIL("memfd of %zu bytes: %s", size, strerror(errno));
	return fd;
}

/* --- regions --- */

struct fe_region *fe_region_make(
	struct fe *fe, uint64_t gpa, uint64_t size, uint64_t uaddr, int fd, uint64_t offset)
{
	struct fe_region *r = &fe->regions[fe->nregions];
	uint64_t delta = offset & 4095;
	uint8_t *map;

	CHECK(fe->nregions < FE_REGIONS);
	*r = (struct fe_region){.w = {gpa, size, uaddr, offset}};
	r->fd = fd < 0 ? fe_memfd(offset + size) : fcntl(fd, F_DUPFD_CLOEXEC, 0);
	CHECK(r->fd >= 0);
	map = mmap(NULL, size + delta, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)(offset - delta));
	if (map == MAP_FAILED)
		FAIL("mmap of a region: %s", strerror(errno));
	r->ptr = map + delta;
	fe->nregions++;
	return r;
}

static void region_unmap(struct fe_region *r)
{
	uint64_t delta = r->w.offset & 4095;

	munmap(r->ptr - delta, r->w.size + delta);
	close(r->fd);
}

void fe_region_add(struct fe *fe, struct fe_region *r)
{
	struct fe_mem_reg m = {.region = r->w};

	fe_set(fe, FE_ADD_MEM_REG, &m, sizeof(m), &r->fd, 1);
	r->sent = true;
}

void fe_region_remove(struct fe *fe, struct fe_region *r)
{
	struct fe_mem_reg m = {.region = r->w};

	fe_set(fe, FE_REM_MEM_REG, &m, sizeof(m), NULL, 0);
	region_unmap(r);
	fe->nregions--;
	memmove(r, r + 1, (size_t)(&fe->regions[fe->nregions] - r) * sizeof(*r));
}

struct fe_region *fe_region_at(struct fe *fe, uint64_t gpa)
{
	for (unsigned i = 0; i < fe->nregions; i++)
		if (gpa - fe->regions[i].w.gpa < fe->regions[i].w.size)
			return &fe->regions[i];
	FAIL("no memory region at 0x%llx", (unsigned long long)gpa);
}

void fe_memory_send(struct fe *fe)
{
	struct fe_mem_table t = {.n = fe->nregions};
	int fds[8];

	if (fe_has(fe, FE_P_MEM_SLOTS)) {
		for (unsigned i = 0; i < fe->nregions; i++)
			if (!fe->regions[i].sent)
				fe_region_add(fe, &fe->regions[i]);
		return;
	}
	CHECK(fe->nregions <= 8);
	for (unsigned i = 0; i < fe->nregions; i++) {
		t.region[i] = fe->regions[i].w;
		fds[i] = fe->regions[i].fd;
		fe->regions[i].sent = true;
	}
	fe_set(fe, FE_SET_MEM_TABLE, &t, 8 + 32 * (size_t)t.n, fds, t.n);
}

void fe_memory_default(struct fe *fe)
{
	const uint64_t low = 1 << 20, high = 64 << 20, at = 3 << 12;
	int fd = fe_memfd(at + low + high);

	fe_region_make(fe, 0x10000, low, 0x700000000000, fd, at);
	fe_region_make(fe, UINT64_C(1) << 32, high, 0x700040000000, fd, at + low);
	close(fd);
	fe_memory_send(fe);
}

/* --- allocation and addresses --- */

void *fe_alloc(struct fe *fe, size_t len, size_t align, uint64_t *gpa)
{
	for (unsigned i = 0; i < fe->nregions; i++) {
		struct fe_region *r = &fe->regions[i];
		uint64_t at = ALIGN_UP(r->w.gpa + r->used, (uint64_t)align) - r->w.gpa;

		if (at > r->w.size || len > r->w.size - at)
			continue;
		r->used = at + len;
		memset(r->ptr + at, 0, len);
		if (gpa)
			*gpa = r->w.gpa + at;
		return r->ptr + at;
	}
	FAIL("guest memory is used up: no %zu bytes", len);
}

size_t fe_mark(const struct fe *fe)
{
	return fe->regions[fe->nregions - 1].used;
}

void fe_release(struct fe *fe, size_t mark)
{
	fe->regions[fe->nregions - 1].used = mark;
}

void *fe_ptr(const struct fe *fe, uint64_t gpa)
{
	const struct fe_region *r = fe_region_at((struct fe *)fe, gpa);

	return r->ptr + (gpa - r->w.gpa);
}

uint64_t fe_gpa(const struct fe *fe, const void *ptr)
{
	for (unsigned i = 0; i < fe->nregions; i++) {
		const struct fe_region *r = &fe->regions[i];
		uint64_t at = (uint64_t)((const uint8_t *)ptr - r->ptr);

		if (at < r->w.size)
			return r->w.gpa + at;
	}
	FAIL("%p is not guest memory", ptr);
}

uint64_t fe_uaddr(const struct fe *fe, uint64_t gpa)
{
	const struct fe_region *r = fe_region_at((struct fe *)fe, gpa);

	return r->w.uaddr + (gpa - r->w.gpa);
}

struct vring_driver_buf fe_rd(const struct fe *fe, const void *ptr, uint32_t len)
{
	return (struct vring_driver_buf){.addr = fe_gpa(fe, ptr), .len = len};
}

struct vring_driver_buf fe_wr(const struct fe *fe, const void *ptr, uint32_t len)
{
	return (struct vring_driver_buf){.addr = fe_gpa(fe, ptr), .len = len, .wr = true};
}

/* --- dirty log: a bit per 4 KiB page of guest-physical address space --- */

void fe_log_set(struct fe *fe, size_t size, uint64_t offset)
{
	struct fe_wire_log w = {.size = size, .offset = offset};
	struct fe_msg m;

	if (fe->log)
		munmap(fe->log, fe->log_size);
	fd_close(&fe->log_fd);
	fe->log_fd = fe_memfd(offset + size);
	fe->log = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fe->log_fd, (off_t)offset);
	if (fe->log == MAP_FAILED)
		FAIL("mmap of the log: %s", strerror(errno));
	fe->log_size = size;
	fe_send(fe, FE_SET_LOG_BASE, 0, &w, sizeof(w), &fe->log_fd, 1);
	if (!fe_has(fe, FE_P_LOG_SHMFD))
		return;
	fe_expect(fe, FE_SET_LOG_BASE, FE_ANY, &m);
	if (m.h.size == 8)
		CHECK_EQ(*(uint64_t *)m.body, 0);
	else
		CHECK_EQ(m.h.size, 0);
}

bool fe_log_dirty(const struct fe *fe, uint64_t gpa)
{
	uint64_t page = gpa / 4096;

	CHECK(page / 8 < fe->log_size);
	return __atomic_load_n(&fe->log[page / 8], __ATOMIC_ACQUIRE) >> page % 8 & 1;
}

unsigned fe_log_count(const struct fe *fe)
{
	unsigned n = 0;

	for (size_t i = 0; i < fe->log_size; i++)
		n += (unsigned)__builtin_popcount(__atomic_load_n(&fe->log[i], __ATOMIC_ACQUIRE));
	return n;
}

void fe_log_clear(struct fe *fe)
{
	for (size_t i = 0; i < fe->log_size; i++)
		__atomic_store_n(&fe->log[i], 0, __ATOMIC_RELEASE);
}

void fe_memory_free(struct fe *fe)
{
	for (unsigned i = 0; i < fe->nregions; i++)
		region_unmap(&fe->regions[i]);
	fe->nregions = 0;
	if (fe->log)
		munmap(fe->log, fe->log_size);
	fe->log = NULL;
	fd_close(&fe->log_fd);
}
