/* SPDX-License-Identifier: MIT */
/*
 * One service: what the guest says to its address goes to a program of the host, a message a datagram, or to a stream, or
 * comes back. Only who has spoken can be answered: the guest's address is in its messages and nowhere else.
 *
 * All services share two queues, so none may hold a buffer back while it waits: messages that a host does not take are copied
 * into a bounded queue of the service, and are dropped and counted when that is full. rpmsg has no other flow control.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpmsg.h"

enum { LIST_ITEM = 4096 };

/* Options */

static const char *set_name(struct rpmsg_service *s, const char *value)
{
	if (!value || !*value)
		return "name= needs a value";
	if (strlen(value) >= RPMSG_NAME)
		return "the name has more than 31 bytes";
	strcpy(s->name, value);
	return NULL;
}

static bool taken(const struct rpmsg *r, const struct rpmsg_service *s, uint32_t addr)
{
	for (unsigned i = 0; i < RPMSG_SERVICES; i++)
		if (&r->service[i] != s && r->service[i].used && r->service[i].addr == addr)
			return true;
	return addr == RPMSG_NS_ADDRESS || addr == RPMSG_ANY;
}

static const char *set_address(struct rpmsg *r, struct rpmsg_service *s, const char *value)
{
	uint64_t n;

	if (!value || !options_parse_u64(value, &n) || n > UINT32_MAX)
		return "addr= needs a number of 32 bits";
	s->addr = (uint32_t)n;
	return taken(r, s, s->addr) ? "the address is not free" : NULL;
}

static const char *service_item(struct rpmsg *r, struct rpmsg_service *s, const char *name, const char *value)
{
	const char *why;

	if (strcmp(name, "name") == 0)
		return set_name(s, value);
	if (strcmp(name, "addr") == 0)
		return set_address(r, s, value);
	if (strcmp(name, "echo") == 0 && !value) {
		s->echo = true;
		return NULL;
	}
	why = port_config_item(&s->config, name, value);
	return why == port_item_unknown
		       ? "only name, addr, echo, host, server, signals, log, backlog and patience can be said of a service"
		       : why;
}

const char *rpmsg_service_parse(struct rpmsg *r, struct rpmsg_service *s, const char *list)
{
	const char *why = NULL, *name, *value;
	char buf[LIST_ITEM];
	int more = 0;

	s->rpmsg = r;
	s->echo = s->announced = s->have = false;
	s->name[0] = '\0';
	s->peer = RPMSG_ANY;
	s->lost = s->received = s->sent = 0;
	s->config = (struct port_config){.messages = true};
	for (s->addr = RPMSG_FIRST_ADDRESS; taken(r, s, s->addr); s->addr++)
		;
	while (!why && (more = port_list_next(&list, buf, sizeof(buf), &name, &value)) > 0)
		why = service_item(r, s, name, value);
	if (!why && more < 0)
		why = "an item has more than 4095 bytes";
	if (!why && !s->name[0])
		why = "name= is missing";
	if (!why && s->echo)
		return s->config.host ? "echo has no host" : NULL;
	return why ? why : port_config_check(&s->config);
}

/* The queue */

static struct rpmsg_message *queue_at(const struct rpmsg_service *s, unsigned i)
{
	return &s->queue[(s->head + i) % RPMSG_QUEUE];
}

static void queue_drop(struct rpmsg_service *s)
{
	s->head = (s->head + 1) % RPMSG_QUEUE;
	s->n--;
}

static void enqueue(struct rpmsg_service *s, uint32_t src, struct cursor *rd, size_t len)
{
	struct rpmsg_message *m;

	if (s->n == RPMSG_QUEUE) {
		s->lost++;
		log_guest_warn("service %s: takes nothing; messages are dropped", s->name);
		return;
	}
	m = queue_at(s, s->n++);
	m->src = src;
	m->len = (uint16_t)len;
	cursor_get(rd, m->data, len);
}

/* From the guest */

static bool send_bytes(struct rpmsg_service *s, const struct iovec *v, unsigned n, size_t len)
{
	return port_send(s->port, v, n) == len;
}

void rpmsg_service_take(struct rpmsg_service *s, uint32_t src, struct cursor *rd, size_t len)
{
	struct iovec v[16];
	size_t seen = 0;
	unsigned n;

	s->received++;
	if (s->peer != src) {
		s->peer = src;
		if (s->have && s->rpmsg->rx)
			virtqueue_wake(s->rpmsg->rx);
	}
	if (s->echo) {
		enqueue(s, src, rd, len);
		if (s->rpmsg->rx)
			virtqueue_wake(s->rpmsg->rx);
		return;
	}
	if (!len)
		return; /* Linux sends an empty message to say where it is */
	n = cursor_iovec(rd, len, v, ARRAY_SIZE(v));
	for (unsigned i = 0; i < n; i++)
		seen += v[i].iov_len;
	if (s->n || seen < len || !send_bytes(s, v, n, len))
		enqueue(s, src, rd, len);
}

static void host_room(struct port *p)
{
	struct rpmsg_service *s = port_owner(p);

	while (s->n) {
		struct rpmsg_message *m = queue_at(s, 0);
		struct iovec v = {m->data, m->len};

		if (!send_bytes(s, &v, 1, m->len))
			return;
		queue_drop(s);
	}
}

/* To the guest */

static void host_data(struct port *p)
{
	struct rpmsg_service *s = port_owner(p);

	s->have = true;
	port_want(p, false);
	if (s->rpmsg->rx)
		virtqueue_wake(s->rpmsg->rx);
}

bool rpmsg_service_ready(const struct rpmsg_service *s)
{
	return s->used && s->announced && (s->echo ? s->n > 0 : s->have && s->peer != RPMSG_ANY);
}

static bool put_header(struct rpmsg_service *s, struct cursor *wr, uint32_t dst, size_t len)
{
	struct rpmsg_header h = {.src = htole32(s->addr), .dst = htole32(dst), .len = htole16((uint16_t)len)};

	s->sent++;
	return cursor_put(wr, &h, sizeof(h));
}

static int give_echo(struct rpmsg_service *s, struct cursor *wr)
{
	struct rpmsg_message *m = queue_at(s, 0);

	if (wr->left < sizeof(struct rpmsg_header) + m->len)
		return -EMSGSIZE;
	put_header(s, wr, m->src, m->len);
	cursor_put(wr, m->data, m->len);
	queue_drop(s);
	return 1;
}

static int give_host(struct rpmsg_service *s, struct cursor *wr)
{
	struct iovec v[16];
	struct cursor head;
	unsigned n;
	ssize_t got;

	if (!cursor_split(wr, sizeof(struct rpmsg_header), &head))
		return -EMSGSIZE;
	n = cursor_iovec(wr, RPMSG_PAYLOAD, v, ARRAY_SIZE(v));
	if (!n)
		return -EMSGSIZE;
	do
		got = port_receive(s->port, v, n);
	while (got == -EMSGSIZE);
	if (got <= 0) {
		s->have = false;
		port_want(s->port, true);
		return 0;
	}
	put_header(s, &head, s->peer, (size_t)got);
	cursor_skip(wr, (size_t)got);
	return 1;
}

int rpmsg_service_give(struct rpmsg_service *s, struct cursor *wr)
{
	return s->echo ? give_echo(s, wr) : give_host(s, wr);
}

/* Life */

static const struct port_ops host_ops = {.data = host_data, .room = host_room};

int rpmsg_service_open(struct rpmsg_service *s)
{
	char label[RPMSG_NAME + 16];
	int err;

	s->head = s->n = 0;
	s->queue = malloc(RPMSG_QUEUE * sizeof(*s->queue));
	if (!s->queue)
		return log_errno(ENOMEM, "service %s", s->name);
	s->used = true;
	if (s->echo)
		return 0;
	snprintf(label, sizeof(label), "service %s", s->name);
	err = port_open(&s->port, s->rpmsg->b->loop, &s->config, label, &host_ops, s);
	if (err) {
		rpmsg_service_close(s);
		return err;
	}
	port_want(s->port, true);
	return 0;
}

void rpmsg_service_close(struct rpmsg_service *s)
{
	port_close(s->port);
	s->port = NULL;
	port_config_free(&s->config);
	free(s->queue);
	s->queue = NULL;
	s->n = 0;
	s->used = s->have = false;
}

void rpmsg_service_reset(struct rpmsg_service *s)
{
	s->peer = RPMSG_ANY;
	s->announced = false;
	s->tell = s->used ? TELL_CREATE : 0;
	if (s->echo)
		s->n = 0;
}
