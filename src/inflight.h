/* SPDX-License-Identifier: MIT */
/*
 * In-flight tracking: a memory area of the front-end's in which we note every buffer we have taken and not
 * given back, so that the next back-end process can take them again after we were killed (vhost-user:
 * "Inflight I/O tracking").
 *
 * The area outlives us and the front-end can write to it, so nothing read from it is trusted: it is read only
 * when a queue starts, with every index checked; while running, our own copies decide and the area is only
 * written. The order of writes (x86 stores are ordered; compiler barriers elsewhere release stores) is what
 * recovery relies on, at whichever instruction the previous process died.
 */
#ifndef INFLIGHT_H
#define INFLIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shmem;

/* A buffer that the area says was in flight, and when it was taken; id: head, or entry of the area. */
struct inflight_mark {
	uint64_t counter;
	uint16_t id;
};
/* Brings marks into the order in which the buffers were taken. */
void inflight_sort(struct inflight_mark *marks, unsigned n);

/* What keeps recovery right is the order in which we store, seen by whoever comes after our death. */
static inline void inflight_order(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* One area for all queues of a device. */
struct inflight {
	struct shmem *shm;
	uint16_t num_queues;
	uint64_t stride; /* bytes per queue */
};

/* Bytes of an area; fits the split and the packed layout, since front-ends may ask before features are known.
 */
uint64_t inflight_bytes(uint16_t num_queues, uint16_t queue_size);
/* A new zeroed memfd of that size: fd or -errno. */
int inflight_create_fd(uint16_t num_queues, uint16_t queue_size);
/* Maps an area; takes *fd over on success. -EINVAL: the numbers do not fit the size. */
int inflight_map(struct inflight *in, int *fd, uint64_t size, uint64_t offset, uint16_t num_queues,
	uint16_t queue_size);
void inflight_unmap(struct inflight *in);
/*
 * A queue's part of the area and how many descriptors it has room for; NULL when it has none. The area must
 * stay mapped while the queue runs.
 */
void *inflight_queue(const struct inflight *in, unsigned index, bool packed, unsigned *num);

#endif
