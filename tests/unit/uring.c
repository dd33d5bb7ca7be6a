/* SPDX-License-Identifier: MIT */
/* io_uring on a loop: batches, a full submission queue, fixed files, a ring made outside the loop's thread.
 */
#include "uring.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include "tap.h"
#include "util.h"

struct io {
	struct uring_op op;
	int res;
	unsigned dones;
	char buf[16];
};

static struct loop *loop;
static struct uring *ring;
static unsigned left;

static void io_done(struct uring_op *op, int res)
{
	struct io *io = container_of(op, struct io, op);

	CHECK(loop_is_mine(loop));
	io->res = res;
	io->dones++;
	if (--left == 0)
		loop_stop(loop);
}

static struct io_uring_sqe *io_sqe(struct io *io)
{
	io->op.done = io_done;
	left++;
	return uring_sqe(ring, &io->op);
}

static void setup(void)
{
	if (!uring_available())
		tap_skip("io_uring is not permitted here");
	CHECK_EQ(loop_new(&loop, "ring"), 0);
	ring = uring_get(loop);
	CHECK(ring != NULL);
	CHECK(uring_get(loop) == ring);
}

static int file_new(const char *text)
{
	FILE *f = tmpfile();

	CHECK(f != NULL);
	CHECK_EQ(pwrite(fileno(f), text, strlen(text), 0), strlen(text));
	return fileno(f);
}

static void results_arrive(void *arg)
{
	struct io rd = {0}, bad = {0}, nop = {0};
	int fd = file_new("0123456789");

	(void)arg;
	setup();
	io_uring_prep_read(io_sqe(&rd), fd, rd.buf, sizeof(rd.buf), 4);
	io_uring_prep_read(io_sqe(&bad), -1, bad.buf, sizeof(bad.buf), 0);
	io_sqe(&nop);
	loop_run(loop);
	CHECK_EQ(rd.res, 6);
	CHECK_STR(rd.buf, "456789");
	CHECK_EQ(bad.res, -EBADF);
	CHECK_EQ(nop.res, 0);
	CHECK_EQ(rd.dones + bad.dones + nop.dones, 3);
	loop_free(loop);
}

/* More than both queues hold, all in one turn, and none is lost or doubled. */
static void any_number_in_one_turn(void *arg)
{
	enum { N = 10000 };
	struct io *io = calloc(N, sizeof(*io));
	int fd = file_new("0123456789");

	(void)arg;
	setup();
	for (int i = 0; i < N; i++)
		io_uring_prep_read(io_sqe(&io[i]), fd, io[i].buf, 1, (unsigned)i % 10);
	loop_run(loop);
	for (int i = 0; i < N; i++) {
		CHECK_EQ(io[i].dones, 1);
		CHECK_EQ(io[i].res, 1);
		CHECK_EQ(io[i].buf[0], '0' + i % 10);
	}
	free(io);
	loop_free(loop);
}

static struct io again;
static unsigned rounds;

static void again_done(struct uring_op *op, int res)
{
	CHECK_EQ(res, 0);
	if (++rounds == 1000)
		loop_stop(loop);
	else
		uring_sqe(ring, op);
}

static void handlers_submit_more(void *arg)
{
	(void)arg;
	setup();
	again.op.done = again_done;
	uring_sqe(ring, &again.op);
	loop_run(loop);
	CHECK_EQ(rounds, 1000);
	loop_free(loop);
}

/* The loop sleeps until the completion comes. */
static void write_later(struct timer *t)
{
	uint64_t one = 1;

	CHECK_EQ(write(*(int *)(t + 1), &one, sizeof(one)), sizeof(one));
}

static void completion_wakes(void *arg)
{
	struct {
		struct timer t;
		int fd;
	} later = {.t.expired = write_later, .fd = eventfd(0, EFD_CLOEXEC)};
	struct io rd = {0};

	(void)arg;
	setup();
	io_uring_prep_read(io_sqe(&rd), later.fd, rd.buf, 8, 0);
	timer_arm_in(loop, &later.t, 20000000);
	loop_run(loop);
	CHECK_EQ(rd.res, 8);
	loop_free(loop);
}

static void fixed_files(void *arg)
{
	int a = file_new("aaaa"), b = file_new("bbbb"), ia, ib;
	struct io ra = {0}, rb = {0}, gone = {0};
	struct io_uring_sqe *sqe;

	(void)arg;
	setup();
	ia = uring_register_file(ring, a);
	ib = uring_register_file(ring, b);
	CHECK(ia >= 0 && ib >= 0 && ia != ib);
	CHECK_EQ(uring_register_file(ring, a), ia);
	sqe = io_sqe(&ra);
	io_uring_prep_read(sqe, ia, ra.buf, 4, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe = io_sqe(&rb);
	io_uring_prep_read(sqe, ib, rb.buf, 4, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	loop_run(loop);
	CHECK_STR(ra.buf, "aaaa");
	CHECK_STR(rb.buf, "bbbb");
	/* two registrations are undone by two calls */
	uring_unregister_file(ring, a);
	CHECK_EQ(uring_register_file(ring, a), ia);
	uring_unregister_file(ring, a);
	uring_unregister_file(ring, a);
	uring_unregister_file(ring, a);
	sqe = io_sqe(&gone);
	io_uring_prep_read(sqe, ia, gone.buf, 4, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	loop_run(loop);
	CHECK_EQ(gone.res, -EBADF);
	loop_free(loop);
}

static void too_many_files(void *arg)
{
	int r = 0, n = 0;

	(void)arg;
	setup();
	while (n < 1000 && (r = uring_register_file(ring, eventfd(0, EFD_CLOEXEC))) >= 0)
		n++;
	CHECK_EQ(r, -ENOSPC);
	CHECK(n >= 16);
	loop_free(loop);
}

static void nop_fn(void *arg)
{
	struct io *io = arg;

	uring_sqe(ring, &io->op);
}

static void nop_done(struct uring_op *op, int res)
{
	struct io *io = container_of(op, struct io, op);

	CHECK_EQ(res, 0);
	io->dones++;
}

/* Made here, used by the loop's thread: it is the one that the kernel takes for the issuer. */
static void ring_moves_to_the_thread(void *arg)
{
	struct io io = {.op.done = nop_done};

	(void)arg;
	setup();
	CHECK_EQ(loop_spawn(loop), 0);
	loop_call(loop, nop_fn, &io); /* complete at the end of this turn */
	loop_free(loop);
	CHECK_EQ(io.dones, 1);
}

static void spinning_sees_completions(void *arg)
{
	int fd = file_new("0123456789");
	struct io rd = {0};

	(void)arg;
	setup();
	loop_set_spin(loop, 1000000);
	for (int i = 0; i < 1000; i++) {
		io_uring_prep_read(io_sqe(&rd), fd, rd.buf, 10, 0);
		loop_run(loop);
		CHECK_EQ(rd.res, 10);
	}
	loop_free(loop);
}

int main(void)
{
	tap_case("results arrive", results_arrive, NULL);
	tap_case("any number in one turn", any_number_in_one_turn, NULL);
	tap_case("handlers submit more", handlers_submit_more, NULL);
	tap_case("a completion wakes the loop", completion_wakes, NULL);
	tap_case("fixed files", fixed_files, NULL);
	tap_case("too many files", too_many_files, NULL);
	tap_case("a ring moves to the loop's thread", ring_moves_to_the_thread, NULL);
	tap_case("spinning sees completions", spinning_sees_completions, NULL);
	return tap_done();
}
