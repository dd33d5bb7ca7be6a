/* SPDX-License-Identifier: MIT */
/*
 * A guest whose console goes on with another process: moved there with its state, killed and started again without one, or the
 * same process with another connection. The driver says nothing again; what was acknowledged arrives once, ports are as
 * they were.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include "console-driver.h"

enum { N = 400, LEN = 700, STATE = 1 << 20 };

/* The driver has ports 0 to n - 1, and a program has port 1 open, but none port 2. */
static void ports_open(struct guest *g, unsigned n)
{
	control_say(g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < n; i++)
		control_expect(g, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	for (unsigned i = 0; i < n; i++) {
		control_say(g, i, VIRTIO_CONSOLE_PORT_READY, 1);
		if (i == 0)
			control_expect(g, i, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
		else
			expect_name(g, i, i == 1 ? "one" : "two");
		control_expect(g, i, VIRTIO_CONSOLE_PORT_OPEN, 1);
	}
	control_say(g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

/* Bytes of port 1 until its socket takes no more; how many buffers are there, of which some came back. */
static unsigned stuff(struct guest *g, uint8_t *bufs, unsigned *done)
{
	unsigned sent = 0;
	uint32_t len;

	*done = 0;
	for (;;) {
		for (; sent - *done < RING - 8; sent++) {
			uint8_t *p = bufs + sent % RING * LEN;
			struct vring_driver_buf v = fe_rd(&g->fe, p, LEN);

			for (unsigned i = 0; i < LEN; i++)
				p[i] = pattern((size_t)sent * LEN + i, 1);
			fe_submit(g->tx[1], &v, 1, NULL);
		}
		fe_flush(g->tx[1]);
		if (!fe_wait_asleep(g->tx[1], NULL, &len))
			return sent;
		for (++*done; fe_wait_ms(g->tx[1], NULL, &len, 0); ++*done)
			;
	}
}

/* All that port 1 said from byte `from` on. */
static void expect_rest(int fd, size_t from, unsigned buffers)
{
	uint8_t got[LEN];

	for (size_t at = from; at < (size_t)buffers * LEN;) {
		size_t n = MIN(sizeof(got), (size_t)buffers * LEN - at);

		host_read(fd, got, n);
		for (size_t i = 0; i < n; i++)
			CHECK_EQ(got[i], pattern(at + i, 1));
		at += n;
	}
}

/* Reads what has come until there is no more; how many bytes, of which each is looked at. */
static size_t take(int fd)
{
	uint8_t got[LEN];
	size_t at = 0;

	while (fe_poll(fd, POLLIN, 0)) {
		ssize_t n = read(fd, got, sizeof(got));

		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			CHECK_EQ(got[i], pattern(at + (size_t)i, 1));
		at += (size_t)n;
	}
	return at;
}

static void next_connection(struct guest *g, const char *const *args)
{
	fe_hangup(&g->fe);
	fe_spawn(&g->fe, args);
	fe_handshake(&g->fe);
}

static const char *const *ports_at(const char *dir)
{
	static const char *args[5];

	args[0] = "console";
	args[1] = arg("--port=host=unix:%s,server,backlog=10000", path_in(dir, "console"));
	args[2] = arg("--port=name=one,host=unix:%s,server", path_in(dir, "one"));
	args[3] = arg("--port=name=two,host=unix:%s,server", path_in(dir, "two"));
	args[4] = NULL;
	return args;
}

/* In the midst of a buffer; nobody reads the console, what it said waits. */
static void moved(const struct fe_mode *m)
{
	const char *here = fe_tmpdir(), *there = fe_tmpdir();
	uint8_t *state = malloc(STATE), *bufs;
	static uint32_t base[FE_QUEUES];
	unsigned sent, done;
	struct guest g;
	int one, two, con;
	size_t n, got;

	guest_start(&g, m, 3, ALL, ports_at(here));
	one = host_connect(path_in(here, "one"));
	two = host_connect(path_in(here, "two"));
	ports_open(&g, 3);
	say(&g, 0, "nobody reads this yet");
	bufs = fe_alloc(&g.fe, RING * LEN, 1, NULL);
	sent = stuff(&g, bufs, &done);
	fe_queues_stop(&g.fe, base);
	n = fe_state_save(&g.fe, state, STATE);
	got = take(one);
	CHECK(got >= (size_t)done * LEN && got < (size_t)sent * LEN);
	close(one);
	close(two);

	fe_hangup(&g.fe);
	fe_process_exits(&g.fe.process, 0);
	next_connection(&g, ports_at(there));
	CHECK_EQ(fe_state_load(&g.fe, state, n), 0);
	fe_queues_resume(&g.fe, base);
	one = host_connect(path_in(there, "one"));
	two = host_connect(path_in(there, "two"));
	con = host_connect(path_in(there, "console"));
	host_expect(con, "nobody reads this yet");
	expect_rest(one, got, sent);
	for (; done < sent; done++)
		fe_wait(g.tx[1], NULL);
	/* a program of the guest has port 1 open, and none port 2 */
	host_write(two, "later", 5);
	host_write(one, "now", 3);
	inbox_expect(&g.rx[1], "now");
	CHECK(inbox_quiet(&g.rx[2], 50));
	control_say(&g, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	inbox_expect(&g.rx[2], "later");
	say(&g, 2, "still here");
	host_expect(two, "still here");
	close(one);
	close(two);
	close(con);
	guest_end(&g);
	free(state);
}

/* The other side has one port less, and one more. */
static void moved_elsewhere(const struct fe_mode *m)
{
	const char *here = fe_tmpdir();
	struct virtio_console_control c;
	uint8_t *state = malloc(STATE);
	static uint32_t base[FE_QUEUES];
	bool gone = false, added = false;
	struct guest g;
	size_t n;
	int fd;

	guest_start(&g, m, 3, ALL, ports_at(here));
	fd = host_connect(path_in(here, "one"));
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < 3; i++)
		control_expect(&g, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	fe_queues_stop(&g.fe, base);
	n = fe_state_save(&g.fe, state, STATE);
	close(fd);
	next_connection(&g, FE_ARGS("console", "--port=host=null", "--port=name=one,host=null"));
	CHECK_EQ(fe_state_load(&g.fe, state, n), 0);
	fe_queues_resume(&g.fe, base);
	control_expect(&g, 2, VIRTIO_CONSOLE_PORT_REMOVE, 1);

	/* back, where there is one more */
	fe_queues_stop(&g.fe, base);
	n = fe_state_save(&g.fe, state, STATE);
	next_connection(&g, FE_ARGS("console", "--port=host=null", "--port=name=one,host=null",
				    "--port=host=null", "--port=name=four,host=null"));
	CHECK_EQ(fe_state_load(&g.fe, state, n), 0);
	fe_queues_resume(&g.fe, base);
	while (!gone || !added) {
		c = control_next(&g, NULL, 0, NULL);
		CHECK_EQ(c.event, VIRTIO_CONSOLE_PORT_ADD);
		gone |= c.id == 2;
		added |= c.id == 3;
	}
	guest_end(&g);
	free(state);
}

/* What is not a state, or is one of other ports: the device is as before. */
static void refused(const struct fe_mode *m)
{
	const char *here = fe_tmpdir();
	uint8_t *state = calloc(1, STATE);
	static uint32_t base[FE_QUEUES];
	struct guest g;
	size_t n;
	int fd;

	guest_start(&g, m, 3, ALL, ports_at(here));
	fd = host_connect(path_in(here, "one"));
	close(host_connect(path_in(here, "two")));
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < 3; i++)
		control_expect(&g, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	fe_queues_stop(&g.fe, base);
	n = fe_state_save(&g.fe, state, STATE);
	for (size_t cut = 0; cut < n; cut += 7)
		CHECK(fe_state_load(&g.fe, state, cut));
	CHECK(fe_state_load(&g.fe, state, n + 1));
	state[0]++;
	CHECK(fe_state_load(&g.fe, state, n));
	state[0]--;
	CHECK_EQ(fe_state_load(&g.fe, state, n), 0);
	close(fd);
	next_connection(&g, FE_ARGS("console", "--port=host=null", "--port=name=another,host=null"));
	CHECK(fe_state_load(&g.fe, state, n));
	fe_process_logs(&g.fe.process, "port 1 is another one in the saved state");
	fe_end(&g.fe);
	guest_forget(&g);
	free(state);
}

/* What a driver like Linux's answers to ports that it has: that they are ready. */
static void answers(struct guest *g, unsigned ports, unsigned removed)
{
	unsigned added = 0, open = 0, consoles = 0, names = 0, gone = 0;
	char name[128];

	while (added < ports || open < 2 * ports || consoles < 1 || names < ports - 1 || gone < removed) {
		struct virtio_console_control c = control_next(g, name, sizeof(name), NULL);

		added += c.event == VIRTIO_CONSOLE_PORT_ADD;
		open += c.event == VIRTIO_CONSOLE_PORT_OPEN;
		consoles += c.event == VIRTIO_CONSOLE_CONSOLE_PORT;
		names += c.event == VIRTIO_CONSOLE_PORT_NAME;
		gone += c.event == VIRTIO_CONSOLE_PORT_REMOVE;
		if (c.event == VIRTIO_CONSOLE_PORT_ADD)
			control_say(g, c.id, VIRTIO_CONSOLE_PORT_READY, 1);
	}
}

/*
 * kill -9 in the midst of a stream. Buffers that had come back are not said again; those in flight are said from their
 * beginning. The driver says nothing, and its ports work.
 */
static void killed(const struct fe_mode *m)
{
	static uint32_t base[FE_QUEUES];
	const char *dir = fe_tmpdir();
	unsigned sent, done;
	struct guest g;
	uint8_t *bufs;
	int one;

	memset(&g, 0, sizeof(g));
	fe_init(&g.fe, m);
	fe_spawn(&g.fe, ports_at(dir));
	fe_handshake(&g.fe);
	fe_memory_default(&g.fe);
	fe_inflight_get(&g.fe, 8, RING);
	fe_inflight_set(&g.fe);
	guest_queues(&g, 3);
	one = host_connect(path_in(dir, "one"));
	close(host_connect(path_in(dir, "two")));
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < 3; i++)
		control_expect(&g, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	for (unsigned i = 0; i < 2; i++)
		control_say(&g, i, VIRTIO_CONSOLE_PORT_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	control_say(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	bufs = fe_alloc(&g.fe, RING * LEN, 1, NULL);
	sent = stuff(&g, bufs, &done);
	fe_process_kill(&g.fe.process);
	for (uint32_t len; fe_collect(g.tx[1], NULL, &len); done++)
		; /* acknowledged before it died */
	CHECK(take(one) >= (size_t)done * LEN);
	close(one);
	inbox_quiet(&g.control, 0);

	fe_hangup(&g.fe);
	fe_spawn(&g.fe, ports_at(dir));
	fe_handshake(&g.fe);
	fe_inflight_set(&g.fe);
	for (unsigned i = 0; i < FE_QUEUES; i++)
		if (g.fe.queues[i])
			base[i] = fe_queue_crashed(g.fe.queues[i]);
	fe_queues_resume(&g.fe, base);
	one = host_connect(path_in(dir, "one"));
	expect_rest(one, (size_t)done * LEN, sent);
	for (; done < sent; done++)
		fe_wait(g.tx[1], NULL);
	CHECK(!fe_collect(g.tx[1], NULL, &(uint32_t){0}));
	host_write(one, "hello", 5);
	inbox_expect(&g.rx[1], "hello");
	say(&g, 1, "hello back");
	host_expect(one, "hello back");
	close(one);
	guest_end(&g);
}

/* The driver is asked which ports it has, and what it was told before is told again. */
static void asked_again(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char sock[160];
	static uint32_t base[FE_QUEUES];
	struct guest g;
	int one, two;

	snprintf(sock, sizeof(sock), "%s/vhost", fe_tmpdir());
	memset(&g, 0, sizeof(g));
	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, sock, ports_at(dir));
	fe_handshake(&g.fe);
	fe_memory_default(&g.fe);
	guest_queues(&g, 3);
	one = host_connect(path_in(dir, "one"));
	two = host_connect(path_in(dir, "two"));
	ports_open(&g, 3);
	say(&g, 1, "before");
	host_expect(one, "before");
	for (unsigned round = 0; round < 3; round++) {
		fe_queues_stop(&g.fe, base);
		fe_hangup(&g.fe);
		fe_connect(&g.fe, sock);
		fe_handshake(&g.fe);
		fe_queues_resume(&g.fe, base);
		answers(&g, 3, 28);
		say(&g, 1, "after");
		host_expect(one, "after");
		host_write(one, "to one", 6);
		inbox_expect(&g.rx[1], "to one");
		host_write(two, "to two", 6);
		inbox_expect(&g.rx[2], "to two");
	}
	close(one);
	close(two);
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);
	fe_close(&g.fe);
	guest_forget(&g);
}

int main(void)
{
	fe_each_mode("moved with its state", moved);
	fe_each_layout("moved to other ports", moved_elsewhere);
	fe_each_layout("a state that is none", refused);
	fe_each_mode("killed and started again", killed);
	fe_each_layout("another connection", asked_again);
	return tap_done();
}
