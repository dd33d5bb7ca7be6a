/* SPDX-License-Identifier: MIT */
/*
 * The text form of a host end; see port.h.
 */
#include "port.h"

#include <errno.h>
#include <string.h>

#include "options.h"
#include "util.h"

const char port_item_unknown[] = "unknown item";

int port_list_next(const char **list, char *buf, size_t size, const char **name, const char **value)
{
	const char *p = *list;
	char *eq;
	size_t n = 0;

	if (!*p)
		return 0;
	for (; *p; p++) {
		if (*p == ',' && *++p != ',')
			break;
		if (n + 1 >= size)
			return -EINVAL;
		buf[n++] = *p;
	}
	buf[n] = '\0';
	*list = p;
	eq = strchr(buf, '=');
	if (eq)
		*eq = '\0';
	*name = buf;
	*value = eq ? eq + 1 : NULL;
	return 1;
}

static const char *set_string(char **to, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return "out of memory";
	free(*to);
	*to = copy;
	return NULL;
}

static const char *need_path(struct port_config *c, const char *path)
{
	return *path ? set_string(&c->path, path) : "the host needs a path";
}

static const char *parse_pty(struct port_config *c, const char *rest)
{
	if (strncmp(rest, "link=", 5) != 0)
		return "after pty: only link=PATH can follow";
	return need_path(c, rest + 5);
}

static const char *parse_tcp(struct port_config *c, const char *rest)
{
	const char *colon = strrchr(rest, ':'), *why;
	size_t n;

	if (!colon || colon == rest || !colon[1])
		return "the host needs HOST:PORT";
	why = set_string(&c->service, colon + 1);
	if (why)
		return why;
	n = (size_t)(colon - rest);
	if (rest[0] == '[' && n > 2 && rest[n - 1] == ']') {
		rest++;
		n -= 2;
	}
	free(c->path);
	c->path = strndup(rest, n);
	return c->path ? NULL : "out of memory";
}

static const char *parse_fd(struct port_config *c, const char *rest)
{
	uint64_t n;

	if (!options_parse_u64(rest, &n) || n > INT32_MAX)
		return "the host needs the number of a descriptor";
	c->fd = (int)n;
	return NULL;
}

static const char *no_rest(struct port_config *c, const char *rest)
{
	(void)c;
	(void)rest;
	return "nothing can follow this host";
}

static const struct {
	const char *name;
	enum port_kind kind;
	bool bare; /* can stand without a rest */
	const char *(*parse)(struct port_config *c, const char *rest);
} hosts[] = {
	{"null", PORT_NULL, true, no_rest},
	{"stdio", PORT_STDIO, true, no_rest},
	{"pty", PORT_PTY, true, parse_pty},
	{"unix", PORT_UNIX, false, need_path},
	{"tcp", PORT_TCP, false, parse_tcp},
	{"file", PORT_FILE, false, need_path},
	{"fd", PORT_FD, false, parse_fd},
};

static const char *parse_host(struct port_config *c, const char *value)
{
	size_t n = strcspn(value, ":"), i;
	const char *why;

	for (i = 0; i < ARRAY_SIZE(hosts); i++)
		if (strlen(hosts[i].name) == n && strncmp(hosts[i].name, value, n) == 0)
			break;
	if (i == ARRAY_SIZE(hosts))
		return "no such host: stdio, pty, unix, tcp, file, fd and null are";
	if (!value[n] && !hosts[i].bare)
		return "the host says no more than its kind";
	c->kind = hosts[i].kind;
	why = value[n] ? hosts[i].parse(c, value + n + 1) : NULL;
	return why ? why : set_string(&c->host, value);
}

static const char *parse_flag(bool *flag, const char *value)
{
	if (value)
		return "takes no value";
	*flag = true;
	return NULL;
}

const char *port_config_item(struct port_config *c, const char *name, const char *value)
{
	if (strcmp(name, "server") == 0)
		return parse_flag(&c->server, value);
	if (strcmp(name, "signals") == 0)
		return parse_flag(&c->signals, value);
	if (strcmp(name, "host") == 0)
		return c->host ? "is given twice" : value ? parse_host(c, value) : "needs a value";
	if (strcmp(name, "log") == 0)
		return value && *value ? set_string(&c->log, value) : "needs a path";
	if (strcmp(name, "backlog") == 0)
		return value && options_parse_size(value, &c->backlog) && c->backlog <= PORT_BACKLOG_MAX
			       ? NULL
			       : "needs a size of at most 64M";
	if (strcmp(name, "patience") == 0)
		return value && options_parse_duration(value, &c->patience_ms) && c->patience_ms <= 86400000
			       ? NULL
			       : "needs a duration of at most 24h";
	return port_item_unknown;
}

const char *port_config_check(const struct port_config *c)
{
	if (!c->host)
		return "host= is missing";
	if (c->server && c->kind != PORT_UNIX && c->kind != PORT_TCP)
		return "only unix and tcp can be a server";
	if (c->signals && c->kind != PORT_STDIO)
		return "signals is for stdio";
	if (c->messages && c->kind == PORT_UNIX && c->backlog)
		return "a socket of messages has no backlog";
	return NULL;
}

void port_config_free(struct port_config *c)
{
	free(c->host);
	free(c->path);
	free(c->service);
	free(c->log);
	*c = (struct port_config){0};
}
