/* SPDX-License-Identifier: MIT */
/* A disk image and a driver for it: one request at a time, each in three descriptors or fewer. */
#ifndef TESTS_BLOCK_RIG_H
#define TESTS_BLOCK_RIG_H

#include <linux/virtio_blk.h>

#include "frontend.h"

#define MIB	     (1u << 20)
#define BLK_SECTORS  (4 * MIB / 512)
#define BLK_NOT_SEEN 0xee /* what a status byte is before the device writes it */

/* One per case, since a case is a process. */
struct blk {
	struct fe fe;
	struct fe_queue *q;
	char image[160]; /* file or device */
};
extern struct blk blk;

struct blk_answer {
	uint8_t status;
	uint32_t used;
};

void blk_image_new(off_t size);
/* "--blk-file=" that image */
const char *blk_file(void);
void blk_pattern(uint8_t *buf, size_t len, unsigned seed);
void blk_image_is(off_t at, const void *want, size_t len);
void blk_image_write(off_t at, const void *data, size_t len);

/* The back-end on a new image of 4 MiB, with another option or NULL. */
void blk_start(const struct fe_mode *m, const char *option);
struct virtio_blk_config blk_config(void);
bool blk_offers(unsigned bit);

/* Guest memory, aligned to sectors. */
void *blk_guest(size_t len);
/* A request's header in guest memory, anywhere: it need not be aligned. */
void *blk_header(uint32_t type, uint64_t sector);
/* Header, data in one piece, status. */
struct blk_answer blk_ask(uint32_t type, uint64_t sector, const void *data, uint32_t len, bool wr);
void blk_answers(struct blk_answer a, uint8_t status);
void blk_rd_ok(uint64_t sector, const void *want, uint32_t len);
void blk_wr_ok(uint64_t sector, const void *data, uint32_t len);
/* The ring goes on as if nothing had been. */
void blk_still_works(void);
/* n ranges in guest memory, zeroed, and a request with them. */
struct virtio_blk_discard_write_zeroes *blk_ranges(unsigned n);
struct blk_answer blk_ask_ranges(uint32_t type, const struct virtio_blk_discard_write_zeroes *r, unsigned n);

#endif
