/* SPDX-License-Identifier: MIT */
/*
 * What the session does to a queue: start, stop, and changes while it runs. Each is a synchronous call into the queue's
 * loop, so the data path needs no locks.
 */
#include "vring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "log.h"

/* Start and stop */

static void vring_poller_update(struct virtqueue *q)
{
	bool want = q->phase == VRING_RUNNING && q->spec->ready;

	if (q->polling)
		loop_poller_del(q->loop, &q->poller);
	q->polling = want;
	q->poller.always = q->polled;
	if (want)
		loop_poller_add(q->loop, &q->poller);
}

static void slots_free(struct virtqueue *q)
{
	struct segs *s;

	while ((s = q->free_segs)) {
		q->free_segs = s->next;
		free(s);
	}
	free(q->slots);
	free(q->staged);
	free(q->order);
	free(q->resubmit);
	q->slots = NULL;
	q->staged = q->order = NULL;
	q->resubmit = NULL;
	if (q->packed) {
		free(q->packed_.chain_num);
		free(q->packed_.free_next);
		free(q->packed_.free_slots);
		q->packed_.chain_num = q->packed_.free_next = q->packed_.free_slots = NULL;
	}
}

static int slots_alloc(struct virtqueue *q)
{
	size_t head = ALIGN_UP(sizeof(struct vring_slot), 16);
	size_t order = 1;
	unsigned i;

	while (order < q->num)
		order *= 2;
	q->slot_size = ALIGN_UP(head + q->spec->req_size, 64);
	q->slots = aligned_alloc(64, q->slot_size * q->num);
	q->staged = calloc(q->num, sizeof(*q->staged));
	q->order = calloc(order, sizeof(*q->order));
	q->resubmit = calloc(q->num, sizeof(*q->resubmit));
	if (!q->slots || !q->staged || !q->order || !q->resubmit) {
		slots_free(q);
		return log_errno(ENOMEM, "queue %u of %" PRIu32, q->index, q->num);
	}
	q->order_mask = order - 1;
	for (i = 0; i < q->num; i++) {
		struct vring_slot *s = vring_slot(q, i);

		memset(s, 0, sizeof(*s));
		s->e.queue = q;
		s->index = (uint16_t)i;
		s->iov = s->inline_iov;
		s->gpa = s->inline_gpa;
		s->e.req = q->spec->req_size ? (char *)s + head : NULL;
	}
	return 0;
}

struct start_call {
	struct virtqueue *q;
	struct guestmem *mem;
	struct dirtylog *log;
	int err;
};

static void rest(struct virtqueue *q)
{
	q->phase = VRING_RESTING;
	vring_poller_update(q);
	loop_cancel(q->loop, &q->run);
	loop_cancel(q->loop, &q->flush);
	watch_del(&q->kick);
	slots_free(q);
	if (q->view) {
		vring_view_drop(q->view);
		q->view = NULL;
	}
	dirtylog_unref(q->log);
	q->log = NULL;
}

static int start(struct virtqueue *q, struct guestmem *mem, struct dirtylog *log)
{
	int err;

	q->packed = (q->features & BIT(34)) && !q->reverse;
	q->event_idx = q->features & BIT(29);
	q->in_order = q->features & BIT(35);
	q->log_all = q->features & BIT(26);
	q->ops = q->reverse ? &vring_reversed_ops : q->packed ? &vring_packed_ops : &vring_split_ops;
	q->broken = q->discard = q->armed = q->starved = false;
	q->saw_empty = true;
	q->staged_bytes = 0;
	q->out = q->nlong = q->nstaged = q->nunpopped = q->nheld = q->nresubmit = q->resubmit_next = q->hint =
		0;
	q->seq = q->order_next = q->inflight_counter = 0;
	memset(&q->packed_, 0, sizeof(q->packed_));
	err = slots_alloc(q);
	if (err)
		return err;
	q->view = vring_view_new(mem);
	q->log = log ? dirtylog_ref(log) : NULL;
	err = q->view ? q->ops->map(q, mem) : -ENOMEM;
	if (!err)
		err = q->ops->begin(q);
	if (err) {
		log_guest_errno(-err, "queue %u: ring at 0x%" PRIx64, q->index, q->addr.desc);
		return err;
	}
	q->phase = VRING_RUNNING;
	if (q->kick_fd >= 0) {
		err = watch_add(q->loop, &q->kick, q->kick_fd, EPOLLIN);
		if (err)
			return log_guest_errno(-err, "queue %u: kick descriptor", q->index);
	}
	q->continues = q->has_rested && q->base == q->rest_base;
	err = q->on_start ? q->on_start(q) : 0;
	if (err)
		return err;
	if (q->resumed)
		vring_call(q); /* the last process may have died between used index and interrupt */
	vring_poller_update(q);
	loop_defer(q->loop, &q->run);
	return 0;
}

static void start_call(void *arg)
{
	struct start_call *c = arg;

	c->err = start(c->q, c->mem, c->log);
	if (c->err)
		rest(c->q);
}

int virtqueue_start(struct virtqueue *q, struct guestmem *mem, struct dirtylog *log, void *inflight,
	unsigned inflight_num)
{
	struct start_call c = {.q = q, .mem = mem, .log = log};

	if (inflight && inflight_num < q->num) { /* half a list would be worse than none */
		log_warn("queue %u: the in-flight area has room for %u of %" PRIu32
			 " descriptors, it is not used",
			q->index, inflight_num, q->num);
		inflight = NULL;
	}
	q->inflight = inflight;
	q->inflight_num = inflight ? q->num : 0;
	loop_call(q->loop, start_call, &c);
	return c.err;
}

/*
 * Buffers given back while draining. The youngest go back into the ring; one with a younger buffer used
 * can't, so it is returned empty, unless the in-flight area brings it back at the next start (which would not be in
 * order).
 */
static void unpopped_settle(struct virtqueue *q)
{
	unsigned i, lost = 0;

	vring_rewind(q);
	for (i = 0; q->nunpopped && i < q->num; i++) {
		struct vring_slot *s = vring_slot(q, i);

		if (!s->busy || !s->unpopped)
			continue;
		q->nunpopped--;
		if (s->tracked && !q->in_order) {
			vring_slot_release(q, s);
			continue;
		}
		lost++;
		s->unpopped = false;
		s->done = true;
		s->used_len = 0;
		if (q->in_order)
			q->nheld++;
		else
			q->staged[q->nstaged++] = s;
	}
	if (lost)
		log_warn("queue %u: %u buffers are returned empty", q->index, lost);
	if (q->in_order)
		vring_stage_in_order(q);
	vring_publish(q);
}

static void drained_post(struct post *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, drained_post);

	q->drained(q, q->drained_arg);
}

void vring_drain_finish(struct virtqueue *q)
{
	if (q->nunpopped)
		unpopped_settle(q);
	q->base = q->ops->base(q);
	if (!q->discard) {
		q->ops->arm(q); /* whoever goes on may be started by a kick */
		q->rest_base = q->base;
		q->has_rested = true;
	}
	rest(q);
	loop_post(q->control, &q->drained_post);
}

/* From now on nothing of this ring is touched: what was given back already, and is held back, goes at once. */
static void discard(struct virtqueue *q)
{
	unsigned i;

	q->discard = true;
	vring_publish(q);
	for (i = 0; i < q->num; i++) {
		struct vring_slot *s = vring_slot(q, i);

		if (!s->busy || !(s->unpopped || s->done))
			continue;
		if (s->unpopped)
			q->nunpopped--;
		vring_slot_release(q, s);
	}
	q->nheld = 0;
	loop_defer(q->loop, &q->flush);
}

struct stop_call {
	struct virtqueue *q;
	bool discard;
};

static void stop_call(void *arg)
{
	struct stop_call *c = arg;
	struct virtqueue *q = c->q;
	bool first = q->phase == VRING_RUNNING;

	if (q->phase == VRING_RESTING) {
		loop_post(q->control, &q->drained_post);
		return;
	}
	if (first) {
		watch_del(&q->kick);
		loop_cancel(q->loop, &q->run);
	}
	vring_publish(q);
	q->phase = VRING_DRAINING;
	vring_poller_update(q);
	if (c->discard && !q->discard)
		discard(q);
	if (first && q->on_stop)
		q->on_stop(q);
	vring_flush(&q->flush);
}

void virtqueue_stop(
	struct virtqueue *q, bool discard, void (*drained)(struct virtqueue *q, void *arg), void *arg)
{
	struct stop_call c = {.q = q, .discard = discard};

	q->drained = drained;
	q->drained_arg = arg;
	loop_call(q->loop, stop_call, &c);
}

/* Changes of a queue that may be running */

struct set_call {
	struct virtqueue *q;
	struct guestmem *mem;
	struct dirtylog *log;
	struct ring_addr addr;
	bool log_all, polled;
	int *fd;
	int err;
};

static void set_memory(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;
	struct memview *v, *old = q->view;

	if (q->phase == VRING_RESTING)
		return;
	v = vring_view_new(c->mem);
	if (!v) {
		virtqueue_break(q, "no memory for a memory map");
		return;
	}
	q->view = v;
	q->hint = 0;
	if (old->out) {
		old->next = q->old_views;
		q->old_views = old;
	} else {
		vring_view_drop(old);
	}
	if (q->ops->map(q, c->mem) < 0) {
		discard(q);
		virtqueue_break(q, "the ring lost its memory");
	}
}

void virtqueue_set_memory(struct virtqueue *q, struct guestmem *mem)
{
	struct set_call c = {.q = q, .mem = mem};

	loop_call(q->loop, set_memory, &c);
}

static void set_log(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;

	if (q->phase == VRING_RESTING)
		return;
	dirtylog_unref(q->log);
	q->log = c->log ? dirtylog_ref(c->log) : NULL;
	q->log_all = c->log_all;
}

void virtqueue_set_log(struct virtqueue *q, struct dirtylog *log, bool log_all)
{
	struct set_call c = {.q = q, .log = log, .log_all = log_all};

	loop_call(q->loop, set_log, &c);
}

static void set_addr(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;
	struct ring_addr old = q->addr;

	q->addr = c->addr;
	if (q->phase == VRING_RUNNING)
		c->err = q->ops->map(q, q->view->mem);
	if (c->err)
		q->addr = old;
	else
		q->has_addr = true;
}

int virtqueue_set_addr(struct virtqueue *q, const struct ring_addr *addr)
{
	struct set_call c = {.q = q, .addr = *addr};

	loop_call(q->loop, set_addr, &c);
	return c.err;
}

static void nonblock(int fd)
{
	int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void set_kick(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;

	watch_del(&q->kick);
	fd_close(&q->kick_fd);
	q->kick_fd = fd_take(c->fd);
	q->polled = c->polled;
	if (q->phase != VRING_RUNNING)
		return;
	vring_poller_update(q);
	if (q->kick_fd >= 0)
		c->err = watch_add(q->loop, &q->kick, q->kick_fd, EPOLLIN);
	loop_defer(q->loop, &q->run);
}

int virtqueue_set_kick(struct virtqueue *q, int *fd, bool polled)
{
	struct set_call c = {.q = q, .fd = fd, .polled = polled};

	nonblock(*fd);
	loop_call(q->loop, set_kick, &c);
	return c.err;
}

/*
 * The messages and the kicks come on different ways, and a kick may be faster: requests that came after this message may have
 * been answered already, with an interrupt to the descriptor from before. Nobody looks at that one any more (QEMU puts one of its
 * own in place of a masked interrupt, and discards what it has when the guest starts), so the new one says it again.
 */
static void set_call_fd(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;

	fd_close(&q->call_fd);
	q->call_fd = fd_take(c->fd);
	q->inband = false;
	if (q->call_fd < 0)
		return;
	if (q->stats.calls != q->calls_told)
		vring_call(q);
	q->calls_told = q->stats.calls;
}

void virtqueue_set_call(struct virtqueue *q, int *fd)
{
	struct set_call c = {.q = q, .fd = fd};

	nonblock(*fd);
	loop_call(q->loop, set_call_fd, &c);
}

static void set_err_fd(void *arg)
{
	struct set_call *c = arg;

	fd_close(&c->q->err_fd);
	c->q->err_fd = fd_take(c->fd);
}

void virtqueue_set_err(struct virtqueue *q, int *fd)
{
	struct set_call c = {.q = q, .fd = fd};

	nonblock(*fd);
	loop_call(q->loop, set_err_fd, &c);
}

static void kick_call(void *arg)
{
	struct virtqueue *q = arg;

	q->stats.kicks++;
	virtqueue_wake(q);
}

void virtqueue_kick(struct virtqueue *q)
{
	loop_call(q->loop, kick_call, q);
}

static void base_call(void *arg)
{
	struct virtqueue *q = arg;

	if (q->phase == VRING_RUNNING)
		q->base = q->ops->base(q);
}

uint32_t virtqueue_base(struct virtqueue *q)
{
	loop_call(q->loop, base_call, q);
	return q->base;
}

/* Life of the object */

int virtqueue_new(struct virtqueue **out, struct backend *b, const struct queue_spec *spec, unsigned index,
	size_t state_size, struct loop *loop, struct loop *control)
{
	struct virtqueue *q = calloc(1, sizeof(*q));
	void *state = calloc(1, state_size + 1);

	if (!q || !state) {
		free(q);
		free(state);
		return -ENOMEM;
	}
	q->backend = b;
	q->spec = spec;
	q->index = index;
	q->socket = -1;
	q->state = state;
	q->state_size = state_size;
	q->loop = loop;
	q->control = control;
	q->kick_fd = q->call_fd = q->err_fd = q->kick.fd = -1;
	q->kick.ready = vring_kick_ready;
	q->run.run = vring_run;
	q->flush.run = vring_flush;
	q->poller.poll = vring_poll;
	q->poller.rest = vring_rest;
	q->drained_post.run = drained_post;
	*out = q;
	return 0;
}

void virtqueue_reset(struct virtqueue *q, bool keep_fds)
{
	int none = -1;

	virtqueue_set_kick(q, &none, false);
	vring_reversed_free(q);
	if (!keep_fds) {
		virtqueue_set_call(q, &none);
		virtqueue_set_err(q, &none);
		q->configured = false;
	}
	q->num = 0;
	q->base = 0;
	q->calls_told = q->stats.calls;
	q->has_rested = false;
	q->addr = (struct ring_addr){0};
	memset(q->state, 0, q->state_size);
	q->has_addr = q->started = q->enabled = q->inband = false;
}

void virtqueue_free(struct virtqueue *q)
{
	if (!q)
		return;
	virtqueue_reset(q, false);
	free(q->latency);
	free(q->state);
	free(q);
}
