/* SPDX-License-Identifier: MIT */
/* See device-state.h. */
#include "device-state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 65536 };

static void state_end(struct device_state *d, int result)
{
	void (*finished)(struct device_state *, int) = d->finished;

	watch_del(&d->watch);
	fd_close(&d->pipe);
	if (!result && d->load) {
		if (lseek(d->mem, 0, SEEK_SET) < 0)
			result = -errno;
		else
			result = d->b->dev->load(d->b, d->mem);
	}
	fd_close(&d->mem);
	d->result = result;
	d->finished = NULL;
	if (finished)
		finished(d, result);
}

/* One chunk. > 0: moved, 0: the end, -EAGAIN, -errno. */
static ssize_t state_move(struct device_state *d)
{
	char buf[CHUNK];
	ssize_t n;

	if (!d->load) {
		n = pread(d->mem, buf, sizeof(buf), (off_t)d->done);
		if (n > 0)
			n = write(d->pipe, buf, (size_t)n);
		if (n > 0)
			d->done += (uint64_t)n;
		return n < 0 ? -errno : n;
	}
	n = read(d->pipe, buf, sizeof(buf));
	if (n < 0)
		return -errno;
	if (d->done + (uint64_t)n > DEVICE_STATE_MAX)
		return -EFBIG;
	if (n && pwrite(d->mem, buf, (size_t)n, (off_t)d->done) != n)
		return -EIO;
	d->done += (uint64_t)n;
	return n;
}

static void state_ready(struct watch *w, uint32_t events)
{
	struct device_state *d = container_of(w, struct device_state, watch);
	ssize_t n = state_move(d);

	(void)events;
	if (n > 0 || n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0)
		log_guest_errno((int)-n, "device state");
	state_end(d, (int)n);
}

void device_state_init(struct device_state *d, struct backend *b)
{
	memset(d, 0, sizeof(*d));
	d->b = b;
	d->pipe = d->mem = d->watch.fd = -1;
	d->watch.ready = state_ready;
}

int device_state_begin(struct device_state *d, uint32_t direction, int *fd)
{
	const struct device *dev = d->b->dev;
	bool load = direction == DEVICE_STATE_LOAD;
	CLEANUP_FD int mem = -1;
	int flags, err = 0;

	if (direction > DEVICE_STATE_LOAD)
		return -EINVAL;
	if (device_state_busy(d))
		return -EBUSY;
	if (load ? !dev->load : !dev->save)
		return -ENOTSUP;
	flags = fcntl(*fd, F_GETFL);
	if (flags < 0 || fcntl(*fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	mem = memfd_create("vhost-user-state", MFD_CLOEXEC);
	if (mem < 0)
		return -errno;
	if (!load)
		err = dev->save(d->b, mem);
	if (!err)
		err = watch_add(d->b->loop, &d->watch, *fd, load ? EPOLLIN : EPOLLOUT);
	if (err)
		return err;
	d->load = load;
	d->done = 0;
	d->result = 0;
	d->mem = fd_take(&mem);
	d->pipe = fd_take(fd);
	return 0;
}

void device_state_cancel(struct device_state *d)
{
	d->finished = NULL;
	if (!device_state_busy(d))
		return;
	watch_del(&d->watch);
	fd_close(&d->pipe);
	fd_close(&d->mem);
	d->result = -ECANCELED;
}
