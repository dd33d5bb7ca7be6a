/* SPDX-License-Identifier: MIT */
/*
 * Inside of a host end, between port.c (bytes), port-socket.c, port-pty.c, port-tty.c (who is there).
 */
#ifndef PORT_HOST_H
#define PORT_HOST_H

#include <netdb.h>

#include "log.h"
#include "port.h"
#include "sockpath.h"
#include "util.h"

/* A terminal that is made raw, and what it shall become again. */
struct port_tty {
	int fd;	   /* borrowed, or -1: not raw */
	int guard; /* pipe to the process that restores it when we end without doing so */
	struct watch winch;
	int winch_fd;
};

struct port_socket {
	int listen_fd; /* or -1 */
	struct sockpath path;
	struct watch accept;
	struct watch connecting; /* fd -1: nothing is under way */
	int fd;			 /* that is being connected */
	struct addrinfo *addrs, *next;
	struct timer retry;
	uint64_t delay_ns;
};

struct port_pty {
	int master, notify; /* or -1 */
	char slave[64];
	bool linked;
	struct watch news; /* of opening and closing */
	struct timer look;
};

struct port {
	struct loop *loop;
	const struct port_ops *ops;
	void *owner;
	struct port_config cfg;
	char label[96];

	int rfd, wfd; /* two descriptors, so that both can be watched; or -1 */
	struct watch in, out;
	bool up, want, ended;	  /* ended: nothing more comes in */
	bool in_ready, out_ready; /* cannot be waited for: a regular file */
	bool announce;		  /* link(true) is owed */
	bool half;		  /* the other side has gone, but left bytes that are not wanted yet */
	bool blocked;		  /* room() is owed */
	bool stalled;		  /* has taken nothing for too long: counts as nobody */
	struct task again, tell;
	struct timer patience, fault;

	uint8_t *ring; /* what was taken and not given on yet */
	size_t ring_size, head, used;
	int log_fd;
	uint16_t cols, rows;
	uint64_t sent, received, lost;

	struct port_tty tty;
	struct port_socket sock;
	struct port_pty pty;
};

/* Takes fd: somebody is there. */
void port_up(struct port *p, int fd);
/* The same with two descriptors; either may be -1. */
void port_up_pair(struct port *p, int rfd, int wfd);
/* Nobody is there any more. Does not call room(). */
void port_down(struct port *p);
/* The window of the terminal behind fd. */
void port_look_size(struct port *p, int fd);

/* Each: 0 or -errno, logged. port_wait_KIND() comes after port_down(): who comes next? */
int port_socket_open(struct port *p);
void port_socket_wait(struct port *p);
void port_socket_close(struct port *p);
int port_pty_open(struct port *p);
void port_pty_wait(struct port *p);
void port_pty_close(struct port *p);
int port_stdio_open(struct port *p);
void port_tty_close(struct port *p);

#endif
