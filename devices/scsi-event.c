/* SPDX-License-Identifier: MIT */
/*
 * The event queue: tells the driver of units that came, went or changed (virtio 1.3, 5.6.6.3). Events wait here while the
 * driver has no buffer for them, a few of them; when there are more, the next one says that some were missed, and the
 * driver looks at everything again. A driver that has no event queue yet finds out by itself.
 */
#include "scsi.h"

/* In the queue's loop. */
static void event_put(struct scsi *s, struct element *e, const struct scsi_event *pending, bool missed)
{
	struct virtio_scsi_event ev = {
		.event = htole32(pending->event | (missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0)),
		.reason = htole32(pending->reason),
	};

	memcpy(ev.lun, pending->lun, sizeof(ev.lun));
	if (!cursor_put(&e->wr, &ev, sizeof(ev))) {
		log_guest_warn("event queue: a buffer is smaller than an event");
		s->events.missed = true;
	}
	virtqueue_push(e);
}

void scsi_event_flush(struct scsi_queue *q)
{
	struct scsi *s = q->scsi;
	struct element *e;

	pthread_mutex_lock(&s->lock);
	while (q->vq != NULL && (s->events.n > 0 || s->events.missed) && (e = virtqueue_pop(q->vq)) != NULL) {
		struct scsi_event none = {.event = VIRTIO_SCSI_T_NO_EVENT};
		bool missed = s->events.missed;

		s->events.missed = false;
		event_put(s, e, s->events.n > 0 ? &s->events.pending[0] : &none, missed);
		if (s->events.n == 0)
			continue;
		s->events.n--;
		memmove(s->events.pending, s->events.pending + 1, s->events.n * sizeof(none));
	}
	pthread_mutex_unlock(&s->lock);
}

void scsi_event_ready(struct backend *b, struct virtqueue *q)
{
	(void)q;
	scsi_event_flush(&scsi_of(b)->queues[1]);
}

void scsi_event_send(struct scsi *s, uint32_t event, unsigned target, unsigned lun, uint32_t reason)
{
	unsigned bit = event == VIRTIO_SCSI_T_PARAM_CHANGE ? VIRTIO_SCSI_F_CHANGE : VIRTIO_SCSI_F_HOTPLUG;
	struct scsi_event *ev;
	bool open;

	if (!backend_has(s->b, bit) && event != VIRTIO_SCSI_T_ASYNC_NOTIFY)
		return;
	pthread_mutex_lock(&s->lock);
	open = s->events.open;
	if (open && s->events.n == SCSI_EVENTS) {
		s->events.missed = true;
	} else if (open) {
		ev = &s->events.pending[s->events.n++];
		ev->event = event;
		ev->reason = reason;
		scsi_address_write(ev->lun, target, lun);
	}
	pthread_mutex_unlock(&s->lock);
	if (open)
		loop_post(s->queues[1].loop, &s->queues[1].poke);
}
