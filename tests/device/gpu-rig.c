/* SPDX-License-Identifier: MIT */
/* See gpu-rig.h. */
#include "gpu-rig.h"

#include <png.h>
#include <time.h>

void rig_queues(struct rig *r)
{
	r->control = fe_queue_up(&r->fe, 0, 64);
	r->cursor = fe_queue_up(&r->fe, 1, 16);
}

void rig_start(struct rig *r, const struct fe_mode *m, const char *const *args)
{
	const char *all[16] = {"gpu"};
	unsigned n = 1;

	r->dir = fe_tmpdir();
	snprintf(r->option, sizeof(r->option), "--screenshot-dir=%s", r->dir);
	all[n++] = r->option;
	all[n++] = "--screenshot-interval=10ms";
	while (*args)
		all[n++] = *args++;
	fe_start(&r->fe, m, all);
	rig_queues(r);
}

uint32_t rig_command(struct rig *r, const void *command, size_t size, const void *more, size_t more_size,
	void *answer, size_t answer_size)
{
	size_t mark = fe_mark(&r->fe);
	uint8_t *c = fe_alloc(&r->fe, size + more_size + 1, 8, NULL);
	uint8_t *a = fe_alloc(&r->fe, answer_size + 1, 8, NULL);
	struct vring_driver_buf bufs[3];
	unsigned n = 0;
	uint32_t used;

	memcpy(c, command, size);
	if (more_size)
		memcpy(c + size, more, more_size);
	if (size)
		bufs[n++] = fe_rd(&r->fe, c, (uint32_t)size);
	if (more_size)
		bufs[n++] = fe_rd(&r->fe, c + size, (uint32_t)more_size);
	if (answer_size)
		bufs[n++] = fe_wr(&r->fe, a, (uint32_t)answer_size);
	used = fe_transact(r->control, bufs, n);
	memcpy(answer, a, answer_size);
	if (!r->fe.mode.indirect)
		fe_release(&r->fe, mark);
	return used;
}

uint32_t rig_status(struct rig *r, const void *command, size_t size, const void *more, size_t more_size)
{
	struct virtio_gpu_ctrl_hdr answer;

	CHECK_EQ(rig_command(r, command, size, more, more_size, &answer, sizeof(answer)), sizeof(answer));
	CHECK_EQ(answer.flags, 0);
	return answer.type;
}

uint32_t create_2d(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h)
{
	return RIG_DO(r, (struct virtio_gpu_resource_create_2d){HDR(RESOURCE_CREATE_2D), .resource_id = id,
				 .format = format, .width = w, .height = h});
}

uint32_t unref(struct rig *r, uint32_t id)
{
	return RIG_DO(r, (struct virtio_gpu_resource_unref){HDR(RESOURCE_UNREF), .resource_id = id});
}

uint32_t attach(struct rig *r, uint32_t id, const struct virtio_gpu_mem_entry *entry, uint32_t n)
{
	struct virtio_gpu_resource_attach_backing c = {
		HDR(RESOURCE_ATTACH_BACKING), .resource_id = id, .nr_entries = n};

	return rig_status(r, &c, sizeof(c), entry, n * sizeof(*entry));
}

uint32_t attach_one(struct rig *r, uint32_t id, uint64_t gpa, uint32_t length)
{
	struct virtio_gpu_mem_entry entry = {.addr = gpa, .length = length};

	return attach(r, id, &entry, 1);
}

uint32_t detach(struct rig *r, uint32_t id)
{
	return RIG_DO(r,
		(struct virtio_gpu_resource_detach_backing){HDR(RESOURCE_DETACH_BACKING), .resource_id = id});
}

uint32_t transfer(struct rig *r, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h, uint64_t offset)
{
	return RIG_DO(r, (struct virtio_gpu_transfer_to_host_2d){HDR(TRANSFER_TO_HOST_2D), .resource_id = id,
				 .r = {x, y, w, h}, .offset = offset});
}

uint32_t set_scanout(
	struct rig *r, uint32_t scanout, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	return RIG_DO(r, (struct virtio_gpu_set_scanout){HDR(SET_SCANOUT), .scanout_id = scanout,
				 .resource_id = id, .r = {x, y, w, h}});
}

uint32_t flush(struct rig *r, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	return RIG_DO(r, (struct virtio_gpu_resource_flush){
				 HDR(RESOURCE_FLUSH), .resource_id = id, .r = {x, y, w, h}});
}

uint32_t create_blob(
	struct rig *r, uint32_t id, uint64_t size, const struct virtio_gpu_mem_entry *entry, uint32_t n)
{
	struct virtio_gpu_resource_create_blob c = {HDR(RESOURCE_CREATE_BLOB), .resource_id = id,
		.blob_mem = VIRTIO_GPU_BLOB_MEM_GUEST, .blob_flags = VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE,
		.nr_entries = n, .size = size};

	return rig_status(r, &c, sizeof(c), entry, n * sizeof(*entry));
}

void cursor(struct rig *r, uint32_t type, uint32_t scanout, uint32_t id, uint32_t x, uint32_t y,
	uint32_t hot_x, uint32_t hot_y)
{
	size_t mark = fe_mark(&r->fe);
	struct virtio_gpu_update_cursor *c = fe_alloc(&r->fe, sizeof(*c), 8, NULL);
	struct vring_driver_buf buf = fe_rd(&r->fe, c, sizeof(*c));

	*c = (struct virtio_gpu_update_cursor){.hdr.type = type,
		.pos = {.scanout_id = scanout, .x = x, .y = y},
		.resource_id = id,
		.hot_x = hot_x,
		.hot_y = hot_y};
	CHECK_EQ(fe_transact(r->cursor, &buf, 1), 0);
	if (!r->fe.mode.indirect)
		fe_release(&r->fe, mark);
}

uint32_t pixel_at(uint32_t x, uint32_t y, unsigned seed)
{
	return (x * 2654435761u ^ y * 40503u ^ seed * 97u) & 0xffffff;
}

void draw(uint32_t *pixels, uint32_t w, uint32_t h, unsigned seed)
{
	for (uint32_t y = 0; y < h; y++)
		for (uint32_t x = 0; x < w; x++)
			pixels[y * w + x] = pixel_at(x, y, seed);
}

uint32_t *picture(struct rig *r, uint32_t id, uint32_t w, uint32_t h, unsigned seed)
{
	uint32_t size = w * h * 4;
	uint64_t gpa;
	uint32_t *pixels = fe_alloc(&r->fe, size, 4096, &gpa);

	draw(pixels, w, h, seed);
	CHECK_EQ(create_2d(r, id, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, w, h), OK);
	CHECK_EQ(attach_one(r, id, gpa, size), OK);
	CHECK_EQ(transfer(r, id, 0, 0, w, h, 0), OK);
	return pixels;
}

uint32_t *png_read(const char *path, uint32_t *w, uint32_t *h)
{
	png_image image = {.version = PNG_IMAGE_VERSION};
	uint32_t *pixels;

	if (access(path, R_OK) < 0)
		return NULL;
	if (!png_image_begin_read_from_file(&image, path))
		FAIL("%s: %s", path, image.message);
	image.format = PNG_FORMAT_BGRA;
	pixels = malloc(PNG_IMAGE_SIZE(image));
	if (!png_image_finish_read(&image, NULL, pixels, 0, NULL))
		FAIL("%s: %s", path, image.message);
	*w = image.width;
	*h = image.height;
	return pixels;
}

/* NULL: it is the picture; else what differs. */
static const char *differs(const char *path, const uint32_t *pixels, uint32_t w, uint32_t h)
{
	static char why[200];
	uint32_t *got, gw, gh, i;

	got = png_read(path, &gw, &gh);
	if (!got)
		return "there is no picture";
	snprintf(why, sizeof(why), "it is %ux%u", gw, gh);
	for (i = 0; gw == w && gh == h && i < w * h; i++) {
		if ((got[i] & 0xffffff) == (pixels[i] & 0xffffff))
			continue;
		snprintf(why, sizeof(why), "pixel %u,%u is %06x, not %06x", i % w, i / w, got[i] & 0xffffff,
			pixels[i] & 0xffffff);
		break;
	}
	free(got);
	return gw == w && gh == h && i == w * h ? NULL : why;
}

void shows(struct rig *r, unsigned scanout, const uint32_t *pixels, uint32_t w, uint32_t h)
{
	int64_t end = fe_now_ms() + fe_limit_ms;
	const char *why;
	char path[200];

	snprintf(path, sizeof(path), "%s/scanout-%u.png", r->dir, scanout);
	while ((why = differs(path, pixels, w, h))) {
		if (fe_now_ms() > end)
			FAIL("scanout %u: %s", scanout, why);
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
}
