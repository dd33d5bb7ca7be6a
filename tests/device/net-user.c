/* SPDX-License-Identifier: MIT */
/*
 * The network in user space and a hostile guest: flows without end, each of which would be a socket of the process.
 */
#include "frontend.h"

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { RING = 256, BUFFER = 2048, HDR = 12, ETH = 14, IP = 20, F_HASH_REPORT = 57, F_RSS = 60 };
enum { FLOWS = 6000, MOST = 2048, SLACK = 64 };

#define PLAIN ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

struct card {
	struct fe fe;
	struct fe_queue *rx, *tx;
	char control[100];
};

static void give(struct card *c, void *p)
{
	struct vring_driver_buf b = fe_wr(&c->fe, p, BUFFER);

	CHECK(fe_submit(c->rx, &b, 1, p) >= 0);
}

static void card_start(struct card *c)
{
	char option[120];

	fe_init(&c->fe, NULL);
	c->fe.device_mask = PLAIN;
	snprintf(c->control, sizeof(c->control), "%s/control", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", c->control);
	fe_spawn(&c->fe, FE_ARGS("net", "--user", option));
	fe_handshake(&c->fe);
	fe_memory_default(&c->fe);
	c->rx = fe_queue_up(&c->fe, 0, RING);
	c->tx = fe_queue_up(&c->fe, 1, RING);
	for (unsigned i = 0; i < RING; i++)
		give(c, fe_alloc(&c->fe, BUFFER, 1, NULL));
	fe_flush(c->rx);
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

static const uint8_t ethernet[] = {0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0, 0, 1};
static const uint8_t addresses[] = {10, 0, 2, 15, 10, 0, 2, 2};

/* From that port of the guest to one of the host: the beginning of a TCP connection, or a datagram. Its length. */
static size_t make_flow(uint8_t *p, uint8_t proto, unsigned from, unsigned to)
{
	size_t size = proto == IPPROTO_TCP ? 20 : 8;
	uint8_t *ip = p + ETH, *l4 = ip + IP;

	memset(p, 0, ETH + IP + size);
	memcpy(p, ethernet, sizeof(ethernet));
	put16(p + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (unsigned)(IP + size));
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, addresses, 8);
	put16(ip + 10, (uint16_t)~add(0, ip, IP));
	put16(l4, from);
	put16(l4 + 2, to);
	if (proto == IPPROTO_TCP) {
		l4[12] = 0x50;
		l4[13] = 2; /* SYN */
		put16(l4 + 14, 1000);
		put16(l4 + 16, (uint16_t)~add(add(proto + (uint32_t)size, addresses, 8), l4, size));
	} else {
		put16(l4 + 4, (unsigned)size);
	}
	return ETH + IP + size;
}

/* Takes all frames that came. */
static unsigned receive(struct card *c, bool (*is)(const uint8_t *frame))
{
	unsigned found = 0;
	uint32_t len;
	void *cookie;

	while (fe_collect(c->rx, &cookie, &len)) {
		found += is && is((uint8_t *)cookie + HDR);
		give(c, cookie);
	}
	fe_flush(c->rx);
	return found;
}

static void transmit(struct card *c, uint8_t *p, size_t len)
{
	struct vring_driver_buf b = fe_rd(&c->fe, p, (uint32_t)(HDR + len));

	CHECK_EQ(fe_transact(c->tx, &b, 1), 0);
	receive(c, NULL);
}

static bool is_arp_reply(const uint8_t *frame)
{
	return frame[12] == 8 && frame[13] == 6 && frame[21] == 2;
}

/* The router answers. */
static void router_lives(struct card *c)
{
	static const uint8_t arp[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 2, 15, 0,
		0, 0, 0, 0, 0, 10, 0, 2, 2};
	uint8_t *p = fe_alloc(&c->fe, 100, 1, NULL);
	int64_t end = fe_now_ms() + fe_limit_ms;
	struct vring_driver_buf b = fe_rd(&c->fe, p, HDR + 60);

	memset(p + HDR, 0xff, 6);
	memcpy(p + HDR + 6, ethernet + 6, 6);
	memcpy(p + HDR + 12, arp, sizeof(arp));
	CHECK_EQ(fe_transact(c->tx, &b, 1), 0);
	while (!receive(c, is_arp_reply)) {
		CHECK(fe_now_ms() < end);
		fe_barrier(&c->fe);
	}
}

static void flood(struct card *c, uint8_t proto, unsigned to)
{
	uint8_t *p = fe_alloc(&c->fe, 100, 1, NULL);
	unsigned most = 0;

	for (unsigned i = 0; i < FLOWS; i++) {
		transmit(c, p, make_flow(p + HDR, proto, 1024 + i, to));
		if (i % 500 == 499)
			most = MAX(most, fe_process_fds(&c->fe.process));
	}
	CHECK(most > MOST / 2); /* they are sockets */
	CHECK(most <= MOST + SLACK);
	router_lives(c);
}

/* Neither does it run out of descriptors: others can still be opened. */
static void others_come(struct card *c)
{
	struct fe_region *r = fe_region_make(&c->fe, UINT64_C(1) << 40, 4096, 0x710000000000, -1, 0);
	int fd = fe_control_open(c->control);

	CHECK(strstr(fe_control(fd, "query-net"), "\"host\":\"user\"") != NULL);
	close(fd);
	if (fe_has(&c->fe, FE_P_MEM_SLOTS))
		fe_region_add(&c->fe, r);
}

static void datagrams(const struct fe_mode *m)
{
	struct card c;

	(void)m;
	card_start(&c);
	flood(&c, IPPROTO_UDP, 9);
	others_come(&c);
	fe_end(&c.fe);
}

static void connections(const struct fe_mode *m)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct card c;

	(void)m;
	CHECK_SYS(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(listener, 4096));
	CHECK_SYS(getsockname(listener, (struct sockaddr *)&a, &size));
	card_start(&c);
	flood(&c, IPPROTO_TCP, ntohs(a.sin_port));
	others_come(&c);
	fe_end(&c.fe);
	close(listener);
}

int main(void)
{
	fe_case("datagrams from everywhere", datagrams, NULL);
	fe_case("connections without end", connections, NULL);
	return tap_done();
}
