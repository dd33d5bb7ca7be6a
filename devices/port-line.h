/* SPDX-License-Identifier: MIT */
/*
 * A serial line: a host end between two virtqueues, rx with buffers that we fill, tx with what the guest says. Bytes go
 * between guest memory and the host's descriptor without a copy, many buffers in one system call.
 */
#ifndef PORT_LINE_H
#define PORT_LINE_H

#include "device.h"
#include "port.h"

enum { LINE_BATCH = 64 };

struct line {
	struct port *port;		  /* NULL: what the guest says is dropped */
	struct virtqueue *rx, *tx;	  /* while they run */
	bool open;			  /* the guest takes what the host says */
	bool have;			  /* the host has said something */
	struct element *held[LINE_BATCH]; /* of tx, oldest first: not sent yet */
	unsigned nheld;
	size_t skip;	/* bytes of the oldest buffer that were sent before its queue was stopped */
	bool loaded;	/* skip comes with a guest from another process */
	unsigned batch; /* buffers for the next read */
	struct timer soon;
};

/* For port_ops. The owner of the port is found by the caller. */
void line_data(struct line *l);
void line_room(struct line *l);

void line_start(struct line *l, struct virtqueue *q, bool rx);
void line_stop(struct line *l, struct virtqueue *q);
/* The guest rebooted. */
void line_reset(struct line *l);
/* queue_spec.ready of either queue. */
void line_ready(struct line *l, struct virtqueue *q);
/* Whether the guest listens. */
void line_open(struct line *l, bool open);
/*
 * It listens a moment after its queues began to run, or as soon as it says something: while Linux sets a port up, it throws away what
 * comes in, and without control messages nobody tells us when it is done.
 */
void line_open_soon(struct line *l);
/* Another host end, or none; the old one is the caller's to close. What it did not take of the oldest buffer is lost. */
void line_set_port(struct line *l, struct port *p);
/* Nothing that the guest said waits in the ring or with us. */
bool line_drained(const struct line *l);

#endif
