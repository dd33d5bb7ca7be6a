/* SPDX-License-Identifier: MIT */
/*
 * The life of a process: a device, or several of a kind, each with its state, loops and threads, a listener, and one session at
 * a time; signals. Used by main.c only; a device sees device.h.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "device.h"

enum { BACKEND_MAX_SOCKETS = 64 };

/* Where connections come from: one of the three is given (NULL, -1, NULL otherwise). */
struct backend_socket {
	const char *path;    /* to listen at */
	int fd;		     /* listening or connected */
	const char *connect; /* path to connect to */
};

/* What main parsed from the options that all types have. */
struct backend_options {
	struct backend_socket sockets[BACKEND_MAX_SOCKETS];
	unsigned nsockets;	  /* at least 1; more only if device.several */
	const char *version;	  /* of the program, for query-status */
	const char *control_path; /* or NULL */
	uint64_t poll_us;	  /* busy polling, 0: none */
	bool inband;		  /* offer INBAND_NOTIFICATIONS */
	bool packed;		  /* offer RING_PACKED */
	uint32_t socket_mode;	  /* permission bits of the socket; 0: as the umask says */
	gid_t socket_group;	  /* of the socket, */
	bool has_socket_group;	  /* if any was given */
};

/*
 * Runs the device until a signal, the end of the only connection (fd; of several: of the last), or a failure. state:
 * dev->state_size bytes with the device's options parsed into it. Returns the process's exit status.
 */
int backend_run(const struct device *dev, void *state, const struct backend_options *opt);

#endif
