/* SPDX-License-Identifier: MIT */
/* A guest's driver of the socket device, and programs of the host, for the tests: both ends of every connection are here. */
#ifndef TESTS_VSOCK_GUEST_H
#define TESTS_VSOCK_GUEST_H

#include "frontend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { CID = 7, HOST = 2, RX = 64, RX_LEN = 1024, TX_MAX = 8192, BUFFER = 64 << 10 };
enum { STREAM = VIRTIO_VSOCK_TYPE_STREAM, SEQ = VIRTIO_VSOCK_TYPE_SEQPACKET };
enum { RCV = VIRTIO_VSOCK_SHUTDOWN_RCV, SEND = VIRTIO_VSOCK_SHUTDOWN_SEND };

struct guest {
	struct fe fe;
	struct fe_queue *rx, *tx, *event;
	uint8_t *tx_buf;
	uint64_t cid;
	char dir[128], uds[160];
	/* the last packet that came */
	struct virtio_vsock_hdr h;
	uint8_t data[RX_LEN];
	size_t len;
};

/* The guest's end of one connection. */
struct flow {
	struct guest *g;
	uint64_t peer_cid;
	uint32_t peer_port, port;
	uint16_t type;
	uint32_t alloc, fwd;		   /* ours */
	uint32_t tx, peer_alloc, peer_fwd; /* theirs */
};

/* Gives the back-end a receive buffer. */
void give(struct guest *g, uint8_t *p);
/* What the last packet said about the other side's buffers. */
void take_credit(struct flow *f);
void queues_up(struct guest *g);
void paths(struct guest *g);
void guest_up(struct guest *g, const struct fe_mode *m, const char *extra);
void packet_raw(
	struct guest *g, const struct virtio_vsock_hdr *h, const void *data, size_t len, unsigned pieces);
void packet(struct flow *f, uint16_t op, uint32_t flags, const void *data, size_t len);
/* The next packet from the back-end; false: none within ms, or none until that sleeps. */
enum { ASLEEP = -1 };
bool receive(struct guest *g, int ms);
/* The next packet, whose operation must be op; updates of credit are taken on the way. */
void expect(struct flow *f, uint16_t op);
struct flow flow_of(struct guest *g, uint16_t type, uint32_t port, uint32_t peer_port);
int host_socket(const char *path, int type, bool listens);
int host_listens(struct guest *g, unsigned port, int type);
int host_accepts(int listener);
void host_reads(int fd, void *buf, size_t len);
void host_at_end(int fd);
/* A line; nothing behind it is taken. */
void host_reads_line(int fd, char *line, size_t size);
void host_writes(int fd, const void *data, size_t len);
uint8_t byte_at(size_t i);
void pattern(uint8_t *p, size_t at, size_t n);
/* Connects from the guest; both ends are up afterwards. */
int guest_connects(struct flow *f, int listener);

#endif
