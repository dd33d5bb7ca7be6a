/* SPDX-License-Identifier: MIT */
/* A real NBD server, nbdkit or qemu-nbd, on a socket of its own; it goes when the test does. */
#ifndef TESTS_NBD_SERVER_H
#define TESTS_NBD_SERVER_H

#include "frontend.h"

struct nbd_server {
	pid_t pid; /* 0: not running */
	char socket[192], uri[256];
	int tcp;       /* listens, for as long as the test runs */
	uint16_t port; /* big-endian; 0: not TCP */
	const char *args[16];
};

/* Skips the case when there is no such program. */
void nbd_server_needs(const char *program);
/* Chooses the socket, and the option "--nbd=URI". */
void nbd_server_init(struct nbd_server *s);
/* On a free port: "--nbd=SCHEME127.0.0.1:PORT/REST", where scheme ends with "://" or "@". */
void nbd_server_init_tcp(struct nbd_server *s, const char *scheme, const char *rest);
/* args: the program and its arguments, without those that name the socket; waits until it serves. */
void nbd_server_start(struct nbd_server *s, const char *const *args);
/* With the same arguments. */
void nbd_server_restart(struct nbd_server *s);
void nbd_server_kill(struct nbd_server *s, int sig);
/* It is still there, but answers nothing any more. */
void nbd_server_hang(struct nbd_server *s);

#endif
