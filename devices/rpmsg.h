/* SPDX-License-Identifier: MIT */
/*
 * The parts of rpmsg: rpmsg.c is the device, its options and commands, rpmsg-service.c one service: an address of ours that the
 * guest's endpoints talk to.
 */
#ifndef RPMSG_H
#define RPMSG_H

#include "device.h"
#include "port.h"

enum {
	RPMSG_NS_ADDRESS = 53,
	RPMSG_NAME = 32,     /* bytes in a name service message */
	RPMSG_PAYLOAD = 496, /* bytes of a message without its header: buffers have 512 */
	RPMSG_SERVICES = 64,
	RPMSG_QUEUE = 1024, /* messages that wait for one service */
	RPMSG_FIRST_ADDRESS = 1024,
};

#define RPMSG_ANY UINT32_MAX

struct rpmsg_header { /* little-endian, as Linux's struct rpmsg_hdr */
	uint32_t src, dst, reserved;
	uint16_t len, flags;
};

struct rpmsg_ns { /* Linux's struct rpmsg_ns_msg */
	char name[RPMSG_NAME];
	uint32_t addr, flags;
};

enum { RPMSG_NS_CREATE, RPMSG_NS_DESTROY };

struct rpmsg_message {
	uint32_t src; /* the guest's endpoint */
	uint16_t len;
	uint8_t data[RPMSG_PAYLOAD];
};

/* What the guest has still to be told, in this order. */
enum { TELL_DESTROY = 1, TELL_CREATE = 2 };

struct rpmsg_service {
	struct rpmsg *rpmsg;
	const char *text; /* what --service said; borrowed */
	bool used, echo;
	char name[RPMSG_NAME];
	uint32_t addr;
	uint32_t gone_addr; /* of the service that was here before, for TELL_DESTROY */
	char gone_name[RPMSG_NAME];
	bool announced;
	unsigned tell;
	uint32_t peer; /* the endpoint that spoke last, or RPMSG_ANY */
	struct port_config config;
	struct port *port;	     /* NULL with echo */
	bool have;		     /* the host has said something */
	struct rpmsg_message *queue; /* RPMSG_QUEUE of them, for the host, or for the guest with echo */
	unsigned head, n;
	uint64_t lost, received, sent; /* messages: dropped, of the guest, to the guest */
};

struct rpmsg {
	struct backend *b;
	struct virtqueue *rx, *tx; /* while they run; rx: to the guest */
	struct timer settle;	   /* before the first announcement */
	bool settled;
	unsigned turn;	    /* who may speak first */
	unsigned nservices; /* that the options gave */
	struct rpmsg_service service[RPMSG_SERVICES];
};

/* NULL: fine, else why not. What is allocated is the caller's, also then. */
const char *rpmsg_service_parse(struct rpmsg *r, struct rpmsg_service *s, const char *list);
/* 0 or -errno, logged. */
int rpmsg_service_open(struct rpmsg_service *s);
void rpmsg_service_close(struct rpmsg_service *s);
/* A new guest: forgets endpoints and what waits for them. */
void rpmsg_service_reset(struct rpmsg_service *s);
/* The guest says len bytes of rd to us. */
void rpmsg_service_take(struct rpmsg_service *s, uint32_t src, struct cursor *rd, size_t len);
/* Puts one message into the buffer. 1: done; 0: there is none; -EMSGSIZE: no room in the buffer. */
int rpmsg_service_give(struct rpmsg_service *s, struct cursor *wr);
/* There may be one. */
bool rpmsg_service_ready(const struct rpmsg_service *s);

/* rpmsg-state.c */
int rpmsg_save(struct backend *b, int fd);
int rpmsg_load(struct backend *b, int fd);

#endif
