/* SPDX-License-Identifier: MIT */
/* Private to disk-nbd.c (requests) and disk-nbd-connect.c (connections). */
#ifndef DISK_NBD_H
#define DISK_NBD_H

#include <libnbd.h>

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
	struct watch watch;
	struct nbd_handle *h;
};

/* uri and connected are set. -errno. */
int nbd_connector_init(struct nbd_connector *c);
void nbd_connector_fini(struct nbd_connector *c);
/* In the loop; does nothing while it is at it. */
void nbd_connector_start(struct nbd_connector *c, struct loop *l);

#endif
