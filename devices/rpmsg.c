/* SPDX-License-Identifier: MIT */
/*
 * The remote end of Linux's virtio_rpmsg_bus (virtio id 7): messages of at most 496 bytes between endpoints, 16 bytes of header
 * before each. Queue 0 goes to the guest, queue 1 comes from it; each buffer holds one message.
 *
 * With the name service (feature bit 0) each service is announced to the guest's address 53, and taken back when it goes; the
 * guest makes a channel of it, whose driver the name selects. The guest's own announcements come to our address 53.
 *
 * Buffers of the guest are given back at once, whatever becomes of the message, so neither side can wait for the other in a circle.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>

#include "rpmsg.h"

enum { QUEUE_RX, QUEUE_TX };

enum { FEATURE_NS = 0 };

/* From the guest's first buffers until its name service listens. */
#define SETTLE_NS (UINT64_C(100) * 1000 * 1000)

/* To the guest */

static bool put_ns(struct cursor *wr, const char *name, uint32_t addr, uint32_t flags)
{
	struct rpmsg_ns ns = {.addr = htole32(addr), .flags = htole32(flags)};
	struct rpmsg_header h = {
		.src = htole32(addr), .dst = htole32(RPMSG_NS_ADDRESS), .len = htole16(sizeof(ns))};

	memcpy(ns.name, name, strlen(name));
	return cursor_put(wr, &h, sizeof(h)) && cursor_put(wr, &ns, sizeof(ns));
}

/* One announcement. False: the buffer has no room. */
static bool tell(struct rpmsg_service *s, struct cursor *wr)
{
	if (s->tell & TELL_DESTROY) {
		s->tell &= ~(unsigned)TELL_DESTROY;
		return put_ns(wr, s->gone_name, s->gone_addr, RPMSG_NS_DESTROY);
	}
	s->tell = 0;
	s->announced = true;
	return put_ns(wr, s->name, s->addr, RPMSG_NS_CREATE);
}

static bool speaks(const struct rpmsg_service *s)
{
	return s->tell || rpmsg_service_ready(s);
}

/* One message of s. False: nobody can speak any more, for lack of buffers. */
static bool speak(struct rpmsg_service *s, struct virtqueue *q)
{
	struct element *e = virtqueue_pop(q);
	int done;

	if (!e)
		return false;
	done = s->tell ? (tell(s, &e->wr) ? 1 : -EMSGSIZE) : rpmsg_service_give(s, &e->wr);
	if (done > 0) {
		virtqueue_push(e);
		return true;
	}
	virtqueue_unpop(e);
	if (done < 0)
		virtqueue_break(q, "a buffer has no room for a message");
	return done == 0;
}

static bool has_ns(const struct rpmsg *r)
{
	return backend_has(r->b, FEATURE_NS);
}

/* One message each, as long as there are buffers. */
static void rx_ready(struct backend *b, struct virtqueue *q)
{
	struct rpmsg *r = b->state;
	bool any;

	if (!r->settled) {
		if (!r->settle.at && virtqueue_pending(q))
			timer_arm_in(b->loop, &r->settle, SETTLE_NS);
		if (!r->settle.at) { /* asks to be told of buffers */
			struct element *e = virtqueue_pop(q);

			if (e)
				virtqueue_unpop(e);
		}
		return;
	}
	do {
		any = false;
		for (unsigned i = 0; i < RPMSG_SERVICES; i++) {
			struct rpmsg_service *s = &r->service[(r->turn + i) % RPMSG_SERVICES];

			if (!speaks(s))
				continue;
			if (!speak(s, q))
				return;
			any = true;
		}
		r->turn = (r->turn + 1) % RPMSG_SERVICES;
	} while (any);
}

static void settled(struct timer *t)
{
	struct rpmsg *r = container_of(t, struct rpmsg, settle);

	r->settled = true;
	for (unsigned i = 0; i < RPMSG_SERVICES; i++) {
		struct rpmsg_service *s = &r->service[i];

		if (!has_ns(r)) {
			s->tell = 0;
			s->announced = s->used;
		}
	}
	if (r->rx)
		virtqueue_wake(r->rx);
}

/* From the guest */

static struct rpmsg_service *by_address(struct rpmsg *r, uint32_t addr)
{
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		if (r->service[i].used && r->service[i].addr == addr)
			return &r->service[i];
	return NULL;
}

static struct rpmsg_service *by_name(struct rpmsg *r, const char *name)
{
	uint64_t addr;

	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		if (r->service[i].used && strcmp(r->service[i].name, name) == 0)
			return &r->service[i];
	return options_parse_u64(name, &addr) && addr < RPMSG_ANY ? by_address(r, (uint32_t)addr) : NULL;
}

static void event_of(struct rpmsg *r, const char *event, const char *name, uint32_t addr)
{
	struct json *j;

	if (!backend_event_wanted(r->b))
		return;
	j = json_new(false);
	if (!j)
		return;
	json_object_begin(j);
	json_key(j, "name");
	json_string(j, name);
	json_key(j, "address");
	json_u64(j, addr);
	json_object_end(j);
	backend_event(r->b, event, j);
}

/* The guest announces an endpoint: a service of that name knows now whom to speak to. */
static bool take_ns(struct rpmsg *r, struct cursor *rd, size_t len)
{
	struct rpmsg_service *s;
	struct rpmsg_ns ns;
	uint32_t addr;
	bool gone;

	if (len != sizeof(ns)) {
		log_guest_warn("a name service message has %zu bytes", len);
		return false;
	}
	cursor_get(rd, &ns, sizeof(ns));
	ns.name[RPMSG_NAME - 1] = '\0';
	addr = le32toh(ns.addr);
	gone = le32toh(ns.flags) & RPMSG_NS_DESTROY;
	s = by_name(r, ns.name);
	if (s && gone && s->peer == addr)
		s->peer = RPMSG_ANY;
	else if (s && !gone)
		s->peer = addr;
	event_of(r, gone ? "endpoint-gone" : "endpoint", ns.name, addr);
	if (r->rx)
		virtqueue_wake(r->rx);
	return true;
}

/* False: not a message that anybody gets. */
static bool take(struct rpmsg *r, struct cursor *rd)
{
	struct rpmsg_service *s;
	struct rpmsg_header h;
	uint32_t dst;
	size_t len;

	if (!cursor_get(rd, &h, sizeof(h))) {
		log_guest_warn("a message has less than the %zu bytes of a header", sizeof(h));
		return false;
	}
	len = le16toh(h.len);
	dst = le32toh(h.dst);
	if (len > rd->left || len > RPMSG_PAYLOAD) {
		log_guest_warn("a message says that it has %zu bytes, and has %zu", len, rd->left);
		return false;
	}
	s = by_address(r, dst);
	if (dst == RPMSG_NS_ADDRESS && has_ns(r))
		return take_ns(r, rd, len);
	if (!s) {
		log_guest_warn("a message is for address %" PRIu32 ", where nobody is", dst);
		return false;
	}
	rpmsg_service_take(s, le32toh(h.src), rd, len);
	return true;
}

static void tx_ready(struct backend *b, struct virtqueue *q)
{
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		if (!take(b->state, &e->rd))
			virtqueue_count_error(q);
		virtqueue_push(e);
	}
}

static int rpmsg_start(struct backend *b, struct virtqueue *q)
{
	struct rpmsg *r = b->state;

	if (virtqueue_index(q) == QUEUE_RX)
		r->rx = q;
	else
		r->tx = q;
	virtqueue_wake(q);
	return 0;
}

static void rpmsg_stop(struct backend *b, struct virtqueue *q)
{
	struct rpmsg *r = b->state;

	(void)b;
	if (q == r->rx) {
		timer_disarm(&r->settle);
		r->rx = NULL;
		/* a new driver hears of all services again; one that goes on heard of them */
	} else {
		r->tx = NULL;
	}
}

static void rpmsg_reset(struct backend *b)
{
	struct rpmsg *r = b->state;

	r->settled = false;
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		rpmsg_service_reset(&r->service[i]);
}

/* Commands */

static void describe(const struct rpmsg_service *s, struct json *out)
{
	json_object_begin(out);
	json_key(out, "name");
	json_string(out, s->name);
	json_key(out, "address");
	json_u64(out, s->addr);
	if (s->peer != RPMSG_ANY) {
		json_key(out, "endpoint");
		json_u64(out, s->peer);
	}
	json_key(out, "messages-received");
	json_u64(out, s->received);
	json_key(out, "messages-sent");
	json_u64(out, s->sent);
	json_key(out, "messages-waiting");
	json_u64(out, s->n);
	json_key(out, "messages-lost");
	json_u64(out, s->lost);
	if (s->port)
		port_describe(s->port, out);
	json_object_end(out);
}

static int run_services(struct backend *b, struct command *cmd)
{
	const struct rpmsg *r = b->state;

	json_array_begin(cmd->out);
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		if (r->service[i].used)
			describe(&r->service[i], cmd->out);
	json_array_end(cmd->out);
	return 0;
}

static struct rpmsg_service *free_service(struct rpmsg *r)
{
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		if (!r->service[i].used && !r->service[i].tell)
			return &r->service[i];
	return NULL;
}

static int run_add(struct backend *b, struct command *cmd)
{
	const char *list = command_string(cmd, "service"), *why;
	struct rpmsg *r = b->state;
	struct rpmsg_service *s = free_service(r);
	int err;

	if (!s)
		return command_error(cmd, ENOSPC, "there are %d services already", RPMSG_SERVICES);
	why = rpmsg_service_parse(r, s, list);
	if (why) {
		port_config_free(&s->config);
		return command_error(cmd, EINVAL, "%s: %s", list, why);
	}
	err = rpmsg_service_open(s);
	if (err)
		return command_error(cmd, -err, "%s: %s", list, strerror(-err));
	s->tell = TELL_CREATE;
	if (r->settled && !has_ns(r)) {
		s->tell = 0;
		s->announced = true;
	}
	if (r->rx)
		virtqueue_wake(r->rx);
	describe(s, cmd->out);
	return 0;
}

static int run_remove(struct backend *b, struct command *cmd)
{
	const char *name = command_string(cmd, "name");
	struct rpmsg *r = b->state;
	struct rpmsg_service *s = by_name(r, name);

	if (!s)
		return command_error(cmd, ENOENT, "%s: there is no such service", name);
	s->tell = s->announced && has_ns(r) ? TELL_DESTROY : 0;
	memcpy(s->gone_name, s->name, sizeof(s->gone_name));
	s->gone_addr = s->addr;
	rpmsg_service_close(s);
	s->announced = false;
	if (r->rx)
		virtqueue_wake(r->rx);
	return 0;
}

static const struct command_arg add_args[] = {
	{"service", COMMAND_STRING, true, "the service, in the words of --service"}, {.name = NULL}};
static const struct command_arg remove_args[] = {
	{"name", COMMAND_STRING, true, "name or address of the service"}, {.name = NULL}};

static const struct command_spec rpmsg_commands[] = {
	{"services", "Show all services", NULL, run_services},
	{"service-add", "Announce a new service", add_args, run_add},
	{"service-remove", "Take a service back", remove_args, run_remove},
	{.name = NULL},
};

/* Options and life */

static const char *parse_service(void *base, const char *value)
{
	struct rpmsg *r = base;
	struct rpmsg_service *s = &r->service[r->nservices];
	const char *why;

	if (r->nservices == RPMSG_SERVICES)
		return "there are 64 services already";
	why = rpmsg_service_parse(r, s, value);
	port_config_free(&s->config); /* open() does it again: nobody tidies up after a wrong option */
	s->text = value;
	s->used = true;
	r->nservices++;
	return why;
}

static const struct option_spec rpmsg_options[] = {
	{"service", OPTION_CALLBACK, .parse = parse_service, .arg = "ITEM,...", .no_def = "none",
		.help = "a service for the guest: name=NAME, host=HOST; may be given again; HOST is stdio, pty[:link=PATH], "
			"unix:PATH[,server], tcp:HOST:PORT[,server], file:PATH, fd:N or null; echo instead of a "
			"host; with addr=N, log=FILE"},
	OPTIONS_END,
};

static void rpmsg_close(struct backend *b)
{
	struct rpmsg *r = b->state;

	timer_disarm(&r->settle);
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		rpmsg_service_close(&r->service[i]);
}

static int rpmsg_open(struct backend *b)
{
	struct rpmsg *r = b->state;
	int err = 0;

	r->b = b;
	r->settle.expired = settled;
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		r->service[i].used = false;
	for (unsigned i = 0; !err && i < r->nservices; i++) {
		struct rpmsg_service *s = &r->service[i];

		err = rpmsg_service_parse(r, s, s->text) ? -ENOMEM : rpmsg_service_open(s);
	}
	if (err)
		rpmsg_close(b);
	rpmsg_reset(b);
	return err;
}

static const struct queue_spec rpmsg_queues[] = {{"rx", rx_ready, 0, 0}, {"tx", tx_ready, 0, 0}};

static const struct feature_name rpmsg_features[] = {{FEATURE_NS, "ns"}, {0, NULL}};

const struct device device_rpmsg = {
	.name = "rpmsg",
	.summary = "messages between a guest and programs of the host",
	.virtio_id = VIRTIO_ID_RPMSG,
	.features = BIT(FEATURE_NS),
	.feature_names = rpmsg_features,
	.state_size = sizeof(struct rpmsg),
	.options = rpmsg_options,
	.commands = rpmsg_commands,
	.queues = rpmsg_queues,
	.nqueues = ARRAY_SIZE(rpmsg_queues),
	.max_queues = ARRAY_SIZE(rpmsg_queues),
	.in_order = true,
	.open = rpmsg_open,
	.close = rpmsg_close,
	.start = rpmsg_start,
	.stop = rpmsg_stop,
	.reset = rpmsg_reset,
	.save = rpmsg_save,
	.load = rpmsg_load,
};
