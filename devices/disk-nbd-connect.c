/* SPDX-License-Identifier: MIT */
/*
 * Connections to an NBD server: the library, which is loaded only when somebody asks for NBD, since it brings a dozen
 * others along; one attempt with a time limit; and attempts in a thread until one succeeds.
 */
#include "disk-nbd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "log.h"
#include "util.h"

#define ATTEMPT_MS   5000u
#define SEND_BUFFER  (1 << 20)
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 1000

struct nbd_library nbd;

int nbd_load(void)
{
#define NBD_SYMBOL(name) LIBRARY_SYMBOL(nbd_library, name)
	static const struct library_symbol symbols[] = {NBD_FUNCTIONS(NBD_SYMBOL)};

	return nbd.nbd_create != NULL ? 0 : library_load("libnbd.so.0", symbols, ARRAY_SIZE(symbols), &nbd);
}

/* A peer that is gone without a word is noticed in half a minute. Fails for sockets of other kinds. */
static void keep_alive(int fd)
{
	static const struct {
		int level, option, value;
	} wanted[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 15},
		{IPPROTO_TCP, TCP_KEEPINTVL, 5},
		{IPPROTO_TCP, TCP_KEEPCNT, 3},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, 30000},
	};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		setsockopt(fd, wanted[i].level, wanted[i].option, &wanted[i].value, sizeof(int));
}

/* One step of the handshake. 0, or -errno; -EPROTO: the library says why. */
static int handshake_step(struct nbd_handle *h, int ms, int cancel)
{
	unsigned direction = nbd.nbd_aio_get_direction(h);
	struct pollfd p[2] = {{.fd = nbd.nbd_aio_get_fd(h)}, {.fd = cancel, .events = POLLIN}};
	int n;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		p[0].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		p[0].events |= POLLOUT;
	n = poll(p, 2, ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ETIMEDOUT;
	if (p[1].revents)
		return -ECANCELED;
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
		return nbd.nbd_aio_notify_read(h) < 0 ? -EPROTO : 0;
	return nbd.nbd_aio_notify_write(h) < 0 ? -EPROTO : 0;
}

static int handshake(struct nbd_handle *h, const char *uri, unsigned ms, int cancel)
{
	uint64_t end = time_ns() + ms * UINT64_C(1000000);
	int r = 0;

	nbd.nbd_set_uri_allow_local_file(h, true);
	if (nbd.nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
		return -EPROTO;
	if (nbd.nbd_aio_connect_uri(h, uri) < 0)
		return -EPROTO;
	while (r == 0 && nbd.nbd_aio_is_ready(h) <= 0) {
		uint64_t now = time_ns();

		if (nbd.nbd_aio_is_dead(h) > 0 || nbd.nbd_aio_is_closed(h) > 0)
			r = -EPROTO;
		else
			r = now >= end ? -ETIMEDOUT
				       : handshake_step(h, (int)((end - now) / 1000000 + 1), cancel);
	}
	return r;
}

/*
 * A Unix socket wakes its writer when it is nearly empty; what is usual holds less than two large writes, so that we and the
 * server would take turns. TCP finds out by itself what it needs.
 */
static void make_room(int fd)
{
	static const int size = SEND_BUFFER;
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

struct nbd_handle *nbd_connect(const char *uri, unsigned ms, int cancel, char why[NBD_WHY])
{
	struct nbd_handle *h = nbd.nbd_create();
	int r = h != NULL ? handshake(h, uri, ms, cancel) : -EPROTO;

	if (r == 0) {
		keep_alive(nbd.nbd_aio_get_fd(h));
		make_room(nbd.nbd_aio_get_fd(h));
		return h;
	}
	snprintf(why, NBD_WHY, "%s", r == -EPROTO ? nbd.nbd_get_error() : strerror(-r));
	if (h != NULL)
		nbd.nbd_close(h);
	return NULL;
}

/* Waits for a while, longer each time. False: told to end. */
static bool pause_or_end(struct nbd_connector *c)
{
	struct pollfd p = {.fd = c->cancel, .events = POLLIN};
	int ms = c->pause_ms;

	c->pause_ms = MAX(PAUSE_MIN_MS, MIN(2 * ms, PAUSE_MAX_MS));
	return poll(&p, 1, ms) <= 0;
}

/*
 * What was sent on the connection before may still be carried out, and undo what was acknowledged on the next one, until the
 * server has read its end and closed it. Answers on it are of no use: these requests are done again. False: told to end.
 */
static bool old_ends(struct nbd_connector *c)
{
	struct pollfd p[2] = {{.fd = c->old, .events = POLLIN}, {.fd = c->cancel, .events = POLLIN}};
	char answers[8192];
	ssize_t n = 1;

	shutdown(c->old, SHUT_WR);
	while (n > 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			return false;
		n = recv(c->old, answers, sizeof(answers), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			n = 1;
	}
	fd_close(&c->old);
	return true;
}

/* Until it succeeds or is told to end. */
static void *connector_main(void *arg)
{
	struct nbd_connector *c = arg;
	const uint64_t one = 1;
	char why[NBD_WHY];

	if (c->old >= 0 && !old_ends(c))
		return NULL;
	do {
		if (!pause_or_end(c))
			return NULL;
		c->h = nbd_connect(c->uri, ATTEMPT_MS, c->cancel, why);
		if (c->h == NULL)
			log_debug("%s: %s", c->uri, why);
	} while (c->h == NULL);
	if (write(c->done, &one, sizeof(one)) < 0)
		log_errno(errno, "%s: eventfd", c->uri);
	return NULL;
}

static void connector_join(struct nbd_connector *c)
{
	pthread_join(c->thread, NULL);
	c->running = false;
	watch_del(&c->watch);
}

static void connector_ready(struct watch *w, uint32_t events)
{
	struct nbd_connector *c = container_of(w, struct nbd_connector, watch);
	struct nbd_handle *h;
	uint64_t n;

	(void)events;
	if (read(c->done, &n, sizeof(n)) != sizeof(n))
		return;
	connector_join(c);
	h = c->h;
	c->h = NULL;
	c->made_at = time_ns();
	c->connected(c, h);
}

int nbd_connector_init(struct nbd_connector *c)
{
	c->done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->old = -1;
	c->watch.ready = connector_ready;
	if (c->done >= 0 && c->cancel >= 0)
		return 0;
	nbd_connector_fini(c);
	return -errno;
}

void nbd_connector_fini(struct nbd_connector *c)
{
	const uint64_t one = 1;

	if (c->running && write(c->cancel, &one, sizeof(one)) > 0) {
		connector_join(c);
		if (c->h != NULL)
			nbd.nbd_close(c->h);
	}
	fd_close(&c->old);
	fd_close(&c->done);
	fd_close(&c->cancel);
}

void nbd_connector_start(struct nbd_connector *c, struct loop *l, int old)
{
	int r;

	if (c->running)
		return;
	c->old = old;
	/* not at once again with a server that hangs up at once */
	if (time_ns() - c->made_at > UINT64_C(1000000) * PAUSE_MAX_MS)
		c->pause_ms = 0;
	r = watch_add(l, &c->watch, c->done, EPOLLIN);
	if (r == 0)
		r = loop_thread(&c->thread, "nbd", connector_main, c);
	if (r == 0)
		c->running = true;
	else
		watch_del(&c->watch);
	if (r < 0)
		log_errno(r, "%s: no thread to connect in", c->uri);
}
