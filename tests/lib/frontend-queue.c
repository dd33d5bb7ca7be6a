/* SPDX-License-Identifier: MIT */
/* Queues of the test front-end: ring set-up by messages, requests, interrupts; and test cases over all ring modes. */
#include "frontend.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>

/* --- set-up --- */

static uint16_t fresh_base(const struct fe *fe, int base)
{
	return base == FE_FRESH ? vring_driver_base(fe->mode.packed) : (uint16_t)base;
}

static void ring_init(struct fe_queue *q, int base)
{
	const struct fe_mode *m = &q->fe->mode;
	struct vring_driver_mode mode = {m->packed, m->event_idx, m->in_order};
	int r;

	r = vring_driver_init(&q->ring, &mode, q->num, fresh_base(q->fe, base), fe_ptr(q->fe, q->desc_gpa),
		fe_ptr(q->fe, q->driver_gpa), fe_ptr(q->fe, q->device_gpa));
	if (r < 0)
		FAIL("ring of size %u: %s", q->num, strerror(-r));
	q->spare = NULL;
	for (unsigned i = 0; i < q->num; i++) {
		q->requests[i].next = q->spare;
		q->spare = &q->requests[i];
	}
}

struct fe_queue *fe_queue_make(struct fe *fe, unsigned index, uint16_t num, int base)
{
	struct fe_queue *q = calloc(1, sizeof(*q));
	struct vring_driver_layout l;

	CHECK(q && index < FE_QUEUES);
	if (fe->queues[index])
		fe_queue_free(fe->queues[index]);
	fe->queues[index] = q;
	q->fe = fe;
	q->index = index;
	q->num = num;
	q->requests = calloc(num, sizeof(*q->requests));
	CHECK(q->requests);
	vring_driver_layout(fe->mode.packed, num, &l);
	fe_alloc(fe, l.desc, MAX(fe->ring_align, 16), &q->desc_gpa);
	fe_alloc(fe, l.driver, MAX(fe->ring_align, 4), &q->driver_gpa);
	fe_alloc(fe, l.device, MAX(fe->ring_align, 4), &q->device_gpa);
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(q->kick >= 0 && q->call >= 0 && q->err >= 0);
	q->inband = fe_has(fe, FE_P_INBAND) && fe_has(fe, FE_P_BACKEND_REQ);
	ring_init(q, base);
	return q;
}

void fe_queue_clear(struct fe_queue *q, int base)
{
	vring_driver_destroy(&q->ring);
	ring_init(q, base);
}

void fe_queue_free(struct fe_queue *q)
{
	q->fe->queues[q->index] = NULL;
	vring_driver_destroy(&q->ring);
	close(q->kick);
	close(q->call);
	close(q->err);
	free(q->requests);
	free(q);
}

void fe_queue_send_addr(struct fe_queue *q)
{
	struct fe *fe = q->fe;
	struct fe_vring_addr a = {
		.index = q->index,
		.flags = q->log,
		.desc = fe_uaddr(fe, q->desc_gpa),
		.avail = fe_uaddr(fe, q->driver_gpa),
		.used = fe_uaddr(fe, q->device_gpa),
		.log = q->device_gpa,
	};

	fe_set(fe, FE_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
}

void fe_queue_send_fd(struct fe_queue *q, uint32_t request, int fd)
{
	uint64_t v = q->index | (fd < 0 ? FE_NOFD : 0);

	fe_set(q->fe, request, &v, sizeof(v), &fd, fd >= 0);
}

void fe_queue_send(struct fe_queue *q, uint32_t base)
{
	struct fe_vring_state num = {q->index, q->num}, start = {q->index, base};
	struct fe *fe = q->fe;

	fe_set(fe, FE_SET_VRING_NUM, &num, sizeof(num), NULL, 0);
	fe_set(fe, FE_SET_VRING_BASE, &start, sizeof(start), NULL, 0);
	fe_queue_send_addr(q);
	if (!q->no_err)
		fe_queue_send_fd(q, FE_SET_VRING_ERR, q->err);
	if (q->inband)
		return;
	fe_queue_send_fd(q, FE_SET_VRING_KICK, q->nofd_kick ? -1 : q->kick);
	fe_queue_send_fd(q, FE_SET_VRING_CALL, q->nofd_call ? -1 : q->call);
}

void fe_queue_enable(struct fe_queue *q, bool on)
{
	struct fe_vring_state s = {q->index, on};

	fe_set(q->fe, FE_SET_VRING_ENABLE, &s, sizeof(s), NULL, 0);
}

static uint32_t base_of(const struct fe *fe, uint16_t base)
{
	return fe->mode.packed ? base | (uint32_t)base << 16 : base;
}

struct fe_queue *fe_queue_up(struct fe *fe, unsigned index, uint16_t num)
{
	struct fe_queue *q = fe_queue_make(fe, index, num, FE_FRESH);

	fe_queue_send(q, base_of(fe, fresh_base(fe, FE_FRESH)));
	if (fe->features & BIT(FE_F_PROTOCOL))
		fe_queue_enable(q, true);
	return q;
}

uint32_t fe_queue_stop(struct fe_queue *q)
{
	struct fe_vring_state s = {q->index, 0}, *got;
	struct fe_msg m;

	fe_ask(q->fe, FE_GET_VRING_BASE, &s, sizeof(s), NULL, 0, &m, sizeof(s));
	got = (struct fe_vring_state *)m.body;
	CHECK_EQ(got->index, q->index);
	return got->num;
}

/* --- requests --- */

static struct fe_request *request_take(struct fe_queue *q, void *cookie)
{
	struct fe_request *r = q->spare;

	if (!r)
		FAIL("queue %u: more than %u requests in flight", q->index, q->num);
	q->spare = r->next;
	r->cookie = cookie;
	return r;
}

static int submitted(struct fe_queue *q, int head)
{
	if (head < 0)
		FAIL("queue %u: cannot submit: %s", q->index, strerror(-head));
	q->submitted++;
	return head;
}

int fe_submit_direct(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie)
{
	return submitted(q, vring_driver_add(&q->ring, bufs, n, request_take(q, cookie)));
}

int fe_submit_indirect(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie)
{
	struct fe_request *r = request_take(q, cookie);

	if (n > r->capacity) {
		r->capacity = MAX(n, 16);
		r->table = fe_alloc(q->fe, vring_driver_table_size(r->capacity), 16, &r->table_gpa);
	}
	return submitted(q, vring_driver_add_indirect(&q->ring, bufs, n, r->table, r->table_gpa, r));
}

int fe_submit(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie)
{
	/* a driver may mix both */
	if (q->fe->mode.indirect && (q->submitted % 4 != 3 || n > q->num))
		return fe_submit_indirect(q, bufs, n, cookie);
	return fe_submit_direct(q, bufs, n, cookie);
}

void fe_kick(struct fe_queue *q)
{
	struct fe_vring_state s = {.index = q->index};

	q->kicks++;
	if (q->inband)
		fe_set(q->fe, FE_VRING_KICK, &s, sizeof(s), NULL, 0);
	else
		CHECK_SYS(eventfd_write(q->kick, 1));
}

void fe_flush(struct fe_queue *q)
{
	if (vring_driver_publish(&q->ring) && !q->nofd_kick)
		fe_kick(q);
}

bool fe_collect(struct fe_queue *q, void **cookie, uint32_t *len)
{
	struct fe_request *r;
	void *got;
	int n = vring_driver_get(&q->ring, &got, len);

	if (n < 0)
		FAIL("queue %u: %s", q->index, q->ring.error);
	if (n == 0)
		return false;
	r = got;
	if (cookie)
		*cookie = r->cookie;
	r->next = q->spare;
	q->spare = r;
	return true;
}

unsigned fe_take_calls(struct fe_queue *q)
{
	eventfd_t n = 0;

	if (q->inband) {
		n = q->calls;
		fe_back_serve(q->fe, 0);
		return q->calls - (unsigned)n;
	}
	if (eventfd_read(q->call, &n) < 0)
		n = 0;
	q->calls += (unsigned)n;
	return (unsigned)n;
}

bool fe_queue_failed(struct fe_queue *q)
{
	eventfd_t n;

	return eventfd_read(q->err, &n) == 0;
}

void fe_queue_fails(struct fe_queue *q)
{
	if (!fe_poll(q->err, POLLIN, fe_limit_ms))
		FAIL("queue %u: expected its err eventfd to be signalled within %d ms", q->index,
			fe_limit_ms);
	CHECK(fe_queue_failed(q));
}

/* Sleeps until an interrupt, an error, a hang-up, or ms have passed. */
static void sleep_until_call(struct fe_queue *q, int ms)
{
	struct pollfd p[] = {
		{.fd = q->inband ? q->fe->back : q->call, .events = POLLIN},
		{.fd = q->err, .events = POLLIN},
		{.fd = q->fe->sock, .events = POLLRDHUP},
	};

	if (q->nofd_call)
		ms = MIN(ms, 1); /* nobody tells us */
	poll(p, 3, ms);
	if (p[1].revents)
		FAIL("queue %u: the back-end signalled an error", q->index);
	if (p[2].revents)
		FAIL("queue %u: the back-end closed the connection during a request", q->index);
	if (p[0].revents)
		fe_take_calls(q);
}

bool fe_wait_ms(struct fe_queue *q, void **cookie, uint32_t *len, int ms)
{
	int64_t end = fe_now_ms() + ms, left;

	for (;;) {
		if (fe_collect(q, cookie, len))
			return true;
		if (vring_driver_arm(&q->ring))
			continue;
		left = end - fe_now_ms();
		if (left <= 0)
			return false;
		sleep_until_call(q, (int)left);
	}
}

bool fe_wait_asleep(struct fe_queue *q, void **cookie, uint32_t *len)
{
	int64_t end = fe_now_ms() + fe_limit_ms;

	for (;;) {
		bool sleeps = fe_process_sleeps(&q->fe->process);

		if (fe_wait_ms(q, cookie, len, sleeps ? 0 : 1))
			return true;
		if (sleeps)
			return false;
		CHECK(fe_now_ms() < end);
	}
}

uint32_t fe_wait(struct fe_queue *q, void **cookie)
{
	uint32_t len = 0;

	if (!fe_wait_ms(q, cookie, &len, fe_limit_ms))
		FAIL("queue %u: expected a completion and an interrupt within %d ms (%u requests in flight)",
			q->index, fe_limit_ms, q->ring.nbusy);
	return len;
}

uint32_t fe_transact(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n)
{
	fe_submit(q, bufs, n, NULL);
	fe_flush(q);
	return fe_wait(q, NULL);
}

/* --- cases over modes --- */

struct mode_case {
	void (*fn)(const struct fe_mode *m);
	struct fe_mode mode;
};

static void run_mode(void *arg)
{
	const struct mode_case *c = arg;

	c->fn(&c->mode);
}

void fe_case(const char *name, void (*fn)(const struct fe_mode *m), const struct fe_mode *m)
{
	struct mode_case c = {.fn = fn};

	if (access(fe_binary(), X_OK) < 0) {
		printf("Bail out! %s: %s (set VUM to the binary)\n", fe_binary(), strerror(errno));
		exit(1);
	}
	if (m)
		c.mode = *m;
	tap_case(name, run_mode, &c);
}

static void each(
	const char *name, void (*fn)(const struct fe_mode *m), unsigned from, unsigned to, unsigned step)
{
	for (unsigned bits = from; bits < to; bits += step) {
		struct fe_mode m = {bits & 1, bits & 2, bits & 4, bits & 8};
		char text[160];

		snprintf(text, sizeof(text), "%s [%s%s%s%s]", name, m.packed ? "packed" : "split",
			m.event_idx ? " event-idx" : "", m.indirect ? " indirect" : "",
			m.in_order ? " in-order" : "");
		fe_case(text, fn, &m);
	}
}

void fe_each_mode(const char *name, void (*fn)(const struct fe_mode *m))
{
	each(name, fn, 0, 8, 1);
}

void fe_each_layout(const char *name, void (*fn)(const struct fe_mode *m))
{
	each(name, fn, 0, 2, 1);
}

void fe_each_mode_in_order(const char *name, void (*fn)(const struct fe_mode *m))
{
	each(name, fn, 0, 16, 1);
}
