/* SPDX-License-Identifier: MIT */
/* Options and configuration space of the block device. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "block-rig.h"

static void configuration(const struct fe_mode *m)
{
	struct virtio_blk_config c, part;
	uint8_t more[200];

	blk_start(m, "--block-size=4096");
	c = blk_config();
	CHECK_EQ(c.capacity, BLK_SECTORS);
	CHECK_EQ(c.blk_size, 4096);
	CHECK_EQ(c.seg_max, 126);
	CHECK_EQ(c.num_queues, 256);
	CHECK_EQ(c.wce, 1);
	CHECK(c.size_max >= 65536);
	CHECK(c.max_write_zeroes_sectors > 0 && c.max_write_zeroes_seg > 0);
	CHECK_EQ(blk.fe.queue_num, 256);
	CHECK(!blk_offers(VIRTIO_BLK_F_RO));
	CHECK(blk_offers(VIRTIO_BLK_F_FLUSH) && blk_offers(VIRTIO_BLK_F_MQ) &&
		blk_offers(VIRTIO_BLK_F_CONFIG_WCE));
	CHECK(blk_offers(VIRTIO_BLK_F_WRITE_ZEROES) && blk_offers(VIRTIO_BLK_F_SEG_MAX) &&
		blk_offers(VIRTIO_BLK_F_BLK_SIZE));
	/* any part of it, as UML reads it, and more than there is */
	for (uint32_t len = 1; len <= sizeof(c); len++) {
		fe_config_get(&blk.fe, 0, &part, len);
		CHECK_MEM(&part, &c, len);
	}
	fe_config_get(&blk.fe, 0, more, sizeof(more));
	CHECK_MEM(more, &c, sizeof(c));
	for (size_t i = sizeof(c); i < sizeof(more); i++)
		CHECK_EQ(more[i], 0);
	fe_end(&blk.fe);
}

static void write_cache_switch(const struct fe_mode *m)
{
	struct virtio_blk_config c;
	uint8_t off = 0, junk[60];

	blk_start(m, NULL);
	CHECK_EQ(fe_config_set(&blk.fe, 32, &off, 1, 0), 0);
	CHECK_EQ(blk_config().wce, 0);
	/* all of it at once: only this byte is the driver's */
	memset(junk, 0xff, sizeof(junk));
	CHECK_EQ(fe_config_set(&blk.fe, 0, junk, sizeof(junk), 0), 0);
	c = blk_config();
	CHECK_EQ(c.wce, 1);
	CHECK_EQ(c.capacity, BLK_SECTORS);
	CHECK_EQ(fe_config_set(&blk.fe, 31, junk, 1, 0), 0);
	CHECK_EQ(fe_config_set(&blk.fe, 33, junk, 1, 0), 0);
	CHECK_EQ(blk_config().wce, 1);
	/* a migration brings it along; a reset, which front-ends do when a guest only pauses, does not touch it */
	CHECK_EQ(fe_config_set(&blk.fe, 32, &off, 1, 1), 0);
	CHECK_EQ(blk_config().wce, 0);
	blk_still_works();
	fe_queue_stop(blk.q);
	fe_set(&blk.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	CHECK_EQ(blk_config().wce, 0);
	fe_end(&blk.fe);
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
	int fd = open(blk.image, O_RDONLY | O_CLOEXEC);
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

	blk_image_new(BLK_SECTORS * 512);
	fe_init(&blk.fe, m);
	blk.fe.device_mask &= ~mask;
	fe_spawn(&blk.fe, FE_ARGS("block", blk_file(), option));
	fe_handshake(&blk.fe);
	fe_memory_default(&blk.fe);
	blk.q = fe_queue_up(&blk.fe, 0, 128);
	if (wce >= 0)
		fe_config_set(&blk.fe, 32, &byte, 1, 0);
	data = blk_guest(MIB);
	blk_pattern(data, MIB, 1);
	blk_wr_ok(0, data, MIB);
	dirty = dirty_pages();
	fe_end(&blk.fe);
	return dirty;
}

/* When is a write that was answered on stable storage? (virtio 1.2, 5.2.6.2) */
static void write_cache(const struct fe_mode *m)
{
	const uint64_t no_wce = BIT(VIRTIO_BLK_F_CONFIG_WCE), no_flush = BIT(VIRTIO_BLK_F_FLUSH);

	if (dirty_after_write(m, NULL, 0, -1) == 0)
		tap_skip("the file system of %s has no dirty pages", blk.image);
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

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", blk.fe.process.pid, fd);
		if (readlink(path, target, sizeof(target) - 1) < 0 || strcmp(target, blk.image) != 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", blk.fe.process.pid, fd);
		f = fopen(path, "re");
		CHECK(f != NULL);
		while (fgets(line, sizeof(line), f))
			sscanf(line, "flags: %o", (unsigned *)&flags);
		fclose(f);
		return flags;
	}
	FAIL("%s is not open", blk.image);
}

static void read_only(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;

	blk_start(m, "--read-only");
	CHECK(blk_offers(VIRTIO_BLK_F_RO));
	CHECK(!blk_offers(VIRTIO_BLK_F_DISCARD) && !blk_offers(VIRTIO_BLK_F_WRITE_ZEROES));
	CHECK_EQ(image_flags() & O_ACCMODE, O_RDONLY);
	data = blk_guest(4096);
	blk_pattern(data, 4096, 8);
	blk_image_write(0, data, 4096);
	blk_rd_ok(0, data, 4096);
	memset(data, 0x11, 4096);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 0, data, 4096, false), VIRTIO_BLK_S_IOERR);
	r = blk_ranges(1);
	r->num_sectors = 8;
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_DISCARD, r, 1), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 1), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	blk_pattern(data, 4096, 8);
	blk_image_is(0, data, 4096);
	blk_rd_ok(0, data, 4096);
	fe_end(&blk.fe);
}

static void odd_size(const struct fe_mode *m)
{
	uint8_t *data;

	blk_image_new(1000 * 512 + 1);
	fe_start(&blk.fe, m, FE_ARGS("block", blk_file()));
	blk.q = fe_queue_up(&blk.fe, 0, 16);
	fe_process_logs(&blk.fe.process, "fill no sector");
	CHECK_EQ(blk_config().capacity, 1000);
	data = blk_guest(1024);
	blk_pattern(data, 512, 4);
	blk_wr_ok(999, data, 512);
	blk_rd_ok(999, data, 512);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 999, data, 1024, true), VIRTIO_BLK_S_IOERR);
	fe_end(&blk.fe);
}

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
	blk_image_new(MIB);
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
	blk_image_new(100);
	refused(1, "sector", FE_ARGS("block", "--socket-path=x", blk_file()));
	fe_start(&blk.fe, NULL, FE_ARGS("block", other));
	refused(1, "another process", FE_ARGS("block", "--socket-path=x", other));
	refused(1, "another process", FE_ARGS("block", "--socket-path=x", other, "--read-only"));
	fe_end(&blk.fe);
}

int main(void)
{
	const struct fe_mode split = {0};

	fe_case("configuration", configuration, &split);
	fe_case("write cache switch", write_cache_switch, &split);
	fe_case("write cache", write_cache, &split);
	fe_each_layout("read-only", read_only);
	fe_case("odd size", odd_size, &split);
	fe_case("bad options", bad_options, &split);
	return tap_done();
}
