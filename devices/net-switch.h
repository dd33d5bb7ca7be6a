/* SPDX-License-Identifier: MIT */
/* Inside of the switch: its ports and their peers. net-switch.c has the forwarding, net-mesh.c the way to other processes. */
#ifndef NET_SWITCH_H
#define NET_SWITCH_H

#include "net-host.h"
#include "net-ring.h"
#include "sockpath.h"

enum { PEERS = 63, ADDRESSES = 1024 };

/* Another port. One of this process uses the members up to full_since. */
struct peer {
	struct port *port;  /* whose peer it is; NULL: free */
	struct port *other; /* the one of this process that it is, or NULL */
	unsigned back;	    /* what we are in its table */
	bool ready, stalled;
	uint64_t full_since; /* monotonic ns; 0: there was room */
	int fd, wake;	     /* wake: the peer's eventfd, -1 while it has not said hello */
	struct watch watch;
	struct net_ring in, out;
};

struct address {
	uint8_t mac[6];
	uint8_t peer; /* index + 1; 0: free */
	uint64_t seen;
};

struct port {
	struct net_host h;
	int listener, wake; /* wake: ours; peers write it */
	char name[24];
	int dir;
	struct sockpath path;
	struct watch accept, woken;
	struct poller poller;
	struct task work;
	struct timer stall;	    /* the sender waits for a ring, */
	struct peer *full;	    /* to this one */
	bool paused;		    /* the guest has no buffers, */
	bool waited;		    /* and ports of this process wait for them */
	bool others_first;	    /* who gets new ones first: those, else the rings */
	unsigned next;		    /* of them, who goes first the next time */
	unsigned nkept;		    /* frames to all, of this process, that wait for buffers of the guest, */
	struct net_ring keep, kept; /* in a ring: where they are put, and taken */
	unsigned npeers;	    /* all, */
	unsigned nrings;	    /* of them those in other processes, */
	unsigned ready;		    /* and of all those that are connected */
	struct peer peer[PEERS];
	struct address table[ADDRESSES];
	uint64_t now; /* monotonic ns, of this turn */
};

/* ---- net-switch.c ---- */

/* A place in the table, or NULL. */
struct peer *peer_free(struct port *p);
/* It is there, or not any more: link and addresses follow. */
void peer_comes(struct peer *peer);
void peer_gone(struct peer *peer);
/* Port i of this process, or NULL: it is not open, or p itself. */
struct port *port_of_socket(const struct port *p, unsigned i);

/* ---- net-mesh.c: the port's members up to accept, and peers without `other` ---- */

/* Joins the directory. -errno, logged; mesh_close() is fine then, and before. */
int mesh_open(struct port *p);
void mesh_close(struct port *p);
/* Its connection has ended, or has to. */
void peer_close(struct peer *peer);
/* Tells its process to look at the rings. */
void peer_wake(const struct peer *peer);

#endif
