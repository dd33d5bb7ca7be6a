/* SPDX-License-Identifier: MIT */
/* A client of the control socket for the device tests. */
#include <sys/socket.h>
#include <sys/un.h>

#include "frontend.h"

enum { LINE_ROOM = 1 << 20 };

int fe_control_open(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int64_t end = fe_now_ms() + fe_limit_ms;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(fd);
	CHECK(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path) + 1);
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		if (fe_now_ms() > end)
			FAIL("%s: %s", path, strerror(errno));
		usleep(2000);
	}
	return fd;
}

void fe_control_send(int fd, const char *text)
{
	size_t n = strlen(text);

	while (n) {
		ssize_t r = send(fd, text, n, MSG_NOSIGNAL);

		CHECK_SYS(r);
		text += r;
		n -= (size_t)r;
	}
}

/* Byte by byte at the end of a line: nothing of the next one may be taken, since fds have no buffers here. */
const char *fe_control_line(int fd)
{
	static char line[LINE_ROOM];
	size_t n = 0;

	for (;;) {
		ssize_t r;
		char *end;

		if (!fe_poll(fd, POLLIN, fe_limit_ms))
			FAIL("control socket: no line after %d ms", fe_limit_ms);
		r = recv(fd, line + n, sizeof(line) - 1 - n, MSG_PEEK);
		if (r <= 0)
			FAIL("control socket: %s", r ? strerror(errno) : "end of file");
		end = memchr(line + n, '\n', (size_t)r);
		r = recv(fd, line + n, end ? (size_t)(end + 1 - (line + n)) : (size_t)r, 0);
		CHECK(r > 0);
		n += (size_t)r;
		if (end) {
			line[n - 1] = '\0';
			return line;
		}
	}
}

const char *fe_control_ask(int fd, const char *request)
{
	const char *line;

	fe_control_send(fd, request);
	fe_control_send(fd, "\n");
	do
		line = fe_control_line(fd);
	while (strncmp(line, "{\"event\":", 9) == 0);
	return line;
}

const char *fe_control(int fd, const char *command)
{
	char request[256];

	snprintf(request, sizeof(request), "{\"execute\":\"%s\"}", command);
	return fe_control_ask(fd, request);
}

const char *fe_control_event(int fd, const char *name)
{
	char start[128];
	const char *line;

	snprintf(start, sizeof(start), "{\"event\":\"%s\",", name);
	do
		line = fe_control_line(fd);
	while (strncmp(line, start, strlen(start)) != 0);
	return line;
}
