/* SPDX-License-Identifier: MIT */
/* The guests of the switch's tests: their queues, and frames that say who they are from and to. */
#ifndef NET_GUEST_H
#define NET_GUEST_H

#include "frontend.h"

#include <linux/virtio_net.h>

enum { RING = 256, BUFFER = 2048, HDR = 12, F_HASH_REPORT = 57, F_RSS = 60 };

/* Features without those that change the queues' number and the header's size. */
#define PLAIN ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

struct guest {
	struct fe fe;
	struct fe_queue *rx, *tx;
	unsigned id;	/* in its address */
	char path[128]; /* of its socket, if it has one */
};

/* With a connection: features, memory, queues. */
void guest_up(struct guest *g);
/* n receive buffers. */
void give(struct guest *g, unsigned n);
/* A frame of len bytes; to: a guest's id, 0: all. Returns len. */
size_t make(uint8_t *p, unsigned to, unsigned from, size_t len, unsigned seed);
/* Offers such a frame. In two pieces where the seed says so; the first ends within the addresses. */
void put(struct guest *g, unsigned to, size_t len, unsigned seed);
/* The same, and waits until it is taken. */
void send_one(struct guest *g, unsigned to, size_t len, unsigned seed);
/* No frame comes for a while. */
void gets_nothing(struct guest *g);
/* Is the link up, as the configuration space says? */
bool linked(struct guest *g);

#endif
