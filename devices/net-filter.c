/* SPDX-License-Identifier: MIT */
/*
 * Which frames the driver wants (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3). Until it says so: all.
 */
#include <string.h>

#include "net.h"

void net_filter_reset(struct net_filter *f, const uint8_t mac[6], bool vlans)
{
	*f = (struct net_filter){.promisc = true, .vlans_on = vlans};
	memcpy(f->mac, mac, 6);
}

static bool listed(const struct net_filter *f, const uint8_t *mac, unsigned from, unsigned to)
{
	for (; from < to; from++)
		if (memcmp(f->table[from], mac, 6) == 0)
			return true;
	return false;
}

/* The first 16 bytes, as far as there are so many, else zeros. */
static void beginning(uint8_t head[16], const struct iovec *iov, unsigned n, size_t len)
{
	size_t at = 0, want = MIN(len, (size_t)16);
	unsigned i;

	if (likely(want == 16 && iov->iov_len >= 16)) {
		memcpy(head, iov->iov_base, 16);
		return;
	}
	memset(head, 0, 16);
	for (i = 0; i < n && at < want; i++) {
		size_t m = MIN(want - at, iov[i].iov_len);

		memcpy(head + at, iov[i].iov_base, m);
		at += m;
	}
}

bool net_filter_pass(const struct net_filter *f, const struct iovec *iov, unsigned n, size_t len)
{
	static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	uint8_t head[16];

	if (net_filter_open(f))
		return true;
	beginning(head, iov, n, len);
	if (f->vlans_on && head[12] == 0x81 && head[13] == 0) {
		unsigned id = (unsigned)(head[14] << 8 | head[15]) & (NET_VLANS - 1);

		if (!(f->vlans[id / 32] & BIT(id % 32)))
			return false;
	}
	if (f->promisc)
		return true;
	if (memcmp(head, all, 6) == 0)
		return !f->nobcast;
	if (head[0] & 1)
		return !f->nomulti &&
		       (f->allmulti || f->multi_overflow || listed(f, head, f->first_multi, f->count));
	if (f->nouni)
		return false;
	return f->alluni || f->uni_overflow || memcmp(head, f->mac, 6) == 0 ||
	       listed(f, head, 0, f->first_multi);
}
