/* SPDX-License-Identifier: MIT */
/* A real NBD server, see nbd-server.h. */
#include "nbd-server.h"

#include <fcntl.h>
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

static bool serves(const struct nbd_server *s)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char magic[8];
	bool ok;

	memcpy(a.sun_path, s->socket, strlen(s->socket) + 1);
	ok = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
	     recv(fd, magic, sizeof(magic), MSG_WAITALL) == sizeof(magic);
	close(fd);
	return ok;
}

static void child(const struct nbd_server *s)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(null, 0);
	dup2(null, 1);
	dup2(null, 2); /* it complains of our looking whether it is there */
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
	s->args[n++] = qemu ? "-k" : "-U";
	s->args[n++] = s->socket;
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
