/* SPDX-License-Identifier: MIT */
/* A real NBD server, see nbd-server.h. */
#include "nbd-server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

void nbd_server_needs(const char *program)
{
	char command[128];

	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	if (system(command) != 0)
		tap_skip("no %s here", program);
}

void nbd_server_init(struct nbd_server *s)
{
	snprintf(s->socket, sizeof(s->socket), "%s/nbd", fe_tmpdir());
	snprintf(s->uri, sizeof(s->uri), "--nbd=nbd+unix:///?socket=%s", s->socket);
}

void nbd_server_init_tcp(struct nbd_server *s, const char *scheme, const char *rest)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(bind(fd, (struct sockaddr *)&a, len));
	CHECK_SYS(listen(fd, 16));
	CHECK_SYS(getsockname(fd, (struct sockaddr *)&a, &len));
	s->tcp = fd;
	s->port = a.sin_port;
	snprintf(s->uri, sizeof(s->uri), "--nbd=%s127.0.0.1:%u/%s", scheme, ntohs(s->port), rest);
}

static int connected(const struct nbd_server *s)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = s->port};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(s->port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(un.sun_path, s->socket, strlen(s->socket) + 1);
	if (s->port ? connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0
		    : connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool serves(const struct nbd_server *s)
{
	const struct timeval moment = {.tv_usec = 500000};
	int fd = connected(s);
	char magic[8];
	bool ok;

	if (fd < 0)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
	ok = recv(fd, magic, sizeof(magic), MSG_WAITALL) == sizeof(magic);
	close(fd);
	return ok;
}

/* A socket that listens already, as systemd passes it. */
static void pass_listener(int fd)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	if (fd == 3)
		fcntl(fd, F_SETFD, 0);
	else
		dup2(fd, 3);
}

static void child(const struct nbd_server *s)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2); /* it complains of our looking whether it is there */
	if (s->port)
		pass_listener(s->tcp);
	execvp(s->args[0], (char *const *)s->args);
	_exit(127);
}

void nbd_server_restart(struct nbd_server *s)
{
	struct timespec moment = {.tv_nsec = 5000000};
	int64_t end = fe_now_ms() + fe_limit_ms;

	unlink(s->socket);
	s->pid = fork();
	CHECK_SYS(s->pid);
	if (s->pid == 0)
		child(s);
	while (!serves(s)) {
		if (fe_now_ms() > end)
			FAIL("%s does not serve", s->args[0]);
		CHECK_EQ(waitpid(s->pid, NULL, WNOHANG), 0);
		nanosleep(&moment, NULL);
	}
}

void nbd_server_start(struct nbd_server *s, const char *const *args)
{
	bool qemu = strcmp(args[0], "qemu-nbd") == 0;
	unsigned n = 0;

	s->args[n++] = *args++;
	if (!qemu)
		s->args[n++] = "-f";
	if (!s->port) {
		s->args[n++] = qemu ? "-k" : "-U";
		s->args[n++] = s->socket;
	}
	if (qemu)
		s->args[n++] = "-t";
	while (*args && n < 15)
		s->args[n++] = *args++;
	s->args[n] = NULL;
	nbd_server_restart(s);
}

void nbd_server_kill(struct nbd_server *s, int sig)
{
	kill(s->pid, sig);
	CHECK_EQ(waitpid(s->pid, NULL, 0), s->pid);
	s->pid = 0;
}

void nbd_server_hang(struct nbd_server *s)
{
	int status;

	CHECK_SYS(kill(s->pid, SIGSTOP));
	CHECK_EQ(waitpid(s->pid, &status, WUNTRACED), s->pid);
	CHECK(WIFSTOPPED(status));
}
