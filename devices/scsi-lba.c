/* SPDX-License-Identifier: MIT */
/*
 * GET LBA STATUS (SBC-3, 5.5 and 4.7.3): which blocks have space behind them. A hole of an image, or of what an NBD server
 * has, is deallocated; all else, and a unit that gives no space back, is "mapped or unknown". What is left over at a hole's
 * ends because blocks are larger than what holes are made of is mapped.
 *
 * Both the disk's answer and the parameter data made of it are in the request's scratch.
 */
#include "scsi.h"

enum { HEAD = 8, DESCRIPTOR = 16, DEALLOCATED = 1 };
#define EXTENTS_MAX 1024u
#define DATA_AT	    (SCSI_CHUNK / 2)

_Static_assert(sizeof(struct disk_extents) + EXTENTS_MAX * sizeof(struct disk_extent) <= DATA_AT &&
		       HEAD + EXTENTS_MAX * DESCRIPTOR <= SCSI_CHUNK - DATA_AT,
	"both fit");

static void status_known(struct scsi_request *r)
{
	const struct disk_extents *x = r->scratch;
	uint8_t *out = (uint8_t *)r->scratch + DATA_AT;
	uint64_t lba = r->at >> r->lun->shift, blocks = 0;
	uint32_t n = 0;

	if (r->io.result < 0) {
		scsi_io_failed(r);
		return;
	}
	/* what is longer than a descriptor can say is the last one, and so is what is known of a part of a block only */
	for (; n < x->n && blocks <= UINT32_MAX; n++, lba += blocks) {
		uint8_t *d = out + HEAD + n * DESCRIPTOR;

		blocks = x->extent[n].len >> r->lun->shift;
		if (blocks == 0)
			break;
		put_be64(d, lba);
		put_be32(d + 8, (uint32_t)MIN(blocks, UINT32_MAX));
		d[12] = x->extent[n].hole ? DEALLOCATED : 0;
	}
	put_be32(out, HEAD - 4 + n * DESCRIPTOR);
	scsi_reply(r, out, HEAD + n * DESCRIPTOR);
}

void scsi_get_lba_status(struct scsi_request *r)
{
	uint64_t lba = get_be64(r->cdb + 2), all = scsi_lun_blocks(r->lun);
	struct disk_extents *x;

	r->alloc = get_be32(r->cdb + 10);
	if (lba >= all) {
		scsi_fail(r, SENSE_LBA_RANGE);
		return;
	}
	if (!scsi_range(r, lba, all - lba) || !scsi_wants_in(r, r->alloc) || !scsi_scratch(r, 1))
		return;
	x = r->scratch;
	x->max = MIN(MAX(r->alloc, HEAD + DESCRIPTOR) - HEAD, EXTENTS_MAX * DESCRIPTOR) / DESCRIPTOR;
	x->align = r->lun->block;
	r->io.op = DISK_STATUS;
	r->io.extents = x;
	r->io.offset = r->at;
	r->io.len = r->left;
	r->step = status_known;
	if (!disk_limits(r->lun->disk)->discard) {
		x->extent[x->n++].len = r->left;
		status_known(r);
	} else if (scsi_io(r)) {
		status_known(r);
	}
}
