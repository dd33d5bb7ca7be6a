/* SPDX-License-Identifier: MIT */
/*
 * Is a picture file, PNG or PPM, the pattern that the guest program gpudraw draws? Every pixel is compared.
 *
 * usage: picture FILE SEED WIDTH HEIGHT [CURSOR-X CURSOR-Y]
 *        picture FILE gles WIDTH HEIGHT                           what glesdraw draws
 */
#include <err.h>
#include <png.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CURSOR = 64 };

struct picture {
	unsigned w, h;
	uint8_t *rgb;
};

static uint32_t pixel_at(uint32_t x, uint32_t y, unsigned seed)
{
	return (x * 2654435761u ^ y * 40503u ^ seed * 97u) & 0xffffff;
}

/* Red, green, blue and white quarters, a square in the middle. */
static uint32_t gles_pixel_at(uint32_t x, uint32_t y, unsigned w, unsigned h)
{
	if (x >= w / 4 && x < w * 3 / 4 && y >= h / 4 && y < h * 3 / 4)
		return 0x336699;
	if (y < h / 2)
		return x < w / 2 ? 0xff0000 : 0x00ff00;
	return x < w / 2 ? 0x0000ff : 0xffffff;
}

static struct picture read_ppm(const char *path)
{
	struct picture p = {0};
	FILE *f = fopen(path, "r");
	unsigned max;

	if (!f || fscanf(f, "P6 %u %u %u", &p.w, &p.h, &max) != 3 || max != 255 || p.w > 20000 || p.h > 20000)
		errx(1, "%s: neither PNG nor PPM", path);
	fgetc(f);
	p.rgb = malloc((size_t)p.w * p.h * 3 + 1);
	if (!p.rgb || fread(p.rgb, 3, (size_t)p.w * p.h, f) != (size_t)p.w * p.h)
		errx(1, "%s: cut off", path);
	fclose(f);
	return p;
}

static struct picture read_picture(const char *path)
{
	png_image image = {.version = PNG_IMAGE_VERSION};
	struct picture p;

	if (!png_image_begin_read_from_file(&image, path))
		return read_ppm(path);
	image.format = PNG_FORMAT_RGB;
	p = (struct picture){image.width, image.height, malloc(PNG_IMAGE_SIZE(image))};
	if (!p.rgb || !png_image_finish_read(&image, NULL, p.rgb, 0, NULL))
		errx(1, "%s: %s", path, image.message);
	return p;
}

int main(int argc, char **argv)
{
	unsigned seed, w, h, cx = 0, cy = 0;
	struct picture p;

	if (argc != 5 && argc != 7)
		errx(2, "usage: picture FILE SEED WIDTH HEIGHT [CURSOR-X CURSOR-Y]");
	seed = (unsigned)atoi(argv[2]);
	w = (unsigned)atoi(argv[3]);
	h = (unsigned)atoi(argv[4]);
	if (argc == 7) {
		cx = (unsigned)atoi(argv[5]);
		cy = (unsigned)atoi(argv[6]);
	}
	p = read_picture(argv[1]);
	if (p.w != w || p.h != h)
		errx(1, "%s is %ux%u, not %ux%u", argv[1], p.w, p.h, w, h);
	for (unsigned i = 0; i < w * h; i++) {
		uint32_t x = i % w, y = i / w, want = pixel_at(x, y, seed);
		uint32_t got =
			(uint32_t)p.rgb[i * 3] << 16 | (uint32_t)p.rgb[i * 3 + 1] << 8 | p.rgb[i * 3 + 2];

		if (strcmp(argv[2], "gles") == 0)
			want = gles_pixel_at(x, y, w, h);
		else if (argc == 7 && x - cx < CURSOR && y - cy < CURSOR)
			want = pixel_at(x - cx, y - cy, seed + 100);
		if (got != want)
			errx(1, "%s: pixel %u,%u is %06x, not %06x", argv[1], x, y, got, want);
	}
	free(p.rgb);
	return 0;
}
