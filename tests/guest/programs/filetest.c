/* SPDX-License-Identifier: MIT */
/*
 * What programs do with files of a shared folder, checked.
 *
 * usage: filetest random FILE STEPS SEED     reads, writes, truncations, mappings at random, against a copy in memory
 *        filetest hold FILE START LEN        takes a write lock, prints "held", keeps it until its input ends
 *        filetest try FILE START LEN         takes a write lock without waiting: 0, or 2 if somebody else has it
 *        filetest wait FILE START LEN        the same, waiting
 *        filetest whose FILE START LEN       0 if nobody has a lock there, 2 if somebody has
 *        filetest xattr FILE                 sets, reads, lists and removes extended attributes
 *        filetest acl DIR                    access and default ACLs hold
 *        filetest readers FILE               1000 may read it by the ACL that "acl" gave it, and 1001 not
 *        filetest swap DIR SECONDS           exchanges DIR/d and DIR/link all the time
 *        filetest peek DIR SECONDS           opens DIR/d/f all the time: never finds other content than "inside"
 *        filetest posix DIR                  small rules of rename, link, unlink, append, times
 *
 * Exit status 0: all was right.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define FAIL(...)                                        \
	do {                                             \
		printf("filetest, line %d: ", __LINE__); \
		printf(__VA_ARGS__);                     \
		printf("\n");                            \
		exit(1);                                 \
	} while (0)
#define MUST(call)                                              \
	({                                                      \
		long must_ = (long)(call);                      \
		if (must_ < 0)                                  \
			FAIL("%s: %s", #call, strerror(errno)); \
		must_;                                          \
	})
#define REFUSED(call, err)                                                                    \
	do {                                                                                  \
		errno = 0;                                                                    \
		if ((call) >= 0 || errno != (err))                                            \
			FAIL("%s: wanted %s, got %s", #call, strerror(err), strerror(errno)); \
	} while (0)

static uint64_t seed;

static uint32_t draw(uint32_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(seed >> 33) % below;
}

/* --- random --- */

enum { MAX_FILE = 1 << 20, MAX_IO = 80000 };

static uint8_t want[MAX_FILE], got[MAX_FILE];

static void same(const uint8_t *p, uint32_t at, uint32_t n, const char *how)
{
	for (uint32_t i = 0; i < n; i++) {
		if (p[i] != want[at + i])
			FAIL("%s: byte %u is %02x instead of %02x", how, at + i, p[i], want[at + i]);
	}
}

static void by_mapping(int fd, uint32_t at, uint32_t n)
{
	uint32_t page = at & ~4095u;
	uint8_t *p;

	if (n == 0)
		return;
	p = mmap(NULL, n + at - page, PROT_READ, MAP_PRIVATE, fd, page);
	if (p == MAP_FAILED)
		FAIL("mmap: %s", strerror(errno));
	same(p + (at - page), at, n, "mapping");
	munmap(p, n + at - page);
}

static int random_io(const char *path, unsigned steps)
{
	int fd = (int)MUST(open(path, O_CREAT | O_TRUNC | O_RDWR, 0644));
	uint32_t size = 0;

	for (unsigned i = 0; i < steps; i++) {
		uint32_t at = draw(MAX_FILE - MAX_IO), n = draw(MAX_IO), what = draw(100);
		uint32_t there = at >= size ? 0 : n < size - at ? n : size - at;
		struct stat st;

		if (what < 40) {
			for (uint32_t k = 0; k < n; k++)
				want[at + k] = (uint8_t)(seed >> (k % 32)) ^ (uint8_t)k;
			if (MUST(pwrite(fd, want + at, n, at)) != n)
				FAIL("a short write");
			size = n && at + n > size ? at + n : size;
		} else if (what < 70) {
			if (MUST(pread(fd, got, n, at)) != there)
				FAIL("a short read at %u of %u", at, size);
			same(got, at, there, "read");
		} else if (what < 80) {
			by_mapping(fd, at, there);
		} else if (what < 88) {
			MUST(ftruncate(fd, at));
			if (at < size)
				memset(want + at, 0, size - at);
			size = at;
		} else if (what < 92) {
			MUST(fsync(fd));
		} else {
			close(fd);
			fd = (int)MUST(open(path, O_RDWR));
			MUST(fstat(fd, &st));
			if (st.st_size != size)
				FAIL("size %lld instead of %u", (long long)st.st_size, size);
		}
	}
	if (MUST(pread(fd, got, MAX_FILE, 0)) != size)
		FAIL("the file is not %u long at the end", size);
	same(got, 0, size, "at the end");
	close(fd);
	return 0;
}

/* --- locks --- */

static int lock(const char *what, const char *path, off_t start, off_t len)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
	int fd = (int)MUST(open(path, O_RDWR)), wait = strcmp(what, "try") != 0;
	char c;

	if (strcmp(what, "whose") == 0) {
		MUST(fcntl(fd, F_GETLK, &l));
		return l.l_type == F_UNLCK ? 0 : 2;
	}
	if (fcntl(fd, wait ? F_SETLKW : F_SETLK, &l) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			FAIL("lock: %s", strerror(errno));
		return 2;
	}
	if (strcmp(what, "hold") == 0) {
		printf("held\n");
		fflush(stdout);
		while (read(0, &c, 1) > 0)
			;
	}
	return 0;
}

/* --- extended attributes and ACLs --- */

static int xattrs(const char *path)
{
	char value[4096], list[4096];
	ssize_t n;

	MUST(setxattr(path, "user.one", "first", 5, 0));
	REFUSED(setxattr(path, "user.one", "x", 1, XATTR_CREATE), EEXIST);
	REFUSED(setxattr(path, "user.three", "x", 1, XATTR_REPLACE), ENODATA);
	n = MUST(getxattr(path, "user.one", value, sizeof(value)));
	if (n != 5 || memcmp(value, "first", 5) != 0)
		FAIL("user.one is not what it was");
	REFUSED(getxattr(path, "user.one", value, 2), ERANGE);
	REFUSED(getxattr(path, "user.none", value, sizeof(value)), ENODATA);
	memset(value, 'v', 3000);
	MUST(setxattr(path, "user.long", value, 3000, 0));
	memset(value, 0, sizeof(value));
	if (MUST(getxattr(path, "user.long", value, sizeof(value))) != 3000 || value[2999] != 'v')
		FAIL("user.long is not what it was");
	n = MUST(listxattr(path, list, sizeof(list)));
	if (!memmem(list, (size_t)n, "user.one", 9) || !memmem(list, (size_t)n, "user.long", 10))
		FAIL("the list lacks names");
	MUST(removexattr(path, "user.one"));
	REFUSED(getxattr(path, "user.one", value, sizeof(value)), ENODATA);
	return 0;
}

struct acl { /* as in extended attributes of Linux: version 2 */
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[5];
};

static const struct acl private_acl = {2,
	{{1, 6, UINT32_MAX}, {2, 4, 1000}, {4, 0, UINT32_MAX}, {0x10, 4, UINT32_MAX}, {0x20, 0, UINT32_MAX}}};

static int can_read_as(const char *path, uid_t uid)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
			_exit(2);
		_exit(open(path, O_RDONLY) < 0);
	}
	waitpid(pid, &status, 0);
	return status == 0;
}

static int readers(const char *path)
{
	struct acl back;

	if (MUST(getxattr(path, "system.posix_acl_access", &back, sizeof(back))) != sizeof(back) ||
		memcmp(&back, &private_acl, sizeof(back)) != 0)
		FAIL("the ACL is not what it was");
	if (!can_read_as(path, 1000) || can_read_as(path, 1001))
		FAIL("the ACL does not hold");
	return 0;
}

static int acls(const char *dir)
{
	char path[PATH_MAX], sub[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/acl", dir);
	close((int)MUST(open(path, O_CREAT | O_WRONLY, 0600)));
	MUST(setxattr(path, "system.posix_acl_access", &private_acl, sizeof(private_acl), 0));
	MUST(stat(path, &st));
	if ((st.st_mode & 0777) != 0640) /* the mask stands in for the group */
		FAIL("mode %o", st.st_mode);
	readers(path);
	snprintf(sub, sizeof(sub), "%s/acldir", dir);
	MUST(mkdir(sub, 0755));
	MUST(setxattr(sub, "system.posix_acl_default", &private_acl, sizeof(private_acl), 0));
	snprintf(path, sizeof(path), "%s/acldir/new", dir);
	close((int)MUST(open(path, O_CREAT | O_WRONLY, 0666)));
	if (!can_read_as(path, 1000) || can_read_as(path, 1001))
		FAIL("the default ACL does not hold");
	return 0;
}

/* --- races --- */

static int over(time_t end)
{
	return time(NULL) >= end;
}

static int swap(const char *dir, int seconds)
{
	time_t end = time(NULL) + seconds;
	char a[PATH_MAX], b[PATH_MAX], c[PATH_MAX];
	unsigned n = 0;

	snprintf(a, sizeof(a), "%s/d", dir);
	snprintf(b, sizeof(b), "%s/link", dir);
	snprintf(c, sizeof(c), "%s/other", dir);
	for (; !over(end); n++) {
		MUST(rename(a, c));
		MUST(rename(b, a));
		MUST(rename(a, b));
		MUST(rename(c, a));
	}
	printf("%u exchanges\n", n);
	return n == 0;
}

static int peek(const char *dir, int seconds)
{
	unsigned hits = 0, misses = 0;
	time_t end = time(NULL) + seconds;
	char path[PATH_MAX], text[16];

	snprintf(path, sizeof(path), "%s/d/f", dir);
	while (!over(end)) {
		int fd = open(path, O_RDONLY);
		ssize_t n;

		if (fd < 0) {
			misses++;
			continue;
		}
		n = read(fd, text, sizeof(text));
		if (n != 6 || memcmp(text, "inside", 6) != 0)
			FAIL("found %.*s", (int)n, text);
		hits++;
		close(fd);
	}
	printf("%u found, %u not\n", hits, misses);
	return hits == 0;
}

/* --- small rules --- */

static void put(const char *name, const char *text)
{
	int fd = (int)MUST(open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644));

	MUST(write(fd, text, strlen(text)));
	close(fd);
}

static void holds(const char *name, const char *text)
{
	int fd = (int)MUST(open(name, O_RDONLY));
	char buf[64] = "";

	MUST(read(fd, buf, sizeof(buf) - 1));
	if (strcmp(buf, text) != 0)
		FAIL("%s holds \"%s\", not \"%s\"", name, buf, text);
	close(fd);
}

static int posix(const char *dir)
{
	char name[300];
	struct stat a, b;
	int fd, fd2;

	MUST(chdir(dir));
	MUST(mkdir("p", 0755));
	MUST(chdir("p"));
	put("a", "A");
	put("b", "B");
	fd = (int)MUST(open("b", O_RDONLY));
	MUST(rename("a", "b"));
	holds("b", "A");
	if (MUST(read(fd, name, 1)) != 1 || name[0] != 'B')
		FAIL("a file that was replaced lost its content");
	close(fd);
	MUST(link("b", "c"));
	MUST(stat("b", &a));
	MUST(stat("c", &b));
	if (a.st_ino != b.st_ino || b.st_nlink != 2)
		FAIL("a hard link is another file");
	REFUSED(link("b", "c"), EEXIST);
	MUST(mkdir("d", 0755));
	MUST(mkdir("d/sub", 0755));
	REFUSED(rmdir("d"), ENOTEMPTY);
	REFUSED(rename("b", "d"), EISDIR);
	REFUSED(rename("d", "b"), ENOTDIR);
	REFUSED(rename("d", "d/sub/x"), EINVAL);
	REFUSED(unlink("d"), EISDIR);
	REFUSED(open("b", O_CREAT | O_EXCL | O_WRONLY, 0644), EEXIST);
	REFUSED(open("none/x", O_CREAT | O_WRONLY, 0644), ENOENT);
	memset(name, 'n', 255);
	name[255] = '\0';
	put(name, "long");
	holds(name, "long");
	name[255] = 'n';
	name[256] = '\0';
	REFUSED(open(name, O_RDONLY), ENAMETOOLONG);
	/* appends from two descriptors do not overwrite each other */
	fd = (int)MUST(open("log", O_CREAT | O_APPEND | O_WRONLY, 0644));
	fd2 = (int)MUST(open("log", O_APPEND | O_WRONLY));
	MUST(write(fd, "1", 1));
	MUST(write(fd2, "2", 1));
	MUST(write(fd, "3", 1));
	close(fd);
	close(fd2);
	holds("log", "123");
	MUST(mknod("sock", S_IFSOCK | 0600, 0));
	MUST(symlink("nowhere", "dangling"));
	REFUSED(open("dangling", O_RDONLY), ENOENT);
	MUST(lstat("dangling", &a));
	if (!S_ISLNK(a.st_mode) || a.st_size != 7)
		FAIL("a symbolic link is no link");
	MUST(truncate("b", 100000));
	MUST(stat("b", &a));
	if (a.st_size != 100000 || a.st_blocks > 100)
		FAIL("no hole");
	MUST(open(".", O_RDONLY | O_DIRECTORY));
	/* the protocol has no message for it, so Linux says so; programs then take a name */
	REFUSED(open(".", O_TMPFILE | O_RDWR, 0600), EOPNOTSUPP);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (strcmp(what, "random") == 0 && argc == 5) {
		seed = strtoull(argv[4], NULL, 0);
		return random_io(argv[2], (unsigned)atoi(argv[3]));
	}
	if (strcmp(what, "xattr") == 0)
		return xattrs(argv[2]);
	if (strcmp(what, "acl") == 0)
		return acls(argv[2]);
	if (strcmp(what, "readers") == 0)
		return readers(argv[2]);
	if (strcmp(what, "posix") == 0)
		return posix(argv[2]);
	if (strcmp(what, "swap") == 0 && argc == 4)
		return swap(argv[2], atoi(argv[3]));
	if (strcmp(what, "peek") == 0 && argc == 4)
		return peek(argv[2], atoi(argv[3]));
	if (argc == 5)
		return lock(what, argv[2], atoll(argv[3]), atoll(argv[4]));
	fprintf(stderr, "usage: see the source\n");
	return 1;
}
