/* SPDX-License-Identifier: MIT */
/*
 * The console device: one port and several, what guest and device tell each other of ports, all kinds of host ends, flow
 * control both ways, plugging, and what a broken driver does.
 */
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#include "console-driver.h"

/* --- one port --- */

static void single(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "s");
	int fd;

	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	CHECK(!g.multiport);
	fd = host_connect(path);
	say(&g, 0, "from the guest");
	host_expect(fd, "from the guest");
	host_write(fd, "from the host", 13);
	inbox_expect(&g.rx[0], "from the host");
	close(fd);
	guest_end(&g);
}

/* A device of one port does not offer several; its console's size is in the configuration. */
static void single_only(const struct fe_mode *m)
{
	struct guest g;
	struct virtio_console_config c;

	guest_start(&g, m, 1, ALL, FE_ARGS("console", "--max-ports=1", "--port=host=null"));
	CHECK(!g.multiport);
	fe_config_get(&g.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.max_nr_ports, 1);
	say(&g, 0, "into the void");
	guest_end(&g);
}

/* --- several --- */

static void handshake(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir(), *a = path_in(dir, "a"), *b = path_in(dir, "b");
	int fa, fb;

	guest_start(&g, m, 3, ALL,
		FE_ARGS("console", arg("--port=name=first,host=unix:%s,server", a),
			arg("--port=name=org.test.b,host=unix:%s,server", b), "--port=host=null"));
	CHECK(g.multiport);
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < 3; i++)
		control_expect(&g, i, VIRTIO_CONSOLE_PORT_ADD, 1);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	expect_name(&g, 0, "first");
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control_say(&g, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_name(&g, 1, "org.test.b");
	control_expect(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	control_say(&g, 2, VIRTIO_CONSOLE_PORT_READY, 1);
	control_expect(&g, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* a console is always open, a serial port follows its host end */
	fa = host_connect(a);
	fb = host_connect(b);
	control_expect(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* bytes of the host wait until the guest opens the port */
	host_write(fb, "early", 5);
	CHECK(inbox_quiet(&g.rx[1], 30));
	control_say(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	inbox_expect(&g.rx[1], "early");
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(&g, 0, "A");
	say(&g, 1, "B");
	say(&g, 2, "C");
	host_expect(fa, "A");
	host_expect(fb, "B");
	close(fb);
	control_expect(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	fb = host_connect(b);
	control_expect(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	host_write(fb, "again", 5);
	inbox_expect(&g.rx[1], "again");
	close(fa);
	close(fb);
	guest_end(&g);
}

/* Nobody reads one port: the others go on, and nothing is lost or turned around anywhere. */
static void stalled(const struct fe_mode *m)
{
	enum { N = 3000, LEN = 700 };
	struct guest g;
	const char *dir = fe_tmpdir(), *a = path_in(dir, "a"), *b = path_in(dir, "b");
	uint8_t *bufs, got[LEN];
	unsigned sent = 0, done = 0;
	uint32_t len;
	int fa, fb;

	guest_start(&g, m, 3, ALL,
		FE_ARGS("console", "--port=host=null", arg("--port=host=unix:%s,server", a),
			arg("--port=host=unix:%s,server", b)));
	fa = host_connect(a);
	fb = host_connect(b);
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	bufs = fe_alloc(&g.fe, RING * LEN, 1, NULL);
	/* stuff port 1 until it takes no more: the socket's buffer and the ring are full */
	for (;;) {
		while (sent - done < RING - 8) {
			uint8_t *p = bufs + sent % RING * LEN;
			struct vring_driver_buf v = fe_rd(&g.fe, p, LEN);

			for (unsigned i = 0; i < LEN; i++)
				p[i] = pattern((size_t)sent * LEN + i, 1);
			fe_submit(g.tx[1], &v, 1, NULL);
			sent++;
		}
		fe_flush(g.tx[1]);
		if (!fe_wait_asleep(g.tx[1], NULL, &len))
			break;
		done++;
		while (fe_wait_ms(g.tx[1], NULL, &len, 0))
			done++;
	}
	for (unsigned n = 0; n < 200; n++) {
		for (unsigned i = 0; i < LEN; i++)
			got[i] = pattern(i, n);
		say_bytes(g.tx[2], got, LEN);
		host_read(fb, got, LEN);
		for (unsigned i = 0; i < LEN; i++)
			CHECK_EQ(got[i], pattern(i, n));
	}
	/* the queue is stopped and started in the midst of it */
	fe_queue_send(g.tx[1], fe_queue_stop(g.tx[1]));
	fe_queue_enable(g.tx[1], true);
	for (unsigned n = 0; n < sent; n++) {
		host_read(fa, got, LEN);
		for (unsigned i = 0; i < LEN; i++)
			CHECK_EQ(got[i], pattern((size_t)n * LEN + i, 1));
	}
	while (done < sent) {
		fe_wait(g.tx[1], NULL);
		done++;
	}
	CHECK(!fe_poll(fa, POLLIN, 20));
	close(fa);
	close(fb);
	guest_end(&g);
}

/* The guest does not fetch what the host says: the host's program waits, and loses nothing. */
static void guest_slow(const struct fe_mode *m)
{
	enum { SIZE = 1 << 20 };
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	uint8_t *all = malloc(SIZE), *got = malloc(SIZE);
	size_t at = 0, took = 0;
	int fd;

	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	fd = host_connect(path);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (size_t i = 0; i < SIZE; i++)
		all[i] = pattern(i, 7);
	while (took < SIZE) {
		ssize_t r = at < SIZE ? write(fd, all + at, SIZE - at) : 0;

		if (r > 0)
			at += (size_t)r;
		r = (ssize_t)MIN((size_t)5000, SIZE - took);
		inbox_read(&g.rx[0], got + took, (size_t)r);
		took += (size_t)r;
	}
	CHECK_MEM(got, all, SIZE);
	close(fd);
	guest_end(&g);
	free(all);
	free(got);
}

/* --- host ends --- */

/* Without a reader a console keeps the newest bytes for the next. */
static void backlog(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	int fd;

	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", arg("--port=backlog=8,host=unix:%s,server", path)));
	say(&g, 0, "0123456789");
	say(&g, 0, "abc");
	fd = host_connect(path);
	host_expect(fd, "56789abc");
	say(&g, 0, "now");
	host_expect(fd, "now");
	close(fd);
	guest_end(&g);
}

/* A console's reader that stops reading does not stop the guest for long. */
static void patience(const struct fe_mode *m)
{
	enum { TOTAL = 2 << 20, LEN = 4096, BACKLOG = 4096 };
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	static uint8_t text[LEN];
	uint8_t byte, before = 0;
	size_t n = 0;
	int fd;

	guest_start(&g, m, 1, SINGLE,
		FE_ARGS("console", arg("--port=backlog=4096,patience=100,host=unix:%s,server", path)));
	fd = host_connect(path);
	say(&g, 0, "x");
	host_expect(fd, "x");
	for (unsigned i = 0; i < TOTAL / LEN; i++) {
		memset(text, (int)(i * 255 / (TOTAL / LEN - 1)), LEN);
		say_bytes(g.tx[0], text, LEN);
	}
	/* what was sent comes, then a gap, then the newest */
	for (; before < 255; n++) {
		host_read(fd, &byte, 1);
		CHECK(byte >= before);
		before = byte;
	}
	say(&g, 0, "again");
	for (; byte == 255; n++)
		host_read(fd, &byte, 1);
	CHECK(byte == 'a');
	host_expect(fd, "gain");
	CHECK(n > BACKLOG && n < TOTAL);
	close(fd);
	guest_end(&g);
}

static void client(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	int l, fd;

	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", arg("--port=host=unix:%s", path)));
	say(&g, 0, "before"); /* nobody listens yet */
	l = host_listen(path);
	fd = host_accept(l);
	host_expect(fd, "before");
	host_write(fd, "hi", 2);
	inbox_expect(&g.rx[0], "hi");
	close(fd);
	fd = host_accept(l); /* it comes again */
	say(&g, 0, "after");
	host_expect(fd, "after");
	close(fd);
	close(l);
	guest_end(&g);
}

static void pty_host(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "link");
	struct winsize w = {.ws_col = 91, .ws_row = 33};
	struct virtio_console_config c;
	char target[64] = "";
	int fd;

	guest_start(&g, m, 1, ALL, FE_ARGS("console", arg("--port=host=pty:link=%s", path)));
	CHECK(readlink(path, target, sizeof(target) - 1) > 0);
	CHECK(strncmp(target, "/dev/pts/", 9) == 0);
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	say(&g, 0, "kept\r\n");
	CHECK_SYS(fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC));
	host_expect(fd, "kept\r\n");
	host_write(fd, "typed\n\003", 7);
	inbox_expect(&g.rx[0], "typed\n\003");
	CHECK_SYS(ioctl(fd, TIOCSWINSZ, &w));
	expect_size(&g, 0, 91, 33);
	fe_config_get(&g.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.cols, 91);
	CHECK_EQ(c.rows, 33);
	close(fd);
	/* it is sent again to a driver that begins anew */
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	expect_size(&g, 0, 91, 33);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	guest_end(&g);
	CHECK(access(path, F_OK) < 0);
}

static void file_and_log(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir();
	char text[256], both[32];
	int a, b;

	snprintf(text, sizeof(text), "--port=host=file:%s/out,log=%s/log", dir, dir);
	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", text));
	say(&g, 0, "one ");
	say(&g, 0, "two");
	CHECK_SYS(a = open(path_in(dir, "out"), O_RDONLY | O_CLOEXEC));
	CHECK_SYS(b = open(path_in(dir, "log"), O_RDONLY | O_CLOEXEC));
	CHECK_EQ(read(a, both, sizeof(both)), 7);
	CHECK_MEM(both, "one two", 7);
	CHECK_EQ(read(b, both, sizeof(both)), 7);
	CHECK_MEM(both, "one two", 7);
	close(a);
	close(b);
	guest_end(&g);
}

static void tcp(const struct fe_mode *m)
{
	struct guest g, h;
	int port = 20000 + (int)(getpid() % 20000), fd;
	char text[64];

	/* two of ours, one listens, the other connects */
	snprintf(text, sizeof(text), "--port=host=tcp:127.0.0.1:%d,server", port);
	guest_start(&g, m, 1, SINGLE, FE_ARGS("console", text));
	snprintf(text, sizeof(text), "--port=host=tcp:127.0.0.1:%d", port);
	guest_start(&h, m, 1, SINGLE, FE_ARGS("console", text));
	say(&g, 0, "ping");
	inbox_expect(&h.rx[0], "ping");
	say(&h, 0, "pong");
	inbox_expect(&g.rx[0], "pong");
	fd = -1;
	(void)fd;
	guest_end(&h);
	guest_end(&g);
}

/* --- plugging --- */

static void plug(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir(), *a = path_in(dir, "a"), *ctl = path_in(dir, "ctl");
	char text[256];
	int control, fd;

	guest_start(&g, m, 3, ALL, FE_ARGS("console", "--port=host=null", arg("--control-path=%s", ctl)));
	control = fe_control_open(ctl);
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
	for (unsigned round = 0; round < 3; round++) {
		snprintf(text, sizeof(text),
			"{\"execute\":\"port-add\",\"arguments\":{\"port\":\"name=p%u,host=unix:%s,server,hangup\"}}",
			round, a);
		CHECK_HAS(fe_control_ask(control, text), "\"id\":1");
		CHECK_HAS(fe_control_ask(control, text), "another port has this name");
		fd = host_connect(a);
		snprintf(text, sizeof(text), "p%u", round);
		control_expect(&g, 1, VIRTIO_CONSOLE_PORT_ADD, 1);
		fe_barrier(&g.fe);
		control_say(&g, 1, VIRTIO_CONSOLE_PORT_READY, 1);
		expect_name(&g, 1, text);
		for (struct virtio_console_control c = {0}; c.value != 1;) {
			c = control_next(&g, NULL, 0, NULL);
			CHECK_EQ(c.event, VIRTIO_CONSOLE_PORT_OPEN);
		}
		control_say(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
		CHECK_HAS(fe_control_event(control, "port-opened"), text);
		say(&g, 1, "hello");
		host_expect(fd, "hello");
		host_write(fd, "you", 3);
		inbox_expect(&g.rx[1], "you");
		if (round == 1) { /* the guest closes it: the program sees the end */
			control_say(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
			CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
			CHECK_EQ(read(fd, text, 1), 0);
			control_expect(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
		}
		CHECK_HAS(fe_control(control, "ports"), "\"guest-open\"");
		snprintf(text, sizeof(text), "{\"execute\":\"port-remove\",\"arguments\":{\"name\":\"p%u\"}}",
			round);
		CHECK_HAS(fe_control_ask(control, text), "return");
		control_expect(&g, 1, VIRTIO_CONSOLE_PORT_REMOVE, 1);
		CHECK_HAS(fe_control_ask(control, text), "no such port");
		close(fd);
		say(&g, 1, "to nobody");
	}
	CHECK_HAS(fe_control_ask(control, "{\"execute\":\"port-remove\",\"arguments\":{\"name\":\"0\"}}"),
		"cannot be removed");
	CHECK_HAS(fe_control_ask(control, "{\"execute\":\"port-add\",\"arguments\":{\"port\":\"name=x\"}}"),
		"host= is missing");
	close(control);
	guest_end(&g);
}

static void emergency(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	uint32_t c = 'E';
	int fd;

	guest_start(&g, m, 0, ALL, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	fd = host_connect(path);
	fe_config_set(&g.fe, offsetof(struct virtio_console_config, emerg_wr), &c, 4, 0);
	host_expect(fd, "E");
	close(fd);
	guest_end(&g);
}

/* --- stop, reconnect --- */

static void reconnect(const struct fe_mode *m)
{
	struct guest g;
	const char *dir = fe_tmpdir(), *sock = path_in(dir, "vhost"), *path = path_in(dir, "a");
	int fd;

	memset(&g, 0, sizeof(g));
	fe_init(&g.fe, m);
	fe_spawn_path(&g.fe, sock, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	fd = host_connect(path);
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process p;

		fe_handshake(&g.fe);
		fe_memory_default(&g.fe);
		guest_queues(&g, 1);
		control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
		control_expect(&g, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
		control_say(&g, 0, VIRTIO_CONSOLE_PORT_READY, 1);
		control_expect(&g, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
		control_expect(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
		host_write(fd, "x", 1); /* waits until the guest listens */
		control_say(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
		inbox_expect(&g.rx[0], "x");
		say(&g, 0, "round");
		host_expect(fd, "round");
		p = g.fe.process;
		fe_close(&g.fe);
		guest_forget(&g);
		memset(&g, 0, sizeof(g));
		fe_init(&g.fe, m);
		g.fe.process = p;
		fe_connect(&g.fe, sock);
	}
	close(fd);
	fe_process_signal(&g.fe.process, SIGTERM);
	fe_process_exits(&g.fe.process, 0);
	fe_close(&g.fe);
	guest_forget(&g);
}

/* --- the terminal --- */

/* On standard input: raw while it runs, as it was after any end. */
static void terminal(void *how)
{
	int sig = *(const int *)how, master, slave, pair[2];
	struct termios before, now;
	int64_t end;
	char fdarg[16];
	pid_t pid;

	CHECK_SYS(openpty(&master, &slave, NULL, NULL, NULL));
	CHECK_SYS(tcgetattr(slave, &before));
	CHECK(before.c_lflag & ICANON);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	snprintf(fdarg, sizeof(fdarg), "--fd=%d", pair[1]);
	CHECK_SYS(pid = fork());
	if (pid == 0) {
		dup2(slave, 0);
		dup2(slave, 1);
		close(pair[0]);
		signal(sig, SIG_DFL); /* a shell ignores some of them in what runs in its background */
		execl(fe_binary(), fe_binary(), "console", fdarg, NULL);
		_exit(127);
	}
	close(pair[1]);
	end = fe_now_ms() + fe_limit_ms;
	do {
		usleep(1000);
		CHECK_SYS(tcgetattr(slave, &now));
		CHECK(fe_now_ms() < end);
	} while (now.c_lflag & (ICANON | ECHO | ISIG));
	if (sig)
		CHECK_SYS(kill(pid, sig));
	else
		close(pair[0]);
	waitpid(pid, NULL, 0);
	do {
		usleep(1000);
		CHECK_SYS(tcgetattr(slave, &now));
		CHECK(fe_now_ms() < end);
	} while (now.c_lflag != before.c_lflag || now.c_iflag != before.c_iflag ||
		 now.c_oflag != before.c_oflag);
}

/* --- hostile --- */

static void nonsense(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	struct vring_driver_buf b[2];
	uint8_t *p;
	int fd;

	guest_start(&g, m, 2, ALL, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	fd = host_connect(path);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_READY, 1); /* before it was told of any */
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control_expect(&g, 0, VIRTIO_CONSOLE_PORT_ADD, 1);
	control_say(&g, 4000000000u, VIRTIO_CONSOLE_PORT_READY, 1);
	control_say(&g, 126, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control_say(&g, 127, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control_say(&g, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (unsigned i = 0; i < 12; i++)
		control_say(&g, 0, (uint16_t)(i == VIRTIO_CONSOLE_DEVICE_READY ? 77 : i), 0);
	say_bytes(g.control_tx, "abc", 3);
	control_say(&g, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* buffers the wrong way round */
	p = fe_alloc(&g.fe, 64, 1, NULL);
	b[0] = fe_wr(&g.fe, p, 64);
	CHECK_EQ(fe_transact(g.control_tx, b, 1), 0);
	CHECK_EQ(fe_transact(g.tx[0], b, 1), 0);
	say(&g, 1, "no port is here");
	b[0] = fe_rd(&g.fe, p, 16);
	fe_submit(g.rx[0].q, b, 1, p);
	fe_flush(g.rx[0].q);
	say(&g, 0, "still");
	host_expect(fd, "still");
	host_write(fd, "well", 4);
	inbox_expect(&g.rx[0], "well");
	close(fd);
	guest_end(&g);
}

/* A control buffer without room for a message stops that queue, nothing else. */
static void narrow(const struct fe_mode *m)
{
	struct guest g;
	const char *path = path_in(fe_tmpdir(), "a");
	struct vring_driver_buf b;
	int fd;

	memset(&g, 0, sizeof(g));
	fe_start(&g.fe, m, FE_ARGS("console", arg("--port=host=unix:%s,server", path)));
	inbox_up(&g.rx[0], &g.fe, 0);
	g.tx[0] = fe_queue_up(&g.fe, 1, RING);
	g.control.q = fe_queue_up(&g.fe, 2, RING);
	g.control_tx = fe_queue_up(&g.fe, 3, RING);
	b = fe_wr(&g.fe, fe_alloc(&g.fe, 4, 1, NULL), 4);
	fe_submit(g.control.q, &b, 1, NULL);
	fe_flush(g.control.q);
	control_say(&g, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	fe_queue_fails(g.control.q);
	fd = host_connect(path);
	say(&g, 0, "still");
	host_expect(fd, "still");
	close(fd);
	guest_end(&g);
}

static void refused(void *row)
{
	const char *const *r = row;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("console", r[0], "--socket-path=x"));
	fe_process_logs(&p, r[1]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--port=host=floppy", "no such host"},
		{"--port=host=unix", "no more than its kind"},
		{"--port=host=unix:", "needs a path"},
		{"--port=host=tcp:1234", "HOST:PORT"},
		{"--port=host=fd:x", "number of a descriptor"},
		{"--port=host=fd:999", "fd:999: Bad file descriptor"},
		{"--port=host=null,server", "only unix and tcp"},
		{"--port=host=pty,signals", "signals is for stdio"},
		{"--port=host=null:x", "nothing can follow"},
		{"--port=host=null,type=lamp", "type is console or serial"},
		{"--port=host=null,colour=red", "only name, type"},
		{"--port=host=null,backlog=1G", "at most 64M"},
		{"--port=host=null,host=null", "given twice"},
		{"--port=host=file:/nonexistent/x", "file:/nonexistent/x: No such file"},
		{"--port=host=null,log=/nonexistent/x", "log=/nonexistent/x: No such file"},
		{"--port=host=null,name=", "name= needs a value"},
		{"--max-ports=128", "--max-ports=128"},
	};
	static const int ends[] = {0, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGKILL};

	fe_each_mode_in_order("one port", single);
	fe_each_layout("a device of one port", single_only);
	fe_each_mode("several ports", handshake);
	fe_each_mode("a port that nobody reads", stalled);
	fe_each_mode("a guest that reads slowly", guest_slow);
	fe_each_layout("backlog", backlog);
	fe_each_layout("patience", patience);
	fe_each_layout("a client", client);
	fe_each_layout("a pseudo-terminal", pty_host);
	fe_each_layout("a file and a log", file_and_log);
	fe_case("TCP", tcp, NULL);
	fe_each_mode("plugging", plug);
	fe_each_layout("emergency write", emergency);
	fe_each_mode("reconnect", reconnect);
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		char name[64];

		snprintf(name, sizeof(name), "the terminal after signal %d", ends[i]);
		tap_case(name, terminal, (void *)&ends[i]);
	}
	fe_each_mode("nonsense", nonsense);
	fe_each_layout("a control buffer without room", narrow);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
