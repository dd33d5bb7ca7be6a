/* SPDX-License-Identifier: MIT */
/*
 * Console device (virtio 1.3, 5.3): up to 127 ports, each a line between two queues and a host end (port.h).
 *
 * Port 0 has queues 0 and 1, the control queues are 2 and 3, port n has 2n + 2 and 2n + 3. A driver that does not know several
 * ports has port 0 only, and no control queues. The specification has room for more ports, but the messages of
 * vhost-user that bring a queue's descriptors name 256 queues at most.
 *
 * A console of a Linux guest waits for its bytes to be taken without letting anybody else run. So a console has a backlog, and
 * its reader little patience: whoever stops reading stops the guest for a second at most. A serial port has
 * neither, and loses nothing.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>

#include "console.h"

enum { DEFAULT_MAX_PORTS = 31, LIST_ITEM = 4096 };

enum { CONSOLE_BACKLOG = 64 << 10, CONSOLE_PATIENCE_MS = 1000 };

/* Ports */

static struct console_port *port_of(struct port *p)
{
	return port_owner(p);
}

static void host_data(struct port *p)
{
	line_data(&port_of(p)->line);
}

static void host_room(struct port *p)
{
	line_room(&port_of(p)->line);
	console_port_update(port_of(p));
}

static void host_link(struct port *p, bool up)
{
	struct console_port *cp = port_of(p);

	(void)up;
	if (cp->ready && !cp->is_console)
		console_tell(cp, TELL_OPEN);
}

static const struct console_port *first_console(const struct console *c)
{
	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].used && c->port[i].is_console && c->port[i].line.port)
			return &c->port[i];
	return NULL;
}

static void host_size(struct port *p)
{
	struct console_port *cp = port_of(p);
	struct backend *b = cp->con->b;
	struct virtio_console_config *config = (struct virtio_console_config *)b->config;
	uint16_t cols, rows;

	if (!cp->is_console)
		return;
	port_size(p, &cols, &rows);
	if (cp->ready)
		console_tell(cp, TELL_SIZE);
	if (cp != first_console(cp->con))
		return;
	config->cols = htole16(cols);
	config->rows = htole16(rows);
	if (b->features && !console_multiport(cp->con))
		backend_config_changed(b);
}

static const struct port_ops host_ops = {
	.data = host_data,
	.room = host_room,
	.link = host_link,
	.size = host_size,
};

void console_port_update(struct console_port *p)
{
	bool open = p->used && p->guest_open;

	if (console_multiport(p->con) && p->line.open != open)
		line_open(&p->line, open);
	if (!p->closing || !p->line.port || !line_drained(&p->line) || !port_flushed(p->line.port))
		return;
	p->closing = false;
	port_hang_up(p->line.port);
}

static int port_start(struct console_port *p)
{
	char label[CONSOLE_NAME + 16];
	struct port *port;
	int err;

	if (p->name[0])
		snprintf(label, sizeof(label), "port %s", p->name);
	else
		snprintf(label, sizeof(label), "port %u", p->id);
	err = port_open(&port, p->con->b->loop, &p->config, label, &host_ops, p);
	if (err)
		return err;
	line_set_port(&p->line, port);
	host_size(port);
	console_port_update(p);
	return 0;
}

static void port_end(struct console_port *p)
{
	struct port *port = p->line.port;

	line_set_port(&p->line, NULL);
	port_close(port);
	port_config_free(&p->config);
	p->used = false;
}

/* Options */

static const char *set_name(struct console *c, struct console_port *p, const char *name)
{
	if (!name || !*name)
		return "name= needs a value";
	if (strlen(name) >= CONSOLE_NAME)
		return "the name has more than 63 bytes";
	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].used && &c->port[i] != p && strcmp(c->port[i].name, name) == 0)
			return "another port has this name";
	strcpy(p->name, name);
	return NULL;
}

static const char *port_item(struct console *c, struct console_port *p, const char *name, const char *value)
{
	const char *why;

	if (strcmp(name, "name") == 0)
		return set_name(c, p, value);
	if (strcmp(name, "hangup") == 0 && !value) {
		p->hang_up = true;
		return NULL;
	}
	if (strcmp(name, "type") == 0)
		return NULL; /* it was looked at first */
	why = port_config_item(&p->config, name, value);
	return why == port_item_unknown ? "only name, type, hangup, host, server, signals, log, backlog and "
					  "patience can be said of a port"
					: why;
}

/* The type comes first: defaults depend on it. */
static const char *port_type(struct console_port *p, const char *list)
{
	const char *name, *value;
	char buf[LIST_ITEM];

	while (port_list_next(&list, buf, sizeof(buf), &name, &value) > 0) {
		if (strcmp(name, "type") != 0)
			continue;
		if (!value || (strcmp(value, "console") != 0 && strcmp(value, "serial") != 0))
			return "type is console or serial";
		p->is_console = strcmp(value, "console") == 0;
	}
	if (p->is_console) {
		p->config.backlog = CONSOLE_BACKLOG;
		p->config.patience_ms = CONSOLE_PATIENCE_MS;
	}
	return NULL;
}

static const char *port_parse(struct console *c, struct console_port *p, const char *list)
{
	const char *why = port_type(p, list), *name, *value;
	char buf[LIST_ITEM];
	int more = 0;

	while (!why && (more = port_list_next(&list, buf, sizeof(buf), &name, &value)) > 0)
		why = port_item(c, p, name, value);
	if (!why && more < 0)
		why = "an item has more than 4095 bytes";
	if (!why && !p->config.host && p->id == 0)
		why = port_config_item(&p->config, "host", "stdio");
	if (!why)
		why = port_config_check(&p->config);
	return why;
}

/* Empties a place for a port, but for what the guest has to be told and the queues. */
static void port_prepare(struct console *c, unsigned id)
{
	struct console_port *p = &c->port[id];

	p->con = c;
	p->id = id;
	p->used = true;
	p->is_console = id == 0;
	p->hang_up = p->known = p->ready = p->guest_open = p->closing = false;
	p->name[0] = '\0';
	p->config = (struct port_config){0};
}

static const char *parse_port(void *base, const char *value)
{
	struct console *c = base;
	const char *why;

	if (c->nports == CONSOLE_PORTS)
		return "there are 127 ports already";
	port_prepare(c, c->nports);
	why = port_parse(c, &c->port[c->nports], value);
	port_config_free(
		&c->port[c->nports].config); /* open() does it again: nobody tidies up after a wrong option */
	c->port[c->nports++].text = value;
	return why;
}

static const struct option_spec console_options[] = {
	{"port", OPTION_CALLBACK, .parse = parse_port, .arg = "ITEM,...", .no_def = "one console on stdio",
		.help = "a port: name=NAME, type=console or serial, host=HOST; may be given again; HOST is stdio, pty[:link=PATH], unix:PATH[,server], "
			"tcp:HOST:PORT[,server], file:PATH, fd:N or null; with log=FILE, backlog=SIZE, patience=TIME, hangup"},
	{"max-ports", OPTION_U32, OPTION_FIELD(struct console, max_ports),
		.no_def = "31, or as many as are given", .min = 1, .max = CONSOLE_PORTS,
		.help = "how many ports there can be at a time, with those added later"},
	OPTIONS_END,
};

/* Queues */

static struct console_port *queue_port(struct backend *b, struct virtqueue *q)
{
	struct console *c = b->state;
	unsigned index = virtqueue_index(q);

	return &c->port[index < 2 ? 0 : index / 2 - 1];
}

static void port_ready(struct backend *b, struct virtqueue *q)
{
	struct console_port *p = queue_port(b, q);

	line_ready(&p->line, q);
	if (p->closing)
		console_port_update(p);
}

static int console_start(struct backend *b, struct virtqueue *q)
{
	struct console *c = b->state;
	struct console_port *p;

	switch (virtqueue_index(q)) {
	case QUEUE_CONTROL_IN:
		c->control_in = q;
		virtqueue_wake(q);
		return 0;
	case QUEUE_CONTROL_OUT:
		c->control_out = q;
		if (console_multiport(c) && !c->driver_ready && virtqueue_resumed(q))
			console_adopt(c);
		return 0;
	}
	p = queue_port(b, q);
	console_port_update(p);
	line_start(&p->line, q, virtqueue_index(q) % 2 == 0);
	if (!console_multiport(c) && virtqueue_index(q) == 0)
		line_open_soon(&p->line);
	return 0;
}

static void console_stop(struct backend *b, struct virtqueue *q)
{
	struct console *c = b->state;

	if (q == c->control_in)
		c->control_in = NULL;
	else if (q == c->control_out)
		c->control_out = NULL;
	else
		line_stop(&queue_port(b, q)->line, q);
}

static void console_reset(struct backend *b)
{
	struct console *c = b->state;

	c->driver_ready = false;
	for (unsigned i = 0; i < CONSOLE_PORTS; i++) {
		struct console_port *p = &c->port[i];

		p->tell = 0;
		p->closing = p->guest_open && p->hang_up;
		p->known = p->ready = p->guest_open = false;
		line_reset(&p->line);
		if (p->used && p->closing)
			console_port_update(p);
	}
}

/* The emergency write goes around the queues (virtio 1.3, 5.3.4). */
static void console_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	size_t at = offsetof(struct virtio_console_config, emerg_wr);
	const struct console_port *p = first_console(b->state);
	struct iovec v = {.iov_len = 1};

	if (off > at || off + len <= at || !p)
		return;
	v.iov_base = (uint8_t *)data + (at - off);
	port_send(p->line.port, &v, 1);
}

/* Commands */

static struct console_port *find_port(struct console *c, const char *name)
{
	uint64_t id;

	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].used && strcmp(c->port[i].name, name) == 0)
			return &c->port[i];
	if (options_parse_u64(name, &id) && id < CONSOLE_PORTS && c->port[id].used)
		return &c->port[id];
	return NULL;
}

static int no_port(struct command *cmd, const char *name)
{
	return command_error(cmd, ENOENT, "%s: there is no such port", name);
}

static unsigned free_id(const struct console *c)
{
	unsigned i, found = c->max_ports;

	for (i = 1; i < c->max_ports; i++) {
		if (c->port[i].used)
			continue;
		if (!c->port[i].tell)
			return i; /* the guest knows that it is free */
		found = MIN(found, i);
	}
	return found;
}

static int run_add(struct backend *b, struct command *cmd)
{
	const char *list = command_string(cmd, "port"), *why;
	struct console *c = b->state;
	unsigned id = free_id(c);
	struct console_port *p;
	int err;

	if (id == c->max_ports)
		return command_error(cmd, ENOSPC, "there are %u ports already", c->max_ports);
	if (b->features && !console_multiport(c))
		return command_error(cmd, EOPNOTSUPP, "the guest's driver knows only one port");
	port_prepare(c, id);
	p = &c->port[id];
	why = port_parse(c, p, list);
	err = why ? command_error(cmd, EINVAL, "%s: %s", list, why) : port_start(p);
	if (!why && err)
		command_error(cmd, -err, "%s: %s", list, strerror(-err));
	if (err) {
		port_config_free(&p->config);
		p->used = false;
		return err;
	}
	if (c->control_in) {
		p->known = true;
		console_tell(p, TELL_ADD);
	}
	json_object_begin(cmd->out);
	json_key(cmd->out, "id");
	json_u64(cmd->out, id);
	port_describe(p->line.port, cmd->out);
	json_object_end(cmd->out);
	return 0;
}

static int run_remove(struct backend *b, struct command *cmd)
{
	const char *name = command_string(cmd, "name");
	struct console_port *p = find_port(b->state, name);
	bool told;

	if (!p)
		return no_port(cmd, name);
	if (p->id == 0)
		return command_error(cmd, EBUSY, "%s: port 0 cannot be removed", name);
	told = p->known && !(p->tell & TELL_ADD);
	port_end(p);
	p->known = p->ready = p->guest_open = p->closing = false;
	console_port_update(p);
	p->tell &= TELL_REMOVE;
	if (told)
		console_tell(p, TELL_REMOVE);
	return 0;
}

static int run_resize(struct backend *b, struct command *cmd)
{
	const char *name = command_string(cmd, "name");
	struct console_port *p = find_port(b->state, name);
	uint64_t cols = 0, rows = 0;

	command_u64(cmd, "cols", &cols);
	command_u64(cmd, "rows", &rows);
	if (!p)
		return no_port(cmd, name);
	if (!cols || !rows || cols > UINT16_MAX || rows > UINT16_MAX)
		return command_error(cmd, EINVAL, "cols and rows are from 1 to 65535");
	port_set_size(p->line.port, (uint16_t)cols, (uint16_t)rows);
	return 0;
}

static void describe_port(const struct console_port *p, struct json *out)
{
	uint16_t cols, rows;

	json_object_begin(out);
	json_key(out, "id");
	json_u64(out, p->id);
	json_key(out, "name");
	json_string(out, p->name);
	json_key(out, "type");
	json_string(out, p->is_console ? "console" : "serial");
	json_key(out, "guest-open");
	json_bool(out, p->guest_open);
	if (port_size(p->line.port, &cols, &rows)) {
		json_key(out, "cols");
		json_u64(out, cols);
		json_key(out, "rows");
		json_u64(out, rows);
	}
	port_describe(p->line.port, out);
	json_object_end(out);
}

static int run_list(struct backend *b, struct command *cmd)
{
	const struct console *c = b->state;

	json_array_begin(cmd->out);
	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].used)
			describe_port(&c->port[i], cmd->out);
	json_array_end(cmd->out);
	return 0;
}

static const struct command_arg add_args[] = {
	{"port", COMMAND_STRING, true, "the port, in the words of --port"}, {.name = NULL}};
static const struct command_arg remove_args[] = {
	{"name", COMMAND_STRING, true, "name or number of the port"}, {.name = NULL}};
static const struct command_arg resize_args[] = {{"name", COMMAND_STRING, true, "name or number of the port"},
	{"cols", COMMAND_U64, true, "columns of the window"},
	{"rows", COMMAND_U64, true, "rows of the window"}, {.name = NULL}};

static const struct command_spec console_commands[] = {
	{"ports", "Show all ports", NULL, run_list},
	{"port-add", "Plug a port in", add_args, run_add},
	{"port-remove", "Unplug a port", remove_args, run_remove},
	{"port-resize", "Set the size of a port's window, whose host end has none of its own", resize_args,
		run_resize},
	{.name = NULL},
};

/* Life */

static void console_close(struct backend *b)
{
	struct console *c = b->state;

	for (unsigned i = 0; i < CONSOLE_PORTS; i++)
		if (c->port[i].used)
			port_end(&c->port[i]);
}

static int check_options(struct console *c)
{
	if (!c->max_ports)
		c->max_ports = MAX((unsigned)DEFAULT_MAX_PORTS, c->nports);
	if (c->max_ports >= c->nports)
		return 0;
	log_error("--max-ports=%u: %u ports are given", c->max_ports, c->nports);
	return -EINVAL;
}

static int console_open(struct backend *b)
{
	struct virtio_console_config *config = (struct virtio_console_config *)b->config;
	struct console *c = b->state;
	int err = 0;

	c->b = b;
	for (unsigned i = 0; i < CONSOLE_PORTS; i++) {
		c->port[i].con = c;
		c->port[i].id = i;
	}
	if (!c->nports)
		parse_port(c, "");
	err = check_options(c);
	if (c->max_ports == 1)
		b->offered &= ~BIT(VIRTIO_CONSOLE_F_MULTIPORT);
	b->num_queues = c->max_ports == 1 ? 2 : (c->max_ports + 1) * 2;
	config->max_nr_ports = htole32(c->max_ports);
	for (unsigned i = 0; !err && i < c->nports; i++) {
		port_prepare(c, i);
		err = port_parse(c, &c->port[i], c->port[i].text) ? -ENOMEM : port_start(&c->port[i]);
	}
	if (err)
		console_close(b);
	return err;
}

static const struct queue_spec console_queues[] = {
	{"rx", port_ready, 0, 0},
	{"tx", port_ready, 0, 0},
	{"control-rx", console_control_in, 0, 0},
	{"control-tx", console_control_out, 0, 0},
	{"rx", port_ready, 0, 0},
	{"tx", port_ready, 0, 0},
};

static const struct feature_name console_features[] = {
	{VIRTIO_CONSOLE_F_SIZE, "size"},
	{VIRTIO_CONSOLE_F_MULTIPORT, "multiport"},
	{VIRTIO_CONSOLE_F_EMERG_WRITE, "emerg-write"},
	{0, NULL},
};

const struct device device_console = {
	.name = "console",
	.summary = "consoles and serial ports on terminals, sockets and files",
	.virtio_id = VIRTIO_ID_CONSOLE,
	.features = BIT(VIRTIO_CONSOLE_F_SIZE) | BIT(VIRTIO_CONSOLE_F_MULTIPORT) |
		    BIT(VIRTIO_CONSOLE_F_EMERG_WRITE),
	.feature_names = console_features,
	.state_size = sizeof(struct console),
	.config_size = sizeof(struct virtio_console_config),
	.options = console_options,
	.commands = console_commands,
	.queues = console_queues,
	.nqueues = ARRAY_SIZE(console_queues),
	.repeat = 2,
	.max_queues = CONSOLE_QUEUES,
	.in_order = true,
	.open = console_open,
	.close = console_close,
	.start = console_start,
	.stop = console_stop,
	.reset = console_reset,
	.save = console_save,
	.load = console_load,
	.config_write = console_config_write,
};
