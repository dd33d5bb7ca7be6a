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

struct core {
	struct backend b;
	const struct backend_options *opt;
	struct session_host host;
	struct listener listener;
	struct control control;
	struct loop *thread[BACKEND_MAX_THREADS];
	struct term term;
	struct watch term_watch, lost;
	struct timer deadline;
	struct post fail_post, quit_post;
	bool opened, ending;
	int status;
};

static inline struct core *core_of(struct backend *b)
{
	return container_of(b, struct core, b);
}

/* The commands that all types have. */
extern const struct command_spec backend_commands[];

#endif
