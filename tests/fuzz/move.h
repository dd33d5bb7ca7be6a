/* SPDX-License-Identifier: MIT */
/* Migration in fuzz targets: a device's state on its way to another process, where some of it may change. */
#ifndef TESTS_FUZZ_MOVE_H
#define TESTS_FUZZ_MOVE_H

#include <sys/mman.h>
#include <unistd.h>

#include "device.h"
#include "fuzz.h"

enum { MOVE_CUT = 7, MOVE_REFUSED = 1 };

/*
 * No queue runs. The state is saved; then bytes of it change, or its end goes, as the input says; the device forgets its guest
 * and loads it. What has not changed can be loaded. Returns what load() did; MOVE_REFUSED: it could not be saved.
 */
static inline int move_state(struct backend *b, struct input *in)
{
	int fd = memfd_create("state", MFD_CLOEXEC), r;
	unsigned changes = input_u8(in) % (MOVE_CUT + 1);
	off_t size;

	require(fd >= 0, "a file in memory");
	if (b->dev->save(b, fd) < 0) {
		close(fd);
		return MOVE_REFUSED;
	}
	size = lseek(fd, 0, SEEK_END);
	for (unsigned i = 0; i < changes % MOVE_CUT; i++) {
		off_t at = input_u16(in) * (1 + size / UINT16_MAX) % (size + 1);
		uint8_t byte = input_u8(in);

		require(pwrite(fd, &byte, 1, at) == 1, "it is written");
	}
	if (changes == MOVE_CUT)
		require(ftruncate(fd, input_u16(in) % (size + 1)) == 0, "it is cut");
	lseek(fd, 0, SEEK_SET);
	if (b->dev->reset)
		b->dev->reset(b);
	r = b->dev->load(b, fd);
	require(r == 0 || (r < 0 && changes > 0), "a state that was saved can be loaded");
	close(fd);
	return r;
}

#endif
