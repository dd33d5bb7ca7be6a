/* SPDX-License-Identifier: MIT */
/* Sense data in bytes (SPC-4, 4.5.2 and 4.5.3). */
#include "scsi-sense.h"

#include <string.h>

#include "scsi-bytes.h"

enum { FIXED = 0x70, DESCRIPTORS = 0x72, INFO_VALID = 0x80, FIXED_SIZE = 18 };
enum { FIELD_VALID = 0x80, FIELD_CDB = 0x40 };

static void write_field(const struct scsi_sense *s, uint8_t *p)
{
	p[0] = FIELD_VALID | (s->field_in_cdb ? FIELD_CDB : 0);
	put_be16(p + 1, s->field);
}

static size_t write_fixed(const struct scsi_sense *s, uint8_t *p)
{
	memset(p, 0, FIXED_SIZE);
	p[0] = FIXED;
	p[2] = (uint8_t)(s->code >> 16);
	if (s->has_info && s->info <= UINT32_MAX) {
		p[0] |= INFO_VALID;
		put_be32(p + 3, (uint32_t)s->info);
	}
	p[7] = FIXED_SIZE - 8;
	p[12] = (uint8_t)(s->code >> 8);
	p[13] = (uint8_t)s->code;
	if (s->field != SENSE_NO_FIELD)
		write_field(s, p + 15);
	return FIXED_SIZE;
}

static size_t write_descriptors(const struct scsi_sense *s, uint8_t *p)
{
	size_t n = 8;

	memset(p, 0, SENSE_MAX);
	p[0] = DESCRIPTORS;
	p[1] = (uint8_t)(s->code >> 16);
	p[2] = (uint8_t)(s->code >> 8);
	p[3] = (uint8_t)s->code;
	if (s->has_info) {
		p[n] = 0; /* information */
		p[n + 1] = 10;
		p[n + 2] = INFO_VALID;
		put_be64(p + n + 4, s->info);
		n += 12;
	}
	if (s->field != SENSE_NO_FIELD) {
		p[n] = 2; /* sense key specific */
		p[n + 1] = 6;
		write_field(s, p + n + 4);
		n += 8;
	}
	p[7] = (uint8_t)(n - 8);
	return n;
}

size_t sense_write(const struct scsi_sense *s, bool descriptors, uint8_t out[SENSE_MAX])
{
	return descriptors ? write_descriptors(s, out) : write_fixed(s, out);
}
