/* SPDX-License-Identifier: MIT */
/*
 * Command line options as data: a table says name, kind, place in a structure, default, limits and help text;
 *the parser, the checks and --help are derived from it.
 *
 *	static const struct option_spec rng_options[] = {
 *		{"source", OPTION_PATH, OPTION_FIELD(struct rng, source), .arg = "PATH", .help = "where bytes
 *come from"},
 *		{"max-bytes", OPTION_SIZE, OPTION_FIELD(struct rng, max_bytes), .arg = "SIZE", .def = "1M",
 *.min = 1}, OPTIONS_END,
 *	};
 *
 * Accepted are `--name=VALUE`, `--name VALUE`, `--flag`, and `-l VALUE`, `-lVALUE`, `-l` where the option has
 *a letter. An option may be given once, unless its kind is OPTION_CALLBACK.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum option_kind {
	OPTION_FLAG,	 /* bool; takes no value */
	OPTION_SWITCH,	 /* bool; on or off */
	OPTION_STRING,	 /* const char *, borrowed from argv (or the table); may be empty */
	OPTION_PATH,	 /* const char *, borrowed; not empty */
	OPTION_FD,	 /* int, >= 0 when given; -1 when not */
	OPTION_U32,	 /* uint32_t; decimal, or hexadecimal after 0x */
	OPTION_U64,	 /* uint64_t */
	OPTION_SIZE,	 /* uint64_t, bytes; suffix K, M, G, T: powers of 1024 */
	OPTION_DURATION, /* uint64_t, milliseconds; suffix ms (the default), s, m, h */
	OPTION_ENUM,	 /* int (or an enum): index into choices */
	OPTION_CALLBACK, /* parse() does it all; may be given more than once */
};

struct option_spec {
	const char *name; /* without the dashes; NULL ends a table */
	enum option_kind kind;
	size_t offset, size; /* OPTION_FIELD(struct, member); size must fit the kind */
	char letter;	     /* short form, or 0 */
	bool required;	     /* an error when not given */
	const char *arg;     /* what the value is called in the help; NULL: after the kind */
	const char *help;    /* one sentence without a full stop */
	const char *def;     /* default, in the words a user would write; NULL: the member stays as it is */
	const char *no_def;  /* what the help says of the default when def is NULL ("1 per CPU") */
	uint64_t min, max;   /* numbers; max 0: whatever the member can hold */
	const char *const *choices; /* OPTION_ENUM: NULL-terminated */
	/*
	 * OPTION_CALLBACK: stores value into base (the structure of its table). NULL: fine; else the reason
	 * why not, static text that follows "--name=value: ". value is NULL when arg is NULL (the option then
	 * takes no value).
	 */
	const char *(*parse)(void *base, const char *value);
};

#define OPTION_FIELD(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define OPTIONS_END          \
	{                    \
		.name = NULL \
	}

/* A table and the structure that it fills. */
struct option_set {
	const struct option_spec *specs; /* NULL: empty */
	void *base;
	const char *title; /* heading in the help, NULL: none */
};

/*
 * Writes the defaults, then what argv says, into the structures; strings are borrowed. argv[0] is the first
 * option, not a program name. 0, or -EINVAL after one line in the log that names the option, the value and
 * the reason. A positional argument is an error, a default that does not parse is a bug and aborts.
 */
int options_parse(const struct option_set *sets, size_t nsets, int argc, char *const *argv);

/* What --help shows: an entry per option with its value, meaning, limits and default. The bases are not used.
 */
void options_help(const struct option_set *sets, size_t nsets, FILE *out);

/* The scalar parsers by themselves. False: not a number of this kind, or too large. */
bool options_parse_u64(const char *text, uint64_t *out);
bool options_parse_size(const char *text, uint64_t *out);
bool options_parse_duration(const char *text, uint64_t *ms);

#endif
