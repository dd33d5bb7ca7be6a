/* SPDX-License-Identifier: MIT */
/*
 * Screenshots. With --screenshot-dir a PNG file for each scanout, with its cursor, is replaced in one step whenever the picture
 * changed, at most once in an interval. A copy of the pixels is made in the loop, a pool thread encodes and writes it. When a
 * driver goes, what was not written yet is handed on at once: the last picture stays for a look at it.
 */
#include "gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

#include "library.h"
#include "pool.h"

#define NS_PER_MS	 UINT64_C(1000000)
#define SETTLE_NS	 (20 * NS_PER_MS) /* a guest that draws a picture is let to finish it */
#define PNG_STRING(x)	 #x
#define PNG_SONAME(n)	 "libpng" PNG_STRING(n) ".so." PNG_STRING(n)

#define PNG_FUNCTIONS(F) F(png_image_write_to_stdio) F(png_image_free)
#define PNG_SYMBOL(name) LIBRARY_SYMBOL(png_library, name)

LIBRARY(png_library, PNG_FUNCTIONS);
static struct png_library png;

struct gpu_shot {
	struct gpu *g;
	struct pool *pool; /* of one thread: pictures are written in their order */
	int dir;
	uint64_t interval, last; /* ns */
	uint32_t dirty;		 /* bit mask of scanouts */
	struct timer timer;
	unsigned pending; /* pictures at the pool */
	uint64_t bytes;	  /* of them */
	bool closed;	  /* the last picture that comes back frees all */
};

struct picture {
	struct job job; /* of those that are written by themselves */
	struct gpu_shot *shot;
	unsigned scanout;
	uint32_t w, h;
	uint32_t pixels[];
};

/* Writing one, in any thread */

static int encode(const struct picture *pic, FILE *f)
{
	png_image image = {.version = PNG_IMAGE_VERSION,
		.width = pic->w,
		.height = pic->h,
		.format = PNG_FORMAT_BGRA,
		.flags = PNG_IMAGE_FLAG_FAST};
	int ok, err;

	errno = 0;
	ok = png.png_image_write_to_stdio(&image, f, 0, pic->pixels, 0, NULL) && fflush(f) == 0;
	err = errno ? -errno : -EIO;
	png.png_image_free(&image);
	return ok ? 0 : err;
}

/* name is replaced by new, which is complete. */
static int write_file(const struct picture *pic, int dir, const char *name, const char *new, int flags)
{
	int fd = openat(dir, new, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0666), err;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f) {
		err = -errno;
		fd_close(&fd);
		return err;
	}
	err = encode(pic, f);
	if (fclose(f) != 0 && !err)
		err = -errno;
	if (!err && renameat(dir, new, dir, name) < 0)
		err = -errno;
	if (err)
		unlinkat(dir, new, 0);
	return err;
}

static void picture_write(struct job *j)
{
	const struct picture *pic = container_of(j, struct picture, job);
	char name[32], new[40];
	int err;

	snprintf(name, sizeof(name), "scanout-%u.png", pic->scanout);
	snprintf(new, sizeof(new), ".%s.new", name);
	err = write_file(pic, pic->shot->dir, name, new, O_TRUNC);
	if (err)
		log_errno(-err, "screenshot: %s", name);
}

/* In the loop */

static void arm(struct gpu_shot *shot)
{
	if (shot->pending || shot->timer.at || !shot->dirty)
		return;
	timer_arm(shot->g->b->loop, &shot->timer, MAX(time_ns() + SETTLE_NS, shot->last + shot->interval));
}

static void shot_free(struct gpu_shot *shot)
{
	fd_close(&shot->dir);
	free(shot);
}

static void picture_written(struct job *j)
{
	struct picture *pic = container_of(j, struct picture, job);
	struct gpu_shot *shot = pic->shot;

	shot->bytes -= (uint64_t)pic->w * pic->h * GPU_PIXEL;
	free(pic);
	shot->pending--;
	if (!shot->closed)
		arm(shot);
	else if (!shot->pending)
		shot_free(shot);
}

/* What a scanout shows, with its cursor. NULL: no memory. */
static struct picture *picture_of(struct gpu *g, unsigned i)
{
	const struct gpu_scanout *scanout = &g->scanout[i];
	struct gpu_rect all = {.w = scanout->s.w, .h = scanout->s.h};
	size_t n = (size_t)all.w * all.h, k;
	struct picture *pic = malloc(sizeof(*pic) + n * GPU_PIXEL);

	if (!pic)
		return NULL;
	*pic = (struct picture){.scanout = i, .w = all.w, .h = all.h};
	gpu_surface_read(&scanout->s, &all, pic->pixels);
	gpu_pixel_blend_cursor(pic->pixels, all.w, all.h, scanout->cursor);
	for (k = 0; k < n; k++)
		pic->pixels[k] |= htole32(0xff000000);
	return pic;
}

/* Copies what a scanout shows, and hands it on. */
static void picture_take(struct gpu_shot *shot, unsigned i, bool last)
{
	const struct gpu_scanout *scanout = &shot->g->scanout[i];
	size_t n = (size_t)scanout->s.w * scanout->s.h;
	struct picture *pic;

	if (scanout->s.res && shot->pending && shot->bytes + n * GPU_PIXEL > shot->g->max_hostmem)
		return; /* later */
	if (scanout->s.res && scanout->s.res->reading && !last)
		return; /* when it is read back */
	shot->dirty &= ~(uint32_t)BIT(i);
	if (!scanout->s.res)
		return;
	pic = picture_of(shot->g, i);
	if (!pic) {
		log_guest_warn("screenshot: no memory for %zu pixels", n);
		return;
	}
	pic->job = (struct job){.run = picture_write, .done = picture_written, .loop = shot->g->b->loop};
	pic->shot = shot;
	shot->pending++;
	shot->bytes += n * GPU_PIXEL;
	pool_submit(shot->pool, &pic->job);
}

static void pictures_take(struct gpu_shot *shot, bool last)
{
	unsigned i;

	for (i = 0; i < GPU_SCANOUTS; i++)
		if (shot->dirty & BIT(i))
			picture_take(shot, i, last);
	shot->last = time_ns();
}

static void timer_expired(struct timer *t)
{
	pictures_take(container_of(t, struct gpu_shot, timer), false);
}

void gpu_shot_dirty(struct gpu_shot *shot, unsigned scanout)
{
	if (!shot)
		return;
	shot->dirty |= (uint32_t)BIT(scanout);
	arm(shot);
}

void gpu_shot_finish(struct gpu_shot *shot)
{
	if (!shot)
		return;
	for (unsigned i = 0; i < GPU_SCANOUTS; i++)
		if (shot->g->scanout[i].s.res)
			gpu_surface_refresh(&shot->g->scanout[i].s);
	timer_disarm(&shot->timer);
	pictures_take(shot, true);
	shot->dirty = 0;
}

static int load(void)
{
	static const struct library_symbol symbols[] = {PNG_FUNCTIONS(PNG_SYMBOL)};

	return png.png_image_free
		       ? 0
		       : library_load(PNG_SONAME(PNG_LIBPNG_VER_SONUM), symbols, ARRAY_SIZE(symbols), &png);
}

int gpu_shot_open(struct gpu *g, const char *dir, uint64_t interval_ms, struct gpu_shot **out)
{
	struct gpu_shot *shot;
	int err;

	*out = NULL;
	if (!dir)
		return 0;
	err = load();
	if (err)
		return err;
	shot = calloc(1, sizeof(*shot));
	if (!shot)
		return log_errno(ENOMEM, "screenshots");
	*shot = (struct gpu_shot){
		.g = g, .interval = interval_ms * NS_PER_MS, .timer.expired = timer_expired};
	shot->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	err = shot->dir < 0 ? -errno : faccessat(shot->dir, ".", W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
	if (!err)
		err = pool_new(&shot->pool, 1, "screenshot");
	if (err) {
		log_errno(-err, "--screenshot-dir=%s", dir);
		fd_close(&shot->dir);
		free(shot);
		return err;
	}
	*out = shot;
	return 0;
}

/* The pool writes what it has; the loop brings the pictures back before it goes. */
void gpu_shot_close(struct gpu_shot *shot)
{
	if (!shot)
		return;
	timer_disarm(&shot->timer);
	pool_free(shot->pool);
	shot->closed = true;
	if (!shot->pending)
		shot_free(shot);
}
/* On demand, written when it is answered. */

static int screenshot(struct backend *b, struct command *c)
{
	struct gpu *g = b->state;
	const char *path = command_string(c, "path");
	CLEANUP_FREE struct picture *pic = NULL;
	char new[PATH_MAX + 16];
	uint64_t i = 0;
	int err;

	command_u64(c, "scanout", &i);
	if (path[0] != '/')
		return command_error(c, EINVAL, "path=%s: not an absolute path", path);
	if (i >= GPU_SCANOUTS || !g->scanout[i].s.res)
		return command_error(c, ENOENT, "scanout=%" PRIu64 ": shows nothing", i);
	if (strlen(path) >= PATH_MAX)
		return command_error(c, ENAMETOOLONG, "path: too long");
	err = load();
	if (err)
		return command_error(c, -err, "libpng can't be loaded");
	gpu_surface_refresh(&g->scanout[i].s);
	pic = picture_of(g, (unsigned)i);
	if (!pic)
		return command_error(c, ENOMEM, "%s", strerror(ENOMEM));
	snprintf(new, sizeof(new), "%s.%d", path, (int)getpid());
	err = write_file(pic, AT_FDCWD, path, new, O_EXCL);
	if (err)
		return command_error(c, -err, "%s: %s", path, strerror(-err));
	json_object_begin(c->out);
	json_key(c->out, "width");
	json_u64(c->out, pic->w);
	json_key(c->out, "height");
	json_u64(c->out, pic->h);
	json_object_end(c->out);
	return 0;
}

static const struct command_arg screenshot_args[] = {
	{.name = "path",
		.kind = COMMAND_STRING,
		.required = true,
		.help = "the PNG file to write, an absolute path"},
	{.name = "scanout", .kind = COMMAND_U64, .help = "which screen, from 0, which is the default"},
	{.name = NULL},
};

const struct command_spec gpu_commands[] = {
	{.name = "screenshot",
		.help = "Write what a screen shows to a file",
		.args = screenshot_args,
		.run = screenshot},
	{.name = NULL},
};
