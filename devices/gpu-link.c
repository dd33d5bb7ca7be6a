/* SPDX-License-Identifier: MIT */
/*
 * The line to the renderer, see gpu-link.h.
 *
 * The renderer is this program again, started anew with HELPER_ARGUMENT, so that it has nothing of this process but the socket and
 * standard error. It ends when the socket does, and is killed when it must not go on; the kernel tells by a pidfd when it has ended.
 */
#include "gpu-link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { LINE_BUFFER = 1 << 20, KEEP_ROOM = 1 << 20, FIRST_ROOM = 16 << 10 };

extern char **environ;

/* The process */

struct gpu_child {
	struct watch watch; /* of a pidfd: it has ended */
	struct gpu_child *next;
	struct gpu_link *l;
	pid_t pid;
	bool wanted; /* that it ends */
};

static int spawn(int fd, pid_t *pid)
{
	static char name[] = "vhost-user-gpu", argument[] = HELPER_ARGUMENT;
	char *argv[] = {name, argument, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int err;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawn_file_actions_init(&files);
	/* the others may be the front-end's */
	posix_spawn_file_actions_adddup2(&files, fd, HELPER_FD);
	posix_spawn_file_actions_addclosefrom_np(&files, HELPER_FD + 1);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
	err = posix_spawn(pid, "/proc/self/exe", &files, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -err;
}

/* False: it goes on. */
static bool child_reap(struct gpu_child *c)
{
	int status = 0;
	pid_t pid;

	do
		pid = waitpid(c->pid, &status, WNOHANG);
	while (pid < 0 && errno == EINTR);
	if (!pid)
		return false;
	if (pid > 0 && !c->wanted && !c->l->trying && WIFSIGNALED(status))
		log_guest_error("the renderer was ended by signal %d", WTERMSIG(status));
	else if (pid > 0 && !c->wanted && !c->l->trying)
		log_guest_error("the renderer ended with status %d", WEXITSTATUS(status));
	return true;
}

static void child_free(struct gpu_child *c)
{
	int fd = c->watch.fd;

	watch_del(&c->watch);
	fd_close(&fd);
	free(c);
}

static void child_ended(struct watch *w, uint32_t events)
{
	struct gpu_child *c = container_of(w, struct gpu_child, watch), **at = &c->l->old;

	(void)events;
	if (!child_reap(c))
		return;
	while (*at && *at != c)
		at = &(*at)->next;
	if (*at)
		*at = c->next;
	else
		c->l->child = NULL; /* the socket says the rest */
	child_free(c);
}

/* It must not go on. wanted: nobody is to blame. */
static void child_end(struct gpu_link *l, bool wanted)
{
	struct gpu_child *c = l->child;

	l->child = NULL;
	if (!c)
		return;
	c->wanted = wanted || l->trying;
	if (child_reap(c)) {
		child_free(c);
		return;
	}
	kill(c->pid, SIGKILL);
	c->next = l->old;
	l->old = c;
}

static int child_start(struct gpu_link *l, int fd)
{
	struct gpu_child *c = calloc(1, sizeof(*c));
	int err = c ? spawn(fd, &c->pid) : -ENOMEM, pidfd;

	if (err) {
		free(c);
		return err;
	}
	c->l = l;
	c->watch = (struct watch){.fd = -1, .ready = child_ended};
	l->child = c;
	if (!l->loop)
		return 0;
	pidfd = pidfd_open(c->pid, 0);
	err = pidfd < 0 ? -errno : watch_add(l->loop, &c->watch, pidfd, EPOLLIN);
	if (!err)
		return 0;
	fd_close(&pidfd);
	child_end(l, true);
	return err;
}

/* Speaking */

static void out_clear(struct gpu_link *l)
{
	size_t i;

	for (i = 0; i < l->nout_fd; i++)
		fd_close(&l->out_fd[i].fd);
	l->nout_fd = l->out_pos = l->out_len = 0;
	if (l->out_room > KEEP_ROOM) {
		free(l->out);
		l->out = NULL;
		l->out_room = 0;
	}
}

static bool out_grow(struct gpu_link *l, size_t n)
{
	size_t room = MAX(l->out_room, (size_t)FIRST_ROOM);
	uint8_t *more;

	while (room - l->out_len < n)
		room *= 2;
	if (room == l->out_room)
		return true;
	more = realloc(l->out, room);
	if (!more)
		return false;
	l->out = more;
	l->out_room = room;
	return true;
}

void *gpu_link_put(struct gpu_link *l, struct wire m, size_t payload)
{
	size_t size = ALIGN_UP(sizeof(m) + payload, (size_t)WIRE_ALIGN);
	uint8_t *at;

	if (!gpu_link_up(l) || !out_grow(l, size))
		return NULL;
	at = l->out + l->out_len;
	m.size = (uint32_t)size;
	memcpy(at, &m, sizeof(m));
	memset(at + size - WIRE_ALIGN, 0, payload ? WIRE_ALIGN : 0);
	l->out_len += size;
	if (l->loop)
		loop_defer(l->loop, &l->pump);
	return at + sizeof(m);
}

bool gpu_link_put_fd(struct gpu_link *l, int fd)
{
	struct gpu_link_fd *more = l->out_fd;

	if (l->nout_fd == l->out_fd_room)
		more = realloc(l->out_fd, (l->out_fd_room * 2 + 16) * sizeof(*more));
	if (!more) {
		close(fd);
		return false;
	}
	l->out_fd_room = l->nout_fd == l->out_fd_room ? l->out_fd_room * 2 + 16 : l->out_fd_room;
	l->out_fd = more;
	l->out_fd[l->nout_fd++] = (struct gpu_link_fd){l->out_len - 1, fd};
	return true;
}

size_t gpu_link_queued(const struct gpu_link *l)
{
	return l->out_len - l->out_pos;
}

/* Up to where no other descriptor goes along. */
static ssize_t send_some(struct gpu_link *l)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr c;
	} u = {.c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	size_t end = l->nout_fd ? l->out_fd[0].at : l->out_len;
	struct iovec v = {l->out + l->out_pos, end - l->out_pos};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	ssize_t sent;

	if (!v.iov_len) {
		memcpy(CMSG_DATA(&u.c), &l->out_fd[0].fd, sizeof(int));
		v.iov_len = 1;
		m.msg_control = &u;
		m.msg_controllen = sizeof(u.room);
	}
	do
		sent = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return -errno;
	if (m.msg_control) {
		fd_close(&l->out_fd[0].fd);
		memmove(l->out_fd, l->out_fd + 1, --l->nout_fd * sizeof(*l->out_fd));
	}
	l->out_pos += (size_t)sent;
	return sent;
}

static void line_close(struct gpu_link *l);

static void lose(struct gpu_link *l)
{
	line_close(l);
	child_end(l, false);
	l->lost(l);
}

static void speak(struct gpu_link *l)
{
	ssize_t sent = 0;

	while (gpu_link_queued(l) && sent >= 0)
		sent = send_some(l);
	if (sent < 0 && sent != -EAGAIN) {
		lose(l); /* what it still said does not matter */
		return;
	}
	if (l->loop)
		watch_modify(&l->watch, sent < 0 ? EPOLLIN | EPOLLOUT : EPOLLIN);
	if (sent < 0) {
		l->out_len -= l->out_pos;
		memmove(l->out, l->out + l->out_pos, l->out_len);
		for (size_t i = 0; i < l->nout_fd; i++)
			l->out_fd[i].at -= l->out_pos;
		l->out_pos = 0;
		return;
	}
	out_clear(l);
	l->drained(l);
}

static void speak_soon(struct task *t)
{
	struct gpu_link *l = container_of(t, struct gpu_link, pump);

	if (gpu_link_up(l))
		speak(l);
}

/* Listening */

int gpu_link_take_fd(struct gpu_link *l)
{
	int fd = l->nin_fd ? l->in_fd[0] : -1;

	if (l->nin_fd)
		memmove(l->in_fd, l->in_fd + 1, --l->nin_fd * sizeof(int));
	return fd;
}

/* False: more than there can be. */
static bool keep_fds(struct gpu_link *l, struct msghdr *m)
{
	struct cmsghdr *c;
	bool ok = !(m->msg_flags & MSG_CTRUNC);

	for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t i, n = c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (l->nin_fd < GPU_LINK_FDS)
				l->in_fd[l->nin_fd++] = fd;
			else
				ok = false, close(fd);
		}
	}
	return ok;
}

static bool one_reply(struct gpu_link *l, const struct wire_reply *m)
{
	unsigned before = l->nin_fd;

	if (m->fds > 1 || m->fds > before || !l->reply(l, m))
		return false;
	if (gpu_link_up(l) && m->fds && l->nin_fd == before) {
		int fd = gpu_link_take_fd(l); /* nobody wanted it */

		fd_close(&fd);
	}
	return true;
}

/* > 0: something came; 0: nothing; -errno. */
static ssize_t hear(struct gpu_link *l)
{
	char room[CMSG_SPACE(GPU_LINK_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec v = {(char *)l->in + l->nin, sizeof(l->in) - l->nin};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
	ssize_t n;
	size_t i, whole;

	do
		n = recvmsg(l->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
	if (!keep_fds(l, &m))
		return -EPROTO;
	l->nin += (size_t)n;
	whole = l->nin / sizeof(l->in[0]);
	for (i = 0; i < whole && gpu_link_up(l); i++)
		if (!one_reply(l, &l->in[i]))
			return -EPROTO;
	if (!gpu_link_up(l))
		return n;
	l->nin -= whole * sizeof(l->in[0]);
	memmove(l->in, &l->in[whole], l->nin);
	return n;
}

static bool listen_to(struct gpu_link *l)
{
	ssize_t n = hear(l);

	if (n < 0 && n != -EPIPE)
		log_guest_error("the renderer says what nobody asked for");
	if (n < 0)
		lose(l);
	return n > 0;
}

static void link_ready(struct watch *w, uint32_t events)
{
	struct gpu_link *l = container_of(w, struct gpu_link, watch);

	if (events & ~(uint32_t)EPOLLOUT)
		listen_to(l);
	if (gpu_link_up(l) && events & EPOLLOUT)
		speak(l);
}

bool gpu_link_wait(struct gpu_link *l, int ms)
{
	struct pollfd p;

	if (gpu_link_up(l))
		speak(l);
	p = (struct pollfd){.fd = l->fd, .events = POLLIN | (gpu_link_queued(l) ? POLLOUT : 0)};
	if (!gpu_link_up(l) || poll(&p, 1, ms) <= 0)
		return false;
	return !(p.revents & ~POLLOUT) || listen_to(l);
}

/* Life */

int gpu_link_start(struct gpu_link *l)
{
	int sv[2], size = LINE_BUFFER, err;

	l->fd = -1;
	l->watch = (struct watch){.fd = -1, .ready = link_ready};
	l->pump.run = speak_soon;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return log_errno(errno, "a socket for the renderer");
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	err = child_start(l, sv[1]);
	close(sv[1]);
	if (!err && l->loop)
		err = watch_add(l->loop, &l->watch, sv[0], EPOLLIN);
	if (err) {
		child_end(l, true);
		close(sv[0]);
		return log_errno(-err, "the renderer could not be started");
	}
	l->fd = sv[0];
	return 0;
}

static void line_close(struct gpu_link *l)
{
	int fd;

	watch_del(&l->watch);
	if (l->loop)
		loop_cancel(l->loop, &l->pump);
	fd_close(&l->fd);
	out_clear(l);
	while ((fd = gpu_link_take_fd(l)) >= 0)
		close(fd);
	l->nin = 0;
}

void gpu_link_end(struct gpu_link *l)
{
	if (!gpu_link_up(l))
		return;
	line_close(l);
	child_end(l, true);
}

void gpu_link_close(struct gpu_link *l)
{
	struct gpu_child *c;

	gpu_link_end(l);
	while ((c = l->old)) {
		l->old = c->next;
		child_reap(c);
		child_free(c);
	}
	free(l->out);
	free(l->out_fd);
	l->out = NULL;
	l->out_fd = NULL;
	l->out_room = l->out_fd_room = 0;
}
