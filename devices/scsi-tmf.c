/* SPDX-License-Identifier: MIT */
/*
 * The control queue: task management and asynchronous notifications (virtio 1.3, 5.6.6.2).
 *
 * What is in flight is with the disk, which still reads or writes the guest's buffers, so an aborted request ends when
 * the disk lets go of it: its later steps are left out, it is answered as aborted, and only then the function is. One
 * function at a time; others wait in the ring. Of a unit that is passed through, what the real device has begun with can't be
 * aborted; there a reset of the unit resets the device, if we may.
 */
#include <unistd.h>

#include "scsi.h"

#include "log.h"

static void answer_tmf(struct element *e, uint8_t response)
{
	cursor_put(&e->wr, &response, 1);
	virtqueue_push(e);
}

/* What a function applies to. */

static bool match_task(const struct scsi_sweep *w, const struct scsi_request *r)
{
	return r->lun == w->lun && r->head.tag == w->tag;
}

static bool match_unit(const struct scsi_sweep *w, const struct scsi_request *r)
{
	return r->lun == w->lun;
}

static bool match_target(const struct scsi_sweep *w, const struct scsi_request *r)
{
	return r->lun != NULL && r->target == w->target;
}

static void nexus_lost(struct scsi_lun *l, void *arg)
{
	(void)arg;
	scsi_lun_reset(l, ATTENTION_NEXUS_LOSS);
}

static void tmf_end(struct scsi *s)
{
	struct scsi_sweep *w = &s->tmf.sweep;
	struct element *e = s->tmf.element;
	struct virtqueue *q = e->queue;
	uint8_t response = VIRTIO_SCSI_S_OK;
	struct scsi_lun *l;

	switch (s->tmf.subtype) {
	case VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET:
		/* w->lun may have been removed meanwhile */
		l = scsi_lun_find(s, w->target, s->tmf.unit);
		if (l != NULL)
			scsi_lun_reset(l, ATTENTION_RESET);
		break;
	case VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET:
		scsi_lun_each(s, (int)w->target, nexus_lost, NULL);
		break;
	case VIRTIO_SCSI_T_TMF_QUERY_TASK:
	case VIRTIO_SCSI_T_TMF_QUERY_TASK_SET:
		if (w->found)
			response = VIRTIO_SCSI_S_FUNCTION_SUCCEEDED;
		break;
	default:
		break;
	}
	s->tmf.element = NULL;
	answer_tmf(e, response);
	virtqueue_wake(q);
}

static void tmf_part_done(struct scsi *s)
{
	if (--s->tmf.waits == 0)
		tmf_end(s);
}

static void finished(struct scsi_sweep *w)
{
	tmf_part_done(w->scsi);
}

/* A real device */

static void reset_run(struct job *j)
{
	struct scsi *s = container_of(j, struct scsi, tmf.reset);

	s->tmf.reset_error = scsi_sg_reset(s->tmf.reset_fd);
}

static void reset_done(struct job *j)
{
	struct scsi *s = container_of(j, struct scsi, tmf.reset);

	if (s->tmf.reset_error < 0)
		log_guest_warn("%u:%u: the device is not reset: %s", s->tmf.sweep.target, s->tmf.unit,
			strerror(-s->tmf.reset_error));
	fd_close(&s->tmf.reset_fd);
	tmf_part_done(s);
}

/* By a descriptor of our own: the unit may be removed meanwhile. If it can't be done, what has begun is waited for. */
static void reset_device(struct scsi *s, const struct scsi_lun *l)
{
	int fd;

	if (s->tmf.pool == NULL && pool_new(&s->tmf.pool, 1, "reset") < 0)
		return;
	fd = scsi_sg_dup(l->sg);
	if (fd < 0)
		return;
	s->tmf.reset_fd = fd;
	s->tmf.waits++;
	s->tmf.reset = (struct job){.run = reset_run, .done = reset_done, .loop = s->tmf.sweep.loop};
	pool_submit(s->tmf.pool, &s->tmf.reset);
}

void scsi_tmf_close(struct scsi *s)
{
	if (s->tmf.pool != NULL)
		pool_free(s->tmf.pool);
	s->tmf.pool = NULL;
}

static const struct {
	bool (*match)(const struct scsi_sweep *w, const struct scsi_request *r);
	uint8_t abort;
	bool query; /* does not wait for their end */
} functions[] = {
	[VIRTIO_SCSI_T_TMF_ABORT_TASK] = {match_task, VIRTIO_SCSI_S_ABORTED, false},
	[VIRTIO_SCSI_T_TMF_ABORT_TASK_SET] = {match_unit, VIRTIO_SCSI_S_ABORTED, false},
	[VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET] = {match_unit, VIRTIO_SCSI_S_ABORTED, false},
	[VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET] = {match_target, VIRTIO_SCSI_S_RESET, false},
	[VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET] = {match_unit, VIRTIO_SCSI_S_RESET, false},
	[VIRTIO_SCSI_T_TMF_QUERY_TASK] = {match_task, 0, true},
	[VIRTIO_SCSI_T_TMF_QUERY_TASK_SET] = {match_unit, 0, true},
};

static void tmf(struct scsi *s, struct element *e)
{
	struct virtio_scsi_ctrl_tmf_req req = {.type = 0};
	struct scsi_sweep *w = &s->tmf.sweep;
	unsigned target, lun;

	cursor_get(&e->rd, &req.subtype, sizeof(req) - sizeof(req.type));
	s->tmf.subtype = le32toh(req.subtype);
	if (e->rd.bad || e->fault) {
		answer_tmf(e, VIRTIO_SCSI_S_FAILURE);
		return;
	}
	if (!scsi_address_read(req.lun, &target, &lun) || !scsi_target_exists(s, target)) {
		answer_tmf(e, VIRTIO_SCSI_S_BAD_TARGET);
		return;
	}
	w->lun = scsi_lun_find(s, target, lun);
	if (w->lun == NULL && s->tmf.subtype != VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET) {
		answer_tmf(e, VIRTIO_SCSI_S_INCORRECT_LUN);
		return;
	}
	if (s->tmf.subtype >= ARRAY_SIZE(functions) || functions[s->tmf.subtype].match == NULL) {
		answer_tmf(e, VIRTIO_SCSI_S_FUNCTION_REJECTED);
		return;
	}
	w->tag = req.tag;
	w->target = target;
	s->tmf.unit = lun;
	w->match = functions[s->tmf.subtype].match;
	w->abort = functions[s->tmf.subtype].abort;
	w->query = functions[s->tmf.subtype].query;
	w->done = finished;
	w->loop = virtqueue_loop(e->queue);
	s->tmf.element = e;
	s->tmf.waits = 1;
	if (s->tmf.subtype == VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET && w->lun->sg != NULL)
		reset_device(s, w->lun);
	scsi_sweep_start(s, w);
}

static void notification(struct scsi *s, struct element *e, bool subscribes)
{
	struct virtio_scsi_ctrl_an_req req;
	struct virtio_scsi_ctrl_an_resp resp = {.response = VIRTIO_SCSI_S_OK};
	unsigned target, lun;
	struct scsi_lun *l = NULL;

	cursor_get(&e->rd, req.lun, sizeof(req) - sizeof(req.type));
	if (e->rd.bad || e->fault)
		resp.response = VIRTIO_SCSI_S_FAILURE;
	else if (!scsi_address_read(req.lun, &target, &lun) || !scsi_target_exists(s, target))
		resp.response = VIRTIO_SCSI_S_BAD_TARGET;
	else if ((l = scsi_lun_find(s, target, lun)) == NULL)
		resp.response = VIRTIO_SCSI_S_INCORRECT_LUN;
	else if (l->removable)
		resp.event_actual = htole32(le32toh(req.event_requested) & SCSI_AN_MEDIA);
	/* others have no cause here */
	if (l != NULL && subscribes)
		__atomic_store_n(&l->watched_media, resp.event_actual != 0, __ATOMIC_RELAXED);
	cursor_put(&e->wr, &resp, sizeof(resp));
	virtqueue_push(e);
}

static void control(struct scsi *s, struct element *e)
{
	uint32_t type;
	size_t room;

	cursor_get(&e->rd, &type, sizeof(type));
	room = le32toh(type) == VIRTIO_SCSI_T_TMF ? 1 : sizeof(struct virtio_scsi_ctrl_an_resp);
	if (e->rd.bad || le32toh(type) > VIRTIO_SCSI_T_AN_SUBSCRIBE || e->wr.left < room) {
		log_guest_warn("control queue: a request of no known type, or without room for an answer");
		virtqueue_push(e);
		return;
	}
	if (le32toh(type) == VIRTIO_SCSI_T_TMF)
		tmf(s, e);
	else
		notification(s, e, le32toh(type) == VIRTIO_SCSI_T_AN_SUBSCRIBE);
}

void scsi_control_ready(struct backend *b, struct virtqueue *q)
{
	struct scsi *s = scsi_of(b);
	struct element *e;

	while (s->tmf.element == NULL && (e = virtqueue_pop(q)) != NULL)
		control(s, e);
}
