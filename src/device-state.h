/* SPDX-License-Identifier: MIT */
/*
 * Migration of what a device knows beyond its rings (SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE). The device writes to or
 * reads from a memory file; between that and the front-end's pipe the bytes are moved here without ever blocking, since
 * a front-end may read its end much later or never.
 */
#ifndef DEVICE_STATE_H
#define DEVICE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"

enum { DEVICE_STATE_SAVE = 0, DEVICE_STATE_LOAD = 1 };
#define DEVICE_STATE_MAX (UINT64_C(64) << 20) /* bytes of a state that is loaded */

struct device_state {
	struct backend *b;
	int pipe, mem; /* -1: no transfer */
	struct watch watch;
	bool load;
	uint64_t done;					      /* bytes moved */
	int result;					      /* of the last transfer */
	void (*finished)(struct device_state *d, int result); /* somebody waits for the end; or NULL */
};

void device_state_init(struct device_state *d, struct backend *b);
/* Begins; takes *fd over on success. -ENOTSUP: the device has nothing to move, -EINVAL, -EBUSY. */
int device_state_begin(struct device_state *d, uint32_t direction, int *fd);
static inline bool device_state_busy(const struct device_state *d)
{
	return d->pipe >= 0;
}
/* Breaks a transfer off. */
void device_state_cancel(struct device_state *d);

#endif
