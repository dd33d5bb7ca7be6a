/* SPDX-License-Identifier: MIT */
/* The gpu with a display on the front-end's side. */
#include "gpu-screen.h"

#include <sys/socket.h>
#include <time.h>

static const struct fe_mode split = {0};

static void start(struct rig *r, struct display *d, const struct fe_mode *m, uint64_t features)
{
	rig_start(r, m, FE_ARGS(NULL));
	plug_and_greet(r, d, features);
}

static void end(struct rig *r, struct display *d)
{
	drop(d);
	fe_end(&r->fe);
}

/* --- the tests --- */

static void works(const struct fe_mode *m)
{
	enum { W = 640, H = 480 };
	struct display d;
	uint32_t *screen;
	struct rig r;

	start(&r, &d, m, F_EDID);
	screen = picture(&r, 1, W, H, 1);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	displays(&d, 0, screen, W, H);
	CHECK_EQ(d.count[SCANOUT], 1);
	CHECK_EQ(d.count[UPDATE], 1);

	/* damage: a rectangle of it, no more */
	d.bytes = 0;
	draw(screen, W, H, 2);
	CHECK_EQ(transfer(&r, 1, 100, 50, 33, 44, (50 * W + 100) * 4), OK);
	CHECK_EQ(flush(&r, 1, 100, 50, 33, 44), OK);
	for (uint32_t i = 0; i < W * H; i++)
		if (i % W < 100 || i % W >= 133 || i / W < 50 || i / W >= 94)
			screen[i] = pixel_at(i % W, i / W, 1);
	displays(&d, 0, screen, W, H);
	CHECK_EQ(d.bytes, 20 + 33 * 44 * 4);

	/* another size, the second output, off */
	CHECK_EQ(set_scanout(&r, 1, 1, 0, 0, W, H), OK);
	displays(&d, 1, screen, W, H);
	CHECK_EQ(set_scanout(&r, 1, 0, 0, 0, 0, 0), OK);
	CHECK_EQ(unref(&r, 1), OK);
	while (d.s[0].w || d.s[1].w)
		CHECK(serve(&d, fe_limit_ms));
	screen = picture(&r, 1, 64, 32, 3);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 64, 32), OK);
	displays(&d, 0, screen, 64, 32);
	CHECK_EQ(d.s[1].w, 0);
	/* an output that only the front-end could refuse, and which it would ignore */
	CHECK_EQ(set_scanout(&r, 16, 1, 0, 0, 64, 32), ERR(INVALID_SCANOUT_ID));
	end(&r, &d);
}

/* Pictures that are no words of x8r8g8b8 as they lie: another format, a part, a blob. */
static void conversions(const struct fe_mode *m)
{
	enum { W = 300, H = 700 };
	static uint32_t want[W * H], part[100 * 600];
	struct virtio_gpu_mem_entry entry = {.length = sizeof(want)};
	struct display d;
	struct rig r;
	uint32_t *host;
	uint64_t gpa;

	start(&r, &d, m, F_EDID);
	host = fe_alloc(&r.fe, sizeof(want), 4096, &gpa);
	draw(want, W, H, 1);
	for (uint32_t i = 0; i < W * H; i++)
		host[i] = __builtin_bswap32(want[i]) | 0x7f;
	entry.addr = gpa;
	CHECK_EQ(create_2d(&r, 1, VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM, W, H), OK);
	CHECK_EQ(attach_one(&r, 1, gpa, sizeof(want)), OK);
	CHECK_EQ(transfer(&r, 1, 0, 0, W, H, 0), OK);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	displays(&d, 0, want, W, H);
	memcpy(host, want, sizeof(want));
	CHECK_EQ(create_blob(&r, 2, sizeof(want), &entry, 1), OK);
	for (uint32_t i = 0; i < 100 * 600; i++)
		part[i] = want[(i / 100 + 50) * W + i % 100 + 150];
	CHECK_EQ(RIG_DO(&r, (struct virtio_gpu_set_scanout_blob){HDR(SET_SCANOUT_BLOB), .resource_id = 2,
				    .scanout_id = 1, .r = {150, 50, 100, 600}, .width = W, .height = H,
				    .format = 2, .strides = {W * 4}}),
		OK);
	displays(&d, 1, part, 100, 600);
	CHECK_EQ(create_2d(&r, 3, 2, W, H), OK);
	CHECK_EQ(attach_one(&r, 3, gpa, sizeof(want)), OK);
	CHECK_EQ(transfer(&r, 3, 0, 0, W, H, 0), OK);
	CHECK_EQ(set_scanout(&r, 0, 3, 150, 50, 100, 600), OK);
	displays(&d, 0, part, 100, 600);
	end(&r, &d);
}

static uint32_t ask(struct rig *r, struct display *d, const void *c, size_t size, void *a, size_t asize)
{
	uint8_t *command = fe_alloc(&r->fe, size, 8, NULL), *room = fe_alloc(&r->fe, asize, 8, NULL);
	struct vring_driver_buf b[2] = {
		fe_rd(&r->fe, command, (uint32_t)size), fe_wr(&r->fe, room, (uint32_t)asize)};
	int64_t limit = fe_now_ms() + fe_limit_ms;
	uint32_t used;

	memcpy(command, c, size);
	fe_submit(r->control, b, 2, NULL);
	fe_flush(r->control);
	while (!fe_wait_ms(r->control, NULL, &used, 10)) {
		CHECK(fe_now_ms() < limit);
		while (serve(d, 0))
			;
	}
	memcpy(a, room, asize);
	return used;
}

static void questions(const struct fe_mode *m)
{
	struct virtio_gpu_ctrl_hdr get_info = {.type = CMD(GET_DISPLAY_INFO), .flags = 1, .fence_id = 5};
	struct virtio_gpu_cmd_get_edid get = {HDR(GET_EDID), .scanout = 1};
	struct virtio_gpu_resp_display_info info;
	struct virtio_gpu_resp_edid edid;
	struct display d;
	struct rig r;

	start(&r, &d, m, F_EDID);
	CHECK_EQ(ask(&r, &d, &get_info, sizeof(get_info), &info, sizeof(info)), sizeof(info));
	CHECK_EQ(info.hdr.type, VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	CHECK_EQ(info.hdr.fence_id, 5);
	CHECK_EQ(info.pmodes[0].r.width, 1111);
	CHECK_EQ(info.pmodes[1].enabled, 0);
	CHECK_EQ(ask(&r, &d, &get, sizeof(get), &edid, sizeof(edid)), sizeof(edid));
	CHECK_EQ(edid.hdr.type, VIRTIO_GPU_RESP_OK_EDID);
	CHECK_EQ(edid.size, 256);
	CHECK_STR((char *)edid.edid, "monitor");
	/* an output that the display lacks, about which it says nothing; then another that it has */
	get.scanout = 7;
	CHECK_EQ(ask(&r, &d, &get, sizeof(get), &edid, sizeof(edid)), sizeof(edid.hdr));
	CHECK_EQ(edid.hdr.type, ERR(INVALID_SCANOUT_ID));
	get.scanout = 0;
	CHECK_EQ(ask(&r, &d, &get, sizeof(get), &edid, sizeof(edid)), sizeof(edid));
	CHECK_STR((char *)edid.edid, "monitor");
	drop(&d);

	/* a display without EDIDs, as QEMU 7.2's: the monitor is made of its display information */
	plug_and_greet(&r, &d, 0);
	CHECK_EQ(ask(&r, &d, &get, sizeof(get), &edid, sizeof(edid)), sizeof(edid));
	CHECK_EQ(edid.edid[56] | edid.edid[58] >> 4 << 8, 1111);
	CHECK_EQ(edid.edid[59] | edid.edid[61] >> 4 << 8, 777);
	end(&r, &d);
}

/* A display that does not answer, and goes, or is replaced, or the queue stops: the driver gets its answer. */
static void silence(const struct fe_mode *m)
{
	struct display d, next;
	struct virtio_gpu_resp_display_info *info;
	struct virtio_gpu_ctrl_hdr *get;
	struct vring_driver_buf b[2];
	struct rig r;

	start(&r, &d, m, F_EDID);
	get = fe_alloc(&r.fe, sizeof(*get), 8, NULL);
	get->type = CMD(GET_DISPLAY_INFO);
	info = fe_alloc(&r.fe, sizeof(*info), 8, NULL);
	b[0] = fe_rd(&r.fe, get, sizeof(*get));
	b[1] = fe_wr(&r.fe, info, sizeof(*info));
	d.silent = true;
	for (unsigned i = 0; i < 3; i++)
		fe_submit(r.control, b, 2, NULL);
	fe_flush(r.control);
	while (!d.count[GET_DISPLAY_INFO])
		CHECK(serve(&d, fe_limit_ms));
	CHECK_EQ(create_2d(&r, 1, 1, 8, 8), OK); /* the others go on */
	plug(&r, &next, F_EDID);		 /* asked again there */
	next.silent = true;
	while (!next.count[GET_DISPLAY_INFO])
		CHECK(serve(&next, fe_limit_ms));
	CHECK(!fe_wait_ms(r.control, NULL, &(uint32_t){0}, 50));
	drop(&d);
	drop(&next);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(fe_wait(r.control, NULL), sizeof(*info));
	CHECK_EQ(info->pmodes[0].r.width, 1280);

	plug_and_greet(&r, &d, F_EDID);
	d.silent = true;
	fe_submit(r.control, b, 2, NULL);
	fe_flush(r.control);
	while (!d.count[GET_DISPLAY_INFO])
		CHECK(serve(&d, fe_limit_ms));
	fe_queue_stop(r.control);
	CHECK_EQ(fe_wait(r.control, NULL), sizeof(*info));
	end(&r, &d);
}

/* A display that reads nothing for a while: commands go on, and damage is collected into one update. */
static void slow(const struct fe_mode *m)
{
	enum { W = 1600, H = 1200, TIMES = 50 }; /* more than a socket holds */
	struct display d;
	uint32_t *screen;
	struct rig r;

	start(&r, &d, m, F_EDID);
	screen = picture(&r, 1, W, H, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, W, H), OK);
	for (unsigned i = 0; i < TIMES; i++) {
		draw(screen, W, H, i);
		CHECK_EQ(transfer(&r, 1, 0, 0, W, H, 0), OK);
		CHECK_EQ(flush(&r, 1, 0, i * 8, W, 8), OK);
		cursor(&r, CMD(UPDATE_CURSOR), 0, 1, i, i, 0, 0);
	}
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	displays(&d, 0, screen, W, H);
	while (d.s[0].cursor_x != TIMES - 1)
		CHECK(serve(&d, fe_limit_ms));
	CHECK(d.count[UPDATE] <= 5);
	CHECK(d.count[CURSOR_UPDATE] <= 5);
	/* in the middle of an update its resource goes, and the next one comes */
	draw(screen, W, H, 99);
	CHECK_EQ(transfer(&r, 1, 0, 0, W, H, 0), OK);
	CHECK_EQ(flush(&r, 1, 0, 0, W, H), OK);
	CHECK_EQ(unref(&r, 1), OK);
	screen = picture(&r, 1, 100, 100, 4);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 100, 100), OK);
	displays(&d, 0, screen, 100, 100);
	end(&r, &d);
}

static void cursors(const struct fe_mode *m)
{
	static uint32_t want[64 * 64];
	struct display d;
	struct rig r;
	uint32_t *image;
	uint64_t gpa;

	start(&r, &d, m, F_EDID);
	image = fe_alloc(&r.fe, 48 * 72 * 4, 4096, &gpa);
	for (uint32_t i = 0; i < 48 * 72; i++) {
		image[i] = i % 3 ? 0xff000000 | pixel_at(i % 48, i / 48, 5) : 0;
		if (i / 48 < 64)
			want[i / 48 * 64 + i % 48] = image[i];
	}
	CHECK_EQ(create_2d(&r, 1, VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM, 48, 72), OK);
	CHECK_EQ(attach_one(&r, 1, gpa, 48 * 72 * 4), OK);
	CHECK_EQ(transfer(&r, 1, 0, 0, 48, 72, 0), OK);
	cursor(&r, CMD(UPDATE_CURSOR), 1, 1, 100, 200, 3, 4);
	while (!d.count[CURSOR_UPDATE])
		CHECK(serve(&d, fe_limit_ms));
	CHECK(d.s[1].cursor_visible);
	CHECK_EQ(d.s[1].cursor_x, 100);
	CHECK_EQ(d.s[1].cursor_y, 200);
	CHECK_EQ(d.s[1].hot_x, 3);
	CHECK_EQ(d.s[1].hot_y, 4);
	CHECK_MEM(d.s[1].cursor, want, sizeof(want));
	cursor(&r, CMD(MOVE_CURSOR), 1, 1, 5, 6, 0, 0);
	while (!d.count[CURSOR_POS])
		CHECK(serve(&d, fe_limit_ms));
	CHECK_EQ(d.s[1].cursor_x, 5);
	cursor(&r, CMD(UPDATE_CURSOR), 1, 0, 5, 6, 0, 0);
	while (!d.count[CURSOR_POS_HIDE])
		CHECK(serve(&d, fe_limit_ms));
	/* a hidden one that moves stays hidden: a position would show it */
	cursor(&r, CMD(MOVE_CURSOR), 1, 0, 50, 60, 0, 0);
	cursor(&r, CMD(UPDATE_CURSOR), 1, 1, 50, 60, 0, 0);
	while (d.count[CURSOR_UPDATE] < 2)
		CHECK(serve(&d, fe_limit_ms));
	CHECK_EQ(d.count[CURSOR_POS], 1);
	end(&r, &d);
}

/* One may be a screenshot's for a while. */
static void has_fds(struct rig *r, unsigned want)
{
	int64_t limit = fe_now_ms() + fe_limit_ms;

	while (fe_process_fds(&r->fe.process) != want)
		CHECK(fe_now_ms() < limit);
}

/* A new socket at every start of the VM: all that is shown comes again. */
static void replaced(const struct fe_mode *m)
{
	struct display d, old;
	uint32_t *screen, base[2];
	unsigned fds;
	struct rig r;

	start(&r, &d, m, F_EDID);
	fds = fe_process_fds(&r.fe.process);
	screen = picture(&r, 1, 320, 200, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 320, 200), OK);
	cursor(&r, CMD(UPDATE_CURSOR), 0, 1, 3, 4, 0, 0);
	displays(&d, 0, screen, 320, 200);
	for (unsigned i = 0; i < 4; i++) {
		old = d;
		if (i % 2) {
			base[0] = fe_queue_stop(r.control);
			base[1] = fe_queue_stop(r.cursor);
			drop(&old);
		}
		plug(&r, &d, F_EDID);
		if (i % 2) {
			fe_queue_send(r.control, base[0]);
			fe_queue_send(r.cursor, base[1]);
		}
		displays(&d, 0, screen, 320, 200);
		while (!d.count[CURSOR_UPDATE])
			CHECK(serve(&d, fe_limit_ms));
		has_fds(&r, fds);
		if (i % 2 == 0) {
			while (serve(&old, fe_limit_ms))
				;
			drop(&old);
		}
	}
	/* a reset switches off what was shown */
	fe_set(&r.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	while (d.s[0].w)
		CHECK(serve(&d, fe_limit_ms));
	end(&r, &d);
}

/* What a front-end should not do ends its display, not the device. */
static void hostile(const struct fe_mode *m)
{
	static const struct header wrong[] = {{GET_DISPLAY_INFO, 4, 408}, {GET_PROTOCOL_FEATURES, 4, 4},
		{99, 4, 0}, {GET_PROTOCOL_FEATURES, 0, 8}, {GET_EDID, 4, 0xffffffff}, {0, 0, 0}};
	uint32_t *screen;
	struct display d;
	struct rig r;

	rig_start(&r, m, FE_ARGS(NULL));
	screen = picture(&r, 1, 32, 32, 1);
	CHECK_EQ(set_scanout(&r, 0, 1, 0, 0, 32, 32), OK);
	CHECK_EQ(fe_ack(&r.fe, FE_GPU_SET_SOCKET, NULL, 0, NULL, 0) != 0, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		static const uint8_t zeros[512];

		plug(&r, &d, F_EDID);
		send(d.fd, &wrong[i], sizeof(wrong[i]), MSG_NOSIGNAL);
		send(d.fd, zeros, MIN(wrong[i].size, sizeof(zeros)), MSG_NOSIGNAL);
		shutdown(d.fd, SHUT_WR);
		CHECK(fe_poll(d.fd, POLLHUP, fe_limit_ms));
		drop(&d);
		CHECK_EQ(flush(&r, 1, 0, 0, 32, 32), OK);
	}
	plug(&r, &d, F_EDID);
	displays(&d, 0, screen, 32, 32);
	end(&r, &d);
}

int main(void)
{
	fe_each_mode("works", works);
	fe_case("conversions", conversions, &split);
	fe_each_layout("questions", questions);
	fe_each_layout("a display that keeps silent", silence);
	fe_each_layout("a slow display", slow);
	fe_case("cursors", cursors, &split);
	fe_each_layout("a display that is replaced", replaced);
	fe_case("a hostile display", hostile, &split);
	return tap_done();
}
