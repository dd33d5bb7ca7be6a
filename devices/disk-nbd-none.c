/* SPDX-License-Identifier: MIT */
/* Stands in for disk-nbd.c where the program was built without libnbd. */
#include "disk-driver.h"

#include <errno.h>

#include "log.h"

static int none_open(struct disk **out, const struct disk_options *options)
{
	(void)out;
	return log_errno(ENOTSUP, "--nbd=%s: built without libnbd", options->nbd);
}

const struct disk_driver disk_nbd = {.name = "nbd", .open = none_open};
