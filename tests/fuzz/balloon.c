/* SPDX-License-Identifier: MIT */
/*
 * The balloon with a hostile driver: the input is a list of steps that send page numbers, reports, hints and statistics,
 * write the configuration space, give commands, stop queues and start them, change the memory map, reset the device and move it.
 *
 * The device's files are part of this one; queues and memory are made up here. Memory has a part in small pages and one in
 * large ones, where parts are collected. Checked besides the sanitizers' rules: what the device gives back is in the balloon
 * at that time, or in the report at hand, and every buffer comes back.
 */
#include "fuzz.h"

#include <stdio.h>

#include "../../devices/balloon-pages.c"
#include "../../devices/balloon-stats.c"
#include "../../devices/balloon.c"
#include "move.h"
#include "../unit/settle.h"

enum { STEPS_MAX = 300, PAGES = 1024, LARGE = 16, FROM_LARGE = 512, LONG = 3000 };
enum {
	OP_INFLATE,
	OP_DEFLATE,
	OP_REPORT,
	OP_HINT,
	OP_STATS,
	OP_CONFIG,
	OP_COMMAND,
	OP_MAP,
	OP_STOP,
	OP_RESET,
	OP_TURN,
	OP_MOVE,
	OPS
};

struct virtqueue {
	unsigned index;
	struct balloon_queue state;
	struct element *next; /* for the device to pop */
	bool out;	      /* it has it */
};

static struct {
	struct input in;
	struct backend b;
	struct balloon *dev;
	struct virtio_balloon_config config;
	struct virtqueue queue[ROLES];
	struct element e[ROLES];
	struct iovec iov[ROLES];
	uint8_t bytes[ROLES][LONG * 4];
	bool balloon[PAGES]; /* what the driver has put in and not taken out */
	uint64_t report_gpa, report_len;
	uint64_t generation;
	bool reporting;
} f;

/* What the core does for a device */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct element *e = q->next;

	q->next = NULL;
	q->out |= e != NULL;
	return e;
}

void virtqueue_push(struct element *e)
{
	require(e->queue->out, "a buffer goes back once");
	e->queue->out = false;
}

void virtqueue_unpop(struct element *e)
{
	virtqueue_push(e);
}

void virtqueue_wake(void *arg)
{
	struct virtqueue *q = arg;

	balloon_ready(&f.b, q);
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

void *virtqueue_state(struct virtqueue *q)
{
	return &q->state;
}

bool virtqueue_writable(const struct element *e, unsigned i, uint64_t *gpa, uint64_t *len)
{
	(void)e;
	*gpa = f.report_gpa;
	*len = f.report_len;
	return f.reporting && i == 0;
}

struct virtqueue *backend_queue(struct backend *b, unsigned index)
{
	(void)b;
	return &f.queue[index];
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
	require(data && json_text(data, NULL) && name, "events are whole");
	json_free(data);
}

bool backend_memory_get(struct backend *b, struct backend_memory *m)
{
	(void)b;
	(void)m;
	return true;
}

void backend_memory_put(struct backend_memory *m)
{
	(void)m;
}

uint64_t backend_memory_generation(struct backend *b)
{
	(void)b;
	return f.generation;
}

bool backend_memory_page(struct backend_memory *m, uint64_t gpa, uint64_t *start, uint64_t *size)
{
	uint64_t page = gpa / BALLOON_PAGE;

	(void)m;
	if (page >= PAGES)
		return false;
	*size = page < FROM_LARGE ? BALLOON_PAGE : LARGE * BALLOON_PAGE;
	*start = gpa & ~(*size - 1);
	return true;
}

uint64_t backend_memory_discard(struct backend *b, struct backend_memory *m, uint64_t gpa, uint64_t len)
{
	(void)b;
	(void)m;
	require(len > 0, "something is given back");
	if (f.reporting && gpa >= f.report_gpa && gpa + len <= f.report_gpa + f.report_len)
		return len;
	for (uint64_t p = gpa / BALLOON_PAGE; p < (gpa + len + BALLOON_PAGE - 1) / BALLOON_PAGE; p++)
		require(p >= PAGES || f.balloon[p], "only what is in the balloon is given back");
	return len;
}

/* Steps */

static void turn(void)
{
	loop_settle(f.b.loop, 3);
}

/* Hands the queue a buffer of n readable bytes, unless the device still has the last one. */
static bool send(unsigned index, size_t n)
{
	struct virtqueue *q = &f.queue[index];
	struct element *e = &f.e[index];

	if (q->out)
		return false;
	f.iov[index] = (struct iovec){f.bytes[index], n};
	*e = (struct element){.queue = q};
	cursor_init(&e->rd, &f.iov[index], 1);
	q->next = e;
	balloon_ready(&f.b, q);
	return true;
}

/* The queue's index in the order of the specification; features are all negotiated or all but some. */
static unsigned index_of(enum role role)
{
	for (unsigned i = 0; i < ROLES; i++) {
		if (role_of(&f.b, i) == role)
			return i;
	}
	return ROLES;
}

static void step_pages(enum role role)
{
	unsigned index = index_of(role), n = input_u8(&f.in), kind = input_u8(&f.in) % 4, i;
	uint16_t base = input_u16(&f.in);
	uint32_t *pfn;

	if (f.queue[index].out)
		return;
	pfn = (uint32_t *)f.bytes[index];
	n = kind == 3 ? LONG : n;
	for (i = 0; i < n; i++) {
		pfn[i] = kind == 0   ? (uint32_t)base + i
			 : kind == 1 ? (uint32_t)base - i
				     : base ^ i * 37 % 256;
		if (kind != 3)
			pfn[i] %= PAGES + 8;
		if (pfn[i] < PAGES && role == INFLATE)
			f.balloon[pfn[i]] = true;
	}
	send(index, n * 4 + input_u8(&f.in) % 4 * (n < LONG));
	for (i = 0; f.queue[index].out && i < 10; i++)
		turn();
	require(!f.queue[index].out, "a request ends");
	for (i = 0; i < n && role == DEFLATE; i++)
		if (pfn[i] < PAGES)
			f.balloon[pfn[i]] = false;
}

static void step_report(enum role role)
{
	unsigned index = index_of(role);

	f.report_gpa = input_u32(&f.in);
	f.report_len = input_u16(&f.in) * (uint64_t)16;
	if (index == ROLES || !f.report_len)
		return;
	f.reporting = true;
	if (role == HINTS && input_u8(&f.in) & 1)
		memcpy(f.bytes[index], &f.dev->hint_id, 4);
	else
		memset(f.bytes[index], 0, 4);
	send(index, input_u8(&f.in) % 8);
	f.reporting = false;
}

static void step_stats(void)
{
	unsigned index = index_of(STATS);

	if (index == ROLES || f.queue[index].out)
		return;
	input_bytes(&f.in, f.bytes[index], 200);
	send(index, input_u8(&f.in));
}

static void step_config(void)
{
	uint8_t data[16], off = input_u8(&f.in) % 16, len = input_u8(&f.in) % 17;
	uint32_t target = f.config.num_pages, id = f.config.free_page_hint_cmd_id;

	input_bytes(&f.in, data, sizeof(data));
	balloon_config_write(&f.b, off, data, MIN(len, 16u - off));
	require(f.config.num_pages == target && f.config.free_page_hint_cmd_id == id,
		"the rest is not writable");
}

static void step_command(void)
{
	static const char *const args[] = {"{\"size\":\"4M\",\"milliseconds\":1}",
		"{\"size\":0,\"milliseconds\":0}", "{\"size\":1,\"milliseconds\":99999999999}",
		"{\"size\":\"16777215T\",\"milliseconds\":5}"};
	const struct command_spec *spec =
		&balloon_commands[input_u8(&f.in) % (ARRAY_SIZE(balloon_commands) - 1)];
	const char *text = args[input_u8(&f.in) % ARRAY_SIZE(args)];
	CLEANUP_JSON_VALUE struct json_value *v = json_parse(text, strlen(text), NULL, 0);
	CLEANUP_JSON struct json *out = json_new(false);
	struct command c = {.args = v, .out = out};
	int err = spec->run(&f.b, &c);

	require(err == 0 || c.desc[0], "a command says why not");
	require(json_text(out, NULL) != NULL, "a command's result is JSON");
}

static void start(void)
{
	for (unsigned i = 0; i < ROLES; i++)
		balloon_start(&f.b, &f.queue[i]);
}

static void stop(void)
{
	for (unsigned i = 0; i < ROLES; i++) {
		balloon_stop(&f.b, &f.queue[i]);
		require(!f.queue[i].out, "every buffer comes back");
		f.queue[i].next = NULL;
	}
}

static void step(void)
{
	switch (input_u8(&f.in) % OPS) {
	case OP_INFLATE:
		step_pages(INFLATE);
		break;
	case OP_DEFLATE:
		step_pages(DEFLATE);
		break;
	case OP_REPORT:
		step_report(REPORTING);
		break;
	case OP_HINT:
		step_report(HINTS);
		break;
	case OP_STATS:
		step_stats();
		break;
	case OP_CONFIG:
		step_config();
		break;
	case OP_COMMAND:
		step_command();
		break;
	case OP_MAP:
		f.generation++;
		break;
	case OP_STOP:
		stop();
		start();
		break;
	case OP_RESET:
		stop();
		balloon_reset(&f.b);
		memset(f.balloon, 0, sizeof(f.balloon));
		start();
		break;
	case OP_MOVE:
		stop();
		require(move_state(&f.b, &f.in) != MOVE_REFUSED, "it can always be saved");
		memset(f.balloon, 0, sizeof(f.balloon));
		start();
		break;
	default:
		turn();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned i;

	log_set_level(LOG_LEVEL_ERROR);
	memset(f.balloon, 0, sizeof(f.balloon));
	memset(f.queue, 0, sizeof(f.queue));
	f.in = (struct input){data, data + size};
	f.config = (struct virtio_balloon_config){0};
	f.dev = calloc(1, sizeof(*f.dev));
	f.b = (struct backend){.dev = &device_balloon, .state = f.dev, .config = (uint8_t *)&f.config};
	require(f.dev && loop_new(&f.b.loop, "fuzz") == 0, "memory");
	f.b.features = device_balloon.features & ~(input_u8(&f.in) & 2u ? BIT(VIRTIO_BALLOON_F_STATS_VQ) : 0);
	if (input_u8(&f.in) == 1)
		f.b.features &= ~BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST);
	require(balloon_open(&f.b) == 0, "the device opens");
	for (i = 0; i < ROLES; i++)
		f.queue[i].index = i;
	start();
	for (i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	stop();
	balloon_reset(&f.b);
	balloon_close(&f.b);
	loop_free(f.b.loop);
	free(f.dev);
	return 0;
}

static void seed_pages(struct seed *s, uint8_t op, uint8_t n, uint8_t kind, uint16_t base)
{
	seed_u8(s, op);
	seed_u8(s, n);
	seed_u8(s, kind);
	seed_u16(s, base);
	seed_u8(s, 0);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t stats[200] = {
		0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 255, 255, 255, 255, 255, 255, 255, 255};
	struct seed s = {.n = 0};
	uint8_t i;

	for (i = 0; i < 4; i++) {
		s.n = 0;
		seed_u8(&s, 0);
		seed_u8(&s, i == 3);
		seed_pages(&s, OP_INFLATE, 100, i % 3, 20);
		seed_pages(&s, OP_INFLATE, 60, i % 3, 500);
		seed_pages(&s, OP_DEFLATE, 20, i % 3, 510);
		seed_pages(&s, OP_INFLATE, 70, 0, FROM_LARGE);
		seed_pages(&s, OP_DEFLATE, 1, 0, FROM_LARGE + 5);
		seed_pages(&s, OP_INFLATE, 1, 0, FROM_LARGE + 5);
		seed_pages(&s, OP_INFLATE, 0, 3, 1);
		seed_u8(&s, OP_MAP);
		seed_pages(&s, OP_INFLATE, 1, 0, FROM_LARGE + 6);
		seed_u8(&s, OP_STOP);
		seed_u8(&s, OP_RESET);
		emit(i == 0	 ? "ascending"
			: i == 1 ? "descending"
			: i == 2 ? "mixed"
				 : "not told",
			s.bytes, s.n);
	}
	s.n = 0;
	seed_u16(&s, 0);
	for (i = 0; i < 6; i++) {
		seed_u8(&s, OP_COMMAND);
		seed_u8(&s, i);
		seed_u8(&s, i);
		seed_u8(&s, OP_STATS);
		seed_put(&s, stats, sizeof(stats));
		seed_u8(&s, 20);
		seed_u8(&s, i % 2 ? OP_HINT : OP_REPORT);
		seed_u32(&s, 0x20000);
		seed_u16(&s, 1024);
		seed_u8(&s, 1);
		seed_u8(&s, 4);
		seed_u8(&s, OP_CONFIG);
		seed_u16(&s, 0x1000);
		seed_put(&s, stats, 16);
		seed_u8(&s, OP_TURN);
		seed_u8(&s, OP_MOVE);
		seed_u8(&s, i);
	}
	emit("the rest", s.bytes, s.n);
}
