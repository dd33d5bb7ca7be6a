/* SPDX-License-Identifier: MIT */
/* See gpu-screen.h. */
#include "gpu-screen.h"

#include <sys/mman.h>
#include <sys/socket.h>

static int recv_fd(struct display *d, void *to, size_t n)
{
	char room[CMSG_SPACE(sizeof(int))];
	struct iovec v = {to, n};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	const struct cmsghdr *c;
	int fd = -1;

	CHECK_EQ(recvmsg(d->fd, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL), n);
	CHECK_EQ(m.msg_flags & MSG_CTRUNC, 0);
	c = CMSG_FIRSTHDR(&m);
	if (c)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void take(struct display *d, void *to, size_t n)
{
	uint8_t *p = to;

	while (n) {
		ssize_t got;

		CHECK(fe_poll(d->fd, POLLIN, fe_limit_ms));
		got = recv(d->fd, p, n, 0);
		CHECK(got > 0);
		p += got;
		n -= (size_t)got;
	}
}

static void answer(struct display *d, uint32_t request, const void *payload, uint32_t size)
{
	struct header h = {request, 4, size};

	CHECK_EQ(send(d->fd, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
	CHECK_EQ(send(d->fd, payload, size, MSG_NOSIGNAL), size);
}

static struct surface *surface(struct display *d, uint32_t scanout)
{
	CHECK(scanout < OUTPUTS);
	return &d->s[scanout];
}

static void on_scanout(struct display *d)
{
	uint32_t m[3];
	struct surface *s;

	take(d, m, sizeof(m));
	s = surface(d, m[0]);
	free(s->pixels);
	s->w = m[1];
	s->h = m[2];
	CHECK(s->dmabuf < 0);
	s->pixels = s->w ? calloc((size_t)s->w * s->h, 4) : NULL;
}

/* A dmabuf, which takes the place of pixels; without a descriptor it goes. */
static void on_dmabuf(struct display *d, const struct header *h, int fd)
{
	uint32_t m[12] = {0};
	struct surface *s;

	CHECK_EQ(h->size, h->request == DMABUF_SCANOUT ? 40 : 48);
	CHECK(h->request == DMABUF_SCANOUT || d->accepted & F_DMABUF2);
	take(d, m, h->size);
	s = surface(d, m[0]);
	if (s->dmabuf >= 0)
		close(s->dmabuf);
	s->dmabuf = fd;
	free(s->pixels); /* an update of these without a new SCANOUT would be one too many for QEMU */
	s->pixels = NULL;
	s->x = m[1];
	s->y = m[2];
	s->w = m[3];
	s->h = m[4];
	s->fd_w = m[5];
	s->fd_h = m[6];
	s->stride = m[7];
	s->flags = m[8];
	s->fourcc = m[9];
	s->modifier = m[10] | (uint64_t)m[11] << 32;
	CHECK(fd < 0 || (s->w && s->h && s->x + s->w <= s->fd_w && s->y + s->h <= s->fd_h));
}

void looked(struct display *d)
{
	struct header h = {DMABUF_UPDATE, 4, 0};

	CHECK_EQ(send(d->fd, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
}

static void on_look(struct display *d)
{
	uint32_t m[5];
	struct surface *s;

	take(d, m, sizeof(m));
	s = surface(d, m[0]);
	CHECK(s->dmabuf >= 0);
	CHECK(m[3] && m[4] && m[1] + m[3] <= s->w && m[2] + m[4] <= s->h);
	memcpy(s->look, m + 1, sizeof(s->look));
	if (!d->absorbed)
		looked(d);
}

static void on_update(struct display *d, uint32_t size)
{
	uint32_t m[5];
	struct surface *s;

	take(d, m, sizeof(m));
	s = surface(d, m[0]);
	CHECK(s->pixels != NULL);
	CHECK(m[3] && m[4] && m[1] + m[3] <= s->w && m[2] + m[4] <= s->h);
	CHECK_EQ(size, sizeof(m) + m[3] * m[4] * 4);
	for (uint32_t y = 0; y < m[4]; y++)
		take(d, s->pixels + (m[2] + y) * s->w + m[1], m[3] * 4);
	d->bytes += size;
}

static void on_cursor(struct display *d, const struct header *h)
{
	uint32_t pos[3], hot[2];
	struct surface *s;

	take(d, pos, sizeof(pos));
	s = surface(d, pos[0]);
	s->cursor_x = pos[1];
	s->cursor_y = pos[2];
	s->cursor_visible = h->request != CURSOR_POS_HIDE;
	if (h->request != CURSOR_UPDATE)
		return;
	CHECK_EQ(h->size, 12 + 8 + 64 * 64 * 4);
	take(d, hot, sizeof(hot));
	s->hot_x = hot[0];
	s->hot_y = hot[1];
	take(d, s->cursor, sizeof(s->cursor));
}

static void on_display_info(struct display *d)
{
	struct virtio_gpu_resp_display_info info = {.hdr.type = VIRTIO_GPU_RESP_OK_DISPLAY_INFO};

	info.pmodes[0].enabled = 1;
	info.pmodes[0].r = (struct virtio_gpu_rect){0, 0, 1111, 777};
	CHECK_EQ(sizeof(info), 408);
	if (!d->silent)
		answer(d, GET_DISPLAY_INFO, &info, sizeof(info));
}

static void on_edid(struct display *d)
{
	struct virtio_gpu_resp_edid edid = {
		.hdr.type = VIRTIO_GPU_RESP_OK_EDID, .size = 256, .edid = "monitor"};
	uint32_t scanout;

	take(d, &scanout, sizeof(scanout));
	CHECK(d->accepted & F_EDID);
	CHECK_EQ(sizeof(edid), 1056);
	if (scanout < OUTPUTS && !d->silent) /* else QEMU says nothing */
		answer(d, GET_EDID, &edid, sizeof(edid));
}

bool serve(struct display *d, int ms)
{
	struct header h;
	char probe;
	int fd;

	if (!fe_poll(d->fd, POLLIN, ms) || recv(d->fd, &probe, 1, MSG_PEEK) <= 0)
		return false;
	fd = recv_fd(d, &h, sizeof(h));
	CHECK(fd < 0 || h.request == DMABUF_SCANOUT || h.request == DMABUF_SCANOUT2);
	CHECK_EQ(h.flags, 0);
	CHECK(h.request > 0 && h.request < MESSAGES);
	d->count[h.request]++;
	switch (h.request) {
	case GET_PROTOCOL_FEATURES:
		CHECK_EQ(h.size, 0);
		answer(d, GET_PROTOCOL_FEATURES, &d->features, 8);
		break;
	case SET_PROTOCOL_FEATURES:
		CHECK_EQ(h.size, 8);
		take(d, &d->accepted, 8);
		CHECK_EQ(d->accepted & ~d->features, 0);
		break;
	case GET_DISPLAY_INFO:
		CHECK_EQ(h.size, 0);
		on_display_info(d);
		break;
	case GET_EDID:
		CHECK_EQ(h.size, 4);
		on_edid(d);
		break;
	case SCANOUT:
		CHECK_EQ(h.size, 12);
		on_scanout(d);
		break;
	case UPDATE:
		on_update(d, h.size);
		break;
	case CURSOR_POS:
	case CURSOR_POS_HIDE:
	case CURSOR_UPDATE:
		on_cursor(d, &h);
		break;
	case DMABUF_SCANOUT:
	case DMABUF_SCANOUT2:
		on_dmabuf(d, &h, fd);
		break;
	case DMABUF_UPDATE:
		CHECK_EQ(h.size, 20);
		on_look(d);
		break;
	default:
		FAIL("message %u was not expected", h.request);
	}
	return true;
}

void drop(struct display *d)
{
	for (unsigned i = 0; i < OUTPUTS; i++) {
		free(d->s[i].pixels);
		if (d->s[i].dmabuf >= 0)
			close(d->s[i].dmabuf);
	}
	if (d->fd >= 0)
		close(d->fd);
	*d = (struct display){.fd = -1, .s = {{.dmabuf = -1}, {.dmabuf = -1}}};
}

void plug(struct rig *r, struct display *d, uint64_t features)
{
	int sv[2];

	*d = (struct display){.fd = -1, .features = features, .s = {{.dmabuf = -1}, {.dmabuf = -1}}};
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fe_set(&r->fe, FE_GPU_SET_SOCKET, NULL, 0, &sv[1], 1);
	close(sv[1]);
	d->fd = sv[0];
}

void plug_and_greet(struct rig *r, struct display *d, uint64_t features)
{
	plug(r, d, features);
	while (!d->count[SET_PROTOCOL_FEATURES])
		CHECK(serve(d, fe_limit_ms));
	CHECK_EQ(d->count[GET_PROTOCOL_FEATURES], 1);
}

/* at: where it is not. */
static bool is_picture(const struct surface *s, const uint32_t *want, uint32_t w, uint32_t h, uint32_t *at)
{
	const uint8_t *map = (const uint8_t *)s->pixels;
	uint32_t stride = s->stride, x, y;
	size_t size = (size_t)s->stride * s->fd_h;

	*at = 0;
	if (s->w != w || s->h != h || (s->dmabuf < 0 && !s->pixels))
		return false;
	if (s->dmabuf < 0) {
		stride = w * 4;
	} else {
		map = mmap(NULL, size, PROT_READ, MAP_SHARED, s->dmabuf, 0);
		CHECK(map != MAP_FAILED);
	}
	for (; *at < w * h; ++*at) {
		x = *at % w + (s->dmabuf < 0 ? 0 : s->x);
		y = *at / w + (s->dmabuf < 0 ? 0 : s->y);
		if ((*(const uint32_t *)(const void *)(map + y * stride + x * 4) ^ want[*at]) & 0xffffff)
			break;
	}
	if (s->dmabuf >= 0)
		munmap((void *)(uintptr_t)map, size);
	return *at == w * h;
}

void displays(struct display *d, unsigned scanout, const uint32_t *want, uint32_t w, uint32_t h)
{
	struct surface *s = &d->s[scanout];
	int64_t end = fe_now_ms() + fe_limit_ms;
	uint32_t i;

	for (;;) {
		if (is_picture(s, want, w, h, &i))
			return;
		if (!serve(d, (int)(end - fe_now_ms())))
			FAIL("scanout %u: %ux%u, pixel %u,%u is not as it should be", scanout, s->w, s->h,
				i % w, i / w);
	}
}
