/* SPDX-License-Identifier: MIT */
/* `vhost-user-multi discover`: finds a backend program the way management software does. */
#ifndef DISCOVER_H
#define DISCOVER_H

/*
 * types: the names that a description file may carry, ends with NULL. argv[0] is the first option. Returns
 * the exit status: 0 found, 1 nothing suitable or an error, 2 wrong usage.
 */
int discover_main(const char *const *types, int argc, char *const *argv);

#endif
