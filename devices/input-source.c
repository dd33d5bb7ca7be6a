/* SPDX-License-Identifier: MIT */
/*
 * A program as the host's end: it sends events over a FIFO, or over a Unix socket that we listen on, one program at a
 * time. Events are text (input-text.h) or the kernel's struct input_event; the first bytes tell: a line of text has
 * no zero bytes, the time stamp of an event has.
 *
 * Nothing is lost: while no driver listens, the backlog has no room or a line's delay runs, we do not read, and the
 * program waits. What the guest sets, LEDs say, is sent back over the socket in the same form, if the program reads.
 *
 * A program that closes its connection lets go of what it held. A FIFO has no connections: we hold its other end open
 * ourselves, so that one command after another can write into it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "input-host.h"
#include "input-text.h"
#include "log.h"
#include "sockpath.h"
#include "util.h"

#define ACCEPT_RETRY_NS (UINT64_C(1000) * 1000 * 1000)

enum form { FORM_UNKNOWN, FORM_TEXT, FORM_BINARY };

enum {
	FORM_BYTES = 8
}; /* look at so many to tell the form: the seconds of a time stamp, or their upper half and more */

struct input_source {
	struct input_host h;
	const char *path;
	bool fifo;

	int listen_fd;		/* or -1 */
	struct sockpath socket; /* what we listen on */
	struct watch accept;

	int fd; /* the program, or the FIFO; -1: nobody */
	struct watch watch;
	struct timer delay; /* of the line that was read last; also before accept() is tried again */
	bool eof;

	enum form form;
	bool skip;	/* the rest of a line that is too long */
	uint64_t lines; /* for messages */
	size_t at, n;	/* bytes of buf that are taken, that are filled */
	char buf[INPUT_LINE];
	struct input_line line;
	bool waiting; /* line is parsed and its delay runs */
};

static void go_on(struct input_source *s);

static struct input_source *source_of(struct input_host *h)
{
	return container_of(h, struct input_source, h);
}

/* The way back */

/* All or nothing in one call: a program that does not read misses it. */
static void tell(struct input_source *s, const void *bytes, size_t n)
{
	if (s->fd >= 0 && !s->fifo && send(s->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("--source=%s: not told: %s", s->path, strerror(errno));
}

static void complain(struct input_source *s, const char *why)
{
	char text[160];
	int n;

	log_guest_warn("--source=%s: line %llu: %s", s->path, (unsigned long long)s->lines, why);
	n = snprintf(text, sizeof(text), "# line %llu: %s\n", (unsigned long long)s->lines, why);
	tell(s, text, (size_t)n);
}

static void source_output(struct input_host *h, const struct input_ev *ev)
{
	struct input_source *s = source_of(h);
	struct input_line line = {.events = {*ev}, .n = 1};
	struct input_event raw[2] = {{.type = ev->type, .code = ev->code, .value = ev->value},
		{.type = EV_SYN, .code = SYN_REPORT}};
	char text[64];

	if (s->form == FORM_BINARY)
		tell(s, raw, sizeof(raw));
	else
		tell(s, text, input_text_print(&line, text, sizeof(text)));
}

/* Events */

static void add_report(struct input_source *s)
{
	const struct input_ev *ev = s->line.events;
	unsigned i;

	s->waiting = false;
	for (i = 0; i < s->line.n; i++)
		input_backlog_add(s->h.backlog, ev[i].type, ev[i].code, ev[i].value);
	input_backlog_add(s->h.backlog, EV_SYN, SYN_REPORT, 0);
}

/* The device must have the codes, or a mistake would go unnoticed. */
static const char *check_line(const struct input_source *s)
{
	unsigned i;

	for (i = 0; i < s->line.n; i++)
		if (s->line.events[i].type != EV_SYN &&
			!input_model_has(s->h.model, s->line.events[i].type, s->line.events[i].code))
			return "the device does not have such events";
	return NULL;
}

static void take_line(struct input_source *s, char *text)
{
	const char *why;

	s->lines++;
	why = input_text_parse(&s->line, text);
	if (!why)
		why = check_line(s);
	if (why) {
		complain(s, why);
		return;
	}
	s->waiting = true;
	if (s->line.delay_ns)
		timer_arm_in(s->h.loop, &s->delay, s->line.delay_ns);
	else
		add_report(s);
}

/* False: more bytes are needed. */
static bool take_text(struct input_source *s)
{
	char *text = s->buf + s->at, *end = memchr(text, '\n', s->n - s->at);
	size_t len = end ? (size_t)(end - text) + 1 : s->n - s->at;

	if (!end && len < sizeof(s->buf))
		return false;
	if (end)
		*end = '\0';
	if (!end && !s->skip) {
		s->lines++;
		complain(s, "is too long");
	} else if (end && !s->skip) {
		take_line(s, text);
	}
	s->skip = !end;
	s->at += len;
	return true;
}

static bool take_binary(struct input_source *s)
{
	struct input_event ev;

	if (s->n - s->at < sizeof(ev))
		return false;
	memcpy(&ev, s->buf + s->at, sizeof(ev));
	s->at += sizeof(ev);
	if (ev.type != EV_SYN || ev.code == SYN_REPORT || ev.code == SYN_MT_REPORT)
		input_backlog_add(s->h.backlog, ev.type, ev.code, ev.value);
	return true;
}

static bool take(struct input_source *s)
{
	size_t looked = MIN(s->n - s->at, (size_t)FORM_BYTES);
	const char *first = s->buf + s->at;

	if (s->form == FORM_UNKNOWN) {
		if (memchr(first, '\0', looked))
			s->form = FORM_BINARY;
		else if (looked == FORM_BYTES || memchr(first, '\n', looked))
			s->form = FORM_TEXT;
	}
	switch (s->form) {
	case FORM_TEXT:
		return take_text(s);
	case FORM_BINARY:
		return take_binary(s);
	default:
		return false;
	}
}

/* Coming and going */

static void begin(struct input_source *s)
{
	s->form = FORM_UNKNOWN;
	s->skip = s->eof = s->waiting = false;
	s->lines = 0;
	s->at = s->n = 0;
}

static void hang_up(struct input_source *s)
{
	if (s->n > s->at && !s->skip)
		log_warn("--source=%s: an unfinished %s of %zu bytes is void", s->path,
			s->form == FORM_BINARY ? "event" : "line", s->n - s->at);
	log_info("--source=%s: the program has gone", s->path);
	watch_del(&s->watch);
	fd_close(&s->fd);
	begin(s);
	input_backlog_release(s->h.backlog);
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct input_source *s = container_of(w, struct input_source, accept);

	(void)events;
	s->fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (s->fd >= 0) {
		log_info("--source=%s: a program has come", s->path);
	} else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		log_guest_warn("--source=%s: accept: %s", s->path, strerror(errno));
		watch_del(w);
		timer_arm_in(s->h.loop, &s->delay, ACCEPT_RETRY_NS);
		return;
	}
	go_on(s);
}

static bool fill(struct input_source *s)
{
	ssize_t n;

	s->n -= s->at;
	memmove(s->buf, s->buf + s->at, s->n);
	s->at = 0;
	n = read(s->fd, s->buf + s->n, sizeof(s->buf) - s->n);
	if (n > 0)
		s->n += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		s->eof = true;
	return n > 0;
}

static bool may_take(const struct input_source *s)
{
	return s->h.running && !s->waiting && input_backlog_room(s->h.backlog);
}

/* Waits for what is missing: a program, bytes; nothing while we must not take more. */
static void await(struct input_source *s)
{
	bool idle = s->fd < 0 && s->listen_fd >= 0, hungry = s->fd >= 0 && !s->eof && may_take(s);

	if (!idle)
		watch_del(&s->accept);
	else if (s->accept.fd < 0)
		watch_add(s->h.loop, &s->accept, s->listen_fd, EPOLLIN);
	if (!hungry)
		watch_del(&s->watch);
	else if (s->watch.fd < 0)
		watch_add(s->h.loop, &s->watch, s->fd, EPOLLIN);
}

/* Takes what is in the buffer; one refill of it a turn. */
static void go_on(struct input_source *s)
{
	bool filled = false;

	while (s->fd >= 0 && may_take(s)) {
		if (take(s))
			continue;
		if (s->eof || filled || !fill(s))
			break;
		filled = true;
	}
	if (s->eof && s->fd >= 0 && may_take(s))
		hang_up(s);
	await(s);
	s->h.news(&s->h);
}

static void source_ready(struct watch *w, uint32_t events)
{
	(void)events;
	go_on(container_of(w, struct input_source, watch));
}

static void delay_expired(struct timer *t)
{
	struct input_source *s = container_of(t, struct input_source, delay);

	if (s->waiting)
		add_report(s);
	go_on(s);
}

static void source_start(struct input_host *h, bool fresh)
{
	struct input_source *s = source_of(h);

	if (fresh)
		input_backlog_restart(h->backlog);
	go_on(s);
}

static void source_stop(struct input_host *h)
{
	await(source_of(h));
}

static void source_room(struct input_host *h)
{
	struct input_source *s = source_of(h);

	if (s->fd >= 0 && s->watch.fd < 0 && may_take(s))
		go_on(s);
}

/* Life */

static void source_close(struct input_host *h)
{
	struct input_source *s = source_of(h);

	watch_del(&s->accept);
	watch_del(&s->watch);
	timer_disarm(&s->delay);
	fd_close(&s->fd);
	fd_close(&s->listen_fd);
	sockpath_remove(&s->socket);
	free(s);
}

static const struct input_host_ops source_ops = {
	.close = source_close,
	.start = source_start,
	.stop = source_stop,
	.output = source_output,
	.room = source_room,
};

static int open_fifo(struct input_source *s)
{
	s->fifo = true;
	s->fd = open(s->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return s->fd < 0 ? log_errno(errno, "--source=%s", s->path) : 0;
}

static int open_socket(struct input_source *s)
{
	s->listen_fd = sockpath_listen(&s->socket, "--source", s->path, SOCK_STREAM, 0, 8);
	return s->listen_fd < 0 ? s->listen_fd : 0;
}

static int open_path(struct input_source *s)
{
	struct stat st;

	if (stat(s->path, &st) < 0)
		return errno == ENOENT ? open_socket(s) : log_errno(errno, "--source=%s", s->path);
	if (S_ISFIFO(st.st_mode))
		return open_fifo(s);
	if (S_ISSOCK(st.st_mode))
		return open_socket(s);
	log_error("--source=%s: is neither a FIFO nor a socket", s->path);
	return -EINVAL;
}

int input_source_open(struct input_host **out, const struct input_host *init, const char *path)
{
	struct input_source *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return log_errno(ENOMEM, "--source=%s", path);
	s->h = *init;
	s->h.ops = &source_ops;
	s->path = path;
	s->fd = s->listen_fd = s->accept.fd = s->watch.fd = -1;
	s->accept.ready = accept_ready;
	s->watch.ready = source_ready;
	s->delay.expired = delay_expired;
	err = open_path(s);
	if (err) {
		source_close(&s->h);
		return err;
	}
	await(s);
	*out = &s->h;
	return 0;
}
