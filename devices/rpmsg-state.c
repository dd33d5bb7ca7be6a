/* SPDX-License-Identifier: MIT */
/*
 * What rpmsg takes along when its guest moves to another process: which services the guest was told of, which of its
 * endpoints spoke to them last, and the messages that wait.
 */
#include <errno.h>
#include <string.h>

#include "port-state.h"
#include "rpmsg.h"

enum { STATE_VERSION = 1 };

enum { USED = 1, ANNOUNCED = 2, HAS_PORT = 4 };

struct rpmsg_saved {
	uint32_t version;
	uint16_t settled, services; /* so many service_saved follow, with what waits behind each */
};

struct service_saved {
	char name[RPMSG_NAME];
	uint32_t addr, peer, gone_addr;
	char gone_name[RPMSG_NAME];
	uint16_t flags, tell;
	uint32_t messages; /* so many message_saved follow, with their bytes */
};

struct message_saved {
	uint32_t src, len;
};

static int messages_save(const struct rpmsg_service *s, int fd)
{
	int err = 0;

	for (unsigned i = 0; !err && i < s->n; i++) {
		const struct rpmsg_message *m = &s->queue[(s->head + i) % RPMSG_QUEUE];
		struct message_saved saved = {htole32(m->src), htole32(m->len)};

		err = state_put(fd, &saved, sizeof(saved));
		if (!err)
			err = state_put(fd, m->data, m->len);
	}
	return err;
}

static int service_save(const struct rpmsg_service *s, int fd)
{
	struct service_saved saved = {
		.addr = htole32(s->addr),
		.peer = htole32(s->peer),
		.gone_addr = htole32(s->gone_addr),
		.flags = htole16((uint16_t)((s->used ? USED : 0) | (s->announced ? ANNOUNCED : 0) |
					    (s->port ? HAS_PORT : 0))),
		.tell = htole16((uint16_t)s->tell),
		.messages = htole32(s->used ? s->n : 0),
	};
	int err;

	memcpy(saved.name, s->name, sizeof(saved.name));
	memcpy(saved.gone_name, s->gone_name, sizeof(saved.gone_name));
	err = state_put(fd, &saved, sizeof(saved));
	if (!err && s->used)
		err = messages_save(s, fd);
	return err || !s->port ? err : port_save(s->port, fd);
}

int rpmsg_save(struct backend *b, int fd)
{
	const struct rpmsg *r = b->state;
	struct rpmsg_saved saved = {htole32(STATE_VERSION), htole16(r->settled), 0};
	unsigned n = 0;
	int err;

	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		n += r->service[i].used || r->service[i].tell;
	saved.services = htole16((uint16_t)n);
	err = state_put(fd, &saved, sizeof(saved));
	for (unsigned i = 0; !err && i < RPMSG_SERVICES; i++)
		if (r->service[i].used || r->service[i].tell)
			err = service_save(&r->service[i], fd);
	return err;
}

static int messages_load(struct rpmsg_service *s, unsigned n, int fd)
{
	struct message_saved saved;
	struct rpmsg_message m;
	int err = 0;

	if (n > RPMSG_QUEUE)
		return log_guest_errno(EINVAL, "the saved state has %u messages for a service", n);
	for (; n; n--) {
		err = state_get(fd, &saved, sizeof(saved));
		if (!err && le32toh(saved.len) > RPMSG_PAYLOAD)
			err = log_guest_errno(
				EINVAL, "the saved state has a message of %u bytes", le32toh(saved.len));
		if (err)
			return err;
		m.src = le32toh(saved.src);
		m.len = (uint16_t)le32toh(saved.len);
		err = state_get(fd, m.data, m.len);
		if (err)
			return err;
		if (s)
			s->queue[(s->head + s->n++) % RPMSG_QUEUE] = m;
	}
	return 0;
}

static struct rpmsg_service *same_service(struct rpmsg *r, const struct service_saved *saved)
{
	for (unsigned i = 0; i < RPMSG_SERVICES; i++) {
		struct rpmsg_service *s = &r->service[i];

		if (s->used && s->addr == le32toh(saved->addr) && strcmp(s->name, saved->name) == 0)
			return s;
	}
	return NULL;
}

/* A service that the guest knows and we do not have. */
static void take_back(struct rpmsg *r, const char *name, uint32_t addr)
{
	for (unsigned i = 0; i < RPMSG_SERVICES; i++) {
		struct rpmsg_service *s = &r->service[i];

		if (s->tell & TELL_DESTROY || s->announced)
			continue;
		memcpy(s->gone_name, name, sizeof(s->gone_name));
		s->gone_addr = addr;
		s->tell |= TELL_DESTROY;
		return;
	}
}

static int service_load(struct rpmsg *r, int fd)
{
	struct service_saved saved;
	struct rpmsg_service *s;
	unsigned flags, n;
	int err = state_get(fd, &saved, sizeof(saved));

	if (err)
		return err;
	saved.name[RPMSG_NAME - 1] = saved.gone_name[RPMSG_NAME - 1] = '\0';
	flags = le16toh(saved.flags);
	n = le32toh(saved.messages);
	if (le16toh(saved.tell) & TELL_DESTROY)
		take_back(r, saved.gone_name, le32toh(saved.gone_addr));
	s = flags & USED ? same_service(r, &saved) : NULL;
	if (s) {
		s->announced = flags & ANNOUNCED;
		s->peer = le32toh(saved.peer);
		if (s->announced)
			s->tell &= ~(unsigned)TELL_CREATE;
		s->n = 0;
	} else if (flags & ANNOUNCED) {
		take_back(r, saved.name, le32toh(saved.addr));
	}
	err = messages_load(s, n, fd);
	return err || !(flags & HAS_PORT) ? err : port_load(s ? s->port : NULL, fd);
}

int rpmsg_load(struct backend *b, int fd)
{
	struct rpmsg *r = b->state;
	struct rpmsg_saved saved;
	int err = state_get(fd, &saved, sizeof(saved));

	if (!err && le32toh(saved.version) != STATE_VERSION)
		return log_guest_errno(EINVAL, "the saved state has version %u", le32toh(saved.version));
	for (unsigned n = err ? 0 : le16toh(saved.services); !err && n; n--)
		err = service_load(r, fd);
	if (!err)
		err = state_end(fd);
	if (err) {
		b->dev->reset(b);
		return err;
	}
	r->settled = le16toh(saved.settled);
	return 0;
}
