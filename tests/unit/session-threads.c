/* SPDX-License-Identifier: MIT */
/* Queues in threads of their own: traffic on all of them while everything changes that may, with and without polling. */
#include "host.h"

static void toggle(struct fe *fe, struct fe_queue *q, unsigned round)
{
	switch (round % 5) {
	case 0:
		fe_log_set(fe, 1 << 20, 0);
		fe_set_u64(fe, FE_SET_FEATURES, fe->features | BIT(FE_F_LOG_ALL));
		break;
	case 1:
		fe_set_u64(fe, FE_SET_FEATURES, fe->features);
		break;
	case 2:
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_queue_send_fd(q, FE_SET_VRING_ERR, q->err);
		break;
	case 3:
		fe_queue_send_addr(q);
		break;
	default:
		fe_queue_send_fd(q, FE_SET_VRING_KICK, q->kick);
		break;
	}
	fe_barrier(fe);
}

/* Traffic on all queues while memory comes and goes, and everything else that may change under a running ring does. */
static void traffic_in_threads(const struct fe_mode *m, unsigned poll_us)
{
	struct fe_queue *q[HOST_QUEUES];
	unsigned round, i, k, rounds = 150;
	static struct host h;

	dev.threads = 2;
	dev.poll_us = poll_us;
	host_up(&h, m);
	for (i = 0; i < HOST_QUEUES; i++) {
		q[i] = fe_queue_up(&h.fe, i, HOST_DEPTH);
		echo_works(q[i]);
	}
	for (round = 0; round < rounds; round++) {
		size_t mark = fe_mark(&h.fe);
		struct fe_region *r;

		for (i = 0; i < HOST_QUEUES; i++) {
			for (k = 0; k < 8; k++)
				echo_submit(q[i], 1 + (round + k) % 100);
			fe_flush(q[i]);
		}
		r = host_more_memory(&h.fe);
		fe_region_add(&h.fe, r);
		for (i = 0; i < HOST_QUEUES; i++) {
			echo_submit(q[i], 200);
			fe_flush(q[i]);
		}
		toggle(&h.fe, q[round % HOST_QUEUES], round);
		for (i = 0; i < HOST_QUEUES; i++)
			for (k = 0; k < 9; k++)
				echo_collect(q[i]);
		fe_region_remove(&h.fe, r);
		if (round % 7 == 0) {
			echo_submit(q[1], 50);
			echo_submit(q[2], 50);
			fe_flush(q[1]);
			fe_flush(q[2]);
			fe_queue_send(q[1], fe_queue_stop(q[1]));
			fe_kick(q[1]);
			echo_collect(q[1]);
			echo_collect(q[2]);
		}
		fe_release(&h.fe, mark);
	}
	host_end(&h);
	CHECK_EQ(dev_get(&dev.nheld), 0);
}

static void threads(const struct fe_mode *m)
{
	traffic_in_threads(m, 0);
}

static void polling_threads(const struct fe_mode *m)
{
	traffic_in_threads(m, 30);
}

/* The front-end goes while all threads are busy. */
static void threads_and_hangup(const struct fe_mode *m)
{
	struct fe_queue *q[HOST_QUEUES];
	unsigned i, k;
	static struct host h;

	dev.threads = 3;
	host_up(&h, m);
	for (i = 0; i < HOST_QUEUES; i++)
		q[i] = fe_queue_up(&h.fe, i, HOST_DEPTH);
	for (i = 0; i < HOST_QUEUES; i++) {
		for (k = 0; k < 16; k++)
			echo_submit(q[i], 2000);
		fe_flush(q[i]);
	}
	fd_close(&h.fe.sock);
	host_join(&h, 0);
	CHECK_EQ(dev_get(&dev.started), dev_get(&dev.stopped));
	fe_close(&h.fe);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_layout("queue threads", threads);
	fe_each_layout("queue threads that poll", polling_threads);
	fe_case("queue threads, and the front-end goes", threads_and_hangup, NULL);
	return tap_done();
}
