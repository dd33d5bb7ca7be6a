/* SPDX-License-Identifier: MIT */
/* See vsock-guest.h. */
#include "vsock-guest.h"

/* --- the guest's driver --- */

void give(struct guest *g, uint8_t *p)
{
	/* a header by itself, then the rest: two descriptors, as Linux 6.1 has them */
	struct vring_driver_buf b[2] = {
		fe_wr(&g->fe, p, sizeof(g->h)), fe_wr(&g->fe, p + sizeof(g->h), RX_LEN)};

	fe_submit(g->rx, b, 2, p);
}

void queues_up(struct guest *g)
{
	g->rx = fe_queue_up(&g->fe, 0, 128);
	g->tx = fe_queue_up(&g->fe, 1, 128);
	g->event = fe_queue_up(&g->fe, 2, 16);
	g->tx_buf = fe_alloc(&g->fe, TX_MAX + sizeof(g->h), 16, NULL);
	for (unsigned i = 0; i < RX; i++)
		give(g, fe_alloc(&g->fe, sizeof(g->h) + RX_LEN, 16, NULL));
	fe_flush(g->rx);
}

void paths(struct guest *g)
{
	snprintf(g->dir, sizeof(g->dir), "%s", fe_tmpdir());
	snprintf(g->uds, sizeof(g->uds), "%s/v", g->dir);
}

void guest_up(struct guest *g, const struct fe_mode *m, const char *extra)
{
	char uds[192], buffer[32];

	g->cid = CID;
	paths(g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", g->uds);
	snprintf(buffer, sizeof(buffer), "--buffer=%u", BUFFER);
	fe_start(&g->fe, m, FE_ARGS("vsock", "--guest-cid=7", uds, buffer, extra));
	queues_up(g);
}

void packet_raw(
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

void packet(struct flow *f, uint16_t op, uint32_t flags, const void *data, size_t len)
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

bool receive(struct guest *g, int ms)
{
	uint32_t len;
	void *cookie;

	if (ms == ASLEEP ? !fe_wait_asleep(g->rx, &cookie, &len) : !fe_wait_ms(g->rx, &cookie, &len, ms))
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

void take_credit(struct flow *f)
{
	f->peer_alloc = f->g->h.buf_alloc;
	f->peer_fwd = f->g->h.fwd_cnt;
}

void expect(struct flow *f, uint16_t op)
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

struct flow flow_of(struct guest *g, uint16_t type, uint32_t port, uint32_t peer_port)
{
	return (struct flow){.g = g,
		.peer_cid = HOST,
		.peer_port = peer_port,
		.port = port,
		.type = type,
		.alloc = 1 << 20};
}

/* --- programs of the host --- */

int host_socket(const char *path, int type, bool listens)
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

int host_listens(struct guest *g, unsigned port, int type)
{
	char path[192];

	snprintf(path, sizeof(path), "%s_%u", g->uds, port);
	return host_socket(path, type, true);
}

int host_accepts(int listener)
{
	int fd;

	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

void host_reads(int fd, void *buf, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n;

		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		n = recv(fd, (uint8_t *)buf + at, len - at, MSG_DONTWAIT);
		CHECK(n > 0);
		at += (size_t)n;
	}
}

void host_at_end(int fd)
{
	char c;

	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(recv(fd, &c, 1, MSG_DONTWAIT), 0);
}

void host_reads_line(int fd, char *line, size_t size)
{
	size_t n = 0;

	do {
		CHECK(n + 1 < size);
		host_reads(fd, line + n, 1);
	} while (line[n++] != '\n');
	line[n] = '\0';
}

void host_writes(int fd, const void *data, size_t len)
{
	CHECK_EQ(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) * 13 + (i >> 16));
}

void pattern(uint8_t *p, size_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = byte_at(at + i);
}

int guest_connects(struct flow *f, int listener)
{
	int fd;

	packet(f, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
	fd = host_accepts(listener);
	expect(f, VIRTIO_VSOCK_OP_RESPONSE);
	CHECK_EQ(f->peer_alloc, BUFFER);
	return fd;
}
