/* SPDX-License-Identifier: MIT */
/* The connection of the test front-end: messages, handshake, configuration space, back-channel, in-flight area. */
#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static const char *message_name(uint32_t id)
{
	static const char *const names[FE_MESSAGES] = {"?", "GET_FEATURES", "SET_FEATURES", "SET_OWNER",
		"RESET_OWNER", "SET_MEM_TABLE", "SET_LOG_BASE", "SET_LOG_FD", "SET_VRING_NUM",
		"SET_VRING_ADDR", "SET_VRING_BASE", "GET_VRING_BASE", "SET_VRING_KICK", "SET_VRING_CALL",
		"SET_VRING_ERR", "GET_PROTOCOL_FEATURES", "SET_PROTOCOL_FEATURES", "GET_QUEUE_NUM",
		"SET_VRING_ENABLE", "SEND_RARP", "NET_SET_MTU", "SET_BACKEND_REQ_FD", "IOTLB_MSG",
		"SET_VRING_ENDIAN", "GET_CONFIG", "SET_CONFIG", "CREATE_CRYPTO_SESSION",
		"CLOSE_CRYPTO_SESSION", "POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_END",
		"GET_INFLIGHT_FD", "SET_INFLIGHT_FD", "GPU_SET_SOCKET", "RESET_DEVICE", "VRING_KICK",
		"GET_MAX_MEM_SLOTS", "ADD_MEM_REG", "REM_MEM_REG", "SET_STATUS", "GET_STATUS",
		"GET_SHARED_OBJECT", "SET_DEVICE_STATE_FD", "CHECK_DEVICE_STATE"};

	return id < FE_MESSAGES ? names[id] : "an unknown message";
}

/* --- bytes --- */

static bool send_all(int sock, const uint8_t *bytes, size_t size, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr align;
		uint8_t room[CMSG_SPACE(sizeof(int) * 64)];
	} control = {0};
	size_t done = 0;

	CHECK(nfds <= 64);
	while (done < size) {
		struct iovec iov = {(void *)(bytes + done), size - done};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (nfds && done == 0) {
			msg.msg_control = control.room;
			msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
			control.align.cmsg_level = SOL_SOCKET;
			control.align.cmsg_type = SCM_RIGHTS;
			control.align.cmsg_len = CMSG_LEN(sizeof(int) * nfds);
			memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * nfds);
		}
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			if (!fe_poll(sock, POLLOUT, fe_limit_ms))
				FAIL("send: the back-end took nothing for %d ms", fe_limit_ms);
			continue;
		}
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return false;
		if (n < 0)
			FAIL("sendmsg: %s", strerror(errno));
		done += (size_t)n;
	}
	return true;
}

bool fe_send_raw(struct fe *fe, const void *bytes, size_t size, const int *fds, unsigned nfds)
{
	return send_all(fe->sock, bytes, size, fds, nfds);
}

static uint8_t *assemble(uint32_t request, uint32_t flags, const void *body, size_t size)
{
	struct fe_header h = {request, flags | FE_VERSION, (uint32_t)size};
	uint8_t *bytes = malloc(sizeof(h) + size);

	if (!bytes)
		abort();
	memcpy(bytes, &h, sizeof(h));
	if (size)
		memcpy(bytes + sizeof(h), body, size);
	return bytes;
}

void fe_send(struct fe *fe, uint32_t request, uint32_t flags, const void *body, size_t size, const int *fds,
	unsigned nfds)
{
	CLEANUP_FREE uint8_t *bytes = assemble(request, flags, body, size);

	if (!send_all(fe->sock, bytes, sizeof(struct fe_header) + size, fds, nfds))
		FAIL("%s: the back-end has closed the connection", message_name(request));
}

void fe_send_bytewise(struct fe *fe, uint32_t request, uint32_t flags, const void *body, size_t size,
	const int *fds, unsigned nfds)
{
	CLEANUP_FREE uint8_t *bytes = assemble(request, flags, body, size);
	struct timespec pause = {.tv_nsec = 200000};

	for (size_t i = 0; i < sizeof(struct fe_header) + size; i++) {
		if (!send_all(fe->sock, bytes + i, 1, fds, i ? 0 : nfds))
			FAIL("%s: the back-end has closed the connection at byte %zu", message_name(request),
				i);
		/* so that it is likely to read each byte by itself; correct in any case */
		nanosleep(&pause, NULL);
	}
}

static void take_fds(struct msghdr *msg, struct fe_msg *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		CHECK(m->nfds + n <= FE_FDS);
		memcpy(m->fds + m->nfds, CMSG_DATA(c), n * sizeof(int));
		m->nfds += (unsigned)n;
	}
}

/* False: end of file before the first byte. */
static bool recv_all(int sock, void *dst, size_t size, struct fe_msg *m)
{
	uint8_t control[CMSG_SPACE(sizeof(int) * FE_FDS)];
	size_t done = 0;

	while (done < size) {
		struct iovec iov = {(uint8_t *)dst + done, size - done};
		struct msghdr msg = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};
		ssize_t n;

		if (!fe_poll(sock, POLLIN, fe_limit_ms))
			FAIL("expected a message, none came within %d ms (%zu of %zu bytes)", fe_limit_ms,
				done, size);
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n == 0 || (n < 0 && errno == ECONNRESET)) {
			if (done)
				FAIL("end of file after %zu of %zu bytes of a message", done, size);
			return false;
		}
		if (n < 0)
			FAIL("recvmsg: %s", strerror(errno));
		take_fds(&msg, m);
		done += (size_t)n;
	}
	return true;
}

bool fe_recv_from(int sock, struct fe_msg *m)
{
	m->nfds = 0;
	if (!recv_all(sock, &m->h, sizeof(m->h), m))
		return false;
	if (m->h.size > sizeof(m->body))
		FAIL("%s: a message with %u bytes of payload", message_name(m->h.request), m->h.size);
	if (m->h.size && !recv_all(sock, m->body, m->h.size, m))
		FAIL("%s: end of file instead of %u bytes of payload", message_name(m->h.request), m->h.size);
	return true;
}

bool fe_recv(struct fe *fe, struct fe_msg *m)
{
	return fe_recv_from(fe->sock, m);
}

void fe_close_fds(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fd_close(&fds[i]);
}

/* --- requests and replies --- */

static void expect_fds(struct fe *fe, uint32_t request, int size, unsigned nfds, struct fe_msg *m)
{
	const char *name = message_name(request);

	if (!fe_recv(fe, m))
		FAIL("%s: expected a reply, the back-end closed the connection", name);
	if (m->h.request != request)
		FAIL("%s: expected its reply, got message %u (%s, flags 0x%x, size %u)", name, m->h.request,
			message_name(m->h.request), m->h.flags, m->h.size);
	if (m->h.flags != (FE_VERSION | FE_REPLY))
		FAIL("%s: expected reply flags 0x5, got 0x%x", name, m->h.flags);
	if (size != FE_ANY && m->h.size != (uint32_t)size)
		FAIL("%s: expected a reply of %d bytes, got %u", name, size, m->h.size);
	if (m->nfds != nfds)
		FAIL("%s: expected %u fds with the reply, got %u", name, nfds, m->nfds);
}

void fe_expect(struct fe *fe, uint32_t request, int size, struct fe_msg *m)
{
	expect_fds(fe, request, size, 0, m);
}

uint64_t fe_get(struct fe *fe, uint32_t request)
{
	struct fe_msg m;

	fe_send(fe, request, 0, NULL, 0, NULL, 0);
	fe_expect(fe, request, 8, &m);
	return *(uint64_t *)m.body;
}

uint64_t fe_ack(struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds)
{
	struct fe_msg m;

	fe_send(fe, request, FE_NEED_REPLY, body, size, fds, nfds);
	fe_expect(fe, request, 8, &m);
	return *(uint64_t *)m.body;
}

void fe_set(struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds)
{
	uint64_t r;

	if (!fe_has(fe, FE_P_REPLY_ACK)) {
		fe_send(fe, request, 0, body, size, fds, nfds);
		return;
	}
	r = fe_ack(fe, request, body, size, fds, nfds);
	if (r)
		FAIL("%s: expected ack 0, got %llu", message_name(request), (unsigned long long)r);
}

void fe_set_u64(struct fe *fe, uint32_t request, uint64_t v)
{
	fe_set(fe, request, &v, sizeof(v), NULL, 0);
}

void fe_ask(struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds,
	struct fe_msg *m, int reply_size)
{
	struct fe_msg own;

	fe_send(fe, request, 0, body, size, fds, nfds);
	fe_expect(fe, request, reply_size, m ? m : &own);
}

void fe_barrier(struct fe *fe)
{
	fe_get(fe, FE_GET_FEATURES);
}

void fe_expect_eof(struct fe *fe)
{
	struct fe_msg m;

	if (fe_recv(fe, &m))
		FAIL("expected the back-end to close the connection, got message %u (%s, flags 0x%x, size %u)",
			m.h.request, message_name(m.h.request), m.h.flags, m.h.size);
}

/* --- connecting --- */

void fe_init(struct fe *fe, const struct fe_mode *mode)
{
	memset(fe, 0, sizeof(*fe));
	fe->sock = fe->back = fe->log_fd = fe->inflight_fd = fe->process.log = -1;
	fe->device_mask = UINT64_MAX;
	fe->protocol_mask = ~BIT(FE_P_INBAND);
	if (mode)
		fe->mode = *mode;
}

static void spawn(struct fe *fe, const char *const *args, const char *last, int keep)
{
	const char *all[62];
	unsigned n = 0;

	for (; args[n]; n++) {
		CHECK(n + 3 < ARRAY_SIZE(all));
		all[n] = args[n];
	}
	if (fe->mode.packed)
		all[n++] = "--packed=on";
	all[n++] = last;
	all[n] = NULL;
	fe_process_start(&fe->process, keep, all);
}

void fe_spawn(struct fe *fe, const char *const *args)
{
	char opt[32];
	int sv[2];

	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	snprintf(opt, sizeof(opt), "--fd=%d", sv[1]);
	spawn(fe, args, opt, sv[1]);
	close(sv[1]);
	fe->sock = sv[0];
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	CHECK(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path));
	return a;
}

void fe_connect(struct fe *fe, const char *path)
{
	struct timespec pause = {.tv_nsec = 1000000};
	struct sockaddr_un a = address(path);
	int64_t end = fe_now_ms() + fe_limit_ms;

	fe->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fe->sock >= 0);
	while (connect(fe->sock, (struct sockaddr *)&a, sizeof(a)) < 0) {
		if (errno != ENOENT && errno != ECONNREFUSED)
			FAIL("connect %s: %s", path, strerror(errno));
		if (fe->process.pid && !fe_process_running(&fe->process))
			FAIL("connect %s: the program has ended", path);
		if (fe_now_ms() > end)
			FAIL("connect %s: nobody listens after %d ms", path, fe_limit_ms);
		nanosleep(&pause, NULL);
	}
}

void fe_spawn_path(struct fe *fe, const char *path, const char *const *args)
{
	char opt[160];

	snprintf(opt, sizeof(opt), "--socket-path=%s", path);
	spawn(fe, args, opt, -1);
	fe_connect(fe, path);
}

int fe_listen(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = address(path);

	CHECK(fd >= 0);
	CHECK_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(fd, 4));
	return fd;
}

void fe_accept(struct fe *fe, int listener)
{
	if (!fe_poll(listener, POLLIN, fe_limit_ms))
		FAIL("expected the back-end to connect, nobody came within %d ms", fe_limit_ms);
	fe->sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK(fe->sock >= 0);
}

/* --- handshake --- */

bool fe_has(const struct fe *fe, unsigned bit)
{
	return fe->protocol & BIT(bit);
}

static uint64_t wanted_features(const struct fe *fe)
{
	const uint64_t device_bits = (BIT(24) - 1) | ~(BIT(50) - 1);
	uint64_t want = fe->offered & fe->device_mask & device_bits, need = 0;

	if (!fe->legacy)
		need |= BIT(FE_F_VERSION_1);
	if (!fe->no_protocol)
		need |= BIT(FE_F_PROTOCOL);
	if (fe->mode.indirect && !fe->unacked)
		need |= BIT(FE_F_INDIRECT);
	if (fe->mode.event_idx && !fe->unacked)
		need |= BIT(FE_F_EVENT_IDX);
	if (fe->mode.packed)
		need |= BIT(FE_F_PACKED);
	if (fe->mode.in_order)
		need |= BIT(FE_F_IN_ORDER);
	if (need & ~fe->offered)
		FAIL("features: expected 0x%llx to be offered, got 0x%llx", (unsigned long long)need,
			(unsigned long long)fe->offered);
	return want | need;
}

static void back_channel(struct fe *fe)
{
	int sv[2];

	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	fe_set(fe, FE_SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1);
	close(sv[1]);
	fd_close(&fe->back);
	fe->back = sv[0];
}

void fe_negotiate(struct fe *fe)
{
	fe->offered = fe_get(fe, FE_GET_FEATURES);
	fe->protocol = 0;
	if (!fe->no_protocol && fe->offered & BIT(FE_F_PROTOCOL)) {
		uint64_t p;

		fe->protocol_offered = fe_get(fe, FE_GET_PROTOCOL_FEATURES);
		p = fe->protocol_offered & fe->protocol_mask;
		fe_send(fe, FE_SET_PROTOCOL_FEATURES, 0, &p, sizeof(p), NULL, 0);
		fe->protocol = p;
	}
	if (fe_has(fe, FE_P_MQ))
		fe->queue_num = (unsigned)fe_get(fe, FE_GET_QUEUE_NUM);
	if (fe_has(fe, FE_P_MEM_SLOTS))
		fe->max_slots = fe_get(fe, FE_GET_MAX_MEM_SLOTS);
	if (fe_has(fe, FE_P_BACKEND_REQ))
		back_channel(fe);
	fe_set(fe, FE_SET_OWNER, NULL, 0, NULL, 0);
}

void fe_set_features(struct fe *fe, uint64_t features)
{
	fe->features = features;
	fe_set_u64(fe, FE_SET_FEATURES, features);
}

void fe_handshake(struct fe *fe)
{
	fe_negotiate(fe);
	fe_set_features(fe, wanted_features(fe));
}

void fe_start(struct fe *fe, const struct fe_mode *mode, const char *const *args)
{
	fe_init(fe, mode);
	fe_spawn(fe, args);
	fe_handshake(fe);
	fe_memory_default(fe);
}

void fe_hangup(struct fe *fe)
{
	fd_close(&fe->sock);
	fd_close(&fe->back);
	for (unsigned i = 0; i < fe->nregions; i++)
		fe->regions[i].sent = false;
}

void fe_close(struct fe *fe)
{
	fe_hangup(fe);
	for (unsigned i = 0; i < FE_QUEUES; i++)
		if (fe->queues[i])
			fe_queue_free(fe->queues[i]);
	fe_memory_free(fe);
	if (fe->inflight_ptr)
		munmap(fe->inflight_ptr, fe->inflight.mmap_size);
	fe->inflight_ptr = NULL;
	fd_close(&fe->inflight_fd);
}

void fe_end(struct fe *fe)
{
	fe_close(fe);
	fe_process_exits(&fe->process, 0);
}

/* --- configuration space --- */

void fe_config_get(struct fe *fe, uint32_t offset, void *buf, uint32_t len)
{
	struct fe_wire_config c = {offset, len, 0, {0}}, *got;
	struct fe_msg m;

	CHECK(len <= sizeof(c.data));
	fe_ask(fe, FE_GET_CONFIG, &c, 12 + len, NULL, 0, &m, (int)(12 + len));
	got = (struct fe_wire_config *)m.body;
	CHECK_EQ(got->offset, offset);
	CHECK_EQ(got->size, len);
	memcpy(buf, got->data, len);
}

uint64_t fe_config_set(struct fe *fe, uint32_t offset, const void *buf, uint32_t len, uint32_t flags)
{
	struct fe_wire_config c = {offset, len, flags, {0}};

	CHECK(len <= sizeof(c.data));
	memcpy(c.data, buf, len);
	return fe_ack(fe, FE_SET_CONFIG, &c, 12 + len, NULL, 0);
}

/* --- back-channel --- */

static void back_ack(struct fe *fe, const struct fe_msg *m)
{
	struct {
		struct fe_header h;
		uint64_t v;
	} __attribute__((packed)) ack = {{m->h.request, FE_VERSION | FE_REPLY, 8}, 0};

	if (m->h.flags & FE_NEED_REPLY)
		send_all(fe->back, (const uint8_t *)&ack, sizeof(ack), NULL, 0);
}

static void back_handle(struct fe *fe, struct fe_msg *m)
{
	const struct fe_vring_state *s = (const void *)m->body;

	if ((m->h.flags & ~(uint32_t)FE_NEED_REPLY) != FE_VERSION)
		FAIL("back-channel: message %u with flags 0x%x", m->h.request, m->h.flags);
	switch (m->h.request) {
	case FE_BACK_CONFIG_CHANGE:
		CHECK_EQ(m->h.size, 0);
		fe->config_changes++;
		break;
	case FE_BACK_VRING_CALL:
		CHECK_EQ(m->h.size, 8);
		CHECK(fe_has(fe, FE_P_INBAND));
		CHECK(s->index < FE_QUEUES && fe->queues[s->index]);
		fe->queues[s->index]->calls++;
		break;
	default:
		FAIL("back-channel: unexpected message %u of %u bytes", m->h.request, m->h.size);
	}
	back_ack(fe, m);
}

bool fe_back_serve(struct fe *fe, int ms)
{
	bool any = false;
	struct fe_msg m;

	CHECK(fe->back >= 0);
	for (; fe_poll(fe->back, POLLIN, ms); ms = 0) {
		if (!fe_recv_from(fe->back, &m))
			FAIL("the back-end closed the back-channel");
		back_handle(fe, &m);
		fe_close_fds(m.fds, m.nfds);
		any = true;
	}
	return any;
}

void fe_config_changed(struct fe *fe)
{
	int64_t end = fe_now_ms() + fe_limit_ms;

	while (!fe->config_changes)
		if (!fe_back_serve(fe, (int)MAX(end - fe_now_ms(), 0)))
			FAIL("expected a change of the configuration, none announced within %d ms",
				fe_limit_ms);
	fe->config_changes = 0;
}

/* --- in-flight area --- */

void fe_inflight_get(struct fe *fe, uint16_t num_queues, uint16_t queue_size)
{
	struct fe_wire_inflight w = {.num_queues = num_queues, .queue_size = queue_size};
	struct fe_msg m;

	fe_send(fe, FE_GET_INFLIGHT_FD, 0, &w, sizeof(w), NULL, 0);
	expect_fds(fe, FE_GET_INFLIGHT_FD, sizeof(w), 1, &m);
	memcpy(&fe->inflight, m.body, sizeof(w));
	fd_close(&fe->inflight_fd);
	fe->inflight_fd = m.fds[0];
	CHECK_EQ(fe->inflight.num_queues, num_queues);
	CHECK_EQ(fe->inflight.queue_size, queue_size);
	CHECK(fe->inflight.mmap_size > 0);
	fe->inflight_ptr = mmap(NULL, fe->inflight.mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		fe->inflight_fd, (off_t)fe->inflight.mmap_offset);
	if (fe->inflight_ptr == MAP_FAILED)
		FAIL("mmap of the in-flight area: %s", strerror(errno));
}

void fe_inflight_set(struct fe *fe)
{
	CHECK(fe->inflight_fd >= 0);
	fe_set(fe, FE_SET_INFLIGHT_FD, &fe->inflight, sizeof(fe->inflight), &fe->inflight_fd, 1);
}
