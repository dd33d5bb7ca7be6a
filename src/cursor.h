/* SPDX-License-Identifier: MIT */
/*
 * A cursor is a bounds-checked position in a scattered buffer: a list of iovecs that belongs to somebody
 * else, usually guest memory of a virtqueue element. It only moves forward, and never past its end.
 *
 * Errors are sticky: a step that needs more bytes than are left moves nothing, zeroes its destination and
 * sets `bad`. So a device decodes a whole header and looks at `bad` once.
 *
 * `done` counts the bytes passed. For the device-writable cursor of an element it is the used length, which
 * the core takes from there: a device can't get it wrong. A part that was split off reports to the cursor it
 * came from.
 */
#ifndef CURSOR_H
#define CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util.h"

struct cursor {
	const struct iovec *iov; /* borrowed; the segment the position is in */
	unsigned n;		 /* segments from iov on */
	bool bad;		 /* a step wanted more than was left */
	bool split;		 /* a part was split off: what was written need not be a prefix */
	size_t off;		 /* bytes of *iov already passed */
	size_t left;		 /* bytes to the end of this cursor (may end inside a segment) */
	size_t done;		 /* bytes passed, in this cursor and in the parts split off from it */
	struct cursor *up;	 /* the cursor this one was split off from, or NULL; must outlive it */
};

/* Starts at the beginning of iov[0..n); left is the sum of their lengths. */
void cursor_init(struct cursor *c, const struct iovec *iov, unsigned n);

/* The next n bytes, passed, where they lie in one segment; NULL: they do not, or there are fewer, and nothing was moved. */
static inline void *cursor_piece(struct cursor *c, size_t n)
{
	uint8_t *p;

	if (unlikely(n - 1 >= c->left) || unlikely(n > c->iov->iov_len - c->off))
		return NULL;
	p = (uint8_t *)c->iov->iov_base + c->off;
	c->off += n;
	c->left -= n;
	for (; c->n && c->off == c->iov->iov_len; c->iov++, c->n--)
		c->off = 0;
	for (; c; c = c->up)
		c->done += n;
	return p;
}

/* Copies n bytes out of, or into, the buffer: all or nothing. */
bool cursor_get_pieces(struct cursor *c, void *dst, size_t n);
bool cursor_put_pieces(struct cursor *c, const void *src, size_t n);

static inline bool cursor_get(struct cursor *c, void *dst, size_t n)
{
	const void *p = cursor_piece(c, n);

	if (unlikely(!p))
		return cursor_get_pieces(c, dst, n);
	memcpy(dst, p, n);
	return true;
}

static inline bool cursor_put(struct cursor *c, const void *src, size_t n)
{
	void *p = cursor_piece(c, n);

	if (unlikely(!p))
		return cursor_put_pieces(c, src, n);
	memcpy(p, src, n);
	return true;
}

/* Writes n zero bytes. */
bool cursor_zero(struct cursor *c, size_t n);
/* Passes n bytes; of a writable cursor: n bytes that somebody wrote through cursor_iovec(). */
bool cursor_skip(struct cursor *c, size_t n);

/*
 * Splits the next n bytes off into *head; c goes on behind them. What is done through head counts in c.
 * Neither may be moved or copied while head is in use. Short: head is empty and bad, so is c.
 */
bool cursor_split(struct cursor *c, size_t n, struct cursor *head);

/* Fills v[] with at most n segments of at most max bytes from the position on; moves nothing. Returns how
 * many. */
unsigned cursor_iovec(const struct cursor *c, size_t max, struct iovec *v, unsigned n);
/* The same without a copy where the cursor stands at a segment's start and ends at a segment's end, else
 * NULL. */
const struct iovec *cursor_whole(const struct cursor *c, unsigned *n);

/* readv/writev of at most max bytes between fd and the buffer; passes what was moved. Returns bytes or
 * -errno. */
ssize_t cursor_readv(struct cursor *c, int fd, size_t max);
ssize_t cursor_writev(struct cursor *c, int fd, size_t max);
/* The kernel said EFAULT of such segments of guest memory: makes the guard of a truncated file take note (shmem.h). */
void cursor_touch(const struct iovec *v, unsigned n);

#endif
