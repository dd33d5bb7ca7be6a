/* SPDX-License-Identifier: MIT */
/* See sockpath.h. */
#include "sockpath.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

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
	CLEANUP_FD int fd = -1;
	CLEANUP_FREE char *copy = strdup(path);
	struct sockaddr_un addr;
	struct stat st;
	mode_t mask;
	int err = copy ? sockpath_address(&addr, option, path) : log_errno(ENOMEM, "%s=%s", option, path);

	if (!err)
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
	struct stat st;

	if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
		unlink(s->path);
	free(s->path);
	s->path = NULL;
}
