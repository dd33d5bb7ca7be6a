/* SPDX-License-Identifier: MIT */
/*
 * The CAIF modem, with a front-end that plays Linux's driver: its receive ring is reversed, so here we are the device of that ring,
 * with the code of this test alone. Links up and down, loops, hosts, flow control, hostile frames and rings, stop and reconnect.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"
#include "le.h"

enum { TX, RX };
enum { RING = 16, BUF = 2048, HEAD = 32, TAIL = 32, MAX = 1400, PAGE = 4096, LOG_SIZE = 256 << 10 };
#define CAIF "caif", "--headroom=32", "--tailroom=32"
enum { VEI = 1, VIDEO, DEBUG, DATAGRAM, RFM, UTIL };

struct modem {
	struct fe fe;
	struct fe_queue *tx, *rx;
	uint8_t *desc, *avail, *used, *pool, *out;
	uint16_t last; /* available entries that we have taken */
};

struct frame {
	unsigned link;
	size_t n;
	uint8_t data[BUF];
};

/* The reversed ring */

static void announce(struct modem *g)
{
	for (unsigned i = 0; i < RING; i++) {
		le64_store(g->desc + i * 16, fe_gpa(&g->fe, g->pool + i * BUF));
		le64_store(g->desc + i * 16 + 8, BUF);
	}
}

static void rx_make(struct modem *g)
{
	struct fe *fe = &g->fe;

	g->rx = fe_queue_make(fe, RX, RING, FE_FRESH);
	g->desc = fe_alloc(fe, RING * 16, PAGE, &g->rx->desc_gpa);
	g->avail = fe_alloc(fe, 6 + RING * 2, PAGE, &g->rx->driver_gpa);
	g->used = fe_alloc(fe, 6 + RING * 8, PAGE, &g->rx->device_gpa);
	g->pool = fe_alloc(fe, RING * BUF, PAGE, NULL);
	g->last = 0;
	announce(g);
}

static void start_queues(struct modem *g)
{
	rx_make(g);
	fe_queue_send(g->rx, 0);
	fe_queue_enable(g->rx, true);
	g->tx = fe_queue_up(&g->fe, TX, RING);
	g->out = fe_alloc(&g->fe, 2 * BUF, 1, NULL);
}

static void begin(struct modem *g, const struct fe_mode *m, const char *const *args)
{
	fe_start(&g->fe, m, args);
	CHECK_EQ(g->fe.offered & 0xffffff, 0);
	start_queues(g);
}

static uint16_t load(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)(void *)p, v, __ATOMIC_RELEASE);
}

/* Gives buffer `id` back, and kicks. */
static void give_back(struct modem *g, uint32_t id)
{
	uint16_t at = load(g->used + 2);
	uint8_t *e = g->used + 4 + at % RING * 8;

	le32_store(e, id);
	le32_store(e + 4, 0);
	store(g->used + 2, (uint16_t)(at + 1));
	fe_kick(g->rx);
}

/* Whether a frame is there within so many ms. */
static bool wait_frame(struct modem *g, int ms)
{
	store(g->used + 4 + RING * 8, g->last); /* avail_event */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (load(g->avail + 2) == g->last) {
		uint64_t n;

		if (!fe_poll(g->rx->call, POLLIN, ms))
			return load(g->avail + 2) != g->last;
		CHECK_EQ(read(g->rx->call, &n, sizeof(n)), sizeof(n));
	}
	return true;
}

static uint16_t take(struct modem *g, struct frame *f)
{
	const uint8_t *d, *p;
	uint16_t id;
	uint32_t len;

	CHECK(wait_frame(g, fe_limit_ms));
	id = load(g->avail + 4 + g->last % RING * 2);
	CHECK(id < RING);
	g->last++;
	d = g->desc + id * 16;
	len = le32_load(d + 8);
	CHECK_EQ(le32_load(d + 12), 0); /* no flags: one descriptor, for us to read */
	CHECK(len > HEAD + TAIL + 5 && len <= BUF);
	p = fe_ptr(&g->fe, le64_load(d));
	f->n = le16_load(p + HEAD);
	CHECK_EQ(f->n, len - HEAD - TAIL - 2);
	f->link = p[HEAD + 2];
	f->n -= 3;
	memcpy(f->data, p + HEAD + 3, f->n);
	return id;
}

static void next(struct modem *g, struct frame *f)
{
	give_back(g, take(g, f));
}

static void expect(struct modem *g, unsigned link, const void *data, size_t n)
{
	struct frame f;

	next(g, &f);
	CHECK_EQ(f.link, link);
	CHECK_EQ(f.n, n);
	CHECK_MEM(f.data, data, n);
}

/* To the modem */

static void say_raw(struct modem *g, size_t size)
{
	struct vring_driver_buf b = fe_rd(&g->fe, g->out, (uint32_t)size);

	CHECK_EQ(fe_transact(g->tx, &b, 1), 0);
}

static void say(struct modem *g, unsigned link, const void *data, size_t n)
{
	memset(g->out, 0xaa, HEAD);
	le16_store(g->out + HEAD, (uint16_t)(n + 3));
	g->out[HEAD + 2] = (uint8_t)link;
	if (n)
		memcpy(g->out + HEAD + 3, data, n);
	say_raw(g, HEAD + 5 + n + TAIL);
}

/* Sets a link up; its number, or 0: refused. */
static unsigned link_up(struct modem *g, unsigned service, unsigned chtype, const void *param, size_t n)
{
	uint8_t p[64] = {0, (uint8_t)(chtype << 4 | service), 1 << 3, 0};
	struct frame f;

	if (n)
		memcpy(p + 4, param, n);
	say(g, 0, p, 4 + n);
	next(g, &f);
	CHECK_EQ(f.link, 0);
	CHECK_MEM(f.data + 1, p + 1, 3 + n);
	if (f.data[0] & 0x10) {
		CHECK_EQ(f.data[0], 0x30);
		CHECK_EQ(f.n, 4 + n);
		return 0;
	}
	CHECK_EQ(f.data[0], 0x20);
	CHECK_EQ(f.n, 4 + n + (service == UTIL ? 2 : 1));
	CHECK(f.data[4 + n]);
	return f.data[4 + n];
}

static void link_down(struct modem *g, unsigned link)
{
	uint8_t p[2] = {1, (uint8_t)link}, want[2] = {0x21, (uint8_t)link};

	say(g, 0, p, 2);
	expect(g, 0, want, 2);
}

static void loops(const struct fe_mode *m)
{
	uint8_t data[4 + MAX], conn[4] = {7}, conn2[4] = {8};
	struct modem g;
	unsigned a, b;

	begin(&g, m, FE_ARGS(CAIF, "--channel=datagram:8,loop"));
	say(&g, 0, (uint8_t[]){3, 2}, 2); /* enumerate */
	expect(&g, 0, (uint8_t[]){0x23, 2}, 2);
	a = link_up(&g, DATAGRAM, 3, conn, 4);
	b = link_up(&g, DATAGRAM, 0, conn2, 4);
	CHECK(a && b && a != b);
	CHECK_EQ(link_up(&g, DATAGRAM, 0, conn2, 4), 0); /* taken */
	CHECK_EQ(link_up(&g, DATAGRAM, 0, conn, 4), 0);	 /* not there */
	for (unsigned i = 0; i < 100; i++) {
		size_t n = 4 + i * 13 % MAX;

		for (unsigned k = 0; k < n; k++)
			data[k] = (uint8_t)(i + k * 3);
		data[0] = 8;
		say(&g, i % 2 ? a : b, data, n);
		expect(&g, i % 2 ? a : b, data, n);
	}
	link_down(&g, b);
	CHECK_EQ(link_up(&g, DATAGRAM, 0, conn2, 4), b);
	fe_end(&g.fe);
}

/* Hosts */

static int host_connect(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static const char *path_of(const char *fmt, const char *dir)
{
	static char text[8][256];
	static unsigned n;
	char *p = text[n++ % 8];
	size_t head = strcspn(fmt, "@");

	snprintf(p, sizeof(text[0]), "%.*s%s%s", (int)head, fmt, dir, fmt + head + 1);
	return p;
}

static void host_expect(int fd, const void *want, size_t n)
{
	uint8_t got[BUF];

	for (size_t at = 0; at < n;) {
		ssize_t r;

		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		r = read(fd, got, n - at);
		CHECK(r > 0);
		CHECK_MEM(got, (const uint8_t *)want + at, (size_t)r);
		at += (size_t)r;
	}
}

static void hosts(const struct fe_mode *m)
{
	uint8_t conn[4] = {9}, util[21] = {0}, util2[21] = {0};
	const char *dir = fe_tmpdir();
	unsigned at, dgram, debug, utility;
	int fd[4];
	struct modem g;

	begin(&g, m,
		FE_ARGS(CAIF, path_of("--channel=at,host=unix:@/at,server", dir),
			path_of("--channel=datagram:9,host=unix:@/dgram,server", dir),
			path_of("--channel=debug,host=unix:@/debug,server", dir),
			path_of("--channel=utility:psock,host=unix:@/util,server", dir)));
	memcpy(util + 4, "psock", 5);
	memcpy(util2 + 4, "other", 5);
	fd[0] = host_connect(path_of("@/at", dir), SOCK_STREAM);
	fd[1] = host_connect(path_of("@/dgram", dir), SOCK_SEQPACKET);
	fd[2] = host_connect(path_of("@/debug", dir), SOCK_STREAM);
	fd[3] = host_connect(path_of("@/util", dir), SOCK_STREAM);
	CHECK_EQ(write(fd[0], "early", 5), 5); /* waits for a link */
	at = link_up(&g, VEI, 2, NULL, 0);
	expect(&g, at, "\0early", 6);
	dgram = link_up(&g, DATAGRAM, 0, conn, 4);
	debug = link_up(&g, DEBUG, 0, NULL, 0);
	CHECK_EQ(link_up(&g, UTIL, 0, util2, 21), 0);
	utility = link_up(&g, UTIL, 0, util, 21);
	CHECK(at && dgram && debug && utility);
	say(&g, at, "\0AT\r", 4);
	host_expect(fd[0], "AT\r", 3);
	say(&g, dgram, "\10\0\0\0one", 7);
	say(&g, dgram, "\10\0\0\0two", 7);
	host_expect(fd[1], "one", 3);
	host_expect(fd[1], "two", 3);
	say(&g, debug, "\201raw", 4); /* no type here */
	host_expect(fd[2], "\201raw", 4);
	say(&g, utility, "\0u", 2);
	host_expect(fd[3], "u", 1);
	CHECK_EQ(write(fd[1], "datagram", 8), 8);
	expect(&g, dgram, "\10\0\0\0datagram", 12);
	CHECK_EQ(write(fd[2], "trace", 5), 5);
	expect(&g, debug, "trace", 5);
	/* the guest stops us on one link, and the other goes on */
	say(&g, at, "\201", 1);
	CHECK_EQ(write(fd[0], "held", 4), 4);
	CHECK_EQ(write(fd[3], "go", 2), 2);
	expect(&g, utility, "\0go", 3);
	CHECK(!wait_frame(&g, 30));
	say(&g, at, "\200", 1);
	expect(&g, at, "\0held", 5);
	fe_end(&g.fe);
}

/* A host that takes nothing: the guest is told to stop, and to go on; nothing is lost or out of order. */
static void flow(const struct fe_mode *m)
{
	enum { FRAMES = 200 };
	const char *dir = fe_tmpdir();
	uint8_t data[1 + MAX] = {0};
	struct modem g;
	unsigned at;
	int fd;

	begin(&g, m, FE_ARGS(CAIF, path_of("--channel=at,host=unix:@/at,server", dir)));
	at = link_up(&g, VEI, 2, NULL, 0);
	for (unsigned i = 0; i < FRAMES; i++) {
		memset(data + 1, (int)i, MAX);
		say(&g, at, data, sizeof(data));
		if (i == 0)
			expect(&g, at, "\201", 1);
	}
	CHECK(!wait_frame(&g, 10));
	fd = host_connect(path_of("@/at", dir), SOCK_STREAM);
	for (unsigned i = 0; i < FRAMES; i++) {
		memset(data + 1, (int)i, MAX);
		host_expect(fd, data + 1, MAX);
	}
	expect(&g, at, "\200", 1);
	fe_end(&g.fe);
}

/* A program that goes takes its utility link down, and what waited for it is dropped. */
static void hangup(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	uint8_t name[21] = {0}, data[1 + MAX] = {0};
	struct modem g;
	unsigned link;
	int fd;

	begin(&g, m, FE_ARGS(CAIF, path_of("--channel=utility,hangup,host=unix:@/util,server", dir)));
	fd = host_connect(path_of("@/util", dir), SOCK_STREAM);
	link = link_up(&g, UTIL, 0, name, sizeof(name));
	CHECK_EQ(write(fd, "there", 5), 5);
	expect(&g, link, "\0there", 6);
	for (unsigned i = 0; i < 400; i++)
		say(&g, link, data, sizeof(data));
	expect(&g, link, "\201", 1);
	close(fd);
	expect(&g, link, "\202", 1);
	say(&g, link, "\0late", 5);
	CHECK_EQ(link_up(&g, UTIL, 0, name, sizeof(name)), 0); /* the old one is not down yet */
	link_down(&g, link);
	fd = host_connect(path_of("@/util", dir), SOCK_STREAM);
	link = link_up(&g, UTIL, 0, name, sizeof(name));
	CHECK_EQ(write(fd, "there", 5), 5);
	expect(&g, link, "\0there", 6);
	say(&g, link, "\0new", 4);
	host_expect(fd, "new", 3);
	fe_end(&g.fe);
}

/* Messages of the RFM service in segments: to the host they are bytes. */
static void segments(const struct fe_mode *m)
{
	static const uint8_t volume[] = "\1\0\0\0disk", other[] = "\1\0\0\0disc", open_end[] = "\1\0\0\0x";
	const char *dir = fe_tmpdir();
	struct modem g;
	unsigned link;
	int fd;

	begin(&g, m, FE_ARGS(CAIF, path_of("--channel=rfm:disk,host=unix:@/rfm,server", dir)));
	fd = host_connect(path_of("@/rfm", dir), SOCK_STREAM);
	CHECK_EQ(link_up(&g, RFM, 0, other, sizeof(other)), 0);
	CHECK_EQ(link_up(&g, RFM, 0, open_end, 5), 0); /* a name without an end */
	CHECK_EQ(link_up(&g, RFM, 0, open_end, 4), 0);
	link = link_up(&g, RFM, 0, volume, sizeof(volume));
	CHECK(link);
	say(&g, link, "\1abcdefone", 10);
	say(&g, link, "\1abcdeftwo", 10);
	say(&g, link, "\0abcdefthree", 12);
	say(&g, link, "\0whole message", 14);
	host_expect(fd, "abcdefonetwothreewhole message", 30);
	say(&g, link, "\1abcdef", 7);
	say(&g, link, "\0short", 6);
	say(&g, link, "\0more", 5);
	host_expect(fd, "abcdefmore", 10);
	CHECK_EQ(write(fd, "answer", 6), 6);
	expect(&g, link, "\0answer", 7);
	fe_end(&g.fe);
}

/* All receive buffers are out: frames of the guest wait in its ring, until some come back. */
static void full(const struct fe_mode *m)
{
	struct vring_driver_buf b;
	struct frame f[RING];
	uint16_t id[RING];
	struct modem g;
	unsigned link;

	begin(&g, m, FE_ARGS(CAIF));
	link = link_up(&g, DATAGRAM, 3, "\1\0\0\0", 4);
	for (unsigned i = 0; i < RING; i++) {
		say(&g, link, (uint8_t[]){8, 0, 0, 0, (uint8_t)i}, 5);
		id[i] = take(&g, &f[i]);
		CHECK_EQ(f[i].data[4], i);
	}
	g.out[HEAD + 7] = 99;
	b = fe_rd(&g.fe, g.out, HEAD + 10 + TAIL);
	fe_submit(g.tx, &b, 1, NULL);
	fe_flush(g.tx);
	CHECK(!fe_wait_ms(g.tx, NULL, &(uint32_t){0}, 30));
	give_back(&g, id[3]);
	fe_wait(g.tx, NULL);
	CHECK_EQ(take(&g, f), id[3]);
	CHECK_EQ(f[0].data[4], 99);
	fe_end(&g.fe);
}

static void frames(const struct fe_mode *m)
{
	static const uint8_t control[][8] = {
		{1}, {1, 0}, {1, 77}, {0}, {0, 4, 0, 0, 1, 2}, {0, 2, 0, 0, 1}, {0, 5, 0, 0}, {0, 9, 0, 0}};
	static const uint8_t zeros[1000];
	struct modem g;
	struct frame f;
	unsigned link;

	begin(&g, m, FE_ARGS(CAIF, "--channel=at,host=null", "--channel=utility,host=null"));
	link = link_up(&g, VEI, 2, NULL, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(control); i++) {
		say(&g, 0, control[i], i == 0 || i == 3 ? 1 : i < 3 ? 2 : 6);
		next(&g, &f);
		CHECK_EQ(f.data[0], control[i][0] | 0x30);
	}
	memset(g.out, 0xff, 2 * BUF);
	say_raw(&g, 0);
	say_raw(&g, 5);
	say_raw(&g, HEAD);
	say_raw(&g, HEAD + 2);
	say_raw(&g, HEAD + 3);
	say_raw(&g, BUF); /* length 65535 */
	for (uint16_t len = 0; len < 3; len++) {
		le16_store(g.out + HEAD, len);
		g.out[HEAD + 2] = 0;
		say_raw(&g, BUF);
	}
	say(&g, 0, zeros, 1000); /* control frames are short */
	say(&g, 0, "\17", 1);	 /* no such command */
	say(&g, 0, "\40", 1);	 /* an answer */
	say(&g, 200, "x", 1);
	say(&g, link, NULL, 0);
	say(&g, link, "\202\1", 2);
	say(&g, link, "\377", 1);
	{
		uint8_t p[25] = {0, UTIL};

		p[24] = 200; /* parameters that are not there */
		say(&g, 0, p, sizeof(p));
		next(&g, &f);
		CHECK_EQ(f.data[0], 0x30);
	}
	CHECK(!wait_frame(&g, 10));
	link_down(&g, link);
	CHECK_EQ(link_up(&g, VEI, 2, NULL, 0), link);
	fe_end(&g.fe);
}

/* Rings that no sane device makes: the queue stops, the process does not. */
static void rings(const struct fe_mode *m)
{
	struct modem g;
	struct frame f;
	uint16_t id;

	begin(&g, m, FE_ARGS(CAIF));
	say(&g, 0, "\5", 1);
	id = take(&g, &f);
	give_back(&g, (uint32_t)id + 70000);
	fe_queue_fails(g.rx);
	fe_queue_stop(g.rx);
	rx_make(&g);
	fe_queue_send(g.rx, 0);
	fe_queue_enable(g.rx, true);
	say(&g, 0, "\5", 1);
	id = take(&g, &f);
	give_back(&g, id);
	give_back(&g, id); /* twice */
	fe_queue_fails(g.rx);
	fe_queue_stop(g.rx);
	rx_make(&g);
	for (unsigned i = 0; i < RING; i++) /* buffers that are nowhere */
		le64_store(g.desc + i * 16, UINT64_C(0x7fffffffff000));
	fe_queue_send(g.rx, 0);
	fe_queue_enable(g.rx, true);
	fe_queue_fails(g.rx);
	fe_queue_stop(g.rx);
	rx_make(&g);
	fe_queue_send(g.rx, 0);
	fe_queue_enable(g.rx, true);
	say(&g, 0, "\5", 1);
	expect(&g, 0, "\45", 1);
	fe_end(&g.fe);
}

/* A stop with frames that the guest has not given back: the ring goes on. A reconnect: all begins anew. */
static void stops(const struct fe_mode *m)
{
	struct frame f;
	uint16_t id[4];
	struct modem g;
	unsigned link;

	begin(&g, m, FE_ARGS(CAIF));
	link = link_up(&g, DATAGRAM, 3, "\1\0\0\0", 4);
	for (unsigned i = 0; i < 4; i++)
		say(&g, link, (uint8_t[]){8, 0, 0, 0, (uint8_t)i}, 5);
	id[0] = take(&g, &f);
	fe_queue_send(g.rx, fe_queue_stop(g.rx));
	fe_queue_enable(g.rx, true);
	fe_queue_send(g.tx, fe_queue_stop(g.tx));
	fe_queue_enable(g.tx, true);
	for (unsigned i = 1; i < 4; i++) {
		id[i] = take(&g, &f);
		CHECK_EQ(f.data[4], i);
	}
	for (unsigned i = 0; i < 4; i++)
		give_back(&g, id[i]);
	for (unsigned i = 0; i < 3 * RING; i++) {
		say(&g, link, (uint8_t[]){8, 0, 0, 0, (uint8_t)i}, 5);
		expect(&g, link, (uint8_t[]){8, 0, 0, 0, (uint8_t)i}, 5);
	}
	fe_end(&g.fe);
}

static void reconnect(const struct fe_mode *m)
{
	struct modem g;
	const char *path = path_of("@/vhost", fe_tmpdir());

	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, path, FE_ARGS(CAIF, "--channel=at,host=null"));
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process p;
		struct frame f;

		fe_handshake(&g.fe);
		fe_memory_default(&g.fe);
		start_queues(&g);
		CHECK_EQ(link_up(&g, VEI, 2, NULL, 0), 1); /* not taken by the guest that went */
		say(&g, 0, "\5", 1);
		take(&g, &f); /* and is never given back */
		p = g.fe.process;
		fe_close(&g.fe);
		fe_init(&g.fe, m);
		g.fe.process = p;
		fe_connect(&g.fe, path);
	}
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);
	fe_close(&g.fe);
}

/* What the modem writes is marked: the buffer that it filled, the table and its side of the ring; nothing else. */
static void dirty_log(const struct fe_mode *m)
{
	uint8_t data[104] = {9}, conn[4] = {9};
	struct modem g;
	unsigned link;

	begin(&g, m, FE_ARGS(CAIF, "--channel=datagram:9,loop"));
	link = link_up(&g, DATAGRAM, 0, conn, 4);
	fe_log_set(&g.fe, LOG_SIZE, 0);
	fe_set_features(&g.fe, g.fe.features | BIT(FE_F_LOG_ALL));
	g.rx->log = true;
	fe_queue_send_addr(g.rx);
	for (unsigned round = 0; round < 2 * RING; round++) {
		struct frame f;
		uint64_t at;
		uint16_t id;

		fe_barrier(&g.fe);
		fe_log_clear(&g.fe);
		say(&g, link, data, sizeof(data));
		id = take(&g, &f);
		at = le64_load(g.desc + id * 16);
		CHECK_MEM(f.data, data, sizeof(data));
		fe_barrier(&g.fe);
		for (unsigned i = 0; i < RING; i++)
			CHECK_EQ(fe_log_dirty(&g.fe, fe_gpa(&g.fe, g.pool + i * BUF)),
				fe_gpa(&g.fe, g.pool + i * BUF) / PAGE == at / PAGE);
		CHECK(fe_log_dirty(&g.fe, g.rx->desc_gpa));
		CHECK(fe_log_dirty(&g.fe, g.rx->driver_gpa));
		CHECK_EQ(fe_log_count(&g.fe), 3);
		give_back(&g, id);
	}
	fe_end(&g.fe);
}

static void refused(void *row)
{
	const char *const *r = row;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("caif", r[0], "--socket-path=x"));
	fe_process_logs(&p, r[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--channel=host=null", "the first item is"},
		{"--channel=at", "host= is missing"},
		{"--channel=at,loop,host=null", "loop has no host"},
		{"--channel=datagram,loop", "needs a number"},
		{"--channel=datagram:4294967296,loop", "needs a number"},
		{"--channel=utility:0123456789abcdef,loop", "more than 15 bytes"},
		{"--channel=at,loop,wrong", "can be said of a channel"},
		{"--channel=at,hangup,host=null", "utility links only"},
		{"--channel=pdp:1", "either tun= or user"},
		{"--channel=pdp:1,tun=abcdefghijklmnop", "1 to 15 characters"},
		{"--channel=pdp:1,tun=x,restrict", "for user only"},
		{"--channel=pdp:1,user,host=null", "can be said of a pdp channel"},
		{"--channel=pdp:x,user", "needs a number"},
		{"--mtu=100", "1024"},
	};

	fe_each_mode("loops", loops);
	fe_each_layout("hosts", hosts);
	fe_each_layout("flow control", flow);
	fe_each_layout("hang up", hangup);
	fe_each_layout("segments", segments);
	fe_each_mode("no receive buffers", full);
	fe_each_mode("hostile frames", frames);
	fe_each_layout("hostile rings", rings);
	fe_each_mode("stop and go on", stops);
	fe_each_mode("reconnect", reconnect);
	fe_each_layout("dirty log", dirty_log);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
