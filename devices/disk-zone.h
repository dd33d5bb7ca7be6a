/* SPDX-License-Identifier: MIT */
/* Private to disk-file.c and disk-io.c: zoned block devices of the host. */
#ifndef DISK_ZONE_H
#define DISK_ZONE_H

#include "disk-file.h"

/* model: as sysfs names it. For a host-managed one sets the limits. -errno, logged. */
int disk_zone_measure(struct disk_file *f, const char *model);

/* In a job. A write or an append by way of run(), with errors as disk.h has them; the rest of the operations. */
int disk_zone_write(
	struct disk_file *f, struct disk_io *io, int (*run)(struct disk_file *f, struct disk_io *io));
int disk_zone_manage(struct disk_file *f, struct disk_io *io);

#endif
