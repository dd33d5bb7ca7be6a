/* SPDX-License-Identifier: MIT */
/*
 * How fast bytes go through console, and messages through rpmsg: the front-end of the tests as guest, the real binary.
 *
 *	portbench DIR SLICES...
 *
 * prints a line each: name, ours, another's, ours per processor second, the other's, unit; - where there is none. The other is
 *
 *	.4k .32k	a plain program that appends to a file in DIR, a megabyte at a time: what this file system takes
 *	.qemu		QEMU's own console on a file, which no vhost-user front-end can reach, by virtio-mmio and without a guest (qtest.h).
 *			Both get the same buffers in batches, because a notification of QEMU's is slow; nobody asks for interrupts.
 *
 * All take turns with a slice of the same size each, and the file is emptied before each, so that the same pages of memory are
 * written again; medians are printed. The guest has processor 0 for itself, back-ends share processor 1.
 */
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "qtest.h"

#include "frontend.h"

enum { RING = 128, DEPTH = 64, MAX_SLICES = 32, PORTS = 32, MEMORY = 64 << 20 };
enum { BUFFER = 32768, SLICE = 128 << 20 };

/* Somebody who takes bytes. */
struct taker {
	struct fe fe;
	struct fe_queue *q; /* NULL: QEMU */
	struct qtest qtest;
	uint64_t mmio;
	struct vring_driver *ring;
	pid_t pid;
	struct vring_driver_buf buf[DEPTH];
	double rate[MAX_SLICES], per_cpu[MAX_SLICES];
};

static const char *dir;
static unsigned slices;

static double now(void)
{
	return (double)time_ns() / 1e9;
}

static double cpu_of(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	CHECK_EQ(clock_getcpuclockid(pid, &clock), 0);
	CHECK_SYS(clock_gettime(clock, &t));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pin(unsigned cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

static double median(double *v)
{
	qsort(v, slices, sizeof(*v), compare);
	return v[slices / 2];
}

static void print(const char *name, struct taker *a, struct taker *b)
{
	double rate = median(a->rate), cpu = median(a->per_cpu);

	printf("%s %.0f %.0f %.0f %.0f MB/s\n", name, rate, median(b->rate), cpu, median(b->per_cpu));
	fflush(stdout);
}

static void print_one(const char *name, double v, const char *unit)
{
	printf("%s %.*f - - - %s\n", name, v < 1000 ? 1 : 0, v, unit);
	fflush(stdout);
}

/* Takers */

static void ours_begin(struct taker *t, const char *port)
{
	fe_init(&t->fe, NULL);
	t->fe.device_mask = 0;
	pin(1);
	fe_spawn(&t->fe, FE_ARGS("console", port));
	pin(0);
	fe_handshake(&t->fe);
	fe_memory_default(&t->fe);
	t->q = fe_queue_up(&t->fe, 1, RING);
	t->ring = &t->q->ring;
	t->pid = t->fe.process.pid;
	for (unsigned i = 0; i < DEPTH; i++)
		t->buf[i] =
			fe_rd(&t->fe, memset(fe_alloc(&t->fe, BUFFER, 4096, NULL), (int)i, BUFFER), BUFFER);
}

static void qemu_begin(struct taker *t, const char *path)
{
	static struct vring_driver ring;
	const struct vring_driver_mode mode = {0};
	char chardev[400];

	snprintf(chardev, sizeof(chardev), "file,id=c,path=%s,append=on", path);
	qtest_start(&t->qtest, MEMORY, 1,
		(const char *const[]){"-chardev", chardev, "-device", "virtio-serial-device,max_ports=1",
			"-device", "virtconsole,chardev=c", NULL});
	t->pid = t->qtest.pid;
	t->mmio = qtest_device(&t->qtest, VIRTIO_ID_CONSOLE, 0);
	qtest_features(&t->qtest, t->mmio, BIT(VIRTIO_F_VERSION_1));
	qtest_queue(&t->qtest, t->mmio, 0, RING, &mode, &ring);
	qtest_queue(&t->qtest, t->mmio, 1, RING, &mode, &ring);
	qtest_go(&t->qtest, t->mmio);
	t->ring = &ring;
	for (unsigned i = 0; i < DEPTH; i++) {
		uint8_t *p = qtest_alloc(&t->qtest, BUFFER, 4096);

		t->buf[i] = (struct vring_driver_buf){(uint64_t)(p - t->qtest.mem), BUFFER, false};
		memset(p, (int)i, BUFFER);
	}
}

/* Like a guest that sleeps until it is interrupted. */
static void stream(struct taker *t, uint64_t n, unsigned depth)
{
	uint64_t sent = 0, done = 0;

	vring_driver_arm(t->ring);

	while (done < n) {
		for (; sent < n && sent - done < depth; sent++)
			fe_submit(t->q, &t->buf[sent % depth], 1, NULL);
		fe_flush(t->q);
		fe_wait(t->q, NULL);
		for (done++; fe_collect(t->q, NULL, &(uint32_t){0}); done++)
			;
	}
}

static void batches(struct taker *t, uint64_t n, unsigned depth)
{
	void *cookie;
	uint32_t len;

	vring_driver_disarm(t->ring);
	for (uint64_t sent = 0; sent < n; sent += depth) {
		double end = 0;

		for (unsigned i = 0; i < depth; i++)
			CHECK(vring_driver_add(t->ring, &t->buf[i], 1, t) >= 0);
		if (vring_driver_publish(t->ring)) {
			if (t->q)
				fe_kick(t->q);
			else
				qtest_notify(&t->qtest, t->mmio, 1);
		}
		for (unsigned done = 0, i = 1; done < depth; i++) {
			done += vring_driver_get(t->ring, &cookie, &len) != 0;
			if (i % 1000000 == 0) {
				end = end > 0 ? end : now() + 20;
				CHECK(now() < end);
			}
		}
	}
}

static void slice(struct taker *t, unsigned i, void (*give)(struct taker *t, uint64_t n, unsigned depth),
	uint32_t size, unsigned depth, uint64_t total)
{
	double start, cpu = cpu_of(t->pid);

	for (unsigned b = 0; b < DEPTH; b++)
		t->buf[b].len = size;
	start = now();
	give(t, total / size, depth);
	t->rate[i] = (double)total / (now() - start) / 1e6;
	t->per_cpu[i] = (double)total / (cpu_of(t->pid) - cpu) / 1e6;
}

static void floor_slice(struct taker *t, unsigned i, int fd)
{
	static char mega[1 << 20];
	double start = now(), cpu = cpu_of(getpid());

	memset(mega, 1, sizeof(mega));
	for (unsigned n = 0; n < SLICE / sizeof(mega); n++)
		CHECK_EQ(write(fd, mega, sizeof(mega)), sizeof(mega));
	t->rate[i] = SLICE / (now() - start) / 1e6;
	t->per_cpu[i] = SLICE / (cpu_of(getpid()) - cpu) / 1e6;
}

/* The slice before wrote all of it; the next one starts with nothing. */
static void emptied(int fd)
{
	struct stat st;

	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_size, SLICE);
	CHECK_SYS(ftruncate(fd, 0));
}

/* One file for all. */
static void to_file(void)
{
	static const struct {
		const char *name;
		uint32_t size;
		unsigned depth;
	} rows[] = {{"4k", 4096, DEPTH}, {"32k", 32768, DEPTH}, {"32k.d1", 32768, 1}};
	static struct taker ours, floor, theirs, batched;
	char path[300], option[400], name[64];
	bool qemu = system("command -v qemu-system-x86_64 >/dev/null") == 0;
	int fd;

	snprintf(path, sizeof(path), "%s/portbench.%d", dir, getpid());
	snprintf(option, sizeof(option), "--port=host=file:%s", path);
	fd = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	ours_begin(&ours, option);
	if (qemu)
		qemu_begin(&theirs, path);
	floor_slice(&floor, 0, fd);
	for (unsigned r = 0; r < ARRAY_SIZE(rows); r++) {
		bool both = qemu && rows[r].depth > 1;

		for (unsigned i = 0; i < slices; i++) {
			emptied(fd);
			floor_slice(&floor, i, fd);
			emptied(fd);
			slice(&ours, i, stream, rows[r].size, rows[r].depth, SLICE);
			if (!both)
				continue;
			emptied(fd);
			batched.rate[i] = ours.rate[i];
			batched.per_cpu[i] = ours.per_cpu[i];
			slice(&ours, i, batches, rows[r].size, rows[r].depth, SLICE);
			emptied(fd);
			slice(&theirs, i, batches, rows[r].size, rows[r].depth, SLICE);
		}
		snprintf(name, sizeof(name), "file.%s", rows[r].name);
		print(name, both ? &batched : &ours, &floor);
		snprintf(name, sizeof(name), "file.%s.qemu", rows[r].name);
		if (both)
			print(name, &ours, &theirs);
	}
	unlink(path);
	close(fd);
	if (qemu)
		qtest_end(&theirs.qtest);
	fe_end(&ours.fe);
}

static void to_null(void)
{
	static struct taker t;

	ours_begin(&t, "--port=host=null");
	for (unsigned i = 0; i < slices; i++)
		slice(&t, i, stream, 4096, DEPTH, UINT64_C(1) << 30);
	print_one("null.4k", median(t.rate), "MB/s");
	fe_end(&t.fe);
}

/* 32 ports and another one that nobody reads */

struct ports {
	struct fe fe;
	struct fe_queue *rx[PORTS + 1], *tx[PORTS + 1], *control;
	char option[PORTS + 1][400];
	int fd[PORTS + 1];
	uint8_t *bytes;
};

static int reach(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path) + 1);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void control(struct ports *p, uint32_t id, uint16_t event)
{
	struct virtio_console_control m = {id, event, 1};
	struct vring_driver_buf b = fe_rd(&p->fe, p->bytes, sizeof(m));

	memcpy(p->bytes, &m, sizeof(m));
	CHECK_EQ(fe_transact(p->control, &b, 1), 0);
}

/* host: with %s for a directory and %u for the port's number; the last port's is always a socket. */
static void ports_begin(struct ports *p, bool files, const char *where)
{
	const char *args[PORTS + 4] = {"console", "--max-ports=33"};

	for (unsigned i = 0; i <= PORTS; i++) {
		const char *format = files && i < PORTS ? "--port=type=serial,host=file:%s/p%u"
							: "--port=type=serial,host=unix:%s/p%u,server";

		snprintf(p->option[i], sizeof(p->option[i]), format, where, i);
		args[2 + i] = p->option[i];
	}
	fe_init(&p->fe, NULL);
	pin(1);
	fe_spawn(&p->fe, args);
	pin(0);
	fe_handshake(&p->fe);
	fe_memory_default(&p->fe);
	p->bytes = fe_alloc(&p->fe, 2 * BUFFER, 4096, NULL);
	p->control = fe_queue_up(&p->fe, 3, RING);
	control(p, 0, VIRTIO_CONSOLE_DEVICE_READY);
	for (unsigned i = 0; i <= PORTS; i++) {
		char path[400];

		p->rx[i] = fe_queue_up(&p->fe, i ? 2 * i + 2 : 0, RING);
		p->tx[i] = fe_queue_up(&p->fe, i ? 2 * i + 3 : 1, RING);
		control(p, i, VIRTIO_CONSOLE_PORT_READY);
		control(p, i, VIRTIO_CONSOLE_PORT_OPEN);
		snprintf(path, sizeof(path), "%s/p%u", where, i);
		p->fd[i] = files && i < PORTS ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : reach(path);
		CHECK_SYS(p->fd[i]);
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		struct vring_driver_buf b = fe_rd(&p->fe, p->bytes, BUFFER);

		fe_submit(p->tx[PORTS], &b, 1, NULL);
	}
	fe_flush(p->tx[PORTS]);
}

static void ports_end(struct ports *p, const char *where)
{
	char path[400];

	for (unsigned i = 0; i <= PORTS; i++) {
		close(p->fd[i]);
		snprintf(path, sizeof(path), "%s/p%u", where, i);
		unlink(path);
	}
	fe_end(&p->fe);
}

static double round_of(struct ports *p)
{
	struct vring_driver_buf b = fe_rd(&p->fe, p->bytes, BUFFER);
	double start = now();

	for (unsigned n = 0; n < SLICE / BUFFER / PORTS; n++) {
		for (unsigned i = 0; i < PORTS; i++) {
			fe_submit(p->tx[i], &b, 1, NULL);
			fe_flush(p->tx[i]);
		}
		for (unsigned i = 0; i < PORTS; i++)
			fe_wait(p->tx[i], NULL);
	}
	return SLICE / (now() - start) / 1e6;
}

static void ports_to_files(void)
{
	static struct ports p;
	double rate[MAX_SLICES];
	char where[300];

	snprintf(where, sizeof(where), "%s/portbench.%d", dir, getpid());
	CHECK_SYS(mkdir(where, 0700));
	ports_begin(&p, true, where);
	round_of(&p);
	for (unsigned s = 0; s < slices; s++) {
		for (unsigned i = 0; i < PORTS; i++)
			CHECK_SYS(ftruncate(p.fd[i], 0));
		rate[s] = round_of(&p);
	}
	print_one("file.32k.ports32", median(rate), "MB/s");
	ports_end(&p, where);
	rmdir(where);
}

/* There and back by way of a program of the host. */
static void there_and_back(struct ports *p, unsigned i)
{
	struct vring_driver_buf out = fe_rd(&p->fe, p->bytes, 64), in = fe_wr(&p->fe, p->bytes + BUFFER, 64);
	char byte[64];

	fe_submit(p->rx[i], &in, 1, NULL);
	fe_flush(p->rx[i]);
	CHECK_EQ(fe_transact(p->tx[i], &out, 1), 0);
	CHECK_EQ(read(p->fd[i], byte, sizeof(byte)), 64);
	CHECK_EQ(write(p->fd[i], byte, sizeof(byte)), 64);
	fe_wait(p->rx[i], NULL);
}

static void latency(void)
{
	enum { N = 6400 };
	static struct ports p;
	const char *where = fe_tmpdir();
	double one[MAX_SLICES], all[MAX_SLICES];

	ports_begin(&p, false, where);
	for (unsigned s = 0; s < slices; s++) {
		double start = now();

		for (unsigned i = 0; i < N; i++)
			there_and_back(&p, 0);
		one[s] = (now() - start) * 1e6 / N;
		start = now();
		for (unsigned i = 0; i < N; i++)
			there_and_back(&p, i % PORTS);
		all[s] = (now() - start) * 1e6 / N;
	}
	print_one("echo", median(one), "us");
	print_one("echo.ports32", median(all), "us");
	ports_end(&p, where);
}

static void messages(void)
{
	enum { N = 1000000, SIZE = 512 };
	struct fe fe;
	struct fe_queue *rx, *tx;
	struct vring_driver_buf in[DEPTH], out;
	uint32_t header[4] = {2000, 1024, 0, 64};
	uint64_t sent = 0, done = 0, acked = 0;
	uint8_t *p;
	void *cookie;
	double start;

	pin(1);
	fe_start(&fe, NULL, FE_ARGS("rpmsg", "--service=name=e,echo"));
	pin(0);
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
	start = now();
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
	print_one("messages", N / (now() - start), "msg/s");
	fe_end(&fe);
}

int main(int argc, char **argv)
{
	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: portbench DIR SLICES [files]\n");
		return 2;
	}
	dir = argv[1];
	slices = (unsigned)MAX(1, MIN(atoi(argv[2]), MAX_SLICES));
	to_file();
	ports_to_files();
	if (argc == 4)
		return 0;
	to_null();
	latency();
	messages();
	return 0;
}
