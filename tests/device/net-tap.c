/* SPDX-License-Identifier: MIT */
/*
 * A TAP interface whose descriptors somebody opened for us, two queues of it, in a network namespace of the test's own: datagrams
 * between a guest and a socket of the host, each way, one by one and as large segments (USO) where the kernel has them.
 */
#include "frontend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { RING = 256, BUFFER = 9000, HDR = 12, ETH = 14, IP = 20, HEAD = ETH + IP + 8, PAIRS = 2 };
enum { F_GUEST_USO4 = 54, F_HOST_USO = 56, F_HASH_REPORT = 57, F_RSS = 60, GSO_UDP_L4 = 5 };
enum { SIZE = 1000, SEGMENTS = 5, PORT = 7000 };

#define MASK ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0, 0, 1};
static const uint8_t addresses[8] = {10, 7, 0, 2, 10, 7, 0, 1};

struct rig {
	struct fe fe;
	struct fe_queue *rx[PAIRS], *tx[PAIRS];
	uint8_t host_mac[6];
	int taps[PAIRS], udp;
};

/* The host's side */

static bool alone(void)
{
	return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

static struct sockaddr_in address(const uint8_t *ip, unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	memcpy(&a.sin_addr, ip, 4);
	return a;
}

static void host_up(struct rig *r)
{
	const struct sockaddr_in host = address(addresses + 4, PORT), guest = address(addresses, 0),
				 mask = address((const uint8_t[]){255, 255, 255, 0}, 0);
	struct ifreq i = {
		.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, .ifr_name = "tap0"};
	struct arpreq arp = {.arp_flags = ATF_COM | ATF_PERM, .arp_dev = "tap0"};

	for (unsigned k = 0; k < PAIRS; k++) {
		r->taps[k] = open("/dev/net/tun", O_RDWR); /* inherited */
		CHECK_SYS(r->taps[k]);
		CHECK_SYS(ioctl(r->taps[k], TUNSETIFF, &i));
	}
	r->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(&i.ifr_addr, &host, sizeof(host));
	CHECK_SYS(ioctl(r->udp, SIOCSIFADDR, &i));
	memcpy(&i.ifr_netmask, &mask, sizeof(mask));
	CHECK_SYS(ioctl(r->udp, SIOCSIFNETMASK, &i));
	CHECK_SYS(ioctl(r->udp, SIOCGIFHWADDR, &i));
	memcpy(r->host_mac, i.ifr_hwaddr.sa_data, 6);
	i.ifr_flags = IFF_UP | IFF_RUNNING;
	CHECK_SYS(ioctl(r->udp, SIOCSIFFLAGS, &i));
	memcpy(&arp.arp_pa, &guest, sizeof(guest));
	memcpy(arp.arp_ha.sa_data, guest_mac, 6);
	arp.arp_ha.sa_family = ARPHRD_ETHER;
	CHECK_SYS(ioctl(r->udp, SIOCSARP, &arp));
	CHECK_SYS(bind(r->udp, (const struct sockaddr *)&host, sizeof(host)));
}

/* The guest's side */

static void give(struct rig *r, unsigned pair, void *p)
{
	struct vring_driver_buf b = fe_wr(&r->fe, p, BUFFER);

	CHECK(fe_submit(r->rx[pair], &b, 1, p) >= 0);
}

static void guest_up(struct rig *r, const struct fe_mode *m)
{
	char option[PAIRS][32];

	for (unsigned i = 0; i < PAIRS; i++)
		snprintf(option[i], sizeof(option[i]), "--tap-fd=%d", r->taps[i]);
	fe_init(&r->fe, m);
	r->fe.device_mask = MASK;
	fe_spawn(&r->fe, FE_ARGS("net", option[0], option[1], "--queues=2", "--mac=52:54:00:00:00:01"));
	fe_handshake(&r->fe);
	fe_memory_default(&r->fe);
	for (unsigned i = 0; i < PAIRS; i++) {
		r->rx[i] = fe_queue_up(&r->fe, 2 * i, RING);
		r->tx[i] = fe_queue_up(&r->fe, 2 * i + 1, RING);
		for (unsigned k = 0; k < 20; k++)
			give(r, i, fe_alloc(&r->fe, BUFFER, 1, NULL));
		fe_flush(r->rx[i]);
	}
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t add(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* A datagram of n bytes from the guest, or some of SIZE bytes in one; its checksum is the host's business. */
static void transmit(struct rig *r, unsigned pair, unsigned port, size_t n, unsigned seed)
{
	uint8_t *p = fe_alloc(&r->fe, HDR + HEAD + n, 1, NULL), *f = p + HDR;
	struct vring_driver_buf b = fe_rd(&r->fe, p, (uint32_t)(HDR + HEAD + n));
	struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM};

	if (n > SIZE) {
		h.gso_type = GSO_UDP_L4;
		h.gso_size = htole16(SIZE);
		h.hdr_len = htole16(HEAD);
	}
	h.csum_start = htole16(ETH + IP);
	h.csum_offset = htole16(6);
	memcpy(p, &h, HDR);
	memcpy(f, r->host_mac, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, 0x0800);
	f[ETH] = 0x45;
	put16(f + ETH + 2, (unsigned)(IP + 8 + n));
	f[ETH + 8] = 64;
	f[ETH + 9] = 17;
	memcpy(f + ETH + 12, addresses, 8);
	put16(f + ETH + 10, (uint16_t)~add(0, f + ETH, IP));
	put16(f + ETH + IP, port);
	put16(f + ETH + IP + 2, PORT);
	put16(f + ETH + IP + 4, (unsigned)(8 + n));
	put16(f + ETH + IP + 6, add(17 + 8 + (uint32_t)n, addresses, 8));
	fill(f + HEAD, n, seed);
	CHECK_EQ(fe_transact(r->tx[pair], &b, 1), 0);
}

/* The host's next datagram is these bytes of what was sent with seed. */
static void host_gets(struct rig *r, unsigned port, size_t at, size_t n, unsigned seed)
{
	uint8_t got[10000], want[10000];
	struct sockaddr_in from;
	socklen_t size = sizeof(from);

	CHECK(fe_poll(r->udp, POLLIN, fe_limit_ms));
	CHECK_EQ(recvfrom(r->udp, got, sizeof(got), 0, (struct sockaddr *)&from, &size), (ssize_t)n);
	CHECK_EQ(ntohs(from.sin_port), port);
	fill(want, at + n, seed);
	CHECK_MEM(got, want + at, n);
}

/* The guest's next datagram to that port, in any queue. The value is its header's gso_type. */
static unsigned guest_gets(struct rig *r, unsigned port, size_t n, unsigned seed)
{
	int64_t end = fe_now_ms() + fe_limit_ms;
	uint8_t want[10000], *f;
	uint32_t len;
	unsigned i, gso;
	void *cookie;

	fill(want, n, seed);
	for (i = 0;; i = (i + 1) % PAIRS) {
		CHECK(fe_now_ms() < end);
		if (!fe_wait_ms(r->rx[i], &cookie, &len, 5))
			continue;
		f = (uint8_t *)cookie + HDR;
		if (len >= HDR + HEAD && f[12] == 8 && f[13] == 0 && f[ETH + 9] == 17 &&
			(unsigned)(f[ETH + IP + 2] << 8 | f[ETH + IP + 3]) == port)
			break;
		give(r, i, cookie); /* the kernel has things of its own to say */
		fe_flush(r->rx[i]);
	}
	CHECK_EQ(len, HDR + HEAD + n);
	CHECK_MEM(f + HEAD, want, n);
	gso = ((struct virtio_net_hdr_v1 *)cookie)->gso_type;
	give(r, i, cookie);
	fe_flush(r->rx[i]);
	return gso;
}

static void host_sends(struct rig *r, unsigned port, size_t n, unsigned seed)
{
	const struct sockaddr_in to = address(addresses, port);
	uint8_t data[10000];
	int size = n > SIZE ? SIZE : 0;

	fill(data, n, seed);
	CHECK_SYS(setsockopt(r->udp, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size)));
	CHECK_EQ(sendto(r->udp, data, n, 0, (const struct sockaddr *)&to, sizeof(to)), (ssize_t)n);
}

static void works(const struct fe_mode *m)
{
	const uint64_t uso = BIT(F_HOST_USO) | BIT(F_GUEST_USO4);
	struct rig r = {0};

	host_up(&r);
	guest_up(&r, m);
	for (unsigned i = 0; i < 40; i++) {
		unsigned port = 3000 + i;

		transmit(&r, i % PAIRS, port, 1 + i * 20, i);
		host_gets(&r, port, 0, 1 + i * 20, i);
		host_sends(&r, port, 800 - i, i + 1);
		CHECK_EQ(guest_gets(&r, port, 800 - i, i + 1), 0);
	}
	for (unsigned i = 0; i < 10 && (r.fe.features & uso) == uso; i++) {
		size_t n = SIZE * (SEGMENTS - 1) + 1 + i * 100;

		transmit(&r, i % PAIRS, 4000 + i, n, i);
		for (size_t at = 0; at < n; at += SIZE)
			host_gets(&r, 4000 + i, at, MIN((size_t)SIZE, n - at), i);
		host_sends(&r, 4000 + i, n, i + 1);
		CHECK_EQ(guest_gets(&r, 4000 + i, n, i + 1), GSO_UDP_L4);
	}
	fe_end(&r.fe);
}

int main(void)
{
	if (!alone() || access("/dev/net/tun", R_OK | W_OK) < 0) {
		printf("1..0 # SKIP no network namespace or /dev/net/tun here\n");
		return 0;
	}
	fe_each_layout("datagrams, one by one and many in one", works);
	return tap_done();
}
