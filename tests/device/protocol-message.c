/* SPDX-License-Identifier: MIT */
/*
 * Messages as such: replies and acknowledgements, errors, whatever a broken or hostile front-end may send. Nothing of
 * it may end the process, leak a descriptor, or leave a front-end waiting for a reply.
 */
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static int an_fd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK(fd >= 0);
	return fd;
}

/* --- offers --- */

static void offers(const struct fe_mode *m)
{
	static const unsigned features[] = {
		FE_F_LOG_ALL, FE_F_INDIRECT, FE_F_EVENT_IDX, FE_F_PROTOCOL, FE_F_VERSION_1};
	static const unsigned protocol[] = {FE_P_MQ, FE_P_LOG_SHMFD, FE_P_REPLY_ACK, FE_P_BACKEND_REQ,
		FE_P_INFLIGHT, FE_P_RESET_DEVICE, FE_P_MEM_SLOTS, FE_P_STATUS};
	static const unsigned never[] = {
		FE_P_BACKEND_SEND_FD, FE_P_HOST_NOTIFIER, FE_P_INBAND, FE_P_XEN_MMAP, FE_P_SHARED_OBJECT};
	struct fe fe;

	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_negotiate(&fe);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		if (!(fe.offered & BIT(features[i])))
			FAIL("feature bit %u: expected it to be offered", features[i]);
	CHECK(!(fe.offered & BIT(33)));
	CHECK(!(fe.offered & BIT(40)));
	CHECK_EQ(!!(fe.offered & BIT(FE_F_PACKED)), m->packed);
	for (unsigned i = 0; i < ARRAY_SIZE(protocol); i++)
		if (!(fe.protocol_offered & BIT(protocol[i])))
			FAIL("protocol feature %u: expected it to be offered", protocol[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(never); i++)
		if (fe.protocol_offered & BIT(never[i]))
			FAIL("protocol feature %u: expected it not to be offered", never[i]);
	CHECK_EQ(fe.queue_num, 1);
	CHECK(fe.max_slots >= 509);
	/* it must never change */
	CHECK_EQ(fe_get(&fe, FE_GET_MAX_MEM_SLOTS), fe.max_slots);
	CHECK_EQ(fe_get(&fe, FE_GET_FEATURES), fe.offered);
	CHECK_EQ(fe_get(&fe, FE_GET_PROTOCOL_FEATURES), fe.protocol_offered);
	fe_end(&fe);
}

/* --- acknowledgements --- */

struct plain { /* a request without a reply of its own */
	const char *name;
	uint32_t id;
	uint64_t body[6];
	size_t size;
	bool fd;
};

#define STATE(index, num) ((uint64_t)(num) << 32 | (index))

static const struct plain good[] = {
	{"SET_FEATURES", FE_SET_FEATURES, {BIT(FE_F_VERSION_1) | BIT(FE_F_PROTOCOL)}, 8, false},
	{"SET_OWNER", FE_SET_OWNER, {0}, 0, false},
	{"SET_VRING_NUM", FE_SET_VRING_NUM, {STATE(0, 128)}, 8, false},
	{"SET_VRING_BASE", FE_SET_VRING_BASE, {STATE(0, 77)}, 8, false},
	{"SET_VRING_CALL", FE_SET_VRING_CALL, {0}, 8, true},
	{"SET_VRING_CALL, no fd", FE_SET_VRING_CALL, {FE_NOFD}, 8, false},
	{"SET_VRING_KICK", FE_SET_VRING_KICK, {0}, 8, true},
	{"SET_VRING_KICK, no fd", FE_SET_VRING_KICK, {FE_NOFD}, 8, false},
	{"SET_VRING_ERR", FE_SET_VRING_ERR, {0}, 8, true},
	{"SET_VRING_ERR, no fd", FE_SET_VRING_ERR, {FE_NOFD}, 8, false},
	{"SET_VRING_ENABLE", FE_SET_VRING_ENABLE, {STATE(0, 1)}, 8, false},
	{"SET_VRING_ENABLE 0", FE_SET_VRING_ENABLE, {STATE(0, 0)}, 8, false},
	{"SET_STATUS", FE_SET_STATUS, {11}, 8, false},
	{"RESET_OWNER", FE_RESET_OWNER, {0}, 0, false},
	{"RESET_DEVICE", FE_RESET_DEVICE, {0}, 0, false},
	{"REM_MEM_REG of nothing", FE_REM_MEM_REG, {0, 0x1000, 0x1000, 0x1000, 0}, 40, false},
	{"REM_MEM_REG with a descriptor", FE_REM_MEM_REG, {0, 0x1000, 0x1000, 0x1000, 0}, 40, true},
	{"SET_LOG_FD", FE_SET_LOG_FD, {0}, 0, true},
	{"SET_MEM_TABLE, empty", FE_SET_MEM_TABLE, {0}, 8, false},
};

static const struct plain bad[] = {
	{"SET_VRING_NUM of a queue too far", FE_SET_VRING_NUM, {STATE(1, 128)}, 8, false},
	{"SET_VRING_NUM of a queue much too far", FE_SET_VRING_NUM, {STATE(0xffffffff, 128)}, 8, false},
	{"SET_VRING_NUM 0", FE_SET_VRING_NUM, {STATE(0, 0)}, 8, false},
	{"SET_VRING_NUM 65536", FE_SET_VRING_NUM, {STATE(0, 65536)}, 8, false},
	{"SET_VRING_NUM 100 of a split ring", FE_SET_VRING_NUM, {STATE(0, 100)}, 8, false},
	{"SET_VRING_ADDR of a queue too far", FE_SET_VRING_ADDR, {STATE(77, 0)}, 40, false},
	{"SET_VRING_BASE of a queue too far", FE_SET_VRING_BASE, {STATE(1, 0)}, 8, false},
	{"SET_VRING_ENABLE of a queue too far", FE_SET_VRING_ENABLE, {STATE(1, 1)}, 8, false},
	{"SET_VRING_ENABLE 2", FE_SET_VRING_ENABLE, {STATE(0, 2)}, 8, false},
	{"SET_VRING_KICK of a queue too far", FE_SET_VRING_KICK, {1}, 8, true},
	{"SET_VRING_CALL of a queue too far", FE_SET_VRING_CALL, {255}, 8, true},
	{"SET_VRING_ERR of a queue too far", FE_SET_VRING_ERR, {1 | FE_NOFD}, 8, false},
	{"SET_VRING_KICK without a descriptor", FE_SET_VRING_KICK, {0}, 8, false},
	{"VRING_KICK that was not negotiated", FE_VRING_KICK, {STATE(0, 0)}, 8, false},
	{"SET_BACKEND_REQ_FD without a descriptor", FE_SET_BACKEND_REQ_FD, {0}, 0, false},
	{"SET_CONFIG without a configuration", FE_SET_CONFIG, {8ull << 32, 0, 0}, 20, false},
	{"ADD_MEM_REG without a descriptor", FE_ADD_MEM_REG, {0, 0x1000, 0x1000, 0x1000, 0}, 40, false},
	{"ADD_MEM_REG with an eventfd", FE_ADD_MEM_REG, {0, 0x1000, 0x1000, 0x1000, 0}, 40, true},
	{"SET_MEM_TABLE without descriptors", FE_SET_MEM_TABLE, {1, 0x1000, 0x1000, 0x1000, 0}, 40, false},
	{"SET_MEM_TABLE of 4294967295 regions", FE_SET_MEM_TABLE, {0xffffffff}, 40, true},
	{"SET_INFLIGHT_FD with an eventfd", FE_SET_INFLIGHT_FD, {4096, 0, 0x00400001}, 24, true},
	{"SEND_RARP", FE_SEND_RARP, {1}, 8, false},
	{"NET_SET_MTU", FE_NET_SET_MTU, {1500}, 8, false},
	{"GPU_SET_SOCKET", FE_GPU_SET_SOCKET, {0}, 0, true},
	{"CLOSE_CRYPTO_SESSION", FE_CLOSE_CRYPTO_SESSION, {1}, 8, false},
	{"IOTLB_MSG", FE_IOTLB_MSG, {0}, 32, false},
	{"POSTCOPY_LISTEN without ADVISE", FE_POSTCOPY_LISTEN, {0}, 0, false},
	{"message 0", 0, {0}, 0, false},
	{"GET_SHARED_OBJECT", FE_GET_SHARED_OBJECT, {0}, 16, false},
	{"message 44", FE_MESSAGES, {0}, 8, true},
	{"message 4294967295", 0xffffffff, {0}, 0, false},
};

static uint64_t plain_ack(struct fe *fe, const struct plain *p)
{
	int fd = p->fd ? an_fd() : -1;
	uint64_t r = fe_ack(fe, p->id, p->body, p->size, &fd, p->fd);

	fd_close(&fd);
	/* no second answer, and the session goes on */
	fe_barrier(fe);
	return r;
}

static void plain_quiet(struct fe *fe, const struct plain *p)
{
	int fd = p->fd ? an_fd() : -1;

	fe_send(fe, p->id, 0, p->body, p->size, &fd, p->fd);
	fd_close(&fd);
	fe_barrier(fe);
}

static void acks(uint64_t protocol_mask)
{
	struct fe fe;

	fe_init(&fe, NULL);
	fe.protocol_mask = protocol_mask;
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t r = plain_ack(&fe, &good[i]);

		if (r)
			FAIL("%s: expected ack 0, got %llu", good[i].name, (unsigned long long)r);
		plain_quiet(&fe, &good[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		if (!plain_ack(&fe, &bad[i]))
			FAIL("%s: expected an ack that is not 0", bad[i].name);
		plain_quiet(&fe, &bad[i]);
	}
	fe_end(&fe);
}

static void acks_negotiated(const struct fe_mode *m)
{
	(void)m;
	acks(~BIT(FE_P_INBAND));
}

static void acks_not_negotiated(const struct fe_mode *m)
{
	(void)m;
	acks(BIT(FE_P_MQ));
}

/* User Mode Linux asks for an ack of the very message that negotiates acks. */
static void ack_of_protocol_features(const struct fe_mode *m)
{
	uint64_t p = BIT(FE_P_REPLY_ACK) | BIT(FE_P_BACKEND_REQ) | BIT(FE_P_CONFIG);
	struct fe fe;

	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_send(&fe, FE_SET_OWNER, 0, NULL, 0, NULL, 0);
	fe_get(&fe, FE_GET_FEATURES);
	fe_get(&fe, FE_GET_PROTOCOL_FEATURES);
	CHECK_EQ(fe_ack(&fe, FE_SET_PROTOCOL_FEATURES, &p, sizeof(p), NULL, 0), 0);
	/* and once more, as QEMU does it for each pair of net queues */
	CHECK_EQ(fe_ack(&fe, FE_SET_PROTOCOL_FEATURES, &p, sizeof(p), NULL, 0), 0);
	fe_barrier(&fe);
	fe_end(&fe);
}

/* A message with a reply of its own is answered once, also when it asks for an ack. */
static void own_replies(const struct fe_mode *m)
{
	static const uint32_t u64s[] = {FE_GET_FEATURES, FE_GET_PROTOCOL_FEATURES, FE_GET_QUEUE_NUM,
		FE_GET_MAX_MEM_SLOTS, FE_GET_STATUS};
	struct fe_vring_state s = {0, 0};
	struct fe_msg r;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < ARRAY_SIZE(u64s); i++)
		CHECK_EQ(fe_ack(&fe, u64s[i], NULL, 0, NULL, 0), fe_get(&fe, u64s[i]));
	fe_send(&fe, FE_GET_VRING_BASE, FE_NEED_REPLY, &s, sizeof(s), NULL, 0);
	fe_expect(&fe, FE_GET_VRING_BASE, 8, &r);
	fe_barrier(&fe);
	/* the ones that fail are answered, too: front-ends wait for them */
	s.index = 99;
	fe_ask(&fe, FE_GET_VRING_BASE, &s, sizeof(s), NULL, 0, &r, FE_ANY);
	fe_ask(&fe, FE_GET_VRING_BASE, NULL, 0, NULL, 0, &r, FE_ANY);
	fe_ask(&fe, FE_GET_CONFIG, NULL, 0, NULL, 0, &r, 0);
	fe_ask(&fe, FE_CREATE_CRYPTO_SESSION, &s, sizeof(s), NULL, 0, &r, FE_ANY);
	fe_ask(&fe, FE_GET_INFLIGHT_FD, NULL, 0, NULL, 0, &r, FE_ANY);
	fe_barrier(&fe);
	fe_end(&fe);
}

/* --- device state, config, in-flight, back-channel --- */

static void device_state(const struct fe_mode *m)
{
	struct fe_wire_state w = {.direction = 0};
	int pipefd[2];
	struct fe_msg r;
	struct fe fe;
	char c;

	fe_start(&fe, m, FE_ARGS("rng"));
	CHECK(!(fe.protocol_offered & BIT(FE_P_DEVICE_STATE)));
	CHECK_SYS(pipe2(pipefd, O_CLOEXEC));
	fe_ask(&fe, FE_SET_DEVICE_STATE_FD, &w, sizeof(w), &pipefd[1], 1, &r, 8);
	CHECK(*(uint64_t *)r.body & 0xff);
	CHECK(*(uint64_t *)r.body & 0x100);
	close(pipefd[1]);
	/* its end was closed */
	CHECK_EQ(read(pipefd[0], &c, 1), 0);
	CHECK(fe_get(&fe, FE_CHECK_DEVICE_STATE) != 0);
	fe_end(&fe);
}

static void config_of_nothing(const struct fe_mode *m)
{
	static const uint8_t zero[256];
	uint8_t got[256];
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (uint32_t n = 1; n <= 256; n = n * 2 + (n < 200)) {
		memset(got, 1, sizeof(got));
		fe_config_get(&fe, 0, got, MIN(n, 256));
		CHECK_MEM(got, zero, MIN(n, 256));
	}
	fe_config_get(&fe, 0xfffffff0, got, 8);
	CHECK(fe_config_set(&fe, 0, zero, 4, 0) != 0);
	fe_end(&fe);
}

static void inflight_refused(const struct fe_mode *m)
{
	struct fe_wire_inflight w = {.num_queues = 1, .queue_size = 128};
	struct fe_msg r;
	struct fe fe;
	int fd;

	fe_start(&fe, m, FE_ARGS("rng"));
	/* "no tracking" */
	CHECK_EQ(fe_ack(&fe, FE_SET_INFLIGHT_FD, &w, sizeof(w), NULL, 0), 0);
	fe_inflight_get(&fe, 1, 128);
	CHECK(fe.inflight.mmap_size >= 16 + 16 * 128);
	for (uint64_t i = 0; i < fe.inflight.mmap_size; i++)
		CHECK_EQ(fe.inflight_ptr[i], 0);
	/* the size without tail padding, as the specification has it: the reply has the size of the request */
	fe_send(&fe, FE_GET_INFLIGHT_FD, 0, &w, 20, NULL, 0);
	CHECK(fe_recv(&fe, &r));
	CHECK_EQ(r.h.size, 20);
	CHECK_EQ(r.nfds, 1);
	fe_close_fds(r.fds, r.nfds);
	/* a file that is too small for what it should hold */
	fd = fe_memfd(4096);
	w.mmap_size = 4096;
	w.queue_size = 32768;
	CHECK(fe_ack(&fe, FE_SET_INFLIGHT_FD, &w, sizeof(w), &fd, 1) != 0);
	w.queue_size = 128;
	w.mmap_size = 1 << 20;
	CHECK(fe_ack(&fe, FE_SET_INFLIGHT_FD, &w, sizeof(w), &fd, 1) != 0);
	w.mmap_size = 4096;
	w.mmap_offset = UINT64_MAX - 4095;
	CHECK(fe_ack(&fe, FE_SET_INFLIGHT_FD, &w, sizeof(w), &fd, 1) != 0);
	close(fd);
	fe_barrier(&fe);
	fe_end(&fe);
}

static void back_channel_replaced(const struct fe_mode *m)
{
	int sv[2], old;
	char c;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < 5; i++) {
		old = fe.back;
		CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
		fe_set(&fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1);
		close(sv[1]);
		fe.back = sv[0];
		if (!fe_poll(old, POLLIN, fe_limit_ms))
			FAIL("expected the old back-channel to be closed");
		CHECK_EQ(read(old, &c, 1), 0);
		close(old);
	}
	/* closing it on our side is no reason to end */
	fd_close(&fe.back);
	fe_barrier(&fe);
	fe_end(&fe);
}

/* In-band interrupts go to the newest back-channel. */
static void back_channel_replaced_inband(const struct fe_mode *m)
{
	struct fe_queue *q;
	struct fe fe;
	int sv[2];

	fe_init(&fe, m);
	fe.protocol_mask = UINT64_MAX;
	fe_spawn(&fe, FE_ARGS("rng", "--inband"));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < 5; i++) {
		rng_works(q);
		CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
		fe_set(&fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1);
		close(sv[1]);
		close(fe.back);
		fe.back = sv[0];
	}
	rng_works(q);
	fe_end(&fe);
}

/* --- the stream --- */

static void overlong(const struct fe_mode *m)
{
	uint8_t body[256] = {0};
	struct fe_mem_table t = {.n = 1};
	struct fe fe;
	struct fe_queue *q;

	fe_init(&fe, m);
	fe.protocol_mask = BIT(FE_P_REPLY_ACK) | BIT(FE_P_CONFIG);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_handshake(&fe);
	/* always two regions long in User Mode Linux */
	fe_region_make(&fe, 0x100000, 1 << 20, 0x100000, -1, 0x100000);
	t.region[0] = fe.regions[0].w;
	CHECK_EQ(fe_ack(&fe, FE_SET_MEM_TABLE, &t, 72, &fe.regions[0].fd, 1), 0);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	memcpy(body, &(uint64_t){BIT(FE_F_VERSION_1) | BIT(FE_F_PROTOCOL)}, 8);
	CHECK_EQ(fe_ack(&fe, FE_SET_FEATURES, body, sizeof(body), NULL, 0), 0);
	CHECK_EQ(fe_ack(&fe, FE_SET_OWNER, body, sizeof(body), NULL, 0), 0);
	fe_barrier(&fe);
	fe_end(&fe);
}

static void bytewise(const struct fe_mode *m)
{
	struct fe_vring_state num = {0, 16}, enable = {0, 1}, base = {0, vring_driver_base(m->packed)};
	uint64_t v, features = BIT(FE_F_PROTOCOL) | BIT(FE_F_VERSION_1);
	struct fe_queue *q;
	struct fe_msg r;
	struct fe fe;

	if (m->packed) {
		base.num |= base.num << 16;
		features |= BIT(FE_F_PACKED);
	}
	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_send_bytewise(&fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0);
	fe_expect(&fe, FE_GET_FEATURES, 8, &r);
	v = BIT(FE_P_REPLY_ACK);
	fe_send_bytewise(&fe, FE_SET_PROTOCOL_FEATURES, 0, &v, sizeof(v), NULL, 0);
	fe.protocol = v;
	fe_send_bytewise(&fe, FE_SET_FEATURES, 0, &features, sizeof(features), NULL, 0);
	fe.features = features;
	fe_region_make(&fe, 0, 1 << 20, 0x100000, -1, 0);
	fe_region_make(&fe, 1 << 20, 1 << 20, 0x300000, -1, 0);
	{
		struct fe_mem_table t = {.n = 2, .region = {fe.regions[0].w, fe.regions[1].w}};
		int fds[2] = {fe.regions[0].fd, fe.regions[1].fd};

		fe_send_bytewise(&fe, FE_SET_MEM_TABLE, FE_NEED_REPLY, &t, 72, fds, 2);
		fe_expect(&fe, FE_SET_MEM_TABLE, 8, &r);
		CHECK_EQ(*(uint64_t *)r.body, 0);
	}
	q = fe_queue_make(&fe, 0, 16, FE_FRESH);
	fe_send_bytewise(&fe, FE_SET_VRING_NUM, 0, &num, sizeof(num), NULL, 0);
	fe_send_bytewise(&fe, FE_SET_VRING_BASE, 0, &base, sizeof(base), NULL, 0);
	fe_queue_send_addr(q);
	v = 0;
	fe_send_bytewise(&fe, FE_SET_VRING_KICK, 0, &v, sizeof(v), &q->kick, 1);
	fe_send_bytewise(&fe, FE_SET_VRING_CALL, FE_NEED_REPLY, &v, sizeof(v), &q->call, 1);
	fe_expect(&fe, FE_SET_VRING_CALL, 8, &r);
	CHECK_EQ(*(uint64_t *)r.body, 0);
	fe_send_bytewise(&fe, FE_SET_VRING_ENABLE, 0, &enable, sizeof(enable), NULL, 0);
	fe_barrier(&fe);
	rng_works(q);
	fe_end(&fe);
}

/* Many messages in one go, fds among them. */
static void all_at_once(const struct fe_mode *m)
{
	uint8_t bytes[100 * 20];
	struct fe_msg r;
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	for (unsigned i = 0; i < 100; i++) {
		struct fe_header h = {FE_SET_STATUS, FE_VERSION | FE_NEED_REPLY, 8};
		uint64_t v = i;

		memcpy(bytes + i * 20, &h, 12);
		memcpy(bytes + i * 20 + 12, &v, 8);
	}
	CHECK(fe_send_raw(&fe, bytes, sizeof(bytes), NULL, 0));
	for (unsigned i = 0; i < 100; i++) {
		fe_expect(&fe, FE_SET_STATUS, 8, &r);
		CHECK_EQ(*(uint64_t *)r.body, 0);
	}
	CHECK_EQ(fe_get(&fe, FE_GET_STATUS), 99);
	fe_end(&fe);
}

/* A front-end that asks and does not read: the session may end, the process must go on. */
static void replies_not_read(const struct fe_mode *m)
{
	struct fe_header h = {FE_GET_FEATURES, FE_VERSION, 0};
	struct server s;

	server_start(&s, m, NULL);
	fcntl(s.fe.sock, F_SETFL, O_NONBLOCK);
	for (unsigned i = 0; i < 100000; i++)
		if (send(s.fe.sock, &h, sizeof(h), MSG_NOSIGNAL) < 0)
			break;
	server_reconnect(&s);
	server_up(&s);
	server_end(&s);
}

/* The connection ends anywhere in a message; a new one is served. */
static void cut_off(const struct fe_mode *m)
{
	struct {
		struct fe_header h;
		uint64_t body;
	} __attribute__((packed)) msg = {{FE_SET_VRING_CALL, FE_VERSION, 8}, 0};
	struct server s;
	unsigned fds;

	server_start(&s, m, NULL);
	server_up(&s);
	server_reconnect(&s);
	fe_barrier(&s.fe);
	fds = fe_process_fds(&s.fe.process);
	for (size_t n = 1; n < sizeof(msg); n++) {
		int fd = an_fd();

		CHECK(fe_send_raw(&s.fe, &msg, n, &fd, 1));
		close(fd);
		server_reconnect(&s);
		fe_barrier(&s.fe);
		CHECK_EQ(fe_process_fds(&s.fe.process), fds);
	}
	server_up(&s);
	server_end(&s);
}

/* Headers that make no sense end the session, and only that. */
static void bad_headers(const struct fe_mode *m)
{
	static const struct fe_header headers[] = {
		{FE_GET_FEATURES, 0, 0},
		{FE_GET_FEATURES, 2, 0},
		{FE_GET_FEATURES, 3, 0},
		{FE_SET_FEATURES, FE_VERSION, 0xffffffff},
		{FE_SET_FEATURES, FE_VERSION, 0x7fffffff},
		{FE_SET_MEM_TABLE, FE_VERSION, 1 << 20},
	};
	struct server s;
	size_t rss;

	server_start(&s, m, NULL);
	server_up(&s);
	rss = fe_process_rss(&s.fe.process);
	for (unsigned i = 0; i < ARRAY_SIZE(headers); i++) {
		server_reconnect(&s);
		fe_barrier(&s.fe);
		CHECK(fe_send_raw(&s.fe, &headers[i], sizeof(headers[i]), NULL, 0));
		fe_expect_eof(&s.fe);
	}
	CHECK(fe_process_rss(&s.fe.process) < rss + (8 << 20));
	server_reconnect(&s);
	server_up(&s);
	server_end(&s);
}

/* --- the storm: every id, many sizes, many numbers of fds --- */

static uint32_t storm_seed;

static uint32_t storm_random(void)
{
	storm_seed = storm_seed * 1664525u + 1013904223u;
	return storm_seed >> 8;
}

/* Sends one; then reads until the barrier's reply. False: the session has ended, which is allowed. */
static bool storm_one(struct fe *fe, uint32_t id, uint32_t flags, size_t size, unsigned nfds)
{
	uint8_t bytes[12 + 4096];
	struct fe_header h = {id, flags | FE_VERSION, (uint32_t)size},
			 barrier = {FE_GET_FEATURES, FE_VERSION, 0};
	bool more = id == FE_GET_FEATURES;
	struct fe_msg r;
	int fds[64];

	for (unsigned i = 0; i < nfds; i++)
		fds[i] = i % 2 ? an_fd() : fe_memfd(8192);
	memcpy(bytes, &h, sizeof(h));
	for (size_t i = 0; i < size; i++)
		bytes[12 + i] = storm_random() % 4 ? 0 : (uint8_t)storm_random();
	if (!fe_send_raw(fe, bytes, 12 + size, fds, nfds)) {
		fe_close_fds(fds, nfds);
		return false;
	}
	fe_close_fds(fds, nfds);
	if (!fe_send_raw(fe, &barrier, sizeof(barrier), NULL, 0))
		return false;
	for (unsigned replies = 0;; replies++) {
		if (!fe_recv(fe, &r))
			return false;
		fe_close_fds(r.fds, r.nfds);
		CHECK_EQ(r.h.flags, FE_VERSION | FE_REPLY);
		if (r.h.request == FE_GET_FEATURES && !more) {
			if ((flags & FE_NEED_REPLY) && id != FE_GET_FEATURES)
				CHECK_EQ(replies, 1);
			return true;
		}
		CHECK_EQ(r.h.request, id);
		CHECK_EQ(replies, 0);
		more = false;
	}
}

static void storm(const struct fe_mode *m)
{
	static const size_t sizes[] = {
		0, 1, 4, 7, 8, 9, 12, 16, 20, 24, 32, 39, 40, 41, 72, 264, 268, 632, 1072, 4096};
	static const unsigned fds[] = {0, 1, 2, 8, 9, 40};
	unsigned baseline, ended = 0;
	struct server s;

	server_start(&s, m, NULL);
	server_up(&s);
	server_reconnect(&s);
	fe_barrier(&s.fe);
	baseline = fe_process_fds(&s.fe.process);
	for (uint32_t id = 0; id < FE_MESSAGES + 3; id++) {
		storm_seed = id;
		for (unsigned i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(fds) * 2; i++) {
			size_t size = sizes[i / 2 / ARRAY_SIZE(fds)];
			unsigned nfds = fds[i / 2 % ARRAY_SIZE(fds)];

			if (storm_one(&s.fe, id, i % 2 ? FE_NEED_REPLY : 0, size, nfds))
				continue;
			ended++;
			server_reconnect(&s);
		}
		server_reconnect(&s);
		fe_barrier(&s.fe);
		if (fe_process_fds(&s.fe.process) != baseline)
			FAIL("message %u: expected %u descriptors after the session, got %u", id, baseline,
				fe_process_fds(&s.fe.process));
	}
	/* nothing but in-band notifications without companions is a reason to hang up, and those are not offered */
	CHECK_EQ(ended, 0);
	server_up(&s);
	server_end(&s);
}

/* The same while a ring is being served. */
static void storm_live(const struct fe_mode *m)
{
	struct server s;
	struct fe_queue *q;

	server_start(&s, m, NULL);
	for (uint32_t id = 0; id < FE_MESSAGES + 1; id++) {
		q = server_up(&s);
		storm_seed = id * 7;
		for (unsigned i = 0; i < 40; i++) {
			struct vring_driver_buf b = fe_wr(&s.fe, fe_alloc(&s.fe, 64, 1, NULL), 64);

			if (q->ring.nfree) {
				fe_submit(q, &b, 1, NULL);
				fe_flush(q);
			}
			if (!storm_one(&s.fe, id, i % 2 ? FE_NEED_REPLY : 0, i * 8, i % 3))
				break;
			/* a message may have moved the ring: what comes then need not make sense */
			while (vring_driver_get(&q->ring, NULL, NULL) > 0)
				;
		}
		server_reconnect(&s);
	}
	server_up(&s);
	server_end(&s);
}

static void random_messages(const struct fe_mode *m)
{
	struct server s;

	server_start(&s, m, NULL);
	storm_seed = 12345;
	for (unsigned i = 0; i < 3000; i++)
		if (!storm_one(&s.fe, storm_random() % (FE_MESSAGES + 2),
			    storm_random() % 2 ? FE_NEED_REPLY : 0, storm_random() % 100, storm_random() % 4))
			server_reconnect(&s);
	server_reconnect(&s);
	server_up(&s);
	server_end(&s);
}

int main(void)
{
	static const struct fe_mode split = {0};

	fe_each_layout("what is offered", offers);
	fe_case("acks, REPLY_ACK negotiated", acks_negotiated, &split);
	fe_case("acks, REPLY_ACK not negotiated", acks_not_negotiated, &split);
	fe_case("ack of SET_PROTOCOL_FEATURES", ack_of_protocol_features, &split);
	fe_case("own replies come once", own_replies, &split);
	fe_case("device state is refused by a device without", device_state, &split);
	fe_case("configuration space of a device without", config_of_nothing, &split);
	fe_case("in-flight areas that do not fit", inflight_refused, &split);
	fe_case("the back-channel is replaced", back_channel_replaced, &split);
	fe_case("the back-channel is replaced under interrupts", back_channel_replaced_inband, &split);
	fe_case("payloads longer than needed", overlong, &split);
	fe_each_layout("byte by byte", bytewise);
	fe_case("100 messages at once", all_at_once, &split);
	fe_case("replies that nobody reads", replies_not_read, &split);
	fe_case("end of file within a message", cut_off, &split);
	fe_case("headers that make no sense", bad_headers, &split);
	fe_case("every message, size and number of descriptors", storm, &split);
	fe_each_layout("every message on a live ring", storm_live);
	fe_case("random messages", random_messages, &split);
	return tap_done();
}
