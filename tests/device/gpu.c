/* SPDX-License-Identifier: MIT */
/*
 * The gpu without a display: 2D commands, blobs, cursor, EDID, what a guest does wrong, limits, resets. What is on a screen
 * is read from the screenshots, pixel by pixel. The display socket is in gpu-display.c.
 */
#include "gpu-rig.h"

static const struct fe_mode split = {0};

/* --- works --- */

/* Pages of a buffer as backing, in an order that is not theirs: even ones, then odd ones. */
static unsigned scatter(
	struct virtio_gpu_mem_entry *entry, uint64_t gpa, uint32_t pages, uint8_t *host, const uint8_t *bytes)
{
	unsigned n = 0;

	for (unsigned odd = 0; odd < 2; odd++)
		for (uint32_t i = odd; i < pages; i += 2, n++) {
			entry[n] = (struct virtio_gpu_mem_entry){.addr = gpa + i * 4096, .length = 4096};
			memcpy(host + i * 4096, bytes + n * 4096, 4096);
		}
	return n;
}

static void works(const struct fe_mode *m)
{
	enum { W = 100, H = 61, PAGES = 6 };
	struct virtio_gpu_mem_entry entry[PAGES];
	static uint32_t want[PAGES * 1024];
	struct rig r;
	uint8_t *host;
	uint64_t gpa;

	rig_start(&r, m, FE_ARGS("--display=100x61"));
	host = fe_alloc(&r.fe, PAGES * 4096, 4096, &gpa);
	draw(want, W, H, 1);
	scatter(entry, gpa, PAGES, host, (uint8_t *)want);
	CHECK_EQ(create_2d(&r, 7, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, W, H), OK);
	CHECK_EQ(attach(&r, 7, entry, PAGES), OK);
	CHECK_EQ(transfer(&r, 7, 0, 0, W, H, 0), OK);
	CHECK_EQ(set_scanout(&r, 0, 7, 0, 0, W, H), OK);
	CHECK_EQ(flush(&r, 7, 0, 0, W, H), OK);
	shows(&r, 0, want, W, H);

	/* a rectangle only: what else changed in guest memory is not seen */
	draw(want, W, H, 2);
	scatter(entry, gpa, PAGES, host, (uint8_t *)want);
	CHECK_EQ(transfer(&r, 7, 10, 20, 30, 40, (20 * W + 10) * 4), OK);
	CHECK_EQ(flush(&r, 7, 10, 20, 30, 40), OK);
	for (unsigned i = 0; i < W * H; i++)
		if (i % W < 10 || i % W >= 40 || i / W < 20 || i / W >= 60)
			want[i] = pixel_at(i % W, i / W, 1);
	shows(&r, 0, want, W, H);

	CHECK_EQ(detach(&r, 7), OK);
	CHECK_EQ(set_scanout(&r, 0, 0, 0, 0, 0, 0), OK);
	CHECK_EQ(unref(&r, 7), OK);
	CHECK_EQ(unref(&r, 7), ERR(INVALID_RESOURCE_ID));
	fe_end(&r.fe);
}

/* A colour in each format; the bytes are in the order that the format's name says. */
static void formats(const struct fe_mode *m)
{
	static const struct {
		uint32_t format;
		char order[5];
	} table[] = {{VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, "bgra"}, {VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, "bgra"},
		{VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM, "argb"}, {VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM, "argb"},
		{VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM, "rgba"}, {VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM, "rgba"},
		{VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM, "abgr"}, {VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM, "abgr"}};
	enum { W = 33, H = 17 };
	uint32_t want[W * H];
	struct rig r;
	uint64_t gpa;
	uint8_t *host;

	rig_start(&r, m, FE_ARGS(NULL));
	host = fe_alloc(&r.fe, sizeof(want), 1, &gpa);
	for (unsigned f = 0; f < ARRAY_SIZE(table); f++) {
		draw(want, W, H, f);
		for (unsigned i = 0; i < W * H; i++)
			for (unsigned k = 0; k < 4; k++) {
				char c = table[f].order[k];

				host[i * 4 + k] = c == 'a' ? (uint8_t)(i * 3)
							   : (uint8_t)(want[i] >> (c == 'r'	     ? 16
											  : c == 'g' ? 8
												     : 0));
			}
		CHECK_EQ(create_2d(&r, f + 1, table[f].format, W, H), OK);
		CHECK_EQ(attach_one(&r, f + 1, gpa, sizeof(want)), OK);
		CHECK_EQ(transfer(&r, f + 1, 0, 0, W, H, 0), OK);
		CHECK_EQ(set_scanout(&r, 0, f + 1, 0, 0, W, H), OK);
		CHECK_EQ(flush(&r, f + 1, 0, 0, W, H), OK);
		shows(&r, 0, want, W, H);
	}
	fe_end(&r.fe);
}

/* Two scanouts of one resource, and one that goes with its resource. */
static void scanouts(const struct fe_mode *m)
{
	enum { W = 128, H = 64 };
	uint32_t left[64 * 64], right[64 * 64];
	const uint32_t *all;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--display=64x64,64x64", "--display=off"));
	all = picture(&r, 1, W, H, 5);
	for (unsigned i = 0; i < 64 * 64; i++) {
		left[i] = all[i / 64 * W + i % 64];
		right[i] = all[i / 64 * W + 64 + i % 64];
	}
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
	CHECK_EQ(set_scanout(&r, 1, 1, 64, 0, 64, 64), OK);
	CHECK_EQ(set_scanout(&r, 3, 1, 64, 0, 64, 64), ERR(INVALID_SCANOUT_ID));
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	shows(&r, 0, left, 64, 64);
	shows(&r, 1, right, 64, 64);
	CHECK_EQ(unref(&r, 1), OK);
	all = picture(&r, 1, 32, 32, 6);
	CHECK_EQ(set_scanout(&r, 1, 1, 0, 0, 32, 32), OK);
	shows(&r, 1, all, 32, 32);
	fe_end(&r.fe);
}

static void info(const struct fe_mode *m)
{
	struct virtio_gpu_ctrl_hdr get = {.type = CMD(GET_DISPLAY_INFO)};
	struct virtio_gpu_resp_display_info d;
	struct virtio_gpu_config config;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--display=800x600,off,4000x2000"));
	fe_config_get(&r.fe, 0, &config, sizeof(config));
	CHECK_EQ(config.num_scanouts, 3);
	CHECK_EQ(config.num_capsets, 0);
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, &d, sizeof(d)), sizeof(d));
	CHECK_EQ(d.hdr.type, VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	CHECK_EQ(d.pmodes[0].enabled, 1);
	CHECK_EQ(d.pmodes[0].r.width, 800);
	CHECK_EQ(d.pmodes[0].r.height, 600);
	CHECK_EQ(d.pmodes[1].enabled, 0);
	CHECK_EQ(d.pmodes[2].r.width, 4000);
	CHECK_EQ(d.pmodes[3].enabled, 0);
	/* no room for all of it: nothing */
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, &d, sizeof(d) - 1), 0);
	fe_end(&r.fe);
}

static void block_is_sound(const uint8_t *block)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 128; i++)
		sum = (uint8_t)(sum + block[i]);
	CHECK_EQ(sum, 0);
}

static void edid(const struct fe_mode *m)
{
	static const uint8_t head[] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
	struct virtio_gpu_cmd_get_edid get = {HDR(GET_EDID)};
	struct virtio_gpu_resp_edid e;
	const uint8_t *p = e.edid;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--display=1000x700,5120x2880"));
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, &e, sizeof(e)), sizeof(e));
	CHECK_EQ(e.hdr.type, VIRTIO_GPU_RESP_OK_EDID);
	CHECK_EQ(e.size, 128);
	CHECK_MEM(p, head, 8);
	block_is_sound(p);
	CHECK_EQ(p[56] | p[58] >> 4 << 8, 1000);
	CHECK_EQ(p[59] | p[61] >> 4 << 8, 700);
	get.scanout = 1;
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, &e, sizeof(e)), sizeof(e));
	CHECK_EQ(e.size, 256);
	CHECK_EQ(p[126], 1);
	block_is_sound(p);
	block_is_sound(p + 128);
	CHECK_EQ(p[128], 0x70);
	CHECK_EQ(p[128 + 12] | p[128 + 13] << 8, 5120 - 1);
	CHECK_EQ(p[128 + 20] | p[128 + 21] << 8, 2880 - 1);
	get.scanout = 2;
	CHECK_EQ(RIG_DO(&r, get), ERR(INVALID_SCANOUT_ID));
	fe_end(&r.fe);
}

static void uuids(const struct fe_mode *m)
{
	struct virtio_gpu_resource_assign_uuid get = {HDR(RESOURCE_ASSIGN_UUID), .resource_id = 1};
	struct virtio_gpu_resp_resource_uuid a, b;
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	CHECK_EQ(RIG_DO(&r, get), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(create_2d(&r, 1, 1, 1, 1), OK);
	CHECK_EQ(create_2d(&r, 2, 1, 1, 1), OK);
	CHECK_EQ(rig_command(&r, &get, sizeof(get), NULL, 0, &a, sizeof(a)), sizeof(a));
	CHECK_EQ(a.hdr.type, VIRTIO_GPU_RESP_OK_RESOURCE_UUID);
	CHECK_EQ(a.uuid[6] >> 4, 4);
	CHECK_EQ(a.uuid[8] >> 6, 2);
	rig_command(&r, &get, sizeof(get), NULL, 0, &b, sizeof(b));
	CHECK_MEM(b.uuid, a.uuid, 16);
	get.resource_id = 2;
	rig_command(&r, &get, sizeof(get), NULL, 0, &b, sizeof(b));
	CHECK(memcmp(b.uuid, a.uuid, 16) != 0);
	fe_end(&r.fe);
}

static void fences(const struct fe_mode *m)
{
	struct virtio_gpu_resource_create_2d c = {HDR(RESOURCE_CREATE_2D),
		.hdr.flags = VIRTIO_GPU_FLAG_FENCE | VIRTIO_GPU_FLAG_INFO_RING_IDX,
		.hdr.fence_id = UINT64_C(0x123456789abcdef0), .hdr.ctx_id = 77, .hdr.ring_idx = 3,
		.resource_id = 1, .format = 1, .width = 8, .height = 8};
	struct virtio_gpu_ctrl_hdr a;
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	for (unsigned i = 0; i < 2; i++) { /* an error signals its fence as well */
		CHECK_EQ(rig_command(&r, &c, sizeof(c), NULL, 0, &a, sizeof(a)), sizeof(a));
		CHECK_EQ(a.type, i ? ERR(INVALID_RESOURCE_ID) : OK);
		CHECK_EQ(a.flags, c.hdr.flags);
		CHECK_EQ(a.fence_id, c.hdr.fence_id);
		CHECK_EQ(a.ctx_id, 77);
		CHECK_EQ(a.ring_idx, 3);
	}
	fe_end(&r.fe);
}

static uint32_t scanout_blob(struct rig *r, uint32_t id, uint32_t format, uint32_t w, uint32_t h,
	uint32_t stride, uint32_t offset, struct virtio_gpu_rect rect)
{
	return RIG_DO(r,
		(struct virtio_gpu_set_scanout_blob){HDR(SET_SCANOUT_BLOB), .resource_id = id, .r = rect,
			.width = w, .height = h, .format = format, .strides = {stride}, .offsets = {offset}});
}

static void blobs(const struct fe_mode *m)
{
	enum { W = 70, H = 40, STRIDE = 320, OFFSET = 64, PAGES = 4 };
	struct virtio_gpu_rect all = {0, 0, W, H}, part = {10, 5, 20, 30}, far = {60, 0, 20, 10};
	static uint32_t want[64 * 64], want_part[20 * 30];
	static uint8_t bytes[PAGES * 4096];
	struct virtio_gpu_mem_entry entry[PAGES];
	struct rig r;
	uint8_t *host;
	uint64_t gpa;

	rig_start(&r, m, FE_ARGS(NULL));
	host = fe_alloc(&r.fe, PAGES * 4096, 4096, &gpa);
	draw(want, W, H, 3);
	for (unsigned y = 0; y < H; y++)
		memcpy(bytes + OFFSET + y * STRIDE, want + y * W, W * 4);
	scatter(entry, gpa, PAGES, host, bytes);
	CHECK_EQ(create_blob(&r, 1, OFFSET + STRIDE * H, entry, PAGES), OK);
	CHECK_EQ(create_blob(&r, 1, 4096, entry, PAGES), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, STRIDE, OFFSET, all), OK);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	shows(&r, 0, want, W, H);

	/* no transfer: it is guest memory that is shown */
	draw(want, W, H, 4);
	for (unsigned y = 0; y < H; y++)
		memcpy(bytes + OFFSET + y * STRIDE, want + y * W, W * 4);
	scatter(entry, gpa, PAGES, host, bytes);
	CHECK_EQ(transfer(&r, 1, 0, 0, W, H, 0), OK);
	CHECK_EQ(flush(&r, 1, 0, 0, 1, 1), OK);
	shows(&r, 0, want, W, H);

	for (unsigned i = 0; i < 20 * 30; i++)
		want_part[i] = want[(i / 20 + 5) * W + i % 20 + 10];
	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, STRIDE, OFFSET, part), OK);
	shows(&r, 0, want_part, 20, 30);
	/* another order of bytes */
	for (unsigned i = 0; i < 20 * 30; i++)
		want_part[i] = (want_part[i] & 0xff) << 16 | (want_part[i] & 0xff00) | want_part[i] >> 16;
	CHECK_EQ(scanout_blob(&r, 1, VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM, W, H, STRIDE, OFFSET, part), OK);
	shows(&r, 0, want_part, 20, 30);

	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, STRIDE, OFFSET, far), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 1, 3000, W, H, STRIDE, OFFSET, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, STRIDE, OFFSET + 100, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, W * 4 - 4, OFFSET, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 1, 2, W, H, 0xfffffffc, 0xffffffff, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 1, 2, 0xffffffff, 0xffffffff, STRIDE, OFFSET, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(scanout_blob(&r, 2, 2, W, H, STRIDE, OFFSET, all), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(create_2d(&r, 2, 1, W, H), OK);
	CHECK_EQ(scanout_blob(&r, 2, 2, W, H, STRIDE, OFFSET, all), ERR(INVALID_PARAMETER));
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), ERR(INVALID_PARAMETER));
	CHECK_EQ(RIG_DO(&r, (struct virtio_gpu_resource_create_blob){HDR(RESOURCE_CREATE_BLOB),
				    .resource_id = 3, .blob_mem = VIRTIO_GPU_BLOB_MEM_HOST3D, .size = 4096}),
		ERR(INVALID_PARAMETER));

	/* a scanout that no screenshot could be made of */
	CHECK_EQ(create_blob(&r, 3, UINT64_C(1) << 40, entry, 1), OK);
	CHECK_EQ(scanout_blob(&r, 3, 2, 16384, 16384, 65536, 0, (struct virtio_gpu_rect){0, 0, 16384, 16384}),
		ERR(OUT_OF_MEMORY));
	/* larger than its backing, which is zeros: black beyond */
	CHECK_EQ(create_blob(&r, 4, 1 << 20, entry, 1), OK);
	CHECK_EQ(scanout_blob(&r, 4, 2, 64, 64, 256, 0, (struct virtio_gpu_rect){0, 16, 64, 48}), OK);
	memset(want, 0, sizeof(want));
	shows(&r, 0, want, 64, 48);
	fe_end(&r.fe);
}

static void cursors(const struct fe_mode *m)
{
	enum { W = 200, H = 150 };
	static uint32_t want[W * H];
	const uint32_t *screen;
	uint32_t *image;
	struct rig r;
	uint64_t gpa;

	rig_start(&r, m, FE_ARGS(NULL));
	screen = picture(&r, 1, W, H, 9);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	image = fe_alloc(&r.fe, 64 * 64 * 4, 4096, &gpa);
	for (unsigned i = 0; i < 64 * 64; i++)
		image[i] = i % 64 < 32 ? 0xff000000 | pixel_at(i % 64, i / 64, 10) : 0;
	CHECK_EQ(create_2d(&r, 2, VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 64, 64), OK);
	CHECK_EQ(attach_one(&r, 2, gpa, 64 * 64 * 4), OK);
	CHECK_EQ(transfer(&r, 2, 0, 0, 64, 64, 0), OK);
	for (unsigned round = 0; round < 2; round++) {
		uint32_t cx = round ? 190 : 30, cy = 40;

		cursor(&r, round ? CMD(MOVE_CURSOR) : CMD(UPDATE_CURSOR), 0, 2, cx, cy, 1, 1);
		for (uint32_t i = 0; i < W * H; i++) {
			uint32_t x = i % W, y = i / W;
			bool in = x >= cx && x < cx + 32 && y >= cy && y < cy + 64;

			want[i] = in ? image[(y - cy) * 64 + x - cx] : screen[i];
		}
		shows(&r, 0, want, W, H);
		CHECK_EQ(round ? OK : unref(&r, 2), OK); /* the cursor stays without its resource */
	}
	cursor(&r, CMD(UPDATE_CURSOR), 0, 0, 20, 20, 0, 0);
	shows(&r, 0, screen, W, H);
	cursor(&r, CMD(MOVE_CURSOR), 0, 0, 30, 20, 0, 0);
	cursor(&r, CMD(UPDATE_CURSOR), 9, 1, 30, 20, 0, 0);
	cursor(&r, CMD(UPDATE_CURSOR), 0, 4711, 30, 20, 0, 0);
	cursor(&r, 0x1234, 0, 1, 30, 20, 0, 0);
	shows(&r, 0, screen, W, H);
	fe_end(&r.fe);
}

/* --- hostile --- */

static void hostile(const struct fe_mode *m)
{
	struct virtio_gpu_mem_entry entry[2] = {{.addr = UINT64_MAX - 10, .length = 100}, {.length = 1}};
	struct virtio_gpu_resource_attach_backing liar = {
		HDR(RESOURCE_ATTACH_BACKING), .resource_id = 1, .nr_entries = 0xffffffff};
	struct virtio_gpu_ctrl_hdr hdr, a;
	const uint32_t *screen;
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	/* types that do not exist, or that nobody negotiated; commands that are cut off */
	for (uint32_t type = 0; type < 0x400; type += type % 16 == 15 ? 0xf1 : 1) {
		hdr = (struct virtio_gpu_ctrl_hdr){.type = type};
		CHECK_EQ(rig_command(&r, &hdr, sizeof(hdr), NULL, 0, &a, sizeof(a)),
			type == CMD(GET_DISPLAY_INFO) ? 0 : sizeof(a));
		if (type != CMD(GET_DISPLAY_INFO))
			CHECK(a.type == ERR(UNSPEC) || a.type == ERR(INVALID_PARAMETER));
	}
	CHECK_EQ(rig_status(&r, &hdr, sizeof(hdr) - 1, NULL, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(rig_status(&r, &hdr, 0, NULL, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(rig_command(&r, &hdr, sizeof(hdr), NULL, 0, &a, 0), 0);
	CHECK_EQ(rig_command(&r, &hdr, sizeof(hdr), NULL, 0, &a, sizeof(a) - 1), 0);

	CHECK_EQ(create_2d(&r, 0, 1, 8, 8), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(create_2d(&r, 1, 1, 0, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 1, 8, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 1, 0xffffffff, 0xffffffff), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 1, 0x10000, 0x10000), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 1, 16384, 16384), ERR(OUT_OF_MEMORY));
	CHECK_EQ(create_2d(&r, 1, 0, 8, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 5, 8, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(create_2d(&r, 1, 1, 8, 8), OK);
	CHECK_EQ(create_2d(&r, 1, 1, 8, 8), ERR(INVALID_RESOURCE_ID));

	CHECK_EQ(attach_one(&r, 2, 0x10000, 256), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(attach(&r, 1, entry, 2), ERR(INVALID_PARAMETER));
	CHECK_EQ(attach(&r, 1, entry, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(rig_status(&r, &liar, sizeof(liar), entry, sizeof(entry)), ERR(INVALID_PARAMETER));
	CHECK_EQ(detach(&r, 1), ERR(UNSPEC));
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 8, 0), ERR(UNSPEC));
	CHECK_EQ(attach_one(&r, 1, 0x10000, 255), OK);
	CHECK_EQ(attach_one(&r, 1, 0x10000, 256), ERR(UNSPEC));
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 8, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 7, 0), OK);
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 7, 32), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0, 0, 1, 1, UINT64_MAX), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0, 0, 1, 1, UINT64_MAX - 3), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 8, 8, 0, 0, 0), OK);
	CHECK_EQ(transfer(&r, 1, 1, 0, 8, 1, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0xffffffff, 0, 2, 1, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0, 0xfffffff0, 1, 0x20, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 9, 0, 0, 1, 1, 0), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(detach(&r, 1), OK);
	/* no guest memory, or beyond its end */
	CHECK_EQ(attach_one(&r, 1, UINT64_C(1) << 40, 256), OK);
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 8, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(detach(&r, 1), OK);
	CHECK_EQ(attach_one(&r, 1, 0x10000 + (1 << 20) - 128, 256), OK);
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 8, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(transfer(&r, 1, 0, 0, 8, 4, 0), OK);

	CHECK_EQ(set_scanout(&r, 1, 1, 0, 0, 8, 8), ERR(INVALID_SCANOUT_ID));
	CHECK_EQ(set_scanout(&r, 0xffffffff, 1, 0, 0, 8, 8), ERR(INVALID_SCANOUT_ID));
	CHECK_EQ(set_scanout(&r, 0, 9, 0, 0, 8, 8), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 9, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(set_scanout(&r, 0, 1, 1, 1, 0xffffffff, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 0, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(flush(&r, 1, 0, 0, 9, 8), ERR(INVALID_PARAMETER));
	CHECK_EQ(flush(&r, 9, 0, 0, 8, 8), ERR(INVALID_RESOURCE_ID));

	screen = picture(&r, 2, 64, 32, 8);
	CHECK_EQ(set_scanout(&r, 0, 2, 0, 0, 64, 32), OK);
	shows(&r, 0, screen, 64, 32);
	fe_end(&r.fe);
}

/* All of the budget, by pictures, by entries, by the mere number of resources; and all of it comes back. */
static void budget(const struct fe_mode *m)
{
	enum { ENTRIES = 60000 };
	struct virtio_gpu_mem_entry *entry = calloc(ENTRIES, sizeof(*entry));
	unsigned n, first = 0;
	struct rig r;

	rig_start(&r, m, FE_ARGS("--max-hostmem=1M"));
	for (unsigned round = 0; round < 3; round++) {
		for (n = 0; create_2d(&r, n + 1, 1, 64, 64) == OK; n++)
			;
		CHECK(n >= 60 && n < 64);
		CHECK_EQ(create_2d(&r, n + 1, 1, 64, 64), ERR(OUT_OF_MEMORY));
		for (unsigned i = 0; i < n; i++)
			CHECK_EQ(unref(&r, i + 1), OK);
	}
	for (unsigned i = 0; i < ENTRIES; i++) /* none touches the next */
		entry[i] = (struct virtio_gpu_mem_entry){.addr = 0x10000 + i % 2 * 8192, .length = 4096};
	CHECK_EQ(create_2d(&r, 1, 1, 64, 64), OK);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(attach(&r, 1, entry, ENTRIES), OK);
		CHECK_EQ(create_2d(&r, 2, 1, 150, 150), ERR(OUT_OF_MEMORY));
		CHECK_EQ(detach(&r, 1), OK);
		CHECK_EQ(create_2d(&r, 2, 1, 150, 150), OK);
		CHECK_EQ(unref(&r, 2), OK);
	}
	/* entries that touch cost next to nothing */
	for (unsigned i = 0; i < ENTRIES; i++)
		entry[i].addr = 0x10000 + i * UINT64_C(4096);
	CHECK_EQ(attach(&r, 1, entry, ENTRIES), OK);
	CHECK_EQ(create_2d(&r, 2, 1, 400, 500), OK);
	CHECK_EQ(unref(&r, 2), OK);
	for (n = 2; create_blob(&r, n, 4096, entry, 1) == OK; n++)
		if (!first)
			first = n;
	CHECK(n < 16384);
	CHECK_EQ(unref(&r, first), OK);
	CHECK_EQ(create_blob(&r, first, 4096, entry, 1), OK);
	CHECK(fe_process_rss(&r.fe.process) < (64u << 20) || getenv("ASAN_OPTIONS") != NULL);
	free(entry);
	fe_end(&r.fe);
}

/* More work than one turn takes: all of it is done, and messages are answered in between. */
static void busy(const struct fe_mode *m)
{
	enum { W = 2048, H = 2048, N = 30 };
	struct virtio_gpu_transfer_to_host_2d *c;
	struct virtio_gpu_ctrl_hdr *a;
	struct vring_driver_buf b[2];
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	picture(&r, 1, W, H, 1);
	c = fe_alloc(&r.fe, sizeof(*c), 8, NULL);
	*c = (struct virtio_gpu_transfer_to_host_2d){
		HDR(TRANSFER_TO_HOST_2D), .resource_id = 1, .r = {0, 0, W, H}};
	a = fe_alloc(&r.fe, sizeof(*a), 8, NULL);
	b[0] = fe_rd(&r.fe, c, sizeof(*c));
	b[1] = fe_wr(&r.fe, a, sizeof(*a));
	for (unsigned i = 0; i < N; i++)
		fe_submit(r.control, b, 2, NULL);
	fe_flush(r.control);
	fe_barrier(&r.fe);
	for (unsigned i = 0; i < N; i++)
		CHECK_EQ(fe_wait(r.control, NULL), sizeof(*a));
	CHECK_EQ(a->type, OK);
	fe_end(&r.fe);
}

/* --- stop, reset, reconnect --- */

static void reset(const struct fe_mode *m)
{
	const uint32_t *screen;
	uint32_t base[2];
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	screen = picture(&r, 1, 64, 64, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
	shows(&r, 0, screen, 64, 64);

	/* the VM is paused: all is still there */
	base[0] = fe_queue_stop(r.control);
	base[1] = fe_queue_stop(r.cursor);
	fe_queue_send(r.control, base[0]);
	fe_queue_send(r.cursor, base[1]);
	CHECK_EQ(create_2d(&r, 1, 1, 8, 8), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(flush(&r, 1, 0, 0, 64, 64), OK);

	/* a new driver on the same connection, of which nobody tells */
	fe_queue_enable(r.cursor, false);
	fe_queue_enable(r.control, false);
	fe_queue_clear(r.control, FE_FRESH);
	fe_queue_send(r.control, m->packed ? 0x80008000 : 0);
	fe_queue_enable(r.control, true);
	CHECK_EQ(flush(&r, 1, 0, 0, 64, 64), ERR(INVALID_RESOURCE_ID));
	CHECK_EQ(create_2d(&r, 1, 1, 8, 8), OK);

	/* a reset */
	fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	fe_queue_free(r.control);
	fe_queue_free(r.cursor);
	rig_queues(&r);
	CHECK_EQ(flush(&r, 1, 0, 0, 8, 8), ERR(INVALID_RESOURCE_ID));
	screen = picture(&r, 1, 32, 32, 2);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 32, 32), OK);
	shows(&r, 0, screen, 32, 32);
	fe_end(&r.fe);
}

static void reconnect(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char path[160], option[200];
	struct rig r = {.dir = dir};
	const uint32_t *screen;

	snprintf(path, sizeof(path), "%s/sock", dir);
	snprintf(option, sizeof(option), "--screenshot-dir=%s", dir);
	fe_init(&r.fe, m);
	fe_spawn_path(&r.fe, path, FE_ARGS("gpu", option, "--screenshot-interval=10ms"));
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process process;

		fe_handshake(&r.fe);
		fe_memory_default(&r.fe);
		rig_queues(&r);
		screen = picture(&r, 1, 40 + round, 30, round);
		CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 40 + round, 30), OK);
		if (round == 1) /* what was not shown yet is when the front-end goes */
			shows(&r, 0, screen, 40 + round, 30);
		process = r.fe.process;
		fe_close(&r.fe);
		fe_init(&r.fe, m);
		r.fe.process = process;
		if (round < 2)
			fe_connect(&r.fe, path);
	}
	fe_process_signal(&r.fe.process, SIGTERM);
	fe_process_exits(&r.fe.process, 0);
}

/* Memory that goes while it is backing: transfers fail, nothing else; it comes back, and they work. */
static void memory_removed(const struct fe_mode *m)
{
	const uint64_t gpa = UINT64_C(8) << 32, size = 1 << 20;
	struct fe_region *region;
	uint32_t want[64 * 64];
	struct rig r;
	int fd;

	rig_start(&r, m, FE_ARGS(NULL));
	region = fe_region_make(&r.fe, gpa, size, 0x7f0000000000, -1, 0);
	fe_region_add(&r.fe, region);
	CHECK_SYS(fd = dup(region->fd));
	draw(want, 64, 64, 1);
	memcpy(region->ptr, want, sizeof(want));
	region->used = size;
	CHECK_EQ(create_2d(&r, 1, 2, 64, 64), OK);
	CHECK_EQ(attach_one(&r, 1, gpa, sizeof(want)), OK);
	CHECK_EQ(create_blob(&r, 2, sizeof(want),
			 &(struct virtio_gpu_mem_entry){.addr = gpa, .length = sizeof(want)}, 1),
		OK);
	CHECK_EQ(scanout_blob(&r, 2, 2, 64, 64, 256, 0, (struct virtio_gpu_rect){0, 0, 64, 64}), OK);
	shows(&r, 0, want, 64, 64);
	CHECK_EQ(transfer(&r, 1, 0, 0, 64, 64, 0), OK);
	fe_region_remove(&r.fe, region);
	CHECK_EQ(transfer(&r, 1, 0, 0, 64, 64, 0), ERR(INVALID_PARAMETER));
	CHECK_EQ(flush(&r, 2, 0, 0, 64, 64), OK);
	memset(want, 0, sizeof(want));
	shows(&r, 0, want, 64, 64);
	region = fe_region_make(&r.fe, gpa, size, 0x7f0000000000, fd, 0);
	fe_region_add(&r.fe, region);
	region->used = size;
	CHECK_EQ(transfer(&r, 1, 0, 0, 64, 64, 0), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 64), OK);
	draw(want, 64, 64, 1);
	shows(&r, 0, want, 64, 64);
	close(fd);
	fe_end(&r.fe);
}

static void config(const struct fe_mode *m)
{
	struct virtio_gpu_config c, all = {.events_clear = 1, .num_scanouts = 99};
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	CHECK_EQ(fe_config_set(&r.fe, 0, &all, sizeof(all), 0), 0);
	CHECK_EQ(fe_config_set(&r.fe, 4, &all.events_clear, 4, 0), 0);
	CHECK_EQ(fe_config_set(&r.fe, 6, &all.events_clear, 2, 0), 0);
	fe_config_get(&r.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.num_scanouts, 1);
	CHECK_EQ(c.events_read, 0);
	CHECK_EQ(c.events_clear, 0);
	fe_end(&r.fe);
}

/* On demand, without any other screenshots. */
static void on_demand(const struct fe_mode *m)
{
	enum { W = 100, H = 60 };
	static const char ask[] =
		"{\"execute\":\"screenshot\",\"arguments\":{\"path\":\"%s%s\",\"scanout\":%u}}\n";
	const char *answer, *dir = fe_tmpdir();
	char option[200], path[200], request[500];
	uint32_t *screen, *got, w, h;
	struct rig r = {.dir = dir};
	int fd;

	snprintf(option, sizeof(option), "--control-path=%s/control", dir);
	fe_start(&r.fe, m, FE_ARGS("gpu", option, "--display=640x480,640x480"));
	rig_queues(&r);
	fd = fe_control_open(option + strlen("--control-path="));
	snprintf(path, sizeof(path), "%s/shot.png", dir);
	snprintf(request, sizeof(request), ask, dir, "/shot.png", 1);
	answer = fe_control_ask(fd, request);
	CHECK(strstr(answer, "\"error\"") && strstr(answer, "scanout=1: shows nothing"));
	screen = picture(&r, 1, W, H, 3);
	CHECK_EQ(set_scanout(&r, 1, 1, 0, 0, W, H), OK);
	for (unsigned i = 0; i < 2; i++) {
		answer = fe_control_ask(fd, request);
		CHECK(strstr(answer, "\"width\":100,\"height\":60"));
		got = png_read(path, &w, &h);
		CHECK(got != NULL);
		CHECK_EQ(w, W);
		CHECK_EQ(h, H);
		for (unsigned k = 0; k < W * H; k++)
			CHECK_EQ(got[k] & 0xffffff, screen[k] & 0xffffff);
		free(got);
		CHECK_SYS(unlink(path));
		draw(screen, W, H, 4);
		CHECK_EQ(transfer(&r, 1, 0, 0, W, H, 0), OK); /* not flushed: what is there by now */
	}
	snprintf(request, sizeof(request), ask, "", "shot.png", 1);
	CHECK(strstr(fe_control_ask(fd, request), "path=shot.png: not an absolute path"));
	snprintf(request, sizeof(request), ask, "/nonexistent", "/x.png", 1);
	CHECK(strstr(fe_control_ask(fd, request), "/nonexistent/x.png: No such file or directory"));
	snprintf(request, sizeof(request), ask, dir, "/shot.png", 16);
	CHECK(strstr(fe_control_ask(fd, request), "scanout=16: shows nothing"));
	CHECK(access(path, F_OK) < 0);
	close(fd);
	fe_end(&r.fe);
}

static void options(const struct fe_mode *m)
{
	static const char *const wrong[] = {"--display=", "--display=800", "--display=800x",
		"--display=15x100", "--display=100x16385", "--display=800x600,", "--display=800x600x2",
		"--display=-800x600", "--display=800x600;1x1", "--display=of", "--max-hostmem=1023K",
		"--display=off,off,off,off,off,off,off,off,off,off,off,off,off,off,off,off,off",
		"--screenshot-interval=9"};
	static const char *const impossible[] = {"--render-node=/nonexistent", "--render-node=/dev/null",
		"--screenshot-dir=/nonexistent", "--screenshot-dir=/dev/null"};
	struct fe_process p;

	(void)m;
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		fe_process_start(&p, -1, FE_ARGS("gpu", "--socket-path=/nonexistent/s", wrong[i]));
		fe_process_exits(&p, 2);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(impossible); i++) {
		fe_process_start(&p, -1, FE_ARGS("gpu", "--fd=0", impossible[i]));
		fe_process_logs(&p, impossible[i]);
		fe_process_exits(&p, 1);
	}
}

int main(void)
{
	fe_each_mode("works", works);
	fe_each_mode("hostile", hostile);
	fe_each_mode("reset", reset);
	fe_each_layout("reconnect", reconnect);
	fe_case("formats", formats, &split);
	fe_case("scanouts", scanouts, &split);
	fe_case("display info", info, &split);
	fe_case("EDID", edid, &split);
	fe_case("UUIDs", uuids, &split);
	fe_case("fences", fences, &split);
	fe_each_layout("blobs", blobs);
	fe_case("cursors", cursors, &split);
	fe_case("budget", budget, &split);
	fe_each_layout("busy", busy);
	fe_case("memory that is removed", memory_removed, &split);
	fe_case("configuration space", config, &split);
	fe_case("a screenshot on demand", on_demand, &split);
	fe_case("options", options, &split);
	return tap_done();
}
