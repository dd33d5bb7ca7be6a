/* SPDX-License-Identifier: MIT */
/*
 * Pass-through of real SCSI devices. They are those of a guest that this program runs in (tests/guest/scsi-sg.sh), and
 * SCSI_HOST says of which host adapter; without it nothing is touched. Target 0 is a disk of 4 MiB, target 1 one that
 * serves few requests in a second, target 2 a CD-ROM, target 3 a disk that
 * serves one in a second. Errors come from the kernel's scsi_debug.
 */
#include "scsi-driver.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

enum { DISK, SLOW, CDROM, STUCK };

static const struct fe_mode split = {0};
static const char *kind; /* of device node: scsi_generic, block */

/* The node of a device; it comes when the kernel has found it. */
static const char *node_of(const char *host, unsigned target, const char *what)
{
	static char path[3][264];
	static unsigned next;
	char dir[128];

	snprintf(dir, sizeof(dir), "/sys/bus/scsi/devices/%s:0:%u:0/%s", host, target, what);
	for (int64_t until = fe_now_ms() + 20000; fe_now_ms() < until; usleep(20000)) {
		DIR *d = opendir(dir);
		struct dirent *e = NULL;

		while (d != NULL && (e = readdir(d)) != NULL && e->d_name[0] == '.')
			;
		if (e != NULL)
			snprintf(path[++next % 3], sizeof(path[0]), "/dev/%s", e->d_name);
		if (d != NULL)
			closedir(d);
		if (e != NULL)
			return path[next % 3];
	}
	FAIL("%s: no such device", dir);
}

static const char *node(unsigned target, const char *what)
{
	return node_of(getenv("SCSI_HOST"), target, what);
}

static void begin_sg(const struct fe_mode *m, unsigned target, const char *more)
{
	char rest[224];

	snprintf(rest, sizeof(rest), "sg=%s%s", node(target, kind), more);
	begin(m, FE_ARGS("scsi", lun_option("0:0", rest)));
}

/* What the kernel reads from the disk itself. */
static void disk_is(uint64_t lba, const void *want, size_t len)
{
	int fd = open(node(DISK, "block"), O_RDONLY | O_DIRECT | O_CLOEXEC);
	uint8_t *got = aligned_alloc(4096, ALIGN_UP(len, (size_t)4096));

	CHECK_SYS(fd);
	CHECK_EQ(pread(fd, got, ALIGN_UP(len, (size_t)512), (off_t)lba * 512), ALIGN_UP(len, (size_t)512));
	CHECK_MEM(got, want, len);
	free(got);
	close(fd);
}

static void transfers(const struct fe_mode *m)
{
	static const uint32_t blocks[] = {1, 8, 9, 128, 200};
	uint8_t *data, *back;

	begin_sg(m, DISK, "");
	data = guest(200 * 512);
	back = guest(200 * 512);
	for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
		uint32_t len = blocks[i] * 512;
		struct answer a;

		pattern(data, len, i + m->packed);
		a = ask(CDB(0x2a, 0, BE32(17 * i), 0, BE16(blocks[i])), data, len, NULL, 0);
		is_good(a);
		CHECK_EQ(a.resid, 0);
		CHECK_EQ(a.used, 108);
		disk_is(17 * i, data, len);
		memset(back, 0, len);
		a = ask(CDB(0x88, 0, BE64(17 * i), BE32(blocks[i])), NULL, 0, back, len);
		is_good(a);
		CHECK_EQ(a.resid, 0);
		CHECK_EQ(a.used, 108 + len);
		CHECK_MEM(back, data, len);
	}
	is_good(ask(CDB(0x35), NULL, 0, NULL, 0));
	fe_end(&fe);
}

/* Header, data and response in one buffer, in buffers of their own, and the data in many. */
static void any_layout(const struct fe_mode *m)
{
	static const unsigned pieces[] = {512, 4096, 51, 700};
	uint8_t *data;

	begin_sg(m, DISK, "");
	data = guest(4096);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(pieces); i++) {
		unsigned piece = pieces[i / 2], n = 0;
		bool wr = i & 1;
		uint8_t *head = guest(51 + 4096), *tail = guest(108 + 4096);
		struct vring_driver_buf b[128];
		unsigned rd_len = wr ? 51 + 4096 : 51, wr_len = wr ? 108 : 108 + 4096;

		pattern(data, 4096, i / 2);
		memcpy(head + 51, data, 4096);
		address(head, 0, 0);
		memcpy(head + 19,
			wr ? CDB(0x2a, 0, BE32(64), 0, BE16(8)) : CDB(0x28, 0, BE32(64), 0, BE16(8)), 10);
		if (!wr)
			is_good(ask(CDB(0x2a, 0, BE32(64), 0, BE16(8)), data, 4096, NULL, 0));
		for (unsigned at = 0; at < rd_len; at += piece)
			b[n++] = fe_rd(&fe, head + at, MIN(piece, rd_len - at));
		for (unsigned at = 0; at < wr_len; at += piece)
			b[n++] = fe_wr(&fe, tail + at, MIN(piece, wr_len - at));
		CHECK(n <= ARRAY_SIZE(b));
		CHECK_EQ(fe_transact(rq, b, n), wr_len);
		CHECK_EQ(tail[11], VIRTIO_SCSI_S_OK);
		CHECK_EQ(tail[10], 0);
		if (wr)
			disk_is(64, data, 4096);
		else
			CHECK_MEM(tail + 108, data, 4096);
	}
	fe_end(&fe);
}

static void answers(const struct fe_mode *m)
{
	uint8_t *data;
	struct answer a;

	begin_sg(m, DISK, "");
	data = guest(4096);
	/* shorter than the buffer */
	a = ask(CDB(0x12, 0, 0, BE16(512)), NULL, 0, data, 512);
	is_good(a);
	CHECK_EQ(a.resid, 512 - 96);
	CHECK_EQ(a.used, 108 + 96);
	CHECK_MEM(data + 8, "VHOSTUSR", 8);
	a = ask(CDB(0x28, 0, BE32(0), 0, BE16(3)), NULL, 0, data, 4096);
	is_good(a);
	CHECK_EQ(a.resid, 4096 - 3 * 512);
	is_good(ask(CDB(0x25), NULL, 0, data, 8));
	CHECK_EQ(get_be32(data), BLOCKS - 1);
	/* the device's sense data: with what it says of the field */
	a = ask(CDB(0x28, 0, BE32(BLOCKS), 0, BE16(1)), NULL, 0, data, 512);
	is_sense(a, SENSE(5, 0x21, 0));
	CHECK_EQ(a.sense_len, 18);
	a = ask(CDB(0x12, 0, 0x55, BE16(96)), NULL, 0, data, 96);
	is_sense(a, SENSE(5, 0x24, 0));
	CHECK_MEM(a.raw + 15, ((uint8_t[]){0xc0, 0, 2}), 3);
	is_sense(ask(CDB(0x01), NULL, 0, NULL, 0), SENSE(5, 0x20, 0));
	/* both kinds of data, and a CDB that is too long */
	is_response(
		ask(CDB(0x28, 0, BE32(0), 0, BE16(1)), data, 512, data + 512, 512), VIRTIO_SCSI_S_FAILURE);
	is_sense(ask(CDB(0x7f, 0, 0, 0, 0, 0, 0, 32), NULL, 0, NULL, 0), SENSE(5, 0x24, 0));
	/* the target's units are ours */
	is_good(ask(CDB(0xa0, 0, 0, 0, 0, 0, BE32(64)), NULL, 0, data, 64));
	CHECK_EQ(get_be32(data), 8);
	fe_end(&fe);
}

static void limits(const struct fe_mode *m)
{
	struct virtio_scsi_config c;
	uint8_t *data;
	uint32_t limit;

	begin_sg(m, DISK, "");
	fe_config_get(&fe, 0, &c, sizeof(c));
	CHECK(c.max_sectors >= 8 && c.max_sectors < 0xffff);
	data = guest(MIB);
	is_good(ask(CDB(0x12, 1, 0xb0, BE16(64)), NULL, 0, data, 64));
	limit = get_be32(data + 8);
	CHECK_EQ(limit, c.max_sectors);
	CHECK(get_be32(data + 12) <= limit);
	CHECK_EQ(data[4], 1); /* the rest is the device's */
	CHECK_EQ(get_be64(data + 36), (UINT32_C(1) << 29) / 512);
	CHECK(limit * 512 < MIB);
	/* as much as it says, in pieces that cannot be merged, and one more */
	struct vring_driver_buf b[128];
	struct virtio_scsi_cmd_req *h = guest(sizeof(*h));
	uint8_t *resp = guest(108);
	unsigned n = 0;

	address(h->lun, 0, 0);
	memcpy(h->cdb, CDB(0x28, 0, BE32(0), 0, BE16(limit)), 10);
	b[n++] = fe_rd(&fe, h, sizeof(*h));
	b[n++] = fe_wr(&fe, resp, 108);
	for (uint32_t at = 0; at < limit * 512; at += 8192)
		b[n++] = fe_wr(&fe, data + at, MIN(8192u, limit * 512 - at));
	CHECK_EQ(fe_transact(rq, b, n), 108 + limit * 512);
	CHECK_EQ(resp[11], 0);
	CHECK_EQ(resp[10], 0);
	is_sense(ask(CDB(0x28, 0, BE32(0), 0, BE16(limit + 1)), NULL, 0, data, (limit + 1) * 512),
		SENSE(5, 0x24, 0));
	fe_end(&fe);
}

/* Who refuses: we have the fixed format of sense data, and the device was told to take the other one. */
static void refusals(const struct fe_mode *m)
{
	static const uint8_t cdbs[][16] = {
		{0x83}, {0x84}, {0x85}, {0xa1}, {0xa4, 0x0a}, {0xb5}, {0x3b, 5}, {0x18}, {0xc0}, {0xff}};
	static const uint8_t descriptors[] = {
		0, 0, 0, 0, 0x0a, 0x0a, 0x04, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0};

	for (int all = 0; all <= 1; all++) {
		uint8_t *data;

		begin_sg(m, DISK, all ? ",all-commands" : "");
		data = guest(512);
		memcpy(data, descriptors, sizeof(descriptors));
		is_good(ask(CDB(0x15, 0x10, 0, 0, sizeof(descriptors)), data, sizeof(descriptors), NULL, 0));
		for (unsigned i = 0; i < ARRAY_SIZE(cdbs); i++) {
			struct answer a = ask(cdbs[i], NULL, 0, NULL, 0);

			CHECK_EQ(a.response, VIRTIO_SCSI_S_OK);
			CHECK_EQ(a.status, 2);
			CHECK_EQ(a.raw[0], all ? 0x72 : 0x70);
			CHECK_EQ(a.sense >> 16, 5);
		}
		/* WRITE BUFFER of data is the device's to refuse */
		CHECK_EQ(ask(CDB(0x3b, 2), NULL, 0, NULL, 0).raw[0], 0x72);
		/* a self-test that takes the unit offline: the device would do it */
		CHECK_EQ(ask(CDB(0x1d, 5), NULL, 0, NULL, 0).status, all ? 0 : 2);
		data[6] = 0;
		is_good(ask(CDB(0x15, 0x10, 0, 0, sizeof(descriptors)), data, sizeof(descriptors), NULL, 0));
		fe_end(&fe);
	}
}

static void reservations(const struct fe_mode *m)
{
	uint8_t *data;

	begin_sg(m, DISK, "");
	data = guest(512);
	memset(data, 0, 24);
	put_be64(data + 8, 0xabc);
	is_good(ask(CDB(0x5f, 6, 0, 0, 0, 0, 0, 0, 24), data, 24, NULL, 0));
	is_good(ask(CDB(0x5e, 0, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, data, 64));
	CHECK_EQ(get_be32(data + 4), 8);
	CHECK_EQ(get_be64(data + 8), 0xabc);
	memset(data, 0, 24);
	put_be64(data, 0xabc);
	is_good(ask(CDB(0x5f, 3, 0, 0, 0, 0, 0, 0, 24), data, 24, NULL, 0));
	fe_end(&fe);
}

static void cdrom(const struct fe_mode *m)
{
	uint8_t *data;

	begin_sg(m, CDROM, "");
	data = guest(2048);
	is_good(ask(CDB(0x12, 0, 0, BE16(36)), NULL, 0, data, 36));
	CHECK_EQ(data[0], 5);
	is_good(ask(CDB(0x43, 0, 0, 0, 0, 0, 0, BE16(12)), NULL, 0, data, 12));
	CHECK_EQ(data[2], 1);
	is_good(ask(CDB(0x28, 0, BE32(3), 0, BE16(1)), NULL, 0, data, 2048));
	for (unsigned i = 0; i < 2048; i++)
		CHECK_EQ(data[i], 'c');
	is_sense(ask(CDB(0x2a, 0, BE32(0), 0, BE16(1)), data, 2048, NULL, 0), SENSE(5, 0x20, 0));
	fe_end(&fe);
}

/* --- many at once --- */

enum { DEPTH = 40, ROUNDS = 5, SPAN = 8 };

static struct slot {
	const struct command *c;
	struct fe_queue *q;
	uint8_t *data;
	unsigned steps; /* taken: writing is even */
} slots[DEPTH];

static void step(unsigned i)
{
	struct slot *s = &slots[i];

	if (s->steps % 2 == 0) {
		pattern(s->data, SPAN * 512, i * ROUNDS + s->steps);
		s->c = issue(s->q, 0, 0, CDB(0x2a, 0, BE32(i * SPAN), 0, BE16(SPAN)), s->data, SPAN * 512,
			NULL, 0, i);
	} else {
		memset(s->data, 0, SPAN * 512);
		s->c = issue(s->q, 0, 0, CDB(0x28, 0, BE32(i * SPAN), 0, BE16(SPAN)), NULL, 0, s->data,
			SPAN * 512, i);
	}
	fe_flush(s->q);
}

static void stepped(unsigned i, uint32_t used)
{
	struct slot *s = &slots[i];
	uint8_t want[SPAN * 512];

	is_good(answer_of(s->c, used));
	if (s->steps++ % 2 == 0)
		return;
	pattern(want, sizeof(want), i * ROUNDS + s->steps - 2);
	CHECK_MEM(s->data, want, sizeof(want));
}

/* Each slot has blocks of its own, which it writes and reads in turns. */
static void load(const struct fe_mode *m)
{
	char rest[224];
	unsigned left = DEPTH * ROUNDS * 2;
	struct fe_queue *queues[2];

	snprintf(rest, sizeof(rest), "sg=%s", node(DISK, kind));
	begin(m, FE_ARGS("scsi", lun_option("0:0", rest), "--threads=2"));
	queues[0] = rq;
	queues[1] = fe_queue_up(&fe, 3, 128);
	for (unsigned i = 0; i < DEPTH; i++) {
		slots[i] = (struct slot){.q = queues[i % 2], .data = guest(SPAN * 512)};
		step(i);
	}
	while (left > 0)
		for (unsigned k = 0; k < 2; k++) {
			void *cookie;
			uint32_t used;
			unsigned i = 0;

			if (!fe_wait_ms(queues[k], &cookie, &used, 5))
				continue;
			while (slots[i].c != cookie)
				i++;
			stepped(i, used);
			left--;
			if (slots[i].steps < ROUNDS * 2)
				step(i);
			else
				slots[i].c = NULL;
		}
	fe_end(&fe);
}

static const uint8_t read_one[16] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};

enum { MANY = 20 }; /* more than the kernel takes at once */

static void issue_many(void)
{
	for (unsigned i = 0; i < MANY; i++)
		issue(rq, 0, 0, read_one, NULL, 0, guest(512), 512, 100 + i);
	fe_flush(rq);
}

/* All end, those aborted with their response; the function ends after them. */
static void aborted(const struct fe_mode *m)
{
	unsigned good = 0, gone = 0;
	void *cookie;
	uint32_t used;

	begin_sg(m, SLOW, "");
	issue_many();
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 100 + MANY - 1), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 0, 100 + MANY - 1), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 100 + MANY - 1), VIRTIO_SCSI_S_OK);
	issue_many();
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	for (unsigned i = 0; i < 2 * MANY; i++) {
		CHECK(fe_collect(rq, &cookie, &used));
		switch (((struct command *)cookie)->resp->response) {
		case VIRTIO_SCSI_S_OK:
			good++;
			break;
		case VIRTIO_SCSI_S_ABORTED:
			CHECK_EQ(((struct command *)cookie)->req->tag, 100 + MANY - 1);
			break;
		default:
			CHECK_EQ(((struct command *)cookie)->resp->response, VIRTIO_SCSI_S_RESET);
			gone++;
		}
	}
	CHECK_EQ(good + gone, 2 * MANY - 1);
	CHECK(gone >= 1);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 3));
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_end(&fe);
}

/* By us and not by the device as well, though all places for its commands were taken when it was reset. */
static void told_once(const struct fe_mode *m)
{
	begin_sg(m, SLOW, "");
	for (unsigned round = 0; round < 10; round++) {
		issue_many();
		CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
		for (unsigned i = 0; i < MANY; i++)
			fe_wait(rq, NULL);
		is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 3));
		is_good(ask(CDB(0), NULL, 0, NULL, 0));
	}
	fe_end(&fe);
}

/* What the device has begun with ends when the unit is reset, long before the device would have ended it. */
static void reset_begun(const struct fe_mode *m)
{
	enum { BEGUN = 16, EACH_MS = 1000 };
	int64_t start;

	begin_sg(m, STUCK, "");
	for (unsigned i = 0; i < BEGUN; i++)
		issue(rq, 0, 0, read_one, NULL, 0, guest(512), 512, 100 + i);
	fe_flush(rq);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 100 + BEGUN - 1), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	usleep(200000); /* not just with us */
	start = fe_now_ms();
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	CHECK(fe_now_ms() - start < (BEGUN / 2) * EACH_MS);
	for (unsigned i = 0; i < BEGUN; i++) {
		void *cookie;
		uint32_t used;

		CHECK(fe_collect(rq, &cookie, &used));
		/* one or two the device may have served at once */
		if (((struct command *)cookie)->resp->response != VIRTIO_SCSI_S_OK)
			CHECK_EQ(((struct command *)cookie)->resp->response, VIRTIO_SCSI_S_RESET);
	}
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 3));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	fe_end(&fe);
}

/* The queue stops: those begun end, the others come back when it runs again. */
static void stopped(const struct fe_mode *m)
{
	uint32_t base;

	begin_sg(m, SLOW, "");
	issue_many();
	base = fe_queue_stop(rq);
	fe_queue_send(rq, base);
	fe_queue_enable(rq, true);
	fe_kick(rq);
	for (unsigned i = 0; i < MANY; i++) {
		void *cookie;
		uint32_t used = fe_wait(rq, &cookie);

		if (((struct command *)cookie)->resp->response != VIRTIO_SCSI_S_BUSY)
			is_good(answer_of(cookie, used));
	}
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_end(&fe);
}

/* Comes and goes while requests are under way; others find out. */
static void plugged(const struct fe_mode *m)
{
	char path[200], option[256], command[400];
	int control;

	snprintf(path, sizeof(path), "%s/control", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	node(SLOW, kind);
	begin(m, FE_ARGS("scsi", "--lun=0:1,null=1M", option));
	calm(0, 1);
	control = fe_control_open(path);
	snprintf(command, sizeof(command),
		"{\"execute\":\"lun-add\",\"arguments\":{\"lun\":\"0:0,sg=%s\"}}\n", node(SLOW, kind));
	CHECK(strstr(fe_control_ask(control, command), "return") != NULL);
	is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x3f, 0x0e));
	calm(0, 0);
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	CHECK(strstr(fe_control(control, "luns"), "pass-through") != NULL);
	issue_many();
	CHECK(strstr(fe_control_ask(control,
			     "{\"execute\":\"resize\",\"arguments\":{\"lun\":\"0:0\",\"size\":4096}}\n"),
		      "real device") != NULL);
	CHECK(strstr(fe_control_ask(
			     control, "{\"execute\":\"lun-remove\",\"arguments\":{\"lun\":\"0:0\"}}\n"),
		      "return") != NULL);
	for (unsigned i = 0; i < MANY; i++) {
		void *cookie;
		uint32_t used = fe_wait(rq, &cookie);
		struct answer a = answer_of(cookie, used);

		if (a.status == 2)
			is_sense(a, SENSE(5, 0x25, 0));
		else
			is_good(a);
	}
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(5, 0x25, 0));
	close(control);
	fe_end(&fe);
}

/* --- a device that fails when it is told to: the kernel's scsi_debug --- */

static const char *debug_host;

static void debug_set(const char *what, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pseudo/drivers/scsi_debug/%s", what);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK_SYS(fd);
	CHECK_EQ(write(fd, value, strlen(value)), strlen(value));
	close(fd);
}

static size_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

	close(fd);
	text[MAX(n, 0)] = '\0';
	return (size_t)MAX(n, 0);
}

/* Its host adapter: one for all cases. */
static bool debug_found(void)
{
	static char number[8];
	char path[64], name[32];

	for (unsigned i = 0; i < 16; i++) {
		snprintf(path, sizeof(path), "/sys/class/scsi_host/host%u/proc_name", i);
		if (read_text(path, name, sizeof(name)) == 0 || strncmp(name, "scsi_debug", 10) != 0)
			continue;
		snprintf(number, sizeof(number), "%u", i);
		debug_host = number;
		return true;
	}
	return false;
}

static void begin_debug(const struct fe_mode *m, const char *more)
{
	char rest[320];

	if (!debug_found())
		debug_set("add_host", "1");
	CHECK(debug_found());
	snprintf(rest, sizeof(rest), "sg=%s%s", node_of(debug_host, 0, kind), more);
	begin(m, FE_ARGS("scsi", lun_option("0:0", rest)));
}

static uint64_t requests(void)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/bus/scsi/devices/%s:0:0:0/iorequest_cnt", debug_host);
	CHECK(read_text(path, text, sizeof(text)) > 0);
	return strtoull(text, NULL, 0);
}

static void errors(const struct fe_mode *m)
{
	uint8_t *data, *back;
	struct answer a;

	begin_debug(m, "");
	data = guest(4096);
	back = guest(4096);
	pattern(data, 4096, 77);
	is_good(ask(CDB(0x2a, 0, BE32(0x1230), 0, BE16(8)), data, 4096, NULL, 0));
	debug_set("opts", "2"); /* blocks from 1234h on cannot be read */
	a = ask(CDB(0x28, 0, BE32(0x1230), 0, BE16(8)), NULL, 0, back, 4096);
	is_sense(a, SENSE(3, 0x11, 0));
	CHECK_EQ(a.raw[0] & 0x80, 0x80);
	CHECK_EQ(get_be32(a.raw + 3), 0x1234);
	/* an error that was recovered: sense data, and all of the data */
	debug_set("opts", "8");
	debug_set("every_nth", "1");
	a = ask(CDB(0x28, 0, BE32(0x1230), 0, BE16(8)), NULL, 0, back, 4096);
	debug_set("every_nth", "0");
	debug_set("opts", "0");
	CHECK_EQ(a.response, VIRTIO_SCSI_S_OK);
	CHECK_EQ(a.sense >> 16, 1);
	CHECK_EQ(a.used, 108 + 4096);
	CHECK_MEM(back, data, 4096);
	memset(back, 0, 4096);
	is_good(ask(CDB(0x28, 0, BE32(0x1230), 0, BE16(8)), NULL, 0, back, 4096));
	CHECK_MEM(back, data, 4096);
	fe_end(&fe);
}

/* A CDB of 32 bytes: READ(32). */
static void long_cdb(const struct fe_mode *m)
{
	static const uint8_t cdb[32] = {0x7f, [7] = 0x18, [9] = 0x09, [19] = 40, [31] = 2};
	uint8_t *data, *back;
	struct command *c;

	begin_debug(m, "");
	data = guest(1024);
	back = guest(1024);
	pattern(data, 1024, 5);
	is_good(ask(CDB(0x2a, 0, BE32(40), 0, BE16(2)), data, 1024, NULL, 0));
	c = issue(rq, 0, 0, cdb, NULL, 0, back, 1024, 1);
	memcpy(c->req->cdb, cdb, 32);
	fe_flush(rq);
	is_good(answer_of(c, fe_wait(rq, NULL)));
	CHECK_MEM(back, data, 1024);
	fe_end(&fe);
}

/* A command to which the device will not answer. */
static struct command *issue_in_vain(void)
{
	uint64_t before = requests();
	struct command *c;

	debug_set("every_nth", "1");
	debug_set("opts", "4");
	c = issue(rq, 0, 0, read_one, NULL, 0, guest(512), 512, 1);
	fe_flush(rq);
	for (int64_t until = fe_now_ms() + 20000; requests() == before && fe_now_ms() < until;)
		usleep(1000);
	debug_set("opts", "0");
	debug_set("every_nth", "0");
	return c;
}

/* The kernel aborts it. */
static void silence(const struct fe_mode *m)
{
	struct command *c;

	begin_debug(m, ",sg-timeout=1s");
	c = issue_in_vain();
	is_response(answer_of(c, fe_wait(rq, NULL)), VIRTIO_SCSI_S_ABORTED);
	calm(0, 0);
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_end(&fe);
}

/* Nor does the program wait for it in the end. */
static void end_in_silence(const struct fe_mode *m)
{
	int64_t start;

	begin_debug(m, ",sg-timeout=10s");
	issue_in_vain();
	start = fe_now_ms();
	fe_process_signal(&fe.process, SIGTERM);
	fe_process_exits(&fe.process, 0);
	CHECK(fe_now_ms() - start < 9000);
	fe_close(&fe);
	begin_debug(m, "");
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_end(&fe);
}

/* Devices of other types are passed through as well. */
static void tape(const struct fe_mode *m)
{
	uint8_t *data;

	begin_debug(m, "");
	fe_end(&fe);
	debug_set("ptype", "1");
	begin_debug(m, "");
	data = guest(64);
	is_good(ask(CDB(0x12, 0, 0, BE16(36)), NULL, 0, data, 36));
	debug_set("ptype", "0");
	CHECK_EQ(data[0], 1);
	fe_end(&fe);
}

/* For the host below to see. */
static void last_words(const struct fe_mode *m)
{
	uint8_t *data;

	begin_sg(m, DISK, "");
	data = guest(4096);
	for (unsigned i = 0; i < 4096; i += 16)
		memcpy(data + i, "passed on to it\n", 16);
	is_good(ask(CDB(0x2a, 8, BE32(4096), 0, BE16(8)), data, 4096, NULL, 0));
	fe_end(&fe);
}

static void refuses(const char *unit, const char *why)
{
	struct fe_process p = {0};

	fe_process_start(&p, -1, FE_ARGS("scsi", "--fd=0", lun_option("0:0", unit)));
	fe_process_logs(&p, why);
	fe_process_exits(&p, 1);
}

static void options(const struct fe_mode *m)
{
	char unit[200];

	(void)m;
	image_new();
	snprintf(unit, sizeof(unit), "sg=%s", image);
	refuses(unit, "not a device");
	refuses("sg=/dev/null", "sg=/dev/null: not a SCSI device");
	refuses("sg=/nonexistent/sg0", "sg=/nonexistent/sg0: open: No such file or directory");
	refuses("sg=", "sg=: no such key or value");
	refuses("sg=/dev/null,ro", "sg= goes with");
	refuses("sg=/dev/null,serial=1", "sg= goes with");
	refuses("sg=/dev/null,block-size=512", "sg= goes with");
	refuses("sg=/dev/null,null=1M", "exactly one of");
	refuses("null=1M,all-commands", "need sg=");
	refuses("null=1M,sg-timeout=1s", "need sg=");
	refuses("sg=/dev/null,sg-timeout=2000h", "more than a day");
	refuses("sg=/dev/null,sg-timeout=x", "sg-timeout=x: no time");
	if (getenv("SCSI_HOST") == NULL || geteuid() != 0)
		return;
	snprintf(unit, sizeof(unit), "sg=%s", node(DISK, "scsi_generic"));
	CHECK_SYS(seteuid(65534));
	refuses(unit, "open: Permission denied");
}

static void each(const char *of)
{
	kind = of;
	fe_each_mode("data", transfers);
	fe_case("requests of any layout", any_layout, &split);
	fe_case("answers", answers, &split);
	fe_case("limits", limits, &split);
	fe_case("commands that are refused", refusals, &split);
	fe_case("reservations", reservations, &split);
	fe_case("a CD-ROM", cdrom, &split);
	fe_each_layout("load", load);
	fe_case("errors of the device", errors, &split);
	fe_case("a long CDB", long_cdb, &split);
	fe_case("a device that is silent", silence, &split);
	fe_case("a tape", tape, &split);
}

int main(void)
{
	fe_case("options that are refused", options, &split);
	if (getenv("SCSI_HOST") == NULL)
		return tap_done();
	each("scsi_generic");
	each("block");
	kind = "scsi_generic";
	fe_each_layout("aborted requests", aborted);
	fe_case("a reset is told once", told_once, &split);
	fe_case("a reset ends what the device has begun", reset_begun, &split);
	fe_each_layout("a queue that stops", stopped);
	fe_case("plugged while it runs", plugged, &split);
	fe_case("a silent device at the end", end_in_silence, &split);
	fe_case("last words", last_words, &split);
	return tap_done();
}
