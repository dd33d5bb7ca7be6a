/* SPDX-License-Identifier: MIT */
/*
 * A CAIF modem (virtio id 12; not in the virtio specification: Linux's drivers/net/caif/caif_virtio.c defines it). Queue 0 is the
 * guest's as usual, each buffer a frame for us. Queue 1 is reversed: we are the driver of its ring, and tell the guest of frames
 * that we wrote to its receive buffers, which the ring's table announced when it began. Head and tail room are on both sides of each
 * frame.
 *
 * A frame of the guest is taken only while there is a receive buffer for its answer, so nothing waits here without bound.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "caif.h"

enum { QUEUE_TX, QUEUE_RX };

struct transfer_config { /* struct virtio_caif_transf_config */
	uint16_t headroom, tailroom;
	uint32_t mtu;
	uint8_t reserved[4];
};

struct caif_config { /* struct virtio_caif_config */
	struct transfer_config up, down;
	uint8_t reserved[8];
};

/* Receive buffers */

struct turn { /* in which frames may go to the guest */
	struct caif *c;
	struct backend_memory memory;
	struct vring_driver *driver;
};

static bool turn_begin(struct turn *t, struct caif *c)
{
	*t = (struct turn){.c = c, .driver = c->rx ? virtqueue_driver(c->rx) : NULL};
	return t->driver && backend_memory_get(c->b, &t->memory);
}

static void turn_end(struct turn *t)
{
	if (t->c->rx && virtqueue_driver(t->c->rx))
		virtqueue_show(t->c->rx);
	backend_memory_put(&t->memory);
}

/* Takes back what the guest has read. */
static void collect(struct turn *t)
{
	void *cookie;
	int got;

	while ((got = vring_driver_get(t->driver, &cookie, NULL)) > 0)
		t->c->free[t->c->nfree++] = (uint16_t)((uintptr_t)cookie - 1);
	if (got < 0)
		virtqueue_break(t->c->rx, "%s", t->driver->error);
}

/* The next buffer, between head and tail room; NULL: there is none. */
static uint8_t *buffer(struct turn *t, size_t *room)
{
	struct caif *c = t->c;
	const struct vring_driver_buf *b;
	struct iovec v;
	size_t len;

	if (!c->nfree || !virtqueue_driver(c->rx))
		return NULL;
	b = &c->buffers[c->free[c->nfree - 1]];
	len = MIN(b->len, c->mtu);
	if (backend_memory_iovec(&t->memory, b->addr, len, &v, 1) != 1) {
		virtqueue_break(c->rx, "receive buffer %u is not guest memory, or not in one piece",
			c->free[c->nfree - 1]);
		return NULL;
	}
	memset(v.iov_base, 0, c->headroom);
	*room = len - c->headroom - c->tailroom;
	return (uint8_t *)v.iov_base + c->headroom;
}

/* n bytes of a frame are in the buffer that buffer() gave; 0: it was not used. */
static void send_buffer(struct turn *t, uint8_t *at, size_t n)
{
	struct caif *c = t->c;
	struct vring_driver_buf b;
	uint16_t index;

	if (!n)
		return;
	index = c->free[c->nfree - 1];
	memset(at + n, 0, c->tailroom);
	b = (struct vring_driver_buf){
		.addr = c->buffers[index].addr, .len = (uint32_t)(c->headroom + n + c->tailroom)};
	if (vring_driver_add(t->driver, &b, 1, (void *)(uintptr_t)(index + 1u)) < 0)
		return; /* the ring has a descriptor for each buffer */
	c->nfree--;
	backend_memory_wrote(&t->memory, b.addr, b.len);
}

/* Queues */

static void take_all(struct turn *t)
{
	struct caif *c = t->c;
	struct element *e;
	uint8_t *out;
	size_t room;

	while ((out = buffer(t, &room)) && (e = virtqueue_pop(c->tx))) {
		if (cursor_skip(&e->rd, c->headroom)) {
			send_buffer(t, out, caif_take(c, &e->rd, out, room));
		} else {
			log_guest_warn("a buffer has less than the head room of %u bytes", c->headroom);
			virtqueue_count_error(c->tx);
		}
		virtqueue_push(e);
	}
}

static void tx_ready(struct backend *b, struct virtqueue *q)
{
	struct turn t;

	(void)q;
	if (!turn_begin(&t, b->state))
		return;
	take_all(&t);
	turn_end(&t);
}

/* One frame of each link in turn. */
static void speak_all(struct turn *t)
{
	struct caif *c = t->c;
	bool any = true;

	while (any) {
		any = false;
		for (unsigned i = 0; i < CAIF_LINKS; i++) {
			struct caif_link *l = &c->link[(c->turn + i) % CAIF_LINKS];
			uint8_t *out;
			size_t room;

			if (!caif_speaks(l))
				continue;
			out = buffer(t, &room);
			if (!out)
				return;
			any = true;
			send_buffer(t, out, caif_give(c, l, out, room));
		}
		c->turn = (c->turn + 1) % CAIF_LINKS;
	}
}

static void rx_ready(struct backend *b, struct virtqueue *q)
{
	struct caif *c = b->state;
	struct turn t;

	(void)q;
	if (!turn_begin(&t, c))
		return;
	collect(&t);
	speak_all(&t);
	turn_end(&t);
	if (c->tx && c->nfree)
		virtqueue_wake(c->tx);
}

static int start_rx(struct caif *c, struct virtqueue *q, unsigned num)
{
	bool continues;

	c->buffers = virtqueue_announced(q, &continues);
	if (continues && c->free)
		return 0;
	for (unsigned i = 0; i < num; i++)
		if (c->buffers[i].len < CAIF_ROOM_MIN + c->headroom + c->tailroom) {
			log_guest_error("descriptor %u announces a receive buffer of %u bytes, %u are needed",
				i, c->buffers[i].len, CAIF_ROOM_MIN + c->headroom + c->tailroom);
			return -EINVAL;
		}
	caif_forget(c); /* a new driver knows of no link */
	free(c->free);
	c->free = calloc(num, sizeof(*c->free));
	if (!c->free)
		return log_errno(ENOMEM, "queue 1");
	for (c->nfree = 0; c->nfree < num; c->nfree++)
		c->free[c->nfree] = (uint16_t)(num - 1 - c->nfree);
	return 0;
}

static int caif_start(struct backend *b, struct virtqueue *q)
{
	struct caif *c = b->state;
	int err = 0;

	if (virtqueue_index(q) == QUEUE_TX) {
		c->tx = q;
	} else {
		err = start_rx(c, q, virtqueue_driver(q)->num);
		c->rx = err ? NULL : q;
	}
	virtqueue_wake(q);
	return err;
}

static void caif_stop(struct backend *b, struct virtqueue *q)
{
	struct caif *c = b->state;

	if (q == c->rx)
		c->rx = NULL;
	else if (q == c->tx)
		c->tx = NULL;
}

static void caif_reset(struct backend *b)
{
	struct caif *c = b->state;

	caif_forget(c);
	free(c->free);
	c->free = NULL;
	c->nfree = 0;
}

/* Commands */

static void describe(const struct caif *c, const struct caif_channel *ch, struct json *out)
{
	json_object_begin(out);
	json_key(out, "service");
	json_string(out, caif_service_name(ch->service));
	if (ch->service == CAIF_DATAGRAM) {
		json_key(out, "id");
		json_u64(out, ch->id);
	}
	if (ch->name[0]) {
		json_key(out, "name");
		json_string(out, ch->name);
	}
	if (ch->link) {
		json_key(out, "link");
		json_u64(out, (uint64_t)(ch->link - c->link) + 1);
	}
	json_key(out, "frames-received");
	json_u64(out, ch->received);
	json_key(out, "frames-sent");
	json_u64(out, ch->sent);
	json_key(out, "frames-lost");
	json_u64(out, ch->lost);
	if (ch->port)
		port_describe(ch->port, out);
	if (ch->ip)
		caif_ip_describe(ch->ip, out);
	json_object_end(out);
}

static int run_channels(struct backend *b, struct command *cmd)
{
	const struct caif *c = b->state;

	json_array_begin(cmd->out);
	for (unsigned i = 0; i < c->nchannels; i++)
		describe(c, &c->channel[i], cmd->out);
	json_array_end(cmd->out);
	return 0;
}

static const struct command_spec caif_commands[] = {
	{"channels", "Show all channels and their links", NULL, run_channels},
	{.name = NULL},
};

/* Options and life */

static const char *parse_channel(void *base, const char *value)
{
	struct caif *c = base;
	const char *why;

	if (c->nchannels == CAIF_CHANNELS)
		return "there are 32 channels already";
	why = caif_channel_parse(c, &c->channel[c->nchannels], value);
	port_config_free(&c->channel[c->nchannels].config); /* open() does it again */
	c->nchannels++;
	return why;
}

static const struct option_spec caif_options[] = {
	{"channel", OPTION_CALLBACK, .parse = parse_channel, .arg = "ITEM,...", .no_def = "none",
		.help = "a channel of the modem: first at, debug, utility[:NAME], rfm[:VOLUME], datagram:ID or pdp:ID, then host=HOST; "
			"may be given again; HOST is "
			"stdio, pty[:link=PATH], unix:PATH[,server], tcp:HOST:PORT[,server], file:PATH, fd:N or null; "
			"loop instead of a host; with log=FILE; of pdp tun=NAME or user"},
	{"mtu", OPTION_U32, OPTION_FIELD(struct caif, mtu), .def = "4092", .min = 1024, .max = 65535,
		.help = "bytes of the longest frame with its head and tail room"},
	{"headroom", OPTION_U32, OPTION_FIELD(struct caif, headroom), .def = "0", .max = 255,
		.help = "bytes before each frame"},
	{"tailroom", OPTION_U32, OPTION_FIELD(struct caif, tailroom), .def = "0", .max = 255,
		.help = "bytes after each frame"},
	OPTIONS_END,
};

static void caif_close(struct backend *b)
{
	struct caif *c = b->state;

	for (unsigned i = 0; i < c->nchannels; i++)
		caif_channel_close(&c->channel[i]);
	free(c->free);
	c->free = NULL;
}

static int caif_open(struct backend *b)
{
	struct caif *c = b->state;
	struct caif_config *config = (struct caif_config *)b->config;
	int err = 0;

	c->b = b;
	config->up = (struct transfer_config){.headroom = htole16((uint16_t)c->headroom),
		.tailroom = htole16((uint16_t)c->tailroom),
		.mtu = htole32(c->mtu)};
	config->down = config->up;
	for (unsigned i = 0; !err && i < c->nchannels; i++) {
		struct caif_channel *ch = &c->channel[i];

		err = caif_channel_parse(c, ch, ch->text) ? -ENOMEM : caif_channel_open(ch);
	}
	if (err)
		caif_close(b);
	return err;
}

static const struct queue_spec caif_queues[] = {{"tx", tx_ready, 0, 0}, {"rx", rx_ready, 0, 0}};

const struct device device_caif = {
	.name = "caif",
	.summary = "a CAIF modem with channels on terminals and sockets",
	.virtio_id = VIRTIO_ID_CAIF,
	.state_size = sizeof(struct caif),
	.config_size = sizeof(struct caif_config),
	.options = caif_options,
	.commands = caif_commands,
	.queues = caif_queues,
	.nqueues = ARRAY_SIZE(caif_queues),
	.max_queues = ARRAY_SIZE(caif_queues),
	.reversed = BIT(QUEUE_RX),
	.always_call =
		BIT(QUEUE_TX), /* Linux ignores what virtqueue_enable_cb() says, and could stop for good */
	.open = caif_open,
	.close = caif_close,
	.start = caif_start,
	.stop = caif_stop,
	.reset = caif_reset,
};
