/* SPDX-License-Identifier: MIT */
/*
 * Postcopy migration, the destination's side (vhost-user: "Front-end message types", VHOST_USER_POSTCOPY_ADVISE, _LISTEN,
 * _END and the postcopy notes of SET_MEM_TABLE and ADD_MEM_REG). The guest runs here while its pages are still on their
 * way. Pages that are absent in the shared memory fault into a userfaultfd of ours, which the front-end holds a copy of
 * and serves; whoever touches the page sleeps until it came.
 *
 * Order of things, and what the session does:
 *
 *	ADVISE        postcopy_advise(), reply of size 0 with the fd (without one on failure)
 *	LISTEN        postcopy_listen(), acknowledged if NEED_REPLY says so; there must be no regions yet
 *	SET_MEM_TABLE a new map from guestmem_add(…, PROT_NONE, …); postcopy_prepare(); reply: the same payload,
 *	              uaddr of each region replaced by postcopy_base(); not yet given to the queues
 *	ADD_MEM_REG   the same, with the map postcopy_base_map() (or the session's, if that is NULL) plus the region
 *	…             of size 8 and without an fd: postcopy_accept(), give the map to the queues, no reply. QEMU names this
 *	              message SET_MEM_TABLE, ADD_MEM_REG or REM_MEM_REG, whichever it sent last
 *	END           postcopy_end(), reply u64
 *
 * A front-end that holds the userfaultfd and serves nothing could hold our threads for ever. So a watcher thread gives
 * up the userfaultfd (absent pages then read as zeros) as soon as one of the `until` events comes, and the session calls
 * postcopy_end() before it waits for anything when a connection ends.
 *
 * All functions: control thread.
 */
#ifndef POSTCOPY_H
#define POSTCOPY_H

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "guestmem.h"

struct postcopy_range {
	uint64_t start, len;
};

enum { POSTCOPY_UNTIL_MAX = 4 };

struct postcopy { /* zeroed memory is the idle state, but for uffd: use POSTCOPY_INIT */
	int uffd; /* -1: not advised */
	bool listening;
	struct guestmem *pending; /* prepared, not accepted; or NULL */
	/* shared with the watcher */
	pthread_mutex_t lock;
	struct postcopy_range *ranges; /* registered with uffd */
	unsigned n, capacity;
	bool given_up;
	bool watching; /* the thread exists */
	pthread_t watcher;
	struct pollfd until[POSTCOPY_UNTIL_MAX + 1]; /* the last one: stop */
	unsigned n_until;
};

#define POSTCOPY_INIT                                         \
	{                                                     \
		.uffd = -1, .lock = PTHREAD_MUTEX_INITIALIZER \
	}

/* True when PAGEFAULT may be offered: a userfaultfd opens that also serves faults of system calls on shared memory. */
bool postcopy_available(void);

/* Opens the userfaultfd. Returns it (it stays ours, for the reply), or -errno, logged. Again: a new one. */
int postcopy_advise(struct postcopy *p);

/*
 * From now on memory is prepared before it is used. now: the session's map, which must be empty. until: events after
 * which nobody may wait for a page any more, e.g. {socket, POLLRDHUP}, {signalfd, POLLIN}; POSTCOPY_UNTIL_MAX at most;
 * the fds stay open until postcopy_end(). -errno, logged.
 */
int postcopy_listen(struct postcopy *p, const struct guestmem *now, const struct pollfd *until, unsigned n);

static inline bool postcopy_listening(const struct postcopy *p)
{
	return p->listening;
}

/* Keeps m (takes over the reference) until it is accepted; replaces what was prepared before. */
void postcopy_prepare(struct postcopy *p, struct guestmem *m);
/* The map that was prepared and not accepted yet, or NULL; borrowed. */
const struct guestmem *postcopy_base_map(const struct postcopy *p);
/* The address of the prepared region that begins at gpa, as the reply names it; 0: there is none. */
uint64_t postcopy_base(const struct postcopy *p, uint64_t gpa);

/*
 * The front-end is ready for faults: registers the memory that was prepared and makes it accessible. *out: the map with
 * its reference, for the queues; NULL when nothing was prepared. -errno, logged: what was prepared is dropped.
 */
int postcopy_accept(struct postcopy *p, struct guestmem **out);

/* All pages came, or the connection ends: no page is waited for any more. Idempotent. */
void postcopy_end(struct postcopy *p);

#endif
