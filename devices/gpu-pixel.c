/* SPDX-License-Identifier: MIT */
/*
 * Pixel formats (virtio 1.3, 5.7.6.8, "formats"), by pixman. A virtio format names the components in the order of the
 * bytes in memory, pixman's from the most significant bit of a little-endian word.
 */
#include "gpu.h"

#include <pixman.h>

#include "library.h"

#define PIXMAN_FUNCTIONS(F) \
	F(pixman_image_create_bits_no_clear) F(pixman_image_composite32) F(pixman_image_unref)
#define PIXMAN_SYMBOL(name) LIBRARY_SYMBOL(pixman_library, name)

LIBRARY(pixman_library, PIXMAN_FUNCTIONS);
static struct pixman_library pixman;

int gpu_pixel_load(void)
{
	static const struct library_symbol symbols[] = {PIXMAN_FUNCTIONS(PIXMAN_SYMBOL)};

	return library_load("libpixman-1.so.0", symbols, ARRAY_SIZE(symbols), &pixman);
}

/* 0: unknown */
static pixman_format_code_t pixman_format(uint32_t format)
{
	switch (format) {
	case VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM:
		return PIXMAN_a8r8g8b8;
	case VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM:
		return PIXMAN_x8r8g8b8;
	case VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM:
		return PIXMAN_b8g8r8a8;
	case VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM:
		return PIXMAN_b8g8r8x8;
	case VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM:
		return PIXMAN_a8b8g8r8;
	case VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM:
		return PIXMAN_x8b8g8r8;
	case VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM:
		return PIXMAN_r8g8b8a8;
	case VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM:
		return PIXMAN_r8g8b8x8;
	default:
		return 0;
	}
}

bool gpu_format_known(uint32_t format)
{
	return pixman_format(format) != 0;
}

bool gpu_format_is_xrgb(uint32_t format)
{
	return format == VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM || format == VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM;
}

static void composite(pixman_op_t op, pixman_format_code_t from, const void *src, size_t src_stride,
	pixman_format_code_t to, void *dst, size_t dst_stride, const struct gpu_rect *r, int x, int y,
	uint32_t dst_w, uint32_t dst_h)
{
	pixman_image_t *s = pixman.pixman_image_create_bits_no_clear(
		from, (int)r->w, (int)r->h, (uint32_t *)(uintptr_t)src, (int)src_stride);
	pixman_image_t *d =
		pixman.pixman_image_create_bits_no_clear(to, (int)dst_w, (int)dst_h, dst, (int)dst_stride);

	if (s && d)
		pixman.pixman_image_composite32(op, s, NULL, d, 0, 0, 0, 0, x, y, (int)r->w, (int)r->h);
	if (s)
		pixman.pixman_image_unref(s);
	if (d)
		pixman.pixman_image_unref(d);
}

void gpu_pixel_convert(uint32_t format, const uint8_t *src, size_t src_stride, uint32_t *dst,
	size_t dst_stride, uint32_t w, uint32_t h, bool alpha)
{
	struct gpu_rect r = {.w = w, .h = h};

	composite(PIXMAN_OP_SRC, pixman_format(format), src, src_stride,
		alpha ? PIXMAN_a8r8g8b8 : PIXMAN_x8r8g8b8, dst, dst_stride, &r, 0, 0, w, h);
}

void gpu_pixel_blend_cursor(uint32_t *dst, uint32_t w, uint32_t h, const struct gpu_cursor *c)
{
	struct gpu_rect r = {.w = GPU_CURSOR, .h = GPU_CURSOR};

	if (!c || !c->visible || c->x >= w || c->y >= h)
		return;
	composite(PIXMAN_OP_OVER, PIXMAN_a8r8g8b8, c->image, GPU_CURSOR * GPU_PIXEL, PIXMAN_x8r8g8b8, dst,
		(size_t)w * GPU_PIXEL, &r, (int)c->x, (int)c->y, w, h);
}
