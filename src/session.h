/* SPDX-License-Identifier: MIT */
/*
 * One connection to a front-end: the state machine of the vhost-user protocol (control loop only).
 *
 * Messages are handled strictly one after the other. A handler that has to wait, until a queue rests or until nobody uses
 * removed memory, suspends the session: no further message is read until session_resume(). So an acknowledgement always
 * tells the truth, GET_FEATURES works as a barrier, and nothing ever blocks the loop.
 *
 * Errors of a message are answered (ack != 0, or an empty reply) and the connection goes on. Only a broken stream, a lost
 * memory file or in-band notifications without their companions end it.
 *
 * session.c has the message table and what belongs to no ring and no memory; session-ring.c and session-memory.c the rest.
 */
#ifndef SESSION_H
#define SESSION_H

#include "backchannel.h"
#include "device.h"
#include "device-state.h"
#include "dirtylog.h"
#include "guestmem.h"
#include "inflight.h"
#include "message.h"
#include "postcopy.h"
#include "vring.h"

/* What the session is given, lives longer than it. */
struct session_host {
	struct backend *b;
	bool inband, packed; /* offer them */
	int term_fd;	     /* readable when the process shall end; -1: none */
	/* The queue with that index, made on first use; NULL: no such queue, or no memory. */
	struct virtqueue *(*queue)(struct session_host *host, unsigned index);
	/* Queues that exist so far: some of [0, nqueues) may be NULL. */
	struct virtqueue **queues;
	unsigned nqueues;
	/* The session has ended and was freed. orderly: end of file between two messages, or our own wish. */
	void (*ended)(struct session_host *host, bool orderly);
	struct session *session;    /* the one there is, or NULL; the session's own doing */
	uint64_t memory_generation; /* counts the changes of its memory map */
};

struct session {
	struct session_host *host;
	struct backend *b;
	int fd;
	struct watch watch;
	struct message_reader in;
	uint8_t out[64]; /* the rest of a reply that did not fit the socket */
	unsigned nout;

	uint64_t features, protocol;
	uint8_t status;
	bool enable_all; /* no protocol features: rings need no SET_VRING_ENABLE */
	bool enable_told; /* the front-end sends SET_VRING_ENABLE: a kick alone starts no ring, whatever the device says */
	bool bad_rings; /* the driver was told a ring format that we did not offer */

	struct guestmem *mem;
	struct release *release; /* of a map that somebody still uses */
	struct dirtylog *log;
	struct inflight inflight;
	struct backchannel backchannel;
	struct postcopy postcopy;
	struct device_state state;

	bool suspended, ending, orderly;
	unsigned waiting;		   /* queues that have not come to rest */
	void (*rested)(struct session *s); /* when waiting gets 0 */
	struct virtqueue *rest_queue;
	struct task rest_task;
	struct timer patience; /* while it is suspended or ending */
	uint64_t wait_start;   /* ns */
};

enum {			     /* results of a handler besides 0 (fine) and -errno (failed): */
	SESSION_REPLIED = 1, /* the reply has been sent */
	SESSION_PENDING = 2, /* session_finish() or session_resume() comes later */
	SESSION_CLOSE = 3,   /* end the connection */
};

/* An in-band interrupt of a queue of this host; any thread. */
void session_call_inband(struct virtqueue *q);
/* Takes fd. NULL: out of memory (logged), fd is closed. */
struct session *session_new(struct session_host *host, int fd);
/* Quiesces all queues and frees the session, then host->ended(). discard: the front-end is gone. */
void session_end(struct session *s, bool discard, bool orderly);
void session_config_changed(struct session *s);

/* ---- between the session's files ---- */

/* Sends the reply to the message in s->in, with at most one fd (borrowed; -1: none). */
int session_reply(struct session *s, const void *payload, size_t size, int fd);
int session_reply_u64(struct session *s, uint64_t value);
/* Answers the suspended message with a handler's result and reads on. */
void session_finish(struct session *s, int result);
/* Stops a running queue; rested(s) is called when all queues stopped this way rest, at once if there were none. */
void session_stop_queue(struct session *s, struct virtqueue *q, bool discard);
void session_wait_rest(struct session *s, void (*rested)(struct session *s));

/* session-ring.c */
int session_set_vring_num(struct session *s, struct message *m);
int session_set_vring_addr(struct session *s, struct message *m);
int session_set_vring_base(struct session *s, struct message *m);
int session_get_vring_base(struct session *s, struct message *m);
int session_set_vring_kick(struct session *s, struct message *m);
int session_set_vring_call(struct session *s, struct message *m);
int session_set_vring_err(struct session *s, struct message *m);
int session_set_vring_enable(struct session *s, struct message *m);
int session_vring_kick(struct session *s, struct message *m);
int session_reset_owner(struct session *s, struct message *m);
int session_reset_device(struct session *s, struct message *m);
/* After a change of features or memory: starts what can run now. The first error, or 0. */
int session_update_rings(struct session *s);

/* session-memory.c */
int session_set_mem_table(struct session *s, struct message *m);
int session_add_mem_reg(struct session *s, struct message *m);
int session_rem_mem_reg(struct session *s, struct message *m);
int session_set_log_base(struct session *s, struct message *m);
int session_set_log_fd(struct session *s, struct message *m);
int session_get_inflight(struct session *s, struct message *m);
int session_set_inflight(struct session *s, struct message *m);
int session_postcopy_advise(struct session *s, struct message *m);
int session_postcopy_listen(struct session *s, struct message *m);
int session_postcopy_end(struct session *s, struct message *m);
void session_memory_free(struct session *s);
/* Some file of it was truncated, and we noticed. */
bool session_memory_lost(const struct session *s);
/* Gives log and LOG_ALL to the queues. */
void session_update_log(struct session *s);

#endif
