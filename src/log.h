/* SPDX-License-Identifier: MIT */
/*
 * Diagnostics: one line, one write(2) to stderr (or one syslog record), from any thread, without allocating.
 * A line is "PREFIX: TEXT"; control characters in TEXT are shown as '?', because guests and front-ends
 * influence it.
 *
 * error: we stop doing something; warn: we carry on; info: life cycle; debug: one per message, never one per
 * element.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "util.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* "error", "warn", "info", "debug", NULL: choices for an option. */
extern const char *const log_level_names[];

/* Set up before other threads run. The prefix is copied (63 bytes at most). The level starts as WARN. */
void log_set_prefix(const char *prefix);
void log_set_level(enum log_level level);
enum log_level log_level(void);
/* From now on every line goes to syslog(3); errors go to stderr as well. */
void log_to_syslog(void);

/*
 * In a process with several backends: until the end of the block, this thread's lines are about the one of that socket. -1: about
 * none of them, as at the beginning.
 */
#define LOG_ABOUT(socket) int log_before_ __attribute__((cleanup(log_about_end), unused)) = log_about(socket)
int log_about(int socket);
void log_about_end(const int *before);

/* The text names no prefix and ends without a newline. errno is preserved by all of them. */
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Logs "TEXT: strerror" as an error and returns -err. The sign of err does not matter. */
int log_errno(int err, const char *fmt, ...) PRINTF_LIKE(2, 3);

extern int log_threshold; /* private to log_enabled() */

static inline bool log_enabled(enum log_level level)
{
	return (int)level <= __atomic_load_n(&log_threshold, __ATOMIC_RELAXED);
}

#define log_at(level, ...)                             \
	do {                                           \
		if (log_enabled(level))                \
			log_write(level, __VA_ARGS__); \
	} while (0)

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* State of a rate limit: a token bucket of 10 lines that regains one line a second. Zeroed: full. Any thread.
 */
struct log_limit {
	uint64_t full_at;    /* monotonic ns at which the bucket is full again */
	uint32_t suppressed; /* lines not shown since the last one shown */
};

/* True when a line may be shown; *suppressed is then how many were not since the last one. */
bool log_limit_take(struct log_limit *limit, uint32_t *suppressed);
void log_write_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* For whatever a guest or a front-end can trigger as often as it likes; the limit is per place in the source.
 */
#define log_guest_at(level, ...)                                                \
	do {                                                                    \
		static struct log_limit log_limit_here;                         \
		if (log_enabled(level))                                         \
			log_write_limited(&log_limit_here, level, __VA_ARGS__); \
	} while (0)

#define log_guest_warn(...)  log_guest_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_guest_error(...) log_guest_at(LOG_LEVEL_ERROR, __VA_ARGS__)
/* As log_errno(), rate-limited. */
#define log_guest_errno(err, fmt, ...)                                          \
	({                                                                      \
		int log_err_ = (err) < 0 ? -(err) : (err);                      \
		log_guest_error(fmt ": %s", ##__VA_ARGS__, strerror(log_err_)); \
		-log_err_;                                                      \
	})
#define log_guest_info(...) log_guest_at(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
