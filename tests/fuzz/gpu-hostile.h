/* SPDX-License-Identifier: MIT */
/*
 * The renderer's end of the line for tests/fuzz/gpu-renderer.c, which is part of this program: there is no process. Included in
 * the place of gpu-3d-pretend.c. What both files of the device call by one name is told apart here.
 */
#ifndef TESTS_FUZZ_GPU_HOSTILE_H
#define TESTS_FUZZ_GPU_HOSTILE_H

#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "../../devices/gpu-wire.h"

static int hostile_start(int sv[2]);

#define socketpair(domain, type, protocol, sv)		      hostile_start(sv)
#define posix_spawn(pid, path, files, attr, argv, env)	      ((void)(argv), *(pid) = 1, 0)
#define posix_spawn_file_actions_adddup2(files, fd, to)	      ((void)(fd))
#define posix_spawn_file_actions_addclosefrom_np(files, from) ((void)0)
#define posix_spawn_file_actions_addopen(files, fd, p, f, m)  ((void)0)
#define kill(pid, sig)					      ((void)(pid))
#define waitpid(pid, status, flags)			      (*(status) = 0, (pid))
#define pidfd_open					      hostile_pidfd /* its header has no guard: this declares it */
#include "../../devices/gpu-link.c"
#include "../../devices/gpu-3d.c"
#include "../../devices/gpu-3d-command.c"
#undef socketpair
#undef kill
#undef waitpid
#undef pidfd_open

/* Of a process that never ends. */
int hostile_pidfd(__pid_t pid, unsigned flags)
{
	(void)pid;
	(void)flags;
	return eventfd(0, EFD_CLOEXEC);
}

int gpu_3d_helper(void)
{
	return 1;
}

bool backend_memory_region(
	struct backend *b, const struct backend_memory *m, unsigned i, struct backend_region *out)
{
	(void)b;
	(void)m;
	*out = (struct backend_region){.gpa = 0, .size = 4096, .fd = STDERR_FILENO};
	return i == 0;
}

static struct {
	int fd;		 /* its end, or -1 */
	uint32_t seq[8]; /* of messages that wait for an answer, as far as it has read */
	unsigned n;
} hostile = {.fd = -1};

/* All works well until it is ready. */
static int hostile_start(int sv[2])
{
	static const uint8_t capsets[100];
	struct wire_reply ready = {.type = WIRE_READY, .status = 1, .fds = 1, .capset = {{1, 60}, {2, 40}}};
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr c;
	} u = {.c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec v = {&ready, sizeof(ready)};
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u.room)};
	CLEANUP_FD int file = memfd_create("capsets", MFD_CLOEXEC);

	if ((socketpair)(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -1;
	fd_close(&hostile.fd);
	hostile.fd = fcntl(sv[1], F_DUPFD_CLOEXEC, 0);
	hostile.n = 0;
	memcpy(CMSG_DATA(&u.c), &file, sizeof(file));
	return write(file, capsets, sizeof(capsets)) > 0 && sendmsg(hostile.fd, &m, 0) > 0 ? 0 : -1;
}

/* Reads what there is, and remembers what wants an answer. Messages may be cut off by what it has room for: then it forgets. */
static void hostile_read(void)
{
	static uint8_t bytes[1 << 16] __attribute__((aligned(8)));
	ssize_t n = hostile.fd < 0 ? -1 : recv(hostile.fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	size_t at = 0;

	while (n > 0 && (size_t)n - at >= sizeof(struct wire)) {
		const struct wire *w = (const void *)(bytes + at);

		if (w->size < sizeof(*w) || w->size > (size_t)n - at)
			return;
		if (w->flags & WIRE_ANSWER && hostile.n < ARRAY_SIZE(hostile.seq))
			hostile.seq[hostile.n++] = w->seq;
		at += w->size;
	}
}

static void hostile_send(const void *data, size_t size)
{
	if (hostile.fd >= 0)
		send(hostile.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* An answer as it should be, but for its contents. */
static void hostile_answer(uint32_t status)
{
	struct wire_reply m = {.type = WIRE_DONE, .seq = hostile.seq[0], .status = status};

	if (!hostile.n)
		return;
	memmove(hostile.seq, hostile.seq + 1, --hostile.n * sizeof(hostile.seq[0]));
	hostile_send(&m, sizeof(m));
}

enum { HOSTILE_READ, HOSTILE_ANSWER, HOSTILE_FENCE, HOSTILE_BYTES, HOSTILE_END, HOSTILE_STEPS };

static void hostile_step(struct input *in)
{
	struct wire_reply m = {.type = WIRE_FENCED};
	uint8_t what = input_u8(in), bytes[sizeof(m) * 2], n;

	switch (what % HOSTILE_STEPS) {
	case HOSTILE_READ:
		hostile_read();
		break;
	case HOSTILE_ANSWER:
		hostile_answer(what & 64 ? VIRTIO_GPU_RESP_OK_NODATA : 0x1200u + (what >> 7) * 5);
		break;
	case HOSTILE_FENCE:
		m.seq = input_u8(in);
		hostile_send(&m, sizeof(m));
		break;
	case HOSTILE_BYTES:
		n = input_u8(in) % sizeof(bytes);
		input_bytes(in, bytes, n);
		hostile_send(bytes, n);
		break;
	case HOSTILE_END:
		fd_close(&hostile.fd);
		break;
	}
}

/* The queue stops: what takes too long is given up. */
static void hostile_stop(struct gpu_3d *t)
{
	if (t->requests)
		expired(&t->expiry);
}

#endif
