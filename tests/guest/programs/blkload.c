/* SPDX-License-Identifier: MIT */
/*
 * A disk writer that knows what the disk, and its own memory, must hold.
 *
 * Every thread owns each n-th block of the device. It writes blocks in a
 * pseudo-random order, stamps each with its number and a generation, and notes
 * the generation only when the write was acknowledged. Every so often, and at
 * the end over all blocks, it reads back and compares: a block must hold the
 * last acknowledged generation, whole. That stays true through a killed
 * back-end or a migration, which is what it is for.
 *
 * The first thread also flushes the disk all the time. A flush takes long and is
 * overtaken by the others' writes: there is always a request in flight that is
 * older than completed ones, and whoever forgets it leaves that thread waiting.
 *
 * What it reads lands in pages that the processor never writes to again. They
 * are compared once more at the end: a migration that overlooks what a device
 * wrote to memory leaves stale ones.
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
#define SLOTS	    512u

struct writer {
	pthread_t thread;
	unsigned index;
	uint64_t seed;
	uint64_t *block; /* BLOCK bytes, aligned for O_DIRECT */
	uint8_t *slots;	 /* SLOTS blocks, only read into */
	struct {
		size_t block;
		uint32_t generation; /* 0: nothing was read */
	} held[SLOTS];
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

/* Is this the block in that generation? */
static bool block_compare(const void *data, size_t block, uint32_t gen, const char *where)
{
	uint64_t want[BLOCK / sizeof(uint64_t)], got[2];

	block_fill(want, block, gen);
	if (memcmp(want, data, BLOCK) == 0)
		return true;
	memcpy(got, data, sizeof got);
	printf("%s: block %zu: wanted generation %u, found block %ju generation %ju\n", where, block, gen,
		(uintmax_t)got[0], (uintmax_t)got[1]);
	return false;
}

static bool block_check(struct writer *w, size_t block)
{
	uint32_t gen = generation[block];
	size_t slot = mix(block + gen) % SLOTS;
	uint8_t *data = w->slots + slot * BLOCK;
	ssize_t n;

	if (gen == 0)
		return true;
	n = pread(disk, data, BLOCK, (off_t)block * BLOCK);
	if (n != BLOCK) {
		printf("read of block %zu: %zd, %s\n", block, n, strerror(errno));
		return false;
	}
	w->held[slot].block = block;
	w->held[slot].generation = gen;
	return block_compare(data, block, gen, "disk");
}

static bool slots_check(const struct writer *w)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (w->held[i].generation != 0 && !block_compare(w->slots + i * BLOCK, w->held[i].block,
							  w->held[i].generation, "memory"))
			return false;
	return true;
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

static bool disk_flush(void)
{
	if (fdatasync(disk) == 0)
		return true;
	printf("flush: %s\n", strerror(errno));
	return false;
}

/* The first writer mostly flushes. */
static bool writer_turn(struct writer *w, unsigned turn)
{
	size_t slots = nblocks / nwriters, block;

	if (w->index == 0 && turn % 16 != 0)
		return disk_flush();
	w->seed = mix(w->seed + turn + 1);
	block = w->seed % slots * nwriters + w->index;
	return block_write(w, block) && (turn % 4 != 3 || block_check(w, block));
}

static void *writer_run(void *arg)
{
	struct writer *w = arg;

	for (unsigned turn = 0; !w->failed && !atomic_load(&stop); turn++) {
		w->failed = !writer_turn(w, turn);
		if (turn == 0)
			atomic_fetch_add(&started, 1);
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
		w->slots = aligned_alloc(BLOCK, SLOTS * BLOCK);
		if (w->slots)
			memset(w->slots, 0x5a, SLOTS * BLOCK);
		if (!w->block || !w->slots || pthread_create(&w->thread, NULL, writer_run, w) != 0)
			return fail("thread");
	}
	wait_end(argv[4], (unsigned)strtoul(argv[5], NULL, 10));
	for (unsigned i = 0; i < nwriters; i++) {
		pthread_join(writers[i].thread, NULL);
		failed |= writers[i].failed || !slots_check(&writers[i]);
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
