/* SPDX-License-Identifier: MIT */
/*
 * The network device over Unix datagrams, which the test plays the other end of: frames both ways, offloads in software, the
 * control queue, what a hostile driver may do, and the requests of the front-end.
 */
#include "frontend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
	RING = 256,
	BUFFER = 1536,
	RINGS = 3,
	HASHED = 20,
	F_HASH_REPORT = 57,
	F_RSS = 60,
	F_COAL = 53,
	F_USO = 56
};

#define PLAIN ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

/* The other end */

struct peer {
	int fd;
	struct sockaddr_un device;
	char path[100], option[2][128];
};

static void peer_open(struct peer *p)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *dir = fe_tmpdir();
	int size = 1 << 20;

	snprintf(p->path, sizeof(p->path), "%s/peer", dir);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", p->path);
	p->device = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(p->device.sun_path, sizeof(p->device.sun_path), "%s/device", dir);
	snprintf(p->option[0], sizeof(p->option[0]), "--dgram=%s", p->path);
	snprintf(p->option[1], sizeof(p->option[1]), "--dgram-local=%s", p->device.sun_path);
	p->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK_SYS(bind(p->fd, (struct sockaddr *)&a, sizeof(a)));
	setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void peer_send(struct peer *p, const void *frame, size_t len)
{
	CHECK_EQ(
		sendto(p->fd, frame, len, 0, (struct sockaddr *)&p->device, sizeof(p->device)), (ssize_t)len);
}

/* The next frame; 0: none came within ms. */
static size_t peer_recv_ms(struct peer *p, void *buf, size_t size, int ms)
{
	ssize_t n;

	if (!fe_poll(p->fd, POLLIN, ms))
		return 0;
	n = recv(p->fd, buf, size, 0);
	CHECK(n > 0);
	return (size_t)n;
}

static size_t peer_recv(struct peer *p, void *buf, size_t size)
{
	size_t n = peer_recv_ms(p, buf, size, fe_limit_ms);

	CHECK(n > 0);
	return n;
}

/* The guest */

struct card {
	struct fe fe;
	struct peer peer;
	struct fe_queue *rx, *tx, *ctrl;
	size_t hdr;
};

#define CARD_ARGS(c, ...) \
	FE_ARGS("net", (c)->peer.option[0], (c)->peer.option[1], "--mac=52:54:00:00:00:01", __VA_ARGS__)

static void card_queues(struct card *c, unsigned pairs)
{
	c->rx = fe_queue_up(&c->fe, 0, RING);
	c->tx = fe_queue_up(&c->fe, 1, RING);
	for (unsigned i = 2; i < pairs * 2; i++)
		fe_queue_up(&c->fe, i, RING);
	c->ctrl = c->fe.features & BIT(VIRTIO_NET_F_CTRL_VQ) ? fe_queue_up(&c->fe, pairs * 2, 64) : NULL;
	c->hdr = c->fe.features & BIT(F_HASH_REPORT) ? HASHED : 12;
}

static void card_start_with(
	struct card *c, const struct fe_mode *m, uint64_t mask, unsigned pairs, const char *const *args)
{
	fe_init(&c->fe, m);
	c->fe.device_mask = mask;
	fe_spawn(&c->fe, args);
	fe_handshake(&c->fe);
	fe_memory_default(&c->fe);
	card_queues(c, pairs);
}

static void card_start(struct card *c, const struct fe_mode *m, uint64_t mask)
{
	peer_open(&c->peer);
	card_start_with(c, m, mask, 1, CARD_ARGS(c, NULL));
}

static void card_end(struct card *c)
{
	fe_end(&c->fe);
	close(c->peer.fd);
}

static void *give(struct fe_queue *q, size_t len)
{
	uint8_t *p = fe_alloc(q->fe, len, 1, NULL);
	struct vring_driver_buf b = fe_wr(q->fe, p, (uint32_t)len);

	CHECK(fe_submit(q, &b, 1, p) >= 0);
	return p;
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

/* A frame for the card, with bytes that depend on seed. */
static void make_frame(uint8_t *p, size_t len, unsigned seed)
{
	static const uint8_t head[14] = {0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x88, 0xb5};

	memcpy(p, head, sizeof(head));
	fill(p + 14, len - 14, seed);
}

/* Sends a frame that lies behind its header, in n pieces. */
static void transmit(struct card *c, uint8_t *p, size_t len, unsigned n)
{
	struct vring_driver_buf b[8];
	size_t at = 0, total = c->hdr + len;

	for (unsigned i = 0; i < n; i++) {
		size_t m = i + 1 == n ? total - at : total / n;

		b[i] = fe_rd(&c->fe, p + at, (uint32_t)m);
		at += m;
	}
	CHECK_EQ(fe_transact(c->tx, b, n), 0);
}

/* Waits for a frame in the receive queue; its bytes, from as many buffers as it has, into out. */
static size_t receive_hdr(
	struct card *c, struct fe_queue *q, uint8_t *out, struct virtio_net_hdr_v1_hash *hdr)
{
	void *cookie;
	size_t len = fe_wait(q, &cookie), at;
	unsigned n;

	CHECK(len >= c->hdr);
	memcpy(hdr, cookie, c->hdr);
	at = len - c->hdr;
	memcpy(out, (uint8_t *)cookie + c->hdr, at);
	n = le16toh(hdr->hdr.num_buffers);
	CHECK(n >= 1);
	while (--n) {
		uint32_t more;

		CHECK(fe_collect(q, &cookie, &more)); /* all of them are there at once */
		memcpy(out + at, cookie, more);
		at += more;
	}
	return at;
}

static size_t receive(struct card *c, uint8_t *out)
{
	struct virtio_net_hdr_v1_hash hdr;

	return receive_hdr(c, c->rx, out, &hdr);
}

static const size_t sizes[] = {60, 14, 1514, 64, 1518, 3000, 9014, 100, 1523, 1524, 1525, 40000, 65550};

/* --- works --- */

static void send_works(struct card *c, unsigned rounds)
{
	uint8_t *p = fe_alloc(&c->fe, 65600, 1, NULL), *got = malloc(70000);

	for (unsigned i = 0; i < rounds; i++) {
		size_t len = sizes[i % ARRAY_SIZE(sizes)];

		memset(p, 0, c->hdr);
		make_frame(p + c->hdr, len, i);
		transmit(c, p, len, i % 5 + 1);
		CHECK_EQ(peer_recv(&c->peer, got, 70000), len);
		CHECK_MEM(got, p + c->hdr, len);
	}
	free(got);
}

static void receive_works(struct card *c, unsigned rounds, size_t buffer)
{
	uint8_t *frame = malloc(70000), *got = malloc(140000);

	for (unsigned i = 0; i < rounds; i++) {
		size_t len = sizes[i % ARRAY_SIZE(sizes)], mark = fe_mark(&c->fe);

		for (size_t room = 0; room < len + c->hdr; room += buffer)
			give(c->rx, buffer);
		fe_flush(c->rx);
		make_frame(frame, len, i);
		peer_send(&c->peer, frame, len);
		CHECK_EQ(receive(c, got), len);
		CHECK_MEM(got, frame, len);
		if (i % 100 == 99 && vring_driver_pending(&c->rx->ring) == 0)
			(void)mark;
	}
	free(frame);
	free(got);
}

static void works(const struct fe_mode *m)
{
	struct card c;

	card_start(&c, m, PLAIN);
	send_works(&c, 30);
	receive_works(&c, 39, BUFFER);
	fe_barrier(&c.fe);
	card_end(&c);
}

/* A buffer must hold a whole frame; one that it can't hold is lost, and no more than that. */
static void one_buffer(const struct fe_mode *m)
{
	struct card c;
	uint8_t *frame = malloc(70000), *got = malloc(70000);

	card_start(&c, m, PLAIN & ~BIT(VIRTIO_NET_F_MRG_RXBUF));
	receive_works(&c, 26, 65562);
	give(c.rx, 1000);
	give(c.rx, 1000);
	fe_flush(c.rx);
	make_frame(frame, 5000, 1);
	peer_send(&c.peer, frame, 5000);
	make_frame(frame, 500, 2);
	peer_send(&c.peer, frame, 500);
	CHECK_EQ(receive(&c, got), 500);
	CHECK_MEM(got, frame, 500);
	card_end(&c);
	free(frame);
	free(got);
}

/* Many frames at once, more than there are buffers: those come later, none is lost. */
static void burst(const struct fe_mode *m)
{
	enum { N = 300, LEN = 200 };
	struct card c;
	uint8_t frame[LEN], got[70000];
	unsigned sent = 0;

	card_start(&c, m, PLAIN);
	for (unsigned i = 0; i < 100; i++)
		give(c.rx, BUFFER);
	fe_flush(c.rx);
	for (unsigned i = 0; i < N; i++) {
		while (sent < N) { /* as the socket takes them */
			make_frame(frame, LEN, sent);
			if (sendto(c.peer.fd, frame, LEN, MSG_DONTWAIT, (struct sockaddr *)&c.peer.device,
				    sizeof(c.peer.device)) != LEN)
				break;
			sent++;
		}
		CHECK_EQ(receive(&c, got), LEN);
		make_frame(frame, LEN, i);
		CHECK_MEM(got, frame, LEN);
		if (i >= 50) {
			give(c.rx, BUFFER);
			fe_flush(c.rx);
		}
	}
	card_end(&c);
}

/* --- offloads --- */

static uint32_t add(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (n & 1)
		sum += (uint32_t)(p[n - 1] << 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Are the checksums of an IPv4 or IPv6 frame right? Those of TCP or UDP at l4. */
static void sums_right(const uint8_t *p, size_t len, bool v6, uint8_t proto)
{
	size_t l4 = v6 ? 54 : 34;
	uint32_t s;

	if (!v6)
		CHECK_EQ(add(0, p + 14, 20), 0xffff);
	s = v6 ? add(0, p + 22, 32) : add(0, p + 26, 8);
	s = add(s + proto + (uint32_t)(len - l4), p + l4, len - l4);
	CHECK_EQ(s, 0xffff);
}

/* TCP or UDP with n bytes of data behind a header of the card; the value is the frame's length. */
static size_t make_ip(uint8_t *p, bool v6, uint8_t proto, size_t n)
{
	size_t l4 = v6 ? 54 : 34, head = proto == 6 ? 20 : 8, len = l4 + head + n;
	uint32_t s;

	make_frame(p, len, 5);
	memset(p + 14, 0, l4 - 14 + head);
	p[12] = v6 ? 0x86 : 8;
	p[13] = v6 ? 0xdd : 0;
	if (v6) {
		p[14] = 0x60;
		p[18] = (uint8_t)((head + n) >> 8);
		p[19] = (uint8_t)(head + n);
		p[20] = proto;
		p[21] = 64;
		fill(p + 22, 32, 9);
	} else {
		p[14] = 0x45;
		p[16] = (uint8_t)((20 + head + n) >> 8);
		p[17] = (uint8_t)(20 + head + n);
		p[18] = 0x12;
		p[19] = 0xff;
		p[22] = 64;
		p[23] = proto;
		fill(p + 26, 8, 9);
	}
	if (!v6) {
		s = ~add(0, p + 14, 20);
		p[24] = (uint8_t)(s >> 8);
		p[25] = (uint8_t)s;
	}
	p[l4] = 1;
	p[l4 + 2] = 2;
	if (proto == 6) {
		p[l4 + 7] = 100;   /* sequence number */
		p[l4 + 12] = 0x50; /* length */
		p[l4 + 13] = 0x99; /* CWR ACK PSH FIN */
	} else {
		p[l4 + 4] = (uint8_t)((head + n) >> 8);
		p[l4 + 5] = (uint8_t)(head + n);
	}
	s = v6 ? add(0, p + 22, 32) : add(0, p + 26, 8);
	s = add(s + proto + (uint32_t)(head + n), p, 0);
	p[l4 + head - (proto == 6 ? 4 : 2)] =
		(uint8_t)(s >> 8); /* the pseudo header's sum, as the driver leaves it */
	p[l4 + head - (proto == 6 ? 3 : 1)] = (uint8_t)s;
	return len;
}

static void set_header(uint8_t *p, uint8_t gso, uint16_t size, bool v6, uint8_t proto)
{
	struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = gso};

	h.gso_size = htole16(size);
	h.csum_start = htole16(v6 ? 54 : 34);
	h.csum_offset = htole16(proto == 6 ? 16 : 6);
	memcpy(p, &h, sizeof(h));
}

static void checksum(const struct fe_mode *m)
{
	struct card c;
	uint8_t *p, got[4000];

	card_start(&c, m, PLAIN);
	p = fe_alloc(&c.fe, 4000, 1, NULL);
	for (unsigned i = 0; i < 8; i++) {
		bool v6 = i & 1;
		uint8_t proto = i & 2 ? 17 : 6;
		size_t len = make_ip(p + c.hdr, v6, proto, 1001 + i);

		set_header(p, 0, 0, v6, proto);
		transmit(&c, p, len, i % 3 + 1);
		CHECK_EQ(peer_recv(&c.peer, got, sizeof(got)), len);
		sums_right(got, len, v6, proto);
		CHECK_MEM(got + len - 1000, p + c.hdr + len - 1000, 1000);
	}
	card_end(&c);
}

static uint32_t sequence(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void segments(struct card *c, bool v6, uint8_t proto, size_t data, uint16_t mss)
{
	size_t l4 = v6 ? 54 : 34, head = l4 + (proto == 6 ? 20 : 8), at = 0;
	uint8_t *p = fe_alloc(&c->fe, data + 200, 1, NULL), got[70000];
	uint8_t gso = proto == 17 ? 5 : v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	size_t len = make_ip(p + c->hdr, v6, proto, data);

	set_header(p, gso, mss, v6, proto);
	transmit(c, p, len, 3);
	for (unsigned i = 0; at < data; i++) {
		size_t n = peer_recv(&c->peer, got, sizeof(got)), want = MIN(data - at, mss);

		CHECK_EQ(n, head + want);
		sums_right(got, n, v6, proto);
		CHECK_MEM(got + head, p + c->hdr + head + at, want);
		if (proto == 6) {
			CHECK_EQ(sequence(got + l4 + 4), 100 + at);
			CHECK_EQ(got[l4 + 13] & 9, at + want == data ? 9 : 0);
			CHECK_EQ(got[l4 + 13] & 0x80, at ? 0 : 0x80);
		} else {
			CHECK_EQ(got[l4 + 4] << 8 | got[l4 + 5], 8 + want);
		}
		if (!v6)
			CHECK_EQ(got[18] << 8 | got[19], 0x12ff + i);
		at += want;
	}
}

static void segmentation(const struct fe_mode *m)
{
	struct card c;

	card_start(&c, m, PLAIN);
	segments(&c, false, 6, 20000, 1460);
	segments(&c, true, 6, 20000, 1440);
	segments(&c, false, 17, 5000, 1000);
	segments(&c, true, 17, 5001, 1000);
	segments(&c, false, 6, 1460, 1460);
	segments(&c, false, 6, 63000, 8948);
	send_works(&c, 3);
	card_end(&c);
}

/* A large datagram becomes fragments. */
static void fragmentation(const struct fe_mode *m)
{
	enum { DATA = 5000 };
	struct card c;
	uint8_t *p, got[4000], whole[DATA + 8];
	size_t at = 0;

	card_start(&c, m, PLAIN);
	p = fe_alloc(&c.fe, DATA + 200, 1, NULL);
	make_ip(p + c.hdr, false, 17, DATA);
	set_header(p, VIRTIO_NET_HDR_GSO_UDP, 1480, false, 17);
	transmit(&c, p, 42 + DATA, 1);
	while (at < DATA + 8) {
		size_t n = peer_recv(&c.peer, got, sizeof(got));

		CHECK_EQ(add(0, got + 14, 20), 0xffff);
		CHECK_EQ((got[20] & 0x1f) << 8 | got[21], at / 8);
		CHECK_EQ(got[20] >> 5, at + n - 34 < DATA + 8);
		memcpy(whole + at, got + 34, n - 34);
		at += n - 34;
	}
	CHECK_EQ(add(add(0, p + c.hdr + 26, 8) + 17 + DATA + 8, whole, DATA + 8), 0xffff);
	CHECK_MEM(whole + 8, p + c.hdr + 42, DATA);
	card_end(&c);
}

/* --- the control queue --- */

static int command(struct card *c, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	uint8_t *p = fe_alloc(&c->fe, 2 + len + 1, 1, NULL);
	struct vring_driver_buf b[3] = {
		fe_rd(&c->fe, p, 2), fe_rd(&c->fe, p + 2, (uint32_t)len), fe_wr(&c->fe, p + 2 + len, 1)};

	p[0] = class;
	p[1] = cmd;
	memcpy(p + 2, data, len);
	p[2 + len] = 77;
	if (!len)
		b[1] = b[2];
	CHECK_EQ(fe_transact(c->ctrl, b, len ? 3 : 2), 1);
	return p[2 + len];
}

/* Does a frame to this address, with this tag, arrive? A frame that always does follows it. */
static bool arrives(struct card *c, const char *mac, int tag)
{
	uint8_t frame[64], got[70000];
	bool came = false;

	make_frame(frame, sizeof(frame), 1);
	memcpy(frame, mac, 6);
	if (tag >= 0) {
		frame[12] = 0x81;
		frame[13] = 0;
		frame[14] = (uint8_t)(tag >> 8);
		frame[15] = (uint8_t)tag;
	}
	give(c->rx, BUFFER);
	give(c->rx, BUFFER);
	fe_flush(c->rx);
	peer_send(&c->peer, frame, sizeof(frame));
	make_frame(frame, 63, 2);
	peer_send(&c->peer, frame, 63);
	for (;;) {
		size_t n = receive(c, got);

		if (n == 63)
			return came;
		CHECK_EQ(n, 64);
		came = true;
	}
}

#define OWN    "\x52\x54\0\0\0\1"
#define OTHER  "\x52\x54\0\0\0\x33"
#define MULTI  "\x01\0\x5e\0\0\1"
#define MULTI2 "\x01\0\x5e\0\0\2"
#define ALL    "\xff\xff\xff\xff\xff\xff"

static void filters(const struct fe_mode *m)
{
	struct card c;
	uint8_t table[4 + 6 + 4 + 6] = {
		1, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 0x33, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};
	uint8_t many[8 + 65 * 6] = {65};
	uint8_t mac[6];

	peer_open(&c.peer);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		CARD_ARGS(&c, NULL));
	CHECK(arrives(&c, OTHER, -1)); /* all, to begin with */
	CHECK_EQ(command(&c, 0, 0, "\0", 1), 0);
	CHECK(!arrives(&c, OTHER, -1));
	CHECK(!arrives(&c, MULTI, -1));
	CHECK(arrives(&c, ALL, -1));
	CHECK(arrives(&c, OWN, -1));
	CHECK_EQ(command(&c, 0, 1, "\1", 1), 0);
	CHECK(arrives(&c, MULTI, -1));
	CHECK_EQ(command(&c, 0, 1, "\0", 1), 0);
	CHECK_EQ(command(&c, 0, 2, "\1", 1), 0);
	CHECK(arrives(&c, OTHER, -1));
	CHECK_EQ(command(&c, 0, 2, "\0", 1), 0);
	CHECK_EQ(command(&c, 0, 5, "\1", 1), 0);
	CHECK(!arrives(&c, ALL, -1));
	CHECK_EQ(command(&c, 0, 5, "\0", 1), 0);
	CHECK_EQ(command(&c, 1, 0, table, sizeof(table)), 0);
	CHECK(arrives(&c, OTHER, -1));
	CHECK(arrives(&c, MULTI, -1));
	CHECK(!arrives(&c, MULTI2, -1));
	CHECK_EQ(command(&c, 1, 0, many, sizeof(many)), 0); /* too many: all */
	CHECK(arrives(&c, "\x52\x54\0\0\0\x44", -1));
	CHECK(!arrives(&c, MULTI, -1));
	memset(many, 0, 8);
	CHECK_EQ(command(&c, 1, 0, many, 8), 0);
	CHECK(!arrives(&c, OTHER, -1));
	/* an address of its own */
	CHECK_EQ(command(&c, 0, 2, "\1", 1), 0); /* so that the test's own frames still arrive */
	CHECK_EQ(command(&c, 1, 1, OTHER, 6), 0);
	fe_config_get(&c.fe, 0, mac, 6);
	CHECK_MEM(mac, OTHER, 6);
	/* and what is nonsense */
	CHECK_EQ(command(&c, 0, 6, "\1", 1), 1);
	CHECK_EQ(command(&c, 0, 0, "", 0), 1);
	CHECK_EQ(command(&c, 1, 0, table, sizeof(table) - 1), 1);
	CHECK_EQ(command(&c, 1, 0, "\xff\xff\xff\xff", 4), 1);
	CHECK_EQ(command(&c, 1, 1, table, 5), 1);
	CHECK_EQ(command(&c, 1, 2, table, 6), 1);
	CHECK_EQ(command(&c, 2, 0, "\1\0", 2), 1); /* VLAN was not accepted */
	CHECK_EQ(command(&c, 99, 0, "\1\0", 2), 1);
	CHECK_EQ(command(&c, 4, 0, "\1\0", 2), 1); /* nor MQ offered */
	card_end(&c);
}

static void vlans(const struct fe_mode *m)
{
	struct card c;

	peer_open(&c.peer);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS)), 1, CARD_ARGS(&c, NULL));
	CHECK(!arrives(&c, OWN, 5));
	CHECK_EQ(command(&c, 2, 0, "\5\0", 2), 0);
	CHECK(arrives(&c, OWN, 5));
	CHECK(arrives(&c, OWN, 0x3005)); /* a priority is no other VLAN */
	CHECK(!arrives(&c, OWN, 6));
	CHECK_EQ(command(&c, 2, 1, "\5\0", 2), 0);
	CHECK(!arrives(&c, OWN, 5));
	CHECK_EQ(command(&c, 2, 0, "\0\x10", 2), 1);
	CHECK_EQ(command(&c, 2, 2, "\5\0", 2), 1);
	CHECK_EQ(command(&c, 2, 0, "\5", 1), 1);
	card_end(&c);
}

/* Interrupts wait for more frames, but not for ever. */
static void coalescing(const struct fe_mode *m)
{
	struct card c;
	uint8_t frame[100], got[70000];
	uint32_t values[2] = {htole32(4), htole32(200000)};
	int64_t start;

	peer_open(&c.peer);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		CARD_ARGS(&c, NULL));
	CHECK_EQ(command(&c, 6, 1, values, 8), 0);
	CHECK_EQ(command(&c, 6, 0, values, 8), 0);
	for (unsigned i = 0; i < 20; i++)
		give(c.rx, BUFFER);
	fe_flush(c.rx);
	make_frame(frame, sizeof(frame), 1);
	start = fe_now_ms();
	peer_send(&c.peer, frame, sizeof(frame));
	CHECK_EQ(receive(&c, got), sizeof(frame));
	CHECK(fe_now_ms() - start >= 190);
	fe_take_calls(c.rx);
	for (unsigned i = 0; i < 4; i++)
		peer_send(&c.peer, frame, sizeof(frame));
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(receive(&c, got), sizeof(frame));
	CHECK(fe_take_calls(c.rx) <= 1);
	send_works(&c, 1);
	CHECK_EQ(command(&c, 6, 2, values, 8), 1);
	CHECK_EQ(command(&c, 6, 1, values, 7), 1);
	card_end(&c);
}

/* --- several queues --- */

static void steering(const struct fe_mode *m)
{
	/* le32 types (TCP over IPv4), mask 3, unclassified to pair 1, table, transmit 2, a key of 40 */
	uint8_t rss[4 + 2 + 2 + 8 + 2 + 1 + 40] = {2, 0, 0, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 40,
		0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
		0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
		0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
	/* from the published test vectors for this key: addresses and ports of 66.9.149.187:2794 to 161.142.100.80:1766 */
	static const uint8_t flow[12] = {
		66, 9, 149, 187, 161, 142, 100, 80, 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255};
	struct card c;
	struct virtio_net_hdr_v1_hash h;
	uint8_t frame[2000], got[70000];
	size_t len;

	peer_open(&c.peer);
	card_start_with(&c, m, ~BIT(VIRTIO_NET_F_CTRL_VLAN), 2, CARD_ARGS(&c, "--queues=2", NULL));
	CHECK_EQ(c.fe.queue_num, 2);
	CHECK_EQ(c.hdr, HASHED);
	CHECK_EQ(command(&c, 4, 1, rss, sizeof(rss)), 0);
	for (unsigned i = 0; i < 8; i++) {
		give(c.fe.queues[0], BUFFER);
		give(c.fe.queues[2], BUFFER);
	}
	fe_flush(c.fe.queues[0]);
	fe_flush(c.fe.queues[2]);
	len = make_ip(frame, false, 6, 100);
	memcpy(frame + 26, flow, 8);
	memcpy(frame + 34, flow + 8, 4);
	peer_send(&c.peer, frame, len);
	/* 0x51ccc178: table[0] */
	CHECK_EQ(receive_hdr(&c, c.fe.queues[0], got, &h), len);
	CHECK_EQ(le32toh(h.hash_value), 0x51ccc178);
	CHECK_EQ(le16toh(h.hash_report), VIRTIO_NET_HASH_REPORT_TCPv4);
	CHECK_MEM(got, frame, len);
	/* no TCP over IPv4: pair 1 */
	make_frame(frame, 100, 3);
	peer_send(&c.peer, frame, 100);
	CHECK_EQ(receive_hdr(&c, c.fe.queues[2], got, &h), 100);
	CHECK_EQ(le16toh(h.hash_report), 0);
	/* one pair only */
	CHECK_EQ(command(&c, 4, 0, "\1\0", 2), 0);
	for (unsigned i = 0; i < 3; i++) {
		make_frame(frame, 100, i);
		peer_send(&c.peer, frame, 100);
		CHECK_EQ(receive_hdr(&c, c.fe.queues[0], got, &h), 100);
	}
	CHECK_EQ(command(&c, 4, 0, "\0\0", 2), 1);
	CHECK_EQ(command(&c, 4, 0, "\3\0", 2), 1);
	rss[4] = 2; /* no mask */
	CHECK_EQ(command(&c, 4, 1, rss, sizeof(rss)), 1);
	rss[4] = 3;
	rss[10] = 2; /* no such pair */
	CHECK_EQ(command(&c, 4, 1, rss, sizeof(rss)), 1);
	rss[10] = 1;
	CHECK_EQ(command(&c, 4, 1, rss, sizeof(rss) - 1), 1);
	send_works(&c, 3);
	card_end(&c);
}

/* --- hostile --- */

static void hostile_send(const struct fe_mode *m)
{
	struct card c;
	uint8_t *p, got[2000];
	struct vring_driver_buf b;
	struct virtio_net_hdr_v1 h;

	card_start(&c, m, PLAIN);
	p = fe_alloc(&c.fe, 70000, 1, NULL);
	make_frame(p + c.hdr, 1000, 1);
	for (uint32_t n = 1; n < c.hdr + 14; n += 5) { /* no whole header, or nothing behind it */
		b = fe_rd(&c.fe, p, n);
		CHECK_EQ(fe_transact(c.tx, &b, 1), 0);
	}
	b = fe_rd(&c.fe, p, 69000);
	CHECK_EQ(fe_transact(c.tx, &b, 1), 0);
	b = fe_wr(&c.fe, p, 1000);
	CHECK_EQ(fe_transact(c.tx, &b, 1), 0);
	CHECK_EQ(peer_recv(&c.peer, got, sizeof(got)), 1000 - c.hdr); /* a mark that means nothing here */
	b = (struct vring_driver_buf){.addr = 0x123, .len = 100};
	CHECK_EQ(fe_transact(c.tx, &b, 1), 0);
	set_header(p, 0, 0, false, 6);
	memcpy(&h, p, sizeof(h));
	h.csum_start = htole16(999);
	memcpy(p, &h, sizeof(h));
	transmit(&c, p, 1000, 1);
	h.csum_start = h.csum_offset = 0xffff;
	memcpy(p, &h, sizeof(h));
	transmit(&c, p, 1000, 1);
	for (unsigned gso = 0; gso < 256; gso += 1) { /* a frame that is no IP at all */
		set_header(p, (uint8_t)gso, (uint16_t)(gso * 3), false, 6);
		if (gso)
			transmit(&c, p, 1000, 1);
	}
	make_ip(p + c.hdr, false, 6, 60000);
	set_header(p, VIRTIO_NET_HDR_GSO_TCPV4, 1, false, 6); /* 60000 segments */
	transmit(&c, p, 60054, 1);
	make_ip(p + c.hdr, false, 6, 200);
	p[c.hdr + 46] = 0xf0; /* a header longer than the frame's */
	set_header(p, VIRTIO_NET_HDR_GSO_TCPV4, 100, false, 6);
	transmit(&c, p, 60, 1);
	CHECK_EQ(peer_recv_ms(&c.peer, got, sizeof(got), 20), 0);
	send_works(&c, 5);
	fe_end(&c.fe);
	close(c.peer.fd);
}

static void hostile_receive(const struct fe_mode *m)
{
	struct card c;
	uint8_t frame[100];

	card_start(&c, m, PLAIN);
	give(c.rx, 5);
	fe_flush(c.rx);
	make_frame(frame, sizeof(frame), 1);
	peer_send(&c.peer, frame, sizeof(frame));
	fe_queue_fails(c.rx);
	send_works(&c, 3); /* the other queue goes on */
	card_end(&c);
}

static void hostile_control(const struct fe_mode *m)
{
	struct card c;
	uint8_t *p;
	struct vring_driver_buf b;

	peer_open(&c.peer);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		CARD_ARGS(&c, NULL));
	p = fe_alloc(&c.fe, 100, 1, NULL);
	b = fe_rd(&c.fe, p, 3);
	CHECK(fe_submit(c.ctrl, &b, 1, NULL) >= 0);
	fe_flush(c.ctrl);
	fe_queue_fails(c.ctrl);
	send_works(&c, 3);
	receive_works(&c, 3, BUFFER);
	card_end(&c);
}

/* --- stop and reconnect --- */

static void stop(const struct fe_mode *m)
{
	struct card c;
	uint8_t frame[100], got[70000];
	uint32_t base;

	card_start(&c, m, PLAIN);
	for (unsigned i = 0; i < 20; i++)
		give(c.rx, BUFFER);
	fe_flush(c.rx);
	for (unsigned round = 0; round < 3; round++) {
		make_frame(frame, sizeof(frame), round);
		peer_send(&c.peer, frame, sizeof(frame));
		CHECK_EQ(receive(&c, got), sizeof(frame));
		CHECK_MEM(got, frame, sizeof(frame));
		base = fe_queue_stop(c.rx);
		make_frame(frame, 90, round + 10);
		peer_send(&c.peer, frame, 90); /* waits */
		fe_barrier(&c.fe);
		fe_queue_send(c.rx, base);
		if (c.fe.features & BIT(FE_F_PROTOCOL))
			fe_queue_enable(c.rx, true);
		CHECK_EQ(receive(&c, got), 90);
		CHECK_MEM(got, frame, 90);
	}
	card_end(&c);
}

static void reconnect(const struct fe_mode *m)
{
	struct card c;
	char path[100];

	peer_open(&c.peer);
	fe_init(&c.fe, m);
	snprintf(path, sizeof(path), "%s/socket", fe_tmpdir());
	c.fe.device_mask = PLAIN;
	fe_spawn_path(&c.fe, path, CARD_ARGS(&c, NULL));
	for (unsigned round = 0; round < 3; round++) {
		if (round) {
			struct fe_process process = c.fe.process;

			c.fe.process.pid = 0;
			fe_close(&c.fe);
			fe_init(&c.fe, m);
			c.fe.device_mask = PLAIN;
			c.fe.process = process;
			fe_connect(&c.fe, path);
		}
		fe_handshake(&c.fe);
		fe_memory_default(&c.fe);
		card_queues(&c, 1);
		send_works(&c, 5);
		receive_works(&c, 5, BUFFER);
		for (unsigned i = 0; i < 30; i++)
			give(c.rx, BUFFER); /* taken, not used */
		fe_flush(c.rx);
		fe_barrier(&c.fe);
	}
	fe_process_signal(&c.fe.process, 15);
	fe_process_exits(&c.fe.process, 0);
	fe_close(&c.fe);
	close(c.peer.fd);
}

/* --- requests of the front-end, and the link --- */

static void announce(const struct fe_mode *m)
{
	struct card c;
	uint8_t mac[8] = {0x52, 0x54, 0, 0, 0, 1}, got[100];
	uint64_t mtu = 1400;
	uint16_t told;

	peer_open(&c.peer);
	card_start_with(&c, m, PLAIN, 1, CARD_ARGS(&c, "--mtu=9000", NULL));
	CHECK(fe_has(&c.fe, FE_P_RARP) && fe_has(&c.fe, FE_P_MTU));
	fe_set(&c.fe, FE_SEND_RARP, mac, sizeof(mac), NULL, 0);
	CHECK_EQ(peer_recv(&c.peer, got, sizeof(got)), 60);
	CHECK_MEM(got, "\xff\xff\xff\xff\xff\xff\x52\x54\0\0\0\1\x80\x35\0\1\x08\0\6\4\0\3\x52\x54\0\0\0\1",
		28);
	CHECK_MEM(got + 32, "\x52\x54\0\0\0\1", 6);
	fe_set(&c.fe, FE_NET_SET_MTU, &mtu, sizeof(mtu), NULL, 0);
	fe_config_get(&c.fe, 10, &told, 2);
	CHECK_EQ(le16toh(told), 1400);
	mtu = 9001;
	CHECK(fe_ack(&c.fe, FE_NET_SET_MTU, &mtu, sizeof(mtu), NULL, 0) != 0);
	mtu = 10;
	CHECK(fe_ack(&c.fe, FE_NET_SET_MTU, &mtu, sizeof(mtu), NULL, 0) != 0);
	send_works(&c, 2);
	card_end(&c);
}

static unsigned link_status(struct card *c)
{
	uint16_t status;

	fe_config_get(&c->fe, 6, &status, 2);
	return le16toh(status);
}

static void link_down(const struct fe_mode *m)
{
	struct card c;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint8_t *p;

	card_start(&c, m, PLAIN);
	CHECK_EQ(link_status(&c), 1);
	send_works(&c, 2);
	close(c.peer.fd);
	unlink(c.peer.path);
	p = fe_alloc(&c.fe, 200, 1, NULL);
	transmit(&c, p, 100, 1); /* taken, and lost */
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), 0);
	transmit(&c, p, 100, 1);
	c.peer.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", c.peer.path);
	CHECK_SYS(bind(c.peer.fd, (struct sockaddr *)&a, sizeof(a)));
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), 1);
	send_works(&c, 2);
	receive_works(&c, 2, BUFFER);
	card_end(&c);
}

/* --- the control socket --- */

static void asked(int control, const char *request, const char *want)
{
	const char *answer = fe_control_ask(control, request);

	if (!strstr(answer, want))
		FAIL("%s: %s has no %s", request, answer, want);
}

/* What the operator sees, and takes away. */
static void commands(const struct fe_mode *m)
{
	struct card c;
	char path[100], option[120];
	uint8_t frame[100], got[70000], *p;
	int control, events;

	peer_open(&c.peer);
	snprintf(path, sizeof(path), "%s/control", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	card_start_with(&c, m, PLAIN, 1, CARD_ARGS(&c, option, NULL));
	control = fe_control_open(path);
	events = fe_control_open(path);
	asked(control, "{\"execute\":\"query-net\"}",
		"\"host\":\"dgram\",\"link\":true,\"mac\":\"52:54:00:00:00:01\",");
	send_works(&c, 5); /* 60 + 14 + 1514 + 64 + 1518 bytes */
	receive_works(&c, 3, BUFFER);
	fe_barrier(&c.fe);
	asked(control, "{\"execute\":\"query-net\"}",
		"\"rx-packets\":3,\"rx-bytes\":1588,\"rx-dropped\":0,\"rx-filtered\":0,\"tx-packets\":5,"
		"\"tx-bytes\":3170,\"tx-dropped\":0,\"segmented\":0");
	asked(control, "{\"execute\":\"link\"}", "\"error\"");
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":\"no\"}}", "\"error\"");
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":false}}", "\"return\"");
	CHECK(strstr(fe_control_event(events, "link"), "\"up\":false") != NULL);
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), 0);
	asked(control, "{\"execute\":\"query-net\"}", "\"link\":false");
	p = fe_alloc(&c.fe, 200, 1, NULL);
	make_frame(p + c.hdr, 100, 1);
	transmit(&c, p, 100, 1); /* taken, and lost */
	CHECK_EQ(peer_recv_ms(&c.peer, got, sizeof(got), 20), 0);
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":true}}", "\"return\"");
	CHECK(strstr(fe_control_event(events, "link"), "\"up\":true") != NULL);
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), 1);
	make_frame(frame, sizeof(frame), 2);
	give(c.rx, BUFFER);
	fe_flush(c.rx);
	peer_send(&c.peer, frame, sizeof(frame));
	CHECK_EQ(receive(&c, got), sizeof(frame));
	send_works(&c, 3);
	close(control);
	close(events);
	card_end(&c);
}

/* After the link was away the driver is to say where it is, and tells us that it has. */
static void announcement(const struct fe_mode *m)
{
	struct card c;
	char path[100], option[120];
	int control;

	peer_open(&c.peer);
	snprintf(path, sizeof(path), "%s/control", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		CARD_ARGS(&c, option, NULL));
	control = fe_control_open(path);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP);
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":false}}", "\"return\"");
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":true}}", "\"return\"");
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	CHECK_EQ(command(&c, VIRTIO_NET_CTRL_ANNOUNCE, 1, "", 0), 1);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	CHECK_EQ(command(&c, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 0), 0);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP);
	close(control);
	card_end(&c);
}

static void rate(const struct fe_mode *m)
{
	struct card c;
	uint8_t *p, got[70000];
	int64_t start;

	peer_open(&c.peer);
	card_start_with(&c, m, PLAIN, 1, CARD_ARGS(&c, "--tx-rate=1M", "--rx-rate=1M", NULL));
	p = fe_alloc(&c.fe, 20000, 1, NULL);
	make_frame(p + c.hdr, 10000, 1);
	start = fe_now_ms();
	for (unsigned i = 0; i < 60; i++) {
		transmit(&c, p, 10000, 1);
		CHECK_EQ(peer_recv(&c.peer, got, sizeof(got)), 10000);
	}
	CHECK(fe_now_ms() - start >= 300); /* 600 kB, of which a tenth of a second and a frame come at once */
	start = fe_now_ms();
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned k = 0; k < 8; k++)
			give(c.rx, BUFFER);
		fe_flush(c.rx);
		peer_send(&c.peer, p + c.hdr, 10000);
		CHECK_EQ(receive(&c, got), 10000);
	}
	CHECK(fe_now_ms() - start >= 300);
	card_end(&c);
}

/* --- a stream --- */

static void stream(const struct fe_mode *m)
{
	struct card c;
	char path[100], option[120];
	uint8_t *frame = malloc(70000), *got = malloc(70000);
	uint32_t prefix;
	int listener, fd;

	snprintf(path, sizeof(path), "%s/stream", fe_tmpdir());
	snprintf(option, sizeof(option), "--stream=%s", path);
	listener = fe_listen(path);
	card_start_with(&c, m, PLAIN, 1, FE_ARGS("net", option));
	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	fd = accept(listener, NULL, NULL);
	for (unsigned i = 0; i < 26; i++) {
		size_t len = sizes[i % ARRAY_SIZE(sizes)];
		uint8_t *p = fe_alloc(&c.fe, len + c.hdr, 1, NULL);

		make_frame(p + c.hdr, len, i);
		transmit(&c, p, len, i % 4 + 1);
		CHECK_EQ(recv(fd, &prefix, 4, MSG_WAITALL), 4);
		CHECK_EQ(ntohl(prefix), len);
		CHECK_EQ(recv(fd, got, len, MSG_WAITALL), (ssize_t)len);
		CHECK_MEM(got, p + c.hdr, len);
		/* and back, in two pieces that end anywhere */
		for (size_t room = 0; room < len + c.hdr; room += BUFFER)
			give(c.rx, BUFFER);
		fe_flush(c.rx);
		memcpy(frame, &prefix, 4);
		make_frame(frame + 4, len, i + 100);
		CHECK_EQ(send(fd, frame, 1 + i, 0), 1 + i);
		fe_barrier(&c.fe);
		CHECK_EQ(send(fd, frame + 1 + i, len + 3 - i, 0), (ssize_t)(len + 3 - i));
		CHECK_EQ(receive(&c, got), len);
		CHECK_MEM(got, frame + 4, len);
		if (len == 14)
			continue;
	}
	/* a reader that is stalled holds up the sender, and loses nothing */
	for (unsigned i = 0; i < 100; i++) {
		uint8_t *p = fe_alloc(&c.fe, 20000 + c.hdr, 1, NULL);
		struct vring_driver_buf b = fe_rd(&c.fe, p, (uint32_t)(20000 + c.hdr));

		make_frame(p + c.hdr, 20000, i);
		CHECK(fe_submit(c.tx, &b, 1, NULL) >= 0);
	}
	fe_flush(c.tx);
	fe_barrier(&c.fe);
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(recv(fd, got, 20004, MSG_WAITALL), 20004);
		make_frame(frame, 20000, i);
		CHECK_MEM(got + 4, frame, 20000);
	}
	for (unsigned i = 0; i < 100; i++)
		fe_wait(c.tx, NULL);
	/* nonsense: the connection ends, the link goes down, and up with the next connection */
	CHECK_EQ(send(fd, "\xff\xff\xff\xff", 4, 0), 4);
	fe_config_changed(&c.fe);
	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	close(fd);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	close(fd);
	close(listener);
	fe_end(&c.fe);
	free(frame);
	free(got);
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("net", row[0], row[1], "--socket-path=x"));
	fe_process_logs(&p, row[2]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][3] = {
		{"--mac=52:54:00:12:34", "--user", "--mac=52:54:00:12:34: not six bytes"},
		{"--mac=53:54:00:12:34:56", "--user", "--mac=53:54:00:12:34:56: an address of a group"},
		{"--mtu=67", "--user", "--mtu=67"},
		{"--queues=33", "--user", "--queues=33"},
		{"--queues=2", "--threads=2", "--threads=2: this host end"},
		{"--dgram=/x", "--user", "more than one host end"},
		{"--tap=abcdefghijklmnopqrstu", "--queues=1", "--tap=abcdefghijklmnopqrstu: a name has"},
		{"--tap-fd=0", "--queues=1", "--tap-fd=0: no TAP interface"},
		{"--tap-fd=x", "--queues=1", "--tap-fd=x: not a descriptor"},
		{"--dgram=/x", "--restrict", "--restrict is for --user"},
		{"--dgram-local=/x", "--user", "--dgram-local is for --dgram"},
		{"--pcap=/nonexistent/x", "--user", "--pcap=/nonexistent/x: No such file"},
	};

	fe_each_mode_in_order("works", works);
	fe_each_layout("frames in one buffer", one_buffer);
	fe_each_layout("more frames than buffers", burst);
	fe_each_layout("checksums", checksum);
	fe_each_layout("segmentation", segmentation);
	fe_case("fragments", fragmentation, NULL);
	fe_each_layout("filters of addresses", filters);
	fe_each_layout("filters of VLANs", vlans);
	fe_each_layout("coalesced interrupts", coalescing);
	fe_each_layout("steering by hash", steering);
	fe_each_mode("frames to send that are not valid", hostile_send);
	fe_each_layout("receive buffers that are too small", hostile_receive);
	fe_each_layout("commands without room for an answer", hostile_control);
	fe_each_mode("stop and go on", stop);
	fe_each_layout("reconnect", reconnect);
	fe_case("announcement and MTU", announce, NULL);
	fe_case("the link follows the host end", link_down, NULL);
	fe_case("commands", commands, NULL);
	fe_each_layout("an announcement is acknowledged", announcement);
	fe_case("rates", rate, NULL);
	fe_each_layout("a stream", stream);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
