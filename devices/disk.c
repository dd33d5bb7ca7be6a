/* SPDX-License-Identifier: MIT */
/*
 * What all kinds of disks share (disk.h has the contract): which driver serves the options, lanes, the pool, the log
 * line of a request that failed.
 */
#include "disk-driver.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "util.h"

#define POOL_THREADS 16

const char *const disk_aio_names[] = {"auto", "io_uring", "threads", NULL};

static struct {
	pthread_mutex_t lock;
	struct pool *pool;
	unsigned users;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct pool *disk_pool_get(void)
{
	struct pool *p;
	int r = 0;

	pthread_mutex_lock(&shared.lock);
	if (shared.pool == NULL)
		r = pool_new(&shared.pool, POOL_THREADS, "disk");
	p = r < 0 ? NULL : shared.pool;
	shared.users += p != NULL;
	pthread_mutex_unlock(&shared.lock);
	errno = -r;
	return p;
}

void disk_pool_put(void)
{
	pthread_mutex_lock(&shared.lock);
	if (--shared.users == 0) {
		pool_free(shared.pool);
		shared.pool = NULL;
	}
	pthread_mutex_unlock(&shared.lock);
}

int disk_open(struct disk **out, const struct disk_options *options)
{
	const struct disk_driver *driver = options->path != NULL ? &disk_file : &disk_null;
	struct disk *d;
	int r;

	if ((options->path != NULL) == (options->null_size != 0)) {
		log_error("exactly one of --blk-file and --null is needed");
		return -EINVAL;
	}
	r = driver->open(&d, options);
	if (r < 0)
		return r;
	d->driver = driver;
	pthread_mutex_init(&d->lock, NULL);
	*out = d;
	return 0;
}

static void lane_free(void *arg)
{
	struct disk_lane *lane = arg;

	lane->disk->driver->lane_free(lane);
}

void disk_close(struct disk *d)
{
	struct disk_lane *lane;

	if (d == NULL)
		return;
	while ((lane = d->lanes) != NULL) {
		d->lanes = lane->next;
		loop_call(lane->loop, lane_free, lane);
	}
	pthread_mutex_destroy(&d->lock);
	d->driver->close(d);
}

const struct disk_limits *disk_limits(const struct disk *d)
{
	return &d->limits;
}

uint64_t disk_size(const struct disk *d)
{
	return __atomic_load_n(&d->size, __ATOMIC_RELAXED);
}

const char *disk_name(const struct disk *d)
{
	return d->name;
}

static struct disk_lane *lane_find(struct disk *d, struct loop *l)
{
	struct disk_lane *lane;

	pthread_mutex_lock(&d->lock);
	for (lane = d->lanes; lane != NULL && lane->loop != l; lane = lane->next)
		;
	pthread_mutex_unlock(&d->lock);
	return lane;
}

int disk_lane_get(struct disk *d, struct loop *l, struct disk_lane **out)
{
	struct disk_lane *lane = lane_find(d, l);

	if (lane == NULL) {
		lane = d->driver->lane_new(d, l);
		if (lane == NULL)
			return log_errno(ENOMEM, "%s", d->name);
		lane->disk = d;
		lane->loop = l;
		pthread_mutex_lock(&d->lock);
		lane->next = d->lanes;
		d->lanes = lane;
		pthread_mutex_unlock(&d->lock);
	}
	*out = lane;
	return 0;
}

static void log_failure(const struct disk_io *io)
{
	static const char *const verbs[] = {"read", "write", "flush", "discard", "write zeroes"};

	log_guest_warn("%s: %s of %" PRIu64 " bytes at %" PRIu64 ": %s", io->lane->disk->name, verbs[io->op],
		io->len, io->offset, strerror(-io->result));
}

bool disk_io_now(struct disk_io *io, int result)
{
	io->result = result;
	if (unlikely(result < 0))
		log_failure(io);
	return true;
}

void disk_io_end(struct disk_io *io, int result)
{
	disk_io_now(io, result);
	io->done(io);
}

bool disk_submit(struct disk_lane *lane, struct disk_io *io)
{
	io->lane = lane;
	if (io->op <= DISK_WRITE)
		io->len = io->data->left;
	else if (io->op == DISK_FLUSH)
		io->len = 0;
	return lane->disk->driver->submit(lane, io);
}
