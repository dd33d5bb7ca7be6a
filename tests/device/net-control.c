/* SPDX-License-Identifier: MIT */
/*
 * What is said to the network device beside frames: the control queue, the requests of the front-end, the link, and the commands of
 * the control socket; and how several queues share the frames.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "net-card.h"

/* --- the control queue --- */

/* A command whose answer has n bytes behind it, if it is a good one. */
static int command_result(
	struct card *c, uint8_t class, uint8_t cmd, const void *data, size_t len, void *result, size_t n)
{
	uint8_t *p = fe_alloc(&c->fe, 2 + len + 1 + n, 1, NULL);
	struct vring_driver_buf b[3] = {fe_rd(&c->fe, p, 2), fe_rd(&c->fe, p + 2, (uint32_t)len),
		fe_wr(&c->fe, p + 2 + len, (uint32_t)(1 + n))};
	uint32_t used;

	p[0] = class;
	p[1] = cmd;
	memcpy(p + 2, data, len);
	p[2 + len] = 77;
	if (!len)
		b[1] = b[2];
	used = fe_transact(c->ctrl, b, len ? 3 : 2);
	CHECK_EQ(used, p[2 + len] ? 1 : 1 + n);
	if (n)
		memcpy(result, p + 3 + len, n);
	return p[2 + len];
}

static int command(struct card *c, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	return command_result(c, class, cmd, data, len, NULL, 0);
}

#define OWN    "\x52\x54\0\0\0\1"
#define OTHER  "\x52\x54\0\0\0\x33"
#define MULTI  "\x01\0\x5e\0\0\1"
#define MULTI2 "\x01\0\x5e\0\0\2"
#define ALL    "\xff\xff\xff\xff\xff\xff"

/* Does a frame to this address, with this tag, arrive? Another follows it that does. */
static bool arrives_before(struct card *c, const char *mac, int tag, const char *last)
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
	memcpy(frame, last, 6);
	peer_send(&c->peer, frame, 63);
	for (;;) {
		size_t n = receive(c, got);

		if (n == 63)
			return came;
		CHECK_EQ(n, 64);
		came = true;
	}
}

static bool arrives(struct card *c, const char *mac, int tag)
{
	return arrives_before(c, mac, tag, OWN);
}

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
	CHECK_EQ(command(&c, 0, 1, "\1", 1), 0);
	CHECK_EQ(command(&c, 0, 3, "\1", 1), 0);
	CHECK(!arrives(&c, MULTI, -1));
	CHECK(arrives(&c, ALL, -1));
	CHECK_EQ(command(&c, 0, 3, "\0", 1), 0);
	CHECK(arrives(&c, MULTI, -1));
	CHECK_EQ(command(&c, 0, 1, "\0", 1), 0);
	CHECK_EQ(command(&c, 0, 4, "\1", 1), 0);
	CHECK(!arrives_before(&c, OWN, -1, ALL));
	CHECK_EQ(command(&c, 0, 4, "\0", 1), 0);
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
	start = fe_now_ms();
	for (unsigned i = 0; i < 4; i++)
		peer_send(&c.peer, frame, sizeof(frame));
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(receive(&c, got), sizeof(frame));
	CHECK(fe_take_calls(c.rx) <= 1 || fe_now_ms() - start >= 190); /* they may come slowly */
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

static void asked_until(int control, const char *request, const char *want)
{
	int64_t end = fe_now_ms() + fe_limit_ms;

	while (!strstr(fe_control_ask(control, request), want))
		CHECK(fe_now_ms() < end);
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
	make_frame(frame, sizeof(frame), 3);
	give(c.rx, BUFFER);
	fe_flush(c.rx);
	peer_send(&c.peer, frame, sizeof(frame)); /* the same */
	asked_until(control, "{\"execute\":\"query-net\"}", "\"rx-dropped\":1");
	asked(control, "{\"execute\":\"query-net\"}",
		"\"tx-packets\":5,\"tx-bytes\":3170,\"tx-dropped\":1,\"segmented\":0");
	asked(control, "{\"execute\":\"link\",\"arguments\":{\"up\":true}}", "\"return\"");
	CHECK(strstr(fe_control_event(events, "link"), "\"up\":true") != NULL);
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), 1);
	make_frame(frame, sizeof(frame), 2);
	peer_send(&c.peer, frame, sizeof(frame));
	CHECK_EQ(receive(&c, got), sizeof(frame));
	CHECK_MEM(got, frame, sizeof(frame));
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

static int coalesce_set(struct card *c, unsigned queue, uint32_t packets, uint32_t usecs)
{
	uint32_t v[3] = {htole32(queue | 0x5a5a0000), htole32(packets), htole32(usecs)};

	return command(c, 6, 2, v, sizeof(v));
}

static void coalesce_is(struct card *c, unsigned queue, uint32_t packets, uint32_t usecs)
{
	uint32_t at = htole32(queue), v[2];

	CHECK_EQ(command_result(c, 6, 3, &at, sizeof(at), v, sizeof(v)), 0);
	CHECK_EQ(le32toh(v[0]), packets);
	CHECK_EQ(le32toh(v[1]), usecs);
}

/* What is set for a queue concerns no other. */
static void coalescing_one(const struct fe_mode *m)
{
	enum { USECS = 200000 };
	struct card c;
	uint8_t frame[100], got[70000], *p;
	uint32_t values[2] = {htole32(3), htole32(70)}, half[2] = {0, htole32(9)}, at = 0;
	int64_t start;

	peer_open(&c.peer);
	card_start_with(&c, m, ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN)), 1,
		CARD_ARGS(&c, NULL));
	for (unsigned i = 0; i < 20; i++)
		give(c.rx, BUFFER);
	fe_flush(c.rx);
	make_frame(frame, sizeof(frame), 1);
	p = fe_alloc(&c.fe, 200, 1, NULL);
	CHECK_EQ(coalesce_set(&c, 0, 4, USECS), 0);
	coalesce_is(&c, 0, 4, USECS);
	coalesce_is(&c, 1, 0, 0);
	start = fe_now_ms();
	peer_send(&c.peer, frame, sizeof(frame));
	CHECK_EQ(receive(&c, got), sizeof(frame));
	CHECK(fe_now_ms() - start >= USECS / 1000 - 10);
	CHECK_EQ(coalesce_set(&c, 1, 4, USECS), 0);
	CHECK_EQ(coalesce_set(&c, 0, 0, 0), 0);
	coalesce_is(&c, 1, 4, USECS);
	coalesce_is(&c, 0, 0, 0);
	start = fe_now_ms();
	transmit(&c, p, 100, 1);
	CHECK(fe_now_ms() - start >= USECS / 1000 - 10);
	/* what is set for all of a direction is set for each */
	CHECK_EQ(command(&c, 6, 1, values, 8), 0);
	coalesce_is(&c, 0, 3, 70);
	coalesce_is(&c, 1, 4, USECS);
	CHECK_EQ(command(&c, 6, 0, values, 8), 0);
	coalesce_is(&c, 1, 3, 70);
	/* queues that are none, or not for frames; too little data; no room for the answer */
	CHECK_EQ(coalesce_set(&c, 2, 1, 1), 1);
	CHECK_EQ(coalesce_set(&c, 77, 1, 1), 1);
	CHECK_EQ(command(&c, 6, 2, half, 8), 1);
	CHECK_EQ(command(&c, 6, 3, values, 2), 1);
	CHECK_EQ(command(&c, 6, 3, &at, sizeof(at)), 1);
	CHECK_EQ(command(&c, 6, 4, &at, sizeof(at)), 1);
	coalesce_is(&c, 0, 3, 70);
	card_end(&c);
}

/* --- the driver lives on --- */

/* Of a process that would wait for another front-end */
static void last_end(struct card *c)
{
	fe_process_signal(&c->fe.process, 15);
	fe_process_exits(&c->fe.process, 0);
	fe_close(&c->fe);
	close(c->peer.fd);
}

/* What a driver said is known where its guest has moved to, where it is asked to say that it is there. */
static void moved(const struct fe_mode *m)
{
	enum { STATE = 65536 };
	static uint32_t base[FE_QUEUES];
	uint8_t *state = malloc(STATE);
	const uint8_t table[8 + 2 * 6] = {
		1, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 0x33, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};
	char path[2][100];
	struct card c;
	size_t n;

	peer_open(&c.peer);
	snprintf(path[0], sizeof(path[0]), "%s/from", fe_tmpdir());
	snprintf(path[1], sizeof(path[1]), "%s/to", fe_tmpdir());
	fe_init(&c.fe, m);
	c.fe.device_mask = ~(BIT(F_HASH_REPORT) | BIT(F_RSS));
	fe_spawn_path(&c.fe, path[0], CARD_ARGS(&c, NULL));
	fe_handshake(&c.fe);
	fe_memory_default(&c.fe);
	card_queues(&c, 1);
	CHECK_EQ(command(&c, 0, 0, "\0", 1), 0);
	CHECK_EQ(command(&c, 1, 0, table, sizeof(table)), 0);
	CHECK_EQ(command(&c, 2, 0, "\5\0", 2), 0);
	CHECK_EQ(coalesce_set(&c, 1, 7, 300), 0);
	CHECK(arrives(&c, OTHER, 5));
	fe_queues_stop(&c.fe, base);
	n = fe_state_save(&c.fe, state, STATE);
	fe_hangup(&c.fe);
	fe_process_signal(&c.fe.process, 15);
	fe_process_exits(&c.fe.process, 0);

	fe_spawn_path(&c.fe, path[1], CARD_ARGS(&c, NULL));
	fe_handshake(&c.fe);
	CHECK(fe_state_load(&c.fe, state, n - 1) != 0);
	CHECK(fe_state_load(&c.fe, state, n + 1) != 0);
	state[0]++;
	CHECK(fe_state_load(&c.fe, state, n) != 0);
	state[0]--;
	CHECK_EQ(fe_state_load(&c.fe, state, n), 0);
	fe_queues_resume(&c.fe, base);
	fe_config_changed(&c.fe);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	CHECK_EQ(command(&c, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 0), 0);
	CHECK_EQ(link_status(&c), VIRTIO_NET_S_LINK_UP);
	CHECK(arrives(&c, OTHER, -1));
	CHECK(arrives(&c, OTHER, 5));
	CHECK(!arrives(&c, OTHER, 6));
	CHECK(arrives(&c, MULTI, -1));
	CHECK(!arrives(&c, MULTI2, -1));
	CHECK(!arrives(&c, "\x52\x54\0\0\0\x44", -1));
	coalesce_is(&c, 1, 7, 300);
	coalesce_is(&c, 0, 0, 0);
	/* a driver that begins anew knows nothing of it */
	for (unsigned i = 0; i < 3; i++) {
		fe_queue_stop(c.fe.queues[i]);
		fe_queue_free(c.fe.queues[i]);
	}
	card_queues(&c, 1);
	CHECK(arrives(&c, MULTI2, -1));
	coalesce_is(&c, 1, 0, 0);
	last_end(&c);
	free(state);
}

/* Gone, and nothing was saved: all frames come, those of VLANs that the driver had among them. */
static void restarted(const struct fe_mode *m)
{
	static uint32_t base[FE_QUEUES];
	char path[100];
	struct card c;

	peer_open(&c.peer);
	snprintf(path, sizeof(path), "%s/socket", fe_tmpdir());
	fe_init(&c.fe, m);
	c.fe.device_mask = ~(BIT(F_HASH_REPORT) | BIT(F_RSS));
	fe_spawn_path(&c.fe, path, CARD_ARGS(&c, NULL));
	fe_handshake(&c.fe);
	fe_memory_default(&c.fe);
	card_queues(&c, 1);
	CHECK_EQ(command(&c, 0, 0, "\0", 1), 0);
	CHECK_EQ(command(&c, 2, 0, "\5\0", 2), 0);
	CHECK(arrives(&c, OWN, 5));
	fe_queues_stop(&c.fe, base);
	fe_process_kill(&c.fe.process);
	fe_hangup(&c.fe);
	unlink(c.peer.device.sun_path);
	fe_spawn_path(&c.fe, path, CARD_ARGS(&c, NULL));
	fe_handshake(&c.fe);
	fe_queues_resume(&c.fe, base);
	CHECK(arrives(&c, OWN, 5));
	CHECK(arrives(&c, OTHER, -1));
	CHECK_EQ(command(&c, 0, 0, "\0", 1), 0);
	CHECK(!arrives(&c, OTHER, -1));
	last_end(&c);
}

int main(void)
{
	fe_each_layout("filters of addresses", filters);
	fe_each_layout("filters of VLANs", vlans);
	fe_each_layout("coalesced interrupts", coalescing);
	fe_each_layout("coalesced interrupts of one queue", coalescing_one);
	fe_each_layout("steering by hash", steering);
	fe_each_layout("commands without room for an answer", hostile_control);
	fe_case("announcement and MTU", announce, NULL);
	fe_case("the link follows the host end", link_down, NULL);
	fe_case("commands", commands, NULL);
	fe_each_layout("an announcement is acknowledged", announcement);
	fe_each_layout("moved with what the driver said", moved);
	fe_each_layout("another process, and nothing was saved", restarted);
	fe_case("rates", rate, NULL);
	return tap_done();
}
