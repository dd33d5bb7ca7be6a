/* SPDX-License-Identifier: MIT */
/*
 * The front-end's side of the vhost-user-gpu protocol, for the tests: as strict as QEMU where QEMU would crash. It keeps the
 * surfaces that the messages make, to be compared pixel by pixel.
 */
#ifndef TESTS_GPU_SCREEN_H
#define TESTS_GPU_SCREEN_H

#include "gpu-rig.h"

enum {
	GET_PROTOCOL_FEATURES = 1,
	SET_PROTOCOL_FEATURES,
	GET_DISPLAY_INFO,
	CURSOR_POS,
	CURSOR_POS_HIDE,
	CURSOR_UPDATE,
	SCANOUT,
	UPDATE,
	DMABUF_SCANOUT,
	DMABUF_UPDATE,
	GET_EDID,
	DMABUF_SCANOUT2,
	MESSAGES,
};

enum { OUTPUTS = 2, F_EDID = 1, F_DMABUF2 = 2 };

struct header {
	uint32_t request, flags, size;
};

struct surface {
	uint32_t w, h;
	uint32_t *pixels; /* of SCANOUT and UPDATE */
	bool cursor_visible;
	uint32_t cursor_x, cursor_y, hot_x, hot_y;
	uint32_t cursor[64 * 64];

	int dmabuf; /* or -1; shown instead of the pixels */
	uint32_t x, y, fd_w, fd_h, stride, flags, fourcc;
	uint64_t modifier;
	uint32_t look[4]; /* x, y, w, h of the last DMABUF_UPDATE */
};

struct display {
	int fd;
	uint64_t features, accepted;
	bool silent;		  /* does not answer questions */
	bool absorbed;		  /* nor DMABUF_UPDATE */
	unsigned count[MESSAGES]; /* of messages */
	uint64_t bytes;		  /* of UPDATEs */
	struct surface s[OUTPUTS];
};

/* Gives the back-end a socket. */
void plug(struct rig *r, struct display *d, uint64_t features);
void plug_and_greet(struct rig *r, struct display *d, uint64_t features);
/* Handles one message. False: none came within ms, or the end. */
bool serve(struct display *d, int ms);
/* Answers a DMABUF_UPDATE. */
void looked(struct display *d);
void drop(struct display *d);
/* Serves until the surface is that picture. */
void displays(struct display *d, unsigned scanout, const uint32_t *want, uint32_t w, uint32_t h);

#endif
