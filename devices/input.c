/* SPDX-License-Identifier: MIT */
/*
 * Input device (virtio 1.3, 5.8): a keyboard, a mouse, a tablet, whatever the kernel's evdev knows. The guest's
 * buffers of the event queue take one event each, those of the status queue bring one each: LEDs, sounds.
 *
 * The configuration space is a window: the driver writes what it wants to see into select and subsel and then reads
 * size and content. Some front-ends write single fields, others the whole space with what they read before; only the
 * first two bytes count.
 *
 * A driver that looks through that window while no queue runs is a new one: it knows nothing of keys and axes. One
 * that does not is the old one after a pause, and is told what changed meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "input-backlog.h"
#include "input-host.h"
#include "input-model.h"
#include "input-text.h"

enum { QUEUE_EVENTS, QUEUE_STATUS, QUEUES };

enum { STATUS_EVENTS = 64 }; /* taken from one buffer, which should hold one */

struct input {
	const char *evdev_path, *source, *serial, *record;
	bool no_grab;
	int kind; /* enum input_kind */

	struct input_model model;
	struct input_backlog backlog;
	struct input_host *host;
	struct virtqueue *events; /* while it runs */
	bool fresh;		  /* the next driver is a new one */

	int record_fd;
	uint64_t recorded_at;	/* when the last line was written */
	struct input_line line; /* what was given of the report at hand */
};

static const struct option_spec input_options[] = {
	{"evdev-path", OPTION_PATH, OPTION_FIELD(struct input, evdev_path), .no_def = "none",
		.help = "the host's input device, such as /dev/input/event3"},
	{"no-grab", OPTION_FLAG, OPTION_FIELD(struct input, no_grab),
		.help = "let the host see the device's events as well"},
	{"source", OPTION_PATH, OPTION_FIELD(struct input, source), .no_def = "none",
		.help = "instead of a device: a FIFO, or a Unix socket to make, over which a program sends events"},
	{"kind", OPTION_ENUM, OPTION_FIELD(struct input, kind), .def = "keyboard",
		.choices = input_kind_names, .help = "what the guest takes --source for"},
	{"serial", OPTION_STRING, OPTION_FIELD(struct input, serial), .no_def = "the device's own",
		.help = "serial number that the guest sees, at most 128 bytes"},
	{"record", OPTION_PATH, OPTION_FIELD(struct input, record), .no_def = "none",
		.help = "append the events that the guest gets to this file, in the text form of --source"},
	OPTIONS_END,
};

/* Recording */

static void record_line(struct input *in)
{
	char text[INPUT_LINE];
	uint64_t now = time_ns();
	size_t n;

	in->line.delay_ns = in->recorded_at ? now - in->recorded_at : 0;
	n = input_text_print(&in->line, text, sizeof(text));
	in->line.n = 0;
	if (!n)
		return;
	in->recorded_at = now;
	if (write(in->record_fd, text, n) == (ssize_t)n)
		return;
	log_error("--record=%s: %s; recording ends", in->record, strerror(errno));
	fd_close(&in->record_fd);
}

static void record(struct input *in, const struct input_ev *ev)
{
	bool syn = ev->type == EV_SYN && ev->code != SYN_MT_REPORT;

	if (in->record_fd < 0)
		return;
	if (!syn)
		in->line.events[in->line.n++] = *ev;
	if (in->line.n && (syn || in->line.n == INPUT_LINE_EVENTS))
		record_line(in);
}

static int record_open(struct input *in)
{
	in->record_fd = open(in->record, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0600);
	return in->record_fd < 0 ? log_errno(errno, "--record=%s", in->record) : 0;
}

/* Queues */

static void events_ready(struct backend *b, struct virtqueue *q)
{
	struct input *in = b->state;
	struct input_ev ev;
	struct element *e;

	while (input_backlog_peek(&in->backlog, &ev) && (e = virtqueue_pop(q))) {
		struct virtio_input_event wire = {.type = htole16(ev.type),
			.code = htole16(ev.code),
			.value = htole32((uint32_t)ev.value)};

		if (!cursor_put(&e->wr, &wire, sizeof(wire))) {
			virtqueue_unpop(e);
			virtqueue_break(q, "a buffer has less than the %zu bytes of an event", sizeof(wire));
			return;
		}
		virtqueue_push(e);
		record(in, &ev);
		input_backlog_take(&in->backlog);
	}
	if (in->host->ops->room)
		in->host->ops->room(in->host);
}

static void take_status(struct input *in, struct element *e)
{
	struct virtio_input_event wire;
	unsigned i;

	for (i = 0; i < STATUS_EVENTS && e->rd.left; i++) {
		struct input_ev ev;

		if (!cursor_get(&e->rd, &wire, sizeof(wire))) {
			log_guest_warn("a status event is not whole");
			virtqueue_count_error(e->queue);
			return;
		}
		ev = (struct input_ev){le16toh(wire.type), le16toh(wire.code), (int32_t)le32toh(wire.value)};
		if (ev.type != EV_LED && ev.type != EV_SND && ev.type != EV_REP && ev.type != EV_FF)
			continue;
		if (input_model_has(&in->model, ev.type, ev.code))
			in->host->ops->output(in->host, &ev);
	}
}

static void status_ready(struct backend *b, struct virtqueue *q)
{
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		take_status(b->state, e);
		virtqueue_push(e);
	}
}

static void host_news(struct input_host *h)
{
	struct input *in = h->owner;
	struct input_ev ev;

	if (in->events && input_backlog_peek(&in->backlog, &ev))
		virtqueue_wake(in->events);
}

static int input_start(struct backend *b, struct virtqueue *q)
{
	struct input *in = b->state;
	bool fresh = in->fresh;

	if (virtqueue_index(q) != QUEUE_EVENTS)
		return 0;
	in->events = q;
	in->fresh = false;
	in->host->running = true;
	in->host->ops->start(in->host, fresh);
	return 0;
}

static void input_stop(struct backend *b, struct virtqueue *q)
{
	struct input *in = b->state;

	if (q != in->events)
		return;
	in->events = NULL;
	in->host->running = false;
	in->host->ops->stop(in->host);
}

/* Configuration space */

static void input_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	struct virtio_input_config *c = (struct virtio_input_config *)b->config;
	const uint8_t *bytes = data;
	struct input *in = b->state;

	if (off > 1)
		return;
	if (off == 0 && len > 0)
		c->select = bytes[0];
	if (off + len > 1)
		c->subsel = bytes[1 - off];
	input_model_config(&in->model, c);
	in->fresh |= !in->events;
}

static void input_reset(struct backend *b)
{
	memset(b->config, 0, b->dev->config_size);
}

/* Life */

static int check_options(const struct input *in)
{
	if (!in->evdev_path == !in->source) {
		log_error(in->source ? "--evdev-path and --source exclude each other"
				     : "one of --evdev-path=PATH and --source=PATH is needed");
		return -EINVAL;
	}
	if (in->no_grab && !in->evdev_path) {
		log_error("--no-grab is for --evdev-path");
		return -EINVAL;
	}
	if (in->serial && strlen(in->serial) > INPUT_STRING) {
		log_error("--serial=%s: has more than %d bytes", in->serial, INPUT_STRING);
		return -EINVAL;
	}
	return 0;
}

static int open_host(struct input *in, struct backend *b)
{
	struct input_host init = {
		.loop = b->loop,
		.model = &in->model,
		.backlog = &in->backlog,
		.news = host_news,
		.owner = in,
		.serial = in->serial,
	};

	input_backlog_init(&in->backlog, &in->model);
	if (in->evdev_path)
		return input_evdev_open(&in->host, &init, in->evdev_path, !in->no_grab);
	input_model_synthetic(&in->model, (enum input_kind)in->kind);
	if (in->serial)
		snprintf(in->model.serial, sizeof(in->model.serial), "%s", in->serial);
	return input_source_open(&in->host, &init, in->source);
}

static void input_close(struct backend *b)
{
	struct input *in = b->state;

	if (in->host)
		in->host->ops->close(in->host);
	in->host = NULL;
	fd_close(&in->record_fd);
}

static int input_open(struct backend *b)
{
	struct input *in = b->state;
	int err = check_options(in);

	in->record_fd = -1;
	in->fresh = true;
	if (!err)
		err = open_host(in, b);
	if (!err && in->record)
		err = record_open(in);
	if (err) {
		input_close(b);
		return err;
	}
	return 0;
}

static int input_capabilities(struct json *out)
{
	json_array_begin(out);
	json_string(out, "evdev-path");
	json_string(out, "no-grab");
	json_array_end(out);
	return 0;
}

static const struct queue_spec input_queues[] = {
	{"events", events_ready, 0, 0}, {"status", status_ready, 0, 0}};

const struct device device_input = {
	.name = "input",
	.summary = "keyboard, mouse, tablet or touchscreen, from the host's evdev or a program",
	.virtio_id = VIRTIO_ID_INPUT,
	.state_size = sizeof(struct input),
	.config_size = sizeof(struct virtio_input_config),
	.options = input_options,
	.queues = input_queues,
	.nqueues = QUEUES,
	.max_queues = QUEUES,
	.in_order = true,
	.capabilities = input_capabilities,
	.open = input_open,
	.close = input_close,
	.start = input_start,
	.stop = input_stop,
	.reset = input_reset,
	.config_write = input_config_write,
};
