/* SPDX-License-Identifier: MIT */
/*
 * Unix sockets that have a place in the file system. One that nobody listens on any more is replaced; a live one, or a
 * file that is no socket, is an error. At the end only the file that we made is removed.
 */
#ifndef SOCKPATH_H
#define SOCKPATH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

/* Zeroed: no file of ours. */
struct sockpath {
	char *path; /* owned */
	dev_t dev;
	ino_t ino;
	bool has_group; /* the file shall belong to this group; set before */
	gid_t group;
};

/* 0, or -ENAMETOOLONG, logged after "option=path". */
int sockpath_address(struct sockaddr_un *addr, const char *option, const char *path);
/*
 * A listening socket at path, non-blocking and close-on-exec. option: for messages, "--socket-path". type: SOCK_STREAM or
 * SOCK_SEQPACKET. mode: permission bits, 0: as the umask says. The descriptor, or -errno, logged; then nothing is left behind.
 */
int sockpath_listen(
	struct sockpath *s, const char *option, const char *path, int type, uint32_t mode, int backlog);
/* Removes our file, if it still is ours. */
void sockpath_remove(struct sockpath *s);

#endif
