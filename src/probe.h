/* SPDX-License-Identifier: MIT */
/* Asks another backend program what it can do. The program is not ours: its time and its output are limited.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

#define PROBE_MAX_OUTPUT 65536 /* bytes */
#define PROBE_WHY_LEN	 256   /* a good size for why */

/*
 * Runs `BINARY --print-capabilities` in a process group of its own, stdin and stderr on /dev/null, and kills
 * the group when it has not ended after limit_ms. On success *output is what it wrote, *len bytes, and the
 * caller's to free. On failure -errno, and why says what went wrong ("exit status 1"); nothing is logged.
 */
int probe_run(const char *binary, uint64_t limit_ms, char **output, size_t *len, char *why, size_t why_len);

#endif
