/* SPDX-License-Identifier: MIT */
/* Private to block*.c. */
#ifndef BLOCK_H
#define BLOCK_H

#include <linux/virtio_blk.h>

#include "device.h"
#include "disk.h"

#define BLOCK_SECTOR 512u

/* Not in the headers of Linux 6.1 (virtio 1.3, 5.2.3, 5.2.4 and 5.2.6) */
#define BLOCK_F_ZONED	 17
#define BLOCK_ZONED_AT	 (offsetof(struct virtio_blk_config, secure_erase_sector_alignment) + 4)
#define BLOCK_ZONED_SIZE 24

enum cache_mode { CACHE_WRITEBACK, CACHE_WRITETHROUGH };

struct block {
	struct disk_options options;
	const char *serial;
	uint32_t block_size, num_queues, threads;
	enum cache_mode cache;
	struct disk *disk;
	struct disk_watch watch;
	struct backend *b;
};

struct block_request {
	struct disk_io io;
	struct element *element;
	struct cursor data; /* IN: the writable part without the status */
};

static inline struct block *block_of(struct backend *b)
{
	return b->state;
}

/* Must a write be on stable storage when it is done? */
bool block_write_through(struct backend *b);
/* Gives the element back, with this as the last byte of its writable part. */
void block_answer(struct element *e, uint8_t status);
uint8_t block_status_of(int result);
/* Checks the place, and does it; answers. */
void block_transfer(
	struct block *s, struct element *e, uint64_t sector, enum disk_op op, struct cursor *data);
void block_submit(struct block_request *r);

/* block-zone.c */
/* Requests of these types; another one is not supported. */
void block_zone_request(struct backend *b, struct element *e, uint32_t type, uint64_t sector);
void block_zone_done(struct disk_io *io);
/* What the driver is told of the zones, or that there are none. */
void block_zone_describe(struct backend *b, const struct disk_limits *m);

#endif
