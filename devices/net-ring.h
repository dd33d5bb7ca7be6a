/* SPDX-License-Identifier: MIT */
/*
 * A ring of frames in shared memory, from one process to another that need not trust it (net-switch.c). One writer, one reader.
 *
 * The file has a page for the state and NET_RING_SIZE bytes of records: a header of RING_HEAD bytes and the frame, at multiples
 * of 16. Positions count bytes for ever; a record may go around the end, so that a frame is in one or two pieces. Each side
 * believes only its own position, and checks what the other says.
 */
#ifndef NET_RING_H
#define NET_RING_H

#include "net.h"

enum { NET_RING_SIZE = 4 << 20 };

struct net_ring {
	int fd;			/* -1: none */
	struct ring_shared *at; /* mapped; NULL: not */
	uint8_t *data;
	uint64_t mine;	/* writer: end of what was put; reader: beginning of what was not taken */
	uint64_t seen;	/* writer: up to where the reader was, when looked at; reader: the writer */
	uint64_t shown; /* how far the other side knows of `mine` */
};

/* A new ring, for writing. -errno. */
int net_ring_make(struct net_ring *r);
/* One that another process made, for reading; fd stays the caller's. -EINVAL: it is no such file. */
int net_ring_open(struct net_ring *r, int fd);
void net_ring_close(struct net_ring *r);

/* Writer. False: no room. Not visible before net_ring_publish(), whose value is true when the reader has to be woken. */
bool net_ring_put(struct net_ring *r, const struct net_packet *p);
bool net_ring_publish(struct net_ring *r);
/* Asks to be woken when half of it is free, so that a writer who waits comes back for many frames; true: it is already. */
bool net_ring_wait(struct net_ring *r);

/* Reader. p[] describes the first frames, at most max, in v[0..2 * max): how many; -EPROTO: nonsense, for good. */
int net_ring_peek(struct net_ring *r, struct net_packet *p, struct iovec *v, unsigned max);
/* Takes the first n of these. */
void net_ring_take(struct net_ring *r, const struct net_packet *p, unsigned n);
/* Gives back what was taken; true: the writer waits and has to be woken. */
bool net_ring_released(struct net_ring *r);
/* Asks to be woken when a frame comes; true: one is there already. */
bool net_ring_sleep(struct net_ring *r);

#endif
