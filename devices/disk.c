/* SPDX-License-Identifier: MIT */
/*
 * What all kinds of disks share (disk.h has the contract): which driver serves the options, lanes, requests that wait for
 * their turn, who is told of a new size, the pool, the log line of a request that failed.
 */
#include "disk-driver.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

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

/* Life */

static const struct disk_driver *driver_of(const struct disk_options *o)
{
	if ((o->path != NULL) + (o->nbd != NULL) + (o->null_size != 0) != 1) {
		log_error("exactly one of --blk-file, --nbd and --null is needed");
		return NULL;
	}
	return o->path != NULL ? &disk_file : o->nbd != NULL ? &disk_nbd : &disk_null;
}

static int throttle_new(struct throttle **out, const struct disk_options *o)
{
	*out = NULL;
	if ((o->iops_burst != 0 && o->iops == 0) || (o->bps_burst != 0 && o->bps == 0)) {
		log_error("--iops-burst and --bps-burst need --iops and --bps");
		return -EINVAL;
	}
	if (o->iops == 0 && o->bps == 0)
		return 0;
	*out = calloc(1, sizeof(**out));
	if (*out == NULL)
		return log_errno(ENOMEM, "limits");
	throttle_bucket_init(&(*out)->bucket[THROTTLE_OPS], o->iops, o->iops_burst);
	throttle_bucket_init(&(*out)->bucket[THROTTLE_BYTES], o->bps, o->bps_burst);
	return 0;
}

int disk_open(struct disk **out, const struct disk_options *options)
{
	const struct disk_driver *driver = driver_of(options);
	struct throttle *throttle;
	struct disk *d;
	int r;

	if (driver == NULL)
		return -EINVAL;
	r = throttle_new(&throttle, options);
	if (r < 0)
		return r;
	r = driver->open(&d, options);
	if (r < 0) {
		free(throttle);
		return r;
	}
	d->driver = driver;
	d->throttle = throttle;
	pthread_mutex_init(&d->lock, NULL);
	*out = d;
	return 0;
}

static void lane_free(void *arg)
{
	struct disk_lane *lane = arg;

	timer_disarm(&lane->turn);
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
	free(d->throttle);
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

bool disk_lifetime(const struct disk *d, struct disk_lifetime *out)
{
	return d->driver->lifetime != NULL && d->driver->lifetime(d, out);
}

/* The size */

void disk_set_size(struct disk *d, uint64_t size)
{
	const uint64_t one = 1;
	uint64_t old;

	pthread_mutex_lock(&d->lock);
	old = __atomic_exchange_n(&d->size, size, __ATOMIC_RELAXED);
	for (struct disk_watch *w = size == old ? NULL : d->watches; w != NULL; w = w->next)
		if (write(w->event.fd, &one, sizeof(one)) < 0)
			log_errno(errno, "%s: eventfd", d->name);
	pthread_mutex_unlock(&d->lock);
	if (size != old)
		log_info("%s: now %" PRIu64 " bytes, before %" PRIu64, d->name, size, old);
}

int disk_resize(struct disk *d, uint64_t size)
{
	return d->driver->resize == NULL ? -EOPNOTSUPP : d->driver->resize(d, size);
}

static void watch_ready(struct watch *event, uint32_t events)
{
	struct disk_watch *w = container_of(event, struct disk_watch, event);
	uint64_t n;

	(void)events;
	if (read(event->fd, &n, sizeof(n)) == sizeof(n))
		w->changed(w);
}

int disk_watch_add(struct disk *d, struct loop *l, struct disk_watch *w)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r;

	if (fd < 0)
		return log_errno(errno, "%s: eventfd", d->name);
	w->event.ready = watch_ready;
	r = watch_add(l, &w->event, fd, EPOLLIN);
	if (r == 0 && d->watches == NULL && d->driver->listen != NULL)
		r = d->driver->listen(d, l);
	if (r < 0) {
		watch_del(&w->event);
		fd_close(&fd);
		return log_errno(r, "%s: looking out for a new size", d->name);
	}
	w->disk = d;
	pthread_mutex_lock(&d->lock);
	w->next = d->watches;
	d->watches = w;
	pthread_mutex_unlock(&d->lock);
	return 0;
}

void disk_watch_del(struct disk_watch *w)
{
	struct disk *d = w->disk;
	struct disk_watch **at;
	int fd = w->event.fd;

	if (d == NULL)
		return;
	pthread_mutex_lock(&d->lock);
	for (at = &d->watches; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	pthread_mutex_unlock(&d->lock);
	watch_del(&w->event);
	fd_close(&fd);
	w->disk = NULL;
	if (d->watches == NULL && d->driver->unlisten != NULL)
		d->driver->unlisten(d);
}

/* Lanes */

static struct disk_lane *lane_find(struct disk *d, struct loop *l)
{
	struct disk_lane *lane;

	pthread_mutex_lock(&d->lock);
	for (lane = d->lanes; lane != NULL && lane->loop != l; lane = lane->next)
		;
	pthread_mutex_unlock(&d->lock);
	return lane;
}

static void turn_came(struct timer *t)
{
	disk_lane_open(container_of(t, struct disk_lane, turn));
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
		lane->held_tail = &lane->held;
		lane->turn.expired = turn_came;
		pthread_mutex_lock(&d->lock);
		lane->next = d->lanes;
		d->lanes = lane;
		pthread_mutex_unlock(&d->lock);
	}
	*out = lane;
	return 0;
}

/* Requests */

static void log_failure(const struct disk_io *io)
{
	static const char *const verbs[] = {"read", "write", "flush", "discard", "write zeroes",
		"secure erase", "status", "zone write", "zone append", "zone report", "zone open",
		"zone close", "zone finish", "zone reset"};

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

/* False: there is no room. */
static bool extent_append(struct disk_extents *x, uint64_t len, bool hole)
{
	if (len > 0 && (x->n == 0 || x->extent[x->n - 1].hole != hole)) {
		if (x->n == x->max)
			return false;
		x->extent[x->n++] = (struct disk_extent){.hole = hole};
	}
	if (len > 0)
		x->extent[x->n - 1].len += len;
	x->covered += len;
	return true;
}

bool disk_extents_add(struct disk_io *io, uint64_t len, bool hole)
{
	struct disk_extents *x = io->extents;
	uint64_t mask = x->align - 1, at = io->offset + x->covered, end, first, last;

	len = MIN(len, io->len - x->covered);
	end = at + len;
	first = hole ? MIN((at + mask) & ~mask, end) : end;
	last = hole ? MAX(end & ~mask, first) : end;
	x->full = !extent_append(x, first - at, false) || !extent_append(x, last - first, true) ||
		  !extent_append(x, end - last, false);
	return !x->full && x->covered < io->len;
}

static bool moves_data(const struct disk_io *io)
{
	return io->op <= DISK_WRITE || io->op == DISK_ZONE_WRITE || io->op == DISK_ZONE_APPEND;
}

/* What a limit on bytes counts. */
static uint64_t bytes_of(const struct disk_io *io)
{
	return moves_data(io) ? io->len : 0;
}

/* May the request go now? Else the timer says when. */
static bool lane_passes(struct disk_lane *lane, const struct disk_io *io)
{
	struct throttle *t = lane->disk->throttle;
	uint64_t at;

	if (lane->closed)
		return false;
	if (t == NULL)
		return true;
	at = throttle_ask(t, &lane->credit, loop_now(lane->loop), bytes_of(io));
	if (at != 0)
		timer_arm(lane->loop, &lane->turn, at);
	return at == 0;
}

static bool lane_holds(struct disk_lane *lane, struct disk_io *io)
{
	if (io->flags & DISK_PART) {
		if (lane->disk->throttle != NULL)
			throttle_charge(
				lane->disk->throttle, &lane->credit, loop_now(lane->loop), bytes_of(io));
		return false;
	}
	if (lane->held == NULL && lane_passes(lane, io))
		return false;
	io->held = true;
	io->next = NULL;
	*lane->held_tail = io;
	lane->held_tail = &io->next;
	return true;
}

static void held_remove(struct disk_lane *lane, struct disk_io **at)
{
	struct disk_io *io = *at;

	*at = io->next;
	if (*at == NULL)
		lane->held_tail = at;
	io->held = false;
}

void disk_lane_open(struct disk_lane *lane)
{
	struct disk_io *io;

	while ((io = lane->held) != NULL && lane_passes(lane, io)) {
		held_remove(lane, &lane->held);
		if (io->begun != NULL)
			io->begun(io);
		if (lane->disk->driver->submit(lane, io))
			io->done(io);
	}
}

void disk_withdraw(struct disk_lane *lane, bool (*take)(struct disk_io *io, void *arg), void *arg)
{
	struct disk_io **at = &lane->held;

	if (lane->disk->driver->withdraw != NULL)
		lane->disk->driver->withdraw(lane, take, arg);
	while (*at != NULL) {
		struct disk_io *io = *at, *next = io->next, **behind = &io->next;

		if (!take(io, arg)) {
			at = behind;
			continue;
		}
		*at = next;
		if (next == NULL)
			lane->held_tail = at;
	}
}

bool disk_submit(struct disk_lane *lane, struct disk_io *io)
{
	io->lane = lane;
	io->held = false;
	if (moves_data(io))
		io->len = io->data->left;
	else if (io->op == DISK_FLUSH)
		io->len = 0;
	if (unlikely(lane->disk->throttle != NULL || lane->closed || lane->held != NULL) &&
		lane_holds(lane, io))
		return false;
	return lane->disk->driver->submit(lane, io);
}
