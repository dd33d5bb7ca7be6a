/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. A target is one file with the two functions below. It is linked with libFuzzer for
 * `make fuzz`, and with replay.c for `make check`, which runs the seeds and a fixed number of mutations of them.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One input; 0. Anything wrong with the program ends in abort(), a sanitizer's report or a time limit. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Calls emit for each hand-made input, which together reach all that regular use reaches. */
void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size));

static inline void require(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "violated: %s\n", what);
	abort();
}

/* Statistics are of no interest, unless a target has the core itself. */
struct virtqueue;
__attribute__((weak)) void virtqueue_count_error(struct virtqueue *q);
__attribute__((weak)) void virtqueue_count_error(struct virtqueue *q)
{
	(void)q;
}

/* An input as a stream of numbers; zeros when it is used up. */
struct input {
	const uint8_t *p, *end;
};

static inline size_t input_left(const struct input *in)
{
	return (size_t)(in->end - in->p);
}

static inline void input_bytes(struct input *in, void *to, size_t n)
{
	size_t have = n < input_left(in) ? n : input_left(in);

	memset(to, 0, n);
	if (have)
		memcpy(to, in->p, have);
	in->p += have;
}

static inline uint8_t input_u8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

static inline uint16_t input_u16(struct input *in)
{
	uint16_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint32_t input_u32(struct input *in)
{
	uint32_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

static inline uint64_t input_u64(struct input *in)
{
	uint64_t v;

	input_bytes(in, &v, sizeof(v));
	return v;
}

/* A seed under construction. */
struct seed {
	uint8_t bytes[4096];
	size_t n;
};

static inline void seed_put(struct seed *s, const void *data, size_t n)
{
	if (n)
		memcpy(s->bytes + s->n, data, n);
	s->n += n;
}

static inline void seed_u8(struct seed *s, uint8_t v)
{
	seed_put(s, &v, sizeof(v));
}

static inline void seed_u16(struct seed *s, uint16_t v)
{
	seed_put(s, &v, sizeof(v));
}

static inline void seed_u32(struct seed *s, uint32_t v)
{
	seed_put(s, &v, sizeof(v));
}

static inline void seed_u64(struct seed *s, uint64_t v)
{
	seed_put(s, &v, sizeof(v));
}

#endif
