/* SPDX-License-Identifier: MIT */
/* Guest memory that the renderer's process has mapped by itself: the regions that the gpu's process named. */
#ifndef GPU_RENDERER_MEMORY_H
#define GPU_RENDERER_MEMORY_H

#include <stdint.h>
#include <sys/uio.h>

#include "gpu-wire.h"

enum { RENDERER_MAX_REGIONS = 512 };

struct renderer_region {
	uint64_t gpa, size;
	uint8_t *host;
	void *map;
	size_t map_len;
};

struct renderer_memory { /* all zero: none */
	struct renderer_region region[RENDERER_MAX_REGIONS];
	unsigned nregions;
};

void renderer_memory_clear(struct renderer_memory *m);
/* fd stays the caller's. A region that can't be mapped is missing: what lies there is no backing. */
void renderer_memory_add(struct renderer_memory *m, const struct wire_region *w, int fd);
/* The piece of [gpa, gpa + size) that begins there; empty: it is no memory. */
struct iovec renderer_memory_find(const struct renderer_memory *m, uint64_t gpa, uint64_t size);

#endif
