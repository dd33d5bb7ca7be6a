/* SPDX-License-Identifier: MIT */
/*
 * A whole back-end in a thread of this process, with a device that echoes, or holds its buffers until the test lets
 * them go. The front-end is that of the device tests. With queue threads these are the tests to run under
 * ThreadSanitizer. One back-end per case, since a case is a process.
 */
#ifndef TESTS_HOST_H
#define TESTS_HOST_H

#include <pthread.h>

#include "backend.h"
#include "frontend.h"

enum { HOST_QUEUES = 4, HOST_DEPTH = 64, HOST_STATE = 3 << 20 };

struct dev_held {
	struct virtqueue *q;
	struct element *e[HOST_DEPTH];
	unsigned n;
	struct post post; /* lets them go, in the queue's loop */
};

/* What the test looks at is atomic, since it is in another thread. */
struct dev {
	unsigned threads, poll_us;
	int hold, unpop; /* new buffers stay; they are given back at the stop */
	int nheld, started, stopped, resets, ended;
	uint64_t features; /* at the last request */
	uint8_t *state;	   /* HOST_STATE bytes */
	struct dev_held held[HOST_QUEUES];
};
extern struct dev dev;

int dev_get(const int *v);
/* Waits for what the other thread does; the case has a time limit. */
void dev_until(const int *v, int want);
/* Lets all held buffers go. */
void dev_release(void);

struct host {
	struct fe fe;
	struct backend_options opt;
	pthread_t thread;
	int status;
};

/* Runs the back-end in this thread. */
int host_serve(const struct backend_options *opt);
/* Starts it on one end of a socketpair; sndbuf: of its end, 0: as it is. */
void host_start(struct host *h, const struct fe_mode *m, int sndbuf);
/* And with handshake and memory. */
void host_up(struct host *h, const struct fe_mode *m);
void host_join(struct host *h, int status);
/* The front-end goes, the back-end ends. */
void host_end(struct host *h);
/* A region that is not there yet. */
struct fe_region *host_more_memory(struct fe *fe);
/* No message comes. */
bool host_quiet(struct fe *fe);
void host_expect(struct fe *fe, uint32_t request, int size);
void host_expect_ack(struct fe *fe, uint32_t request);

/* A request of n bytes, and as many for the answer. */
void echo_submit(struct fe_queue *q, uint32_t n);
/* Waits for one, checks it. */
void echo_collect(struct fe_queue *q);
/* Some, one after the other. */
void echo_works(struct fe_queue *q);
/* n requests that the device keeps. */
void echo_submit_held(struct fe_queue *q, unsigned n);

#endif
