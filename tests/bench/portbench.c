/* SPDX-License-Identifier: MIT */
/*
 * How fast bytes go through console, and messages through rpmsg: the front-end of the tests as guest, the real binary. A line each: name,
 * value, unit.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"

enum { RING = 128, DEPTH = 64 };

static double seconds(int64_t since_ns)
{
	return (double)(time_ns() - (uint64_t)since_ns) / 1e9;
}

/* From the guest to a host that takes all. */
static void to_host(const char *what, const char *port, uint32_t size, uint64_t total)
{
	struct fe fe;
	struct fe_queue *tx;
	struct vring_driver_buf b[DEPTH];
	uint64_t sent = 0, done = 0, n = total / size;
	int64_t start;

	fe_init(&fe, NULL);
	fe.device_mask = 0;
	fe_spawn(&fe, FE_ARGS("console", port));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	tx = fe_queue_up(&fe, 1, RING);
	for (unsigned i = 0; i < DEPTH; i++)
		b[i] = fe_rd(&fe, fe_alloc(&fe, size, 4096, NULL), size);
	start = (int64_t)time_ns();
	while (done < n) {
		for (; sent < n && sent - done < DEPTH; sent++)
			fe_submit(tx, &b[sent % DEPTH], 1, NULL);
		fe_flush(tx);
		fe_wait(tx, NULL);
		for (done++; fe_collect(tx, NULL, &(uint32_t){0}); done++)
			;
	}
	printf("%s %.0f MB/s\n", what, (double)total / seconds(start) / 1e6);
	fe_end(&fe);
}

/* There and back by way of a program of the host. */
static void latency(void)
{
	enum { N = 20000 };
	struct fe fe;
	struct fe_queue *rx, *tx;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char option[200];
	uint8_t *p;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int64_t start;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", fe_tmpdir());
	snprintf(option, sizeof(option), "--port=host=unix:%s,server", a.sun_path);
	fe_init(&fe, NULL);
	fe.device_mask = 0;
	fe_spawn(&fe, FE_ARGS("console", option));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	rx = fe_queue_up(&fe, 0, RING);
	tx = fe_queue_up(&fe, 1, RING);
	p = fe_alloc(&fe, 128, 64, NULL);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	start = (int64_t)time_ns();
	for (unsigned i = 0; i < N; i++) {
		struct vring_driver_buf out = fe_rd(&fe, p, 64), in = fe_wr(&fe, p + 64, 64);
		char byte[64];

		fe_submit(rx, &in, 1, NULL);
		fe_flush(rx);
		CHECK_EQ(fe_transact(tx, &out, 1), 0);
		CHECK_EQ(read(fd, byte, sizeof(byte)), 64);
		CHECK_EQ(write(fd, byte, sizeof(byte)), 64);
		fe_wait(rx, NULL);
	}
	printf("%s %.1f us\n", "console.echo", seconds(start) * 1e6 / N);
	close(fd);
	fe_end(&fe);
}

static void echo(void)
{
	enum { N = 1000000, SIZE = 512 };
	struct fe fe;
	struct fe_queue *rx, *tx;
	struct vring_driver_buf in[DEPTH], out;
	uint32_t header[4] = {2000, 1024, 0, 64};
	uint64_t sent = 0, done = 0, acked = 0;
	uint8_t *p;
	void *cookie;
	int64_t start;

	fe_start(&fe, NULL, FE_ARGS("rpmsg", "--service=name=e,echo"));
	rx = fe_queue_up(&fe, 0, RING);
	tx = fe_queue_up(&fe, 1, RING);
	p = fe_alloc(&fe, SIZE, 64, NULL);
	memcpy(p, header, sizeof(header));
	out = fe_rd(&fe, p, 80);
	for (unsigned i = 0; i < DEPTH; i++) {
		in[i] = fe_wr(&fe, fe_alloc(&fe, SIZE, 64, NULL), SIZE);
		fe_submit(rx, &in[i], 1, &in[i]);
	}
	fe_flush(rx);
	fe_wait(rx, &cookie); /* the announcement */
	fe_submit(rx, cookie, 1, cookie);
	start = (int64_t)time_ns();
	while (done < N) {
		for (; sent < N && sent - done < DEPTH && sent - acked < DEPTH; sent++)
			fe_submit(tx, &out, 1, NULL);
		fe_flush(tx);
		fe_flush(rx);
		fe_wait(rx, &cookie);
		do {
			fe_submit(rx, cookie, 1, cookie);
			done++;
		} while (fe_collect(rx, &cookie, &(uint32_t){0}));
		while (fe_collect(tx, NULL, &(uint32_t){0}))
			acked++;
	}
	printf("%s %.0f msg/s\n", "rpmsg.echo", N / seconds(start));
	fe_end(&fe);
}

int main(void)
{
	char option[200];

	to_host("console.null.4k", "--port=host=null", 4096, UINT64_C(4) << 30);
	snprintf(option, sizeof(option), "--port=host=file:%s/out", fe_tmpdir());
	to_host("console.file.4k", option, 4096, UINT64_C(512) << 20);
	snprintf(option, sizeof(option), "--port=host=file:%s/out2", fe_tmpdir());
	to_host("console.file.32k", option, 32768, UINT64_C(512) << 20);
	latency();
	echo();
	return 0;
}
