/* SPDX-License-Identifier: MIT */
/*
 * What migrates besides the ring: the session's dialect and message size, and its fids, by the paths that their files have
 * at that moment. The other end must have the same folder, on storage that both share: each file is looked for at its path
 * and must be the same inode, for that is what the guest knows it by.
 *
 * What cannot move makes saving fail, so that the guest stays: locks, which the other end could not take as long as this one
 * has them; files that are open, but removed; and files of several file systems, whose numbers for the guest depend on the
 * order in which it came to them. A fid that is not open and whose file is gone goes along as one whose file is not found.
 *
 * What is loaded is the front-end's word: it names files below the root only, and nothing is opened before the guest uses it.
 * All numbers are little-endian.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STATE_MAGIC "vum-9p-1"

struct saved_head {
	char magic[8];
	uint32_t dialect, msize, fids, unused;
};

struct saved_fid { /* path, name and data follow */
	uint64_t ino, dir_start, dir_bytes;
	uint32_t id, uid, flags, kind;
	uint32_t path_size, name_size, data_size; /* bytes */
	uint32_t data_done, data_flags;
	uint32_t gone; /* its file */
};

/* Flags of an open file, in the state and here. */
static const struct {
	uint32_t saved;
	int host;
} saved_flags[] = {
	{1, O_WRONLY},
	{2, O_RDWR},
	{4, O_APPEND},
	{8, O_DSYNC},
	{16, O_SYNC},
	{32, O_NOATIME},
	{64, O_DIRECTORY},
};

/* Saving */

/* NULL: it is not there any more. */
static const char *place_of(const struct p9 *s, const struct p9_node *n, char buf[PATH_MAX])
{
	int fd;

	if (n->fd >= 0)
		return p9_where(s, n->fd, buf) < 0 ? NULL : buf;
	fd = p9_lookup_same(s, n->path, n->dev, n->ino);
	if (fd < 0)
		return NULL;
	close(fd);
	return n->path;
}

/* 0, or -errno, logged. */
static int save_fid(const struct p9 *s, const struct p9_fid *f, FILE *out)
{
	char buf[PATH_MAX];
	const char *path = place_of(s, f->node, buf);
	const struct p9_xattr *x = f->xattr;
	struct saved_fid v = {.ino = htole64(f->node->ino),
		.dir_start = htole64(f->dir_start),
		.dir_bytes = htole64(f->dir_bytes),
		.id = htole32(f->id),
		.uid = htole32(f->uid),
		.kind = htole32(f->kind)};
	uint32_t flags = 0;

	if (f->owners)
		return log_errno(EBUSY, "the guest has locks, so it cannot move");
	if (!path && (f->kind == P9_FILE || f->kind == P9_DIR))
		return log_errno(
			ESTALE, "the guest has a file open that has been removed, so it cannot move");
	if (path && f->node->dev != s->root->dev)
		return log_errno(
			EXDEV, "%s: of another file system than --path, so the guest cannot move", path);
	for (size_t i = 0; i < ARRAY_SIZE(saved_flags); i++)
		flags |= (f->flags & saved_flags[i].host) == saved_flags[i].host ? saved_flags[i].saved : 0;
	v.flags = htole32(flags);
	v.gone = htole32(!path);
	path = path ? path : "";
	v.path_size = htole32((uint32_t)strlen(path));
	if (x) {
		v.name_size = htole32((uint32_t)strlen(x->name));
		v.data_size = htole32((uint32_t)x->size);
		v.data_done = htole32((uint32_t)x->done);
		v.data_flags = htole32((uint32_t)x->flags);
	}
	fwrite(&v, sizeof(v), 1, out);
	fputs(path, out);
	if (x) {
		fputs(x->name, out);
		fwrite(x->data, 1, x->size, out);
	}
	return 0;
}

int p9_state_save(struct backend *b, int fd)
{
	struct p9 *s = b->state;
	struct saved_head head = {.magic = STATE_MAGIC,
		.dialect = htole32(s->dialect),
		.msize = htole32(s->msize),
		.fids = htole32(s->nfids)};
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), r = 0;
	FILE *out = copy < 0 ? NULL : fdopen(copy, "w");

	if (!out) {
		fd_close(&copy);
		return log_errno(ENOMEM, "device state");
	}
	fwrite(&head, sizeof(head), 1, out);
	for (unsigned i = 0; i < s->table_size; i++)
		for (struct p9_fid *f = s->table[i]; f && r == 0; f = f->next)
			r = save_fid(s, f, out);
	if ((fclose(out) != 0) && r == 0)
		r = log_errno(errno, "device state");
	return r;
}

/* Loading */

static int not_ours(void)
{
	return log_errno(EINVAL, "device state is not that of a folder");
}

static bool take(FILE *in, void *to, size_t size)
{
	return size == 0 || fread(to, size, 1, in) == 1;
}

/* A string of that size, which has no NUL in it. */
static bool take_text(FILE *in, char *to, size_t size, size_t max)
{
	if (size >= max || !take(in, to, size))
		return false;
	to[size] = '\0';
	return strlen(to) == size;
}

static int load_xattr(struct p9 *s, struct p9_fid *f, const struct saved_fid *v, FILE *in)
{
	struct p9_xattr *x;
	uint32_t size = le32toh(v->data_size);
	int r = size > P9_MAX_XATTR ? -E2BIG : p9_xattr_new(s, size, &x);

	if (r < 0)
		return not_ours();
	f->xattr = x;
	x->done = le32toh(v->data_done);
	x->flags = (int)le32toh(v->data_flags);
	if (!take_text(in, x->name, le32toh(v->name_size), sizeof(x->name)) || !take(in, x->data, size) ||
		x->done > size ||
		(f->kind == P9_XATTR_SET && p9_mapped(s) && strncmp(x->name, "user.", 5) != 0))
		return not_ours();
	return 0;
}

/* The file of that path: 0, or -errno, logged. */
static int load_node(struct p9 *s, struct p9_fid *f, const struct saved_fid *v, const char *path)
{
	struct statx st;
	int fd, r;

	if (v->gone) {
		r = p9_node_gone(s, &f->node);
		return r < 0 ? log_errno(r, "device state") : 0;
	}
	fd = p9_path_hidden(s, path) ? -ENOENT : p9_lookup_path(s->root->fd, path, O_PATH | O_NOFOLLOW);
	if (fd < 0)
		return log_errno(fd, "%s, which the guest uses", path);
	r = p9_stat(fd, &st);
	if (r == 0 && st.stx_ino != le64toh(v->ino))
		r = -ESTALE;
	if (r < 0) {
		close(fd);
		return log_errno(r, "%s, which the guest uses: not the same file here", path);
	}
	return p9_node_new(&f->node, fd, &st);
}

static bool kind_fits(const struct p9 *s, const struct p9_fid *f)
{
	switch (f->kind) {
	case P9_PATH:
	case P9_XATTR_GET:
		return true;
	case P9_XATTR_SET:
		return !s->read_only;
	case P9_FILE:
		return f->node->type == S_IFREG && p9_open_check(s, f->flags) == 0;
	case P9_DIR:
		return f->node->type == S_IFDIR && (f->flags & O_ACCMODE) == O_RDONLY;
	default:
		return false;
	}
}

static int load_fid(struct p9 *s, FILE *in)
{
	struct saved_fid v;
	char path[PATH_MAX];
	struct p9_fid *f;
	int r;

	if (!take(in, &v, sizeof(v)) || !take_text(in, path, le32toh(v.path_size), sizeof(path)))
		return not_ours();
	r = p9_files_trim(s);
	if (r == 0)
		r = p9_fid_new(s, le32toh(v.id), &f);
	if (r < 0)
		return log_errno(r, "fid %u of the device state", le32toh(v.id));
	r = load_node(s, f, &v, path);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(saved_flags); i++)
		f->flags |= le32toh(v.flags) & saved_flags[i].saved ? saved_flags[i].host : 0;
	f->kind = (enum p9_kind)le32toh(v.kind);
	if (!kind_fits(s, f))
		return not_ours();
	f->uid = le32toh(v.uid);
	f->dir_at = UINT64_MAX;
	f->dir_start = le64toh(v.dir_start);
	f->dir_bytes = le64toh(v.dir_bytes);
	if (f->kind == P9_XATTR_GET || f->kind == P9_XATTR_SET)
		r = load_xattr(s, f, &v, in);
	p9_fid_settle(s, f);
	return r;
}

static int load_all(struct p9 *s, FILE *in)
{
	struct saved_head head;
	uint32_t fids;
	int r = 0;

	if (!take(in, &head, sizeof(head)) || memcmp(head.magic, STATE_MAGIC, sizeof(head.magic)) != 0)
		return not_ours();
	fids = le32toh(head.fids);
	s->msize = le32toh(head.msize);
	if (le32toh(head.dialect) > P9_2000L || (fids > 0 && le32toh(head.dialect) == P9_NONE))
		return not_ours();
	s->dialect = (enum p9_dialect)le32toh(head.dialect);
	if (s->dialect != P9_NONE && (s->msize < P9_MIN_MSIZE || s->msize > s->max_msize))
		return log_errno(EINVAL, "the guest's messages have %u bytes, --msize is %llu", s->msize,
			(unsigned long long)s->max_msize);
	for (; fids > 0 && r == 0; fids--)
		r = load_fid(s, in);
	if (r == 0 && fgetc(in) != EOF)
		r = not_ours();
	return r;
}

int p9_state_load(struct backend *b, int fd)
{
	struct p9 *s = b->state;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), r;
	FILE *in = copy < 0 ? NULL : fdopen(copy, "r");

	if (!in) {
		fd_close(&copy);
		return log_errno(ENOMEM, "device state");
	}
	p9_session_end(s);
	r = load_all(s, in);
	fclose(in);
	if (r < 0)
		p9_session_end(s);
	return r;
}
