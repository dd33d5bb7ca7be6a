/* SPDX-License-Identifier: MIT */
/* See listener.h. */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

#define RETRY_FIRST_NS (UINT64_C(50) * 1000 * 1000)
#define RETRY_LAST_NS  (UINT64_C(1000) * 1000 * 1000)

static int open_fd(struct listener *l, int fd)
{
	int type, domain, listening, flags;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return log_errno(errno, "--fd=%d", fd);
	if (domain != AF_UNIX || type != SOCK_STREAM) {
		log_error("--fd=%d: is no Unix stream socket", fd);
		return -EINVAL;
	}
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return log_errno(errno, "--fd=%d", fd);
	l->fd = fd;
	l->once = !listening;
	return 0;
}

static void try_accept(struct watch *w, uint32_t events)
{
	struct listener *l = container_of(w, struct listener, watch);
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		/* out of descriptors or memory: the connection stays, so do not look again at once */
		log_guest_error("accept: %s", strerror(errno));
		watch_del(&l->watch);
		timer_arm_in(l->loop, &l->retry, RETRY_LAST_NS);
		return;
	}
	watch_del(&l->watch);
	l->connected(l, fd);
}

static void accept_again(struct timer *t)
{
	struct listener *l = container_of(t, struct listener, retry);

	listener_next(l);
}

static void try_connect(struct timer *t)
{
	struct listener *l = container_of(t, struct listener, retry);
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr;

	if (fd >= 0 && !sockpath_address(&addr, "--connect", l->connect_path) &&
		!connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		l->delay_ns = RETRY_FIRST_NS;
		l->connected(l, fd_take(&fd));
		return;
	}
	log_info("--connect=%s: %s, trying again", l->connect_path, strerror(errno));
	timer_arm_in(l->loop, &l->retry, l->delay_ns);
	l->delay_ns = MIN(l->delay_ns * 2, RETRY_LAST_NS);
}

int listener_open(struct listener *l, struct loop *loop, const char *path, uint32_t mode, int fd,
	const char *connect_path)
{
	struct sockaddr_un addr;

	l->loop = loop;
	l->fd = l->watch.fd = -1;
	l->watch.ready = try_accept;
	l->retry.expired = connect_path ? try_connect : accept_again;
	l->delay_ns = RETRY_FIRST_NS;
	if (path) {
		l->fd = sockpath_listen(
			&l->path, l->option ? l->option : "--socket-path", path, SOCK_STREAM, mode, 8);
		return l->fd < 0 ? l->fd : 0;
	}
	if (fd >= 0)
		return open_fd(l, fd);
	l->connect_path = connect_path;
	return sockpath_address(&addr, "--connect", connect_path);
}

bool listener_next(struct listener *l)
{
	int fd;

	if (l->connect_path) {
		timer_arm_in(l->loop, &l->retry, l->once ? RETRY_FIRST_NS : 1);
		l->once = true; /* the first try comes at once */
		return true;
	}
	if (l->once) {
		fd = fd_take(&l->fd);
		if (fd < 0)
			return false;
		l->connected(l, fd);
		return true;
	}
	if (l->fd < 0 || watch_add(l->loop, &l->watch, l->fd, EPOLLIN) < 0)
		return false;
	return true;
}

void listener_close(struct listener *l)
{
	timer_disarm(&l->retry);
	watch_del(&l->watch);
	fd_close(&l->fd);
	sockpath_remove(&l->path);
}
