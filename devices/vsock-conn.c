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
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "vsock.h"

/* Of connect(), in one sweep: a guest may ask thousands of times for what nobody accepts. */
enum { RETRIES = 64 };
enum { CREDIT_LITTLE = 4096 };

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
	c->queued = false;
}

static void socket_close(struct vsock_conn *c)
{
	watch_del(&c->watch);
	fd_close(&c->fd);
	vsock_data_drop(c);
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

/*
 * Many small packets cost the guest more memory than they grant: what does not fit into a little credit waits for more. The guest, when it
 * has read what it got, will have to tell us of it.
 */
static bool credit_enough(const struct vsock_conn *c)
{
	size_t credit = vsock_credit(c);
	int waits = 0;

	if (!credit || credit >= MIN(c->peer_alloc / 4, (uint32_t)CREDIT_LITTLE))
		return credit;
	if (c->message)
		return c->message_len <= credit;
	return ioctl(c->fd, FIONREAD, &waits) < 0 || (size_t)waits <= credit;
}

/* Data may be read for the guest, if there is some. */
static bool may_read(struct vsock_conn *c)
{
	if (c->state != VSOCK_OPEN || c->eof || (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV))
		return false;
	if (!c->readable && !c->message)
		return false;
	if (credit_enough(c))
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
	c->queued = true;
	if (v->rx && !v->serving)
		virtqueue_wake(v->rx);
}

void vsock_conn_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *h)
{
	c->peer_alloc = le32toh(h->buf_alloc);
	c->peer_fwd = le32toh(h->fwd_cnt);
	if (credit_enough(c)) {
		c->asked = false;
		vsock_conn_queue(c);
	}
}

/* ---- packets to the guest ---- */

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
	vsock_data_header(c, &h, op, flags, 0);
	cursor_put(&e->wr, &h, sizeof(h));
	virtqueue_push(e);
	if (op == VIRTIO_VSOCK_OP_SHUTDOWN && c->told == VSOCK_SHUT_BOTH) {
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
		room = vsock_data_send(c, rx);
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

static void accepted(struct vsock_conn *c)
{
	c->send |= VSOCK_SEND_RESPONSE;
	established(c);
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
	accepted(c);
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
		vsock_data_flush(c);
	if (c->state == VSOCK_DRAINING && !c->backlog.len) {
		vsock_conn_free(c);
		return;
	}
	if (c->eof && c->hup && !c->deaf)
		vsock_data_end(c);
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
	int one = 1, size = (int)c->v->buffer;

	if (c->key.type == VIRTIO_VSOCK_TYPE_SEQPACKET) {
		setsockopt(c->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)); /* see message_read() */
		/* a message has to fit in as a whole */
		setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
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
	enum vsock_greet greet;
	int fd = vsock_host_connect(c->v, &c->key, &greet);

	set_retry(c, fd == -EAGAIN);
	if (fd < 0)
		return fd == -EAGAIN ? 0 : fd;
	c->fd = fd;
	c->greet = greet;
	if (!socket_watch(c))
		return -ENOMEM;
	if (greet == VSOCK_GREET_NONE)
		accepted(c);
	return 0;
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
	if (c->state == VSOCK_CONNECTING)
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
	c->guest_shut |= flags & VSOCK_SHUT_BOTH;
	vsock_data_shut(c);
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

/* Whoever is in vain goes to the end, so that all get their turn. */
static void retry(struct vsock_conn *c)
{
	if (conn_connect(c) < 0)
		vsock_conn_reset(c);
	if (!c->retry)
		return;
	TAILQ_REMOVE(&c->v->conns, c, all);
	TAILQ_INSERT_TAIL(&c->v->conns, c, all);
}

void vsock_conn_sweep(struct vsock *v, uint64_t now)
{
	struct vsock_conn *c, *next;
	unsigned tries = RETRIES;

	for (c = TAILQ_FIRST(&v->conns); c; c = next) {
		next = TAILQ_NEXT(c, all);
		if (c->deadline && c->deadline <= now)
			overdue(c);
		else if (c->retry && tries && tries--)
			retry(c);
	}
	if (v->nwaiting || v->ngreetings || !v->accepting)
		sweep_arm(v);
}
