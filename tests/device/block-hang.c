/* SPDX-License-Identifier: MIT */
/*
 * Threads of the process that hang for good, as with a disk that does not answer any more: SIGTERM ends it nevertheless.
 * A thread hangs when we trace and stop it.
 */
#include "block-rig.h"

#include <dirent.h>
#include <errno.h>
#include <sys/ptrace.h>
#include <time.h>

#define LIMIT_MS 8000 /* it gives its threads 3 s; the rest is for a busy machine */

static const struct fe_mode split = {0};

/* The thread of the process that has this name. */
static pid_t thread_find(pid_t pid, const char *name)
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

static void thread_stop(pid_t tid)
{
	int status;

	if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_EXITKILL) < 0)
		tap_skip("tracing is not permitted here: %s", strerror(errno));
	CHECK_SYS(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL));
	CHECK_EQ(waitpid(tid, &status, __WALL), tid);
	CHECK(WIFSTOPPED(status));
}

/* A process whose thread is traced ends for its parent only after the thread has for the tracer. */
static void thread_reap(pid_t tid)
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

static void ends(int64_t start)
{
	fe_process_logs(&blk.fe.process, "ends without it");
	fe_process_exits(&blk.fe.process, 0);
	if (fe_now_ms() - start > LIMIT_MS)
		FAIL("expected it to end in time, it took %lld ms", (long long)(fe_now_ms() - start));
}

static void queue_thread(const struct fe_mode *m)
{
	int64_t start;
	pid_t tid;

	blk_start(m, "--threads=1");
	blk_still_works();
	tid = thread_find(blk.fe.process.pid, "queue-0");
	thread_stop(tid);
	start = fe_now_ms();
	fe_process_signal(&blk.fe.process, SIGTERM);
	thread_reap(tid);
	ends(start);
	fe_close(&blk.fe);
}

/* It hangs in the end, after the front-end went: the control loop waits for it there, too. */
static void queue_thread_at_the_end(const struct fe_mode *m)
{
	int64_t start;
	pid_t tid;

	blk_start(m, "--threads=1");
	blk_still_works();
	fe_queue_stop(blk.q);
	tid = thread_find(blk.fe.process.pid, "queue-0");
	thread_stop(tid);
	start = fe_now_ms();
	fe_hangup(&blk.fe);
	fe_process_signal(&blk.fe.process, SIGINT);
	thread_reap(tid);
	ends(start);
	fe_close(&blk.fe);
}

/* The main thread itself, as where the queues have no others. */
static void main_thread(const struct fe_mode *m)
{
	int64_t start;

	blk_start(m, NULL);
	blk_still_works();
	thread_stop(blk.fe.process.pid);
	start = fe_now_ms();
	fe_process_signal(&blk.fe.process, SIGTERM);
	ends(start);
	fe_close(&blk.fe);
}

int main(void)
{
	fe_case("SIGTERM while a queue's thread hangs", queue_thread, &split);
	fe_case("SIGINT while a queue's thread hangs that has nothing to do", queue_thread_at_the_end,
		&split);
	fe_case("SIGTERM while the main thread hangs", main_thread, &split);
	return tap_done();
}
