/* SPDX-License-Identifier: MIT */
/* Makes threads of the process under test hang: they are traced, and stopped. */
#ifndef TESTS_HANG_H
#define TESTS_HANG_H

#include "frontend.h"

/* The thread of the process that has this name. */
pid_t hang_thread(pid_t pid, const char *name);
/* Skips the case where tracing is not permitted. */
void hang_begin(pid_t tid);
void hang_end(pid_t tid);
/* After the process was told to end: it ends for its parent only when its traced thread has for the tracer. */
void hang_reap(pid_t tid);

#endif
