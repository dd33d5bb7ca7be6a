/* SPDX-License-Identifier: MIT */
/*
 * The 3D part of gpu: commands that a renderer runs. gpu-3d.c hands them to one in a process of its own (gpu-renderer.c);
 * gpu-3d-none.c stands in where virglrenderer is not built in. Every function but open and probe is only called when open
 * succeeded.
 */
#ifndef GPU_3D_H
#define GPU_3D_H

#include "gpu.h"

struct gpu_3d;

/* Can a context really be created here? */
bool gpu_3d_probe(void);
/* Starts the renderer on a render node (NULL: the first one that works, or none at all). -errno, logged. */
int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out);
void gpu_3d_close(struct gpu_3d *t);
/* Forgets all contexts and resources; these will be destroyed next. No queue runs. */
void gpu_3d_reset(struct gpu_3d *t);
/* The map of guest memory is another. */
void gpu_3d_memory(struct gpu_3d *t);
unsigned gpu_3d_num_capsets(const struct gpu_3d *t);
/* The process that is the renderer: struct device.helper. */
int gpu_3d_helper(void);

gpu_command_fn gpu_cmd_capset_info, gpu_cmd_capset, gpu_cmd_ctx_create, gpu_cmd_ctx_destroy,
	gpu_cmd_ctx_attach, gpu_cmd_ctx_detach, gpu_cmd_create_3d, gpu_cmd_transfer_to_3d,
	gpu_cmd_transfer_from_3d, gpu_cmd_submit;

/* Do commands wait for the renderer? Then those that have a fence must wait too, for their order. */
bool gpu_3d_waits(const struct gpu_3d *t);
/* Answers with that status when the renderer has done all that came before. */
void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status);
/* So much waits for the renderer that no more commands should be taken; gpu_resume() is called when that is over. */
bool gpu_3d_full(struct gpu_3d *t);
/* What waits for the renderer is answered in time, whatever it does: the queue stops. */
void gpu_3d_give_up(struct gpu_3d *t);

/* The backing of a 3D resource came, or is about to go. */
uint32_t gpu_3d_attach_backing(struct gpu_resource *res);
void gpu_3d_detach_backing(struct gpu_resource *res);
/* It leaves the table. */
void gpu_3d_destroy(struct gpu_resource *res);
/* Gives it pixels of ours, for a scanout or a cursor. Returns a status. */
uint32_t gpu_3d_prepare(struct gpu_resource *res);
/* No scanout shows it any more. */
void gpu_3d_unshow(struct gpu_resource *res);
/*
 * Takes res->stale over as what is asked for, and calls gpu_pixels_came() when that is drawn: at once, or later, but only one
 * at a time: not while res->reading. With pixels, these are read back too, as far as res->unread says.
 */
void gpu_3d_read(struct gpu_resource *res, bool pixels);
/* Waits until all pixels are read back, or for a second. */
void gpu_3d_catch_up(struct gpu_resource *res);

#define GPU_MODIFIER_UNKNOWN UINT64_C(0x00ffffffffffffff) /* DRM_FORMAT_MOD_INVALID; 0 is linear */

/* A picture of the renderer's that others can look at without a copy. */
struct gpu_dmabuf {
	int fd;			/* the receiver's */
	uint32_t w, h, stride;	/* stride: bytes */
	uint32_t flags, fourcc; /* VIRTIO_GPU_RESOURCE_FLAG_*, DRM_FORMAT_* */
	uint64_t modifier;
};

/* NONE: it has to be read back. LATER: gpu_export_came() will be called. TAKEN: what was drawn so far is in it. */
enum gpu_export { GPU_EXPORT_NONE, GPU_EXPORT_LATER, GPU_EXPORT_TAKEN };
enum gpu_export gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out);

#endif
