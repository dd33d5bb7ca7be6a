/* SPDX-License-Identifier: MIT */
/*
 * The smallest vhost-user front-end, and odd sockets, for tests/cli/sockets.sh:
 *
 *	vhost-client hello PATH              connect, ask for the features, print them
 *	vhost-client hold PATH FILE          connect, ask, create FILE, stay until hung up on
 *	vhost-client serve PATH TIMES        listen, accept and ask that many times, one after the other
 *	vhost-client listening PATH CMD...   run CMD with a listening socket, its number instead of {fd}
 *	vhost-client connected CMD...        run CMD with a connected socket, ask, hang up, exit as CMD does
 *	vhost-client raw PATH LINE...        send the lines to a control socket, hang up half, print the answers;
 *	                                     --long=N stands for a line of N bytes
 *	vhost-client datagram CMD...         run CMD with a socket of the wrong kind
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TIMEOUT_S = 60, GET_FEATURES = 1, VERSION = 1, REPLY = 5 };

static int check(int result, const char *what)
{
	if (result >= 0)
		return result;
	fprintf(stderr, "vhost-client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void limit(int sock)
{
	struct timeval limit = {.tv_sec = TIMEOUT_S};

	check(setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), "SO_RCVTIMEO");
}

/* GET_FEATURES: an empty request of version 1; the answer is marked as a reply and holds a u64. */
static void ask(int sock)
{
	uint32_t request[3] = {GET_FEATURES, VERSION, 0}, answer[5];
	uint64_t features;
	size_t got = 0;

	limit(sock);
	check((int)send(sock, request, sizeof(request), MSG_NOSIGNAL), "send");
	while (got < sizeof(answer)) {
		ssize_t n = recv(sock, (char *)answer + got, sizeof(answer) - got, 0);

		if (check((int)n, "recv") == 0) {
			fprintf(stderr, "hung up on us\n");
			exit(1);
		}
		got += (size_t)n;
	}
	if (answer[0] != GET_FEATURES || answer[1] != REPLY || answer[2] != sizeof(features)) {
		fprintf(stderr, "wrong answer: %u %#x %u\n", answer[0], answer[1], answer[2]);
		exit(1);
	}
	memcpy(&features, answer + 3, sizeof(features));
	printf("%#" PRIx64 "\n", features);
	fflush(stdout);
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	return a;
}

static int connected_to(const char *path)
{
	struct sockaddr_un a = address(path);
	int sock = check(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

	check(connect(sock, (struct sockaddr *)&a, sizeof(a)), path);
	return sock;
}

static int listening_at(const char *path)
{
	struct sockaddr_un a = address(path);
	int sock = check(socket(AF_UNIX, SOCK_STREAM, 0), "socket");

	check(bind(sock, (struct sockaddr *)&a, sizeof(a)), path);
	check(listen(sock, 8), path);
	return sock;
}

/* Runs the command with every {fd} replaced; does not return. */
static void run(int fd, char **argv)
{
	for (char **word = argv; *word; word++) {
		char *at = strstr(*word, "{fd}"), *text;

		if (!at)
			continue;
		check(asprintf(&text, "%.*s%d%s", (int)(at - *word), *word, fd, at + 4), "asprintf");
		*word = text;
	}
	execvp(argv[0], argv);
	check(-1, argv[0]);
}

static int connected_command(char **argv)
{
	int pair[2], status;
	pid_t pid;

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	pid = check(fork(), "fork");
	if (!pid) {
		close(pair[0]);
		run(pair[1], argv);
	}
	close(pair[1]);
	ask(pair[0]);
	close(pair[0]);
	check(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void send_all(int sock, const char *bytes, size_t n)
{
	while (n) {
		size_t sent = (size_t)check((int)send(sock, bytes, n, MSG_NOSIGNAL), "send");

		bytes += sent;
		n -= sent;
	}
}

static int raw(const char *path, char **line)
{
	static char buf[65536];
	int sock = connected_to(path);
	ssize_t n;

	limit(sock);
	for (; *line; line++) {
		if (!strncmp(*line, "--long=", 7)) {
			memset(buf, 'x', sizeof(buf));
			for (long left = atol(*line + 7); left > 0; left -= (long)sizeof(buf))
				send_all(sock, buf, left < (long)sizeof(buf) ? (size_t)left : sizeof(buf));
		} else {
			send_all(sock, *line, strlen(*line));
		}
		send_all(sock, "\n", 1);
	}
	check(shutdown(sock, SHUT_WR), "shutdown");
	while ((n = check((int)recv(sock, buf, sizeof(buf), 0), "recv")) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	return fflush(stdout) != 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 2 ? argv[1] : "";
	char byte;
	int sock;

	if (!strcmp(mode, "hello")) {
		ask(connected_to(argv[2]));
	} else if (!strcmp(mode, "hold") && argc == 4) {
		sock = connected_to(argv[2]);
		ask(sock);
		close(check(open(argv[3], O_CREAT | O_WRONLY | O_CLOEXEC, 0600), argv[3]));
		return recv(sock, &byte, 1, 0) == 0 || errno == ECONNRESET ? 0 : 1;
	} else if (!strcmp(mode, "serve") && argc == 4) {
		sock = listening_at(argv[2]);
		limit(sock);
		for (int i = atoi(argv[3]); i > 0; i--) {
			int peer = check(accept(sock, NULL, NULL), "accept");

			ask(peer);
			close(peer);
		}
	} else if (!strcmp(mode, "listening") && argc > 3) {
		run(listening_at(argv[2]), argv + 3);
	} else if (!strcmp(mode, "raw")) {
		return raw(argv[2], argv + 3);
	} else if (!strcmp(mode, "connected")) {
		return connected_command(argv + 2);
	} else if (!strcmp(mode, "datagram")) {
		run(check(socket(AF_UNIX, SOCK_DGRAM, 0), "socket"), argv + 2);
	} else {
		fprintf(stderr, "vhost-client: wrong usage, see its source\n");
		return 2;
	}
	return 0;
}
