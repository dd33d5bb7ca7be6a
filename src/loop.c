/* SPDX-License-Identifier: MIT */
/*
 * The event loop over epoll(7).
 *
 * A turn: spin on the pollers (if that pays), wait, call the handlers of ready fds and expired timers, then
 * the tasks that asked for this turn with loop_again(), then the deferred ones until none is left. Handlers
 * may add and remove anything: removing a watch also wipes it from the events that are still to be delivered,
 * timers that are due sit in a list of their own, and the walk over pollers keeps its next element in the
 * loop.
 *
 * Other threads reach a loop through one list of posts under a mutex and an eventfd, written only when the
 * list was empty. `self` of the thread that runs the loop is kept in l->owner, so "is it mine?" is one
 * comparison.
 *
 * Spinning has to pay. As long as it finds work it goes on. When it found none, there is no spinning for twice
 * the time that it took, then four times, at last 2^SPIN_MISSES times: so a loop whose work never comes in time
 * wastes a few percent, and one whose work comes faster again notices soon. What it does not go by is how long
 * a sleep took: on a busy host that is the wake-up's time rather than the work's.
 */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "log.h"
#include "util.h"

#define MAX_EVENTS  64
#define FOREVER	    UINT64_MAX
#define SPIN_MISSES 6u	   /* the pause after a spin without success: at most 2^this times as long */
#define FD_LOOK_NS  20000u /* while spinning or always busy, fds are looked at this often */
#define NAP_MIN_NS  50000u
#define NAP_MAX_NS  1000000u

struct task_list {
	struct task *head, **tail;
};

struct loop {
	int epfd;
	struct watch wake;
	struct epoll_event events[MAX_EVENTS];
	int nevents; /* events[] up to here may still hold watches */

	struct timer *timers, *due;

	struct task_list deferred, again, current;

	struct poller *pollers, *next_poller;
	unsigned always; /* pollers that nobody wakes */
	uint64_t now;	 /* loop_now(), 0: nobody asked in this turn */
	uint64_t spin, nap, looked;
	uint64_t spin_again; /* not before */
	unsigned misses;     /* spins without success since the last with */

	pthread_mutex_t lock; /* posts and the fact that the loop runs */
	struct post *posts, **posts_tail;

	const void *owner; /* atomic: &self of the running thread, NULL: not running */
	int stop;	   /* atomic */
	bool spawned;
	pthread_t thread;
	char name[16];

	void *companion;
	void (*companion_free)(void *obj);
};

uint64_t loop_patience_ns = UINT64_C(5) * 1000 * 1000 * 1000;

static __thread char self;
static const char starting; /* owner between loop_spawn() and the thread's first instruction */

static void list_init(struct task_list *t)
{
	t->head = NULL;
	t->tail = &t->head;
}

static void list_push(struct task_list *list, struct task *t)
{
	if (t->queued)
		return;
	t->queued = true;
	t->next = NULL;
	*list->tail = t;
	list->tail = &t->next;
}

static struct task *list_pop(struct task_list *list)
{
	struct task *t = list->head;

	if (t == NULL)
		return NULL;
	list->head = t->next;
	if (list->head == NULL)
		list->tail = &list->head;
	t->queued = false;
	return t;
}

static bool list_remove(struct task_list *list, struct task *t)
{
	for (struct task **pp = &list->head; *pp != NULL; pp = &(*pp)->next) {
		if (*pp != t)
			continue;
		*pp = t->next;
		if (list->tail == &t->next)
			list->tail = pp;
		t->queued = false;
		return true;
	}
	return false;
}

/* Posts */

static struct post *take_posts(struct loop *l)
{
	struct post *p = l->posts;

	l->posts = NULL;
	l->posts_tail = &l->posts;
	return p;
}

static void run_posts(struct post *p)
{
	while (p != NULL) {
		struct post *next = p->next;

		__atomic_store_n(&p->queued, 0, __ATOMIC_RELEASE);
		p->run(p);
		p = next;
	}
}

static void push_post(struct loop *l, struct post *p)
{
	bool first = l->posts == NULL;
	uint64_t one = 1;

	p->next = NULL;
	*l->posts_tail = p;
	l->posts_tail = &p->next;
	/* fails only when the counter is full, and then the loop is awake anyway */
	if (first && write(l->wake.fd, &one, sizeof(one)) < 0)
		return;
}

static void wake_ready(struct watch *w, uint32_t events)
{
	struct loop *l = container_of(w, struct loop, wake);
	struct post *p;
	uint64_t n;

	(void)events;
	if (read(w->fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&l->lock);
	p = take_posts(l);
	pthread_mutex_unlock(&l->lock);
	run_posts(p);
}

void loop_post(struct loop *l, struct post *p)
{
	if (__atomic_exchange_n(&p->queued, 1, __ATOMIC_ACQ_REL))
		return;
	pthread_mutex_lock(&l->lock);
	push_post(l, p);
	pthread_mutex_unlock(&l->lock);
}

struct call {
	struct post post;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void call_run(struct post *p)
{
	struct call *c = container_of(p, struct call, post);

	c->fn(c->arg);
	sem_post(&c->done);
}

static bool call_done(struct call *c, uint64_t ns)
{
	struct timespec until;
	int r;

	clock_gettime(CLOCK_REALTIME, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / 1000000000u);
	until.tv_nsec = (long)(ns % 1000000000u);
	do
		r = sem_timedwait(&c->done, &until);
	while (r < 0 && errno == EINTR);
	return r == 0;
}

/* A loop that does not answer hangs in a system call, as a rule: the line says which, and so what to look at. */
static void call_wait(struct call *c, const struct loop *l)
{
	uint64_t waited = 0, more = loop_patience_ns;

	while (!call_done(c, more)) {
		waited += more;
		more = waited;
		log_warn("thread %s has not answered for %.1f s", l->name, (double)waited / 1e9);
	}
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
	struct call c = {.post = {.run = call_run, .queued = 1}, .fn = fn, .arg = arg};

	pthread_mutex_lock(&l->lock);
	if (loop_is_mine(l)) {
		pthread_mutex_unlock(&l->lock);
		fn(arg);
		return;
	}
	sem_init(&c.done, 0, 0);
	push_post(l, &c.post);
	pthread_mutex_unlock(&l->lock);
	call_wait(&c, l);
	sem_destroy(&c.done);
}

/* Life */

static void loop_destroy(struct loop *l)
{
	fd_close(&l->wake.fd);
	fd_close(&l->epfd);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int loop_new(struct loop **out, const char *name)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r, fd;

	if (l == NULL)
		return -ENOMEM;
	strncpy(l->name, name, sizeof(l->name) - 1);
	pthread_mutex_init(&l->lock, NULL);
	list_init(&l->deferred);
	list_init(&l->again);
	list_init(&l->current);
	l->posts_tail = &l->posts;
	l->nap = NAP_MIN_NS;
	l->wake.fd = -1;
	l->wake.ready = wake_ready;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	fd = l->epfd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = fd < 0 ? -errno : watch_add(l, &l->wake, fd, EPOLLIN);
	if (r < 0) {
		l->wake.fd = fd;
		loop_destroy(l);
		return r;
	}
	*out = l;
	return 0;
}

void loop_free(struct loop *l)
{
	if (l == NULL)
		return;
	if (l->spawned) {
		loop_stop(l);
		pthread_join(l->thread, NULL);
	}
	assert(loop_is_mine(l));
	run_posts(take_posts(l));
	if (l->companion_free != NULL)
		l->companion_free(l->companion);
	loop_destroy(l);
}

void loop_stop(struct loop *l)
{
	uint64_t one = 1;
	int saved = errno;

	__atomic_store_n(&l->stop, 1, __ATOMIC_RELEASE);
	if (write(l->wake.fd, &one, sizeof(one)) < 0)
		errno = saved;
}

bool loop_is_mine(const struct loop *l)
{
	const void *owner = __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE);

	return owner == NULL || owner == &self;
}

int loop_thread(pthread_t *out, const char *name, void *(*fn)(void *arg), void *arg)
{
	static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
	sigset_t all, old;
	int r;

	sigfillset(&all);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(out, NULL, fn, arg);
	if (r == 0)
		pthread_setname_np(*out, name);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static void *loop_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

int loop_spawn(struct loop *l)
{
	int r;

	/* from now on it runs, so that a loop_call() waits for the thread instead of racing with it */
	__atomic_store_n(&l->owner, &starting, __ATOMIC_RELEASE);
	r = loop_thread(&l->thread, l->name, loop_main, l);
	if (r < 0)
		__atomic_store_n(&l->owner, NULL, __ATOMIC_RELEASE);
	l->spawned = r == 0;
	return r;
}

void *loop_companion(struct loop *l)
{
	return l->companion;
}

void loop_set_companion(struct loop *l, void *obj, void (*free_fn)(void *obj))
{
	l->companion = obj;
	l->companion_free = free_fn;
}

/* Watches */

int watch_add(struct loop *l, struct watch *w, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};

	assert(w->ready != NULL);
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &e) < 0)
		return -errno;
	w->loop = l;
	w->fd = fd;
	w->events = events;
	return 0;
}

int watch_modify(struct watch *w, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};

	if (w->loop == NULL)
		return -ENOENT;
	if (w->events == events)
		return 0;
	if (epoll_ctl(w->loop->epfd, EPOLL_CTL_MOD, w->fd, &e) < 0)
		return -errno;
	w->events = events;
	return 0;
}

void watch_del(struct watch *w)
{
	struct loop *l = w->loop;

	if (l == NULL)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = 0; i < l->nevents; i++)
		if (l->events[i].data.ptr == w)
			l->events[i].data.ptr = NULL;
	w->loop = NULL;
	w->fd = -1;
}

/* Timers */

static bool timer_unlink(struct timer **pp, struct timer *t)
{
	for (; *pp != NULL; pp = &(*pp)->next) {
		if (*pp != t)
			continue;
		*pp = t->next;
		return true;
	}
	return false;
}

void timer_arm(struct loop *l, struct timer *t, uint64_t at_ns)
{
	struct timer **pp = &l->timers;

	timer_disarm(t);
	t->at = MAX(at_ns, 1u);
	t->loop = l;
	while (*pp != NULL && (*pp)->at <= t->at)
		pp = &(*pp)->next;
	t->next = *pp;
	*pp = t;
}

void timer_arm_in(struct loop *l, struct timer *t, uint64_t delay_ns)
{
	uint64_t at;

	if (!checked_add(time_ns(), delay_ns, &at))
		at = UINT64_MAX;
	timer_arm(l, t, at);
}

void timer_disarm(struct timer *t)
{
	if (t->at == 0)
		return;
	if (!timer_unlink(&t->loop->timers, t))
		timer_unlink(&t->loop->due, t);
	t->at = 0;
}

/* Timers that the handlers arm wait for the next turn, even if they are due at once. */
static void run_timers(struct loop *l)
{
	struct timer **pp = &l->timers;
	uint64_t now;

	if (l->timers == NULL)
		return;
	now = time_ns();
	if (l->timers->at > now)
		return;
	while (*pp != NULL && (*pp)->at <= now)
		pp = &(*pp)->next;
	l->due = l->timers;
	l->timers = *pp;
	*pp = NULL;
	while (l->due != NULL) {
		struct timer *t = l->due;

		l->due = t->next;
		t->at = 0;
		t->expired(t);
	}
}

uint64_t loop_now(struct loop *l)
{
	if (l->now == 0)
		l->now = time_ns();
	return l->now;
}

/* Tasks */

void loop_defer(struct loop *l, struct task *t)
{
	list_push(&l->deferred, t);
}

void loop_again(struct loop *l, struct task *t)
{
	list_push(&l->again, t);
}

void loop_cancel(struct loop *l, struct task *t)
{
	if (!t->queued)
		return;
	if (!list_remove(&l->deferred, t) && !list_remove(&l->again, t))
		list_remove(&l->current, t);
}

static void run_tasks(struct loop *l)
{
	struct task *t;

	while ((t = list_pop(&l->current)) != NULL)
		t->run(t);
	while ((t = list_pop(&l->deferred)) != NULL)
		t->run(t);
}

/* Pollers */

void loop_set_spin(struct loop *l, uint64_t max_ns)
{
	l->spin = max_ns;
	l->spin_again = 0;
	l->misses = 0;
}

void loop_poller_add(struct loop *l, struct poller *p)
{
	struct poller **pp = &l->pollers;

	for (; *pp != NULL; pp = &(*pp)->next)
		if (*pp == p)
			return;
	p->next = NULL;
	*pp = p;
	l->always += p->always;
	l->nap = NAP_MIN_NS;
}

void loop_poller_del(struct loop *l, struct poller *p)
{
	for (struct poller **pp = &l->pollers; *pp != NULL; pp = &(*pp)->next) {
		if (*pp != p)
			continue;
		*pp = p->next;
		l->always -= p->always;
		if (l->next_poller == p)
			l->next_poller = p->next;
		return;
	}
}

static bool poll_all(struct loop *l, bool always_only)
{
	bool hit = false;

	for (struct poller *p = l->pollers; p != NULL; p = l->next_poller) {
		l->next_poller = p->next;
		if (p->always || !always_only)
			hit |= p->poll(p);
	}
	l->next_poller = NULL;
	return hit;
}

/* True: somebody found work meanwhile. */
static bool rest_all(struct loop *l)
{
	bool hit = false;

	for (struct poller *p = l->pollers; p != NULL; p = l->next_poller) {
		l->next_poller = p->next;
		if (p->rest != NULL)
			hit |= p->rest(p);
	}
	l->next_poller = NULL;
	return hit;
}

/* The turn */

static bool stopping(const struct loop *l)
{
	return __atomic_load_n(&l->stop, __ATOMIC_ACQUIRE) != 0;
}

/* In the next turn too: pollers that are asked before the wait may have found work for it. */
static bool tasks_waiting(const struct loop *l)
{
	return l->current.head != NULL || l->deferred.head != NULL || l->again.head != NULL;
}

static int wait_ms(struct loop *l, uint64_t ns)
{
	uint64_t ms = ns / 1000000u + (ns % 1000000u != 0);

	return epoll_wait(l->epfd, l->events, MAX_EVENTS, ns == FOREVER ? -1 : (int)MIN(ms, 1000000000u));
}

/* ns 0: only look */
static int wait_events(struct loop *l, uint64_t ns)
{
	static int no_pwait2; /* Linux before 5.11 */
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
	int n;

	if (ns == 0 || ns == FOREVER || __atomic_load_n(&no_pwait2, __ATOMIC_RELAXED))
		n = wait_ms(l, ns);
	else
		n = epoll_pwait2(l->epfd, l->events, MAX_EVENTS, &ts, NULL);
	if (n < 0 && (errno == ENOSYS || errno == EPERM)) {
		__atomic_store_n(&no_pwait2, 1, __ATOMIC_RELAXED);
		n = wait_ms(l, ns);
	}
	assert(n >= 0 || errno == EINTR);
	return MAX(n, 0);
}

/* How long this turn may sleep: 0 when there is something to do. */
static uint64_t allowed_sleep(struct loop *l)
{
	uint64_t ns = l->always ? l->nap : FOREVER;
	uint64_t now;

	if (tasks_waiting(l) || stopping(l))
		return 0;
	if (l->timers == NULL)
		return ns;
	now = time_ns();
	return l->timers->at <= now ? 0 : MIN(ns, l->timers->at - now);
}

enum spin_result { SPIN_HIT, SPIN_EVENTS, SPIN_MISS };

static enum spin_result spin(struct loop *l, uint64_t start, uint64_t ns)
{
	uint64_t now = start;

	do {
		l->now = 0;
		if (poll_all(l, false))
			return SPIN_HIT;
		now = time_ns();
		if (stopping(l))
			return SPIN_EVENTS;
		if (now - l->looked < FD_LOOK_NS)
			continue;
		l->looked = now;
		l->nevents = wait_events(l, 0);
		if (l->nevents > 0)
			return SPIN_EVENTS;
	} while (now - start < ns);
	return SPIN_MISS;
}

static void spin_missed(struct loop *l, uint64_t now, uint64_t took)
{
	l->misses = MIN(l->misses + 1, SPIN_MISSES);
	l->spin_again = now + (took << l->misses);
}

static void wait_resting(struct loop *l, uint64_t ns)
{
	l->nevents = wait_events(l, rest_all(l) || tasks_waiting(l) ? 0 : ns);
	if (l->always)
		l->nap = poll_all(l, true) ? NAP_MIN_NS : MIN(l->nap * 2, NAP_MAX_NS);
}

/* The wait of a loop that has pollers and may spin. */
static void wait_spinning(struct loop *l, uint64_t ns)
{
	uint64_t start = time_ns(), took;
	enum spin_result r;

	if (start < l->spin_again) {
		wait_resting(l, ns);
		return;
	}
	r = spin(l, start, MIN(ns, l->spin));
	if (r != SPIN_HIT) { /* a wait would have found what fds bring, and sooner */
		took = time_ns() - start;
		spin_missed(l, start + took, took);
	}
	if (r == SPIN_EVENTS)
		return;
	if (r == SPIN_MISS) {
		wait_resting(l, ns == FOREVER ? ns : ns - MIN(ns, took));
		return;
	}
	l->nap = NAP_MIN_NS;
	l->misses = 0;
	/* fds don't starve: they are looked at now and then */
	if (start - l->looked >= FD_LOOK_NS) {
		l->looked = start;
		l->nevents = wait_events(l, 0);
	}
}

/* There is more to do, maybe for ever: what pollers know of must not starve meanwhile, nor what fds bring. */
static void wait_busy(struct loop *l)
{
	uint64_t now = time_ns();

	poll_all(l, false);
	if (now - l->looked < FD_LOOK_NS)
		return;
	l->looked = now;
	rest_all(l);
	l->nevents = wait_events(l, 0);
}

static void turn(struct loop *l)
{
	uint64_t ns;

	l->current = l->again;
	if (l->current.head == NULL)
		list_init(&l->current);
	list_init(&l->again);
	ns = allowed_sleep(l);
	if (ns == 0)
		wait_busy(l);
	else if (l->pollers != NULL && l->spin != 0)
		wait_spinning(l, ns);
	else
		wait_resting(l, ns);
	if (l->nevents > 0) /* a poller may have asked, before the wait */
		l->now = 0;
	for (int i = 0; i < l->nevents; i++) {
		struct watch *w = l->events[i].data.ptr;

		l->events[i].data.ptr = NULL;
		if (w != NULL)
			w->ready(w, l->events[i].events);
	}
	l->nevents = 0;
	run_timers(l);
	run_tasks(l);
	l->now = 0;
}

/* A loop_call() either sees that we are gone or is served. */
static bool leave(struct loop *l)
{
	struct post *p;

	pthread_mutex_lock(&l->lock);
	p = take_posts(l);
	if (p == NULL) {
		__atomic_store_n(&l->stop, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&l->owner, NULL, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&l->lock);
	if (p == NULL)
		return true;
	run_posts(p);
	run_tasks(l);
	return false;
}

void loop_run(struct loop *l)
{
	__atomic_store_n(&l->owner, &self, __ATOMIC_RELEASE);
	do
		while (!stopping(l))
			turn(l);
	while (!leave(l));
}
