/* SPDX-License-Identifier: MIT */
/* Threads that hang, see hang.h. */
#include "hang.h"

#include <dirent.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <time.h>

pid_t hang_thread(pid_t pid, const char *name)
{
	char path[320], comm[32] = "";
	struct dirent *e;
	pid_t tid = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	CHECK(d != NULL);
	while (tid == 0 && (e = readdir(d)) != NULL) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)pid, e->d_name);
		f = fopen(path, "re");
		if (f == NULL)
			continue;
		if (fgets(comm, sizeof(comm), f) != NULL && strcspn(comm, "\n") == strlen(name) &&
			strncmp(comm, name, strlen(name)) == 0)
			tid = atoi(e->d_name);
		fclose(f);
	}
	closedir(d);
	if (tid == 0)
		FAIL("the process has no thread %s", name);
	return tid;
}

void hang_begin(pid_t tid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_EXITKILL) < 0)
		tap_skip("tracing is not permitted here: %s", strerror(errno));
	CHECK_SYS(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
	CHECK_EQ(waitpid(tid, &status, __WALL), tid);
	CHECK(WIFSTOPPED(status));
}

void hang_end(pid_t tid)
{
	CHECK_SYS(ptrace(PTRACE_DETACH, tid, NULL, NULL));
}

void hang_reap(pid_t tid)
{
	const struct timespec moment = {.tv_nsec = 5000000};
	int64_t end = fe_now_ms() + fe_limit_ms;
	int status;
	pid_t r;

	while ((r = waitpid(tid, &status, __WALL | WNOHANG)) == 0) {
		if (fe_now_ms() > end)
			FAIL("the thread that hangs was not ended");
		nanosleep(&moment, NULL);
	}
	CHECK_EQ(r, tid);
}
