/* SPDX-License-Identifier: MIT */
/*
 * Messages about rings. A ring runs when it is started (a kick came, or a place to look for kicks), enabled, and has a
 * size, addresses and memory; whatever message completes that starts it. It is brought to rest by GET_VRING_BASE, by
 * SET_VRING_ENABLE 0 and by a reset, and the answer waits until it does.
 */
#include <errno.h>

#include "session.h"

enum { VRING_INDEX_MASK = 0xff, VRING_NOFD = 0x100 };
enum { VRING_LOG = 1 };

static struct virtqueue *ring(struct session *s, uint32_t index)
{
	struct virtqueue *q = s->host->queue(s->host, index);

	if (!q) {
		log_guest_error("queue %u: does not exist, this device has %u", index, s->b->num_queues);
		return NULL;
	}
	if (!q->configured) {
		q->configured = true;
		q->enabled = s->enable_all;
		q->inband = s->protocol & BIT(PROTOCOL_INBAND_NOTIFICATIONS);
	}
	return q;
}

static int ring_update(struct session *s, struct virtqueue *q)
{
	bool enabled = q->enabled || (s->b->dev->enable_on_kick && q->started && !s->enable_told);
	unsigned num = 0;
	void *area;

	if (!q->started || !enabled || !q->num || !q->has_addr || !s->mem->n || q->phase != VRING_RESTING)
		return 0;
	if (s->bad_rings) {
		log_guest_error("queue %u: the driver uses a ring format that was not offered", q->index);
		return -EPROTO;
	}
	q->features = s->features;
	area = inflight_queue(&s->inflight, q->index, q->features & BIT(FEATURE_RING_PACKED), &num);
	return virtqueue_start(q, s->mem, s->log, area, num);
}

int session_update_rings(struct session *s)
{
	int err = 0;
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++) {
		struct virtqueue *q = s->host->queues[i];
		int e = q && q->configured ? ring_update(s, q) : 0;

		err = err ? err : e;
	}
	return err;
}

int session_set_vring_num(struct session *s, struct message *m)
{
	struct virtqueue *q = ring(s, m->state.index);
	uint32_t num = m->state.num;

	if (!q)
		return -EINVAL;
	if (q->phase != VRING_RESTING)
		return q->num == num ? 0 : -EBUSY;
	if (!num || num > VRING_MAX_SIZE) {
		log_guest_error("queue %u: a ring of %u descriptors", q->index, num);
		return -EINVAL;
	}
	if ((num & (num - 1)) && !(s->features & BIT(FEATURE_RING_PACKED))) {
		log_guest_error("queue %u: a split ring of %u descriptors, no power of two", q->index, num);
		return -EINVAL;
	}
	q->num = num;
	return ring_update(s, q);
}

int session_set_vring_addr(struct session *s, struct message *m)
{
	struct virtqueue *q = ring(s, m->addr.index);
	int err;

	if (!q)
		return -EINVAL;
	if (m->addr.flags & ~(uint32_t)VRING_LOG)
		return -EINVAL;
	err = virtqueue_set_addr(q, &(struct ring_addr){.desc = m->addr.desc,
					    .avail = m->addr.avail,
					    .used = m->addr.used,
					    .log = m->addr.log,
					    .log_used = m->addr.flags & VRING_LOG});
	return err ? err : ring_update(s, q);
}

int session_set_vring_base(struct session *s, struct message *m)
{
	struct virtqueue *q = ring(s, m->state.index);

	if (!q)
		return -EINVAL;
	if (q->phase != VRING_RESTING)
		return -EBUSY;
	q->base = m->state.num;
	return 0;
}

static int reply_base(struct session *s, struct virtqueue *q)
{
	struct vring_state state = {.index = q->index, .num = q->base};
	int none = -1;

	virtqueue_set_kick(q, &none, false);
	q->started = false;
	return session_reply(s, &state, sizeof(state), -1);
}

static void base_rested(struct session *s)
{
	session_finish(s, reply_base(s, s->rest_queue));
}

int session_get_vring_base(struct session *s, struct message *m)
{
	struct virtqueue *q = ring(s, m->state.index);

	if (!q)
		return -EINVAL;
	if (q->phase == VRING_RESTING)
		return reply_base(s, q);
	s->rest_queue = q;
	session_stop_queue(s, q, false);
	session_wait_rest(s, base_rested);
	return SESSION_PENDING;
}

/* The ring of a message with index and "no fd" flag in a u64; its fd, or -1, in *fd. NULL: the message is wrong. */
static struct virtqueue *ring_fd(struct session *s, struct message *m, int *fd)
{
	*fd = -1;
	if (m->u64 & ~(uint64_t)(VRING_INDEX_MASK | VRING_NOFD))
		return NULL;
	if (!(m->u64 & VRING_NOFD)) {
		*fd = message_take_fd(m);
		if (*fd < 0) {
			log_guest_error("%s: no descriptor came with it", message_name(m->h.request));
			return NULL;
		}
	}
	return ring(s, m->u64 & VRING_INDEX_MASK);
}

int session_set_vring_kick(struct session *s, struct message *m)
{
	CLEANUP_FD int fd = -1;
	struct virtqueue *q = ring_fd(s, m, &fd);
	int err;

	if (!q)
		return -EINVAL;
	q->started = true;
	err = virtqueue_set_kick(q, &fd, fd < 0);
	return err ? err : ring_update(s, q);
}

int session_set_vring_call(struct session *s, struct message *m)
{
	CLEANUP_FD int fd = -1;
	struct virtqueue *q = ring_fd(s, m, &fd);

	if (!q)
		return -EINVAL;
	virtqueue_set_call(q, &fd);
	return 0;
}

int session_set_vring_err(struct session *s, struct message *m)
{
	CLEANUP_FD int fd = -1;
	struct virtqueue *q = ring_fd(s, m, &fd);

	if (!q)
		return -EINVAL;
	virtqueue_set_err(q, &fd);
	return 0;
}

static void disable_rested(struct session *s)
{
	session_finish(s, 0);
}

int session_set_vring_enable(struct session *s, struct message *m)
{
	struct virtqueue *q;

	if (m->state.num > 1)
		return -EINVAL;
	q = ring(s, m->state.index);
	if (!q)
		return -EINVAL;
	s->enable_told = true;
	q->enabled = m->state.num;
	if (q->enabled)
		return ring_update(s, q);
	if (q->phase == VRING_RESTING)
		return 0;
	session_stop_queue(s, q, false);
	session_wait_rest(s, disable_rested);
	return SESSION_PENDING;
}

int session_vring_kick(struct session *s, struct message *m)
{
	struct virtqueue *q;
	int err;

	if (!(s->protocol & BIT(PROTOCOL_INBAND_NOTIFICATIONS)))
		return -EPROTO;
	q = ring(s, m->state.index);
	if (!q)
		return -EINVAL;
	q->started = true;
	err = ring_update(s, q);
	if (!err && q->phase == VRING_RUNNING)
		virtqueue_kick(q);
	return err;
}

static void stop_all(struct session *s, void (*rested)(struct session *s))
{
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i])
			session_stop_queue(s, s->host->queues[i], false);
	session_wait_rest(s, rested);
}

/* Deprecated, and back-ends that dropped state at it caused trouble: it only disables the rings. */
static void owner_rested(struct session *s)
{
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i])
			s->host->queues[i]->enabled = false;
	session_finish(s, 0);
}

int session_reset_owner(struct session *s, struct message *m)
{
	(void)m;
	stop_all(s, owner_rested);
	return SESSION_PENDING;
}

/* Memory, protocol features, back-channel, call and error descriptors stay: front-ends do not send them again. */
static void device_rested(struct session *s)
{
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++) {
		struct virtqueue *q = s->host->queues[i];

		if (!q)
			continue;
		virtqueue_reset(q, true);
		q->inband = (s->protocol & BIT(PROTOCOL_INBAND_NOTIFICATIONS)) && q->call_fd < 0;
	}
	s->status = 0;
	s->enable_all = false;
	s->enable_told = false;
	if (s->b->dev->reset)
		s->b->dev->reset(s->b);
	session_finish(s, 0);
}

int session_reset_device(struct session *s, struct message *m)
{
	(void)m;
	stop_all(s, device_rested);
	return SESSION_PENDING;
}
