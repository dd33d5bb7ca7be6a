/* SPDX-License-Identifier: MIT */
#include "scsi.h"

void scsi_reserve(struct scsi_request *r)
{
	pthread_mutex_lock(&r->lun->scsi->lock);
	r->lun->reserved = true;
	pthread_mutex_unlock(&r->lun->scsi->lock);
	scsi_good(r);
}

void scsi_release(struct scsi_request *r)
{
	pthread_mutex_lock(&r->lun->scsi->lock);
	r->lun->reserved = false;
	pthread_mutex_unlock(&r->lun->scsi->lock);
	scsi_good(r);
}

void scsi_pr_in(struct scsi_request *r)
{
	scsi_fail(r, SENSE_OPCODE);
}

void scsi_pr_out(struct scsi_request *r)
{
	scsi_fail(r, SENSE_OPCODE);
}
