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

/* One of path, nbd and null_size is given. The strings are borrowed while the disk is open. */
struct disk_options {
	const char *path;
	const char *nbd;    /* URI */
	uint64_t nbd_retry; /* ms that requests wait for a lost server; 0: they fail at once */
	uint64_t null_size; /* bytes */
	bool read_only, direct, lock;
	enum disk_aio aio;
	/* Limits per second, 0: none. Bursts: what may come at once after a rest; 0: what the limit allows in 0.1 s. */
	uint64_t iops, iops_burst; /* requests */
	uint64_t bps, bps_burst;   /* bytes read and written */
};

/* Rows for the option table of a device whose state has a struct disk_options as member. */
#define DISK_OPTIONS(type, member)                                                                                   \
	{.name = "blk-file",                                                                                         \
		.kind = OPTION_PATH,                                                                                 \
		OPTION_FIELD(type, member.path),                                                                     \
		.arg = "PATH",                                                                                       \
		.help = "raw image file or block device that holds the disk's content"},                             \
		{.name = "nbd",                                                                                      \
			.kind = OPTION_STRING,                                                                       \
			OPTION_FIELD(type, member.nbd),                                                              \
			.arg = "URI",                                                                                \
			.help = "instead of a file: a disk that an NBD server has"},                                 \
		{.name = "nbd-retry",                                                                                \
			.kind = OPTION_DURATION,                                                                     \
			OPTION_FIELD(type, member.nbd_retry),                                                        \
			.def = "1m",                                                                                 \
			.help = "how long requests wait for an NBD server that went away before they fail"},         \
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
		{.name = "aio",                                                                                      \
			.kind = OPTION_ENUM,                                                                         \
			OPTION_FIELD(type, member.aio),                                                              \
			.choices = disk_aio_names,                                                                   \
			.def = "auto",                                                                               \
			.help = "how to do what would block: auto takes io_uring where it is permitted, else "       \
				"threads"},                                                                          \
		{.name = "iops",                                                                                     \
			.kind = OPTION_U64,                                                                          \
			OPTION_FIELD(type, member.iops),                                                             \
			.def = "0",                                                                                  \
			.help = "requests per second that the disk serves at most, 0: no limit",                     \
			.max = DISK_LIMIT_MAX},                                                                      \
		{.name = "iops-burst",                                                                               \
			.kind = OPTION_U64,                                                                          \
			OPTION_FIELD(type, member.iops_burst),                                                       \
			.no_def = "what --iops allows in a tenth of a second",                                       \
			.help = "requests that may come at once after a rest",                                       \
			.max = DISK_LIMIT_MAX},                                                                      \
		{.name = "bps",                                                                                      \
			.kind = OPTION_SIZE,                                                                         \
			OPTION_FIELD(type, member.bps),                                                              \
			.def = "0",                                                                                  \
			.help = "bytes per second that are read and written at most, 0: no limit",                   \
			.max = DISK_LIMIT_MAX},                                                                      \
	{                                                                                                            \
		.name = "bps-burst", .kind = OPTION_SIZE, OPTION_FIELD(type, member.bps_burst),                      \
		.no_def = "what --bps allows in a tenth of a second",                                                \
		.help = "bytes that may be read and written at once after a rest", .max = DISK_LIMIT_MAX             \
	}

#define DISK_LIMIT_MAX (UINT64_C(1) << 40)

struct disk;
struct disk_lane;

/* All in bytes. Fixed while the disk is open. */
struct disk_limits {
	uint32_t logical, physical;   /* block sizes; powers of two, 512 <= logical <= physical */
	uint32_t io_min, io_opt;      /* preferred sizes, 0: none */
	uint32_t discard_granularity; /* power of two */
	bool read_only;
	bool discard, write_zeroes, secure_erase; /* supported; false when read_only */
	bool discard_zeroes;			  /* what was discarded reads as zeroes */
	/* In sectors of 512 bytes. 0: not zoned; else host-managed, writes and zones only by the operations for these. */
	uint32_t zone_sectors, zone_append; /* of a zone; of one append at most */
	uint32_t zones_open, zones_active;  /* at most at a time; 0: no limit */
};

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,	   /* what was written before is on stable storage */
	DISK_DISCARD,	   /* the content of the range is of no interest any more */
	DISK_WRITE_ZEROES, /* the range reads as zeroes afterwards */
	DISK_SECURE_ERASE, /* no copy of the content is left on the medium */
	DISK_STATUS, /* which parts of the range have space behind them; a disk that does not know says all */
	/*
	 * Of a zoned disk. Results: -EINVAL: not with this zone; -EILSEQ: not at the write pointer; -ETOOMANYREFS, -EOVERFLOW:
	 * too many zones are open or active.
	 */
	DISK_ZONE_WRITE,  /* as DISK_WRITE */
	DISK_ZONE_APPEND, /* offset: of the zone; when done, of the data */
	DISK_ZONE_REPORT, /* of all zones from there on that fit into data, as virtio has it */
	DISK_ZONE_OPEN,	  /* offset and len: of a zone, or for DISK_ZONE_RESET of all */
	DISK_ZONE_CLOSE,
	DISK_ZONE_FINISH,
	DISK_ZONE_RESET
};

enum {
	DISK_FUA = 1,	/* WRITE, WRITE_ZEROES: on stable storage when done */
	DISK_UNMAP = 2, /* WRITE_ZEROES: may give the space back; else it stays allocated */
	DISK_PART =
		4, /* the request goes on from one submitted before: a limit counts it, but lets it pass */
};

/* Answers DISK_STATUS, from the beginning of the range on; neighbours differ. */
struct disk_extents {
	uint32_t max;	/* of extent[]; at least 1 */
	uint32_t align; /* bytes, a power of two; holes begin and end at multiples of it, as the range does */
	uint32_t n;	/* 0 before; when done, what there is room for */
	uint64_t covered; /* bytes; 0 before; when done, of those that are known */
	bool full;	  /* false before; when done, there was no room for what follows */
	struct disk_extent {
		uint64_t len;
		bool hole; /* no space is behind it; with discard_zeroes it reads as zeroes */
	} extent[];
};

#define DISK_IO_IOVECS 8

struct disk_io {
	/* Set by the caller. */
	void (*done)(struct disk_io *io);  /* in the lane's loop */
	void (*begun)(struct disk_io *io); /* may be NULL: a request that was held is held no more */
	/* May be NULL: the server was lost meanwhile; true: the caller takes it back, as from disk_withdraw(). */
	bool (*lost)(struct disk_io *io);
	union {
		struct cursor *
			data; /* READ, WRITE, ZONE_WRITE, ZONE_APPEND, ZONE_REPORT: all of what is left of it; must not move meanwhile */
		struct disk_extents *extents; /* STATUS */
	};
	uint64_t offset; /* bytes, a multiple of 512; so are the lengths */
	uint64_t len;	 /* DISCARD, WRITE_ZEROES, SECURE_ERASE, STATUS; READ, WRITE: set by disk_submit() */
	uint8_t op, flags;

	int result; /* 0 or -errno, already logged */
	bool held;  /* disk_submit() returned false: it waits for its turn, or for a lost server */

	/* Private. */
	struct disk_lane *lane;
	void *bounce;
	struct disk_io *next;
	union {
		struct uring_op uring;
		struct job job;
		struct {
			struct post post;
			struct disk_io *next, **back; /* in the lane's list */
			uint64_t at;		      /* bytes done, of a request without data */
			uint32_t round;		      /* bytes under way */
			uint16_t pending, losses; /* commands under way; connections that broke meanwhile */
			bool lost, flushing, wanted;
			int error;
		} nbd;
	};
	struct iovec iov[DISK_IO_IOVECS];
};

/* 0 or -errno, logged. */
int disk_open(struct disk **out, const struct disk_options *options);
/* No request may be in flight; the loops with lanes must still exist. NULL is fine. */
void disk_close(struct disk *d);

const struct disk_limits *disk_limits(const struct disk *d);
/* Any thread; a multiple of 512. It changes when somebody resizes what is behind the disk. */
uint64_t disk_size(const struct disk *d);
/* For messages: the path, the URI or "null". */
const char *disk_name(const struct disk *d);

static inline bool disk_holds(const struct disk *d, uint64_t offset, uint64_t len)
{
	uint64_t size = disk_size(d);

	return offset <= size && len <= size - offset;
}

/*
 * Tells of a new disk_size(). Embedded by the caller. The first one also makes its loop look out for a file that grows
 * (when whoever made it longer closes it). A size that changes often may lead to one call.
 */
struct disk_watch {
	void (*changed)(struct disk_watch *w); /* in its loop */
	struct disk *disk;		       /* private from here on */
	struct disk_watch *next;
	struct watch event;
};

/* 0 or -errno, logged. In the loop, or before it runs; so is disk_watch_del(), after which no call follows. */
int disk_watch_add(struct disk *d, struct loop *l, struct disk_watch *w);
/* Fine for one that was never added, all zeroes. Before disk_close(). */
void disk_watch_del(struct disk_watch *w);

/*
 * Looks at the size again, by command. size 0: as it is now; else a regular file is made that long first, never shorter.
 * 0: watches are told, if it changed (for an NBD server: later, when the connection is back); or -errno, not logged.
 */
int disk_resize(struct disk *d, uint64_t size);

/* How worn the medium is, as eMMC says it (virtio 1.3, 5.2.6). False: not known. */
struct disk_lifetime {
	uint16_t pre_eol_info, typ_a, typ_b;
};
bool disk_lifetime(const struct disk *d, struct disk_lifetime *out);

/* The lane of this loop, made at the first call; lives until disk_close(). In the loop. 0 or -errno, logged. */
int disk_lane_get(struct disk *d, struct loop *l, struct disk_lane **out);

/* True: done already, io->result says how, done() is not called. False: done() comes later. */
bool disk_submit(struct disk_lane *lane, struct disk_io *io);

/*
 * For a queue that stops and a request that is aborted: take() is asked for each request that is held or was under way
 * when the server was lost, and says true for those it takes back: done() is not called for these. Of the latter some may
 * have been carried out, and the cursor may have moved. In the lane's loop; take() must not submit. Who has to be waited
 * for, another thread or a server that may not answer, is: io->lost() asks for those requests, after a few seconds at the
 * latest, if they don't end.
 *
 * A device that pops no more while a request of the queue is held has one of each queue waiting, and the queues take
 * turns.
 */
void disk_withdraw(struct disk_lane *lane, bool (*take)(struct disk_io *io, void *arg), void *arg);

#endif
