/* SPDX-License-Identifier: MIT */
/*
 * The life of one device in one process: device state, loops and threads, the listener, one session at a
 * time, signals. Used by main.c only; a device sees device.h.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include "device.h"

/* What main parsed from the options that all types have. */
struct backend_options {
	const char *socket_path; /* exactly one of socket_path, fd, connect_path is given (NULL, -1, NULL
				    otherwise) */
	const char *connect_path;
	const char *version;	  /* of the program, for query-status */
	const char *control_path; /* or NULL */
	int fd;			  /* listening or connected */
	uint64_t poll_us;	  /* busy polling, 0: none */
	bool inband;		  /* offer INBAND_NOTIFICATIONS */
	bool packed;		  /* offer RING_PACKED */
	uint32_t socket_mode;	  /* permission bits of the socket; 0: as the umask says */
	gid_t socket_group;	  /* of the socket, */
	bool has_socket_group;	  /* if any was given */
};

/*
 * Runs the device until a signal, the end of the only connection (fd), or a failure. state: dev->state_size
 * bytes with the device's options parsed into it. Returns the process's exit status.
 */
int backend_run(const struct device *dev, void *state, const struct backend_options *opt);

#endif
