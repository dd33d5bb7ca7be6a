/* SPDX-License-Identifier: MIT */
/*
 * Pictures that the front-end's display looks at without a copy: the messages with a dmabuf. The program is the gpu with a
 * renderer that pretends (gpu-3d-pretend.c), so that it can be tested where no GPU exports anything.
 */
#include "gpu-screen.h"

#include <sys/socket.h>

#include "gpu-pretend.h"

enum { W = 160, H = 120, XR24 = 0x34325258 };

static uint32_t *picture_3d(struct rig *r, uint32_t id, uint32_t bind, unsigned seed)
{
	struct virtio_gpu_resource_create_3d c = {HDR(RESOURCE_CREATE_3D), .resource_id = id, .target = 2,
		.format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, .bind = bind, .width = W, .height = H, .depth = 1,
		.array_size = 1, .flags = 1};
	uint32_t *pixels;
	uint64_t gpa;

	pixels = fe_alloc(&r->fe, W * H * 4, 4096, &gpa);
	draw(pixels, W, H, seed);
	CHECK_EQ(rig_status(r, &c, sizeof(c), NULL, 0), OK);
	CHECK_EQ(attach_one(r, id, gpa, W * H * 4), OK);
	return pixels;
}

static void render(struct rig *r, uint32_t id)
{
	CHECK_EQ(RIG_DO(r, (struct virtio_gpu_transfer_host_3d){HDR(TRANSFER_TO_HOST_3D),
				   .box = {.w = W, .h = H, .d = 1}, .resource_id = id}),
		OK);
}

static void start(struct rig *r, struct display *d, const struct fe_mode *m, uint64_t features)
{
	rig_start(r, m, FE_ARGS("--virgl"));
	plug_and_greet(r, d, features);
}

static void end(struct rig *r, struct display *d)
{
	drop(d);
	fe_end(&r->fe);
}

/* Serves until so many of these have come. */
static void counts(struct display *d, unsigned message, unsigned n)
{
	while (d->count[message] < n)
		CHECK(serve(d, fe_limit_ms));
	CHECK_EQ(d->count[message], n);
}

/* Nothing more is under way. */
static void quiet(struct rig *r, struct display *d)
{
	CHECK_EQ(create_2d(r, 99, 2, 1, 1), OK);
	CHECK_EQ(unref(r, 99), OK);
	while (serve(d, 50))
		;
}

static void works(const struct fe_mode *m)
{
	uint32_t *a, *b, part[50 * 40];
	struct display d;
	struct rig r;

	start(&r, &d, m, F_EDID | F_DMABUF2);
	CHECK_EQ(d.accepted, F_EDID | F_DMABUF2);
	a = picture_3d(&r, 1, 0, 1);
	render(&r, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	displays(&d, 0, a, W, H);
	CHECK_EQ(d.s[0].stride, W * 4);
	CHECK_EQ(d.s[0].fourcc, XR24);
	CHECK_EQ(d.s[0].flags, 1);
	CHECK_EQ(d.s[0].modifier, 0);
	counts(&d, DMABUF_UPDATE, 1);
	CHECK_EQ(d.count[DMABUF_SCANOUT2], 1);
	CHECK_EQ(d.s[0].look[2], W);

	/* damage, and no more than that */
	draw(a, W, H, 2);
	render(&r, 1);
	CHECK_EQ(flush(&r, 1, 10, 20, 30, 40), OK);
	counts(&d, DMABUF_UPDATE, 2);
	CHECK_EQ(d.s[0].look[0], 10);
	CHECK_EQ(d.s[0].look[1], 20);
	CHECK_EQ(d.s[0].look[2], 30);
	CHECK_EQ(d.s[0].look[3], 40);
	displays(&d, 0, a, W, H);
	shows(&r, 0, a, W, H); /* a screenshot is read back all the same */

	/* another picture, a part of it, another output */
	b = picture_3d(&r, 2, 0, 3);
	render(&r, 2);
	CHECK_EQ(set_scanout(&r, 0, 2, 5, 6, 50, 40), OK);
	for (uint32_t i = 0; i < 50 * 40; i++)
		part[i] = b[(i / 50 + 6) * W + i % 50 + 5];
	displays(&d, 0, part, 50, 40);
	CHECK_EQ(set_scanout(&r, 1, 1, 0, 0, W, H), OK);
	displays(&d, 1, a, W, H);
	quiet(&r, &d);
	CHECK_EQ(d.count[DMABUF_SCANOUT2], 3);
	CHECK_EQ(d.count[DMABUF_UPDATE], 4);
	CHECK_EQ(d.count[SCANOUT] + d.count[UPDATE] + d.count[DMABUF_SCANOUT], 0);
	end(&r, &d);
}

/* Between pixels and dmabufs, and off. */
static void changes(const struct fe_mode *m)
{
	uint32_t *three, *flat;
	struct display d;
	struct rig r;

	start(&r, &d, m, F_EDID | F_DMABUF2);
	flat = picture(&r, 1, W, H, 1);
	three = picture_3d(&r, 2, 0, 2);
	render(&r, 2);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
		displays(&d, 0, flat, W, H);
		CHECK_EQ(d.count[SCANOUT], i + 1); /* a new surface, though it is as large */
		CHECK_EQ(set_scanout(&r, 0, 2, 0, 0, W, H), OK);
		displays(&d, 0, three, W, H);
	}
	CHECK_EQ(set_scanout(&r, 0, 0, 0, 0, 0, 0), OK);
	while (d.s[0].w || d.s[0].dmabuf >= 0)
		CHECK(serve(&d, fe_limit_ms));
	CHECK_EQ(set_scanout(&r, 0, 2, 0, 0, W, H), OK);
	displays(&d, 0, three, W, H);
	/* the resource goes: so does the picture, on every output */
	CHECK_EQ(set_scanout(&r, 1, 2, 0, 0, W, H), OK);
	displays(&d, 1, three, W, H);
	CHECK_EQ(unref(&r, 2), OK);
	while (d.s[0].w || d.s[0].dmabuf >= 0 || d.s[1].w || d.s[1].dmabuf >= 0)
		CHECK(serve(&d, fe_limit_ms));
	/* a reset, in the middle */
	three = picture_3d(&r, 3, 0, 2);
	render(&r, 3);
	CHECK_EQ(set_scanout(&r, 0, 3, 0, 0, W, H), OK);
	displays(&d, 0, three, W, H);
	fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	while (d.s[0].w || d.s[0].dmabuf >= 0)
		CHECK(serve(&d, fe_limit_ms));
	end(&r, &d);
}

/* Which message, by what the renderer and the front-end know; pixels where neither fits. */
static void modifiers(const struct fe_mode *m)
{
	static const struct {
		uint32_t bind;
		uint64_t features;
		unsigned message;
		uint64_t modifier;
	} row[] = {
		{0, F_DMABUF2, DMABUF_SCANOUT2, 0},
		{0, 0, DMABUF_SCANOUT, 0},
		{PRETEND_UNKNOWN, F_DMABUF2, DMABUF_SCANOUT, 0},
		{PRETEND_UNKNOWN, 0, DMABUF_SCANOUT, 0},
		{PRETEND_TILED, F_DMABUF2, DMABUF_SCANOUT2, PRETEND_MODIFIER},
		{PRETEND_TILED, 0, SCANOUT, 0},
		{PRETEND_NO_EXPORT, F_DMABUF2, SCANOUT, 0},
		{PRETEND_NO_EXPORT, 0, SCANOUT, 0},
	};
	struct display d;
	uint32_t *pixels;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--virgl"));
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		plug_and_greet(&r, &d, F_EDID | row[i].features);
		pixels = picture_3d(&r, 1, row[i].bind, i);
		render(&r, 1);
		CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
		displays(&d, 0, pixels, W, H);
		CHECK_EQ(d.count[row[i].message], 1);
		CHECK_EQ(d.count[SCANOUT] + d.count[DMABUF_SCANOUT] + d.count[DMABUF_SCANOUT2], 1);
		CHECK_EQ(d.s[0].modifier, row[i].modifier);
		CHECK_EQ(d.s[0].dmabuf < 0, row[i].message == SCANOUT);
		CHECK_EQ(unref(&r, 1), OK);
		drop(&d);
	}
	end(&r, &d);
}

static void fds_are(struct rig *r, unsigned want)
{
	int64_t limit = fe_now_ms() + fe_limit_ms;

	while (fe_process_fds(&r->fe.process) != want)
		CHECK(fe_now_ms() < limit);
}

/* A display that looks for ever: the guest goes on, what it does is collected, other outputs are shown. */
static void absorbed(const struct fe_mode *m)
{
	uint32_t *a, *b, *flat;
	struct display d;
	unsigned fds;
	struct rig r;

	start(&r, &d, m, F_EDID | F_DMABUF2);
	d.absorbed = true;
	a = picture_3d(&r, 1, 0, 1);
	b = picture_3d(&r, 2, 0, 2);
	render(&r, 1);
	render(&r, 2);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	displays(&d, 0, a, W, H);
	counts(&d, DMABUF_UPDATE, 1);
	fds = fe_process_fds(&r.fe.process);
	for (unsigned i = 0; i < 200; i++) {
		CHECK_EQ(flush(&r, 1, i % 100, i % 80, 7, 7), OK);
		CHECK_EQ(set_scanout(&r, 0, 1 + i % 2, 0, 0, W, H), OK);
	}
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	CHECK_EQ(flush(&r, 1, 1, 2, 3, 4), OK);
	cursor(&r, CMD(UPDATE_CURSOR), 0, 0, 1, 1, 0, 0);
	counts(&d, CURSOR_POS_HIDE, 1);
	flat = picture(&r, 3, 64, 64, 3);
	CHECK_EQ(set_scanout(&r, 1, 3, 0, 0, 64, 64), OK);
	displays(&d, 1, flat, 64, 64);
	CHECK_EQ(set_scanout(&r, 1, 2, 0, 0, W, H), OK); /* looks at another one too */
	displays(&d, 1, b, W, H);
	counts(&d, DMABUF_UPDATE, 2);
	quiet(&r, &d);
	CHECK_EQ(d.count[DMABUF_SCANOUT2], 2);
	CHECK_EQ(d.count[DMABUF_UPDATE], 2);
	fds_are(&r, fds);

	/* it has looked: all that is one update; in the order of the questions */
	looked(&d);
	counts(&d, DMABUF_UPDATE, 3);
	CHECK_EQ(d.count[DMABUF_SCANOUT2], 3);
	CHECK_EQ(d.s[0].look[2], W);
	CHECK_EQ(flush(&r, 1, 0, 0, 1, 1), OK);
	CHECK_EQ(flush(&r, 2, 8, 9, 10, 11), OK);
	looked(&d);
	counts(&d, DMABUF_UPDATE, 4);
	CHECK_EQ(d.s[1].look[0], 8);
	CHECK_EQ(d.s[1].look[3], 11);
	/* pictures go while it looks: off when it has */
	CHECK_EQ(unref(&r, 1), OK);
	CHECK_EQ(unref(&r, 2), OK);
	quiet(&r, &d);
	CHECK(d.s[0].dmabuf >= 0 && d.s[1].dmabuf >= 0);
	looked(&d);
	looked(&d);
	while (d.s[0].dmabuf >= 0 || d.s[1].dmabuf >= 0 || d.s[0].w || d.s[1].w)
		CHECK(serve(&d, fe_limit_ms));
	fds_are(&r, fds - 2); /* the pictures themselves */
	end(&r, &d);
}

/* A new socket, while the old one looks, or has not even read the message with the descriptor. */
static void replaced(const struct fe_mode *m)
{
	struct display d, old;
	uint32_t *pixels;
	unsigned fds;
	struct rig r;

	start(&r, &d, m, F_EDID | F_DMABUF2);
	d.absorbed = true;
	pixels = picture_3d(&r, 1, 0, 1);
	render(&r, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	fds = fe_process_fds(&r.fe.process);
	for (unsigned i = 0; i < 6; i++) {
		if (i % 3)
			counts(&d, DMABUF_UPDATE, 1);
		old = d;
		plug(&r, &d, F_EDID | F_DMABUF2);
		d.absorbed = true;
		draw(pixels, W, H, i);
		render(&r, 1);
		CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
		displays(&d, 0, pixels, W, H);
		counts(&d, DMABUF_UPDATE, 1);
		drop(&old);
		fds_are(&r, fds);
	}
	/* it goes, and the VM with it */
	drop(&d);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	shows(&r, 0, pixels, W, H);
	end(&r, &d);
}

/* Answers to what nobody asked. */
static void hostile(const struct fe_mode *m)
{
	uint32_t wrong[][5] = {{DMABUF_UPDATE, 4, 0}, {DMABUF_UPDATE, 0, 0}, {DMABUF_UPDATE, 4, 8},
		{DMABUF_SCANOUT, 4, 0}, {DMABUF_SCANOUT2, 4, 0}};
	struct display d;
	uint32_t *pixels;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--virgl"));
	pixels = picture_3d(&r, 1, 0, 1);
	render(&r, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		plug_and_greet(&r, &d, F_EDID | F_DMABUF2);
		d.absorbed = i > 0;
		counts(&d, DMABUF_UPDATE, 1);
		CHECK_EQ(send(d.fd, wrong[i], 12 + wrong[i][2], MSG_NOSIGNAL), 12 + wrong[i][2]);
		CHECK(fe_poll(d.fd, POLLHUP, fe_limit_ms));
		drop(&d);
		CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	}
	plug_and_greet(&r, &d, F_EDID | F_DMABUF2);
	displays(&d, 0, pixels, W, H);
	end(&r, &d);
}

int main(void)
{
	static const struct fe_mode split = {0};
	static char program[4096];
	const char *build = getenv("builddir_abs");

	snprintf(program, sizeof(program), "%s/tests/device/gpu-pretend", build ? build : ".");
	setenv("VUM", program, 1);
	fe_each_layout("works", works);
	fe_each_layout("pixels and dmabufs in turn", changes);
	fe_case("modifiers", modifiers, &split);
	fe_each_layout("a display that never answers", absorbed);
	fe_each_layout("a display that is replaced", replaced);
	fe_case("a hostile display", hostile, &split);
	return tap_done();
}
