/* SPDX-License-Identifier: MIT */
/*
 * The block device under load: many requests in flight on one queue or several, cut in random ways, every answer and
 * every byte verified; for each way of doing I/O; and the same while queues are stopped, connections are lost and the
 * back-end is killed with kill -9. After that the new process finds what was in flight in the in-flight area and does it
 * again: every request is answered once, and nothing is lost.
 *
 * The disk is divided into extents, one for each slot. A slot has one request in flight at a time, so what its sectors
 * must contain is known.
 */
#include "frontend.h"

#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <time.h>

enum { EXTENT = 32, DEPTH = 32, QUEUES = 4, RING = 256, SLOTS = DEPTH * QUEUES, PIECES = 6 };

struct slot {
	unsigned number;
	struct virtio_blk_outhdr *hdr;
	uint8_t *data, *status;
	uint64_t gpa;
	uint32_t type, at, sectors; /* at: in the extent */
	uint32_t gen[EXTENT];	    /* what each sector contains; 0: zeroes */
	uint32_t next_gen;
	bool busy;
};

struct load {
	struct fe fe;
	struct slot slots[SLOTS];
	unsigned nqueues, busy;
	unsigned long done;
	bool aligned;
	char image[160], socket[160];
	const char *args[8];
};

static struct load l;
static unsigned rnd_state = 1;

static unsigned rnd(unsigned n)
{
	rnd_state = rnd_state * 1103515245u + 12345u;
	return (rnd_state >> 8) % n;
}

/* --- content --- */

static void sector_fill(uint8_t *p, uint64_t sector, uint32_t gen)
{
	uint64_t x = gen ? (sector << 32 | gen) * UINT64_C(0x9e3779b97f4a7c15) : 0;

	for (unsigned i = 0; i < 512 / 8; i++, x += gen ? 0x1234567 : 0)
		memcpy(p + i * 8, &x, 8);
}

static void sector_check(const uint8_t *p, uint64_t sector, uint32_t gen)
{
	uint8_t want[512];

	sector_fill(want, sector, gen);
	if (memcmp(p, want, 512) != 0)
		FAIL("sector %llu does not contain what was written (generation %u)",
			(unsigned long long)sector, gen);
}

static uint64_t slot_sector(const struct slot *s)
{
	return (uint64_t)s->number * EXTENT + s->at;
}

static void image_check(void)
{
	int fd = open(l.image, O_RDONLY | O_CLOEXEC);
	uint8_t sector[512];

	CHECK_SYS(fd);
	for (unsigned i = 0; i < SLOTS * EXTENT; i++) {
		CHECK_EQ(pread(fd, sector, 512, (off_t)i * 512), 512);
		sector_check(sector, i, l.slots[i / EXTENT].gen[i % EXTENT]);
	}
	close(fd);
}

/* --- requests --- */

/* p[0..len) in at most n pieces. */
static unsigned cut(struct vring_driver_buf *b, uint64_t gpa, uint32_t len, unsigned n, bool wr)
{
	unsigned used = 0;

	while (len > 0) {
		uint32_t piece = l.aligned ? 512 * (1 + rnd(8)) : 1 + rnd(4096);

		if (used + 1 == n || piece > len)
			piece = len;
		b[used++] = (struct vring_driver_buf){gpa, piece, wr};
		gpa += piece;
		len -= piece;
	}
	return used;
}

static void slot_prepare(struct slot *s)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
		VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH};

	s->type = types[rnd(ARRAY_SIZE(types))];
	s->at = rnd(EXTENT);
	s->sectors = s->type == VIRTIO_BLK_T_FLUSH ? 0 : 1 + rnd(EXTENT - s->at);
	*s->hdr = (struct virtio_blk_outhdr){.type = s->type, .sector = slot_sector(s)};
	*s->status = 0xee;
	memset(s->data, 0x77, s->sectors * 512);
	if (s->type != VIRTIO_BLK_T_OUT)
		return;
	for (unsigned i = 0; i < s->sectors; i++) {
		s->gen[s->at + i] = ++s->next_gen;
		sector_fill(s->data + i * 512, slot_sector(s) + i, s->next_gen);
	}
}

static void slot_submit(struct slot *s)
{
	struct fe_queue *q = l.fe.queues[s->number % l.nqueues];
	struct vring_driver_buf b[PIECES + 2];
	unsigned n = 0;

	slot_prepare(s);
	b[n++] = fe_rd(&l.fe, s->hdr, 16);
	n += cut(b + n, s->gpa, s->sectors * 512, PIECES, s->type == VIRTIO_BLK_T_IN);
	b[n++] = fe_wr(&l.fe, s->status, 1);
	fe_submit(q, b, n, s);
	s->busy = true;
	l.busy++;
}

static void slot_done(struct slot *s, uint32_t used)
{
	CHECK(s->busy);
	s->busy = false;
	l.busy--;
	l.done++;
	CHECK_EQ(*s->status, VIRTIO_BLK_S_OK);
	CHECK_EQ(used, s->type == VIRTIO_BLK_T_IN ? s->sectors * 512 + 1 : 1);
	if (s->type != VIRTIO_BLK_T_IN)
		return;
	for (unsigned i = 0; i < s->sectors; i++)
		sector_check(s->data + i * 512, slot_sector(s) + i, s->gen[s->at + i]);
}

static void fill(void)
{
	for (unsigned i = 0; i < DEPTH * l.nqueues; i++)
		if (!l.slots[i].busy)
			slot_submit(&l.slots[i]);
	for (unsigned i = 0; i < l.nqueues; i++)
		fe_flush(l.fe.queues[i]);
}

/* What is complete; the value is whether anything was. */
static bool collect(void)
{
	bool any = false;

	for (unsigned i = 0; i < l.nqueues; i++) {
		void *cookie;
		uint32_t used;

		while (fe_collect(l.fe.queues[i], &cookie, &used)) {
			slot_done(cookie, used);
			any = true;
		}
	}
	return any;
}

static void wait_some(void)
{
	for (unsigned i = 0; i < l.nqueues; i++) {
		void *cookie;
		uint32_t used;

		if (l.fe.queues[i]->ring.nbusy == 0)
			continue;
		used = fe_wait(l.fe.queues[i], &cookie);
		slot_done(cookie, used);
		break;
	}
	collect();
}

/* Until n more requests are done; the queues stay full. */
static void run(unsigned long n)
{
	unsigned long end = l.done + n;

	while (l.done < end) {
		fill();
		wait_some();
	}
}

static void drain(void)
{
	while (l.busy > 0)
		wait_some();
}

/* --- set-up --- */

static void load_prepare(const struct fe_mode *m, const char *const *options)
{
	const char *dir = fe_tmpdir();
	static char file[192];
	unsigned n = 0;
	int fd;

	snprintf(l.image, sizeof(l.image), "%s/disk.img", dir);
	snprintf(l.socket, sizeof(l.socket), "%s/sock", dir);
	snprintf(file, sizeof(file), "--blk-file=%s", l.image);
	fd = open(l.image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, SLOTS * EXTENT * 512));
	close(fd);
	l.args[n++] = "block";
	l.args[n++] = file;
	while (*options && n < ARRAY_SIZE(l.args) - 1)
		l.args[n++] = *options++;
	fe_init(&l.fe, m);
}

static void load_memory(void)
{
	fe_memory_default(&l.fe);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &l.slots[i];

		s->number = i;
		s->hdr = fe_alloc(&l.fe, 16, 16, NULL);
		s->status = fe_alloc(&l.fe, 1, 1, NULL);
		s->data = fe_alloc(&l.fe, EXTENT * 512, 4096, &s->gpa);
	}
}

static void load_start(const struct fe_mode *m, unsigned nqueues, const char *const *options)
{
	load_prepare(m, options);
	l.nqueues = nqueues;
	fe_spawn(&l.fe, l.args);
	fe_handshake(&l.fe);
	load_memory();
	for (unsigned i = 0; i < nqueues; i++)
		fe_queue_up(&l.fe, i, RING);
}

static void load_end(void)
{
	drain();
	fe_end(&l.fe);
	image_check();
}

/* --- cases --- */

struct way {
	const char *name;
	const char *options[4];
	bool aligned, slow, all_modes;
};

static const struct way *way;

/* So many requests, or rounds. */
static unsigned many(unsigned n)
{
	return way->slow ? n / 6 + 1 : n;
}

static void works(const struct fe_mode *m)
{
	l.aligned = way->aligned;
	load_start(m, 1, way->options);
	run(many(1500));
	load_end();
}

static void several_queues(const struct fe_mode *m)
{
	load_start(m, QUEUES, way->options);
	run(many(4000));
	load_end();
}

static uint32_t base_fresh(const struct fe_mode *m)
{
	return m->packed ? 0x80008000 : 0;
}

/* Stopped in the middle, the queue gives back what it has; what it had not taken is served after the resume. */
static void stopped_in_flight(const struct fe_mode *m)
{
	unsigned left = 0;

	load_start(m, QUEUES, way->options);
	for (unsigned round = 0; round < many(20); round++) {
		uint32_t base[QUEUES];

		run(1 + rnd(100));
		fill();
		for (unsigned i = 0; i < QUEUES; i++)
			base[i] = fe_queue_stop(l.fe.queues[i]);
		collect();
		left += l.busy;
		fe_barrier(&l.fe);
		CHECK(!collect());
		for (unsigned i = 0; i < QUEUES; i++) {
			fe_queue_send(l.fe.queues[i], base[i]);
			fe_queue_enable(l.fe.queues[i], true);
			fe_kick(l.fe.queues[i]);
		}
	}
	tap_note("%u requests were not done when their queue was stopped", left);
	load_end();
}

/* --- lost connections and killed processes --- */

static void tracked_start(const struct fe_mode *m, unsigned nqueues)
{
	load_prepare(m, way->options);
	l.nqueues = nqueues;
	fe_spawn_path(&l.fe, l.socket, l.args);
	fe_handshake(&l.fe);
	load_memory();
	fe_inflight_get(&l.fe, (uint16_t)nqueues, RING);
	fe_inflight_set(&l.fe);
	for (unsigned i = 0; i < nqueues; i++)
		fe_queue_up(&l.fe, i, RING);
}

/* The base that a front-end knows: where the used ring stands; of a packed ring, where it started. */
static uint32_t base_lost(const struct fe_queue *q)
{
	return q->ring.mode.packed ? base_fresh(&q->fe->mode) : q->ring.used->idx;
}

static void connected_again(void)
{
	fe_handshake(&l.fe);
	fe_memory_send(&l.fe);
	fe_inflight_set(&l.fe);
	for (unsigned i = 0; i < l.nqueues; i++) {
		struct fe_queue *q = l.fe.queues[i];

		fe_queue_send(q, base_lost(q));
		fe_queue_enable(q, true);
		fe_kick(q);
	}
}

static void tracked_end(void)
{
	drain();
	fe_process_signal(&l.fe.process, SIGTERM);
	fe_process_exits(&l.fe.process, 0);
	image_check();
	fe_close(&l.fe);
}

/* Requests that the area says the back-end had taken: split or packed entries behind the head of each queue. */
static unsigned tracked(void)
{
	size_t size = l.fe.mode.packed ? 32 : 16, stride = l.fe.inflight.mmap_size / l.nqueues;
	unsigned n = 0;

	for (unsigned q = 0; q < l.nqueues; q++)
		for (unsigned i = 0; i < RING; i++)
			n += l.fe.inflight_ptr[q * stride + size * (i + 1)];
	return n;
}

/* Kills at any moment: before the requests are taken, while they are in progress, when some are done. */
static unsigned kill_and_restart(void)
{
	struct timespec ts = {.tv_nsec = (long)rnd(400) * 1000};
	unsigned taken;

	fill();
	switch (rnd(3)) {
	case 0:
		break;
	case 1:
		nanosleep(&ts, NULL);
		break;
	default:
		for (unsigned n = rnd(l.busy); l.busy > n;)
			wait_some();
	}
	fe_process_kill(&l.fe.process);
	taken = tracked();
	fe_hangup(&l.fe);
	collect();
	fe_spawn_path(&l.fe, l.socket, l.args);
	connected_again();
	return taken;
}

static void killed(const struct fe_mode *m)
{
	unsigned taken = 0;

	tracked_start(m, 1);
	for (unsigned round = 0; round < 2 + many(8); round++) {
		run(1 + rnd(200));
		taken += kill_and_restart();
		drain();
	}
	tap_note("%u requests were in progress when the process was killed", taken);
	tracked_end();
}

static void killed_several_queues(const struct fe_mode *m)
{
	tracked_start(m, QUEUES);
	for (unsigned round = 0; round < 2 + many(6); round++) {
		run(1 + rnd(500));
		kill_and_restart();
		/* at once, without waiting for what was replayed */
		run(100);
	}
	tracked_end();
}

/* The same process, only the connection is lost. */
static void hung_up(const struct fe_mode *m)
{
	tracked_start(m, 2);
	for (unsigned round = 0; round < many(20); round++) {
		run(1 + rnd(200));
		fill();
		fe_hangup(&l.fe);
		fe_connect(&l.fe, l.socket);
		collect();
		connected_again();
	}
	tracked_end();
}

/* Ends quickly and with status 0, whatever is in flight; what was answered is on the disk. */
static void terminated(const struct fe_mode *m)
{
	int64_t start, took, worst = 0;

	for (int round = 0; round < 3; round++) {
		memset(&l, 0, sizeof(l));
		tracked_start(m, 2);
		run(200);
		fill();
		start = fe_now_ms();
		fe_process_signal(&l.fe.process, SIGTERM);
		fe_process_exits(&l.fe.process, 0);
		took = fe_now_ms() - start;
		worst = MAX(worst, took);
		CHECK(took < 5000); /* 100 ms where processor and disk are free */
		collect();
		fe_hangup(&l.fe);
		fe_spawn_path(&l.fe, l.socket, l.args);
		connected_again();
		tracked_end();
	}
	tap_note("%lld ms at most", (long long)worst);
}

static bool direct_works(void)
{
	int fd = open(fe_tmpdir(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void each_way(const struct way *w)
{
	const struct fe_mode packed = {.packed = true, .event_idx = true, .indirect = true}, split = {0};
	char name[128];

	way = w;
	snprintf(name, sizeof(name), "load: %s", w->name);
	fe_each_mode(name, works);
	snprintf(name, sizeof(name), "load on several queues: %s", w->name);
	fe_each_layout(name, several_queues);
	snprintf(name, sizeof(name), "stopped in flight: %s", w->name);
	fe_each_layout(name, stopped_in_flight);
	snprintf(name, sizeof(name), "killed: %s", w->name);
	if (w->all_modes)
		fe_each_mode(name, killed);
	else
		fe_each_layout(name, killed);
	snprintf(name, sizeof(name), "killed, several queues: %s, split", w->name);
	fe_case(name, killed_several_queues, &split);
	snprintf(name, sizeof(name), "killed, several queues: %s, packed", w->name);
	fe_case(name, killed_several_queues, &packed);
	snprintf(name, sizeof(name), "hung up: %s", w->name);
	fe_each_layout(name, hung_up);
	snprintf(name, sizeof(name), "terminated: %s", w->name);
	fe_each_layout(name, terminated);
}

int main(void)
{
	static const struct way ways[] = {
		{"page cache", {NULL}, .all_modes = true},
		{"write-through", {"--cache=writethrough"}, .slow = true},
		{"threads", {"--aio=threads", "--cache=writethrough"}, .slow = true},
		{"queue threads", {"--threads=3"}, .slow = false},
		{"polling", {"--poll-us=50", "--threads=1"}, .slow = false},
		{"direct", {"--direct"}, .aligned = true, .all_modes = true},
		{"direct, nothing aligned", {"--direct", "--threads=2"}, .slow = true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		if (!strstr(ways[i].name, "direct") || direct_works())
			each_way(&ways[i]);
	return tap_done();
}
