/* SPDX-License-Identifier: MIT */
/*
 * The socket device between a hostile guest and hostile programs of the host: the input of this test is a list of steps that send
 * packets, offer receive buffers, let programs connect, write, read and close, stop and start the driver and let time pass.
 *
 * The device's files are part of this one but for vsock-host.c: the programs' ends are socket pairs. Queues are made up here.
 * Checked besides the sanitizers' rules: what the guest gets is well-formed, comes from where it may, and is no more than it
 * granted; a reset answers no reset; connections stay within their limit, and none is left at the end.
 */
#include "fuzz.h"
#include "pop-many.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "../../devices/vsock-conn.c"
#include "../../devices/vsock-data.c"
#include "../../devices/vsock.c"

enum {
	STEPS_MAX = 400,
	PROGRAMS = 64,
	CONNS = 24,
	CID = 5,
	PACKET_MAX = 3000,
	SLOTS = 32,
	TX_MAX = 8,
	MORE = 64
};
enum { RX, TX, EVENT, QUEUES };
enum {
	OP_PACKET,
	OP_BUFFERS,
	OP_CONNECT,
	OP_WRITE,
	OP_READ,
	OP_SHUT,
	OP_CLOSE,
	OP_TIME,
	OP_STOP,
	OP_START,
	OP_RESET,
	OPS
};

const struct option_spec vsock_options[] = {OPTIONS_END};

struct virtqueue {
	unsigned index;
	bool woken;
};

struct slot {
	struct element e;
	struct iovec iov[2];
	struct vsock_slot req;
	uint8_t bytes[600];
	unsigned seq; /* in the order they are taken */
	bool out;
};

struct packet {
	struct element e;
	struct iovec iov[3];
	uint8_t bytes[VSOCK_HDR + PACKET_MAX];
	unsigned pieces;
	size_t len;
	bool out;
};

static struct {
	struct backend b;
	struct vsock v;
	struct virtio_vsock_config config;
	struct virtqueue queue[QUEUES];
	bool running, refuse, continues;
	unsigned offered, seq, small; /* every so many-th buffer has room for a header only; 0: none */
	size_t buffer;
	struct slot slots[SLOTS];
	struct packet tx[TX_MAX];
	unsigned tx_first, ntx; /* of these, not taken yet */
	int programs[PROGRAMS];
	unsigned nprograms, next;
	uint32_t alloc, fwd; /* what the guest says about its buffers, of all connections */
	bool was_reset;	     /* the packet at hand is one */
	unsigned resets;     /* that came since */
	struct input in;
} f;

/* The core, as far as a socket device sees it */

static size_t buffer_len(void)
{
	return f.small && f.seq % f.small == 0 ? VSOCK_HDR : f.buffer;
}

static struct element *slot_take(struct virtqueue *q)
{
	struct slot *s = NULL;
	size_t len;

	for (unsigned i = 0; i < SLOTS && !s; i++)
		s = f.slots[i].out ? NULL : &f.slots[i];
	if (!f.offered || !s)
		return NULL;
	f.offered--;
	len = buffer_len();
	s->seq = f.seq++;
	s->out = true;
	s->e = (struct element){.queue = q, .req = &s->req};
	memset(&s->req, 0, sizeof(s->req));
	s->iov[0] = (struct iovec){s->bytes, MIN(len, (size_t)VSOCK_HDR)};
	s->iov[1] = (struct iovec){s->bytes + s->iov[0].iov_len, len - s->iov[0].iov_len};
	cursor_init(&s->e.wr, s->iov, 2);
	return &s->e;
}

static struct element *packet_take(struct virtqueue *q)
{
	struct packet *p = &f.tx[f.tx_first];
	size_t at = 0;

	if (f.tx_first == f.ntx)
		return NULL;
	f.tx_first++;
	p->out = true;
	p->e = (struct element){.queue = q};
	for (unsigned i = 0; i < p->pieces; i++) {
		size_t n = i + 1 == p->pieces ? p->len - at : p->len / p->pieces;

		p->iov[i] = (struct iovec){p->bytes + at, n};
		at += n;
	}
	cursor_init(&p->e.rd, p->iov, p->pieces);
	return &p->e;
}

struct element *virtqueue_pop(struct virtqueue *q)
{
	return q->index == TX ? packet_take(q) : slot_take(q);
}

static void packet_check(const struct slot *s)
{
	struct virtio_vsock_hdr h;
	size_t used = s->e.wr.done;

	if (!used)
		return;
	require(used >= VSOCK_HDR, "a packet has a header");
	memcpy(&h, s->bytes, sizeof(h));
	require(le32toh(h.len) == used - VSOCK_HDR, "the length is that of the payload");
	require(le64toh(h.dst_cid) == CID, "it is for the guest");
	require(le16toh(h.op) >= VIRTIO_VSOCK_OP_REQUEST && le16toh(h.op) <= VIRTIO_VSOCK_OP_CREDIT_REQUEST,
		"an operation");
	require(le16toh(h.op) == VIRTIO_VSOCK_OP_RW || !h.len, "only data has payload");
	if (le16toh(h.op) == VIRTIO_VSOCK_OP_RST)
		f.resets++;
	if (le16toh(h.op) == VIRTIO_VSOCK_OP_RW)
		require(le32toh(h.buf_alloc) == f.v.buffer, "it says what we have room for");
}

void virtqueue_push(struct element *e)
{
	struct slot *s = container_of(e, struct slot, e);

	if (e->queue->index == TX) {
		struct packet *p = container_of(e, struct packet, e);

		require(p->out, "a packet comes back once");
		p->out = false;
		return;
	}
	require(s->out, "a buffer comes back once");
	s->out = false;
	if (e->queue->index == RX)
		packet_check(s);
}

void virtqueue_push_many(struct element *const *e, unsigned n)
{
	require(n > 0, "some are pushed");
	for (unsigned i = 0; i < n; i++)
		virtqueue_push(e[i]);
}

void virtqueue_unpop(struct element *e)
{
	struct slot *s = container_of(e, struct slot, e);

	require(e->queue->index != TX && s->out, "a buffer comes back once");
	require(s->seq == f.seq - 1, "it is the youngest");
	s->out = false;
	f.offered++;
	f.seq--;
}

void virtqueue_wake(void *arg)
{
	((struct virtqueue *)arg)->woken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

bool virtqueue_continues(const struct virtqueue *q)
{
	(void)q;
	return f.continues;
}

/* The host's side */

static void program_add(int fd)
{
	int *slot = &f.programs[f.next++ % PROGRAMS];

	fd_close(slot);
	*slot = fd;
}

static int program_new(uint16_t type)
{
	int fds[2], size = 4096;

	require(socketpair(AF_UNIX,
			(type == VIRTIO_VSOCK_TYPE_STREAM ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_NONBLOCK |
				SOCK_CLOEXEC,
			0, fds) == 0,
		"sockets");
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	program_add(fds[1]);
	return fds[0];
}

int vsock_host_connect(struct vsock *v, const struct vsock_key *key, enum vsock_greet *greet)
{
	(void)v;
	if (key->peer_port == 0)
		return -ECONNREFUSED;
	if (key->peer_port == 1 && (f.refuse = !f.refuse))
		return -EAGAIN;
	*greet = key->peer_cid != VSOCK_HOST ? VSOCK_GREET_AWAIT
		 : f.next % 2		     ? VSOCK_GREET_NONE
					     : VSOCK_GREET_CONNECT;
	return program_new(key->type);
}

int vsock_host_open(struct vsock *v)
{
	v->accepting = true;
	return 0;
}

void vsock_host_close(struct vsock *v)
{
	(void)v;
}

void vsock_host_resume(struct vsock *v)
{
	(void)v;
}

void vsock_host_sweep(struct vsock *v, uint64_t now)
{
	(void)v;
	(void)now;
}

void vsock_host_drop_greetings(struct vsock *v)
{
	(void)v;
}

/* Steps */

static void turn(void)
{
	unsigned i;

	loop_stop(f.b.loop);
	loop_run(f.b.loop);
	for (i = 0; i < 10000 && f.running && (f.queue[RX].woken || f.queue[TX].woken); i++) {
		f.queue[TX].woken = f.queue[RX].woken = false;
		tx_ready(&f.b, &f.queue[TX]);
		if (f.offered)
			rx_ready(&f.b, &f.queue[RX]);
	}
	require(i < 10000, "queues come to rest");
	for (i = 0; i < f.tx_first; i++)
		require(!f.tx[i].out, "what is taken comes back at once");
	if (f.tx_first == f.ntx)
		f.tx_first = f.ntx = 0;
	require(f.v.nconns <= CONNS, "connections are limited");
}

static void step_packet(void)
{
	static const uint64_t cids[] = {VSOCK_HOST, VSOCK_HOST, VSOCK_HOST, 9, 0};
	uint8_t shape = input_u8(&f.in), how = input_u8(&f.in);
	size_t len = input_u16(&f.in) % PACKET_MAX;
	struct packet *p;
	unsigned before = f.resets;
	struct virtio_vsock_hdr h = {
		.src_cid = htole64(shape == 255 ? 6 : CID),
		.dst_cid = htole64(cids[how % 5]),
		.src_port = htole32(input_u8(&f.in) % 8),
		.dst_port = htole32(input_u8(&f.in) % 4),
		.type = htole16(shape == 254 ? 3 : 1 + shape % 2),
		.op = htole16(input_u8(&f.in) % 9),
		.flags = htole32(how / 5),
		.len = htole32((uint32_t)(how == 254 ? len + 1 : len)),
		.buf_alloc = htole32(f.alloc),
		.fwd_cnt = htole32(f.fwd),
	};
	bool bare = !f.v.nconns && !f.v.nreplies && TAILQ_EMPTY(&f.v.turns);

	if (how == 253)
		h.dst_port = htole32((1U << 30) + f.next % 4);
	if (!f.running || f.ntx == TX_MAX)
		return;
	p = &f.tx[f.ntx++];
	memcpy(p->bytes, &h, sizeof(h));
	p->len = how == 252 ? len % VSOCK_HDR : VSOCK_HDR + len;
	p->pieces = 1 + shape % 3;
	if (shape & MORE && f.ntx < TX_MAX)
		return;
	bare = bare && f.ntx == 1;
	f.queue[TX].woken = true;
	turn();
	if (bare && le16toh(h.op) == VIRTIO_VSOCK_OP_RST)
		require(f.resets == before, "a reset answers no reset");
}

static void step_buffers(void)
{
	uint8_t n = input_u8(&f.in), size = input_u8(&f.in);

	f.offered += n % 64;
	f.buffer = size < 8 ? size * 8u : MIN(VSOCK_HDR + size * 2u, sizeof(f.slots[0].bytes));
	f.small = n / 64;
	f.alloc = input_u16(&f.in);
	f.fwd = input_u16(&f.in);
	f.queue[RX].woken = true;
}

static void step_connect(void)
{
	struct vsock_key key = {.peer_cid = VSOCK_HOST, .guest_port = input_u8(&f.in) % 8};

	key.type = 1 + input_u8(&f.in) % 2;
	key.peer_port = vsock_conn_port(&f.v, key.guest_port, key.type);
	vsock_conn_request(&f.v, &key, program_new(key.type),
		input_u8(&f.in) % 2 ? VSOCK_GREET_ANSWER : VSOCK_GREET_NONE);
}

static int *program(void)
{
	return &f.programs[input_u8(&f.in) % PROGRAMS];
}

static void step_write(void)
{
	static uint8_t bytes[20000];
	int fd = *program();
	size_t n = input_u16(&f.in) % sizeof(bytes);

	if (n % 7 == 0)
		n = (size_t)snprintf((char *)bytes, sizeof(bytes), "OK %zu\n", n);
	if (fd >= 0)
		(void)!send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void step_read(void)
{
	static uint8_t bytes[100000];
	int fd = *program();

	if (fd >= 0)
		(void)!recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
}

static void driver_start(bool continues)
{
	if (f.running)
		return;
	f.running = true;
	f.continues = continues;
	f.b.features = BIT(VIRTIO_VSOCK_F_SEQPACKET) | BIT(FEATURE_VERSION_1);
	for (unsigned i = 0; i < QUEUES; i++)
		require(vsock_start(&f.b, &f.queue[i]) == 0, "queues start");
	require(continues || !f.v.nconns, "a new guest has no connections");
}

static void driver_stop(void)
{
	for (unsigned i = 0; f.running && i < QUEUES; i++)
		vsock_stop(&f.b, &f.queue[i]);
	f.running = false;
	f.offered = 0;
}

static void step(void)
{
	int *fd;

	switch (input_u8(&f.in) % OPS) {
	case OP_PACKET:
		step_packet();
		break;
	case OP_BUFFERS:
		step_buffers();
		break;
	case OP_CONNECT:
		step_connect();
		break;
	case OP_WRITE:
		step_write();
		break;
	case OP_READ:
		step_read();
		break;
	case OP_SHUT:
		fd = program();
		if (*fd >= 0)
			shutdown(*fd, input_u8(&f.in) % 2 ? SHUT_WR : SHUT_RD);
		break;
	case OP_CLOSE:
		fd_close(program());
		break;
	case OP_TIME:
		vsock_conn_sweep(&f.v, loop_now(f.b.loop) + input_u8(&f.in) * (VSOCK_TIMEOUT_NS / 64));
		break;
	case OP_STOP:
		driver_stop();
		break;
	case OP_START:
		driver_start(input_u8(&f.in) % 2);
		break;
	case OP_RESET:
		driver_stop();
		vsock_reset(&f.b);
		require(!f.v.nconns && TAILQ_EMPTY(&f.v.turns) && !f.v.nwaiting && !f.v.nretries,
			"a reset leaves nothing");
		break;
	}
	turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&f, 0, sizeof(f));
	for (unsigned i = 0; i < PROGRAMS; i++)
		f.programs[i] = -1;
	for (unsigned i = 0; i < QUEUES; i++)
		f.queue[i].index = i;
	f.in = (struct input){data, data + size};
	f.buffer = sizeof(f.slots[0].bytes);
	f.b = (struct backend){.dev = &device_vsock, .state = &f.v, .config = (uint8_t *)&f.config};
	f.v.guest_cid = CID;
	f.v.buffer = 8192;
	f.v.max_conns = CONNS;
	log_set_level(LOG_LEVEL_ERROR);
	require(loop_new(&f.b.loop, "fuzz") == 0 && vsock_open(&f.b) == 0, "it opens");
	driver_start(false);
	for (unsigned i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	driver_stop();
	vsock_close(&f.b);
	require(!f.v.nconns, "no connection is left");
	for (unsigned i = 0; i < PROGRAMS; i++)
		fd_close(&f.programs[i]);
	loop_free(f.b.loop);
	return 0;
}

static void seed_packet(
	struct seed *s, uint8_t shape, uint8_t how, uint16_t len, uint8_t port, uint8_t peer, uint8_t op)
{
	seed_u8(s, OP_PACKET);
	seed_u8(s, shape);
	seed_u8(s, how);
	seed_u16(s, len);
	seed_u8(s, port);
	seed_u8(s, peer);
	seed_u8(s, op);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	for (uint8_t type = 0; type < 2; type++) {
		struct seed s = {.n = 0};

		seed_u8(&s, OP_BUFFERS);
		seed_u8(&s, 40);
		seed_u8(&s, 250);
		seed_u16(&s, 20000);
		seed_u16(&s, 0);
		seed_packet(&s, type, 0, 0, 3, 2, VIRTIO_VSOCK_OP_REQUEST);
		seed_packet(&s, type, 0, 0, 4, 1, VIRTIO_VSOCK_OP_REQUEST);
		seed_packet(&s, type, 3, 0, 4, 1, VIRTIO_VSOCK_OP_REQUEST);
		seed_u8(&s, OP_TIME);
		seed_u8(&s, 0);
		for (unsigned i = 0; i < 4; i++)
			seed_packet(
				&s, type | (i < 3 ? MORE : 0), 5 * (i & 1), 2000, 3, 2, VIRTIO_VSOCK_OP_RW);
		for (uint8_t i = 0; i < 3; i++) {
			seed_u8(&s, OP_WRITE);
			seed_u8(&s, i);
			seed_u16(&s, 5000 + i);
		}
		seed_u8(&s, OP_READ);
		seed_u8(&s, 0);
		seed_u8(&s, OP_CONNECT);
		seed_u8(&s, 7);
		seed_u8(&s, type);
		seed_u8(&s, 1);
		seed_packet(&s, type, 253, 0, 7, 0, VIRTIO_VSOCK_OP_RESPONSE);
		seed_packet(&s, type, 5 * 2, 0, 3, 2, VIRTIO_VSOCK_OP_SHUTDOWN);
		seed_u8(&s, OP_SHUT);
		seed_u16(&s, 0x0101);
		seed_u8(&s, OP_CLOSE);
		seed_u8(&s, 0);
		seed_packet(&s, type, 5 * 3, 0, 3, 2, VIRTIO_VSOCK_OP_SHUTDOWN);
		seed_packet(&s, type, 0, 0, 3, 2, VIRTIO_VSOCK_OP_RST);
		seed_u8(&s, OP_STOP);
		seed_u8(&s, OP_START);
		seed_u8(&s, 1);
		seed_u8(&s, OP_TIME);
		seed_u8(&s, 200);
		seed_u8(&s, OP_RESET);
		emit(type ? "seqpacket" : "stream", s.bytes, s.n);
	}
}
