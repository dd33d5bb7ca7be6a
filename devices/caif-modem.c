/* SPDX-License-Identifier: MIT */
/*
 * The modem's end of the CAIF protocol, as Linux speaks it (net/caif): a frame is the length of what follows (little-endian, 16
 * bits), the number of a link, the payload, and two bytes for a checksum, which this link layer does not use. Link 0 carries control
 * frames: set-up and tear-down of links. A link goes to a channel of its service, which one link at a time can have.
 *
 * Of what the guest says to a host that does not take it a bounded amount is kept; the guest is told to stop at the first byte
 * that waits, and to go on when none does. A guest that does not stop loses frames.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "caif.h"

enum { CMD_SETUP, CMD_DESTROY, CMD_ERROR, CMD_ENUM, CMD_SLEEP, CMD_WAKE };
enum { CMD_MASK = 0xf, CMD_RESPONSE = 0x20, CMD_FAILED = 0x10 };
enum { TYPE_PAYLOAD = 0, TYPE_ON = 0x80, TYPE_OFF = 0x81, TYPE_SHUTDOWN = 0x82, TYPE_DATAGRAM = 0x08 };
enum { CHTYPE_LOOP = 3 };
enum { RFM_MORE = 1, RFM_HEAD = 6 };
enum { LEN_BYTES = 2, ID_BYTES = 1, CHECK_BYTES = 2, HEAD = LEN_BYTES + ID_BYTES };
enum { CONTROL_MAX = 300 };
/* Offsets in a control frame. */
enum {
	AT_CMD,
	AT_SERVICE,
	AT_PRIORITY,
	AT_ENDPOINT,
	AT_PARAM,
	AT_NAME = AT_PARAM + 4, /* also of the volume, of no fixed length */
	AT_LENGTH = AT_NAME + CAIF_NAME
};

const char *caif_service_name(enum caif_service s)
{
	switch (s) {
	case CAIF_VEI:
		return "at";
	case CAIF_DEBUG:
		return "debug";
	case CAIF_DATAGRAM:
		return "datagram";
	case CAIF_RFM:
		return "rfm";
	case CAIF_UTIL:
		return "utility";
	default:
		return "unknown";
	}
}

static unsigned link_id(const struct caif *c, const struct caif_link *l)
{
	return (unsigned)(l - c->link) + 1;
}

/* Puts the rest of a frame around a payload of n bytes at out + HEAD; the frame's length. */
static size_t frame(uint8_t *out, unsigned id, size_t n)
{
	uint16_t len = htole16((uint16_t)(ID_BYTES + n + CHECK_BYTES));

	memcpy(out, &len, sizeof(len));
	out[LEN_BYTES] = (uint8_t)id;
	memset(out + HEAD + n, 0, CHECK_BYTES);
	return HEAD + n + CHECK_BYTES;
}

/* Bytes of a service's header before payload. */
static size_t type_bytes(enum caif_service s)
{
	return s == CAIF_DATAGRAM ? 4 : s == CAIF_DEBUG ? 0 : 1;
}

/* Whether the guest shall stop on the link to ch. */
static void flow(struct caif_channel *ch, bool off)
{
	struct caif *c = ch->caif;

	if (!ch->link || ch->service == CAIF_DEBUG || ch->service == CAIF_RFM) /* have no flow control */
		return;
	ch->link->off = off;
	if (ch->link->off != ch->link->told && c->rx)
		virtqueue_wake(c->rx);
}

/* Links */

static void event_of(struct caif *c, const char *event, enum caif_service service, const struct caif_link *l)
{
	struct json *j = backend_event_wanted(c->b) ? json_new(false) : NULL;

	if (!j)
		return;
	json_object_begin(j);
	if (l) {
		json_key(j, "link");
		json_u64(j, link_id(c, l));
	}
	json_key(j, "service");
	json_string(j, caif_service_name(service));
	json_object_end(j);
	backend_event(c->b, event, j);
}

static struct caif_channel *channel_for(struct caif *c, enum caif_service service, const uint8_t *p)
{
	for (unsigned i = 0; i < c->nchannels; i++) {
		struct caif_channel *ch = &c->channel[i];

		if (ch->service != service || ch->link)
			continue;
		if (service == CAIF_DATAGRAM && ch->id != le32_load(p + AT_PARAM))
			continue;
		if ((service == CAIF_UTIL || service == CAIF_RFM) && ch->name[0] &&
			strncmp(ch->name, (const char *)p + AT_NAME, CAIF_NAME) != 0)
			continue;
		return ch;
	}
	return NULL;
}

/* Bytes that a set-up of this service has; 0: we have no such service. */
static size_t setup_bytes(enum caif_service service, const uint8_t *p, size_t n)
{
	const uint8_t *end;

	switch (service) {
	case CAIF_VEI:
	case CAIF_DEBUG:
		return AT_PARAM;
	case CAIF_DATAGRAM:
		return AT_PARAM + 4;
	case CAIF_RFM:
		end = n > AT_NAME ? memchr(p + AT_NAME, 0, n - AT_NAME) : NULL;
		return end ? (size_t)(end + 1 - p) : SIZE_MAX;
	case CAIF_UTIL:
		return n > AT_LENGTH ? (size_t)AT_LENGTH + 1 + p[AT_LENGTH] : SIZE_MAX;
	default:
		return 0;
	}
}

static struct caif_link *link_up(struct caif *c, const uint8_t *p)
{
	enum caif_service service = p[AT_SERVICE] & 0xf;
	struct caif_channel *ch;
	bool loop;

	loop = service == CAIF_DATAGRAM && p[AT_SERVICE] >> 4 == CHTYPE_LOOP;
	ch = loop ? NULL : channel_for(c, service, p);
	if (!loop && !ch) {
		log_guest_warn("no channel is free for a link to %s", caif_service_name(service));
		return NULL;
	}
	for (unsigned i = 0; i < CAIF_LINKS; i++) {
		struct caif_link *l = &c->link[i];

		if (l->used)
			continue;
		*l = (struct caif_link){.used = true, .service = service, .channel = ch};
		if (ch)
			ch->link = l;
		event_of(c, "link-up", service, l);
		return l;
	}
	log_guest_warn("there are %d links already", CAIF_LINKS);
	return NULL;
}

static void link_down(struct caif_link *l)
{
	if (l->channel)
		l->channel->link = NULL;
	*l = (struct caif_link){0};
}

void caif_forget(struct caif *c)
{
	for (unsigned i = 0; i < CAIF_LINKS; i++)
		if (c->link[i].used)
			link_down(&c->link[i]);
}

static struct caif_link *link_of(struct caif *c, unsigned id)
{
	return id && id <= CAIF_LINKS && c->link[id - 1].used ? &c->link[id - 1] : NULL;
}

/* Control frames; p has n of at most CONTROL_MAX bytes and is made the answer, whose length is the value. */

static size_t take_setup(struct caif *c, uint8_t *p, size_t n)
{
	size_t want = n > AT_ENDPOINT ? setup_bytes(p[AT_SERVICE] & 0xf, p, n) : 0;
	struct caif_link *l = NULL;

	p[AT_CMD] |= CMD_RESPONSE;
	if (!want || n < want)
		log_guest_warn("%zu bytes that ask for a link, of no service that we have, or too few", n);
	else
		l = link_up(c, p);
	if (!l) {
		p[AT_CMD] |= CMD_FAILED;
		return n;
	}
	p[want++] = (uint8_t)link_id(c, l);
	if (l->service == CAIF_UTIL)
		p[want++] = 0; /* bytes of parameters */
	if (l->channel && l->channel->head != l->channel->tail)
		flow(l->channel, true);
	return want;
}

static size_t take_destroy(struct caif *c, uint8_t *p, size_t n)
{
	struct caif_link *l = n > 1 ? link_of(c, p[1]) : NULL;

	p[AT_CMD] |= CMD_RESPONSE;
	if (!l) {
		log_guest_warn("a link ends that there is not");
		p[AT_CMD] |= CMD_FAILED;
		return n;
	}
	event_of(c, "link-down", l->service, l);
	link_down(l);
	return 2;
}

static size_t take_control(struct caif *c, uint8_t *p, size_t n)
{
	if (!n || p[AT_CMD] & CMD_RESPONSE)
		return 0;
	switch (p[AT_CMD] & CMD_MASK) {
	case CMD_SETUP:
		return take_setup(c, p, n);
	case CMD_DESTROY:
		return take_destroy(c, p, n);
	case CMD_ENUM:
	case CMD_SLEEP:
	case CMD_WAKE:
		p[AT_CMD] |= CMD_RESPONSE;
		return n;
	case CMD_ERROR:
		return 0;
	default:
		log_guest_warn("a control frame has the command %u", p[AT_CMD] & CMD_MASK);
		return 0;
	}
}

/* To the host */

static bool has_records(const struct caif_channel *ch)
{
	return ch->config.messages;
}

static size_t wait_size(const struct caif *c)
{
	return (size_t)CAIF_WAIT * c->mtu;
}

/* Keeps n bytes of rd for later, of which there may be no room. */
static void keep(struct caif_channel *ch, struct cursor *rd, size_t n)
{
	size_t head = has_records(ch) ? sizeof(uint16_t) : 0;
	uint16_t len = (uint16_t)n;

	if (ch->head && ch->tail + head + n > wait_size(ch->caif)) {
		memmove(ch->wait, ch->wait + ch->head, ch->tail - ch->head);
		ch->tail -= ch->head;
		ch->head = 0;
	}
	if (ch->tail + head + n > wait_size(ch->caif)) {
		ch->lost++;
		log_guest_warn(
			"link to %s: its host takes nothing, and the guest does not stop; frames are dropped",
			caif_service_name(ch->service));
		return;
	}
	memcpy(ch->wait + ch->tail, &len, head);
	cursor_get(rd, ch->wait + ch->tail + head, n);
	ch->tail += head + n;
}

static void to_host(struct caif_channel *ch, struct cursor *rd, size_t n)
{
	struct iovec v[16];
	unsigned nv = cursor_iovec(rd, n, v, ARRAY_SIZE(v));
	size_t seen = 0, sent = 0;

	ch->received++;
	for (unsigned i = 0; i < nv; i++)
		seen += v[i].iov_len;
	if (ch->ip) {
		if (seen == n && n)
			caif_ip_send(ch->ip, v, nv, n);
		return;
	}
	if (ch->head == ch->tail && seen == n && n)
		sent = port_send(ch->port, v, nv);
	cursor_skip(rd, sent);
	if (sent < n && !ch->link->over)
		keep(ch, rd, n - sent);
	if (ch->head != ch->tail)
		flow(ch, true);
}

static void host_room(struct port *p)
{
	struct caif_channel *ch = port_owner(p);

	while (ch->head != ch->tail) {
		size_t n = ch->tail - ch->head, sent;
		struct iovec v = {ch->wait + ch->head, n};
		uint16_t len;

		if (has_records(ch)) {
			memcpy(&len, v.iov_base, sizeof(len));
			v = (struct iovec){ch->wait + ch->head + sizeof(len), len};
			n = len;
		}
		sent = port_send(p, &v, 1);
		if (!sent || ch->head == ch->tail) /* hung up meanwhile */
			return;
		ch->head += sent + (has_records(ch) ? sizeof(len) : 0);
		if (sent < n)
			return;
	}
	ch->head = ch->tail = 0;
	flow(ch, false);
}

/* The host's program came or went. */
static void host_link(struct port *p, bool up)
{
	struct caif_channel *ch = port_owner(p);
	struct caif *c = ch->caif;

	event_of(c, up ? "host-up" : "host-down", ch->service, ch->link);
	if (up || !ch->hangup)
		return;
	ch->head = ch->tail = 0; /* was said to the one that went */
	if (ch->link)
		ch->link->over = true;
	if (ch->link && c->rx)
		virtqueue_wake(c->rx);
}

/* From the guest */

/* An answer that is what came. */
static size_t echo(struct cursor *rd, size_t n, unsigned id, uint8_t *out, size_t room)
{
	if (n + HEAD + CHECK_BYTES > room) {
		log_guest_warn("a frame of %zu bytes does not fit a receive buffer", n);
		return 0;
	}
	cursor_get(rd, out + HEAD, n);
	return frame(out, id, n);
}

/* Of a message of the RFM service all segments but the first repeat its head. To the host it is bytes. */
static void take_segment(struct caif_link *l, struct cursor *rd, size_t n, bool more)
{
	size_t skip = l->segmented ? RFM_HEAD : 0;

	l->segmented = more;
	if (n < skip || !cursor_skip(rd, skip)) {
		log_guest_warn(
			"link %u: a segment has no more than %zu bytes", link_id(l->channel->caif, l), n);
		return;
	}
	to_host(l->channel, rd, n - skip);
}

static size_t take_payload(
	struct caif *c, struct caif_link *l, struct cursor *rd, size_t n, uint8_t *out, size_t room)
{
	size_t head = type_bytes(l->service);
	uint8_t type[4] = {TYPE_PAYLOAD};

	if (n < MIN(head, (size_t)1))
		return 0;
	if (!l->channel || l->channel->loop) {
		if (l->channel) {
			l->channel->received++;
			l->channel->sent++;
		}
		return echo(rd, n, link_id(c, l), out, room);
	}
	cursor_get(rd, type, MIN(head, (size_t)1));
	if (l->service == CAIF_RFM) {
		take_segment(l, rd, n - 1, type[0] & RFM_MORE);
		return 0;
	}
	if (type[0] & 0x80) {
		if (type[0] == TYPE_ON || type[0] == TYPE_OFF)
			l->guest_off = type[0] == TYPE_OFF;
		if (!l->guest_off && c->rx)
			virtqueue_wake(c->rx);
		return 0;
	}
	if (l->over)
		return 0;
	if (n < head) {
		log_guest_warn("link %u: a frame has no more than %zu bytes", link_id(c, l), n);
		return 0;
	}
	if (head > 1)
		cursor_get(rd, type + 1, head - 1);
	to_host(l->channel, rd, n - head);
	return 0;
}

/* Loops too: a frame of type "flow off" would stop our guest when it came back. */
static bool is_flow(const struct caif_link *l, const struct cursor *rd)
{
	struct cursor peek = *rd;
	uint8_t type;

	return type_bytes(l->service) && cursor_get(&peek, &type, 1) && type & 0x80;
}

/* Judged in a copy: the guest can write to out. */
static size_t answer_control(struct caif *c, struct cursor *rd, size_t n, uint8_t *out)
{
	uint8_t p[CONTROL_MAX + 2] = {0};

	cursor_get(rd, p, n);
	n = take_control(c, p, n);
	if (!n)
		return 0;
	memcpy(out + HEAD, p, n);
	return frame(out, 0, n);
}

size_t caif_take(struct caif *c, struct cursor *rd, uint8_t *out, size_t room)
{
	struct caif_link *l;
	uint8_t head[HEAD];
	size_t n;

	if (!cursor_get(rd, head, sizeof(head))) {
		log_guest_warn("a frame has less than %d bytes", HEAD);
		return 0;
	}
	n = le16_load(head);
	if (n < ID_BYTES + CHECK_BYTES || n - ID_BYTES > rd->left) {
		log_guest_warn("a frame says that it has %zu bytes, and has %zu", n, rd->left + ID_BYTES);
		return 0;
	}
	n -= ID_BYTES + CHECK_BYTES;
	if (!head[LEN_BYTES]) {
		if (n > CONTROL_MAX) {
			log_guest_warn("a control frame of %zu bytes", n);
			return 0;
		}
		return answer_control(c, rd, n, out);
	}
	l = link_of(c, head[LEN_BYTES]);
	if (!l) {
		log_guest_warn("a frame is for link %u, which there is not", head[LEN_BYTES]);
		return 0;
	}
	if ((!l->channel || l->channel->loop) && is_flow(l, rd))
		return 0;
	return take_payload(c, l, rd, n, out, room);
}

/* To the guest */

static void host_want(struct caif_channel *ch, bool want)
{
	if (ch->ip)
		caif_ip_want(ch->ip, want);
	else
		port_want(ch->port, want);
}

void caif_host_data(struct caif_channel *ch)
{
	ch->have = true;
	host_want(ch, false);
	if (ch->caif->rx)
		virtqueue_wake(ch->caif->rx);
}

static void host_data(struct port *p)
{
	caif_host_data(port_owner(p));
}

bool caif_speaks(const struct caif_link *l)
{
	if (!l->used)
		return false;
	if (l->over)
		return !l->over_told;
	return l->off != l->told || (l->channel && l->channel->have && !l->guest_off);
}

size_t caif_give(struct caif *c, struct caif_link *l, uint8_t *out, size_t room)
{
	struct caif_channel *ch = l->channel;
	size_t type = type_bytes(l->service);
	struct iovec v = {out + HEAD + type, room - HEAD - type - CHECK_BYTES};
	ssize_t got;

	if (l->over) {
		l->over_told = true;
		out[HEAD] = TYPE_SHUTDOWN;
		return frame(out, link_id(c, l), 1);
	}
	if (l->off != l->told) {
		l->told = l->off;
		out[HEAD] = l->off ? TYPE_OFF : TYPE_ON;
		return frame(out, link_id(c, l), 1);
	}
	do
		got = ch->ip ? caif_ip_receive(ch->ip, &v) : port_receive(ch->port, &v, 1);
	while (got == -EMSGSIZE);
	if (got <= 0) {
		ch->have = false;
		host_want(ch, true);
		return 0;
	}
	memset(out + HEAD, 0, type);
	if (type > 1)
		out[HEAD] = TYPE_DATAGRAM;
	ch->sent++;
	return frame(out, link_id(c, l), type + (size_t)got);
}

/* Channels */

enum { LIST_ITEM = 4096 };

static const char what_first[] = "the first item is at, debug, utility[:NAME], rfm[:VOLUME], "
				 "datagram:ID or pdp:ID";

static const char *set_kind(struct caif_channel *ch, const char *name)
{
	const char *arg = strchr(name, ':');
	size_t n = arg ? (size_t)(arg++ - name) : strlen(name);
	uint64_t id;

	if (strcmp(name, "at") == 0) {
		ch->service = CAIF_VEI;
	} else if (strcmp(name, "debug") == 0) {
		ch->service = CAIF_DEBUG;
	} else if ((n == 7 && strncmp(name, "utility", n) == 0) || (n == 3 && strncmp(name, "rfm", n) == 0)) {
		ch->service = n == 3 ? CAIF_RFM : CAIF_UTIL;
		if (arg && strlen(arg) >= CAIF_NAME)
			return "the name has more than 15 bytes";
		if (arg)
			strcpy(ch->name, arg);
	} else if ((n == 8 && strncmp(name, "datagram", n) == 0) ||
		   (n == 3 && strncmp(name, "pdp", n) == 0)) {
		ch->service = CAIF_DATAGRAM;
		if (!arg || !options_parse_u64(arg, &id) || id > UINT32_MAX)
			return "it needs a number of 32 bits, datagram:ID or pdp:ID";
		ch->id = (uint32_t)id;
		ch->pdp = n == 3;
		ch->config.messages = !ch->pdp;
	} else {
		return what_first;
	}
	return NULL;
}

static const char *channel_item(struct caif_channel *ch, const char *name, const char *value)
{
	const char *why;

	if (!ch->service)
		return value ? what_first : set_kind(ch, name);
	if (ch->pdp)
		return caif_ip_item(&ch->ip_config, name, value);
	if (strcmp(name, "loop") == 0 && !value) {
		ch->loop = true;
		return NULL;
	}
	if (strcmp(name, "hangup") == 0 && !value) {
		ch->hangup = true;
		return ch->service == CAIF_UTIL ? NULL : "hangup is for utility links only";
	}
	why = port_config_item(&ch->config, name, value);
	return why == port_item_unknown
		       ? "only loop, hangup, host, server, signals, log, backlog and patience "
			 "can be said of a channel"
		       : why;
}

static bool is_taken(const struct caif *c, const struct caif_channel *ch)
{
	for (const struct caif_channel *o = c->channel; o < ch; o++)
		if (ch->service == CAIF_DATAGRAM && o->service == CAIF_DATAGRAM && o->id == ch->id)
			return true;
	return false;
}

const char *caif_channel_parse(struct caif *c, struct caif_channel *ch, const char *list)
{
	const char *why = NULL, *name, *value;
	char buf[LIST_ITEM];
	int more = 0;

	*ch = (struct caif_channel){.caif = c, .text = list};
	while (!why && (more = port_list_next(&list, buf, sizeof(buf), &name, &value)) > 0)
		why = channel_item(ch, name, value);
	if (!why && more < 0)
		why = "an item has more than 4095 bytes";
	if (!why && !ch->service)
		why = what_first;
	if (!why && is_taken(c, ch))
		why = "there is a datagram channel of this number already";
	if (!why && ch->pdp)
		return caif_ip_check(&ch->ip_config);
	if (!why && ch->loop)
		return ch->config.host ? "loop has no host" : NULL;
	return why ? why : port_config_check(&ch->config);
}

static const struct port_ops host_ops = {.data = host_data, .room = host_room, .link = host_link};

int caif_channel_open(struct caif_channel *ch)
{
	bool messages = ch->config.messages;
	char label[64];
	int err;

	if (ch->loop)
		return 0;
	if (ch->pdp) {
		err = caif_ip_open(&ch->ip, ch);
		if (!err)
			caif_ip_want(ch->ip, true);
		return err;
	}
	ch->wait = malloc(wait_size(ch->caif));
	if (!ch->wait)
		return log_errno(ENOMEM, "--channel");
	snprintf(label, sizeof(label), "channel %s", caif_service_name(ch->service));
	err = port_open(&ch->port, ch->caif->b->loop, &ch->config, label, &host_ops, ch);
	if (err) {
		caif_channel_close(ch);
		return err;
	}
	ch->config = (struct port_config){.messages = messages};
	port_want(ch->port, true);
	return 0;
}

void caif_channel_close(struct caif_channel *ch)
{
	caif_ip_close(ch->ip);
	ch->ip = NULL;
	port_close(ch->port);
	ch->port = NULL;
	port_config_free(&ch->config);
	free(ch->wait);
	ch->wait = NULL;
}
