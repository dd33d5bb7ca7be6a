/* SPDX-License-Identifier: MIT */
/*
 * A disk writer that knows what the disk must hold.
 *
 * Every thread owns each n-th block of the device. It writes blocks in a
 * pseudo-random order, stamps each with its number and a generation, and notes
 * the generation only when the write was acknowledged. Every so often, and at
 * the end over all blocks, it reads back and compares: a block must hold the
 * last acknowledged generation, whole. That stays true through a killed
 * back-end or a migration, which is what it is for.
 *
 * usage: blkload DEVICE MIB THREADS STOPFILE LIMIT
 *
 * Runs until STOPFILE exists or LIMIT seconds have passed. Prints "running"
 * when each thread has had a write acknowledged, a "writes N" line about each
 * second, and "verified N blocks, N writes" at the end. Exit status 0: all data was right.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	    4096u
#define MAX_THREADS 16u

struct writer {
	pthread_t thread;
	unsigned index;
	uint64_t seed;
	uint64_t *block; /* BLOCK bytes, aligned for O_DIRECT */
	bool failed;
};

static int disk;
static size_t nblocks;
static unsigned nwriters;
static uint32_t *generation; /* per block: the last one acknowledged */
static atomic_bool stop;
static atomic_ulong writes;
static atomic_uint started;

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53u;
	return x ^ x >> 33;
}

static void block_fill(uint64_t *p, size_t block, uint32_t gen)
{
	uint64_t key = mix(block << 32 | gen);

	p[0] = block;
	p[1] = gen;
	for (size_t i = 2; i < BLOCK / sizeof *p; i++)
		p[i] = key + i;
}

static bool block_check(struct writer *w, size_t block)
{
	uint64_t want[BLOCK / sizeof(uint64_t)];
	uint32_t gen = generation[block];
	ssize_t n;

	if (gen == 0)
		return true;
	n = pread(disk, w->block, BLOCK, (off_t)block * BLOCK);
	if (n != BLOCK) {
		printf("read of block %zu: %zd, %s\n", block, n, strerror(errno));
		return false;
	}
	block_fill(want, block, gen);
	if (memcmp(want, w->block, BLOCK) == 0)
		return true;
	printf("block %zu: wanted generation %u, found block %ju generation %ju\n", block, gen,
		(uintmax_t)w->block[0], (uintmax_t)w->block[1]);
	return false;
}

static bool block_write(struct writer *w, size_t block)
{
	ssize_t n;

	block_fill(w->block, block, generation[block] + 1);
	n = pwrite(disk, w->block, BLOCK, (off_t)block * BLOCK);
	if (n != BLOCK) {
		printf("write of block %zu: %zd, %s\n", block, n, strerror(errno));
		return false;
	}
	generation[block]++;
	atomic_fetch_add(&writes, 1);
	return true;
}

static void *writer_run(void *arg)
{
	struct writer *w = arg;
	size_t slots = nblocks / nwriters;

	for (unsigned turn = 0; !atomic_load(&stop); turn++) {
		w->seed = mix(w->seed + turn + 1);
		size_t block = w->seed % slots * nwriters + w->index;
		if (!block_write(w, block))
			w->failed = true;
		if (turn % 16 == 15 && !block_check(w, block))
			w->failed = true;
		if (turn == 0)
			atomic_fetch_add(&started, 1);
		if (w->failed)
			break;
	}
	return NULL;
}

static void wait_end(const char *stopfile, unsigned limit)
{
	struct timespec tick = {.tv_nsec = 50 * 1000 * 1000};
	bool running = false;

	for (unsigned t = 0; t < limit * 20; t++) {
		if (access(stopfile, F_OK) == 0)
			break;
		if (!running && atomic_load(&started) == nwriters) {
			running = true;
			puts("running");
		}
		if (t % 20 == 19)
			printf("writes %lu\n", atomic_load(&writes));
		nanosleep(&tick, NULL);
	}
	atomic_store(&stop, true);
}

static int fail(const char *what)
{
	fprintf(stderr, "blkload: %s: %s\n", what, strerror(errno));
	return 2;
}

int main(int argc, char **argv)
{
	static struct writer writers[MAX_THREADS];
	size_t checked = 0;
	bool failed = false;

	if (argc != 6) {
		fputs("usage: blkload DEVICE MIB THREADS STOPFILE LIMIT\n", stderr);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	nblocks = strtoul(argv[2], NULL, 10) * 256;
	nwriters = (unsigned)strtoul(argv[3], NULL, 10);
	if (nwriters == 0 || nwriters > MAX_THREADS || nblocks < nwriters) {
		fputs("blkload: bad size or number of threads\n", stderr);
		return 2;
	}
	disk = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		return fail(argv[1]);
	generation = calloc(nblocks, sizeof *generation);
	if (!generation)
		return fail("calloc");
	for (unsigned i = 0; i < nwriters; i++) {
		struct writer *w = &writers[i];

		w->index = i;
		w->seed = mix(i + 1);
		w->block = aligned_alloc(BLOCK, BLOCK);
		if (!w->block || pthread_create(&w->thread, NULL, writer_run, w) != 0)
			return fail("thread");
	}
	wait_end(argv[4], (unsigned)strtoul(argv[5], NULL, 10));
	for (unsigned i = 0; i < nwriters; i++) {
		pthread_join(writers[i].thread, NULL);
		failed |= writers[i].failed;
	}
	for (size_t b = 0; b < nblocks && !failed; b++) {
		failed = !block_check(&writers[0], b);
		checked += generation[b] != 0;
	}
	if (failed || checked == 0)
		return 1;
	printf("verified %zu blocks, %lu writes\n", checked, atomic_load(&writes));
	return 0;
}
