/* SPDX-License-Identifier: MIT */
/*
 * How long a file of the host is, and who notices that it became longer. inotify(7) tells when somebody who could have
 * written to it closes it; to be told of each change would mean an event for each of our own writes. Devices of the
 * host tell nobody, there it takes the command.
 */
#include "disk-file.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "log.h"
#include "util.h"

int64_t disk_file_size(const struct disk_file *f)
{
	uint64_t size;
	struct stat st;

	if (f->block_dev)
		return ioctl(f->fd, BLKGETSIZE64, &size) < 0 ? -errno : (int64_t)size;
	return fstat(f->fd, &st) < 0 ? -errno : st.st_size;
}

static int grow(const struct disk_file *f, uint64_t size)
{
	int64_t now = disk_file_size(f);

	if (f->disk.limits.read_only)
		return -EROFS;
	if (f->block_dev)
		return -EOPNOTSUPP;
	if (now < 0)
		return (int)now;
	if (size % 512 != 0 || size > INT64_MAX || (int64_t)size < now)
		return -EINVAL;
	return ftruncate(f->buffered, (off_t)size) < 0 ? -errno : 0;
}

int disk_file_resize(struct disk *d, uint64_t size)
{
	const struct disk_file *f = container_of(d, struct disk_file, disk);
	int r = size == 0 ? 0 : grow(f, size);
	int64_t now;

	if (r < 0)
		return r;
	now = disk_file_size(f);
	if (now < 0)
		return (int)now;
	disk_set_size(d, ALIGN_DOWN((uint64_t)now, 512u));
	return 0;
}

static void inotify_ready(struct watch *w, uint32_t events)
{
	struct disk_file *f = container_of(w, struct disk_file, inotify);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	int r;

	(void)events;
	while (read(w->fd, buf, sizeof(buf)) > 0)
		;
	r = disk_file_resize(&f->disk, 0);
	if (r < 0)
		log_warn("%s: its size: %s", f->disk.name, strerror(-r));
}

/* Without it the disk works all the same. */
int disk_file_listen(struct disk *d, struct loop *l)
{
	struct disk_file *f = container_of(d, struct disk_file, disk);
	char self[64];
	int r = 0;

	/* the inode that we have, whatever the name means by now */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	f->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	f->inotify.ready = inotify_ready;
	if (f->inotify_fd < 0 || inotify_add_watch(f->inotify_fd, self, IN_CLOSE_WRITE | IN_ATTRIB) < 0)
		r = -errno;
	else
		r = watch_add(l, &f->inotify, f->inotify_fd, EPOLLIN);
	if (r < 0) {
		log_warn("%s: a new size will not be noticed: %s", d->name, strerror(-r));
		fd_close(&f->inotify_fd);
	}
	return 0;
}

void disk_file_unlisten(struct disk *d)
{
	struct disk_file *f = container_of(d, struct disk_file, disk);

	watch_del(&f->inotify);
	fd_close(&f->inotify_fd);
}

static bool attribute_read(const char *dir, const char *name, unsigned *a, unsigned *b)
{
	char path[160];
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "re");
	if (file == NULL)
		return false;
	n = fscanf(file, "%x %x", a, b);
	fclose(file);
	return n >= 1 && *a <= UINT16_MAX && *b <= UINT16_MAX;
}

bool disk_lifetime_read(const char *dir, struct disk_lifetime *out)
{
	unsigned eol, a, b = 0, unused = 0;

	if (!attribute_read(dir, "pre_eol_info", &eol, &unused) || !attribute_read(dir, "life_time", &a, &b))
		return false;
	*out = (struct disk_lifetime){(uint16_t)eol, (uint16_t)a, (uint16_t)b};
	return true;
}
