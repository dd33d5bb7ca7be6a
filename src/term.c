/* SPDX-License-Identifier: MIT */
/*
 * A thread waits for the signals, since every other one may hang in a system call that does not come back: a write to a
 * disk that died, to a server that stopped. It tells the control loop by a descriptor, and when the process is still there
 * after LIMIT_S, it ends it.
 */
#include "term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "util.h"

#define LIMIT_S 3u

static void signals_of(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
}

static bool finished(const struct term *t)
{
	return __atomic_load_n(&t->done, __ATOMIC_ACQUIRE);
}

/* False: time is up. More signals change nothing. */
static bool finishes_in_time(const struct term *t, const sigset_t *set)
{
	uint64_t end = time_ns() + LIMIT_S * UINT64_C(1000000000), now;

	while (!finished(t) && (now = time_ns()) < end) {
		struct timespec left = {
			(time_t)((end - now) / 1000000000u), (long)((end - now) % 1000000000u)};

		sigtimedwait(set, NULL, &left);
	}
	return finished(t);
}

static void *term_main(void *arg)
{
	struct term *t = arg;
	struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
	const uint64_t one = 1;
	sigset_t set;

	signals_of(&set);
	sigwait(&set, &t->signo);
	if (finished(t))
		return NULL;
	if (write(t->fd, &one, sizeof(one)) < 0)
		log_errno(errno, "eventfd");
	if (finishes_in_time(t, &set))
		return NULL;
	if (poll(&err, 1, 0) > 0 && (err.revents & POLLOUT)) /* the log may be what hangs */
		log_warn("a thread does not answer, the process ends without it");
	_exit(__atomic_load_n(&t->status, __ATOMIC_ACQUIRE));
}

int term_start(struct term *t)
{
	sigset_t set;
	int r;

	signals_of(&set);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return log_errno(errno, "sigprocmask");
	t->fd = eventfd(0, EFD_CLOEXEC);
	if (t->fd < 0)
		return log_errno(errno, "eventfd");
	r = loop_thread(&t->thread, "signals", term_main, t);
	if (r < 0)
		return log_errno(r, "thread for signals");
	t->running = true;
	return 0;
}

void term_begin(struct term *t, int status)
{
	__atomic_store_n(&t->status, status, __ATOMIC_RELEASE);
	if (t->running)
		pthread_kill(t->thread, SIGTERM);
}

void term_finish(struct term *t)
{
	if (t->running) {
		__atomic_store_n(&t->done, true, __ATOMIC_RELEASE);
		pthread_kill(t->thread, SIGTERM);
		pthread_join(t->thread, NULL);
		t->running = false;
	}
	fd_close(&t->fd);
}
