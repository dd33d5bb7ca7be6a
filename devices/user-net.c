/* SPDX-License-Identifier: MIT */
/*
 * libslirp, driven by our event loop. Needs no privilege.
 *
 * libslirp is made for poll(2): it names descriptors and events (fill), and is told what came of it (poll). Both are done in one
 * step, a task that any event defers: what the loop watches is what the last fill named. While the guest has no buffers frames
 * wait in a backlog, and sockets are left alone, so that the backlog stays small; what does not fit is lost, as on a wire.
 *
 * libslirp has no limit to the sockets that a guest can make it open, and each may hold some hundred KiB. So while it runs new
 * descriptors have to be below FDS: then it answers that there is no way.
 *
 * The library is loaded when it is needed: it brings GLib along, which no other device has a use for.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "device.h"
#include "library.h"
#include "user-net.h"

enum { FRAME = 1600, BACKLOG = 512, FDS = 2048, MIN_FRAME = 14, MAX_FRAME = 65550 };

#define FUNCTIONS(F)          \
	F(slirp_new)          \
	F(slirp_cleanup)      \
	F(slirp_input)        \
	F(slirp_pollfds_fill) \
	F(slirp_pollfds_poll) \
	F(slirp_add_hostfwd)

LIBRARY(slirp_library, FUNCTIONS);

static struct slirp_library lib;

struct user_watch {
	struct watch w;
	struct user_net *u;
	unsigned fill; /* the last that named it */
};

struct user_timer {
	struct timer t;
	SlirpTimerCb fn;
	void *arg;
};

struct user_net {
	struct user_net_config config;
	Slirp *slirp;
	SlirpCb callbacks;
	struct task step;
	struct timer timeout;
	struct rlimit limit; /* of descriptors, while libslirp runs */
	rlim_t ours;	     /* the soft one else */
	struct pollfd *fds;
	unsigned nfds, fill;
	struct user_watch *watches[FDS]; /* by descriptor */
	unsigned first, count;		 /* of the backlog */
	uint16_t length[BACKLOG];
	uint8_t frame[BACKLOG][FRAME];
	uint8_t linear[MAX_FRAME];
};

static void limit_on(struct user_net *u)
{
	setrlimit(RLIMIT_NOFILE, &u->limit);
}

static void limit_off(struct user_net *u)
{
	struct rlimit r = {u->ours, u->limit.rlim_max};

	setrlimit(RLIMIT_NOFILE, &r);
}

static void step_soon(struct user_net *u)
{
	loop_defer(u->config.loop, &u->step);
}

/* What libslirp calls */

static ssize_t on_frame(const void *buf, size_t len, void *opaque)
{
	struct user_net *u = opaque;
	unsigned i;

	if (len > FRAME || len < MIN_FRAME)
		return (ssize_t)len;
	if (!u->count && u->config.frame(u->config.owner, buf, len))
		return (ssize_t)len;
	if (u->count == BACKLOG)
		return (ssize_t)len;
	i = (u->first + u->count++) % BACKLOG;
	memcpy(u->frame[i], buf, len);
	u->length[i] = (uint16_t)len;
	return (ssize_t)len;
}

static void on_error(const char *text, void *opaque)
{
	log_guest_warn("%s: %s", ((struct user_net *)opaque)->config.option, text);
}

static int64_t on_clock(void *opaque)
{
	(void)opaque;
	return (int64_t)time_ns();
}

static void timer_expired(struct timer *t)
{
	struct user_timer *ut = container_of(t, struct user_timer, t);

	ut->fn(ut->arg);
}

static void *on_timer_new(SlirpTimerCb fn, void *arg, void *opaque)
{
	struct user_timer *t = calloc(1, sizeof(*t));

	(void)opaque;
	if (!t)
		abort(); /* while the device opens; the library has no way to hear of it */
	t->fn = fn;
	t->arg = arg;
	t->t.expired = timer_expired;
	return t;
}

static void on_timer_free(void *timer, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	timer_disarm(&t->t);
	free(t);
}

static void on_timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	struct user_net *u = opaque;
	struct user_timer *t = timer;

	timer_arm(u->config.loop, &t->t, at_ms > 0 ? (uint64_t)at_ms * 1000000 : 0);
}

static void on_register(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void on_unregister(int fd, void *opaque)
{
	struct user_net *u = opaque;

	if (fd >= 0 && fd < FDS && u->watches[fd])
		watch_del(&u->watches[fd]->w);
}

static void on_notify(void *opaque)
{
	step_soon(opaque);
}

static int on_add_poll(int fd, int events, void *opaque)
{
	struct user_net *u = opaque;
	short e = 0;

	if (u->nfds == FDS)
		return -1;
	if (events & SLIRP_POLL_IN)
		e |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		e |= POLLOUT;
	if (events & SLIRP_POLL_PRI)
		e |= POLLPRI;
	u->fds[u->nfds] = (struct pollfd){.fd = fd, .events = e};
	return (int)u->nfds++;
}

static int on_revents(int i, void *opaque)
{
	struct user_net *u = opaque;
	short e = i >= 0 && (unsigned)i < u->nfds ? u->fds[i].revents : 0;

	return (e & POLLIN ? SLIRP_POLL_IN : 0) | (e & POLLOUT ? SLIRP_POLL_OUT : 0) |
	       (e & POLLPRI ? SLIRP_POLL_PRI : 0) | (e & POLLERR ? SLIRP_POLL_ERR : 0) |
	       (e & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* A step */

static void socket_ready(struct watch *w, uint32_t events)
{
	(void)events;
	step_soon(container_of(w, struct user_watch, w)->u);
}

static void watch_fd(struct user_net *u, const struct pollfd *p)
{
	uint32_t events = (p->events & POLLIN ? EPOLLIN : 0u) | (p->events & POLLOUT ? EPOLLOUT : 0u) |
			  (p->events & POLLPRI ? EPOLLPRI : 0u);
	struct user_watch *w;

	if (p->fd < 0 || p->fd >= FDS)
		return;
	w = u->watches[p->fd];
	if (!w) {
		w = u->watches[p->fd] = calloc(1, sizeof(*w));
		if (!w)
			return;
		w->u = u;
		w->w.fd = -1;
		w->w.ready = socket_ready;
	}
	w->fill = u->fill;
	if (w->w.fd >= 0 && w->w.events == events)
		return;
	if (w->w.fd >= 0 && watch_modify(&w->w, events) == 0)
		return;
	watch_del(&w->w);
	watch_add(u->config.loop, &w->w, p->fd, events);
}

static void unwatch(struct user_net *u, bool all)
{
	unsigned i;

	for (i = 0; i < FDS; i++)
		if (u->watches[i] && u->watches[i]->w.fd >= 0 && (all || u->watches[i]->fill != u->fill))
			watch_del(&u->watches[i]->w);
}

static void step(struct task *task)
{
	struct user_net *u = container_of(task, struct user_net, step);
	uint32_t timeout = UINT32_MAX;
	unsigned i;
	int n;

	if (u->count) { /* the guest is behind: its sockets wait */
		unwatch(u, true);
		return;
	}
	n = poll(u->fds, u->nfds, 0);
	limit_on(u);
	lib.slirp_pollfds_poll(u->slirp, n < 0, on_revents, u);
	limit_off(u);
	u->nfds = 0;
	u->fill++;
	lib.slirp_pollfds_fill(u->slirp, &timeout, on_add_poll, u);
	for (i = 0; i < u->nfds; i++)
		watch_fd(u, &u->fds[i]);
	unwatch(u, false);
	if (timeout == UINT32_MAX)
		timer_disarm(&u->timeout);
	else
		timer_arm_in(u->config.loop, &u->timeout, (uint64_t)timeout * 1000000);
}

static void timed_out(struct timer *t)
{
	step_soon(container_of(t, struct user_net, timeout));
}

/* What the device calls */

void user_net_send(struct user_net *u, const struct iovec *v, unsigned n, size_t len)
{
	size_t at = 0;

	for (unsigned i = 0; i < n; i++) {
		size_t m = MIN(v[i].iov_len, sizeof(u->linear) - at);

		memcpy(u->linear + at, v[i].iov_base, m);
		at += m;
	}
	limit_on(u);
	lib.slirp_input(u->slirp, u->linear, (int)MIN(at, len));
	limit_off(u);
	step_soon(u);
}

void user_net_room(struct user_net *u)
{
	bool behind = u->count;

	while (u->count) {
		if (!u->config.frame(u->config.owner, u->frame[u->first], u->length[u->first]))
			return;
		u->first = (u->first + 1) % BACKLOG;
		u->count--;
	}
	if (behind)
		step_soon(u);
}

void user_net_close(struct user_net *u)
{
	unsigned i;

	if (!u)
		return;
	if (u->slirp)
		lib.slirp_cleanup(u->slirp);
	loop_cancel(u->config.loop, &u->step);
	timer_disarm(&u->timeout);
	unwatch(u, true);
	for (i = 0; i < FDS; i++)
		free(u->watches[i]);
	free(u->fds);
	free(u);
}

/* "tcp:[ADDRESS:]PORT:GUESTPORT" */
struct forward {
	bool udp;
	struct in_addr host;
	unsigned host_port, guest_port;
};

static bool port_parse(const char *text, size_t len, unsigned *port)
{
	char digits[8];
	uint64_t v;

	if (!len || len >= sizeof(digits))
		return false;
	memcpy(digits, text, len);
	digits[len] = 0;
	if (!options_parse_u64(digits, &v) || v < 1 || v > 65535)
		return false;
	*port = (unsigned)v;
	return true;
}

static bool forward_parse(struct forward *f, const char *text)
{
	const char *last = strrchr(text, ':'), *host, *address;
	char ip[INET_ADDRSTRLEN] = "127.0.0.1";

	f->udp = strncmp(text, "udp:", 4) == 0;
	if ((!f->udp && strncmp(text, "tcp:", 4) != 0) || last < text + 4)
		return false;
	text += 4;
	for (host = last; host > text && host[-1] != ':'; host--)
		;
	address = text;
	if (host > text) {
		size_t n = (size_t)(host - 1 - address);

		if (n >= sizeof(ip))
			return false;
		memcpy(ip, address, n);
		ip[n] = 0;
	}
	return inet_pton(AF_INET, ip, &f->host) == 1 &&
	       port_parse(host, (size_t)(last - host), &f->host_port) &&
	       port_parse(last + 1, strlen(last + 1), &f->guest_port);
}

const char *user_net_check_forward(const char *text)
{
	struct forward f;

	return forward_parse(&f, text) ? NULL : "not tcp|udp:[ADDRESS:]PORT:GUESTPORT";
}

static int load(void)
{
#define SYMBOL(name) LIBRARY_SYMBOL(slirp_library, name)
	static const struct library_symbol symbols[] = {FUNCTIONS(SYMBOL)};

	return library_load("libslirp.so.0", symbols, ARRAY_SIZE(symbols), &lib);
}

int user_net_forward(struct user_net *u, const char *text)
{
	struct in_addr guest = {htonl(USER_NET_GUEST)};
	struct forward f;

	forward_parse(&f, text);
	if (lib.slirp_add_hostfwd(u->slirp, f.udp, f.host, (int)f.host_port, guest, (int)f.guest_port) == 0)
		return 0;
	return errno ? -errno : -EADDRINUSE;
}

int user_net_open(struct user_net **out, const struct user_net_config *config)
{
	SlirpConfig slirp = {
		.version = 4,
		.restricted = config->restricted,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(0x0a000200),
		.vnetmask.s_addr = htonl(0xffffff00),
		.vhost.s_addr = htonl(0x0a000202),
		.vdhcp_start.s_addr = htonl(USER_NET_GUEST),
		.vnameserver.s_addr = htonl(0x0a000203),
		.in6_enabled = true,
		.vprefix_len = 64,
	};
	struct user_net *u;
	int err = load();

	if (err)
		return err;
	inet_pton(AF_INET6, "fec0::", &slirp.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &slirp.vhost6);
	inet_pton(AF_INET6, "fec0::3", &slirp.vnameserver6);
	u = calloc(1, sizeof(*u));
	if (u)
		u->fds = calloc(FDS, sizeof(*u->fds));
	if (!u || !u->fds) {
		free(u);
		return log_errno(ENOMEM, "%s", config->option);
	}
	getrlimit(RLIMIT_NOFILE, &u->limit);
	u->ours = u->limit.rlim_cur;
	u->limit.rlim_cur = MIN(u->ours / 4 * 3, (rlim_t)FDS);
	u->config = *config;
	u->step.run = step;
	u->timeout.expired = timed_out;
	u->callbacks = (SlirpCb){
		.send_packet = on_frame,
		.guest_error = on_error,
		.clock_get_ns = on_clock,
		.timer_new = on_timer_new,
		.timer_free = on_timer_free,
		.timer_mod = on_timer_mod,
		.register_poll_fd = on_register,
		.unregister_poll_fd = on_unregister,
		.notify = on_notify,
	};
	u->slirp = lib.slirp_new(&slirp, &u->callbacks, u);
	if (!u->slirp) {
		user_net_close(u);
		return log_errno(ENOMEM, "%s", config->option);
	}
	step_soon(u);
	*out = u;
	return 0;
}
