/* SPDX-License-Identifier: MIT */
/*
 * The guest-memory map: which guest-physical and front-end addresses are which bytes of ours.
 *
 * A map never changes. Adding or removing a region makes a new map that shares the mappings that stay; the
 * session then gives the new map to the queues. Each queue pins the map that its outstanding elements were
 * translated with, so a removed region's mapping lives until the last I/O on it has ended.
 * guestmem_on_release() tells the session when that is so: only then is the removal acknowledged to the
 * front-end.
 */
#ifndef GUESTMEM_H
#define GUESTMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shmem.h"
#include "util.h"

enum { GUESTMEM_MAX_REGIONS = 512 };

struct guestmem_spec { /* as in the memory-region description of the protocol */
	uint64_t gpa, size, uaddr, offset;
};

struct guestmem_region {
	uint64_t gpa, size, uaddr, offset;
	uint8_t *host;
	struct shmem *shm;
};

struct guestmem {
	unsigned refs; /* atomic */
	unsigned n;
	void (*released)(void *arg); /* called once, by whoever drops the last reference, in any thread */
	void *arg;
	struct guestmem_region region[]; /* sorted by gpa, never overlapping */
};

/* An empty map, with one reference. NULL: no memory. */
struct guestmem *guestmem_new(void);
/*
 * The map old plus one region. Takes *fd over and sets it to -1 (also when the region is there already,
 * identical: then *out is a new map equal to the old one). -EINVAL: empty, wraps around, file too short;
 * -EEXIST: overlaps another region in guest-physical or user addresses; -ENOSPC: GUESTMEM_MAX_REGIONS. prot:
 * PROT_READ | PROT_WRITE, or PROT_NONE while postcopy prepares.
 */
int guestmem_add(const struct guestmem *old, const struct guestmem_spec *spec, int *fd, int prot,
	struct guestmem **out);
/* The map old less the region with the same gpa, uaddr and size. -ENOENT: no such region. */
int guestmem_remove(const struct guestmem *old, const struct guestmem_spec *spec, struct guestmem **out);

struct guestmem *guestmem_ref(struct guestmem *m);
void guestmem_unref(struct guestmem *m);
/* Before the caller drops its own reference: fn(arg) is called when the last one goes. */
void guestmem_on_release(struct guestmem *m, void (*fn)(void *arg), void *arg);

/* Out-of-line part of guestmem_lookup(): the region's index, or -1. */
int guestmem_find(const struct guestmem *m, uint64_t gpa);

/*
 * Our address of a guest-physical address and, in *avail, how many bytes follow it contiguously (in one
 * region; the next one may follow in another). NULL: not guest memory. *hint: index of the region that was
 * found last.
 */
static inline uint8_t *guestmem_lookup(
	const struct guestmem *m, uint64_t gpa, uint64_t *avail, unsigned *hint)
{
	const struct guestmem_region *r;

	if (likely(*hint < m->n) && likely(gpa - m->region[*hint].gpa < m->region[*hint].size)) {
		r = &m->region[*hint];
	} else {
		int i = guestmem_find(m, gpa);

		if (i < 0)
			return NULL;
		*hint = (unsigned)i;
		r = &m->region[i];
	}
	*avail = r->size - (gpa - r->gpa);
	return r->host + (gpa - r->gpa);
}

/* len contiguous bytes at a front-end ("user") address, as ring addresses are given; NULL: not within one
 * region. */
void *guestmem_user(const struct guestmem *m, uint64_t uaddr, uint64_t len);
/* len contiguous bytes at a guest-physical address; NULL: not within one region. */
void *guestmem_gpa(const struct guestmem *m, uint64_t gpa, uint64_t len);
/* The guest-physical address of one of our addresses inside the map; false: not there. */
bool guestmem_reverse(const struct guestmem *m, const void *host, uint64_t *gpa);

#endif
