/* SPDX-License-Identifier: MIT */
/*
 * Diagnostics, see log.h. A line is built on the stack and handed to the kernel in one write, so lines of
 * several threads and processes never mix. The rate limit is the "virtual scheduling" form of a token bucket:
 * one time stamp says when the bucket will be full again, a line moves it on by the price of one token.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#define LINE_MAX_BYTES 1024
#define TOKENS	       10
#define TOKEN_NS       UINT64_C(1000000000)

const char *const log_level_names[] = {"error", "warn", "info", "debug", NULL};
int log_threshold = LOG_LEVEL_WARN;

static char log_prefix[64] = "vhost-user-multi";
static _Thread_local int log_socket = -1;
static bool use_syslog;

void log_set_prefix(const char *prefix)
{
	snprintf(log_prefix, sizeof(log_prefix), "%s", prefix);
}

void log_set_level(enum log_level level)
{
	__atomic_store_n(&log_threshold, (int)level, __ATOMIC_RELAXED);
}

enum log_level log_level(void)
{
	return (enum log_level)__atomic_load_n(&log_threshold, __ATOMIC_RELAXED);
}

void log_to_syslog(void)
{
	openlog(log_prefix, LOG_PID, LOG_DAEMON);
	use_syslog = true;
}

static int syslog_priority(enum log_level level)
{
	static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

	return priorities[level];
}

/* A line under construction; what does not fit is cut off. */
struct line {
	char text[LINE_MAX_BYTES];
	size_t len;
};

static void line_vadd(struct line *l, const char *fmt, va_list ap)
{
	size_t room = sizeof(l->text) - 1 - l->len;
	int n = vsnprintf(l->text + l->len, room, fmt, ap);

	if (n > 0)
		l->len += MIN((size_t)n, room - 1);
}

static void PRINTF_LIKE(2, 3) line_add(struct line *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	line_vadd(l, fmt, ap);
	va_end(ap);
}

static void line_emit(struct line *l, size_t text_at, enum log_level level)
{
	for (size_t i = 0; i < l->len; i++) {
		if ((unsigned char)l->text[i] < 0x20 || l->text[i] == 0x7f)
			l->text[i] = '?';
	}
	if (use_syslog)
		syslog(syslog_priority(level), "%.*s", (int)(l->len - text_at), l->text + text_at);
	if (use_syslog && level != LOG_LEVEL_ERROR)
		return;
	l->text[l->len++] = '\n';
	/* Nobody is left to tell when stderr fails. */
	if (write(STDERR_FILENO, l->text, l->len) < 0)
		return;
}

static size_t line_begin(struct line *l)
{
	size_t at;

	l->len = 0;
	line_add(l, "%s: ", log_prefix);
	at = l->len;
	if (log_socket >= 0)
		line_add(l, "socket %d: ", log_socket);
	return at;
}

int log_about(int socket)
{
	int before = log_socket;

	log_socket = socket;
	return before;
}

void log_about_end(const int *before)
{
	log_socket = *before;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	struct line l;
	size_t at = line_begin(&l);
	va_list ap;

	va_start(ap, fmt);
	line_vadd(&l, fmt, ap);
	va_end(ap);
	line_emit(&l, at, level);
	errno = saved;
}

int log_errno(int err, const char *fmt, ...)
{
	int saved = errno;
	char buf[128];
	struct line l;
	size_t at = line_begin(&l);
	va_list ap;

	if (err < 0)
		err = -err;
	va_start(ap, fmt);
	line_vadd(&l, fmt, ap);
	va_end(ap);
	line_add(&l, ": %s", strerror_r(err, buf, sizeof(buf)));
	line_emit(&l, at, LOG_LEVEL_ERROR);
	errno = saved;
	return -err;
}

bool log_limit_take(struct log_limit *limit, uint32_t *suppressed)
{
	uint64_t now = time_ns();
	uint64_t full_at = __atomic_load_n(&limit->full_at, __ATOMIC_RELAXED);
	uint64_t next;

	do {
		next = MAX(full_at, now) + TOKEN_NS;
		if (next - now > TOKENS * TOKEN_NS) {
			__atomic_fetch_add(&limit->suppressed, 1, __ATOMIC_RELAXED);
			return false;
		}
	} while (!__atomic_compare_exchange_n(
		&limit->full_at, &full_at, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	*suppressed = __atomic_exchange_n(&limit->suppressed, 0, __ATOMIC_RELAXED);
	return true;
}

void log_write_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	uint32_t suppressed;
	struct line l;
	size_t at;
	va_list ap;

	if (!log_limit_take(limit, &suppressed))
		return;
	at = line_begin(&l);
	va_start(ap, fmt);
	line_vadd(&l, fmt, ap);
	va_end(ap);
	if (suppressed)
		line_add(&l, " (%u like this not shown)", suppressed);
	line_emit(&l, at, level);
	errno = saved;
}
