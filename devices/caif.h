/* SPDX-License-Identifier: MIT */
/*
 * Inside of the CAIF modem: caif.c has the queues, options and commands, caif-modem.c the frames and links.
 */
#ifndef CAIF_H
#define CAIF_H

#include "device.h"
#include "port.h"

enum {
	CAIF_CHANNELS = 32,
	CAIF_LINKS = 64,
	CAIF_WAIT =
		512, /* frames of mtu bytes that wait for a host, per channel: Linux still sends some 200 after "stop" */
	CAIF_OVERHEAD =
		9, /* of a frame: length 2, link 1, at most 4 of the service, 2 where a checksum would be */
	CAIF_ROOM_MIN = 320, /* of a receive buffer between head and tail: any control frame's answer */
	CAIF_NAME = 16,
};

/* Linux's enum cfctrl_srv */
enum caif_service { CAIF_VEI = 1, CAIF_VIDEO, CAIF_DEBUG, CAIF_DATAGRAM, CAIF_RFM, CAIF_UTIL };

struct caif_ip;

struct caif_ip_config { /* of a pdp channel */
	char tun[16];
	bool user, restricted;
	unsigned nforwards;
	char forward[8][64];
};

/* A place in the modem that a link of the guest can go to. */
struct caif_channel {
	struct caif *caif;
	const char *text; /* what --channel said; borrowed */
	enum caif_service service;
	bool loop, hangup, pdp;
	uint32_t id;	      /* of a datagram channel */
	char name[CAIF_NAME]; /* of a utility channel, or the volume; "": any */
	struct port_config config;
	struct port *port; /* NULL: loop or pdp */
	struct caif_ip_config ip_config;
	struct caif_ip *ip;	/* of a pdp channel, else NULL */
	struct caif_link *link; /* or NULL */
	bool have;		/* the host has said something */
	uint8_t *wait;		/* CAIF_WAIT * mtu bytes; datagrams with two bytes of length before each */
	size_t head, tail;	/* what waits is [head, tail) */
	uint64_t received, sent, lost; /* frames of the guest, to the guest, dropped */
};

struct caif_link { /* its number is its index + 1; 0 is the control channel */
	bool used;
	enum caif_service service;
	struct caif_channel *channel; /* NULL: a loop that the guest asked for */
	bool guest_off;		      /* the guest wants nothing now */
	bool off, told;		      /* we want nothing now; what the guest was told of that */
	bool segmented;		      /* RFM: the last one said that there are more */
	bool over, over_told;	      /* the host hung up; the guest was told */
};

struct caif {
	struct backend *b;
	uint32_t mtu, headroom, tailroom;
	struct virtqueue *tx, *rx;		/* while they run */
	const struct vring_driver_buf *buffers; /* the guest's receive buffers */
	uint16_t *free;				/* those that we have: a stack of nfree indices */
	unsigned nfree;
	unsigned turn; /* link that may speak first */
	unsigned nchannels;
	struct caif_channel channel[CAIF_CHANNELS];
	struct caif_link link[CAIF_LINKS];
};

/* NULL: fine, else why not. What is allocated is the caller's, also then. */
const char *caif_channel_parse(struct caif *c, struct caif_channel *ch, const char *list);
int caif_channel_open(struct caif_channel *ch);
void caif_channel_close(struct caif_channel *ch);
const char *caif_service_name(enum caif_service s);

/*
 * Takes one frame of the guest, which begins where rd is. Its answer goes to out (CAIF_ROOM_MIN bytes, and enough for any frame
 * that is not longer than rd): the value is the answer's length, 0: none.
 */
size_t caif_take(struct caif *c, struct cursor *rd, uint8_t *out, size_t room);
/* The link has something to say: a frame of at most room bytes into out, its length; 0: nothing after all. */
bool caif_speaks(const struct caif_link *l);
size_t caif_give(struct caif *c, struct caif_link *l, uint8_t *out, size_t room);
/* All links go, without a word. */
void caif_forget(struct caif *c);
/* The channel's host has something for the guest; it is silent until it is wanted again. */
void caif_host_data(struct caif_channel *ch);

/* ---- caif-ip.c ---- */

/* NULL: fine, else why not. */
const char *caif_ip_item(struct caif_ip_config *c, const char *name, const char *value);
const char *caif_ip_check(const struct caif_ip_config *c);
/* By ch->ip_config; -errno, logged. */
int caif_ip_open(struct caif_ip **out, struct caif_channel *ch);
void caif_ip_close(struct caif_ip *ip);
/* A packet of the guest, n pieces, len bytes. */
void caif_ip_send(struct caif_ip *ip, const struct iovec *v, unsigned n, size_t len);
/* A packet into *v: its bytes, 0: none now, -EMSGSIZE: one was too long and is lost. */
ssize_t caif_ip_receive(struct caif_ip *ip, const struct iovec *v);
/* Whether caif_host_data() shall come. */
void caif_ip_want(struct caif_ip *ip, bool want);
/* Members of an object. */
void caif_ip_describe(const struct caif_ip *ip, struct json *out);

#endif
