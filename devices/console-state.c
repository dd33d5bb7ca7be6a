/* SPDX-License-Identifier: MIT */
/*
 * A console whose driver goes on while the process behind it is another one: moved by the front-end, with our state, or
 * started again after it was killed, with none.
 *
 * A driver says only once that it is ready and which ports are open. Without a state all ports that we have are announced
 * again: a driver that knows a port answers that it is ready, and that is all that can be asked. Whether a
 * program of the guest has it open cannot, so it counts as open: what the host says is lost at worst where nobody listens,
 * instead of never arriving. Ports that we do not have are taken back.
 */
#include <errno.h>
#include <string.h>

#include "console.h"
#include "port-state.h"

enum { STATE_VERSION = 1 };

enum { KNOWN = 1, READY = 2, GUEST_OPEN = 4, CONSOLE = 8, USED = 16 };

struct console_saved {
	uint32_t version;
	uint16_t driver_ready,
		ports; /* so many console_port_saved follow, a line behind each that is in use */
};

struct console_port_saved {
	uint16_t id, flags;
	uint32_t tell;
	char name[CONSOLE_NAME];
};

static bool worth_saving(const struct console_port *p)
{
	return p->used || p->tell;
}

static int port_save_one(const struct console_port *p, int fd)
{
	struct console_port_saved saved = {
		.id = htole16((uint16_t)p->id),
		.flags = htole16((uint16_t)((p->known ? KNOWN : 0) | (p->ready ? READY : 0) |
					    (p->guest_open ? GUEST_OPEN : 0) | (p->is_console ? CONSOLE : 0) |
					    (p->used ? USED : 0))),
		.tell = htole32(p->tell),
	};
	int err;

	if (p->used)
		memcpy(saved.name, p->name, sizeof(saved.name));
	err = state_put(fd, &saved, sizeof(saved));
	return err || !p->used ? err : line_save(&p->line, fd);
}

int console_save(struct backend *b, int fd)
{
	const struct console *c = b->state;
	struct console_saved saved = {htole32(STATE_VERSION), htole16(c->driver_ready), 0};
	unsigned n = 0;
	int err;

	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		n += worth_saving(&c->port[i]);
	saved.ports = htole16((uint16_t)n);
	err = state_put(fd, &saved, sizeof(saved));
	for (unsigned i = 0; !err && i < CONSOLE_PORTS; i++)
		if (worth_saving(&c->port[i]))
			err = port_save_one(&c->port[i], fd);
	return err;
}

/* A port of the guest that we do not have: it hears of that. */
static int port_load_gone(struct console_port *p, unsigned flags, int fd)
{
	struct line nobody = {0};

	if (flags & KNOWN)
		p->tell |= TELL_REMOVE;
	return flags & USED ? line_load(&nobody, fd) : 0;
}

static int port_load_one(struct console *c, int fd)
{
	struct console_port_saved saved;
	struct console_port *p;
	unsigned flags;
	int err = state_get(fd, &saved, sizeof(saved));

	if (err)
		return err;
	flags = le16toh(saved.flags);
	if (le16toh(saved.id) >= c->max_ports)
		return log_guest_errno(EINVAL, "the saved state has port %u, and --max-ports=%u",
			le16toh(saved.id), c->max_ports);
	p = &c->port[le16toh(saved.id)];
	if (!p->used || !(flags & USED))
		return port_load_gone(p, flags, fd);
	saved.name[CONSOLE_NAME - 1] = '\0';
	if (strcmp(p->name, saved.name) != 0 || p->is_console != !!(flags & CONSOLE))
		return log_guest_errno(EINVAL,
			"port %u is another one in the saved state: \"%s\", not \"%s\"", p->id, saved.name,
			p->name);
	p->known = flags & KNOWN;
	p->ready = p->known && flags & READY;
	p->guest_open = p->known && flags & GUEST_OPEN;
	p->tell = p->known ? (le32toh(saved.tell) & TELL_ALL) | (p->ready ? TELL_OPEN : 0) : 0;
	if (p->ready && p->is_console)
		p->tell |= TELL_SIZE;
	return line_load(&p->line, fd);
}

int console_load(struct backend *b, int fd)
{
	struct console *c = b->state;
	struct console_saved saved;
	int err = state_get(fd, &saved, sizeof(saved));

	if (!err && le32toh(saved.version) != STATE_VERSION)
		return log_guest_errno(EINVAL, "the saved state has version %u", le32toh(saved.version));
	for (unsigned n = err ? 0 : le16toh(saved.ports); !err && n; n--)
		err = port_load_one(c, fd);
	if (!err)
		err = state_end(fd);
	if (err) {
		b->dev->reset(b);
		return err;
	}
	c->driver_ready = le16toh(saved.driver_ready);
	for (unsigned i = 0; c->driver_ready && i < CONSOLE_PORTS; i++) {
		struct console_port *p = &c->port[i];

		if (p->used && !p->known) {
			p->known = true;
			p->tell = TELL_ADD;
		}
		console_port_update(p);
	}
	return 0;
}

void console_adopt(struct console *c)
{
	c->driver_ready = true;
	for (unsigned i = 0; i < c->max_ports; i++) {
		struct console_port *p = &c->port[i];

		if (!p->used) {
			console_tell(p, TELL_REMOVE);
			continue;
		}
		p->known = p->ready = p->guest_open = true;
		console_tell(p, TELL_ADD | TELL_OPEN);
		console_port_update(p);
	}
}
