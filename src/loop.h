/* SPDX-License-Identifier: MIT */
/*
 * Event loop: one loop, one thread. Everything below is embedded in the caller's structures; nothing is
 * allocated per event. Unless said otherwise a function may only be called from the loop's own thread (or
 * before it runs).
 *
 * A turn is: wait for fds and timers, call their handlers, then the deferred tasks, until none is left. What
 * handlers produce is therefore published once per turn (used rings, io_uring submissions).
 */
#ifndef LOOP_H
#define LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;

struct watch {
	void (*ready)(struct watch *w, uint32_t events); /* EPOLL* bits */
	int fd;						 /* borrowed; -1: not watched */
	uint32_t events;
	struct loop *loop;
};

struct timer {
	void (*expired)(struct timer *t);
	uint64_t at; /* monotonic ns; 0: not armed (arming for 0 means at once) */
	struct timer *next;
	struct loop *loop;
};

/* Work for later in the same thread. A queued task is queued once, however often it is asked for. */
struct task {
	void (*run)(struct task *t);
	struct task *next;
	bool queued;
};

/* Looked at before the loop sleeps; returns true when it found (and did) work. */
struct poller {
	bool (*poll)(struct poller *p);
	/* May be NULL. The loop is about to sleep: ask to be notified; true: work came meanwhile, don't
	 * sleep. */
	bool (*rest)(struct poller *p);
	struct poller *next;
	bool always; /* nobody will wake us for this one: never sleep for long */
};

/* A message to a loop from any thread; embedded, owned by the loop from loop_post() until run() is called. */
struct post {
	void (*run)(struct post *p);
	struct post *next;
	int queued; /* atomic */
};

/* name: for the thread and the log; copied. Returns -errno. */
int loop_new(struct loop **out, const char *name);
/*
 * The loop must not be running; a thread started by loop_spawn() is stopped and joined first. Posts that were
 * not delivered are delivered here, queued tasks are dropped, watches and timers must be gone.
 */
void loop_free(struct loop *l);

/* Runs in the calling thread until loop_stop(); a stop that came before it runs counts. The turn is finished
 * first. */
void loop_run(struct loop *l);
/* Any thread, also a signal handler's thread context is fine (one write to an eventfd). */
void loop_stop(struct loop *l);
/* Runs the loop in a thread of its own, all signals blocked. -errno. */
int loop_spawn(struct loop *l);
/* A thread as the loops use it: named, all signals blocked but those that a fault raises (SIGBUS…). -errno.
 */
int loop_thread(pthread_t *out, const char *name, void *(*fn)(void *arg), void *arg);
/* True in the loop's own thread, or while it does not run at all. */
bool loop_is_mine(const struct loop *l);

/* Level-triggered; w->ready must be set. -errno (epoll_ctl). A regular file gives -EPERM. */
int watch_add(struct loop *l, struct watch *w, int fd, uint32_t events);
int watch_modify(struct watch *w, uint32_t events);
/* Idempotent; pending events of this turn are dropped too. Call before closing the fd. */
void watch_del(struct watch *w);

/* One-shot; re-arming moves it. */
void timer_arm(struct loop *l, struct timer *t, uint64_t at_ns);
void timer_arm_in(struct loop *l, struct timer *t, uint64_t delay_ns);
void timer_disarm(struct timer *t);

/* Monotonic ns when somebody first asked in this turn: cheap enough for every request. */
uint64_t loop_now(struct loop *l);

/* End of this turn (a task queued by a task still runs in this turn). */
void loop_defer(struct loop *l, struct task *t);
/* Next turn, which then does not sleep: for somebody who has more to do but lets others go first. */
void loop_again(struct loop *l, struct task *t);
void loop_cancel(struct loop *l, struct task *t);

/* Any thread: p->run(p) is called in l's thread soon. Posting a queued post again is a no-op. */
void loop_post(struct loop *l, struct post *p);
/* A wait of our own threads for each other that takes longer is logged, and again each time it has doubled. 5 s; tests shorten it. */
extern uint64_t loop_patience_ns;

/* Any thread: calls fn(arg) in l's thread and waits for it; at once when it is our own thread or l does not
 * run. */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/*
 * Busy polling: before sleeping the loop calls its pollers for up to max_ns, less when experience says that
 * waiting rarely pays (it adapts like halt polling does). 0 turns it off. `always` pollers are looked at with
 * short naps.
 */
void loop_set_spin(struct loop *l, uint64_t max_ns);
void loop_poller_add(struct loop *l, struct poller *p);
void loop_poller_del(struct loop *l, struct poller *p);

/* A slot for one companion object of the loop (its io_uring); freed by the loop through free_fn. */
void *loop_companion(struct loop *l);
void loop_set_companion(struct loop *l, void *obj, void (*free_fn)(void *obj));

#endif
