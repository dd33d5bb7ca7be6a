/* SPDX-License-Identifier: MIT */
/* The 9p device: requests that wait, are flushed, interrupted by the end of the queue, or not what they should be. */
#include "9p-rig.h"
#include "hang.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* --- locks, flush --- */

static void locks(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	client_start(&c, m, dir, 4096, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "f"), 0);
	CHECK_EQ(c_open(&c, 2, O_RDWR), 0);
	/* ranges against each other: owners are fid, client and process */
	CHECK_EQ(c_lock(&c, 1, 1, 0, 0, 10, 1), 0);
	CHECK_EQ(c_lock(&c, 1, 1, 0, 5, 10, 1), 0);
	CHECK_EQ(c_lock(&c, 1, 1, 0, 5, 10, 2), 1);
	CHECK_EQ(c_lock(&c, 2, 0, 0, 14, 1, 1), 1);
	CHECK_EQ(c_lock(&c, 2, 0, 0, 15, 0, 1), 0);
	client_begin(&c, TGETLOCK);
	put_u32(&c, 2);
	put_u8(&c, 1);
	put_u64(&c, 0);
	put_u64(&c, 100);
	put_u32(&c, 1);
	put_str(&c, "client");
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u8(&c), 1);
	CHECK_EQ(get_u64(&c), 0);
	CHECK_EQ(get_u64(&c), 15);
	/* one that waits is served when the other is given back; meanwhile all else works */
	send_lock(1, 2, 3, 1);
	guest_is(2, "locked");
	CHECK(!client_poll(&c, 1, 30));
	CHECK_EQ(c_lock(&c, 1, 2, 0, 0, 0, 1), 0);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK_EQ(get_u8(&c), 0);
	/* two are served in the order they came */
	client_use(&c, 0);
	CHECK_EQ(c_walk(&c, 0, 3, "f"), 0);
	CHECK_EQ(c_open(&c, 3, O_RDWR), 0);
	send_lock(1, 1, 3, 1);
	send_lock(4, 3, 3, 1);
	CHECK(!client_poll(&c, 4, 30));
	CHECK_EQ(c_lock(&c, 2, 2, 0, 0, 0, 1), 0);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK(!client_poll(&c, 4, 30));
	client_use(&c, 0);
	CHECK_EQ(c_lock(&c, 1, 2, 0, 0, 0, 1), 0);
	CHECK_EQ(client_wait(&c, 4), 0);
	/* the host's */
	client_use(&c, 0);
	CHECK_EQ(c_clunk(&c, 3), 0);
	host_lock(fd, F_WRLCK, 100, 1);
	CHECK_EQ(c_lock(&c, 1, 1, 0, 100, 1, 1), 1);
	send_lock(1, 1, 100, 1);
	CHECK(!client_poll(&c, 1, 30));
	host_lock(fd, F_UNLCK, 100, 1);
	CHECK_EQ(client_wait(&c, 1), 0);
	/* a fid takes its locks along */
	client_use(&c, 0);
	send_lock(1, 2, 100, 1);
	CHECK(!client_poll(&c, 1, 30));
	CHECK_EQ(c_clunk(&c, 1), 0);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK_EQ(get_u8(&c), 0);
	client_use(&c, 0);
	CHECK_EQ(c_lock(&c, 2, 1, 0, UINT64_MAX, 1, 1), -EINVAL);
	CHECK_EQ(c_lock(&c, 2, 7, 0, 0, 1, 1), -EINVAL);
	CHECK_EQ(c_lock(&c, 0, 1, 0, 0, 1, 1), -EBADF);
	client_end(&c);
	close(fd);
}

static void flush(uint16_t tag)
{
	client_begin(&c, TFLUSH);
	put_u16(&c, tag);
}

static void flushes(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	host_lock(fd, F_WRLCK, 0, 0);
	client_start(&c, m, dir, 4096, NULL);
	flush(77); /* nothing of that tag */
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	send_lock(1, 1, 0, 1);
	send_lock(2, 1, 0, 1);
	CHECK(!client_poll(&c, 1, 20));
	flush(1);
	CHECK_EQ(client_call(&c), 0);
	CHECK(c.m[1].done); /* before the flush's answer, and without one of its own */
	CHECK_EQ(c.m[1].answer, 0);
	CHECK(!c.m[2].done);
	host_lock(fd, F_UNLCK, 0, 0);
	CHECK_EQ(client_wait(&c, 2), 0);
	/* the one that was flushed did not take the lock */
	client_use(&c, 0);
	CHECK_EQ(c_clunk(&c, 1), 0);
	host_lock(fd, F_WRLCK, 0, 0);
	/* a new session ends all that waits */
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	send_lock(1, 1, 0, 1);
	CHECK(!client_poll(&c, 1, 20));
	client_session(&c, "9P2000.L");
	CHECK(c.m[1].done);
	CHECK_EQ(c.m[1].answer, 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), -EBADF);
	client_end(&c);
	close(fd);
}

/* A lock waits while the queue stops: it is told so, and the fids are there afterwards. */
static void stop_waiting(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	uint32_t base;
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	host_lock(fd, F_WRLCK, 0, 0);
	client_start(&c, m, dir, 4096, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	send_lock(1, 1, 0, 1);
	CHECK(!client_poll(&c, 1, 20));
	base = fe_queue_stop(c.q);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK_EQ(get_u8(&c), 1);
	fe_queue_send(c.q, base);
	if (c.fe.features & BIT(FE_F_PROTOCOL))
		fe_queue_enable(c.q, true);
	client_use(&c, 0);
	guest_is(1, "locked");
	client_end(&c);
	close(fd);
}

/*
 * An open that the host makes wait, because a program there has a lease on the file: all else goes on, and a flush of it
 * waits for it too.
 */
static void slow_open(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	bool cancelled;
	int fd;

	host_write(dir, "leased", "late");
	host_write(dir, "f", "free");
	fd = open(path_in(dir, "leased"), O_RDWR | O_CLOEXEC);
	CHECK(signal(SIGIO, SIG_IGN) != SIG_ERR);
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		tap_skip("no leases below %s", dir);
	client_start(&c, m, dir, 4096, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "leased"), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "f"), 0);
	client_use(&c, 1);
	client_begin(&c, TLOPEN);
	put_u32(&c, 1);
	put_u32(&c, O_RDONLY);
	client_send(&c);
	client_use(&c, 2); /* waits for the fid */
	client_begin(&c, TGETATTR);
	put_u32(&c, 1);
	put_u64(&c, 0x7ff);
	client_send(&c);
	client_use(&c, 0);
	for (unsigned i = 0; i < 50; i++) {
		CHECK_EQ(c_walk(&c, 2, 3, ""), 0);
		CHECK_EQ(c_open(&c, 3, O_RDONLY), 0);
		guest_is(3, "free");
		CHECK_EQ(c_clunk(&c, 3), 0);
	}
	for (unsigned i = 1; i < 3; i++)
		CHECK_EQ(c.m[i].done ? i : 0, 0);
	client_use(&c, 3);
	flush(1);
	client_send(&c);
	client_use(&c, 0);
	CHECK_EQ(c_walk(&c, 2, 3, ""), 0);
	/* a machine so busy that the open has not even begun: then it is not done at all */
	cancelled = c.m[1].done && c.m[1].answer == 0;
	CHECK(cancelled || (!c.m[1].done && !c.m[3].done));
	CHECK_SYS(fcntl(fd, F_SETLEASE, F_UNLCK));
	CHECK_EQ(client_wait(&c, 3), 0);
	CHECK(c.m[1].done);
	CHECK_EQ(client_wait(&c, 1), cancelled);
	CHECK_EQ(client_wait(&c, 2), 0);
	client_use(&c, 0);
	if (cancelled)
		CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	guest_is(1, "late");
	client_end(&c);
	close(fd);
}

/* A read that cannot say that it would have to wait, of a file system that is not on a disk of ours, is not made in the loop. */
static void not_local(const struct fe_mode *m)
{
	char got[14];
	struct attr a;
	pid_t pool;

	client_start(&c, m, "/proc", 4096, FE_ARGS("--threads=1"));
	CHECK_EQ(c_walk(&c, 0, 1, "version"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	pool = hang_thread(c.fe.process.pid, "9p");
	hang_begin(pool);
	client_use(&c, 1);
	client_begin(&c, TREAD);
	put_u32(&c, 1);
	put_u64(&c, 0);
	put_u32(&c, sizeof(got));
	client_send(&c);
	client_use(&c, 0);
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(c_getattr(&c, 0, &a), 0);
	CHECK(!c.m[1].done);
	hang_end(pool);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK_EQ(get_u32(&c), sizeof(got));
	get_bytes(&c, got, sizeof(got));
	CHECK_MEM(got, "Linux version ", sizeof(got));
	client_end(&c);
}

/* Nor is anything else asked of such a file system, which may be mounted below the root; and it has threads of its own. */
static void not_local_below(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct attr a;
	pid_t pool;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		tap_skip("no mount namespace");
	CHECK_SYS(mkdir(path_in(dir, "below"), 0755));
	CHECK_SYS(mkdir(path_in(dir, "memory"), 0755));
	CHECK_SYS(mount("/proc", path_in(dir, "below"), NULL, MS_BIND, NULL));
	CHECK_SYS(mount("t", path_in(dir, "memory"), "tmpfs", 0, NULL));
	host_write(dir, "memory/f", "near");
	client_start(&c, m, dir, 4096, FE_ARGS("--threads=1"));
	CHECK_EQ(c_walk(&c, 0, 1, "below/version"), 0);
	CHECK_EQ(c_walk(&c, 0, 4, "memory"), 0);
	pool = hang_thread(c.fe.process.pid, "9p-away");
	hang_begin(pool);
	client_use(&c, 1);
	client_begin(&c, TGETATTR);
	put_u32(&c, 1);
	put_u64(&c, 0x7ff);
	client_send(&c);
	client_use(&c, 2);
	client_begin(&c, TWALK);
	put_u32(&c, 0);
	put_u32(&c, 2);
	put_u16(&c, 1);
	put_str(&c, "below");
	client_send(&c);
	client_use(&c, 0);
	for (unsigned i = 0; i < 20; i++) {
		CHECK_EQ(c_walk(&c, 0, 3, "memory/f"), 0); /* which is known by now */
		CHECK_EQ(c_getattr(&c, 3, &a), 0);
		CHECK_EQ(c_clunk(&c, 3), 0);
		CHECK_EQ(c_mkdir(&c, 4, "d", 0755), i ? -EEXIST : 0);
	}
	CHECK(!c.m[1].done && !c.m[2].done);
	hang_end(pool);
	CHECK_EQ(client_wait(&c, 1), 0);
	CHECK_EQ(client_wait(&c, 2), 0);
	client_end(&c);
}

static void begin_read(unsigned slot, uint32_t fid)
{
	client_use(&c, slot);
	client_begin(&c, TREAD);
	put_u32(&c, fid);
	put_u64(&c, 0);
	put_u32(&c, 7);
	client_send(&c);
}

static void begin_flush(unsigned slot, uint16_t tag)
{
	client_use(&c, slot);
	flush(tag);
	client_send(&c);
}

/*
 * Flushes wait until a thread has seen that it shall not begin, and flushes of flushes for these. Then a new session does so in
 * their place.
 */
static void flush_flushes(const struct fe_mode *m)
{
	pid_t pool;

	client_start(&c, m, "/proc", 4096, FE_ARGS("--threads=1"));
	CHECK_EQ(c_walk(&c, 0, 1, "version"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	pool = hang_thread(c.fe.process.pid, "9p");
	for (unsigned round = 0; round < 2; round++) {
		hang_begin(pool);
		begin_read(1, 1);
		begin_read(2, 1);
		if (round == 0) {
			begin_flush(3, 1);
			begin_flush(4, 3);
			begin_flush(5, 4);
			begin_flush(6, 2);
			begin_flush(7, 1);
			c.m[8].tag = 3;
			begin_flush(8, 1); /* its tag is in use */
			CHECK_EQ(client_wait(&c, 8), -EINVAL);
		} else {
			client_use(&c, 0);
			client_begin(&c, TVERSION);
			put_u32(&c, 4096);
			put_str(&c, "9P2000.L");
			client_send(&c);
			CHECK(!client_poll(&c, 0, 20));
		}
		for (unsigned i = 1; i < 8; i++)
			CHECK(!c.m[i].done || (round == 1 && i > 2));
		hang_end(pool);
		if (round == 0) {
			for (unsigned i = 3; i < 8; i++)
				CHECK_EQ(client_wait(&c, i), 0);
		} else {
			CHECK_EQ(client_wait(&c, 0), 0);
		}
		CHECK(c.m[1].done && c.m[2].done);
		CHECK_EQ(c.m[1].answer + c.m[2].answer, 0);
		c.m[8].tag = 8;
	}
	CHECK_EQ(c_walk(&c, 0, 5, ""), -EBADF);
	client_end(&c);
}

/* The space of a removed file is given back while others are served. */
static void large_clunk(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	unsigned fds;
	pid_t pool;
	int fd;

	host_write(dir, "large", "");
	host_write(dir, "near", "near");
	fd = open(path_in(dir, "large"), O_RDWR | O_CLOEXEC);
	if (posix_fallocate(fd, 0, 9 << 20) != 0)
		tap_skip("no space for a large file");
	close(fd);
	client_start(&c, m, dir, 4096, FE_ARGS("--threads=1"));
	fds = fe_process_fds(&c.fe.process);
	CHECK_EQ(c_walk(&c, 0, 1, "large"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	CHECK_EQ(c_unlink(&c, 0, "large", 0), 0);
	pool = hang_thread(c.fe.process.pid, "9p");
	hang_begin(pool);
	client_use(&c, 1);
	client_begin(&c, TCLUNK);
	put_u32(&c, 1);
	client_send(&c);
	client_use(&c, 0);
	CHECK_EQ(c_walk(&c, 0, 2, "near"), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	CHECK_EQ(c_clunk(&c, 2), 0);
	CHECK(!c.m[1].done);
	hang_end(pool);
	CHECK_EQ(client_wait(&c, 1), 0);
	client_use(&c, 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), -EBADF);
	CHECK_EQ(fe_process_fds(&c.fe.process), fds);
	client_end(&c);
}

/* --- hostile --- */

/* Bytes as they are, with this much room for the answer; the value is the used length. */
static uint32_t raw(const void *bytes, uint32_t n, uint32_t room)
{
	struct vring_driver_buf bufs[2];

	memcpy(c.m[1].tx, bytes, n);
	bufs[0] = fe_rd(&c.fe, c.m[1].tx, n);
	bufs[1] = fe_wr(&c.fe, c.m[1].rx, room);
	return fe_transact(c.q, bufs, room ? 2 : 1);
}

static void put_le32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void hostile(const struct fe_mode *m)
{
	uint8_t b[64] = {0};
	uint32_t e;

	client_start(&c, m, fe_tmpdir(), 8192, NULL);
	CHECK_EQ(raw(b, 3, 100), 0); /* no header */
	CHECK_EQ(raw(b, 32, 10), 0); /* no room for an error */
	CHECK_EQ(raw(b, 32, 0), 0);
	for (uint32_t size = 0; size < 64; size++) { /* all types, lengths that are not true */
		b[4] = (uint8_t)(size * 4 + 2);
		put_le32(b, size < 32 ? size : UINT32_MAX - size);
		e = raw(b, 32, 200);
		CHECK(size < 32 ? e >= 7 : e == 11);
	}
	client_session(&c, "9P2000.L");
	for (unsigned type = 0; type < 256; type++) { /* nothing behind the header */
		if (type == TVERSION)
			continue;
		put_le32(b, 7);
		b[4] = (uint8_t)type;
		CHECK_EQ(raw(b, 7, 100), 11);
		CHECK_EQ(c.m[1].rx[4], RLERROR);
	}
	for (unsigned type = 0; type < 128; type += 2) { /* all that follows is ones */
		if (type == TVERSION)
			continue;
		memset(b, 0xff, sizeof(b));
		put_le32(b, sizeof(b));
		b[4] = (uint8_t)type;
		e = raw(b, sizeof(b), 100);
		CHECK(e == 11 || (type == TFLUSH && e == 7));
	}
	/* a message larger than msize */
	put_le32(b, 8193);
	b[4] = TCLUNK;
	CHECK_EQ(raw(b, 64, 100), 11);
	client_begin(&c, TWALK);
	put_u32(&c, 0);
	put_u32(&c, 1);
	put_u16(&c, 60000);
	CHECK_EQ(client_call(&c), -EINVAL);
	CHECK_EQ(c_walk(&c, 0, 0xffffffff, ""), -EINVAL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_walk(&c, 0, 1, ""), -EEXIST);
	CHECK_EQ(c_read(&c, 1, 0, b, 10), -EBADF);
	CHECK_EQ(c_create(&c, 1, "f", O_RDWR, 0600), 0);
	client_begin(&c, TWRITE);
	put_u32(&c, 1);
	put_u64(&c, 0);
	put_u32(&c, 5000); /* bytes that are not there */
	put_str(&c, "abc");
	CHECK_EQ(client_call(&c), -EINVAL);
	CHECK_EQ(c_write(&c, 1, UINT64_MAX, "x", 1), -EINVAL);
	CHECK_EQ(c_write(&c, 1, 0, "fine", 4), 4);
	client_begin(&c, TREAD); /* more than there is room for */
	put_u32(&c, 1);
	put_u64(&c, 0);
	put_u32(&c, UINT32_MAX);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u32(&c), 4);
	client_end(&c);
}

static void versions(const struct fe_mode *m)
{
	char *got;

	client_start(&c, m, fe_tmpdir(), 8192, NULL);
	client_begin(&c, TVERSION);
	put_u32(&c, 4095);
	put_str(&c, "9P2000.L");
	CHECK_EQ(client_call(&c), -EMSGSIZE);
	CHECK_EQ(c_walk(&c, 0, 1, ""), -EPROTO);
	client_begin(&c, TVERSION);
	put_u32(&c, 8192);
	put_str(&c, "9P3000");
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u32(&c), 8192);
	got = get_str(&c);
	CHECK_STR(got, "unknown");
	free(got);
	client_begin(&c, TVERSION);
	put_u32(&c, UINT32_MAX);
	put_str(&c, "9P2000.L");
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u32(&c), 1 << 20);
	client_session(&c, "9P2000.L");
	client_end(&c);
}

static void tag_reuse(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	host_lock(fd, F_WRLCK, 0, 0);
	client_start(&c, m, dir, 4096, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	send_lock(1, 1, 0, 1);
	c.m[2].tag = 1;
	client_use(&c, 2);
	client_begin(&c, TCLUNK);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -EINVAL);
	host_lock(fd, F_UNLCK, 0, 0);
	CHECK_EQ(client_wait(&c, 1), 0);
	client_end(&c);
	close(fd);
}

int main(void)
{
	fe_each_layout("locks", locks);
	fe_each_mode("flush", flushes);
	fe_each_layout("a read of a file system that is not local", not_local);
	fe_each_mode("flushes of flushes", flush_flushes);
	fe_case("the end of a large file", large_clunk, NULL);
	fe_case("a file system below the root that is not local", not_local_below, NULL);
	fe_each_layout("an open that waits holds up nobody", slow_open);
	fe_each_mode("stop while a lock waits", stop_waiting);
	fe_each_mode("hostile", hostile);
	fe_case("versions", versions, NULL);
	fe_case("a tag used twice", tag_reuse, NULL);
	return tap_done();
}
