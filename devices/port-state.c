/* SPDX-License-Identifier: MIT */
/* See port-state.h. */
#include "port-state.h"

#include <errno.h>
#include <unistd.h>

struct line_saved {
	uint64_t skip;
};

struct port_saved {
	uint64_t waiting; /* so many bytes follow */
};

static int damaged(void)
{
	return log_guest_errno(EINVAL, "the saved state ends too early, or is another device's");
}

int state_put(int fd, const void *p, size_t n)
{
	ssize_t r = write(fd, p, n);

	if (r == (ssize_t)n)
		return 0;
	return log_guest_errno(r < 0 ? errno : EIO, "saving the state");
}

int state_get(int fd, void *p, size_t n)
{
	return read(fd, p, n) == (ssize_t)n ? 0 : damaged();
}

int state_end(int fd)
{
	char more;

	return read(fd, &more, 1) == 0 ? 0 : damaged();
}

int port_save(const struct port *p, int fd)
{
	struct iovec v[2];
	struct port_saved saved;
	int err;

	port_waiting(p, v);
	saved.waiting = htole64(v[0].iov_len + v[1].iov_len);
	err = state_put(fd, &saved, sizeof(saved));
	for (unsigned i = 0; !err && i < 2; i++)
		err = state_put(fd, v[i].iov_base, v[i].iov_len);
	return err;
}

int port_load(struct port *p, int fd)
{
	struct port_saved saved;
	char bytes[4096];
	uint64_t left;
	int err = state_get(fd, &saved, sizeof(saved));

	left = err ? 0 : le64toh(saved.waiting);
	while (!err && left) {
		size_t n = MIN(left, sizeof(bytes));

		err = state_get(fd, bytes, n);
		if (!err && p)
			port_restore(p, bytes, n);
		left -= n;
	}
	return err;
}

int line_save(const struct line *l, int fd)
{
	struct line_saved saved = {htole64(l->skip)};
	int err = state_put(fd, &saved, sizeof(saved));

	return err ? err : port_save(l->port, fd);
}

int line_load(struct line *l, int fd)
{
	struct line_saved saved;
	int err = state_get(fd, &saved, sizeof(saved));

	if (err)
		return err;
	l->skip = (size_t)le64toh(saved.skip);
	l->loaded = true;
	return port_load(l->port, fd);
}
