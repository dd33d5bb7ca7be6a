/* SPDX-License-Identifier: MIT */
/* See net-guest.h. */
#include "net-guest.h"

#include <string.h>

void guest_up(struct guest *g)
{
	fe_handshake(&g->fe);
	fe_memory_default(&g->fe);
	g->rx = fe_queue_up(&g->fe, 0, RING);
	g->tx = fe_queue_up(&g->fe, 1, RING);
}

void give(struct guest *g, unsigned n)
{
	while (n--) {
		uint8_t *p = fe_alloc(&g->fe, BUFFER, 1, NULL);
		struct vring_driver_buf b = fe_wr(&g->fe, p, BUFFER);

		CHECK(fe_submit(g->rx, &b, 1, p) >= 0);
	}
	fe_flush(g->rx);
}

size_t make(uint8_t *p, unsigned to, unsigned from, size_t len, unsigned seed)
{
	static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	const uint8_t d[6] = {0x52, 0x54, 0, 0, 0, (uint8_t)to}, s[6] = {0x52, 0x54, 0, 0, 0, (uint8_t)from};

	memcpy(p, to ? d : all, 6);
	memcpy(p + 6, s, 6);
	p[12] = 0x88;
	p[13] = 0xb5;
	for (size_t i = 14; i < len; i++)
		p[i] = (uint8_t)(seed + i * 3 + (i >> 8));
	return len;
}

void put(struct guest *g, unsigned to, size_t len, unsigned seed)
{
	uint8_t *p = fe_alloc(&g->fe, HDR + len, 1, NULL);
	uint32_t cut = seed % 3 == 2 ? HDR + 5 : (uint32_t)(HDR + len);
	struct vring_driver_buf b[2] = {fe_rd(&g->fe, p, cut)};

	make(p + HDR, to, g->id, len, seed);
	if (cut < HDR + len)
		b[1] = fe_rd(&g->fe, p + cut, (uint32_t)(HDR + len - cut));
	CHECK(fe_submit(g->tx, b, cut < HDR + len ? 2 : 1, NULL) >= 0);
}

void send_one(struct guest *g, unsigned to, size_t len, unsigned seed)
{
	put(g, to, len, seed);
	fe_flush(g->tx);
	CHECK_EQ(fe_wait(g->tx, NULL), 0);
}

void gets_nothing(struct guest *g)
{
	uint32_t len;

	CHECK(!fe_wait_ms(g->rx, NULL, &len, 30));
}

bool linked(struct guest *g)
{
	uint16_t status;

	fe_config_get(&g->fe, 6, &status, 2);
	return le16toh(status) & 1;
}
