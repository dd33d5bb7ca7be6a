/* SPDX-License-Identifier: MIT */
/*
 * The gpu's end of the line to its renderer: the process, and the socket. Messages are collected during a turn and leave at its
 * end, as far as the socket takes them; nothing here waits for the renderer, but gpu_link_wait().
 */
#ifndef GPU_LINK_H
#define GPU_LINK_H

#include "gpu-wire.h"

enum { GPU_LINK_REPLIES = 64, GPU_LINK_FDS = 4 };

struct gpu_child;

struct gpu_link {
	/* One reply; false: it is none that may come now, and the line is lost. */
	bool (*reply)(struct gpu_link *l, const struct wire_reply *m);
	/* The line is lost, or was never complete; it is closed. */
	void (*lost)(struct gpu_link *l);
	/* All that was said has left. */
	void (*drained)(struct gpu_link *l);

	bool trying;	   /* it is no news that it ends */
	struct loop *loop; /* NULL: none, only gpu_link_wait() is used */
	struct watch watch;
	struct task pump;
	int fd;			       /* -1: there is no renderer */
	struct gpu_child *child, *old; /* the process; those that have not ended yet */

	uint8_t *out;
	size_t out_pos, out_len, out_room;
	struct gpu_link_fd {
		size_t at; /* goes with the byte of out at */
		int fd;
	} * out_fd;
	size_t nout_fd, out_fd_room;

	struct wire_reply in[GPU_LINK_REPLIES];
	size_t nin; /* bytes */
	int in_fd[GPU_LINK_FDS];
	unsigned nin_fd;
};

/* Starts a renderer; loop as in the struct, the functions are set. -errno, logged. */
int gpu_link_start(struct gpu_link *l);
/* Ends it, without a word. */
void gpu_link_end(struct gpu_link *l);
/* The same, and tidies up: nothing of l is used by the loop any more. */
void gpu_link_close(struct gpu_link *l);

static inline bool gpu_link_up(const struct gpu_link *l)
{
	return l->fd >= 0;
}

/*
 * A new message with that header, whose size is filled in, and payload bytes: the place for them, which is valid until the next
 * call; the last bytes up to WIRE_ALIGN are zero. NULL: no memory, or no renderer.
 */
void *gpu_link_put(struct gpu_link *l, struct wire m, size_t payload);
/* A descriptor for the message that was just put, which has WIRE_FD. Takes fd. False: no memory. */
bool gpu_link_put_fd(struct gpu_link *l, int fd);
/* Bytes that have not left yet. */
size_t gpu_link_queued(const struct gpu_link *l);
/* The descriptor of the reply that is looked at; or -1. */
int gpu_link_take_fd(struct gpu_link *l);
/* Speaks and listens until something came; false: nothing did for ms milliseconds, or the line is lost. */
bool gpu_link_wait(struct gpu_link *l, int ms);

#endif
