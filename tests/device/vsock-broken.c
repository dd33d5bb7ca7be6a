/* SPDX-License-Identifier: MIT */
/* The socket device with guests, programs of the host and operators that break its rules, or stretch its limits. */
#include "vsock-guest.h"

/* --- hostile --- */

static void broken_packets(const struct fe_mode *m)
{
	struct virtio_vsock_hdr h = {
		.src_cid = CID, .dst_cid = HOST, .src_port = 5, .dst_port = 6, .type = STREAM};
	struct vring_driver_buf b;
	struct guest g;
	struct flow f;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 6, SOCK_STREAM);
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	/* somebody else's address: no answer, and no harm to the connection */
	h.src_cid = CID + 1;
	h.op = VIRTIO_VSOCK_OP_RST;
	packet_raw(&g, &h, NULL, 0, 1);
	h.src_cid = CID;
	/* half a header; nothing to read at all */
	b = fe_rd(&g.fe, g.tx_buf, 20);
	fe_transact(g.tx, &b, 1);
	b = fe_wr(&g.fe, g.tx_buf, 100);
	fe_transact(g.tx, &b, 1);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "ok", 2);
	host_reads(fd, g.data, 2);
	/* more announced than there is */
	h.op = VIRTIO_VSOCK_OP_RW;
	h.len = 0xffffffff;
	packet_raw(&g, &h, "abc", 3, 1);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	/* an operation that is none; data after the end; a second request */
	for (unsigned i = 0; i < 3; i++) {
		f = flow_of(&g, STREAM, 5, 6);
		fd = guest_connects(&f, listener);
		if (i == 1)
			packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0);
		packet(&f,
			i == 0	 ? 99
			: i == 1 ? VIRTIO_VSOCK_OP_RW
				 : VIRTIO_VSOCK_OP_REQUEST,
			0, "x", i == 1);
		expect(&f, VIRTIO_VSOCK_OP_RST);
		host_at_end(fd);
		close(fd);
	}
	close(listener);
	fe_end(&g.fe);
}

/* A guest that sends more than it may. */
static void over_credit(const struct fe_mode *m)
{
	static uint8_t out[TX_MAX];
	struct guest g;
	struct flow f;
	int listener, fd;
	size_t sent = 0;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 6, SOCK_STREAM);
	f = flow_of(&g, STREAM, 5, 6);
	fd = guest_connects(&f, listener);
	do {
		CHECK(sent < 8 << 20);
		packet(&f, VIRTIO_VSOCK_OP_RW, 0, out, TX_MAX);
		sent += TX_MAX;
		while (receive(&g, 0) && g.h.op != VIRTIO_VSOCK_OP_RST)
			;
	} while (g.h.op != VIRTIO_VSOCK_OP_RST);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* Empty messages cost no credit, and must not cost memory without end either. */
static void empty_messages(const struct fe_mode *m)
{
	struct guest g;
	struct flow f;
	int listener, fd;

	guest_up(&g, m, NULL);
	listener = host_listens(&g, 6, SOCK_SEQPACKET);
	f = flow_of(&g, SEQ, 5, 6);
	fd = guest_connects(&f, listener);
	for (unsigned i = 0; i < 200000; i++) {
		packet(&f, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, NULL, 0);
		if (i % 64 == 0 && receive(&g, 0) && g.h.op == VIRTIO_VSOCK_OP_RST)
			break;
	}
	CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_RST);
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

/* The guest gives no receive buffers and asks for reset after reset: its packets wait, everything else goes on. */
static void no_buffers(const struct fe_mode *m)
{
	enum { N = 400 };
	struct virtio_vsock_hdr h = {
		.src_cid = CID, .dst_cid = HOST, .dst_port = 4444, .type = STREAM, .op = 1};
	struct guest g;
	unsigned resets = 0, done = 0, sent = 0;
	uint8_t *p;

	g.cid = CID;
	fe_start(&g.fe, m, FE_ARGS("vsock", "--guest-cid=7"));
	g.rx = fe_queue_up(&g.fe, 0, 1024);
	g.tx = fe_queue_up(&g.fe, 1, 512);
	p = fe_alloc(&g.fe, N * sizeof(h), 16, NULL);
	for (; sent < N; sent++) {
		struct vring_driver_buf b = fe_rd(&g.fe, p + sent * sizeof(h), sizeof(h));

		h.src_port = sent;
		memcpy(p + sent * sizeof(h), &h, sizeof(h));
		fe_submit(g.tx, &b, 1, NULL);
	}
	fe_flush(g.tx);
	fe_barrier(&g.fe);
	for (unsigned i = 0; i < N; i++)
		give(&g, fe_alloc(&g.fe, sizeof(g.h) + RX_LEN, 16, NULL));
	fe_flush(g.rx);
	for (; resets < N; resets++) {
		void *cookie;

		CHECK_EQ(fe_wait(g.rx, &cookie), sizeof(h));
		memcpy(&h, cookie, sizeof(h));
		CHECK_EQ(h.op, VIRTIO_VSOCK_OP_RST);
		CHECK_EQ(h.dst_port, resets);
	}
	for (; done < N; done++)
		fe_wait(g.tx, NULL);
	fe_end(&g.fe);
}

/* A receive buffer that is too small for anything lies between good ones: it comes back empty in its turn, and the queue can be stopped. */
static void small_buffer(const struct fe_mode *m)
{
	enum {
		N = 1 + 15 + 3
	}; /* for the request; for data in bursts of 1, 2, 4 and 8; for the next burst */
	static uint8_t data[15 * RX_LEN];
	struct guest g;
	struct flow f;
	char uds[192];
	int fd;

	g.cid = CID;
	paths(&g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
	fe_start(&g.fe, m, FE_ARGS("vsock", "--guest-cid=7", uds));
	g.rx = fe_queue_up(&g.fe, 0, 64);
	g.tx = fe_queue_up(&g.fe, 1, 64);
	g.tx_buf = fe_alloc(&g.fe, TX_MAX + sizeof(g.h), 16, NULL);
	for (unsigned i = 0; i < N; i++) {
		uint8_t *p = fe_alloc(&g.fe, sizeof(g.h) + RX_LEN, 16, NULL);
		struct vring_driver_buf b = fe_wr(&g.fe, p, i == N - 2 ? sizeof(g.h) : sizeof(g.h) + RX_LEN);

		fe_submit(g.rx, &b, 1, p);
	}
	fe_flush(g.rx);
	fd = host_socket(g.uds, SOCK_STREAM, false);
	host_writes(fd, "CONNECT 77\n", 11);
	host_writes(fd, data, sizeof(data));
	f = flow_of(&g, STREAM, 77, 0);
	for (unsigned i = 0; i < N; i++) {
		struct virtio_vsock_hdr h;
		uint32_t len;
		void *cookie;

		if (i > 15) {
			fe_barrier(&g.fe); /* the next burst has found nothing to read */
			host_writes(fd, "x", 1);
		}
		len = fe_wait(g.rx, &cookie);
		memcpy(&h, cookie, sizeof(h));
		CHECK_EQ(len, i == 0	   ? sizeof(h)
			      : i < 16	   ? sizeof(h) + RX_LEN
			      : i == N - 2 ? 0
					   : sizeof(h) + 1);
		if (i)
			continue;
		f.peer_port = h.src_port;
		packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	}
	fe_queue_stop(g.rx);
	close(fd);
	fe_end(&g.fe);
}

/* --- limits --- */

/* A packet, and then a receive buffer, in more descriptors than one system call takes, of odd sizes. */
static void many_pieces(const struct fe_mode *m, uint16_t type)
{
	enum { PIECES = 100, LEN = 7 * (PIECES - 1), PARTS = 60, PART = 16 };
	static uint8_t out[LEN], in[LEN + 1];
	struct vring_driver_buf b[PIECES];
	struct virtio_vsock_hdr h = {.src_cid = CID,
		.dst_cid = HOST,
		.src_port = 60,
		.dst_port = 9,
		.len = LEN,
		.type = type,
		.op = VIRTIO_VSOCK_OP_RW,
		.flags = VIRTIO_VSOCK_SEQ_EOM,
		.buf_alloc = 4096};
	int listener, fd;
	struct guest g;
	struct flow f;
	char uds[192];
	uint8_t *p;

	g.cid = CID;
	paths(&g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g.uds);
	fe_start(&g.fe, m, FE_ARGS("vsock", "--guest-cid=7", uds, "--buffer=64K"));
	g.rx = fe_queue_up(&g.fe, 0, 128);
	g.tx = fe_queue_up(&g.fe, 1, 128);
	g.tx_buf = fe_alloc(&g.fe, TX_MAX + sizeof(g.h), 16, NULL);
	give(&g, fe_alloc(&g.fe, sizeof(g.h) + RX_LEN, 16, NULL));
	fe_flush(g.rx);
	listener = host_listens(&g, 9, type == STREAM ? SOCK_STREAM : SOCK_SEQPACKET);
	f = flow_of(&g, type, 60, 9);
	packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	fd = host_accepts(listener);
	CHECK_EQ(fe_wait(g.rx, NULL), sizeof(h)); /* the answer has the only buffer */

	pattern(out, 0, LEN);
	memcpy(g.tx_buf, &h, sizeof(h));
	memcpy(g.tx_buf + sizeof(h), out, LEN);
	b[0] = fe_rd(&g.fe, g.tx_buf, sizeof(h) + 3); /* the end of the header, and data */
	for (unsigned i = 1; i < PIECES; i++)
		b[i] = fe_rd(&g.fe, g.tx_buf + sizeof(h) + 3 + 7 * (i - 1), i == PIECES - 1 ? 4 : 7);
	fe_transact(g.tx, b, PIECES);
	if (type == STREAM) {
		host_reads(fd, in, LEN);
	} else {
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK_EQ(recv(fd, in, sizeof(in), 0), LEN);
	}
	CHECK_MEM(in, out, LEN);

	p = fe_alloc(&g.fe, PARTS * PART, 16, NULL);
	for (unsigned i = 0; i < PARTS; i++)
		b[i] = fe_wr(&g.fe, p + i * PART, PART);
	fe_submit(g.rx, b, PARTS, p);
	for (unsigned i = 0; i < 4; i++)
		give(&g, fe_alloc(&g.fe, sizeof(h) + RX_LEN, 16, NULL));
	fe_flush(g.rx);
	host_writes(fd, out, LEN);
	for (size_t got = 0; got < LEN; got += h.len) {
		void *cookie;
		uint32_t len = fe_wait(g.rx, &cookie);

		memcpy(&h, cookie, sizeof(h));
		CHECK_EQ(h.op, VIRTIO_VSOCK_OP_RW);
		CHECK_EQ(len, sizeof(h) + h.len);
		CHECK(h.len > 0 && h.len <= LEN - got);
		CHECK_EQ(cookie == p, got == 0);
		CHECK_MEM((uint8_t *)cookie + sizeof(h), out + got, h.len);
		CHECK_EQ(!!(h.flags & VIRTIO_VSOCK_SEQ_EOM), type == SEQ && got + h.len == LEN);
	}
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

static void many_pieces_stream(const struct fe_mode *m)
{
	many_pieces(m, STREAM);
}

static void many_pieces_message(const struct fe_mode *m)
{
	many_pieces(m, SEQ);
}

static void many(const struct fe_mode *m)
{
	enum { N = 1000 };
	static struct flow f[N];
	static int fd[N];
	struct guest g;
	struct flow over;
	int listener;
	uint8_t c;

	guest_up(&g, m, "--max-connections=1000");
	listener = host_listens(&g, 6, SOCK_STREAM);
	for (unsigned i = 0; i < N; i++) {
		f[i] = flow_of(&g, STREAM, 1000 + i, 6);
		fd[i] = guest_connects(&f[i], listener);
	}
	over = flow_of(&g, STREAM, 5, 6);
	packet(&over, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	expect(&over, VIRTIO_VSOCK_OP_RST);
	for (unsigned i = 0; i < N; i++) {
		c = (uint8_t)i;
		packet(&f[i], VIRTIO_VSOCK_OP_RW, 0, &c, 1);
	}
	for (unsigned i = 0; i < N; i++) {
		host_reads(fd[i], &c, 1);
		CHECK_EQ(c, (uint8_t)i);
		close(fd[i]);
		expect(&f[i], VIRTIO_VSOCK_OP_SHUTDOWN);
		packet(&f[i], VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	}
	close(guest_connects(&over, listener));
	close(listener);
	fe_end(&g.fe);
}

/* Programs of the host that do not say what they want, or say nonsense. */
static void bad_greetings(const struct fe_mode *m)
{
	static const char *const bad[] = {"GET / HTTP/1.0\n", "CONNECT \n", "CONNECT 99999999999\n",
		"CONNECT 1 FROM 3 4\n", "CONNECT -1\n", "\n"};
	static const char *const bad_siblings[] = {"CONNECT 1\n", "CONNECT 1 FROM 2 5\n",
		"CONNECT 1 FROM 7 5\n", "CONNECT 1 FROM 9\n", "CONNECT 1 FROM 4294967295 5\n"};
	char text[200], group[160], sibling[192];
	struct guest g;
	int fd, silent;

	snprintf(group, sizeof(group), "--group=%s", fe_tmpdir());
	snprintf(sibling, sizeof(sibling), "%s/7.stream", group + strlen("--group="));
	guest_up(&g, m, group);
	silent = host_socket(g.uds, SOCK_STREAM, false);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = host_socket(g.uds, SOCK_STREAM, false);
		host_writes(fd, bad[i], strlen(bad[i]));
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK(recv(fd, text, 1, MSG_DONTWAIT) <= 0);
		close(fd);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad_siblings); i++) {
		fd = host_socket(sibling, SOCK_STREAM, false);
		host_writes(fd, bad_siblings[i], strlen(bad_siblings[i]));
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK(recv(fd, text, 1, MSG_DONTWAIT) <= 0);
		close(fd);
	}
	memset(text, 'A', sizeof(text));
	fd = host_socket(g.uds, SOCK_STREAM, false);
	host_writes(fd, text, sizeof(text));
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	close(fd);
	close(silent);
	CHECK(!receive(&g, 20));
	fe_end(&g.fe);
}

/* As many programs that say nothing as are listened to: others wait for one of them to go, and no longer. */
static void silent(const struct fe_mode *m)
{
	enum { MOST = 128 };
	struct guest g;
	struct flow f;
	int fd[MOST], next;

	guest_up(&g, m, NULL);
	for (unsigned i = 0; i < MOST; i++)
		fd[i] = host_socket(g.uds, SOCK_STREAM, false);
	next = host_socket(g.uds, SOCK_STREAM, false);
	host_writes(next, "CONNECT 77\n", 11);
	fe_barrier(&g.fe);
	CHECK(!receive(&g, 50));
	close(fd[5]);
	CHECK(receive(&g, 5000)); /* half the time that the silent ones have */
	CHECK_EQ(g.h.op, VIRTIO_VSOCK_OP_REQUEST);
	f = flow_of(&g, STREAM, 77, g.h.src_port);
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	host_at_end(next);
	for (unsigned i = 0; i < MOST; i++)
		if (i != 5)
			close(fd[i]);
	close(next);
	fe_end(&g.fe);
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("vsock", row[0], "--socket-path=x"));
	fe_process_logs(&p, row[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--guest-cid=2", "--guest-cid=2"},
		{"--forward=x:unix:/a", "begins with no port"},
		{"--forward=5", "is not followed by"},
		{"--forward=5:tcp:example:1", "no numeric address"},
		{"--forward=5:tcp:127.0.0.1:70000", "ADDRESS:PORT"},
		{"--forward=*:unix:/a", "only be forwarded to vsock"},
		{"--forward=5:vsock:2", "CID:PORT"},
		{"--listen=5:unix:", "path is empty"},
		{"--listen=5:vsock-seqpacket:x", "a vsock end to listen on is a port"},
		{"--uds-path=/nonexistent/x", "--uds-path=/nonexistent/x: No such file"},
		{"--uds-path=/etc/passwd", "is no socket"},
		{"--group=/nonexistent", "--group=/nonexistent: No such file"},
		{"--group=/etc/passwd", "Not a directory"},
	};

	signal(SIGPIPE, SIG_IGN);
	fe_each_mode("broken packets", broken_packets);
	fe_each_layout("over credit", over_credit);
	fe_case("empty messages", empty_messages, NULL);
	fe_each_layout("no receive buffers", no_buffers);
	fe_each_mode_in_order("small buffer", small_buffer);
	fe_each_mode("many pieces, stream", many_pieces_stream);
	fe_each_mode("many pieces, message", many_pieces_message);
	fe_each_layout("many connections", many);
	fe_each_layout("bad greetings", bad_greetings);
	fe_each_layout("silence", silent);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
