/* SPDX-License-Identifier: MIT */
/*
 * The client side of the vhost-user-gpu protocol, see gpu-display.h.
 *
 * Nothing is queued for a front-end that is slow: what has to be sent is the difference between what it knows and what is
 * shown, and the next message is made when the last has left. So damage is collected (its smallest rectangle), a cursor
 * jumps to where it is by then, and memory is bounded. A message that has begun is finished: its pixels come from the
 * resource as it is by then, which is referenced as long, in pieces through a buffer, or directly where they need no change.
 *
 * What QEMU does not survive is never sent: an UPDATE where it has no surface, a payload that is cut off. What it does not
 * answer (GET_EDID for an output that it lacks) is asked together with something that it does answer.
 *
 * What the renderer has drawn is shown without a copy where it can be exported. The front-end holds what it looks at until it
 * answers that it has; as long the scanout waits, and damage and what it shows next are collected: one that never answers has
 * at most one descriptor for each scanout under way, and the guest goes on.
 *
 * One question is asked at a time, the others wait in a list; when the front-end goes, we answer them.
 */
#include "gpu-display.h"
#include "gpu-3d.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum display_request {
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
};

enum { FEATURE_EDID, FEATURE_DMABUF2 };
enum { FLAG_REPLY = 4 };
enum { BUFFER = 256 << 10, MAX_REPLY = 2048, DIRECT_ROWS = 64, SOCKET_BUFFER = 1 << 20 };

struct header {
	uint32_t request, flags, size;
};

struct cursor_pos {
	uint32_t scanout, x, y;
};

struct cursor_update {
	struct cursor_pos pos;
	uint32_t hot_x, hot_y;
	uint32_t data[GPU_CURSOR * GPU_CURSOR];
};

struct scanout {
	uint32_t scanout, w, h;
};

struct update {
	uint32_t scanout, x, y, w, h;
};

struct dmabuf_scanout {
	uint32_t scanout, x, y, w, h;
	uint32_t fd_w, fd_h, fd_stride, fd_flags, fd_fourcc;
};

struct dmabuf_scanout2 {
	struct dmabuf_scanout m;
	uint32_t modifier[2]; /* low half first: not aligned */
};

/* What the front-end is still to be told of a scanout. */
struct todo {
	uint32_t w, h; /* of its surface, as it knows it; 0: it has none */
	bool dmabuf;   /* it shows one of ours instead */
	bool looks;    /* at what its last update said: not answered yet */
	bool geometry;
	bool cursor, cursor_image;
	struct gpu_rect damage;
};

enum question { NO_QUESTION, ASKED_FEATURES, ASKED_INFO, ASKED_EDID, ASKED_BARRIER };

struct gpu_display {
	struct gpu *g;
	struct watch watch;
	struct task pump;
	int fd;
	bool ready;	/* protocol features are settled */
	bool edid;	/* the front-end has EDIDs */
	bool modifiers; /* it takes the modifier of a dmabuf */

	enum question question;
	struct gpu_request *asked;	   /* whose question it is; NULL: ours, or nobody waits any more */
	struct gpu_request *first, **last; /* those that wait */

	uint8_t in[sizeof(struct header) + MAX_REPLY];
	size_t nin;

	uint8_t *out; /* BUFFER bytes */
	size_t out_pos, out_len;
	int out_fd; /* goes with the first byte; or -1 */
	/* the UPDATE that is being sent, beyond what is in out */
	struct gpu_surface surface; /* res: referenced, or NULL */
	struct gpu_rect rest;	    /* rows that are left */
	size_t row_off;		    /* bytes of the first of them that have left */

	unsigned next;		       /* scanout that is served next */
	uint8_t looking[GPU_SCANOUTS]; /* scanouts whose updates are to be answered, in their order */
	unsigned nlooking;
	struct todo todo[GPU_SCANOUTS];
};

static void detach(struct gpu_display *d);

/* Messages */

static void *message(struct gpu_display *d, enum display_request request, size_t size)
{
	struct header *h = (struct header *)(void *)(d->out + d->out_len);

	*h = (struct header){.request = request, .size = (uint32_t)size};
	d->out_len += sizeof(*h);
	return h + 1;
}

static void put(struct gpu_display *d, enum display_request request, const void *payload, size_t size)
{
	void *to = message(d, request, size);

	if (size)
		memcpy(to, payload, size);
	d->out_len += size;
}

/* The front-end looks at the renderer's own picture, or (NONE) can't and takes pixels. */
static enum gpu_export put_dmabuf(struct gpu_display *d, unsigned i)
{
	const struct gpu_surface *s = &d->g->scanout[i].s;
	struct dmabuf_scanout2 m;
	enum gpu_export found;
	struct gpu_dmabuf buf;
	bool known;

	if (!s->res || s->res->kind != GPU_RESOURCE_3D)
		return GPU_EXPORT_NONE;
	found = gpu_3d_export(s->res, &buf);
	if (found != GPU_EXPORT_TAKEN)
		return found;
	known = buf.modifier != GPU_MODIFIER_UNKNOWN;
	if (known && buf.modifier && !d->modifiers) {
		fd_close(&buf.fd);
		return GPU_EXPORT_NONE;
	}
	m = (struct dmabuf_scanout2){
		{i, s->x, s->y, s->w, s->h, buf.w, buf.h, buf.stride, buf.flags, buf.fourcc},
		{(uint32_t)buf.modifier, (uint32_t)(buf.modifier >> 32)}};
	if (known && d->modifiers)
		put(d, DMABUF_SCANOUT2, &m, sizeof(m));
	else
		put(d, DMABUF_SCANOUT, &m.m, sizeof(m.m));
	d->out_fd = buf.fd;
	return GPU_EXPORT_TAKEN;
}

/* All of a picture of the renderer's is wanted. */
static void redraw(const struct gpu_surface *s)
{
	struct gpu_rect all = {s->x, s->y, s->w, s->h};

	if (s->res && s->res->kind == GPU_RESOURCE_3D)
		gpu_resource_drawn(s->res, &all);
}

static void put_geometry(struct gpu_display *d, unsigned i)
{
	const struct gpu_surface *s = &d->g->scanout[i].s;
	struct todo *t = &d->todo[i];
	struct scanout m = {i, s->w, s->h};
	struct dmabuf_scanout none = {.scanout = i};
	enum gpu_export found = put_dmabuf(d, i);
	bool was_dmabuf = t->dmabuf;

	if (found == GPU_EXPORT_LATER)
		return;
	t->geometry = false;
	t->dmabuf = found == GPU_EXPORT_TAKEN;
	if (t->dmabuf) {
		t->w = t->h = 0; /* pixels need a new surface then */
		t->damage = (struct gpu_rect){.w = s->w, .h = s->h};
		return;
	}
	if (was_dmabuf) {
		put(d, DMABUF_SCANOUT, &none, sizeof(none));
		redraw(s);
	}
	if (!was_dmabuf && t->w == s->w && t->h == s->h)
		return; /* only what it shows is another */
	put(d, SCANOUT, &m, sizeof(m));
	t->w = s->w;
	t->h = s->h;
}

static void put_look(struct gpu_display *d, unsigned i)
{
	struct todo *t = &d->todo[i];
	struct update m = {i, t->damage.x, t->damage.y, t->damage.w, t->damage.h};

	put(d, DMABUF_UPDATE, &m, sizeof(m));
	t->damage = (struct gpu_rect){0};
	t->looks = true;
	d->looking[d->nlooking++] = (uint8_t)i;
}

static void put_update(struct gpu_display *d, unsigned i)
{
	struct todo *t = &d->todo[i];
	struct gpu_rect r = t->damage;
	struct update *m = message(d, UPDATE, sizeof(*m) + (size_t)r.w * r.h * GPU_PIXEL);

	*m = (struct update){i, r.x, r.y, r.w, r.h};
	d->out_len += sizeof(*m);
	t->damage = (struct gpu_rect){0};
	d->surface = d->g->scanout[i].s;
	gpu_resource_ref(d->surface.res);
	d->rest = r;
	d->row_off = 0;
}

static void put_cursor(struct gpu_display *d, unsigned i)
{
	const struct gpu_cursor *c = d->g->scanout[i].cursor;
	struct todo *t = &d->todo[i];
	struct cursor_pos pos = {.scanout = i};

	if (c) {
		pos.x = c->x;
		pos.y = c->y;
	}
	if (!c || !c->visible) {
		put(d, CURSOR_POS_HIDE, &pos, sizeof(pos));
	} else if (t->cursor_image) {
		struct cursor_update *m = message(d, CURSOR_UPDATE, sizeof(*m));

		m->pos = pos;
		m->hot_x = c->hot_x;
		m->hot_y = c->hot_y;
		memcpy(m->data, c->image, sizeof(m->data));
		d->out_len += sizeof(*m);
	} else {
		put(d, CURSOR_POS, &pos, sizeof(pos));
	}
	t->cursor = t->cursor_image = false;
}

static void put_question(struct gpu_display *d)
{
	struct gpu_request *r = d->first;
	uint32_t scanout;

	d->first = r->next;
	if (!d->first)
		d->last = &d->first;
	d->asked = r;
	if (le32toh(r->hdr.type) == VIRTIO_GPU_CMD_GET_EDID && d->edid) {
		scanout = r->arg;
		put(d, GET_EDID, &scanout, sizeof(scanout));
		put(d, GET_PROTOCOL_FEATURES, NULL, 0);
		d->question = ASKED_EDID;
		return;
	}
	put(d, GET_DISPLAY_INFO, NULL, 0);
	d->question = ASKED_INFO;
}

/* Makes the next message. False: there is nothing to say. */
static bool next_message(struct gpu_display *d)
{
	unsigned k;

	d->out_pos = d->out_len = 0;
	if (!d->ready)
		return false;
	if (d->question == NO_QUESTION && d->first)
		put_question(d);
	for (k = 0; !d->out_len && k < GPU_SCANOUTS; k++) {
		unsigned i = d->next++ % GPU_SCANOUTS;
		struct todo *t = &d->todo[i];

		if (t->geometry && !t->looks)
			put_geometry(d, i);
		if (t->cursor)
			put_cursor(d, i);
		if (t->geometry)
			continue;
		if (t->dmabuf && !t->looks && !gpu_rect_empty(&t->damage))
			put_look(d, i);
		else if (t->w && !gpu_rect_empty(&t->damage))
			put_update(d, i);
	}
	return d->out_len > 0;
}

/* Sending */

static ssize_t send_iov(struct gpu_display *d, struct iovec *v, size_t n)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr c;
	} u = {.c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = n};
	ssize_t sent;

	if (d->out_fd >= 0) {
		memcpy(CMSG_DATA(&u.c), &d->out_fd, sizeof(int));
		m.msg_control = &u;
		m.msg_controllen = sizeof(u.room);
	}
	do
		sent = sendmsg(d->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	fd_close(&d->out_fd);
	return sent;
}

static void update_done(struct gpu_display *d)
{
	gpu_resource_unref(d->surface.res);
	d->surface = (struct gpu_surface){0};
	d->rest = (struct gpu_rect){0};
}

/* Rows as they lie in the resource. */
static ssize_t send_direct(struct gpu_display *d)
{
	const struct gpu_surface *s = &d->surface;
	size_t row = (size_t)d->rest.w * GPU_PIXEL, left;
	uint8_t *p = s->res->pixels + s->offset + d->rest.y * s->stride + (size_t)d->rest.x * GPU_PIXEL;
	struct iovec v[DIRECT_ROWS];
	unsigned n = 0;
	ssize_t sent;

	if (s->stride == row) {
		v[n++] = (struct iovec){p + d->row_off, row * d->rest.h - d->row_off};
	} else {
		for (; n < MIN(d->rest.h, (uint32_t)DIRECT_ROWS); n++)
			v[n] = (struct iovec){p + n * s->stride, row};
		v[0].iov_base = p + d->row_off;
		v[0].iov_len -= d->row_off;
	}
	sent = send_iov(d, v, n);
	if (sent < 0)
		return sent;
	left = d->row_off + (size_t)sent;
	d->rest.y += (uint32_t)(left / row);
	d->rest.h -= (uint32_t)(left / row);
	d->row_off = left % row;
	return sent;
}

/* Rows that have to be converted, or fetched from guest memory. */
static void fill_rows(struct gpu_display *d)
{
	struct gpu_rect r = d->rest;

	r.h = MIN(r.h, (uint32_t)(BUFFER / ((size_t)r.w * GPU_PIXEL)));
	gpu_surface_read(&d->surface, &r, (uint32_t *)(void *)d->out);
	d->out_pos = 0;
	d->out_len = (size_t)r.w * r.h * GPU_PIXEL;
	d->rest.y += r.h;
	d->rest.h -= r.h;
}

/* One step: > 0 go on, 0 nothing to send, -EAGAIN the socket is full, -errno. */
static ssize_t send_step(struct gpu_display *d)
{
	ssize_t sent;

	if (d->out_pos < d->out_len) {
		struct iovec v = {d->out + d->out_pos, d->out_len - d->out_pos};

		sent = send_iov(d, &v, 1);
		if (sent > 0)
			d->out_pos += (size_t)sent;
		return sent;
	}
	if (d->surface.res && !d->rest.h)
		update_done(d);
	if (!d->surface.res)
		return next_message(d);
	if (d->surface.res->pixels && gpu_format_is_xrgb(d->surface.format))
		return send_direct(d);
	fill_rows(d);
	return 1;
}

static void pump(struct task *t)
{
	struct gpu_display *d = container_of(t, struct gpu_display, pump);
	ssize_t r = 1;

	while (d->fd >= 0 && r > 0)
		r = send_step(d);
	if (d->fd < 0)
		return;
	if (r < 0 && r != -EAGAIN) {
		log_guest_warn("the front-end's display: %s", strerror((int)-r));
		detach(d);
		return;
	}
	watch_modify(&d->watch, r ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* At the end of the turn: what one batch of commands does is one difference. */
static void pump_soon(struct gpu_display *d)
{
	if (d->fd >= 0)
		loop_defer(d->g->b->loop, &d->pump);
}

/* Replies */

static void answer_own(struct gpu *g, struct gpu_request *r)
{
	if (le32toh(r->hdr.type) == VIRTIO_GPU_CMD_GET_EDID)
		gpu_answer_edid(g, r, &g->mode[r->arg < g->nmodes ? r->arg : 0]);
	else
		gpu_answer_display_info(g, r);
}

static struct gpu_request *take_asked(struct gpu_display *d)
{
	struct gpu_request *r = d->asked;

	d->asked = NULL;
	return r;
}

static bool features_came(struct gpu_display *d, const uint8_t *payload, size_t size)
{
	uint64_t features;
	struct gpu_request *r = take_asked(d);
	enum question question = d->question;

	if (size != sizeof(features))
		return false;
	d->question = NO_QUESTION;
	if (question == ASKED_BARRIER)
		return true;
	if (question == ASKED_EDID) { /* skipped: the front-end has no such output */
		struct virtio_gpu_ctrl_hdr hdr;

		if (r)
			gpu_answer(d->g, r, VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID, &hdr, sizeof(hdr));
		return true;
	}
	if (question != ASKED_FEATURES)
		return false;
	memcpy(&features, payload, sizeof(features));
	features &= BIT(FEATURE_EDID) | (d->g->three ? BIT(FEATURE_DMABUF2) : 0);
	d->edid = features & BIT(FEATURE_EDID);
	d->modifiers = features & BIT(FEATURE_DMABUF2);
	d->out_pos = d->out_len = 0;
	put(d, SET_PROTOCOL_FEATURES, &features, sizeof(features));
	d->ready = true;
	return true;
}

static bool info_came(struct gpu_display *d, const uint8_t *payload, size_t size)
{
	struct virtio_gpu_resp_display_info info;
	struct gpu_request *r;

	if (d->question != ASKED_INFO || size != sizeof(info))
		return false;
	d->question = NO_QUESTION;
	memcpy(&info, payload, sizeof(info));
	r = take_asked(d);
	if (r && le32toh(r->hdr.type) == VIRTIO_GPU_CMD_GET_EDID) {
		const struct virtio_gpu_rect *rect = &info.pmodes[r->arg].r;
		struct gpu_mode mode = {le32toh(rect->width), le32toh(rect->height), true};

		if (!mode.w || !mode.h || mode.w > GPU_MAX_SIDE || mode.h > GPU_MAX_SIDE)
			mode = d->g->mode[0];
		gpu_answer_edid(d->g, r, &mode);
	} else if (r) {
		gpu_answer(d->g, r, VIRTIO_GPU_RESP_OK_DISPLAY_INFO, &info, sizeof(info));
	}
	return true;
}

static bool edid_came(struct gpu_display *d, const uint8_t *payload, size_t size)
{
	struct virtio_gpu_resp_edid edid;
	struct gpu_request *r;

	if (d->question != ASKED_EDID || size != sizeof(edid))
		return false;
	d->question = ASKED_BARRIER;
	memcpy(&edid, payload, sizeof(edid));
	if (le32toh(edid.size) > sizeof(edid.edid))
		edid.size = htole32(sizeof(edid.edid));
	r = take_asked(d);
	if (r)
		gpu_answer(d->g, r, VIRTIO_GPU_RESP_OK_EDID, &edid, sizeof(edid));
	return true;
}

/* It has looked. The answer does not say where, but they come in their order. */
static bool look_done(struct gpu_display *d, size_t size)
{
	if (size || !d->nlooking)
		return false;
	d->todo[d->looking[0]].looks = false;
	d->nlooking--;
	memmove(d->looking, d->looking + 1, d->nlooking);
	return true;
}

static bool reply(struct gpu_display *d, const struct header *h, const uint8_t *payload)
{
	if (!(h->flags & FLAG_REPLY))
		return false;
	switch (h->request) {
	case GET_PROTOCOL_FEATURES:
		return features_came(d, payload, h->size);
	case GET_DISPLAY_INFO:
		return info_came(d, payload, h->size);
	case GET_EDID:
		return edid_came(d, payload, h->size);
	case DMABUF_UPDATE:
		return look_done(d, h->size);
	default:
		return false;
	}
}

/* Takes whole replies out of the input. False: it is none that was asked for. */
static bool replies(struct gpu_display *d)
{
	struct header h;

	while (d->nin >= sizeof(h)) {
		memcpy(&h, d->in, sizeof(h));
		if (h.size > MAX_REPLY)
			return false;
		if (d->nin < sizeof(h) + h.size)
			return true;
		if (!reply(d, &h, d->in + sizeof(h)))
			return false;
		d->nin -= sizeof(h) + h.size;
		memmove(d->in, d->in + sizeof(h) + h.size, d->nin);
	}
	return true;
}

static void display_ready(struct watch *w, uint32_t events)
{
	struct gpu_display *d = container_of(w, struct gpu_display, watch);
	ssize_t n;

	if (events & ~(uint32_t)EPOLLOUT) {
		n = recv(d->fd, d->in + d->nin, sizeof(d->in) - d->nin, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			log_info("the front-end's display is gone");
			detach(d);
			return;
		}
		d->nin += n > 0 ? (size_t)n : 0;
		if (!replies(d)) {
			log_guest_error("the front-end's display sends what nobody asked for");
			detach(d);
			return;
		}
	}
	pump_soon(d);
}

/* What changed */

void gpu_display_scanout(struct gpu_display *d, unsigned scanout)
{
	const struct gpu_surface *s = &d->g->scanout[scanout].s;

	d->todo[scanout].geometry = true;
	d->todo[scanout].damage = (struct gpu_rect){0};
	if (s->res && s->res->kind == GPU_RESOURCE_3D)
		redraw(s);
	else
		d->todo[scanout].damage = (struct gpu_rect){.w = s->w, .h = s->h};
	pump_soon(d);
}

void gpu_display_damage(struct gpu_display *d, unsigned scanout, const struct gpu_rect *r)
{
	d->todo[scanout].damage = gpu_rect_union(&d->todo[scanout].damage, r);
	pump_soon(d);
}

bool gpu_display_wants_pixels(const struct gpu_display *d, unsigned scanout)
{
	return gpu_display_attached(d) && !d->todo[scanout].dmabuf;
}

void gpu_display_export(struct gpu_display *d)
{
	pump_soon(d);
}

void gpu_display_cursor(struct gpu_display *d, unsigned scanout, enum gpu_cursor_change what)
{
	d->todo[scanout].cursor = true;
	d->todo[scanout].cursor_image |= what == GPU_CURSOR_IMAGE;
	pump_soon(d);
}

void gpu_display_ask(struct gpu_display *d, struct gpu_request *r)
{
	r->next = NULL;
	*d->last = r;
	d->last = &r->next;
	pump_soon(d);
}

/* Life */

void gpu_display_give_up(struct gpu_display *d)
{
	struct gpu_request *r = take_asked(d);

	if (r)
		answer_own(d->g, r);
	while ((r = d->first)) {
		d->first = r->next;
		answer_own(d->g, r);
	}
	d->last = &d->first;
}

static void disconnect(struct gpu_display *d)
{
	watch_del(&d->watch);
	loop_cancel(d->g->b->loop, &d->pump);
	fd_close(&d->fd);
	fd_close(&d->out_fd);
	update_done(d);
	d->ready = false;
	d->question = NO_QUESTION;
	d->edid = d->modifiers = false;
	d->nlooking = 0;
	d->nin = d->out_pos = d->out_len = 0;
	memset(d->todo, 0, sizeof(d->todo));
}

static void detach(struct gpu_display *d)
{
	disconnect(d);
	gpu_display_give_up(d);
}

bool gpu_display_attached(const struct gpu_display *d)
{
	return d->fd >= 0;
}

int gpu_display_attach(struct gpu_display *d, int fd)
{
	struct gpu_request *r;
	int size = SOCKET_BUFFER, err;
	unsigned i;

	if (!d->out)
		d->out = malloc(BUFFER);
	if (!d->out)
		return -ENOMEM;
	disconnect(d);
	r = take_asked(d); /* of the new one again */
	if (r) {
		r->next = d->first;
		if (!d->first)
			d->last = &r->next;
		d->first = r;
	}
	err = watch_add(d->g->b->loop, &d->watch, fd, EPOLLIN);
	if (err) {
		gpu_display_give_up(d);
		return log_errno(-err, "the front-end's display");
	}
	d->fd = fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	put(d, GET_PROTOCOL_FEATURES, NULL, 0);
	d->question = ASKED_FEATURES;
	for (i = 0; i < GPU_SCANOUTS; i++) {
		const struct gpu_scanout *s = &d->g->scanout[i];

		if (s->s.res)
			gpu_display_scanout(d, i);
		if (s->cursor && s->cursor->visible)
			gpu_display_cursor(d, i, GPU_CURSOR_IMAGE);
	}
	pump_soon(d);
	return 0;
}

struct gpu_display *gpu_display_new(struct gpu *g)
{
	struct gpu_display *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->g = g;
	d->fd = d->out_fd = d->watch.fd = -1;
	d->watch.ready = display_ready;
	d->pump.run = pump;
	d->last = &d->first;
	return d;
}

void gpu_display_free(struct gpu_display *d)
{
	if (!d)
		return;
	disconnect(d);
	free(d->out);
	free(d);
}
