/* SPDX-License-Identifier: MIT */
/*
 * The serial line of a remote processor (virtio id 11): two queues and nothing else. No configuration space, no features; the
 * guest's port is always open, and so is ours: while nobody is there on the host the guest's bytes wait.
 */
#include <errno.h>
#include <linux/virtio_ids.h>

#include "device.h"
#include "port-line.h"
#include "port-state.h"

enum { LIST_ITEM = 4096 };

struct rproc_serial {
	const char *list; /* what --port said */
	struct line line;
};

/* Reads the list into c. What is allocated is the caller's, also when something is wrong. */
static const char *read_list(struct port_config *c, const char *list)
{
	const char *why = NULL, *name, *value;
	char buf[LIST_ITEM];
	int more = 0;

	while (!why && (more = port_list_next(&list, buf, sizeof(buf), &name, &value)) > 0)
		why = port_config_item(c, name, value);
	if (!why && more < 0)
		why = "an item has more than 4095 bytes";
	if (!why && !c->host)
		why = port_config_item(c, "host", "stdio");
	if (!why)
		why = port_config_check(c);
	return why == port_item_unknown
		       ? "only host, server, signals, log, backlog and patience can be said of the port"
		       : why;
}

static const char *parse_port(void *base, const char *value)
{
	struct rproc_serial *r = base;
	struct port_config c = {0};
	const char *why = read_list(&c, value);

	port_config_free(&c);
	r->list = value;
	return why;
}

static const struct option_spec rproc_serial_options[] = {
	{"port", OPTION_CALLBACK, .parse = parse_port, .arg = "ITEM,...", .no_def = "host=stdio",
		.help = "host=HOST, the host's end of the line: stdio, pty[:link=PATH], unix:PATH[,server], "
			"tcp:HOST:PORT[,server], file:PATH, fd:N or null; with log=FILE, backlog=SIZE, "
			"patience=TIME"},
	OPTIONS_END,
};

static void host_data(struct port *p)
{
	struct rproc_serial *r = port_owner(p);

	line_data(&r->line);
}

static void host_room(struct port *p)
{
	struct rproc_serial *r = port_owner(p);

	line_room(&r->line);
}

static const struct port_ops host_ops = {.data = host_data, .room = host_room};

static void queue_ready(struct backend *b, struct virtqueue *q)
{
	struct rproc_serial *r = b->state;

	line_ready(&r->line, q);
}

static int rproc_serial_start(struct backend *b, struct virtqueue *q)
{
	struct rproc_serial *r = b->state;

	line_start(&r->line, q, virtqueue_index(q) == 0);
	if (virtqueue_index(q) == 0)
		line_open_soon(&r->line);
	return 0;
}

static void rproc_serial_stop(struct backend *b, struct virtqueue *q)
{
	struct rproc_serial *r = b->state;

	line_stop(&r->line, q);
}

static void rproc_serial_reset(struct backend *b)
{
	struct rproc_serial *r = b->state;

	line_reset(&r->line);
}

static void rproc_serial_close(struct backend *b)
{
	struct rproc_serial *r = b->state;
	struct port *p = r->line.port;

	line_set_port(&r->line, NULL);
	port_close(p);
}

static int rproc_serial_open(struct backend *b)
{
	struct rproc_serial *r = b->state;
	struct port_config c = {0};
	struct port *p;
	int err;

	if (read_list(&c, r->list ? r->list : "")) {
		port_config_free(&c);
		return log_errno(ENOMEM, "--port");
	}
	err = port_open(&p, b->loop, &c, "--port", &host_ops, r);
	if (!err)
		line_set_port(&r->line, p);
	return err;
}

static int rproc_serial_save(struct backend *b, int fd)
{
	const struct rproc_serial *r = b->state;

	return line_save(&r->line, fd);
}

static int rproc_serial_load(struct backend *b, int fd)
{
	struct rproc_serial *r = b->state;
	int err = line_load(&r->line, fd);

	return err ? err : state_end(fd);
}

static int run_port(struct backend *b, struct command *cmd)
{
	struct rproc_serial *r = b->state;

	json_object_begin(cmd->out);
	port_describe(r->line.port, cmd->out);
	json_object_end(cmd->out);
	return 0;
}

static const struct command_spec rproc_serial_commands[] = {
	{"port", "Show the host's end of the line", NULL, run_port},
	{.name = NULL},
};

static const struct queue_spec rproc_serial_queues[] = {{"rx", queue_ready, 0, 0}, {"tx", queue_ready, 0, 0}};

const struct device device_rproc_serial = {
	.name = "rproc-serial",
	.summary = "the serial line of a remote processor",
	.virtio_id = VIRTIO_ID_RPROC_SERIAL,
	.state_size = sizeof(struct rproc_serial),
	.options = rproc_serial_options,
	.commands = rproc_serial_commands,
	.queues = rproc_serial_queues,
	.nqueues = ARRAY_SIZE(rproc_serial_queues),
	.max_queues = ARRAY_SIZE(rproc_serial_queues),
	.in_order = true,
	.open = rproc_serial_open,
	.close = rproc_serial_close,
	.start = rproc_serial_start,
	.stop = rproc_serial_stop,
	.reset = rproc_serial_reset,
	.save = rproc_serial_save,
	.load = rproc_serial_load,
};
