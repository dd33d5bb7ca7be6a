/* SPDX-License-Identifier: MIT */
/*
 * Ports of the switch: each is a process with its own guest. Frames to all, learned addresses, offloads on the way, a port that is
 * killed, one that takes nothing, and a program that joins and talks nonsense.
 */
#include "net-guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { RING_BYTES = 4 << 20 };

static const char *directory(void)
{
	static char option[128];

	snprintf(option, sizeof(option), "--switch=%s/switch", fe_tmpdir());
	return option;
}

static void guest_start(
	struct guest *g, unsigned id, const char *option, const struct fe_mode *m, uint64_t mask)
{
	fe_init(&g->fe, m);
	g->id = id;
	g->fe.device_mask = mask;
	fe_spawn(&g->fe, FE_ARGS("net", option, "--log-level=info"));
	guest_up(g);
}

static size_t take(struct guest *g, uint8_t *out, struct virtio_net_hdr_v1 *h)
{
	void *cookie;
	size_t len = fe_wait(g->rx, &cookie), at;
	unsigned n;

	memcpy(h, cookie, HDR);
	at = len - HDR;
	memcpy(out, (uint8_t *)cookie + HDR, at);
	for (n = le16toh(h->num_buffers); n > 1; n--) {
		uint32_t more;

		CHECK(fe_collect(g->rx, &cookie, &more));
		memcpy(out + at, cookie, more);
		at += more;
	}
	return at;
}

static void gets(struct guest *g, unsigned to, unsigned from, size_t len, unsigned seed)
{
	static uint8_t got[70000], want[70000];
	struct virtio_net_hdr_v1 h;

	CHECK_EQ(take(g, got, &h), len);
	make(want, to, from, len, seed);
	CHECK_MEM(got, want, len);
}

static void await_link(struct guest *g, bool up)
{
	int64_t end = fe_now_ms() + fe_limit_ms;

	while (linked(g) != up) {
		CHECK(fe_now_ms() < end);
		fe_back_serve(&g->fe, 10);
	}
}

/* Since it started, the port has once had n others that were ready. */
static void await_peers(struct guest *g, unsigned n)
{
	char text[40];

	snprintf(text, sizeof(text), "switch: %u others are connected", n);
	fe_process_logs(&g->fe.process, text);
}

static void works(const struct fe_mode *m)
{
	static const size_t sizes[] = {60, 14, 1514, 2036, 2037, 9014, 65550};
	const char *option = directory();
	struct guest a, b, c;

	guest_start(&a, 1, option, m, PLAIN);
	CHECK(!linked(&a));
	guest_start(&b, 2, option, m, PLAIN);
	guest_start(&c, 3, option, m, PLAIN);
	await_peers(&a, 2);
	await_peers(&b, 2);
	await_peers(&c, 2);
	CHECK(linked(&a));
	give(&a, 200);
	give(&b, 200);
	give(&c, 20);
	send_one(&a, 0, 60, 1); /* all learn where 1 is */
	gets(&b, 0, 1, 60, 1);
	gets(&c, 0, 1, 60, 1);
	gets_nothing(&a);
	send_one(&b, 1, 100, 2);
	gets(&a, 1, 2, 100, 2);
	gets_nothing(&c);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_one(&a, 2, sizes[i], i);
		gets(&b, 2, 1, sizes[i], i);
		send_one(&b, 1, sizes[i], i + 50);
		gets(&a, 1, 2, sizes[i], i + 50);
	}
	gets_nothing(&c);
	send_one(&c, 9, 80, 3); /* unknown */
	gets(&a, 9, 3, 80, 3);
	gets(&b, 9, 3, 80, 3);
	fe_end(&c.fe);
	send_one(&a, 2, 70, 9);
	gets(&b, 2, 1, 70, 9);
	fe_end(&b.fe);
	await_link(&a, false);
	fe_end(&a.fe);
}

/* Many at once, more than there are buffers, around the ring's end many times: all arrive, in their order. */
static void lossless(const struct fe_mode *m)
{
	enum { ROUNDS = 300, BATCH = 16, LEN = 1514 };
	const char *option = directory();
	struct guest a, b;
	unsigned sent = 0, got = 0;

	guest_start(&a, 1, option, m, PLAIN);
	guest_start(&b, 2, option, m, PLAIN);
	await_peers(&a, 1);
	await_peers(&b, 1);
	give(&a, 1);
	send_one(&b, 0, 60, 0);
	gets(&a, 0, 2, 60, 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t marks[2] = {fe_mark(&a.fe), fe_mark(&b.fe)};

		for (unsigned i = 0; i < BATCH; i++)
			put(&a, 2, LEN, sent++);
		fe_flush(a.tx);
		give(&b, BATCH / 2);
		give(&b, BATCH / 2);
		for (unsigned i = 0; i < BATCH; i++)
			gets(&b, 2, 1, LEN, got++);
		for (unsigned i = 0; i < BATCH; i++)
			fe_wait(a.tx, NULL);
		fe_release(&a.fe, marks[0]);
		fe_release(&b.fe, marks[1]);
	}
	CHECK_EQ(got, sent);
	fe_end(&b.fe);
	fe_end(&a.fe);
}

/* A port that was killed is gone at once; who joins later finds the others. */
static void killed(const struct fe_mode *m)
{
	const char *option = directory();
	struct guest a, b;

	guest_start(&a, 1, option, m, PLAIN);
	give(&a, 20);
	for (unsigned i = 0; i < 3; i++) {
		guest_start(&b, 2, option, m, PLAIN);
		await_link(&a, true);
		await_peers(&b, 1);
		give(&b, 8);
		send_one(&b, 0, 60, i);
		gets(&a, 0, 2, 60, i);
		send_one(&a, 2, 61, i);
		gets(&b, 2, 1, 61, i);
		fe_process_kill(&b.fe.process);
		fe_close(&b.fe);
		await_link(&a, false);
		send_one(&a, 2, 62, i);
	}
	fe_end(&a.fe);
}

/* Who takes nothing holds up the sender for a moment, then loses frames; a third port does not notice for long. */
static void stalled(const struct fe_mode *m)
{
	enum { N = 400, LEN = 60000 };
	const char *option = directory();
	struct guest a, b, c;
	int64_t start;

	guest_start(&a, 1, option, m, PLAIN);
	guest_start(&b, 2, option, m, PLAIN); /* without buffers from now on */
	guest_start(&c, 3, option, m, PLAIN);
	await_peers(&a, 2);
	await_peers(&b, 2);
	await_peers(&c, 2);
	give(&a, 2);
	give(&c, 8);
	send_one(&b, 0, 60, 0);
	gets(&a, 0, 2, 60, 0);
	gets(&c, 0, 2, 60, 0);
	send_one(&c, 0, 60, 0);
	gets(&a, 0, 3, 60, 0);
	start = fe_now_ms();
	for (unsigned i = 0; i < N; i++) {
		size_t mark = fe_mark(&a.fe);

		send_one(&a, 2, LEN, i); /* 24 MB */
		fe_release(&a.fe, mark);
	}
	CHECK(fe_now_ms() - start < fe_limit_ms);
	send_one(&a, 3, 100, 7);
	gets(&c, 3, 1, 100, 7);
	give(&b, 64); /* what waited comes */
	gets(&b, 2, 1, LEN, 0);
	fe_end(&a.fe);
	fe_end(&b.fe);
	fe_end(&c.fe);
}

/* A large segment goes as it is to a guest that takes it, and in pieces to one that does not. */
static void offloads(const struct fe_mode *m)
{
	enum { DATA = 4000, MSS = 1000, HEAD = 54 };
	const uint64_t none = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
			      BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |
			      BIT(VIRTIO_NET_F_GUEST_UFO);
	static const uint8_t ip[] = {8, 0, 0x45, 0, (DATA + 40) >> 8, (DATA + 40) & 255, 0, 0, 0, 0, 64, 6, 0,
		0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18};
	const char *option = directory();
	struct guest a, b, c;
	struct virtio_net_hdr_v1 h = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4};
	struct vring_driver_buf buf;
	uint8_t *p, got[6000];

	guest_start(&a, 1, option, m, PLAIN);
	guest_start(&b, 2, option, m, PLAIN);
	guest_start(&c, 3, option, m, PLAIN & ~none);
	await_peers(&a, 2);
	await_peers(&b, 2);
	await_peers(&c, 2);
	give(&b, 10);
	give(&c, 10);
	send_one(&a, 0, 60, 0);
	gets(&b, 0, 1, 60, 0);
	gets(&c, 0, 1, 60, 0);
	h.gso_size = htole16(MSS);
	h.csum_start = htole16(34);
	h.csum_offset = htole16(16);
	h.hdr_len = htole16(HEAD);
	p = fe_alloc(&a.fe, HDR + HEAD + DATA, 1, NULL);
	memcpy(p, &h, HDR);
	make(p + HDR, 0, 1, HEAD + DATA, 5);
	memset(p + HDR + 14, 0, 40);
	memcpy(p + HDR + 12, ip, sizeof(ip));
	buf = fe_rd(&a.fe, p, HDR + HEAD + DATA);
	CHECK_EQ(fe_transact(a.tx, &buf, 1), 0);
	CHECK_EQ(take(&b, got, &h), HEAD + DATA);
	CHECK_EQ(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	CHECK_EQ(le16toh(h.gso_size), MSS);
	CHECK_MEM(got, p + HDR, HEAD + DATA);
	for (unsigned i = 0; i < DATA / MSS; i++) {
		CHECK_EQ(take(&c, got, &h), HEAD + MSS);
		CHECK_EQ(h.gso_type, 0);
		CHECK_EQ(h.flags, 0);
		CHECK_MEM(got + HEAD, p + HDR + HEAD + i * MSS, MSS);
	}
	fe_end(&a.fe);
	fe_end(&b.fe);
	fe_end(&c.fe);
}

/* A program that joins with a ring of its own, and writes what it likes there. */
struct rogue {
	int fd, ring, wake;
	uint8_t *map;
};

static void rogue_join(struct rogue *r, const char *option)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *dir = strchr(option, '=') + 1;
	DIR *d = opendir(dir);
	struct dirent *e;

	CHECK(d != NULL);
	while ((e = readdir(d)))
		if (strstr(e->d_name, ".port"))
			snprintf(a.sun_path, sizeof(a.sun_path), "%.60s/%.40s", dir, e->d_name);
	closedir(d);
	r->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK_SYS(connect(r->fd, (struct sockaddr *)&a, sizeof(a)));
	r->wake = eventfd(0, EFD_CLOEXEC);
	r->ring = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK_SYS(ftruncate(r->ring, 4096 + RING_BYTES));
	r->map = mmap(NULL, 4096 + RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->ring, 0);
	CHECK(r->map != MAP_FAILED);
}

static void rogue_hello(struct rogue *r, uint32_t magic, unsigned nfds)
{
	uint32_t hello[2] = {magic, RING_BYTES};
	struct iovec v = {hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct msghdr m = {.msg_iov = &v,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(nfds * sizeof(int))};
	int fds[2] = {r->ring, r->wake};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
	memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	CHECK_EQ(sendmsg(r->fd, &m, MSG_NOSIGNAL), sizeof(hello));
}

/* The port's own hello, and in it what wakes it. */
static int rogue_heard(struct rogue *r)
{
	uint32_t hello[2];
	struct iovec v = {hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	int fds[2];

	CHECK_EQ(recvmsg(r->fd, &m, MSG_CMSG_CLOEXEC), sizeof(hello));
	CHECK(CMSG_FIRSTHDR(&m) != NULL);
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fds));
	close(fds[0]);
	return fds[1];
}

static void rogue_ends(struct rogue *r)
{
	char c;

	CHECK_EQ(recv(r->fd, &c, 1, 0), 0); /* the port hung up */
	close(r->fd);
	close(r->ring);
	close(r->wake);
	munmap(r->map, 4096 + RING_BYTES);
}

static void nonsense(const struct fe_mode *m)
{
	static const struct {
		uint64_t head;
		uint32_t len;
	} bad[] = {{8, 60}, {16, 60}, {UINT64_MAX - 15, 60}, {RING_BYTES + 16, 60}, {4096, 70000}, {4096, 3},
		{64, 60}};
	const char *option = directory();
	uint64_t one = 1;
	struct guest a;
	struct rogue r;

	guest_start(&a, 1, option, m, PLAIN);
	give(&a, 20);
	rogue_join(&r, option); /* a ring that could shrink */
	close(rogue_heard(&r));
	rogue_hello(&r, 0x56554d31, 2);
	rogue_ends(&r);
	rogue_join(&r, option);
	CHECK_SYS(fcntl(r.ring, F_ADD_SEALS, F_SEAL_SHRINK));
	close(rogue_heard(&r));
	rogue_hello(&r, 0x56554d31, 1);
	rogue_ends(&r);
	rogue_join(&r, option);
	CHECK_SYS(fcntl(r.ring, F_ADD_SEALS, F_SEAL_SHRINK));
	close(rogue_heard(&r));
	rogue_hello(&r, 1, 2);
	rogue_ends(&r);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		int wake;

		rogue_join(&r, option);
		CHECK_SYS(fcntl(r.ring, F_ADD_SEALS, F_SEAL_SHRINK));
		wake = rogue_heard(&r);
		rogue_hello(&r, 0x56554d31, 2);
		await_link(&a, true);
		memcpy(r.map + 4096, &bad[i].len, 4);
		__atomic_store_n((uint64_t *)r.map, bad[i].head, __ATOMIC_SEQ_CST);
		CHECK_EQ(write(wake, &one, sizeof(one)), 8);
		close(wake);
		rogue_ends(&r);
		await_link(&a, false);
	}
	gets_nothing(&a);
	fe_end(&a.fe);
}

int main(void)
{
	fe_each_layout("three ports", works);
	fe_each_layout("nothing is lost", lossless);
	fe_each_layout("ports that are killed", killed);
	fe_case("a port that takes nothing", stalled, NULL);
	fe_case("offloads on the way", offloads, NULL);
	fe_case("a port that talks nonsense", nonsense, NULL);
	return tap_done();
}
