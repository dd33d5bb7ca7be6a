/* SPDX-License-Identifier: MIT */
/*
 * Postcopy without a session: this process is the back-end, and through the userfaultfd it is the front-end, too. The
 * whole dialogue with the real program is in tests/device/postcopy.c.
 */
#include "postcopy.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "leaks.h"
#include "tap.h"

enum { PAGE = 4096, PAGES = 8 };

static void required(void)
{
	if (!postcopy_available())
		tap_skip("no userfaultfd that serves system calls");
}

/* Two regions of PAGES pages in one file; the first begins in the middle of a page. */
static struct guestmem *make_map(void)
{
	struct guestmem_spec low = {.gpa = 0, .size = PAGES * PAGE, .uaddr = 0x10000, .offset = 512};
	struct guestmem_spec high = {
		.gpa = 0x100000, .size = PAGES * PAGE, .uaddr = 0x80000, .offset = 2 * PAGES * PAGE};
	struct guestmem *empty = guestmem_new(), *one, *two;
	int fd = memfd_create("guest", MFD_CLOEXEC), again = dup(fd);

	CHECK_EQ(ftruncate(fd, 3 * PAGES * PAGE), 0);
	CHECK_EQ(guestmem_add(empty, &low, &fd, PROT_NONE, &one), 0);
	CHECK_EQ(guestmem_add(one, &high, &again, PROT_NONE, &two), 0);
	guestmem_unref(one);
	guestmem_unref(empty);
	return two;
}

/* Up to the point where the map may be used. */
static struct guestmem *begin(struct postcopy *p, const struct pollfd *until, unsigned n)
{
	struct guestmem *m;

	CHECK(postcopy_advise(p) >= 0);
	CHECK_EQ(postcopy_listen(p, NULL, until, n), 0);
	CHECK(postcopy_listening(p));
	postcopy_prepare(p, make_map());
	CHECK_EQ(postcopy_base(p, 0), (uintptr_t)guestmem_gpa(postcopy_base_map(p), 0, 1));
	CHECK(postcopy_base(p, 0x100000) != 0);
	CHECK_EQ(postcopy_base(p, 0x100001), 0);
	CHECK_EQ(postcopy_accept(p, &m), 0);
	CHECK(m);
	CHECK(!postcopy_base_map(p));
	return m;
}

/* Somebody who needs a page: as a user, or in a system call. */
struct toucher {
	const uint8_t *from;
	bool by_syscall;
	uint8_t got[PAGE];
	pthread_t thread;
};

static void *toucher_run(void *arg)
{
	struct toucher *t = arg;
	int pipes[2];

	if (!t->by_syscall) {
		memcpy(t->got, t->from, PAGE);
		return NULL;
	}
	CHECK_SYS(pipe(pipes));
	CHECK_EQ(write(pipes[1], t->from, PAGE), PAGE);
	CHECK_EQ(read(pipes[0], t->got, PAGE), PAGE);
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

static void toucher_start(struct toucher *t, const void *from, bool by_syscall)
{
	*t = (struct toucher){.from = from, .by_syscall = by_syscall};
	memset(t->got, 0xee, PAGE);
	CHECK_EQ(pthread_create(&t->thread, NULL, toucher_run, t), 0);
}

/* The next fault's page address. */
static uint64_t wait_fault(int uffd)
{
	struct pollfd poll_fd = {.fd = uffd, .events = POLLIN};
	struct uffd_msg msg;

	CHECK_EQ(poll(&poll_fd, 1, 10000), 1);
	CHECK_EQ(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	CHECK_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
	return msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
}

static void serve(int uffd, uint64_t address, uint8_t fill)
{
	uint8_t page[PAGE];
	struct uffdio_copy copy = {.dst = address, .src = (uintptr_t)page, .len = PAGE};

	memset(page, fill, PAGE);
	CHECK_SYS(ioctl(uffd, UFFDIO_COPY, &copy));
}

static void pages_are_served(void *arg)
{
	struct postcopy p = POSTCOPY_INIT;
	struct toucher t[3];
	struct guestmem *m;
	unsigned before;

	(void)arg;
	required();
	before = open_fds();
	m = begin(&p, NULL, 0);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *page = guestmem_gpa(m, 0x100000 + i * PAGE, PAGE);

		toucher_start(&t[i], page, i > 0);
		CHECK_EQ(wait_fault(p.uffd), (uintptr_t)page);
		serve(p.uffd, (uintptr_t)page, (uint8_t)(i + 1));
		pthread_join(t[i].thread, NULL);
		for (unsigned k = 0; k < PAGE; k++)
			CHECK_EQ(t[i].got[k], i + 1);
		page[0] = 'w';
	}
	toucher_start(&t[0], guestmem_gpa(m, 0, PAGE), false); /* spans two pages of the file */
	for (unsigned i = 0; i < 2; i++)
		serve(p.uffd, wait_fault(p.uffd), (uint8_t)(10 + i));
	pthread_join(t[0].thread, NULL);
	CHECK_EQ(t[0].got[0], 10);
	CHECK_EQ(t[0].got[PAGE - 513], 10);
	CHECK_EQ(t[0].got[PAGE - 512], 11);
	postcopy_end(&p);
	CHECK(!postcopy_listening(&p));
	CHECK_EQ(*(uint8_t *)guestmem_gpa(m, 0x100000, 1), 'w');
	CHECK_EQ(*(uint8_t *)guestmem_gpa(m, 0x100000 + 5 * PAGE, 1), 0);
	guestmem_unref(m);
	CHECK_EQ(open_fds(), before);
}

static void no_access_before_accept(void *arg)
{
	struct postcopy p = POSTCOPY_INIT;
	struct guestmem *m;
	int pipes[2];

	(void)arg;
	required();
	CHECK_SYS(pipe(pipes));
	CHECK(postcopy_advise(&p) >= 0);
	CHECK_EQ(postcopy_listen(&p, NULL, NULL, 0), 0);
	postcopy_prepare(&p, make_map());
	/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
	CHECK_EQ(write(pipes[1], (void *)(uintptr_t)postcopy_base(&p, 0x100000), 1), -1);
	CHECK_EQ(errno, EFAULT);
	postcopy_prepare(&p, make_map()); /* the first one is dropped */
	CHECK_EQ(postcopy_accept(&p, &m), 0);
	guestmem_unref(m);
	CHECK_EQ(postcopy_accept(&p, &m), 0); /* a surplus acknowledgement */
	CHECK(m == NULL);
	postcopy_prepare(&p, make_map());
	postcopy_end(&p); /* with one prepared */
	CHECK_EQ(postcopy_base(&p, 0), 0);
}

/* The front-end holds a duplicate of the userfaultfd and serves nothing. */
static void the_end_wakes_whoever_waits(void *arg)
{
	struct postcopy p = POSTCOPY_INIT;
	struct toucher t[2];
	struct guestmem *m;
	int held;

	(void)arg;
	required();
	m = begin(&p, NULL, 0);
	held = dup(p.uffd);
	for (unsigned i = 0; i < 2; i++) {
		toucher_start(&t[i], guestmem_gpa(m, 0x100000 + i * PAGE, PAGE), i);
		wait_fault(held);
	}
	postcopy_end(&p);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(t[i].thread, NULL);
		CHECK_EQ(t[i].got[0] | t[i].got[PAGE - 1], 0);
	}
	guestmem_unref(m);
}

static void a_hang_up_wakes_whoever_waits(void *arg)
{
	bool signal_fd = arg != NULL;
	struct postcopy p = POSTCOPY_INIT;
	struct pollfd until[2];
	struct toucher t;
	struct guestmem *m;
	int sock[2], signals[2], held;

	required();
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	CHECK_SYS(pipe(signals));
	until[0] = (struct pollfd){.fd = sock[0], .events = POLLRDHUP};
	until[1] = (struct pollfd){.fd = signals[0], .events = POLLIN};
	CHECK_EQ(write(sock[1], "message", 7), 7); /* no reason to give up */
	m = begin(&p, until, 2);
	held = dup(p.uffd);
	toucher_start(&t, guestmem_gpa(m, 0x100000, PAGE), false);
	wait_fault(held);
	CHECK(!p.given_up);
	if (signal_fd)
		CHECK_EQ(write(signals[1], "x", 1), 1);
	else
		close(sock[1]);
	pthread_join(t.thread, NULL); /* while the control thread does nothing */
	CHECK_EQ(t.got[0] | t.got[PAGE - 1], 0);
	CHECK_EQ(*(uint8_t *)guestmem_gpa(m, 0x100000 + PAGE, 1), 0);
	guestmem_unref(m);
	postcopy_prepare(&p, make_map());
	CHECK_EQ(postcopy_accept(&p, &m), -EPIPE);
	CHECK(m == NULL);
	postcopy_end(&p);
	CHECK_EQ(guestmem_find(m = begin(&p, NULL, 0), 0), 0); /* and it can begin again */
	postcopy_end(&p);
	guestmem_unref(m);
}

static void out_of_order(void *arg)
{
	struct postcopy p = POSTCOPY_INIT;
	struct guestmem *m = make_map();
	unsigned before = open_fds();
	int first;

	(void)arg;
	required();
	postcopy_end(&p);
	CHECK_EQ(postcopy_listen(&p, NULL, NULL, 0), -EINVAL);
	CHECK_SYS(first = postcopy_advise(&p));
	CHECK(postcopy_advise(&p) >= 0); /* a new one instead */
	CHECK_EQ(open_fds(), before + 1);
	CHECK_EQ(postcopy_listen(&p, m, NULL, 0), -EBUSY);
	CHECK(!postcopy_listening(&p));
	CHECK_EQ(postcopy_listen(&p, NULL, NULL, 0), 0);
	CHECK_EQ(postcopy_listen(&p, NULL, NULL, 0), -EINVAL);
	CHECK_EQ(postcopy_advise(&p), -EBUSY);
	postcopy_end(&p);
	postcopy_end(&p);
	CHECK_EQ(open_fds(), before);
	guestmem_unref(m);
}

int main(void)
{
	tap_case("pages are served", pages_are_served, NULL);
	tap_case("no access before it is accepted", no_access_before_accept, NULL);
	tap_case("the end wakes whoever waits", the_end_wakes_whoever_waits, NULL);
	tap_case("a hang-up wakes whoever waits", a_hang_up_wakes_whoever_waits, NULL);
	tap_case("a signal wakes whoever waits", a_hang_up_wakes_whoever_waits, "signal");
	tap_case("out of order", out_of_order, NULL);
	return tap_done();
}
