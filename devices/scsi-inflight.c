/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight: those that a disk has, or that wait for their turn, are on their queue's list until they are done, taken back by a
 * queue that stops, or aborted. A disk is asked once for all that a queue wants back.
 */
#include "scsi.h"

#include <errno.h>
#include <stdlib.h>

void scsi_unlink(struct scsi_request *r)
{
	if (r->link == NULL)
		return;
	*r->link = r->next;
	if (r->next != NULL)
		r->next->link = r->link;
	r->link = NULL;
}

void scsi_link(struct scsi_request *r)
{
	struct scsi_queue *q = r->queue;

	r->next = q->inflight;
	r->link = &q->inflight;
	if (r->next != NULL)
		r->next->link = &r->next;
	q->inflight = r;
}

static void swept(struct scsi_queue *q)
{
	if (unlikely(__atomic_load_n(&q->scsi->sweeps, __ATOMIC_RELAXED) != NULL))
		scsi_sweep_note(q);
}

static void io_done(struct disk_io *io)
{
	struct scsi_request *r = container_of(io, struct scsi_request, io);
	struct scsi_queue *q = r->queue;

	scsi_unlink(r);
	if (unlikely(r->abort != 0))
		scsi_respond(r, r->abort);
	else
		r->step(r);
	swept(q);
}

static bool io_lost(struct disk_io *io);

static struct disk_lane *lane_of(struct scsi_request *r)
{
	struct disk_lane **lane = &r->lun->lanes[r->queue->thread];

	if (unlikely(*lane == NULL) && disk_lane_get(r->lun->disk, r->queue->loop, lane) < 0)
		return NULL;
	return *lane;
}

bool scsi_io(struct scsi_request *r)
{
	struct disk_lane *lane = lane_of(r);

	if (unlikely(lane == NULL)) {
		r->io.result = -ENOMEM;
		return true;
	}
	r->io.done = io_done;
	r->io.lost = io_lost;
	if (r->submitted)
		r->io.flags |= DISK_PART;
	r->submitted = true;
	if (disk_submit(lane, &r->io))
		return true;
	scsi_link(r);
	if (unlikely(r->queue->vq == NULL))
		scsi_withdraw(r->queue, true);
	return false;
}

/* The queue stops: back into the ring. The answer is for the case that it can't, and nobody remembers it. */
void scsi_give_back(struct scsi_request *r)
{
	struct virtio_scsi_cmd_resp resp = {.response = VIRTIO_SCSI_S_BUSY};
	struct cursor c = r->resp;

	if (r->is_exclusive)
		scsi_exclusive_end(r);
	c.up = NULL;
	cursor_put(&c, &resp, SCSI_RESPONSE);
	free(r->scratch);
	virtqueue_unpop(r->element);
}

struct withdrawal {
	struct scsi_queue *queue;
	bool stops;
};

static bool take(struct disk_io *io, void *arg)
{
	struct scsi_request *r = container_of(io, struct scsi_request, io);
	const struct withdrawal *w = arg;

	if (r->queue != w->queue || (r->abort == 0 && !w->stops))
		return false;
	scsi_unlink(r);
	if (r->abort != 0)
		scsi_respond(r, r->abort);
	else
		scsi_give_back(r);
	return true;
}

/* A queue that stops, or who aborts, does not wait for a lost server. */
static bool io_lost(struct disk_io *io)
{
	struct scsi_queue *q = container_of(io, struct scsi_request, io)->queue;
	struct withdrawal w = {q, q->vq == NULL};

	if (!take(io, &w))
		return false;
	swept(q);
	return true;
}

/* A lane that has not been asked yet; NULL: there is none. */
static struct disk_lane *lane_to_ask(struct scsi_queue *q)
{
	struct disk_lane *lane = NULL;

	for (struct scsi_request *r = q->inflight; r != NULL; r = r->next) {
		struct disk_lane *its = r->lun->lanes[q->thread];

		if (r->asked || its == NULL)
			continue;
		if (lane == NULL)
			lane = its;
		if (lane == its)
			r->asked = true;
	}
	return lane;
}

void scsi_withdraw(struct scsi_queue *q, bool stops)
{
	struct withdrawal w = {q, stops};
	struct disk_lane *lane;

	scsi_sg_withdraw(q, stops);
	for (struct scsi_request *r = q->inflight; r != NULL; r = r->next)
		r->asked = false;
	while ((lane = lane_to_ask(q)) != NULL)
		disk_withdraw(lane, take, &w);
	while (stops && q->parked != NULL) {
		struct scsi_request *r = q->parked;

		scsi_unlink(r);
		scsi_give_back(r);
	}
	if (q->parked == NULL)
		q->parked_tail = &q->parked;
	/* somebody may wait for those that went */
	if (stops && __atomic_load_n(&q->scsi->sweeps, __ATOMIC_SEQ_CST) != NULL)
		scsi_sweep_note(q);
}
