/* SPDX-License-Identifier: MIT */
/*
 * Where connections come from: a socket path we listen on, a descriptor we were given (listening or connected), or a
 * path we connect to, again after every disconnect. One connection at a time: others wait in the kernel's backlog.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "sockpath.h"

struct listener {
	struct loop *loop;
	void (*connected)(struct listener *l, int fd); /* takes fd; then listener_next() when it has ended */
	const char *option;			       /* names the path in messages; NULL: "--socket-path" */
	const char *connect_path;		       /* client */
	struct sockpath path;			       /* ours to remove */
	int fd;					       /* listening socket, or -1 */
	bool once; /* a connected descriptor was given: there is no next */
	uint64_t delay_ns;
	struct watch watch;
	struct timer retry;
};

/*
 * Opens what the options name: path and mode (0: by umask), or fd (>= 0), or connect_path. 0 or -errno, logged with the option's
 * name. A stale socket file is replaced, only when connecting to it is refused; a live one or another file is an error.
 */
int listener_open(struct listener *l, struct loop *loop, const char *path, uint32_t mode, int fd,
	const char *connect_path);
/* Asks for the next connection. False: there is none to come (once). */
bool listener_next(struct listener *l);
/* Closes, and removes the socket file if it is still ours. Idempotent. */
void listener_close(struct listener *l);

#endif
