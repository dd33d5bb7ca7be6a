/* SPDX-License-Identifier: MIT */
/*
 * The SCSI host adapter and a hostile driver: the input is a program that sends commands with any CDB and data, task
 * management and event buffers, lets the disk answer at once, later or with errors, adds and removes units, stops queues,
 * resets and moves to another process.
 *
 * The device's files are part of this one; queues and a disk in memory are made up here. Checked besides the sanitizers'
 * rules: every buffer comes back exactly once, at the latest when the disk has answered all, and what the device writes
 * stays in the buffer.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* scsi-sg.c shall find these */
static int fake_ioctl(int fd, unsigned long request, void *arg);

#define ioctl(fd, request, arg) fake_ioctl(fd, request, arg)
#include "../../devices/scsi-sg.c"
#undef ioctl
#include "../../devices/scsi-block.c"
#include "../../devices/scsi-cdrom.c"
#include "../../devices/scsi-command.c"
#include "../../devices/scsi-control.c"
#include "../../devices/scsi-event.c"
#include "../../devices/scsi-inflight.c"
#include "../../devices/scsi-inquiry.c"
#include "../../devices/scsi-lba.c"
#include "../../devices/scsi-lun.c"
#include "../../devices/scsi-mode.c"
#include "../../devices/scsi-pr-file.c"
#include "../../devices/scsi-pr.c"
#include "../../devices/scsi-reserve.c"
#include "../../devices/scsi-sense.c"
#include "../../devices/scsi-state.c"
#include "../../devices/scsi-sweep.c"
#include "../../devices/scsi-tmf.c"
#include "../../devices/scsi-unmap.c"
#include "../../devices/scsi-verify.c"
#include "../../devices/scsi.c"
#include "move.h"

enum { DISK_SIZE = 0x10000, DATA_MAX = 4096, STEPS_MAX = 300, QUEUES = 4, PENDING_MAX = 256 };

enum {
	OP_COMMAND,
	OP_CONTROL,
	OP_EVENT,
	OP_COMPLETE,
	OP_MODE,
	OP_ADD,
	OP_REMOVE,
	OP_STOP,
	OP_RESET,
	OP_GROW,
	OPS
};

struct virtqueue {
	unsigned index;
	bool running;
	unsigned out;	     /* buffers that are not back */
	struct buffer *next; /* that pop gives out */
};

struct buffer {
	struct element e;
	struct scsi_request req;
	struct iovec rd, wr;
};

struct disk {
	uint64_t size;
	struct disk_limits limits;
	struct disk_watch *watch;
};

struct disk_lane {
	struct disk *disk;
};

static struct {
	struct backend b;
	struct scsi *s;
	struct virtqueue queue[QUEUES];
	unsigned out;
	unsigned mode; /* of the disk: 0 at once, 1 later, 2 held */
	struct disk_io *pending[PENDING_MAX];
	struct disk_lane *lane_of[PENDING_MAX];
	unsigned npending;
	uint8_t content[DISK_SIZE];
	struct job *jobs[PENDING_MAX]; /* commands with a real device */
	unsigned njobs;
	struct input in;
} f;

/* The core, as far as this device sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct buffer *b = q->next;

	if (b == NULL || !q->running)
		return NULL;
	q->next = NULL;
	q->out++;
	b->e = (struct element){.queue = q, .req = &b->req};
	memset(&b->req, 0xa5, sizeof(b->req));
	memset(&b->req, 0, q->index >= 2 ? SCSI_REQUEST_ZERO : 0);
	cursor_init(&b->e.rd, &b->rd, b->rd.iov_len > 0);
	cursor_init(&b->e.wr, &b->wr, b->wr.iov_len > 0);
	return &b->e;
}

static void buffer_free(struct buffer *b)
{
	require(f.out > 0, "no more buffers come back than were taken");
	f.out--;
	free(b->rd.iov_base);
	free(b->wr.iov_base);
	free(b);
}

void virtqueue_push(struct element *e)
{
	struct buffer *b = container_of(e, struct buffer, e);

	require(e->wr.done <= b->wr.iov_len, "an answer fits its buffer");
	e->queue->out--;
	buffer_free(b);
}

void virtqueue_unpop(struct element *e)
{
	require(!e->queue->running, "buffers are given back when their queue stops");
	e->queue->out--;
	buffer_free(container_of(e, struct buffer, e));
}

void virtqueue_wake(void *q)
{
	(void)q;
}

bool virtqueue_pending(struct virtqueue *q)
{
	(void)q;
	return false;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	return q->index & 1;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	(void)q;
	return f.b.loop;
}

bool backend_event_wanted(const struct backend *b)
{
	(void)b;
	return false;
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	(void)b;
	(void)name;
	json_free(data);
}

/* The disk */

const char *const disk_aio_names[] = {"auto", NULL};

int disk_open(struct disk **out, const struct disk_options *o)
{
	struct disk *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return -ENOMEM;
	d->size = MIN(o->null_size, (uint64_t)DISK_SIZE);
	d->limits = (struct disk_limits){.logical = 512,
		.physical = 4096,
		.discard_granularity = 4096,
		.read_only = o->read_only,
		.discard = !o->read_only,
		.discard_zeroes = !o->read_only,
		.write_zeroes = !o->read_only};
	*out = d;
	return 0;
}

static struct disk_lane lane;

void disk_close(struct disk *d)
{
	free(d);
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
	return "fuzz";
}

int disk_watch_add(struct disk *d, struct loop *l, struct disk_watch *w)
{
	(void)l;
	d->watch = w;
	return 0;
}

void disk_watch_del(struct disk_watch *w)
{
	(void)w;
}

int disk_resize(struct disk *d, uint64_t size)
{
	(void)d;
	(void)size;
	return 0;
}

int disk_lane_get(struct disk *d, struct loop *l, struct disk_lane **out)
{
	(void)d;
	(void)l;
	*out = &lane;
	return 0;
}

static void tell_extents(struct disk_io *io)
{
	struct disk_extents *x = io->extents;

	require(x->max > 0 && x->n == 0 && x->covered == 0, "an empty answer");
	for (; x->n < x->max && x->covered < io->len; x->n++) {
		struct disk_extent *e = &x->extent[x->n];

		e->hole = x->n % 2;
		e->len = MIN(io->len - x->covered, (uint64_t)x->align * (1 + x->n % 5));
		x->covered += e->len;
	}
}

/* What stands behind the end when the disk has shrunk is an error. */
static void carry_out(struct disk_io *io, bool fails)
{
	io->result = fails ? -EIO : 0;
	if (io->op == DISK_FLUSH || fails)
		return;
	if (io->offset > DISK_SIZE || io->len > DISK_SIZE - io->offset)
		abort();
	require(io->offset % 512 == 0 && io->len % 512 == 0, "whole sectors");
	if (io->op == DISK_READ)
		cursor_put(io->data, f.content + io->offset, io->len);
	else if (io->op == DISK_WRITE)
		cursor_get(io->data, f.content + io->offset, io->len);
	else if (io->op == DISK_STATUS)
		tell_extents(io);
	else
		memset(f.content + io->offset, 0, io->len);
}

bool disk_submit(struct disk_lane *l, struct disk_io *io)
{
	(void)l;
	if (io->op <= DISK_WRITE)
		io->len = io->data->left;
	io->held = false;
	if (f.mode == 0 || f.npending == PENDING_MAX) {
		carry_out(io, false);
		return true;
	}
	io->held = f.mode == 2;
	f.pending[f.npending++] = io;
	return false;
}

void disk_withdraw(struct disk_lane *l, bool (*wants)(struct disk_io *io, void *arg), void *arg)
{
	unsigned n = 0;

	(void)l;
	for (unsigned i = 0; i < f.npending; i++)
		if (!f.pending[i]->held || !wants(f.pending[i], arg))
			f.pending[n++] = f.pending[i];
	f.npending = n;
}

static void complete(unsigned i, bool fails)
{
	struct disk_io *io = f.pending[i];

	f.pending[i] = f.pending[--f.npending];
	carry_out(io, fails);
	io->done(io);
}

/* A real device, which does with a command what the input says */

static int scatter(const struct sg_io_hdr *h, uint8_t byte)
{
	const struct iovec *v = h->dxferp;
	size_t n = 0;

	if (h->iovec_count == 0) { /* when it is opened */
		memset(h->dxferp, 0, h->dxfer_len);
		return 0;
	}
	for (unsigned i = 0; i < h->iovec_count; i++) {
		if (h->dxfer_direction == SG_DXFER_FROM_DEV)
			memset(v[i].iov_base, byte, v[i].iov_len);
		n += v[i].iov_len;
	}
	require(n >= h->dxfer_len, "the buffers hold what is transferred");
	return 0;
}

static int fake_ioctl(int fd, unsigned long request, void *arg)
{
	struct sg_io_hdr *h = arg;
	uint8_t how;

	(void)fd;
	if (request == BLKSECTGET || request == SG_GET_SG_TABLESIZE || request == SG_GET_VERSION_NUM) {
		*(int *)arg = request == BLKSECTGET ? 3000 : 30000;
		return 0;
	}
	if (request == SG_SCSI_RESET) {
		how = input_u8(&f.in);
		errno = EACCES;
		return how & 1 ? -1 : 0;
	}
	require(request == SG_IO && h->interface_id == 'S', "only known calls");
	require(h->cmd_len >= 6 && h->cmd_len <= SCSI_CDB, "the CDB is as long as it says");
	if (h->dxfer_len > 0)
		scatter(h, input_u8(&f.in));
	how = input_u8(&f.in);
	if (h->iovec_count > 0 || h->dxfer_direction == SG_DXFER_NONE) {
		h->resid = (int8_t)input_u8(&f.in) * 16;
		h->host_status = how & 1 ? input_u8(&f.in) : 0;
		h->status = how & 2 ? input_u8(&f.in) : 0;
		h->sb_len_wr = how & 2 ? MIN(input_u8(&f.in), h->mx_sb_len) : 0;
	}
	errno = input_u8(&f.in) % 40 + 1;
	return how & 4 && h->timeout != OPEN_TIMEOUT ? -1 : 0;
}

int pool_new(struct pool **out, unsigned max, const char *name)
{
	(void)max;
	(void)name;
	*out = NULL;
	return 0;
}

void pool_free(struct pool *p)
{
	(void)p;
}

static void job_end(struct job *j)
{
	j->run(j);
	j->done(j);
}

void pool_submit(struct pool *p, struct job *j)
{
	(void)p;
	if (f.njobs == PENDING_MAX)
		job_end(j);
	else
		f.jobs[f.njobs++] = j;
}

static void complete_job(unsigned i)
{
	struct job *j = f.jobs[i];

	f.jobs[i] = f.jobs[--f.njobs];
	job_end(j);
}

/* The program */

static void stop_loop(struct post *p)
{
	(void)p;
	loop_stop(f.b.loop);
}

static void turn(void)
{
	struct post p = {.run = stop_loop};

	loop_post(f.b.loop, &p);
	loop_run(f.b.loop);
}

static void turns(void)
{
	for (int i = 0; i < 8; i++)
		turn();
}

static void give(unsigned index, void *rd, size_t rd_len, size_t wr_len)
{
	struct buffer *b = calloc(1, sizeof(*b));
	struct virtqueue *q = &f.queue[index];

	if (b == NULL)
		abort();
	b->rd = (struct iovec){rd, rd_len};
	b->wr = (struct iovec){wr_len > 0 ? calloc(1, wr_len) : NULL, wr_len};
	f.out++;
	q->next = b;
	if (q->running)
		scsi_queues[MIN(index, 2u)].ready(&f.b, q);
	if (q->next != NULL) { /* nobody wanted it */
		q->next = NULL;
		buffer_free(b);
	}
}

static void put_address_of(uint8_t *p)
{
	uint8_t unit = input_u8(&f.in);

	if (unit >= 0xf0) {
		input_bytes(&f.in, p, 8);
		return;
	}
	scsi_address_write(p, unit >> 4 & 3, unit & 3);
}

static void command_op(void)
{
	unsigned index = 2 + (input_u8(&f.in) & 1);
	size_t out = input_u16(&f.in) % DATA_MAX, room = input_u16(&f.in) % DATA_MAX;
	uint8_t *rd = calloc(1, 51 + out);

	if (rd == NULL)
		abort();
	put_address_of(rd);
	rd[8] = input_u8(&f.in);
	input_bytes(&f.in, rd + 19, 16);
	if (out > 0)
		input_bytes(&f.in, rd + 51, MIN(out, 64u));
	give(index, rd, 51 + out, room);
}

static void control_op(void)
{
	size_t len = input_u8(&f.in) % 32;
	uint8_t *rd = calloc(1, MAX(len, 24u));

	if (rd == NULL)
		abort();
	rd[0] = input_u8(&f.in) & 3;
	rd[4] = input_u8(&f.in) & 15;
	put_address_of(rd + (rd[0] == 0 ? 8 : 4));
	rd[16] = input_u8(&f.in);
	give(0, rd, len, input_u8(&f.in) % 8);
}

static void add_op(void)
{
	static const char *const more[] = {"", ",ro", ",removable", ",cdrom", ",block-size=4096",
		",writethrough", "sg=/dev/null", "sg=/dev/null,all-commands"};
	char text[64], why[160];
	unsigned where = input_u8(&f.in);
	const char *what = more[input_u8(&f.in) % ARRAY_SIZE(more)];

	snprintf(text, sizeof(text), "%u:%u,%s%s", where >> 4 & 3, where & 3,
		what[0] == 's' ? "" : "null=64K", what);
	scsi_lun_add(f.s, text, why, sizeof(why));
	scsi_event_send(f.s, VIRTIO_SCSI_T_TRANSPORT_RESET, where >> 4 & 3, where & 3, 1);
}

static void remove_op(void)
{
	unsigned where = input_u8(&f.in);

	scsi_lun_remove(f.s, where >> 4 & 3, where & 3);
	scsi_event_send(f.s, VIRTIO_SCSI_T_TRANSPORT_RESET, where >> 4 & 3, where & 3, 2);
}

static void grow_one(struct scsi_lun *l, void *arg)
{
	if (l->sg != NULL)
		return;
	l->disk->size = *(uint64_t *)arg;
	l->watch.changed(&l->watch);
}

/* The core starts no queue again that does not have all its buffers back. */
static void queue_run(unsigned i, bool on)
{
	if (f.queue[i].running == on || (on && f.queue[i].out > 0))
		return;
	f.queue[i].running = on;
	if (on)
		scsi_start(&f.b, &f.queue[i]);
	else
		scsi_stop(&f.b, &f.queue[i]);
}

static void finish_all(void)
{
	for (int i = 0; i < 2000 && (f.npending > 0 || f.njobs > 0 || f.out > 0); i++) {
		if (f.npending > 0)
			complete(0, false);
		if (f.njobs > 0)
			complete_job(0);
		turn();
	}
	turns();
	require(f.out == 0, "every buffer comes back");
}

static void reset_op(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		queue_run(i, false);
	f.mode = 0;
	finish_all();
	if (input_u8(&f.in) & 1)
		require(move_state(&f.b, &f.in) != MOVE_REFUSED, "it can always be saved");
	else
		scsi_reset(&f.b);
	for (unsigned i = 0; i < QUEUES; i++)
		queue_run(i, true);
}

static void step(void)
{
	uint64_t size;
	uint8_t x;

	switch (input_u8(&f.in) % OPS) {
	case OP_COMMAND:
		command_op();
		break;
	case OP_CONTROL:
		control_op();
		break;
	case OP_EVENT:
		give(1, NULL, 0, input_u8(&f.in) % 32);
		break;
	case OP_COMPLETE:
		x = input_u8(&f.in);
		if (f.npending > 0)
			complete((x >> 1) % f.npending, x & 1);
		if (f.njobs > 0)
			complete_job((x >> 1) % f.njobs);
		turn();
		break;
	case OP_MODE:
		f.mode = input_u8(&f.in) % 3;
		break;
	case OP_ADD:
		add_op();
		break;
	case OP_REMOVE:
		remove_op();
		break;
	case OP_STOP:
		x = input_u8(&f.in);
		queue_run(x % QUEUES, x & 0x80);
		break;
	case OP_RESET:
		reset_op();
		break;
	default:
		size = 512 + input_u8(&f.in) * UINT64_C(256) / 512 * 512;
		scsi_lun_each(f.s, -1, grow_one, &size);
		break;
	}
	if (input_u8(&f.in) & 1)
		turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct scsi *s = calloc(1, sizeof(*s));

	log_set_level(LOG_LEVEL_ERROR);
	memset(&f, 0, sizeof(f));
	if (s == NULL || loop_new(&f.b.loop, "fuzz") < 0)
		abort();
	f.in = (struct input){data, data + size};
	f.s = s;
	f.b.state = s;
	f.b.dev = &device_scsi;
	f.b.config = calloc(1, sizeof(struct virtio_scsi_config));
	f.b.features = device_scsi.features;
	*s = (struct scsi){.initiator = "fuzz", .num_queues = 2, .options = {.null_size = DISK_SIZE}};
	require(scsi_open(&f.b) == 0, "opens");
	for (unsigned i = 0; i < QUEUES; i++) {
		f.queue[i].index = i;
		queue_run(i, true);
	}
	for (int i = 0; i < STEPS_MAX && input_left(&f.in) > 0; i++)
		step();
	reset_op();
	for (unsigned i = 0; i < QUEUES; i++)
		queue_run(i, false);
	scsi_close(&f.b);
	loop_free(f.b.loop);
	free(f.b.config);
	free(s);
	return 0;
}

/* Seeds */

static void seed_command(struct seed *s, uint8_t unit, const uint8_t cdb[16], uint16_t out, uint16_t room)
{
	seed_u8(s, OP_COMMAND);
	seed_u8(s, (uint8_t)s->n);
	seed_u16(s, out);
	seed_u16(s, room);
	seed_u8(s, unit);
	seed_u8(s, (uint8_t)s->n);
	seed_put(s, cdb, 16);
	if (out > 0) {
		uint8_t data[64] = {0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4};

		seed_put(s, data, MIN(out, sizeof(data)));
	}
	seed_u8(s, 1);
}

/* Every opcode, with a plausible length wherever one may be. */
static void seed_opcodes(struct seed *s, uint8_t unit, unsigned from, unsigned to)
{
	for (unsigned i = 0; i < 3; i++)
		seed_command(s, unit, (const uint8_t[16]){0}, 0, 108);
	for (unsigned i = from; i < MIN(to, ARRAY_SIZE(opcodes)); i++) {
		const struct scsi_opcode *o = &opcodes[i];
		uint8_t cdb[16] = {o->op};
		unsigned len = scsi_cdb_length(o->op);

		if (o->action != SCSI_NO_ACTION)
			cdb[1] = (uint8_t)o->action;
		cdb[len == 6	    ? 4
			: len == 10 ? 8
			: len == 12 ? 9
				    : 13] = o->op == 0x15 || o->op == 0x55 ? 16 : 1;
		if (o->op == 0x42 || o->op == 0x5f)
			cdb[8] = 24;
		seed_command(s, unit, cdb, 1024, 108 + 1024);
	}
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	struct seed s = {.n = 0};

	seed_opcodes(&s, 0, 0, 34);
	emit("opcodes-1", s.bytes, s.n);
	s.n = 0;
	seed_opcodes(&s, 0, 34, ARRAY_SIZE(opcodes));
	emit("opcodes-2", s.bytes, s.n);
	s.n = 0;
	seed_put(&s, (const uint8_t[]){OP_ADD, 1, 3, 1, OP_ADD, 2, 4, 1, OP_EVENT, 16, 1}, 11);
	seed_opcodes(&s, 1, 0, 30);
	emit("cdrom", s.bytes, s.n);
	s.n = 0;
	seed_put(&s, (const uint8_t[]){OP_ADD, 2, 6, 1}, 4);
	seed_opcodes(&s, 2, 0, 30);
	seed_put(&s,
		(const uint8_t[]){OP_COMPLETE, 8, 1, OP_CONTROL, 24, 0, 4, 2, 1, 1, 1, OP_COMPLETE, 2, 1},
		14);
	emit("passed", s.bytes, s.n);
	for (uint8_t mode = 1; mode <= 2; mode++) {
		s.n = 0;
		seed_put(&s, (const uint8_t[]){OP_MODE, mode, 1}, 3);
		for (int i = 0; i < 2; i++) {
			seed_command(&s, 0, (const uint8_t[16]){0x89, [9] = 3, [13] = 1}, 1024, 108);
			seed_command(&s, 0, (const uint8_t[16]){0x2a, [5] = 3, [8] = 2}, 1024, 108);
			seed_command(&s, 0, (const uint8_t[16]){0x41, [8] = 200}, 512, 108);
			seed_command(&s, 0, (const uint8_t[16]){0x28, 8, [8] = 2}, 0, 108 + 1024);
		}
		for (uint8_t t = 0; t < 8; t++)
			seed_put(&s, (const uint8_t[]){OP_CONTROL, 24, 0, t, 0, 1, 1, 1, OP_COMPLETE, 2, 1},
				11);
		seed_put(&s,
			(const uint8_t[]){OP_CONTROL, 16, 1, 0, 0, 0, 5, 1, OP_STOP, 2, 1, OP_REMOVE, 0, 1},
			14);
		seed_put(&s,
			(const uint8_t[]){
				OP_COMPLETE, 3, 1, OP_GROW, 9, 1, OP_RESET, 0, 1, OP_RESET, 1, 0, 1},
			12);
		emit(mode == 1 ? "later" : "held", s.bytes, s.n);
	}
}
