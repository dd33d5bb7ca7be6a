/* SPDX-License-Identifier: MIT */
/* How gpu-3d-pretend.c exports a resource: in its bind word. Without any of these: linear, which it knows. */
#ifndef TESTS_GPU_PRETEND_H
#define TESTS_GPU_PRETEND_H

#include <stdint.h>

enum { PRETEND_NO_EXPORT = 1 << 24, PRETEND_UNKNOWN = 1 << 25, PRETEND_TILED = 1 << 26 };
#define PRETEND_MODIFIER UINT64_C(0x0123456789abcdef)

#endif
