/* SPDX-License-Identifier: MIT */
/* Guest memory in the renderer's process; see gpu-renderer-memory.h. */
#include "gpu-renderer-memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

void renderer_memory_clear(struct renderer_memory *m)
{
	while (m->nregions) {
		const struct renderer_region *g = &m->region[--m->nregions];

		munmap(g->map, g->map_len);
	}
}

void renderer_memory_add(struct renderer_memory *m, const struct wire_region *w, int fd)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), begin = ALIGN_DOWN(w->offset, page);
	struct renderer_region g = {.gpa = w->gpa, .size = w->size, .map_len = w->offset - begin + w->size};

	if (m->nregions == RENDERER_MAX_REGIONS)
		return;
	g.map = mmap(NULL, g.map_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)begin);
	if (g.map == MAP_FAILED) {
		log_errno(errno, "renderer: guest memory");
		return;
	}
	madvise(g.map, g.map_len, MADV_DONTDUMP);
	g.host = (uint8_t *)g.map + (w->offset - begin);
	m->region[m->nregions++] = g;
}

struct iovec renderer_memory_find(const struct renderer_memory *m, uint64_t gpa, uint64_t size)
{
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct renderer_region *g = &m->region[i];

		if (gpa - g->gpa < g->size)
			return (struct iovec){g->host + (gpa - g->gpa), MIN(size, g->size - (gpa - g->gpa))};
	}
	return (struct iovec){0};
}
