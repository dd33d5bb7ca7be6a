/* SPDX-License-Identifier: MIT */
/*
 * A gpu driver for the tests: commands, pictures in guest memory, and what is seen of them in the screenshots.
 */
#ifndef TESTS_GPU_RIG_H
#define TESTS_GPU_RIG_H

#include <linux/virtio_gpu.h>

#include "frontend.h"

#define OK	  VIRTIO_GPU_RESP_OK_NODATA
#define ERR(what) VIRTIO_GPU_RESP_ERR_##what
#define CMD(what) VIRTIO_GPU_CMD_##what

struct rig {
	struct fe fe;
	struct fe_queue *control, *cursor;
	const char *dir; /* of the screenshots */
	char option[200];
};

/* Starts the program with screenshots and these options more (NULL ends them), and both queues. */
void rig_start(struct rig *r, const struct fe_mode *m, const char *const *args);
/* The queues of a connection that was made; a new driver. */
void rig_queues(struct rig *r);

/* A command and its answer of size bytes with its header; the value is the used length. */
uint32_t rig_command(struct rig *r, const void *command, size_t size, const void *more, size_t more_size,
	void *answer, size_t answer_size);
/* The response type of a command without data in its answer, whose used length must be that of a header. */
uint32_t rig_status(struct rig *r, const void *command, size_t size, const void *more, size_t more_size);
#define RIG_DO(r, ...) rig_status((r), &(__VA_ARGS__), sizeof(__VA_ARGS__), NULL, 0)

#define HDR(what)      .hdr.type = CMD(what)

uint32_t create_2d(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h);
uint32_t unref(struct rig *r, uint32_t id);
uint32_t attach(struct rig *r, uint32_t id, const struct virtio_gpu_mem_entry *entry, uint32_t n);
uint32_t attach_one(struct rig *r, uint32_t id, uint64_t gpa, uint32_t length);
uint32_t detach(struct rig *r, uint32_t id);
uint32_t transfer(
	struct rig *r, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h, uint64_t offset);
uint32_t set_scanout(
	struct rig *r, uint32_t scanout, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h);
uint32_t flush(struct rig *r, uint32_t id, uint32_t x, uint32_t y, uint32_t w, uint32_t h);
uint32_t create_blob(
	struct rig *r, uint32_t id, uint64_t size, const struct virtio_gpu_mem_entry *entry, uint32_t n);
/* UPDATE_CURSOR or MOVE_CURSOR */
void cursor(struct rig *r, uint32_t type, uint32_t scanout, uint32_t id, uint32_t x, uint32_t y,
	uint32_t hot_x, uint32_t hot_y);

/* Pictures are x8r8g8b8 words of w * h; what the top byte is does not matter. */
uint32_t pixel_at(uint32_t x, uint32_t y, unsigned seed);
void draw(uint32_t *pixels, uint32_t w, uint32_t h, unsigned seed);
/* Creates a resource of that size, with a drawing as its backing; returns the drawing. */
uint32_t *picture(struct rig *r, uint32_t id, uint32_t w, uint32_t h, unsigned seed);

/* Waits until the screenshot of this scanout is that picture. */
void shows(struct rig *r, unsigned scanout, const uint32_t *pixels, uint32_t w, uint32_t h);
/* Reads a PNG file; NULL: there is none. To be freed. */
uint32_t *png_read(const char *path, uint32_t *w, uint32_t *h);

#endif
