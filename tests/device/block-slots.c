/* SPDX-License-Identifier: MIT */
/* A load for the block device, see block-slots.h. */
#include <fcntl.h>
#include <linux/virtio_blk.h>

#include "block-slots.h"

struct load load;
static unsigned rnd_state = 1;

unsigned load_rnd(unsigned n)
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

void load_check(void)
{
	int fd = open(load.image, O_RDONLY | O_CLOEXEC);
	uint8_t sector[512];

	CHECK_SYS(fd);
	for (unsigned i = 0; i < SLOTS * EXTENT; i++) {
		CHECK_EQ(pread(fd, sector, 512, (off_t)i * 512), 512);
		sector_check(sector, i, load.slots[i / EXTENT].gen[i % EXTENT]);
	}
	close(fd);
}

/* --- requests --- */

/* p[0..len) in at most n pieces. */
static unsigned cut(struct vring_driver_buf *b, uint64_t gpa, uint32_t len, unsigned n, bool wr)
{
	unsigned used = 0;

	while (len > 0) {
		uint32_t piece = load.aligned ? 512 * (1 + load_rnd(8)) : 1 + load_rnd(4096);

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

	s->type = types[load_rnd(ARRAY_SIZE(types))];
	s->at = load_rnd(EXTENT);
	s->sectors = s->type == VIRTIO_BLK_T_FLUSH ? 0 : 1 + load_rnd(EXTENT - s->at);
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
	struct fe_queue *q = load.fe.queues[s->number % load.nqueues];
	struct vring_driver_buf b[PIECES + 2];
	unsigned n = 0;

	slot_prepare(s);
	b[n++] = fe_rd(&load.fe, s->hdr, 16);
	n += cut(b + n, s->gpa, s->sectors * 512, PIECES, s->type == VIRTIO_BLK_T_IN);
	b[n++] = fe_wr(&load.fe, s->status, 1);
	fe_submit(q, b, n, s);
	s->busy = true;
	load.busy++;
}

static void slot_done(struct slot *s, uint32_t used)
{
	CHECK(s->busy);
	s->busy = false;
	load.busy--;
	load.done++;
	CHECK_EQ(*s->status, VIRTIO_BLK_S_OK);
	CHECK_EQ(used, s->type == VIRTIO_BLK_T_IN ? s->sectors * 512 + 1 : 1);
	if (s->type != VIRTIO_BLK_T_IN)
		return;
	for (unsigned i = 0; i < s->sectors; i++)
		sector_check(s->data + i * 512, slot_sector(s) + i, s->gen[s->at + i]);
}

void load_fill(void)
{
	for (unsigned i = 0; i < DEPTH * load.nqueues; i++)
		if (!load.slots[i].busy)
			slot_submit(&load.slots[i]);
	for (unsigned i = 0; i < load.nqueues; i++)
		fe_flush(load.fe.queues[i]);
}

bool load_collect(void)
{
	bool any = false;

	for (unsigned i = 0; i < load.nqueues; i++) {
		void *cookie;
		uint32_t used;

		while (fe_collect(load.fe.queues[i], &cookie, &used)) {
			slot_done(cookie, used);
			any = true;
		}
	}
	return any;
}

void load_wait(void)
{
	for (unsigned i = 0; i < load.nqueues; i++) {
		void *cookie;
		uint32_t used;

		if (load.fe.queues[i]->ring.nbusy == 0)
			continue;
		used = fe_wait(load.fe.queues[i], &cookie);
		slot_done(cookie, used);
		break;
	}
	load_collect();
}

void load_run(unsigned long n)
{
	unsigned long end = load.done + n;

	while (load.done < end) {
		load_fill();
		load_wait();
	}
}

void load_drain(void)
{
	while (load.busy > 0)
		load_wait();
}

/* --- set-up --- */

void load_image(void)
{
	int fd;

	if (load.image[0])
		return;
	snprintf(load.image, sizeof(load.image), "%s/disk.img", fe_tmpdir());
	fd = open(load.image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, LOAD_SIZE));
	close(fd);
}

void load_prepare(const struct fe_mode *m, const char *const *options)
{
	unsigned n = 0;

	load_image();
	snprintf(load.socket, sizeof(load.socket), "%s/sock", fe_tmpdir());
	if (!load.source[0])
		snprintf(load.source, sizeof(load.source), "--blk-file=%s", load.image);
	load.args[n++] = "block";
	load.args[n++] = load.source;
	while (*options && n < ARRAY_SIZE(load.args) - 1)
		load.args[n++] = *options++;
	fe_init(&load.fe, m);
}

static void load_memory(void)
{
	fe_memory_default(&load.fe);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &load.slots[i];

		s->number = i;
		s->hdr = fe_alloc(&load.fe, 16, 16, NULL);
		s->status = fe_alloc(&load.fe, 1, 1, NULL);
		s->data = fe_alloc(&load.fe, EXTENT * 512, 4096, &s->gpa);
	}
}

void load_start(const struct fe_mode *m, unsigned nqueues, const char *const *options)
{
	load_prepare(m, options);
	load.nqueues = nqueues;
	fe_spawn(&load.fe, load.args);
	fe_handshake(&load.fe);
	load_memory();
	for (unsigned i = 0; i < nqueues; i++)
		fe_queue_up(&load.fe, i, RING);
}

void load_end(void)
{
	load_drain();
	fe_end(&load.fe);
	load_check();
}

/* --- connections that may be lost --- */

uint32_t load_base_fresh(const struct fe_mode *m)
{
	return m->packed ? 0x80008000 : 0;
}

void load_tracked_start(const struct fe_mode *m, unsigned nqueues, const char *const *options)
{
	load_prepare(m, options);
	load.nqueues = nqueues;
	fe_spawn_path(&load.fe, load.socket, load.args);
	fe_handshake(&load.fe);
	load_memory();
	fe_inflight_get(&load.fe, (uint16_t)nqueues, RING);
	fe_inflight_set(&load.fe);
	for (unsigned i = 0; i < nqueues; i++)
		fe_queue_up(&load.fe, i, RING);
}

/* The base that a front-end knows: where the used ring stands; of a packed ring, where it started. */
static uint32_t base_lost(const struct fe_queue *q)
{
	return q->ring.mode.packed ? load_base_fresh(&q->fe->mode) : q->ring.used->idx;
}

void load_connected_again(void)
{
	fe_handshake(&load.fe);
	fe_memory_send(&load.fe);
	fe_inflight_set(&load.fe);
	for (unsigned i = 0; i < load.nqueues; i++) {
		struct fe_queue *q = load.fe.queues[i];

		fe_queue_send(q, base_lost(q));
		fe_queue_enable(q, true);
		fe_kick(q);
	}
}

void load_tracked_end(void)
{
	load_drain();
	fe_process_signal(&load.fe.process, SIGTERM);
	fe_process_exits(&load.fe.process, 0);
	load_check();
	fe_close(&load.fe);
}
