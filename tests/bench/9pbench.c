/* SPDX-License-Identifier: MIT */
/*
 * 9p against QEMU's own, which no vhost-user front-end can reach: so the same driver in user space drives both, ours by
 * vhost-user, QEMU's by virtio-mmio and without a guest (qtest.h), with the ring and the data in memory that is shared. The driver looks at the used ring and asks for no interrupts.
 *
 * What differs is the notification: ours is an eventfd, QEMU's a line of text on its qtest socket, which takes longer. So
 * requests are given in batches, and a notification is for a whole batch; what it costs is printed (microseconds of wall
 * and of processor time), and not subtracted.
 *
 * For large transfers the floor is measured too: the same bytes between the same file and the same memory by bare system
 * calls, on the processor where the back-ends run. Nobody who copies once can take less.
 *
 * usage: 9pbench DIR SECONDS SLICES    prints for each figure operations per second of wall time: ours, QEMU's, the
 * ratio; and the same per second of the back-end's processor time, all its threads; the floor of the latter,
 * and ours as a part of it
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "frontend.h"
#include "qtest.h"

enum {
	RING = 128,
	DEPTH = 64,
	BIG_DEPTH = 8,
	MSIZE = 1 << 20,
	SLOT = 16384,
	BIG = 254 * 4096,
	FILE_SIZE = 64 << 20
};
enum { MEMORY = 64 << 20, CHAINS = 32 };

struct message {
	uint8_t *tx, *rx;
	uint64_t tx_gpa, rx_gpa;
	size_t n;
	uint32_t room;
};

struct target {
	const char *name;
	struct vring_driver *ring;
	struct fe fe;
	struct fe_queue *q;
	pid_t pid;
	struct qtest qtest;
	uint64_t mmio;
	struct message m[DEPTH];
	double wall, cpu; /* of the slice */
	uint64_t ops;
	uint64_t seed;
	double rate[32], per_cpu[32];
};

static struct target ours = {.name = "ours"}, qemu = {.name = "qemu"};
static char dir[256];

static double now(void)
{
	return (double)time_ns() / 1e9;
}

/* Processor time of all threads, from the scheduler's own account. */
static double cpu_of(pid_t pid)
{
	char path[64], line[256];
	double sum = 0;
	FILE *in;

	snprintf(path, sizeof(path), "ls /proc/%d/task", pid);
	in = popen(path, "r");
	CHECK(in);
	while (fgets(line, sizeof(line), in)) {
		char stat[64];
		unsigned long long run;
		FILE *f;

		snprintf(stat, sizeof(stat), "/proc/%d/task/%d/schedstat", pid, atoi(line));
		f = fopen(stat, "r");
		if (!f)
			continue;
		if (fscanf(f, "%llu", &run) == 1)
			sum += (double)run / 1e9;
		fclose(f);
	}
	pclose(in);
	return sum;
}

static void pin(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(pid, sizeof(set), &set);
}

static void qemu_start(void)
{
	static struct vring_driver ring;
	const struct vring_driver_mode mode = {0};
	char fsdev[400];

	snprintf(fsdev, sizeof(fsdev), "local,id=f,path=%s,security_model=none", dir);
	qtest_start(&qemu.qtest, MEMORY, 1,
		(const char *const[]){
			"-fsdev", fsdev, "-device", "virtio-9p-device,fsdev=f,mount_tag=t", NULL});
	qemu.pid = qemu.qtest.pid;
	qemu.mmio = qtest_device(&qemu.qtest, VIRTIO_ID_9P, 0);
	qtest_features(&qemu.qtest, qemu.mmio, BIT(VIRTIO_F_VERSION_1));
	qtest_queue(&qemu.qtest, qemu.mmio, 0, RING, &mode, &ring);
	qtest_go(&qemu.qtest, qemu.mmio);
	qemu.ring = &ring;
	for (unsigned i = 0; i < DEPTH; i++) {
		struct message *m = &qemu.m[i];

		m->room = i < BIG_DEPTH ? MSIZE : SLOT;
		m->tx = qtest_alloc(&qemu.qtest, m->room, 4096);
		m->rx = qtest_alloc(&qemu.qtest, m->room, 4096);
		m->tx_gpa = (uint64_t)(m->tx - qemu.qtest.mem);
		m->rx_gpa = (uint64_t)(m->rx - qemu.qtest.mem);
	}
}

static void ours_start(void)
{
	char path[300];

	snprintf(path, sizeof(path), "--path=%s", dir);
	fe_start(&ours.fe, NULL, FE_ARGS("9p", path));
	ours.q = fe_queue_up(&ours.fe, 0, RING);
	ours.ring = &ours.q->ring;
	ours.pid = ours.fe.process.pid;
	for (unsigned i = 0; i < DEPTH; i++) {
		struct message *m = &ours.m[i];

		m->room = i < BIG_DEPTH ? MSIZE : SLOT;
		m->tx = fe_alloc(&ours.fe, m->room, 4096, &m->tx_gpa);
		m->rx = fe_alloc(&ours.fe, m->room, 4096, &m->rx_gpa);
	}
}

/* Messages */

static void put(struct message *m, const void *p, size_t n)
{
	memcpy(m->tx + m->n, p, n);
	m->n += n;
}

static void number(struct message *m, uint64_t v, size_t n)
{
	put(m, &v, n);
}

static void text(struct message *m, const char *t)
{
	number(m, strlen(t), 2);
	put(m, t, strlen(t));
}

static struct message *begin(struct target *t, unsigned slot, uint8_t type)
{
	struct message *m = &t->m[slot];

	m->n = 4;
	number(m, type, 1);
	number(m, type == 100 ? 0xffff : slot, 2);
	return m;
}

static void notify(struct target *t)
{
	if (!vring_driver_publish(t->ring))
		return;
	if (t == &qemu)
		qtest_notify(&qemu.qtest, qemu.mmio, 0);
	else
		fe_kick(t->q);
}

/* data: bytes behind the header that are in tx already, as they were. */
static void stage(struct target *t, struct message *m, size_t data)
{
	struct vring_driver_buf bufs[2] = {
		{m->tx_gpa, (uint32_t)(m->n + data), false}, {m->rx_gpa, m->room, true}};
	uint32_t size = (uint32_t)(m->n + data);

	memcpy(m->tx, &size, 4);
	CHECK(vring_driver_add(t->ring, bufs, 2, m) >= 0);
}

static struct message *wait_one(struct target *t)
{
	double end = 0;
	uint32_t len;
	void *cookie;
	struct message *m;

	for (unsigned i = 0; vring_driver_get(t->ring, &cookie, &len) == 0; i++) {
		if (i % 100000 == 99999) {
			end = end > 0 ? end : now() + 20;
			CHECK(now() < end);
		}
	}
	m = cookie;
	if (m->rx[4] == 7) {
		uint32_t err;

		memcpy(&err, m->rx + 7, 4);
		FAIL("%s: message %u: %s", t->name, m->tx[4], strerror((int)err));
	}
	CHECK_EQ(m->rx[4], m->tx[4] + 1);
	return m;
}

static void call(struct target *t, struct message *m)
{
	stage(t, m, 0);
	notify(t);
	wait_one(t);
}

static void stage_walk(struct target *t, unsigned slot, uint32_t fid, uint32_t to, const char *name)
{
	struct message *m = begin(t, slot, 110);

	number(m, fid, 4);
	number(m, to, 4);
	number(m, name != NULL, 2);
	if (name)
		text(m, name);
	stage(t, m, 0);
}

static void stage_fid(struct target *t, unsigned slot, uint8_t type, uint32_t fid)
{
	struct message *m = begin(t, slot, type);

	number(m, fid, 4);
	if (type == 24)
		number(m, 0x7ff, 8);
	stage(t, m, 0);
}

/* All that is staged. */
static void batch(struct target *t, unsigned n)
{
	notify(t);
	while (n--)
		wait_one(t);
}

static void session(struct target *t)
{
	struct message *m = begin(t, 0, 100);

	number(m, MSIZE, 4);
	text(m, "9P2000.L");
	call(t, m);
	m = begin(t, 0, 104);
	number(m, 0, 4);
	number(m, UINT32_MAX, 4);
	text(m, "root");
	text(m, "/");
	number(m, 0, 4);
	call(t, m);
	stage_walk(t, 0, 0, 1, "big");
	batch(t, 1);
	m = begin(t, 0, 12);
	number(m, 1, 4);
	number(m, O_RDWR, 4);
	call(t, m);
	vring_driver_disarm(t->ring);
}

/* Figures */

struct figure {
	const char *name;
	bool write, random, meta;
	uint32_t size;
	unsigned depth; /* requests in a batch */
};

static const struct figure figures[] = {
	{"read.1m", .size = BIG, .depth = BIG_DEPTH},
	{"write.1m", .write = true, .size = BIG, .depth = BIG_DEPTH},
	{"read.4k", .random = true, .size = 4096, .depth = DEPTH},
	{"write.4k", .write = true, .random = true, .size = 4096, .depth = DEPTH},
	{"create-stat-unlink", .meta = true, .depth = CHAINS},
};

static void io(struct target *t, const struct figure *f, unsigned slot)
{
	struct message *m = begin(t, slot, f->write ? 118 : 116);
	uint64_t at;

	t->seed = t->seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	at = f->random ? (t->seed >> 33) % (FILE_SIZE / f->size) : (t->ops + slot) % (FILE_SIZE / f->size);
	number(m, 1, 4);
	number(m, at * f->size, 8);
	number(m, f->size, 4);
	stage(t, m, f->write ? f->size : 0);
}

enum { CLONE, CREATE, CLOSE, WALK, STAT, CLUNK, UNLINK, META_STEPS };

static void stage_meta(struct target *t, unsigned chain, unsigned step)
{
	uint32_t fid = 10 + chain;
	struct message *m;
	char name[16];

	snprintf(name, sizeof(name), "new-%u", chain);
	switch (step) {
	case CLONE:
	case WALK:
		stage_walk(t, chain, 0, fid, step == WALK ? name : NULL);
		break;
	case CREATE:
		m = begin(t, chain, 14);
		number(m, fid, 4);
		text(m, name);
		number(m, O_RDWR, 4);
		number(m, 0600, 4);
		number(m, 0, 4);
		stage(t, m, 0);
		break;
	case STAT:
		stage_fid(t, chain, 24, fid);
		break;
	case CLOSE:
	case CLUNK:
		stage_fid(t, chain, 120, fid);
		break;
	case UNLINK:
		m = begin(t, chain, 76);
		number(m, 0, 4);
		text(m, name);
		number(m, 0, 4);
		stage(t, m, 0);
		break;
	}
}

static void slice(struct target *t, const struct figure *f, double seconds)
{
	double start = now(), cpu = cpu_of(t->pid), end = start + seconds;

	for (t->ops = 0; now() < end; t->ops += f->depth) {
		for (unsigned step = 0; step < (f->meta ? META_STEPS : 1); step++) {
			for (unsigned i = 0; i < f->depth; i++) {
				if (f->meta)
					stage_meta(t, i, step);
				else
					io(t, f, i);
			}
			batch(t, f->depth);
		}
	}
	t->wall = now() - start;
	t->cpu = cpu_of(t->pid) - cpu;
}

/* What a notification costs that finds nothing: seconds. */
static void kick_cost(double *wall, double *cpu_time)
{
	enum { N = 5000 };
	double start = now(), cpu = cpu_of(qemu.pid);

	for (unsigned i = 0; i < N; i++)
		qtest_notify(&qemu.qtest, qemu.mmio, 0);
	*wall = (now() - start) / N;
	*cpu_time = (cpu_of(qemu.pid) - cpu) / N;
}

/* Operations per second of processor time. */
static double floor_slice(const struct figure *f, int fd, double seconds)
{
	struct timespec begin, end;
	uint64_t ops = 0;
	double until;

	pin(0, 1);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (until = now() + seconds; now() < until; ops++) {
		struct message *m = &ours.m[ops % f->depth];
		off_t at = (off_t)(ops % (FILE_SIZE / f->size) * f->size);
		ssize_t n =
			f->write ? pwrite(fd, m->tx + 23, f->size, at) : pread(fd, m->rx + 11, f->size, at);

		CHECK_EQ(n, f->size);
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	pin(0, 0);
	return (double)ops /
	       ((double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
}

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return d < 0 ? -1 : d > 0;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

static void measure(const struct figure *f, double seconds, unsigned slices)
{
	struct target *both[] = {&ours, &qemu};
	double rate[2], per_cpu[2], bare[32] = {0};
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/big", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK_SYS(fd);

	for (unsigned i = 0; i < slices * 2; i++) {
		struct target *t = both[i % 2];

		slice(t, f, seconds);
		t->rate[i / 2] = (double)t->ops / t->wall;
		t->per_cpu[i / 2] = (double)t->ops / t->cpu;
		if (i % 2 && f->size == BIG)
			bare[i / 2] = floor_slice(f, fd, seconds);
	}
	for (unsigned i = 0; i < 2; i++) {
		rate[i] = median(both[i]->rate, slices);
		per_cpu[i] = median(both[i]->per_cpu, slices);
	}
	close(fd);
	median(bare, slices);
	printf("%s\t%.0f\t%.0f\t%.2f\t%.0f\t%.0f\t%.2f\t%.0f\t%.2f\n", f->name, rate[0], rate[1],
		rate[0] / rate[1], per_cpu[0], per_cpu[1], per_cpu[0] / per_cpu[1], bare[slices / 2],
		bare[0] > 0 ? per_cpu[0] / bare[slices / 2] : 0);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	double wall, cpu;
	char path[300];
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: 9pbench DIR SECONDS SLICES\n");
		return 2;
	}
	snprintf(dir, sizeof(dir), "%s", argv[1]);
	snprintf(path, sizeof(path), "%s/big", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	for (unsigned i = 0; i < FILE_SIZE >> 12; i++) {
		char page[4096];

		memset(page, (int)i, sizeof(page));
		CHECK_EQ(write(fd, page, sizeof(page)), sizeof(page));
	}
	close(fd);
	pin(0, 1);
	ours_start();
	qemu_start();
	pin(0, 0);
	session(&ours);
	session(&qemu);
	kick_cost(&wall, &cpu);
	for (unsigned i = 0; i < ARRAY_SIZE(figures); i++)
		measure(&figures[i], atof(argv[2]), (unsigned)MIN(atoi(argv[3]), 32));
	printf("qemu-notification\t%.1f\t%.1f\n", wall * 1e6, cpu * 1e6);
	qtest_end(&qemu.qtest);
	fe_end(&ours.fe);
	return 0;
}
