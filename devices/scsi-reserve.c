/* SPDX-License-Identifier: MIT */
/*
 * The commands of reservations: RESERVE and RELEASE of SPC-2, PERSISTENT RESERVE IN and OUT (SPC-4, 6.15 and 6.16), of which
 * each is refused while the other has something in force (SPC-2, 5.5.1). The rules are in scsi-pr.c. A front-end is one initiator, so a conflict can only be with one that was here before, whose
 * reservation was kept in the unit's file. Names of initiators are shown in the form of iSCSI names.
 */
#include <errno.h>

#include "scsi.h"

#define LIST_LENGTH 24u
#define MOVE_MAX    512u
#define ID_ISCSI    5u

/* RESERVE, RELEASE */

static bool registrations(const struct scsi_pr *pr)
{
	for (unsigned i = 0; i < PR_MAX; i++)
		if (pr->who[i].key != 0)
			return true;
	return false;
}

static void set_reserved(struct scsi_request *r, bool on)
{
	struct scsi_lun *l = r->lun;
	bool conflict;

	if (r->cdb[1] & 0x11) {
		scsi_fail_cdb(r, 1); /* no third parties, no extents */
		return;
	}
	pthread_mutex_lock(&l->scsi->lock);
	conflict = registrations(&l->pr);
	if (!conflict)
		l->reserved = on;
	pthread_mutex_unlock(&l->scsi->lock);
	scsi_status(r, conflict ? STATUS_RESERVATION_CONFLICT : STATUS_GOOD);
}

void scsi_reserve(struct scsi_request *r)
{
	set_reserved(r, true);
}

void scsi_release(struct scsi_request *r)
{
	set_reserved(r, false);
}

/* PERSISTENT RESERVE IN */

enum { READ_KEYS, READ_RESERVATION, REPORT_CAPABILITIES, READ_FULL_STATUS };

static size_t read_keys(const struct scsi_pr *pr, uint8_t *out)
{
	size_t n = 8;

	for (unsigned i = 0; i < PR_MAX; i++) {
		if (pr->who[i].key == 0)
			continue;
		put_be64(out + n, pr->who[i].key);
		n += 8;
	}
	return n;
}

static size_t read_reservation(const struct scsi_pr *pr, uint8_t *out)
{
	bool all = pr->type == PR_WRITE_EXCLUSIVE_ALL || pr->type == PR_EXCLUSIVE_ALL;

	if (pr->type == PR_NONE)
		return 8;
	put_be64(out + 8, all ? 0 : pr->who[pr->holder].key);
	out[21] = pr->type;
	return 24;
}

static size_t transport_id(const char *name, uint8_t *out)
{
	size_t len = ALIGN_UP(strlen(name) + 1, 4u);

	out[0] = ID_ISCSI;
	put_be16(out + 2, (uint16_t)len);
	memcpy(out + 4, name, strlen(name));
	return 4 + len;
}

static size_t read_full_status(const struct scsi_pr *pr, uint8_t *out)
{
	size_t n = 8;

	for (unsigned i = 0; i < PR_MAX; i++) {
		uint8_t *d = out + n;
		size_t id;

		if (pr->who[i].key == 0)
			continue;
		put_be64(d, pr->who[i].key);
		d[12] = pr_holds(pr, i);
		d[13] = d[12] ? pr->type : 0;
		put_be16(d + 18, 1); /* the target port */
		id = transport_id(pr->who[i].name, d + 24);
		put_be32(d + 20, (uint32_t)id);
		n += 24 + id;
	}
	return n;
}

static size_t capabilities(const struct scsi_lun *l, uint8_t *out)
{
	put_be16(out, 8);
	out[2] = l->pr_fd >= 0 ? 0x01 : 0; /* PTPL_C */
	out[3] = 0x80 | (l->pr.persist ? 1 : 0);
	out[4] = 0xea;
	out[5] = 0x01;
	return 8;
}

void scsi_pr_in(struct scsi_request *r)
{
	struct scsi_lun *l = r->lun;
	unsigned action = r->cdb[1] & 0x1f;
	uint8_t *out;
	size_t n;

	r->alloc = get_be16(r->cdb + 7);
	if (!scsi_wants_in(r, r->alloc) || !scsi_scratch(r, 1))
		return;
	out = r->scratch;
	pthread_mutex_lock(&l->scsi->lock);
	if (l->reserved) {
		pthread_mutex_unlock(&l->scsi->lock);
		scsi_status(r, STATUS_RESERVATION_CONFLICT);
		return;
	}
	if (action == READ_KEYS)
		n = read_keys(&l->pr, out);
	else if (action == READ_RESERVATION)
		n = read_reservation(&l->pr, out);
	else if (action == REPORT_CAPABILITIES)
		n = capabilities(l, out);
	else
		n = read_full_status(&l->pr, out);
	if (action != REPORT_CAPABILITIES) {
		put_be32(out, l->pr.generation);
		put_be32(out + 4, (uint32_t)(n - 8));
	}
	pthread_mutex_unlock(&l->scsi->lock);
	scsi_reply(r, out, n);
}

/* PERSISTENT RESERVE OUT */

void scsi_pr_apply(struct scsi_lun *l)
{
	const char *name = l->scsi->initiator;
	uint32_t bits = (pr_forbids_writes(&l->pr, name) ? STATE_NO_WRITES : 0) |
			(pr_forbids_reads(&l->pr, name) ? STATE_NO_READS : 0);

	scsi_lun_set(l, bits);
	scsi_lun_clear(l, (STATE_NO_WRITES | STATE_NO_READS) & ~bits);
}

static void attentions(struct scsi_lun *l, int self, const struct pr_effects *e)
{
	uint64_t me = self >= 0 ? BIT(self) : 0;

	if (e->registrations_preempted & me)
		scsi_lun_attention(l, ATTENTION_REGISTRATIONS_PREEMPTED);
	if (e->reservations_preempted & me)
		scsi_lun_attention(l, ATTENTION_RESERVATIONS_PREEMPTED);
	if (e->reservations_released & me)
		scsi_lun_attention(l, ATTENTION_RESERVATIONS_RELEASED);
}

/* The new state takes effect only when it is in the file, if it is to be kept there. */
static enum pr_verdict run(struct scsi_lun *l, const struct pr_request *q, bool *saved)
{
	struct scsi_pr next = l->pr;
	struct pr_effects e;
	int self = pr_find(&l->pr, q->name);
	enum pr_verdict v = pr_out(&next, q, &e);

	*saved = true;
	if (v != PR_GOOD)
		return v;
	if (l->pr_fd >= 0 && (next.persist || l->pr.persist)) {
		int err = pr_file_save(l->pr_fd, &next);

		*saved = err == 0;
		if (err < 0) {
			log_guest_warn(
				"reservations of unit %u:%u: %s", l->target, l->number, strerror(-err));
			return PR_GOOD;
		}
	}
	l->pr = next;
	attentions(l, self, &e);
	scsi_pr_apply(l);
	return PR_GOOD;
}

static void answer(struct scsi_request *r, const struct pr_request *q)
{
	struct scsi_lun *l = r->lun;
	enum pr_verdict v;
	bool saved = false;

	pthread_mutex_lock(&l->scsi->lock);
	v = l->reserved ? PR_CONFLICT : run(l, q, &saved);
	pthread_mutex_unlock(&l->scsi->lock);
	switch (v) {
	case PR_GOOD:
		if (saved)
			scsi_good(r);
		else
			scsi_fail(r, SENSE_HARDWARE);
		break;
	case PR_CONFLICT:
		scsi_status(r, STATUS_RESERVATION_CONFLICT);
		break;
	case PR_BAD_PARAMETER:
		scsi_fail_data(r, 8);
		break;
	case PR_BAD_RELEASE:
		scsi_fail(r, SENSE_INVALID_RELEASE);
		break;
	case PR_NO_ROOM:
		scsi_fail(r, SENSE_NO_REGISTRATIONS);
		break;
	}
}

/* The name in the TransportID of REGISTER AND MOVE; NULL: it is none of ours. */
static const char *destination(const uint8_t *data, size_t len)
{
	uint32_t id_len = get_be32(data + 20);
	const uint8_t *id = data + LIST_LENGTH;
	size_t room;

	if (id_len > len - LIST_LENGTH || id_len < 8 || id[0] != ID_ISCSI)
		return NULL;
	room = MIN(get_be16(id + 2), id_len - 4);
	if (id[4] == '\0' || strnlen((const char *)id + 4, room) == room ||
		strlen((const char *)id + 4) >= PR_NAME)
		return NULL;
	return (const char *)id + 4;
}

static void out_move(struct scsi_request *r, struct pr_request *q, size_t len)
{
	uint8_t data[MOVE_MAX];

	if (len > sizeof(data) || len < LIST_LENGTH + 8) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	cursor_get(&r->element->rd, data, len);
	q->key = get_be64(data);
	q->action_key = get_be64(data + 8);
	q->persist = data[17] & 1;
	q->unregister = data[17] & 2;
	q->to = destination(data, len);
	if (q->to == NULL)
		scsi_fail_data(r, LIST_LENGTH);
	else if (q->persist && r->lun->pr_fd < 0)
		scsi_fail_data(r, 17);
	else
		answer(r, q);
}

static void out_other(struct scsi_request *r, struct pr_request *q, size_t len)
{
	uint8_t data[LIST_LENGTH];
	bool registers = q->action == PR_REGISTER || q->action == PR_REGISTER_AND_IGNORE;

	if (len != LIST_LENGTH) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	cursor_get(&r->element->rd, data, sizeof(data));
	q->key = get_be64(data);
	q->action_key = get_be64(data + 8);
	q->persist = data[20] & 1;
	/* neither for all ports nor for others; to be kept only where there is a file */
	if (registers && ((data[20] & 0x0c) || (q->persist && r->lun->pr_fd < 0)))
		scsi_fail_data(r, 20);
	else
		answer(r, q);
}

void scsi_pr_out(struct scsi_request *r)
{
	struct pr_request q = {
		.action = r->cdb[1] & 0x1f, .type = r->cdb[2] & 0xf, .name = r->queue->scsi->initiator};
	bool typed = q.action == PR_RESERVE || q.action == PR_RELEASE || q.action == PR_PREEMPT ||
		     q.action == PR_PREEMPT_AND_ABORT;
	uint32_t len = get_be32(r->cdb + 5);

	if (typed && ((r->cdb[2] >> 4) != 0 || !pr_type_valid(q.type))) {
		scsi_fail_cdb(r, 2);
		return;
	}
	if (!scsi_wants_out(r, len))
		return;
	if (q.action == PR_REGISTER_AND_MOVE)
		out_move(r, &q, len);
	else
		out_other(r, &q, len);
}
