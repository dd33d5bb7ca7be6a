/* SPDX-License-Identifier: MIT */
/*
 * What concerns the requests of all queues: a sweep. Each queue's loop is poked, finds those of its requests that match,
 * marks them, and reports when they have ended; the last one to report is the end of the sweep. Requests that came later
 * are none of its business. So no request is ever touched by another loop, and nobody waits for anybody.
 *
 * A queue first takes what the driver has put into its ring, because the driver may have put it there before it asked for
 * the sweep.
 *
 * On top of it: the exclusive turn of COMPARE AND WRITE. The unit's state makes new writes wait (park), a sweep waits for
 * the writes in flight, then the first in line runs; when the line is empty, the parked ones run.
 */
#include "scsi.h"

#define MAX_ROUNDS 520u /* of 64 buffers: the largest ring there is */

static void post_run(struct post *p)
{
	struct scsi_sweep *w = container_of(p, struct scsi_sweep, post);

	w->done(w);
}

void scsi_sweep_start(struct scsi *s, struct scsi_sweep *w)
{
	bool over;

	w->scsi = s;
	w->found = false;
	w->post.run = post_run;
	pthread_mutex_lock(&s->lock);
	w->left = 0;
	for (unsigned i = 0; i < SCSI_QUEUES; i++) {
		w->visit[i] = (struct scsi_visit){.wanted = s->queues[i].used};
		w->left += s->queues[i].used;
	}
	over = w->left == 0;
	if (!over) {
		w->next = s->sweeps;
		__atomic_store_n(&s->sweeps, w, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&s->lock);
	if (over)
		loop_post(w->loop, &w->post);
	else
		scsi_poke_all(s);
}

static void visit(struct scsi_queue *q, struct scsi_sweep *w, struct scsi_request **aborted)
{
	struct scsi_visit *v = &w->visit[q->index];
	struct scsi_request *r, *next;

	v->visited = true;
	v->upto = q->seq;
	for (r = q->inflight; r != NULL; r = r->next) {
		if (!w->match(w, r))
			continue;
		w->found = true;
		if (w->abort != 0 && r->abort == 0)
			r->abort = w->abort;
	}
	for (r = q->parked; r != NULL; r = next) {
		next = r->next;
		if (!w->match(w, r))
			continue;
		w->found = true;
		if (w->abort == 0)
			continue;
		r->abort = w->abort;
		if (q->parked_tail == &r->next)
			q->parked_tail = r->link;
		scsi_unlink(r);
		r->next = *aborted;
		*aborted = r;
	}
}

static bool still_there(const struct scsi_request *list, const struct scsi_sweep *w, uint64_t upto)
{
	for (; list != NULL; list = list->next)
		if (list->seq <= upto && w->match(w, list))
			return true;
	return false;
}

static void end_aborted(struct scsi_request *list)
{
	while (list != NULL) {
		struct scsi_request *r = list;

		list = r->next;
		scsi_respond(r, r->abort);
	}
}

/* Whose requests have all ended? Their answers are published at the end of this turn; it is reported in the next one. */
void scsi_sweep_note(struct scsi_queue *q)
{
	struct scsi *s = q->scsi;
	bool any = false;

	pthread_mutex_lock(&s->lock);
	for (struct scsi_sweep *w = s->sweeps; w != NULL; w = w->next) {
		struct scsi_visit *v = &w->visit[q->index];

		if (!v->wanted || !v->visited || v->ended)
			continue;
		v->ended = w->query ||
			   (!still_there(q->inflight, w, v->upto) && !still_there(q->parked, w, v->upto));
		any |= v->ended;
	}
	pthread_mutex_unlock(&s->lock);
	if (any)
		loop_again(q->loop, &q->report);
}

void scsi_sweep_report(struct task *t)
{
	struct scsi_queue *q = container_of(t, struct scsi_queue, report);
	struct scsi_sweep **link, *w;
	struct scsi *s = q->scsi;

	pthread_mutex_lock(&s->lock);
	for (link = &s->sweeps; (w = *link) != NULL;) {
		struct scsi_visit *v = &w->visit[q->index];

		if (v->wanted && v->ended) {
			v->wanted = false;
			w->left--;
		}
		if (w->left > 0) {
			link = &w->next;
			continue;
		}
		__atomic_store_n(link, w->next, __ATOMIC_SEQ_CST);
		loop_post(w->loop, &w->post);
	}
	pthread_mutex_unlock(&s->lock);
}

static void sweep_visit(struct scsi_queue *q)
{
	struct scsi *s = q->scsi;
	struct scsi_request *aborted = NULL;
	struct scsi_sweep *w;

	pthread_mutex_lock(&s->lock);
	for (w = s->sweeps; w != NULL; w = w->next)
		if (w->visit[q->index].wanted && !w->visit[q->index].visited)
			visit(q, w, &aborted);
	pthread_mutex_unlock(&s->lock);
	/* before it is reported that they have ended */
	end_aborted(aborted);
	scsi_withdraw(q, false);
	scsi_sweep_note(q);
}

/* Parked ones whose unit is free again. */
static void unpark(struct scsi_queue *q)
{
	struct scsi_request *list = q->parked;

	q->parked = NULL;
	q->parked_tail = &q->parked;
	if (list != NULL)
		list->link = NULL;
	while (list != NULL) {
		struct scsi_request *r = list;

		list = r->next;
		r->link = NULL;
		r->parked = false;
		scsi_execute(r); /* which may park it again */
	}
}

static void poke(struct scsi_queue *q)
{
	if (__atomic_load_n(&q->scsi->closed, __ATOMIC_SEQ_CST))
		return;
	if (__atomic_load_n(&q->scsi->sweeps, __ATOMIC_SEQ_CST) == NULL) {
		unpark(q);
		return;
	}
	if (q->index >= SCSI_FIRST && q->vq != NULL && virtqueue_pending(q->vq) && q->rounds++ < MAX_ROUNDS) {
		virtqueue_wake(q->vq);
		loop_again(q->loop, &q->again);
		return;
	}
	q->rounds = 0;
	unpark(q);
	sweep_visit(q);
}

void scsi_poke_again(struct task *t)
{
	poke(container_of(t, struct scsi_queue, again));
}

void scsi_poke(struct post *p)
{
	struct scsi_queue *q = container_of(p, struct scsi_queue, poke);

	if (q->index == 1)
		scsi_event_flush(q);
	poke(q);
}

void scsi_poke_all(struct scsi *s)
{
	for (unsigned i = 0; i < SCSI_QUEUES; i++)
		if (s->queues[i].used)
			loop_post(s->queues[i].loop, &s->queues[i].poke);
}

/* Exclusive turns */

void scsi_park(struct scsi_request *r)
{
	struct scsi_queue *q = r->queue;

	r->next = NULL;
	r->link = q->parked_tail;
	*q->parked_tail = r;
	q->parked_tail = &r->next;
	r->parked = true;
}

static bool writes_there(const struct scsi_sweep *w, const struct scsi_request *r)
{
	return r->lun == w->lun && (r->op->flags & CMD_WRITE) && !r->is_exclusive && r->link != NULL &&
	       !r->parked;
}

/* In the loop of the first in line. */
static void granted(struct scsi_sweep *w)
{
	struct scsi_request *r = w->lun->exclusive;
	struct scsi_queue *q = r->queue;

	scsi_unlink(r);
	if (r->abort != 0)
		scsi_respond(r, r->abort);
	else
		r->step(r);
	scsi_sweep_note(q);
}

void scsi_exclusive_begin(struct scsi_request *r)
{
	struct scsi_lun *l = r->lun;
	struct scsi *s = l->scsi;
	bool first;

	r->is_exclusive = true;
	scsi_link(r);
	pthread_mutex_lock(&s->lock);
	first = l->exclusive == NULL;
	*l->exclusive_tail = r;
	l->exclusive_tail = &r->exclusive_next;
	pthread_mutex_unlock(&s->lock);
	if (!first)
		return;
	scsi_lun_set(l, STATE_EXCLUSIVE);
	l->quiet.match = writes_there;
	l->quiet.done = granted;
	l->quiet.lun = l;
	l->quiet.loop = r->queue->loop;
	scsi_sweep_start(s, &l->quiet);
}

void scsi_exclusive_end(struct scsi_request *r)
{
	struct scsi_lun *l = r->lun;
	struct scsi *s = l->scsi;
	struct scsi_request *next;

	pthread_mutex_lock(&s->lock);
	next = l->exclusive = r->exclusive_next;
	if (next == NULL) {
		l->exclusive_tail = &l->exclusive;
		scsi_lun_clear(l, STATE_EXCLUSIVE);
	} else {
		l->quiet.loop = next->queue->loop;
	}
	pthread_mutex_unlock(&s->lock);
	if (next != NULL)
		loop_post(l->quiet.loop, &l->quiet.post);
	else
		scsi_poke_all(s);
}
