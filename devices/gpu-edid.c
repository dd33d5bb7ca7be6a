/* SPDX-License-Identifier: MIT */
/*
 * The monitor that a guest sees (VESA E-EDID 1.4): a base block with the wanted mode as its preferred, and only, detailed
 * timing. A detailed timing has 12 bits for each side; what is larger is described by a DisplayID extension (VESA
 * DisplayID 1.3, type I timing, 16 bits), the base block then has 1024x768.
 *
 * The timings are of the reduced blanking kind at 60 Hz: nothing is driven by them, but guests reckon with them.
 */
#include "gpu.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 128, DPI = 96, REFRESH = 60, MAX_DTD = 4095 };
enum { H_BLANK = 160, H_FRONT = 48, H_SYNC = 32, V_BLANK = 35, V_FRONT = 3, V_SYNC = 6 };

struct timing {
	uint32_t w, h, clock; /* 10 kHz */
};

static struct timing timing_of(uint32_t w, uint32_t h)
{
	uint64_t pixels = (uint64_t)(w + H_BLANK) * (h + V_BLANK);

	return (struct timing){w, h, (uint32_t)(pixels * REFRESH / 10000)};
}

static uint32_t millimetres(uint32_t pixels)
{
	return pixels * 254 / (DPI * 10);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void checksum(uint8_t *p, size_t n)
{
	uint8_t sum = 0;
	size_t i;

	for (i = 0; i + 1 < n; i++)
		sum = (uint8_t)(sum + p[i]);
	p[n - 1] = (uint8_t)-sum;
}

/* E-EDID 1.4, 3.10.2 */
/* w, h: of the screen, in pixels */
static void put_dtd(uint8_t *p, const struct timing *t, uint32_t w, uint32_t h)
{
	uint32_t mm_w = MIN(millimetres(w), 4095u), mm_h = MIN(millimetres(h), 4095u);

	put16(p, MIN(t->clock, 65535u));
	p[2] = (uint8_t)t->w;
	p[3] = H_BLANK;
	p[4] = (uint8_t)(t->w >> 8 << 4);
	p[5] = (uint8_t)t->h;
	p[6] = V_BLANK;
	p[7] = (uint8_t)(t->h >> 8 << 4);
	p[8] = H_FRONT;
	p[9] = H_SYNC;
	p[10] = V_FRONT << 4 | V_SYNC;
	p[12] = (uint8_t)mm_w;
	p[13] = (uint8_t)mm_h;
	p[14] = (uint8_t)(mm_w >> 8 << 4 | mm_h >> 8);
	p[17] = 0x1a; /* digital separate sync, horizontal positive */
}

/* E-EDID 1.4, 3.10.3: 13 bytes of text, ended by a line feed and padded with blanks */
static void put_text(uint8_t *p, uint8_t tag, const char *text)
{
	size_t n = strlen(text);

	p[3] = tag;
	memset(p + 5, ' ', 13);
	memcpy(p + 5, text, MIN(n, (size_t)13));
	if (n < 13)
		p[5 + n] = '\n';
}

static void put_ranges(uint8_t *p, const struct timing *t)
{
	p[3] = 0xfd;
	p[5] = 50; /* vertical, Hz */
	p[6] = 125;
	p[7] = 1; /* horizontal, kHz */
	p[8] = 255;
	p[9] = (uint8_t)MIN(MAX(t->clock / 1000 + 1, 21u), 255u); /* 10 MHz; 21: of the standard timings */
	p[10] = 0x01;
	p[11] = '\n';
	memset(p + 12, ' ', 6);
}

static void put_base(
	uint8_t *p, const struct timing *t, const struct timing *wanted, unsigned number, bool extended)
{
	static const uint8_t head[] = {0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00};
	/* E-EDID 1.4, 3.7: the sRGB primaries */
	static const uint8_t colours[] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
	/* E-EDID 1.4, 3.9: width / 8 - 31, aspect ratio and frequency less 60: others that a guest may choose */
	static const uint8_t standard[] = {0x81, 0xc0, 0x81, 0x80, 0x95, 0x00, 0xa9, 0x40, 0xb3, 0x00, 0xd1,
		0xc0, 0xd1, 0x00, 0xe1, 0xc0};
	char serial[14];

	memcpy(p, head, sizeof(head));
	/* the maker, "VUM": five bits a letter, most significant byte first */
	p[8] = ('V' - '@') << 2 | ('U' - '@') >> 3;
	p[9] = (uint8_t)(('U' - '@') << 5 | ('M' - '@'));
	put16(p + 10, 1);
	put16(p + 12, number + 1);
	p[16] = 42; /* week and year of manufacture */
	p[17] = 34;
	p[18] = 1; /* EDID 1.4 */
	p[19] = 4;
	p[20] = 0xa5; /* digital, 8 bits a colour, DisplayPort */
	p[21] = (uint8_t)MIN(millimetres(wanted->w) / 10, 255u);
	p[22] = (uint8_t)MIN(millimetres(wanted->h) / 10, 255u);
	p[23] = 120;  /* gamma 2.2 */
	p[24] = 0x06; /* sRGB, the first timing is the native one */
	memcpy(p + 25, colours, sizeof(colours));
	p[35] = 0x21; /* 640x480, 800x600 */
	p[36] = 0x08; /* 1024x768 */
	memcpy(p + 38, standard, sizeof(standard));
	put_dtd(p + 54, t, wanted->w, wanted->h);
	put_ranges(p + 72, wanted);
	put_text(p + 90, 0xfc, "VHOST-USER");
	snprintf(serial, sizeof(serial), "%u", number + 1);
	put_text(p + 108, 0xff, serial);
	p[126] = extended;
	checksum(p, BLOCK);
}

/* DisplayID 1.3, 4.4.1: all values are less one */
static void put_displayid(uint8_t *p, const struct timing *t)
{
	uint8_t *d = p + 5, *v = d + 3;

	p[0] = 0x70; /* an extension block that holds a DisplayID section */
	p[1] = 0x13; /* version 1.3 */
	p[2] = 23;   /* bytes of data blocks */
	p[3] = 3;    /* stand-alone display */
	d[0] = 0x03; /* type I detailed timings */
	d[2] = 20;
	put16(v, t->clock - 1);
	v[2] = (uint8_t)((t->clock - 1) >> 16);
	v[3] = 0x88; /* preferred, aspect ratio not given */
	put16(v + 4, t->w - 1);
	put16(v + 6, H_BLANK - 1);
	put16(v + 8, H_FRONT - 1);
	v[9] |= 0x80; /* positive sync */
	put16(v + 10, H_SYNC - 1);
	put16(v + 12, t->h - 1);
	put16(v + 14, V_BLANK - 1);
	put16(v + 16, V_FRONT - 1);
	put16(v + 18, V_SYNC - 1);
	checksum(p + 1, 5 + 23); /* of the section: its last byte */
	checksum(p, BLOCK);
}

size_t gpu_edid(uint8_t out[GPU_EDID_MAX], uint32_t w, uint32_t h, unsigned number)
{
	struct timing wanted = timing_of(w, h), base = wanted;
	bool extended = w > MAX_DTD || h > MAX_DTD || wanted.clock > 65535;

	memset(out, 0, GPU_EDID_MAX);
	if (extended)
		base = timing_of(1024, 768);
	put_base(out, &base, &wanted, number, extended);
	if (!extended)
		return BLOCK;
	put_displayid(out + BLOCK, &wanted);
	return 2 * BLOCK;
}
