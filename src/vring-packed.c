/* SPDX-License-Identifier: MIT */
/*
 * The packed layout (virtio 1.3, 2.8): one descriptor ring that both sides write, and two event suppression
 * areas.
 *
 * A buffer's slot can't be found by ring position, since used descriptors are written over those of buffers
 * that are still out, nor by buffer id, which we learn at the end of a chain. So slots come from a stack.
 *
 * In-flight area of a packed queue: a head of 32 bytes and 32 bytes per descriptor. Because used descriptors
 * overwrite what we took, the area holds copies of all descriptors that are out, chained from the entry of
 * their head, and a list of free entries. What a pop takes from the list counts only once old_free_head
 * follows free_head; what a publish returns counts only once old_* follow; recovery commits or rolls back by
 * looking whether the first used descriptor of the last batch reached the ring. A mark of an entry that is on the free
 * list does not count. What differs from the order that the protocol's text suggests: positions and wrap counters are
 * written in one store, a recovery takes back the used descriptors of a batch that did not become visible.
 */
#include "vring.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "le.h"
#include "log.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };
enum { EVENT_OFF = 0, EVENT_FLAGS = 2 };

enum {
	AREA_VERSION = 8,
	AREA_DESC_NUM = 10,
	AREA_FREE = 12,
	AREA_OLD_FREE = 14,
	AREA_PLACES = 16, /* u16 used, u16 old_used, u8 used_wrap, u8 old_used_wrap, 2 bytes of nothing */
	AREA_DESC = 32,
};
enum {
	ENTRY_SIZE = 32,
	ENTRY_INFLIGHT = 0,
	ENTRY_NEXT = 2,
	ENTRY_LAST = 4,
	ENTRY_NUM = 6,
	ENTRY_COUNTER = 8,
	ENTRY_ID = 16,
	ENTRY_FLAGS = 18,
	ENTRY_LEN = 20,
	ENTRY_ADDR = 24,
};

struct desc { /* our copy of one */
	uint64_t addr;
	uint32_t len;
	uint16_t id, flags;
};

static inline uint8_t *entry(const struct virtqueue *q, unsigned i)
{
	return (uint8_t *)q->inflight + AREA_DESC + i * (size_t)ENTRY_SIZE;
}

struct place { /* in the ring */
	uint16_t pos;
	bool wrap;
};

/* All in one store: a position with the other's wrap counter would mean another lap. */
static void area_set_places(struct virtqueue *q, struct place used, struct place old)
{
	le64_store((uint8_t *)q->inflight + AREA_PLACES,
		used.pos | (uint64_t)old.pos << 16 | (uint64_t)used.wrap << 32 | (uint64_t)old.wrap << 40);
}

static void area_places(const struct virtqueue *q, struct place *used, struct place *old)
{
	uint64_t v = le64_load((const uint8_t *)q->inflight + AREA_PLACES);

	*used = (struct place){.pos = (uint16_t)v, .wrap = v >> 32 & 1};
	*old = (struct place){.pos = (uint16_t)(v >> 16), .wrap = v >> 40 & 1};
}

static inline struct place next_used(const struct virtqueue *q)
{
	return (struct place){.pos = q->packed_.next_used, .wrap = q->packed_.used_wrap};
}

static inline void advance(const struct virtqueue *q, uint16_t *pos, bool *wrap, unsigned n)
{
	unsigned p = *pos + n;

	if (p >= q->num) {
		p -= q->num;
		*wrap = !*wrap;
	}
	*pos = (uint16_t)p;
}

static int packed_map(struct virtqueue *q, const struct guestmem *mem)
{
	uint8_t *ring = guestmem_user(mem, q->addr.desc, 16 * (uint64_t)q->num);
	uint8_t *driver = guestmem_user(mem, q->addr.avail, 4), *device = guestmem_user(mem, q->addr.used, 4);

	if (!ring || !driver || !device)
		return -EFAULT;
	if ((uintptr_t)ring % 16 || (uintptr_t)driver % 4 || (uintptr_t)device % 4)
		return -EFAULT;
	q->packed_.ring = ring;
	q->packed_.driver = driver;
	q->packed_.device = device;
	/* the log address of the protocol knows only one place; a packed ring is written at two */
	if (!guestmem_reverse(mem, ring, &q->packed_.ring_gpa) ||
		!guestmem_reverse(mem, device, &q->packed_.device_gpa))
		return -EFAULT;
	return 0;
}

/* Taking */

/* Notes one descriptor in the area; false: no free entry is left. */
static bool track(struct virtqueue *q, struct vring_slot *s, const struct desc *d, bool first, bool last)
{
	unsigned free = q->packed_.free_head;
	uint8_t *head = entry(q, s->entry), *e;

	if (free >= q->inflight_num)
		return false;
	e = entry(q, free);
	if (first) {
		le16_store(head + ENTRY_NUM, 0);
		le64_store(head + ENTRY_COUNTER, q->inflight_counter++);
		inflight_order();
		__atomic_store_n(head + ENTRY_INFLIGHT, 1, __ATOMIC_RELAXED);
	}
	if (last)
		le16_store(head + ENTRY_LAST, (uint16_t)free);
	le16_store(head + ENTRY_NUM, (uint16_t)(le16_load(head + ENTRY_NUM) + 1));
	le64_store(e + ENTRY_ADDR, d->addr);
	le32_store(e + ENTRY_LEN, d->len);
	le16_store(e + ENTRY_FLAGS, d->flags);
	le16_store(e + ENTRY_ID, d->id);
	s->last_entry = (uint16_t)free;
	q->packed_.free_head = q->packed_.free_next[free];
	le16_store((uint8_t *)q->inflight + AREA_FREE, q->packed_.free_head);
	inflight_order();
	if (last) {
		le16_store((uint8_t *)q->inflight + AREA_OLD_FREE, q->packed_.free_head);
		inflight_order();
	}
	return true;
}

/* Puts a chain's entries back at the front of the free list. */
static void untrack(struct virtqueue *q, const struct vring_slot *s)
{
	q->packed_.free_next[s->last_entry] = q->packed_.free_head;
	le16_store(entry(q, s->last_entry) + ENTRY_NEXT, q->packed_.free_head);
	inflight_order();
	q->packed_.free_head = s->entry;
	le16_store((uint8_t *)q->inflight + AREA_FREE, s->entry);
	inflight_order();
}

static inline bool desc_available(uint16_t flags, bool wrap)
{
	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

static bool packed_pending(struct virtqueue *q)
{
	const uint8_t *d = q->packed_.ring + 16 * (size_t)q->packed_.next_avail;

	return desc_available(le16_load_acquire(d + 14), q->packed_.avail_wrap);
}

static bool packed_add(struct virtqueue *q, struct vring_slot *s, const struct desc *d)
{
	if (likely(!(d->flags & DESC_INDIRECT)))
		return vring_add(q, s, d->addr, d->len, d->flags & DESC_WRITE);
	if (!(d->flags & DESC_NEXT))
		return vring_add_indirect(q, s, d->addr, d->len, true);
	virtqueue_break(q, "an indirect descriptor has a next one");
	return false;
}

static struct vring_slot *free_slot(struct virtqueue *q)
{
	struct vring_slot *s;

	if (!q->packed_.nfree) {
		virtqueue_break(
			q, "more buffers are available than the ring of %" PRIu32 " can hold", q->num);
		return NULL;
	}
	s = vring_slot(q, q->packed_.free_slots[q->packed_.nfree - 1]);
	vring_slot_begin(q, s, 0);
	return s;
}

static inline struct desc load_desc(const struct virtqueue *q, unsigned i)
{
	const uint8_t *p = q->packed_.ring + 16 * (size_t)i;
	uint64_t rest = le64_load(p + 8);

	return (struct desc){.addr = le64_load(p),
		.len = (uint32_t)rest,
		.id = (uint16_t)(rest >> 32),
		.flags = (uint16_t)(rest >> 48)};
}

/* The descriptors of a chain from *at on, which is moved behind it; false: the queue broke. */
static bool packed_chain(struct virtqueue *q, struct vring_slot *s, struct place *at)
{
	bool tracked = q->inflight_num, first = true;
	struct desc d;

	s->ndesc = 0;
	s->entry = q->packed_.free_head;
	do {
		d = load_desc(q, at->pos);
		if (unlikely(++s->ndesc > q->num - q->packed_.outstanding)) {
			virtqueue_break(q, "a chain is longer than the ring has room for");
			goto broken;
		}
		if (tracked && !track(q, s, &d, first, !(d.flags & DESC_NEXT))) {
			virtqueue_break(q, "more descriptors are out than can be tracked");
			goto broken;
		}
		first = false;
		if (unlikely(!packed_add(q, s, &d)))
			goto broken;
		advance(q, &at->pos, &at->wrap, 1);
	} while (d.flags & DESC_NEXT);
	s->id = d.id;
	s->tracked = tracked;
	if (likely(vring_slot_take(q, s)))
		return true;
broken:
	if (tracked && !first) { /* its entries are all at the old front of the free list */
		q->packed_.free_head = s->entry;
		le16_store((uint8_t *)q->inflight + AREA_OLD_FREE, s->entry);
		inflight_order();
		le16_store((uint8_t *)q->inflight + AREA_FREE, s->entry);
		__atomic_store_n(entry(q, s->entry) + ENTRY_INFLIGHT, 0, __ATOMIC_RELAXED);
	}
	vring_segs_put(q, s);
	return false;
}

static unsigned packed_pop(struct virtqueue *q, struct element **e, unsigned max)
{
	unsigned i;

	for (i = 0; i < max && packed_pending(q); i++) {
		struct place at = {.pos = q->packed_.next_avail, .wrap = q->packed_.avail_wrap};
		struct vring_slot *s = free_slot(q);

		if (unlikely(!s))
			break;
		s->pos = at.pos;
		s->pos_wrap = at.wrap;
		if (unlikely(!packed_chain(q, s, &at)))
			break;
		q->packed_.next_avail = at.pos;
		q->packed_.avail_wrap = at.wrap;
		q->packed_.outstanding += s->ndesc;
		q->packed_.nfree--;
		e[i] = &s->e;
	}
	return i;
}

static struct vring_slot *packed_resubmit(struct virtqueue *q)
{
	unsigned head = q->resubmit[q->resubmit_next++], i = head, n;
	struct vring_slot *s = free_slot(q);

	if (!s)
		return NULL;
	s->entry = (uint16_t)head;
	s->ndesc = q->packed_.chain_num[head];
	for (n = 0; n < s->ndesc && i < q->inflight_num; n++) {
		uint8_t *e = entry(q, i);
		struct desc d = {.addr = le64_load(e + ENTRY_ADDR),
			.len = le32_load(e + ENTRY_LEN),
			.id = le16_load(e + ENTRY_ID),
			.flags = le16_load(e + ENTRY_FLAGS)};

		s->id = d.id;
		s->last_entry = (uint16_t)i;
		if (!packed_add(q, s, &d))
			goto broken;
		i = q->packed_.free_next[i];
	}
	if (!vring_slot_take(q, s))
		goto broken;
	s->tracked = s->resubmitted = true;
	q->packed_.nfree--;
	return s;
broken:
	vring_segs_put(q, s);
	return NULL;
}

static void packed_rewind(struct virtqueue *q, const struct vring_slot *s)
{
	q->packed_.next_avail = s->pos;
	q->packed_.avail_wrap = s->pos_wrap;
	q->packed_.outstanding -= s->ndesc;
	if (!s->tracked)
		return;
	/* a mark on the free list counts no more; the other way round the entries would be nowhere */
	untrack(q, s);
	le16_store((uint8_t *)q->inflight + AREA_OLD_FREE, s->entry);
	inflight_order();
	__atomic_store_n(entry(q, s->entry) + ENTRY_INFLIGHT, 0, __ATOMIC_RELAXED);
	inflight_order();
}

/* Notification */

static void packed_arm(struct virtqueue *q)
{
	uint16_t flags = EVENT_ENABLE;

	if (q->event_idx) {
		flags = EVENT_DESC;
		le16_store(q->packed_.device + EVENT_OFF,
			(uint16_t)(q->packed_.next_avail | q->packed_.avail_wrap << 15));
	}
	le16_store_release(q->packed_.device + EVENT_FLAGS, flags);
	vring_log(q, q->packed_.device_gpa, 4);
	le_barrier();
}

static void packed_disarm(struct virtqueue *q)
{
	le16_store(q->packed_.device + EVENT_FLAGS, EVENT_DISABLE);
	vring_log(q, q->packed_.device_gpa, 4);
}

static bool packed_wants_call(struct virtqueue *q)
{
	uint16_t new = q->packed_.next_used, old = (uint16_t)(new - q->packed_.uncalled), off, flags;

	q->packed_.uncalled = 0;
	le_barrier();
	flags = le16_load(q->packed_.driver + EVENT_FLAGS) & 3;
	if (flags != EVENT_DESC)
		return flags == EVENT_ENABLE;
	off = le16_load(q->packed_.driver + EVENT_OFF);
	if (off >> 15 != q->packed_.used_wrap)
		off = (uint16_t)((off & 0x7fff) - q->num);
	else
		off &= 0x7fff;
	return (uint16_t)(new - off - 1) < (uint16_t)(new - old);
}

/* Giving back */

static void packed_commit(struct virtqueue *q, struct vring_slot **slots, unsigned n)
{
	uint8_t *area = q->inflight;
	unsigned i;

	inflight_order();
	for (i = 0; i < n; i++)
		if (slots[i]->tracked)
			__atomic_store_n(entry(q, slots[i]->entry) + ENTRY_INFLIGHT, 0, __ATOMIC_RELAXED);
	inflight_order();
	le16_store(area + AREA_OLD_FREE, q->packed_.free_head);
	inflight_order();
	area_set_places(q, next_used(q), next_used(q));
}

static void packed_publish(struct virtqueue *q, struct vring_slot **slots, unsigned n)
{
	uint8_t *area = q->inflight, *first = q->packed_.ring + 16 * (size_t)q->packed_.next_used;
	struct place old = next_used(q);
	uint16_t first_flags = 0;
	unsigned i;

	for (i = 0; i < n; i++) {
		struct vring_slot *s = slots[i];
		size_t off = 16 * (size_t)q->packed_.next_used;
		uint8_t *d = q->packed_.ring + off;
		uint16_t flags =
			(q->packed_.used_wrap ? DESC_AVAIL | DESC_USED : 0) | (s->used_len ? DESC_WRITE : 0);

		le32_store(d + 8, s->used_len);
		le16_store(d + 12, s->id);
		if (i)
			le16_store_release(d + 14, flags);
		else
			first_flags = flags;
		vring_log(q, q->packed_.ring_gpa + off, 16);
		if (s->tracked)
			untrack(q, s);
		advance(q, &q->packed_.next_used, &q->packed_.used_wrap, s->ndesc);
		q->packed_.uncalled += s->ndesc;
		q->packed_.outstanding -= s->ndesc;
	}
	if (area) {
		area_set_places(q, next_used(q), old);
		inflight_order();
	}
	le16_store_release(first + 14, first_flags);
	vring_log(q, q->packed_.ring_gpa + (uint64_t)(first - q->packed_.ring), 16);
	if (area)
		packed_commit(q, slots, n);
}

/* Start */

static void area_init(struct virtqueue *q)
{
	uint8_t *area = q->inflight;
	unsigned i;

	memset(area, 0, AREA_DESC + q->inflight_num * (size_t)ENTRY_SIZE);
	for (i = 0; i < q->inflight_num; i++) {
		q->packed_.free_next[i] = (uint16_t)(i + 1);
		le16_store(entry(q, i) + ENTRY_NEXT, (uint16_t)(i + 1));
	}
	q->packed_.free_head = 0;
	le16_store(area + AREA_DESC_NUM, (uint16_t)q->inflight_num);
	area_set_places(q, next_used(q), next_used(q));
	inflight_order();
	le16_store(area + AREA_VERSION, 1);
}

static inline bool desc_used(uint16_t flags, bool wrap)
{
	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) == wrap;
}

/* Commits or rolls back what the last process was in the middle of. */
static int area_settle(struct virtqueue *q)
{
	uint8_t *area = q->inflight;
	uint16_t free = le16_load(area + AREA_OLD_FREE);
	struct place used, old;

	area_places(q, &used, &old);
	if (used.pos >= q->num || old.pos >= q->num)
		return -EINVAL;
	if (used.pos != old.pos || used.wrap != old.wrap) {
		uint16_t flags = le16_load_acquire(q->packed_.ring + 16 * (size_t)old.pos + 14);

		if (desc_used(flags, old.wrap)) {
			old = used;
			free = le16_load(area + AREA_FREE);
		}
	}
	le16_store(area + AREA_OLD_FREE, free);
	inflight_order();
	area_set_places(q, old, old);
	inflight_order();
	le16_store(area + AREA_FREE, free);
	q->packed_.free_head = free;
	q->packed_.next_used = old.pos;
	q->packed_.used_wrap = old.wrap;
	return 0;
}

/*
 * The last process may have died after all descriptors of a batch were written but the first. The driver must not see
 * them when we write that first one, so they get the flags of available ones again.
 */
static void ring_settle(struct virtqueue *q, unsigned n)
{
	struct place at = next_used(q);

	while (n--) {
		size_t off = 16 * (size_t)at.pos + 14;

		if (desc_used(le16_load(q->packed_.ring + off), at.wrap)) {
			le16_store(q->packed_.ring + off, at.wrap ? DESC_AVAIL : DESC_USED);
			vring_log(q, q->packed_.ring_gpa + off, 2);
		}
		advance(q, &at.pos, &at.wrap, 1);
	}
}

/* Copies a list of the area, marking its entries as seen; -EINVAL when it leaves the area or meets a seen
 * one. */
static int area_walk(struct virtqueue *q, uint8_t *seen, unsigned i, unsigned max, uint16_t *last)
{
	unsigned n;

	for (n = 0; n < max; n++) {
		if (i >= q->inflight_num)
			return last ? -EINVAL : 0;
		if (seen[i])
			return -EINVAL;
		seen[i] = 1;
		q->packed_.free_next[i] = le16_load(entry(q, i) + ENTRY_NEXT);
		if (!last)
			__atomic_store_n(entry(q, i) + ENTRY_INFLIGHT, 0, __ATOMIC_RELAXED);
		else
			*last = (uint16_t)i;
		i = q->packed_.free_next[i];
	}
	return 0;
}

static int packed_recover(struct virtqueue *q)
{
	CLEANUP_FREE struct inflight_mark *list = calloc(q->inflight_num, sizeof(*list));
	CLEANUP_FREE uint8_t *seen = calloc(q->inflight_num, 1);
	unsigned i, n = 0, total = 0;

	if (!list || !seen)
		return -ENOMEM;
	if (area_settle(q) || area_walk(q, seen, q->packed_.free_head, q->inflight_num, NULL))
		return -EINVAL;
	for (i = 0; i < q->inflight_num; i++) {
		uint8_t *e = entry(q, i);
		unsigned num = le16_load(e + ENTRY_NUM);
		uint16_t last = 0;

		if (!__atomic_load_n(e + ENTRY_INFLIGHT, __ATOMIC_RELAXED))
			continue;
		if (!num || area_walk(q, seen, i, num, &last))
			return -EINVAL;
		q->packed_.chain_num[i] = (uint16_t)num;
		total += num;
		list[n++] =
			(struct inflight_mark){.counter = le64_load(e + ENTRY_COUNTER), .id = (uint16_t)i};
	}
	if (total > q->num)
		return -EINVAL;
	inflight_sort(list, n);
	for (i = 0; i < n; i++)
		q->resubmit[i] = list[i].id;
	q->nresubmit = n;
	q->inflight_counter = n ? list[n - 1].counter + 1 : 0;
	q->packed_.outstanding = total;
	q->packed_.next_avail = q->packed_.next_used;
	q->packed_.avail_wrap = q->packed_.used_wrap;
	advance(q, &q->packed_.next_avail, &q->packed_.avail_wrap, total);
	ring_settle(q, total);
	q->resumed = true;
	if (n)
		log_info("queue %u: %u buffers were in flight and are taken again", q->index, n);
	return 0;
}

static int packed_begin(struct virtqueue *q)
{
	uint16_t avail = (uint16_t)q->base, used = (uint16_t)(q->base >> 16);
	unsigned i;
	int err;

	/* Some front-ends (DPDK's) know the lower half only. With the wrap counter set there can be no ring at rest like this. */
	if (!used && avail & 0x8000) {
		used = avail;
		q->base |= (uint32_t)avail << 16;
	}
	q->packed_.next_avail = avail & 0x7fff;
	q->packed_.avail_wrap = avail >> 15;
	q->packed_.next_used = used & 0x7fff;
	q->packed_.used_wrap = used >> 15;
	if (q->packed_.next_avail >= q->num || q->packed_.next_used >= q->num)
		return -EINVAL;
	q->packed_.free_slots = calloc(q->num, sizeof(uint16_t));
	q->packed_.free_next = calloc(q->inflight_num + 1, sizeof(uint16_t));
	q->packed_.chain_num = calloc(q->inflight_num + 1, sizeof(uint16_t));
	if (!q->packed_.free_slots || !q->packed_.free_next || !q->packed_.chain_num)
		return -ENOMEM;
	for (i = 0; i < q->num; i++)
		q->packed_.free_slots[q->packed_.nfree++] = (uint16_t)(q->num - 1 - i);
	q->resumed = q->base != 0x80008000;
	if (!q->inflight_num)
		return 0;
	if (le16_load((uint8_t *)q->inflight + AREA_VERSION) != 1) {
		area_init(q);
		return 0;
	}
	err = le16_load((uint8_t *)q->inflight + AREA_DESC_NUM) == q->inflight_num ? packed_recover(q)
										   : -EINVAL;
	return err ? log_guest_errno(-err, "queue %u: the in-flight area makes no sense", q->index) : 0;
}

static uint32_t packed_base(const struct virtqueue *q)
{
	return q->packed_.next_avail | (uint32_t)q->packed_.avail_wrap << 15 |
	       (uint32_t)q->packed_.next_used << 16 | (uint32_t)q->packed_.used_wrap << 31;
}

const struct vring_ops vring_packed_ops = {
	.map = packed_map,
	.pop = packed_pop,
	.pending = packed_pending,
	.arm = packed_arm,
	.disarm = packed_disarm,
	.publish = packed_publish,
	.wants_call = packed_wants_call,
	.rewind = packed_rewind,
	.begin = packed_begin,
	.resubmit = packed_resubmit,
	.base = packed_base,
};
