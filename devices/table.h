/* SPDX-License-Identifier: MIT */
/* The device table; only main.c looks at it. */
#ifndef TABLE_H
#define TABLE_H

#include "device.h"

extern const struct device *const device_table[]; /* built; ends with NULL */
extern const char *const device_planned[];	  /* names of types that are not built yet; ends with NULL */

#endif
