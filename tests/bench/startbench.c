/* SPDX-License-Identifier: MIT */
/*
 * Start-up time and resident memory of the program under test as an idle backend, rng if nothing else is said.
 *
 *	startbench [RUNS [TYPE [OPTION...]]]
 *
 * ready: from fork to the first connect() that its socket accepts, looked for without a pause. rss, pss: of the process
 * that waits for a front-end. end: from SIGTERM to its exit. Medians:
 *	ready_us=… end_us=… rss_kib=… pss_kib=…
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"

enum { MAX_RUNS = 1000, MAX_ARGS = 16, LIMIT_MS = 5000 };

extern char **environ;

static bool accepts(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok;

	CHECK(fd >= 0);
	ok = connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0;
	close(fd);
	return ok;
}

static pid_t start(const char *path, char **more)
{
	char program[] = "vhost-user-multi", type[] = "rng", opt[140];
	char *argv[MAX_ARGS] = {program, type, opt};
	unsigned n = 3;
	pid_t pid;
	int err;

	snprintf(opt, sizeof(opt), "--socket-path=%s", path);
	if (*more)
		argv[1] = *more++;
	while (*more && n < MAX_ARGS - 1)
		argv[n++] = *more++;
	err = posix_spawn(&pid, fe_binary(), NULL, NULL, argv, environ);
	if (err)
		FAIL("%s: %s", fe_binary(), strerror(err));
	return pid;
}

static unsigned memory_kib(pid_t pid, const char *what)
{
	char path[64], line[160], key[16];
	unsigned value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	snprintf(key, sizeof(key), "%s:", what);
	f = fopen(path, "re");
	if (!f)
		FAIL("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, strlen(key)) == 0)
			value = (unsigned)strtoul(line + strlen(key), NULL, 10);
	fclose(f);
	return value;
}

static double end(pid_t pid)
{
	uint64_t start_ns = time_ns();
	int status;

	CHECK_SYS(kill(pid, SIGTERM));
	CHECK_SYS(waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		FAIL("the program ended with status 0x%x", status);
	return (double)(time_ns() - start_ns) / 1000;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

int main(int argc, char **argv)
{
	static double ready[MAX_RUNS], ended[MAX_RUNS], rss[MAX_RUNS], pss[MAX_RUNS];
	unsigned runs = argc > 1 ? (unsigned)atoi(argv[1]) : 31;
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (runs < 1 || runs > MAX_RUNS)
		FAIL("%s: not a number from 1 to %d", argv[1], MAX_RUNS);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/rng.sock", fe_tmpdir());
	for (unsigned i = 0; i < runs; i++) {
		uint64_t start_ns = time_ns();
		pid_t pid = start(a.sun_path, argc > 2 ? argv + 2 : argv + argc);

		while (!accepts(&a)) {
			if (time_ns() - start_ns > LIMIT_MS * UINT64_C(1000000))
				FAIL("not ready within %d ms", LIMIT_MS);
			sched_yield();
		}
		ready[i] = (double)(time_ns() - start_ns) / 1000;
		/* it has seen our connection end when it takes the next one */
		while (!accepts(&a))
			sched_yield();
		rss[i] = memory_kib(pid, "Rss");
		pss[i] = memory_kib(pid, "Pss");
		ended[i] = end(pid);
	}
	printf("ready_us=%.0f end_us=%.0f rss_kib=%.0f pss_kib=%.0f\n", median(ready, runs),
		median(ended, runs), median(rss, runs), median(pss, runs));
	return 0;
}
