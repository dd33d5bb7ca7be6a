/* SPDX-License-Identifier: MIT */
/*
 * The control socket (--control-path): one JSON object per line each way.
 *
 *	{"execute": NAME, "arguments": {…}, "id": …}   →  {"return": …, "id": …} or {"error": {"class", "desc"}, "id": …}
 *	                                                  {"event": NAME, "data": {…}, "timestamp": {"seconds", "microseconds"}}
 *
 * With several backends in the process, events say by "socket" of which one they are, and commands about one take its number.
 *
 * Commands are rows of two tables, the core's and the device's. Each is answered before the next one of that client is
 * read; what a client sends broken is answered with an error and costs nothing else. Bounds: CONTROL_MAX_CLIENTS
 * clients, CONTROL_MAX_LINE bytes a line; a client that does not read gets no more answers (its next command is not
 * looked at) and, from CONTROL_MAX_EVENTS bytes waiting on, loses events.
 *
 * All of it runs in the control loop. schema/control.json says the same in a form for machines.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include "command.h"
#include "listener.h"

enum {
	CONTROL_MAX_CLIENTS = 128,
	CONTROL_MAX_LINE = 64 << 10,
	CONTROL_MAX_EVENTS = 64 << 10,
	CONTROL_LINES = 8, /* a client may have answered in one turn */
};

struct control_client;

struct control { /* zeroed; listener.fd = listener.watch.fd = -1 */
	struct backend *b;
	/* With several backends: the one that the arguments name, or NULL, with desc set; NULL: b. */
	struct backend *(*pick)(struct control *c, struct command *cmd);
	struct loop *loop;
	const struct command_spec *core, *device; /* tables; device may be NULL */
	struct listener listener;
	struct control_client *clients;
	unsigned nclients;
	uint64_t commands; /* answered so far */
};

/* Listens at path. 0 or -errno, logged. */
int control_open(struct control *c, const char *path);
/* Takes no more clients, removes the socket file. Idempotent, as control_close() is. */
void control_quiet(struct control *c);
/* Drops the clients as well; they get what was written to them as far as it fits the socket. */
void control_close(struct control *c);

static inline bool control_has_clients(const struct control *c)
{
	return c->clients;
}

/* data: one complete value, or NULL: {}. Not taken over. */
void control_event(struct control *c, const char *name, struct json *data);
/* The same, of one of several backends. */
void control_event_of(struct control *c, unsigned socket, const char *name, struct json *data);

/* Runs one line and writes the answer to out: what a client's line does, without the client. */
void control_answer(struct control *c, const char *line, size_t len, struct json *out);

#endif
