/* SPDX-License-Identifier: MIT */
/*
 * The job pool: one queue under a mutex, threads that wait for it, and finished jobs that go home as posts of
 * their loop. A thread is added when a job comes and nobody is idle.
 */
#include "pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "util.h"

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct job *head, **tail;
	unsigned queued, idle, started, max;
	bool ending;
	char name[16];
	pthread_t threads[];
};

static void deliver(struct post *post)
{
	struct job *j = container_of(post, struct job, post);

	j->done(j);
}

/* NULL: the pool ends. */
static struct job *next_job(struct pool *p)
{
	struct job *j;

	pthread_mutex_lock(&p->lock);
	p->idle++;
	while (p->head == NULL && !p->ending)
		pthread_cond_wait(&p->work, &p->lock);
	p->idle--;
	j = p->head;
	if (j != NULL) {
		p->queued--;
		p->head = j->next;
		if (p->head == NULL)
			p->tail = &p->head;
	}
	pthread_mutex_unlock(&p->lock);
	return j;
}

static void *pool_main(void *arg)
{
	struct pool *p = arg;
	struct job *j;

	while ((j = next_job(p)) != NULL) {
		j->run(j);
		loop_post(j->loop, &j->post);
	}
	return NULL;
}

/* Under the lock, but for the first. */
static int start_thread(struct pool *p)
{
	int r = loop_thread(&p->threads[p->started], p->name, pool_main, p);

	if (r == 0)
		p->started++;
	return r;
}

int pool_new(struct pool **out, unsigned max, const char *name)
{
	struct pool *p = calloc(1, sizeof(*p) + MAX(max, 1u) * sizeof(pthread_t));
	int r;

	if (p == NULL)
		return -ENOMEM;
	p->max = MAX(max, 1u);
	p->tail = &p->head;
	snprintf(p->name, sizeof(p->name), "%s", name);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	r = start_thread(p);
	if (r < 0) {
		pool_free(p);
		return r;
	}
	*out = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->ending = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void pool_submit(struct pool *p, struct job *j)
{
	j->next = NULL;
	j->post.run = deliver;
	pthread_mutex_lock(&p->lock);
	*p->tail = j;
	p->tail = &j->next;
	p->queued++;
	/* the job is served by the threads there are if no other can be had */
	if (p->queued > p->idle && p->started < p->max)
		start_thread(p);
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}
