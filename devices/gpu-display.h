/* SPDX-License-Identifier: MIT */
/*
 * The display of a front-end: the client side of the vhost-user-gpu protocol, over the socket that GPU_SET_SOCKET brings
 * (QEMU interop, "Vhost-user-gpu Protocol").
 */
#ifndef GPU_DISPLAY_H
#define GPU_DISPLAY_H

#include "gpu.h"

struct gpu_display;

/* NULL: no memory. */
struct gpu_display *gpu_display_new(struct gpu *g);
void gpu_display_free(struct gpu_display *d);
/* Takes fd. The connection replaces the one there is; all that is shown is sent anew. -errno: fd is still the caller's. */
int gpu_display_attach(struct gpu_display *d, int fd);
bool gpu_display_attached(const struct gpu_display *d);

void gpu_display_scanout(struct gpu_display *d, unsigned scanout);
void gpu_display_damage(struct gpu_display *d, unsigned scanout, const struct gpu_rect *r);
void gpu_display_cursor(struct gpu_display *d, unsigned scanout, enum gpu_cursor_change what);

/* Does it take the pixels of this scanout, not a dmabuf? */
bool gpu_display_wants_pixels(const struct gpu_display *d, unsigned scanout);
/* gpu_3d_export() has an answer. */
void gpu_display_export(struct gpu_display *d);

/* GET_DISPLAY_INFO or GET_EDID (r->arg: the scanout): asks the front-end and answers later. Only while attached. */
void gpu_display_ask(struct gpu_display *d, struct gpu_request *r);
/* Answers all that waits by ourselves: the queue stops. */
void gpu_display_give_up(struct gpu_display *d);

#endif
