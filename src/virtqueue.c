/* SPDX-License-Identifier: MIT */
/*
 * What a device calls, and a queue's turn: pop, push, publish, kicks and interrupts. The theory is in vring.h.
 */
#include "vring.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

/* What a device calls */

static inline void cursor_begin(struct cursor *c, const struct iovec *iov, unsigned n, size_t len)
{
	c->iov = iov;
	c->n = n;
	c->off = 0;
	c->left = len;
	c->done = 0;
	c->up = NULL;
	c->split = false;
}

/* In a pop too: the device may pop on its own account, and then what we asked the driver for is out of date. */
static inline void kicks_off(struct virtqueue *q)
{
	if (likely(!q->armed))
		return;
	q->armed = false;
	q->ops->disarm(q);
}

/* How many of max may be taken now. */
static inline unsigned pop_room(struct virtqueue *q, unsigned max)
{
	if (unlikely(q->phase != VRING_RUNNING || q->broken))
		return 0;
	if (unlikely(!q->budget)) {
		loop_again(q->loop, &q->run);
		return 0;
	}
	if (unlikely(q->nlong >= VRING_MAX_LONG)) {
		q->starved = true;
		return 0;
	}
	max = MIN(max, q->budget);
	return MIN(max, VRING_MAX_LONG - q->nlong);
}

static unsigned slots_take(struct virtqueue *q, struct element **e, unsigned max)
{
	struct vring_slot *s;

	if (likely(q->resubmit_next == q->nresubmit))
		return q->ops->pop(q, e, max);
	s = q->ops->resubmit(q);
	if (!s)
		return 0;
	e[0] = &s->e;
	return 1;
}

static inline void slot_hand_out(struct virtqueue *q, struct vring_slot *s)
{
	__builtin_prefetch(s->iov->iov_base); /* what the device looks at first */
	cursor_begin(&s->e.rd, s->iov, s->nrd, s->rd_len);
	cursor_begin(&s->e.wr, s->iov + s->nrd, s->nwr, s->wr_len);
	if (s->e.req)
		memset(s->e.req, 0, q->spec->req_zero ? q->spec->req_zero : q->spec->req_size);
	s->view->out++;
	s->seq = q->seq++;
	q->order[s->seq & q->order_mask] = s;
	if (unlikely(s->e.fault))
		q->stats.faults++;
	if (q->latency)
		s->since = loop_now(q->loop);
}

static inline unsigned take(struct virtqueue *q, struct element **e, unsigned max)
{
	unsigned i, n;

	max = pop_room(q, max);
	if (unlikely(!max))
		return 0;
	kicks_off(q);
	if (q->nstaged >= VRING_BATCH || q->staged_bytes >= VRING_BATCH_BYTES)
		vring_publish(q);
	n = slots_take(q, e, max);
	q->saw_empty |= !n;
	for (i = 0; i < n; i++)
		slot_hand_out(q, container_of(e[i], struct vring_slot, e));
	q->out += n;
	q->budget -= n;
	q->stats.popped += n;
	return n;
}

unsigned virtqueue_pop_many(struct virtqueue *q, struct element **e, unsigned max)
{
	return take(q, e, max);
}

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct element *e;

	return take(q, &e, 1) ? e : NULL;
}

/* Marks what the device wrote. A device that split the buffer may have left gaps: then all of it counts. */
static void log_written(struct virtqueue *q, const struct vring_slot *s)
{
	uint64_t left = s->e.wr.split || s->e.wr.bad ? s->wr_len : s->e.wr.done;
	unsigned i;

	for (i = s->nrd; left && i < (unsigned)s->nrd + s->nwr; i++) {
		uint64_t n = MIN(left, s->iov[i].iov_len);

		dirtylog_mark(q->log, s->gpa[i], n);
		left -= n;
	}
}

static inline void slot_stage(struct virtqueue *q, struct vring_slot *s)
{
	q->staged[q->nstaged++] = s;
	q->staged_bytes += s->rd_len + s->wr_len;
}

void vring_stage_in_order(struct virtqueue *q)
{
	while (q->order_next != q->seq) {
		struct vring_slot *s = q->order[q->order_next & q->order_mask];

		if (!s->done || s->unpopped)
			return;
		q->order_next++;
		q->nheld--;
		slot_stage(q, s);
	}
}

/* What is out of the ordinary about a queue: each buffer is looked at for itself. */
static void push_carefully(struct virtqueue *q, struct vring_slot *s)
{
	if (q->log_all && q->log)
		log_written(q, s);
	if (q->discard) {
		vring_slot_release(q, s);
	} else if (q->in_order) {
		q->nheld++;
		vring_stage_in_order(q);
	} else {
		slot_stage(q, s);
	}
}

void virtqueue_push_many(struct element *const *e, unsigned n)
{
	struct virtqueue *q = e[0]->queue;
	bool careful = q->log_all || q->discard || q->in_order;
	uint64_t rd = 0, written = 0;
	unsigned i;

	loop_defer(q->loop, &q->flush);
	for (i = 0; i < n; i++) {
		struct vring_slot *s = container_of(e[i], struct vring_slot, e);

		s->used_len = (uint32_t)MIN(s->e.wr.done, (size_t)UINT32_MAX);
		s->done = true;
		rd += s->rd_len;
		written += s->used_len;
		if (unlikely(careful))
			push_carefully(q, s);
		else
			slot_stage(q, s);
	}
	q->stats.pushed += n;
	q->stats.read += rd;
	q->stats.written += written;
}

void virtqueue_push(struct element *e)
{
	virtqueue_push_many(&e, 1);
}

/* While the youngest is one that was given back, its pop is undone. */
void vring_rewind(struct virtqueue *q)
{
	while (q->nunpopped) {
		struct vring_slot *s = q->order[(q->seq - 1) & q->order_mask];

		if (!s->busy || !s->unpopped || s->seq != q->seq - 1)
			return;
		q->seq--;
		q->nunpopped--;
		if (unlikely(s->resubmitted))
			q->resubmit_next--;
		else
			q->ops->rewind(q, s);
		vring_slot_release(q, s);
	}
}

void virtqueue_unpop(struct element *e)
{
	struct vring_slot *s = container_of(e, struct vring_slot, e);
	struct virtqueue *q = e->queue;

	if (q->discard) {
		vring_slot_release(q, s);
		loop_defer(q->loop, &q->flush);
		return;
	}
	s->unpopped = true;
	q->nunpopped++;
	if (q->phase == VRING_RUNNING) {
		if (q->budget < VRING_BUDGET)
			q->budget++; /* else a turn that was given back whole would come again at once */
		vring_rewind(q);
	} else {
		loop_defer(q->loop, &q->flush);
	}
}

bool virtqueue_writable(const struct element *e, unsigned i, uint64_t *gpa, uint64_t *len)
{
	const struct vring_slot *s = container_of(e, struct vring_slot, e);

	if (i >= s->nwr)
		return false;
	*gpa = s->gpa[s->nrd + i];
	*len = s->iov[s->nrd + i].iov_len;
	return true;
}

void virtqueue_wake(void *arg)
{
	struct virtqueue *q = arg;

	if (q->phase == VRING_RUNNING && !q->broken)
		loop_defer(q->loop, &q->run);
}

void virtqueue_refill(struct virtqueue *q)
{
	q->budget = VRING_BUDGET;
}

static void signal_fd(int fd)
{
	uint64_t one = 1;
	ssize_t r;

	do
		r = write(fd, &one, sizeof(one));
	while (r < 0 && errno == EINTR);
	/* EAGAIN: the counter or the socket is full, so the other side has a signal waiting. Gone: its
	 * business. */
}

void virtqueue_break(struct virtqueue *q, const char *fmt, ...)
{
	LOG_ABOUT(q->socket);
	va_list ap;
	char why[160];

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	log_guest_warn("queue %u: %s; the queue stops until it is set up again", q->index, why);
	q->broken = true;
	q->stats.breaks++;
	if (q->err_fd >= 0)
		signal_fd(q->err_fd);
}

void virtqueue_count_error(struct virtqueue *q)
{
	q->stats.errors++;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

void *virtqueue_state(struct virtqueue *q)
{
	return q->state;
}

struct backend *virtqueue_backend(struct virtqueue *q)
{
	return q->backend;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	return q->loop;
}

bool virtqueue_running(const struct virtqueue *q)
{
	return q->phase == VRING_RUNNING;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	return q->continues;
}

bool virtqueue_resumed(const struct virtqueue *q)
{
	return q->resumed;
}

bool virtqueue_pending(struct virtqueue *q)
{
	return q->phase == VRING_RUNNING && !q->broken &&
	       (q->resubmit_next < q->nresubmit || q->ops->pending(q));
}

unsigned virtqueue_outstanding(const struct virtqueue *q)
{
	return q->out;
}

/* A turn */

void vring_call(struct virtqueue *q)
{
	q->stats.calls++;
	if (q->call_fd >= 0)
		signal_fd(q->call_fd);
	else if (q->inband)
		q->call_inband(q);
}

static void take_times(struct virtqueue *q, unsigned n)
{
	uint64_t now = time_ns();

	for (unsigned i = 0; i < n; i++)
		stats_add(q->latency, now - MIN(now, q->staged[i]->since));
}

void vring_publish(struct virtqueue *q)
{
	unsigned i, n = q->nstaged;

	if (!n)
		return;
	q->nstaged = 0;
	q->staged_bytes = 0;
	if (q->latency)
		take_times(q, n);
	if (likely(!q->discard)) {
		q->ops->publish(q, q->staged, n);
		if (q->ops->wants_call(q) || q->always_call)
			vring_call(q);
		else
			q->stats.calls_suppressed++;
	}
	for (i = 0; i < n; i++)
		vring_slot_release(q, q->staged[i]);
}

void vring_flush(struct task *t)
{
	struct virtqueue *q = container_of(t, struct virtqueue, flush);

	vring_publish(q);
	if (unlikely(q->phase == VRING_DRAINING) && q->out == q->nunpopped + q->nheld)
		vring_drain_finish(q);
}

void vring_run(struct task *t)
{
	struct virtqueue *q = container_of(t, struct virtqueue, run);
	LOG_ABOUT(q->socket);

	if (unlikely(q->phase != VRING_RUNNING || q->broken || !q->spec->ready))
		return;
	kicks_off(q);
	q->budget = VRING_BUDGET;
	q->saw_empty = false;
	q->spec->ready(q->backend, q);
	if (unlikely(q->phase != VRING_RUNNING || q->broken))
		return;
	if (!q->budget)
		loop_again(q->loop, &q->run);
}

bool vring_poll(struct poller *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, poller);

	if (!q->saw_empty || !virtqueue_pending(q))
		return false;
	vring_run(&q->run);
	return true;
}

/* Kicks go on only when the loop is about to sleep, and not when the device left buffers in the ring. */
bool vring_rest(struct poller *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, poller);

	if (q->armed || !q->saw_empty || q->polled || q->phase != VRING_RUNNING || q->broken)
		return false;
	q->armed = true;
	q->ops->arm(q);
	if (likely(!q->ops->pending(q)))
		return false;
	loop_defer(q->loop, &q->run);
	return true;
}

void vring_kick_ready(struct watch *w, uint32_t events)
{
	struct virtqueue *q = container_of(w, struct virtqueue, kick);
	uint64_t count;
	ssize_t r = read(w->fd, &count, sizeof(count));

	(void)events;
	if (unlikely(r <= 0)) {
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		log_guest_warn(
			"queue %u: kick descriptor: %s", q->index, r ? strerror(errno) : "end of file");
		watch_del(w);
		return;
	}
	q->stats.kicks++;
	vring_run(&q->run);
}
