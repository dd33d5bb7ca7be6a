/* SPDX-License-Identifier: MIT */
/*
 * Virtqueues made up for the fuzz targets of console and rpmsg: buffers of any size, both ways, that must come back once.
 */
#ifndef TESTS_PORT_QUEUES_H
#define TESTS_PORT_QUEUES_H

#include <stdio.h>
#include <stdlib.h>

#include "../../devices/port.h"
#include "device.h"
#include "move.h"

enum { QUEUES = 8, ELEMENTS = 256, BYTES = 600, STEPS = 400 };

struct virtqueue {
	unsigned index, offered;
	size_t rd, wr; /* bytes of the next buffers */
	bool woken, broken, running;
};

static struct {
	struct backend b;
	struct virtqueue queue[QUEUES];
	struct element e[ELEMENTS];
	struct iovec iov[ELEMENTS][2];
	uint8_t bytes[ELEMENTS][BYTES];
	bool out[ELEMENTS];
	unsigned nout;
	struct input in;
} f;

struct element *virtqueue_pop(struct virtqueue *q)
{
	unsigned i;

	if (!q->running || q->broken || !q->offered)
		return NULL;
	for (i = 0; f.out[i]; i++)
		require(i + 1 < ELEMENTS, "few buffers are held");
	q->offered--;
	f.out[i] = true;
	f.nout++;
	f.e[i] = (struct element){.queue = q};
	f.iov[i][0] = (struct iovec){f.bytes[i], q->rd};
	f.iov[i][1] = (struct iovec){f.bytes[i], q->wr};
	if (q->rd)
		input_bytes(&f.in, f.bytes[i], q->rd);
	cursor_init(&f.e[i].rd, &f.iov[i][0], q->rd ? 1 : 0);
	cursor_init(&f.e[i].wr, &f.iov[i][1], q->wr ? 1 : 0);
	return &f.e[i];
}

static void back(struct element *e)
{
	size_t i = (size_t)(e - f.e);

	require(i < ELEMENTS && f.out[i], "a buffer comes back once");
	require(e->wr.done <= e->queue->wr || e->wr.done <= BYTES, "what is written fits");
	f.out[i] = false;
	f.nout--;
}

void virtqueue_push(struct element *e)
{
	back(e);
}

void virtqueue_unpop(struct element *e)
{
	e->queue->offered++;
	back(e);
}

void virtqueue_wake(void *arg)
{
	((struct virtqueue *)arg)->woken = true;
}

void virtqueue_break(struct virtqueue *q, const char *fmt, ...)
{
	(void)fmt;
	q->broken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	(void)q;
	return f.b.loop;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	(void)q;
	return input_u8(&f.in) & 1;
}

bool virtqueue_resumed(const struct virtqueue *q)
{
	(void)q;
	return input_u8(&f.in) & 1;
}

bool virtqueue_pending(struct virtqueue *q)
{
	return q->running && !q->broken && q->offered;
}

void backend_config_changed(struct backend *b)
{
	(void)b;
}

bool backend_event_wanted(const struct backend *b)
{
	(void)b;
	return true;
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	(void)b;
	(void)name;
	json_free(data);
}

/* Runs the loop once, and what woke. */
static void turn(void)
{
	unsigned i, rounds;
	bool any = true;

	loop_stop(f.b.loop);
	loop_run(f.b.loop);
	for (rounds = 0; any; rounds++) {
		require(rounds < 1000, "queues come to rest");
		any = false;
		for (i = 0; i < QUEUES && i < f.b.num_queues; i++) {
			struct virtqueue *q = &f.queue[i];
			const struct queue_spec *spec =
				&f.b.dev->queues[i < f.b.dev->nqueues ? i : 4 + i % 2];

			if (!q->woken || !q->running || q->broken)
				continue;
			q->woken = false;
			any = true;
			spec->ready(&f.b, q);
		}
	}
}

static void start(unsigned i)
{
	struct virtqueue *q = &f.queue[i];

	if (q->running)
		return;
	*q = (struct virtqueue){.index = i,
		.offered = q->offered % 64,
		.rd = q->rd,
		.wr = q->wr,
		.running = true,
		.woken = true};
	f.b.dev->start(&f.b, q);
}

static void stop(unsigned i)
{
	struct virtqueue *q = &f.queue[i];

	if (!q->running)
		return;
	f.b.dev->stop(&f.b, q);
	q->running = false;
}

static void offer(unsigned i)
{
	struct virtqueue *q = &f.queue[i];
	uint8_t size = input_u8(&f.in);

	q->offered = MIN(q->offered + input_u8(&f.in) % 16, 128u);
	q->rd = q->wr = size == 255 ? 512 : size;
	if (i % 2)
		q->wr = 0;
	else
		q->rd = 0;
	q->woken = true;
}

static void run_command(const char *name, const char *json)
{
	char err[JSON_ERROR_LEN];
	struct json_value *args = json_parse(json, strlen(json), err, sizeof(err));
	struct command c = {.args = args, .out = json_new(false)};
	const struct command_spec *spec = command_find(f.b.dev->commands, name);

	if (command_check(spec, &c) == 0)
		spec->run(&f.b, &c);
	json_free(c.out);
	json_value_free(args);
}

#endif
