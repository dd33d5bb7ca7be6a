/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of a virtqueue, split or packed, on memory that the caller provides (virtio 1.3, 2.7
 *and 2.8).
 *
 * For the tests, which play the guest, and for devices where the guest plays the host (caif).
 *
 *	vring_driver_layout() → place the three parts → vring_driver_init()
 *	vring_driver_add()… → vring_driver_publish() → kick when it says so
 *	vring_driver_get()… until 0 → vring_driver_arm(): true = look again, false = sleep until the interrupt
 *
 * One thread. Nothing is allocated per request. What the device writes is checked: an answer that no sane
 *device gives is -EPROTO, the reason is in ->error, and the ring takes no further part.
 */
#ifndef VRING_DRIVER_H
#define VRING_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/virtio_ring.h>

/* Sizes of the parts in bytes; alignment: desc 16, driver 4 (split: 2), device 4. */
struct vring_driver_layout {
	size_t desc;   /* descriptor table or ring */
	size_t driver; /* available ring or driver event suppression: written by the driver */
	size_t device; /* used ring or device event suppression: written by the device */
};

struct vring_driver_buf {
	uint64_t addr; /* as the device sees it */
	uint32_t len;  /* bytes */
	bool wr; /* device-writable; these go after all device-readable ones, which nobody checks here */
};

/* Ring bits that were negotiated. */
struct vring_driver_mode {
	bool packed, event_idx, in_order;
};

struct vring_driver_slot { /* a request, at the index of its head descriptor (split) or buffer id (packed) */
	void *cookie;
	uint64_t writable; /* bytes the device may write */
	uint16_t count;	   /* ring descriptors it occupies */
	uint16_t last;	   /* split: the last of them */
	bool busy;
};

struct vring_driver {
	struct vring_driver_mode mode;
	uint16_t num;
	const char *error; /* why the device is not trusted any more; static text */

	struct vring_desc *desc; /* split */
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_packed_desc *pdesc; /* packed */
	struct vring_packed_desc_event *driver_event, *device_event;

	struct vring_driver_slot *slots;
	uint16_t *link;	    /* next free descriptor or id; split: also next in chain */
	uint16_t *order;    /* in_order: heads in the order in which they were added, a ring of num */
	uint16_t free_head; /* of the FIFO of free descriptors or ids */
	uint16_t free_tail;
	uint16_t nfree; /* descriptors */
	uint16_t nbusy; /* requests added and not yet got back */

	uint16_t next_avail;   /* split: running index; packed: position */
	uint16_t published;    /* the same, as far as the device can see */
	uint16_t staged;       /* not published: heads (split) or descriptors (packed) */
	uint16_t staged_flags; /* packed: of the first staged descriptor, withheld until it is published */
	uint16_t next_used;
	bool avail_wrap, used_wrap;

	uint16_t order_head, order_tail;
	bool in_batch; /* in_order: a used element for several requests is being taken apart */
	uint16_t batch_last;
	uint32_t batch_len;
};

void vring_driver_layout(bool packed, uint16_t num, struct vring_driver_layout *out);

/*
 * Takes over the memory of the three parts (it stays the caller's), zeroes it, and starts at `base`, as in
 * SET_VRING_BASE: the index for split, position | wrap counter << 15 for packed (a fresh ring:
 * vring_driver_base()). Interrupts are armed. num: 1..32768, split: a power of two. -EINVAL, -ENOMEM.
 */
int vring_driver_init(struct vring_driver *d, const struct vring_driver_mode *mode, uint16_t num,
	uint16_t base, void *desc, void *driver, void *device);
/* Frees what init allocated; also fine on a zeroed struct. */
void vring_driver_destroy(struct vring_driver *d);

static inline uint16_t vring_driver_base(bool packed)
{
	return packed ? 0x8000 : 0;
}

/* Bytes of an indirect table of n descriptors; align it to 16. */
static inline size_t vring_driver_table_size(unsigned n)
{
	return n * sizeof(struct vring_desc);
}

/*
 * Stages a request of n buffers, one descriptor each; cookie comes back with it. The value is its head
 * (split) or buffer id (packed). -EINVAL: n is 0 or more than the ring size; -ENOSPC: not enough free
 * descriptors.
 */
int vring_driver_add(struct vring_driver *d, const struct vring_driver_buf *bufs, unsigned n, void *cookie);
/*
 * The same through an indirect table: ours at `table`, the device's address of it is `addr`. It must stay
 * untouched until the request comes back.
 */
int vring_driver_add_indirect(struct vring_driver *d, const struct vring_driver_buf *bufs, unsigned n,
	void *table, uint64_t addr, void *cookie);
/* Shows everything staged to the device. True: it wants a kick. */
bool vring_driver_publish(struct vring_driver *d);

/*
 * The next request that the device has used: 1, with its cookie and the bytes it wrote (both pointers may be
 * NULL); 0: none; -EPROTO.
 */
int vring_driver_get(struct vring_driver *d, void **cookie, uint32_t *len);
/* True when vring_driver_get() would not return 0. */
bool vring_driver_pending(const struct vring_driver *d);

/* Asks for an interrupt at the next used request (or, with event_idx, once n are used). True: that is so
 * already. */
bool vring_driver_arm(struct vring_driver *d);
bool vring_driver_arm_after(struct vring_driver *d, uint16_t n);
/* Asks for no interrupts; with event_idx on a split ring: none for the next 32767 requests. */
void vring_driver_disarm(struct vring_driver *d);

#endif
