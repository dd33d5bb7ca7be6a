/* SPDX-License-Identifier: MIT */
/* The ring between two processes; see net-ring.h. The order of stores is that of a virtqueue with event suppression. */
#include "net-ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { PAGE = 4096, RING_HEAD = 16, ALIGN = 16 };

/* Each on a cache line of its own. */
struct ring_shared {
	_Alignas(64) uint64_t head;    /* writer: end of the records */
	_Alignas(64) uint64_t tail;    /* reader: what was taken */
	_Alignas(64) uint32_t asleep;  /* reader: wake me when the head moves */
	_Alignas(64) uint32_t waiting; /* writer: wake me when the tail moves */
};

struct record {
	uint32_t len; /* of the frame */
	struct virtio_net_hdr hdr;
	uint16_t pad;
};

_Static_assert(sizeof(struct record) == RING_HEAD, "a record's header");

static int ring_map(struct net_ring *r, int fd)
{
	void *p = mmap(NULL, PAGE + NET_RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	r->at = p;
	r->data = (uint8_t *)p + PAGE;
	r->mine = r->seen = r->shown = 0;
	return 0;
}

int net_ring_make(struct net_ring *r)
{
	int err;

	r->fd = memfd_create("frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (r->fd < 0)
		return -errno;
	if (ftruncate(r->fd, PAGE + NET_RING_SIZE) < 0 ||
		fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		err = -errno;
	else
		err = ring_map(r, r->fd);
	if (err)
		net_ring_close(r);
	return err;
}

int net_ring_open(struct net_ring *r, int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	r->fd = -1;
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || st.st_size != PAGE + NET_RING_SIZE)
		return -EINVAL; /* it could vanish while we look at it */
	return ring_map(r, fd);
}

void net_ring_close(struct net_ring *r)
{
	if (r->at)
		munmap(r->at, PAGE + NET_RING_SIZE);
	r->at = NULL;
	fd_close(&r->fd);
}

static void copy_in(struct net_ring *r, uint64_t at, const void *src, size_t n)
{
	size_t off = at % NET_RING_SIZE, first = MIN(n, NET_RING_SIZE - off);

	net_copy(r->data + off, src, first);
	if (unlikely(first < n))
		memcpy(r->data, (const uint8_t *)src + first, n - first);
}

/* A frame and the record around it. */
static inline uint64_t record_size(size_t len)
{
	return ALIGN_UP(RING_HEAD + (uint64_t)len, (uint64_t)ALIGN);
}

/* Writer */

bool net_ring_put(struct net_ring *r, const struct net_packet *p)
{
	struct record rec = {.len = (uint32_t)p->len};
	size_t left = p->len;
	uint64_t at = r->mine, total = record_size(p->len);
	unsigned i;

	if (r->mine + total - r->seen > NET_RING_SIZE) {
		uint64_t tail = __atomic_load_n(&r->at->tail, __ATOMIC_ACQUIRE);

		if (tail < r->seen || tail > r->mine)
			tail = r->seen; /* nonsense: the reader gets nothing more */
		r->seen = tail;
		if (r->mine + total - r->seen > NET_RING_SIZE)
			return false;
	}
	memcpy(&rec.hdr, &p->hdr, sizeof(rec.hdr));
	memcpy(r->data + at % NET_RING_SIZE, &rec, RING_HEAD); /* aligned: in one piece */
	at += RING_HEAD;
	for (i = 0; i < p->n && left; i++) {
		size_t n = MIN(p->iov[i].iov_len, left);

		copy_in(r, at, p->iov[i].iov_base, n);
		at += n;
		left -= n;
	}
	r->mine += total;
	return true;
}

bool net_ring_publish(struct net_ring *r)
{
	if (r->shown == r->mine)
		return false;
	r->shown = r->mine;
	__atomic_store_n(&r->at->head, r->mine, __ATOMIC_RELEASE);
	le_barrier();
	if (!__atomic_load_n(&r->at->asleep, __ATOMIC_RELAXED))
		return false;
	__atomic_store_n(&r->at->asleep, 0, __ATOMIC_RELAXED);
	return true;
}

bool net_ring_wait(struct net_ring *r)
{
	uint64_t tail;

	__atomic_store_n(&r->at->waiting, 1, __ATOMIC_RELAXED);
	le_barrier();
	tail = __atomic_load_n(&r->at->tail, __ATOMIC_ACQUIRE);
	return tail <= r->mine && r->mine - tail <= NET_RING_SIZE / 2;
}

/* Reader */

/* The record at a position before r->seen, believed only when it ends there or before. */
static bool record_at(const struct net_ring *r, uint64_t at, struct net_packet *p, struct iovec v[2])
{
	struct record rec;
	size_t off, first;

	memcpy(&rec, r->data + at % NET_RING_SIZE, RING_HEAD);
	if (rec.len < NET_MIN_FRAME || rec.len > NET_MAX_FRAME || record_size(rec.len) > r->seen - at)
		return false;
	off = (at + RING_HEAD) % NET_RING_SIZE;
	first = MIN((size_t)rec.len, NET_RING_SIZE - off);
	v[0] = (struct iovec){r->data + off, first};
	v[1] = (struct iovec){r->data, rec.len - first};
	*p = (struct net_packet){.iov = v, .n = first < rec.len ? 2 : 1, .len = rec.len};
	memcpy(&p->hdr, &rec.hdr, sizeof(rec.hdr));
	p->hdr.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	return true;
}

int net_ring_peek(struct net_ring *r, struct net_packet *p, struct iovec *v, unsigned max)
{
	uint64_t at = r->mine;
	unsigned n;

	if (at == r->seen) {
		uint64_t head = __atomic_load_n(&r->at->head, __ATOMIC_ACQUIRE);

		if (head < at || head - at > NET_RING_SIZE || head % ALIGN)
			return -EPROTO;
		r->seen = head;
	}
	for (n = 0; n < max && at != r->seen; n++) {
		if (!record_at(r, at, &p[n], &v[2 * n]))
			return n ? (int)n : -EPROTO;
		at += record_size(p[n].len);
	}
	return (int)n;
}

void net_ring_take(struct net_ring *r, const struct net_packet *p, unsigned n)
{
	while (n--)
		r->mine += record_size(p++->len);
}

bool net_ring_released(struct net_ring *r)
{
	if (r->shown == r->mine)
		return false;
	r->shown = r->mine;
	__atomic_store_n(&r->at->tail, r->mine, __ATOMIC_RELEASE);
	le_barrier();
	if (!__atomic_load_n(&r->at->waiting, __ATOMIC_RELAXED) || r->seen - r->mine > NET_RING_SIZE / 2)
		return false;
	__atomic_store_n(&r->at->waiting, 0, __ATOMIC_RELAXED);
	return true;
}

bool net_ring_sleep(struct net_ring *r)
{
	__atomic_store_n(&r->at->asleep, 1, __ATOMIC_RELAXED);
	le_barrier();
	return __atomic_load_n(&r->at->head, __ATOMIC_ACQUIRE) != r->mine;
}
