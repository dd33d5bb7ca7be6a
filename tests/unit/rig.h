/* SPDX-License-Identifier: MIT */
/*
 * A virtqueue between a driver and a device that are both this test: guest memory in a memfd, the driver's side from
 * vring-driver.h, the loop run turn by turn. A request carries a header that says what to answer; the echo device
 * checks what it reads and answers by that; whoever gets the request back checks answer and length.
 */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include <sys/eventfd.h>

#include "device.h"
#include "vring-driver.h"
#include "vring.h"

#include "tap.h"

#define RIG_GPA	  UINT64_C(0x40000000)
#define RIG_UADDR UINT64_C(0x7e0000000000)

struct rig_mode {
	bool packed, event_idx, in_order;
	uint16_t num;
	uint32_t base;	 /* as in SET_VRING_BASE; packed: 0 means the fresh one */
	unsigned pieces; /* guest memory in that many regions, of one file; 0: 1 */
	size_t req_size;
	uint32_t chunk; /* bytes of a request's buffers; 0: 256 */
	bool tracked;	/* with an in-flight area */
	bool no_kick; /* no descriptor for kicks: nothing of the queue is on the loop's epoll, which forks share */
	uint64_t features;
};

struct rig_request {
	uint32_t tag, rd, wr, answer; /* bytes that are readable, writable, and to be written */
	bool busy;
};

struct rig {
	struct rig_mode mode;
	struct backend b;
	struct loop *loop;
	struct virtqueue *q;
	struct queue_spec spec;
	struct guestmem *mem;
	struct dirtylog *log;
	struct vring_driver d;
	int file, kick, call, err;
	uint8_t *ram;
	size_t ram_size, ring_end, piece; /* piece: bytes of one region */
	uint64_t area;			  /* of the in-flight area in ram */
	uint64_t addr[3];
	struct rig_request *req; /* num of them, with a chunk each; the cookie is one's index + 1 */
	uint32_t next_tag;
	unsigned submitted, completed; /* by the driver */
	void (*device)(struct rig *r); /* what ready() does; NULL: nothing */
	struct element **held;	       /* room for num and a NULL */
	unsigned nheld;
	unsigned rested; /* times the queue came to rest */
	unsigned started, stopped;
	unsigned calls; /* of ready() */
	void *user;
	struct poller sleeper;
	uint64_t activity;
	unsigned calm;
};

struct rig_header {
	uint32_t tag, answer;
};
enum { RIG_HEADER = sizeof(struct rig_header) };

/* Makes everything and starts the queue. */
void rig_open(struct rig *r, const struct rig_mode *mode);
/* Everything but the start. */
void rig_prepare(struct rig *r, const struct rig_mode *mode);
int rig_start(struct rig *r);
/* A queue that rests, as rig_prepare() makes it; the one before is the caller's to free. */
void rig_queue_make(struct rig *r);
/* Stops (if it runs) and frees. */
void rig_close(struct rig *r);
void rig_stop(struct rig *r, bool discard);

/* Runs the loop until it would sleep. */
void rig_turn(struct rig *r);

/* Driver. A request of rd readable bytes (at least the header) in nrd descriptors and wr writable ones in nwr. */
int rig_add(struct rig *r, uint32_t rd, unsigned nrd, uint32_t wr, unsigned nwr, uint32_t answer);
int rig_add_indirect(struct rig *r, uint32_t rd, unsigned nrd, uint32_t wr, unsigned nwr, uint32_t answer);
/* A small one: header, an answer of 4 bytes. Its tag. */
uint32_t rig_add_small(struct rig *r);
/* Shows them to the device and kicks when asked to: true. */
bool rig_publish(struct rig *r);
/* Gets what was used, checked; how many. tags: their tags in order, or NULL. */
unsigned rig_collect(struct rig *r, uint32_t *tags, unsigned max);
/* Index of the request with that tag, which the device has. */
unsigned rig_index(const struct rig *r, uint32_t tag);
/* Signals since the last look. */
uint64_t rig_signals(int fd);

/* Device. */
uint32_t rig_tag(const struct element *e);
/* Checks what is readable and writes the answer; does not push. */
void rig_answer(struct element *e);
/* Takes one, NULL: none. */
struct element *rig_pop(struct rig *r);
/* Takes one, there has to be one. */
struct element *rig_take(struct rig *r);
/* device: pops and answers everything at once */
void rig_echo(struct rig *r);
/* device: takes everything into held[] */
void rig_hold(struct rig *r);

/*
 * That many more requests, through a driver that sleeps until it is called and a device that sleeps until it is kicked:
 * a lost signal ends the test. chains: up to so many descriptors each. hold: they come back late and in any order.
 */
void rig_traffic(struct rig *r, unsigned total, unsigned chains, bool hold);

/* ram at a guest address */
static inline uint8_t *rig_ram(const struct rig *r, uint64_t gpa)
{
	return r->ram + (gpa - RIG_GPA);
}

/* Numbers that are the same in every run. */
uint32_t rig_random(uint32_t limit);
void rig_seed(uint64_t seed);

/* ---- rig-steps.c ---- */

/* n small requests. */
void rig_add_many(struct rig *r, unsigned n);
/* Everything that is out comes back, tag by tag in this order. */
void rig_collect_exactly(struct rig *r, uint32_t first, unsigned n);
/* The queue serves what comes now. */
void rig_works(struct rig *r);
/* Device: takes n into held[]. */
void rig_take_many(struct rig *r, unsigned n);
void rig_shuffle(struct element **e, unsigned n);
/* Device: the youngest n that are held go back, in any order. */
void rig_give_back(struct rig *r, unsigned n);
/* Device: answers n that are held, from that one on; they stay in held[]. */
void rig_push_held(struct rig *r, unsigned first, unsigned n);
/* What is held are the requests with these tags. */
void rig_check_held(struct rig *r, uint32_t first);
/* Where the ring stands when all is used, as in GET_VRING_BASE, seen from the driver. */
uint32_t rig_driver_base(const struct rig *r);

/* Much traffic on rings of these sizes, with and without event index and chains. */
struct rig_size_case {
	struct rig_mode mode;
	unsigned requests, chains;
	bool hold;
};
void rig_size_cases(const struct rig_mode *modes, unsigned n);

/*
 * Ring addresses that are refused: moved by off (descriptors, driver, device: not aligned), far away, and with only
 * `room` bytes of memory behind them. The queue can be started with better ones.
 */
void rig_bad_addresses(const struct rig_mode *m, const uint64_t off[3], const uint64_t room[3]);

/* Cases for both layouts, with and without event index. */
struct rig_case {
	const char *name;
	void (*fn)(const struct rig_mode *m);
};
void rig_cases(const struct rig_case *cases, unsigned n);

#endif
