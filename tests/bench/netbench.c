/* SPDX-License-Identifier: MIT */
/*
 * Frames per second between two network cards: a driver for both in one process, which never sleeps and asks for no interrupts, as
 * DPDK's do, and sends from each to the other as fast as it goes. The cards are two vhost-user back-ends' (or two sockets of one), or
 * those of a QEMU without a guest, on two TAP interfaces (qtest.h says how).
 *
 *	netbench [OPTION=VALUE]… NAME=vhost:SOCKET,SOCKET:PID[,PID]… NAME=qemu:TAP,TAP…
 *
 * Options: seconds and slices as in blkbench; bytes of a frame; gso: it is TCP to be cut into segments; ring: split or packed;
 * cpu: for this process, core: for QEMU. The targets take turns, and while one is measured the others are stopped, for some never
 * sleep either.
 *
 * A line per target comes out, medians over the slices:
 *	NAME pps=… gbps=… cpu_pps=… cpu_ns=… pps_ratio=… cpu_ratio=…
 * cpu_pps: frames per second of its processor time, cpu_ns: the inverse; ratios: the first one's figure divided by this one's.
 */
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "frontend.h"
#include "qtest.h"

enum { RING = 256, BATCH = 64, HDR = 12, HEAD = 54, MSS = 1448, MAX_TARGETS = 4, MAX_SLICES = 100 };
enum { WARM_MS = 50, HUNG_MS = 10000, QEMU_MEMORY = 128 << 20 };

#define FEATURES                                                                               \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | \
		BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_MRG_RXBUF))

static struct {
	double seconds;
	unsigned slices;
	size_t bytes;
	bool gso;
	struct fe_mode mode;
	int cpu, core;
} opt = {.seconds = 0.5, .slices = 5, .bytes = 64, .mode.event_idx = true, .cpu = -1, .core = -1};

struct queue {
	struct vring_driver *ring, own;
	struct fe_queue *fe; /* or NULL: QEMU's */
	uint64_t mmio;
	unsigned index;
};

struct side {
	struct queue rx, tx;
	struct vring_driver_buf frame, buffer[RING];
	uint64_t got;
};

struct target {
	const char *name;
	pid_t pid[2];
	unsigned npids;
	struct fe fe[2];
	struct qtest qtest;
	struct side side[2];
	double pps[MAX_SLICES], cpu_pps[MAX_SLICES];
};

static struct target targets[MAX_TARGETS];
static unsigned ntargets;

/* Driving */

static void show(struct target *t, struct queue *q)
{
	if (!vring_driver_publish(q->ring))
		return;
	if (q->fe)
		fe_kick(q->fe);
	else
		qtest_notify(&t->qtest, q->mmio, q->index);
}

static void step(struct target *t, struct side *s)
{
	void *cookie;
	unsigned n;

	while (vring_driver_get(s->tx.ring, NULL, NULL) == 1)
		;
	if (s->tx.ring->error || s->rx.ring->error)
		FAIL("%s: %s", t->name, s->tx.ring->error ? s->tx.ring->error : s->rx.ring->error);
	for (n = 0; n < BATCH && s->tx.ring->nfree; n++)
		vring_driver_add(s->tx.ring, &s->frame, 1, NULL);
	if (n)
		show(t, &s->tx);
	for (n = 0; n < BATCH && vring_driver_get(s->rx.ring, &cookie, NULL) == 1; n++)
		vring_driver_add(s->rx.ring, cookie, 1, cookie);
	s->got += n;
	if (n)
		show(t, &s->rx);
}

static uint64_t steps(struct target *t, int64_t ms)
{
	uint64_t before = t->side[0].got + t->side[1].got;
	int64_t end = fe_now_ms() + ms;

	while (fe_now_ms() < end) {
		step(t, &t->side[0]);
		step(t, &t->side[1]);
	}
	return t->side[0].got + t->side[1].got - before;
}

/* Frames */

/* From card `id` to the other; TCP over IPv4 whose checksum is left to others, or a type that nobody knows. */
static void make_frame(uint8_t *p, unsigned id)
{
	const uint8_t mac[14] = {
		0x52, 0x54, 0, 0, 0, (uint8_t)(2 - id), 0x52, 0x54, 0, 0, 0, (uint8_t)(1 + id), 0x88, 0xb5};
	uint32_t sum = 0;
	const uint16_t len = htobe16((uint16_t)(opt.bytes - 14));
	struct virtio_net_hdr_v1 h = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4};

	memset(p, 0, HDR + opt.bytes);
	memcpy(p + HDR, mac, sizeof(mac));
	if (!opt.gso)
		return;
	h.gso_size = htole16(MSS);
	h.hdr_len = htole16(HEAD);
	h.csum_start = htole16(34);
	h.csum_offset = htole16(16);
	memcpy(p, &h, HDR);
	memcpy(p + HDR + 12, "\x08\0\x45", 3);
	memcpy(p + HDR + 16, &len, 2);
	memcpy(p + HDR + 22, "\x40\6", 2);
	memcpy(p + HDR + 26, (uint8_t[]){10, 0, 0, (uint8_t)(1 + id), 10, 0, 0, (uint8_t)(2 - id)}, 8);
	for (unsigned i = 0; i < 20; i += 2)
		sum += (uint32_t)(p[HDR + 14 + i] << 8 | p[HDR + 15 + i]);
	sum = htobe16((uint16_t) ~(sum + (sum >> 16)));
	memcpy(p + HDR + 24, &sum, 2);
	p[HDR + 46] = 0x50;
	p[HDR + 47] = 0x10;
}

static void fill(struct target *t, struct side *s)
{
	for (unsigned i = 0; i < RING; i++)
		vring_driver_add(s->rx.ring, &s->buffer[i], 1, &s->buffer[i]);
	show(t, &s->rx);
}

/* Targets */

static void vhost_side(struct target *t, unsigned id, const char *path)
{
	struct fe *fe = &t->fe[id];
	struct side *s = &t->side[id];
	uint8_t *p;

	fe_init(fe, &opt.mode);
	fe->device_mask = FEATURES;
	fe->protocol_mask &= ~BIT(FE_P_STATUS); /* which nobody here tells */
	fe_connect(fe, path);
	fe_handshake(fe);
	fe_memory_default(fe);
	s->rx.fe = fe_queue_up(fe, 0, RING);
	s->tx.fe = fe_queue_up(fe, 1, RING);
	s->rx.ring = &s->rx.fe->ring;
	s->tx.ring = &s->tx.fe->ring;
	p = fe_alloc(fe, HDR + opt.bytes, 64, NULL);
	make_frame(p, id);
	s->frame = fe_rd(fe, p, (uint32_t)(HDR + opt.bytes));
	for (unsigned i = 0; i < RING; i++)
		s->buffer[i] =
			fe_wr(fe, fe_alloc(fe, HDR + opt.bytes, 64, NULL), (uint32_t)(HDR + opt.bytes));
}

/* SOCKET,SOCKET:PID[,PID] */
static void vhost_open(struct target *t, char *text)
{
	char *path[2] = {strtok(text, ",:"), strtok(NULL, ",:")}, *pid;

	while (t->npids < ARRAY_SIZE(t->pid) && (pid = strtok(NULL, ",")))
		t->pid[t->npids++] = atoi(pid);
	CHECK(t->npids > 0);
	for (unsigned id = 0; id < 2; id++)
		vhost_side(t, id, path[id]);
}

static struct vring_driver_buf qemu_buffer(struct target *t, bool wr)
{
	uint8_t *p = qtest_alloc(&t->qtest, HDR + opt.bytes, 64);

	return (struct vring_driver_buf){(uint64_t)(p - t->qtest.mem), (uint32_t)(HDR + opt.bytes), wr};
}

static void qemu_side(struct target *t, unsigned id)
{
	const struct vring_driver_mode mode = {.packed = opt.mode.packed, .event_idx = opt.mode.event_idx};
	const uint64_t features =
		FEATURES | BIT(FE_F_VERSION_1) | BIT(FE_F_EVENT_IDX) | (mode.packed ? BIT(FE_F_PACKED) : 0);
	struct side *s = &t->side[id];
	uint64_t mmio = qtest_device(&t->qtest, VIRTIO_ID_NET, id);

	CHECK_EQ(qtest_features(&t->qtest, mmio, features), features);
	s->tx.index = 1;
	for (unsigned i = 0; i < 2; i++) {
		struct queue *q = i ? &s->tx : &s->rx;

		q->mmio = mmio;
		q->ring = &q->own;
		qtest_queue(&t->qtest, mmio, i, RING, &mode, q->ring);
	}
	qtest_go(&t->qtest, mmio);
	s->frame = qemu_buffer(t, false);
	make_frame(t->qtest.mem + s->frame.addr, id);
	for (unsigned i = 0; i < RING; i++)
		s->buffer[i] = qemu_buffer(t, true);
}

/* TAP,TAP */
static void qemu_open(struct target *t, char *text)
{
	const char *name[2] = {strtok(text, ","), strtok(NULL, ",")};
	char netdev[2][96], device[2][96];
	const char *args[] = {
		"-netdev", netdev[0], "-device", device[0], "-netdev", netdev[1], "-device", device[1], NULL};

	for (unsigned id = 0; id < 2; id++) {
		snprintf(netdev[id], sizeof(netdev[id]), "tap,id=n%u,ifname=%s,script=no,downscript=no", id,
			name[id]);
		snprintf(device[id], sizeof(device[id]), "virtio-net-device,netdev=n%u%s", id,
			opt.mode.packed ? ",packed=on" : "");
	}
	qtest_start(&t->qtest, QEMU_MEMORY, opt.core, args);
	t->pid[t->npids++] = t->qtest.pid;
	for (unsigned id = 0; id < 2; id++)
		qemu_side(t, id);
}

/* Slices */

static void each_pid(struct target *t, int signal)
{
	for (unsigned i = 0; i < t->npids; i++)
		kill(t->pid[i], signal);
}

/* Of all its threads. */
static double cpu_seconds(struct target *t)
{
	double sum = 0;

	for (unsigned i = 0; i < t->npids; i++) {
		struct timespec ts;
		clockid_t clock;

		CHECK(clock_getcpuclockid(t->pid[i], &clock) == 0 && clock_gettime(clock, &ts) == 0);
		sum += (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	}
	return sum;
}

static void slice(struct target *t, unsigned n)
{
	uint64_t start, frames;
	double cpu;

	each_pid(t, SIGCONT);
	steps(t, WARM_MS);
	cpu = cpu_seconds(t);
	start = time_ns();
	frames = steps(t, (int64_t)(opt.seconds * 1000));
	t->pps[n] = (double)frames * 1e9 / (double)(time_ns() - start);
	t->cpu_pps[n] = (double)frames / (cpu_seconds(t) - cpu);
	each_pid(t, SIGSTOP);
}

/* Until frames go both ways: links are up, bridges know the addresses. */
static void begin(struct target *t)
{
	int64_t end = fe_now_ms() + HUNG_MS;

	for (unsigned id = 0; id < 2; id++)
		fill(t, &t->side[id]);
	do {
		steps(t, 20);
		if (fe_now_ms() > end)
			FAIL("%s: no frames arrive", t->name);
	} while (t->side[0].got < RING || t->side[1].got < RING);
	each_pid(t, SIGSTOP);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v)
{
	double copy[MAX_SLICES];

	memcpy(copy, v, opt.slices * sizeof(*v));
	qsort(copy, opt.slices, sizeof(*copy), compare);
	return copy[opt.slices / 2];
}

static void report(const struct target *t)
{
	double pps[MAX_SLICES], cpu[MAX_SLICES];

	for (unsigned i = 0; i < opt.slices; i++) {
		pps[i] = targets[0].pps[i] / t->pps[i];
		cpu[i] = targets[0].cpu_pps[i] / t->cpu_pps[i];
	}
	printf("%s pps=%.0f gbps=%.2f cpu_pps=%.0f cpu_ns=%.0f pps_ratio=%.2f cpu_ratio=%.2f\n", t->name,
		median(t->pps), median(t->pps) * (double)opt.bytes * 8 / 1e9, median(t->cpu_pps),
		1e9 / median(t->cpu_pps), median(pps), median(cpu));
}

/* Arguments */

static bool option(const char *key, const char *value)
{
	if (strcmp(key, "seconds") == 0)
		opt.seconds = atof(value);
	else if (strcmp(key, "slices") == 0)
		opt.slices = (unsigned)atoi(value);
	else if (strcmp(key, "bytes") == 0)
		opt.bytes = (size_t)atoi(value);
	else if (strcmp(key, "gso") == 0)
		opt.gso = atoi(value);
	else if (strcmp(key, "ring") == 0)
		opt.mode.packed = strcmp(value, "packed") == 0;
	else if (strcmp(key, "cpu") == 0)
		opt.cpu = atoi(value);
	else if (strcmp(key, "core") == 0)
		opt.core = atoi(value);
	else
		return false;
	return true;
}

static bool argument(char *text)
{
	char *value = strchr(text, '=');
	struct target *t = &targets[ntargets];

	if (!value)
		return false;
	*value++ = '\0';
	if (option(text, value))
		return true;
	if (ntargets == MAX_TARGETS)
		return false;
	t->name = text;
	ntargets++;
	if (strncmp(value, "vhost:", 6) == 0)
		vhost_open(t, value + 6);
	else if (strncmp(value, "qemu:", 5) == 0)
		qemu_open(t, value + 5);
	else
		return false;
	begin(t);
	return true;
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;

	for (int i = 1; i < argc; i++)
		if (!argument(argv[i])) {
			fprintf(stderr, "netbench: what is %s?\n", argv[i]);
			return 2;
		}
	if (!ntargets || opt.slices < 1 || opt.slices > MAX_SLICES || opt.bytes < (opt.gso ? HEAD + 1 : 60) ||
		opt.bytes > 65549)
		return 2;
	if (opt.cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET((unsigned)opt.cpu, &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus);
	}
	for (unsigned i = 0; i < opt.slices; i++)
		for (unsigned k = 0; k < ntargets; k++)
			slice(&targets[k], i);
	for (unsigned k = 0; k < ntargets; k++) {
		report(&targets[k]);
		each_pid(&targets[k], SIGCONT);
		if (targets[k].qtest.pid)
			qtest_end(&targets[k].qtest);
	}
	return 0;
}
