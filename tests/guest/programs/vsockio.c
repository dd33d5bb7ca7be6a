/* SPDX-License-Identifier: MIT */
/*
 * The programs at both ends of the socket tests, in the guest and on the host. Everything that is sent is checked when it
 * comes back.
 *
 *	vsockio serve ADDRESS		gives back what comes, until it is killed
 *	vsockio hello ADDRESS		says hello to each, and closes first
 *	vsockio hold ADDRESS FILE	reads nothing before FILE exists; then all, and prints how much
 *	vsockio bulk ADDRESS MIB	so much there and back, then the end of each way
 *	vsockio many ADDRESS N		N connections at a time
 *	vsockio messages ADDRESS	messages of many sizes
 *	vsockio refused ADDRESS		must not be connected
 *	vsockio greeted ADDRESS		hello, then the end
 *	vsockio idle ADDRESS		an echo, then waits for the end, and says which one it is
 *	vsockio fill ADDRESS		writes until nothing fits, prints how much, and closes
 *
 * ADDRESS is [seq:]vsock:CID:PORT, [seq:]unix:PATH or hybrid:PATH:PORT.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHUNK = 64 << 10, CONNS = 4096, LIMIT_MS = 60000 };

static void die(const char *what)
{
	fprintf(stderr, "vsockio: %s: %s\n", what, strerror(errno));
	exit(1);
}

static bool require(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "vsockio: not so: %s\n", what);
		exit(1);
	}
	return ok;
}

static uint8_t byte_at(uint64_t i)
{
	return (uint8_t)(i ^ (i >> 8) * 31 ^ (i >> 16) * 7);
}

static void wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	require(poll(&p, 1, LIMIT_MS) == 1, "something happens in time");
}

/* --- addresses --- */

struct address {
	int type;
	union {
		struct sockaddr sa;
		struct sockaddr_vm vm;
		struct sockaddr_un un;
	};
	socklen_t len;
	const char *connect; /* hybrid: the port to ask for */
};

static struct address address(char *text)
{
	struct address a = {.type = SOCK_STREAM};
	char *colon;

	if (strncmp(text, "seq:", 4) == 0) {
		a.type = SOCK_SEQPACKET;
		text += 4;
	}
	if (strncmp(text, "vsock:", 6) == 0) {
		a.vm.svm_family = AF_VSOCK;
		a.vm.svm_cid = (unsigned)strtoul(text + 6, &colon, 10);
		a.vm.svm_port = (unsigned)strtoul(colon + 1, NULL, 10);
		a.len = sizeof(a.vm);
		return a;
	}
	a.un.sun_family = AF_UNIX;
	a.len = sizeof(a.un);
	if (strncmp(text, "hybrid:", 7) == 0) {
		colon = strrchr(text, ':');
		*colon = '\0';
		a.connect = colon + 1;
		text += 2;
	}
	snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s", text + 5);
	return a;
}

static int listener(char *text)
{
	struct address a = address(text);
	int fd = socket(a.sa.sa_family, a.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, &a.sa, a.len) < 0 || listen(fd, 1024) < 0)
		die(text);
	printf("listening\n");
	fflush(stdout);
	return fd;
}

/* -1 with errno: not connected. */
static int try_connect(const struct address *a)
{
	int fd = socket(a->sa.sa_family, a->type | SOCK_CLOEXEC, 0), err;
	char line[64];
	size_t n = 0;

	if (fd < 0)
		die("socket");
	if (connect(fd, &a->sa, a->len) < 0) {
		err = errno;
		close(fd);
		errno = err;
		return -1;
	}
	if (!a->connect)
		return fd;
	dprintf(fd, "CONNECT %s\n", a->connect);
	do {
		if (read(fd, line + n, 1) != 1) {
			close(fd);
			errno = ECONNREFUSED;
			return -1;
		}
	} while (line[n] != '\n' && ++n < sizeof(line));
	require(strncmp(line, "OK ", 3) == 0, "the answer to CONNECT is OK");
	return fd;
}

static int connected(char *text)
{
	struct address a = address(text);
	int fd = try_connect(&a);

	if (fd < 0)
		die(text);
	return fd;
}

/* --- servers --- */

struct client {
	int fd;
	size_t at, len;
	bool eof;
	uint8_t buf[CHUNK];
};

static struct client *clients[CONNS];
static unsigned nclients;

static void client_step(struct client *c, short events)
{
	ssize_t n;

	if (c->at == c->len && (events & (POLLIN | POLLHUP | POLLERR))) {
		n = recv(c->fd, c->buf, CHUNK, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		c->eof = n <= 0;
		c->at = 0;
		c->len = n > 0 ? (size_t)n : 0;
		if (n == 0)
			shutdown(c->fd, SHUT_WR);
	}
	if (c->at < c->len) {
		n = send(c->fd, c->buf + c->at, c->len - c->at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			c->at += (size_t)n;
		else if (errno != EAGAIN)
			c->eof = true;
	}
}

static void client_add(int fd)
{
	struct client *c = nclients < CONNS ? calloc(1, sizeof(*c)) : NULL;

	require(c != NULL, "not too many clients");
	c->fd = fd;
	clients[nclients++] = c;
}

static void serve(char *text)
{
	static struct pollfd p[CONNS + 1];
	int l = listener(text), fd;

	for (;;) {
		p[0] = (struct pollfd){.fd = l, .events = POLLIN};
		for (unsigned i = 0; i < nclients; i++)
			p[i + 1] = (struct pollfd){.fd = clients[i]->fd,
				.events = clients[i]->at < clients[i]->len ? POLLOUT : POLLIN};
		if (poll(p, nclients + 1, -1) < 0)
			die("poll");
		for (unsigned i = nclients; i-- > 0;) {
			if (p[i + 1].revents)
				client_step(clients[i], p[i + 1].revents);
			if (clients[i]->eof) {
				close(clients[i]->fd);
				free(clients[i]);
				clients[i] = clients[--nclients];
			}
		}
		while ((fd = accept4(l, NULL, NULL, SOCK_CLOEXEC)) >= 0)
			client_add(fd);
	}
}

static void hello(char *text)
{
	int l = listener(text), fd;

	for (;;) {
		wait_for(l, POLLIN);
		fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0 && write(fd, "hello", 5) == 5)
			close(fd);
	}
}

static void hold(char *text, const char *file)
{
	static uint8_t buf[CHUNK];
	int l = listener(text), fd;
	uint64_t total = 0;
	ssize_t n;

	wait_for(l, POLLIN);
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	for (unsigned i = 0; access(file, F_OK) < 0 && i < LIMIT_MS / 10; i++)
		usleep(10000);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++)
			require(buf[i] == byte_at(total++), "the right byte");
	printf("held %llu\n", (unsigned long long)total);
}

/* --- clients --- */

static void bulk(char *text, uint64_t total)
{
	static uint8_t out[CHUNK], in[CHUNK];
	int fd = connected(text);
	uint64_t sent = 0, got = 0;
	ssize_t n;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN | (sent < total ? POLLOUT : 0)};
		size_t len = total - sent < CHUNK ? (size_t)(total - sent) : CHUNK - sent % 1000;

		require(poll(&p, 1, LIMIT_MS) == 1, "something happens in time");
		if (p.revents & POLLIN) {
			n = recv(fd, in, sizeof(in), MSG_DONTWAIT);
			if (n == 0)
				break;
			if (n < 0 && errno != EAGAIN)
				die("recv");
			for (ssize_t i = 0; i < n; i++)
				require(in[i] == byte_at(got++), "the right byte");
		}
		if (sent < total && (p.revents & POLLOUT)) {
			len = len < total - sent ? len : (size_t)(total - sent);
			for (size_t i = 0; i < len; i++)
				out[i] = byte_at(sent + i);
			n = send(fd, out, len, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				die("send");
			sent += n > 0 ? (uint64_t)n : 0;
			if (sent == total)
				shutdown(fd, SHUT_WR);
		}
	}
	require(got == total, "all of it came back before the end");
	close(fd);
}

static void many(char *text, unsigned count)
{
	static int fds[CONNS];
	struct address a = address(text);
	char out[100], in[100];

	require(count <= CONNS, "not too many");
	for (unsigned i = 0; i < count; i++) {
		fds[i] = try_connect(&a);
		if (fds[i] < 0)
			die("connect");
	}
	for (unsigned i = 0; i < count; i++) {
		memset(out, (int)i, sizeof(out));
		memcpy(out, &i, sizeof(i));
		require(write(fds[i], out, sizeof(out)) == sizeof(out), "written");
	}
	for (unsigned i = 0; i < count; i++) {
		memset(out, (int)i, sizeof(out));
		memcpy(out, &i, sizeof(i));
		wait_for(fds[i], POLLIN);
		require(recv(fds[i], in, sizeof(in), MSG_WAITALL) == sizeof(in), "read");
		require(memcmp(in, out, sizeof(in)) == 0, "it is this connection's");
		close(fds[i]);
	}
}

static void messages(char *text)
{
	static uint8_t out[60000], in[60001];
	int fd = connected(text);

	for (unsigned i = 0; i < 200; i++) {
		size_t len = 1 + (i * 7919UL) % (sizeof(out) - 1);

		for (size_t k = 0; k < len; k++)
			out[k] = byte_at(k + i);
		require(send(fd, out, len, MSG_NOSIGNAL) == (ssize_t)len, "sent");
		wait_for(fd, POLLIN);
		require(recv(fd, in, sizeof(in), 0) == (ssize_t)len,
			"a message of the same length comes back");
		require(memcmp(in, out, len) == 0, "with the same bytes");
	}
	close(fd);
}

static void refused(char *text)
{
	struct address a = address(text);

	require(try_connect(&a) < 0, "the connection is refused");
	require(errno == ECONNRESET || errno == ECONNREFUSED, "at once");
}

static void greeted(char *text)
{
	int fd = connected(text);
	char in[8];

	wait_for(fd, POLLIN);
	require(recv(fd, in, 5, MSG_WAITALL) == 5 && memcmp(in, "hello", 5) == 0, "hello");
	wait_for(fd, POLLIN);
	require(read(fd, in, 1) == 0, "the end");
	close(fd);
}

static void idle(char *text)
{
	int fd = connected(text);
	char in[5];
	ssize_t n;

	require(write(fd, "hello", 5) == 5, "written");
	wait_for(fd, POLLIN);
	require(recv(fd, in, 5, MSG_WAITALL) == 5 && memcmp(in, "hello", 5) == 0, "hello");
	printf("connected\n");
	fflush(stdout);
	n = read(fd, in, 1);
	require(n <= 0, "nothing more comes");
	printf("%s\n", n == 0 ? "closed" : errno == ECONNRESET ? "reset" : strerror(errno));
}

static void fill(char *text)
{
	static uint8_t out[CHUNK];
	int fd = connected(text);
	uint64_t total = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		ssize_t n;

		if (poll(&p, 1, 500) == 0)
			break;
		for (size_t i = 0; i < sizeof(out); i++)
			out[i] = byte_at(total + i);
		n = send(fd, out, sizeof(out), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			die("send");
		total += n > 0 ? (uint64_t)n : 0;
	}
	printf("filled %llu\n", (unsigned long long)total);
	close(fd);
}

int main(int argc, char **argv)
{
	struct rlimit files = {65536, 65536};

	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	if (argc < 3)
		return 2;
	if (strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	else if (strcmp(argv[1], "hello") == 0)
		hello(argv[2]);
	else if (strcmp(argv[1], "hold") == 0 && argc == 4)
		hold(argv[2], argv[3]);
	else if (strcmp(argv[1], "bulk") == 0 && argc == 4)
		bulk(argv[2], strtoull(argv[3], NULL, 10) << 20);
	else if (strcmp(argv[1], "many") == 0 && argc == 4)
		many(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
	else if (strcmp(argv[1], "messages") == 0)
		messages(argv[2]);
	else if (strcmp(argv[1], "refused") == 0)
		refused(argv[2]);
	else if (strcmp(argv[1], "greeted") == 0)
		greeted(argv[2]);
	else if (strcmp(argv[1], "idle") == 0)
		idle(argv[2]);
	else if (strcmp(argv[1], "fill") == 0)
		fill(argv[2]);
	else
		return 2;
	return 0;
}
