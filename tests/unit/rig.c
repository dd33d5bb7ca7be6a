/* SPDX-License-Identifier: MIT */
#include "rig.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static uint64_t random_state = 1;

void rig_seed(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15u + 1;
}

uint32_t rig_random(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % limit);
}

/* The loop */

/* What the loop's handlers do shows in one of these. */
static uint64_t activity(const struct rig *r)
{
	const struct virtqueue_stats *t = &r->q->stats;

	return r->calls + r->rested + t->kicks + t->popped + t->pushed + t->calls;
}

static bool no_work(struct poller *p)
{
	(void)p;
	return false;
}

/* The loop would sleep. It looks at its descriptors instead, and when there was nothing twice it really is asleep. */
static bool about_to_sleep(struct poller *p)
{
	struct rig *r = container_of(p, struct rig, sleeper);
	uint64_t now = activity(r);

	r->calm = now == r->activity ? r->calm + 1 : 0;
	r->activity = now;
	if (r->calm == 2)
		loop_stop(r->loop);
	return true;
}

void rig_turn(struct rig *r)
{
	r->calm = 0;
	loop_run(r->loop);
}

uint64_t rig_signals(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		CHECK_EQ(errno, EAGAIN);
	return n;
}

/* Set-up */

static void ready(struct backend *b, struct virtqueue *q)
{
	struct rig *r = b->state;

	CHECK(q == r->q);
	r->calls++;
	if (r->device)
		r->device(r);
}

static int on_start(struct virtqueue *q)
{
	struct rig *r = virtqueue_backend(q)->state;

	r->started++;
	return 0;
}

static void on_stop(struct virtqueue *q)
{
	struct rig *r = virtqueue_backend(q)->state;

	r->stopped++;
}

/* The ring at the start of ram, the in-flight area behind it, then the requests' chunks. */
static void place(struct rig *r)
{
	struct vring_driver_layout l;
	size_t at = 0;

	vring_driver_layout(r->mode.packed, r->mode.num, &l);
	r->addr[0] = at;
	at = ALIGN_UP(at + l.desc, 64);
	r->addr[1] = at;
	at = ALIGN_UP(at + l.driver, 64);
	r->addr[2] = at;
	at = ALIGN_UP(at + l.device, 64);
	r->area = at;
	if (r->mode.tracked)
		at = ALIGN_UP(at + 32 + 32 * (size_t)r->mode.num, 64);
	r->ring_end = at;
	r->piece = ALIGN_UP((at + (size_t)r->mode.num * r->mode.chunk) / r->mode.pieces + 1, (size_t)PAGE);
	r->ram_size = r->piece * r->mode.pieces;
}

static void map_memory(struct rig *r)
{
	unsigned i;

	r->mem = guestmem_new();
	for (i = 0; i < r->mode.pieces; i++) {
		struct guestmem_spec spec = {.gpa = RIG_GPA + i * r->piece,
			.uaddr = RIG_UADDR + i * r->piece,
			.offset = i * r->piece,
			.size = r->piece};
		struct guestmem *next = NULL;
		int fd = fcntl(r->file, F_DUPFD_CLOEXEC, 0);

		CHECK_EQ(guestmem_add(r->mem, &spec, &fd, PROT_READ | PROT_WRITE, &next), 0);
		guestmem_unref(r->mem);
		r->mem = next;
	}
}

void rig_queue_make(struct rig *r)
{
	struct virtqueue *q;
	int fd;

	r->spec = (struct queue_spec){.name = "test", .ready = ready, .req_size = r->mode.req_size};
	CHECK_EQ(virtqueue_new(&r->q, &r->b, &r->spec, 0, 8, r->loop, r->loop), 0);
	q = r->q;
	q->on_start = on_start;
	q->on_stop = on_stop;
	q->num = r->mode.num;
	q->base = r->mode.base;
	q->features = r->mode.features | (r->mode.packed ? BIT(FEATURE_RING_PACKED) : 0) |
		      (r->mode.event_idx ? BIT(FEATURE_EVENT_IDX) : 0) |
		      (r->mode.in_order ? BIT(FEATURE_IN_ORDER) : 0);
	q->addr = (struct ring_addr){.desc = RIG_UADDR + r->addr[0],
		.avail = RIG_UADDR + r->addr[1],
		.used = RIG_UADDR + r->addr[2],
		.log = RIG_GPA + r->addr[2],
		.log_used = true};
	fd = r->mode.no_kick ? -1 : dup(r->kick);
	CHECK_EQ(virtqueue_set_kick(q, &fd, false), 0);
	fd = dup(r->call);
	virtqueue_set_call(q, &fd);
	fd = dup(r->err);
	virtqueue_set_err(q, &fd);
}

void rig_prepare(struct rig *r, const struct rig_mode *mode)
{
	struct vring_driver_mode dm = {
		.packed = mode->packed, .event_idx = mode->event_idx, .in_order = mode->in_order};

	memset(r, 0, sizeof(*r));
	r->mode = *mode;
	r->mode.chunk = MAX(mode->chunk, 256u);
	r->mode.pieces = MAX(mode->pieces, 1u);
	if (mode->packed && !mode->base)
		r->mode.base = 0x80008000;
	r->b.state = r;
	r->sleeper.poll = no_work;
	r->sleeper.rest = about_to_sleep;
	CHECK_EQ(loop_new(&r->loop, "test"), 0);
	loop_poller_add(r->loop, &r->sleeper);
	place(r);
	CHECK_SYS(r->file = memfd_create("guest", MFD_CLOEXEC));
	CHECK_SYS(ftruncate(r->file, (off_t)r->ram_size));
	r->ram = mmap(NULL, r->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, 0);
	CHECK(r->ram != MAP_FAILED);
	map_memory(r);
	CHECK_SYS(r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	CHECK_SYS(r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	CHECK_SYS(r->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	CHECK_EQ(vring_driver_init(&r->d, &dm, mode->num, (uint16_t)r->mode.base, r->ram + r->addr[0],
			 r->ram + r->addr[1], r->ram + r->addr[2]),
		0);
	r->req = calloc(mode->num, sizeof(*r->req));
	r->held = calloc(mode->num + 1u, sizeof(*r->held)); /* one more, for the NULL of a pop */
	CHECK(r->req && r->held);
	rig_queue_make(r);
}

int rig_start(struct rig *r)
{
	return virtqueue_start(r->q, r->mem, r->log, r->mode.tracked ? r->ram + r->area : NULL, r->mode.num);
}

void rig_open(struct rig *r, const struct rig_mode *mode)
{
	rig_prepare(r, mode);
	CHECK_EQ(rig_start(r), 0);
}

static void rested(struct virtqueue *q, void *arg)
{
	struct rig *r = arg;

	CHECK_EQ(q->phase, VRING_RESTING);
	r->rested++;
}

void rig_stop(struct rig *r, bool discard)
{
	virtqueue_stop(r->q, discard, rested, r);
}

void rig_close(struct rig *r)
{
	if (r->q->phase != VRING_RESTING) {
		unsigned before = r->rested;

		rig_stop(r, true);
		while (r->nheld)
			virtqueue_push(r->held[--r->nheld]);
		rig_turn(r);
		CHECK_EQ(r->rested, before + 1);
	}
	virtqueue_free(r->q);
	guestmem_unref(r->mem);
	dirtylog_unref(r->log);
	loop_poller_del(r->loop, &r->sleeper);
	loop_free(r->loop);
	vring_driver_destroy(&r->d);
	munmap(r->ram, r->ram_size);
	close(r->file);
	close(r->kick);
	close(r->call);
	close(r->err);
	free(r->req);
	free(r->held);
}

/* Driver */

static uint8_t question(uint32_t tag, uint32_t i)
{
	return (uint8_t)(tag * 5 + i * 3 + 1);
}

static uint8_t answer(uint32_t tag, uint32_t i)
{
	return (uint8_t)(tag * 11 + i * 7 + 2);
}

static uint64_t chunk(const struct rig *r, unsigned i)
{
	return RIG_GPA + r->ring_end + (uint64_t)i * r->mode.chunk;
}

/* n pieces of unlike sizes that are `total` bytes from gpa on. */
static void cut(struct vring_driver_buf *out, uint64_t gpa, uint32_t total, unsigned n, bool wr)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		uint32_t left = n - i, len = left == 1 ? total : rig_random(total / left * 2 + 1);

		out[i] = (struct vring_driver_buf){.addr = gpa, .len = len, .wr = wr};
		gpa += len;
		total -= len;
	}
}

static unsigned free_request(struct rig *r)
{
	unsigned i, at = r->next_tag % r->mode.num;

	for (i = 0; i < r->mode.num; i++)
		if (!r->req[(at + i) % r->mode.num].busy)
			return (at + i) % r->mode.num;
	FAIL("no free request");
}

static void fill(struct rig *r, unsigned i, struct rig_request q)
{
	struct rig_header h = {.tag = q.tag, .answer = q.answer};
	uint8_t *p = rig_ram(r, chunk(r, i));
	uint32_t k;

	memcpy(p, &h, sizeof(h));
	for (k = RIG_HEADER; k < q.rd; k++)
		p[k] = question(q.tag, k);
	memset(p + q.rd, 0xee, q.wr);
	r->req[i] = q;
}

static int add(struct rig *r, struct rig_request q, unsigned nrd, unsigned nwr, bool indirect)
{
	struct vring_driver_buf *bufs;
	uint64_t table;
	unsigned i;
	int err;

	if (r->d.nfree < (indirect ? 1 : nrd + nwr))
		return -ENOSPC;
	bufs = calloc(nrd + nwr, sizeof(*bufs));
	i = free_request(r);
	table = chunk(r, i) + ALIGN_UP(q.rd + q.wr, 16u);
	CHECK(bufs && q.rd >= RIG_HEADER && q.rd + q.wr <= r->mode.chunk);
	cut(bufs, chunk(r, i), q.rd, nrd, false);
	cut(bufs + nrd, chunk(r, i) + q.rd, q.wr, nwr, true);
	q.tag = r->next_tag;
	q.busy = true;
	if (indirect) {
		CHECK(table + 16 * (nrd + nwr) <= chunk(r, i) + r->mode.chunk);
		err = vring_driver_add_indirect(
			&r->d, bufs, nrd + nwr, rig_ram(r, table), table, (void *)(uintptr_t)(i + 1));
	} else {
		err = vring_driver_add(&r->d, bufs, nrd + nwr, (void *)(uintptr_t)(i + 1));
	}
	free(bufs);
	if (err < 0)
		return err;
	fill(r, i, q);
	r->next_tag++;
	r->submitted++;
	return 0;
}

int rig_add(struct rig *r, uint32_t rd, unsigned nrd, uint32_t wr, unsigned nwr, uint32_t n)
{
	return add(r, (struct rig_request){.rd = rd, .wr = wr, .answer = n}, nrd, nwr, false);
}

int rig_add_indirect(struct rig *r, uint32_t rd, unsigned nrd, uint32_t wr, unsigned nwr, uint32_t n)
{
	return add(r, (struct rig_request){.rd = rd, .wr = wr, .answer = n}, nrd, nwr, true);
}

uint32_t rig_add_small(struct rig *r)
{
	uint32_t tag = r->next_tag;

	/* one descriptor, so that rings of one have room: nothing to write */
	CHECK_EQ(rig_add(r, RIG_HEADER, 1, 0, 0, 0), 0);
	return tag;
}

bool rig_publish(struct rig *r)
{
	uint64_t one = 1;
	bool kick = vring_driver_publish(&r->d);

	if (kick)
		CHECK_EQ(write(r->kick, &one, sizeof(one)), sizeof(one));
	return kick;
}

unsigned rig_index(const struct rig *r, uint32_t tag)
{
	unsigned i;

	for (i = 0; i < r->mode.num; i++)
		if (r->req[i].busy && r->req[i].tag == tag)
			return i;
	FAIL("request %u is not at the device", tag);
}

static void check_answer(const struct rig *r, unsigned i, uint32_t len)
{
	const struct rig_request *q = &r->req[i];
	const uint8_t *p = rig_ram(r, chunk(r, i));
	uint32_t k;

	CHECK(q->busy);
	CHECK_EQ(len, q->answer);
	for (k = 0; k < q->wr; k++)
		if (p[q->rd + k] != (k < q->answer ? answer(q->tag, k) : 0xee))
			FAIL("request %u: byte %u of %u in the answer is 0x%02x", q->tag, k, q->answer,
				p[q->rd + k]);
}

unsigned rig_collect(struct rig *r, uint32_t *tags, unsigned max)
{
	unsigned n = 0;

	while (n < max) {
		void *cookie;
		uint32_t len;
		int got = vring_driver_get(&r->d, &cookie, &len);
		unsigned i;

		if (got < 0)
			FAIL("the driver: %s", r->d.error);
		if (!got)
			break;
		i = (unsigned)(uintptr_t)cookie - 1;
		check_answer(r, i, len);
		if (tags)
			tags[n] = r->req[i].tag;
		r->req[i].busy = false;
		r->completed++;
		n++;
	}
	return n;
}

/* Device */

uint32_t rig_tag(const struct element *e)
{
	struct cursor c = e->rd;
	struct rig_header h;

	CHECK(cursor_get(&c, &h, sizeof(h)));
	return h.tag;
}

void rig_answer(struct element *e)
{
	struct rig_header h;
	uint32_t i;

	CHECK(!e->fault);
	CHECK(cursor_get(&e->rd, &h, sizeof(h)));
	for (i = RIG_HEADER; e->rd.left; i++) {
		uint8_t byte;

		CHECK(cursor_get(&e->rd, &byte, 1));
		CHECK_EQ(byte, question(h.tag, i));
	}
	for (i = 0; i < h.answer; i++) {
		uint8_t byte = answer(h.tag, i);

		CHECK(cursor_put(&e->wr, &byte, 1));
	}
}

struct element *rig_pop(struct rig *r)
{
	struct element *e = virtqueue_pop(r->q);

	if (e)
		CHECK(e->queue == r->q && !e->rd.done && !e->wr.done);
	return e;
}

struct element *rig_take(struct rig *r)
{
	struct element *e = rig_pop(r);

	if (!e && !r->q->broken) { /* the budget may be spent */
		rig_turn(r);
		e = rig_pop(r);
	}
	CHECK(e);
	return e;
}

void rig_echo(struct rig *r)
{
	struct element *e;

	while ((e = rig_pop(r))) {
		rig_answer(e);
		virtqueue_push(e);
	}
}

void rig_hold(struct rig *r)
{
	struct element *e;

	while ((e = rig_pop(r)))
		r->held[r->nheld++] = e;
}

/* Traffic */

struct sim {
	struct rig *r;
	unsigned left, chains;
	bool asleep; /* the driver */
};

static unsigned sim_add(struct sim *s)
{
	struct rig *r = s->r;
	unsigned n = 1 + rig_random(rig_random(4) ? 4 : r->mode.num), i;

	for (i = 0; i < n && s->left; i++, s->left--) {
		unsigned descs = 1 + rig_random(s->chains);
		uint32_t rd = RIG_HEADER + rig_random(20), wr = descs > 1 ? rig_random(60) : 0;
		unsigned nrd = 1 + (descs > 1 ? rig_random(descs - 1) : 0);
		bool indirect = descs > 1 && rig_random(3) == 0;
		int err = indirect ? rig_add_indirect(r, rd, nrd, wr, descs - nrd, wr / 2)
				   : rig_add(r, rd, nrd, wr, descs - nrd, rig_random(wr + 1));

		if (err)
			break;
	}
	rig_publish(r);
	return i;
}

/* The driver looks at what was used, as long as there is something, and goes to sleep. */
static unsigned sim_collect(struct sim *s)
{
	struct rig *r = s->r;
	unsigned n = 0;
	bool again;

	if (s->asleep) {
		uint64_t calls = rig_signals(r->call);

		if (!calls)
			return 0;
		if (r->mode.event_idx)
			CHECK_EQ(calls, 1);
	}
	s->asleep = false;
	if (rig_random(2))
		vring_driver_disarm(&r->d);
	do {
		n += rig_collect(r, NULL, UINT32_MAX);
		if (rig_random(8) == 0) /* stays awake */
			return n + 1;
		rig_signals(r->call); /* of what it was awake for */
		again = r->mode.event_idx && r->d.nbusy && rig_random(2)
				? vring_driver_arm_after(&r->d, (uint16_t)(1 + rig_random(r->d.nbusy)))
				: vring_driver_arm(&r->d);
	} while (again);
	s->asleep = true;
	return n;
}

static unsigned sim_give_back(struct rig *r)
{
	unsigned n = r->nheld ? 1 + rig_random(r->nheld) : 0, i;

	for (i = 0; i < n; i++) {
		unsigned at = rig_random(r->nheld);

		rig_answer(r->held[at]);
		virtqueue_push(r->held[at]);
		r->held[at] = r->held[--r->nheld];
	}
	return n;
}

void rig_traffic(struct rig *r, unsigned total, unsigned chains, bool hold)
{
	struct sim s = {.r = r, .left = total, .chains = MIN(chains, r->mode.num)};
	unsigned stuck = 0;

	r->device = hold ? rig_hold : rig_echo;
	virtqueue_wake(r->q);
	rig_turn(r);
	while (s.left || r->completed != r->submitted) {
		uint64_t before = r->q->stats.popped;
		unsigned did = rig_random(3) || !r->d.nbusy ? sim_add(&s) : 0;

		rig_turn(r);
		did += rig_random(3) ? sim_give_back(r) : 0;
		rig_turn(r);
		did += sim_collect(&s);
		stuck = did || r->q->stats.popped != before ? 0 : stuck + 1;
		if (stuck > 100)
			FAIL("a signal was lost: %u at the device, %u not taken, the driver %s", r->nheld,
				r->d.nbusy - r->nheld, s.asleep ? "sleeps" : "is awake");
	}
	r->device = NULL;
}
