/* SPDX-License-Identifier: MIT */
/*
 * A block device of the host behind the block device: its size and sectors come from the kernel, discards and zeroes
 * reach it. The device is a loop device on a sparse file, so that what was discarded can be seen as holes.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "block-rig.h"

enum { SIZE = 8 * MIB };

static char backing[160];

static blkcnt_t blocks(void)
{
	struct stat st;

	CHECK_SYS(stat(backing, &st));
	return st.st_blocks;
}

/* A loop device on the file, or -1: another one took the number. It goes when nobody has it open. */
static int loop_configure(int file, int number, uint32_t sector, uint32_t flags)
{
	struct loop_config c = {
		.fd = (uint32_t)file, .block_size = sector, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR | flags}};
	int fd;

	snprintf(blk.image, sizeof(blk.image), "/dev/loop%d", number);
	fd = open(blk.image, (flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		tap_skip("%s: %s", blk.image, strerror(errno));
	if (ioctl(fd, LOOP_CONFIGURE, &c) == 0)
		return fd;
	if (errno != EBUSY)
		tap_skip("%s: cannot be set up: %s", blk.image, strerror(errno));
	close(fd);
	return -1;
}

/* The value holds it until the case ends. Takes file. */
static int loop_on(int file, uint32_t sector, uint32_t flags)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;

	if (control < 0)
		tap_skip("no loop devices here: /dev/loop-control: %s", strerror(errno));
	while (fd < 0) {
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			tap_skip("no loop device is free: %s", strerror(errno));
		fd = loop_configure(file, number, sector, flags);
	}
	close(file);
	close(control);
	return fd;
}

static int loop_new(off_t size, uint32_t sector, uint32_t flags)
{
	int file;

	snprintf(backing, sizeof(backing), "%s/backing", fe_tmpdir());
	file = open(backing, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(file);
	CHECK_SYS(ftruncate(file, size));
	return loop_on(file, sector, flags);
}

static void device_up(const struct fe_mode *m, const char *option)
{
	fe_start(&blk.fe, m, FE_ARGS("block", blk_file(), option));
	blk.q = fe_queue_up(&blk.fe, 0, 64);
}

static void flush(void)
{
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
}

/* The first two MiB. */
static uint8_t *fill(void)
{
	uint8_t *data = blk_guest(2 * MIB);

	blk_pattern(data, 2 * MIB, 5);
	blk_wr_ok(0, data, 2 * MIB);
	flush();
	return data;
}

static void is_zero(uint64_t sector, uint32_t len)
{
	void *zeroes = calloc(1, len);

	blk_rd_ok(sector, zeroes, len);
	free(zeroes);
}

static void range(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags, uint8_t status)
{
	struct virtio_blk_discard_write_zeroes *r = blk_ranges(1);

	*r = (struct virtio_blk_discard_write_zeroes){
		.sector = sector, .num_sectors = sectors, .flags = flags};
	blk_answers(blk_ask_ranges(type, r, 1), status);
}

static void geometry(const struct fe_mode *m, uint32_t sector)
{
	struct virtio_blk_config c;
	uint8_t *data;
	int fd = loop_new(SIZE + 7 * 4096, sector, 0);
	uint64_t size = 0;

	CHECK_SYS(ioctl(fd, BLKGETSIZE64, &size));
	CHECK_EQ(size, SIZE + 7 * 4096);
	device_up(m, NULL);
	c = blk_config();
	CHECK_EQ(c.capacity, size / 512);
	CHECK_EQ(c.blk_size, sector);
	CHECK(blk_offers(VIRTIO_BLK_F_DISCARD) && blk_offers(VIRTIO_BLK_F_WRITE_ZEROES));
	CHECK(!blk_offers(VIRTIO_BLK_F_RO));
	CHECK(c.max_discard_sectors > 0 && c.discard_sector_alignment > 0);
	data = blk_guest(8192);
	blk_pattern(data, 8192, 3);
	blk_wr_ok(size / 512 - 16, data, 8192);
	blk_rd_ok(size / 512 - 16, data, 8192);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, size / 512 - 8, data, 8192, true), VIRTIO_BLK_S_IOERR);
	flush();
	blk_image_is((off_t)size - 8192, data, 8192);
	fe_end(&blk.fe);
	close(fd);
}

static void size_and_sectors(const struct fe_mode *m)
{
	geometry(m, 512);
}

static void large_sectors(const struct fe_mode *m)
{
	geometry(m, 4096);
}

static void discard(const struct fe_mode *m)
{
	int fd = loop_new(SIZE, 512, 0);
	blkcnt_t full;
	uint8_t *data;

	device_up(m, NULL);
	data = fill();
	full = blocks();
	CHECK(full >= 2 * MIB / 512);
	range(VIRTIO_BLK_T_DISCARD, MIB / 512, MIB / 512, 0, VIRTIO_BLK_S_OK);
	CHECK(blocks() <= full - MIB / 512);
	is_zero(MIB / 512, MIB);
	blk_rd_ok(0, data, MIB);
	/* less than the device's granularity, or past the end of it */
	range(VIRTIO_BLK_T_DISCARD, 1, 1, 0, VIRTIO_BLK_S_OK);
	range(VIRTIO_BLK_T_DISCARD, SIZE / 512 - 1, 2, 0, VIRTIO_BLK_S_IOERR);
	blk_rd_ok(2, data + 1024, 4096);
	fe_end(&blk.fe);
	close(fd);
}

static void write_zeroes(const struct fe_mode *m)
{
	int fd = loop_new(SIZE, 512, 0);
	blkcnt_t full;
	uint8_t *data;

	device_up(m, NULL);
	data = fill();
	full = blocks();
	range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 512, 0, VIRTIO_BLK_S_OK); /* 256 KiB */
	is_zero(0, 512 * 512);
	blk_rd_ok(512, data + 512 * 512, 4096);
	range(VIRTIO_BLK_T_WRITE_ZEROES, MIB / 512, MIB / 512, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
		VIRTIO_BLK_S_OK);
	CHECK(blocks() <= full - MIB / 512);
	is_zero(MIB / 512, MIB);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 1001, 3, 0, VIRTIO_BLK_S_OK);
	blk_rd_ok(1000, data + 1000 * 512, 512);
	is_zero(1001, 3 * 512);
	blk_rd_ok(1004, data + 1004 * 512, 4096);
	fe_end(&blk.fe);
	close(fd);
}

/* A driver that minds no sectors; the device has larger ones. */
static void between_sectors(const struct fe_mode *m)
{
	int fd = loop_new(SIZE, 4096, 0);
	uint8_t *data;

	device_up(m, NULL);
	data = fill();
	range(VIRTIO_BLK_T_WRITE_ZEROES, 9, 16, 0, VIRTIO_BLK_S_OK);
	blk_rd_ok(8, data + 8 * 512, 512);
	is_zero(9, 16 * 512);
	blk_rd_ok(25, data + 25 * 512, 7 * 512);
	range(VIRTIO_BLK_T_WRITE_ZEROES, 101, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, VIRTIO_BLK_S_OK);
	blk_rd_ok(100, data + 100 * 512, 512);
	is_zero(101, 3 * 512);
	blk_rd_ok(104, data + 104 * 512, 512);
	range(VIRTIO_BLK_T_DISCARD, 201, 30, 0, VIRTIO_BLK_S_OK); /* 208 to 223 are whole sectors */
	blk_rd_ok(200, data + 200 * 512, 8 * 512);
	is_zero(208, 16 * 512);
	blk_rd_ok(224, data + 224 * 512, 8 * 512);
	blk_wr_ok(301, data, 512);
	blk_rd_ok(301, data, 512);
	blk_rd_ok(302, data + 302 * 512, 512);
	fe_end(&blk.fe);
	close(fd);
}

static void refused(const char *text, const char *option)
{
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("block", "--socket-path=x", blk_file(), option));
	fe_process_logs(&p, text);
	fe_process_exits(&p, 1);
}

/* A device that cannot be written to, and one that shall not. */
static void read_only(const struct fe_mode *m)
{
	uint8_t *data;
	int fd;

	for (int soft = 0; soft < 2; soft++) {
		fd = loop_new(SIZE, 512, soft ? 0 : LO_FLAGS_READ_ONLY);
		if (!soft)
			refused(blk.image, NULL);
		device_up(m, "--read-only");
		CHECK(blk_offers(VIRTIO_BLK_F_RO));
		CHECK(!blk_offers(VIRTIO_BLK_F_DISCARD) && !blk_offers(VIRTIO_BLK_F_WRITE_ZEROES));
		is_zero(0, 4096);
		data = blk_guest(4096);
		blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 0, data, 4096, false), VIRTIO_BLK_S_IOERR);
		range(VIRTIO_BLK_T_DISCARD, 0, 8, 0, VIRTIO_BLK_S_IOERR);
		flush();
		CHECK_EQ(blocks(), 0);
		fe_end(&blk.fe);
		close(fd);
	}
}

/* Errors of the host's device reach the driver; the ring goes on. */
static void broken_device(const struct fe_mode *m)
{
	int file = memfd_create("backing", MFD_CLOEXEC | MFD_ALLOW_SEALING), seal = dup(file), fd;
	uint8_t *data;

	CHECK_SYS(seal);
	CHECK_SYS(ftruncate(file, SIZE));
	fd = loop_on(file, 512, 0);
	device_up(m, "--direct");
	data = fill();
	CHECK_SYS(fcntl(seal, F_ADD_SEALS, F_SEAL_WRITE)); /* from now on each write fails */
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 64, data + 4096, 4096, false), VIRTIO_BLK_S_IOERR);
	blk_rd_ok(0, data, 4096);
	blk_rd_ok(64, data + 64 * 512, 4096);
	fe_end(&blk.fe);
	close(fd);
	close(seal);
}

static void each_way(const struct fe_mode *m)
{
	static const char *const options[] = {"--direct", "--aio=threads", "--cache=writethrough"};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		int fd = loop_new(SIZE, 512, 0);
		uint8_t *data;

		device_up(m, options[i]);
		data = fill();
		blk_rd_ok(0, data, 2 * MIB);
		blk_rd_ok(77, data + 77 * 512, 512);
		range(VIRTIO_BLK_T_DISCARD, 0, 2 * MIB / 512, 0, VIRTIO_BLK_S_OK);
		is_zero(0, 2 * MIB);
		fe_end(&blk.fe);
		close(fd);
	}
}

/* Nobody tells of a device that became larger; the command makes us look. */
static void larger_by_command(const struct fe_mode *m)
{
	char path[160], option[192];
	int fd = loop_new(4 * MIB, 512, 0), control;

	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	device_up(m, option);
	control = fe_control_open(path);
	CHECK_EQ(blk_config().capacity, 4 * MIB / 512);
	CHECK_SYS(truncate(backing, 8 * MIB));
	CHECK_SYS(ioctl(fd, LOOP_SET_CAPACITY));
	CHECK(strstr(fe_control(control, "resize"), "8388608") != NULL);
	fe_config_changed(&blk.fe);
	CHECK_EQ(blk_config().capacity, 8 * MIB / 512);
	is_zero(8 * MIB / 512 - 8, 4096);
	CHECK(strstr(fe_control_ask(control, "{\"execute\":\"resize\",\"arguments\":{\"size\":\"16M\"}}"),
		      "error") != NULL);
	CHECK(!blk_offers(VIRTIO_BLK_F_SECURE_ERASE));
	close(control);
	fe_end(&blk.fe);
	close(fd);
}

int main(void)
{
	const struct fe_mode split = {0};

	fe_case("size and sectors", size_and_sectors, &split);
	fe_case("large sectors", large_sectors, &split);
	fe_each_layout("discard", discard);
	fe_each_layout("write zeroes", write_zeroes);
	fe_case("between the sectors of the device", between_sectors, &split);
	fe_case("read-only", read_only, &split);
	fe_case("errors of the device", broken_device, &split);
	fe_case("each way of doing I/O", each_way, &split);
	fe_case("larger by command", larger_by_command, &split);
	return tap_done();
}
