/* SPDX-License-Identifier: MIT */
/*
 * A learning Ethernet switch. Its ports are guests, of this process and of others that meet in a directory.
 *
 * Between processes it is a full mesh without a daemon. Who joins makes a socket of its own in the directory and connects to
 * those that are there, under a lock, so that each two ports of different processes have exactly one connection. Over it go two
 * rings of shared memory (net-ring.h), one for each direction, and an eventfd to wake each other; the end of the connection is
 * the end of the peer. A frame is copied twice: from the sender's guest into the ring, and from there to the receiver's. So a
 * process has its own guest's memory only, and one that is taken over by its guest reaches no other. What a peer writes into a
 * ring is checked like a guest's.
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
 * on. What goes to all waits for nobody, but where "all" is one.
 *
 * While frames come the rings are looked at as the queues are (--poll-us); before the loop sleeps, it says so in the rings.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "net-host.h"
#include "net-offload.h"
#include "net-ring.h"
#include "sockpath.h"

#define STALL_NS (UINT64_C(20) * 1000 * 1000)
#define AGE_NS	 (UINT64_C(300) * 1000 * 1000 * 1000)

enum { PEERS = 63, ADDRESSES = 1024, TURN = 256, MAGIC = 0x56554d31 };

/* What each side sends when a connection begins, with its ring, and the eventfd that wakes it. */
struct hello {
	uint32_t magic, size;
};

struct peer {
	struct port *port; /* NULL: free */
	struct port *
		other; /* of this process; the rest is for other processes then, but for stalled and full_since */
	unsigned back; /* what we are in its table */
	int fd, wake;  /* wake: the peer's eventfd, -1 while it has not said hello */
	struct watch watch;
	struct net_ring in, out;
	bool ready, stalled;
	uint64_t full_since; /* monotonic ns; 0: there was room */
};

struct address {
	uint8_t mac[6];
	uint8_t peer; /* index + 1; 0: free */
	uint64_t seen;
};

struct port {
	struct net_host h;
	int listener, wake; /* wake: ours; peers write it */
	char name[24];
	int dir;
	struct sockpath path;
	struct watch accept, woken;
	struct poller poller;
	struct task work;
	struct timer stall; /* the sender waits for a ring, */
	struct peer *full;  /* to this one */
	bool paused;	    /* the guest has no buffers, */
	bool waited;	    /* and ports of this process wait for them */
	bool others_first;  /* who gets new ones first: those, else the rings */
	unsigned next;	    /* of them, who goes first the next time */
	unsigned npeers, nrings,
		ready; /* all, of them those in other processes, and all that are connected */
	struct peer peer[PEERS];
	struct address table[ADDRESSES];
	uint64_t now; /* monotonic ns, of this turn */
};

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

static void wake(const struct peer *peer)
{
	uint64_t one = 1;

	if (peer->wake >= 0 && write(peer->wake, &one, sizeof(one)) < 0)
		return; /* it is full: the peer has enough reason to wake */
}

static struct peer *peer_free(struct port *p)
{
	struct peer *peer = p->peer;

	while (peer < p->peer + PEERS && peer->port)
		peer++;
	return peer < p->peer + PEERS ? peer : NULL;
}

static void peer_gone(struct peer *peer)
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

static void peer_close(struct peer *peer)
{
	struct port *p = peer->port;

	watch_del(&peer->watch);
	fd_close(&peer->fd);
	fd_close(&peer->wake);
	net_ring_close(&peer->in);
	net_ring_close(&peer->out);
	p->nrings--;
	peer_gone(peer);
}

static void peer_comes(struct peer *peer)
{
	struct port *p = peer->port;

	peer->ready = true;
	if (!p->ready++)
		net_link(&p->h, true);
	log_info("switch: %u others are connected", p->ready);
}

/* Its ring and eventfd, once; then nothing but the end. */
static void peer_hello(struct peer *peer)
{
	struct port *p = peer->port;
	struct hello hello = {0};
	struct iovec v = {&hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t r = recvmsg(peer->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = r > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fds[2] = {-1, -1};

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		c->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(fds, CMSG_DATA(c), MIN(c->cmsg_len - CMSG_LEN(0), sizeof(fds)));
	if (peer->ready || r != sizeof(hello) || hello.magic != MAGIC || fds[1] < 0 ||
		fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0 || net_ring_open(&peer->in, fds[0]) < 0) {
		if (r)
			log_warn("--switch=%s: a peer makes no sense", p->h.net->join);
		fd_close(&fds[0]);
		fd_close(&fds[1]);
		peer_close(peer);
		return;
	}
	close(fds[0]);
	peer->wake = fds[1];
	peer_comes(peer);
}

static void peer_ready(struct watch *w, uint32_t events)
{
	(void)events;
	peer_hello(container_of(w, struct peer, watch));
}

static int send_hello(struct peer *peer)
{
	struct hello hello = {MAGIC, NET_RING_SIZE};
	struct iovec v = {&hello, sizeof(hello)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fds[2] = {peer->out.fd, peer->port->wake};

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	return sendmsg(peer->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(hello) ? 0 : -EPIPE;
}

/* Takes fd. */
static int peer_add(struct port *p, int fd)
{
	struct peer *peer = peer_free(p);
	int err;

	if (!peer) {
		close(fd);
		return -ENOSPC;
	}
	*peer = (struct peer){.port = p, .fd = fd, .wake = -1, .watch = {.fd = -1, .ready = peer_ready}};
	peer->in.fd = peer->out.fd = -1;
	p->npeers++;
	p->nrings++;
	err = net_ring_make(&peer->out);
	if (!err)
		err = send_hello(peer);
	if (!err)
		err = watch_add(p->h.loop, &peer->watch, fd, EPOLLIN);
	if (err)
		peer_close(peer);
	return err;
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct port *p = container_of(w, struct port, accept);
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), err;

	(void)events;
	if (fd < 0)
		return;
	err = peer_add(p, fd);
	if (err)
		log_guest_warn("--switch=%s: a peer could not join: %s", p->h.net->join, strerror(-err));
}

/* Reception */

/* Frames of one peer, for its fair share of a turn. False: the guest has no buffers. */
static bool peer_receive(struct port *p, struct peer *peer, bool *found)
{
	struct net_packet packet;
	struct iovec v[2];
	struct cursor c;
	uint8_t mac[12];
	unsigned i;

	for (i = 0; i < TURN; i++) {
		int r = net_ring_peek(&peer->in, &packet, v);

		if (r == 0)
			break;
		if (r < 0) {
			log_guest_warn("--switch=%s: what a peer sent makes no sense", p->h.net->join);
			peer_close(peer);
			return true;
		}
		cursor_init(&c, packet.iov, packet.n);
		cursor_get(&c, mac, 12);
		learn(p, mac + 6, (unsigned)(peer - p->peer));
		if (likely(!net_needs(&packet.hdr) || net_hdr_valid(&packet.hdr, packet.len)) &&
			!net_receive(&p->h, &packet, 1))
			return false;
		net_ring_next(&peer->in);
		*found = true;
	}
	if (i && net_ring_released(&peer->in))
		wake(peer);
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
				wake(peer);
			p->paused = true;
			return found;
		}
	}
	return found;
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
	return peer->other ? net_deliver(&peer->other->h, packet, 1) : net_ring_put(&peer->out, packet);
}

/* Always true. A process counts what it takes out of its ring; nobody knows of what did not get there. */
static bool lose(const struct peer *peer)
{
	if (peer->other)
		peer->other->h.net->pairs[0].count.rx_dropped++;
	return true;
}

/* False: there is no room, and the frame is worth waiting for it. */
static bool put(struct port *p, struct peer *peer, const struct net_packet *packet, bool wait)
{
	if (likely(put_now(peer, packet))) {
		peer->full_since = 0;
		peer->stalled = false;
		return true;
	}
	if (!wait || peer->stalled)
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
	unsigned i = peer->other ? net_deliver(&peer->other->h, packet, n) : 0;

	if (i) {
		peer->full_since = 0;
		peer->stalled = false;
	}
	while (i < n && put(p, peer, &packet[i], true))
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
			wake(&p->peer[i]);
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
		put(p, peer, packet, false);
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

/* Joining */

static int connect_to(struct port *p, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", p->h.net->join, name);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return peer_add(p, fd);
	if (errno == ECONNREFUSED) /* of a process that was killed */
		unlinkat(p->dir, name, 0);
	close(fd);
	return 0;
}

/* Port i of this process, or NULL: it is not open. */
static struct port *port_of_socket(const struct port *p, unsigned i)
{
	const struct net *net = backend_of_socket(p->h.net->b, i)->state;

	return net->host && net->host != &p->h ? port_of(net->host) : NULL;
}

static bool is_ours(const struct port *p, const char *name)
{
	unsigned i;

	for (i = 0; i <= p->h.net->b->socket; i++) {
		const struct port *other = i == p->h.net->b->socket ? p : port_of_socket(p, i);

		if (other && strcmp(other->name, name) == 0)
			return true;
	}
	return false;
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

static int meet(struct port *p)
{
	int fd = dup(p->dir), err = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return -errno;
	while (!err && (e = readdir(d))) {
		size_t n = strlen(e->d_name);

		if (n > 5 && strcmp(e->d_name + n - 5, ".port") == 0 && !is_ours(p, e->d_name))
			err = connect_to(p, e->d_name);
	}
	closedir(d);
	return err;
}

/* The lock makes joining one step, so that of two that come at the same time one finds the other. */
static int join(struct port *p)
{
	const char *dir = p->h.net->join;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	uint64_t id;
	int lock, err;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return log_errno(errno, "--switch=%s", dir);
	p->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	lock = p->dir < 0 ? -1 : openat(p->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0 || getrandom(&id, sizeof(id), 0) != sizeof(id)) {
		err = log_errno(errno, "--switch=%s", dir);
		fd_close(&lock);
		return err;
	}
	snprintf(p->name, sizeof(p->name), "%016llx.port", (unsigned long long)id);
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, p->name) >= sizeof(path))
		err = log_errno(ENAMETOOLONG, "--switch=%s", dir);
	else
		err = p->listener = sockpath_listen(&p->path, "--switch", path, SOCK_SEQPACKET, 0600, PEERS);
	if (err >= 0) {
		err = meet(p);
		if (err)
			log_errno(err, "--switch=%s", dir);
	}
	close(lock);
	return err;
}

static void switch_close(struct net_host *h)
{
	struct port *p = port_of(h);
	unsigned i;

	timer_disarm(&p->stall);
	loop_poller_del(h->loop, &p->poller);
	loop_cancel(h->loop, &p->work);
	watch_del(&p->accept);
	watch_del(&p->woken);
	for (i = 0; i < PEERS; i++)
		if (p->peer[i].port && p->peer[i].other)
			disconnect_other(&p->peer[i]);
		else if (p->peer[i].port)
			peer_close(&p->peer[i]);
	sockpath_remove(&p->path);
	fd_close(&p->listener);
	fd_close(&p->wake);
	fd_close(&p->dir);
	free(p);
}

static void switch_describe(struct net_host *h, struct json *out)
{
	json_key(out, "peers");
	json_u64(out, port_of(h)->ready);
}

static const struct net_host_ops switch_ops = {
	.close = switch_close,
	.send = switch_send,
	.room = switch_room,
	.describe = switch_describe,
};

/* Opens the way to other processes. */
static int open_mesh(struct port *p)
{
	int err;

	p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loop_poller_add(p->h.loop, &p->poller);
	err = p->wake < 0 ? log_errno(errno, "--switch") : join(p);
	if (!err)
		err = watch_add(p->h.loop, &p->accept, p->listener, EPOLLIN);
	if (!err)
		err = watch_add(p->h.loop, &p->woken, p->wake, EPOLLIN);
	return err;
}

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
	p->wake = p->listener = p->dir = p->accept.fd = p->woken.fd = -1;
	p->accept.ready = accept_ready;
	p->woken.ready = woken;
	p->stall.expired = stall_expired;
	p->poller.poll = switch_poll;
	p->poller.rest = switch_rest;
	p->work.run = work;
	err = connect_others(p);
	if (!err && net->join)
		err = open_mesh(p);
	if (err) {
		switch_close(&p->h);
		return err;
	}
	*out = &p->h;
	return 0;
}
