/* SPDX-License-Identifier: MIT */
/*
 * What a unit says about itself: INQUIRY with its vital product data (SPC-4, 6.4 and 7.8; SBC-3, 6.6), REQUEST SENSE, and
 * the simple answers.
 */
#include "scsi.h"

#define VENDOR	   "VHOSTUSR"
#define REVISION   "1.0 "
#define NOBODY	   0x7f /* qualifier 3, type 1fh */
#define WELL_KNOWN 0x1e
#define VPD_MAX	   256

void scsi_test_unit_ready(struct scsi_request *r)
{
	scsi_good(r);
}

void scsi_send_diagnostic(struct scsi_request *r)
{
	/* the default self-test, which passes */
	if (get_be16(r->cdb + 3) != 0 || (r->cdb[1] & 0xe0) != 0)
		scsi_fail_cdb(r, 1);
	else
		scsi_good(r);
}

void scsi_request_sense(struct scsi_request *r)
{
	struct scsi_sense sense = {.field = SENSE_NO_FIELD};
	uint8_t out[SENSE_MAX];
	size_t len;

	r->alloc = r->cdb[4];
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (r->lun == NULL)
		sense.code = r->well_known ? SENSE_NONE : SENSE_NO_UNIT;
	else
		sense.code = scsi_lun_attention_take(r->lun);
	if (r->lun != NULL && sense.code == SENSE_NONE) {
		uint32_t state = __atomic_load_n(&r->lun->state, __ATOMIC_RELAXED);

		if (state & STATE_NO_MEDIUM)
			sense.code = SENSE_NO_MEDIUM;
		else if (state & STATE_STOPPED)
			sense.code = SENSE_STOPPED;
	}
	len = sense_write(&sense, r->cdb[1] & 1, out);
	scsi_reply(r, out, len);
}

/* Standard data */

/* text, filled up with spaces */
static void put_text(uint8_t *p, size_t size, const char *text)
{
	size_t len = strlen(text);

	memset(p, ' ', size);
	memcpy(p, text, MIN(len, size));
}

static void standard(struct scsi_request *r)
{
	static const uint16_t disk_versions[] = {0x00a0, 0x0460, 0x04c0};  /* SAM-5, SPC-4, SBC-3 */
	static const uint16_t cdrom_versions[] = {0x00a0, 0x0460, 0x0420}; /* SAM-5, SPC-4, MMC-6 */
	const struct scsi_lun *l = r->lun;
	const uint16_t *versions = l->type == SCSI_CDROM ? cdrom_versions : disk_versions;
	uint8_t out[96] = {0};

	out[0] = (uint8_t)l->type;
	out[1] = l->removable ? 0x80 : 0;
	out[2] = 6;    /* SPC-4 */
	out[3] = 0x12; /* HISUP, response data format 2 */
	out[4] = sizeof(out) - 5;
	out[7] = 0x02; /* CMDQUE */
	put_text(out + 8, 8, VENDOR);
	put_text(out + 16, 16, l->type == SCSI_CDROM ? "CD-ROM" : "DISK");
	put_text(out + 32, 4, REVISION);
	for (unsigned i = 0; i < 3; i++)
		put_be16(out + 58 + 2 * i, versions[i]);
	scsi_reply(r, out, sizeof(out));
}

/* Vital product data: each writes behind the 4 bytes of the header and returns how much */

static size_t vpd_serial(const struct scsi_lun *l, uint8_t *p)
{
	size_t len = strlen(l->serial);

	memcpy(p, l->serial, len);
	return len;
}

/* FNV-1a: a name for the unit that stays the same as long as its serial does. */
static uint64_t hash_of(const char *text)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *text != '\0'; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3;
	return h;
}

/* SPC-4, 7.8.6: a T10 vendor name, and a locally assigned NAA one */
static size_t vpd_identification(const struct scsi_lun *l, uint8_t *p)
{
	size_t len = strlen(l->serial);

	p[0] = 2; /* ASCII */
	p[1] = 1; /* T10 vendor */
	p[2] = 0;
	p[3] = (uint8_t)(8 + len);
	put_text(p + 4, 8, VENDOR);
	memcpy(p + 12, l->serial, len);
	p += 12 + len;
	p[0] = 1; /* binary */
	p[1] = 3; /* NAA */
	p[2] = 0;
	p[3] = 8;
	put_be64(p + 4, (hash_of(l->serial) >> 4) | UINT64_C(3) << 60);
	return 12 + len + 12;
}

static size_t vpd_extended(const struct scsi_lun *l, uint8_t *p)
{
	(void)l;
	p[1] = 0x05; /* head of queue and simple task attributes are accepted, ordered ones are as simple ones */
	p[2] = 0x01; /* volatile cache */
	return 60;
}

/* SPC-4, 7.8.9: all mode pages are shared by all nexuses */
static size_t vpd_policy(const struct scsi_lun *l, uint8_t *p)
{
	(void)l;
	p[0] = 0x3f;
	p[1] = 0xff;
	return 4;
}

/* SPC-4, 7.8.14: one, of no known transport */
static size_t vpd_ports(const struct scsi_lun *l, uint8_t *p)
{
	(void)l;
	p[3] = 1;
	return 12;
}

/* SBC-3, 6.6.3 */
static size_t vpd_limits(const struct scsi_lun *l, uint8_t *p)
{
	const struct disk_limits *m = disk_limits(l->disk);
	uint32_t granularity = MAX(m->discard_granularity >> l->shift, 1u);

	p -= 4;						   /* offsets as in the standard */
	p[4] = 1;					   /* WSNZ */
	p[5] = (uint8_t)MIN(SCSI_CHUNK >> l->shift, 255u); /* COMPARE AND WRITE */
	put_be16(p + 6, (uint16_t)MIN(m->io_min >> l->shift, UINT16_MAX));
	put_be32(p + 8, SCSI_SECTORS * 512 >> l->shift);
	put_be32(p + 12, m->io_opt >> l->shift);
	if (m->discard) {
		put_be32(p + 20, SCSI_MAX_UNMAP >> l->shift);
		put_be32(p + 24, SCSI_UNMAP_RANGES);
		put_be32(p + 28, granularity);
		put_be32(p + 32, 0x80000000); /* alignment 0, valid */
	}
	put_be64(p + 36, SCSI_MAX_SAME >> l->shift);
	return 60;
}

/* SBC-3, 6.6.2 */
static size_t vpd_characteristics(const struct scsi_lun *l, uint8_t *p)
{
	(void)l;
	put_be16(p, 1); /* does not rotate */
	return 60;
}

/* SBC-3, 6.6.4 */
static size_t vpd_provisioning(const struct scsi_lun *l, uint8_t *p)
{
	const struct disk_limits *m = disk_limits(l->disk);

	if (m->discard) {
		p[1] = 0xe0; /* UNMAP, WRITE SAME 16 and 10 */
		p[1] |= m->discard_zeroes ? 0x04 : 0;
		p[2] = 2; /* thin */
	}
	return 4;
}

static size_t vpd_list(const struct scsi_lun *l, uint8_t *p);

static const struct {
	uint8_t page;
	bool disk_only;
	size_t (*write)(const struct scsi_lun *l, uint8_t *p);
} vital_pages[] = {
	{0x00, false, vpd_list},
	{0x80, false, vpd_serial},
	{0x83, false, vpd_identification},
	{0x86, false, vpd_extended},
	{0x87, false, vpd_policy},
	{0x88, false, vpd_ports},
	{0xb0, true, vpd_limits},
	{0xb1, true, vpd_characteristics},
	{0xb2, true, vpd_provisioning},
};

static size_t vpd_list(const struct scsi_lun *l, uint8_t *p)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(vital_pages); i++)
		if (l->type == SCSI_DISK || !vital_pages[i].disk_only)
			p[n++] = vital_pages[i].page;
	return n;
}

static void vital(struct scsi_request *r)
{
	const struct scsi_lun *l = r->lun;
	uint8_t out[VPD_MAX] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(vital_pages); i++) {
		size_t len;

		if (vital_pages[i].page != r->cdb[2] || (vital_pages[i].disk_only && l->type != SCSI_DISK))
			continue;
		out[0] = (uint8_t)l->type;
		out[1] = vital_pages[i].page;
		len = vital_pages[i].write(l, out + 4);
		put_be16(out + 2, (uint16_t)len);
		scsi_reply(r, out, 4 + len);
		return;
	}
	scsi_fail_cdb(r, 2);
}

void scsi_inquiry(struct scsi_request *r)
{
	r->alloc = get_be16(r->cdb + 3);
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (r->cdb[1] & 1)
		vital(r);
	else if (r->cdb[2] != 0)
		scsi_fail_cdb(r, 2);
	else
		standard(r);
}

void scsi_inquiry_nobody(struct scsi_request *r)
{
	uint8_t out[36] = {r->well_known ? WELL_KNOWN : NOBODY, 0, 6, 0x12, sizeof(out) - 5};

	r->alloc = get_be16(r->cdb + 3);
	put_text(out + 8, 8, VENDOR);
	put_text(out + 16, 16, r->well_known ? "REPORT LUNS" : "");
	put_text(out + 32, 4, REVISION);
	if ((r->cdb[1] & 1) || r->cdb[2] != 0)
		scsi_fail_cdb(r, r->cdb[1] & 1 ? 1 : 2);
	else if (scsi_wants_in(r, r->alloc))
		scsi_reply(r, out, sizeof(out));
}
