/* SPDX-License-Identifier: MIT */
/*
 * Commands that look at what is on the medium: VERIFY, WRITE AND VERIFY, COMPARE AND WRITE (SBC-3, 5.3, 5.31 and 5.46).
 * They read into memory of our own, a chunk at a time.
 */
#include "scsi.h"

#include <stdlib.h>

enum { CHECK_MEDIUM = 0, CHECK_DATA = 1, CHECK_BLOCK = 3 };

bool scsi_scratch(struct scsi_request *r, unsigned chunks)
{
	r->scratch = calloc(chunks, SCSI_CHUNK);
	if (r->scratch == NULL)
		scsi_status(r, STATUS_BUSY);
	return r->scratch != NULL;
}

void scsi_scratch_io(struct scsi_request *r, enum disk_op op, size_t len)
{
	r->iov = (struct iovec){.iov_base = r->scratch, .iov_len = len};
	cursor_init(&r->data, &r->iov, 1);
	r->io.op = (uint8_t)op;
	r->io.data = &r->data;
	r->io.offset = r->at;
}

static unsigned check_of(const struct scsi_request *r)
{
	return (r->cdb[1] >> 1) & 3;
}

static void miscompare(struct scsi_request *r, uint64_t offset)
{
	scsi_sense(r,
		&(struct scsi_sense){
			.code = SENSE_MISCOMPARE, .has_info = true, .info = offset, .field = SENSE_NO_FIELD});
}

/* The first byte that differs, or len. */
static size_t difference(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t i = 0;

	if (memcmp(a, b, len) == 0)
		return len;
	while (a[i] == b[i])
		i++;
	return i;
}

/* The chunk in scratch against what the driver sent: the offset of a difference in it, or its length. */
static size_t check_chunk(struct scsi_request *r, size_t len)
{
	const uint8_t *got = r->scratch;
	uint8_t *want = (uint8_t *)r->scratch + SCSI_CHUNK;

	if (check_of(r) == CHECK_DATA) {
		cursor_get(&r->again, want, len);
		return difference(got, want, len);
	}
	for (size_t at = 0; at < len; at += r->lun->block) {
		size_t same = difference(got + at, want, r->lun->block);

		if (same < r->lun->block)
			return at + same;
	}
	return len;
}

/* phase: bytes of the chunk that was read */
static void verify_next(struct scsi_request *r)
{
	do {
		size_t len = r->phase;

		if (len > 0 && r->io.result < 0) {
			scsi_io_failed(r);
			return;
		}
		if (len > 0 && check_of(r) != CHECK_MEDIUM) {
			size_t same = check_chunk(r, len);

			if (same < len) {
				miscompare(r, r->verified + same);
				return;
			}
		}
		r->verified += len;
		r->at += len;
		r->left -= len;
		if (r->left == 0) {
			scsi_good(r);
			return;
		}
		r->phase = (unsigned)MIN(r->left, SCSI_CHUNK);
		scsi_scratch_io(r, DISK_READ, r->phase);
		r->io.flags = 0;
		r->step = verify_next;
	} while (scsi_io(r));
}

static void verify_begin(struct scsi_request *r)
{
	r->phase = 0;
	if (scsi_scratch(r, 2)) {
		if (check_of(r) == CHECK_BLOCK)
			cursor_get(&r->again, (uint8_t *)r->scratch + SCSI_CHUNK, r->lun->block);
		verify_next(r);
	}
}

/* Range and data of both commands. */
static bool verify_range(struct scsi_request *r, bool writes)
{
	uint64_t lba, data;
	uint32_t blocks;

	scsi_lba(r, &lba, &blocks);
	if ((r->cdb[1] & 0xe0) || check_of(r) == 2 || (writes && check_of(r) == CHECK_BLOCK)) {
		scsi_fail_cdb(r, 1);
		return false;
	}
	if (!scsi_limited(r, blocks) || !scsi_range(r, lba, blocks))
		return false;
	data = check_of(r) == CHECK_BLOCK && blocks > 0 ? r->lun->block : r->left;
	if ((writes || check_of(r) != CHECK_MEDIUM) && !scsi_wants_out(r, data))
		return false;
	return true;
}

void scsi_verify(struct scsi_request *r)
{
	struct cursor *rd = &r->element->rd;

	if (!verify_range(r, false))
		return;
	if (r->left == 0) {
		scsi_good(r);
		return;
	}
	if (check_of(r) != CHECK_MEDIUM)
		cursor_split(rd, check_of(r) == CHECK_BLOCK ? r->lun->block : r->left, &r->again);
	verify_begin(r);
}

static void written(struct scsi_request *r)
{
	if (r->io.result < 0)
		scsi_io_failed(r);
	else if (r->left == 0)
		scsi_good(r);
	else
		verify_begin(r);
}

void scsi_write_verify(struct scsi_request *r)
{
	if (!verify_range(r, true))
		return;
	r->again = r->element->rd;
	r->again.up = NULL;
	cursor_split(&r->element->rd, r->left, &r->data);
	r->io.op = DISK_WRITE;
	r->io.flags = DISK_FUA;
	r->io.data = &r->data;
	r->io.offset = r->at;
	r->step = written;
	if (scsi_io(r))
		written(r);
}

/* COMPARE AND WRITE */

static void caw_written(struct scsi_request *r)
{
	if (r->io.result < 0)
		scsi_io_failed(r);
	else
		scsi_good(r);
}

static void caw_compare(struct scsi_request *r)
{
	struct cursor *rd = &r->element->rd;
	uint8_t *want = (uint8_t *)r->scratch + SCSI_CHUNK;
	size_t same;

	if (r->io.result < 0) {
		scsi_io_failed(r);
		return;
	}
	cursor_get(rd, want, r->left);
	same = difference(r->scratch, want, r->left);
	if (same < r->left) {
		miscompare(r, same);
		return;
	}
	cursor_split(rd, r->left, &r->data);
	r->io.op = DISK_WRITE;
	r->io.flags = scsi_write_through(r, r->cdb[1] & 8) ? DISK_FUA : 0;
	r->io.data = &r->data;
	r->io.offset = r->at;
	r->step = caw_written;
	if (scsi_io(r))
		caw_written(r);
}

/* Our turn: nobody else writes to this unit. */
static void caw_read(struct scsi_request *r)
{
	scsi_scratch_io(r, DISK_READ, r->left);
	r->step = caw_compare;
	if (scsi_io(r))
		caw_compare(r);
}

void scsi_compare_and_write(struct scsi_request *r)
{
	uint32_t blocks = r->cdb[13];

	if (r->cdb[1] & 0xe0) {
		scsi_fail_cdb(r, 1);
		return;
	}
	if (blocks > MIN(SCSI_CHUNK >> r->lun->shift, 255u)) {
		scsi_fail_cdb(r, 13);
		return;
	}
	if (!scsi_range(r, get_be64(r->cdb + 2), blocks) || !scsi_wants_out(r, 2 * r->left))
		return;
	if (blocks == 0) {
		scsi_good(r);
		return;
	}
	if (!scsi_scratch(r, 2))
		return;
	r->step = caw_read;
	scsi_exclusive_begin(r);
}
