/* SPDX-License-Identifier: MIT */
/* What can be seen of a queue from outside: a copy, taken in the queue's loop. For the control socket. */
#ifndef VRING_INFO_H
#define VRING_INFO_H

#include "vring.h"

struct vring_info {
	unsigned index, size;
	const char *name;
	enum vring_phase phase;
	bool started, enabled, packed, event_idx, broken, polled, inband, has_kick, has_call;
	/* Split: free-running indices. Packed: ring positions, the wrap counters beside them. */
	uint16_t taken, made, used; /* next to take; where the driver was last seen (split); next to use */
	bool taken_wrap, used_wrap;
	unsigned out, pending_resubmit;
	uint64_t oldest_ns; /* age of the oldest buffer in flight; 0: none, or ages are not taken */
	bool timed;
	struct virtqueue_stats stats;
	struct stats_histogram latency;
};

/* Control thread; waits for the queue's loop. */
void vring_info(struct virtqueue *q, struct vring_info *out);

#endif
