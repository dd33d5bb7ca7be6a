/* SPDX-License-Identifier: MIT */
/*
 * Open files: open, create, read, write, fsync, clunk. Data goes straight between the file and the guest's memory. What
 * the page cache has is read and written in the loop (RWF_NOWAIT, as far as the file system can); the rest is done by the
 * pool.
 *
 * Large transfers are one copy and little else (tests/bench, the lines with "floor"). Measured and not done: threads that take
 * chunks of a large read beside the loop. A read of 1 MiB that is alone took 114 us instead of 168 on an idle host of two
 * processors, and more processor time; on a busy one the loop, and with it all requests, waited for threads that were not
 * scheduled. Several large requests at once go to the pool anyway. Writes to one file exclude each other in the kernel.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/xattr.h>

enum {
	QUICK_MAX = 128 << 10, /* bytes that the loop copies while other requests wait */
	LARGE_BLOCKS = 16384,  /* of 512 bytes */
	SLOW_NS = 300000, /* a transfer that took longer, and half a nanosecond for each byte, had to wait */
	SLOW_PERIOD_NS = 500000000, /* after which it is tried again */
};

/* Flags of Tlopen and Tlcreate (those of Linux on most machines) that reach the host. */
static const struct {
	uint32_t wire;
	int host;
} flag_map[] = {
	{01000, O_TRUNC},
	{02000, O_APPEND},
	{010000, O_DSYNC},
	{0200000, O_DIRECTORY},
	{0400000, O_NOFOLLOW},
	{01000000, O_NOATIME},
	{04000000, O_SYNC},
};

enum { WIRE_ACCESS = 3, WIRE_EXCL = 0200 };

static int flags_of(uint32_t wire)
{
	static const int access[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY};
	int flags = access[wire & WIRE_ACCESS];

	for (unsigned i = 0; i < ARRAY_SIZE(flag_map); i++)
		flags |= wire & flag_map[i].wire ? flag_map[i].host : 0;
	return flags;
}

int p9_open_check(const struct p9 *s, int flags)
{
	bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	return s->read_only && changes ? -EROFS : 0;
}

/* What the guest has for a kind: only files and directories are ever opened. */
static int kind_check(const struct p9_request *r, const struct p9_node *n, const struct statx *st)
{
	struct statx seen = *st;

	if (n->type == S_IFLNK)
		return -ELOOP;
	if (n->type != S_IFREG && n->type != S_IFDIR)
		return -ENXIO;
	if (!p9_mapped(r->s) || n->type == S_IFDIR)
		return 0;
	p9_map_stat(r->s, n->fd, -1, NULL, &seen);
	if (S_ISREG(seen.stx_mode))
		return 0;
	return S_ISLNK(seen.stx_mode) ? -ELOOP : -ENXIO;
}

/* Opens the fid's node; *st is then its state. */
int p9_fid_open(struct p9_request *r, int flags, struct statx *st)
{
	struct p9_fid *f = r->fid[0];
	bool dir = f->node->type == S_IFDIR;
	int err = p9_open_check(r->s, flags), fd;

	if (err == 0 && f->kind != P9_PATH)
		err = -EBADF;
	if (err == 0)
		err = p9_stat(f->node->fd, st);
	if (err == 0)
		err = kind_check(r, f->node, st);
	if (err < 0)
		return err;
	if (r->quick && (flags & O_TRUNC))
		return P9_LATER;
	if (dir)
		flags = (flags & ~O_NOFOLLOW) | O_DIRECTORY;
	/* O_NONBLOCK: not to wait for the holder of a lease */
	fd = p9_reopen(f->node->fd, (flags & ~O_NOFOLLOW) | O_NONBLOCK);
	if (fd == -EAGAIN && r->quick)
		return P9_LATER;
	if (fd == -EAGAIN)
		fd = p9_reopen(f->node->fd, flags & ~O_NOFOLLOW);
	if (fd < 0)
		return fd;
	f->fd = fd;
	f->flags = flags & ~O_NOFOLLOW;
	f->kind = dir ? P9_DIR : P9_FILE;
	f->dir_at = f->dir_start = 0;
	if ((flags & O_TRUNC) && !dir)
		p9_stat(fd, st);
	return 0;
}

void p9_put_opened(struct p9_request *r, const struct statx *st)
{
	struct p9_qid q;

	p9_qid_of(r->s, st, &q);
	p9_put_qid(&r->body, &q);
	p9_put_u32(&r->body, 0); /* iounit: as much as fits */
}

/* fid[4] flags[4] → qid[13] iounit[4] */
int p9_op_lopen(struct p9_request *r)
{
	int flags = flags_of(p9_get_u32(&r->in));
	struct statx st;
	int err;

	if (r->in.bad)
		return -EINVAL;
	err = p9_fid_open(r, flags, &st);
	if (err)
		return err;
	p9_put_opened(r, &st);
	return 0;
}

/* A file that is there already, in place of a new one. */
static int open_existing(struct p9_request *r, const char *name, int flags, struct statx *st)
{
	struct p9_node *n;
	int fd = p9_lookup(r->fid[0]->node->fd, name, 0), err;

	if (fd < 0)
		return fd;
	err = p9_stat(fd, st);
	if (err < 0) {
		close(fd);
		return err;
	}
	err = p9_node_new(&n, fd, st);
	if (err < 0)
		return err;
	r->made = n;
	if (n->type == S_IFDIR)
		return -EISDIR;
	err = kind_check(r, n, st);
	return err < 0 ? err : p9_reopen(n->fd, flags & ~O_NOFOLLOW);
}

/* A file just made: its owner, its node. */
static int adopt(
	struct p9_request *r, const char *name, int fd, uint32_t mode, uint32_t gid, struct statx *st)
{
	struct p9_made made = {.uid = r->fid[0]->uid, .gid = gid, .mode = S_IFREG | (mode & 07777)};
	int dir = r->fid[0]->node->fd;
	int path = p9_reopen(fd, O_PATH), err;

	if (path < 0)
		return path;
	err = p9_map_made(r->s, path, dir, name, &made);
	if (err == 0)
		err = p9_stat(path, st);
	if (err < 0) {
		close(path);
		return err;
	}
	return p9_node_new(&r->made, path, st);
}

/* Makes and opens a file; the fid becomes the file's (r->made). */
int p9_fid_create(struct p9_request *r, const char *name, int flags, bool excl, uint32_t mode, uint32_t gid,
	struct statx *st)
{
	struct p9_fid *f = r->fid[0];
	int dir = f->node->fd, fd, err = 0;

	if (f->kind != P9_PATH || f->node->type != S_IFDIR)
		return f->kind == P9_PATH ? -ENOTDIR : -EBADF;
	flags &= ~O_DIRECTORY;
	p9_own_umask();
	fd = p9_create(dir, name, flags & ~O_TRUNC, p9_map_mode(r->s, S_IFREG | (mode & 07777)));
	if (fd == -EEXIST && !excl) {
		fd = open_existing(r, name, flags, st);
	} else if (fd >= 0) {
		err = adopt(r, name, fd, mode, gid, st);
		if (err < 0)
			unlinkat(dir, name, 0);
	}
	if (fd >= 0 && err < 0) {
		close(fd);
		fd = err;
	}
	if (fd < 0)
		return fd;
	f->fd = fd;
	f->flags = flags & ~(O_NOFOLLOW | O_TRUNC);
	f->kind = P9_FILE;
	return 0;
}

/* fid[4] name[s] flags[4] mode[4] gid[4] → qid[13] iounit[4] */
int p9_op_lcreate(struct p9_request *r)
{
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);
	uint32_t flags = p9_get_u32(&r->in);
	uint32_t mode = p9_get_u32(&r->in);
	uint32_t gid = p9_get_u32(&r->in);
	struct statx st;

	if (err < 0 || r->in.bad)
		return err < 0 ? err : -EINVAL;
	err = p9_fid_create(r, name, flags_of(flags), flags & WIRE_EXCL, mode, gid, &st);
	if (err < 0)
		return err;
	p9_put_opened(r, &st);
	return 0;
}

/* Data */

/* A transfer of at most max bytes between the file and *c, which moves. Bytes; -errno when there were none. */
static ssize_t transfer(
	struct p9_request *r, struct cursor *c, size_t max, uint64_t at, bool write, int flags)
{
	int fd = r->fid[0]->fd;
	struct iovec v[IOV_MAX];
	size_t done = 0;

	if (at > INT64_MAX - max)
		return -EINVAL;
	while (done < max) {
		unsigned n = cursor_iovec(c, max - done, v, ARRAY_SIZE(v));
		ssize_t moved = write ? pwritev2(fd, v, (int)n, (off_t)(at + done), flags)
				      : preadv2(fd, v, (int)n, (off_t)(at + done), flags);

		if (moved < 0 && errno == EINTR)
			continue;
		if (moved < 0 && done == 0)
			return -errno;
		if (moved <= 0)
			break;
		cursor_skip(c, (size_t)moved);
		done += (size_t)moved;
	}
	return (ssize_t)done;
}

/*
 * A transfer in the loop. Where a local file system cannot say that it would have to wait (buffered writes to ext4, anything
 * in tmpfs) it is done all the same, unless the last two took long: they hold up the others once in a while, and all that
 * follow go to the pool. P9_LATER: not here.
 */
static ssize_t quick_transfer(struct p9_request *r, struct cursor *c, size_t max, uint64_t at, bool write)
{
	bool *blind = write ? &r->fid[0]->blind_write : &r->fid[0]->blind_read;
	uint64_t start;
	ssize_t n;

	if (max > QUICK_MAX && virtqueue_pending(r->e->queue))
		return -EAGAIN;
	if (!*blind) {
		n = transfer(r, c, max, at, write, RWF_NOWAIT);
		if (n != -EOPNOTSUPP)
			return n;
		*blind = true;
		r->fid[0]->remote = !p9_fs_is_local(r->fid[0]->fd);
	}
	if (r->fid[0]->remote)
		return -EAGAIN;
	start = time_ns();
	if (start < r->s->slow_until)
		return -EAGAIN;
	n = transfer(r, c, max, at, write, 0);
	if (time_ns() - start <= SLOW_NS + max / 2)
		r->s->slow = 0;
	else if (++r->s->slow > 1) /* once it may have been the scheduler */
		r->s->slow_until = start + SLOW_PERIOD_NS;
	return n;
}

static int read_xattr(struct p9_request *r, uint64_t at, uint32_t count)
{
	const struct p9_xattr *x = r->fid[0]->xattr;
	size_t n = at < x->size ? MIN(count, x->size - at) : 0;

	p9_put_u32(&r->body, (uint32_t)n);
	cursor_put(&r->body, x->data + (n ? at : 0), n);
	return 0;
}

static int read_file(struct p9_request *r, uint64_t at, uint32_t count)
{
	struct cursor data = r->body;
	ssize_t n;

	cursor_skip(&data, 4);
	n = r->quick ? quick_transfer(r, &data, count, at, false) : transfer(r, &data, count, at, false, 0);
	if (r->quick && n == -EAGAIN)
		return P9_LATER;
	if (n < 0)
		return (int)n;
	/* short: the cache had no more, or the file ends here */
	if (r->quick && n > 0 && (size_t)n < count && !r->fid[0]->blind_read) {
		struct stat st;

		if (fstat(r->fid[0]->fd, &st) < 0 || at + (size_t)n < (uint64_t)st.st_size)
			return P9_LATER;
	}
	p9_put_u32(&r->body, (uint32_t)n);
	cursor_skip(&r->body, (size_t)n);
	return 0;
}

/* fid[4] offset[8] count[4] → count[4] data[count] */
int p9_op_read(struct p9_request *r)
{
	uint64_t at = p9_get_u64(&r->in);
	uint32_t count = p9_get_u32(&r->in);

	if (r->in.bad)
		return -EINVAL;
	if (r->body.left < 4)
		return -EMSGSIZE;
	count = (uint32_t)MIN(count, r->body.left - 4);
	switch (r->fid[0]->kind) {
	case P9_FILE:
		return read_file(r, at, count);
	case P9_XATTR_GET:
		return read_xattr(r, at, count);
	case P9_DIR:
		return r->s->dialect == P9_2000U ? p9_read_dir_stats(r, at, count) : -EISDIR;
	default:
		return -EBADF;
	}
}

static int write_xattr(struct p9_request *r, uint64_t at, uint32_t count)
{
	struct p9_xattr *x = r->fid[0]->xattr;

	if (at > x->size || count > x->size - at)
		return -ENOSPC;
	cursor_get(&r->in, x->data + at, count);
	x->done = MAX(x->done, at + count);
	p9_put_u32(&r->body, count);
	return 0;
}

static int write_file(struct p9_request *r, uint64_t at, uint32_t count)
{
	ssize_t n = r->quick ? quick_transfer(r, &r->in, count, at, true)
			     : transfer(r, &r->in, count, at, true, 0);

	if (r->quick && n == -EAGAIN)
		return P9_LATER;
	if (n < 0)
		return (int)n;
	p9_put_u32(&r->body, (uint32_t)n);
	return 0;
}

/* fid[4] offset[8] count[4] data[count] → count[4] */
int p9_op_write(struct p9_request *r)
{
	uint64_t at = p9_get_u64(&r->in);
	uint32_t count = p9_get_u32(&r->in);

	if (r->in.bad || count > r->in.left)
		return -EINVAL;
	switch (r->fid[0]->kind) {
	case P9_FILE:
		return write_file(r, at, count);
	case P9_XATTR_SET:
		return r->quick ? P9_LATER : write_xattr(r, at, count);
	default:
		return -EBADF;
	}
}

/* fid[4] datasync[4] → */
int p9_op_fsync(struct p9_request *r)
{
	uint32_t only_data = r->in.left >= 4 ? p9_get_u32(&r->in) : 0;
	struct p9_fid *f = r->fid[0];

	if (f->kind != P9_FILE && f->kind != P9_DIR)
		return -EBADF;
	return (only_data ? fdatasync(f->fd) : fsync(f->fd)) < 0 ? -errno : 0;
}

/*
 * An extended attribute is set when all of it has come. One of no bytes is removed if that is what Linux sends for it
 * (XATTR_REPLACE), and may be there or not if it is an ACL: one that says no more than the mode goes like that.
 */
static int xattr_commit(struct p9_request *r)
{
	const struct p9_xattr *x = r->fid[0]->xattr;
	bool acl = strstr(x->name, "system.posix_acl_");
	char path[P9_LINK_SIZE];

	p9_fd_path(path, r->fid[0]->node->fd);
	if (x->done != x->size)
		return -EINVAL;
	if (x->size || (x->flags != XATTR_REPLACE && !acl))
		return setxattr(path, x->name, x->data, x->size, x->flags) < 0 ? -errno : 0;
	return removexattr(path, x->name) < 0 && (errno != ENODATA || !acl) ? -errno : 0;
}

/* Its last descriptor takes the space of a file that was removed along, which may take long. */
static bool ends_large_file(const struct p9_fid *f)
{
	struct stat st;

	return f->kind == P9_FILE && fstat(f->fd, &st) == 0 && st.st_nlink == 0 &&
	       st.st_blocks > LARGE_BLOCKS;
}

/* fid[4] → ; the fid is gone, whatever the answer says (9p.c). Here only what is closed better not in the loop. */
int p9_op_clunk(struct p9_request *r)
{
	struct p9_fid *f = r->fid[0];

	if (f->kind == P9_XATTR_SET)
		return r->quick ? P9_LATER : xattr_commit(r);
	if (r->quick)
		return ends_large_file(f) ? P9_LATER : 0;
	fd_close(&f->fd);
	if (r->ends_node)
		fd_close(&f->node->fd);
	return 0;
}
