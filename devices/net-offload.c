/* SPDX-License-Identifier: MIT */
/*
 * Checksums, segmentation and flow hashes in software (virtio 1.3, 5.1.6.2 and 5.1.6.4.3; RFC 1071, 791, 8200, 793, 768).
 *
 * A frame comes from a guest: nothing in it is believed. It is parsed once, into offsets that lie inside it; what does not
 * parse cannot be segmented and is dropped by the caller. The number of pieces and their bytes are bounded.
 */
#include "net-offload.h"

#include <string.h>

enum { ETH = 14, VLAN = 4, IP6 = 40, FRAGMENT = 8, MIN_SEGMENT = 64 };
enum {
	PROTO_HOP = 0,
	PROTO_TCP = 6,
	PROTO_UDP = 17,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_DEST = 60
};
enum { FIN = 1, PSH = 8, CWR = 0x80 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

/* Headers */

static void parse_ports(struct net_flow *f, const uint8_t *frame, size_t len)
{
	if (f->fragment)
		return;
	if (f->proto == PROTO_UDP && f->l4 + 8 <= len)
		f->payload = f->l4 + 8;
	if (f->proto == PROTO_TCP && f->l4 + 20 <= len) {
		size_t n = (size_t)(frame[f->l4 + 12] >> 4) * 4;

		if (n >= 20 && f->l4 + n <= len)
			f->payload = f->l4 + n;
	}
}

static void parse_ip4(struct net_flow *f, const uint8_t *frame, size_t len)
{
	size_t n;

	if (f->l3 + 20 > len || frame[f->l3] >> 4 != 4)
		return;
	n = (size_t)(frame[f->l3] & 15) * 4;
	if (n < 20 || f->l3 + n > len)
		return;
	f->ip = 4;
	f->src = f->l3 + 12;
	f->dst = f->l3 + 16;
	f->proto = frame[f->l3 + 9];
	f->fragment = get16(frame + f->l3 + 6) & 0x3fff;
	f->l4 = f->l3 + n;
	parse_ports(f, frame, len);
}

static void parse_ip6(struct net_flow *f, const uint8_t *frame, size_t len)
{
	size_t at = f->l3 + IP6;
	uint8_t proto;
	unsigned i;

	if (at > len || frame[f->l3] >> 4 != 6)
		return;
	f->ip = 6;
	f->src = f->l3 + 8;
	f->dst = f->l3 + 24;
	proto = frame[f->l3 + 6];
	for (i = 0; i < 8; i++) {
		if (proto != PROTO_HOP && proto != PROTO_ROUTING && proto != PROTO_DEST &&
			proto != PROTO_FRAGMENT)
			break;
		if (at + 8 > len)
			return;
		if (proto == PROTO_FRAGMENT) {
			f->fragment |= (get16(frame + at + 2) & 0xfff9) != 0;
			proto = frame[at];
			at += FRAGMENT;
		} else {
			proto = frame[at];
			at += 8 + (size_t)frame[at + 1] * 8;
		}
	}
	if (at > len)
		return;
	f->proto = proto;
	f->l4 = at;
	parse_ports(f, frame, len);
}

void net_flow_parse(struct net_flow *f, const uint8_t *frame, size_t len)
{
	uint16_t type;
	size_t at = ETH;
	unsigned tags;

	*f = (struct net_flow){0};
	if (len < ETH)
		return;
	type = get16(frame + 12);
	for (tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++) {
		if (at + VLAN > len)
			return;
		type = get16(frame + at + 2);
		at += VLAN;
	}
	f->l3 = at;
	if (type == 0x0800)
		parse_ip4(f, frame, len);
	else if (type == 0x86dd)
		parse_ip6(f, frame, len);
}

/* What a header asks for */

uint64_t net_needs(const struct virtio_net_hdr_v1 *hdr)
{
	uint64_t needs = hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? BIT(VIRTIO_NET_F_CSUM) : 0;

	switch (hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		needs |= BIT(VIRTIO_NET_F_HOST_TSO4);
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		needs |= BIT(VIRTIO_NET_F_HOST_TSO6);
		break;
	case VIRTIO_NET_HDR_GSO_UDP:
		needs |= BIT(VIRTIO_NET_F_HOST_UFO);
		break;
	case NET_GSO_UDP_L4:
		needs |= BIT(NET_F_HOST_USO);
		break;
	}
	if (hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN)
		needs |= BIT(VIRTIO_NET_F_HOST_ECN);
	return needs;
}

uint64_t net_needs_guest(const struct virtio_net_hdr_v1 *hdr)
{
	uint64_t needs = net_needs(hdr), out = 0;

	if (likely(!needs))
		return 0;
	if (needs & BIT(VIRTIO_NET_F_CSUM))
		out |= BIT(VIRTIO_NET_F_GUEST_CSUM);
	if (needs & BIT(VIRTIO_NET_F_HOST_TSO4))
		out |= BIT(VIRTIO_NET_F_GUEST_TSO4);
	if (needs & BIT(VIRTIO_NET_F_HOST_TSO6))
		out |= BIT(VIRTIO_NET_F_GUEST_TSO6);
	if (needs & BIT(VIRTIO_NET_F_HOST_UFO))
		out |= BIT(VIRTIO_NET_F_GUEST_UFO);
	if (needs & BIT(VIRTIO_NET_F_HOST_ECN))
		out |= BIT(VIRTIO_NET_F_GUEST_ECN);
	if (needs & BIT(NET_F_HOST_USO))
		out |= BIT(NET_F_GUEST_USO4) | BIT(NET_F_GUEST_USO6);
	return out;
}

bool net_hdr_valid(const struct virtio_net_hdr_v1 *hdr, size_t len)
{
	uint8_t gso = hdr->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;

	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		size_t start = le16toh(hdr->csum_start), offset = le16toh(hdr->csum_offset);

		if (start < ETH || start + offset + 2 > len)
			return false;
	}
	if (gso == VIRTIO_NET_HDR_GSO_NONE)
		return !(hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN);
	if (gso != VIRTIO_NET_HDR_GSO_TCPV4 && gso != VIRTIO_NET_HDR_GSO_TCPV6 &&
		gso != VIRTIO_NET_HDR_GSO_UDP && gso != NET_GSO_UDP_L4)
		return false;
	return le16toh(hdr->gso_size) && hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
}

/* Checksums */

static uint64_t sum(uint64_t s, const uint8_t *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		s += v;
		s += s < v; /* the carry goes around */
	}
	if (n) {
		uint64_t v = 0;

		memcpy(&v, p, n);
		s += v;
		s += s < v;
	}
	return s;
}

/* In the byte order of memory, as sum() adds. */
static uint16_t fold(uint64_t s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void store_sum(uint8_t *p, uint64_t s, bool udp)
{
	uint16_t v = fold(s);

	if (!v && udp)
		v = 0xffff;
	memcpy(p, &v, 2);
}

void net_checksum(uint8_t *frame, size_t len, size_t start, size_t offset)
{
	/* the place holds the sum of what is not in [start, len); UDP has its own zero, and it harms nobody else */
	store_sum(frame + start + offset, sum(0, frame + start, len - start), offset == 6);
}

static void transport_checksum(uint8_t *p, const struct net_flow *f, size_t len)
{
	size_t at = f->l4 + (f->proto == PROTO_TCP ? 16 : 6);
	uint8_t pseudo[4] = {0, f->proto};
	uint64_t s;

	put16(pseudo + 2, (uint16_t)(len - f->l4));
	put16(p + at, 0);
	s = sum(0, p + f->src, f->ip == 4 ? 8 : 32);
	s = sum(s, pseudo, 4);
	s = sum(s, p + f->l4, len - f->l4);
	store_sum(p + at, s, f->proto == PROTO_UDP);
}

static void ip_finish(uint8_t *p, const struct net_flow *f, size_t len, uint16_t id)
{
	uint8_t *ip = p + f->l3;

	if (f->ip == 6) {
		put16(ip + 4, (uint16_t)(len - f->l3 - IP6));
		return;
	}
	put16(ip + 2, (uint16_t)(len - f->l3));
	put16(ip + 4, id);
	put16(ip + 10, 0);
	store_sum(ip + 10, sum(0, ip, (size_t)(ip[0] & 15) * 4), false);
}

/* Segments */

struct cutter {
	uint8_t *frame, *out;
	size_t len, used; /* of out */
	struct iovec *iov;
	struct net_packet *packets;
	unsigned n, max;
};

/* Room for a piece, or NULL. */
static uint8_t *piece(struct cutter *c, size_t len)
{
	uint8_t *p = c->out + c->used;

	if (c->n == c->max || c->used + len > NET_SCRATCH)
		return NULL;
	c->used += len;
	c->iov[c->n] = (struct iovec){p, len};
	c->packets[c->n] = (struct net_packet){.iov = &c->iov[c->n], .n = 1, .len = len};
	c->n++;
	return p;
}

static bool cut_transport(struct cutter *c, const struct net_flow *f, size_t size)
{
	size_t head = f->payload, at, total = c->len - head;
	uint16_t id = f->ip == 4 ? get16(c->frame + f->l3 + 4) : 0;
	unsigned i = 0;

	for (at = 0; at < total || !at; at += size, i++) {
		size_t n = MIN(size, total - at);
		uint8_t *p = piece(c, head + n);

		if (!p)
			return false;
		memcpy(p, c->frame, head);
		memcpy(p + head, c->frame + head + at, n);
		ip_finish(p, f, head + n, (uint16_t)(id + i));
		if (f->proto == PROTO_TCP) {
			put32(p + f->l4 + 4, get32(p + f->l4 + 4) + (uint32_t)at);
			if (at + n < total)
				p[f->l4 + 13] &= (uint8_t) ~(FIN | PSH);
			if (at)
				p[f->l4 + 13] &= (uint8_t)~CWR;
		} else {
			put16(p + f->l4 + 4, (uint16_t)(head + n - f->l4));
		}
		transport_checksum(p, f, head + n);
	}
	return true;
}

/* A datagram becomes fragments; its own checksum is complete before. */
static bool cut_datagram(struct cutter *c, const struct net_flow *f, size_t size)
{
	size_t head = f->l4, extra = f->ip == 6 ? FRAGMENT : 0, at, total = c->len - head;
	uint16_t id = f->ip == 4 ? get16(c->frame + f->l3 + 4) : 0;

	if (f->ip == 6 && f->l4 != f->l3 + IP6)
		return false;
	transport_checksum(c->frame, f, c->len);
	size &= ~(size_t)7;
	for (at = 0; at < total; at += size) {
		size_t n = MIN(size, total - at);
		bool more = at + n < total;
		uint8_t *p = piece(c, head + extra + n);

		if (!p)
			return false;
		memcpy(p, c->frame, head);
		memcpy(p + head + extra, c->frame + head + at, n);
		if (f->ip == 6) {
			p[f->l3 + 6] = PROTO_FRAGMENT;
			p[head] = f->proto;
			p[head + 1] = 0;
			put16(p + head + 2, (uint16_t)(at | more));
			memcpy(p + head + 4, c->frame + f->l4 + 4,
				4); /* an identification: its length and checksum */
		} else {
			put16(p + f->l3 + 6, (uint16_t)(at / 8 | (more ? 0x2000 : 0)));
		}
		ip_finish(p, f, head + extra + n, id);
	}
	return true;
}

unsigned net_segment(const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len, uint8_t *out,
	struct iovec *iov, struct net_packet *packets, unsigned max)
{
	struct cutter c = {
		.frame = frame, .out = out, .len = len, .iov = iov, .packets = packets, .max = max};
	uint8_t gso = hdr->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	size_t size = le16toh(hdr->gso_size);
	struct net_flow f;
	bool fine;

	if (gso == VIRTIO_NET_HDR_GSO_NONE) {
		if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			net_checksum(frame, len, le16toh(hdr->csum_start), le16toh(hdr->csum_offset));
		iov[0] = (struct iovec){frame, len};
		packets[0] = (struct net_packet){.iov = iov, .n = 1, .len = len};
		return 1;
	}
	net_flow_parse(&f, frame, len);
	if (!f.payload || size < MIN_SEGMENT)
		return 0;
	if (gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6) {
		unsigned ip = gso == VIRTIO_NET_HDR_GSO_TCPV4 ? 4 : 6;

		fine = f.ip == ip && f.proto == PROTO_TCP && cut_transport(&c, &f, size);
	} else if (f.proto != PROTO_UDP) {
		fine = false;
	} else {
		fine = gso == NET_GSO_UDP_L4 ? cut_transport(&c, &f, size) : cut_datagram(&c, &f, size);
	}
	return fine ? c.n : 0;
}

/* Hashes (virtio 1.3, 5.1.6.4.3) */

static uint32_t toeplitz(const uint8_t *key, const uint8_t *data, size_t n)
{
	uint32_t hash = 0, window = get32(key);
	size_t i;
	int bit;

	for (i = 0; i < n; i++) {
		uint8_t next = key[i + 4];

		for (bit = 7; bit >= 0; bit--) {
			if (data[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (next >> bit & 1);
		}
	}
	return hash;
}

uint32_t net_hash(const struct net_rss *rss, const uint8_t *frame, size_t len, uint16_t *report)
{
	uint8_t tuple[NET_RSS_KEY - 4];
	struct net_flow f;
	size_t n;
	uint32_t tcp, udp, ip;
	bool v4;

	*report = VIRTIO_NET_HASH_REPORT_NONE;
	net_flow_parse(&f, frame, len);
	if (!f.ip)
		return 0;
	v4 = f.ip == 4;
	n = v4 ? 8 : 32;
	ip = rss->types & (v4 ? VIRTIO_NET_RSS_HASH_TYPE_IPv4 : VIRTIO_NET_RSS_HASH_TYPE_IPv6);
	tcp = rss->types & (v4 ? VIRTIO_NET_RSS_HASH_TYPE_TCPv4 : VIRTIO_NET_RSS_HASH_TYPE_TCPv6);
	udp = rss->types & (v4 ? VIRTIO_NET_RSS_HASH_TYPE_UDPv4 : VIRTIO_NET_RSS_HASH_TYPE_UDPv6);
	memcpy(tuple, frame + f.src, n);
	if (f.payload && ((f.proto == PROTO_TCP && tcp) || (f.proto == PROTO_UDP && udp))) {
		memcpy(tuple + n, frame + f.l4, 4);
		n += 4;
		if (f.proto == PROTO_TCP)
			*report = v4 ? VIRTIO_NET_HASH_REPORT_TCPv4 : VIRTIO_NET_HASH_REPORT_TCPv6;
		else
			*report = v4 ? VIRTIO_NET_HASH_REPORT_UDPv4 : VIRTIO_NET_HASH_REPORT_UDPv6;
	} else if (ip) {
		*report = v4 ? VIRTIO_NET_HASH_REPORT_IPv4 : VIRTIO_NET_HASH_REPORT_IPv6;
	} else {
		return 0;
	}
	return toeplitz(rss->key, tuple, n);
}
