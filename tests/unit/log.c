/* SPDX-License-Identifier: MIT */
/* Log lines: form, level, one write each, rate limit. */
#include "../lib/tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

#include "../../src/log.h"

/* stderr becomes a datagram socket: each write is one packet. */
static int capture(void)
{
	int fds[2];

	CHECK_SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds));
	dup2(fds[1], 2);
	close(fds[1]);
	log_set_prefix("vhost-user-test");
	return fds[0];
}

/* The next line, or "" */
static const char *line(int fd)
{
	static char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static void form(void *arg UNUSED)
{
	int fd = capture();

	errno = EBUSY;
	log_error("queue %d: buffer is not writable", 0);
	CHECK_EQ(errno, EBUSY);
	CHECK_STR(line(fd), "vhost-user-test: queue 0: buffer is not writable\n");
	CHECK_EQ(log_errno(ENOENT, "%s", "/nothing"), -ENOENT);
	CHECK_EQ(errno, EBUSY);
	CHECK_STR(line(fd), "vhost-user-test: /nothing: No such file or directory\n");
	CHECK_EQ(log_errno(-EIO, "x"), -EIO);
	CHECK_STR(line(fd), "vhost-user-test: x: Input/output error\n");
	log_warn("a\nb\033[1m\x7f\xc3\xa4");
	CHECK_STR(line(fd), "vhost-user-test: a?b?[1m?\xc3\xa4\n");
	CHECK_STR(line(fd), "");
}

static void *says_plain(void *arg)
{
	log_error("another thread");
	return arg;
}

static void says_more(void)
{
	LOG_ABOUT(0);

	log_errno(EIO, "x");
}

static void about(void *arg UNUSED)
{
	int fd = capture();
	pthread_t id;

	{
		LOG_ABOUT(3);

		log_error("gone");
		CHECK_STR(line(fd), "vhost-user-test: socket 3: gone\n");
		says_more();
		CHECK_STR(line(fd), "vhost-user-test: socket 0: x: Input/output error\n");
		log_guest_warn("y");
		CHECK_STR(line(fd), "vhost-user-test: socket 3: y\n");
		CHECK_EQ(pthread_create(&id, NULL, says_plain, NULL), 0);
		pthread_join(id, NULL);
		CHECK_STR(line(fd), "vhost-user-test: another thread\n");
	}
	log_error("z");
	CHECK_STR(line(fd), "vhost-user-test: z\n");
}

static void long_line(void *arg UNUSED)
{
	char text[5000];
	const char *got;
	int fd = capture();

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_error("%s", text);
	got = line(fd);
	CHECK_EQ(strlen(got), 1023);
	CHECK_HAS(got, "xxx\n");
	log_errno(EIO, "%s", text);
	got = line(fd);
	CHECK_EQ(got[strlen(got) - 1], '\n');
	log_set_prefix(text);
	log_error("short");
	CHECK_HAS(line(fd), "xxx: short\n");
}

static unsigned evaluated;

static unsigned count(void)
{
	return ++evaluated;
}

static void levels(void *arg UNUSED)
{
	int fd = capture();

	CHECK(log_enabled(LOG_LEVEL_WARN) && !log_enabled(LOG_LEVEL_INFO));
	log_info("%u", count());
	CHECK_EQ(evaluated, 0);
	CHECK_STR(line(fd), "");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("%u", count());
	CHECK_STR(line(fd), "vhost-user-test: 1\n");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("no");
	log_error("yes");
	CHECK_STR(line(fd), "vhost-user-test: yes\n");
}

static void rate_limit(void *arg UNUSED)
{
	int fd = capture();
	unsigned shown = 0;

	for (int i = 0; i < 1000; i++)
		log_guest_warn("bad descriptor %d", i);
	while (*line(fd))
		shown++;
	/* A burst of ten, and perhaps one more if the machine is slow. */
	CHECK(shown >= 10 && shown < 20);
	log_guest_warn("another place");
	CHECK_STR(line(fd), "vhost-user-test: another place\n");
}

static void refill(void *arg UNUSED)
{
	struct log_limit limit = {0};
	uint32_t suppressed = 99;
	int fd = capture();

	for (int i = 0; i < 10; i++)
		CHECK(log_limit_take(&limit, &suppressed));
	CHECK_EQ(suppressed, 0);
	CHECK(!log_limit_take(&limit, &suppressed));
	CHECK(!log_limit_take(&limit, &suppressed));
	limit.full_at -= UINT64_C(1500000000); /* as if 1.5 s had passed */
	log_write_limited(&limit, LOG_LEVEL_WARN, "again");
	CHECK_STR(line(fd), "vhost-user-test: again (2 like this not shown)\n");
	CHECK(!log_limit_take(&limit, &suppressed));
	limit.full_at = 1; /* long ago: full again, not fuller */
	for (int i = 0; i < 10; i++)
		CHECK(log_limit_take(&limit, &suppressed));
	CHECK(!log_limit_take(&limit, &suppressed));
}

enum { THREADS = 8, ROUNDS = 200 };

static struct log_limit shared;
static unsigned allowed, reported;

static void *hammer(void *arg)
{
	uint32_t suppressed;

	for (int i = 0; i < ROUNDS; i++) {
		if (log_limit_take(&shared, &suppressed)) {
			__atomic_fetch_add(&allowed, 1, __ATOMIC_RELAXED);
			__atomic_fetch_add(&reported, suppressed, __ATOMIC_RELAXED);
		}
		log_error("thread %d", (int)(intptr_t)arg);
	}
	return NULL;
}

static void threads(void *arg UNUSED)
{
	pthread_t ids[THREADS];
	unsigned lines = 0;
	char buf[THREADS * ROUNDS * 32];
	int fds[2];
	size_t len = 0;
	ssize_t n;

	/* A pipe as stderr must hold whole lines; it is large enough for all of them. */
	CHECK_SYS(pipe(fds));
	CHECK_SYS(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20));
	dup2(fds[1], 2);
	close(fds[1]);
	log_set_prefix("t");
	for (intptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&ids[i], NULL, hammer, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(ids[i], NULL);
	close(2);
	while ((n = read(fds[0], buf + len, sizeof(buf) - len)) > 0)
		len += (size_t)n;
	for (size_t at = 0; at < len; at += 12, lines++)
		CHECK(memcmp(buf + at, "t: thread ", 10) == 0 && buf[at + 11] == '\n');
	CHECK_EQ(lines, THREADS * ROUNDS);
	CHECK(allowed >= 10 && allowed < 20);
	CHECK_EQ(allowed + reported + shared.suppressed, THREADS * ROUNDS);
}

int main(void)
{
	tap_case("form of a line", form, NULL);
	tap_case("whom a line is about", about, NULL);
	tap_case("long lines", long_line, NULL);
	tap_case("levels", levels, NULL);
	tap_case("rate limit per place", rate_limit, NULL);
	tap_case("rate limit refills", refill, NULL);
	tap_case("threads", threads, NULL);
	return tap_done();
}
