/* SPDX-License-Identifier: MIT */
/*
 * What the protocol tests have in common: the rng device as a probe of the core, with random bytes, or with known
 * bytes from a FIFO, which also keeps requests in flight for as long as a test likes.
 */
#ifndef TESTS_PROTOCOL_H
#define TESTS_PROTOCOL_H

#include "frontend.h"

struct source {
	int fd; /* our end, O_RDWR: there is never an end of file */
	char path[128];
	char option[160]; /* --source=PATH */
	uint64_t fed;
};

/* Makes the FIFO. */
void source_open(struct source *s);
void source_close(struct source *s);
/* Feeds the next n bytes of the known stream (at most 64 KiB unread). */
void source_feed(struct source *s, size_t n);
/* Waits until everything that was fed has been read. */
void source_drained(const struct source *s);
/* The n bytes at p must be those at position pos of the stream. */
void source_check(uint64_t pos, const void *p, size_t n);

/* A request of `total` random bytes in n buffers of unlike sizes; its length, its bytes and what lies around them are checked. */
void rng_fill(struct fe_queue *q, uint32_t total, unsigned n);
/* Many requests, many at a time. */
void rng_traffic(struct fe_queue *q, unsigned requests);
/* The queue works: a few requests one by one. */
void rng_works(struct fe_queue *q);

/* A process with --socket-path and --source, for tests that hang up and connect again. */
struct server {
	struct fe fe;
	char path[128];
};

/* Starts it and connects; handshake and memory are the caller's. args: after "rng". */
void server_start(struct server *s, const struct fe_mode *m, const char *const *args);
/* Hangs up, forgets all, connects again. */
void server_reconnect(struct server *s);
/* Shakes hands, sets up memory and queue 0 and uses it. */
struct fe_queue *server_up(struct server *s);
/* SIGTERM, exit status 0. */
void server_end(struct server *s);

#endif
