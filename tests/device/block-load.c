/* SPDX-License-Identifier: MIT */
/*
 * The block device under load, for each way of doing I/O; and the same while queues are stopped, connections are lost and
 * the back-end is killed with kill -9. After that the new process finds what was in flight in the in-flight area and does
 * it again: every request is answered once, and nothing is lost.
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <time.h>

#include "block-slots.h"

/* --- cases --- */

struct way {
	const char *name;
	const char *options[4];
	bool aligned, slow, all_modes;
};

static const struct way *way;

/* So many requests, or rounds. */
static unsigned many(unsigned n)
{
	return way->slow ? n / 6 + 1 : n;
}

static void works(const struct fe_mode *m)
{
	load.aligned = way->aligned;
	load_start(m, 1, way->options);
	load_run(many(1500));
	load_end();
}

static void several_queues(const struct fe_mode *m)
{
	load_start(m, QUEUES, way->options);
	load_run(many(4000));
	load_end();
}

/* Stopped in the middle, the queue gives back what it has; what it had not taken is served after the resume. */
static void stopped_in_flight(const struct fe_mode *m)
{
	unsigned left = 0;

	load_start(m, QUEUES, way->options);
	for (unsigned round = 0; round < many(20); round++) {
		uint32_t base[QUEUES];

		load_run(1 + load_rnd(100));
		load_fill();
		for (unsigned i = 0; i < QUEUES; i++)
			base[i] = fe_queue_stop(load.fe.queues[i]);
		load_collect();
		left += load.busy;
		fe_barrier(&load.fe);
		CHECK(!load_collect());
		for (unsigned i = 0; i < QUEUES; i++) {
			fe_queue_send(load.fe.queues[i], base[i]);
			fe_queue_enable(load.fe.queues[i], true);
			fe_kick(load.fe.queues[i]);
		}
	}
	tap_note("%u requests were not done when their queue was stopped", left);
	load_end();
}

/* --- lost connections and killed processes --- */

/* Requests that the area says the back-end had taken: split or packed entries behind the head of each queue. */
static unsigned tracked(void)
{
	size_t size = load.fe.mode.packed ? 32 : 16, stride = load.fe.inflight.mmap_size / load.nqueues;
	unsigned n = 0;

	for (unsigned q = 0; q < load.nqueues; q++)
		for (unsigned i = 0; i < RING; i++)
			n += load.fe.inflight_ptr[q * stride + size * (i + 1)];
	return n;
}

/* Kills at any moment: before the requests are taken, while they are in progress, when some are done. */
static unsigned kill_and_restart(void)
{
	struct timespec ts = {.tv_nsec = (long)load_rnd(400) * 1000};
	unsigned taken;

	load_fill();
	switch (load_rnd(3)) {
	case 0:
		break;
	case 1:
		nanosleep(&ts, NULL);
		break;
	default:
		for (unsigned n = load_rnd(load.busy); load.busy > n;)
			load_wait();
	}
	fe_process_kill(&load.fe.process);
	taken = tracked();
	fe_hangup(&load.fe);
	load_collect();
	fe_spawn_path(&load.fe, load.socket, load.args);
	load_connected_again();
	return taken;
}

static void killed(const struct fe_mode *m)
{
	unsigned taken = 0;

	load_tracked_start(m, 1, way->options);
	for (unsigned round = 0; round < 2 + many(8); round++) {
		load_run(1 + load_rnd(200));
		taken += kill_and_restart();
		load_drain();
	}
	tap_note("%u requests were in progress when the process was killed", taken);
	load_tracked_end();
}

static void killed_several_queues(const struct fe_mode *m)
{
	load_tracked_start(m, QUEUES, way->options);
	for (unsigned round = 0; round < 2 + many(6); round++) {
		load_run(1 + load_rnd(500));
		kill_and_restart();
		/* at once, without waiting for what was replayed */
		load_run(100);
	}
	load_tracked_end();
}

/* The same process, only the connection is lost. */
static void hung_up(const struct fe_mode *m)
{
	load_tracked_start(m, 2, way->options);
	for (unsigned round = 0; round < many(20); round++) {
		load_run(1 + load_rnd(200));
		load_fill();
		fe_hangup(&load.fe);
		fe_connect(&load.fe, load.socket);
		load_collect();
		load_connected_again();
	}
	load_tracked_end();
}

/* Ends with status 0, whatever is in flight; what was answered is on the disk. */
static void terminated(const struct fe_mode *m)
{
	int64_t start, took, worst = 0;

	for (int round = 0; round < 3; round++) {
		memset(&load, 0, sizeof(load));
		load_tracked_start(m, 2, way->options);
		load_run(200);
		load_fill();
		start = fe_now_ms();
		fe_process_signal(&load.fe.process, SIGTERM);
		fe_process_exits(&load.fe.process, 0);
		took = fe_now_ms() - start;
		worst = MAX(worst, took);
		load_collect();
		fe_hangup(&load.fe);
		fe_spawn_path(&load.fe, load.socket, load.args);
		load_connected_again();
		load_tracked_end();
	}
	tap_note("%lld ms at most", (long long)worst);
}

static bool direct_works(void)
{
	int fd = open(fe_tmpdir(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void each_way(const struct way *w)
{
	const struct fe_mode packed = {.packed = true, .event_idx = true, .indirect = true}, split = {0};
	char name[128];

	way = w;
	snprintf(name, sizeof(name), "load: %s", w->name);
	fe_each_mode(name, works);
	snprintf(name, sizeof(name), "load on several queues: %s", w->name);
	fe_each_layout(name, several_queues);
	snprintf(name, sizeof(name), "stopped in flight: %s", w->name);
	fe_each_layout(name, stopped_in_flight);
	snprintf(name, sizeof(name), "killed: %s", w->name);
	if (w->all_modes)
		fe_each_mode(name, killed);
	else
		fe_each_layout(name, killed);
	snprintf(name, sizeof(name), "killed, several queues: %s, split", w->name);
	fe_case(name, killed_several_queues, &split);
	snprintf(name, sizeof(name), "killed, several queues: %s, packed", w->name);
	fe_case(name, killed_several_queues, &packed);
	snprintf(name, sizeof(name), "hung up: %s", w->name);
	fe_each_layout(name, hung_up);
	snprintf(name, sizeof(name), "terminated: %s", w->name);
	fe_each_layout(name, terminated);
}

int main(void)
{
	static const struct way ways[] = {
		{"page cache", {NULL}, .all_modes = true},
		{"write-through", {"--cache=writethrough"}, .slow = true},
		{"threads", {"--aio=threads", "--cache=writethrough"}, .slow = true},
		{"queue threads", {"--threads=3"}, .slow = false},
		{"polling", {"--poll-us=50", "--threads=1"}, .slow = false},
		{"direct", {"--direct"}, .aligned = true, .all_modes = true},
		{"direct, nothing aligned", {"--direct", "--threads=2"}, .slow = true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (!strstr(ways[i].name, "direct") || direct_works())
			each_way(&ways[i]);
	return tap_done();
}
