/* SPDX-License-Identifier: MIT */
/*
 * Rings that a broken or hostile guest fills. What makes no sense breaks the queue: its err eventfd is signalled,
 * nothing else suffers, and after a reset or a new set-up the queue works again. What is merely odd works.
 */
#include "protocol.h"

enum { NUM = 16 };

enum outcome { BREAKS, COMPLETES };

struct fault {
	const char *name;
	bool split, packed; /* where it can happen */
	enum outcome outcome;
	uint32_t used;			  /* COMPLETES: the used length */
	void (*make)(struct fe_queue *q); /* stages a request */
};

/* --- the faults --- */

static struct vring_driver_buf buffer(struct fe_queue *q, uint32_t len)
{
	return fe_wr(q->fe, fe_alloc(q->fe, len, 1, NULL), len);
}

static int chain(struct fe_queue *q, unsigned n)
{
	struct vring_driver_buf bufs[NUM];

	for (unsigned i = 0; i < n; i++)
		bufs[i] = buffer(q, 32);
	return fe_submit_direct(q, bufs, n, NULL);
}

/* The i-th descriptor of the request that was staged last, which begins at head. */
static struct vring_desc *split_desc(struct fe_queue *q, int head, unsigned i)
{
	struct vring_desc *d = &q->ring.desc[head];

	while (i--)
		d = &q->ring.desc[d->next];
	return d;
}

/* The flags of a packed request's first descriptor are written at publication. */
static void packed_flags(struct fe_queue *q, uint16_t set)
{
	q->ring.staged_flags |= set;
}

static void set_head(struct fe_queue *q, uint16_t head)
{
	q->ring.avail->ring[(q->ring.next_avail - 1) % NUM] = head;
}

static void head_out_of_range(struct fe_queue *q)
{
	chain(q, 1);
	set_head(q, NUM);
}

static void head_65535(struct fe_queue *q)
{
	chain(q, 1);
	set_head(q, 65535);
}

static void next_out_of_range(struct fe_queue *q)
{
	split_desc(q, chain(q, 2), 0)->next = NUM;
}

static void next_65535(struct fe_queue *q)
{
	split_desc(q, chain(q, 3), 1)->next = 65535;
}

static void loop_of_one(struct fe_queue *q)
{
	int head = chain(q, 1);
	struct vring_desc *d = split_desc(q, head, 0);

	d->flags |= VRING_DESC_F_NEXT;
	d->next = (uint16_t)head;
}

static void loop_of_three(struct fe_queue *q)
{
	int head = chain(q, 3);
	struct vring_desc *d = split_desc(q, head, 2);

	d->flags |= VRING_DESC_F_NEXT;
	d->next = (uint16_t)head;
}

static void too_far_ahead(struct fe_queue *q)
{
	chain(q, 1);
	q->ring.next_avail += NUM;
}

static void packed_endless(struct fe_queue *q)
{
	chain(q, NUM);
	q->ring.pdesc[NUM - 1].flags |= VRING_DESC_F_NEXT;
	packed_flags(q, VRING_DESC_F_NEXT);
}

static void at(struct fe_queue *q, uint64_t addr, uint32_t len)
{
	struct vring_driver_buf b = {.addr = addr, .len = len, .wr = true};

	fe_submit_direct(q, &b, 1, NULL);
}

static void unmapped(struct fe_queue *q)
{
	at(q, UINT64_C(1) << 45, 64);
}

static void in_the_gap(struct fe_queue *q)
{
	at(q, q->fe->regions[0].w.gpa + q->fe->regions[0].w.size, 1);
}

static void past_the_end(struct fe_queue *q)
{
	at(q, q->fe->regions[1].w.gpa + q->fe->regions[1].w.size - 32, 64);
}

static void address_overflow(struct fe_queue *q)
{
	at(q, UINT64_MAX - 15, 64);
}

static void length_4g(struct fe_queue *q)
{
	at(q, q->fe->regions[1].w.gpa, UINT32_MAX);
}

static void writable_before_readable(struct fe_queue *q)
{
	struct vring_driver_buf b[2] = {buffer(q, 32), buffer(q, 32)};

	b[1].wr = false;
	fe_submit_direct(q, b, 2, NULL);
}

/* An indirect request whose table and descriptor may then be spoilt. */
struct table {
	int head;
	uint16_t slot; /* packed: position in the ring */
	void *entries;
};

static struct table indirect(struct fe_queue *q, unsigned n)
{
	struct vring_driver_buf bufs[NUM];
	struct table t = {.slot = q->ring.next_avail};

	for (unsigned i = 0; i < n; i++)
		bufs[i] = buffer(q, 32);
	t.head = fe_submit_indirect(q, bufs, n, NULL);
	t.entries =
		fe_ptr(q->fe, q->ring.mode.packed ? q->ring.pdesc[t.slot].addr : q->ring.desc[t.head].addr);
	return t;
}

static void set_table(struct fe_queue *q, const struct table *t, uint64_t addr, uint32_t len)
{
	if (q->ring.mode.packed) {
		q->ring.pdesc[t->slot].addr = addr;
		q->ring.pdesc[t->slot].len = len;
	} else {
		q->ring.desc[t->head].addr = addr;
		q->ring.desc[t->head].len = len;
	}
}

static void set_table_len(struct fe_queue *q, uint32_t len)
{
	struct table t = indirect(q, 2);

	set_table(q, &t, fe_gpa(q->fe, t.entries), len);
}

static void table_empty(struct fe_queue *q)
{
	set_table_len(q, 0);
}

static void table_24(struct fe_queue *q)
{
	set_table_len(q, 24);
}

static void table_too_long(struct fe_queue *q)
{
	set_table_len(q, 0xfffffff0);
}

static void table_many(struct fe_queue *q)
{
	struct vring_driver_buf bufs[2000];

	for (unsigned i = 0; i < ARRAY_SIZE(bufs); i++)
		bufs[i] = buffer(q, 1);
	fe_submit_indirect(q, bufs, ARRAY_SIZE(bufs), NULL);
}

static void table_unmapped(struct fe_queue *q)
{
	struct table t = indirect(q, 2);

	set_table(q, &t, UINT64_C(1) << 45, 32);
}

static void table_past_the_end(struct fe_queue *q)
{
	struct table t = indirect(q, 2);

	set_table(q, &t, q->fe->regions[1].w.gpa + q->fe->regions[1].w.size - 16, 32);
	memset(fe_ptr(q->fe, q->fe->regions[1].w.gpa + q->fe->regions[1].w.size - 16), 0, 16);
	if (!q->ring.mode.packed) /* so that it goes on */
		*(uint16_t *)fe_ptr(
			q->fe, q->fe->regions[1].w.gpa + q->fe->regions[1].w.size -
				       4) = 1,
				       *(uint16_t *)fe_ptr(q->fe,
					       q->fe->regions[1].w.gpa + q->fe->regions[1].w.size - 2) = 1;
}

static void table_overflow(struct fe_queue *q)
{
	struct table t = indirect(q, 2);

	set_table(q, &t, UINT64_MAX - 15, 32);
}

static void table_nested(struct fe_queue *q)
{
	struct table t = indirect(q, 2);

	if (q->ring.mode.packed)
		((struct vring_packed_desc *)t.entries)[1].flags = VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE;
	else
		((struct vring_desc *)t.entries)[1].flags = VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE;
}

static void table_loop(struct fe_queue *q)
{
	struct table t = indirect(q, 3);
	struct vring_desc *d = t.entries;

	d[2].flags |= VRING_DESC_F_NEXT;
	d[2].next = 0;
}

static void table_next(struct fe_queue *q)
{
	struct table t = indirect(q, 4);

	/* what lies behind the table would do */
	((struct vring_desc *)t.entries)[0].next = 3;
	set_table(q, &t, fe_gpa(q->fe, t.entries), 48);
}

static void table_and_next(struct fe_queue *q)
{
	struct table t = indirect(q, 2);

	if (q->ring.mode.packed)
		packed_flags(q, VRING_DESC_F_NEXT);
	else
		q->ring.desc[t.head].flags |= VRING_DESC_F_NEXT;
}

/* --- odd, but fine --- */

static void readable_only(struct fe_queue *q)
{
	struct vring_driver_buf b = buffer(q, 64);

	b.wr = false;
	fe_submit(q, &b, 1, NULL);
}

static void readable_first(struct fe_queue *q)
{
	struct vring_driver_buf b[2] = {buffer(q, 64), buffer(q, 48)};

	b[0].wr = false;
	fe_submit(q, b, 2, NULL);
}

static void zero_length(struct fe_queue *q)
{
	struct vring_driver_buf b[4] = {buffer(q, 10), buffer(q, 10), buffer(q, 10), buffer(q, 10)};

	b[0].len = b[2].len = 0;
	fe_submit(q, b, 4, NULL);
}

static void zero_length_only(struct fe_queue *q)
{
	struct vring_driver_buf b = buffer(q, 10);

	b.len = 0;
	fe_submit(q, &b, 1, NULL);
}

static void zero_length_unmapped(struct fe_queue *q)
{
	struct vring_driver_buf b[2] = {{.addr = UINT64_C(1) << 45, .wr = true}, buffer(q, 10)};

	fe_submit(q, b, 2, NULL);
}

static void whole_ring(struct fe_queue *q)
{
	chain(q, NUM);
}

/* In an indirect table only the flags decide what follows; it may end early, and run in any order. */
static void table_in_any_order(struct fe_queue *q)
{
	struct table t = indirect(q, 4);
	struct vring_desc *d = t.entries;

	d[0].next = 3;
	d[3].flags |= VRING_DESC_F_NEXT;
	d[3].next = 1;
	d[1].flags &= (uint16_t)~VRING_DESC_F_NEXT;
}

/* WRITE of the descriptor that refers to the table means nothing (virtio 1.3, 2.7.5.3.2). */
static void table_writable(struct fe_queue *q)
{
	struct table t = indirect(q, 3);

	if (q->ring.mode.packed)
		packed_flags(q, VRING_DESC_F_WRITE);
	else
		q->ring.desc[t.head].flags |= VRING_DESC_F_WRITE;
}

static const struct fault faults[] = {
	{"head out of range", true, false, BREAKS, 0, head_out_of_range},
	{"head 65535", true, false, BREAKS, 0, head_65535},
	{"next out of range", true, false, BREAKS, 0, next_out_of_range},
	{"next 65535", true, false, BREAKS, 0, next_65535},
	{"a descriptor that is its own next", true, false, BREAKS, 0, loop_of_one},
	{"a loop of three", true, false, BREAKS, 0, loop_of_three},
	{"available index too far ahead", true, false, BREAKS, 0, too_far_ahead},
	{"a chain without end", false, true, BREAKS, 0, packed_endless},
	{"address not mapped", true, true, BREAKS, 0, unmapped},
	{"address in the gap between regions", true, true, BREAKS, 0, in_the_gap},
	{"buffer past the end of a region", true, true, BREAKS, 0, past_the_end},
	{"address + length overflow", true, true, BREAKS, 0, address_overflow},
	{"length 4 GiB - 1", true, true, BREAKS, 0, length_4g},
	{"device-writable before device-readable", true, true, BREAKS, 0, writable_before_readable},
	{"indirect table of 0 bytes", true, true, BREAKS, 0, table_empty},
	{"indirect table of 24 bytes", true, true, BREAKS, 0, table_24},
	{"indirect table of 4 GiB", true, true, BREAKS, 0, table_too_long},
	{"indirect table of 2000 descriptors", true, true, BREAKS, 0, table_many},
	{"indirect table not mapped", true, true, BREAKS, 0, table_unmapped},
	{"indirect table past the end of a region", true, true, BREAKS, 0, table_past_the_end},
	{"indirect table address overflow", true, true, BREAKS, 0, table_overflow},
	{"indirect table in an indirect table", true, true, BREAKS, 0, table_nested},
	{"indirect table with a loop", true, false, BREAKS, 0, table_loop},
	{"indirect table, next outside", true, false, BREAKS, 0, table_next},
	{"indirect with next", true, true, BREAKS, 0, table_and_next},
	{"only device-readable", true, true, COMPLETES, 0, readable_only},
	{"device-readable first", true, true, COMPLETES, 48, readable_first},
	{"empty buffers among others", true, true, COMPLETES, 20, zero_length},
	{"only an empty buffer", true, true, COMPLETES, 0, zero_length_only},
	{"an empty buffer at an address not mapped", true, true, COMPLETES, 10, zero_length_unmapped},
	{"a chain of the whole ring", true, true, COMPLETES, NUM * 32, whole_ring},
	{"indirect table in another order", true, false, COMPLETES, 96, table_in_any_order},
	{"indirect table marked writable", true, true, COMPLETES, 96, table_writable},
};

/* --- what must follow --- */

static uint32_t fresh(const struct fe *fe)
{
	return fe->mode.packed ? 0x80008000 : 0;
}

/* As a guest driver that resets its device. */
static void recover(struct fe_queue *q, unsigned how)
{
	struct fe *fe = q->fe;

	if (how % 3 == 0)
		fe_queue_stop(q);
	else if (how % 3 == 1)
		fe_set(fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	else
		fe_queue_enable(q, false);
	fe_queue_clear(q, FE_FRESH);
	fe_queue_send(q, fresh(fe));
	fe_queue_enable(q, true);
}

static void one_fault(struct fe_queue *q, const struct fault *f, unsigned how)
{
	struct fe *fe = q->fe;
	size_t mark = fe_mark(fe);

	f->make(q);
	vring_driver_publish(&q->ring);
	fe_kick(q);
	if (f->outcome == COMPLETES) {
		uint32_t used = fe_wait(q, NULL);

		if (used != f->used)
			FAIL("%s: expected used length %u, got %u", f->name, f->used, used);
	} else {
		if (!fe_poll(q->err, POLLIN, fe_limit_ms))
			FAIL("%s: expected the err eventfd to be signalled", f->name);
		CHECK(fe_queue_failed(q));
		if (!fe_process_running(&fe->process))
			FAIL("%s: the process has ended", f->name);
		fe_barrier(fe);
		/* it stays broken, quietly */
		fe_kick(q);
		fe_barrier(fe);
		if (fe_queue_failed(q))
			FAIL("%s: expected the err eventfd to be signalled once", f->name);
		recover(q, how);
	}
	rng_works(q);
	fe_release(fe, mark);
	/* tables in what was released are no longer ours */
	fe_queue_stop(q);
	for (unsigned i = 0; i < NUM; i++)
		q->requests[i].capacity = 0;
	fe_queue_clear(q, FE_FRESH);
	fe_queue_send(q, fresh(fe));
}

static void all_faults(const struct fe_mode *m)
{
	struct fe_queue *q;
	unsigned n = 0;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	for (unsigned how = 0; how < 3; how++)
		for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
			if (m->packed ? faults[i].packed : faults[i].split) {
				one_fault(q, &faults[i], how);
				n++;
			}
	CHECK(n >= 60);
	fe_end(&fe);
}

/* Good requests before the bad one are completed. */
static void good_ones_first(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	for (unsigned i = 0; i < 5; i++) {
		struct vring_driver_buf b = buffer(q, 100);

		fe_submit(q, &b, 1, NULL);
	}
	unmapped(q);
	vring_driver_publish(&q->ring);
	fe_kick(q);
	fe_queue_fails(q);
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(fe_wait(q, NULL), 100);
	CHECK(!fe_collect(q, NULL, NULL));
	recover(q, 0);
	rng_works(q);
	fe_end(&fe);
}

/* No err fd: nobody to tell. */
static void no_err_fd(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	fe_queue_send_fd(q, FE_SET_VRING_ERR, -1);
	unmapped(q);
	fe_flush(q);
	fe_process_logs(&fe.process, "queue 0");
	fe_barrier(&fe);
	recover(q, 0);
	rng_works(q);
	fe_end(&fe);
}

/* A buffer id is the driver's affair in the packed layout: any 16 bits come back as they were. */
static void packed_any_id(const struct fe_mode *m)
{
	static const uint16_t ids[] = {0, NUM, 1000, 65535};
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	for (unsigned i = 0; i < ARRAY_SIZE(ids); i++) {
		uint16_t slot = q->ring.next_avail;
		struct vring_packed_desc *d = &q->ring.pdesc[slot];
		uint16_t head = (uint16_t)chain(q, 1);
		int64_t end = fe_now_ms() + fe_limit_ms;

		d->id = ids[i];
		fe_flush(q);
		while (!vring_driver_pending(&q->ring)) {
			CHECK(fe_now_ms() < end);
			fe_poll(q->call, POLLIN, 1);
		}
		CHECK_EQ(d->id, ids[i]);
		d->id = head;
		CHECK_EQ(fe_wait(q, NULL), 32);
	}
	rng_works(q);
	fe_end(&fe);
}

/* --- rings at addresses that are no memory --- */

static void try_addresses(struct fe *fe, struct fe_vring_addr a, const char *what)
{
	struct fe_vring_state num = {0, NUM}, base = {0, fresh(fe)}, enable = {0, 1};
	uint64_t v = 0, refused = 0;
	struct fe_queue *q = fe->queues[0];

	fe_queue_stop(q);
	fe_ack(fe, FE_SET_VRING_NUM, &num, sizeof(num), NULL, 0);
	fe_ack(fe, FE_SET_VRING_BASE, &base, sizeof(base), NULL, 0);
	refused |= fe_ack(fe, FE_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
	refused |= fe_ack(fe, FE_SET_VRING_KICK, &v, sizeof(v), &q->kick, 1);
	refused |= fe_ack(fe, FE_SET_VRING_CALL, &v, sizeof(v), &q->call, 1);
	refused |= fe_ack(fe, FE_SET_VRING_ENABLE, &enable, sizeof(enable), NULL, 0);
	if (!refused)
		FAIL("%s: expected one of the messages to be refused", what);
	fe_kick(q);
	fe_barrier(fe);
}

static void ring_addresses(const struct fe_mode *m)
{
	struct fe_vring_addr good, a;
	struct fe_queue *q;
	uint64_t end;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	rng_works(q);
	good = (struct fe_vring_addr){.desc = fe_uaddr(&fe, q->desc_gpa),
		.avail = fe_uaddr(&fe, q->driver_gpa),
		.used = fe_uaddr(&fe, q->device_gpa)};
	end = fe.regions[1].w.uaddr + fe.regions[1].w.size;
	a = good;
	a.desc = 0x1000;
	try_addresses(&fe, a, "descriptors not mapped");
	a = good;
	a.used = q->device_gpa; /* guest addresses are not user addresses */
	try_addresses(&fe, a, "used ring not mapped");
	a = good;
	a.avail = UINT64_MAX - 1;
	try_addresses(&fe, a, "available ring overflow");
	a = good;
	a.desc = end - 16 * (NUM - 1);
	try_addresses(&fe, a, "descriptors past the end");
	a = good;
	a.used = end - 2;
	try_addresses(&fe, a, "used ring past the end");
	a = good;
	a.desc += 4;
	try_addresses(&fe, a, "descriptors not aligned");
	a = good;
	a.used += 1;
	try_addresses(&fe, a, "used ring not aligned");
	a = good;
	a.avail += 1;
	try_addresses(&fe, a, "available ring not aligned");
	a = good;
	a.flags = 2;
	fe_queue_stop(q);
	CHECK(fe_ack(&fe, FE_SET_VRING_ADDR, &a, sizeof(a), NULL, 0) != 0);
	recover(q, 0);
	rng_works(q);
	fe_end(&fe);
}

/* --- size --- */

/* A request of many GiB (the same memory over and over) must not keep messages from being answered. */
static void huge_request(const struct fe_mode *m)
{
	struct vring_driver_buf bufs[1000];
	uint64_t gpa;
	struct fe fe;
	struct fe_queue *q;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	fe_alloc(&fe, 60 << 20, 4096, &gpa);
	for (unsigned i = 0; i < ARRAY_SIZE(bufs); i++)
		bufs[i] = (struct vring_driver_buf){gpa, 60 << 20, true};
	for (unsigned i = 0; i < NUM; i++)
		fe_submit_indirect(q, bufs, ARRAY_SIZE(bufs), NULL);
	fe_flush(q);
	fe_barrier(&fe);
	fe_queue_stop(q);
	fe_process_signal(&fe.process, SIGTERM);
	fe_process_exits(&fe.process, 0);
	fe_close(&fe);
}

/* --- garbage --- */

static uint32_t seed;

static uint32_t any(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 4;
}

static uint64_t any_addr(const struct fe *fe)
{
	const struct fe_region *r = &fe->regions[any() % 2];

	switch (any() % 8) {
	case 0:
		return (uint64_t)any() << 36 | any();
	case 1:
		return r->w.gpa + r->w.size - any() % 64;
	default:
		return r->w.gpa + any() % r->w.size;
	}
}

static void garbage(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	q = fe_queue_up(&fe, 0, NUM);
	seed = 1 + m->packed + m->event_idx * 2u + m->indirect * 4u;
	for (unsigned round = 0; round < 400; round++) {
		struct vring_desc *d = fe_ptr(&fe, q->desc_gpa);
		uint16_t *avail = fe_ptr(&fe, q->driver_gpa);

		for (unsigned i = 0; i < NUM; i++) {
			uint16_t a = (uint16_t)(any() % (NUM + 2)), b = (uint16_t)(any() % 8);
			bool first_lap = any() % 8;

			d[i].addr = any_addr(&fe);
			d[i].len = any() % 4 ? any() % 4096 : any() % 5 * 16;
			if (m->packed)
				d[i].flags = a, d[i].next = b | (first_lap ? 0x80 : 0x8000);
			else
				d[i].flags = b, d[i].next = a;
		}
		if (!m->packed)
			for (unsigned i = 1; i < NUM + 3; i++)
				avail[i] = (uint16_t)(any() % (NUM + 1));
		fe_kick(q);
		fe_barrier(&fe);
		recover(q, any());
		fe_queue_failed(q);
	}
	fe_end(&fe);
}

int main(void)
{
	static const struct fe_mode direct = {0};

	fe_each_mode("every fault", all_faults);
	fe_each_mode("good requests before a bad one", good_ones_first);
	fe_each_layout("a fault without an err fd", no_err_fd);
	fe_case("packed: any buffer id", packed_any_id, &(struct fe_mode){.packed = true});
	fe_each_layout("ring addresses", ring_addresses);
	fe_case("requests of many GiB", huge_request, &direct);
	fe_each_mode("garbage", garbage);
	return tap_done();
}
