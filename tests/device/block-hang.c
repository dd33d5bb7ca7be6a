/* SPDX-License-Identifier: MIT */
/*
 * Threads of the process that hang for good, as with a disk that does not answer any more: SIGTERM ends it nevertheless.
 * A thread hangs when we trace and stop it.
 */
#include "block-rig.h"
#include "hang.h"

#define LIMIT_MS 25000 /* it gives its threads 3 s; the rest is for a busy machine */

static const struct fe_mode split = {0};

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
	tid = hang_thread(blk.fe.process.pid, "queue-0");
	hang_begin(tid);
	start = fe_now_ms();
	fe_process_signal(&blk.fe.process, SIGTERM);
	hang_reap(tid);
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
	tid = hang_thread(blk.fe.process.pid, "queue-0");
	hang_begin(tid);
	start = fe_now_ms();
	fe_hangup(&blk.fe);
	fe_process_signal(&blk.fe.process, SIGINT);
	hang_reap(tid);
	ends(start);
	fe_close(&blk.fe);
}

/* The main thread itself, as where the queues have no others. */
static void main_thread(const struct fe_mode *m)
{
	int64_t start;

	blk_start(m, NULL);
	blk_still_works();
	hang_begin(blk.fe.process.pid);
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
