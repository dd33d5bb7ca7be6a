/* SPDX-License-Identifier: MIT */
/*
 * QEMU's own devices, driven without a guest: a microvm whose processor sleeps, its virtio-mmio devices reached by its qtest socket, with
 * rings and data in memory that is shared. A notification is a line of text on that socket.
 */
#ifndef QTEST_H
#define QTEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vring-driver.h"

struct qtest {
	pid_t pid;
	int fd;
	uint8_t *mem;
	size_t size, used; /* of mem, which is guest memory from address 0 */
};

/* Starts QEMU on a processor (-1: any) with so many bytes of memory, an empty machine and these arguments. */
void qtest_start(struct qtest *t, size_t size, int cpu, const char *const *args);
void qtest_end(struct qtest *t);
/* Zeroed guest memory; its address is the difference to t->mem. */
void *qtest_alloc(struct qtest *t, size_t len, size_t align);

/* The n-th virtio device of this type, from 0: its registers' address. */
uint64_t qtest_device(struct qtest *t, uint32_t type, unsigned n);
/* Resets it and accepts these features, of those that it offers. The value is what was accepted. */
uint64_t qtest_features(struct qtest *t, uint64_t mmio, uint64_t features);
/* Sets up a ring, before qtest_go(). */
void qtest_queue(struct qtest *t, uint64_t mmio, unsigned index, uint16_t num,
	const struct vring_driver_mode *mode, struct vring_driver *ring);
void qtest_go(struct qtest *t, uint64_t mmio);
void qtest_notify(struct qtest *t, uint64_t mmio, unsigned index);

#endif
