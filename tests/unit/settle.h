/* SPDX-License-Identifier: MIT */
/* Runs a loop for a while without ever sleeping in it. */
#ifndef TESTS_SETTLE_H
#define TESTS_SETTLE_H

#include "loop.h"
#include "util.h"

struct settle {
	struct poller poller;
	struct loop *loop;
	unsigned rounds;
};

static inline bool settle_poll(struct poller *p)
{
	(void)p;
	return false;
}

static inline bool settle_rest(struct poller *p)
{
	struct settle *s = container_of(p, struct settle, poller);

	if (!--s->rounds)
		loop_stop(s->loop);
	return true; /* look at the descriptors, but don't wait for them */
}

/* Each descriptor that is ready is handled `rounds` times or so, and what follows from that. */
static inline void loop_settle(struct loop *l, unsigned rounds)
{
	struct settle s = {.poller = {.poll = settle_poll, .rest = settle_rest}, .loop = l, .rounds = rounds};

	loop_poller_add(l, &s.poller);
	loop_run(l);
	loop_poller_del(l, &s.poller);
}

#endif
