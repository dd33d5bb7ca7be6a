/* SPDX-License-Identifier: MIT */
/* Statistics of the guest's memory; see balloon-stats.h. */
#include "balloon-stats.h"

#include <linux/virtio_balloon.h>

enum { MOST = 64 }; /* entries looked at; a driver sends each tag once */

static const char *const tag_names[BALLOON_TAGS] = {
	[VIRTIO_BALLOON_S_SWAP_IN] = "swap-in-bytes",
	[VIRTIO_BALLOON_S_SWAP_OUT] = "swap-out-bytes",
	[VIRTIO_BALLOON_S_MAJFLT] = "major-faults",
	[VIRTIO_BALLOON_S_MINFLT] = "minor-faults",
	[VIRTIO_BALLOON_S_MEMFREE] = "free-bytes",
	[VIRTIO_BALLOON_S_MEMTOT] = "total-bytes",
	[VIRTIO_BALLOON_S_AVAIL] = "available-bytes",
	[VIRTIO_BALLOON_S_CACHES] = "cache-bytes",
	[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "hugetlb-allocations",
	[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "hugetlb-failures",
	/* newer than the headers that this is built with */
	[10] = "oom-kills",
	[11] = "allocation-stalls",
	[12] = "async-scans",
	[13] = "direct-scans",
	[14] = "async-reclaims",
	[15] = "direct-reclaims",
};

void balloon_stats_read(struct balloon_stats *s, struct cursor *rd)
{
	struct virtio_balloon_stat stat;

	s->have = 0;
	s->at = time_ns();
	for (unsigned i = 0; i < MOST && rd->left >= sizeof(stat) && cursor_get(rd, &stat, sizeof(stat));
		i++) {
		unsigned tag = le16toh(stat.tag);

		if (tag >= BALLOON_TAGS)
			continue;
		s->value[tag] = le64toh(stat.val);
		s->have |= BIT(tag);
	}
}

void balloon_stats_write(const struct balloon_stats *s, struct json *out)
{
	json_object_begin(out);
	json_key(out, "age-ns");
	json_u64(out, time_ns() - s->at);
	for (unsigned i = 0; i < BALLOON_TAGS; i++) {
		if (!(s->have & BIT(i)) || s->value[i] == UINT64_MAX) /* all ones: not known */
			continue;
		json_key(out, tag_names[i]);
		json_u64(out, s->value[i]);
	}
	json_object_end(out);
}
