/* SPDX-License-Identifier: MIT */
/*
 * The 3D commands (virtio 1.3, 5.7.6.8), by virglrenderer, which runs the guest's OpenGL on a GPU of the host, or without one
 * on Mesa's software renderer, surfaceless.
 *
 * 2D resources stay pictures of ours, whatever the renderer does. A 3D resource that is shown, or is a cursor, is read back
 * into such a picture, and from there takes the way of all pixels; only where the renderer can export it as a dmabuf the
 * front-end's display looks at the renderer's own.
 *
 * The renderer keeps translated backing between commands. It looks at it only while it runs a command of ours; before each we
 * look whether the memory map has changed since, and translate all of it anew if so.
 *
 * Fences of what the renderer does go through it, in one line, whatever ring they name: Linux takes a fence that is done for all
 * before it. 2D commands stand in that line too, but only while somebody is there: a renderer with nothing to do holds up nothing.
 */
#include "gpu-3d.h"

#include <EGL/egl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <virgl/virglrenderer.h>

#include "library.h"

enum {
	MAX_CONTEXTS = 256,
	MAX_NAME = 64,
	MAX_SEGMENTS_MORE = 512, /* backing entries may span memory regions */
	POLL_MS = 5,
	STOP_MS = 2000,
	PROBE_S = 10,
};

#define VIRGL_FUNCTIONS(F)                          \
	F(virgl_renderer_init)                      \
	F(virgl_renderer_poll)                      \
	F(virgl_renderer_resource_create)           \
	F(virgl_renderer_resource_unref)            \
	F(virgl_renderer_resource_attach_iov)       \
	F(virgl_renderer_resource_detach_iov)       \
	F(virgl_renderer_resource_get_info)         \
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
	F(virgl_renderer_cleanup)                   \
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

struct gpu_3d {
	struct gpu *g;
	const char *render_node;
	struct watch watch;  /* the renderer's fences */
	struct timer poll;   /* where it has no descriptor for that */
	struct timer expiry; /* a queue that stops does not wait for ever */
	bool by_timer;
	uint32_t last_fence;
	struct gpu_request *first, **last; /* that wait, in the order of their fences */
	uint64_t generation;		   /* of the memory that backing was translated with */
	uint32_t context[MAX_CONTEXTS];
	unsigned ncontexts, ncapsets;
	bool exports;	     /* dmabufs */
	void (*flush)(void); /* glFlush */
	uint32_t *commands;  /* a copy of the commands that are run */
	size_t room;	     /* bytes of it */
};

static struct gpu_3d *of(struct gpu *g)
{
	return g->three;
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
	const struct gpu_3d *t = cookie;

	return t->render_node ? open(t->render_node, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
}

static void fence_done(void *cookie, uint32_t fence);

/* NULL: surfaceless. */
static bool init(struct gpu_3d *t, const char *render_node)
{
	static struct virgl_renderer_callbacks callbacks;
	int flags = VIRGL_RENDERER_USE_EGL | VIRGL_RENDERER_THREAD_SYNC;

	t->render_node = render_node;
	callbacks = (struct virgl_renderer_callbacks){
		.version = 2, .write_fence = fence_done, .get_drm_fd = get_drm_fd};
	if (!render_node)
		flags |= VIRGL_RENDERER_USE_SURFACELESS;
	return virgl.virgl_renderer_init(t, flags, &callbacks) == 0;
}

static int load(void)
{
	static const struct library_symbol symbols[] = {VIRGL_FUNCTIONS(VIRGL_SYMBOL)};

	return library_load("libvirglrenderer.so.1", symbols, ARRAY_SIZE(symbols), &virgl);
}

static void try_in_child(const char *render_node)
{
	struct gpu_3d t = {0};
	uint32_t version, size = 0;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	for (int sig = 1; sig < SIGSYS; sig++)
		signal(sig, SIG_DFL);
	alarm(PROBE_S);
	if (null >= 0) {
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
	if (load() != 0 || !init(&t, render_node))
		_exit(1);
	virgl.virgl_renderer_get_cap_set(VIRTIO_GPU_CAPSET_VIRGL, &version, &size);
	_exit(size && virgl.virgl_renderer_context_create(1, 5, "probe") == 0 ? 0 : 1);
}

/* Does it work? Asked in a child process: drivers crash, and virglrenderer itself does where EGL fails. */
static bool works(const char *render_node)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		try_in_child(render_node);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The first render node that works; empty: none does, but surfaceless. False: nothing does. */
static bool find(char *path, size_t size)
{
	DIR *dir = opendir("/dev/dri");
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "renderD", 7) != 0)
			continue;
		snprintf(path, size, "/dev/dri/%s", entry->d_name);
		found = access(path, R_OK | W_OK) == 0 && works(path);
	}
	if (dir)
		closedir(dir);
	if (found)
		return true;
	path[0] = 0;
	return works(NULL);
}

static int start(struct gpu_3d *t, const char *render_node)
{
	int err = load();
	char found[300] = "";
	uint32_t version, size, set;

	if (err)
		return err;
	virgl.virgl_set_debug_callback(virgl_says);
	if (!render_node && find(found, sizeof(found)))
		err = !init(t, found[0] ? found : NULL);
	else
		err = !render_node || !works(render_node) || !init(t, render_node);
	t->render_node = NULL;
	if (err) {
		log_error("--virgl: no OpenGL context could be created %s%s", render_node ? "on " : "here",
			render_node ? render_node : "");
		return -ENODEV;
	}
	for (set = VIRTIO_GPU_CAPSET_VIRGL; set <= VIRTIO_GPU_CAPSET_VIRGL2; set++) {
		virgl.virgl_renderer_get_cap_set(set, &version, &size);
		if (!size)
			break;
		t->ncapsets++;
	}
	return 0;
}

bool gpu_3d_probe(void)
{
	char found[300];

	return find(found, sizeof(found));
}

/* Fences */

static void fence_done(void *cookie, uint32_t fence)
{
	struct gpu_3d *t = cookie;
	struct gpu_request *r;

	while ((r = t->first) && (int32_t)(fence - r->arg) >= 0) {
		struct virtio_gpu_ctrl_hdr hdr;

		t->first = r->next;
		if (!t->first)
			t->last = &t->first;
		gpu_answer(t->g, r, r->status, &hdr, sizeof(hdr));
	}
}

static void renderer_ready(struct watch *w, uint32_t events)
{
	(void)w;
	(void)events;
	virgl.virgl_renderer_poll();
}

static void poll_expired(struct timer *timer)
{
	struct gpu_3d *t = container_of(timer, struct gpu_3d, poll);

	virgl.virgl_renderer_poll();
	if (t->first)
		timer_arm_in(t->g->b->loop, &t->poll, POLL_MS * UINT64_C(1000000));
}

void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	r->status = status;
	r->arg = ++t->last_fence;
	r->next = NULL;
	*t->last = r;
	t->last = &r->next;
	virgl.virgl_renderer_force_ctx_0();
	if (virgl.virgl_renderer_create_fence((int)r->arg, 0) != 0)
		fence_done(t, r->arg);
	else if (t->by_timer && !t->poll.at)
		timer_arm_in(t->g->b->loop, &t->poll, POLL_MS * UINT64_C(1000000));
}

static void expired(struct timer *timer)
{
	struct gpu_3d *t = container_of(timer, struct gpu_3d, expiry);

	if (t->first)
		log_warn("the renderer did not finish in time");
	fence_done(t, t->last_fence);
}

bool gpu_3d_waits(const struct gpu_3d *t)
{
	return t->first;
}

void gpu_3d_give_up(struct gpu_3d *t)
{
	virgl.virgl_renderer_poll();
	if (t->first)
		timer_arm_in(t->g->b->loop, &t->expiry, STOP_MS * UINT64_C(1000000));
}

/* Backing */

uint32_t gpu_3d_attach_backing(struct gpu_resource *res)
{
	unsigned max = res->backing.n + MAX_SEGMENTS_MORE, n;
	struct backend_memory memory;
	struct iovec *v = calloc(max, sizeof(*v)), *fit;

	if (!v || !backend_memory_get(res->g->b, &memory)) {
		free(v);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	n = gpu_backing_iovec(res, &memory, v, max);
	backend_memory_put(&memory);
	fit = n ? realloc(v, n * sizeof(*v)) : NULL;
	v = fit ? fit : v;
	if (!n || virgl.virgl_renderer_resource_attach_iov((int)res->id, v, (int)n) != 0) {
		log_guest_warn("resource %u: its backing is no guest memory", res->id);
		free(v);
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	res->attached = true;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_detach_backing(struct gpu_resource *res)
{
	struct iovec *v = NULL;
	int n;

	if (!res->attached)
		return;
	virgl.virgl_renderer_resource_detach_iov((int)res->id, &v, &n);
	free(v);
	res->attached = false;
}

/* Before the renderer may look at guest memory. */
static void refresh_backing(struct gpu *g)
{
	uint64_t generation = backend_memory_generation(g->b);
	struct gpu_resource *res;
	size_t i;

	if (of(g)->generation == generation)
		return;
	of(g)->generation = generation;
	for (i = 0; i < g->nbuckets; i++)
		for (res = g->bucket[i]; res; res = res->next) {
			if (res->kind != GPU_RESOURCE_3D || !res->backing.entry)
				continue;
			gpu_3d_detach_backing(res);
			gpu_3d_attach_backing(res);
		}
}

/* What the renderer may have written, when that is logged. NULL: to any resource. */
static void log_writes(struct gpu *g, const struct gpu_resource *only)
{
	struct backend_memory memory;
	const struct gpu_resource *res;
	size_t i;

	if (!backend_memory_get(g->b, &memory))
		return;
	for (i = 0; memory.log && i < g->nbuckets; i++)
		for (res = g->bucket[i]; res; res = res->next)
			if (res->attached && (!only || res == only))
				gpu_backing_wrote(res, &memory);
	backend_memory_put(&memory);
}

/* Capabilities */

uint32_t gpu_cmd_capset_info(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	uint32_t index = le32toh(c->capset_info.capset_index), version = 0, size = 0;
	struct virtio_gpu_resp_capset_info info = {0};

	if (index >= of(g)->ncapsets)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	virgl.virgl_renderer_get_cap_set(VIRTIO_GPU_CAPSET_VIRGL + index, &version, &size);
	info.capset_id = htole32(VIRTIO_GPU_CAPSET_VIRGL + index);
	info.capset_max_version = htole32(version);
	info.capset_max_size = htole32(size);
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_CAPSET_INFO, &info, sizeof(info));
	return GPU_HELD;
}

uint32_t gpu_cmd_capset(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	uint32_t id = le32toh(c->capset.capset_id), wanted = le32toh(c->capset.capset_version);
	uint32_t version = 0, size = 0;
	CLEANUP_FREE struct virtio_gpu_resp_capset *answer = NULL;

	if (id < VIRTIO_GPU_CAPSET_VIRGL || id - VIRTIO_GPU_CAPSET_VIRGL >= of(g)->ncapsets)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	virgl.virgl_renderer_get_cap_set(id, &version, &size);
	if (wanted > version)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	answer = calloc(1, sizeof(*answer) + size);
	if (!answer)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	virgl.virgl_renderer_fill_caps(id, wanted, answer->capset_data);
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_CAPSET, answer, sizeof(*answer) + size);
	return GPU_HELD;
}

unsigned gpu_3d_num_capsets(const struct gpu_3d *t)
{
	return t->ncapsets;
}

/* Contexts */

static unsigned context_find(const struct gpu_3d *t, uint32_t id)
{
	unsigned i = 0;

	while (i < t->ncontexts && t->context[i] != id)
		i++;
	return i;
}

static bool context_known(const struct gpu_3d *t, uint32_t id)
{
	return id && context_find(t, id) < t->ncontexts;
}

uint32_t gpu_cmd_ctx_create(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = of(g);
	uint32_t id = le32toh(r->hdr.ctx_id), n = MIN(le32toh(c->ctx_create.nlen), (uint32_t)MAX_NAME - 1);
	uint32_t set = backend_has(g->b, VIRTIO_GPU_F_CONTEXT_INIT) ? le32toh(c->ctx_create.context_init) : 0;
	int err;
	char name[MAX_NAME] = "";

	if (!id || context_known(t, id))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (set > t->ncapsets) /* they are numbered from 1 */
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (t->ncontexts == MAX_CONTEXTS)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	memcpy(name, c->ctx_create.debug_name, n);
	err = set ? virgl.virgl_renderer_context_create_with_flags(id, set, n, name)
		  : virgl.virgl_renderer_context_create(id, n, name);
	if (err)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	t->context[t->ncontexts++] = id;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_cmd_ctx_destroy(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = of(g);
	uint32_t id = le32toh(r->hdr.ctx_id);

	(void)c;
	if (!context_known(t, id))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	virgl.virgl_renderer_context_destroy(id);
	t->context[context_find(t, id)] = t->context[t->ncontexts - 1];
	t->ncontexts--;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

/* 2D resources and blobs are nothing to the renderer; Linux attaches every one that a program opens. */
static uint32_t context_resource(struct gpu *g, struct gpu_request *r, uint32_t resource, bool attach)
{
	struct gpu_resource *res = gpu_resource_find(g, resource);
	uint32_t id = le32toh(r->hdr.ctx_id);

	if (!context_known(of(g), id))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (res->kind == GPU_RESOURCE_3D && attach)
		virgl.virgl_renderer_ctx_attach_resource((int)id, (int)res->id);
	else if (res->kind == GPU_RESOURCE_3D)
		virgl.virgl_renderer_ctx_detach_resource((int)id, (int)res->id);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_cmd_ctx_attach(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return context_resource(g, r, le32toh(c->ctx_resource.resource_id), true);
}

uint32_t gpu_cmd_ctx_detach(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return context_resource(g, r, le32toh(c->ctx_resource.resource_id), false);
}

/* Resources */

/* An upper bound of the bytes of a pixel: the numbers are Gallium's, in which formats of 32 bits a channel come in groups. */
static uint64_t pixel_bytes(uint32_t format)
{
	if (gpu_format_known(format) || format < 24 || (format >= 64 && format < 87) ||
		(format >= 95 && format < 150))
		return 4;
	return 16;
}

static uint64_t estimate(const struct virtio_gpu_resource_create_3d *c)
{
	uint64_t size = (uint64_t)le32toh(c->width) * MAX(le32toh(c->height), 1u);

	if (!le32toh(c->target)) /* a buffer: bytes */
		return le32toh(c->width);
	if (le32toh(c->width) > 1u << 20 || le32toh(c->height) > 1u << 20 || le32toh(c->depth) > 1u << 16 ||
		le32toh(c->array_size) > 1u << 16 || le32toh(c->nr_samples) > 64)
		return UINT64_MAX / 2;
	if (__builtin_mul_overflow(size, (uint64_t)MAX(le32toh(c->depth), 1u), &size) ||
		__builtin_mul_overflow(size, (uint64_t)MAX(le32toh(c->array_size), 1u), &size) ||
		__builtin_mul_overflow(
			size, MAX(le32toh(c->nr_samples), 1u) * pixel_bytes(le32toh(c->format)), &size))
		return UINT64_MAX / 2;
	return le32toh(c->last_level) ? size / 3 * 4 : size;
}

uint32_t gpu_cmd_create_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	const struct virtio_gpu_resource_create_3d *d = &c->create_3d;
	uint32_t id = le32toh(d->resource_id), status;
	struct gpu_resource *res = gpu_resource_new(g, id, GPU_RESOURCE_3D, estimate(d), &status);
	struct virgl_renderer_resource_create_args args = {.handle = id,
		.target = le32toh(d->target),
		.format = le32toh(d->format),
		.bind = le32toh(d->bind),
		.width = le32toh(d->width),
		.height = le32toh(d->height),
		.depth = le32toh(d->depth),
		.array_size = le32toh(d->array_size),
		.last_level = le32toh(d->last_level),
		.nr_samples = le32toh(d->nr_samples),
		.flags = le32toh(d->flags)};

	(void)r;
	if (!res)
		return status;
	res->format = args.format;
	res->width = args.width;
	res->height = args.height;
	if (virgl.virgl_renderer_resource_create(&args, NULL, 0) == 0) {
		res->in_renderer = true;
		return VIRTIO_GPU_RESP_OK_NODATA;
	}
	gpu_resource_destroy(res);
	return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
}

void gpu_3d_destroy(struct gpu_resource *res)
{
	gpu_3d_detach_backing(res);
	if (res->in_renderer)
		virgl.virgl_renderer_resource_unref(res->id);
	res->in_renderer = false;
}

static uint32_t transfer_3d(
	struct gpu *g, struct gpu_request *r, const struct virtio_gpu_transfer_host_3d *c, bool to_host)
{
	struct gpu_resource *res = gpu_resource_find(g, le32toh(c->resource_id));
	uint32_t ctx = le32toh(r->hdr.ctx_id);
	struct virgl_box box = {le32toh(c->box.x), le32toh(c->box.y), le32toh(c->box.z), le32toh(c->box.w),
		le32toh(c->box.h), le32toh(c->box.d)};
	int err;

	if (!res)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (ctx && !context_known(of(g), ctx))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (res->kind != GPU_RESOURCE_3D)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	g->work += (uint64_t)box.w * box.h * box.d * GPU_PIXEL;
	refresh_backing(g);
	if (!res->attached)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (to_host) {
		err = virgl.virgl_renderer_transfer_write_iov(res->id, ctx, (int)le32toh(c->level),
			le32toh(c->stride), le32toh(c->layer_stride), &box, le64toh(c->offset), NULL, 0);
	} else {
		err = virgl.virgl_renderer_transfer_read_iov(res->id, ctx, le32toh(c->level),
			le32toh(c->stride), le32toh(c->layer_stride), &box, le64toh(c->offset), NULL, 0);
		log_writes(g, res);
	}
	return err ? VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER : VIRTIO_GPU_RESP_OK_NODATA;
}

uint32_t gpu_cmd_transfer_to_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return transfer_3d(g, r, &c->transfer_3d, true);
}

uint32_t gpu_cmd_transfer_from_3d(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	return transfer_3d(g, r, &c->transfer_3d, false);
}

/* The renderer reads its commands more than once: from a copy that the guest cannot change. */
uint32_t gpu_cmd_submit(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	struct gpu_3d *t = of(g);
	uint32_t size = le32toh(c->submit.size), ctx = le32toh(r->hdr.ctx_id);
	int err;

	if (!context_known(t, ctx))
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	if (size > r->e->rd.left || size % sizeof(uint32_t))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (size > t->room) {
		uint32_t *more = size <= g->max_hostmem ? realloc(t->commands, size) : NULL;

		if (!more)
			return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
		t->commands = more;
		t->room = size;
	}
	refresh_backing(g);
	cursor_get(&r->e->rd, t->commands, size);
	err = size ? virgl.virgl_renderer_submit_cmd(t->commands, (int)ctx, (int)(size / sizeof(uint32_t)))
		   : 0;
	log_writes(g, NULL);
	return err ? VIRTIO_GPU_RESP_ERR_UNSPEC : VIRTIO_GPU_RESP_OK_NODATA;
}

/* Pixels */

uint32_t gpu_3d_prepare(struct gpu_resource *res)
{
	uint64_t size = (uint64_t)res->width * res->height * GPU_PIXEL;

	if (res->pixels)
		return VIRTIO_GPU_RESP_OK_NODATA;
	if (!gpu_format_known(res->format) || !res->width || !res->height || res->width > GPU_MAX_SIDE ||
		res->height > GPU_MAX_SIDE)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!gpu_charge(res->g, size))
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	res->pixels = calloc(1, size);
	if (!res->pixels) {
		gpu_uncharge(res->g, size);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	res->charge += size;
	res->size = size;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_read(struct gpu_resource *res, const struct gpu_rect *r)
{
	uint32_t stride = res->width * GPU_PIXEL;
	struct virgl_box box = {r->x, r->y, 0, r->w, r->h, 1};
	struct iovec v = {res->pixels, res->size};

	if (!res->in_renderer)
		return;
	virgl.virgl_renderer_force_ctx_0();
	if (virgl.virgl_renderer_transfer_read_iov(res->id, 0, 0, stride, 0, &box,
		    (uint64_t)r->y * stride + (uint64_t)r->x * GPU_PIXEL, &v, 1) != 0)
		log_guest_warn("resource %u could not be read back", res->id);
}

/* Pictures that others look at */

/* Asked for what it lacks, the renderer jumps to address 0. */
static void find_export(struct gpu_3d *t)
{
	static const struct library_symbol symbols[] = {EGL_FUNCTIONS(EGL_SYMBOL)};
	const char *found, *extension = "EGL_MESA_image_dma_buf_export";
	EGLDisplay display;

	if (t->g->no_dmabuf || library_load("libEGL.so.1", symbols, ARRAY_SIZE(symbols), &egl) != 0)
		return;
	virgl.virgl_renderer_force_ctx_0();
	display = egl.eglGetCurrentDisplay();
	found = display != EGL_NO_DISPLAY ? egl.eglQueryString(display, EGL_EXTENSIONS) : NULL;
	found = found ? strstr(found, extension) : NULL;
	t->exports = found && (found[strlen(extension)] == ' ' || !found[strlen(extension)]);
	t->flush = (void (*)(void))egl.eglGetProcAddress("glFlush");
	log_debug("renderer: pictures %s as dmabufs", t->exports ? "go out" : "do not go out");
}

/* Of a picture that was made for scanouts on a render node: with its modifier. */
static bool export_buffer(const struct gpu_resource *res, struct gpu_dmabuf *out)
{
	struct virgl_renderer_export_query query = {
		.hdr = {VIRGL_RENDERER_STRUCTURE_TYPE_EXPORT_QUERY, 0, sizeof(query)},
		.in_resource_id = res->id,
		.in_export_fds = 1};
	unsigned i;

	if (virgl.virgl_renderer_execute(&query, sizeof(query)) != 0 || !query.out_num_fds)
		return false;
	out->fd = query.out_fds[0];
	out->stride = query.out_strides[0];
	out->fourcc = query.out_fourcc;
	out->modifier = query.out_modifier;
	if (query.out_num_fds == 1 && out->fd >= 0 && !query.out_offsets[0])
		return true;
	for (i = 0; i < MIN(query.out_num_fds, (uint32_t)ARRAY_SIZE(query.out_fds)); i++)
		fd_close(&query.out_fds[i]);
	return false;
}

static bool export_texture(const struct virgl_renderer_resource_info *info, struct gpu_dmabuf *out)
{
	int stride = 0, offset = 0;

	out->fd = -1;
	virgl.virgl_renderer_force_ctx_0();
	if (virgl.virgl_renderer_get_fd_for_texture2(info->tex_id, &out->fd, &stride, &offset) != 0 ||
		out->fd < 0 || stride <= 0 || offset) {
		fd_close(&out->fd); /* one without a descriptor is a success to some drivers */
		return false;
	}
	out->stride = (uint32_t)stride;
	out->fourcc = (uint32_t)info->drm_fourcc;
	out->modifier = GPU_MODIFIER_UNKNOWN;
	return true;
}

bool gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out)
{
	struct virgl_renderer_resource_info info = {0};

	if (!of(res->g)->exports || !res->in_renderer)
		return false;
	if (virgl.virgl_renderer_resource_get_info((int)res->id, &info) != 0)
		return false;
	if (!export_buffer(res, out) && !export_texture(&info, out))
		return false;
	out->w = info.width;
	out->h = info.height;
	out->flags = info.flags;
	gpu_3d_flush(res->g);
	return true;
}

/* A context that is left is flushed. */
void gpu_3d_flush(struct gpu *g)
{
	virgl.virgl_renderer_force_ctx_0();
	if (of(g)->flush)
		of(g)->flush();
}

/* Life */

void gpu_3d_reset(struct gpu_3d *t)
{
	timer_disarm(&t->expiry);
	while (t->ncontexts)
		virgl.virgl_renderer_context_destroy(t->context[--t->ncontexts]);
}

int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out)
{
	struct gpu_3d *t = calloc(1, sizeof(*t));
	int err, fd;

	if (!t)
		return log_errno(ENOMEM, "--virgl");
	t->g = g;
	t->last = &t->first;
	t->watch = (struct watch){.fd = -1, .ready = renderer_ready};
	t->poll.expired = poll_expired;
	t->expiry.expired = expired;
	err = start(t, render_node);
	if (err) {
		free(t);
		return err;
	}
	fd = virgl.virgl_renderer_get_poll_fd();
	find_export(t);
	t->by_timer = fd < 0 || watch_add(g->b->loop, &t->watch, fd, EPOLLIN) < 0;
	*out = t;
	return 0;
}

void gpu_3d_close(struct gpu_3d *t)
{
	watch_del(&t->watch);
	timer_disarm(&t->poll);
	timer_disarm(&t->expiry);
	virgl.virgl_renderer_cleanup(t);
	free(t->commands);
	free(t);
}
