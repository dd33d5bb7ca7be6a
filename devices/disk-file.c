/* SPDX-License-Identifier: MIT */
/*
 * A raw image file or a block device of the host: opening it, finding out what it can do, and locking it. Reading and
 * writing are in disk-io.c.
 *
 * The lock is QEMU's: one byte per permission, at 100 for what we do and at 200 for what we don't suffer from others,
 * all taken as shared OFD locks (fcntl(2)) and then checked against the opposite byte of everybody else. Two that start
 * at the same moment may both give up, but never both go on. So an image that a QEMU process writes to is refused, and
 * the other way round. After a kill the kernel may hold the file for another moment, or seconds on a busy host: io_uring
 * ends in the background, with writes that may still land. Waiting for the lock is what keeps these from coming after
 * our own, therefore a conflict counts only when it stays.
 */
#include "disk-file.h"
#include "disk-zone.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

#include "log.h"
#include "util.h"

enum { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3 }; /* QEMU's permission bits */
#define LOCK_USED     100
#define LOCK_UNSHARED 200
#define LOCK_TRIES    500
#define LOCK_PAUSE_NS 10000000

static int lock_byte(int fd, off_t at)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* True when somebody else has the byte. */
static bool byte_is_locked(int fd, off_t at)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int lock_try(int fd, bool read_only)
{
	int r = lock_byte(fd, LOCK_USED + PERM_READ);

	if (r == 0 && !read_only)
		r = lock_byte(fd, LOCK_USED + PERM_WRITE);
	if (r == 0)
		r = lock_byte(fd, LOCK_UNSHARED + PERM_WRITE);
	if (r == 0)
		r = lock_byte(fd, LOCK_UNSHARED + PERM_RESIZE);
	if (r < 0)
		return r == -EACCES ? -EAGAIN : r;
	if (byte_is_locked(fd, LOCK_UNSHARED + PERM_READ) || byte_is_locked(fd, LOCK_USED + PERM_WRITE) ||
		byte_is_locked(fd, LOCK_USED + PERM_RESIZE))
		return -EAGAIN;
	return !read_only && byte_is_locked(fd, LOCK_UNSHARED + PERM_WRITE) ? -EAGAIN : 0;
}

int disk_image_lock(int fd, bool read_only)
{
	struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	int r = -EAGAIN;

	for (int i = 0; i < LOCK_TRIES && r == -EAGAIN; i++) {
		if (i > 0)
			nanosleep(&pause, NULL);
		r = lock_try(fd, read_only);
	}
	return r;
}

static int file_lock(const struct disk_file *f)
{
	int r = disk_image_lock(f->fd, f->disk.limits.read_only);

	if (r == -EAGAIN)
		return log_errno(r, "%s: another process uses this image (--lock=off to use it all the same)",
			f->disk.name);
	if (r < 0)
		log_warn("%s: no locks here, the image is not protected against a second writer: %s",
			f->disk.name, strerror(-r));
	return 0;
}

/* /sys/dev/block/MAJOR:MINOR/queue/NAME, cut to size; false: there is none. A partition's queue is its disk's. */
static bool queue_text(dev_t dev, const char *name, char text[32])
{
	static const char *const dirs[] = {"", "../"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(dirs) && !found; i++) {
		char path[128];
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(dev), minor(dev),
			dirs[i], name);
		f = fopen(path, "re");
		if (f == NULL)
			continue;
		found = fscanf(f, "%31s", text) == 1;
		fclose(f);
	}
	return found;
}

static uint64_t queue_limit(dev_t dev, const char *name)
{
	char text[32];

	return queue_text(dev, name, text) ? strtoull(text, NULL, 10) : 0;
}

static bool good_block(uint64_t n)
{
	return n >= 512 && n <= 65536 && (n & (n - 1)) == 0;
}

static uint32_t block_or(uint64_t n, uint32_t other)
{
	return good_block(n) ? (uint32_t)n : other;
}

static int measure_device(struct disk_file *f, const struct stat *st)
{
	struct disk_limits *m = &f->disk.limits;
	unsigned physical = 0, io_min = 0, io_opt = 0;
	char model[32] = "";
	int logical = 0, read_only = 0;

	/* the kernel lets such a device be opened for writing, and refuses each write */
	if (!m->read_only && ioctl(f->fd, BLKROGET, &read_only) == 0 && read_only)
		return log_errno(EROFS, "%s: --read-only is needed", f->disk.name);
	if (ioctl(f->fd, BLKSSZGET, &logical) < 0)
		return log_errno(errno, "%s", f->disk.name);
	ioctl(f->fd, BLKPBSZGET, &physical);
	ioctl(f->fd, BLKIOMIN, &io_min);
	ioctl(f->fd, BLKIOOPT, &io_opt);
	m->logical = block_or((uint64_t)logical, 512);
	m->physical = MAX(m->logical, block_or(physical, m->logical));
	m->io_min = io_min;
	m->io_opt = io_opt;
	m->discard_granularity = block_or(queue_limit(st->st_rdev, "discard_granularity"), m->physical);
	m->discard = !m->read_only && queue_limit(st->st_rdev, "discard_max_bytes") > 0;
	/* a device that can do it finds fault with the range instead */
	m->secure_erase =
		!m->read_only && ioctl(f->fd, BLKSECDISCARD, ((uint64_t[2]){1, 1})) < 0 && errno == EINVAL;
	f->align_offset = m->logical;
	f->align_mem = m->logical;
	m->zones_open = (uint32_t)queue_limit(st->st_rdev, "max_open_zones");
	m->zones_active = (uint32_t)queue_limit(st->st_rdev, "max_active_zones");
	return queue_text(st->st_rdev, "zoned", model) ? disk_zone_measure(f, model) : 0;
}

static void measure_image(struct disk_file *f, const struct stat *st)
{
	struct disk_limits *m = &f->disk.limits;
	uint32_t block = block_or((uint64_t)st->st_blksize, 4096);

	f->align_offset = f->align_mem = MIN(block, 4096u);
	m->logical = 512;
	m->physical = block;
	m->discard_granularity = block;
	/* a hole behind the end changes nothing, but says whether holes can be made */
	m->discard = !m->read_only && fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					      ALIGN_UP(st->st_size, 65536), 65536) == 0;
	m->discard_zeroes = m->discard;
}

/* What O_DIRECT wants, where the kernel says so (Linux 6.1). */
static void measure_direct(struct disk_file *f)
{
	struct disk_limits *m = &f->disk.limits;
	struct statx x;

	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) == 0 && (x.stx_mask & STATX_DIOALIGN) &&
		x.stx_dio_offset_align != 0) {
		f->align_mem = MAX(x.stx_dio_mem_align, 1u);
		f->align_offset = x.stx_dio_offset_align;
	}
	m->logical = MAX(m->logical, block_or(f->align_offset, 512));
	m->physical = MAX(m->logical, m->physical);
}

/* Which calls don't wait? A file system in memory knows no RWF_NOWAIT, and needs none. */
static void measure_now(struct disk_file *f)
{
	char byte;
	struct iovec v = {.iov_base = &byte, .iov_len = 1};
	struct statfs fs;

	if (f->direct)
		return;
	if (preadv2(f->fd, &v, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN) {
		f->now = true;
		f->now_flags = RWF_NOWAIT;
	} else if (fstatfs(f->fd, &fs) == 0) {
		f->now = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	}
}

static int file_measure(struct disk_file *f)
{
	const char *name = f->disk.name;
	struct stat st;
	int64_t size;
	int r = 0;

	if (fstat(f->fd, &st) < 0)
		return log_errno(errno, "%s", name);
	f->block_dev = S_ISBLK(st.st_mode);
	if (f->block_dev)
		r = measure_device(f, &st);
	else if (S_ISREG(st.st_mode))
		measure_image(f, &st);
	else
		r = log_errno(EINVAL, "%s: neither a file nor a block device", name);
	if (r < 0)
		return r;
	size = disk_file_size(f);
	if (size < 0)
		return log_errno((int)size, "%s", name);
	if (size % 512 != 0)
		log_warn("%s: the last %u of %" PRIi64 " bytes fill no sector and are not used", name,
			(unsigned)(size % 512), size);
	f->disk.size = ALIGN_DOWN((uint64_t)size, 512u);
	if (f->disk.size == 0)
		return log_errno(EINVAL, "%s: shorter than a sector of 512 bytes", name);
	f->disk.limits.write_zeroes = !f->disk.limits.read_only && f->disk.limits.zone_sectors == 0;
	if (f->direct)
		measure_direct(f);
	measure_now(f);
	return 0;
}

/* O_NONBLOCK only lets the open of a FIFO return; io_uring would take it for "never wait". */
static int file_open_fd(struct disk_file *f)
{
	int flags = f->disk.limits.read_only ? O_RDONLY : O_RDWR;
	char self[64];

	f->fd = open(f->disk.name, flags | O_CLOEXEC | O_NONBLOCK | (f->direct ? O_DIRECT : 0));
	if (f->fd < 0 && errno == EINVAL && f->direct)
		return log_errno(errno, "%s: no direct I/O on this file system", f->disk.name);
	if (f->fd < 0 || fcntl(f->fd, F_SETFL, f->direct ? O_DIRECT : 0) < 0)
		return log_errno(errno, "%s", f->disk.name);
	f->buffered = f->fd;
	if (!f->direct)
		return 0;
	/* the same inode again, even if the name means another by now */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	f->buffered = open(self, flags | O_CLOEXEC);
	return f->buffered < 0 ? log_errno(errno, "%s", f->disk.name) : 0;
}

static void file_free(struct disk_file *f)
{
	if (f->pool != NULL)
		disk_pool_put();
	if (f->buffered != f->fd)
		fd_close(&f->buffered);
	fd_close(&f->fd);
	free(f);
}

static int file_setup(struct disk_file *f, const struct disk_options *o)
{
	int r = file_open_fd(f);

	if (r == 0)
		r = file_measure(f);
	if (r == 0 && o->lock)
		r = file_lock(f);
	if (r < 0)
		return r;
	f->uring = o->aio != DISK_AIO_THREADS && uring_available();
	if (o->aio == DISK_AIO_URING && !f->uring)
		return log_errno(ENOSYS, "--aio=io_uring");
	f->pool = disk_pool_get();
	return f->pool == NULL ? log_errno(errno, "%s: threads", f->disk.name) : 0;
}

static int file_open(struct disk **out, const struct disk_options *o)
{
	struct disk_file *f = calloc(1, sizeof(*f));
	int r;

	if (f == NULL)
		return log_errno(ENOMEM, "%s", o->path);
	f->disk.name = o->path;
	f->disk.limits.read_only = o->read_only;
	f->direct = o->direct;
	f->fd = f->buffered = f->inotify_fd = -1;
	r = file_setup(f, o);
	if (r < 0) {
		file_free(f);
		return r;
	}
	*out = &f->disk;
	return 0;
}

static void file_close(struct disk *d)
{
	file_free(container_of(d, struct disk_file, disk));
}

static bool file_lifetime(const struct disk *d, struct disk_lifetime *out)
{
	static const char *const dirs[] = {"device", "../device"}; /* a partition's is its disk's */
	const struct disk_file *f = container_of(d, const struct disk_file, disk);
	bool known = false;
	struct stat st;

	if (!f->block_dev || fstat(f->fd, &st) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(dirs) && !known; i++) {
		char dir[96];

		snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u/%s", major(st.st_rdev), minor(st.st_rdev),
			dirs[i]);
		known = disk_lifetime_read(dir, out);
	}
	return known;
}

const struct disk_driver disk_file = {
	.name = "file",
	.open = file_open,
	.close = file_close,
	.lane_new = disk_io_lane_new,
	.lane_free = disk_io_lane_free,
	.submit = disk_io_submit,
	.resize = disk_file_resize,
	.listen = disk_file_listen,
	.unlisten = disk_file_unlisten,
	.lifetime = file_lifetime,
};
