/* SPDX-License-Identifier: MIT */
/*
 * A host end over standard input and output. A terminal there becomes raw: what is typed is the guest's, Ctrl-C too unless
 * `signals` says otherwise. However we end, by a signal that nobody can catch too, the terminal must not stay so: a
 * small process of its own, which holds nothing but the terminal and the reading end of a pipe, waits for our end
 * and puts it back.
 *
 * Non-blocking mode belongs to the open file, which we share with whoever started us; a terminal or pipe is opened again.
 */
#include "port-host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

/* The guard. Runs after fork() in a process that may have had threads: only what is safe then. */
static _Noreturn void guard_main(int tty, int pipe_end, const struct termios *before)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTTOU, SIGTSTP, SIGPIPE};
	char byte;
	ssize_t n;

	for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
		sigaction(ignored[i], &ignore, NULL);
	prctl(PR_SET_NAME, "tty-guard");
	dup2(tty, 0);
	dup2(pipe_end, 1);
	syscall(SYS_close_range, 2u, ~0u, 0u);
	do
		n = read(1, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 0) /* a byte says that it was restored in good order */
		tcsetattr(0, TCSANOW, before);
	_exit(0);
}

static int guard_start(struct port_tty *t, const struct termios *before)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork(); /* twice, so that it is nobody's to wait for */
	if (pid == 0) {
		if (fork() == 0) {
			close(ends[1]);
			guard_main(t->fd, ends[0], before);
		}
		_exit(0);
	}
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return -errno;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	t->guard = ends[1];
	return 0;
}

static struct termios tty_before; /* one terminal: there is one standard input */

static int make_raw(struct port *p, int fd)
{
	struct termios raw;
	int err;

	if (tcgetattr(fd, &tty_before) < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	p->tty.fd = fd;
	err = guard_start(&p->tty, &tty_before);
	if (err) {
		p->tty.fd = -1;
		return log_errno(err, "%s: %s", p->label, p->cfg.host);
	}
	raw = tty_before;
	cfmakeraw(&raw);
	if (p->cfg.signals)
		raw.c_lflag |= ISIG;
	return tcsetattr(fd, TCSANOW, &raw) < 0 ? log_errno(errno, "%s: %s", p->label, p->cfg.host) : 0;
}

void port_tty_close(struct port *p)
{
	struct port_tty *t = &p->tty;
	sigset_t block, old;

	watch_del(&t->winch);
	fd_close(&t->winch_fd);
	if (t->fd < 0)
		return;
	sigemptyset(&block);
	sigaddset(&block, SIGTTOU);
	sigprocmask(SIG_BLOCK, &block, &old);
	if (tcsetattr(t->fd, TCSANOW, &tty_before) == 0 && write(t->guard, "", 1) < 0)
		log_debug("the terminal's guard has gone: %s", p->label);
	sigprocmask(SIG_SETMASK, &old, NULL);
	fd_close(&t->guard);
	t->fd = -1;
}

/* Size */

static void winch(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, tty.winch);
	struct signalfd_siginfo info;

	(void)events;
	while (read(w->fd, &info, sizeof(info)) == sizeof(info))
		;
	if (p->tty.fd >= 0)
		port_look_size(p, p->tty.fd);
}

static void watch_size(struct port *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->tty.winch.ready = winch;
	p->tty.winch_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->tty.winch_fd >= 0)
		watch_add(p->loop, &p->tty.winch, p->tty.winch_fd, EPOLLIN);
	port_look_size(p, p->tty.fd);
}

/* Open */

static int own_fd(int fd, int mode)
{
	char path[32];
	struct stat st;
	int own = -1;

	if (fstat(fd, &st) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (isatty(fd) || S_ISFIFO(st.st_mode))
		own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (own >= 0)
		return own;
	if (S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode) || isatty(fd))
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

int port_stdio_open(struct port *p)
{
	int rfd = own_fd(STDIN_FILENO, O_RDONLY), wfd = own_fd(STDOUT_FILENO, O_WRONLY), err;

	if (rfd < 0 || wfd < 0) {
		err = errno;
		fd_close(&rfd);
		fd_close(&wfd);
		return log_errno(err, "%s: %s", p->label, p->cfg.host);
	}
	if (isatty(rfd)) {
		err = make_raw(p, STDIN_FILENO);
		if (err) {
			close(rfd);
			close(wfd);
			return err;
		}
		watch_size(p);
	}
	port_up_pair(p, rfd, wfd);
	return 0;
}
