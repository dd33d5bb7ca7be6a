/* SPDX-License-Identifier: MIT */
/*
 * What a line has to take along when its guest moves to another process: how much of the oldest buffer of the guest was
 * said already, and what was taken from the guest and waits for somebody to read it.
 *
 * A state is a sequence of little-endian records in a memory file; who writes it is not trusted.
 */
#ifndef PORT_STATE_H
#define PORT_STATE_H

#include "port-line.h"

/* All of it, or -errno, logged. */
int state_put(int fd, const void *p, size_t n);
int state_get(int fd, void *p, size_t n);
/* Nothing follows: 0, else -EINVAL, logged. */
int state_end(int fd);

/* Of a line that rests; l->port may be NULL only in line_load(): what waits is dropped. */
int line_save(const struct line *l, int fd);
int line_load(struct line *l, int fd);
int port_save(const struct port *p, int fd);
int port_load(struct port *p, int fd);

#endif
