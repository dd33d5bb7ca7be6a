/* SPDX-License-Identifier: MIT */
/*
 * The parts of the socket device: packets and rings (vsock.c), connections (vsock-conn.c), their payload
 * (vsock-data.c), the host's ends of them (vsock-host.c). All of it lives in the control loop.
 */
#ifndef VSOCK_H
#define VSOCK_H

#include <linux/virtio_vsock.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/un.h>

#include "device.h"
#include "sockpath.h"

enum {
	VSOCK_HDR = 44, /* bytes of struct virtio_vsock_hdr */
	VSOCK_ROUTES = 64,
	VSOCK_BUCKETS = 1024,
	VSOCK_REPLIES = 256,	 /* resets for what belongs to no connection */
	VSOCK_GREETINGS = 128,	 /* host connections that have not said yet what they want */
	VSOCK_GREETING_LEN = 96, /* bytes of what they say, at most */
	VSOCK_PIECES = 16	 /* of a payload in one system call, at most, where it is no batch */
};
/* Feature bits newer than some headers (virtio 1.3, 5.10.3) */
enum { VSOCK_F_STREAM = 0, VSOCK_F_NO_IMPLIED_STREAM = 2 };

#define VSOCK_HOST	 UINT64_C(2)
#define VSOCK_SHUT_BOTH	 (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)
#define VSOCK_TIMEOUT_NS (UINT64_C(10) * 1000 * 1000 * 1000) /* for whatever the other side has to answer */

/* Names a connection. The guest's CID is always ours. */
struct vsock_key {
	uint64_t peer_cid;
	uint32_t peer_port, guest_port;
	uint16_t type; /* VIRTIO_VSOCK_TYPE_* */
};

enum vsock_state {
	VSOCK_CONNECTING, /* the guest asked; connect(), or the sibling's answer, is awaited */
	VSOCK_REQUESTED,  /* the host asked; the guest's answer is awaited */
	VSOCK_OPEN,
	VSOCK_LINGERING, /* the host's end is gone and the guest knows; its reset is awaited */
	VSOCK_DRAINING,	 /* the guest's end is gone; what it had sent is still being written. In no bucket */
};

/* Packets without payload that wait for a receive buffer; a set of these. */
enum {
	VSOCK_SEND_REQUEST = 1,
	VSOCK_SEND_RESPONSE = 2,
	VSOCK_SEND_RST = 4, /* and then the connection is no more */
	VSOCK_SEND_SHUTDOWN = 8,
	VSOCK_SEND_CREDIT = 16,
	VSOCK_ASK_CREDIT = 32,
};

/* How the host's end of a connection begins. */
enum vsock_greet {
	VSOCK_GREET_NONE,    /* connected, and nothing is said */
	VSOCK_GREET_CONNECT, /* connect() is under way */
	VSOCK_GREET_ANSWER,  /* it said CONNECT: we say OK when the guest accepts */
	VSOCK_GREET_AWAIT,   /* a sibling: we said CONNECT and wait for its OK */
};

/* Of messages between guests the last byte is not payload, but has VIRTIO_VSOCK_SEQ_EOR: Unix sockets lose that flag. */
static inline bool vsock_key_flags_byte(const struct vsock_key *key)
{
	return key->type == VIRTIO_VSOCK_TYPE_SEQPACKET && key->peer_cid != VSOCK_HOST;
}

static inline bool vsock_key_equal(const struct vsock_key *a, const struct vsock_key *b)
{
	return a->peer_port == b->peer_port && a->guest_port == b->guest_port && a->peer_cid == b->peer_cid &&
	       a->type == b->type;
}

/* What a receive buffer keeps while it is filled. */
struct vsock_slot {
	struct cursor head; /* of the packet's header, written last */
	size_t len;	    /* bytes asked for behind it */
};

struct vsock;

/* A growing buffer, written at its end and read at its head. Zeroed: empty. */
struct vsock_fifo {
	uint8_t *buf;
	size_t size, head, len;
};

struct vsock_conn {
	struct vsock *v;
	struct vsock_key key;
	LIST_ENTRY(vsock_conn) bucket;
	TAILQ_ENTRY(vsock_conn) all;
	TAILQ_ENTRY(vsock_conn) turn; /* while queued */
	bool queued;
	bool readable, writable; /* until the socket says EAGAIN: its events come once per change */
	bool hup;		 /* the host closed both ways */
	bool rdhup;		 /* the host's end of file is not far: read until it comes */
	bool eof;		 /* the host sends no more */
	bool deaf;		 /* the host reads no more: what the guest sends is dropped */
	bool asked;		 /* for credit, since we last had some */
	uint8_t state, send, greet;
	uint8_t told;	    /* VIRTIO_VSOCK_SHUTDOWN_* that the guest knows of */
	uint8_t guest_shut; /* VIRTIO_VSOCK_SHUTDOWN_* that the guest sent */
	uint8_t burst;	    /* receive buffers to fill at once */
	int fd;
	struct watch watch;
	uint64_t deadline; /* ns; 0: none */
	bool retry;	   /* connect() has to be tried again with the next sweep */

	/* guest to host */
	struct vsock_fifo
		backlog; /* what the socket did not take; a message has its length in 4 bytes before it */
	size_t held;	 /* payload in backlog and partial */
	struct vsock_fifo partial;  /* of a message whose end has not come */
	uint32_t fwd_cnt, told_fwd; /* bytes passed on; what the guest knows of it */

	/* host to guest */
	uint32_t tx_cnt, peer_fwd, peer_alloc;
	uint8_t *message; /* rest of one that did not fit, or NULL */
	size_t message_len;
	uint32_t message_flags; /* VIRTIO_VSOCK_SEQ_* of its last packet */
};

TAILQ_HEAD(vsock_conns, vsock_conn);
LIST_HEAD(vsock_bucket, vsock_conn);

enum vsock_end { VSOCK_UNIX, VSOCK_TCP, VSOCK_VSOCK };

/* From a port to a socket address (--forward), or from an address to a port (--listen). */
struct vsock_route {
	bool any_port, seqpacket;
	uint32_t port;	    /* the guest's notion */
	enum vsock_end end; /* host side */
	const char *text;   /* the option's value */
	const char *path;   /* VSOCK_UNIX */
	struct sockaddr_storage addr;
	socklen_t addr_len;
};

struct vsock_greeting {
	TAILQ_ENTRY(vsock_greeting) all;
	struct vsock *v;
	struct watch watch;
	int fd;
	bool sibling;
	uint16_t type;
	uint64_t deadline;
	size_t len;
	char text[VSOCK_GREETING_LEN];
};

enum vsock_listens { VSOCK_LISTEN_ROUTE, VSOCK_LISTEN_UDS, VSOCK_LISTEN_GROUP };

struct vsock_listener {
	LIST_ENTRY(vsock_listener) all;
	struct vsock *v;
	enum vsock_listens what;
	uint16_t type;
	const struct vsock_route *route;
	struct sockpath path;
	struct watch watch;
	int fd;
};

struct vsock {
	/* options */
	uint64_t guest_cid;
	const char *uds_path, *group;
	uint64_t buffer;
	uint32_t max_conns;
	struct vsock_route forward[VSOCK_ROUTES], listen[VSOCK_ROUTES];
	unsigned nforward, nlisten;

	struct backend *b;
	struct virtqueue *rx, *tx, *event; /* while they run */
	bool reset_event;		   /* the guest has to be told that connections are gone */
	struct vsock_bucket buckets[VSOCK_BUCKETS];
	struct vsock_conns conns, turns; /* all of them; those that have something to send */
	unsigned nconns;
	bool serving; /* the turns: no need to wake the receive queue */
	struct virtio_vsock_hdr replies[VSOCK_REPLIES];
	unsigned reply_head, nreplies;
	uint32_t next_port;
	struct timer sweep;
	unsigned nwaiting; /* connections with a deadline */
	unsigned nretries; /* connections whose connect() has to be tried again */
	uint8_t *scratch;  /* v->buffer + 1 bytes: a message on its way to the guest */

	/* payloads of one connection on their way to one system call */
	struct vsock_conn *batch;
	struct element *batch_e[32];
	struct iovec batch_v[64];
	size_t batch_len[32];
	unsigned nbatch, nbatch_v;

	LIST_HEAD(, vsock_listener) listeners;
	TAILQ_HEAD(, vsock_greeting) greetings;
	unsigned ngreetings;
	bool accepting;
};

/* ---- vsock.c ---- */

/* A reset for a packet that belongs to no connection. False: no room, the packet has to wait. */
bool vsock_reply_reset(struct vsock *v, const struct virtio_vsock_hdr *h);

/* ---- vsock-conn.c ---- */

struct vsock_conn *vsock_conn_find(struct vsock *v, const struct vsock_key *key);
/* The host's end asks: the guest gets a REQUEST. Takes fd. NULL: too many, or no memory; fd is closed. */
struct vsock_conn *vsock_conn_request(
	struct vsock *v, const struct vsock_key *key, int fd, enum vsock_greet greet);
/* A packet of the guest other than RW. c is NULL for a REQUEST that none has the key of. */
void vsock_conn_control(
	struct vsock *v, struct vsock_conn *c, const struct vsock_key *key, const struct virtio_vsock_hdr *h);
/* What every packet says about the guest's buffers. */
void vsock_conn_credit(struct vsock_conn *c, const struct virtio_vsock_hdr *h);
/* It has something for the guest: gets its turn. */
void vsock_conn_queue(struct vsock_conn *c);
/* Fills receive buffers. False: there are none left, it keeps its turn. */
bool vsock_conn_send(struct vsock_conn *c, struct virtqueue *rx);
/* The guest is told that it is gone. */
void vsock_conn_reset(struct vsock_conn *c);
/* All of them, without a word. */
void vsock_conn_drop_all(struct vsock *v);
/* Does what is overdue, and arms the timer again while something waits. */
void vsock_conn_sweep(struct vsock *v, uint64_t now);
/* A port of the host's side that no connection uses. */
uint32_t vsock_conn_port(struct vsock *v, uint32_t guest_port, uint16_t type);
const char *vsock_conn_state(const struct vsock_conn *c);
void vsock_conn_free(struct vsock_conn *c);

/* ---- vsock-data.c ---- */

/* Can take a payload of len bytes; false: it was dealt with otherwise (dropped, or the connection reset). */
bool vsock_data_accepts(struct vsock_conn *c, size_t len);
/* Payload of the guest, len bytes in v[], taken completely. */
void vsock_data_write(struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len);
void vsock_data_write_message(
	struct vsock_conn *c, const struct iovec *v, unsigned n, size_t len, uint32_t flags);
/* Writes what the socket takes of the backlog. */
void vsock_data_flush(struct vsock_conn *c);
/* What the guest has closed is closed for the host, when all before it is written. */
void vsock_data_shut(struct vsock_conn *c);
/* The host's end is at its end: the guest is told. */
void vsock_data_end(struct vsock_conn *c);
/* A packet's header, with what it says about our buffers. */
void vsock_data_header(
	struct vsock_conn *c, struct virtio_vsock_hdr *h, uint16_t op, uint32_t flags, size_t len);
/* Fills receive buffers with what the socket has, as credit allows. False: no buffers. */
bool vsock_data_send(struct vsock_conn *c, struct virtqueue *rx);
/* Forgets all that waits. */
void vsock_data_drop(struct vsock_conn *c);

/* How much the guest has room for. */
static inline size_t vsock_credit(const struct vsock_conn *c)
{
	uint32_t used = c->tx_cnt - c->peer_fwd;

	return used < c->peer_alloc ? c->peer_alloc - used : 0;
}

/* ---- vsock-host.c ---- */

extern const struct option_spec vsock_options[];
/* A socket that is connected, or about to be (see *greet), to where the key leads. -EAGAIN: the other side's backlog is full, try again
 * later. */
int vsock_host_connect(struct vsock *v, const struct vsock_key *key, enum vsock_greet *greet);
int vsock_host_open(struct vsock *v);
void vsock_host_close(struct vsock *v);
/* Accepts again if it had stopped. */
void vsock_host_resume(struct vsock *v);
void vsock_host_sweep(struct vsock *v, uint64_t now);
void vsock_host_drop_greetings(struct vsock *v);

#endif
