/* SPDX-License-Identifier: MIT */
/*
 * A load for the block device: many requests in flight on one queue or several, cut in random ways, every answer and every
 * byte verified; connections and processes may be lost meanwhile.
 *
 * The disk is divided into extents, one for each slot. A slot has one request in flight at a time, so what its sectors
 * must contain is known.
 */
#ifndef TESTS_BLOCK_SLOTS_H
#define TESTS_BLOCK_SLOTS_H

#include "frontend.h"

enum { EXTENT = 32, DEPTH = 32, QUEUES = 4, RING = 256, SLOTS = DEPTH * QUEUES, PIECES = 6 };

#define LOAD_SIZE (SLOTS * EXTENT * 512)

struct slot {
	unsigned number;
	struct virtio_blk_outhdr *hdr;
	uint8_t *data, *status;
	uint64_t gpa;
	uint32_t type, at, sectors; /* at: in the extent */
	uint32_t gen[EXTENT];	    /* what each sector contains; 0: zeroes */
	uint32_t next_gen;
	bool busy;
};

/* One per case, since a case is a process. */
struct load {
	struct fe fe;
	struct slot slots[SLOTS];
	unsigned nqueues, busy;
	unsigned long done;
	bool aligned;
	char image[160], socket[160];
	char source[256]; /* the option that says what the disk is; empty: a new image, and it is chosen */
	const char *args[8];
};
extern struct load load;

unsigned load_rnd(unsigned n);

/* A new image of LOAD_SIZE at load.image, unless there is one. */
void load_image(void);
/* An image, arguments; then what follows in load_start(). options end with NULL. */
void load_prepare(const struct fe_mode *m, const char *const *options);
/* On a socketpair, with so many queues. */
void load_start(const struct fe_mode *m, unsigned nqueues, const char *const *options);
/* On a socket with a path, with an in-flight area: the connection and the process may be lost. */
void load_tracked_start(const struct fe_mode *m, unsigned nqueues, const char *const *options);
/* There is a connection again: goes on where it was. */
void load_connected_again(void);
/* All that is in flight is answered, the process ends. load_end() also checks the image; so does load_tracked_end(). */
void load_end(void);
void load_tracked_end(void);

/* Fills the queues. */
void load_fill(void);
/* Takes what is complete; the value is whether anything was. */
bool load_collect(void);
/* Waits for a request. */
void load_wait(void);
/* Until n more requests are done; the queues stay full. */
void load_run(unsigned long n);
void load_drain(void);
/* The image has what was written. */
void load_check(void);

uint32_t load_base_fresh(const struct fe_mode *m);

#endif
