/* SPDX-License-Identifier: MIT */
/*
 * Huge pages for a test case. Where nothing may be skipped (TEST_NO_SKIP), root sets four of them aside meanwhile; test
 * programs that run at the same time wait for each other.
 */
#ifndef TESTS_HUGE_PAGES_H
#define TESTS_HUGE_PAGES_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>

struct huge_pages {
	FILE *file; /* NULL: nothing was set aside */
	int old;
};

static inline void huge_pages_set(FILE *file, int pages)
{
	rewind(file);
	fprintf(file, "%d", pages);
	fflush(file);
}

static inline void huge_pages_reserve(struct huge_pages *h)
{
	h->file = getenv("TEST_NO_SKIP") ? fopen("/proc/sys/vm/nr_hugepages", "r+") : NULL;
	if (!h->file)
		return;
	flock(fileno(h->file), LOCK_EX);
	if (fscanf(h->file, "%d", &h->old) == 1) {
		huge_pages_set(h->file, h->old + 4);
		return;
	}
	fclose(h->file);
	h->file = NULL;
}

static inline void huge_pages_release(struct huge_pages *h)
{
	if (!h->file)
		return;
	huge_pages_set(h->file, h->old);
	fclose(h->file);
	h->file = NULL;
}

#endif
