/* SPDX-License-Identifier: MIT */
/*
 * Guest-memory maps (guestmem.h has the contract; vhost-user: "Memory region description", "Front-end message
 * types", VHOST_USER_SET_MEM_TABLE, VHOST_USER_ADD_MEM_REG, VHOST_USER_REM_MEM_REG).
 *
 * Some front-ends add the same region several times, once per queue pair: that is a success, provided the
 * file is the same one. Boards that show the same RAM at two guest-physical addresses give two regions with
 * overlapping user addresses: accepted when both mean the same bytes of the same file, else refused, since a
 * user address must have one meaning.
 */
#include "guestmem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util.h"

static struct guestmem *map_alloc(unsigned n)
{
	struct guestmem *m = calloc(1, sizeof(*m) + n * sizeof(m->region[0]));

	if (m)
		m->refs = 1;
	return m;
}

struct guestmem *guestmem_new(void)
{
	return map_alloc(0);
}

static bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b ? b - a < alen : a - b < blen;
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static bool region_matches(const struct guestmem_region *r, const struct guestmem_spec *spec)
{
	return r->gpa == spec->gpa && r->size == spec->size && r->uaddr == spec->uaddr;
}

/* -EEXIST when spec collides with region r; 1 when it is region r; else 0. */
static int region_compare(const struct guestmem_region *r, const struct guestmem_spec *spec, int fd)
{
	bool gpa = ranges_overlap(r->gpa, r->size, spec->gpa, spec->size);
	bool user = ranges_overlap(r->uaddr, r->size, spec->uaddr, spec->size);

	if (!gpa && !user)
		return 0;
	/* unsigned wrap-around is fine: equal differences mean the same bytes */
	if (r->offset - r->uaddr != spec->offset - spec->uaddr || !same_file(r->shm->fd, fd))
		return -EEXIST;
	if (!gpa)
		return 0;
	return region_matches(r, spec) ? 1 : -EEXIST;
}

static void region_copy(struct guestmem_region *to, const struct guestmem_region *from, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		to[i] = from[i];
		shmem_ref(to[i].shm);
	}
}

static struct guestmem *map_copy(const struct guestmem *old)
{
	struct guestmem *m = map_alloc(old->n);

	if (m) {
		m->n = old->n;
		region_copy(m->region, old->region, old->n);
	}
	return m;
}

static int map_insert(const struct guestmem *old, const struct guestmem_spec *spec, struct shmem *shm,
	struct guestmem **out)
{
	struct guestmem *m = map_alloc(old->n + 1);
	unsigned at = 0;

	if (!m)
		return -ENOMEM;
	while (at < old->n && old->region[at].gpa < spec->gpa)
		at++;
	m->n = old->n + 1;
	region_copy(m->region, old->region, at);
	m->region[at] = (struct guestmem_region){.gpa = spec->gpa,
		.size = spec->size,
		.uaddr = spec->uaddr,
		.offset = spec->offset,
		.host = shm->addr,
		.shm = shm};
	region_copy(m->region + at + 1, old->region + at, old->n - at);
	*out = m;
	return 0;
}

int guestmem_add(const struct guestmem *old, const struct guestmem_spec *spec, int *fd, int prot,
	struct guestmem **out)
{
	struct shmem *shm;
	uint64_t end;
	int err;

	if (spec->size == 0 || !checked_add(spec->gpa, spec->size, &end) ||
		!checked_add(spec->uaddr, spec->size, &end))
		return -EINVAL;
	for (unsigned i = 0; i < old->n; i++) {
		int same = region_compare(&old->region[i], spec, *fd);

		if (same < 0)
			return same;
		if (same == 0)
			continue;
		*out = map_copy(old);
		if (!*out)
			return -ENOMEM;
		fd_close(fd);
		return 0;
	}
	if (old->n == GUESTMEM_MAX_REGIONS)
		return -ENOSPC;
	err = shmem_map(&shm, *fd, spec->offset, spec->size, prot);
	if (err)
		return err;
	err = map_insert(old, spec, shm, out);
	if (err) {
		shm->fd = -1; /* still the caller's */
		shmem_unref(shm);
		return err;
	}
	fd_take(fd);
	return 0;
}

int guestmem_remove(const struct guestmem *old, const struct guestmem_spec *spec, struct guestmem **out)
{
	struct guestmem *m;
	unsigned at = 0;

	while (at < old->n && !region_matches(&old->region[at], spec))
		at++;
	if (at == old->n)
		return -ENOENT;
	m = map_alloc(old->n - 1);
	if (!m)
		return -ENOMEM;
	m->n = old->n - 1;
	region_copy(m->region, old->region, at);
	region_copy(m->region + at, old->region + at + 1, m->n - at);
	*out = m;
	return 0;
}

struct guestmem *guestmem_ref(struct guestmem *m)
{
	__atomic_fetch_add(&m->refs, 1, __ATOMIC_RELAXED);
	return m;
}

void guestmem_unref(struct guestmem *m)
{
	void (*released)(void *arg);
	void *arg;

	if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	released = m->released;
	arg = m->arg;
	for (unsigned i = 0; i < m->n; i++)
		shmem_unref(m->region[i].shm);
	free(m);
	if (released)
		released(arg);
}

void guestmem_on_release(struct guestmem *m, void (*fn)(void *arg), void *arg)
{
	m->arg = arg;
	m->released = fn;
}

int guestmem_find(const struct guestmem *m, uint64_t gpa)
{
	unsigned low = 0, high = m->n;

	while (low < high) {
		unsigned mid = (low + high) / 2;
		const struct guestmem_region *r = &m->region[mid];

		if (gpa < r->gpa)
			high = mid;
		else if (gpa - r->gpa >= r->size)
			low = mid + 1;
		else
			return (int)mid;
	}
	return -1;
}

void *guestmem_user(const struct guestmem *m, uint64_t uaddr, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct guestmem_region *r = &m->region[i];
		uint64_t off = uaddr - r->uaddr;

		if (off < r->size && len <= r->size - off)
			return r->host + off;
	}
	return NULL;
}

void *guestmem_gpa(const struct guestmem *m, uint64_t gpa, uint64_t len)
{
	int i = guestmem_find(m, gpa);
	uint64_t off;

	if (i < 0)
		return NULL;
	off = gpa - m->region[i].gpa;
	return len <= m->region[i].size - off ? m->region[i].host + off : NULL;
}

bool guestmem_reverse(const struct guestmem *m, const void *host, uint64_t *gpa)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct guestmem_region *r = &m->region[i];
		uint64_t off = (uintptr_t)host - (uintptr_t)r->host;

		if (off < r->size) {
			*gpa = r->gpa + off;
			return true;
		}
	}
	return false;
}
