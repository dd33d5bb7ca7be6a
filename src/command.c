/* SPDX-License-Identifier: MIT */
/* Tables of commands: checked, read, described. */
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

const struct command_spec *command_find(const struct command_spec *table, const char *name)
{
	for (; table && table->name; table++) {
		if (strcmp(table->name, name) == 0)
			return table;
	}
	return NULL;
}

static size_t count_args(const struct command_spec *spec)
{
	size_t n = 0;

	while (spec->args && spec->args[n].name)
		n++;
	return n;
}

static bool has_name(const char *const *names, const char *name)
{
	for (; names && *names; names++) {
		if (strcmp(*names, name) == 0)
			return true;
	}
	return false;
}

struct command_spec *command_extend(
	const struct command_spec *table, const struct command_arg *arg, const char *const *except)
{
	size_t specs = 1, args = 0, i, n;
	struct command_spec *out;
	struct command_arg *at;

	for (i = 0; table && table[i].name; i++) {
		specs++;
		args += count_args(&table[i]) + 2;
	}
	out = calloc(1, specs * sizeof(*out) + args * sizeof(*at));
	if (!out)
		return NULL;
	at = (struct command_arg *)(out + specs);
	for (i = 0; i < specs - 1; i++) {
		out[i] = table[i];
		if (has_name(except, table[i].name))
			continue;
		n = count_args(&table[i]);
		out[i].args = at;
		*at++ = *arg;
		for (size_t k = 0; k < n; k++)
			*at++ = table[i].args[k];
		at++;
	}
	return out;
}

static const struct command_arg *find_arg(const struct command_spec *spec, const char *name)
{
	for (const struct command_arg *a = spec->args; a && a->name; a++) {
		if (strcmp(a->name, name) == 0)
			return a;
	}
	return NULL;
}

/* NULL: the value fits; else what it should be. */
static const char *mismatch(const struct command_arg *a, const struct json_value *v)
{
	const char *text = json_as_string(v);
	uint64_t n;
	bool on;

	switch (a->kind) {
	case COMMAND_STRING:
		return text && *text ? NULL : "a string that is not empty";
	case COMMAND_U64:
		return json_as_u64(v, &n) ? NULL : "a whole number from 0 to 18446744073709551615";
	case COMMAND_SIZE:
		return (text ? options_parse_size(text, &n) : json_as_u64(v, &n))
			       ? NULL
			       : "a number of bytes, or a string such as \"64M\"";
	case COMMAND_BOOL:
		return json_as_bool(v, &on) ? NULL : "true or false";
	}
	return "nothing";
}

int command_check(const struct command_spec *spec, struct command *c)
{
	const struct command_arg *a;
	const char *name, *wanted;

	if (c->args && json_type(c->args) != JSON_OBJECT)
		return command_error(
			c, EINVAL, "arguments: an object is needed, this is %s", json_type_name(c->args));
	for (size_t i = 0; i < json_length(c->args); i++) {
		name = json_key_at(c->args, i);
		a = find_arg(spec, name);
		if (!a)
			return command_error(c, EINVAL, "%s takes no argument \"%.64s\"", spec->name, name);
		if (json_get(c->args, name) != json_at(c->args, i))
			return command_error(c, EINVAL, "argument %s: given twice", name);
		wanted = mismatch(a, json_at(c->args, i));
		if (wanted)
			return command_error(c, EINVAL, "argument %s: %s is needed", name, wanted);
	}
	for (a = spec->args; a && a->name; a++) {
		if (a->required && !json_get(c->args, a->name))
			return command_error(c, EINVAL, "argument %s: missing", a->name);
	}
	return 0;
}

const char *command_kind_name(enum command_arg_kind kind)
{
	static const char *const names[] = {"string", "number", "size", "boolean"};

	return names[kind];
}

static void member(struct json *out, const char *key, const char *value)
{
	json_key(out, key);
	json_string(out, value);
}

void command_describe(const struct command_spec *spec, struct json *out)
{
	json_object_begin(out);
	member(out, "name", spec->name);
	member(out, "help", spec->help);
	json_key(out, "arguments");
	json_array_begin(out);
	for (const struct command_arg *a = spec->args; a && a->name; a++) {
		json_object_begin(out);
		member(out, "name", a->name);
		member(out, "type", command_kind_name(a->kind));
		json_key(out, "required");
		json_bool(out, a->required);
		member(out, "help", a->help);
		json_object_end(out);
	}
	json_array_end(out);
	json_object_end(out);
}

static void schema_ref(struct json *out, enum command_arg_kind kind)
{
	char ref[32];

	snprintf(ref, sizeof(ref), "#/definitions/%s", command_kind_name(kind));
	json_object_begin(out);
	member(out, "$ref", ref);
	json_object_end(out);
}

void command_schema(const struct command_spec *spec, struct json *out)
{
	const struct command_arg *a;
	bool any = false;

	json_object_begin(out);
	member(out, "type", "object");
	json_key(out, "properties");
	json_object_begin(out);
	for (a = spec->args; a && a->name; a++) {
		json_key(out, a->name);
		schema_ref(out, a->kind);
		any |= a->required;
	}
	json_object_end(out);
	if (any) {
		json_key(out, "required");
		json_array_begin(out);
		for (a = spec->args; a->name; a++)
			if (a->required)
				json_string(out, a->name);
		json_array_end(out);
	}
	json_key(out, "additionalProperties");
	json_bool(out, false);
	json_object_end(out);
}

static void schema_integer(struct json *out)
{
	json_object_begin(out);
	member(out, "type", "integer");
	json_key(out, "minimum");
	json_u64(out, 0);
	json_object_end(out);
}

void command_schema_kinds(struct json *out)
{
	json_object_begin(out);
	json_key(out, "string");
	json_object_begin(out);
	member(out, "type", "string");
	json_key(out, "minLength");
	json_u64(out, 1);
	json_object_end(out);
	json_key(out, "number");
	schema_integer(out);
	json_key(out, "size");
	json_object_begin(out);
	json_key(out, "anyOf");
	json_array_begin(out);
	schema_integer(out);
	json_object_begin(out);
	member(out, "type", "string");
	member(out, "pattern", "^[0-9]+[KMGT]?$");
	json_object_end(out);
	json_array_end(out);
	json_object_end(out);
	json_key(out, "boolean");
	json_object_begin(out);
	member(out, "type", "boolean");
	json_object_end(out);
	json_object_end(out);
}
