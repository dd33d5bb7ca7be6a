/* SPDX-License-Identifier: MIT */
/*
 * Postcopy migration with the real binary: the guest's memory, rings and requests included, is taken away (it is still
 * "on the source"), the device is set up on the absent pages, and a thread serves its page faults, one page at a time, as
 * a front-end does. And what happens when nobody serves them.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <linux/virtio_blk.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

enum {
	PAGE = 4096,
	DISK_SIZE = 1 << 20,
	LOW_SIZE = 1 << 20,
	HIGH_SIZE = 1 << 20,
	MEMORY = LOW_SIZE + HIGH_SIZE
};

/* The memory on the source, and how it gets here. One file holds both regions. */
struct source {
	int file, uffd, stop;
	uint8_t pages[MEMORY];
	bool arrived[MEMORY / PAGE];
	uint64_t base[2]; /* the back-end's addresses of the regions */
	unsigned faults;
	pthread_t thread;
};

static struct fe fe;
static struct source src;
static char image[160];
static bool slots;
static const char *threads;

static void pattern(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(i * 31 + i / PAGE * 7 + seed);
}

/* --- the source's side --- */

static void memory_make(void)
{
	src.file = fe_memfd(MEMORY);
	fe_region_make(&fe, 0x100000, LOW_SIZE, 0x7f0000000000, src.file, 0);
	fe_region_make(&fe, UINT64_C(1) << 32, HIGH_SIZE, 0x7f1000000000, src.file, LOW_SIZE);
	for (unsigned i = 0; i < fe.nregions; i++)
		fe.regions[i].sent = true;
}

/* Fills what nobody uses with a pattern, so that a page that did not come over shows. */
static void memory_leave(void)
{
	CHECK_EQ(pread(src.file, src.pages, MEMORY, 0), MEMORY);
	for (unsigned i = 0; i < MEMORY / PAGE; i++) {
		uint8_t *page = src.pages + (size_t)i * PAGE;
		unsigned k = 0;

		while (k < PAGE && page[k] == 0)
			k++;
		if (k == PAGE && i % 2) /* some zero pages stay so */
			pattern(page, PAGE, i);
	}
	CHECK_SYS(fallocate(src.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MEMORY));
}

/* Offset in the file of an address of the back-end's. */
static size_t source_offset(uint64_t address)
{
	if (address - src.base[0] < LOW_SIZE)
		return (size_t)(address - src.base[0]);
	CHECK(address - src.base[1] < HIGH_SIZE);
	return LOW_SIZE + (size_t)(address - src.base[1]);
}

static void serve_fault(void)
{
	struct uffd_msg msg;
	struct uffdio_copy copy = {.len = PAGE};
	size_t at;

	if (read(src.uffd, &msg, sizeof(msg)) != sizeof(msg)) {
		CHECK_EQ(errno, EAGAIN);
		return;
	}
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	copy.dst = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
	at = source_offset(copy.dst);
	copy.src = (uintptr_t)src.pages + at;
	src.faults++;
	if (ioctl(src.uffd, UFFDIO_COPY, &copy) < 0) {
		struct uffdio_range range = {.start = copy.dst, .len = PAGE};

		CHECK_EQ(errno, EEXIST);
		CHECK_SYS(ioctl(src.uffd, UFFDIO_WAKE, &range));
	}
	src.arrived[at / PAGE] = true;
}

static void *source_run(void *arg)
{
	struct pollfd p[2] = {{.fd = src.uffd, .events = POLLIN}, {.fd = src.stop, .events = POLLIN}};

	(void)arg;
	while (poll(p, 2, -1) >= 0 && !p[1].revents)
		if (p[0].revents)
			serve_fault();
	return NULL;
}

static void source_start(void)
{
	src.stop = eventfd(0, EFD_CLOEXEC);
	CHECK_EQ(pthread_create(&src.thread, NULL, source_run, NULL), 0);
}

/* The rest of the memory comes, too, and the source is no longer needed. */
static void source_finish(void)
{
	CHECK_EQ(eventfd_write(src.stop, 1), 0);
	pthread_join(src.thread, NULL);
	close(src.stop);
	for (unsigned i = 0; i < MEMORY / PAGE; i++)
		if (!src.arrived[i])
			CHECK_EQ(pwrite(src.file, src.pages + (size_t)i * PAGE, PAGE, (off_t)i * PAGE), PAGE);
}

/* --- the dialogue --- */

static void advise(void)
{
	struct fe_msg m;

	fe_send(&fe, FE_POSTCOPY_ADVISE, FE_VERSION, NULL, 0, NULL, 0);
	CHECK(fe_recv(&fe, &m));
	CHECK_EQ(m.h.request, FE_POSTCOPY_ADVISE);
	CHECK_EQ(m.h.flags, FE_VERSION | FE_REPLY);
	CHECK_EQ(m.h.size, 0);
	CHECK_EQ(m.nfds, 1);
	src.uffd = m.fds[0];
}

/* All regions are announced; the replies say where the back-end has them. */
static void announce(void)
{
	struct fe_mem_table t = {.n = 2};
	struct fe_msg m;
	int fds[2];

	if (slots) {
		for (unsigned i = 0; i < 2; i++) {
			struct fe_mem_reg r = {.region = fe.regions[i].w}, *got = (struct fe_mem_reg *)m.body;

			fe_ask(&fe, FE_ADD_MEM_REG, &r, sizeof(r), &fe.regions[i].fd, 1, &m, sizeof(r));
			CHECK_EQ(got->region.gpa, r.region.gpa);
			CHECK_EQ(got->region.size, r.region.size);
			CHECK(got->region.uaddr != r.region.uaddr);
			src.base[i] = got->region.uaddr;
		}
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		t.region[i] = fe.regions[i].w;
		fds[i] = fe.regions[i].fd;
	}
	fe_ask(&fe, FE_SET_MEM_TABLE, &t, 8 + 2 * sizeof(t.region[0]), fds, 2, &m,
		8 + 2 * sizeof(t.region[0]));
	for (unsigned i = 0; i < 2; i++) {
		const struct fe_mem_table *got = (struct fe_mem_table *)m.body;

		CHECK_EQ(got->n, 2);
		CHECK_EQ(got->region[i].gpa, t.region[i].gpa);
		src.base[i] = got->region[i].uaddr;
	}
}

/* The front-end is ready for faults. No reply comes. */
static void accept_memory(void)
{
	uint64_t ok = 0;

	fe_send(&fe, slots ? FE_ADD_MEM_REG : FE_SET_MEM_TABLE, FE_VERSION, &ok, sizeof(ok), NULL, 0);
	fe_barrier(&fe);
}

static void start(const struct fe_mode *m)
{
	static char option[192];
	int fd;

	src = (struct source){.uffd = -1};
	snprintf(image, sizeof(image), "%s/disk.img", fe_tmpdir());
	snprintf(option, sizeof(option), "--blk-file=%s", image);
	CHECK_SYS(fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	CHECK_SYS(ftruncate(fd, DISK_SIZE));
	close(fd);
	fe_init(&fe, m);
	if (!slots)
		fe.protocol_mask &= ~BIT(FE_P_MEM_SLOTS);
	fe_spawn(&fe, FE_ARGS("block", option, threads));
	fe_handshake(&fe);
	if (!fe_has(&fe, FE_P_PAGEFAULT))
		tap_skip("userfaultfd is not permitted here");
	memory_make();
}

/* --- block requests --- */

struct io {
	struct virtio_blk_outhdr *header;
	uint8_t *data, *status;
	uint32_t len;
};

static struct io io_submit(struct fe_queue *q, uint32_t type, uint64_t sector, uint32_t len)
{
	struct io io = {.len = len};
	struct vring_driver_buf b[3];

	/* each on pages of its own, the data not at a page's start */
	io.header = fe_alloc(&fe, sizeof(*io.header), PAGE, NULL);
	io.data = (uint8_t *)fe_alloc(&fe, len + PAGE, PAGE, NULL) + 512;
	io.status = fe_alloc(&fe, 1, PAGE, NULL);
	*io.header = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	*io.status = 0xee;
	b[0] = fe_rd(&fe, io.header, sizeof(*io.header));
	b[1] = type == VIRTIO_BLK_T_IN ? fe_wr(&fe, io.data, len) : fe_rd(&fe, io.data, len);
	b[2] = fe_wr(&fe, io.status, 1);
	fe_submit(q, b, 3, NULL);
	fe_flush(q);
	return io;
}

/* Waits without touching the ring, whose pages may be absent. */
static void wait_interrupt(struct fe_queue *q)
{
	CHECK(fe_poll(q->call, POLLIN, fe_limit_ms));
}

static void disk_write(off_t at, const void *data, size_t len)
{
	int fd = open(image, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, data, len, at), len);
	close(fd);
}

static void disk_is(off_t at, const void *want, size_t len)
{
	static uint8_t got[DISK_SIZE];
	int fd = open(image, O_RDONLY | O_CLOEXEC);

	CHECK_EQ(pread(fd, got, len, at), len);
	CHECK_MEM(got, want, len);
	close(fd);
}

static uint32_t base_of(const struct fe_mode *m)
{
	return m->packed ? 0x80008000 : 0;
}

/* Advise to accept, with one read and one write request already in the rings. */
static struct fe_queue *migrate(const struct fe_mode *m, struct io *rd, struct io *wr, uint32_t len)
{
	struct fe_queue *q = fe_queue_make(&fe, 0, 64, FE_FRESH);

	*rd = io_submit(q, VIRTIO_BLK_T_IN, 8, len);
	*wr = io_submit(q, VIRTIO_BLK_T_OUT, 1024, len);
	pattern(wr->data, len, 99);
	advise();
	CHECK_EQ(fe_ack(&fe, FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), 0);
	memory_leave();
	announce();
	accept_memory();
	fe_set_features(&fe, fe.features);
	fe_queue_send(q, base_of(m));
	return q;
}

static void pages_come_on_demand(const struct fe_mode *m)
{
	static uint8_t disk[DISK_SIZE], want[PAGE];
	struct io rd, wr, again;
	struct fe_queue *q;
	size_t edge;

	start(m);
	pattern(disk, DISK_SIZE, 5);
	disk_write(0, disk, DISK_SIZE);
	q = migrate(m, &rd, &wr, 5 * PAGE);
	source_start();
	fe_queue_enable(q, true);
	for (unsigned done = 0; done < 2;) {
		uint32_t used;

		wait_interrupt(q);
		fe_take_calls(q);
		for (; fe_collect(q, NULL, &used); done++)
			CHECK(used == 1 || used == 5 * PAGE + 1);
	}
	CHECK_EQ(*rd.status, VIRTIO_BLK_S_OK);
	CHECK_EQ(*wr.status, VIRTIO_BLK_S_OK);
	CHECK_MEM(rd.data, disk + (size_t)8 * 512, 5 * PAGE);
	pattern(want, PAGE, 99);
	disk_is(1024 * 512, want, PAGE);
	CHECK(src.faults >= 12); /* rings, headers, statuses, data */

	/* what lies around the data, in the pages that were written to in part */
	edge = (size_t)(rd.data - 512 - fe.regions[0].ptr);
	CHECK_MEM(rd.data - 512, src.pages + edge, 512);

	again = io_submit(
		q, VIRTIO_BLK_T_OUT, 1200, PAGE); /* a second round on pages of which some are absent */
	wait_interrupt(q);
	CHECK_EQ(fe_wait(q, NULL), 1);
	CHECK_EQ(*again.status, VIRTIO_BLK_S_OK);

	source_finish();
	CHECK_EQ(fe_get(&fe, FE_POSTCOPY_END), 0);
	close(src.uffd);
	for (unsigned i = 0; i < 20; i++) { /* and on without anybody serving */
		again = io_submit(q, VIRTIO_BLK_T_IN, i * 8, PAGE);
		CHECK_EQ(fe_wait(q, NULL), PAGE + 1);
		CHECK_EQ(*again.status, VIRTIO_BLK_S_OK);
		CHECK_MEM(again.data, disk + (size_t)i * PAGE, PAGE);
		fe_release(&fe, 0);
	}
	fe_end(&fe);
}

/* Rings that are set up before the front-end is ready do not run before it is. */
static void nothing_runs_before_it_is_accepted(const struct fe_mode *m)
{
	struct fe_vring_state enable = {0, 1};
	struct io rd;
	struct fe_queue *q;

	start(m);
	q = fe_queue_make(&fe, 0, 64, FE_FRESH);
	rd = io_submit(q, VIRTIO_BLK_T_IN, 0, PAGE);
	advise();
	CHECK_EQ(fe_ack(&fe, FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0), 0);
	announce();
	{
		struct fe_vring_state num = {0, 64}, base = {0, base_of(m)};
		struct fe_vring_addr a = {.desc = fe_uaddr(&fe, q->desc_gpa),
			.avail = fe_uaddr(&fe, q->driver_gpa),
			.used = fe_uaddr(&fe, q->device_gpa)};

		fe_ack(&fe, FE_SET_VRING_NUM, &num, sizeof(num), NULL, 0);
		fe_ack(&fe, FE_SET_VRING_BASE, &base, sizeof(base), NULL, 0);
		fe_ack(&fe, FE_SET_VRING_ADDR, &a, sizeof(a), NULL, 0);
		fe_queue_send_fd(q, FE_SET_VRING_KICK, q->kick);
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_ack(&fe, FE_SET_VRING_ENABLE, &enable, sizeof(enable), NULL, 0);
	}
	fe_kick(q);
	fe_barrier(&fe);
	CHECK(!fe_poll(q->call, POLLIN, 50));
	CHECK_EQ(*rd.status, 0xee);
	accept_memory();
	CHECK_EQ(fe_wait(q, NULL), PAGE + 1); /* all pages are here, so nobody has to serve */
	CHECK_EQ(*rd.status, VIRTIO_BLK_S_OK);
	fe_end(&fe);
}

static void out_of_order(const struct fe_mode *m)
{
	unsigned before;

	start(m);
	before = fe_process_fds(&fe.process);
	CHECK(fe_ack(&fe, FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0) != 0); /* not advised */
	CHECK_EQ(fe_get(&fe, FE_POSTCOPY_END), 0);
	for (unsigned i = 0; i < 3; i++) {
		advise();
		close(src.uffd);
	}
	for (unsigned i = 0; i < fe.nregions; i++)
		fe.regions[i].sent = false;
	fe_memory_send(&fe);
	CHECK(fe_ack(&fe, FE_POSTCOPY_LISTEN, NULL, 0, NULL, 0) != 0); /* there are regions */
	CHECK_EQ(fe_get(&fe, FE_POSTCOPY_END), 0);
	CHECK_EQ(fe_process_fds(&fe.process), before + 2); /* of the regions */
	fe_end(&fe);
}

/* The front-end keeps the userfaultfd and serves nothing; the device hangs in a page. */
static void stuck(const struct fe_mode *m)
{
	struct io rd, wr;
	struct fe_vring_state enable = {0, 1};

	start(m);
	migrate(m, &rd, &wr, PAGE);
	fe_send(&fe, FE_SET_VRING_ENABLE, FE_VERSION, &enable, sizeof(enable), NULL, 0);
	CHECK(fe_poll(src.uffd, POLLIN, fe_limit_ms));
}

static void a_hang_up_ends_it(const struct fe_mode *m)
{
	stuck(m);
	fe_hangup(&fe);
	fe_process_exits(&fe.process, 0);
}

static void a_signal_ends_it(const struct fe_mode *m)
{
	stuck(m);
	fe_process_signal(&fe.process, SIGTERM);
	fe_process_exits(&fe.process, 0);
}

int main(void)
{
	static const struct {
		bool slots;
		const char *threads, *name;
	} kinds[] = {
		{false, "--threads=0", "pages come on demand"},
		{true, "--threads=0", "pages come on demand, memory slots"},
		{false, "--threads=2", "pages come on demand to a thread"},
		{true, "--threads=2", "pages come on demand to a thread, memory slots"},
	};
	static const struct fe_mode split = {0};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		slots = kinds[i].slots;
		threads = kinds[i].threads;
		fe_each_layout(kinds[i].name, pages_come_on_demand);
		fe_case(slots ? "not accepted yet, memory slots" : "not accepted yet",
			nothing_runs_before_it_is_accepted, &split);
	}
	fe_case("out of order", out_of_order, &split);
	threads = "--threads=0";
	fe_case("nobody serves, the front-end hangs up", a_hang_up_ends_it, &split);
	fe_case("nobody serves, a signal", a_signal_ends_it, &split);
	threads = "--threads=2";
	fe_case("nobody serves a thread, the front-end hangs up", a_hang_up_ends_it, &split);
	fe_case("nobody serves a thread, a signal", a_signal_ends_it, &split);
	return tap_done();
}
