/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as files: for processes of ours that map them too, and given back to the host, as holes in them. A hole hits
 * everybody who maps the file, at whatever guest address, so pages are compared by file and offset: a ring may be seen through
 * another region of the same file.
 */
#include <errno.h>
#include <inttypes.h>

#include "backend-core.h"

bool backend_memory_region(
	struct backend *b, const struct backend_memory *m, unsigned i, struct backend_region *out)
{
	const struct session *s = core_of(b)->host.session;
	const struct guestmem_region *r = &m->map->region[i];

	if (i >= m->map->n || !s || s->postcopy.uffd >= 0)
		return false;
	*out = (struct backend_region){r->gpa, r->size, r->offset, r->shm->fd};
	return true;
}

struct file_range {
	dev_t dev;
	ino_t ino;
	uint64_t start, end; /* bytes of the file, whole pages */
};

/* False: [gpa, gpa + 1) is in no region, or the page it is in reaches out of it. */
bool backend_memory_page(struct backend_memory *m, uint64_t gpa, uint64_t *start, uint64_t *size)
{
	int i = guestmem_find(m->map, gpa);
	const struct guestmem_region *r;
	uint64_t page, into;

	if (i < 0)
		return false;
	r = &m->map->region[i];
	page = r->shm->page;
	into = (r->offset + (gpa - r->gpa)) & (page - 1);
	if (gpa - r->gpa < into || r->size - (gpa - r->gpa - into) < page)
		return false;
	*start = gpa - into;
	*size = page;
	return true;
}

static bool region_of_user(const struct guestmem *map, uint64_t uaddr, const struct guestmem_region **r)
{
	for (unsigned i = 0; i < map->n; i++) {
		*r = &map->region[i];
		if (uaddr - (*r)->uaddr < (*r)->size)
			return true;
	}
	return false;
}

/* Part of a ring as a range of the file it lies in. False: it is nowhere. */
static bool ring_part(const struct guestmem *map, uint64_t uaddr, uint64_t len, struct file_range *f)
{
	const struct guestmem_region *r;
	uint64_t at;

	if (!region_of_user(map, uaddr, &r))
		return false;
	f->dev = r->shm->dev;
	f->ino = r->shm->ino;
	at = r->offset + (uaddr - r->uaddr);
	f->start = ALIGN_DOWN(at, r->shm->page);
	f->end = ALIGN_UP(at + len, r->shm->page);
	return true;
}

enum { RING_PARTS = 3 };

/* The parts of all rings; returns how many. parts has room for RING_PARTS of each queue. */
static unsigned ring_parts(struct core *core, const struct guestmem *map, struct file_range *parts)
{
	unsigned n = 0;

	for (unsigned i = 0; i < core->host.nqueues; i++) {
		const struct virtqueue *q = core->host.queues[i];
		bool packed = core->host.session->features & BIT(FEATURE_RING_PACKED);
		uint64_t len[RING_PARTS];

		if (!q || !q->has_addr)
			continue;
		len[0] = UINT64_C(16) * q->num;
		len[1] = packed ? 4 : UINT64_C(6) + UINT64_C(2) * q->num;
		len[2] = packed ? 4 : UINT64_C(6) + UINT64_C(8) * q->num;
		n += ring_part(map, q->addr.desc, len[0], &parts[n]);
		n += ring_part(map, q->addr.avail, len[1], &parts[n]);
		n += ring_part(map, q->addr.used, len[2], &parts[n]);
	}
	return n;
}

struct discard {
	struct shmem *shm;
	const struct file_range *parts;
	unsigned nparts;
	uint64_t done;
};

/* [start, end) of the file less what rings lie in, from part i on. */
static void discard_range(struct discard *d, uint64_t start, uint64_t end, unsigned i)
{
	int err;

	for (; i < d->nparts; i++) {
		const struct file_range *p = &d->parts[i];

		if (p->ino != d->shm->ino || p->dev != d->shm->dev || p->end <= start || p->start >= end)
			continue;
		if (p->start > start)
			discard_range(d, start, p->start, i + 1);
		if (p->end >= end)
			return;
		start = p->end;
	}
	err = shmem_discard(d->shm, start, end - start);
	if (err)
		log_guest_errno(err, "giving back 0x%" PRIx64 " bytes at 0x%" PRIx64 " of guest memory",
			end - start, start);
	else
		d->done += end - start;
}

static bool inhibited(const struct session *s)
{
	return (s->log && (s->features & BIT(FEATURE_LOG_ALL))) || s->postcopy.uffd >= 0 ||
	       postcopy_listening(&s->postcopy) || postcopy_base_map(&s->postcopy);
}

uint64_t backend_memory_discard(struct backend *b, struct backend_memory *m, uint64_t gpa, uint64_t len)
{
	struct core *core = core_of(b);
	struct file_range parts[RING_PARTS * 16];
	struct discard d = {.parts = parts};
	uint64_t end;

	if (!core->host.session || inhibited(core->host.session) || !checked_add(gpa, len, &end) ||
		core->host.nqueues > 16)
		return 0;
	d.nparts = ring_parts(core, m->map, parts);
	while (gpa < end) {
		int i = guestmem_find(m->map, gpa);
		const struct guestmem_region *r = i < 0 ? NULL : &m->map->region[i];
		uint64_t n, from, to;

		if (!r)
			return d.done;
		n = MIN(end - gpa, r->size - (gpa - r->gpa));
		from = r->offset + (gpa - r->gpa);
		to = ALIGN_DOWN(from + n, r->shm->page);
		from = ALIGN_UP(from, r->shm->page);
		d.shm = r->shm;
		if (from < to)
			discard_range(&d, from, to, 0);
		gpa += n;
	}
	return d.done;
}
