/* SPDX-License-Identifier: MIT */
/*
 * The socket device between its guest and AF_VSOCK sockets of the host, which are reached by way of the kernel's loopback (CID 1). Few
 * machines have that, so tests/guest/vsock-proxy.sh runs it inside User Mode Linux.
 */
#include <linux/vm_sockets.h>

#include "vsock-guest.h"

enum { BULK = 4 << 20 };

static struct sockaddr_vm address(uint32_t cid, uint32_t port)
{
	return (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
}

static int vsock_socket(int type)
{
	struct sockaddr_vm a = address(VMADDR_CID_LOCAL, 1);
	int fd = socket(AF_VSOCK, type | SOCK_CLOEXEC, 0), probe;

	if (fd < 0)
		tap_skip("no AF_VSOCK here: %s", strerror(errno));
	probe = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(probe, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != ECONNRESET)
		tap_skip("no loopback of AF_VSOCK here: %s", strerror(errno));
	close(probe);
	return fd;
}

static int vsock_listens(uint32_t port, int type)
{
	struct sockaddr_vm a = address(VMADDR_CID_ANY, port);
	int fd = vsock_socket(type);

	CHECK_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(fd, 16));
	return fd;
}

static int vsock_connects(uint32_t port, int type)
{
	struct sockaddr_vm a = address(VMADDR_CID_LOCAL, port);
	int fd = vsock_socket(type);

	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void proxy_up(struct guest *g, const struct fe_mode *m, const char *option)
{
	g->cid = CID;
	fe_start(&g->fe, m, FE_ARGS("vsock", "--guest-cid=7", "--buffer=64K", option));
	queues_up(g);
}

/* To one port and to any; each way ends by itself. */
static void forward(const struct fe_mode *m)
{
	static const char *const options[] = {"--forward=80:vsock:1:8000", "--forward=*:vsock:1"};
	char buf[8];
	struct guest g;
	struct flow f;

	for (unsigned i = 0; i < 2; i++) {
		int listener = vsock_listens(i ? 80 : 8000, SOCK_STREAM), fd;

		proxy_up(&g, m, options[i]);
		f = flow_of(&g, STREAM, 5, 80);
		fd = guest_connects(&f, listener);
		packet(&f, VIRTIO_VSOCK_OP_RW, 0, "hello", 5);
		host_reads(fd, buf, 5);
		CHECK_MEM(buf, "hello", 5);
		packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, NULL, 0);
		host_at_end(fd);
		host_writes(fd, "bye", 3);
		expect(&f, VIRTIO_VSOCK_OP_RW);
		CHECK_EQ(g.len, 3);
		CHECK_MEM(g.data, "bye", 3);
		CHECK_SYS(shutdown(fd, SHUT_WR));
		expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
		CHECK(g.h.flags & SEND);
		packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
		close(fd);
		/* the host's program closes first */
		f = flow_of(&g, STREAM, 6, 80);
		close(guest_connects(&f, listener));
		expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
		CHECK(g.h.flags & SEND);
		packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
		expect(&f, VIRTIO_VSOCK_OP_RST);
		/* nobody listens */
		close(listener);
		f = flow_of(&g, STREAM, 7, 80);
		packet(&f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
		expect(&f, VIRTIO_VSOCK_OP_RST);
		fe_end(&g.fe);
	}
}

/* The guest sends and receives at once, as credit allows. */
static void bulk(const struct fe_mode *m)
{
	static uint8_t out[TX_MAX], in[TX_MAX];
	int listener = vsock_listens(8000, SOCK_STREAM), fd;
	size_t to_host = 0, host_got = 0, to_guest = 0, guest_got = 0;
	int64_t end = fe_now_ms() + 3 * fe_limit_ms;
	struct guest g;
	struct flow f;
	ssize_t n;

	proxy_up(&g, m, "--forward=80:vsock:1:8000");
	f = flow_of(&g, STREAM, 5, 80);
	fd = guest_connects(&f, listener);
	CHECK_SYS(fcntl(fd, F_SETFL, O_NONBLOCK));
	while (host_got < BULK || guest_got < BULK) {
		size_t room = f.peer_alloc - (f.tx - f.peer_fwd), len = MIN(room, (size_t)TX_MAX);

		CHECK(fe_now_ms() < end);
		len = MIN(len, BULK - to_host);
		if (len) {
			pattern(out, to_host, len);
			packet(&f, VIRTIO_VSOCK_OP_RW, 0, out, len);
			to_host += len;
		}
		n = recv(fd, in, sizeof(in), 0);
		for (ssize_t i = 0; i < n; i++)
			CHECK_EQ(in[i], byte_at(host_got++));
		len = MIN(sizeof(out), BULK - to_guest);
		pattern(out, to_guest, len);
		n = len ? send(fd, out, len, MSG_NOSIGNAL) : 0;
		to_guest += n > 0 ? (size_t)n : 0;
		while (receive(&g, 0)) {
			take_credit(&f);
			f.fwd += (uint32_t)g.len;
			for (size_t i = 0; i < g.len; i++)
				CHECK_EQ(g.data[i], byte_at(guest_got++));
			if (g.h.op == VIRTIO_VSOCK_OP_CREDIT_REQUEST)
				packet(&f, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
		}
	}
	close(fd);
	close(listener);
	fe_end(&g.fe);
}

static void messages(const struct fe_mode *m)
{
	static const size_t sizes[] = {1, 500, 1025, 8000, 30000};
	static uint8_t out[30000], in[30001];
	int listener = vsock_listens(8000, SOCK_SEQPACKET), fd;
	struct guest g;
	struct flow f;

	proxy_up(&g, m, "--forward=80:vsock:1:8000");
	f = flow_of(&g, SEQ, 5, 80);
	fd = guest_connects(&f, listener);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t at = 0, n;

		pattern(out, i, sizes[i]);
		for (; at < sizes[i]; at += n) {
			n = MIN(sizes[i] - at, (size_t)TX_MAX);
			packet(&f, VIRTIO_VSOCK_OP_RW,
				at + n == sizes[i] ? VIRTIO_VSOCK_SEQ_EOM | VIRTIO_VSOCK_SEQ_EOR : 0,
				out + at, n);
		}
		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		CHECK_EQ(recv(fd, in, sizeof(in), 0), (ssize_t)sizes[i]);
		CHECK_MEM(in, out, sizes[i]);
		CHECK_EQ(send(fd, out, sizes[i], MSG_NOSIGNAL | MSG_EOR), (ssize_t)sizes[i]);
		for (at = 0; at < sizes[i]; at += g.len) {
			expect(&f, VIRTIO_VSOCK_OP_RW);
			CHECK_MEM(g.data, out + at, g.len);
			CHECK_EQ(!!(g.h.flags & VIRTIO_VSOCK_SEQ_EOM), at + g.len == sizes[i]);
			CHECK_EQ(!!(g.h.flags & VIRTIO_VSOCK_SEQ_EOR), at + g.len == sizes[i]);
		}
	}
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	close(listener);
	fe_end(&g.fe);
}

static void listens_seqpacket(const struct fe_mode *m)
{
	char buf[8];
	struct guest g;
	struct flow f;
	int fd;

	close(vsock_socket(SOCK_SEQPACKET));
	proxy_up(&g, m, "--listen=501:vsock-seqpacket:8002");
	fd = vsock_connects(8002, SOCK_SEQPACKET);
	f = flow_of(&g, SEQ, 501, 0);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	host_writes(fd, "one", 3);
	host_writes(fd, "two", 3);
	for (unsigned i = 0; i < 2; i++) {
		expect(&f, VIRTIO_VSOCK_OP_RW);
		CHECK_EQ(g.len, 3);
		CHECK_MEM(g.data, i ? "two" : "one", 3);
	}
	packet(&f, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_SEQ_EOM, "three", 5);
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(recv(fd, buf, sizeof(buf), 0), 5);
	close(fd);
	expect(&f, VIRTIO_VSOCK_OP_SHUTDOWN);
	fe_end(&g.fe);
}

/* A port of the host's leads to one of the guest's. */
static void listens(const struct fe_mode *m)
{
	char buf[8];
	struct guest g;
	struct flow f;
	int fd;

	close(vsock_socket(SOCK_STREAM));
	proxy_up(&g, m, "--listen=500:vsock:8001");
	fd = vsock_connects(8001, SOCK_STREAM);
	f = flow_of(&g, STREAM, 500, 0);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
	host_writes(fd, "ping", 4);
	expect(&f, VIRTIO_VSOCK_OP_RW);
	CHECK_MEM(g.data, "ping", 4);
	packet(&f, VIRTIO_VSOCK_OP_RW, 0, "pong", 4);
	host_reads(fd, buf, 4);
	CHECK_MEM(buf, "pong", 4);
	packet(&f, VIRTIO_VSOCK_OP_SHUTDOWN, RCV | SEND, NULL, 0);
	expect(&f, VIRTIO_VSOCK_OP_RST);
	host_at_end(fd);
	close(fd);
	/* refused */
	fd = vsock_connects(8001, SOCK_STREAM);
	expect(&f, VIRTIO_VSOCK_OP_REQUEST);
	f.peer_port = g.h.src_port;
	packet(&f, VIRTIO_VSOCK_OP_RST, 0, NULL, 0);
	host_at_end(fd);
	close(fd);
	fe_end(&g.fe);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_layout("forward", forward);
	fe_each_layout("bulk", bulk);
	fe_each_layout("messages", messages);
	fe_each_layout("listen", listens);
	fe_each_layout("listen for messages", listens_seqpacket);
	return tap_done();
}
