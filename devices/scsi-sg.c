/* SPDX-License-Identifier: MIT */
/*
 * Pass-through: a unit that is a real SCSI device of the host, by SG_IO on /dev/sgN or on its block device.
 *
 * The kernel has no way to submit that and not wait which outlives a change of privileges (sg's write() refuses then) or
 * that block devices have too, so each unit has a pool of threads that wait, as many as sg takes commands of one file.
 * The data goes between the guest's buffers and the kernel, which the device's driver may map as they are.
 *
 * CDB, sense data, status and residual are the device's. Of commands, only REPORT LUNS is answered here, for the guest's
 * target has other units; and those are refused that reach beyond the unit: to other devices, to the firmware, to paths
 * and locks that all initiators share. What VPD B0h says of lengths is cut to what the kernel can transfer.
 *
 * There is no way to abort one command that has begun. A signal lets SG_IO of sg return, but the kernel goes on with the command,
 * and with what it has mapped of the guest's memory; SG_IO of a block device does not even do that; nor does closing the file.
 * So it ends when the device ends it, or by its time limit, when the kernel's error handling takes it back. What can be had
 * is a reset of the unit (SG_SCSI_RESET, for the privileged), which ends all that it has begun with; a guest comes to that when
 * aborting takes it too long. A command that still waits for a thread is not begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "scsi.h"

#define THREADS	      16u /* SG_MAX_QUEUE: an open file of sg takes no more */
#define MAX_IOVECS    1024u
#define AT_TAIL	      0x10u /* SG_FLAG_Q_AT_TAIL */
#define OPEN_TIMEOUT  5000u /* ms; the control loop waits */
#define DEFAULT_LIMIT (128u * 1024)
#define LARGEST_BLOCK 4096u
#define NO_ESCALATE   0x100 /* SG_SCSI_RESET_NO_ESCALATE, which not all headers have: nothing more than that */
#define VPD_LIMITS    0xb0
#define LIMITS_END    16u /* bytes of that page up to the optimal transfer length */

struct scsi_sg {
	int fd;
	int other; /* opened once more: all THREADS places of fd may be taken */
	struct pool *pool;
	uint32_t limit;	  /* bytes in a transfer */
	uint32_t block;	  /* bytes, to express the limit in */
	uint32_t timeout; /* ms */
	uint8_t type;	  /* as in INQUIRY */
	bool all;	  /* nothing is refused */
};

/* Opening */

/* For our own few questions: 0, or -errno; -EAGAIN: the device did not say GOOD. */
static int ask(const struct scsi_sg *g, const uint8_t *cdb, uint8_t len, void *data, unsigned size)
{
	uint8_t sense[32];
	struct sg_io_hdr h = {.interface_id = 'S',
		.dxfer_direction = SG_DXFER_FROM_DEV,
		.cmd_len = len,
		.mx_sb_len = sizeof(sense),
		.dxfer_len = size,
		.dxferp = data,
		.cmdp = (unsigned char *)cdb,
		.sbp = sense,
		.timeout = OPEN_TIMEOUT};

	memset(data, 0, size);
	if (ioctl(g->fd, SG_IO, &h) < 0)
		return -errno;
	return h.status == STATUS_GOOD && h.host_status == 0 ? 0 : -EAGAIN;
}

/* A medium may be missing: then the limit is counted in large blocks. */
static void find_block(struct scsi_sg *g)
{
	static const uint8_t cdb[10] = {0x25};
	uint8_t data[8];
	uint32_t block;

	g->block = LARGEST_BLOCK;
	/* unit attentions are the first that it says */
	for (unsigned i = 0; i < 4; i++) {
		if (ask(g, cdb, sizeof(cdb), data, sizeof(data)) < 0)
			continue;
		block = get_be32(data + 4);
		if (block >= 512 && block <= LARGEST_BLOCK)
			g->block = block;
		return;
	}
}

static int segments_of(int fd, const struct stat *st)
{
	FILE *f;
	char path[64];
	int n = 0;

	if (!S_ISBLK(st->st_mode))
		return ioctl(fd, SG_GET_SG_TABLESIZE, &n) == 0 ? n : 0;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/max_segments", major(st->st_rdev),
		minor(st->st_rdev));
	f = fopen(path, "re");
	if (f == NULL)
		return 0;
	if (fscanf(f, "%d", &n) != 1)
		n = 0;
	fclose(f);
	return n;
}

static uint32_t limit_of(int fd, const struct stat *st)
{
	unsigned short sectors = 0;
	int bytes = 0, segments = segments_of(fd, st);
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE), limit;

	if (S_ISBLK(st->st_mode))
		limit = ioctl(fd, BLKSECTGET, &sectors) == 0 ? sectors * 512u : 0;
	else
		limit = ioctl(fd, BLKSECTGET, &bytes) == 0 && bytes > 0 ? (uint32_t)bytes : 0;
	if (limit < page)
		limit = DEFAULT_LIMIT;
	/* each page of the guest may be a segment of its own */
	return segments > 0 ? MIN(limit, (uint32_t)MIN(segments, 65536) * page) : limit;
}

static int inquire(struct scsi_sg *g, const char **what)
{
	static const uint8_t cdb[6] = {0x12, 0, 0, 0, 36};
	uint8_t data[36];
	int version, r;

	*what = "not a SCSI device";
	if (ioctl(g->fd, SG_GET_VERSION_NUM, &version) < 0 || version < 30000)
		return -ENODEV;
	*what = "INQUIRY";
	r = ask(g, cdb, sizeof(cdb), data, sizeof(data));
	if (r < 0)
		return r;
	*what = "no unit is there";
	if (data[0] >> 5 != 0)
		return -ENODEV;
	g->type = data[0] & 0x1f;
	return 0;
}

/* Without waiting for a medium. What is read-only by itself, a CD-ROM, is opened so. */
static int node_open(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	if (fd < 0 && errno == EROFS)
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

static int setup(struct scsi_sg *g, const char *path, const char **what)
{
	struct stat st;
	int r;

	g->fd = node_open(path);
	*what = "open";
	if (g->fd < 0)
		return g->fd;
	g->other = node_open(path);
	if (g->other < 0)
		return g->other;
	*what = "not a device";
	if (fstat(g->fd, &st) < 0 || !(S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)))
		return -ENODEV;
	r = inquire(g, what);
	if (r < 0)
		return r;
	g->limit = limit_of(g->fd, &st);
	find_block(g);
	*what = "threads";
	return pool_new(&g->pool, THREADS, "scsi-sg");
}

int scsi_sg_open(struct scsi_sg **out, const char *path, uint32_t timeout, bool all, const char **what)
{
	struct scsi_sg *g = calloc(1, sizeof(*g));
	int r;

	*what = "memory";
	if (g == NULL)
		return -ENOMEM;
	g->fd = g->other = -1;
	g->timeout = timeout;
	g->all = all;
	r = setup(g, path, what);
	if (r < 0) {
		scsi_sg_close(g);
		return r;
	}
	*out = g;
	return 0;
}

void scsi_sg_close(struct scsi_sg *g)
{
	if (g == NULL)
		return;
	if (g->pool != NULL)
		pool_free(g->pool);
	fd_close(&g->fd);
	fd_close(&g->other);
	free(g);
}

uint32_t scsi_sg_limit(const struct scsi_sg *g)
{
	return g->limit;
}

uint8_t scsi_sg_type(const struct scsi_sg *g)
{
	return g->type;
}

/* Ends */

/* What the host adapter's driver says (DID_*): others are errors of the target. */
static const uint8_t host_responses[] = {
	[0x01] = VIRTIO_SCSI_S_BAD_TARGET, /* no connection */
	[0x02] = VIRTIO_SCSI_S_BUSY,
	[0x03] = VIRTIO_SCSI_S_ABORTED, /* time is up */
	[0x04] = VIRTIO_SCSI_S_BAD_TARGET,
	[0x05] = VIRTIO_SCSI_S_ABORTED,
	[0x08] = VIRTIO_SCSI_S_RESET,
	[0x0b] = VIRTIO_SCSI_S_BUSY, /* soft error: again */
	[0x0c] = VIRTIO_SCSI_S_BUSY, /* at once */
	[0x0d] = VIRTIO_SCSI_S_BUSY, /* later */
	[0x0e] = VIRTIO_SCSI_S_TRANSPORT_FAILURE,
	[0x0f] = VIRTIO_SCSI_S_TRANSPORT_FAILURE, /* fail fast */
	[0x10] = VIRTIO_SCSI_S_TARGET_FAILURE,
	[0x11] = VIRTIO_SCSI_S_NEXUS_FAILURE, /* reservation */
	[0x14] = VIRTIO_SCSI_S_TRANSPORT_FAILURE,
};

static void host_failed(struct scsi_request *r, unsigned status)
{
	uint8_t response = status < ARRAY_SIZE(host_responses) ? host_responses[status] : 0;

	scsi_respond(r, response != 0 ? response : VIRTIO_SCSI_S_FAILURE);
}

/* SG_IO itself refused. */
static void refused(struct scsi_request *r, int error)
{
	log_guest_warn("unit %u:%u: command %02xh: %s", r->target, r->unit, r->cdb[0], strerror(error));
	switch (error) {
	case EPERM:
	case EACCES:
		scsi_fail(r, SENSE_OPCODE);
		break;
	case EINVAL:
	case EIO:
	case EMSGSIZE:
		scsi_fail(r, SENSE_CDB_FIELD);
		break;
	case ENOMEM:
	case EAGAIN:
	case EBUSY:
	case EDOM:
		scsi_status(r, STATUS_BUSY);
		break;
	case ENODEV:
	case ENXIO:
		scsi_respond(r, VIRTIO_SCSI_S_BAD_TARGET);
		break;
	default:
		scsi_respond(r, VIRTIO_SCSI_S_FAILURE);
		break;
	}
}

static void cut(struct cursor *at, uint32_t limit, bool zero_is_none)
{
	struct cursor to = *at;
	uint8_t field[4];

	cursor_get(at, field, sizeof(field));
	if (get_be32(field) > limit || (zero_is_none && get_be32(field) == 0)) {
		put_be32(field, limit);
		cursor_put(&to, field, sizeof(field));
	}
}

/* The page of limits that lies in the guest's buffer: the most and the best length of a transfer (SBC-3, 6.6.3). */
static void cut_limits(struct scsi_request *r, uint32_t moved)
{
	const struct scsi_sg *g = r->lun->sg;
	uint32_t limit = g->limit / g->block;
	struct cursor at = r->element->wr;

	if (r->cdb[0] != 0x12 || !(r->cdb[1] & 1) || r->cdb[2] != VPD_LIMITS || moved < LIMITS_END ||
		r->passed.hdr.status != STATUS_GOOD)
		return;
	at.up = NULL;
	cursor_skip(&at, 8);
	cut(&at, limit, true);
	cut(&at, limit, false);
}

static uint32_t moved_of(const struct sg_io_hdr *h)
{
	if (h->resid <= 0)
		return h->dxfer_len;
	return h->dxfer_len - MIN((uint32_t)h->resid, h->dxfer_len);
}

static void finish(struct scsi_request *r)
{
	const struct sg_io_hdr *h = &r->passed.hdr;
	uint32_t moved = moved_of(h);

	if (r->abort != 0) {
		scsi_respond(r, r->abort);
		return;
	}
	if (r->passed.error != 0) {
		refused(r, r->passed.error);
		return;
	}
	if (h->dxfer_direction == SG_DXFER_FROM_DEV) {
		cut_limits(r, moved);
		cursor_skip(&r->element->wr, moved);
	} else if (h->dxfer_direction == SG_DXFER_TO_DEV) {
		cursor_skip(&r->element->rd, moved);
	}
	if (h->host_status != 0)
		host_failed(r, h->host_status);
	else
		scsi_status_sense(r, h->status, r->passed.sense, h->sb_len_wr);
}

/* Passing */

static void passed_run(struct job *j)
{
	struct scsi_request *r = container_of(j, struct scsi_request, passed.job);
	const struct sg_io_hdr *h = &r->passed.hdr;

	if (__atomic_load_n(&r->passed.cancelled, __ATOMIC_RELAXED)) {
		r->passed.error = ECANCELED;
		return;
	}
	if (ioctl(r->lun->sg->fd, SG_IO, &r->passed.hdr) == 0)
		return;
	r->passed.error = errno;
	if (errno == EFAULT)
		cursor_touch(h->dxferp, h->iovec_count);
}

static void passed_done(struct job *j)
{
	struct scsi_request *r = container_of(j, struct scsi_request, passed.job);
	struct scsi_queue *q = r->queue;

	scsi_unlink(r);
	if (r->passed.error == ECANCELED && r->abort == 0)
		scsi_give_back(r);
	else
		finish(r);
	if (unlikely(__atomic_load_n(&q->scsi->sweeps, __ATOMIC_RELAXED) != NULL))
		scsi_sweep_note(q);
}

void scsi_sg_withdraw(struct scsi_queue *q, bool stops)
{
	for (struct scsi_request *r = q->inflight; r != NULL; r = r->next)
		if (r->lun->sg != NULL && (stops || r->abort != 0))
			__atomic_store_n(&r->passed.cancelled, true, __ATOMIC_RELAXED);
}

int scsi_sg_dup(const struct scsi_sg *g)
{
	int fd = fcntl(g->other, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

int scsi_sg_reset(int fd)
{
	static const uint8_t test_unit_ready[6];
	const struct scsi_sg g = {.fd = fd};
	int what = SG_SCSI_RESET_DEVICE | NO_ESCALATE;
	uint8_t none;

	if (ioctl(fd, SG_SCSI_RESET, &what) < 0)
		return -errno;
	/* the guest is told by a unit attention of ours: not by the device's as well */
	ask(&g, test_unit_ready, sizeof(test_unit_ready), &none, 0);
	return 0;
}

/* The kernel's view of the buffer. False: the request has ended. */
static bool set_data(struct scsi_request *r, struct cursor *data)
{
	struct sg_io_hdr *h = &r->passed.hdr;
	const struct iovec *v;
	unsigned n;

	if (data->left > r->lun->sg->limit) {
		scsi_fail(r, SENSE_CDB_FIELD);
		return false;
	}
	v = cursor_whole(data, &n);
	if (v == NULL) {
		n = data->n;
		r->scratch = malloc(n * sizeof(*v));
		if (r->scratch == NULL) {
			scsi_status(r, STATUS_BUSY);
			return false;
		}
		n = cursor_iovec(data, data->left, r->scratch, n);
		v = r->scratch;
	}
	if (n > MAX_IOVECS) {
		scsi_respond(r, VIRTIO_SCSI_S_FAILURE);
		return false;
	}
	h->dxferp = (void *)v;
	h->iovec_count = (unsigned short)n;
	h->dxfer_len = (unsigned)data->left;
	return true;
}

static unsigned length_of(const uint8_t *cdb)
{
	return cdb[0] == 0x7f ? 8u + cdb[7] : scsi_cdb_length(cdb[0]);
}

static void pass(struct scsi_request *r)
{
	struct element *e = r->element;
	struct sg_io_hdr *h = &r->passed.hdr;

	if (r->readable > 0 && r->writable > 0) {
		scsi_respond(r, VIRTIO_SCSI_S_FAILURE); /* there is no such thing in SG_IO */
		return;
	}
	*h = (struct sg_io_hdr){.interface_id = 'S',
		.dxfer_direction = r->writable > 0   ? SG_DXFER_FROM_DEV
				   : r->readable > 0 ? SG_DXFER_TO_DEV
						     : SG_DXFER_NONE,
		.cmd_len = (unsigned char)length_of(r->cdb),
		.mx_sb_len = sizeof(r->passed.sense),
		.cmdp = r->cdb,
		.sbp = r->passed.sense,
		.timeout = r->lun->sg->timeout,
		.flags = AT_TAIL};
	if (h->dxfer_direction != SG_DXFER_NONE && !set_data(r, r->writable > 0 ? &e->wr : &e->rd))
		return;
	r->passed.error = 0;
	r->passed.cancelled = false;
	r->passed.job = (struct job){.run = passed_run, .done = passed_done, .loop = r->queue->loop};
	scsi_link(r);
	pool_submit(r->lun->sg->pool, &r->passed.job);
}

/* What is not passed */

enum { UNIT_OFFLINE = 1, DEVICE_OFFLINE = 2, BUFFER_DATA = 2, BUFFER_ECHO = 10, TYPE_CDROM = 5 };

static void sense(struct scsi_request *r)
{
	/* ours come first */
	if (__atomic_load_n(&r->lun->attention, __ATOMIC_SEQ_CST) != 0)
		scsi_request_sense(r);
	else
		pass(r);
}

static void refuse(struct scsi_request *r)
{
	scsi_fail(r, SENSE_OPCODE);
}

static void refuse_length(struct scsi_request *r)
{
	scsi_fail_cdb(r, 7);
}

static bool reaches_beyond(const uint8_t *cdb, uint8_t type)
{
	switch (cdb[0]) {
	case 0x18: /* COPY, COMPARE, EXTENDED COPY: other units */
	case 0x39:
	case 0x3a:
	case 0x83:
	case 0x84:
	case 0x40: /* CHANGE DEFINITION */
	case 0x85: /* ATA PASS-THROUGH: anything */
	case 0xb5: /* SECURITY PROTOCOL OUT: passwords, bands */
		return true;
	case 0xa1: /* ATA PASS-THROUGH, paths and names; of a CD-ROM: BLANK, REPORT KEY */
	case 0xa4:
		return type != TYPE_CDROM;
	case 0x1d: /* SEND DIAGNOSTIC */
		return cdb[1] & (UNIT_OFFLINE | DEVICE_OFFLINE);
	case 0x3b: /* WRITE BUFFER: the firmware */
		return (cdb[1] & 0x1f) != BUFFER_DATA && (cdb[1] & 0x1f) != BUFFER_ECHO;
	default:
		return cdb[0] >= 0xc0; /* vendor's own */
	}
}

const struct scsi_opcode *scsi_sg_command(const struct scsi_sg *g, const uint8_t *cdb)
{
	static const struct scsi_opcode passed = {.flags = CMD_FREE, .run = pass},
					at_any_time = {.flags = CMD_FREE | CMD_ANY_STATE, .run = pass},
					asks_sense = {.flags = CMD_FREE | CMD_ANY_STATE, .run = sense},
					luns = {.flags = CMD_FREE | CMD_ANY_STATE, .run = scsi_report_luns},
					refused_op = {.flags = CMD_FREE, .run = refuse},
					too_long = {.flags = CMD_FREE, .run = refuse_length};

	if (cdb[0] == 0xa0)
		return &luns;
	if (!g->all && reaches_beyond(cdb, g->type))
		return &refused_op;
	if (length_of(cdb) > SCSI_CDB)
		return &too_long;
	if (cdb[0] == 0x03)
		return &asks_sense;
	return cdb[0] == 0x12 ? &at_any_time : &passed;
}
