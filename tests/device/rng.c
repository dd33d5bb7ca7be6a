/* SPDX-License-Identifier: MIT */
/*
 * The rng device: its sources, its quota, and what it does with buffers. Random bytes come from the helpers of the
 * protocol tests, which also hold what concerns the rings (protocol-*.c).
 */
#include "protocol.h"

#include <fcntl.h>

/* --- works --- */

static void works(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	rng_traffic(q, 500);
	fe_end(&fe);
}

static void differs(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf a, b;
	uint8_t *p;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 8);
	p = fe_alloc(&fe, 128, 1, NULL);
	a = fe_wr(&fe, p, 64);
	b = fe_wr(&fe, p + 64, 64);
	CHECK_EQ(fe_transact(q, &a, 1), 64);
	CHECK_EQ(fe_transact(q, &b, 1), 64);
	CHECK(memcmp(p, p + 64, 64) != 0);
	fe_end(&fe);
}

/* A buffer of gigabytes is filled in part: some bytes, soon. */
static void large(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf;
	uint32_t n;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 8);
	buf = fe_wr(&fe, fe_alloc(&fe, 1 << 20, 1, NULL), 1 << 20);
	n = fe_transact(q, &buf, 1);
	CHECK(n >= 1 && n <= 1 << 20);
	rng_works(q);
	fe_end(&fe);
}

/* --- sources --- */

static void fifo(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct source s;
	struct vring_driver_buf buf;
	uint8_t *p;
	uint32_t len;

	source_open(&s);
	fe_start(&fe, m, FE_ARGS("rng", s.option));
	q = fe_queue_up(&fe, 0, 8);
	p = fe_alloc(&fe, 4096, 1, NULL);
	buf = fe_wr(&fe, p, 4096);
	/* dry: the request waits, and the process does not */
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	CHECK(!fe_wait_ms(q, NULL, &len, 50));
	fe_barrier(&fe);
	source_feed(&s, 100);
	CHECK_EQ(fe_wait(q, NULL), 100);
	source_check(0, p, 100);
	CHECK_EQ(p[100], 0);
	/* and again, after it has been dry */
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	source_feed(&s, 5000);
	CHECK_EQ(fe_wait(q, NULL), 4096);
	source_check(100, p, 4096);
	fe_end(&fe);
	source_close(&s);
}

/* Several requests wait for a dry source, are given back when the ring stops, and are served in their order after. */
static void fifo_stop(const struct fe_mode *m)
{
	enum { N = 4, LEN = 32 };
	struct fe fe;
	struct fe_queue *q;
	struct source s;
	uint8_t *p;
	uint32_t base;
	void *cookie;

	source_open(&s);
	fe_start(&fe, m, FE_ARGS("rng", s.option));
	q = fe_queue_up(&fe, 0, 16);
	p = fe_alloc(&fe, N * LEN, 1, NULL);
	for (unsigned i = 0; i < N; i++) {
		struct vring_driver_buf buf = fe_wr(&fe, p + i * LEN, LEN);

		fe_submit(q, &buf, 1, p + i * LEN);
	}
	fe_flush(q);
	fe_barrier(&fe);
	base = fe_queue_stop(q);
	fe_queue_send(q, base);
	if (fe.features & BIT(FE_F_PROTOCOL))
		fe_queue_enable(q, true);
	source_feed(&s, N * LEN);
	for (unsigned i = 0; i < N; i++) {
		CHECK_EQ(fe_wait(q, &cookie), LEN);
		CHECK(cookie == p + i * LEN);
		source_check(i * LEN, p + i * LEN, LEN);
	}
	fe_end(&fe);
	source_close(&s);
}

/* A regular file is read over and over. */
static void file(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf;
	char path[160], option[192], got[32] = "";
	uint8_t *p;
	int fd;

	snprintf(path, sizeof(path), "%s/bytes", fe_tmpdir());
	snprintf(option, sizeof(option), "--source=%s", path);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	close(fd);
	fe_start(&fe, m, FE_ARGS("rng", option));
	q = fe_queue_up(&fe, 0, 8);
	p = fe_alloc(&fe, 16, 1, NULL);
	for (size_t at = 0; at < 25;) {
		uint32_t n;

		buf = fe_wr(&fe, p, 5);
		n = fe_transact(q, &buf, 1);
		CHECK(n >= 1 && n <= 5);
		memcpy(got + at, p, n);
		at += n;
	}
	CHECK_MEM(got, "0123456789012345678901234", 25);
	fe_end(&fe);
}

static void device_file(const struct fe_mode *m)
{
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng", "--source=/dev/urandom"));
	rng_works(fe_queue_up(&fe, 0, 16));
	fe_end(&fe);
}

/* A file that becomes empty is a source that is gone: the process says so and ends. */
static void file_gone(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf;
	char path[160], option[192];
	int fd;

	snprintf(path, sizeof(path), "%s/bytes", fe_tmpdir());
	snprintf(option, sizeof(option), "--source=%s", path);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK_EQ(write(fd, "0123456789", 10), 10);
	fe_start(&fe, m, FE_ARGS("rng", option));
	q = fe_queue_up(&fe, 0, 8);
	CHECK_SYS(ftruncate(fd, 0));
	close(fd);
	buf = fe_wr(&fe, fe_alloc(&fe, 16, 1, NULL), 16);
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	fe_process_logs(&fe.process, "no more bytes");
	fe_process_exits(&fe.process, 1);
	fe_close(&fe);
}

/* --- quota --- */

static void quota(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf;
	uint32_t total = 0;
	int64_t start;

	fe_start(&fe, m, FE_ARGS("rng", "--max-bytes=100", "--period=300"));
	q = fe_queue_up(&fe, 0, 8);
	buf = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);
	start = fe_now_ms();
	/* the first period's 100 bytes come at once, the 36 that are left of it as a short buffer */
	for (unsigned i = 0; i < 3; i++)
		fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	CHECK_EQ(fe_wait(q, NULL), 64);
	CHECK_EQ(fe_wait(q, NULL), 36);
	CHECK_EQ(fe_wait(q, NULL), 64);
	CHECK(fe_now_ms() - start >= 290);
	/* never more than a period's bytes in a period */
	start = fe_now_ms();
	for (unsigned i = 0; i < 6; i++)
		total += fe_transact(q, &buf, 1);
	CHECK(total <= 100 * ((uint32_t)((fe_now_ms() - start) / 300) + 2));
	fe_end(&fe);
}

/* A buffer waits for its quota: that must hold up neither messages nor the end. */
static void quota_end(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf;

	fe_start(&fe, m, FE_ARGS("rng", "--max-bytes=10", "--period=1h"));
	q = fe_queue_up(&fe, 0, 8);
	buf = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);
	CHECK_EQ(fe_transact(q, &buf, 1), 10);
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	fe_barrier(&fe);
	fe_queue_stop(q);
	fe_end(&fe);
}

/* --- hostile --- */

static void not_writable(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;
	struct vring_driver_buf buf[2];
	uint8_t *p;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 8);
	p = fe_alloc(&fe, 64, 1, NULL);
	buf[0] = fe_rd(&fe, p, 32);
	CHECK_EQ(fe_transact(q, buf, 1), 0);
	buf[1] = fe_wr(&fe, p + 32, 32);
	CHECK_EQ(fe_transact(q, buf, 2), 32);
	for (unsigned i = 0; i < 32; i++)
		CHECK_EQ(p[i], 0);
	rng_works(q);
	fe_end(&fe);
}

/* --- reconnect --- */

/* The front-end goes while requests wait, comes back, and finds the source where it was. */
static void reconnect(const struct fe_mode *m)
{
	struct source s;
	struct server v;
	struct fe_queue *q;
	struct vring_driver_buf buf;
	uint8_t *p;

	source_open(&s);
	server_start(&v, m, FE_ARGS(s.option));
	for (unsigned round = 0; round < 3; round++) {
		fe_handshake(&v.fe);
		fe_memory_default(&v.fe);
		q = fe_queue_up(&v.fe, 0, 8);
		p = fe_alloc(&v.fe, 64, 1, NULL);
		buf = fe_wr(&v.fe, p, 64);
		fe_submit(q, &buf, 1, NULL);
		fe_flush(q);
		source_feed(&s, 64);
		CHECK_EQ(fe_wait(q, NULL), 64);
		source_check(round * 64, p, 64);
		fe_submit(q, &buf, 1, NULL);
		fe_flush(q);
		fe_barrier(&v.fe);
		server_reconnect(&v);
	}
	server_end(&v);
	source_close(&s);
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("rng", row[0], "--socket-path=x"));
	fe_process_logs(&p, row[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--source=/nonexistent/x", "--source=/nonexistent/x: No such file"},
		{"--source=/", "--source=/: is a directory"},
		{"--source=", "--source="},
		{"--max-bytes=x", "--max-bytes=x"},
		{"--period=0", "--period=0"},
	};

	fe_each_mode_in_order("works", works);
	fe_each_layout("differs", differs);
	fe_each_layout("a large buffer", large);
	fe_each_mode("a FIFO that is dry at times", fifo);
	fe_each_mode("stop while requests wait for the source", fifo_stop);
	fe_case("a file, over and over", file, NULL);
	fe_case("a device as source", device_file, NULL);
	fe_case("a file that becomes empty", file_gone, NULL);
	fe_each_layout("quota", quota);
	fe_each_layout("stop and end while a request waits for its quota", quota_end);
	fe_each_layout("buffers that can't be written", not_writable);
	fe_each_mode("reconnect", reconnect);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
