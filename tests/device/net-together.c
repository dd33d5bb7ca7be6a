/* SPDX-License-Identifier: MIT */
/*
 * Several guests of one process on the switch: frames from each to the others, together with another process's, receivers that
 * have no buffers, stop, go and come back, and front-ends that break what they can.
 */
#include "net-hosts.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { STALL_MS = 18 };

/*
 * For frames that waited for a buffer: how many of those with the seeds [0, n) came, in their order, now that the sender has all
 * of them back. A receiver must move within 20 ms, and so all must be there if that much had not passed since start.
 */
static unsigned gets_most(struct guest *g, unsigned from, size_t len, unsigned n, int64_t start, int64_t end)
{
	static uint8_t got[70000], want[70000];
	unsigned seed = 0, count = 0;
	size_t room;

	fe_barrier(&g->fe); /* the turn that gave the sender's buffers back has ended */
	while ((room = take(g, got, false))) {
		CHECK_EQ(room, len);
		for (make(want, g->id, from, len, seed); seed < n && memcmp(got, want, len) != 0;)
			make(want, g->id, from, len, ++seed);
		CHECK(seed < n);
		seed++;
		count++;
	}
	if (end - start < STALL_MS)
		CHECK_EQ(count, n);
	return count;
}

/* Frames of many sizes between two guests, in both directions. */
static void talk(struct guest *a, struct guest *b)
{
	static const size_t sizes[] = {60, 14, 1514, 2036, 2037, 9014, 65550};

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_one(a, b->id, sizes[i], i);
		gets(b, b->id, a->id, sizes[i], i);
		send_one(b, a->id, sizes[i], i + 50);
		gets(a, a->id, b->id, sizes[i], i + 50);
	}
}

static void works(const struct fe_mode *m)
{
	static struct host h;

	host_start(&h, m, 1, 3, FE_ARGS("--mac=52:54:00:00:00:fe"));
	for (unsigned i = 0; i < 3; i++) {
		uint8_t mac[6];

		fe_config_get(&h.g[i].fe, 0, mac, 6);
		CHECK_EQ(mac[4] << 8 | mac[5], 0xfe + (int)i);
		CHECK(linked(&h.g[i]));
	}
	give(&h.g[0], 200);
	give(&h.g[1], 200);
	give(&h.g[2], 30);
	announce(&h, 0);
	gets_nothing(&h.g[0]);
	send_one(&h.g[1], 1, 100, 2);
	gets(&h.g[0], 1, 2, 100, 2);
	gets_nothing(&h.g[2]);
	talk(&h.g[0], &h.g[1]);
	gets_nothing(&h.g[2]);
	send_one(&h.g[2], 9, 80, 3); /* unknown */
	gets(&h.g[0], 9, 3, 80, 3);
	gets(&h.g[1], 9, 3, 80, 3);
	host_end(&h);
}

/* Many at once, more than there are buffers: all arrive, in their order. */
static void lossless(const struct fe_mode *m)
{
	enum { ROUNDS = 100, BATCH = 100, LEN = 90 };
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1];
	host_start(&h, m, 1, 2, FE_ARGS("--mtu=1500"));
	give(a, 1);
	send_one(b, 0, 60, 0);
	gets(a, 0, 2, 60, 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t marks[2] = {fe_mark(&a->fe), fe_mark(&b->fe)};
		int64_t start, end;

		for (unsigned i = 0; i < BATCH; i++)
			put(a, 2, LEN, i);
		start = fe_now_ms();
		fe_flush(a->tx);
		give(b, BATCH / 4);
		give(b, BATCH / 4);
		give(b, BATCH - BATCH / 4 * 2);
		end = fe_now_ms();
		for (unsigned i = 0; i < BATCH; i++)
			fe_wait(a->tx, NULL);
		for (unsigned i = gets_most(b, 1, LEN, BATCH, start, end); i < BATCH; i++) {
			send_one(a, 2, 60, i); /* into a buffer that is left */
			gets(b, 2, 1, 60, i);
		}
		fe_release(&a->fe, marks[0]);
		fe_release(&b->fe, marks[1]);
	}
	host_end(&h);
}

/* Two processes with two guests each: all reach all, once. */
static void mixed(const struct fe_mode *m)
{
	static struct host h[2];
	char option[128];

	snprintf(option, sizeof(option), "--switch=%s/switch", fe_tmpdir());
	host_start(&h[0], m, 1, 2, FE_ARGS(option));
	host_start(&h[1], m, 3, 2, FE_ARGS(option));
	for (unsigned i = 0; i < 2; i++) {
		give(&h[i].g[0], 250);
		give(&h[i].g[1], 250);
		await_peers(&h[i], 3);
	}
	for (unsigned from = 0; from < 4; from++) {
		send_one(&h[from / 2].g[from % 2], 0, 60, from);
		for (unsigned to = 0; to < 4; to++)
			if (to != from)
				gets(&h[to / 2].g[to % 2], 0, from + 1, 60, from);
	}
	talk(&h[0].g[0], &h[0].g[1]);
	talk(&h[0].g[0], &h[1].g[0]);
	talk(&h[1].g[1], &h[0].g[1]);
	for (unsigned i = 0; i < 4; i++)
		gets_nothing(&h[i / 2].g[i % 2]);
	host_end(&h[0]);
	send_one(&h[1].g[0], 4, 70, 1);
	gets(&h[1].g[1], 4, 3, 70, 1);
	host_end(&h[1]);
}

/* Who has no buffers holds up the sender for a moment, then loses frames, and nobody else's; what he gets goes on at once. */
static void full(const struct fe_mode *m)
{
	enum { N = 200 };
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1], *c = &h.g[2];
	int64_t start, end;

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	give(a, 8);
	give(b, 1);
	give(c, 16);
	announce(&h, 2);
	send_one(b, 0, 60, 1);
	gets(a, 0, 2, 60, 1);
	gets(c, 0, 2, 60, 1);
	put(a, 2, 100, 0); /* b has no buffers from now on */
	put(a, 3, 100, 2); /* waits behind it, for it is in the same queue */
	start = fe_now_ms();
	fe_flush(a->tx);
	give(b, 1);
	end = fe_now_ms();
	fe_wait(a->tx, NULL);
	fe_wait(a->tx, NULL);
	gets(c, 3, 1, 100, 2);
	gets_most(b, 1, 100, 1, start, end);
	start = fe_now_ms();
	for (unsigned i = 0; i < N; i++) {
		size_t mark = fe_mark(&a->fe);

		send_one(a, 2, 1000, i);
		fe_release(&a->fe, mark);
	}
	CHECK(fe_now_ms() - start < fe_limit_ms);
	send_one(a, 0, 100, 5); /* waits for nobody, and is kept */
	gets(c, 0, 1, 100, 5);
	send_one(c, 1, 100, 6);
	gets(a, 1, 3, 100, 6);
	give(b, 2);
	gets(b, 0, 1, 100, 5);
	send_one(a, 2, 100, 7);
	gets(b, 2, 1, 100, 7);
	host_end(&h);
}

/* Two send to one that has few buffers: both have a share. */
static void crowd(const struct fe_mode *m)
{
	enum { N = 100 };
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1], *c = &h.g[2];
	unsigned from[2] = {0}, left;
	static uint8_t got[70000];
	int64_t start, end;

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	give(a, 1);
	give(c, 1);
	send_one(b, 0, 60, 1);
	gets(a, 0, 2, 60, 1);
	gets(c, 0, 2, 60, 1);
	for (unsigned i = 0; i < N; i++) {
		put(a, 2, 100, 0);
		put(c, 2, 100, 0);
	}
	start = fe_now_ms();
	fe_flush(a->tx);
	fe_flush(c->tx);
	for (left = N; left; left--) { /* for half of the frames */
		give(b, 1);
		if (fe_now_ms() - start >= STALL_MS)
			break;
	}
	end = fe_now_ms();
	give(b, left);
	for (unsigned i = 0; i < N; i++) {
		fe_wait(a->tx, NULL);
		fe_wait(c->tx, NULL);
	}
	fe_barrier(&b->fe);
	while (take(b, got, false))
		from[got[11] == 1]++;
	CHECK(end - start >= STALL_MS || (from[0] && from[1]));
	host_end(&h);
}

/* What a guest has no buffers for is kept for it if it went to all: in order, before what comes later, and nobody else waits. */
static void flooded(const struct fe_mode *m)
{
	static const size_t sizes[] = {60, 14, 1514, 2036, 2037, 9014, 65550};
	enum { N = 90 };
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1], *c = &h.g[2];

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	give(a, 250);
	give(c, 250);
	announce(&h, 1);
	for (unsigned i = 0; i < N; i++) {
		send_one(a, 0, 60, i);
		gets(c, 0, 1, 60, i);
		send_one(c, 9, 70, i); /* unknown */
		gets(a, 9, 3, 70, i);
	}
	give(b, 2 * N - 50);
	give(b, 50);
	for (unsigned i = 0; i < N; i++) {
		gets(b, 0, 1, 60, i);
		gets(b, 9, 3, 70, i);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_one(a, 0, sizes[i], i);
		gets(c, 0, 1, sizes[i], i);
	}
	put(a, 2, 100, 0); /* behind those */
	fe_flush(a->tx);
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		give(b, (unsigned)(sizes[i] + HDR + BUFFER - 1) / BUFFER);
		gets(b, 0, 1, sizes[i], i);
	}
	give(b, 1);
	fe_wait(a->tx, NULL);
	gets_most(b, 1, 100, 1, 0, STALL_MS);
	give(b, 1);
	send_one(a, 2, 101, 1);
	gets(b, 2, 1, 101, 1);
	host_end(&h);
}

/* There is a limit to what is kept; and it is for this guest, not for the one that comes after it. */
static void flooded_long(const struct fe_mode *m)
{
	enum { N = 80, LEN = 60000, KEPT = (4 << 20) / (LEN + 16), BUFFERS = (LEN + HDR) / BUFFER + 1 };
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1];
	size_t mark[2];
	char want[40];
	int fd;

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	fd = fe_control_open(h.control);
	for (unsigned round = 0; round < 2; round++) {
		mark[0] = fe_mark(&a->fe);
		for (unsigned i = 0; i < N; i++) {
			send_one(a, 0, LEN, i);
			fe_release(&a->fe, mark[0]);
		}
		snprintf(want, sizeof(want), "\"rx-dropped\":%d,", (int)(round + 1) * (N - KEPT));
		CHECK(answers(fd, "query-net", "\"socket\":1", want));
		mark[1] = fe_mark(&b->fe);
		for (unsigned i = 0; i < KEPT; i++) {
			give(b, BUFFERS);
			gets(b, 0, 1, LEN, i);
			fe_release(&b->fe, mark[1]);
		}
	}
	for (unsigned i = 0; i < 5; i++)
		send_one(a, 0, 60, i);
	fe_close(&b->fe);
	guest_connect(b, m);
	give(b, 2);
	send_one(a, 0, 61, 1);
	gets(b, 0, 1, 61, 1);
	snprintf(want, sizeof(want), "\"rx-dropped\":%d,", 2 * (N - KEPT) + 5);
	CHECK(answers(fd, "query-net", "\"socket\":1", want));
	close(fd);
	host_end(&h);
}

/* The receiver's ring is stopped while frames for it wait, and goes on; the front-end goes, and comes back. */
static void stops(const struct fe_mode *m)
{
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1];
	uint32_t base;

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	give(a, 16);
	give(&h.g[2], 32);
	announce(&h, 1);
	for (unsigned round = 0; round < 20; round++) {
		size_t mark = fe_mark(&a->fe);

		put(a, 2, 100, 0); /* for which there is no buffer */
		fe_flush(a->tx);
		if (round % 2)
			give(b, 1);
		base = fe_queue_stop(b->rx);
		fe_wait(a->tx, NULL);
		gets_most(b, 1, 100, 1, 0, STALL_MS); /* taken, or lost */
		fe_queue_send(b->rx, base);
		fe_queue_enable(b->rx, true);
		give(b, 1);
		send_one(a, 2, 101, round);
		gets(b, 2, 1, 101, round);
		fe_release(&a->fe, mark);
	}
	for (unsigned round = 0; round < 10; round++) {
		size_t mark = fe_mark(&a->fe);

		for (unsigned i = 0; i < 50; i++)
			put(a, 2, 100, i);
		fe_flush(a->tx);
		give(b, 10);
		fe_close(&b->fe); /* some of them are on their way */
		for (unsigned i = 0; i < 50; i++)
			fe_wait(a->tx, NULL);
		guest_connect(b, m);
		give(b, 4);
		send_one(a, 2, 102, round);
		gets(b, 2, 1, 102, round);
		fe_release(&a->fe, mark);
	}
	host_end(&h);
}

/* The sender goes while its frames wait for the receiver, with a record of what was in flight, and comes back. */
static void sender_goes(const struct fe_mode *m)
{
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1];
	uint32_t base[2];

	host_spawn(&h, m, 1, 2, FE_ARGS("--mtu=1500"));
	guest_connect(b, m);
	fe_init(&a->fe, m);
	a->fe.device_mask = PLAIN;
	fe_connect(&a->fe, a->path);
	fe_handshake(&a->fe);
	fe_memory_default(&a->fe);
	fe_inflight_get(&a->fe, 2, RING);
	fe_inflight_set(&a->fe);
	a->rx = fe_queue_up(&a->fe, 0, RING);
	a->tx = fe_queue_up(&a->fe, 1, RING);
	give(a, 4);
	announce(&h, 1);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned i = 0; i < 20; i++)
			put(a, 2, 100, i);
		fe_flush(a->tx);
		fe_hangup(&a->fe);
		base[0] = fe_queue_crashed(a->rx);
		base[1] = fe_queue_crashed(a->tx);
		fe_connect(&a->fe, a->path);
		fe_handshake(&a->fe);
		fe_inflight_set(&a->fe);
		fe_queues_resume(&a->fe, base);
		give(b, 21);
		for (unsigned i = 0; i < 20; i++)
			fe_wait(a->tx, NULL);
		gets_most(b, 1, 100, 20, 0, STALL_MS);
		send_one(a, 2, 101, round);
		gets(b, 2, 1, 101, round);
	}
	host_end(&h);
}

/* Front-ends that break what they can: their ring, their memory, their connection. The others don't notice. */
static void hostile(const struct fe_mode *m)
{
	static struct host h;
	struct guest *a = &h.g[0], *b = &h.g[1], *c = &h.g[2];
	struct vring_driver_buf nowhere = {.addr = UINT64_C(1) << 50, .len = 4096, .wr = true};

	host_start(&h, m, 1, 3, FE_ARGS("--mtu=1500"));
	give(a, 200);
	give(b, 8);
	give(c, 200);
	announce(&h, 0);
	announce(&h, 1);
	announce(&h, 2);
	for (unsigned i = 0; i < 6; i++) { /* until there are no more buffers but this one */
		send_one(a, 2, 60, i);
		gets(b, 2, 1, 60, i);
	}
	fe_submit_direct(b->rx, &nowhere, 1, NULL);
	fe_flush(b->rx);
	for (unsigned i = 0; i < 8; i++)
		send_one(a, 2, 60, i);
	fe_process_logs(&h.process, "socket 1: queue 0: "); /* in the turn of another */
	talk(a, c);
	fe_close(&b->fe);
	guest_connect(b, m); /* whose memory goes away under the receiver's copy */
	give(b, 100);
	for (unsigned i = 0; i < b->fe.nregions; i++)
		CHECK_SYS(ftruncate(b->fe.regions[i].fd, 0));
	for (unsigned i = 0; i < 8; i++)
		send_one(a, 2, 60, i);
	fe_expect_eof(&b->fe);
	CHECK(fe_process_running(&h.process));
	talk(a, c);
	fe_close(&b->fe);
	guest_connect(b, m); /* the same of a sender */
	give(b, 1);
	send_one(b, 1, 60, 3);
	gets(a, 1, 2, 60, 3);
	for (unsigned i = 0; i < b->fe.nregions; i++)
		CHECK_SYS(ftruncate(b->fe.regions[i].fd, 0));
	fe_kick(b->tx);
	fe_expect_eof(&b->fe);
	talk(a, c);
	fe_close(&b->fe);
	fe_init(&b->fe, m);
	fe_connect(&b->fe, b->path);
	CHECK(fe_send_raw(&b->fe, "no message of vhost-user at all, but long enough to be one", 58, NULL, 0));
	fe_expect_eof(&b->fe);
	fe_close(&b->fe);
	talk(c, a);
	guest_connect(b, m);
	give(b, 4);
	send_one(a, 2, 60, 9);
	gets(b, 2, 1, 60, 9);
	host_end(&h);
}

/* Connected descriptors: the process ends with the last connection. */
static void descriptors(const struct fe_mode *m)
{
	static struct guest g[2];
	struct fe_process process;
	char args[2][16];
	int s[2][2];

	for (unsigned i = 0; i < 2; i++) {
		CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s[i]));
		CHECK_SYS(fcntl(s[i][1], F_SETFD, 0));
		snprintf(args[i], sizeof(args[i]), "--fd=%d", s[i][1]);
	}
	fe_process_start(&process, -1, FE_ARGS("net", args[0], args[1]));
	for (unsigned i = 0; i < 2; i++) {
		close(s[i][1]);
		g[i].id = i + 1;
		fe_init(&g[i].fe, m);
		g[i].fe.device_mask = PLAIN;
		g[i].fe.sock = s[i][0];
		guest_up(&g[i]);
	}
	give(&g[0], 1);
	send_one(&g[1], 0, 60, 1);
	gets(&g[0], 0, 2, 60, 1);
	fe_close(&g[0].fe);
	send_one(&g[1], 1, 60, 1);
	CHECK(fe_process_running(&process));
	fe_close(&g[1].fe);
	fe_process_exits(&process, 0);
}

static void control(const struct fe_mode *m)
{
	static struct host h;
	int fd, events;

	host_start(&h, m, 1, 2, FE_ARGS("--mtu=1500"));
	give(&h.g[0], 4);
	give(&h.g[1], 4);
	CHECK(!(h.g[0].fe.protocol_offered & BIT(FE_P_PAGEFAULT)));
	fd = fe_control_open(h.control);
	events = fe_control_open(h.control);
	announce(&h, 0);
	CHECK(answers(fd, "query-net", "\"socket\":0", "\"tx-packets\":1"));
	CHECK(answers(fd, "query-net", "\"socket\":1", "\"rx-packets\":1"));
	CHECK(answers(fd, "query-status", "\"socket\":1", "\"socket\":1"));
	CHECK(answers(fd, "query-stats", "\"socket\":1", h.g[1].path));
	CHECK(answers(fd, "query-stats", "", "argument socket: missing"));
	CHECK(answers(fd, "query-net", "\"socket\":2", "2 is none of 0 to 1"));
	CHECK(answers(fd, "query-metrics", "", "socket=\\\"1\\\",queue=\\\"0\\\""));
	CHECK(answers(fd, "query-metrics", "\"socket\":1", "takes no argument"));
	CHECK(answers(fd, "link", "\"socket\":1,\"up\":false", "return"));
	CHECK_HAS(fe_control_event(events, "link"), "\"socket\":1");
	CHECK(!linked(&h.g[1]));
	CHECK(linked(&h.g[0]));
	fe_close(&h.g[0].fe);
	CHECK_HAS(fe_control_event(events, "disconnected"), "\"socket\":0");
	CHECK(answers(fd, "query-status", "\"socket\":0", "\"connected\":false"));
	CHECK(answers(fd, "query-status", "\"socket\":1", "\"connected\":true"));
	close(fd);
	close(events);
	host_end(&h);
}

int main(void)
{
	fe_each_mode_in_order("three guests", works);
	fe_each_mode("nothing is lost", lossless);
	fe_each_layout("two processes with two guests each", mixed);
	fe_each_layout("a guest without buffers", full);
	fe_each_mode("frames to all for a guest without buffers", flooded);
	fe_each_layout("more of them than are kept", flooded_long);
	fe_each_layout("two senders and one receiver", crowd);
	fe_each_layout("a receiver that stops, and goes", stops);
	fe_each_layout("a sender that goes and comes back", sender_goes);
	fe_each_layout("front-ends that break what they can", hostile);
	fe_case("connected descriptors", descriptors, &(struct fe_mode){0});
	fe_case("the control socket", control, &(struct fe_mode){0});
	return tap_done();
}
