/* SPDX-License-Identifier: MIT */
/*
 * The search for a backend program (QEMU interop: vhost-user, "Backend program conventions", and
 *docs/interop/ vhost-user.json). Description files lie in three levels of directories, from general to
 *specific:
 *
 *	$XDG_DATA_DIRS/qemu/vhost-user      (/usr/local/share:/usr/share; its last entry is the most general)
 *	/etc/qemu/vhost-user                (or $VHOST_USER_CONF_DIR)
 *	$XDG_CONFIG_HOME/qemu/vhost-user    ($HOME/.config)
 *
 * A file hides those of the same name in more general directories, and hides them for good when it is empty.
 *What is left is sorted by name; the first file whose type fits and whose program prints all wanted features
 *wins.
 */
#include "discover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"
#include "log.h"
#include "options.h"
#include "probe.h"
#include "util.h"

#define MAX_FEATURES 32
#define MAX_DIRS     64
#define MAX_FILES    1024 /* in all directories */
#define SUBDIR	     "/qemu/vhost-user"

/* One description file. */
struct candidate {
	char *path;
	const char *name;		/* inside path */
	bool hidden;			/* empty: neither this one nor those it overrides */
	bool broken;			/* no valid description */
	struct json_value *description; /* owned; NULL when broken */
	struct json_value *answer; /* what the program printed, owned; NULL: not asked, or no valid answer */
	char why[PROBE_WHY_LEN];   /* why it was not taken */
};

struct discover {
	const char *const *types; /* valid type names */

	const char *type; /* options */
	const char *features[MAX_FEATURES];
	unsigned num_features;
	bool json, verbose;
	uint64_t limit_ms;

	char *dirs[MAX_DIRS]; /* general to specific */
	unsigned num_dirs;
	struct candidate *files; /* sorted by name */
	size_t num_files;
	struct candidate *winner;
};

static const char *add_feature(void *base, const char *value)
{
	struct discover *d = base;

	if (!*value)
		return "is empty";
	if (d->num_features == MAX_FEATURES)
		return "too many features";
	d->features[d->num_features++] = value;
	return NULL;
}

static const struct option_spec discover_options[] = {
	{"type", OPTION_STRING, OPTION_FIELD(struct discover, type), .arg = "TYPE",
		.help = "the device type that is wanted", .no_def = "any"},
	{"feature", OPTION_CALLBACK, .arg = "FEATURE", .parse = add_feature,
		.help = "the program must have this feature; may be given more than once"},
	{"json", OPTION_FLAG, OPTION_FIELD(struct discover, json), .help = "print the result as JSON"},
	{"verbose", OPTION_FLAG, OPTION_FIELD(struct discover, verbose), .letter = 'v',
		.help = "say why each other candidate was not taken"},
	{"timeout", OPTION_DURATION, OPTION_FIELD(struct discover, limit_ms), .def = "5s", .min = 1,
		.max = 3600000, .help = "how long a program may take to print its capabilities"},
	OPTIONS_END,
};

static void print_help(void)
{
	const struct option_set set = {.specs = discover_options, .title = "Options"};

	printf("Usage: vhost-user-multi discover [OPTION]...\n"
	       "Finds the vhost-user backend program that management software would choose.\n");
	options_help(&set, 1, stdout);
	printf("  --help                    show this text\n"
	       "\nEnvironment:\n"
	       "  XDG_DATA_DIRS, XDG_CONFIG_HOME, HOME: where description files lie\n"
	       "  VHOST_USER_CONF_DIR: used instead of /etc/qemu/vhost-user\n");
}

/* ---- directories and files ---- */

/* The text is relative, or there are too many: ignored, as the XDG rules want. */
static void add_dir(struct discover *d, const char *base, size_t len, const char *sub)
{
	if (len == 0 || base[0] != '/' || d->num_dirs == MAX_DIRS)
		return;
	if (asprintf(&d->dirs[d->num_dirs], "%.*s%s", (int)len, base, sub) > 0)
		d->num_dirs++;
}

static void find_dirs(struct discover *d)
{
	const char *data = getenv("XDG_DATA_DIRS"), *conf = getenv("VHOST_USER_CONF_DIR");
	const char *own = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	size_t end;

	if (!data || !*data)
		data = "/usr/local/share:/usr/share";
	if (!conf || !*conf)
		conf = "/etc" SUBDIR;
	/* its first entry is the most specific */
	for (end = strlen(data);; end--) {
		size_t begin = end;

		while (begin > 0 && data[begin - 1] != ':')
			begin--;
		add_dir(d, data + begin, end - begin, SUBDIR);
		end = begin;
		if (end == 0)
			break;
	}
	add_dir(d, conf, strlen(conf), "");
	if (own && *own)
		add_dir(d, own, strlen(own), SUBDIR);
	else if (home)
		add_dir(d, home, strlen(home), "/.config" SUBDIR);
}

static struct candidate *find_file(struct discover *d, const char *name)
{
	for (size_t i = 0; i < d->num_files; i++) {
		if (strcmp(d->files[i].name, name) == 0)
			return &d->files[i];
	}
	return NULL;
}

static int add_file(struct discover *d, const char *dir, const char *name)
{
	struct candidate *c = find_file(d, name);
	char *path = NULL;
	struct stat st;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return -ENOMEM;
	/* A link that leads nowhere is a candidate too: it is reported when it is read. A link to /dev/null
	 * hides. */
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) {
		free(path);
		return 0;
	}
	if (!c) {
		if (d->num_files == MAX_FILES) {
			free(path);
			return log_errno(E2BIG, "%s: more than %u files", dir, MAX_FILES);
		}
		c = &d->files[d->num_files++];
		*c = (struct candidate){0};
	}
	free(c->path);
	c->path = path;
	c->name = path + strlen(dir) + 1;
	return 0;
}

static int scan_dir(struct discover *d, const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		if (errno != ENOENT)
			log_warn("%s: %s", path, strerror(errno));
		return 0;
	}
	while (r == 0 && (e = readdir(dir))) {
		if (e->d_name[0] != '.')
			r = add_file(d, path, e->d_name);
	}
	closedir(dir);
	return r;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct candidate *)a)->name, ((const struct candidate *)b)->name);
}

static int find_files(struct discover *d)
{
	int r = 0;

	d->files = calloc(MAX_FILES, sizeof(*d->files));
	if (!d->files)
		return log_errno(ENOMEM, "discover");
	for (unsigned i = 0; i < d->num_dirs && r == 0; i++)
		r = scan_dir(d, d->dirs[i]);
	qsort(d->files, d->num_files, sizeof(*d->files), by_name);
	return r;
}

/* ---- one description ---- */

static int reject(struct candidate *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int reject(struct candidate *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* *len is 0 and *out NULL for an empty file. */
static int read_file(struct candidate *c, char **out, size_t *len)
{
	CLEANUP_FD int fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	CLEANUP_FREE char *text = NULL;
	size_t done = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return reject(c, "%s", strerror(errno));
	if (st.st_size > JSON_MAX_TEXT)
		return reject(c, "longer than 1 MiB");
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return reject(c, "out of memory");
	while (done < (size_t)st.st_size) {
		n = read(fd, text + done, (size_t)st.st_size - done);
		if (n < 0)
			return reject(c, "%s", strerror(errno));
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*len = done;
	*out = text;
	text = NULL;
	return 0;
}

static bool known_type(const struct discover *d, const char *type)
{
	for (unsigned i = 0; d->types[i]; i++) {
		if (strcmp(d->types[i], type) == 0)
			return true;
	}
	return false;
}

static int need_string(struct candidate *c, const struct json_value *v, const char *key)
{
	if (json_get_string(v, key))
		return 0;
	return reject(c, "\"%s\" is %s, not a string", key, json_type_name(json_get(v, key)));
}

static bool all_strings(const struct json_value *array)
{
	for (size_t i = 0; i < json_length(array); i++) {
		if (!json_as_string(json_at(array, i)))
			return false;
	}
	return json_type(array) == JSON_ARRAY;
}

/* The rules of schema/description.json, but what management software ignores is only reported. */
static int check_description(struct discover *d, struct candidate *c, const struct json_value *v)
{
	static const char *const known[] = {"description", "type", "binary", "tags"};
	int r = 0;

	if (json_type(v) != JSON_OBJECT)
		return reject(c, "%s, not an object", json_type_name(v));
	for (size_t i = 0; i < 3 && r == 0; i++)
		r = need_string(c, v, known[i]);
	if (r < 0)
		return r;
	if (!known_type(d, json_get_string(v, "type")))
		return reject(c, "unknown type \"%s\"", json_get_string(v, "type"));
	if (json_get_string(v, "binary")[0] != '/')
		return reject(c, "\"binary\" is not an absolute path");
	if (json_get(v, "tags") && !all_strings(json_get(v, "tags")))
		return reject(c, "\"tags\" is not an array of strings");
	for (size_t i = 0; i < json_length(v); i++) {
		bool found = false;

		for (size_t k = 0; k < ARRAY_SIZE(known); k++)
			found |= strcmp(json_key_at(v, i), known[k]) == 0;
		if (!found)
			log_warn("%s: unknown member \"%s\"", c->path, json_key_at(v, i));
	}
	return 0;
}

static void load(struct discover *d, struct candidate *c)
{
	CLEANUP_JSON_VALUE struct json_value *v = NULL;
	CLEANUP_FREE char *text = NULL;
	char err[JSON_ERROR_LEN];
	size_t len = 0;

	c->broken = true;
	if (read_file(c, &text, &len) < 0)
		return;
	if (len == 0) {
		c->broken = false;
		c->hidden = true;
		reject(c, "empty: hides all files of this name");
		return;
	}
	v = json_parse(text, len, err, sizeof(err));
	if (!v) {
		reject(c, "not valid JSON: %s", err);
		return;
	}
	if (check_description(d, c, v) < 0)
		return;
	c->broken = false;
	c->description = v;
	v = NULL;
}

/* ---- one program ---- */

static bool has_feature(const struct json_value *features, const char *feature)
{
	for (size_t i = 0; i < json_length(features); i++) {
		if (strcmp(json_as_string(json_at(features, i)), feature) == 0)
			return true;
	}
	return false;
}

static int check_answer(struct discover *d, struct candidate *c, const struct json_value *v)
{
	const struct json_value *features = json_get(v, "features");
	const char *type = json_get_string(v, "type"), *binary = json_get_string(c->description, "binary");

	if (!type)
		return reject(c, "%s prints no \"type\"", binary);
	if (strcmp(type, json_get_string(c->description, "type")) != 0)
		return reject(c, "%s says that it is of type \"%s\"", binary, type);
	if (features && !all_strings(features))
		return reject(c, "%s: \"features\" is not an array of strings", binary);
	for (unsigned i = 0; i < d->num_features; i++) {
		if (!has_feature(features, d->features[i]))
			return reject(c, "%s lacks the feature \"%s\"", binary, d->features[i]);
	}
	return 0;
}

/* 0: this one fits; else why it does not is in c->why. */
static int ask_program(struct discover *d, struct candidate *c)
{
	const char *binary = json_get_string(c->description, "binary");
	CLEANUP_JSON_VALUE struct json_value *v = NULL;
	CLEANUP_FREE char *text = NULL;
	char why[PROBE_WHY_LEN], err[JSON_ERROR_LEN];
	size_t len = 0;
	int r;

	if (probe_run(binary, d->limit_ms, &text, &len, why, sizeof(why)) < 0)
		return reject(c, "%s --print-capabilities: %s", binary, why);
	v = json_parse(text, len, err, sizeof(err));
	if (!v)
		return reject(c, "%s prints no valid JSON: %s", binary, err);
	r = check_answer(d, c, v);
	if (r == 0) {
		c->answer = v;
		v = NULL;
	}
	return r;
}

static void judge(struct discover *d, struct candidate *c)
{
	load(d, c);
	if (c->broken)
		log_warn("%s: %s", c->path, c->why);
	if (!c->description)
		return;
	if (d->type && strcmp(json_get_string(c->description, "type"), d->type) != 0)
		reject(c, "type is \"%s\"", json_get_string(c->description, "type"));
	else if (d->winner)
		reject(c, "comes after %s", d->winner->name);
	else if (ask_program(d, c) == 0)
		d->winner = c;
}

/* ---- result ---- */

static void write_value(struct json *out, const struct json_value *v)
{
	json_array_begin(out);
	for (size_t i = 0; i < json_length(v); i++)
		json_string(out, json_as_string(json_at(v, i)));
	json_array_end(out);
}

static void write_member(struct json *out, const char *key, const char *value)
{
	json_key(out, key);
	json_string(out, value);
}

static void write_winner(struct json *out, const struct candidate *c)
{
	write_member(out, "file", c->path);
	write_member(out, "type", json_get_string(c->description, "type"));
	write_member(out, "binary", json_get_string(c->description, "binary"));
	write_member(out, "description", json_get_string(c->description, "description"));
	json_key(out, "tags");
	write_value(out, json_get(c->description, "tags"));
	json_key(out, "features");
	write_value(out, json_get(c->answer, "features"));
}

static int print_json(const struct discover *d)
{
	CLEANUP_JSON struct json *out = json_new(true);
	int r;

	if (!out)
		return log_errno(ENOMEM, "discover");
	json_object_begin(out);
	if (d->winner)
		write_winner(out, d->winner);
	if (d->verbose) {
		json_key(out, "rejected");
		json_array_begin(out);
		for (size_t i = 0; i < d->num_files; i++) {
			if (&d->files[i] == d->winner)
				continue;
			json_object_begin(out);
			write_member(out, "file", d->files[i].path);
			write_member(out, "reason", d->files[i].why);
			json_object_end(out);
		}
		json_array_end(out);
	}
	json_object_end(out);
	r = json_write_fd(out, STDOUT_FILENO);
	return r < 0 ? log_errno(r, "standard output") : 0;
}

static int print_text(const struct discover *d)
{
	if (d->winner)
		printf("%s\n", json_get_string(d->winner->description, "binary"));
	if (d->verbose && d->winner)
		fprintf(stderr, "%s: taken\n", d->winner->path);
	for (size_t i = 0; d->verbose && i < d->num_files; i++) {
		if (&d->files[i] != d->winner)
			fprintf(stderr, "%s: %s\n", d->files[i].path, d->files[i].why);
	}
	if (fflush(stdout) != 0)
		return log_errno(errno, "standard output");
	return 0;
}

static void clean_up(struct discover *d)
{
	for (size_t i = 0; i < d->num_files; i++) {
		free(d->files[i].path);
		json_value_free(d->files[i].description);
		json_value_free(d->files[i].answer);
	}
	free(d->files);
	for (unsigned i = 0; i < d->num_dirs; i++)
		free(d->dirs[i]);
}

static int search(struct discover *d)
{
	int r;

	find_dirs(d);
	if (find_files(d) < 0)
		return 1;
	for (size_t i = 0; i < d->num_files; i++)
		judge(d, &d->files[i]);
	r = d->json ? print_json(d) : print_text(d);
	if (!d->winner)
		log_error("no backend program%s%s%s found", d->type ? " of type " : "",
			d->type ? d->type : "", d->num_features ? " that has all features" : "");
	return r < 0 || !d->winner;
}

int discover_main(const char *const *types, int argc, char *const *argv)
{
	struct discover d = {.types = types};
	const struct option_set set = {.specs = discover_options, .base = &d};
	int status;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			print_help();
			return fflush(stdout) != 0;
		}
	}
	if (options_parse(&set, 1, argc, argv) < 0)
		return 2;
	if (d.type && !known_type(&d, d.type)) {
		log_error("--type=%s: no such device type", d.type);
		return 2;
	}
	status = search(&d);
	clean_up(&d);
	return status;
}
