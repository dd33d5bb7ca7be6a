/* SPDX-License-Identifier: MIT */
/*
 * Virtqueues: what the split and the packed layout have in common. The theory is in vring.h, the device's
 * view in virtqueue.h, the layouts in vring-split.c and vring-packed.c.
 */
#include "vring.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "le.h"
#include "log.h"

/* Segments and slots */

static void view_drop(struct memview *v)
{
	guestmem_unref(v->mem);
	free(v);
}

static void view_put(struct virtqueue *q, struct memview *v)
{
	struct memview **p;

	if (--v->out || v == q->view)
		return;
	for (p = &q->old_views; *p != v; p = &(*p)->next)
		;
	*p = v->next;
	view_drop(v);
}

static struct memview *view_new(struct guestmem *mem)
{
	struct memview *v = calloc(1, sizeof(*v));

	if (v)
		v->mem = guestmem_ref(mem);
	return v;
}

static bool segs_grow(struct virtqueue *q, struct vring_slot *s)
{
	struct segs *segs = q->free_segs;
	unsigned n = s->nrd + s->nwr;

	if (segs)
		q->free_segs = segs->next;
	else
		segs = malloc(sizeof(*segs));
	if (!segs)
		return false;
	memcpy(segs->iov, s->iov, n * sizeof(*s->iov));
	memcpy(segs->gpa, s->gpa, n * sizeof(*s->gpa));
	s->segs = segs;
	s->iov = segs->iov;
	s->gpa = segs->gpa;
	return true;
}

static bool slot_append(
	struct virtqueue *q, struct vring_slot *s, uint8_t *host, size_t len, uint64_t gpa, bool writable)
{
	unsigned n = s->nrd + s->nwr;

	if (unlikely(n == VRING_INLINE_SEGS) && !segs_grow(q, s)) {
		virtqueue_break(q, "no memory for a chain");
		return false;
	}
	if (unlikely(n == VRING_MAX_SEGS)) {
		virtqueue_break(q, "a chain has more than %d segments", VRING_MAX_SEGS);
		return false;
	}
	s->iov[n] = (struct iovec){.iov_base = host, .iov_len = len};
	s->gpa[n] = gpa;
	if (writable) {
		s->nwr++;
		s->wr_len += len;
	} else {
		s->nrd++;
		s->rd_len += len;
	}
	return true;
}

bool vring_add(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool writable)
{
	if (unlikely(!writable && (s->nwr || s->tail_lost))) {
		virtqueue_break(q, "a device-readable descriptor follows a device-writable one");
		return false;
	}
	if (unlikely(len > UINT64_MAX - addr))
		goto lost;
	while (len) {
		uint64_t avail;
		uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);
		uint32_t n;

		if (unlikely(!host))
			goto lost;
		n = avail < len ? (uint32_t)avail : len;
		if (unlikely(!slot_append(q, s, host, n, addr, writable)))
			return false;
		addr += n;
		len -= n;
		if (writable)
			s->tail_lost = false;
	}
	return true;
lost:
	log_guest_warn(
		"queue %u: %" PRIu32 " bytes at 0x%" PRIx64 " are not guest memory", q->index, len, addr);
	s->e.fault = true;
	if (writable) {
		s->tail_lost = true;
		s->e.wr.bad = true;
	} else {
		s->e.rd.bad = true;
	}
	return true;
}

/* Copies a 16-byte descriptor, which may straddle regions. */
static bool read_desc(struct virtqueue *q, struct vring_slot *s, uint64_t addr, void *out)
{
	uint8_t *dst = out;
	size_t left = 16;

	while (left) {
		uint64_t avail;
		const uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);
		size_t n = MIN(left, avail);

		if (!host)
			return false;
		memcpy(dst, host, n);
		dst += n;
		addr += n;
		left -= n;
	}
	return true;
}

struct vdesc { /* struct vring_desc and struct vring_packed_desc differ in the last four bytes */
	uint64_t addr;
	uint32_t len;
	uint16_t a, b; /* split: flags, next; packed: id, flags */
};

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

bool vring_add_indirect(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool packed)
{
	uint32_t n = len / 16, i = 0, seen;

	if (!len || len % 16 || n > VRING_MAX_SEGS || len > UINT64_MAX - addr) {
		virtqueue_break(q, "an indirect table has %" PRIu32 " bytes", len);
		return false;
	}
	for (seen = 0; seen < n; seen++) {
		struct vdesc d;
		uint16_t flags;

		if (!read_desc(q, s, addr + i * UINT64_C(16), &d)) {
			virtqueue_break(q, "an indirect table at 0x%" PRIx64 " is not guest memory", addr);
			return false;
		}
		flags = le16toh(packed ? d.b : d.a);
		if (flags & DESC_INDIRECT) {
			virtqueue_break(q, "an indirect table is nested");
			return false;
		}
		if (!vring_add(q, s, le64toh(d.addr), le32toh(d.len), flags & DESC_WRITE))
			return false;
		if (packed) {
			i++;
			continue;
		}
		if (!(flags & DESC_NEXT))
			return true;
		i = le16toh(d.b);
		if (i >= n) {
			virtqueue_break(q, "an indirect table of %" PRIu32 " goes on at %" PRIu32, n, i);
			return false;
		}
	}
	if (packed)
		return true;
	virtqueue_break(q, "an indirect table is a loop");
	return false;
}

bool vring_slot_begin(struct virtqueue *q, struct vring_slot *s, uint16_t id)
{
	if (unlikely(s->busy)) {
		virtqueue_break(q, "buffer %u is made available twice", id);
		return false;
	}
	s->e.fault = s->e.rd.bad = s->e.wr.bad = false;
	s->iov = s->inline_iov;
	s->gpa = s->inline_gpa;
	s->nrd = s->nwr = 0;
	s->rd_len = s->wr_len = 0;
	s->id = id;
	s->ndesc = 1;
	s->done = s->tracked = s->tail_lost = s->unpopped = s->resubmitted = false;
	s->view = q->view;
	return true;
}

static void segs_put(struct virtqueue *q, struct vring_slot *s)
{
	if (likely(!s->segs))
		return;
	s->segs->next = q->free_segs;
	q->free_segs = s->segs;
	s->segs = NULL;
}

static void slot_release(struct virtqueue *q, struct vring_slot *s)
{
	segs_put(q, s);
	s->busy = false;
	if (q->packed)
		q->packed_.free_slots[q->packed_.nfree++] = s->index;
	q->out--;
	view_put(q, s->view);
}

/* What a device calls */

static void cursor_begin(struct cursor *c, const struct iovec *iov, unsigned n, size_t len)
{
	c->iov = iov;
	c->n = n;
	c->off = 0;
	c->left = len;
	c->done = 0;
	c->up = NULL;
	c->split = false;
}

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct vring_slot *s = NULL;

	if (unlikely(q->phase != VRING_RUNNING || q->broken || !q->budget))
		return NULL;
	if (unlikely(q->resubmit_next < q->nresubmit))
		s = q->ops->resubmit(q);
	if (likely(!s && !q->broken))
		s = q->ops->pop(q);
	if (!s || unlikely(q->broken)) {
		if (s)
			segs_put(q, s);
		q->saw_empty = true;
		return NULL;
	}
	if (unlikely(s->tail_lost)) {
		segs_put(q, s);
		virtqueue_break(q, "buffer %u ends outside guest memory", s->id);
		return NULL;
	}
	cursor_begin(&s->e.rd, s->iov, s->nrd, s->rd_len);
	cursor_begin(&s->e.wr, s->iov + s->nrd, s->nwr, s->wr_len);
	if (s->e.req)
		memset(s->e.req, 0, q->spec->req_size);
	s->busy = true;
	s->view->out++;
	s->seq = q->seq++;
	if (q->in_order)
		q->order[s->seq & q->order_mask] = s;
	q->out++;
	q->budget--;
	q->stats.popped++;
	return &s->e;
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

static void slot_stage(struct virtqueue *q, struct vring_slot *s)
{
	q->staged[q->nstaged++] = s;
}

static void stage_in_order(struct virtqueue *q)
{
	while (q->order_next != q->seq) {
		struct vring_slot *s = q->order[q->order_next & q->order_mask];

		if (!s->done || s->unpopped)
			return;
		q->order_next++;
		slot_stage(q, s);
	}
}

void virtqueue_push(struct element *e)
{
	struct vring_slot *s = container_of(e, struct vring_slot, e);
	struct virtqueue *q = e->queue;

	s->used_len = (uint32_t)MIN(e->wr.done, (size_t)UINT32_MAX);
	if (unlikely(q->log_all && q->log))
		log_written(q, s);
	q->stats.pushed++;
	loop_defer(q->loop, &q->flush);
	if (unlikely(q->discard)) {
		slot_release(q, s);
		return;
	}
	s->done = true;
	if (unlikely(q->in_order))
		stage_in_order(q);
	else
		slot_stage(q, s);
}

void virtqueue_unpop(struct element *e)
{
	struct vring_slot *s = container_of(e, struct vring_slot, e);
	struct virtqueue *q = e->queue;

	if (q->discard) {
		slot_release(q, s);
		loop_defer(q->loop, &q->flush);
		return;
	}
	if (q->phase == VRING_RUNNING && s->seq == q->seq - 1 && !s->resubmitted) {
		q->seq--;
		q->ops->rewind(q, s);
		slot_release(q, s);
		return;
	}
	s->unpopped = true;
	q->nunpopped++;
	loop_defer(q->loop, &q->flush);
}

void virtqueue_wake(void *arg)
{
	struct virtqueue *q = arg;

	if (q->phase == VRING_RUNNING && !q->broken)
		loop_defer(q->loop, &q->run);
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
	char why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	log_guest_warn("queue %u: %s; the queue stops until it is set up again", q->index, why);
	q->broken = true;
	q->stats.breaks++;
	if (q->err_fd >= 0)
		signal_fd(q->err_fd);
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

static void queue_call(struct virtqueue *q)
{
	q->stats.calls++;
	if (q->call_fd >= 0)
		signal_fd(q->call_fd);
	else if (q->inband)
		q->call_inband(q);
}

static void drain_finish(struct virtqueue *q);

static void queue_publish(struct virtqueue *q)
{
	unsigned i, n = q->nstaged;

	if (!n)
		return;
	q->nstaged = 0;
	if (likely(!q->discard)) {
		q->ops->publish(q, q->staged, n);
		if (q->ops->wants_call(q))
			queue_call(q);
		else
			q->stats.calls_suppressed++;
	}
	for (i = 0; i < n; i++)
		slot_release(q, q->staged[i]);
}

static void queue_flush(struct task *t)
{
	struct virtqueue *q = container_of(t, struct virtqueue, flush);

	queue_publish(q);
	if (unlikely(q->phase == VRING_DRAINING) && q->out == q->nunpopped)
		drain_finish(q);
}

static void queue_run(struct task *t)
{
	struct virtqueue *q = container_of(t, struct virtqueue, run);

	if (unlikely(q->phase != VRING_RUNNING || q->broken || !q->spec->ready))
		return;
	if (q->armed) {
		q->armed = false;
		q->ops->disarm(q);
	}
	q->budget = VRING_BUDGET;
	q->saw_empty = false;
	q->spec->ready(q->backend, q);
	if (unlikely(q->phase != VRING_RUNNING || q->broken))
		return;
	if (!q->budget) {
		loop_again(q->loop, &q->run);
		return;
	}
	if (!q->saw_empty || q->polled)
		return;
	q->armed = true;
	q->ops->arm(q);
	if (unlikely(q->ops->pending(q)))
		loop_again(q->loop, &q->run);
}

static bool queue_poll(struct poller *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, poller);

	if (!q->saw_empty || !virtqueue_pending(q))
		return false;
	queue_run(&q->run);
	return true;
}

static void kick_ready(struct watch *w, uint32_t events)
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
	queue_run(&q->run);
}

/* Start and stop */

static void poller_update(struct virtqueue *q)
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
		free(q->packed_.free_next);
		free(q->packed_.free_slots);
		q->packed_.free_next = q->packed_.free_slots = NULL;
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
	poller_update(q);
	loop_cancel(q->loop, &q->run);
	loop_cancel(q->loop, &q->flush);
	watch_del(&q->kick);
	slots_free(q);
	if (q->view) {
		view_drop(q->view);
		q->view = NULL;
	}
	dirtylog_unref(q->log);
	q->log = NULL;
}

static int start(struct virtqueue *q, struct guestmem *mem, struct dirtylog *log)
{
	int err;

	q->packed = q->features & BIT(34);
	q->event_idx = q->features & BIT(29);
	q->in_order = q->features & BIT(35);
	q->log_all = q->features & BIT(26);
	q->ops = q->packed ? &vring_packed_ops : &vring_split_ops;
	q->broken = q->discard = q->armed = false;
	q->saw_empty = true;
	q->out = q->nstaged = q->nunpopped = q->nresubmit = q->resubmit_next = q->hint = 0;
	q->seq = q->order_next = q->inflight_counter = 0;
	memset(&q->packed_, 0, sizeof(q->packed_));
	err = slots_alloc(q);
	if (err)
		return err;
	q->view = view_new(mem);
	q->log = log ? dirtylog_ref(log) : NULL;
	err = q->view ? q->ops->map(q, mem) : -ENOMEM;
	if (!err)
		err = q->ops->begin(q);
	if (err) {
		log_errno(-err, "queue %u: ring at 0x%" PRIx64, q->index, q->desc_addr);
		return err;
	}
	q->phase = VRING_RUNNING;
	if (q->kick_fd >= 0) {
		err = watch_add(q->loop, &q->kick, q->kick_fd, EPOLLIN);
		if (err)
			return log_errno(-err, "queue %u: kick descriptor", q->index);
	}
	err = q->on_start ? q->on_start(q) : 0;
	if (err)
		return err;
	if (q->resumed)
		queue_call(q); /* the last process may have died between used index and interrupt */
	poller_update(q);
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

	q->inflight = inflight;
	q->inflight_num = inflight ? MIN(inflight_num, q->num) : 0;
	loop_call(q->loop, start_call, &c);
	return c.err;
}

static int slot_by_seq(const void *a, const void *b)
{
	const struct vring_slot *x = *(struct vring_slot *const *)a, *y = *(struct vring_slot *const *)b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/*
 * Buffers given back while draining. The youngest go back into the ring; one with a younger buffer used
 * can't, so it is returned empty, unless the in-flight area brings it back at the next start.
 */
static void unpopped_settle(struct virtqueue *q)
{
	struct vring_slot **list = q->staged;
	unsigned n = 0, i, lost = 0;

	for (i = 0; i < q->num; i++) {
		struct vring_slot *s = vring_slot(q, i);

		if (s->busy && s->unpopped)
			list[n++] = s;
	}
	qsort(list, n, sizeof(*list), slot_by_seq);
	while (n && !list[n - 1]->resubmitted && list[n - 1]->seq == q->seq - 1) {
		struct vring_slot *s = list[--n];

		q->seq--;
		q->ops->rewind(q, s);
		slot_release(q, s);
	}
	for (i = 0; i < n; i++) {
		struct vring_slot *s = list[i];

		if (s->tracked) {
			slot_release(q, s);
			continue;
		}
		s->used_len = 0;
		list[lost++] = s;
	}
	if (lost) {
		log_warn("queue %u: %u buffers are returned empty", q->index, lost);
		q->nstaged = lost;
		queue_publish(q);
	}
	q->nunpopped = 0;
}

static void drained_post(struct post *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, drained_post);

	q->drained(q, q->drained_arg);
}

static void drain_finish(struct virtqueue *q)
{
	if (q->nunpopped)
		unpopped_settle(q);
	if (!q->discard)
		q->base = q->ops->base(q);
	rest(q);
	loop_post(q->control, &q->drained_post);
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
	queue_publish(q);
	q->phase = VRING_DRAINING;
	poller_update(q);
	if (c->discard && !q->discard) {
		unsigned i;

		q->discard = true;
		for (i = 0; i < q->num && q->nunpopped; i++) {
			struct vring_slot *s = vring_slot(q, i);

			if (s->busy && s->unpopped) {
				q->nunpopped--;
				slot_release(q, s);
			}
		}
		for (i = 0; q->in_order && i < q->num; i++)
			if (vring_slot(q, i)->busy && vring_slot(q, i)->done)
				slot_release(q, vring_slot(q, i));
	}
	if (first && q->on_stop)
		q->on_stop(q);
	queue_flush(&q->flush);
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
	bool log_all;
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
	v = view_new(c->mem);
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
		view_drop(old);
	}
	if (q->ops->map(q, c->mem) < 0) {
		/* nothing of this ring can be touched again */
		q->discard = true;
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

static void readdress(void *arg)
{
	struct set_call *c = arg;
	struct virtqueue *q = c->q;

	if (q->phase == VRING_RUNNING)
		c->err = q->ops->map(q, q->view->mem);
}

int virtqueue_readdress(struct virtqueue *q)
{
	struct set_call c = {.q = q};

	loop_call(q->loop, readdress, &c);
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
	if (q->phase != VRING_RUNNING)
		return;
	poller_update(q);
	if (q->kick_fd >= 0)
		c->err = watch_add(q->loop, &q->kick, q->kick_fd, EPOLLIN);
	loop_defer(q->loop, &q->run);
}

int virtqueue_set_kick(struct virtqueue *q, int *fd)
{
	struct set_call c = {.q = q, .fd = fd};

	nonblock(*fd);
	loop_call(q->loop, set_kick, &c);
	return c.err;
}

static void set_call_fd(void *arg)
{
	struct set_call *c = arg;

	fd_close(&c->q->call_fd);
	c->q->call_fd = fd_take(c->fd);
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
	q->state = state;
	q->loop = loop;
	q->control = control;
	q->kick_fd = q->call_fd = q->err_fd = q->kick.fd = -1;
	q->kick.ready = kick_ready;
	q->run.run = queue_run;
	q->flush.run = queue_flush;
	q->poller.poll = queue_poll;
	q->drained_post.run = drained_post;
	*out = q;
	return 0;
}

void virtqueue_reset(struct virtqueue *q, bool keep_fds)
{
	int none = -1;

	virtqueue_set_kick(q, &none);
	if (!keep_fds) {
		virtqueue_set_call(q, &none);
		virtqueue_set_err(q, &none);
		q->configured = false;
	}
	q->num = 0;
	q->base = 0;
	q->has_addr = q->log_used = q->polled = q->started = q->enabled = q->inband = false;
}

void virtqueue_free(struct virtqueue *q)
{
	if (!q)
		return;
	virtqueue_reset(q, false);
	free(q->state);
	free(q);
}
