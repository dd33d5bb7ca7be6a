/* SPDX-License-Identifier: MIT */
/*
 * The socket device, seen from the guest's driver and from programs of the host at the same time: both ends of every
 * connection are in this program.
 */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CID = 7, HOST = 2, RX = 64, RX_LEN = 1024, TX_MAX = 8192, BUFFER = 64 << 10 };
enum { STREAM = VIRTIO_VSOCK_TYPE_STREAM, SEQ = VIRTIO_VSOCK_TYPE_SEQPACKET };
enum { RCV = VIRTIO_VSOCK_SHUTDOWN_RCV, SEND = VIRTIO_VSOCK_SHUTDOWN_SEND };

struct guest {
	struct fe fe;
	struct fe_queue *rx, *tx, *event;
	uint8_t *tx_buf;
	uint64_t cid;
	char dir[128], uds[160];
	/* the last packet that came */
	struct virtio_vsock_hdr h;
	uint8_t data[RX_LEN];
	size_t len;
};

/* The guest's end of one connection. */
struct flow {
	struct guest *g;
	uint64_t peer_cid;
	uint32_t peer_port, port;
	uint16_t type;
	uint32_t alloc, fwd;		   /* ours */
	uint32_t tx, peer_alloc, peer_fwd; /* theirs */
};

/* --- the guest's driver --- */

static void give(struct guest *g, uint8_t *p)
{
	/* a header by itself, then the rest: two descriptors, as Linux 6.1 has them */
	struct vring_driver_buf b[2] = {
		fe_wr(&g->fe, p, sizeof(g->h)), fe_wr(&g->fe, p + sizeof(g->h), RX_LEN)};

	fe_submit(g->rx, b, 2, p);
}

static void queues_up(struct guest *g)
{
	g->rx = fe_queue_up(&g->fe, 0, 128);
	g->tx = fe_queue_up(&g->fe, 1, 128);
	g->event = fe_queue_up(&g->fe, 2, 16);
	g->tx_buf = fe_alloc(&g->fe, TX_MAX + sizeof(g->h), 16, NULL);
	for (unsigned i = 0; i < RX; i++)
		give(g, fe_alloc(&g->fe, sizeof(g->h) + RX_LEN, 16, NULL));
	fe_flush(g->rx);
}

static void paths(struct guest *g)
{
	snprintf(g->dir, sizeof(g->dir), "%s", fe_tmpdir());
	snprintf(g->uds, sizeof(g->uds), "%s/v", g->dir);
}

static void guest_up(struct guest *g, const struct fe_mode *m, const char *extra)
{
	char uds[192], buffer[32];

	g->cid = CID;
	paths(g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g->uds);
	snprintf(buffer, sizeof(buffer), "--buffer=%u", BUFFER);
	fe_start(&g->fe, m, FE_ARGS("vsock", "--guest-cid=7", uds, buffer, extra));
	queues_up(g);
}

static void packet_raw(
	struct guest *g, const struct virtio_vsock_hdr *h, const void *data, size_t len, unsigned pieces)
{
	struct vring_driver_buf b[8];
	unsigned n = 0;
	size_t at = 0, total = sizeof(*h) + len;

	memcpy(g->tx_buf, h, sizeof(*h));
	if (len)
		memcpy(g->tx_buf + sizeof(*h), data, len);
	while (at < total) {
		size_t part = n + 1 == pieces ? total - at : MIN(total - at, total / pieces + n);

		b[n++] = fe_rd(&g->fe, g->tx_buf + at, (uint32_t)part);
		at += part;
	}
	fe_transact(g->tx, b, n);
}

static void packet(struct flow *f, uint16_t op, uint32_t flags, const void *data, size_t len)
{
	struct virtio_vsock_hdr h = {
		.src_cid = f->g->cid,
		.dst_cid = f->peer_cid,
		.src_port = f->port,
		.dst_port = f->peer_port,
		.len = (uint32_t)len,
		.type = f->type,
		.op = op,
		.flags = flags,
		.buf_alloc = f->alloc,
		.fwd_cnt = f->fwd,
	};

	f->tx += (uint32_t)len;
	packet_raw(f->g, &h, data, len, 1 + f->port % 3);
}

/* The next packet from the back-end; false: none within ms. */
static bool receive(struct guest *g, int ms)
{
	uint32_t len;
	void *cookie;

	if (!fe_wait_ms(g->rx, &cookie, &len, ms))
		return false;
	CHECK(len >= sizeof(g->h));
	memcpy(&g->h, cookie, sizeof(g->h));
	g->len = len - sizeof(g->h);
	CHECK_EQ(g->h.len, g->len);
	memcpy(g->data, (uint8_t *)cookie + sizeof(g->h), g->len);
	give(g, cookie);
	fe_flush(g->rx);
	return true;
}

static void take_credit(struct flow *f)
{
	f->peer_alloc = f->g->h.buf_alloc;
	f->peer_fwd = f->g->h.fwd_cnt;
}

/* The next packet, whose operation must be op; updates of credit are taken on the way. */
static void expect(struct flow *f, uint16_t op)
{
	struct guest *g = f->g;

	do {
		CHECK(receive(g, fe_limit_ms));
		CHECK_EQ(g->h.src_cid, f->peer_cid);
		CHECK_EQ(g->h.dst_cid, g->cid);
		CHECK_EQ(g->h.type, f->type);
		take_credit(f);
	} while (g->h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && op != VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	CHECK_EQ(g->h.op, op);
	CHECK_EQ(g->h.dst_port, f->port);
	if (op != VIRTIO_VSOCK_OP_REQUEST)
		CHECK_EQ(g->h.src_port, f->peer_port);
	f->fwd += (uint32_t)g->len;
}

static struct flow flow_of(struct guest *g, uint16_t type, uint32_t port, uint32_t peer_port)
{
	return (struct flow){.g = g,
		.peer_cid = HOST,
		.peer_port = peer_port,
		.port = port,
		.type = type,
		.alloc = 1 << 20};
}

/* --- programs of the host --- */

static int host_socket(const char *path, int type, bool listens)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	CHECK((size_t)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path) < sizeof(a.sun_path));
	if (listens) {
		CHECK_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
		CHECK_SYS(listen(fd, 128));
	} else {
		CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	}
	return fd;
}

static int host_listens(struct guest *g, unsigned port, int type)
{
	char path[192];

	snprintf(path, sizeof(path), "%s_%u", g->uds, port);
	return host_socket(path, type, true);
}

static int host_accepts(int listener)
{
	int fd;

	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static void host_reads(int fd, void *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n;

		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		n = recv(fd, (uint8_t *)buf + at, len - at, MSG_DONTWAIT);
		CHECK(n > 0);
		at += (size_t)n;
	}
}

static void host_at_end(int fd)
{
	char c;

	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(recv(fd, &c, 1, MSG_DONTWAIT), 0);
}

/* A line; nothing behind it is taken. */
static void host_reads_line(int fd, char *line, size_t size)
{
	size_t n = 0;

	do {
		CHECK(n + 1 < size);
		host_reads(fd, line + n, 1);
	} while (line[n++] != '\n');
	line[n] = '\0';
}

static void host_writes(int fd, const void *data, size_t len)
{
	CHECK_EQ(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16));
}

static void pattern(uint8_t *p, size_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = byte_at(at + i);
}

/* Connects from the guest; both ends are up afterwards. */
static int guest_connects(struct flow *f, int listener)
{
	int fd;

	packet(f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	fd = host_accepts(listener);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	CHECK_EQ(f->peer_alloc, BUFFER);
	return fd;
}

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

		if (!n && !receive(&g, 100))
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

/* --- limits --- */

static void many(const struct fe_mode *m)
{
	enum { N = 300 };
	static struct flow f[N];
	static int fd[N];
	struct guest g;
	struct flow over;
	int listener;
	uint8_t c;

	guest_up(&g, m, "--max-connections=300");
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
	char text[200];
	struct guest g;
	int fd, silent;

	guest_up(&g, m, NULL);
	silent = host_socket(g.uds, SOCK_STREAM, false);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fd = host_socket(g.uds, SOCK_STREAM, false);
		host_writes(fd, bad[i], strlen(bad[i]));
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
		{"--uds-path=/nonexistent/x", "--uds-path=/nonexistent/x: No such file"},
		{"--uds-path=/etc/passwd", "is no socket"},
		{"--group=/nonexistent", "--group=/nonexistent: No such file"},
		{"--group=/etc/passwd", "Not a directory"},
	};

	signal(SIGPIPE, SIG_IGN);
	fe_each_mode_in_order("guest to host", guest_to_host);
	fe_each_mode("host to guest", host_to_guest);
	fe_each_mode("messages", messages);
	fe_each_mode("stalled reader", stalled);
	fe_each_mode_in_order("batches", batches);
	fe_each_layout("refusals", refusals);
	fe_each_layout("forward and listen", forward_and_listen);
	fe_each_layout("siblings", siblings);
	fe_each_mode("broken packets", broken_packets);
	fe_each_layout("over credit", over_credit);
	fe_case("empty messages", empty_messages, NULL);
	fe_each_layout("no receive buffers", no_buffers);
	fe_each_mode("pause and go on", pause_and_go_on);
	fe_each_layout("reconnect", reconnect);
	fe_each_layout("many connections", many);
	fe_each_layout("bad greetings", bad_greetings);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
