/* SPDX-License-Identifier: MIT */
/* Commands that write without much data: WRITE SAME, UNMAP and FORMAT UNIT (SBC-3, 5.28, 5.49 and 5.3). */
#include "scsi.h"

enum { NDOB = 1, SAME_UNMAP = 8, ANCHOR = 0x10 };

/* WRITE SAME */

static void zeroed(struct scsi_request *r)
{
	if (r->io.result < 0)
		scsi_io_failed(r);
	else
		scsi_good(r);
}

static void zero(struct scsi_request *r)
{
	r->io.op = DISK_WRITE_ZEROES;
	r->io.offset = r->at;
	r->io.len = r->left;
	r->io.flags =
		(r->cdb[1] & SAME_UNMAP ? DISK_UNMAP : 0) | (scsi_write_through(r, false) ? DISK_FUA : 0);
	r->step = zeroed;
	if (scsi_io(r))
		zeroed(r);
}

/* phase: bytes of the chunk that was written */
static void same_next(struct scsi_request *r)
{
	do {
		if (r->phase > 0 && r->io.result < 0) {
			scsi_io_failed(r);
			return;
		}
		r->at += r->phase;
		r->left -= r->phase;
		if (r->left == 0) {
			scsi_good(r);
			return;
		}
		r->phase = (unsigned)MIN(r->left, SCSI_CHUNK);
		scsi_scratch_io(r, DISK_WRITE, r->phase);
		r->io.flags = scsi_write_through(r, false) ? DISK_FUA : 0;
		r->step = same_next;
	} while (scsi_io(r));
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static void same_data(struct scsi_request *r)
{
	uint32_t block = r->lun->block;
	uint8_t *data;

	if (!scsi_wants_out(r, block) || !scsi_scratch(r, 1))
		return;
	data = r->scratch;
	cursor_get(&r->element->rd, data, block);
	if (all_zero(data, block)) {
		zero(r);
		return;
	}
	for (size_t at = block; at < SCSI_CHUNK; at += block)
		memcpy(data + at, data, block);
	same_next(r);
}

void scsi_write_same(struct scsi_request *r)
{
	bool ndob = r->cdb[0] == 0x93 && (r->cdb[1] & NDOB);
	uint64_t lba;
	uint32_t blocks;

	scsi_lba(r, &lba, &blocks);
	if ((r->cdb[1] & ~(SAME_UNMAP | (r->cdb[0] == 0x93 ? NDOB : 0))) != 0 ||
		((r->cdb[1] & SAME_UNMAP) && !disk_limits(r->lun->disk)->discard))
		scsi_fail_cdb(r, 1);
	else if (blocks == 0 || blocks > SCSI_MAX_SAME >> r->lun->shift)
		scsi_fail_cdb(r, r->cdb[0] == 0x93 ? 10 : 7);
	else if (!scsi_range(r, lba, blocks))
		return;
	else if (ndob)
		zero(r);
	else
		same_data(r);
}

/* UNMAP: the list is copied, checked as a whole, and then done range by range */

static uint64_t range_lba(const struct scsi_request *r, unsigned i)
{
	return get_be64((const uint8_t *)r->scratch + 8 + 16 * i);
}

static uint32_t range_blocks(const struct scsi_request *r, unsigned i)
{
	return get_be32((const uint8_t *)r->scratch + 8 + 16 * i + 8);
}

/* left: ranges; phase: the next one */
static void unmap_next(struct scsi_request *r)
{
	for (;;) {
		if (r->io.result < 0) {
			scsi_io_failed(r);
			return;
		}
		while (r->phase < r->left && range_blocks(r, r->phase) == 0)
			r->phase++;
		if (r->phase == r->left) {
			scsi_good(r);
			return;
		}
		r->io.op = DISK_DISCARD;
		r->io.flags = 0;
		r->io.offset = range_lba(r, r->phase) << r->lun->shift;
		r->io.len = (uint64_t)range_blocks(r, r->phase) << r->lun->shift;
		r->phase++;
		r->step = unmap_next;
		if (!scsi_io(r))
			return;
	}
}

static void unmap_list(struct scsi_request *r, size_t len)
{
	const uint8_t *head = r->scratch;
	unsigned n = get_be16(head + 2) / 16;
	uint64_t sum = 0;

	if (get_be16(head + 2) > len - 8) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	if (n > SCSI_UNMAP_RANGES) {
		scsi_fail_data(r, 2);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (!scsi_range(r, range_lba(r, i), range_blocks(r, i)))
			return;
		sum += range_blocks(r, i);
	}
	if (sum > SCSI_MAX_UNMAP >> r->lun->shift) {
		scsi_fail_data(r, 8);
		return;
	}
	r->left = n;
	r->phase = 0;
	r->io.result = 0;
	unmap_next(r);
}

void scsi_unmap(struct scsi_request *r)
{
	size_t len = get_be16(r->cdb + 7);

	if (!disk_limits(r->lun->disk)->discard) {
		scsi_fail(r, SENSE_OPCODE);
		return;
	}
	if (r->cdb[1] & 1) {
		scsi_fail_cdb(r, 1); /* no anchored blocks */
		return;
	}
	if (!scsi_wants_out(r, len))
		return;
	if (len == 0) {
		scsi_good(r);
		return;
	}
	if (len < 8) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	if (!scsi_scratch(r, 1))
		return;
	cursor_get(&r->element->rd, r->scratch, len);
	unmap_list(r, len);
}

/* FORMAT UNIT: all is unmapped, where that can be done; else the content stays, as it may without an initialization pattern */

enum { FMTPINFO = 0xc0, LONGLIST = 0x20, FMTDATA = 0x10, INIT_PATTERN = 0x08 };

/* The parameter list's header, all zeroes if there is none. False: the request has ended. */
static bool format_options(struct scsi_request *r)
{
	size_t len = !(r->cdb[1] & FMTDATA) ? 0 : r->cdb[1] & LONGLIST ? 8 : 4;
	uint8_t head[8] = {0};

	if (!scsi_wants_out(r, len))
		return false;
	cursor_get(&r->element->rd, head, len);
	if (head[0] != 0) {
		scsi_fail_data(r, 0); /* no protection information */
	} else if (head[1] & INIT_PATTERN) {
		scsi_fail_data(r, 1);
	} else if (head[2] != 0 || !all_zero(head + 2, sizeof(head) - 2)) {
		scsi_fail_data(r, 2); /* no list of defects */
	} else {
		return true;
	}
	return false;
}

void scsi_format_unit(struct scsi_request *r)
{
	if (r->cdb[1] & FMTPINFO) {
		scsi_fail_cdb(r, 1);
		return;
	}
	if (!format_options(r))
		return;
	if (!disk_limits(r->lun->disk)->discard) {
		scsi_good(r);
		return;
	}
	r->io.op = DISK_DISCARD;
	r->io.offset = 0;
	r->io.len = scsi_lun_blocks(r->lun) << r->lun->shift;
	r->step = zeroed;
	if (scsi_io(r))
		zeroed(r);
}
