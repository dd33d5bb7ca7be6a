/* SPDX-License-Identifier: MIT */
/*
 * Several queues of one block device, in threads of their own or not: what breaks one of them is nothing to the others,
 * which go on while it is broken, while it is brought to rest and while it is set up again.
 */
#include "block-rig.h"

enum { QUEUES = 3, BROKEN = 1, NUM = 64, HELD = 8 };

/* How a driver can break its queue. */
enum how { STATUS_OUTSIDE, ODD_TABLE, READ_AFTER_WRITE, WAYS };

static const char *const why[] = {
	[STATUS_OUTSIDE] = "ends outside guest memory",
	[ODD_TABLE] = "an indirect table has",
	[READ_AFTER_WRITE] = "follows a device-writable one",
};

static void queue_works(unsigned i, unsigned seed)
{
	uint8_t *data = blk_guest(4096);

	blk.q = blk.fe.queues[i];
	blk_pattern(data, 4096, seed);
	blk_wr_ok(i * 64 + seed % 8 * 8, data, 4096);
	blk_rd_ok(i * 64 + seed % 8 * 8, data, 4096);
	CHECK(!fe_queue_failed(blk.q));
}

static void others_work(unsigned seed)
{
	for (unsigned i = 0; i < QUEUES; i++)
		if (i != BROKEN)
			queue_works(i, seed);
}

static void submit_bad(struct fe_queue *q, enum how how)
{
	struct vring_driver_buf b[3] = {
		fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_FLUSH, 0), 16),
		fe_wr(&blk.fe, blk_guest(1), 1),
	};
	int head;

	switch (how) {
	case STATUS_OUTSIDE:
		b[1].addr = UINT64_C(0x7fff00000000);
		fe_submit_direct(q, b, 2, NULL);
		break;
	case ODD_TABLE: /* of one and a half descriptors */
		b[0].len = 24;
		head = fe_submit_direct(q, b, 1, NULL);
		if (blk.fe.mode.packed)
			q->ring.staged_flags |= VRING_DESC_F_INDIRECT;
		else
			q->ring.desc[head].flags |= VRING_DESC_F_INDIRECT;
		break;
	default:
		b[2] = b[0];
		fe_submit_direct(q, b, 3, NULL);
		break;
	}
	fe_flush(q);
}

/* Requests on the queues that are not concerned, under way while it happens. */
static void submit_reads(uint8_t **status)
{
	for (unsigned i = 0; i < QUEUES; i++) {
		struct fe_queue *q = blk.fe.queues[i];

		for (unsigned n = 0; i != BROKEN && n < HELD; n++) {
			uint8_t *s = status[i * HELD + n] = fe_alloc(&blk.fe, 1, 1, NULL);
			struct vring_driver_buf b[] = {fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_IN, n * 8), 16),
				fe_wr(&blk.fe, blk_guest(4096), 4096), fe_wr(&blk.fe, s, 1)};

			*s = BLK_NOT_SEEN;
			fe_submit(q, b, 3, s);
		}
		fe_flush(q);
	}
}

static void collect_reads(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		for (unsigned n = 0; i != BROKEN && n < HELD; n++) {
			void *status;

			CHECK_EQ(fe_wait(blk.fe.queues[i], &status), 4097);
			CHECK_EQ(*(uint8_t *)status, VIRTIO_BLK_S_OK);
		}
}

static void set_up_again(struct fe_queue *q, bool by_disabling)
{
	if (by_disabling)
		fe_queue_enable(q, false);
	else
		fe_queue_stop(q);
	others_work(2);
	fe_queue_clear(q, FE_FRESH);
	fe_queue_send(q, blk.fe.mode.packed ? 0x80008000u : 0);
	fe_queue_enable(q, true);
}

static void isolation(const struct fe_mode *m, const char *option)
{
	struct fe_queue *q;

	blk_start(m, option);
	for (unsigned i = 1; i < QUEUES; i++)
		fe_queue_up(&blk.fe, i, NUM);
	for (unsigned i = 0; i < QUEUES; i++)
		queue_works(i, 1);
	q = blk.fe.queues[BROKEN];
	for (enum how how = 0; how < WAYS; how++) {
		uint8_t *status[QUEUES * HELD];

		submit_reads(status);
		submit_bad(q, how);
		collect_reads();
		fe_queue_fails(q);
		fe_process_logs(&blk.fe.process, why[how]);
		fe_kick(q);
		others_work(how);
		CHECK(!fe_collect(q, NULL, NULL));
		set_up_again(q, how % 2);
		queue_works(BROKEN, how);
		others_work(how + 1);
	}
	fe_end(&blk.fe);
}

static void in_one_thread(const struct fe_mode *m)
{
	isolation(m, NULL);
}

static void in_threads(const struct fe_mode *m)
{
	isolation(m, "--threads=3");
}

static void in_shared_threads(const struct fe_mode *m)
{
	isolation(m, "--threads=2"); /* 0 and 2 in one */
}

static void in_polling_threads(const struct fe_mode *m)
{
	isolation(m, "--poll-us=50");
}

int main(void)
{
	fe_each_mode("a broken queue in one thread with others", in_one_thread);
	fe_each_mode("a broken queue in a thread of its own", in_threads);
	fe_each_layout("a broken queue, shared threads", in_shared_threads);
	fe_each_layout("a broken queue, polling", in_polling_threads);
	return tap_done();
}
