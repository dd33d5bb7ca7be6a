/* SPDX-License-Identifier: MIT */
/*
 * A signal that asks for the end stays pending, and a signalfd says so to both the control loop and a thread of our own.
 * Every other thread may hang in a system call that does not come back: a write to a disk that died, to a server that
 * stopped. So this one ends the process when it is still there after LIMIT_MS.
 */
#include "term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "util.h"

#define LIMIT_MS 3000

/* True: time is up. */
static bool wait_readable(struct pollfd *p, nfds_t n, int ms)
{
	uint64_t end = time_ns() + (uint64_t)ms * 1000000;
	int r;

	do {
		uint64_t now = time_ns();

		r = poll(p, n, ms < 0 ? -1 : now < end ? (int)((end - now) / 1000000 + 1) : 0);
	} while (r < 0 && errno == EINTR);
	return r == 0;
}

static void *term_main(void *arg)
{
	struct term *t = arg;
	struct pollfd p[3] = {{.fd = t->done, .events = POLLIN}, {.fd = t->fd, .events = POLLIN},
		{.fd = t->begun, .events = POLLIN}};
	struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};

	wait_readable(p, 3, -1);
	if (!wait_readable(p, 1, LIMIT_MS))
		return NULL;
	if (poll(&err, 1, 0) > 0 && (err.revents & POLLOUT)) /* the log may be what hangs */
		log_warn("a thread does not answer, the process ends without it");
	_exit(__atomic_load_n(&t->status, __ATOMIC_ACQUIRE));
}

int term_start(struct term *t)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return log_errno(errno, "sigprocmask");
	t->fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (t->fd < 0)
		return log_errno(errno, "signalfd");
	t->done = eventfd(0, EFD_CLOEXEC);
	t->begun = eventfd(0, EFD_CLOEXEC);
	if (t->done < 0 || t->begun < 0)
		return log_errno(errno, "eventfd");
	r = loop_thread(&t->thread, "signals", term_main, t);
	if (r < 0)
		return log_errno(r, "thread for signals");
	t->running = true;
	return 0;
}

int term_signal(void)
{
	sigset_t set;

	return sigpending(&set) == 0 && sigismember(&set, SIGINT) > 0 ? SIGINT : SIGTERM;
}

void term_begin(struct term *t, int status)
{
	const uint64_t one = 1;

	__atomic_store_n(&t->status, status, __ATOMIC_RELEASE);
	if (t->running && write(t->begun, &one, sizeof(one)) < 0)
		log_errno(errno, "eventfd");
}

void term_finish(struct term *t)
{
	const uint64_t one = 1;

	if (t->running && write(t->done, &one, sizeof(one)) > 0) {
		pthread_join(t->thread, NULL);
		t->running = false;
	}
	fd_close(&t->done);
	fd_close(&t->begun);
	fd_close(&t->fd);
}
