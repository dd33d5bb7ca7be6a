/* SPDX-License-Identifier: MIT */
/* SIGTERM and SIGINT, and the end of the process in bounded time, whatever its other threads hang in. */
#ifndef TERM_H
#define TERM_H

#include <pthread.h>
#include <stdbool.h>

struct term {
	int fd; /* readable for good when the process shall end; -1: not started. Nobody reads it */

	pthread_t thread; /* private from here on */
	bool running;
	int done, begun; /* eventfds */
	int status;
};

#define TERM_INIT                                 \
	{                                         \
		.fd = -1, .done = -1, .begun = -1 \
	}

/* Before there are other threads, which then have the signals blocked too. -errno, logged. */
int term_start(struct term *t);
/* Which signal made fd readable. */
int term_signal(void);
/* As if a signal had come: the time runs from now on, and the process ends with this status. Fine before term_start(). */
void term_begin(struct term *t, int status);
/* The end was reached in time. Idempotent. */
void term_finish(struct term *t);

#endif
