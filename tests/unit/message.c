/* SPDX-License-Identifier: MIT */
/* The codec: messages that come in pieces, with descriptors at any byte, too many of them, cut off, wrong; and sending. */
#include "message.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "leaks.h"
#include "tap.h"
#include "util.h"

enum { HEADER = sizeof(struct message_header), SCM_MOST = 253 };

struct link {
	int front, back;
	struct message_reader in;
	unsigned fds; /* open at the start */
};

static void link_open(struct link *l)
{
	int s[2];

	memset(l, 0, sizeof(*l));
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	l->front = s[0];
	l->back = s[1];
	l->fds = open_fds();
}

/* Nothing is left open. */
static void link_close(struct link *l)
{
	message_reset(&l->in);
	CHECK_EQ(open_fds(), l->fds);
	close(l->front);
	close(l->back);
}

/* Bytes with n copies of stdin's descriptor. */
static void send_bytes(int sock, const void *p, size_t len, unsigned n)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * SCM_MOST)];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)p, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n);
		for (unsigned i = 0; i < n; i++) {
			int fd = 0;

			memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(int));
		}
	}
	CHECK_EQ(sendmsg(sock, &msg, 0), len);
}

static size_t build(uint8_t *out, uint32_t request, uint32_t flags, uint32_t size)
{
	struct message_header h = {.request = request, .flags = flags, .size = size};

	memcpy(out, &h, HEADER);
	for (uint32_t i = 0; i < size; i++)
		out[HEADER + i] = (uint8_t)(i * 7 + request);
	return HEADER + size;
}

static void check_message(const struct message *m, uint32_t request, uint32_t size)
{
	CHECK_EQ(m->h.request, request);
	CHECK_EQ(m->h.flags, MESSAGE_VERSION);
	CHECK_EQ(m->h.size, size);
	for (uint32_t i = 0; i < size; i++)
		CHECK_EQ(m->bytes[i], (uint8_t)(i * 7 + request));
}

/* Every message arrives in two pieces, cut at every place. */
static void in_pieces(void *arg)
{
	uint8_t buf[64];
	struct link l;
	size_t cut, n;

	(void)arg;
	link_open(&l);
	CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
	n = build(buf, 7, MESSAGE_VERSION, 40);
	for (cut = 1; cut < n; cut++) {
		send_bytes(l.front, buf, cut, 0);
		CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
		send_bytes(l.front, buf + cut, n - cut, 0);
		CHECK_EQ(message_read(&l.in, l.back), 1);
		check_message(&l.in.m, 7, 40);
		message_reset(&l.in);
	}
	link_close(&l);
}

static void byte_by_byte(void *arg)
{
	uint8_t buf[HEADER + 300];
	struct link l;
	uint32_t size;

	(void)arg;
	link_open(&l);
	for (size = 0; size <= 300; size += 60) {
		size_t n = build(buf, 5, MESSAGE_VERSION, size), i;

		for (i = 0; i < n; i++) {
			CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
			send_bytes(l.front, buf + i, 1, 0);
		}
		CHECK_EQ(message_read(&l.in, l.back), 1);
		CHECK_EQ(message_read(&l.in, l.back), 1); /* and stays until the reset */
		check_message(&l.in.m, 5, size);
		message_reset(&l.in);
	}
	CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
	link_close(&l);
}

/* Several in the socket: one at a time, each with its own descriptors. */
static void in_a_row(void *arg)
{
	uint8_t buf[128];
	struct link l;
	unsigned i;

	(void)arg;
	link_open(&l);
	for (i = 0; i < 10; i++)
		send_bytes(l.front, buf, build(buf, i, MESSAGE_VERSION, i * 4), i % 4);
	for (i = 0; i < 10; i++) {
		CHECK_EQ(message_read(&l.in, l.back), 1);
		check_message(&l.in.m, i, i * 4);
		CHECK_EQ(l.in.m.nfds, i % 4);
		CHECK(!l.in.m.too_many_fds);
		message_reset(&l.in);
	}
	CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
	link_close(&l);
}

/* Descriptors come with any byte: the first, one in between, the last, several. */
static void with_descriptors(void *arg)
{
	uint8_t buf[64];
	size_t n = build(buf, 12, MESSAGE_VERSION, 8), at;
	struct link l;

	(void)arg;
	link_open(&l);
	for (at = 0; at < n; at++) {
		int fd;

		if (at)
			send_bytes(l.front, buf, at, 0);
		send_bytes(l.front, buf + at, 1, 2);
		if (at + 1 < n)
			send_bytes(l.front, buf + at + 1, n - at - 1, at % 2);
		CHECK_EQ(message_read(&l.in, l.back), 1);
		check_message(&l.in.m, 12, 8);
		CHECK_EQ(l.in.m.nfds, at + 1 < n ? 2 + at % 2 : 2);
		CHECK(!l.in.m.too_many_fds);
		CHECK_SYS(fd = message_take_fd(&l.in.m));
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		message_reset(&l.in);
		CHECK_SYS(fcntl(fd, F_GETFD)); /* ours now */
		close(fd);
		CHECK_EQ(open_fds(), l.fds);
	}
	link_close(&l);
}

static void take_all(void *arg)
{
	uint8_t buf[64];
	struct link l;
	unsigned i;

	(void)arg;
	link_open(&l);
	send_bytes(l.front, buf, build(buf, 5, MESSAGE_VERSION, 8), MESSAGE_MAX_FDS);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	CHECK_EQ(l.in.m.nfds, MESSAGE_MAX_FDS);
	for (i = 0; i < MESSAGE_MAX_FDS; i++) {
		int fd = message_take_fd(&l.in.m);

		CHECK_SYS(fd);
		close(fd);
	}
	CHECK_EQ(message_take_fd(&l.in.m), -1);
	message_reset(&l.in);
	message_reset(&l.in);
	link_close(&l);
}

static void too_many(void *arg)
{
	static const unsigned counts[] = {9, 64, SCM_MOST};
	uint8_t buf[64];
	struct link l;
	unsigned i;

	(void)arg;
	link_open(&l);
	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		send_bytes(l.front, buf, build(buf, 5, MESSAGE_VERSION, 8), counts[i]);
		CHECK_EQ(message_read(&l.in, l.back), 1);
		check_message(&l.in.m, 5, 8);
		CHECK(l.in.m.too_many_fds);
		CHECK_EQ(l.in.m.nfds, MESSAGE_MAX_FDS);
		CHECK_EQ(open_fds(), l.fds + MESSAGE_MAX_FDS);
		message_reset(&l.in);
		CHECK_EQ(open_fds(), l.fds);
		CHECK(!l.in.m.too_many_fds);
	}
	/* with every byte some */
	build(buf, 5, MESSAGE_VERSION, 8);
	for (i = 0; i < HEADER + 8; i++)
		send_bytes(l.front, buf + i, 1, 3);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	CHECK(l.in.m.too_many_fds);
	message_reset(&l.in);
	/* the next one is not blamed */
	send_bytes(l.front, buf, build(buf, 6, MESSAGE_VERSION, 8), 1);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	CHECK(!l.in.m.too_many_fds);
	CHECK_EQ(l.in.m.nfds, 1);
	link_close(&l);
}

/* The process has no room for the descriptors: the kernel says that it cut the list. */
static void cut_list(void *arg)
{
	struct rlimit old, few;
	uint8_t buf[64];
	struct link l;

	(void)arg;
	link_open(&l);
	send_bytes(l.front, buf, build(buf, 5, MESSAGE_VERSION, 8), 8);
	CHECK_SYS(getrlimit(RLIMIT_NOFILE, &old));
	few = old;
	few.rlim_cur = (rlim_t)l.back + 3;
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &few));
	CHECK_EQ(message_read(&l.in, l.back), 1);
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &old));
	CHECK(l.in.m.too_many_fds);
	CHECK(l.in.m.nfds < 8);
	link_close(&l);
}

static void end_of_file(void *arg)
{
	uint8_t buf[64];
	size_t n = build(buf, 5, MESSAGE_VERSION, 8), cut;

	(void)arg;
	for (cut = 0; cut <= n; cut++) {
		struct link l;

		link_open(&l);
		if (cut)
			send_bytes(l.front, buf, cut, cut % 3);
		CHECK_EQ(shutdown(l.front, SHUT_WR), 0);
		if (cut == n) {
			CHECK_EQ(message_read(&l.in, l.back), 1);
			message_reset(&l.in);
			CHECK_EQ(message_read(&l.in, l.back), 0);
		} else {
			CHECK_EQ(message_read(&l.in, l.back), cut ? -EPROTO : 0);
		}
		link_close(&l);
	}
}

static void bad_headers(void *arg)
{
	static const struct {
		uint32_t flags, size;
		int result;
	} cases[] = {
		{0, 0, -EPROTO},
		{2, 0, -EPROTO},
		{3, 0, -EPROTO},
		{~1u, 0, -EPROTO},
		{~3u | 1, 0, 1},
		{1, MESSAGE_MAX_PAYLOAD, 1},
		{1, MESSAGE_MAX_PAYLOAD + 1, -EMSGSIZE},
		{1, UINT32_MAX, -EMSGSIZE},
		{1, 1u << 31, -EMSGSIZE},
	};
	static uint8_t payload[MESSAGE_MAX_PAYLOAD];
	unsigned i;

	(void)arg;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message_header h = {.request = 1, .flags = cases[i].flags, .size = cases[i].size};
		struct link l;

		link_open(&l);
		send_bytes(l.front, &h, sizeof(h), 2);
		if (cases[i].result == 1 && cases[i].size) {
			CHECK_EQ(message_read(&l.in, l.back), -EAGAIN);
			send_bytes(l.front, payload, sizeof(payload), 0);
		}
		CHECK_EQ(message_read(&l.in, l.back), cases[i].result);
		link_close(&l);
	}
}

/* A packet socket loses what a short read leaves; a directory is no socket: errors, not loops. */
static void bad_sockets(void *arg)
{
	struct message_reader in = {0};
	int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)arg;
	CHECK_EQ(message_read(&in, dir), -ENOTSOCK);
	CHECK_EQ(message_read(&in, -1), -EBADF);
}

/* --- sending --- */

static void sends(void *arg)
{
	struct message_header h = {.request = 24, .flags = MESSAGE_VERSION, .size = 100};
	uint8_t payload[100];
	struct link l;
	unsigned i;

	(void)arg;
	link_open(&l);
	for (i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 7 + 24);
	CHECK_EQ(message_send(l.front, &h, payload, -1), HEADER + 100);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	check_message(&l.in.m, 24, 100);
	CHECK_EQ(l.in.m.nfds, 0);
	message_reset(&l.in);
	CHECK_EQ(message_send(l.front, &h, payload, 0), HEADER + 100);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	check_message(&l.in.m, 24, 100);
	CHECK_EQ(l.in.m.nfds, 1);
	message_reset(&l.in);
	h.size = 0;
	CHECK_EQ(message_send(l.front, &h, NULL, -1), HEADER);
	CHECK_EQ(message_read(&l.in, l.back), 1);
	check_message(&l.in.m, 24, 0);
	link_close(&l);
}

/* A full socket takes a part, or nothing; a peer that went is an error and no signal. */
static void sends_in_part(void *arg)
{
	struct message_header h = {.request = 1, .flags = MESSAGE_VERSION, .size = MESSAGE_MAX_PAYLOAD};
	static uint8_t payload[MESSAGE_MAX_PAYLOAD], got[1 << 20];
	size_t sent = 0, read_back = 0;
	int small = 1;
	struct link l;
	ssize_t n;

	(void)arg;
	signal(SIGPIPE, SIG_DFL);
	link_open(&l);
	CHECK_EQ(setsockopt(l.front, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	while ((n = message_send(l.front, &h, payload, -1)) > 0)
		sent += (size_t)n;
	CHECK_EQ(n, -EAGAIN);
	CHECK(sent > 0 && sent < sizeof(got));
	while ((n = recv(l.back, got, sizeof(got), MSG_DONTWAIT)) > 0)
		read_back += (size_t)n;
	CHECK_EQ(read_back, sent);
	CHECK_EQ(message_send(l.front, &h, payload, 12345), -EBADF);
	close(l.back);
	CHECK_EQ(message_send(l.front, &h, payload, -1), -EPIPE);
	l.back = dup(l.front);
	link_close(&l);
}

static void names(void *arg)
{
	(void)arg;
	CHECK_STR(message_name(MESSAGE_GET_FEATURES), "GET_FEATURES");
	CHECK_STR(message_name(MESSAGE_SET_VRING_ENABLE), "SET_VRING_ENABLE");
	CHECK_STR(message_name(MESSAGE_CHECK_DEVICE_STATE), "CHECK_DEVICE_STATE");
	CHECK_STR(message_name(0), "message 0");
	CHECK_STR(message_name(MESSAGE_LAST + 1), "message 44");
	CHECK_STR(message_name(UINT32_MAX), "message 4294967295");
	for (uint32_t i = 1; i <= MESSAGE_LAST; i++)
		CHECK(strncmp(message_name(i), "message", 7) != 0);
}

/* What the protocol says, byte by byte. */
static void layout(void *arg)
{
	(void)arg;
	CHECK_EQ(HEADER, 12);
	CHECK_EQ(sizeof(struct vring_state), 8);
	CHECK_EQ(sizeof(struct vring_addr), 40);
	CHECK_EQ(sizeof(struct mem_region), 32);
	CHECK_EQ(offsetof(struct mem_table, region), 8);
	CHECK_EQ(sizeof(struct mem_reg_msg), 40);
	CHECK_EQ(sizeof(struct log_msg), 16);
	CHECK_EQ(offsetof(struct config_msg, data), 12);
	CHECK_EQ(sizeof(struct inflight_msg), 24);
	CHECK_EQ(sizeof(struct device_state_msg), 8);
	CHECK_EQ(MESSAGE_SET_VRING_ENABLE, 18);
	CHECK_EQ(MESSAGE_GET_INFLIGHT_FD, 31);
	CHECK_EQ(MESSAGE_ADD_MEM_REG, 37);
	CHECK_EQ(MESSAGE_CHECK_DEVICE_STATE, 43);
	CHECK_EQ(offsetof(struct message, bytes) % 8, 0);
}

int main(void)
{
	tap_case("two pieces", in_pieces, NULL);
	tap_case("byte by byte", byte_by_byte, NULL);
	tap_case("several in a row", in_a_row, NULL);
	tap_case("descriptors with any byte", with_descriptors, NULL);
	tap_case("taking descriptors", take_all, NULL);
	tap_case("too many descriptors", too_many, NULL);
	tap_case("a list that the kernel cut", cut_list, NULL);
	tap_case("end of file", end_of_file, NULL);
	tap_case("headers", bad_headers, NULL);
	tap_case("no sockets", bad_sockets, NULL);
	tap_case("sending", sends, NULL);
	tap_case("sending in part", sends_in_part, NULL);
	tap_case("names", names, NULL);
	tap_case("layout", layout, NULL);
	return tap_done();
}
