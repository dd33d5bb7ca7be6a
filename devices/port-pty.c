/* SPDX-License-Identifier: MIT */
/*
 * A host end over a pseudo-terminal. The kernel does not tell a master when its other side is opened, or when the window's
 * size changes. But opening and closing are events of inotify, and the size is looked at then, and now and then while
 * the terminal is open.
 *
 * A terminal that is opened counts only when it is still open a moment later: stty(1) and the like come and go, and would
 * swallow what is kept for a reader.
 */
#include "port-host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>

#define LASTING_NS (UINT64_C(40) * 1000 * 1000)
#define LOOK_NS	   (UINT64_C(400) * 1000 * 1000)

static bool is_open(const struct port *p)
{
	struct pollfd poller = {.fd = p->pty.master, .events = POLLIN};

	return poll(&poller, 1, 0) >= 0 && !(poller.revents & POLLHUP);
}

static void look(struct timer *t)
{
	struct port *p = container_of(t, struct port, pty.look);
	bool there = is_open(p);
	int fd;

	port_look_size(p, p->pty.master);
	if (there && !p->up) {
		fd = fcntl(p->pty.master, F_DUPFD_CLOEXEC, 3);
		if (fd >= 0)
			port_up(p, fd);
	}
	if (there || p->pty.notify < 0)
		timer_arm_in(p->loop, t, LOOK_NS);
}

static void news(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, pty.news);
	char buf[4096];

	(void)events;
	while (read(w->fd, buf, sizeof(buf)) > 0)
		;
	port_look_size(p, p->pty.master);
	timer_arm_in(p->loop, &p->pty.look, LASTING_NS);
}

void port_pty_wait(struct port *p)
{
	timer_arm_in(p->loop, &p->pty.look, LASTING_NS);
}

static int set_raw(int slave)
{
	struct termios t;

	if (tcgetattr(slave, &t) < 0)
		return -errno;
	cfmakeraw(&t);
	return tcsetattr(slave, TCSANOW, &t) < 0 ? -errno : 0;
}

static int make(struct port *p)
{
	CLEANUP_FD int slave = -1;
	struct port_pty *y = &p->pty;

	y->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (y->master < 0 || grantpt(y->master) < 0 || unlockpt(y->master) < 0)
		return -errno;
	if (ptsname_r(y->master, y->slave, sizeof(y->slave)) != 0)
		return -errno;
	slave = open(y->slave, O_RDWR | O_NOCTTY | O_CLOEXEC);
	return slave < 0 ? -errno : set_raw(slave);
}

/* Only a link is replaced: one that an earlier run left. */
static int make_link(struct port *p)
{
	char old[8];

	if (!p->cfg.path)
		return 0;
	if (readlink(p->cfg.path, old, sizeof(old)) >= 0)
		unlink(p->cfg.path);
	if (symlink(p->pty.slave, p->cfg.path) < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	p->pty.linked = true;
	return 0;
}

static void watch_slave(struct port *p)
{
	struct port_pty *y = &p->pty;

	y->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (y->notify >= 0 && inotify_add_watch(y->notify, y->slave, IN_OPEN | IN_CLOSE) >= 0 &&
		watch_add(p->loop, &y->news, y->notify, EPOLLIN) == 0)
		return;
	log_info("%s: no inotify: %s; %s is looked at now and then", p->label, strerror(errno), y->slave);
	fd_close(&y->notify);
}

int port_pty_open(struct port *p)
{
	int err = make(p);

	p->pty.news.ready = news;
	p->pty.look.expired = look;
	if (err)
		return log_errno(err, "%s: %s", p->label, p->cfg.host);
	err = make_link(p);
	if (err)
		return err;
	watch_slave(p);
	timer_arm_in(p->loop, &p->pty.look, LASTING_NS);
	log_info("%s: the pseudo-terminal is %s", p->label, p->pty.slave);
	return 0;
}

void port_pty_close(struct port *p)
{
	struct port_pty *y = &p->pty;
	char target[sizeof(y->slave) + 1];
	ssize_t n;

	watch_del(&y->news);
	timer_disarm(&y->look);
	if (y->linked) {
		n = readlink(p->cfg.path, target, sizeof(target));
		if (n == (ssize_t)strlen(y->slave) && memcmp(target, y->slave, (size_t)n) == 0)
			unlink(p->cfg.path);
	}
	fd_close(&y->notify);
	fd_close(&y->master);
}
