/* SPDX-License-Identifier: MIT */
/*
 * The process that renders for a gpu with --virgl: what is left when it dies or hangs, when there is another one, and what it
 * holds of guest memory.
 */
#include <dirent.h>
#include <signal.h>

#include "gpu-rig-3d.h"

static const struct fe_mode split = {0};

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

/* Mappings of memory files in a process. */
static unsigned mappings(pid_t pid)
{
	char path[32], line[512];
	unsigned n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	CHECK((f = fopen(path, "r")) != NULL);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, "/memfd:") != NULL;
	fclose(f);
	return n;
}

/* Memory that the front-end takes away is let go of by the renderer too, without another command. */
static void lets_go(const struct fe_mode *m)
{
	struct virtio_gpu_box all = {.w = 64, .h = 64, .d = 1};
	struct fe_region *region;
	unsigned before;
	struct rig r;

	start_3d(&r, m, NULL);
	region = fe_region_make(&r.fe, UINT64_C(8) << 32, 1 << 20, 0x7f0000000000, -1, 0);
	fe_region_add(&r.fe, region);
	region->used = 1 << 20;
	CHECK_EQ(create_3d(&r, 1, BGRA, 64, 64, 0), OK);
	CHECK_EQ(attach_one(&r, 1, UINT64_C(8) << 32, 64 * 64 * 4), OK);
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), OK);
	before = mappings(renderer_of(&r));
	CHECK(before >= 2);
	fe_region_remove(&r.fe, region);
	for (int i = 0; mappings(renderer_of(&r)) != before - 1; i++) {
		CHECK(i < fe_limit_ms / 20);
		fe_poll(-1, 0, 20);
	}
	CHECK_EQ(transfer_3d(&r, CMD(TRANSFER_TO_HOST_3D), 0, 1, all, 0, 256), ERR(UNSPEC));
	fe_end(&r.fe);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

	start_3d(&r, m, NULL);
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

int main(void)
{
	fe_case("memory that is taken away", lets_go, &split);
	fe_each_layout("a renderer that dies", dies);
	fe_each_layout("a renderer that hangs", hangs);
	fe_case("a renderer for each driver", renewed, &split);
	return tap_done();
}
