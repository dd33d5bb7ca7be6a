/* SPDX-License-Identifier: MIT */
/*
 * A client of the control socket (control.h has the protocol). The process at the other end is asked first which
 * commands it has: that gives the types of the arguments and the help, so nothing about commands is known here, except
 * how `top` shows query-stats.
 */
#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "json.h"
#include "log.h"
#include "options.h"
#include "util.h"

enum { STATUS_OK, STATUS_FAILURE, STATUS_USAGE };
enum { REPLY_SECONDS = 30, FIRST_ROOM = 4096 };

struct ctl {
	const char *path;
	int fd;
	char *buf; /* [0, len) read; [0, line) is the line that was taken last */
	size_t len, line, room;
	struct json_value *commands; /* what query-commands answered, a whole line */
};

/* Connection */

static int ctl_connect(struct ctl *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = REPLY_SECONDS};

	if (strlen(c->path) >= sizeof(addr.sun_path))
		return log_errno(ENAMETOOLONG, "%s", c->path);
	memcpy(addr.sun_path, c->path, strlen(c->path) + 1);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return log_errno(errno, "socket");
	if (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return log_errno(errno, "%s", c->path);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return 0;
}

static void ctl_close(struct ctl *c)
{
	json_value_free(c->commands);
	free(c->buf);
	fd_close(&c->fd);
}

static int ctl_send(struct ctl *c, struct json *request)
{
	int err = json_write_fd(request, c->fd);

	return err ? log_errno(err, "%s", c->path) : 0;
}

static int read_more(struct ctl *c)
{
	ssize_t n;

	if (c->len == c->room) {
		size_t room = c->room ? c->room * 2 : FIRST_ROOM;
		char *more = room > JSON_MAX_TEXT * 2 ? NULL : realloc(c->buf, room);

		if (!more)
			return log_errno(EMSGSIZE, "%s", c->path);
		c->buf = more;
		c->room = room;
	}
	do
		n = read(c->fd, c->buf + c->len, c->room - c->len);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return log_errno(errno == EAGAIN ? ETIMEDOUT : errno, "%s", c->path);
	if (n == 0) {
		log_error("%s: the connection was closed", c->path);
		return -ECONNRESET;
	}
	c->len += (size_t)n;
	return 0;
}

/* The next line, parsed; NULL: there is none (logged). */
static struct json_value *ctl_read(struct ctl *c)
{
	struct json_value *v;
	char why[JSON_ERROR_LEN];
	char *end;

	c->len -= c->line;
	if (c->line)
		memmove(c->buf, c->buf + c->line, c->len);
	c->line = 0;
	while (!(end = c->len ? memchr(c->buf, '\n', c->len) : NULL)) {
		if (read_more(c) < 0)
			return NULL;
	}
	c->line = (size_t)(end - c->buf) + 1;
	v = json_parse(c->buf, c->line - 1, why, sizeof(why));
	if (!v)
		log_error("%s: %s", c->path, why);
	return v;
}

/* Sends and waits for the answer; events that come before it are dropped. NULL: no answer, or an error (logged). */
static struct json_value *ctl_ask(struct ctl *c, struct json *request)
{
	struct json_value *v;
	const struct json_value *error;

	if (ctl_send(c, request) < 0)
		return NULL;
	while ((v = ctl_read(c)) && json_get(v, "event"))
		json_value_free(v);
	error = json_get(v, "error");
	if (!error)
		return v;
	log_error("%s",
		json_get_string(error, "desc") ? json_get_string(error, "desc") : "an error without a text");
	json_value_free(v);
	return NULL;
}

static struct json *request_new(const char *command)
{
	struct json *r = json_new(false);

	if (!r)
		return NULL;
	json_object_begin(r);
	json_key(r, "execute");
	json_string(r, command);
	return r;
}

static struct json_value *ctl_simple(struct ctl *c, const char *command)
{
	CLEANUP_JSON struct json *r = request_new(command);

	if (!r)
		return NULL;
	json_object_end(r);
	return ctl_ask(c, r);
}

/* What the process at the other end has */

static int load_commands(struct ctl *c)
{
	c->commands = ctl_simple(c, "query-commands");
	return c->commands ? 0 : -EIO;
}

static const struct json_value *find_named(const struct json_value *list, const char *name)
{
	for (size_t i = 0; i < json_length(list); i++) {
		const char *n = json_get_string(json_at(list, i), "name");

		if (n && strcmp(n, name) == 0)
			return json_at(list, i);
	}
	return NULL;
}

static const struct json_value *find_command(const struct ctl *c, const char *name)
{
	return find_named(json_get(c->commands, "return"), name);
}

static void print_argument(const struct json_value *arg)
{
	bool required = false;

	json_get_bool(arg, "required", &required);
	printf("      %s=%s%s\n          %s\n", json_get_string(arg, "name"), json_get_string(arg, "type"),
		required ? "" : " (may be left out)", json_get_string(arg, "help"));
}

static void print_command(const struct json_value *spec)
{
	const struct json_value *args = json_get(spec, "arguments");

	printf("  %s\n      %s\n", json_get_string(spec, "name"), json_get_string(spec, "help"));
	for (size_t i = 0; i < json_length(args); i++)
		print_argument(json_at(args, i));
}

static int finish_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return STATUS_OK;
	log_errno(errno, "standard output");
	return STATUS_FAILURE;
}

static int help_commands(struct ctl *c, const char *only)
{
	const struct json_value *list, *spec;

	if (load_commands(c) < 0)
		return STATUS_FAILURE;
	list = json_get(c->commands, "return");
	spec = only ? find_command(c, only) : NULL;
	if (only && !spec) {
		log_error("%s: no such command", only);
		return STATUS_USAGE;
	}
	if (spec)
		print_command(spec);
	for (size_t i = 0; !only && i < json_length(list); i++)
		print_command(json_at(list, i));
	return finish_stdout();
}

/* One command */

/* The value as the type of the argument wants it; what can't be converted stays a string, and the answer says why. */
static void write_value(struct json *out, const char *type, const char *text)
{
	uint64_t n;

	if (type && strcmp(type, "boolean") == 0) {
		if (!strcmp(text, "true") || !strcmp(text, "on") || !strcmp(text, "yes")) {
			json_bool(out, true);
			return;
		}
		if (!strcmp(text, "false") || !strcmp(text, "off") || !strcmp(text, "no")) {
			json_bool(out, false);
			return;
		}
	}
	if (type && strcmp(type, "number") == 0 && options_parse_u64(text, &n))
		json_u64(out, n);
	else
		json_string(out, text);
}

static int write_argument(struct json *out, const struct json_value *spec, const char *text)
{
	CLEANUP_FREE char *name = strdup(text);
	char *eq = name ? strchr(name, '=') : NULL;

	if (!eq || eq == name) {
		log_error("%s: an argument is key=value", text);
		return -EINVAL;
	}
	*eq = '\0';
	json_key(out, name);
	write_value(out, json_get_string(find_named(json_get(spec, "arguments"), name), "type"), eq + 1);
	return 0;
}

static int print_result(const struct json_value *v)
{
	CLEANUP_JSON struct json *out = NULL;
	const char *text = json_as_string(v);

	if (json_type(v) == JSON_OBJECT && !json_length(v))
		return STATUS_OK; /* done, nothing to tell */
	if (text) {
		fputs(text, stdout);
		if (!*text || text[strlen(text) - 1] != '\n')
			putchar('\n');
		return finish_stdout();
	}
	out = json_new(true);
	if (!out)
		return STATUS_FAILURE;
	json_copy(out, v);
	if (json_write_fd(out, STDOUT_FILENO) == 0)
		return STATUS_OK;
	log_errno(errno, "standard output");
	return STATUS_FAILURE;
}

static int run_command(struct ctl *c, const char *name, int argc, char *const *argv)
{
	CLEANUP_JSON struct json *r = request_new(name);
	CLEANUP_JSON_VALUE struct json_value *answer = NULL;

	if (!r || load_commands(c) < 0)
		return STATUS_FAILURE;
	if (argc) {
		json_key(r, "arguments");
		json_object_begin(r);
		for (int i = 0; i < argc; i++) {
			if (write_argument(r, find_command(c, name), argv[i]) < 0)
				return STATUS_USAGE;
		}
		json_object_end(r);
	}
	json_object_end(r);
	answer = ctl_ask(c, r);
	return answer ? print_result(json_get(answer, "return")) : STATUS_FAILURE;
}

/* top and events: what the client does by itself */

struct view {
	uint64_t interval_ms, count, socket;
	bool one; /* of several backends */
};

static int parse_view(struct view *v, int argc, char *const *argv)
{
	for (int i = 0; i < argc; i++) {
		bool ok = false;

		if (strncmp(argv[i], "interval=", 9) == 0)
			ok = options_parse_duration(argv[i] + 9, &v->interval_ms) && v->interval_ms;
		else if (strncmp(argv[i], "count=", 6) == 0)
			ok = options_parse_u64(argv[i] + 6, &v->count) && v->count;
		else if (strncmp(argv[i], "socket=", 7) == 0)
			ok = v->one = options_parse_u64(argv[i] + 7, &v->socket);
		if (!ok) {
			log_error("%s: not interval=TIME, count=N or socket=N", argv[i]);
			return -EINVAL;
		}
	}
	return 0;
}

static uint64_t number(const struct json_value *object, const char *key)
{
	uint64_t n = 0;

	json_get_u64(object, key, &n);
	return n;
}

static double rate(
	const struct json_value *now, const struct json_value *before, const char *key, double seconds)
{
	uint64_t a = number(before, key), b = number(now, key);

	return b > a && seconds > 0 ? (double)(b - a) / seconds : 0;
}

static void print_queue(const struct json_value *q, const struct json_value *old, double s)
{
	const struct json_value *latency = json_get(q, "latency-ns");
	const char *name = json_get_string(q, "name");

	printf("%5" PRIu64 " %-12.12s %10.0f %9.1f %9.1f %9.0f %9.0f %9.0f %6" PRIu64 " %6" PRIu64
	       " %9.1f %9.1f %9.1f\n",
		number(q, "index"), name ? name : "", rate(q, old, "requests", s),
		rate(q, old, "bytes-read", s) / 1048576, rate(q, old, "bytes-written", s) / 1048576,
		rate(q, old, "kicks", s), rate(q, old, "interrupts", s),
		rate(q, old, "interrupts-suppressed", s), number(q, "errors"), number(q, "in-flight"),
		(double)number(q, "oldest-ns") / 1000, (double)number(latency, "p50") / 1000,
		(double)number(latency, "p99") / 1000);
}

static void print_stats(const struct json_value *now, const struct json_value *before)
{
	const struct json_value *queues = json_get(now, "queues"), *old = json_get(before, "queues");
	double s = (double)(number(now, "time-ns") - number(before, "time-ns")) / 1e9;

	if (isatty(STDOUT_FILENO))
		printf("\033[H\033[J");
	printf("queue name          request/s read MB/s writ MB/s    kick/s     irq/s  no-irq/s errors flight"
	       " oldest us    p50 us    p99 us\n");
	for (size_t i = 0; i < json_length(queues); i++) {
		const struct json_value *q = json_at(queues, i), *o = NULL;

		for (size_t k = 0; before && k < json_length(old) && !o; k++) {
			if (number(json_at(old, k), "index") == number(q, "index"))
				o = json_at(old, k);
		}
		print_queue(q, o, before ? s : 0);
	}
}

static struct json_value *query_stats(struct ctl *c, const struct view *v)
{
	CLEANUP_JSON struct json *r = request_new("query-stats");

	if (!r)
		return NULL;
	if (v->one) {
		json_key(r, "arguments");
		json_object_begin(r);
		json_key(r, "socket");
		json_u64(r, v->socket);
		json_object_end(r);
	}
	json_object_end(r);
	return ctl_ask(c, r);
}

static int top(struct ctl *c, int argc, char *const *argv)
{
	struct view v = {.interval_ms = 1000, .count = UINT64_MAX};
	struct json_value *before = NULL, *now;
	struct timespec nap;
	int status = STATUS_OK;

	if (parse_view(&v, argc, argv) < 0)
		return STATUS_USAGE;
	nap = (struct timespec){
		.tv_sec = (time_t)(v.interval_ms / 1000), .tv_nsec = (long)(v.interval_ms % 1000 * 1000000)};
	while (status == STATUS_OK && v.count--) {
		if (before)
			nanosleep(&nap, NULL);
		now = query_stats(c, &v);
		if (!now) {
			status = STATUS_FAILURE;
			break;
		}
		print_stats(json_get(now, "return"), json_get(before, "return"));
		status = finish_stdout();
		json_value_free(before);
		before = now;
	}
	json_value_free(before);
	return status;
}

/* Prints events as they come, one line each. */
static int events(struct ctl *c, int argc, char *const *argv)
{
	struct view v = {.interval_ms = 1000, .count = UINT64_MAX};
	struct timeval forever = {0};
	struct json_value *e;
	int status = STATUS_OK;

	if (parse_view(&v, argc, argv) < 0)
		return STATUS_USAGE;
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
	while (status == STATUS_OK && v.count && (e = ctl_read(c))) {
		if (json_get(e, "event")) {
			fwrite(c->buf, 1, c->line, stdout);
			status = finish_stdout();
			v.count--;
		}
		json_value_free(e);
	}
	return v.count ? STATUS_FAILURE : status;
}

static int print_usage(void)
{
	printf("Usage: vhost-user-multi ctl PATH COMMAND [KEY=VALUE]...\n"
	       "       vhost-user-multi ctl PATH help [COMMAND]\n"
	       "       vhost-user-multi ctl PATH top [interval=TIME] [count=N] [socket=N]\n"
	       "       vhost-user-multi ctl PATH events [count=N]\n\n"
	       "Asks the process that was started with --control-path=PATH.\n"
	       "  help    show the commands that it has\n"
	       "  top     show what its queues do, again and again\n"
	       "  events  print what happens there, one JSON object per line\n");
	return finish_stdout();
}

int ctl_main(int argc, char *const *argv)
{
	struct ctl c = {.fd = -1};
	int status;

	for (int i = 0; i < argc && i < 2; i++) {
		if (strcmp(argv[i], "--help") == 0)
			return print_usage();
	}
	if (argc < 2) {
		log_error("ctl: a path and a command are needed (see ctl --help)");
		return STATUS_USAGE;
	}
	c.path = argv[0];
	if (ctl_connect(&c) < 0)
		status = STATUS_FAILURE;
	else if (strcmp(argv[1], "help") == 0)
		status = help_commands(&c, argv[2]);
	else if (strcmp(argv[1], "top") == 0)
		status = top(&c, argc - 2, argv + 2);
	else if (strcmp(argv[1], "events") == 0)
		status = events(&c, argc - 2, argv + 2);
	else
		status = run_command(&c, argv[1], argc - 2, argv + 2);
	ctl_close(&c);
	return status;
}
