/* SPDX-License-Identifier: MIT */
/*
 * The renderer: a process of its own that runs the guest's OpenGL by virglrenderer, on a GPU of the host, or without one on
 * Mesa's software renderer, surfaceless. It does what the gpu's process says, one thing after the other, and ends when that does;
 * when it crashes, that process goes on.
 *
 * It maps guest memory by itself. virglrenderer keeps translated backing between commands; it looks at it only while it runs a
 * command, and is given all of it anew when the map has changed. What is no memory (any more) is no backing.
 */
#include "gpu-3d.h"

#include <EGL/egl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <virgl/virglrenderer.h>

#include "gpu-renderer-memory.h"
#include "library.h"

enum {
	MAX_NAME = 64,
	MAX_FDS = 16,
	REPLIES = 128,
	POLL_MS = 5,
	FIRST_ROOM = 256 << 10,
};

#define VIRGL_FUNCTIONS(F)                          \
	F(virgl_renderer_init)                      \
	F(virgl_renderer_poll)                      \
	F(virgl_renderer_resource_create)           \
	F(virgl_renderer_resource_unref)            \
	F(virgl_renderer_resource_attach_iov)       \
	F(virgl_renderer_resource_detach_iov)       \
	F(virgl_renderer_resource_get_info)         \
	F(virgl_renderer_resource_set_priv)         \
	F(virgl_renderer_resource_get_priv)         \
	F(virgl_renderer_context_create)            \
	F(virgl_renderer_context_create_with_flags) \
	F(virgl_renderer_context_destroy)           \
	F(virgl_renderer_ctx_attach_resource)       \
	F(virgl_renderer_ctx_detach_resource)       \
	F(virgl_renderer_submit_cmd)                \
	F(virgl_renderer_transfer_read_iov)         \
	F(virgl_renderer_transfer_write_iov)        \
	F(virgl_renderer_get_cap_set)               \
	F(virgl_renderer_fill_caps)                 \
	F(virgl_renderer_create_fence)              \
	F(virgl_renderer_force_ctx_0)               \
	F(virgl_renderer_get_fd_for_texture2)       \
	F(virgl_renderer_execute)                   \
	F(virgl_renderer_get_poll_fd)               \
	F(virgl_set_debug_callback)
#define VIRGL_SYMBOL(name) LIBRARY_SYMBOL(virgl_library, name)

LIBRARY(virgl_library, VIRGL_FUNCTIONS);
static struct virgl_library virgl;

#define EGL_FUNCTIONS(F) F(eglGetCurrentDisplay) F(eglQueryString) F(eglGetProcAddress)
#define EGL_SYMBOL(name) LIBRARY_SYMBOL(egl_library, name)

LIBRARY(egl_library, EGL_FUNCTIONS);
static struct egl_library egl;

struct virgl_box { /* its header leaves this open: a box as in the commands */
	uint32_t x, y, z, w, h, d;
};

/* virglrenderer's private pointer of a resource. */
struct resource {
	struct resource *next, **at; /* in the list of all */
	uint32_t id;
	struct wire_entry *entry; /* of its backing, or NULL */
	uint32_t n;
	bool attached; /* all of it is memory */
	uint8_t *pixels;
	uint64_t size; /* bytes of pixels */
	uint32_t stride;
};

struct renderer {
	int fd;
	uint8_t *in;
	size_t len, room;
	int in_fd[MAX_FDS];
	unsigned nin_fd;
	struct wire_reply out[REPLIES];
	unsigned nout;
	bool exports;	     /* dmabufs */
	void (*flush)(void); /* glFlush */
	const char *render_node;
	uint32_t fence, fenced; /* the last one, and the last one that is done */
	struct renderer_memory memory;
	struct resource *first;
};

/* The gpu's process is gone, or talks nonsense: there is nobody to work for, and drivers crash while they tidy up. */
static void end(int status) __attribute__((noreturn));
static void end(int status)
{
	_exit(status);
}

/* Answers */

static void send_with(struct renderer *r, const void *data, size_t size, int fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr c;
	} u = {.c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	const uint8_t *at = data;

	while (size) {
		struct iovec v = {(void *)(uintptr_t)at, size};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
		ssize_t sent;

		if (fd >= 0) {
			memcpy(CMSG_DATA(&u.c), &fd, sizeof(fd));
			m.msg_control = &u;
			m.msg_controllen = sizeof(u.room);
		}
		sent = sendmsg(r->fd, &m, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			end(0);
		at += sent;
		size -= (size_t)sent;
		fd = -1;
	}
}

static void send_replies(struct renderer *r)
{
	if (r->nout)
		send_with(r, r->out, r->nout * sizeof(r->out[0]), -1);
	r->nout = 0;
}

static struct wire_reply *reply(struct renderer *r, enum wire_reply_type type, uint32_t seq, uint32_t status)
{
	struct wire_reply *m;

	if (r->nout == REPLIES)
		send_replies(r);
	m = &r->out[r->nout++];
	*m = (struct wire_reply){.type = type, .seq = seq, .status = status};
	return m;
}

static void reply_fd(struct renderer *r, struct wire_reply *m, int fd)
{
	send_replies(r);
	m->fds = 1;
	send_with(r, m, sizeof(*m), fd);
	close(fd);
}

static void fence_done(void *cookie, uint32_t fence)
{
	struct renderer *r = cookie;

	r->fenced = fence;
	reply(r, WIRE_FENCED, fence, 0);
}

/* Resources */

static struct resource *find(uint32_t id)
{
	return virgl.virgl_renderer_resource_get_priv(id);
}

static void detach(struct resource *res)
{
	struct iovec *v = NULL;
	int n;

	if (!res->attached)
		return;
	virgl.virgl_renderer_resource_detach_iov((int)res->id, &v, &n);
	free(v);
	res->attached = false;
}

/* Entries may span regions. n: of v, at least; NULL: some of it is no memory. */
static struct iovec *translate(const struct renderer *r, const struct resource *res, unsigned *n)
{
	unsigned room = res->n + RENDERER_MAX_REGIONS, used = 0;
	struct iovec *v = calloc(room, sizeof(*v)), *fit;
	uint32_t i;

	for (i = 0; v && i < res->n; i++) {
		struct wire_entry left = res->entry[i];

		while (left.size) {
			struct iovec piece = renderer_memory_find(&r->memory, left.gpa, left.size);

			if (!piece.iov_len || used == room) {
				free(v);
				return NULL;
			}
			v[used++] = piece;
			left.gpa += piece.iov_len;
			left.size -= piece.iov_len;
		}
	}
	fit = v && used ? realloc(v, used * sizeof(*v)) : NULL;
	*n = used;
	return fit ? fit : v;
}

static void attach(const struct renderer *r, struct resource *res)
{
	unsigned n = 0;
	struct iovec *v = res->entry ? translate(r, res, &n) : NULL;

	res->attached = v && n && virgl.virgl_renderer_resource_attach_iov((int)res->id, v, (int)n) == 0;
	if (!res->attached)
		free(v);
}

static void backing_clear(struct resource *res)
{
	detach(res);
	free(res->entry);
	res->entry = NULL;
	res->n = 0;
}

static void memory_set(struct renderer *r)
{
	for (struct resource *res = r->first; res; res = res->next) {
		detach(res);
		attach(r, res);
	}
}

static void pixels_clear(struct resource *res)
{
	if (res->pixels)
		munmap(res->pixels, res->size);
	res->pixels = NULL;
}

static uint32_t create(struct renderer *r, const struct virtio_gpu_resource_create_3d *c)
{
	struct virgl_renderer_resource_create_args args = {.handle = le32toh(c->resource_id),
		.target = le32toh(c->target),
		.format = le32toh(c->format),
		.bind = le32toh(c->bind),
		.width = le32toh(c->width),
		.height = le32toh(c->height),
		.depth = le32toh(c->depth),
		.array_size = le32toh(c->array_size),
		.last_level = le32toh(c->last_level),
		.nr_samples = le32toh(c->nr_samples),
		.flags = le32toh(c->flags)};
	struct resource *res = calloc(1, sizeof(*res));

	if (!res)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	if (virgl.virgl_renderer_resource_create(&args, NULL, 0) != 0) {
		free(res);
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	res->id = args.handle;
	res->next = r->first;
	res->at = &r->first;
	if (r->first)
		r->first->at = &res->next;
	r->first = res;
	virgl.virgl_renderer_resource_set_priv(res->id, res);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void unref(struct resource *res)
{
	backing_clear(res);
	pixels_clear(res);
	virgl.virgl_renderer_resource_unref(res->id);
	*res->at = res->next;
	if (res->next)
		res->next->at = res->at;
	free(res);
}

static uint32_t transfer(const struct wire *m, const struct virtio_gpu_transfer_host_3d *c, bool to_host)
{
	const struct resource *res = find(m->resource);
	struct virgl_box box = {le32toh(c->box.x), le32toh(c->box.y), le32toh(c->box.z), le32toh(c->box.w),
		le32toh(c->box.h), le32toh(c->box.d)};
	uint32_t level = le32toh(c->level), stride = le32toh(c->stride), layer = le32toh(c->layer_stride);
	uint64_t offset = le64toh(c->offset);
	int err;

	if (!res || !res->attached)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	err = to_host ? virgl.virgl_renderer_transfer_write_iov(
				m->resource, m->ctx, (int)level, stride, layer, &box, offset, NULL, 0)
		      : virgl.virgl_renderer_transfer_read_iov(
				m->resource, m->ctx, level, stride, layer, &box, offset, NULL, 0);
	return err ? VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER : VIRTIO_GPU_RESP_OK_NODATA;
}

/* Pixels */

static void pixels_set(struct resource *res, const struct wire_pixels *p, int fd)
{
	void *map = mmap(NULL, p->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	pixels_clear(res);
	if (map == MAP_FAILED)
		return;
	res->pixels = map;
	res->size = p->size;
	res->stride = p->stride;
}

/* A context that is left is flushed. */
static void flush(const struct renderer *r)
{
	virgl.virgl_renderer_force_ctx_0();
	if (r->flush)
		r->flush();
}

static void read_back(const struct renderer *r, const struct resource *res, const struct gpu_rect *rect)
{
	struct virgl_box box = {rect->x, rect->y, 0, rect->w, rect->h, 1};
	struct iovec v;

	flush(r);
	if (!res || !res->pixels || gpu_rect_empty(rect))
		return;
	v = (struct iovec){res->pixels, res->size};
	if (virgl.virgl_renderer_transfer_read_iov(res->id, 0, 0, res->stride, 0, &box,
		    (uint64_t)rect->y * res->stride + (uint64_t)rect->x * GPU_PIXEL, &v, 1) != 0)
		log_guest_warn("resource %u could not be read back", res->id);
}

/* Pictures that others look at */

/* Asked for what it lacks, virglrenderer jumps to address 0. */
static void find_export(struct renderer *r, bool wanted)
{
	static const struct library_symbol symbols[] = {EGL_FUNCTIONS(EGL_SYMBOL)};
	const char *found, *extension = "EGL_MESA_image_dma_buf_export";
	EGLDisplay display;

	if (!wanted || library_load("libEGL.so.1", symbols, ARRAY_SIZE(symbols), &egl) != 0)
		return;
	virgl.virgl_renderer_force_ctx_0();
	display = egl.eglGetCurrentDisplay();
	found = display != EGL_NO_DISPLAY ? egl.eglQueryString(display, EGL_EXTENSIONS) : NULL;
	found = found ? strstr(found, extension) : NULL;
	r->exports = found && (found[strlen(extension)] == ' ' || !found[strlen(extension)]);
	r->flush = (void (*)(void))egl.eglGetProcAddress("glFlush");
	log_debug("renderer: pictures %s as dmabufs", r->exports ? "go out" : "do not go out");
}

/* Of a picture that was made for scanouts on a render node: with its modifier. Returns the descriptor, or -1. */
static int export_buffer(uint32_t id, struct wire_reply *m)
{
	struct virgl_renderer_export_query query = {
		.hdr = {VIRGL_RENDERER_STRUCTURE_TYPE_EXPORT_QUERY, 0, sizeof(query)},
		.in_resource_id = id,
		.in_export_fds = 1};
	unsigned i;

	if (virgl.virgl_renderer_execute(&query, sizeof(query)) != 0 || !query.out_num_fds)
		return -1;
	m->dmabuf.stride = query.out_strides[0];
	m->dmabuf.fourcc = query.out_fourcc;
	m->dmabuf.modifier = query.out_modifier;
	if (query.out_num_fds == 1 && query.out_fds[0] >= 0 && !query.out_offsets[0])
		return query.out_fds[0];
	for (i = 0; i < MIN(query.out_num_fds, (uint32_t)ARRAY_SIZE(query.out_fds)); i++)
		fd_close(&query.out_fds[i]);
	return -1;
}

static int export_texture(const struct virgl_renderer_resource_info *info, struct wire_reply *m)
{
	int stride = 0, offset = 0, fd = -1;

	virgl.virgl_renderer_force_ctx_0();
	if (virgl.virgl_renderer_get_fd_for_texture2(info->tex_id, &fd, &stride, &offset) != 0 || fd < 0 ||
		stride <= 0 || offset) {
		fd_close(&fd); /* one without a descriptor is a success to some drivers */
		return -1;
	}
	m->dmabuf.stride = (uint32_t)stride;
	m->dmabuf.fourcc = (uint32_t)info->drm_fourcc;
	m->dmabuf.modifier = GPU_MODIFIER_UNKNOWN;
	return fd;
}

static void export(struct renderer *r, const struct wire *w)
{
	struct wire_reply m = {.type = WIRE_DONE, .seq = w->seq, .status = VIRTIO_GPU_RESP_OK_NODATA};
	struct virgl_renderer_resource_info info = {0};
	int fd = -1;

	if (r->exports && find(w->resource) &&
		virgl.virgl_renderer_resource_get_info((int)w->resource, &info) == 0) {
		fd = export_buffer(w->resource, &m);
		if (fd < 0)
			fd = export_texture(&info, &m);
	}
	flush(r);
	m.dmabuf.w = info.width;
	m.dmabuf.h = info.height;
	m.dmabuf.flags = info.flags;
	if (fd >= 0)
		reply_fd(r, &m, fd);
	else
		reply(r, WIRE_DONE, w->seq, VIRTIO_GPU_RESP_OK_NODATA);
}

/* Messages */

static uint32_t context_create(uint32_t id, const struct virtio_gpu_ctx_create *c)
{
	uint32_t n = MIN(le32toh(c->nlen), (uint32_t)MAX_NAME - 1), set = le32toh(c->context_init);
	char name[MAX_NAME] = "";
	int err;

	memcpy(name, c->debug_name, n);
	err = set ? virgl.virgl_renderer_context_create_with_flags(id, set, n, name)
		  : virgl.virgl_renderer_context_create(id, n, name);
	return err ? VIRTIO_GPU_RESP_ERR_UNSPEC : VIRTIO_GPU_RESP_OK_NODATA;
}

static uint32_t submit(struct renderer *r, const struct wire *m, const void *commands)
{
	send_replies(r); /* this may take long */
	if (!m->arg)
		return VIRTIO_GPU_RESP_OK_NODATA;
	if (virgl.virgl_renderer_submit_cmd(
		    (void *)(uintptr_t)commands, (int)m->ctx, (int)(m->arg / sizeof(uint32_t))))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void backing_set(
	const struct renderer *r, struct resource *res, const struct wire_entry *entry, uint32_t n)
{
	backing_clear(res);
	res->entry = malloc(n * sizeof(*entry));
	if (!res->entry)
		return;
	memcpy(res->entry, entry, n * sizeof(*entry));
	res->n = n;
	attach(r, res);
}

/* About a resource; one that could not be made is none. */
static void about(const struct renderer *r, const struct wire *m, const void *payload, int fd)
{
	struct resource *res = find(m->resource);

	if (!res)
		return;
	switch (m->type) {
	case WIRE_CTX_ATTACH:
		virgl.virgl_renderer_ctx_attach_resource((int)m->ctx, (int)m->resource);
		break;
	case WIRE_CTX_DETACH:
		virgl.virgl_renderer_ctx_detach_resource((int)m->ctx, (int)m->resource);
		break;
	case WIRE_UNREF:
		unref(res);
		break;
	case WIRE_BACKING:
		backing_set(r, res, payload, m->arg);
		break;
	case WIRE_BACKING_NONE:
		backing_clear(res);
		break;
	case WIRE_PIXELS:
		pixels_set(res, payload, fd);
		break;
	case WIRE_PIXELS_NONE:
		pixels_clear(res);
		break;
	}
}

static uint32_t run(struct renderer *r, const struct wire *m, const void *payload, int fd)
{
	switch (m->type) {
	case WIRE_MEMORY_BEGIN: /* nothing refers to the old one any more */
		for (struct resource *res = r->first; res; res = res->next)
			detach(res);
		renderer_memory_clear(&r->memory);
		break;
	case WIRE_MEMORY:
		renderer_memory_add(&r->memory, payload, fd);
		break;
	case WIRE_MEMORY_END:
		memory_set(r);
		break;
	case WIRE_CTX_CREATE:
		return context_create(m->ctx, payload);
	case WIRE_CTX_DESTROY:
		virgl.virgl_renderer_context_destroy(m->ctx);
		break;
	case WIRE_CREATE:
		return create(r, payload);
	case WIRE_TRANSFER_TO:
	case WIRE_TRANSFER_FROM:
		return transfer(m, payload, m->type == WIRE_TRANSFER_TO);
	case WIRE_SUBMIT:
		return submit(r, m, payload);
	case WIRE_READ:
		read_back(r, find(m->resource), payload);
		break;
	default:
		about(r, m, payload, fd);
		break;
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void fence(struct renderer *r, uint32_t seq)
{
	r->fence = seq;
	virgl.virgl_renderer_force_ctx_0();
	if (virgl.virgl_renderer_create_fence((int)seq, 0) != 0)
		fence_done(r, seq);
}

/* Bytes that a payload has at least; what is longer says so by its arg. */
static size_t payload_size(const struct wire *m)
{
	static const size_t sizes[WIRE_TYPES] = {
		[WIRE_HELLO] = sizeof(struct wire_hello),
		[WIRE_MEMORY] = sizeof(struct wire_region),
		[WIRE_CTX_CREATE] = sizeof(struct virtio_gpu_ctx_create),
		[WIRE_CREATE] = sizeof(struct virtio_gpu_resource_create_3d),
		[WIRE_TRANSFER_TO] = sizeof(struct virtio_gpu_transfer_host_3d),
		[WIRE_TRANSFER_FROM] = sizeof(struct virtio_gpu_transfer_host_3d),
		[WIRE_PIXELS] = sizeof(struct wire_pixels),
		[WIRE_READ] = sizeof(struct gpu_rect),
	};

	if (m->type == WIRE_SUBMIT)
		return m->arg;
	if (m->type == WIRE_BACKING)
		return m->arg * sizeof(struct wire_entry);
	return m->type < WIRE_TYPES ? sizes[m->type] : SIZE_MAX / 2;
}

static int take_fd(struct renderer *r)
{
	int fd = r->nin_fd ? r->in_fd[0] : -1;

	if (r->nin_fd)
		memmove(r->in_fd, r->in_fd + 1, --r->nin_fd * sizeof(int));
	return fd;
}

static void message(struct renderer *r, const struct wire *m)
{
	CLEANUP_FD int fd = m->flags & WIRE_FD ? take_fd(r) : -1;
	uint32_t status;

	if (m->size < sizeof(*m) + payload_size(m) || m->type == WIRE_HELLO)
		end(1);
	if (m->type == WIRE_EXPORT) {
		export(r, m);
		return;
	}
	status = run(r, m, m + 1, fd);
	if (m->flags & WIRE_ANSWER)
		reply(r, WIRE_DONE, m->seq, status);
	if (m->flags & WIRE_FENCE)
		fence(r, m->seq);
}

/* Listening */

static void keep_fds(struct renderer *r, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t i, n = c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (i = 0; i < n; i++) {
			if (r->nin_fd == MAX_FDS)
				end(1);
			memcpy(&r->in_fd[r->nin_fd++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		}
	}
}

/* Waits for bytes. */
static void hear(struct renderer *r)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec v = {r->in + r->len, r->room - r->len};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(r->fd, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		end(0);
	keep_fds(r, &m);
	r->len += (size_t)n;
}

/* The whole message at the start of p; NULL: it is not all there. */
static const struct wire *whole(struct renderer *r, size_t at)
{
	const struct wire *m = (const void *)(r->in + at);

	if (r->len - at < sizeof(*m))
		return NULL;
	if (m->size < sizeof(*m) || m->size > WIRE_MAX || m->size % WIRE_ALIGN)
		end(1);
	return m->size <= r->len - at ? m : NULL;
}

static void messages(struct renderer *r)
{
	const struct wire *m;
	size_t at = 0;

	for (; (m = whole(r, at)); at += m->size)
		message(r, m);
	r->len -= at;
	memmove(r->in, r->in + at, r->len);
	if (r->len < sizeof(*m) || ((const struct wire *)(void *)r->in)->size <= r->room)
		return;
	r->room = ((const struct wire *)(void *)r->in)->size;
	r->in = realloc(r->in, r->room);
	if (!r->in)
		end(1);
}

static void serve(struct renderer *r) __attribute__((noreturn));
static void serve(struct renderer *r)
{
	struct pollfd p[2] = {{.fd = r->fd, .events = POLLIN},
		{.fd = virgl.virgl_renderer_get_poll_fd(), .events = POLLIN}};

	for (;;) {
		bool by_time = p[1].fd < 0 && r->fence != r->fenced;

		send_replies(r);
		p[0].revents = p[1].revents = 0;
		if (poll(p, 2, by_time ? POLL_MS : -1) < 0 && errno != EINTR)
			end(1);
		if (by_time || p[1].revents)
			virgl.virgl_renderer_poll();
		if (p[0].revents) {
			hear(r);
			messages(r);
		}
	}
}

/* Starting it */

static void virgl_says(const char *fmt, va_list ap)
{
	char text[200];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	if (n > 0 && (size_t)n < sizeof(text) && text[n - 1] == '\n')
		text[n - 1] = 0;
	log_guest_info("renderer: %s", text);
}

static int get_drm_fd(void *cookie)
{
	const struct renderer *r = cookie;

	return *r->render_node ? open(r->render_node, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
}

/* What drivers print while they look for a GPU is nobody's business. Returns the place to print to later. */
static int silence(void)
{
	int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	fd_close(&null);
	return kept;
}

static void init(struct renderer *r)
{
	static const struct library_symbol symbols[] = {VIRGL_FUNCTIONS(VIRGL_SYMBOL)};
	static struct virgl_renderer_callbacks callbacks = {
		.version = 2, .write_fence = fence_done, .get_drm_fd = get_drm_fd};
	int flags = VIRGL_RENDERER_USE_EGL | VIRGL_RENDERER_THREAD_SYNC;
	uint32_t trial = UINT32_MAX;

	if (!*r->render_node)
		flags |= VIRGL_RENDERER_USE_SURFACELESS;
	if (library_load("libvirglrenderer.so.1", symbols, ARRAY_SIZE(symbols), &virgl) != 0)
		end(1);
	virgl.virgl_set_debug_callback(virgl_says);
	if (virgl.virgl_renderer_init(r, flags, &callbacks) != 0 ||
		virgl.virgl_renderer_context_create(trial, 5, "trial") != 0)
		end(1);
	virgl.virgl_renderer_context_destroy(trial);
}

static void ready(struct renderer *r)
{
	struct wire_reply m = {.type = WIRE_READY, .status = r->exports};
	int fd = memfd_create("capsets", MFD_CLOEXEC);
	uint32_t version, size;

	for (unsigned i = 0; i < WIRE_CAPSETS; i++) {
		uint32_t set = VIRTIO_GPU_CAPSET_VIRGL + i;
		CLEANUP_FREE void *data = NULL;

		virgl.virgl_renderer_get_cap_set(set, &version, &size);
		data = size && size <= WIRE_CAPSET_MAX ? calloc(1, size) : NULL;
		if (!data)
			break;
		virgl.virgl_renderer_fill_caps(set, version, data);
		if (write(fd, data, size) != (ssize_t)size)
			end(1);
		m.capset[i] = (struct wire_capset){version, size};
	}
	if (!m.capset[0].size)
		end(1);
	reply_fd(r, &m, fd);
}

int gpu_3d_helper(void)
{
	static struct renderer r = {.fd = HELPER_FD};
	struct wire_hello hello;
	const struct wire *m;
	int kept;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	fcntl(r.fd, F_SETFD, FD_CLOEXEC);
	r.room = FIRST_ROOM;
	r.in = malloc(r.room);
	if (!r.in)
		return 1;
	while (!(m = whole(&r, 0)))
		hear(&r);
	if (m->type != WIRE_HELLO || m->size < sizeof(*m) + sizeof(hello))
		return 1;
	memcpy(&hello, m + 1, sizeof(hello));
	hello.render_node[sizeof(hello.render_node) - 1] = 0;
	r.render_node = hello.render_node;
	r.len -= m->size;
	memmove(r.in, r.in + m->size, r.len);
	log_set_level(hello.log_level);
	kept = silence();
	init(&r);
	find_export(&r, !hello.no_dmabuf);
	if (!hello.quiet) {
		dup2(kept, STDERR_FILENO);
		dup2(kept, STDOUT_FILENO);
	}
	fd_close(&kept);
	ready(&r);
	messages(&r);
	serve(&r);
}
