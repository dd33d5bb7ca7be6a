/* SPDX-License-Identifier: MIT */
/*
 * The console's parts: console.c is the device, its options and commands, console-control.c what guest and device tell each
 * other of ports, console-state.c how a guest goes on with another process. A port is a line (port-line.h) with a name and a number.
 */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <linux/virtio_console.h>

#include "device.h"
#include "port-line.h"

enum {
	CONSOLE_QUEUES = 256, /* that the messages of vhost-user can name */
	CONSOLE_PORTS = CONSOLE_QUEUES / 2 - 1,
	CONSOLE_NAME = 64,    /* bytes with the zero */
	QUEUE_CONTROL_IN = 2, /* to the driver */
	QUEUE_CONTROL_OUT = 3,
};

/* What the guest has still to be told of a port, in this order. States, not a queue: what the guest does not fetch costs nothing. */
enum {
	TELL_REMOVE = 1 << 0,
	TELL_ADD = 1 << 1,
	TELL_CONSOLE = 1 << 2,
	TELL_NAME = 1 << 3,
	TELL_SIZE = 1 << 4,
	TELL_OPEN = 1 << 5,
	TELL_ALL = (1 << 6) - 1,
};

struct console_port {
	struct console *con;
	unsigned id;
	bool used;
	bool is_console;
	bool hang_up;	 /* its connections end when the guest closes it */
	bool known;	 /* the guest was told of it */
	bool ready;	 /* the guest's driver has it */
	bool guest_open; /* a program in the guest has it open */
	bool closing;	 /* hangs up as soon as all is out */
	unsigned tell;
	const char *text;	 /* what --port said; borrowed */
	char name[CONSOLE_NAME]; /* "": none */
	struct line line;
	struct port_config config; /* until it is opened */
};

struct console {
	uint32_t max_ports; /* --max-ports; 0: not given */
	struct console_port port[CONSOLE_PORTS];
	unsigned nports; /* that the options gave */

	struct backend *b;
	struct virtqueue *control_in, *control_out; /* while they run */
	bool driver_ready; /* the driver has said so, to us or to the process before us */
};

static inline bool console_multiport(const struct console *c)
{
	return backend_has(c->b, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* Marks what the guest has to be told. */
void console_tell(struct console_port *p, unsigned what);
/* After a change: tells, listens, hangs up. */
void console_port_update(struct console_port *p);
void console_control_in(struct backend *b, struct virtqueue *q);
void console_control_out(struct backend *b, struct virtqueue *q);

/* console-state.c */
int console_save(struct backend *b, int fd);
int console_load(struct backend *b, int fd);
/* The driver was there before us, and we know nothing of what it said. */
void console_adopt(struct console *c);

#endif
