/* SPDX-License-Identifier: MIT */
/*
 * The remote processor's serial line: bytes both ways, a host that is not there, a stop and a move in the midst of a buffer, buffers the
 * wrong way round.
 */
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"

enum { RX, TX };

static const char *socket_path(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/s", fe_tmpdir());
	return path;
}

static const char *option(const char *path)
{
	static char text[192];

	snprintf(text, sizeof(text), "--port=host=unix:%s,server", path);
	return text;
}

static int host_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void host_expect(int fd, const uint8_t *want, size_t n)
{
	static uint8_t got[1 << 20];

	for (size_t at = 0; at < n;) {
		ssize_t r;

		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		r = read(fd, got, n - at);
		CHECK(r > 0);
		CHECK_MEM(got, want + at, (size_t)r);
		at += (size_t)r;
	}
}

static void works(const struct fe_mode *m)
{
	const char *path = socket_path();
	struct vring_driver_buf b;
	struct fe_queue *rx, *tx;
	struct fe fe;
	uint8_t *p;
	int fd;

	fe_start(&fe, m, FE_ARGS("rproc-serial", option(path)));
	CHECK_EQ(fe.offered & 0xffffff, 0);
	rx = fe_queue_up(&fe, RX, 8);
	tx = fe_queue_up(&fe, TX, 8);
	p = fe_alloc(&fe, 64, 1, NULL);
	/* the guest speaks first, and waits */
	memcpy(p, "hello", 5);
	b = fe_rd(&fe, p, 5);
	fe_submit(tx, &b, 1, NULL);
	fe_flush(tx);
	CHECK(!fe_wait_ms(tx, NULL, &(uint32_t){0}, 30));
	fd = host_connect(path);
	host_expect(fd, (const uint8_t *)"hello", 5);
	fe_wait(tx, NULL);
	b = fe_wr(&fe, p + 32, 16);
	fe_submit(rx, &b, 1, NULL);
	fe_flush(rx);
	CHECK_EQ(write(fd, "world", 5), 5);
	CHECK_EQ(fe_wait(rx, NULL), 5);
	CHECK_MEM(p + 32, "world", 5);
	close(fd);
	fe_end(&fe);
}

/* A buffer was sent in part when its queue is stopped: the rest follows, once. */
static void half(const struct fe_mode *m)
{
	enum { SIZE = 1 << 20 };
	const char *path = socket_path();
	struct vring_driver_buf b;
	struct fe_queue *tx;
	struct fe fe;
	uint8_t *p;
	int fd;

	fe_start(&fe, m, FE_ARGS("rproc-serial", option(path)));
	tx = fe_queue_up(&fe, TX, 8);
	p = fe_alloc(&fe, SIZE, 1, NULL);
	for (unsigned i = 0; i < SIZE; i++)
		p[i] = (uint8_t)(i * 7 ^ i >> 8 ^ i >> 16);
	fd = host_connect(path);
	b = fe_rd(&fe, p, SIZE);
	fe_submit(tx, &b, 1, NULL);
	fe_flush(tx);
	host_expect(fd, p, 1000);
	for (unsigned round = 0; round < 3; round++) {
		fe_queue_send(tx, fe_queue_stop(tx));
		fe_queue_enable(tx, true);
	}
	host_expect(fd, p + 1000, SIZE - 1000);
	fe_wait(tx, NULL);
	CHECK(!fe_poll(fd, POLLIN, 20));
	close(fd);
	fe_end(&fe);
}

/* The guest moves in the midst of a buffer, its first one: what was said is not said again. */
static void moved(const struct fe_mode *m)
{
	enum { SIZE = 1 << 20, STATE = 4096 };
	const char *path = socket_path();
	static uint32_t base[FE_QUEUES];
	uint8_t state[STATE], *p;
	struct vring_driver_buf b;
	struct fe_queue *tx;
	struct fe fe;
	size_t n;
	int fd, said = 0;

	fe_start(&fe, m, FE_ARGS("rproc-serial", option(path)));
	tx = fe_queue_up(&fe, TX, 8);
	p = fe_alloc(&fe, SIZE, 1, NULL);
	for (unsigned i = 0; i < SIZE; i++)
		p[i] = (uint8_t)(i * 7 ^ i >> 8 ^ i >> 16);
	fd = host_connect(path);
	b = fe_rd(&fe, p, SIZE);
	fe_submit(tx, &b, 1, NULL);
	fe_flush(tx);
	host_expect(fd, p, 1000);
	fe_queues_stop(&fe, base);
	n = fe_state_save(&fe, state, STATE);
	CHECK_SYS(ioctl(fd, FIONREAD, &said));
	CHECK(said > 0);
	host_expect(fd, p + 1000, (size_t)said);
	close(fd);
	fe_hangup(&fe);
	fe_process_exits(&fe.process, 0);

	path = socket_path();
	fe_spawn(&fe, FE_ARGS("rproc-serial", option(path)));
	fe_handshake(&fe);
	CHECK(fe_state_load(&fe, state, n - 1));
	CHECK_EQ(fe_state_load(&fe, state, n), 0);
	fe_queues_resume(&fe, base);
	fd = host_connect(path);
	host_expect(fd, p + 1000 + said, SIZE - 1000 - (size_t)said);
	fe_wait(tx, NULL);
	CHECK(!fe_poll(fd, POLLIN, 20));
	close(fd);
	fe_end(&fe);
}

static void wrong_way(const struct fe_mode *m)
{
	const char *path = socket_path();
	struct vring_driver_buf b[2];
	struct fe_queue *rx, *tx;
	struct fe fe;
	uint8_t *p;
	int fd;

	fe_start(&fe, m, FE_ARGS("rproc-serial", option(path)));
	rx = fe_queue_up(&fe, RX, 8);
	tx = fe_queue_up(&fe, TX, 8);
	p = fe_alloc(&fe, 64, 1, NULL);
	fd = host_connect(path);
	CHECK_EQ(write(fd, "x", 1), 1);
	b[0] = fe_rd(&fe, p, 16);
	CHECK_EQ(fe_transact(rx, b, 1), 0);
	b[0] = fe_wr(&fe, p, 16);
	CHECK_EQ(fe_transact(tx, b, 1), 0);
	b[0] = fe_rd(&fe, p, 16);
	b[1] = fe_wr(&fe, p + 32, 16);
	CHECK_EQ(fe_transact(rx, b, 2), 1);
	CHECK_EQ(p[32], 'x');
	close(fd);
	fe_end(&fe);
}

static void refused(void *row)
{
	const char *const *r = row;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("rproc-serial", r[0], "--socket-path=x"));
	fe_process_logs(&p, r[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--port=host=x", "no such host"},
		{"--port=host=null,name=x", "only host"},
	};

	fe_each_mode_in_order("works", works);
	fe_each_mode("a buffer that is sent in part", half);
	fe_each_mode("moved", moved);
	fe_each_mode("buffers the wrong way round", wrong_way);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
