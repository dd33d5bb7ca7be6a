/* SPDX-License-Identifier: MIT */
/*
 * Shared mappings and the SIGBUS guard (shmem.h says what for; vhost-user: "Memory region description").
 *
 * The guard's table has a fixed number of slots, each with a sequence count that is odd while the slot
 * changes. The handler reads it without a lock and skips a slot that changes under it: the slot of the
 * mapping that faulted can't change, because whoever touches a mapping holds a reference to it. The handler
 * calls mmap(2) and write(2) only.
 *
 * The lost part, from the page that faulted to the end of the mapping, becomes private zero memory. What lies
 * before it is still shared, so that work already begun there ends in order.
 */
#include "shmem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

enum { SHMEM_SLOTS = 64 * 1100 }; /* as many sessions as a process can have, and two full maps for each */

unsigned shmem_max = SHMEM_SLOTS;

/* All fields are atomic. */
struct shmem_slot {
	unsigned seq; /* odd: being changed */
	bool used;    /* claimed, by compare-and-swap */
	bool lost;    /* some of the mapping is zero memory now */
	uintptr_t start, end, page;
};

static struct shmem_slot slots[SHMEM_SLOTS];

static struct {
	unsigned top; /* slots from here on were never used */
	bool lost;
	int eventfd;
	struct sigaction previous;
} guard = {.eventfd = -1};

static bool slot_read(const struct shmem_slot *s, uintptr_t *start, uintptr_t *end, uintptr_t *page)
{
	unsigned seq = __atomic_load_n(&s->seq, __ATOMIC_ACQUIRE);

	*start = __atomic_load_n(&s->start, __ATOMIC_RELAXED);
	*end = __atomic_load_n(&s->end, __ATOMIC_RELAXED);
	*page = __atomic_load_n(&s->page, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return (seq & 1) == 0 && __atomic_load_n(&s->seq, __ATOMIC_RELAXED) == seq;
}

static void slot_write(struct shmem_slot *s, uintptr_t start, uintptr_t end, uintptr_t page)
{
	__atomic_fetch_add(&s->seq, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&s->start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&s->end, end, __ATOMIC_RELAXED);
	__atomic_store_n(&s->page, page, __ATOMIC_RELAXED);
	__atomic_fetch_add(&s->seq, 1, __ATOMIC_RELEASE);
}

static int slot_claim(void)
{
	for (unsigned i = 0; i < shmem_max; i++) {
		bool expected = false;
		unsigned top = i + 1, seen = __atomic_load_n(&guard.top, __ATOMIC_RELAXED);

		if (__atomic_load_n(&slots[i].used, __ATOMIC_RELAXED) ||
			!__atomic_compare_exchange_n(
				&slots[i].used, &expected, true, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		while (seen < top && !__atomic_compare_exchange_n(&guard.top, &seen, top, true,
					     __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			;
		return (int)i;
	}
	return -ENOSPC;
}

static void slot_release(int i)
{
	__atomic_store_n(&slots[i].lost, false, __ATOMIC_RELEASE);
	slot_write(&slots[i], 0, 0, 0);
	__atomic_store_n(&slots[i].used, false, __ATOMIC_RELEASE);
}

/* Puts zero memory over the rest of the mapping that addr is in; false: addr is in none. Async-signal-safe.
 */
static bool guard_cover(uintptr_t addr)
{
	unsigned top = __atomic_load_n(&guard.top, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < top; i++) {
		uintptr_t start, end, page, from;

		if (!slot_read(&slots[i], &start, &end, &page) || addr < start || addr >= end)
			continue;
		from = start + ALIGN_DOWN(addr - start, page);
		__atomic_store_n(&slots[i].lost, true, __ATOMIC_RELEASE);
		/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
		return mmap((void *)from, end - from, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
	}
	return false;
}

static void guard_handle(int sig, siginfo_t *info, void *context UNUSED)
{
	uint64_t one = 1;
	int saved = errno;

	if (info->si_code > 0 && guard_cover((uintptr_t)info->si_addr)) {
		__atomic_store_n(&guard.lost, true, __ATOMIC_RELEASE);
		if (write(guard.eventfd, &one, sizeof(one)) < 0) {
			/* it is readable already */
		}
		errno = saved;
		return;
	}
	/* Not ours: the faulting access is repeated and meets the previous handler; a kill(2) has to be sent
	 * again. */
	sigaction(sig, &guard.previous, NULL);
	if (info->si_code <= 0)
		raise(sig);
	errno = saved;
}

int shmem_guard(void)
{
	struct sigaction action = {.sa_sigaction = guard_handle, .sa_flags = SA_SIGINFO | SA_RESTART};
	int fd;

	if (guard.eventfd >= 0)
		return guard.eventfd;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return log_errno(errno, "eventfd for lost memory");
	guard.eventfd = fd;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, &action, &guard.previous) < 0) {
		int err = errno;

		fd_close(&guard.eventfd);
		return log_errno(err, "SIGBUS handler");
	}
	return fd;
}

bool shmem_lost(void)
{
	uint64_t count;

	if (guard.eventfd >= 0 && read(guard.eventfd, &count, sizeof(count)) < 0) {
		/* nothing was lost, or the loop has read it */
	}
	return __atomic_exchange_n(&guard.lost, false, __ATOMIC_ACQ_REL);
}

bool shmem_is_lost(const struct shmem *s)
{
	return __atomic_load_n(&slots[s->slot].lost, __ATOMIC_ACQUIRE);
}

/* The page size that mappings of fd must be aligned to. */
static int file_page(int fd, uint64_t *page)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*page = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
	return *page && (*page & (*page - 1)) == 0 ? 0 : -EINVAL;
}

/* Checks that the file holds [offset, offset + len). A device has no size; its driver's mmap checks. */
static int file_holds(int fd, uint64_t offset, uint64_t len)
{
	struct stat st;
	uint64_t end;

	if (len == 0 || !checked_add(offset, len, &end) || end > INT64_MAX)
		return -EINVAL;
	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && end > (uint64_t)st.st_size ? -EINVAL : 0;
}

/* Maps, and makes the mapping known to the guard before anybody has its address. */
static int shmem_attach(struct shmem *s, int prot)
{
	uint64_t begin = ALIGN_DOWN(s->offset, s->page);

	s->slot = slot_claim();
	if (s->slot < 0)
		return -ENOSPC;
	s->map_len = ALIGN_UP(s->offset - begin + s->len, s->page);
	s->map = mmap(NULL, s->map_len, prot, MAP_SHARED | MAP_NORESERVE, s->fd, (off_t)begin);
	if (s->map == MAP_FAILED) {
		int err = errno;

		slot_release(s->slot);
		return -err;
	}
	s->addr = (uint8_t *)s->map + (s->offset - begin);
	madvise(s->map, s->map_len, MADV_DONTDUMP);
	slot_write(&slots[s->slot], (uintptr_t)s->map, (uintptr_t)s->map + s->map_len, s->page);
	return 0;
}

int shmem_map(struct shmem **out, int fd, uint64_t offset, uint64_t len, int prot)
{
	struct shmem *s;
	struct stat st;
	int err = file_holds(fd, offset, len);

	if (!err && fstat(fd, &st) < 0)
		err = -errno;
	if (err)
		return err;
	s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	*s = (struct shmem){
		.fd = fd, .offset = offset, .len = len, .dev = st.st_dev, .ino = st.st_ino, .refs = 1};
	err = file_page(fd, &s->page);
	if (!err)
		err = shmem_attach(s, prot);
	if (err) {
		free(s);
		return err;
	}
	*out = s;
	return 0;
}

int shmem_discard(struct shmem *s, uint64_t at, uint64_t len)
{
	uint8_t *mapped = s->addr + (at - s->offset);
	int err;

	if (fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0)
		return 0;
	err = -errno;
	if (err == -EOPNOTSUPP || err == -ENOSYS) {
		madvise(mapped, len, MADV_DONTNEED);
		return -EOPNOTSUPP;
	}
	return err;
}

struct shmem *shmem_ref(struct shmem *s)
{
	__atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void shmem_unref(struct shmem *s)
{
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	slot_release(s->slot);
	munmap(s->map, s->map_len);
	fd_close(&s->fd);
	free(s);
}
