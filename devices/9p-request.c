/* SPDX-License-Identifier: MIT */
/*
 * Requests: who comes next, where it runs, how it is answered. All of this is in the loop but run(), which is where the
 * operation is.
 *
 * The loop pops requests, finds the fids that they name and decides who comes next: a fid is shared by requests that
 * leave it as it is and is for one alone that changes it; others wait at the fid in the order they came. An operation
 * that is likely to be quick is tried in the loop, and goes to the pool when it would have to wait for the disk; the rest
 * goes there at once. What comes to a file system that may have to ask another machine or program has a pool of its own. So no
 * request waits for another, unless both concern the same fid.
 *
 * A request is answered through a cursor of its own behind the header, which is written last, when all is known. Whatever
 * is wrong is answered by Rlerror or Rerror; only a buffer without room for that has no answer.
 *
 * Tflush: what has not begun is not done and its buffer is given back empty; what has begun is waited for. Rflush comes
 * behind it in either case. Tversion does that with all requests.
 */
#include "9p.h"

#include <errno.h>
#include <string.h>

enum {
	LOCK_FIRST = 5000000, /* ns until a lock is tried again, at first and at last */
	LOCK_LAST = 100000000,
};

enum {
	TLERROR = 6,
	RLERROR = 7,
	TVERSION = 100,
	TATTACH = 104,
	RERROR = 107,
	TFLUSH = 108,
	TWALK = 110,
	TCREATE = 114,
	TREAD = 116,
	TWRITE = 118,
	TCLUNK = 120,
	TREMOVE = 122,
	LAST_TYPE = 126,
};

enum { U = 1 << P9_2000U, L = 1 << P9_2000L, UL = U | L };

/* By type / 2: requests have even numbers. */
static const struct p9_op ops[LAST_TYPE / 2 + 1] = {
	[8 / 2] = {"statfs", p9_op_statfs, .fids = 1, .quick = true, .dialects = L},
	[12 / 2] = {"lopen", p9_op_lopen, .fids = 1, .exclusive = true, .quick = true, .dialects = L},
	[14 / 2] = {"lcreate", p9_op_lcreate, .fids = 1, .exclusive = true, .changes = true, .dialects = L},
	[16 / 2] = {"symlink", p9_op_symlink, .fids = 1, .changes = true, .dialects = L},
	[18 / 2] = {"mknod", p9_op_mknod, .fids = 1, .changes = true, .dialects = L},
	[20 / 2] = {"rename", p9_op_rename, .fids = 2, .changes = true, .dialects = L},
	[22 / 2] = {"readlink", p9_op_readlink, .fids = 1, .quick = true, .dialects = L},
	[24 / 2] = {"getattr", p9_op_getattr, .fids = 1, .quick = true, .dialects = L},
	[26 / 2] = {"setattr", p9_op_setattr, .fids = 1, .changes = true, .dialects = L},
	[30 / 2] = {"xattrwalk", p9_op_xattrwalk, .fids = 2, .creates = true, .dialects = L},
	[32 / 2] = {"xattrcreate", p9_op_xattrcreate, .fids = 1, .exclusive = true, .changes = true,
		.dialects = L},
	[40 / 2] = {"readdir", p9_op_readdir, .fids = 1, .exclusive = true, .dialects = L},
	[50 / 2] = {"fsync", p9_op_fsync, .fids = 1, .dialects = L},
	[52 / 2] = {"lock", p9_op_lock, .fids = 1, .exclusive = true, .quick = true, .dialects = L},
	[54 / 2] = {"getlock", p9_op_getlock, .fids = 1, .quick = true, .dialects = L},
	[70 / 2] = {"link", p9_op_link, .fids = 2, .changes = true, .dialects = L},
	[72 / 2] = {"mkdir", p9_op_mkdir, .fids = 1, .changes = true, .dialects = L},
	[74 / 2] = {"renameat", p9_op_renameat, .fids = 2, .second_later = true, .changes = true,
		.dialects = L},
	[76 / 2] = {"unlinkat", p9_op_unlinkat, .fids = 1, .changes = true, .dialects = L},
	[102 / 2] = {"auth", p9_op_auth, .dialects = UL, .quick = true},
	[TATTACH / 2] = {"attach", p9_op_attach, .fids = 1, .creates = true, .dialects = UL},
	[TWALK / 2] = {"walk", p9_op_walk, .fids = 2, .creates = true, .quick = true, .dialects = UL},
	[112 / 2] = {"open", p9_op_open, .fids = 1, .exclusive = true, .quick = true, .dialects = U},
	[TCREATE / 2] = {"create", p9_op_create, .fids = 1, .exclusive = true, .changes = true,
		.dialects = U},
	[TREAD / 2] = {"read", p9_op_read, .fids = 1, .quick = true, .dialects = UL},
	[TWRITE / 2] = {"write", p9_op_write, .fids = 1, .quick = true, .dialects = UL},
	[TCLUNK / 2] = {"clunk", p9_op_clunk, .fids = 1, .exclusive = true, .quick = true, .dialects = UL},
	[TREMOVE / 2] = {"remove", p9_op_remove, .fids = 1, .exclusive = true, .dialects = UL},
	[124 / 2] = {"stat", p9_op_stat, .fids = 1, .dialects = U},
	[LAST_TYPE / 2] = {"wstat", p9_op_wstat, .fids = 1, .changes = true, .dialects = U},
};

/* Answers */

static void put_header(struct p9_request *r, uint8_t type, size_t size)
{
	p9_put_u32(&r->e->wr, (uint32_t)(P9_HEADER + size));
	p9_put_u8(&r->e->wr, type);
	p9_put_u16(&r->e->wr, r->tag);
}

/* The wire's strings for errors in .u are those of strerror(), in so far as there is room. */
static void put_error(struct p9_request *r, int err)
{
	struct cursor *wr = &r->e->wr;

	if (r->s->dialect == P9_2000U) {
		const char *text = strerror(err);
		size_t room = wr->left - P9_HEADER, n = strlen(text);

		n = room < 6 ? 0 : MIN(n, room - 6);
		put_header(r, RERROR, 2 + n + 4);
		p9_put_u16(wr, (uint16_t)n);
		cursor_put(wr, text, n);
		p9_put_u32(wr, (uint32_t)err);
	} else {
		put_header(r, RLERROR, 4);
		p9_put_u32(wr, (uint32_t)err);
	}
}

/* Gives the buffer back: with the answer that is in r->body, an error, or nothing. r is gone then. */
static void answer(struct p9_request *r)
{
	struct element *e = r->e;
	size_t body = r->body.done;

	/* what a failed operation left there is not part of the answer, and still was written */
	if (body && r->result)
		e->wr.split = true;
	if (r->result < 0) {
		put_error(r, -r->result);
	} else if (r->result == 0) {
		put_header(r, r->type + 1, body);
		cursor_skip(&e->wr, body);
	}
	virtqueue_push(e);
}

/* An operation, in whatever thread. */
static void run(struct p9_request *r)
{
	struct cursor in = r->in;

	r->body = r->e->wr;
	cursor_skip(&r->body, P9_HEADER);
	r->body.done = 0;
	r->body.left = MIN(r->body.left, (size_t)r->s->msize - P9_HEADER);
	r->result = r->op->run(r);
	if (r->result == 0 && r->body.bad)
		r->result = -EMSGSIZE;
	if (r->result > 0)
		r->in = in;
}

/* Life of a request */

static bool ends_fid(const struct p9_request *r)
{
	return r->type == TCLUNK || r->type == TREMOVE;
}

static void drain(struct p9 *s);

static void append(struct p9_request ***tail, struct p9_request *r)
{
	r->next = NULL;
	**tail = r;
	*tail = &r->next;
}

static void make_runnable(struct p9 *s, struct p9_request *list)
{
	struct p9_request *next;

	for (; list; list = next) {
		next = list->next;
		append(&s->runnable_tail, list);
	}
}

static void release_fid(struct p9 *s, struct p9_fid *f)
{
	struct p9_request *waiting = f->waiting;

	f->users--;
	f->exclusive = false;
	if (f->users || !waiting)
		return;
	f->waiting = NULL;
	f->waiting_tail = &f->waiting;
	make_runnable(s, waiting);
}

static void release(struct p9_request *r)
{
	struct p9 *s = r->s;

	for (unsigned i = 0; i < 2; i++) {
		if (!r->fid[i])
			continue;
		p9_fid_unuse(s, r->fid[i]);
		release_fid(s, r->fid[i]);
		r->fid[i] = NULL;
	}
}

static void locks_retry(struct p9 *s)
{
	struct p9_request *list = s->locks;

	s->locks = NULL;
	s->locks_tail = &s->locks;
	timer_disarm(&s->lock_timer);
	make_runnable(s, list);
}

static void lock_timer_expired(struct timer *t)
{
	struct p9 *s = container_of(t, struct p9, lock_timer);

	s->lock_delay = MIN(s->lock_delay * 2, (uint64_t)LOCK_LAST);
	locks_retry(s);
	drain(s);
}

static void fail(struct p9_request *r, int result);

static void lock_wait(struct p9_request *r)
{
	struct p9 *s = r->s;

	release(r);
	if (r->cancelled) { /* while a thread tried */
		fail(r, P9_CANCELLED);
		return;
	}
	if (!s->locks)
		timer_arm_in(s->b->loop, &s->lock_timer, s->lock_delay);
	append(&s->locks_tail, r);
}

static void version_finish(struct p9 *s);

static void finish_one(struct p9_request *r)
{
	if (r->s->tags[r->tag] == r)
		r->s->tags[r->tag] = NULL;
	r->s->inflight--;
	answer(r);
}

/* The last steps of all requests: tag, answer, and behind it those of the flushes that wait for it. */
static void finish(struct p9_request *r)
{
	struct p9_request *list = r->flushes, **tail = &list, *f;
	struct p9 *s = r->s;

	finish_one(r);
	while ((f = list)) {
		while (*tail)
			tail = &(*tail)->next;
		*tail = f->flushes;
		list = f->next;
		if (!list || tail == &f->next)
			tail = &list;
		finish_one(f);
	}
	if (s->version && s->inflight == 1)
		version_finish(s);
}

static void free_fid(struct p9 *s, struct p9_fid *f)
{
	struct p9_request *waiting = f->waiting;

	f->waiting = NULL;
	if (p9_fid_free(s, f))
		locks_retry(s);
	make_runnable(s, waiting); /* to find that it is gone */
}

/* A new fid gets what was found for it, or goes. */
static void settle_new(struct p9_request *r)
{
	struct p9 *s = r->s;
	struct p9_fid *f = r->newfid;

	r->newfid = NULL;
	if (r->result != 0 || r->partial) {
		free_fid(s, f);
		return;
	}
	if (f->kind == P9_NEW)
		f->kind = P9_PATH;
	/* without one of its own it is a clone, or for an extended attribute */
	f->node = r->made ? r->made : p9_node_ref(r->fid[0]->node);
	r->made = NULL;
	p9_fid_settle(s, f);
	release_fid(s, f);
}

/* The fid itself goes on as another file. */
static void settle_moved(struct p9_request *r)
{
	struct p9_fid *f = r->fid[0];
	struct p9_node *old = f->node;

	f->node = r->made;
	r->made = NULL;
	f->node->pins++;
	old->pins--;
	p9_node_unref(r->s, old);
}

static void submit(struct p9_request *r);

/* An operation is done: in the loop again. */
static void complete(struct p9_request *r)
{
	struct p9 *s = r->s;
	bool ends = ends_fid(r) && r->result != P9_CANCELLED;
	struct p9_fid *f = r->fid[0];

	if (r->result == P9_WAIT) {
		lock_wait(r);
		return;
	}
	if (r->result == P9_AWAY) {
		r->away = true;
		r->quick = false;
		submit(r);
		return;
	}
	if (r->newfid)
		settle_new(r);
	else if (r->made && r->result == 0)
		settle_moved(r);
	if (r->made)
		p9_node_unref(s, r->made);
	r->made = NULL;
	if (r->renamed[0] && r->renamed[1])
		p9_nodes_renamed(s, r->renamed[0], r->renamed[1]);
	free(r->renamed[0]);
	free(r->renamed[1]);
	if (f)
		p9_fid_settle(s, f);
	if (r->unlocked)
		locks_retry(s);
	if (r->op->run == p9_op_lock && r->result == 0)
		s->lock_delay = LOCK_FIRST;
	release(r);
	if (ends && f)
		free_fid(s, f);
	finish(r);
}

static void job_run(struct job *j)
{
	struct p9_request *r = container_of(j, struct p9_request, job);

	if (__atomic_load_n(&r->cancelled, __ATOMIC_RELAXED))
		r->result = P9_CANCELLED;
	else
		run(r);
}

static void job_done(struct job *j)
{
	struct p9_request *r = container_of(j, struct p9_request, job);
	struct p9 *s = r->s;

	complete(r);
	drain(s);
}

static void submit(struct p9_request *r)
{
	struct p9 *s = r->s;
	struct pool *pool = s->pool;

	r->away |= r->fid[0] && p9_asks_others(s, r->fid[0]->node->dev);
	if (r->away && !s->remote) {
		if (!s->away && pool_new(&s->away, s->threads, "9p-away") < 0)
			s->away = NULL;
		pool = s->away ? s->away : pool;
	}
	r->job.run = job_run;
	r->job.done = job_done;
	r->job.loop = s->b->loop;
	pool_submit(pool, &r->job);
}

static void fail(struct p9_request *r, int result)
{
	r->result = result;
	r->body.done = 0;
	release(r);
	finish(r);
}

/* 0: it has the fid; 1: it waits at it; -errno. */
static int take_fid(struct p9_request *r, unsigned i, bool exclusive)
{
	struct p9_fid *f = p9_fid_find(r->s, r->id[i]);
	int err;

	if (!f)
		return -EBADF;
	/* a place in a directory and a value under way are the fid's */
	if (!f->exclusive)
		exclusive |= (r->type == TREAD && f->kind == P9_DIR) ||
			     (r->type == TWRITE && f->kind == P9_XATTR_SET);
	if (f->exclusive || (exclusive && f->users)) {
		release(r);
		append(&f->waiting_tail, r);
		return 1;
	}
	err = p9_fid_use(r->s, f);
	if (err < 0) {
		if (ends_fid(r) && f->users == 0)
			free_fid(r->s, f);
		return err;
	}
	f->users++;
	f->exclusive = exclusive;
	r->fid[i] = f;
	return 0;
}

/* A walk to the fid itself (newfid == fid) changes it. */
static bool is_exclusive(const struct p9_request *r)
{
	return r->op->exclusive || (r->op->creates && r->op->fids == 2 && r->id[0] == r->id[1]);
}

static int take_fids(struct p9_request *r)
{
	const struct p9_op *op = r->op;
	unsigned old = op->creates ? op->fids - 1u : op->fids;
	int err = p9_files_trim(r->s);

	/* clunks and the like must go on */
	if (err < 0 && (op->creates || op->exclusive) && !ends_fid(r))
		return err;
	err = 0;
	if (old > 0)
		err = take_fid(r, 0, is_exclusive(r));
	if (err == 0 && (old > 1 || (r->type == TCREATE && r->id[1] != P9_NOFID)) && r->id[1] != r->id[0])
		err = take_fid(r, 1, false);
	if (err == 0 && op->creates && (op->fids == 1 || r->id[0] != r->id[1])) {
		err = p9_fid_new(r->s, r->id[op->fids - 1], &r->newfid);
		if (err == 0) {
			r->newfid->users = 1;
			r->newfid->exclusive = true;
		}
	}
	return err;
}

/* From here on it has its fids, or waits, or is answered. */
static void start(struct p9_request *r)
{
	struct p9 *s = r->s;
	int err;

	if (r->cancelled) {
		fail(r, P9_CANCELLED);
		return;
	}
	err = take_fids(r);
	if (err > 0)
		return;
	if (err < 0) {
		fail(r, err);
		return;
	}
	r->lock_waits = virtqueue_running(s->q);
	r->ends_node = r->type == TCLUNK && r->fid[0]->node->refs == 1;
	/* a clone concerns nothing but our own tables */
	r->quick = (r->op->quick && !p9_asks_others(s, r->fid[0] ? r->fid[0]->node->dev : s->root->dev)) ||
		   (r->type == TWALK && !r->in_names);
	if (r->quick) {
		run(r);
		if (r->result != P9_LATER) {
			complete(r);
			return;
		}
		r->quick = false;
	}
	submit(r);
}

/* Not called from within itself: what becomes runnable meanwhile is found by the loop here. */
static void drain(struct p9 *s)
{
	struct p9_request *r;

	while ((r = s->runnable)) {
		s->runnable = r->next;
		if (!s->runnable)
			s->runnable_tail = &s->runnable;
		start(r);
	}
}

/* Requests without fids: they concern the others */

/* True: it is not done, or nearly so; false: it goes on. */
static void cancel(struct p9_request *r)
{
	struct p9 *s = r->s;

	__atomic_store_n(&r->cancelled, true, __ATOMIC_RELAXED);
	for (struct p9_request **at = &s->locks; *at; at = &(*at)->next) {
		if (*at != r)
			continue;
		*at = r->next;
		if (!*at)
			s->locks_tail = at;
		if (!s->locks)
			timer_disarm(&s->lock_timer);
		append(&s->runnable_tail, r); /* which finds that it is cancelled */
		return;
	}
}

/* oldtag[2] → */
static void flush(struct p9_request *r)
{
	struct p9 *s = r->s;
	uint16_t tag = p9_get_u16(&r->in);
	struct p9_request *old = r->in.bad ? NULL : s->tags[tag];

	if (r->in.bad) {
		fail(r, -EINVAL);
		return;
	}
	if (!old || old == r) {
		fail(r, 0);
		return;
	}
	r->result = 0;
	r->body.done = 0;
	r->next = NULL;
	for (struct p9_request **at = &old->flushes;; at = &(*at)->next) {
		if (*at)
			continue;
		*at = r;
		break;
	}
	cancel(old);
}

static void version_finish(struct p9 *s)
{
	struct p9_request *r = s->version;
	char text[32];
	uint32_t msize = p9_get_u32(&r->in);
	int err = p9_get_string(&r->in, text, sizeof(text));

	s->version = NULL;
	p9_fid_free_all(s);
	s->dialect = P9_NONE;
	r->body = r->e->wr;
	cursor_skip(&r->body, P9_HEADER);
	r->body.done = 0;
	if (r->in.bad || (err < 0 && err != -ENAMETOOLONG)) {
		fail(r, -EINVAL);
	} else if (msize < P9_MIN_MSIZE) {
		log_guest_warn("the guest wants messages of at most %u bytes: too small", msize);
		fail(r, -EMSGSIZE);
	} else {
		s->msize = (uint32_t)MIN(msize, s->max_msize);
		s->dialect = strcmp(text, "9P2000.L") == 0   ? P9_2000L
			     : strcmp(text, "9P2000.u") == 0 ? P9_2000U
							     : P9_NONE;
		p9_put_u32(&r->body, s->msize);
		p9_put_string(&r->body, s->dialect == P9_NONE ? "unknown" : text);
		r->result = r->body.bad ? -EMSGSIZE : 0;
		finish(r);
	}
	if (s->q)
		virtqueue_wake(s->q);
}

/* msize[4] version[s] → msize[4] version[s]: a new session; all of the old one ends first. */
static void version(struct p9_request *r)
{
	struct p9 *s = r->s;

	s->version = r;
	for (unsigned i = 0; i < P9_TAGS && s->inflight > 1; i++) {
		if (s->tags[i] && s->tags[i] != r && !s->tags[i]->cancelled)
			cancel(s->tags[i]);
	}
	if (s->inflight == 1)
		version_finish(s);
}

/* Taking requests */

static void get_fids(struct p9_request *r)
{
	const struct p9_op *op = r->op;
	struct cursor peek;

	r->id[0] = r->id[1] = P9_NOFID;
	if (op->fids > 0)
		r->id[0] = p9_get_u32(&r->in);
	if (op->fids > 1 && !op->second_later) {
		r->id[1] = p9_get_u32(&r->in);
	} else if (op->fids > 1) {
		peek = r->in;
		cursor_skip(&peek, p9_get_u16(&peek));
		r->id[1] = p9_get_u32(&peek);
	} else if (r->type == TCREATE) {
		peek = r->in;
		r->id[1] = p9_link_fid(&peek);
	}
	if (r->type == TWALK) {
		peek = r->in;
		r->in_names = p9_get_u16(&peek) > 0;
	}
}

/* What is wrong with a request as such. */
static int check(struct p9_request *r, uint32_t size)
{
	const struct p9 *s = r->s;

	if (r->e->fault)
		return -EFAULT;
	if (size < P9_HEADER || size - P9_HEADER > r->in.left)
		return -EINVAL;
	if (r->type != TVERSION && s->dialect != P9_NONE && size > s->msize)
		return -EMSGSIZE;
	r->in.left = size - P9_HEADER;
	if (s->tags[r->tag])
		return -EINVAL;
	if (r->type == TVERSION || (r->type == TFLUSH && s->dialect != P9_NONE))
		return 0;
	if (s->dialect == P9_NONE)
		return -EPROTO;
	if (r->type > LAST_TYPE || r->type % 2 || !ops[r->type / 2].run ||
		!(ops[r->type / 2].dialects & (1u << s->dialect)))
		return -EOPNOTSUPP;
	r->op = &ops[r->type / 2];
	get_fids(r);
	if (r->in.bad)
		return -EINVAL;
	return r->op->changes && s->read_only ? -EROFS : 0;
}

static void request(struct p9 *s, struct element *e)
{
	struct p9_request *r = e->req;
	uint32_t size;
	int err;

	r->s = s;
	r->e = e;
	r->in = e->rd;
	size = p9_get_u32(&r->in);
	r->type = p9_get_u8(&r->in);
	r->tag = p9_get_u16(&r->in);
	if (unlikely(r->in.bad || e->wr.left < P9_ERROR + (s->dialect == P9_2000U ? 2 : 0))) {
		log_guest_warn("a request of %zu bytes, with %zu for its answer", e->rd.left, e->wr.left);
		virtqueue_count_error(e->queue);
		virtqueue_push(e);
		return;
	}
	err = check(r, size);
	s->inflight++;
	if (err < 0) {
		if (err != -EROFS)
			virtqueue_count_error(e->queue);
		fail(r, err);
		return;
	}
	s->tags[r->tag] = r;
	if (r->type == TVERSION)
		version(r);
	else if (r->type == TFLUSH)
		flush(r);
	else
		start(r);
}

void p9_requests_take(struct p9 *s, struct virtqueue *q)
{
	struct element *e;

	while (!s->version && (e = virtqueue_pop(q)) != NULL) {
		request(s, e);
		drain(s);
	}
}

void p9_requests_stop(struct p9 *s)
{
	locks_retry(s);
	drain(s);
}

void p9_requests_init(struct p9 *s)
{
	s->runnable_tail = &s->runnable;
	s->locks_tail = &s->locks;
	s->lock_timer.expired = lock_timer_expired;
	p9_session_end(s);
}

void p9_session_end(struct p9 *s)
{
	p9_fid_free_all(s);
	s->dialect = P9_NONE;
	s->lock_delay = LOCK_FIRST;
}
