/* SPDX-License-Identifier: MIT */
/*
 * Graphics device (virtio 1.3, 5.7): a control queue of commands with an answer each, and a cursor queue without answers.
 *
 * What is wrong with a command is answered with an error of the specification; only a buffer without room for an answer
 * goes back empty. A command is done when its answer is given, so a fence is its answer's; commands that wait for somebody
 * else (the front-end's display, the renderer) are held, and the others go on.
 *
 * The screen goes where there is one to go: to the front-end's display (gpu-display.c) and to PNG files. Without a
 * front-end that has a display, --display says which monitors there are.
 *
 * A driver that begins anew, after a reboot or a reset, or with a ring set up from its start, finds nothing of what it had.
 */
#include "gpu-3d.h"
#include "gpu-display.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { CONTROL, CURSOR };
#define TURN_BYTES (UINT64_C(64) << 20) /* of pixels in one turn: others want to be heard */
enum { DRM_MAJOR = 226, FIRST_RENDER_NODE = 128 };

static const struct gpu_mode default_mode = {1280, 800, true};

/* Options */

static bool parse_side(const char **p, char end, uint32_t *out)
{
	char *stop;
	unsigned long v = strtoul(*p, &stop, 10);

	if (stop == *p || **p < '0' || **p > '9' || v < 16 || v > GPU_MAX_SIDE)
		return false;
	if (*stop != end && !(end == 0 && *stop == ','))
		return false;
	*out = (uint32_t)v;
	*p = stop;
	return true;
}

static const char *parse_display(void *base, const char *value)
{
	struct gpu *g = base;
	const char *p = value;

	for (;;) {
		struct gpu_mode *m = &g->mode[g->nmodes];

		if (g->nmodes == GPU_SCANOUTS)
			return "more than 16 outputs";
		*m = (struct gpu_mode){default_mode.w, default_mode.h, false};
		if (strncmp(p, "off", 3) == 0 && (!p[3] || p[3] == ',')) {
			p += 3;
		} else {
			if (!parse_side(&p, 'x', &m->w) || (p++, !parse_side(&p, 0, &m->h)))
				return "not WIDTHxHEIGHT with sides from 16 to 16384, nor off";
			m->enabled = true;
		}
		g->nmodes++;
		if (!*p)
			return NULL;
		p++;
	}
}

static const struct option_spec gpu_options[] = {
	{"display", OPTION_CALLBACK, .parse = parse_display, .arg = "WxH[,WxH...]", .no_def = "1280x800",
		.help = "outputs, and their sizes, when the front-end has no display of its own; off: nothing is "
			"connected there"},
	{"max-hostmem", OPTION_SIZE, OPTION_FIELD(struct gpu, max_hostmem), .def = "256M", .min = 1 << 20,
		.help = "memory that the guest's pictures may take here"},
	{"screenshot-dir", OPTION_PATH, OPTION_FIELD(struct gpu, screenshot_dir),
		.no_def = "none are written",
		.help = "keep a PNG file of each scanout in this directory, scanout-N.png"},
	{"screenshot-interval", OPTION_DURATION, OPTION_FIELD(struct gpu, screenshot_ms), .def = "1s",
		.min = 10, .max = 3600000, .help = "write them at most this often, when something changed"},
	{"virgl", OPTION_FLAG, OPTION_FIELD(struct gpu, virgl), .help = "3D, by virglrenderer"},
	{"no-dmabuf", OPTION_FLAG, OPTION_FIELD(struct gpu, no_dmabuf),
		.help = "send the front-end pixels also where its display could look at the renderer's own"},
	{"render-node", OPTION_PATH, OPTION_FIELD(struct gpu, render_node), .no_def = "the first that works",
		.help = "DRM render node that 3D runs on"},
	OPTIONS_END,
};

/* Answers */

void gpu_answer(struct gpu *g, struct gpu_request *r, uint32_t type, void *response, size_t size)
{
	struct virtio_gpu_ctrl_hdr *hdr = response;
	uint32_t flags = le32toh(r->hdr.flags) & (VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX);

	(void)g;
	*hdr = (struct virtio_gpu_ctrl_hdr){.type = htole32(type)};
	if (flags & VIRTIO_GPU_FLAG_FENCE) {
		hdr->flags = htole32(flags);
		hdr->fence_id = r->hdr.fence_id;
		hdr->ctx_id = r->hdr.ctx_id;
		hdr->ring_idx = flags & VIRTIO_GPU_FLAG_INFO_RING_IDX ? r->hdr.ring_idx : 0;
	}
	if (!cursor_put(&r->e->wr, response, size))
		log_guest_warn("command 0x%x: %zu bytes of answer do not fit", le32toh(r->hdr.type), size);
	virtqueue_push(r->e);
}

static void answer_status(struct gpu *g, struct gpu_request *r, uint32_t status)
{
	struct virtio_gpu_ctrl_hdr hdr;

	if (status >= VIRTIO_GPU_RESP_ERR_UNSPEC) {
		log_debug("command 0x%x: answered 0x%x", le32toh(r->hdr.type), status);
		virtqueue_count_error(r->e->queue);
	}
	gpu_answer(g, r, status, &hdr, sizeof(hdr));
}

void gpu_answer_display_info(struct gpu *g, struct gpu_request *r)
{
	struct virtio_gpu_resp_display_info info = {0};
	unsigned i;

	for (i = 0; i < g->nmodes; i++) {
		info.pmodes[i].enabled = htole32(g->mode[i].enabled);
		info.pmodes[i].r.width = htole32(g->mode[i].w);
		info.pmodes[i].r.height = htole32(g->mode[i].h);
	}
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_DISPLAY_INFO, &info, sizeof(info));
}

void gpu_answer_edid(struct gpu *g, struct gpu_request *r, const struct gpu_mode *mode)
{
	struct virtio_gpu_resp_edid edid = {0};

	edid.size = htole32((uint32_t)gpu_edid(edid.edid, mode->w, mode->h, r->arg));
	gpu_answer(g, r, VIRTIO_GPU_RESP_OK_EDID, &edid, sizeof(edid));
}

/* Where the screen goes */

void gpu_export_came(struct gpu_resource *res)
{
	gpu_display_export(res->g->display);
}

bool gpu_wants_pixels(const struct gpu *g, uint32_t scanouts)
{
	for (unsigned i = 0; i < GPU_SCANOUTS; i++)
		if (scanouts & BIT(i) && (g->shot || gpu_display_wants_pixels(g->display, i)))
			return true;
	return false;
}

unsigned gpu_num_scanouts(const struct gpu *g)
{
	return gpu_display_attached(g->display) ? GPU_SCANOUTS : g->nmodes;
}

void gpu_scanout_damaged(struct gpu *g, unsigned scanout, const struct gpu_rect *r)
{
	gpu_display_damage(g->display, scanout, r);
	gpu_shot_dirty(g->shot, scanout);
}

void gpu_scanout_changed(struct gpu *g, unsigned scanout)
{
	gpu_display_scanout(g->display, scanout);
	gpu_shot_dirty(g->shot, scanout);
}

void gpu_cursor_changed(struct gpu *g, unsigned scanout, enum gpu_cursor_change what)
{
	gpu_display_cursor(g->display, scanout, what);
	gpu_shot_dirty(g->shot, scanout);
}

/* Commands */

static uint32_t cmd_display_info(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	(void)c;
	if (gpu_display_attached(g->display))
		gpu_display_ask(g->display, r);
	else
		gpu_answer_display_info(g, r);
	return GPU_HELD;
}

static uint32_t cmd_edid(struct gpu *g, struct gpu_request *r, const union gpu_command *c)
{
	r->arg = le32toh(c->edid.scanout);
	if (r->arg >= gpu_num_scanouts(g))
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	if (gpu_display_attached(g->display))
		gpu_display_ask(g->display, r);
	else
		gpu_answer_edid(g, r, &g->mode[r->arg]);
	return GPU_HELD;
}

struct handler {
	gpu_command_fn *run;
	size_t size; /* of the command with its header */
	int feature; /* that the driver must have accepted, or ANY */
};

enum { ANY = -1 };
#define HANDLER(type, fn, command, feature) [(type)&0xff] = {fn, sizeof(struct virtio_gpu_##command), feature}

static const struct handler handlers_2d[] = {
	HANDLER(VIRTIO_GPU_CMD_GET_DISPLAY_INFO, cmd_display_info, ctrl_hdr, ANY),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, gpu_cmd_create_2d, resource_create_2d, ANY),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_UNREF, gpu_cmd_unref, resource_unref, ANY),
	HANDLER(VIRTIO_GPU_CMD_SET_SCANOUT, gpu_cmd_set_scanout, set_scanout, ANY),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_FLUSH, gpu_cmd_flush, resource_flush, ANY),
	HANDLER(VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, gpu_cmd_transfer_2d, transfer_to_host_2d, ANY),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, gpu_cmd_attach_backing, resource_attach_backing, ANY),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, gpu_cmd_detach_backing, resource_detach_backing, ANY),
	HANDLER(VIRTIO_GPU_CMD_GET_CAPSET_INFO, gpu_cmd_capset_info, get_capset_info, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_GET_CAPSET, gpu_cmd_capset, get_capset, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_GET_EDID, cmd_edid, cmd_get_edid, VIRTIO_GPU_F_EDID),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID, gpu_cmd_assign_uuid, resource_assign_uuid,
		VIRTIO_GPU_F_RESOURCE_UUID),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB, gpu_cmd_create_blob, resource_create_blob,
		VIRTIO_GPU_F_RESOURCE_BLOB),
	HANDLER(VIRTIO_GPU_CMD_SET_SCANOUT_BLOB, gpu_cmd_set_scanout_blob, set_scanout_blob,
		VIRTIO_GPU_F_RESOURCE_BLOB),
};

static const struct handler handlers_3d[] = {
	HANDLER(VIRTIO_GPU_CMD_CTX_CREATE, gpu_cmd_ctx_create, ctx_create, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_CTX_DESTROY, gpu_cmd_ctx_destroy, ctx_destroy, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, gpu_cmd_ctx_attach, ctx_resource, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE, gpu_cmd_ctx_detach, ctx_resource, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_RESOURCE_CREATE_3D, gpu_cmd_create_3d, resource_create_3d, VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D, gpu_cmd_transfer_to_3d, transfer_host_3d,
		VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D, gpu_cmd_transfer_from_3d, transfer_host_3d,
		VIRTIO_GPU_F_VIRGL),
	HANDLER(VIRTIO_GPU_CMD_SUBMIT_3D, gpu_cmd_submit, cmd_submit, VIRTIO_GPU_F_VIRGL),
};

static const struct handler *handler_of(const struct gpu *g, uint32_t type)
{
	const struct handler *h = NULL;

	if (type >> 8 == VIRTIO_GPU_CMD_GET_DISPLAY_INFO >> 8 && (type & 0xff) < ARRAY_SIZE(handlers_2d))
		h = &handlers_2d[type & 0xff];
	if (type >> 8 == VIRTIO_GPU_CMD_CTX_CREATE >> 8 && (type & 0xff) < ARRAY_SIZE(handlers_3d))
		h = &handlers_3d[type & 0xff];
	if (!h || !h->run || (h->feature != ANY && !backend_has(g->b, (unsigned)h->feature)))
		return NULL;
	return h;
}

static uint32_t execute(struct gpu *g, struct gpu_request *r)
{
	struct cursor *rd = &r->e->rd;
	const struct handler *h;
	union gpu_command c;

	if (r->e->fault) {
		log_guest_warn("a command, or room for its answer, is no guest memory");
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	if (!cursor_get(rd, &r->hdr, sizeof(r->hdr))) {
		log_guest_warn("a command of %zu bytes", rd->left);
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	h = handler_of(g, le32toh(r->hdr.type));
	if (!h) {
		log_guest_warn("command 0x%x: unknown, or not negotiated", le32toh(r->hdr.type));
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	c.hdr = r->hdr;
	if (!cursor_get(rd, (char *)&c + sizeof(c.hdr), h->size - sizeof(c.hdr))) {
		log_guest_warn("command 0x%x: cut off", le32toh(r->hdr.type));
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	}
	return h->run(g, r, &c);
}

static bool is_fenced(const struct gpu *g, const struct gpu_request *r)
{
	return g->three && (le32toh(r->hdr.flags) & VIRTIO_GPU_FLAG_FENCE) &&
	       (r->in_line || gpu_3d_waits(g->three));
}

static bool renderer_full(const struct gpu *g)
{
	return g->three && gpu_3d_full(g->three);
}

static void control_ready(struct backend *b, struct virtqueue *q)
{
	struct gpu *g = b->state;
	struct element *e;

	g->work = 0;
	while (g->work < TURN_BYTES && !renderer_full(g) && (e = virtqueue_pop(q))) {
		struct gpu_request *r = e->req;
		uint32_t status;

		r->e = e;
		status = execute(g, r);
		if (status == GPU_HELD)
			continue;
		if (is_fenced(g, r))
			gpu_3d_answer_fenced(g->three, r, status);
		else
			answer_status(g, r, status);
	}
	if (g->work >= TURN_BYTES)
		gpu_resume(g);
}

void gpu_resume(struct gpu *g)
{
	timer_arm_in(g->b->loop, &g->resume, 0);
}

static void resume(struct timer *t)
{
	struct gpu *g = container_of(t, struct gpu, resume);
	struct virtqueue *q = backend_queue(g->b, CONTROL);

	if (q)
		virtqueue_wake(q);
}

static void cursor_ready(struct backend *b, struct virtqueue *q)
{
	struct virtio_gpu_update_cursor c;
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		if (cursor_get(&e->rd, &c, sizeof(c)) &&
			(le32toh(c.hdr.type) == VIRTIO_GPU_CMD_UPDATE_CURSOR ||
				le32toh(c.hdr.type) == VIRTIO_GPU_CMD_MOVE_CURSOR)) {
			gpu_cmd_cursor(b->state, &c);
		} else {
			log_guest_warn("an unknown command in the cursor queue");
			virtqueue_count_error(q);
		}
		virtqueue_push(e);
	}
}

/* Life */

static void gpu_reset(struct backend *b)
{
	struct gpu *g = b->state;
	unsigned i;

	gpu_shot_finish(g->shot);
	if (g->three)
		gpu_3d_reset(g->three);
	gpu_resource_destroy_all(g);
	for (i = 0; i < GPU_SCANOUTS; i++)
		gpu_cursor_free(g, i);
}

/* A ring that does not go on where it was is a new driver's, whatever it was that the front-end told us. */
static int gpu_start(struct backend *b, struct virtqueue *q)
{
	if (virtqueue_index(q) == CONTROL && !virtqueue_continues(q))
		gpu_reset(b);
	return 0;
}

static void gpu_stop(struct backend *b, struct virtqueue *q)
{
	struct gpu *g = b->state;

	if (virtqueue_index(q) == CONTROL)
		gpu_display_give_up(g->display);
	if (virtqueue_index(q) == CONTROL && g->three)
		gpu_3d_give_up(g->three);
}

static int gpu_request(struct backend *b, struct request *r)
{
	struct gpu *g = b->state;
	int err;

	if (r->type != REQUEST_GPU_SOCKET)
		return -ENOTSUP;
	err = gpu_display_attach(g->display, r->fd);
	if (!err)
		r->fd = -1;
	return err;
}

static void gpu_memory(struct backend *b)
{
	struct gpu *g = b->state;

	if (g->three)
		gpu_3d_memory(g->three);
}

static void gpu_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	struct virtio_gpu_config *config = (void *)b->config;
	const size_t clear = offsetof(struct virtio_gpu_config, events_clear);
	uint32_t bits;

	if (off > clear || len < clear - off + sizeof(bits))
		return;
	memcpy(&bits, (const char *)data + (clear - off), sizeof(bits));
	config->events_read &= ~bits;
}

static int check_render_node(const struct gpu *g)
{
	CLEANUP_FD int fd = g->render_node ? open(g->render_node, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;
	struct stat st;

	if (!g->render_node)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return log_errno(errno, "--render-node=%s", g->render_node);
	if (S_ISCHR(st.st_mode) && major(st.st_rdev) == DRM_MAJOR && minor(st.st_rdev) >= FIRST_RENDER_NODE)
		return 0;
	log_error("--render-node=%s: is not a DRM render node", g->render_node);
	return -ENODEV;
}

static int gpu_open(struct backend *b)
{
	struct gpu *g = b->state;
	struct virtio_gpu_config *config = (void *)b->config;
	int err;

	g->b = b;
	g->resume.expired = resume;
	if (!g->nmodes)
		g->mode[g->nmodes++] = default_mode;
	g->display = gpu_display_new(g);
	err = g->display ? check_render_node(g) : log_errno(ENOMEM, "gpu");
	if (!err)
		err = gpu_pixel_load();
	if (!err)
		err = g->virgl ? gpu_3d_open(g, g->render_node, &g->three) : 0;
	if (!err)
		err = gpu_shot_open(g, g->screenshot_dir, g->screenshot_ms, &g->shot);
	if (err) {
		if (g->three)
			gpu_3d_close(g->three);
		gpu_display_free(g->display);
		return err;
	}
	if (g->three) {
		b->offered |= BIT(VIRTIO_GPU_F_VIRGL) | BIT(VIRTIO_GPU_F_CONTEXT_INIT);
		config->num_capsets = htole32(gpu_3d_num_capsets(g->three));
	}
	config->num_scanouts = htole32(g->nmodes);
	return 0;
}

static void gpu_close(struct backend *b)
{
	struct gpu *g = b->state;

	timer_disarm(&g->resume);
	gpu_reset(b);
	gpu_display_free(g->display);
	gpu_shot_close(g->shot);
	if (g->three)
		gpu_3d_close(g->three);
}

static bool has_render_node(void)
{
	DIR *dir = opendir("/dev/dri");
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		found = strncmp(entry->d_name, "renderD", 7) == 0;
	if (dir)
		closedir(dir);
	return found;
}

/* A management program takes these at their word: it looks for a node, and fails the VM when it finds none. */
static int gpu_capabilities(struct json *out)
{
	json_array_begin(out);
	if (has_render_node())
		json_string(out, "render-node");
	if (gpu_3d_probe())
		json_string(out, "virgl");
	json_array_end(out);
	return 0;
}

static const struct queue_spec gpu_queues[] = {
	[CONTROL] = {"control", control_ready, sizeof(struct gpu_request), 0},
	[CURSOR] = {"cursor", cursor_ready, 0, 0},
};

static const struct feature_name gpu_features[] = {
	{VIRTIO_GPU_F_VIRGL, "virgl"},
	{VIRTIO_GPU_F_EDID, "edid"},
	{VIRTIO_GPU_F_RESOURCE_UUID, "resource-uuid"},
	{VIRTIO_GPU_F_RESOURCE_BLOB, "resource-blob"},
	{VIRTIO_GPU_F_CONTEXT_INIT, "context-init"},
	{0, NULL},
};

const struct device device_gpu = {
	.name = "gpu",
	.summary = "graphics: screens, cursors, and 3D by virglrenderer",
	.virtio_id = VIRTIO_ID_GPU,
	.features =
		BIT(VIRTIO_GPU_F_EDID) | BIT(VIRTIO_GPU_F_RESOURCE_UUID) | BIT(VIRTIO_GPU_F_RESOURCE_BLOB),
	.state_size = sizeof(struct gpu),
	.config_size = sizeof(struct virtio_gpu_config),
	.options = gpu_options,
	.feature_names = gpu_features,
	.commands = gpu_commands,
	.queues = gpu_queues,
	.nqueues = ARRAY_SIZE(gpu_queues),
	.max_queues = ARRAY_SIZE(gpu_queues),
	.capabilities = gpu_capabilities,
	.open = gpu_open,
	.close = gpu_close,
	.start = gpu_start,
	.stop = gpu_stop,
	.reset = gpu_reset,
	.config_write = gpu_config_write,
	.request = gpu_request,
	.memory = gpu_memory,
	.helper = gpu_3d_helper,
};
