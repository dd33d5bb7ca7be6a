/* SPDX-License-Identifier: MIT */
/* Where connections come from: paths that are free, stale, alive or something else; descriptors; a client's retries. */
#include "listener.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "settle.h"
#include "tap.h"

struct rig {
	struct loop *loop;
	struct listener l;
	char dir[64], path[80];
	int got[8];
	unsigned n;
	bool stop; /* the loop, when one came */
};

static void connected(struct listener *l, int fd)
{
	struct rig *r = container_of(l, struct rig, l);

	CHECK(r->n < ARRAY_SIZE(r->got));
	CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	r->got[r->n++] = fd;
	if (r->stop)
		loop_stop(r->loop);
}

static void rig_open(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	r->l = (struct listener){.fd = -1, .watch.fd = -1, .connected = connected};
	CHECK_EQ(loop_new(&r->loop, "test"), 0);
	snprintf(r->dir, sizeof(r->dir), "/tmp/listener-test.XXXXXX");
	CHECK(mkdtemp(r->dir));
	snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
}

static void rig_close(struct rig *r)
{
	while (r->n)
		close(r->got[--r->n]);
	listener_close(&r->l);
	listener_close(&r->l);
	loop_free(r->loop);
	unlink(r->path);
	CHECK_EQ(rmdir(r->dir), 0); /* nothing else was left */
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	CHECK(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path) + 1);
	return a;
}

static int stream(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(fd);
	return fd;
}

static int client(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = stream();

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

static int server(const char *path)
{
	struct sockaddr_un a = address(path);
	int fd = stream();

	CHECK_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(fd, 1));
	return fd;
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/* The two ends belong together. */
static void check_connected(int a, int b)
{
	char c = 'x';

	CHECK_EQ(write(a, &c, 1), 1);
	c = 0;
	CHECK_EQ(read(b, &c, 1), 1);
	CHECK_EQ(c, 'x');
}

/* One connection at a time; the next waits until it is asked for. */
static void accepts(void *arg)
{
	int a, b, c;
	struct rig r;

	(void)arg;
	rig_open(&r);
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), 0);
	CHECK(exists(r.path));
	CHECK_SYS(a = client(r.path));
	loop_settle(r.loop, 3);
	CHECK_EQ(r.n, 0); /* nobody asked */
	CHECK(listener_next(&r.l));
	CHECK_SYS(b = client(r.path));
	CHECK_SYS(c = client(r.path));
	loop_settle(r.loop, 5);
	CHECK_EQ(r.n, 1);
	check_connected(a, r.got[0]);
	CHECK(listener_next(&r.l));
	loop_settle(r.loop, 5);
	CHECK_EQ(r.n, 2);
	check_connected(b, r.got[1]);
	close(c); /* has gone before its turn: it is a connection that ends at once */
	CHECK(listener_next(&r.l));
	loop_settle(r.loop, 5);
	CHECK_EQ(r.n, 3);
	CHECK(listener_next(&r.l));
	loop_settle(r.loop, 5);
	CHECK_EQ(r.n, 3);
	listener_close(&r.l);
	CHECK(!exists(r.path));
	close(a);
	close(b);
	rig_close(&r);
}

static void mode_bits(void *arg)
{
	static const struct {
		uint32_t mode;
		mode_t mask, want;
	} cases[] = {{0, 022, 0755}, {0, 077, 0700}, {0660, 022, 0660}, {0666, 077, 0666}, {0600, 0, 0600},
		{0777, 0777, 0777}};
	unsigned i;

	(void)arg;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct stat st;
		struct rig r;

		rig_open(&r);
		umask(cases[i].mask);
		CHECK_EQ(listener_open(&r.l, r.loop, r.path, cases[i].mode, -1, NULL), 0);
		CHECK_EQ(umask(022), cases[i].mask); /* as it was */
		CHECK_SYS(stat(r.path, &st));
		CHECK(S_ISSOCK(st.st_mode));
		CHECK_EQ(st.st_mode & 0777, cases[i].want);
		rig_close(&r);
	}
}

static void stale(void *arg)
{
	struct rig r;
	int fd;

	(void)arg;
	rig_open(&r);
	close(server(r.path));
	CHECK(exists(r.path));
	CHECK_EQ(client(r.path), -ECONNREFUSED);
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), 0);
	CHECK_SYS(fd = client(r.path));
	CHECK(listener_next(&r.l));
	loop_settle(r.loop, 3);
	CHECK_EQ(r.n, 1);
	check_connected(fd, r.got[0]);
	close(fd);
	rig_close(&r);
}

static void alive(void *arg)
{
	int busy = *(bool *)arg, fd, more[8];
	unsigned i, n = 0;
	struct rig r;

	rig_open(&r);
	fd = server(r.path);
	for (i = 0; busy && i < ARRAY_SIZE(more); i++) { /* its backlog is full: no proof of death */
		struct sockaddr_un a = address(r.path);

		CHECK_SYS(more[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
		if (connect(more[n++], (struct sockaddr *)&a, sizeof(a)) < 0)
			break;
	}
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), -EADDRINUSE);
	CHECK(exists(r.path));
	listener_close(&r.l);
	CHECK(exists(r.path));
	while (n)
		close(more[--n]);
	close(fd);
	rig_close(&r);
}

enum other { FILE_, DIRECTORY, FIFO, DANGLING, TO_SOCKET };

/* What is no socket stays: also a link that leads to one. */
static void no_socket(void *arg)
{
	enum other kind = *(enum other *)arg;
	char target[96];
	int fd = -1;
	struct rig r;

	rig_open(&r);
	snprintf(target, sizeof(target), "%s/t", r.dir);
	switch (kind) {
	case FILE_:
		CHECK_SYS(fd = open(r.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
		close(fd);
		break;
	case DIRECTORY:
		CHECK_SYS(mkdir(r.path, 0700));
		break;
	case FIFO:
		CHECK_SYS(mkfifo(r.path, 0600));
		break;
	case DANGLING:
		CHECK_SYS(symlink("nowhere", r.path));
		break;
	case TO_SOCKET:
		close(server(target));
		CHECK_SYS(symlink("t", r.path));
		break;
	}
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), -EEXIST);
	CHECK(exists(r.path));
	listener_close(&r.l);
	CHECK(exists(r.path));
	unlink(target);
	rmdir(r.path);
	rig_close(&r);
}

static void paths(void *arg)
{
	char longest[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	size_t n = sizeof(longest) - 1;
	struct rig r;

	(void)arg;
	rig_open(&r);
	memset(longest, 'x', sizeof(longest));
	longest[n] = 0; /* one too long */
	CHECK_EQ(listener_open(&r.l, r.loop, longest, 0, -1, NULL), -ENAMETOOLONG);
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, -1, longest), -ENAMETOOLONG);
	CHECK_EQ(listener_open(&r.l, r.loop, "/nowhere/at/all", 0, -1, NULL), -ENOENT);
	CHECK_EQ(listener_open(&r.l, r.loop, "/proc/self/s", 0, -1, NULL) < 0, 1);
	/* as long as may be */
	snprintf(longest, sizeof(longest), "%s/", r.dir);
	memset(longest + strlen(longest), 'y', n - strlen(longest));
	longest[n - 1] = 0;
	CHECK_EQ(listener_open(&r.l, r.loop, longest, 0, -1, NULL), 0);
	CHECK(exists(longest));
	listener_close(&r.l);
	CHECK(!exists(longest));
	rig_close(&r);
}

/* Somebody else's socket has taken the place of ours: it stays. */
static void foreign_at_the_end(void *arg)
{
	struct rig r;
	int fd;

	(void)arg;
	rig_open(&r);
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), 0);
	CHECK_EQ(unlink(r.path), 0);
	fd = server(r.path);
	listener_close(&r.l);
	CHECK(exists(r.path));
	close(fd);
	rig_close(&r);
	/* and one that was removed already is fine */
	rig_open(&r);
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), 0);
	CHECK_EQ(unlink(r.path), 0);
	rig_close(&r);
}

static void given_listening(void *arg)
{
	int fd, i;
	struct rig r;

	(void)arg;
	rig_open(&r);
	fd = server(r.path);
	fcntl(fd, F_SETFD, 0);
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, fd, NULL), 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	for (i = 0; i < 3; i++) {
		int c = client(r.path);

		CHECK_SYS(c);
		CHECK(listener_next(&r.l));
		loop_settle(r.loop, 3);
		CHECK_EQ(r.n, i + 1);
		check_connected(c, r.got[i]);
		close(c);
	}
	listener_close(&r.l);
	CHECK(exists(r.path)); /* not ours to remove */
	rig_close(&r);
}

static void given_connected(void *arg)
{
	struct rig r;
	int s[2];

	(void)arg;
	rig_open(&r);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, s[1], NULL), 0);
	CHECK(listener_next(&r.l));
	CHECK_EQ(r.n, 1);
	check_connected(s[0], r.got[0]);
	CHECK(!listener_next(&r.l)); /* there is no other */
	close(s[0]);
	rig_close(&r);
}

static void given_nonsense(void *arg)
{
	int s[2], pipes[2], fd;
	struct rig r;

	(void)arg;
	rig_open(&r);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, s[0], NULL), -EINVAL);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, s[0], NULL), -EINVAL);
	CHECK_SYS(fd = socket(AF_INET, SOCK_STREAM, 0));
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, fd, NULL), -EINVAL);
	CHECK_SYS(pipe(pipes));
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, pipes[0], NULL), -ENOTSOCK);
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, 12345, NULL), -EBADF);
	CHECK_EQ(r.l.fd, -1);
	rig_close(&r);
}

/* A client tries until somebody listens, at once the first time, and again after each connection. */
static void connects(void *arg)
{
	struct rig r;
	int fd, c, i;

	(void)arg;
	rig_open(&r);
	CHECK_EQ(listener_open(&r.l, r.loop, NULL, 0, -1, r.path), 0);
	CHECK(listener_next(&r.l));
	usleep(2);
	loop_settle(r.loop, 3);
	CHECK_EQ(r.n, 0);
	CHECK(r.l.retry.at != 0);
	CHECK(!exists(r.path));
	fd = server(r.path);
	r.stop = true;
	for (i = 0; i < 2; i++) {
		loop_run(r.loop);
		CHECK_EQ(r.n, i + 1);
		CHECK_SYS(c = accept(fd, NULL, NULL));
		check_connected(c, r.got[i]);
		close(c);
		CHECK(listener_next(&r.l));
	}
	listener_close(&r.l);
	CHECK(exists(r.path)); /* the server's */
	close(fd);
	rig_close(&r);
}

static void stop_loop(struct timer *t)
{
	loop_stop(t->loop);
}

/* No descriptor is left: the connection stays in the backlog, the loop sleeps, and tries again later. */
static void out_of_descriptors(void *arg)
{
	struct timer end = {.expired = stop_loop};
	struct rlimit old, low;
	struct timespec cpu;
	struct rig r;
	int a;

	(void)arg;
	rig_open(&r);
	CHECK_EQ(listener_open(&r.l, r.loop, r.path, 0, -1, NULL), 0);
	CHECK(listener_next(&r.l));
	a = client(r.path);
	CHECK(a >= 0);
	CHECK_SYS(getrlimit(RLIMIT_NOFILE, &old));
	low = old;
	low.rlim_cur = 0;
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &low));
	timer_arm_in(r.loop, &end, 300000000);
	loop_run(r.loop);
	CHECK_SYS(setrlimit(RLIMIT_NOFILE, &old));
	CHECK_EQ(r.n, 0);
	CHECK_SYS(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu));
	CHECK(cpu.tv_sec == 0 && cpu.tv_nsec < 150000000);
	r.stop = true;
	loop_run(r.loop);
	CHECK_EQ(r.n, 1);
	check_connected(a, r.got[0]);
	close(a);
	rig_close(&r);
}

/* In a child: listens when all may, and says whether it does; ends when it is told to. */
static void racer(const char *path, int go, int said, int end)
{
	struct sockpath s = {0};
	char byte;
	int fd;

	close(STDERR_FILENO);
	if (read(go, &byte, 1) < 0)
		_exit(1);
	fd = sockpath_listen(&s, "--socket-path", path, SOCK_STREAM, 0, 8);
	byte = fd >= 0 ? 'y' : 'n';
	if (write(said, &byte, 1) != 1 || read(end, &byte, 1) != 0)
		_exit(1);
	if (fd >= 0)
		close(fd);
	sockpath_remove(&s);
	_exit(0);
}

/* Several start with one path at once, where nothing is, or a socket that nobody listens on: one has it. */
static void race(void *arg)
{
	enum { RACERS = 4, ROUNDS = 60 };
	struct rig r;

	(void)arg;
	rig_open(&r);
	for (int round = 0; round < ROUNDS; round++) {
		int go[2], said[2], end[2], winners = 0, status, fd;
		pid_t pid[RACERS];
		char answer;

		if (round % 2)
			close(server(r.path));
		CHECK_EQ(pipe2(go, O_CLOEXEC) | pipe2(said, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
		for (int i = 0; i < RACERS; i++) {
			pid[i] = fork();
			if (pid[i] == 0) {
				close(go[1]);
				close(end[1]);
				racer(r.path, go[0], said[1], end[0]);
			}
		}
		close(go[1]);
		for (int i = 0; i < RACERS; i++) {
			CHECK_EQ(read(said[0], &answer, 1), 1);
			winners += answer == 'y';
		}
		CHECK_EQ(winners, 1);
		CHECK_SYS(fd = client(r.path));
		close(fd);
		close(end[1]);
		for (int i = 0; i < RACERS; i++) {
			CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
			CHECK_EQ(status, 0);
		}
		CHECK(!exists(r.path));
		close(go[0]);
		close(said[0]);
		close(said[1]);
		close(end[0]);
	}
	rig_close(&r);
}

int main(void)
{
	static const bool yes = true, no = false;
	static const char *const others[] = {
		"a file", "a directory", "a FIFO", "a link to nowhere", "a link to a socket"};
	char name[64];
	enum other k;

	tap_case("connections one at a time", accepts, NULL);
	tap_case("mode bits", mode_bits, NULL);
	tap_case("a stale socket", stale, NULL);
	tap_case("a live socket", alive, (void *)&no);
	tap_case("a live socket whose backlog is full", alive, (void *)&yes);
	for (k = FILE_; k <= TO_SOCKET; k++) {
		snprintf(name, sizeof(name), "%s in the way", others[k]);
		tap_case(name, no_socket, &k);
	}
	tap_case("paths", paths, NULL);
	tap_case("several processes at one path", race, NULL);
	tap_case("no descriptor for a connection", out_of_descriptors, NULL);
	tap_case("a foreign socket at the end", foreign_at_the_end, NULL);
	tap_case("a listening descriptor", given_listening, NULL);
	tap_case("a connected descriptor", given_connected, NULL);
	tap_case("descriptors of other kinds", given_nonsense, NULL);
	tap_case("a client", connects, NULL);
	return tap_done();
}
