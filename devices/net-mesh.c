/* SPDX-License-Identifier: MIT */
/*
 * The switch between processes: a full mesh without a daemon.
 *
 * Who joins makes a socket of its own in the directory and connects to those that are there, under a lock, so that each two ports
 * of different processes have exactly one connection. Over it go two rings of shared memory (net-ring.h), one for each
 * direction, and an eventfd to wake each other; the end of the connection is the end of the peer. What a peer writes into a ring
 * is checked like a guest's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "net-switch.h"

enum { MAGIC = 0x56554d31 };

/* What each side sends when a connection begins, with its ring, and the eventfd that wakes it. */
struct hello {
	uint32_t magic, size;
};

void peer_wake(const struct peer *peer)
{
	uint64_t one = 1;

	if (peer->wake >= 0 && write(peer->wake, &one, sizeof(one)) < 0)
		return; /* it is full: the peer has enough reason to wake */
}

void peer_close(struct peer *peer)
{
	struct port *p = peer->port;

	watch_del(&peer->watch);
	fd_close(&peer->fd);
	fd_close(&peer->wake);
	net_ring_close(&peer->in);
	net_ring_close(&peer->out);
	p->nrings--;
	peer_gone(peer);
}

/* Its ring and eventfd, once; then nothing but the end. */
static void peer_hello(struct peer *peer)
{
	struct port *p = peer->port;
	struct hello hello = {0};
	struct iovec v = {&hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t r = recvmsg(peer->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = r > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fds[2] = {-1, -1};

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		c->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(fds, CMSG_DATA(c), MIN(c->cmsg_len - CMSG_LEN(0), sizeof(fds)));
	if (peer->ready || r != sizeof(hello) || hello.magic != MAGIC || fds[1] < 0 ||
		fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0 || net_ring_open(&peer->in, fds[0]) < 0) {
		if (r)
			log_warn("--switch=%s: a peer makes no sense", p->h.net->join);
		fd_close(&fds[0]);
		fd_close(&fds[1]);
		peer_close(peer);
		return;
	}
	close(fds[0]);
	peer->wake = fds[1];
	peer_comes(peer);
}

static void peer_ready(struct watch *w, uint32_t events)
{
	(void)events;
	peer_hello(container_of(w, struct peer, watch));
}

static int send_hello(struct peer *peer)
{
	struct hello hello = {MAGIC, NET_RING_SIZE};
	struct iovec v = {&hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fds[2] = {peer->out.fd, peer->port->wake};

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	return sendmsg(peer->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(hello) ? 0 : -EPIPE;
}

/* Takes fd. */
static int peer_add(struct port *p, int fd)
{
	struct peer *peer = peer_free(p);
	int err;

	if (!peer) {
		close(fd);
		return -ENOSPC;
	}
	*peer = (struct peer){.port = p, .fd = fd, .wake = -1, .watch = {.fd = -1, .ready = peer_ready}};
	peer->in.fd = peer->out.fd = -1;
	p->npeers++;
	p->nrings++;
	err = net_ring_make(&peer->out);
	if (!err)
		err = send_hello(peer);
	if (!err)
		err = watch_add(p->h.loop, &peer->watch, fd, EPOLLIN);
	if (err)
		peer_close(peer);
	return err;
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, accept);
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), err;

	(void)events;
	if (fd < 0)
		return;
	err = peer_add(p, fd);
	if (err)
		log_guest_warn("--switch=%s: a peer could not join: %s", p->h.net->join, strerror(-err));
}

/* Joining */

static int connect_to(struct port *p, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", p->h.net->join, name);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return peer_add(p, fd);
	if (errno == ECONNREFUSED) /* of a process that was killed */
		unlinkat(p->dir, name, 0);
	close(fd);
	return 0;
}

static bool is_ours(const struct port *p, const char *name)
{
	unsigned i;

	for (i = 0; i <= p->h.net->b->socket; i++) {
		const struct port *other = i == p->h.net->b->socket ? p : port_of_socket(p, i);

		if (other && strcmp(other->name, name) == 0)
			return true;
	}
	return false;
}

static int meet(struct port *p)
{
	int fd = dup(p->dir), err = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return -errno;
	while (!err && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (n > 5 && strcmp(e->d_name + n - 5, ".port") == 0 && !is_ours(p, e->d_name))
			err = connect_to(p, e->d_name);
	}
	closedir(d);
	return err;
}

/* The lock makes joining one step, so that of two that come at the same time one finds the other. */
static int join(struct port *p)
{
	const char *dir = p->h.net->join;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	uint64_t id;
	int lock, err;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return log_errno(errno, "--switch=%s", dir);
	p->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	lock = p->dir < 0 ? -1 : openat(p->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0 || getrandom(&id, sizeof(id), 0) != sizeof(id)) {
		err = log_errno(errno, "--switch=%s", dir);
		fd_close(&lock);
		return err;
	}
	snprintf(p->name, sizeof(p->name), "%016llx.port", (unsigned long long)id);
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, p->name) >= sizeof(path))
		err = log_errno(ENAMETOOLONG, "--switch=%s", dir);
	else
		err = p->listener = sockpath_listen(&p->path, "--switch", path, SOCK_SEQPACKET, 0600, PEERS);
	if (err >= 0) {
		err = meet(p);
		if (err)
			log_errno(err, "--switch=%s", dir);
	}
	close(lock);
	return err;
}

int mesh_open(struct port *p)
{
	int err;

	p->accept.ready = accept_ready;
	p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loop_poller_add(p->h.loop, &p->poller);
	err = p->wake < 0 ? log_errno(errno, "--switch") : join(p);
	if (!err)
		err = watch_add(p->h.loop, &p->accept, p->listener, EPOLLIN);
	if (!err)
		err = watch_add(p->h.loop, &p->woken, p->wake, EPOLLIN);
	return err;
}

void mesh_close(struct port *p)
{
	loop_poller_del(p->h.loop, &p->poller);
	watch_del(&p->accept);
	watch_del(&p->woken);
	sockpath_remove(&p->path);
	fd_close(&p->listener);
	fd_close(&p->wake);
	fd_close(&p->dir);
}
