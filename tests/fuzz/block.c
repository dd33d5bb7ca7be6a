/* SPDX-License-Identifier: MIT */
/*
 * The block device between a hostile driver and a slow disk: the input of this test is a list of steps that offer
 * requests, cut in any way, finish or fail what the disk has under way, hold it back, resize it, write the configuration
 * space, stop and start the queue.
 *
 * The device's file is part of this one; the disk and the queue are made up here. Checked besides the sanitizers' rules:
 * the disk is asked only for what it has and can do; a request comes back once, with a status byte wherever there is room
 * for one; data read is what was written; a queue that stops keeps nothing that waits.
 */
#define input fuzz_input /* headers of the device have a structure of that name */
#include "fuzz.h"
#include "pop-many.h"
#undef input

#include <stdio.h>
#include <stdlib.h>

#include "../../devices/block.c"
#include "../../devices/block-zone.c"

enum {
	STEPS_MAX = 400,
	OUT_MAX = 32,
	PIECES_MAX = 8,
	PIECE_MAX = 2048,
	DISK_MAX = 256 * 512,
	NOT_SEEN = 0xee
};

enum {
	OP_REQUEST,
	OP_FINISH,
	OP_FAIL,
	OP_HOLD,
	OP_RELEASE,
	OP_RESIZE,
	OP_CONFIG,
	OP_STOP,
	OP_START,
	OP_WCE,
	OPS
};

struct slot {
	struct element e;
	struct block_request req;
	struct iovec rd[PIECES_MAX], wr[PIECES_MAX];
	uint8_t rd_bytes[PIECES_MAX * PIECE_MAX], wr_bytes[PIECES_MAX * PIECE_MAX];
	size_t wr_size;
	bool offered, out; /* in the ring; with the device */
};

struct virtqueue {
	struct block_queue bq;
	bool running, woken;
};

struct disk {
	uint64_t size;
	struct disk_limits limits;
	uint8_t bytes[DISK_MAX];
	struct disk_io *io[OUT_MAX]; /* under way or held */
	unsigned n;
	bool holds;
};

struct disk_lane {
	int unused;
};

static struct {
	struct backend b;
	struct block dev;
	struct virtio_blk_config config;
	struct virtqueue q;
	struct slot slots[OUT_MAX];
	struct disk disk;
	struct disk_lane lane;
	struct fuzz_input in;
} f;

/* The core */

static struct slot *slot_of(struct element *e)
{
	return container_of(e, struct slot, e);
}

struct element *virtqueue_pop(struct virtqueue *q)
{
	require(q->running, "a queue that stopped is left alone");
	for (unsigned i = 0; i < OUT_MAX; i++) {
		struct slot *s = &f.slots[i];

		if (!s->offered)
			continue;
		s->offered = false;
		s->out = true;
		memset(&s->req, 0, sizeof(s->req));
		return &s->e;
	}
	return NULL;
}

void virtqueue_push(struct element *e)
{
	struct slot *s = slot_of(e);
	uint8_t status = s->wr_size > 0 ? s->wr_bytes[s->wr_size - 1] : 0;

	require(s->out, "a request comes back once");
	s->out = false;
	require(e->wr.done <= s->wr_size, "not more is used than there is");
	require(status <= VIRTIO_BLK_S_UNSUPP, "there is a status");
	if (s->wr_size > 0)
		require(e->wr.left == 0, "the status is the last byte");
}

void virtqueue_unpop(struct element *e)
{
	struct slot *s = slot_of(e);

	require(s->out, "only what is out goes back");
	s->out = false;
	s->offered = f.q.running; /* and comes again */
}

void virtqueue_wake(void *q)
{
	((struct virtqueue *)q)->woken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	(void)q;
	return 0;
}

void *virtqueue_state(struct virtqueue *q)
{
	return &q->bq;
}

struct backend *virtqueue_backend(struct virtqueue *q)
{
	(void)q;
	return &f.b;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	(void)q;
	return NULL;
}

bool virtqueue_running(const struct virtqueue *q)
{
	return q->running;
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
	require(strcmp(name, "resized") == 0 && json_text(data, NULL) != NULL, "an event is complete");
	json_free(data);
}

/* The disk */

const char *const disk_aio_names[] = {"auto", NULL};

int disk_open(struct disk **out, const struct disk_options *options)
{
	(void)options;
	*out = &f.disk;
	return 0;
}

void disk_close(struct disk *d)
{
	require(d->n == 0, "nothing is under way at the end");
}

const struct disk_limits *disk_limits(const struct disk *d)
{
	return &d->limits;
}

uint64_t disk_size(const struct disk *d)
{
	return d->size;
}

const char *disk_name(const struct disk *d)
{
	(void)d;
	return "disk";
}

bool disk_lifetime(const struct disk *d, struct disk_lifetime *out)
{
	*out = (struct disk_lifetime){1, 2, 3};
	return d->limits.discard;
}

int disk_watch_add(struct disk *d, struct loop *l, struct disk_watch *w)
{
	(void)l;
	w->disk = d;
	return 0;
}

void disk_watch_del(struct disk_watch *w)
{
	w->disk = NULL;
}

int disk_resize(struct disk *d, uint64_t size)
{
	(void)d;
	(void)size;
	return -EOPNOTSUPP;
}

int disk_lane_get(struct disk *d, struct loop *l, struct disk_lane **out)
{
	(void)d;
	(void)l;
	*out = &f.lane;
	return 0;
}

static void perform(struct disk_io *io)
{
	switch (io->op) {
	case DISK_READ:
		cursor_put(io->data, f.disk.bytes + io->offset, io->len);
		break;
	case DISK_WRITE:
		cursor_get(io->data, f.disk.bytes + io->offset, io->len);
		break;
	case DISK_FLUSH:
		break;
	default:
		memset(f.disk.bytes + io->offset, 0, io->len);
		break;
	}
	io->result = 0;
}

static void io_check(const struct disk_io *io)
{
	const struct disk_limits *m = &f.disk.limits;

	require(io->op <= DISK_SECURE_ERASE, "an operation that there is");
	require(io->op == DISK_FLUSH || disk_holds(&f.disk, io->offset, io->len), "inside of the disk");
	require((io->offset | io->len) % 512 == 0, "whole sectors");
	require(io->op == DISK_READ || io->op == DISK_FLUSH || !m->read_only, "read-only means it");
	require(io->op != DISK_DISCARD || m->discard, "the disk can discard");
	require(io->op != DISK_WRITE_ZEROES || m->write_zeroes, "the disk can write zeroes");
	require(io->op != DISK_SECURE_ERASE || m->secure_erase, "the disk can erase");
	require(io->done != NULL, "somebody waits");
}

bool disk_submit(struct disk_lane *lane, struct disk_io *io)
{
	require(lane == &f.lane, "a lane");
	if (io->op <= DISK_WRITE)
		io->len = io->data->left;
	io_check(io);
	io->held = f.disk.holds && !(io->flags & DISK_PART);
	/* what comes at once in the other half of cases */
	if (!io->held && input_u8(&f.in) % 2 == 0) {
		perform(io);
		return true;
	}
	require(f.disk.n < OUT_MAX, "no more requests than elements");
	f.disk.io[f.disk.n++] = io;
	return false;
}

static struct disk_io *io_remove(unsigned i)
{
	struct disk_io *io = f.disk.io[i];

	f.disk.io[i] = f.disk.io[--f.disk.n];
	return io;
}

void disk_withdraw(struct disk_lane *lane, bool (*take)(struct disk_io *io, void *arg), void *arg)
{
	(void)lane;
	for (unsigned i = f.disk.n; i-- > 0;)
		if (f.disk.io[i]->held && take(f.disk.io[i], arg))
			io_remove(i);
}

/* Steps */

static void turn(void)
{
	if (f.q.running)
		block_ready(&f.b, &f.q);
	f.q.woken = false;
}

static unsigned pieces(struct iovec *v, uint8_t *bytes, size_t *total)
{
	unsigned n = input_u8(&f.in) % PIECES_MAX;

	*total = 0;
	for (unsigned i = 0; i < n; i++) {
		static const uint16_t lengths[] = {0, 1, 15, 16, 17, 20, 511, 512, 513, 1024, 1025, 2048};
		uint8_t kind = input_u8(&f.in);
		size_t len = kind < 200 ? lengths[kind % ARRAY_SIZE(lengths)] : input_u16(&f.in) % PIECE_MAX;

		v[i] = (struct iovec){bytes + *total, len};
		*total += len;
	}
	return n;
}

static void step_request(void)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH,
		VIRTIO_BLK_T_GET_ID, T_GET_LIFETIME, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
		VIRTIO_BLK_T_SECURE_ERASE, 2, 99, 0x80000000};
	uint8_t kind = input_u8(&f.in), sector = input_u8(&f.in);
	struct virtio_blk_outhdr hdr = {
		.type = kind < 240 ? types[kind % ARRAY_SIZE(types)] : input_u32(&f.in),
		.sector = sector < 250 ? sector : input_u64(&f.in)};
	struct slot *s = NULL;
	size_t rd;
	unsigned n;

	for (unsigned i = 0; i < OUT_MAX && s == NULL; i++)
		if (!f.slots[i].offered && !f.slots[i].out)
			s = &f.slots[i];
	if (s == NULL)
		return;
	n = pieces(s->rd, s->rd_bytes, &rd);
	input_bytes(&f.in, s->rd_bytes, MIN(rd, 80u));
	memcpy(s->rd_bytes, &hdr, MIN(rd, sizeof(hdr)));
	s->e = (struct element){.queue = &f.q, .req = &s->req};
	cursor_init(&s->e.rd, s->rd, n);
	n = pieces(s->wr, s->wr_bytes, &s->wr_size);
	memset(s->wr_bytes, NOT_SEEN, sizeof(s->wr_bytes));
	cursor_init(&s->e.wr, s->wr, n);
	s->e.fault = kind == 77;
	s->offered = true;
}

static void step_finish(int result)
{
	uint8_t i = input_u8(&f.in);
	struct disk_io *io;

	if (f.disk.n == 0 || f.disk.io[i % f.disk.n]->held)
		return;
	io = io_remove(i % f.disk.n);
	io->result = result;
	if (result == 0)
		perform(io);
	io->done(io);
}

static void release(void)
{
	f.disk.holds = false;
	for (unsigned i = 0; i < f.disk.n; i++) {
		if (!f.disk.io[i]->held)
			continue;
		f.disk.io[i]->held = false;
		f.disk.io[i]->begun(f.disk.io[i]);
	}
}

/* Never shorter: what is under way has been checked. */
static void step_resize(void)
{
	uint64_t more = input_u8(&f.in);

	f.disk.size = MIN(f.disk.size + more * 512, (uint64_t)DISK_MAX);
	size_changed(&f.dev.watch);
	require(le64toh(f.config.capacity) * 512 == f.disk.size, "the driver is told");
}

static void step_config(void)
{
	uint8_t off = input_u8(&f.in) % sizeof(f.config), data[sizeof(f.config)];
	size_t len = input_u8(&f.in) % (sizeof(f.config) - off) + 1;
	struct virtio_blk_config before = f.config;

	input_bytes(&f.in, data, len);
	block_config_write(&f.b, off, data, len);
	before.wce = f.config.wce;
	require(f.config.wce <= 1 && memcmp(&before, &f.config, sizeof(before)) == 0,
		"only the cache changes");
}

static void stop(void)
{
	if (!f.q.running)
		return;
	f.q.running = false;
	block_stop(&f.b, &f.q);
	for (unsigned i = 0; i < f.disk.n; i++)
		require(!f.disk.io[i]->held, "nothing is kept that waits");
	while (f.disk.n > 0) {
		struct disk_io *io = io_remove(0);

		io->result = -EIO;
		io->done(io);
	}
	for (unsigned i = 0; i < OUT_MAX; i++)
		require(!f.slots[i].out, "a queue that stopped has nothing out");
}

static void start(void)
{
	if (f.q.running)
		return;
	f.q.running = true;
	require(block_start(&f.b, &f.q) == 0 && !f.q.bq.held, "a queue starts");
}

static void step(void)
{
	switch (input_u8(&f.in) % OPS) {
	case OP_REQUEST:
		step_request();
		break;
	case OP_FINISH:
		step_finish(0);
		break;
	case OP_FAIL:
		step_finish(-ENOSPC);
		break;
	case OP_HOLD:
		f.disk.holds = true;
		break;
	case OP_RELEASE:
		release();
		break;
	case OP_RESIZE:
		step_resize();
		break;
	case OP_CONFIG:
		step_config();
		break;
	case OP_STOP:
		stop();
		break;
	case OP_START:
		start();
		break;
	case OP_WCE:
		f.b.features ^= BIT(VIRTIO_BLK_F_CONFIG_WCE);
		break;
	}
	turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t kind;

	memset(&f, 0, sizeof(f));
	log_set_level(LOG_LEVEL_ERROR);
	f.in = (struct fuzz_input){data, data + size};
	kind = input_u8(&f.in);
	f.disk.size = 64 * 512;
	f.disk.limits = (struct disk_limits){.logical = 512,
		.physical = 4096,
		.discard_granularity = 512,
		.read_only = kind & 1,
		.discard = (kind & 3) == 2,
		.write_zeroes = !(kind & 1),
		.secure_erase = (kind & 5) == 4};
	f.dev.serial = "serial";
	f.dev.num_queues = 1;
	f.b = (struct backend){.dev = &device_block, .state = &f.dev, .config = (uint8_t *)&f.config};
	f.b.offered = device_block.features;
	require(block_open(&f.b) == 0, "it opens");
	f.b.features = f.b.offered;
	start();
	for (int i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	stop();
	block_close(&f.b);
	return 0;
}

static void seed_pieces(struct seed *s, unsigned n, uint8_t first, uint8_t second)
{
	seed_u8(s, (uint8_t)n);
	if (n > 0)
		seed_u8(s, first);
	if (n > 1)
		seed_u8(s, second);
}

/* A request with a header, 512 bytes in the right place, and a status. */
static void seed_request(struct seed *s, uint8_t type, bool data_rd, bool data_wr)
{
	static const struct virtio_blk_discard_write_zeroes range = {.sector = 3, .num_sectors = 5};
	uint8_t rest[64] = {0};

	seed_u8(s, OP_REQUEST);
	seed_u8(s, type);
	seed_u8(s, 4);
	seed_pieces(s, type >= 5 ? 2 : 1 + data_rd, 3, type >= 5 ? 3 : 7);
	memcpy(rest, &range, sizeof(range));
	seed_put(s, rest, 16);
	seed_put(s, rest, type >= 5 ? 16 : data_rd ? 64 : 0);
	seed_pieces(s, 1 + data_wr, data_wr ? 7 : 1, 1);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const char *const names[] = {
		"disk", "read-only", "discard", "read-only 2", "erase", "read-only 3"};

	for (uint8_t kind = 0; kind < 6; kind++) {
		struct seed s = {.n = 0};

		seed_u8(&s, kind);
		for (uint8_t type = 0; type < 8; type++) {
			seed_request(&s, type, type == 1, type == 0 || type == 3 || type == 4);
			seed_u8(&s, 1); /* not at once */
			seed_u8(&s, OP_FINISH);
			seed_u8(&s, 0);
		}
		seed_u8(&s, OP_HOLD);
		seed_request(&s, 1, true, false);
		seed_request(&s, 0, false, true);
		seed_u8(&s, OP_STOP);
		seed_u8(&s, OP_START);
		seed_request(&s, 5, false, false);
		seed_u8(&s, OP_RELEASE);
		seed_u8(&s, OP_RESIZE);
		seed_u8(&s, 100);
		seed_u8(&s, OP_CONFIG);
		seed_u8(&s, 32);
		seed_u8(&s, 0);
		seed_u8(&s, OP_WCE);
		seed_u8(&s, OP_FAIL);
		seed_u8(&s, 0);
		emit(names[kind], s.bytes, s.n);
	}
}
