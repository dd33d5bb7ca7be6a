/* SPDX-License-Identifier: MIT */
/* The event loop: order of a turn, removal from within handlers, timers, posts, calls and spinning. */
#include "loop.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "tap.h"
#include "util.h"

static struct loop *loop;
static char trace[256];

static void mark(const char *what)
{
	strncat(trace, what, sizeof(trace) - strlen(trace) - 1);
}

static int event_new(uint64_t value)
{
	int fd = eventfd((unsigned)value, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK_SYS(fd);
	return fd;
}

static void setup(void)
{
	CHECK_EQ(loop_new(&loop, "test"), 0);
}

static void stop_run(struct task *t)
{
	(void)t;
	loop_stop(loop);
}

static struct task stop_task = {.run = stop_run};

static void stop_expired(struct timer *t)
{
	(void)t;
	mark("!");
	loop_stop(loop);
}

/* fds */

struct node {
	struct watch w;
	struct node *victim;
	const char *name;
};

static void node_ready(struct watch *w, uint32_t events)
{
	struct node *n = container_of(w, struct node, w);

	CHECK(events & EPOLLIN);
	mark(n->name);
	if (n->victim != NULL)
		watch_del(&n->victim->w);
	watch_del(w);
	loop_defer(loop, &stop_task);
}

static void removed_watch_is_not_called(void *arg)
{
	int a = event_new(1), b = event_new(1);
	struct node one = {.w.ready = node_ready, .name = "1"}, two = {.w.ready = node_ready, .name = "2"};

	(void)arg;
	setup();
	one.victim = &two;
	two.victim = &one;
	CHECK_EQ(watch_add(loop, &one.w, a, EPOLLIN), 0);
	CHECK_EQ(watch_add(loop, &two.w, b, EPOLLIN), 0);
	loop_run(loop);
	CHECK_EQ(strlen(trace), 1);
	watch_del(&one.w);
	watch_del(&one.w);
	loop_free(loop);
}

static void watch_takes_no_file(void *arg)
{
	struct watch w = {.ready = node_ready};
	FILE *f = tmpfile();

	(void)arg;
	setup();
	CHECK(f != NULL);
	CHECK_EQ(watch_add(loop, &w, fileno(f), EPOLLIN), -EPERM);
	CHECK_EQ(watch_modify(&w, EPOLLOUT), -ENOENT);
	watch_del(&w);
	loop_free(loop);
}

static void out_ready(struct watch *w, uint32_t events)
{
	CHECK_EQ(events, EPOLLOUT);
	CHECK_EQ(watch_modify(w, 0), 0);
	mark("w");
	loop_stop(loop);
}

static void watch_modifies(void *arg)
{
	struct watch w = {.ready = out_ready};
	int s[2];

	(void)arg;
	setup();
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_EQ(watch_add(loop, &w, s[0], EPOLLIN), 0);
	CHECK_EQ(watch_modify(&w, EPOLLOUT), 0);
	loop_run(loop);
	CHECK_STR(trace, "w");
	watch_del(&w);
	loop_free(loop);
}

/* tasks */

struct chain {
	struct task t;
	const char *name;
	struct chain *defer, *again, *cancel;
	struct timer *end; /* some time after that one */
};

static void chain_run(struct task *t)
{
	struct chain *c = container_of(t, struct chain, t);

	mark(c->name);
	if (c->defer != NULL)
		loop_defer(loop, &c->defer->t);
	if (c->again != NULL)
		loop_again(loop, &c->again->t);
	if (c->cancel != NULL)
		loop_cancel(loop, &c->cancel->t);
	if (c->end != NULL)
		timer_arm_in(loop, c->end, 5000000);
}

static void tasks_run_in_order(void *arg)
{
	struct timer end = {.expired = stop_expired};
	struct chain last = {.t.run = chain_run, .name = "d", .end = &end};
	struct chain next = {.t.run = chain_run, .name = "c", .defer = &last};
	struct chain dead = {.t.run = chain_run, .name = "x"};
	struct chain tail = {.t.run = chain_run, .name = "b", .again = &next, .cancel = &dead};
	struct chain head = {.t.run = chain_run, .name = "a", .defer = &tail};

	(void)arg;
	setup();
	loop_defer(loop, &head.t);
	loop_defer(loop, &head.t);
	loop_defer(loop, &dead.t);
	loop_cancel(loop, &dead.t);
	loop_again(loop, &dead.t); /* before the deferred ones */
	loop_run(loop);
	CHECK_STR(trace, "xabcd!");
	loop_free(loop);
}

static void cancelled_tail_keeps_the_list(void *arg)
{
	struct chain a = {.t.run = chain_run, .name = "a"}, b = {.t.run = chain_run, .name = "b"},
		     c = {.t.run = chain_run, .name = "c"};

	(void)arg;
	setup();
	loop_defer(loop, &a.t);
	loop_defer(loop, &b.t);
	loop_cancel(loop, &b.t);
	loop_defer(loop, &c.t);
	loop_defer(loop, &stop_task);
	loop_run(loop);
	CHECK_STR(trace, "ac");
	loop_free(loop);
}

/* timers */

struct alarm {
	struct timer t;
	const char *name;
	struct alarm *disarm, *rearm;
};

static void alarm_expired(struct timer *t)
{
	struct alarm *a = container_of(t, struct alarm, t);

	CHECK_EQ(t->at, 0);
	mark(a->name);
	if (a->disarm != NULL)
		timer_disarm(&a->disarm->t);
	if (a->rearm != NULL)
		timer_arm(loop, &a->rearm->t, 0);
	a->rearm = NULL;
}

static void timers_expire_in_order(void *arg)
{
	struct alarm a = {.t.expired = alarm_expired, .name = "a"};
	struct alarm b = {.t.expired = alarm_expired, .name = "b"};
	struct alarm c = {.t.expired = alarm_expired, .name = "c"};
	struct alarm d = {.t.expired = alarm_expired, .name = "d"};
	struct timer end = {.expired = stop_expired};
	uint64_t start = time_ns();

	(void)arg;
	setup();
	timer_arm(loop, &c.t, start + 3000000);
	timer_arm(loop, &a.t, start + 1000000);
	timer_arm(loop, &d.t, start + 1);
	timer_arm(loop, &b.t, start + 1000000);
	timer_arm(loop, &d.t, start + 500000000); /* far from c, even on a busy machine */
	timer_arm(loop, &end, start + 550000000);
	a.disarm = &b; /* due in the same turn */
	c.rearm = &c;
	loop_run(loop);
	CHECK_STR(trace, "accd!");
	CHECK(time_ns() - start >= 550000000);
	CHECK_EQ(b.t.at, 0);
	timer_disarm(&b.t);
	loop_free(loop);
}

static void timer_is_precise(void *arg)
{
	struct timer end = {.expired = stop_expired};
	uint64_t best = UINT64_MAX;

	(void)arg;
	setup();
	/* the best of many: a busy machine is late now and then, a loop that rounds to milliseconds always */
	for (int i = 0; i < 50; i++) {
		uint64_t start = time_ns(), took;

		timer_arm_in(loop, &end, 100000);
		loop_run(loop);
		took = time_ns() - start;
		CHECK(took >= 100000);
		best = MIN(best, took);
	}
	CHECK(best < 900000);
	loop_free(loop);
}

/* other threads */

struct counter {
	struct post post;
	int *count, last;
};

static void count_run(struct post *p)
{
	struct counter *c = container_of(p, struct counter, post);

	CHECK(loop_is_mine(loop));
	++*c->count;
}

static void posts_arrive_once(void *arg)
{
	int count = 0;
	struct counter c[100];

	(void)arg;
	setup();
	for (int i = 0; i < 100; i++) {
		c[i] = (struct counter){.post.run = count_run, .count = &count};
		loop_post(loop, &c[i].post);
		loop_post(loop, &c[i].post);
	}
	CHECK_EQ(count, 0);
	CHECK_EQ(loop_spawn(loop), 0);
	loop_free(loop);
	CHECK_EQ(count, 100);
}

static void free_delivers_posts(void *arg)
{
	int count = 0;
	struct counter c = {.post.run = count_run, .count = &count};

	(void)arg;
	setup();
	loop_post(loop, &c.post);
	loop_free(loop);
	CHECK_EQ(count, 1);
}

static void call_fn(void *arg)
{
	CHECK(loop_is_mine(loop));
	++*(int *)arg;
}

static void *caller(void *arg)
{
	for (int i = 0; i < 2000; i++)
		loop_call(loop, call_fn, arg);
	return NULL;
}

static void calls_are_served(void *arg)
{
	pthread_t threads[3];
	int count = 0;

	(void)arg;
	setup();
	call_fn(&count); /* nobody runs it: it is ours */
	loop_call(loop, call_fn, &count);
	CHECK_EQ(loop_spawn(loop), 0);
	CHECK(!loop_is_mine(loop));
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, caller, &count), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	loop_free(loop);
	CHECK_EQ(count, 6002);
}

static void *stopper(void *arg)
{
	(void)arg;
	loop_stop(loop);
	return NULL;
}

/* A call that races with the end of the loop returns, whoever ran it. */
static void call_races_with_stop(void *arg)
{
	pthread_t t;
	int count = 0;

	(void)arg;
	for (int i = 0; i < 300; i++) {
		setup();
		CHECK_EQ(loop_spawn(loop), 0);
		CHECK_EQ(pthread_create(&t, NULL, stopper, NULL), 0);
		loop_call(loop, call_fn, &count);
		pthread_join(t, NULL);
		loop_free(loop);
	}
	CHECK_EQ(count, 300);
}

static void stop_before_run_counts(void *arg)
{
	(void)arg;
	setup();
	loop_stop(loop);
	loop_run(loop);
	loop_defer(loop, &stop_task);
	loop_run(loop);
	loop_free(loop);
}

static void on_signal(int sig)
{
	(void)sig;
	loop_stop(loop);
}

static void signal_stops(void *arg)
{
	struct timer end = {.expired = stop_expired};

	(void)arg;
	setup();
	signal(SIGALRM, on_signal);
	timer_arm_in(loop, &end, 20000000000u);
	alarm(1);
	loop_run(loop);
	CHECK_STR(trace, "");
	loop_free(loop);
}

static void mask_fn(void *arg)
{
	pthread_sigmask(SIG_BLOCK, NULL, arg);
}

static void thread_blocks_signals(void *arg)
{
	sigset_t set;

	(void)arg;
	setup();
	CHECK_EQ(loop_spawn(loop), 0);
	loop_call(loop, mask_fn, &set);
	CHECK(sigismember(&set, SIGTERM) == 1);
	CHECK(sigismember(&set, SIGINT) == 1);
	CHECK(sigismember(&set, SIGBUS) == 0);
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	CHECK(sigismember(&set, SIGTERM) == 0);
	loop_free(loop);
}

/* pollers */

struct work {
	struct poller p;
	int *flag; /* atomic: work to do */
	unsigned long looked, found, rested;
};

static bool work_poll(struct poller *p)
{
	struct work *w = container_of(p, struct work, p);

	w->looked++;
	if (w->flag == NULL || !__atomic_exchange_n(w->flag, 0, __ATOMIC_ACQ_REL))
		return false;
	w->found++;
	return true;
}

static bool work_rest(struct poller *p)
{
	struct work *w = container_of(p, struct work, p);

	w->rested++;
	return false;
}

static void tick_expired(struct timer *t)
{
	timer_arm_in(loop, t, 1000000);
}

static uint64_t thread_ns(void)
{
	struct timespec ts;

	CHECK_SYS(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts));
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Woken only by a timer, every millisecond, with a limit of 2 ms: soon there is hardly any spinning. */
static void useless_spinning_ends(void *arg)
{
	struct work w = {.p.poll = work_poll, .p.rest = work_rest};
	struct timer tick = {.expired = tick_expired}, end = {.expired = stop_expired};
	uint64_t used;

	(void)arg;
	setup();
	loop_set_spin(loop, 2000000);
	loop_poller_add(loop, &w.p);
	loop_poller_add(loop, &w.p);
	timer_arm_in(loop, &tick, 1000000);
	timer_arm_in(loop, &end, 60000000);
	loop_run(loop);
	used = thread_ns();
	timer_arm_in(loop, &end, 200000000);
	loop_run(loop);
	CHECK(thread_ns() - used < 40000000);
	CHECK(w.rested > 20);
	timer_disarm(&tick);
	loop_poller_del(loop, &w.p);
	loop_poller_del(loop, &w.p);
	loop_free(loop);
}

/* Work that is there at every third look, and a timer that wakes the loop should it sleep all the same. */
struct feed {
	struct work w;
	struct timer wake;
};

static bool feed_poll(struct poller *p)
{
	struct feed *f = container_of(p, struct feed, w.p);

	if (++f->w.looked % 3 != 0)
		return false;
	f->w.found++;
	return true;
}

static void feed_expired(struct timer *t)
{
	timer_arm_in(loop, t, 1000000);
}

static void useful_spinning_goes_on(void *arg)
{
	struct feed f = {.w = {.p.poll = feed_poll, .p.rest = work_rest}, .wake.expired = feed_expired};
	struct timer end = {.expired = stop_expired};

	(void)arg;
	setup();
	loop_poller_add(loop, &f.w.p);
	timer_arm_in(loop, &f.wake, 0);
	timer_arm_in(loop, &end, 20000000);
	loop_run(loop);
	CHECK_EQ(f.w.found, 0); /* it does not spin yet */
	CHECK(f.w.rested > 0);
	f.w.rested = 0;
	loop_set_spin(loop, 5000000);
	timer_arm_in(loop, &end, 100000000);
	loop_run(loop);
	CHECK(f.w.found > 50);
	CHECK(f.w.rested * 4 < f.w.found);
	timer_disarm(&f.wake);
	loop_poller_del(loop, &f.w.p);
	loop_free(loop);
}

/* Nobody wakes us, and the loop does not spin: naps find the work, and grow to 1 ms while there is none. */
static void naps_find_work(void *arg)
{
	int flag = 0;
	struct work w = {.p.poll = work_poll, .p.always = true, .flag = &flag};
	struct timer end = {.expired = stop_expired};

	(void)arg;
	setup();
	loop_poller_add(loop, &w.p);
	timer_arm_in(loop, &end, 300000000);
	loop_run(loop);
	CHECK(w.looked > 10);
	CHECK(w.looked < 350);
	flag = 1;
	timer_arm_in(loop, &end, 20000000);
	loop_run(loop);
	CHECK_EQ(w.found, 1);
	CHECK_EQ(flag, 0);
	loop_poller_del(loop, &w.p);
	loop_free(loop);
}

struct pair {
	struct poller p;
	struct pair *other;
	int calls;
};

static bool pair_poll(struct poller *p)
{
	struct pair *me = container_of(p, struct pair, p);

	me->calls++;
	loop_poller_del(loop, &me->other->p);
	loop_poller_del(loop, p);
	loop_stop(loop);
	return true;
}

static void pollers_remove_each_other(void *arg)
{
	struct pair a = {.p.poll = pair_poll}, b = {.p.poll = pair_poll};

	(void)arg;
	setup();
	a.other = &b;
	b.other = &a;
	loop_set_spin(loop, 1000000);
	loop_poller_add(loop, &a.p);
	loop_poller_add(loop, &b.p);
	loop_run(loop);
	CHECK_EQ(a.calls, 1);
	CHECK_EQ(b.calls, 0);
	loop_free(loop);
}

/* Somebody who always has more to do, next to two pollers: one that asks for kicks, one that nobody wakes. */
struct busy {
	struct task again;
	struct poller sleepy, alone;
	unsigned turns, looked, rested, polled;
};

static void busy_run(struct task *t)
{
	struct busy *b = container_of(t, struct busy, again);

	if (++b->turns < 1000 || (b->rested < 10 && b->turns < 100000000))
		loop_again(loop, t);
	else
		loop_stop(loop);
}

static bool sleepy_poll(struct poller *p)
{
	container_of(p, struct busy, sleepy)->looked++;
	return false;
}

static bool sleepy_rest(struct poller *p)
{
	container_of(p, struct busy, sleepy)->rested++;
	return false;
}

static bool alone_poll(struct poller *p)
{
	container_of(p, struct busy, alone)->polled++;
	return false;
}

static void busy_loop_starves_nobody(void *arg)
{
	struct busy b = {
		.again.run = busy_run,
		.sleepy = {.poll = sleepy_poll, .rest = sleepy_rest},
		.alone = {.poll = alone_poll, .always = true},
	};

	(void)arg;
	setup();
	loop_poller_add(loop, &b.sleepy);
	loop_poller_add(loop, &b.alone);
	loop_again(loop, &b.again);
	loop_run(loop);
	CHECK(b.rested >= 10);
	CHECK(b.polled > 900);
	CHECK(b.looked > 900);
	loop_poller_del(loop, &b.sleepy);
	loop_poller_del(loop, &b.alone);
	loop_free(loop);
}

static void freed(void *obj)
{
	++*(int *)obj;
}

static void companion_is_freed(void *arg)
{
	int n = 0;

	(void)arg;
	setup();
	CHECK(loop_companion(loop) == NULL);
	loop_set_companion(loop, &n, freed);
	CHECK(loop_companion(loop) == &n);
	loop_free(loop);
	CHECK_EQ(n, 1);
}

static int log_file;

/* Does not come back before that was complained about. */
static void hangs(struct post *p)
{
	char text[256] = "";

	(void)p;
	while (!strstr(text, "thread test has not answered for 0.0 s\n")) {
		usleep(500);
		CHECK_SYS(pread(log_file, text, sizeof(text) - 1, 0));
	}
}

static void count_call(void *arg)
{
	++*(int *)arg;
}

static void long_call_is_logged(void *arg)
{
	struct post post = {.run = hangs};
	int n = 0;

	(void)arg;
	setup();
	loop_patience_ns = 10000000;
	log_file = memfd_create("log", MFD_CLOEXEC);
	CHECK_SYS(log_file);
	CHECK_SYS(dup2(log_file, 2));
	CHECK_EQ(loop_spawn(loop), 0);
	loop_post(loop, &post);
	loop_call(loop, count_call, &n);
	CHECK_EQ(n, 1);
	loop_free(loop);
}

static bool never(struct poller *p)
{
	(void)p;
	return false;
}

struct late {
	struct poller poller;
	struct task task;
	bool asked;
};

static bool late_ask(struct poller *p)
{
	struct late *late = container_of(p, struct late, poller);

	if (!late->asked)
		loop_again(loop, &late->task);
	late->asked = true;
	return false;
}

static void late_stop(struct task *t)
{
	(void)t;
	loop_stop(loop);
}

/* A poller that has no work for now asks for the next turn: the loop must not sleep before it. */
static void late_task_runs(void *arg)
{
	struct late late = {.task.run = late_stop};

	setup();
	if (arg) {
		late.poller.poll = late_ask;
		loop_set_spin(loop, 50000);
	} else {
		late.poller.poll = never;
		late.poller.rest = late_ask;
	}
	loop_poller_add(loop, &late.poller);
	loop_run(loop);
	CHECK(late.asked);
	loop_poller_del(loop, &late.poller);
	loop_free(loop);
}

int main(void)
{
	tap_case("a task for the next turn, asked for while polling", late_task_runs, "");
	tap_case("a task for the next turn, asked for before sleeping", late_task_runs, NULL);
	tap_case("a watch removed by a handler is not called", removed_watch_is_not_called, NULL);
	tap_case("a regular file can't be watched", watch_takes_no_file, NULL);
	tap_case("a watch can be modified", watch_modifies, NULL);
	tap_case("tasks run in order, this turn and the next", tasks_run_in_order, NULL);
	tap_case("cancelling the last task keeps the list", cancelled_tail_keeps_the_list, NULL);
	tap_case("timers expire in order and can be moved", timers_expire_in_order, NULL);
	tap_case("timers are finer than a millisecond", timer_is_precise, NULL);
	tap_case("posts arrive once", posts_arrive_once, NULL);
	tap_case("loop_free delivers what is posted", free_delivers_posts, NULL);
	tap_case("calls from threads are served", calls_are_served, NULL);
	tap_case("a call that takes long is logged", long_call_is_logged, NULL);
	tap_case("a call races with the end of the loop", call_races_with_stop, NULL);
	tap_case("a stop before the run counts", stop_before_run_counts, NULL);
	tap_case("a signal handler can stop the loop", signal_stops, NULL);
	tap_case("a loop's thread blocks signals, not faults", thread_blocks_signals, NULL);
	tap_case("spinning that never hits ends", useless_spinning_ends, NULL);
	tap_case("spinning that pays goes on", useful_spinning_goes_on, NULL);
	tap_case("naps find work that nobody announces", naps_find_work, NULL);
	tap_case("a loop that never sleeps starves no poller", busy_loop_starves_nobody, NULL);
	tap_case("pollers remove each other", pollers_remove_each_other, NULL);
	tap_case("the companion is freed with the loop", companion_is_freed, NULL);
	return tap_done();
}
