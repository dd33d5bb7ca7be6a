/* SPDX-License-Identifier: MIT */
/* What a CD-ROM drive has beyond the commands of a disk (MMC-6): one data track, a tray. */
#include "scsi.h"

enum { TOC = 0, SESSIONS = 1, FULL_TOC = 2, LEADOUT = 0xaa, DATA_TRACK = 0x14, MSF = 2 };
enum { PROFILE_CDROM = 0x0008 };

/* In minutes, seconds and frames, or as it is. */
static void put_place(uint8_t *p, uint64_t lba, bool msf)
{
	if (!msf) {
		put_be32(p, (uint32_t)MIN(lba, UINT32_MAX));
		return;
	}
	lba = MIN(lba + 150, 255u * 60 * 75);
	p[0] = 0;
	p[1] = (uint8_t)(lba / (60 * 75));
	p[2] = (uint8_t)(lba / 75 % 60);
	p[3] = (uint8_t)(lba % 75);
}

static size_t put_track(uint8_t *p, uint8_t track, uint64_t lba, bool msf)
{
	memset(p, 0, 8);
	p[1] = DATA_TRACK;
	p[2] = track;
	put_place(p + 4, lba, msf);
	return 8;
}

static size_t toc(const struct scsi_lun *l, uint8_t *out, bool msf, uint8_t from)
{
	size_t n = 4;

	out[2] = out[3] = 1; /* first and last track */
	if (from <= 1)
		n += put_track(out + n, 1, 0, msf);
	return n + put_track(out + n, LEADOUT, scsi_lun_blocks(l), msf);
}

static size_t put_full(uint8_t *p, uint8_t point, uint8_t a, uint64_t lba, bool place)
{
	memset(p, 0, 11);
	p[0] = 1; /* session */
	p[1] = DATA_TRACK;
	p[3] = point;
	if (place) {
		uint8_t at[4];

		put_place(at, lba, true);
		memcpy(p + 8, at + 1, 3);
	} else {
		p[8] = a;
	}
	return 11;
}

static size_t full_toc(const struct scsi_lun *l, uint8_t *out)
{
	size_t n = 4;

	out[2] = out[3] = 1;
	n += put_full(out + n, 0xa0, 1, 0, false);
	n += put_full(out + n, 0xa1, 1, 0, false);
	n += put_full(out + n, 0xa2, 0, scsi_lun_blocks(l), true);
	return n + put_full(out + n, 1, 0, 0, true);
}

void scsi_read_toc(struct scsi_request *r)
{
	bool msf = r->cdb[1] & MSF;
	unsigned format = r->cdb[2] & 0xf;
	uint8_t out[64] = {0};
	size_t n;

	if (format == TOC && r->cdb[9] >> 6 != 0)
		format = r->cdb[9] >> 6; /* where old drivers put it */
	r->alloc = get_be16(r->cdb + 7);
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (format == TOC && (r->cdb[6] <= 1 || r->cdb[6] == LEADOUT)) {
		n = toc(r->lun, out, msf, r->cdb[6]);
	} else if (format == SESSIONS) {
		out[2] = out[3] = 1;
		n = 4 + put_track(out + 4, 1, 0, msf);
	} else if (format == FULL_TOC) {
		n = full_toc(r->lun, out);
	} else {
		scsi_fail_cdb(r, 2);
		return;
	}
	put_be16(out, (uint16_t)(n - 2));
	scsi_reply(r, out, n);
}

/* Features (MMC-6, 5.3): profile list, core, removable medium, random readable, CD read */
static const uint8_t features[][13] = {
	{8, 0x00, 0x00, 0x03, 4, PROFILE_CDROM >> 8, PROFILE_CDROM & 0xff, 1, 0},
	{12, 0x00, 0x01, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0},
	{8, 0x00, 0x03, 0x0b, 4, 0x29, 0, 0, 0},
	{12, 0x00, 0x10, 0x01, 8, 0, 0, 8, 0, 0, 1, 0, 0},
	{8, 0x00, 0x1e, 0x09, 4, 0, 0, 0, 0},
};

void scsi_get_configuration(struct scsi_request *r)
{
	unsigned how = r->cdb[1] & 3, start = get_be16(r->cdb + 2);
	bool medium = !(__atomic_load_n(&r->lun->state, __ATOMIC_RELAXED) & STATE_NO_MEDIUM);
	uint8_t out[8 + sizeof(features)] = {0};
	size_t n = 8;

	r->alloc = get_be16(r->cdb + 7);
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (how == 3) {
		scsi_fail_cdb(r, 1);
		return;
	}
	put_be16(out + 6, medium ? PROFILE_CDROM : 0);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		unsigned code = get_be16(features[i] + 1);

		if (how == 2 ? code != start : code < start)
			continue;
		memcpy(out + n, features[i] + 1, features[i][0]);
		n += features[i][0];
	}
	put_be32(out, (uint32_t)(n - 4));
	scsi_reply(r, out, n);
}

enum { POLLED = 1, CLASS_MEDIA = 4 };

void scsi_get_event_status(struct scsi_request *r)
{
	bool medium = !(__atomic_load_n(&r->lun->state, __ATOMIC_RELAXED) & STATE_NO_MEDIUM);
	uint8_t out[8] = {0, 6, 0x80, 1 << CLASS_MEDIA};
	size_t n = 4;

	r->alloc = get_be16(r->cdb + 7);
	if (!(r->cdb[1] & POLLED)) {
		scsi_fail_cdb(r, 1);
		return;
	}
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (r->cdb[4] & 1 << CLASS_MEDIA) {
		out[2] = CLASS_MEDIA;
		out[5] = medium ? 2 : 1; /* present, or tray open */
		n = 8;
	}
	put_be16(out, (uint16_t)(n - 2));
	scsi_reply(r, out, n);
}

void scsi_read_disc_information(struct scsi_request *r)
{
	uint8_t out[34] = {0};

	r->alloc = get_be16(r->cdb + 7);
	put_be16(out, sizeof(out) - 2);
	out[2] = 0x0e; /* complete: session, disc */
	out[3] = out[4] = out[5] = out[6] = 1;
	out[7] = 0x20; /* unrestricted use */
	if (r->cdb[1] & 7)
		scsi_fail_cdb(r, 1);
	else if (scsi_wants_in(r, r->alloc))
		scsi_reply(r, out, sizeof(out));
}

void scsi_mechanism_status(struct scsi_request *r)
{
	uint8_t out[8] = {0};

	r->alloc = get_be16(r->cdb + 8);
	if (scsi_wants_in(r, r->alloc))
		scsi_reply(r, out, sizeof(out));
}
