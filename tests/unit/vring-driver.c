/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of the rings against a naive model of a device that follows the letter of virtio 1.3, 2.7
 * and 2.8: random requests, completions in any order, kicks and interrupts predicted by the model. "Guest
 * memory" is one array; addresses are offsets into it.
 */
#include "tap.h"

#include "util.h"

#include "vring-driver.h"

enum { TABLES = 1 << 20, MEMORY = TABLES + 64 * 64 * 16, MAX_SEGS = 8 };

static _Alignas(4096) uint8_t memory[MEMORY];

struct mode {
	bool packed, event_idx, indirect, in_order;
	uint16_t num, base;
};

struct request { /* what the test submitted, what the device saw */
	struct vring_driver_buf bufs[MAX_SEGS];
	unsigned n, table;
	bool busy;
	uint64_t writable;
	uint32_t used;
};

struct seen { /* a request that the model device holds */
	uint16_t id, count;
	unsigned request;
};

struct model {
	struct mode m;
	struct vring_driver d;
	uint16_t avail, used;
	bool avail_wrap, used_wrap;
	struct seen held[32768];
	unsigned nheld;
	struct request requests[64];
	unsigned in_flight;
	bool interrupt;
	uint64_t done;
};

static struct model model;
static unsigned seed;

static unsigned any(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 8) % n;
}

static struct vring_desc *split_desc(unsigned i)
{
	return (struct vring_desc *)memory + i;
}

static void *driver_area(void)
{
	return memory + 0x90000;
}

static void *device_area(void)
{
	return memory + 0xb0000;
}

static void setup(struct model *w, const struct mode *m)
{
	struct vring_driver_mode dm = {m->packed, m->event_idx, m->in_order};

	memset(w, 0, sizeof(*w));
	w->m = *m;
	CHECK_EQ(vring_driver_init(&w->d, &dm, m->num, m->base, memory, driver_area(), device_area()), 0);
	w->avail = w->used = m->packed ? m->base & 0x7fff : m->base;
	w->avail_wrap = w->used_wrap = m->base >> 15;
}

/* --- the model device --- */

/* One descriptor of either layout against the buffer that was submitted. */
static void match(const struct request *r, unsigned i, uint64_t addr, uint32_t len, bool wr)
{
	CHECK(i < r->n);
	CHECK_EQ(addr, r->bufs[i].addr);
	CHECK_EQ(len, r->bufs[i].len);
	CHECK_EQ(wr, r->bufs[i].wr);
}

/* The submitted request is known by its first buffer address, or by its table's. */
static unsigned request_of(uint64_t addr, bool indirect)
{
	return indirect ? (unsigned)(addr - TABLES) / 1024 : (unsigned)(addr >> 32);
}

static bool take_split(struct model *w, struct seen *s)
{
	struct vring_avail *avail = driver_area();
	const struct vring_desc *t = split_desc(0), *p;
	const struct request *r;
	unsigned i = 0, at;

	if (w->avail == avail->idx)
		return false;
	s->id = avail->ring[w->avail++ % w->m.num];
	s->count = 1;
	p = &t[s->id];
	s->request = request_of(p->addr, p->flags & VRING_DESC_F_INDIRECT);
	r = &w->requests[s->request];
	at = s->id;
	if (p->flags & VRING_DESC_F_INDIRECT) {
		CHECK(w->m.indirect);
		CHECK_EQ(p->flags, VRING_DESC_F_INDIRECT);
		CHECK_EQ(p->len, r->n * 16);
		t = (struct vring_desc *)(memory + p->addr);
		at = 0;
	}
	for (;; i++) {
		match(r, i, t[at].addr, t[at].len, t[at].flags & VRING_DESC_F_WRITE);
		if (!(t[at].flags & VRING_DESC_F_NEXT))
			break;
		if (w->m.in_order && t == split_desc(0))
			CHECK_EQ(t[at].next, (at + 1) % w->m.num);
		at = t[at].next;
	}
	CHECK_EQ(i + 1, r->n);
	return true;
}

static bool take_packed(struct model *w, struct seen *s)
{
	const struct vring_packed_desc *ring = (void *)memory, *p = &ring[w->avail];
	const struct request *r;
	unsigned i = 0;

	if (!!(p->flags & 0x80) != w->avail_wrap || !!(p->flags & 0x8000) == w->avail_wrap)
		return false;
	s->request = request_of(p->addr, p->flags & VRING_DESC_F_INDIRECT);
	r = &w->requests[s->request];
	for (s->count = 1;; s->count++) {
		bool more = p->flags & VRING_DESC_F_NEXT;

		CHECK_EQ(!!(p->flags & 0x80), w->avail_wrap);
		CHECK_EQ(!!(p->flags & 0x8000), !w->avail_wrap);
		if (p->flags & VRING_DESC_F_INDIRECT) {
			const struct vring_packed_desc *t = (void *)(memory + p->addr);

			CHECK(w->m.indirect && !more && s->count == 1);
			CHECK_EQ(p->len, r->n * 16);
			for (; i < r->n; i++)
				match(r, i, t[i].addr, t[i].len, t[i].flags & VRING_DESC_F_WRITE);
		} else {
			match(r, i++, p->addr, p->len, p->flags & VRING_DESC_F_WRITE);
		}
		s->id = p->id;
		if (++w->avail == w->m.num) {
			w->avail = 0;
			w->avail_wrap = !w->avail_wrap;
		}
		p = &ring[w->avail];
		if (!more)
			break;
	}
	CHECK_EQ(i, r->n);
	return true;
}

/* Is a kick due for what was published beyond `old` (the position of the device's wish)? */
static bool kick_due(const struct model *w, bool wish)
{
	return w->m.event_idx ? wish : true;
}

static void device_ask_kick(struct model *w)
{
	if (w->m.packed) {
		struct vring_packed_desc_event *e = device_area();

		e->off_wrap = w->avail | (uint16_t)(w->avail_wrap << 15);
		e->flags = w->m.event_idx ? VRING_PACKED_EVENT_FLAG_DESC : VRING_PACKED_EVENT_FLAG_ENABLE;
	} else if (w->m.event_idx) {
		((struct vring_used *)device_area())->ring[w->m.num].id = w->avail;
	}
}

static void device_take(struct model *w)
{
	struct seen s;

	while (w->m.packed ? take_packed(w, &s) : take_split(w, &s))
		w->held[w->nheld++] = s;
}

static void interrupt_split(struct model *w, uint16_t old, uint16_t now)
{
	const struct vring_avail *avail = driver_area();

	if (!w->m.event_idx)
		w->interrupt |= !(avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
	else
		for (; old != now; old++)
			w->interrupt |= avail->ring[w->m.num] == old;
}

static void interrupt_packed(struct model *w, uint16_t at, bool wrap, unsigned count)
{
	const struct vring_packed_desc_event *e = driver_area();

	if (e->flags == VRING_PACKED_EVENT_FLAG_ENABLE)
		w->interrupt = true;
	for (; e->flags == VRING_PACKED_EVENT_FLAG_DESC && count; count--) {
		w->interrupt |= e->off_wrap == (at | (uint16_t)(wrap << 15));
		if (++at == w->m.num) {
			at = 0;
			wrap = !wrap;
		}
	}
}

/* Writes one used element that stands for held[first..first+n-1]; n > 1 only in order. */
static void device_use(struct model *w, unsigned first, unsigned n)
{
	const struct seen *last = &w->held[first + n - 1];
	uint32_t len = w->requests[last->request].used;
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++) {
		struct request *r = &w->requests[w->held[first + i].request];

		count += w->m.packed ? w->held[first + i].count : 1;
		if (i + 1 < n)
			r->used = (uint32_t)r->writable;
	}
	if (w->m.packed) {
		struct vring_packed_desc *p = (struct vring_packed_desc *)memory + w->used;

		p->id = last->id;
		p->len = len;
		p->flags = w->used_wrap ? 0x8080 : 0;
		interrupt_packed(w, w->used, w->used_wrap, count);
		w->used += count;
		if (w->used >= w->m.num) {
			w->used -= w->m.num;
			w->used_wrap = !w->used_wrap;
		}
	} else {
		struct vring_used *used = device_area();

		used->ring[w->used % w->m.num] = (struct vring_used_elem){last->id, len};
		interrupt_split(w, w->used, (uint16_t)(w->used + count));
		w->used += count;
		used->idx = w->used;
	}
	memmove(&w->held[first], &w->held[first + n], (w->nheld - first - n) * sizeof(w->held[0]));
	w->nheld -= n;
}

/* --- the driver's turns --- */

static bool submit(struct model *w)
{
	unsigned i = any(64), n = 1 + any(MIN(MAX_SEGS, w->m.num));
	struct request *r = &w->requests[i];
	int head;

	if (r->busy)
		return false;
	*r = (struct request){.n = n, .table = TABLES + i * 1024};
	for (unsigned s = 0; s < n; s++) {
		bool wr = s >= n / 2;

		r->bufs[s] = (struct vring_driver_buf){(uint64_t)i << 32 | s * 65536, 1 + any(5000), wr};
		r->writable += wr ? r->bufs[s].len : 0;
	}
	r->used = any((unsigned)r->writable + 1);
	if (w->m.indirect && any(4))
		head = vring_driver_add_indirect(&w->d, r->bufs, n, memory + r->table, r->table, r);
	else
		head = vring_driver_add(&w->d, r->bufs, n, r);
	if (head == -ENOSPC)
		return false;
	CHECK(head >= 0 && head < w->m.num);
	r->busy = true;
	w->in_flight++;
	return true;
}

static void get_one(struct model *w)
{
	void *cookie;
	uint32_t len;

	CHECK(vring_driver_pending(&w->d));
	CHECK_EQ(vring_driver_get(&w->d, &cookie, &len), 1);
	struct request *r = cookie;

	CHECK(r->busy);
	CHECK_EQ(len, r->used);
	r->busy = false;
	w->in_flight--;
	w->done++;
}

static void turn(struct model *w)
{
	unsigned want = any(6), ready = 0, batch;
	bool staged = false, asked = any(2);

	if (asked)
		device_ask_kick(w);
	/* the wish of the device is where it will look next: the first thing published meets it, later ones
	 * do not */
	for (unsigned i = 0; i < want; i++)
		staged |= submit(w);
	if (staged && asked)
		CHECK_EQ(vring_driver_publish(&w->d), kick_due(w, true));
	else if (staged)
		vring_driver_publish(&w->d);
	CHECK(!vring_driver_publish(&w->d));
	device_take(w);
	CHECK_EQ(w->nheld, w->in_flight);

	CHECK_EQ(vring_driver_arm(&w->d), false);
	w->interrupt = false;
	while (w->nheld && any(4)) {
		batch = w->m.in_order ? 1 + any(w->nheld) : 1;
		device_use(w, w->m.in_order ? 0 : any(w->nheld), batch);
		ready += batch;
	}
	CHECK_EQ(w->interrupt, ready > 0);
	CHECK_EQ(vring_driver_pending(&w->d), ready > 0);
	CHECK_EQ(vring_driver_arm(&w->d), ready > 0);
	while (ready--)
		get_one(w);
	CHECK_EQ(vring_driver_get(&w->d, NULL, NULL), 0);
}

static void traffic(void *arg)
{
	const struct mode *m = arg;
	struct model *w = &model;

	setup(w, m);
	seed = m->num * 31u + m->base;
	while (w->done < 70000)
		turn(w);
	vring_driver_destroy(&w->d);
}

static void traffic_all(void)
{
	static const uint16_t sizes[] = {1, 2, 16, 256, 32768}, odd[] = {1, 3, 7, 100, 32767};

	for (unsigned bits = 0; bits < 16; bits++)
		for (unsigned i = 0; i < 5; i++) {
			struct mode m = {bits & 1, bits & 2, bits & 4, bits & 8, .num = sizes[i]};
			char name[128];

			if (m.packed)
				m.num = odd[i];
			/* start near the wrap of the index and of the ring */
			m.base = m.packed ? (uint16_t)(m.num - 1) | (uint16_t)((i & 1) << 15) : 65500;
			snprintf(name, sizeof(name), "traffic: %s%s%s%s, size %u",
				m.packed ? "packed" : "split", m.event_idx ? ", event-idx" : "",
				m.indirect ? ", indirect" : "", m.in_order ? ", in-order" : "", m.num);
			tap_case(name, traffic, &m);
		}
}

/* --- suppression --- */

static void add_one(struct model *w, unsigned n)
{
	static struct vring_driver_buf bufs[4];

	for (unsigned i = 0; i < n; i++)
		bufs[i] = (struct vring_driver_buf){0, 10, true};
	w->requests[0] = (struct request){.n = n, .used = 1, .writable = 10ull * n};
	memcpy(w->requests[0].bufs, bufs, sizeof(bufs[0]) * n);
	CHECK(vring_driver_add(&w->d, bufs, n, NULL) >= 0);
}

static void no_kicks(void *arg)
{
	struct model *w = &model;

	setup(w, arg);
	if (w->m.packed)
		((struct vring_packed_desc_event *)device_area())->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
	else if (w->m.event_idx)
		((struct vring_used *)device_area())->ring[w->m.num].id = (uint16_t)(w->m.base - 1);
	else
		((struct vring_used *)device_area())->flags = VRING_USED_F_NO_NOTIFY;
	add_one(w, 2);
	CHECK(!vring_driver_publish(&w->d));
	vring_driver_destroy(&w->d);
}

static void kick_at_third(void *arg)
{
	struct model *w = &model;

	setup(w, arg);
	if (w->m.packed) {
		struct vring_packed_desc_event *e = device_area();

		/* position base + 2, which is past the end of the ring: 1 in the next lap */
		e->off_wrap = 1 | (uint16_t)(!w->d.avail_wrap << 15);
		e->flags = VRING_PACKED_EVENT_FLAG_DESC;
	} else {
		((struct vring_used *)device_area())->ring[w->m.num].id = (uint16_t)(w->m.base + 2);
	}
	add_one(w, 1);
	add_one(w, 1);
	CHECK(!vring_driver_publish(&w->d));
	add_one(w, 1);
	CHECK(vring_driver_publish(&w->d));
	add_one(w, 1);
	CHECK(!vring_driver_publish(&w->d));
	vring_driver_destroy(&w->d);
}

static void interrupts(void *arg)
{
	struct model *w = &model;

	setup(w, arg);
	vring_driver_disarm(&w->d);
	for (int i = 0; i < 4; i++)
		add_one(w, 1);
	vring_driver_publish(&w->d);
	device_take(w);
	device_use(w, 0, 1);
	CHECK(!w->interrupt);
	CHECK(vring_driver_arm(&w->d));
	CHECK_EQ(vring_driver_get(&w->d, NULL, NULL), 1);
	if (w->m.event_idx) {
		CHECK(!vring_driver_arm_after(&w->d, 2));
		device_use(w, 0, 1);
		CHECK(!w->interrupt);
	}
	vring_driver_arm_after(&w->d, w->m.event_idx ? 2 : 1);
	device_use(w, 0, 1);
	CHECK(w->interrupt);
	vring_driver_destroy(&w->d);
}

/* --- a device that misbehaves --- */

static void use_raw(struct model *w, uint32_t id, uint32_t len, uint16_t advance)
{
	if (w->m.packed) {
		struct vring_packed_desc *p = (struct vring_packed_desc *)memory + w->used;

		p->id = (uint16_t)id;
		p->len = len;
		p->flags = w->used_wrap ? 0x8080 : 0;
	} else {
		struct vring_used *used = device_area();

		used->ring[w->used % w->m.num] = (struct vring_used_elem){id, len};
		used->idx = w->used + advance;
	}
}

static void refuses(struct model *w, uint32_t id, uint32_t len, uint16_t advance, const char *why)
{
	struct mode m = w->m;

	setup(w, &m);
	add_one(w, 2);
	vring_driver_publish(&w->d);
	device_take(w);
	use_raw(w, id == UINT32_MAX ? w->held[0].id : id, len, advance);
	CHECK_EQ(vring_driver_get(&w->d, NULL, NULL), -EPROTO);
	CHECK_STR(w->d.error, why);
	CHECK(vring_driver_pending(&w->d));
	CHECK_EQ(vring_driver_get(&w->d, NULL, NULL), -EPROTO);
	vring_driver_destroy(&w->d);
}

static void hostile(void *arg)
{
	struct model *w = &model;

	w->m = *(struct mode *)arg;
	refuses(w, w->m.num, 0, 1, "used id out of range");
	refuses(w, 65535, 0, 1, "used id out of range");
	refuses(w, w->m.num - 1, 0, 1, "used id is not outstanding");
	refuses(w, UINT32_MAX, 21, 1, "used length beyond the writable buffers");
	if (!w->m.packed)
		refuses(w, 0, 0, 2, "used index beyond what was made available");
}

static void limits(void *arg)
{
	struct vring_driver_mode split = {0}, packed = {.packed = true};
	struct vring_driver_buf b[5] = {{0}};
	struct vring_driver d = {0};

	(void)arg;
	CHECK_EQ(vring_driver_init(&d, &split, 0, 0, memory, driver_area(), device_area()), -EINVAL);
	CHECK_EQ(vring_driver_init(&d, &split, 3, 0, memory, driver_area(), device_area()), -EINVAL);
	CHECK_EQ(vring_driver_init(&d, &packed, 3, 0x8003, memory, driver_area(), device_area()), -EINVAL);
	CHECK_EQ(vring_driver_init(&d, &packed, 32769, 0, memory, driver_area(), device_area()), -EINVAL);
	CHECK_EQ(vring_driver_init(&d, &split, 4, 0, memory, driver_area(), device_area()), 0);
	CHECK_EQ(vring_driver_add(&d, b, 0, NULL), -EINVAL);
	CHECK_EQ(vring_driver_add(&d, b, 5, NULL), -EINVAL);
	CHECK(vring_driver_add(&d, b, 3, NULL) >= 0);
	CHECK_EQ(vring_driver_add(&d, b, 2, NULL), -ENOSPC);
	CHECK(vring_driver_add(&d, b, 1, NULL) >= 0);
	CHECK_EQ(vring_driver_add(&d, b, 1, NULL), -ENOSPC);
	CHECK_EQ(vring_driver_add_indirect(&d, b, 1, memory + TABLES, TABLES, NULL), -ENOSPC);
	vring_driver_destroy(&d);
	vring_driver_destroy(&d);
}

static void layouts(void *arg)
{
	struct vring_driver_layout l;

	(void)arg;
	vring_driver_layout(false, 256, &l);
	CHECK_EQ(l.desc, 4096);
	CHECK_EQ(l.driver, 6 + 2 * 256);
	CHECK_EQ(l.device, 6 + 8 * 256);
	vring_driver_layout(true, 100, &l);
	CHECK_EQ(l.desc, 1600);
	CHECK_EQ(l.driver, 4);
	CHECK_EQ(l.device, 4);
}

int main(void)
{
	static struct mode modes[] = {
		{.num = 8, .base = 65535},
		{.num = 8, .base = 65535, .event_idx = true},
		{.num = 8, .base = 7 | 0x8000, .packed = true},
		{.num = 8, .base = 7, .packed = true, .event_idx = true},
	};

	tap_case("sizes of the parts", layouts, NULL);
	tap_case("ring sizes, chains longer than the ring, no room", limits, NULL);
	for (unsigned i = 0; i < 4; i++) {
		tap_case("kicks are not wanted", no_kicks, &modes[i]);
		if (modes[i].event_idx)
			tap_case("a kick is wanted at the third request", kick_at_third, &modes[i]);
		tap_case("interrupts are off, on, delayed", interrupts, &modes[i]);
		tap_case("wrong used elements are refused", hostile, &modes[i]);
	}
	traffic_all();
	return tap_done();
}
