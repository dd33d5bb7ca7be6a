/* SPDX-License-Identifier: MIT */
/*
 * Slots and chains: a descriptor chain of the driver, direct or indirect, becomes the segments of a slot. Every address is
 * translated and every chain is bounded here, for both layouts.
 */
#include "vring.h"

#include <inttypes.h>
#include <string.h>

#include "le.h"
#include "log.h"

void vring_view_drop(struct memview *v)
{
	guestmem_unref(v->mem);
	free(v);
}

void vring_view_idle(struct virtqueue *q, struct memview *v)
{
	struct memview **p;

	if (v == q->view)
		return;
	for (p = &q->old_views; *p != v; p = &(*p)->next)
		;
	*p = v->next;
	vring_view_drop(v);
}

struct memview *vring_view_new(struct guestmem *mem)
{
	struct memview *v = calloc(1, sizeof(*v));

	if (v)
		v->mem = guestmem_ref(mem);
	return v;
}

static bool segs_grow(struct virtqueue *q, struct vring_slot *s)
{
	struct segs *segs = q->free_segs;
	unsigned n = s->nrd + s->nwr;

	if (segs)
		q->free_segs = segs->next;
	else
		segs = malloc(sizeof(*segs));
	if (!segs)
		return false;
	memcpy(segs->iov, s->iov, n * sizeof(*s->iov));
	memcpy(segs->gpa, s->gpa, n * sizeof(*s->gpa));
	q->nlong++;
	s->segs = segs;
	s->iov = segs->iov;
	s->gpa = segs->gpa;
	return true;
}

static bool slot_append(
	struct virtqueue *q, struct vring_slot *s, uint8_t *host, size_t len, uint64_t gpa, bool writable)
{
	unsigned n = s->nrd + s->nwr;

	if (unlikely(n == VRING_INLINE_SEGS) && !segs_grow(q, s)) {
		virtqueue_break(q, "no memory for a chain");
		return false;
	}
	if (unlikely(n == VRING_MAX_SEGS)) {
		virtqueue_break(q, "a chain has more than %d segments", VRING_MAX_SEGS);
		return false;
	}
	s->iov[n] = (struct iovec){.iov_base = host, .iov_len = len};
	s->gpa[n] = gpa;
	if (writable) {
		s->nwr++;
		s->wr_len += len;
	} else {
		s->nrd++;
		s->rd_len += len;
	}
	return true;
}

static void log_unmapped(const struct virtqueue *q, uint64_t addr, uint32_t len)
{
	LOG_ABOUT(q->socket);

	log_guest_warn(
		"queue %u: %" PRIu32 " bytes at 0x%" PRIx64 " are not guest memory", q->index, len, addr);
}

bool vring_add_pieces(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool writable)
{
	writable = writable && !q->only_read;
	if (unlikely(!writable && (s->nwr || s->tail_lost))) {
		virtqueue_break(q, "a device-readable descriptor follows a device-writable one");
		return false;
	}
	if (unlikely(len > UINT64_MAX - addr))
		goto lost;
	while (len) {
		uint64_t avail;
		uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);
		uint32_t n;

		if (unlikely(!host))
			goto lost;
		n = avail < len ? (uint32_t)avail : len;
		if (unlikely(!slot_append(q, s, host, n, addr, writable)))
			return false;
		addr += n;
		len -= n;
		if (writable)
			s->tail_lost = false;
	}
	return true;
lost:
	log_unmapped(q, addr, len);
	s->e.fault = true;
	if (writable) {
		s->tail_lost = true;
		s->e.wr.bad = true;
	} else {
		s->e.rd.bad = true;
	}
	return true;
}

/* Copies a 16-byte descriptor, which may straddle regions. */
static bool read_desc(struct virtqueue *q, struct vring_slot *s, uint64_t addr, void *out)
{
	uint8_t *dst = out;
	size_t left = 16;

	while (left) {
		uint64_t avail;
		const uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);
		size_t n = MIN(left, avail);

		if (!host)
			return false;
		memcpy(dst, host, n);
		dst += n;
		addr += n;
		left -= n;
	}
	return true;
}

/* Our address of a table that needs no piecing together, or NULL. */
static const uint8_t *plain_table(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len)
{
	uint64_t avail;
	const uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);

	return host && avail >= len && (uintptr_t)host % sizeof(uint64_t) == 0 ? host : NULL;
}

struct vdesc { /* struct vring_desc and struct vring_packed_desc differ in the last four bytes */
	uint64_t addr;
	uint32_t len;
	uint16_t a, b; /* split: flags, next; packed: id, flags */
};

/* Copies a descriptor, each byte once. */
static struct vdesc load_desc(const uint8_t *p)
{
	uint64_t rest = le64_load(p + 8);

	return (struct vdesc){le64_load(p), (uint32_t)rest, (uint16_t)(rest >> 32), (uint16_t)(rest >> 48)};
}

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

bool vring_add_indirect(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool packed)
{
	uint32_t n = len / 16, i = 0, seen;
	const uint8_t *table;

	if (!len || len % 16 || n > VRING_MAX_SEGS || len > UINT64_MAX - addr) {
		virtqueue_break(q, "an indirect table has %" PRIu32 " bytes", len);
		return false;
	}
	table = plain_table(q, s, addr, len);
	for (seen = 0; seen < n; seen++) {
		uint64_t copy[2];
		struct vdesc d;
		uint16_t flags;

		if (unlikely(!table) && !read_desc(q, s, addr + i * UINT64_C(16), copy)) {
			virtqueue_break(q, "an indirect table at 0x%" PRIx64 " is not guest memory", addr);
			return false;
		}
		d = load_desc(table ? table + i * (size_t)16 : (const uint8_t *)copy);
		flags = packed ? d.b : d.a;
		if (flags & DESC_INDIRECT) {
			virtqueue_break(q, "an indirect table is nested");
			return false;
		}
		if (!vring_add(q, s, d.addr, d.len, flags & DESC_WRITE))
			return false;
		if (packed) {
			i++;
			continue;
		}
		if (!(flags & DESC_NEXT))
			return true;
		i = d.b;
		if (i >= n) {
			virtqueue_break(q, "an indirect table of %" PRIu32 " goes on at %" PRIu32, n, i);
			return false;
		}
	}
	if (packed)
		return true;
	virtqueue_break(q, "an indirect table is a loop");
	return false;
}

void vring_tail_lost(struct virtqueue *q, const struct vring_slot *s)
{
	virtqueue_break(q, "buffer %u ends outside guest memory", s->id);
}

void vring_segs_put(struct virtqueue *q, struct vring_slot *s)
{
	if (likely(!s->segs))
		return;
	s->segs->next = q->free_segs;
	q->free_segs = s->segs;
	s->segs = NULL;
	s->iov = s->inline_iov;
	s->gpa = s->inline_gpa;
	q->nlong--;
	if (unlikely(q->starved)) {
		q->starved = false;
		virtqueue_wake(q);
	}
}
