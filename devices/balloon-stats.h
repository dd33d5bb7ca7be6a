/* SPDX-License-Identifier: MIT */
/* What the guest says of its memory (virtio 1.3, 5.5.6.3: the statistics queue). */
#ifndef BALLOON_STATS_H
#define BALLOON_STATS_H

#include "device.h"

enum { BALLOON_TAGS = 16 };

struct balloon_stats {
	uint64_t value[BALLOON_TAGS], have; /* bit of each tag that came */
	uint64_t at;			    /* monotonic ns when they came; 0: never */
};

/* Reads a buffer of statistics; tags that are not known are left out. */
void balloon_stats_read(struct balloon_stats *s, struct cursor *rd);
/* Writes an object: values by name, age. */
void balloon_stats_write(const struct balloon_stats *s, struct json *out);

#endif
