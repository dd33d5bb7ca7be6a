/* SPDX-License-Identifier: MIT */
/*
 * The host end for blocks by itself: random requests against a model of the content, for each way of doing I/O; locks,
 * truncated files, limits.
 */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "log.h"
#include "tap.h"
#include "util.h"

#define SIZE	 (1u << 20)
#define SECTORS	 (SIZE / 512)
#define REQUESTS 64

struct request {
	struct disk_io io;
	struct cursor data;
	uint8_t *buf; /* scattered over it are the pieces */
	struct iovec iov[20];
	size_t len;
	bool busy;
};

static struct disk *disk;
static struct disk_lane *lane;
static struct loop *loop;
static char path[] = "disk-XXXXXX";
static uint8_t model[SIZE];
static unsigned out;
static unsigned rnd_state = 1;

static unsigned rnd(unsigned n)
{
	rnd_state = rnd_state * 1103515245u + 12345u;
	return (rnd_state >> 8) % n;
}

static void image_new(off_t size)
{
	int fd = mkstemp(path);

	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, size));
	close(fd);
}

static void image_check(void)
{
	static uint8_t got[SIZE];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK_EQ(read(fd, got, SIZE), SIZE);
	CHECK_MEM(got, model, SIZE);
	close(fd);
}

static void setup(const struct disk_options *o)
{
	CHECK_EQ(loop_new(&loop, "disk"), 0);
	CHECK_EQ(disk_open(&disk, o), 0);
	CHECK_EQ(disk_lane_get(disk, loop, &lane), 0);
}

static void teardown(void)
{
	disk_close(disk);
	loop_free(loop);
	unlink(path);
}

static void finished(struct disk_io *io)
{
	struct request *r = container_of(io, struct request, io);

	CHECK(r->busy);
	r->busy = false;
	if (--out == 0)
		loop_stop(loop);
}

/* Cuts the buffer into pieces; aligned ones, or any. */
static void cut(struct request *r, bool aligned)
{
	size_t left = r->len, at = aligned ? 0 : 1 + rnd(100);
	unsigned n = 0;

	while (left > 0) {
		size_t piece = aligned ? 512 * (1 + rnd(16)) : 1 + rnd(5000);
		size_t len = n == 19 ? left : MIN(left, piece);

		r->iov[n++] = (struct iovec){r->buf + at, len};
		at += len;
		left -= len;
	}
	cursor_init(&r->data, r->iov, n);
}

static void gather(const struct request *r, uint8_t *to)
{
	for (size_t at = 0, i = 0; at < r->len; at += r->iov[i++].iov_len)
		memcpy(to + at, r->iov[i].iov_base, r->iov[i].iov_len);
}

static void submit(struct request *r)
{
	r->busy = true;
	r->io.done = finished;
	out++;
	if (disk_submit(lane, &r->io))
		finished(&r->io);
}

static void wait_all(void)
{
	while (out > 0)
		loop_run(loop);
}

/* A request of this kind in one part of the disk, so that those of a round do not overlap. */
static void make(struct request *r, unsigned part, bool aligned, unsigned unit)
{
	unsigned parts = SIZE / REQUESTS, at = unit * rnd(parts / unit), max = (parts - at) / unit;

	r->io = (struct disk_io){.offset = (uint64_t)part * parts + at};
	r->len = unit * (size_t)(1 + rnd(max));
	r->io.op = (uint8_t)(rnd(8) == 0 ? DISK_FLUSH + rnd(3) : rnd(2));
	r->io.flags = (uint8_t)rnd(4);
	r->io.data = &r->data;
	cut(r, aligned);
	if (r->io.op == DISK_WRITE_ZEROES || r->io.op == DISK_DISCARD)
		r->io.len = r->len;
	for (size_t i = 0; i < r->len + 200; i++)
		r->buf[i] = (uint8_t)rnd(256);
	if (r->io.op == DISK_WRITE)
		gather(r, model + r->io.offset);
	else if (r->io.op == DISK_WRITE_ZEROES || r->io.op == DISK_DISCARD)
		memset(model + r->io.offset, 0, r->len);
}

static void check(const struct request *r)
{
	static uint8_t got[SIZE];

	CHECK_EQ(r->io.result, 0);
	if (r->io.op > DISK_WRITE)
		return;
	CHECK_EQ(r->data.left, 0);
	CHECK_EQ(r->data.done, r->len);
	if (r->io.op == DISK_WRITE)
		return;
	gather(r, got);
	CHECK_MEM(got, model + r->io.offset, r->len);
}

static void random_requests(const struct disk_options *base, bool aligned, unsigned unit)
{
	static struct request r[REQUESTS];
	struct disk_options o = *base;

	image_new(SIZE);
	o.path = path;
	setup(&o);
	for (int i = 0; i < REQUESTS; i++)
		CHECK_EQ(posix_memalign((void **)&r[i].buf, 4096, SIZE / REQUESTS + 4096), 0);
	for (int round = 0; round < 60; round++) {
		for (unsigned i = 0; i < REQUESTS; i++) {
			make(&r[i], i, aligned, unit);
			submit(&r[i]);
		}
		wait_all();
		for (int i = 0; i < REQUESTS; i++)
			check(&r[i]);
		/* cold the next time: not only the page cache is read */
		if (round % 4 == 0) {
			int fd = open(path, O_RDONLY | O_CLOEXEC);

			fdatasync(fd);
			posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
			close(fd);
		}
	}
	image_check();
	for (int i = 0; i < REQUESTS; i++)
		free(r[i].buf);
	teardown();
}

struct way {
	const char *name;
	struct disk_options o;
	bool aligned;
	unsigned unit;
};

static void random_case(void *arg)
{
	const struct way *w = arg;
	int fd = open(".", O_TMPFILE | O_RDWR | O_DIRECT, 0600);

	if (w->o.direct && fd < 0)
		tap_skip("no O_DIRECT in this directory");
	if (w->o.aio != DISK_AIO_THREADS && !uring_available())
		tap_skip("io_uring is not permitted here");
	random_requests(&w->o, w->aligned, w->unit);
}

static void locks_exclude(void *arg)
{
	struct disk_options rw = {.path = path, .lock = true},
			    ro = {.path = path, .lock = true, .read_only = true};
	struct disk *a, *b, *c;

	(void)arg;
	image_new(SIZE);
	CHECK_EQ(disk_open(&a, &rw), 0);
	CHECK_EQ(disk_open(&b, &rw), -EAGAIN);
	CHECK_EQ(disk_open(&b, &ro), -EAGAIN);
	rw.lock = false;
	CHECK_EQ(disk_open(&b, &rw), 0);
	disk_close(b);
	disk_close(a);
	rw.lock = true;
	CHECK_EQ(disk_open(&a, &ro), 0);
	CHECK_EQ(disk_open(&b, &ro), 0);
	CHECK_EQ(disk_open(&c, &rw), -EAGAIN);
	disk_close(a);
	disk_close(b);
	CHECK_EQ(disk_open(&c, &rw), 0);
	disk_close(c);
	unlink(path);
}

static void *closer(void *arg)
{
	struct timespec ts = {.tv_nsec = 100000000};

	nanosleep(&ts, NULL);
	disk_close(arg);
	return NULL;
}

/* What a killed process still holds for a moment does not count. */
static void lock_waits_a_moment(void *arg)
{
	struct disk_options rw = {.path = path, .lock = true};
	struct disk *a, *b;
	pthread_t t;

	(void)arg;
	image_new(SIZE);
	CHECK_EQ(disk_open(&a, &rw), 0);
	CHECK_EQ(pthread_create(&t, NULL, closer, a), 0);
	CHECK_EQ(disk_open(&b, &rw), 0);
	pthread_join(t, NULL);
	disk_close(b);
	unlink(path);
}

static void refused(const struct disk_options *o, int error)
{
	struct disk *d;

	CHECK_EQ(disk_open(&d, o), error);
}

static void bad_options_are_refused(void *arg)
{
	(void)arg;
	refused(&(struct disk_options){.path = NULL}, -EINVAL);
	refused(&(struct disk_options){.path = "x", .null_size = 1 << 20}, -EINVAL);
	refused(&(struct disk_options){.path = "/nowhere/image"}, -ENOENT);
	refused(&(struct disk_options){.path = "/dev/null"}, -EINVAL);
	refused(&(struct disk_options){.path = ".", .read_only = true}, -EINVAL);
	image_new(511);
	refused(&(struct disk_options){.path = path}, -EINVAL);
	unlink(path);
}

static void fifo_does_not_hang(void *arg)
{
	char dir[] = "fifo-XXXXXX", fifo[32];

	(void)arg;
	CHECK(mkdtemp(dir) != NULL);
	snprintf(fifo, sizeof(fifo), "%s/f", dir);
	CHECK_SYS(mkfifo(fifo, 0600));
	refused(&(struct disk_options){.path = fifo, .read_only = true}, -EINVAL);
	unlink(fifo);
	rmdir(dir);
}

static void tail_is_cut(void *arg)
{
	struct disk_options o = {.path = path};

	(void)arg;
	image_new(1000 * 512 + 100);
	setup(&o);
	CHECK_EQ(disk_size(disk), 1000 * 512);
	CHECK(disk_holds(disk, 1000 * 512, 0));
	CHECK(disk_holds(disk, 999 * 512, 512));
	CHECK(!disk_holds(disk, 999 * 512, 1024));
	CHECK(!disk_holds(disk, 1001 * 512, 0));
	CHECK(!disk_holds(disk, 512, UINT64_MAX - 511));
	teardown();
}

static struct request *request_new(uint8_t op, uint64_t offset, size_t len)
{
	struct request *r = calloc(1, sizeof(*r));

	r->buf = calloc(1, len + 4096);
	r->len = len;
	r->io = (struct disk_io){.op = op, .offset = offset, .len = len, .data = &r->data};
	r->iov[0] = (struct iovec){r->buf, len};
	cursor_init(&r->data, r->iov, 1);
	return r;
}

static void request_free(struct request *r)
{
	free(r->buf);
	free(r);
}

static int perform(uint8_t op, uint64_t offset, size_t len)
{
	struct request *r = request_new(op, offset, len);
	int result;

	submit(r);
	wait_all();
	result = r->io.result;
	request_free(r);
	return result;
}

static void shrunken_file_is_an_error(void *arg)
{
	static const enum disk_aio ways[] = {DISK_AIO_AUTO, DISK_AIO_THREADS};

	(void)arg;
	for (int i = 0; i < 2; i++) {
		struct disk_options o = {.path = path, .aio = ways[i]};

		strcpy(path, "disk-XXXXXX");
		image_new(SIZE);
		setup(&o);
		CHECK_SYS(truncate(path, SIZE / 2));
		CHECK_EQ(perform(DISK_READ, SIZE / 2 - 4096, 4096), 0);
		CHECK_EQ(perform(DISK_READ, SIZE / 2 - 4096, 8192), -EIO);
		CHECK_EQ(perform(DISK_READ, SIZE / 2 + 4096, 4096), -EIO);
		teardown();
	}
}

static void read_only_is_not_written(void *arg)
{
	struct disk_options o = {.path = path, .read_only = true, .lock = true};

	(void)arg;
	image_new(SIZE);
	CHECK_SYS(chmod(path, 0400));
	setup(&o);
	CHECK(disk_limits(disk)->read_only);
	CHECK(!disk_limits(disk)->discard && !disk_limits(disk)->write_zeroes);
	CHECK_EQ(perform(DISK_READ, 0, SIZE), 0);
	CHECK_EQ(perform(DISK_WRITE, 0, 512), -EROFS);
	CHECK_EQ(perform(DISK_DISCARD, 0, 512), -EROFS);
	CHECK_EQ(perform(DISK_WRITE_ZEROES, 0, 512), -EROFS);
	CHECK_EQ(perform(DISK_FLUSH, 0, 0), 0);
	image_check();
	teardown();
}

/* More pieces than one call can take. */
static void more_than_iov_max(void *arg)
{
	enum { N = IOV_MAX * 3 + 7, LEN = 512 };
	struct disk_options o = {.path = path};
	struct iovec *v = calloc(N, sizeof(*v));
	uint8_t *buf = malloc(N * LEN), *back = malloc(N * LEN);
	struct request w = {.io.op = DISK_WRITE, .io.data = &w.data}, r = {.io.data = &r.data};

	(void)arg;
	image_new(N * LEN);
	setup(&o);
	for (int i = 0; i < N * LEN; i++)
		buf[i] = (uint8_t)rnd(256);
	for (int i = 0; i < N; i++)
		v[i] = (struct iovec){buf + i * LEN, LEN};
	cursor_init(&w.data, v, N);
	submit(&w);
	wait_all();
	CHECK_EQ(w.io.result, 0);
	for (int i = 0; i < N; i++)
		v[i] = (struct iovec){back + i * LEN, LEN};
	cursor_init(&r.data, v, N);
	submit(&r);
	wait_all();
	CHECK_EQ(r.io.result, 0);
	CHECK_MEM(back, buf, N * LEN);
	teardown();
	free(v);
	free(buf);
	free(back);
}

/* Stands in for the disk's ioctl(2): hardly a machine for tests has a device that erases. */
int __wrap_ioctl(int fd, unsigned long request, void *arg);

static struct {
	uint64_t offset, len;
	unsigned calls;
	int error;
} erased;

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
	const uint64_t *range = arg;

	CHECK(fcntl(fd, F_GETFL) >= 0);
	CHECK_EQ(request, BLKSECDISCARD);
	erased.calls++;
	erased.offset = range[0];
	erased.len = range[1];
	errno = erased.error;
	return erased.error != 0 ? -1 : 0;
}

static void erases(void *arg)
{
	struct disk_options o = {.path = path};

	(void)arg;
	image_new(SIZE);
	setup(&o);
	CHECK(!disk_limits(disk)->secure_erase); /* no file can */
	CHECK_EQ(erased.calls, 0);
	CHECK_EQ(perform(DISK_SECURE_ERASE, 8192, 65536), 0);
	CHECK_EQ(erased.calls, 1);
	CHECK_EQ(erased.offset, 8192);
	CHECK_EQ(erased.len, 65536);
	/* unlike a discard, it is never as if it had been done */
	erased.error = EOPNOTSUPP;
	CHECK_EQ(perform(DISK_SECURE_ERASE, 0, 512), -EOPNOTSUPP);
	CHECK_EQ(erased.calls, 2);
	teardown();
}

/* Pairs of kind and length, as disk_extents says them. */
static void extents_are(uint64_t offset, uint32_t align, uint32_t max, const char *want)
{
	struct disk_extents *x = calloc(1, sizeof(*x) + max * sizeof(x->extent[0]));
	struct request r = {.io = {.op = DISK_STATUS, .offset = offset, .len = SIZE - offset, .extents = x}};
	char got[200] = "";

	x->max = max;
	x->align = align;
	submit(&r);
	wait_all();
	CHECK_EQ(r.io.result, 0);
	for (uint32_t i = 0; i < x->n; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s %uK ",
			x->extent[i].hole ? "hole" : "data", (unsigned)(x->extent[i].len >> 10));
	CHECK_STR(got, want);
	CHECK_EQ(x->full, x->covered < r.io.len);
	free(x);
}

static void holes_are_told(void *arg)
{
	struct disk_options o = {.path = path, .aio = arg != NULL ? DISK_AIO_THREADS : DISK_AIO_AUTO};

	image_new(SIZE);
	setup(&o);
	if (!disk_limits(disk)->discard)
		tap_skip("no holes in files of this directory");
	CHECK_EQ(perform(DISK_WRITE, 64 << 10, 64 << 10), 0);
	CHECK_EQ(perform(DISK_WRITE, 520 << 10, 8 << 10), 0);
	extents_are(0, 512, 8, "hole 64K data 64K hole 392K data 8K hole 496K ");
	extents_are(0, 512, 5, "hole 64K data 64K hole 392K data 8K hole 496K ");
	extents_are(0, 512, 4, "hole 64K data 64K hole 392K data 8K ");
	extents_are(96 << 10, 512, 1, "data 32K ");
	extents_are(520 << 10, 512, 8, "data 8K hole 496K ");
	extents_are(SIZE - 4096, 512, 8, "hole 4K ");
	/* what is left over of a large block is data */
	extents_are(0, 65536, 8, "hole 64K data 64K hole 384K data 64K hole 448K ");
	CHECK_EQ(perform(DISK_DISCARD, 68 << 10, 48 << 10), 0);
	extents_are(0, 4096, 8, "hole 64K data 4K hole 48K data 12K hole 392K data 8K hole 496K ");
	extents_are(0, 65536, 8, "hole 64K data 64K hole 384K data 64K hole 448K ");
	CHECK_EQ(perform(DISK_DISCARD, 0, SIZE), 0);
	extents_are(0, 512, 1, "hole 1024K ");
	CHECK_SYS(truncate(path, SIZE / 2)); /* somebody makes it shorter: there is nothing */
	extents_are(0, 512, 4, "hole 1024K ");
	teardown();
}

/* Holes that are too small to be told take no room in the answer: a disk full of them must not keep a thread for ever. */
static void tiny_holes_end(void *arg)
{
	enum { MANY = 4096, STRIDE = 8192 };
	struct disk_options o = {.path = path};
	struct disk_extents *x = calloc(1, sizeof(*x) + sizeof(x->extent[0]));
	struct request r = {.io = {.op = DISK_STATUS, .len = (uint64_t)MANY * STRIDE, .extents = x}};
	int fd;

	(void)arg;
	image_new((size_t)MANY * STRIDE);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(pwrite(fd, path, 1, (off_t)i * STRIDE), 1);
	close(fd);
	setup(&o);
	if (!disk_limits(disk)->discard)
		tap_skip("no holes in files of this directory");
	x->max = 1;
	x->align = 65536;
	submit(&r);
	wait_all();
	CHECK_EQ(r.io.result, 0);
	CHECK_EQ(x->n, 1);
	CHECK(!x->full && !x->extent[0].hole);
	CHECK_EQ(x->extent[0].len, x->covered);
	CHECK(x->covered >= x->align && x->covered < r.io.len);
	free(x);
	teardown();
}

static void null_takes_all(void *arg)
{
	struct disk_options o = {.null_size = 1 << 20};
	struct request *r;

	(void)arg;
	setup(&o);
	CHECK_EQ(disk_size(disk), 1 << 20);
	for (uint8_t op = DISK_READ; op <= DISK_WRITE_ZEROES; op++)
		CHECK_EQ(perform(op, 4096, 4096), 0);
	r = request_new(DISK_READ, 0, 4096);
	memset(r->buf, 7, 4096);
	CHECK(disk_submit(lane, &r->io));
	CHECK_EQ(r->data.done, 4096);
	CHECK_EQ(r->buf[4095], 7);
	request_free(r);
	extents_are(0, 512, 3, "data 1024K ");
	disk_close(disk);
	loop_free(loop);
}

static void space_is_given_back(void *arg)
{
	struct disk_options o = {.path = path};
	struct request *w;
	struct stat st;
	blkcnt_t full;

	(void)arg;
	image_new(SIZE);
	setup(&o);
	if (!disk_limits(disk)->discard)
		tap_skip("no holes in files of this directory");
	w = request_new(DISK_WRITE, 0, SIZE);
	memset(w->buf, 9, SIZE);
	submit(w);
	wait_all();
	request_free(w);
	CHECK_EQ(perform(DISK_FLUSH, 0, 0), 0);
	stat(path, &st);
	full = st.st_blocks;
	CHECK(full >= SECTORS);
	CHECK_EQ(perform(DISK_WRITE_ZEROES, 0, SIZE / 2), 0);
	stat(path, &st);
	CHECK(st.st_blocks >= full); /* without UNMAP it stays */
	w = request_new(DISK_WRITE_ZEROES, 0, SIZE / 2);
	w->io.flags = DISK_UNMAP;
	submit(w);
	wait_all();
	request_free(w);
	stat(path, &st);
	CHECK(st.st_blocks <= full / 2 + 16);
	CHECK_EQ(perform(DISK_DISCARD, 0, SIZE), 0);
	stat(path, &st);
	CHECK(st.st_blocks <= 16);
	CHECK_EQ(st.st_size, SIZE);
	image_check();
	teardown();
}

int main(void)
{
	static const struct way ways[] = {
		{"io_uring", {.aio = DISK_AIO_URING}, false, 512},
		{"threads", {.aio = DISK_AIO_THREADS}, false, 512},
		{"io_uring, direct, aligned", {.aio = DISK_AIO_URING, .direct = true}, true, 4096},
		{"io_uring, direct, memory not aligned", {.aio = DISK_AIO_URING, .direct = true}, false,
			4096},
		{"io_uring, direct, nothing aligned", {.aio = DISK_AIO_URING, .direct = true}, false, 512},
		{"threads, direct, nothing aligned", {.aio = DISK_AIO_THREADS, .direct = true}, false, 512},
	};
	char name[128];

	log_set_level(LOG_LEVEL_ERROR);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		snprintf(name, sizeof(name), "random requests: %s", ways[i].name);
		tap_case(name, random_case, (void *)(uintptr_t)&ways[i]);
	}
	tap_case("locks exclude", locks_exclude, NULL);
	tap_case("a lock waits a moment", lock_waits_a_moment, NULL);
	tap_case("bad options are refused", bad_options_are_refused, NULL);
	tap_case("a FIFO does not hang", fifo_does_not_hang, NULL);
	tap_case("a tail shorter than a sector is cut", tail_is_cut, NULL);
	tap_case("a shrunken file is an error", shrunken_file_is_an_error, NULL);
	tap_case("read-only is not written", read_only_is_not_written, NULL);
	tap_case("more than IOV_MAX pieces", more_than_iov_max, NULL);
	tap_case("the null disk takes all", null_takes_all, NULL);
	tap_case("space is given back", space_is_given_back, NULL);
	tap_case("secure erase", erases, NULL);
	tap_case("holes are told", holes_are_told, NULL);
	tap_case("holes are told: threads", holes_are_told, "threads");
	tap_case("tiny holes end", tiny_holes_end, NULL);
	return tap_done();
}
