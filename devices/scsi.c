/* SPDX-License-Identifier: MIT */
/*
 * SCSI host adapter (virtio 1.3, 5.6): its queues, how requests come in and go out. What is behind the addresses is in
 * scsi-lun.c, what the commands are in scsi-command.c.
 *
 * A request is a header with the CDB and data in the readable part, a response with sense data and room for data in the
 * writable part; sizes of CDB and sense data are the driver's choice, in the configuration space. The response is split
 * off and written at the end, so what is left of the writable part is the data-in buffer, and the disk writes right
 * there. Whatever is wrong with a request is answered in the response; only a buffer without room for one has no answer.
 */
#include "scsi.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#define HEADER	     19u /* bytes before the CDB */
#define MAX_SENSE    252u
#define MAX_CDB	     260u
#define MIN_CDB	     16u
#define CMD_PER_LUN  128u
#define MAX_SEGMENTS 126u
#define SENSE_SIZE   offsetof(struct virtio_scsi_config, sense_size)
#define CDB_SIZE     offsetof(struct virtio_scsi_config, cdb_size)

/* Options */

static const char *add_lun_option(void *base, const char *value)
{
	struct scsi *s = base;

	if (s->nluns == SCSI_MAX_LUNS)
		return "too many logical units";
	s->luns[s->nluns++] = value;
	return NULL;
}

static const struct option_spec scsi_options[] = {
	{.name = "lun",
		.kind = OPTION_CALLBACK,
		.parse = add_lun_option,
		.arg = "TARGET:LUN,KEY=VALUE...",
		.help = "a logical unit; may be given more than once, see the man page for the keys",
		.no_def = "0:0 with what --blk-file, --nbd or --null says"},
	DISK_OPTIONS(struct scsi, options),
	{.name = "serial",
		.kind = OPTION_STRING,
		OPTION_FIELD(struct scsi, serial),
		.arg = "TEXT",
		.help = "serial number of the unit 0:0, at most 36 bytes",
		.no_def = "made of its address"},
	{.name = "block-size",
		.kind = OPTION_U32,
		OPTION_FIELD(struct scsi, block_size),
		.arg = "BYTES",
		.help = "logical block size of the unit 0:0, a power of two",
		.no_def = "that of the disk",
		.min = 512,
		.max = 65536},
	{.name = "initiator",
		.kind = OPTION_STRING,
		OPTION_FIELD(struct scsi, initiator),
		.arg = "NAME",
		.help = "who the front-end is to persistent reservations, at most 63 bytes",
		.def = "vhost-user-multi"},
	{.name = "num-queues",
		.kind = OPTION_U32,
		OPTION_FIELD(struct scsi, num_queues),
		.help = "request queues offered to the front-end, which takes as many as it wants",
		.def = "254",
		.min = 1,
		.max = SCSI_QUEUES - SCSI_FIRST},
	{.name = "threads",
		.kind = OPTION_U32,
		OPTION_FIELD(struct scsi, threads),
		.help = "threads that the queues are spread over; 0: all run in the main thread",
		.def = "0",
		.max = SCSI_THREADS},
	OPTIONS_END,
};

/* Addresses (virtio 1.3, 5.6.6.1) */

bool scsi_address_read(const uint8_t a[8], unsigned *target, unsigned *lun)
{
	unsigned level = a[2] >> 6;

	*target = a[1];
	*lun = get_be16(a + 2) & SCSI_MAX_LUN;
	/* one level, flat or peripheral addressing */
	return a[0] == 1 && level <= 1 && (level == 1 || a[2] == 0) && get_be32(a + 4) == 0;
}

void scsi_address_write(uint8_t a[8], unsigned target, unsigned lun)
{
	memset(a, 0, 8);
	a[0] = 1;
	a[1] = (uint8_t)target;
	/* As REPORT LUNS has it: Linux takes these two bytes for the number of the unit, whatever their format says. */
	put_be16(a + 2, (uint16_t)(lun < 256 ? lun : 0x4000 | lun));
}

static bool is_report_luns_unit(const uint8_t a[8])
{
	return get_be16(a) == 0xc101 && get_be16(a + 2) == 0 && get_be32(a + 4) == 0;
}

/* Ends */

static uint32_t residual(const struct scsi_request *r)
{
	const struct element *e = r->element;
	uint64_t total = (uint64_t)r->readable + r->writable;
	uint64_t moved = e->wr.done + (e->rd.done - (r->cdb_size + HEADER));

	return (uint32_t)MIN(total - MIN(total, moved), UINT32_MAX);
}

static void end(struct scsi_request *r, uint8_t response, uint8_t status, const void *sense, size_t len)
{
	struct virtio_scsi_cmd_resp resp; /* its sense data is written by itself */

	if (unlikely(r->is_exclusive))
		scsi_exclusive_end(r);
	len = MIN(len, r->sense_size);
	resp.sense_len = htole32((uint32_t)len);
	resp.resid = htole32(residual(r));
	resp.status_qualifier = 0;
	resp.status = status;
	resp.response = response;
	cursor_put(&r->resp, &resp, SCSI_RESPONSE);
	if (unlikely(len > 0))
		cursor_put(&r->resp, sense, len);
	/* what sense_len does not cover means nothing, and stays as it is */
	cursor_skip(&r->resp, r->resp.left);
	if (unlikely(r->scratch != NULL))
		free(r->scratch);
	virtqueue_push(r->element);
}

void scsi_status_sense(struct scsi_request *r, uint8_t status, const void *sense, size_t len)
{
	if (status != STATUS_GOOD)
		virtqueue_count_error(r->element->queue);
	end(r, VIRTIO_SCSI_S_OK, status, sense, len);
}

void scsi_status(struct scsi_request *r, uint8_t status)
{
	end(r, VIRTIO_SCSI_S_OK, status, NULL, 0);
}

void scsi_good(struct scsi_request *r)
{
	scsi_status(r, STATUS_GOOD);
}

void scsi_respond(struct scsi_request *r, uint8_t response)
{
	virtqueue_count_error(r->element->queue);
	end(r, response, 0, NULL, 0);
}

void scsi_sense(struct scsi_request *r, const struct scsi_sense *sense)
{
	bool descriptors = r->lun != NULL && (scsi_lun_mode(r->lun) & MODE_D_SENSE);
	uint8_t data[SENSE_MAX];

	scsi_status_sense(r, STATUS_CHECK_CONDITION, data, sense_write(sense, descriptors, data));
}

void scsi_fail(struct scsi_request *r, uint32_t code)
{
	scsi_sense(r, &(struct scsi_sense){.code = code, .field = SENSE_NO_FIELD});
}

void scsi_fail_cdb(struct scsi_request *r, unsigned byte)
{
	scsi_sense(r,
		&(struct scsi_sense){.code = SENSE_CDB_FIELD, .field = (uint16_t)byte, .field_in_cdb = true});
}

void scsi_fail_data(struct scsi_request *r, unsigned byte)
{
	scsi_sense(r, &(struct scsi_sense){.code = SENSE_PARAMETER_FIELD, .field = (uint16_t)byte});
}

void scsi_io_failed(struct scsi_request *r)
{
	struct scsi_sense sense = {.field = SENSE_NO_FIELD};

	switch (r->io.result) {
	case -ENOSPC:
	case -EDQUOT:
		sense.code = SENSE_NO_SPACE;
		break;
	case -EROFS:
	case -EPERM:
		sense.code = SENSE_WRITE_PROTECTED;
		break;
	case -ENOMEM:
	case -EAGAIN:
		scsi_status(r, STATUS_BUSY);
		return;
	default:
		sense.code = r->io.op == DISK_READ ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
		sense.has_info = r->io.op != DISK_FLUSH;
		sense.info = r->io.offset >> r->lun->shift;
		break;
	}
	scsi_sense(r, &sense);
}

bool scsi_wants_in(struct scsi_request *r, uint64_t len)
{
	if (likely(len <= r->writable))
		return true;
	scsi_respond(r, VIRTIO_SCSI_S_OVERRUN);
	return false;
}

bool scsi_wants_out(struct scsi_request *r, uint64_t len)
{
	if (likely(len <= r->readable))
		return true;
	scsi_respond(r, VIRTIO_SCSI_S_OVERRUN);
	return false;
}

void scsi_reply(struct scsi_request *r, const void *data, size_t len)
{
	cursor_put(&r->element->wr, data, MIN(len, r->alloc));
	scsi_good(r);
}

/* Before a command runs */

/* True: it may run. Else it has ended, or waits. */
static bool usual(struct scsi_request *r, uint32_t state)
{
	struct scsi_lun *l = r->lun;
	unsigned flags = r->op->flags;

	if ((state & STATE_ATTENTION) && !(flags & CMD_ANY_STATE)) {
		uint32_t code = scsi_lun_attention_take(l);

		if (code != SENSE_NONE) {
			scsi_fail(r, code);
			return false;
		}
	}
	if (!(flags & CMD_FREE) &&
		((state & STATE_NO_READS) || ((state & STATE_NO_WRITES) && !(flags & CMD_READ)))) {
		scsi_status(r, STATUS_RESERVATION_CONFLICT);
		return false;
	}
	if ((flags & CMD_MEDIUM) && (state & (STATE_NO_MEDIUM | STATE_STOPPED))) {
		scsi_fail(r, state & STATE_NO_MEDIUM ? SENSE_NO_MEDIUM : SENSE_STOPPED);
		return false;
	}
	if ((flags & CMD_WRITE) && (state & STATE_EXCLUSIVE) && !r->is_exclusive) {
		scsi_park(r);
		return false;
	}
	return true;
}

void scsi_execute(struct scsi_request *r)
{
	struct scsi_lun *l = r->lun;
	uint32_t state = __atomic_load_n(&l->state, __ATOMIC_SEQ_CST);

	if (unlikely(state & STATE_UNUSUAL) && !usual(r, state))
		return;
	if ((r->op->flags & CMD_WRITE) && unlikely(l->read_only || (scsi_lun_mode(l) & MODE_SWP)))
		scsi_fail(r, SENSE_WRITE_PROTECTED);
	else
		r->op->run(r);
}

/* A target is there, but not this unit (SPC-4, 5.14.4 and 6.4.1); or it is the REPORT LUNS unit (SPC-4, 8.3). */
static void execute_nobody(struct scsi_request *r)
{
	switch (r->cdb[0]) {
	case 0x00:
		if (r->well_known)
			scsi_good(r);
		else
			scsi_fail(r, SENSE_NO_UNIT);
		break;
	case 0x12:
		scsi_inquiry_nobody(r);
		break;
	case 0xa0:
		scsi_report_luns(r);
		break;
	case 0x03:
		scsi_request_sense(r);
		break;
	default:
		scsi_fail(r, r->well_known ? SENSE_OPCODE : SENSE_NO_UNIT);
		break;
	}
}

static void dispatch(struct scsi_request *r)
{
	bool known;

	if (unlikely(r->lun == NULL)) {
		execute_nobody(r);
		return;
	}
	if (unlikely(r->lun->sg != NULL)) {
		r->op = scsi_sg_command(r->lun->sg, r->cdb);
		scsi_execute(r);
		return;
	}
	r->op = scsi_command_find(r->cdb, r->lun->type, &known);
	if (unlikely(r->op == NULL)) {
		static const struct scsi_opcode none = {.flags = CMD_FREE};
		uint32_t state = __atomic_load_n(&r->lun->state, __ATOMIC_RELAXED);

		r->op = &none;
		if (usual(r, state)) {
			if (known)
				scsi_fail_cdb(r, 1);
			else
				scsi_fail(r, SENSE_OPCODE);
		}
		return;
	}
	/* no auto contingent allegiance here */
	if (unlikely(r->cdb[scsi_cdb_length(r->cdb[0]) - 1] & 4)) {
		scsi_fail_cdb(r, scsi_cdb_length(r->cdb[0]) - 1);
		return;
	}
	scsi_execute(r);
}

/* Both sizes are 32 bits, aligned. */
static uint32_t *config_field(const struct backend *b, size_t offset)
{
	return (uint32_t *)(void *)(b->config + offset);
}

static uint32_t config_load(const struct backend *b, size_t offset)
{
	return le32toh(__atomic_load_n(config_field(b, offset), __ATOMIC_RELAXED));
}

static struct virtio_scsi_config *config_of(const struct backend *b)
{
	return (struct virtio_scsi_config *)(void *)b->config;
}

/* Who is addressed? False: nobody, and the request has ended. */
static bool find_unit(struct scsi *s, struct scsi_request *r, const uint8_t address[8])
{
	unsigned target, lun;

	if (likely(scsi_address_read(address, &target, &lun))) {
		r->target = (uint8_t)target;
		r->unit = (uint16_t)lun;
		r->lun = scsi_lun_find(s, target, lun);
		if (likely(r->lun != NULL))
			return true;
		if (scsi_target_exists(s, target))
			return true;
	} else if (is_report_luns_unit(address)) {
		r->well_known = true;
		return true;
	}
	scsi_respond(r, VIRTIO_SCSI_S_BAD_TARGET);
	return false;
}

/* Header and CDB. False: there are none. */
static bool header_read(struct scsi_request *r)
{
	struct cursor *rd = &r->element->rd;
	struct virtio_scsi_cmd_req *h = &r->head;
	uint32_t len = r->cdb_size;

	if (likely(len == SCSI_CDB))
		return cursor_get(rd, h, HEADER + SCSI_CDB);
	cursor_get(rd, h, HEADER);
	memset(h->cdb, 0, sizeof(h->cdb));
	cursor_get(rd, h->cdb, MIN(len, SCSI_CDB));
	return len <= SCSI_CDB ? !rd->bad : cursor_skip(rd, len - SCSI_CDB);
}

static void receive(struct scsi_queue *q, struct element *e)
{
	struct backend *b = q->scsi->b;
	struct scsi_request *r = e->req;

	r->element = e;
	r->queue = q;
	r->seq = ++q->seq;
	r->sense_size = config_load(b, SENSE_SIZE);
	r->cdb_size = config_load(b, CDB_SIZE);
	if (unlikely(!cursor_split(&e->wr, SCSI_RESPONSE + r->sense_size, &r->resp))) {
		log_guest_warn("queue %u: a request without room for the response", q->index);
		virtqueue_push(e);
		return;
	}
	r->writable = (uint32_t)MIN(e->wr.left, UINT32_MAX);
	if (unlikely(!header_read(r) || e->fault)) {
		r->readable = 0;
		scsi_respond(r, VIRTIO_SCSI_S_FAILURE);
		return;
	}
	r->readable = (uint32_t)MIN(e->rd.left, UINT32_MAX);
	if (unlikely(r->readable > 0 && r->writable > 0 && !backend_has(b, VIRTIO_SCSI_F_INOUT))) {
		scsi_respond(r, VIRTIO_SCSI_S_FAILURE);
		return;
	}
	if (likely(find_unit(q->scsi, r, r->head.lun)))
		dispatch(r);
}

static void request_ready(struct backend *b, struct virtqueue *vq)
{
	struct scsi_queue *q = &scsi_of(b)->queues[virtqueue_index(vq)];
	struct element *e;

	while ((e = virtqueue_pop(vq)) != NULL)
		receive(q, e);
}

/* Life */

static void smallest_limit(struct scsi_lun *l, void *arg)
{
	uint32_t *sectors = arg;

	if (l->sg != NULL)
		*sectors = MIN(*sectors, scsi_sg_limit(l->sg) / 512);
}

static void describe(struct backend *b)
{
	uint32_t sectors = SCSI_SECTORS;

	scsi_lun_each(scsi_of(b), -1, smallest_limit, &sectors);
	*config_of(b) = (struct virtio_scsi_config){
		.num_queues = htole32(scsi_of(b)->num_queues),
		.seg_max = htole32(MAX_SEGMENTS),
		.max_sectors = htole32(sectors),
		.cmd_per_lun = htole32(CMD_PER_LUN),
		.event_info_size = htole32(sizeof(struct virtio_scsi_event)),
		.sense_size = htole32(SCSI_SENSE_SIZE),
		.cdb_size = htole32(SCSI_CDB),
		.max_target = htole16(SCSI_MAX_TARGET),
		.max_lun = htole32(SCSI_MAX_LUN),
	};
}

static int open_units(struct scsi *s)
{
	bool simple = s->options.path != NULL || s->options.nbd != NULL || s->options.null_size != 0;
	char why[160];
	int r = 0;

	if (!simple && s->nluns == 0)
		return log_errno(EINVAL, "--lun, --blk-file, --nbd or --null is needed");
	if (simple)
		r = scsi_lun_add_options(s, &s->options);
	for (unsigned i = 0; r == 0 && i < s->nluns; i++) {
		r = scsi_lun_add(s, s->luns[i], why, sizeof(why));
		if (r < 0)
			log_error("--lun=%s: %s", s->luns[i], why);
	}
	if (r < 0)
		scsi_lun_close_all(s);
	return r;
}

static int scsi_open(struct backend *b)
{
	struct scsi *s = scsi_of(b);
	int r;

	if (s->initiator[0] == '\0' || strlen(s->initiator) >= PR_NAME)
		return log_errno(EINVAL, "--initiator=%s: not 1 to %u bytes", s->initiator, PR_NAME - 1);
	s->b = b;
	pthread_mutex_init(&s->lock, NULL);
	r = open_units(s);
	if (r < 0)
		return r;
	describe(b);
	b->num_queues = SCSI_FIRST + s->num_queues;
	b->queue_num = s->num_queues;
	b->threads = s->threads;
	return 0;
}

static void scsi_close(struct backend *b)
{
	scsi_tmf_close(scsi_of(b));
	scsi_lun_close_all(scsi_of(b));
}

/* A guest that migrated: what was reserved elsewhere meanwhile. */
static void refresh(struct scsi_lun *l, void *arg)
{
	(void)arg;
	if (!l->pr_shared)
		return;
	pr_file_refresh(l->pr_fd, &l->pr);
	scsi_pr_apply(l);
}

static int scsi_start(struct backend *b, struct virtqueue *vq)
{
	struct scsi *s = scsi_of(b);
	unsigned index = virtqueue_index(vq);
	struct scsi_queue *q = &s->queues[index];

	pthread_mutex_lock(&s->lock);
	if (s->running++ == 0)
		scsi_lun_each(s, -1, refresh, NULL);
	q->scsi = s;
	q->vq = vq;
	q->loop = virtqueue_loop(vq);
	q->index = index;
	q->thread = b->threads > 0 ? index % b->threads : 0;
	q->poke.run = scsi_poke;
	q->again.run = scsi_poke_again;
	q->report.run = scsi_sweep_report;
	if (!q->used)
		q->parked_tail = &q->parked;
	q->used = true;
	if (index == 1) {
		s->events.open = true;
		if (!virtqueue_continues(vq) && !s->events.loaded) {
			s->events.n = 0;
			s->events.missed = false;
		}
		s->events.loaded = false;
	}
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void scsi_stop(struct backend *b, struct virtqueue *vq)
{
	struct scsi *s = scsi_of(b);

	s->queues[virtqueue_index(vq)].vq = NULL;
	scsi_withdraw(&s->queues[virtqueue_index(vq)], true);
	pthread_mutex_lock(&s->lock);
	s->running--;
	if (virtqueue_index(vq) == 1)
		s->events.open = false;
	pthread_mutex_unlock(&s->lock);
}

static void reset_unit(struct scsi_lun *l, void *arg)
{
	(void)arg;
	scsi_lun_reset(l, ATTENTION_POWER_ON);
}

static void scsi_reset(struct backend *b)
{
	describe(b);
	scsi_lun_each(scsi_of(b), -1, reset_unit, NULL);
}

bool scsi_sizes_valid(uint32_t sense_size, uint32_t cdb_size)
{
	sense_size = le32toh(sense_size);
	cdb_size = le32toh(cdb_size);
	return sense_size <= MAX_SENSE && cdb_size >= MIN_CDB && cdb_size <= MAX_CDB;
}

static void config_apply(struct backend *b, size_t at, size_t off, const uint8_t *data, size_t len,
	uint32_t min, uint32_t max, const char *name)
{
	uint32_t v = *config_field(b, at);
	bool changed = false;

	for (size_t i = 0; i < sizeof(v); i++) {
		if (at + i < off || at + i - off >= len)
			continue;
		((uint8_t *)&v)[i] = data[at + i - off];
		changed = true;
	}
	if (!changed)
		return;
	if (le32toh(v) < min || le32toh(v) > max)
		log_guest_warn("%s of %u bytes: not between %u and %u, ignored", name, le32toh(v), min, max);
	else
		__atomic_store_n(config_field(b, at), v, __ATOMIC_RELAXED);
}

/* Only these two can be written (virtio 1.3, 5.6.4.1). */
static void scsi_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	config_apply(b, SENSE_SIZE, off, data, len, 0, MAX_SENSE, "sense_size");
	config_apply(b, CDB_SIZE, off, data, len, MIN_CDB, MAX_CDB, "cdb_size");
}

static const struct queue_spec scsi_queues[] = {
	{.name = "control", .ready = scsi_control_ready},
	{.name = "event", .ready = scsi_event_ready},
	{.name = "request",
		.ready = request_ready,
		.req_size = sizeof(struct scsi_request),
		.req_zero = SCSI_REQUEST_ZERO},
};

static const struct feature_name scsi_features[] = {
	{VIRTIO_SCSI_F_INOUT, "inout"},
	{VIRTIO_SCSI_F_HOTPLUG, "hotplug"},
	{VIRTIO_SCSI_F_CHANGE, "change"},
	{0, NULL},
};

const struct device device_scsi = {
	.name = "scsi",
	.summary = "SCSI host adapter with any number of disks and CD-ROMs",
	.virtio_id = VIRTIO_ID_SCSI,
	.features = BIT(VIRTIO_SCSI_F_INOUT) | BIT(VIRTIO_SCSI_F_HOTPLUG) | BIT(VIRTIO_SCSI_F_CHANGE),
	.feature_names = scsi_features,
	.state_size = sizeof(struct scsi),
	.config_size = sizeof(struct virtio_scsi_config),
	.options = scsi_options,
	.commands = scsi_commands,
	.queues = scsi_queues,
	.nqueues = ARRAY_SIZE(scsi_queues),
	.repeat = 1,
	.max_queues = SCSI_QUEUES,
	.queue_threads = true,
	.open = scsi_open,
	.close = scsi_close,
	.start = scsi_start,
	.stop = scsi_stop,
	.reset = scsi_reset,
	.config_write = scsi_config_write,
	.save = scsi_state_save,
	.load = scsi_state_load,
};
