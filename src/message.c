/* SPDX-License-Identifier: MIT */
/* Codec of vhost-user messages; see message.h. */
#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "util.h"

/* SCM_RIGHTS carries at most this many; room for all of them, so that none is lost unclosed. */
enum { KERNEL_MAX_FDS = 253 };

static const char *const names[] = {
	[MESSAGE_GET_FEATURES] = "GET_FEATURES",
	[MESSAGE_SET_FEATURES] = "SET_FEATURES",
	[MESSAGE_SET_OWNER] = "SET_OWNER",
	[MESSAGE_RESET_OWNER] = "RESET_OWNER",
	[MESSAGE_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[MESSAGE_SET_LOG_BASE] = "SET_LOG_BASE",
	[MESSAGE_SET_LOG_FD] = "SET_LOG_FD",
	[MESSAGE_SET_VRING_NUM] = "SET_VRING_NUM",
	[MESSAGE_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[MESSAGE_SET_VRING_BASE] = "SET_VRING_BASE",
	[MESSAGE_GET_VRING_BASE] = "GET_VRING_BASE",
	[MESSAGE_SET_VRING_KICK] = "SET_VRING_KICK",
	[MESSAGE_SET_VRING_CALL] = "SET_VRING_CALL",
	[MESSAGE_SET_VRING_ERR] = "SET_VRING_ERR",
	[MESSAGE_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[MESSAGE_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[MESSAGE_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
	[MESSAGE_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[MESSAGE_SEND_RARP] = "SEND_RARP",
	[MESSAGE_NET_SET_MTU] = "NET_SET_MTU",
	[MESSAGE_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
	[MESSAGE_IOTLB_MSG] = "IOTLB_MSG",
	[MESSAGE_SET_VRING_ENDIAN] = "SET_VRING_ENDIAN",
	[MESSAGE_GET_CONFIG] = "GET_CONFIG",
	[MESSAGE_SET_CONFIG] = "SET_CONFIG",
	[MESSAGE_CREATE_CRYPTO_SESSION] = "CREATE_CRYPTO_SESSION",
	[MESSAGE_CLOSE_CRYPTO_SESSION] = "CLOSE_CRYPTO_SESSION",
	[MESSAGE_POSTCOPY_ADVISE] = "POSTCOPY_ADVISE",
	[MESSAGE_POSTCOPY_LISTEN] = "POSTCOPY_LISTEN",
	[MESSAGE_POSTCOPY_END] = "POSTCOPY_END",
	[MESSAGE_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
	[MESSAGE_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
	[MESSAGE_GPU_SET_SOCKET] = "GPU_SET_SOCKET",
	[MESSAGE_RESET_DEVICE] = "RESET_DEVICE",
	[MESSAGE_VRING_KICK] = "VRING_KICK",
	[MESSAGE_GET_MAX_MEM_SLOTS] = "GET_MAX_MEM_SLOTS",
	[MESSAGE_ADD_MEM_REG] = "ADD_MEM_REG",
	[MESSAGE_REM_MEM_REG] = "REM_MEM_REG",
	[MESSAGE_SET_STATUS] = "SET_STATUS",
	[MESSAGE_GET_STATUS] = "GET_STATUS",
	[MESSAGE_GET_SHARED_OBJECT] = "GET_SHARED_OBJECT",
	[MESSAGE_SET_DEVICE_STATE_FD] = "SET_DEVICE_STATE_FD",
	[MESSAGE_CHECK_DEVICE_STATE] = "CHECK_DEVICE_STATE",
};

const char *message_name(uint32_t request)
{
	static char unknown[24];

	if (request < ARRAY_SIZE(names) && names[request])
		return names[request];
	snprintf(unknown, sizeof(unknown), "message %u", request);
	return unknown;
}

static void fds_collect(struct message *m, struct msghdr *msg)
{
	struct cmsghdr *c;

	if (msg->msg_flags & MSG_CTRUNC)
		m->too_many_fds = true;
	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t i, n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (m->nfds < MESSAGE_MAX_FDS) {
				m->fd[m->nfds++] = fd;
				continue;
			}
			m->too_many_fds = true;
			fd_close(&fd);
		}
	}
}

/* One recvmsg of what is missing up to `want` bytes: > 0, 0 at end of file, -errno. */
static ssize_t read_some(struct message_reader *r, int sock, size_t want)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * KERNEL_MAX_FDS)];
	} control;
	bool in_header = r->got < sizeof(r->m.h);
	char *dst = in_header ? (char *)&r->m.h + r->got : (char *)r->m.bytes + (r->got - sizeof(r->m.h));
	struct iovec iov = {.iov_base = dst, .iov_len = want - r->got};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	fds_collect(&r->m, &msg);
	r->got += (size_t)n;
	return n;
}

int message_read(struct message_reader *r, int sock)
{
	for (;;) {
		size_t want = sizeof(r->m.h);
		ssize_t n;

		if (r->got >= sizeof(r->m.h)) {
			if ((r->m.h.flags & MESSAGE_VERSION_MASK) != MESSAGE_VERSION)
				return -EPROTO;
			if (r->m.h.size > sizeof(r->m.bytes))
				return -EMSGSIZE;
			want += r->m.h.size;
			if (r->got == want)
				return 1;
		}
		n = read_some(r, sock, want);
		if (n < 0)
			return (int)n;
		if (!n)
			return r->got ? -EPROTO : 0;
	}
}

void message_reset(struct message_reader *r)
{
	unsigned i;

	for (i = 0; i < r->m.nfds; i++)
		fd_close(&r->m.fd[i]);
	r->m.nfds = 0;
	r->m.too_many_fds = false;
	r->got = 0;
}

int message_take_fd(struct message *m)
{
	unsigned i;

	for (i = 0; i < m->nfds; i++)
		if (m->fd[i] >= 0)
			return fd_take(&m->fd[i]);
	return -1;
}

ssize_t message_send(int sock, const struct message_header *h, const void *payload, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov[2] = {{.iov_base = (void *)h, .iov_len = sizeof(*h)},
		{.iov_base = (void *)payload, .iov_len = h->size}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = h->size ? 2 : 1};
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}
