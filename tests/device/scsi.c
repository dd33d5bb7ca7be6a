/* SPDX-License-Identifier: MIT */
/*
 * The SCSI host adapter: addressing, the basic commands and their data, what a driver does wrong, the configuration
 * space. More commands are in scsi-commands.c, requests in flight and task management in scsi-tasks.c.
 */
#include "scsi-driver.h"

#include <fcntl.h>

static const struct fe_mode split = {0};

static void still_works(void)
{
	uint8_t *data = guest(1024), *back = guest(1024);

	pattern(data, 1024, 99);
	is_good(ask(CDB(0x2a, 0, BE32(BLOCKS - 2), 0, BE16(2)), data, 1024, NULL, 0));
	is_good(ask(CDB(0x28, 0, BE32(BLOCKS - 2), 0, BE16(2)), NULL, 0, back, 1024));
	CHECK_MEM(back, data, 1024);
	CHECK(!fe_queue_failed(rq));
}

/* --- reads and writes --- */

static void transfers(const struct fe_mode *m)
{
	static const uint8_t rd[] = {0x08, 0x28, 0xa8, 0x88}, wr[] = {0x0a, 0x2a, 0xaa, 0x8a};
	uint8_t *data, *back;

	begin_image(m, "");
	data = guest(64 * 1024);
	back = guest(64 * 1024);
	for (unsigned i = 0; i < ARRAY_SIZE(rd); i++)
		for (uint32_t n = 1; n <= 128; n *= 2) {
			uint32_t len = n * 512, at = 100 + i * 7;
			uint8_t cdb[16] = {0};
			struct answer a;

			pattern(data, len, n + i);
			memset(back, 0, len);
			if (i == 0) {
				put_be32(cdb, at);
				cdb[4] = (uint8_t)n;
			} else if (i == 3) {
				put_be64(cdb + 2, at);
				put_be32(cdb + 10, n);
			} else {
				put_be32(cdb + 2, at);
				put_be32(cdb + 6, i == 1 ? n << 8 : n);
			}
			cdb[0] = wr[i];
			a = ask(cdb, data, len, NULL, 0);
			is_good(a);
			CHECK_EQ(a.resid, 0);
			CHECK_EQ(a.used, 108);
			image_is(at * 512, data, len);
			cdb[0] = rd[i];
			a = ask(cdb, NULL, 0, back, len);
			is_good(a);
			CHECK_EQ(a.resid, 0);
			CHECK_EQ(a.used, 108 + len);
			CHECK_MEM(back, data, len);
		}
	/* READ(6) of "0" blocks are 256, more than 0 blocks of the others are none */
	is_good(ask(CDB(0x08, 0, 0, 0, 0), NULL, 0, guest(256 * 512), 256 * 512));
	CHECK_EQ(ask(CDB(0x28, 0, BE32(0), 0, BE16(0)), NULL, 0, back, 512).resid, 512);
	/* FUA and DPO */
	is_good(ask(CDB(0x2a, 0x18, BE32(5), 0, BE16(2)), data, 1024, NULL, 0));
	is_good(ask(CDB(0x28, 0x18, BE32(5), 0, BE16(2)), NULL, 0, back, 1024));
	CHECK_MEM(back, data, 1024);
	fe_end(&fe);
}

/* Header, data and response in pieces of any size. */
static void any_layout(const struct fe_mode *m)
{
	static const unsigned pieces[] = {1, 11, 19, 51, 100, 4096};
	uint8_t *data;

	begin_image(m, "");
	data = guest(2048);
	for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
		uint8_t *head = fe_alloc(&fe, 51 + 1024, 1, NULL), *tail = fe_alloc(&fe, 108 + 1024, 1, NULL);
		struct vring_driver_buf b[128];
		bool wr = i & 1;
		unsigned n = 0, rd_len = wr ? 51 + 1024 : 51, wr_len = wr ? 108 : 108 + 1024;

		if (pieces[i] == 1)
			rd_len = 51;
		pattern(data, 1024, i);
		if (!wr)
			image_write(8 * 512, data, 1024);
		memcpy(head + 51, data, 1024);
		address(head, 0, 0);
		head[19] = wr ? 0x2a : 0x28;
		put_be32(head + 21, 8);
		put_be16(head + 26, 2);
		for (unsigned at = 0; at < rd_len; at += pieces[i]) {
			unsigned len = MIN(pieces[i], rd_len - at);

			b[n++] = fe_rd(&fe, head + at, MIN(len, 4096u));
		}
		for (unsigned at = 0; at < wr_len; at += MAX(pieces[i], 19u))
			b[n++] = fe_wr(&fe, tail + at, MIN(MAX(pieces[i], 19u), wr_len - at));
		CHECK(n <= ARRAY_SIZE(b));
		CHECK_EQ(fe_transact(rq, b, n), wr_len);
		CHECK_EQ(tail[11], VIRTIO_SCSI_S_OK);
		CHECK_EQ(tail[10], 0);
		if (wr)
			image_is(8 * 512, data, 1024);
		else
			CHECK_MEM(tail + 108, data, 1024);
	}
	fe_end(&fe);
}

static void ranges(const struct fe_mode *m)
{
	static const struct {
		uint64_t lba;
		uint32_t blocks;
	} bad[] = {{BLOCKS, 1}, {BLOCKS - 1, 2}, {BLOCKS + 1, 0}, {UINT64_MAX, 1}, {UINT64_C(1) << 55, 1},
		{(UINT64_C(1) << 55) - 1, 2}, {UINT32_MAX, 1}};
	uint8_t *data;

	begin_image(m, "");
	data = guest(2048);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct answer a =
			ask(CDB(0x88, 0, BE64(bad[i].lba), BE32(bad[i].blocks)), NULL, 0, data, 2048);

		is_sense(a, SENSE(5, 0x21, 0));
		CHECK_EQ(a.resid, 2048);
		is_sense(ask(CDB(0x8a, 0, BE64(bad[i].lba), BE32(bad[i].blocks)), data, 2048, NULL, 0),
			SENSE(5, 0x21, 0));
	}
	/* more than the limit in VPD B0, more than there is room for, more room than needed */
	is_sense(ask(CDB(0x88, 0, BE64(0), BE32(0x10000)), NULL, 0, data, 2048), SENSE(5, 0x24, 0));
	is_response(ask(CDB(0x28, 0, BE32(0), 0, BE16(5)), NULL, 0, data, 2048), VIRTIO_SCSI_S_OVERRUN);
	is_response(ask(CDB(0x2a, 0, BE32(0), 0, BE16(5)), data, 2048, NULL, 0), VIRTIO_SCSI_S_OVERRUN);
	is_response(ask(CDB(0x2a, 0, BE32(0), 0, BE16(1)), NULL, 0, data, 2048), VIRTIO_SCSI_S_OVERRUN);
	CHECK_EQ(ask(CDB(0x28, 0, BE32(0), 0, BE16(3)), NULL, 0, data, 2048).resid, 512);
	CHECK_EQ(ask(CDB(0x2a, 0, BE32(0), 0, BE16(3)), data, 2048, NULL, 0).resid, 512);
	still_works();
	fe_end(&fe);
}

/* --- who is there --- */

static void addresses(const struct fe_mode *m)
{
	uint8_t *data, *cdb = (uint8_t[16]){0xa0, 0, 0, 0, 0, 0, BE32(512)};

	begin(m, FE_ARGS("scsi", "--lun=0:0,null=1M", "--lun=0:300,null=2M", "--lun=7:5,null=3M,ro",
			 "--lun=255:16383,null=1M"));
	data = guest(512);
	calm(7, 5);
	calm(255, 16383);
	is_good(ask_unit(7, 5, CDB(0), NULL, 0, NULL, 0));
	is_good(ask_unit(255, 16383, CDB(0), NULL, 0, NULL, 0));
	is_response(ask_unit(1, 0, CDB(0), NULL, 0, NULL, 0), VIRTIO_SCSI_S_BAD_TARGET);
	is_sense(ask_unit(7, 0, CDB(0), NULL, 0, NULL, 0), SENSE(5, 0x25, 0));
	is_sense(ask_unit(0, 1, CDB(0x28, 0, BE32(0), 0, BE16(1)), NULL, 0, data, 512), SENSE(5, 0x25, 0));
	is_good(ask_unit(7, 0, CDB(0x12, 0, 0, BE16(36)), NULL, 0, data, 36));
	CHECK_EQ(data[0], 0x7f);
	is_good(ask_unit(7, 5, CDB(0x12, 0, 0, BE16(36)), NULL, 0, data, 36));
	CHECK_EQ(data[0], 0);
	/* the lists of a target, of its unit that is not there, and of the well-known unit */
	is_good(ask(cdb, NULL, 0, data, 512));
	CHECK_MEM(data,
		((uint8_t[]){0, 0, 0, 16, 0, 0, 0, 0, /**/ 0, 0, 0, 0, 0, 0, 0, 0, /**/ 0x41, 0x2c, 0}), 19);
	is_good(ask_unit(7, 0, cdb, NULL, 0, data, 512));
	CHECK_MEM(data, ((uint8_t[]){0, 0, 0, 8, 0, 0, 0, 0, 0, 5, 0, 0}), 12);
	is_good(ask_unit(NO_ADDRESS, 0, cdb, NULL, 0, data, 512));
	CHECK_EQ(get_be32(data), 32);
	CHECK_MEM(data + 8, ((uint8_t[]){1, 0, 0, 0}), 4);
	CHECK_MEM(data + 16, ((uint8_t[]){1, 0, 0x41, 0x2c}), 4);
	CHECK_MEM(data + 24, ((uint8_t[]){1, 7, 0, 5}), 4);
	CHECK_MEM(data + 32, ((uint8_t[]){1, 255, 0x7f, 0xff}), 4);
	is_good(ask_unit(NO_ADDRESS, 0, CDB(0), NULL, 0, NULL, 0));
	is_good(ask_unit(NO_ADDRESS, 0, CDB(3, [4] = 18), NULL, 0, data, 18));
	CHECK_EQ(data[2] | data[12], 0);
	is_sense(ask_unit(NO_ADDRESS, 0, CDB(0x28), NULL, 0, NULL, 0), SENSE(5, 0x20, 0));
	fe_end(&fe);
}

/* Addresses of no known form. */
static void odd_addresses(const struct fe_mode *m)
{
	static const uint8_t odd[][8] = {{0}, {2, 0, 0x40, 0}, {1, 0, 0x80, 0}, {1, 0, 0xc0, 1},
		{1, 0, 0x40, 0, 1}, {1, 0, 0x40, 0, 0, 0, 0, 1}, {1, 0, 1, 0}, {0xc1, 1, 1},
		{0xff, 0xff, 0xff, 0xff}};

	begin_image(m, "");
	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
		struct command *c = issue(rq, 0, 0, CDB(0), NULL, 0, NULL, 0, 1);
		uint32_t used;

		memcpy(c->req->lun, odd[i], 8);
		fe_flush(rq);
		used = fe_wait(rq, NULL);
		is_response(answer_of(c, used), VIRTIO_SCSI_S_BAD_TARGET);
	}
	/* peripheral addressing is fine too */
	struct command *c = issue(rq, 0, 0, CDB(0), NULL, 0, NULL, 0, 1);

	c->req->lun[2] = 0;
	fe_flush(rq);
	is_good(answer_of(c, fe_wait(rq, NULL)));
	fe_end(&fe);
}

/* --- malformed requests --- */

static void short_requests(const struct fe_mode *m)
{
	struct vring_driver_buf b[4];
	uint8_t *req, *resp;

	begin_image(m, "");
	req = guest(64);
	resp = guest(1024);
	address(req, 0, 0);
	/* no room for a response: comes back empty */
	for (uint32_t room = 0; room < 108; room += 53) {
		b[0] = fe_rd(&fe, req, 51);
		b[1] = fe_wr(&fe, resp, room);
		CHECK_EQ(fe_transact(rq, b, room > 0 ? 2 : 1), 0);
	}
	/* a header that ends too early */
	for (uint32_t len = 1; len < 51; len += 7) {
		memset(resp, NOT_SEEN, 108);
		b[0] = fe_rd(&fe, req, len);
		b[1] = fe_wr(&fe, resp, 108);
		CHECK_EQ(fe_transact(rq, b, 2), 108);
		CHECK_EQ(resp[11], VIRTIO_SCSI_S_FAILURE);
	}
	memset(resp, NOT_SEEN, 108);
	b[0] = fe_wr(&fe, resp, 108);
	CHECK_EQ(fe_transact(rq, b, 1), 108);
	CHECK_EQ(resp[11], VIRTIO_SCSI_S_FAILURE);
	/* data that is not guest memory */
	for (int wr = 0; wr < 2; wr++) {
		struct virtio_scsi_cmd_req *h = (void *)req;

		memset(resp, NOT_SEEN, 108);
		memcpy(h->cdb, wr ? CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1) : CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1),
			10);
		b[0] = fe_rd(&fe, req, 51);
		b[1] = wr ? fe_wr(&fe, resp, 108)
			  : (struct vring_driver_buf){.addr = 0x7fff00000000, .len = 512};
		b[2] = wr ? (struct vring_driver_buf){.addr = 0x7fff00000000, .len = 512, .wr = true}
			  : fe_wr(&fe, resp, 108);
		b[3] = fe_wr(&fe, resp + 200, 8);
		fe_transact(rq, b, 4);
		CHECK_EQ(resp[11], VIRTIO_SCSI_S_FAILURE);
	}
	still_works();
	fe_end(&fe);
}

static void unknown_commands(const struct fe_mode *m)
{
	static const uint8_t ops[] = {
		0x01, 0x05, 0x1f, 0x3b, 0x3c, 0x4d, 0x7f, 0x83, 0x84, 0x98, 0xa2, 0xb5, 0xc0, 0xff};
	uint8_t *data;

	begin_image(m, "");
	data = guest(512);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		is_sense(ask(CDB(ops[i]), NULL, 0, data, 512), SENSE(5, 0x20, 0));
		is_sense(ask(CDB(ops[i]), data, 512, NULL, 0), SENSE(5, 0x20, 0));
	}
	/* a service action of no known name: the field is in byte 1 of the CDB */
	struct answer a = ask(CDB(0x9e, 0x1f), NULL, 0, data, 512);

	is_sense(a, SENSE(5, 0x24, 0));
	CHECK_MEM(a.raw + 15, ((uint8_t[]){0xc0, 0, 1}), 3);
	/* NACA */
	is_sense(ask(CDB(0, 0, 0, 0, 0, 4), NULL, 0, NULL, 0), SENSE(5, 0x24, 0));
	still_works();
	fe_end(&fe);
}

/* Every code, with any flags, gets an answer, and the device lives on. */
static void every_code(const struct fe_mode *m)
{
	uint8_t *data;
	uint32_t rnd = 1;

	begin_image(m, "");
	data = guest(4096);
	for (unsigned i = 0; i < 256 * 8; i++) {
		uint8_t cdb[16];
		size_t mark = fe_mark(&fe);

		for (unsigned j = 0; j < 16; j++) {
			rnd = rnd * 1103515245 + 12345;
			cdb[j] = (rnd >> 24) & 1 ? 0 : (uint8_t)(rnd >> 16);
		}
		cdb[0] = (uint8_t)i;
		if (i & 256)
			ask(cdb, data, 4096, NULL, 0);
		else
			ask(cdb, NULL, 0, data, 4096);
		fe_release(&fe, mark);
	}
	is_good(ask(CDB(0x1b, 0, 0, 0, 1), NULL, 0, NULL, 0));
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), 0);
	calm(0, 0);
	still_works();
	fe_end(&fe);
}

/* --- the configuration space --- */

static void configuration(const struct fe_mode *m)
{
	struct virtio_scsi_config c, again;
	uint32_t v;

	image_new();
	begin(m, FE_ARGS("scsi", "--null=1M", "--num-queues=5"));
	fe_config_get(&fe, 0, &c, sizeof(c));
	CHECK_EQ(c.num_queues, 5);
	CHECK_EQ(c.seg_max, 126);
	CHECK_EQ(c.max_sectors, 0xffff);
	CHECK_EQ(c.cmd_per_lun, 128);
	CHECK_EQ(c.event_info_size, 16);
	CHECK_EQ(c.sense_size, 96);
	CHECK_EQ(c.cdb_size, 32);
	CHECK_EQ(c.max_channel, 0);
	CHECK_EQ(c.max_target, 255);
	CHECK_EQ(c.max_lun, 16383);
	CHECK_EQ(fe.queue_num, 5);
	/* read-only fields stay as they are, too large values too */
	v = 99;
	for (uint32_t off = 0; off < 20; off += 4)
		CHECK_EQ(fe_config_set(&fe, off, &v, 4, 0), 0);
	v = 100000;
	CHECK_EQ(fe_config_set(&fe, 20, &v, 4, 0), 0);
	CHECK_EQ(fe_config_set(&fe, 24, &v, 4, 0), 0);
	fe_config_get(&fe, 0, &again, sizeof(again));
	CHECK_MEM(&again, &c, sizeof(c));
	fe_end(&fe);
}

/* Sense data and CDBs of other sizes. */
static void other_sizes(const struct fe_mode *m)
{
	static const uint32_t sizes[][2] = {{18, 16}, {0, 32}, {8, 20}, {96, 64}, {252, 260}};

	begin_image(m, "");
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint32_t sense = sizes[i][0], cdb = sizes[i][1];
		uint8_t *req = guest(19 + cdb), *resp = guest(12 + sense + 512), *data = guest(512);
		struct vring_driver_buf b[2] = {
			fe_rd(&fe, req, 19 + cdb), fe_wr(&fe, resp, 12 + sense + 512)};

		CHECK_EQ(fe_config_set(&fe, 20, &sense, 4, 0), 0);
		CHECK_EQ(fe_config_set(&fe, 24, &cdb, 4, 0), 0);
		pattern(data, 512, i);
		image_write(512, data, 512);
		address(req, 0, 0);
		memcpy(req + 19, CDB(0x28, 0, BE32(1), 0, BE16(1)), 16);
		CHECK_EQ(fe_transact(rq, b, 2), 12 + sense + 512);
		CHECK_EQ(resp[11], 0);
		CHECK_EQ(resp[10], 0);
		CHECK_MEM(resp + 12 + sense, data, 512);
		req[19] = 0xff;
		fe_transact(rq, b, 2);
		CHECK_EQ(resp[10], 2);
		CHECK_EQ(resp[0], MIN(sense, 18));
		if (sense >= 18)
			CHECK_EQ(resp[12 + 12], 0x20);
	}
	/* a reset brings back 96 and 32 */
	fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	struct virtio_scsi_config c;

	fe_config_get(&fe, 0, &c, sizeof(c));
	CHECK_EQ(c.sense_size, 96);
	CHECK_EQ(c.cdb_size, 32);
	fe_end(&fe);
}

static void features(const struct fe_mode *m)
{
	uint8_t *data;

	fe_init(&fe, m);
	fe.device_mask = ~UINT64_C(7);
	fe_spawn(&fe, FE_ARGS("scsi", "--null=1M"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	CHECK_EQ(fe.offered & 0xffffff, 7); /* INOUT, HOTPLUG, CHANGE; no T10_PI */
	rq = fe_queue_up(&fe, 2, 16);
	calm(0, 0);
	data = guest(1024);
	/* without INOUT a request has data of one kind */
	is_response(
		ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), data, 512, data + 512, 512), VIRTIO_SCSI_S_FAILURE);
	is_good(ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), NULL, 0, data, 512));
	fe_end(&fe);
	begin(m, FE_ARGS("scsi", "--null=1M"));
	data = guest(1024);
	CHECK_EQ(ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), data, 512, data + 512, 512).resid, 512);
	fe_end(&fe);
}

/* --- options --- */

static void refuses(const char *option, const char *why)
{
	struct fe_process p = {0};

	fe_process_start(&p, -1, FE_ARGS("scsi", "--fd=0", option));
	fe_process_logs(&p, why);
	fe_process_exits(&p, 1);
}

static void options(const struct fe_mode *m)
{
	(void)m;
	refuses(NULL, "--lun, --blk-file, --nbd or --null is needed");
	refuses("--lun=", "no TARGET:LUN");
	refuses("--lun=0", "no TARGET:LUN");
	refuses("--lun=256:0,null=1M", "no TARGET:LUN");
	refuses("--lun=0:16384,null=1M", "no TARGET:LUN");
	refuses("--lun=0:-1,null=1M", "no TARGET:LUN");
	refuses("--lun=0:0", "exactly one of file=, nbd=, null= and sg=");
	refuses("--lun=0:0,null=1M,file=/x", "exactly one of file=, nbd=, null= and sg=");
	refuses("--lun=0:0,null=0", "null=0");
	refuses("--lun=0:0,null=1M,block-size=1000", "block-size=1000");
	refuses("--lun=0:0,null=1M,colour=blue", "colour=blue");
	refuses("--lun=0:0,null=1M,nice", "nice: no such key");
	refuses("--lun=0:0,null=1K,block-size=4096", "smaller than a block");
	refuses("--lun=0:0,file=/nonexistent/disk", "/nonexistent/disk");
	refuses("--lun=0:0,null=1M,serial=0123456789012345678901234567890123456", "serial=");
}

static void commas(const struct fe_mode *m)
{
	char path[256], twice[256], *comma;
	int fd;

	image_new();
	snprintf(path, sizeof(path), "%s", image);
	comma = strrchr(path, 'k');
	*comma = ',';
	CHECK_SYS(rename(image, path));
	snprintf(twice, sizeof(twice), "--lun=0:0,file=%.*s,,%s,ro", (int)(comma - path), path, comma + 1);
	begin(m, FE_ARGS("scsi", twice));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_SYS(fd);
	is_sense(ask(CDB(0x2a, 0, BE32(0), 0, BE16(1)), guest(512), 512, NULL, 0), SENSE(7, 0x27, 0));
	fe_end(&fe);
}

int main(void)
{
	fe_each_mode("reads and writes", transfers);
	fe_each_layout("requests of any layout", any_layout);
	fe_case("ranges", ranges, &split);
	fe_case("addresses", addresses, &split);
	fe_case("addresses of no known form", odd_addresses, &split);
	fe_each_mode("short requests", short_requests);
	fe_case("unknown commands", unknown_commands, &split);
	fe_case("every code", every_code, &split);
	fe_case("configuration space", configuration, &split);
	fe_case("other sizes of sense data and CDBs", other_sizes, &split);
	fe_case("features", features, &split);
	fe_case("options that are refused", options, &split);
	fe_case("a comma in a file's name", commas, &split);
	return tap_done();
}
