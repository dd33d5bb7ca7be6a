/* SPDX-License-Identifier: MIT */
/*
 * The host's files. The one rule here: never leave the exported tree, whatever the guest or somebody on the host renames
 * at the same time.
 *
 * Names are looked up one component at a time, from the descriptor of a directory, with openat2() that refuses links of
 * /proc, "..", and mount points' upper ends; a symbolic link is opened as itself (O_PATH|O_NOFOLLOW), its target is the
 * guest's business. What was found is opened for reading and writing by /proc/self/fd/N, and only if it is a regular file
 * or a directory.
 */
#include "9p.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

enum { MAX_DEVICES = 4096 };

const char *p9_fd_path(char buf[P9_LINK_SIZE], int fd)
{
	snprintf(buf, P9_LINK_SIZE, "/proc/self/fd/%d", fd);
	return buf;
}

static int open_beneath(int dir, const char *path, struct open_how *how)
{
	long r;

	how->flags |= O_CLOEXEC;
	how->resolve |= RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
	do
		r = syscall(SYS_openat2, dir, path, how, sizeof(*how));
	while (r < 0 && (errno == EINTR || (errno == EAGAIN && !(how->resolve & RESOLVE_CACHED))));
	return r < 0 ? -errno : (int)r;
}

int p9_lookup(int dir, const char *name, uint64_t flags)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW, .resolve = flags};

	return open_beneath(dir, name, &how);
}

int p9_create(int dir, const char *name, int flags, mode_t mode)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CREAT | O_EXCL | O_NOFOLLOW), .mode = mode};

	return open_beneath(dir, name, &how);
}

int p9_lookup_path(int dir, const char *path, int flags)
{
	struct open_how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_NO_SYMLINKS};

	return open_beneath(dir, *path ? path : ".", &how);
}

static int stat_by(int fd, int flags, struct statx *st)
{
	flags |= AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
	return statx(fd, "", flags, STATX_BASIC_STATS | STATX_BTIME, st) < 0 ? -errno : 0;
}

int p9_stat(int fd, struct statx *st)
{
	return stat_by(fd, 0, st);
}

int p9_stat_known(int fd, struct statx *st)
{
	return stat_by(fd, AT_STATX_DONT_SYNC, st);
}

bool p9_fs_is_local(int fd)
{
	static const uint32_t magics[] = {TMPFS_MAGIC, RAMFS_MAGIC, HUGETLBFS_MAGIC, EXT4_SUPER_MAGIC,
		XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC};
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if ((uint32_t)fs.f_type == magics[i])
			return true;
	return false;
}

/* What is known of a file system, or NULL. */
static const struct p9_mount *mount_of(const struct p9 *s, dev_t dev)
{
	unsigned n = __atomic_load_n(&s->nmounts, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n; i++)
		if (s->mounts[i].dev == dev)
			return &s->mounts[i];
	return NULL;
}

bool p9_asks_others(const struct p9 *s, dev_t dev)
{
	const struct p9_mount *m;

	if (s->remote || dev == s->root->dev || major(dev) != 0)
		return s->remote;
	m = mount_of(s, dev);
	return !m || m->asks;
}

void p9_learn_mount(struct p9 *s, int fd, dev_t dev)
{
	bool asks;

	if (s->remote || dev == s->root->dev || major(dev) != 0 || mount_of(s, dev))
		return;
	asks = !p9_fs_is_local(fd);
	pthread_mutex_lock(&s->devices_lock);
	if (!mount_of(s, dev) && s->nmounts < P9_MOUNTS) {
		s->mounts[s->nmounts] = (struct p9_mount){dev, asks};
		__atomic_store_n(&s->nmounts, s->nmounts + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&s->devices_lock);
}

int p9_reopen(int fd, int flags)
{
	char link[P9_LINK_SIZE];
	int r = open(p9_fd_path(link, fd), flags | O_CLOEXEC | O_NOCTTY);

	if (r < 0 && errno == EPERM && (flags & O_NOATIME))
		r = open(link, (flags & ~O_NOATIME) | O_CLOEXEC | O_NOCTTY);
	return r < 0 ? -errno : r;
}

/* Names of open files */

static int path_of(int fd, char path[PATH_MAX])
{
	char link[P9_LINK_SIZE];
	ssize_t n = readlink(p9_fd_path(link, fd), path, PATH_MAX);

	if (n < 0)
		return -errno;
	if (n >= PATH_MAX)
		return -ENAMETOOLONG;
	path[n] = '\0';
	return 0;
}

int p9_lookup_same(const struct p9 *s, const char *path, dev_t dev, uint64_t ino)
{
	int fd = p9_lookup_path(s->root->fd, path, O_PATH | O_NOFOLLOW), r;
	struct statx st;

	if (fd < 0)
		return fd == -EMFILE || fd == -ENFILE ? fd : -ESTALE;
	r = p9_stat(fd, &st);
	if (r == 0 && st.stx_ino == ino && makedev(st.stx_dev_major, st.stx_dev_minor) == dev)
		return fd;
	close(fd);
	return -ESTALE;
}

/* The kernel's mark for a name that is gone, which a file with other links may have lost, or a part of the name? */
static bool name_is_gone(const struct p9 *s, const char *path, const struct statx *st)
{
	static const char mark[] = " (deleted)";
	size_t len = strlen(path);
	int fd;

	if (len < sizeof(mark) || strcmp(path + len - (sizeof(mark) - 1), mark) != 0)
		return false;
	fd = p9_lookup_same(s, path, makedev(st->stx_dev_major, st->stx_dev_minor), st->stx_ino);
	if (fd >= 0)
		close(fd);
	return fd < 0;
}

int p9_where(const struct p9 *s, int fd, char path[PATH_MAX])
{
	char root[PATH_MAX];
	struct statx st;
	size_t len;
	int r = p9_stat_known(fd, &st);

	if (r == 0 && st.stx_nlink == 0)
		return -ENOENT;
	if (r == 0)
		r = path_of(fd, path);
	if (r == 0)
		r = path_of(s->root->fd, root);
	if (r < 0)
		return r;
	len = strcmp(root, "/") == 0 ? 0 : strlen(root);
	if (strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0'))
		return -ESTALE;
	len += path[len] == '/';
	memmove(path, path + len, strlen(path + len) + 1);
	return name_is_gone(s, path, &st) ? -ENOENT : 0;
}

int p9_parent(const struct p9 *s, int fd, char name[NAME_MAX + 1])
{
	char path[PATH_MAX], *slash, *last;
	struct statx st, found;
	int r = p9_where(s, fd, path), dir;

	if (r < 0)
		return r;
	if (path[0] == '\0')
		return -EBUSY;
	slash = strrchr(path, '/');
	last = slash ? slash + 1 : path;
	if (strlen(last) > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, last, strlen(last) + 1);
	*(slash ? slash : path) = '\0';
	dir = p9_lookup_path(s->root->fd, path, O_PATH | O_DIRECTORY);
	if (dir < 0)
		return dir;
	r = p9_stat(fd, &st);
	if (r == 0 && statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_INO, &found) < 0)
		r = -errno;
	if (r == 0 && (st.stx_ino != found.stx_ino || st.stx_dev_major != found.stx_dev_major ||
			      st.stx_dev_minor != found.stx_dev_minor))
		r = -ESTALE;
	if (r == 0)
		return dir;
	close(dir);
	return r;
}

/*
 * Qids: the guest takes a qid's path for the identity of a file, but there may be several file systems below the root.
 * Files of the root's have their inode number; those of others the number of their file system, in order of appearance,
 * in the upper 16 bits. Inode numbers that leave no room are hashed.
 */

static uint64_t hash(uint64_t a, uint64_t b)
{
	uint64_t h = (a ^ (b * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xff51afd7ed558ccd);

	h = (h ^ (h >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
	return h ^ (h >> 33);
}

static unsigned device_index(struct p9 *s, dev_t dev)
{
	unsigned i;

	pthread_mutex_lock(&s->devices_lock);
	for (i = 0; i < s->ndevices && s->devices[i] != dev; i++)
		;
	if (i == s->ndevices && i < MAX_DEVICES) {
		dev_t *grown = realloc(s->devices, (i + 1) * sizeof(dev_t));

		if (grown) {
			s->devices = grown;
			s->devices[s->ndevices++] = dev;
		} else {
			i = MAX_DEVICES;
		}
	}
	pthread_mutex_unlock(&s->devices_lock);
	return i;
}

uint64_t p9_qid_path(struct p9 *s, dev_t dev, uint64_t ino)
{
	unsigned i;

	if (likely(dev == s->root->dev && ino >> 48 == 0))
		return ino;
	i = ino >> 48 == 0 ? device_index(s, dev) : MAX_DEVICES;
	if (i < MAX_DEVICES)
		return (uint64_t)(i + 1) << 48 | ino;
	return UINT64_C(0xffff) << 48 | hash(dev, ino) >> 16;
}

void p9_qid_of(struct p9 *s, const struct statx *st, struct p9_qid *q)
{
	q->type = S_ISDIR(st->stx_mode) ? 0x80 : S_ISLNK(st->stx_mode) ? 0x02 : 0;
	q->version =
		(uint32_t)hash((uint64_t)st->stx_mtime.tv_sec, st->stx_mtime.tv_nsec ^ (st->stx_size << 30));
	q->path = p9_qid_path(s, makedev(st->stx_dev_major, st->stx_dev_minor), st->stx_ino);
}

void p9_own_umask(void)
{
	static _Thread_local bool done;

	if (done)
		return;
	done = true;
	if (unshare(CLONE_FS) == 0)
		umask(0);
}
