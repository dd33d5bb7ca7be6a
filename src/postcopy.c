/* SPDX-License-Identifier: MIT */
/*
 * Postcopy (postcopy.h has the order of things).
 *
 * Between "prepared" and "accepted" a mapping has no access rights: a page touched then would be filled with
 * zeros and its real contents refused later. The session keeps such a map away from the queues.
 *
 * The front-end's copy of the userfaultfd keeps it alive, so closing ours does not end anything: each range that was
 * registered is unregistered, which also wakes whoever waits in it. A range whose mapping is gone meanwhile is answered
 * with an error that does not matter.
 */
#include "postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "util.h"

enum { POSTCOPY_MAX_RANGES = 8 * GUESTMEM_MAX_REGIONS };

/* A userfaultfd for faults of both user and kernel mode: the system call when we may, else the device. */
static int uffd_create(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = (int)syscall(SYS_userfaultfd, flags);
	CLEANUP_FD int dev = -1;

	if (fd >= 0)
		return fd;
	if (errno != EPERM)
		return -errno;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -EPERM;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
	return fd < 0 ? -errno : fd;
}

/* No optional events are asked for: the front-end expects page faults only. */
static int uffd_open(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	CLEANUP_FD int fd = uffd_create();

	if (fd < 0) {
		int err = fd;

		fd = -1;
		return err;
	}
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return -errno;
	if (!(api.features & UFFD_FEATURE_MISSING_SHMEM))
		return -EOPNOTSUPP;
	return fd_take(&fd);
}

bool postcopy_available(void)
{
	int fd = uffd_open();

	if (fd < 0)
		return false;
	fd_close(&fd);
	return true;
}

int postcopy_advise(struct postcopy *p)
{
	int fd;

	if (p->listening) {
		log_error("postcopy: advised while listening");
		return -EBUSY;
	}
	fd = uffd_open();
	if (fd < 0)
		return log_guest_errno(-fd, "postcopy: userfaultfd");
	fd_close(&p->uffd);
	p->uffd = fd;
	return fd;
}

static void ranges_release(struct postcopy *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct uffdio_range range = {.start = p->ranges[i].start, .len = p->ranges[i].len};

		if (ioctl(p->uffd, UFFDIO_UNREGISTER, &range) < 0) {
			/* unmapped meanwhile */
		}
	}
	p->n = 0;
	p->given_up = true;
}

static void *watcher_run(void *arg)
{
	struct postcopy *p = arg;
	unsigned stop = p->n_until;

	while (poll(p->until, stop + 1, -1) < 0 && errno == EINTR)
		;
	if (p->until[stop].revents)
		return NULL;
	pthread_mutex_lock(&p->lock);
	if (p->n > 0)
		log_warn("postcopy: the connection ends before all pages came");
	ranges_release(p);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int watcher_start(struct postcopy *p, const struct pollfd *until, unsigned n)
{
	int err, stop = eventfd(0, EFD_CLOEXEC);

	if (stop < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++)
		p->until[i] = (struct pollfd){.fd = until[i].fd, .events = until[i].events};
	p->until[n] = (struct pollfd){.fd = stop, .events = POLLIN};
	p->n_until = n;
	err = loop_thread(&p->watcher, "postcopy", watcher_run, p);
	if (err)
		fd_close(&p->until[n].fd);
	p->watching = err == 0;
	return err;
}

static void watcher_stop(struct postcopy *p)
{
	uint64_t one = 1;

	if (!p->watching)
		return;
	if (write(p->until[p->n_until].fd, &one, sizeof(one)) < 0) {
		/* a fresh eventfd takes a 1 */
	}
	pthread_join(p->watcher, NULL);
	fd_close(&p->until[p->n_until].fd);
	p->watching = false;
}

int postcopy_listen(struct postcopy *p, const struct guestmem *now, const struct pollfd *until, unsigned n)
{
	int err;

	if (p->uffd < 0 || p->listening) {
		log_error("postcopy: listen %s", p->listening ? "twice" : "without advise");
		return -EINVAL;
	}
	if (now && now->n > 0) {
		log_error("postcopy: listen with %u memory regions in use", now->n);
		return -EBUSY;
	}
	if (n > POSTCOPY_UNTIL_MAX)
		return -EINVAL;
	p->given_up = false;
	err = watcher_start(p, until, n);
	if (err)
		return log_errno(err, "postcopy: watcher");
	p->listening = true;
	return 0;
}

void postcopy_prepare(struct postcopy *p, struct guestmem *m)
{
	guestmem_unref(p->pending);
	p->pending = m;
}

const struct guestmem *postcopy_base_map(const struct postcopy *p)
{
	return p->pending;
}

uint64_t postcopy_base(const struct postcopy *p, uint64_t gpa)
{
	int i = p->pending ? guestmem_find(p->pending, gpa) : -1;

	return i >= 0 && p->pending->region[i].gpa == gpa ? (uintptr_t)p->pending->region[i].host : 0;
}

static bool range_known(const struct postcopy *p, const struct postcopy_range *range)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->ranges[i].start == range->start && p->ranges[i].len == range->len)
			return true;
	return false;
}

static int range_remember(struct postcopy *p, const struct postcopy_range *range)
{
	if (range_known(p, range))
		return 0;
	if (p->n == POSTCOPY_MAX_RANGES)
		return -ENOSPC;
	if (p->n == p->capacity) {
		unsigned capacity = p->capacity ? 2 * p->capacity : 16;
		struct postcopy_range *ranges = realloc(p->ranges, capacity * sizeof(*ranges));

		if (!ranges)
			return -ENOMEM;
		p->ranges = ranges;
		p->capacity = capacity;
	}
	p->ranges[p->n++] = *range;
	return 0;
}

/* Registered before it becomes accessible, so no page can slip through. */
static int region_register(struct postcopy *p, const struct shmem *shm)
{
	struct postcopy_range range = {.start = (uintptr_t)shm->map, .len = shm->map_len};
	struct uffdio_register reg = {
		.range = {.start = range.start, .len = range.len}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	int err = range_remember(p, &range);

	if (err)
		return err;
	madvise(shm->map, shm->map_len, MADV_NOHUGEPAGE); /* fails on hugetlbfs, where it means nothing */
	if (ioctl(p->uffd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	if (!(reg.ioctls & BIT(_UFFDIO_COPY)))
		return -EOPNOTSUPP;
	return mprotect(shm->map, shm->map_len, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}

static int map_register(struct postcopy *p, const struct guestmem *m)
{
	int err = p->given_up ? -EPIPE : 0;

	for (unsigned i = 0; i < m->n && !err; i++)
		err = region_register(p, m->region[i].shm);
	return err;
}

int postcopy_accept(struct postcopy *p, struct guestmem **out)
{
	struct guestmem *m = p->pending;
	int err;

	*out = NULL;
	p->pending = NULL;
	if (!m)
		return 0;
	pthread_mutex_lock(&p->lock);
	err = map_register(p, m);
	pthread_mutex_unlock(&p->lock);
	if (err) {
		guestmem_unref(m);
		return log_guest_errno(err, "postcopy: registering memory");
	}
	*out = m;
	return 0;
}

void postcopy_end(struct postcopy *p)
{
	watcher_stop(p);
	ranges_release(p);
	free(p->ranges);
	p->ranges = NULL;
	p->capacity = 0;
	guestmem_unref(p->pending);
	p->pending = NULL;
	p->listening = false;
	fd_close(&p->uffd);
}
