/* SPDX-License-Identifier: MIT */
/*
 * What the two directions of a queue pair share: memory for frames that are not in guest memory, rate limits, and buffers that go
 * back to the driver at once or coalesced. In the pair's loop.
 */
#ifndef NET_QUEUE_H
#define NET_QUEUE_H

#include "net-host.h"
#include "net-offload.h"

/* A frame in one piece and what is made of it. */
struct net_cuttings {
	uint8_t frame[NET_MAX_FRAME + 2];
	uint8_t out[NET_SCRATCH];
	struct iovec iov[NET_SEGMENTS];
	struct net_packet packets[NET_SEGMENTS];
	unsigned first, n; /* of packets: the host had no room for these yet */
};

struct net_scratch {
	uint8_t frame[NET_MAX_FRAME + 2]; /* read, for any pair */
	uint8_t spill[NET_MAX_FRAME + 2];
	struct net_cuttings rx, tx;
};

/* False: nothing may go now; the bucket's timer tells when it may. Frames are taken from it after they went. */
bool net_bucket_ready(struct net_bucket *b, struct loop *loop);
void net_bucket_take(struct net_bucket *b, size_t len);

/* Gives back the n buffers of one received frame (not coalesced: of several), or n that were sent. */
void net_rx_done(struct net_pair *p, struct element *const *e, unsigned n);
void net_tx_done(struct net_pair *p, struct element *const *e, unsigned n);
/* What is held back goes now. */
void net_rx_flush(struct net_pair *p);
void net_tx_flush(struct net_pair *p);

/* Copies a frame, at most max bytes; how many. */
size_t net_gather(uint8_t *dst, size_t max, const struct net_packet *packet);

#endif
