/* SPDX-License-Identifier: MIT */
/*
 * A network of the guest's own, in user space: libslirp is its router 10.0.2.2, name server 10.0.2.3 and DHCP server, and turns
 * the guest's connections into sockets of this process. It speaks Ethernet. All in one loop.
 */
#ifndef USER_NET_H
#define USER_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "loop.h"

enum { USER_NET_GUEST = 0x0a00020f }; /* IPv4 address that DHCP gives, and that forwarded connections go to */

struct user_net;

struct user_net_config {
	struct loop *loop;
	bool restricted;    /* no connections to the host and beyond */
	const char *option; /* for messages: "--user" */
	/* A frame for the guest. True: taken, or dropped for good; false: again after user_net_room(). */
	bool (*frame)(void *owner, const void *frame, size_t len);
	void *owner;
};

/* -errno, logged. */
int user_net_open(struct user_net **out, const struct user_net_config *config);
/* NULL is fine. */
void user_net_close(struct user_net *u);
/* "tcp|udp:[ADDRESS:]PORT:GUESTPORT": NULL, or why not. */
const char *user_net_check_forward(const char *text);
/* The text was checked. -errno, not logged. */
int user_net_forward(struct user_net *u, const char *text);
/* A frame of the guest, len bytes; copied. */
void user_net_send(struct user_net *u, const struct iovec *v, unsigned n, size_t len);
/* frame() may take some again. */
void user_net_room(struct user_net *u);

#endif
