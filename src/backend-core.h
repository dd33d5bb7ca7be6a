/* SPDX-License-Identifier: MIT */
/* Inside of a backend: shared by backend.c and backend-commands.c. */
#ifndef BACKEND_CORE_H
#define BACKEND_CORE_H

#include "backend.h"
#include "control.h"
#include "listener.h"
#include "session.h"
#include "term.h"

enum { BACKEND_MAX_THREADS = 256 };

struct process;

/* One backend. */
struct core {
	struct process *process;
	struct backend b;
	const struct backend_socket *socket;
	struct session_host host;
	struct listener listener;
	struct loop *thread[BACKEND_MAX_THREADS];
	struct post fail_post;
	bool opened;
	bool done; /* its last connection has ended */
	int status;
};

struct process {
	const struct backend_options *opt;
	struct loop *loop;
	struct core *cores; /* opt->nsockets */
	struct control control;
	struct command_spec *tables[2]; /* control's, where they differ from the static ones */
	struct term term;
	struct watch term_watch, lost;
	struct timer deadline;
	struct post quit_post;
	bool ending;
	int status;
};

static inline struct core *core_of(struct backend *b)
{
	return container_of(b, struct core, b);
}

/* The commands that all types have. */
extern const struct command_spec backend_commands[];
/* Sets the tables of p->control, and the way from a command to its backend. -ENOMEM. */
int backend_commands_init(struct process *p);

#endif
