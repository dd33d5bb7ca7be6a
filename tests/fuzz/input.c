/* SPDX-License-Identifier: MIT */
/*
 * The input device between a hostile driver and a hostile program: the input of this test is a list of steps that write
 * the configuration space, offer buffers for events, send status events, let a program come, send lines, events or
 * rubbish, and go, and that stop the driver, pause it and bring it back.
 *
 * The device's files are part of this one; queues are made up here. Checked besides the sanitizers' rules: the guest
 * gets whole reports of events that the device has, and when it has taken all of them it knows which keys are held.
 */
#define input fuzz_input /* the device has a structure of that name */
#include "fuzz.h"
#undef input

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../devices/input-backlog.c"
#include "../../devices/input-model.c"
#include "../../devices/input-source.c"
#include "../../devices/input-text.c"
#include "../../devices/input.c"

enum { STEPS_MAX = 600, STATUS_MAX = 600, CHUNK = 2048 };

enum {
	OP_CONFIG,
	OP_BUFFERS,
	OP_STATUS,
	OP_COME,
	OP_GO,
	OP_TEXT,
	OP_EVENTS,
	OP_RUBBISH,
	OP_MANY,
	OP_STOP,
	OP_START,
	OP_RESET,
	OPS
};

struct virtqueue {
	unsigned index;
	bool woken, broken;
};

static struct {
	char dir[32], path[48];
	struct backend b;
	struct input *dev;
	uint8_t config[sizeof(struct virtio_input_config)];
	struct virtqueue queue[QUEUES];
	unsigned offered; /* buffers for events */
	size_t buffer;	  /* bytes of each */
	struct element e, status;
	struct iovec iov, status_iov;
	uint8_t bytes[16], status_bytes[STATUS_MAX];
	bool out, has_status, report, running;
	int program;		  /* the program's end, or -1 */
	struct input_state known; /* by the guest */
	struct fuzz_input in;
} f = {.program = -1};

/* The core, as far as an input device sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	if (q->broken)
		return NULL;
	if (q->index == QUEUE_STATUS) {
		if (!f.has_status)
			return NULL;
		f.has_status = false;
		f.status = (struct element){.queue = q};
		cursor_init(&f.status.rd, &f.status_iov, 1);
		return &f.status;
	}
	require(!f.out, "one buffer after the other");
	if (!f.offered)
		return NULL;
	f.offered--;
	f.out = true;
	f.iov = (struct iovec){f.bytes, f.buffer};
	f.e = (struct element){.queue = q};
	cursor_init(&f.e.wr, &f.iov, 1);
	return &f.e;
}

void virtqueue_push(struct element *e)
{
	struct virtio_input_event wire;
	struct input_ev ev;

	if (e == &f.status)
		return;
	require(f.out, "a buffer comes back once");
	f.out = false;
	require(e->wr.done == sizeof(wire), "a buffer holds an event");
	memcpy(&wire, f.bytes, sizeof(wire));
	ev = (struct input_ev){le16toh(wire.type), le16toh(wire.code), (int32_t)le32toh(wire.value)};
	require(ev.type == EV_SYN || input_model_has(&f.dev->model, ev.type, ev.code),
		"the device has such events");
	require(ev.type != EV_LED && ev.type != EV_REP, "nothing is echoed");
	f.report = ev.type != EV_SYN || ev.code != SYN_REPORT;
	apply(&f.known, &f.dev->model, &ev);
}

void virtqueue_unpop(struct element *e)
{
	if (e == &f.e)
		f.out = false;
}

void virtqueue_wake(void *arg)
{
	struct virtqueue *q = arg;

	q->woken = true;
}

void virtqueue_break(struct virtqueue *q, const char *fmt, ...)
{
	(void)fmt;
	require(f.buffer < sizeof(struct virtio_input_event), "only a short buffer breaks the queue");
	q->broken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

int input_evdev_open(struct input_host **out, const struct input_host *init, const char *path, bool grab)
{
	(void)out;
	(void)init;
	(void)path;
	(void)grab;
	return -ENODEV;
}

/* Steps */

static void turn(void)
{
	unsigned i;

	loop_stop(f.b.loop);
	loop_run(f.b.loop);
	for (i = 0; i < 10000 && f.running && f.queue[QUEUE_EVENTS].woken; i++) {
		f.queue[QUEUE_EVENTS].woken = false;
		if (!f.queue[QUEUE_EVENTS].broken)
			events_ready(&f.b, &f.queue[QUEUE_EVENTS]);
	}
	require(i < 10000, "a queue comes to rest");
}

static void step_config(void)
{
	uint8_t off = input_u8(&f.in) % sizeof(f.config), data[sizeof(f.config)];
	size_t len = input_u8(&f.in) % (sizeof(f.config) - off) + 1;
	const struct virtio_input_config *c = (const struct virtio_input_config *)f.config;

	input_bytes(&f.in, data, MIN(len, 4u));
	input_config_write(&f.b, off, data, MIN(len, 4u));
	require(c->size <= sizeof(c->u), "the content fits");
	for (len = c->size; len < sizeof(c->u); len++)
		require(!c->u.bitmap[len], "there is nothing behind it");
}

static void offer(unsigned n, size_t size)
{
	f.offered += n;
	f.buffer = size;
	f.queue[QUEUE_EVENTS].woken = true;
}

static void step_buffers(void)
{
	uint8_t n = input_u8(&f.in), size = input_u8(&f.in);

	offer(n, size < 250 ? sizeof(struct virtio_input_event) : size % 16);
}

static void step_status(void)
{
	size_t n = input_u16(&f.in) % (STATUS_MAX + 1);

	input_bytes(&f.in, f.status_bytes, n);
	f.status_iov = (struct iovec){f.status_bytes, n};
	f.has_status = true;
	status_ready(&f.b, &f.queue[QUEUE_STATUS]);
	require(!f.has_status, "a status event is taken");
}

static void step_come(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (f.program >= 0)
		return;
	strcpy(addr.sun_path, f.path);
	f.program = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(f.program, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return;
	require(errno == EAGAIN, "a program can connect, unless too many wait");
	fd_close(&f.program);
}

static void send_bytes(const void *bytes, size_t n)
{
	if (f.program >= 0 && send(f.program, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		require(errno == EAGAIN || errno == EPIPE, "the socket lives");
}

static void step_text(void)
{
	static const char *const words[] = {"KEY_A=1", "KEY_A=0", "1:48=1", "BTN_LEFT=1", "BTN_TOUCH=1",
		"REL_X=-5", "ABS_X=9", "ABS_MT_SLOT=3", "ABS_MT_TRACKING_ID=7", "ABS_MT_TRACKING_ID=-1",
		"ABS_MT_SLOT=77", "SYN_MT_REPORT=0", "+0.000001", "#", "LED_CAPSL=1", "KEY_A"};
	uint8_t n = input_u8(&f.in) % 16, i;
	char line[512] = "";

	for (i = 0; i < n; i++) {
		strcat(line, words[input_u8(&f.in) % ARRAY_SIZE(words)]);
		strcat(line, " ");
	}
	strcat(line, "\n");
	send_bytes(line, strlen(line));
}

static void step_events(void)
{
	struct input_event ev[16];
	uint8_t n = input_u8(&f.in) % 16, i;

	memset(ev, 0, sizeof(ev));
	for (i = 0; i < n; i++) {
		ev[i].type = input_u8(&f.in) % 6;
		ev[i].code = input_u8(&f.in);
		ev[i].value = (int8_t)input_u8(&f.in);
	}
	ev[n].type = input_u8(&f.in) & 1 ? EV_SYN : EV_KEY;
	send_bytes(ev, (n + 1u) * sizeof(*ev));
}

static void step_rubbish(void)
{
	uint8_t bytes[256];
	size_t n = input_u8(&f.in);

	input_bytes(&f.in, bytes, n);
	send_bytes(bytes, n);
}

/* As much as the socket takes, of one byte or of one event. */
static void step_many(void)
{
	struct input_event ev[CHUNK / sizeof(struct input_event)];
	uint8_t what = input_u8(&f.in);
	unsigned i;

	memset(ev, what, sizeof(ev));
	for (i = 0; what > 128 && i < ARRAY_SIZE(ev); i++)
		ev[i] = (struct input_event){.type = EV_KEY, .code = what, .value = (int)i & 1};
	for (i = 0; i < 64; i++) {
		send_bytes(ev, sizeof(ev));
		if (i % 8 == 0)
			turn();
	}
}

static void driver_start(void)
{
	unsigned i;

	if (f.running)
		return;
	if (f.dev->fresh)
		input_state_init(&f.known);
	if (f.dev->fresh)
		f.report = false;
	f.running = true;
	for (i = 0; i < QUEUES; i++) {
		f.queue[i].broken = false;
		require(input_start(&f.b, &f.queue[i]) == 0, "queues start");
	}
}

static void driver_stop(void)
{
	unsigned i;

	for (i = 0; f.running && i < QUEUES; i++)
		input_stop(&f.b, &f.queue[i]);
	f.running = false;
	f.offered = 0;
}

static void program_go(void)
{
	fd_close(&f.program);
}

static void step(void)
{
	switch (input_u8(&f.in) % OPS) {
	case OP_CONFIG:
		step_config();
		break;
	case OP_BUFFERS:
		step_buffers();
		break;
	case OP_STATUS:
		step_status();
		break;
	case OP_COME:
		step_come();
		break;
	case OP_GO:
		program_go();
		break;
	case OP_TEXT:
		step_text();
		break;
	case OP_EVENTS:
		step_events();
		break;
	case OP_RUBBISH:
		step_rubbish();
		break;
	case OP_MANY:
		step_many();
		break;
	case OP_STOP:
		driver_stop();
		break;
	case OP_START:
		driver_start();
		break;
	default:
		driver_stop();
		input_reset(&f.b);
		break;
	}
	turn();
}

/* The program goes, the guest takes all: nothing is held, and no report is left half. */
static void finish(void)
{
	struct input_ev ev;
	unsigned i;

	driver_stop();
	driver_start();
	program_go();
	for (i = 0; i < 2000; i++) {
		offer(64, sizeof(struct virtio_input_event));
		f.dev->host->ops->room(f.dev->host);
		if (source_of(f.dev->host)->waiting) {
			timer_disarm(&source_of(f.dev->host)->delay);
			delay_expired(&source_of(f.dev->host)->delay);
		}
		turn();
		if (source_of(f.dev->host)->fd < 0 && !input_backlog_peek(&f.dev->backlog, &ev))
			break;
	}
	require(i < 2000, "it ends");
	require(!f.report, "reports are whole");
	for (i = 0; i < sizeof(f.known.key); i++)
		require(!f.known.key[i], "no key is held");
	for (i = 0; i < INPUT_SLOTS; i++)
		require(f.known.contact[i][INPUT_MT_ID] < 0, "no contact is held");
}

static void set_up(void)
{
	unsigned i;

	if (!f.dir[0]) {
		log_set_level(LOG_LEVEL_ERROR);
		strcpy(f.dir, "/tmp/vum-fuzz-XXXXXX");
		require(mkdtemp(f.dir) != NULL, "a directory");
		snprintf(f.path, sizeof(f.path), "%s/source", f.dir);
	}
	f.b = (struct backend){.dev = &device_input, .config = f.config};
	f.dev = calloc(1, sizeof(*f.dev));
	require(f.dev && loop_new(&f.b.loop, "fuzz") == 0, "memory");
	f.b.state = f.dev;
	memset(f.config, 0, sizeof(f.config));
	for (i = 0; i < QUEUES; i++)
		f.queue[i] = (struct virtqueue){.index = i};
	f.offered = 0;
	f.out = f.running = f.report = f.has_status = false;
	f.dev->source = f.path;
	f.dev->kind = input_u8(&f.in) % 4;
	input_state_init(&f.known);
	require(input_open(&f.b) == 0, "the device opens");
}

static void tear_down(void)
{
	driver_stop();
	program_go();
	input_close(&f.b);
	loop_free(f.b.loop);
	free(f.dev);
	require(access(f.path, F_OK) < 0, "the socket is removed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int i;

	f.in = (struct fuzz_input){data, data + size};
	set_up();
	for (i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	finish();
	tear_down();
	rmdir(f.dir);
	f.dir[0] = '\0';
	return 0;
}

/* A device of each kind in regular use. */
void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t words[4][2] = {{0, 1}, {3, 5}, {6, 3}, {7, 8}};
	unsigned kind, i;

	for (kind = 0; kind < 4; kind++) {
		struct seed s = {.n = 0};

		seed_u8(&s, (uint8_t)kind);
		for (i = 0; i < 5; i++) {
			seed_u8(&s, OP_CONFIG);
			seed_u32(&s, 0x01100100u + (i << 16)); /* off 0, len 1, select … */
		}
		seed_u8(&s, OP_START);
		seed_u8(&s, OP_BUFFERS);
		seed_u16(&s, 64);
		seed_u8(&s, OP_COME);
		for (i = 0; i < 6; i++) {
			seed_u8(&s, OP_TEXT);
			seed_u8(&s, 2);
			seed_put(&s, words[kind], 2);
		}
		seed_u8(&s, OP_STATUS);
		seed_u16(&s, 8);
		seed_u64(&s, 0x0000000100010011u);
		seed_u8(&s, OP_STOP);
		seed_u8(&s, OP_START);
		seed_u8(&s, OP_GO);
		seed_u8(&s, OP_COME);
		seed_u8(&s, OP_EVENTS);
		seed_u8(&s, 1);
		seed_u8(&s, EV_KEY);
		seed_u16(&s, 0x0100 + KEY_A);
		seed_u8(&s, 1);
		seed_u8(&s, OP_MANY);
		seed_u8(&s, kind & 1 ? 200 : 7);
		emit(input_kind_names[kind], s.bytes, s.n);
	}
}
