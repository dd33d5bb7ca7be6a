/* SPDX-License-Identifier: MIT */
/*
 * Frames of a vhost-user gpu: the guest's picture of 1920x1080 is transferred and flushed, the display takes the pixels and
 * throws them away, then comes the next. With --virgl the picture is drawn by the renderer instead, and comes back from there. VUM
 * is the program; it gets the arguments of this one, and --fd.
 *
 *	gpubench SECONDS [ARGUMENT...]
 *
 * Prints: fps=… cpu_us_per_frame=… frames_per_cpu_second=… rss_kib=… (the processor time is the back-end's).
 */
#include <linux/virtio_gpu.h>
#include <stdio.h>
#include <sys/socket.h>

#include "frontend.h"

enum { W = 1920, H = 1080, SIZE = W * H * 4 };
enum { GET_PROTOCOL_FEATURES = 1, SET_PROTOCOL_FEATURES, SCANOUT = 7, UPDATE = 8 };

struct header {
	uint32_t request, flags, size;
};

static struct fe fe;
static struct fe_queue *q;
static int display;

static void take(void *to, size_t n)
{
	static uint8_t waste[1 << 20];

	while (n) {
		ssize_t got = recv(display, to ? to : waste, to || n < sizeof(waste) ? n : sizeof(waste), 0);

		CHECK(got > 0);
		to = to ? (uint8_t *)to + got : NULL;
		n -= (size_t)got;
	}
}

/* Handles messages until one of that kind has come. */
static void serve(uint32_t until)
{
	struct header h;

	do {
		take(&h, sizeof(h));
		take(NULL, h.size);
		if (h.request == GET_PROTOCOL_FEATURES) {
			uint64_t features = 0;
			struct header answer = {GET_PROTOCOL_FEATURES, 4, 8};

			CHECK(send(display, &answer, sizeof(answer), 0) > 0 &&
				send(display, &features, sizeof(features), 0) > 0);
		}
	} while (h.request != until);
}

static void plug(void)
{
	int sv[2];

	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fe_set(&fe, FE_GPU_SET_SOCKET, NULL, 0, &sv[1], 1);
	close(sv[1]);
	display = sv[0];
	serve(SET_PROTOCOL_FEATURES);
}

static void command(const void *c, uint32_t size)
{
	uint8_t *at = fe_alloc(&fe, size, 8, NULL);
	struct virtio_gpu_ctrl_hdr *answer = fe_alloc(&fe, sizeof(*answer), 8, NULL);
	struct vring_driver_buf b[2] = {fe_rd(&fe, at, size), fe_wr(&fe, answer, sizeof(*answer))};

	memcpy(at, c, size);
	fe_submit(q, b, 2, answer);
	fe_flush(q);
}

static void done(void)
{
	void *answer;

	fe_wait(q, &answer);
	CHECK_EQ(((struct virtio_gpu_ctrl_hdr *)answer)->type, VIRTIO_GPU_RESP_OK_NODATA);
}

#define COMMAND(...) command(&(__VA_ARGS__), sizeof(__VA_ARGS__))

static void frame(void)
{
	size_t mark = fe_mark(&fe);

	COMMAND((struct virtio_gpu_transfer_to_host_2d){
		.hdr.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, .r = {0, 0, W, H}, .resource_id = 1});
	COMMAND((struct virtio_gpu_resource_flush){
		.hdr.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH, .r = {0, 0, W, H}, .resource_id = 1});
	serve(UPDATE);
	done();
	done();
	fe_release(&fe, mark);
}

/* virglrenderer's commands: opcode, object type << 8, words that follow << 16 */
enum { CREATE_OBJECT = 1, SET_FRAMEBUFFER = 5, CLEAR = 7, OBJECT_SURFACE = 8, CLEAR_COLOR0 = 1 << 2 };
enum { TEXTURE_2D = 2, RENDER_TARGET = 1 << 1, Y_0_TOP = 1, CONTEXT = 1 };

static void submit(const uint32_t *words, uint32_t size)
{
	struct {
		struct virtio_gpu_cmd_submit c;
		uint32_t words[16];
	} all = {.c = {.hdr.type = VIRTIO_GPU_CMD_SUBMIT_3D, .hdr.ctx_id = CONTEXT, .size = size}};

	memcpy(all.words, words, size);
	command(&all, sizeof(all.c) + size);
}

static void frame_3d(void)
{
	static const uint32_t clear[] = {
		CLEAR | 8 << 16, CLEAR_COLOR0, 0x3e800000, 0, 0, 0x3f800000, 0, 0, 0};
	size_t mark = fe_mark(&fe);

	submit(clear, sizeof(clear));
	COMMAND((struct virtio_gpu_resource_flush){.hdr.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH,
		.hdr.flags = VIRTIO_GPU_FLAG_FENCE,
		.r = {0, 0, W, H},
		.resource_id = 1});
	serve(UPDATE);
	done();
	done();
	fe_release(&fe, mark);
}

static void set_up_3d(void)
{
	static const uint32_t target[] = {CREATE_OBJECT | OBJECT_SURFACE << 8 | 5 << 16, 1, 1,
		VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, 0, 0, SET_FRAMEBUFFER | 3 << 16, 1, 0, 1};

	COMMAND((struct virtio_gpu_ctx_create){.hdr.type = VIRTIO_GPU_CMD_CTX_CREATE, .hdr.ctx_id = CONTEXT});
	done();
	COMMAND((struct virtio_gpu_resource_create_3d){.hdr.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_3D,
		.resource_id = 1,
		.target = TEXTURE_2D,
		.format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
		.bind = RENDER_TARGET,
		.width = W,
		.height = H,
		.depth = 1,
		.array_size = 1,
		.flags = Y_0_TOP});
	done();
	COMMAND((struct virtio_gpu_ctx_resource){
		.hdr.type = VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE, .hdr.ctx_id = CONTEXT, .resource_id = 1});
	done();
	submit(target, sizeof(target));
	done();
	COMMAND((struct virtio_gpu_set_scanout){
		.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT, .r = {0, 0, W, H}, .resource_id = 1});
	serve(SCANOUT);
	done();
}

static void set_up(void)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry entry;
	} backing = {
		.c = {.hdr.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, .resource_id = 1, .nr_entries = 1},
		.entry.length = SIZE};
	uint64_t gpa;

	fe_alloc(&fe, SIZE, 4096, &gpa);
	backing.entry.addr = gpa;
	COMMAND((struct virtio_gpu_resource_create_2d){.hdr.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D,
		.resource_id = 1,
		.format = VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM,
		.width = W,
		.height = H});
	done();
	command(&backing, sizeof(backing));
	done();
	COMMAND((struct virtio_gpu_set_scanout){
		.hdr.type = VIRTIO_GPU_CMD_SET_SCANOUT, .r = {0, 0, W, H}, .resource_id = 1});
	serve(SCANOUT);
	done();
}

int main(int argc, char **argv)
{
	const char *args[16] = {NULL};
	bool virgl = false;
	unsigned frames = 0;
	uint64_t cpu;
	int64_t start, end;
	double s;

	if (argc < 2 || argc > 16) {
		fprintf(stderr, "usage: gpubench SECONDS [ARGUMENT...]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		args[i - 2] = argv[i];
		virgl |= strcmp(argv[i], "--virgl") == 0;
	}
	fe_init(&fe, NULL);
	fe.device_mask = virgl; /* 2D alone is what all have in the same way */
	fe_spawn(&fe, args);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	plug();
	q = fe_queue_up(&fe, 0, 64);
	fe_queue_up(&fe, 1, 16);
	if (virgl)
		set_up_3d();
	else
		set_up();
	for (unsigned i = 0; i < 20; i++) /* the first may come twice: what is shown anew is sent by itself */
		virgl ? frame_3d() : frame();
	cpu = fe_process_cpu_ms(&fe.process);
	start = fe_now_ms();
	end = start + (int64_t)(atof(argv[1]) * 1000);
	while (fe_now_ms() < end) {
		virgl ? frame_3d() : frame();
		frames++;
	}
	s = (double)(fe_now_ms() - start) / 1000;
	cpu = fe_process_cpu_ms(&fe.process) - cpu;
	printf("fps=%.1f cpu_us_per_frame=%.0f frames_per_cpu_second=%.1f rss_kib=%zu\n", frames / s,
		(double)cpu * 1000 / frames, frames * 1000.0 / (double)(cpu ? cpu : 1),
		fe_process_rss(&fe.process) / 1024);
	fe_process_kill(&fe.process);
	return 0;
}
