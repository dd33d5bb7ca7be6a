/* SPDX-License-Identifier: MIT */
/*
 * Attributes: of files, of file systems, extended ones. Each works on the node's descriptor, so it needs no name and
 * serves files that have none any more.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define STATS_BASIC UINT64_C(0x7ff)
#define STATS_BTIME UINT64_C(0x800)
#define STATFS_TYPE 0x01021997u /* that of 9P on Linux */

enum { /* what Tsetattr changes */
	SET_MODE = 1,
	SET_UID = 2,
	SET_GID = 4,
	SET_SIZE = 8,
	SET_ATIME = 0x10,
	SET_MTIME = 0x20,
	SET_CTIME = 0x40,
	SET_ATIME_TO = 0x80, /* to the time given, not to the host's */
	SET_MTIME_TO = 0x100,
};

static void put_time(struct cursor *c, const struct statx_timestamp *t)
{
	p9_put_u64(c, (uint64_t)t->tv_sec);
	p9_put_u64(c, t->tv_nsec);
}

/* fid[4] request_mask[8] → valid[8] qid[13] mode[4] uid[4] gid[4] nlink[8] rdev[8] size[8] blksize[8] blocks[8] … */
int p9_op_getattr(struct p9_request *r)
{
	const struct p9_node *n = r->fid[0]->node;
	struct p9_qid q;
	struct statx st;
	int err;

	p9_get_u64(&r->in);
	if (r->in.bad)
		return -EINVAL;
	err = p9_stat(n->fd, &st);
	if (err < 0)
		return err;
	p9_map_stat(r->s, n->fd, -1, NULL, &st);
	p9_qid_of(r->s, &st, &q);
	p9_put_u64(&r->body, STATS_BASIC | (st.stx_mask & STATX_BTIME ? STATS_BTIME : 0));
	p9_put_qid(&r->body, &q);
	p9_put_u32(&r->body, st.stx_mode);
	p9_put_u32(&r->body, st.stx_uid);
	p9_put_u32(&r->body, st.stx_gid);
	p9_put_u64(&r->body, st.stx_nlink);
	/* as new_encode_dev() of Linux has it */
	p9_put_u64(&r->body, makedev(st.stx_rdev_major, st.stx_rdev_minor));
	p9_put_u64(&r->body, st.stx_size);
	p9_put_u64(&r->body, st.stx_blksize);
	p9_put_u64(&r->body, st.stx_blocks);
	put_time(&r->body, &st.stx_atime);
	put_time(&r->body, &st.stx_mtime);
	put_time(&r->body, &st.stx_ctime);
	put_time(&r->body, &st.stx_btime);
	p9_put_u64(&r->body, 0); /* gen */
	p9_put_u64(&r->body, 0); /* data_version */
	return 0;
}

/* Also of a file that was unlinked, and also without write permission where the fid is open for writing. */
int p9_set_size(const struct p9_fid *f, uint64_t size)
{
	CLEANUP_FD int fd = -1;

	if (size > INT64_MAX)
		return -EINVAL;
	if (f->node->type != S_IFREG)
		return f->node->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (f->kind == P9_FILE && (f->flags & O_ACCMODE) != O_RDONLY)
		return ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
	fd = p9_reopen(f->node->fd, O_WRONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int p9_set_times(const struct p9_node *n, const struct timespec t[2])
{
	char path[P9_LINK_SIZE];

	return utimensat(AT_FDCWD, p9_fd_path(path, n->fd), t, 0) < 0 ? -errno : 0;
}

static struct timespec get_time(struct p9_request *r, uint32_t valid, uint32_t set, uint32_t set_to)
{
	uint64_t sec = p9_get_u64(&r->in), nsec = p9_get_u64(&r->in);

	if (!(valid & set))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (!(valid & set_to))
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){(time_t)sec, nsec < 1000000000 ? (long)nsec : -1};
}

/* fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime_sec[8] atime_nsec[8] mtime_sec[8] mtime_nsec[8] → */
int p9_op_setattr(struct p9_request *r)
{
	struct p9_node *n = r->fid[0]->node;
	uint32_t valid = p9_get_u32(&r->in), mode = p9_get_u32(&r->in);
	uint32_t uid = p9_get_u32(&r->in), gid = p9_get_u32(&r->in);
	uint64_t size = p9_get_u64(&r->in);
	struct timespec times[2];
	int err = 0;

	times[0] = get_time(r, valid, SET_ATIME, SET_ATIME_TO);
	times[1] = get_time(r, valid, SET_MTIME, SET_MTIME_TO);
	if (r->in.bad)
		return -EINVAL;
	uid = valid & SET_UID ? uid : P9_NOUID;
	gid = valid & SET_GID ? gid : P9_NOUID;
	/* size first: it may fail for more reasons; mode behind the owner, which resets bits of it */
	if (valid & SET_SIZE)
		err = p9_set_size(r->fid[0], size);
	if (err == 0 && (uid != P9_NOUID || gid != P9_NOUID))
		err = p9_map_chown(r->s, n->fd, uid, gid);
	if (err == 0 && (valid & SET_MODE))
		err = p9_map_chmod(r->s, n->fd, mode);
	if (err == 0 && (valid & (SET_ATIME | SET_MTIME)))
		err = p9_set_times(n, times);
	if (err == 0 && valid == SET_CTIME && fchownat(n->fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) < 0)
		err = -errno;
	return err;
}

/* fid[4] → type[4] bsize[4] blocks[8] bfree[8] bavail[8] files[8] ffree[8] fsid[8] namelen[4] */
int p9_op_statfs(struct p9_request *r)
{
	const struct p9_node *n = r->fid[0]->node;
	struct statfs st;
	uint64_t fsid;

	if (fstatfs(n->fd, &st) < 0)
		return -errno;
	memcpy(&fsid, &st.f_fsid, sizeof(fsid));
	p9_put_u32(&r->body, STATFS_TYPE);
	p9_put_u32(&r->body, (uint32_t)st.f_bsize);
	p9_put_u64(&r->body, st.f_blocks);
	p9_put_u64(&r->body, st.f_bfree);
	p9_put_u64(&r->body, st.f_bavail);
	p9_put_u64(&r->body, st.f_files);
	p9_put_u64(&r->body, st.f_ffree);
	p9_put_u64(&r->body, fsid);
	p9_put_u32(&r->body, (uint32_t)MIN(st.f_namelen, NAME_MAX));
	return 0;
}

/* Extended attributes: a fid that is read, or that is written and takes effect when it is clunked */

int p9_xattr_new(struct p9 *s, uint64_t size, struct p9_xattr **out)
{
	struct p9_xattr *x;

	if (__atomic_add_fetch(&s->xattr_memory, size, __ATOMIC_RELAXED) > P9_MAX_XATTR_MEMORY) {
		__atomic_fetch_sub(&s->xattr_memory, size, __ATOMIC_RELAXED);
		return -ENOSPC;
	}
	x = calloc(1, sizeof(*x) + size);
	if (!x) {
		__atomic_fetch_sub(&s->xattr_memory, size, __ATOMIC_RELAXED);
		return -ENOMEM;
	}
	x->size = size;
	*out = x;
	return 0;
}

/* The value, or the list of names, of at most P9_MAX_XATTR bytes. */
static ssize_t value_load(struct p9_request *r, const char *name, char *data)
{
	char path[P9_LINK_SIZE], host[XATTR_NAME_MAX + 1];
	ssize_t n;

	p9_fd_path(path, r->fid[0]->node->fd);
	if (name[0] == '\0') {
		n = listxattr(path, data, P9_MAX_XATTR);
		return n < 0 ? -errno : (ssize_t)p9_map_xattr_list(r->s, data, (size_t)n);
	}
	n = p9_map_xattr(r->s, name, host);
	if (n < 0)
		return n == -EACCES || n == -EOPNOTSUPP ? -ENODATA : n;
	n = getxattr(path, host, data, P9_MAX_XATTR);
	return n < 0 ? -errno : n;
}

/* fid[4] newfid[4] name[s] → size[8] */
int p9_op_xattrwalk(struct p9_request *r)
{
	char name[XATTR_NAME_MAX + 1];
	int err = p9_get_string(&r->in, name, sizeof(name));
	CLEANUP_FREE char *data = NULL;
	struct p9_xattr *x;
	ssize_t n;

	if (err < 0)
		return err;
	if (!r->newfid)
		return -EINVAL;
	data = malloc(P9_MAX_XATTR);
	if (!data)
		return -ENOMEM;
	n = value_load(r, name, data);
	if (n < 0)
		return (int)n;
	err = p9_xattr_new(r->s, (uint64_t)n, &x);
	if (err < 0)
		return err;
	memcpy(x->data, data, (size_t)n);
	r->newfid->xattr = x;
	r->newfid->kind = P9_XATTR_GET;
	r->newfid->uid = r->fid[0]->uid;
	p9_put_u64(&r->body, (uint64_t)n);
	return 0;
}

/* fid[4] name[s] attr_size[8] flags[4] → */
int p9_op_xattrcreate(struct p9_request *r)
{
	char name[XATTR_NAME_MAX + 1], host[XATTR_NAME_MAX + 1];
	struct p9_fid *f = r->fid[0];
	int err = p9_get_string(&r->in, name, sizeof(name));
	uint64_t size = p9_get_u64(&r->in);
	uint32_t flags = p9_get_u32(&r->in);
	struct p9_xattr *x;

	if (err == 0 && (r->in.bad || name[0] == '\0' || (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))))
		err = -EINVAL;
	if (err == 0 && size > P9_MAX_XATTR)
		err = -E2BIG;
	if (err == 0 && f->kind != P9_PATH)
		err = -EBADF;
	if (err == 0)
		err = p9_map_xattr(r->s, name, host);
	if (err == 0)
		err = p9_xattr_new(r->s, size, &x);
	if (err < 0)
		return err;
	memcpy(x->name, host, sizeof(host));
	x->flags = (int)flags;
	f->xattr = x;
	f->kind = P9_XATTR_SET;
	return 0;
}
