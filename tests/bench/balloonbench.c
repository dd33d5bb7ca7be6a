/* SPDX-License-Identifier: MIT */
/*
 * How fast the program under test gives memory back as a balloon. Memory in use goes into the balloon 256 pages at a time,
 * as Linux sends them, and is reported as free in blocks of 4 MiB. GiB/s from the request until its end:
 *	ascending=… scattered=… reported=…
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "frontend.h"

enum { PAGE = 4096, REQUEST = 256, BLOCK = 4 << 20 };
#define SIZE (UINT64_C(256) << 20)

struct bench {
	struct fe fe;
	struct fe_queue *inflate, *reporting;
	struct fe_region *memory;
	uint32_t *list;
};

static void resident(struct bench *b, bool all)
{
	struct stat st;

	CHECK_SYS(fstat(b->memory->fd, &st));
	CHECK_EQ((uint64_t)st.st_blocks * 512, all ? SIZE : 0);
}

static void use(struct bench *b)
{
	for (uint64_t at = 0; at < SIZE; at += PAGE)
		b->memory->ptr[at] = 1;
	resident(b, true);
}

static void print(struct bench *b, const char *name, uint64_t ns)
{
	resident(b, false);
	printf("%s=%.2f ", name, (double)SIZE / (1 << 30) / ((double)ns / 1e9));
}

/* A stride of 1 is ascending; a large odd one visits every page in disorder. */
static void inflate(struct bench *b, const char *name, uint64_t stride)
{
	struct vring_driver_buf buf = fe_rd(&b->fe, b->list, REQUEST * 4);
	uint64_t ns = 0, pages = SIZE / PAGE, first = b->memory->w.gpa / PAGE;

	use(b);
	for (uint64_t i = 0; i < pages; i += REQUEST) {
		uint64_t start;

		for (unsigned k = 0; k < REQUEST; k++)
			b->list[k] = (uint32_t)(first + (i + k) * stride % pages);
		start = time_ns();
		CHECK_EQ(fe_transact(b->inflate, &buf, 1), 0);
		ns += time_ns() - start;
	}
	print(b, name, ns);
}

static void report(struct bench *b)
{
	uint64_t start;

	use(b);
	start = time_ns();
	for (uint64_t at = 0; at < SIZE; at += BLOCK) {
		struct vring_driver_buf buf = {b->memory->w.gpa + at, BLOCK, true};

		CHECK_EQ(fe_transact(b->reporting, &buf, 1), 0);
	}
	print(b, "reported", time_ns() - start);
}

int main(void)
{
	struct bench b;
	int fd = fe_memfd(SIZE);

	fe_start(&b.fe, NULL, FE_ARGS("balloon", "--free-page-reporting"));
	b.inflate = fe_queue_up(&b.fe, 0, 64);
	b.reporting = fe_queue_up(&b.fe, 4, 64);
	b.list = fe_alloc(&b.fe, REQUEST * 4, 4, NULL);
	b.memory = fe_region_make(&b.fe, UINT64_C(16) << 30, SIZE, UINT64_C(0x7f0000000000), fd, 0);
	close(fd);
	fe_region_add(&b.fe, b.memory);
	inflate(&b, "ascending", 1);
	inflate(&b, "scattered", 40503);
	report(&b);
	printf("\n");
	fe_end(&b.fe);
	return 0;
}
