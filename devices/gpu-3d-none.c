/* SPDX-License-Identifier: MIT */
/* Stands in for gpu-3d.c where virglrenderer is not built in: there is no 3D, and --virgl is refused. */
#include "gpu-3d.h"

#include <errno.h>

bool gpu_3d_probe(void)
{
	return false;
}

int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out)
{
	(void)g;
	(void)render_node;
	*out = NULL;
	log_error("--virgl: this program was built without virglrenderer");
	return -ENOTSUP;
}

void gpu_3d_close(struct gpu_3d *t)
{
	(void)t;
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
NONE(gpu_cmd_create_3d)
NONE(gpu_cmd_transfer_to_3d)
NONE(gpu_cmd_transfer_from_3d)
NONE(gpu_cmd_submit)

void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	(void)t;
	(void)r;
	(void)status;
}

void gpu_3d_give_up(struct gpu_3d *t)
{
	(void)t;
}

uint32_t gpu_3d_attach_backing(struct gpu_resource *res)
{
	(void)res;
	return VIRTIO_GPU_RESP_ERR_UNSPEC;
}

void gpu_3d_detach_backing(struct gpu_resource *res)
{
	(void)res;
}

void gpu_3d_destroy(struct gpu_resource *res)
{
	(void)res;
}

uint32_t gpu_3d_prepare(struct gpu_resource *res)
{
	(void)res;
	return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
}

void gpu_3d_unshow(struct gpu_resource *res)
{
	(void)res;
}

void gpu_3d_read(struct gpu_resource *res, bool pixels)
{
	(void)res;
	(void)pixels;
}

void gpu_3d_catch_up(struct gpu_resource *res)
{
	(void)res;
}

enum gpu_export gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out)
{
	(void)res;
	(void)out;
	return GPU_EXPORT_NONE;
}

bool gpu_3d_waits(const struct gpu_3d *t)
{
	(void)t;
	return false;
}
