/* SPDX-License-Identifier: MIT */
/*
 * The wire of an interface (--packet): the interface is a TAP of the test's own, in a network namespace of its own, so that the test is the
 * wire. What comes with offloads reaches a guest that takes these as it is, and others in pieces, with checksums; tags of VLANs, which the
 * kernel takes out, are put back.
 */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "net-card.h"

enum { VNET = 10, MSS = 1000, DATA = 4500, HEAD = 54, TAG = 4 };

#define OFFLOADS                                                                                      \
	(BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) | \
		BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO))

static bool alone(void)
{
	return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

static int wire_open(void)
{
	struct ifreq i = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "tap0"};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(fd);
	CHECK_SYS(ioctl(fd, TUNSETIFF, &i));
	i.ifr_flags = IFF_UP | IFF_RUNNING;
	CHECK_SYS(ioctl(s, SIOCSIFFLAGS, &i));
	close(s);
	return fd;
}

/* Puts a frame on the wire; a tag of VLAN 5 goes into it if there is to be one. */
static void wire_sends(int wire, struct virtio_net_hdr h, const uint8_t *frame, size_t len, bool tagged)
{
	uint8_t out[VNET + TAG + 70000];
	size_t extra = tagged ? TAG : 0;

	if (h.flags)
		h.csum_start = htole16((uint16_t)(le16toh(h.csum_start) + extra));
	memcpy(out, &h, VNET);
	memcpy(out + VNET, frame, 12);
	memcpy(out + VNET + 12, "\x81\0\0\5", extra);
	memcpy(out + VNET + 12 + extra, frame + 12, len - 12);
	CHECK_EQ(write(wire, out, VNET + len + extra), (ssize_t)(VNET + len + extra));
}

/* The next frame of the guest's that is on the wire, without what the kernel itself says there. */
static size_t wire_gets(int wire, uint8_t *frame, size_t size)
{
	uint8_t in[VNET + 70000];
	ssize_t n;

	do {
		CHECK(fe_poll(wire, POLLIN, fe_limit_ms));
		n = read(wire, in, sizeof(in));
		CHECK(n > VNET + 14 && (size_t)n - VNET <= size);
	} while (memcmp(in + VNET + 6, "\x52\x54\0\0\0\2", 6) != 0);
	memcpy(frame, in + VNET, (size_t)n - VNET);
	return (size_t)n - VNET;
}

/* Of a TCP or UDP frame over IPv4 */
static void sums_right(const uint8_t *p, size_t len)
{
	CHECK_EQ(add(0, p + 14, 20), 0xffff);
	CHECK_EQ(add(add(0, p + 26, 8) + p[23] + (uint32_t)(len - 34), p + 34, len - 34), 0xffff);
}

static void untag(uint8_t *p, size_t *len)
{
	CHECK_MEM(p + 12, "\x81\0\0\5", TAG);
	memmove(p + 12, p + 12 + TAG, *len - 12 - TAG);
	*len -= TAG;
}

static void expect_whole(struct card *c, const uint8_t *frame, size_t len, uint8_t gso, bool tagged)
{
	struct virtio_net_hdr_v1_hash h;
	uint8_t got[70000];
	size_t n = receive_hdr(c, c->rx, got, &h);

	if (tagged)
		untag(got, &n);
	CHECK_EQ(n, len);
	CHECK_MEM(got, frame, len);
	CHECK_EQ(h.hdr.gso_type, gso);
	CHECK_EQ(h.hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	CHECK_EQ(le16toh(h.hdr.csum_start), 34 + (tagged ? TAG : 0));
}

static void expect_pieces(struct card *c, const uint8_t *frame, size_t head, size_t data, bool tagged)
{
	struct virtio_net_hdr_v1_hash h;
	uint8_t got[70000];

	for (size_t at = 0, n; at < data; at += n - head) {
		n = receive_hdr(c, c->rx, got, &h);
		if (tagged)
			untag(got, &n);
		CHECK_EQ(n, head + MIN(data - at, (size_t)MSS));
		CHECK_EQ(h.hdr.gso_type | h.hdr.flags, 0);
		CHECK_MEM(got + head, frame + head + at, n - head);
		sums_right(got, n);
	}
}

static void offloads(const struct fe_mode *m)
{
	struct virtio_net_hdr sum = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = htole16(34)},
			      segments;
	int wire = wire_open();
	uint8_t frame[70000], got[70000], *p;
	size_t len;

	for (unsigned i = 0; i < 4; i++) {
		bool takes = i & 1, tagged = i & 2;
		struct card c;

		card_start_with(&c, m, takes ? PLAIN : PLAIN & ~OFFLOADS, 1,
			FE_ARGS("net", "--packet=tap0", "--mac=52:54:00:00:00:01"));
		for (unsigned k = 0; k < 40; k++)
			give(c.rx, BUFFER);
		fe_flush(c.rx);
		/* a datagram */
		len = make_ip(frame, false, 17, 600);
		sum.csum_offset = htole16(6);
		wire_sends(wire, sum, frame, len, tagged);
		if (takes)
			expect_whole(&c, frame, len, 0, tagged);
		else
			expect_pieces(&c, frame, 42, 600, tagged);
		/* segments */
		len = make_ip(frame, false, 6, DATA);
		segments = sum;
		segments.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		segments.gso_size = htole16(MSS);
		segments.hdr_len = htole16((uint16_t)(HEAD + (tagged ? TAG : 0)));
		segments.csum_offset = htole16(16);
		frame[47] = 0x10; /* ACK, so that all pieces are alike */
		wire_sends(wire, segments, frame, len, tagged);
		if (takes)
			expect_whole(&c, frame, len, VIRTIO_NET_HDR_GSO_TCPV4, tagged);
		else
			expect_pieces(&c, frame, HEAD, DATA, tagged);
		/* and to the wire */
		p = fe_alloc(&c.fe, 2000, 1, NULL);
		memset(p, 0, c.hdr);
		make_frame(p + c.hdr, 1400, i);
		transmit(&c, p, 1400, 2);
		CHECK_EQ(wire_gets(wire, got, sizeof(got)), 1400);
		CHECK_MEM(got, p + c.hdr, 1400);
		fe_end(&c.fe);
	}
	close(wire);
}

static int set_offloads(struct card *c, uint64_t offloads)
{
	uint8_t *p = fe_alloc(&c->fe, 11, 1, NULL);
	struct vring_driver_buf b[2] = {fe_rd(&c->fe, p, 10), fe_wr(&c->fe, p + 10, 1)};

	p[0] = VIRTIO_NET_CTRL_GUEST_OFFLOADS;
	p[1] = VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET;
	offloads = htole64(offloads);
	memcpy(p + 2, &offloads, 8);
	p[10] = 77;
	CHECK_EQ(fe_transact(c->ctrl, b, 2), 1);
	return p[10];
}

/* The driver changes its mind at run time. */
static void changed(const struct fe_mode *m)
{
	struct virtio_net_hdr h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.gso_size = htole16(MSS),
		.hdr_len = htole16(HEAD),
		.csum_start = htole16(34),
		.csum_offset = htole16(16)};
	int wire = wire_open();
	uint8_t frame[70000];
	struct card c;
	size_t len;

	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		FE_ARGS("net", "--packet=tap0", "--mac=52:54:00:00:00:01"));
	for (unsigned k = 0; k < 40; k++)
		give(c.rx, BUFFER);
	fe_flush(c.rx);
	len = make_ip(frame, false, 6, DATA);
	frame[47] = 0x10;
	wire_sends(wire, h, frame, len, false);
	expect_whole(&c, frame, len, VIRTIO_NET_HDR_GSO_TCPV4, false);
	CHECK_EQ(set_offloads(&c, BIT(VIRTIO_NET_F_GUEST_CSUM)), 0);
	wire_sends(wire, h, frame, len, false);
	expect_pieces(&c, frame, HEAD, DATA, false);
	CHECK_EQ(set_offloads(&c, 0), 0);
	wire_sends(wire, h, frame, len, false);
	expect_pieces(&c, frame, HEAD, DATA, false);
	CHECK_EQ(set_offloads(&c, BIT(VIRTIO_NET_F_CSUM)), 1); /* none of those */
	CHECK_EQ(set_offloads(&c, OFFLOADS), 0);
	wire_sends(wire, h, frame, len, false);
	expect_whole(&c, frame, len, VIRTIO_NET_HDR_GSO_TCPV4, false);
	fe_end(&c.fe);
	close(wire);
}

int main(void)
{
	if (!alone() || access("/dev/net/tun", R_OK | W_OK) < 0) {
		printf("1..0 # SKIP no network namespace or /dev/net/tun here\n");
		return 0;
	}
	fe_each_layout("offloads and tags", offloads);
	fe_each_layout("offloads that the driver changes", changed);
	return tap_done();
}
