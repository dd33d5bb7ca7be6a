/* SPDX-License-Identifier: MIT */
/* Private to disk-nbd.c (requests), disk-nbd-round.c (how they are done) and disk-nbd-connect.c (connections). */
#ifndef DISK_NBD_H
#define DISK_NBD_H

#include <libnbd.h>

#include "disk-bounce.h"
#include "disk-driver.h"
#include "library.h"

#define NBD_FUNCTIONS(F)                \
	F(nbd_create)                   \
	F(nbd_close)                    \
	F(nbd_get_error)                \
	F(nbd_get_errno)                \
	F(nbd_set_uri_allow_local_file) \
	F(nbd_add_meta_context)         \
	F(nbd_aio_connect_uri)          \
	F(nbd_aio_get_fd)               \
	F(nbd_aio_get_direction)        \
	F(nbd_aio_notify_read)          \
	F(nbd_aio_notify_write)         \
	F(nbd_aio_is_connecting)        \
	F(nbd_aio_is_ready)             \
	F(nbd_aio_is_dead)              \
	F(nbd_aio_is_closed)            \
	F(nbd_aio_disconnect)           \
	F(nbd_get_size)                 \
	F(nbd_get_block_size)           \
	F(nbd_is_read_only)             \
	F(nbd_can_flush)                \
	F(nbd_can_fua)                  \
	F(nbd_can_trim)                 \
	F(nbd_can_zero)                 \
	F(nbd_can_multi_conn)           \
	F(nbd_can_meta_context)         \
	F(nbd_aio_pread)                \
	F(nbd_aio_pwrite)               \
	F(nbd_aio_flush)                \
	F(nbd_aio_trim)                 \
	F(nbd_aio_block_status)         \
	F(nbd_aio_zero)

LIBRARY(nbd_library, NBD_FUNCTIONS);
extern struct nbd_library nbd; /* filled by nbd_load() */

/* 0, or -errno, logged. */
int nbd_load(void);

/*
 * Connects, at most for so long. cancel: a descriptor whose readiness ends it, or -1. NULL: not connected, and why says
 * so.
 */
enum { NBD_WHY = 160 };
struct nbd_handle *nbd_connect(const char *uri, unsigned ms, int cancel, char why[NBD_WHY]);

/* Connects in a thread, again and again, because to look a name up may block. */
struct nbd_connector {
	const char *uri;
	void (*connected)(struct nbd_connector *c, struct nbd_handle *h); /* in the loop; h is the callee's */
	pthread_t thread;						  /* private from here on */
	bool running;
	int pause_ms;	  /* before the next attempt */
	uint64_t made_at; /* ns */
	int done, cancel; /* eventfds */
	int old;	  /* the socket of the connection before, or -1 */
	struct watch watch;
	struct nbd_handle *h;
};

/* uri and connected are set. -errno. */
int nbd_connector_init(struct nbd_connector *c);
void nbd_connector_fini(struct nbd_connector *c);
/*
 * In the loop; does nothing while it is at it. old: the socket of the connection before, or -1, taken over. It connects when
 * the server has closed that.
 */
void nbd_connector_start(struct nbd_connector *c, struct loop *l, int old);

struct disk_nbd {
	struct disk disk;
	uint64_t retry_ns;
	uint32_t command_max; /* bytes */
	uint32_t align;	      /* of offsets and lengths */
	bool multi;
	pthread_mutex_t lock;	  /* of what follows */
	struct nbd_handle *first; /* made in open(), for the first lane */
	struct nbd_lane *primary; /* that lane, when all have to use it */
};

struct nbd_lane {
	struct disk_lane lane;
	struct disk_nbd *disk;
	struct nbd_lane
		*via; /* the lane whose connection this one uses; NULL: its own, and what follows is in use */

	struct nbd_handle *h; /* NULL: not connected */
	struct watch socket;
	struct nbd_connector connector;
	struct timer give_up;
	struct timer stalled;
	unsigned wanted;  /* requests that somebody wants back */
	struct post want; /* a lane that uses this connection wants its requests back */
	bool failing;	  /* gave up */
	bool broken;	  /* the server says that it ends */
	bool can_fua, can_flush, can_status;
	struct task task;
	struct disk_io *active;		     /* all requests, in no order */
	struct disk_io *ended, **ended_tail; /* rounds that are over */
	unsigned long answers;
	struct disk_bounces bounces;
};

/* Whose connection the request uses. */
static inline struct nbd_lane *nbd_lane_of(const struct disk_io *io)
{
	struct nbd_lane *l = container_of(io->lane, struct nbd_lane, lane);

	return l->via != NULL ? l->via : l;
}

/* The request has its result: 0 or -errno. */
void nbd_io_finish(struct nbd_lane *l, struct disk_io *io, int result);
/* Begins the next round, or the same once more; without a connection nothing. */
void nbd_round_start(struct nbd_lane *l, struct disk_io *io);
/* All commands of the round have ended: another round, or the end. */
void nbd_round_end(struct nbd_lane *l, struct disk_io *io);

#endif
