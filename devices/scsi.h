/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the SCSI host adapter share.
 *
 * Threads. A request lives in the loop of its queue from its arrival to its answer. Logical units are shared by all
 * queues; what every command looks at (is there anything unusual?) is one atomic word, scsi_lun.state. Only when it is not
 * zero, and in commands that change something, scsi.lock is taken. What concerns the requests of all queues (task
 * management, COMPARE AND WRITE, a unit that is removed) is a sweep: each queue's loop looks at its own list.
 */
#ifndef SCSI_H
#define SCSI_H

#include <linux/virtio_scsi.h>
#include <pthread.h>
#include <scsi/sg.h>

#include "device.h"
#include "disk.h"
#include "scsi-bytes.h"
#include "scsi-pr.h"
#include "scsi-sense.h"

#define SCSI_QUEUES	  256u /* control, event and requests: an index has eight bits in the protocol */
#define SCSI_FIRST	  2u   /* request queue */
#define SCSI_MAX_LUNS	  512u
#define SCSI_MAX_TARGET	  255u
#define SCSI_MAX_LUN	  16383u
#define SCSI_THREADS	  64u
#define SCSI_RESPONSE	  12u		      /* bytes before the sense data */
#define SCSI_SECTORS	  0xffffu	      /* in one transfer, of 512 bytes */
#define SCSI_MAX_UNMAP	  (UINT32_C(1) << 31) /* bytes in one UNMAP: there is only a hole to be made */
#define SCSI_UNMAP_RANGES 256u
#define SCSI_MAX_SAME	  (UINT32_C(1) << 29) /* bytes in one WRITE SAME */
#define SCSI_CHUNK	  65536u	      /* bytes of scratch, at least a block */
#define SCSI_CDB	  32u
#define SCSI_SENSE_SIZE	  96u
#define SCSI_SERIAL	  36u	/* bytes, the most */
#define SCSI_AN_MEDIA	  0x10u /* asynchronous notification: medium changed */
#define SCSI_EVENTS	  32u

struct scsi;
struct scsi_lun;
struct scsi_queue;
struct scsi_request;
struct scsi_sg;

/* Peripheral device types (SPC-4, 6.4.2). */
enum scsi_type { SCSI_DISK = 0, SCSI_CDROM = 5 };

/* Status codes (SAM-5, 5.3.1). */
enum {
	STATUS_GOOD = 0,
	STATUS_CHECK_CONDITION = 2,
	STATUS_CONDITION_MET = 4,
	STATUS_BUSY = 8,
	STATUS_RESERVATION_CONFLICT = 0x18,
};

/* --- commands --- */

/* What a command is, for the checks that come before it. */
enum {
	CMD_ANY_STATE = 1 << 0, /* runs with a unit attention pending, and leaves it (INQUIRY…) */
	CMD_MEDIUM = 1 << 1,	/* needs a medium that is there and started */
	CMD_WRITE = 1 << 2,	/* changes the medium */
	CMD_FREE = 1 << 3,	/* allowed in the face of a reservation of another nexus */
	CMD_READ = 1 << 4,	/* allowed where others may not write */
	CMD_DISK = 1 << 5,
	CMD_CDROM = 1 << 6,
};

#define SCSI_NO_ACTION 0xffff

struct scsi_opcode {
	uint8_t op;
	uint16_t action;   /* service action, or SCSI_NO_ACTION */
	uint8_t usage[16]; /* bits of the CDB that are looked at, from byte 1 on; byte 0 is not used */
	uint8_t flags;
	void (*run)(struct scsi_request *r);
};

/* --- logical units --- */

/* Unit attentions by precedence (SAM-5, 5.14): a lower bit is reported first. */
enum scsi_attention {
	ATTENTION_POWER_ON,
	ATTENTION_RESET,
	ATTENTION_NEXUS_LOSS,
	ATTENTION_MEDIUM,
	ATTENTION_LUNS,
	ATTENTION_CAPACITY,
	ATTENTION_MODE,
	ATTENTION_RESERVATIONS_PREEMPTED,
	ATTENTION_RESERVATIONS_RELEASED,
	ATTENTION_REGISTRATIONS_PREEMPTED,
	ATTENTIONS,
};

/* Bits of scsi_lun.state. All zero: any command may simply run. */
enum {
	STATE_ATTENTION = 1 << 0, /* scsi_lun.attention is not zero */
	STATE_STOPPED = 1 << 1,
	STATE_NO_MEDIUM = 1 << 2,
	STATE_NO_WRITES = 1 << 3, /* somebody else has reserved it */
	STATE_NO_READS = 1 << 4,
	STATE_EXCLUSIVE = 1 << 5, /* a COMPARE AND WRITE runs: writes wait */
	STATE_PREVENTED = 1 << 6, /* the medium may not be removed; never in the way of a command */
};
#define STATE_UNUSUAL 0x3fu

/* Bits of scsi_lun.mode: what MODE SELECT can change. */
enum {
	MODE_WCE = 1 << 0,
	MODE_D_SENSE = 1 << 1,
	MODE_SWP = 1 << 2,
};

/*
 * Looks at the requests in flight of all queues that match, once, when each queue's loop comes to it; done() runs in
 * `loop` when all that were found there have ended.
 */
struct scsi_sweep {
	bool (*match)(const struct scsi_sweep *w, const struct scsi_request *r);
	void (*done)(struct scsi_sweep *w);
	struct loop *loop;
	struct scsi_lun *lun; /* for match() */
	uint64_t tag;
	unsigned target;
	uint8_t abort; /* response for those found (VIRTIO_SCSI_S_*); 0: they go on */
	bool query;    /* only looks: does not wait for their end */

	bool found; /* results */

	struct scsi *scsi; /* private */
	struct scsi_sweep *next;
	struct post post;
	unsigned left; /* queues that have not finished */
	bool active;
	struct scsi_visit {
		uint64_t upto;
		bool wanted, visited, ended;
	} visit[SCSI_QUEUES];
};

struct scsi_lun {
	struct scsi *scsi;
	uint8_t target;
	uint16_t number;

	/* Fixed. */
	enum scsi_type type;
	uint32_t block; /* bytes, a power of two */
	unsigned shift; /* log2 of it */
	bool read_only, removable;
	char serial[SCSI_SERIAL + 1];
	char *source; /* file, URI or device */
	struct disk_options options;
	struct disk *disk;  /* NULL: passed through */
	struct scsi_sg *sg; /* NULL: a disk */
	struct disk_watch watch;
	bool write_cache; /* how MODE_WCE starts */

	/* Atomic. */
	uint32_t state, mode;
	uint32_t attention; /* bits by enum scsi_attention */
	bool watched_media; /* the driver subscribed to medium changes */

	/* scsi.lock */
	struct scsi_pr pr;
	int pr_fd;	/* what keeps it, or -1; fixed */
	bool pr_shared; /* others may write that file, before and after us; fixed */
	bool reserved;	/* by RESERVE */
	struct scsi_request *exclusive,
		**exclusive_tail; /* COMPARE AND WRITEs that wait, the first one runs */
	struct scsi_sweep quiet;  /* writes in flight have ended */
	struct scsi_sweep gone;	  /* all requests have ended */
	struct scsi_lun *going_next;

	struct disk_lane *lanes[SCSI_THREADS]; /* each is its thread's */
};

/* --- queues and requests --- */

struct scsi_queue {
	struct scsi *scsi;
	struct virtqueue *vq;
	struct loop *loop;
	unsigned index, thread;
	bool used;				    /* scsi.lock: was started once */
	uint64_t seq;				    /* of the youngest request */
	struct scsi_request *inflight;		    /* waiting for the disk */
	struct scsi_request *parked, **parked_tail; /* waiting for STATE_EXCLUSIVE to go */
	struct post poke;
	struct task again, report;
	unsigned rounds;
};

/* A command that goes to a real device. */
struct scsi_passed {
	struct job job;
	struct sg_io_hdr hdr;
	int error;	/* of the system call: 0 or errno; ECANCELED: it was not begun */
	bool cancelled; /* atomic */
	uint8_t sense[SCSI_SENSE_SIZE];
};

struct scsi_request {
	struct element *element;
	struct scsi_queue *queue;
	struct scsi_lun *lun; /* NULL: a unit that is not there */
	const struct scsi_opcode *op;
	void (*step)(struct scsi_request *r); /* after io */
	struct scsi_request *next, **link;    /* in flight, or parked */
	struct scsi_request *exclusive_next;
	void *scratch; /* freed at the end */
	uint64_t seq;
	uint64_t at, left, verified;   /* bytes */
	uint32_t sense_size, cdb_size; /* as configured when it came */
	uint32_t readable;	       /* bytes of data from the driver */
	uint32_t writable;	       /* room for data to the driver */
	uint32_t alloc;		       /* the command's allocation length */
	unsigned phase;		       /* for commands of several steps */
	uint8_t abort;		       /* VIRTIO_SCSI_S_*: end with this instead of going on */
	bool waits;		       /* for its turn to be exclusive */
	bool is_exclusive, parked;
	bool submitted, asked;
	bool unit_missing; /* the target is there, the unit is not */
	bool well_known;   /* the REPORT LUNS unit */
	uint8_t target;
	uint16_t unit;
	union {
		struct disk_io io;
		struct scsi_passed passed;
	};
	/* From io.iov on nothing is zeroed when it comes. */
	struct cursor resp; /* the writable part up to the data */
	struct cursor data;
	struct cursor again; /* data that is looked at a second time */
	struct iovec iov;    /* of scratch */
	union {
		struct virtio_scsi_cmd_req head; /* as it came */
		struct {
			uint8_t before[offsetof(struct virtio_scsi_cmd_req, cdb)];
			uint8_t cdb[SCSI_CDB];
		};
	};
};
#define SCSI_REQUEST_ZERO (offsetof(struct scsi_request, io) + offsetof(struct disk_io, iov))

struct scsi_event {
	uint32_t event, reason;
	uint8_t lun[8];
};

struct scsi {
	struct backend *b;
	struct disk_options options; /* --blk-file, --null: unit 0 of target 0 */
	const char *serial;
	const char *initiator; /* the front-end, for reservations */
	uint32_t block_size, num_queues, threads;
	const char *luns[SCSI_MAX_LUNS]; /* borrowed: --lun */
	unsigned nluns;

	/* Atomic: a hash table, holes are NULL. Written in the control loop. */
	struct scsi_lun *units[SCSI_MAX_LUNS];

	struct scsi_lun *going; /* removed, still with requests; control loop */

	pthread_mutex_t lock;
	bool closed;	  /* lock */
	unsigned running; /* queues; lock */
	struct scsi_sweep *sweeps;
	struct scsi_queue queues[SCSI_QUEUES];

	struct {			 /* task management: one at a time */
		struct element *element; /* or NULL */
		struct scsi_sweep sweep;
		uint32_t subtype;
		unsigned unit;
		unsigned waits;	   /* the sweep, and a real device that is reset */
		struct pool *pool; /* for that, since it may take long; NULL: not needed yet */
		struct job reset;
		int reset_fd, reset_error;
	} tmf;

	struct { /* lock */
		struct scsi_event pending[SCSI_EVENTS];
		unsigned n;
		bool missed, open; /* open: the driver has an event queue */
		bool loaded;	   /* they came from elsewhere, as does the ring that starts next */
	} events;
};

static inline struct scsi *scsi_of(struct backend *b)
{
	return b->state;
}

/* --- scsi.c --- */

/* The end of a request; it is gone afterwards. */
void scsi_good(struct scsi_request *r);
void scsi_status(struct scsi_request *r, uint8_t status);
/* With the sense data of a real device. */
void scsi_status_sense(struct scsi_request *r, uint8_t status, const void *sense, size_t len);
void scsi_sense(struct scsi_request *r, const struct scsi_sense *sense);
void scsi_fail(struct scsi_request *r, uint32_t code);
/* The CDB's, or the parameter list's, byte is wrong. */
void scsi_fail_cdb(struct scsi_request *r, unsigned byte);
void scsi_fail_data(struct scsi_request *r, unsigned byte);
/* A response of the transport, VIRTIO_SCSI_S_*, without a status. */
void scsi_respond(struct scsi_request *r, uint8_t response);

/* Is there room for (or is there) that much data? If not, the request has ended with OVERRUN. */
bool scsi_wants_in(struct scsi_request *r, uint64_t len);
bool scsi_wants_out(struct scsi_request *r, uint64_t len);
/* Answers with data, cut at the allocation length, which the driver's buffer was found to have room for. */
void scsi_reply(struct scsi_request *r, const void *data, size_t len);

/* Gives r->io to the disk. True: it is done already. False: r->step() comes later, or the request ends aborted. */
bool scsi_io(struct scsi_request *r);
/* What stands in r->io.result, as the end of the request. */
void scsi_io_failed(struct scsi_request *r);
/* Runs what the CDB says, from the checks on. */
void scsi_execute(struct scsi_request *r);

/* Little-endian, as they stand in the configuration space. */
bool scsi_sizes_valid(uint32_t sense_size, uint32_t cdb_size);
bool scsi_address_read(const uint8_t address[8], unsigned *target, unsigned *lun);
void scsi_address_write(uint8_t address[8], unsigned target, unsigned lun);
void scsi_link(struct scsi_request *r);
void scsi_unlink(struct scsi_request *r);
/* Takes back what the disk has not begun with: of aborted requests, or of all (and the parked ones) when the queue stops. */
void scsi_withdraw(struct scsi_queue *q, bool stops);
/* The request goes back into the ring, not begun. */
void scsi_give_back(struct scsi_request *r);

/* --- scsi-command.c --- */

/* NULL: no such command, *op then says whether it is the service action that is unknown. */
const struct scsi_opcode *scsi_command_find(const uint8_t *cdb, enum scsi_type type, bool *op);
unsigned scsi_cdb_length(uint8_t op);
void scsi_report_opcodes(struct scsi_request *r);
void scsi_report_tmfs(struct scsi_request *r);

/* --- scsi-sg.c --- */

/* 0 or -errno; then *what says of what. timeout: ms for a command. all: no command is refused. */
int scsi_sg_open(struct scsi_sg **out, const char *path, uint32_t timeout, bool all, const char **what);
/* No request may be in flight. NULL is fine. */
void scsi_sg_close(struct scsi_sg *g);
/* Bytes that one command can transfer. */
uint32_t scsi_sg_limit(const struct scsi_sg *g);
/* Peripheral device type. */
uint8_t scsi_sg_type(const struct scsi_sg *g);
const struct scsi_opcode *scsi_sg_command(const struct scsi_sg *g, const uint8_t *cdb);
/* A descriptor of its own for scsi_sg_reset(), or -errno. */
int scsi_sg_dup(const struct scsi_sg *g);
/* Resets that unit of the real device, which ends what it has begun with; waits for it. 0 or -errno. */
int scsi_sg_reset(int fd);
/* Those that wait for a thread will not begin: of aborted requests, or of all when the queue stops. */
void scsi_sg_withdraw(struct scsi_queue *q, bool stops);

/* --- scsi-lun.c --- */

/* "TARGET:LUN,file=…": 0 or -errno; the reason goes to why. The unit is there afterwards. Control loop. */
int scsi_lun_add(struct scsi *s, const char *spec, char *why, size_t size);
int scsi_lun_add_options(struct scsi *s, const struct disk_options *o);
/* The unit is gone for new requests; the rest follows when those in flight have ended. */
int scsi_lun_remove(struct scsi *s, unsigned target, unsigned lun);
void scsi_lun_close_all(struct scsi *s);
/* Any thread. */
struct scsi_lun *scsi_lun_find(struct scsi *s, unsigned target, unsigned lun);
bool scsi_target_exists(struct scsi *s, unsigned target);
bool scsi_lun_number(const char *text, unsigned *target, unsigned *lun);
uint64_t scsi_lun_blocks(const struct scsi_lun *l);
void scsi_lun_attention(struct scsi_lun *l, enum scsi_attention a);
/* Takes the one with the highest precedence; SENSE_NONE: there is none. */
uint32_t scsi_lun_attention_take(struct scsi_lun *l);
void scsi_lun_attention_clear(struct scsi_lun *l, enum scsi_attention a);
/* All units of the target, of all targets when it is negative; stops when fn says so. */
void scsi_lun_each(struct scsi *s, int target, void (*fn)(struct scsi_lun *l, void *arg), void *arg);
/* Back to how it was at power on, but what a nexus keeps. */
void scsi_lun_reset(struct scsi_lun *l, enum scsi_attention a);
void scsi_report_luns(struct scsi_request *r);

static inline void scsi_lun_set(struct scsi_lun *l, uint32_t bits)
{
	__atomic_fetch_or(&l->state, bits, __ATOMIC_SEQ_CST);
}

static inline void scsi_lun_clear(struct scsi_lun *l, uint32_t bits)
{
	__atomic_fetch_and(&l->state, ~bits, __ATOMIC_SEQ_CST);
}

static inline uint32_t scsi_lun_mode(const struct scsi_lun *l)
{
	return __atomic_load_n(&l->mode, __ATOMIC_RELAXED);
}

/* --- scsi-control.c --- */

extern const struct command_spec scsi_commands[];
/* An event of the control socket about a unit. */
void scsi_tell(struct scsi_lun *l, const char *what);

/* --- scsi-sweep.c --- */

void scsi_sweep_start(struct scsi *s, struct scsi_sweep *w);
/* In the queue's loop: a request has ended, perhaps the last one that a sweep waits for. */
void scsi_sweep_note(struct scsi_queue *q);
void scsi_poke(struct post *p);
void scsi_poke_again(struct task *t);
void scsi_sweep_report(struct task *t);
void scsi_poke_all(struct scsi *s);
/* Its turn to be the only one that writes comes in step(), with nobody's write in flight; ends with its answer. */
void scsi_exclusive_begin(struct scsi_request *r);
void scsi_exclusive_end(struct scsi_request *r);
void scsi_park(struct scsi_request *r);

/* --- scsi-tmf.c --- */

void scsi_tmf_close(struct scsi *s);
void scsi_control_ready(struct backend *b, struct virtqueue *q);

/* --- scsi-event.c --- */

void scsi_event_ready(struct backend *b, struct virtqueue *q);
void scsi_event_flush(struct scsi_queue *q);
void scsi_event_send(struct scsi *s, uint32_t event, unsigned target, unsigned lun, uint32_t reason);

/* --- scsi-state.c --- */

int scsi_state_save(struct backend *b, int fd);
int scsi_state_load(struct backend *b, int fd);

/* --- commands --- */

void scsi_test_unit_ready(struct scsi_request *r);
void scsi_inquiry(struct scsi_request *r);
/* INQUIRY of a unit that is not there. */
void scsi_inquiry_nobody(struct scsi_request *r);
void scsi_request_sense(struct scsi_request *r);
void scsi_mode_sense(struct scsi_request *r);
void scsi_mode_select(struct scsi_request *r);
void scsi_read(struct scsi_request *r);
void scsi_write(struct scsi_request *r);
void scsi_read_capacity10(struct scsi_request *r);
void scsi_read_capacity16(struct scsi_request *r);
void scsi_sync_cache(struct scsi_request *r);
void scsi_start_stop(struct scsi_request *r);
void scsi_prevent_allow(struct scsi_request *r);
void scsi_verify(struct scsi_request *r);
void scsi_write_verify(struct scsi_request *r);
void scsi_compare_and_write(struct scsi_request *r);
void scsi_write_same(struct scsi_request *r);
void scsi_unmap(struct scsi_request *r);
void scsi_format_unit(struct scsi_request *r);
void scsi_get_lba_status(struct scsi_request *r);
void scsi_send_diagnostic(struct scsi_request *r);
void scsi_reserve(struct scsi_request *r);
void scsi_release(struct scsi_request *r);
void scsi_pr_in(struct scsi_request *r);
void scsi_pr_out(struct scsi_request *r);
/* scsi_lun.pr has changed. With the lock. */
void scsi_pr_apply(struct scsi_lun *l);
void scsi_read_toc(struct scsi_request *r);
void scsi_get_configuration(struct scsi_request *r);
void scsi_get_event_status(struct scsi_request *r);
void scsi_read_disc_information(struct scsi_request *r);
void scsi_mechanism_status(struct scsi_request *r);

/* The range of a medium access command: r->at and r->left in bytes. False: the request has ended. */
bool scsi_range(struct scsi_request *r, uint64_t lba, uint64_t blocks);
void scsi_lba(const struct scsi_request *r, uint64_t *lba, uint32_t *blocks);
/* Must what is written be on the medium when the command ends? */
bool scsi_write_through(const struct scsi_request *r, bool fua);
/* r->scratch of so many chunks. False: the request has ended. */
bool scsi_scratch(struct scsi_request *r, unsigned chunks);
/* Prepares r->io to read or write len bytes of scratch at r->at. */
void scsi_scratch_io(struct scsi_request *r, enum disk_op op, size_t len);
bool scsi_limited(struct scsi_request *r, uint64_t blocks);
/* Ends with GOOD when all is on stable storage. */
void scsi_flush_and_end(struct scsi_request *r);

#endif
