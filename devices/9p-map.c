/* SPDX-License-Identifier: MIT */
/*
 * Owners, modes and kinds of files as the guest has them.
 *
 * passthrough and none: they are the host's, after the ids went through --map-uid, --map-gid and --squash; none does not
 * mind when an owner cannot be set. mapped-xattr and mapped-file: the host's files belong to us, are regular files or
 * directories and have --fmode or --dmode; what the guest has instead is kept beside them, so that we need no privileges
 * and the guest cannot make device nodes or set-user-id programs on the host. Format and names are those of QEMU's models
 * of the same names, so that trees can be exchanged:
 *
 * - extended attributes user.virtfs.uid, .gid, .mode (32 bits, little-endian), .rdev (64 bits);
 * - DIR/.virtfs_metadata/NAME with lines virtfs.uid=N …, for the root itself .virtfs_metadata_root.
 */
#include "9p.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define META_DIR  ".virtfs_metadata"
#define META_ROOT ".virtfs_metadata_root"
#define PREFIX	  "user.virtfs."

enum { META_MAX = 512 }; /* bytes of a metadata file */

static pthread_mutex_t meta_lock =
	PTHREAD_MUTEX_INITIALIZER; /* a file that is written is empty for a moment */

struct kept { /* what is kept for a file; bit set of what is there */
	enum { KEPT_UID = 1, KEPT_GID = 2, KEPT_MODE = 4, KEPT_RDEV = 8 } has;
	uint32_t uid, gid, mode;
	uint64_t rdev;
};

bool p9_mapped(const struct p9 *s)
{
	return s->security == P9_MAPPED_XATTR || s->security == P9_MAPPED_FILE;
}

/* Ids */

uint32_t p9_to_host(const struct p9 *s, const struct p9_ids *ids, uint32_t id)
{
	if (id == P9_NOUID)
		return id;
	if (s->squash == P9_SQUASH_ALL || (s->squash == P9_SQUASH_ROOT && id == 0))
		return ids == &s->uids ? s->anon_uid : s->anon_gid;
	for (unsigned i = 0; i < ids->n; i++) {
		if (id - ids->range[i].guest < ids->range[i].count)
			return ids->range[i].host + (id - ids->range[i].guest);
	}
	if (ids->n)
		return ids == &s->uids ? s->anon_uid : s->anon_gid;
	return id;
}

static uint32_t to_guest(const struct p9 *s, const struct p9_ids *ids, uint32_t id)
{
	for (unsigned i = 0; i < ids->n; i++) {
		if (id - ids->range[i].host < ids->range[i].count)
			return ids->range[i].guest + (id - ids->range[i].host);
	}
	if (ids->n)
		return ids == &s->uids ? s->anon_uid : s->anon_gid;
	return id;
}

/* Extended attributes */

static bool xattr_u32(const char *path, const char *name, uint32_t *v)
{
	uint32_t raw;

	if (getxattr(path, name, &raw, sizeof(raw)) != sizeof(raw))
		return false;
	*v = le32toh(raw);
	return true;
}

static void xattr_load(int fd, struct kept *k)
{
	char path[P9_LINK_SIZE];
	uint64_t rdev;

	p9_fd_path(path, fd);
	k->has |= xattr_u32(path, PREFIX "uid", &k->uid) ? KEPT_UID : 0;
	k->has |= xattr_u32(path, PREFIX "gid", &k->gid) ? KEPT_GID : 0;
	k->has |= xattr_u32(path, PREFIX "mode", &k->mode) ? KEPT_MODE : 0;
	if ((k->has & KEPT_MODE) && (S_ISCHR(k->mode) || S_ISBLK(k->mode)) &&
		getxattr(path, PREFIX "rdev", &rdev, sizeof(rdev)) == sizeof(rdev)) {
		k->rdev = le64toh(rdev);
		k->has |= KEPT_RDEV;
	}
}

static int xattr_save(int fd, const struct kept *k)
{
	uint32_t uid = htole32(k->uid), gid = htole32(k->gid), mode = htole32(k->mode);
	uint64_t rdev = htole64(k->rdev);
	char path[P9_LINK_SIZE];

	p9_fd_path(path, fd);
	if (((k->has & KEPT_UID) && setxattr(path, PREFIX "uid", &uid, sizeof(uid), 0) < 0) ||
		((k->has & KEPT_GID) && setxattr(path, PREFIX "gid", &gid, sizeof(gid), 0) < 0) ||
		((k->has & KEPT_MODE) && setxattr(path, PREFIX "mode", &mode, sizeof(mode), 0) < 0) ||
		((k->has & KEPT_RDEV) && setxattr(path, PREFIX "rdev", &rdev, sizeof(rdev), 0) < 0))
		return -errno;
	return 0;
}

/* Files with metadata */

/* The directory of metadata files for those in dir, -errno. */
static int meta_dir(int dir, bool create)
{
	int fd = p9_lookup_path(dir, META_DIR, O_PATH | O_DIRECTORY);

	if (fd != -ENOENT || !create)
		return fd;
	if (mkdirat(dir, META_DIR, 0700) < 0 && errno != EEXIST)
		return -errno;
	return p9_lookup_path(dir, META_DIR, O_PATH | O_DIRECTORY);
}

/* The metadata file of fd, which is dir/name, or wherever it is when dir is -1. -errno. */
static int meta_open(const struct p9 *s, int fd, int dir, const char *name, bool write)
{
	int flags = write ? O_RDWR | O_CREAT | O_NOFOLLOW : O_RDONLY | O_NOFOLLOW;
	CLEANUP_FD int parent = -1, meta = -1;
	char own_name[NAME_MAX + 1];
	int r;

	if (dir < 0) {
		parent = p9_parent(s, fd, own_name);
		if (parent == -EBUSY) {
			r = openat(s->root->fd, META_ROOT, flags | O_CLOEXEC | O_NONBLOCK, 0600);
			return r < 0 ? -errno : r;
		}
		if (parent < 0)
			return parent;
		dir = parent;
		name = own_name;
	}
	meta = meta_dir(dir, write);
	if (meta < 0)
		return meta;
	r = openat(meta, name, flags | O_CLOEXEC | O_NONBLOCK, 0600);
	return r < 0 ? -errno : r;
}

static void meta_read(int file, struct kept *k)
{
	char text[META_MAX + 1], *line, *rest = text;
	unsigned long long v;
	ssize_t n = pread(file, text, META_MAX, 0);

	text[MAX(n, 0)] = '\0';
	while ((line = strsep(&rest, "\n"))) {
		if (sscanf(line, "virtfs.uid=%llu", &v) == 1) {
			k->uid = (uint32_t)v;
			k->has |= KEPT_UID;
		} else if (sscanf(line, "virtfs.gid=%llu", &v) == 1) {
			k->gid = (uint32_t)v;
			k->has |= KEPT_GID;
		} else if (sscanf(line, "virtfs.mode=%llu", &v) == 1) {
			k->mode = (uint32_t)v;
			k->has |= KEPT_MODE;
		} else if (sscanf(line, "virtfs.rdev=%llu", &v) == 1) {
			k->rdev = v;
			k->has |= KEPT_RDEV;
		}
	}
}

static void meta_load(const struct p9 *s, int fd, int dir, const char *name, struct kept *k)
{
	CLEANUP_FD int file = meta_open(s, fd, dir, name, false);

	if (file < 0)
		return;
	pthread_mutex_lock(&meta_lock);
	meta_read(file, k);
	pthread_mutex_unlock(&meta_lock);
}

static int meta_write(int file, const struct kept *k)
{
	char text[META_MAX];
	int n = 0;

	if (k->has & KEPT_UID)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.uid=%u\n", k->uid);
	if (k->has & KEPT_GID)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.gid=%u\n", k->gid);
	if (k->has & KEPT_MODE)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.mode=%u\n", k->mode);
	if (k->has & KEPT_RDEV)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.rdev=%llu\n",
			(unsigned long long)k->rdev);
	if (ftruncate(file, 0) < 0 || pwrite(file, text, (size_t)n, 0) != n)
		return -(errno ? errno : EIO);
	return 0;
}

static int meta_save(
	const struct p9 *s, int fd, int dir, const char *name, const struct kept *new, bool fresh)
{
	CLEANUP_FD int file = meta_open(s, fd, dir, name, true);
	struct kept k = {0};
	int r;

	if (file < 0)
		return file;
	pthread_mutex_lock(&meta_lock);
	if (!fresh)
		meta_read(file, &k);
	k.has |= new->has;
	k.uid = new->has &KEPT_UID ? new->uid : k.uid;
	k.gid = new->has &KEPT_GID ? new->gid : k.gid;
	k.mode = new->has &KEPT_MODE ? new->mode : k.mode;
	k.rdev = new->has &KEPT_RDEV ? new->rdev : k.rdev;
	r = meta_write(file, &k);
	pthread_mutex_unlock(&meta_lock);
	return r;
}

static int keep(const struct p9 *s, int fd, int dir, const char *name, const struct kept *k, bool fresh)
{
	if (s->security == P9_MAPPED_XATTR)
		return xattr_save(fd, k);
	return meta_save(s, fd, dir, name, k, fresh);
}

/* What the guest sees */

void p9_map_stat(const struct p9 *s, int fd, int dir, const char *name, struct statx *st)
{
	struct kept k = {0};

	if (!p9_mapped(s)) {
		st->stx_uid = to_guest(s, &s->uids, st->stx_uid);
		st->stx_gid = to_guest(s, &s->gids, st->stx_gid);
		return;
	}
	if (s->security == P9_MAPPED_FILE)
		meta_load(s, fd, dir, name, &k);
	else if (S_ISREG(st->stx_mode) || S_ISDIR(st->stx_mode))
		xattr_load(fd, &k);
	if (k.has & KEPT_UID)
		st->stx_uid = k.uid;
	if (k.has & KEPT_GID)
		st->stx_gid = k.gid;
	/* a directory stays one, and nothing else becomes one: the rest of the device goes by the host's kind */
	if ((k.has & KEPT_MODE) && S_ISDIR(k.mode) == S_ISDIR(st->stx_mode))
		st->stx_mode = (uint16_t)k.mode;
	if (k.has & KEPT_RDEV) {
		st->stx_rdev_major = major(k.rdev);
		st->stx_rdev_minor = minor(k.rdev);
	}
}

/* What the guest sets */

mode_t p9_map_mode(const struct p9 *s, uint32_t mode)
{
	if (!p9_mapped(s))
		return mode & 01777; /* the rest once it has its owner */
	return S_ISDIR(mode) ? s->dmode : s->fmode;
}

static int made_really(const struct p9 *s, int fd, const struct p9_made *m)
{
	uid_t uid = p9_to_host(s, &s->uids, m->uid);
	gid_t gid = p9_to_host(s, &s->gids, m->gid);
	char path[P9_LINK_SIZE];

	if ((uid != P9_NOUID || gid != P9_NOUID) && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 &&
		s->security == P9_PASSTHROUGH)
		return -errno;
	/* chown takes these away */
	if (!S_ISLNK(m->mode) && (m->mode & (S_ISUID | S_ISGID)) &&
		chmod(p9_fd_path(path, fd), m->mode & 07777) < 0)
		return -errno;
	return 0;
}

int p9_map_made(const struct p9 *s, int fd, int dir, const char *name, const struct p9_made *m)
{
	struct kept k = {.has = KEPT_MODE, .mode = m->mode, .uid = m->uid, .gid = m->gid, .rdev = m->rdev};

	if (!p9_mapped(s))
		return made_really(s, fd, m);
	if (m->uid != P9_NOUID)
		k.has |= KEPT_UID;
	if (m->gid != P9_NOUID)
		k.has |= KEPT_GID;
	if (S_ISCHR(m->mode) || S_ISBLK(m->mode))
		k.has |= KEPT_RDEV;
	return keep(s, fd, dir, name, &k, true);
}

int p9_map_chmod(const struct p9 *s, int fd, uint32_t mode)
{
	struct kept k = {.has = KEPT_MODE};
	char path[P9_LINK_SIZE];
	struct statx st;
	int r;

	if (!p9_mapped(s))
		return chmod(p9_fd_path(path, fd), mode & 07777) < 0 ? -errno : 0;
	r = p9_stat(fd, &st);
	if (r < 0)
		return r;
	p9_map_stat(s, fd, -1, NULL, &st);
	k.mode = (st.stx_mode & S_IFMT) | (mode & 07777);
	return keep(s, fd, -1, NULL, &k, false);
}

int p9_map_chown(const struct p9 *s, int fd, uint32_t uid, uint32_t gid)
{
	struct kept k = {.uid = uid, .gid = gid};

	if (!p9_mapped(s)) {
		uid = p9_to_host(s, &s->uids, uid);
		gid = p9_to_host(s, &s->gids, gid);
		if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 &&
			(s->security == P9_PASSTHROUGH || errno != EPERM))
			return -errno;
		return 0;
	}
	k.has = (uid != P9_NOUID ? KEPT_UID : 0) | (gid != P9_NOUID ? KEPT_GID : 0);
	return keep(s, fd, -1, NULL, &k, false);
}

/* Names */

void p9_map_unlinked(const struct p9 *s, int dir, const char *name)
{
	CLEANUP_FD int meta = -1;

	if (s->security != P9_MAPPED_FILE)
		return;
	meta = meta_dir(dir, false);
	if (meta >= 0)
		unlinkat(meta, name, 0);
}

void p9_map_linked(const struct p9 *s, int from, int dir, const char *name)
{
	CLEANUP_FD int old = -1, meta = -1;
	char path[P9_LINK_SIZE];

	if (s->security != P9_MAPPED_FILE)
		return;
	old = meta_open(s, from, -1, NULL, false);
	meta = old < 0 ? -1 : meta_dir(dir, true);
	if (meta >= 0)
		linkat(AT_FDCWD, p9_fd_path(path, old), meta, name, AT_SYMLINK_FOLLOW);
}

void p9_map_renamed(const struct p9 *s, int from, const char *old, int to, const char *new)
{
	CLEANUP_FD int meta_from = -1, meta_to = -1;

	if (s->security != P9_MAPPED_FILE)
		return;
	meta_from = meta_dir(from, false);
	meta_to = meta_dir(to, meta_from >= 0);
	if (meta_from >= 0 && meta_to >= 0 && renameat(meta_from, old, meta_to, new) == 0)
		return;
	if (meta_to >= 0)
		unlinkat(meta_to, new, 0);
}

/* Calls each for what is in the directory at, but dots, until it returns false. False: it did, or the directory can't be read. */
static bool each_in(int at, bool (*each)(int dir, const char *name))
{
	int fd = p9_lookup_path(at, "", O_RDONLY | O_DIRECTORY);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool all = d;

	if (!d) {
		fd_close(&fd);
		return false;
	}
	while (all && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			all = each(dirfd(d), e->d_name);
	closedir(d);
	return all;
}

static bool is_metadata(int dir, const char *name)
{
	(void)dir;
	return strcmp(name, META_DIR) == 0;
}

static bool forget(int dir, const char *name)
{
	return unlinkat(dir, name, 0) == 0;
}

/* Before the removal of a directory: its metadata goes, that of files which the host has removed too, if nothing else is in it. */
void p9_map_rmdir(const struct p9 *s, int dir, const char *name)
{
	CLEANUP_FD int fd = -1, meta = -1;

	if (s->security != P9_MAPPED_FILE)
		return;
	fd = p9_lookup_path(dir, name, O_PATH | O_DIRECTORY);
	if (fd < 0 || unlinkat(fd, META_DIR, AT_REMOVEDIR) == 0 || errno != ENOTEMPTY)
		return;
	meta = each_in(fd, is_metadata) ? meta_dir(fd, false) : -1;
	if (meta >= 0 && each_in(meta, forget))
		unlinkat(fd, META_DIR, AT_REMOVEDIR);
}

/* Extended attributes of the guest: those outside of "user." are kept in there too where owners are mapped. */

int p9_map_xattr(const struct p9 *s, const char *name, char host[XATTR_NAME_MAX + 1])
{
	bool kept_there = p9_mapped(s) && strncmp(name, "user.", 5) != 0;

	if (p9_mapped(s) && strncmp(name, PREFIX, strlen(PREFIX)) == 0)
		return -EACCES;
	if (kept_there && !strchr(name, '.')) /* our own have no dot */
		return -EOPNOTSUPP;
	if (snprintf(host, XATTR_NAME_MAX + 1, "%s%s", kept_there ? PREFIX : "", name) > XATTR_NAME_MAX)
		return -ERANGE;
	return 0;
}

size_t p9_map_xattr_list(const struct p9 *s, char *list, size_t size)
{
	size_t prefix = strlen(PREFIX), done = 0;

	if (!p9_mapped(s))
		return size;
	for (size_t at = 0, n; at < size; at += n) {
		const char *name = list + at;
		size_t skip = 0;

		n = strlen(name) + 1;
		if (strncmp(name, PREFIX, prefix) == 0)
			skip = prefix;
		else if (strncmp(name, "user.", 5) != 0)
			continue;
		if (skip && !strchr(name + skip, '.')) /* our own */
			continue;
		memmove(list + done, name + skip, n - skip);
		done += n - skip;
	}
	return done;
}
