/* SPDX-License-Identifier: MIT */
/* The dirty log against a plain array of flags, and two threads that set bits of the same bytes. */
#include "../../src/dirtylog.h"

#include <pthread.h>

#include "../../src/log.h"
#include "../../src/util.h"
#include "../lib/tap.h"

enum { PAGE = 4096, LOG_BYTES = 40, PAGES = LOG_BYTES * 8 };

static uint64_t random_state = 42;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % limit);
}

/* A log of LOG_BYTES at offset; *bitmap is the front-end's view of it, with 16 more bytes on each side. */
static struct dirtylog *log_open(uint64_t offset, uint8_t **bitmap)
{
	struct dirtylog *log = NULL;
	int fd = memfd_create("log", MFD_CLOEXEC);
	uint8_t *all;

	CHECK_SYS(fd);
	CHECK_EQ(ftruncate(fd, 3 * PAGE), 0);
	all = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(all != MAP_FAILED);
	*bitmap = all + offset;
	CHECK_EQ(dirtylog_new(&log, &fd, LOG_BYTES, offset), 0);
	CHECK_EQ(fd, -1);
	return log;
}

static void check_bits(const uint8_t *bitmap, const bool *want)
{
	for (unsigned page = 0; page < PAGES; page++)
		CHECK_EQ(bitmap[page / 8] >> (page % 8) & 1, want[page]);
	for (int i = 0; i < 16; i++) {
		CHECK_EQ(bitmap[-1 - i], 0);
		CHECK_EQ(bitmap[LOG_BYTES + i], 0);
	}
}

static void marks(void *arg)
{
	uint8_t *bitmap;
	struct dirtylog *log = log_open(PAGE, &bitmap);

	(void)arg;
	dirtylog_mark(log, 5 * PAGE, 0);
	CHECK_EQ(bitmap[0], 0);
	dirtylog_mark(log, 5 * PAGE, 1);
	CHECK_EQ(bitmap[0], 0x20);
	dirtylog_mark(log, 7 * PAGE - 1, 2);
	CHECK_EQ(bitmap[0], 0xe0);
	CHECK_EQ(bitmap[1], 0);
	dirtylog_mark(log, 15 * PAGE + 4095, 1 + 16 * PAGE + 1);
	CHECK_EQ(bitmap[1], 0x80);
	CHECK_EQ(bitmap[2], 0xff);
	CHECK_EQ(bitmap[3], 0xff);
	CHECK_EQ(bitmap[4], 0x01);
	dirtylog_unref(log);
}

static void random_marks(void *arg)
{
	(void)arg;
	for (unsigned round = 0; round < 500; round++) {
		bool want[PAGES] = {false};
		uint8_t *bitmap;
		struct dirtylog *log = log_open(PAGE + random_below(2000), &bitmap);

		for (unsigned i = 0; i < 20; i++) {
			uint64_t gpa = random_below(PAGES * PAGE),
				 len = random_below(random_below(2) ? 300 : 20 * PAGE);

			len = MIN(len, (uint64_t)PAGES * PAGE - gpa);
			dirtylog_mark(log, gpa, len);
			for (uint64_t at = gpa; len && at / PAGE <= (gpa + len - 1) / PAGE; at += PAGE)
				want[at / PAGE] = true;
			check_bits(bitmap, want);
		}
		munmap(bitmap - ((uintptr_t)bitmap % PAGE) - PAGE, 3 * PAGE);
		dirtylog_unref(log);
	}
}

/* Runs fn with stderr in a file; the number of lines written. */
static unsigned count_lines(void (*fn)(struct dirtylog *log), struct dirtylog *log)
{
	char text[4096];
	unsigned lines = 0;
	int file = memfd_create("stderr", MFD_CLOEXEC), saved = dup(2);
	ssize_t n;

	CHECK_SYS(dup2(file, 2));
	fn(log);
	CHECK_SYS(dup2(saved, 2));
	CHECK_SYS(n = pread(file, text, sizeof(text), 0));
	for (ssize_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	close(saved);
	close(file);
	return lines;
}

static void mark_inside(struct dirtylog *log)
{
	dirtylog_mark(log, (PAGES - 1) * PAGE, PAGE);
}

static void mark_beyond(struct dirtylog *log)
{
	dirtylog_mark(log, PAGES * PAGE, 1);
	dirtylog_mark(log, UINT64_MAX, 1);
	dirtylog_mark(log, UINT64_MAX, UINT64_MAX);
	dirtylog_mark(log, (PAGES - 2) * PAGE, UINT64_MAX);
}

static void beyond_the_end(void *arg)
{
	bool want[PAGES] = {false};
	uint8_t *bitmap;
	struct dirtylog *log = log_open(PAGE + 20, &bitmap);

	(void)arg;
	CHECK_EQ(count_lines(mark_inside, log), 0);
	want[PAGES - 1] = true;
	check_bits(bitmap, want);
	CHECK_EQ(count_lines(mark_beyond, log), 1);
	want[PAGES - 2] = true;
	check_bits(bitmap, want);
	CHECK_EQ(count_lines(mark_beyond, log), 0);
	dirtylog_unref(log);
}

/* Two threads own the odd and the even pages; a third clears bytes and remembers. No mark may be lost. */
struct marker {
	struct dirtylog *log;
	unsigned parity;
	unsigned *going;
};

static void *marker_run(void *arg)
{
	struct marker *m = arg;

	for (unsigned round = 0; round < 200; round++)
		for (unsigned page = m->parity; page < PAGES; page += 2)
			dirtylog_mark(m->log, (uint64_t)page * PAGE + 1, 8);
	__atomic_fetch_sub(m->going, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void concurrent_marks(void *arg)
{
	uint8_t *bitmap, seen[LOG_BYTES] = {0};
	struct dirtylog *log = log_open(3, &bitmap);
	unsigned going = 2;
	struct marker m[2] = {{log, 0, &going}, {log, 1, &going}};
	pthread_t thread[2];

	(void)arg;
	CHECK(dirtylog_ref(log) == log);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, marker_run, &m[i]), 0);
	for (bool last = false; !last;) {
		last = __atomic_load_n(&going, __ATOMIC_SEQ_CST) == 0;
		for (unsigned i = 0; i < LOG_BYTES; i++)
			seen[i] |= __atomic_exchange_n(&bitmap[i], 0, __ATOMIC_SEQ_CST);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < LOG_BYTES; i++)
		CHECK_EQ(seen[i], 0xff);
	for (unsigned round = 0; round < 50;
		round++) { /* and without anybody clearing: bits of one byte stay */
		memset(bitmap, 0, LOG_BYTES);
		going = 2;
		for (unsigned i = 0; i < 2; i++)
			CHECK_EQ(pthread_create(&thread[i], NULL, marker_run, &m[i]), 0);
		for (unsigned i = 0; i < 2; i++)
			pthread_join(thread[i], NULL);
		for (unsigned i = 0; i < LOG_BYTES; i++)
			CHECK_EQ(bitmap[i], 0xff);
	}
	dirtylog_unref(log);
	dirtylog_mark(log, 0, 1); /* the second reference */
	dirtylog_unref(log);
	dirtylog_unref(NULL);
}

static void refused_files(void *arg)
{
	struct dirtylog *log = NULL;
	int fd = memfd_create("log", MFD_CLOEXEC), mine = fd;

	(void)arg;
	CHECK_EQ(ftruncate(fd, PAGE), 0);
	CHECK_EQ(dirtylog_new(&log, &fd, 0, 0), -EINVAL);
	CHECK_EQ(dirtylog_new(&log, &fd, PAGE + 1, 0), -EINVAL);
	CHECK_EQ(dirtylog_new(&log, &fd, PAGE, 1), -EINVAL);
	CHECK_EQ(dirtylog_new(&log, &fd, UINT64_MAX, 0), -EINVAL);
	CHECK_EQ(fd, mine);
	CHECK(log == NULL);
}

int main(void)
{
	tap_case("marks", marks, NULL);
	tap_case("random marks", random_marks, NULL);
	tap_case("beyond the end", beyond_the_end, NULL);
	tap_case("concurrent marks", concurrent_marks, NULL);
	tap_case("refused files", refused_files, NULL);
	return tap_done();
}
