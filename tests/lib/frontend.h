/* SPDX-License-Identifier: MIT */
/*
 * A vhost-user front-end and the guest's virtio driver, in user space, for tests of the real binary.
 *
 *	static void works(const struct fe_mode *m)
 *	{
 *		struct fe fe;
 *		struct fe_queue *q;
 *		uint64_t gpa;
 *		void *buf;
 *
 *		fe_start(&fe, m, FE_ARGS("rng"));               // process, handshake, two memory regions
 *		q = fe_queue_up(&fe, 0, 64);                    // ring set up and enabled
 *		buf = fe_alloc(&fe, 4096, 1, &gpa);
 *		CHECK_EQ(fe_transact(q, &(struct vring_driver_buf){gpa, 4096, true}, 1), 4096);
 *		fe_end(&fe);                                    // hang up, expect exit status 0
 *	}
 *	int main(void) { fe_each_mode("works", works); return tap_done(); }
 *
 * Everything blocks on poll() with a limit (fe_limit_ms). Whatever does not go as it should ends the test
 *case with a message that says what was expected and what came, followed by what the program wrote to stderr;
 *so hardly any function here returns an error. Replies are checked as strictly as QEMU does it: flags exactly
 *5, the same request id, the exact size, no surplus replies.
 *
 * The wire structures are defined here again, from the vhost-user specification, so that a mistake in the
 *program's own definitions is not shared by its tests.
 *
 * Environment: VUM=PATH of the binary (default ./vhost-user-multi), FE_LIMIT=MILLISECONDS, FE_SHOW=1 sends
 *the program's stderr to ours.
 */
#ifndef TESTS_FRONTEND_H
#define TESTS_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tap.h"
#include "util.h"
#include "vring-driver.h"

/* --- the wire (vhost-user specification) --- */

enum {
	FE_GET_FEATURES = 1,
	FE_SET_FEATURES,
	FE_SET_OWNER,
	FE_RESET_OWNER,
	FE_SET_MEM_TABLE,
	FE_SET_LOG_BASE,
	FE_SET_LOG_FD,
	FE_SET_VRING_NUM,
	FE_SET_VRING_ADDR,
	FE_SET_VRING_BASE, /* 10 */
	FE_GET_VRING_BASE,
	FE_SET_VRING_KICK,
	FE_SET_VRING_CALL,
	FE_SET_VRING_ERR,
	FE_GET_PROTOCOL_FEATURES,
	FE_SET_PROTOCOL_FEATURES,
	FE_GET_QUEUE_NUM,
	FE_SET_VRING_ENABLE,
	FE_SEND_RARP,
	FE_NET_SET_MTU, /* 20 */
	FE_SET_BACKEND_REQ_FD,
	FE_IOTLB_MSG,
	FE_SET_VRING_ENDIAN,
	FE_GET_CONFIG,
	FE_SET_CONFIG,
	FE_CREATE_CRYPTO_SESSION,
	FE_CLOSE_CRYPTO_SESSION,
	FE_POSTCOPY_ADVISE,
	FE_POSTCOPY_LISTEN,
	FE_POSTCOPY_END, /* 30 */
	FE_GET_INFLIGHT_FD,
	FE_SET_INFLIGHT_FD,
	FE_GPU_SET_SOCKET,
	FE_RESET_DEVICE,
	FE_VRING_KICK,
	FE_GET_MAX_MEM_SLOTS,
	FE_ADD_MEM_REG,
	FE_REM_MEM_REG,
	FE_SET_STATUS,
	FE_GET_STATUS, /* 40 */
	FE_GET_SHARED_OBJECT,
	FE_SET_DEVICE_STATE_FD,
	FE_CHECK_DEVICE_STATE,
	FE_MESSAGES, /* one more than the last */
};

enum { /* back-channel */
	FE_BACK_IOTLB = 1,
	FE_BACK_CONFIG_CHANGE,
	FE_BACK_HOST_NOTIFIER,
	FE_BACK_VRING_CALL,
	FE_BACK_VRING_ERR,
};

enum { /* header flags */
	FE_VERSION = 1,
	FE_REPLY = 4,
	FE_NEED_REPLY = 8,
};

enum { /* feature bits; the device's own are 0..23 and 50..63 */
	FE_F_LOG_ALL = 26,
	FE_F_INDIRECT = 28,
	FE_F_EVENT_IDX = 29,
	FE_F_PROTOCOL = 30,
	FE_F_VERSION_1 = 32,
	FE_F_PACKED = 34,
	FE_F_IN_ORDER = 35,
};

enum { /* protocol feature bits */
	FE_P_MQ = 0,
	FE_P_LOG_SHMFD = 1,
	FE_P_RARP = 2,
	FE_P_REPLY_ACK = 3,
	FE_P_MTU = 4,
	FE_P_BACKEND_REQ = 5,
	FE_P_CRYPTO_SESSION = 7,
	FE_P_PAGEFAULT = 8,
	FE_P_CONFIG = 9,
	FE_P_BACKEND_SEND_FD = 10,
	FE_P_HOST_NOTIFIER = 11,
	FE_P_INFLIGHT = 12,
	FE_P_RESET_DEVICE = 13,
	FE_P_INBAND = 14,
	FE_P_MEM_SLOTS = 15,
	FE_P_STATUS = 16,
	FE_P_XEN_MMAP = 17,
	FE_P_SHARED_OBJECT = 18,
	FE_P_DEVICE_STATE = 19,
};

enum { FE_NOFD = 1 << 8 }; /* in the u64 of SET_VRING_KICK, _CALL, _ERR */

struct fe_header {
	uint32_t request, flags, size;
};

struct fe_vring_state {
	uint32_t index, num;
};

struct fe_vring_addr {
	uint32_t index, flags; /* flags bit 0: log the used ring at log */
	uint64_t desc, used, avail, log;
};

struct fe_wire_region {
	uint64_t gpa, size, uaddr, offset;
};

struct fe_mem_table {
	uint32_t n, pad;
	struct fe_wire_region region[8];
};

struct fe_mem_reg { /* ADD_MEM_REG, REM_MEM_REG */
	uint64_t pad;
	struct fe_wire_region region;
};

struct fe_wire_log {
	uint64_t size, offset;
};

struct fe_wire_inflight { /* 24 bytes with its tail padding, as QEMU sends it */
	uint64_t mmap_size, mmap_offset;
	uint16_t num_queues, queue_size;
	uint32_t tail;
};

struct fe_wire_config {
	uint32_t offset, size, flags;
	uint8_t data[256];
};

struct fe_wire_state { /* SET_DEVICE_STATE_FD */
	uint32_t direction, phase;
};

enum { FE_BODY = 16384, FE_FDS = 16 };

struct fe_msg {
	struct fe_header h;
	_Alignas(8) uint8_t body[FE_BODY];
	int fds[FE_FDS];
	unsigned nfds;
};

/* --- the process (frontend-proc.c) --- */

extern int fe_limit_ms; /* for each wait; 10 s unless FE_LIMIT says otherwise */

#define FE_ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

struct fe_process {
	pid_t pid; /* 0: not running */
	int log;   /* a memfd with its stdout and stderr */
};

/* The binary under test. */
const char *fe_binary(void);
/* Starts it with args (without argv[0]; NULL ends them); it inherits fds 0..2 and `keep` (-1: none) and
 * nothing else. */
void fe_process_start(struct fe_process *p, int keep, const char *const *args);
/* Waits until it has ended; the value is as from waitpid(). Also fails on reports of a sanitizer in its log.
 */
int fe_process_wait(struct fe_process *p);
/* Waits for a regular exit with this status. */
void fe_process_exits(struct fe_process *p, int status);
void fe_process_signal(struct fe_process *p, int sig);
/* kill -9 and wait; nothing when it is not running. */
void fe_process_kill(struct fe_process *p);
bool fe_process_running(const struct fe_process *p);
unsigned fe_process_fds(const struct fe_process *p);
size_t fe_process_rss(const struct fe_process *p); /* bytes */
uint64_t fe_process_cpu_ms(const struct fe_process *p);
/* Do all its threads sleep? One that was woken does not, even before it runs: of a process whose threads do not wake each other,
 * that says that there is nothing it could do. */
bool fe_process_sleeps(const struct fe_process *p);
/* All that it wrote so far; to be freed. */
char *fe_process_log(const struct fe_process *p);
/* Waits until its log contains text. */
void fe_process_logs(const struct fe_process *p, const char *text);
/* A new empty directory below one that is removed when the test program ends; static buffer per call, 4 of
 * them. */
const char *fe_tmpdir(void);

int64_t fe_now_ms(void);
/* poll() of one fd: true = the events (or an error) came, false = ms passed. */
bool fe_poll(int fd, short events, int ms);

/* --- the connection (frontend.c) --- */

struct fe_mode {
	bool packed, event_idx, indirect, in_order;
};

enum { FE_REGIONS = 640, FE_QUEUES = 1024 };

struct fe_region {
	struct fe_wire_region w;
	int fd;
	uint8_t *ptr; /* our mapping of its first byte */
	size_t used;  /* by fe_alloc() */
	bool sent;
};

struct fe {
	struct fe_process process;
	int sock, back; /* back: our end of the back-channel, or -1 */
	struct fe_mode mode;

	/* what to accept; fe_init() sets defaults */
	uint64_t device_mask;	/* device feature bits: all */
	uint64_t protocol_mask; /* protocol features: all but INBAND */
	bool legacy;		/* no VERSION_1 */
	bool no_protocol;	/* do not accept bit 30 */
	bool unacked;		/* use EVENT_IDX and INDIRECT without accepting them */

	size_t ring_align; /* of each part of a ring, beyond what it must be; 0: none */

	uint64_t offered, features; /* offered by the back-end, accepted */
	uint64_t protocol_offered, protocol;
	unsigned queue_num; /* answer to GET_QUEUE_NUM; 0 without MQ */
	uint64_t max_slots;
	unsigned config_changes; /* messages that came on the back-channel */

	struct fe_region regions[FE_REGIONS];
	unsigned nregions;
	struct fe_queue *queues[FE_QUEUES];

	int log_fd, inflight_fd; /* or -1 */
	uint8_t *log;
	size_t log_size;
	struct fe_wire_inflight inflight;
	uint8_t *inflight_ptr;
};

/* Defaults; mode NULL: split, event-idx off, direct. */
void fe_init(struct fe *fe, const struct fe_mode *mode);
/* Starts "BINARY args… --fd=N" (and --packed=on where the mode needs it) on one end of a socketpair. */
void fe_spawn(struct fe *fe, const char *const *args);
/* Starts "BINARY args… --socket-path=PATH" and connects as soon as it listens. */
void fe_spawn_path(struct fe *fe, const char *path, const char *const *args);
/* Connects to a socket that a running process listens on; waits for it to appear. */
void fe_connect(struct fe *fe, const char *path);
/* Listens at path; fe_accept() takes the connection of a --connect process. The value is the listening fd. */
int fe_listen(const char *path);
void fe_accept(struct fe *fe, int listener);
/* Features, protocol features, queue number, slots, back-channel, owner: in the order of QEMU. */
void fe_handshake(struct fe *fe);
/* GET_FEATURES and SET_PROTOCOL_FEATURES … without SET_FEATURES; and SET_FEATURES alone. */
void fe_negotiate(struct fe *fe);
void fe_set_features(struct fe *fe, uint64_t features);
/* init, spawn, handshake, default memory. */
void fe_start(struct fe *fe, const struct fe_mode *mode, const char *const *args);
/* Hangs up, frees all of fe but its process; memory and rings too. */
void fe_close(struct fe *fe);
/* Hangs up only: memory, rings and requests in flight stay for the next connection. */
void fe_hangup(struct fe *fe);
/* Closes; the process (started by fe_spawn) must exit with status 0. */
void fe_end(struct fe *fe);
bool fe_has(const struct fe *fe, unsigned protocol_bit);

/* One message, as it is: header, payload and fds in one sendmsg(). */
void fe_send(struct fe *fe, uint32_t request, uint32_t flags, const void *body, size_t size, const int *fds,
	unsigned nfds);
/* Any bytes; false when the other side has hung up. */
bool fe_send_raw(struct fe *fe, const void *bytes, size_t size, const int *fds, unsigned nfds);
/* One byte at a time; the fds go with the first. */
void fe_send_bytewise(struct fe *fe, uint32_t request, uint32_t flags, const void *body, size_t size,
	const int *fds, unsigned nfds);
/* The next message; false: end of file. fds of m belong to the caller. */
bool fe_recv(struct fe *fe, struct fe_msg *m);
bool fe_recv_from(int sock, struct fe_msg *m);
/* The next message must be the reply to request, with size bytes of payload (FE_ANY: any) and no fds. */
enum { FE_ANY = -1 };
void fe_expect(struct fe *fe, uint32_t request, int size, struct fe_msg *m);
/* Replies with a u64: to a request that has it as its own reply; to one with NEED_REPLY. */
uint64_t fe_get(struct fe *fe, uint32_t request);
uint64_t fe_ack(
	struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds);
/* A request that must succeed: with NEED_REPLY where REPLY_ACK was negotiated, without otherwise. */
void fe_set(struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds);
void fe_set_u64(struct fe *fe, uint32_t request, uint64_t v);
/* A request with a reply of its own of reply_size bytes; *m is the reply, and may be NULL. */
void fe_ask(struct fe *fe, uint32_t request, const void *body, size_t size, const int *fds, unsigned nfds,
	struct fe_msg *m, int reply_size);
/* GET_FEATURES and its reply: all that was sent before has been handled, and was not answered unasked. */
void fe_barrier(struct fe *fe);
/* The back-end must close the connection. */
void fe_expect_eof(struct fe *fe);
void fe_close_fds(int *fds, unsigned n);

/* Configuration space; the value is the ack. */
void fe_config_get(struct fe *fe, uint32_t offset, void *buf, uint32_t len);
uint64_t fe_config_set(struct fe *fe, uint32_t offset, const void *buf, uint32_t len, uint32_t flags);

/* Handles the messages that are waiting on the back-channel, and waits ms for the first. False: none came. */
bool fe_back_serve(struct fe *fe, int ms);
/* Waits until the back-end has announced a change of the configuration; forgets it. */
void fe_config_changed(struct fe *fe);

/* In-flight tracking: asks for the area (and keeps it), gives it to the back-end. */
void fe_inflight_get(struct fe *fe, uint16_t num_queues, uint16_t queue_size);
void fe_inflight_set(struct fe *fe);

/* --- guest memory (frontend-mem.c) --- */

/* Adds a region on our side. fd -1: a new memfd that is just large enough; else it is duplicated and must be.
 */
struct fe_region *fe_region_make(
	struct fe *fe, uint64_t gpa, uint64_t size, uint64_t uaddr, int fd, uint64_t offset);
/* ADD_MEM_REG, REM_MEM_REG (which also forgets the region on our side). */
void fe_region_add(struct fe *fe, struct fe_region *r);
void fe_region_remove(struct fe *fe, struct fe_region *r);
struct fe_region *fe_region_at(struct fe *fe, uint64_t gpa);
/* Tells the back-end all regions: SET_MEM_TABLE, or ADD_MEM_REG for each that it does not know. */
void fe_memory_send(struct fe *fe);
/* Two regions with a gap, both in one file with an offset, user addresses unlike guest addresses; sends them.
 */
void fe_memory_default(struct fe *fe);
/* Forgets all regions and the log, on our side only; fe_close() does it. */
void fe_memory_free(struct fe *fe);
/* A memfd of size bytes. */
int fe_memfd(size_t size);

/* Zeroed guest memory until fe_close() or fe_release(); align: a power of two. gpa may be NULL. */
void *fe_alloc(struct fe *fe, size_t len, size_t align, uint64_t *gpa);
/* fe_release(fe, fe_mark(fe)) gives back what was allocated in the last region in between. */
size_t fe_mark(const struct fe *fe);
void fe_release(struct fe *fe, size_t mark);
void *fe_ptr(const struct fe *fe, uint64_t gpa);
uint64_t fe_gpa(const struct fe *fe, const void *ptr);
uint64_t fe_uaddr(const struct fe *fe, uint64_t gpa);
/* Buffers for a request: the device reads, the device writes. */
struct vring_driver_buf fe_rd(const struct fe *fe, const void *ptr, uint32_t len);
struct vring_driver_buf fe_wr(const struct fe *fe, const void *ptr, uint32_t len);

/* Dirty log: SET_LOG_BASE with a new file; size in bytes, a bit for each page of 4 KiB. offset: a page's
 * multiple. */
void fe_log_set(struct fe *fe, size_t size, uint64_t offset);
bool fe_log_dirty(const struct fe *fe, uint64_t gpa);
unsigned fe_log_count(const struct fe *fe); /* dirty pages */
void fe_log_clear(struct fe *fe);

/* --- the control socket (frontend-control.c) --- */

/* Connects, waits for the socket to appear. */
int fe_control_open(const char *path);
void fe_control_send(int fd, const char *text);
/* The next line, without its end; in a static buffer. */
const char *fe_control_line(int fd);
/* Sends a line, or a command without arguments; the value is the answer (events in between are dropped). */
const char *fe_control_ask(int fd, const char *request);
const char *fe_control(int fd, const char *command);
/* Waits for an event of this name and returns its line; drops all else. */
const char *fe_control_event(int fd, const char *name);

/* --- queues (frontend-queue.c) --- */

struct fe_request {
	void *cookie;
	void *table; /* for its indirect descriptors */
	uint64_t table_gpa;
	unsigned capacity;
	struct fe_request *next;
};

struct fe_queue {
	struct fe *fe;
	unsigned index;
	uint16_t num;
	struct vring_driver ring;
	uint64_t desc_gpa, driver_gpa, device_gpa;
	int kick, call, err;		   /* eventfds; the back-end has duplicates */
	bool nofd_kick, nofd_call, no_err; /* set them before fe_queue_send() */
	bool log;			   /* SET_VRING_ADDR asks to log the used ring */
	bool inband;
	unsigned calls; /* interrupts that were taken off the call fd or came in-band */
	unsigned kicks; /* sent */
	uint64_t submitted;
	struct fe_request *requests, *spare;
};

/* Memory, ring and eventfds for a queue; nothing is sent. base: as in SET_VRING_BASE; FE_FRESH: a new ring's.
 */
enum { FE_FRESH = -1 };
struct fe_queue *fe_queue_make(struct fe *fe, unsigned index, uint16_t num, int base);
/* NUM, BASE, ADDR, KICK, CALL, ERR in the order of QEMU. */
void fe_queue_send(struct fe_queue *q, uint32_t base);
void fe_queue_send_addr(struct fe_queue *q);
/* SET_VRING_KICK, _CALL or _ERR with fd; -1: the NOFD bit. */
void fe_queue_send_fd(struct fe_queue *q, uint32_t request, int fd);
void fe_queue_enable(struct fe_queue *q, bool on);
/* make, send, enable (where bit 30 was negotiated) */
struct fe_queue *fe_queue_up(struct fe *fe, unsigned index, uint16_t num);
/* GET_VRING_BASE: stops the ring; the value goes into fe_queue_send() to start it again. */
uint32_t fe_queue_stop(struct fe_queue *q);
/* Forgets the ring and all that was in flight and starts it afresh in the same memory, on our side only. */
void fe_queue_clear(struct fe_queue *q, int base);
void fe_queue_free(struct fe_queue *q);

/* Stages a request; the value is the ring's head or buffer id. Indirect where the mode says so (but every
 * 4th). */
int fe_submit(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie);
int fe_submit_direct(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie);
int fe_submit_indirect(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n, void *cookie);
/* Publishes what was staged and kicks if the device wants it. */
void fe_flush(struct fe_queue *q);
void fe_kick(struct fe_queue *q);
/* A completed request, if there is one. */
bool fe_collect(struct fe_queue *q, void **cookie, uint32_t *len);
/* Waits for one, asleep until the interrupt; the value is its used length. cookie may be NULL. */
uint32_t fe_wait(struct fe_queue *q, void **cookie);
/* The same with a limit of its own: false = none came. */
bool fe_wait_ms(struct fe_queue *q, void **cookie, uint32_t *len, int ms);
/* The same until the back-end sleeps: false = none came, and none comes before somebody wakes it. */
bool fe_wait_asleep(struct fe_queue *q, void **cookie, uint32_t *len);
/* submit, flush, wait: the used length. */
uint32_t fe_transact(struct fe_queue *q, const struct vring_driver_buf *bufs, unsigned n);
/* Takes pending interrupts off the call fd; the value is how often it was signalled. */
unsigned fe_take_calls(struct fe_queue *q);
/* The back-end must signal the queue's err eventfd. */
void fe_queue_fails(struct fe_queue *q);
bool fe_queue_failed(struct fe_queue *q);

/* --- another process for the same guest (frontend-state.c) --- */

/* Device state, of a device whose queues were stopped; the length. */
size_t fe_state_save(struct fe *fe, void *state, size_t size);
/* The value is the answer to CHECK_DEVICE_STATE. */
uint64_t fe_state_load(struct fe *fe, const void *state, size_t n);
/* All queues; base: FE_QUEUES values. Resumed on a new connection, memory first. */
void fe_queues_stop(struct fe *fe, uint32_t *base);
void fe_queues_resume(struct fe *fe, const uint32_t *base);
/* The base after a crash: QEMU takes the used index of a split ring, and does not know one of a packed ring. */
uint32_t fe_queue_crashed(const struct fe_queue *q);

/* One case for each mode: split, packed × event-idx × indirect; its name gets the mode appended. */
void fe_each_mode(const char *name, void (*fn)(const struct fe_mode *m));
/* Split and packed only, with event-idx and indirect off. */
void fe_each_layout(const char *name, void (*fn)(const struct fe_mode *m));
/* fe_each_mode() and in-order on top: for devices that offer it. */
void fe_each_mode_in_order(const char *name, void (*fn)(const struct fe_mode *m));
/* One case with one mode (NULL: the plainest). */
void fe_case(const char *name, void (*fn)(const struct fe_mode *m), const struct fe_mode *m);

#endif
