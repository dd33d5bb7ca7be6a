/* SPDX-License-Identifier: MIT */
/* What a command of the control socket needs to read its arguments and to say why not. */
#include "command.h"

#include <stdarg.h>
#include <stdio.h>

#include "options.h"

int command_error(struct command *c, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->desc, sizeof(c->desc), fmt, ap);
	va_end(ap);
	return -err;
}

const char *command_string(const struct command *c, const char *name)
{
	return json_get_string(c->args, name);
}

bool command_u64(const struct command *c, const char *name, uint64_t *out)
{
	return json_get_u64(c->args, name, out);
}

bool command_size(const struct command *c, const char *name, uint64_t *out)
{
	const char *text = json_get_string(c->args, name);

	return text ? options_parse_size(text, out) : json_get_u64(c->args, name, out);
}

bool command_bool(const struct command *c, const char *name, bool *out)
{
	return json_get_bool(c->args, name, out);
}
