/* SPDX-License-Identifier: MIT */
/*
 * The two directions of a queue pair, against each other: the host end gives every frame back to the card. Frames of all kinds are
 * sent many at a time, to receive buffers of which there are never enough, and those that are to arrive do, in order and whole.
 */
#include <string.h>

#include "net-host.h"
#include "net-offload.h"
#include "rig.h"

enum { CHUNK = 4096, RING = 128, ROUNDS = 300, MAX_DATA = 3000, MARGIN = 20 };

enum kind {
	SMALL,	/* in one piece with its header */
	APART,	/* header and frame in a buffer each */
	LARGE,	/* in several pieces, longer than some receive buffers */
	SHORT,	/* no frame at all */
	OTHERS, /* for another card */
	SUM,	/* its checksum is left to others */
	KINDS,
};

struct frame {
	enum kind kind;
	unsigned seed;
	size_t len;
};

static struct {
	struct rig rx, tx;
	struct net net;
	struct net_host host;
	struct net_pair pair;
	uint32_t buffer[RING]; /* lengths of the receive buffers */
	bool given[RING], sums;
	bool choosy; /* the host end has not taken all, and not for lack of buffers */
	struct frame expected[RING];
	unsigned nexpected, sent;
} t;

/* The host end: takes some of the frames at a time. */
static unsigned send_back(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	(void)lane;
	if (!rig_random(8)) {
		n = rig_random(n);
		t.choosy = true;
	}
	return net_deliver(h, p, n);
}

static void room(struct net_host *h)
{
	net_tx_room(h, 0);
}

static const struct net_host_ops ops = {.send = send_back, .room = room};

void net_tee(struct net *net, const struct net_packet *p, unsigned n)
{
	(void)net;
	(void)p;
	(void)n;
}

static void rx_ready(struct rig *r)
{
	(void)r;
	net_rx_ready(&t.pair);
}

static void tx_ready(struct rig *r)
{
	(void)r;
	net_tx_ready(&t.pair);
}

static void begin(const struct rig_mode *m, bool mergeable)
{
	struct rig_mode mode = *m;

	memset(&t, 0, sizeof(t));
	mode.num = RING;
	mode.chunk = CHUNK;
	mode.features = BIT(FEATURE_VERSION_1);
	rig_open(&t.rx, &mode);
	rig_open(&t.tx, &mode);
	t.rx.device = rx_ready;
	t.tx.device = tx_ready;
	t.tx.b.features = UINT64_MAX;
	t.net = (struct net){
		.b = &t.tx.b, .host = &t.host, .pairs = &t.pair, .npairs = 1, .active = 1, .link = true};
	t.host = (struct net_host){.ops = &ops, .net = &t.net, .lanes = 1, .takes = UINT64_MAX};
	CHECK_EQ(net_pair_init(&t.pair, &t.net, 0), 0);
	t.pair.hdr_len = NET_HDR;
	t.pair.mergeable = mergeable;
	net_filter_reset(&t.net.filter, (const uint8_t[]){2, 0, 0, 0, 0, 1}, false);
	t.net.filter.promisc = false;
	net_rx_start(&t.pair, t.rx.q);
	net_tx_start(&t.pair, t.tx.q);
	rig_turn(&t.rx);
	rig_turn(&t.tx);
}

static void end(void)
{
	net_tx_stop(&t.pair);
	net_rx_stop(&t.pair);
	rig_close(&t.rx);
	rig_close(&t.tx);
	net_pair_free(&t.pair);
}

static uint64_t chunk(const struct rig *r, unsigned i)
{
	return RIG_GPA + r->ring_end + (uint64_t)i * CHUNK;
}

static void make(uint8_t *p, const struct frame *f)
{
	const uint8_t head[14] = {2, 0, 0, 0, 0, f->kind == OTHERS ? 2 : 1, 2, 0, 0, 0, 0, 3, 0x88, 0xb5};

	for (size_t i = 0; i < f->len; i++)
		p[i] = (uint8_t)(f->seed * 7 + i * 3 + (i >> 8));
	memcpy(p, head, MIN(sizeof(head), f->len));
}

/* The driver's side of sending */

static void put(struct frame *f, unsigned i)
{
	struct virtio_net_hdr_v1 hdr = {0};
	uint64_t at = chunk(&t.tx, i);
	struct vring_driver_buf b[4] = {{.addr = at, .len = (uint32_t)(NET_HDR + f->len)}};
	unsigned n = 1, k;

	if (f->kind == SUM) {
		hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		hdr.csum_start = htole16(34);
		hdr.csum_offset = htole16(6);
	}
	memcpy(rig_ram(&t.tx, at), &hdr, NET_HDR);
	make(rig_ram(&t.tx, at + NET_HDR), f);
	if (f->kind == APART || f->kind == LARGE) {
		n = f->kind == APART ? 2 : 4;
		b[0].len = f->kind == APART ? NET_HDR : 7;
		for (k = 1; k < n; k++) {
			b[k] = (struct vring_driver_buf){.addr = b[k - 1].addr + b[k - 1].len, .len = 100};
			if (k == n - 1)
				b[k].len = (uint32_t)(at + NET_HDR + f->len - b[k].addr);
		}
	}
	CHECK(vring_driver_add(&t.tx.d, b, n, NULL) >= 0);
	t.sent++;
}

static void send_some(void)
{
	unsigned i, n = 1 + rig_random(30);

	for (i = 0; i < n; i++) {
		struct frame f = {.kind = rig_random(3) ? SMALL : rig_random(KINDS), .seed = t.tx.next_tag++};

		f.len = f.kind == SHORT	  ? rig_random(NET_MIN_FRAME)
			: f.kind == LARGE ? 400 + rig_random(MAX_DATA - 400)
					  : 60 + rig_random(160);
		put(&f, i);
		if (f.kind != SHORT && f.kind != OTHERS)
			t.expected[t.nexpected++] = f;
	}
	rig_publish(&t.tx);
	rig_turn(&t.tx);
}

/* And of receiving */

static void give_some(unsigned n)
{
	unsigned i;

	for (i = 0; i < RING && n; i++) {
		uint32_t len = t.pair.mergeable ? 128 + rig_random(1500) : NET_HDR + MAX_DATA;
		struct vring_driver_buf b[2] = {{.addr = chunk(&t.rx, i), .len = len, .wr = true},
			{.addr = chunk(&t.rx, i) + 100, .wr = true}};
		bool two = !rig_random(5);

		if (t.given[i] || t.rx.d.nfree < 2)
			continue;
		if (two) {
			b[0].len = 100;
			b[1].len = len - 100;
		}
		memset(rig_ram(&t.rx, chunk(&t.rx, i)), 0xee, CHUNK);
		t.buffer[i] = len;
		t.given[i] = true;
		CHECK(vring_driver_add(&t.rx.d, b, 1 + two, (void *)(uintptr_t)(i + 1)) >= 0);
		n--;
	}
	rig_publish(&t.rx);
	rig_turn(&t.rx);
}

/* The next buffer's bytes, to out; nothing is written behind them. 0: there is none. */
static uint32_t take(uint8_t *out)
{
	const uint8_t *p;
	void *cookie;
	uint32_t len;
	unsigned i;

	if (vring_driver_get(&t.rx.d, &cookie, &len) != 1)
		return 0;
	i = (unsigned)(uintptr_t)cookie - 1;
	p = rig_ram(&t.rx, chunk(&t.rx, i));
	CHECK(t.given[i] && len && len <= t.buffer[i]);
	CHECK_EQ(p[len], 0xee);
	t.given[i] = false;
	memcpy(out, p, len);
	return len;
}

static void check(const struct frame *f, const uint8_t *got, size_t len)
{
	uint8_t want[MAX_DATA];
	struct virtio_net_hdr_v1 h;

	memcpy(&h, got, NET_HDR);
	got += NET_HDR;
	make(want, f);
	CHECK_EQ(len, NET_HDR + f->len);
	CHECK_EQ(h.flags, f->kind == SUM && t.sums ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
	CHECK_EQ(h.gso_type, 0);
	if (f->kind == SUM && !t.sums) {
		net_checksum(want, f->len, 34, 6);
		CHECK(memcmp(want + 40, got + 40, 2) == 0);
	}
	CHECK_MEM(got, want, f->len);
}

static void receive_some(void)
{
	static uint8_t got[NET_HDR + MAX_DATA + MARGIN * 2048];
	struct virtio_net_hdr_v1 h;
	unsigned n = 0, left;
	size_t len;

	while ((len = take(got))) {
		memcpy(&h, got, NET_HDR);
		CHECK(n < t.nexpected);
		left = le16toh(h.num_buffers);
		CHECK(left >= 1 && (t.pair.mergeable || left == 1));
		for (; left > 1; left--) {
			uint32_t more = take(got + len);

			CHECK(more && len + more <= NET_HDR + MAX_DATA);
			len += more;
		}
		check(&t.expected[n++], got, len);
	}
	memmove(t.expected, t.expected + n, (t.nexpected - n) * sizeof(t.expected[0]));
	t.nexpected -= n;
}

static void sent_all(void)
{
	while (vring_driver_get(&t.tx.d, NULL, NULL) == 1)
		t.sent--;
}

static void traffic(const struct rig_mode *m, bool mergeable, bool sums)
{
	begin(m, mergeable);
	t.sums = sums;
	t.pair.offloads = sums ? BIT(VIRTIO_NET_F_GUEST_CSUM) : 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		give_some(rig_random(20));
		send_some();
		for (unsigned turns = 0; t.nexpected || t.sent; turns++) {
			CHECK(turns < 1000);
			receive_some();
			give_some(1 + rig_random(20));
			if (t.choosy)
				net_tx_room(&t.host, 0);
			t.choosy = false;
			rig_turn(&t.tx);
			sent_all();
		}
	}
	CHECK_EQ(t.pair.count.rx_dropped, 0);
	CHECK(t.pair.count.tx_dropped > ROUNDS / 10 && t.pair.count.rx_filtered > ROUNDS / 10);
	CHECK((t.pair.count.segmented > ROUNDS / 10) == !sums);
	CHECK(!t.rx.q->broken && !t.tx.q->broken);
	end();
}

static void mergeable(const struct rig_mode *m)
{
	traffic(m, true, true);
}

static void one_buffer(const struct rig_mode *m)
{
	traffic(m, false, true);
}

static void in_software(const struct rig_mode *m)
{
	traffic(m, true, false);
}

int main(void)
{
	static const struct rig_case cases[] = {
		{"frames in mergeable buffers", mergeable},
		{"frames in one buffer each", one_buffer},
		{"checksums that the guest does not want", in_software},
	};

	rig_cases(cases, ARRAY_SIZE(cases));
	return tap_done();
}
