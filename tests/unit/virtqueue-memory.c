/* SPDX-License-Identifier: MIT */
/* Memory that changes under a queue, and the log of what was written to it. */
#include "rig.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static void note_release(void *arg)
{
	++*(int *)arg;
}

static struct guestmem *map_of(const struct rig *r, uint64_t size)
{
	struct guestmem_spec spec = {.gpa = RIG_GPA, .uaddr = RIG_UADDR, .size = size};
	struct guestmem *empty = guestmem_new(), *out = NULL;
	int fd = fcntl(r->file, F_DUPFD_CLOEXEC, 0);

	CHECK_EQ(guestmem_add(empty, &spec, &fd, PROT_READ | PROT_WRITE, &out), 0);
	guestmem_unref(empty);
	return out;
}

/* Gives the queue a map of its own; *released counts when the old one goes. */
static void new_map(struct rig *r, uint64_t size, int *released)
{
	struct guestmem *m = map_of(r, size);

	virtqueue_set_memory(r->q, m);
	guestmem_on_release(r->mem, note_release, released);
	guestmem_unref(r->mem);
	r->mem = m;
}

static void memory_changes(const struct rig_mode *m)
{
	int released[4] = {0};
	struct rig r;
	unsigned i;

	rig_open(&r, m);
	for (i = 0; i < 3; i++) { /* three maps, two elements on each */
		rig_add_many(&r, 2);
		rig_publish(&r);
		rig_turn(&r);
		rig_take_many(&r, 2);
		new_map(&r, r.ram_size, &released[i]);
		CHECK_EQ(released[i], 0);
	}
	new_map(&r, r.ram_size, &released[3]);
	CHECK_EQ(released[3], 1); /* nobody used it */
	rig_add_many(&r, 2);
	rig_publish(&r);
	rig_turn(&r);
	rig_take_many(&r, 2);
	for (i = 0; i < 8; i++) /* old and new addresses are good */
		rig_answer(r.held[i]);
	virtqueue_push(r.held[2]);
	virtqueue_push(r.held[7]);
	rig_turn(&r);
	CHECK_EQ(released[0] + released[1] + released[2], 0);
	virtqueue_push(r.held[3]);
	rig_turn(&r);
	CHECK_EQ(released[1], 1);
	CHECK_EQ(released[0] + released[2], 0);
	virtqueue_push(r.held[0]);
	virtqueue_push(r.held[4]);
	rig_turn(&r);
	CHECK_EQ(released[0] + released[2], 0);
	rig_stop(&r, false);
	virtqueue_push(r.held[5]);
	rig_turn(&r);
	CHECK_EQ(released[2], 1);
	CHECK_EQ(r.rested, 0);
	virtqueue_push(r.held[1]);
	virtqueue_push(r.held[6]);
	r.nheld = 0;
	rig_turn(&r);
	CHECK_EQ(released[0], 1);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_collect(&r, NULL, 8), 8);
	CHECK_EQ(rig_start(&r), 0);
	rig_works(&r);
	rig_close(&r);
}

/* A map without the ring: the queue breaks, nothing is touched, and it comes to rest when all came back. */
static void memory_lost(const struct rig_mode *m)
{
	struct guestmem *none;
	int released = 0;
	struct rig r;

	rig_open(&r, m);
	rig_add_many(&r, 3);
	rig_publish(&r);
	rig_turn(&r);
	rig_take_many(&r, 3);
	virtqueue_push(r.held[0]); /* staged */
	none = guestmem_new();
	virtqueue_set_memory(r.q, none);
	guestmem_on_release(r.mem, note_release, &released);
	guestmem_unref(r.mem);
	CHECK_EQ(rig_signals(r.err), 1);
	CHECK(r.q->broken);
	CHECK_EQ(released, 0);
	virtqueue_push(r.held[1]);
	rig_turn(&r);
	CHECK_EQ(released, 0);
	rig_stop(&r, false);
	rig_turn(&r);
	CHECK_EQ(r.rested, 0);
	virtqueue_unpop(r.held[2]);
	r.nheld = 0;
	CHECK_EQ(released, 1);
	rig_turn(&r);
	CHECK_EQ(r.rested, 1);
	CHECK_EQ(rig_collect(&r, NULL, 3), 0);
	/* where it stood is known all the same */
	CHECK_EQ(virtqueue_base(r.q) & 0x7fff, 3);
	r.mem = none;
	CHECK_EQ(rig_start(&r), -EFAULT);
	CHECK_EQ(r.q->phase, VRING_RESTING);
	rig_close(&r);
}

struct bits {
	struct dirtylog *log;
	uint8_t *map;
	size_t size;
};

/* Bits count from guest address 0, so the file is sparse. */
static struct bits log_open(const struct rig *r)
{
	struct bits b = {.size = (RIG_GPA + r->ram_size) / PAGE / 8 + 1};
	int fd = memfd_create("log", MFD_CLOEXEC);

	CHECK_SYS(fd);
	CHECK_EQ(ftruncate(fd, (off_t)b.size), 0);
	b.map = mmap(NULL, b.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(b.map != MAP_FAILED);
	CHECK_EQ(dirtylog_new(&b.log, &fd, b.size, 0), 0);
	return b;
}

static bool log_take(const struct bits *b, uint64_t gpa)
{
	uint64_t page = gpa / PAGE;
	bool was = b->map[page / 8] & (1 << page % 8);

	b->map[page / 8] &= (uint8_t) ~(1 << page % 8);
	return was;
}

static void log_empty(const struct bits *b)
{
	for (size_t i = 0; i < b->size; i++)
		if (b->map[i])
			FAIL("byte %zu of the log is 0x%02x", i, b->map[i]);
}

static void log_close(struct bits *b)
{
	dirtylog_unref(b->log);
	munmap(b->map, b->size);
}

/* One request with n bytes to write at gpa, written from offset `at` on, in two parts. */
static void log_request(struct rig *r, uint64_t gpa, uint32_t n, uint32_t wrote)
{
	struct vring_driver_buf b[3] = {{.addr = RIG_GPA + r->ring_end, .len = 8},
		{.addr = gpa, .len = n / 3, .wr = true}, {.addr = gpa + n / 3, .len = n - n / 3, .wr = true}};
	struct element *e;

	CHECK(vring_driver_add(&r->d, b, 3, NULL) >= 0);
	rig_publish(r);
	rig_turn(r);
	e = rig_take(r);
	CHECK(cursor_zero(&e->wr, wrote));
	virtqueue_push(e);
	rig_turn(r);
	CHECK_EQ(vring_driver_get(&r->d, NULL, NULL), 1);
}

static void log_exact(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	uint64_t data, ring, events;
	struct bits bits;
	unsigned i;
	struct rig r;

	mode.chunk = 64 * PAGE;
	mode.num = 8;
	rig_open(&r, &mode);
	rig_turn(&r);
	bits = log_open(&r);
	data = ALIGN_UP(RIG_GPA + r.ring_end, PAGE) + 3 * PAGE;
	ring = RIG_GPA + (mode.packed ? r.addr[0] : r.addr[2]);
	events = RIG_GPA + r.addr[2];
	log_request(&r, data, 3 * PAGE, 3 * PAGE); /* no log, no marks */
	log_empty(&bits);
	virtqueue_set_log(r.q, bits.log, true);
	for (i = 0; i < 20; i++) {
		uint32_t n = 1 + rig_random(5 * PAGE), wrote = rig_random(n + 1), off = rig_random(PAGE);
		uint64_t p;

		log_request(&r, data + off, n, wrote);
		CHECK(log_take(&bits, ring)); /* everything of the ring is in one page */
		log_take(&bits, events);
		for (p = 0; p < off + wrote && wrote; p += PAGE)
			CHECK(log_take(&bits, data + p));
		log_empty(&bits);
	}
	virtqueue_set_log(r.q, bits.log, false); /* the ring only */
	log_request(&r, data, 5 * PAGE, 5 * PAGE);
	CHECK(log_take(&bits, ring));
	log_take(&bits, events);
	log_empty(&bits);
	virtqueue_set_log(r.q, NULL, true);
	log_request(&r, data, 5 * PAGE, 5 * PAGE);
	log_empty(&bits);
	/* an element that is out while the log is switched on is logged in full */
	{
		struct vring_driver_buf b = {.addr = data, .len = 2 * PAGE, .wr = true};
		struct element *e;

		CHECK(vring_driver_add(&r.d, &b, 1, NULL) >= 0);
		rig_publish(&r);
		rig_turn(&r);
		e = rig_take(&r);
		CHECK(cursor_zero(&e->wr, PAGE + 1));
		virtqueue_set_log(r.q, bits.log, true);
		CHECK(cursor_zero(&e->wr, 1));
		virtqueue_push(e);
		rig_turn(&r);
		CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
		CHECK(log_take(&bits, data));
		CHECK(log_take(&bits, data + PAGE));
	}
	rig_close(&r);
	log_close(&bits);
}

/* A part that was split off and written alone, behind a gap: all that is writable counts. */
static void log_gap(const struct rig_mode *m)
{
	struct rig_mode mode = *m;
	struct vring_driver_buf b;
	struct cursor head;
	struct element *e;
	struct bits bits;
	struct rig r;

	mode.chunk = 16 * PAGE;
	mode.num = 4;
	rig_open(&r, &mode);
	rig_turn(&r);
	bits = log_open(&r);
	virtqueue_set_log(r.q, bits.log, true);
	b = (struct vring_driver_buf){
		.addr = ALIGN_UP(RIG_GPA + r.ring_end, PAGE) + PAGE, .len = 4 * PAGE, .wr = true};
	CHECK(vring_driver_add(&r.d, &b, 1, NULL) >= 0);
	rig_publish(&r);
	rig_turn(&r);
	e = rig_take(&r);
	CHECK(cursor_split(&e->wr, 4 * PAGE - 1, &head));
	CHECK(cursor_zero(&e->wr, 1));
	virtqueue_push(e);
	rig_turn(&r);
	CHECK_EQ(vring_driver_get(&r.d, NULL, NULL), 1);
	CHECK(log_take(&bits, b.addr + 3 * PAGE));
	rig_close(&r);
	log_close(&bits);
}

int main(void)
{
	static const struct rig_case cases[] = {
		{"memory changes under elements", memory_changes},
		{"the ring loses its memory", memory_lost},
		{"the log has what was written", log_exact},
		{"the log and gaps", log_gap},
	};

	rig_cases(cases, ARRAY_SIZE(cases));
	return tap_done();
}
