/* SPDX-License-Identifier: MIT */
/*
 * Mappings of files that the front-end shares with us: guest memory, the dirty log, the inflight region.
 *
 * The front-end still owns the file and may shrink it. An access past its end then raises SIGBUS. The guard
 * turns that into the end of the session instead of the process: its handler finds the mapping in a table,
 * puts anonymous zero memory over it, so that the access that failed is repeated and goes on harmlessly,
 * marks the loss and writes to an eventfd. The control loop then ends the session with a message. A SIGBUS
 * anywhere else stays fatal.
 */
#ifndef SHMEM_H
#define SHMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct shmem {
	uint8_t *addr;	 /* first byte that was asked for (the mapping may begin earlier, at a page) */
	uint64_t len;	 /* bytes asked for */
	int fd;		 /* our own descriptor of the file (for fallocate), close-on-exec */
	uint64_t offset; /* of addr in the file */
	uint64_t page;	 /* page size of the file: hugetlbfs block size or the system's */
	dev_t dev;	 /* which file it is */
	ino_t ino;
	unsigned refs; /* atomic */
	void *map;     /* what mmap gave */
	size_t map_len;
	int slot; /* in the guard's table */
};

/* So many mappings at a time; tests lower it. */
extern unsigned shmem_max;

/* Installs the SIGBUS handler; returns the eventfd that becomes readable after a loss, or -errno. Once a
 * process. */
int shmem_guard(void);
/* True when a mapping was lost since the last call. */
bool shmem_lost(void);
/* True when this one was. */
bool shmem_is_lost(const struct shmem *s);

/*
 * Maps len bytes at offset of fd, shared, prot as in mmap(2). offset need not be page aligned. Takes fd over
 * on success only. Errors: -EINVAL (empty, overflow, the file is shorter than offset + len), -ENOSPC (guard
 * table full), else from mmap.
 */
int shmem_map(struct shmem **out, int fd, uint64_t offset, uint64_t len, int prot);
/*
 * Gives len bytes at file offset `at` back to the host, both multiples of the page: they read as zeros from then on, for
 * everybody. -EOPNOTSUPP: the file system can't; then at least our own mapping lets go of them. Else -errno.
 */
int shmem_discard(struct shmem *s, uint64_t at, uint64_t len);
struct shmem *shmem_ref(struct shmem *s);
void shmem_unref(struct shmem *s);

#endif
