/* SPDX-License-Identifier: MIT */
/* See gpu-rig-3d.h. */
#include "gpu-rig-3d.h"

void start_3d(struct rig *r, const struct fe_mode *m, const char *option)
{
	struct virtio_gpu_config config;

	/* libraries of others keep what they allocated */
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	rig_start(r, m, FE_ARGS("--virgl", option));
	CHECK(r->fe.offered >> VIRTIO_GPU_F_VIRGL & 1);
	fe_config_get(&r->fe, 0, &config, sizeof(config));
	CHECK(config.num_capsets >= 1);
}

uint32_t ctx_create(struct rig *r, uint32_t ctx)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_create){
				 HDR(CTX_CREATE), .hdr.ctx_id = ctx, .nlen = 4, .debug_name = "test"});
}

uint32_t ctx_create_of(struct rig *r, uint32_t ctx, uint32_t set)
{
	return RIG_DO(
		r, (struct virtio_gpu_ctx_create){HDR(CTX_CREATE), .hdr.ctx_id = ctx, .context_init = set});
}

uint32_t ctx_destroy(struct rig *r, uint32_t ctx)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_destroy){HDR(CTX_DESTROY), .hdr.ctx_id = ctx});
}

uint32_t ctx_attach(struct rig *r, uint32_t ctx, uint32_t id)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_resource){
				 HDR(CTX_ATTACH_RESOURCE), .hdr.ctx_id = ctx, .resource_id = id});
}

uint32_t create_3d(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h, uint32_t flags)
{
	return RIG_DO(r, (struct virtio_gpu_resource_create_3d){HDR(RESOURCE_CREATE_3D), .resource_id = id,
				 .target = TEXTURE_2D, .format = format, .bind = RENDER_TARGET | SAMPLER_VIEW,
				 .width = w, .height = h, .depth = 1, .array_size = 1, .flags = flags});
}

uint32_t transfer_3d(struct rig *r, uint32_t type, uint32_t ctx, uint32_t id, struct virtio_gpu_box box,
	uint64_t offset, uint32_t stride)
{
	return RIG_DO(r, (struct virtio_gpu_transfer_host_3d){.hdr.type = type,
				 .hdr.ctx_id = ctx,
				 .box = box,
				 .offset = offset,
				 .resource_id = id,
				 .stride = stride});
}

uint32_t submit(struct rig *r, uint32_t ctx, const void *words, uint32_t size)
{
	struct virtio_gpu_cmd_submit c = {HDR(SUBMIT_3D), .hdr.ctx_id = ctx, .size = size};

	return rig_status(r, &c, sizeof(c), words, size);
}

/* A 3D resource with a drawing in it. */
uint32_t *picture_3d(struct rig *r, uint32_t id, uint32_t w, uint32_t h, unsigned seed, uint32_t flags)
{
	struct virtio_gpu_box all = {.w = w, .h = h, .d = 1};
	uint32_t *pixels;
	uint64_t gpa;

	pixels = fe_alloc(&r->fe, w * h * 4, 4096, &gpa);
	draw(pixels, w, h, seed);
	CHECK_EQ(create_3d(r, id, BGRA, w, h, flags), OK);
	CHECK_EQ(attach_one(r, id, gpa, w * h * 4), OK);
	CHECK_EQ(transfer_3d(r, CMD(TRANSFER_TO_HOST_3D), 0, id, all, 0, w * 4), OK);
	return pixels;
}

void clear(struct rig *r, uint32_t ctx, uint32_t id, const float colour[4])
{
	uint32_t words[] = {CREATE_OBJECT | OBJECT_SURFACE << 8 | 5 << 16, 1, id, BGRA, 0, 0,
		SET_FRAMEBUFFER | 3 << 16, 1, 0, 1, CLEAR | 8 << 16, CLEAR_COLOR0, 0, 0, 0, 0, 0, 0, 0};

	memcpy(&words[12], colour, 16);
	CHECK_EQ(submit(r, ctx, words, sizeof(words)), OK);
}
