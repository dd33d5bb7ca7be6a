/* SPDX-License-Identifier: MIT */
/* The network device over Unix datagrams, with the test at the other end and as the guest: what several tests share. */
#ifndef TESTS_NET_CARD_H
#define TESTS_NET_CARD_H

#include <linux/virtio_net.h>
#include <sys/un.h>

#include "frontend.h"

enum {
	RING = 256,
	BUFFER = 1536,
	RINGS = 3,
	HASHED = 20,
	F_HASH_REPORT = 57,
	F_RSS = 60,
	F_COAL = 53,
	F_USO = 56
};

#define PLAIN ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

/* The other end */

struct peer {
	int fd;
	struct sockaddr_un device;
	char path[100], option[2][128];
};

void peer_open(struct peer *p);
void peer_send(struct peer *p, const void *frame, size_t len);
/* The next frame; 0: none came within ms. */
size_t peer_recv_ms(struct peer *p, void *buf, size_t size, int ms);
size_t peer_recv(struct peer *p, void *buf, size_t size);

/* The guest */

struct card {
	struct fe fe;
	struct peer peer;
	struct fe_queue *rx, *tx, *ctrl;
	size_t hdr;
};

#define CARD_ARGS(c, ...) \
	FE_ARGS("net", (c)->peer.option[0], (c)->peer.option[1], "--mac=52:54:00:00:00:01", __VA_ARGS__)

void card_queues(struct card *c, unsigned pairs);
void card_start_with(
	struct card *c, const struct fe_mode *m, uint64_t mask, unsigned pairs, const char *const *args);
void card_start(struct card *c, const struct fe_mode *m, uint64_t mask);
void card_end(struct card *c);

/* Gives the queue a buffer to write to, and returns it. */
void *give(struct fe_queue *q, size_t len);
void fill(uint8_t *p, size_t n, unsigned seed);
/* A frame for the card, with bytes that depend on seed. */
void make_frame(uint8_t *p, size_t len, unsigned seed);
/* Sends a frame that lies behind its header, in n pieces. */
void transmit(struct card *c, uint8_t *p, size_t len, unsigned n);
/* Waits for a frame in the receive queue; its bytes, from as many buffers as it has, into out. */
size_t receive_hdr(struct card *c, struct fe_queue *q, uint8_t *out, struct virtio_net_hdr_v1_hash *hdr);
size_t receive(struct card *c, uint8_t *out);

/* One of several sizes that are worth a try. */
size_t frame_size(unsigned i);
/* Frames of many sizes, each looked at on the other side. buffer: bytes in each that is given. */
void send_works(struct card *c, unsigned rounds);
void receive_works(struct card *c, unsigned rounds, size_t buffer);

/* The sum of an Internet checksum, folded. */
uint32_t add(uint32_t sum, const uint8_t *p, size_t n);
/* TCP or UDP with n bytes of data; the value is the frame's length. The checksum is left to be done by offload. */
size_t make_ip(uint8_t *p, bool v6, uint8_t proto, size_t n);

#endif
