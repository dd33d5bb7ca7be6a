/* SPDX-License-Identifier: MIT */
/* A queue seen from outside; see vring-info.h. */
#include "vring-info.h"

#include <string.h>

struct info_call {
	struct virtqueue *q;
	struct vring_info *out;
};

static uint64_t oldest_age(struct virtqueue *q)
{
	uint64_t oldest = UINT64_MAX, now = time_ns();
	unsigned i, found = 0;

	if (!q->latency || !q->slots)
		return 0;
	for (i = 0; i < q->num && found < q->out + q->nstaged; i++) {
		struct vring_slot *s = vring_slot(q, i);

		if (!s->busy)
			continue;
		found++;
		oldest = MIN(oldest, s->since);
	}
	return found && now > oldest ? now - oldest : 0;
}

static void info_indices(struct virtqueue *q, struct vring_info *out)
{
	if (q->phase == VRING_RESTING) {
		out->taken = (uint16_t)(q->packed ? q->base & 0x7fff : q->base);
		out->taken_wrap = q->packed && q->base & 0x8000;
		out->made = out->used = out->taken;
		if (q->packed) {
			out->used = (uint16_t)(q->base >> 16 & 0x7fff);
			out->used_wrap = q->base >> 31;
		}
	} else if (q->reverse) {
		out->taken = out->made = q->reversed->driver.published;
		out->used = q->reversed->driver.next_used;
	} else if (q->packed) {
		out->taken = q->packed_.next_avail;
		out->taken_wrap = q->packed_.avail_wrap;
		out->used = q->packed_.next_used;
		out->used_wrap = q->packed_.used_wrap;
	} else {
		out->taken = q->split.last_avail;
		out->made = q->split.avail_idx;
		out->used = q->split.used_idx;
	}
}

static void info_call(void *arg)
{
	struct info_call *c = arg;
	struct virtqueue *q = c->q;
	struct vring_info *out = c->out;

	memset(out, 0, sizeof(*out));
	out->index = q->index;
	out->size = q->num;
	out->name = q->spec->name;
	out->phase = q->phase;
	out->started = q->started;
	out->enabled = q->enabled;
	out->packed = q->packed;
	out->event_idx = q->event_idx;
	out->broken = q->broken;
	out->polled = q->polled;
	out->inband = q->inband;
	out->has_kick = q->kick_fd >= 0;
	out->has_call = q->call_fd >= 0;
	info_indices(q, out);
	if (q->phase != VRING_RESTING) {
		out->out = q->out;
		out->pending_resubmit = q->nresubmit - q->resubmit_next;
		out->oldest_ns = oldest_age(q);
	}
	out->stats = q->stats;
	out->timed = q->latency;
	if (q->latency)
		out->latency = *q->latency;
}

void vring_info(struct virtqueue *q, struct vring_info *out)
{
	struct info_call c = {.q = q, .out = out};

	loop_call(q->loop, info_call, &c);
}
