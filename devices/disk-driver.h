/* SPDX-License-Identifier: MIT */
/* Private to disk-*.c: what a kind of disk provides. Drivers embed these structures at the beginning of their own. */
#ifndef DISK_DRIVER_H
#define DISK_DRIVER_H

#include "disk.h"

struct disk_driver {
	const char *name;
	/* Fills limits and size. -errno, logged; leaves nothing behind. */
	int (*open)(struct disk **out, const struct disk_options *options);
	void (*close)(struct disk *d);
	/* In the loop. NULL: out of memory. */
	struct disk_lane *(*lane_new)(struct disk *d, struct loop *l);
	void (*lane_free)(struct disk_lane *lane);
	bool (*submit)(struct disk_lane *lane, struct disk_io *io); /* as disk_submit() */
};

struct disk {
	const struct disk_driver *driver;
	const char *name; /* borrowed from the options */
	uint64_t size;	  /* atomic */
	struct disk_limits limits;
	pthread_mutex_t lock; /* lanes */
	struct disk_lane *lanes;
};

struct disk_lane {
	struct disk *disk;
	struct loop *loop;
	struct disk_lane *next;
};

extern const struct disk_driver disk_file, disk_null;

/* The pool for blocking calls: one per process, however many disks there are. disk_pool_put() gives it back. */
struct pool *disk_pool_get(void); /* NULL with errno */
void disk_pool_put(void);

/* Ends a request later than in submit(); logs a failure. */
void disk_io_end(struct disk_io *io, int result);
/* Ends it in submit(): return disk_io_now(io, result). */
bool disk_io_now(struct disk_io *io, int result);

#endif
