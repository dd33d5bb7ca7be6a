/* SPDX-License-Identifier: MIT */
/*
 * Reports as text, for --source and --record. A line is a report:
 *
 *	[+SECONDS] [CODE=VALUE]... [# COMMENT]
 *
 * CODE is a name of linux/input-event-codes.h, or TYPE:CODE in numbers; SECONDS, a decimal fraction, is how long
 * after the line before. A line without events only waits.
 */
#ifndef INPUT_TEXT_H
#define INPUT_TEXT_H

#include <stddef.h>

#include "input-backlog.h"

enum {
	INPUT_LINE = 16384,	 /* bytes of a line with its newline, at most */
	INPUT_LINE_EVENTS = 512, /* events of a line, at most */
};

struct input_line {
	uint64_t delay_ns;
	struct input_ev events[INPUT_LINE_EVENTS];
	unsigned n;
};

/* text: NUL-terminated, without the newline; is modified. NULL, or what is wrong with it. */
const char *input_text_parse(struct input_line *line, char *text);
/* Writes a line with its newline, a delay of 0 not shown. The value is its length, 0: it does not fit. */
size_t input_text_print(const struct input_line *line, char *text, size_t size);

#endif
