/* SPDX-License-Identifier: MIT */
#include "scsi-driver.h"

#include <fcntl.h>

struct fe fe;
struct fe_queue *ctl, *ev, *rq;
char image[160];

void image_new(void)
{
	int fd;

	snprintf(image, sizeof(image), "%s/disk.img", fe_tmpdir());
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, BLOCKS * 512));
	close(fd);
}

void image_is(off_t at, const void *want, size_t len)
{
	int fd = open(image, O_RDONLY | O_CLOEXEC);
	uint8_t *got = malloc(len);

	CHECK_EQ(pread(fd, got, len, at), len);
	CHECK_MEM(got, want, len);
	free(got);
	close(fd);
}

void image_write(off_t at, const void *data, size_t len)
{
	int fd = open(image, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, data, len, at), len);
	close(fd);
}

const char *lun_option(const char *where, const char *more)
{
	static char option[4][256];
	static unsigned next;
	char *o = option[next++ % 4];

	snprintf(o, sizeof(option[0]), "--lun=%s,%s", where, more);
	return o;
}

void pattern(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)((i * 7 + i / 512 * 13 + seed * 31) >> (i & 1));
}

void *guest(size_t len)
{
	return fe_alloc(&fe, len, 512, NULL);
}

void begin(const struct fe_mode *m, const char *const *args)
{
	fe_start(&fe, m, args);
	ctl = fe_queue_up(&fe, 0, 16);
	ev = fe_queue_up(&fe, 1, 16);
	rq = fe_queue_up(&fe, 2, 128);
	calm(0, 0);
}

void begin_image(const struct fe_mode *m, const char *more)
{
	char rest[224];

	image_new();
	snprintf(rest, sizeof(rest), "file=%s%s%s", image, more[0] ? "," : "", more);
	begin(m, FE_ARGS("scsi", lun_option("0:0", rest)));
}

void address(uint8_t lun[8], unsigned target, unsigned unit)
{
	memset(lun, 0, 8);
	if (target == NO_ADDRESS) {
		lun[0] = 0xc1;
		lun[1] = 0x01;
		return;
	}
	lun[0] = 1;
	lun[1] = (uint8_t)target;
	lun[2] = (uint8_t)(0x40 | unit >> 8);
	lun[3] = (uint8_t)unit;
}

static unsigned length_of(uint8_t op)
{
	return op < 0x20 ? 6 : op < 0x60 ? 10 : op >= 0xa0 ? 12 : 16;
}

struct command *issue(struct fe_queue *q, unsigned target, unsigned unit, const uint8_t *cdb, const void *out,
	uint32_t out_len, void *in, uint32_t in_len, uint64_t tag)
{
	static struct command commands[1024]; /* more than ever are on their way */
	static unsigned next;
	struct command *c = &commands[next++ % ARRAY_SIZE(commands)];

	*c = (struct command){0};
	c->req = fe_alloc(&fe, sizeof(*c->req), 1, NULL);
	c->resp = fe_alloc(&fe, sizeof(*c->resp), 1, NULL);
	memset(c->resp, NOT_SEEN, sizeof(*c->resp));
	address(c->req->lun, target, unit);
	c->req->tag = tag;
	memcpy(c->req->cdb, cdb, length_of(cdb[0]));
	c->bufs[c->n++] = fe_rd(&fe, c->req, sizeof(*c->req));
	if (out_len > 0)
		c->bufs[c->n++] = fe_rd(&fe, out, out_len);
	c->bufs[c->n++] = fe_wr(&fe, c->resp, sizeof(*c->resp));
	if (in_len > 0)
		c->bufs[c->n++] = fe_wr(&fe, in, in_len);
	fe_submit(q, c->bufs, c->n, c);
	return c;
}

struct answer answer_of(const struct command *c, uint32_t used)
{
	const struct virtio_scsi_cmd_resp *r = c->resp;
	struct answer a = {.response = r->response,
		.status = r->status,
		.resid = r->resid,
		.used = used,
		.sense_len = r->sense_len};

	CHECK(r->sense_len <= sizeof(a.raw));
	memcpy(a.raw, r->sense, sizeof(a.raw));
	if (r->sense_len >= 14 && (r->sense[0] & 0x7f) == 0x70)
		a.sense = SENSE(r->sense[2], r->sense[12], r->sense[13]);
	else if (r->sense_len >= 8 && r->sense[0] == 0x72)
		a.sense = SENSE(r->sense[1], r->sense[2], r->sense[3]);
	return a;
}

struct answer ask_unit(unsigned target, unsigned unit, const uint8_t *cdb, const void *out, uint32_t out_len,
	void *in, uint32_t in_len)
{
	struct command *c = issue(rq, target, unit, cdb, out, out_len, in, in_len, 77);
	struct answer a;
	void *cookie;
	uint32_t used;

	fe_flush(rq);
	used = fe_wait(rq, &cookie);
	CHECK(cookie == c);
	a = answer_of(c, used);
	return a;
}

struct answer ask(const uint8_t *cdb, const void *out, uint32_t out_len, void *in, uint32_t in_len)
{
	return ask_unit(0, 0, cdb, out, out_len, in, in_len);
}

void is_good(struct answer a)
{
	CHECK_EQ(a.response, VIRTIO_SCSI_S_OK);
	CHECK_EQ(a.sense, 0);
	CHECK_EQ(a.status, 0);
	CHECK_EQ(a.sense_len, 0);
}

void is_sense(struct answer a, uint32_t sense)
{
	CHECK_EQ(a.response, VIRTIO_SCSI_S_OK);
	CHECK_EQ(a.status, 2);
	CHECK_EQ(a.sense, sense);
}

void is_response(struct answer a, uint8_t response)
{
	CHECK_EQ(a.response, response);
	CHECK_EQ(a.status, 0);
	CHECK_EQ(a.sense_len, 0);
}

void calm(unsigned target, unsigned unit)
{
	for (int i = 0; i < 10; i++) {
		struct answer a = ask_unit(target, unit, CDB(0), NULL, 0, NULL, 0);

		if (a.response != VIRTIO_SCSI_S_OK || a.status != 2 || a.sense >> 16 != 6)
			return;
	}
	FAIL("unit attentions without end");
}

uint8_t tmf(uint32_t subtype, unsigned target, unsigned unit, uint64_t tag)
{
	struct virtio_scsi_ctrl_tmf_req *req = fe_alloc(&fe, sizeof(*req), 1, NULL);
	uint8_t *resp = fe_alloc(&fe, 1, 1, NULL);

	*resp = NOT_SEEN;
	req->type = VIRTIO_SCSI_T_TMF;
	req->subtype = subtype;
	address(req->lun, target, unit);
	req->tag = tag;
	CHECK_EQ(fe_transact(ctl,
			 (struct vring_driver_buf[]){fe_rd(&fe, req, sizeof(*req)), fe_wr(&fe, resp, 1)}, 2),
		1);
	return *resp;
}
