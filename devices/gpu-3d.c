/* SPDX-License-Identifier: MIT */
/*
 * 3D, which a renderer in a process of its own runs (gpu-renderer.c): OpenGL's drivers crash, hang, and are what a guest that means harm would attack. This process checks what can be checked, keeps the table of resources
 * and of contexts, and hands the rest on; commands are held until they are answered, and 2D goes on meanwhile.
 *
 * 2D resources stay pictures of ours, whatever the renderer does. A 3D resource that is shown, or is a cursor, is read back
 * into pixels that both processes map, and from there takes the way of all pixels; only where the renderer can export it as a
 * dmabuf the front-end's display looks at the renderer's own.
 *
 * A renderer that is lost takes along its contexts and what its resources hold, but not what scanouts show: what waits for it is
 * answered with an error, and the next context or resource that a driver makes gets a new renderer, but at most one a second.
 * After a reset there is a new one in any case, if the old one was used: nothing of one guest's is left for the next.
 *
 * Fences of what the renderer does go through it, in one line, whatever ring they name: Linux takes a fence that is done for all
 * before it. 2D commands stand in that line too, but only while somebody is there: a renderer with nothing to do holds up nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "gpu-3d-core.h"

enum {
	MAX_QUEUED = 1 << 20, /* bytes for the renderer; then no more commands are taken */
	MAX_PICTURES = 4096,  /* that are read back */
	KEEP_PICTURES = 64,   /* when they are not shown */
	STOP_MS = 2000,
	CATCH_UP_MS = 1000,
	START_MS = 10000,
};
#define NS_PER_MS  UINT64_C(1000000)
#define RESTART_NS (1000 * NS_PER_MS)

static struct gpu_3d *of(struct gpu *g)
{
	return g->three;
}

/* Tickets */

static void ticket_add(struct tickets *list, struct gpu_ticket *t)
{
	t->next = NULL;
	*list->last = t;
	list->last = &t->next;
}

static struct gpu_ticket *ticket_take(struct tickets *list)
{
	struct gpu_ticket *t = list->first;

	if (!t)
		return NULL;
	list->first = t->next;
	if (!t->next)
		list->last = &list->first;
	return t;
}

/* Answers */

static void answer(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	struct virtio_gpu_ctrl_hdr hdr;

	if (!--t->requests)
		timer_disarm(&t->expiry);
	gpu_answer(t->g, r, status, &hdr, sizeof(hdr));
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

static bool has_fence(const struct gpu_request *r)
{
	return le32toh(r->hdr.flags) & VIRTIO_GPU_FLAG_FENCE;
}

static void request_done(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	uint32_t type = le32toh(r->hdr.type);
	struct gpu_resource *res = r->res;

	if (status != VIRTIO_GPU_RESP_OK_NODATA &&
		(status < VIRTIO_GPU_RESP_ERR_UNSPEC || status > VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER))
		status = VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (type == VIRTIO_GPU_CMD_SUBMIT_3D || type == VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D)
		log_writes(t->g, res);
	if (res && type == VIRTIO_GPU_CMD_RESOURCE_CREATE_3D && status != VIRTIO_GPU_RESP_OK_NODATA &&
		gpu_resource_find(t->g, res->id) == res) {
		res->in_renderer = false;
		gpu_resource_destroy(res);
	}
	gpu_resource_unref(res);
	r->res = NULL;
	if (!r->status)
		r->status = status;
	if (has_fence(r) && gpu_link_up(&t->link))
		ticket_add(&t->fenced, &r->ticket);
	else
		answer(t, r, r->status);
}

static void read_done(struct gpu_resource *res)
{
	res->reading = false;
	gpu_pixels_came(res);
	gpu_resource_unref(res);
}

static void drop_dmabuf(struct gpu_resource *res)
{
	if (res->dmabuf)
		fd_close(&res->dmabuf->fd);
	free(res->dmabuf);
	res->dmabuf = NULL;
}

/* Is this what can be shown? A front-end will believe it. */
static bool plausible(const struct gpu_resource *res, const struct gpu_dmabuf *d)
{
	off_t size = d->fd < 0 ? -1 : lseek(d->fd, 0, SEEK_END);

	return size > 0 && d->w == res->width && d->h == res->height && d->stride / GPU_PIXEL >= d->w &&
	       (uint64_t)d->stride * d->h <= (uint64_t)size;
}

/* m: NULL when the renderer is lost. */
static void export_done(struct gpu_3d *t, struct gpu_resource *res, const struct wire_reply *m)
{
	res->exporting = false;
	drop_dmabuf(res);
	res->dmabuf = res->scanouts ? malloc(sizeof(*res->dmabuf)) : NULL;
	if (res->dmabuf)
		*res->dmabuf = (struct gpu_dmabuf){.fd = -1};
	if (res->dmabuf && m && m->fds) {
		*res->dmabuf = (struct gpu_dmabuf){.fd = gpu_link_take_fd(&t->link),
			.w = m->dmabuf.w,
			.h = m->dmabuf.h,
			.stride = m->dmabuf.stride,
			.flags = m->dmabuf.flags,
			.fourcc = m->dmabuf.fourcc,
			.modifier = m->dmabuf.modifier};
		if (!plausible(res, res->dmabuf))
			fd_close(&res->dmabuf->fd);
	}
	if (res->dmabuf)
		gpu_export_came(res);
	gpu_resource_unref(res);
}

static void ticket_done(struct gpu_3d *t, struct gpu_ticket *ticket, const struct wire_reply *m)
{
	switch (ticket->kind) {
	case GPU_TICKET_REQUEST:
		request_done(t, container_of(ticket, struct gpu_request, ticket),
			m ? m->status : VIRTIO_GPU_RESP_ERR_UNSPEC);
		break;
	case GPU_TICKET_READ:
		read_done(container_of(ticket, struct gpu_resource, read));
		break;
	case GPU_TICKET_EXPORT:
		export_done(t, container_of(ticket, struct gpu_resource, export), m);
		break;
	}
}

static void answer_fences(struct gpu_3d *t, uint32_t seq)
{
	while (t->fenced.first && (int32_t)(seq - t->fenced.first->seq) >= 0) {
		struct gpu_request *r = container_of(ticket_take(&t->fenced), struct gpu_request, ticket);

		answer(t, r, r->status);
	}
}

/* Losing it */

static void forget(struct gpu_3d *t)
{
	struct gpu_ticket *ticket;
	struct gpu_resource *res;
	size_t i;

	t->ncontexts = 0;
	t->ready = t->has_memory = t->used = t->late = false;
	for (i = 0; t->g && i < t->g->nbuckets; i++)
		for (res = t->g->bucket[i]; res; res = res->next)
			res->in_renderer = res->attached = false;
	answer_fences(t, t->seq);
	while ((ticket = ticket_take(&t->running)))
		ticket_done(t, ticket, NULL);
	if (t->stalled)
		gpu_resume(t->g);
	t->stalled = false;
}

/* It was told of the backing until now, and may have written. */
static void lost(struct gpu_link *l)
{
	struct gpu_3d *t = container_of(l, struct gpu_3d, link);

	if (!t->quiet)
		log_guest_error("the renderer is lost, and all 3D contexts with it; 2D goes on");
	if (t->g && t->requests)
		log_writes(t->g, NULL);
	forget(t);
}

static void give_it_up(struct gpu_3d *t)
{
	gpu_link_end(&t->link);
	lost(&t->link);
}

/* Listening */

static bool take_capsets(struct gpu_3d *t, const struct wire_reply *m)
{
	CLEANUP_FD int fd = gpu_link_take_fd(&t->link);
	off_t at = 0;

	for (unsigned i = 0; i < WIRE_CAPSETS && m->capset[i].size; i++) {
		uint32_t size = m->capset[i].size;

		t->capset_data[i] = size <= WIRE_CAPSET_MAX ? malloc(size) : NULL;
		if (!t->capset_data[i] || pread(fd, t->capset_data[i], size, at) != (ssize_t)size)
			return false;
		at += size;
		t->capset[i] = m->capset[i];
		t->ncapsets++;
	}
	t->exports = m->status;
	return true;
}

static bool reply_came(struct gpu_link *l, const struct wire_reply *m)
{
	struct gpu_3d *t = container_of(l, struct gpu_3d, link);

	t->late = false;
	if (m->type == WIRE_READY) {
		if (t->ready || (!t->ncapsets && !take_capsets(t, m)))
			return false;
		t->ready = true;
		return true;
	}
	if (m->type == WIRE_FENCED) {
		answer_fences(t, m->seq);
		return true;
	}
	if (m->type != WIRE_DONE || !t->running.first || t->running.first->seq != m->seq)
		return false;
	ticket_done(t, ticket_take(&t->running), m);
	return true;
}

static void drained(struct gpu_link *l)
{
	struct gpu_3d *t = container_of(l, struct gpu_3d, link);

	if (t->stalled)
		gpu_resume(t->g);
	t->stalled = false;
}

bool gpu_3d_full(struct gpu_3d *t)
{
	t->stalled = t->stalled || gpu_link_queued(&t->link) > MAX_QUEUED;
	return t->stalled;
}

/* Speaking */

/* NULL: there is no renderer (any more). */
static void *say(struct gpu_3d *t, struct wire m, size_t payload)
{
	void *at = gpu_link_put(&t->link, m, payload);

	t->used = true;
	if (!at && gpu_link_up(&t->link))
		give_it_up(t);
	return at;
}

static bool put_fd(struct gpu_3d *t, int fd)
{
	if (fd >= 0 && gpu_link_put_fd(&t->link, fd))
		return true;
	give_it_up(t);
	return false;
}

static bool put_region(struct gpu_3d *t, const struct backend_region *r)
{
	struct wire_region *p = say(t, (struct wire){.type = WIRE_MEMORY, .flags = WIRE_FD}, sizeof(*p));

	if (!p)
		return false;
	*p = (struct wire_region){r->gpa, r->size, r->offset};
	return put_fd(t, fcntl(r->fd, F_DUPFD_CLOEXEC, 0));
}

/* Guest memory as it is now. What was said before is done with what was there then. */
bool gpu_3d_put_memory(struct gpu_3d *t)
{
	uint64_t generation = backend_memory_generation(t->g->b);
	struct backend_memory memory;
	struct backend_region region;
	bool ok = true;
	unsigned i;

	if (t->has_memory && t->generation == generation)
		return gpu_link_up(&t->link);
	if (!say(t, (struct wire){.type = WIRE_MEMORY_BEGIN}, 0))
		return false;
	if (backend_memory_get(t->g->b, &memory)) {
		for (i = 0; ok && backend_memory_region(t->g->b, &memory, i, &region); i++)
			ok = put_region(t, &region);
		backend_memory_put(&memory);
	}
	t->has_memory = true;
	t->generation = generation;
	return ok && say(t, (struct wire){.type = WIRE_MEMORY_END}, 0);
}

void gpu_3d_memory(struct gpu_3d *t)
{
	if (t->has_memory && gpu_link_up(&t->link))
		gpu_3d_put_memory(t);
}

static int renderer_start(struct gpu_3d *t)
{
	struct wire_hello *hello;
	int err = gpu_link_start(&t->link);

	t->started = time_ns();
	if (err)
		return err;
	hello = say(t, (struct wire){.type = WIRE_HELLO}, sizeof(*hello));
	t->used = false;
	if (!hello)
		return -ENOMEM;
	*hello = (struct wire_hello){
		.log_level = log_level(), .no_dmabuf = t->g && t->g->no_dmabuf, .quiet = !t->g};
	memcpy(hello->render_node, t->render_node, sizeof(hello->render_node));
	return 0;
}

bool gpu_3d_present(struct gpu_3d *t)
{
	if (gpu_link_up(&t->link))
		return true;
	if (t->started && time_ns() - t->started < RESTART_NS)
		return false;
	return renderer_start(t) == 0;
}

static void take_turn(struct gpu_3d *t, struct gpu_request *r)
{
	r->ticket.kind = GPU_TICKET_REQUEST;
	r->ticket.seq = t->seq;
	ticket_add(&t->running, &r->ticket);
	t->requests++;
}

void *gpu_3d_put(struct gpu_3d *t, struct gpu_request *r, struct wire m, size_t payload)
{
	void *at;

	m.seq = t->seq + 1;
	m.flags = (uint16_t)(WIRE_ANSWER | (has_fence(r) ? WIRE_FENCE : 0));
	m.ctx = le32toh(r->hdr.ctx_id);
	at = say(t, m, payload);
	if (!at)
		return NULL;
	t->seq++;
	take_turn(t, r);
	return at;
}

uint32_t gpu_3d_hand_on(struct gpu_3d *t, struct gpu_request *r, enum wire_type type, uint32_t resource,
	const void *payload, size_t size)
{
	void *at = gpu_3d_put(t, r, (struct wire){.type = (uint16_t)type, .resource = resource}, size);

	if (!at)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (size)
		memcpy(at, payload, size);
	return GPU_HELD;
}

void gpu_3d_answer_fenced(struct gpu_3d *t, struct gpu_request *r, uint32_t status)
{
	struct virtio_gpu_ctrl_hdr hdr;

	r->status = status;
	if (!gpu_3d_put(t, r, (struct wire){.type = WIRE_NOTHING}, 0))
		gpu_answer(t->g, r, status, &hdr, sizeof(hdr));
}

bool gpu_3d_waits(const struct gpu_3d *t)
{
	return t->requests;
}

static void expired(struct timer *timer)
{
	struct gpu_3d *t = container_of(timer, struct gpu_3d, expiry);

	log_guest_warn("the renderer did not finish in time");
	give_it_up(t);
}

void gpu_3d_give_up(struct gpu_3d *t)
{
	if (t->requests)
		timer_arm_in(t->g->b->loop, &t->expiry, STOP_MS * NS_PER_MS);
}

/* Backing */

/* Is all of it there now? Whether it is later is seen when it is used. */
static bool is_memory(const struct gpu_resource *res)
{
	struct backend_memory memory;
	bool ok = backend_memory_get(res->g->b, &memory);

	if (!ok)
		return false;
	ok = gpu_backing_present(res, &memory);
	backend_memory_put(&memory);
	return ok;
}

uint32_t gpu_3d_attach_backing(struct gpu_resource *res)
{
	const struct gpu_backing *b = &res->backing;
	struct gpu_3d *t = of(res->g);
	struct wire_entry *entry;
	uint32_t i;

	if (!is_memory(res)) {
		log_guest_warn("resource %u: its backing is no guest memory", res->id);
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
	if (!res->in_renderer || !gpu_3d_put_memory(t))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	entry = say(t, (struct wire){.type = WIRE_BACKING, .resource = res->id, .arg = b->n},
		b->n * sizeof(*entry));
	if (!entry)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	for (i = 0; i < b->n; i++)
		entry[i] = (struct wire_entry){b->entry[i].gpa,
			(i + 1 < b->n ? b->entry[i + 1].start : b->size) - b->entry[i].start};
	res->attached = true;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_3d_detach_backing(struct gpu_resource *res)
{
	if (res->attached)
		say(of(res->g), (struct wire){.type = WIRE_BACKING_NONE, .resource = res->id}, 0);
	res->attached = false;
}

void gpu_3d_destroy(struct gpu_resource *res)
{
	gpu_3d_detach_backing(res);
	if (res->in_renderer)
		say(of(res->g), (struct wire){.type = WIRE_UNREF, .resource = res->id}, 0);
	res->in_renderer = false;
	drop_dmabuf(res);
}

/* Pixels */

static bool put_pixels(struct gpu_resource *res, int fd)
{
	struct wire_pixels *p = say(of(res->g),
		(struct wire){.type = WIRE_PIXELS, .flags = WIRE_FD, .resource = res->id}, sizeof(*p));

	if (!p) {
		close(fd);
		return false;
	}
	*p = (struct wire_pixels){.size = res->size, .stride = res->width * GPU_PIXEL};
	return put_fd(of(res->g), fd);
}

uint32_t gpu_3d_prepare(struct gpu_resource *res)
{
	uint64_t size = (uint64_t)res->width * res->height * GPU_PIXEL;
	int fd;

	if (res->pixels)
		return VIRTIO_GPU_RESP_OK_NODATA;
	if (!gpu_format_known(res->format) || !res->width || !res->height || res->width > GPU_MAX_SIDE ||
		res->height > GPU_MAX_SIDE)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!res->in_renderer)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (res->g->pictures >= MAX_PICTURES || !gpu_pixels_share(res, size, &fd))
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	if (put_pixels(res, fd))
		return VIRTIO_GPU_RESP_OK_NODATA;
	gpu_pixels_free(res);
	return VIRTIO_GPU_RESP_ERR_UNSPEC;
}

/* The next picture may be the same one again, so some are kept. */
void gpu_3d_unshow(struct gpu_resource *res)
{
	drop_dmabuf(res);
	if (!res->pixels || res->reading || res->g->pictures <= KEEP_PICTURES)
		return;
	if (res->refs > 2) /* besides the table and the scanout: an update of it is being sent */
		return;
	if (res->in_renderer)
		say(of(res->g), (struct wire){.type = WIRE_PIXELS_NONE, .resource = res->id}, 0);
	gpu_pixels_free(res);
}

static bool put_ticket(
	struct gpu_resource *res, struct gpu_ticket *ticket, struct wire m, const struct gpu_rect *payload)
{
	struct gpu_3d *t = of(res->g);
	void *at;

	m.flags = WIRE_ANSWER;
	m.resource = res->id;
	m.seq = t->seq + 1;
	at = res->in_renderer ? say(t, m, payload ? sizeof(*payload) : 0) : NULL;
	if (!at)
		return false;
	if (payload)
		memcpy(at, payload, sizeof(*payload));
	ticket->seq = ++t->seq;
	ticket_add(&t->running, ticket);
	gpu_resource_ref(res);
	return true;
}

void gpu_3d_read(struct gpu_resource *res, bool pixels)
{
	struct gpu_rect none = {0};

	res->asked = res->stale;
	res->stale = none;
	res->read.kind = GPU_TICKET_READ;
	res->reading = put_ticket(res, &res->read, (struct wire){.type = WIRE_READ},
		pixels && res->pixels ? &res->unread : &none);
	if (pixels || !res->reading)
		res->unread = none;
	if (!res->reading)
		gpu_pixels_came(res);
}

void gpu_3d_catch_up(struct gpu_resource *res)
{
	struct gpu_3d *t = of(res->g);
	uint64_t now = time_ns(), end = now + CATCH_UP_MS * NS_PER_MS;

	gpu_resource_ref(res);
	while (!t->late && (res->reading || !gpu_rect_empty(&res->unread))) {
		if (!res->reading)
			gpu_3d_read(res, true);
		else if (now >= end || !gpu_link_wait(&t->link, (int)((end - now) / NS_PER_MS) + 1))
			t->late = true;
		now = time_ns();
	}
	gpu_resource_unref(res);
}

enum gpu_export gpu_3d_export(struct gpu_resource *res, struct gpu_dmabuf *out)
{
	if (res->exporting)
		return GPU_EXPORT_LATER;
	if (res->dmabuf) {
		*out = *res->dmabuf;
		free(res->dmabuf);
		res->dmabuf = NULL;
		return out->fd >= 0 ? GPU_EXPORT_TAKEN : GPU_EXPORT_NONE;
	}
	if (!of(res->g)->exports)
		return GPU_EXPORT_NONE;
	res->export.kind = GPU_TICKET_EXPORT;
	res->exporting = put_ticket(res, &res->export, (struct wire){.type = WIRE_EXPORT}, NULL);
	return res->exporting ? GPU_EXPORT_LATER : GPU_EXPORT_NONE;
}

/* Life */

void gpu_3d_reset(struct gpu_3d *t)
{
	timer_disarm(&t->expiry);
	if (!t->used)
		return;
	gpu_link_end(&t->link);
	t->started = 0;
	forget(t);
}

/* Does it start there? Waited for. */
static bool starts(struct gpu_3d *t)
{
	uint64_t end = time_ns() + START_MS * NS_PER_MS, now = 0;

	t->quiet = t->link.trying = true;
	if (renderer_start(t) == 0)
		while (!t->ready && (now = time_ns()) < end &&
			gpu_link_wait(&t->link, (int)((end - now) / NS_PER_MS) + 1))
			;
	t->quiet = t->link.trying = false;
	if (t->ready && gpu_link_up(&t->link))
		return true;
	gpu_link_end(&t->link);
	return false;
}

/* On the node that was asked for; or on the first one that works; or on none. */
static bool find(struct gpu_3d *t, const char *render_node)
{
	DIR *dir = render_node ? NULL : opendir("/dev/dri");
	const struct dirent *entry;
	bool found = false;

	if (render_node) {
		int n = snprintf(t->render_node, sizeof(t->render_node), "%s", render_node);

		return n > 0 && (size_t)n < sizeof(t->render_node) && starts(t);
	}
	while (dir && !found && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "renderD", 7) != 0)
			continue;
		snprintf(t->render_node, sizeof(t->render_node), "/dev/dri/%.200s", entry->d_name);
		found = access(t->render_node, R_OK | W_OK) == 0 && starts(t);
	}
	if (dir)
		closedir(dir);
	if (found)
		return true;
	memset(t->render_node, 0, sizeof(t->render_node));
	return starts(t);
}

static struct gpu_3d *new (struct gpu *g)
{
	struct gpu_3d *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->g = g;
	t->running.last = &t->running.first;
	t->fenced.last = &t->fenced.first;
	t->expiry.expired = expired;
	t->link = (struct gpu_link){.fd = -1,
		.loop = g ? g->b->loop : NULL,
		.reply = reply_came,
		.lost = lost,
		.drained = drained};
	return t;
}

int gpu_3d_open(struct gpu *g, const char *render_node, struct gpu_3d **out)
{
	struct gpu_3d *t = new (g);

	if (!t)
		return log_errno(ENOMEM, "--virgl");
	if (find(t, render_node)) {
		*out = t;
		return 0;
	}
	log_error("--virgl: no OpenGL context could be created %s%s", render_node ? "on " : "here",
		render_node ? render_node : "");
	gpu_3d_close(t);
	return -ENODEV;
}

void gpu_3d_close(struct gpu_3d *t)
{
	timer_disarm(&t->expiry);
	gpu_link_close(&t->link);
	for (unsigned i = 0; i < WIRE_CAPSETS; i++)
		free(t->capset_data[i]);
	free(t);
}

bool gpu_3d_probe(void)
{
	struct gpu_3d *t = new (NULL);
	bool found = t && find(t, NULL);

	if (t)
		gpu_3d_close(t);
	return found;
}
