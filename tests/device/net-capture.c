/* SPDX-License-Identifier: MIT */
/* --pcap on the switch, read back: of guests of one process, with another process's, and where the capture is full. */
#include "net-hosts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

enum { FILE_HEAD = 24, RECORD = 16, TSO_DATA = 4000, TSO_HEAD = 54 };

struct frame {
	unsigned to, from;
	size_t len;
	unsigned seed;
};

static char path[128], option[144];

static void place_capture(void)
{
	snprintf(path, sizeof(path), "%s/pcap", fe_tmpdir());
	snprintf(option, sizeof(option), "--pcap=%s", path);
}

static int capture_open(void)
{
	static const uint32_t head[] = {0xa1b23c4d, 2 | 4 << 16, 0, 0, 262144, 1};
	uint8_t got[FILE_HEAD];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK_SYS(fd);
	CHECK_EQ(read(fd, got, sizeof(got)), FILE_HEAD);
	CHECK_MEM(got, head, FILE_HEAD);
	return fd;
}

/* The next frame of the capture; 0: its end. */
static size_t capture_next(int fd, uint8_t *frame, size_t max)
{
	uint32_t r[4]; /* s, ns, bytes, length */
	ssize_t n = read(fd, r, sizeof(r));

	if (!n)
		return 0;
	CHECK_EQ(n, RECORD);
	CHECK(r[0] <= (uint64_t)time(NULL) + 1 /* whose clock is a coarse one */ &&
		r[0] + 3600 > (uint64_t)time(NULL));
	CHECK(r[1] < 1000000000);
	CHECK_EQ(r[2], r[3]);
	CHECK(r[2] <= max);
	CHECK_EQ(read(fd, frame, r[2]), r[2]);
	return r[2];
}

/* These, in this order, come next. */
static void captured(int fd, const struct frame *f, unsigned n)
{
	static uint8_t got[70000], want[70000];

	for (; n--; f++) {
		CHECK_EQ(capture_next(fd, got, sizeof(got)), f->len);
		make(want, f->to, f->from, f->len, f->seed);
		CHECK_MEM(got, want, f->len);
	}
}

/* A segment to be cut by somebody else, of bytes that do not matter here. */
static void send_large(struct guest *g, uint8_t *frame)
{
	struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = htole16(TSO_HEAD),
		.gso_size = htole16(1000),
		.csum_start = htole16(34),
		.csum_offset = htole16(16)};
	uint8_t *p = fe_alloc(&g->fe, HDR + TSO_HEAD + TSO_DATA, 1, NULL);
	struct vring_driver_buf b = fe_rd(&g->fe, p, HDR + TSO_HEAD + TSO_DATA);

	memcpy(p, &h, HDR);
	make(p + HDR, 2, g->id, TSO_HEAD + TSO_DATA, 1);
	memcpy(frame, p + HDR, TSO_HEAD + TSO_DATA);
	CHECK(fe_submit(g->tx, &b, 1, NULL) >= 0);
	fe_flush(g->tx);
	fe_wait(g->tx, NULL);
}

/* Each frame is in the capture once, whoever got it, and as it was sent. */
static void together(const struct fe_mode *m)
{
	static const struct frame want[] = {{0, 1, 60, 0}, {0, 2, 60, 1}, {2, 1, 1514, 2}, {1, 2, 14, 3},
		{9, 3, 80, 4}, {2, 1, 65550, 5}};
	static uint8_t large[TSO_HEAD + TSO_DATA], got[70000];
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1], *c = &h.g[2];
	int fd;

	place_capture();
	host_start(&h, m, 1, 3, FE_ARGS(option));
	give(a, 8);
	give(b, 40);
	give(c, 2);
	announce(&h, 0);
	announce(&h, 1);
	send_one(a, 2, 1514, 2);
	gets(b, 2, 1, 1514, 2);
	send_one(b, 1, 14, 3);
	gets(a, 1, 2, 14, 3);
	send_one(c, 9, 80, 4); /* unknown: to both */
	gets(a, 9, 3, 80, 4);
	gets(b, 9, 3, 80, 4);
	send_one(a, 2, 65550, 5);
	gets(b, 2, 1, 65550, 5);
	send_large(a, large);
	CHECK_EQ(take(b, got, true), sizeof(large));
	send_one(b, 3, 100, 6); /* who has no buffers: lost after a while */

	fd = capture_open();
	captured(fd, want, ARRAY_SIZE(want));
	CHECK_EQ(capture_next(fd, got, sizeof(got)), sizeof(large));
	CHECK_MEM(got, large, sizeof(large));
	captured(fd, &(struct frame){3, 2, 100, 6}, 1);
	fe_close(&a->fe); /* and after a guest has gone and come back */
	guest_connect(a, m);
	send_one(a, 2, 61, 7);
	gets(b, 2, 1, 61, 7);
	captured(fd, &(struct frame){2, 1, 61, 7}, 1);
	host_end(&h);
	CHECK_EQ(capture_next(fd, got, sizeof(got)), 0);
	close(fd);
}

/* What other processes' guests send is there when it comes to a guest of this one. */
static void mesh(const struct fe_mode *m)
{
	static const struct frame want[] = {
		{0, 1, 60, 0}, {0, 3, 60, 0}, {0, 3, 60, 0}, {3, 1, 100, 1}, {1, 3, 101, 2}, {2, 1, 102, 3}};
	static struct host h[2];
	char join[128];
	uint8_t got[200];
	int fd;

	place_capture();
	snprintf(join, sizeof(join), "--switch=%s/switch", fe_tmpdir());
	host_start(&h[0], m, 1, 2, FE_ARGS(join, option));
	host_start(&h[1], m, 3, 1, FE_ARGS(join));
	await_peers(&h[0], 2);
	await_peers(&h[1], 2);
	for (unsigned i = 0; i < 2; i++)
		give(&h[0].g[i], 8);
	give(&h[1].g[0], 8);
	announce(&h[0], 0);
	gets(&h[1].g[0], 0, 1, 60, 0);
	announce(&h[1], 0);
	gets(&h[0].g[0], 0, 3, 60, 0);
	gets(&h[0].g[1], 0, 3, 60, 0); /* each port has a ring of its own, so it entered twice */
	send_one(&h[0].g[0], 3, 100, 1);
	gets(&h[1].g[0], 3, 1, 100, 1);
	send_one(&h[1].g[0], 1, 101, 2);
	gets(&h[0].g[0], 1, 3, 101, 2);
	send_one(&h[0].g[0], 2, 102, 3);
	gets(&h[0].g[1], 2, 1, 102, 3);
	host_end(&h[0]);
	host_end(&h[1]);
	fd = capture_open();
	captured(fd, want, ARRAY_SIZE(want));
	CHECK_EQ(capture_next(fd, got, sizeof(got)), 0);
	close(fd);
}

/* A pipe without room for the whole of a frame: nothing comes after the part that there is, and the guests go on. */
static void full(const struct fe_mode *m)
{
	enum { PIPE = 4096, LEN = 9000 };
	static struct host h;
	static uint8_t got[PIPE + 1];
	ssize_t n;
	int fd;

	place_capture();
	CHECK_SYS(mkfifo(path, 0600));
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	CHECK_SYS(fd);
	CHECK_SYS(fcntl(fd, F_SETPIPE_SZ, PIPE));
	host_start(&h, m, 1, 2, FE_ARGS(option));
	give(&h.g[1], 20);
	send_one(&h.g[0], 2, LEN, 0);
	gets(&h.g[1], 2, 1, LEN, 0);
	fe_process_logs(&h.process, "there is no room for a frame, the capture ends in it");
	n = read(fd, got, sizeof(got));
	CHECK(n > FILE_HEAD + RECORD && n <= PIPE);
	send_one(&h.g[0], 2, 60, 1);
	gets(&h.g[1], 2, 1, 60, 1);
	CHECK(read(fd, got, sizeof(got)) < 0);
	host_end(&h);
	close(fd);
}

/* The same of a file that may not grow further, which is no reason to end. */
static void limited(const struct fe_mode *m)
{
	enum { LIMIT = 65536, LEN = 10000, WHOLE = (LIMIT - FILE_HEAD) / (LEN + RECORD) };
	static uint8_t got[LIMIT];
	static struct host h;
	struct rlimit before, limit;
	struct stat st;
	int fd;

	place_capture();
	CHECK_SYS(getrlimit(RLIMIT_FSIZE, &before));
	limit = (struct rlimit){LIMIT, before.rlim_max};
	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &limit));
	host_spawn(&h, m, 1, 2, FE_ARGS(option));
	CHECK_SYS(setrlimit(RLIMIT_FSIZE, &before));
	for (unsigned i = 0; i < 2; i++)
		guest_connect(&h.g[i], m);
	give(&h.g[1], 60);
	for (unsigned i = 0; i < 9; i++) {
		send_one(&h.g[0], 2, LEN, i);
		gets(&h.g[1], 2, 1, LEN, i);
	}
	fe_process_logs(&h.process, "there is no room for a frame, the capture ends in it");
	fd = capture_open();
	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_size, LIMIT);
	for (unsigned i = 0; i < WHOLE; i++)
		captured(fd, &(struct frame){2, 1, LEN, i}, 1);
	CHECK_EQ(read(fd, got, sizeof(got)), (LIMIT - FILE_HEAD) % (LEN + RECORD));
	close(fd);
	host_end(&h);
}

int main(void)
{
	fe_each_layout("guests of one process", together);
	fe_each_layout("with another process", mesh);
	fe_case("a capture that is full", full, &(struct fe_mode){0});
	fe_case("a capture at its limit", limited, &(struct fe_mode){0});
	return tap_done();
}
