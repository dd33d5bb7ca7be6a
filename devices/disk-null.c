/* SPDX-License-Identifier: MIT */
/* The null disk: every request succeeds at once, nothing is stored, what is read leaves the guest's memory as it was. */
#include "disk-driver.h"

#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "util.h"

static int null_open(struct disk **out, const struct disk_options *options)
{
	struct disk *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return log_errno(ENOMEM, "null disk");
	d->name = "null";
	d->size = ALIGN_DOWN(options->null_size, 512u);
	d->limits = (struct disk_limits){
		.logical = 512,
		.physical = 4096,
		.discard_granularity = 512,
		.read_only = options->read_only,
		.discard = !options->read_only,
		.write_zeroes = !options->read_only,
	};
	*out = d;
	return 0;
}

static void null_close(struct disk *d)
{
	free(d);
}

static struct disk_lane *null_lane_new(struct disk *d, struct loop *l)
{
	(void)d;
	(void)l;
	return calloc(1, sizeof(struct disk_lane));
}

static void null_lane_free(struct disk_lane *lane)
{
	free(lane);
}

static bool null_submit(struct disk_lane *lane, struct disk_io *io)
{
	(void)lane;
	if (io->op <= DISK_WRITE)
		cursor_skip(io->data, io->len);
	else if (io->op == DISK_STATUS)
		disk_extents_add(io, io->len, false);
	return disk_io_now(io, 0);
}

const struct disk_driver disk_null = {
	.name = "null",
	.open = null_open,
	.close = null_close,
	.lane_new = null_lane_new,
	.lane_free = null_lane_free,
	.submit = null_submit,
};
