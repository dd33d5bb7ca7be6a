/* SPDX-License-Identifier: MIT */
/* --print-capabilities: what this type can do on this host, for management software. */
#ifndef CAPABILITIES_H
#define CAPABILITIES_H

#include "device.h"

/* Writes one JSON object and a newline to fd; opens nothing. 0 or -errno (logged). */
int capabilities_print(const struct device *dev, int fd);

#endif
