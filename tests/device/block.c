/* SPDX-License-Identifier: MIT */
/*
 * The block device, request by request: what each request does to the disk and what it answers, however it is cut into
 * descriptors; what a driver does wrong and what it gets for it. Options and configuration space are in block-options.c,
 * several queues in block-queues.c, block devices of the host in block-device.c; the disk under load, and what survives a
 * kill, is in block-load.c.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "block-rig.h"

/* --- reads and writes --- */

static void reads_and_writes(const struct fe_mode *m)
{
	uint8_t *data;

	blk_start(m, NULL);
	data = blk_guest(MIB);
	for (uint32_t len = 512; len <= MIB; len *= 2) {
		blk_pattern(data, len, len);
		blk_wr_ok(3, data, len);
		blk_rd_ok(3, data, len);
		blk_image_is(3 * 512, data, len);
	}
	blk_pattern(data, MIB, 5);
	blk_image_write(0, data, MIB);
	blk_rd_ok(0, data, MIB);
	blk_still_works();
	fe_end(&blk.fe);
}

/* The header and the data in pieces of these lengths; the status is in a piece of its own or ends the last one. */
static void cut_case(
	uint32_t type, unsigned hdr_piece, unsigned data_piece, bool joined, uint8_t *data, uint32_t len)
{
	uint8_t *h = blk_header(type, 8);
	uint8_t *status = joined && type == VIRTIO_BLK_T_IN ? data + len : fe_alloc(&blk.fe, 1, 1, NULL);
	struct vring_driver_buf b[128];
	unsigned n = 0;

	*status = BLK_NOT_SEEN;
	for (unsigned at = 0; at < 16; at += hdr_piece)
		b[n++] = fe_rd(&blk.fe, h + at, MIN(hdr_piece, 16 - at));
	for (uint32_t at = 0; at < len; at += data_piece) {
		uint32_t piece = MIN(data_piece, len - at);

		b[n] = type == VIRTIO_BLK_T_IN ? fe_wr(&blk.fe, data + at, piece)
					       : fe_rd(&blk.fe, data + at, piece);
		n++;
	}
	if (status == data + len)
		b[n - 1].len++;
	else
		b[n++] = fe_wr(&blk.fe, status, 1);
	CHECK_EQ(fe_transact(blk.q, b, n), type == VIRTIO_BLK_T_IN ? len + 1 : 1);
	CHECK_EQ(*status, VIRTIO_BLK_S_OK);
}

static void any_layout(const struct fe_mode *m)
{
	static const unsigned hdr_pieces[] = {1, 3, 8, 15, 16}, data_pieces[] = {100, 511, 512, 513, 8192};
	enum { LEN = 8192 };
	uint8_t *data, *back;

	blk_start(m, NULL);
	data = blk_guest(LEN);
	back = blk_guest(LEN + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(hdr_pieces); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(data_pieces); j++)
			for (int joined = 0; joined < 2; joined++) {
				blk_pattern(data, LEN, i * 10 + j);
				memset(back, 0, LEN);
				cut_case(VIRTIO_BLK_T_OUT, hdr_pieces[i], data_pieces[j], joined, data, LEN);
				cut_case(VIRTIO_BLK_T_IN, hdr_pieces[i], data_pieces[j], joined, back, LEN);
				CHECK_MEM(back, data, LEN);
			}
	fe_end(&blk.fe);
}

/* Header and data in one descriptor, as drivers without framing rules may do it. */
static void header_with_data(const struct fe_mode *m)
{
	uint8_t *p, *status;

	blk_start(m, NULL);
	p = blk_guest(16 + 2048);
	status = fe_alloc(&blk.fe, 1, 1, NULL);
	memcpy(p, blk_header(VIRTIO_BLK_T_OUT, 4), 16);
	blk_pattern(p + 16, 2048, 3);
	CHECK_EQ(fe_transact(blk.q,
			 (struct vring_driver_buf[]){fe_rd(&blk.fe, p, 16 + 2048), fe_wr(&blk.fe, status, 1)},
			 2),
		1);
	CHECK_EQ(*status, VIRTIO_BLK_S_OK);
	blk_image_is(4 * 512, p + 16, 2048);
	fe_end(&blk.fe);
}

static void bad_ranges(const struct fe_mode *m)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{BLK_SECTORS, 512},
		{BLK_SECTORS - 1, 1024},
		{BLK_SECTORS + 1, 0},
		{0, 511},
		{0, 513},
		{0, 1},
		{UINT64_MAX, 512},
		{UINT64_MAX / 512, 512},
		{UINT64_MAX / 512 + 1, 512},
		{UINT64_C(1) << 55, 512},
		{UINT64_C(1) << 63, 512},
	};
	static const uint8_t zero[2048];
	uint8_t *data;

	blk_start(m, NULL);
	data = blk_guest(2048);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(data, 0x55, 2048);
		blk_answers(
			blk_ask(VIRTIO_BLK_T_IN, bad[i].sector, data, bad[i].len, true), VIRTIO_BLK_S_IOERR);
		CHECK_EQ(data[0], 0x55);
		blk_answers(blk_ask(VIRTIO_BLK_T_OUT, bad[i].sector, data, bad[i].len, false),
			VIRTIO_BLK_S_IOERR);
	}
	blk_image_is(0, zero, 2048);
	/* nothing is a fine length */
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 0, NULL, 0, true), VIRTIO_BLK_S_OK);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, BLK_SECTORS, NULL, 0, false), VIRTIO_BLK_S_OK);
	blk_still_works();
	fe_end(&blk.fe);
}

/* --- malformed requests --- */

static void unknown_types(const struct fe_mode *m)
{
	static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 0x80000000, UINT32_MAX};
	uint8_t *data;

	blk_start(m, NULL);
	data = blk_guest(512);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		blk_answers(blk_ask(types[i], 0, data, 512, true), VIRTIO_BLK_S_UNSUPP);
		blk_answers(blk_ask(types[i], 0, data, 512, false), VIRTIO_BLK_S_UNSUPP);
		blk_answers(blk_ask(types[i], 0, NULL, 0, false), VIRTIO_BLK_S_UNSUPP);
	}
	blk_still_works();
	fe_end(&blk.fe);
}

static void short_requests(const struct fe_mode *m)
{
	struct vring_driver_buf b[2];
	uint8_t *status;

	blk_start(m, NULL);
	status = fe_alloc(&blk.fe, 512, 512, NULL);
	/* no status byte: no answer, but the buffer comes back */
	b[0] = fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_FLUSH, 0), 16);
	CHECK_EQ(fe_transact(blk.q, b, 1), 0);
	/* half a header, none at all, only room for a status */
	for (uint32_t len = 1; len < 16; len += 7) {
		*status = BLK_NOT_SEEN;
		b[0] = fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_FLUSH, 0), len);
		b[1] = fe_wr(&blk.fe, status, 1);
		CHECK_EQ(fe_transact(blk.q, b, 2), 1);
		CHECK_EQ(*status, VIRTIO_BLK_S_IOERR);
	}
	memset(status, BLK_NOT_SEEN, 512);
	b[0] = fe_wr(&blk.fe, status, 512);
	CHECK_EQ(fe_transact(blk.q, b, 1), 1);
	CHECK_EQ(status[511], VIRTIO_BLK_S_IOERR);
	CHECK_EQ(status[0], BLK_NOT_SEEN);
	blk_still_works();
	fe_end(&blk.fe);
}

/* The data of a request is not guest memory: that request fails, the others don't. */
static void memory_that_is_none(const struct fe_mode *m)
{
	uint8_t *status;

	blk_start(m, NULL);
	status = fe_alloc(&blk.fe, 1, 1, NULL);
	for (int wr = 0; wr < 2; wr++) {
		struct vring_driver_buf b[] = {
			fe_rd(&blk.fe, blk_header(wr ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0), 16),
			{.addr = 0x7fff00000000, .len = 512, .wr = wr},
			fe_wr(&blk.fe, status, 1),
		};

		*status = BLK_NOT_SEEN;
		fe_transact(blk.q, b, 3);
		CHECK_EQ(*status, VIRTIO_BLK_S_IOERR);
	}
	blk_still_works();
	fe_end(&blk.fe);
}

/* --- the other requests --- */

static void id(const struct fe_mode *m)
{
	static const char serial[20] = "serial-1234567890123";
	uint8_t *buf;

	blk_start(m, "--serial=serial-1234567890123");
	buf = blk_guest(64);
	for (uint32_t len = 0; len <= 40; len += 4) {
		struct blk_answer a;

		memset(buf, 0xaa, 64);
		a = blk_ask(VIRTIO_BLK_T_GET_ID, 0, buf, len, true);
		blk_answers(a, VIRTIO_BLK_S_OK);
		CHECK_EQ(a.used, MIN(len, 20) + 1);
		CHECK_MEM(buf, serial, MIN(len, 20));
		CHECK_EQ(buf[MIN(len, 20)], 0xaa);
	}
	fe_end(&blk.fe);
	blk_image_new(MIB);
	fe_start(&blk.fe, m, FE_ARGS("block", blk_file(), "--serial=ab"));
	blk.q = fe_queue_up(&blk.fe, 0, 16);
	buf = blk_guest(64);
	memset(buf, 0xaa, 64);
	blk_answers(blk_ask(VIRTIO_BLK_T_GET_ID, 0, buf, 20, true), VIRTIO_BLK_S_OK);
	CHECK_MEM(buf, "ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	fe_end(&blk.fe);
}

static void flush(const struct fe_mode *m)
{
	blk_start(m, NULL);
	for (int i = 0; i < 10; i++) {
		struct blk_answer a = blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false);

		blk_answers(a, VIRTIO_BLK_S_OK);
		CHECK_EQ(a.used, 1);
	}
	blk_still_works();
	fe_end(&blk.fe);
}

static blkcnt_t blocks(void)
{
	struct stat st;

	CHECK_SYS(stat(blk.image, &st));
	return st.st_blocks;
}

static void fill_image(uint8_t *data)
{
	blk_pattern(data, 2 * MIB, 1);
	blk_wr_ok(0, data, 2 * MIB);
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
}

static void discard(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	blkcnt_t full;
	uint8_t *data;

	blk_start(m, NULL);
	if (!blk_offers(VIRTIO_BLK_F_DISCARD))
		tap_skip("no holes in files of %s", blk.image);
	data = blk_guest(2 * MIB);
	fill_image(data);
	full = blocks();
	r = blk_ranges(2);
	r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 1024};
	r[1] = (struct virtio_blk_discard_write_zeroes){.sector = 2048, .num_sectors = 1024};
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_DISCARD, r, 2), VIRTIO_BLK_S_OK);
	CHECK(blocks() <= full - 2000);
	blk_rd_ok(1024, data + 1024 * 512, 1024 * 512);
	blk_rd_ok(3072, data + 3072 * 512, 1024 * 512);
	/* none of it and all of it */
	r[0].num_sectors = 0;
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_OK);
	r[0].num_sectors = BLK_SECTORS;
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_OK);
	CHECK(blocks() <= 64);
	blk_still_works();
	fe_end(&blk.fe);
}

static void write_zeroes(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;
	blkcnt_t full;

	blk_start(m, NULL);
	data = blk_guest(2 * MIB);
	fill_image(data);
	full = blocks();
	r = blk_ranges(3);
	r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 1024};
	r[1] = (struct virtio_blk_discard_write_zeroes){.sector = 1025, .num_sectors = 1};
	r[2] = (struct virtio_blk_discard_write_zeroes){.sector = 1031, .num_sectors = 100};
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 3), VIRTIO_BLK_S_OK);
	memset(data, 0, 1024 * 512);
	memset(data + 1025 * 512, 0, 512);
	memset(data + 1031 * 512, 0, 100 * 512);
	blk_rd_ok(0, data, 2 * MIB);
	blk_image_is(0, data, 2 * MIB);
	CHECK(blocks() >= full); /* no UNMAP: it stays allocated */
	r[0].flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	r[0].sector = 2048;
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_OK);
	memset(data + 2048 * 512, 0, 1024 * 512);
	blk_rd_ok(0, data, 2 * MIB);
	if (blk_offers(VIRTIO_BLK_F_DISCARD))
		CHECK(blocks() <= full - 1000);
	fe_end(&blk.fe);
}

static void bad_ranges_lists(const struct fe_mode *m)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	static const struct virtio_blk_discard_write_zeroes beyond[] = {
		{.sector = BLK_SECTORS, .num_sectors = 1},
		{.sector = BLK_SECTORS - 1, .num_sectors = 2},
		{.sector = UINT64_MAX, .num_sectors = 1},
		{.sector = UINT64_MAX / 512, .num_sectors = UINT32_MAX},
		{.sector = 0, .num_sectors = UINT32_MAX},
	};
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;

	blk_start(m, NULL);
	data = blk_guest(2 * MIB);
	fill_image(data);
	r = blk_ranges(2000);
	for (unsigned t = 0; t < 2; t++) {
		for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
			r[0] = (struct virtio_blk_discard_write_zeroes){.num_sectors = 8};
			r[1] = beyond[i];
			blk_answers(blk_ask_ranges(types[t], r, 2), VIRTIO_BLK_S_IOERR);
		}
		blk_answers(blk_ask(types[t], 0, NULL, 0, false), VIRTIO_BLK_S_IOERR);
		blk_answers(blk_ask(types[t], 0, r, 15, false), VIRTIO_BLK_S_IOERR);
		blk_answers(blk_ask(types[t], 0, r, 17, false), VIRTIO_BLK_S_IOERR);
		blk_answers(blk_ask_ranges(types[t], r, 2000), VIRTIO_BLK_S_IOERR);
		for (unsigned flag = 0; flag < 32; flag++) {
			r[1] = (struct virtio_blk_discard_write_zeroes){
				.num_sectors = 8, .flags = 1u << flag};
			if (t == 0 || flag != 0)
				blk_answers(blk_ask_ranges(types[t], r, 2), VIRTIO_BLK_S_UNSUPP);
		}
	}
	/* the good one in front of each bad one was not done either */
	blk_rd_ok(0, data, 2 * MIB);
	blk_still_works();
	fe_end(&blk.fe);
}

static void truncated_image(const struct fe_mode *m)
{
	uint8_t *data;

	blk_start(m, NULL);
	CHECK_SYS(truncate(blk.image, MIB));
	data = blk_guest(8192);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 2 * MIB / 512, data, 4096, true), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, MIB / 512 - 8, data, 8192, true), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 0, data, 8192, true), VIRTIO_BLK_S_OK);
	blk_still_works();
	fe_end(&blk.fe);
}

static void null_disk(const struct fe_mode *m)
{
	uint8_t *data;

	fe_start(&blk.fe, m, FE_ARGS("block", "--null=1G"));
	blk.q = fe_queue_up(&blk.fe, 0, 16);
	CHECK_EQ(blk_config().capacity, 1u << 21);
	data = blk_guest(4096);
	blk_wr_ok((1u << 21) - 8, data, 4096);
	CHECK_EQ(blk_ask(VIRTIO_BLK_T_IN, 0, data, 4096, true).used, 4097);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 1u << 21, data, 4096, true), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	fe_end(&blk.fe);
}

/* The program must end at once, with a message and this status. */
static void legacy_driver(const struct fe_mode *m)
{
	uint8_t *data;

	blk_image_new(BLK_SECTORS * 512);
	fe_init(&blk.fe, m);
	blk.fe.legacy = true;
	fe_spawn(&blk.fe, FE_ARGS("block", blk_file()));
	fe_handshake(&blk.fe);
	fe_memory_default(&blk.fe);
	blk.q = fe_queue_up(&blk.fe, 0, 128);
	data = blk_guest(4096);
	blk_pattern(data, 4096, 2);
	blk_wr_ok(0, data, 4096);
	blk_rd_ok(0, data, 4096);
	fe_end(&blk.fe);
}

int main(void)
{
	const struct fe_mode split = {0};

	fe_each_mode("reads and writes", reads_and_writes);
	fe_each_mode("any layout", any_layout);
	fe_each_layout("header and data in one", header_with_data);
	fe_each_mode("bad ranges", bad_ranges);
	fe_each_layout("unknown types", unknown_types);
	fe_each_mode("short requests", short_requests);
	fe_each_mode("memory that is none", memory_that_is_none);
	fe_each_layout("id", id);
	fe_each_layout("flush", flush);
	fe_each_layout("discard", discard);
	fe_each_layout("write zeroes", write_zeroes);
	fe_each_layout("bad lists of ranges", bad_ranges_lists);
	fe_case("truncated image", truncated_image, &split);
	fe_case("null disk", null_disk, &split);
	fe_case("legacy driver", legacy_driver, &split);
	return tap_done();
}
