/* SPDX-License-Identifier: MIT */
/*
 * How fast bytes go through a socket between the guest and a program of the host, and how fast connections come and go. This process is
 * the guest, with a driver that never sleeps, and the program of the host; the device has a processor for itself. Beside each figure stands
 * the floor: the same writes and reads on a bare Unix socket, with a process in the place of the device that does nothing else.
 *
 * usage: vsockbench SECONDS SLICES [OPTION...]: a line for each figure: its name, and medians of the slices. For streams: MB/s, the
 * floor's, nanoseconds of processor time for a write, the floor's. For connections: how many in a second, the floor's, nanoseconds.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	CID = 7,
	HOST = 2,
	RING = 256,
	RX_LEN = 4096, /* as Linux has it */
	MAX = 64 << 10,
	ALLOC = 256 << 10, /* what the guest grants */
	SINK = 256 << 10,
	CONNS = 32, /* that come and go at a time */
	HDR = sizeof(struct virtio_vsock_hdr),
	SLICES = 64
};

struct guest {
	struct fe fe;
	struct fe_queue *rx, *tx;
	clockid_t clock;
	int listener;
	uint8_t *slot[RING]; /* for packets to the host */
	unsigned nslots;
	uint32_t port, sent, alloc, fwd; /* of the stream: what we sent, and what the device said */
	uint32_t got, told;		 /* what came, and what the device knows of it */
	unsigned pending, done;		 /* connections that come and go; that have gone */
	bool counting;			 /* one that goes is followed by another */
};

struct figure {
	double rate[SLICES], floor[SLICES], cpu[SLICES], floor_cpu[SLICES];
};

static uint8_t sink[SINK];

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)(cpu % sysconf(_SC_NPROCESSORS_ONLN)), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static double clock_ns(clockid_t clock)
{
	struct timespec t;

	CHECK_SYS(clock_gettime(clock, &t));
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

static struct sockaddr_un address(const char *path, const char *suffix)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	CHECK((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s%s", path, suffix) < sizeof(a.sun_path));
	return a;
}

/* --- the guest --- */

static void give(struct guest *g, uint8_t *p)
{
	struct vring_driver_buf b[2] = {fe_wr(&g->fe, p, HDR), fe_wr(&g->fe, p + HDR, RX_LEN)};

	fe_submit_direct(g->rx, b, 2, p);
}

static void guest_up(struct guest *g, const char *const *args, const char *uds)
{
	static const struct fe_mode mode = {.event_idx = true};
	struct sockaddr_un a = address(uds, "_1");

	fe_init(&g->fe, &mode);
	run_on(1);
	fe_spawn(&g->fe, args);
	run_on(0);
	fe_handshake(&g->fe);
	fe_memory_default(&g->fe);
	g->rx = fe_queue_up(&g->fe, 0, 2 * RING);
	g->tx = fe_queue_up(&g->fe, 1, 2 * RING);
	for (unsigned i = 0; i < RING; i++) {
		give(g, fe_alloc(&g->fe, HDR + RX_LEN, 64, NULL));
		g->slot[g->nslots++] = fe_alloc(&g->fe, HDR + MAX, 64, NULL);
	}
	fe_flush(g->rx);
	CHECK(clock_getcpuclockid(g->fe.process.pid, &g->clock) == 0);
	g->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK_SYS(bind(g->listener, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(g->listener, CONNS));
}

/* There has to be a slot. */
static void packet(struct guest *g, uint32_t port, uint16_t op, size_t len)
{
	uint8_t *p = g->slot[--g->nslots];
	struct vring_driver_buf b[2] = {fe_rd(&g->fe, p, HDR), fe_rd(&g->fe, p + HDR, (uint32_t)len)};
	struct virtio_vsock_hdr h = {
		.src_cid = CID,
		.dst_cid = HOST,
		.src_port = port,
		.dst_port = 1,
		.len = (uint32_t)len,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = ALLOC,
		.fwd_cnt = g->got,
	};

	memcpy(p, &h, sizeof(h));
	g->sent += (uint32_t)len;
	g->told = g->got;
	fe_submit_direct(g->tx, b, len ? 2 : 1, p);
}

/* Takes back what the device has read. */
static void slots_back(struct guest *g)
{
	void *cookie;

	while (fe_collect(g->tx, &cookie, &(uint32_t){0}))
		g->slot[g->nslots++] = cookie;
}

/* Of a packet that came; the value is its operation. */
static unsigned packet_in(struct guest *g, const struct virtio_vsock_hdr *h)
{
	g->alloc = h->buf_alloc;
	g->fwd = h->fwd_cnt;
	g->got += h->len;
	if (g->pending && h->op == VIRTIO_VSOCK_OP_SHUTDOWN) {
		packet(g, h->dst_port, VIRTIO_VSOCK_OP_RST, 0);
		if (g->counting)
			packet(g, h->dst_port, VIRTIO_VSOCK_OP_REQUEST, 0);
		else
			g->pending--;
		g->done++;
	}
	return h->op;
}

/* Takes the packets that came; the value is the last one's operation. */
static unsigned packets_in(struct guest *g)
{
	unsigned op = 0;
	void *cookie;

	while (g->nslots > 2 && fe_collect(g->rx, &cookie, &(uint32_t){0})) {
		op = packet_in(g, cookie);
		give(g, cookie);
	}
	if (op)
		fe_flush(g->rx);
	return op;
}

/* What came is read at once; the value is the last packet's operation. */
static unsigned guest_reads(struct guest *g)
{
	unsigned op;

	slots_back(g);
	op = packets_in(g);
	if (g->got - g->told >= ALLOC / 4) {
		packet(g, g->port, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
		fe_flush(g->tx);
	}
	return op;
}

/* ops: a bit for each that may come last. */
static void until(struct guest *g, uint64_t ops)
{
	for (int64_t end = fe_now_ms() + fe_limit_ms; !(BIT(guest_reads(g)) & ops);)
		CHECK(fe_now_ms() < end);
}

/* --- streams --- */

static int stream_open(struct guest *g)
{
	int fd;

	g->port++;
	g->sent = g->got = g->told = 0;
	packet(g, g->port, VIRTIO_VSOCK_OP_REQUEST, 0);
	fe_flush(g->tx);
	until(g, BIT(VIRTIO_VSOCK_OP_RESPONSE));
	fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	CHECK(fd >= 0);
	return fd;
}

static void stream_close(struct guest *g, int fd)
{
	while (recv(fd, sink, sizeof(sink), 0) > 0)
		;
	close(fd);
	until(g, BIT(VIRTIO_VSOCK_OP_SHUTDOWN) | BIT(VIRTIO_VSOCK_OP_RST));
	packet(g, g->port, VIRTIO_VSOCK_OP_RST, 0);
	fe_flush(g->tx);
	while (g->nslots < RING)
		slots_back(g);
}

/* As the guest's kernel sends it: no more than was granted. */
static void guest_writes(struct guest *g, size_t size)
{
	unsigned n = 0;

	slots_back(g);
	for (; g->nslots > 2; n++) {
		size_t room = g->alloc - (g->sent - g->fwd);

		if (!room)
			break;
		packet(g, g->port, VIRTIO_VSOCK_OP_RW, MIN(room, size));
	}
	if (n)
		fe_flush(g->tx);
	packets_in(g);
}

/* The host's program; what it wrote or read. */
static size_t host_writes(int fd, size_t size)
{
	size_t total = 0;

	for (unsigned i = 0; i < 64; i++) {
		ssize_t n = send(fd, sink, size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			break;
		total += (size_t)n;
	}
	return total;
}

static size_t host_reads(int fd)
{
	ssize_t n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);

	return n > 0 ? (size_t)n : 0;
}

/* One slice: MB/s, and nanoseconds of the device's for each write. */
static void stream_slice(
	struct guest *g, bool to_host, size_t size, double seconds, double *rate, double *cpu)
{
	int fd = stream_open(g);
	double start = now_ns(), used = clock_ns(g->clock), end = start + seconds * 1e9, bytes = 0;

	for (unsigned i = 0; i % 64 || now_ns() < end; i++) {
		if (to_host) {
			guest_writes(g, size);
			bytes += (double)host_reads(fd);
		} else {
			uint32_t before = g->got;

			host_writes(fd, size);
			guest_reads(g);
			bytes += g->got - before;
		}
	}
	*rate = bytes * 1e3 / (now_ns() - start);
	*cpu = (clock_ns(g->clock) - used) * (double)size / bytes;
	stream_close(g, fd);
}

/* In the place of the device: nothing but system calls, as the program's peer would make them. */
_Noreturn static void floor_child(int fd, bool to_host, size_t size)
{
	run_on(1);
	for (;;) {
		ssize_t n = to_host ? send(fd, sink, size, MSG_NOSIGNAL) : recv(fd, sink, MAX, 0);

		if (n <= 0)
			_exit(0);
	}
}

static void floor_slice(bool to_host, size_t size, double seconds, double *rate, double *cpu)
{
	double start, end, used, bytes = 0;
	clockid_t clock;
	int fd[2];
	pid_t pid;

	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	pid = fork();
	if (pid == 0) {
		close(fd[0]);
		floor_child(fd[1], to_host, size);
	}
	CHECK(pid > 0 && clock_getcpuclockid(pid, &clock) == 0);
	close(fd[1]);
	start = now_ns();
	used = clock_ns(clock);
	end = start + seconds * 1e9;
	for (unsigned i = 0; i % 64 || now_ns() < end; i++)
		bytes += (double)(to_host ? host_reads(fd[0]) : host_writes(fd[0], size));
	*rate = bytes * 1e3 / (now_ns() - start);
	*cpu = (clock_ns(clock) - used) * (double)size / bytes;
	close(fd[0]);
	CHECK_SYS(waitpid(pid, NULL, 0));
}

/* --- connections --- */

/* The program of the host closes each as soon as it is there. */
static void conns_step(struct guest *g)
{
	int fd;

	while ((fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
	slots_back(g);
	packets_in(g);
	fe_flush(g->tx);
}

static void conns_slice(struct guest *g, double seconds, double *rate, double *cpu)
{
	double start = now_ns(), used = clock_ns(g->clock), end = start + seconds * 1e9;

	g->done = g->got = g->told = 0;
	g->counting = true;
	for (; g->pending < CONNS; g->pending++)
		packet(g, ++g->port, VIRTIO_VSOCK_OP_REQUEST, 0);
	while (now_ns() < end)
		conns_step(g);
	*rate = g->done * 1e9 / (now_ns() - start);
	*cpu = (clock_ns(g->clock) - used) / g->done;
	for (g->counting = false; g->pending;)
		conns_step(g);
	while (g->nslots < RING)
		slots_back(g);
}

static double conns_floor(const char *path, double seconds)
{
	struct sockaddr_un a = address(path, "_floor");
	double start = now_ns(), end = start + seconds * 1e9, n = 0;
	int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(bind(l, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(l, 1));
	for (; now_ns() < end; n++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
		close(accept4(l, NULL, NULL, SOCK_CLOEXEC));
		close(fd);
	}
	close(l);
	CHECK_SYS(unlink(a.sun_path));
	return n * 1e9 / (now_ns() - start);
}

/* --- all of it --- */

int main(int argc, char **argv)
{
	static const size_t sizes[] = {64, 4096, MAX};
	static struct guest g;
	static struct figure f;
	const char *args[16] = {"vsock", "--guest-cid=7"};
	char option[192], uds[160];
	double seconds = argc > 2 ? atof(argv[1]) : 0;
	unsigned slices = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	if (seconds <= 0 || !slices || slices > SLICES || argc > 14)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	snprintf(uds, sizeof(uds), "%s/v", fe_tmpdir());
	snprintf(option, sizeof(option), "--uds-path=%s", uds);
	args[2] = option;
	for (int i = 3; i < argc; i++)
		args[i] = argv[i];
	guest_up(&g, args, uds);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
		bool to_host = i < ARRAY_SIZE(sizes);
		size_t size = sizes[i % ARRAY_SIZE(sizes)];

		for (unsigned s = 0; s < slices; s++) {
			stream_slice(&g, to_host, size, seconds, &f.rate[s], &f.cpu[s]);
			floor_slice(to_host, size, seconds, &f.floor[s], &f.floor_cpu[s]);
		}
		printf("%s.%zu %.0f %.0f %.0f %.0f\n", to_host ? "to-host" : "to-guest", size,
			median(f.rate, slices), median(f.floor, slices), median(f.cpu, slices),
			median(f.floor_cpu, slices));
		fflush(stdout);
	}
	for (unsigned s = 0; s < slices; s++) {
		conns_slice(&g, seconds, &f.rate[s], &f.cpu[s]);
		f.floor[s] = conns_floor(uds, seconds);
	}
	printf("connections %.0f %.0f %.0f\n", median(f.rate, slices), median(f.floor, slices),
		median(f.cpu, slices));
	close(g.listener);
	fe_process_kill(&g.fe.process);
	return 0;
}
