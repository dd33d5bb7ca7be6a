/* SPDX-License-Identifier: MIT */
/*
 * A session fed by a hostile front-end: the input is a list of messages with descriptors of many kinds, of raw bytes, of
 * writes into guest memory and kicks, for a real session with a small device behind it, all in one thread.
 *
 * Checked besides the sanitizers' rules: what we answer are whole replies to messages that were sent, the session ends
 * when the front-end hangs up and the device has given its buffers back, and no descriptor is left open.
 */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "le.h"
#include "log.h"
#include "session.h"
#include "shmem.h"

enum {
	QUEUES = 3,
	MEMORY_SIZE = 0x10000, /* of guest memory: one file */
	SMALL_SIZE = 0x3000,   /* of another file: log, in-flight area */
	USER = 0x700000,       /* user address of guest memory in the seeds */
	CONFIG_SIZE = 40,
	TURNS_MAX = 3000,
};

enum { /* first byte of an input */
	WITH_INBAND = 1,
	WITH_PACKED = 2,
	WITH_IN_ORDER = 4,
	WITH_SMALL_SOCKET = 8, /* few replies fit */
};

/* Kinds of descriptors that come along. */
enum {
	FD_MEMORY,
	FD_SMALL,
	FD_EVENT,
	FD_PIPE_IN,
	FD_PIPE_OUT,
	FD_SOCKET,
	FD_NULL,
	FD_FOLDER,
	FD_SELF,
	FD_KINDS
};

enum { OP_MESSAGE, OP_RAW, OP_WRITE, OP_KICK, OP_PUSH, OP_TURN, OP_CONFIG, OP_QUIET, OPS };

static struct {
	struct loop *loop;
	struct backend b;
	struct session_host host;
	struct virtqueue *queues[QUEUES];
	uint8_t config[CONFIG_SIZE];
	int memory_fd, small_fd;
	uint8_t *memory, *small;
	uint8_t ring_image[MEMORY_SIZE];

	struct input in;
	int sock; /* the front-end's end */
	int fds[FD_KINDS];
	bool ended;
	unsigned sent;	 /* messages, at least; raw bytes may hold any number */
	bool raw, quiet; /* quiet: replies are not taken */
	struct element *held[512];
	unsigned nheld;
} f;

/* --- the device: fills what it can write to, holds every fourth buffer --- */

static void device_ready(struct backend *b, struct virtqueue *q)
{
	struct element *e;
	unsigned n = 0;

	(void)b;
	while (f.nheld < ARRAY_SIZE(f.held) && (e = virtqueue_pop(q))) {
		uint8_t buf[32];

		cursor_get(&e->rd, buf, MIN(e->rd.left, sizeof(buf)));
		cursor_zero(&e->wr, MIN(e->wr.left, (size_t)5000));
		if (n++ % 4 == 3)
			f.held[f.nheld++] = e;
		else
			virtqueue_push(e);
	}
}

static int device_start(struct virtqueue *q)
{
	(void)q;
	return 0;
}

static void device_push(unsigned i)
{
	virtqueue_push(f.held[i]);
	f.held[i] = f.held[--f.nheld];
}

static void device_stop(struct virtqueue *q)
{
	(void)q; /* what is held comes back later */
}

static void device_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	require(len <= CONFIG_SIZE && off <= CONFIG_SIZE - len, "writes are inside the configuration space");
	memcpy(b->config + off, data, len);
}

static void device_reset(struct backend *b)
{
	for (unsigned i = 0; i < QUEUES; i++)
		require(!f.queues[i] || f.queues[i]->phase == VRING_RESTING, "no queue runs at reset");
	memset(b->config, 0, CONFIG_SIZE);
}

static int device_request(struct backend *b, struct request *r)
{
	(void)b;
	if (r->type == REQUEST_GPU_SOCKET)
		fd_close(&r->fd);
	if (r->size > 0)
		memset(r->payload, 0x5a, r->size);
	return r->size % 3 == 2 ? -EINVAL : 0;
}

static int device_save(struct backend *b, int fd)
{
	return write(fd, b->config, CONFIG_SIZE) == CONFIG_SIZE ? 0 : -EIO;
}

static int device_load(struct backend *b, int fd)
{
	return read(fd, b->config, CONFIG_SIZE) < 0 ? -errno : 0;
}

static const struct queue_spec queue_specs[] = {{.name = "fuzz", .ready = device_ready, .req_size = 8}};

static struct device device = {
	.name = "fuzz",
	.virtio_id = VIRTIO_ID_RNG,
	.features = 0xff,
	.protocol_features = BIT(PROTOCOL_RARP) | BIT(PROTOCOL_MTU) | BIT(PROTOCOL_CRYPTO_SESSION),
	.config_size = CONFIG_SIZE,
	.queues = queue_specs,
	.nqueues = 1,
	.repeat = 1,
	.max_queues = QUEUES,
	.config_write = device_config_write,
	.reset = device_reset,
	.request = device_request,
	.save = device_save,
	.load = device_load,
};

/* --- the host of the session --- */

static struct virtqueue *host_queue(struct session_host *host, unsigned index)
{
	struct virtqueue **q = &f.queues[index < QUEUES ? index : 0];

	require(host == &f.host, "the host is handed on");
	if (index >= QUEUES)
		return NULL;
	if (!*q) {
		require(virtqueue_new(q, &f.b, queue_specs, index, 0, f.loop, f.loop) == 0, "a queue");
		(*q)->on_start = device_start;
		(*q)->on_stop = device_stop;
		(*q)->call_inband = session_call_inband;
		(*q)->call_host = host;
	}
	return *q;
}

static void host_ended(struct session_host *host, bool orderly)
{
	(void)host;
	(void)orderly;
	f.ended = true;
}

static void turn_ends(struct post *p)
{
	(void)p;
	loop_stop(f.loop);
}

/* One in which the loop goes to sleep, so that the pollers arm the rings. */
static void turn(void)
{
	static struct post post = {.run = turn_ends};

	loop_post(f.loop, &post);
	loop_run(f.loop);
}

/* --- the front-end --- */

/* A split ring of 16 at 0 with eight buffers in it, a packed one of 16 at 0x3000. */
static void ring_image(uint8_t *m)
{
	for (unsigned i = 0; i < 16; i++) {
		uint8_t *split = m + (size_t)16 * i, *packed = m + 0x3000 + (size_t)16 * i;

		le64_store(split, 0x8000 + (uint64_t)i * 256);
		le32_store(split + 8, 256);
		le16_store(split + 12, i % 2 ? 2 : 1);
		le16_store(split + 14, (uint16_t)(i + 1));
		le64_store(packed, 0x8000 + (uint64_t)i * 256);
		le32_store(packed + 8, 256);
		le16_store(packed + 12, (uint16_t)i);
		le16_store(packed + 14, (uint16_t)((i < 8 ? 1u << 7 : 1u << 15) | (i % 2 ? 2 : 1)));
	}
	for (unsigned i = 0; i < 8; i++)
		le16_store(m + 0x1004 + (size_t)2 * i, (uint16_t)(2 * i));
	le16_store(m + 0x1002, 8);
}

static void setup(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
	require(loop_new(&f.loop, "fuzz") == 0, "a loop");
	require(shmem_guard() >= 0, "the guard");
	f.memory_fd = memfd_create("memory", MFD_CLOEXEC);
	f.small_fd = memfd_create("small", MFD_CLOEXEC);
	require(ftruncate(f.memory_fd, MEMORY_SIZE) == 0 && ftruncate(f.small_fd, SMALL_SIZE) == 0, "files");
	f.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.memory_fd, 0);
	f.small = mmap(NULL, SMALL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, f.small_fd, 0);
	require(f.memory != MAP_FAILED && f.small != MAP_FAILED, "our view of memory");
	ring_image(f.ring_image);
	f.b = (struct backend){.dev = &device,
		.config = f.config,
		.loop = f.loop,
		.offered = device.features,
		.num_queues = QUEUES};
	f.host = (struct session_host){.b = &f.b,
		.term_fd = -1,
		.queue = host_queue,
		.queues = f.queues,
		.nqueues = QUEUES,
		.ended = host_ended};
}

/* Descriptors that are sent along; the session gets duplicates. Memory is all there, so that no fault has to be served. */
static void fds_open(void)
{
	int pipes[2], socks[2];

	require(pipe2(pipes, O_CLOEXEC | O_NONBLOCK) == 0, "a pipe");
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0, "sockets");
	f.fds[FD_MEMORY] = f.memory_fd;
	f.fds[FD_SMALL] = f.small_fd;
	f.fds[FD_EVENT] = eventfd(0, EFD_CLOEXEC);
	f.fds[FD_PIPE_IN] = pipes[0];
	f.fds[FD_PIPE_OUT] = pipes[1];
	f.fds[FD_SOCKET] = socks[0];
	f.fds[FD_NULL] = open("/dev/null", O_RDWR | O_CLOEXEC);
	f.fds[FD_FOLDER] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f.fds[FD_SELF] = socks[1];
	memcpy(f.memory, f.ring_image, MEMORY_SIZE);
	memset(f.small, 0, SMALL_SIZE);
}

static void fds_close(void)
{
	for (unsigned i = FD_SMALL + 1; i < FD_KINDS; i++)
		close(f.fds[i]);
}

/* Takes whatever we answered, and looks at it. */
static void replies_take(void)
{
	static uint8_t buf[8192];
	char control[CMSG_SPACE(16 * sizeof(int))];

	for (;;) {
		struct iovec v = {buf, sizeof(struct message_header)};
		struct msghdr m = {.msg_iov = &v,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(f.sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct message_header h;
		struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

		if (n <= 0)
			return;
		if (c && c->cmsg_type == SCM_RIGHTS)
			close(*(int *)(void *)CMSG_DATA(c));
		if (n !=
			sizeof(h)) /* the rest comes when we have made room; only with raw messages that ask a lot */
			return;
		memcpy(&h, buf, sizeof(h));
		if (f.raw)
			continue;
		require(h.flags == (MESSAGE_VERSION | MESSAGE_REPLY), "a reply's flags are 5");
		require(h.request < 256 && f.sent-- > 0, "a reply to a message");
		require(h.size <= MESSAGE_MAX_PAYLOAD, "a reply's size is sensible");
		require(h.size == 0 || recv(f.sock, buf, h.size, MSG_DONTWAIT) == (ssize_t)h.size,
			"a reply is whole");
	}
}

static void send_bytes(const void *data, size_t n, const int *fds, unsigned nfds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec v = {.iov_base = (void *)(uintptr_t)data, .iov_len = n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)(void *)control;

		m.msg_control = control;
		m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	if (sendmsg(f.sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
		f.raw = true; /* a part of a message: what follows is no message any more */
}

static void op_message(void)
{
	uint8_t bytes[sizeof(struct message_header) + 1024], lie;
	struct message_header h = {.request = input_u8(&f.in), .flags = input_u8(&f.in) ^ MESSAGE_VERSION};
	unsigned nfds = input_u8(&f.in);
	int fds[16];

	nfds = nfds < 16 ? nfds : nfds % 3;
	for (unsigned i = 0; i < nfds; i++)
		fds[i] = f.fds[input_u8(&f.in) % FD_KINDS];
	h.size = input_u8(&f.in);
	lie = input_u8(&f.in);
	h.size += (lie & 3) * 256u;
	input_bytes(&f.in, bytes + sizeof(h), h.size);
	memcpy(bytes, &h, sizeof(h));
	send_bytes(bytes, sizeof(h) + h.size, fds, nfds);
	f.sent++;
	if (!(lie & 0x80)) /* else several messages are read in one go */
		turn();
}

static void op_raw(void)
{
	uint8_t bytes[256];
	uint8_t n = input_u8(&f.in), nfds = input_u8(&f.in);
	int fds[16];

	if (n == 0)
		return;
	f.raw = true;
	nfds = nfds < 16 ? nfds : 0;
	for (unsigned i = 0; i < nfds; i++)
		fds[i] = f.fds[input_u8(&f.in) % FD_KINDS];
	input_bytes(&f.in, bytes, n);
	send_bytes(bytes, n, fds, nfds);
	turn();
}

static void run_op(void)
{
	uint8_t op = input_u8(&f.in);
	uint64_t one = 1;
	uint16_t at;

	switch (op % OPS) {
	case OP_MESSAGE:
		op_message();
		break;
	case OP_RAW:
		op_raw();
		break;
	case OP_WRITE:
		at = input_u16(&f.in);
		input_bytes(&f.in,
			(op & 0x80 ? f.small + at % (SMALL_SIZE - 16) : f.memory + MIN(at, MEMORY_SIZE - 16)),
			input_u8(&f.in) % 16);
		break;
	case OP_KICK:
		if (write(f.fds[op & 0x80 ? FD_PIPE_OUT : FD_EVENT], &one, sizeof(one)) < 0) {
			/* full */
		}
		turn();
		break;
	case OP_PUSH:
		at = input_u8(&f.in);
		if (f.nheld > 0)
			device_push(at % f.nheld);
		break;
	case OP_CONFIG:
		if (f.host.session)
			session_config_changed(f.host.session);
		break;
	case OP_QUIET:
		f.quiet = !f.quiet;
		break;
	default:
		turn();
		break;
	}
	if (!f.quiet)
		replies_take();
}

/* The front-end hangs up, or we end the session ourselves. */
static void session_finishes(void)
{
	if (input_u8(&f.in) % 4 == 3 && f.host.session)
		session_end(f.host.session, false, true);
	else
		close(fd_take(&f.sock));
	for (unsigned i = 0; !f.ended; i++) {
		require(i < TURNS_MAX, "the session ends");
		turn();
		if (f.nheld > 0)
			device_push(0);
	}
	require(!f.host.session, "an ended session is gone");
	while (f.nheld > 0)
		device_push(0);
	turn();
	for (unsigned i = 0; i < QUEUES; i++) {
		require(!f.queues[i] || f.queues[i]->phase == VRING_RESTING, "all queues rest");
		virtqueue_free(f.queues[i]);
		f.queues[i] = NULL;
	}
	fd_close(&f.sock);
}

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int socks[2], before, small = 1;
	uint8_t with;

	if (!f.loop)
		setup();
	f.in = (struct input){.p = data, .end = data + size};
	before = lowest_free_fd();
	with = input_u8(&f.in);
	f.host.inband = with & WITH_INBAND;
	f.host.packed = with & WITH_PACKED;
	device.in_order = with & WITH_IN_ORDER;
	f.ended = f.raw = f.quiet = false;
	f.sent = f.nheld = 0;
	fds_open();
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, socks) == 0,
		"a connection");
	f.sock = socks[0];
	if (with & WITH_SMALL_SOCKET)
		setsockopt(socks[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	require(session_new(&f.host, socks[1]) != NULL, "a session");
	while (input_left(&f.in) > 0 && !f.ended)
		run_op();
	session_finishes();
	fds_close();
	turn();
	require(lowest_free_fd() == before, "all descriptors are closed");
	return 0;
}

/* --- seeds --- */

static void seed_message(
	struct seed *s, uint8_t id, uint8_t flags, int fd_kind, const void *payload, uint8_t size)
{
	seed_u8(s, OP_MESSAGE);
	seed_u8(s, id);
	seed_u8(s, flags);
	seed_u8(s, fd_kind >= 0);
	if (fd_kind >= 0)
		seed_u8(s, (uint8_t)fd_kind);
	seed_u8(s, size);
	seed_u8(s, 0);
	seed_put(s, payload, size);
}

static void seed_value(struct seed *s, uint8_t id, uint8_t flags, int fd_kind, uint64_t value)
{
	seed_message(s, id, flags, fd_kind, &value, sizeof(value));
}

static void seed_ask(struct seed *s, uint8_t id)
{
	seed_message(s, id, 0, -1, NULL, 0);
}

static void seed_state(struct seed *s, uint8_t id, uint32_t index, uint32_t num)
{
	struct vring_state v = {index, num};

	seed_message(s, id, MESSAGE_NEED_REPLY, -1, &v, sizeof(v));
}

static void seed_handshake(struct seed *s, uint8_t with, uint64_t features, uint64_t protocol)
{
	s->n = 0;
	seed_u8(s, with);
	seed_ask(s, MESSAGE_GET_FEATURES);
	seed_ask(s, MESSAGE_GET_PROTOCOL_FEATURES);
	seed_value(s, MESSAGE_SET_PROTOCOL_FEATURES, 0, -1, protocol);
	seed_ask(s, MESSAGE_GET_QUEUE_NUM);
	seed_ask(s, MESSAGE_GET_MAX_MEM_SLOTS);
	seed_value(s, MESSAGE_SET_BACKEND_REQ_FD, MESSAGE_NEED_REPLY, FD_SOCKET, 0);
	seed_ask(s, MESSAGE_SET_OWNER);
	seed_value(s, MESSAGE_SET_FEATURES, MESSAGE_NEED_REPLY, -1, features);
}

static void seed_region(struct seed *s, uint8_t id, uint64_t gpa, uint64_t size, uint64_t offset)
{
	struct mem_reg_msg m = {.region = {gpa, size, USER + gpa, offset}};

	seed_message(s, id, MESSAGE_NEED_REPLY, id == MESSAGE_ADD_MEM_REG ? FD_MEMORY : -1, &m, sizeof(m));
}

static void seed_table(struct seed *s)
{
	uint8_t bytes[8 + sizeof(struct mem_region)] = {1};
	struct mem_region r = {0, MEMORY_SIZE, USER, 0};

	memcpy(bytes + 8, &r, sizeof(r));
	seed_message(s, MESSAGE_SET_MEM_TABLE, MESSAGE_NEED_REPLY, FD_MEMORY, bytes, sizeof(bytes));
}

static void seed_ring(struct seed *s, uint32_t index, bool packed)
{
	struct vring_addr a = {.index = index,
		.flags = 1,
		.desc = USER + (packed ? 0x3000 : 0),
		.avail = USER + (packed ? 0x3800 : 0x1000),
		.used = USER + (packed ? 0x3900 : 0x2000),
		.log = 0x2000};

	seed_state(s, MESSAGE_SET_VRING_NUM, index, 16);
	seed_state(s, MESSAGE_SET_VRING_BASE, index, packed ? 0x80008000 : 0);
	seed_message(s, MESSAGE_SET_VRING_ADDR, MESSAGE_NEED_REPLY, -1, &a, sizeof(a));
	seed_value(s, MESSAGE_SET_VRING_KICK, 0, FD_EVENT, index);
	seed_value(s, MESSAGE_SET_VRING_CALL, 0, FD_PIPE_OUT, index);
	seed_value(s, MESSAGE_SET_VRING_ERR, 0, FD_PIPE_OUT, index);
	seed_state(s, MESSAGE_SET_VRING_ENABLE, index, 1);
}

static const uint64_t plain = UINT64_C(1) << 32 | 1 << 30 | 1 << 29 | 1 << 28;
static const uint64_t all_protocol = UINT64_C(0x1ffffff) & ~(UINT64_C(1) << PROTOCOL_INBAND_NOTIFICATIONS);

/* Memory, a ring that runs, and its end. */
static void seed_run(struct seed *s, uint8_t with, uint64_t features, uint64_t protocol)
{
	bool packed = features >> 34 & 1;

	seed_handshake(s, with, features, protocol);
	if (protocol >> PROTOCOL_CONFIGURE_MEM_SLOTS & 1) {
		seed_region(s, MESSAGE_ADD_MEM_REG, 0, 0x4000, 0);
		seed_region(s, MESSAGE_ADD_MEM_REG, 0x8000, 0x8000, 0x8000);
	} else {
		seed_table(s);
	}
	seed_ring(s, 0, packed);
	if (with & WITH_INBAND)
		seed_state(s, MESSAGE_VRING_KICK, 0, 0);
	seed_u8(s, OP_KICK);
	seed_u8(s, OP_TURN);
}

static void seed_migration(struct seed *s)
{
	struct log_msg log = {.size = 64, .offset = 0};
	struct device_state_msg state = {0, 0};

	seed_run(s, 0, plain, all_protocol);
	seed_message(s, MESSAGE_SET_LOG_BASE, 0, FD_SMALL, &log, sizeof(log));
	seed_value(s, MESSAGE_SET_FEATURES, MESSAGE_NEED_REPLY, -1, plain | 1 << 26);
	seed_u8(s, OP_PUSH);
	seed_u8(s, 0);
	seed_state(s, MESSAGE_SET_VRING_ENABLE, 0, 0);
	seed_state(s, MESSAGE_GET_VRING_BASE, 0, 0);
	seed_put(s, "\4\0\4\0\5", 5); /* OP_PUSH twice, OP_TURN */
	seed_message(s, MESSAGE_SET_DEVICE_STATE_FD, 0, FD_PIPE_OUT, &state, sizeof(state));
	seed_ask(s, MESSAGE_CHECK_DEVICE_STATE);
	state.direction = 1;
	seed_message(s, MESSAGE_SET_DEVICE_STATE_FD, 0, FD_PIPE_IN, &state, sizeof(state));
	seed_ask(s, MESSAGE_CHECK_DEVICE_STATE);
	seed_value(s, MESSAGE_SET_LOG_FD, 0, FD_EVENT, 0);
}

static void seed_postcopy(struct seed *s, bool slots)
{
	uint64_t protocol = slots ? all_protocol : all_protocol & ~BIT(PROTOCOL_CONFIGURE_MEM_SLOTS);

	seed_handshake(s, 0, plain, protocol);
	seed_ask(s, MESSAGE_POSTCOPY_ADVISE);
	seed_message(s, MESSAGE_POSTCOPY_LISTEN, MESSAGE_NEED_REPLY, -1, NULL, 0);
	if (slots) {
		seed_region(s, MESSAGE_ADD_MEM_REG, 0, 0x4000, 0);
		seed_region(s, MESSAGE_ADD_MEM_REG, 0x8000, 0x8000, 0x8000);
		seed_value(s, MESSAGE_ADD_MEM_REG, 0, -1, 0);
	} else {
		seed_table(s);
		seed_value(s, MESSAGE_SET_MEM_TABLE, 0, -1, 0);
	}
	seed_ring(s, 0, false);
	seed_u8(s, OP_KICK);
	seed_message(s, MESSAGE_POSTCOPY_END, MESSAGE_NEED_REPLY, -1, NULL, 0);
}

static void seed_inflight(struct seed *s)
{
	struct inflight_msg m = {.num_queues = QUEUES, .queue_size = 16};

	seed_handshake(s, 0, plain, all_protocol);
	seed_message(s, MESSAGE_GET_INFLIGHT_FD, 0, -1, &m, sizeof(m));
	m.mmap_size = SMALL_SIZE;
	seed_message(s, MESSAGE_SET_INFLIGHT_FD, MESSAGE_NEED_REPLY, FD_SMALL, &m, sizeof(m));
	seed_table(s);
	seed_ring(s, 1, false);
	seed_u8(s, OP_KICK);
}

static void seed_memory(struct seed *s)
{
	seed_run(s, 0, plain, all_protocol);
	seed_region(s, MESSAGE_ADD_MEM_REG, 0x8000, 0x8000, 0x8000); /* again */
	seed_region(s, MESSAGE_REM_MEM_REG, 0x8000, 0x8000, 0x8000);
	seed_put(s, "\4\0\4\0\5", 5);
	seed_region(s, MESSAGE_REM_MEM_REG, 0, 0x4000, 0); /* of the ring */
	seed_put(s, "\4\0\5", 3);
	seed_table(s);
	seed_ring(s, 2, false);
	seed_u8(s, OP_KICK);
}

static void seed_device(struct seed *s)
{
	struct {
		struct config_msg c;
	} config;

	memset(&config, 0, sizeof(struct message_header) + 20);
	config.c.size = 8;
	seed_handshake(s, 0, plain, all_protocol);
	seed_message(s, MESSAGE_GET_CONFIG, 0, -1, &config, 12 + 8);
	seed_message(s, MESSAGE_SET_CONFIG, MESSAGE_NEED_REPLY, -1, &config, 12 + 8);
	seed_u8(s, OP_CONFIG);
	seed_value(s, MESSAGE_SEND_RARP, 0, -1, 1);
	seed_value(s, MESSAGE_NET_SET_MTU, MESSAGE_NEED_REPLY, -1, 1500);
	seed_message(s, MESSAGE_CREATE_CRYPTO_SESSION, 0, -1, s->bytes, 100);
	seed_value(s, MESSAGE_CLOSE_CRYPTO_SESSION, 0, -1, 1);
	seed_message(s, MESSAGE_GPU_SET_SOCKET, 0, FD_SOCKET, NULL, 0);
	seed_value(s, MESSAGE_SET_STATUS, 0, -1, 15);
	seed_ask(s, MESSAGE_GET_STATUS);
	seed_ask(s, MESSAGE_RESET_DEVICE);
	seed_ask(s, MESSAGE_RESET_OWNER);
	seed_message(s, MESSAGE_IOTLB_MSG, MESSAGE_NEED_REPLY, -1, s->bytes, 32);
	seed_value(s, MESSAGE_SET_VRING_ENDIAN, MESSAGE_NEED_REPLY, -1, 0);
	seed_message(s, MESSAGE_GET_SHARED_OBJECT, MESSAGE_NEED_REPLY, -1, s->bytes, 16);
	seed_message(s, 99, MESSAGE_NEED_REPLY, FD_EVENT, s->bytes, 16);
	seed_put(s, "\1\5\2\2\3\1\0\0\0\1", 10); /* OP_RAW: five bytes of a header with two descriptors */
}

/* Replies that nobody reads, then somebody does. */
static void seed_unread(struct seed *s)
{
	seed_handshake(s, WITH_SMALL_SOCKET, plain, all_protocol);
	seed_u8(s, OP_QUIET);
	for (unsigned i = 0; i < 12; i++)
		seed_ask(s, MESSAGE_GET_FEATURES);
	seed_u8(s, OP_QUIET);
	seed_u8(s, OP_TURN);
	seed_ask(s, MESSAGE_GET_FEATURES);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static struct seed s;
	uint64_t no_slots = all_protocol & ~BIT(PROTOCOL_CONFIGURE_MEM_SLOTS);

	seed_run(&s, 0, plain, all_protocol);
	emit("slots", s.bytes, s.n);
	seed_run(&s, 0, plain, no_slots);
	emit("table", s.bytes, s.n);
	seed_run(&s, WITH_PACKED | WITH_IN_ORDER, plain | BIT(34) | BIT(35), no_slots);
	emit("packed", s.bytes, s.n);
	seed_run(&s, WITH_INBAND, plain, all_protocol | BIT(PROTOCOL_INBAND_NOTIFICATIONS));
	emit("inband", s.bytes, s.n);
	seed_run(&s, 0, BIT(32), 0);
	emit("no-protocol-features", s.bytes, s.n);
	seed_migration(&s);
	emit("migration", s.bytes, s.n);
	seed_postcopy(&s, false);
	emit("postcopy", s.bytes, s.n);
	seed_postcopy(&s, true);
	emit("postcopy-slots", s.bytes, s.n);
	seed_inflight(&s);
	emit("inflight", s.bytes, s.n);
	seed_memory(&s);
	emit("memory", s.bytes, s.n);
	seed_device(&s);
	emit("device", s.bytes, s.n);
	seed_unread(&s);
	emit("unread", s.bytes, s.n);
}
