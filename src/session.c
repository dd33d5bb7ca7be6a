/* SPDX-License-Identifier: MIT */
/*
 * The connection: reading, the message table, replies, suspension, the end; and the messages that concern no
 * ring and no memory. See session.h.
 */
#include "session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "vring-info.h"

enum { CONFIG_WRITABLE = 0, CONFIG_LIVE_MIGRATION = 1 };
enum { CONFIG_HEADER = offsetof(struct config_msg, data), CONFIG_MAX = 256 }; /* what front-ends hold */
enum { STATE_NO_FD = 0x100, STATE_ERROR = 1 };

#define RING_FEATURES                                                                 \
	(BIT(FEATURE_LOG_ALL) | BIT(FEATURE_INDIRECT_DESC) | BIT(FEATURE_EVENT_IDX) | \
		BIT(FEATURE_PROTOCOL) | BIT(FEATURE_VERSION_1))

/* Whom LOG_ABOUT() is about. */
static int socket_of(const struct backend *b)
{
	return b->num_sockets > 1 ? (int)b->socket : -1;
}

/* Features */

static uint64_t offered_features(const struct session *s)
{
	return s->b->offered | RING_FEATURES | (s->host->packed ? BIT(FEATURE_RING_PACKED) : 0) |
	       (s->b->dev->in_order ? BIT(FEATURE_IN_ORDER) : 0);
}

static uint64_t offered_protocol(const struct session *s)
{
	const struct device *dev = s->b->dev;
	uint64_t p = BIT(PROTOCOL_MQ) | BIT(PROTOCOL_LOG_SHMFD) | BIT(PROTOCOL_REPLY_ACK) |
		     BIT(PROTOCOL_BACKEND_REQ) | BIT(PROTOCOL_INFLIGHT_SHMFD) | BIT(PROTOCOL_RESET_DEVICE) |
		     BIT(PROTOCOL_CONFIGURE_MEM_SLOTS) | BIT(PROTOCOL_STATUS) | dev->protocol_features;

	if (dev->config_size)
		p |= BIT(PROTOCOL_CONFIG);
	if (dev->save && dev->load)
		p |= BIT(PROTOCOL_DEVICE_STATE);
	if (s->host->inband)
		p |= BIT(PROTOCOL_INBAND_NOTIFICATIONS);
	/* a page that never comes would stop the others too */
	if (postcopy_available() && s->b->num_sockets <= 1)
		p |= BIT(PROTOCOL_PAGEFAULT);
	return p;
}

static int get_features(struct session *s, struct message *m)
{
	(void)m;
	return session_reply_u64(s, offered_features(s));
}

static bool rings_rest(const struct session *s)
{
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i] && s->host->queues[i]->phase != VRING_RESTING)
			return false;
	return true;
}

/*
 * Front-ends pass on bits we never offered; only a ring format that we can't run matters. On running rings nothing
 * changes but logging: what a device was started with stays.
 */
static int set_features(struct session *s, struct message *m)
{
	uint64_t rings = BIT(FEATURE_RING_PACKED), log = BIT(FEATURE_LOG_ALL), offered = offered_features(s);
	unsigned i;

	if (rings_rest(s)) {
		s->bad_rings = m->u64 & rings & ~offered;
		s->features = m->u64 & offered;
		s->b->features = s->features & ~log;
	} else {
		s->features = (s->features & ~log) | (m->u64 & log);
	}
	session_update_log(s);
	if (!(m->u64 & BIT(FEATURE_PROTOCOL)) && !s->enable_all) {
		s->enable_all = true;
		for (i = 0; i < s->host->nqueues; i++)
			if (s->host->queues[i])
				s->host->queues[i]->enabled = true;
		return session_update_rings(s);
	}
	return 0;
}

static int get_protocol_features(struct session *s, struct message *m)
{
	(void)m;
	return session_reply_u64(s, offered_protocol(s));
}

static int set_protocol_features(struct session *s, struct message *m)
{
	uint64_t needed = BIT(PROTOCOL_BACKEND_REQ) | BIT(PROTOCOL_REPLY_ACK),
		 p = m->u64 & offered_protocol(s);

	if ((p & BIT(PROTOCOL_INBAND_NOTIFICATIONS)) && (p & needed) != needed) {
		log_guest_error("in-band notifications without back-end requests and acknowledgements");
		return SESSION_CLOSE;
	}
	s->protocol = p;
	return 0;
}

static int set_owner(struct session *s, struct message *m)
{
	(void)s;
	(void)m;
	return 0;
}

static int get_queue_num(struct session *s, struct message *m)
{
	(void)m;
	return session_reply_u64(s, s->b->queue_num ? s->b->queue_num : s->b->num_queues);
}

static int get_max_mem_slots(struct session *s, struct message *m)
{
	(void)m;
	return session_reply_u64(s, GUESTMEM_MAX_REGIONS);
}

/* Only recorded: rings must not notice (QEMU 7.2 sends 0 before it asks for their bases). */
static int set_status(struct session *s, struct message *m)
{
	if (m->u64 > 0xff)
		return -EINVAL;
	s->status = (uint8_t)m->u64;
	return 0;
}

static int get_status(struct session *s, struct message *m)
{
	(void)m;
	return session_reply_u64(s, s->status);
}

static int set_backend_req_fd(struct session *s, struct message *m)
{
	int fd = message_take_fd(m), err;

	if (fd < 0)
		return -EINVAL;
	err = backchannel_set(&s->backchannel, &fd);
	fd_close(&fd);
	return err;
}

/* Configuration space */

/* Past our structure there are zeros: a front-end may know a newer one. */
static int get_config(struct session *s, struct message *m)
{
	struct config_msg *c = &m->config;
	size_t have = s->b->dev->config_size, room = sizeof(c->data);

	if (m->h.size < CONFIG_HEADER || c->size > room || c->offset > UINT32_MAX - c->size)
		return -EINVAL;
	memset(c->data, 0, c->size);
	if (c->offset < have)
		memcpy(c->data, s->b->config + c->offset, MIN(c->size, have - c->offset));
	return session_reply(s, c, CONFIG_HEADER + c->size, -1);
}

static int set_config(struct session *s, struct message *m)
{
	const struct config_msg *c = &m->config;
	size_t have = s->b->dev->config_size;

	if (m->h.size < CONFIG_HEADER || c->size > m->h.size - CONFIG_HEADER ||
		c->flags > CONFIG_LIVE_MIGRATION)
		return -EINVAL;
	if (c->offset > MAX(have, CONFIG_MAX) || c->size > MAX(have, CONFIG_MAX) - c->offset || !have)
		return -EINVAL;
	if (c->offset < have && s->b->dev->config_write)
		s->b->dev->config_write(s->b, c->offset, c->data, MIN(c->size, have - c->offset));
	return 0;
}

/* What only some devices know */

static int device_request(struct session *s, struct message *m, enum request_type type)
{
	struct request r = {.type = type, .payload = m->bytes, .size = m->h.size, .fd = message_take_fd(m)};
	int err = s->b->dev->request ? s->b->dev->request(s->b, &r) : -ENOTSUP;

	fd_close(&r.fd);
	return err;
}

static int send_rarp(struct session *s, struct message *m)
{
	return device_request(s, m, REQUEST_SEND_RARP);
}

static int set_mtu(struct session *s, struct message *m)
{
	return device_request(s, m, REQUEST_SET_MTU);
}

static int gpu_set_socket(struct session *s, struct message *m)
{
	return m->nfds == 1 ? device_request(s, m, REQUEST_GPU_SOCKET) : -EINVAL;
}

static int create_crypto_session(struct session *s, struct message *m)
{
	int err = device_request(s, m, REQUEST_CREATE_CRYPTO);

	return err ? err : session_reply(s, m->bytes, m->h.size, -1);
}

static int close_crypto_session(struct session *s, struct message *m)
{
	return device_request(s, m, REQUEST_CLOSE_CRYPTO);
}

/* Device state */

static int set_device_state_fd(struct session *s, struct message *m)
{
	int fd = message_take_fd(m), err;

	err = fd < 0 || m->device_state.phase ? -EINVAL : rings_rest(s) ? 0 : -EBUSY;
	if (!err)
		err = device_state_begin(&s->state, m->device_state.direction, &fd);
	fd_close(&fd);
	if (err)
		log_guest_error("SET_DEVICE_STATE_FD: %s", strerror(-err));
	return session_reply_u64(s, STATE_NO_FD | (err ? STATE_ERROR : 0));
}

static void state_finished(struct device_state *d, int result)
{
	struct session *s = container_of(d, struct session, state);

	session_finish(s, session_reply_u64(s, !!result));
}

static int check_device_state(struct session *s, struct message *m)
{
	(void)m;
	if (!s->b->dev->save || !s->b->dev->load)
		return session_reply_u64(s, 1);
	if (!device_state_busy(&s->state))
		return session_reply_u64(s, !!s->state.result);
	s->state.finished = state_finished;
	return SESSION_PENDING;
}

static int not_supported(struct session *s, struct message *m)
{
	(void)s;
	log_guest_warn("%s: not negotiated", message_name(m->h.request));
	return -ENOTSUP;
}

/* The table: what arrives, how long it is at least, how many fds may come along, whether it has a reply of its own. */

struct handler {
	int (*handle)(struct session *s, struct message *m);
	uint32_t size;
	uint8_t fds;
	bool replies;
};

static const struct handler handlers[MESSAGE_LAST + 1] = {
	[MESSAGE_GET_FEATURES] = {get_features, 0, 0, true},
	[MESSAGE_SET_FEATURES] = {set_features, 8, 0, false},
	[MESSAGE_SET_OWNER] = {set_owner, 0, 0, false},
	[MESSAGE_RESET_OWNER] = {session_reset_owner, 0, 0, false},
	[MESSAGE_SET_MEM_TABLE] = {session_set_mem_table, 8, MESSAGE_MAX_FDS, false},
	[MESSAGE_SET_LOG_BASE] = {session_set_log_base, 8, 1, false},
	[MESSAGE_SET_LOG_FD] = {session_set_log_fd, 0, 1, false},
	[MESSAGE_SET_VRING_NUM] = {session_set_vring_num, sizeof(struct vring_state), 0, false},
	[MESSAGE_SET_VRING_ADDR] = {session_set_vring_addr, sizeof(struct vring_addr), 0, false},
	[MESSAGE_SET_VRING_BASE] = {session_set_vring_base, sizeof(struct vring_state), 0, false},
	[MESSAGE_GET_VRING_BASE] = {session_get_vring_base, sizeof(struct vring_state), 0, true},
	[MESSAGE_SET_VRING_KICK] = {session_set_vring_kick, 8, 1, false},
	[MESSAGE_SET_VRING_CALL] = {session_set_vring_call, 8, 1, false},
	[MESSAGE_SET_VRING_ERR] = {session_set_vring_err, 8, 1, false},
	[MESSAGE_GET_PROTOCOL_FEATURES] = {get_protocol_features, 0, 0, true},
	[MESSAGE_SET_PROTOCOL_FEATURES] = {set_protocol_features, 8, 0, false},
	[MESSAGE_GET_QUEUE_NUM] = {get_queue_num, 0, 0, true},
	[MESSAGE_SET_VRING_ENABLE] = {session_set_vring_enable, sizeof(struct vring_state), 0, false},
	[MESSAGE_SEND_RARP] = {send_rarp, 8, 0, false},
	[MESSAGE_NET_SET_MTU] = {set_mtu, 8, 0, false},
	[MESSAGE_SET_BACKEND_REQ_FD] = {set_backend_req_fd, 0, 1, false},
	[MESSAGE_IOTLB_MSG] = {not_supported, 0, 0, false},
	[MESSAGE_SET_VRING_ENDIAN] = {not_supported, 8, 0, false},
	[MESSAGE_GET_CONFIG] = {get_config, CONFIG_HEADER, 0, true},
	[MESSAGE_SET_CONFIG] = {set_config, CONFIG_HEADER, 0, false},
	[MESSAGE_CREATE_CRYPTO_SESSION] = {create_crypto_session, 8, 0, true},
	[MESSAGE_CLOSE_CRYPTO_SESSION] = {close_crypto_session, 8, 0, false},
	[MESSAGE_POSTCOPY_ADVISE] = {session_postcopy_advise, 0, 0, true},
	[MESSAGE_POSTCOPY_LISTEN] = {session_postcopy_listen, 0, 0, false},
	[MESSAGE_POSTCOPY_END] = {session_postcopy_end, 0, 0, true},
	[MESSAGE_GET_INFLIGHT_FD] = {session_get_inflight, 20, 0, true},
	[MESSAGE_SET_INFLIGHT_FD] = {session_set_inflight, 20, 1, false},
	[MESSAGE_GPU_SET_SOCKET] = {gpu_set_socket, 0, 1, false},
	[MESSAGE_RESET_DEVICE] = {session_reset_device, 0, 0, false},
	[MESSAGE_VRING_KICK] = {session_vring_kick, sizeof(struct vring_state), 0, false},
	[MESSAGE_GET_MAX_MEM_SLOTS] = {get_max_mem_slots, 0, 0, true},
	[MESSAGE_ADD_MEM_REG] = {session_add_mem_reg, 8, 1, false},
	[MESSAGE_REM_MEM_REG] = {session_rem_mem_reg, 8, 1, false},
	[MESSAGE_SET_STATUS] = {set_status, 8, 0, false},
	[MESSAGE_GET_STATUS] = {get_status, 0, 0, true},
	[MESSAGE_SET_DEVICE_STATE_FD] = {set_device_state_fd, sizeof(struct device_state_msg), 1, true},
	[MESSAGE_CHECK_DEVICE_STATE] = {check_device_state, 0, 0, true},
};

static const struct handler *handler_of(uint32_t request)
{
	return request <= MESSAGE_LAST && handlers[request].handle ? &handlers[request] : NULL;
}

/* Replies */

/* The rest of a reply waits for room in the socket; until then no message is read, so there is at most one. */
int session_reply(struct session *s, const void *payload, size_t size, int fd)
{
	struct message_header h = {.request = s->in.m.h.request,
		.flags = MESSAGE_VERSION | MESSAGE_REPLY,
		.size = (uint32_t)size};
	size_t total = sizeof(h) + size, sent, i;
	ssize_t n = message_send(s->fd, &h, payload, fd);

	if (n < 0 && n != -EAGAIN)
		return SESSION_CLOSE;
	sent = n < 0 ? 0 : (size_t)n;
	if (sent == total)
		return SESSION_REPLIED;
	if (total - sent > sizeof(s->out) || (n < 0 && fd >= 0)) {
		log_guest_error("the front-end does not read its replies");
		return SESSION_CLOSE;
	}
	for (i = sent; i < total; i++)
		s->out[s->nout++] =
			i < sizeof(h) ? ((uint8_t *)&h)[i] : ((const uint8_t *)payload)[i - sizeof(h)];
	watch_modify(&s->watch, EPOLLOUT | EPOLLRDHUP);
	return SESSION_REPLIED;
}

int session_reply_u64(struct session *s, uint64_t value)
{
	return session_reply(s, &value, sizeof(value), -1);
}

/* An own reply that failed is an empty one: front-ends wait for it, and see the error by its size. */
static int answer(struct session *s, int result)
{
	const struct handler *h = handler_of(s->in.m.h.request);

	if (result == SESSION_REPLIED || result == SESSION_CLOSE)
		return result;
	if (h && h->replies)
		return session_reply(s, NULL, 0, -1);
	if (s->in.m.h.flags & MESSAGE_NEED_REPLY)
		return session_reply_u64(s, result != 0);
	return SESSION_REPLIED;
}

/* Waiting: never in silence for long */

static void still_waiting(struct timer *t)
{
	struct session *s = container_of(t, struct session, patience);
	LOG_ABOUT(socket_of(s->b));
	uint64_t waited = time_ns() - s->wait_start;
	unsigned i, out = 0;

	for (i = 0; i < s->host->nqueues; i++) {
		struct vring_info info;

		if (!s->host->queues[i])
			continue;
		vring_info(s->host->queues[i], &info);
		out += info.out;
	}
	log_warn("%s: waiting for %.1f s, %u buffers are still with the device",
		s->ending ? "end of the connection" : message_name(s->in.m.h.request), (double)waited / 1e9,
		out);
	timer_arm_in(s->b->loop, t, waited);
}

static void wait_begins(struct session *s)
{
	s->wait_start = time_ns();
	timer_arm_in(s->b->loop, &s->patience, loop_patience_ns);
}

/* Reading */

static int handle(struct session *s)
{
	struct message *m = &s->in.m;
	const struct handler *h = handler_of(m->h.request);
	int result;

	log_debug("%s: %u bytes, %u fds, flags 0x%x", message_name(m->h.request), m->h.size, m->nfds,
		m->h.flags);
	if (!h) {
		log_guest_warn("%s: unknown", message_name(m->h.request));
		return -ENOTSUP;
	}
	if (m->h.size < h->size || m->nfds > h->fds || m->too_many_fds) {
		log_guest_error("%s: %u bytes and %u descriptors came, at least %u and at most %u should",
			message_name(m->h.request), m->h.size, m->nfds, h->size, h->fds);
		return -EINVAL;
	}
	result = h->handle(s, m);
	if (result < 0)
		log_guest_warn("%s: %s", message_name(m->h.request), strerror(-result));
	return result;
}

/* True: read on. */
static bool session_step(struct session *s)
{
	int n = message_read(&s->in, s->fd), result;

	if (n == -EAGAIN)
		return false;
	if (n <= 0) {
		if (n < 0)
			log_guest_error("the connection ends: %s",
				n == -EPROTO ? "the message is cut off or not of version 1" : strerror(-n));
		session_end(s, true, n == 0 || n == -ECONNRESET);
		return false;
	}
	result = handle(s);
	if (result == SESSION_PENDING) {
		s->suspended = true;
		wait_begins(s);
		watch_modify(&s->watch, EPOLLRDHUP);
		return false;
	}
	result = answer(s, result);
	message_reset(&s->in);
	if (result == SESSION_CLOSE) {
		session_end(s, true, false);
		return false;
	}
	return !s->nout;
}

static void out_flush(struct session *s)
{
	ssize_t n = send(s->fd, s->out, s->nout, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		session_end(s, true, false);
		return;
	}
	if (n <= 0)
		return;
	s->nout -= (unsigned)n;
	memmove(s->out, s->out + n, s->nout);
	if (!s->nout)
		watch_modify(&s->watch, EPOLLIN | EPOLLRDHUP);
}

static void session_ready(struct watch *w, uint32_t events)
{
	struct session *s = container_of(w, struct session, watch);
	LOG_ABOUT(socket_of(s->b));
	unsigned budget = 64; /* messages, then others get their turn */

	if (s->suspended) { /* hang-up while the front-end waits for an answer */
		session_end(s, true, true);
		return;
	}
	if (s->nout) { /* who sends no more and does not read either is gone, too */
		if (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
			session_end(s, true, true);
		else
			out_flush(s);
		return;
	}
	while (budget-- && session_step(s))
		;
}

void session_finish(struct session *s, int result)
{
	LOG_ABOUT(socket_of(s->b));

	if (s->ending || !s->suspended)
		return;
	s->suspended = false;
	timer_disarm(&s->patience);
	result = answer(s, result);
	message_reset(&s->in);
	if (result == SESSION_CLOSE)
		session_end(s, true, false);
	else if (!s->nout)
		watch_modify(&s->watch, EPOLLIN | EPOLLRDHUP);
}

/* Rest */

static void queue_rested(struct virtqueue *q, void *arg)
{
	struct session *s = arg;

	q->stopping = false;
	if (--s->waiting == 0 && s->rested)
		s->rested(s);
}

void session_stop_queue(struct session *s, struct virtqueue *q, bool discard)
{
	if (!q->stopping)
		s->waiting++;
	q->stopping = true;
	virtqueue_stop(q, discard, queue_rested, s);
}

static void nothing_rested(struct task *t)
{
	struct session *s = container_of(t, struct session, rest_task);

	if (!s->waiting && s->rested)
		s->rested(s);
}

void session_wait_rest(struct session *s, void (*rested)(struct session *s))
{
	s->rested = rested;
	if (!s->waiting)
		loop_defer(s->b->loop, &s->rest_task);
}

/* Life */

struct session *session_new(struct session_host *host, int fd)
{
	LOG_ABOUT(socket_of(host->b));
	struct session *s = calloc(1, sizeof(*s));
	struct guestmem *mem = guestmem_new();

	if (!s || !mem) {
		log_errno(ENOMEM, "session");
		goto fail;
	}
	s->host = host;
	s->b = host->b;
	s->mem = mem;
	s->fd = fd;
	s->watch.ready = session_ready;
	s->rest_task.run = nothing_rested;
	s->patience.expired = still_waiting;
	s->postcopy = (struct postcopy)POSTCOPY_INIT;
	device_state_init(&s->state, s->b);
	backchannel_init(&s->backchannel, s->b->loop);
	host->session = s;
	if (watch_add(s->b->loop, &s->watch, fd, EPOLLIN | EPOLLRDHUP) < 0)
		goto fail;
	log_info("a front-end is connected");
	return s;
fail:
	if (mem)
		guestmem_unref(mem);
	fd_close(&fd);
	free(s);
	host->session = NULL;
	return NULL;
}

/* In-band calls come from any queue's thread; the channel belongs to the control loop. */
static void call_post(struct post *p)
{
	struct virtqueue *q = container_of(p, struct virtqueue, call_post);
	struct session *s = ((struct session_host *)q->call_host)->session;

	if (s && !s->ending)
		backchannel_call(&s->backchannel, q->index);
}

void session_call_inband(struct virtqueue *q)
{
	q->call_post.run = call_post;
	loop_post(q->control, &q->call_post);
}

void session_config_changed(struct session *s)
{
	if (!s->ending && (s->protocol & BIT(PROTOCOL_CONFIG)))
		backchannel_config_changed(&s->backchannel);
}

static void end_rested(struct session *s)
{
	struct session_host *host = s->host;
	bool orderly = s->orderly;
	unsigned i;

	for (i = 0; i < host->nqueues; i++)
		if (host->queues[i])
			virtqueue_reset(host->queues[i], false);
	loop_cancel(s->b->loop, &s->rest_task);
	timer_disarm(&s->patience);
	s->b->features = 0;
	if (s->b->dev->reset) /* which may still look at guest memory */
		s->b->dev->reset(s->b);
	session_memory_free(s);
	free(s);
	host->session = NULL;
	host->ended(host, orderly);
}

void session_end(struct session *s, bool discard, bool orderly)
{
	LOG_ABOUT(socket_of(s->b));
	unsigned i;

	if (s->ending)
		return;
	log_info("the front-end is disconnected");
	s->ending = true;
	s->orderly = orderly;
	watch_del(&s->watch);
	message_reset(&s->in);
	device_state_cancel(&s->state);
	postcopy_end(&s->postcopy);
	backchannel_close(&s->backchannel);
	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i])
			session_stop_queue(s, s->host->queues[i], discard);
	wait_begins(s);
	session_wait_rest(s, end_rested);
	fd_close(&s->fd);
}
