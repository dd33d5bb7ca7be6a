/* SPDX-License-Identifier: MIT */
/* The 9p device: extended attributes, owners, kinds of files that the host does not have, numbers of files. */
#include "9p-rig.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

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
	CHECK_EQ(set_xattr(0, "f", "user.color", ""), 0);
	CHECK_EQ(get_xattr(0, "f", "user.color", value, sizeof(value)), 0);
	CHECK_EQ(set_xattr_by(0, "f", "user.color", "", XATTR_REPLACE), 0); /* removes it */
	CHECK_EQ(get_xattr(0, "f", "user.color", value, sizeof(value)), -ENODATA);
	CHECK_EQ(set_xattr_by(0, "f", "user.color", "", XATTR_REPLACE), -ENODATA);
	/* an ACL that says no more than the mode */
	CHECK_EQ(set_xattr(0, "f", "system.posix_acl_access", ""), 0);
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
	if (strcmp(model, "mapped-file") == 0) {
		/* the host removes a file; what was kept for it is not in the way */
		CHECK_EQ(mknod_at(5, "lost", S_IFREG | 0600, 0, 0), 0);
		CHECK_EQ(mknod_at(5, "found", S_IFREG | 0600, 0, 0), 0);
		CHECK_SYS(unlink(path_in(dir, "dir/lost")));
		CHECK_EQ(c_unlink(&c, 0, "dir", 0x200), -ENOTEMPTY);
		CHECK_SYS(access(path_in(dir, "dir/.virtfs_metadata/lost"), F_OK));
		CHECK_EQ(c_unlink(&c, 5, "found", 0), 0);
	}
	CHECK_EQ(c_unlink(&c, 0, "dir", 0x200), 0);
	CHECK(access(path_in(dir, "dir"), F_OK) < 0);
	if (strcmp(model, "mapped-file") == 0) {
		CHECK_EQ(c_walk(&c, 0, 9, ".virtfs_metadata"), -ENOENT);
		CHECK_EQ(c_mkdir(&c, 0, ".virtfs_metadata", 0700), -ENOENT);
		client_begin(&c, TATTACH);
		put_u32(&c, 9);
		put_u32(&c, UINT32_MAX);
		put_str(&c, "");
		put_str(&c, "/.virtfs_metadata");
		put_u32(&c, 0);
		CHECK_EQ(client_call(&c), -ENOENT);
	} else {
		char value[64];

		CHECK_EQ(set_xattr(0, "dev", "mode", "none"), -EOPNOTSUPP);
		CHECK_EQ(set_xattr(0, "dev", "system.posix_acl_access", ""), 0);
		CHECK_EQ(get_xattr(0, "dev", "system.posix_acl_access", value, sizeof(value)), -ENODATA);
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

/* Everybody's files belong to one, whatever they ask for; the guest sees whose they are. */
static void squash_all(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct stat st;
	struct attr a;

	if (geteuid() != 0)
		tap_skip("not root");
	client_start(&c, m, dir, 8192, FE_ARGS("--squash=all", "--anon-uid=99", "--anon-gid=98"));
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "f", O_RDWR, 0640), 0);
	CHECK_SYS(stat(path_in(dir, "f"), &st));
	CHECK_EQ(st.st_uid, 99);
	CHECK_EQ(st.st_gid, 98);
	CHECK_EQ(set_owner(1, 0600, 1003, 4), 0);
	CHECK_SYS(stat(path_in(dir, "f"), &st));
	CHECK_EQ(st.st_uid, 99);
	CHECK_EQ(st.st_gid, 98);
	CHECK_EQ(st.st_mode, S_IFREG | 0600);
	CHECK_EQ(c_getattr(&c, 1, &a), 0);
	CHECK_EQ(a.uid, 99);
	CHECK_EQ(a.gid, 98);
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

/* What the file system has; and nobody is asked who he is. */
static void statfs_and_auth(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct statfs st;

	client_start(&c, m, dir, 8192, NULL);
	client_begin(&c, TSTATFS);
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), 0);
	CHECK_SYS(statfs(dir, &st));
	CHECK_EQ(get_u32(&c), 0x01021997);
	CHECK_EQ(get_u32(&c), st.f_bsize);
	CHECK_EQ(get_u64(&c), st.f_blocks);
	c.cur->at += 4 * 8 + 8;
	CHECK_EQ(get_u32(&c), 255);
	CHECK_EQ(c.cur->at, c.cur->answer);
	client_begin(&c, TAUTH);
	put_u32(&c, 9);
	put_str(&c, "root");
	put_str(&c, "");
	put_u32(&c, 0);
	CHECK_EQ(client_call(&c), -EOPNOTSUPP);
	CHECK_EQ(c_clunk(&c, 9), -EBADF);
	client_end(&c);
}

int main(void)
{
	fe_case("extended attributes", xattrs, NULL);
	fe_case("mapped-xattr", mapped_xattr, NULL);
	fe_case("mapped-file", mapped_file, NULL);
	fe_case("ids", ids, NULL);
	fe_case("squash", squash_all, NULL);
	fe_case("several file systems", qids, NULL);
	fe_case("statfs, auth", statfs_and_auth, NULL);
	return tap_done();
}
