/* SPDX-License-Identifier: MIT */
/*
 * A renderer that only pretends, in the place of devices/gpu-3d.c, for a program that has nothing but the gpu in it: 3D
 * resources are memory files, and these are what is exported as a dmabuf. So the way of a dmabuf to the front-end can be
 * tested where no GPU is. The bind word of a resource says how it is exported.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu-3d.h"
#include "gpu-pretend.h"
#include "table.h"

enum { RESOURCES = 64, FOURCC_XR24 = 0x34325258 };

struct pretended {
	uint32_t id, bind, flags;
	int fd;
	uint8_t *pixels;
};

struct gpu_3d {
	struct pretended r[RESOURCES];
};

extern const struct device device_gpu;
const struct device *const device_table[] = {&device_gpu, NULL};
const char *const device_planned[] = {NULL};

static unsigned find(const struct gpu_3d *t, uint32_t id)
{
	unsigned i = 0;

	while (i < RESOURCES && t->r[i].id != id)
		i++;
	return i;
}

static size_t size_of(const struct gpu_resource *res)
{
	return (size_t)res->width * res->height * GPU_PIXEL;
}

/* Life */

bool gpu_3d_probe(void)
{
	return true;
}

int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out)
{
	(void)g;
	(void)render_node;
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void gpu_3d_close(struct gpu_3d *t)
{
	free(t);
}

int gpu_3d_helper(void)
{
	return 1;
}

void gpu_3d_memory(struct gpu_3d *t)
{
	(void)t;
}

bool gpu_3d_full(struct gpu_3d *t)
{
	(void)t;
	return false;
}

void gpu_3d_reset(struct gpu_3d *t)
{
	(void)t;
}

unsigned gpu_3d_num_capsets(const struct gpu_3d *t)
{
	(void)t;
	return 0;
}

void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	struct virtio_gpu_ctrl_hdr hdr;

	(void)t;
	gpu_answer(NULL, r, status, &hdr, sizeof(hdr));
}

void gpu_3d_give_up(struct gpu_3d *t)
{
	(void)t;
}

bool gpu_3d_waits(const struct gpu_3d *t)
{
	(void)t;
	return false;
}

/* Commands */

#define NONE(name)                                                                      \
	uint32_t name(struct gpu *g, struct gpu_request *r, const union gpu_command *c) \
	{                                                                               \
		(void)g;                                                                \
		(void)r;                                                                \
		(void)c;                                                                \
		return VIRTIO_GPU_RESP_ERR_UNSPEC;                                      \
	}

NONE(gpu_cmd_capset_info)
NONE(gpu_cmd_capset)
NONE(gpu_cmd_ctx_create)
NONE(gpu_cmd_ctx_destroy)
NONE(gpu_cmd_ctx_attach)
NONE(gpu_cmd_ctx_detach)
NONE(gpu_cmd_transfer_from_3d)
NONE(gpu_cmd_submit)

static bool pretended_new(struct pretended *p, uint64_t size)
{
	p->fd = memfd_create("picture", MFD_CLOEXEC);
	p->pixels = MAP_FAILED;
	if (p->fd >= 0 && ftruncate(p->fd, (off_t)size) == 0)
		p->pixels = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
	if (p->pixels != MAP_FAILED)
		return true;
	fd_close(&p->fd);
	return false;
}

uint32_t gpu_cmd_create_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct virtio_gpu_resource_create_3d *d = &c->create_3d;
	uint64_t size = (uint64_t)le32toh(d->width) * le32toh(d->height) * GPU_PIXEL;
	uint32_t id = le32toh(d->resource_id), status;
	struct gpu_resource *res = gpu_resource_new(g, id, GPU_RESOURCE_3D, size, &status);
	unsigned i = find(g->three, 0);

	(void)r;
	if (!res)
		return status;
	res->format = le32toh(d->format);
	res->width = le32toh(d->width);
	res->height = le32toh(d->height);
	if (!res->width || !res->height || res->width > GPU_MAX_SIDE || res->height > GPU_MAX_SIDE ||
		i == RESOURCES || !pretended_new(&g->three->r[i], size)) {
		gpu_resource_destroy(res);
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	g->three->r[i].bind = le32toh(d->bind);
	g->three->r[i].flags = le32toh(d->flags);
	g->three->r[i].id = id;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_destroy(struct gpu_resource *res)
{
	unsigned i = find(res->g->three, res->id);

	if (i == RESOURCES)
		return;
	munmap(res->g->three->r[i].pixels, size_of(res));
	close(res->g->three->r[i].fd);
	res->g->three->r[i].id = 0;
}

/* All of it, whatever the box. */
uint32_t gpu_cmd_transfer_to_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->transfer_3d.resource_id));
	size_t stride = res ? (size_t)res->width * GPU_PIXEL : 0;

	(void)r;
	if (!res || res->kind != GPU_RESOURCE_3D ||
		!gpu_backing_read(res, 0, stride, g->three->r[find(g->three, res->id)].pixels, stride, stride,
			res->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_3d_attach_backing(struct gpu_resource *res)
{
	(void)res;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_detach_backing(struct gpu_resource *res)
{
	(void)res;
}

/* Pixels */

uint32_t gpu_3d_prepare(struct gpu_resource *res)
{
	int fd = -1;

	if (!gpu_format_known(res->format))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!res->pixels && !gpu_pixels_share(res, size_of(res), &fd))
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	fd_close(&fd);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_unshow(struct gpu_resource *res)
{
	(void)res;
}

void gpu_3d_read(struct gpu_resource *res, bool pixels)
{
	unsigned i = find(res->g->three, res->id);

	res->asked = res->stale;
	res->stale = (struct gpu_rect){0};
	if (pixels && i < RESOURCES) {
		memcpy(res->pixels, res->g->three->r[i].pixels, size_of(res));
		res->unread = res->stale;
	}
	gpu_pixels_came(res);
}

void gpu_3d_catch_up(struct gpu_resource *res)
{
	if (!gpu_rect_empty(&res->unread))
		gpu_3d_read(res, true);
}

enum gpu_export gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out)
{
	const struct gpu_3d *t = res->g->three;
	unsigned i = find(t, res->id);

	if (i == RESOURCES || t->r[i].bind & PRETEND_NO_EXPORT)
		return GPU_EXPORT_NONE;
	*out = (struct gpu_dmabuf){.fd = dup(t->r[i].fd),
		.w = res->width,
		.h = res->height,
		.stride = res->width * GPU_PIXEL,
		.flags = t->r[i].flags,
		.fourcc = FOURCC_XR24};
	if (t->r[i].bind & PRETEND_UNKNOWN)
		out->modifier = GPU_MODIFIER_UNKNOWN;
	if (t->r[i].bind & PRETEND_TILED)
		out->modifier = PRETEND_MODIFIER;
	return GPU_EXPORT_TAKEN;
}
