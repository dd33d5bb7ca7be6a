/* SPDX-License-Identifier: MIT */
/*
 * Threads for system calls that may block (preadv on a cold file, fsync, fallocate). A job runs in a pool
 * thread and then finishes in the loop it came from. The job is embedded in the caller's request: no
 * allocation.
 */
#ifndef POOL_H
#define POOL_H

#include "loop.h"

struct pool;

struct job {
	void (*run)(struct job *j);  /* in a pool thread */
	void (*done)(struct job *j); /* in j->loop, in the order jobs end */
	struct loop *loop;
	struct job *next;
	struct post post; /* brings it back */
};

/* One thread is started at once, the others on demand, at most max of them. -errno. */
int pool_new(struct pool **out, unsigned max, const char *name);
/* Waits for the running jobs; no job may be queued or undelivered any more. */
void pool_free(struct pool *p);
/* Any thread that owns j; j->run, j->done and j->loop are set. Never fails, never blocks for long. */
void pool_submit(struct pool *p, struct job *j);

#endif
