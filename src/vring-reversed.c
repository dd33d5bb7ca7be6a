/* SPDX-License-Identifier: MIT */
/*
 * A ring with the roles exchanged (device.reversed): the guest is its device, Linux's vringh, and we are its driver. Always
 * split. The table announces the guest's buffers until the ring begins: descriptor i has address and length of buffer i.
 *
 * A ring that goes on where it came to rest keeps its requests; any other begins empty at q->base.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "le.h"
#include "vring.h"

static void point(struct vring_reversed *r)
{
	r->driver.desc = r->desc;
	r->driver.avail = r->avail;
	r->driver.used = r->used;
}

static int reversed_map(struct virtqueue *q, const struct guestmem *mem)
{
	struct vring_reversed *r = q->reversed ? q->reversed : calloc(1, sizeof(*r));
	struct vring_driver_layout l;
	void *desc, *avail, *used;

	if (!r)
		return -ENOMEM;
	q->reversed = r;
	vring_driver_layout(false, (uint16_t)q->num, &l);
	desc = guestmem_user(mem, q->addr.desc, l.desc);
	avail = guestmem_user(mem, q->addr.avail, l.driver);
	used = guestmem_user(mem, q->addr.used, l.device);
	if (!desc || !avail || !used)
		return -EFAULT;
	if ((uintptr_t)desc % 16 || (uintptr_t)avail % 2 || (uintptr_t)used % 4)
		return -EFAULT;
	r->desc = desc;
	r->avail = avail;
	r->used = used;
	r->logged = guestmem_reverse(mem, desc, &r->desc_gpa) && guestmem_reverse(mem, avail, &r->avail_gpa);
	if (r->buffers)
		point(r);
	return 0;
}

void vring_reversed_free(struct virtqueue *q)
{
	if (!q->reversed)
		return;
	vring_driver_destroy(&q->reversed->driver);
	free(q->reversed->buffers);
	free(q->reversed);
	q->reversed = NULL;
}

static void log_ring(struct virtqueue *q)
{
	const struct vring_reversed *r = q->reversed;

	if (likely(!q->log) || !q->log_all || !r->logged)
		return;
	dirtylog_mark(q->log, r->desc_gpa, 16 * (uint64_t)q->num);
	dirtylog_mark(q->log, r->avail_gpa, 6 + 2 * (uint64_t)q->num);
}

/* Has its requests from before the rest, and the same ring. */
static bool goes_on(const struct virtqueue *q)
{
	const struct vring_reversed *r = q->reversed;

	return r->buffers && q->has_rested && q->base == q->rest_base && r->driver.num == q->num &&
	       r->driver.published != r->first && r->driver.mode.event_idx == q->event_idx;
}

static int reversed_begin(struct virtqueue *q)
{
	struct vring_reversed *r = q->reversed;
	struct vring_driver_mode mode = {.event_idx = q->event_idx};
	uint32_t i;
	int err;

	r->continues = goes_on(q);
	if (r->continues) {
		point(r);
		return 0;
	}
	vring_driver_destroy(&r->driver);
	free(r->buffers);
	r->buffers = calloc(q->num, sizeof(*r->buffers));
	if (!r->buffers)
		return -ENOMEM;
	for (i = 0; i < q->num; i++) {
		const uint8_t *d = (const uint8_t *)r->desc + i * (size_t)16;

		r->buffers[i].addr = le64_load(d);
		r->buffers[i].len = (uint32_t)le64_load(d + 8);
	}
	r->first = (uint16_t)q->base;
	err = vring_driver_init(
		&r->driver, &mode, (uint16_t)q->num, (uint16_t)q->base, r->desc, r->avail, r->used);
	if (err) {
		free(r->buffers);
		r->buffers = NULL;
		return err;
	}
	log_ring(q);
	return 0;
}

static unsigned reversed_pop(struct virtqueue *q, struct element **e, unsigned max)
{
	(void)q;
	(void)e;
	(void)max;
	return 0;
}

static struct vring_slot *reversed_resubmit(struct virtqueue *q)
{
	(void)q;
	return NULL;
}

static bool reversed_pending(struct virtqueue *q)
{
	return vring_driver_pending(&q->reversed->driver);
}

static void reversed_arm(struct virtqueue *q)
{
	vring_driver_arm(&q->reversed->driver);
	log_ring(q);
}

static void reversed_disarm(struct virtqueue *q)
{
	vring_driver_disarm(&q->reversed->driver);
	log_ring(q);
}

static void reversed_publish(struct virtqueue *q, struct vring_slot **slots, unsigned n)
{
	(void)q;
	(void)slots;
	(void)n;
}

static bool reversed_wants_call(struct virtqueue *q)
{
	(void)q;
	return false;
}

static void reversed_rewind(struct virtqueue *q, const struct vring_slot *slot)
{
	(void)q;
	(void)slot;
}

static uint32_t reversed_base(const struct virtqueue *q)
{
	return q->reversed->driver.published;
}

const struct vring_ops vring_reversed_ops = {
	.map = reversed_map,
	.pop = reversed_pop,
	.pending = reversed_pending,
	.arm = reversed_arm,
	.disarm = reversed_disarm,
	.publish = reversed_publish,
	.wants_call = reversed_wants_call,
	.rewind = reversed_rewind,
	.begin = reversed_begin,
	.resubmit = reversed_resubmit,
	.base = reversed_base,
};

/* What a device calls */

struct vring_driver *virtqueue_driver(struct virtqueue *q)
{
	q->saw_empty = true; /* kicks may go on */
	return q->phase == VRING_RUNNING && !q->broken ? &q->reversed->driver : NULL;
}

const struct vring_driver_buf *virtqueue_announced(struct virtqueue *q, bool *continues)
{
	*continues = q->reversed->continues;
	return q->reversed->buffers;
}

void virtqueue_show(struct virtqueue *q)
{
	struct vring_driver *d = &q->reversed->driver;

	if (vring_driver_publish(d))
		vring_call(q);
	log_ring(q);
}
