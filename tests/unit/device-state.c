/* SPDX-License-Identifier: MIT */
/* Moving a device's state through pipes that are much smaller, slow, or given up. */
#include "device-state.h"

#include <fcntl.h>

#include "settle.h"
#include "leaks.h"
#include "tap.h"

struct state { /* of the test's device */
	uint8_t *bytes;
	size_t len;
	int fail; /* save or load ends with this */
	unsigned saved, loaded;
};

static int test_save(struct backend *b, int fd)
{
	struct state *s = b->state;
	size_t done = 0;

	s->saved++;
	while (done < s->len) {
		ssize_t n = write(fd, s->bytes + done, MIN(s->len - done, 100000));

		CHECK_SYS(n);
		done += (size_t)n;
	}
	return s->fail;
}

static int test_load(struct backend *b, int fd)
{
	struct state *s = b->state;
	ssize_t n;

	s->loaded++;
	free(s->bytes);
	s->bytes = malloc(DEVICE_STATE_MAX);
	s->len = 0;
	CHECK(s->bytes);
	while ((n = read(fd, s->bytes + s->len, 77777)) > 0)
		s->len += (size_t)n;
	CHECK_EQ(n, 0);
	return s->fail;
}

static const struct device both = {.name = "test", .save = test_save, .load = test_load};
static const struct device neither = {.name = "test"};

struct rig {
	struct backend b;
	struct state state;
	struct device_state d;
	int front, back; /* ends of the pipe; back: of the message */
	unsigned fds;
	int result;
	unsigned finished;
};

static void rig_open(struct rig *r, const struct device *dev)
{
	memset(r, 0, sizeof(*r));
	signal(SIGPIPE, SIG_IGN);
	r->b.dev = dev;
	r->b.state = &r->state;
	CHECK_EQ(loop_new(&r->b.loop, "test"), 0);
	device_state_init(&r->d, &r->b);
	r->front = r->back = -1;
	r->fds = open_fds();
}

static void rig_pipe(struct rig *r, bool load)
{
	int p[2];

	CHECK_SYS(pipe2(p, O_CLOEXEC));
	r->front = p[load];
	r->back = p[!load];
	CHECK_SYS(fcntl(r->front, F_SETFL, O_NONBLOCK));
}

static void rig_close(struct rig *r)
{
	fd_close(&r->front);
	fd_close(&r->back);
	device_state_cancel(&r->d);
	CHECK_EQ(open_fds(), r->fds);
	loop_free(r->b.loop);
	free(r->state.bytes);
}

static void fill(struct state *s, size_t len)
{
	uint32_t x = 1;

	s->bytes = malloc(len + 1);
	CHECK(s->bytes);
	for (size_t i = 0; i < len; i++) {
		x = x * 1103515245 + 12345;
		s->bytes[i] = (uint8_t)(x >> 24);
	}
	s->len = len;
}

static void finished(struct device_state *d, int result)
{
	struct rig *r = container_of(d, struct rig, d);

	r->finished++;
	r->result = result;
}

/* Sizes that end in a chunk, at its end, behind it. */
static void saves(void *arg)
{
	static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 5 << 20};
	unsigned i;

	(void)arg;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *got = malloc(sizes[i] + 1);
		size_t done = 0;
		ssize_t n;
		struct rig r;

		CHECK(got);
		rig_open(&r, &both);
		fill(&r.state, sizes[i]);
		rig_pipe(&r, false);
		CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_SAVE, &r.back), 0);
		CHECK_EQ(r.back, -1);
		CHECK(device_state_busy(&r.d));
		r.d.finished = finished;
		loop_settle(r.b.loop, 5); /* nobody reads: as much as the pipe holds */
		while ((n = read(r.front, got + done, sizes[i] + 1 - done)) != 0) {
			if (n < 0)
				CHECK_EQ(errno, EAGAIN);
			else
				done += (size_t)n;
			loop_settle(r.b.loop, 3);
		}
		CHECK_EQ(done, sizes[i]);
		CHECK_MEM(got, r.state.bytes, done);
		CHECK(!device_state_busy(&r.d));
		CHECK_EQ(r.finished, 1);
		CHECK_EQ(r.result, 0);
		CHECK_EQ(r.d.result, 0);
		CHECK_EQ(r.state.saved, 1);
		free(got);
		rig_close(&r);
	}
}

/* Writes into the pipe until all went or the device gave up. */
static size_t feed(struct rig *r, const uint8_t *bytes, size_t len, size_t step)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(r->front, bytes + done, MIN(len - done, step));

		if (n < 0 && errno == EPIPE)
			break;
		if (n < 0)
			CHECK_EQ(errno, EAGAIN);
		else
			done += (size_t)n;
		loop_settle(r->b.loop, 2);
	}
	return done;
}

static void loads(void *arg)
{
	static const size_t sizes[] = {0, 1, 65536, 65537, 5 << 20};
	unsigned i;

	(void)arg;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct state sent = {0};
		struct rig r;

		rig_open(&r, &both);
		fill(&sent, sizes[i]);
		rig_pipe(&r, true);
		CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
		loop_settle(r.b.loop, 3);
		CHECK(device_state_busy(&r.d));
		CHECK_EQ(feed(&r, sent.bytes, sent.len, 1 + 40000 * i), sizes[i]);
		CHECK_EQ(r.state.loaded, 0); /* not before the end */
		fd_close(&r.front);
		while (device_state_busy(&r.d))
			loop_settle(r.b.loop, 3);
		CHECK_EQ(r.d.result, 0);
		CHECK_EQ(r.state.loaded, 1);
		CHECK_EQ(r.state.len, sizes[i]);
		CHECK_MEM(r.state.bytes, sent.bytes, sizes[i]);
		free(sent.bytes);
		rig_close(&r);
	}
}

static void too_large(void *arg)
{
	static uint8_t zeros[1 << 20];
	uint64_t sent = 0;
	struct rig r;

	(void)arg;
	rig_open(&r, &both);
	rig_pipe(&r, true);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
	r.d.finished = finished;
	while (device_state_busy(&r.d)) {
		sent += feed(&r, zeros, sizeof(zeros), 65536);
		CHECK(sent <= DEVICE_STATE_MAX + (2 << 20));
	}
	CHECK(sent > DEVICE_STATE_MAX);
	CHECK_EQ(r.result, -EFBIG);
	CHECK_EQ(r.d.result, -EFBIG);
	CHECK_EQ(r.state.loaded, 0);
	rig_close(&r);
	/* exactly as much as may be */
	rig_open(&r, &both);
	rig_pipe(&r, true);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
	for (sent = 0; sent < DEVICE_STATE_MAX; sent += sizeof(zeros))
		CHECK_EQ(feed(&r, zeros, sizeof(zeros), 65536), sizeof(zeros));
	fd_close(&r.front);
	while (device_state_busy(&r.d))
		loop_settle(r.b.loop, 3);
	CHECK_EQ(r.d.result, 0);
	CHECK_EQ(r.state.len, DEVICE_STATE_MAX);
	rig_close(&r);
}

/* The front-end closes its end of the pipe early. */
static void reader_gone(void *arg)
{
	struct rig r;

	(void)arg;
	rig_open(&r, &both);
	fill(&r.state, 1 << 20);
	rig_pipe(&r, false);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_SAVE, &r.back), 0);
	r.d.finished = finished;
	loop_settle(r.b.loop, 3);
	fd_close(&r.front);
	loop_settle(r.b.loop, 3);
	CHECK(!device_state_busy(&r.d));
	CHECK_EQ(r.finished, 1);
	CHECK_EQ(r.result, -EPIPE);
	CHECK_EQ(r.d.result, -EPIPE);
	rig_close(&r);
}

static void cancelled(void *arg)
{
	bool load = *(bool *)arg;
	uint8_t bytes[1000] = {0};
	struct rig r;

	rig_open(&r, &both);
	fill(&r.state, 1 << 20);
	rig_pipe(&r, load);
	CHECK_EQ(device_state_begin(&r.d, load, &r.back), 0);
	r.d.finished = finished;
	loop_settle(r.b.loop, 3);
	if (load)
		CHECK_EQ(feed(&r, bytes, sizeof(bytes), 100), 1000);
	device_state_cancel(&r.d);
	device_state_cancel(&r.d);
	CHECK(!device_state_busy(&r.d));
	CHECK_EQ(r.d.result, -ECANCELED);
	loop_settle(r.b.loop, 3);
	CHECK_EQ(r.finished, 0); /* who cancels does not wait */
	CHECK_EQ(r.state.loaded, 0);
	/* the next one is not disturbed */
	fd_close(&r.front);
	rig_pipe(&r, true);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
	CHECK_EQ(feed(&r, bytes, sizeof(bytes), 100), 1000);
	fd_close(&r.front);
	loop_settle(r.b.loop, 5);
	CHECK(!device_state_busy(&r.d));
	CHECK_EQ(r.d.result, 0);
	CHECK_EQ(r.state.len, 1000);
	rig_close(&r);
}

static void refusals(void *arg)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), none = -1;
	struct rig r;

	(void)arg;
	CHECK_SYS(file);
	rig_open(&r, &neither);
	rig_pipe(&r, false);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_SAVE, &r.back), -ENOTSUP);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), -ENOTSUP);
	CHECK(r.back >= 0);
	rig_close(&r);
	rig_open(&r, &both);
	rig_pipe(&r, true);
	CHECK_EQ(device_state_begin(&r.d, 2, &r.back), -EINVAL);
	CHECK_EQ(device_state_begin(&r.d, UINT32_MAX, &r.back), -EINVAL);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &none), -EBADF);
	CHECK(device_state_begin(&r.d, DEVICE_STATE_LOAD, &file) < 0); /* can't be waited for */
	CHECK(file >= 0 && r.back >= 0);
	CHECK(!device_state_busy(&r.d));
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &file), -EBUSY);
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_SAVE, &file), -EBUSY);
	rig_close(&r);
	close(file);
}

/* The device itself fails. */
static void device_fails(void *arg)
{
	struct rig r;

	(void)arg;
	rig_open(&r, &both);
	rig_pipe(&r, false);
	r.state.fail = -EIO;
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_SAVE, &r.back), -EIO);
	CHECK(r.back >= 0);
	CHECK(!device_state_busy(&r.d));
	rig_close(&r);
	rig_open(&r, &both);
	rig_pipe(&r, true);
	r.state.fail = -EIO;
	CHECK_EQ(device_state_begin(&r.d, DEVICE_STATE_LOAD, &r.back), 0);
	r.d.finished = finished;
	fd_close(&r.front);
	loop_settle(r.b.loop, 3);
	CHECK_EQ(r.finished, 1);
	CHECK_EQ(r.result, -EIO);
	rig_close(&r);
}

int main(void)
{
	static const bool yes = true, no = false;

	tap_case("saving", saves, NULL);
	tap_case("loading", loads, NULL);
	tap_case("a state that is too large", too_large, NULL);
	tap_case("nobody reads any more", reader_gone, NULL);
	tap_case("saving cancelled", cancelled, (void *)&no);
	tap_case("loading cancelled", cancelled, (void *)&yes);
	tap_case("refusals", refusals, NULL);
	tap_case("the device fails", device_fails, NULL);
	return tap_done();
}
