/* SPDX-License-Identifier: MIT */
/* See net-card.h. */
#include "net-card.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void peer_open(struct peer *p)
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

void peer_send(struct peer *p, const void *frame, size_t len)
{
	CHECK_EQ(
		sendto(p->fd, frame, len, 0, (struct sockaddr *)&p->device, sizeof(p->device)), (ssize_t)len);
}

size_t peer_recv_ms(struct peer *p, void *buf, size_t size, int ms)
{
	ssize_t n;

	if (!fe_poll(p->fd, POLLIN, ms))
		return 0;
	n = recv(p->fd, buf, size, 0);
	CHECK(n > 0);
	return (size_t)n;
}

size_t peer_recv(struct peer *p, void *buf, size_t size)
{
	size_t n = peer_recv_ms(p, buf, size, fe_limit_ms);

	CHECK(n > 0);
	return n;
}
void card_queues(struct card *c, unsigned pairs)
{
	c->rx = fe_queue_up(&c->fe, 0, RING);
	c->tx = fe_queue_up(&c->fe, 1, RING);
	for (unsigned i = 2; i < pairs * 2; i++)
		fe_queue_up(&c->fe, i, RING);
	c->ctrl = c->fe.features & BIT(VIRTIO_NET_F_CTRL_VQ) ? fe_queue_up(&c->fe, pairs * 2, 64) : NULL;
	c->hdr = c->fe.features & BIT(F_HASH_REPORT) ? HASHED : 12;
}

void card_start_with(
	struct card *c, const struct fe_mode *m, uint64_t mask, unsigned pairs, const char *const *args)
{
	fe_init(&c->fe, m);
	c->fe.device_mask = mask;
	fe_spawn(&c->fe, args);
	fe_handshake(&c->fe);
	fe_memory_default(&c->fe);
	card_queues(c, pairs);
}

void card_start(struct card *c, const struct fe_mode *m, uint64_t mask)
{
	peer_open(&c->peer);
	card_start_with(c, m, mask, 1, CARD_ARGS(c, NULL));
}

void card_end(struct card *c)
{
	fe_end(&c->fe);
	close(c->peer.fd);
}

void *give(struct fe_queue *q, size_t len)
{
	uint8_t *p = fe_alloc(q->fe, len, 1, NULL);
	struct vring_driver_buf b = fe_wr(q->fe, p, (uint32_t)len);

	CHECK(fe_submit(q, &b, 1, p) >= 0);
	return p;
}

void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

void make_frame(uint8_t *p, size_t len, unsigned seed)
{
	static const uint8_t head[14] = {0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x88, 0xb5};

	memcpy(p, head, sizeof(head));
	fill(p + 14, len - 14, seed);
}

void transmit(struct card *c, uint8_t *p, size_t len, unsigned n)
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

size_t receive_hdr(struct card *c, struct fe_queue *q, uint8_t *out, struct virtio_net_hdr_v1_hash *hdr)
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

size_t receive(struct card *c, uint8_t *out)
{
	struct virtio_net_hdr_v1_hash hdr;

	return receive_hdr(c, c->rx, out, &hdr);
}

size_t frame_size(unsigned i)
{
	static const size_t sizes[] = {
		60, 14, 1514, 64, 1518, 3000, 9014, 100, 1523, 1524, 1525, 40000, 65550};

	return sizes[i % ARRAY_SIZE(sizes)];
}

void send_works(struct card *c, unsigned rounds)
{
	uint8_t *p = fe_alloc(&c->fe, 65600, 1, NULL), *got = malloc(70000);

	for (unsigned i = 0; i < rounds; i++) {
		size_t len = frame_size(i);

		memset(p, 0, c->hdr);
		make_frame(p + c->hdr, len, i);
		transmit(c, p, len, i % 5 + 1);
		CHECK_EQ(peer_recv(&c->peer, got, 70000), len);
		CHECK_MEM(got, p + c->hdr, len);
	}
	free(got);
}

void receive_works(struct card *c, unsigned rounds, size_t buffer)
{
	uint8_t *frame = malloc(70000), *got = malloc(140000);

	for (unsigned i = 0; i < rounds; i++) {
		size_t len = frame_size(i);

		for (size_t room = 0; room < len + c->hdr; room += buffer)
			give(c->rx, buffer);
		fe_flush(c->rx);
		make_frame(frame, len, i);
		peer_send(&c->peer, frame, len);
		CHECK_EQ(receive(c, got), len);
		CHECK_MEM(got, frame, len);
	}
	free(frame);
	free(got);
}

uint32_t add(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	if (n & 1)
		sum += (uint32_t)(p[n - 1] << 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

size_t make_ip(uint8_t *p, bool v6, uint8_t proto, size_t n)
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
