/* SPDX-License-Identifier: MIT */
/*
 * The gpu with --virgl, on whatever OpenGL this host has, usually Mesa's software renderer: pictures through 3D resources,
 * a picture that the renderer makes, fences, what a guest does wrong, resets.
 */
#include "gpu-rig.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>

static const struct fe_mode split = {0};

enum { TEXTURE_2D = 2, RENDER_TARGET = 1 << 1, SAMPLER_VIEW = 1 << 3, Y_0_TOP = 1 };
enum { BGRA = VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM };

/* virglrenderer's commands: opcode, object type << 8, words that follow << 16 */
enum { CREATE_OBJECT = 1, SET_FRAMEBUFFER = 5, CLEAR = 7, OBJECT_SURFACE = 8, CLEAR_COLOR0 = 1 << 2 };

static void start(struct rig *r, const struct fe_mode *m, const char *option)
{
	struct virtio_gpu_config config;

	/* libraries of others keep what they allocated */
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	rig_start(r, m, FE_ARGS("--virgl", option));
	CHECK(r->fe.offered >> VIRTIO_GPU_F_VIRGL & 1);
	fe_config_get(&r->fe, 0, &config, sizeof(config));
	CHECK(config.num_capsets >= 1);
}

static uint32_t ctx_create(struct rig *r, uint32_t ctx)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_create){
				 HDR(CTX_CREATE), .hdr.ctx_id = ctx, .nlen = 4, .debug_name = "test"});
}

static uint32_t ctx_create_of(struct rig *r, uint32_t ctx, uint32_t set)
{
	return RIG_DO(
		r, (struct virtio_gpu_ctx_create){HDR(CTX_CREATE), .hdr.ctx_id = ctx, .context_init = set});
}

static uint32_t ctx_destroy(struct rig *r, uint32_t ctx)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_destroy){HDR(CTX_DESTROY), .hdr.ctx_id = ctx});
}

static uint32_t ctx_attach(struct rig *r, uint32_t ctx, uint32_t id)
{
	return RIG_DO(r, (struct virtio_gpu_ctx_resource){
				 HDR(CTX_ATTACH_RESOURCE), .hdr.ctx_id = ctx, .resource_id = id});
}

static uint32_t create_3d(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h, uint32_t flags)
{
	return RIG_DO(r, (struct virtio_gpu_resource_create_3d){HDR(RESOURCE_CREATE_3D), .resource_id = id,
				 .target = TEXTURE_2D, .format = format, .bind = RENDER_TARGET | SAMPLER_VIEW,
				 .width = w, .height = h, .depth = 1, .array_size = 1, .flags = flags});
}

static uint32_t transfer_3d(struct rig *r, uint32_t type, uint32_t ctx, uint32_t id,
	struct virtio_gpu_box box, uint64_t offset, uint32_t stride)
{
	return RIG_DO(r, (struct virtio_gpu_transfer_host_3d){.hdr.type = type,
				 .hdr.ctx_id = ctx,
				 .box = box,
				 .offset = offset,
				 .resource_id = id,
				 .stride = stride});
}

static uint32_t submit(struct rig *r, uint32_t ctx, const void *words, uint32_t size)
{
	struct virtio_gpu_cmd_submit c = {HDR(SUBMIT_3D), .hdr.ctx_id = ctx, .size = size};

	return rig_status(r, &c, sizeof(c), words, size);
}

/* A 3D resource with a drawing in it. */
static uint32_t *picture_3d(struct rig *r, uint32_t id, uint32_t w, uint32_t h, unsigned seed, uint32_t flags)
{
	struct virtio_gpu_box all = {.w = w, .h = h, .d = 1};
	uint32_t *pixels;
	uint64_t gpa;

	pixels = fe_alloc(&r->fe, w * h * 4, 4096, &gpa);
	draw(pixels, w, h, seed);
	CHECK_EQ(create_3d(r, id, BGRA, w, h, flags), OK);
	CHECK_EQ(attach_one(r, id, gpa, w * h * 4), OK);
	CHECK_EQ(transfer_3d(r, CMD(TRANSFER_TO_HOST_3D), 0, id, all, 0, w * 4), OK);
	return pixels;
}

static void shows_3d(const struct fe_mode *m)
{
	enum { W = 96, H = 80 };
	uint32_t *pixels, *back;
	struct rig r;

	start(&r, m, NULL);
	for (uint32_t flags = 0; flags <= Y_0_TOP; flags++) {
		pixels = picture_3d(&r, 1 + flags, W, H, flags, flags);
		CHECK_EQ(set_scanout(&r, 0, 1 + flags, 0, 0, W, H), OK);
		CHECK_EQ(flush(&r, 1 + flags, 0, 0, W, H), OK);
		shows(&r, 0, pixels, W, H);
	}
	/* a part of it, there and back */
	pixels = picture_3d(&r, 3, W, H, 7, 0);
	back = malloc(W * H * 4);
	memcpy(back, pixels, W * H * 4);
	memset(pixels + 10 * W, 0, W * 4);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 0, 3,
			 (struct virtio_gpu_box){.x = 0, .y = 10, .w = W, .h = 1, .d = 1}, 10 * W * 4, W * 4),
		OK);
	for (unsigned i = 0; i < W; i++)
		CHECK_EQ(pixels[10 * W + i] & 0xffffff, back[10 * W + i] & 0xffffff);
	free(back);
	/* 2D goes on beside it */
	pixels = picture(&r, 9, 64, 64, 3);
	CHECK_EQ(set_scanout(&r, 0, 9, 0, 0, 64, 64), OK);
	shows(&r, 0, pixels, 64, 64);
	cursor(&r, CMD(UPDATE_CURSOR), 0, 3, 0, 0, 0, 0);
	fe_end(&r.fe);
}

static void clear(struct rig *r, uint32_t ctx, uint32_t id, const float colour[4])
{
	uint32_t words[] = {CREATE_OBJECT | OBJECT_SURFACE << 8 | 5 << 16, 1, id, BGRA, 0, 0,
		SET_FRAMEBUFFER | 3 << 16, 1, 0, 1, CLEAR | 8 << 16, CLEAR_COLOR0, 0, 0, 0, 0, 0, 0, 0};

	memcpy(&words[12], colour, 16);
	CHECK_EQ(submit(r, ctx, words, sizeof(words)), OK);
}

/* A context that is spoilt: only that one; what it showed stays, and another of the same number is as good as new. */
static void lost_context(const struct fe_mode *m)
{
	static const uint32_t garbage[64] = {0xffffffff, 0x00400001, 7, 7, 7};
	const float colours[3][4] = {{0, 0, 1, 1}, {0, 1, 0, 1}, {1, 0, 0, 1}};
	const uint32_t words[] = {0x0000ff, 0x00ff00, 0xff0000};
	enum { W = 64, H = 48 };
	static uint32_t want[W * H];
	uint32_t *flat, ctx;
	struct rig r;

	start(&r, m, NULL);
	for (ctx = 1; ctx <= 2; ctx++) {
		CHECK_EQ(ctx_create(&r, ctx), OK);
		CHECK_EQ(create_3d(&r, ctx, BGRA, W, H, Y_0_TOP), OK);
		CHECK_EQ(ctx_attach(&r, ctx, ctx), OK);
	}
	clear(&r, 1, 1, colours[0]);
	CHECK(submit(&r, 1, garbage, sizeof(garbage)) != OK);
	CHECK(submit(&r, 1, garbage, sizeof(garbage)) != OK);
	for (unsigned i = 0; i < 3; i++) {
		if (i == 2) {
			CHECK_EQ(ctx_destroy(&r, 1), OK);
			CHECK_EQ(ctx_create(&r, 1), OK);
			CHECK_EQ(ctx_attach(&r, 1, 1), OK);
		}
		if (i)
			clear(&r, i == 1 ? 2 : 1, i == 1 ? 2 : 1, colours[i]);
		CHECK_EQ(set_scanout(&r, 0, i == 1 ? 2 : 1, 0, 0, W, H), OK);
		for (unsigned k = 0; k < W * H; k++)
			want[k] = words[i];
		shows(&r, 0, want, W, H);
	}
	flat = picture(&r, 9, W, H, 3);
	CHECK_EQ(set_scanout(&r, 0, 9, 0, 0, W, H), OK);
	shows(&r, 0, flat, W, H);
	fe_end(&r.fe);
}

/* Contexts that say which capability set they are of. */
static void context_init(const struct fe_mode *m)
{
	const float colour[4] = {0.2f, 0.4f, 0.6f, 1};
	static uint32_t want[64 * 48];
	struct virtio_gpu_config config;
	uint32_t n;
	struct rig r;

	start(&r, m, NULL);
	CHECK(r.fe.offered >> VIRTIO_GPU_F_CONTEXT_INIT & 1);
	fe_config_get(&r.fe, 0, &config, sizeof(config));
	n = config.num_capsets;
	CHECK_EQ(ctx_create_of(&r, 1, n + 1), ERR(INVALID_PARAMETER));
	CHECK_EQ(ctx_create_of(&r, 1, 0x100 | n), ERR(INVALID_PARAMETER));
	for (uint32_t set = 0; set <= n; set++) {
		CHECK_EQ(ctx_create_of(&r, 5 + set, set), OK);
		CHECK_EQ(create_3d(&r, 1 + set, BGRA, 64, 48, Y_0_TOP), OK);
		CHECK_EQ(ctx_attach(&r, 5 + set, 1 + set), OK);
		CHECK_EQ(set_scanout(&r, 0, 1 + set, 0, 0, 64, 48), OK);
		clear(&r, 5 + set, 1 + set, colour);
		CHECK_EQ(flush(&r, 1 + set, 0, 0, 64, 48), OK);
		for (unsigned i = 0; i < 64 * 48; i++)
			want[i] = 0x336699;
		shows(&r, 0, want, 64, 48);
	}
	fe_end(&r.fe);
}

/* What is written to guest memory outside of any buffer is in the dirty log. */
static void logs(const struct fe_mode *m)
{
	struct virtio_gpu_box all = {.w = 64, .h = 64, .d = 1};
	uint32_t *pixels;
	struct rig r;
	uint64_t gpa;

	start(&r, m, NULL);
	pixels = picture_3d(&r, 1, 64, 64, 1, 0);
	gpa = fe_gpa(&r.fe, pixels);
	fe_alloc(&r.fe, 4096, 4096, NULL); /* between it and the answers */
	fe_log_set(&r.fe, 1 << 18, 0);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 0, 1, all, 0, 256), OK);
	CHECK(!fe_log_dirty(&r.fe, gpa));
	fe_set_features(&r.fe, r.fe.features | BIT(FE_F_LOG_ALL));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), OK);
	CHECK(!fe_log_dirty(&r.fe, gpa));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 0, 1, all, 0, 256), OK);
	for (unsigned page = 0; page < 4; page++)
		CHECK(fe_log_dirty(&r.fe, gpa + page * 4096));
	CHECK(!fe_log_dirty(&r.fe, gpa + 4 * 4096));
	fe_end(&r.fe);
}

/* What the renderer draws is on the screen. */
static void renders(const struct fe_mode *m)
{
	const float colour[4] = {0.2f, 0.4f, 0.6f, 1};
	enum { W = 64, H = 48 };
	static uint32_t want[W * H];
	struct rig r;

	start(&r, m, NULL);
	CHECK_EQ(ctx_create(&r, 5), OK);
	CHECK_EQ(create_3d(&r, 1, BGRA, W, H, Y_0_TOP), OK);
	CHECK_EQ(ctx_attach(&r, 5, 1), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	clear(&r, 5, 1, colour);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	for (unsigned i = 0; i < W * H; i++)
		want[i] = 0x336699;
	shows(&r, 0, want, W, H);
	CHECK_EQ(ctx_destroy(&r, 5), OK);
	fe_end(&r.fe);
}

/* The next message of the display protocol, which must have that id; its payload of size bytes. */
static void display_takes(int fd, uint32_t id, void *payload, size_t size)
{
	uint8_t *p = payload;
	uint32_t h[3];
	size_t got = 0;
	ssize_t n;

	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(recv(fd, h, sizeof(h), MSG_WAITALL), sizeof(h));
	CHECK_EQ(h[0], id);
	CHECK_EQ(h[2], size);
	while (got < size) {
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		n = recv(fd, p + got, size - got, 0);
		CHECK(n > 0);
		got += (size_t)n;
	}
}

/* The same on the front-end's display: features (1, 2), a surface (7), its pixels (8): nothing here exports a dmabuf. */
static void displays(const struct fe_mode *m)
{
	const float colour[4] = {0.2f, 0.4f, 0.6f, 1};
	enum { W = 64, H = 48 };
	struct {
		uint32_t scanout, x, y, w, h, pixels[W * H];
	} update;
	uint32_t hello[5] = {1, 4, 8, 2, 0}, features[2], scanout[3];
	struct rig r;
	int sv[2];

	start(&r, m, NULL);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fe_set(&r.fe, FE_GPU_SET_SOCKET, NULL, 0, &sv[1], 1);
	close(sv[1]);
	display_takes(sv[0], 1, NULL, 0);
	CHECK_EQ(send(sv[0], hello, sizeof(hello), 0), sizeof(hello));
	display_takes(sv[0], 2, features, sizeof(features));
	CHECK_EQ(ctx_create(&r, 5), OK);
	CHECK_EQ(create_3d(&r, 1, BGRA, W, H, Y_0_TOP), OK);
	CHECK_EQ(ctx_attach(&r, 5, 1), OK);
	CHECK_EQ(set_scanout(&r, 3, 1, 0, 0, W, H), OK);
	display_takes(sv[0], 7, scanout, sizeof(scanout));
	CHECK_EQ(scanout[0], 3);
	CHECK_EQ(scanout[1], W);
	display_takes(sv[0], 8, &update, sizeof(update));
	clear(&r, 5, 1, colour);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	display_takes(sv[0], 8, &update, sizeof(update));
	CHECK_EQ(update.w, W);
	CHECK_EQ(update.h, H);
	for (unsigned i = 0; i < W * H; i++)
		CHECK_EQ(update.pixels[i] & 0xffffff, 0x336699);
	close(sv[0]);
	fe_end(&r.fe);
}

static void capsets(const struct fe_mode *m)
{
	struct virtio_gpu_get_capset_info get_info = {HDR(GET_CAPSET_INFO)};
	struct virtio_gpu_get_capset get = {HDR(GET_CAPSET)};
	struct virtio_gpu_resp_capset_info info;
	struct virtio_gpu_resp_capset *caps;
	struct rig r;

	start(&r, m, NULL);
	CHECK_EQ(rig_command(&r, &get_info, sizeof(get_info), NULL, 0, &info, sizeof(info)), sizeof(info));
	CHECK_EQ(info.hdr.type, VIRTIO_GPU_RESP_OK_CAPSET_INFO);
	CHECK_EQ(info.capset_id, VIRTIO_GPU_CAPSET_VIRGL);
	CHECK(info.capset_max_size > 0 && info.capset_max_size < 65536);
	caps = calloc(1, sizeof(*caps) + info.capset_max_size);
	get.capset_id = info.capset_id;
	get.capset_version = info.capset_max_version;
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, caps, sizeof(*caps) + info.capset_max_size),
		sizeof(*caps) + info.capset_max_size);
	CHECK_EQ(caps->hdr.type, VIRTIO_GPU_RESP_OK_CAPSET);
	CHECK(caps->capset_data[0] | caps->capset_data[4] | caps->capset_data[8]);
	free(caps);
	get.capset_version++;
	CHECK_EQ(RIG_DO(&r, get), ERR(INVALID_PARAMETER));
	get.capset_id = 77;
	CHECK_EQ(RIG_DO(&r, get), ERR(INVALID_PARAMETER));
	get_info.capset_index = 9;
	CHECK_EQ(RIG_DO(&r, get_info), ERR(INVALID_PARAMETER));
	fe_end(&r.fe);
}

/* Fenced commands of both kinds, many at once: answered in their order, also when the queue stops meanwhile. */
static void fences(const struct fe_mode *m)
{
	enum { N = 12, RING = VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX };
	struct virtio_gpu_ctrl_hdr *answer[N];
	struct virtio_gpu_resource_flush *c;
	struct rig r;
	uint32_t base = 0;

	start(&r, m, NULL);
	picture_3d(&r, 1, 64, 64, 1, 0);
	picture(&r, 2, 64, 64, 1);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++) {
			struct vring_driver_buf b[2];

			c = fe_alloc(&r.fe, sizeof(*c), 8, NULL);
			*c = (struct virtio_gpu_resource_flush){HDR(RESOURCE_FLUSH),
				.hdr.flags = i % 4 == 3 ? RING : VIRTIO_GPU_FLAG_FENCE,
				.hdr.fence_id = 100 + i, .hdr.ring_idx = i % 4 == 3,
				.resource_id = i % 3 == 2 ? 99 : 1 + i % 2};
			answer[i] = fe_alloc(&r.fe, sizeof(*answer[i]), 8, NULL);
			b[0] = fe_rd(&r.fe, c, sizeof(*c));
			b[1] = fe_wr(&r.fe, answer[i], sizeof(*answer[i]));
			fe_submit(r.control, b, 2, answer[i]);
		}
		fe_flush(r.control);
		if (round)
			base = fe_queue_stop(r.control);
		for (unsigned i = 0; i < N; i++) {
			void *cookie;

			CHECK_EQ(fe_wait(r.control, &cookie), sizeof(*answer[i]));
			CHECK(cookie == answer[i]);
			CHECK_EQ(answer[i]->fence_id, 100 + i);
			CHECK_EQ(answer[i]->flags, i % 4 == 3 ? RING : VIRTIO_GPU_FLAG_FENCE);
			CHECK_EQ(answer[i]->ring_idx, i % 4 == 3);
			CHECK_EQ(answer[i]->type, i % 3 == 2 ? ERR(INVALID_RESOURCE_ID) : OK);
		}
	}
	fe_queue_send(r.control, base);
	CHECK_EQ(create_2d(&r, 7, 1, 8, 8), OK);
	fe_end(&r.fe);
}

static void hostile(const struct fe_mode *m)
{
	static const uint32_t garbage[64] = {0xffffffff, 0x00400001, 7, 7, 7};
	struct virtio_gpu_box all = {.w = 64, .h = 64, .d = 1}, far = {.x = 60, .w = 64, .h = 64, .d = 1},
			      wrap = {.x = 0xfffffff0, .w = 0x20, .h = 1, .d = 1};
	struct virtio_gpu_cmd_submit liar = {HDR(SUBMIT_3D), .hdr.ctx_id = 1, .size = 0xfffffffc};
	uint32_t *pixels;
	struct rig r;
	uint64_t gpa;

	start(&r, m, NULL);
	CHECK_EQ(ctx_create(&r, 0), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(ctx_destroy(&r, 1), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(ctx_create(&r, 1), OK);
	CHECK_EQ(ctx_create(&r, 1), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(ctx_attach(&r, 1, 1), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(ctx_attach(&r, 2, 1), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(submit(&r, 2, garbage, 16), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(rig_status(&r, &liar, sizeof(liar), garbage, 16), ERR(INVALID_PARAMETER));
	liar.size = 3;
	CHECK_EQ(rig_status(&r, &liar, sizeof(liar), garbage, 16), ERR(INVALID_PARAMETER));

	CHECK_EQ(create_3d(&r, 0, BGRA, 8, 8, 0), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(create_3d(&r, 1, BGRA, 0xffffffff, 0xffffffff, 0), ERR(OUT_OF_MEMORY));
	CHECK_EQ(create_3d(&r, 1, BGRA, 16384, 16384, 0), ERR(OUT_OF_MEMORY));
	CHECK_EQ(create_3d(&r, 1, 0xffff, 64, 64, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_3d(&r, 1, BGRA, 64, 64, 0), OK);
	CHECK_EQ(create_3d(&r, 1, BGRA, 64, 64, 0), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), ERR(UNSPEC));
	fe_alloc(&r.fe, 64 * 64 * 4, 4096, &gpa);
	CHECK_EQ(attach_one(&r, 1, UINT64_C(1) << 50, 64 * 64 * 4), ERR(UNSPEC));
	CHECK_EQ(attach_one(&r, 1, gpa, 64 * 64 * 4 - 1), OK);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, far, 0, 256), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, wrap, 0, 256), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 0, 1, all, UINT64_MAX - 8, 256),
		ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 9, 1, all, 0, 256), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_FROM_HOST_3D), 0, 9, all, 0, 256), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(detach(&r, 1), OK);
	CHECK_EQ(unref(&r, 1), OK);

	/* commands that are none spoil their context, not the others */
	CHECK(submit(&r, 1, garbage, sizeof(garbage)) != OK);
	pixels = picture_3d(&r, 1, 64, 64, 4, 0);
	CHECK_EQ(ctx_create(&r, 2), OK);
	CHECK_EQ(ctx_attach(&r, 2, 1), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
	shows(&r, 0, pixels, 64, 64);
	for (uint32_t i = 3; i <= 256; i++)
		if (ctx_create(&r, i) != OK)
			FAIL("context %u", i);
	CHECK_EQ(ctx_create(&r, 300), ERR(OUT_OF_MEMORY));
	fe_end(&r.fe);
}

/* A new driver finds nothing; memory that goes and comes is seen. */
static void resets(const struct fe_mode *m)
{
	const uint64_t gpa = UINT64_C(8) << 32, size = 1 << 20;
	struct virtio_gpu_box all = {.w = 64, .h = 64, .d = 1};
	struct fe_region *region;
	uint32_t *pixels, want[64 * 64];
	struct rig r;
	int fd;

	start(&r, m, NULL);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(ctx_create(&r, 1), OK);
		pixels = picture_3d(&r, 1, 64, 64, round, 0);
		CHECK_EQ(ctx_attach(&r, 1, 1), OK);
		CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
		shows(&r, 0, pixels, 64, 64);
		fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
		fe_queue_free(r.control);
		fe_queue_free(r.cursor);
		rig_queues(&r);
	}
	region = fe_region_make(&r.fe, gpa, size, 0x7f0000000000, -1, 0);
	fe_region_add(&r.fe, region);
	CHECK_SYS(fd = dup(region->fd));
	draw(want, 64, 64, 5);
	memcpy(region->ptr, want, sizeof(want));
	region->used = size;
	CHECK_EQ(create_3d(&r, 1, BGRA, 64, 64, 0), OK);
	CHECK_EQ(attach_one(&r, 1, gpa, sizeof(want)), OK);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), OK);
	fe_region_remove(&r.fe, region);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), ERR(UNSPEC));
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
	shows(&r, 0, want, 64, 64);
	region = fe_region_make(&r.fe, gpa, size, 0x7f0000000000, fd, 0);
	fe_region_add(&r.fe, region);
	region->used = size;
	draw((uint32_t *)(void *)region->ptr, 64, 64, 6);
	draw(want, 64, 64, 6);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), OK);
	CHECK_EQ(flush(&r, 1, 0, 0, 64, 64), OK);
	shows(&r, 0, want, 64, 64);
	close(fd);
	fe_end(&r.fe);
}

/* The process that renders for it; 0: there is none. */
static pid_t renderer_of(const struct rig *r)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	pid_t found = 0;

	CHECK(proc != NULL);
	while (!found && (entry = readdir(proc))) {
		char path[300], state;
		int pid, parent;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
		f = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? fopen(path, "r") : NULL;
		if (f && fscanf(f, "%d (%*[^)]) %c %d", &pid, &state, &parent) == 3 &&
			parent == r->fe.process.pid && state != 'Z')
			found = pid;
		if (f)
			fclose(f);
	}
	closedir(proc);
	return found;
}

/* Commands with a fence that draw a colour, and are not waited for. */
enum { BURST = 12 };

static void burst(struct rig *r, uint32_t ctx, uint32_t id, struct virtio_gpu_ctrl_hdr **answer)
{
	uint32_t words[] = {CREATE_OBJECT | OBJECT_SURFACE << 8 | 5 << 16, 1, id, BGRA, 0, 0,
		SET_FRAMEBUFFER | 3 << 16, 1, 0, 1, CLEAR | 8 << 16, CLEAR_COLOR0, 0, 0, 0, 0, 0, 0, 0};

	for (unsigned i = 0; i < BURST; i++) {
		struct virtio_gpu_cmd_submit *c = fe_alloc(&r->fe, sizeof(*c) + sizeof(words), 8, NULL);
		struct vring_driver_buf b[2];

		*c = (struct virtio_gpu_cmd_submit){HDR(SUBMIT_3D), .hdr.ctx_id = ctx,
			.hdr.flags = i % 2 ? VIRTIO_GPU_FLAG_FENCE : 0, .hdr.fence_id = i,
			.size = i % 3 ? 0 : sizeof(words)};
		memcpy(c + 1, words, sizeof(words));
		answer[i] = fe_alloc(&r->fe, sizeof(*answer[i]), 8, NULL);
		b[0] = fe_rd(&r->fe, c, sizeof(*c) + sizeof(words));
		b[1] = fe_wr(&r->fe, answer[i], sizeof(*answer[i]));
		fe_submit(r->control, b, 2, answer[i]);
	}
	fe_flush(r->control);
}

/* All of them come back, done or not. */
static void burst_ends(struct rig *r, bool done)
{
	for (unsigned i = 0; i < BURST; i++) {
		struct virtio_gpu_ctrl_hdr *answer;
		void *cookie;

		CHECK_EQ(fe_wait(r->control, &cookie), sizeof(*answer));
		answer = cookie;
		if (done)
			CHECK_EQ(answer->type, OK);
		else
			CHECK(answer->type == OK || answer->type == ERR(UNSPEC));
	}
}

/* A context, with a resource that is shown. */
static void scene(struct rig *r, uint32_t ctx, uint32_t id, uint32_t w, uint32_t h)
{
	CHECK_EQ(ctx_create(r, ctx), OK);
	CHECK_EQ(create_3d(r, id, BGRA, w, h, Y_0_TOP), OK);
	CHECK_EQ(ctx_attach(r, ctx, id), OK);
	CHECK_EQ(set_scanout(r, 0, id, 0, 0, w, h), OK);
}

static void shows_colour(struct rig *r, uint32_t ctx, uint32_t id, uint32_t w, uint32_t h)
{
	const float colour[4] = {0.2f, 0.4f, 0.6f, 1};
	uint32_t *want = malloc(w * h * 4);

	clear(r, ctx, id, colour);
	CHECK_EQ(flush(r, id, 0, 0, w, h), OK);
	for (uint32_t i = 0; i < w * h; i++)
		want[i] = 0x336699;
	shows(r, 0, want, w, h);
	free(want);
}

static void flat_shows(struct rig *r, uint32_t id, unsigned seed)
{
	uint32_t *flat = picture(r, id, 64, 48, seed);

	CHECK_EQ(set_scanout(r, 0, id, 0, 0, 64, 48), OK);
	CHECK_EQ(flush(r, id, 0, 0, 64, 48), OK);
	shows(r, 0, flat, 64, 48);
}

/* Waits until the driver may have a renderer again. */
static void again(struct rig *r, uint32_t ctx)
{
	uint32_t status;

	for (int i = 0; (status = ctx_create(r, ctx)) != OK && i < fe_limit_ms / 20; i++) {
		CHECK_EQ(status, ERR(UNSPEC));
		fe_poll(-1, 0, 20);
	}
	CHECK_EQ(status, OK);
}

/* The renderer dies in the middle of its work: its contexts are lost, 2D goes on; after a reset, or a while, there is another. */
static void dies(const struct fe_mode *m)
{
	struct virtio_gpu_box all = {.w = 64, .h = 48, .d = 1};
	struct virtio_gpu_ctrl_hdr *answer[BURST];
	uint32_t *pixels;
	struct rig r;
	pid_t pid;

	start(&r, m, NULL);
	scene(&r, 1, 1, 64, 48);
	shows_colour(&r, 1, 1, 64, 48);
	pixels = picture_3d(&r, 2, 64, 48, 3, 0);
	CHECK((pid = renderer_of(&r)) != 0);
	burst(&r, 1, 1, answer);
	CHECK_SYS(kill(pid, SIGABRT));
	burst_ends(&r, false);
	flat_shows(&r, 9, 4);
	fe_process_logs(&r.fe.process, "the renderer is lost");
	CHECK_EQ(submit(&r, 1, NULL, 0), ERR(INVALID_CONTEXT_ID));
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 2, all, 0, 256), ERR(UNSPEC));
	CHECK_EQ(set_scanout(&r, 0, 2, 0, 0, 64, 48),
		ERR(UNSPEC)); /* never shown: there is nothing left of it */
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 48), OK);
	CHECK_EQ(flush(&r, 1, 0, 0, 64, 48), OK);
	CHECK_EQ(detach(&r, 2), OK);
	CHECK_EQ(attach_one(&r, 2, fe_gpa(&r.fe, pixels), 64 * 48 * 4), ERR(UNSPEC));
	CHECK_EQ(unref(&r, 1), OK);
	CHECK_EQ(unref(&r, 2), OK);

	/* without a reset */
	again(&r, 1);
	CHECK_EQ(create_3d(&r, 1, BGRA, 64, 48, Y_0_TOP), OK);
	CHECK_EQ(ctx_attach(&r, 1, 1), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 48), OK);
	shows_colour(&r, 1, 1, 64, 48);
	CHECK(renderer_of(&r) != pid);

	/* and with one */
	CHECK_SYS(kill(renderer_of(&r), SIGKILL));
	fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	fe_queue_free(r.control);
	fe_queue_free(r.cursor);
	rig_queues(&r);
	scene(&r, 7, 3, 64, 48);
	shows_colour(&r, 7, 3, 64, 48);
	fe_end(&r.fe);
}

/* It goes on, but does nothing more: 2D does, a queue that stops gets its commands back, and the end is not held up. */
static void hangs(const struct fe_mode *m)
{
	struct virtio_gpu_ctrl_hdr *answer[BURST];
	struct rig r;
	uint32_t base;

	start(&r, m, NULL);
	scene(&r, 1, 1, 64, 48);
	shows_colour(&r, 1, 1, 64, 48);
	CHECK_SYS(kill(renderer_of(&r), SIGSTOP));
	burst(&r, 1, 1, answer);
	flat_shows(&r, 9, 4);
	base = fe_queue_stop(r.control);
	burst_ends(&r, false);
	fe_process_logs(&r.fe.process, "the renderer did not finish in time");
	fe_queue_send(r.control, base);
	flat_shows(&r, 10, 5);
	CHECK_EQ(submit(&r, 1, NULL, 0), ERR(INVALID_CONTEXT_ID));
	again(&r, 1);
	CHECK_EQ(create_3d(&r, 2, BGRA, 64, 48, Y_0_TOP), OK);
	CHECK_EQ(ctx_attach(&r, 1, 2), OK);
	burst(&r, 1, 2, answer);
	burst_ends(&r, true);
	CHECK_SYS(kill(renderer_of(&r), SIGSTOP));
	burst(&r, 1, 2, answer);
	fe_process_signal(&r.fe.process, SIGTERM);
	fe_process_exits(&r.fe.process, 0);
	fe_close(&r.fe);
}

/* Nothing of one driver's is left for the next one, not even the process; one that was not used may stay. */
static void renewed(const struct fe_mode *m)
{
	pid_t pid;
	struct rig r;

	start(&r, m, NULL);
	CHECK((pid = renderer_of(&r)) != 0);
	flat_shows(&r, 9, 4);
	for (unsigned i = 0; i < 2; i++) {
		fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
		fe_queue_free(r.control);
		fe_queue_free(r.cursor);
		rig_queues(&r);
		if (!i)
			CHECK_EQ(renderer_of(&r), pid);
		for (int k = 0; i && renderer_of(&r) == pid; k++) {
			CHECK(k < fe_limit_ms / 20);
			fe_poll(-1, 0, 20);
		}
		scene(&r, 1, 1, 64, 48);
		shows_colour(&r, 1, 1, 64, 48);
	}
	fe_end(&r.fe);
}

static void impossible(const struct fe_mode *m)
{
	struct fe_process p;

	(void)m;
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
	fe_process_start(&p, -1, FE_ARGS("gpu", "--print-capabilities"));
	fe_process_logs(&p, "\"virgl\"");
	fe_process_exits(&p, 0);
	setenv("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent", 1);
	fe_process_start(&p, -1, FE_ARGS("gpu", "--fd=0", "--virgl"));
	fe_process_logs(&p, "--virgl: no OpenGL context could be created here");
	fe_process_exits(&p, 1);
	fe_process_start(&p, -1, FE_ARGS("gpu", "--print-capabilities"));
	fe_process_logs(&p, "{\"type\":\"gpu\",\"features\":[]}");
	fe_process_exits(&p, 0);
}

int main(void)
{
	fe_each_layout("shows 3D resources", shows_3d);
	fe_each_mode("renders", renders);
	fe_each_layout("on a display", displays);
	fe_case("a context that is lost", lost_context, &split);
	fe_case("kinds of contexts", context_init, &split);
	fe_case("dirty log", logs, &split);
	fe_case("capability sets", capsets, &split);
	fe_each_layout("fences", fences);
	fe_case("hostile", hostile, &split);
	fe_each_layout("resets", resets);
	fe_each_layout("a renderer that dies", dies);
	fe_each_layout("a renderer that hangs", hangs);
	fe_case("a renderer for each driver", renewed, &split);
	fe_case("no OpenGL at all", impossible, &split);
	return tap_done();
}
