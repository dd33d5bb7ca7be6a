/* SPDX-License-Identifier: MIT */
/* Private to disk-*.c: what a kind of disk provides. Drivers embed these structures at the beginning of their own. */
#ifndef DISK_DRIVER_H
#define DISK_DRIVER_H

#include "disk.h"
#include "disk-throttle.h"

struct disk_driver {
	const char *name;
	/* Fills limits and size. -errno, logged; leaves nothing behind. */
	int (*open)(struct disk **out, const struct disk_options *options);
	void (*close)(struct disk *d);
	/* In the loop. NULL: out of memory. */
	struct disk_lane *(*lane_new)(struct disk *d, struct loop *l);
	void (*lane_free)(struct disk_lane *lane);
	bool (*submit)(struct disk_lane *lane, struct disk_io *io); /* as disk_submit(), but never holds */
	/* The rest may be NULL. */
	void (*withdraw)(struct disk_lane *lane, bool (*take)(struct disk_io *io, void *arg), void *arg);
	int (*resize)(struct disk *d, uint64_t size);  /* as disk_resize(); tells by disk_set_size() */
	int (*listen)(struct disk *d, struct loop *l); /* for changes of the size; in l */
	void (*unlisten)(struct disk *d);
	bool (*lifetime)(const struct disk *d, struct disk_lifetime *out);
};

struct disk {
	const struct disk_driver *driver;
	const char *name; /* borrowed from the options */
	uint64_t size;	  /* atomic */
	struct disk_limits limits;
	struct throttle *throttle; /* NULL: no limits */
	pthread_mutex_t lock;	   /* of what follows */
	struct disk_lane *lanes;
	struct disk_watch *watches;
};

struct disk_lane {
	struct disk *disk;
	struct loop *loop;
	struct disk_lane *next;
	bool closed;			   /* the driver's: requests are held; disk_lane_open() ends it */
	struct disk_io *held, **held_tail; /* in the order they came */
	struct timer turn;
	struct throttle_lane credit;
};

extern const struct disk_driver disk_file, disk_nbd, disk_null;

/* What is held goes on, as far as the limits allow. In the lane's loop. */
void disk_lane_open(struct disk_lane *lane);
/* Any thread: tells the watches if it is another one. */
void disk_set_size(struct disk *d, uint64_t size);

/* The pool for blocking calls: one per process, however many disks there are. disk_pool_put() gives it back. */
struct pool *disk_pool_get(void); /* NULL with errno */
void disk_pool_put(void);

/* DISK_STATUS: so many bytes more, of which what is beyond the range does not count. False: that is all that was asked for. */
bool disk_extents_add(struct disk_io *io, uint64_t len, bool hole);

/* Ends a request later than in submit(); logs a failure. */
void disk_io_end(struct disk_io *io, int result);
/* Ends it in submit(): return disk_io_now(io, result). */
bool disk_io_now(struct disk_io *io, int result);

#endif
