/* SPDX-License-Identifier: MIT */
/*
 * A disk that an NBD server has, through libnbd. Each lane has a connection of its own, whose state machine runs on the
 * lane's loop. Where the server does not promise that a flush on one connection covers what was written on another
 * (multi-conn), all lanes use the first one's connection, by way of posts.
 *
 * A request is done in rounds: a round is a few commands at once, from or to the guest's memory itself where its pieces are
 * large, else one command with a buffer into which the pieces are copied. The cursor moves when a round is over. So when the
 * connection breaks, the rounds under way are done again on the next connection; reads and writes can be repeated.
 * While there is no connection the lane is closed: new requests are held. After nbd_retry all of them fail, and new ones
 * fail at once, until the server is back. A server that does not answer any more is waited for, unless somebody wants a
 * request back: then it is as good as lost after STALL_NS. Lost or not, a connection follows only when the server has closed
 * the one before, see disk-nbd-connect.c.
 *
 * libnbd runs callbacks while it holds its lock, so these only note what ended; a task at the turn's end goes on.
 */
#include "disk-nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk-bounce.h"
#include "log.h"
#include "util.h"

#define CONNECT_MS  10000u
#define COMMAND_MAX (32u << 20)
#define LOSSES_MAX  16		/* connections that a request may take along */
#define ANSWERS_MAX 64		/* in one go */
#define STALL_NS    3000000000u /* without an answer that somebody wants before he can go on */

/* The end of a request */

static void away_done(struct post *p)
{
	struct disk_io *io = container_of(p, struct disk_io, nbd.post);

	io->done(io);
}

/* One more or less; the time runs anew. */
static void wanted_count(struct nbd_lane *l, struct disk_io *io, bool wanted)
{
	io->nbd.wanted = wanted;
	l->wanted += wanted ? 1 : -1u;
	if (l->wanted > 0)
		timer_arm_in(l->lane.loop, &l->stalled, STALL_NS);
	else
		timer_disarm(&l->stalled);
}

static void io_remove(struct nbd_lane *l, struct disk_io *io)
{
	struct disk_io *next = NULL;

	*io->nbd.back = io->nbd.next;
	if (io->nbd.next != NULL)
		io->nbd.next->nbd.back = io->nbd.back;
	if (io->nbd.wanted)
		wanted_count(l, io, false);
	if (io->bounce != NULL)
		next = disk_bounce_put(&l->bounces, io->bounce);
	if (next != NULL)
		nbd_round_start(l, next);
}

void nbd_io_finish(struct nbd_lane *l, struct disk_io *io, int result)
{
	io_remove(l, io);
	disk_io_now(io, result);
	if (io->lane == &l->lane) {
		io->done(io);
		return;
	}
	io->nbd.post = (struct post){.run = away_done};
	loop_post(io->lane->loop, &io->nbd.post);
}

/* The connection */

static void fail_all(struct nbd_lane *l, int result)
{
	disk_bounces_wait_none(&l->bounces);
	while (l->active != NULL)
		nbd_io_finish(l, l->active, result);
}

static void give_up(struct timer *t)
{
	struct nbd_lane *l = container_of(t, struct nbd_lane, give_up);

	log_warn("%s: no connection, requests fail", l->disk->disk.name);
	l->failing = true;
	l->lane.closed = false;
	fail_all(l, -EIO);
	disk_lane_open(&l->lane);
}

/* There is no connection: new requests are held, somebody makes one. old: the socket of the one before, or -1. */
static void connection_wanted(struct nbd_lane *l, int old)
{
	l->lane.closed = true;
	nbd_connector_start(&l->connector, l->lane.loop, old);
	timer_arm_in(l->lane.loop, &l->give_up, l->disk->retry_ns);
}

/* Its socket is the caller's. */
static int connection_close(struct nbd_lane *l)
{
	int fd = l->socket.fd;

	watch_del(&l->socket);
	nbd.nbd_close(l->h);
	l->h = NULL;
	return fd;
}

static void io_add(struct nbd_lane *l, struct disk_io *io)
{
	io->nbd.next = l->active;
	io->nbd.back = &l->active;
	if (l->active != NULL)
		l->active->nbd.back = &io->nbd.next;
	l->active = io;
}

static void away_submit(struct post *p);

static bool was_lost(struct disk_io *io, void *arg)
{
	(void)arg;
	return io->lost != NULL && io->lost(io);
}

static void away_offer(struct post *p)
{
	struct disk_io *io = container_of(p, struct disk_io, nbd.post);

	if (was_lost(io, NULL))
		return;
	io->nbd.post = (struct post){.run = away_submit};
	loop_post(nbd_lane_of(io)->lane.loop, &io->nbd.post);
}

/* Nothing of it is under way; what is taken is the caller's again. Another thread is asked when it comes to it. */
static void io_offer(
	struct nbd_lane *l, struct disk_io *io, bool (*take)(struct disk_io *io, void *arg), void *arg)
{
	io_remove(l, io);
	io->bounce = NULL;
	if (io->lane != &l->lane) {
		io->nbd.post = (struct post){.run = away_offer};
		loop_post(io->lane->loop, &io->nbd.post);
		return;
	}
	if (!take(io, arg))
		io_add(l, io);
}

/* What is under way is to be done again. Requests that were there when a connection broke too often may be what breaks it. */
static void rounds_drop(struct nbd_lane *l, bool count)
{
	struct disk_io *io, *next;

	l->ended = NULL;
	l->ended_tail = &l->ended;
	disk_bounces_wait_none(&l->bounces);
	for (io = l->active; io != NULL; io = next) {
		next = io->nbd.next;
		io->nbd.losses += count && (io->nbd.pending > 0 || io->nbd.lost);
		io->nbd.pending = 0;
		if (io->nbd.losses >= LOSSES_MAX)
			nbd_io_finish(l, io, -EIO);
		else
			io_offer(l, io, was_lost, NULL);
	}
}

static void connection_lost(struct nbd_lane *l)
{
	int fd = connection_close(l);

	log_guest_warn("%s: connection lost", l->disk->disk.name);
	rounds_drop(l, true);
	connection_wanted(l, fd);
}

static void stalled(struct timer *t)
{
	struct nbd_lane *l = container_of(t, struct nbd_lane, stalled);

	log_guest_warn("%s: the server does not answer", l->disk->disk.name);
	connection_lost(l);
}

/* Takes h over. The socket is watched by a descriptor that the library does not close when it has had enough. */
static int connection_use(struct nbd_lane *l, struct nbd_handle *h)
{
	int fd = fcntl(nbd.nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 0);
	int r = fd < 0 ? -errno : watch_add(l->lane.loop, &l->socket, fd, EPOLLIN);

	if (r < 0) {
		fd_close(&fd);
		nbd.nbd_close(h);
		return log_errno(r, "%s", l->disk->disk.name);
	}
	l->h = h;
	l->broken = false;
	l->can_fua = nbd.nbd_can_fua(h) > 0;
	l->can_flush = nbd.nbd_can_flush(h) > 0;
	l->can_status = nbd.nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	return 0;
}

static void connection_made(struct nbd_connector *c, struct nbd_handle *h)
{
	struct nbd_lane *l = container_of(c, struct nbd_lane, connector);
	int64_t size = nbd.nbd_get_size(h);
	struct disk_io *io, *next;

	if (connection_use(l, h) < 0) {
		connection_wanted(l, -1);
		return;
	}
	log_guest_warn("%s: connected", l->disk->disk.name);
	timer_disarm(&l->give_up);
	l->failing = false;
	if (size >= 0)
		disk_set_size(&l->disk->disk, ALIGN_DOWN((uint64_t)size, 512u));
	disk_bounces_wait_none(&l->bounces);
	for (io = l->active; io != NULL; io = next) {
		next = io->nbd.next;
		nbd_round_start(l, io);
	}
	l->lane.closed = false;
	disk_lane_open(&l->lane);
	loop_defer(l->lane.loop, &l->task);
}

static bool connection_ended(const struct nbd_lane *l)
{
	return nbd.nbd_aio_is_dead(l->h) > 0 || nbd.nbd_aio_is_closed(l->h) > 0;
}

static void connection_rearm(struct nbd_lane *l)
{
	unsigned direction = nbd.nbd_aio_get_direction(l->h);
	uint32_t events = ((direction & LIBNBD_AIO_DIRECTION_READ) ? EPOLLIN : 0) |
			  ((direction & LIBNBD_AIO_DIRECTION_WRITE) ? EPOLLOUT : 0);

	if (events != l->socket.events)
		watch_modify(&l->socket, events);
}

static void lane_turn(struct task *t)
{
	struct nbd_lane *l = container_of(t, struct nbd_lane, task);
	struct disk_io *io;

	while ((io = l->ended) != NULL) {
		l->ended = io->next;
		if (l->ended == NULL)
			l->ended_tail = &l->ended;
		nbd_round_end(l, io);
	}
	if (l->h == NULL)
		return;
	if (l->broken || connection_ended(l))
		connection_lost(l);
	else
		connection_rearm(l);
}

static bool readable(const struct nbd_lane *l)
{
	struct pollfd p = {.fd = l->socket.fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* The library takes one answer at a time, and begins to wait for one when it is asked to read. */
static void answers_take(struct nbd_lane *l)
{
	for (unsigned i = 0; i < ANSWERS_MAX; i++) {
		unsigned long before = l->answers;

		nbd.nbd_aio_notify_read(l->h);
		if (l->answers == before || !readable(l) ||
			!(nbd.nbd_aio_get_direction(l->h) & LIBNBD_AIO_DIRECTION_READ))
			return;
	}
}

static void socket_ready(struct watch *w, uint32_t events)
{
	struct nbd_lane *l = container_of(w, struct nbd_lane, socket);
	unsigned direction = nbd.nbd_aio_get_direction(l->h);

	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		answers_take(l);
	else if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		nbd.nbd_aio_notify_write(l->h);
	loop_defer(l->lane.loop, &l->task);
}

/* Requests */

static int refusal(const struct nbd_lane *l, const struct disk_io *io)
{
	const struct disk_limits *m = &l->disk->disk.limits;

	if (l->failing)
		return -EIO;
	if (io->op != DISK_READ && io->op != DISK_FLUSH && m->read_only)
		return -EROFS;
	if (io->op == DISK_SECURE_ERASE || (io->op == DISK_DISCARD && !m->discard) ||
		(io->op == DISK_WRITE_ZEROES && !m->write_zeroes))
		return -EOPNOTSUPP;
	return (io->offset | io->len) % l->disk->align != 0 ? -EINVAL : 0;
}

/* True: nothing to do, or not possible; io->result says which. */
static bool submit_here(struct nbd_lane *l, struct disk_io *io)
{
	int r = refusal(l, io);

	if (r < 0 || (io->op != DISK_FLUSH && io->len == 0))
		return disk_io_now(io, r);
	io_add(l, io);
	nbd_round_start(l, io);
	loop_defer(l->lane.loop, &l->task);
	return false;
}

static void away_submit(struct post *p)
{
	struct disk_io *io = container_of(p, struct disk_io, nbd.post);

	if (!submit_here(nbd_lane_of(io), io))
		return;
	io->nbd.post = (struct post){.run = away_done};
	loop_post(io->lane->loop, &io->nbd.post);
}

static bool nbd_submit(struct disk_lane *lane, struct disk_io *io)
{
	struct nbd_lane *l = container_of(lane, struct nbd_lane, lane);

	io->bounce = NULL;
	io->nbd.at = io->nbd.round = 0;
	io->nbd.pending = io->nbd.losses = 0;
	io->nbd.flushing = io->nbd.wanted = false;
	if (l->via == NULL)
		return submit_here(l, io);
	io->nbd.post = (struct post){.run = away_submit};
	loop_post(l->via->lane.loop, &io->nbd.post);
	return false;
}

/* Without a connection nothing is under way. With one, what is under way comes back by io->lost() if no answer does. */
static void lane_withdraw(
	struct nbd_lane *l, bool away, bool (*take)(struct disk_io *io, void *arg), void *arg)
{
	struct disk_io *io, *next;

	if (l->h == NULL)
		disk_bounces_wait_none(&l->bounces);
	for (io = l->active; io != NULL; io = next) {
		next = io->nbd.next;
		if (l->h != NULL && !io->nbd.wanted)
			wanted_count(l, io, true);
		else if (l->h == NULL && (io->lane != &l->lane) == away)
			io_offer(l, io, take, arg);
	}
}

static void away_withdraw(struct post *p)
{
	lane_withdraw(container_of(p, struct nbd_lane, want), true, NULL, NULL);
}

static void nbd_withdraw(struct disk_lane *lane, bool (*take)(struct disk_io *io, void *arg), void *arg)
{
	struct nbd_lane *l = container_of(lane, struct nbd_lane, lane);

	if (l->via == NULL)
		lane_withdraw(l, false, take, arg);
	else
		loop_post(l->via->lane.loop, &l->via->want);
}

/* Lanes */

static int lane_connect(struct nbd_lane *l, struct nbd_handle *first)
{
	int r;

	l->ended_tail = &l->ended;
	l->task.run = lane_turn;
	l->socket.ready = socket_ready;
	l->give_up.expired = give_up;
	l->stalled.expired = stalled;
	l->want.run = away_withdraw;
	disk_bounces_init(&l->bounces);
	l->connector = (struct nbd_connector){.uri = l->disk->disk.name, .connected = connection_made};
	r = nbd_connector_init(&l->connector);
	if (r == 0 && first != NULL)
		r = connection_use(l, first);
	else if (r == 0)
		connection_wanted(l, -1);
	if (r < 0)
		nbd_connector_fini(&l->connector);
	return r;
}

static struct disk_lane *nbd_lane_new(struct disk *d, struct loop *loop)
{
	struct disk_nbd *n = container_of(d, struct disk_nbd, disk);
	struct nbd_lane *l = calloc(1, sizeof(*l));
	struct nbd_handle *first;

	if (l == NULL)
		return NULL;
	l->disk = n;
	l->lane.loop = loop;
	pthread_mutex_lock(&n->lock);
	first = n->first;
	n->first = NULL;
	l->via = n->primary;
	if (!n->multi && n->primary == NULL)
		n->primary = l;
	pthread_mutex_unlock(&n->lock);
	if (l->via == NULL && lane_connect(l, first) < 0) {
		free(l);
		return NULL;
	}
	return &l->lane;
}

static void nbd_lane_free(struct disk_lane *lane)
{
	struct nbd_lane *l = container_of(lane, struct nbd_lane, lane);
	int fd = -1;

	if (l->via == NULL) {
		nbd_connector_fini(&l->connector);
		timer_disarm(&l->stalled);
		timer_disarm(&l->give_up);
		loop_cancel(lane->loop, &l->task);
		if (l->h != NULL) {
			nbd.nbd_aio_disconnect(l->h, 0);
			fd = connection_close(l);
		}
		fd_close(&fd);
		disk_bounces_free(&l->bounces);
	}
	free(l);
}

/* The disk */

static uint32_t power_of_two_up_to(int64_t n, uint32_t most)
{
	return n >= 512 && n <= most && (n & (n - 1)) == 0 ? (uint32_t)n : 0;
}

static int nbd_measure(struct disk_nbd *n, bool read_only)
{
	struct nbd_handle *h = n->first;
	struct disk_limits *m = &n->disk.limits;
	int64_t size = nbd.nbd_get_size(h), min = nbd.nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM),
		best = nbd.nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED),
		max = nbd.nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (size < 512)
		return log_errno(EINVAL, "%s: shorter than a sector of 512 bytes", n->disk.name);
	if (!read_only && nbd.nbd_is_read_only(h) > 0)
		return log_errno(EROFS, "%s: the server lets nobody write (--read-only)", n->disk.name);
	if (min > 65536)
		return log_errno(EINVAL, "%s: blocks of %" PRIi64 " bytes", n->disk.name, min);
	n->disk.size = ALIGN_DOWN((uint64_t)size, 512u);
	n->align = (uint32_t)MAX(min, 1);
	n->command_max = max >= 65536 ? (uint32_t)MIN(max, COMMAND_MAX) : COMMAND_MAX;
	n->command_max = ALIGN_DOWN(n->command_max, 65536u);
	n->multi = nbd.nbd_can_multi_conn(h) > 0;
	m->read_only = read_only;
	m->logical = MAX(power_of_two_up_to(min, 65536), 512u);
	m->physical = MAX(m->logical, MAX(power_of_two_up_to(best, 1u << 20), 4096u));
	m->discard_granularity = m->physical;
	m->discard = !read_only && nbd.nbd_can_trim(h) > 0;
	m->write_zeroes = !read_only && nbd.nbd_can_zero(h) > 0;
	return 0;
}

static void nbd_close_disk(struct disk *d)
{
	struct disk_nbd *n = container_of(d, struct disk_nbd, disk);

	if (n->first != NULL)
		nbd.nbd_close(n->first);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

static int nbd_open(struct disk **out, const struct disk_options *o)
{
	struct disk_nbd *n;
	char why[NBD_WHY];
	int r = nbd_load();

	if (r < 0)
		return log_errno(r, "--nbd=%s: libnbd", o->nbd);
	n = calloc(1, sizeof(*n));
	if (n == NULL)
		return log_errno(ENOMEM, "%s", o->nbd);
	pthread_mutex_init(&n->lock, NULL);
	n->disk.name = o->nbd;
	n->retry_ns = MIN(o->nbd_retry, UINT64_MAX / 4000000) * 1000000;
	n->first = nbd_connect(o->nbd, CONNECT_MS, -1, why);
	if (n->first == NULL) {
		log_error("--nbd=%s: %s", o->nbd, why);
		r = -EIO;
	} else {
		r = nbd_measure(n, o->read_only);
	}
	if (r < 0) {
		nbd_close_disk(&n->disk);
		return r;
	}
	*out = &n->disk;
	return 0;
}

/* The protocol tells the size only at the beginning, so the connection has to begin anew. */
static void lane_renew(void *arg)
{
	struct nbd_lane *l = arg;
	int fd;

	if (l->h == NULL)
		return;
	fd = connection_close(l);
	rounds_drop(l, false);
	connection_wanted(l, fd);
}

static int nbd_resize(struct disk *d, uint64_t size)
{
	struct disk_nbd *n = container_of(d, struct disk_nbd, disk);
	struct disk_lane *lane;
	char why[NBD_WHY];

	if (size != 0)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&d->lock);
	for (lane = d->lanes; lane != NULL && lane->next != NULL; lane = lane->next)
		;
	pthread_mutex_unlock(&d->lock);
	if (lane != NULL) {
		loop_call(lane->loop, lane_renew, container_of(lane, struct nbd_lane, lane));
		return 0;
	}
	nbd.nbd_close(n->first);
	n->first = nbd_connect(d->name, CONNECT_MS, -1, why);
	if (n->first == NULL)
		return -ENOTCONN;
	disk_set_size(d, ALIGN_DOWN((uint64_t)MAX(nbd.nbd_get_size(n->first), 0), 512u));
	return 0;
}

const struct disk_driver disk_nbd = {
	.name = "nbd",
	.open = nbd_open,
	.close = nbd_close_disk,
	.lane_new = nbd_lane_new,
	.lane_free = nbd_lane_free,
	.submit = nbd_submit,
	.withdraw = nbd_withdraw,
	.resize = nbd_resize,
};
