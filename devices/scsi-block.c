/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing (SBC-3, 5): the range of a command, READ, WRITE, capacity, cache, start and stop. The data goes
 * between the disk and the guest's memory; a write with FUA, or with the write cache off, is on stable storage when it is
 * answered, a read with FUA is preceded by a flush. DPO is a hint that has no meaning here.
 */
#include "scsi.h"

enum { FUA = 0x08 };

/* Ranges */

void scsi_lba(const struct scsi_request *r, uint64_t *lba, uint32_t *blocks)
{
	const uint8_t *c = r->cdb;

	switch (scsi_cdb_length(c[0])) {
	case 6:
		*lba = get_be24(c + 1) & 0x1fffff;
		*blocks = c[4] != 0 ? c[4] : 256;
		break;
	case 10:
		*lba = get_be32(c + 2);
		*blocks = get_be16(c + 7);
		break;
	case 12:
		*lba = get_be32(c + 2);
		*blocks = get_be32(c + 6);
		break;
	default:
		*lba = get_be64(c + 2);
		*blocks = get_be32(c + 10);
		break;
	}
}

bool scsi_range(struct scsi_request *r, uint64_t lba, uint64_t blocks)
{
	uint64_t all = scsi_lun_blocks(r->lun);

	if (unlikely(lba > all || blocks > all - lba)) {
		scsi_fail(r, SENSE_LBA_RANGE);
		return false;
	}
	r->at = lba << r->lun->shift;
	r->left = blocks << r->lun->shift;
	return true;
}

bool scsi_limited(struct scsi_request *r, uint64_t blocks)
{
	if (likely(blocks <= SCSI_SECTORS * 512 >> r->lun->shift))
		return true;
	scsi_fail(r, SENSE_CDB_FIELD);
	return false;
}

bool scsi_write_through(const struct scsi_request *r, bool fua)
{
	return fua || !(scsi_lun_mode(r->lun) & MODE_WCE);
}

/* The range of READ and WRITE. */
static bool transfer_range(struct scsi_request *r)
{
	uint64_t lba;
	uint32_t blocks;

	scsi_lba(r, &lba, &blocks);
	if (unlikely(scsi_cdb_length(r->cdb[0]) > 6 && (r->cdb[1] & 0xe0))) {
		scsi_fail_cdb(r, 1); /* no protection information */
		return false;
	}
	return scsi_limited(r, blocks) && scsi_range(r, lba, blocks);
}

static bool has_fua(const struct scsi_request *r)
{
	return scsi_cdb_length(r->cdb[0]) > 6 && (r->cdb[1] & FUA);
}

/* READ and WRITE */

static void transferred(struct scsi_request *r)
{
	if (unlikely(r->io.result < 0))
		scsi_io_failed(r);
	else
		scsi_good(r);
}

/* What is to be moved of a part of the buffer: most often all of it. */
static void take_data(struct scsi_request *r, struct cursor *part)
{
	if (likely(part->left == r->left)) {
		r->io.data = part;
		return;
	}
	cursor_split(part, r->left, &r->data);
	r->io.data = &r->data;
}

static void transfer(struct scsi_request *r)
{
	r->io.offset = r->at;
	r->step = transferred;
	if (scsi_io(r))
		transferred(r);
}

static void read_flushed(struct scsi_request *r)
{
	if (r->io.result < 0) {
		scsi_io_failed(r);
		return;
	}
	r->io.op = DISK_READ;
	transfer(r);
}

void scsi_read(struct scsi_request *r)
{
	if (!transfer_range(r) || !scsi_wants_in(r, r->left))
		return;
	take_data(r, &r->element->wr);
	if (likely(!has_fua(r) || r->lun->read_only)) {
		r->io.op = DISK_READ;
		transfer(r);
		return;
	}
	r->io.op = DISK_FLUSH;
	r->step = read_flushed;
	if (scsi_io(r))
		read_flushed(r);
}

void scsi_write(struct scsi_request *r)
{
	if (!transfer_range(r) || !scsi_wants_out(r, r->left))
		return;
	take_data(r, &r->element->rd);
	r->io.op = DISK_WRITE;
	r->io.flags = scsi_write_through(r, has_fua(r)) ? DISK_FUA : 0;
	transfer(r);
}

void scsi_flush_and_end(struct scsi_request *r)
{
	r->io.op = DISK_FLUSH;
	r->io.flags = 0;
	r->step = transferred;
	if (scsi_io(r))
		transferred(r);
}

void scsi_sync_cache(struct scsi_request *r)
{
	uint64_t lba;
	uint32_t blocks;

	scsi_lba(r, &lba, &blocks);
	/* 0 blocks: all that follow; all are flushed anyway */
	if (scsi_range(r, lba, blocks))
		scsi_flush_and_end(r);
}

/* READ CAPACITY */

/* False: there is none, somebody has cut the file off; the request has ended. */
static bool last_block(struct scsi_request *r, uint64_t *last)
{
	uint64_t blocks = scsi_lun_blocks(r->lun);

	*last = blocks - 1;
	if (blocks == 0)
		scsi_fail(r, SENSE_READ_ERROR);
	return blocks > 0;
}

void scsi_read_capacity10(struct scsi_request *r)
{
	uint64_t last;
	uint8_t out[8];

	if (!last_block(r, &last))
		return;
	r->alloc = sizeof(out);
	put_be32(out, (uint32_t)MIN(last, UINT32_MAX));
	put_be32(out + 4, r->lun->block);
	if (scsi_wants_in(r, sizeof(out)))
		scsi_reply(r, out, sizeof(out));
}

void scsi_read_capacity16(struct scsi_request *r)
{
	const struct scsi_lun *l = r->lun;
	const struct disk_limits *m = disk_limits(l->disk);
	uint32_t physical = MAX(m->physical >> l->shift, 1u);
	uint8_t out[32] = {0};
	uint64_t last;

	if (!last_block(r, &last))
		return;
	r->alloc = get_be32(r->cdb + 10);
	put_be64(out, last);
	put_be32(out + 8, l->block);
	out[13] = (uint8_t)MIN((unsigned)__builtin_ctz(physical), 15u);
	if (m->discard && l->type == SCSI_DISK)
		out[14] = m->discard_zeroes ? 0xc0 : 0x80; /* LBPME, LBPRZ */
	if (scsi_wants_in(r, r->alloc))
		scsi_reply(r, out, sizeof(out));
}

/* START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL */

enum { START = 1, LOEJ = 2, NO_FLUSH = 4 };

/* Only starting and allowing are, in the face of another nexus's reservation (SBC-3, 4.17). */
static bool conflicts(struct scsi_request *r)
{
	uint32_t state = __atomic_load_n(&r->lun->state, __ATOMIC_SEQ_CST);

	if (!(state & (STATE_NO_READS | STATE_NO_WRITES)))
		return false;
	scsi_status(r, STATUS_RESERVATION_CONFLICT);
	return true;
}

static void stopped(struct scsi_request *r)
{
	if (r->io.result < 0)
		scsi_io_failed(r);
	else {
		scsi_lun_set(r->lun, r->cdb[4] & LOEJ ? STATE_NO_MEDIUM : STATE_STOPPED);
		scsi_good(r);
	}
}

static void stop(struct scsi_request *r)
{
	r->io.op = DISK_FLUSH;
	r->io.result = 0;
	r->step = stopped;
	if ((r->cdb[4] & NO_FLUSH) || scsi_io(r))
		stopped(r);
}

void scsi_start_stop(struct scsi_request *r)
{
	bool load = r->cdb[4] & LOEJ;
	uint32_t state = __atomic_load_n(&r->lun->state, __ATOMIC_RELAXED);

	if ((r->cdb[4] & (0xf0 | START)) != START && conflicts(r))
		return;
	if ((r->cdb[4] >> 4) != 0) {
		scsi_good(r); /* power conditions come and go by themselves */
	} else if (load && !r->lun->removable) {
		scsi_fail_cdb(r, 4);
	} else if (!(r->cdb[4] & START)) {
		if (load && (state & STATE_PREVENTED))
			scsi_fail(r, SENSE_PREVENTED);
		else
			stop(r);
	} else {
		scsi_lun_clear(r->lun, STATE_STOPPED | (load ? STATE_NO_MEDIUM : 0));
		if (load && (state & STATE_NO_MEDIUM))
			scsi_lun_attention(r->lun, ATTENTION_MEDIUM);
		scsi_good(r);
	}
}

void scsi_prevent_allow(struct scsi_request *r)
{
	if (r->cdb[4] & 2) {
		scsi_fail_cdb(r, 4);
		return;
	}
	if ((r->cdb[4] & 1) && conflicts(r))
		return;
	if (r->lun->removable && (r->cdb[4] & 1))
		scsi_lun_set(r->lun, STATE_PREVENTED);
	else
		scsi_lun_clear(r->lun, STATE_PREVENTED);
	scsi_good(r);
}
