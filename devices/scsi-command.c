/* SPDX-License-Identifier: MIT */
/*
 * All commands that we know, in one table: it finds the function for a CDB, and REPORT SUPPORTED OPERATION CODES shows it
 * (SPC-4, 6.35). Usage bits are those of a CDB's bytes from byte 1 on; the control byte at the end is added here.
 */
#include "scsi.h"

#define BOTH  (CMD_DISK | CMD_CDROM)
#define RD    (CMD_MEDIUM | CMD_READ)
#define WR    (CMD_MEDIUM | CMD_WRITE)
#define NO    SCSI_NO_ACTION

#define LBA32 0xff, 0xff, 0xff, 0xff
#define LBA64 LBA32, LBA32
#define LEN16 0xff, 0xff
#define LEN32 0xff, 0xff, 0xff, 0xff

/* In the order of codes and service actions. */
static const struct scsi_opcode opcodes[] = {
	{0x00, NO, {0}, CMD_MEDIUM | CMD_FREE | BOTH, scsi_test_unit_ready},
	{0x03, NO, {1, 0, 0, 0xff}, CMD_ANY_STATE | CMD_FREE | BOTH, scsi_request_sense},
	{0x04, NO, {0xff}, WR | CMD_DISK, scsi_format_unit},
	{0x08, NO, {0x1f, 0xff, 0xff, 0xff}, RD | BOTH, scsi_read},
	{0x0a, NO, {0x1f, 0xff, 0xff, 0xff}, WR | CMD_DISK, scsi_write},
	{0x12, NO, {1, 0xff, LEN16}, CMD_ANY_STATE | CMD_FREE | BOTH, scsi_inquiry},
	{0x15, NO, {0x11, 0, 0, 0xff}, CMD_DISK, scsi_mode_select},
	{0x16, NO, {0}, CMD_DISK, scsi_reserve},
	{0x17, NO, {0}, CMD_FREE | CMD_DISK, scsi_release},
	{0x1a, NO, {0x08, 0xff, 0xff, 0xff}, CMD_READ | BOTH, scsi_mode_sense},
	{0x1b, NO, {0x01, 0, 0x0f, 0xf7}, CMD_FREE | BOTH, scsi_start_stop},
	{0x1d, NO, {0xf7, 0, LEN16}, BOTH, scsi_send_diagnostic},
	{0x1e, NO, {0, 0, 0, 0x03}, CMD_FREE | BOTH, scsi_prevent_allow},
	{0x25, NO, {0}, CMD_FREE | CMD_MEDIUM | BOTH, scsi_read_capacity10},
	{0x28, NO, {0xf8, LBA32, 0x3f, LEN16}, RD | BOTH, scsi_read},
	{0x2a, NO, {0xf8, LBA32, 0x3f, LEN16}, WR | CMD_DISK, scsi_write},
	{0x2e, NO, {0x16, LBA32, 0x3f, LEN16}, WR | CMD_DISK, scsi_write_verify},
	{0x2f, NO, {0xf6, LBA32, 0x3f, LEN16}, RD | BOTH, scsi_verify},
	{0x35, NO, {0x02, LBA32, 0x3f, LEN16}, CMD_MEDIUM | BOTH, scsi_sync_cache},
	{0x41, NO, {0xfa, LBA32, 0x3f, LEN16}, WR | CMD_DISK, scsi_write_same},
	{0x42, NO, {0x01, 0, 0, 0, 0, 0x3f, LEN16}, WR | CMD_DISK, scsi_unmap},
	{0x43, NO, {0x02, 0x0f, 0, 0, 0, 0xff, LEN16}, RD | CMD_CDROM, scsi_read_toc},
	{0x46, NO, {0x03, LEN16, 0, 0, 0, LEN16}, CMD_FREE | CMD_ANY_STATE | CMD_CDROM,
		scsi_get_configuration},
	{0x4a, NO, {0x01, 0, 0, 0xff, 0, 0, LEN16}, CMD_FREE | CMD_ANY_STATE | CMD_CDROM,
		scsi_get_event_status},
	{0x51, NO, {0x07, 0, 0, 0, 0, 0, LEN16}, RD | CMD_CDROM, scsi_read_disc_information},
	{0x55, NO, {0x11, 0, 0, 0, 0, 0, LEN16}, CMD_DISK, scsi_mode_select},
	{0x56, NO, {0}, CMD_DISK, scsi_reserve},
	{0x57, NO, {0}, CMD_FREE | CMD_DISK, scsi_release},
	{0x5a, NO, {0x18, 0xff, 0xff, 0, 0, 0, LEN16}, CMD_READ | BOTH, scsi_mode_sense},
	{0x5e, 0, {0x1f, 0, 0, 0, 0, 0, LEN16}, CMD_FREE | CMD_DISK, scsi_pr_in},
	{0x5e, 1, {0x1f, 0, 0, 0, 0, 0, LEN16}, CMD_FREE | CMD_DISK, scsi_pr_in},
	{0x5e, 2, {0x1f, 0, 0, 0, 0, 0, LEN16}, CMD_FREE | CMD_DISK, scsi_pr_in},
	{0x5e, 3, {0x1f, 0, 0, 0, 0, 0, LEN16}, CMD_FREE | CMD_DISK, scsi_pr_in},
	{0x5f, 0, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 1, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 2, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 3, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 4, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 5, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 6, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x5f, 7, {0x1f, 0xff, 0, 0, LEN32}, CMD_FREE | CMD_DISK, scsi_pr_out},
	{0x88, NO, {0xf8, LBA64, LEN32, 0x3f}, RD | BOTH, scsi_read},
	{0x89, NO, {0xf8, LBA64, 0, 0, 0, 0xff, 0x3f}, WR | CMD_DISK, scsi_compare_and_write},
	{0x8a, NO, {0xf8, LBA64, LEN32, 0x3f}, WR | CMD_DISK, scsi_write},
	{0x8e, NO, {0x16, LBA64, LEN32, 0x3f}, WR | CMD_DISK, scsi_write_verify},
	{0x8f, NO, {0xf6, LBA64, LEN32, 0x3f}, RD | BOTH, scsi_verify},
	{0x91, NO, {0x02, LBA64, LEN32, 0x3f}, CMD_MEDIUM | CMD_DISK, scsi_sync_cache},
	{0x93, NO, {0xfb, LBA64, LEN32, 0x3f}, WR | CMD_DISK, scsi_write_same},
	{0x9e, 0x10, {0x1f, 0, 0, 0, 0, 0, 0, 0, 0, LEN32}, CMD_FREE | CMD_MEDIUM | BOTH,
		scsi_read_capacity16},
	{0x9e, 0x12, {0x1f, LBA64, LEN32}, RD | CMD_DISK, scsi_get_lba_status},
	{0xa0, NO, {0, 0xff, 0, 0, 0, LEN32}, CMD_ANY_STATE | CMD_FREE | BOTH, scsi_report_luns},
	{0xa3, 0x0c, {0x1f, 0x87, 0xff, LEN16, LEN32}, CMD_READ | BOTH, scsi_report_opcodes},
	{0xa3, 0x0d, {0x1f, 0x80, 0, 0, 0, LEN32}, CMD_READ | BOTH, scsi_report_tmfs},
	{0xa8, NO, {0xf8, LBA32, LEN32, 0x3f}, RD | BOTH, scsi_read},
	{0xaa, NO, {0xf8, LBA32, LEN32, 0x3f}, WR | CMD_DISK, scsi_write},
	{0xae, NO, {0x16, LBA32, LEN32, 0x3f}, WR | CMD_DISK, scsi_write_verify},
	{0xaf, NO, {0xf6, LBA32, LEN32, 0x3f}, RD | BOTH, scsi_verify},
	{0xbd, NO, {0, 0, 0, 0, 0, 0, 0, LEN16}, CMD_FREE | CMD_ANY_STATE | CMD_CDROM, scsi_mechanism_status},
};

/* Where a code's first row is, plus one; filled at the first look. Any thread, all write the same. */
static uint8_t first_of[256];

__attribute__((constructor)) static void index_opcodes(void)
{
	for (unsigned i = ARRAY_SIZE(opcodes); i > 0; i--)
		first_of[opcodes[i - 1].op] = (uint8_t)i;
}

/* SPC-4, 4.2.5.1: the group code */
unsigned scsi_cdb_length(uint8_t op)
{
	static const uint8_t lengths[8] = {6, 10, 10, 10, 16, 12, 16, 16};

	return lengths[op >> 5];
}

static bool serves(const struct scsi_opcode *o, enum scsi_type type)
{
	return o->flags & (type == SCSI_CDROM ? CMD_CDROM : CMD_DISK);
}

const struct scsi_opcode *scsi_command_find(const uint8_t *cdb, enum scsi_type type, bool *known)
{
	unsigned i = first_of[cdb[0]];

	*known = false;
	if (unlikely(i == 0))
		return NULL;
	for (i--; i < ARRAY_SIZE(opcodes) && opcodes[i].op == cdb[0]; i++) {
		const struct scsi_opcode *o = &opcodes[i];

		if (unlikely(!serves(o, type)))
			continue;
		*known = true;
		if (o->action == NO || o->action == (cdb[1] & 0x1f))
			return o;
	}
	return NULL;
}

/* REPORT SUPPORTED OPERATION CODES */

enum { REPORT_ALL, REPORT_OP, REPORT_ACTION, REPORT_EITHER };
enum { SUPPORT_NONE = 1, SUPPORT_YES = 3 };
enum { SERVACTV = 1, CTDP = 2, TIMEOUTS = 12 };

static void put_timeouts(uint8_t *p)
{
	memset(p, 0, TIMEOUTS);
	put_be16(p, TIMEOUTS - 2);
}

static void report_all(struct scsi_request *r, bool timeouts)
{
	size_t each = 8 + (timeouts ? TIMEOUTS : 0), n = 4;
	uint8_t out[4 + ARRAY_SIZE(opcodes) * (8 + TIMEOUTS)] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++) {
		const struct scsi_opcode *o = &opcodes[i];

		if (!serves(o, r->lun->type))
			continue;
		out[n] = o->op;
		if (o->action != NO) {
			put_be16(out + n + 2, o->action);
			out[n + 5] = SERVACTV;
		}
		put_be16(out + n + 6, (uint16_t)scsi_cdb_length(o->op));
		if (timeouts) {
			out[n + 5] |= CTDP;
			put_timeouts(out + n + 8);
		}
		n += each;
	}
	put_be32(out, (uint32_t)(n - 4));
	scsi_reply(r, out, n);
}

static void report_one(struct scsi_request *r, const struct scsi_opcode *o, bool timeouts)
{
	uint8_t out[4 + 16 + TIMEOUTS] = {0};
	unsigned len = o != NULL ? scsi_cdb_length(o->op) : 0;
	size_t n = 4 + len;

	out[1] = o != NULL ? SUPPORT_YES : SUPPORT_NONE;
	put_be16(out + 2, (uint16_t)len);
	if (o != NULL) {
		out[4] = o->op;
		memcpy(out + 5, o->usage, len - 1);
		/* the service action is shown as it is */
		if (o->action != NO)
			out[5] = (uint8_t)((out[5] & ~0x1f) | o->action);
		out[4 + len - 1] = 4; /* NACA is looked at, and refused */
		if (timeouts) {
			out[1] |= 0x80;
			put_timeouts(out + n);
			n += TIMEOUTS;
		}
	}
	scsi_reply(r, out, n);
}

void scsi_report_opcodes(struct scsi_request *r)
{
	bool timeouts = r->cdb[2] & 0x80, known;
	unsigned how = r->cdb[2] & 7, action = get_be16(r->cdb + 4);
	uint8_t wanted[2] = {r->cdb[3], (uint8_t)action};
	const struct scsi_opcode *o;

	r->alloc = get_be32(r->cdb + 6);
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (how == REPORT_ALL) {
		report_all(r, timeouts);
		return;
	}
	o = action <= 0x1f ? scsi_command_find(wanted, r->lun->type, &known) : NULL;
	if (o == NULL && how == REPORT_OP) {
		/* is it one with service actions? then the question is wrong */
		scsi_command_find(wanted, r->lun->type, &known);
		if (known)
			scsi_fail_cdb(r, 2);
		else
			report_one(r, NULL, timeouts);
		return;
	}
	if (how > REPORT_EITHER || (o != NULL && how == REPORT_OP && o->action != NO) ||
		(o != NULL && how == REPORT_ACTION && o->action == NO)) {
		scsi_fail_cdb(r, 2);
		return;
	}
	if (o != NULL && how == REPORT_EITHER && o->action == NO && action != 0)
		o = NULL;
	report_one(r, o, timeouts);
}

/* REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4, 6.36): all but CLEAR ACA */
void scsi_report_tmfs(struct scsi_request *r)
{
	bool extended = r->cdb[2] & 0x80;
	uint8_t out[16] = {0xdc, 0x03}; /* ATS ATSS CTSS LURS QTS; QTSS ITNRS */
	size_t n = extended ? 16 : 4;

	if (extended)
		out[3] = 12;
	r->alloc = get_be32(r->cdb + 6);
	if (r->alloc < 4)
		scsi_fail_cdb(r, 6);
	else if (scsi_wants_in(r, r->alloc))
		scsi_reply(r, out, n);
}
