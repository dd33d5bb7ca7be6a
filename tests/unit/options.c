/* SPDX-License-Identifier: MIT */
/* Option tables: every kind of value, both spellings, every complaint, and the help made of the same tables.
 */
#include "../lib/tap.h"

#include "../../src/options.h"
#include "../../src/util.h"

struct values {
	bool flag, packed;
	const char *text, *path;
	int fd, cache;
	uint32_t u32;
	uint64_t u64, size, ms;
	unsigned calls;
	const char *last;
};

static const char *remember(void *base, const char *value)
{
	struct values *v = base;

	if (strcmp(value, "bad") == 0)
		return "is bad";
	v->calls++;
	v->last = value;
	return NULL;
}

static const char *const caches[] = {"writeback", "writethrough", NULL};

static const struct option_spec specs[] = {
	{"flag", OPTION_FLAG, OPTION_FIELD(struct values, flag), .letter = 'f', .help = "a flag"},
	{"packed", OPTION_SWITCH, OPTION_FIELD(struct values, packed), .def = "on"},
	{"text", OPTION_STRING, OPTION_FIELD(struct values, text), .letter = 't', .def = "hello"},
	{"path", OPTION_PATH, OPTION_FIELD(struct values, path), .no_def = "none",
		.help = "a file or two, with so many words about them that they need another line of "
			"the help to be said"},
	{"fd", OPTION_FD, OPTION_FIELD(struct values, fd)},
	{"cache", OPTION_ENUM, OPTION_FIELD(struct values, cache), .choices = caches, .def = "writethrough"},
	{"u32", OPTION_U32, OPTION_FIELD(struct values, u32), .min = 2, .max = 300},
	{"u64", OPTION_U64, OPTION_FIELD(struct values, u64)},
	{"size", OPTION_SIZE, OPTION_FIELD(struct values, size), .def = "1M", .min = 512,
		.max = UINT64_C(1) << 42},
	{"time", OPTION_DURATION, OPTION_FIELD(struct values, ms), .def = "2s"},
	OPTIONS_END,
};

static const struct option_spec more[] = {
	{"again", OPTION_CALLBACK, .arg = "WORD", .parse = remember},
	OPTIONS_END,
};

/* What went to stderr while fn ran, into buf. */
static int parse(struct values *v, char *complaint, size_t size, int argc, char *const *argv)
{
	const struct option_set sets[] = {
		{.specs = specs, .base = v}, {.specs = NULL}, {.specs = more, .base = v}};
	int pipe_fds[2], saved = dup(2), r;
	ssize_t n;

	memset(v, 0, sizeof(*v));
	CHECK_SYS(pipe(pipe_fds));
	dup2(pipe_fds[1], 2);
	r = options_parse(sets, ARRAY_SIZE(sets), argc, argv);
	dup2(saved, 2);
	close(saved);
	close(pipe_fds[1]);
	n = read(pipe_fds[0], complaint, size - 1);
	complaint[n > 0 ? n : 0] = '\0';
	close(pipe_fds[0]);
	return r;
}

#define PARSE(v, out, ...)                                                                      \
	parse((v), (out), sizeof(out), (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), \
		(char *[]){__VA_ARGS__})

static void defaults(void *arg UNUSED)
{
	struct values v;
	char err[256];

	CHECK_EQ(parse(&v, err, sizeof(err), 0, NULL), 0);
	CHECK_STR(err, "");
	CHECK(!v.flag && v.packed);
	CHECK_STR(v.text, "hello");
	CHECK(!v.path);
	CHECK_EQ(v.fd, -1);
	CHECK_EQ(v.cache, 1);
	CHECK_EQ(v.size, 1 << 20);
	CHECK_EQ(v.ms, 2000);
	CHECK_EQ(v.u64, 0);
}

static void both_spellings(void *arg UNUSED)
{
	struct values v;
	char err[256];

	CHECK_EQ(PARSE(&v, err, "--flag", "--packed=off", "--text", "", "--path", "/a=b", "--fd=7", "--cache",
			 "writeback", "--u32=0x10", "--u64", "18446744073709551615", "--size=3k",
			 "--time=100ms"),
		0);
	CHECK(v.flag && !v.packed);
	CHECK_STR(v.text, "");
	CHECK_STR(v.path, "/a=b");
	CHECK_EQ(v.fd, 7);
	CHECK_EQ(v.cache, 0);
	CHECK_EQ(v.u32, 16);
	CHECK_EQ(v.u64, UINT64_MAX);
	CHECK_EQ(v.size, 3072);
	CHECK_EQ(v.ms, 100);
	CHECK_EQ(PARSE(&v, err, "-f", "-tone", "--path=--odd"), 0);
	CHECK(v.flag);
	CHECK_STR(v.text, "one");
	CHECK_STR(v.path, "--odd");
	CHECK_EQ(PARSE(&v, err, "-t", "two"), 0);
	CHECK_STR(v.text, "two");
}

static void repeats(void *arg UNUSED)
{
	struct values v;
	char err[256];

	CHECK_EQ(PARSE(&v, err, "--again=a", "--again", "b"), 0);
	CHECK_EQ(v.calls, 2);
	CHECK_STR(v.last, "b");
	CHECK_EQ(PARSE(&v, err, "--fd=3", "--fd", "4"), -EINVAL);
	CHECK_HAS(err, "--fd=4: ");
	CHECK_EQ(PARSE(&v, err, "--flag", "-f"), -EINVAL);
}

struct complaint {
	const char *args[3];
	const char *text;
};

static const struct complaint complaints[] = {
	{{"--nothing=1"}, "--nothing: unknown option"},
	{{"--fla"}, "--fla: unknown option"},
	{{"--flags"}, "--flags: unknown option"},
	{{"-x"}, "-x: unknown option"},
	{{"word"}, "word: unexpected argument"},
	{{"-"}, "-: unexpected argument"},
	{{"--"}, "--: unexpected argument"},
	{{"--="}, "--: unknown option"},
	{{"--flag=yes"}, "--flag=yes: this option takes no value"},
	{{"--path"}, "--path: needs a value"},
	{{"--path", "--flag"}, "--path: needs a value"},
	{{"--path="}, "--path=: is empty"},
	{{"--packed=maybe"}, "--packed=maybe: not one of off, on"},
	{{"--cache=none"}, "--cache=none: not one of writeback, writethrough"},
	{{"--fd=-1"}, "--fd=-1: not a file descriptor number"},
	{{"--fd=2147483648"}, "--fd=2147483648: not in the range from 0 to 2147483647"},
	{{"--u32=1"}, "--u32=1: not in the range from 2 to 300"},
	{{"--u32=301"}, "--u32=301: not in the range from 2 to 300"},
	{{"--u32", "4294967298"}, "--u32=4294967298: not in the range"},
	{{"--u64=18446744073709551616"}, "not a number"},
	{{"--u64= 1"}, "not a number"},
	{{"--u64=1x"}, "not a number"},
	{{"--u64=0x"}, "not a number"},
	{{"--u64="}, "not a number"},
	{{"--u64=+1"}, "not a number"},
	{{"--size=1KB"}, "--size=1KB: not a size in bytes"},
	{{"--size=16777216T"}, "not a size in bytes"},
	{{"--size=5T"}, "--size=5T: not in the range from 512 to 4T"},
	{{"--time=1d"}, "--time=1d: not a duration"},
	{{"--again=bad"}, "--again=bad: is bad"},
};

static void complain(void *arg UNUSED)
{
	for (size_t i = 0; i < ARRAY_SIZE(complaints); i++) {
		const struct complaint *c = &complaints[i];
		struct values v;
		char err[256];
		int argc = 0;

		while (c->args[argc])
			argc++;
		CHECK_EQ(parse(&v, err, sizeof(err), argc, (char *const *)(uintptr_t)c->args), -EINVAL);
		CHECK_HAS(err, c->text);
		/* one line */
		CHECK(strchr(err, '\n') == err + strlen(err) - 1);
	}
}

static void required(void *arg UNUSED)
{
	const struct option_spec need[] = {
		{"path", OPTION_PATH, OPTION_FIELD(struct values, path), .required = true}, OPTIONS_END};
	struct values v = {0};
	const struct option_set set = {.specs = need, .base = &v};

	CHECK_EQ(options_parse(&set, 1, 0, NULL), -EINVAL);
	CHECK_EQ(options_parse(&set, 1, 1, (char *[]){"--path=x"}), 0);
}

static void numbers(void *arg UNUSED)
{
	uint64_t n;

	CHECK(options_parse_u64("010", &n) && n == 10);
	CHECK(options_parse_u64("0xFf", &n) && n == 255);
	CHECK(!options_parse_u64("0xg", &n));
	CHECK(options_parse_size("0", &n) && n == 0);
	CHECK(options_parse_size("2G", &n) && n == UINT64_C(2) << 30);
	CHECK(options_parse_size("1t", &n) && n == UINT64_C(1) << 40);
	CHECK(!options_parse_size("K", &n));
	CHECK(!options_parse_size("1P", &n));
	CHECK(options_parse_duration("3m", &n) && n == 180000);
	CHECK(options_parse_duration("1h", &n) && n == 3600000);
	CHECK(options_parse_duration("5", &n) && n == 5);
	CHECK(!options_parse_duration("18446744073709551615s", &n));
}

static void help(void *arg UNUSED)
{
	const struct option_set sets[] = {
		{.specs = specs, .title = "First"}, {.specs = more, .title = "Second"}};
	char text[4096] = "";
	FILE *f = fmemopen(text, sizeof(text) - 1, "w");

	options_help(sets, ARRAY_SIZE(sets), f);
	fclose(f);
	CHECK_HAS(text, "\nFirst:\n  -f, --flag                a flag\n");
	CHECK_HAS(text, "  --packed=on|off           (default: on)\n");
	CHECK_HAS(text,
		"  --path=PATH               a file or two, with so many words about them that they need another line\n"
		"                            of the help to be said (default: none)\n");
	CHECK_HAS(text, "  --fd=N\n");
	CHECK_HAS(text, "  --cache=writeback|writethrough\n");
	CHECK_HAS(text, "(default: writethrough)");
	CHECK_HAS(text, "(from 2 to 300)");
	CHECK_HAS(text, "(default: 1M, from 512 to 4T)");
	CHECK_HAS(text, "\nSecond:\n  --again=WORD");
}

int main(void)
{
	tap_case("defaults", defaults, NULL);
	tap_case("both spellings and letters", both_spellings, NULL);
	tap_case("repeated options", repeats, NULL);
	tap_case("complaints", complain, NULL);
	tap_case("required options", required, NULL);
	tap_case("numbers", numbers, NULL);
	tap_case("help", help, NULL);
	return tap_done();
}
