/* SPDX-License-Identifier: MIT */
/*
 * JSON over yajl, see json.h. yajl's tree parser has no limit of its own on depth (freeing recurses) and
 * stops at the first NUL byte, so both are checked before it sees the text. A string with an escaped NUL in
 * it is refused as well: as a C string it would silently be a different one.
 */
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <yajl/yajl_gen.h>
#include <yajl/yajl_tree.h>

#include "util.h"

struct json {
	yajl_gen gen;
	unsigned depth; /* open objects and arrays */
	bool failed;	/* sticky */
};

struct json *json_new(bool pretty)
{
	struct json *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->gen = yajl_gen_alloc(NULL);
	if (!j->gen) {
		free(j);
		return NULL;
	}
	yajl_gen_config(j->gen, yajl_gen_validate_utf8, 1);
	yajl_gen_config(j->gen, yajl_gen_beautify, pretty ? 1 : 0);
	yajl_gen_config(j->gen, yajl_gen_indent_string, "  ");
	return j;
}

void json_free(struct json *j)
{
	if (!j)
		return;
	yajl_gen_free(j->gen);
	free(j);
}

static void check(struct json *j, yajl_gen_status status)
{
	if (status != yajl_gen_status_ok)
		j->failed = true;
}

static void begin(struct json *j, yajl_gen_status status)
{
	check(j, status);
	j->depth++;
}

static void end(struct json *j, yajl_gen_status status)
{
	check(j, status);
	if (j->depth-- == 0)
		j->failed = true;
}

void json_object_begin(struct json *j)
{
	begin(j, yajl_gen_map_open(j->gen));
}

void json_object_end(struct json *j)
{
	end(j, yajl_gen_map_close(j->gen));
}

void json_array_begin(struct json *j)
{
	begin(j, yajl_gen_array_open(j->gen));
}

void json_array_end(struct json *j)
{
	end(j, yajl_gen_array_close(j->gen));
}

static yajl_gen_status gen_string(struct json *j, const char *s)
{
	return yajl_gen_string(j->gen, (const unsigned char *)s, strlen(s));
}

void json_string(struct json *j, const char *value)
{
	CLEANUP_FREE char *ascii = NULL;
	yajl_gen_status status;

	if (!value) {
		json_null(j);
		return;
	}
	status = gen_string(j, value);
	if (status == yajl_gen_invalid_string) {
		ascii = strdup(value);
		for (char *p = ascii; p && *p; p++) {
			if ((unsigned char)*p >= 0x80)
				*p = '?';
		}
		status = gen_string(j, ascii ? ascii : "?");
	}
	check(j, status);
}

void json_key(struct json *j, const char *key)
{
	json_string(j, key);
}

void json_u64(struct json *j, uint64_t value)
{
	char text[24];
	int n = snprintf(text, sizeof(text), "%" PRIu64, value);

	check(j, yajl_gen_number(j->gen, text, (size_t)n));
}

void json_i64(struct json *j, int64_t value)
{
	check(j, yajl_gen_integer(j->gen, value));
}

void json_double(struct json *j, double value)
{
	char text[40];
	int n = snprintf(text, sizeof(text), "%.6g", value);

	if (strspn(text, "0123456789.e+-") != (size_t)n)
		j->failed = true; /* inf and nan are no JSON */
	else
		check(j, yajl_gen_number(j->gen, text, (size_t)n));
}

void json_bool(struct json *j, bool value)
{
	check(j, yajl_gen_bool(j->gen, value));
}

void json_null(struct json *j)
{
	check(j, yajl_gen_null(j->gen));
}

const char *json_text(struct json *j, size_t *len)
{
	const unsigned char *text;
	size_t n;

	if (j->failed || yajl_gen_get_buf(j->gen, &text, &n) != yajl_gen_status_ok)
		return NULL;
	if (len)
		*len = n;
	return text ? (const char *)text : ""; /* nothing was written yet */
}

bool json_embed(struct json *j, struct json *value)
{
	size_t len;
	const char *text = json_text(value, &len);

	if (!text || len == 0 || value->depth)
		return false;
	while (len && text[len - 1] == '\n')
		len--;
	/* what yajl writes for a number is the text it is given */
	check(j, yajl_gen_number(j->gen, text, len));
	return true;
}

int json_write_fd(struct json *j, int fd)
{
	CLEANUP_FREE char *line = NULL;
	size_t len, done = 0;
	const char *text = json_text(j, &len);

	if (!text || len == 0 || j->depth)
		return -EINVAL;
	while (len && text[len - 1] == '\n')
		len--;
	line = malloc(len + 1);
	if (!line)
		return -ENOMEM;
	memcpy(line, text, len);
	line[len++] = '\n';
	while (done < len) {
		ssize_t n = write(fd, line + done, len - done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

/* The public type is yajl's node; nobody else sees inside. */
static yajl_val val(const struct json_value *v)
{
	return (yajl_val)(uintptr_t)v;
}

static const struct json_value *value(yajl_val v)
{
	return (const struct json_value *)v;
}

/* What yajl does not check. NULL: fine. */
static const char *scan(const char *text, size_t len)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (c == '\0')
			return "a NUL byte in the text";
		if (quoted && c == '\\') {
			if (len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
				return "a NUL character in a string";
			i++;
			if (i < len && text[i] == '\0')
				return "a NUL byte in the text";
		} else if (c == '"') {
			quoted = !quoted;
		} else if (!quoted && (c == '{' || c == '[')) {
			if (++depth > JSON_MAX_DEPTH)
				return "nested too deeply";
		} else if (!quoted && (c == '}' || c == ']')) {
			if (depth)
				depth--;
		}
	}
	return NULL;
}

static void set_error(char *err, size_t err_len, const char *text)
{
	if (err_len == 0)
		return;
	snprintf(err, err_len, "%s", text);
	/* yajl says it in several lines, with the text and an arrow below. */
	err[strcspn(err, "\n")] = '\0';
}

struct json_value *json_parse(const char *text, size_t len, char *err, size_t err_len)
{
	CLEANUP_FREE char *copy = NULL;
	char yajl_err[JSON_ERROR_LEN] = "";
	const char *why;
	yajl_val root;

	if (len > JSON_MAX_TEXT) {
		set_error(err, err_len, "longer than 1 MiB");
		return NULL;
	}
	why = scan(text, len);
	if (why) {
		set_error(err, err_len, why);
		return NULL;
	}
	copy = malloc(len + 1);
	if (!copy) {
		set_error(err, err_len, "out of memory");
		return NULL;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	root = yajl_tree_parse(copy, yajl_err, sizeof(yajl_err));
	if (!root)
		set_error(err, err_len, yajl_err[0] ? yajl_err : "empty");
	return (struct json_value *)root;
}

void json_value_free(struct json_value *root)
{
	yajl_tree_free(val(root));
}

enum json_type json_type(const struct json_value *v)
{
	if (!v)
		return JSON_NULL;
	switch (val(v)->type) {
	case yajl_t_string:
		return JSON_STRING;
	case yajl_t_number:
		return JSON_NUMBER;
	case yajl_t_object:
		return JSON_OBJECT;
	case yajl_t_array:
		return JSON_ARRAY;
	case yajl_t_true:
	case yajl_t_false:
		return JSON_BOOL;
	default:
		return JSON_NULL;
	}
}

const char *json_type_name(const struct json_value *v)
{
	static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};

	return v ? names[json_type(v)] : "missing";
}

const char *json_as_string(const struct json_value *v)
{
	return YAJL_GET_STRING(val(v));
}

bool json_as_u64(const struct json_value *v, uint64_t *out)
{
	const char *text;
	uint64_t n = 0;

	if (!YAJL_IS_NUMBER(val(v)))
		return false;
	text = YAJL_GET_NUMBER(val(v));
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || __builtin_mul_overflow(n, 10u, &n) ||
			!checked_add(n, (uint64_t)(*text - '0'), &n))
			return false;
	}
	*out = n;
	return true;
}

bool json_as_bool(const struct json_value *v, bool *out)
{
	if (json_type(v) != JSON_BOOL)
		return false;
	*out = YAJL_IS_TRUE(val(v));
	return true;
}

size_t json_length(const struct json_value *v)
{
	switch (json_type(v)) {
	case JSON_ARRAY:
		return val(v)->u.array.len;
	case JSON_OBJECT:
		return val(v)->u.object.len;
	default:
		return 0;
	}
}

const struct json_value *json_at(const struct json_value *v, size_t i)
{
	if (i >= json_length(v))
		return NULL;
	return value(json_type(v) == JSON_ARRAY ? val(v)->u.array.values[i] : val(v)->u.object.values[i]);
}

const char *json_key_at(const struct json_value *object, size_t i)
{
	if (json_type(object) != JSON_OBJECT || i >= json_length(object))
		return NULL;
	return val(object)->u.object.keys[i];
}

const struct json_value *json_get(const struct json_value *object, const char *key)
{
	if (json_type(object) != JSON_OBJECT)
		return NULL;
	for (size_t i = 0; i < json_length(object); i++) {
		if (strcmp(json_key_at(object, i), key) == 0)
			return json_at(object, i);
	}
	return NULL;
}

const char *json_get_string(const struct json_value *object, const char *key)
{
	return json_as_string(json_get(object, key));
}

bool json_get_u64(const struct json_value *object, const char *key, uint64_t *out)
{
	return json_as_u64(json_get(object, key), out);
}

bool json_get_bool(const struct json_value *object, const char *key, bool *out)
{
	return json_as_bool(json_get(object, key), out);
}

void json_copy(struct json *out, const struct json_value *v)
{
	const char *text;
	bool array = json_type(v) == JSON_ARRAY, on;

	switch (json_type(v)) {
	case JSON_BOOL:
		json_as_bool(v, &on);
		json_bool(out, on);
		return;
	case JSON_NUMBER:
		text = YAJL_GET_NUMBER(val(v));
		check(out, yajl_gen_number(out->gen, text, strlen(text)));
		return;
	case JSON_STRING:
		json_string(out, json_as_string(v));
		return;
	case JSON_NULL:
		json_null(out);
		return;
	default:
		break;
	}
	begin(out, array ? yajl_gen_array_open(out->gen) : yajl_gen_map_open(out->gen));
	for (size_t i = 0; i < json_length(v); i++) {
		if (!array)
			json_key(out, json_key_at(v, i));
		json_copy(out, json_at(v, i));
	}
	end(out, array ? yajl_gen_array_close(out->gen) : yajl_gen_map_close(out->gen));
}
