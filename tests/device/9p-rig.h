/* SPDX-License-Identifier: MIT */
/* The one client of a test of 9p, and the host beside it. */
#ifndef TESTS_9P_RIG_H
#define TESTS_9P_RIG_H

#include "9p-client.h"

extern struct client c;

/* dir/name; one of the last eight. */
const char *path_in(const char *dir, const char *name);
void host_write(const char *dir, const char *name, const char *text);
void host_is(const char *dir, const char *name, const char *text);
mode_t host_mode(const char *dir, const char *name);
void host_lock(int fd, short type, off_t start, off_t len);
/* The file of an open fid holds just this. */
void guest_is(uint32_t fid, const char *text);
/* Counts the entries of an open directory; the one called name must be among them when it is given. */
unsigned list(uint32_t fid, const char *name, uint32_t count);
int set_xattr(uint32_t dir, const char *name, const char *key, const char *value);
int set_xattr_by(uint32_t dir, const char *name, const char *key, const char *value, uint32_t flags);
int mknod_at(uint32_t dir, const char *name, uint32_t mode, uint32_t maj, uint32_t min);
int set_owner(uint32_t fid, uint32_t mode, uint32_t uid, uint32_t gid);
/* A write lock that waits, by the message of this slot. */
void send_lock(unsigned slot, uint32_t fid, uint64_t start, uint64_t len);

#endif
