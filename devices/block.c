/* SPDX-License-Identifier: MIT */
/*
 * Block device (virtio 1.2, 5.2) over a disk.
 *
 * A request is a 16-byte header and data to write in the readable part, data to read and, as its last byte, the status in
 * the writable part; how it is cut into descriptors does not matter. Whatever is wrong with a request is answered in the
 * status byte. Only a buffer without room for a status byte has no answer; it is returned empty.
 *
 * The data part is split off and given to the disk as it is. State of a request in progress is in element->req; its
 * completion comes in the queue's own loop. Queues share the disk and the configuration space, of which they only look at
 * the write cache byte.
 *
 * While the disk holds a request of a queue, which has to wait for its turn or for a lost server, the queue pops no more:
 * what waits is in the ring, where a queue that stops leaves it.
 */
#include "block.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#define MAX_QUEUES    1024
#define MAX_SEGMENTS  126u	 /* with header and status: a ring of 128, QEMU's default */
#define MAX_SEGMENT   (4u << 20) /* bytes */
#define MAX_DISCARD   (1u << 22) /* sectors in one segment */
#define MAX_ZEROES    (1u << 20) /* sectors in one segment: the host may have to write them */
#define MAX_RANGES    64u	 /* segments in one discard or write zeroes */
#define BATCH	      8u /* requests taken at once: what is answered meanwhile is shown before the next ones */
#define STATE_VERSION 1

/* Not in the headers of Linux (virtio 1.3, 5.2.3 and 5.2.6) */
#define F_LIFETIME     15
#define T_GET_LIFETIME 10

struct lifetime {
	uint16_t pre_eol_info, typ_a, typ_b; /* little-endian */
};

static const char *const cache_names[] = {"writeback", "writethrough", NULL};

struct block_queue {
	struct disk_lane *lane;
	bool held; /* a request of it waits in the disk */
};

/* What migrates. */
struct block_saved {
	uint8_t version, wce, unused[6];
};

static const struct option_spec block_options[] = {
	DISK_OPTIONS(struct block, options),
	{.name = "serial",
		.kind = OPTION_STRING,
		OPTION_FIELD(struct block, serial),
		.arg = "TEXT",
		.help = "serial number that the guest sees, at most 20 bytes",
		.def = "vhost-user-multi"},
	{.name = "block-size",
		.kind = OPTION_U32,
		OPTION_FIELD(struct block, block_size),
		.arg = "BYTES",
		.help = "logical block size that the guest sees, a power of two",
		.no_def = "that of the disk",
		.min = 512,
		.max = 65536},
	{.name = "num-queues",
		.kind = OPTION_U32,
		OPTION_FIELD(struct block, num_queues),
		.help = "queues offered to the front-end, which takes as many as it wants",
		.def = "256",
		.min = 1,
		.max = MAX_QUEUES},
	{.name = "threads",
		.kind = OPTION_U32,
		OPTION_FIELD(struct block, threads),
		.help = "threads that the queues are spread over; 0: all run in the main thread",
		.def = "0",
		.max = 64},
	{.name = "cache",
		.kind = OPTION_ENUM,
		OPTION_FIELD(struct block, cache),
		.choices = cache_names,
		.help = "writethrough: a write is done when it is on stable storage",
		.def = "writeback"},
	OPTIONS_END,
};

static struct virtio_blk_config *config_of(const struct backend *b)
{
	return (struct virtio_blk_config *)(void *)b->config;
}

/* Requests */

/* Must a write be on stable storage when it is done? (virtio 1.2, 5.2.5.2 and 5.2.6.2) */
bool block_write_through(struct backend *b)
{
	if (backend_has(b, VIRTIO_BLK_F_CONFIG_WCE))
		return !__atomic_load_n(&config_of(b)->wce, __ATOMIC_RELAXED);
	return !backend_has(b, VIRTIO_BLK_F_FLUSH) || block_of(b)->cache == CACHE_WRITETHROUGH;
}

void block_answer(struct element *e, uint8_t status)
{
	if (unlikely(status != VIRTIO_BLK_S_OK))
		virtqueue_count_error(e->queue);
	/* what the split of a bad request left in front of it is not written */
	if (e->wr.left > 1) {
		struct cursor rest;

		cursor_split(&e->wr, e->wr.left - 1, &rest);
	}
	cursor_put(&e->wr, &status, 1);
	virtqueue_push(e);
}

uint8_t block_status_of(int result)
{
	return result == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

static void request_done(struct disk_io *io)
{
	struct block_request *r = container_of(io, struct block_request, io);

	block_answer(r->element, block_status_of(io->result));
}

static void request_begun(struct disk_io *io)
{
	struct virtqueue *q = container_of(io, struct block_request, io)->element->queue;
	struct block_queue *bq = virtqueue_state(q);

	bq->held = false;
	virtqueue_wake(q);
}

/* In case it can't go back into the ring, and nobody remembers it, the driver finds an error. */
static void give_back(struct element *e)
{
	struct cursor wr = e->wr;
	uint8_t status = VIRTIO_BLK_S_IOERR;

	wr.up = NULL;
	cursor_skip(&wr, wr.left - 1);
	cursor_put(&wr, &status, 1);
	virtqueue_unpop(e);
}

static bool take_back(struct disk_io *io, void *q)
{
	struct element *e = container_of(io, struct block_request, io)->element;

	if (e->queue != q)
		return false;
	give_back(e);
	return true;
}

/* A queue that stops does not wait for a lost server. */
static bool request_lost(struct disk_io *io)
{
	struct element *e = container_of(io, struct block_request, io)->element;

	if (virtqueue_running(e->queue))
		return false;
	give_back(e);
	return true;
}

/* As disk_submit(). What goes on while the queue stops does not wait for anything either. */
static bool request_pass(struct block_request *r)
{
	struct block_queue *bq = virtqueue_state(r->element->queue);

	r->io.begun = request_begun;
	r->io.lost = request_lost;
	if (disk_submit(bq->lane, &r->io))
		return true;
	if (r->io.held)
		bq->held = true;
	if (unlikely(!virtqueue_running(r->element->queue)))
		disk_withdraw(bq->lane, take_back, r->element->queue);
	return false;
}

void block_submit(struct block_request *r)
{
	r->io.done = r->io.op >= DISK_ZONE_WRITE ? block_zone_done : request_done;
	if (request_pass(r))
		r->io.done(&r->io);
}

void block_transfer(struct block *s, struct element *e, uint64_t sector, enum disk_op op, struct cursor *data)
{
	struct block_request *r = e->req;

	if (e->fault || data->left % BLOCK_SECTOR != 0 || sector > UINT64_MAX / BLOCK_SECTOR ||
		!disk_holds(s->disk, sector * BLOCK_SECTOR, data->left)) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->io.op = op;
	r->io.data = data;
	r->io.offset = sector * BLOCK_SECTOR;
	block_submit(r);
}

static void request_in(struct backend *b, struct element *e, uint64_t sector)
{
	struct block_request *r = e->req;

	cursor_split(&e->wr, e->wr.left - 1, &r->data);
	block_transfer(block_of(b), e, sector, DISK_READ, &r->data);
}

static void request_out(struct backend *b, struct element *e, uint64_t sector)
{
	struct block_request *r = e->req;

	if (disk_limits(block_of(b)->disk)->read_only) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->io.flags = block_write_through(b) ? DISK_FUA : 0;
	block_transfer(block_of(b), e, sector,
		disk_limits(block_of(b)->disk)->zone_sectors ? DISK_ZONE_WRITE : DISK_WRITE, &e->rd);
}

static void request_flush(struct element *e)
{
	struct block_request *r = e->req;

	r->io.op = DISK_FLUSH;
	block_submit(r);
}

static void request_id(struct backend *b, struct element *e)
{
	char id[VIRTIO_BLK_ID_BYTES] = "";
	const char *serial = block_of(b)->serial;

	memcpy(id, serial, strnlen(serial, sizeof(id)));
	cursor_put(&e->wr, id, MIN(sizeof(id), e->wr.left - 1));
	block_answer(e, VIRTIO_BLK_S_OK);
}

/* How worn the medium is, at this moment. */
static void request_lifetime(struct backend *b, struct element *e)
{
	struct disk_lifetime found;
	struct lifetime wire;

	if (!disk_lifetime(block_of(b)->disk, &found)) {
		block_answer(e, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	wire = (struct lifetime){htole16(found.pre_eol_info), htole16(found.typ_a), htole16(found.typ_b)};
	if (e->wr.left < sizeof(wire) + 1) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	cursor_put(&e->wr, &wire, sizeof(wire));
	block_answer(e, VIRTIO_BLK_S_OK);
}

/* Discard, write zeroes and secure erase: a list of ranges in the data */

struct range {
	uint64_t offset, len;
	bool unmap;
};

/* What is wrong with the next range, as status; OK: *out is good. */
static uint8_t range_get(struct backend *b, struct cursor *c, uint32_t type, struct range *out)
{
	bool zeroes = type == VIRTIO_BLK_T_WRITE_ZEROES;
	struct virtio_blk_discard_write_zeroes seg;
	uint64_t sector, sectors;
	uint32_t flags;

	cursor_get(c, &seg, sizeof(seg));
	sector = le64toh(seg.sector);
	sectors = le32toh(seg.num_sectors);
	flags = le32toh(seg.flags);
	if (flags & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
		return VIRTIO_BLK_S_UNSUPP;
	if (sectors > (zeroes ? MAX_ZEROES : MAX_DISCARD) || sector > UINT64_MAX / BLOCK_SECTOR ||
		!disk_holds(block_of(b)->disk, sector * BLOCK_SECTOR, sectors * BLOCK_SECTOR))
		return VIRTIO_BLK_S_IOERR;
	*out = (struct range){sector * BLOCK_SECTOR, sectors * BLOCK_SECTOR, flags != 0};
	return VIRTIO_BLK_S_OK;
}

/* All are looked at before the first is done; a driver that changes them meanwhile is caught by the second look. */
static uint8_t ranges_check(struct backend *b, const struct element *e, uint32_t type)
{
	struct cursor peek = e->rd;
	struct range range;
	uint8_t status = VIRTIO_BLK_S_OK;

	if (e->fault || peek.left == 0 || peek.left % sizeof(struct virtio_blk_discard_write_zeroes) != 0 ||
		peek.left / sizeof(struct virtio_blk_discard_write_zeroes) > MAX_RANGES)
		return VIRTIO_BLK_S_IOERR;
	while (status == VIRTIO_BLK_S_OK && peek.left > 0)
		status = range_get(b, &peek, type, &range);
	return status;
}

static void ranges_next(struct disk_io *io)
{
	struct block_request *r = container_of(io, struct block_request, io);
	struct element *e = r->element;
	struct backend *b = virtqueue_backend(e->queue);
	bool zeroes = io->op == DISK_WRITE_ZEROES;
	uint8_t status = block_status_of(io->result);

	while (status == VIRTIO_BLK_S_OK && e->rd.left > 0) {
		struct range range;

		status = range_get(
			b, &e->rd, zeroes ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD, &range);
		if (status != VIRTIO_BLK_S_OK || range.len == 0)
			continue;
		io->flags = (range.unmap ? DISK_UNMAP : 0) |
			    (zeroes && block_write_through(b) ? DISK_FUA : 0) |
			    (io->len != 0 ? DISK_PART : 0);
		io->offset = range.offset;
		io->len = range.len;
		if (!request_pass(r))
			return;
		status = block_status_of(io->result);
	}
	block_answer(e, status);
}

static void request_ranges(struct backend *b, struct element *e, uint32_t type)
{
	const struct disk_limits *m = disk_limits(block_of(b)->disk);
	struct block_request *r = e->req;
	bool can = m->discard;
	uint8_t status;

	r->io.op = DISK_DISCARD;
	if (type == VIRTIO_BLK_T_WRITE_ZEROES) {
		r->io.op = DISK_WRITE_ZEROES;
		can = m->write_zeroes;
	} else if (type == VIRTIO_BLK_T_SECURE_ERASE) {
		r->io.op = DISK_SECURE_ERASE;
		can = m->secure_erase;
	}
	if (m->read_only)
		status = VIRTIO_BLK_S_IOERR;
	else if (!can)
		status = VIRTIO_BLK_S_UNSUPP;
	else
		status = ranges_check(b, e, type);
	if (status != VIRTIO_BLK_S_OK) {
		block_answer(e, status);
		return;
	}
	r->io.done = ranges_next;
	ranges_next(&r->io);
}

static void request(struct backend *b, struct element *e)
{
	struct block_request *r = e->req;
	struct virtio_blk_outhdr hdr;

	if (unlikely(e->wr.left == 0)) {
		log_guest_warn("queue %u: a request without a status byte", virtqueue_index(e->queue));
		virtqueue_count_error(e->queue);
		virtqueue_push(e);
		return;
	}
	r->element = e;
	if (unlikely(!cursor_get(&e->rd, &hdr, sizeof(hdr)))) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	switch (le32toh(hdr.type)) {
	case VIRTIO_BLK_T_IN:
		request_in(b, e, le64toh(hdr.sector));
		break;
	case VIRTIO_BLK_T_OUT:
		request_out(b, e, le64toh(hdr.sector));
		break;
	case VIRTIO_BLK_T_FLUSH:
		request_flush(e);
		break;
	case VIRTIO_BLK_T_GET_ID:
		request_id(b, e);
		break;
	case T_GET_LIFETIME:
		request_lifetime(b, e);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
	case VIRTIO_BLK_T_SECURE_ERASE:
		request_ranges(b, e, le32toh(hdr.type));
		break;
	default:
		block_zone_request(b, e, le32toh(hdr.type), le64toh(hdr.sector));
		break;
	}
}

static void block_ready(struct backend *b, struct virtqueue *q)
{
	const struct block_queue *bq = virtqueue_state(q);
	struct element *e[BATCH];
	unsigned i, n;

	while (!bq->held && (n = virtqueue_pop_many(q, e, BATCH))) {
		for (i = 0; i < n && !bq->held; i++)
			request(b, e[i]);
		while (n > i)
			virtqueue_unpop(e[--n]);
	}
}

/* Life */

static int block_check(const struct block *s)
{
	if (strlen(s->serial) > VIRTIO_BLK_ID_BYTES)
		return log_errno(EINVAL, "--serial=%s: longer than %d bytes", s->serial, VIRTIO_BLK_ID_BYTES);
	if (s->block_size & (s->block_size - 1))
		return log_errno(EINVAL, "--block-size=%u: not a power of two", s->block_size);
	return 0;
}

static unsigned log2_of(uint32_t power_of_two)
{
	return (unsigned)__builtin_ctz(power_of_two);
}

static void block_describe(struct backend *b)
{
	struct block *s = block_of(b);
	const struct disk_limits *m = disk_limits(s->disk);
	uint32_t logical = s->block_size ? s->block_size : m->logical;
	uint32_t physical = MAX(logical, m->physical);
	bool writable = !m->read_only;
	struct disk_lifetime lifetime;

	*config_of(b) = (struct virtio_blk_config){
		.capacity = htole64(disk_size(s->disk) / BLOCK_SECTOR),
		.size_max = htole32(MAX_SEGMENT),
		.seg_max = htole32(MAX_SEGMENTS),
		.blk_size = htole32(logical),
		.physical_block_exp = (uint8_t)log2_of(physical / logical),
		.min_io_size = htole16((uint16_t)MIN(MAX(m->io_min, physical) / logical, UINT16_MAX)),
		.opt_io_size = htole32(m->io_opt / logical),
		.wce = s->cache == CACHE_WRITEBACK,
		.num_queues = htole16((uint16_t)s->num_queues),
		.max_discard_sectors = htole32(m->discard ? MAX_DISCARD : 0),
		.max_discard_seg = htole32(m->discard ? MAX_RANGES : 0),
		.discard_sector_alignment = htole32(MAX(m->discard_granularity, logical) / BLOCK_SECTOR),
		.max_write_zeroes_sectors = htole32(writable ? MAX_ZEROES : 0),
		.max_write_zeroes_seg = htole32(writable ? MAX_RANGES : 0),
		.write_zeroes_may_unmap = m->discard,
		.max_secure_erase_sectors = htole32(m->secure_erase ? MAX_DISCARD : 0),
		.max_secure_erase_seg = htole32(m->secure_erase ? MAX_RANGES : 0),
		.secure_erase_sector_alignment = htole32(m->secure_erase ? logical / BLOCK_SECTOR : 0),
	};
	block_zone_describe(b, m);
	if (writable)
		b->offered &= ~BIT(VIRTIO_BLK_F_RO);
	if (!m->discard)
		b->offered &= ~BIT(VIRTIO_BLK_F_DISCARD);
	if (!m->write_zeroes)
		b->offered &= ~BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	if (!m->secure_erase)
		b->offered &= ~BIT(VIRTIO_BLK_F_SECURE_ERASE);
	if (!disk_lifetime(s->disk, &lifetime))
		b->offered &= ~BIT(F_LIFETIME);
}

/* The driver looks at the capacity again. Requests are checked against the disk's size itself. */
static void size_changed(struct disk_watch *w)
{
	struct block *s = container_of(w, struct block, watch);
	uint64_t size = disk_size(s->disk);
	struct json *data = NULL;

	if (config_of(s->b)->capacity == htole64(size / BLOCK_SECTOR))
		return;
	config_of(s->b)->capacity = htole64(size / BLOCK_SECTOR);
	backend_config_changed(s->b);
	if (backend_event_wanted(s->b))
		data = json_new(false);
	if (data == NULL)
		return;
	json_object_begin(data);
	json_key(data, "size");
	json_u64(data, size);
	json_object_end(data);
	backend_event(s->b, "resized", data);
}

static int block_open(struct backend *b)
{
	struct block *s = block_of(b);
	int r = block_check(s);

	if (r == 0)
		r = disk_open(&s->disk, &s->options);
	if (r < 0)
		return r;
	s->b = b;
	s->watch.changed = size_changed;
	r = disk_watch_add(s->disk, b->loop, &s->watch);
	if (r < 0) {
		disk_close(s->disk);
		return r;
	}
	block_describe(b);
	b->num_queues = s->num_queues;
	b->threads = s->threads;
	return 0;
}

static void block_close(struct backend *b)
{
	disk_watch_del(&block_of(b)->watch);
	disk_close(block_of(b)->disk);
}

static int block_start(struct backend *b, struct virtqueue *q)
{
	struct block_queue *bq = virtqueue_state(q);

	return disk_lane_get(block_of(b)->disk, virtqueue_loop(q), &bq->lane);
}

static void block_stop(struct backend *b, struct virtqueue *q)
{
	struct block_queue *bq = virtqueue_state(q);

	(void)b;
	disk_withdraw(bq->lane, take_back, q);
	bq->held = false;
}

static void set_wce(struct backend *b, bool on)
{
	__atomic_store_n(&config_of(b)->wce, on, __ATOMIC_RELAXED);
}

/* Survives a reset and a reconnect, of which front-ends do not tell the driver: it goes on believing what it set. */
static void block_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	const size_t wce = offsetof(struct virtio_blk_config, wce);
	const uint8_t *bytes = data;

	if (off <= wce && wce - off < len)
		set_wce(b, bytes[wce - off] != 0);
}

static int block_save(struct backend *b, int fd)
{
	struct block_saved saved = {.version = STATE_VERSION, .wce = config_of(b)->wce};

	if (write(fd, &saved, sizeof(saved)) != sizeof(saved))
		return log_errno(EIO, "device state could not be written");
	return 0;
}

static int block_load(struct backend *b, int fd)
{
	struct block_saved saved = {0};
	size_t got = 0;
	ssize_t n;

	while (got < sizeof(saved) && (n = read(fd, (char *)&saved + got, sizeof(saved) - got)) > 0)
		got += (size_t)n;
	if (got < sizeof(saved) || saved.version != STATE_VERSION || saved.wce > 1)
		return log_errno(EINVAL, "device state is not that of a block device");
	set_wce(b, saved.wce);
	return 0;
}

static int block_capabilities(struct json *out)
{
	json_array_begin(out);
	json_string(out, "read-only");
	json_string(out, "blk-file");
	json_array_end(out);
	return 0;
}

static int block_resize(struct backend *b, struct command *c)
{
	struct disk *d = block_of(b)->disk;
	uint64_t size = 0;
	int r;

	if (command_size(c, "size", &size) && size == 0)
		return command_error(c, EINVAL, "size=0: not a size");
	r = disk_resize(d, size);
	if (r < 0)
		return command_error(c, -r, "%s: %s", disk_name(d), strerror(-r));
	json_object_begin(c->out);
	json_key(c->out, "size");
	json_u64(c->out, disk_size(d));
	json_object_end(c->out);
	return 0;
}

static const struct command_arg resize_args[] = {
	{.name = "size",
		.kind = COMMAND_SIZE,
		.help = "make the file this long first; it cannot become shorter"},
	{.name = NULL},
};

static const struct command_spec block_commands[] = {
	{.name = "resize",
		.help = "Look how large the disk is by now, and tell the guest",
		.args = resize_args,
		.run = block_resize},
	{.name = NULL},
};

static const struct queue_spec block_queues[] = {
	{.name = "request",
		.ready = block_ready,
		.req_size = sizeof(struct block_request),
		.req_zero = offsetof(struct disk_io, iov)},
};

static const struct feature_name block_features[] = {
	{VIRTIO_BLK_F_SIZE_MAX, "size-max"},
	{VIRTIO_BLK_F_SEG_MAX, "seg-max"},
	{VIRTIO_BLK_F_RO, "ro"},
	{VIRTIO_BLK_F_BLK_SIZE, "blk-size"},
	{VIRTIO_BLK_F_FLUSH, "flush"},
	{VIRTIO_BLK_F_TOPOLOGY, "topology"},
	{VIRTIO_BLK_F_CONFIG_WCE, "config-wce"},
	{VIRTIO_BLK_F_MQ, "mq"},
	{VIRTIO_BLK_F_DISCARD, "discard"},
	{VIRTIO_BLK_F_WRITE_ZEROES, "write-zeroes"},
	{F_LIFETIME, "lifetime"},
	{VIRTIO_BLK_F_SECURE_ERASE, "secure-erase"},
	{BLOCK_F_ZONED, "zoned"},
	{0, NULL},
};

const struct device device_block = {
	.name = "block",
	.alias = "blk",
	.summary = "disk, from a raw image, a block device of the host or an NBD server",
	.virtio_id = VIRTIO_ID_BLOCK,
	.features = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_RO) |
		    BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) |
		    BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_DISCARD) |
		    BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_SECURE_ERASE) | BIT(F_LIFETIME) |
		    BIT(BLOCK_F_ZONED),
	.state_size = sizeof(struct block),
	.queue_state_size = sizeof(struct block_queue),
	.config_size = BLOCK_ZONED_AT + BLOCK_ZONED_SIZE,
	.options = block_options,
	.commands = block_commands,
	.feature_names = block_features,
	.queues = block_queues,
	.nqueues = ARRAY_SIZE(block_queues),
	.repeat = 1,
	.max_queues = MAX_QUEUES,
	.queue_threads = true,
	.capabilities = block_capabilities,
	.open = block_open,
	.close = block_close,
	.start = block_start,
	.stop = block_stop,
	.config_write = block_config_write,
	.save = block_save,
	.load = block_load,
};
