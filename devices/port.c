/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a host end; see port.h. What the guest says goes to the descriptor at once. Only three things pass through
 * the ring: what is kept for a reader to come, what a reader left behind whose patience ended, and the rest of a
 * message that a stream took in part. The ring goes first, always.
 */
#include "port-host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "cursor.h"

#define FAULT_NS (UINT64_C(500) * 1000 * 1000)

enum { MESSAGE_RING = 8192 };

/* The ring */

static size_t total_of(const struct iovec *v, unsigned n)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += v[i].iov_len;
	return sum;
}

static void ring_put(struct port *p, const uint8_t *bytes, size_t n)
{
	size_t at, first;

	if (n > p->ring_size) { /* only the newest */
		p->lost += n - p->ring_size;
		bytes += n - p->ring_size;
		n = p->ring_size;
	}
	if (p->used + n > p->ring_size) {
		size_t drop = p->used + n - p->ring_size;

		p->lost += drop;
		p->head = (p->head + drop) % p->ring_size;
		p->used -= drop;
	}
	at = (p->head + p->used) % p->ring_size;
	first = MIN(n, p->ring_size - at);
	memcpy(p->ring + at, bytes, first);
	memcpy(p->ring, bytes + first, n - first);
	p->used += n;
}

static void ring_put_iov(struct port *p, const struct iovec *v, unsigned n, size_t skip)
{
	for (unsigned i = 0; i < n; i++) {
		size_t pass = MIN(skip, v[i].iov_len);

		skip -= pass;
		ring_put(p, (const uint8_t *)v[i].iov_base + pass, v[i].iov_len - pass);
	}
}

/* Out */

static bool seqpacket(const struct port *p)
{
	return p->cfg.messages && p->cfg.kind == PORT_UNIX;
}

/* A write that failed for another reason than a full buffer. */
static void write_failed(struct port *p, int err)
{
	switch (err) {
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
	case EIO:
		if (p->cfg.kind != PORT_FILE) {
			port_down(p);
			return;
		}
		break;
	}
	log_guest_warn("%s: %s: %s; trying again", p->label, p->cfg.host, strerror(err));
	p->stalled = true;
	if (!p->fault.at)
		timer_arm_in(p->loop, &p->fault, FAULT_NS);
}

static size_t write_out(struct port *p, const struct iovec *v, unsigned n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)v, .msg_iovlen = n};
	bool touched = false;
	ssize_t r;

	for (;;) {
		if (seqpacket(p))
			r = sendmsg(p->wfd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		else
			r = writev(p->wfd, v, (int)n);
		if (r >= 0 || (errno != EINTR && (errno != EFAULT || touched)))
			break;
		if (errno == EFAULT) { /* memory that its owner truncated: see cursor_touch() */
			cursor_touch(v, n);
			touched = true;
		}
	}
	if (r >= 0)
		return (size_t)r;
	if (errno == EMSGSIZE && seqpacket(p)) {
		log_guest_warn("%s: %s: a message is too long for it", p->label, p->cfg.host);
		p->lost += total_of(v, n);
		return total_of(v, n);
	}
	if (errno != EAGAIN)
		write_failed(p, errno);
	return 0;
}

/* True: the ring is empty. */
static bool ring_flush(struct port *p)
{
	while (p->used && p->up && !p->stalled) {
		size_t first = MIN(p->used, p->ring_size - p->head);
		struct iovec v[2] = {{p->ring + p->head, first}, {p->ring, p->used - first}};
		size_t n = write_out(p, v, v[1].iov_len ? 2 : 1);

		if (!n)
			break;
		p->sent += n;
		p->used -= n;
		p->head = p->used ? (p->head + n) % p->ring_size : 0;
	}
	return !p->used;
}

static void await_room(struct port *p)
{
	if (!p->up || p->stalled)
		return;
	if (p->out_ready) {
		if (!p->fault.at)
			timer_arm_in(p->loop, &p->fault, FAULT_NS);
		return;
	}
	if (p->out.fd < 0 && watch_add(p->loop, &p->out, p->wfd, EPOLLOUT) == -EPERM) {
		p->out_ready = true;
		timer_arm_in(p->loop, &p->fault, FAULT_NS);
	}
	if (p->cfg.backlog && p->cfg.patience_ms && !p->patience.at)
		timer_arm_in(p->loop, &p->patience, p->cfg.patience_ms * 1000000);
}

static void copy_to_log(struct port *p, const struct iovec *v, unsigned n, size_t len)
{
	struct iovec part[PORT_IOV];
	unsigned i;

	if (p->log_fd < 0 || !len)
		return;
	for (i = 0; i < n && len; i++) {
		part[i] = (struct iovec){v[i].iov_base, MIN(len, v[i].iov_len)};
		len -= part[i].iov_len;
	}
	if (writev(p->log_fd, part, (int)i) >= 0)
		return;
	log_error("%s: log=%s: %s; the log ends", p->label, p->cfg.log, strerror(errno));
	fd_close(&p->log_fd);
}

size_t port_send(struct port *p, const struct iovec *v, unsigned n)
{
	size_t total = total_of(v, n), done = 0;
	bool nobody;

	if (p->cfg.kind == PORT_NULL) {
		done = total;
		p->sent += total;
	} else if (p->up && !p->stalled && ring_flush(p)) {
		done = write_out(p, v, n);
		p->sent += done;
		if (done && p->patience.at)
			timer_disarm(&p->patience);
	}
	nobody = !p->up || p->stalled;
	if (done < total && ((nobody && p->cfg.backlog) || (done && p->cfg.messages))) {
		ring_put_iov(p, v, n, done);
		done = total;
	}
	copy_to_log(p, v, n, done);
	p->blocked = done < total;
	if (p->blocked || p->used)
		await_room(p);
	return done;
}

/* What stood in the way may be gone. */
static void try_again(struct port *p)
{
	bool empty = ring_flush(p);

	if (!empty)
		await_room(p);
	if (p->blocked && (empty || (p->cfg.backlog && (p->stalled || !p->up)))) {
		p->blocked = false;
		if (p->ops->room)
			p->ops->room(p);
	}
}

static void tell_run(struct task *t)
{
	struct port *p = container_of(t, struct port, tell);

	if (p->announce) {
		p->announce = false;
		if (p->ops->link)
			p->ops->link(p, true);
	}
	try_again(p);
}

static void out_ready(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, out);

	(void)events;
	watch_del(w);
	timer_disarm(&p->patience);
	if (p->stalled)
		log_info("%s: %s: reads again", p->label, p->cfg.host);
	p->stalled = false;
	try_again(p);
}

static void patience_ended(struct timer *t)
{
	struct port *p = container_of(t, struct port, patience);

	log_info("%s: %s: takes nothing; the newest %" PRIu64 " bytes are kept", p->label, p->cfg.host,
		p->cfg.backlog);
	p->stalled = true; /* the watch for room stays */
	try_again(p);
}

static void fault_passed(struct timer *t)
{
	struct port *p = container_of(t, struct port, fault);

	p->stalled = false;
	try_again(p);
}

/* In */

static void watch_in(struct port *p)
{
	uint32_t events = p->want ? EPOLLIN : EPOLLRDHUP;
	int err;

	if (!p->up || p->ended || p->rfd < 0) {
		watch_del(&p->in);
		return;
	}
	if (p->in_ready) {
		if (p->want)
			loop_again(p->loop, &p->again);
		return;
	}
	if (p->half && !p->want) {
		watch_del(&p->in);
		return;
	}
	if (p->in.fd >= 0) {
		if (p->in.events != events)
			watch_modify(&p->in, events);
		return;
	}
	err = watch_add(p->loop, &p->in, p->rfd, events);
	if (err == -EPERM) {
		p->in_ready = true;
		watch_in(p);
	}
}

static void gone(struct port *p)
{
	bool lasting = p->cfg.kind == PORT_STDIO || p->in_ready; /* its output may go elsewhere */

	if (!lasting) {
		port_down(p);
		loop_defer(p->loop, &p->tell);
		return;
	}
	p->ended = true;
	watch_in(p);
}

static int bytes_waiting(int fd)
{
	int n = 0;

	return ioctl(fd, FIONREAD, &n) == 0 ? n : 0;
}

static void in_ready(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, in);

	if (p->want && (events & EPOLLIN)) {
		p->ops->data(p);
		return;
	}
	if (!(events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)))
		return;
	if (bytes_waiting(p->rfd) > 0) {
		p->half = true;
		watch_in(p);
		return;
	}
	gone(p);
}

static void again_run(struct task *t)
{
	struct port *p = container_of(t, struct port, again);

	if (p->up && p->want && !p->ended)
		p->ops->data(p);
	watch_in(p);
}

static ssize_t read_in(struct port *p, const struct iovec *v, unsigned n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)v, .msg_iovlen = n};
	bool touched = false;
	ssize_t r;

	for (;;) {
		m.msg_flags = 0;
		r = seqpacket(p) ? recvmsg(p->rfd, &m, MSG_DONTWAIT) : readv(p->rfd, v, (int)n);
		if (r >= 0 || (errno != EINTR && (errno != EFAULT || touched)))
			break;
		if (errno == EFAULT) {
			cursor_touch(v, n);
			touched = true;
		}
	}
	if (r > 0 && (m.msg_flags & MSG_TRUNC))
		return -EMSGSIZE;
	return r < 0 ? -errno : r;
}

ssize_t port_receive(struct port *p, const struct iovec *v, unsigned n)
{
	ssize_t r;

	if (!p->up || p->ended || p->rfd < 0)
		return 0;
	r = read_in(p, v, n);
	if (r > 0) {
		p->received += (size_t)r;
		return r;
	}
	if (r == -EAGAIN)
		return 0;
	if (r == -EMSGSIZE) {
		log_guest_warn(
			"%s: %s: a message of the host is too long and is lost", p->label, p->cfg.host);
		return r;
	}
	gone(p);
	return 0;
}

void port_want(struct port *p, bool want)
{
	if (p->want == want)
		return;
	p->want = want;
	watch_in(p);
}

/* Coming and going */

void port_up_pair(struct port *p, int rfd, int wfd)
{
	p->rfd = rfd;
	p->wfd = wfd;
	p->up = true;
	p->ended = p->half = p->stalled = p->in_ready = p->out_ready = false;
	log_info("%s: %s: somebody is there", p->label, p->cfg.host);
	watch_in(p);
	p->announce = true;
	loop_defer(p->loop, &p->tell);
}

void port_up(struct port *p, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0) {
		log_guest_errno(errno, "%s: %s", p->label, p->cfg.host);
		close(fd);
		return;
	}
	port_up_pair(p, fd, copy);
}

static void let_go(struct port *p)
{
	watch_del(&p->in);
	watch_del(&p->out);
	timer_disarm(&p->patience);
	timer_disarm(&p->fault);
	loop_cancel(p->loop, &p->again);
	fd_close(&p->rfd);
	fd_close(&p->wfd);
	p->up = p->stalled = false;
}

void port_down(struct port *p)
{
	bool announced = !p->announce;

	if (!p->up)
		return;
	let_go(p);
	log_info("%s: %s: nobody is there", p->label, p->cfg.host);
	if (p->cfg.kind == PORT_UNIX || p->cfg.kind == PORT_TCP)
		port_socket_wait(p);
	else if (p->cfg.kind == PORT_PTY)
		port_pty_wait(p);
	p->announce = false;
	if (announced && p->ops->link)
		p->ops->link(p, false);
}

bool port_is_up(const struct port *p)
{
	return p->up;
}

bool port_flushed(const struct port *p)
{
	return !p->up || !p->used;
}

void port_waiting(const struct port *p, struct iovec v[2])
{
	size_t first = MIN(p->used, p->ring_size - p->head);

	v[0] = v[1] = (struct iovec){0};
	if (!p->used)
		return;
	v[0] = (struct iovec){p->ring + p->head, first};
	v[1] = (struct iovec){p->ring, p->used - first};
}

void port_restore(struct port *p, const void *bytes, size_t n)
{
	if (!p->ring_size) {
		p->lost += n;
		return;
	}
	ring_put(p, bytes, n);
	loop_defer(p->loop, &p->tell);
}

void port_hang_up(struct port *p)
{
	if (p->cfg.kind != PORT_UNIX && p->cfg.kind != PORT_TCP)
		return;
	port_down(p);
	loop_defer(p->loop, &p->tell);
}

void *port_owner(const struct port *p)
{
	return p->owner;
}

/* Size */

void port_set_size(struct port *p, uint16_t cols, uint16_t rows)
{
	if (cols == p->cols && rows == p->rows)
		return;
	p->cols = cols;
	p->rows = rows;
	if (p->ops->size)
		p->ops->size(p);
}

void port_look_size(struct port *p, int fd)
{
	struct winsize w;

	if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row)
		port_set_size(p, w.ws_col, w.ws_row);
}

bool port_size(const struct port *p, uint16_t *cols, uint16_t *rows)
{
	*cols = p->cols;
	*rows = p->rows;
	return p->cols && p->rows;
}

/* Life */

static int open_file(struct port *p)
{
	int fd = open(p->cfg.path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	port_up_pair(p, -1, fd);
	return 0;
}

static int open_fd(struct port *p)
{
	int flags = fcntl(p->cfg.fd, F_GETFL), fd;

	if (flags < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	if (fcntl(p->cfg.fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	fd = fcntl(p->cfg.fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return log_errno(errno, "%s: %s", p->label, p->cfg.host);
	if ((flags & O_ACCMODE) == O_WRONLY) {
		port_up_pair(p, -1, fd);
		return 0;
	}
	port_up(p, fd);
	return 0;
}

static int open_null(struct port *p)
{
	port_up_pair(p, -1, -1);
	return 0;
}

static int open_host(struct port *p)
{
	static int (*const open_kind[])(struct port * p) = {
		[PORT_NULL] = open_null,
		[PORT_STDIO] = port_stdio_open,
		[PORT_PTY] = port_pty_open,
		[PORT_UNIX] = port_socket_open,
		[PORT_TCP] = port_socket_open,
		[PORT_FILE] = open_file,
		[PORT_FD] = open_fd,
	};

	return open_kind[p->cfg.kind](p);
}

static int open_log(struct port *p)
{
	if (!p->cfg.log)
		return 0;
	p->log_fd = open(p->cfg.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	return p->log_fd < 0 ? log_errno(errno, "%s: log=%s", p->label, p->cfg.log) : 0;
}

static int open_ring(struct port *p)
{
	p->ring_size = MAX(p->cfg.backlog, p->cfg.messages ? MESSAGE_RING : 0);
	if (!p->ring_size)
		return 0;
	p->ring = malloc(p->ring_size);
	return p->ring ? 0 : log_errno(ENOMEM, "%s", p->label);
}

int port_open(struct port **out, struct loop *loop, struct port_config *c, const char *label,
	const struct port_ops *ops, void *owner)
{
	struct port *p = calloc(1, sizeof(*p));
	int err;

	if (!p) {
		port_config_free(c);
		return log_errno(ENOMEM, "%s", label);
	}
	p->loop = loop;
	p->ops = ops;
	p->owner = owner;
	p->cfg = *c;
	*c = (struct port_config){0};
	snprintf(p->label, sizeof(p->label), "%s", label);
	p->rfd = p->wfd = p->in.fd = p->out.fd = p->log_fd = -1;
	p->in.ready = in_ready;
	p->out.ready = out_ready;
	p->again.run = again_run;
	p->tell.run = tell_run;
	p->patience.expired = patience_ended;
	p->fault.expired = fault_passed;
	p->tty.fd = p->tty.guard = p->tty.winch_fd = p->tty.winch.fd = -1;
	p->sock.fd = p->sock.listen_fd = p->sock.accept.fd = p->sock.connecting.fd = -1;
	p->pty.master = p->pty.notify = p->pty.news.fd = -1;
	err = open_ring(p);
	if (!err)
		err = open_log(p);
	if (!err)
		err = open_host(p);
	if (err) {
		port_close(p);
		return err;
	}
	*out = p;
	return 0;
}

void port_close(struct port *p)
{
	static const struct port_ops deaf = {0};

	if (!p)
		return;
	p->ops = &deaf;
	ring_flush(p);
	port_tty_close(p);
	port_socket_close(p);
	port_pty_close(p);
	let_go(p);
	loop_cancel(p->loop, &p->tell);
	fd_close(&p->log_fd);
	free(p->ring);
	port_config_free(&p->cfg);
	free(p);
}

void port_describe(const struct port *p, struct json *out)
{
	json_key(out, "host");
	json_string(out, p->cfg.host);
	if (p->cfg.kind == PORT_PTY) {
		json_key(out, "pty");
		json_string(out, p->pty.slave);
	}
	json_key(out, "connected");
	json_bool(out, p->up);
	json_key(out, "sent");
	json_u64(out, p->sent);
	json_key(out, "received");
	json_u64(out, p->received);
	json_key(out, "waiting");
	json_u64(out, p->used);
	json_key(out, "lost");
	json_u64(out, p->lost);
}
