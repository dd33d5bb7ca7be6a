/* SPDX-License-Identifier: MIT */
/*
 * Mode parameters (SPC-4, 6.11 and 7.5; SBC-3, 6.5): caching, control, and the constant rest. Three bits can be changed:
 * the write cache, the format of sense data, software write protection.
 */
#include "scsi.h"

#define PAGE_MAX 32
#define ALL	 0x3f
#define ALL_SUB	 0xff

enum { CURRENT, CHANGEABLE, DEFAULT, SAVED };
enum { WP = 0x80, DPOFUA = 0x10 };

/* Parameters of a page behind its header, as they are with these mode bits. */
static size_t page_recovery(uint8_t *p, uint32_t mode)
{
	(void)mode;
	p[0] = 0x80; /* automatic write reallocation */
	return 10;
}

static size_t page_caching(uint8_t *p, uint32_t mode)
{
	p[0] = mode & MODE_WCE ? 0x04 : 0;
	return 18;
}

static size_t page_control(uint8_t *p, uint32_t mode)
{
	p[0] = mode & MODE_D_SENSE ? 0x04 : 0;
	p[1] = 0x10; /* restricted reordering is not needed */
	p[2] = mode & MODE_SWP ? 0x08 : 0;
	p[6] = p[7] = 0xff; /* busy timeout */
	return 10;
}

static size_t page_exceptions(uint8_t *p, uint32_t mode)
{
	(void)mode;
	p[0] = 0x08; /* DEXCPT */
	return 10;
}

/* MM capabilities (MMC-3, 5.5.10): reads CDs and DVDs, has a tray that locks */
static size_t page_cdrom(uint8_t *p, uint32_t mode)
{
	(void)mode;
	p[0] = 0x3b;
	p[2] = 0x71;
	p[3] = 0x60;
	p[4] = 0x29;
	put_be16(p + 6, 706);  /* speed, KiB/s */
	put_be16(p + 8, 2);    /* volume levels */
	put_be16(p + 10, 512); /* buffer, KiB */
	put_be16(p + 12, 706);
	return 20;
}

static const struct {
	uint8_t page, types;
	size_t (*write)(uint8_t *p, uint32_t mode);
	uint32_t changeable; /* mode bits */
} pages[] = {
	{0x01, CMD_DISK | CMD_CDROM, page_recovery, 0},
	{0x08, CMD_DISK, page_caching, MODE_WCE},
	{0x0a, CMD_DISK, page_control, MODE_D_SENSE | MODE_SWP},
	{0x1c, CMD_DISK, page_exceptions, 0},
	{0x2a, CMD_CDROM, page_cdrom, 0},
};

static bool has_page(const struct scsi_lun *l, size_t i)
{
	return pages[i].types & (l->type == SCSI_CDROM ? CMD_CDROM : CMD_DISK);
}

/* What of a page can be changed: where its bytes differ with the bits on and off. */
static void mask_of(size_t i, uint8_t *p)
{
	uint8_t on[PAGE_MAX] = {0};
	size_t len = pages[i].write(on, pages[i].changeable);

	pages[i].write(p, 0);
	for (size_t j = 0; j < len; j++)
		p[j] ^= on[j];
}

static size_t page_put(const struct scsi_lun *l, size_t i, unsigned control, uint8_t *p)
{
	uint32_t mode = control == DEFAULT ? (l->write_cache ? MODE_WCE : 0) : scsi_lun_mode(l);
	size_t len;

	memset(p, 0, PAGE_MAX);
	len = pages[i].write(p + 2, mode);
	if (control == CHANGEABLE) {
		memset(p, 0, PAGE_MAX);
		mask_of(i, p + 2);
	}
	p[0] = pages[i].page;
	p[1] = (uint8_t)len;
	return 2 + len;
}

static size_t descriptor_put(const struct scsi_lun *l, bool longer, uint8_t *p)
{
	uint64_t blocks = scsi_lun_blocks(l);

	if (longer) {
		put_be64(p, blocks);
		put_be32(p + 12, l->block);
		return 16;
	}
	put_be32(p, (uint32_t)MIN(blocks, UINT32_MAX));
	put_be32(p + 4, l->block); /* its first byte is not part of it, and zero */
	return 8;
}

void scsi_mode_sense(struct scsi_request *r)
{
	const struct scsi_lun *l = r->lun;
	bool ten = r->cdb[0] == 0x5a, longer = ten && (r->cdb[1] & 0x10);
	unsigned page = r->cdb[2] & 0x3f, control = r->cdb[2] >> 6;
	uint8_t out[8 + 16 + ARRAY_SIZE(pages) * PAGE_MAX] = {0};
	size_t head = ten ? 8 : 4, n = head, found = 0;

	r->alloc = ten ? get_be16(r->cdb + 7) : r->cdb[4];
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (control == SAVED) {
		scsi_fail(r, SENSE_NO_SAVING);
		return;
	}
	if (r->cdb[3] != 0 && (r->cdb[3] != ALL_SUB || page != ALL)) {
		scsi_fail_cdb(r, 3);
		return;
	}
	if (!(r->cdb[1] & 8) && l->type == SCSI_DISK)
		n += descriptor_put(l, longer, out + n);
	out[ten ? 7 : 3] = (uint8_t)(n - head);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		if (!has_page(l, i) || (page != ALL && page != pages[i].page))
			continue;
		n += page_put(l, i, control, out + n);
		found++;
	}
	if (found == 0) {
		scsi_fail_cdb(r, 2);
		return;
	}
	if (l->type == SCSI_DISK)
		out[ten ? 3 : 2] = DPOFUA | (l->read_only || (scsi_lun_mode(l) & MODE_SWP) ? WP : 0);
	if (ten) {
		out[4] = longer;
		put_be16(out, (uint16_t)(n - 2));
	} else {
		out[0] = (uint8_t)(n - 1);
	}
	scsi_reply(r, out, n);
}

/* MODE SELECT: all is looked at before anything is changed. */

/* Checks one page; what it says of the mode bits goes to *mode. Returns its length, or 0: the request has ended. */
static size_t page_select(struct scsi_request *r, const uint8_t *p, size_t left, unsigned at, uint32_t *mode)
{
	uint8_t now[PAGE_MAX], mask[PAGE_MAX];
	size_t i = 0, len;

	while (i < ARRAY_SIZE(pages) && !(has_page(r->lun, i) && pages[i].page == (p[0] & 0x7f)))
		i++;
	if (i == ARRAY_SIZE(pages)) {
		scsi_fail_data(r, at);
		return 0;
	}
	len = page_put(r->lun, i, CURRENT, now);
	if (left < len || p[1] != now[1]) {
		scsi_fail_data(r, at + 1);
		return 0;
	}
	page_put(r->lun, i, CHANGEABLE, mask);
	for (size_t j = 2; j < len; j++)
		if ((p[j] ^ now[j]) & ~mask[j]) {
			scsi_fail_data(r, at + (unsigned)j);
			return 0;
		}
	for (uint32_t bit = 1; bit <= pages[i].changeable; bit <<= 1) {
		uint8_t with[PAGE_MAX] = {0}, without[PAGE_MAX] = {0};

		if (!(pages[i].changeable & bit))
			continue;
		pages[i].write(with + 2, bit);
		pages[i].write(without + 2, 0);
		for (size_t j = 2; j < len; j++) {
			uint8_t m = with[j] ^ without[j];

			if (m != 0)
				*mode = (p[j] & m) == (with[j] & m) ? *mode | bit : *mode & ~bit;
		}
	}
	return len;
}

/* Does the block descriptor say what is so anyway? */
static bool descriptor_fits(const struct scsi_lun *l, const uint8_t *p, size_t len)
{
	uint64_t blocks = len == 16 ? get_be64(p) : get_be32(p);
	uint32_t size = len == 16 ? get_be32(p + 12) : get_be24(p + 5);
	uint64_t mine = len == 16 ? scsi_lun_blocks(l) : MIN(scsi_lun_blocks(l), UINT32_MAX);

	return size == l->block &&
	       (blocks == 0 || blocks == mine || blocks == (len == 16 ? UINT64_MAX : UINT32_MAX));
}

static void select_parse(struct scsi_request *r, const uint8_t *p, size_t len, bool ten)
{
	size_t head = ten ? 8 : 4, n;
	uint32_t mode = scsi_lun_mode(r->lun);

	if (len < head) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	n = ten ? get_be16(p + 6) : p[3];
	if (n > len - head) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	if (n != 0 && (n != (ten && (p[4] & 1) ? 16 : 8) || !descriptor_fits(r->lun, p + head, n))) {
		scsi_fail_data(r, (unsigned)head);
		return;
	}
	for (n += head; n < len;) {
		size_t one;

		if (len - n < 2) {
			scsi_fail(r, SENSE_PARAMETER_LENGTH);
			return;
		}
		one = page_select(r, p + n, len - n, (unsigned)n, &mode);
		if (one == 0)
			return;
		n += one;
	}
	__atomic_store_n(&r->lun->mode, mode, __ATOMIC_RELAXED);
	/* what was cached while the cache was on must not stay there */
	if (!(mode & MODE_WCE))
		scsi_flush_and_end(r);
	else
		scsi_good(r);
}

void scsi_mode_select(struct scsi_request *r)
{
	bool ten = r->cdb[0] == 0x55;
	uint8_t data[512];
	size_t len = ten ? get_be16(r->cdb + 7) : r->cdb[4];

	if ((r->cdb[1] & 0x10) == 0 && len != 0) {
		scsi_fail_cdb(r, 1); /* vendor-specific pages: none */
		return;
	}
	if (r->cdb[1] & 1) {
		scsi_fail_cdb(r, 1); /* nothing can be saved */
		return;
	}
	if (!scsi_wants_out(r, len))
		return;
	if (len == 0) {
		scsi_good(r);
		return;
	}
	if (len > sizeof(data)) {
		scsi_fail(r, SENSE_PARAMETER_LENGTH);
		return;
	}
	cursor_get(&r->element->rd, data, len);
	select_parse(r, data, len, ten);
}
