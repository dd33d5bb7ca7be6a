/* SPDX-License-Identifier: MIT */
/*
 * Cursor: the one place that walks scattered guest buffers (cursor.h has the contract).
 *
 * Every movement goes through cursor_take(), which hands out the longest contiguous piece at the position.
 * The position is kept normal: it never rests at the end of a segment nor on an empty one, so that `off == 0`
 * means "at the start of a segment that has bytes".
 */
#include "cursor.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "util.h"

static void cursor_normalize(struct cursor *c)
{
	while (c->n > 0 && c->off == c->iov->iov_len) {
		c->iov++;
		c->n--;
		c->off = 0;
	}
}

void cursor_init(struct cursor *c, const struct iovec *iov, unsigned n)
{
	*c = (struct cursor){.iov = iov, .n = n};
	for (unsigned i = 0; i < n; i++)
		c->left += iov[i].iov_len;
	cursor_normalize(c);
}

/* Moves over the contiguous bytes at the position, at most max of them; *n says how many. left must not be 0.
 */
static uint8_t *cursor_take(struct cursor *c, size_t max, size_t *n)
{
	uint8_t *p = (uint8_t *)c->iov->iov_base + c->off;

	*n = MIN(max, c->iov->iov_len - c->off);
	c->off += *n;
	c->left -= *n;
	cursor_normalize(c);
	return p;
}

static void cursor_account(struct cursor *c, size_t n)
{
	for (; c; c = c->up)
		c->done += n;
}

static bool cursor_has(struct cursor *c, size_t n)
{
	if (likely(n <= c->left))
		return true;
	c->bad = true;
	return false;
}

bool cursor_get_pieces(struct cursor *c, void *dst, size_t n)
{
	uint8_t *to = dst;

	if (!cursor_has(c, n)) {
		memset(dst, 0, n);
		return false;
	}
	cursor_account(c, n);
	while (n > 0) {
		size_t step;
		const uint8_t *from = cursor_take(c, n, &step);

		memcpy(to, from, step);
		to += step;
		n -= step;
	}
	return true;
}

bool cursor_put_pieces(struct cursor *c, const void *src, size_t n)
{
	const uint8_t *from = src;

	if (!cursor_has(c, n))
		return false;
	cursor_account(c, n);
	while (n > 0) {
		size_t step;
		uint8_t *to = cursor_take(c, n, &step);

		memcpy(to, from, step);
		from += step;
		n -= step;
	}
	return true;
}

bool cursor_zero(struct cursor *c, size_t n)
{
	if (!cursor_has(c, n))
		return false;
	cursor_account(c, n);
	while (n > 0) {
		size_t step;
		uint8_t *to = cursor_take(c, n, &step);

		memset(to, 0, step);
		n -= step;
	}
	return true;
}

static void cursor_move(struct cursor *c, size_t n)
{
	while (n > 0) {
		size_t step;

		cursor_take(c, n, &step);
		n -= step;
	}
}

bool cursor_skip(struct cursor *c, size_t n)
{
	if (!cursor_has(c, n))
		return false;
	cursor_account(c, n);
	cursor_move(c, n);
	return true;
}

bool cursor_split(struct cursor *c, size_t n, struct cursor *head)
{
	*head = (struct cursor){.iov = c->iov, .n = c->n, .off = c->off, .up = c};
	if (!cursor_has(c, n)) {
		head->bad = true;
		return false;
	}
	head->left = n;
	c->split = true;
	cursor_move(c, n);
	return true;
}

unsigned cursor_iovec(const struct cursor *c, size_t max, struct iovec *v, unsigned n)
{
	const struct iovec *iov = c->iov;
	size_t left = MIN(max, c->left), off = c->off;
	unsigned used = 0;

	for (; left > 0 && used < n; iov++, off = 0) {
		size_t len = MIN(left, iov->iov_len - off);

		if (len == 0)
			continue;
		v[used].iov_base = (uint8_t *)iov->iov_base + off;
		v[used].iov_len = len;
		used++;
		left -= len;
	}
	return used;
}

const struct iovec *cursor_whole(const struct cursor *c, unsigned *n)
{
	size_t sum = 0;
	unsigned i = 0;

	*n = 0;
	if (c->off != 0)
		return NULL;
	while (sum < c->left)
		sum += c->iov[i++].iov_len;
	if (sum != c->left)
		return NULL;
	*n = i;
	return c->iov;
}

typedef ssize_t cursor_io(int fd, const struct iovec *v, int n);

/*
 * Where the kernel says EFAULT an access of our own would raise SIGBUS: the memory's file was truncated. Touching
 * the pages lets the guard of shmem.h put others there and end the session; to the device all looks well.
 */
void cursor_touch(const struct iovec *v, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const volatile uint8_t *p = v[i].iov_base, *end = p + v[i].iov_len;

		for (; p < end; p += MIN(4096, end - p))
			(void)*p;
		(void)end[-1];
	}
}

static ssize_t cursor_transfer(struct cursor *c, int fd, size_t max, cursor_io *io)
{
	struct iovec v[IOV_MAX];
	unsigned n = cursor_iovec(c, max, v, ARRAY_SIZE(v));
	bool touched = false;
	ssize_t moved;

	if (n == 0)
		return 0;
	for (;;) {
		moved = io(fd, v, (int)n);
		if (moved >= 0 || (errno != EINTR && (errno != EFAULT || touched)))
			break;
		if (errno == EFAULT) {
			cursor_touch(v, n);
			touched = true;
		}
	}
	if (moved < 0)
		return -errno;
	cursor_skip(c, (size_t)moved);
	return moved;
}

ssize_t cursor_readv(struct cursor *c, int fd, size_t max)
{
	return cursor_transfer(c, fd, max, readv);
}

ssize_t cursor_writev(struct cursor *c, int fd, size_t max)
{
	return cursor_transfer(c, fd, max, writev);
}
