/* SPDX-License-Identifier: MIT */
/* The 9p device: names, links, special files, and races with all that: nothing leads out of the tree. */
#include "9p-rig.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static void unlinked(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct attr a;

	host_write(dir, "f", "still here");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "f"), 0); /* not open */
	CHECK_SYS(unlink(path_in(dir, "f")));
	host_write(dir, "f", "another");
	guest_is(1, "still here");
	CHECK_EQ(c_write(&c, 1, 0, "STILL", 5), 5);
	CHECK_EQ(c_getattr(&c, 2, &a), 0);
	CHECK_EQ(a.nlink, 0);
	client_begin(&c, TSETATTR); /* by the fid that is not open */
	put_u32(&c, 2);
	put_u32(&c, 8);
	for (unsigned k = 0; k < 3; k++)
		put_u32(&c, 0);
	put_u64(&c, 7);
	for (unsigned k = 0; k < 4; k++)
		put_u64(&c, 0);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	guest_is(2, "STILL h");
	host_is(dir, "f", "another");
	client_end(&c);
}

static void names(const struct fe_mode *m)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "/etc", "../x"};
	const char *dir = fe_tmpdir();
	char nul[6] = {3, 0, 'a', 0, 'b', 0};

	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_mkdir(&c, 0, "sub", 0755), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		client_begin(&c, TWALK);
		put_u32(&c, 0);
		put_u32(&c, 5);
		put_u16(&c, 1);
		put_str(&c, bad[i]);
		if (strcmp(bad[i], "..") != 0)
			CHECK_EQ(client_call(&c), -EINVAL);
		CHECK_EQ(c_mkdir(&c, 0, bad[i], 0755), -EINVAL);
		CHECK_EQ(c_unlink(&c, 0, bad[i], 0x200), -EINVAL);
		CHECK_EQ(c_rename(&c, 0, "sub", 0, bad[i]), -EINVAL);
		CHECK_EQ(c_rename(&c, 0, bad[i], 0, "x"), -EINVAL);
	}
	client_begin(&c, TMKDIR);
	put_u32(&c, 0);
	put_bytes(&c, nul, 5);
	put_u32(&c, 0755);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -EINVAL);
	/* behind the first step the walk ends without an error, and without a fid */
	CHECK_EQ(c_walk(&c, 0, 5, "sub/."), -ENOENT);
	CHECK_EQ(c_open(&c, 5, O_RDONLY), -EBADF);
	client_end(&c);
}

/* ".." leads up to the root, and no further. */
static void upwards(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir(), *outside = fe_tmpdir();
	struct attr root, a;

	CHECK_SYS(mkdir(path_in(dir, "a"), 0755));
	CHECK_SYS(mkdir(path_in(dir, "a/b"), 0755));
	host_write(dir, "f", "text");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_getattr(&c, 0, &root), 0);
	CHECK_EQ(c_walk(&c, 0, 1, "a/b"), 0);
	CHECK_EQ(c_walk(&c, 1, 2, "../../f"), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	guest_is(2, "text");
	CHECK_EQ(c_walk(&c, 1, 3, "../../../.."), 0);
	CHECK_EQ(c_getattr(&c, 3, &a), 0);
	CHECK_EQ(a.path, root.path);
	CHECK_EQ(c_walk(&c, 0, 4, ".."), 0);
	CHECK_EQ(c_getattr(&c, 4, &a), 0);
	CHECK_EQ(a.path, root.path);
	CHECK_EQ(c_walk(&c, 0, 5, "f/.."), -ENOENT);
	/* what was moved out of the tree has no way back */
	CHECK_SYS(rename(path_in(dir, "a/b"), path_in(outside, "b")));
	CHECK_EQ(c_walk(&c, 1, 5, ".."), -ESTALE);
	client_begin(&c, TREMOVE);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), -ESTALE);
	CHECK_SYS(access(path_in(outside, "b"), F_OK));
	client_end(&c);
}

static void links(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir(), *secret = fe_tmpdir();
	char *target;

	host_write(secret, "secret", "outside");
	CHECK_SYS(symlink(secret, path_in(dir, "out")));
	CHECK_SYS(symlink(path_in(secret, "secret"), path_in(dir, "file")));
	CHECK_SYS(symlink("..", path_in(dir, "up")));
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "file"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), -ELOOP);
	client_begin(&c, TREADLINK);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), 0);
	target = get_str(&c);
	CHECK_STR(target, path_in(secret, "secret"));
	free(target);
	CHECK_EQ(c_walk(&c, 0, 2, "out/secret"), -ENOENT);
	CHECK_EQ(c_walk(&c, 0, 2, "up/x"), -ENOENT);
	CHECK_EQ(c_walk(&c, 0, 2, "out"), 0);
	CHECK_EQ(c_create(&c, 2, "new", O_RDWR, 0600), -ENOTDIR);
	CHECK_EQ(c_mkdir(&c, 2, "new", 0700), -ENOTDIR);
	CHECK_EQ(c_unlink(&c, 2, "secret", 0), -ENOTDIR);
	/* a new file in place of a link that leads outside */
	CHECK_EQ(c_walk(&c, 0, 3, ""), 0);
	CHECK_EQ(c_create(&c, 3, "file", O_RDWR | O_TRUNC, 0600), -ELOOP);
	host_is(secret, "secret", "outside");
	/* attach below the root: by directories only */
	client_begin(&c, TATTACH);
	put_u32(&c, 9);
	put_u32(&c, UINT32_MAX);
	put_str(&c, "");
	put_str(&c, "/out");
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -ELOOP);
	client_begin(&c, TATTACH);
	put_u32(&c, 9);
	put_u32(&c, UINT32_MAX);
	put_str(&c, "");
	put_str(&c, "..");
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -EXDEV);
	client_end(&c);
}

static struct {
	char dir[256];
	bool stop;
} race;

/* "d" is a directory now, and a link to the secret one then. */
static void *swap(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&race.stop, __ATOMIC_RELAXED)) {
		char a[300], b[300];

		snprintf(a, sizeof(a), "%s/d", race.dir);
		snprintf(b, sizeof(b), "%s/link", race.dir);
		syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 2 /* exchange */);
	}
	return NULL;
}

static void races(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir(), *secret = fe_tmpdir();
	unsigned hits = 0, misses = 0;
	pthread_t thread;
	char got[16];

	host_write(secret, "f", "outside");
	CHECK_SYS(mkdir(path_in(dir, "d"), 0755));
	host_write(dir, "d/f", "inside!");
	CHECK_SYS(symlink(secret, path_in(dir, "link")));
	client_start(&c, m, dir, 8192, NULL);
	snprintf(race.dir, sizeof(race.dir), "%s", dir);
	CHECK_EQ(pthread_create(&thread, NULL, swap, NULL), 0);
	for (unsigned i = 0; i < 3000; i++) {
		if (c_walk(&c, 0, 1, "d/f") < 0) {
			misses++;
			continue;
		}
		if (c_open(&c, 1, i % 2 ? O_RDONLY : O_RDWR | O_APPEND) == 0) {
			CHECK_EQ(c_read(&c, 1, 0, got, 7), 7);
			CHECK_MEM(got, "inside!", 7);
			hits++;
		}
		CHECK_EQ(c_clunk(&c, 1), 0);
		if (i % 16 == 0 && c_walk(&c, 0, 1, "d") == 0) {
			c_create(&c, 1, "made", O_RDWR, 0600);
			CHECK_EQ(c_clunk(&c, 1), 0);
		}
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	tap_note("%u inside, %u not found", hits, misses);
	CHECK(hits > 0 && misses > 0);
	CHECK(access(path_in(secret, "made"), F_OK) < 0);
	host_is(secret, "f", "outside");
	client_end(&c);
}

static void special(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	bool device = mknod(path_in(dir, "null"), S_IFCHR | 0666, makedev(1, 3)) == 0;

	CHECK_SYS(mkfifo(path_in(dir, "fifo"), 0666));
	CHECK_SYS(mknod(path_in(dir, "sock"), S_IFSOCK | 0666, 0));
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "fifo"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), -ENXIO);
	CHECK_EQ(c_open(&c, 1, O_RDWR), -ENXIO);
	CHECK_EQ(c_walk(&c, 0, 2, "sock"), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), -ENXIO);
	CHECK_EQ(c_walk(&c, 0, 3, ""), 0);
	CHECK_EQ(c_create(&c, 3, "fifo", O_WRONLY, 0600), -ENXIO);
	if (device) {
		CHECK_EQ(c_walk(&c, 0, 4, "null"), 0);
		CHECK_EQ(c_open(&c, 4, O_RDONLY), -ENXIO);
	}
	client_end(&c);
}

/* By fid: rename and remove find the name that the file has now. */
static void by_fid(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();

	host_write(dir, "a", "text");
	CHECK_SYS(mkdir(path_in(dir, "d"), 0755));
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "a"), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "d"), 0);
	CHECK_SYS(rename(path_in(dir, "a"), path_in(dir, "b")));
	client_begin(&c, TRENAME);
	put_u32(&c, 1);
	put_u32(&c, 2);
	put_str(&c, "c");
	CHECK_EQ(client_call(&c), 0);
	host_is(dir, "d/c", "text");
	client_begin(&c, TLINK);
	put_u32(&c, 0);
	put_u32(&c, 1);
	put_str(&c, "l");
	CHECK_EQ(client_call(&c), 0);
	host_is(dir, "l", "text");
	client_begin(&c, TREMOVE);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), 0);
	CHECK(access(path_in(dir, "d/c"), F_OK) < 0);
	host_is(dir, "l", "text");
	client_begin(&c, TREMOVE);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -EBUSY);
	client_end(&c);
}

int main(void)
{
	fe_case("a file that is unlinked while open", unlinked, NULL);
	fe_case("rename, link and remove by fid", by_fid, NULL);
	fe_case("names that are refused", names, NULL);
	fe_case("upwards", upwards, NULL);
	fe_case("links that lead outside", links, NULL);
	fe_case("links that come and go", races, NULL);
	fe_case("special files are not opened", special, NULL);
	return tap_done();
}
