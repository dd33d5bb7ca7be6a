/* SPDX-License-Identifier: MIT */
/*
 * --print-capabilities (QEMU interop, vhost-user, "Backend program conventions"): {"type": T, "features":
 * [...]}. The schema knows features for block, gpu and input only, so a type without the operation prints its
 * type alone.
 */
#include "capabilities.h"

#include <errno.h>

int capabilities_print(const struct device *dev, int fd)
{
	CLEANUP_JSON struct json *out = json_new(false);
	int r;

	if (!out)
		return log_errno(ENOMEM, "capabilities");
	json_object_begin(out);
	json_key(out, "type");
	json_string(out, dev->name);
	if (dev->capabilities) {
		json_key(out, "features");
		r = dev->capabilities(out);
		if (r < 0)
			return r;
	}
	json_object_end(out);
	r = json_write_fd(out, fd);
	return r < 0 ? log_errno(r, "standard output") : 0;
}
