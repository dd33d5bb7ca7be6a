/* SPDX-License-Identifier: MIT */
/*
 * The 2D commands (virtio 1.3, 5.7.6.7 and 5.7.6.8): resources that are pictures of ours, which transfers fill from guest memory;
 * blobs, which are guest memory itself; scanouts, which show a part of one of them; and the cursor.
 */
#include "gpu-3d.h"

#include <string.h>
#include <sys/random.h>

struct gpu_rect gpu_rect_union(const struct gpu_rect *a, const struct gpu_rect *b)
{
	struct gpu_rect u;

	if (gpu_rect_empty(a))
		return *b;
	if (gpu_rect_empty(b))
		return *a;
	u.x = MIN(a->x, b->x);
	u.y = MIN(a->y, b->y);
	u.w = MAX(a->x + a->w, b->x + b->w) - u.x;
	u.h = MAX(a->y + a->h, b->y + b->h) - u.y;
	return u;
}

struct gpu_rect gpu_rect_intersect(const struct gpu_rect *a, const struct gpu_rect *b)
{
	uint64_t right = MIN((uint64_t)a->x + a->w, (uint64_t)b->x + b->w);
	uint64_t bottom = MIN((uint64_t)a->y + a->h, (uint64_t)b->y + b->h);
	struct gpu_rect r = {.x = MAX(a->x, b->x), .y = MAX(a->y, b->y)};

	if (right > r.x && bottom > r.y) {
		r.w = (uint32_t)(right - r.x);
		r.h = (uint32_t)(bottom - r.y);
	}
	return r;
}

/* Resources */

static bool size_fits(uint32_t w, uint32_t h)
{
	return w && h && w <= GPU_MAX_SIDE && h <= GPU_MAX_SIDE;
}

uint32_t gpu_cmd_create_2d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	uint32_t id = le32toh(c->create_2d.resource_id), status;
	uint32_t w = le32toh(c->create_2d.width), h = le32toh(c->create_2d.height);
	uint64_t size = (uint64_t)w * h * GPU_PIXEL;
	struct gpu_resource *res;

	(void)r;
	if (!size_fits(w, h) || !gpu_format_known(le32toh(c->create_2d.format)))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	res = gpu_resource_new(g, id, GPU_RESOURCE_2D, size, &status);
	if (!res)
		return status;
	res->format = le32toh(c->create_2d.format);
	res->width = w;
	res->height = h;
	res->size = size;
	res->pixels = calloc(h, (size_t)w * GPU_PIXEL);
	if (res->pixels)
		return VIRTIO_GPU_RESP_OK_NODATA;
	gpu_resource_destroy(res);
	return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
}

uint32_t gpu_cmd_create_blob(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	uint64_t size = le64toh(c->create_blob.size);
	struct gpu_resource *res;
	uint32_t status;

	if (le32toh(c->create_blob.blob_mem) != VIRTIO_GPU_BLOB_MEM_GUEST || c->create_blob.blob_id || !size)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	res = gpu_resource_new(g, le32toh(c->create_blob.resource_id), GPU_RESOURCE_BLOB, 0, &status);
	if (!res)
		return status;
	res->size = size;
	if (c->create_blob.nr_entries)
		status = gpu_backing_set(res, &r->e->rd, le32toh(c->create_blob.nr_entries));
	if (status != VIRTIO_GPU_RESP_OK_NODATA)
		gpu_resource_destroy(res);
	return status;
}

uint32_t gpu_cmd_unref(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->unref.resource_id));

	(void)r;
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	gpu_resource_destroy(res);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_cmd_attach_backing(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->attach.resource_id));
	uint32_t status;

	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->backing.entry)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	status = gpu_backing_set(res, &r->e->rd, le32toh(c->attach.nr_entries));
	if (status == VIRTIO_GPU_RESP_OK_NODATA && res->kind == GPU_RESOURCE_3D)
		status = gpu_3d_attach_backing(res);
	if (status != VIRTIO_GPU_RESP_OK_NODATA)
		gpu_backing_clear(res);
	return status;
}

uint32_t gpu_cmd_detach_backing(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->detach.resource_id));

	(void)r;
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!res->backing.entry)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (res->kind == GPU_RESOURCE_3D)
		gpu_3d_detach_backing(res);
	gpu_backing_clear(res);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* A random UUID (RFC 4122, version 4), the same one whenever it is asked for. */
uint32_t gpu_cmd_assign_uuid(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->uuid.resource_id));
	struct virtio_gpu_resp_resource_uuid response = {0};

	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!res->has_uuid) {
		if (getrandom(res->uuid, sizeof(res->uuid), GRND_NONBLOCK) != sizeof(res->uuid))
			return VIRTIO_GPU_RESP_ERR_UNSPEC;
		res->uuid[6] = (res->uuid[6] & 0x0f) | 0x40;
		res->uuid[8] = (res->uuid[8] & 0x3f) | 0x80;
		res->has_uuid = true;
	}
	memcpy(response.uuid, res->uuid, sizeof(response.uuid));
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_RESOURCE_UUID, &response, sizeof(response));
	return GPU_HELD;
}

/* The rectangle goes to the same place of the picture; the guest's rows are as long as the picture's. */
uint32_t gpu_cmd_transfer_2d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->transfer_2d.resource_id));
	struct gpu_rect rect = gpu_rect(&c->transfer_2d.r);
	size_t stride;

	(void)r;
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind == GPU_RESOURCE_BLOB)
		return VIRTIO_GPU_RESP_OK_NODATA; /* there is no copy */
	if (res->kind != GPU_RESOURCE_2D || !gpu_rect_within(&rect, res->width, res->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!res->backing.entry)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	stride = (size_t)res->width * GPU_PIXEL;
	g->work += (uint64_t)rect.w * rect.h * GPU_PIXEL;
	if (!gpu_backing_read(res, le64toh(c->transfer_2d.offset), stride,
		    res->pixels + rect.y * stride + (size_t)rect.x * GPU_PIXEL, stride,
		    (size_t)rect.w * GPU_PIXEL, rect.h)) {
		log_guest_warn(
			"resource %u: the transfer goes beyond its backing, or that is no memory", res->id);
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* Scanouts */

static void unshow(struct gpu_resource *res, unsigned scanout)
{
	if (!res)
		return;
	res->scanouts &= ~(uint32_t)BIT(scanout);
	if (!res->scanouts && res->kind == GPU_RESOURCE_3D)
		gpu_3d_unshow(res);
}

void gpu_scanout_disable(struct gpu *g, unsigned scanout)
{
	struct gpu_surface *s = &g->scanout[scanout].s, old = *s;

	if (!old.res)
		return;
	*s = (struct gpu_surface){0};
	unshow(old.res, scanout);
	gpu_scanout_changed(g, scanout);
	gpu_resource_unref(old.res);
}

static uint32_t show(struct gpu *g, unsigned scanout, struct gpu_surface new)
{
	struct gpu_surface *s = &g->scanout[scanout].s, old = *s;

	gpu_resource_ref(new.res);
	if (old.res != new.res)
		unshow(old.res, scanout);
	new.res->scanouts |= (uint32_t)BIT(scanout);
	*s = new;
	gpu_scanout_changed(g, scanout);
	gpu_resource_unref(old.res);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_cmd_set_scanout(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	uint32_t scanout = le32toh(c->set_scanout.scanout_id), id = le32toh(c->set_scanout.resource_id);
	struct gpu_rect rect = gpu_rect(&c->set_scanout.r);
	struct gpu_resource *res = gpu_resource_find(g, id);
	uint64_t stride;

	(void)r;
	if (scanout >= gpu_num_scanouts(g))
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	if (!id) {
		gpu_scanout_disable(g, scanout);
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind == GPU_RESOURCE_BLOB || gpu_rect_empty(&rect) ||
		!gpu_rect_within(&rect, res->width, res->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (res->kind == GPU_RESOURCE_3D) {
		uint32_t status = gpu_3d_prepare(res);

		if (status != VIRTIO_GPU_RESP_OK_NODATA)
			return status;
	}
	stride = (uint64_t)res->width * GPU_PIXEL;
	return show(g, scanout,
		(struct gpu_surface){.res = res,
			.format = res->format,
			.w = rect.w,
			.h = rect.h,
			.x = rect.x,
			.y = rect.y,
			.stride = stride,
			.offset = rect.y * stride + (uint64_t)rect.x * GPU_PIXEL});
}

/* Does the frame buffer that the command describes lie within the blob? */
static bool blob_holds(const struct gpu_resource *res, const struct virtio_gpu_set_scanout_blob *c)
{
	uint64_t stride = le32toh(c->strides[0]), end = le32toh(c->offsets[0]);
	uint32_t w = le32toh(c->width), h = le32toh(c->height);

	return size_fits(w, h) && stride >= (uint64_t)w * GPU_PIXEL && stride % GPU_PIXEL == 0 &&
	       end + (h - 1) * stride + (uint64_t)w * GPU_PIXEL <= res->size;
}

uint32_t gpu_cmd_set_scanout_blob(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct virtio_gpu_set_scanout_blob *b = &c->scanout_blob;
	uint32_t scanout = le32toh(b->scanout_id), id = le32toh(b->resource_id);
	struct gpu_resource *res = gpu_resource_find(g, id);
	struct gpu_rect rect = gpu_rect(&b->r);
	uint64_t stride = le32toh(b->strides[0]);

	(void)r;
	if (scanout >= gpu_num_scanouts(g))
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	if (!id) {
		gpu_scanout_disable(g, scanout);
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind != GPU_RESOURCE_BLOB || !gpu_format_known(le32toh(b->format)) || !blob_holds(res, b) ||
		gpu_rect_empty(&rect) || !gpu_rect_within(&rect, le32toh(b->width), le32toh(b->height)))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if ((uint64_t)rect.w * rect.h * GPU_PIXEL > g->max_hostmem) /* what a screenshot takes */
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	return show(g, scanout,
		(struct gpu_surface){.res = res,
			.format = le32toh(b->format),
			.w = rect.w,
			.h = rect.h,
			.x = rect.x,
			.y = rect.y,
			.stride = stride,
			.offset = le32toh(b->offsets[0]) + rect.y * stride + (uint64_t)rect.x * GPU_PIXEL});
}

/* These pixels of the resource are others: wherever they are shown. */
static void damage(const struct gpu_resource *res, const struct gpu_rect *rect)
{
	for (unsigned i = 0; i < GPU_SCANOUTS; i++) {
		const struct gpu_surface *s = &res->g->scanout[i].s;
		struct gpu_rect shown = {s->x, s->y, s->w, s->h};

		if (!(res->scanouts & BIT(i)))
			continue;
		shown = gpu_rect_intersect(rect, &shown);
		shown.x -= s->x;
		shown.y -= s->y;
		if (!gpu_rect_empty(&shown))
			gpu_scanout_damaged(res->g, i, &shown);
	}
}

uint32_t gpu_cmd_flush(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->flush.resource_id));
	struct gpu_rect rect = gpu_rect(&c->flush.r);

	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind != GPU_RESOURCE_BLOB && !gpu_rect_within(&rect, res->width, res->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (res->kind != GPU_RESOURCE_3D) {
		damage(res, &rect);
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	r->in_line = true;
	if (res->scanouts)
		gpu_resource_drawn(res, &rect);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* Pictures of the renderer: what was drawn is asked for, and is damage when it is there; by then there may be more. */

static void cursors_take(struct gpu_resource *res);

static bool is_cursor_next(const struct gpu_resource *res)
{
	for (unsigned i = 0; i < GPU_SCANOUTS; i++) {
		const struct gpu_cursor *c = res->g->scanout[i].cursor;

		if (c && c->next == res)
			return true;
	}
	return false;
}

static void ask(struct gpu_resource *res)
{
	if (!res->reading && !gpu_rect_empty(&res->stale))
		gpu_3d_read(res, gpu_wants_pixels(res->g, res->scanouts) || is_cursor_next(res));
}

void gpu_resource_drawn(struct gpu_resource *res, const struct gpu_rect *r)
{
	res->stale = gpu_rect_union(&res->stale, r);
	res->unread = gpu_rect_union(&res->unread, r);
	ask(res);
}

void gpu_pixels_came(struct gpu_resource *res)
{
	struct gpu_rect rect = res->asked;

	res->asked = (struct gpu_rect){0};
	damage(res, &rect);
	if (gpu_rect_empty(&res->unread))
		cursors_take(res);
	ask(res);
}

void gpu_surface_refresh(const struct gpu_surface *s)
{
	if (s->res->kind == GPU_RESOURCE_3D)
		gpu_3d_catch_up(s->res);
}

void gpu_surface_read(const struct gpu_surface *s, const struct gpu_rect *r, uint32_t *dst)
{
	uint64_t offset = s->offset + r->y * s->stride + (uint64_t)r->x * GPU_PIXEL;
	size_t bytes = (size_t)r->w * GPU_PIXEL;
	uint32_t y;

	if (!s->res->pixels) {
		/* rows by themselves: one that is lost does not take the others along */
		for (y = 0; y < r->h; y++) {
			uint8_t *row = (uint8_t *)dst + y * bytes;

			if (!gpu_backing_read(s->res, offset + y * s->stride, bytes, row, bytes, bytes, 1))
				memset(row, 0, bytes);
		}
		if (!gpu_format_is_xrgb(s->format))
			gpu_pixel_convert(
				s->format, (const uint8_t *)dst, bytes, dst, bytes, r->w, r->h, false);
		return;
	}
	if (!gpu_format_is_xrgb(s->format)) {
		gpu_pixel_convert(
			s->format, s->res->pixels + offset, s->stride, dst, bytes, r->w, r->h, false);
		return;
	}
	for (y = 0; y < r->h; y++)
		memcpy((uint8_t *)dst + y * bytes, s->res->pixels + offset + y * s->stride, bytes);
}

/* The cursor */

/* Takes a copy: the resource may go, and change, without the cursor. Larger ones are cut off, smaller ones clear around. */
static bool cursor_take_image(struct gpu_cursor *cursor, const struct gpu_resource *res)
{
	memset(cursor->image, 0, sizeof(cursor->image));
	if (res->kind == GPU_RESOURCE_BLOB)
		return gpu_backing_read(res, 0, GPU_CURSOR * GPU_PIXEL, (uint8_t *)cursor->image,
			GPU_CURSOR * GPU_PIXEL, GPU_CURSOR * GPU_PIXEL, GPU_CURSOR);
	gpu_pixel_convert(res->format, res->pixels, (size_t)res->width * GPU_PIXEL, cursor->image,
		GPU_CURSOR * GPU_PIXEL, MIN(res->width, (uint32_t)GPU_CURSOR),
		MIN(res->height, (uint32_t)GPU_CURSOR), true);
	return true;
}

/* The image of a 3D resource is there: it takes effect where it was asked for. */
static void cursors_take(struct gpu_resource *res)
{
	for (unsigned i = 0; i < GPU_SCANOUTS; i++) {
		struct gpu_cursor *c = res->g->scanout[i].cursor;

		if (!c || c->next != res)
			continue;
		c->visible = res->pixels && cursor_take_image(c, res);
		c->next = NULL;
		gpu_cursor_changed(res->g, i, c->visible ? GPU_CURSOR_IMAGE : GPU_CURSOR_HIDDEN);
		gpu_resource_unref(res);
	}
}

void gpu_cursor_free(struct gpu *g, unsigned scanout)
{
	struct gpu_cursor **cursor = &g->scanout[scanout].cursor;

	if (*cursor)
		gpu_resource_unref((*cursor)->next);
	free(*cursor);
	*cursor = NULL;
}

void gpu_cmd_cursor(struct gpu *g, const struct virtio_gpu_update_cursor *c)
{
	uint32_t scanout = le32toh(c->pos.scanout_id), id = le32toh(c->resource_id);
	struct gpu_resource *res = gpu_resource_find(g, id);
	struct gpu_cursor *cursor;

	if (scanout >= gpu_num_scanouts(g)) {
		log_guest_warn("cursor on scanout %u, which does not exist", scanout);
		return;
	}
	if (!g->scanout[scanout].cursor)
		g->scanout[scanout].cursor = calloc(1, sizeof(*cursor));
	cursor = g->scanout[scanout].cursor;
	if (!cursor)
		return;
	cursor->x = le32toh(c->pos.x);
	cursor->y = le32toh(c->pos.y);
	if (le32toh(c->hdr.type) == VIRTIO_GPU_CMD_MOVE_CURSOR) {
		if (cursor->visible)
			gpu_cursor_changed(g, scanout, GPU_CURSOR_MOVED);
		return;
	}
	cursor->hot_x = MIN(le32toh(c->hot_x), (uint32_t)GPU_CURSOR - 1);
	cursor->hot_y = MIN(le32toh(c->hot_y), (uint32_t)GPU_CURSOR - 1);
	gpu_resource_unref(cursor->next);
	cursor->next = NULL;
	if (res && res->kind == GPU_RESOURCE_3D && gpu_3d_prepare(res) == VIRTIO_GPU_RESP_OK_NODATA) {
		struct gpu_rect all = {.w = res->width, .h = res->height};

		cursor->next = gpu_resource_ref(res);
		gpu_resource_drawn(res, &all);
		return;
	}
	cursor->visible = res && res->kind != GPU_RESOURCE_3D && cursor_take_image(cursor, res);
	if (id && !cursor->visible)
		log_guest_warn("cursor resource %u does not exist, or has no picture", id);
	gpu_cursor_changed(g, scanout, cursor->visible ? GPU_CURSOR_IMAGE : GPU_CURSOR_HIDDEN);
}
