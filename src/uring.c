/* SPDX-License-Identifier: MIT */
/*
 * io_uring on a loop. The ring is the loop's companion. Its fd is watched like any other; a deferred task
 * submits what the turn has queued and takes what is complete by then at once, so I/O that the kernel could
 * do without waiting never costs a wake-up. While the loop spins, the completion queue is one of the things
 * that it looks at.
 *
 * Completions are first moved to a list and then dispatched, so that uring_sqe() may make room in a full
 * completion queue without calling anybody back in the middle of the caller's work.
 *
 * The ring is made disabled and enabled with the first submission: the thread that submits first is the one
 * that the kernel takes for the ring's only issuer, and that is the loop's, no matter who made the ring.
 */
#include "uring.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "util.h"

#define SQ_ENTRIES 256u
#define CQ_ENTRIES 4096u
#define MAX_FILES  64u

struct uring {
	struct io_uring ring;
	struct loop *loop;
	struct watch watch;
	struct task submit;
	struct poller poller;
	struct uring_op *ended, **ended_tail;
	bool enabled, files;
	int fds[MAX_FILES]; /* the fixed-file table; -1: free */
	unsigned refs[MAX_FILES];
};

/* Best first; what a kernel does not know gives EINVAL. */
static const unsigned ring_flags[] = {
	IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		IORING_SETUP_SINGLE_ISSUER,						 /* Linux 6.0 */
	IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 5.19 */
	IORING_SETUP_R_DISABLED,							 /* 5.10 */
};

static int ring_init(struct io_uring *ring, unsigned sq, unsigned cq)
{
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(ring_flags) && r == -EINVAL; i++) {
		struct io_uring_params p = {.flags = ring_flags[i] | IORING_SETUP_CQSIZE, .cq_entries = cq};

		r = io_uring_queue_init_params(sq, ring, &p);
	}
	return r;
}

/* Completions */

static void collect(struct uring *u)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe)
	{
		struct uring_op *op = io_uring_cqe_get_data(cqe);

		op->res = cqe->res;
		op->next = NULL;
		*u->ended_tail = op;
		u->ended_tail = &op->next;
		n++;
	}
	io_uring_cq_advance(&u->ring, n);
}

static void dispatch(struct uring *u)
{
	struct uring_op *op;

	while ((op = u->ended) != NULL) {
		u->ended = op->next;
		if (u->ended == NULL)
			u->ended_tail = &u->ended;
		op->done(op, op->res);
	}
}

/* The kernel has completions that it did not post yet: overflown, or task work that waits for us to enter it.
 */
static bool kernel_holds_some(const struct uring *u)
{
	return IO_URING_READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

static bool reap(struct uring *u)
{
	bool any = false;

	for (;;) {
		if (kernel_holds_some(u))
			io_uring_get_events(&u->ring);
		collect(u);
		if (u->ended == NULL)
			return any;
		any = true;
		dispatch(u);
	}
}

static void ring_ready(struct watch *w, uint32_t events)
{
	(void)events;
	reap(container_of(w, struct uring, watch));
}

static bool ring_poll(struct poller *p)
{
	return reap(container_of(p, struct uring, poller));
}

/* Submission */

static int submit(struct uring *u)
{
	/* by hand: Debian 12's liburing declares io_uring_enable_rings() but does not export it */
	if (!u->enabled) {
		if (syscall(SYS_io_uring_register, u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) <
			0)
			return -errno;
		u->enabled = true;
	}
	return io_uring_submit(&u->ring);
}

static void submit_run(struct task *t)
{
	struct uring *u = container_of(t, struct uring, submit);

	submit(u);
	reap(u);
	/* short of memory, or the completion queue was full: what is left goes next turn */
	if (io_uring_sq_ready(&u->ring) > 0)
		loop_again(u->loop, &u->submit);
}

struct io_uring_sqe *uring_sqe(struct uring *u, struct uring_op *op)
{
	struct io_uring_sqe *sqe;

	while ((sqe = io_uring_get_sqe(&u->ring)) == NULL) {
		if (submit(u) > 0)
			continue;
		if (kernel_holds_some(u))
			io_uring_get_events(&u->ring);
		collect(u);
		sched_yield();
	}
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data(sqe, op);
	loop_defer(u->loop, &u->submit);
	return sqe;
}

/* Fixed files */

int uring_register_file(struct uring *u, int fd)
{
	int slot = -1, r;

	if (!u->files)
		return -EOPNOTSUPP;
	for (int i = 0; i < (int)MAX_FILES; i++) {
		if (u->fds[i] == fd) {
			u->refs[i]++;
			return i;
		}
		if (u->fds[i] < 0 && slot < 0)
			slot = i;
	}
	if (slot < 0)
		return -ENOSPC;
	r = io_uring_register_files_update(&u->ring, (unsigned)slot, &fd, 1);
	if (r < 0)
		return r;
	u->fds[slot] = fd;
	u->refs[slot] = 1;
	return slot;
}

void uring_unregister_file(struct uring *u, int fd)
{
	int none = -1;

	for (unsigned i = 0; i < MAX_FILES; i++) {
		if (u->fds[i] != fd || --u->refs[i] > 0)
			continue;
		io_uring_register_files_update(&u->ring, i, &none, 1);
		u->fds[i] = -1;
		return;
	}
}

/* Life */

static void uring_free(void *obj)
{
	struct uring *u = obj;

	loop_cancel(u->loop, &u->submit);
	loop_poller_del(u->loop, &u->poller);
	watch_del(&u->watch);
	io_uring_queue_exit(&u->ring);
	free(u);
}

struct uring *uring_get(struct loop *l)
{
	struct uring *u = loop_companion(l);
	int r;

	if (u != NULL)
		return u;
	u = calloc(1, sizeof(*u));
	if (u == NULL)
		return NULL;
	r = ring_init(&u->ring, SQ_ENTRIES, CQ_ENTRIES);
	if (r < 0) {
		free(u);
		errno = -r;
		return NULL;
	}
	u->loop = l;
	u->ended_tail = &u->ended;
	u->submit.run = submit_run;
	u->watch.ready = ring_ready;
	u->poller.poll = ring_poll;
	for (unsigned i = 0; i < MAX_FILES; i++)
		u->fds[i] = -1;
	/* -1 everywhere is a sparse table, which every kernel with fixed files takes */
	u->files = io_uring_register_files(&u->ring, u->fds, MAX_FILES) == 0;
	r = watch_add(l, &u->watch, u->ring.ring_fd, EPOLLIN);
	if (r < 0) {
		io_uring_queue_exit(&u->ring);
		free(u);
		errno = -r;
		return NULL;
	}
	loop_poller_add(l, &u->poller);
	loop_set_companion(l, u, uring_free);
	return u;
}

static bool available;

static void probe(void)
{
	static const int needed[] = {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_READ, IORING_OP_WRITE,
		IORING_OP_FSYNC, IORING_OP_FALLOCATE};
	struct io_uring_probe *p;
	struct io_uring ring;

	if (ring_init(&ring, 2, 4) < 0)
		return;
	p = io_uring_get_probe_ring(&ring);
	available = p != NULL;
	for (size_t i = 0; i < ARRAY_SIZE(needed) && available; i++)
		available = io_uring_opcode_supported(p, needed[i]);
	if (p != NULL)
		io_uring_free_probe(p);
	io_uring_queue_exit(&ring);
}

bool uring_available(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, probe);
	return available;
}
