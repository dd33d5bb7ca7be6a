/* SPDX-License-Identifier: MIT */
/*
 * Zones of a block device (virtio 1.3, 5.2.6.1), over those of a disk. Writes to a zoned disk are ordinary requests, but end
 * in block_zone_done() too.
 */
#include "block.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <string.h>

/* virtio 1.3, 5.2.4, 5.2.6 and 5.2.6.1 */
#define T_ZONE_APPEND	   15
#define T_ZONE_REPORT	   16
#define T_ZONE_OPEN	   18
#define T_ZONE_CLOSE	   20
#define T_ZONE_FINISH	   22
#define T_ZONE_RESET	   24
#define T_ZONE_RESET_ALL   26
#define S_ZONE_INVALID	   3
#define S_ZONE_UNALIGNED   4
#define S_ZONE_OPEN	   5
#define S_ZONE_ACTIVE	   6
#define ZONED_HOST_MANAGED 1

/* Follows what the headers of Linux 6.1 know of the configuration space. Little-endian. */
struct zoned_config {
	uint32_t zone_sectors, max_open, max_active, max_append_sectors, write_granularity;
	uint8_t model, unused[3];
};

static uint8_t zone_status_of(int result)
{
	switch (result) {
	case -EINVAL:
		return S_ZONE_INVALID;
	case -EILSEQ:
		return S_ZONE_UNALIGNED;
	case -ETOOMANYREFS:
		return S_ZONE_OPEN;
	case -EOVERFLOW:
		return S_ZONE_ACTIVE;
	default:
		return block_status_of(result);
	}
}

void block_zone_done(struct disk_io *io)
{
	struct element *e = container_of(io, struct block_request, io)->element;

	if (io->op == DISK_ZONE_APPEND && io->result == 0) {
		uint64_t sector = htole64(io->offset / BLOCK_SECTOR);
		struct cursor rest;

		/* right before the status */
		cursor_split(&e->wr, e->wr.left - 1 - sizeof(sector), &rest);
		cursor_put(&e->wr, &sector, sizeof(sector));
	}
	block_answer(e, zone_status_of(io->result));
}

static void zone_append(struct backend *b, struct element *e, uint64_t sector)
{
	struct block_request *r = e->req;

	if (e->wr.left < sizeof(uint64_t) + 1) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->io.flags = block_write_through(b) ? DISK_FUA : 0;
	block_transfer(block_of(b), e, sector, DISK_ZONE_APPEND, &e->rd);
}

static void zone_report(struct block *s, struct element *e, uint64_t sector)
{
	struct block_request *r = e->req;

	if (e->fault || sector >= disk_size(s->disk) / BLOCK_SECTOR) {
		block_answer(e, S_ZONE_INVALID);
		return;
	}
	cursor_split(&e->wr, e->wr.left - 1, &r->data);
	r->io.op = DISK_ZONE_REPORT;
	r->io.data = &r->data;
	r->io.offset = sector * BLOCK_SECTOR;
	block_submit(r);
}

static void zone_change(struct block *s, struct element *e, uint64_t sector, enum disk_op op, bool all)
{
	uint64_t each = disk_limits(s->disk)->zone_sectors, end = disk_size(s->disk) / BLOCK_SECTOR;
	struct block_request *r = e->req;

	if (!all && (sector >= end || sector % each != 0)) {
		block_answer(e, S_ZONE_INVALID);
		return;
	}
	r->io.op = op;
	r->io.offset = all ? 0 : sector * BLOCK_SECTOR;
	r->io.len = (all ? end : each) * BLOCK_SECTOR;
	block_submit(r);
}

void block_zone_request(struct backend *b, struct element *e, uint32_t type, uint64_t sector)
{
	struct block *s = block_of(b);

	if (!backend_has(b, BLOCK_F_ZONED)) {
		block_answer(e, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (type != T_ZONE_REPORT && disk_limits(s->disk)->read_only) {
		block_answer(e, VIRTIO_BLK_S_IOERR);
		return;
	}
	switch (type) {
	case T_ZONE_APPEND:
		zone_append(b, e, sector);
		break;
	case T_ZONE_REPORT:
		zone_report(s, e, sector);
		break;
	case T_ZONE_OPEN:
		zone_change(s, e, sector, DISK_ZONE_OPEN, false);
		break;
	case T_ZONE_CLOSE:
		zone_change(s, e, sector, DISK_ZONE_CLOSE, false);
		break;
	case T_ZONE_FINISH:
		zone_change(s, e, sector, DISK_ZONE_FINISH, false);
		break;
	case T_ZONE_RESET:
	case T_ZONE_RESET_ALL:
		zone_change(s, e, sector, DISK_ZONE_RESET, type == T_ZONE_RESET_ALL);
		break;
	default:
		block_answer(e, VIRTIO_BLK_S_UNSUPP);
		break;
	}
}

void block_zone_describe(struct backend *b, const struct disk_limits *m)
{
	struct zoned_config zoned = {
		.zone_sectors = htole32(m->zone_sectors),
		.max_open = htole32(m->zones_open),
		.max_active = htole32(m->zones_active),
		.max_append_sectors = htole32(m->zone_append),
		.write_granularity = htole32(m->logical),
		.model = ZONED_HOST_MANAGED,
	};

	if (m->zone_sectors == 0)
		b->offered &= ~BIT(BLOCK_F_ZONED);
	else
		memcpy((char *)b->config + BLOCK_ZONED_AT, &zoned, sizeof(zoned));
}
