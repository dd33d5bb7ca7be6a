/* SPDX-License-Identifier: MIT */
/*
 * Driver's side of split (virtio 1.3, 2.7) and packed (2.8) virtqueues.
 *
 * Free descriptors are kept in a FIFO, not a stack: a driver that gets its requests back in order then uses
 * the descriptor table in ring order, which is what VIRTIO_F_IN_ORDER demands (2.7.7), and every descriptor
 * gets its turn. Chains are walked by our own copy of the links; nothing is read back from shared memory
 * except what the device wrote, and each such field is loaded once.
 *
 * A packed batch becomes visible with one store: the flags of its first descriptor are withheld until
 * vring_driver_publish(), as the device cannot see past a descriptor that is not available yet.
 */
#include "vring-driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "le.h"

#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1u << VRING_PACKED_DESC_F_USED)

static uint16_t *used_event(const struct vring_driver *d)
{
	return &d->avail->ring[d->num];
}

static const void *avail_event(const struct vring_driver *d)
{
	return &d->used->ring[d->num];
}

void vring_driver_layout(bool packed, uint16_t num, struct vring_driver_layout *out)
{
	out->desc = num * sizeof(struct vring_desc);
	if (packed) {
		out->driver = sizeof(struct vring_packed_desc_event);
		out->device = sizeof(struct vring_packed_desc_event);
		return;
	}
	out->driver = sizeof(struct vring_avail) + num * sizeof(uint16_t) + sizeof(uint16_t);
	out->device = sizeof(struct vring_used) + num * sizeof(struct vring_used_elem) + sizeof(uint16_t);
}

static void start_at(struct vring_driver *d, uint16_t base)
{
	if (d->mode.packed) {
		d->next_avail = d->published = d->next_used = base & 0x7fff;
		d->avail_wrap = d->used_wrap = base >> 15;
		/* as the device left them: used in the lap of the position, which is the opposite of
		 * available */
		for (uint16_t i = 0; i < d->num; i++)
			if ((i < d->next_used) == d->used_wrap)
				le16_store(&d->pdesc[i].flags, PACKED_AVAIL | PACKED_USED);
		return;
	}
	d->next_avail = d->published = d->next_used = base;
	le16_store(&d->avail->idx, base);
	le16_store(&d->used->idx, base);
}

int vring_driver_init(struct vring_driver *d, const struct vring_driver_mode *mode, uint16_t num,
	uint16_t base, void *desc, void *driver, void *device)
{
	struct vring_driver_layout layout;

	if (num == 0 || num > 32768 || (!mode->packed && (num & (num - 1))) ||
		(mode->packed && (base & 0x7fff) >= num))
		return -EINVAL;
	memset(d, 0, sizeof(*d));
	d->slots = calloc(num, sizeof(*d->slots));
	d->link = calloc(num, sizeof(*d->link));
	d->order = calloc(num, sizeof(*d->order));
	if (!d->slots || !d->link || !d->order) {
		vring_driver_destroy(d);
		return -ENOMEM;
	}
	d->mode = *mode;
	d->num = num;
	d->nfree = num;
	d->free_tail = num - 1;
	for (uint16_t i = 0; i + 1 < num; i++)
		d->link[i] = i + 1;
	d->desc = desc;
	d->avail = driver;
	d->used = device;
	d->pdesc = desc;
	d->driver_event = driver;
	d->device_event = device;

	vring_driver_layout(mode->packed, num, &layout);
	memset(desc, 0, layout.desc);
	memset(driver, 0, layout.driver);
	memset(device, 0, layout.device);
	start_at(d, base);
	vring_driver_arm(d);
	return 0;
}

void vring_driver_destroy(struct vring_driver *d)
{
	free(d->slots);
	free(d->link);
	free(d->order);
	d->slots = NULL;
	d->link = d->order = NULL;
}

/* --- adding --- */

static uint16_t slot_take(struct vring_driver *d, uint16_t count, void *cookie)
{
	uint16_t head = d->free_head;
	struct vring_driver_slot *s = &d->slots[head];

	*s = (struct vring_driver_slot){.cookie = cookie, .count = count, .busy = true, .last = head};
	/* split: the chain is the first `count` of the free list; packed: one id */
	for (uint16_t i = 1; !d->mode.packed && i < count; i++)
		s->last = d->link[s->last];
	d->free_head = d->link[s->last];
	d->nfree -= count;
	d->nbusy++;
	if (d->mode.in_order) {
		d->order[d->order_tail] = head;
		d->order_tail = (uint16_t)((d->order_tail + 1) % d->num);
	}
	return head;
}

static void slot_release(struct vring_driver *d, uint16_t head)
{
	struct vring_driver_slot *s = &d->slots[head];
	bool none_free = d->mode.packed ? d->nbusy == d->num : d->nfree == 0;

	if (none_free)
		d->free_head = head;
	else
		d->link[d->free_tail] = head;
	d->free_tail = s->last;
	d->nfree += s->count;
	d->nbusy--;
	s->busy = false;
}

static void split_put(struct vring_desc *t, const struct vring_driver_buf *b, bool more, uint16_t next)
{
	le64_store(&t->addr, b->addr);
	le32_store(&t->len, b->len);
	le16_store(&t->flags, (b->wr ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
	le16_store(&t->next, more ? next : 0);
}

static void split_offer(struct vring_driver *d, uint16_t head)
{
	le16_store(&d->avail->ring[d->next_avail % d->num], head);
	d->next_avail++;
	d->staged++;
}

static void packed_put(struct vring_driver *d, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
	struct vring_packed_desc *p = &d->pdesc[d->next_avail];

	flags |= d->avail_wrap ? PACKED_AVAIL : PACKED_USED;
	le64_store(&p->addr, addr);
	le32_store(&p->len, len);
	le16_store(&p->id, id);
	if (d->staged == 0)
		d->staged_flags = flags;
	else
		le16_store_release(&p->flags, flags);
	d->staged++;
	if (++d->next_avail == d->num) {
		d->next_avail = 0;
		d->avail_wrap = !d->avail_wrap;
	}
}

static int check_room(const struct vring_driver *d, unsigned n, unsigned ring_descs)
{
	if (n == 0 || ring_descs > d->num)
		return -EINVAL;
	if (ring_descs > d->nfree)
		return -ENOSPC;
	return 0;
}

static uint64_t writable_bytes(const struct vring_driver_buf *bufs, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += bufs[i].wr ? bufs[i].len : 0;
	return sum;
}

int vring_driver_add(struct vring_driver *d, const struct vring_driver_buf *bufs, unsigned n, void *cookie)
{
	int r = check_room(d, n, n);
	uint16_t head, at;

	if (r < 0)
		return r;
	head = at = slot_take(d, (uint16_t)n, cookie);
	d->slots[head].writable = writable_bytes(bufs, n);
	for (unsigned i = 0; i < n; i++) {
		bool more = i + 1 < n;

		if (d->mode.packed) {
			/* only the last descriptor of a chain carries the id (virtio 1.3, 2.8.6) */
			packed_put(d, bufs[i].addr, bufs[i].len, more ? 0 : head,
				(bufs[i].wr ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
		} else {
			split_put(&d->desc[at], &bufs[i], more, d->link[at]);
			at = d->link[at];
		}
	}
	if (!d->mode.packed)
		split_offer(d, head);
	return head;
}

int vring_driver_add_indirect(struct vring_driver *d, const struct vring_driver_buf *bufs, unsigned n,
	void *table, uint64_t addr, void *cookie)
{
	struct vring_driver_buf whole = {.addr = addr, .len = (uint32_t)vring_driver_table_size(n)};
	struct vring_packed_desc *packed = table;
	struct vring_desc *split = table;
	int r = check_room(d, n, 1);
	uint16_t head;

	if (r < 0)
		return r;
	head = slot_take(d, 1, cookie);
	d->slots[head].writable = writable_bytes(bufs, n);
	if (!d->mode.packed) {
		for (unsigned i = 0; i < n; i++)
			split_put(&split[i], &bufs[i], i + 1 < n, (uint16_t)(i + 1));
		split_put(&d->desc[head], &whole, false, 0);
		le16_store(&d->desc[head].flags, VRING_DESC_F_INDIRECT);
		split_offer(d, head);
		return head;
	}
	for (unsigned i = 0; i < n; i++) {
		le64_store(&packed[i].addr, bufs[i].addr);
		le32_store(&packed[i].len, bufs[i].len);
		le16_store(&packed[i].id, 0);
		le16_store(&packed[i].flags, bufs[i].wr ? VRING_DESC_F_WRITE : 0);
	}
	packed_put(d, addr, whole.len, head, VRING_DESC_F_INDIRECT);
	return head;
}

/* --- kicking --- */

static bool split_wants_kick(const struct vring_driver *d)
{
	uint16_t idx = d->published, old = idx - d->staged;

	if (d->mode.event_idx)
		return vring_need_event(le16_load(avail_event(d)), idx, old);
	return !(le16_load(&d->used->flags) & VRING_USED_F_NO_NOTIFY);
}

static bool packed_wants_kick(const struct vring_driver *d)
{
	uint32_t both = le32_load(d->device_event); /* one load, so that the two fields belong together */
	uint16_t off_wrap = both & 0xffff, flags = (both >> 16) & 3, event = off_wrap & 0x7fff;

	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	if ((off_wrap >> 15) != d->avail_wrap)
		event -= d->num;
	return vring_need_event(event, d->next_avail, d->next_avail - d->staged);
}

bool vring_driver_publish(struct vring_driver *d)
{
	bool kick;

	if (d->staged == 0)
		return false;
	if (d->mode.packed)
		le16_store_release(&d->pdesc[d->published].flags, d->staged_flags);
	else
		le16_store_release(&d->avail->idx, d->next_avail);
	d->published = d->next_avail;
	le_barrier();
	kick = d->mode.packed ? packed_wants_kick(d) : split_wants_kick(d);
	d->staged = 0;
	return kick;
}

/* --- getting back --- */

static int distrust(struct vring_driver *d, const char *why)
{
	d->error = why;
	return -EPROTO;
}

static bool packed_is_used(const struct vring_driver *d, uint16_t flags)
{
	bool avail = flags & PACKED_AVAIL, used = flags & PACKED_USED;

	return avail == used && used == d->used_wrap;
}

bool vring_driver_pending(const struct vring_driver *d)
{
	if (d->error || d->in_batch)
		return true;
	if (d->mode.packed)
		return packed_is_used(d, le16_load_acquire(&d->pdesc[d->next_used].flags));
	return le16_load_acquire(&d->used->idx) != d->next_used;
}

/* Reads the used element at next_used: 1, 0 or -EPROTO. Requests the device cannot know of yet do not count.
 */
static int used_read(struct vring_driver *d, uint32_t *id, uint32_t *len)
{
	if (d->mode.packed) {
		const struct vring_packed_desc *p = &d->pdesc[d->next_used];

		if (!packed_is_used(d, le16_load_acquire(&p->flags)))
			return 0;
		*id = le16_load(&p->id);
		*len = le32_load(&p->len);
	} else {
		uint16_t ahead = le16_load_acquire(&d->used->idx) - d->next_used;
		const struct vring_used_elem *e = &d->used->ring[d->next_used % d->num];

		if (ahead == 0)
			return 0;
		if (ahead > d->nbusy)
			return distrust(d, "used index beyond what was made available");
		*id = le32_load(&e->id);
		*len = le32_load(&e->len);
	}
	if (*id >= d->num)
		return distrust(d, "used id out of range");
	if (!d->slots[*id].busy)
		return distrust(d, "used id is not outstanding");
	if (*len > d->slots[*id].writable)
		return distrust(d, "used length beyond the writable buffers");
	return 1;
}

static void used_advance(struct vring_driver *d, uint16_t head)
{
	if (!d->mode.packed) {
		d->next_used++;
		return;
	}
	d->next_used += d->slots[head].count;
	if (d->next_used >= d->num) {
		d->next_used -= d->num;
		d->used_wrap = !d->used_wrap;
	}
}

/* One used element may stand for all requests up to the one it names (virtio 1.3, 2.7.9 and 2.8.7). */
static int batch_start(struct vring_driver *d)
{
	uint32_t id;
	int r = used_read(d, &id, &d->batch_len);

	if (r <= 0)
		return r;
	if (!d->mode.packed) {
		uint16_t ahead = le16_load_acquire(&d->used->idx) - d->next_used;
		uint16_t i = 0;

		while (i < ahead && d->order[(d->order_head + i) % d->num] != id)
			i++;
		if (i == ahead)
			return distrust(d, "used out of order");
	}
	d->batch_last = (uint16_t)id;
	d->in_batch = true;
	return 1;
}

int vring_driver_get(struct vring_driver *d, void **cookie, uint32_t *len)
{
	uint32_t id, n;
	int r;

	if (d->error)
		return -EPROTO;
	if (d->mode.in_order) {
		r = d->in_batch ? 1 : batch_start(d);
		if (r <= 0)
			return r;
		id = d->order[d->order_head];
		d->order_head = (uint16_t)((d->order_head + 1) % d->num);
		d->in_batch = id != d->batch_last;
		/* requests in the middle of a batch count as used completely */
		n = d->in_batch ? (uint32_t)d->slots[id].writable : d->batch_len;
	} else {
		r = used_read(d, &id, &n);
		if (r <= 0)
			return r;
	}
	if (cookie)
		*cookie = d->slots[id].cookie;
	if (len)
		*len = n;
	used_advance(d, (uint16_t)id);
	slot_release(d, (uint16_t)id);
	return 1;
}

/* --- interrupts --- */

static void packed_event(struct vring_driver *d, uint16_t flags, uint16_t off_wrap)
{
	le32_store(d->driver_event, (uint32_t)flags << 16 | off_wrap);
}

bool vring_driver_arm_after(struct vring_driver *d, uint16_t n)
{
	uint16_t at = d->next_used + n - 1;

	if (!d->mode.event_idx) {
		return vring_driver_arm(d);
	} else if (d->mode.packed) {
		bool wrap = d->used_wrap;

		if (at >= d->num) {
			at -= d->num;
			wrap = !wrap;
		}
		packed_event(d, VRING_PACKED_EVENT_FLAG_DESC, at | (uint16_t)(wrap << 15));
		le_barrier();
		return d->error || d->in_batch ||
		       packed_is_used(d, le16_load_acquire(&d->pdesc[d->next_used].flags));
	}
	le16_store(used_event(d), at);
	le_barrier();
	return d->error || d->in_batch || (uint16_t)(le16_load_acquire(&d->used->idx) - d->next_used) >= n;
}

bool vring_driver_arm(struct vring_driver *d)
{
	if (d->mode.event_idx)
		return vring_driver_arm_after(d, 1);
	if (d->mode.packed)
		packed_event(d, VRING_PACKED_EVENT_FLAG_ENABLE, 0);
	else
		le16_store(&d->avail->flags, 0);
	le_barrier();
	return vring_driver_pending(d);
}

void vring_driver_disarm(struct vring_driver *d)
{
	if (d->mode.packed)
		packed_event(d, VRING_PACKED_EVENT_FLAG_DISABLE, 0);
	else if (d->mode.event_idx)
		le16_store(used_event(d), d->next_used + 0x7fff);
	else
		le16_store(&d->avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
}
