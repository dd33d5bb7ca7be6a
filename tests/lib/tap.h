/* SPDX-License-Identifier: MIT */
/*
 * Test Anything Protocol for the C tests; all of it is in this header.
 *
 *	static void adds(void *arg) { CHECK_EQ(add(1, 2), 3); }
 *	int main(void) { tap_case("adds", adds, NULL); return tap_done(); }
 *
 * Each case runs in a child process of its own with a time limit, so a failed check, a crash or a hang
 * costs that case only, and nothing (fds, memory, processes) leaks into the next one. A check that fails says
 * what was expected and what came, and ends the case.
 *
 * Environment: TAP_ONLY=TEXT runs only the cases whose name contains TEXT; TAP_NOFORK=1 runs the cases in
 * this process and aborts at the first failure (for gdb); TAP_LIMIT=SECONDS replaces the time limit of a
 *case.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAP_REASON 256

struct tap {
	unsigned cases, failed;
	unsigned limit_s;      /* for each case; 0: 180 s */
	char *reason;	       /* TAP_REASON bytes shared with the child: why it skipped */
	void (*on_fail)(void); /* prints more about a failure, before the case ends */
};

/* weak: one instance, however many files of a test program include this */
__attribute__((weak)) struct tap tap;

/* Ends the case as failed. */
__attribute__((noreturn, format(printf, 3, 4))) static inline void tap_fail(
	const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list ap;

	printf("# %s:%d: ", base ? base + 1 : file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	if (tap.on_fail)
		tap.on_fail();
	fflush(stdout);
	if (getenv("TAP_NOFORK"))
		abort();
	_exit(1);
}

/* Ends the case as skipped. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void tap_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(tap.reason, TAP_REASON, fmt, ap);
	va_end(ap);
	fflush(stdout);
	_exit(77);
}

__attribute__((format(printf, 1, 2))) static inline void tap_note(const char *fmt, ...)
{
	va_list ap;

	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

#define FAIL(...) tap_fail(__FILE__, __LINE__, __VA_ARGS__)

#define CHECK(cond)                                  \
	do {                                         \
		if (!(cond))                         \
			FAIL("expected: %s", #cond); \
	} while (0)

/* Integers of any type; negative ones compare by value. */
#define CHECK_EQ(got, want)                                                                                  \
	do {                                                                                                 \
		unsigned long long got_ = (unsigned long long)(got);                                         \
		unsigned long long want_ = (unsigned long long)(want);                                       \
		if (got_ != want_)                                                                           \
			FAIL("%s: expected %lld (0x%llx), got %lld (0x%llx)", #got, (long long)want_, want_, \
				(long long)got_, got_);                                                      \
	} while (0)

#define CHECK_STR(got, want)                                                                          \
	do {                                                                                          \
		const char *got_ = (got), *want_ = (want);                                            \
		if (!got_ || strcmp(got_, want_) != 0)                                                \
			FAIL("%s: expected \"%s\", got \"%s\"", #got, want_, got_ ? got_ : "(null)"); \
	} while (0)

#define CHECK_HAS(text, part)                                                                       \
	do {                                                                                        \
		const char *text_ = (text), *part_ = (part);                                        \
		if (!strstr(text_, part_))                                                          \
			FAIL("%s: expected it to contain \"%s\", got \"%s\"", #text, part_, text_); \
	} while (0)

#define CHECK_MEM(got, want, n)                                                                           \
	do {                                                                                              \
		const unsigned char *got_ = (const void *)(got), *want_ = (const void *)(want);           \
		size_t n_ = (n), i_ = 0;                                                                  \
		while (i_ < n_ && got_[i_] == want_[i_])                                                  \
			i_++;                                                                             \
		if (i_ < n_)                                                                              \
			FAIL("%s: byte %zu of %zu: expected 0x%02x, got 0x%02x", #got, i_, n_, want_[i_], \
				got_[i_]);                                                                \
	} while (0)

/* A condition with errno: CHECK_SYS(fd = open(...)) fails when the value is negative. */
#define CHECK_SYS(call)                                         \
	do {                                                    \
		if ((call) < 0)                                 \
			FAIL("%s: %s", #call, strerror(errno)); \
	} while (0)

/* How the child ended: NULL = passed, or text in buf. */
static inline const char *tap_wait(pid_t pid, unsigned limit_s, char *buf, size_t size)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	bool late = pidfd >= 0 && poll(&p, 1, (int)limit_s * 1000) == 0;
	int status = 0;

	if (late)
		kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
	kill(-pid, SIGKILL); /* whatever the case left behind */
	if (pidfd >= 0)
		close(pidfd);
	if (late)
		snprintf(buf, size, "not finished after %u s", limit_s);
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) == 77)
		snprintf(buf, size, "skip");
	else if (WEXITSTATUS(status) != 0)
		snprintf(buf, size, "exit status %d", WEXITSTATUS(status));
	else
		return NULL;
	return buf;
}

/* Runs fn(arg) as one case and prints its result. */
static inline void tap_case(const char *name, void (*fn)(void *arg), void *arg)
{
	const char *only = getenv("TAP_ONLY"), *limit = getenv("TAP_LIMIT"), *why;
	unsigned limit_s = limit ? (unsigned)atoi(limit) : tap.limit_s ? tap.limit_s : 180;
	pid_t pid, parent = getpid();
	char buf[64];

	if (only && !strstr(name, only))
		return;
	if (!tap.reason) {
		tap.reason =
			mmap(NULL, TAP_REASON, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (tap.reason == MAP_FAILED)
			abort();
	}
	tap.cases++;
	if (getenv("TAP_NOFORK")) {
		fn(arg);
		printf("ok %u - %s\n", tap.cases, name);
		return;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		fn(arg);
		exit(0);
	}
	setpgid(pid, pid);
	why = tap_wait(pid, limit_s, buf, sizeof(buf));
	if (!why) {
		printf("ok %u - %s\n", tap.cases, name);
	} else if (strcmp(why, "skip") == 0) {
		printf("ok %u - %s # SKIP %s\n", tap.cases, name, tap.reason);
	} else {
		tap.failed++;
		printf("not ok %u - %s\n# %s\n", tap.cases, name, why);
	}
	fflush(stdout);
}

/* Prints the plan; the value is the exit status of main(). */
static inline int tap_done(void)
{
	printf("1..%u\n", tap.cases);
	return tap.failed != 0;
}

#endif
