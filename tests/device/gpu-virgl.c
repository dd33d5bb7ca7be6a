/* SPDX-License-Identifier: MIT */
/*
 * The gpu with --virgl: pictures through 3D resources, a picture that the renderer makes, fences, what a guest does wrong,
 * resets.
 */
#include "gpu-rig-3d.h"

#include <sys/socket.h>

static const struct fe_mode split = {0};

static void shows_3d(const struct fe_mode *m)
{
	enum { W = 96, H = 80 };
	uint32_t *pixels, *back;
	struct rig r;

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

/* A cursor that the renderer drew. */
static void cursor_3d(const struct fe_mode *m)
{
	enum { W = 96, H = 80, SIDE = 64, X = 8, Y = 4, BGRX = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM };
	struct virtio_gpu_box all = {.w = SIDE, .h = SIDE, .d = 1};
	static uint32_t want[W * H];
	uint32_t *flat, *pixels;
	struct rig r;
	uint64_t gpa;

	start_3d(&r, m, NULL);
	flat = picture(&r, 9, W, H, 2);
	memcpy(want, flat, sizeof(want));
	CHECK_EQ(set_scanout(&r, 0, 9, 0, 0, W, H), OK);
	pixels = fe_alloc(&r.fe, SIDE * SIDE * 4, 4096, &gpa);
	CHECK_EQ(create_3d(&r, 1, BGRX, SIDE, SIDE, Y_0_TOP), OK);
	CHECK_EQ(attach_one(&r, 1, gpa, SIDE * SIDE * 4), OK);
	for (unsigned seed = 5; seed < 7; seed++) {
		draw(pixels, SIDE, SIDE, seed);
		CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, SIDE * 4), OK);
		cursor(&r, CMD(UPDATE_CURSOR), 0, 1, X, Y, 0, 0);
		for (unsigned y = 0; y < SIDE; y++)
			memcpy(&want[(Y + y) * W + X], &pixels[y * SIDE], SIDE * 4);
		shows(&r, 0, want, W, H);
	}
	CHECK_EQ(unref(&r, 1), OK);
	cursor(&r, CMD(UPDATE_CURSOR), 0, 0, 0, 0, 0, 0);
	shows(&r, 0, flat, W, H);
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
	fe_case("a cursor", cursor_3d, &split);
	fe_case("no OpenGL at all", impossible, &split);
	return tap_done();
}
