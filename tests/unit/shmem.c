/* SPDX-License-Identifier: MIT */
/*
 * Shared mappings and the SIGBUS guard: a file that is really truncated under threads that copy from it, and
 * a SIGBUS that is none of ours, which must still kill.
 */
#include "huge-pages.h"
#include "../../src/shmem.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>

#include "../../src/util.h"
#include "../lib/leaks.h"
#include "../lib/tap.h"

enum { PAGE = 4096 };

static int memory_file(size_t size, unsigned flags)
{
	int fd = memfd_create("shmem", MFD_CLOEXEC | flags);

	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)size) < 0)
		FAIL("ftruncate: %s", strerror(errno));
	return fd;
}

static void unaligned_offset(void *arg)
{
	struct shmem *s;
	int fd = memory_file(3 * PAGE, 0);

	(void)arg;
	CHECK_EQ(pwrite(fd, "here", 4, PAGE + 100), 4);
	CHECK_EQ(shmem_map(&s, fd, PAGE + 100, PAGE + 50, PROT_READ | PROT_WRITE), 0);
	CHECK_MEM(s->addr, "here", 4);
	CHECK_EQ(s->len, PAGE + 50);
	CHECK_EQ(s->offset, PAGE + 100);
	CHECK_EQ(s->map_len, 2 * PAGE);
	CHECK_EQ(s->page, PAGE);
	CHECK_EQ(s->fd, fd);
	memcpy(s->addr + PAGE + 46, "last", 4);
	{
		char buf[4];

		CHECK_EQ(pread(fd, buf, 4, PAGE + 100 + PAGE + 46), 4);
		CHECK_MEM(buf, "last", 4);
	}
	shmem_unref(s);
}

static void bad_arguments(void *arg)
{
	struct shmem *s = NULL;
	int fd = memory_file(3 * PAGE + 10, 0), pipes[2], ro;
	unsigned before;
	char path[64];

	(void)arg;
	CHECK_SYS(pipe2(pipes, O_CLOEXEC));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_SYS(ro = open(path, O_RDONLY | O_CLOEXEC));
	before = open_fds();
	CHECK_EQ(shmem_map(&s, fd, 0, 0, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, 0, 3 * PAGE + 11, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, 11, 3 * PAGE, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, UINT64_MAX, 1, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, UINT64_MAX - 10, 11, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, 1, UINT64_MAX, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, fd, INT64_MAX, INT64_MAX, PROT_READ), -EINVAL);
	CHECK_EQ(shmem_map(&s, -1, 0, PAGE, PROT_READ), -EBADF);
	CHECK(shmem_map(&s, pipes[0], 0, PAGE, PROT_READ) < 0);
	CHECK_EQ(shmem_map(&s, ro, 0, PAGE, PROT_READ | PROT_WRITE), -EACCES);
	CHECK(s == NULL);
	CHECK_EQ(open_fds(), before); /* a refused fd stays the caller's */
	CHECK_EQ(mappings_of("memfd:shmem"), 0);
	CHECK_EQ(shmem_map(&s, fd, 10, 3 * PAGE, PROT_READ), 0);
	shmem_unref(s);
}

static void references(void *arg)
{
	struct shmem *s;
	unsigned before = open_fds();

	(void)arg;
	CHECK_EQ(shmem_map(&s, memory_file(PAGE, 0), 0, PAGE, PROT_READ), 0);
	CHECK_EQ(mappings_of("memfd:shmem"), 1);
	CHECK(shmem_ref(s) == s);
	shmem_unref(s);
	CHECK_EQ(mappings_of("memfd:shmem"), 1);
	CHECK_EQ(s->addr[0], 0);
	shmem_unref(s);
	CHECK_EQ(mappings_of("memfd:shmem"), 0);
	CHECK_EQ(open_fds(), before);
	shmem_unref(NULL);
}

static void full_table(void *arg)
{
	enum { MANY = 3000 };
	static struct shmem *s[MANY];
	struct rlimit limit = {8192, 8192};
	unsigned n = 0;
	int fd = memory_file(PAGE, 0), err = 0;

	(void)arg;
	CHECK(shmem_max >= 64 * 1024);
	shmem_max = 2048;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		tap_skip("no more than 1024 descriptors: %s", strerror(errno));
	for (; n < MANY; n++) {
		int dup_fd = dup(fd);

		CHECK_SYS(dup_fd);
		err = shmem_map(&s[n], dup_fd, 0, PAGE, PROT_READ);
		if (err) {
			close(dup_fd);
			break;
		}
	}
	CHECK_EQ(err, -ENOSPC);
	CHECK_EQ(n, shmem_max);
	shmem_unref(s[n / 2]);
	CHECK_EQ(shmem_map(&s[n / 2], dup(fd), 0, PAGE, PROT_READ), 0);
	for (unsigned i = 0; i < n; i++)
		shmem_unref(s[i]);
	CHECK_EQ(mappings_of("memfd:shmem"), 0);
}

static void huge_pages(void *arg)
{
	struct shmem *s;
	unsigned char resident;
	size_t huge = 2u << 20;
	int fd = memory_file(2 * huge, MFD_HUGETLB);

	(void)arg;
	if (fd < 0)
		tap_skip("no huge pages: %s", strerror(errno));
	if (fallocate(fd, 0, 0, (off_t)(2 * huge)) < 0)
		tap_skip("no free huge pages: %s", strerror(errno));
	CHECK(shmem_guard() >= 0);
	CHECK_EQ(shmem_map(&s, fd, huge - PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(s->page, huge);
	CHECK_EQ(s->map_len, 2 * huge);
	CHECK_EQ(mincore(s->addr, PAGE, &resident), 0);
	memset(s->addr, 'h', 2 * PAGE);
	CHECK(!shmem_lost());
	CHECK_EQ(ftruncate(fd, (off_t)huge), 0);
	s->addr[PAGE] = 'x'; /* in the second page, which is gone */
	CHECK(shmem_lost());
	CHECK_EQ(s->addr[PAGE], 'x');
	CHECK_EQ(s->addr[0], 'h');
	shmem_unref(s);
}

/* Two threads copy from one mapping while the file shrinks under it. */
struct reader {
	const struct shmem *s;
	pthread_barrier_t *truncated;
	unsigned from;
	uint64_t sum;
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;
	static __thread uint8_t buf[16 * PAGE];

	memcpy(buf, r->s->addr, sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		CHECK_EQ(buf[i], 'd');
	pthread_barrier_wait(r->truncated);
	pthread_barrier_wait(r->truncated);
	memcpy(buf + r->from * PAGE, r->s->addr + r->from * PAGE, sizeof(buf) - r->from * PAGE);
	for (size_t i = 0; i < sizeof(buf); i++)
		r->sum += buf[i];
	return NULL;
}

static void truncated_under_threads(void *arg)
{
	struct shmem *s, *other;
	struct reader r[2];
	pthread_barrier_t truncated;
	pthread_t thread[2];
	struct pollfd lost;
	int fd = memory_file(16 * PAGE, 0), memory = dup(fd);

	(void)arg;
	lost = (struct pollfd){.fd = shmem_guard(), .events = POLLIN};
	CHECK(lost.fd >= 0);
	CHECK_EQ(shmem_guard(), lost.fd);
	CHECK_EQ(shmem_map(&other, memory_file(PAGE, 0), 0, PAGE, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(shmem_map(&s, fd, 0, 16 * PAGE, PROT_READ | PROT_WRITE), 0);
	memset(s->addr, 'd', 16 * PAGE);
	memset(other->addr, 'o', PAGE);
	pthread_barrier_init(&truncated, NULL, 3);
	for (unsigned i = 0; i < 2; i++) {
		r[i] = (struct reader){.s = s, .truncated = &truncated, .from = i * 3};
		CHECK_EQ(pthread_create(&thread[i], NULL, reader_run, &r[i]), 0);
	}
	pthread_barrier_wait(&truncated);
	CHECK_EQ(poll(&lost, 1, 0), 0);
	CHECK(!shmem_lost());
	CHECK_EQ(ftruncate(memory, 2 * PAGE), 0);
	pthread_barrier_wait(&truncated);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	CHECK_EQ(r[0].sum, 2 * PAGE * 'd'); /* the rest reads as zeros */
	CHECK_EQ(r[1].sum, 3 * PAGE * 'd'); /* what it had copied before */
	CHECK_EQ(poll(&lost, 1, 0), 1);
	CHECK(shmem_lost());
	CHECK(!shmem_lost());
	CHECK_EQ(poll(&lost, 1, 0), 0);

	memset(s->addr, 'n', 16 * PAGE); /* writes work too, and reach what is left of the file */
	{
		char buf[4];

		CHECK_EQ(pread(memory, buf, 4, 2 * PAGE - 2), 2);
		CHECK_MEM(buf, "nn", 2);
	}
	CHECK_EQ(other->addr[0], 'o');
	CHECK(!shmem_lost());
	shmem_unref(s);
	shmem_unref(other);
	CHECK_EQ(mappings_of("memfd:shmem"), 0);
}

static void lost_through_unaligned_start(void *arg)
{
	struct shmem *s;
	int fd = memory_file(4 * PAGE, 0), memory = dup(fd);

	(void)arg;
	CHECK(shmem_guard() >= 0);
	CHECK_EQ(shmem_map(&s, fd, PAGE + 8, 3 * PAGE - 8, PROT_READ | PROT_WRITE), 0);
	CHECK_EQ(ftruncate(memory, 0), 0);
	s->addr[0] = 'w';
	s->addr[3 * PAGE - 9] = 'z';
	CHECK(shmem_lost());
	CHECK_EQ(s->addr[0], 'w');
	CHECK_EQ(s->addr[3 * PAGE - 9], 'z');
	shmem_unref(s);
}

/* Runs fn in a child; the signal that killed it, or 0. */
static int killed_by(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	CHECK_SYS(pid);
	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL); /* a sanitizer's handler would end us in another way */
		if (shmem_guard() < 0)
			_exit(1);
		fn();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_foreign(void)
{
	int fd = memory_file(PAGE, 0);
	volatile uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (ftruncate(fd, 0) == 0)
		p[0] = 1;
}

static void touch_after_unref(void)
{
	struct shmem *s;
	int fd = memory_file(PAGE, 0), memory = dup(fd);
	volatile uint8_t *p;

	if (shmem_map(&s, fd, 0, PAGE, PROT_READ | PROT_WRITE) < 0)
		return;
	p = s->addr;
	shmem_unref(s);
	if (mmap((void *)p, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0) != p)
		return;
	if (ftruncate(memory, 0) == 0)
		p[0] = 1;
}

static void signal_by_hand(void)
{
	kill(getpid(), SIGBUS);
}

static void foreign_stays_fatal(void *arg)
{
	(void)arg;
	CHECK_EQ(killed_by(touch_foreign), SIGBUS);
	CHECK_EQ(killed_by(touch_after_unref), SIGBUS);
	CHECK_EQ(killed_by(signal_by_hand), SIGBUS);
}

int main(void)
{
	struct huge_pages pages;

	tap_case("unaligned offset", unaligned_offset, NULL);
	tap_case("bad arguments", bad_arguments, NULL);
	tap_case("references", references, NULL);
	tap_case("full guard table", full_table, NULL);
	huge_pages_reserve(&pages);
	tap_case("huge pages", huge_pages, NULL);
	huge_pages_release(&pages);
	tap_case("truncated under two threads", truncated_under_threads, NULL);
	tap_case("lost at an unaligned start", lost_through_unaligned_start, NULL);
	tap_case("a SIGBUS elsewhere stays fatal", foreign_stays_fatal, NULL);
	return tap_done();
}
