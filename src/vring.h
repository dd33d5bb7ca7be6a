/* SPDX-License-Identifier: MIT */
/*
 * Inside of a virtqueue: shared by virtqueue.c (what both layouts have in common), vring-split.c,
 * vring-packed.c and the session, which configures queues. Devices include virtqueue.h only.
 *
 * A queue is RESTING (configured by the control thread), RUNNING (touched only in its loop) or DRAINING (in
 * its loop: takes no more, waits for the elements that are out). Control functions at the end are called by
 * the control thread and do their work in the queue's loop.
 *
 * Theory of a turn: vring_run() switches kicks off, calls ready(), which pops and pushes. Pushed slots are
 * staged and published in batches, at the turn's end or by the pop that finds VRING_BATCH of them: used entries,
 * then the index with one release store, then one decision about the interrupt. So the driver works while we do,
 * instead of in turns. Kicks stay off until the loop is about to sleep; then they go on and the ring
 * is looked at once more, for a buffer that came in between. So a loop that spins is not kicked.
 *
 * A pop takes as many chains as the device asks for: a chain that breaks the queue ends the batch, and was not taken; what
 * came before it is handed out.
 *
 * Every chain gets a slot, preallocated per head (split) or buffer id (packed). A slot points to the memory
 * map its addresses were translated with; the queue counts slots per map, without atomics, and drops the map
 * at zero.
 */
#ifndef VRING_H
#define VRING_H

#include "dirtylog.h"
#include "guestmem.h"
#include "inflight.h"
#include "loop.h"
#include "stats.h"
#include "virtqueue.h"

enum {
	VRING_MAX_SIZE = 32768,
	VRING_BUDGET = 64, /* pops per turn; most at once */
	VRING_BATCH = 8,   /* buffers, or bytes, staged that a pop publishes ahead of the turn's end */
	VRING_BATCH_BYTES = 65536,
	VRING_INLINE_SEGS = 8, /* segments a slot holds itself */
	VRING_MAX_SEGS =
		1028, /* segments of one chain, IOV_MAX data plus header and status; more breaks the queue */
	VRING_MAX_LONG =
		1024, /* chains of more than VRING_INLINE_SEGS that are out at a time; others wait in the ring */
};

/* A memory map and how many slots use it. */
struct memview {
	struct guestmem *mem;
	unsigned out;
	struct memview *next; /* older views that still have slots out */
};

struct segs { /* room for a long chain; kept on a list of the queue for the next one */
	struct segs *next;
	struct iovec iov[VRING_MAX_SEGS];
	uint64_t gpa[VRING_MAX_SEGS];
};

struct vring_slot {	  /* what each buffer needs comes first and close together */
	struct element e; /* first: the device has a pointer to this */
	uint16_t nrd, nwr;
	uint16_t id;	  /* head index or buffer id */
	uint16_t ndesc;	  /* ring descriptors it takes (packed) */
	bool busy, done;  /* popped; pushed but held back for order */
	bool tracked;	  /* noted in the in-flight area */
	bool tail_lost;	  /* the last writable bytes are not guest memory */
	bool unpopped;	  /* given back while draining */
	bool resubmitted; /* came from the in-flight area, not from the ring */
	bool pos_wrap;
	uint16_t pos; /* ring position it was popped at, for unpop */
	uint32_t used_len;
	uint64_t rd_len, wr_len;
	uint64_t seq; /* pops of this queue before it */
	struct memview *view;
	struct iovec *iov;
	uint64_t *gpa;	   /* of each segment */
	struct segs *segs; /* or NULL: iov and gpa are the inline ones */
	struct iovec inline_iov[VRING_INLINE_SEGS];
	uint64_t inline_gpa[VRING_INLINE_SEGS];
	uint64_t since;		    /* time of the turn it was popped in, where times are taken */
	uint16_t index;		    /* of this slot */
	uint16_t entry, last_entry; /* of its chain in the in-flight area (packed) */
};

/* Front-end addresses; packed: ring, driver area, device area. log: guest address of the used ring, for the dirty log. */
struct ring_addr {
	uint64_t desc, avail, used, log;
	bool log_used;
};

enum vring_phase { VRING_RESTING, VRING_RUNNING, VRING_DRAINING };

/* What differs between the layouts. */
struct vring_ops {
	/* Translates the ring addresses: 0 or -EFAULT. */
	int (*map)(struct virtqueue *q, const struct guestmem *mem);
	/* Takes the next chains, at most max: their slots (e[i] is in one), filled but for the cursors. How many: fewer when
	 * there are no more now, or the queue broke. */
	unsigned (*pop)(struct virtqueue *q, struct element **e, unsigned max);
	/* True when the driver made more available. */
	bool (*pending)(struct virtqueue *q);
	/* Ask for kicks, or not. */
	void (*arm)(struct virtqueue *q);
	void (*disarm)(struct virtqueue *q);
	/* Makes n used slots visible and clears their in-flight marks. */
	void (*publish)(struct virtqueue *q, struct vring_slot **slots, unsigned n);
	/* Does the driver want an interrupt for what was published since the last call? */
	bool (*wants_call)(struct virtqueue *q);
	/* Back to before slot was popped (the oldest of those given back). */
	void (*rewind)(struct virtqueue *q, const struct vring_slot *slot);
	/* Starts from q->base_*, or from what the in-flight area says. 0 or -errno. */
	int (*begin)(struct virtqueue *q);
	/* The next chain that was in flight when the last process ended; NULL: the queue broke. */
	struct vring_slot *(*resubmit)(struct virtqueue *q);
	/* As GET_VRING_BASE reports it. */
	uint32_t (*base)(const struct virtqueue *q);
};

extern const struct vring_ops vring_split_ops, vring_packed_ops, vring_reversed_ops;

struct vring_reversed { /* of a reversed queue; lives from one start to the next */
	struct vring_driver driver;
	struct vring_driver_buf *buffers; /* num; NULL: the ring never began */
	void *desc, *avail, *used;
	uint64_t desc_gpa, avail_gpa;
	bool logged;	/* these are known */
	bool continues; /* this start */
	uint16_t first; /* index it began with */
};

struct virtqueue_stats {			/* plain counters, written in the queue's loop */
	uint64_t popped, pushed, read, written; /* buffers, and bytes of them: the driver's and ours */
	uint64_t kicks, calls, calls_suppressed, breaks;
	uint64_t faults,
		errors; /* buffers that are partly no guest memory; requests the device answered with an error */
};

struct virtqueue {
	struct backend *backend;
	const struct queue_spec *spec;
	unsigned index;
	int socket; /* for the log, see LOG_ABOUT() */
	void *state;
	size_t state_size;
	struct loop *loop, *control;
	void (*drained)(struct virtqueue *q, void *arg); /* in the control loop, after virtqueue_stop() */
	void *drained_arg;
	int (*on_start)(struct virtqueue *q); /* in the queue's loop: the device's start and stop */
	void (*on_stop)(struct virtqueue *q);
	bool discard; /* the front-end went: what comes back is dropped */

	/* configuration: the control thread's while the queue rests; changed in the queue's loop while it
	 * runs */
	uint32_t num;
	struct ring_addr addr;
	bool has_addr;
	uint32_t base; /* as in SET_VRING_BASE */
	uint64_t features;
	bool packed, event_idx, in_order, log_all;
	bool inband;	       /* no call fd: interrupts are messages */
	bool polled;	       /* no kick fd: we look at the ring ourselves */
	bool started, enabled; /* the two bits of the protocol's ring state */
	bool stopping;	       /* the session waits for it to rest */
	bool configured;       /* was ever touched by a message */
	int call_fd, err_fd, kick_fd;
	uint64_t calls_told;			  /* of stats.calls: those before call_fd came */
	void (*call_inband)(struct virtqueue *q); /* any thread */
	struct post call_post;			  /* and what it may use */
	void *call_host;

	/* running */
	enum vring_phase phase;
	bool broken;
	bool resumed;		    /* the ring was in use before this start */
	bool has_rested, continues; /* rest_base is set; this start goes on from there */
	uint32_t rest_base;	    /* where it came to rest */
	const struct vring_ops *ops;
	struct memview *view, *old_views;
	struct dirtylog *log;
	struct watch kick;
	struct task run, flush;
	struct poller poller;
	struct post drained_post;
	bool polling;	/* poller is on the loop */
	bool saw_empty; /* a pop found the ring empty */
	bool armed;	/* kicks are on */
	unsigned budget;
	unsigned out;  /* elements at the device, or held back for order */
	unsigned hint; /* region of the last translation */
	uint64_t seq;  /* pops so far */
	char *slots;   /* num of them, slot_size apart */
	size_t slot_size;
	struct vring_slot **staged; /* pushed, not yet published; room for num */
	unsigned nstaged;
	uint64_t staged_bytes;	   /* of their buffers */
	struct vring_slot **order; /* popped slots by seq; room for order_mask + 1 */
	uint64_t order_next, order_mask;
	unsigned nunpopped; /* given back, but a younger one was not (yet) */
	unsigned nheld;	    /* in_order: done, but an older one was not */
	struct segs *free_segs;
	unsigned nlong; /* slots with segs */
	bool starved;	/* a pop waits for one of them */

	uint16_t *resubmit; /* split: heads, packed: entries, in order; from the in-flight area */
	unsigned nresubmit, resubmit_next;
	void *inflight;	       /* our part of the in-flight area, or NULL */
	unsigned inflight_num; /* its descriptors */
	uint64_t inflight_counter;

	union {
		struct {
			const void *desc;
			const uint8_t *avail;
			uint8_t *used;
			uint16_t avail_idx;  /* last value read */
			uint16_t last_avail; /* next to take */
			uint16_t used_idx;
			uint16_t called_idx; /* used_idx at the last interrupt decision */
		} split;
		struct {
			uint8_t *ring;
			const uint8_t *driver;
			uint8_t *device;
			uint64_t ring_gpa, device_gpa; /* for the dirty log */
			uint16_t next_avail, next_used;
			bool avail_wrap, used_wrap;
			unsigned outstanding; /* ring descriptors of the buffers that are out */
			unsigned uncalled;    /* used ones since the last interrupt decision */
			uint16_t *free_slots; /* stack of nfree slot indices */
			unsigned nfree;
			uint16_t free_head;  /* of the in-flight area: our copy */
			uint16_t *free_next; /* and of its links */
			uint16_t *chain_num; /* descriptors of the chains that were in flight, by entry */
		} packed_;
	};

	bool only_read;			 /* no buffer is writable, whatever the driver says */
	bool reverse;			 /* we are the ring's driver */
	bool always_call;		 /* whatever the driver wants */
	struct vring_reversed *reversed; /* then, once it was started */

	struct virtqueue_stats stats;
	struct stats_histogram *latency; /* from pop to publication; NULL: no times are taken */
};

/* For the layouts. */
static inline struct vring_slot *vring_slot(const struct virtqueue *q, unsigned id)
{
	return (struct vring_slot *)(q->slots + id * q->slot_size);
}

/* Adds a descriptor's bytes, whatever they are, to the slot; false: the queue was broken. */
bool vring_add_pieces(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool writable);

/* The same; most descriptors are some bytes in one region, after their like. */
static inline bool vring_add(
	struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool writable)
{
	unsigned n = s->nrd + s->nwr;
	uint64_t avail;
	uint8_t *host = guestmem_lookup(s->view->mem, addr, &avail, &q->hint);

	if (unlikely(!host) || unlikely(len > avail) || unlikely(!len) || unlikely(s->tail_lost) ||
		unlikely(n >= VRING_INLINE_SEGS))
		return vring_add_pieces(q, s, addr, len, writable);
	if (writable && likely(!q->only_read)) {
		s->nwr++;
		s->wr_len += len;
	} else if (likely(!s->nwr)) {
		s->nrd++;
		s->rd_len += len;
	} else {
		return vring_add_pieces(q, s, addr, len, writable);
	}
	s->iov[n] = (struct iovec){.iov_base = host, .iov_len = len};
	s->gpa[n] = addr;
	return true;
}

/* Adds all descriptors of an indirect table; false: the queue was broken. */
bool vring_add_indirect(struct virtqueue *q, struct vring_slot *s, uint64_t addr, uint32_t len, bool packed);
/* Prepares a slot for a new chain. */
static inline void vring_slot_begin(struct virtqueue *q, struct vring_slot *s, uint16_t id)
{
	s->e.fault = s->e.rd.bad = s->e.wr.bad = false;
	s->nrd = s->nwr = 0;
	s->rd_len = s->wr_len = 0;
	s->id = id;
	s->ndesc = 1;
	s->done = s->tracked = s->tail_lost = s->unpopped = s->resubmitted = false;
	s->view = q->view;
}

/* Says that the chain lost its end: the device could not answer. */
void vring_tail_lost(struct virtqueue *q, const struct vring_slot *s);

/* The chain is complete, and the slot is taken. False: the queue was broken. */
static inline bool vring_slot_take(struct virtqueue *q, struct vring_slot *s)
{
	if (unlikely(s->tail_lost)) {
		vring_tail_lost(q, s);
		return false;
	}
	s->busy = true;
	return true;
}

/* Gives back the room for a long chain, if the slot has it. */
void vring_segs_put(struct virtqueue *q, struct vring_slot *s);
struct memview *vring_view_new(struct guestmem *mem);
void vring_view_drop(struct memview *v);
/* No slot uses it any more. */
void vring_view_idle(struct virtqueue *q, struct memview *v);

/* Gives back what a slot holds. */
static inline void vring_slot_release(struct virtqueue *q, struct vring_slot *s)
{
	if (unlikely(s->segs != NULL))
		vring_segs_put(q, s);
	s->busy = false;
	if (q->packed)
		q->packed_.free_slots[q->packed_.nfree++] = s->index;
	q->out--;
	if (unlikely(!--s->view->out))
		vring_view_idle(q, s->view);
}

/* Between virtqueue.c and vring-control.c. */
void vring_publish(struct virtqueue *q);
void vring_stage_in_order(struct virtqueue *q);
void vring_rewind(struct virtqueue *q);
void vring_call(struct virtqueue *q);
void vring_drain_finish(struct virtqueue *q);
void vring_run(struct task *t);
void vring_flush(struct task *t);
bool vring_poll(struct poller *p);
bool vring_rest(struct poller *p);
void vring_kick_ready(struct watch *w, uint32_t events);

/* Marks what we wrote to a ring, when ring writes are logged. */
static inline void vring_log(struct virtqueue *q, uint64_t gpa, uint64_t len)
{
	if (unlikely(q->log != NULL) && q->addr.log_used)
		dirtylog_mark(q->log, gpa, len);
}

void vring_reversed_free(struct virtqueue *q);

/* Control thread. */
int virtqueue_new(struct virtqueue **out, struct backend *b, const struct queue_spec *spec, unsigned index,
	size_t state_size, struct loop *loop, struct loop *control);
void virtqueue_free(struct virtqueue *q);
/* Forgets ring state and fds; the queue must rest. keep_err: RESET_DEVICE keeps the error fd and the call fd.
 */
void virtqueue_reset(struct virtqueue *q, bool keep_fds);
/*
 * Runs the queue. inflight: its part of the area or NULL; with room for fewer descriptors than the ring has it is not
 * used. 0 or -errno (logged): then it still rests.
 */
int virtqueue_start(struct virtqueue *q, struct guestmem *mem, struct dirtylog *log, void *inflight,
	unsigned inflight_num);
/*
 * Takes no more and waits for what is out: q->drained(q, arg) is called in the control loop, maybe at once,
 * when the queue rests. discard: what is still out is dropped when it comes back (the front-end is gone),
 * never given to the driver.
 */
void virtqueue_stop(
	struct virtqueue *q, bool discard, void (*drained)(struct virtqueue *q, void *arg), void *arg);
/* A new map for a running queue; elements that are out keep the old one. A ring that lost its memory breaks.
 */
void virtqueue_set_memory(struct virtqueue *q, struct guestmem *mem);
void virtqueue_set_log(struct virtqueue *q, struct dirtylog *log, bool log_all);
/* On a running ring only addresses and the log flag change. -EFAULT: they are not in memory, it goes on with the old. */
int virtqueue_set_addr(struct virtqueue *q, const struct ring_addr *addr);
/* Takes *fd over (also -1). polled: there is none, look at the ring instead. */
int virtqueue_set_kick(struct virtqueue *q, int *fd, bool polled);
/* Interrupts are no messages any more. */
void virtqueue_set_call(struct virtqueue *q, int *fd);
void virtqueue_set_err(struct virtqueue *q, int *fd);
/* An in-band kick. */
void virtqueue_kick(struct virtqueue *q);
uint32_t virtqueue_base(struct virtqueue *q);

#endif
