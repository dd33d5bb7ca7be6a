/* SPDX-License-Identifier: MIT */
/*
 * Socket device (virtio 1.3, 5.10): the packets and the rings. Connections are in vsock-conn.c.
 *
 * Transmit: packets are taken one after the other; the payloads of neighbours that belong to one stream are gathered and
 * go to its socket in one system call, out of guest memory. The buffers go back right after it: what a socket does not take
 * is copied into the connection's backlog, which the credit bounds, so a reader that stalls holds up nobody else.
 *
 * Receive: whoever has something for the guest queues for its turn, and gets up to 16 buffers in one. When the guest gives no
 * buffers the queue stands still; nothing is read from the sockets then, and they hold the host's programs back.
 *
 * A reset answers all that leads nowhere, but never a reset. Where the guest gives no buffers for resets we stop to take its
 * packets: their number is bounded by that.
 */
#include "vsock.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

bool vsock_reply_reset(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	struct virtio_vsock_hdr *r = &v->replies[(v->reply_head + v->nreplies) % VSOCK_REPLIES];

	if (v->nreplies == VSOCK_REPLIES)
		return false;
	memset(r, 0, sizeof(*r));
	r->src_cid = h->dst_cid;
	r->dst_cid = h->src_cid;
	r->src_port = h->dst_port;
	r->dst_port = h->src_port;
	r->type = h->type;
	r->op = htole16(VIRTIO_VSOCK_OP_RST);
	v->nreplies++;
	if (v->rx)
		virtqueue_wake(v->rx);
	return true;
}

static void batch_flush(struct vsock *v)
{
	size_t len = 0;

	if (!v->nbatch)
		return;
	for (unsigned i = 0; i < v->nbatch; i++)
		len += v->batch_len[i];
	vsock_data_write(v->batch, v->batch_v, v->nbatch_v, len);
	virtqueue_push_many(v->batch_e, v->nbatch);
	v->nbatch = v->nbatch_v = 0;
	v->batch = NULL;
}

/* True: the element is part of the batch, and goes back with it. */
static bool batch_add(struct vsock *v, struct vsock_conn *c, struct element *e, size_t len)
{
	unsigned room = ARRAY_SIZE(v->batch_v) - v->nbatch_v, n;
	struct iovec *iov = &v->batch_v[v->nbatch_v];
	size_t got = 0;

	n = cursor_iovec(&e->rd, len, iov, room);
	for (unsigned i = 0; i < n; i++)
		got += iov[i].iov_len;
	if (got < len)
		return false;
	v->batch = c;
	v->batch_e[v->nbatch] = e;
	v->batch_len[v->nbatch++] = len;
	v->nbatch_v += n;
	if (v->nbatch == ARRAY_SIZE(v->batch_e))
		batch_flush(v);
	return true;
}

/* A payload in more pieces than a batch has room for: piece by piece. */
static void payload_pieces(struct vsock_conn *c, struct element *e, size_t len, uint32_t flags)
{
	struct iovec iov[VSOCK_PIECES];

	do {
		unsigned n = cursor_iovec(&e->rd, len, iov, ARRAY_SIZE(iov));
		size_t got = 0;

		for (unsigned i = 0; i < n; i++)
			got += iov[i].iov_len;
		if (c->key.type == VIRTIO_VSOCK_TYPE_SEQPACKET)
			vsock_data_write_message(c, iov, n, got, got == len ? flags : 0);
		else
			vsock_data_write(c, iov, n, got);
		cursor_skip(&e->rd, got);
		len -= got;
	} while (len);
}

/* True: the element went into the batch. */
static bool payload(
	struct vsock *v, struct vsock_conn *c, struct element *e, const struct virtio_vsock_hdr *h)
{
	size_t len = le32toh(h->len), held = 0;

	for (unsigned i = 0; i < v->nbatch; i++)
		held += v->batch_len[i];
	if (!vsock_data_accepts(c, held + len))
		return false;
	if (c->key.type == VIRTIO_VSOCK_TYPE_STREAM) {
		if (!len || batch_add(v, c, e, len))
			return len;
		batch_flush(v);
		if (batch_add(v, c, e, len))
			return true;
	}
	payload_pieces(c, e, len, le32toh(h->flags));
	return false;
}

static void unreachable(struct vsock *v, struct virtqueue *q, const struct virtio_vsock_hdr *h)
{
	if (le16toh(h->op) == VIRTIO_VSOCK_OP_RST)
		return;
	virtqueue_count_error(q);
	vsock_reply_reset(v, h); /* there is room: or nothing was taken from the ring */
}

/* Is the packet of a kind, from and to where it can be? */
static bool plausible(struct vsock *v, struct virtqueue *q, const struct virtio_vsock_hdr *h)
{
	uint16_t type = le16toh(h->type);

	if (le64toh(h->src_cid) != v->guest_cid) {
		log_guest_warn("packet from CID %llu, the guest's is %llu: dropped",
			(unsigned long long)le64toh(h->src_cid), (unsigned long long)v->guest_cid);
		virtqueue_count_error(q);
		return false;
	}
	if (type == VIRTIO_VSOCK_TYPE_STREAM &&
		(backend_has(v->b, VSOCK_F_STREAM) || !backend_has(v->b, VSOCK_F_NO_IMPLIED_STREAM)))
		return true;
	if (type == VIRTIO_VSOCK_TYPE_SEQPACKET && backend_has(v->b, VIRTIO_VSOCK_F_SEQPACKET))
		return true;
	unreachable(v, q, h);
	return false;
}

/* True: the element went into the batch. */
static bool packet(struct vsock *v, struct virtqueue *q, struct element *e)
{
	struct virtio_vsock_hdr h;
	struct vsock_conn *c;
	struct vsock_key key;
	bool rw;

	_Static_assert(sizeof(h) == VSOCK_HDR, "a header of 44 bytes");
	if (!cursor_get(&e->rd, &h, sizeof(h))) {
		log_guest_warn("packet without a complete header: dropped");
		virtqueue_count_error(q);
		return false;
	}
	if (!plausible(v, q, &h))
		return false;
	key = (struct vsock_key){
		.peer_cid = le64toh(h.dst_cid),
		.peer_port = le32toh(h.dst_port),
		.guest_port = le32toh(h.src_port),
		.type = le16toh(h.type),
	};
	rw = le16toh(h.op) == VIRTIO_VSOCK_OP_RW;
	c = v->batch && vsock_key_equal(&v->batch->key, &key) ? v->batch : vsock_conn_find(v, &key);
	if (v->nbatch && (c != v->batch || !rw))
		batch_flush(v);
	if (c)
		vsock_conn_credit(c, &h);
	if (!c && le16toh(h.op) != VIRTIO_VSOCK_OP_REQUEST) {
		unreachable(v, q, &h);
		return false;
	}
	if (!rw) {
		vsock_conn_control(v, c, &key, &h);
		return false;
	}
	if (le32toh(h.len) > e->rd.left || e->fault) {
		log_guest_warn("packet of %u bytes in a buffer of %zu: connection reset", le32toh(h.len),
			e->rd.left);
		virtqueue_count_error(q);
		vsock_conn_reset(c);
		return false;
	}
	return payload(v, c, e, &h);
}

static void tx_ready(struct backend *b, struct virtqueue *q)
{
	struct vsock *v = b->state;
	struct element *e[ARRAY_SIZE(v->batch_e)];
	unsigned room, n, i;

	do {
		room = MIN(ARRAY_SIZE(e), VSOCK_REPLIES - v->nreplies); /* each may need a reply */
		n = room ? virtqueue_pop_many(q, e, room) : 0;
		for (i = 0; i < n; i++)
			if (!packet(v, q, e[i])) {
				batch_flush(v); /* in the order they came */
				virtqueue_push(e[i]);
			}
	} while (n);
	batch_flush(v);
}

static void rx_ready(struct backend *b, struct virtqueue *q)
{
	struct vsock *v = b->state;
	bool full = v->nreplies == VSOCK_REPLIES;
	struct vsock_conn *c;
	struct element *e;

	while (v->nreplies && (e = virtqueue_pop(q))) {
		if (cursor_put(&e->wr, &v->replies[v->reply_head], VSOCK_HDR)) {
			v->reply_head = (v->reply_head + 1) % VSOCK_REPLIES;
			v->nreplies--;
		}
		virtqueue_push(e);
	}
	if (full && v->nreplies < VSOCK_REPLIES && v->tx)
		virtqueue_wake(v->tx);
	/*
	 * Who sends and has more goes to the end: everybody gets a turn before somebody gets a second one. The queue's budget ends it, so
	 * that sockets that became ready, and the guest's packets, are looked at between.
	 */
	v->serving = true;
	while ((c = TAILQ_FIRST(&v->turns)) && vsock_conn_send(c, q))
		;
	v->serving = false;
}

/* After a reset of the transport the guest reads its CID again and ends its connections. */
static void event_ready(struct backend *b, struct virtqueue *q)
{
	struct virtio_vsock_event event = {.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
	struct vsock *v = b->state;
	struct element *e;

	while (v->reset_event && (e = virtqueue_pop(q))) {
		v->reset_event = !cursor_put(&e->wr, &event, sizeof(event));
		virtqueue_push(e);
	}
}

static void sweep(struct timer *t)
{
	struct vsock *v = container_of(t, struct vsock, sweep);
	uint64_t now = loop_now(v->b->loop);

	vsock_conn_sweep(v, now);
	vsock_host_sweep(v, now);
}

static void forget_guest(struct vsock *v)
{
	vsock_conn_drop_all(v);
	v->nreplies = 0;
}

static int vsock_start(struct backend *b, struct virtqueue *q)
{
	struct vsock *v = b->state;

	/* A front-end may tell of a guest's reboot by new rings only, as QEMU does. */
	if (virtqueue_index(q) < 2 && !v->rx && !v->tx && !virtqueue_continues(q))
		forget_guest(v);
	switch (virtqueue_index(q)) {
	case 0:
		v->rx = q;
		virtqueue_wake(q);
		break;
	case 1:
		v->tx = q;
		break;
	default:
		/* Of what an earlier process or connection had, the guest has to forget all. */
		v->reset_event = !virtqueue_continues(q);
		v->event = q;
	}
	return 0;
}

static void vsock_stop(struct backend *b, struct virtqueue *q)
{
	struct vsock *v = b->state;

	if (q == v->rx)
		v->rx = NULL;
	else if (q == v->tx)
		v->tx = NULL;
	else if (q == v->event)
		v->event = NULL;
}

static void vsock_reset(struct backend *b)
{
	struct vsock *v = b->state;

	vsock_host_drop_greetings(v);
	forget_guest(v);
}

static int vsock_open(struct backend *b)
{
	struct virtio_vsock_config *config = (struct virtio_vsock_config *)b->config;
	struct vsock *v = b->state;
	int err;

	v->b = b;
	config->guest_cid = htole64(v->guest_cid);
	TAILQ_INIT(&v->conns);
	TAILQ_INIT(&v->turns);
	TAILQ_INIT(&v->greetings);
	LIST_INIT(&v->listeners);
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		LIST_INIT(&v->buckets[i]);
	v->sweep.expired = sweep;
	v->next_port = 1U << 30;
	v->scratch = malloc(v->buffer + 1);
	if (!v->scratch)
		return log_errno(ENOMEM, "--buffer");
	err = vsock_host_open(v);
	if (err)
		free(v->scratch);
	return err;
}

static void vsock_close(struct backend *b)
{
	struct vsock *v = b->state;

	vsock_reset(b);
	vsock_host_close(v);
	timer_disarm(&v->sweep);
	free(v->scratch);
}

static int query_connections(struct backend *b, struct command *cmd)
{
	struct vsock *v = b->state;
	struct vsock_conn *c;
	unsigned n = 0;

	json_object_begin(cmd->out);
	json_key(cmd->out, "count");
	json_u64(cmd->out, v->nconns);
	json_key(cmd->out, "connections");
	json_array_begin(cmd->out);
	TAILQ_FOREACH(c, &v->conns, all)
	{
		if (n++ == 256)
			break;
		json_object_begin(cmd->out);
		json_key(cmd->out, "state");
		json_string(cmd->out, vsock_conn_state(c));
		json_key(cmd->out, "type");
		json_string(cmd->out, c->key.type == VIRTIO_VSOCK_TYPE_STREAM ? "stream" : "seqpacket");
		json_key(cmd->out, "guest-port");
		json_u64(cmd->out, c->key.guest_port);
		json_key(cmd->out, "peer-cid");
		json_u64(cmd->out, c->key.peer_cid);
		json_key(cmd->out, "peer-port");
		json_u64(cmd->out, c->key.peer_port);
		json_key(cmd->out, "backlog");
		json_u64(cmd->out, c->held);
		json_object_end(cmd->out);
	}
	json_array_end(cmd->out);
	json_object_end(cmd->out);
	return 0;
}

static const struct command_spec vsock_commands[] = {
	{"query-connections", "lists the connections, 256 of them at most", NULL, query_connections},
	{.name = NULL},
};

static const struct queue_spec vsock_queues[] = {
	{"rx", rx_ready, sizeof(struct vsock_slot), 0},
	{"tx", tx_ready, 0, 0},
	{"event", event_ready, 0, 0},
};

static const struct feature_name vsock_features[] = {
	{VSOCK_F_STREAM, "stream"},
	{VIRTIO_VSOCK_F_SEQPACKET, "seqpacket"},
	{VSOCK_F_NO_IMPLIED_STREAM, "no-implied-stream"},
	{0, NULL},
};

const struct device device_vsock = {
	.name = "vsock",
	.summary = "sockets between the guest and programs of the host, or other guests",
	.virtio_id = VIRTIO_ID_VSOCK,
	.features = BIT(VSOCK_F_STREAM) | BIT(VIRTIO_VSOCK_F_SEQPACKET) | BIT(VSOCK_F_NO_IMPLIED_STREAM),
	.state_size = sizeof(struct vsock),
	.config_size = sizeof(struct virtio_vsock_config),
	.options = vsock_options,
	.feature_names = vsock_features,
	.commands = vsock_commands,
	.queues = vsock_queues,
	.nqueues = 3,
	.max_queues = 3,
	.in_order = true,
	.open = vsock_open,
	.close = vsock_close,
	.start = vsock_start,
	.stop = vsock_stop,
	.reset = vsock_reset,
};
