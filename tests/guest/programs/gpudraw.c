/* SPDX-License-Identifier: MIT */
/*
 * Draws a known pattern on every connected output of a DRM device, and perhaps a cursor, by the kernel's own interface.
 *
 * usage: gpudraw SEED [WIDTHxHEIGHT] [+X+Y] [-FRAMES]
 *
 * SEED may be "bars": colour bars, for people to look at. The pattern on output i is that of SEED + i, the cursor's that of SEED + 100. Without a size an output has its preferred
 * mode; the cursor is put on the first. Prints "output I WIDTHxHEIGHT" for each, then "drawn", and stays until it is killed.
 * With -FRAMES the first output is drawn so many times more when its standard input says so, then it prints "worked".
 */
#define _GNU_SOURCE
#include <libdrm/drm.h>
#include <libdrm/drm_mode.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX = 16, MODES = 128, CURSOR = 64 };

struct buffer {
	uint32_t handle, pitch, width, height;
	uint8_t *pixels;
};

static int fd, bars;
static uint32_t first;
static uint32_t crtcs[MAX], connectors[MAX];

static void call(unsigned long request, void *arg, const char *what)
{
	if (ioctl(fd, request, arg) < 0)
		err(1, "%s", what);
}

static struct buffer buffer_new(uint32_t width, uint32_t height)
{
	struct drm_mode_create_dumb create = {.width = width, .height = height, .bpp = 32};
	struct drm_mode_map_dumb map = {0};
	struct buffer b = {.width = width, .height = height};

	call(DRM_IOCTL_MODE_CREATE_DUMB, &create, "CREATE_DUMB");
	map.handle = b.handle = create.handle;
	b.pitch = create.pitch;
	call(DRM_IOCTL_MODE_MAP_DUMB, &map, "MAP_DUMB");
	b.pixels = mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map.offset);
	if (b.pixels == MAP_FAILED)
		err(1, "mmap");
	return b;
}

static void draw(const struct buffer *b, unsigned seed, uint32_t alpha)
{
	for (uint32_t y = 0; y < b->height; y++)
		for (uint32_t x = 0; x < b->width; x++) {
			uint32_t v = (x * 2654435761u ^ y * 40503u ^ seed * 97u) & 0xffffff;

			*(uint32_t *)(void *)(b->pixels + y * b->pitch + x * 4) = v | alpha;
		}
}

/* White to black, brighter towards the top. */
static void draw_bars(const struct buffer *b)
{
	for (uint32_t y = 0; y < b->height; y++)
		for (uint32_t x = 0; x < b->width; x++) {
			uint32_t bar = 7 - x * 8 / b->width, level = 255 - y * 128 / b->height;
			uint32_t v = (bar & 2 ? level << 16 : 0) | (bar & 4 ? level << 8 : 0) |
				     (bar & 1 ? level : 0);

			*(uint32_t *)(void *)(b->pixels + y * b->pitch + x * 4) = v;
		}
}

static int outputs(void)
{
	struct drm_mode_card_res res = {.count_crtcs = MAX,
		.count_connectors = MAX,
		.crtc_id_ptr = (uintptr_t)crtcs,
		.connector_id_ptr = (uintptr_t)connectors};

	call(DRM_IOCTL_MODE_GETRESOURCES, &res, "GETRESOURCES");
	return (int)(res.count_connectors < res.count_crtcs ? res.count_connectors : res.count_crtcs);
}

/* False: nothing is connected there. */
static int mode_of(int i, const char *size, struct drm_mode_modeinfo *mode)
{
	static struct drm_mode_modeinfo modes[MODES];
	struct drm_mode_get_connector c = {
		.connector_id = connectors[i], .modes_ptr = (uintptr_t)modes, .count_modes = MODES};
	char name[32];

	call(DRM_IOCTL_MODE_GETCONNECTOR, &(struct drm_mode_get_connector){.connector_id = connectors[i]},
		"probe");
	call(DRM_IOCTL_MODE_GETCONNECTOR, &c, "GETCONNECTOR");
	if (c.connection != 1 || !c.count_modes)
		return 0;
	for (uint32_t k = 0; k < c.count_modes && k < MODES; k++) {
		snprintf(name, sizeof(name), "%ux%u", modes[k].hdisplay, modes[k].vdisplay);
		if (size ? strcmp(name, size) == 0 : k == 0) {
			*mode = modes[k];
			return 1;
		}
	}
	errx(1, "output %d has no mode %s", i, size);
}

static void show(int i, unsigned seed, const struct drm_mode_modeinfo *mode)
{
	struct buffer b = buffer_new(mode->hdisplay, mode->vdisplay);
	struct drm_mode_fb_cmd fb = {.width = b.width,
		.height = b.height,
		.pitch = b.pitch,
		.bpp = 32,
		.depth = 24,
		.handle = b.handle};
	struct drm_mode_crtc crtc = {.crtc_id = crtcs[i],
		.set_connectors_ptr = (uintptr_t)&connectors[i],
		.count_connectors = 1,
		.mode_valid = 1,
		.mode = *mode};
	struct drm_mode_fb_dirty_cmd dirty = {0};

	if (bars)
		draw_bars(&b);
	else
		draw(&b, seed + (unsigned)i, 0);
	call(DRM_IOCTL_MODE_ADDFB, &fb, "ADDFB");
	crtc.fb_id = dirty.fb_id = fb.fb_id;
	first = first ? first : fb.fb_id;
	call(DRM_IOCTL_MODE_SETCRTC, &crtc, "SETCRTC");
	call(DRM_IOCTL_MODE_DIRTYFB, &dirty, "DIRTYFB");
	printf("output %d %ux%u\n", i, mode->hdisplay, mode->vdisplay);
}

static void cursor(unsigned seed, const char *at)
{
	struct buffer b = buffer_new(CURSOR, CURSOR);
	struct drm_mode_cursor2 c = {.flags = DRM_MODE_CURSOR_BO | DRM_MODE_CURSOR_MOVE,
		.crtc_id = crtcs[0],
		.width = CURSOR,
		.height = CURSOR,
		.handle = b.handle};

	if (sscanf(at, "+%d+%d", &c.x, &c.y) != 2)
		errx(2, "%s: not +X+Y", at);
	draw(&b, seed, 0xff000000);
	call(DRM_IOCTL_MODE_CURSOR2, &c, "CURSOR2");
}

static void redraw(long frames)
{
	struct drm_mode_fb_dirty_cmd dirty = {.fb_id = first};

	while (frames--)
		call(DRM_IOCTL_MODE_DIRTYFB, &dirty, "DIRTYFB");
	puts("worked");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned seed = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	const char *size = NULL, *at = NULL;
	struct drm_mode_modeinfo mode;
	long frames = 0;
	int n;

	bars = argc > 1 && strcmp(argv[1], "bars") == 0;
	for (int i = 2; i < argc; i++)
		if (argv[i][0] == '-')
			frames = atol(argv[i] + 1);
		else
			*(argv[i][0] == '+' ? &at : &size) = argv[i];
	fd = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/dri/card0");
	n = outputs();
	for (int i = 0; i < n; i++)
		if (mode_of(i, size, &mode))
			show(i, seed, &mode);
	if (at)
		cursor(seed + 100, at);
	puts("drawn");
	fflush(stdout);
	if (frames && getchar() != EOF)
		redraw(frames);
	for (;;)
		pause();
}
