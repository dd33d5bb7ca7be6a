/* SPDX-License-Identifier: MIT */
/*
 * A host-managed zoned block device behind the block device: its zones as the guest sees them, writes at the write pointer
 * and elsewhere, appends from several queues, and what changes the state of a zone. $ZONED_DEVICE has zones of 2 MiB, of which
 * 1 MiB can be written, the first two conventional, and at most two open and three active ones.
 */
#include "block-rig.h"

enum {
	F_ZONED = 17,
	APPEND = 15,
	REPORT = 16,
	OPEN = 18,
	CLOSE = 20,
	FINISH = 22,
	RESET = 24,
	RESET_ALL = 26,
	INVALID = 3,
	UNALIGNED = 4,
	OPEN_RESOURCE = 5,
	ACTIVE_RESOURCE = 6,
	ZONE = 4096,
	CAPACITY = 2048, /* sectors */
	CONVENTIONAL = 2,
	QUEUES = 2,
	APPENDS = 24,
};

enum { EMPTY = 1, IMPLICIT = 2, EXPLICIT = 3, CLOSED = 4, FULL = 14 };

struct zoned_config {
	uint32_t zone_sectors, max_open, max_active, max_append, granularity;
	uint8_t model, unused[3];
};

struct zone {
	uint64_t capacity, start, wp;
	uint8_t type, state, unused[38];
};

struct zones {
	uint64_t n;
	uint8_t unused[56];
	struct zone zone[];
};

static const struct fe_mode split = {0};

static const char *device_option(void)
{
	static char option[96];
	const char *name = getenv("ZONED_DEVICE");

	if (name == NULL)
		tap_skip("ZONED_DEVICE names no zoned device");
	snprintf(blk.image, sizeof(blk.image), "%s", name);
	snprintf(option, sizeof(option), "--blk-file=%s", name);
	return option;
}

static uint8_t change(uint32_t type, uint64_t zone)
{
	return blk_ask(type, zone * ZONE, NULL, 0, false).status;
}

static void zoned_start(const struct fe_mode *m, const char *option)
{
	fe_start(&blk.fe, m, FE_ARGS("block", device_option(), "--direct", option));
	blk.q = fe_queue_up(&blk.fe, 0, 128);
	CHECK_EQ(change(RESET_ALL, 0), VIRTIO_BLK_S_OK);
}

static const struct zones *report(uint64_t sector, unsigned room)
{
	uint32_t len = (uint32_t)(sizeof(struct zones) + room * sizeof(struct zone));
	struct zones *z = blk_guest(len);

	memset(z, 0xaa, len);
	blk_answers(blk_ask(REPORT, sector, z, len, true), VIRTIO_BLK_S_OK);
	return z;
}

static void zone_is(uint64_t number, uint8_t state, uint64_t written)
{
	const struct zones *z = report(number * ZONE, 1);

	CHECK_EQ(z->n, 1);
	CHECK_EQ(z->zone[0].start, number * ZONE);
	CHECK_EQ(z->zone[0].state, state);
	if (state != FULL)
		CHECK_EQ(z->zone[0].wp, number * ZONE + written);
}

static uint8_t wr(uint64_t sector, const void *data, uint32_t len)
{
	return blk_ask(VIRTIO_BLK_T_OUT, sector, data, len, false).status;
}

/* An append on its way. */
struct append {
	uint8_t *data, *in; /* in: the sector, and the status */
	uint32_t len;
};

static struct append append_stage(
	struct fe_queue *q, uint64_t zone, uint8_t *data, uint32_t len, void *cookie)
{
	struct append a = {data, fe_alloc(&blk.fe, 9, 1, NULL), len};
	struct vring_driver_buf b[3];

	memset(a.in, BLK_NOT_SEEN, 9);
	b[0] = fe_rd(&blk.fe, blk_header(APPEND, zone * ZONE), 16);
	b[1] = fe_rd(&blk.fe, data, len);
	b[2] = fe_wr(&blk.fe, a.in, 9);
	fe_submit(q, b, 3, cookie);
	return a;
}

static uint64_t sector_of(const struct append *a)
{
	uint64_t sector;

	memcpy(&sector, a->in, sizeof(sector));
	return sector;
}

static struct append append(uint64_t zone, uint8_t *data, uint32_t len)
{
	struct append a = append_stage(blk.q, zone, data, len, NULL);

	fe_flush(blk.q);
	fe_wait(blk.q, NULL);
	return a;
}

/* --- cases --- */

static void what_is_told(const struct fe_mode *m)
{
	struct zoned_config c;
	const struct zones *z;

	zoned_start(m, NULL);
	CHECK(blk_offers(F_ZONED) && !blk_offers(VIRTIO_BLK_F_DISCARD));
	fe_config_get(&blk.fe, 72, &c, sizeof(c));
	CHECK_EQ(c.zone_sectors, ZONE);
	CHECK_EQ(c.max_open, 2);
	CHECK_EQ(c.max_active, 3);
	CHECK_EQ(c.max_append, ZONE);
	CHECK_EQ(c.granularity, 512);
	CHECK_EQ(c.model, 1);
	z = report(0, 600);
	CHECK_EQ(z->n, blk_config().capacity / ZONE);
	for (uint64_t i = 0; i < z->n; i++) {
		CHECK_EQ(z->zone[i].start, i * ZONE);
		CHECK_EQ(z->zone[i].type, i < CONVENTIONAL ? 1 : 2);
		CHECK_EQ(z->zone[i].state, i < CONVENTIONAL ? 0 : EMPTY);
		if (i >= CONVENTIONAL)
			CHECK_EQ(z->zone[i].capacity, CAPACITY);
	}
	CHECK_EQ(z->zone[z->n].start, 0xaaaaaaaaaaaaaaaau);
	z = report(5 * ZONE + 77, 3);
	CHECK_EQ(z->n, 3);
	CHECK_EQ(z->zone[0].start, 5 * ZONE);
	CHECK_EQ(z->zone[2].start, 7 * ZONE);
	blk_answers(blk_ask(REPORT, 0, blk_guest(64), 64, true), INVALID);
	for (uint32_t type = REPORT + 1; type <= RESET_ALL + 1; type += 2)
		CHECK_EQ(change(type, 3), VIRTIO_BLK_S_UNSUPP);
	blk_answers(blk_ask(REPORT, blk_config().capacity, blk_guest(128), 128, true), INVALID);
	fe_end(&blk.fe);
}

static void writes(const struct fe_mode *m)
{
	uint8_t *data;

	zoned_start(m, NULL);
	data = blk_guest(MIB + 4096);
	blk_pattern(data, MIB, 1);
	blk_wr_ok(3 * ZONE, data, 65536);
	CHECK_EQ(wr(3 * ZONE, data, 4096), UNALIGNED);
	CHECK_EQ(wr(3 * ZONE + 256, data, 4096), UNALIGNED);
	blk_wr_ok(3 * ZONE + 128, data + 65536, MIB - 65536 - 8192);
	zone_is(3, IMPLICIT, CAPACITY - 16);
	CHECK_EQ(wr(3 * ZONE + CAPACITY - 16, data, 16384), VIRTIO_BLK_S_IOERR);
	/* not aligned in memory */
	memmove(data + MIB - 8191, data + MIB - 8192, 8192);
	blk_wr_ok(3 * ZONE + CAPACITY - 16, data + MIB - 8191, 8192);
	memmove(data + MIB - 8192, data + MIB - 8191, 8192);
	zone_is(3, FULL, 0);
	blk_rd_ok(3 * ZONE, data, MIB);
	CHECK_EQ(wr(3 * ZONE, data, 4096), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(change(RESET, 3), VIRTIO_BLK_S_OK);
	zone_is(3, EMPTY, 0);
	blk_wr_ok(3 * ZONE, data, 4096);
	/* anywhere in a conventional one */
	blk_wr_ok(ZONE + 800, data, 65536);
	blk_wr_ok(ZONE + 8, data, 65536);
	blk_rd_ok(ZONE + 8, data, 65536);
	fe_end(&blk.fe);
}

static void appends(const struct fe_mode *m)
{
	uint8_t *data;
	struct append a;

	zoned_start(m, NULL);
	data = blk_guest(MIB);
	blk_pattern(data, MIB, 5);
	for (uint64_t at = 0; at < CAPACITY; at += 256) {
		a = append(4, data + at * 512, 131072);
		CHECK_EQ(a.in[8], VIRTIO_BLK_S_OK);
		CHECK_EQ(sector_of(&a), 4 * ZONE + at);
	}
	blk_rd_ok(4 * ZONE, data, MIB);
	CHECK_EQ(append(4, data, 4096).in[8], INVALID);
	CHECK_EQ(append(0, data, 4096).in[8], INVALID);
	CHECK_EQ(append(blk_config().capacity / ZONE, data, 4096).in[8], VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(APPEND, 5 * ZONE, data, 4096, false), VIRTIO_BLK_S_IOERR);
	zone_is(5, EMPTY, 0);
	fe_end(&blk.fe);
}

/* All find a place of their own. */
static void appends_of_several_queues(const struct fe_mode *m)
{
	struct append a[QUEUES * APPENDS];
	struct fe_queue *queues[QUEUES];
	bool seen[QUEUES * APPENDS] = {false};

	zoned_start(m, "--threads=2");
	queues[0] = blk.q;
	queues[1] = fe_queue_up(&blk.fe, 1, 128);
	for (unsigned i = 0; i < QUEUES * APPENDS; i++) {
		uint8_t *data = blk_guest(4096);

		blk_pattern(data, 4096, i);
		a[i] = append_stage(queues[i % QUEUES], 6, data, 4096, NULL);
	}
	for (unsigned i = 0; i < QUEUES; i++)
		fe_flush(queues[i]);
	for (unsigned i = 0; i < QUEUES * APPENDS; i++)
		fe_wait(queues[i % QUEUES], NULL);
	zone_is(6, IMPLICIT, QUEUES * APPENDS * 8);
	for (unsigned i = 0; i < QUEUES * APPENDS; i++) {
		uint64_t at = (sector_of(&a[i]) - 6 * ZONE) / 8;

		CHECK_EQ(a[i].in[8], VIRTIO_BLK_S_OK);
		CHECK(at < QUEUES * APPENDS && !seen[at]);
		seen[at] = true;
		blk_rd_ok(sector_of(&a[i]), a[i].data, 4096);
	}
	fe_end(&blk.fe);
}

static void states(const struct fe_mode *m)
{
	uint8_t *data;

	zoned_start(m, NULL);
	data = blk_guest(4096);
	CHECK_EQ(change(OPEN, 7), VIRTIO_BLK_S_OK);
	zone_is(7, EXPLICIT, 0);
	CHECK_EQ(change(OPEN, 8), VIRTIO_BLK_S_OK);
	CHECK_EQ(change(OPEN, 9), OPEN_RESOURCE);
	blk_wr_ok(7 * ZONE, data, 4096);
	CHECK_EQ(change(CLOSE, 7), VIRTIO_BLK_S_OK);
	zone_is(7, CLOSED, 8);
	CHECK_EQ(change(OPEN, 9), VIRTIO_BLK_S_OK);
	CHECK_EQ(change(CLOSE, 8), VIRTIO_BLK_S_OK);
	zone_is(8, EMPTY, 0); /* nothing was written to it */
	blk_wr_ok(8 * ZONE, data, 4096);
	CHECK_EQ(wr(10 * ZONE, data, 4096), ACTIVE_RESOURCE);
	CHECK_EQ(change(CLOSE, 9), VIRTIO_BLK_S_OK);
	CHECK_EQ(change(FINISH, 7), VIRTIO_BLK_S_OK);
	zone_is(7, FULL, 0);
	blk_wr_ok(10 * ZONE, data, 4096);
	CHECK_EQ(change(RESET, 7), VIRTIO_BLK_S_OK);
	zone_is(7, EMPTY, 0);
	for (uint32_t type = OPEN; type <= RESET; type += 2) {
		CHECK_EQ(change(type, 0), INVALID);
		CHECK_EQ(change(type, blk_config().capacity / ZONE), INVALID);
		CHECK_EQ(blk_ask(type, 7 * ZONE + 8, NULL, 0, false).status, INVALID);
	}
	CHECK_EQ(change(RESET_ALL, 0), VIRTIO_BLK_S_OK);
	zone_is(10, EMPTY, 0);
	fe_end(&blk.fe);
}

static void read_only(const struct fe_mode *m)
{
	fe_start(&blk.fe, m, FE_ARGS("block", device_option(), "--direct", "--read-only"));
	blk.q = fe_queue_up(&blk.fe, 0, 128);
	CHECK_EQ(report(0, 1)->n, 1);
	CHECK_EQ(change(RESET_ALL, 0), VIRTIO_BLK_S_IOERR);
	CHECK_EQ(append(4, blk_guest(4096), 4096).in[8], VIRTIO_BLK_S_IOERR);
	fe_end(&blk.fe);
}

static void refused_without_direct(const struct fe_mode *m)
{
	(void)m;
	fe_process_start(&blk.fe.process, -1, FE_ARGS("block", device_option(), "--socket-path=/nowhere/s"));
	fe_process_logs(&blk.fe.process, "--direct");
	fe_process_exits(&blk.fe.process, 1);
}

int main(void)
{
	fe_each_layout("zones: what the guest is told", what_is_told);
	fe_each_layout("zones: writes", writes);
	fe_each_layout("zones: appends", appends);
	fe_each_layout("zones: appends of several queues", appends_of_several_queues);
	fe_each_layout("zones: states", states);
	fe_case("zones: read-only", read_only, &split);
	fe_case("zones: refused without --direct", refused_without_direct, &split);
	return tap_done();
}
