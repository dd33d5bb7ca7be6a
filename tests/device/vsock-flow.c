/* SPDX-License-Identifier: MIT */
/*
 * How the socket device shares and bounds what flows: credit each way, turns between connections, ends that are closed by halves, what
 * messages between guests keep, and types that were not agreed on.
 */
#include "vsock-guest.h"

#include <arpa/inet.h>

/* --- credit --- */

/* The guest hears of a quarter of the window, without having asked, and not of less; whoever asks is answered at once. */
static void quarter(const struct fe_mode *m)
{
	enum { LEN = 1000 };
	static uint8_t out[LEN], in[LEN];
	struct guest g;
	struct flow f;
	uint32_t sent = 0, told = 0;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 5, SOCK_STREAM);
	f = flow_of(&g, STREAM, 50, 5);
	fd = guest_connects(&f, listener);
	for (unsigned updates = 0; updates < 8;) {
		packet(&f, VIRTIO_VSOCK_OP_RW, 0, out, LEN);
		host_reads(fd, in, LEN);
		sent += LEN;
		if (sent - told < BUFFER / 4) {
			CHECK(updates > 2 || !receive(&g, 0));
			continue;
		}
		expect(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		CHECK_EQ(g.h.fwd_cnt, sent);
		CHECK_EQ(g.h.buf_alloc, BUFFER);
		told = sent;
		updates++;
	}
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, out, 1);
	host_reads(fd, in, 1);
	packet(&f, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	CHECK_EQ(g.h.fwd_cnt, sent + 1);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* A guest that reads in small bites is not fed with small packets, but gets a small rest whatever it grants. */
static void bites(const struct fe_mode *m)
{
	enum { ALLOC = 4096, BITE = 10 };
	static uint8_t out[2 * ALLOC];
	struct guest g;
	struct flow f;
	uint32_t got = 0, before;
	unsigned bites = 0;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 5, SOCK_STREAM);
	f = flow_of(&g, STREAM, 50, 5);
	f.alloc = ALLOC;
	fd = guest_connects(&f, listener);
	pattern(out, 0, sizeof(out));
	host_writes(fd, out, sizeof(out));
	while (got < ALLOC) {
		CHECK(receive(&g, fe_limit_ms));
		CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RW);
		CHECK_MEM(g.data, out + got, g.len);
		got += (uint32_t)g.len;
	}
	CHECK_EQ(got, ALLOC);
	expect(&f, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	for (before = got; got == before; bites++) {
		CHECK(bites < ALLOC / BITE);
		f.fwd += BITE;
		packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		fe_barrier(&g.fe);
		if (!receive(&g, 0))
			continue;
		CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RW);
		CHECK_MEM(g.data, out + got, g.len);
		got += (uint32_t)g.len;
	}
	CHECK(got - before >= ALLOC / 4);
	while (got < sizeof(out)) { /* all was read */
		f.fwd = got;
		packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		do
			CHECK(receive(&g, fe_limit_ms));
		while (g.h.op != VIRTIO_VSOCK_OP_RW);
		CHECK_MEM(g.data, out + got, g.len);
		got += (uint32_t)g.len;
	}
	f.fwd = got - ALLOC + 8; /* room for eight bytes */
	packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	host_writes(fd, "the end", 7);
	do
		CHECK(receive(&g, fe_limit_ms));
	while (g.h.op != VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(g.len, 7);
	CHECK_MEM(g.data, "the end", 7);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* --- turns --- */

/* Behind a host's program with much to send another one gets its turn soon. */
static void turns(const struct fe_mode *m)
{
	enum {
		MUCH = 1 << 20,
		SOON = RX + 64 + 2 * 16
	}; /* what was on its way, a turn of the ring, and bursts */
	static uint8_t out[MUCH];
	struct guest g;
	struct flow busy, other;
	unsigned n = 0;
	int listener, a, b;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 5, SOCK_STREAM);
	busy = flow_of(&g, STREAM, 50, 5);
	other = flow_of(&g, STREAM, 51, 5);
	busy.alloc = MUCH;
	a = guest_connects(&busy, listener);
	b = guest_connects(&other, listener);
	CHECK_SYS(fcntl(a, F_SETFL, O_NONBLOCK));
	for (unsigned round = 0; round < 3; round++) {
		while (send(a, out, sizeof(out), MSG_NOSIGNAL) > 0) /* more than there are buffers for */
			fe_barrier(&g.fe);
		host_writes(b, "me", 2);
		fe_barrier(&g.fe);
		for (n = 0;; n++) {
			CHECK(n <= SOON);
			CHECK(receive(&g, fe_limit_ms));
			CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RW);
			if (g.h.dst_port == other.port)
				break;
			busy.fwd += (uint32_t)g.len;
		}
		CHECK(n >= RX); /* what was on its way before */
		CHECK_MEM(g.data, "me", 2);
		packet(&busy, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
	}
	close(a);
	close(b);
	close(listener);
	fe_end(&g.fe);
}

/* --- halves --- */

/* Each side says that it reads no more; what it sends itself goes on. */
static void deaf(const struct fe_mode *m)
{
	struct guest g;
	struct flow f;
	char in[8];
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 5, SOCK_STREAM);
	/* the guest: the host's program is told when it writes */
	f = flow_of(&g, STREAM, 50, 5);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV, NULL, 0);
	fe_barrier(&g.fe);
	CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "still", 5);
	host_reads(fd, in, 5);
	CHECK_MEM(in, "still", 5);
	CHECK(!receive(&g, 0));
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0); /* the other half */
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	/* the host's program: the guest is told when it writes */
	f = flow_of(&g, STREAM, 50, 5);
	fd = guest_connects(&f, listener);
	shutdown(fd, SHUT_RD);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "lost", 4);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK_EQ(g.h.flags, RCV);
	host_writes(fd, "still", 5);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_MEM(g.data, "still", 5);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "late", 4); /* on its way before the guest knew: no reset */
	shutdown(fd, SHUT_WR);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK_EQ(g.h.flags, RCV | SEND);
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(!receive(&g, 20));
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* --- TCP --- */

/* Each half of a TCP connection closes by itself, too, from either side; its reset is a reset; a port where nobody listens refuses. */
static void tcp(const struct fe_mode *m)
{
	struct sockaddr_in in = {.sin_family = AF_INET}, bound = {.sin_family = AF_INET};
	struct linger hard = {.l_onoff = 1};
	char forward[64], forward6[64], nobody[64], listens[64], buf[8];
	socklen_t len = sizeof(bound);
	uint32_t host = 0x7f000000 | ((uint32_t)getpid() & 0xffff) << 8 | 1; /* nobody else's address */
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd, one = 1;
	struct guest g = {.cid = CID};
	struct flow f;

	in.sin_addr.s_addr = bound.sin_addr.s_addr = htonl(host);
	CHECK_SYS(bind(listener, (struct sockaddr *)&bound, sizeof(bound)));
	CHECK_SYS(listen(listener, 4));
	CHECK_SYS(getsockname(listener, (struct sockaddr *)&bound, &len));
	in.sin_port = htons((uint16_t)(ntohs(bound.sin_port) ^ 1));
	snprintf(forward, sizeof(forward), "--forward=80:tcp:%s:%u", inet_ntoa(bound.sin_addr),
		ntohs(bound.sin_port));
	snprintf(nobody, sizeof(nobody), "--forward=81:tcp:%s:9", inet_ntoa(bound.sin_addr));
	snprintf(forward6, sizeof(forward6), "--forward=82:tcp:[::ffff:%s]:%u", inet_ntoa(bound.sin_addr),
		ntohs(bound.sin_port));
	snprintf(listens, sizeof(listens), "--listen=500:tcp:%s:%u", inet_ntoa(in.sin_addr),
		ntohs(in.sin_port));
	fe_start(&g.fe, m,
		FE_ARGS("vsock", "--guest-cid=7", "--buffer=64K", forward, nobody, forward6, listens));
	queues_up(&g);
	/* the guest connects; its end first */
	f = flow_of(&g, STREAM, 50, 80);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "ask", 3);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0);
	host_reads(fd, buf, 3);
	host_at_end(fd);
	host_writes(fd, "answer", 6);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_MEM(g.data, "answer", 6);
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	/* to an address of IPv6; a reset comes back */
	f = flow_of(&g, STREAM, 51, 82);
	fd = guest_connects(&f, listener);
	CHECK_SYS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)));
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	/* nobody listens */
	f = flow_of(&g, STREAM, 52, 81);
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	/* the host connects; its end first */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	CHECK_SYS(connect(fd, (struct sockaddr *)&in, sizeof(in)));
	f = flow_of(&g, STREAM, 500, 0);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	host_writes(fd, "ask", 3);
	CHECK(!receive(&g, 20)); /* not before the guest has accepted */
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_MEM(g.data, "ask", 3);
	shutdown(fd, SHUT_WR);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK_EQ(g.h.flags, SEND);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "answer", 6);
	host_reads(fd, buf, 6);
	CHECK_MEM(buf, "answer", 6);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* --- messages between guests --- */

/* Each message keeps its length, an empty one and a long one, too, and whether it ends a record, each way. */
static void records(const struct fe_mode *m)
{
	static const struct {
		size_t len;
		bool eor;
	} rows[] = {{4, true}, {4, false}, {0, true}, {0, false}, {30000, true}, {30000, false}, {1, true}};
	static uint8_t out[30000];
	char group[160], cid[2][32];
	struct guest g[2];
	struct flow f[2];

	paths(&g[0]);
	snprintf(group, sizeof(group), "--group=%s", g[0].dir);
	for (unsigned i = 0; i < 2; i++) {
		g[i].cid = 100 + i;
		snprintf(cid[i], sizeof(cid[i]), "--guest-cid=%u", 100 + i);
		fe_start(&g[i].fe, m, FE_ARGS("vsock", cid[i], group));
		queues_up(&g[i]);
		f[i] = flow_of(&g[i], SEQ, i ? 22 : 1000, i ? 1000 : 22);
		f[i].peer_cid = 101 - i;
	}
	packet(&f[0], VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f[1], VIRTIO_VSOCK_OP_REQUEST);
	packet(&f[1], VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	expect(&f[0], VIRTIO_VSOCK_OP_RESPONSE);
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(rows); i++) {
		size_t len = rows[i / 2].len, at = 0, got = 0;
		uint32_t end = VIRTIO_VSOCK_SEQ_EOM | (rows[i / 2].eor ? VIRTIO_VSOCK_SEQ_EOR : 0);
		struct flow *from = &f[i % 2], *to = &f[!(i % 2)];

		pattern(out, i, len);
		do {
			size_t n = MIN(len - at, (size_t)TX_MAX);

			packet(from, VIRTIO_VSOCK_OP_RW, at + n == len ? end : 0, out + at, n);
			at += n;
		} while (at < len);
		do {
			expect(to, VIRTIO_VSOCK_OP_RW);
			CHECK_MEM(to->g->data, out + got, to->g->len);
			got += to->g->len;
			CHECK_EQ(to->g->h.flags, got == len ? end : 0);
		} while (!(to->g->h.flags & VIRTIO_VSOCK_SEQ_EOM));
		CHECK_EQ(got, len);
	}
	fe_end(&g[0].fe);
	fe_end(&g[1].fe);
}

/* Somebody in the group who leaves out what stands behind a message. */
static void no_flags(const struct fe_mode *m)
{
	char group[160], path[192], line[64];
	struct guest g;
	struct flow f;
	int fd;

	g.cid = 100;
	paths(&g);
	snprintf(group, sizeof(group), "--group=%s", g.dir);
	snprintf(path, sizeof(path), "%s/100.seqpacket", g.dir);
	fe_start(&g.fe, m, FE_ARGS("vsock", "--guest-cid=100", group));
	queues_up(&g);
	fd = host_socket(path, SOCK_SEQPACKET, false);
	host_writes(fd, "CONNECT 22 FROM 101 1000\n", 25);
	f = flow_of(&g, SEQ, 22, 1000);
	f.peer_cid = 101;
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK(recv(fd, line, sizeof(line), 0) > 0);
	host_writes(fd, "ok\0", 3);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(g.len, 2);
	CHECK_EQ(send(fd, "", 0, MSG_NOSIGNAL), 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	close(fd);
	fe_end(&g.fe);
}

/* --- what was agreed on --- */

/* Streams are implied, unless both sides know that they are not. */
static void types(const struct fe_mode *m)
{
	enum { F_STREAM = 0, F_SEQPACKET = 1, F_NO_IMPLIED_STREAM = 2 };
	static const struct {
		uint64_t mask;
		bool stream, seqpacket;
	} rows[] = {
		{~UINT64_C(0), true, true},
		{~BIT(F_STREAM), false, true},
		{~(BIT(F_STREAM) | BIT(F_NO_IMPLIED_STREAM)), true, true},
		{~(BIT(F_STREAM) | BIT(F_SEQPACKET) | BIT(F_NO_IMPLIED_STREAM)), true, false},
		{~(BIT(F_SEQPACKET) | BIT(F_NO_IMPLIED_STREAM)), true, false},
	};
	char uds[192];

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct guest g = {.cid = CID};
		int fd[2];

		paths(&g);
		snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
		fe_init(&g.fe, m);
		g.fe.device_mask = rows[i].mask;
		fe_spawn(&g.fe, FE_ARGS("vsock", "--guest-cid=7", uds));
		fe_handshake(&g.fe);
		fe_memory_default(&g.fe);
		queues_up(&g);
		for (unsigned t = 0; t < 2; t++) {
			bool there = t ? rows[i].seqpacket : rows[i].stream;
			struct flow f = flow_of(&g, t ? SEQ : STREAM, 50 + t, 10 * i + t);

			fd[t] = host_listens(&g, 10 * i + t, t ? SOCK_SEQPACKET : SOCK_STREAM);
			packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
			expect(&f, there ? VIRTIO_VSOCK_OP_RESPONSE : VIRTIO_VSOCK_OP_RST);
		}
		fe_end(&g.fe);
		close(fd[0]);
		close(fd[1]);
	}
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_layout("credit at a quarter of the window", quarter);
	fe_each_layout("a guest that reads in bites", bites);
	fe_each_layout("everybody has a turn", turns);
	fe_each_layout("half-closed for reading", deaf);
	fe_each_layout("TCP", tcp);
	fe_each_layout("records between guests", records);
	fe_case("a message without flags", no_flags, NULL);
	fe_case("types that were agreed on", types, NULL);
	return tap_done();
}
