/* SPDX-License-Identifier: MIT */
/*
 * Payload of the socket device's connections (virtio 1.3, 5.10.6.3 and 5.10.6.4), without a copy where that is possible.
 *
 * From the guest: what the socket takes goes right there; the rest waits in the backlog. A message of a seqpacket connection is
 * collected until its end has come, and then goes to the socket as one; in the backlog its length stands before it. Between guests a
 * byte with its flags stands behind it.
 *
 * To the guest: several receive buffers are filled by one system call, their headers are written after it. Of a message the
 * rest that found no buffers or no credit is kept.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "vsock.h"

#define RECORD_EOR (1U << 31) /* in the length before a message of the backlog */

enum { BURST = 16 }; /* receive buffers in one system call */

/* ---- the bytes that wait for a socket ---- */

static bool fifo_append(struct vsock_fifo *f, const void *data, size_t len, size_t max)
{
	size_t size = f->size ? f->size : 4096;
	uint8_t *buf;

	if (!len)
		return true;
	if (f->head + f->len + len > f->size && f->head) {
		memmove(f->buf, f->buf + f->head, f->len);
		f->head = 0;
	}
	if (f->len + len > f->size) {
		if (f->len + len > max)
			return false;
		while (size < f->len + len)
			size *= 2;
		buf = realloc(f->buf, size);
		if (!buf)
			return false;
		f->buf = buf;
		f->size = size;
	}
	memcpy(f->buf + f->head + f->len, data, len);
	f->len += len;
	return true;
}

static void fifo_free(struct vsock_fifo *f)
{
	free(f->buf);
	memset(f, 0, sizeof(*f));
}

static void fifo_consume(struct vsock_fifo *f, size_t len)
{
	f->head += len;
	f->len -= len;
	if (!f->len)
		fifo_free(f);
}

/* Appends all of v[] but the first `skip` bytes. */
static bool fifo_append_iovec(
	struct vsock_fifo *f, const struct iovec *v, unsigned n, size_t skip, size_t max)
{
	for (unsigned i = 0; i < n; i++) {
		size_t off = MIN(skip, v[i].iov_len);

		skip -= off;
		if (off < v[i].iov_len &&
			!fifo_append(f, (uint8_t *)v[i].iov_base + off, v[i].iov_len - off, max))
			return false;
	}
	return true;
}

/* ---- guest to host ---- */

static void send_shutdown(struct vsock_conn *c)
{
	c->send |= VSOCK_SEND_SHUTDOWN;
	vsock_conn_queue(c);
}

static void send_credit(struct vsock_conn *c)
{
	c->send |= VSOCK_SEND_CREDIT;
	vsock_conn_queue(c);
}

/* The socket took n bytes, or they were given up. */
static void forwarded(struct vsock_conn *c, size_t n)
{
	c->fwd_cnt += (uint32_t)n;
	if (c->state == VSOCK_OPEN && c->fwd_cnt - c->told_fwd >= c->v->buffer / 4)
		send_credit(c);
}

/*
 * Where the other end of a Unix socket closes before it has read all, we are told so once, as an error. What it sent before can still be
 * read.
 */
static bool closed_unread(const struct vsock_conn *c, int err)
{
	socklen_t len = sizeof(int);
	int domain = 0;

	return err == ECONNRESET && getsockopt(c->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       domain == AF_UNIX;
}

/* The host reads no more. What it has sent is still good. */
static void write_failed(struct vsock_conn *c, int err)
{
	size_t lost = c->held;

	if (c->state == VSOCK_DRAINING) {
		fifo_free(&c->backlog);
		return;
	}
	if (err == EMSGSIZE)
		log_guest_warn("port %u: a message is longer than the host's socket takes: connection reset",
			c->key.guest_port);
	if (err != EPIPE && !closed_unread(c, err)) {
		vsock_conn_reset(c);
		return;
	}
	fifo_free(&c->backlog);
	fifo_free(&c->partial);
	c->held = 0;
	c->deaf = true;
	forwarded(c, lost);
	send_shutdown(c);
}

/* What the guest has closed is closed for the host when all before it is written. */
void vsock_data_shut(struct vsock_conn *c)
{
	if (c->backlog.len || c->state != VSOCK_OPEN)
		return;
	if (c->guest_shut == VSOCK_SHUT_BOTH)
		vsock_conn_reset(c);
	else if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->fd, SHUT_WR);
}

static ssize_t send_bytes(struct vsock_conn *c, const struct iovec *v, unsigned n, bool eor)
{
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = n};
	uint8_t flags = eor ? VIRTIO_VSOCK_SEQ_EOR : 0;
	struct iovec behind[VSOCK_PIECES + 1];
	ssize_t r;

	if (vsock_key_flags_byte(&c->key)) {
		memcpy(behind, v, n * sizeof(*v));
		behind[n] = (struct iovec){&flags, sizeof(flags)};
		m.msg_iov = behind;
		m.msg_iovlen++;
	}
	do
		r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT | (eor ? MSG_EOR : 0));
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return r;
	if (errno != EAGAIN && errno != ENOBUFS)
		return -errno;
	c->writable = false;
	return -EAGAIN;
}

/* Writes the head of the backlog. Bytes it became shorter by, or -errno. */
static ssize_t backlog_write(struct vsock_conn *c, size_t *payload)
{
	struct vsock_fifo *f = &c->backlog;
	struct iovec v = {.iov_base = f->buf + f->head, .iov_len = f->len};
	uint32_t record = 0;
	bool message = c->key.type == VIRTIO_VSOCK_TYPE_SEQPACKET;
	ssize_t r;

	if (message) {
		memcpy(&record, v.iov_base, sizeof(record));
		v.iov_base = f->buf + f->head + sizeof(record);
		v.iov_len = record & ~RECORD_EOR;
	}
	r = send_bytes(c, &v, 1, record & RECORD_EOR);
	if (r < 0)
		return r;
	if (!message && (size_t)r < v.iov_len)
		c->writable = false;
	*payload = message ? v.iov_len : (size_t)r;
	return message ? (ssize_t)(v.iov_len + sizeof(record)) : r;
}

void vsock_data_flush(struct vsock_conn *c)
{
	while (c->backlog.len && c->writable) {
		size_t payload = 0;
		ssize_t r = backlog_write(c, &payload);

		if (r == -EAGAIN)
			return;
		if (r < 0) {
			write_failed(c, (int)-r);
			return;
		}
		fifo_consume(&c->backlog, (size_t)r);
		c->held -= payload;
		forwarded(c, payload);
	}
	if (!c->backlog.len && c->guest_shut)
		vsock_data_shut(c);
}

bool vsock_data_accepts(struct vsock_conn *c, size_t len)
{
	if (c->state == VSOCK_LINGERING)
		return false;
	if (c->state != VSOCK_OPEN || (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
		log_guest_warn("port %u: data out of place: connection reset", c->key.guest_port);
		vsock_conn_reset(c);
		return false;
	}
	if (c->held + len > c->v->buffer) {
		log_guest_warn("port %u: more data than was granted: connection reset", c->key.guest_port);
		vsock_conn_reset(c);
		return false;
	}
	return true;
}

void vsock_data_write(struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len)
{
	size_t done = 0;

	if (c->state != VSOCK_OPEN)
		return;
	if (!c->deaf && !c->backlog.len && c->writable) {
		ssize_t r = send_bytes(c, v, n, false);

		if (r < 0 && r != -EAGAIN) {
			write_failed(c, (int)-r);
			if (c->state != VSOCK_OPEN)
				return;
		}
		done = r > 0 ? (size_t)r : 0;
		c->writable = done == len;
	}
	if (c->deaf)
		done = len;
	if (done < len && !fifo_append_iovec(&c->backlog, v, n, done, 2 * c->v->buffer)) {
		vsock_conn_reset(c);
		return;
	}
	c->held += len - done;
	forwarded(c, done);
}

/* A whole message that nothing is in front of. True: it is done with. */
static bool message_direct(
	struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len, uint32_t flags)
{
	ssize_t r;

	if (!(flags & VIRTIO_VSOCK_SEQ_EOM) || c->partial.len || c->backlog.len || !c->writable)
		return false;
	r = send_bytes(c, v, n, flags & VIRTIO_VSOCK_SEQ_EOR);
	if (r == -EAGAIN)
		return false;
	if (r < 0)
		write_failed(c, (int)-r);
	if (c->state == VSOCK_OPEN)
		forwarded(c, len);
	return true;
}

void vsock_data_write_message(
	struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len, uint32_t flags)
{
	/* Messages without payload cost no credit: this bounds what their lengths take. */
	size_t max = 4 * c->v->buffer;
	uint32_t record;

	if (c->state != VSOCK_OPEN)
		return;
	if (c->deaf) {
		forwarded(c, len);
		return;
	}
	if (message_direct(c, v, n, len, flags))
		return;
	if (!fifo_append_iovec(&c->partial, v, n, 0, 2 * c->v->buffer)) {
		vsock_conn_reset(c);
		return;
	}
	c->held += len;
	if (!(flags & VIRTIO_VSOCK_SEQ_EOM)) {
		if (c->fwd_cnt != c->told_fwd) /* a long message may need all that there is */
			send_credit(c);
		return;
	}
	record = (uint32_t)c->partial.len | (flags & VIRTIO_VSOCK_SEQ_EOR ? RECORD_EOR : 0);
	if (!fifo_append(&c->backlog, &record, sizeof(record), max) ||
		!fifo_append(&c->backlog, c->partial.buf, c->partial.len, max)) {
		log_guest_warn("port %u: too many messages wait: connection reset", c->key.guest_port);
		vsock_conn_reset(c);
		return;
	}
	fifo_free(&c->partial);
	vsock_data_flush(c);
}

/* ---- host to guest ---- */

void vsock_data_header(
	struct vsock_conn *c, struct virtio_vsock_hdr *h, uint16_t op, uint32_t flags, size_t len)
{
	h->src_cid = htole64(c->key.peer_cid);
	h->dst_cid = htole64(c->v->guest_cid);
	h->src_port = htole32(c->key.peer_port);
	h->dst_port = htole32(c->key.guest_port);
	h->len = htole32((uint32_t)len);
	h->type = htole16(c->key.type);
	h->op = htole16(op);
	h->flags = htole32(flags);
	h->buf_alloc = htole32((uint32_t)c->v->buffer);
	h->fwd_cnt = htole32(c->fwd_cnt);
	c->told_fwd = c->fwd_cnt;
	c->send &= (uint8_t)~VSOCK_SEND_CREDIT;
}

/* The host's end is at its end. */
void vsock_data_end(struct vsock_conn *c)
{
	c->eof = true;
	if (c->hup) {
		c->deaf = true;
		fifo_free(&c->backlog);
		fifo_free(&c->partial);
		c->held = 0;
	}
	send_shutdown(c);
}

/* The socket gave nothing: why. */
static void read_ended(struct vsock_conn *c, ssize_t err)
{
	if (err == -EAGAIN)
		c->readable = false;
	else if (closed_unread(c, (int)-err))
		write_failed(c, EPIPE);
	else if (err == 0)
		vsock_data_end(c);
	else
		vsock_conn_reset(c);
}

/* Takes buffers for at most `room` bytes; e[] and v[] hold BURST and 2 * BURST. */
static unsigned take_buffers(struct vsock_conn *c, struct virtqueue *rx, size_t room, struct element **e,
	struct iovec *v, unsigned *nv, size_t *want)
{
	unsigned n = 0;

	*nv = 0;
	*want = 0;
	while (n < c->burst && *want < room && *nv < 2 * BURST && (e[n] = virtqueue_pop(rx))) {
		struct vsock_slot *s = e[n]->req;
		unsigned k;

		if (!cursor_split(&e[n]->wr, VSOCK_HDR, &s->head) || !e[n]->wr.left) {
			if (n) { /* what is before it may have to be given back, so this one stays for now */
				virtqueue_unpop(e[n]);
				break;
			}
			log_guest_warn("receive buffer too small for a packet");
			virtqueue_push(e[n]);
			continue;
		}
		k = cursor_iovec(&e[n]->wr, room - *want, v + *nv, 2 * BURST - *nv);
		s->len = 0;
		for (unsigned i = 0; i < k; i++)
			s->len += v[*nv + i].iov_len;
		*want += s->len;
		*nv += k;
		n++;
	}
	return n;
}

/* False: no buffers. */
static bool send_stream(struct vsock_conn *c, struct virtqueue *rx)
{
	struct element *e[BURST];
	struct iovec v[2 * BURST];
	struct virtio_vsock_hdr h;
	size_t want, left;
	unsigned n, nv, used = 0;
	ssize_t r;

	n = take_buffers(c, rx, vsock_credit(c), e, v, &nv, &want);
	if (!n)
		return false;
	do
		r = readv(c->fd, v, (int)nv);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		r = -errno;
	for (left = r > 0 ? (size_t)r : 0; left; used++) {
		struct vsock_slot *s = e[used]->req;
		size_t len = MIN(left, s->len);

		cursor_skip(&e[used]->wr, len);
		c->tx_cnt += (uint32_t)len;
		vsock_data_header(c, &h, VIRTIO_VSOCK_OP_RW, 0, len);
		cursor_put(&s->head, &h, sizeof(h));
		left -= len;
	}
	for (unsigned i = 0; i < used; i++)
		virtqueue_push(e[i]);
	for (unsigned i = n; i > used; i--)
		virtqueue_unpop(e[i - 1]);
	if (r <= 0) {
		read_ended(c, r);
		return true;
	}
	if ((size_t)r < want && !c->rdhup)
		c->readable = false;
	c->burst = (uint8_t)((size_t)r < want ? MAX(used, 1U) : MIN(2U * c->burst, (unsigned)BURST));
	return true;
}

/*
 * Reads the next message into the scratch buffer. False: there was none. An empty message and the end of file both give
 * nothing; a message comes with its sender's credentials (SO_PASSCRED). There is room for no descriptors beside them.
 */
static bool message_read(struct vsock_conn *c, size_t *len, uint32_t *flags)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_LEN(sizeof(struct ucred))];
	bool behind = vsock_key_flags_byte(&c->key);
	struct iovec v = {.iov_base = c->v->scratch, .iov_len = c->v->buffer + behind};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t r;

	do
		r = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (r < 0 && errno == EINTR);
	if (r < 0 || (r == 0 && !m.msg_controllen)) {
		read_ended(c, r < 0 ? -errno : 0);
		return false;
	}
	r -= behind;
	if (r < 0) {
		log_guest_warn("port %u: a message of another guest without its flags: connection reset",
			c->key.guest_port);
		vsock_conn_reset(c);
		return false;
	}
	if ((m.msg_flags & MSG_TRUNC) || (size_t)r > c->peer_alloc) {
		log_guest_warn("port %u: a message of the host is longer than the buffers: connection reset",
			c->key.guest_port);
		vsock_conn_reset(c);
		return false;
	}
	*len = (size_t)r;
	*flags = VIRTIO_VSOCK_SEQ_EOM;
	if (behind ? c->v->scratch[r] & VIRTIO_VSOCK_SEQ_EOR : m.msg_flags & MSG_EOR)
		*flags |= VIRTIO_VSOCK_SEQ_EOR;
	return true;
}

/* Sends what credit and buffers allow; *done: how much of the message. False: no buffers. */
static bool message_fragments(struct vsock_conn *c, struct virtqueue *rx, const uint8_t *data, size_t len,
	uint32_t flags, size_t *done)
{
	bool first = true;

	for (*done = 0; *done < len || (first && !len); first = false) {
		size_t room = MIN(vsock_credit(c), len - *done);
		struct virtio_vsock_hdr h;
		struct vsock_slot *s;
		struct element *e;

		if (len && !room)
			return true;
		e = virtqueue_pop(rx);
		if (!e)
			return false;
		s = e->req;
		if (!cursor_split(&e->wr, VSOCK_HDR, &s->head) || (len && !e->wr.left)) {
			virtqueue_push(e);
			continue;
		}
		room = MIN(room, e->wr.left);
		cursor_put(&e->wr, data + *done, room);
		*done += room;
		c->tx_cnt += (uint32_t)room;
		vsock_data_header(c, &h, VIRTIO_VSOCK_OP_RW, *done == len ? flags : 0, room);
		cursor_put(&s->head, &h, sizeof(h));
		virtqueue_push(e);
	}
	return true;
}

/* False: no buffers. */
static bool send_message(struct vsock_conn *c, struct virtqueue *rx)
{
	const uint8_t *data = c->message;
	uint32_t flags = c->message_flags;
	size_t len = c->message_len, done;
	uint8_t *rest;
	bool room;

	if (!data) {
		if (!message_read(c, &len, &flags))
			return true;
		data = c->v->scratch;
	}
	room = message_fragments(c, rx, data, len, flags, &done);
	if (done == len && (len || room)) {
		free(c->message);
		c->message = NULL;
		return room;
	}
	rest = malloc(len - done + 1);
	if (!rest) {
		vsock_conn_reset(c);
		return true;
	}
	memcpy(rest, data + done, len - done);
	free(c->message);
	c->message = rest;
	c->message_len = len - done;
	c->message_flags = flags;
	return room;
}

bool vsock_data_send(struct vsock_conn *c, struct virtqueue *rx)
{
	return c->key.type == VIRTIO_VSOCK_TYPE_STREAM ? send_stream(c, rx) : send_message(c, rx);
}

void vsock_data_drop(struct vsock_conn *c)
{
	fifo_free(&c->backlog);
	fifo_free(&c->partial);
	free(c->message);
	c->message = NULL;
	c->held = 0;
}
