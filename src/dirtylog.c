/* SPDX-License-Identifier: MIT */
/*
 * The dirty log (dirtylog.h has the contract; vhost-user: "Migration").
 *
 * The bit of page p is bit p % 8 of byte p / 8, so bits are set bytewise: the bitmap may begin at any offset
 * of its file. The OR is never left out for a bit that seems set already: the front-end may have cleared it,
 * and copied the page, between our write to the page and our look at the bit; a locked OR orders both.
 */
#include "dirtylog.h"

#include <stdbool.h>
#include <stdlib.h>
#include <errno.h>
#include <sys/mman.h>

#include "log.h"
#include "shmem.h"
#include "util.h"

enum { DIRTYLOG_PAGE_SHIFT = 12 };

struct dirtylog {
	struct shmem *shm;
	uint64_t pages; /* bits in the bitmap */
	unsigned refs;	/* atomic */
	bool told;	/* atomic: a page beyond the end was reported */
};

int dirtylog_new(struct dirtylog **out, int *fd, uint64_t size, uint64_t offset)
{
	struct dirtylog *log = malloc(sizeof(*log));
	int err;

	if (!log)
		return -ENOMEM;
	*log = (struct dirtylog){.refs = 1};
	err = shmem_map(&log->shm, *fd, offset, size, PROT_READ | PROT_WRITE);
	if (err) {
		free(log);
		return err;
	}
	fd_take(fd);
	/* a file's size is below 2^63, but page numbers of 64-bit addresses end at 2^52 */
	log->pages = MIN(size, UINT64_MAX / 8) * 8;
	*out = log;
	return 0;
}

bool dirtylog_is_lost(const struct dirtylog *log)
{
	return shmem_is_lost(log->shm);
}

struct dirtylog *dirtylog_ref(struct dirtylog *log)
{
	__atomic_fetch_add(&log->refs, 1, __ATOMIC_RELAXED);
	return log;
}

void dirtylog_unref(struct dirtylog *log)
{
	if (!log || __atomic_sub_fetch(&log->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	shmem_unref(log->shm);
	free(log);
}

/* Sets the bits of pages first..last, which lie in the bitmap. */
static void bits_set(uint8_t *bitmap, uint64_t first, uint64_t last)
{
	for (uint64_t byte = first / 8; byte <= last / 8; byte++) {
		unsigned low = byte == first / 8 ? first % 8 : 0;
		unsigned high = byte == last / 8 ? last % 8 : 7;
		uint8_t mask = (uint8_t)((0xffu << low) & (0xffu >> (7 - high)));

		__atomic_fetch_or(&bitmap[byte], mask, __ATOMIC_SEQ_CST);
	}
}

void dirtylog_mark(struct dirtylog *log, uint64_t gpa, uint64_t len)
{
	uint64_t first, last, end;

	if (len == 0)
		return;
	if (!checked_add(gpa, len - 1, &end))
		end = UINT64_MAX;
	first = gpa >> DIRTYLOG_PAGE_SHIFT;
	last = end >> DIRTYLOG_PAGE_SHIFT;
	if (unlikely(last >= log->pages)) {
		if (!__atomic_exchange_n(&log->told, true, __ATOMIC_RELAXED))
			log_warn("dirty log: 0x%jx+0x%jx is beyond its %ju pages", (uintmax_t)gpa,
				(uintmax_t)len, (uintmax_t)log->pages);
		if (first >= log->pages)
			return;
		last = log->pages - 1;
	}
	bits_set(log->shm->addr, first, last);
}
