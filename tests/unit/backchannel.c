/* SPDX-License-Identifier: MIT */
/* The back-channel: messages whole and in order, said once while the socket is full, and never waited for. */
#include "backchannel.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "message.h"
#include "settle.h"
#include "tap.h"

struct link {
	struct loop *loop;
	struct backchannel bc;
	int front, back; /* back: as the message brought it; the channel takes it */
	struct message_reader in;
	unsigned config, calls[BACKCHANNEL_MAX_QUEUES];
	unsigned total;
};

static void pair(int s[2])
{
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
}

static void link_open(struct link *l)
{
	int s[2];

	memset(l, 0, sizeof(*l));
	signal(SIGPIPE, SIG_IGN); /* as the program does */
	CHECK_EQ(loop_new(&l->loop, "test"), 0);
	backchannel_init(&l->bc, l->loop);
	pair(s);
	l->front = s[0];
	l->back = s[1];
	CHECK_EQ(backchannel_set(&l->bc, &s[1]), 0);
	CHECK_EQ(s[1], -1);
	CHECK(fcntl(l->back, F_GETFL) & O_NONBLOCK);
}

static void link_close(struct link *l)
{
	backchannel_close(&l->bc);
	backchannel_close(&l->bc);
	if (l->front >= 0)
		close(l->front);
	loop_free(l->loop);
}

/* Reads what is there, message by message; true: there was something. */
static bool front_read(struct link *l)
{
	bool any = false;

	while (message_read(&l->in, l->front) == 1) {
		const struct message *m = &l->in.m;

		any = true;
		l->total++;
		CHECK_EQ(m->h.flags, MESSAGE_VERSION);
		CHECK_EQ(m->nfds, 0);
		if (m->h.request == BACKCHANNEL_CONFIG_CHANGE) {
			CHECK_EQ(m->h.size, 0);
			l->config++;
		} else {
			CHECK_EQ(m->h.request, BACKCHANNEL_VRING_CALL);
			CHECK_EQ(m->h.size, sizeof(m->state));
			CHECK(m->state.index < BACKCHANNEL_MAX_QUEUES);
			CHECK_EQ(m->state.num, 0);
			l->calls[m->state.index]++;
		}
		message_reset(&l->in);
	}
	return any;
}

static void says(void *arg)
{
	struct link l;

	(void)arg;
	link_open(&l);
	backchannel_config_changed(&l.bc);
	backchannel_call(&l.bc, 0);
	backchannel_call(&l.bc, 1023);
	backchannel_call(&l.bc, 64);
	backchannel_call(&l.bc, 64);
	backchannel_call(&l.bc, 1024); /* no such queue */
	backchannel_call(&l.bc, UINT32_MAX);
	front_read(&l);
	CHECK_EQ(l.total, 5);
	CHECK_EQ(l.config, 1);
	CHECK_EQ(l.calls[0], 1);
	CHECK_EQ(l.calls[64], 2);
	CHECK_EQ(l.calls[1023], 1);
	link_close(&l);
}

static void without_channel(void *arg)
{
	struct backchannel bc;
	struct loop *loop;

	(void)arg;
	CHECK_EQ(loop_new(&loop, "test"), 0);
	backchannel_init(&bc, loop);
	backchannel_config_changed(&bc);
	backchannel_call(&bc, 3);
	backchannel_close(&bc);
	loop_free(loop);
}

/* Fills the socket with config changes; how many went in whole. */
static unsigned fill(struct link *l)
{
	unsigned n = 0;

	while (!l->bc.config_changed && !l->bc.npartial) {
		backchannel_config_changed(&l->bc);
		CHECK(++n < 10000000);
	}
	return n;
}

/* A front-end that does not read: everything is remembered once, nothing is lost, nothing grows. */
static void full_socket(void *arg)
{
	unsigned round, i;
	struct link l;
	int small = 1;

	(void)arg;
	link_open(&l);
	CHECK_EQ(setsockopt(l.back, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (round = 0; round < 20; round++) {
		unsigned filled = fill(&l);

		memset(l.calls, 0, sizeof(l.calls));
		l.config = 0;
		for (i = 0; i < 1000; i++) {
			backchannel_call(&l.bc, i % 100 + round);
			backchannel_config_changed(&l.bc);
		}
		loop_settle(l.loop, 3);
		while (front_read(&l))
			loop_settle(l.loop, 3);
		CHECK(l.config == filled || l.config == filled + 1);
		for (i = 0; i < 200; i++)
			CHECK_EQ(l.calls[i], i >= round && i < round + 100);
		CHECK(!l.bc.config_changed && !l.bc.npartial);
		CHECK_EQ(l.bc.watch.events, EPOLLIN);
	}
	link_close(&l);
}

/* The socket takes a message in part: the rest follows, whole messages after it. */
static void in_parts(void *arg)
{
	struct link l;
	unsigned k;

	(void)arg;
	for (k = 1; k < 20; k++) {
		struct message_header h = {.request = BACKCHANNEL_VRING_CALL,
			.flags = MESSAGE_VERSION,
			.size = sizeof(struct vring_state)};
		struct vring_state state = {.index = 7};
		uint8_t bytes[20];

		link_open(&l);
		memcpy(bytes, &h, sizeof(h));
		memcpy(bytes + sizeof(h), &state, sizeof(state));
		/* as after a write of k bytes */
		CHECK_EQ(write(l.back, bytes, k), k);
		l.bc.npartial = 20 - k;
		memcpy(l.bc.partial, bytes + k, 20 - k);
		backchannel_config_changed(&l.bc);
		backchannel_call(&l.bc, 9);
		front_read(&l);
		CHECK_EQ(l.total, 3);
		CHECK_EQ(l.calls[7], 1);
		CHECK_EQ(l.calls[9], 1);
		CHECK_EQ(l.config, 1);
		link_close(&l);
	}
}

/* Answers are read and dropped, however many; they would fill the socket otherwise. */
static void answers(void *arg)
{
	static const char noise[4096];
	struct link l;
	unsigned i;

	(void)arg;
	link_open(&l);
	for (i = 0; i < 100; i++) {
		CHECK_EQ(send(l.front, noise, sizeof(noise), MSG_DONTWAIT), sizeof(noise));
		loop_settle(l.loop, 40);
	}
	CHECK(l.bc.fd >= 0);
	backchannel_config_changed(&l.bc);
	front_read(&l);
	CHECK_EQ(l.config, 1);
	link_close(&l);
}

static void hang_up(void *arg)
{
	bool first_say = *(bool *)arg;
	struct link l;

	link_open(&l);
	close(l.front);
	l.front = -1;
	if (first_say) {
		backchannel_config_changed(&l.bc); /* meets the closed socket */
		CHECK_EQ(l.bc.fd, -1);
	}
	loop_settle(l.loop, 3);
	CHECK_EQ(l.bc.fd, -1);
	backchannel_config_changed(&l.bc);
	backchannel_call(&l.bc, 1);
	CHECK_EQ(fcntl(l.back, F_GETFD), -1);
	link_close(&l);
}

/* A second channel replaces the first, and what was not said on that is forgotten. */
static void replaced(void *arg)
{
	struct link l;
	int s[2];

	(void)arg;
	link_open(&l);
	fill(&l);
	backchannel_call(&l.bc, 5);
	pair(s);
	CHECK_EQ(backchannel_set(&l.bc, &s[1]), 0);
	CHECK_EQ(fcntl(l.back, F_GETFD), -1);
	close(l.front);
	l.front = s[0];
	loop_settle(l.loop, 3);
	CHECK(!front_read(&l));
	backchannel_call(&l.bc, 6);
	front_read(&l);
	CHECK_EQ(l.total, 1);
	CHECK_EQ(l.calls[6], 1);
	link_close(&l);
}

/* What is no socket that can be watched is refused and stays the caller's. */
static void refused(void *arg)
{
	struct backchannel bc;
	struct loop *loop;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), none = -1;

	(void)arg;
	CHECK_SYS(fd);
	CHECK_EQ(loop_new(&loop, "test"), 0);
	backchannel_init(&bc, loop);
	CHECK(backchannel_set(&bc, &fd) < 0);
	CHECK(fd >= 0);
	CHECK(backchannel_set(&bc, &none) < 0);
	backchannel_config_changed(&bc);
	close(fd);
	loop_free(loop);
}

int main(void)
{
	static const bool yes = true, no = false;

	tap_case("messages", says, NULL);
	tap_case("no channel", without_channel, NULL);
	tap_case("a full socket", full_socket, NULL);
	tap_case("messages in parts", in_parts, NULL);
	tap_case("answers", answers, NULL);
	tap_case("the front-end hangs up", hang_up, (void *)&no);
	tap_case("the front-end has hung up when we speak", hang_up, (void *)&yes);
	tap_case("another channel", replaced, NULL);
	tap_case("no socket", refused, NULL);
	return tap_done();
}
