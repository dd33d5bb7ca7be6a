/* SPDX-License-Identifier: MIT */
/* What gpu-3d.c, which speaks with the renderer, gives to gpu-3d-command.c, which knows what is said. */
#ifndef GPU_3D_CORE_H
#define GPU_3D_CORE_H

#include "gpu-3d.h"
#include "gpu-link.h"

enum { GPU_3D_CONTEXTS = 256 };

struct tickets {
	struct gpu_ticket *first, **last;
};

struct gpu_3d {
	struct gpu *g;
	struct gpu_link link;
	char render_node[sizeof(((struct wire_hello *)0)->render_node)];
	struct timer expiry;		/* a queue that stops does not wait for ever */
	struct tickets running, fenced; /* asked for; done, but for their fence. In their order */
	unsigned requests;		/* in both of them */
	uint32_t seq;
	uint64_t started;    /* ns */
	uint64_t generation; /* of the memory that it has, if it has any */
	bool has_memory, used, ready, quiet;
	bool stalled; /* no commands are taken */
	bool late;    /* somebody has waited in vain, and nothing came since */
	uint32_t context[GPU_3D_CONTEXTS];
	unsigned ncontexts;
	/* found out at the start */
	bool exports;
	unsigned ncapsets;
	struct wire_capset capset[WIRE_CAPSETS];
	uint8_t *capset_data[WIRE_CAPSETS];
};

/* There is a renderer to talk to, or there is again. */
bool gpu_3d_present(struct gpu_3d *t);
/* Tells it of guest memory as it is now, if it does not know. False: there is no renderer. */
bool gpu_3d_put_memory(struct gpu_3d *t);
/* A command that waits for its answer; room for its payload. NULL: there is no renderer to do it. */
void *gpu_3d_put(struct gpu_3d *t, struct gpu_request *r, struct wire m, size_t payload);
/* The same, with a payload as the guest wrote it. Returns a status, or GPU_HELD. */
uint32_t gpu_3d_hand_on(struct gpu_3d *t, struct gpu_request *r, enum wire_type type, uint32_t resource,
	const void *payload, size_t size);

#endif
