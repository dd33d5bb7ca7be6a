/* SPDX-License-Identifier: MIT */
/*
 * In-flight tracking: the process is killed, the next one takes over memory, rings and the in-flight area, and every
 * request comes back exactly once (the driver refuses a second time). Also areas as other back-ends may have left
 * them, and areas full of nonsense.
 */
#include "protocol.h"

#include <stddef.h>
#include <time.h>

enum { LEN = 64 };

/* The area of a split queue, by the vhost-user specification. */
struct area_desc {
	uint8_t inflight, pad[5];
	uint16_t next;
	uint64_t counter;
};

struct area {
	uint64_t features;
	uint16_t version, desc_num, last_batch_head, used_idx;
	struct area_desc desc[];
};

/* SET_VRING_BASE after a crash: QEMU takes the used index of a split ring, and does not know one of a packed ring. */
static uint32_t crash_base(const struct fe_queue *q)
{
	if (q->fe->mode.packed)
		return 0x80008000;
	return __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);
}

/* kill -9, start again, connect, give it everything anew. */
static void crash(struct server *s, const char *const *args)
{
	struct fe *fe = &s->fe;
	const char *all[8] = {"rng"};
	struct fe_queue *q = fe->queues[0];

	for (unsigned i = 0; args && args[i]; i++)
		all[i + 1] = args[i];
	fe_process_kill(&fe->process);
	fe_hangup(fe);
	fe_spawn_path(fe, s->path, all);
	fe_handshake(fe);
	fe_memory_send(fe);
	fe_inflight_set(fe);
	fe_queue_send(q, crash_base(q));
	fe_queue_enable(q, true);
	fe_kick(q);
}

static struct fe_queue *tracked_up(struct server *s, uint16_t num, uint16_t area_num)
{
	fe_handshake(&s->fe);
	fe_memory_default(&s->fe);
	fe_inflight_get(&s->fe, 1, area_num);
	fe_inflight_set(&s->fe);
	return fe_queue_up(&s->fe, 0, num);
}

/* --- killed --- */

/* Requests before, at and after the one that waits for the source; all in order, each once. */
static void killed_while_waiting(const struct fe_mode *m)
{
	struct source src;
	struct server s;
	struct fe_queue *q;
	uint64_t at = 0;
	uint8_t *mem;
	void *cookie;

	source_open(&src);
	server_start(&s, m, FE_ARGS(src.option));
	q = tracked_up(&s, 16, 16);
	mem = fe_alloc(&s.fe, 16 * LEN, 1, NULL);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 8; i++) {
			struct vring_driver_buf b[2] = {
				fe_wr(&s.fe, mem + i * LEN, 10), fe_wr(&s.fe, mem + i * LEN + 10, LEN - 10)};

			fe_submit(q, b, i < 4 ? 2 : 1, mem + i * LEN);
		}
		fe_flush(q);
		/* 0 to 4 are used, the next one is in flight, the others are only available */
		for (unsigned i = 0; i < 8; i++) {
			uint32_t want = i < 4 ? LEN : 10;

			if (i == round % 5) {
				fe_barrier(&s.fe);
				crash(&s, FE_ARGS(src.option));
			}
			source_feed(&src, want);
			CHECK_EQ(fe_wait(q, &cookie), want);
			CHECK_EQ((uint8_t *)cookie - mem, i * LEN);
			source_check(at, cookie, want);
			at += want;
		}
		CHECK(!fe_collect(q, NULL, NULL));
	}
	server_end(&s);
	source_close(&src);
}

/* At any moment, under load. */
static void killed_under_load(const struct fe_mode *m)
{
	uint8_t *mem, outstanding[64] = {0};
	unsigned sent = 0, got = 0, crashes = 0;
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, NULL);
	q = tracked_up(&s, 64, 64);
	mem = fe_alloc(&s.fe, 64 * 4096, 1, NULL);
	while (crashes < 25) {
		struct timespec pause = {.tv_nsec = (long)(crashes * 37 % 100) * 2000};
		unsigned target = sent + 200;
		void *cookie;

		while (got < target) {
			for (unsigned i = 0; i < 64 && sent < target && q->ring.nfree >= 2; i++) {
				struct vring_driver_buf b[2] = {fe_wr(&s.fe, mem + i * 4096, 1000),
					fe_wr(&s.fe, mem + i * 4096 + 1000, 3000)};

				if (outstanding[i])
					continue;
				outstanding[i] = 1;
				fe_submit(q, b, 2, &outstanding[i]);
				sent++;
			}
			fe_flush(q);
			if (sent == target && got + 40 > target && pause.tv_nsec >= 0) {
				nanosleep(&pause, NULL);
				pause.tv_nsec = -1;
				crash(&s, NULL);
				crashes++;
			}
			CHECK_EQ(fe_wait(q, &cookie), 4000);
			CHECK(*(uint8_t *)cookie);
			*(uint8_t *)cookie = 0;
			got++;
		}
	}
	CHECK_EQ(q->ring.nbusy, 0);
	CHECK(!fe_collect(q, NULL, NULL));
	server_end(&s);
}

/* A regular stop and resume with the same area: nothing is taken twice. */
static void stopped_while_waiting(const struct fe_mode *m)
{
	struct source src;
	struct server s;
	struct fe_queue *q;
	uint64_t at = 0;
	uint8_t *mem;
	void *cookie;

	source_open(&src);
	server_start(&s, m, FE_ARGS(src.option));
	q = tracked_up(&s, 16, 16);
	mem = fe_alloc(&s.fe, 16 * LEN, 1, NULL);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 6; i++) {
			struct vring_driver_buf b = fe_wr(&s.fe, mem + i * LEN, LEN);

			fe_submit(q, &b, 1, mem + i * LEN);
		}
		fe_flush(q);
		for (unsigned i = 0; i < 6; i++) {
			if (i == round % 6) {
				fe_queue_send(q, fe_queue_stop(q));
				fe_kick(q);
			}
			source_feed(&src, LEN);
			CHECK_EQ(fe_wait(q, &cookie), LEN);
			CHECK_EQ((uint8_t *)cookie - mem, i * LEN);
			source_check(at, cookie, LEN);
			at += LEN;
		}
	}
	server_end(&s);
	source_close(&src);
}

/* A guest on another transport may use a ring larger than the front-end's queue size. */
static void area_smaller_than_ring(const struct fe_mode *m)
{
	struct server s;
	struct fe_queue *q;
	uint8_t *end;

	server_start(&s, m, NULL);
	q = tracked_up(&s, 256, 8);
	end = s.fe.inflight_ptr + s.fe.inflight.mmap_size;
	rng_works(q);
	if (!m->packed)
		rng_traffic(q, 500);
	else
		fe_barrier(&s.fe);
	CHECK(end > s.fe.inflight_ptr);
	CHECK(fe_process_running(&s.fe.process));
	server_end(&s);
}

/* --- areas that somebody else wrote --- */

static struct area *split_area(struct server *s)
{
	return (struct area *)s->fe.inflight_ptr;
}

/* Six requests of which the previous back-end had taken the first `taken`; the ring and area are as it left them. */
static uint8_t *left_behind(struct server *s, struct fe_queue *q, unsigned taken)
{
	uint8_t *mem = fe_alloc(&s->fe, 6 * LEN, 1, NULL);
	struct area *a = split_area(s);

	a->version = 1;
	a->desc_num = q->num;
	for (unsigned i = 0; i < 6; i++) {
		struct vring_driver_buf b = fe_wr(&s->fe, mem + i * LEN, LEN);
		int head = fe_submit_direct(q, &b, 1, mem + i * LEN);

		CHECK_EQ(head, i);
		if (i < taken)
			a->desc[i].inflight = 1;
		a->desc[i].counter = 100 + i;
	}
	vring_driver_publish(&q->ring);
	return mem;
}

static void expect_order(struct server *s, struct fe_queue *q, struct source *src, const uint8_t *mem,
	const unsigned *order, unsigned n)
{
	uint64_t at = src->fed;
	void *cookie;

	(void)s;
	for (unsigned i = 0; i < n; i++) {
		source_feed(src, LEN);
		CHECK_EQ(fe_wait(q, &cookie), LEN);
		if ((uint8_t *)cookie - mem != order[i] * LEN)
			FAIL("completion %u: expected request %u, got %ld", i, order[i],
				(long)((uint8_t *)cookie - mem) / LEN);
		source_check(at, cookie, LEN);
		at += LEN;
	}
	CHECK(!fe_collect(q, NULL, NULL));
}

static struct fe_queue *prepare(struct server *s, struct source *src)
{
	source_open(src);
	server_start(s, NULL, FE_ARGS(src->option));
	fe_handshake(&s->fe);
	fe_memory_default(&s->fe);
	fe_inflight_get(&s->fe, 1, 16);
	return fe_queue_make(&s->fe, 0, 16, FE_FRESH);
}

static void start(struct server *s, struct fe_queue *q)
{
	fe_inflight_set(&s->fe);
	fe_queue_send(q, q->ring.used->idx);
	fe_queue_enable(q, true);
	fe_kick(q);
}

/* Resubmission goes by the counters, new requests follow. */
static void by_counter(const struct fe_mode *m)
{
	static const unsigned order[] = {2, 0, 1, 3, 4, 5};
	struct source src;
	struct server s;
	struct fe_queue *q = prepare(&s, &src);
	uint8_t *mem = left_behind(&s, q, 3);

	(void)m;
	split_area(&s)->desc[2].counter = 7;
	start(&s, q);
	expect_order(&s, q, &src, mem, order, 6);
	for (unsigned i = 0; i < 16; i++)
		CHECK_EQ(split_area(&s)->desc[i].inflight, 0);
	CHECK_EQ(split_area(&s)->used_idx, 6);
	server_end(&s);
	source_close(&src);
}

/* It died between publishing a batch of two and clearing its marks. */
static void batch_published(const struct fe_mode *m)
{
	static const unsigned order[] = {0, 2, 4, 5};
	struct source src;
	struct server s;
	struct fe_queue *q = prepare(&s, &src);
	uint8_t *mem = left_behind(&s, q, 4);
	struct area *a = split_area(&s);
	void *cookie;

	(void)m;
	q->ring.used->ring[0] = (struct vring_used_elem){3, LEN};
	q->ring.used->ring[1] = (struct vring_used_elem){1, LEN};
	q->ring.used->idx = 2;
	/* the batch is linked from its last to its first */
	a->desc[3].next = 9;
	a->desc[1].next = 3;
	a->last_batch_head = 1;
	a->used_idx = 0;
	start(&s, q);
	CHECK_EQ(fe_wait(q, &cookie), LEN);
	CHECK_EQ((uint8_t *)cookie - mem, 3 * LEN);
	CHECK_EQ(fe_wait(q, &cookie), LEN);
	CHECK_EQ((uint8_t *)cookie - mem, 1 * LEN);
	expect_order(&s, q, &src, mem, order, 4);
	server_end(&s);
	source_close(&src);
}

/* It died after linking a batch and before publishing it: the batch is still in flight. */
static void batch_not_published(const struct fe_mode *m)
{
	static const unsigned order[] = {0, 1, 2, 3, 4, 5};
	struct source src;
	struct server s;
	struct fe_queue *q = prepare(&s, &src);
	uint8_t *mem = left_behind(&s, q, 4);
	struct area *a = split_area(&s);

	(void)m;
	q->ring.used->ring[0] = (struct vring_used_elem){3, LEN};
	a->desc[3].next = 0;
	a->last_batch_head = 3;
	start(&s, q);
	expect_order(&s, q, &src, mem, order, 6);
	server_end(&s);
	source_close(&src);
}

/* An area of nonsense may cost the queue, nothing more. */
static void nonsense(const struct fe_mode *m)
{
	uint32_t seed = 4711;
	struct server s;

	server_start(&s, m, NULL);
	for (unsigned round = 0; round < 200; round++) {
		struct fe_queue *q;

		fe_handshake(&s.fe);
		fe_memory_default(&s.fe);
		fe_inflight_get(&s.fe, 1, 16);
		for (uint64_t i = 0; i < s.fe.inflight.mmap_size; i++) {
			seed = seed * 1664525u + 1013904223u;
			s.fe.inflight_ptr[i] = round % 3 == 0	? (uint8_t)(seed >> 16)
					       : round % 3 == 1 ? (seed >> 16) % 17
								: (seed >> 16) % 2;
		}
		/* fresh or not, plausible size or not */
		if (round % 2) {
			s.fe.inflight_ptr[8] = 1;
			s.fe.inflight_ptr[9] = 0;
			s.fe.inflight_ptr[10] = 16;
			s.fe.inflight_ptr[11] = 0;
		}
		/* this may be refused */
		fe_ack(&s.fe, FE_SET_INFLIGHT_FD, &s.fe.inflight, sizeof(s.fe.inflight), &s.fe.inflight_fd,
			1);
		q = fe_queue_make(&s.fe, 0, 16, FE_FRESH);
		for (unsigned i = 0; i < 8; i++) {
			struct vring_driver_buf b = fe_wr(&s.fe, fe_alloc(&s.fe, LEN, 1, NULL), LEN);

			fe_submit(q, &b, 1, NULL);
		}
		vring_driver_publish(&q->ring);
		{
			struct fe_vring_state num = {0, 16}, base = {0, m->packed ? 0x80008000 : 0},
					      on = {0, 1};
			uint64_t v = 0;
			struct fe_vring_addr a = {.desc = fe_uaddr(&s.fe, q->desc_gpa),
				.avail = fe_uaddr(&s.fe, q->driver_gpa),
				.used = fe_uaddr(&s.fe, q->device_gpa)};

			/* and so may these */
			fe_ack(&s.fe, FE_SET_VRING_NUM, &num, sizeof(num), NULL, 0);
			fe_ack(&s.fe, FE_SET_VRING_BASE, &base, sizeof(base), NULL, 0);
			fe_ack(&s.fe, FE_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
			fe_ack(&s.fe, FE_SET_VRING_KICK, &v, sizeof(v), &q->kick, 1);
			fe_ack(&s.fe, FE_SET_VRING_ENABLE, &on, sizeof(on), NULL, 0);
		}
		fe_kick(q);
		fe_barrier(&s.fe);
		fe_queue_stop(q);
		CHECK(fe_process_running(&s.fe.process));
		server_reconnect(&s);
	}
	server_up(&s);
	server_end(&s);
}

int main(void)
{
	_Static_assert(sizeof(struct area_desc) == 16 && offsetof(struct area, desc) == 16, "as specified");

	fe_each_mode_in_order("killed while a request waits", killed_while_waiting);
	fe_each_mode_in_order("killed under load", killed_under_load);
	fe_each_mode("stopped and resumed with an area", stopped_while_waiting);
	fe_each_layout("an area smaller than the ring", area_smaller_than_ring);
	fe_case("resubmitted in the order of the counters", by_counter, NULL);
	fe_case("died after publishing a batch", batch_published, NULL);
	fe_case("died before publishing a batch", batch_not_published, NULL);
	fe_each_layout("areas of nonsense", nonsense);
	return tap_done();
}
