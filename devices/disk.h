/* SPDX-License-Identifier: MIT */
/*
 * The host end for blocks: what block and scsi have behind them. A disk is opened once per process; each loop that
 * submits to it has a lane of it, and everything about one request happens in its lane's loop, without locks.
 *
 * A request is a struct disk_io inside the caller's own request. What can be done at once (the page cache has it, the disk
 * is a null disk) is done inside disk_submit(), which says so; everything else is batched until the end of the turn and
 * ends with done(). The data stays where it is: the disk reads and writes the guest's memory through the cursor.
 *
 * Who submits checks the range against disk_size() first, so that each device can answer in its own words. A disk whose
 * file became shorter than that answers -EIO.
 */
#ifndef DISK_H
#define DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cursor.h"
#include "loop.h"
#include "options.h"
#include "pool.h"
#include "uring.h"

enum disk_aio { DISK_AIO_AUTO, DISK_AIO_URING, DISK_AIO_THREADS };
extern const char *const disk_aio_names[];

/* One of path and null_size is given. */
struct disk_options {
	const char *path;
	uint64_t null_size; /* bytes */
	bool read_only, direct, lock;
	enum disk_aio aio;
};

/* Rows for the option table of a device whose state has a struct disk_options as member. */
#define DISK_OPTIONS(type, member)                                                                                   \
	{.name = "blk-file",                                                                                         \
		.kind = OPTION_PATH,                                                                                 \
		OPTION_FIELD(type, member.path),                                                                     \
		.arg = "PATH",                                                                                       \
		.help = "raw image file or block device that holds the disk's content"},                             \
		{.name = "null",                                                                                     \
			.kind = OPTION_SIZE,                                                                         \
			OPTION_FIELD(type, member.null_size),                                                        \
			.arg = "SIZE",                                                                               \
			.help = "instead of a file: a disk of this size that stores nothing and leaves the buffers " \
				"of reads as they are; for measuring",                                               \
			.min = 512,                                                                                  \
			.max = INT64_MAX},                                                                           \
		{.name = "read-only",                                                                                \
			.kind = OPTION_FLAG,                                                                         \
			OPTION_FIELD(type, member.read_only),                                                        \
			.help = "open the file read-only and refuse to write"},                                      \
		{.name = "direct",                                                                                   \
			.kind = OPTION_FLAG,                                                                         \
			OPTION_FIELD(type, member.direct),                                                           \
			.help = "bypass the host's page cache (O_DIRECT)"},                                          \
		{.name = "lock",                                                                                     \
			.kind = OPTION_SWITCH,                                                                       \
			OPTION_FIELD(type, member.lock),                                                             \
			.def = "on",                                                                                 \
			.help = "lock the image as QEMU does: one writer, or any number of readers; off for live "   \
				"migration with both ends on one image"},                                            \
	{                                                                                                            \
		.name = "aio", .kind = OPTION_ENUM, OPTION_FIELD(type, member.aio),                                  \
		.choices = disk_aio_names, .def = "auto",                                                            \
		.help = "how to do what would block: auto takes io_uring where it is permitted, else threads"        \
	}

struct disk;
struct disk_lane;

/* All in bytes. Fixed while the disk is open. */
struct disk_limits {
	uint32_t logical, physical;   /* block sizes; powers of two, 512 <= logical <= physical */
	uint32_t io_min, io_opt;      /* preferred sizes, 0: none */
	uint32_t discard_granularity; /* power of two */
	bool read_only;
	bool discard, write_zeroes; /* supported, both false when read_only */
};

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,	  /* what was written before is on stable storage */
	DISK_DISCARD,	  /* the content of the range is of no interest any more */
	DISK_WRITE_ZEROES /* the range reads as zeroes afterwards */
};

enum {
	DISK_FUA = 1,	/* WRITE, WRITE_ZEROES: on stable storage when done */
	DISK_UNMAP = 2, /* WRITE_ZEROES: may give the space back; else it stays allocated */
};

#define DISK_IO_IOVECS 8

struct disk_io {
	/* Set by the caller. */
	void (*done)(struct disk_io *io); /* in the lane's loop */
	struct cursor *data; /* READ, WRITE: all of what is left of it; must not move meanwhile */
	uint64_t offset;     /* bytes, a multiple of 512; so are the lengths */
	uint64_t len;	     /* DISCARD, WRITE_ZEROES; READ, WRITE: set by disk_submit() */
	uint8_t op, flags;

	int result; /* 0 or -errno, already logged */

	/* Private. */
	struct disk_lane *lane;
	void *bounce;
	struct disk_io *next;
	union {
		struct uring_op uring;
		struct job job;
	};
	struct iovec iov[DISK_IO_IOVECS];
};

/* 0 or -errno, logged. */
int disk_open(struct disk **out, const struct disk_options *options);
/* No request may be in flight; the loops with lanes must still exist. NULL is fine. */
void disk_close(struct disk *d);

const struct disk_limits *disk_limits(const struct disk *d);
/* Any thread; a multiple of 512. */
uint64_t disk_size(const struct disk *d);
/* For messages: the path or "null". */
const char *disk_name(const struct disk *d);

static inline bool disk_holds(const struct disk *d, uint64_t offset, uint64_t len)
{
	uint64_t size = disk_size(d);

	return offset <= size && len <= size - offset;
}

/* The lane of this loop, made at the first call; lives until disk_close(). In the loop. 0 or -errno, logged. */
int disk_lane_get(struct disk *d, struct loop *l, struct disk_lane **out);

/* True: done already, io->result says how, done() is not called. False: done() comes later. */
bool disk_submit(struct disk_lane *lane, struct disk_io *io);

#endif
