/* SPDX-License-Identifier: MIT */
/* The 9p device: a guest that moves to another process with its fids, and what keeps it from moving. */
#include "9p-rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static uint8_t state[1 << 16];
static size_t state_size;

static void save(void)
{
	fe_queue_stop(c.q);
	state_size = fe_state_save(&c.fe, state, sizeof(state));
}

/* It says at once that it does not. */
static void save_refused(void)
{
	struct fe_wire_state w = {0};
	struct fe_msg r;
	int p[2];

	CHECK_SYS(pipe2(p, O_CLOEXEC));
	fe_queue_stop(c.q);
	fe_ask(&c.fe, FE_SET_DEVICE_STATE_FD, &w, sizeof(w), &p[1], 1, &r, 8);
	CHECK_EQ(*(uint64_t *)r.body, 0x101);
	close(p[0]);
	close(p[1]);
}

static int xattr_begin(uint32_t fid, const char *name, unsigned size)
{
	client_begin(&c, TXATTRCREATE);
	put_u32(&c, fid);
	put_str(&c, name);
	put_u64(&c, size);
	put_u32(&c, 0);
	return client_call(&c);
}

static void moves(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char got[64], *target;
	struct attr before, after;
	bool xattrs;

	CHECK_SYS(mkdir(path_in(dir, "d"), 0755));
	host_write(dir, "d/open", "open");
	host_write(dir, "d/walked", "walked");
	host_write(dir, "value", "");
	host_write(dir, "gone", "");
	host_write(dir, "other", "");
	host_write(dir, "x (deleted)", "");
	CHECK_SYS(symlink("somewhere", path_in(dir, "link")));
	xattrs = setxattr(path_in(dir, "value"), "user.color", "green", 5, 0) == 0;
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "d/open"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "d/walked"), 0);
	CHECK_EQ(c_walk(&c, 0, 3, "d"), 0);
	CHECK_EQ(c_walk(&c, 3, 4, ""), 0);
	CHECK_EQ(c_open(&c, 4, O_RDONLY), 0);
	CHECK_EQ(c_walk(&c, 0, 5, "link"), 0);
	CHECK_EQ(c_walk(&c, 0, 6, "d/open"), 0);
	CHECK_EQ(c_open(&c, 6, O_WRONLY | O_APPEND), 0);
	CHECK_EQ(c_walk(&c, 0, 7, "value"), 0);
	/* files that are gone, or that have lost the name by which they were found */
	CHECK_EQ(c_walk(&c, 0, 20, "gone"), 0);
	CHECK_SYS(unlink(path_in(dir, "gone")));
	CHECK_EQ(c_walk(&c, 0, 21, "other"), 0);
	CHECK_SYS(link(path_in(dir, "other"), path_in(dir, "remains")));
	CHECK_SYS(unlink(path_in(dir, "other")));
	CHECK_EQ(c_walk(&c, 0, 22, "x (deleted)"), 0);
	if (xattrs) {
		client_begin(&c, TXATTRWALK);
		put_u32(&c, 7);
		put_u32(&c, 8);
		put_str(&c, "user.color");
		CHECK_EQ(client_call(&c), 0);
		CHECK_EQ(xattr_begin(7, "user.size", 6), 0);
		CHECK_EQ(c_write(&c, 7, 0, "lar", 3), 3);
	}
	CHECK_EQ(c_getattr(&c, 2, &before), 0);
	/* their paths are those at the end */
	CHECK_EQ(c_rename(&c, 0, "d", 0, "e"), 0);
	save();
	client_end(&c);

	CHECK(client_arrive(&c, m, dir, 8192, NULL, state, state_size));
	guest_is(1, "open");
	CHECK_EQ(c_write(&c, 1, 0, "O", 1), 1);
	CHECK_EQ(c_write(&c, 6, 0, "!", 1), 1); /* appended, by O_APPEND */
	CHECK_EQ(c_read(&c, 6, 0, got, 1), -EBADF);
	host_is(dir, "e/open", "Open!");
	CHECK_EQ(c_getattr(&c, 2, &after), 0);
	CHECK_EQ(after.path, before.path);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	guest_is(2, "walked");
	CHECK_EQ(list(4, "walked", 4096), 2);
	CHECK_EQ(c_mkdir(&c, 3, "sub", 0700), 0);
	CHECK(S_ISDIR(host_mode(dir, "e/sub")));
	client_begin(&c, TREADLINK);
	put_u32(&c, 5);
	CHECK_EQ(client_call(&c), 0);
	target = get_str(&c);
	CHECK_STR(target, "somewhere");
	free(target);
	if (xattrs) {
		CHECK_EQ(c_read(&c, 8, 0, got, sizeof(got)), 5);
		CHECK_MEM(got, "green", 5);
		CHECK_EQ(c_write(&c, 7, 3, "ge\n", 3), 3);
		CHECK_EQ(c_clunk(&c, 7), 0);
		CHECK_EQ(getxattr(path_in(dir, "value"), "user.size", got, sizeof(got)), 6);
		CHECK_MEM(got, "large\n", 6);
	}
	CHECK_EQ(c_walk(&c, 9, 10, ""), -EBADF);
	CHECK_EQ(c_getattr(&c, 20, &after), -ESTALE);
	CHECK_EQ(c_walk(&c, 20, 23, ""), -ESTALE);
	CHECK_EQ(c_clunk(&c, 20), -ESTALE);
	CHECK_EQ(c_walk(&c, 0, 20, ""), 0);
	CHECK_EQ(c_getattr(&c, 21, &after), -ESTALE);
	CHECK_EQ(c_getattr(&c, 22, &after), 0);
	client_end(&c);
}

/* Nothing moves by halves. */
static void stays(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	uint32_t base;

	host_write(dir, "f", "x");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	base = fe_queue_stop(c.q);
	CHECK(fe_state_save(&c.fe, state, sizeof(state)) > 0);
	fe_queue_send(c.q, base);
	if (c.fe.features & BIT(FE_F_PROTOCOL))
		fe_queue_enable(c.q, true);
	guest_is(1, "x");
	/* a lock */
	CHECK_EQ(c_lock(&c, 1, 1, 0, 0, 1, 1), 0);
	save_refused();
	client_end(&c);
	/* an open file without a name */
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	CHECK_SYS(unlink(path_in(dir, "f")));
	save_refused();
	client_end(&c);
}

/* The other end has not what the guest uses, or may not. */
static void unfit(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();

	host_write(dir, "f", "x");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	save();
	client_end(&c);
	CHECK(!client_arrive(&c, m, dir, 8192, FE_ARGS("--read-only"), state, state_size));
	CHECK_EQ(c_walk(&c, 0, 1, ""), -EPROTO); /* there is no session */
	client_end(&c);
	CHECK(!client_arrive(&c, m, dir, 8192, FE_ARGS("--msize=4096"), state, state_size));
	client_end(&c);
	CHECK_SYS(rename(path_in(dir, "f"), path_in(dir, "g")));
	CHECK(!client_arrive(&c, m, dir, 8192, NULL, state, state_size));
	client_end(&c);
	host_write(dir, "f", "another");
	CHECK(!client_arrive(&c, m, dir, 8192, NULL, state, state_size));
	client_end(&c);
	CHECK_SYS(rename(path_in(dir, "g"), path_in(dir, "f")));
	CHECK(client_arrive(&c, m, dir, 8192, NULL, state, state_size));
	guest_is(1, "x");
	client_end(&c);
	/* a value on its way, where nothing may change */
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(xattr_begin(1, "user.x", 0), 0);
	save();
	client_end(&c);
	CHECK(!client_arrive(&c, m, dir, 8192, FE_ARGS("--read-only"), state, state_size));
	client_end(&c);
	CHECK(client_arrive(&c, m, dir, 8192, NULL, state, state_size));
	client_end(&c);
}

/* What is no state, or one that leads out of the folder, is refused and leaves nothing. */
static void broken(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	static uint8_t copy[sizeof(state)];
	uint8_t *at;
	int fd;

	host_write(dir, "file", "x");
	CHECK_SYS(symlink("/etc", path_in(dir, "away")));
	CHECK_EQ(mknod(path_in(dir, "fifo"), S_IFIFO | 0600, 0), 0);
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "file"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "fifo"), 0);
	save();
	client_end(&c);
	CHECK(!client_arrive(&c, m, dir, 8192, NULL, state, 0));
	fe_queue_stop(c.q);
	for (size_t n = 1; n < state_size; n += 3)
		CHECK(fe_state_load(&c.fe, state, n) != 0);
	/* as an open file: the FIFO, and paths that lead elsewhere */
	at = memmem(state, state_size, "fifo", 4);
	CHECK(at != NULL);
	memcpy(copy, state, state_size);
	copy[at - state - 64 + 36] = 2; /* kind */
	CHECK(fe_state_load(&c.fe, copy, state_size) != 0);
	for (unsigned i = 0; i < 3; i++) {
		static const char *const names[] = {"../a", "/etc", "away"};

		memcpy(copy, state, state_size);
		memcpy(copy + (at - state), names[i], 4);
		CHECK(fe_state_load(&c.fe, copy, state_size) != 0);
	}
	/* any byte */
	for (size_t i = 0; i < state_size; i++) {
		memcpy(copy, state, state_size);
		copy[i] ^= (uint8_t)(1 + i * 37 % 255);
		fe_state_load(&c.fe, copy, state_size);
	}
	fd = (int)fe_process_fds(&c.fe.process);
	for (unsigned i = 0; i < 50; i++)
		CHECK(fe_state_load(&c.fe, state, state_size - 1) != 0);
	CHECK(fe_process_fds(&c.fe.process) <= (unsigned)fd);
	CHECK_EQ(fe_state_load(&c.fe, state, state_size), 0);
	client_end(&c);
}

int main(void)
{
	fe_each_mode("a guest moves", moves);
	fe_case("a guest that cannot move", stays, NULL);
	fe_case("the other end does not fit", unfit, NULL);
	fe_case("broken state", broken, NULL);
	return tap_done();
}
