/* SPDX-License-Identifier: MIT */
/*
 * A host end over Unix and TCP sockets: we listen, one program at a time, or connect, again and again.
 */
#include "port-host.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define RETRY_MIN_NS (UINT64_C(50) * 1000 * 1000)
#define RETRY_MAX_NS (UINT64_C(1000) * 1000 * 1000)

static int socket_type(const struct port *p)
{
	return p->cfg.messages && p->cfg.kind == PORT_UNIX ? SOCK_SEQPACKET : SOCK_STREAM;
}

static void retry_later(struct port *p)
{
	struct port_socket *s = &p->sock;

	s->delay_ns = MIN(s->delay_ns ? s->delay_ns * 2 : RETRY_MIN_NS, RETRY_MAX_NS);
	timer_arm_in(p->loop, &s->retry, s->delay_ns);
}

static void arrived(struct port *p, int fd)
{
	int one = 1;

	p->sock.delay_ns = 0;
	if (p->cfg.kind == PORT_TCP)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	port_up(p, fd);
	if (!p->up)
		retry_later(p);
}

/* Server */

static void accept_ready(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, sock.accept);
	int fd = accept4(p->sock.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd >= 0) {
		watch_del(w);
		arrived(p, fd);
	} else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		log_guest_warn("%s: %s: accept: %s", p->label, p->cfg.host, strerror(errno));
		watch_del(w);
		retry_later(p);
	}
}

static int tcp_listen(struct port *p)
{
	int last = EADDRNOTAVAIL, one = 1;

	for (struct addrinfo *a = p->sock.addrs; a; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd < 0) {
			last = errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 8) == 0)
			return fd;
		last = errno;
		close(fd);
	}
	return log_errno(last, "%s: %s", p->label, p->cfg.host);
}

/* Client */

static void connect_failed(struct port *p, int err)
{
	log_debug("%s: %s: %s", p->label, p->cfg.host, strerror(err));
	watch_del(&p->sock.connecting);
	fd_close(&p->sock.fd);
	retry_later(p);
}

static void connected(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, sock.connecting);
	int err = 0;
	socklen_t len = sizeof(err);

	(void)events;
	if (getsockopt(p->sock.fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err) {
		connect_failed(p, err);
		return;
	}
	watch_del(w);
	arrived(p, fd_take(&p->sock.fd));
}

static int target(struct port *p, struct sockaddr_storage *to, socklen_t *len)
{
	struct sockaddr_un un;
	struct addrinfo *a;
	int err;

	if (p->cfg.kind == PORT_UNIX) {
		err = sockpath_address(&un, p->label, p->cfg.path);
		memcpy(to, &un, sizeof(un));
		*len = sizeof(un);
		return err;
	}
	a = p->sock.next ? p->sock.next : p->sock.addrs;
	p->sock.next = a->ai_next;
	memcpy(to, a->ai_addr, a->ai_addrlen);
	*len = a->ai_addrlen;
	return 0;
}

static void try_connect(struct port *p)
{
	struct port_socket *s = &p->sock;
	struct sockaddr_storage to;
	socklen_t len;

	if (target(p, &to, &len) < 0)
		return;
	s->fd = socket(to.ss_family, socket_type(p) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0) {
		connect_failed(p, errno);
		return;
	}
	if (connect(s->fd, (struct sockaddr *)&to, len) == 0) {
		arrived(p, fd_take(&s->fd));
		return;
	}
	if (errno != EINPROGRESS || watch_add(p->loop, &s->connecting, s->fd, EPOLLOUT) < 0)
		connect_failed(p, errno);
}

static void retry(struct timer *t)
{
	struct port *p = container_of(t, struct port, sock.retry);

	if (p->up)
		return;
	if (p->sock.listen_fd < 0)
		try_connect(p);
	else if (p->sock.accept.fd < 0)
		watch_add(p->loop, &p->sock.accept, p->sock.listen_fd, EPOLLIN);
}

void port_socket_wait(struct port *p)
{
	if (p->sock.listen_fd < 0)
		retry_later(p);
	else if (p->sock.accept.fd < 0 && watch_add(p->loop, &p->sock.accept, p->sock.listen_fd, EPOLLIN) < 0)
		retry_later(p);
}

/* Life */

static int resolve(struct port *p)
{
	const struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = p->cfg.server ? AI_PASSIVE : 0};
	int err = getaddrinfo(p->cfg.path, p->cfg.service, &hints, &p->sock.addrs);

	if (!err)
		return 0;
	log_error("%s: %s: %s", p->label, p->cfg.host, gai_strerror(err));
	return -EADDRNOTAVAIL;
}

static int open_server(struct port *p)
{
	struct port_socket *s = &p->sock;

	if (p->cfg.kind == PORT_UNIX)
		s->listen_fd = sockpath_listen(&s->path, p->label, p->cfg.path, socket_type(p), 0, 8);
	else
		s->listen_fd = tcp_listen(p);
	if (s->listen_fd < 0)
		return s->listen_fd;
	port_socket_wait(p);
	return 0;
}

int port_socket_open(struct port *p)
{
	struct sockaddr_un un;
	int err = 0;

	p->sock.accept.ready = accept_ready;
	p->sock.connecting.ready = connected;
	p->sock.retry.expired = retry;
	if (p->cfg.kind == PORT_TCP)
		err = resolve(p);
	else
		err = sockpath_address(&un, p->label, p->cfg.path);
	if (err)
		return err;
	if (p->cfg.server)
		return open_server(p);
	timer_arm_in(p->loop, &p->sock.retry, 0);
	return 0;
}

void port_socket_close(struct port *p)
{
	struct port_socket *s = &p->sock;

	watch_del(&s->accept);
	watch_del(&s->connecting);
	timer_disarm(&s->retry);
	fd_close(&s->fd);
	fd_close(&s->listen_fd);
	sockpath_remove(&s->path);
	if (s->addrs)
		freeaddrinfo(s->addrs);
	s->addrs = NULL;
}
