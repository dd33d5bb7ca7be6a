/* SPDX-License-Identifier: MIT */
/* Private to disk-file.c (what the file is), disk-io.c (how it is read and written) and disk-size.c (how long it is). */
#ifndef DISK_FILE_H
#define DISK_FILE_H

#include "disk-driver.h"

struct disk_file {
	struct disk disk;
	int fd;
	int buffered; /* direct: the same file without O_DIRECT, for what is not aligned; else == fd */
	bool direct, block_dev; /* block_dev: of the host */
	bool now;		/* reads and writes may be tried in the loop: the file system is local */
	int now_flags;		/* of such a read: RWF_NOWAIT, or 0 where all is in memory anyway */
	bool uring;
	uint32_t align_mem, align_offset; /* direct: what O_DIRECT wants */
	struct pool *pool;
	struct watch inotify;
	int inotify_fd; /* or -1 */
	uint64_t zones;
	pthread_mutex_t zone_locks[16]; /* of the zones with these numbers modulo 16 */
};

struct disk_lane *disk_io_lane_new(struct disk *d, struct loop *l);
void disk_io_lane_free(struct disk_lane *lane);
bool disk_io_submit(struct disk_lane *lane, struct disk_io *io);

/* Locks the image as QEMU does. 0, or -EAGAIN when somebody else has it, -errno. */
int disk_image_lock(int fd, bool read_only);

/* disk-size.c */
/* Bytes, or -errno; not cut to sectors. */
int64_t disk_file_size(const struct disk_file *f);
int disk_file_resize(struct disk *d, uint64_t size);
int disk_file_listen(struct disk *d, struct loop *l);
void disk_file_unlisten(struct disk *d);

/* Of a device of the host, from its directory in sysfs. */
bool disk_lifetime_read(const char *dir, struct disk_lifetime *out);

#endif
