/* SPDX-License-Identifier: MIT */
/*
 * Resources of a gpu (virtio 1.3, 5.7.6.8): the table, the budget, and backing.
 *
 * All that a guest can make us allocate is charged to one budget before it is allocated: pixels, lists of backing
 * entries, and the resource itself, so that the number of resources is bounded too. The table grows with their number.
 *
 * Backing is a sorted list of guest addresses, entries that touch are merged. Each use translates them anew, with the
 * map pinned for the time of that use: memory that was removed meanwhile is an error of that use, and nothing else.
 */
#include "gpu-3d.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

enum { FIRST_BUCKETS = 64, BATCH = 64 };

bool gpu_charge(struct gpu *g, uint64_t bytes)
{
	if (bytes > g->max_hostmem || g->hostmem > g->max_hostmem - bytes) {
		log_guest_warn("%llu bytes more exceed --max-hostmem, %llu are in use",
			(unsigned long long)bytes, (unsigned long long)g->hostmem);
		return false;
	}
	g->hostmem += bytes;
	return true;
}

void gpu_uncharge(struct gpu *g, uint64_t bytes)
{
	g->hostmem -= bytes;
}

/* The table */

static struct gpu_resource **bucket_of(const struct gpu *g, uint32_t id)
{
	return &g->bucket[(id * UINT32_C(2654435761) >> 7) & (g->nbuckets - 1)];
}

struct gpu_resource *gpu_resource_find(struct gpu *g, uint32_t id)
{
	struct gpu_resource *res = g->nbuckets ? *bucket_of(g, id) : NULL;

	while (res && res->id != id)
		res = res->next;
	return res;
}

static bool table_grow(struct gpu *g)
{
	struct gpu_resource **old = g->bucket, *res;
	size_t n = g->nbuckets, i;

	if (g->nresources < n)
		return true;
	g->bucket = calloc(n ? n * 2 : FIRST_BUCKETS, sizeof(struct gpu_resource *));
	if (!g->bucket) {
		g->bucket = old;
		return n > 0;
	}
	g->nbuckets = n ? n * 2 : FIRST_BUCKETS;
	for (i = 0; i < n; i++) {
		while ((res = old[i])) {
			struct gpu_resource **to = bucket_of(g, res->id);

			old[i] = res->next;
			res->next = *to;
			*to = res;
		}
	}
	free(old);
	return true;
}

struct gpu_resource *gpu_resource_new(
	struct gpu *g, uint32_t id, enum gpu_kind kind, uint64_t charge, uint32_t *status)
{
	struct gpu_resource *res, **to;

	*status = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!id || gpu_resource_find(g, id))
		return NULL;
	*status = VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	if (!gpu_charge(g, charge + sizeof(*res)))
		return NULL;
	res = table_grow(g) ? calloc(1, sizeof(*res)) : NULL;
	if (!res) {
		gpu_uncharge(g, charge + sizeof(*res));
		return NULL;
	}
	*res = (struct gpu_resource){
		.g = g, .refs = 1, .id = id, .kind = kind, .charge = charge + sizeof(*res)};
	to = bucket_of(g, id);
	res->next = *to;
	*to = res;
	g->nresources++;
	*status = VIRTIO_GPU_RESP_OK_NODATA;
	return res;
}

struct gpu_resource *gpu_resource_ref(struct gpu_resource *res)
{
	res->refs++;
	return res;
}

void gpu_resource_unref(struct gpu_resource *res)
{
	if (!res || --res->refs)
		return;
	gpu_backing_clear(res);
	gpu_pixels_free(res);
	gpu_uncharge(res->g, res->charge);
	free(res);
}

void gpu_resource_destroy(struct gpu_resource *res)
{
	struct gpu *g = res->g;
	struct gpu_resource **from = bucket_of(g, res->id);
	unsigned i;

	for (i = 0; i < GPU_SCANOUTS; i++)
		if (res->scanouts & BIT(i))
			gpu_scanout_disable(g, i);
	while (*from != res)
		from = &(*from)->next;
	*from = res->next;
	g->nresources--;
	if (res->kind == GPU_RESOURCE_3D)
		gpu_3d_destroy(res);
	gpu_resource_unref(res);
}

void gpu_resource_destroy_all(struct gpu *g)
{
	size_t i;

	for (i = 0; i < g->nbuckets; i++)
		while (g->bucket[i])
			gpu_resource_destroy(g->bucket[i]);
	free(g->bucket);
	g->bucket = NULL;
	g->nbuckets = 0;
}

/* Pixels */

bool gpu_pixels_share(struct gpu_resource *res, uint64_t size, int *fd)
{
	void *map = MAP_FAILED;

	if (!gpu_charge(res->g, size))
		return false;
	*fd = memfd_create("pixels", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd >= 0 && ftruncate(*fd, (off_t)size) == 0 &&
		fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (map == MAP_FAILED) {
		fd_close(fd);
		gpu_uncharge(res->g, size);
		return false;
	}
	res->pixels = map;
	res->size = size;
	res->charge += size;
	res->g->pictures++;
	return true;
}

void gpu_pixels_free(struct gpu_resource *res)
{
	if (res->pixels && res->kind == GPU_RESOURCE_3D) {
		munmap(res->pixels, res->size);
		gpu_uncharge(res->g, res->size);
		res->charge -= res->size;
		res->g->pictures--;
	} else {
		free(res->pixels);
	}
	res->pixels = NULL;
}

/* Backing */

static bool backing_add(struct gpu_backing *b, uint64_t gpa, uint32_t length)
{
	const struct gpu_entry *last = b->n ? &b->entry[b->n - 1] : NULL;
	uint64_t end;

	if (!checked_add(gpa, length, &end))
		return false;
	if (length && (!last || last->gpa + (b->size - last->start) != gpa))
		b->entry[b->n++] = (struct gpu_entry){.gpa = gpa, .start = b->size};
	b->size += length;
	return true;
}

static bool backing_parse(struct gpu_backing *b, struct cursor *rd, uint32_t n)
{
	struct virtio_gpu_mem_entry batch[BATCH];

	while (n) {
		uint32_t now = MIN(n, (uint32_t)BATCH), i;

		if (!cursor_get(rd, batch, now * sizeof(batch[0])))
			return false;
		for (i = 0; i < now; i++)
			if (!backing_add(b, le64toh(batch[i].addr), le32toh(batch[i].length)))
				return false;
		n -= now;
	}
	return true;
}

/* Merging may have left room. */
static void backing_trim(struct gpu *g, struct gpu_backing *b)
{
	uint64_t charge = b->n * sizeof(b->entry[0]);
	struct gpu_entry *entry = b->n ? realloc(b->entry, charge) : NULL;

	if (!entry)
		return;
	b->entry = entry;
	gpu_uncharge(g, b->charge - charge);
	b->charge = charge;
}

uint32_t gpu_backing_set(struct gpu_resource *res, struct cursor *rd, uint32_t n)
{
	struct gpu_backing b = {.charge = n * (uint64_t)sizeof(struct gpu_entry)};

	if (!n || rd->left / sizeof(struct virtio_gpu_mem_entry) < n)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!gpu_charge(res->g, b.charge))
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	b.entry = malloc(b.charge);
	if (!b.entry || !backing_parse(&b, rd, n)) {
		bool memory = b.entry;

		free(b.entry);
		gpu_uncharge(res->g, b.charge);
		return memory ? VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER : VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	backing_trim(res->g, &b);
	res->backing = b;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_backing_clear(struct gpu_resource *res)
{
	free(res->backing.entry);
	gpu_uncharge(res->g, res->backing.charge);
	res->backing = (struct gpu_backing){0};
}

static uint64_t entry_end(const struct gpu_backing *b, uint32_t i)
{
	return i + 1 < b->n ? b->entry[i + 1].start : b->size;
}

static uint32_t entry_find(const struct gpu_backing *b, uint64_t offset)
{
	uint32_t low = 0, high = b->n;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (b->entry[mid].start <= offset)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* A place in the backing, while it is read from low to high offsets. */
struct reader {
	const struct gpu_backing *b;
	struct backend_memory memory;
	uint32_t i;
};

static bool reader_copy(struct reader *r, uint64_t offset, uint8_t *dst, size_t n)
{
	while (n) {
		struct iovec v;
		uint64_t gpa, step;

		while (entry_end(r->b, r->i) <= offset)
			r->i++;
		gpa = r->b->entry[r->i].gpa + (offset - r->b->entry[r->i].start);
		step = MIN(entry_end(r->b, r->i) - offset, n);
		while (step) {
			uint64_t piece = step;

			/* a range over two regions takes two segments: halve until it is one */
			while (!backend_memory_iovec(&r->memory, gpa, piece, &v, 1)) {
				piece /= 2;
				if (!piece)
					return false;
			}
			memcpy(dst, v.iov_base, piece);
			dst += piece;
			gpa += piece;
			offset += piece;
			n -= piece;
			step -= piece;
		}
	}
	return true;
}

bool gpu_backing_read(const struct gpu_resource *res, uint64_t offset, uint64_t stride, uint8_t *dst,
	size_t dst_stride, size_t bytes, uint32_t rows)
{
	struct reader r = {.b = &res->backing};
	uint64_t end;
	bool ok = true;
	uint32_t i;

	if (!rows || !bytes)
		return true;
	if (__builtin_mul_overflow(stride, (uint64_t)rows - 1, &end) || !checked_add(end, bytes, &end) ||
		!checked_add(end, offset, &end) || end > res->backing.size)
		return false;
	if (!backend_memory_get(res->g->b, &r.memory))
		return false;
	r.i = entry_find(&res->backing, offset);
	if (stride == bytes && dst_stride == bytes) {
		bytes *= rows;
		rows = 1;
	}
	for (i = 0; ok && i < rows; i++)
		ok = reader_copy(&r, offset + i * stride, dst + i * dst_stride, bytes);
	backend_memory_put(&r.memory);
	return ok;
}

bool gpu_backing_present(const struct gpu_resource *res, struct backend_memory *m)
{
	const struct gpu_backing *b = &res->backing;
	struct iovec v[BATCH];
	uint32_t i;

	for (i = 0; i < b->n; i++) {
		uint64_t size = entry_end(b, i) - b->entry[i].start;

		if (!backend_memory_iovec(m, b->entry[i].gpa, size, v, BATCH))
			return false;
	}
	return b->n > 0;
}

void gpu_backing_wrote(const struct gpu_resource *res, struct backend_memory *m)
{
	const struct gpu_backing *b = &res->backing;
	uint32_t i;

	for (i = 0; i < b->n; i++)
		backend_memory_wrote(m, b->entry[i].gpa, entry_end(b, i) - b->entry[i].start);
}
