/* SPDX-License-Identifier: MIT */
/*
 * A load generator for vhost-user block and SCSI back-ends (of the latter: unit 0:0): the front-end and the guest's driver in one process, so that nothing
 * but the back-end is measured, and every back-end by the same means.
 *
 *	blkbench [OPTION=VALUE]… NAME=[scsi:]SOCKET:PID…
 *
 * All back-ends are connected first. Then they take turns, one slice of time each, again and again, so that whatever
 * else happens on the machine hits all of them. A slice keeps `depth` requests per queue in flight and ends when the
 * last has come back. The processor time of the back-end is its process's clock, all threads.
 *
 * The driver publishes what it has collected in one go and kicks once, as the real ones do. wait=sleep: it sleeps until
 * the interrupt, with interrupts off while it is awake; wait=spin: it never sleeps and never asks for an interrupt.
 *
 * A line per back-end comes out, medians over the slices:
 *	NAME iops=… cpu_iops=… cpu_ns=… p50_us=… p99_us=… iops_ratio=… cpu_ratio=…
 * cpu_iops: requests per second of its processor time; cpu_ns: the inverse; ratios: the first one's figure divided by
 * this one's, slice by slice.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_scsi.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

#include "frontend.h"

enum { MAX_TARGETS = 4, MAX_SLICES = 100, MAX_DEPTH = 256, MAX_QUEUES = 16 };
enum { STEPS = 16, BUCKETS = 64 * STEPS }; /* latency: STEPS buckets per power of two */
enum { HUNG_MS = 10000 };

struct options {
	bool write, sequential, spin;
	uint32_t size; /* bytes of a request */
	unsigned depth, queues, slices;
	double seconds; /* of a slice */
	int cpu;	/* to run on, or -1 */
	struct fe_mode mode;
};

struct request {
	struct vring_driver_buf bufs[3];
	struct virtio_blk_outhdr *hdr;
	struct virtio_scsi_cmd_req *cmd; /* instead of hdr */
	struct virtio_scsi_cmd_resp *resp;
	uint8_t *status;
	void *table;
	uint64_t table_gpa;
	uint64_t start; /* ns */
};

struct stream { /* one queue */
	struct fe_queue *q;
	struct request requests[MAX_DEPTH];
	unsigned inflight;
};

struct slice {
	double iops, cpu_iops;
};

struct target {
	const char *name;
	bool scsi;
	clockid_t clock;
	struct fe fe;
	uint64_t blocks, next; /* of the size of a request */
	struct stream streams[MAX_QUEUES];
	struct slice slices[MAX_SLICES];
	uint64_t done, histogram[BUCKETS];
};

static struct options opt = {
	.size = 4096,
	.depth = 1,
	.queues = 1,
	.slices = 5,
	.seconds = 0.5,
	.cpu = -1,
	.mode = {.event_idx = true, .indirect = true},
};
static struct target targets[MAX_TARGETS];
static unsigned ntargets;

/* Options */

static void set_op(const char *v)
{
	opt.write = strstr(v, "write") != NULL;
	opt.sequential = strncmp(v, "rand", 4) != 0;
	if (!opt.write && !strstr(v, "read"))
		FAIL("op=%s: not one of read, write, randread, randwrite", v);
}

static void set_ring(const char *v)
{
	opt.mode = (struct fe_mode){.packed = strstr(v, "packed") != NULL,
		.event_idx = strstr(v, "event-idx") != NULL,
		.indirect = strstr(v, "indirect") != NULL};
}

static unsigned number(const char *name, const char *v, unsigned max)
{
	char *end;
	unsigned long n = strtoul(v, &end, 0);

	if (*end || !n || n > max)
		FAIL("%s=%s: not a number from 1 to %u", name, v, max);
	return (unsigned)n;
}

static bool set_option(const char *name, const char *v)
{
	if (strcmp(name, "op") == 0)
		set_op(v);
	else if (strcmp(name, "ring") == 0)
		set_ring(v);
	else if (strcmp(name, "wait") == 0)
		opt.spin = strcmp(v, "spin") == 0;
	else if (strcmp(name, "size") == 0)
		opt.size = number(name, v, 1 << 20) & ~511u;
	else if (strcmp(name, "depth") == 0)
		opt.depth = number(name, v, MAX_DEPTH);
	else if (strcmp(name, "queues") == 0)
		opt.queues = number(name, v, MAX_QUEUES);
	else if (strcmp(name, "slices") == 0)
		opt.slices = number(name, v, MAX_SLICES);
	else if (strcmp(name, "seconds") == 0)
		opt.seconds = atof(v);
	else if (strcmp(name, "cpu") == 0)
		opt.cpu = atoi(v);
	else
		return false;
	return true;
}

/* Connections */

static void request_init(struct fe *fe, struct request *r)
{
	uint64_t hdr, data, status;

	r->hdr = fe_alloc(fe, sizeof(*r->hdr), 16, &hdr);
	fe_alloc(fe, opt.size, 4096, &data);
	r->status = fe_alloc(fe, 1, 64, &status);
	r->table = fe_alloc(fe, vring_driver_table_size(3), 16, &r->table_gpa);
	r->hdr->type = htole32(opt.write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
	r->bufs[0] = (struct vring_driver_buf){hdr, sizeof(*r->hdr), false};
	r->bufs[1] = (struct vring_driver_buf){data, opt.size, !opt.write};
	r->bufs[2] = (struct vring_driver_buf){status, 1, true};
}

static void scsi_request_init(struct fe *fe, struct request *r)
{
	uint64_t cmd, data, resp;

	r->cmd = fe_alloc(fe, sizeof(*r->cmd), 16, &cmd);
	fe_alloc(fe, opt.size, 4096, &data);
	r->resp = fe_alloc(fe, sizeof(*r->resp), 64, &resp);
	r->status = &r->resp->response;
	r->table = fe_alloc(fe, vring_driver_table_size(3), 16, &r->table_gpa);
	r->cmd->lun[0] = 1;
	r->cmd->lun[2] = 0x40;
	r->cmd->cdb[0] = opt.write ? 0x2a : 0x28;
	r->cmd->cdb[8] = (uint8_t)(opt.size / 512);
	r->cmd->cdb[7] = (uint8_t)(opt.size / 512 >> 8);
	r->bufs[0] = (struct vring_driver_buf){cmd, sizeof(*r->cmd), false};
	r->bufs[opt.write ? 1 : 2] = (struct vring_driver_buf){data, opt.size, !opt.write};
	r->bufs[opt.write ? 2 : 1] = (struct vring_driver_buf){resp, sizeof(*r->resp), true};
}

/* TEST UNIT READY until it is, READ CAPACITY (10): the capacity in blocks of 512 bytes. */
static uint64_t scsi_capacity(struct fe *fe, struct fe_queue *q)
{
	struct virtio_scsi_cmd_req *cmd = fe_alloc(fe, sizeof(*cmd), 16, NULL);
	struct virtio_scsi_cmd_resp *resp = fe_alloc(fe, sizeof(*resp), 16, NULL);
	uint32_t *data = fe_alloc(fe, 8, 16, NULL);
	struct vring_driver_buf b[] = {
		fe_rd(fe, cmd, sizeof(*cmd)), fe_wr(fe, resp, sizeof(*resp)), fe_wr(fe, data, 8)};

	cmd->lun[0] = 1;
	cmd->lun[2] = 0x40;
	do
		fe_transact(q, b, 2);
	while (resp->response == 0 && resp->status == 2 && (resp->sense[2] & 0xf) == 6);
	cmd->cdb[0] = 0x25;
	fe_transact(q, b, 3);
	CHECK_EQ(resp->response, 0);
	CHECK_EQ(resp->status, 0);
	return (uint64_t)be32toh(data[0]) + 1;
}

static uint16_t ring_size(void)
{
	uint16_t n = 128; /* QEMU's default */

	while (n < opt.depth * (opt.mode.indirect ? 1 : 3))
		n *= 2;
	return n;
}

static void target_connect(struct target *t, const char *path)
{
	uint64_t capacity;

	fe_init(&t->fe, &opt.mode);
	t->fe.protocol_mask = BIT(FE_P_MQ) | BIT(FE_P_REPLY_ACK) | BIT(FE_P_CONFIG);
	fe_connect(&t->fe, path);
	fe_handshake(&t->fe);
	fe_memory_default(&t->fe);
	for (unsigned i = 0; i < opt.queues; i++) {
		t->streams[i].q = fe_queue_up(&t->fe, i + (t->scsi ? 2 : 0), ring_size());
		for (unsigned k = 0; k < opt.depth; k++)
			(t->scsi ? scsi_request_init : request_init)(&t->fe, &t->streams[i].requests[k]);
	}
	if (t->scsi) {
		capacity = scsi_capacity(&t->fe, t->streams[0].q);
	} else {
		fe_config_get(&t->fe, 0, &capacity, sizeof(capacity));
		capacity = le64toh(capacity);
	}
	t->blocks = capacity * 512 / opt.size;
	CHECK(t->blocks > 0);
}

static void target_add(char *name, char *value)
{
	struct target *t = &targets[ntargets++];
	char *pid = strrchr(value, ':');
	int err;

	if (ntargets > MAX_TARGETS || !pid)
		FAIL("%s=%s: expected at most %d of NAME=SOCKET:PID", name, value, MAX_TARGETS);
	*pid++ = 0;
	err = clock_getcpuclockid(atoi(pid), &t->clock);
	if (err)
		FAIL("process %s: %s", pid, strerror(err));
	t->name = name;
	t->scsi = strncmp(value, "scsi:", 5) == 0;
	target_connect(t, t->scsi ? value + 5 : value);
}

/* Requests */

static uint64_t random_u64(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void submit(struct target *t, struct stream *s, struct request *r, uint64_t now)
{
	uint64_t block = opt.sequential ? t->next++ % t->blocks : random_u64() % t->blocks;
	int err;

	if (t->scsi) {
		uint32_t lba = htobe32((uint32_t)(block * (opt.size / 512)));

		memcpy(r->cmd->cdb + 2, &lba, sizeof(lba));
		r->resp->status = 0xff;
	} else {
		r->hdr->sector = htole64(block * (opt.size / 512));
	}
	*r->status = 0xff;
	r->start = now;
	if (opt.mode.indirect)
		err = vring_driver_add_indirect(&s->q->ring, r->bufs, 3, r->table, r->table_gpa, r);
	else
		err = vring_driver_add(&s->q->ring, r->bufs, 3, r);
	if (err < 0)
		FAIL("%s: cannot submit: %s", t->name, strerror(-err));
	s->inflight++;
}

static void publish(struct stream *s)
{
	if (vring_driver_publish(&s->q->ring))
		CHECK_SYS(eventfd_write(s->q->kick, 1));
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned high = 63 - (unsigned)__builtin_clzll(ns | STEPS);

	return high * STEPS + (unsigned)(ns >> (high - 4) & (STEPS - 1));
}

static double bucket_us(unsigned i)
{
	uint64_t top = UINT64_C(1) << i / STEPS;

	return ((double)top + (double)top / STEPS * (i % STEPS + 0.5)) / 1000;
}

/* Takes what is done, and puts as much in again while the slice lasts. */
static unsigned turn(struct target *t, struct stream *s, uint64_t end)
{
	uint64_t now = 0;
	unsigned n = 0;
	void *cookie;
	int got;

	while ((got = vring_driver_get(&s->q->ring, &cookie, NULL)) > 0) {
		struct request *r = cookie;

		if (!n++)
			now = time_ns();
		if (*r->status != VIRTIO_BLK_S_OK || (t->scsi && r->resp->status != 0))
			FAIL("%s: a request ended with status %u", t->name, *r->status);
		t->histogram[bucket_of(now - r->start)]++;
		s->inflight--;
		t->done++;
		if (now < end)
			submit(t, s, r, now);
	}
	if (got < 0)
		FAIL("%s: %s", t->name, s->q->ring.error);
	publish(s);
	return n;
}

static void sleep_all(struct target *t)
{
	struct pollfd p[MAX_QUEUES];
	eventfd_t n;

	for (unsigned i = 0; i < opt.queues; i++) {
		struct stream *s = &t->streams[i];

		p[i] = (struct pollfd){.fd = s->q->call, .events = POLLIN};
		if (vring_driver_arm(&s->q->ring))
			return;
	}
	if (poll(p, opt.queues, HUNG_MS) <= 0)
		FAIL("%s: no interrupt within %d ms", t->name, HUNG_MS);
	for (unsigned i = 0; i < opt.queues; i++) {
		vring_driver_disarm(&t->streams[i].q->ring);
		if (p[i].revents && eventfd_read(p[i].fd, &n) < 0 && errno != EAGAIN)
			FAIL("%s: call descriptor: %s", t->name, strerror(errno));
	}
}

static void spin(const struct target *t, uint64_t end)
{
	if (time_ns() > end + HUNG_MS * UINT64_C(1000000))
		FAIL("%s: requests did not come back", t->name);
}

static void run(struct target *t, uint64_t end)
{
	bool busy;

	for (unsigned i = 0; i < opt.queues; i++) {
		struct stream *s = &t->streams[i];
		uint64_t now = time_ns();

		vring_driver_disarm(&s->q->ring);
		for (unsigned k = 0; k < opt.depth; k++)
			submit(t, s, &s->requests[k], now);
		publish(s);
	}
	do {
		unsigned n = 0;

		busy = false;
		for (unsigned i = 0; i < opt.queues; i++) {
			n += turn(t, &t->streams[i], end);
			busy |= t->streams[i].inflight > 0;
		}
		if (n || !busy)
			continue;
		if (opt.spin)
			spin(t, end);
		else
			sleep_all(t);
	} while (busy);
}

static uint64_t cpu_ns(const struct target *t)
{
	struct timespec ts;

	if (clock_gettime(t->clock, &ts) < 0)
		FAIL("%s: its processor time: %s", t->name, strerror(errno));
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void measure(struct target *t, double seconds, struct slice *out)
{
	uint64_t cpu = cpu_ns(t), start = time_ns(), done = t->done;

	run(t, start + (uint64_t)(seconds * 1e9));
	done = t->done - done;
	out->iops = (double)done * 1e9 / (double)(time_ns() - start);
	out->cpu_iops = (double)done * 1e9 / (double)MAX(cpu_ns(t) - cpu, 1u);
}

/* Results */

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static double median(double *v)
{
	qsort(v, opt.slices, sizeof(*v), by_value);
	return (v[(opt.slices - 1) / 2] + v[opt.slices / 2]) / 2;
}

static double percentile(const struct target *t, double part)
{
	uint64_t total = 0, below = 0;
	unsigned i;

	for (i = 0; i < BUCKETS; i++)
		total += t->histogram[i];
	for (i = 0; i < BUCKETS - 1; i++) {
		below += t->histogram[i];
		if ((double)below >= part * (double)total)
			break;
	}
	return bucket_us(i);
}

static void report(const struct target *t)
{
	double iops[MAX_SLICES], cpu[MAX_SLICES], iops_ratio[MAX_SLICES], cpu_ratio[MAX_SLICES], per_cpu;

	for (unsigned i = 0; i < opt.slices; i++) {
		const struct slice *s = &t->slices[i], *first = &targets[0].slices[i];

		iops[i] = s->iops;
		cpu[i] = s->cpu_iops;
		iops_ratio[i] = first->iops / s->iops;
		cpu_ratio[i] = first->cpu_iops / s->cpu_iops;
	}
	per_cpu = median(cpu);
	printf("%s iops=%.0f cpu_iops=%.0f cpu_ns=%.0f p50_us=%.1f p99_us=%.1f iops_ratio=%.2f cpu_ratio=%.2f\n",
		t->name, median(iops), per_cpu, 1e9 / per_cpu, percentile(t, 0.5), percentile(t, 0.99),
		median(iops_ratio), median(cpu_ratio));
}

static void pin(void)
{
	cpu_set_t set;

	if (opt.cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET((unsigned)opt.cpu, &set);
	CHECK_SYS(sched_setaffinity(0, sizeof(set), &set));
}

int main(int argc, char **argv)
{
	struct slice warm_up;

	for (int i = 1; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (!value)
			FAIL("%s: expected NAME=VALUE", argv[i]);
		*value++ = 0;
		if (!set_option(argv[i], value))
			target_add(argv[i], value);
	}
	if (!ntargets)
		FAIL("no back-end; usage: blkbench [OPTION=VALUE]... NAME=SOCKET:PID...");
	pin();
	for (unsigned k = 0; k < ntargets; k++)
		measure(&targets[k], MIN(opt.seconds, 0.1), &warm_up);
	for (unsigned k = 0; k < ntargets; k++)
		memset(targets[k].histogram, 0, sizeof(targets[k].histogram));
	for (unsigned i = 0; i < opt.slices; i++)
		for (unsigned k = 0; k < ntargets; k++)
			measure(&targets[k], opt.seconds, &targets[k].slices[i]);
	for (unsigned k = 0; k < ntargets; k++)
		report(&targets[k]);
	for (unsigned k = 0; k < ntargets; k++)
		fe_close(&targets[k].fe);
	return 0;
}
