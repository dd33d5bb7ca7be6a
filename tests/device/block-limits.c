/* SPDX-License-Identifier: MIT */
/*
 * A block device that changes while it runs, or that is held back: a new size reaches the driver, and limits hold without
 * losing or starving anything.
 */
#include <fcntl.h>

#include "block-rig.h"

static const struct fe_mode split = {0};

/* --- the size --- */

static void capacity_becomes(uint64_t size)
{
	uint8_t *data = blk_guest(4096);

	fe_config_changed(&blk.fe);
	CHECK_EQ(blk_config().capacity, size / 512);
	blk_pattern(data, 4096, 5);
	blk_wr_ok(size / 512 - 8, data, 4096);
	blk_image_is((off_t)size - 4096, data, 4096);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, size / 512 - 7, data, 4096, true), VIRTIO_BLK_S_IOERR);
}

static void file_grows(const struct fe_mode *m)
{
	int fd;

	blk_start(m, "--threads=1");
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, BLK_SECTORS, blk_guest(512), 512, true), VIRTIO_BLK_S_IOERR);
	fd = open(blk.image, O_WRONLY | O_CLOEXEC);
	CHECK_SYS(ftruncate(fd, 16 * MIB));
	close(fd);
	capacity_becomes(16 * MIB);
	blk_still_works();
	fe_end(&blk.fe);
}

static void by_command(const struct fe_mode *m)
{
	char path[160], option[192];
	int fd;

	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	blk_start(m, option);
	fd = fe_control_open(path);
	CHECK_SYS(truncate(blk.image, 8 * MIB));
	CHECK(strstr(fe_control(fd, "resize"), "8388608") != NULL);
	capacity_becomes(8 * MIB);
	CHECK(strstr(fe_control_ask(fd, "{\"execute\":\"resize\",\"arguments\":{\"size\":\"32M\"}}"),
		      "33554432") != NULL);
	capacity_becomes(32 * MIB);
	CHECK(strstr(fe_control_ask(fd, "{\"execute\":\"resize\",\"arguments\":{\"size\":\"1M\"}}"),
		      "Invalid argument") != NULL);
	CHECK(strstr(fe_control_ask(fd, "{\"execute\":\"resize\",\"arguments\":{\"size\":0}}"),
		      "not a size") != NULL);
	CHECK_EQ(blk_config().capacity, 32 * MIB / 512);
	blk_still_works();
	close(fd);
	fe_end(&blk.fe);
}

static void event_says_so(const struct fe_mode *m)
{
	char path[160], option[192];
	int fd;

	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	blk_start(m, option);
	fd = fe_control_open(path);
	fe_control(fd, "query-status");
	fe_control_send(fd, "{\"execute\":\"resize\",\"arguments\":{\"size\":\"8M\"}}\n");
	CHECK(strstr(fe_control_event(fd, "resized"), "8388608") != NULL);
	close(fd);
	fe_end(&blk.fe);
}

/* --- limits --- */

static uint8_t *status;

static void limited(const struct fe_mode *m, unsigned queues, const char *a, const char *b, const char *c)
{
	fe_start(&blk.fe, m, FE_ARGS("block", "--null=1M", a, b, c));
	for (unsigned i = 0; i < queues; i++)
		fe_queue_up(&blk.fe, i, 128);
	blk.q = blk.fe.queues[0];
	status = fe_alloc(&blk.fe, 256, 1, NULL);
	memset(status, BLK_NOT_SEEN, 256);
}

/* n reads of this many bytes. */
static void ask_many(struct fe_queue *q, unsigned n, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		struct vring_driver_buf b[] = {fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_IN, 0), 16),
			fe_wr(&blk.fe, blk_guest(len), len), fe_wr(&blk.fe, status + i, 1)};

		fe_submit(q, b, 3, NULL);
	}
	fe_flush(q);
}

static void iops_hold(const struct fe_mode *m)
{
	int64_t start;

	limited(m, 2, "--iops=200", "--iops-burst=4", NULL);
	start = fe_now_ms();
	ask_many(blk.fe.queues[0], 12, 512);
	ask_many(blk.fe.queues[1], 12, 512);
	for (int i = 0; i < 24; i++)
		CHECK_EQ(fe_wait(blk.fe.queues[i % 2], NULL), 513);
	CHECK(fe_now_ms() - start >= (24 - 4) * 5 - 1);
	for (int i = 0; i < 12; i++)
		CHECK_EQ(status[i], VIRTIO_BLK_S_OK);
	fe_end(&blk.fe);
}

static void bps_hold(const struct fe_mode *m)
{
	int64_t start;

	limited(m, 1, "--bps=1M", "--bps-burst=64K", "--threads=1");
	start = fe_now_ms();
	ask_many(blk.q, 12, 16384);
	for (int i = 0; i < 12; i++)
		CHECK_EQ(fe_wait(blk.q, NULL), 16385);
	CHECK(fe_now_ms() - start >= (12 - 4) * 1000 / 64 - 1);
	fe_end(&blk.fe);
}

/* One queue has a lot to do; what another asks for later is not behind all of that. */
static void queues_take_turns(const struct fe_mode *m)
{
	unsigned n = 0, others = 0;
	bool late = false; /* we got no time, and cannot tell */
	int64_t last, now;
	void *cookie;
	uint32_t len;

	limited(m, 2, "--iops=100", "--iops-burst=1", NULL);
	ask_many(blk.fe.queues[0], 32, 512);
	fe_wait(blk.fe.queues[0], NULL);
	for (last = fe_now_ms(), ask_many(blk.fe.queues[1], 3, 512); others < 3; last = now) {
		others += fe_wait_ms(blk.fe.queues[1], &cookie, &len, 1);
		while (fe_wait_ms(blk.fe.queues[0], &cookie, &len, 0))
			n++;
		now = fe_now_ms();
		late |= now - last > 100;
	}
	CHECK(n < 25 || late);
	for (; n < 31; n++)
		fe_wait(blk.fe.queues[0], NULL);
	fe_end(&blk.fe);
}

/* What waits for its turn does not delay a stop: it is in the ring. */
static void stops_at_once(const struct fe_mode *m)
{
	uint32_t base;

	limited(m, 2, "--iops=1", "--iops-burst=1", NULL);
	ask_many(blk.fe.queues[0], 8, 512);
	fe_wait(blk.fe.queues[0], NULL);
	ask_many(blk.fe.queues[1], 8, 512);
	fe_barrier(&blk.fe);
	base = fe_queue_stop(blk.fe.queues[0]);
	CHECK_EQ(base & 0x7fff, m->packed ? 3 : 1);
	base = fe_queue_stop(blk.fe.queues[1]);
	CHECK_EQ(base & 0x7fff, 0);
	CHECK(status[1] != VIRTIO_BLK_S_OK);
	/* it goes on with the next one */
	fe_queue_send(blk.fe.queues[1], base);
	fe_queue_enable(blk.fe.queues[1], true);
	fe_kick(blk.fe.queues[1]);
	CHECK_EQ(fe_wait(blk.fe.queues[1], NULL), 513);
	fe_end(&blk.fe);
}

static void reset_in_between(const struct fe_mode *m)
{
	limited(m, 1, "--iops=50", "--iops-burst=1", NULL);
	for (int i = 0; i < 5; i++) {
		ask_many(blk.q, 8, 512);
		fe_wait(blk.q, NULL);
		fe_queue_stop(blk.q);
		fe_queue_clear(blk.q, FE_FRESH);
		fe_queue_send(blk.q, m->packed ? 0x80008000 : 0);
		fe_queue_enable(blk.q, true);
	}
	ask_many(blk.q, 1, 512);
	CHECK_EQ(fe_wait(blk.q, NULL), 513);
	fe_end(&blk.fe);
}

int main(void)
{
	fe_each_layout("size: the file grows", file_grows);
	fe_case("size: by command", by_command, &split);
	fe_case("size: an event says so", event_says_so, &split);
	fe_each_mode("limits: requests per second", iops_hold);
	fe_each_layout("limits: bytes per second", bps_hold);
	fe_each_layout("limits: queues take turns", queues_take_turns);
	fe_each_layout("limits: a queue stops at once", stops_at_once);
	fe_each_layout("limits: resets", reset_in_between);
	return tap_done();
}
