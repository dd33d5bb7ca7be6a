/* SPDX-License-Identifier: MIT */
/*
 * Between the files of the gpu device. All of it runs in the control loop: nothing here is locked.
 *
 *	gpu.c            the device: options, queues, commands and their answers, life
 *	gpu-resource.c   resources: the table, the memory budget, backing in guest memory
 *	gpu-2d.c         2D commands, blobs, scanouts, the cursor
 *	gpu-3d.c         3D commands: those of the renderer
 *	gpu-link.c       the line to the renderer, and its process
 *	gpu-wire.h       what is said there
 *	gpu-renderer.c   the renderer, by virglrenderer: a process of its own
 *	gpu-edid.c       the monitor that a guest sees
 *	gpu-pixel.c      pixel formats, by pixman
 *	gpu-display.c    the display protocol of vhost-user-gpu
 *	gpu-shot.c       screenshots
 */
#ifndef GPU_H
#define GPU_H

#include <linux/virtio_gpu.h>

#include "device.h"

enum {
	GPU_SCANOUTS = VIRTIO_GPU_MAX_SCANOUTS,
	GPU_MAX_SIDE = 16384, /* pixels, of resources and scanouts */
	GPU_CURSOR = 64,      /* width and height */
	GPU_PIXEL = 4,	      /* bytes, in every format */
};

struct gpu_rect {
	uint32_t x, y, w, h;
};

static inline struct gpu_rect gpu_rect(const struct virtio_gpu_rect *r)
{
	return (struct gpu_rect){le32toh(r->x), le32toh(r->y), le32toh(r->width), le32toh(r->height)};
}

/* Is r inside of w by h? An empty rectangle may be. */
static inline bool gpu_rect_within(const struct gpu_rect *r, uint32_t w, uint32_t h)
{
	return r->x <= w && r->w <= w - r->x && r->y <= h && r->h <= h - r->y;
}

static inline bool gpu_rect_empty(const struct gpu_rect *r)
{
	return !r->w || !r->h;
}

/* The smallest that holds both; an empty one adds nothing. */
struct gpu_rect gpu_rect_union(const struct gpu_rect *a, const struct gpu_rect *b);
struct gpu_rect gpu_rect_intersect(const struct gpu_rect *a, const struct gpu_rect *b);

/* ---- resources (gpu-resource.c) ---- */

struct gpu;

struct gpu_entry {
	uint64_t gpa, start; /* guest address; offset of its first byte in the backing */
};

/* Where the guest keeps the bytes of a resource. Guest addresses only: they are translated at each use. */
struct gpu_backing {
	struct gpu_entry *entry;
	uint32_t n;
	uint64_t size;	 /* bytes */
	uint64_t charge; /* bytes of our memory */
};

enum gpu_kind { GPU_RESOURCE_2D, GPU_RESOURCE_BLOB, GPU_RESOURCE_3D };

/* Its turn with the renderer. */
struct gpu_ticket {
	struct gpu_ticket *next;
	enum { GPU_TICKET_REQUEST, GPU_TICKET_READ, GPU_TICKET_EXPORT } kind;
	uint32_t seq;
};

struct gpu_resource {
	struct gpu *g;
	struct gpu_resource *next; /* in its bucket */
	unsigned refs;		   /* the table's, and of what still shows it */
	uint32_t id;
	enum gpu_kind kind;
	uint32_t format, width, height; /* a blob has none */
	uint8_t *
		pixels; /* 2D: ours; 3D: what was read back, while it is shown, shared with the renderer; or NULL */
	uint64_t size;	 /* bytes of a blob, or of pixels */
	uint64_t charge; /* bytes of our memory without backing */
	struct gpu_backing backing;
	uint32_t scanouts; /* bit mask: shown there */
	/* 3D */
	bool in_renderer; /* it exists there */
	bool attached;	  /* the renderer has the backing */
	bool reading, exporting;
	struct gpu_rect stale;	/* drawn, and not on its way to the scanouts yet */
	struct gpu_rect asked;	/* of that, what the renderer was asked for */
	struct gpu_rect unread; /* of pixels, not read back yet */
	struct gpu_ticket read, export;
	struct gpu_dmabuf *dmabuf; /* that came and was not taken yet, or NULL */
	bool has_uuid;
	uint8_t uuid[16];
};

struct gpu_resource *gpu_resource_find(struct gpu *g, uint32_t id);
/* A new one in the table, with its reference. *status: OK_NODATA, or why there is none. charge: bytes it will hold. */
struct gpu_resource *gpu_resource_new(
	struct gpu *g, uint32_t id, enum gpu_kind kind, uint64_t charge, uint32_t *status);
struct gpu_resource *gpu_resource_ref(struct gpu_resource *res);
void gpu_resource_unref(struct gpu_resource *res);
/* Takes it out of the table, and off the scanouts. */
void gpu_resource_destroy(struct gpu_resource *res);
void gpu_resource_destroy_all(struct gpu *g);
/* The budget that --max-hostmem gives. False: not that much is left. */
bool gpu_charge(struct gpu *g, uint64_t bytes);
void gpu_uncharge(struct gpu *g, uint64_t bytes);
/* Reads n entries of a command; returns OK_NODATA or why not. The old backing must be gone. */
uint32_t gpu_backing_set(struct gpu_resource *res, struct cursor *rd, uint32_t n);
void gpu_backing_clear(struct gpu_resource *res);
/* Pixels of size bytes that another process can map too, by *fd. False: no memory. */
bool gpu_pixels_share(struct gpu_resource *res, uint64_t size, int *fd);
/* Without them. */
void gpu_pixels_free(struct gpu_resource *res);
/* Copies rows of guest memory to dst; false: some of it is not there (any more). */
bool gpu_backing_read(const struct gpu_resource *res, uint64_t offset, uint64_t stride, uint8_t *dst,
	size_t dst_stride, size_t bytes, uint32_t rows);
/* Is all of it guest memory? */
bool gpu_backing_present(const struct gpu_resource *res, struct backend_memory *m);

/* All of the backing was, or may have been, written. */
void gpu_backing_wrote(const struct gpu_resource *res, struct backend_memory *m);

/* ---- scanouts ---- */

/* What a scanout shows: a part of a resource. */
struct gpu_surface {
	struct gpu_resource *res; /* referenced; NULL: nothing */
	uint32_t format;
	uint32_t w, h;	 /* of the part */
	uint32_t x, y;	 /* its place in the frame buffer */
	uint64_t stride; /* bytes */
	uint64_t offset; /* of the part in the resource, bytes */
};

/* A part of a 3D resource was drawn, or is newly shown: takes care that it gets to the scanouts that show it. */
void gpu_resource_drawn(struct gpu_resource *res, const struct gpu_rect *r);
/* The renderer has done what gpu_3d_read() asked for. */
void gpu_pixels_came(struct gpu_resource *res);
/* It has answered gpu_3d_export(). */
void gpu_export_came(struct gpu_resource *res);
/* Brings the pixels of ours up to date, and waits for that. */
void gpu_surface_refresh(const struct gpu_surface *s);
/* Pixels of a part of the surface as x8r8g8b8, stride w * 4. What is no guest memory (any more) is black. */
void gpu_surface_read(const struct gpu_surface *s, const struct gpu_rect *r, uint32_t *dst);

struct gpu_cursor {
	bool visible;
	uint32_t x, y, hot_x, hot_y;
	struct gpu_resource
		*next; /* its image comes from there as soon as it is read back; referenced, or NULL */
	uint32_t image[GPU_CURSOR * GPU_CURSOR]; /* a8r8g8b8, premultiplied */
};

struct gpu_scanout {
	struct gpu_surface s;
	struct gpu_cursor *cursor; /* NULL: never set */
};

struct gpu_mode {
	uint32_t w, h;
	bool enabled;
};

/* ---- pixels (gpu-pixel.c) ---- */

int gpu_pixel_load(void);
bool gpu_format_known(uint32_t format);
bool gpu_format_is_xrgb(uint32_t format); /* can be shown as it is */
/* Rows of w pixels in that format → x8r8g8b8 (or, with alpha, a8r8g8b8). Strides in bytes, multiples of 4. */
void gpu_pixel_convert(uint32_t format, const uint8_t *src, size_t src_stride, uint32_t *dst,
	size_t dst_stride, uint32_t w, uint32_t h, bool alpha);
/* Draws the cursor over a picture of w by h. */
void gpu_pixel_blend_cursor(uint32_t *dst, uint32_t w, uint32_t h, const struct gpu_cursor *c);

/* ---- edid (gpu-edid.c) ---- */

enum { GPU_EDID_MAX = 256 };

/* Describes a monitor with that mode; returns the bytes written. number: of the scanout, its serial number. */
size_t gpu_edid(uint8_t out[GPU_EDID_MAX], uint32_t w, uint32_t h, unsigned number);

/* ---- screenshots (gpu-shot.c) ---- */

struct gpu_shot;

/* 0 and NULL when none are wanted. -errno, logged. */
int gpu_shot_open(struct gpu *g, const char *dir, uint64_t interval_ms, struct gpu_shot **out);
/* Something changed on this scanout. */
void gpu_shot_dirty(struct gpu_shot *shot, unsigned scanout);
/* Writes what is not written yet, before the scanouts go. */
void gpu_shot_finish(struct gpu_shot *shot);
void gpu_shot_close(struct gpu_shot *shot);
/* screenshot, for the control socket */
extern const struct command_spec gpu_commands[];

/* ---- the device (gpu.c) ---- */

/* A command while it is out; in element->req. */
struct gpu_request {
	struct element *e;
	struct virtio_gpu_ctrl_hdr hdr; /* as the driver wrote it */
	struct gpu_request *next;	/* in a list of those that wait */
	uint32_t arg;			/* scanout that it is about */
	uint32_t status;		/* its answer, when it waits for a fence */
	struct gpu_ticket ticket;	/* of what it waits for */
	struct gpu_resource *res;	/* that it makes, or reads; referenced, or NULL */
	bool in_line;			/* behind the renderer: it is about a picture of its */
};

struct gpu {
	struct gpu_mode mode[GPU_SCANOUTS];
	unsigned nmodes;
	uint64_t max_hostmem, screenshot_ms;
	const char *screenshot_dir, *render_node;
	bool virgl, no_dmabuf;

	struct backend *b;
	struct gpu_resource **bucket;
	size_t nbuckets, nresources; /* nbuckets: a power of two, or 0 */
	uint64_t hostmem;	     /* bytes charged */
	unsigned pictures;	     /* 3D resources that have pixels */
	struct gpu_scanout scanout[GPU_SCANOUTS];
	struct gpu_shot *shot;
	struct gpu_display *display;
	struct gpu_3d *three; /* NULL: no 3D */
	uint64_t work;	      /* bytes of pixels that were moved in this turn */
	struct timer resume;  /* goes on in the next turn */
};

enum { GPU_HELD = 0 }; /* instead of a response type: the answer comes later, or has come */

/* Answers: header and size - sizeof(header) bytes after it, in response, whose header is filled in here. */
void gpu_answer(struct gpu *g, struct gpu_request *r, uint32_t type, void *response, size_t size);
void gpu_answer_display_info(struct gpu *g, struct gpu_request *r);
void gpu_answer_edid(struct gpu *g, struct gpu_request *r, const struct gpu_mode *mode);
/* There is room for more commands. */
void gpu_resume(struct gpu *g);
/* Scanouts that a driver may use. */
unsigned gpu_num_scanouts(const struct gpu *g);

/* A scanout shows something else, or nothing. */
void gpu_scanout_changed(struct gpu *g, unsigned scanout);
/* Does one of these scanouts (a bit mask) show pixels to somebody, not a dmabuf? */
bool gpu_wants_pixels(const struct gpu *g, uint32_t scanouts);
/* Pixels of a scanout changed; r in its coordinates. */
void gpu_scanout_damaged(struct gpu *g, unsigned scanout, const struct gpu_rect *r);
enum gpu_cursor_change { GPU_CURSOR_IMAGE, GPU_CURSOR_MOVED, GPU_CURSOR_HIDDEN };
void gpu_cursor_changed(struct gpu *g, unsigned scanout, enum gpu_cursor_change what);

/* Commands: the value is the response type, or GPU_HELD. c: the command, with its header; rd: what follows it. */
union gpu_command {
	struct virtio_gpu_ctrl_hdr hdr;
	struct virtio_gpu_resource_unref unref;
	struct virtio_gpu_resource_create_2d create_2d;
	struct virtio_gpu_set_scanout set_scanout;
	struct virtio_gpu_resource_flush flush;
	struct virtio_gpu_transfer_to_host_2d transfer_2d;
	struct virtio_gpu_resource_attach_backing attach;
	struct virtio_gpu_resource_detach_backing detach;
	struct virtio_gpu_get_capset_info capset_info;
	struct virtio_gpu_get_capset capset;
	struct virtio_gpu_cmd_get_edid edid;
	struct virtio_gpu_resource_assign_uuid uuid;
	struct virtio_gpu_resource_create_blob create_blob;
	struct virtio_gpu_set_scanout_blob scanout_blob;
	struct virtio_gpu_ctx_create ctx_create;
	struct virtio_gpu_ctx_destroy ctx_destroy;
	struct virtio_gpu_ctx_resource ctx_resource;
	struct virtio_gpu_resource_create_3d create_3d;
	struct virtio_gpu_transfer_host_3d transfer_3d;
	struct virtio_gpu_cmd_submit submit;
	struct virtio_gpu_update_cursor cursor;
};

typedef uint32_t gpu_command_fn(struct gpu *g, struct gpu_request *r, const union gpu_command *c);

gpu_command_fn gpu_cmd_create_2d, gpu_cmd_unref, gpu_cmd_set_scanout, gpu_cmd_flush, gpu_cmd_transfer_2d,
	gpu_cmd_attach_backing, gpu_cmd_detach_backing, gpu_cmd_assign_uuid, gpu_cmd_create_blob,
	gpu_cmd_set_scanout_blob;
void gpu_cmd_cursor(struct gpu *g, const struct virtio_gpu_update_cursor *c);
void gpu_cursor_free(struct gpu *g, unsigned scanout);
/* Shows nothing there. */
void gpu_scanout_disable(struct gpu *g, unsigned scanout);

#endif
