/* SPDX-License-Identifier: MIT */
/*
 * See sockpath.h. Between a look at a path and the first listen() there another process may do the same: each would take
 * the other's socket for one that nobody listens on. So the directory is locked (flock(2)) from the look to listen(), and
 * while a file is removed; where it can't be, or somebody holds that lock for long, we do without.
 */
#include "sockpath.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

enum { LOCK_TRIES = 200, LOCK_PAUSE_NS = 5000000 };

/* Locks the path's directory until what is returned is closed; -1: without. */
static int directory_lock(const char *path)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	const char *slash = strrchr(path, '/');
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = ".";
	int fd, r = -1;

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", (int)MAX(slash - path, 1), path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
	for (int i = 0; fd >= 0 && r < 0 && i < LOCK_TRIES; i++) {
		if (i > 0)
			nanosleep(&pause, NULL);
		r = flock(fd, LOCK_EX | LOCK_NB);
	}
	return fd;
}

int sockpath_address(struct sockaddr_un *addr, const char *option, const char *path)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(addr->sun_path))
		return log_errno(ENAMETOOLONG, "%s=%s: a socket path has at most %zu bytes", option, path,
			sizeof(addr->sun_path) - 1);
	memcpy(addr->sun_path, path, strlen(path) + 1);
	return 0;
}

/* Removes the file at the path if it is a socket that nobody listens on. A listener of another type is one, too. */
static int remove_stale(const char *option, const struct sockaddr_un *addr, int type)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : log_errno(errno, "%s=%s", option, addr->sun_path);
	if (!S_ISSOCK(st.st_mode)) {
		log_error("%s=%s: exists and is no socket", option, addr->sun_path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return log_errno(errno, "socket");
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno != ECONNREFUSED) {
		log_error("%s=%s: another program listens there", option, addr->sun_path);
		return -EADDRINUSE;
	}
	log_info("%s=%s: nobody listens there any more, replaced", option, addr->sun_path);
	if (unlink(addr->sun_path) < 0 && errno != ENOENT)
		return log_errno(errno, "%s=%s", option, addr->sun_path);
	return 0;
}

int sockpath_listen(
	struct sockpath *s, const char *option, const char *path, int type, uint32_t mode, int backlog)
{
	CLEANUP_FD int lock = -1;
	CLEANUP_FD int fd = -1;
	CLEANUP_FREE char *copy = strdup(path);
	struct sockaddr_un addr;
	struct stat st;
	mode_t mask;
	int err = copy ? sockpath_address(&addr, option, path) : log_errno(ENOMEM, "%s=%s", option, path);

	if (err)
		return err;
	lock = directory_lock(path);
	err = remove_stale(option, &addr, type);
	if (err)
		return err;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return log_errno(errno, "socket");
	mask = umask(0);
	umask(mode ? ~(mode_t)mode & 0777 : mask);
	err = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? errno : 0;
	umask(mask);
	if (err)
		return log_errno(err, "%s=%s", option, path);
	if ((s->has_group && lchown(path, (uid_t)-1, s->group) < 0) || listen(fd, backlog) < 0 ||
		lstat(path, &st) < 0) {
		err = errno;
		unlink(path);
		return log_errno(err, "%s=%s", option, path);
	}
	s->path = copy;
	copy = NULL;
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return fd_take(&fd);
}

void sockpath_remove(struct sockpath *s)
{
	CLEANUP_FD int lock UNUSED = s->path ? directory_lock(s->path) : -1;
	struct stat st;

	if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	free(s->path);
	s->path = NULL;
}
