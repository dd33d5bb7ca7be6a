/* SPDX-License-Identifier: MIT */
/* See backchannel.h. */
#include "backchannel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "message.h"
#include "util.h"

/* Writes the rest of the message that is under way. False: it did not fit. */
static bool flush_partial(struct backchannel *bc)
{
	while (bc->npartial) {
		ssize_t n = write(bc->fd, bc->partial, bc->npartial);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno == EAGAIN)
				return false;
			log_guest_warn("back-channel: %s", strerror(errno));
			backchannel_close(bc);
			return false;
		}
		bc->npartial -= (unsigned)n;
		memmove(bc->partial, bc->partial + n, bc->npartial);
	}
	return true;
}

static bool send_one(struct backchannel *bc, uint32_t request, const void *payload, uint32_t size)
{
	struct message_header h = {.request = request, .flags = MESSAGE_VERSION, .size = size};

	memcpy(bc->partial, &h, sizeof(h));
	if (size)
		memcpy(bc->partial + sizeof(h), payload, size);
	bc->npartial = sizeof(h) + size;
	return flush_partial(bc);
}

static void backchannel_flush(struct backchannel *bc)
{
	bool more = !flush_partial(bc);
	unsigned i;

	if (!more && bc->fd >= 0 && bc->config_changed) {
		bc->config_changed = false;
		more = !send_one(bc, BACKCHANNEL_CONFIG_CHANGE, NULL, 0);
	}
	for (i = 0; i < ARRAY_SIZE(bc->calls); i++) {
		while (!more && bc->fd >= 0 && bc->calls[i]) {
			unsigned bit = (unsigned)__builtin_ctzll(bc->calls[i]);
			struct vring_state state = {.index = i * 64 + bit};

			bc->calls[i] &= ~BIT(bit);
			more = !send_one(bc, BACKCHANNEL_VRING_CALL, &state, sizeof(state));
		}
	}
	if (bc->fd >= 0)
		watch_modify(&bc->watch, more ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Whatever the front-end says here answers nothing that we wait for. */
static void backchannel_ready(struct watch *w, uint32_t events)
{
	struct backchannel *bc = container_of(w, struct backchannel, watch);
	char drop[256];
	ssize_t n;

	if (events & ~(uint32_t)EPOLLOUT) {
		n = read(bc->fd, drop, sizeof(drop));
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			log_debug("the front-end closed the back-channel");
			backchannel_close(bc);
			return;
		}
	}
	if (events & EPOLLOUT)
		backchannel_flush(bc);
}

void backchannel_init(struct backchannel *bc, struct loop *loop)
{
	memset(bc, 0, sizeof(*bc));
	bc->fd = bc->watch.fd = -1;
	bc->watch.ready = backchannel_ready;
	bc->loop = loop;
}

int backchannel_set(struct backchannel *bc, int *fd)
{
	int flags = fcntl(*fd, F_GETFL), err;

	backchannel_close(bc);
	if (flags < 0 || fcntl(*fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	err = watch_add(bc->loop, &bc->watch, *fd, EPOLLIN);
	if (err)
		return err;
	bc->fd = fd_take(fd);
	return 0;
}

void backchannel_close(struct backchannel *bc)
{
	watch_del(&bc->watch);
	fd_close(&bc->fd);
	bc->npartial = 0;
	bc->config_changed = false;
	memset(bc->calls, 0, sizeof(bc->calls));
}

void backchannel_config_changed(struct backchannel *bc)
{
	if (bc->fd < 0)
		return;
	bc->config_changed = true;
	backchannel_flush(bc);
}

void backchannel_call(struct backchannel *bc, unsigned queue)
{
	if (bc->fd < 0 || queue >= BACKCHANNEL_MAX_QUEUES)
		return;
	bc->calls[queue / 64] |= BIT(queue % 64);
	backchannel_flush(bc);
}
