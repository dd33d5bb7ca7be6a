/* SPDX-License-Identifier: MIT */
/*
 * What network cards do for their drivers, in software: checksums, segmentation, and hashes of flows. For frames in one
 * piece of memory that nobody else writes.
 */
#ifndef NET_OFFLOAD_H
#define NET_OFFLOAD_H

#include "net.h"

/* Where the headers of a frame are. */
struct net_flow {
	unsigned ip;	 /* 4, 6, or 0: no IP */
	size_t l3, l4;	 /* offsets; l4 0: none */
	uint8_t proto;	 /* of l4 */
	bool fragment;	 /* l4 is not at the beginning of a datagram that is whole */
	size_t payload;	 /* offset behind the header of TCP or UDP; 0: none */
	size_t src, dst; /* offsets of the addresses */
};

void net_flow_parse(struct net_flow *f, const uint8_t *frame, size_t len);

/* Nothing is left to do for the frame. */
static inline bool net_hdr_plain(const struct virtio_net_hdr_v1 *hdr)
{
	return !(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !hdr->gso_type;
}

/* Which HOST_* features a frame needs, 0: none. */
uint64_t net_needs(const struct virtio_net_hdr_v1 *hdr);
/* The same in GUEST_* bits. */
uint64_t net_needs_guest(const struct virtio_net_hdr_v1 *hdr);
/* False: a header that makes no sense for a frame of that length. */
bool net_hdr_valid(const struct virtio_net_hdr_v1 *hdr, size_t len);

/* Completes a checksum; start and offset were checked. */
void net_checksum(uint8_t *frame, size_t len, size_t start, size_t offset);

/* The bytes that net_segment() needs at most: a frame cut into pieces with headers. */
enum { NET_SEGMENTS = 1024, NET_SCRATCH = NET_MAX_FRAME * 4 };

/*
 * Makes frames that need nothing of one that does: checksums filled in, cut into segments. The pieces are written to out
 * (NET_SCRATCH bytes); iov[] and packets[] (max each, at most NET_SEGMENTS) describe them. How many, or 0: it can't be done.
 */
unsigned net_segment(const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len, uint8_t *out,
	struct iovec *iov, struct net_packet *packets, unsigned max);

/* Toeplitz hash by the types in rss; *report is one of VIRTIO_NET_HASH_REPORT_*. */
uint32_t net_hash(const struct net_rss *rss, const uint8_t *frame, size_t len, uint16_t *report);

#endif
