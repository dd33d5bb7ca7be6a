/* SPDX-License-Identifier: MIT */
/* Parts of host pages, in a hash table of bitmaps; see balloon-pages.h. */
#include "balloon-pages.h"

#include <stdlib.h>

#include "util.h"

struct balloon_page {
	struct balloon_page *next;
	uint64_t start;
	unsigned parts, in; /* of 4 KiB each; how many are in the balloon */
	uint64_t bits[];
};

static size_t hash(const struct balloon_pages *p, uint64_t start)
{
	return (size_t)(start * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (p->buckets - 1);
}

static struct balloon_page **find(const struct balloon_pages *p, uint64_t start)
{
	struct balloon_page **pp;

	if (!p->buckets)
		return NULL;
	pp = &p->table[hash(p, start)];
	while (*pp && (*pp)->start != start)
		pp = &(*pp)->next;
	return pp;
}

static bool grow(struct balloon_pages *p)
{
	struct balloon_pages more = {.buckets = p->buckets ? p->buckets * 2 : 64, .entries = p->entries};
	size_t i;

	if (p->entries < p->buckets)
		return true;
	more.table = calloc(more.buckets, sizeof(struct balloon_page *));
	if (!more.table)
		return p->buckets;
	for (i = 0; i < p->buckets; i++) {
		struct balloon_page *e;

		while ((e = p->table[i])) {
			p->table[i] = e->next;
			e->next = more.table[hash(&more, e->start)];
			more.table[hash(&more, e->start)] = e;
		}
	}
	free(p->table);
	*p = more;
	return true;
}

bool balloon_pages_add(struct balloon_pages *p, uint64_t start, uint64_t size, uint64_t from, uint64_t to)
{
	unsigned parts = (unsigned)(size / BALLOON_PAGE), i;
	struct balloon_page **pp, *e;

	if (!grow(p))
		return false;
	pp = find(p, start);
	e = *pp;
	if (!e) {
		e = calloc(1, sizeof(*e) + (parts + 63) / 64 * sizeof(e->bits[0]));
		if (!e)
			return false;
		e->start = start;
		e->parts = parts;
		*pp = e;
		p->entries++;
	}
	for (i = (unsigned)((from - start) / BALLOON_PAGE); i < (to - start) / BALLOON_PAGE; i++) {
		e->in += !(e->bits[i / 64] & BIT(i % 64));
		e->bits[i / 64] |= BIT(i % 64);
	}
	return e->in == e->parts;
}

void balloon_pages_remove(struct balloon_pages *p, uint64_t start, uint64_t size, uint64_t from, uint64_t to)
{
	struct balloon_page **pp = find(p, start), *e = pp ? *pp : NULL;
	unsigned i;

	if (!e || e->parts != size / BALLOON_PAGE)
		return;
	for (i = (unsigned)((from - start) / BALLOON_PAGE); i < (to - start) / BALLOON_PAGE; i++) {
		e->in -= !!(e->bits[i / 64] & BIT(i % 64));
		e->bits[i / 64] &= ~BIT(i % 64);
	}
	if (e->in)
		return;
	*pp = e->next;
	free(e);
	p->entries--;
}

void balloon_pages_clear(struct balloon_pages *p)
{
	size_t i;

	for (i = 0; i < p->buckets; i++) {
		struct balloon_page *e;

		while ((e = p->table[i])) {
			p->table[i] = e->next;
			free(e);
		}
	}
	free(p->table);
	*p = (struct balloon_pages){0};
}
