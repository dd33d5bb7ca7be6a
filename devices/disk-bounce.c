/* SPDX-License-Identifier: MIT */
/* Buffers of a lane, see disk-bounce.h. */
#include "disk-bounce.h"

#include <stdlib.h>

#include "util.h"

#define BOUNCE_MAX   16u
#define BOUNCE_ALIGN 65536u

struct bounce {
	struct bounce *next;
};

void disk_bounces_init(struct disk_bounces *b)
{
	*b = (struct disk_bounces){.waiting_tail = &b->waiting};
}

void disk_bounces_free(struct disk_bounces *b)
{
	struct bounce *buf;

	while ((buf = b->spare) != NULL) {
		b->spare = buf->next;
		free(buf);
	}
}

void *disk_bounce_get(struct disk_bounces *b)
{
	struct bounce *buf = b->spare;

	if (buf != NULL) {
		b->spare = buf->next;
		return buf;
	}
	if (b->made == BOUNCE_MAX)
		return NULL;
	buf = aligned_alloc(BOUNCE_ALIGN, BOUNCE_SIZE);
	b->made += buf != NULL;
	return buf;
}

bool disk_bounce_wait(struct disk_bounces *b, struct disk_io *io)
{
	if (b->made == 0)
		return false;
	io->next = NULL;
	*b->waiting_tail = io;
	b->waiting_tail = &io->next;
	return true;
}

struct disk_io *disk_bounce_put(struct disk_bounces *b, void *arg)
{
	struct disk_io *io = b->waiting;
	struct bounce *buf = arg;

	buf->next = b->spare;
	b->spare = buf;
	if (io == NULL)
		return NULL;
	b->waiting = io->next;
	if (b->waiting == NULL)
		b->waiting_tail = &b->waiting;
	return io;
}

void disk_bounces_wait_none(struct disk_bounces *b)
{
	b->waiting = NULL;
	b->waiting_tail = &b->waiting;
}

size_t disk_bounce_fill(const struct disk_io *io)
{
	size_t n = MIN(io->data->left, BOUNCE_SIZE);
	struct cursor peek = *io->data;

	peek.up = NULL;
	cursor_get(&peek, io->bounce, n);
	return n;
}
