/* SPDX-License-Identifier: MIT */
/*
 * What 9P2000.u has and 9P2000.L does not: open and create with modes of Plan 9, directories that are read as a list of
 * stat structures, stat and wstat. (9P2000 manual, open(5), stat(5); 9P2000.u extensions.)
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
	OREAD,
	OWRITE,
	ORDWR,
	OEXEC,
	OACCESS = 3,
	OTRUNC = 0x10,
	ORCLOSE = 0x40,
	OAPPEND = 0x80,
	OEXCL = 0x1000
};

#define DMDIR	    0x80000000u
#define DMSYMLINK   0x02000000u
#define DMLINK	    0x01000000u
#define DMDEVICE    0x00800000u
#define DMNAMEDPIPE 0x00200000u
#define DMSOCKET    0x00100000u
#define DMSETUID    0x00080000u
#define DMSETGID    0x00040000u
#define DMSETVTX    0x00010000u
#define KEEP	    UINT32_MAX /* in wstat: leave as it is */

static int open_flags(uint8_t mode)
{
	static const int access[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY};

	return access[mode & OACCESS] | (mode & OTRUNC ? O_TRUNC : 0) | (mode & OAPPEND ? O_APPEND : 0);
}

/* fid[4] mode[1] → qid[13] iounit[4] */
int p9_op_open(struct p9_request *r)
{
	uint8_t mode = p9_get_u8(&r->in);
	struct statx st;
	int err;

	if (r->in.bad || (mode & ORCLOSE))
		return -EINVAL;
	err = p9_fid_open(r, open_flags(mode), &st);
	if (err == 0)
		p9_put_opened(r, &st);
	return err;
}

/* The fid that a link shall be another name of; P9_NOFID: it is no link. *c stands behind the fid, and moves. */
uint32_t p9_link_fid(struct cursor *c)
{
	char text[PATH_MAX];

	cursor_skip(c, p9_get_u16(c));
	if (!(p9_get_u32(c) & DMLINK) || !cursor_skip(c, 1) || p9_get_string(c, text, sizeof(text)) < 0)
		return P9_NOFID;
	return (uint32_t)strtoul(text, NULL, 10);
}

static uint32_t mode_of(uint32_t perm)
{
	uint32_t mode = perm & 0777;

	mode |= perm & DMSETUID ? S_ISUID : 0;
	mode |= perm & DMSETGID ? S_ISGID : 0;
	mode |= perm & DMSETVTX ? S_ISVTX : 0;
	return mode;
}

static uint32_t perm_of(uint32_t mode)
{
	uint32_t perm = mode & 0777;

	perm |= mode & S_ISUID ? DMSETUID : 0;
	perm |= mode & S_ISGID ? DMSETGID : 0;
	perm |= mode & S_ISVTX ? DMSETVTX : 0;
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return perm | DMDIR;
	case S_IFLNK:
		return perm | DMSYMLINK;
	case S_IFIFO:
		return perm | DMNAMEDPIPE;
	case S_IFSOCK:
		return perm | DMSOCKET;
	case S_IFCHR:
	case S_IFBLK:
		return perm | DMDEVICE;
	default:
		return perm;
	}
}

static int make_device(
	struct p9_request *r, const char *name, uint32_t perm, const char *extension, struct p9_qid *q)
{
	unsigned maj, min;
	char kind;

	if (sscanf(extension, "%c %u %u", &kind, &maj, &min) != 3 || (kind != 'c' && kind != 'b'))
		return -EINVAL;
	return p9_make_node(
		r, name, mode_of(perm) | (kind == 'c' ? S_IFCHR : S_IFBLK), makedev(maj, min), P9_NOUID, q);
}

/* What is made and not opened, and a directory, which is: the fid goes on as the new one. */
static int create_special(
	struct p9_request *r, const char *name, uint32_t perm, const char *extension, struct statx *st)
{
	struct p9_qid q;
	int err, fd;

	if (perm & DMDIR)
		err = p9_make_dir(r, name, mode_of(perm), P9_NOUID, &q);
	else if (perm & DMSYMLINK)
		err = p9_make_link(r, name, extension, P9_NOUID, &q);
	else if (perm & DMLINK)
		err = r->fid[1] ? p9_link_file(r, r->fid[1], name) : -EINVAL;
	else if (perm & DMDEVICE)
		err = make_device(r, name, perm, extension, &q);
	else
		err = p9_make_node(
			r, name, mode_of(perm) | (perm & DMSOCKET ? S_IFSOCK : S_IFIFO), 0, P9_NOUID, &q);
	if (err < 0)
		return err;
	fd = p9_lookup(r->fid[0]->node->fd, name, 0);
	if (fd < 0)
		return fd;
	err = p9_stat(fd, st);
	if (err < 0) {
		close(fd);
		return err;
	}
	err = p9_node_new(&r->made, fd, st);
	if (err < 0 || !(perm & DMDIR))
		return err;
	fd = p9_reopen(r->made->fd, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	r->fid[0]->fd = fd;
	r->fid[0]->flags = O_RDONLY | O_DIRECTORY;
	r->fid[0]->kind = P9_DIR;
	return 0;
}

/* fid[4] name[s] perm[4] mode[1] extension[s] → qid[13] iounit[4]; of a link the extension is the number of a fid */
int p9_op_create(struct p9_request *r)
{
	char name[NAME_MAX + 1], extension[PATH_MAX];
	int err = p9_get_name(r->s, &r->in, name), err2;
	uint32_t perm = p9_get_u32(&r->in);
	uint8_t mode = p9_get_u8(&r->in);
	struct statx st;

	err2 = p9_get_string(&r->in, extension, sizeof(extension));
	if (err < 0 || err2 < 0 || r->in.bad)
		return err < 0 ? err : err2 < 0 ? err2 : -EINVAL;
	if (r->fid[0]->kind != P9_PATH)
		return -EBADF;
	if (perm & (DMDIR | DMSYMLINK | DMLINK | DMDEVICE | DMNAMEDPIPE | DMSOCKET))
		err = create_special(r, name, perm, extension, &st);
	else
		err = p9_fid_create(r, name, open_flags(mode), true, mode_of(perm), P9_NOUID, &st);
	if (err == 0)
		p9_put_opened(r, &st);
	return err;
}

/* size[2] type[2] dev[4] qid[13] mode[4] atime[4] mtime[4] length[8] name uid gid muid extension n_uid n_gid n_muid */
static size_t stat_size(const char *name, const char *extension)
{
	return 2 + 4 + P9_QID + 4 + 4 + 4 + 8 + 2 + strlen(name) + 2 * 3 + 2 + strlen(extension) + 4 * 3;
}

static void put_stat(
	struct p9 *s, struct cursor *c, const struct statx *st, const char *name, const char *extension)
{
	struct p9_qid q;

	p9_qid_of(s, st, &q);
	p9_put_u16(c, (uint16_t)stat_size(name, extension));
	p9_put_u16(c, 0);
	p9_put_u32(c, 0);
	p9_put_qid(c, &q);
	p9_put_u32(c, perm_of(st->stx_mode));
	p9_put_u32(c, (uint32_t)st->stx_atime.tv_sec);
	p9_put_u32(c, (uint32_t)st->stx_mtime.tv_sec);
	p9_put_u64(c, S_ISDIR(st->stx_mode) ? 0 : st->stx_size);
	p9_put_string(c, name);
	p9_put_string(c, "");
	p9_put_string(c, "");
	p9_put_string(c, "");
	p9_put_string(c, extension);
	p9_put_u32(c, st->stx_uid);
	p9_put_u32(c, st->stx_gid);
	p9_put_u32(c, P9_NOUID);
}

/* What a link points to, what a device is. */
static void extension_of(const struct p9 *s, int fd, const struct statx *st, char extension[PATH_MAX])
{
	ssize_t n = -1;

	extension[0] = '\0';
	if (S_ISLNK(st->stx_mode)) {
		n = readlinkat(fd, "", extension, PATH_MAX - 1);
		if (n < 0)
			n = p9_stand_in_target(s, fd, extension);
		extension[MAX(n, 0)] = '\0';
	} else if (S_ISCHR(st->stx_mode) || S_ISBLK(st->stx_mode)) {
		snprintf(extension, PATH_MAX, "%c %u %u", S_ISCHR(st->stx_mode) ? 'c' : 'b',
			st->stx_rdev_major, st->stx_rdev_minor);
	}
}

/* fid[4] → n[2] stat[n] */
int p9_op_stat(struct p9_request *r)
{
	char path[PATH_MAX], extension[PATH_MAX];
	const struct p9_node *n = r->fid[0]->node;
	const char *name;
	struct statx st;
	int err;

	err = p9_stat(n->fd, &st);
	if (err < 0)
		return err;
	if (p9_where(r->s, n->fd, path) < 0)
		path[0] = '\0';
	name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path[0] ? path : "/";
	p9_map_stat(r->s, n->fd, -1, NULL, &st);
	extension_of(r->s, n->fd, &st, extension);
	p9_put_u16(&r->body, (uint16_t)(stat_size(name, extension) + 2));
	put_stat(r->s, &r->body, &st, name, extension);
	return 0;
}

struct stats {
	struct cursor out;
	size_t left;
	uint64_t next; /* cookie behind the last one that was given */
};

static int list_stat(
	struct p9_request *r, const char *name, uint64_t ino, uint8_t type, uint64_t next, void *arg)
{
	int dir = r->fid[0]->node->fd;
	struct stats *stats = arg;
	char extension[PATH_MAX];
	CLEANUP_FD int fd = -1;
	struct statx st;
	size_t size;

	(void)ino;
	(void)type;
	fd = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? -1 : p9_lookup(dir, name, 0);
	if (fd < 0 || p9_stat(fd, &st) < 0) { /* dots are not listed; or it has just been removed */
		stats->next = next;
		return 0;
	}
	p9_map_stat(r->s, fd, dir, name, &st);
	extension_of(r->s, fd, &st, extension);
	size = stat_size(name, extension) + 2;
	if (size > stats->left)
		return 1;
	put_stat(r->s, &stats->out, &st, name, extension);
	stats->left -= size;
	stats->next = next;
	return 0;
}

/* An offset is 0 or where the last read ended (open(5)); so the host's cookie can be kept in the fid. */
int p9_read_dir_stats(struct p9_request *r, uint64_t at, uint32_t count)
{
	struct p9_fid *f = r->fid[0];
	struct stats stats = {.out = r->body, .left = count};
	int err;

	if (r->quick)
		return P9_LATER;
	if (at == 0)
		f->dir_start = f->dir_bytes = 0;
	else if (at != f->dir_bytes)
		return -EINVAL;
	stats.next = f->dir_start;
	cursor_skip(&stats.out, 4);
	err = p9_read_dir(r, f->dir_start, count, list_stat, &stats);
	if (err < 0)
		return err;
	if (err > 0 && stats.left == count)
		return -EINVAL;
	f->dir_start = stats.next;
	f->dir_bytes += count - stats.left;
	p9_put_u32(&r->body, count - (uint32_t)stats.left);
	cursor_skip(&r->body, count - stats.left);
	return 0;
}

struct change { /* what a wstat asks for */
	uint32_t mode, atime, mtime, uid, gid;
	uint64_t length;
	char name[NAME_MAX + 1];
};

static int get_change(struct p9_request *r, struct change *c)
{
	char text[PATH_MAX];
	int err = 0;

	p9_get_u16(&r->in); /* of the parameter */
	p9_get_u16(&r->in); /* of the structure */
	cursor_skip(&r->in, 2 + 4 + P9_QID);
	c->mode = p9_get_u32(&r->in);
	c->atime = p9_get_u32(&r->in);
	c->mtime = p9_get_u32(&r->in);
	c->length = p9_get_u64(&r->in);
	err = p9_get_string(&r->in, c->name, sizeof(c->name));
	for (unsigned i = 0; i < 4 && err == 0; i++) /* uid gid muid extension */
		err = p9_get_string(&r->in, text, sizeof(text));
	c->uid = p9_get_u32(&r->in);
	c->gid = p9_get_u32(&r->in);
	p9_get_u32(&r->in);
	return err < 0 ? err : r->in.bad ? -EINVAL : 0;
}

static bool changes_nothing(const struct change *c)
{
	return c->mode == KEEP && c->atime == KEEP && c->mtime == KEEP && c->length == UINT64_MAX &&
	       c->uid == KEEP && c->gid == KEEP && c->name[0] == '\0';
}

static int apply_times(const struct p9_node *n, const struct change *c)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};

	if (c->atime != KEEP)
		t[0] = (struct timespec){.tv_sec = c->atime};
	if (c->mtime != KEEP)
		t[1] = (struct timespec){.tv_sec = c->mtime};
	return p9_set_times(n, t);
}

/* fid[4] n[2] stat[n] → */
int p9_op_wstat(struct p9_request *r)
{
	struct p9_fid *f = r->fid[0];
	struct p9_node *n = f->node;
	struct change c;
	int err = get_change(r, &c);

	if (err == 0 && c.name[0] != '\0')
		err = p9_check_name(r->s, c.name);
	if (err < 0)
		return err;
	if (changes_nothing(&c)) /* stands for fsync */
		return f->fd >= 0 && fsync(f->fd) < 0 ? -errno : 0;
	if (c.length != UINT64_MAX)
		err = p9_set_size(f, c.length);
	if (err == 0 && (c.uid != KEEP || c.gid != KEEP))
		err = p9_map_chown(r->s, n->fd, c.uid, c.gid);
	if (err == 0 && c.mode != KEEP)
		err = p9_map_chmod(r->s, n->fd, mode_of(c.mode));
	if (err == 0 && (c.atime != KEEP || c.mtime != KEEP))
		err = apply_times(n, &c);
	if (err == 0 && c.name[0] != '\0')
		err = p9_rename_file(r, -1, c.name);
	return err;
}
