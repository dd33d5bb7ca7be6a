/* SPDX-License-Identifier: MIT */
/*
 * Reading and writing a file of the host.
 *
 * First try: a plain call in the loop that does not wait, preadv2(RWF_NOWAIT). What the page cache holds is copied for
 * the price of a system call, which no asynchronous interface comes near. When the file is hardly cached, the tries
 * become rare. Buffered writes go the same way where the file system knows NOWAIT for them; where it does not (ext4),
 * the call may wait, so it is timed, and after slow ones the lane stays asynchronous for a while, which grows.
 *
 * Whatever would block goes to io_uring, all of a turn in one batch, or to the job pool. A job also does what io_uring
 * has no operation for: discards, zeroes and what O_DIRECT can't do because an offset is not aligned. Guest buffers that
 * are not aligned for O_DIRECT are copied through one of a few bounce buffers; requests queue for these.
 *
 * A request moves its cursor as it goes, so a short transfer simply continues at the cursor.
 */
#include "disk-bounce.h"
#include "disk-file.h"
#include "disk-zone.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "util.h"

#define MISSES_MAX    16u     /* tries without success after which only every MISSES_MAX-th is made */
#define SLOW_NS	      500000u /* a write that waits; plus a nanosecond a byte */
#define BACKOFF_MIN   10000000u
#define BACKOFF_MAX   1000000000u
#define SUSPICIONS    32u
#define STATUS_ROUNDS 4096u /* seeks for data or a hole; after that what is known is the answer */

enum write_mode { WRITE_NOWAIT, WRITE_TIMED, WRITE_ASYNC };

struct file_lane {
	struct disk_lane lane;
	struct disk_file *file;
	struct uring *ring; /* NULL: jobs */
	int fixed;	    /* index of fd in the ring's table, or < 0 */

	unsigned misses, skipped; /* reads that were not cached; tries left out since */
	enum write_mode write_mode;
	uint64_t write_again, backoff; /* ns */
	unsigned suspicion;	       /* writes still to be watched */

	struct disk_bounces bounces;
};

/* What the next call for a request has to do. */
struct step {
	int fd;
	const struct iovec *v;
	unsigned n;
	uint64_t at;
};

static struct file_lane *io_lane(const struct disk_io *io)
{
	return container_of(io->lane, struct file_lane, lane);
}

static bool aligned(uint64_t x, uint32_t a)
{
	return (x & (a - 1)) == 0;
}

static uint64_t io_at(const struct disk_io *io)
{
	return io->offset + (io->len - io->data->left);
}

static void io_iovec(struct disk_io *io, struct step *s)
{
	s->v = cursor_whole(io->data, &s->n);
	s->n = MIN(s->n, (unsigned)IOV_MAX);
	if (s->v == NULL) {
		s->v = io->iov;
		s->n = cursor_iovec(io->data, SIZE_MAX, io->iov, DISK_IO_IOVECS);
	}
}

static bool place_aligned(const struct disk_file *f, const struct disk_io *io)
{
	return aligned(io_at(io) | io->data->left, f->align_offset);
}

static bool memory_aligned(const struct disk_file *f, const struct step *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (!aligned((uintptr_t)s->v[i].iov_base, f->align_mem) ||
			!aligned(s->v[i].iov_len, f->align_offset))
			return false;
	return true;
}

static void io_plan(const struct disk_file *f, struct disk_io *io, struct step *s)
{
	s->fd = f->fd;
	s->at = io_at(io);
	if (io->bounce != NULL) {
		io->iov[0] = (struct iovec){io->bounce, MIN(io->data->left, BOUNCE_SIZE)};
		s->v = io->iov;
		s->n = 1;
		if (io->op != DISK_READ)
			disk_bounce_fill(io);
	} else {
		io_iovec(io, s);
	}
	if (f->direct && (!place_aligned(f, io) || !memory_aligned(f, s)))
		s->fd = f->buffered;
}

/* n bytes were transferred. 0: all done; -EAGAIN: go on; else what went wrong. */
static int io_advance(struct disk_io *io, ssize_t n)
{
	if (n < 0)
		return (int)n;
	if (n == 0)
		return -EIO; /* the file is shorter than the disk */
	if (io->bounce != NULL && io->op == DISK_READ)
		cursor_put(io->data, io->bounce, (size_t)n);
	else
		cursor_skip(io->data, (size_t)n);
	return io->data->left == 0 ? 0 : -EAGAIN;
}

static ssize_t step_run(const struct disk_io *io, const struct step *s, int flags)
{
	ssize_t n;

	do
		n = io->op == DISK_READ ? preadv2(s->fd, s->v, (int)s->n, (off_t)s->at, flags)
					: pwritev2(s->fd, s->v, (int)s->n, (off_t)s->at, flags);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Jobs: in a pool thread */

static int rw_run(struct disk_file *f, struct disk_io *io)
{
	int flags = (io->flags & DISK_FUA) ? RWF_DSYNC : 0;
	int r = -EAGAIN;

	while (r == -EAGAIN) {
		struct step s;

		io_plan(f, io, &s);
		r = io_advance(io, step_run(io, &s, flags));
	}
	return r;
}

static int file_allocate(const struct disk_file *f, const struct disk_io *io, int mode)
{
	int r;

	do
		r = fallocate(f->buffered, mode | FALLOC_FL_KEEP_SIZE, (off_t)io->offset, (off_t)io->len);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* "Can't be done here": worth another way. Misaligned ranges of a block device give EINVAL. */
static bool unsupported(int r)
{
	return r == -EOPNOTSUPP || r == -ENOTTY || r == -EINVAL || r == -ENOSYS;
}

static int zeroes_write(const struct disk_file *f, const struct disk_io *io)
{
	static const char zeroes[65536];
	uint64_t at = io->offset, end = io->offset + io->len;

	while (at < end) {
		ssize_t n = pwrite(f->buffered, zeroes, MIN(sizeof(zeroes), end - at), (off_t)at);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EIO;
		at += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

static int zeroes_run(const struct disk_file *f, const struct disk_io *io)
{
	int r = -EOPNOTSUPP;

	if (io->flags & DISK_UNMAP)
		r = file_allocate(f, io, FALLOC_FL_PUNCH_HOLE);
	if (unsupported(r))
		r = file_allocate(f, io, FALLOC_FL_ZERO_RANGE);
	if (unsupported(r))
		r = zeroes_write(f, io);
	if (r == 0 && (io->flags & DISK_FUA) && fdatasync(f->fd) < 0)
		r = -errno;
	return r;
}

/* A hint: that the host can't follow it is no failure. */
static int discard_run(const struct disk_file *f, const struct disk_io *io)
{
	uint64_t mask = f->disk.limits.logical - 1;
	uint64_t start = (io->offset + mask) & ~mask, end = (io->offset + io->len) & ~mask;
	uint64_t range[2] = {start, end - start};
	int r;

	if (!f->block_dev)
		r = file_allocate(f, io, FALLOC_FL_PUNCH_HOLE);
	else if (start >= end)
		r = 0;
	else
		r = ioctl(f->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	return unsupported(r) ? 0 : r;
}

static int erase_run(const struct disk_file *f, const struct disk_io *io)
{
	uint64_t range[2] = {io->offset, io->len};

	return ioctl(f->fd, BLKSECDISCARD, range) < 0 ? -errno : 0;
}

/*
 * What changes meanwhile may be seen or not. A block device, and a file system that does not say, have no holes. Holes that are
 * smaller than what is asked for count as data and take no room in the answer, so their number has a limit of its own.
 */
static int status_run(const struct disk_file *f, struct disk_io *io)
{
	bool more = true;

	for (unsigned i = 0; more && (i < STATUS_ROUNDS || io->extents->covered < io->extents->align); i++) {
		uint64_t at = io->offset + io->extents->covered;
		off_t data = lseek(f->buffered, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO) {
			more = disk_extents_add(io, UINT64_MAX, true);
		} else if (data > (off_t)at) {
			more = disk_extents_add(io, (uint64_t)data - at, true);
		} else {
			hole = data < 0 ? -1 : lseek(f->buffered, (off_t)at, SEEK_HOLE);
			more = disk_extents_add(
				io, hole > (off_t)at ? (uint64_t)hole - at : UINT64_MAX, false);
		}
	}
	return 0;
}

static void job_run(struct job *j)
{
	struct disk_io *io = container_of(j, struct disk_io, job);
	struct disk_file *f = io_lane(io)->file;

	switch (io->op) {
	case DISK_FLUSH:
		io->result = fdatasync(f->fd) < 0 ? -errno : 0;
		break;
	case DISK_DISCARD:
		io->result = discard_run(f, io);
		break;
	case DISK_WRITE_ZEROES:
		io->result = zeroes_run(f, io);
		break;
	case DISK_SECURE_ERASE:
		io->result = erase_run(f, io);
		break;
	case DISK_STATUS:
		io->result = status_run(f, io);
		break;
	case DISK_READ:
	case DISK_WRITE:
		io->result = rw_run(f, io);
		break;
	case DISK_ZONE_WRITE:
	case DISK_ZONE_APPEND:
		io->result = disk_zone_write(f, io, rw_run);
		break;
	default:
		io->result = disk_zone_manage(f, io);
		break;
	}
}

/* Later: in the loop again */

static void io_start(struct file_lane *l, struct disk_io *io);

static void io_end(struct disk_io *io, int result)
{
	struct file_lane *l = io_lane(io);
	struct disk_io *next = io->bounce != NULL ? disk_bounce_put(&l->bounces, io->bounce) : NULL;

	if (next != NULL)
		io_start(l, next);
	disk_io_end(io, result);
}

static void job_done(struct job *j)
{
	struct disk_io *io = container_of(j, struct disk_io, job);

	io_end(io, io->result);
}

static void job_start(struct file_lane *l, struct disk_io *io)
{
	io->job = (struct job){.run = job_run, .done = job_done, .loop = l->lane.loop};
	pool_submit(l->file->pool, &io->job);
}

static void ring_done(struct uring_op *op, int res)
{
	struct disk_io *io = container_of(op, struct disk_io, uring);
	struct file_lane *l = io_lane(io);

	/* the kernel would not wait after all, or was interrupted: somebody has to */
	if (res == -EAGAIN || res == -EINTR) {
		job_start(l, io);
		return;
	}
	if (io->op != DISK_FLUSH)
		res = io_advance(io, res);
	if (res == -EAGAIN)
		io_start(l, io);
	else
		io_end(io, res);
}

static void ring_start(struct file_lane *l, struct disk_io *io, const struct step *s)
{
	int fd = l->fixed >= 0 ? l->fixed : l->file->fd;
	struct io_uring_sqe *sqe;

	io->uring = (struct uring_op){.done = ring_done};
	sqe = uring_sqe(l->ring, &io->uring);
	if (io->op == DISK_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (io->op == DISK_READ)
		io_uring_prep_readv(sqe, fd, s->v, s->n, s->at);
	else
		io_uring_prep_writev(sqe, fd, s->v, s->n, s->at);
	if (io->op == DISK_WRITE && (io->flags & DISK_FUA))
		sqe->rw_flags = RWF_DSYNC;
	if (l->fixed >= 0)
		sqe->flags |= IOSQE_FIXED_FILE;
}

/* Operations with data: the next step, asynchronously. */
static void io_start(struct file_lane *l, struct disk_io *io)
{
	const struct disk_file *f = l->file;
	struct step s;

	if (f->direct && !place_aligned(f, io)) {
		job_start(l, io);
		return;
	}
	io_plan(f, io, &s);
	if (s.fd != f->fd && io->bounce == NULL) {
		io->bounce = disk_bounce_get(&l->bounces);
		if (io->bounce == NULL && disk_bounce_wait(&l->bounces, io))
			return;
		if (io->bounce != NULL)
			io_plan(f, io, &s);
	}
	if (l->ring == NULL || s.fd != f->fd || io->op > DISK_WRITE)
		job_start(l, io);
	else
		ring_start(l, io, &s);
}

/* Now: without waiting */

static ssize_t read_now(struct file_lane *l, const struct disk_io *io, const struct step *s)
{
	ssize_t n;

	if (!l->file->now || (l->misses >= MISSES_MAX && ++l->skipped < MISSES_MAX))
		return -EAGAIN;
	l->skipped = 0;
	n = step_run(io, s, l->file->now_flags);
	if (n == -EAGAIN && l->misses < MISSES_MAX)
		l->misses++;
	else if (n > 0)
		l->misses = 0;
	return n;
}

/* How often this thread went to sleep. */
static long sleeps(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) < 0 ? 0 : u.ru_nvcsw;
}

/*
 * A slow write may only have lost the processor to somebody else. So the first one makes us suspicious, and among the
 * next ones a slow one that slept is what turns the lane asynchronous.
 */
static ssize_t write_timed(struct file_lane *l, const struct disk_io *io, const struct step *s)
{
	uint64_t start = time_ns(), took;
	long slept = 0;
	ssize_t n;

	if (start < l->write_again)
		return -EAGAIN;
	if (l->suspicion > 0)
		slept = sleeps();
	n = step_run(io, s, 0);
	took = time_ns() - start;
	if (took <= SLOW_NS + io->len) {
		if (l->suspicion > 0 && --l->suspicion == 0)
			l->backoff = BACKOFF_MIN;
	} else if (l->suspicion == 0) {
		l->suspicion = SUSPICIONS;
	} else if (sleeps() != slept) {
		l->suspicion = SUSPICIONS;
		l->write_again = start + took + l->backoff;
		l->backoff = MIN(l->backoff * 2, BACKOFF_MAX);
	}
	return n;
}

static ssize_t write_now(struct file_lane *l, const struct disk_io *io, const struct step *s)
{
	ssize_t n;

	if (l->write_mode == WRITE_ASYNC || (io->flags & DISK_FUA))
		return -EAGAIN;
	if (l->write_mode == WRITE_TIMED)
		return write_timed(l, io, s);
	n = step_run(io, s, RWF_NOWAIT);
	if (n != -EOPNOTSUPP)
		return n;
	l->write_mode = WRITE_TIMED;
	return write_timed(l, io, s);
}

/* 0 or what went wrong; -EAGAIN: the rest has to wait. */
static int rw_now(struct file_lane *l, struct disk_io *io)
{
	ssize_t n;
	int r;

	do {
		struct step s;

		s.fd = l->file->fd;
		s.at = io_at(io);
		io_iovec(io, &s);
		n = io->op == DISK_READ ? read_now(l, io, &s) : write_now(l, io, &s);
		if (n == -EAGAIN)
			return -EAGAIN;
		r = io_advance(io, n);
	} while (r == -EAGAIN);
	return r;
}

static bool rw_submit(struct file_lane *l, struct disk_io *io)
{
	int r = io->len == 0 ? 0 : l->file->direct ? -EAGAIN : rw_now(l, io);

	if (r != -EAGAIN)
		return disk_io_now(io, r);
	io->bounce = NULL;
	io_start(l, io);
	return false;
}

static bool zone_submit(struct file_lane *l, struct disk_io *io)
{
	if (io->len == 0 || !aligned(io->offset | io->len, l->lane.disk->limits.logical))
		return disk_io_now(io, -EINVAL);
	io_start(l, io);
	return false;
}

bool disk_io_submit(struct disk_lane *lane, struct disk_io *io)
{
	struct file_lane *l = container_of(lane, struct file_lane, lane);

	if (io->op == DISK_READ)
		return rw_submit(l, io);
	if (lane->disk->limits.read_only && io->op != DISK_ZONE_REPORT && io->op != DISK_STATUS)
		return disk_io_now(io, io->op == DISK_FLUSH ? 0 : -EROFS);
	if (io->op == DISK_WRITE)
		return rw_submit(l, io);
	io->bounce = NULL;
	if (io->op == DISK_ZONE_WRITE || io->op == DISK_ZONE_APPEND)
		return zone_submit(l, io);
	if (io->op == DISK_FLUSH && l->ring != NULL)
		ring_start(l, io, NULL);
	else
		job_start(l, io);
	return false;
}

/* Lanes */

struct disk_lane *disk_io_lane_new(struct disk *d, struct loop *loop)
{
	struct disk_file *f = container_of(d, struct disk_file, disk);
	struct file_lane *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->file = f;
	l->fixed = -1;
	l->backoff = BACKOFF_MIN;
	disk_bounces_init(&l->bounces);
	/* only a local file system may be written to in the loop */
	l->write_mode = f->now ? WRITE_NOWAIT : WRITE_ASYNC;
	if (f->uring)
		l->ring = uring_get(loop);
	if (l->ring != NULL)
		l->fixed = uring_register_file(l->ring, f->fd);
	return &l->lane;
}

void disk_io_lane_free(struct disk_lane *lane)
{
	struct file_lane *l = container_of(lane, struct file_lane, lane);

	if (l->fixed >= 0)
		uring_unregister_file(l->ring, l->file->fd);
	disk_bounces_free(&l->bounces);
	free(l);
}
