/* SPDX-License-Identifier: MIT */
/* Processes that have several guests on their switch, for tests. */
#ifndef NET_HOSTS_H
#define NET_HOSTS_H

#include "net-guest.h"

enum { GUESTS = 3 };

/* A process and its guests, whose numbers begin with first. */
struct host {
	struct fe_process process;
	struct guest g[GUESTS];
	unsigned first, n;
	char control[128];
};

/* options: at most 8, ended by NULL (FE_ARGS). */
void host_spawn(
	struct host *h, const struct fe_mode *m, unsigned first, unsigned n, const char *const *options);
/* And connects all guests. */
void host_start(
	struct host *h, const struct fe_mode *m, unsigned first, unsigned n, const char *const *options);
void host_end(struct host *h);
/* One of them connects, for the first time or again. */
void guest_connect(struct guest *g, const struct fe_mode *m);

/* The next frame, into out; its length. 0: there is none (of one that is not waited for). */
size_t take(struct guest *g, uint8_t *out, bool wait);
/* The next one is that which make() makes. */
void gets(struct guest *g, unsigned to, unsigned from, size_t len, unsigned seed);
/* All learn where this one is. */
void announce(struct host *h, unsigned who);

/* Is want in the answer to a command with these arguments? */
bool answers(int fd, const char *command, const char *arguments, const char *want);
/* Waits until each port has n others that are ready. */
void await_peers(struct host *h, unsigned n);

#endif
