/* SPDX-License-Identifier: MIT */
/* A whole session: features, a front-end that does not read, device state, the end of the process. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "host.h"

/* Features are final while a ring runs; the log may be switched. */
static void features_on_running_rings(const struct fe_mode *m)
{
	uint64_t running, base = BIT(FE_F_PROTOCOL) | BIT(FE_F_VERSION_1);
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	running = h.fe.features & 3;
	CHECK_EQ(running, 3);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	fe_set_u64(&h.fe, FE_SET_FEATURES, base | BIT(FE_F_LOG_ALL) | 1);
	echo_works(q);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & 3, 3);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & BIT(FE_F_LOG_ALL), 0);
	fe_set_u64(&h.fe, FE_SET_FEATURES, h.fe.features);
	fe_queue_send(q, fe_queue_stop(q));
	fe_kick(q);
	echo_works(q);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & 3, 3);
	host_end(&h);
}

/* --- a front-end that does not read --- */

static int unread(struct fe *fe)
{
	int n;

	CHECK_SYS(ioctl(fe->sock, FIONREAD, &n));
	return n;
}

/* Asks for features until no reply fits any more; how many did. */
static int fill_socket(struct fe *fe)
{
	int n = 0, ms;

	for (;;) {
		fe_send(fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0);
		for (ms = 0; unread(fe) == n * 20 && ms < 200; ms++)
			usleep(1000);
		if (unread(fe) == n * 20)
			return n;
		n++;
	}
}

static void replies(struct fe *fe, int n)
{
	while (n--)
		host_expect(fe, FE_GET_FEATURES, 8);
}

/* The reply of a message that had to wait finds no room: it comes when there is. */
static void late_reply(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q;
	static struct host h;
	int room, i;

	host_start(&h, m, 1);
	fe_handshake(&h.fe);
	fe_memory_default(&h.fe);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	room = fill_socket(&h.fe);
	replies(&h.fe, room + 1);
	fe_barrier(&h.fe);
	echo_submit_held(q, 1);
	for (i = 0; i < room; i++)
		fe_send(&h.fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0);
	while (unread(&h.fe) < room * 20)
		usleep(200);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	dev_until(&dev.stopped, 1);
	dev_release();
	dev_until(&dev.nheld, 0);
	usleep(20000);
	replies(&h.fe, room);
	host_expect(&h.fe, FE_GET_VRING_BASE, sizeof(s));
	fe_barrier(&h.fe);
	host_end(&h);
}

/* It says that it sends no more, and does not read either: the connection is over. */
static void half_closed(const struct fe_mode *m)
{
	static struct host h;

	host_start(&h, m, 1);
	fe_handshake(&h.fe);
	fill_socket(&h.fe);
	CHECK_SYS(shutdown(h.fe.sock, SHUT_WR));
	host_join(&h, 0);
	fe_close(&h.fe);
}

/* --- device state --- */

static uint64_t state_fd(struct fe *fe, uint32_t direction, int fd)
{
	struct fe_wire_state s = {.direction = direction};
	struct fe_msg m;

	fe_send(fe, FE_SET_DEVICE_STATE_FD, 0, &s, sizeof(s), &fd, 1);
	fe_expect(fe, FE_SET_DEVICE_STATE_FD, 8, &m);
	return *(uint64_t *)m.body;
}

static void state_moves(const struct fe_mode *m)
{
	uint8_t *copy = malloc(HOST_STATE);
	struct fe_queue *q;
	static struct host h;
	size_t done = 0;
	struct fe_msg msg;
	int p[2];

	CHECK(copy && (dev.state = malloc(HOST_STATE)));
	for (size_t i = 0; i < HOST_STATE; i++)
		dev.state[i] = (uint8_t)(i * 31 + i / 256);
	memcpy(copy, dev.state, HOST_STATE);
	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK(state_fd(&h.fe, 0, p[1]) & 0xff); /* a ring runs */
	fe_queue_stop(q);
	CHECK_EQ(state_fd(&h.fe, 0, p[1]), 0x100);
	CHECK(state_fd(&h.fe, 0, p[1]) & 0xff); /* one at a time */
	close(p[1]);
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	CHECK(host_quiet(&h.fe));
	while (done < HOST_STATE) {
		uint8_t buf[5000];
		ssize_t n = read(p[0], buf, sizeof(buf));

		CHECK(n > 0);
		CHECK_MEM(buf, copy + done, (size_t)n);
		done += (size_t)n;
	}
	CHECK_EQ(read(p[0], copy, 1), 0);
	close(p[0]);
	fe_expect(&h.fe, FE_CHECK_DEVICE_STATE, 8, &msg);
	CHECK_EQ(*(uint64_t *)msg.body, 0);
	/* and in */
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK_EQ(state_fd(&h.fe, 1, p[0]), 0x100);
	close(p[0]);
	for (done = 0; done < HOST_STATE; done += 4096) {
		uint8_t page[4096];

		memset(page, (int)(done >> 12), sizeof(page));
		CHECK_EQ(write(p[1], page, sizeof(page)), sizeof(page));
	}
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	CHECK(host_quiet(&h.fe));
	close(p[1]);
	fe_expect(&h.fe, FE_CHECK_DEVICE_STATE, 8, &msg);
	CHECK_EQ(*(uint64_t *)msg.body, 0);
	fe_barrier(&h.fe);
	for (done = 0; done < HOST_STATE; done += 4096)
		CHECK_EQ(dev.state[done + 77], (uint8_t)(done >> 12));
	/* the front-end goes in the middle */
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK_EQ(state_fd(&h.fe, 0, p[1]), 0x100);
	close(p[1]);
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	host_end(&h);
	while (read(p[0], copy, 4096) > 0)
		;
	close(p[0]);
	free(copy);
}

/* --- the end of the process --- */

static void exits_in(pid_t pid, int status)
{
	int got;

	CHECK_EQ(waitpid(pid, &got, 0), pid);
	CHECK(WIFEXITED(got));
	CHECK_EQ(WEXITSTATUS(got), status);
}

/* held: elements are out and stay out; then the process ends all the same. */
static void terminated(const struct fe_mode *m, bool held)
{
	char path[128];
	struct fe_queue *q;
	struct fe fe;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/s", fe_tmpdir());
	fflush(NULL);
	pid = fork();
	CHECK_SYS(pid);
	if (pid == 0) {
		struct backend_options opt = {
			.sockets = {{.path = path, .fd = -1}}, .nsockets = 1, .packed = true};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dev.hold = held;
		_exit(host_serve(&opt));
	}
	fe_init(&fe, m);
	fe_connect(&fe, path);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	echo_submit(q, 10);
	fe_flush(q);
	if (held)
		fe_barrier(&fe);
	else
		echo_collect(q);
	CHECK_EQ(access(path, F_OK), 0);
	kill(pid, SIGTERM);
	fe_expect_eof(&fe);
	exits_in(pid, 0);
	CHECK_EQ(access(path, F_OK), -1);
	fe_close(&fe);
}

static void terminated_idle(const struct fe_mode *m)
{
	terminated(m, false);
}

static void terminated_busy(const struct fe_mode *m)
{
	terminated(m, true);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_case("features while a ring runs", features_on_running_rings, NULL);
	fe_case("a late reply finds no room", late_reply, NULL);
	fe_case("half closed and clogged", half_closed, NULL);
	fe_case("device state through the connection", state_moves, NULL);
	fe_case("SIGTERM", terminated_idle, NULL);
	fe_case("SIGTERM with buffers out", terminated_busy, NULL);
	return tap_done();
}
