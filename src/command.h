/* SPDX-License-Identifier: MIT */
/*
 * Commands of the control socket as data: a table says name, arguments and help; the parser of arguments, the help and the
 * schema are derived from it. The core has one such table, a device may have one (device.commands).
 *
 * A command runs in the control loop, while queues may be running, and answers at once. What takes longer answers first and
 * tells the end by an event (backend_event()).
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"
#include "util.h"

enum command_arg_kind {
	COMMAND_STRING, /* not empty */
	COMMAND_U64,
	COMMAND_SIZE, /* bytes: a number, or a string with suffix K, M, G, T: powers of 1024 */
	COMMAND_BOOL,
};

struct command_arg {
	const char *name; /* NULL ends a table */
	enum command_arg_kind kind;
	bool required;
	const char *help; /* one sentence without a full stop */
};

#define COMMAND_DESC_LEN 160

/* What a running command reads and writes. */
struct command {
	const struct json_value
		*args;	  /* object whose members were checked against the table, or NULL: none given */
	struct json *out; /* the value of "return"; nothing written stands for {} */
	char desc[COMMAND_DESC_LEN]; /* why not; see command_error() */
};

struct backend;

struct command_spec {
	const char *name;		/* "resize"; NULL ends a table */
	const char *help;		/* one sentence without a full stop */
	const struct command_arg *args; /* or NULL: takes none */
	/* 0, or -errno with desc set. A command that failed changed nothing; what it wrote to out is dropped. */
	int (*run)(struct backend *b, struct command *c);
};

/* Looks a command up in a table (NULL: an empty one). */
const struct command_spec *command_find(const struct command_spec *table, const char *name);
/*
 * The same table with arg in front of each command's own arguments, but for the commands in except (names, NULL ends them; may
 * be NULL). One block, to be freed; NULL: no memory.
 */
struct command_spec *command_extend(
	const struct command_spec *table, const struct command_arg *arg, const char *const *except);
/* c->args against the table: 0, or -EINVAL with desc set. */
int command_check(const struct command_spec *spec, struct command *c);
/* Writes one object: name, help, arguments: [{name, type, required, help}…]. */
void command_describe(const struct command_spec *spec, struct json *out);
/* Writes a JSON schema (draft 7) of the object "arguments". */
void command_schema(const struct command_spec *spec, struct json *out);
/* Writes the object of definitions that it refers to. */
void command_schema_kinds(struct json *out);
/* "string", "number", "size", "boolean" */
const char *command_kind_name(enum command_arg_kind kind);

/* Sets the text that the client gets and returns -err (err > 0). */
int command_error(struct command *c, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Arguments by name. False: not given. command_size() is for COMMAND_SIZE. */
const char *command_string(const struct command *c, const char *name);
bool command_u64(const struct command *c, const char *name, uint64_t *out);
bool command_size(const struct command *c, const char *name, uint64_t *out);
bool command_bool(const struct command *c, const char *name, bool *out);

#endif
