/* SPDX-License-Identifier: MIT */
/* The in-flight area as a whole. What a queue does with its part is in vring-split.c and vring-packed.c. */
#include "inflight.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shmem.h"
#include "util.h"

enum { HEAD = 32, ENTRY = 32, SPLIT_HEAD = 16, SPLIT_ENTRY = 16 };
/* A driver may use larger rings than the front-end announced (virtio-mmio), so there is room for the usual
 * ones. */
enum { LEAST_ENTRIES = 256 };

uint64_t inflight_bytes(uint16_t num_queues, uint16_t queue_size)
{
	uint64_t n = MAX(queue_size, LEAST_ENTRIES);

	return num_queues * ALIGN_UP(HEAD + ENTRY * n, 64);
}

int inflight_create_fd(uint16_t num_queues, uint16_t queue_size)
{
	CLEANUP_FD int fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)inflight_bytes(num_queues, queue_size)) < 0)
		return -errno;
	return fd_take(&fd);
}

int inflight_map(struct inflight *in, int *fd, uint64_t size, uint64_t offset, uint16_t num_queues,
	uint16_t queue_size)
{
	uint64_t stride = num_queues ? ALIGN_DOWN(size / num_queues, 8) : 0;
	struct shmem *shm;
	int err;

	if (!num_queues || !queue_size || offset % 8 ||
		stride < SPLIT_HEAD + (uint64_t)SPLIT_ENTRY * queue_size)
		return -EINVAL;
	err = shmem_map(&shm, *fd, offset, size, PROT_READ | PROT_WRITE);
	if (err)
		return err;
	*fd = -1;
	inflight_unmap(in);
	in->shm = shm;
	in->num_queues = num_queues;
	in->stride = stride;
	return 0;
}

void inflight_unmap(struct inflight *in)
{
	if (in->shm)
		shmem_unref(in->shm);
	in->shm = NULL;
	in->num_queues = 0;
}

void *inflight_queue(const struct inflight *in, unsigned index, bool packed, unsigned *num)
{
	uint64_t n = packed ? (in->stride - HEAD) / ENTRY : (in->stride - SPLIT_HEAD) / SPLIT_ENTRY;

	*num = 0;
	if (!in->shm || index >= in->num_queues || (packed && in->stride < HEAD + ENTRY))
		return NULL;
	*num = (unsigned)MIN(n, UINT64_C(32768));
	return in->shm->addr + index * in->stride;
}

static int by_counter(const void *a, const void *b)
{
	const struct inflight_mark *x = a, *y = b;

	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

void inflight_sort(struct inflight_mark *marks, unsigned n)
{
	qsort(marks, n, sizeof(*marks), by_counter);
}
