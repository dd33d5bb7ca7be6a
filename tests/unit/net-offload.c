/* SPDX-License-Identifier: MIT */
/*
 * Checksums, segments and hashes of network frames against a plain reference: sums of two bytes at a time, and frames that are put
 * together again.
 */
#include <string.h>

#include "net-offload.h"
#include "tap.h"

enum { ETH = 14, DATA = 9000, TCP = 6, UDP = 17, FIRST_ID = 0xfffe };

static uint8_t frame[NET_MAX_FRAME + 2], original[NET_MAX_FRAME + 2], out[NET_SCRATCH], whole[NET_MAX_FRAME];
static struct iovec iov[NET_SEGMENTS];
static struct net_packet packets[NET_SEGMENTS];
static uint32_t seed = 1;

static uint32_t any(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)seed * n >> 32);
}

/* The reference */

static uint32_t add(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += (uint32_t)p[i] << (i % 2 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, size_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* What a frame is made of. */
struct shape {
	const char *name;
	uint8_t gso;
	uint8_t proto;
	bool v6;
	size_t tags, ip_options, tcp_options; /* bytes */
	size_t l3, l4, data;		      /* offsets, set by build() */
};

static uint32_t transport_sum(const struct shape *s, const uint8_t *p, size_t len)
{
	uint32_t sum = add(0, p + s->l3 + (s->v6 ? 8 : 12), s->v6 ? 32 : 8);

	return add(add(sum + s->proto + (uint32_t)(len - s->l4), p, 0), p + s->l4, len - s->l4);
}

/* A frame with n bytes of data, its checksum left to the device; its length. */
static size_t build(struct shape *s, size_t n, uint8_t *p)
{
	size_t head = s->proto == TCP ? 20 + s->tcp_options : 8, len, at = 12;

	s->l3 = ETH + s->tags;
	s->l4 = s->l3 + (s->v6 ? 40 : 20) + s->ip_options;
	s->data = s->l4 + head;
	len = s->data + n;
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)any(256);
	for (; at < 12 + s->tags; at += 4)
		put16(p + at, 0x8100);
	put16(p + at, s->v6 ? 0x86dd : 0x0800);
	if (s->v6) {
		p[s->l3] = 0x60;
		put16(p + s->l3 + 4, len - s->l3 - 40);
		p[s->l3 + 6] = s->ip_options ? 0 : s->proto;
		if (s->ip_options) { /* hop by hop */
			p[s->l3 + 40] = s->proto;
			p[s->l3 + 41] = (uint8_t)(s->ip_options / 8 - 1);
		}
	} else {
		p[s->l3] = (uint8_t)(0x40 | (20 + s->ip_options) / 4);
		put16(p + s->l3 + 2, len - s->l3);
		put16(p + s->l3 + 4, FIRST_ID);
		put16(p + s->l3 + 6, 0);
		p[s->l3 + 9] = s->proto;
	}
	if (s->proto == TCP) {
		p[s->l4 + 12] = (uint8_t)(head / 4 << 4);
		p[s->l4 + 13] = 0x99; /* CWR ACK PSH FIN */
	} else {
		put16(p + s->l4 + 4, 8 + n);
	}
	return len;
}

static struct virtio_net_hdr_v1 header(const struct shape *s, size_t size)
{
	struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = s->gso};

	h.gso_size = htole16((uint16_t)size);
	h.csum_start = htole16((uint16_t)s->l4);
	h.csum_offset = htole16(s->proto == TCP ? 16 : 6);
	return h;
}

static unsigned cut(const struct shape *s, size_t len, size_t size)
{
	struct virtio_net_hdr_v1 h = header(s, size);
	unsigned n;

	CHECK(net_hdr_valid(&h, len));
	memcpy(original, frame, len);
	n = net_segment(&h, frame, len, out, iov, packets, NET_SEGMENTS);
	for (unsigned i = 0; i < n; i++) {
		const uint8_t *p = packets[i].iov->iov_base;

		CHECK_EQ(packets[i].n, 1);
		CHECK_EQ(packets[i].iov->iov_len, packets[i].len);
		CHECK(p >= out && p + packets[i].len <= out + sizeof(out));
		CHECK(packets[i].hdr.flags == 0 && packets[i].hdr.gso_type == 0);
	}
	return n;
}

/* Lengths and checksums of the IP header. */
static void ip_right(const struct shape *s, const uint8_t *p, size_t len, unsigned id)
{
	if (s->v6) {
		CHECK_EQ(get16(p + s->l3 + 4), len - s->l3 - 40);
		return;
	}
	CHECK_EQ(get16(p + s->l3 + 2), len - s->l3);
	CHECK_EQ(get16(p + s->l3 + 4), id & 0xffff);
	CHECK_EQ(add(0, p + s->l3, 20 + s->ip_options), 0xffff);
}

static void tcp_right(const struct shape *s, const uint8_t *p, size_t at, bool last)
{
	uint8_t flags = (uint8_t)(0x10 | (last ? 9 : 0) | (at ? 0 : 0x80));

	CHECK_EQ(get32(p + s->l4 + 4), (uint32_t)(get32(original + s->l4 + 4) + at));
	CHECK_EQ(p[s->l4 + 13], flags);
	CHECK_MEM(p + s->l4 + 20, original + s->l4 + 20, s->tcp_options);
}

static void segments(struct shape *s, size_t n, size_t size)
{
	size_t len = build(s, n, frame), at = 0;
	unsigned count = cut(s, len, size), i;

	CHECK_EQ(count, n ? (n + size - 1) / size : 1);
	for (i = 0; i < count; i++) {
		const uint8_t *p = packets[i].iov->iov_base;
		size_t want = MIN(size, n - at);

		CHECK_EQ(packets[i].len, s->data + want);
		ip_right(s, p, packets[i].len, FIRST_ID + i);
		CHECK_EQ(transport_sum(s, p, packets[i].len), 0xffff);
		CHECK_MEM(p, original, s->l3 + 2);
		CHECK_MEM(p + s->l4, original + s->l4, 4);
		CHECK_MEM(p + s->data, original + s->data + at, want);
		if (s->proto == TCP)
			tcp_right(s, p, at, at + want == n);
		else
			CHECK_EQ(get16(p + s->l4 + 4), 8 + want);
		at += want;
	}
}

/* Fragments are put together again: a datagram whose checksum is right. */
static void fragments(struct shape *s, size_t n, size_t size)
{
	size_t len = build(s, n, frame), total = len - s->l4, at = 0, extra = s->v6 ? 8 : 0;
	unsigned count = cut(s, len, size), i;

	size &= ~(size_t)7;
	CHECK_EQ(count, (total + size - 1) / size);
	for (i = 0; i < count; i++) {
		const uint8_t *p = packets[i].iov->iov_base, *f = s->v6 ? p + s->l4 : p + s->l3;
		size_t want = MIN(size, total - at);
		bool more = at + want < total;

		CHECK_EQ(packets[i].len, s->l4 + extra + want);
		ip_right(s, p, packets[i].len, FIRST_ID);
		if (s->v6) {
			CHECK_EQ(p[s->l3 + 6], 44);
			CHECK_EQ(f[0], UDP);
			CHECK_EQ(get16(f + 2), at | more);
			CHECK_EQ(get32(f + 4), get32((const uint8_t *)packets[0].iov->iov_base + s->l4 + 4));
		} else {
			CHECK_EQ(get16(f + 6), at / 8 | (more ? 0x2000 : 0));
		}
		memcpy(whole + s->l4 + at, p + s->l4 + extra, want);
		at += want;
	}
	memcpy(whole, original, s->l4);
	CHECK_EQ(transport_sum(s, whole, len), 0xffff);
	CHECK_MEM(whole + s->data, original + s->data, n);
}

static void shapes(void *arg)
{
	static const size_t sizes[] = {64, 65, 536, 1447, 1448, 8948};
	struct shape s = *(const struct shape *)arg;

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		for (unsigned k = 0; k < 40; k++) {
			size_t n = k < 3 ? sizes[i] + k - 1 : 1 + any(DATA);

			if (s.gso == VIRTIO_NET_HDR_GSO_UDP)
				fragments(&s, n, sizes[i]);
			else
				segments(&s, n, sizes[i]);
		}
	if (s.proto == TCP)
		segments(&s, 65400, 1448);
}

/* Checksums of any length, beginning and place; a sum of zero is UDP's other zero. */
static void checksums(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 3000; i++) {
		size_t start = ETH + any(30), len = start + 18 + any(100), offset = any(2) ? 16 : 6;
		uint32_t want;

		for (size_t k = 0; k < len; k++)
			frame[k] = (uint8_t)any(256);
		memcpy(original, frame, len);
		want = (uint16_t)~add(0, frame + start, len - start);
		net_checksum(frame, len, start, offset);
		CHECK_EQ(get16(frame + start + offset), !want && offset == 6 ? 0xffff : want);
		put16(original + start + offset, get16(frame + start + offset));
		CHECK_MEM(frame, original, len);
	}
	memset(frame, 0xff, 40);
	net_checksum(frame, 40, 20, 6);
	CHECK_EQ(get16(frame + 26), 0xffff);
	memset(frame, 0xff, 40);
	net_checksum(frame, 40, 20, 16);
	CHECK_EQ(get16(frame + 36), 0);
}

static void headers(void *arg)
{
	static const struct {
		uint8_t flags, gso;
		uint16_t size, start, offset;
		bool valid; /* for 100 bytes */
	} rows[] = {
		{0, 0, 0, 0, 0, true},
		{1, 0, 0, 34, 16, true},
		{1, 0, 0, 13, 16, false},
		{1, 0, 0, 82, 16, true},
		{1, 0, 0, 83, 16, false},
		{1, 0, 0, 0xffff, 0xffff, false},
		{1, 1, 1448, 34, 16, true},
		{1, 0x81, 1448, 34, 16, true},
		{1, 0x80, 0, 34, 16, false},
		{0, 1, 1448, 34, 16, false},
		{1, 1, 0, 34, 16, false},
		{1, 2, 1448, 34, 16, false},
		{1, 3, 1448, 34, 6, true},
		{1, 4, 1448, 54, 16, true},
		{1, 5, 1448, 34, 6, true},
		{1, 6, 1448, 34, 6, false},
	};

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct virtio_net_hdr_v1 h = {.flags = rows[i].flags, .gso_type = rows[i].gso};

		h.gso_size = htole16(rows[i].size);
		h.csum_start = htole16(rows[i].start);
		h.csum_offset = htole16(rows[i].offset);
		CHECK_EQ(net_hdr_valid(&h, 100), rows[i].valid);
	}
}

static void needs(void *arg)
{
	static const struct {
		uint8_t gso;
		uint64_t host, guest;
	} rows[] = {
		{0, 0, 0},
		{1, BIT(VIRTIO_NET_F_HOST_TSO4), BIT(VIRTIO_NET_F_GUEST_TSO4)},
		{0x81, BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_ECN),
			BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_ECN)},
		{3, BIT(VIRTIO_NET_F_HOST_UFO), BIT(VIRTIO_NET_F_GUEST_UFO)},
		{4, BIT(VIRTIO_NET_F_HOST_TSO6), BIT(VIRTIO_NET_F_GUEST_TSO6)},
		{5, BIT(NET_F_HOST_USO), BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6)},
	};

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = rows[i].gso};

		CHECK_EQ(net_needs(&h), rows[i].host | BIT(VIRTIO_NET_F_CSUM));
		CHECK_EQ(net_needs_guest(&h), rows[i].guest | BIT(VIRTIO_NET_F_GUEST_CSUM));
	}
}

/* Frames that are not what their header says, and headers of nonsense: an answer, and nothing written elsewhere. */
static void nonsense(void *arg)
{
	static const uint8_t types[] = {1, 3, 4, 5, 0x81, 0x84};
	struct shape s = {.proto = TCP};

	(void)arg;
	for (unsigned i = 0; i < 20000; i++) {
		size_t len;

		s.v6 = any(2);
		s.proto = any(2) ? TCP : UDP;
		s.tags = any(2) * 4;
		s.ip_options = any(2) * 8;
		len = build(&s, 20 + any(3000), frame);
		s.gso = types[any(ARRAY_SIZE(types))];
		for (unsigned k = any(8); k; k--)
			frame[12 + any((uint32_t)s.data)] = (uint8_t)any(256);
		len -= any((uint32_t)(any(2) ? len - s.l4 - 18 : 1));
		CHECK(cut(&s, len, 1 + any(2000)) <= NET_SEGMENTS);
	}
}

/* The published vectors. */
static void hashes(void *arg)
{
	static const struct {
		bool v6;
		uint8_t address[32], port[4];
		uint32_t ip, tcp;
	} rows[] = {
		{false, {66, 9, 149, 187, 161, 142, 100, 80}, {2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255},
			0x323e8fc2, 0x51ccc178},
		{true,
			{0x3f, 0xfe, 0x25, 1, 2, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7, 0x3f, 0xfe, 0x25, 1,
				2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1},
			{2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255}, 0x2cc18cd5, 0x40207d3d},
	};
	struct net_rss rss = {
		.key = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
			0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
			0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa}};
	uint16_t report;

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		bool v6 = rows[i].v6;
		struct shape s = {.proto = TCP, .v6 = v6, .tags = i * 4};
		size_t len = build(&s, 100, frame);

		memcpy(frame + s.l3 + (v6 ? 8 : 12), rows[i].address, v6 ? 32 : 8);
		memcpy(frame + s.l4, rows[i].port, 4);
		rss.types = 0x3f;
		CHECK_EQ(net_hash(&rss, frame, len, &report), rows[i].tcp);
		CHECK_EQ(report, v6 ? VIRTIO_NET_HASH_REPORT_TCPv6 : VIRTIO_NET_HASH_REPORT_TCPv4);
		rss.types = VIRTIO_NET_RSS_HASH_TYPE_IPv4 | VIRTIO_NET_RSS_HASH_TYPE_IPv6;
		CHECK_EQ(net_hash(&rss, frame, len, &report), rows[i].ip);
		CHECK_EQ(report, v6 ? VIRTIO_NET_HASH_REPORT_IPv6 : VIRTIO_NET_HASH_REPORT_IPv4);
		rss.types = 0;
		CHECK_EQ(net_hash(&rss, frame, len, &report), 0);
		CHECK_EQ(report, VIRTIO_NET_HASH_REPORT_NONE);
	}
}

int main(void)
{
	static struct shape all[] = {
		{"TCP over IPv4", 1, TCP, false, 0, 0, 0, 0, 0, 0},
		{"TCP over IPv4 with options in a VLAN, ECN", 0x81, TCP, false, 4, 8, 12, 0, 0, 0},
		{"TCP over IPv6", 4, TCP, true, 0, 0, 12, 0, 0, 0},
		{"TCP over IPv6 with a header between, ECN", 0x84, TCP, true, 8, 16, 0, 0, 0, 0},
		{"UDP over IPv4 (USO)", 5, UDP, false, 0, 0, 0, 0, 0, 0},
		{"UDP over IPv6 (USO)", 5, UDP, true, 4, 8, 0, 0, 0, 0},
		{"fragments of IPv4 (UFO)", 3, UDP, false, 0, 4, 0, 0, 0, 0},
		{"fragments of IPv6 (UFO)", 3, UDP, true, 4, 0, 0, 0, 0, 0},
	};

	tap_case("checksums", checksums, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		tap_case(all[i].name, shapes, &all[i]);
	tap_case("headers", headers, NULL);
	tap_case("what frames need", needs, NULL);
	tap_case("nonsense", nonsense, NULL);
	tap_case("hashes", hashes, NULL);
	return tap_done();
}
