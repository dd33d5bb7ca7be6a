/* SPDX-License-Identifier: MIT */
/*
 * Which parts of large host pages are in the balloon. The balloon is told of pages of 4 KiB; the host takes back whole pages
 * of the file that the memory comes from, and those may be huge. So parts are collected until a host page is whole, which
 * takes a driver that tells us before it uses a page again (MUST_TELL_HOST).
 *
 * One entry per host page with something of it in the balloon: a bit for each 4 KiB.
 */
#ifndef BALLOON_PAGES_H
#define BALLOON_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BALLOON_PAGE = 4096 };

struct balloon_pages { /* zeroed: empty */
	struct balloon_page **table;
	size_t buckets, entries;
};

/* [from, to) of the host page that begins at start is in the balloon. True: now all of it is. Out of memory: false. */
bool balloon_pages_add(struct balloon_pages *p, uint64_t start, uint64_t size, uint64_t from, uint64_t to);
/* [from, to) of it is not any more. */
void balloon_pages_remove(struct balloon_pages *p, uint64_t start, uint64_t size, uint64_t from, uint64_t to);
void balloon_pages_clear(struct balloon_pages *p);

#endif
