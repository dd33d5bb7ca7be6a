/* SPDX-License-Identifier: MIT */
/*
 * Running another program with limits, see probe.h. Two things are waited for: output and the end of the
 * process (a pidfd). The process decides: once it has ended, only what already lies in the pipe is read, so a
 * child of its that keeps the pipe open cannot hold us. The group is killed while its leader is still a
 * zombie, when the group's id can belong to nobody else.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "util.h"

extern char **environ;

struct probe {
	pid_t pid;
	int pidfd, out; /* the end of the process; its standard output, -1 after end of file */
	uint64_t deadline;
	char *text; /* PROBE_MAX_OUTPUT + 1 bytes */
	size_t len;
	char *why;
	size_t why_len;
};

static int fail(struct probe *p, int err, const char *text)
{
	snprintf(p->why, p->why_len, "%s", text);
	return -err;
}

static int spawn(struct probe *p, const char *binary, int out)
{
	char *argv[] = {(char *)(uintptr_t)binary, (char *)(uintptr_t) "--print-capabilities", NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, defaults;
	int r;

	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGXFSZ);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(
		&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	r = posix_spawn(&p->pid, binary, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return r ? fail(p, r, strerror(r)) : 0;
}

/* Takes what is there. -EAGAIN: nothing now; 0: end of file. */
static int read_some(struct probe *p)
{
	ssize_t n = read(p->out, p->text + p->len, PROBE_MAX_OUTPUT + 1 - p->len);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : fail(p, errno, strerror(errno));
	if (n == 0)
		return 0;
	p->len += (size_t)n;
	if (p->len > PROBE_MAX_OUTPUT)
		return fail(p, EFBIG, "writes too much");
	return 1;
}

/* Reads until the process has ended and its output is taken. */
static int collect(struct probe *p)
{
	for (;;) {
		struct pollfd fds[] = {{.fd = p->pidfd, .events = POLLIN}, {.fd = p->out, .events = POLLIN}};
		uint64_t now = time_ns();
		int r;

		if (now >= p->deadline)
			return fail(p, ETIMEDOUT, "does not answer in time");
		r = poll(fds, 2, (int)((p->deadline - now) / 1000000 + 1));
		if (r < 0 && errno != EINTR)
			return fail(p, errno, strerror(errno));
		if (r <= 0)
			continue;
		r = fds[1].revents ? read_some(p) : -EAGAIN;
		if (r < 0 && r != -EAGAIN)
			return r;
		if (r == 0)
			fd_close(&p->out);
		if (r != 1 && fds[0].revents)
			return 0;
	}
}

/* Ends whatever is left of the group; 0 when the program itself ended well. */
static int reap(struct probe *p)
{
	int status = 0;

	kill(-p->pid, SIGKILL);
	while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status)) {
		snprintf(p->why, p->why_len, "killed by signal %d", WTERMSIG(status));
		return -EIO;
	}
	if (WEXITSTATUS(status) != 0) {
		snprintf(p->why, p->why_len, "exit status %d", WEXITSTATUS(status));
		return -EIO;
	}
	return 0;
}

int probe_run(const char *binary, uint64_t limit_ms, char **output, size_t *len, char *why, size_t why_len)
{
	struct probe p = {.pidfd = -1, .why = why, .why_len = why_len};
	CLEANUP_FREE char *text = malloc(PROBE_MAX_OUTPUT + 1);
	CLEANUP_FD int out = -1;
	int pipe_fds[2], r;

	p.text = text;
	p.deadline = time_ns() + limit_ms * 1000000;
	if (!text || pipe2(pipe_fds, O_CLOEXEC) < 0)
		return fail(&p, ENOMEM, "no pipe or no memory");
	p.out = pipe_fds[0];
	out = pipe_fds[1];
	fcntl(p.out, F_SETFL, O_NONBLOCK);
	r = spawn(&p, binary, out);
	fd_close(&out);
	if (r == 0) {
		p.pidfd = pidfd_open(p.pid, 0);
		r = p.pidfd < 0 ? fail(&p, errno, "pidfd_open") : collect(&p);
		/* A failure while collecting says more than the signal that followed from it. */
		if (r < 0) {
			char saved[PROBE_WHY_LEN];

			snprintf(saved, sizeof(saved), "%s", why);
			reap(&p);
			snprintf(why, why_len, "%s", saved);
		} else {
			r = reap(&p);
		}
	}
	fd_close(&p.out);
	fd_close(&p.pidfd);
	if (r < 0)
		return r;
	*output = text;
	*len = p.len;
	text = NULL;
	return 0;
}
