/* SPDX-License-Identifier: MIT */
/*
 * All that a device needs. A device is one const row of the device table; the core owns memory, rings,
 *elements, message fds, threads and the connection, the device owns its state, its host fds and its watches.
 *
 * Life of a device in one process:
 *
 *	options parsed into state → open() → [ connection: start(q)… ready(q)… stop(q)… reset() ]* → close()
 *
 * Operations may be NULL. int results are 0 or -errno, already logged by the device. An operation that failed
 *leaves nothing behind. start, stop and ready run in the queue's loop; everything else runs in the control
 *loop (b->loop) while the queues may be running, so a device with queue threads shares only what does not
 *change, or is atomic.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"
#include "cursor.h"
#include "json.h"
#include "le.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "util.h"
#include "virtqueue.h"

/* Feature bits that belong to the core, in backend.features too (virtio 1.3, 6; vhost-user) */
enum {
	FEATURE_LOG_ALL = 26,
	FEATURE_INDIRECT_DESC = 28,
	FEATURE_EVENT_IDX = 29,
	FEATURE_PROTOCOL = 30,
	FEATURE_VERSION_1 = 32,
	FEATURE_RING_PACKED = 34,
	FEATURE_IN_ORDER = 35,
};

/* Requests of the front-end that only some devices know. */
enum request_type {
	REQUEST_SEND_RARP,     /* payload: u64, the first 6 bytes are the MAC */
	REQUEST_SET_MTU,       /* payload: u64 */
	REQUEST_GPU_SOCKET,    /* fd */
	REQUEST_CREATE_CRYPTO, /* payload: session description, answered in place */
	REQUEST_CLOSE_CRYPTO,  /* payload: u64 */
};

struct request {
	enum request_type type;
	void *payload; /* the message's, 8-byte aligned; changed in place where there is an answer */
	size_t size;   /* bytes of payload; the answer has the same size */
	int fd;	       /* or -1; the device takes it by setting this to -1, else the core closes it */
};

/* Tables of these end with a NULL name. */
struct feature_name {
	unsigned bit;
	const char *name; /* "seg-max" */
};

struct device {
	const char *name;    /* "block" */
	const char *alias;   /* "blk", or NULL */
	const char *summary; /* one line for --list */
	uint32_t virtio_id;
	uint64_t features;	    /* device bits only; ring bits belong to the core */
	uint64_t protocol_features; /* PROTOCOL_* bits of message.h beyond the core's own (RARP, MTU, crypto
				       session) */
	size_t state_size, queue_state_size, config_size;
	const struct option_spec *options;	  /* offsets into state; or NULL */
	const struct feature_name *feature_names; /* of the device bits, for query-status; or NULL */
	const struct command_spec *commands;	  /* of the control socket; or NULL */
	const struct queue_spec *queues; /* nqueues rows; the last `repeat` rows recur up to max_queues */
	uint16_t nqueues, repeat, max_queues;
	uint64_t
		reversed; /* bit i: in queue i the roles are exchanged, we are its driver (virtqueue_driver()) */
	uint64_t
		only_read; /* bit i: of queue i we only read buffers, those that the driver marked as writable too */
	uint64_t
		always_call; /* bit i: queue i has a driver that misses what comes just before it asks for a call */
	bool queue_threads;  /* queues share only read-only state: open() may set b->threads */
	bool enable_on_kick; /* some front-ends of this device never send SET_VRING_ENABLE (crypto) */
	bool in_order;	     /* gives buffers back in the order they came anyway: offer IN_ORDER */
	/*
	 * One process may have several backends, each with its socket, and state that begins as a copy of the same options: what
	 * is between them is the device's. They are opened and closed one after the other, and share the control loop.
	 */
	bool several;

	/* Writes the value of "features" (an array of strings) or nothing; judged on this host, without
	 * open(). */
	int (*capabilities)(struct json *out);
	/* Takes host resources, checks options, may change b->config, b->offered, b->num_queues, b->threads.
	 */
	int (*open)(struct backend *b);
	void (*close)(struct backend *b);
	/* The queue begins to run: features are final. */
	int (*start)(struct backend *b, struct virtqueue *q);
	/* Take no more. Elements held back come by unpop now; those in progress by push when done. The core
	 * waits. */
	void (*stop)(struct backend *b, struct virtqueue *q);
	/* The guest rebooted or the front-end went: no queue runs; forget guest state. */
	void (*reset)(struct backend *b);
	/* The guest wrote [off, off + len) of the configuration space; inside config_size. Apply what is
	 * writable to b->config, ignore the rest (front-ends send read-only fields along). */
	void (*config_write)(struct backend *b, size_t off, const void *data, size_t len);
	int (*request)(struct backend *b, struct request *r);
	/* Device state for migration: save writes all of it to fd, a memory file; load reads from there to its end.
	 * No queue runs meanwhile. */
	int (*save)(struct backend *b, int fd);
	int (*load)(struct backend *b, int fd);
	/* The map of guest memory is another now (backend_memory_generation()). */
	void (*memory)(struct backend *b);
	/* Part of the device in a process of its own, which the device starts: this program with HELPER_ARGUMENT alone. HELPER_FD
	 * is a socket to it. Returns the exit status. */
	int (*helper)(void);
};

#define HELPER_ARGUMENT "--helper"
enum { HELPER_FD = 3 };

/* The part of a backend that its device may see. */
struct backend {
	const struct device *dev;
	void *state;	     /* dev->state_size bytes, options already in it */
	uint8_t *config;     /* dev->config_size bytes, as the guest reads them (little-endian) */
	struct loop *loop;   /* the control loop */
	uint64_t offered;    /* device feature bits offered; starts as dev->features */
	uint64_t features;   /* what the driver accepted (0 before) */
	unsigned num_queues; /* virtqueues that exist; starts as dev->max_queues */
	unsigned queue_num;  /* answer to GET_QUEUE_NUM; 0: num_queues (net counts pairs) */
	unsigned threads; /* queue threads; queue i runs in thread i % threads; 0: all in the control loop */
	unsigned
		thread_queues; /* so many queues in a row share a thread: (i / thread_queues) % threads; 0: 1 */
	unsigned socket, num_sockets; /* which of the process's backends, of how many */
};

static inline bool backend_has(const struct backend *b, unsigned bit)
{
	return b->features & BIT(bit);
}

/* b->config was changed by us: tell the front-end (VHOST_USER_BACKEND_CONFIG_CHANGE_MSG). Control loop only.
 */
void backend_config_changed(struct backend *b);
/*
 * Tells all clients of the control socket that something happened: {"event":name,"data":data}. data is one complete object,
 * or NULL: {}; it is freed. backend_event_wanted() is false when nobody listens, so that data need not be made. Control
 * loop only.
 */
bool backend_event_wanted(const struct backend *b);
void backend_event(struct backend *b, const char *name, struct json *data);
/* Another backend of this process; i < num_sockets. Control loop only. */
struct backend *backend_of_socket(struct backend *b, unsigned i);
/* The virtqueue with this index, or NULL when the front-end never set it up. Control loop or any queue's own.
 */
struct virtqueue *backend_queue(struct backend *b, unsigned index);
/*
 * Guest memory outside an element: a device that was told guest addresses earlier (the backing of a gpu
 * resource) keeps the addresses and translates them at each use, in the control loop, between get and put. In
 * between the map is pinned, as an element pins it: a region that the front-end takes away stays mapped. No
 * host pointer may outlive the put.
 */
struct backend_memory {
	struct guestmem *map;
	struct dirtylog *log; /* NULL: nothing is logged */
	unsigned hint;
};
/* False: there is no guest memory (no connection). */
bool backend_memory_get(struct backend *b, struct backend_memory *m);
void backend_memory_put(struct backend_memory *m);
/* Fills v[] with the segments of [gpa, gpa + len). Returns how many; 0: some of it is not guest memory, or it
 * takes more than n segments. */
unsigned backend_memory_iovec(
	struct backend_memory *m, uint64_t gpa, uint64_t len, struct iovec *v, unsigned n);
/* We wrote there: for the dirty log. Only of what backend_memory_iovec() translated. */
void backend_memory_wrote(struct backend_memory *m, uint64_t gpa, uint64_t len);
/*
 * For a device that gives guest memory back to the host. Memory goes in whole pages of the file that it comes from
 * (hugetlbfs: huge ones). page(): start and size of the one that holds gpa; false: it is not wholly guest memory. discard():
 * the whole pages inside of [gpa, gpa + len) read as zeros from now on, but never a page that holds a ring of ours, and
 * none at all while writes are logged or postcopy goes on: those need the pages as they are. Returns the bytes given back.
 */
bool backend_memory_page(struct backend_memory *m, uint64_t gpa, uint64_t *start, uint64_t *size);
uint64_t backend_memory_discard(struct backend *b, struct backend_memory *m, uint64_t gpa, uint64_t len);
/*
 * Region i of the map, for a process of ours that maps it too; fd is borrowed, until the put. False: there is none, or it is
 * being migrated (postcopy): its pages are not all there, and only this process knows.
 */
struct backend_region {
	uint64_t gpa, size, offset; /* offset: in the file */
	int fd;
};
bool backend_memory_region(
	struct backend *b, const struct backend_memory *m, unsigned i, struct backend_region *out);
/* Changes whenever the map does, over all connections: tells when something made of translations is stale. */
uint64_t backend_memory_generation(struct backend *b);

/* The host resource is gone for good: end the process with status 1 after quiescing. */
void backend_fail(struct backend *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
