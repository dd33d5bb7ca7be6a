/* SPDX-License-Identifier: MIT */
/* The socket device at work: where connections lead, what they carry, and what a pause or a new front-end does to them. */
#include "vsock-guest.h"

/* --- works --- */

/* The guest connects, bytes go both ways, each side closes its way by itself. */
static void guest_to_host(const struct fe_mode *m)
{
	enum { TOTAL = 300000 };
	static uint8_t out[TX_MAX], in[TX_MAX];
	struct guest g;
	struct flow f;
	size_t at = 0, got = 0;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 1000, SOCK_STREAM);
	f = flow_of(&g, STREAM, 50, 1000);
	fd = guest_connects(&f, listener);
	while (at < TOTAL) { /* within the credit, which comes back by itself */
		size_t n = MIN(1 + at % TX_MAX, (size_t)(TOTAL - at));

		pattern(out, at, n);
		while (f.peer_alloc - (f.tx - f.peer_fwd) < n)
			expect(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		packet(&f, VIRTIO_VSOCK_OP_RW, 0, out, n);
		host_reads(fd, in, n);
		CHECK_MEM(in, out, n);
		at += n;
	}
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0);
	host_at_end(fd);
	/* the other way is still open */
	pattern(out, 0, TX_MAX);
	host_writes(fd, out, TX_MAX);
	while (got < TX_MAX) {
		expect(&f, VIRTIO_VSOCK_OP_RW);
		CHECK(g.len > 0);
		CHECK_MEM(g.data, out + got, g.len);
		got += g.len;
	}
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK_EQ(g.h.flags, RCV | SEND);
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	/* the ports are free again */
	f = flow_of(&g, STREAM, 50, 1000);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* A program of the host says CONNECT; much data goes to the guest, no more than it grants. */
static void host_to_guest(const struct fe_mode *m)
{
	enum { TOTAL = 200000 };
	static uint8_t out[TOTAL];
	struct guest g;
	struct flow f;
	char line[64], want[64];
	size_t got = 0, sent = 0;
	int fd;

	guest_up(&g, m, NULL);
	fd = host_socket(g.uds, SOCK_STREAM, false);
	host_writes(fd, "CONN", 4); /* in pieces, and with data right behind it */
	fe_barrier(&g.fe);
	host_writes(fd, "ECT 77\nhello", 12);
	f = flow_of(&g, STREAM, 77, 0);
	f.alloc = 4096;
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	host_reads_line(fd, line, sizeof(line));
	snprintf(want, sizeof(want), "OK %u\n", f.peer_port);
	CHECK_STR(line, want);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(g.len, 5);
	CHECK_MEM(g.data, "hello", 5);
	pattern(out, 0, TOTAL);
	f.fwd = 0; /* the guest has not read anything yet */
	CHECK_SYS(fcntl(fd, F_SETFL, O_NONBLOCK));
	while (got < TOTAL) {
		ssize_t n = sent < TOTAL ? send(fd, out + sent, TOTAL - sent, MSG_NOSIGNAL) : 0;

		sent += n > 0 ? (size_t)n : 0;
		CHECK(receive(&g, fe_limit_ms));
		if (g.h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
			f.fwd = (uint32_t)got + 5;
			packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
			continue;
		}
		CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RW);
		CHECK(got + 5 + g.len - f.fwd <= 4096); /* never more than was granted */
		CHECK_MEM(g.data, out + got, g.len);
		got += g.len;
	}
	shutdown(fd, SHUT_WR);
	do
		CHECK(receive(&g, fe_limit_ms));
	while (g.h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST);
	CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
	CHECK_EQ(g.h.flags, SEND);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "bye", 3);
	host_reads(fd, line, 3);
	CHECK_MEM(line, "bye", 3);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	fe_end(&g.fe);
}

/* Messages keep their boundaries, in one packet or in many, both ways; an empty one is one, too. */
static void messages(const struct fe_mode *m)
{
	static const size_t sizes[] = {1, 0, 500, 1024, 1025, 8000, 30000};
	static uint8_t out[30000], in[30001];
	struct guest g;
	struct flow f;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 9, SOCK_SEQPACKET);
	f = flow_of(&g, SEQ, 60, 9);
	fd = guest_connects(&f, listener);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t at = 0, got = 0;

		pattern(out, i, sizes[i]);
		do {
			size_t n = MIN(sizes[i] - at, (size_t)TX_MAX);

			packet(&f, VIRTIO_VSOCK_OP_RW, at + n == sizes[i] ? VIRTIO_VSOCK_SEQ_EOM : 0,
				out + at, n);
			at += n;
		} while (at < sizes[i]);
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK_EQ(recv(fd, in, sizeof(in), 0), (ssize_t)sizes[i]);
		CHECK_MEM(in, out, sizes[i]);
		host_writes(fd, out, sizes[i]);
		do {
			expect(&f, VIRTIO_VSOCK_OP_RW);
			CHECK_MEM(g.data, out + got, g.len);
			got += g.len;
			CHECK_EQ(
				g.h.flags & VIRTIO_VSOCK_SEQ_EOM, got == sizes[i] ? VIRTIO_VSOCK_SEQ_EOM : 0);
		} while (!(g.h.flags & VIRTIO_VSOCK_SEQ_EOM));
		CHECK_EQ(got, sizes[i]);
	}
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	close(listener);
	fe_end(&g.fe);
}

/* Messages as long as all that the device grants, behind others: what the guest may send has to be told in time. */
static void long_messages(const struct fe_mode *m)
{
	enum { MAX_LEN = 250000 };
	static const size_t sizes[] = {60000, 250000, 1, 200000};
	static uint8_t out[MAX_LEN], in[MAX_LEN + 1];
	struct guest g;
	struct flow f;
	char uds[192];
	int listener, fd;

	g.cid = CID;
	paths(&g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
	fe_start(&g.fe, m, FE_ARGS("vsock", "--guest-cid=7", uds));
	queues_up(&g);
	listener = host_listens(&g, 9, SOCK_SEQPACKET);
	f = flow_of(&g, SEQ, 60, 9);
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	fd = host_accepts(listener);
	expect(&f, VIRTIO_VSOCK_OP_RESPONSE);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		pattern(out, i, sizes[i]);
		for (size_t at = 0; at < sizes[i];) {
			size_t room = f.peer_alloc - (f.tx - f.peer_fwd);
			size_t n = MIN(MIN(sizes[i] - at, (size_t)TX_MAX), room);

			if (!n) {
				expect(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
				continue;
			}
			packet(&f, VIRTIO_VSOCK_OP_RW, at + n == sizes[i] ? VIRTIO_VSOCK_SEQ_EOM : 0,
				out + at, n);
			at += n;
		}
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK_EQ(recv(fd, in, sizeof(in), 0), (ssize_t)sizes[i]);
		CHECK_MEM(in, out, sizes[i]);
	}
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* A program answers and ends without having read all: the guest gets the answer. */
static void unread(const struct fe_mode *m)
{
	static const uint16_t types[] = {STREAM, SEQ};
	struct guest g;
	struct flow f;
	int listener, fd;

	guest_up(&g, m, NULL);
	for (unsigned t = 0; t < 2; t++) {
		listener = host_listens(&g, 9 + t, t ? SOCK_SEQPACKET : SOCK_STREAM);
		f = flow_of(&g, types[t], 60, 9 + t);
		f.alloc = 0; /* not before the program has ended */
		fd = guest_connects(&f, listener);
		packet(&f, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "not read", 8);
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		host_writes(fd, "answer", 6);
		close(fd);
		f.alloc = 4096;
		packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		do {
			CHECK(receive(&g, fe_limit_ms));
			CHECK(g.h.op != VIRTIO_VSOCK_OP_RST);
		} while (g.h.op != VIRTIO_VSOCK_OP_RW);
		CHECK_EQ(g.len, 6);
		CHECK_MEM(g.data, "answer", 6);
		do {
			CHECK(receive(&g, fe_limit_ms));
			CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_SHUTDOWN);
		} while (g.h.flags != (RCV | SEND));
		packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
		close(listener);
	}
	fe_end(&g.fe);
}

/* A program that does not read: its connection waits, another one flows, and nothing is lost, even when the guest closes. */
static void stalled(const struct fe_mode *m)
{
	static uint8_t out[TX_MAX], in[TX_MAX];
	struct guest g;
	struct flow slow, quick;
	int listener, a, b;
	size_t sent = 0;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 1, SOCK_STREAM);
	slow = flow_of(&g, STREAM, 10, 1);
	quick = flow_of(&g, STREAM, 11, 1);
	a = guest_connects(&slow, listener);
	b = guest_connects(&quick, listener);
	for (;;) { /* until the credit is gone: the socket and the backlog are full */
		size_t room = slow.peer_alloc - (slow.tx - slow.peer_fwd), n = MIN(room, (size_t)TX_MAX);

		if (!n && !receive(&g, ASLEEP))
			break;
		if (!n || g.h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE) {
			if (g.h.dst_port == slow.port)
				take_credit(&slow);
			g.h.op = 0;
			continue;
		}
		pattern(out, sent, n);
		packet(&slow, VIRTIO_VSOCK_OP_RW, 0, out, n);
		sent += n;
	}
	CHECK(sent > BUFFER);
	for (unsigned i = 0; i < 100; i++) {
		pattern(out, i, 1000);
		packet(&quick, VIRTIO_VSOCK_OP_RW, 0, out, 1000);
		host_reads(b, in, 1000);
		CHECK_MEM(in, out, 1000);
	}
	/* the guest closes, and does not even wait for the answer */
	packet(&slow, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	packet(&slow, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	for (size_t at = 0; at < sent;) {
		size_t n = MIN(sent - at, (size_t)TX_MAX);

		host_reads(a, in, n);
		pattern(out, at, n);
		CHECK_MEM(in, out, n);
		at += n;
	}
	host_at_end(a);
	close(a);
	close(b);
	close(listener);
	fe_end(&g.fe);
}

/* Many packets wait in the ring at once: they arrive in order, gathered or not. */
static void batches(const struct fe_mode *m)
{
	enum { N = 60, LEN = 64 };
	static uint8_t in[N * LEN];
	struct guest g;
	struct flow f[2];
	struct virtio_vsock_hdr h;
	int listener, fd[2];
	uint8_t *p;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 3, SOCK_STREAM);
	for (unsigned i = 0; i < 2; i++) {
		f[i] = flow_of(&g, STREAM, 20 + i, 3);
		fd[i] = guest_connects(&f[i], listener);
	}
	p = fe_alloc(&g.fe, N * (LEN + sizeof(h)), 16, NULL);
	for (unsigned i = 0; i < N; i++) {
		uint8_t *at = p + i * (LEN + sizeof(h));
		struct vring_driver_buf b = fe_rd(&g.fe, at, LEN + sizeof(h));

		h = (struct virtio_vsock_hdr){.src_cid = CID,
			.dst_cid = HOST,
			.src_port = f[i / 20 % 2].port,
			.dst_port = 3,
			.len = LEN,
			.type = STREAM,
			.op = VIRTIO_VSOCK_OP_RW,
			.buf_alloc = 4096};
		memcpy(at, &h, sizeof(h));
		pattern(at + sizeof(h), i * LEN, LEN);
		fe_submit(g.tx, &b, 1, NULL);
	}
	fe_flush(g.tx);
	for (unsigned i = 0; i < N; i++)
		fe_wait(g.tx, NULL);
	host_reads(fd[0], in, 20 * LEN);
	host_reads(fd[1], in + 20 * LEN, 20 * LEN);
	host_reads(fd[0], in + 40 * LEN, 20 * LEN);
	for (unsigned i = 0; i < N * LEN; i++)
		CHECK_EQ(in[i], byte_at(i));
	close(fd[0]);
	close(fd[1]);
	close(listener);
	fe_end(&g.fe);
}

/* --- where connections lead --- */

static void refusals(const struct fe_mode *m)
{
	struct guest g;
	struct flow f;

	guest_up(&g, m, NULL);
	f = flow_of(&g, STREAM, 5, 4444); /* nobody listens there */
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	f.peer_cid = 99; /* no such guest */
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	f = flow_of(&g, STREAM, 5, 4444); /* of no connection */
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	f.type = 77; /* of no kind */
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0); /* a reset gets no answer */
	f.type = STREAM;
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	CHECK(!receive(&g, 50));
	fe_end(&g.fe);
}

/* More connections than the host's program has room for before it accepts them: each gets its turn. */
static void backlog(const struct fe_mode *m)
{
	enum { N = 200 };
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd[N];
	bool there[N] = {false};
	struct guest g;
	struct flow f;

	guest_up(&g, m, NULL);
	CHECK((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s_8", g.uds) < sizeof(a.sun_path));
	CHECK_SYS(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(listener, 8));
	for (unsigned i = 0; i < N; i++) {
		f = flow_of(&g, STREAM, i, 8);
		packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	}
	for (unsigned i = 0; i < N; i++)
		fd[i] = host_accepts(listener);
	for (unsigned i = 0; i < N; i++) {
		CHECK(receive(&g, fe_limit_ms));
		CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RESPONSE);
		CHECK(g.h.dst_port < N && !there[g.h.dst_port]);
		there[g.h.dst_port] = true;
	}
	for (unsigned i = 0; i < N; i++)
		close(fd[i]);
	close(listener);
	fe_end(&g.fe);
}

static void forward_and_listen(const struct fe_mode *m)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char unix_path[160], seq_path[160], tcp[64], listen_unix[200], listen_seq[200], forward_unix[200],
		buf[16];
	socklen_t len = sizeof(in);
	struct guest g;
	struct flow f;
	int tcp_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd, unix_fd;

	g.cid = CID;
	paths(&g);
	CHECK_SYS(bind(tcp_fd, (struct sockaddr *)&in, sizeof(in)));
	CHECK_SYS(listen(tcp_fd, 4));
	CHECK_SYS(getsockname(tcp_fd, (struct sockaddr *)&in, &len));
	snprintf(unix_path, sizeof(unix_path), "%s/in", g.dir);
	snprintf(seq_path, sizeof(seq_path), "%s/seq", g.dir);
	snprintf(tcp, sizeof(tcp), "--forward=80:tcp:127.0.0.1:%u", ntohs(in.sin_port));
	snprintf(forward_unix, sizeof(forward_unix), "--forward=81:unix:%s/out", g.dir);
	snprintf(listen_unix, sizeof(listen_unix), "--listen=500:unix:%s", unix_path);
	snprintf(listen_seq, sizeof(listen_seq), "--listen=501:seqpacket:%s", seq_path);
	snprintf(g.uds, sizeof(g.uds), "%s/out", g.dir);
	unix_fd = host_socket(g.uds, SOCK_STREAM, true);
	fe_start(&g.fe, m,
		FE_ARGS("vsock", "--guest-cid=7", tcp, forward_unix, listen_unix, listen_seq,
			"--buffer=64K"));
	queues_up(&g);
	/* to TCP and to a path */
	f = flow_of(&g, STREAM, 1, 80);
	fd = guest_connects(&f, tcp_fd);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "GET /", 5);
	host_reads(fd, buf, 5);
	CHECK_MEM(buf, "GET /", 5);
	host_writes(fd, "200", 3);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_MEM(g.data, "200", 3);
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	f = flow_of(&g, STREAM, 2, 81);
	fd = guest_connects(&f, unix_fd);
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	/* messages do not go over TCP */
	f = flow_of(&g, SEQ, 3, 80);
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	/* from paths to ports of the guest */
	fd = host_socket(unix_path, SOCK_STREAM, false);
	f = flow_of(&g, STREAM, 500, 0);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0); /* refused */
	host_at_end(fd);
	close(fd);
	fd = host_socket(seq_path, SOCK_SEQPACKET, false);
	f = flow_of(&g, SEQ, 501, 0);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	host_writes(fd, "one", 3);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(g.len, 3);
	CHECK_EQ(g.h.flags, VIRTIO_VSOCK_SEQ_EOM);
	close(fd);
	close(tcp_fd);
	close(unix_fd);
	fe_end(&g.fe);
}

/* Two guests, two processes, one directory. */
static void siblings(const struct fe_mode *m)
{
	static const uint16_t types[] = {STREAM, SEQ};
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
	}
	for (unsigned t = 0; t < 2; t++) {
		f[0] = flow_of(&g[0], types[t], 1000 + t, 22);
		f[0].peer_cid = 101;
		f[1] = flow_of(&g[1], types[t], 22, 1000 + t);
		f[1].peer_cid = 100;
		packet(&f[0], VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
		expect(&f[1], VIRTIO_VSOCK_OP_REQUEST);
		CHECK_EQ(g[1].h.src_port, 1000 + t);
		CHECK(!receive(&g[0], 20)); /* not before the other guest has said so */
		packet(&f[1], VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
		expect(&f[0], VIRTIO_VSOCK_OP_RESPONSE);
		packet(&f[0], VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "ping", 4);
		expect(&f[1], VIRTIO_VSOCK_OP_RW);
		CHECK_MEM(g[1].data, "ping", 4);
		packet(&f[1], VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "pong!", 5);
		expect(&f[0], VIRTIO_VSOCK_OP_RW);
		CHECK_MEM(g[0].data, "pong!", 5);
		packet(&f[0], VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
		expect(&f[0], VIRTIO_VSOCK_OP_RST);
		expect(&f[1], VIRTIO_VSOCK_OP_SHUTDOWN);
		packet(&f[1], VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	}
	/* refused by the other guest */
	f[0] = flow_of(&g[0], STREAM, 1, 23);
	f[0].peer_cid = 101;
	f[1] = flow_of(&g[1], STREAM, 23, 1);
	f[1].peer_cid = 100;
	packet(&f[0], VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&f[1], VIRTIO_VSOCK_OP_REQUEST);
	packet(&f[1], VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	expect(&f[0], VIRTIO_VSOCK_OP_RST);
	fe_end(&g[0].fe);
	fe_end(&g[1].fe);
}

/* --- stop, reconnect --- */

/* The VM is paused with a connection open and data under way: nothing is lost. */
static void pause_and_go_on(const struct fe_mode *m)
{
	struct guest g;
	struct flow f;
	uint32_t rx, tx;
	int listener, fd;
	char buf[8];

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 6, SOCK_STREAM);
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	rx = fe_queue_stop(g.rx);
	tx = fe_queue_stop(g.tx);
	host_writes(fd, "while", 5);
	fe_barrier(&g.fe);
	fe_queue_send(g.rx, rx);
	fe_queue_send(g.tx, tx);
	fe_queue_enable(g.rx, true);
	fe_queue_enable(g.tx, true);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_EQ(g.len, 5);
	CHECK_MEM(g.data, "while", 5);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "after", 5);
	host_reads(fd, buf, 5);
	CHECK_MEM(buf, "after", 5);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/*
 * The guest reboots, which only new rings tell: the programs of the host see the end of their connections, one that had asked and was not
 * answered too; one that had not said yet what it wants waits on.
 */
static void reboot(const struct fe_mode *m)
{
	struct guest g;
	struct flow f;
	int listener, fd, asked, silent;
	char line[64];

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 6, SOCK_STREAM);
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
	host_writes(fd, "lost", 4);
	silent = host_socket(g.uds, SOCK_STREAM, false);
	asked = host_socket(g.uds, SOCK_STREAM, false);
	host_writes(asked, "CONNECT 77\n", 11);
	do
		CHECK(receive(&g, fe_limit_ms));
	while (g.h.op != VIRTIO_VSOCK_OP_REQUEST);
	for (unsigned i = 0; i < 3; i++)
		fe_queue_stop(g.fe.queues[i]);
	for (unsigned i = 0; i < 3; i++)
		fe_queue_free(g.fe.queues[i]);
	queues_up(&g);
	host_reads(fd, line, 1);
	host_at_end(fd);
	host_at_end(asked);
	CHECK(!receive(&g, 20)); /* nothing of before is heard of */
	f = flow_of(&g, STREAM, 77, 0);
	host_writes(silent, "CONNECT 77\n", 11);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f = flow_of(&g, STREAM, 5, 6);
	close(fd);
	fd = guest_connects(&f, listener);
	close(fd);
	close(asked);
	close(silent);
	close(listener);
	fe_end(&g.fe);
}

/* The front-end goes: the host's programs see the end. It comes back: the guest is told that all is gone. */
static void reconnect(const struct fe_mode *m)
{
	struct virtio_vsock_event *event;
	struct vring_driver_buf b;
	char path[160], uds[192];
	struct guest g;
	struct flow f;
	int listener, fd;

	g.cid = CID;
	paths(&g);
	snprintf(path, sizeof(path), "%s/sock", g.dir);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, path, FE_ARGS("vsock", "--guest-cid=7", "--buffer=64K", uds));
	listener = host_listens(&g, 6, SOCK_STREAM);
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process process;

		fe_handshake(&g.fe);
		fe_memory_default(&g.fe);
		queues_up(&g);
		event = fe_alloc(&g.fe, sizeof(*event), 8, NULL);
		event->id = 0xff;
		b = fe_wr(&g.fe, event, sizeof(*event));
		CHECK_EQ(fe_transact(g.event, &b, 1), sizeof(*event));
		CHECK_EQ(event->id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
		f = flow_of(&g, STREAM, 5, 6);
		fd = guest_connects(&f, listener);
		packet(&f, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
		process = g.fe.process;
		g.fe.process.pid = 0;
		fe_close(&g.fe);
		host_reads(fd, g.data, 1);
		host_at_end(fd);
		close(fd);
		fe_init(&g.fe, m);
		g.fe.process = process;
		fe_connect(&g.fe, path);
	}
	close(listener);
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);
	CHECK(access(g.uds, F_OK) < 0);
	fe_close(&g.fe);
}

static void event_comes(struct guest *g, struct virtio_vsock_event *event)
{
	CHECK_EQ(fe_wait(g->event, NULL), sizeof(*event));
	CHECK_EQ(event->id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	event->id = 0xff;
}

/* Live migration: the rings go on in another process, which the guest is told of; its connection is gone, and it can make a new one. */
static void moved(const struct fe_mode *m)
{
	struct virtio_vsock_event *event;
	struct vring_driver_buf b;
	char path[2][160], uds[192];
	uint32_t base[3];
	struct guest g;
	struct flow f;
	int listener, fd;

	g.cid = CID;
	paths(&g);
	snprintf(path[0], sizeof(path[0]), "%s/from", g.dir);
	snprintf(path[1], sizeof(path[1]), "%s/to", g.dir);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, path[0], FE_ARGS("vsock", "--guest-cid=7", "--buffer=64K", uds));
	listener = host_listens(&g, 6, SOCK_STREAM);
	fe_handshake(&g.fe);
	fe_memory_default(&g.fe);
	queues_up(&g);
	event = fe_alloc(&g.fe, sizeof(*event), 8, NULL);
	b = fe_wr(&g.fe, event, sizeof(*event));
	for (unsigned i = 0; i < 2; i++) {
		fe_submit(g.event, &b, 1, NULL);
		fe_flush(g.event);
		if (i == 0)
			event_comes(&g, event); /* a guest that starts has no connections */
	}
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "x", 1);
	host_reads(fd, g.data, 1);
	for (unsigned i = 0; i < 3; i++)
		base[i] = fe_queue_stop(g.fe.queues[i]);
	fe_hangup(&g.fe);
	host_at_end(fd);
	close(fd);
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);

	fe_spawn_path(&g.fe, path[1], FE_ARGS("vsock", "--guest-cid=7", "--buffer=64K", uds));
	fe_handshake(&g.fe);
	fe_memory_send(&g.fe);
	for (unsigned i = 0; i < 3; i++) {
		fe_queue_send(g.fe.queues[i], base[i]);
		fe_queue_enable(g.fe.queues[i], true);
	}
	event_comes(&g, event);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "y", 1); /* a guest that does not listen */
	expect(&f, VIRTIO_VSOCK_OP_RST);
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "z", 1);
	host_reads(fd, g.data, 1);
	CHECK_EQ(g.data[0], 'z');
	close(fd);
	close(listener);
	fe_close(&g.fe);
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_mode_in_order("guest to host", guest_to_host);
	fe_each_mode("host to guest", host_to_guest);
	fe_each_mode("messages", messages);
	fe_each_layout("long messages", long_messages);
	fe_each_layout("unread", unread);
	fe_each_mode("stalled reader", stalled);
	fe_each_mode_in_order("batches", batches);
	fe_each_layout("backlog", backlog);
	fe_each_layout("refusals", refusals);
	fe_each_layout("forward and listen", forward_and_listen);
	fe_each_layout("siblings", siblings);
	fe_each_mode("pause and go on", pause_and_go_on);
	fe_each_mode("reboot", reboot);
	fe_each_layout("reconnect", reconnect);
	fe_each_mode_in_order("moved to another process", moved);
	return tap_done();
}
