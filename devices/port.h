/* SPDX-License-Identifier: MIT */
/*
 * A host end for bytes or messages: what a line, a port or a service of a guest is connected to on the host. It knows no
 * device. Written as a list of items, in any order, a comma in a value being doubled:
 *
 *	host=stdio[,signals]          our standard input and output; a terminal is raw meanwhile
 *	host=pty[:link=PATH]          a new pseudo-terminal, and a symbolic link to it
 *	host=unix:PATH[,server]       connect to a Unix socket, again and again; or listen there
 *	host=tcp:HOST:PORT[,server]   the same
 *	host=file:PATH                append to a file; there is nothing to read
 *	host=fd:N                     an open descriptor that we inherited
 *	host=null                     takes everything, says nothing
 *	log=FILE                      append what the guest says to this file as well
 *	backlog=SIZE                  while nobody reads keep so many bytes, the newest, for who comes next
 *	patience=DURATION             a reader that takes nothing for so long counts as nobody
 *
 * One direction never waits for the other. What the guest says is written from where it lies, as much as is taken; the
 * owner keeps the rest and is told when there is room. What the host says is read into where it shall lie, and only
 * when the owner wants it: the writer waits in the kernel's buffers meanwhile. So memory is bounded and nothing is
 * dropped while somebody is there. While nobody is, the guest's bytes wait (backlog=0), or the newest of them are kept.
 *
 * All in one loop. Callbacks come from the loop, but link() may also come during port_send() and port_receive().
 */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "json.h"
#include "loop.h"

enum port_kind { PORT_NULL, PORT_STDIO, PORT_PTY, PORT_UNIX, PORT_TCP, PORT_FILE, PORT_FD };

struct port_config {
	enum port_kind kind;
	char *host;    /* owned: as it was given, for messages; NULL: not given */
	char *path;    /* owned: socket, file, link (or NULL), host name */
	char *service; /* owned: TCP port */
	char *log;     /* owned, or NULL */
	int fd;
	bool server, signals;
	uint64_t backlog;     /* bytes; 0: the guest waits while nobody is there */
	uint64_t patience_ms; /* 0: without end; of no use without a backlog */
	bool messages;	      /* the owner's: a Unix socket is SOCK_SEQPACKET, one datagram per message */
};

enum { PORT_BACKLOG_MAX = 64 << 20, PORT_IOV = 1024 };

/*
 * Takes the next item of the list at *list, undoes doubled commas, and moves *list behind it: "name=value" or "name"
 * (*value is NULL). 0: the list is at its end. The strings lie in buf. -EINVAL: longer than buf.
 */
int port_list_next(const char **list, char *buf, size_t size, const char **name, const char **value);

/* Not an item of port_config. */
extern const char port_item_unknown[];
/* Takes an item. NULL: fine; port_item_unknown; else the reason why not, static text. */
const char *port_config_item(struct port_config *c, const char *name, const char *value);
/* All items together: NULL: fine, else why not. A host that was not given is an error. */
const char *port_config_check(const struct port_config *c);
void port_config_free(struct port_config *c);

struct port;

/* All may be NULL but data. */
struct port_ops {
	void (*data)(struct port *p);	       /* wanted: port_receive() may bring something */
	void (*room)(struct port *p);	       /* port_send() did not take all: try again */
	void (*link)(struct port *p, bool up); /* somebody is there, or has gone */
	void (*size)(struct port *p);	       /* of the window: changed */
};

/*
 * Takes what c holds, also on failure. label: for messages, "--port=name"; copied. 0 or -errno, logged. A host that is not
 * there yet is no failure. The first link() comes from the loop, when it is up.
 */
int port_open(struct port **out, struct loop *loop, struct port_config *c, const char *label,
	const struct port_ops *ops, void *owner);
/* NULL is fine. The terminal is as it was. */
void port_close(struct port *p);
void *port_owner(const struct port *p);

/*
 * Says v[0..n) to the host, n <= PORT_IOV; the value is how many bytes were taken. Less than all: room() comes when there is room.
 * With messages all is one message, taken whole or not at all.
 */
size_t port_send(struct port *p, const struct iovec *v, unsigned n);
/* What the host says into v[0..n): bytes, 0: nothing now. With messages: one; -EMSGSIZE: it was too long and is lost. */
ssize_t port_receive(struct port *p, const struct iovec *v, unsigned n);
/* Whether data() shall come. */
void port_want(struct port *p, bool want);
bool port_is_up(const struct port *p);
/* Nothing that was taken is still with us, as far as somebody is there to have it. */
bool port_flushed(const struct port *p);
/* What was taken and is still with us, in two parts; and more of that, of another process: the newest that fits is kept. */
void port_waiting(const struct port *p, struct iovec v[2]);
void port_restore(struct port *p, const void *bytes, size_t n);
/* The connection ends (sockets only; the next one may come). */
void port_hang_up(struct port *p);

/* Size of the terminal's window. False: it has none, or none is known yet. */
bool port_size(const struct port *p, uint16_t *cols, uint16_t *rows);
/* Of a host without a window of its own. */
void port_set_size(struct port *p, uint16_t cols, uint16_t rows);
/* Writes members of an object: host, path of a pseudo-terminal, connected, counters. */
void port_describe(const struct port *p, struct json *out);

#endif
