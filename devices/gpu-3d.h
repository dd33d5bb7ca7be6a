/* SPDX-License-Identifier: MIT */
/*
 * The 3D part of gpu: commands that a renderer runs. gpu-3d.c does it by virglrenderer; gpu-3d-none.c stands in where that
 * is not built in. Every function but open and probe is only called when open succeeded.
 */
#ifndef GPU_3D_H
#define GPU_3D_H

#include "gpu.h"

struct gpu_3d;

/* Can a context really be created here? Tried in a child process, since drivers are known to crash. */
bool gpu_3d_probe(void);
/* Loads and starts the renderer on a render node (NULL: the first one that works, or none at all). -errno, logged. */
int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out);
void gpu_3d_close(struct gpu_3d *t);
/* Forgets all contexts; resources were destroyed before. */
void gpu_3d_reset(struct gpu_3d *t);
unsigned gpu_3d_num_capsets(const struct gpu_3d *t);

gpu_command_fn gpu_cmd_capset_info, gpu_cmd_capset, gpu_cmd_ctx_create, gpu_cmd_ctx_destroy,
	gpu_cmd_ctx_attach, gpu_cmd_ctx_detach, gpu_cmd_create_3d, gpu_cmd_transfer_to_3d,
	gpu_cmd_transfer_from_3d, gpu_cmd_submit;

/* Do commands wait for the renderer? Then those that have a fence must wait too, for their order. */
bool gpu_3d_waits(const struct gpu_3d *t);
/* Answers with that status when the renderer has done all that came before. */
void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status);
/* Answers what waits for the renderer: the queue stops, and the driver is told in time. */
void gpu_3d_give_up(struct gpu_3d *t);

/* The backing of a 3D resource came, or is about to go. */
uint32_t gpu_3d_attach_backing(struct gpu_resource *res);
void gpu_3d_detach_backing(struct gpu_resource *res);
/* It leaves the table. */
void gpu_3d_destroy(struct gpu_resource *res);
/* Gives it pixels of ours, for a scanout or a cursor. Returns a status. */
uint32_t gpu_3d_prepare(struct gpu_resource *res);
/* Reads them back. */
void gpu_3d_read(struct gpu_resource *res, const struct gpu_rect *r);

#define GPU_MODIFIER_UNKNOWN UINT64_C(0x00ffffffffffffff) /* DRM_FORMAT_MOD_INVALID; 0 is linear */

/* A picture of the renderer's that others can look at without a copy. */
struct gpu_dmabuf {
	int fd;			/* the receiver's */
	uint32_t w, h, stride;	/* stride: bytes */
	uint32_t flags, fourcc; /* VIRTIO_GPU_RESOURCE_FLAG_*, DRM_FORMAT_* */
	uint64_t modifier;
};

/* What was drawn so far is in it, as soon as the GPU is done. False: it has to be read back. */
bool gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out);
/* Before somebody looks at a dmabuf anew. */
void gpu_3d_flush(struct gpu *g);

#endif
