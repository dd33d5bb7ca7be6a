/* SPDX-License-Identifier: MIT */
/*
 * The split layout (virtio 1.3, 2.7): descriptor table, available ring (driver's), used ring (ours).
 *
 * In-flight area of a split queue: a head of 16 bytes {u64 features, u16 version, u16 desc_num, u16
 * last_batch_head, u16 used_idx} and 16 bytes per head descriptor {u8 inflight, pad, u16 next, u64 counter}.
 * A pop notes counter, then inflight. A publish links the batch through `next` from last_batch_head, moves
 * the used index, clears the marks and copies the index to used_idx. So whoever finds used_idx behind the
 * ring's index knows that the last batch was published, and clears its marks first. The number of marks then
 * tells what was taken from the available ring.
 */
#include "vring.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "le.h"
#include "log.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { AVAIL_IDX = 2, AVAIL_RING = 4, USED_IDX = 2, USED_RING = 4 };

enum { AREA_VERSION = 8, AREA_DESC_NUM = 10, AREA_LAST_BATCH = 12, AREA_USED_IDX = 14, AREA_DESC = 16 };
enum { MARK_SIZE = 16, MARK_INFLIGHT = 0, MARK_NEXT = 6, MARK_COUNTER = 8 };

static inline uint8_t *mark(const struct virtqueue *q, unsigned head)
{
	return (uint8_t *)q->inflight + AREA_DESC + head * (size_t)MARK_SIZE;
}

static int split_map(struct virtqueue *q, const struct guestmem *mem)
{
	void *desc = guestmem_user(mem, q->addr.desc, 16 * (uint64_t)q->num);
	void *avail = guestmem_user(mem, q->addr.avail, AVAIL_RING + 2 * (uint64_t)q->num + 2);
	void *used = guestmem_user(mem, q->addr.used, USED_RING + 8 * (uint64_t)q->num + 2);

	if (!desc || !avail || !used)
		return -EFAULT;
	if ((uintptr_t)desc % 16 || (uintptr_t)avail % 2 || (uintptr_t)used % 4)
		return -EFAULT;
	q->split.desc = desc;
	q->split.avail = avail;
	q->split.used = used;
	return 0;
}

static void split_track(struct virtqueue *q, struct vring_slot *s)
{
	uint8_t *m;

	m = mark(q, s->id);
	s->tracked = true;
	le64_store(m + MARK_COUNTER, q->inflight_counter++);
	inflight_order();
	__atomic_store_n(m + MARK_INFLIGHT, 1, __ATOMIC_RELAXED);
	inflight_order();
}

/* Adds the descriptors from number i on to the slot; false: the queue broke. */
static bool split_add(struct virtqueue *q, struct vring_slot *s, unsigned i)
{
	unsigned seen;

	for (seen = 0; seen < q->num; seen++) {
		const uint8_t *p = (const uint8_t *)q->split.desc + i * (size_t)16;
		uint64_t addr = le64_load(p), rest = le64_load(p + 8);
		uint32_t len = (uint32_t)rest;
		uint16_t flags = (uint16_t)(rest >> 32);

		if (flags & DESC_INDIRECT) {
			if (!(flags & DESC_NEXT))
				return vring_add_indirect(q, s, addr, len, false);
			virtqueue_break(q, "descriptor %u is indirect and has a next one", i);
			return false;
		}
		if (unlikely(!vring_add(q, s, addr, len, flags & DESC_WRITE)))
			return false;
		if (!(flags & DESC_NEXT))
			return true;
		i = (unsigned)(rest >> 48);
		if (unlikely(i >= q->num)) {
			virtqueue_break(q, "a chain goes on at descriptor %u of %" PRIu32, i, q->num);
			return false;
		}
	}
	virtqueue_break(q, "the chain at descriptor %u is a loop", s->id);
	return false;
}

/* The slot of the chain; NULL: the queue broke. */
static inline struct vring_slot *split_chain(struct virtqueue *q, uint16_t head)
{
	struct vring_slot *s;

	if (unlikely(head >= q->num)) {
		virtqueue_break(q, "head %u is outside a ring of %" PRIu32, head, q->num);
		return NULL;
	}
	s = vring_slot(q, head);
	if (unlikely(s->busy)) {
		virtqueue_break(q, "buffer %u is made available twice", head);
		return NULL;
	}
	vring_slot_begin(q, s, head);
	if (likely(split_add(q, s, head)) && likely(vring_slot_take(q, s)))
		return s;
	vring_segs_put(q, s);
	return NULL;
}

/* How many chains are available, up to max; 0 also: the queue broke. */
static unsigned split_available(struct virtqueue *q, unsigned max)
{
	uint16_t n = (uint16_t)(q->split.avail_idx - q->split.last_avail);

	if (n < max) {
		q->split.avail_idx = le16_load_acquire(q->split.avail + AVAIL_IDX);
		n = (uint16_t)(q->split.avail_idx - q->split.last_avail);
	}
	if (unlikely(n > q->num)) {
		virtqueue_break(q, "the available index %u is %u ahead of ours in a ring of %" PRIu32,
			q->split.avail_idx, n, q->num);
		q->split.avail_idx = q->split.last_avail;
		return 0;
	}
	return MIN(n, max);
}

static unsigned split_pop(struct virtqueue *q, struct element **e, unsigned max)
{
	unsigned i, n = split_available(q, max);
	uint16_t head[VRING_BUDGET];

	for (i = 0; i < n; i++) {
		uint64_t at = (uint16_t)(q->split.last_avail + i) & (q->num - 1);

		head[i] = le16_load(q->split.avail + AVAIL_RING + 2 * at);
		__builtin_prefetch((const uint8_t *)q->split.desc + head[i] * (size_t)16);
	}
	for (i = 0; i < n; i++) {
		struct vring_slot *s = split_chain(q, head[i]);

		if (unlikely(!s))
			break;
		s->pos = q->split.last_avail++;
		if (unlikely(q->inflight_num))
			split_track(q, s);
		e[i] = &s->e;
	}
	return i;
}

static struct vring_slot *split_resubmit(struct virtqueue *q)
{
	struct vring_slot *s = split_chain(q, q->resubmit[q->resubmit_next++]);

	if (s) {
		s->tracked = s->resubmitted = true;
		q->inflight_counter++;
	}
	return s;
}

static bool split_pending(struct virtqueue *q)
{
	return le16_load_acquire(q->split.avail + AVAIL_IDX) != q->split.last_avail;
}

/* The driver may use the event index without our having been told, so it is written whatever was negotiated.
 */
static void split_arm(struct virtqueue *q)
{
	uint64_t event = USED_RING + 8 * (uint64_t)q->num;

	le16_store(q->split.used + event, q->split.last_avail);
	vring_log(q, q->addr.log + event, 2);
	if (!q->event_idx) {
		le16_store(q->split.used, 0);
		vring_log(q, q->addr.log, 2);
	}
	le_barrier();
}

static void split_disarm(struct virtqueue *q)
{
	if (q->event_idx)
		return; /* an old avail_event asks for no more kicks by itself */
	le16_store(q->split.used, USED_NO_NOTIFY);
	vring_log(q, q->addr.log, 2);
}

static void split_publish(struct virtqueue *q, struct vring_slot **slots, unsigned n)
{
	uint8_t *area = q->inflight;
	uint16_t idx = q->split.used_idx;
	unsigned i;

	for (i = 0; i < n; i++) {
		struct vring_slot *s = slots[i];
		uint64_t off = USED_RING + 8 * (uint64_t)(idx & (q->num - 1));

		le32_store(q->split.used + off, s->id);
		le32_store(q->split.used + off + 4, s->used_len);
		vring_log(q, q->addr.log + off, 8);
		idx++;
		if (s->tracked) {
			le16_store(mark(q, s->id) + MARK_NEXT, le16_load(area + AREA_LAST_BATCH));
			inflight_order();
			le16_store(area + AREA_LAST_BATCH, s->id);
			inflight_order();
		}
	}
	q->split.used_idx = idx;
	le16_store_release(q->split.used + USED_IDX, idx);
	vring_log(q, q->addr.log, 4);
	if (!area)
		return;
	inflight_order();
	for (i = 0; i < n; i++)
		if (slots[i]->tracked)
			__atomic_store_n(mark(q, slots[i]->id) + MARK_INFLIGHT, 0, __ATOMIC_RELAXED);
	inflight_order();
	le16_store(area + AREA_USED_IDX, idx);
}

static bool split_wants_call(struct virtqueue *q)
{
	uint16_t old = q->split.called_idx, new = q->split.used_idx, event;

	q->split.called_idx = new;
	le_barrier();
	if (!q->event_idx)
		return !(le16_load(q->split.avail) & AVAIL_NO_INTERRUPT);
	event = le16_load(q->split.avail + AVAIL_RING + 2 * (uint64_t)q->num);
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static void split_rewind(struct virtqueue *q, const struct vring_slot *s)
{
	q->split.last_avail = s->pos;
	if (s->tracked)
		__atomic_store_n(mark(q, s->id) + MARK_INFLIGHT, 0, __ATOMIC_RELAXED);
}

/* Clears the marks of a batch that was published but not yet cleared; the list may be nonsense, so it is
 * bounded. */
static void recover_batch(struct virtqueue *q, uint16_t used)
{
	uint8_t *area = q->inflight;
	uint16_t n = (uint16_t)(used - le16_load(area + AREA_USED_IDX)),
		 i = le16_load(area + AREA_LAST_BATCH);

	while (n-- && i < q->inflight_num) {
		__atomic_store_n(mark(q, i) + MARK_INFLIGHT, 0, __ATOMIC_RELAXED);
		i = le16_load(mark(q, i) + MARK_NEXT);
	}
	le16_store(area + AREA_USED_IDX, used);
}

static int split_recover(struct virtqueue *q)
{
	CLEANUP_FREE struct inflight_mark *list = calloc(q->inflight_num, sizeof(*list));
	unsigned i, n = 0;

	if (!list)
		return -ENOMEM;
	recover_batch(q, q->split.used_idx);
	for (i = 0; i < q->inflight_num; i++)
		if (__atomic_load_n(mark(q, i) + MARK_INFLIGHT, __ATOMIC_RELAXED))
			list[n++] = (struct inflight_mark){
				.counter = le64_load(mark(q, i) + MARK_COUNTER), .id = (uint16_t)i};
	inflight_sort(list, n);
	for (i = 0; i < n; i++)
		q->resubmit[i] = list[i].id;
	q->nresubmit = n;
	q->inflight_counter = n ? list[n - 1].counter + 1 : 0;
	q->split.last_avail = (uint16_t)(q->split.used_idx + n);
	if (n)
		log_info("queue %u: %u buffers were in flight and are taken again", q->index, n);
	return 0;
}

static int split_begin(struct virtqueue *q)
{
	uint8_t *area = q->inflight;
	int err = 0;

	q->split.last_avail = (uint16_t)q->base;
	q->split.used_idx = le16_load(q->split.used + USED_IDX);
	q->resumed = q->split.used_idx != 0;
	if (area && le16_load(area + AREA_VERSION) == 1 &&
		le16_load(area + AREA_DESC_NUM) >= q->inflight_num) {
		err = split_recover(q);
		q->resumed = true;
	} else if (area) {
		memset(area, 0, AREA_DESC + q->inflight_num * (size_t)MARK_SIZE);
		le16_store(area + AREA_DESC_NUM, (uint16_t)q->inflight_num);
		le16_store(area + AREA_USED_IDX, q->split.used_idx);
		inflight_order();
		le16_store(area + AREA_VERSION, 1);
	}
	q->split.avail_idx = q->split.last_avail;
	q->split.called_idx = q->split.used_idx;
	return err;
}

static uint32_t split_base(const struct virtqueue *q)
{
	return q->split.last_avail;
}

const struct vring_ops vring_split_ops = {
	.map = split_map,
	.pop = split_pop,
	.pending = split_pending,
	.arm = split_arm,
	.disarm = split_disarm,
	.publish = split_publish,
	.wants_call = split_wants_call,
	.rewind = split_rewind,
	.begin = split_begin,
	.resubmit = split_resubmit,
	.base = split_base,
};
