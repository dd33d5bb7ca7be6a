/* SPDX-License-Identifier: MIT */
/*
 * The gpu between a hostile driver and a hostile display: the input is a program that sends commands and cursors with
 * fields as it likes, plugs displays in and out, reads from them and writes to them, takes memory away, resets and stops.
 *
 * The device's files are part of this one, with a renderer that pretends; queues and guest memory are made up here. Checked besides the sanitizers' rules:
 * every buffer comes back exactly once, at the latest when its queue stops, and nothing is charged after a reset.
 */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../devices/gpu-2d.c"
#include "../../devices/gpu-display.c"
#include "../../devices/gpu-edid.c"
#include "../../devices/gpu-pixel.c"
#include "../../devices/gpu-resource.c"
#include "../../devices/gpu-shot.c"
#include "../../devices/gpu.c"
#ifdef FUZZ_RENDERER
#include "gpu-hostile.h"
#else
#include "../device/gpu-3d-pretend.c"

static void hostile_step(struct input *in)
{
	(void)in;
}

static void hostile_stop(struct gpu_3d *t)
{
	(void)t;
}
#endif

enum {
	LOW_SIZE = 0x20000, /* guest memory: from 0, and a page further up that may go */
	HIGH_AT = 0x100000,
	HIGH_SIZE = 0x1000,
	COMMAND_MAX = 2048,
	ANSWER_MAX = 2048,
	STEPS_MAX = 400,
};

enum {
	OP_COMMAND,
	OP_CURSOR,
	OP_PLUG,
	OP_UNPLUG,
	OP_READ,
	OP_REPLY,
	OP_WRITE,
	OP_MEMORY,
	OP_RESET,
	OP_STOP,
	OP_TURN,
	OP_RENDERER,
	OPS
};

struct virtqueue {
	unsigned index;
};

struct buffer {
	struct element e;
	struct gpu_request req;
	struct iovec rd, wr;
	uint8_t command[COMMAND_MAX], answer[ANSWER_MAX];
};

static struct {
	struct backend b;
	struct gpu *g;
	struct virtqueue queue[2];
	struct buffer *next; /* that pop gives out */
	unsigned out;
	bool less;
	uint64_t generation;
	uint8_t low[LOW_SIZE], high[HIGH_SIZE];
	int display; /* the front-end's end, or -1 */
	struct input in;
} f = {.queue = {{0}, {1}}, .display = -1};

/* The core, as far as a gpu sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct buffer *b = f.next;

	if (!b)
		return NULL;
	f.next = NULL;
	b->e = (struct element){.queue = q, .req = &b->req};
	cursor_init(&b->e.rd, &b->rd, b->rd.iov_len > 0);
	cursor_init(&b->e.wr, &b->wr, b->wr.iov_len > 0);
	f.out++;
	return &b->e;
}

void virtqueue_push(struct element *e)
{
	struct buffer *b = container_of(e, struct buffer, e);

	require(f.out > 0, "no more buffers come back than were taken");
	require(e->wr.done <= b->wr.iov_len, "an answer fits its buffer");
	f.out--;
	free(b);
}

void virtqueue_wake(void *q)
{
	(void)q;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	(void)q;
	return true;
}

struct virtqueue *backend_queue(struct backend *b, unsigned index)
{
	(void)b;
	return &f.queue[index];
}

bool backend_memory_get(struct backend *b, struct backend_memory *m)
{
	(void)b;
	*m = (struct backend_memory){0};
	return true;
}

void backend_memory_put(struct backend_memory *m)
{
	(void)m;
}

unsigned backend_memory_iovec(
	struct backend_memory *m, uint64_t gpa, uint64_t len, struct iovec *v, unsigned n)
{
	(void)m;
	if (n && gpa < LOW_SIZE && len <= LOW_SIZE - gpa)
		v[0] = (struct iovec){f.low + gpa, len};
	else if (n && !f.less && gpa >= HIGH_AT && gpa - HIGH_AT < HIGH_SIZE &&
		 len <= HIGH_SIZE - (gpa - HIGH_AT))
		v[0] = (struct iovec){f.high + (gpa - HIGH_AT), len};
	else
		return 0;
	return 1;
}

void backend_memory_wrote(struct backend_memory *m, uint64_t gpa, uint64_t len)
{
	(void)m;
	(void)gpa;
	(void)len;
}

uint64_t backend_memory_generation(struct backend *b)
{
	(void)b;
	return f.generation;
}

/* The program */

static void turn(void)
{
	loop_stop(f.b.loop);
	loop_run(f.b.loop);
}

/* Small numbers for the most part: they are ids, sizes and places that mean something. */
static uint32_t pick(void)
{
	static const uint32_t special[] = {64, 100, 128, 256, 1024, 4096, 8192, 16384, 16385, 65536, HIGH_AT,
		HIGH_AT + 4000, LOW_SIZE - 100, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff};
	uint8_t v = input_u8(&f.in);

	if (v < 128)
		return v;
	if (v < 128 + ARRAY_SIZE(special))
		return special[v - 128];
	return v < 250 ? v : input_u32(&f.in);
}

static struct buffer *buffer_new(uint32_t type, unsigned words, uint8_t room)
{
	struct buffer *b = calloc(1, sizeof(*b));
	struct virtio_gpu_ctrl_hdr hdr = {.type = htole32(type),
		.flags = htole32(room & 1),
		.fence_id = room,
		.ctx_id = htole32(room & 3)};
	unsigned i;

	require(b != NULL, "memory");
	memcpy(b->command, &hdr, sizeof(hdr));
	for (i = 0; i < words; i++) {
		uint32_t v = htole32(pick());

		memcpy(b->command + sizeof(hdr) + i * sizeof(v), &v, sizeof(v));
	}
	b->rd = (struct iovec){b->command, sizeof(hdr) + words * sizeof(uint32_t)};
	b->wr = (struct iovec){b->answer, MIN((size_t)room * 8, (size_t)ANSWER_MAX)};
	return b;
}

static void run_command(void)
{
	uint8_t type = input_u8(&f.in), words = input_u8(&f.in), room = input_u8(&f.in);

	f.next =
		buffer_new(VIRTIO_GPU_CMD_GET_DISPLAY_INFO + type % 16 + (type & 128 ? 256 : 0), words, room);
	control_ready(&f.b, &f.queue[CONTROL]);
	require(!f.next, "a buffer is taken");
}

static void run_cursor(void)
{
	uint8_t type = input_u8(&f.in), words = input_u8(&f.in) % 10;

	f.next = buffer_new(VIRTIO_GPU_CMD_UPDATE_CURSOR + type % 3, words, 0);
	cursor_ready(&f.b, &f.queue[CURSOR]);
}

static void unplug(void)
{
	fd_close(&f.display);
	turn();
}

static void plug(void)
{
	struct request r = {.type = REQUEST_GPU_SOCKET, .fd = -1};
	int sv[2], size = 4096;

	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv) == 0, "a socket");
	setsockopt(sv[0], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	fd_close(&f.display);
	f.display = sv[0];
	r.fd = sv[1];
	gpu_request(&f.b, &r);
	fd_close(&r.fd);
}

static void read_display(void)
{
	uint8_t buf[8192];
	unsigned n = input_u8(&f.in);

	while (f.display >= 0 && n-- && recv(f.display, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		turn();
}

/* A reply as it should be, but for its contents. */
static void send_reply(void)
{
	static const struct header replies[] = {{GET_PROTOCOL_FEATURES, FLAG_REPLY, 8},
		{GET_DISPLAY_INFO, FLAG_REPLY, sizeof(struct virtio_gpu_resp_display_info)},
		{GET_EDID, FLAG_REPLY, sizeof(struct virtio_gpu_resp_edid)}, {DMABUF_UPDATE, FLAG_REPLY, 0}};
	const struct header *h = &replies[input_u8(&f.in) % ARRAY_SIZE(replies)];
	uint8_t payload[MAX_REPLY] = {0};

	input_bytes(&f.in, payload, input_u8(&f.in));
	if (f.display < 0)
		return;
	send(f.display, h, sizeof(*h), MSG_NOSIGNAL | MSG_DONTWAIT);
	send(f.display, payload, h->size, MSG_NOSIGNAL | MSG_DONTWAIT);
	turn();
}

static void write_display(void)
{
	uint8_t bytes[64], n = input_u8(&f.in) % sizeof(bytes);

	input_bytes(&f.in, bytes, n);
	if (f.display >= 0)
		send(f.display, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	turn();
}

static void stop(void)
{
	gpu_stop(&f.b, &f.queue[CONTROL]);
	hostile_stop(f.g->three);
	require(f.out == 0, "all buffers come back when the queue stops");
}

static void reset(void)
{
	stop();
	gpu_reset(&f.b);
	if (!f.g->display->surface.res)
		require(f.g->hostmem == 0, "nothing is charged after a reset");
}

static void step(void)
{
	switch (input_u8(&f.in) % OPS) {
	case OP_COMMAND:
		run_command();
		break;
	case OP_CURSOR:
		run_cursor();
		break;
	case OP_PLUG:
		plug();
		break;
	case OP_UNPLUG:
		unplug();
		break;
	case OP_READ:
		read_display();
		break;
	case OP_REPLY:
		send_reply();
		break;
	case OP_WRITE:
		write_display();
		break;
	case OP_MEMORY:
		f.less = !f.less;
		f.generation++;
		break;
	case OP_RESET:
		reset();
		break;
	case OP_RENDERER:
		hostile_step(&f.in);
		turn();
		break;
	case OP_STOP:
		stop();
		break;
	default:
		turn();
		break;
	}
}

static void setup(void)
{
	static uint8_t config[sizeof(struct virtio_gpu_config)];
	static struct gpu g;

	log_set_level(LOG_LEVEL_ERROR);
	if (!f.b.loop)
		require(loop_new(&f.b.loop, "fuzz") == 0, "a loop");
	g = (struct gpu){.max_hostmem = 1 << 20,
		.virgl = true,
		.nmodes = 2,
		.mode = {{640, 480, true}, {64, 64, false}}};
	f.g = &g;
	f.b.state = &g;
	f.b.config = config;
	f.b.features = device_gpu.features | BIT(VIRTIO_GPU_F_VIRGL);
	f.less = false;
	require(gpu_open(&f.b) == 0, "the device opens");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned steps = 0;

	setup();
	f.in = (struct input){.p = data, .end = data + size};
	while (input_left(&f.in) > 0 && steps++ < STEPS_MAX)
		step();
	stop();
	unplug();
	gpu_close(&f.b);
	require(f.g->hostmem == 0, "nothing is charged in the end");
	return 0;
}

/* Seeds */

static void seed_command(struct seed *s, uint32_t type, uint8_t words, const uint8_t *fields, uint8_t room)
{
	seed_u8(s, OP_COMMAND);
	seed_u8(s, (uint8_t)((type & 15) | (type >= VIRTIO_GPU_CMD_CTX_CREATE ? 128 : 0)));
	seed_u8(s, words);
	seed_u8(s, room);
	seed_put(s, fields, words);
}

#define SEED(s, type, room, ...) \
	seed_command(s, type, sizeof((uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__}, room)

/* A screen of 32 by 16 on resource 1, with its backing in two pieces. */
static void seed_screen(struct seed *s)
{
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, 3, 1, 3, 32, 16);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, 3, 1, 2, 131, 0, 132, 0, 138, 0, 132, 0);
	SEED(s, VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, 3, 0, 0, 32, 16, 0, 0, 1, 0);
	SEED(s, VIRTIO_GPU_CMD_SET_SCANOUT, 3, 0, 0, 32, 16, 0, 1);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_FLUSH, 3, 0, 0, 32, 16, 1, 0);
}

static void seed_blob(struct seed *s)
{
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB, 3, 2, 1, 0, 1, 0, 0, 133, 0, 0, 0, 133, 0);
	SEED(s, VIRTIO_GPU_CMD_SET_SCANOUT_BLOB, 3, 0, 0, 16, 16, 1, 2, 16, 16, 67, 0, 64, 0, 0, 0, 0, 0, 0,
		0);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_FLUSH, 3, 0, 0, 16, 16, 2, 0);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, 5, 2, 0);
}

static void seed_display(struct seed *s)
{
	seed_put(s, (const uint8_t[]){OP_PLUG, OP_TURN, OP_READ, 4, OP_REPLY, 0, 1, 1, OP_READ, 4}, 10);
}

/* The same as a 3D resource, with which the display is shown a dmabuf. */
static void seed_screen_3d(struct seed *s)
{
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_CREATE_3D, 3, 3, 2, 1, 0, 32, 16, 1, 1, 0, 0, 0, 0);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, 3, 3, 1, 131, 0, 132, 0);
	SEED(s, VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D, 3, 0, 0, 0, 32, 16, 1, 0, 0, 3, 0, 128, 0);
	SEED(s, VIRTIO_GPU_CMD_SET_SCANOUT, 3, 0, 0, 32, 16, 1, 3);
	SEED(s, VIRTIO_GPU_CMD_RESOURCE_FLUSH, 3, 0, 0, 32, 16, 3, 0);
}

static void seed_questions(struct seed *s)
{
	SEED(s, VIRTIO_GPU_CMD_GET_DISPLAY_INFO, 60, 0);
	SEED(s, VIRTIO_GPU_CMD_GET_EDID, 150, 0, 0);
	seed_put(s,
		(const uint8_t[]){
			OP_READ, 4, OP_REPLY, 1, 0, OP_READ, 4, OP_REPLY, 2, 0, OP_REPLY, 0, 0, OP_TURN},
		14);
}

/* Only of interest where the renderer is hostile. */
enum { RENDERER_READ = 0, RENDERER_ANSWER = 66, RENDERER_FENCE = 2, RENDERER_BYTES = 3, RENDERER_END = 4 };

static void seed_renderer(struct seed *s, unsigned answers)
{
	seed_put(s, (const uint8_t[]){OP_TURN, OP_RENDERER, RENDERER_READ}, 3);
	while (answers--)
		seed_put(s, (const uint8_t[]){OP_RENDERER, RENDERER_ANSWER}, 2);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	struct seed s = {.n = 0};

	seed_screen(&s);
	seed_put(&s,
		(const uint8_t[]){
			OP_CURSOR, 0, 8, 0, 10, 10, 0, 1, 1, 1, 0, OP_CURSOR, 1, 8, 0, 5, 5, 0, 1, 0, 0, 0},
		22);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, 3, 1, 0);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_UNREF, 3, 1, 0);
	emit("2d", s.bytes, s.n);
	s.n = 0;
	seed_questions(&s);
	seed_screen(&s);
	seed_blob(&s);
	seed_u8(&s, OP_MEMORY);
	seed_blob(&s);
	seed_u8(&s, OP_RESET);
	seed_screen(&s);
	emit("blobs", s.bytes, s.n);
	s.n = 0;
	seed_display(&s);
	seed_screen(&s);
	seed_questions(&s);
	seed_put(&s, (const uint8_t[]){OP_READ, 20, OP_STOP, OP_PLUG, OP_TURN, OP_UNPLUG}, 6);
	emit("display", s.bytes, s.n);
	s.n = 0;
	seed_screen(&s);
	seed_display(&s);
	seed_blob(&s);
	seed_questions(&s);
	seed_put(&s,
		(const uint8_t[]){OP_WRITE, 12, 1, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, OP_RESET, OP_READ, 9},
		17);
	emit("hostile display", s.bytes, s.n);
	s.n = 0;
	seed_put(&s, (const uint8_t[]){OP_PLUG, OP_TURN, OP_READ, 4, OP_REPLY, 0, 1, 3, OP_READ, 4}, 10);
	seed_screen_3d(&s);
	seed_put(&s, (const uint8_t[]){OP_TURN, OP_READ, 4, OP_REPLY, 3, 0}, 6);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_FLUSH, 3, 0, 0, 8, 8, 3, 0);
	seed_put(&s, (const uint8_t[]){OP_TURN, OP_READ, 4}, 3);
	seed_screen(&s);
	SEED(&s, VIRTIO_GPU_CMD_SET_SCANOUT, 3, 0, 0, 32, 16, 1, 1);
	seed_put(&s, (const uint8_t[]){OP_TURN, OP_REPLY, 3, 0, OP_READ, 9}, 6);
	SEED(&s, VIRTIO_GPU_CMD_SET_SCANOUT, 3, 0, 0, 32, 16, 1, 3);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_UNREF, 3, 3, 0);
	seed_put(&s, (const uint8_t[]){OP_TURN, OP_PLUG, OP_READ, 4, OP_RESET}, 5);
	emit("dmabuf", s.bytes, s.n);
	s.n = 0;
	seed_display(&s);
	SEED(&s, VIRTIO_GPU_CMD_CTX_CREATE, 3, 1, 0);
	seed_screen_3d(&s);
	SEED(&s, VIRTIO_GPU_CMD_SUBMIT_3D, 3, 8, 0, 1, 1);
	seed_renderer(&s, 8);
	seed_put(&s, (const uint8_t[]){OP_RENDERER, RENDERER_FENCE, 8, OP_READ, 9}, 5);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_FLUSH, 3, 0, 0, 8, 8, 3, 0);
	seed_put(&s, (const uint8_t[]){OP_MEMORY, OP_TURN, OP_RENDERER, RENDERER_END}, 4);
	SEED(&s, VIRTIO_GPU_CMD_RESOURCE_UNREF, 3, 3, 0);
	seed_u8(&s, OP_RESET);
	SEED(&s, VIRTIO_GPU_CMD_CTX_CREATE, 3, 1, 0);
	seed_renderer(&s, 1);
	seed_put(&s, (const uint8_t[]){OP_RENDERER, RENDERER_BYTES, 96, 1, 0, 0, 0, 9}, 8);
	emit("renderer", s.bytes, s.n);
}
