/* SPDX-License-Identifier: MIT */
/*
 * The dirty log: a bitmap shared with the front-end, one bit per 4 KiB page of guest-physical memory, in
 * which we mark what we wrote while the VM migrates (vhost-user: "Migration", virtio has no part in it).
 *
 * Marking comes after the write and before the driver or the front-end can learn of it. Bits are set with an
 * atomic OR, since the front-end clears them at the same time. Pages past the bitmap's end are ignored (and
 * said once).
 */
#ifndef DIRTYLOG_H
#define DIRTYLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dirtylog;

/* Maps size bytes at offset of *fd (taken over on success). One reference. */
int dirtylog_new(struct dirtylog **out, int *fd, uint64_t size, uint64_t offset);
struct dirtylog *dirtylog_ref(struct dirtylog *log);
void dirtylog_unref(struct dirtylog *log);
/* See shmem_is_lost(). */
bool dirtylog_is_lost(const struct dirtylog *log);
/* Any thread. len 0 marks nothing. */
void dirtylog_mark(struct dirtylog *log, uint64_t gpa, uint64_t len);

#endif
