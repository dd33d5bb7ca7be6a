/* SPDX-License-Identifier: MIT */
/*
 * The gpu between a hostile driver, a hostile display and a renderer that a guest has taken over: all of gpu.c's program, and
 * the device's own line to the renderer, at whose other end the input answers, lies, sends what is no message, and hangs up.
 */
#define FUZZ_RENDERER
#include "gpu.c"
