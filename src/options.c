/* SPDX-License-Identifier: MIT */
/*
 * Command line options from tables, see options.h. Each value goes through one function, store(), whether it
 * comes from the user or is a default, so that what --help shows as a default is what a user may write.
 */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "util.h"

#define WHY_LEN	    160
#define MAX_OPTIONS 256 /* in all sets together */

/* Digits (decimal, or hexadecimal after 0x) at *text; moves *text behind them. */
static bool take_digits(const char **text, uint64_t *out)
{
	const char *p = *text;
	unsigned base = 10, digits = 0;
	uint64_t n = 0;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (;; p++, digits++) {
		unsigned d;

		if (*p >= '0' && *p <= '9')
			d = (unsigned)(*p - '0');
		else if (base == 16 && (*p | 0x20) >= 'a' && (*p | 0x20) <= 'f')
			d = (unsigned)((*p | 0x20) - 'a' + 10);
		else
			break;
		if (__builtin_mul_overflow(n, base, &n) || !checked_add(n, d, &n))
			return false;
	}
	*text = p;
	*out = n;
	return digits > 0;
}

bool options_parse_u64(const char *text, uint64_t *out)
{
	return take_digits(&text, out) && *text == '\0';
}

bool options_parse_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *found;
	uint64_t n;

	if (!take_digits(&text, &n))
		return false;
	if (*text != '\0') {
		found = strchr(suffixes, *text & ~0x20);
		if (!found || text[1] != '\0')
			return false;
		if (__builtin_mul_overflow(n, UINT64_C(1) << (10 * (found - suffixes + 1)), &n))
			return false;
	}
	*out = n;
	return true;
}

bool options_parse_duration(const char *text, uint64_t *ms)
{
	static const struct {
		const char *suffix;
		unsigned ms;
	} units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
	uint64_t n;

	if (!take_digits(&text, &n))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(text, units[i].suffix) == 0)
			return !__builtin_mul_overflow(n, units[i].ms, ms);
	}
	return false;
}

static bool takes_value(const struct option_spec *o)
{
	return o->kind != OPTION_FLAG && !(o->kind == OPTION_CALLBACK && !o->arg);
}

/* The largest value that the member can hold and the table allows. */
static uint64_t upper_limit(const struct option_spec *o)
{
	if (o->max)
		return o->max;
	switch (o->kind) {
	case OPTION_FD:
		return INT_MAX;
	case OPTION_U32:
		return UINT32_MAX;
	default:
		return UINT64_MAX;
	}
}

/* A limit as a user would write it: in the largest unit that leaves a whole number. */
static const char *limit_text(const struct option_spec *o, uint64_t n, char buf[32])
{
	static const struct unit {
		const char *name;
		unsigned times; /* the unit before; 0: no more */
	} sizes[] = {{"", 1}, {"K", 1024}, {"M", 1024}, {"G", 1024}, {"T", 1024}, {"", 0}},
	  times[] = {{"ms", 1}, {"s", 1000}, {"m", 60}, {"h", 60}, {"", 0}}, plain[] = {{"", 1}, {"", 0}};
	const struct unit *u = o->kind == OPTION_SIZE ? sizes : o->kind == OPTION_DURATION ? times : plain;

	while (n && u[1].times && n % u[1].times == 0) {
		n /= u[1].times;
		u++;
	}
	snprintf(buf, 32, "%" PRIu64 "%s", n, n ? u->name : "");
	return buf;
}

static int in_range(const struct option_spec *o, uint64_t n, char *why)
{
	char min[32], max[32];

	if (n >= o->min && n <= upper_limit(o))
		return 0;
	snprintf(why, WHY_LEN, "not in the range from %s to %s", limit_text(o, o->min, min),
		limit_text(o, upper_limit(o), max));
	return -EINVAL;
}

static int parse_number(const struct option_spec *o, const char *value, uint64_t *n, char *why)
{
	bool (*parse)(const char *, uint64_t *) = options_parse_u64;
	const char *what = "not a number";

	if (o->kind == OPTION_SIZE) {
		parse = options_parse_size;
		what = "not a size in bytes (a number, K, M, G or T may follow)";
	} else if (o->kind == OPTION_DURATION) {
		parse = options_parse_duration;
		what = "not a duration (a number, ms, s, m or h may follow)";
	} else if (o->kind == OPTION_FD) {
		what = "not a file descriptor number";
	}
	if (!parse(value, n)) {
		snprintf(why, WHY_LEN, "%s", what);
		return -EINVAL;
	}
	return in_range(o, *n, why);
}

static int parse_choice(const struct option_spec *o, const char *value, int *out, char *why)
{
	size_t len;

	for (int i = 0; o->choices[i]; i++) {
		if (strcmp(value, o->choices[i]) == 0) {
			*out = i;
			return 0;
		}
	}
	len = (size_t)snprintf(why, WHY_LEN, "not one of");
	for (int i = 0; o->choices[i] && len < WHY_LEN; i++)
		len += (size_t)snprintf(why + len, WHY_LEN - len, "%s %s", i ? "," : "", o->choices[i]);
	return -EINVAL;
}

static int store_number(const struct option_spec *o, void *field, const char *value, char *why)
{
	uint64_t n = 0;
	int r = parse_number(o, value, &n, why);

	if (r < 0)
		return r;
	if (o->kind == OPTION_FD)
		*(int *)field = (int)n;
	else if (o->kind == OPTION_U32)
		*(uint32_t *)field = (uint32_t)n;
	else
		*(uint64_t *)field = n;
	return 0;
}

static int store_text(const struct option_spec *o, void *field, const char *value, char *why)
{
	if (o->kind == OPTION_PATH && !*value) {
		snprintf(why, WHY_LEN, "is empty");
		return -EINVAL;
	}
	*(const char **)field = value;
	return 0;
}

/* value is NULL for options that take none. 0, or -EINVAL with a reason in why. */
static int store(const struct option_spec *o, void *base, const char *value, char *why)
{
	static const char *const on_off[] = {"off", "on", NULL};
	const struct option_spec as_choice = {.choices = on_off};
	void *field = (char *)base + o->offset;
	const char *reason;
	int choice = 0, r;

	switch (o->kind) {
	case OPTION_FLAG:
		*(bool *)field = true;
		return 0;
	case OPTION_SWITCH:
		r = parse_choice(&as_choice, value, &choice, why);
		*(bool *)field = choice;
		return r;
	case OPTION_ENUM:
		return parse_choice(o, value, field, why);
	case OPTION_STRING:
	case OPTION_PATH:
		return store_text(o, field, value, why);
	case OPTION_CALLBACK:
		reason = o->parse(base, value);
		snprintf(why, WHY_LEN, "%s", reason ? reason : "");
		return reason ? -EINVAL : 0;
	default:
		return store_number(o, field, value, why);
	}
}

/* The member must be of the size that store() writes. */
static void check_spec(const struct option_spec *o)
{
	static const size_t sizes[] = {
		[OPTION_FLAG] = sizeof(bool),
		[OPTION_SWITCH] = sizeof(bool),
		[OPTION_STRING] = sizeof(char *),
		[OPTION_PATH] = sizeof(char *),
		[OPTION_FD] = sizeof(int),
		[OPTION_U32] = sizeof(uint32_t),
		[OPTION_U64] = sizeof(uint64_t),
		[OPTION_SIZE] = sizeof(uint64_t),
		[OPTION_DURATION] = sizeof(uint64_t),
		[OPTION_ENUM] = sizeof(int),
	};

	assert(o->kind == OPTION_CALLBACK ? !!o->parse : o->size == sizes[o->kind]);
	assert(o->kind != OPTION_ENUM || o->choices);
}

static const struct option_spec *next_spec(const struct option_spec *o)
{
	return o && o->name ? o : NULL;
}

static void store_defaults(const struct option_set *set)
{
	char why[WHY_LEN] = "";

	for (const struct option_spec *o = set->specs; next_spec(o); o++) {
		check_spec(o);
		if (o->kind == OPTION_FD && !o->def)
			*(int *)((char *)set->base + o->offset) = -1;
		if (o->def && store(o, set->base, o->def, why) < 0) {
			log_error("--%s: default %s: %s", o->name, o->def, why);
			abort();
		}
	}
}

/* One argument taken apart. */
struct argument {
	char name[66];	   /* "--name" or "-l", for messages */
	const char *value; /* behind '=', or glued to a letter; NULL: none */
	size_t name_len;   /* of the name without dashes */
	char letter;
};

static int split_argument(const char *text, struct argument *a)
{
	memset(a, 0, sizeof(*a));
	if (text[0] != '-' || text[1] == '\0' || strcmp(text, "--") == 0) {
		log_error("%s: unexpected argument (see --help)", text);
		return -EINVAL;
	}
	if (text[1] != '-') {
		a->letter = text[1];
		a->value = text[2] ? text + 2 : NULL;
		snprintf(a->name, sizeof(a->name), "-%c", a->letter);
		return 0;
	}
	a->name_len = strcspn(text + 2, "=");
	a->value = text[2 + a->name_len] == '=' ? text + 2 + a->name_len + 1 : NULL;
	snprintf(a->name, sizeof(a->name), "--%.*s", (int)MIN(a->name_len, 60u), text + 2);
	return 0;
}

static bool matches(const struct option_spec *o, const struct argument *a)
{
	if (a->letter)
		return o->letter == a->letter;
	return strncmp(o->name, a->name + 2, a->name_len) == 0 && o->name[a->name_len] == '\0';
}

/* The option that an argument names; index counts through all sets. */
static const struct option_spec *find_spec(
	const struct option_set *sets, size_t nsets, const struct argument *a, void **base, unsigned *index)
{
	*index = 0;
	for (size_t i = 0; i < nsets; i++) {
		for (const struct option_spec *o = sets[i].specs; next_spec(o); o++, ++*index) {
			if (a->name_len <= 60 && matches(o, a)) {
				*base = sets[i].base;
				return o;
			}
		}
	}
	return NULL;
}

/* Which options were given. */
struct given {
	bool option[MAX_OPTIONS];
};

/* Parses argv[i]; returns how many arguments that took. */
static int parse_one(
	const struct option_set *sets, size_t nsets, int argc, char *const *argv, struct given *given)
{
	const struct option_spec *o;
	struct argument a;
	char why[WHY_LEN] = "";
	void *base = NULL;
	unsigned index;
	int taken = 1;

	if (split_argument(argv[0], &a) < 0)
		return -EINVAL;
	o = find_spec(sets, nsets, &a, &base, &index);
	if (!o) {
		log_error("%s: unknown option (see --help)", a.name);
		return -EINVAL;
	}
	if (!takes_value(o) && a.value) {
		log_error("%s=%s: this option takes no value", a.name, a.value);
		return -EINVAL;
	}
	if (takes_value(o) && !a.value) {
		/* What looks like an option is none of this one's value, "--opt=--value" says it if it is
		 * meant. */
		if (argc < 2 || strncmp(argv[1], "--", 2) == 0) {
			log_error("%s: needs a value", a.name);
			return -EINVAL;
		}
		a.value = argv[1];
		taken = 2;
	}
	if (o->kind != OPTION_CALLBACK && given->option[index]) {
		log_error("%s%s%s: this option was given before", a.name, a.value ? "=" : "",
			a.value ? a.value : "");
		return -EINVAL;
	}
	given->option[index] = true;
	if (store(o, base, a.value, why) < 0) {
		log_error("%s%s%s: %s", a.name, a.value ? "=" : "", a.value ? a.value : "", why);
		return -EINVAL;
	}
	return taken;
}

int options_parse(const struct option_set *sets, size_t nsets, int argc, char *const *argv)
{
	struct given given = {0};
	unsigned index = 0;

	for (size_t i = 0; i < nsets; i++)
		store_defaults(&sets[i]);
	for (int i = 0; i < argc;) {
		int n = parse_one(sets, nsets, argc - i, argv + i, &given);

		if (n < 0)
			return n;
		i += n;
	}
	for (size_t i = 0; i < nsets; i++) {
		for (const struct option_spec *o = sets[i].specs; next_spec(o); o++, index++) {
			assert(index < MAX_OPTIONS);
			if (o->required && !given.option[index]) {
				log_error("--%s: is required", o->name);
				return -EINVAL;
			}
		}
	}
	return 0;
}

/* "PATH", "on|off", "writeback|writethrough" */
static void value_text(const struct option_spec *o, char *buf, size_t size)
{
	static const char *const names[] = {
		[OPTION_SWITCH] = "on|off",
		[OPTION_STRING] = "TEXT",
		[OPTION_PATH] = "PATH",
		[OPTION_FD] = "N",
		[OPTION_U32] = "N",
		[OPTION_U64] = "N",
		[OPTION_SIZE] = "SIZE",
		[OPTION_DURATION] = "TIME",
		[OPTION_CALLBACK] = "VALUE",
	};
	size_t len = 0;

	buf[0] = '\0';
	if (o->arg || o->kind != OPTION_ENUM) {
		snprintf(buf, size, "%s", o->arg ? o->arg : names[o->kind]);
		return;
	}
	for (int i = 0; o->choices[i] && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%s", i ? "|" : "", o->choices[i]);
}

/* " (default: 1M, from 1 to 16M)", or nothing */
static void limits_text(const struct option_spec *o, char *buf, size_t size)
{
	const char *def = o->def ? o->def : o->no_def;
	bool has_max = o->max && o->max < INT64_MAX; /* else it only keeps arithmetic safe */
	char min[32], max[32];
	size_t len = 0;

	buf[0] = '\0';
	if (def && *def)
		len = (size_t)snprintf(buf, size, "default: %s", def);
	if (o->required)
		len = (size_t)snprintf(buf, size, "required");
	if (len >= size)
		return;
	buf += len;
	size -= len;
	limit_text(o, o->min, min);
	limit_text(o, o->max, max);
	if (o->min && has_max)
		snprintf(buf, size, "%sfrom %s to %s", len ? ", " : "", min, max);
	else if (has_max)
		snprintf(buf, size, "%sat most %s", len ? ", " : "", max);
	else if (o->min)
		snprintf(buf, size, "%sat least %s", len ? ", " : "", min);
}

enum { HELP_COLUMN = 28, HELP_WIDTH = 100 };

/* Words from HELP_COLUMN to HELP_WIDTH; the cursor is at HELP_COLUMN already. */
static void print_wrapped(const char *text, FILE *out)
{
	size_t column = HELP_COLUMN;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (column > HELP_COLUMN && column + 1 + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", HELP_COLUMN, "");
			column = HELP_COLUMN;
		}
		column += (size_t)fprintf(out, "%s%.*s", column > HELP_COLUMN ? " " : "", (int)len, text);
		text += len + strspn(text + len, " ");
	}
	putc('\n', out);
}

static void print_option(const struct option_spec *o, FILE *out)
{
	char head[8] = "", value[96] = "", limits[128], text[512];
	int len;

	if (o->letter)
		snprintf(head, sizeof(head), "-%c, ", o->letter);
	if (takes_value(o))
		value_text(o, value, sizeof(value));
	len = fprintf(out, "  %s--%s%s%s", head, o->name, *value ? "=" : "", value);
	limits_text(o, limits, sizeof(limits));
	snprintf(text, sizeof(text), *limits ? "%s (%s)" : "%s%s", o->help ? o->help : "", limits);
	if (*text && len < HELP_COLUMN)
		fprintf(out, "%*s", HELP_COLUMN - len, "");
	else if (*text)
		fprintf(out, "\n%*s", HELP_COLUMN, "");
	print_wrapped(text, out);
}

void options_help(const struct option_set *sets, size_t nsets, FILE *out)
{
	for (size_t i = 0; i < nsets; i++) {
		if (!next_spec(sets[i].specs))
			continue;
		if (sets[i].title)
			fprintf(out, "\n%s:\n", sets[i].title);
		for (const struct option_spec *o = sets[i].specs; next_spec(o); o++)
			print_option(o, out);
	}
}
