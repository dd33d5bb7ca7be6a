/* SPDX-License-Identifier: MIT */
/*
 * The block device, request by request: what each request does to the disk and what it answers, however it is cut into
 * descriptors; what a driver does wrong and what it gets for it; options and configuration space. The disk under load, and
 * what survives a kill, is in block-load.c.
 */
#include "frontend.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define MIB	 (1u << 20)
#define SECTORS	 (4 * MIB / 512)
#define NOT_SEEN 0xee /* what a status byte is before the device writes it */

static const struct fe_mode split = {0};
static char image[160];
static struct fe fe;
static struct fe_queue *q;

/* --- a disk and its driver --- */

static void image_new(off_t size)
{
	int fd;

	snprintf(image, sizeof(image), "%s/disk.img", fe_tmpdir());
	fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, size));
	close(fd);
}

static const char *blk_file(void)
{
	static char option[192];

	snprintf(option, sizeof(option), "--blk-file=%s", image);
	return option;
}

static void pattern(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)((i * 7 + i / 512 * 13 + seed * 31) >> (i & 1));
}

static void image_is(off_t at, const void *want, size_t len)
{
	int fd = open(image, O_RDONLY | O_CLOEXEC);
	uint8_t *got = malloc(len);

	CHECK_EQ(pread(fd, got, len, at), len);
	CHECK_MEM(got, want, len);
	free(got);
	close(fd);
}

static void image_write(off_t at, const void *data, size_t len)
{
	int fd = open(image, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, data, len, at), len);
	close(fd);
}

/* The back-end on a new image of 4 MiB. */
static void start(const struct fe_mode *m, const char *option)
{
	image_new(SECTORS * 512);
	fe_start(&fe, m, FE_ARGS("block", blk_file(), option));
	q = fe_queue_up(&fe, 0, 128);
}

static struct virtio_blk_config config(void)
{
	struct virtio_blk_config c;

	fe_config_get(&fe, 0, &c, sizeof(c));
	return c;
}

static bool offers(unsigned bit)
{
	return fe.offered >> bit & 1;
}

struct answer {
	uint8_t status;
	uint32_t used;
};

/* Anywhere: it need not be aligned. */
static void *header(uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr h = {.type = type, .sector = sector};

	return memcpy(fe_alloc(&fe, sizeof(h), 1, NULL), &h, sizeof(h));
}

/* Header, data in one piece, status. */
static struct answer ask(uint32_t type, uint64_t sector, const void *data, uint32_t len, bool wr)
{
	uint8_t *status = fe_alloc(&fe, 1, 1, NULL);
	struct vring_driver_buf b[3];
	unsigned n = 0;
	uint32_t used;

	*status = NOT_SEEN;
	b[n++] = fe_rd(&fe, header(type, sector), 16);
	if (len > 0)
		b[n++] = wr ? fe_wr(&fe, data, len) : fe_rd(&fe, data, len);
	b[n++] = fe_wr(&fe, status, 1);
	used = fe_transact(q, b, n);
	return (struct answer){*status, used};
}

static void answers(struct answer a, uint8_t status)
{
	CHECK_EQ(a.status, status);
}

static void *guest(size_t len)
{
	return fe_alloc(&fe, len, 512, NULL);
}

static void rd_ok(uint64_t sector, const void *want, uint32_t len)
{
	void *buf = guest(len);
	struct answer a = ask(VIRTIO_BLK_T_IN, sector, buf, len, true);

	answers(a, VIRTIO_BLK_S_OK);
	CHECK_EQ(a.used, len + 1);
	CHECK_MEM(buf, want, len);
}

static void wr_ok(uint64_t sector, const void *data, uint32_t len)
{
	struct answer a = ask(VIRTIO_BLK_T_OUT, sector, data, len, false);

	answers(a, VIRTIO_BLK_S_OK);
	CHECK_EQ(a.used, 1);
}

/* The ring goes on as if nothing had been. */
static void still_works(void)
{
	uint8_t *data = guest(1024);

	pattern(data, 1024, 99);
	wr_ok(SECTORS - 2, data, 1024);
	rd_ok(SECTORS - 2, data, 1024);
	CHECK(!fe_queue_failed(q));
}

/* --- reads and writes --- */

static void reads_and_writes(const struct fe_mode *m)
{
	uint8_t *data;

	start(m, NULL);
	data = guest(MIB);
	for (uint32_t len = 512; len <= MIB; len *= 2) {
		pattern(data, len, len);
		wr_ok(3, data, len);
		rd_ok(3, data, len);
		image_is(3 * 512, data, len);
	}
	pattern(data, MIB, 5);
	image_write(0, data, MIB);
	rd_ok(0, data, MIB);
	still_works();
	fe_end(&fe);
}

/* The header and the data in pieces of these lengths; the status is in a piece of its own or ends the last one. */
static void cut_case(
	uint32_t type, unsigned hdr_piece, unsigned data_piece, bool joined, uint8_t *data, uint32_t len)
{
	uint8_t *h = header(type, 8);
	uint8_t *status = joined && type == VIRTIO_BLK_T_IN ? data + len : fe_alloc(&fe, 1, 1, NULL);
	struct vring_driver_buf b[128];
	unsigned n = 0;

	*status = NOT_SEEN;
	for (unsigned at = 0; at < 16; at += hdr_piece)
		b[n++] = fe_rd(&fe, h + at, MIN(hdr_piece, 16 - at));
	for (uint32_t at = 0; at < len; at += data_piece) {
		uint32_t piece = MIN(data_piece, len - at);

		b[n] = type == VIRTIO_BLK_T_IN ? fe_wr(&fe, data + at, piece) : fe_rd(&fe, data + at, piece);
		n++;
	}
	if (status == data + len)
		b[n - 1].len++;
	else
		b[n++] = fe_wr(&fe, status, 1);
	CHECK_EQ(fe_transact(q, b, n), type == VIRTIO_BLK_T_IN ? len + 1 : 1);
	CHECK_EQ(*status, VIRTIO_BLK_S_OK);
}

static void any_layout(const struct fe_mode *m)
{
	static const unsigned hdr_pieces[] = {1, 3, 8, 15, 16}, data_pieces[] = {100, 511, 512, 513, 8192};
	enum { LEN = 8192 };
	uint8_t *data, *back;

	start(m, NULL);
	data = guest(LEN);
	back = guest(LEN + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(hdr_pieces); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(data_pieces); j++)
			for (int joined = 0; joined < 2; joined++) {
				pattern(data, LEN, i * 10 + j);
				memset(back, 0, LEN);
				cut_case(VIRTIO_BLK_T_OUT, hdr_pieces[i], data_pieces[j], joined, data, LEN);
				cut_case(VIRTIO_BLK_T_IN, hdr_pieces[i], data_pieces[j], joined, back, LEN);
				CHECK_MEM(back, data, LEN);
			}
	fe_end(&fe);
}

/* Header and data in one descriptor, as drivers without framing rules may do it. */
static void header_with_data(const struct fe_mode *m)
{
	uint8_t *p, *status;

	start(m, NULL);
	p = guest(16 + 2048);
	status = fe_alloc(&fe, 1, 1, NULL);
	memcpy(p, header(VIRTIO_BLK_T_OUT, 4), 16);
	pattern(p + 16, 2048, 3);
	CHECK_EQ(fe_transact(
			 q, (struct vring_driver_buf[]){fe_rd(&fe, p, 16 + 2048), fe_wr(&fe, status, 1)}, 2),
		1);
	CHECK_EQ(*status, VIRTIO_BLK_S_OK);
	image_is(4 * 512, p + 16, 2048);
	fe_end(&fe);
}

static void bad_ranges(const struct fe_mode *m)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{SECTORS, 512},
		{SECTORS - 1, 1024},
		{SECTORS + 1, 0},
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

	start(m, NULL);
	data = guest(2048);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(data, 0x55, 2048);
		answers(ask(VIRTIO_BLK_T_IN, bad[i].sector, data, bad[i].len, true), VIRTIO_BLK_S_IOERR);
		CHECK_EQ(data[0], 0x55);
		answers(ask(VIRTIO_BLK_T_OUT, bad[i].sector, data, bad[i].len, false), VIRTIO_BLK_S_IOERR);
	}
	image_is(0, zero, 2048);
	/* nothing is a fine length */
	answers(ask(VIRTIO_BLK_T_IN, 0, NULL, 0, true), VIRTIO_BLK_S_OK);
	answers(ask(VIRTIO_BLK_T_OUT, SECTORS, NULL, 0, false), VIRTIO_BLK_S_OK);
	still_works();
	fe_end(&fe);
}

/* --- malformed requests --- */

static void unknown_types(const struct fe_mode *m)
{
	static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 0x80000000, UINT32_MAX};
	uint8_t *data;

	start(m, NULL);
	data = guest(512);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		answers(ask(types[i], 0, data, 512, true), VIRTIO_BLK_S_UNSUPP);
		answers(ask(types[i], 0, data, 512, false), VIRTIO_BLK_S_UNSUPP);
		answers(ask(types[i], 0, NULL, 0, false), VIRTIO_BLK_S_UNSUPP);
	}
	still_works();
	fe_end(&fe);
}

static void short_requests(const struct fe_mode *m)
{
	struct vring_driver_buf b[2];
	uint8_t *status;

	start(m, NULL);
	status = fe_alloc(&fe, 512, 512, NULL);
	/* no status byte: no answer, but the buffer comes back */
	b[0] = fe_rd(&fe, header(VIRTIO_BLK_T_FLUSH, 0), 16);
	CHECK_EQ(fe_transact(q, b, 1), 0);
	/* half a header, none at all, only room for a status */
	for (uint32_t len = 1; len < 16; len += 7) {
		*status = NOT_SEEN;
		b[0] = fe_rd(&fe, header(VIRTIO_BLK_T_FLUSH, 0), len);
		b[1] = fe_wr(&fe, status, 1);
		CHECK_EQ(fe_transact(q, b, 2), 1);
		CHECK_EQ(*status, VIRTIO_BLK_S_IOERR);
	}
	memset(status, NOT_SEEN, 512);
	b[0] = fe_wr(&fe, status, 512);
	CHECK_EQ(fe_transact(q, b, 1), 1);
	CHECK_EQ(status[511], VIRTIO_BLK_S_IOERR);
	CHECK_EQ(status[0], NOT_SEEN);
	still_works();
	fe_end(&fe);
}

/* The data of a request is not guest memory: that request fails, the others don't. */
static void memory_that_is_none(const struct fe_mode *m)
{
	uint8_t *status;

	start(m, NULL);
	status = fe_alloc(&fe, 1, 1, NULL);
	for (int wr = 0; wr < 2; wr++) {
		struct vring_driver_buf b[] = {
			fe_rd(&fe, header(wr ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 0), 16),
			{.addr = 0x7fff00000000, .len = 512, .wr = wr},
			fe_wr(&fe, status, 1),
		};

		*status = NOT_SEEN;
		fe_transact(q, b, 3);
		CHECK_EQ(*status, VIRTIO_BLK_S_IOERR);
	}
	still_works();
	fe_end(&fe);
}

/* --- the other requests --- */

static void id(const struct fe_mode *m)
{
	static const char serial[20] = "serial-1234567890123";
	uint8_t *buf;

	start(m, "--serial=serial-1234567890123");
	buf = guest(64);
	for (uint32_t len = 0; len <= 40; len += 4) {
		struct answer a;

		memset(buf, 0xaa, 64);
		a = ask(VIRTIO_BLK_T_GET_ID, 0, buf, len, true);
		answers(a, VIRTIO_BLK_S_OK);
		CHECK_EQ(a.used, MIN(len, 20) + 1);
		CHECK_MEM(buf, serial, MIN(len, 20));
		CHECK_EQ(buf[MIN(len, 20)], 0xaa);
	}
	fe_end(&fe);
	image_new(MIB);
	fe_start(&fe, m, FE_ARGS("block", blk_file(), "--serial=ab"));
	q = fe_queue_up(&fe, 0, 16);
	buf = guest(64);
	memset(buf, 0xaa, 64);
	answers(ask(VIRTIO_BLK_T_GET_ID, 0, buf, 20, true), VIRTIO_BLK_S_OK);
	CHECK_MEM(buf, "ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	fe_end(&fe);
}

static void flush(const struct fe_mode *m)
{
	start(m, NULL);
	for (int i = 0; i < 10; i++) {
		struct answer a = ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false);

		answers(a, VIRTIO_BLK_S_OK);
		CHECK_EQ(a.used, 1);
	}
	still_works();
	fe_end(&fe);
}

static blkcnt_t blocks(void)
{
	struct stat st;

	CHECK_SYS(stat(image, &st));
	return st.st_blocks;
}

static struct virtio_blk_discard_write_zeroes *ranges(unsigned n)
{
	return fe_alloc(&fe, n * sizeof(struct virtio_blk_discard_write_zeroes), 8, NULL);
}

static struct answer ask_ranges(uint32_t type, const struct virtio_blk_discard_write_zeroes *r, unsigned n)
{
	return ask(type, 0, r, n * (uint32_t)sizeof(*r), false);
}

static void fill_image(uint8_t *data)
{
	pattern(data, 2 * MIB, 1);
	wr_ok(0, data, 2 * MIB);
	answers(ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
}

static void discard(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	blkcnt_t full;
	uint8_t *data;

	start(m, NULL);
	if (!offers(VIRTIO_BLK_F_DISCARD))
		tap_skip("no holes in files of %s", image);
	data = guest(2 * MIB);
	fill_image(data);
	full = blocks();
	r = ranges(2);
	r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 1024};
	r[1] = (struct virtio_blk_discard_write_zeroes){.sector = 2048, .num_sectors = 1024};
	answers(ask_ranges(VIRTIO_BLK_T_DISCARD, r, 2), VIRTIO_BLK_S_OK);
	CHECK(blocks() <= full - 2000);
	rd_ok(1024, data + 1024 * 512, 1024 * 512);
	rd_ok(3072, data + 3072 * 512, 1024 * 512);
	/* none of it and all of it */
	r[0].num_sectors = 0;
	answers(ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_OK);
	r[0].num_sectors = SECTORS;
	answers(ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_OK);
	CHECK(blocks() <= 64);
	still_works();
	fe_end(&fe);
}

static void write_zeroes(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;
	blkcnt_t full;

	start(m, NULL);
	data = guest(2 * MIB);
	fill_image(data);
	full = blocks();
	r = ranges(3);
	r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 0, .num_sectors = 1024};
	r[1] = (struct virtio_blk_discard_write_zeroes){.sector = 1025, .num_sectors = 1};
	r[2] = (struct virtio_blk_discard_write_zeroes){.sector = 1031, .num_sectors = 100};
	answers(ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 3), VIRTIO_BLK_S_OK);
	memset(data, 0, 1024 * 512);
	memset(data + 1025 * 512, 0, 512);
	memset(data + 1031 * 512, 0, 100 * 512);
	rd_ok(0, data, 2 * MIB);
	image_is(0, data, 2 * MIB);
	CHECK(blocks() >= full); /* no UNMAP: it stays allocated */
	r[0].flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	r[0].sector = 2048;
	answers(ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_OK);
	memset(data + 2048 * 512, 0, 1024 * 512);
	rd_ok(0, data, 2 * MIB);
	if (offers(VIRTIO_BLK_F_DISCARD))
		CHECK(blocks() <= full - 1000);
	fe_end(&fe);
}

static void bad_ranges_lists(const struct fe_mode *m)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
	static const struct virtio_blk_discard_write_zeroes beyond[] = {
		{.sector = SECTORS, .num_sectors = 1},
		{.sector = SECTORS - 1, .num_sectors = 2},
		{.sector = UINT64_MAX, .num_sectors = 1},
		{.sector = UINT64_MAX / 512, .num_sectors = UINT32_MAX},
		{.sector = 0, .num_sectors = UINT32_MAX},
	};
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;

	start(m, NULL);
	data = guest(2 * MIB);
	fill_image(data);
	r = ranges(2000);
	for (unsigned t = 0; t < 2; t++) {
		for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
			r[0] = (struct virtio_blk_discard_write_zeroes){.num_sectors = 8};
			r[1] = beyond[i];
			answers(ask_ranges(types[t], r, 2), VIRTIO_BLK_S_IOERR);
		}
		answers(ask(types[t], 0, NULL, 0, false), VIRTIO_BLK_S_IOERR);
		answers(ask(types[t], 0, r, 15, false), VIRTIO_BLK_S_IOERR);
		answers(ask(types[t], 0, r, 17, false), VIRTIO_BLK_S_IOERR);
		answers(ask_ranges(types[t], r, 2000), VIRTIO_BLK_S_IOERR);
		for (unsigned flag = 0; flag < 32; flag++) {
			r[1] = (struct virtio_blk_discard_write_zeroes){
				.num_sectors = 8, .flags = 1u << flag};
			if (t == 0 || flag != 0)
				answers(ask_ranges(types[t], r, 2), VIRTIO_BLK_S_UNSUPP);
		}
	}
	/* the good one in front of each bad one was not done either */
	rd_ok(0, data, 2 * MIB);
	still_works();
	fe_end(&fe);
}

/* --- options and configuration --- */

static void configuration(const struct fe_mode *m)
{
	struct virtio_blk_config c, part;
	uint8_t more[200];

	start(m, "--block-size=4096");
	c = config();
	CHECK_EQ(c.capacity, SECTORS);
	CHECK_EQ(c.blk_size, 4096);
	CHECK_EQ(c.seg_max, 126);
	CHECK_EQ(c.num_queues, 256);
	CHECK_EQ(c.wce, 1);
	CHECK(c.size_max >= 65536);
	CHECK(c.max_write_zeroes_sectors > 0 && c.max_write_zeroes_seg > 0);
	CHECK_EQ(fe.queue_num, 256);
	CHECK(!offers(VIRTIO_BLK_F_RO));
	CHECK(offers(VIRTIO_BLK_F_FLUSH) && offers(VIRTIO_BLK_F_MQ) && offers(VIRTIO_BLK_F_CONFIG_WCE));
	CHECK(offers(VIRTIO_BLK_F_WRITE_ZEROES) && offers(VIRTIO_BLK_F_SEG_MAX) &&
		offers(VIRTIO_BLK_F_BLK_SIZE));
	/* any part of it, as UML reads it, and more than there is */
	for (uint32_t len = 1; len <= sizeof(c); len++) {
		fe_config_get(&fe, 0, &part, len);
		CHECK_MEM(&part, &c, len);
	}
	fe_config_get(&fe, 0, more, sizeof(more));
	CHECK_MEM(more, &c, sizeof(c));
	for (size_t i = sizeof(c); i < sizeof(more); i++)
		CHECK_EQ(more[i], 0);
	fe_end(&fe);
}

static void write_cache_switch(const struct fe_mode *m)
{
	struct virtio_blk_config c;
	uint8_t off = 0, junk[60];

	start(m, NULL);
	CHECK_EQ(fe_config_set(&fe, 32, &off, 1, 0), 0);
	CHECK_EQ(config().wce, 0);
	/* all of it at once: only this byte is the driver's */
	memset(junk, 0xff, sizeof(junk));
	CHECK_EQ(fe_config_set(&fe, 0, junk, sizeof(junk), 0), 0);
	c = config();
	CHECK_EQ(c.wce, 1);
	CHECK_EQ(c.capacity, SECTORS);
	CHECK_EQ(fe_config_set(&fe, 31, junk, 1, 0), 0);
	CHECK_EQ(fe_config_set(&fe, 33, junk, 1, 0), 0);
	CHECK_EQ(config().wce, 1);
	/* a migration brings it along; a reset, which front-ends do when a guest only pauses, does not touch it */
	CHECK_EQ(fe_config_set(&fe, 32, &off, 1, 1), 0);
	CHECK_EQ(config().wce, 0);
	still_works();
	fe_queue_stop(q);
	fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	CHECK_EQ(config().wce, 0);
	fe_end(&fe);
}

struct cachestat_range {
	uint64_t off, len;
};

struct cachestat {
	uint64_t cache, dirty, writeback, evicted, recently_evicted;
};

/* Pages of the image that are not on stable storage. */
static uint64_t dirty_pages(void)
{
	struct cachestat_range all = {0, 0};
	struct cachestat cs;
	int fd = open(image, O_RDONLY | O_CLOEXEC);
	long r = syscall(451, fd, &all, &cs, 0); /* cachestat(2), Linux 6.5 */

	close(fd);
	if (r < 0)
		tap_skip("no cachestat(2): %s", strerror(errno));
	return cs.dirty + cs.writeback;
}

static uint64_t dirty_after_write(const struct fe_mode *m, const char *option, uint64_t mask, int wce)
{
	uint8_t byte = (uint8_t)wce, *data;
	uint64_t dirty;

	image_new(SECTORS * 512);
	fe_init(&fe, m);
	fe.device_mask &= ~mask;
	fe_spawn(&fe, FE_ARGS("block", blk_file(), option));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 128);
	if (wce >= 0)
		fe_config_set(&fe, 32, &byte, 1, 0);
	data = guest(MIB);
	pattern(data, MIB, 1);
	wr_ok(0, data, MIB);
	dirty = dirty_pages();
	fe_end(&fe);
	return dirty;
}

/* When is a write that was answered on stable storage? (virtio 1.2, 5.2.6.2) */
static void write_cache(const struct fe_mode *m)
{
	const uint64_t no_wce = BIT(VIRTIO_BLK_F_CONFIG_WCE), no_flush = BIT(VIRTIO_BLK_F_FLUSH);

	if (dirty_after_write(m, NULL, 0, -1) == 0)
		tap_skip("the file system of %s has no dirty pages", image);
	CHECK(dirty_after_write(m, NULL, no_wce, -1) > 0);
	CHECK_EQ(dirty_after_write(m, NULL, 0, 0), 0);
	CHECK(dirty_after_write(m, "--cache=writethrough", 0, 1) > 0);
	CHECK_EQ(dirty_after_write(m, "--cache=writethrough", 0, -1), 0);
	CHECK_EQ(dirty_after_write(m, "--cache=writethrough", no_wce, -1), 0);
	CHECK_EQ(dirty_after_write(m, NULL, no_wce | no_flush, -1), 0);
	CHECK_EQ(dirty_after_write(m, "--aio=threads", no_wce | no_flush, -1), 0);
}

/* The flags of the back-end's descriptor of the image. */
static int image_flags(void)
{
	for (int fd = 3; fd < 64; fd++) {
		char path[64], target[256] = "", line[128];
		int flags = -1;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", fe.process.pid, fd);
		if (readlink(path, target, sizeof(target) - 1) < 0 || strcmp(target, image) != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", fe.process.pid, fd);
		f = fopen(path, "re");
		CHECK(f != NULL);
		while (fgets(line, sizeof(line), f))
			sscanf(line, "flags: %o", (unsigned *)&flags);
		fclose(f);
		return flags;
	}
	FAIL("%s is not open", image);
}

static void read_only(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;

	start(m, "--read-only");
	CHECK(offers(VIRTIO_BLK_F_RO));
	CHECK(!offers(VIRTIO_BLK_F_DISCARD) && !offers(VIRTIO_BLK_F_WRITE_ZEROES));
	CHECK_EQ(image_flags() & O_ACCMODE, O_RDONLY);
	data = guest(4096);
	pattern(data, 4096, 8);
	image_write(0, data, 4096);
	rd_ok(0, data, 4096);
	memset(data, 0x11, 4096);
	answers(ask(VIRTIO_BLK_T_OUT, 0, data, 4096, false), VIRTIO_BLK_S_IOERR);
	r = ranges(1);
	r->num_sectors = 8;
	answers(ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_IOERR);
	answers(ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_IOERR);
	answers(ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	pattern(data, 4096, 8);
	image_is(0, data, 4096);
	rd_ok(0, data, 4096);
	fe_end(&fe);
}

static void odd_size(const struct fe_mode *m)
{
	uint8_t *data;

	image_new(1000 * 512 + 1);
	fe_start(&fe, m, FE_ARGS("block", blk_file()));
	q = fe_queue_up(&fe, 0, 16);
	fe_process_logs(&fe.process, "fill no sector");
	CHECK_EQ(config().capacity, 1000);
	data = guest(1024);
	pattern(data, 512, 4);
	wr_ok(999, data, 512);
	rd_ok(999, data, 512);
	answers(ask(VIRTIO_BLK_T_IN, 999, data, 1024, true), VIRTIO_BLK_S_IOERR);
	fe_end(&fe);
}

static void truncated_image(const struct fe_mode *m)
{
	uint8_t *data;

	start(m, NULL);
	CHECK_SYS(truncate(image, MIB));
	data = guest(8192);
	answers(ask(VIRTIO_BLK_T_IN, 2 * MIB / 512, data, 4096, true), VIRTIO_BLK_S_IOERR);
	answers(ask(VIRTIO_BLK_T_IN, MIB / 512 - 8, data, 8192, true), VIRTIO_BLK_S_IOERR);
	answers(ask(VIRTIO_BLK_T_IN, 0, data, 8192, true), VIRTIO_BLK_S_OK);
	still_works();
	fe_end(&fe);
}

static void null_disk(const struct fe_mode *m)
{
	uint8_t *data;

	fe_start(&fe, m, FE_ARGS("block", "--null=1G"));
	q = fe_queue_up(&fe, 0, 16);
	CHECK_EQ(config().capacity, 1u << 21);
	data = guest(4096);
	wr_ok((1u << 21) - 8, data, 4096);
	CHECK_EQ(ask(VIRTIO_BLK_T_IN, 0, data, 4096, true).used, 4097);
	answers(ask(VIRTIO_BLK_T_IN, 1u << 21, data, 4096, true), VIRTIO_BLK_S_IOERR);
	answers(ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	fe_end(&fe);
}

/* The program must end at once, with a message and this status. */
static void refused(int status, const char *text, const char *const *args)
{
	struct fe_process p;

	fe_process_start(&p, -1, args);
	fe_process_logs(&p, text);
	fe_process_exits(&p, status);
}

static void bad_options(const struct fe_mode *m)
{
	char other[192];

	(void)m;
	image_new(MIB);
	refused(1, "--blk-file", FE_ARGS("block", "--socket-path=x"));
	refused(1, "--blk-file", FE_ARGS("block", "--socket-path=x", "--null=1M", blk_file()));
	refused(1, "/nowhere", FE_ARGS("block", "--socket-path=x", "--blk-file=/nowhere"));
	refused(1, "neither", FE_ARGS("block", "--socket-path=x", "--blk-file=/dev/zero"));
	refused(1, "power of two", FE_ARGS("block", "--socket-path=x", blk_file(), "--block-size=1000"));
	refused(1, "20 bytes",
		FE_ARGS("block", "--socket-path=x", blk_file(), "--serial=123456789012345678901"));
	refused(2, "aio", FE_ARGS("block", "--socket-path=x", blk_file(), "--aio=magic"));
	refused(2, "cache", FE_ARGS("block", "--socket-path=x", blk_file(), "--cache=none"));
	snprintf(other, sizeof(other), "%s", blk_file());
	image_new(100);
	refused(1, "sector", FE_ARGS("block", "--socket-path=x", blk_file()));
	fe_start(&fe, NULL, FE_ARGS("block", other));
	refused(1, "another process", FE_ARGS("block", "--socket-path=x", other));
	refused(1, "another process", FE_ARGS("block", "--socket-path=x", other, "--read-only"));
	fe_end(&fe);
}

static void legacy_driver(const struct fe_mode *m)
{
	uint8_t *data;

	image_new(SECTORS * 512);
	fe_init(&fe, m);
	fe.legacy = true;
	fe_spawn(&fe, FE_ARGS("block", blk_file()));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 128);
	data = guest(4096);
	pattern(data, 4096, 2);
	wr_ok(0, data, 4096);
	rd_ok(0, data, 4096);
	fe_end(&fe);
}

int main(void)
{
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
	fe_case("configuration", configuration, &split);
	fe_case("write cache switch", write_cache_switch, &split);
	fe_case("write cache", write_cache, &split);
	fe_each_layout("read-only", read_only);
	fe_case("odd size", odd_size, &split);
	fe_case("truncated image", truncated_image, &split);
	fe_case("null disk", null_disk, &split);
	fe_case("bad options", bad_options, &split);
	fe_case("legacy driver", legacy_driver, &split);
	return tap_done();
}
