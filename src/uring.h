/* SPDX-License-Identifier: MIT */
/*
 * io_uring on a loop: one ring per loop, its completions are events of that loop, and what a turn queued goes
 * to the kernel in one io_uring_enter() at the turn's end.
 */
#ifndef URING_H
#define URING_H

#include <liburing.h>

#include "loop.h"

struct uring;

struct uring_op {
	void (*done)(struct uring_op *op, int res); /* in the loop; res as in the CQE: bytes or -errno */
	struct uring_op *next;			    /* private from here on */
	int res;
};

/* The loop's ring, made at the first call; NULL with errno set where io_uring is not permitted or not there.
 */
struct uring *uring_get(struct loop *l);
/* True when a ring can be made in this process (tried once, quietly). */
bool uring_available(void);
/*
 * An SQE to be prepared with io_uring_prep_*(); op is attached already (do not change user_data). Submitted
 * at the end of the turn. When the SQ is full it is submitted first; never returns NULL.
 */
struct io_uring_sqe *uring_sqe(struct uring *u, struct uring_op *op);
/*
 * Registers fd in the ring's fixed-file table: the index for IOSQE_FIXED_FILE, or -errno (then use the fd
 * itself). Counted per fd: each registration is undone by one uring_unregister_file(), before the fd is
 * closed.
 */
int uring_register_file(struct uring *u, int fd);
void uring_unregister_file(struct uring *u, int fd);

#endif
