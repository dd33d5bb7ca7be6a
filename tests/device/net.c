/* SPDX-License-Identifier: MIT */
/*
 * The network device over Unix datagrams, which the test plays the other end of: frames both ways, offloads in software,
 * what a hostile driver may do, stop and reconnect.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net-card.h"

/* --- works --- */

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

/* --- a stream --- */

static void await_link(struct card *c, bool up)
{
	int64_t end = fe_now_ms() + fe_limit_ms;
	uint16_t status;

	for (;;) {
		fe_config_get(&c->fe, offsetof(struct virtio_net_config, status), &status, sizeof(status));
		if ((le16toh(status) & VIRTIO_NET_S_LINK_UP) == up)
			return;
		CHECK(fe_now_ms() < end);
		fe_back_serve(&c->fe, 10);
	}
}

static void stream(const struct fe_mode *m)
{
	struct card c;
	char path[100], option[120];
	uint8_t *frame = malloc(70000), *got = malloc(70000), *last;
	uint32_t prefix;
	int listener, fd;

	snprintf(path, sizeof(path), "%s/stream", fe_tmpdir());
	snprintf(option, sizeof(option), "--stream=%s", path);
	listener = fe_listen(path);
	card_start_with(&c, m, PLAIN, 1, FE_ARGS("net", option));
	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	fd = accept(listener, NULL, NULL);
	for (unsigned i = 0; i < 26; i++) {
		size_t len = frame_size(i);
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
	await_link(&c, true);
	last = fe_alloc(&c.fe, 100 + c.hdr, 1, NULL);
	make_frame(last + c.hdr, 100, 7);
	transmit(&c, last, 100, 1);
	CHECK_EQ(recv(fd, got, 104, MSG_WAITALL), 104);
	CHECK_MEM(got + 4, last + c.hdr, 100);
	/* it goes, with nobody to come back to */
	close(listener);
	unlink(path);
	close(fd);
	await_link(&c, false);
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
		{"--pcap=/dev/full", "--user", "--pcap=/dev/full: No space left"},
	};

	fe_each_mode_in_order("works", works);
	fe_each_layout("frames in one buffer", one_buffer);
	fe_each_layout("more frames than buffers", burst);
	fe_each_layout("checksums", checksum);
	fe_each_layout("segmentation", segmentation);
	fe_case("fragments", fragmentation, NULL);
	fe_each_mode("frames to send that are not valid", hostile_send);
	fe_each_layout("receive buffers that are too small", hostile_receive);
	fe_each_mode("stop and go on", stop);
	fe_each_layout("reconnect", reconnect);
	fe_each_layout("a stream", stream);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
