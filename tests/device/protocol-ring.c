/* SPDX-License-Identifier: MIT */
/*
 * The life of a ring through the protocol: started and enabled, stopped and resumed, kicked early, late, never;
 * interrupts by eventfd, in-band or not at all; drivers old and sloppy; device reset and status.
 */
#include "protocol.h"

#include <sys/eventfd.h>

static const struct fe_mode split = {0};

static uint32_t base_of(const struct fe *fe, uint16_t base)
{
	return fe->mode.packed ? base | (uint32_t)base << 16 : base;
}

/* --- traffic --- */

static void traffic(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *q;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	rng_traffic(q, 3000);
	fe_end(&fe);
}

static void ring_sizes(const struct fe_mode *m)
{
	static const uint16_t sizes[] = {1, 2, 4, 256, 1024, 32768}, odd[] = {1, 3, 5, 100, 1000, 32767};
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct fe_queue *q = fe_queue_up(&fe, 0, m->packed ? odd[i] : sizes[i]);

		rng_traffic(q, 200);
		fe_queue_stop(q);
	}
	fe_end(&fe);
}

/* Any index to begin with, so that 16 bits and the ring wrap around soon. */
static void any_base(const struct fe_mode *m)
{
	static const uint16_t split_bases[] = {1, 63, 64, 32767, 65535, 65500};
	static const uint16_t packed_bases[] = {1, 63, 0x8000 | 63, 17, 0x8000 | 1, 0x8000};
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < ARRAY_SIZE(split_bases); i++) {
		uint16_t base = m->packed ? packed_bases[i] : split_bases[i];
		struct fe_queue *q = fe_queue_make(&fe, 0, 64, base);

		fe_queue_send(q, base_of(&fe, base));
		fe_queue_enable(q, true);
		rng_traffic(q, 300);
		fe_queue_stop(q);
	}
	fe_end(&fe);
}

/* --- stop and resume --- */

static uint32_t expected_base(const struct fe_queue *q)
{
	const struct vring_driver *d = &q->ring;

	if (!d->mode.packed)
		return d->published;
	return d->next_avail | (uint32_t)d->avail_wrap << 15 | (uint32_t)d->next_used << 16 |
	       (uint32_t)d->used_wrap << 31;
}

static void stop_resume(const struct fe_mode *m)
{
	struct fe_queue *q;
	uint32_t base;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < 20; i++) {
		rng_traffic(q, 1 + i * 5);
		base = fe_queue_stop(q);
		CHECK_EQ(base, expected_base(q));
		CHECK_EQ(fe_queue_stop(q), base);
		/* QEMU sends the interrupt fd once more after the stop */
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_queue_send(q, base);
		if (i % 2)
			fe_queue_enable(q, true);
	}
	rng_works(q);
	fe_end(&fe);
}

/* What is stopped takes nothing; what was made available meanwhile is served after the resume. */
static void stop_with_work(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct fe_queue *q;
	uint32_t base;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	base = fe_queue_stop(q);
	b = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);
	fe_submit(q, &b, 1, NULL);
	fe_flush(q);
	fe_kick(q);
	fe_barrier(&fe);
	CHECK(!fe_wait_ms(q, NULL, NULL, 50));
	fe_queue_send(q, base);
	fe_kick(q);
	CHECK_EQ(fe_wait(q, NULL), 64);
	fe_end(&fe);
}

/* A stop while requests wait for the source: they go back and are served after the resume, each once. */
static void stop_in_flight(const struct fe_mode *m)
{
	struct source src;
	struct fe_queue *q;
	struct fe fe;
	uint8_t *mem;
	uint64_t at = 0;
	void *cookie;
	uint32_t len;

	source_open(&src);
	fe_start(&fe, m, FE_ARGS("rng", src.option));
	q = fe_queue_up(&fe, 0, 16);
	mem = fe_alloc(&fe, 16 * 64, 1, NULL);
	for (unsigned i = 0; i < 5; i++) {
		struct vring_driver_buf b = fe_wr(&fe, mem + i * 64, 64);

		fe_submit(q, &b, 1, mem + i * 64);
	}
	fe_flush(q);
	source_feed(&src, 2 * 64);
	for (unsigned i = 0; i < 2; i++) {
		len = fe_wait(q, &cookie);
		CHECK_EQ(len, 64);
		source_check(at, cookie, len);
		at += len;
	}
	for (unsigned round = 0; round < 5; round++) {
		fe_queue_send(q, fe_queue_stop(q));
		fe_kick(q);
	}
	fe_queue_enable(q, true);
	source_feed(&src, 3 * 64);
	for (unsigned i = 0; i < 3; i++) {
		len = fe_wait(q, &cookie);
		CHECK_EQ(len, 64);
		source_check(at, cookie, len);
		at += len;
	}
	CHECK(!fe_collect(q, NULL, NULL));
	fe_end(&fe);
	source_close(&src);
}

static void never_set_up(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 1};
	struct fe fe;
	struct fe_queue *q;
	struct fe_msg r;

	fe_start(&fe, m, FE_ARGS("rng"));
	fe_set(&fe, FE_SET_VRING_ENABLE, &s, sizeof(s), NULL, 0);
	s.num = 0;
	fe_set(&fe, FE_SET_VRING_ENABLE, &s, sizeof(s), NULL, 0);
	fe_ask(&fe, FE_GET_VRING_BASE, &s, sizeof(s), NULL, 0, &r, 8);
	CHECK_EQ(((struct fe_vring_state *)r.body)->index, 0);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_end(&fe);
}

/* --- kicks and enabling --- */

static void submit_one(struct fe_queue *q)
{
	struct vring_driver_buf b = fe_wr(q->fe, fe_alloc(q->fe, 64, 1, NULL), 64);

	fe_submit(q, &b, 1, NULL);
}

static void kicked_before_enabled(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	submit_one(q);
	fe_flush(q);
	fe_kick(q);
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_barrier(&fe);
	submit_one(q);
	fe_flush(q);
	fe_kick(q);
	fe_barrier(&fe);
	CHECK(!fe_wait_ms(q, NULL, NULL, 50));
	fe_queue_enable(q, true);
	CHECK_EQ(fe_wait(q, NULL), 64);
	CHECK_EQ(fe_wait(q, NULL), 64);
	rng_works(q);
	fe_end(&fe);
}

static void enabled_before_set_up(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 1};
	struct fe_queue *q;
	struct fe fe;

	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_negotiate(&fe);
	/* as QEMU does it for net: before features and memory */
	fe_set(&fe, FE_SET_VRING_ENABLE, &s, sizeof(s), NULL, 0);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	rng_works(q);
	fe_end(&fe);
}

/* Buffers that were there before the ring was set up need no kick. */
static void work_without_kick(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	submit_one(q);
	vring_driver_publish(&q->ring);
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	CHECK_EQ(fe_wait(q, NULL), 64);
	fe_end(&fe);
}

static void disable_enable(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < 10; i++) {
		rng_traffic(q, 30);
		fe_queue_enable(q, false);
		fe_queue_enable(q, false);
		submit_one(q);
		fe_flush(q);
		fe_kick(q);
		fe_barrier(&fe);
		CHECK(!fe_wait_ms(q, NULL, NULL, i ? 5 : 100));
		fe_queue_enable(q, true);
		CHECK_EQ(fe_wait(q, NULL), 64);
	}
	fe_end(&fe);
}

/* User Mode Linux never asks for the base: it disables, and sets the ring up again from 0. */
static void set_up_again_after_disable(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < 5; i++) {
		q = fe_queue_up(&fe, 0, 16 << i % 3);
		rng_traffic(q, 50 + i);
		fe_queue_enable(q, false);
		fe_barrier(&fe);
		fe_set_features(&fe, fe.features);
	}
	fe_end(&fe);
}

static void without_kick_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	q->nofd_kick = true;
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	rng_works(q);
	rng_traffic(q, 300);
	CHECK_EQ(q->kicks, 0);
	/* and back to kicks */
	q->nofd_kick = false;
	fe_queue_send(q, fe_queue_stop(q));
	rng_traffic(q, 300);
	/* a back-end that is busy asks for none, but it goes to sleep sooner or later */
	while (!q->kicks) {
		fe_barrier(&fe);
		rng_works(q);
	}
	fe_end(&fe);
}

static void without_call_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	q->nofd_call = true;
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	rng_works(q);
	rng_traffic(q, 200);
	CHECK_EQ(fe_take_calls(q), 0);
	/* the guest unmasks its interrupt while the ring runs, and masks it again */
	q->nofd_call = false;
	fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
	rng_traffic(q, 200);
	fe_queue_send_fd(q, FE_SET_VRING_CALL, -1);
	fe_take_calls(q);
	q->nofd_call = true;
	rng_works(q);
	CHECK_EQ(fe_take_calls(q), 0);
	fe_end(&fe);
}

/* New fds on a running ring take over; the old ones are closed. */
static void new_fds(const struct fe_mode *m)
{
	struct fe_queue *q;
	unsigned fds;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fds = fe_process_fds(&fe.process);
	for (unsigned i = 0; i < 20; i++) {
		close(q->call);
		close(q->kick);
		close(q->err);
		CHECK_SYS(q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
		CHECK_SYS(q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
		CHECK_SYS(q->err = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_queue_send_fd(q, FE_SET_VRING_KICK, q->kick);
		fe_queue_send_fd(q, FE_SET_VRING_ERR, q->err);
		rng_works(q);
	}
	CHECK_EQ(fe_process_fds(&fe.process), fds);
	fe_end(&fe);
}

/* A request overtakes the message that brings the new descriptor: its interrupt must not be lost with the old one. */
static void late_call_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < 20; i++) {
		int masked = q->call;

		fe_take_calls(q);
		CHECK(!vring_driver_arm(&q->ring));
		submit_one(q);
		fe_flush(q);
		CHECK(fe_poll(masked, POLLIN, fe_limit_ms));
		CHECK_SYS(q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		CHECK(fe_poll(q->call, POLLIN, fe_limit_ms));
		CHECK_EQ(fe_take_calls(q), 1);
		/* nothing was said on it since: nothing to repeat */
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_barrier(&fe);
		CHECK_EQ(fe_take_calls(q), 0);
		CHECK(fe_collect(q, NULL, NULL));
		close(masked);
	}
	fe_end(&fe);
}

/* Interrupts come when they are wanted and not otherwise. */
static void interrupts_wanted(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_take_calls(q);
	vring_driver_disarm(&q->ring);
	for (unsigned i = 0; i < 10; i++) {
		int64_t end = fe_now_ms() + fe_limit_ms;

		submit_one(q);
		fe_flush(q);
		while (!fe_collect(q, NULL, NULL)) {
			CHECK(fe_now_ms() < end);
			vring_driver_disarm(&q->ring);
			fe_poll(q->call, POLLIN, 1);
		}
	}
	fe_queue_stop(q);
	CHECK_EQ(fe_take_calls(q), 0);
	fe_end(&fe);
}

/* A blocking eventfd, and a socket that nobody reads (as User Mode Linux has them), must not stall the ring. */
static void full_call_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	close(q->call);
	CHECK_SYS(q->call = eventfd(0, EFD_CLOEXEC));
	CHECK_SYS(eventfd_write(q->call, UINT64_MAX - 1));
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	q->nofd_call = true; /* we look by ourselves */
	rng_works(q);
	fe_barrier(&fe);
	fe_end(&fe);
}

/* --- features --- */

static void features_again(const struct fe_mode *m)
{
	struct source src;
	struct fe_queue *q;
	struct fe fe;
	uint8_t *mem;

	source_open(&src);
	fe_start(&fe, m, FE_ARGS("rng", src.option));
	q = fe_queue_up(&fe, 0, 16);
	mem = fe_alloc(&fe, 64, 1, NULL);
	for (unsigned i = 0; i < 20; i++) {
		struct vring_driver_buf b = fe_wr(&fe, mem, 64);

		fe_submit(q, &b, 1, NULL);
		fe_flush(q);
		/* as for a migration; without a log the bit must do no harm */
		fe_set_features(&fe, fe.features ^ BIT(FE_F_LOG_ALL));
		source_feed(&src, 64);
		CHECK_EQ(fe_wait(q, NULL), 64);
		source_check(i * UINT64_C(64), mem, 64);
	}
	fe_end(&fe);
	source_close(&src);
}

/* Front-ends pass on bits that were never offered. */
static void features_not_offered(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	fe_set_features(&fe, fe.features | BIT(40) | BIT(FE_F_LOG_ALL) | BIT(5) | BIT(38));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_end(&fe);
}

static void legacy(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_init(&fe, m);
	fe.legacy = true;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	rng_traffic(q, 500);
	fe_end(&fe);
}

/* Without bit 30 there is no SET_VRING_ENABLE, no ack, and all rings are enabled. */
static void no_protocol_features(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_init(&fe, m);
	fe.no_protocol = true;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 64);
	fe_barrier(&fe);
	rng_works(q);
	rng_traffic(q, 300);
	fe_queue_send(q, fe_queue_stop(q));
	fe_barrier(&fe);
	rng_works(q);
	fe_end(&fe);
}

/* A front-end that accepts only bit 30 for a guest that uses more (QEMU's cryptodev does that). */
static void unacked(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_init(&fe, m);
	fe.unacked = fe.legacy = true;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	CHECK_EQ(fe.features & ~BIT(FE_F_PACKED), BIT(FE_F_PROTOCOL));
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 64);
	rng_works(q);
	rng_traffic(q, 1000);
	fe_end(&fe);
}

/* --- reset and status --- */

static void reset_keeps_memory(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	if (!fe_has(&fe, FE_P_RESET_DEVICE))
		FAIL("RESET_DEVICE: expected it to be offered");
	/* QEMU also sends it before the first start */
	fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	for (unsigned i = 0; i < 5; i++) {
		q = fe_queue_up(&fe, 0, 16);
		rng_traffic(q, 100);
		if (i % 2)
			fe_queue_stop(q);
		fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
		/* disabled now: nothing is served */
		submit_one(q);
		fe_flush(q);
		fe_kick(q);
		fe_barrier(&fe);
		CHECK(!fe_wait_ms(q, NULL, NULL, 10));
		fe_set_features(&fe, fe.features);
	}
	fe_end(&fe);
}

/* QEMU sends SET_VRING_ERR only once. */
static void reset_keeps_err_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_queue_stop(q);
	fe_set(&fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	fe_queue_clear(q, FE_FRESH);
	q->no_err = true;
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	rng_works(q);
	/* a buffer that is no guest memory breaks the ring */
	fe_submit_direct(q, &(struct vring_driver_buf){.addr = 1, .len = 10, .wr = true}, 1, NULL);
	fe_flush(q);
	fe_queue_fails(q);
	fe_end(&fe);
}

static void status(const struct fe_mode *m)
{
	struct fe_queue *q;
	uint32_t base;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	if (!fe_has(&fe, FE_P_STATUS))
		FAIL("STATUS: expected it to be offered");
	CHECK_EQ(fe_get(&fe, FE_GET_STATUS), 0);
	/* rng never gets beyond FEATURES_OK from QEMU, and works nonetheless */
	fe_set_u64(&fe, FE_SET_STATUS, 8);
	CHECK_EQ(fe_get(&fe, FE_GET_STATUS) & 8, 8);
	q = fe_queue_up(&fe, 0, 16);
	rng_traffic(q, 100);
	fe_set_u64(&fe, FE_SET_STATUS, 15);
	CHECK_EQ(fe_get(&fe, FE_GET_STATUS), 15);
	rng_traffic(q, 100);
	/* QEMU 7.2 sets 0 before it asks for the base: the ring must not forget it */
	fe_set_u64(&fe, FE_SET_STATUS, 0);
	CHECK_EQ(fe_get(&fe, FE_GET_STATUS), 0);
	rng_traffic(q, 100);
	base = fe_queue_stop(q);
	CHECK_EQ(base, expected_base(q));
	fe_queue_send(q, base);
	rng_works(q);
	fe_end(&fe);
}

static void owner_reset(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_set(&fe, FE_RESET_OWNER, NULL, 0, NULL, 0);
	fe_set(&fe, FE_SET_OWNER, NULL, 0, NULL, 0);
	/* whether or not it stopped the rings: memory and connection are as before */
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_end(&fe);
}

/* --- in-band notifications --- */

static void inband_start(struct fe *fe, const struct fe_mode *m)
{
	fe_init(fe, m);
	fe->protocol_mask = UINT64_MAX;
	fe_spawn(fe, FE_ARGS("rng", "--inband"));
	fe_handshake(fe);
	if (!fe_has(fe, FE_P_INBAND))
		FAIL("INBAND_NOTIFICATIONS: expected it to be offered with --inband");
	fe_memory_default(fe);
}

static void inband(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	inband_start(&fe, m);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	rng_traffic(q, 300);
	/* a fast device may have been done before we slept, but it has called */
	if (!q->calls)
		CHECK(fe_back_serve(&fe, fe_limit_ms));
	CHECK(q->kicks > 0);
	fe_queue_send(q, fe_queue_stop(q));
	rng_works(q);
	fe_end(&fe);
}

/* A ring that has fds uses them, whatever was negotiated: QEMU accepts the bit without implementing it. */
static void inband_with_fds(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	inband_start(&fe, m);
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	q->inband = false;
	fe_queue_send(q, base_of(&fe, vring_driver_base(m->packed)));
	fe_queue_enable(q, true);
	rng_works(q);
	rng_traffic(q, 100);
	CHECK(!fe_back_serve(&fe, 0));
	fe_end(&fe);
}

static void inband_refused(uint64_t protocol)
{
	struct fe fe;

	fe_init(&fe, NULL);
	fe_spawn(&fe, FE_ARGS("rng", "--inband"));
	fe_get(&fe, FE_GET_FEATURES);
	CHECK(fe_get(&fe, FE_GET_PROTOCOL_FEATURES) & BIT(FE_P_INBAND));
	fe_send(&fe, FE_SET_PROTOCOL_FEATURES, 0, &protocol, sizeof(protocol), NULL, 0);
	fe_expect_eof(&fe);
	fe_close(&fe);
	fe_process_exits(&fe.process, 1);
}

static void inband_incomplete(const struct fe_mode *m)
{
	(void)m;
	inband_refused(BIT(FE_P_INBAND));
	inband_refused(BIT(FE_P_INBAND) | BIT(FE_P_REPLY_ACK));
	inband_refused(BIT(FE_P_INBAND) | BIT(FE_P_BACKEND_REQ));
}

int main(void)
{
	fe_each_mode_in_order("traffic", traffic);
	fe_each_mode("ring sizes", ring_sizes);
	fe_each_mode_in_order("start at any index", any_base);
	fe_each_mode("stop, resume", stop_resume);
	fe_each_layout("a stopped ring takes nothing", stop_with_work);
	fe_each_mode_in_order("stop with requests in flight", stop_in_flight);
	fe_each_layout("GET_VRING_BASE of a ring never set up", never_set_up);
	fe_each_mode("kicked before enabled", kicked_before_enabled);
	fe_each_layout("enabled before set up", enabled_before_set_up);
	fe_each_mode("buffers from before the set-up need no kick", work_without_kick);
	fe_each_mode("disable holds requests, enable continues", disable_enable);
	fe_each_layout("set up again after disable", set_up_again_after_disable);
	fe_each_mode("no kick fd: the ring is polled", without_kick_fd);
	fe_each_mode("no call fd: no interrupts", without_call_fd);
	fe_each_mode("a request overtakes the call fd: its interrupt is repeated", late_call_fd);
	fe_each_layout("new fds on a running ring", new_fds);
	fe_each_mode("no interrupts when they are off", interrupts_wanted);
	fe_each_layout("a full blocking call fd", full_call_fd);
	fe_each_mode("SET_FEATURES on a live ring", features_again);
	fe_each_layout("SET_FEATURES with bits never offered", features_not_offered);
	for (unsigned bits = 0; bits < 4; bits++) {
		struct fe_mode m = {.event_idx = bits & 1, .indirect = bits & 2};

		fe_case("legacy driver", legacy, &m);
	}
	fe_each_layout("without protocol features", no_protocol_features);
	fe_each_mode("EVENT_IDX and INDIRECT used without being accepted", unacked);
	fe_each_layout("RESET_DEVICE keeps memory", reset_keeps_memory);
	fe_each_layout("RESET_DEVICE keeps the err fd", reset_keeps_err_fd);
	fe_each_layout("SET_STATUS does not touch rings", status);
	fe_case("RESET_OWNER", owner_reset, &split);
	fe_each_mode("in-band notifications", inband);
	fe_each_layout("in-band negotiated, fds used", inband_with_fds);
	fe_case("in-band without its companions ends the session", inband_incomplete, &split);
	return tap_done();
}
