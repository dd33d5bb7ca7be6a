/* SPDX-License-Identifier: MIT */
/* The control socket: clients, lines, answers, events; see control.h. */
#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "log.h"

/* Answers */

static void write_error(struct json *out, const char *class, const char *desc)
{
	json_key(out, "error");
	json_object_begin(out);
	json_key(out, "class");
	json_string(out, class);
	json_key(out, "desc");
	json_string(out, desc);
	json_object_end(out);
}

static const char *class_of(int err)
{
	switch (err) {
	case -EINVAL:
		return "InvalidArgument";
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		return "NotFound";
	case -ENOTSUP:
		return "NotSupported";
	case -EBUSY:
	case -EAGAIN:
		return "Busy";
	default:
		return "Failed";
	}
}

static void run_command(
	struct control *c, const struct command_spec *spec, const struct json_value *args, struct json *out)
{
	CLEANUP_JSON struct json *result = json_new(false);
	struct command cmd = {.args = args, .out = result};
	struct backend *b = c->b;
	const char *text;
	size_t len = 0;
	int err;

	if (!result) {
		write_error(out, "Failed", "out of memory");
		return;
	}
	err = command_check(spec, &cmd);
	if (!err && c->pick)
		b = c->pick(c, &cmd);
	if (!err)
		err = b ? spec->run(b, &cmd) : -EINVAL;
	if (err) {
		write_error(out, class_of(err), cmd.desc[0] ? cmd.desc : strerror(-err));
		return;
	}
	c->commands++;
	json_key(out, "return");
	text = json_text(result, &len);
	if (text && !len) {
		json_object_begin(out);
		json_object_end(out);
	} else if (!json_embed(out, result)) {
		log_error("command %s: its result is no JSON", spec->name);
		json_null(out);
	}
}

static const char *unknown_member(const struct json_value *request)
{
	for (size_t i = 0; i < json_length(request); i++) {
		const char *key = json_key_at(request, i);

		if (strcmp(key, "execute") != 0 && strcmp(key, "arguments") != 0 && strcmp(key, "id") != 0)
			return key;
	}
	return NULL;
}

static void answer_request(struct control *c, const struct json_value *request, struct json *out)
{
	const char *name = json_get_string(request, "execute"), *extra;
	const struct command_spec *spec;
	char desc[COMMAND_DESC_LEN];

	if (json_type(request) != JSON_OBJECT || !name) {
		write_error(out, "BadRequest", "an object with a string \"execute\" is needed");
		return;
	}
	extra = unknown_member(request);
	if (extra) {
		snprintf(desc, sizeof(desc), "\"%.64s\" means nothing here", extra);
		write_error(out, "BadRequest", desc);
		return;
	}
	spec = command_find(c->core, name);
	if (!spec)
		spec = command_find(c->device, name);
	if (!spec) {
		snprintf(desc, sizeof(desc), "%.64s: no such command (see query-commands)", name);
		write_error(out, "CommandNotFound", desc);
		return;
	}
	run_command(c, spec, json_get(request, "arguments"), out);
}

void control_answer(struct control *c, const char *line, size_t len, struct json *out)
{
	CLEANUP_JSON_VALUE struct json_value *request = NULL;
	const struct json_value *id;
	char why[JSON_ERROR_LEN];

	request = json_parse(line, len, why, sizeof(why));
	json_object_begin(out);
	if (request)
		answer_request(c, request, out);
	else
		write_error(out, "BadRequest", why);
	id = json_get(request, "id");
	if (id) {
		json_key(out, "id");
		json_copy(out, id);
	}
	json_object_end(out);
}

/* Clients */

struct control_client {
	struct control *control;
	struct control_client *next;
	struct watch watch;
	struct task again;
	int fd;
	bool eof;      /* it sends no more */
	bool skipping; /* the rest of a line that was too long */
	size_t nin, scanned;
	char *out; /* not yet sent: [sent, nout) */
	size_t sent, nout, capacity;
	uint64_t lost; /* events, since the last one it got */
	char in[CONTROL_MAX_LINE];
};

static void client_free(struct control_client *cl)
{
	struct control *c = cl->control;
	struct control_client **pp = &c->clients;

	while (*pp != cl)
		pp = &(*pp)->next;
	*pp = cl->next;
	c->nclients--;
	loop_cancel(c->loop, &cl->again);
	watch_del(&cl->watch);
	fd_close(&cl->fd);
	free(cl->out);
	free(cl);
}

static size_t waiting(const struct control_client *cl)
{
	return cl->nout - cl->sent;
}

/* False: the client is gone. */
static bool client_flush(struct control_client *cl)
{
	ssize_t n;

	while (waiting(cl)) {
		n = send(cl->fd, cl->out + cl->sent, waiting(cl), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		cl->sent += (size_t)n;
	}
	cl->sent = cl->nout = 0;
	if (cl->capacity > CONTROL_MAX_EVENTS) { /* one large answer */
		free(cl->out);
		cl->out = NULL;
		cl->capacity = 0;
	}
	return true;
}

static bool client_append(struct control_client *cl, struct json *j)
{
	size_t len, need;
	const char *text = json_text(j, &len);
	char *room;

	if (!text)
		return false;
	if (cl->sent) {
		memmove(cl->out, cl->out + cl->sent, waiting(cl));
		cl->nout -= cl->sent;
		cl->sent = 0;
	}
	need = cl->nout + len + 1;
	if (need > cl->capacity) {
		room = realloc(cl->out, MAX(need, (size_t)4096));
		if (!room)
			return false;
		cl->out = room;
		cl->capacity = MAX(need, (size_t)4096);
	}
	memcpy(cl->out + cl->nout, text, len);
	cl->out[need - 1] = '\n';
	cl->nout = need;
	return true;
}

/* What to wait for: room to send, else the next command. */
static void client_watch(struct control_client *cl)
{
	uint32_t events = waiting(cl) ? EPOLLOUT : cl->eof ? 0 : EPOLLIN;

	watch_modify(&cl->watch, events);
}

/* False: the client is gone. */
static bool client_reply(struct control_client *cl, const char *line, size_t len)
{
	CLEANUP_JSON struct json *out = json_new(false);

	if (!out)
		return false;
	if (line) {
		control_answer(cl->control, line, len, out);
	} else {
		json_object_begin(out);
		write_error(out, "BadRequest", "the line is too long");
		json_object_end(out);
	}
	return client_append(cl, out) && client_flush(cl);
}

static bool blank(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!strchr(" \t\r", line[i]) || !line[i])
			return false;
	}
	return true;
}

/* Takes the next line out of the buffer. 1: took one; 0: there is none; -1: the client is gone. */
static int client_line(struct control_client *cl)
{
	char *end = memchr(cl->in + cl->scanned, '\n', cl->nin - cl->scanned);
	size_t len;
	bool ok = true;

	if (!end) {
		cl->scanned = cl->nin;
		if (cl->nin < sizeof(cl->in))
			return 0;
		cl->nin = cl->scanned = 0;
		if (cl->skipping)
			return 0;
		cl->skipping = true;
		return client_reply(cl, NULL, 0) ? 1 : -1;
	}
	len = (size_t)(end - cl->in);
	if (cl->skipping)
		cl->skipping = false; /* answered when it got too long */
	else if (!blank(cl->in, len))
		ok = client_reply(cl, cl->in, len);
	cl->nin -= len + 1;
	cl->scanned = 0;
	memmove(cl->in, end + 1, cl->nin);
	return ok ? 1 : -1;
}

/* Goes on with this client: answers what came, waits for what is next, or ends it. */
static void client_run(struct control_client *cl)
{
	unsigned n = 0;
	int r = 1;

	if (!client_flush(cl)) {
		client_free(cl);
		return;
	}
	while (!waiting(cl) && n++ < CONTROL_LINES && (r = client_line(cl)) > 0)
		;
	if (r < 0 || (r == 0 && cl->eof && !waiting(cl))) {
		client_free(cl);
		return;
	}
	if (r > 0 && !waiting(cl))
		loop_again(cl->control->loop, &cl->again);
	client_watch(cl);
}

static void client_again(struct task *t)
{
	client_run(container_of(t, struct control_client, again));
}

static void client_ready(struct watch *w, uint32_t events)
{
	struct control_client *cl = container_of(w, struct control_client, watch);
	ssize_t n;

	if (events & EPOLLERR || (events & EPOLLHUP && waiting(cl))) {
		client_free(cl); /* nobody can read an answer any more */
		return;
	}
	if (!waiting(cl) && !cl->eof && cl->nin < sizeof(cl->in)) {
		n = recv(cl->fd, cl->in + cl->nin, sizeof(cl->in) - cl->nin, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			client_free(cl);
			return;
		}
		if (n == 0)
			cl->eof = true;
		if (n > 0)
			cl->nin += (size_t)n;
	}
	client_run(cl);
}

static void refuse(int fd)
{
	static const char text[] = "{\"error\":{\"class\":\"Busy\",\"desc\":\"too many clients\"}}\n";

	if (send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("control: %s", strerror(errno));
	close(fd);
}

static void connected(struct listener *l, int fd)
{
	struct control *c = container_of(l, struct control, listener);
	struct control_client *cl = NULL;

	if (c->nclients < CONTROL_MAX_CLIENTS)
		cl = calloc(1, sizeof(*cl));
	if (cl) {
		cl->control = c;
		cl->fd = fd;
		cl->watch.fd = -1;
		cl->watch.ready = client_ready;
		cl->again.run = client_again;
	}
	if (!cl || watch_add(c->loop, &cl->watch, fd, EPOLLIN) < 0) {
		refuse(fd);
		free(cl);
	} else {
		cl->next = c->clients;
		c->clients = cl;
		c->nclients++;
	}
	listener_next(l);
}

/* Events */

/* socket: a number, or -1 */
static struct json *event_new(const char *name, int socket, struct json *data)
{
	struct json *event = json_new(false);
	struct timespec now;

	if (!event)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	json_object_begin(event);
	json_key(event, "event");
	json_string(event, name);
	if (socket >= 0) {
		json_key(event, "socket");
		json_u64(event, (uint64_t)socket);
	}
	json_key(event, "data");
	if (!data || !json_embed(event, data)) {
		json_object_begin(event);
		json_object_end(event);
	}
	json_key(event, "timestamp");
	json_object_begin(event);
	json_key(event, "seconds");
	json_i64(event, now.tv_sec);
	json_key(event, "microseconds");
	json_i64(event, now.tv_nsec / 1000);
	json_object_end(event);
	json_object_end(event);
	return event;
}

static bool append_lost(struct control_client *cl)
{
	CLEANUP_JSON struct json *data = json_new(false), *event = NULL;

	if (!cl->lost)
		return true;
	if (!data)
		return false;
	json_object_begin(data);
	json_key(data, "count");
	json_u64(data, cl->lost);
	json_object_end(data);
	event = event_new("events-lost", -1, data);
	if (!event || !client_append(cl, event))
		return false;
	cl->lost = 0;
	return true;
}

static void event_client(struct control_client *cl, struct json *event)
{
	if (waiting(cl) >= CONTROL_MAX_EVENTS || !append_lost(cl) || !client_append(cl, event)) {
		cl->lost++;
		log_debug("control: a client does not read and loses an event");
		return;
	}
	/* a client that went is noticed by its watch */
	if (client_flush(cl))
		client_watch(cl);
}

static void send_event(struct control *c, const char *name, int socket, struct json *data)
{
	CLEANUP_JSON struct json *event = c->clients ? event_new(name, socket, data) : NULL;

	if (!event)
		return;
	for (struct control_client *cl = c->clients; cl; cl = cl->next)
		event_client(cl, event);
}

void control_event(struct control *c, const char *name, struct json *data)
{
	send_event(c, name, -1, data);
}

void control_event_of(struct control *c, unsigned socket, const char *name, struct json *data)
{
	send_event(c, name, (int)socket, data);
}

/* Life */

int control_open(struct control *c, const char *path)
{
	int err;

	c->listener.option = "--control-path";
	c->listener.connected = connected;
	err = listener_open(&c->listener, c->loop, path, 0600, -1, NULL);
	if (err)
		return err;
	return listener_next(&c->listener) ? 0 : log_errno(EIO, "--control-path=%s", path);
}

void control_quiet(struct control *c)
{
	listener_close(&c->listener);
}

void control_close(struct control *c)
{
	control_quiet(c);
	while (c->clients)
		client_free(c->clients);
}
