/* SPDX-License-Identifier: MIT */
/*
 * The rpmsg device: announcements, echo, hosts of messages and of bytes, services that come and go, a host that does not read, and
 * messages that are wrong.
 */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"

enum { RING = 32, BUF = 512, PAYLOAD = 496, HEADER = 16, NS = 53 };

struct message {
	uint32_t src, dst, reserved;
	uint16_t len, flags;
	uint8_t data[PAYLOAD];
};

struct guest {
	struct fe fe;
	struct fe_queue *rx, *tx;
	struct message *out;
};

static void post(struct guest *g, void *p)
{
	struct vring_driver_buf b = fe_wr(&g->fe, p, BUF);

	fe_submit(g->rx, &b, 1, p);
}

static void queues(struct guest *g)
{
	uint8_t *p;

	g->rx = fe_queue_up(&g->fe, 0, RING);
	g->tx = fe_queue_up(&g->fe, 1, RING);
	p = fe_alloc(&g->fe, RING * BUF, 8, NULL);
	g->out = fe_alloc(&g->fe, sizeof(*g->out), 8, NULL);
	for (unsigned i = 0; i < RING / 2; i++)
		post(g, p + i * BUF);
	fe_flush(g->rx);
}

static void begin(struct guest *g, const struct fe_mode *m, const char *const *args)
{
	fe_start(&g->fe, m, args);
	CHECK_EQ(g->fe.offered & 0xffffff, 1);
	queues(g);
}

static struct message next(struct guest *g)
{
	struct message m;
	void *p;
	uint32_t n = fe_wait(g->rx, &p);

	CHECK(n >= HEADER && n <= BUF);
	memset(&m, 0, sizeof(m));
	memcpy(&m, p, n);
	CHECK_EQ(m.len, n - HEADER);
	post(g, p);
	fe_flush(g->rx);
	return m;
}

static void expect_ns(struct guest *g, const char *name, uint32_t addr, uint32_t flags)
{
	struct message m = next(g);
	uint32_t got[2];

	CHECK_EQ(m.dst, NS);
	CHECK_EQ(m.len, 40);
	memcpy(got, m.data + 32, 8);
	CHECK_STR((const char *)m.data, name);
	CHECK_EQ(got[0], addr);
	CHECK_EQ(got[1], flags);
}

static void raw(struct guest *g, uint32_t src, uint32_t dst, const void *data, uint16_t len, uint32_t size)
{
	struct vring_driver_buf b = fe_rd(&g->fe, g->out, size);

	*g->out = (struct message){.src = src, .dst = dst, .len = len};
	if (size > HEADER)
		memcpy(g->out->data, data, size - HEADER);
	CHECK_EQ(fe_transact(g->tx, &b, 1), 0);
}

static void say(struct guest *g, uint32_t src, uint32_t dst, const void *data, size_t len)
{
	raw(g, src, dst, data, (uint16_t)len, (uint32_t)(HEADER + len));
}

static void expect(struct guest *g, uint32_t src, uint32_t dst, const void *data, size_t len)
{
	struct message m = next(g);

	CHECK_EQ(m.src, src);
	CHECK_EQ(m.dst, dst);
	CHECK_EQ(m.len, len);
	CHECK_MEM(m.data, data, len);
}

static void echo(const struct fe_mode *m)
{
	struct guest g;
	uint8_t data[PAYLOAD];

	begin(&g, m, FE_ARGS("rpmsg", "--service=name=one,echo", "--service=name=two,echo,addr=77"));
	expect_ns(&g, "one", 1024, 0);
	expect_ns(&g, "two", 77, 0);
	for (unsigned i = 0; i < 300; i++) {
		size_t len = i * 7 % (PAYLOAD + 1);

		for (unsigned k = 0; k < len; k++)
			data[k] = (uint8_t)(i + k * 3);
		say(&g, 1030 + i % 3, i % 2 ? 77 : 1024, data, len);
		expect(&g, i % 2 ? 77 : 1024, 1030 + i % 3, data, len);
	}
	fe_end(&g.fe);
}

static int host_connect(const char *path, int type)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static const char *in_dir(const char *dir, const char *fmt)
{
	static char text[4][256];
	static unsigned n;
	char *p = text[n++ % 4];

	snprintf(p, sizeof(text[0]), "%.*s%s%s", (int)strcspn(fmt, "@"), fmt, dir,
		fmt + strcspn(fmt, "@") + 1);
	return p;
}

/* A datagram for each message. */
static void messages(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir();
	char got[1024], big[PAYLOAD + 1];
	int fd;

	begin(&g, m, FE_ARGS("rpmsg", in_dir(dir, "--service=name=raw,host=unix:@/m,server")));
	expect_ns(&g, "raw", 1024, 0);
	fd = host_connect(in_dir(dir, "@/m"), SOCK_SEQPACKET);
	CHECK_EQ(write(fd, "early", 5), 5); /* nobody has spoken yet: it waits */
	CHECK(!fe_wait_ms(g.rx, NULL, &(uint32_t){0}, 30));
	say(&g, 2000, 1024, "hello", 5);
	expect(&g, 1024, 2000, "early", 5);
	say(&g, 2000, 1024, "you", 3);
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(read(fd, got, sizeof(got)), 5);
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(read(fd, got, sizeof(got)), 3);
	CHECK_MEM(got, "you", 3);
	memset(big, 'b', sizeof(big));
	CHECK_EQ(write(fd, big, PAYLOAD + 1), PAYLOAD + 1); /* too long: lost */
	CHECK_EQ(write(fd, big, PAYLOAD), PAYLOAD);
	expect(&g, 1024, 2000, big, PAYLOAD);
	close(fd);
	fd = host_connect(in_dir(dir, "@/m"), SOCK_SEQPACKET);
	CHECK_EQ(write(fd, "again", 5), 5);
	expect(&g, 1024, 2000, "again", 5);
	close(fd);
	fe_end(&g.fe);
}

/* Nobody reads one service: it drops what is too much, others flow. */
static void stalled(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir(), *ctl = in_dir(dir, "@/ctl");
	int control;

	begin(&g, m,
		FE_ARGS("rpmsg", in_dir(dir, "--service=name=s,host=unix:@/s,server"),
			"--service=name=e,echo", in_dir(dir, "--control-path=@/ctl")));
	control = fe_control_open(ctl);
	expect_ns(&g, "s", 1024, 0);
	expect_ns(&g, "e", 1025, 0);
	for (unsigned i = 0; i < 1100; i++)
		say(&g, 9, 1024, "x", 1);
	say(&g, 9, 1025, "flows", 5);
	expect(&g, 1025, 9, "flows", 5);
	CHECK_HAS(fe_control(control, "services"), "\"messages-lost\":76");
	close(control);
	fe_end(&g.fe);
}

/* Echoes wait while the guest has no buffers, and nothing waits in a circle. */
static void no_buffers(const struct fe_mode *m)
{
	enum { N = 200 };
	struct guest g;

	begin(&g, m, FE_ARGS("rpmsg", "--service=name=e,echo"));
	expect_ns(&g, "e", 1024, 0);
	for (uint32_t i = 0; i < N; i++)
		say(&g, 9, 1024, &i, sizeof(i)); /* only 16 buffers are there for the answers */
	for (uint32_t i = 0; i < N; i++)
		expect(&g, 1024, 9, &i, sizeof(i));
	fe_end(&g.fe);
}

static void come_and_go(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir(), *ctl = in_dir(dir, "@/ctl");
	struct {
		char name[32];
		uint32_t addr, flags;
	} ns = {"late", 5000, 0};
	int control;

	begin(&g, m, FE_ARGS("rpmsg", "--service=name=first,echo", in_dir(dir, "--control-path=@/ctl")));
	control = fe_control_open(ctl);
	expect_ns(&g, "first", 1024, 0);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_HAS(
			fe_control_ask(control,
				"{\"execute\":\"service-add\",\"arguments\":{\"service\":\"name=late,echo\"}}"),
			"1025");
		expect_ns(&g, "late", 1025, 0);
		say(&g, 8, 1025, "x", 1);
		expect(&g, 1025, 8, "x", 1);
		CHECK_HAS(fe_control_ask(control,
				  "{\"execute\":\"service-remove\",\"arguments\":{\"name\":\"late\"}}"),
			"return");
		expect_ns(&g, "late", 1025, 1);
		say(&g, 8, 1025, "x", 1); /* to nobody */
	}
	CHECK_HAS(fe_control_ask(
			  control, "{\"execute\":\"service-add\",\"arguments\":{\"service\":\"host=null\"}}"),
		"name= is missing");
	/* the guest announces an endpoint of its own */
	say(&g, 5000, NS, &ns, sizeof(ns));
	CHECK_HAS(fe_control_event(control, "endpoint"), "5000");
	ns.flags = 1;
	say(&g, 5000, NS, &ns, sizeof(ns));
	CHECK_HAS(fe_control_event(control, "endpoint-gone"), "late");
	close(control);
	fe_end(&g.fe);
}

static void nonsense(const struct fe_mode *m)
{
	struct guest g;
	struct vring_driver_buf b;
	uint8_t data[PAYLOAD + 8] = {0};

	begin(&g, m, FE_ARGS("rpmsg", "--service=name=e,echo"));
	expect_ns(&g, "e", 1024, 0);
	raw(&g, 1, 1024, data, 0, 8);		  /* no header */
	raw(&g, 1, 1024, data, 100, HEADER + 50); /* shorter than it says */
	raw(&g, 1, 1024, data, 65535, HEADER + PAYLOAD);
	raw(&g, 1, 12345, data, 4, HEADER + 4); /* nobody */
	raw(&g, 1, NS, data, 4, HEADER + 4);	/* no announcement */
	memset(data, 0xff, sizeof(data));
	raw(&g, 1, NS, data, 40, HEADER + 40); /* a name without an end */
	b = fe_wr(&g.fe, g.out, 64);
	CHECK_EQ(fe_transact(g.tx, &b, 1), 0);
	say(&g, 1, 1024, "ok", 2);
	expect(&g, 1024, 1, "ok", 2);
	fe_end(&g.fe);
}

/* A buffer without room for a message stops that queue. */
static void narrow(const struct fe_mode *m)
{
	struct guest g;
	struct vring_driver_buf b;

	fe_start(&g.fe, m, FE_ARGS("rpmsg", "--service=name=e,echo"));
	g.rx = fe_queue_up(&g.fe, 0, RING);
	b = fe_wr(&g.fe, fe_alloc(&g.fe, 8, 1, NULL), 8);
	fe_submit(g.rx, &b, 1, NULL);
	fe_flush(g.rx);
	fe_queue_fails(g.rx);
	fe_end(&g.fe);
}

/*
 * The guest moves: what waits comes along, also an echo for which there is no buffer yet; services that the other side has not
 * are taken back, those that it has more are announced, and the host can speak to endpoints that spoke before.
 */
static void moved(const struct fe_mode *m)
{
	enum { STATE = 1 << 20 };
	static uint32_t base[FE_QUEUES];
	char path[2][160], option[2][400], got[16];
	uint8_t *state = malloc(STATE);
	struct guest g;
	size_t n;
	int fd;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/s", fe_tmpdir());
		snprintf(option[i], sizeof(option[i]), "--service=name=host,host=unix:%s,server", path[i]);
	}
	begin(&g, m, FE_ARGS("rpmsg", "--service=name=one,echo", option[0], "--service=name=gone,echo"));
	expect_ns(&g, "one", 1024, 0);
	expect_ns(&g, "host", 1025, 0);
	expect_ns(&g, "gone", 1026, 0);
	fd = host_connect(path[0], SOCK_SEQPACKET);
	say(&g, 2000, 1025, "before", 6);
	CHECK_EQ(read(fd, got, sizeof(got)), 6);
	for (unsigned i = 0; i < RING; i++) /* more echoes than there are buffers */
		say(&g, 2001, 1024, &i, sizeof(i));
	fe_barrier(&g.fe);
	fe_queues_stop(&g.fe, base);
	n = fe_state_save(&g.fe, state, STATE);
	close(fd);
	fe_hangup(&g.fe);
	fe_process_exits(&g.fe.process, 0);

	fe_spawn(&g.fe,
		FE_ARGS("rpmsg", "--service=name=one,echo", option[1], "--service=name=new,echo,addr=99"));
	fe_handshake(&g.fe);
	CHECK(fe_state_load(&g.fe, state, n - 1));
	CHECK(fe_state_load(&g.fe, state, n + 1));
	CHECK_EQ(fe_state_load(&g.fe, state, n), 0);
	fe_queues_resume(&g.fe, base);
	for (unsigned i = 0, gone = 0, new = 0; i < RING || !gone || !new;) {
		struct message x = next(&g);

		if (x.dst == NS) {
			gone += strcmp((const char *)x.data, "gone") == 0;
			new += strcmp((const char *)x.data, "new") == 0;
			CHECK(gone + new == 1 || (gone == 1 && new == 1));
			continue;
		}
		CHECK_EQ(x.src, 1024);
		CHECK_EQ(x.dst, 2001);
		CHECK_MEM(x.data, &i, sizeof(i));
		i++;
	}
	fd = host_connect(path[1], SOCK_SEQPACKET);
	CHECK_EQ(write(fd, "still there", 11), 11);
	expect(&g, 1025, 2000, "still there", 11);
	say(&g, 2000, 1025, "yes", 3);
	CHECK_EQ(read(fd, got, sizeof(got)), 3);
	close(fd);
	fe_end(&g.fe);
	free(state);
}

static void reconnect(const struct fe_mode *m)
{
	struct guest g;
	const char *path = in_dir(fe_tmpdir(), "@/vhost");

	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, path, FE_ARGS("rpmsg", "--service=name=e,echo"));
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process p;

		fe_handshake(&g.fe);
		fe_memory_default(&g.fe);
		queues(&g);
		expect_ns(&g, "e", 1024, 0); /* a new driver hears of it again */
		say(&g, 1, 1024, "round", 5);
		fe_queue_send(g.rx, fe_queue_stop(g.rx));
		fe_queue_enable(g.rx, true);
		expect(&g, 1024, 1, "round", 5);
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

static void refused(void *row)
{
	const char *const *r = row;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("rpmsg", r[0], "--socket-path=x"));
	fe_process_logs(&p, r[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--service=echo", "name= is missing"},
		{"--service=name=x", "host= is missing"},
		{"--service=name=x,echo,host=null", "echo has no host"},
		{"--service=name=x,echo,addr=53", "not free"},
		{"--service=name=0123456789012345678901234567890123,echo", "more than 31 bytes"},
		{"--service=name=x,host=unix:y,backlog=4", "no backlog"},
	};

	fe_each_mode_in_order("echo", echo);
	fe_each_mode("a host of messages", messages);
	fe_each_layout("a host that is not there", stalled);
	fe_each_mode("answers without buffers", no_buffers);
	fe_each_mode("services come and go", come_and_go);
	fe_each_mode("nonsense", nonsense);
	fe_each_layout("a buffer without room", narrow);
	fe_each_mode("reconnect", reconnect);
	fe_each_layout("moved", moved);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
