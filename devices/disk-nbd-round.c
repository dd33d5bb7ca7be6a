/* SPDX-License-Identifier: MIT */
/*
 * The rounds in which a request of an NBD disk is done: which commands, with the guest's memory or a buffer, what their answers
 * mean, and what is left. When and over which connection is disk-nbd.c's.
 */
#include <errno.h>

#include "disk-bounce.h"
#include "disk-nbd.h"
#include "util.h"

#define PIECE_MIN     32768u	 /* a shorter piece is cheaper to copy than to ask for by itself */
#define EXTENT_MAX    (1u << 30) /* of what has no data */
#define STATUS_ROUNDS 256	 /* after that what is known is the answer */

static void round_over(struct nbd_lane *l, struct disk_io *io)
{
	io->next = NULL;
	*l->ended_tail = io;
	l->ended_tail = &io->next;
	loop_defer(l->lane.loop, &l->task);
}

/* Called by the library. The connection's end is an error of all its commands. */
static int command_done(void *arg, int *error)
{
	struct disk_io *io = arg;
	struct nbd_lane *l = nbd_lane_of(io);

	if (*error == ENOTCONN || *error == ESHUTDOWN)
		io->nbd.lost = true;
	else if (*error != 0)
		io->nbd.error = -*error;
	l->answers++;
	if (--io->nbd.pending == 0)
		round_over(l, io);
	return 1;
}

/* Called by the library, before the command ends. */
static int extents_come(
	void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t n, int *error)
{
	struct disk_io *io = arg;

	(void)context, (void)error;
	if (offset != io->offset + io->extents->covered)
		return 0;
	for (size_t i = 0; i + 1 < n; i += 2)
		if (!disk_extents_add(io, entries[i], entries[i + 1] & LIBNBD_STATE_HOLE))
			break;
	return 0;
}

static void command_start(struct nbd_lane *l, struct disk_io *io, void *buf, uint64_t at, uint64_t len)
{
	nbd_completion_callback end = {.callback = command_done, .user_data = io};
	uint32_t fua = (io->flags & DISK_FUA) && l->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
	int64_t r;

	io->nbd.pending++;
	if (io->op == DISK_FLUSH || io->nbd.flushing)
		r = nbd.nbd_aio_flush(l->h, end, 0);
	else if (io->op == DISK_READ)
		r = nbd.nbd_aio_pread(l->h, buf, len, at, end, 0);
	else if (io->op == DISK_WRITE)
		r = nbd.nbd_aio_pwrite(l->h, buf, len, at, end, fua);
	else if (io->op == DISK_STATUS)
		r = nbd.nbd_aio_block_status(l->h, len, at,
			(nbd_extent_callback){.callback = extents_come, .user_data = io}, end, 0);
	else if (io->op == DISK_DISCARD)
		r = nbd.nbd_aio_trim(l->h, len, at, end, 0);
	else
		r = nbd.nbd_aio_zero(
			l->h, len, at, end, fua | ((io->flags & DISK_UNMAP) ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
	if (r < 0) {
		int error = nbd.nbd_get_errno();

		/* what it did not take it does not call back for */
		error = nbd.nbd_aio_is_dead(l->h) > 0 || nbd.nbd_aio_is_closed(l->h) > 0 ? ENOTCONN : error;
		command_done(io, &error);
	}
}

/* Pieces of the guest's memory that are large enough to be commands of their own; adjacent ones are one. */
static unsigned pieces(const struct nbd_lane *l, struct disk_io *io)
{
	unsigned n = cursor_iovec(io->data, SIZE_MAX, io->iov, DISK_IO_IOVECS), used = 0, good = 0;

	for (unsigned i = 0; i < n; i++) {
		struct iovec *last = &io->iov[used > 0 ? used - 1 : 0];

		if (used > 0 && (char *)last->iov_base + last->iov_len == io->iov[i].iov_base)
			last->iov_len += io->iov[i].iov_len;
		else
			io->iov[used++] = io->iov[i];
	}
	for (; good < used; good++) {
		struct iovec *v = &io->iov[good];

		if (v->iov_len > l->disk->command_max) {
			v->iov_len = l->disk->command_max;
			return good + 1;
		}
		if (v->iov_len % l->disk->align != 0 ||
			(v->iov_len < PIECE_MIN && v->iov_len < io->data->left))
			break;
	}
	return good;
}

static void data_start(struct nbd_lane *l, struct disk_io *io)
{
	uint64_t at = io->offset + (io->len - io->data->left);
	unsigned n = io->bounce != NULL ? 0 : pieces(l, io);

	if (n == 0 && io->bounce == NULL) {
		io->bounce = disk_bounce_get(&l->bounces);
		if (io->bounce == NULL && disk_bounce_wait(&l->bounces, io))
			return;
		if (io->bounce == NULL) {
			io->nbd.error = -ENOMEM;
			round_over(l, io);
			return;
		}
	}
	if (n == 0) {
		size_t len = MIN(io->data->left, BOUNCE_SIZE);

		if (io->op == DISK_WRITE)
			disk_bounce_fill(io);
		io->iov[0] = (struct iovec){io->bounce, len};
		n = 1;
	}
	io->nbd.round = 0;
	/* a command that fails at once must not end the round before all are under way */
	io->nbd.pending = 1;
	for (unsigned i = 0; i < n; i++) {
		command_start(l, io, io->iov[i].iov_base, at + io->nbd.round, io->iov[i].iov_len);
		io->nbd.round += (uint32_t)io->iov[i].iov_len;
	}
	if (--io->nbd.pending == 0)
		round_over(l, io);
}

static void status_start(struct nbd_lane *l, struct disk_io *io)
{
	uint64_t at = io->extents->covered, len = MIN(io->len - at, EXTENT_MAX);

	if (l->can_status) {
		command_start(l, io, NULL, io->offset + at, len);
		return;
	}
	disk_extents_add(io, UINT64_MAX, false);
	round_over(l, io);
}

void nbd_round_start(struct nbd_lane *l, struct disk_io *io)
{
	io->nbd.lost = false;
	io->nbd.error = 0;
	if (l->h == NULL)
		return; /* when it is back */
	if (io->op == DISK_FLUSH && !l->can_flush) {
		round_over(l, io);
	} else if (io->op == DISK_STATUS) {
		status_start(l, io);
	} else if (io->nbd.flushing || io->op == DISK_FLUSH) {
		command_start(l, io, NULL, 0, 0);
	} else if (io->op <= DISK_WRITE) {
		data_start(l, io);
	} else {
		io->nbd.round = (uint32_t)MIN(io->len - io->nbd.at, EXTENT_MAX);
		command_start(l, io, NULL, io->offset + io->nbd.at, io->nbd.round);
	}
}

static uint64_t status_left(struct disk_io *io)
{
	struct disk_extents *x = io->extents;

	if (io->nbd.at == x->covered) /* nothing was said */
		disk_extents_add(io, UINT64_MAX, false);
	io->nbd.at = x->covered;
	return x->full || ++io->nbd.round == STATUS_ROUNDS ? 0 : io->len - x->covered;
}

/* What is left after this round? */
static uint64_t round_count(struct disk_io *io)
{
	if (io->op == DISK_FLUSH || io->nbd.flushing)
		return 0;
	if (io->op == DISK_STATUS)
		return status_left(io);
	if (io->op > DISK_WRITE) {
		io->nbd.at += io->nbd.round;
		return io->len - io->nbd.at;
	}
	if (io->op == DISK_READ && io->bounce != NULL)
		cursor_put(io->data, io->bounce, io->nbd.round);
	else
		cursor_skip(io->data, io->nbd.round);
	return io->data->left;
}

void nbd_round_end(struct nbd_lane *l, struct disk_io *io)
{
	/* a hint that the server can't follow is no failure */
	if (io->op == DISK_DISCARD && (io->nbd.error == -EINVAL || io->nbd.error == -ENOTSUP))
		io->nbd.error = 0;
	if (io->op == DISK_STATUS)
		io->nbd.error = 0; /* nothing was said */
	if (io->nbd.lost) {	   /* the next connection starts it again */
		l->broken = true;
		return;
	}
	if (io->nbd.error != 0) {
		nbd_io_finish(l, io, io->nbd.error);
		return;
	}
	if (round_count(io) > 0) {
		nbd_round_start(l, io);
	} else if ((io->flags & DISK_FUA) && io->op != DISK_FLUSH && !l->can_fua && l->can_flush &&
		   !io->nbd.flushing) {
		io->nbd.flushing = true;
		nbd_round_start(l, io);
	} else {
		nbd_io_finish(l, io, 0);
	}
}
