/* SPDX-License-Identifier: MIT */
/*
 * The 9p device: what a guest does with files arrives on the host and the other way round; the tree cannot be left;
 * what is wrong is answered with an error, and the next request works. Other parts: 9p-model.c.
 */
#include "9p-client.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static struct client c;

static const char *path_in(const char *dir, const char *name)
{
	static char *made[8];
	static unsigned next;
	char *path;

	CHECK(asprintf(&path, "%s/%s", dir, name) > 0);
	next = (next + 1) % ARRAY_SIZE(made);
	free(made[next]);
	made[next] = path;
	return path;
}

static void host_write(const char *dir, const char *name, const char *text)
{
	int fd = open(path_in(dir, name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	CHECK_SYS(fd);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void host_is(const char *dir, const char *name, const char *text)
{
	int fd = open(path_in(dir, name), O_RDONLY | O_CLOEXEC);
	char got[256] = "";

	CHECK_SYS(fd);
	CHECK(read(fd, got, sizeof(got) - 1) >= 0);
	close(fd);
	CHECK_STR(got, text);
}

static mode_t host_mode(const char *dir, const char *name)
{
	struct stat st;

	CHECK_SYS(lstat(path_in(dir, name), &st));
	return st.st_mode;
}

static void guest_is(uint32_t fid, const char *text)
{
	char got[256] = "";

	CHECK_EQ(c_read(&c, fid, 0, got, sizeof(got) - 1), strlen(text));
	CHECK_STR(got, text);
}

/* --- works --- */

/* Counts the entries of an open directory; the one called name must be among them when it is given. */
static unsigned list(uint32_t fid, const char *name, uint32_t count)
{
	uint64_t at = 0;
	unsigned n = 0;
	bool found = false;

	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREADDIR);
		put_u32(&c, fid);
		put_u64(&c, at);
		put_u32(&c, count);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		CHECK_EQ(c.cur->answer, 11 + bytes);
		CHECK(bytes <= count);
		if (bytes == 0)
			break;
		while (c.cur->at < c.cur->answer) {
			uint8_t qid[13];
			char *entry;

			get_bytes(&c, qid, 13);
			at = get_u64(&c);
			get_u8(&c);
			entry = get_str(&c);
			found |= name && strcmp(entry, name) == 0;
			n += strcmp(entry, ".") != 0 && strcmp(entry, "..") != 0;
			free(entry);
		}
	}
	CHECK(found == (name != NULL));
	return n;
}

static void works(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct attr a;

	host_write(dir, "there", "from the host");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "there"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	guest_is(1, "from the host");
	CHECK_EQ(c_getattr(&c, 1, &a), 0);
	CHECK_EQ(a.size, 13);
	CHECK_EQ(a.mode, S_IFREG | 0644);
	CHECK_EQ(c_clunk(&c, 1), 0);

	CHECK_EQ(c_mkdir(&c, 0, "dir", 0755), 0);
	CHECK_EQ(c_walk(&c, 0, 1, "dir"), 0);
	CHECK_EQ(c_walk(&c, 1, 2, ""), 0);
	CHECK_EQ(c_create(&c, 2, "new", O_RDWR, 0640), 0);
	CHECK_EQ(c_write(&c, 2, 0, "0123456789", 10), 10);
	CHECK_EQ(c_write(&c, 2, 5, "abc", 3), 3);
	guest_is(2, "01234abc89");
	host_is(dir, "dir/new", "01234abc89");
	CHECK_EQ(host_mode(dir, "dir/new"), S_IFREG | 0640);
	CHECK_EQ(c_rename(&c, 1, "new", 0, "moved"), 0);
	host_is(dir, "moved", "01234abc89");
	guest_is(2, "01234abc89");
	CHECK_EQ(c_unlink(&c, 0, "moved", 0), 0);
	CHECK(access(path_in(dir, "moved"), F_OK) < 0);
	CHECK_EQ(c_clunk(&c, 2), 0);
	CHECK_EQ(c_unlink(&c, 0, "dir", 0), -EISDIR);
	CHECK_EQ(c_unlink(&c, 0, "dir", 0x200), 0);
	CHECK_EQ(c_walk(&c, 0, 2, ""), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	CHECK_EQ(list(2, "there", 4096), 1);
	client_end(&c);
}

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(seed >> 24);
	}
}

/* Messages of 1 MiB, in one indirect descriptor table or a chain. */
static void large(const struct fe_mode *m)
{
	enum { SIZE = (1 << 20) - 24 };
	const char *dir = fe_tmpdir();
	uint8_t *want = malloc(SIZE), *got = malloc(SIZE);

	client_start(&c, m, dir, 1 << 20, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "big", O_RDWR, 0600), 0);
	for (uint32_t i = 0; i < 3; i++) {
		fill(want, SIZE, i);
		CHECK_EQ(c_write(&c, 1, (uint64_t)i * SIZE, want, SIZE), SIZE);
	}
	for (uint32_t i = 0; i < 3; i++) {
		fill(want, SIZE, i);
		CHECK_EQ(c_read(&c, 1, (uint64_t)i * SIZE, got, SIZE), SIZE);
		CHECK_MEM(got, want, SIZE);
	}
	CHECK_EQ(c_read(&c, 1, 3 * (uint64_t)SIZE - 5, got, SIZE), 5);
	CHECK_EQ(c_read(&c, 1, 3 * (uint64_t)SIZE, got, SIZE), 0);
	client_end(&c);
	free(want);
	free(got);
}

/* Random writes, truncations and reads against a copy in memory, and at the end against the host's file. */
static void model(const struct fe_mode *m)
{
	enum { SIZE = 200000, CHUNK = 20000 };
	static uint8_t want[SIZE], got[SIZE], data[CHUNK];
	const char *dir = fe_tmpdir();
	uint32_t seed = 4711, size = 0;
	int fd;

	client_start(&c, m, dir, 32768, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "f", O_RDWR, 0600), 0);
	for (uint32_t i = 0; i < 600; i++) {
		uint32_t at, n;

		seed = seed * 1664525 + 1013904223;
		at = (seed >> 4) % (SIZE - CHUNK);
		n = (seed >> 9) % CHUNK;
		if (seed >> 30 == 0) {
			client_begin(&c, TSETATTR);
			put_u32(&c, 1);
			put_u32(&c, 8);
			for (unsigned k = 0; k < 3; k++)
				put_u32(&c, 0);
			put_u64(&c, at);
			for (unsigned k = 0; k < 4; k++)
				put_u64(&c, 0);
			CHECK_EQ(client_call(&c), 0);
			if (at < size)
				memset(want + at, 0, size - at);
			size = at;
		} else if (seed >> 30 == 1) {
			uint32_t there = at >= size ? 0 : MIN(n, size - at);

			CHECK_EQ(c_read(&c, 1, at, got, n), there);
			CHECK_MEM(got, want + at, there);
		} else {
			fill(data, n, seed);
			CHECK_EQ(c_write(&c, 1, at, data, n), n);
			memcpy(want + at, data, n);
			size = n ? MAX(size, at + n) : size;
		}
	}
	client_end(&c);
	fd = open(path_in(dir, "f"), O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, got, SIZE), size);
	CHECK_MEM(got, want, size);
	close(fd);
}

/* Many entries, some of which go while they are read: those that stay are seen once. */
static void many(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char name[32];

	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "entry-%u", i);
		CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
	}
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	CHECK_EQ(list(1, "entry-2999", 8000), 3000);
	CHECK_EQ(list(1, "entry-0", 200), 3000);
	client_begin(&c, TREADDIR);
	put_u32(&c, 1);
	put_u64(&c, 0);
	put_u32(&c, 10); /* no room for one */
	CHECK_EQ(client_call(&c), -EINVAL);
	client_end(&c);
}

static void changing(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	bool seen[1000] = {false};
	uint64_t at = 0;
	char name[32];
	unsigned gone = 1;

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
	}
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREADDIR);
		put_u32(&c, 1);
		put_u64(&c, at);
		put_u32(&c, 1000);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		if (bytes == 0)
			break;
		while (c.cur->at < c.cur->answer) {
			uint8_t qid[13];
			char *entry;

			get_bytes(&c, qid, 13);
			at = get_u64(&c);
			get_u8(&c);
			entry = get_str(&c);
			if (strchr("0123456789", entry[0])) {
				CHECK(!seen[atoi(entry)]);
				seen[atoi(entry)] = true;
			}
			free(entry);
		}
		/* odd ones go, others come */
		for (unsigned i = 0; i < 20 && gone < 1000; i++, gone += 2) {
			snprintf(name, sizeof(name), "%u", gone);
			CHECK_SYS(unlink(path_in(dir, name)));
			snprintf(name, sizeof(name), "new-%u", gone);
			CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
		}
	}
	for (unsigned i = 0; i < 1000; i += 2)
		CHECK(seen[i]);
	client_end(&c);
}

/* --- names, links, races --- */

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
	CHECK_EQ(c_walk(&c, 0, 5, "sub/.."), -ENOENT);
	CHECK_EQ(c_open(&c, 5, O_RDONLY), -EBADF);
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

/* --- attributes --- */

static int set_xattr(uint32_t dir, const char *name, const char *key, const char *value)
{
	int r;

	CHECK_EQ(c_walk(&c, dir, 50, name), 0);
	client_begin(&c, TXATTRCREATE);
	put_u32(&c, 50);
	put_str(&c, key);
	put_u64(&c, strlen(value));
	put_u32(&c, 0);
	r = client_call(&c);
	if (r == 0 && *value)
		CHECK_EQ(c_write(&c, 50, 0, value, (uint32_t)strlen(value)), strlen(value));
	return r ? c_clunk(&c, 50), r : c_clunk(&c, 50);
}

static int get_xattr(uint32_t dir, const char *name, const char *key, char *value, uint32_t size)
{
	uint32_t len;
	int r;

	memset(value, 0, size);
	CHECK_EQ(c_walk(&c, dir, 50, name), 0);
	client_begin(&c, TXATTRWALK);
	put_u32(&c, 50);
	put_u32(&c, 51);
	put_str(&c, key);
	r = client_call(&c);
	if (r == 0) {
		len = (uint32_t)get_u64(&c);
		CHECK(len < size);
		CHECK_EQ(c_read(&c, 51, 0, value, size), len);
		CHECK_EQ(c_clunk(&c, 51), 0);
		r = (int)len;
	}
	CHECK_EQ(c_clunk(&c, 50), 0);
	return r;
}

static void xattrs(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char value[256];

	host_write(dir, "f", "");
	if (setxattr(path_in(dir, "f"), "user.try", "x", 1, 0) < 0)
		tap_skip("no extended attributes below %s", dir);
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(set_xattr(0, "f", "user.color", "green"), 0);
	CHECK_EQ(getxattr(path_in(dir, "f"), "user.color", value, sizeof(value)), 5);
	CHECK_MEM(value, "green", 5);
	CHECK_EQ(get_xattr(0, "f", "user.color", value, sizeof(value)), 5);
	CHECK_STR(value, "green");
	CHECK_EQ(get_xattr(0, "f", "user.none", value, sizeof(value)), -ENODATA);
	CHECK(get_xattr(0, "f", "", value, sizeof(value)) >= 20);
	CHECK_EQ(set_xattr(0, "f", "user.color", ""), 0); /* removes it */
	CHECK_EQ(get_xattr(0, "f", "user.color", value, sizeof(value)), -ENODATA);
	/* a value that is not complete, one that is too large */
	CHECK_EQ(c_walk(&c, 0, 60, "f"), 0);
	client_begin(&c, TXATTRCREATE);
	put_u32(&c, 60);
	put_str(&c, "user.half");
	put_u64(&c, 10);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(c_write(&c, 60, 0, "12345", 5), 5);
	CHECK_EQ(c_write(&c, 60, 5, "123456", 6), -ENOSPC);
	CHECK_EQ(c_clunk(&c, 60), -EINVAL);
	CHECK_EQ(c_walk(&c, 0, 60, "f"), 0);
	client_begin(&c, TXATTRCREATE);
	put_u32(&c, 60);
	put_str(&c, "user.huge");
	put_u64(&c, UINT64_C(1) << 40);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -E2BIG);
	client_end(&c);
}

static int mknod_at(uint32_t dir, const char *name, uint32_t mode, uint32_t maj, uint32_t min)
{
	client_begin(&c, TMKNOD);
	put_u32(&c, dir);
	put_str(&c, name);
	put_u32(&c, mode);
	put_u32(&c, maj);
	put_u32(&c, min);
	put_u32(&c, 7);
	return client_call(&c);
}

static int set_owner(uint32_t fid, uint32_t mode, uint32_t uid, uint32_t gid)
{
	client_begin(&c, TSETATTR);
	put_u32(&c, fid);
	put_u32(&c, 7);
	put_u32(&c, mode);
	put_u32(&c, uid);
	put_u32(&c, gid);
	for (unsigned k = 0; k < 5; k++)
		put_u64(&c, 0);
	return client_call(&c);
}

/* Owners and kinds of files that the host does not have; a second process finds them as the first one left them. */
static void mapped(const char *model)
{
	const char *dir = fe_tmpdir();
	char option[64], *target;
	struct attr a;

	host_write(dir, "f", "");
	if (setxattr(path_in(dir, "f"), "user.try", "x", 1, 0) < 0)
		tap_skip("no extended attributes below %s", dir);
	snprintf(option, sizeof(option), "--security=%s", model);
	client_start(&c, NULL, dir, 8192, FE_ARGS(option));
	CHECK_EQ(mknod_at(0, "dev", S_IFBLK | 0660, 8, 17), 0);
	CHECK_EQ(mknod_at(0, "fifo", S_IFIFO | 0600, 0, 0), 0);
	client_begin(&c, TSYMLINK);
	put_u32(&c, 0);
	put_str(&c, "link");
	put_str(&c, "/etc/passwd");
	put_u32(&c, 8);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(c_mkdir(&c, 0, "dir", 01777), 0);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "suid", O_RDWR, 04755), 0);
	CHECK_EQ(set_owner(1, 04711, 1234, 5678), 0);
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(host_mode(dir, "dev"), S_IFREG | 0600);
		CHECK_EQ(host_mode(dir, "fifo"), S_IFREG | 0600);
		CHECK_EQ(host_mode(dir, "link"), S_IFREG | 0600);
		CHECK_EQ(host_mode(dir, i ? "dir/moved" : "suid"), S_IFREG | 0600);
		CHECK_EQ(host_mode(dir, "dir"), S_IFDIR | 0700);
		host_is(dir, "link", "/etc/passwd");
		CHECK_EQ(c_walk(&c, 0, 2, "dev"), 0);
		CHECK_EQ(c_getattr(&c, 2, &a), 0);
		CHECK_EQ(a.mode, S_IFBLK | 0660);
		CHECK_EQ(a.rdev, makedev(8, 17));
		CHECK_EQ(a.gid, 7);
		CHECK_EQ(c_open(&c, 2, O_RDONLY), -ENXIO);
		CHECK_EQ(c_walk(&c, 0, 3, "link"), 0);
		CHECK_EQ(c_getattr(&c, 3, &a), 0);
		CHECK_EQ(a.mode, S_IFLNK | 0777);
		CHECK_EQ(a.type, 2);
		CHECK_EQ(c_open(&c, 3, O_RDONLY), -ELOOP);
		client_begin(&c, TREADLINK);
		put_u32(&c, 3);
		CHECK_EQ(client_call(&c), 0);
		target = get_str(&c);
		CHECK_STR(target, "/etc/passwd");
		free(target);
		CHECK_EQ(c_walk(&c, 0, 4, i ? "dir/moved" : "suid"), 0);
		CHECK_EQ(c_getattr(&c, 4, &a), 0);
		CHECK_EQ(a.mode, S_IFREG | 04711);
		CHECK_EQ(a.uid, 1234);
		CHECK_EQ(a.gid, 5678);
		CHECK_EQ(c_walk(&c, 0, 5, "dir"), 0);
		CHECK_EQ(c_getattr(&c, 5, &a), 0);
		CHECK_EQ(a.mode, S_IFDIR | 01777);
		CHECK_EQ(c_walk(&c, 0, 6, ""), 0);
		CHECK_EQ(c_open(&c, 6, O_RDONLY), 0);
		CHECK_EQ(list(6, "link", 4096), i ? 5 : 6); /* f dev fifo link dir suid */
		if (i == 0) {
			CHECK_EQ(c_rename(&c, 0, "suid", 5, "moved"), 0);
			client_end(&c);
			client_start(&c, NULL, dir, 8192, FE_ARGS(option));
		}
	}
	CHECK_EQ(c_unlink(&c, 5, "moved", 0), 0);
	CHECK_EQ(c_unlink(&c, 0, "dir", 0x200), 0);
	if (strcmp(model, "mapped-file") == 0) {
		CHECK_EQ(c_walk(&c, 0, 9, ".virtfs_metadata"), -ENOENT);
		CHECK_EQ(c_mkdir(&c, 0, ".virtfs_metadata", 0700), -ENOENT);
	} else {
		char value[64];

		CHECK_EQ(get_xattr(0, "dev", "user.virtfs.uid", value, sizeof(value)), -ENODATA);
		CHECK_EQ(set_xattr(0, "dev", "user.virtfs.uid", "1234"), -EACCES);
	}
	client_end(&c);
}

static void mapped_xattr(const struct fe_mode *m)
{
	(void)m;
	mapped("mapped-xattr");
}

static void mapped_file(const struct fe_mode *m)
{
	(void)m;
	mapped("mapped-file");
}

static void ids(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct stat st;
	struct attr a;

	if (geteuid() != 0)
		tap_skip("not root");
	client_start(&c, m, dir, 8192,
		FE_ARGS("--security=passthrough", "--squash=root", "--anon-uid=99", "--map-uid=1000:5000:10",
			"--map-gid=0:6000:10"));
	CHECK_EQ(c_mkdir(&c, 0, "a", 0755), 0);
	CHECK_SYS(stat(path_in(dir, "a"), &st));
	CHECK_EQ(st.st_uid, 99);
	CHECK_EQ(st.st_gid, 65534);
	CHECK_EQ(c_walk(&c, 0, 1, "a"), 0);
	CHECK_EQ(set_owner(1, 0700, 1003, 4), 0);
	CHECK_SYS(stat(path_in(dir, "a"), &st));
	CHECK_EQ(st.st_uid, 5003);
	CHECK_EQ(st.st_gid, 6004);
	CHECK_EQ(c_getattr(&c, 1, &a), 0);
	CHECK_EQ(a.uid, 1003);
	CHECK_EQ(a.gid, 4);
	CHECK_EQ(a.mode, S_IFDIR | 0700);
	client_end(&c);
}

/* Two file systems below the root have the same inode numbers; the guest must not take their files for the same. */
static void qids(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct attr a, b;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		tap_skip("no mount namespace");
	CHECK_SYS(mkdir(path_in(dir, "a"), 0755));
	CHECK_SYS(mkdir(path_in(dir, "b"), 0755));
	CHECK_SYS(mount("t", path_in(dir, "a"), "tmpfs", 0, NULL));
	CHECK_SYS(mount("t", path_in(dir, "b"), "tmpfs", 0, NULL));
	host_write(dir, "a/f", "A");
	host_write(dir, "b/f", "B");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "a/f"), 0);
	CHECK_EQ(c_walk(&c, 0, 2, "b/f"), 0);
	CHECK_EQ(c_getattr(&c, 1, &a), 0);
	CHECK_EQ(c_getattr(&c, 2, &b), 0);
	CHECK_EQ(a.path << 16, b.path << 16);
	CHECK(a.path != b.path);
	CHECK_EQ(c_rename(&c, 0, "a", 0, "c"), -EBUSY);
	client_end(&c);
}

/* --- locks, flush --- */

static void host_lock(int fd, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	CHECK_SYS(fcntl(fd, F_OFD_SETLK, &l));
}

static void send_lock(unsigned slot, uint32_t fid, uint64_t start, uint64_t len)
{
	client_use(&c, slot);
	client_begin(&c, TLOCK);
	put_u32(&c, fid);
	put_u8(&c, 1);
	put_u32(&c, 1);
	put_u64(&c, start);
	put_u64(&c, len);
	put_u32(&c, 1);
	put_str(&c, "client");
	client_send(&c);
	client_use(&c, 0);
}

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
	/* the host's */
	client_use(&c, 0);
	CHECK_EQ(c_lock(&c, 2, 2, 0, 0, 0, 1), 0);
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

/* More fids than descriptors: all go on working, also those whose file was renamed by us, or unlinked while open. */
static void limits(const struct fe_mode *m)
{
	enum { N = 120 };
	const char *dir = fe_tmpdir();
	char name[32], got[32];

	client_start(&c, m, dir, 8192, FE_ARGS("--max-files=64", "--max-fids=200"));
	CHECK_EQ(c_mkdir(&c, 0, "d", 0755), 0);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		host_write(dir, path_in("d", name), name);
		CHECK_EQ(c_walk(&c, 0, 1 + i, path_in("d", name)), 0);
	}
	CHECK(fe_process_fds(&c.fe.process) < 64 + 40);
	CHECK_EQ(c_rename(&c, 0, "d", 0, "e"), 0);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++) {
			snprintf(name, sizeof(name), "f%u", i);
			CHECK_EQ(c_walk(&c, 1 + i, 190, ""), 0);
			CHECK_EQ(c_open(&c, 190, O_RDONLY), 0);
			CHECK_EQ(c_read(&c, 190, 0, got, sizeof(got)), strlen(name));
			CHECK_MEM(got, name, strlen(name));
			CHECK_EQ(c_clunk(&c, 190), 0);
		}
	}
	/* open ones keep one descriptor each, so that they survive unlinking */
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		CHECK_EQ(c_open(&c, 1 + i, O_RDWR), 0);
		CHECK_EQ(c_unlink(&c, 0, "nothing", 0), -ENOENT);
		CHECK_SYS(unlink(path_in(dir, path_in("e", name))));
	}
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		guest_is(1 + i, name);
	}
	CHECK(fe_process_fds(&c.fe.process) < 64 + 40);
	for (unsigned i = N + 1; i < 200; i++)
		CHECK_EQ(c_walk(&c, 0, i, ""), 0);
	CHECK_EQ(c_walk(&c, 0, 200, ""), -EMFILE);
	CHECK_EQ(c_clunk(&c, 199), 0);
	CHECK_EQ(c_walk(&c, 0, 200, ""), 0);
	client_end(&c);
}

static void read_only(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();

	host_write(dir, "f", "text");
	client_start(&c, m, dir, 8192, FE_ARGS("--read-only"));
	CHECK_EQ(c_mkdir(&c, 0, "d", 0755), -EROFS);
	CHECK_EQ(c_unlink(&c, 0, "f", 0), -EROFS);
	CHECK_EQ(c_rename(&c, 0, "f", 0, "g"), -EROFS);
	CHECK_EQ(set_xattr(0, "f", "user.x", "y"), -EROFS);
	CHECK_EQ(mknod_at(0, "n", S_IFIFO | 0600, 0, 0), -EROFS);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(set_owner(1, 0, 0, 0), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDWR), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDONLY | O_TRUNC), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	guest_is(1, "text");
	CHECK_EQ(c_write(&c, 1, 0, "x", 1), -EBADF);
	client_begin(&c, TREMOVE);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), -EROFS);
	CHECK_EQ(c_read(&c, 1, 0, dir ? &(char[4]){0} : NULL, 4), -EBADF); /* remove clunks */
	host_is(dir, "f", "text");
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

/* --- 9P2000.u --- */

static void unix_create(
	uint32_t fid, const char *name, uint32_t perm, uint8_t mode, const char *extension, int want)
{
	client_begin(&c, TCREATE);
	put_u32(&c, fid);
	put_str(&c, name);
	put_u32(&c, perm);
	put_u8(&c, mode);
	put_str(&c, extension);
	CHECK_EQ(client_call(&c), want);
}

static unsigned unix_list(uint32_t fid)
{
	uint64_t at = 0;
	unsigned n = 0;

	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREAD);
		put_u32(&c, fid);
		put_u64(&c, at);
		put_u32(&c, 200);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		if (bytes == 0)
			return n;
		at += bytes;
		for (; bytes; n++) {
			uint16_t size = get_u16(&c);

			CHECK((uint32_t)size + 2 <= bytes);
			c.cur->at += size;
			bytes -= size + 2u;
		}
	}
}

static void old_dialect(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char *text;

	host_write(dir, "f", "text");
	client_start(&c, m, dir, 8192, NULL);
	client_session(&c, "9P2000.u");
	CHECK_EQ(c_open(&c, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	client_begin(&c, TSTAT);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u16(&c) + 9u, c.cur->answer);
	CHECK_EQ(get_u16(&c) + 11u, c.cur->answer);
	c.cur->at += 2 + 4 + 13;
	CHECK_EQ(get_u32(&c), 0644);
	c.cur->at += 8;
	CHECK_EQ(get_u64(&c), 4);
	text = get_str(&c);
	CHECK_STR(text, "f");
	free(text);
	client_begin(&c, TOPEN);
	put_u32(&c, 1);
	put_u8(&c, 2);
	CHECK_EQ(client_call(&c), 0);
	guest_is(1, "text");
	CHECK_EQ(c_walk(&c, 0, 2, ""), 0);
	unix_create(2, "d", 0x80000000u | 0755, 0, "", 0);
	CHECK_EQ(host_mode(dir, "d"), S_IFDIR | 0755);
	CHECK_EQ(c_walk(&c, 0, 3, ""), 0);
	unix_create(3, "s", 0x02000000u | 0777, 0, "target", 0);
	CHECK_EQ(host_mode(dir, "s"), S_IFLNK | 0777);
	CHECK_EQ(c_walk(&c, 0, 4, ""), 0);
	unix_create(4, "l", 0x01000000u, 0, "1\n", 0);
	host_is(dir, "l", "text");
	CHECK_EQ(c_walk(&c, 0, 5, ""), 0);
	unix_create(5, "f", 0600, 2, "", -EEXIST);
	unix_create(5, "n", 0600, 2, "", 0);
	CHECK_EQ(c_write(&c, 5, 0, "new", 3), 3);
	host_is(dir, "n", "new");
	CHECK_EQ(c_walk(&c, 0, 6, ""), 0);
	client_begin(&c, TOPEN);
	put_u32(&c, 6);
	put_u8(&c, 0);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(unix_list(6), 5); /* f d s l n */
	client_begin(&c, TWSTAT);
	put_u32(&c, 5);
	put_u16(&c, 0);
	put_u16(&c, 0);
	put_u16(&c, 0xffff);
	put_u32(&c, UINT32_MAX);
	for (unsigned i = 0; i < 13; i++)
		put_u8(&c, 0xff);
	put_u32(&c, 0640);
	put_u32(&c, UINT32_MAX);
	put_u32(&c, 1000000000);
	put_u64(&c, 2);
	put_str(&c, "renamed");
	for (unsigned i = 0; i < 4; i++)
		put_str(&c, "");
	for (unsigned i = 0; i < 3; i++)
		put_u32(&c, UINT32_MAX);
	CHECK_EQ(client_call(&c), 0);
	host_is(dir, "renamed", "ne");
	CHECK_EQ(host_mode(dir, "renamed"), S_IFREG | 0640);
	client_end(&c);
}

/* --- reconnect --- */

/* The front-end goes with requests in flight and comes back: a new session on the same tree, no descriptors left. */
static void reconnect(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char socket[256], option[256];
	unsigned fds = 0;
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	host_lock(fd, F_WRLCK, 0, 0);
	snprintf(socket, sizeof(socket), "%s/sock", fe_tmpdir());
	snprintf(option, sizeof(option), "--path=%s", dir);
	memset(&c, 0, sizeof(c));
	fe_init(&c.fe, m);
	fe_spawn_path(&c.fe, socket, FE_ARGS("9p", option, "--threads=2"));
	for (unsigned round = 0; round < 3; round++) {
		fe_handshake(&c.fe);
		fe_memory_default(&c.fe);
		c.q = fe_queue_up(&c.fe, 0, 128);
		c.msize = c.room = 8192;
		for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
			c.m[i] = (struct message){.tag = (uint16_t)i};
			c.m[i].tx = fe_alloc(&c.fe, c.msize, 16, NULL);
			c.m[i].rx = fe_alloc(&c.fe, c.msize, 16, NULL);
		}
		client_session(&c, "9P2000.L");
		CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
		CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
		guest_is(1, "locked");
		if (round == 0)
			fds = fe_process_fds(&c.fe.process);
		CHECK_EQ(fe_process_fds(&c.fe.process), fds);
		send_lock(1, 1, 0, 1);
		for (unsigned i = 2; i < 10; i++) {
			client_use(&c, i);
			client_begin(&c, TFSYNC);
			put_u32(&c, 1);
			put_u32(&c, 0);
			client_send(&c);
		}
		client_use(&c, 0);
		if (round < 2) {
			struct fe_process p = c.fe.process;

			c.fe.process.pid = 0;
			fe_close(&c.fe);
			fe_init(&c.fe, m);
			c.fe.process = p;
			fe_connect(&c.fe, socket);
		}
	}
	fe_process_signal(&c.fe.process, SIGTERM);
	fe_process_exits(&c.fe.process, 0);
	fe_close(&c.fe);
	close(fd);
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("9p", "--socket-path=x", row[0], row[1]));
	fe_process_logs(&p, row[2]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][3] = {
		{"--path=/nonexistent/x", NULL, "--path=/nonexistent/x: No such file"},
		{"--path=/etc/passwd", NULL, "--path=/etc/passwd: Not a directory"},
		{"--path=/", "--tag=", "--tag="},
		{"--path=/", "--security=high", "--security=high"},
		{"--path=/", "--msize=2M", "--msize=2M"},
		{"--path=/", "--map-uid=1:2", "--map-uid=1:2: not of the form GUEST:HOST:COUNT"},
		{"--path=/", "--map-gid=1:2:0", "--map-gid=1:2:0: out of range"},
		{"--path=/", "--fmode=888", "--fmode=888: not a mode"},
	};

	fe_each_mode("works", works);
	fe_each_mode("messages of 1 MiB", large);
	fe_each_mode("random reads, writes and truncations", model);
	fe_each_layout("a directory of 3000 entries", many);
	fe_case("a directory that changes while it is read", changing, NULL);
	fe_case("a file that is unlinked while open", unlinked, NULL);
	fe_case("rename, link and remove by fid", by_fid, NULL);
	fe_case("names that are refused", names, NULL);
	fe_case("links that lead outside", links, NULL);
	fe_case("links that come and go", races, NULL);
	fe_case("special files are not opened", special, NULL);
	fe_case("extended attributes", xattrs, NULL);
	fe_case("mapped-xattr", mapped_xattr, NULL);
	fe_case("mapped-file", mapped_file, NULL);
	fe_case("ids", ids, NULL);
	fe_case("several file systems", qids, NULL);
	fe_each_layout("locks", locks);
	fe_each_mode("flush", flushes);
	fe_each_mode("stop while a lock waits", stop_waiting);
	fe_each_mode("hostile", hostile);
	fe_case("versions", versions, NULL);
	fe_case("a tag used twice", tag_reuse, NULL);
	fe_case("more fids than descriptors", limits, NULL);
	fe_case("read-only", read_only, NULL);
	fe_each_layout("9P2000.u", old_dialect);
	fe_each_mode("reconnect", reconnect);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][1] ? bad[i][1] : bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
