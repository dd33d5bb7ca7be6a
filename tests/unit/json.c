/* SPDX-License-Identifier: MIT */
/* JSON writer and reader: round trips, sticky errors, limits on hostile text. */
#include "../lib/tap.h"

#include "../../src/json.h"
#include "../../src/util.h"

static void writes(void *arg UNUSED)
{
	CLEANUP_JSON struct json *j = json_new(false);
	size_t len;

	json_object_begin(j);
	json_key(j, "name");
	json_string(j, "a\"b\n\xc3\xa4");
	json_key(j, "list");
	json_array_begin(j);
	json_u64(j, UINT64_MAX);
	json_i64(j, INT64_MIN);
	json_double(j, 0.25);
	json_bool(j, true);
	json_null(j);
	json_string(j, NULL);
	json_array_end(j);
	json_key(j, "bytes");
	json_string(j, "x\xff\xfey");
	json_object_end(j);
	CHECK_STR(json_text(j, &len),
		"{\"name\":\"a\\\"b\\n\xc3\xa4\",\"list\":[18446744073709551615,-9223372036854775808,0.25,true,null,null],"
		"\"bytes\":\"x??y\"}");
	CHECK_EQ(len, strlen(json_text(j, NULL)));
}

static void write_errors(void *arg UNUSED)
{
	CLEANUP_JSON struct json *no_key = json_new(false), *open = json_new(false), *two = json_new(false);
	CLEANUP_JSON struct json *inf = json_new(false), *empty = json_new(false), *closed = json_new(false);

	json_object_begin(no_key);
	json_u64(no_key, 1); /* a key must be a string */
	json_object_end(no_key);
	CHECK(!json_text(no_key, NULL));
	CHECK_EQ(json_write_fd(no_key, 1), -EINVAL);

	json_array_begin(open);
	CHECK_EQ(json_write_fd(open, 1), -EINVAL);

	json_u64(two, 1);
	json_u64(two, 2);
	CHECK(!json_text(two, NULL));

	json_double(inf, 1e308 * 10);
	CHECK(!json_text(inf, NULL));

	CHECK_EQ(json_write_fd(empty, 1), -EINVAL);

	json_array_begin(closed);
	json_array_end(closed);
	json_array_end(closed);
	CHECK_EQ(json_write_fd(closed, 1), -EINVAL);
}

static void writes_fd(void *arg UNUSED)
{
	CLEANUP_JSON struct json *j = json_new(true);
	char buf[64] = "";
	int fds[2];

	json_object_begin(j);
	json_key(j, "a");
	json_u64(j, 1);
	json_object_end(j);
	CHECK_SYS(pipe(fds));
	CHECK_EQ(json_write_fd(j, fds[1]), 0);
	CHECK_EQ(read(fds[0], buf, sizeof(buf) - 1), 13);
	CHECK_STR(buf, "{\n  \"a\": 1\n}\n");
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(json_write_fd(j, fds[1]), -EPIPE);
}

static struct json_value *must_parse(const char *text)
{
	char err[JSON_ERROR_LEN] = "";
	struct json_value *v = json_parse(text, strlen(text), err, sizeof(err));

	if (!v)
		FAIL("%s: %s", text, err);
	return v;
}

static void reads(void *arg UNUSED)
{
	CLEANUP_JSON_VALUE struct json_value *v = must_parse(
		"{\"s\":\"x\\u00e4\",\"n\":18446744073709551615,\"neg\":-1,\"f\":1.5,\"big\":18446744073709551616,"
		"\"t\":true,\"f2\":false,\"z\":null,\"a\":[1,\"two\",[]],\"o\":{},\"s\":\"second\"}");
	const struct json_value *a;
	uint64_t n = 7;
	bool b = false;

	CHECK_EQ(json_type(v), JSON_OBJECT);
	CHECK_EQ(json_length(v), 11);
	CHECK_STR(json_key_at(v, 1), "n");
	CHECK_STR(json_get_string(v, "s"), "x\xc3\xa4");
	CHECK(json_get_u64(v, "n", &n) && n == UINT64_MAX);
	CHECK(!json_get_u64(v, "neg", &n) && !json_get_u64(v, "f", &n) && !json_get_u64(v, "big", &n));
	CHECK(!json_get_u64(v, "s", &n) && !json_get_u64(v, "none", &n));
	CHECK(json_get_bool(v, "t", &b) && b);
	CHECK(json_get_bool(v, "f2", &b) && !b);
	CHECK(!json_get_bool(v, "z", &b) && !json_get_string(v, "t"));
	CHECK_EQ(json_type(json_get(v, "z")), JSON_NULL);
	a = json_get(v, "a");
	CHECK_EQ(json_length(a), 3);
	CHECK_STR(json_as_string(json_at(a, 1)), "two");
	CHECK_EQ(json_length(json_at(a, 2)), 0);
	CHECK(!json_at(a, 3) && !json_key_at(a, 0) && !json_get(a, "x"));
	CHECK_STR(json_type_name(json_get(v, "none")), "missing");
	CHECK_STR(json_type_name(a), "array");
	CHECK_EQ(json_length(NULL), 0);
	CHECK(!json_get(NULL, "x") && !json_as_string(NULL) && !json_as_bool(NULL, &b));
}

static void refuse(const char *text, size_t len, const char *why)
{
	char err[JSON_ERROR_LEN] = "";

	if (json_parse(text, len, err, sizeof(err)))
		FAIL("accepted: %.60s", text);
	CHECK_HAS(err, why);
	CHECK(*err && !strchr(err, '\n'));
}

static void refuses(void *arg UNUSED)
{
	static const char *const bad[] = {"", " ", "{", "{\"a\"}", "[1,]", "{\"a\":1,}", "[1] 2", "nul",
		"'a'", "[01]", "\"a", "\"\\x\"", "\"\xff\"", "[1", "]", "{1:2}", "\"\\ud800\""};

	for (size_t i = 0; i < ARRAY_SIZE(bad) - 1; i++)
		refuse(bad[i], strlen(bad[i]), "");
	refuse("[\"a\0b\"]", 7, "NUL");
	refuse("[1]\0", 4, "NUL");
	refuse("[\"\\u0000\"]", 10, "NUL");
	json_value_free(must_parse("\"\\\\u0000\"")); /* a backslash, then u0000 */
	refuse("\"\\", 2, "");
}

static void limits(void *arg UNUSED)
{
	char text[2 * JSON_MAX_DEPTH + 3], *big = malloc(JSON_MAX_TEXT + 1);
	char err[JSON_ERROR_LEN];
	struct json_value *v;

	memset(text, '[', JSON_MAX_DEPTH);
	memset(text + JSON_MAX_DEPTH, ']', JSON_MAX_DEPTH);
	text[2 * JSON_MAX_DEPTH] = '\0';
	json_value_free(must_parse(text));
	memset(text, '[', JSON_MAX_DEPTH + 1);
	memset(text + JSON_MAX_DEPTH + 1, ']', JSON_MAX_DEPTH + 1);
	refuse(text, 2 * JSON_MAX_DEPTH + 2, "too deeply");

	/* brackets in a string do not count, siblings do not add up */
	json_value_free(must_parse("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\""));
	json_value_free(must_parse(
		"[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		"[],[],[],[],[],[]]"));

	memset(big, ' ', JSON_MAX_TEXT + 1);
	big[0] = '1';
	v = json_parse(big, JSON_MAX_TEXT, err, sizeof(err));
	CHECK(v);
	json_value_free(v);
	refuse(big, JSON_MAX_TEXT + 1, "1 MiB");
	memset(big, '[', JSON_MAX_TEXT);
	refuse(big, JSON_MAX_TEXT, "too deeply");
	free(big);
}

int main(void)
{
	tap_case("writes", writes, NULL);
	tap_case("remembers errors", write_errors, NULL);
	tap_case("writes to a file descriptor", writes_fd, NULL);
	tap_case("reads", reads, NULL);
	tap_case("refuses what is no JSON", refuses, NULL);
	tap_case("limits size and depth", limits, NULL);
	return tap_done();
}
