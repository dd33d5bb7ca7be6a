/* SPDX-License-Identifier: MIT */
/* The job pool: every job runs once, elsewhere, and ends in the loop it came from. */
#include "pool.h"

#include <semaphore.h>

#include "tap.h"
#include "util.h"

struct work {
	struct job job;
	pthread_t ran, origin;
	unsigned runs, dones;
	sem_t *gate;
	struct loop *loop;
};

static struct pool *pool;
static unsigned left;

static void work_run(struct job *j)
{
	struct work *w = container_of(j, struct work, job);

	w->ran = pthread_self();
	w->runs++;
	if (w->gate != NULL)
		while (sem_wait(w->gate) < 0)
			;
}

static void work_done(struct job *j)
{
	struct work *w = container_of(j, struct work, job);

	CHECK(loop_is_mine(w->loop));
	CHECK(pthread_equal(w->origin, pthread_self()));
	w->dones++;
	if (--left == 0)
		loop_stop(w->loop);
}

static void work_submit(struct work *w, struct loop *l)
{
	w->job = (struct job){.run = work_run, .done = work_done, .loop = l};
	w->loop = l;
	w->origin = pthread_self();
	left++;
	pool_submit(pool, &w->job);
}

static void jobs_run_once(void *arg)
{
	enum { N = 1000 };
	static struct work w[N];
	struct loop *l;

	(void)arg;
	CHECK_EQ(loop_new(&l, "loop"), 0);
	CHECK_EQ(pool_new(&pool, 4, "pool"), 0);
	for (int i = 0; i < N; i++)
		work_submit(&w[i], l);
	loop_run(l);
	for (int i = 0; i < N; i++) {
		CHECK_EQ(w[i].runs, 1);
		CHECK_EQ(w[i].dones, 1);
		CHECK(!pthread_equal(w[i].ran, pthread_self()));
	}
	pool_free(pool);
	loop_free(l);
}

/* Three jobs wait for the fourth: they all have a thread. */
static void blocked_jobs_do_not_hold_up(void *arg)
{
	struct work w[4] = {0};
	struct loop *l;
	sem_t gate;

	(void)arg;
	sem_init(&gate, 0, 0);
	CHECK_EQ(loop_new(&l, "loop"), 0);
	CHECK_EQ(pool_new(&pool, 4, "pool"), 0);
	for (int i = 0; i < 3; i++) {
		w[i].gate = &gate;
		work_submit(&w[i], l);
	}
	work_submit(&w[3], l);
	left = 1;
	loop_run(l);
	CHECK_EQ(w[3].dones, 1);
	left = 3;
	for (int i = 0; i < 3; i++)
		sem_post(&gate);
	loop_run(l);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(w[i].dones, 1);
	pool_free(pool);
	loop_free(l);
}

/* A pool of one thread serves them in their order. */
static void one_thread_is_enough(void *arg)
{
	struct work w[50] = {0};
	struct loop *l;

	(void)arg;
	CHECK_EQ(loop_new(&l, "loop"), 0);
	CHECK_EQ(pool_new(&pool, 0, "pool"), 0);
	for (int i = 0; i < 50; i++)
		work_submit(&w[i], l);
	loop_run(l);
	for (int i = 1; i < 50; i++)
		CHECK(pthread_equal(w[0].ran, w[i].ran));
	pool_free(pool);
	loop_free(l);
}

static void idle_pool_is_freed(void *arg)
{
	(void)arg;
	CHECK_EQ(pool_new(&pool, 8, "pool"), 0);
	pool_free(pool);
	pool_free(NULL);
}

int main(void)
{
	tap_case("jobs run once and come back", jobs_run_once, NULL);
	tap_case("blocked jobs don't hold up others", blocked_jobs_do_not_hold_up, NULL);
	tap_case("one thread is enough", one_thread_is_enough, NULL);
	tap_case("an idle pool is freed", idle_pool_is_freed, NULL);
	return tap_done();
}
