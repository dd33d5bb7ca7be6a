/* SPDX-License-Identifier: MIT */
/*
 * Private to disk-*.c: buffers of a lane, for data that cannot go straight between the guest's memory and the host. There
 * are a few, made when first needed; requests queue for them.
 */
#ifndef DISK_BOUNCE_H
#define DISK_BOUNCE_H

#include "disk-driver.h"

#define BOUNCE_SIZE (256u << 10)

struct bounce;

struct disk_bounces {
	struct bounce *spare;
	unsigned made;
	struct disk_io *waiting, **waiting_tail;
};

void disk_bounces_init(struct disk_bounces *b);
/* All must be back. */
void disk_bounces_free(struct disk_bounces *b);
/* A buffer of BOUNCE_SIZE, aligned for any device; NULL: all are in use, or there is no memory. */
void *disk_bounce_get(struct disk_bounces *b);
/* The request waits; false: for nothing, none was ever made. */
bool disk_bounce_wait(struct disk_bounces *b, struct disk_io *io);
/* Gives a buffer back. The request that has waited longest, or NULL: for the caller to start. */
struct disk_io *disk_bounce_put(struct disk_bounces *b, void *buf);
/* Nobody waits any more; what did is the caller's to start again, or to end. */
void disk_bounces_wait_none(struct disk_bounces *b);
/* Copies what the request has left to write, at most BOUNCE_SIZE, into its buffer; its cursor stays. Bytes. */
size_t disk_bounce_fill(const struct disk_io *io);

#endif
