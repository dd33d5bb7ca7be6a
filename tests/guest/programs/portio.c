/* SPDX-License-Identifier: MIT */
/*
 * Both ends of ports: sends numbered noise and checks what comes, on devices of the guest and on sockets of the host.
 *
 * usage: portio both MINE THEIRS BYTES END...	on each END send BYTES of noise MINE, and expect BYTES of noise THEIRS
 *	  portio send SEED BYTES END		send only
 *	  portio expect SEED BYTES END		expect only
 *	  portio fill SEED END			send until nothing is taken for a second, print how much was
 *	  portio messages COUNT END		send COUNT messages of many sizes, each of which must come back
 *	  portio ask TEXT END			say a line, print what is answered up to OK
 *	  portio echo END			give back all messages or bytes until the end
 *	  portio wait END			until END is there, and its port open on the other side
 *	  portio channel CTRL NAME SRC DST	make an endpoint by way of an rpmsg_ctrl device
 *	  portio free ENDPOINT			unmake it
 *
 * END is a device, or unix:PATH or seq:PATH, where somebody listens, or caif:PROTOCOL (at, debug, datagram:ID, loop:ID, util:NAME,
 * rfm:ID:VOLUME). Several ends are used at the same time, by a process each; the
 * noise of the n-th is SEED + n. Exit status 0: all came as it should.
 */
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <linux/caif/caif_socket.h>
#include <linux/rpmsg.h>

enum { LIMIT_MS = 60000, MESSAGE = 496, WINDOW = 128 };

static const char *name;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", name, what, strerror(errno));
	exit(1);
}

/* PROTOCOL[:ID][:NAME] of the AF_CAIF sockets; lines of bytes are streams. */
static int caif_open(const char *end)
{
	static const struct {
		const char *name;
		int protocol, type;
	} kinds[] = {{"at", CAIFPROTO_AT, SOCK_STREAM}, {"debug", CAIFPROTO_DEBUG, SOCK_STREAM},
		{"datagram", CAIFPROTO_DATAGRAM, SOCK_SEQPACKET},
		{"loop", CAIFPROTO_DATAGRAM_LOOP, SOCK_SEQPACKET}, {"util", CAIFPROTO_UTIL, SOCK_STREAM},
		{"rfm", CAIFPROTO_RFM, SOCK_SEQPACKET}};
	const char *arg = strchr(end, ':'), *volume = arg ? strchr(arg + 1, ':') : NULL;
	size_t i, n = arg ? (size_t)(arg - end) : strlen(end);
	struct sockaddr_caif a = {.family = AF_CAIF};
	int fd;

	for (i = 0; strlen(kinds[i].name) != n || strncmp(kinds[i].name, end, n) != 0; i++)
		if (i + 1 == sizeof(kinds) / sizeof(*kinds)) {
			errno = EINVAL;
			fail("protocol");
		}
	switch (kinds[i].protocol) {
	case CAIFPROTO_AT:
		a.u.at.type = CAIF_ATTYPE_PLAIN;
		break;
	case CAIFPROTO_DEBUG:
		a.u.dbg.type = CAIF_DEBUG_TRACE_INTERACTIVE;
		a.u.dbg.service = CAIF_RADIO_DEBUG_SERVICE;
		break;
	case CAIFPROTO_UTIL:
		snprintf(a.u.util.service, sizeof(a.u.util.service), "%s", arg ? arg + 1 : "");
		break;
	case CAIFPROTO_RFM:
		a.u.rfm.connection_id = (uint32_t)strtoul(arg ? arg + 1 : "", NULL, 0);
		snprintf(a.u.rfm.volume, sizeof(a.u.rfm.volume), "%s", volume ? volume + 1 : "");
		break;
	default:
		a.u.dgm.connection_id = (uint32_t)strtoul(arg ? arg + 1 : "", NULL, 0);
	}
	fd = socket(AF_CAIF, kinds[i].type, kinds[i].protocol);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail("connect");
	return fd;
}

static int end_open(const char *end)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	bool seq = strncmp(end, "seq:", 4) == 0;
	struct termios t;
	int fd;

	name = end;
	if (strncmp(end, "caif:", 5) == 0)
		return caif_open(end + 5);
	if (seq || strncmp(end, "unix:", 5) == 0) {
		snprintf(a.sun_path, sizeof(a.sun_path), "%s", strchr(end, ':') + 1);
		fd = socket(AF_UNIX, seq ? SOCK_SEQPACKET : SOCK_STREAM, 0);
		for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0; i++) {
			if (i == LIMIT_MS / 10)
				fail("connect");
			usleep(10000);
		}
		return fd;
	}
	for (int i = 0; (fd = open(end, O_RDWR | O_NOCTTY)) < 0; i++) {
		if (i == LIMIT_MS / 10)
			fail("open");
		usleep(10000);
	}
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

/* Noise: each byte depends on its place and the seed. */
static void noise(uint8_t *to, uint64_t at, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t x = ((at + i) / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) +
			     seed * UINT64_C(0xbf58476d1ce4e5b9);

		x ^= x >> 29;
		to[i] = (uint8_t)(x >> ((at + i) % 8 * 7));
	}
}

static void await_fd(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, LIMIT_MS) > 0)
		return;
	errno = ETIMEDOUT;
	fail(events == POLLIN ? "nothing comes" : "nothing is taken");
}

/* AF_CAIF of Linux 6.1 looks for an iovec where write(2) has none. */
static ssize_t put(int fd, const void *buf, size_t n)
{
	ssize_t r = send(fd, buf, n, MSG_NOSIGNAL);

	return r < 0 && errno == ENOTSOCK ? write(fd, buf, n) : r;
}

static void send_noise(int fd, uint64_t seed, uint64_t total)
{
	static uint8_t buf[16384];
	uint64_t at = 0;

	while (at < total) {
		size_t n = total - at < sizeof(buf) ? total - at : sizeof(buf);
		ssize_t r;

		noise(buf, at, n, seed);
		await_fd(fd, POLLOUT);
		r = put(fd, buf, n);
		if (r < 0 && errno != EAGAIN && errno != EINTR)
			fail("write");
		at += r > 0 ? (uint64_t)r : 0;
	}
}

static bool is_device(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode);
}

/* PORTIO_AFTER names a file: nothing is read before it is there. */
static void expect_noise(int fd, uint64_t seed, uint64_t total)
{
	const char *after = getenv("PORTIO_AFTER");
	static uint8_t got[16384], want[16384];
	uint64_t at = 0;
	unsigned idle = 0;

	while (after && access(after, F_OK) < 0)
		usleep(10000);
	while (at < total) {
		size_t n = total - at < sizeof(got) ? total - at : sizeof(got);
		ssize_t r;

		await_fd(fd, POLLIN);
		r = read(fd, got, n);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (r == 0 && is_device(fd) && idle++ < LIMIT_MS / 10) { /* nobody is there at this time */
			usleep(10000);
			continue;
		}
		if (r <= 0) {
			errno = r ? errno : EPIPE;
			fail("read");
		}
		noise(want, at, (size_t)r, seed);
		for (ssize_t i = 0; i < r; i++) {
			if (got[i] == want[i])
				continue;
			fprintf(stderr, "%s: byte %llu of %llu is 0x%02x, not 0x%02x\n", name,
				(unsigned long long)(at + (uint64_t)i), (unsigned long long)total, got[i],
				want[i]);
			exit(1);
		}
		at += (uint64_t)r;
	}
}

static int reap(int n)
{
	int failed = 0, status;

	while (n--)
		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			failed = 1;
	return failed;
}

static int both(int argc, char **argv)
{
	uint64_t mine = strtoull(argv[0], NULL, 0), theirs = strtoull(argv[1], NULL, 0),
		 total = strtoull(argv[2], NULL, 0);
	int i, failed = 0;

	for (i = 3; i < argc; i++) {
		if (fork())
			continue;
		int fd = end_open(argv[i]);
		pid_t writer = fork();
		if (!writer) {
			send_noise(fd, mine + (uint64_t)i, total);
			_exit(0);
		}
		expect_noise(fd, theirs + (uint64_t)i, total);
		_exit(reap(1));
	}
	failed = reap(argc - 3);
	if (!failed)
		printf("%d times %llu bytes each way\n", argc - 3, (unsigned long long)total);
	return failed;
}

static size_t message_size(uint32_t i)
{
	return 8 + i * 37 % (MESSAGE - 8 + 1);
}

/* False: it is not taken at this time. The rpmsg bus cannot say when it would be. */
static bool send_message(int fd, uint32_t i)
{
	uint8_t buf[MESSAGE];
	ssize_t r;

	noise(buf, (uint64_t)i * MESSAGE, message_size(i), 5);
	r = put(fd, buf, message_size(i));
	if (r < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM))
		return false;
	if (r != (ssize_t)message_size(i))
		fail("write");
	return true;
}

/* False: it is not there yet. */
static bool expect_message(int fd, uint32_t i)
{
	uint8_t got[MESSAGE + 1], want[MESSAGE];
	ssize_t r = read(fd, got, sizeof(got));

	if (r < 0 && errno == EAGAIN)
		return false;
	noise(want, (uint64_t)i * MESSAGE, message_size(i), 5);
	if (r == (ssize_t)message_size(i) && memcmp(got, want, (size_t)r) == 0)
		return true;
	fprintf(stderr, "%s: message %u came back with %zd of %zu bytes, or wrong ones\n", name, i, r,
		message_size(i));
	exit(1);
}

/* Many are under way at a time, and go in bursts: each turn of the other side is for several. */
static int messages(uint32_t count, int fd)
{
	uint32_t sent = 0, got = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (got < count) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (sent - got <= WINDOW / 2)
			while (sent < count && sent - got < WINDOW && send_message(fd, sent))
				sent++;
		if (poll(&p, 1, sent > got ? LIMIT_MS : 10) <= 0 && sent > got) {
			errno = ETIMEDOUT;
			fail("poll");
		}
		while (got < sent && expect_message(fd, got))
			got++;
	}
	printf("%u messages came back\n", got);
	return 0;
}

static int echo(int fd)
{
	uint8_t buf[16384];
	ssize_t r, w;

	while ((r = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0; at < r; at += w)
			if ((w = put(fd, buf + at, (size_t)(r - at))) <= 0)
				fail("write");
	return r < 0 && errno != ECONNRESET && errno != EPIPE ? 1 : 0;
}

static int drain(int fd)
{
	uint8_t buf[16384];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	return 0;
}

/* Prints what is said up to a line "OK". */
static int ask(const char *text, int fd)
{
	static char buf[4096];
	size_t n = 0;

	if (put(fd, text, strlen(text)) < 0 || put(fd, "\r\n", 2) < 0)
		fail("write");
	while (!strstr(buf, "OK\r\n") && n < sizeof(buf) - 1) {
		ssize_t r;

		await_fd(fd, POLLIN);
		r = read(fd, buf + n, sizeof(buf) - 1 - n);
		if (r <= 0)
			fail("read");
		n += (size_t)r;
	}
	fputs(buf, stdout);
	return 0;
}

static int channel(char **argv)
{
	struct rpmsg_endpoint_info info = {
		.src = (uint32_t)strtoul(argv[2], NULL, 0), .dst = (uint32_t)strtoul(argv[3], NULL, 0)};
	int fd = end_open(argv[0]);

	snprintf(info.name, sizeof(info.name), "%s", argv[1]);
	if (ioctl(fd, RPMSG_CREATE_EPT_IOCTL, &info) < 0)
		fail("RPMSG_CREATE_EPT_IOCTL");
	return 0;
}

static int unmake(int fd)
{
	if (ioctl(fd, RPMSG_DESTROY_EPT_IOCTL) < 0)
		fail("RPMSG_DESTROY_EPT_IOCTL");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (strcmp(what, "both") == 0 && argc > 5)
		return both(argc - 2, argv + 2);
	if (strcmp(what, "send") == 0 && argc == 5)
		return send_noise(end_open(argv[4]), strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0)),
		       0;
	if (strcmp(what, "expect") == 0 && argc == 5)
		return expect_noise(
			       end_open(argv[4]), strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0)),
		       0;
	if (strcmp(what, "messages") == 0 && argc == 4)
		return messages((uint32_t)strtoul(argv[2], NULL, 0), end_open(argv[3]));
	if (strcmp(what, "echo") == 0 && argc == 3)
		return echo(end_open(argv[2]));
	if (strcmp(what, "drain") == 0 && argc == 3)
		return drain(end_open(argv[2]));
	if (strcmp(what, "ask") == 0 && argc == 4)
		return ask(argv[2], end_open(argv[3]));
	if (strcmp(what, "channel") == 0 && argc == 6)
		return channel(argv + 2);
	if (strcmp(what, "free") == 0 && argc == 3)
		return unmake(end_open(argv[2]));
	fprintf(stderr, "portio: wrong usage\n");
	return 2;
}
