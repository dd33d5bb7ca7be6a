/* SPDX-License-Identifier: MIT */
/*
 * Virtqueues as a device sees them (virtio 1.3, 2.6 to 2.8). Split or packed, event index, indirect
 *descriptors, the dirty log and in-flight tracking are the core's business.
 *
 * A queue lives in one loop, and every function here is called in that loop. The core calls
 *queue_spec.ready() when buffers came or somebody woke the queue; the device then pops what it can use:
 *
 *	while ((e = virtqueue_pop(q))) { …; virtqueue_push(e); }
 *
 * virtqueue_pop_many() and virtqueue_push_many() do the same for several buffers at about two thirds of the cost; they
 * are for devices that do little for each. What is left of a batch that can't be used now is given back by virtqueue_unpop().
 *
 * When it leaves buffers in the ring on purpose (nothing to fill them with), it calls virtqueue_wake() later.
 *The driver's kicks stay off meanwhile. A pop that returned NULL because the ring was empty turns them on
 *again.
 */
#ifndef VIRTQUEUE_H
#define VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cursor.h"
#include "util.h"
#include "vring-driver.h"

struct backend;
struct loop;
struct virtqueue;

struct queue_spec {
	const char *name; /* for logs and statistics */
	void (*ready)(
		struct backend *b, struct virtqueue *q); /* NULL: the queue is accepted and left alone */
	size_t req_size;				 /* bytes of element->req; 0: none */
	size_t req_zero;				 /* so many of them are zeroed at pop; 0: all */
};

/*
 * One buffer of the driver. Borrowed from pop to push or unpop; then neither it, nor its cursors, nor req may
 * be touched. rd: what the driver wrote for us; wr: what we write. The used length is wr.done.
 */
struct element {
	struct cursor rd, wr;
	struct virtqueue *queue;
	void *req; /* the device's, queue_spec.req_size bytes, 16-byte aligned */
	bool fault; /* some of the buffer is not guest memory and was left out; the cursor concerned is `bad` */
};

/* NULL: ring empty, queue stopped or broken, or the turn's budget is spent (then ready() comes again by
 * itself). */
struct element *virtqueue_pop(struct virtqueue *q);
/* As many pops, up to max, of which the last may be one that returned NULL: how many buffers there are in e[]. */
unsigned virtqueue_pop_many(struct virtqueue *q, struct element **e, unsigned max);
/*
 * Gives the buffer back to the driver, any order, also after the queue was stopped. Visible at the turn's end, or with a
 * later pop: buffers that the driver must find together are pushed without a pop in between.
 */
void virtqueue_push(struct element *e);
/* The same for n buffers of one queue, n > 0. */
void virtqueue_push_many(struct element *const *e, unsigned n);
/*
 * Returns a buffer as if it had not been taken: in stop(), or right after its pop. What is given back must be
 * the youngest ones of the queue, in any order.
 */
void virtqueue_unpop(struct element *e);
/* Guest address and length of segment i of the device-writable part, for a device that is told of pages by giving it
 * them as buffers (balloon). False: there are fewer. */
bool virtqueue_writable(const struct element *e, unsigned i, uint64_t *gpa, uint64_t *len);
/* Buffers are going to be taken in the turn of another queue of this loop, whose budget counts: a fresh one for this queue. */
void virtqueue_refill(struct virtqueue *q);
/* Calls ready() soon. The argument is a struct virtqueue *; void so that it fits callbacks. */
void virtqueue_wake(void *q);
/* The driver broke the rules beyond an answer: says why, tells the front-end, takes no more from this queue.
 */
void virtqueue_break(struct virtqueue *q, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* For statistics: the device answers a request with an error. In the queue's loop. */
void virtqueue_count_error(struct virtqueue *q);

unsigned virtqueue_index(const struct virtqueue *q);
/* What the device keeps per queue: device.queue_state_size bytes, zeroed when the process starts and at
 * reset. */
void *virtqueue_state(struct virtqueue *q);
struct backend *virtqueue_backend(struct virtqueue *q);
struct loop *virtqueue_loop(struct virtqueue *q);
/* True between start() and stop(). */
bool virtqueue_running(const struct virtqueue *q);
/* In start(): the ring goes on where it came to rest in this connection (the VM was paused). False: the driver has
 * set it up anew, and knows nothing of what it asked for before. */
bool virtqueue_continues(const struct virtqueue *q);
/* In start(): the ring was in use before this start, perhaps by another process: its driver lives on. */
bool virtqueue_resumed(const struct virtqueue *q);
/* True when the driver has made buffers available that we have not taken yet (a look at the ring). */
bool virtqueue_pending(struct virtqueue *q);
/* Buffers taken and not yet given back. */
unsigned virtqueue_outstanding(const struct virtqueue *q);

/*
 * Of a reversed queue (device.reversed), in its loop; nothing is ever popped from it. The driver's side of the
 * ring: device-readable buffers are what we say to the guest. ready() comes when the guest kicked; requests are
 * got back and added then, or at any time while the queue runs, and shown by virtqueue_show(), which kicks the
 * guest if it wants that. NULL: not running.
 */
struct vring_driver *virtqueue_driver(struct virtqueue *q);
void virtqueue_show(struct virtqueue *q);
/*
 * In start(): the guest's buffers, one for each descriptor, as the ring's table announced them; nobody has looked
 * whether they are guest memory. Continues: the ring goes on with the requests that it had when it came to rest.
 */
const struct vring_driver_buf *virtqueue_announced(struct virtqueue *q, bool *continues);

#endif
