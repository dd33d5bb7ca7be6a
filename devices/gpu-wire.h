/* SPDX-License-Identifier: MIT */
/*
 * What a gpu and its renderer say to each other, over a stream socket: they are two processes of the same program on the same
 * host, so numbers are in its byte order; what the guest wrote stays little-endian.
 *
 * The gpu says what to do, the renderer does it in that order and answers, in the same order, those messages that ask for it.
 * Fences are answered by themselves, with the number of the last message whose fence is done. The gpu checks all that the guest
 * says before it hands it on; of what the renderer says it believes nothing, since a guest may have taken it over.
 */
#ifndef GPU_WIRE_H
#define GPU_WIRE_H

#include "gpu.h"

enum wire_type {
	WIRE_HELLO,	    /* wire_hello; the first one. Answered by READY, or by the renderer's end */
	WIRE_MEMORY_BEGIN,  /* of a table of guest memory, instead of the old one */
	WIRE_MEMORY,	    /* wire_region, fd */
	WIRE_MEMORY_END,    /* all backing is found anew */
	WIRE_CTX_CREATE,    /* virtio_gpu_ctx_create */
	WIRE_CTX_DESTROY,   /* ctx */
	WIRE_CTX_ATTACH,    /* ctx, resource */
	WIRE_CTX_DETACH,    /* ctx, resource */
	WIRE_CREATE,	    /* virtio_gpu_resource_create_3d */
	WIRE_UNREF,	    /* resource */
	WIRE_BACKING,	    /* resource; wire_entry[] */
	WIRE_BACKING_NONE,  /* resource */
	WIRE_TRANSFER_TO,   /* virtio_gpu_transfer_host_3d */
	WIRE_TRANSFER_FROM, /* virtio_gpu_transfer_host_3d */
	WIRE_SUBMIT,	    /* ctx; commands, arg: their bytes */
	WIRE_PIXELS,	    /* resource; wire_pixels, fd: where it is read back to */
	WIRE_PIXELS_NONE,   /* resource */
	WIRE_READ, /* resource; gpu_rect: reads it back (an empty one: nothing); all that was drawn is on its way to the GPU */
	WIRE_EXPORT,  /* resource; its answer may have an fd */
	WIRE_NOTHING, /* its fence is all that is of interest */
	WIRE_TYPES
};

enum { WIRE_ANSWER = 1, WIRE_FENCE = 2, WIRE_FD = 4 }; /* flags */
enum { WIRE_MAX = (64 << 20) + 4096, WIRE_ALIGN = 8, WIRE_CAPSETS = 2, WIRE_CAPSET_MAX = 65536 };

struct wire {
	uint32_t size; /* bytes with this header, a multiple of WIRE_ALIGN */
	uint16_t type, flags;
	uint32_t seq, ctx, resource, arg;
};

struct wire_hello {
	char render_node[256]; /* empty: surfaceless */
	uint32_t log_level;
	uint32_t no_dmabuf;
	uint32_t quiet; /* it is only asked whether it works: nothing is printed */
	uint32_t unused;
};

struct wire_region {
	uint64_t gpa, size, offset; /* offset: in the file */
};

struct wire_entry {
	uint64_t gpa, size;
};

struct wire_pixels {
	uint64_t size;	 /* bytes of the file */
	uint32_t stride; /* bytes */
	uint32_t unused;
};

enum wire_reply_type {
	WIRE_READY, /* with an fd: a file with the capability sets, one behind the other */
	WIRE_DONE,
	WIRE_FENCED,
};

struct wire_capset {
	uint32_t version, size;
};

struct wire_reply {
	uint32_t type, seq;
	uint32_t status; /* VIRTIO_GPU_RESP_*; WIRE_READY: dmabufs can be exported */
	uint32_t fds;	 /* that come with it: 0 or 1 */
	union {
		struct wire_capset capset[WIRE_CAPSETS]; /* size 0: there is none */
		struct {
			uint32_t w, h, stride, flags, fourcc, unused;
			uint64_t modifier;
		} dmabuf;
	};
};

#endif
