/* SPDX-License-Identifier: MIT */
/* See block-rig.h. */
#include "block-rig.h"

#include <fcntl.h>

struct blk blk;

void blk_image_new(off_t size)
{
	int fd;

	snprintf(blk.image, sizeof(blk.image), "%s/disk.img", fe_tmpdir());
	fd = open(blk.image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, size));
	close(fd);
}

const char *blk_file(void)
{
	static char option[192];

	snprintf(option, sizeof(option), "--blk-file=%s", blk.image);
	return option;
}

void blk_pattern(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)((i * 7 + i / 512 * 13 + seed * 31) >> (i & 1));
}

void blk_image_is(off_t at, const void *want, size_t len)
{
	int fd = open(blk.image, O_RDONLY | O_CLOEXEC);
	uint8_t *got = malloc(len);

	CHECK_EQ(pread(fd, got, len, at), len);
	CHECK_MEM(got, want, len);
	free(got);
	close(fd);
}

void blk_image_write(off_t at, const void *data, size_t len)
{
	int fd = open(blk.image, O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, data, len, at), len);
	close(fd);
}

void blk_start(const struct fe_mode *m, const char *option)
{
	blk_image_new(BLK_SECTORS * 512);
	fe_start(&blk.fe, m, FE_ARGS("block", blk_file(), option));
	blk.q = fe_queue_up(&blk.fe, 0, 128);
}

struct virtio_blk_config blk_config(void)
{
	struct virtio_blk_config c;

	fe_config_get(&blk.fe, 0, &c, sizeof(c));
	return c;
}

bool blk_offers(unsigned bit)
{
	return blk.fe.offered >> bit & 1;
}

void *blk_header(uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr h = {.type = type, .sector = sector};

	return memcpy(fe_alloc(&blk.fe, sizeof(h), 1, NULL), &h, sizeof(h));
}

struct blk_answer blk_ask(uint32_t type, uint64_t sector, const void *data, uint32_t len, bool wr)
{
	uint8_t *status = fe_alloc(&blk.fe, 1, 1, NULL);
	struct vring_driver_buf b[3];
	unsigned n = 0;
	uint32_t used;

	*status = BLK_NOT_SEEN;
	b[n++] = fe_rd(&blk.fe, blk_header(type, sector), 16);
	if (len > 0)
		b[n++] = wr ? fe_wr(&blk.fe, data, len) : fe_rd(&blk.fe, data, len);
	b[n++] = fe_wr(&blk.fe, status, 1);
	used = fe_transact(blk.q, b, n);
	return (struct blk_answer){*status, used};
}

void blk_answers(struct blk_answer a, uint8_t status)
{
	CHECK_EQ(a.status, status);
}

void *blk_guest(size_t len)
{
	return fe_alloc(&blk.fe, len, 512, NULL);
}

void blk_rd_ok(uint64_t sector, const void *want, uint32_t len)
{
	void *buf = blk_guest(len);
	struct blk_answer a = blk_ask(VIRTIO_BLK_T_IN, sector, buf, len, true);

	blk_answers(a, VIRTIO_BLK_S_OK);
	CHECK_EQ(a.used, len + 1);
	CHECK_MEM(buf, want, len);
}

void blk_wr_ok(uint64_t sector, const void *data, uint32_t len)
{
	struct blk_answer a = blk_ask(VIRTIO_BLK_T_OUT, sector, data, len, false);

	blk_answers(a, VIRTIO_BLK_S_OK);
	CHECK_EQ(a.used, 1);
}

void blk_still_works(void)
{
	uint8_t *data = blk_guest(1024);

	blk_pattern(data, 1024, 99);
	blk_wr_ok(BLK_SECTORS - 2, data, 1024);
	blk_rd_ok(BLK_SECTORS - 2, data, 1024);
	CHECK(!fe_queue_failed(blk.q));
}
struct virtio_blk_discard_write_zeroes *blk_ranges(unsigned n)
{
	return fe_alloc(&blk.fe, n * sizeof(struct virtio_blk_discard_write_zeroes), 8, NULL);
}

struct blk_answer blk_ask_ranges(uint32_t type, const struct virtio_blk_discard_write_zeroes *r, unsigned n)
{
	return blk_ask(type, 0, r, n * (uint32_t)sizeof(*r), false);
}
