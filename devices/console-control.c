/* SPDX-License-Identifier: MIT */
/*
 * Control messages of the console (virtio 1.3, 5.3.6.2). The driver says that it is ready, and hears of all ports; it says that
 * a port is ready, and hears what it is, its name, its size and whether somebody has it open on the host.
 */
#include <inttypes.h>
#include <string.h>

#include "console.h"

struct resize {
	uint16_t cols, rows;
};

/* To the driver */

void console_tell(struct console_port *p, unsigned what)
{
	p->tell |= what;
	if (p->con->control_in)
		virtqueue_wake(p->con->control_in);
}

static bool host_open(const struct console_port *p)
{
	return p->is_console || (p->line.port && port_is_up(p->line.port));
}

/* Appends the message for this bit. */
static bool put_message(struct console_port *p, unsigned what, struct cursor *wr)
{
	static const uint16_t events[] = {
		[TELL_REMOVE] = VIRTIO_CONSOLE_PORT_REMOVE,
		[TELL_ADD] = VIRTIO_CONSOLE_PORT_ADD,
		[TELL_CONSOLE] = VIRTIO_CONSOLE_CONSOLE_PORT,
		[TELL_NAME] = VIRTIO_CONSOLE_PORT_NAME,
		[TELL_SIZE] = VIRTIO_CONSOLE_RESIZE,
		[TELL_OPEN] = VIRTIO_CONSOLE_PORT_OPEN,
	};
	struct virtio_console_control m = {
		.id = htole32(p->id),
		.event = htole16(events[what]),
		.value = htole16(what == TELL_OPEN ? host_open(p) : 1),
	};
	uint16_t cols, rows;
	struct resize size;

	if (!cursor_put(wr, &m, sizeof(m)))
		return false;
	if (what == TELL_NAME)
		return cursor_put(wr, p->name, strlen(p->name));
	if (what != TELL_SIZE)
		return true;
	port_size(p->line.port, &cols, &rows);
	size = (struct resize){htole16(cols), htole16(rows)};
	return cursor_put(wr, &size, sizeof(size));
}

/* False: no buffer left. */
static bool tell(struct console_port *p, struct virtqueue *q)
{
	while (p->tell) {
		unsigned what = p->tell & -p->tell;
		struct element *e = virtqueue_pop(q);

		if (!e)
			return false;
		if (!put_message(p, what, &e->wr)) {
			virtqueue_unpop(e);
			virtqueue_break(q, "a buffer has no room for a control message");
			return false;
		}
		virtqueue_push(e);
		p->tell &= ~what;
	}
	return true;
}

void console_control_in(struct backend *b, struct virtqueue *q)
{
	struct console *c = b->state;
	unsigned i;

	for (i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].tell && !tell(&c->port[i], q))
			return;
}

/* From the driver */

static void event_of(struct console_port *p, const char *name)
{
	struct json *j;

	if (!backend_event_wanted(p->con->b))
		return;
	j = json_new(false);
	if (!j)
		return;
	json_object_begin(j);
	json_key(j, "id");
	json_u64(j, p->id);
	json_key(j, "name");
	json_string(j, p->name);
	json_object_end(j);
	backend_event(p->con->b, name, j);
}

static void device_ready(struct console *c, bool ready)
{
	unsigned i;

	if (!ready)
		log_guest_warn("the guest's driver failed to take the device");
	c->driver_ready = ready;
	for (i = 0; i < CONSOLE_PORTS; i++) {
		struct console_port *p = &c->port[i];

		p->tell = 0;
		p->known = p->ready = p->guest_open = p->closing = false;
		if (!p->used)
			continue;
		p->known = ready;
		console_port_update(p);
		if (ready)
			console_tell(p, TELL_ADD);
	}
}

static void port_ready(struct console_port *p, bool ready)
{
	uint16_t cols, rows;

	p->ready = ready;
	if (!ready) {
		log_guest_warn("port %u: the guest's driver failed to add it", p->id);
		return;
	}
	console_tell(p, TELL_OPEN | (p->is_console ? TELL_CONSOLE : 0) | (p->name[0] ? TELL_NAME : 0) |
				(p->is_console && port_size(p->line.port, &cols, &rows) ? TELL_SIZE : 0));
}

static void port_opened(struct console_port *p, bool open)
{
	if (open == p->guest_open)
		return;
	p->guest_open = open;
	p->closing = !open && p->hang_up;
	console_port_update(p);
	event_of(p, open ? "port-opened" : "port-closed");
}

static void take_message(struct console *c, const struct virtio_console_control *m)
{
	uint32_t id = le32toh(m->id);
	uint16_t event = le16toh(m->event);
	bool value = le16toh(m->value);

	if (event == VIRTIO_CONSOLE_DEVICE_READY) {
		device_ready(c, value);
		return;
	}
	if (id >= CONSOLE_PORTS || !c->port[id].used || !c->port[id].known) {
		log_guest_info("control message %u names port %" PRIu32 ", which is not there", event, id);
		return;
	}
	if (event == VIRTIO_CONSOLE_PORT_READY)
		port_ready(&c->port[id], value);
	else if (event == VIRTIO_CONSOLE_PORT_OPEN)
		port_opened(&c->port[id], value);
	else
		log_guest_warn("port %" PRIu32 ": control message %u is not one of a driver", id, event);
}

void console_control_out(struct backend *b, struct virtqueue *q)
{
	struct virtio_console_control m;
	struct console *c = b->state;
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		if (cursor_get(&e->rd, &m, sizeof(m))) {
			take_message(c, &m);
		} else {
			log_guest_warn("a control message has less than %zu bytes", sizeof(m));
			virtqueue_count_error(q);
		}
		virtqueue_push(e);
	}
}
