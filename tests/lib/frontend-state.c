/* SPDX-License-Identifier: MIT */
/* Moving a guest to another process; see frontend.h. */
#include "frontend.h"

#include <fcntl.h>

static struct fe_msg begin(struct fe *fe, uint32_t direction, int fd)
{
	struct fe_wire_state w = {.direction = direction};
	struct fe_msg r;

	CHECK(fe_has(fe, FE_P_DEVICE_STATE));
	fe_ask(fe, FE_SET_DEVICE_STATE_FD, &w, sizeof(w), &fd, 1, &r, 8);
	CHECK_EQ(*(uint64_t *)r.body, 0x100);
	close(fd);
	return r;
}

size_t fe_state_save(struct fe *fe, void *state, size_t size)
{
	size_t n = 0;
	ssize_t got;
	int p[2];

	CHECK_SYS(pipe2(p, O_CLOEXEC));
	begin(fe, 0, p[1]);
	while ((got = read(p[0], (uint8_t *)state + n, size - n)) > 0)
		n += (size_t)got;
	CHECK(n < size);
	close(p[0]);
	CHECK_EQ(fe_get(fe, FE_CHECK_DEVICE_STATE), 0);
	return n;
}

uint64_t fe_state_load(struct fe *fe, const void *state, size_t n)
{
	int p[2];

	CHECK_SYS(pipe2(p, O_CLOEXEC));
	begin(fe, 1, p[0]);
	for (size_t at = 0; at < n;) {
		ssize_t put = write(p[1], (const uint8_t *)state + at, n - at);

		CHECK(put > 0);
		at += (size_t)put;
	}
	close(p[1]);
	return fe_get(fe, FE_CHECK_DEVICE_STATE);
}

void fe_queues_stop(struct fe *fe, uint32_t *base)
{
	for (unsigned i = 0; i < FE_QUEUES; i++)
		if (fe->queues[i])
			base[i] = fe_queue_stop(fe->queues[i]);
}

void fe_queues_resume(struct fe *fe, const uint32_t *base)
{
	fe_memory_send(fe);
	for (unsigned i = 0; i < FE_QUEUES; i++) {
		if (!fe->queues[i])
			continue;
		fe_queue_send(fe->queues[i], base[i]);
		fe_queue_enable(fe->queues[i], true);
		fe_kick(fe->queues[i]);
	}
}

uint32_t fe_queue_crashed(const struct fe_queue *q)
{
	if (q->fe->mode.packed)
		return 0x80008000;
	return __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);
}
