/* SPDX-License-Identifier: MIT */
/*
 * Names: attach, walk, and all that makes, renames or removes an entry of a directory. ".." is a name in a walk only, and
 * leads no further up than to the root.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/* fid[4] afid[4] uname[s] aname[s] n_uname[4] → qid[13] */
int p9_op_attach(struct p9_request *r)
{
	uint32_t afid = p9_get_u32(&r->in);
	char user[256], path[PATH_MAX], *at = path;
	int err = p9_get_string(&r->in, user, sizeof(user));
	int err2 = p9_get_string(&r->in, path, sizeof(path));
	struct p9_qid q;
	struct statx st;
	int fd;

	r->newfid->uid = r->in.left >= 4 ? p9_get_u32(&r->in) : P9_NOUID;
	if (err < 0 || err2 < 0 || r->in.bad)
		return err < 0 ? err : err2 < 0 ? err2 : -EINVAL;
	if (afid != P9_NOFID)
		return -EINVAL;
	while (*at == '/')
		at++;
	if (p9_path_hidden(r->s, at))
		return -ENOENT;
	fd = p9_lookup_path(r->s->root->fd, at, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fd;
	err = p9_stat(fd, &st);
	if (err < 0) {
		close(fd);
		return err;
	}
	err = p9_node_new(&r->made, fd, &st);
	if (err < 0)
		return err;
	p9_qid_of(r->s, &st, &q);
	p9_put_qid(&r->body, &q);
	return 0;
}

/* afid[4] uname[s] aname[s] n_uname[4]: there is none */
int p9_op_auth(struct p9_request *r)
{
	(void)r;
	return -EOPNOTSUPP;
}

struct walk {
	int fd; /* of where we are; -1: still at the start */
	struct statx st;
	uint16_t n; /* steps done */
	struct p9_qid qid[P9_MAX_NAMES];
};

/* The directory that this one is in; of the root it is the root. */
static int lookup_up(const struct p9 *s, int dir, mode_t type)
{
	char name[NAME_MAX + 1];
	int fd = S_ISDIR(type) ? p9_parent(s, dir, name) : -ENOTDIR;

	return fd == -EBUSY ? p9_lookup_path(s->root->fd, "", O_PATH | O_DIRECTORY) : fd;
}

static int lookup(struct p9_request *r, const struct walk *w, const char *name)
{
	const struct p9_node *n = r->fid[0]->node;
	int dir = w->fd >= 0 ? w->fd : n->fd, err;

	if (strcmp(name, "..") == 0)
		return r->quick ? -EAGAIN : lookup_up(r->s, dir, w->fd >= 0 ? w->st.stx_mode : n->type);
	err = p9_check_name(r->s, name);
	return err < 0 ? err : p9_lookup(dir, name, r->quick ? RESOLVE_CACHED : 0);
}

/* One name further. On failure w stays where it is. */
static int step(struct p9_request *r, struct walk *w)
{
	char name[NAME_MAX + 1];
	struct statx st = {0};
	dev_t dev;
	int err = p9_get_string(&r->in, name, sizeof(name)), fd;

	if (err < 0)
		return err;
	fd = lookup(r, w, name);
	if (fd == -EAGAIN)
		return r->quick ? P9_LATER : fd;
	if (fd < 0)
		return fd;
	err = r->away ? p9_stat(fd, &st) : p9_stat_known(fd, &st);
	dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	if (err == 0 && !r->away && p9_asks_others(r->s, dev))
		err = P9_AWAY;
	if (err) {
		close(fd);
		return err;
	}
	if (r->away)
		p9_learn_mount(r->s, fd, dev);
	fd_close(&w->fd);
	w->fd = fd;
	w->st = st;
	/* the guest's kind matters to it: a link may be a file here */
	if (p9_mapped(r->s) && S_ISREG(st.stx_mode))
		p9_map_stat(r->s, fd, -1, NULL, &st);
	p9_qid_of(r->s, &st, &w->qid[w->n++]);
	return 0;
}

static void put_walked(struct p9_request *r, const struct walk *w)
{
	p9_put_u16(&r->body, w->n);
	for (unsigned i = 0; i < w->n; i++)
		p9_put_qid(&r->body, &w->qid[i]);
}

/*
 * fid[4] newfid[4] nwname[2] nwname*(wname[s]) → nwqid[2] nwqid*(wqid[13]). A walk that fails behind the first step is
 * answered with the steps it took, and makes no fid. Without names it is a clone, which needs nothing from the host and
 * shares the node: quick always.
 */
int p9_op_walk(struct p9_request *r)
{
	uint16_t n = p9_get_u16(&r->in);
	struct walk w = {.fd = -1};
	int err = 0;

	if (r->in.bad || n > P9_MAX_NAMES)
		return -EINVAL;
	if (r->fid[0]->kind != P9_PATH && n > 0)
		return -EBADF;
	if (r->newfid)
		r->newfid->uid = r->fid[0]->uid;
	if (n == 0) {
		put_walked(r, &w);
		return 0;
	}
	while (w.n < n && err == 0)
		err = step(r, &w);
	if (err > 0 || (err < 0 && w.n == 0)) {
		fd_close(&w.fd);
		return err;
	}
	if (err < 0) {
		fd_close(&w.fd);
		r->partial = true;
	} else {
		err = p9_node_new(&r->made, w.fd, &w.st);
		if (err < 0)
			return err;
	}
	put_walked(r, &w);
	return 0;
}

/* New entries */

static int in_directory(const struct p9_fid *f)
{
	if (f->kind != P9_PATH && f->kind != P9_DIR)
		return -EBADF;
	return f->node->type == S_IFDIR ? 0 : -ENOTDIR;
}

/* An entry was made: owner and mode, and its qid. What cannot have them does not stay. */
static int finish_made(
	struct p9_request *r, int dir, const char *name, struct p9_made *made, struct p9_qid *q)
{
	CLEANUP_FD int fd = p9_lookup(dir, name, 0);
	struct statx st;
	int err = fd < 0 ? fd : p9_map_made(r->s, fd, dir, name, made);

	if (err == 0)
		err = p9_stat(fd, &st);
	if (err < 0) {
		unlinkat(dir, name, S_ISDIR(made->mode) ? AT_REMOVEDIR : 0);
		return err;
	}
	st.stx_mode = (uint16_t)((st.stx_mode & ~S_IFMT) | (made->mode & S_IFMT));
	p9_qid_of(r->s, &st, q);
	return 0;
}

/* A file of ours that stands for something that the host shall not have. */
static int make_stand_in(struct p9_request *r, int dir, const char *name, const char *content)
{
	size_t n = content ? strlen(content) : 0;
	int fd = p9_create(dir, name, O_WRONLY, p9_map_mode(r->s, S_IFREG));
	ssize_t done;

	if (fd < 0)
		return fd;
	done = n ? write(fd, content, n) : 0;
	close(fd);
	if (done == (ssize_t)n)
		return 0;
	unlinkat(dir, name, 0);
	return -ENOSPC;
}

int p9_make_dir(struct p9_request *r, const char *name, uint32_t mode, uint32_t gid, struct p9_qid *q)
{
	struct p9_made made = {.uid = r->fid[0]->uid, .gid = gid, .mode = S_IFDIR | (mode & 07777)};
	int dir = r->fid[0]->node->fd, err = in_directory(r->fid[0]);

	if (err < 0)
		return err;
	p9_own_umask();
	if (mkdirat(dir, name, p9_map_mode(r->s, made.mode)) < 0)
		return -errno;
	return finish_made(r, dir, name, &made, q);
}

int p9_make_link(struct p9_request *r, const char *name, const char *target, uint32_t gid, struct p9_qid *q)
{
	struct p9_made made = {.uid = r->fid[0]->uid, .gid = gid, .mode = S_IFLNK | 0777};
	int dir = r->fid[0]->node->fd, err = in_directory(r->fid[0]);

	if (err < 0)
		return err;
	if (target[0] == '\0')
		return -ENOENT;
	if (p9_mapped(r->s))
		err = make_stand_in(r, dir, name, target);
	else
		err = symlinkat(target, dir, name) < 0 ? -errno : 0;
	return err < 0 ? err : finish_made(r, dir, name, &made, q);
}

int p9_make_node(
	struct p9_request *r, const char *name, uint32_t mode, dev_t dev, uint32_t gid, struct p9_qid *q)
{
	struct p9_made made = {.uid = r->fid[0]->uid, .gid = gid, .mode = mode, .rdev = dev};
	int dir = r->fid[0]->node->fd, err = in_directory(r->fid[0]);

	if ((mode & S_IFMT) == 0)
		made.mode |= S_IFREG;
	if (S_ISDIR(made.mode) || S_ISLNK(made.mode))
		err = -EINVAL;
	if (err < 0)
		return err;
	p9_own_umask();
	if (p9_mapped(r->s))
		err = make_stand_in(r, dir, name, NULL);
	else
		err = mknodat(dir, name, (made.mode & S_IFMT) | p9_map_mode(r->s, mode), dev) < 0 ? -errno
												  : 0;
	return err < 0 ? err : finish_made(r, dir, name, &made, q);
}

static int put_made(struct p9_request *r, int err, const struct p9_qid *q)
{
	if (err == 0)
		p9_put_qid(&r->body, q);
	return err;
}

/* dfid[4] name[s] mode[4] gid[4] → qid[13] */
int p9_op_mkdir(struct p9_request *r)
{
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);
	uint32_t mode = p9_get_u32(&r->in), gid = p9_get_u32(&r->in);
	struct p9_qid q;

	if (err < 0 || r->in.bad)
		return err < 0 ? err : -EINVAL;
	return put_made(r, p9_make_dir(r, name, mode, gid, &q), &q);
}

/* dfid[4] name[s] symtgt[s] gid[4] → qid[13] */
int p9_op_symlink(struct p9_request *r)
{
	char name[NAME_MAX + 1], target[PATH_MAX];
	int err = p9_get_name(r->s, &r->in, name);
	int err2 = p9_get_string(&r->in, target, sizeof(target));
	uint32_t gid = p9_get_u32(&r->in);
	struct p9_qid q;

	if (err < 0 || err2 < 0 || r->in.bad)
		return err < 0 ? err : err2 < 0 ? err2 : -EINVAL;
	return put_made(r, p9_make_link(r, name, target, gid, &q), &q);
}

/* dfid[4] name[s] mode[4] major[4] minor[4] gid[4] → qid[13] */
int p9_op_mknod(struct p9_request *r)
{
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);
	uint32_t mode = p9_get_u32(&r->in);
	uint32_t maj = p9_get_u32(&r->in), min = p9_get_u32(&r->in);
	uint32_t gid = p9_get_u32(&r->in);
	struct p9_qid q;

	if (err < 0 || r->in.bad)
		return err < 0 ? err : -EINVAL;
	return put_made(r, p9_make_node(r, name, mode, makedev(maj, min), gid, &q), &q);
}

int p9_link_file(struct p9_request *r, const struct p9_fid *file, const char *name)
{
	int dir = r->fid[0]->node->fd, err = in_directory(r->fid[0]);
	char path[P9_LINK_SIZE];

	if (err < 0)
		return err;
	if (linkat(AT_FDCWD, p9_fd_path(path, file->node->fd), dir, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	p9_map_linked(r->s, file->node->fd, dir, name);
	return 0;
}

/* dfid[4] fid[4] name[s] → */
int p9_op_link(struct p9_request *r)
{
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);

	return err < 0 ? err : p9_link_file(r, r->fid[1] ? r->fid[1] : r->fid[0], name);
}

/* fid[4] → target[s] */
int p9_op_readlink(struct p9_request *r)
{
	const struct p9_node *n = r->fid[0]->node;
	char target[PATH_MAX];
	ssize_t len = -EINVAL;

	if (n->type == S_IFLNK) {
		len = readlinkat(n->fd, "", target, sizeof(target) - 1);
		len = len < 0 ? -errno : len;
	} else if (p9_mapped(r->s) && n->type == S_IFREG) {
		len = p9_stand_in_target(r->s, n->fd, target);
	}
	if (len < 0)
		return (int)len;
	target[len] = '\0';
	p9_put_string(&r->body, target);
	return 0;
}

ssize_t p9_stand_in_target(const struct p9 *s, int path, char target[PATH_MAX])
{
	CLEANUP_FD int fd = -1;
	struct statx st;
	ssize_t n = p9_stat(path, &st);

	if (n < 0)
		return n;
	p9_map_stat(s, path, -1, NULL, &st);
	if (!S_ISLNK(st.stx_mode))
		return -EINVAL;
	fd = p9_reopen(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	n = pread(fd, target, PATH_MAX - 1, 0);
	return n < 0 ? -errno : n;
}

/* Renaming and removing */

/* Paths before and after, for the nodes that have given back their descriptor: the loop does the rest. */
static void note_rename(struct p9_request *r, int from, const char *old, int to, const char *new)
{
	char dir[PATH_MAX], to_dir[PATH_MAX];

	if (p9_where(r->s, from, dir) < 0 || p9_where(r->s, to, to_dir) < 0)
		return;
	if (asprintf(&r->renamed[0], "%s%s%s", dir, *dir ? "/" : "", old) < 0)
		r->renamed[0] = NULL;
	if (asprintf(&r->renamed[1], "%s%s%s", to_dir, *to_dir ? "/" : "", new) < 0)
		r->renamed[1] = NULL;
}

static int rename_entry(struct p9_request *r, int from, const char *old, int to, const char *new)
{
	if (renameat(from, old, to, new) < 0)
		return -errno;
	p9_map_renamed(r->s, from, old, to, new);
	if (__atomic_load_n(&r->s->ngiven, __ATOMIC_RELAXED))
		note_rename(r, from, old, to, new);
	return 0;
}

/* olddirfid[4] oldname[s] newdirfid[4] newname[s] → */
int p9_op_renameat(struct p9_request *r)
{
	const struct p9_fid *from = r->fid[0], *to = r->fid[1] ? r->fid[1] : from;
	char old[NAME_MAX + 1], new[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, old);

	p9_get_u32(&r->in);
	if (err == 0)
		err = p9_get_name(r->s, &r->in, new);
	if (err == 0)
		err = in_directory(from);
	if (err == 0)
		err = in_directory(to);
	return err < 0 ? err : rename_entry(r, from->node->fd, old, to->node->fd, new);
}

/* The fid's file to dir (-1: where it is) under another name. */
int p9_rename_file(struct p9_request *r, int dir, const char *name)
{
	CLEANUP_FD int parent = -1;
	char old[NAME_MAX + 1];

	parent = p9_parent(r->s, r->fid[0]->node->fd, old);
	if (parent < 0)
		return parent;
	return rename_entry(r, parent, old, dir < 0 ? parent : dir, name);
}

/* fid[4] dfid[4] name[s] → */
int p9_op_rename(struct p9_request *r)
{
	const struct p9_fid *to = r->fid[1] ? r->fid[1] : r->fid[0];
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);

	if (err == 0)
		err = in_directory(to);
	return err < 0 ? err : p9_rename_file(r, to->node->fd, name);
}

static int unlink_entry(struct p9_request *r, int dir, const char *name, int flags)
{
	if (flags & AT_REMOVEDIR)
		p9_map_rmdir(r->s, dir, name);
	if (unlinkat(dir, name, flags) < 0)
		return -errno;
	p9_map_unlinked(r->s, dir, name);
	return 0;
}

/* dirfd[4] name[s] flags[4] → */
int p9_op_unlinkat(struct p9_request *r)
{
	char name[NAME_MAX + 1];
	int err = p9_get_name(r->s, &r->in, name);
	uint32_t flags = p9_get_u32(&r->in);

	if (err == 0 && (r->in.bad || (flags & ~(uint32_t)AT_REMOVEDIR)))
		err = -EINVAL;
	if (err == 0)
		err = in_directory(r->fid[0]);
	return err < 0 ? err : unlink_entry(r, r->fid[0]->node->fd, name, (int)flags);
}

/* fid[4] → ; clunks the fid too, whatever becomes of the file (9p.c) */
int p9_op_remove(struct p9_request *r)
{
	const struct p9_fid *f = r->fid[0];
	CLEANUP_FD int dir = -1;
	char name[NAME_MAX + 1];

	if (r->s->read_only)
		return -EROFS;
	dir = p9_parent(r->s, f->node->fd, name);
	if (dir < 0)
		return dir;
	return unlink_entry(r, dir, name, f->node->type == S_IFDIR ? AT_REMOVEDIR : 0);
}
