/* SPDX-License-Identifier: MIT */
/*
 * The host's end of a network device: where frames go to and come from.
 *
 * A host end has lanes, each with a queue pair that uses it: pair i uses lane i % lanes. With as many lanes as pairs each
 * lane may be used in a thread of its own; a host end with fewer is used in the control loop only.
 *
 * Sending is a batch of frames that the host takes, or a part of: all is copied or gone when send() returns. Receiving is
 * one of two: a host that can be read has recv(), which puts a frame where it belongs, in guest memory; others have frames
 * of their own memory that they give to net_receive(), until that says no: then room() is called when it is worth trying.
 */
#ifndef NET_HOST_H
#define NET_HOST_H

#include "net.h"

struct net_host;

struct net_host_ops {
	void (*close)(struct net_host *h);
	/* Takes the first of n frames; fewer than n: calls net_tx_room() later. */
	unsigned (*send)(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n);
	/*
	 * One frame: v[0] is for the header (NET_HDR bytes), v[1..n) for the bytes. The value is NET_HDR + the frame's length, -EAGAIN, or
	 * another -errno: the host end is gone and has said so.
	 */
	ssize_t (*recv)(struct net_host *h, unsigned lane, struct iovec *v, unsigned n);
	/* Frames may be received again (on: call net_rx_wake() when one is there; level-triggered), or not. In the lane's loop. */
	void (*listen)(struct net_host *h, unsigned lane, struct loop *loop, bool on);
	/* The lane's receive queue came into use or went out of it; may be NULL. */
	void (*use)(struct net_host *h, unsigned lane, bool on);
	/* Of a host without recv(): net_receive() may have room again. */
	void (*room)(struct net_host *h);
	/* Which GUEST_* offloads frames may now need; may be NULL. */
	void (*accept)(struct net_host *h, uint64_t offloads);
	/* Adds members to the object that describes the host end; may be NULL. */
	void (*describe)(struct net_host *h, struct json *out);
};

struct net_host {
	const struct net_host_ops *ops;
	struct net *net;
	struct loop *loop; /* the control loop */
	const char *kind;  /* "tap" */
	unsigned lanes;
	uint64_t takes; /* HOST_* offloads that frames sent may need, and CSUM */
	uint64_t gives; /* GUEST_* offloads that frames received may need */
};

/* What a host end calls; in the lane's loop, the last one in the control loop. */
void net_rx_wake(struct net_host *h, unsigned lane);
void net_tx_room(struct net_host *h, unsigned lane);
/* How many of n frames are taken, or dropped for good. */
unsigned net_receive(struct net_host *h, const struct net_packet *p, unsigned n);
/* The same of frames that the turn of another guest brings, in the same loop; they are in the capture already. */
unsigned net_deliver(struct net_host *h, const struct net_packet *p, unsigned n);
void net_link(struct net_host *h, bool up);

/* Opening: -errno, logged with the option's name. */
int net_tap_open(struct net_host **out, struct net *net);
int net_user_open(struct net_host **out, struct net *net);
int net_stream_open(struct net_host **out, struct net *net);
int net_dgram_open(struct net_host **out, struct net *net);
int net_packet_open(struct net_host **out, struct net *net);
int net_switch_open(struct net_host **out, struct net *net);

#endif
