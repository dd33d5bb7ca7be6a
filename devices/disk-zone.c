/* SPDX-License-Identifier: MIT */
/*
 * Zoned block devices of the host (linux/blkzoned.h; virtio 1.3, 5.2.6.1): what a host-managed one is like, its zones, and
 * the writes to them.
 *
 * Linux lets programs only write at a zone's write pointer, and tells them of a wrong place as of a broken disk. So each
 * write looks first where the pointer is; an append is a write to the place found. Whoever writes to a zone holds a lock of
 * it meanwhile, which is why all this is done by jobs. Nothing is remembered: the device itself always knows best.
 */
#include "disk-zone.h"

#include <endian.h>
#include <errno.h>
#include <linux/blkzoned.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "log.h"
#include "util.h"

#define SECTOR	   512u
#define REPORT	   32	      /* zones asked for at once */
#define APPEND_MAX (4u << 20) /* bytes */

/* virtio 1.3, 5.2.6: the answer to a report. Little-endian. */
struct report_header {
	uint64_t zones;
	uint8_t unused[56];
};

struct report_zone {
	uint64_t capacity, start, wp;
	uint8_t type, state, unused[38];
};

/* As struct blk_zone_report, whose array has no length. */
struct blk_zones {
	uint64_t sector;
	uint32_t nr_zones, flags;
};
_Static_assert(sizeof(struct blk_zones) == sizeof(struct blk_zone_report), "the kernel's layout");

struct report {
	struct blk_zones header;
	struct blk_zone zones[REPORT];
};

/* From the zone that contains this sector. */
static int report_get(const struct disk_file *f, struct report *r, uint64_t sector, unsigned n)
{
	r->header = (struct blk_zones){.sector = sector, .nr_zones = n};
	if (ioctl(f->fd, BLKREPORTZONE, r) < 0)
		return -errno;
	return r->header.nr_zones == 0 || r->header.nr_zones > n ? -EIO : 0;
}

int disk_zone_measure(struct disk_file *f, const char *model)
{
	struct disk_limits *m = &f->disk.limits;
	uint32_t sectors = 0, zones = 0;
	unsigned i;

	if (strcmp(model, "host-managed") != 0)
		return 0;
	if (!f->direct)
		return log_errno(EINVAL, "%s: a host-managed zoned device needs --direct", f->disk.name);
	if (ioctl(f->fd, BLKGETZONESZ, &sectors) < 0 || ioctl(f->fd, BLKGETNRZONES, &zones) < 0 ||
		sectors == 0 || zones == 0)
		return log_errno(errno ? errno : EIO, "%s: zones", f->disk.name);
	for (i = 0; i < ARRAY_SIZE(f->zone_locks); i++)
		pthread_mutex_init(&f->zone_locks[i], NULL);
	f->zones = zones;
	m->zone_sectors = sectors;
	m->zone_append = MIN(sectors, APPEND_MAX / SECTOR);
	m->discard = m->secure_erase = false; /* a zone is reset instead */
	return 0;
}

/* Writes */

static pthread_mutex_t *lock_of(struct disk_file *f, const struct disk_io *io)
{
	return &f->zone_locks[io->offset / SECTOR / f->disk.limits.zone_sectors % ARRAY_SIZE(f->zone_locks)];
}

/* Where it goes; io->offset follows for an append. */
static int write_place(const struct disk_file *f, struct disk_io *io)
{
	struct report r;
	const struct blk_zone *z = &r.zones[0];
	int err = report_get(f, &r, io->offset / SECTOR, 1);
	uint64_t end = z->start + ((r.header.flags & BLK_ZONE_REP_CAPACITY) ? z->capacity : z->len);

	if (err < 0)
		return err;
	if (io->op == DISK_ZONE_APPEND &&
		(z->type == BLK_ZONE_TYPE_CONVENTIONAL || io->offset != z->start * SECTOR ||
			io->len > (uint64_t)f->disk.limits.zone_append * SECTOR))
		return -EINVAL;
	if (z->type == BLK_ZONE_TYPE_CONVENTIONAL)
		return 0;
	if (z->cond == BLK_ZONE_COND_FULL || z->cond == BLK_ZONE_COND_READONLY ||
		z->cond == BLK_ZONE_COND_OFFLINE)
		return io->op == DISK_ZONE_APPEND ? -EINVAL : -EIO;
	if (io->op == DISK_ZONE_APPEND)
		io->offset = z->wp * SECTOR;
	else if (io->offset != z->wp * SECTOR)
		return -EILSEQ;
	return io->offset + io->len > end * SECTOR ? -EIO : 0;
}

int disk_zone_write(
	struct disk_file *f, struct disk_io *io, int (*run)(struct disk_file *f, struct disk_io *io))
{
	pthread_mutex_t *lock = lock_of(f, io);
	int r;

	pthread_mutex_lock(lock);
	r = write_place(f, io);
	if (r == 0)
		r = run(f, io);
	pthread_mutex_unlock(lock);
	return r;
}

/* Management */

static int zones_change(const struct disk_file *f, const struct disk_io *io, unsigned long request)
{
	struct blk_zone_range range = {.sector = io->offset / SECTOR, .nr_sectors = io->len / SECTOR};
	struct report r;
	int err;

	if (io->len == (uint64_t)f->disk.limits.zone_sectors * SECTOR) {
		err = report_get(f, &r, range.sector, 1);
		if (err < 0)
			return err;
		if (r.zones[0].start != range.sector || r.zones[0].type == BLK_ZONE_TYPE_CONVENTIONAL)
			return -EINVAL;
		range.nr_sectors = r.zones[0].len; /* the last one may be shorter */
	}
	return ioctl(f->fd, request, &range) < 0 ? -errno : 0;
}

static int zones_report(const struct disk_file *f, struct disk_io *io)
{
	uint64_t each = f->disk.limits.zone_sectors, zone = io->offset / SECTOR / each;
	uint64_t room =
		io->data->left < sizeof(struct report_header)
			? 0
			: (io->data->left - sizeof(struct report_header)) / sizeof(struct report_zone);
	uint64_t left = MIN(room, f->zones - MIN(zone, f->zones));
	struct report_header header = {.zones = htole64(left)};
	struct report r;

	if (room == 0)
		return -EINVAL;
	cursor_put(io->data, &header, sizeof(header));
	for (; left > 0; left -= r.header.nr_zones, zone += r.header.nr_zones) {
		int err = report_get(f, &r, zone * each, (unsigned)MIN(left, (uint64_t)REPORT));

		if (err < 0)
			return err;
		for (unsigned i = 0; i < r.header.nr_zones; i++) {
			const struct blk_zone *z = &r.zones[i];
			bool capacity = r.header.flags & BLK_ZONE_REP_CAPACITY;
			struct report_zone out = {.capacity = htole64(capacity ? z->capacity : z->len),
				.start = htole64(z->start),
				.wp = htole64(z->wp),
				.type = z->type,
				.state = z->cond};

			cursor_put(io->data, &out, sizeof(out));
		}
	}
	return 0;
}

int disk_zone_manage(struct disk_file *f, struct disk_io *io)
{
	switch (io->op) {
	case DISK_ZONE_REPORT:
		return zones_report(f, io);
	case DISK_ZONE_OPEN:
		return zones_change(f, io, BLKOPENZONE);
	case DISK_ZONE_CLOSE:
		return zones_change(f, io, BLKCLOSEZONE);
	case DISK_ZONE_FINISH:
		return zones_change(f, io, BLKFINISHZONE);
	default:
		return zones_change(f, io, BLKRESETZONE);
	}
}
