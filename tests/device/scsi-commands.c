/* SPDX-License-Identifier: MIT */
/*
 * The SCSI commands one by one: what they do to the disk, their data, their sense data. Basic ones are in scsi.c.
 */
#include "scsi-driver.h"

#include <sys/stat.h>

static const struct fe_mode split = {0};

static void is_field(struct answer a, unsigned byte)
{
	is_sense(a, SENSE(5, 0x24, 0));
	CHECK_EQ(a.raw[15], 0xc0);
	CHECK_EQ(get_be16(a.raw + 16), byte);
}

static void is_data_field(struct answer a, unsigned byte)
{
	is_sense(a, SENSE(5, 0x26, 0));
	CHECK_EQ(a.raw[15], 0x80);
	CHECK_EQ(get_be16(a.raw + 16), byte);
}

/* --- what a unit says of itself --- */

static uint8_t *inquiry(unsigned vpd, unsigned page, unsigned alloc)
{
	uint8_t *data = guest(512);
	struct answer a;

	memset(data, NOT_SEEN, 512);
	a = ask(CDB(0x12, (uint8_t)vpd, (uint8_t)page, BE16(alloc)), NULL, 0, data, 512);
	is_good(a);
	CHECK_EQ(data[alloc], NOT_SEEN);
	return data;
}

static void identity(const struct fe_mode *m)
{
	uint8_t *d;

	begin_image(m, "serial=ABC-1");
	d = inquiry(0, 0, 255);
	CHECK_EQ(d[0], 0);
	CHECK_EQ(d[1], 0);
	CHECK_EQ(d[2], 6);
	CHECK_EQ(d[3] & 0xf, 2);
	CHECK_EQ(d[4], 91);
	CHECK_EQ(d[7], 2);
	CHECK_MEM(d + 8, "VHOSTUSRDISK            1.0 ", 28);
	inquiry(0, 0, 5);
	inquiry(0, 0, 0);
	d = inquiry(1, 0, 255);
	CHECK_MEM(d, ((uint8_t[]){0, 0, 0, 9, 0, 0x80, 0x83, 0x86, 0x87, 0x88, 0xb0, 0xb1, 0xb2}), 13);
	d = inquiry(1, 0x80, 255);
	CHECK_MEM(d,
		"\0\x80\0\x05"
		"ABC-1",
		9);
	d = inquiry(1, 0x83, 255);
	CHECK_EQ(get_be16(d + 2), 12 + 5 + 12);
	CHECK_MEM(d + 4,
		"\x02\x01\0\x0d"
		"VHOSTUSRABC-1",
		17);
	CHECK_MEM(d + 21, "\x01\x03\0\x08", 4);
	CHECK_EQ(d[25] >> 4, 3);
	d = inquiry(1, 0x86, 255);
	CHECK_EQ(get_be16(d + 2), 60);
	CHECK_EQ(d[6] & 1, 1);
	d = inquiry(1, 0xb0, 255);
	CHECK_EQ(get_be16(d + 2), 60);
	CHECK_EQ(d[4], 1);
	CHECK_EQ(d[5], 128);
	CHECK_EQ(get_be32(d + 8), 0xffff);
	CHECK_EQ(get_be32(d + 20), 0x80000000 >> 9);
	CHECK_EQ(get_be32(d + 24), 256);
	CHECK_EQ(get_be64(d + 36), 0x20000000 >> 9);
	d = inquiry(1, 0xb1, 255);
	CHECK_EQ(get_be16(d + 4), 1);
	d = inquiry(1, 0xb2, 255);
	CHECK_EQ(d[5], 0xe4);
	CHECK_EQ(d[6], 2);
	is_good(ask(CDB(0x9e, 0x10, BE64(0), BE32(32)), NULL, 0, d, 32));
	CHECK_EQ(d[14], 0xc0);
	is_field(ask(CDB(0x12, 1, 0x99, BE16(64)), NULL, 0, d, 512), 2);
	is_field(ask(CDB(0x12, 0, 0x80, BE16(64)), NULL, 0, d, 512), 2);
	is_response(ask(CDB(0x12, 0, 0, BE16(64)), NULL, 0, d, 63), VIRTIO_SCSI_S_OVERRUN);
	fe_end(&fe);
}

static void capacity(const struct fe_mode *m)
{
	uint8_t *d;

	begin(m, FE_ARGS("scsi", "--null=4T", "--lun=0:1,null=8M,block-size=4096,ro"));
	calm(0, 1);
	d = guest(64);
	is_good(ask(CDB(0x25), NULL, 0, d, 8));
	CHECK_EQ(get_be32(d), UINT32_MAX);
	CHECK_EQ(get_be32(d + 4), 512);
	is_good(ask(CDB(0x9e, 0x10, BE64(0), BE32(32)), NULL, 0, d, 32));
	CHECK_EQ(get_be64(d), (UINT64_C(4) << 40) / 512 - 1);
	CHECK_EQ(get_be32(d + 8), 512);
	CHECK_EQ(d[13], 3);
	CHECK_EQ(d[14], 0x80);
	is_good(ask_unit(0, 1, CDB(0x9e, 0x10, BE64(0), BE32(12)), NULL, 0, d, 32));
	CHECK_EQ(get_be64(d), 2047);
	CHECK_EQ(get_be32(d + 8), 4096);
	is_good(ask_unit(0, 1, CDB(0x25), NULL, 0, d, 8));
	CHECK_EQ(get_be32(d), 2047);
	/* reads at the far end */
	is_good(ask(CDB(0x88, 0, BE64((UINT64_C(4) << 40) / 512 - 1), BE32(1)), NULL, 0, guest(512), 512));
	is_good(ask(CDB(0x9e, 0x12, BE64(5), BE32(24)), NULL, 0, d, 24));
	CHECK_EQ(get_be32(d), 20);
	CHECK_EQ(get_be64(d + 8), 5);
	CHECK_EQ(d[20] & 0xf, 0);
	is_sense(ask_unit(0, 1, CDB(0x9e, 0x12, BE64(2048), BE32(24)), NULL, 0, d, 24), SENSE(5, 0x21, 0));
	fe_end(&fe);
}

/* --- unit attentions --- */

static void attentions(const struct fe_mode *m)
{
	uint8_t *d;

	image_new();
	fe_start(&fe, m, FE_ARGS("scsi", "--null=1M"));
	ctl = fe_queue_up(&fe, 0, 16);
	rq = fe_queue_up(&fe, 2, 16);
	d = guest(512);
	/* some commands run, and leave it; the first other one gets it, once */
	is_good(ask(CDB(0x12, 0, 0, BE16(36)), NULL, 0, d, 36));
	is_good(ask(CDB(0xa0, 0, 0, 0, 0, 0, BE32(16)), NULL, 0, d, 16));
	is_sense(ask(CDB(0xff), NULL, 0, d, 36), SENSE(6, 0x29, 0));
	is_sense(ask(CDB(0xff), NULL, 0, d, 36), SENSE(5, 0x20, 0));
	is_good(ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), NULL, 0, d, 512));
	/* REQUEST SENSE takes it as its data, in both formats */
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	is_good(ask(CDB(0x03, 0, 0, 0, 252), NULL, 0, d, 252));
	CHECK_EQ(d[0], 0x70);
	CHECK_EQ(SENSE(d[2], d[12], d[13]), SENSE(6, 0x29, 3));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x03, 1, 0, 0, 252), NULL, 0, d, 252));
	CHECK_EQ(d[0], 0x72);
	CHECK_EQ(SENSE(d[1], d[2], d[3]), 0);
	/* two at once: the reset of the unit before the loss of the nexus */
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 3));
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 7));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	/* a reset of the device */
	fe_queue_stop(rq);
	fe_queue_stop(ctl);
	fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	fe_queue_free(rq);
	rq = fe_queue_up(&fe, 2, 16);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 0));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	fe_end(&fe);
}

/* --- mode parameters --- */

static void mode_pages(const struct fe_mode *m)
{
	uint8_t *d;

	begin_image(m, "");
	d = guest(512);
	is_good(ask(CDB(0x1a, 0, 0x3f, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[2], 0x10); /* DPOFUA, not protected */
	CHECK_EQ(d[3], 8);
	CHECK_EQ(get_be32(d + 4), BLOCKS);
	CHECK_EQ(get_be32(d + 8), 512);
	CHECK_EQ(d[0], 11 + 12 + 20 + 12 + 12);
	CHECK_EQ(d[12], 0x01);
	CHECK_EQ(d[24], 0x08);
	CHECK_EQ(d[26], 0x04);
	CHECK_EQ(d[44], 0x0a);
	CHECK_EQ(d[56], 0x1c);
	/* one page, no descriptor, changeable values, defaults */
	is_good(ask(CDB(0x1a, 8, 0x08, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[0], 23);
	CHECK_MEM(d + 3, "\0\x08\x12\x04\0", 5);
	is_good(ask(CDB(0x1a, 8, 0x48, 0, 255), NULL, 0, d, 255));
	CHECK_MEM(d + 4, "\x08\x12\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	is_good(ask(CDB(0x1a, 8, 0x4a, 0, 255), NULL, 0, d, 255));
	CHECK_MEM(d + 4, "\x0a\x0a\x04\0\x08\0\0\0\0\0\0\0", 12);
	is_good(ask(CDB(0x1a, 8, 0x88, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[6], 4);
	/* ten bytes, long descriptor */
	is_good(ask(CDB(0x5a, 0x10, 0x08, 0, 0, 0, 0, BE16(512)), NULL, 0, d, 512));
	CHECK_EQ(get_be16(d), 6 + 16 + 20);
	CHECK_EQ(d[3], 0x10);
	CHECK_EQ(d[4], 1);
	CHECK_EQ(get_be16(d + 6), 16);
	CHECK_EQ(get_be64(d + 8), BLOCKS);
	CHECK_EQ(get_be32(d + 20), 512);
	/* cut at the allocation length */
	memset(d, NOT_SEEN, 64);
	is_good(ask(CDB(0x1a, 0, 0x3f, 0, 4), NULL, 0, d, 255));
	CHECK_EQ(d[4], NOT_SEEN);
	is_sense(ask(CDB(0x1a, 0, 0xc8, 0, 255), NULL, 0, d, 255), SENSE(5, 0x39, 0));
	is_field(ask(CDB(0x1a, 0, 0x05, 0, 255), NULL, 0, d, 255), 2);
	is_field(ask(CDB(0x1a, 0, 0x08, 1, 255), NULL, 0, d, 255), 3);
	fe_end(&fe);
}

static struct answer mode_select(const uint8_t *page, unsigned len)
{
	uint8_t *d = guest(64);

	memcpy(d + 4, page, len);
	return ask(CDB(0x15, 0x10, 0, 0, (uint8_t)(4 + len)), d, 4 + len, NULL, 0);
}

static void mode_changes(const struct fe_mode *m)
{
	uint8_t wce[20] = {8, 18, 4}, control[12] = {0x0a, 10, 0, 0x10, 0, 0, 0, 0, 0xff, 0xff};
	uint8_t *d;
	struct answer a;

	begin_image(m, "");
	d = guest(512);
	/* the cache off and on; a guest that asks sees it */
	wce[2] = 0;
	is_good(mode_select(wce, 20));
	is_good(ask(CDB(0x1a, 8, 0x08, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[6], 0);
	is_good(ask(CDB(0x2a, 0, BE32(1), 0, BE16(1)), d, 512, NULL, 0));
	/* sense data with descriptors */
	control[2] = 4;
	is_good(mode_select(control, 12));
	a = ask(CDB(0x28, 0, BE32(BLOCKS), 0, BE16(1)), NULL, 0, d, 512);
	is_sense(a, SENSE(5, 0x21, 0));
	CHECK_EQ(a.raw[0], 0x72);
	a = ask(CDB(0x12, 1, 0x99, BE16(64)), NULL, 0, d, 512);
	is_sense(a, SENSE(5, 0x24, 0));
	CHECK_EQ(a.sense_len, 16);
	CHECK_MEM(a.raw + 7, "\x08\x02\x06\0\0\xc0\0\x02", 8);
	/* write protection */
	control[4] = 8;
	is_good(mode_select(control, 12));
	is_sense(ask(CDB(0x2a, 0, BE32(1), 0, BE16(1)), d, 512, NULL, 0), SENSE(7, 0x27, 0));
	is_good(ask(CDB(0x1a, 8, 0x08, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[2], 0x90);
	/* what can't be changed, and lists that are none */
	control[2] = 0;
	is_good(mode_select(control, 12));
	wce[2] = 5;
	is_data_field(mode_select(wce, 20), 4 + 2);
	wce[2] = 4;
	is_data_field(mode_select((uint8_t[]){0x3e, 10, 0}, 12), 4);
	is_data_field(mode_select((uint8_t[]){0x08, 17, 4}, 19), 5);
	is_sense(mode_select(wce, 1), SENSE(5, 0x1a, 0));
	is_data_field(mode_select(wce, 10), 5);
	is_sense(ask(CDB(0x15, 0x10, 0, 0, 3), d, 3, NULL, 0), SENSE(5, 0x1a, 0));
	is_field(ask(CDB(0x15, 0x11, 0, 0, 4), d, 4, NULL, 0), 1);
	is_field(ask(CDB(0x15, 0, 0, 0, 4), d, 4, NULL, 0), 1);
	/* two pages of which the second is wrong change nothing */
	control[4] = 0;
	memcpy(d, control, 12);
	memcpy(d + 12, "\x3e\x02\0\0", 4);
	is_data_field(mode_select(d, 16), 4 + 12);
	is_sense(ask(CDB(0x2a, 0, BE32(1), 0, BE16(1)), d, 512, NULL, 0), SENSE(7, 0x27, 0));
	/* ten bytes, with a descriptor that says what is so */
	memset(d, 0, 64);
	d[7] = 8;
	put_be32(d + 12, 512);
	memcpy(d + 16, control, 12);
	is_good(ask(CDB(0x55, 0x10, 0, 0, 0, 0, 0, BE16(28)), d, 28, NULL, 0));
	is_good(ask(CDB(0x2a, 0, BE32(1), 0, BE16(1)), d, 512, NULL, 0));
	put_be32(d + 12, 1024);
	memset(d, 0, 8);
	d[7] = 8;
	put_be32(d + 8, 0);
	is_data_field(ask(CDB(0x55, 0x10, 0, 0, 0, 0, 0, BE16(28)), d, 28, NULL, 0), 8);
	/* a reset brings the format of sense data back, but not the cache */
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), 0);
	a = ask(CDB(0), NULL, 0, NULL, 0);
	CHECK_EQ(a.raw[0], 0x70);
	is_good(ask(CDB(0x1a, 8, 0x08, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[6], 0);
	fe_end(&fe);
}

/* --- the medium --- */

static void start_and_stop(const struct fe_mode *m)
{
	uint8_t *d;

	begin(m, FE_ARGS("scsi", "--lun=0:0,null=1M", "--lun=0:1,null=1M,removable"));
	calm(0, 1);
	d = guest(512);
	is_good(ask(CDB(0x1b, 0, 0, 0, 0), NULL, 0, NULL, 0));
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(2, 4, 2));
	is_sense(ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), NULL, 0, d, 512), SENSE(2, 4, 2));
	is_good(ask(CDB(0x12, 0, 0, BE16(36)), NULL, 0, d, 36));
	is_good(ask(CDB(0x03, 0, 0, 0, 18), NULL, 0, d, 18));
	CHECK_EQ(SENSE(d[2], d[12], d[13]), SENSE(2, 4, 2));
	is_good(ask(CDB(0x1b, 0, 0, 0, 1), NULL, 0, NULL, 0));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	is_field(ask(CDB(0x1b, 0, 0, 0, 2), NULL, 0, NULL, 0), 4);
	/* eject: prevented, then not; and back in */
	is_good(ask_unit(0, 1, CDB(0x1e, 0, 0, 0, 1), NULL, 0, NULL, 0));
	is_sense(ask_unit(0, 1, CDB(0x1b, 0, 0, 0, 2), NULL, 0, NULL, 0), SENSE(5, 0x53, 2));
	is_good(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0));
	is_good(ask_unit(0, 1, CDB(0x1e, 0, 0, 0, 0), NULL, 0, NULL, 0));
	is_good(ask_unit(0, 1, CDB(0x1b, 0, 0, 0, 2), NULL, 0, NULL, 0));
	is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(2, 0x3a, 0));
	is_good(ask_unit(0, 1, CDB(0x1b, 0, 0, 0, 3), NULL, 0, NULL, 0));
	is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x28, 0));
	is_good(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x1d, 4), NULL, 0, NULL, 0));
	is_field(ask(CDB(0x1d, 0x20), NULL, 0, NULL, 0), 1);
	is_good(ask(CDB(0x35), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x91), NULL, 0, NULL, 0));
	is_sense(ask(CDB(0x35, 0, BE32(4000)), NULL, 0, NULL, 0), SENSE(5, 0x21, 0));
	fe_end(&fe);
}

static void read_only(const struct fe_mode *m)
{
	static const uint8_t wr[] = {0x0a, 0x2a, 0x2e, 0x41, 0x42, 0x89, 0x8a, 0x8e, 0x93, 0xaa, 0xae};
	static const uint8_t zero[512];
	uint8_t *d;

	begin_image(m, "ro");
	d = guest(4096);
	memset(d, 0x55, 4096);
	for (unsigned i = 0; i < ARRAY_SIZE(wr); i++)
		is_sense(ask(CDB(wr[i]), d, 4096, NULL, 0), SENSE(7, 0x27, 0));
	image_is(0, zero, 512);
	is_good(ask(CDB(0x1a, 8, 0x08, 0, 255), NULL, 0, d, 255));
	CHECK_EQ(d[2], 0x90);
	is_good(ask(CDB(0x35), NULL, 0, NULL, 0));
	fe_end(&fe);
}

static void verify(const struct fe_mode *m)
{
	enum { N = 300, LEN = N * 512 }; /* more than two chunks */
	uint8_t *data;
	struct answer a;

	begin_image(m, "");
	data = guest(LEN);
	pattern(data, LEN, 7);
	image_write(10 * 512, data, LEN);
	is_good(ask(CDB(0x2f, 0, BE32(10), 0, BE16(N)), NULL, 0, NULL, 0));
	a = ask(CDB(0x2f, 2, BE32(10), 0, BE16(N)), data, LEN, NULL, 0);
	is_good(a);
	CHECK_EQ(a.resid, 0);
	is_good(ask(CDB(0xaf, 2, BE32(10), BE32(N)), data, LEN, NULL, 0));
	is_good(ask(CDB(0x8f, 2, BE64(10), BE32(N)), data, LEN, NULL, 0));
	data[LEN - 100] ^= 1;
	a = ask(CDB(0x2f, 2, BE32(10), 0, BE16(N)), data, LEN, NULL, 0);
	is_sense(a, SENSE(0xe, 0x1d, 0));
	CHECK_EQ(a.raw[0], 0xf0);
	CHECK_EQ(get_be32(a.raw + 3), LEN - 100);
	is_response(ask(CDB(0x2f, 2, BE32(10), 0, BE16(N)), data, LEN - 1, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	/* all blocks against one */
	for (unsigned i = 1; i < 20; i++)
		memcpy(data + i * 512, data, 512);
	image_write(100 * 512, data, 20 * 512);
	is_good(ask(CDB(0x2f, 6, BE32(100), 0, BE16(20)), data, 512, NULL, 0));
	a = ask(CDB(0x2f, 6, BE32(100), 0, BE16(21)), data, 512, NULL, 0);
	is_sense(a, SENSE(0xe, 0x1d, 0));
	CHECK_EQ(get_be32(a.raw + 3) / 512, 20);
	is_field(ask(CDB(0x2f, 4, BE32(100), 0, BE16(1)), data, 512, NULL, 0), 1);
	is_sense(ask(CDB(0x2f, 0, BE32(BLOCKS), 0, BE16(1)), NULL, 0, NULL, 0), SENSE(5, 0x21, 0));
	is_good(ask(CDB(0x2f, 6, BE32(100), 0, BE16(0)), NULL, 0, NULL, 0));
	/* WRITE AND VERIFY */
	pattern(data, LEN, 8);
	is_good(ask(CDB(0x2e, 2, BE32(10), 0, BE16(N)), data, LEN, NULL, 0));
	image_is(10 * 512, data, LEN);
	pattern(data, LEN, 9);
	is_good(ask(CDB(0x8e, 0, BE64(10), BE32(N)), data, LEN, NULL, 0));
	image_is(10 * 512, data, LEN);
	is_good(ask(CDB(0xae, 2, BE32(10), BE32(N)), data, LEN, NULL, 0));
	fe_end(&fe);
}

static blkcnt_t blocks(void)
{
	struct stat st;

	CHECK_SYS(stat(image, &st));
	return st.st_blocks;
}

static void write_same(const struct fe_mode *m)
{
	enum { N = 700, LEN = N * 512 };
	uint8_t *one, *all;
	blkcnt_t before;

	begin_image(m, "");
	one = guest(512);
	all = guest(LEN);
	pattern(one, 512, 3);
	for (unsigned i = 0; i < N; i++)
		memcpy(all + i * 512, one, 512);
	is_good(ask(CDB(0x41, 0, BE32(16), 0, BE16(N)), one, 512, NULL, 0));
	image_is(16 * 512, all, LEN);
	pattern(one, 512, 4);
	for (unsigned i = 0; i < N; i++)
		memcpy(all + i * 512, one, 512);
	is_good(ask(CDB(0x93, 0, BE64(800), BE32(N)), one, 512, NULL, 0));
	image_is(800 * 512, all, LEN);
	image_is(799 * 512, (uint8_t[512]){0}, 512);
	image_is((800 + N) * 512, (uint8_t[512]){0}, 512);
	/* zeroes: with data, without, with holes */
	memset(one, 0, 512);
	memset(all, 0, LEN);
	is_good(ask(CDB(0x41, 0, BE32(16), 0, BE16(N)), one, 512, NULL, 0));
	image_is(16 * 512, all, LEN);
	before = blocks();
	is_good(ask(CDB(0x93, 9, BE64(800), BE32(N)), NULL, 0, NULL, 0));
	image_is(800 * 512, all, LEN);
	CHECK(blocks() < before);
	is_field(ask(CDB(0x93, 0, BE64(0), BE32(0)), one, 512, NULL, 0), 10);
	is_field(ask(CDB(0x93, 0, BE64(0), BE32(0x200000)), one, 512, NULL, 0), 10);
	is_field(ask(CDB(0x93, 0x10, BE64(0), BE32(1)), one, 512, NULL, 0), 1);
	is_field(ask(CDB(0x41, 1, BE32(0), 0, BE16(1)), one, 512, NULL, 0), 1);
	is_sense(ask(CDB(0x93, 0, BE64(BLOCKS - 1), BE32(2)), one, 512, NULL, 0), SENSE(5, 0x21, 0));
	is_response(ask(CDB(0x93, 0, BE64(0), BE32(1)), one, 511, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	fe_end(&fe);
}

static struct answer unmap(const uint32_t ranges[][2], unsigned n, unsigned len)
{
	uint8_t *list = guest(8 + 300 * 16);

	put_be16(list, (uint16_t)(6 + n * 16));
	put_be16(list + 2, (uint16_t)(n * 16));
	for (unsigned i = 0; i < n; i++) {
		put_be64(list + 8 + i * 16, ranges[i][0]);
		put_be32(list + 16 + i * 16, ranges[i][1]);
	}
	return ask(CDB(0x42, 0, 0, 0, 0, 0, 0, BE16(len)), list, len, NULL, 0);
}

/* GET LBA STATUS from there on, with room for n descriptors: "LBA+BLOCKS STATUS " of each. */
static void status_is(uint64_t lba, unsigned n, const char *want)
{
	uint8_t *d = guest(8 + 16 * 16);
	char got[256] = "";

	memset(d, NOT_SEEN, 8 + 16 * 16);
	is_good(ask(CDB(0x9e, 0x12, BE64(lba), BE32(8 + 16 * n)), NULL, 0, d, 8 + 16 * 16));
	for (unsigned at = 8; at < get_be32(d) + 4; at += 16)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%u+%u %u ",
			(unsigned)get_be64(d + at), get_be32(d + at + 8), d[at + 12]);
	CHECK_STR(got, want);
	CHECK_EQ(d[8 + 16 * n], NOT_SEEN);
}

static void lba_status(const struct fe_mode *m)
{
	uint8_t *data;

	begin_image(m, "");
	data = guest(MIB);
	memset(data, 0x5a, MIB);
	status_is(0, 4, "0+8192 1 ");
	is_good(ask(CDB(0x2a, 0, BE32(256), 0, BE16(64)), data, 32768, NULL, 0));
	is_good(ask(CDB(0x2a, 0, BE32(4096), 0, BE16(2048)), data, MIB, NULL, 0));
	status_is(0, 8, "0+256 1 256+64 0 320+3776 1 4096+2048 0 6144+2048 1 ");
	status_is(0, 3, "0+256 1 256+64 0 320+3776 1 ");
	status_is(300, 1, "300+20 0 ");
	is_good(unmap((const uint32_t[][2]){{4608, 512}}, 1, 8 + 16));
	status_is(4096, 8, "4096+512 0 4608+512 1 5120+1024 0 6144+2048 1 ");
	/* less room than a descriptor */
	memset(data, NOT_SEEN, 32);
	is_good(ask(CDB(0x9e, 0x12, BE64(0), BE32(4)), NULL, 0, data, 32));
	CHECK_EQ(get_be32(data), 20);
	CHECK_EQ(data[4], NOT_SEEN);
	is_response(ask(CDB(0x9e, 0x12, BE64(0), BE32(64)), NULL, 0, data, 63), VIRTIO_SCSI_S_OVERRUN);
	is_sense(ask(CDB(0x9e, 0x12, BE64(BLOCKS), BE32(24)), NULL, 0, data, 24), SENSE(5, 0x21, 0));
	fe_end(&fe);
}

static void lba_status_blocks(const struct fe_mode *m)
{
	uint8_t *data;

	begin_image(m, "block-size=65536");
	data = guest(65536);
	memset(data, 0x5a, 65536);
	image_write(65536 + 8192, data, 4096);
	status_is(0, 4, "0+1 1 1+1 0 2+62 1 ");
	fe_end(&fe);
}

static void unmapping(const struct fe_mode *m)
{
	static const uint32_t good[][2] = {{0, 256}, {1000, 0}, {2048, 512}},
			      bad[][2] = {{0, 8}, {BLOCKS, 1}}, none[300][2];
	uint8_t *data, *zero;
	blkcnt_t before;

	begin_image(m, "");
	data = guest(MIB);
	zero = guest(512 * 512);
	memset(data, 0x5a, MIB);
	for (unsigned i = 0; i < 4; i++)
		image_write(i * MIB, data, MIB);
	before = blocks();
	is_good(unmap(good, 3, 8 + 48));
	image_is(0, zero, 256 * 512);
	image_is(2048 * 512, zero, 512 * 512);
	image_is(256 * 512, data, 512);
	image_is((2048 + 512) * 512, data, 512);
	CHECK(before - blocks() >= 700);
	/* a list with one bad range does nothing */
	image_write(0, data, 4096);
	is_sense(unmap(bad, 2, 8 + 32), SENSE(5, 0x21, 0));
	image_is(0, data, 4096);
	is_good(unmap(good, 0, 8));
	is_good(unmap(good, 0, 0));
	is_sense(unmap(good, 3, 7), SENSE(5, 0x1a, 0));
	is_sense(unmap(good, 3, 8 + 47), SENSE(5, 0x1a, 0));
	is_data_field(unmap(none, 257, 8 + 257 * 16), 2);
	is_good(unmap(none, 256, 8 + 256 * 16));
	is_field(ask(CDB(0x42, 1), NULL, 0, NULL, 0), 1);
	fe_end(&fe);
}

static void format_unit(const struct fe_mode *m)
{
	uint8_t *data, *head;

	begin_image(m, "");
	data = guest(MIB);
	head = guest(8);
	memset(data, 0x5a, MIB);
	for (unsigned i = 0; i < 4; i++)
		image_write(i * MIB, data, MIB);
	memset(head, 0, 8);
	/* what it refuses changes nothing */
	is_field(ask(CDB(0x04, 0x40), NULL, 0, NULL, 0), 1);
	is_field(ask(CDB(0x04, 0x90), head, 4, NULL, 0), 1);
	is_response(ask(CDB(0x04, 0x10), head, 3, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	is_response(ask(CDB(0x04, 0x30), head, 7, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	for (unsigned i = 0; i < 8; i++) {
		head[i] = 8;
		is_data_field(ask(CDB(0x04, 0x30), head, 8, NULL, 0), MIN(i, 2u));
		if (i < 4)
			is_data_field(ask(CDB(0x04, 0x10), head, 4, NULL, 0), MIN(i, 2u));
		head[i] = 0;
	}
	image_is(0, data, MIB);
	CHECK(blocks() >= 8192);
	/* disable certification, immediate */
	head[1] = 0xa2;
	is_good(ask(CDB(0x04, 0x10), head, 4, NULL, 0));
	status_is(0, 4, "0+8192 1 ");
	CHECK(blocks() <= 16);
	image_write(0, data, MIB);
	is_good(ask(CDB(0x04, 0x30), head, 8, NULL, 0));
	status_is(0, 4, "0+8192 1 ");
	image_write(0, data, MIB);
	is_good(ask(CDB(0x04), NULL, 0, NULL, 0));
	memset(data, 0, MIB);
	image_is(0, data, MIB);
	fe_end(&fe);
}

static void format_read_only(const struct fe_mode *m)
{
	begin_image(m, "ro");
	is_sense(ask(CDB(0x04), NULL, 0, NULL, 0), SENSE(7, 0x27, 0));
	fe_end(&fe);
}

static void compare_and_write(const struct fe_mode *m)
{
	uint8_t *data, *two;
	struct answer a;

	begin_image(m, "");
	data = guest(4096);
	two = guest(2 * 4096);
	pattern(data, 4096, 1);
	image_write(8 * 512, data, 4096);
	memcpy(two, data, 4096);
	pattern(two + 4096, 4096, 2);
	a = ask(CDB(0x89, 0, BE64(8), 0, 0, 0, 8), two, 8192, NULL, 0);
	is_good(a);
	CHECK_EQ(a.resid, 0);
	image_is(8 * 512, two + 4096, 4096);
	a = ask(CDB(0x89, 0, BE64(8), 0, 0, 0, 8), two, 8192, NULL, 0);
	is_sense(a, SENSE(0xe, 0x1d, 0));
	CHECK(get_be32(a.raw + 3) < 4096);
	image_is(8 * 512, two + 4096, 4096);
	is_good(ask(CDB(0x89, 8, BE64(0), 0, 0, 0, 0), NULL, 0, NULL, 0));
	is_field(ask(CDB(0x89, 0, BE64(0), 0, 0, 0, 129), two, 8192, NULL, 0), 13);
	is_response(ask(CDB(0x89, 0, BE64(8), 0, 0, 0, 8), two, 4096, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	is_sense(ask(CDB(0x89, 0, BE64(BLOCKS), 0, 0, 0, 1), two, 8192, NULL, 0), SENSE(5, 0x21, 0));
	/* writes go on */
	is_good(ask(CDB(0x2a, 0, BE32(8), 0, BE16(8)), data, 4096, NULL, 0));
	image_is(8 * 512, data, 4096);
	fe_end(&fe);
}

/* --- what commands there are --- */

static void opcodes(const struct fe_mode *m)
{
	uint8_t *d, *one, *in;
	uint32_t len;
	unsigned n = 0;

	begin_image(m, "");
	d = guest(4096);
	one = guest(64);
	in = guest(65536);
	is_good(ask(CDB(0xa3, 0x0c, 0x80, 0, 0, 0, BE32(4096)), NULL, 0, d, 4096));
	len = get_be32(d);
	CHECK(len > 40 * 20 && len % 20 == 0);
	for (uint32_t at = 4; at < 4 + len; at += 20, n++) {
		bool action = d[at + 5] & 1;
		struct answer a;

		/* each has its own description, which knows its length; and is known when it is sent */
		is_good(ask(CDB(0xa3, 0x0c, action ? 2 : 1, d[at], BE16(get_be16(d + at + 2)), BE32(64)),
			NULL, 0, one, 64));
		CHECK_EQ(one[1], 3);
		CHECK_EQ(get_be16(one + 2), get_be16(d + at + 6));
		CHECK_EQ(one[4], d[at]);
		if (d[at] == 0x1b || d[at] == 0x15 || d[at] == 0x55)
			continue;
		a = ask(CDB(d[at], d[at + 3]), NULL, 0, in, 65536);
		CHECK(a.sense != SENSE(5, 0x20, 0));
	}
	CHECK_EQ(n, len / 20);
	is_good(ask(CDB(0xa3, 0x0c, 0x81, 0x28, 0, 0, BE32(64)), NULL, 0, one, 64));
	CHECK_MEM(one, "\0\x83\0\x0a\x28\xf8\xff\xff\xff\xff\x3f\xff\xff\x04\0\x0a", 16);
	is_good(ask(CDB(0xa3, 0x0c, 1, 0xff, 0, 0, BE32(64)), NULL, 0, one, 64));
	CHECK_EQ(one[1], 1);
	is_good(ask(CDB(0xa3, 0x0c, 2, 0x9e, 0, 0x1f, BE32(64)), NULL, 0, one, 64));
	CHECK_EQ(one[1], 1);
	is_field(ask(CDB(0xa3, 0x0c, 1, 0x9e, 0, 0, BE32(64)), NULL, 0, one, 64), 2);
	is_field(ask(CDB(0xa3, 0x0c, 2, 0x28, 0, 0, BE32(64)), NULL, 0, one, 64), 2);
	is_good(ask(CDB(0xa3, 0x0c, 3, 0x28, 0, 0, BE32(64)), NULL, 0, one, 64));
	CHECK_EQ(one[1], 3);
	is_good(ask(CDB(0xa3, 0x0d, 0x80, 0, 0, 0, BE32(64)), NULL, 0, one, 64));
	CHECK_MEM(one, "\xdc\x03\0\x0c", 4);
	fe_end(&fe);
}

/* --- a CD-ROM --- */

static void cdrom(const struct fe_mode *m)
{
	uint8_t *d, *data;

	begin_image(m, "cdrom");
	d = guest(4096);
	data = guest(4096);
	pattern(data, 4096, 6);
	image_write(5 * 2048, data, 4096);
	is_good(ask(CDB(0x12, 0, 0, BE16(96)), NULL, 0, d, 96));
	CHECK_EQ(d[0], 5);
	CHECK_EQ(d[1], 0x80);
	is_good(ask(CDB(0x25), NULL, 0, d, 8));
	CHECK_EQ(get_be32(d), 4 * MIB / 2048 - 1);
	CHECK_EQ(get_be32(d + 4), 2048);
	is_good(ask(CDB(0x28, 0, BE32(5), 0, BE16(2)), NULL, 0, d, 4096));
	CHECK_MEM(d, data, 4096);
	is_good(ask(CDB(0xa8, 0, BE32(5), BE32(2)), NULL, 0, d, 4096));
	is_sense(ask(CDB(0x2a, 0, BE32(5), 0, BE16(1)), data, 2048, NULL, 0), SENSE(5, 0x20, 0));
	is_good(ask(CDB(0x43, 0, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_MEM(d, "\0\x12\x01\x01\0\x14\x01\0\0\0\0\0\0\x14\xaa\0\0\0\x08\0", 20);
	is_good(ask(CDB(0x43, 2, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_MEM(d + 8, "\0\0\x02\0", 4);
	is_good(ask(CDB(0x43, 0, 1, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_EQ(get_be16(d), 10);
	is_good(ask(CDB(0x43, 0, 2, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_EQ(get_be16(d), 2 + 44);
	is_field(ask(CDB(0x43, 0, 5, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64), 2);
	is_good(ask(CDB(0x46, 0, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_EQ(get_be16(d + 6), 8);
	CHECK_EQ(get_be32(d), 4 + 8 + 12 + 8 + 12 + 8);
	is_good(ask(CDB(0x46, 2, BE16(3), 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_EQ(get_be32(d), 4 + 8);
	CHECK_EQ(get_be16(d + 8), 3);
	is_good(ask(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, BE16(8)), NULL, 0, d, 8));
	CHECK_MEM(d, "\0\x06\x04\x10\0\x02", 6);
	is_good(ask(CDB(0x51, 0, 0, 0, 0, 0, 0, BE16(34)), NULL, 0, d, 34));
	CHECK_EQ(get_be16(d), 32);
	is_good(ask(CDB(0xbd, 0, 0, 0, 0, 0, 0, 0, BE16(8)), NULL, 0, d, 8));
	is_good(ask(CDB(0x5a, 8, 0x2a, 0, 0, 0, 0, BE16(64)), NULL, 0, d, 64));
	CHECK_EQ(d[8], 0x2a);
	/* the tray opens and closes */
	is_good(ask(CDB(0x1b, 0, 0, 0, 2), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, BE16(8)), NULL, 0, d, 8));
	CHECK_EQ(d[5], 1);
	is_sense(ask(CDB(0x28, 0, BE32(5), 0, BE16(2)), NULL, 0, d, 4096), SENSE(2, 0x3a, 0));
	is_good(ask(CDB(0x1b, 0, 0, 0, 3), NULL, 0, NULL, 0));
	is_sense(ask(CDB(0x28, 0, BE32(5), 0, BE16(2)), NULL, 0, d, 4096), SENSE(6, 0x28, 0));
	is_good(ask(CDB(0x28, 0, BE32(5), 0, BE16(2)), NULL, 0, d, 4096));
	fe_end(&fe);
}

int main(void)
{
	fe_case("identity", identity, &split);
	fe_case("capacity", capacity, &split);
	fe_each_layout("unit attentions", attentions);
	fe_case("mode pages", mode_pages, &split);
	fe_case("changes of mode parameters", mode_changes, &split);
	fe_case("start, stop, eject", start_and_stop, &split);
	fe_case("read-only", read_only, &split);
	fe_each_layout("verify", verify);
	fe_each_layout("write same", write_same);
	fe_each_layout("unmap", unmapping);
	fe_each_layout("holes", lba_status);
	fe_each_layout("format", format_unit);
	fe_case("format a read-only unit", format_read_only, &split);
	fe_case("holes and large blocks", lba_status_blocks, &split);
	fe_each_layout("compare and write", compare_and_write);
	fe_case("all opcodes", opcodes, &split);
	fe_case("CD-ROM", cdrom, &split);
	return tap_done();
}
