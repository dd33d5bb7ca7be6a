/* SPDX-License-Identifier: MIT */
/*
 * Requests of ours to the front-end (VHOST_USER_SET_BACKEND_REQ_FD). Nothing here ever waits: a front-end may be waiting
 * for us on the main socket, or ask us something there, before it answers here. So messages go without NEED_REPLY, and
 * replies that come all the same are read and dropped. Control loop only.
 */
#ifndef BACKCHANNEL_H
#define BACKCHANNEL_H

#include <stdint.h>

#include "loop.h"

enum { BACKCHANNEL_MAX_QUEUES = 1024 };

struct backchannel {
	int fd; /* -1: none */
	struct watch watch;
	struct loop *loop;
	char partial[32]; /* of a message that did not fit the socket's buffer */
	unsigned npartial;
	bool config_changed;			     /* still to be said */
	uint64_t calls[BACKCHANNEL_MAX_QUEUES / 64]; /* queues whose call is still to be said */
};

void backchannel_init(struct backchannel *bc, struct loop *loop);
/* Takes the descriptor over, in place of an earlier one. -errno. */
int backchannel_set(struct backchannel *bc, int *fd);
void backchannel_close(struct backchannel *bc);
/* No-ops without a channel. Repeated ones that the front-end has not taken yet are said once. */
void backchannel_config_changed(struct backchannel *bc);
void backchannel_call(struct backchannel *bc, unsigned queue);

#endif
