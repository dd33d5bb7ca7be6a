/* SPDX-License-Identifier: MIT */
/*
 * A long walk: a block device under a load that verifies every byte, while what can happen to a back-end happens to it, in
 * random order: it is killed, ended and started again, loses its connection, its queues stop, memory comes and goes,
 * the dirty log is switched, descriptors are replaced. At the end of each life nothing has leaked.
 *
 * Environment: SOAK=SECONDS (3, so that the program itself stays tested; make soak takes 600), SOAK_SEED=N repeats a walk.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <time.h>

#include "block-slots.h"

enum { LIFE_MS = 10000, WARM_STEPS = 10 };

static unsigned walk = 1; /* the state of what is chosen; requests have one of their own */

static unsigned choose(unsigned n)
{
	walk = walk * 1664525u + 1013904223u;
	return (walk >> 8) % n;
}

struct life {
	unsigned steps;
	struct fe_region *extra;
	bool logging;
	unsigned fds; /* of the process, when it was warm; 0: not yet */
	size_t rss;
	unsigned compared; /* times */
};

/* --- steps --- */

static void forget_process(struct life *l)
{
	l->fds = 0;
	l->logging = false;
	l->steps = 0;
}

static void reconnected(struct life *l)
{
	load_collect();
	load_connected_again();
	l->logging = false;
}

static void step_kill(struct life *l)
{
	struct timespec ts = {.tv_nsec = (long)choose(400) * 1000};

	load_fill();
	nanosleep(&ts, NULL);
	fe_process_kill(&load.fe.process);
	fe_hangup(&load.fe);
	fe_spawn_path(&load.fe, load.socket, load.args);
	reconnected(l);
	forget_process(l);
}

static void step_end(struct life *l)
{
	load_fill();
	fe_process_signal(&load.fe.process, SIGTERM);
	fe_process_exits(&load.fe.process, 0);
	fe_hangup(&load.fe);
	fe_spawn_path(&load.fe, load.socket, load.args);
	reconnected(l);
	forget_process(l);
}

static void step_hangup(struct life *l)
{
	load_fill();
	fe_hangup(&load.fe);
	fe_connect(&load.fe, load.socket);
	reconnected(l);
}

static void resume(struct fe_queue *q, uint32_t base)
{
	fe_queue_send(q, base);
	fe_queue_enable(q, true);
	fe_kick(q);
}

static void step_stop(struct life *l)
{
	uint32_t base[QUEUES];
	unsigned i;

	(void)l;
	load_fill();
	for (i = 0; i < load.nqueues; i++)
		base[i] = fe_queue_stop(load.fe.queues[i]);
	load_collect();
	fe_barrier(&load.fe);
	CHECK(!load_collect());
	for (i = 0; i < load.nqueues; i++)
		resume(load.fe.queues[i], base[i]);
}

static void step_stop_one(struct life *l)
{
	struct fe_queue *q = load.fe.queues[choose(load.nqueues)];

	(void)l;
	load_fill();
	resume(q, fe_queue_stop(q));
}

static void step_disable(struct life *l)
{
	struct fe_queue *q = load.fe.queues[choose(load.nqueues)];

	(void)l;
	load_fill();
	fe_queue_enable(q, false);
	load_collect();
	fe_queue_enable(q, true);
	fe_kick(q);
}

/* In the middle of traffic, which does not use it. */
static void step_memory(struct life *l)
{
	load_fill();
	if (l->extra) {
		fe_region_remove(&load.fe, fe_region_at(&load.fe, UINT64_C(1) << 40));
		l->extra = NULL;
		return;
	}
	l->extra = fe_region_make(&load.fe, UINT64_C(1) << 40, 1 << 20, 0x7a0000000000, -1, 0);
	l->extra->used = l->extra->w.size; /* nothing is allocated there */
	fe_region_add(&load.fe, l->extra);
}

static void step_log(struct life *l)
{
	if (l->logging) {
		fe_set_u64(&load.fe, FE_SET_FEATURES, load.fe.features);
		l->logging = false;
		return;
	}
	fe_log_set(&load.fe, 1 << 20, 4096 * choose(3));
	fe_set_u64(&load.fe, FE_SET_FEATURES, load.fe.features | BIT(FE_F_LOG_ALL));
	l->logging = true;
	load_run(200);
	CHECK(fe_log_count(&load.fe) > 0);
}

static void step_descriptors(struct life *l)
{
	struct fe_queue *q = load.fe.queues[choose(load.nqueues)];

	(void)l;
	load_fill();
	fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
	fe_queue_send_fd(q, FE_SET_VRING_ERR, q->err);
	fe_queue_send_addr(q);
	fe_queue_send_fd(q, FE_SET_VRING_KICK, q->kick);
	fe_kick(q);
}

static const struct {
	void (*fn)(struct life *l);
	unsigned weight;
} steps[] = {{step_kill, 2}, {step_end, 1}, {step_hangup, 3}, {step_stop, 3}, {step_stop_one, 4},
	{step_disable, 3}, {step_memory, 4}, {step_log, 2}, {step_descriptors, 3}};

static void step(struct life *l)
{
	unsigned total = 0, i, at;

	for (i = 0; i < ARRAY_SIZE(steps); i++)
		total += steps[i].weight;
	at = choose(total);
	for (i = 0; at >= steps[i].weight; i++)
		at -= steps[i].weight;
	l->steps++;
	steps[i].fn(l);
	load_run(1 + choose(300));
}

/* --- lives --- */

/* When all is quiet, and the extra region and the log are gone, a process has what it had before. */
static void check_leaks(struct life *l)
{
	unsigned fds;
	size_t rss;

	if (l->steps < WARM_STEPS)
		return;
	if (l->extra)
		step_memory(l);
	load_drain();
	step_hangup(l); /* the log's descriptor goes with the connection */
	load_drain();
	fds = fe_process_fds(&load.fe.process);
	rss = fe_process_rss(&load.fe.process);
	l->compared += l->fds != 0;
	if (l->fds && fds != l->fds)
		FAIL("the process had %u descriptors, now it has %u", l->fds, fds);
	/* what it has touched of guest memory, some megabytes, counts too */
	if (l->fds && rss > l->rss + l->rss / 2 + (16 << 20))
		FAIL("the process had %zu bytes resident, now it has %zu", l->rss, rss);
	if (!l->fds)
		l->rss = rss;
	l->fds = fds;
	l->steps = 0;
}

static void live(const struct fe_mode *m)
{
	static const char *const ways[][4] = {{NULL}, {"--threads=2"}, {"--poll-us=50", "--threads=1"},
		{"--aio=threads", "--threads=3"}, {"--poll-us=0"}};
	const char *limit = getenv("SOAK_LIFE_MS");
	int64_t end = fe_now_ms() + (limit ? atoi(limit) : LIFE_MS);
	struct life l = {0};
	unsigned long n = 0;

	load_tracked_start(m, 1 + choose(QUEUES), ways[choose(ARRAY_SIZE(ways))]);
	for (; fe_now_ms() < end; n++) {
		step(&l);
		check_leaks(&l);
	}
	tap_note("%lu steps, %lu requests on %u queues, %u looks for leaks", n, load.done, load.nqueues,
		l.compared);
	load_tracked_end();
}

int main(void)
{
	const char *soak = getenv("SOAK"), *seed = getenv("SOAK_SEED");
	int64_t end = fe_now_ms() + 1000 * (soak ? atoi(soak) : 3);
	unsigned first = seed ? (unsigned)strtoul(seed, NULL, 0) : soak ? (unsigned)time(NULL) : 1, n;

	if (!soak)
		setenv("SOAK_LIFE_MS", "700", 0);
	for (n = 0; fe_now_ms() < end; n++) {
		struct fe_mode m;
		char name[64];

		walk = (first + n) * 2654435761u;
		m = (struct fe_mode){.packed = choose(2), .event_idx = choose(2), .indirect = choose(2)};
		snprintf(name, sizeof(name), "life %u, SOAK_SEED=%u", n + 1, first + n);
		fe_case(name, live, &m);
	}
	return tap_done();
}
