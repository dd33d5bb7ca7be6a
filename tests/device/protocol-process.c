/* SPDX-License-Identifier: MIT */
/*
 * The process and its connections: descriptors given and created, listening and connecting, stale and live sockets,
 * signals, one front-end after the other, descriptors that must not leak.
 */
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

/* Starts the program, which must end with this status and say text. */
static void refuses(int keep, const char *const *args, int status, const char *text)
{
	struct fe_process p;

	fe_process_start(&p, keep, args);
	fe_process_logs(&p, text);
	fe_process_exits(&p, status);
}

static const char *socket_option(const char *name, const char *path)
{
	static char text[4][192];
	static unsigned n;

	snprintf(text[n % 4], sizeof(text[0]), "--%s=%s", name, path);
	return text[n++ % 4];
}

/* --- --fd --- */

static void fd_end_of_file(const struct fe_mode *m)
{
	struct fe fe;

	fe_start(&fe, m, FE_ARGS("rng"));
	rng_works(fe_queue_up(&fe, 0, 16));
	fe_end(&fe);
	/* before any message, too */
	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng"));
	fe_end(&fe);
}

static void fd_listening(const struct fe_mode *m)
{
	struct server s;
	char option[32];
	int fd;

	fe_init(&s.fe, m);
	snprintf(s.path, sizeof(s.path), "%s/socket", fe_tmpdir());
	fd = fe_listen(s.path);
	snprintf(option, sizeof(option), "--fd=%d", fd);
	fe_process_start(&s.fe.process, fd, FE_ARGS("rng", option));
	close(fd);
	fe_connect(&s.fe, s.path);
	for (unsigned i = 0; i < 3; i++) {
		server_up(&s);
		server_reconnect(&s);
	}
	fe_process_signal(&s.fe.process, SIGTERM);
	fe_process_exits(&s.fe.process, 0);
	fe_close(&s.fe);
	/* it did not make the socket, so it must not remove it */
	CHECK_EQ(access(s.path, F_OK), 0);
}

static void fd_unusable(const struct fe_mode *m)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	char option[32];

	(void)m;
	CHECK(fd >= 0);
	snprintf(option, sizeof(option), "--fd=%d", fd);
	refuses(fd, FE_ARGS("rng", option), 1, "fd");
	refuses(-1, FE_ARGS("rng", "--fd=777"), 1, "777");
	close(fd);
}

/* --- --socket-path --- */

static void one_after_the_other(const struct fe_mode *m)
{
	unsigned fds = 0;
	struct server s;
	size_t rss = 0;

	server_start(&s, m, NULL);
	for (unsigned i = 0; i < 50; i++) {
		server_up(&s);
		server_reconnect(&s);
		fe_barrier(&s.fe);
		if (i == 4) {
			fds = fe_process_fds(&s.fe.process);
			rss = fe_process_rss(&s.fe.process);
		}
		if (i > 4)
			CHECK_EQ(fe_process_fds(&s.fe.process), fds);
	}
	/* freed memory may stay in quarantine under a sanitizer, so this only catches whole areas */
	CHECK(fe_process_rss(&s.fe.process) < rss + (32 << 20));
	server_up(&s);
	server_end(&s);
}

/* A second front-end waits until the first has gone. */
static void second_waits(const struct fe_mode *m)
{
	struct fe_header h = {FE_GET_FEATURES, FE_VERSION, 0};
	struct server s;
	struct fe other;
	struct fe_msg r;

	server_start(&s, m, NULL);
	server_up(&s);
	fe_init(&other, m);
	fe_connect(&other, s.path);
	CHECK(fe_send_raw(&other, &h, sizeof(h), NULL, 0));
	rng_works(s.fe.queues[0]);
	CHECK(!fe_poll(other.sock, POLLIN, 50));
	rng_works(s.fe.queues[0]);
	fe_hangup(&s.fe);
	fe_expect(&other, FE_GET_FEATURES, 8, &r);
	fe_close(&other);
	server_reconnect(&s);
	server_up(&s);
	server_end(&s);
}

static void stale_socket(const struct fe_mode *m)
{
	struct server s;

	server_start(&s, m, NULL);
	server_up(&s);
	fe_process_kill(&s.fe.process);
	CHECK_EQ(access(s.path, F_OK), 0);
	fe_close(&s.fe);
	fe_init(&s.fe, m);
	fe_spawn_path(&s.fe, s.path, FE_ARGS("rng"));
	server_up(&s);
	server_end(&s);
}

static void live_socket(const struct fe_mode *m)
{
	struct server s;

	server_start(&s, m, NULL);
	server_up(&s);
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", s.path)), 1, s.path);
	/* neither front-end nor socket noticed */
	rng_works(s.fe.queues[0]);
	server_reconnect(&s);
	server_up(&s);
	server_end(&s);
}

static void no_socket(const struct fe_mode *m)
{
	char path[128], target[128], text[8] = "";
	struct stat st;
	int fd;

	(void)m;
	snprintf(path, sizeof(path), "%s/file", fe_tmpdir());
	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK_EQ(write(fd, "keep", 4), 4);
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", path)), 1, path);
	CHECK_EQ(pread(fd, text, 8, 0), 4);
	CHECK_STR(text, "keep");
	close(fd);
	CHECK_EQ(access(path, F_OK), 0);
	/* a link to a file, a directory, a path too long, a directory that is not there */
	snprintf(target, sizeof(target), "%s/link", fe_tmpdir());
	CHECK_SYS(symlink(path, target));
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", target)), 1, target);
	CHECK_SYS(lstat(target, &st));
	CHECK(S_ISLNK(st.st_mode));
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", fe_tmpdir())), 1, "");
	snprintf(target, sizeof(target), "%s/not/there", fe_tmpdir());
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", target)), 1, target);
	memset(target, 'a', 120);
	target[0] = '/';
	target[120] = 0;
	refuses(-1, FE_ARGS("rng", socket_option("socket-path", target)), 1, "");
}

/* --- --connect --- */

static void client(const struct fe_mode *m)
{
	struct server s;
	int listener;

	fe_init(&s.fe, m);
	snprintf(s.path, sizeof(s.path), "%s/socket", fe_tmpdir());
	listener = fe_listen(s.path);
	fe_process_start(&s.fe.process, -1, FE_ARGS("rng", socket_option("connect", s.path)));
	for (unsigned i = 0; i < 4; i++) {
		struct fe_process p = s.fe.process;

		fe_accept(&s.fe, listener);
		server_up(&s);
		fe_close(&s.fe);
		fe_init(&s.fe, m);
		s.fe.process = p;
	}
	/* the front-end is away for a while */
	close(listener);
	unlink(s.path);
	listener = fe_listen(s.path);
	fe_accept(&s.fe, listener);
	server_up(&s);
	fe_process_signal(&s.fe.process, SIGTERM);
	fe_process_exits(&s.fe.process, 0);
	fe_close(&s.fe);
	close(listener);
	CHECK_EQ(access(s.path, F_OK), 0);
}

/* It may be started first. */
static void client_first(const struct fe_mode *m)
{
	struct timespec pause = {.tv_nsec = 50000000};
	struct server s;
	int listener;

	fe_init(&s.fe, m);
	snprintf(s.path, sizeof(s.path), "%s/socket", fe_tmpdir());
	fe_process_start(&s.fe.process, -1, FE_ARGS("rng", socket_option("connect", s.path)));
	nanosleep(&pause, NULL);
	CHECK(fe_process_running(&s.fe.process));
	listener = fe_listen(s.path);
	fe_accept(&s.fe, listener);
	server_up(&s);
	fe_process_signal(&s.fe.process, SIGTERM);
	fe_process_exits(&s.fe.process, 0);
	fe_close(&s.fe);
	close(listener);
}

/* --- signals --- */

static void terminate(struct server *s, int sig)
{
	fe_process_signal(&s->fe.process, sig);
	fe_process_exits(&s->fe.process, 0);
	if (access(s->path, F_OK) == 0)
		FAIL("%s: expected it to be removed", s->path);
	fe_close(&s->fe);
}

static void signals(const struct fe_mode *m)
{
	static const int sigs[] = {SIGTERM, SIGINT};
	struct source src;
	struct server s;

	for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++) {
		struct vring_driver_buf b;

		/* nobody connected: the socket is there when the process listens */
		server_start(&s, m, NULL);
		fe_hangup(&s.fe);
		terminate(&s, sigs[i]);
		/* in the middle of a message */
		server_start(&s, m, NULL);
		CHECK(fe_send_raw(&s.fe, "\1\0\0", 3, NULL, 0));
		terminate(&s, sigs[i]);
		/* a ring runs */
		server_start(&s, m, NULL);
		server_up(&s);
		terminate(&s, sigs[i]);
		/* a request is in flight */
		source_open(&src);
		server_start(&s, m, FE_ARGS(src.option));
		fe_handshake(&s.fe);
		fe_memory_default(&s.fe);
		fe_queue_up(&s.fe, 0, 16);
		b = fe_wr(&s.fe, fe_alloc(&s.fe, 64, 1, NULL), 64);
		fe_submit(s.fe.queues[0], &b, 1, NULL);
		fe_flush(s.fe.queues[0]);
		fe_barrier(&s.fe);
		terminate(&s, sigs[i]);
		source_close(&src);
	}
}

/* SIGHUP and SIGPIPE must not kill it, whatever they do. */
static void sigpipe(const struct fe_mode *m)
{
	struct server s;

	server_start(&s, m, NULL);
	fe_process_signal(&s.fe.process, SIGPIPE);
	server_up(&s);
	/* a call fd whose other end is gone */
	{
		struct fe_queue *q = s.fe.queues[0];
		int sv[2];

		CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
		fe_queue_send_fd(q, FE_SET_VRING_CALL, sv[0]);
		close(sv[0]);
		close(sv[1]);
		q->nofd_call = true;
		rng_works(q);
	}
	server_end(&s);
}

/* A front-end that goes while a request waits: nobody writes to its memory any more, the next one is served. */
static void hangup_in_flight(const struct fe_mode *m)
{
	struct source src;
	struct server s;

	source_open(&src);
	server_start(&s, m, FE_ARGS(src.option));
	for (unsigned i = 0; i < 10; i++) {
		struct vring_driver_buf b;
		struct fe_queue *q;
		uint8_t *p;

		fe_handshake(&s.fe);
		fe_memory_default(&s.fe);
		q = fe_queue_up(&s.fe, 0, 16);
		p = fe_alloc(&s.fe, 64, 1, NULL);
		b = fe_wr(&s.fe, p, 64);
		for (unsigned n = 0; n < 3; n++)
			fe_submit(q, &b, 1, NULL);
		fe_flush(q);
		fe_barrier(&s.fe);
		server_reconnect(&s);
	}
	/* what is fed now goes to this front-end only */
	fe_handshake(&s.fe);
	fe_memory_default(&s.fe);
	{
		struct fe_queue *q = fe_queue_up(&s.fe, 0, 16);
		uint8_t *p = fe_alloc(&s.fe, 64, 1, NULL);
		struct vring_driver_buf b = fe_wr(&s.fe, p, 64);

		fe_submit(q, &b, 1, NULL);
		fe_flush(q);
		source_feed(&src, 64);
		CHECK_EQ(fe_wait(q, NULL), 64);
		source_check(0, p, 64);
	}
	server_end(&s);
	source_close(&src);
}

/* A descriptor that the parent leaked into it stays open: libvirt holds the lock of its pid file that way. */
static void inherited_fd(const struct fe_mode *m)
{
	int pipefd[2], end;
	struct server s;
	char c;

	CHECK_SYS(pipe2(pipefd, O_CLOEXEC));
	fe_init(&s.fe, m);
	snprintf(s.path, sizeof(s.path), "%s/socket", fe_tmpdir());
	fe_process_start(&s.fe.process, pipefd[1], FE_ARGS("rng", socket_option("socket-path", s.path)));
	end = fcntl(pipefd[1], F_GETFD);
	CHECK(end & FD_CLOEXEC);
	close(pipefd[1]);
	fe_connect(&s.fe, s.path);
	server_up(&s);
	/* no end of file while the process lives */
	CHECK(!fe_poll(pipefd[0], POLLIN, 0));
	server_end(&s);
	CHECK(fe_poll(pipefd[0], POLLIN, fe_limit_ms));
	CHECK_EQ(read(pipefd[0], &c, 1), 0);
	close(pipefd[0]);
}

int main(void)
{
	static const struct fe_mode split = {0};

	fe_case("--fd: end of file ends it with status 0", fd_end_of_file, &split);
	fe_case("--fd: a listening socket", fd_listening, &split);
	fe_case("--fd: not a socket, not open", fd_unusable, &split);
	fe_each_layout("50 front-ends one after the other", one_after_the_other);
	fe_case("a second front-end waits", second_waits, &split);
	fe_case("a stale socket is replaced", stale_socket, &split);
	fe_case("a live socket is refused", live_socket, &split);
	fe_case("a path that is no socket is refused", no_socket, &split);
	fe_case("--connect: again and again", client, &split);
	fe_case("--connect: before the front-end listens", client_first, &split);
	fe_case("SIGTERM and SIGINT", signals, &split);
	fe_case("SIGPIPE", sigpipe, &split);
	fe_each_layout("the front-end goes with requests in flight", hangup_in_flight);
	fe_case("an inherited descriptor stays open", inherited_fd, &split);
	return tap_done();
}
