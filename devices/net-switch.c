/* SPDX-License-Identifier: MIT */
/*
 * A learning Ethernet switch. Its ports are guests, of this process and of others that meet in a directory.
 *
 * Other processes are reached through a mesh (net-mesh.c): a frame is copied twice, from the sender's guest into a ring that two
 * processes share, and from there to the receiver's. So a process has its own guests' memory only, and one that is taken over by
 * its guest reaches no other's.
 *
 * Guests of one process reach each other without a ring and a wake-up: the sender's turn copies each frame once, from guest to
 * guest. This is the fast one, for guests that trust this program to keep them apart: it maps all their memories. It needs no
 * directory. All ports of a process are in one loop, so there is nothing to lock.
 *
 * Forwarding: each port knows all others as peers, of both kinds. A frame is sent to the one that its address was last seen at,
 * else to all. Nothing is passed on from port to port, so there are no loops. Offloads stay as they are on the way: the receiver
 * makes segments if its guest needs them.
 *
 * A peer that has no room, in its ring or for lack of its guest's buffers, holds up the sender until there is some, but for
 * STALL_NS at most: a receiver that does not move in that time loses frames until it does, and the sender's other traffic goes
 * on. What goes to all does not wait, but where "all" is one, for then a guest that takes a frame now and then would slow down all
 * others: it is kept for those guests of this process that have no buffers now, in a ring of the size that other processes have, and
 * what comes later for them queues up behind it. That costs a second copy, of these frames only, and memory where it was needed,
 * until the guest's queue stops.
 *
 * While frames come the rings are looked at as the queues are (--poll-us); before the loop sleeps, it says so in the rings.
 */
#include <errno.h>
#include <string.h>

#include "net-offload.h"
#include "net-switch.h"

#define STALL_NS (UINT64_C(20) * 1000 * 1000)
#define AGE_NS	 (UINT64_C(300) * 1000 * 1000 * 1000)

enum { TURN = 256 };

static struct port *port_of(struct net_host *h)
{
	return container_of(h, struct port, h);
}

/* Addresses */

static struct address *slot(struct port *p, const uint8_t *mac)
{
	uint32_t v;

	memcpy(&v, mac + 2, 4);
	return &p->table[(v * 0x9e3779b1u) >> 22];
}

static void learn(struct port *p, const uint8_t *mac, unsigned peer)
{
	struct address *a = slot(p, mac);

	if (mac[0] & 1)
		return;
	if (a->peer != peer + 1 || memcmp(a->mac, mac, 6) != 0) {
		memcpy(a->mac, mac, 6);
		a->peer = (uint8_t)(peer + 1);
	}
	a->seen = p->now;
}

/* The peer with this address, or NULL: all are asked. */
static struct peer *find(struct port *p, const uint8_t *mac)
{
	struct address *a = slot(p, mac);

	if (!a->peer || memcmp(a->mac, mac, 6) != 0 || p->now - a->seen > AGE_NS)
		return NULL;
	return &p->peer[a->peer - 1];
}

static void forget(struct port *p, unsigned peer)
{
	unsigned i;

	for (i = 0; i < ADDRESSES; i++)
		if (p->table[i].peer == peer + 1)
			p->table[i].peer = 0;
}

/* Peers */

struct peer *peer_free(struct port *p)
{
	struct peer *peer = p->peer;

	while (peer < p->peer + PEERS && peer->port)
		peer++;
	return peer < p->peer + PEERS ? peer : NULL;
}

void peer_gone(struct peer *peer)
{
	struct port *p = peer->port;
	bool was_ready = peer->ready;

	forget(p, (unsigned)(peer - p->peer));
	if (p->full == peer)
		p->full = NULL;
	peer->port = peer->other = NULL;
	peer->ready = false;
	p->npeers--;
	if (!was_ready)
		return;
	if (!--p->ready)
		net_link(&p->h, false);
	net_tx_room(&p->h, 0);
}

void peer_comes(struct peer *peer)
{
	struct port *p = peer->port;

	peer->ready = true;
	if (!p->ready++)
		net_link(&p->h, true);
	log_info("switch: %u others are connected", p->ready);
}

/* Where a frame comes from and goes to: its first 12 bytes. */
static void addresses(const struct net_packet *packet, uint8_t mac[12])
{
	struct cursor c;

	if (likely(packet->iov->iov_len >= 12)) {
		memcpy(mac, packet->iov->iov_base, 12);
		return;
	}
	cursor_init(&c, packet->iov, packet->n);
	cursor_get(&c, mac, 12);
}

/* Reception */

/* Whether a frame of a peer is one, and what it tells about where addresses are. */
static bool peer_frame(struct port *p, struct peer *peer, const struct net_packet *packet)
{
	uint8_t mac[12];

	if (unlikely(net_needs(&packet->hdr) && !net_hdr_valid(&packet->hdr, packet->len)))
		return false;
	addresses(packet, mac);
	learn(p, mac + 6, (unsigned)(peer - p->peer));
	return true;
}

/* Gives n of them to the guest, without those that make no sense; how many are done. */
static unsigned peer_deliver(struct port *p, struct peer *peer, const struct net_packet *packet, unsigned n)
{
	unsigned i, end, taken;

	for (i = 0; i < n; i = end + 1) {
		for (end = i; end < n && peer_frame(p, peer, &packet[end]); end++)
			;
		taken = net_receive(&p->h, packet + i, end - i);
		if (taken < end - i)
			return i + taken;
	}
	return n;
}

/* Frames of one peer, for its fair share of a turn. False: the guest has no buffers. */
static bool peer_receive(struct port *p, struct peer *peer, bool *found)
{
	struct net_packet packet[NET_BATCH];
	struct iovec v[2 * NET_BATCH];
	unsigned done, sum = 0;
	int n;

	while (sum < TURN) {
		n = net_ring_peek(&peer->in, packet, v, NET_BATCH);
		if (n == 0)
			break;
		if (n < 0) {
			log_guest_warn("--switch=%s: what a peer sent makes no sense", p->h.net->join);
			peer_close(peer);
			return true;
		}
		done = peer_deliver(p, peer, packet, (unsigned)n);
		net_ring_take(&peer->in, packet, done);
		*found |= done > 0;
		sum += done;
		if (done < (unsigned)n)
			return false;
	}
	if (sum && net_ring_released(&peer->in))
		peer_wake(peer);
	return true;
}

static bool receive_all(struct port *p)
{
	bool found = false;
	unsigned i, seen = 0;

	if (!p->nrings)
		return false;
	p->now = loop_now(p->h.loop);
	for (i = 0; i < PEERS && seen < p->nrings; i++) {
		struct peer *peer = &p->peer[i];

		if (!peer->port || peer->other)
			continue;
		seen++;
		if (!peer->ready)
			continue;
		if (!peer_receive(p, peer, &found)) {
			if (net_ring_released(&peer->in))
				peer_wake(peer);
			p->paused = true;
			return found;
		}
	}
	return found;
}

static inline void peer_moves(struct peer *peer)
{
	peer->full_since = 0;
	peer->stalled = false;
}

/* Frames to all that this guest had no buffers for */

static void kept_forget(struct port *p)
{
	p->h.net->pairs[0].count.rx_dropped += p->nkept;
	p->nkept = 0;
	net_ring_close(&p->kept);
	net_ring_close(&p->keep);
}

static bool keep(struct port *p, const struct net_packet *packet)
{
	if (!p->keep.at && (net_ring_make(&p->keep) < 0 || net_ring_open(&p->kept, p->keep.fd) < 0)) {
		kept_forget(p);
		return false;
	}
	if (!net_ring_put(&p->keep, packet))
		return false;
	net_ring_publish(&p->keep);
	p->nkept++;
	return true;
}

/* Who waits for p finds that it moves. */
static void port_moves(struct port *p)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (p->peer[i].port && p->peer[i].other)
			peer_moves(&p->peer[i].other->peer[p->peer[i].back]);
}

/* The first ones, at most max; false: buffers are lacking. */
static bool kept_batch(struct port *p, unsigned max)
{
	struct net_packet packet[NET_BATCH];
	struct iovec v[2 * NET_BATCH];
	unsigned n = (unsigned)net_ring_peek(&p->kept, packet, v, max);
	unsigned done = net_deliver(&p->h, packet, n);

	net_ring_take(&p->kept, packet, done);
	net_ring_released(&p->kept);
	p->nkept -= done;
	if (done)
		port_moves(p);
	return done == n;
}

/* False: some are left. The first one tells whether there are buffers at all, which is all that most frames of a flood have to know. */
static bool kept_deliver_some(struct port *p)
{
	if (kept_batch(p, 1) && p->nkept && kept_batch(p, NET_BATCH) && p->nkept)
		net_rx_wake(&p->h, 0); /* there may be more */
	return !p->nkept;
}

static inline bool kept_deliver(struct port *p)
{
	return likely(!p->nkept) || kept_deliver_some(p);
}

/* Lets the ports of this process that wait for us try again, each time another one first. */
static void wake_others(struct port *p)
{
	unsigned n, first = p->next;

	p->waited = false;
	for (n = 0; n < PEERS; n++) {
		unsigned i = (first + n) % PEERS;
		struct port *other = p->peer[i].port ? p->peer[i].other : NULL;

		if (!other || !other->full || other->full->other != p)
			continue;
		if (p->next == first)
			p->next = i + 1;
		other->full = NULL;
		timer_disarm(&other->stall);
		net_tx_room(&other->h, 0);
	}
}

static void switch_room(struct net_host *h)
{
	struct port *p = port_of(h);

	if (!kept_deliver(p))
		return;
	p->paused = false;
	if (p->waited) {
		wake_others(p);
		p->others_first = !p->others_first && p->nrings;
		if (p->others_first) {
			loop_defer(h->loop, &p->work);
			return;
		}
	}
	receive_all(p);
}

static bool switch_poll(struct poller *poller)
{
	struct port *p = container_of(poller, struct port, poller);

	return !p->paused && receive_all(p);
}

static void work(struct task *t)
{
	struct port *p = container_of(t, struct port, work);

	if (!p->paused)
		receive_all(p);
}

/*
 * Says in each ring that we have to be woken; true: something came meanwhile. It is taken later: the queues may have said
 * already whether they need kicks, and taking a frame can change that.
 */
static bool switch_rest(struct poller *poller)
{
	struct port *p = container_of(poller, struct port, poller);
	bool found = false;
	unsigned i;

	for (i = 0; i < PEERS && p->nrings && !p->paused; i++)
		if (p->peer[i].port && !p->peer[i].other && p->peer[i].ready &&
			net_ring_sleep(&p->peer[i].in))
			found = true;
	if (found)
		loop_defer(p->h.loop, &p->work);
	return found;
}

static void woken(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, woken);
	uint64_t count;

	(void)events;
	if (read(w->fd, &count, sizeof(count)) < 0)
		return;
	if (!p->paused)
		receive_all(p);
	if (p->full && !p->full->other && net_ring_wait(&p->full->out)) {
		p->full = NULL;
		timer_disarm(&p->stall);
		net_tx_room(&p->h, 0);
	}
}

/* Transmission */

static void stall_expired(struct timer *t)
{
	net_tx_room(&container_of(t, struct port, stall)->h, 0);
}

static inline bool put_now(struct peer *peer, const struct net_packet *packet)
{
	struct port *other = peer->other;

	if (!other)
		return net_ring_put(&peer->out, packet);
	return kept_deliver(other) && net_deliver(&other->h, packet, 1);
}

/* Always true. A process counts what it takes out of its ring; nobody knows of what did not get there. */
static bool lose(const struct peer *peer)
{
	if (peer->other)
		peer->other->h.net->pairs[0].count.rx_dropped++;
	return true;
}

/* False: there is no room, and the frame is worth waiting for it. */
static bool put(struct port *p, struct peer *peer, const struct net_packet *packet)
{
	if (likely(put_now(peer, packet))) {
		peer_moves(peer);
		return true;
	}
	if (peer->stalled)
		return lose(peer);
	if (!peer->full_since)
		peer->full_since = p->now;
	if (p->now - peer->full_since >= STALL_NS) {
		peer->stalled = true; /* until it takes something */
		return lose(peer);
	}
	if (peer->other) {
		peer->other->waited = true;
		return false;
	}
	/* the peer is told that we wait; it may have made room before it saw that */
	return net_ring_wait(&peer->out) && net_ring_put(&peer->out, packet);
}

/* Frames for one peer; how many of them. */
static unsigned put_many(struct port *p, struct peer *peer, const struct net_packet *packet, unsigned n)
{
	struct port *other = peer->other;
	unsigned i = other && kept_deliver(other) ? net_deliver(&other->h, packet, n) : 0;

	if (i)
		peer_moves(peer);
	while (i < n && put(p, peer, &packet[i]))
		i++;
	return i;
}

static void publish(struct port *p)
{
	unsigned i, seen = 0;

	for (i = 0; i < PEERS && seen < p->nrings; i++) {
		if (!p->peer[i].port || p->peer[i].other)
			continue;
		seen++;
		if (p->peer[i].ready && net_ring_publish(&p->peer[i].out))
			peer_wake(&p->peer[i]);
	}
}

/* A peer of this process learns where the frame comes from; others do when they take it out of the ring. */
static void teach(const struct port *p, const struct peer *peer, const uint8_t *mac)
{
	if (!peer->other)
		return;
	peer->other->now = p->now;
	learn(peer->other, mac, peer->back);
}

static void flood(struct port *p, const struct net_packet *packet, const uint8_t *from)
{
	unsigned i;

	for (i = 0; i < PEERS; i++) {
		struct peer *peer = &p->peer[i];

		if (!peer->port || !peer->ready)
			continue;
		teach(p, peer, from);
		if (put_now(peer, packet))
			peer_moves(peer);
		else if (!peer->other || !keep(peer->other, packet))
			lose(peer);
	}
}

/* Where there is only one to flood, it gets the frame as if it were known to be there. */
static struct peer *only(struct port *p)
{
	struct peer *peer = p->peer;

	if (p->ready != 1)
		return NULL;
	while (!peer->port || !peer->ready)
		peer++;
	return peer;
}

/* How many of n frames have the addresses of the first one: most go the same way as the one before. */
static unsigned alike(const struct net_packet *packet, unsigned n, const uint8_t mac[12])
{
	uint8_t other[12];
	unsigned i;

	for (i = 1; i < n; i++) {
		addresses(&packet[i], other);
		if (memcmp(mac, other, 12) != 0)
			break;
	}
	return i;
}

static unsigned switch_send(struct net_host *h, unsigned lane, const struct net_packet *packet, unsigned n)
{
	struct port *p = port_of(h);
	unsigned i = 0, k;

	(void)lane;
	p->now = loop_now(h->loop);
	while (i < n) {
		uint8_t mac[12];
		struct peer *to = NULL;
		unsigned many, sent;

		addresses(&packet[i], mac);
		many = alike(&packet[i], n - i, mac);
		if (!(mac[0] & 1))
			to = find(p, mac);
		if (!to)
			to = only(p);
		if (!to) {
			for (k = 0; k < many; k++)
				flood(p, &packet[i++], mac + 6);
			continue;
		}
		teach(p, to, mac + 6);
		sent = put_many(p, to, &packet[i], many);
		i += sent;
		if (unlikely(sent < many)) {
			p->full = to;
			timer_arm_in(h->loop, &p->stall, STALL_NS);
			break;
		}
	}
	publish(p);
	return i;
}

/* Ports of this process */

struct port *port_of_socket(const struct port *p, unsigned i)
{
	const struct net *net = backend_of_socket(p->h.net->b, i)->state;

	return net->host && net->host != &p->h ? port_of(net->host) : NULL;
}

/* With the ports of this process that are open already. */
static int connect_others(struct port *p)
{
	unsigned i;

	for (i = 0; i < p->h.net->b->socket; i++) {
		struct port *other = port_of_socket(p, i);
		struct peer *there = other ? peer_free(other) : NULL, *here = there ? peer_free(p) : NULL;

		if (!here) {
			log_error("--switch: there are too many ports");
			return -ENOSPC;
		}
		*here = (struct peer){.port = p, .other = other, .back = (unsigned)(there - other->peer)};
		*there = (struct peer){.port = other, .other = p, .back = (unsigned)(here - p->peer)};
		p->npeers++;
		other->npeers++;
		peer_comes(here);
		peer_comes(there);
	}
	return 0;
}

static void disconnect_other(struct peer *peer)
{
	peer_gone(&peer->other->peer[peer->back]);
	peer_gone(peer);
}

static void switch_close(struct net_host *h)
{
	struct port *p = port_of(h);
	unsigned i;

	timer_disarm(&p->stall);
	loop_cancel(h->loop, &p->work);
	kept_forget(p);
	for (i = 0; i < PEERS; i++)
		if (p->peer[i].port && p->peer[i].other)
			disconnect_other(&p->peer[i]);
		else if (p->peer[i].port)
			peer_close(&p->peer[i]);
	mesh_close(p);
	free(p);
}

static void switch_describe(struct net_host *h, struct json *out)
{
	json_key(out, "peers");
	json_u64(out, port_of(h)->ready);
}

static void switch_use(struct net_host *h, unsigned lane, bool on)
{
	(void)lane;
	if (!on)
		kept_forget(port_of(h));
}

static const struct net_host_ops switch_ops = {
	.close = switch_close,
	.send = switch_send,
	.use = switch_use,
	.room = switch_room,
	.describe = switch_describe,
};

int net_switch_open(struct net_host **out, struct net *net)
{
	struct port *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return log_errno(ENOMEM, "--switch");
	p->h = (struct net_host){.ops = &switch_ops,
		.net = net,
		.loop = net->b->loop,
		.kind = "switch",
		.lanes = 1,
		.takes = NET_HOST_OFFLOADS,
		.gives = NET_GUEST_OFFLOADS};
	p->wake = p->listener = p->dir = p->accept.fd = p->woken.fd = p->keep.fd = p->kept.fd = -1;
	p->woken.ready = woken;
	p->stall.expired = stall_expired;
	p->poller.poll = switch_poll;
	p->poller.rest = switch_rest;
	p->work.run = work;
	err = connect_others(p);
	if (!err && net->join)
		err = mesh_open(p);
	if (err) {
		switch_close(&p->h);
		return err;
	}
	*out = &p->h;
	return 0;
}
