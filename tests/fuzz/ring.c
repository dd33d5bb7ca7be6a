/* SPDX-License-Identifier: MIT */
/*
 * Virtqueues fed by a hostile driver: the input is a program that writes descriptors, indices and arbitrary bytes into
 * guest memory, kicks, lets a device that does as the input says take, fill, give back and return buffers, changes the
 * memory map, the log and the addresses, and stops and starts the queue.
 *
 * Checked besides the sanitizers' rules: every byte that a device is handed is guest memory, the lengths agree, the
 * device never has more buffers than the ring has descriptors, and a queue whose buffers came back comes to rest.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "log.h"
#include "vring.h"

/* Guest memory: low and middle touch, high lies apart; all in one file. User addresses are USER further up. */
enum {
	LOW = 0,
	LOW_SIZE = 0x6000,
	MIDDLE = 0x6000,
	MIDDLE_SIZE = 0x2000,
	HIGH = 0x10000,
	HIGH_SIZE = 0x1000,
	MEMORY_SIZE = LOW_SIZE + MIDDLE_SIZE + HIGH_SIZE,
	USER = 0x700000,
	RING_DESC = 0, /* gpa of the parts of the ring */
	RING_AVAIL = 0x2000,
	RING_USED = 0x3000,
	TABLE = 0x4000, /* indirect tables */
	DATA = 0x4800,
	QUEUE_MAX = 256,
	INFLIGHT_SIZE = 8192,
	LOG_SIZE = 3, /* the last bits are missing on purpose */
	TURNS_MAX = 2000,
};

enum { /* first byte of an input */
	WITH_PACKED = 1,
	WITH_EVENT_IDX = 2,
	WITH_IN_ORDER = 4,
	WITH_LOG = 8,
	WITH_INFLIGHT = 16,
	WITH_POLLING = 32,
	WITH_KICK_FD = 64,
	WITH_BATCHES = 128, /* the device takes several at once */
};

enum {
	OP_WRITE,
	OP_DESC,
	OP_TABLE,
	OP_AVAIL,
	OP_KICK,
	OP_PUSH,
	OP_RESTART,
	OP_MEMORY,
	OP_LOG,
	OP_ADDRESS,
	OP_WAKE,
	OP_UNPOP,
	OP_POP,
	OPS
};

static struct {
	struct loop *loop;
	struct guestmem *full, *less;
	uint8_t *memory;
	struct dirtylog *log;
	uint8_t *inflight;
	struct backend backend;

	struct virtqueue *q;
	struct input in;
	struct {
		struct element *e;
		uint64_t age; /* pops before it */
	} held[QUEUE_MAX];    /* the oldest first */
	unsigned nheld;
	uint64_t pops, pushed; /* pushed: age of the youngest buffer that was pushed, plus one */
	int kick[2];	       /* pipe: the queue's end, ours */
	int call[2];	       /* pipe: ours, the queue's end */
	bool rested, batches;
	uint16_t avail_idx, packed_next;
	bool packed_wrap;
} f;

static void check_cursor(const struct cursor *c)
{
	struct iovec v[VRING_MAX_SEGS];
	unsigned n = cursor_iovec(c, SIZE_MAX, v, VRING_MAX_SEGS), whole;
	const struct iovec *w = cursor_whole(c, &whole);
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *end = (uint8_t *)v[i].iov_base + v[i].iov_len;
		uint64_t first, last;

		require(v[i].iov_len > 0, "segments have bytes");
		require(guestmem_reverse(f.full, v[i].iov_base, &first) &&
				guestmem_reverse(f.full, end - 1, &last) && last - first == v[i].iov_len - 1,
			"segments are guest memory");
		sum += v[i].iov_len;
	}
	require(sum == c->left, "the cursor's length is the sum of its segments");
	require(!w || whole == n, "whole and parts agree");
}

/* The device: gives back the i-th buffer it holds, after reading and writing a little. */
static void device_push(unsigned i)
{
	struct element *e = f.held[i].e;
	uint8_t buf[64], how = input_u8(&f.in);
	struct cursor head;

	f.pushed = MAX(f.pushed, f.held[i].age + 1);
	memmove(&f.held[i], &f.held[i + 1], (--f.nheld - i) * sizeof(f.held[0]));
	cursor_get(&e->rd, buf, how % sizeof(buf));
	if (how & 0x40 && cursor_split(&e->wr, MIN((size_t)how, e->wr.left), &head))
		cursor_put(&head, "head", 4);
	if (how & 0x80)
		cursor_zero(&e->wr, e->wr.left);
	else
		cursor_put(&e->wr, buf, how % sizeof(buf));
	virtqueue_push(e);
}

/* Buffers that the device takes with one call. */
static unsigned device_take(struct virtqueue *q, struct element **e)
{
	unsigned room = QUEUE_MAX - f.nheld, n;

	if (!room)
		return 0;
	if (!f.batches) {
		e[0] = virtqueue_pop(q);
		return e[0] ? 1 : 0;
	}
	n = 1 + input_u8(&f.in);
	return virtqueue_pop_many(q, e, MIN(n, room));
}

static void check_element(struct virtqueue *q, const struct element *e)
{
	check_cursor(&e->rd);
	check_cursor(&e->wr);
	require(e->queue == q && ((uint64_t *)e->req)[0] == 0 && ((uint64_t *)e->req)[2] == 0,
		"req is zeroed");
	memset(e->req, 0xff, 24);
	require(virtqueue_outstanding(q) <= q->num, "no more buffers than descriptors");
}

/* False: the device has no use for it, or for what comes after it. */
static bool device_keep(struct element *e, uint8_t how)
{
	if (how % 8 == 7)
		return false;
	f.held[f.nheld].age = f.pops++;
	f.held[f.nheld++].e = e;
	if (how % 8 < 4)
		device_push(f.nheld - 1);
	return how % 8 != 6;
}

static void device_ready(struct backend *b, struct virtqueue *q)
{
	struct element *e[QUEUE_MAX];
	unsigned i, n;

	require(b == &f.backend, "the backend is handed on");
	while ((n = device_take(q, e))) {
		for (i = 0; i < n; i++)
			check_element(q, e[i]);
		for (i = 0; i < n; i++) {
			uint8_t how = input_u8(&f.in);

			if (device_keep(e[i], how))
				continue;
			while (n > i + (how % 8 == 6))
				virtqueue_unpop(e[--n]);
			return;
		}
	}
}

static void device_unpop(unsigned i)
{
	struct element *e = f.held[i].e;

	memmove(&f.held[i], &f.held[i + 1], (--f.nheld - i) * sizeof(f.held[0]));
	virtqueue_unpop(e);
}

/* Returns buffers, any of them: those with younger ones pushed come back to the driver empty. */
static void device_stop(struct virtqueue *q)
{
	(void)q;
	while (f.nheld > 0) {
		uint8_t which = input_u8(&f.in);

		if (which % 2 == 0)
			return;
		device_unpop(which / 2u % f.nheld);
	}
}

/* Returns some of the youngest buffers in any order, as long as no younger one was pushed. */
static void device_change_mind(void)
{
	unsigned n = 1 + input_u8(&f.in) % 4, from = f.nheld > n ? f.nheld - n : 0;

	while (from < f.nheld && f.held[from].age < f.pushed)
		from++;
	while (from < f.nheld)
		device_unpop(from + input_u8(&f.in) % (f.nheld - from));
}

static int device_start(struct virtqueue *q)
{
	(void)q;
	return 0;
}

static const struct queue_spec spec = {.name = "fuzz", .ready = device_ready, .req_size = 24};

static void turn_ends(struct post *p)
{
	(void)p;
	loop_stop(f.loop);
}

/* One in which the loop goes to sleep, so that the pollers arm the rings. */
static void turn(void)
{
	static struct post post = {.run = turn_ends};

	loop_post(f.loop, &post);
	loop_run(f.loop);
}

static void queue_rests(struct virtqueue *q, void *arg)
{
	(void)q;
	(void)arg;
	f.rested = true;
}

static void queue_stop(void)
{
	bool discard;

	if (f.q->phase == VRING_RESTING)
		return;
	discard = input_u8(&f.in) % 4 == 3;
	f.rested = false;
	virtqueue_stop(f.q, discard, queue_rests, NULL);
	while (f.nheld > 0) {
		if (input_u8(&f.in) % 4 == 0)
			turn();
		device_push(input_u8(&f.in) % f.nheld);
	}
	for (unsigned i = 0; !f.rested; i++) {
		require(i < TURNS_MAX, "a queue comes to rest");
		turn();
	}
	require(f.q->phase == VRING_RESTING && virtqueue_outstanding(f.q) == 0,
		"a resting queue has nothing out");
}

static void queue_start(uint8_t with)
{
	void *area = with & WITH_INFLIGHT ? f.inflight : NULL;

	if (virtqueue_start(f.q, f.full, with & WITH_LOG ? f.log : NULL, area, (INFLIGHT_SIZE - 32) / 32) < 0)
		require(f.q->phase == VRING_RESTING, "a queue that did not start rests");
}

static uint8_t *at(uint64_t gpa)
{
	return gpa < HIGH ? f.memory + gpa % (LOW_SIZE + MIDDLE_SIZE)
			  : f.memory + LOW_SIZE + MIDDLE_SIZE + gpa % HIGH_SIZE;
}

/* Address of a buffer: mostly good, sometimes at a border, sometimes nonsense. */
static uint64_t pick_address(void)
{
	static const uint64_t borders[] = {LOW, MIDDLE - 8, MIDDLE - 1, MIDDLE + MIDDLE_SIZE - 8, HIGH,
		HIGH + HIGH_SIZE - 8, HIGH - 8, HIGH + HIGH_SIZE, UINT64_MAX - 7, UINT64_MAX, BIT(63), TABLE,
		RING_USED, RING_AVAIL};
	uint8_t kind = input_u8(&f.in);

	if (kind < 16)
		return borders[kind % ARRAY_SIZE(borders)];
	if (kind < 20)
		return input_u64(&f.in);
	return DATA + kind * 16;
}

static uint32_t pick_length(void)
{
	uint8_t kind = input_u8(&f.in);

	return kind < 4 ? input_u32(&f.in) : kind < 128 ? kind : kind * 64u;
}

/* Addr, len, flags and next (split) or id and flags (packed) into a descriptor at p. */
static void write_desc(uint8_t *p, bool packed, uint16_t flags)
{
	uint64_t addr = pick_address();
	uint32_t len = pick_length();
	uint16_t other = input_u8(&f.in);
	uint16_t pair[2] = {packed ? other : flags, packed ? flags : other};

	if (addr == TABLE && len < 128)
		len *= 16;
	memcpy(p, &addr, 8);
	memcpy(p + 8, &len, 4);
	memcpy(p + 12, pair, 4);
}

static void op_desc(void)
{
	uint8_t kind = input_u8(&f.in);
	unsigned i = input_u8(&f.in) % f.q->num;
	uint16_t flags = kind & 7;

	if (f.q->features & BIT(34)) {
		bool wrap = f.packed_wrap;

		if (!(kind & 0x80)) { /* in order, as a driver would */
			i = f.packed_next++;
			if (f.packed_next >= f.q->num) {
				f.packed_next = 0;
				f.packed_wrap = !wrap;
			}
		}
		if (kind & 0x40)
			wrap = !wrap;
		flags |= wrap ? 1u << 7 : 1u << 15;
		write_desc(f.memory + RING_DESC + 16 * i, true, flags);
	} else {
		write_desc(f.memory + RING_DESC + 16 * i, false, flags);
	}
}

static void op_table(void)
{
	uint16_t flags = input_u8(&f.in) & 7;
	unsigned i = input_u8(&f.in) % 64;

	write_desc(f.memory + TABLE + 16 * i, f.q->features & BIT(34), flags);
}

static void op_avail(void)
{
	uint8_t head = input_u8(&f.in), step = input_u8(&f.in);
	uint16_t value = step < 0xf0 ? head : (uint16_t)(head << 8 | step);

	memcpy(f.memory + RING_AVAIL + 4 + 2 * (f.avail_idx % f.q->num), &value, 2);
	f.avail_idx += step < 0x80 ? 1 : step < 0xf0 ? step % 4 : (uint16_t)(step << 8 | head);
	memcpy(f.memory + RING_AVAIL + 2, &f.avail_idx, 2);
}

static void op_write(void)
{
	uint16_t gpa = input_u16(&f.in);
	uint8_t n = input_u8(&f.in) % 32;
	uint8_t *p = at(gpa);
	size_t room = (size_t)(f.memory + MEMORY_SIZE - p);

	input_bytes(&f.in, p, MIN(n, room));
}

static void op_address(void)
{
	uint8_t which = input_u8(&f.in);
	uint64_t addr = which & 0x80 ? input_u64(&f.in) : USER + (input_u16(&f.in) & 0x7ff0u);

	struct ring_addr a = f.q->addr;

	if (which % 3 == 0)
		a.desc = addr;
	else if (which % 3 == 1)
		a.avail = addr;
	else
		a.used = addr;
	virtqueue_set_addr(f.q, &a);
}

static void run_op(uint8_t op, uint8_t with)
{
	uint64_t one = 1;

	switch (op % OPS) {
	case OP_WRITE:
		op_write();
		break;
	case OP_DESC:
		op_desc();
		break;
	case OP_TABLE:
		op_table();
		break;
	case OP_AVAIL:
		op_avail();
		break;
	case OP_KICK:
		if (f.q->phase != VRING_RUNNING)
			break;
		if (with & WITH_KICK_FD && write(f.kick[1], &one, sizeof(one)) < 0)
			break;
		if (!(with & WITH_KICK_FD))
			virtqueue_kick(f.q);
		turn();
		break;
	case OP_PUSH:
		if (f.nheld > 0)
			device_push(input_u8(&f.in) % f.nheld);
		break;
	case OP_RESTART:
		queue_stop();
		if (input_u8(&f.in) % 2)
			f.q->base = virtqueue_base(f.q);
		queue_start(with);
		break;
	case OP_MEMORY:
		if (f.q->phase == VRING_RUNNING)
			virtqueue_set_memory(f.q, input_u8(&f.in) % 2 ? f.full : f.less);
		break;
	case OP_LOG:
		if (f.q->phase == VRING_RUNNING)
			virtqueue_set_log(f.q, input_u8(&f.in) % 2 ? f.log : NULL, input_u8(&f.in) % 2);
		break;
	case OP_ADDRESS:
		op_address();
		break;
	case OP_UNPOP:
		if (f.q->phase == VRING_RUNNING)
			device_change_mind();
		break;
	case OP_POP: /* on its own account */
		if (f.q->phase == VRING_RUNNING)
			device_ready(&f.backend, f.q);
		break;
	default:
		virtqueue_wake(f.q);
		turn();
		break;
	}
}

static struct guestmem *add_region(
	struct guestmem *old, int file, uint64_t gpa, uint64_t size, uint64_t offset)
{
	struct guestmem_spec region = {.gpa = gpa, .size = size, .uaddr = USER + gpa, .offset = offset};
	struct guestmem *m = NULL;
	int fd = dup(file);

	require(guestmem_add(old, &region, &fd, PROT_READ | PROT_WRITE, &m) == 0, "a region can be added");
	guestmem_unref(old);
	return m;
}

static void setup(void)
{
	static const struct device dev = {.name = "fuzz"};
	int file = memfd_create("guest", MFD_CLOEXEC), log = memfd_create("log", MFD_CLOEXEC);

	log_set_level(LOG_LEVEL_ERROR);
	require(loop_new(&f.loop, "fuzz") == 0, "a loop");
	require(ftruncate(file, MEMORY_SIZE) == 0 && ftruncate(log, LOG_SIZE) == 0, "files");
	f.less = add_region(guestmem_new(), file, LOW, LOW_SIZE, 0);
	f.full = add_region(guestmem_ref(f.less), file, MIDDLE, MIDDLE_SIZE, LOW_SIZE);
	f.full = add_region(f.full, file, HIGH, HIGH_SIZE, LOW_SIZE + MIDDLE_SIZE);
	f.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	require(f.memory != MAP_FAILED, "our view of guest memory");
	require(dirtylog_new(&f.log, &log, LOG_SIZE, 0) == 0, "a log");
	f.inflight = malloc(INFLIGHT_SIZE);
	f.backend = (struct backend){.dev = &dev, .loop = f.loop};
	close(file);
}

/* The front-end's part: what SET_VRING_NUM, _BASE, _ADDR and the features say. */
static void queue_configure(struct virtqueue *q, uint8_t with)
{
	uint32_t num = 1 + input_u8(&f.in), base = input_u32(&f.in);

	q->features = BIT(32) | (with & WITH_PACKED ? BIT(34) : 0) | (with & WITH_EVENT_IDX ? BIT(29) : 0) |
		      (with & WITH_IN_ORDER ? BIT(35) : 0) | (with & WITH_LOG ? BIT(26) : 0);
	while (!(with & WITH_PACKED) && num & (num - 1))
		num &= num - 1;
	q->num = num;
	q->base = with & WITH_PACKED ? base : (uint16_t)base;
	q->addr = (struct ring_addr){
		USER + RING_DESC, USER + RING_AVAIL, USER + RING_USED, RING_USED, with & WITH_LOG};
	q->has_addr = true;
	q->polled = with & WITH_POLLING;
	q->on_start = device_start;
	q->on_stop = device_stop;
	f.avail_idx = (uint16_t)q->base;
	f.packed_next = (uint16_t)(q->base & 0x7fff);
	f.packed_next = (uint16_t)(f.packed_next % num);
	f.packed_wrap = q->base & 0x8000;
	memcpy(f.memory + RING_AVAIL + 2, &f.avail_idx, 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t with;

	if (!f.loop)
		setup();
	f.in = (struct input){.p = data, .end = data + size};
	f.nheld = 0;
	f.pops = f.pushed = 0;
	memset(f.memory, 0, MEMORY_SIZE);
	memset(f.inflight, 0, INFLIGHT_SIZE);
	with = input_u8(&f.in);
	f.batches = with & WITH_BATCHES;
	if (with & WITH_INFLIGHT)
		input_bytes(&f.in, f.inflight, input_u16(&f.in) % INFLIGHT_SIZE);
	require(virtqueue_new(&f.q, &f.backend, &spec, 0, 16, f.loop, f.loop) == 0, "a queue");
	queue_configure(f.q, with);
	if (with & WITH_KICK_FD) {
		require(pipe2(f.kick, O_NONBLOCK) == 0 && pipe2(f.call, O_NONBLOCK) == 0, "pipes");
		virtqueue_set_kick(f.q, &f.kick[0], with & WITH_POLLING);
		virtqueue_set_call(f.q, &f.call[1]);
	}
	queue_start(with);
	while (input_left(&f.in) > 0)
		run_op(input_u8(&f.in), with);
	queue_stop();
	virtqueue_free(f.q);
	turn();
	if (with & WITH_KICK_FD) {
		close(f.kick[1]);
		close(f.call[0]);
	}
	return 0;
}

/* Seeds */

enum { GOOD = 64, LEN = 100 }; /* bytes of pick_address() and pick_length() */

static void seed_begin(struct seed *s, uint8_t with, uint8_t num)
{
	s->n = 0;
	seed_u8(s, with);
	if (with & WITH_INFLIGHT)
		seed_u16(s, 0);
	seed_u8(s, (uint8_t)(num - 1));
	seed_u32(s, with & WITH_PACKED ? 0x80008000 : 0);
}

static void seed_desc(struct seed *s, uint8_t index, uint8_t flags, uint8_t addr, uint8_t next_or_id)
{
	seed_u8(s, OP_DESC);
	seed_u8(s, flags);
	seed_u8(s, index);
	seed_u8(s, addr);
	seed_u8(s, addr == 11 ? 3 + 4 : LEN); /* a table of seven descriptors */
	seed_u8(s, next_or_id);
}

static void seed_table(struct seed *s, uint8_t index, uint8_t flags, uint8_t addr, uint8_t next)
{
	seed_u8(s, OP_TABLE);
	seed_u8(s, flags);
	seed_u8(s, index);
	seed_u8(s, addr);
	seed_u8(s, LEN);
	seed_u8(s, next);
}

static void seed_kick(struct seed *s, unsigned buffers, uint8_t how)
{
	seed_u8(s, OP_KICK);
	for (unsigned i = 0; i < buffers; i++) {
		seed_u8(s, how);
		if (how % 8 < 4)
			seed_u8(s, 20); /* of device_push() */
	}
}

/* A chain of three, a single buffer and an indirect one; all are held, then pushed. */
static void seed_traffic(struct seed *s, uint8_t with)
{
	bool packed = with & WITH_PACKED;

	seed_desc(s, 0, 1, GOOD, packed ? 5 : 1);
	seed_desc(s, 1, 1 | 2, GOOD + 10, packed ? 5 : 2);
	seed_desc(s, 2, 2, 2, packed ? 5 : 0); /* across two regions */
	seed_desc(s, 3, 2, GOOD + 20, packed ? 6 : 0);
	for (uint8_t i = 0; i < 7; i++)
		seed_table(s, i, (uint8_t)((i < 6 && !packed ? 1 : 0) | (i > 2 ? 2 : 0)), (uint8_t)(GOOD + i),
			i + 1);
	seed_desc(s, 4, 4, 11, packed ? 7 : 0);
	for (uint8_t head = 0; !packed && head < 5; head++) {
		if (head == 1 || head == 2)
			continue;
		seed_u8(s, OP_AVAIL);
		seed_u8(s, head);
		seed_u8(s, 0);
	}
	seed_kick(s, 3, 4);
	for (uint8_t i = 0; i < 3; i++) {
		seed_u8(s, OP_PUSH);
		seed_u8(s, 1);
		seed_u8(s, i ? 0x50 : 0x80);
	}
	seed_u8(s, OP_WAKE);
}

static void seed_single(struct seed *s, uint8_t with, uint8_t index)
{
	seed_desc(s, index, 2, GOOD + index, index);
	if (with & WITH_PACKED)
		return;
	seed_u8(s, OP_AVAIL);
	seed_u8(s, index);
	seed_u8(s, 0);
}

/* The younger of two buffers is pushed, the older one is out, and the ring's memory goes. */
static void seed_lost_ring(struct seed *s, uint8_t with)
{
	seed_begin(s, with, 16);
	seed_single(s, with, 0);
	seed_single(s, with, 1);
	seed_kick(s, 2, 4);
	seed_put(s, "\5\1\2", 3);      /* OP_PUSH, the second, two bytes */
	seed_put(s, "\x9\2\0\x60", 4); /* OP_ADDRESS, used ring in the middle region */
	seed_put(s, "\7\0", 2);	       /* OP_MEMORY, without it */
}

/* A buffer is in flight when the queue ends, comes again, and is unpopped twice before it is taken. */
static void seed_resubmit(struct seed *s, uint8_t with)
{
	seed_begin(s, with | WITH_INFLIGHT, 16);
	seed_single(s, with, 0);
	seed_kick(s, 1, 4);
	seed_u8(s, OP_RESTART);
	seed_put(s, "\3\0\1\0\2\1", 6); /* discard; no unpop, no turn, push it; base */
	seed_u8(s, OP_KICK);
	seed_put(s, "\7\x0a\7\x0a\4", 5); /* unpop, OP_WAKE, unpop, OP_WAKE, hold */
}

/* The area that a killed process left: two buffers in flight, maybe in the middle of giving one back. */
static void seed_killed_split(struct seed *s, bool publishing)
{
	seed_u8(s, WITH_INFLIGHT);
	seed_u16(s, 16 + 16 * 16);
	seed_u64(s, 0);
	seed_u16(s, 1);
	seed_u16(s, 16);
	seed_u16(s, 3); /* last batch head */
	seed_u16(s, publishing ? UINT16_MAX : 0);
	for (unsigned i = 0; i < 16; i++) {
		seed_u64(s, i == 3 || i == 5); /* in flight */
		seed_u64(s, i);		       /* counter */
	}
	seed_u8(s, 15);
	seed_u32(s, 2); /* what the driver has made available */
}

static void seed_killed_packed(struct seed *s, bool publishing)
{
	seed_u8(s, WITH_PACKED | WITH_INFLIGHT);
	seed_u16(s, 32 + 16 * 32);
	seed_u64(s, 0);
	seed_u16(s, 1);
	seed_u16(s, 16);
	seed_u16(s, 2); /* free head, old free head */
	seed_u16(s, 2);
	seed_u16(s, publishing ? 1 : 0); /* used index, old one */
	seed_u16(s, 0);
	seed_u16(s, 0x0101); /* their wrap counters */
	seed_u16(s, 0);
	seed_u64(s, 0);
	for (unsigned i = 0; i < 16; i++) {
		seed_u16(s, i < 2);		/* in flight */
		seed_u16(s, (uint16_t)(i + 1)); /* next */
		seed_u16(s, (uint16_t)i);	/* last */
		seed_u16(s, 1);			/* num */
		seed_u64(s, i);			/* counter */
		seed_u16(s, (uint16_t)i);	/* id */
		seed_u16(s, 2);			/* flags: writable */
		seed_u32(s, 100);
		seed_u64(s, DATA);
	}
	seed_u8(s, 15);
	seed_u32(s, 0x80008000);
}

static void seed_changes(struct seed *s)
{
	static const uint8_t ops[] = {
		OP_LOG, 1, 1, OP_MEMORY, 0, OP_MEMORY, 1, OP_ADDRESS, 2, 0, 0x30, OP_WRITE, 0, 0x20, 2, 1, 0};

	seed_put(s, ops, sizeof(ops));
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const struct {
		const char *name;
		uint8_t with, num;
	} kinds[] = {
		{"split", 0, 16},
		{"split-event", WITH_EVENT_IDX | WITH_KICK_FD, 8},
		{"split-in-order", WITH_IN_ORDER, 8},
		{"split-log", WITH_LOG, 256 - 128},
		{"split-inflight", WITH_INFLIGHT, 16},
		{"split-polling", WITH_POLLING, 16},
		{"packed", WITH_PACKED, 16},
		{"packed-odd", WITH_PACKED | WITH_EVENT_IDX | WITH_KICK_FD, 5},
		{"packed-in-order", WITH_PACKED | WITH_IN_ORDER, 8},
		{"packed-log", WITH_PACKED | WITH_LOG, 16},
		{"packed-inflight", WITH_PACKED | WITH_INFLIGHT, 16},
		{"split-batches", WITH_BATCHES, 16},
		{"packed-batches", WITH_PACKED | WITH_BATCHES, 16},
		{"packed-all", 0x7f, 16},
	};
	static struct seed s;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		seed_begin(&s, kinds[i].with, kinds[i].num);
		seed_traffic(&s, kinds[i].with);
		seed_changes(&s);
		seed_traffic(&s, kinds[i].with);
		seed_u8(&s, OP_RESTART);
		seed_put(&s, "\0\1", 2);
		seed_traffic(&s, kinds[i].with);
		emit(kinds[i].name, s.bytes, s.n);
	}
	seed_lost_ring(&s, WITH_IN_ORDER);
	emit("split-lost-ring", s.bytes, s.n);
	seed_lost_ring(&s, WITH_PACKED | WITH_IN_ORDER);
	emit("packed-lost-ring", s.bytes, s.n);
	seed_resubmit(&s, 0);
	emit("split-resubmit", s.bytes, s.n);
	seed_resubmit(&s, WITH_PACKED);
	emit("packed-resubmit", s.bytes, s.n);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const names[] = {"split-killed", "split-killed-publishing",
			"packed-killed", "packed-killed-publishing"};

		s.n = 0;
		if (i < 2)
			seed_killed_split(&s, i % 2);
		else
			seed_killed_packed(&s, i % 2);
		seed_kick(&s, 2, 0);
		seed_traffic(&s, i < 2 ? 0 : WITH_PACKED);
		emit(names[i], s.bytes, s.n);
	}
}
