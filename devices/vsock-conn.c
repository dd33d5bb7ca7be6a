/* SPDX-License-Identifier: MIT */
/*
 * Connections of the socket device (virtio 1.3, 5.10.6).
 *
 * A connection joins a pair of ports to a socket of the host. Its socket is watched for changes only (EPOLLET): `readable` and
 * `writable` hold from an event until the socket says EAGAIN, so that nothing has to be switched off while the guest has no
 * buffers or no credit for us.
 *
 * Credit (5.10.6.3): we grant --buffer bytes, and count what the socket took as forwarded; so a backlog never exceeds that. The guest is told at
 * a quarter of the window. What the guest grants bounds what is read from the socket.
 *
 * The ends close each way by itself. Host's end of file: SHUTDOWN(SEND), after all data. A host that reads no more:
 * SHUTDOWN(RECEIVE). Both: the guest's reset is awaited, with a limit. The guest's SHUTDOWN(SEND) becomes an end of file behind
 * the backlog; when it has closed both ways and the backlog is written it gets a reset. A guest that does not wait for that
 * loses nothing: the backlog is written all the same.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "vsock.h"

#define RECORD_EOR (1U << 31) /* in the length before a message of the backlog */

enum { BURST = 16 }; /* receive buffers in one system call */
enum { BOTH = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND };

static const char *const state_names[] = {
	[VSOCK_CONNECTING] = "connecting",
	[VSOCK_REQUESTED] = "requested",
	[VSOCK_OPEN] = "open",
	[VSOCK_LINGERING] = "lingering",
	[VSOCK_DRAINING] = "draining",
};

const char *vsock_conn_state(const struct vsock_conn *c)
{
	return state_names[c->state];
}

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

/* ---- life ---- */

static struct vsock_bucket *bucket_of(struct vsock *v, const struct vsock_key *key)
{
	uint32_t h = key->peer_port * 0x9e3779b1U;

	h = (h ^ key->guest_port ^ (uint32_t)key->peer_cid ^ key->type) * 0x85ebca6bU;
	return &v->buckets[(h >> 16) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_conn_find(struct vsock *v, const struct vsock_key *key)
{
	struct vsock_conn *c;

	LIST_FOREACH(c, bucket_of(v, key), bucket)
	if (vsock_key_equal(&c->key, key))
		return c;
	return NULL;
}

uint32_t vsock_conn_port(struct vsock *v, uint32_t guest_port, uint16_t type)
{
	struct vsock_key key = {.peer_cid = VSOCK_HOST, .guest_port = guest_port, .type = type};

	do {
		key.peer_port = v->next_port++;
		if (v->next_port >= UINT32_MAX)
			v->next_port = 1U << 30;
	} while (vsock_conn_find(v, &key));
	return key.peer_port;
}

static void set_retry(struct vsock_conn *c, bool on)
{
	c->v->nretries += (unsigned)on - (unsigned)c->retry;
	c->retry = on;
}

static void sweep_arm(struct vsock *v)
{
	uint64_t at = loop_now(v->b->loop) + (v->nretries ? 10 * 1000 * 1000 : UINT64_C(1000) * 1000 * 1000);

	if (!v->sweep.at || v->sweep.at > at)
		timer_arm(v->b->loop, &v->sweep, at);
}

static void set_deadline(struct vsock_conn *c, bool on)
{
	c->v->nwaiting += (unsigned)on - (unsigned)(c->deadline != 0);
	c->deadline = on ? loop_now(c->v->b->loop) + VSOCK_TIMEOUT_NS : 0;
	if (on)
		sweep_arm(c->v);
}

static void turn_remove(struct vsock_conn *c)
{
	if (!c->queued)
		return;
	TAILQ_REMOVE(&c->v->turns, c, turn);
	c->v->nturns--;
	c->queued = false;
}

static void socket_close(struct vsock_conn *c)
{
	watch_del(&c->watch);
	fd_close(&c->fd);
	fifo_free(&c->backlog);
	fifo_free(&c->partial);
	free(c->message);
	c->message = NULL;
	c->held = 0;
	c->readable = c->writable = false;
	set_retry(c, false);
}

void vsock_conn_free(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	turn_remove(c);
	socket_close(c);
	set_deadline(c, false);
	if (c->state != VSOCK_DRAINING)
		LIST_REMOVE(c, bucket);
	TAILQ_REMOVE(&v->conns, c, all);
	v->nconns--;
	free(c);
	vsock_host_resume(v);
}

void vsock_conn_drop_all(struct vsock *v)
{
	struct vsock_conn *c;

	while ((c = TAILQ_FIRST(&v->conns)))
		vsock_conn_free(c);
}

void vsock_conn_reset(struct vsock_conn *c)
{
	socket_close(c);
	set_deadline(c, false);
	c->state = VSOCK_LINGERING;
	c->send = VSOCK_SEND_RST;
	vsock_conn_queue(c);
}

/* ---- turns ---- */

static size_t credit(const struct vsock_conn *c)
{
	uint32_t used = c->tx_cnt - c->peer_fwd;

	return used < c->peer_alloc ? c->peer_alloc - used : 0;
}

/* Data may be read for the guest, if there is some. */
static bool may_read(struct vsock_conn *c)
{
	if (c->state != VSOCK_OPEN || c->eof || (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV))
		return false;
	if (!c->readable && !c->message)
		return false;
	if (credit(c))
		return true;
	if (!c->asked) {
		c->asked = true;
		c->send |= VSOCK_ASK_CREDIT;
	}
	return false;
}

void vsock_conn_queue(struct vsock_conn *c)
{
	struct vsock *v = c->v;

	if (c->queued || c->state == VSOCK_DRAINING || (!may_read(c) && !c->send))
		return;
	TAILQ_INSERT_TAIL(&v->turns, c, turn);
	v->nturns++;
	c->queued = true;
	if (v->rx)
		virtqueue_wake(v->rx);
}

void vsock_conn_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_alloc = le32toh(h->buf_alloc);
	c->peer_fwd = le32toh(h->fwd_cnt);
	if (credit(c)) {
		c->asked = false;
		vsock_conn_queue(c);
	}
}

/* ---- guest to host ---- */

static void send_shutdown(struct vsock_conn *c)
{
	c->send |= VSOCK_SEND_SHUTDOWN;
	vsock_conn_queue(c);
}

/* The socket took n bytes, or they were given up. */
static void forwarded(struct vsock_conn *c, size_t n)
{
	c->fwd_cnt += (uint32_t)n;
	if (c->state == VSOCK_OPEN && c->fwd_cnt - c->told_fwd >= c->v->buffer / 4) {
		c->send |= VSOCK_SEND_CREDIT;
		vsock_conn_queue(c);
	}
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
	if (err != EPIPE) {
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
static void guest_shut(struct vsock_conn *c)
{
	if (c->backlog.len || c->state != VSOCK_OPEN)
		return;
	if (c->guest_shut == BOTH)
		vsock_conn_reset(c);
	else if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->fd, SHUT_WR);
}

static ssize_t send_bytes(struct vsock_conn *c, const struct iovec *v, unsigned n, bool eor)
{
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = n};
	ssize_t r;

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

static void backlog_flush(struct vsock_conn *c)
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
		guest_shut(c);
}

bool vsock_conn_accepts(struct vsock_conn *c, size_t len)
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

void vsock_conn_write(struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len)
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

void vsock_conn_write_message(
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
	if (!(flags & VIRTIO_VSOCK_SEQ_EOM))
		return;
	record = (uint32_t)c->partial.len | (flags & VIRTIO_VSOCK_SEQ_EOR ? RECORD_EOR : 0);
	if (!fifo_append(&c->backlog, &record, sizeof(record), max) ||
		!fifo_append(&c->backlog, c->partial.buf, c->partial.len, max)) {
		log_guest_warn("port %u: too many messages wait: connection reset", c->key.guest_port);
		vsock_conn_reset(c);
		return;
	}
	fifo_free(&c->partial);
	backlog_flush(c);
}

/* ---- host to guest ---- */

static void header(struct vsock_conn *c, struct virtio_vsock_hdr *h, uint16_t op, uint32_t flags, size_t len)
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
static void end_of_file(struct vsock_conn *c)
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
	else if (err == 0)
		end_of_file(c);
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

	n = take_buffers(c, rx, credit(c), e, v, &nv, &want);
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
		header(c, &h, VIRTIO_VSOCK_OP_RW, 0, len);
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
	struct iovec v = {.iov_base = c->v->scratch, .iov_len = c->v->buffer};
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
	if ((m.msg_flags & MSG_TRUNC) || (size_t)r > c->peer_alloc) {
		log_warn("port %u: a message of the host is longer than the buffers: connection reset",
			c->key.guest_port);
		vsock_conn_reset(c);
		return false;
	}
	*len = (size_t)r;
	*flags = VIRTIO_VSOCK_SEQ_EOM | (m.msg_flags & MSG_EOR ? VIRTIO_VSOCK_SEQ_EOR : 0);
	return true;
}

/* Sends what credit and buffers allow; *done: how much of the message. False: no buffers. */
static bool message_fragments(struct vsock_conn *c, struct virtqueue *rx, const uint8_t *data, size_t len,
	uint32_t flags, size_t *done)
{
	bool first = true;

	for (*done = 0; *done < len || (first && !len); first = false) {
		size_t room = MIN(credit(c), len - *done);
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
		header(c, &h, VIRTIO_VSOCK_OP_RW, *done == len ? flags : 0, room);
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

/* The packet that comes next of those without payload; its flags. */
static uint16_t next_control(struct vsock_conn *c, uint32_t *flags)
{
	static const struct {
		uint8_t send;
		uint16_t op;
	} order[] = {
		{VSOCK_SEND_RST, VIRTIO_VSOCK_OP_RST},
		{VSOCK_SEND_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{VSOCK_SEND_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{VSOCK_ASK_CREDIT, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{VSOCK_SEND_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
		{VSOCK_SEND_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
	};
	unsigned i = 0;

	while (!(c->send & order[i].send))
		i++;
	c->send &= (uint8_t)~order[i].send;
	if (order[i].send == VSOCK_SEND_SHUTDOWN) {
		c->told |=
			(c->eof ? VIRTIO_VSOCK_SHUTDOWN_SEND : 0) | (c->deaf ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0);
		*flags = c->told;
	}
	return order[i].op;
}

/* False: no buffers. */
static bool send_control(struct vsock_conn *c, struct virtqueue *rx)
{
	struct element *e = virtqueue_pop(rx);
	struct virtio_vsock_hdr h;
	uint32_t flags = 0;
	uint16_t op;

	if (!e)
		return false;
	if (e->wr.left < VSOCK_HDR) {
		virtqueue_push(e);
		return true;
	}
	op = next_control(c, &flags);
	header(c, &h, op, flags, 0);
	cursor_put(&e->wr, &h, sizeof(h));
	virtqueue_push(e);
	if (op == VIRTIO_VSOCK_OP_SHUTDOWN && c->told == BOTH) {
		socket_close(c);
		c->state = VSOCK_LINGERING;
		set_deadline(c, true);
	}
	return true;
}

bool vsock_conn_send(struct vsock_conn *c, struct virtqueue *rx)
{
	bool room = true, over = false;

	while (room && c->send && !over) {
		over = c->send & VSOCK_SEND_RST;
		room = send_control(c, rx);
		over = over && !(c->send & VSOCK_SEND_RST);
	}
	if (over) {
		vsock_conn_free(c);
		return true;
	}
	if (room && may_read(c))
		room = c->key.type == VIRTIO_VSOCK_TYPE_STREAM ? send_stream(c, rx) : send_message(c, rx);
	if (!room)
		return false;
	turn_remove(c);
	vsock_conn_queue(c);
	return true;
}

/* ---- the socket ---- */

/* The host's end is there. */
static void established(struct vsock_conn *c)
{
	set_deadline(c, false);
	c->state = VSOCK_OPEN;
	c->readable = c->writable = true;
	vsock_conn_queue(c);
}

/* A sibling's "OK …\n". 1: it is there, 0: not yet, -1: no. */
static int greeting_answer(struct vsock_conn *c)
{
	char text[VSOCK_GREETING_LEN], *end;
	ssize_t n = recv(c->fd, text, sizeof(text), MSG_PEEK | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	end = memchr(text, '\n', (size_t)n);
	if (!end)
		return n == 0 || n == sizeof(text) ? -1 : 0;
	if (n < 3 || memcmp(text, "OK", 2) != 0)
		return -1;
	return recv(c->fd, text, (size_t)(end - text + 1), MSG_DONTWAIT) > 0 ? 1 : -1;
}

static void connecting(struct vsock_conn *c, uint32_t events)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err) {
		vsock_conn_reset(c);
		return;
	}
	if (!(events & (EPOLLOUT | EPOLLIN)))
		return;
	if (c->greet == VSOCK_GREET_AWAIT) {
		int r = greeting_answer(c);

		if (r < 0)
			vsock_conn_reset(c);
		if (r <= 0)
			return;
	}
	c->send |= VSOCK_SEND_RESPONSE;
	established(c);
}

static void host_ready(struct watch *w, uint32_t events)
{
	struct vsock_conn *c = container_of(w, struct vsock_conn, watch);

	if (c->state == VSOCK_CONNECTING) {
		connecting(c, events);
		return;
	}
	if (events & EPOLLHUP)
		c->hup = true;
	if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		c->rdhup = true;
	if (c->state == VSOCK_REQUESTED && (events & (EPOLLHUP | EPOLLERR))) {
		vsock_conn_reset(c);
		return;
	}
	if (events & EPOLLOUT)
		c->writable = true;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		c->readable = true;
	if (c->state == VSOCK_DRAINING && (events & (EPOLLHUP | EPOLLERR))) {
		vsock_conn_free(c);
		return;
	}
	if (c->backlog.len)
		backlog_flush(c);
	if (c->state == VSOCK_DRAINING && !c->backlog.len) {
		vsock_conn_free(c);
		return;
	}
	if (c->eof && c->hup && !c->deaf)
		end_of_file(c);
	vsock_conn_queue(c);
}

static struct vsock_conn *conn_new(struct vsock *v, const struct vsock_key *key, enum vsock_state state)
{
	struct vsock_conn *c = v->nconns < v->max_conns ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	c->v = v;
	c->key = *key;
	c->state = state;
	c->fd = c->watch.fd = -1;
	c->burst = 1;
	c->watch.ready = host_ready;
	LIST_INSERT_HEAD(bucket_of(v, key), c, bucket);
	TAILQ_INSERT_TAIL(&v->conns, c, all);
	v->nconns++;
	return c;
}

static bool socket_watch(struct vsock_conn *c)
{
	int one = 1;

	if (c->key.type == VIRTIO_VSOCK_TYPE_SEQPACKET)
		setsockopt(c->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)); /* see message_read() */
	return watch_add(c->v->b->loop, &c->watch, c->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) == 0;
}

struct vsock_conn *vsock_conn_request(
	struct vsock *v, const struct vsock_key *key, int fd, enum vsock_greet greet)
{
	struct vsock_conn *c =
		v->b->features && !vsock_conn_find(v, key) ? conn_new(v, key, VSOCK_REQUESTED) : NULL;

	if (!c) {
		close(fd);
		return NULL;
	}
	c->fd = fd;
	c->greet = greet;
	if (!socket_watch(c)) {
		vsock_conn_free(c);
		return NULL;
	}
	c->send = VSOCK_SEND_REQUEST;
	set_deadline(c, true);
	vsock_conn_queue(c);
	return c;
}

/* ---- packets of the guest ---- */

/* Connects to the host's end. 0, also when it has to be tried again; -errno: there is none. */
static int conn_connect(struct vsock_conn *c)
{
	enum vsock_greet greet = VSOCK_GREET_NONE;
	int fd = vsock_host_connect(c->v, &c->key, &greet);

	set_retry(c, fd == -EAGAIN);
	if (fd < 0)
		return fd == -EAGAIN ? 0 : fd;
	c->fd = fd;
	c->greet = greet;
	return socket_watch(c) ? 0 : -ENOMEM;
}

static void guest_request(struct vsock *v, const struct vsock_key *key, const struct virtio_vsock_hdr *h)
{
	struct vsock_conn *c = conn_new(v, key, VSOCK_CONNECTING);

	if (!c) {
		log_guest_warn("port %u: too many connections", key->peer_port);
		vsock_reply_reset(v, h);
		return;
	}
	vsock_conn_credit(c, h);
	if (conn_connect(c) < 0) {
		vsock_conn_free(c);
		vsock_reply_reset(v, h);
		return;
	}
	set_deadline(c, true);
}

static void guest_response(struct vsock_conn *c)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "OK %u\n", c->key.peer_port);

	if (c->state != VSOCK_REQUESTED) {
		vsock_conn_reset(c);
		return;
	}
	if (c->greet == VSOCK_GREET_ANSWER &&
		send(c->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		vsock_conn_reset(c);
		return;
	}
	established(c);
}

static void guest_shutdown(struct vsock_conn *c, uint32_t flags)
{
	if (c->state != VSOCK_OPEN) {
		if (!(c->send & VSOCK_SEND_RST))
			vsock_conn_reset(c);
		return;
	}
	if (flags & ~(uint32_t)c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		shutdown(c->fd, SHUT_RD);
	c->guest_shut |= flags & BOTH;
	guest_shut(c);
}

static void guest_gone(struct vsock_conn *c)
{
	if (c->state != VSOCK_OPEN || !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) || !c->backlog.len) {
		vsock_conn_free(c);
		return;
	}
	turn_remove(c);
	LIST_REMOVE(c, bucket);
	c->state = VSOCK_DRAINING;
}

void vsock_conn_control(
	struct vsock *v, struct vsock_conn *c, const struct vsock_key *key, const struct virtio_vsock_hdr *h)
{
	uint16_t op = le16toh(h->op);

	if (!c) {
		guest_request(v, key, h);
		return;
	}
	switch (op) {
	case VIRTIO_VSOCK_OP_RST:
		guest_gone(c);
		break;
	case VIRTIO_VSOCK_OP_RESPONSE:
		guest_response(c);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		guest_shutdown(c, le32toh(h->flags));
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		if (c->state == VSOCK_OPEN) {
			c->send |= VSOCK_SEND_CREDIT;
			vsock_conn_queue(c);
		}
		break;
	default:
		log_guest_warn("port %u: operation %u out of place: connection reset", key->guest_port, op);
		vsock_conn_reset(c);
	}
}

/* ---- time ---- */

static void overdue(struct vsock_conn *c)
{
	if (c->send & VSOCK_SEND_RST)
		return;
	log_info("port %u: %s: no answer in time", c->key.guest_port, vsock_conn_state(c));
	vsock_conn_reset(c);
}

void vsock_conn_sweep(struct vsock *v, uint64_t now)
{
	struct vsock_conn *c, *next;

	for (c = TAILQ_FIRST(&v->conns); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->deadline && c->deadline <= now)
			overdue(c);
		else if (c->retry && conn_connect(c) < 0)
			vsock_conn_reset(c);
	}
	if (v->nwaiting || v->ngreetings || !v->accepting)
		sweep_arm(v);
}
