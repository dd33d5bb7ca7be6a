/* SPDX-License-Identifier: MIT */
/*
 * JSON both ways (RFC 8259), a thin layer over yajl. The writer remembers the first error and is checked
 * once, at the end. The reader is for text that others made: it takes at most JSON_MAX_TEXT bytes and
 * JSON_MAX_DEPTH levels.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_MAX_TEXT  (1u << 20) /* bytes */
#define JSON_MAX_DEPTH 32
#define JSON_ERROR_LEN 128 /* a good size for json_parse()'s buffer */

/* ---- writer ---- */

struct json;

/* NULL: out of memory. pretty: indented, for people. */
struct json *json_new(bool pretty);
void json_free(struct json *j);

void json_object_begin(struct json *j);
void json_object_end(struct json *j);
void json_array_begin(struct json *j);
void json_array_end(struct json *j);
void json_key(struct json *j, const char *key);
/* Copied. Bytes that are no UTF-8 become '?'. NULL writes null. */
void json_string(struct json *j, const char *value);
void json_u64(struct json *j, uint64_t value);
void json_i64(struct json *j, int64_t value);
void json_double(struct json *j, double value);
void json_bool(struct json *j, bool value);
void json_null(struct json *j);

/* The text so far, borrowed until the next call, NUL-terminated. NULL when something was written where it
 * must not be. */
const char *json_text(struct json *j, size_t *len);
/* Writes the value that another writer holds, as it is. False, and nothing written: that is not one complete value. */
bool json_embed(struct json *j, struct json *value);
/* Writes the text and a newline. -EINVAL: the text is not one complete value; else the -errno of write. */
int json_write_fd(struct json *j, int fd);

/* ---- reader ---- */

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_value; /* lives as long as the root that json_parse() returned */

/* NULL: not JSON, too long or too deep; err then holds one line about why. text needs no NUL and must contain
 * none. */
struct json_value *json_parse(const char *text, size_t len, char *err, size_t err_len);
/* Only for the root. NULL is fine. */
void json_value_free(struct json_value *root);

/* All getters accept NULL for "not there" and then answer as for a value of another type. */
enum json_type json_type(const struct json_value *v);	/* NULL: JSON_NULL */
const char *json_type_name(const struct json_value *v); /* "missing", "null", "boolean", "number", … */
const char *json_as_string(const struct json_value *v); /* NULL: no string */
bool json_as_u64(const struct json_value *v, uint64_t *out);
bool json_as_bool(const struct json_value *v, bool *out);
size_t json_length(const struct json_value *v); /* array or object; else 0 */
const struct json_value *json_at(const struct json_value *v, size_t i);
const char *json_key_at(const struct json_value *object, size_t i);

/* A member of an object; the first of that name. */
const struct json_value *json_get(const struct json_value *object, const char *key);
const char *json_get_string(const struct json_value *object, const char *key);
bool json_get_u64(const struct json_value *object, const char *key, uint64_t *out);
bool json_get_bool(const struct json_value *object, const char *key, bool *out);

/* Writes a value that was read; NULL writes null. */
void json_copy(struct json *out, const struct json_value *v);

static inline void json_cleanup(struct json **j)
{
	json_free(*j);
}

static inline void json_value_cleanup(struct json_value **v)
{
	json_value_free(*v);
}

#define CLEANUP_JSON	   __attribute__((cleanup(json_cleanup)))
#define CLEANUP_JSON_VALUE __attribute__((cleanup(json_value_cleanup)))

#endif
