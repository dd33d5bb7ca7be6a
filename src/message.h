/* SPDX-License-Identifier: MIT */
/*
 * vhost-user messages: the wire format, and a codec between a stream socket and whole messages. No protocol
 * state.
 *
 * Header and payload are in host byte order. File descriptors come with any of a message's bytes. A reader
 * collects a message over as many non-blocking reads as it takes; a message that was not consumed gives its
 * fds back on reset.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum message_id { /* front-end to back-end */
	MESSAGE_GET_FEATURES = 1,
	MESSAGE_SET_FEATURES,
	MESSAGE_SET_OWNER,
	MESSAGE_RESET_OWNER,
	MESSAGE_SET_MEM_TABLE,
	MESSAGE_SET_LOG_BASE,
	MESSAGE_SET_LOG_FD,
	MESSAGE_SET_VRING_NUM,
	MESSAGE_SET_VRING_ADDR,
	MESSAGE_SET_VRING_BASE,
	MESSAGE_GET_VRING_BASE,
	MESSAGE_SET_VRING_KICK,
	MESSAGE_SET_VRING_CALL,
	MESSAGE_SET_VRING_ERR,
	MESSAGE_GET_PROTOCOL_FEATURES,
	MESSAGE_SET_PROTOCOL_FEATURES,
	MESSAGE_GET_QUEUE_NUM,
	MESSAGE_SET_VRING_ENABLE,
	MESSAGE_SEND_RARP,
	MESSAGE_NET_SET_MTU,
	MESSAGE_SET_BACKEND_REQ_FD,
	MESSAGE_IOTLB_MSG,
	MESSAGE_SET_VRING_ENDIAN,
	MESSAGE_GET_CONFIG,
	MESSAGE_SET_CONFIG,
	MESSAGE_CREATE_CRYPTO_SESSION,
	MESSAGE_CLOSE_CRYPTO_SESSION,
	MESSAGE_POSTCOPY_ADVISE,
	MESSAGE_POSTCOPY_LISTEN,
	MESSAGE_POSTCOPY_END,
	MESSAGE_GET_INFLIGHT_FD,
	MESSAGE_SET_INFLIGHT_FD,
	MESSAGE_GPU_SET_SOCKET,
	MESSAGE_RESET_DEVICE,
	MESSAGE_VRING_KICK,
	MESSAGE_GET_MAX_MEM_SLOTS,
	MESSAGE_ADD_MEM_REG,
	MESSAGE_REM_MEM_REG,
	MESSAGE_SET_STATUS,
	MESSAGE_GET_STATUS,
	MESSAGE_GET_SHARED_OBJECT,
	MESSAGE_SET_DEVICE_STATE_FD,
	MESSAGE_CHECK_DEVICE_STATE,
	MESSAGE_LAST = MESSAGE_CHECK_DEVICE_STATE,
};

enum backchannel_id { /* back-end to front-end */
	BACKCHANNEL_IOTLB_MSG = 1,
	BACKCHANNEL_CONFIG_CHANGE = 2,
	BACKCHANNEL_VRING_HOST_NOTIFIER = 3,
	BACKCHANNEL_VRING_CALL = 4,
	BACKCHANNEL_VRING_ERR = 5,
};

enum { /* bit numbers of protocol features */
	PROTOCOL_MQ = 0,
	PROTOCOL_LOG_SHMFD = 1,
	PROTOCOL_RARP = 2,
	PROTOCOL_REPLY_ACK = 3,
	PROTOCOL_MTU = 4,
	PROTOCOL_BACKEND_REQ = 5,
	PROTOCOL_CRYPTO_SESSION = 7,
	PROTOCOL_PAGEFAULT = 8,
	PROTOCOL_CONFIG = 9,
	PROTOCOL_INFLIGHT_SHMFD = 12,
	PROTOCOL_RESET_DEVICE = 13,
	PROTOCOL_INBAND_NOTIFICATIONS = 14,
	PROTOCOL_CONFIGURE_MEM_SLOTS = 15,
	PROTOCOL_STATUS = 16,
	PROTOCOL_DEVICE_STATE = 19,
};

enum {
	MESSAGE_VERSION = 0x1,
	MESSAGE_VERSION_MASK = 0x3,
	MESSAGE_REPLY = 0x4,
	MESSAGE_NEED_REPLY = 0x8,
};

enum {
	MESSAGE_MAX_PAYLOAD = 4096 + 256,
	MESSAGE_MAX_FDS = 8,
};

struct message_header {
	uint32_t request, flags, size;
};

struct vring_state {
	uint32_t index, num;
};

struct vring_addr {
	uint32_t index, flags; /* flags bit 0: log writes to the used ring */
	uint64_t desc, used, avail, log;
};

struct mem_region {
	uint64_t gpa, size, uaddr, mmap_offset;
};

struct mem_table {
	uint32_t n, pad;
	struct mem_region region[MESSAGE_MAX_FDS];
};

struct mem_reg_msg {
	uint64_t pad;
	struct mem_region region;
};

struct log_msg {
	uint64_t size, offset;
};

struct config_msg {
	uint32_t offset, size, flags;
	uint8_t data[MESSAGE_MAX_PAYLOAD - 12];
};

struct inflight_msg {
	uint64_t mmap_size, mmap_offset;
	uint16_t num_queues, queue_size;
	uint32_t pad;
};

struct device_state_msg {
	uint32_t direction, phase;
};

struct message {
	struct message_header h;
	unsigned nfds;
	int fd[MESSAGE_MAX_FDS];
	bool too_many_fds; /* more came than MESSAGE_MAX_FDS, or the kernel cut the list; the surplus is
			      closed */
	union {
		uint8_t bytes[MESSAGE_MAX_PAYLOAD];
		uint64_t u64;
		struct vring_state state;
		struct vring_addr addr;
		struct mem_table table;
		struct mem_reg_msg mem_reg;
		struct log_msg log;
		struct config_msg config;
		struct inflight_msg inflight;
		struct device_state_msg device_state;
	};
};

struct message_reader {
	struct message m;
	size_t got; /* bytes of header and payload so far */
};

/*
 * Goes on reading. 1: r->m is a whole message. -EAGAIN: not yet. 0: end of file between two messages. -errno:
 * the stream is broken (-EPROTO within a message or version wrong, -EMSGSIZE payload too large, or from
 * recvmsg).
 */
int message_read(struct message_reader *r, int sock);
/* Forgets the message that was read and closes the fds nobody took. */
void message_reset(struct message_reader *r);
/* Takes the first fd of the message out of it; -1: none (left). */
int message_take_fd(struct message *m);

/* "SET_VRING_NUM", or "message 77"-like text in a static buffer for unknown ids. */
const char *message_name(uint32_t request);

/*
 * Writes one message with at most one fd (-1: none) to a non-blocking socket. Returns bytes written (may be
 * fewer than the message on a full socket: the rest is the caller's, the fd went with the first byte), or
 * -errno.
 */
ssize_t message_send(int sock, const struct message_header *h, const void *payload, int fd);

#endif
