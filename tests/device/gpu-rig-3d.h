/* SPDX-License-Identifier: MIT */
/*
 * A gpu driver for the tests, with 3D: the program runs with --virgl, on whatever OpenGL this host has.
 */
#ifndef TESTS_GPU_RIG_3D_H
#define TESTS_GPU_RIG_3D_H

#include "gpu-rig.h"

enum { TEXTURE_2D = 2, RENDER_TARGET = 1 << 1, SAMPLER_VIEW = 1 << 3, Y_0_TOP = 1 };
enum { BGRA = VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM };

/* virglrenderer's commands: opcode, object type << 8, words that follow << 16 */
enum { CREATE_OBJECT = 1, SET_FRAMEBUFFER = 5, CLEAR = 7, OBJECT_SURFACE = 8, CLEAR_COLOR0 = 1 << 2 };

/* rig_start() with --virgl, and perhaps one option more (or NULL). */
void start_3d(struct rig *r, const struct fe_mode *m, const char *option);
uint32_t ctx_create(struct rig *r, uint32_t ctx);
uint32_t ctx_create_of(struct rig *r, uint32_t ctx, uint32_t set);
uint32_t ctx_destroy(struct rig *r, uint32_t ctx);
uint32_t ctx_attach(struct rig *r, uint32_t ctx, uint32_t id);
uint32_t create_3d(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h, uint32_t flags);
/* type: TRANSFER_TO_HOST_3D or TRANSFER_FROM_HOST_3D */
uint32_t transfer_3d(struct rig *r, uint32_t type, uint32_t ctx, uint32_t id, struct virtio_gpu_box box,
	uint64_t offset, uint32_t stride);
uint32_t submit(struct rig *r, uint32_t ctx, const void *words, uint32_t size);
/* A 3D resource with a drawing in it. */
uint32_t *picture_3d(struct rig *r, uint32_t id, uint32_t w, uint32_t h, unsigned seed, uint32_t flags);
/* Fills a resource that is attached to the context; its first use of it. */
void clear(struct rig *r, uint32_t ctx, uint32_t id, const float colour[4]);

#endif
