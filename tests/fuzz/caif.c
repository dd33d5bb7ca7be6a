/* SPDX-License-Identifier: MIT */
/*
 * The CAIF modem between a hostile guest and hosts that take what they like: the input of this test is a list of steps that send
 * frames, let hosts speak and take, and start anew.
 *
 * The device's files are part of this one; hosts, queues and the reversed ring are made up here: receive buffers come back at
 * once, or not at all. Checked besides the sanitizers' rules: frames for the guest are well-formed, belong to links that there
 * are, and each host gets what was said to it.
 */
#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../devices/caif-modem.c"
#include "../../devices/caif.c"

enum { STEPS_MAX = 300, NUM = 4, BUF = 1024, FRAME_MAX = 1200 };
enum { OP_FRAME, OP_CONTROL, OP_HOST, OP_TAKE, OP_BUFFERS, OP_RESET, OPS };

struct port {
	const struct port_ops *ops;
	void *owner;
	size_t room, says;
};

struct virtqueue {
	unsigned index;
	bool broken;
};

static struct {
	struct backend b;
	struct caif c;
	struct caif_config config;
	struct virtqueue queue[2];
	struct port ports[CAIF_CHANNELS];
	unsigned nports;
	struct vring_driver driver;
	struct vring_driver_buf announced[NUM];
	uint8_t memory[NUM][BUF];
	void *out[NUM]; /* cookies of the buffers that the guest has */
	unsigned nout;
	bool keep, has_frame;
	struct element tx;
	struct iovec iov;
	uint8_t frame[CAIF_ROOM_MIN + FRAME_MAX];
	size_t len;
	struct input in;
} f;

/* Hosts */

const char port_item_unknown[] = "";

int port_list_next(const char **list, char *buf, size_t size, const char **name, const char **value)
{
	size_t n = strcspn(*list, ",");

	*value = NULL;
	*name = buf;
	if (!**list || n >= size)
		return 0;
	memcpy(buf, *list, n);
	buf[n] = '\0';
	*list += n + ((*list)[n] == ',');
	return 1;
}

const char *port_config_item(struct port_config *c, const char *name, const char *value)
{
	(void)c;
	(void)name;
	(void)value;
	return NULL;
}

const char *port_config_check(const struct port_config *c)
{
	(void)c;
	return NULL;
}

void port_config_free(struct port_config *c)
{
	(void)c;
}

int port_open(struct port **out, struct loop *loop, struct port_config *c, const char *label,
	const struct port_ops *ops, void *owner)
{
	struct port *p = &f.ports[f.nports++];

	(void)loop;
	(void)c;
	(void)label;
	*p = (struct port){.ops = ops, .owner = owner};
	*out = p;
	return 0;
}

void port_close(struct port *p)
{
	(void)p;
}

void *port_owner(const struct port *p)
{
	return p->owner;
}

size_t port_send(struct port *p, const struct iovec *v, unsigned n)
{
	const struct caif_channel *ch = p->owner;
	size_t len = 0, take;

	for (unsigned i = 0; i < n; i++)
		len += v[i].iov_len;
	take = MIN(len, p->room);
	if (ch->config.messages && take < len)
		return 0;
	p->room -= take;
	return take;
}

ssize_t port_receive(struct port *p, const struct iovec *v, unsigned n)
{
	size_t len = MIN(p->says, v[0].iov_len);

	require(n == 1, "one piece");
	memset(v[0].iov_base, 0x55, len);
	p->says -= len;
	return (ssize_t)len;
}

void port_want(struct port *p, bool want)
{
	(void)p;
	(void)want;
}

/* There is no IP here. */

const char *caif_ip_item(struct caif_ip_config *c, const char *name, const char *value)
{
	(void)c;
	(void)name;
	(void)value;
	return "no IP";
}

const char *caif_ip_check(const struct caif_ip_config *c)
{
	(void)c;
	return "no IP";
}

int caif_ip_open(struct caif_ip **out, struct caif_channel *ch)
{
	(void)out;
	(void)ch;
	return -ENOTSUP;
}

void caif_ip_close(struct caif_ip *ip)
{
	(void)ip;
}

void caif_ip_send(struct caif_ip *ip, const struct iovec *v, unsigned n, size_t len)
{
	(void)ip;
	(void)v;
	(void)n;
	(void)len;
}

ssize_t caif_ip_receive(struct caif_ip *ip, const struct iovec *v)
{
	(void)ip;
	(void)v;
	return 0;
}

void caif_ip_want(struct caif_ip *ip, bool want)
{
	(void)ip;
	(void)want;
}

void caif_ip_describe(const struct caif_ip *ip, struct json *out)
{
	(void)ip;
	(void)out;
}

void port_describe(const struct port *p, struct json *out)
{
	(void)p;
	(void)out;
}

/* The core */

bool backend_event_wanted(const struct backend *b)
{
	(void)b;
	return false;
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	(void)b;
	(void)name;
	(void)data;
}

bool backend_memory_get(struct backend *b, struct backend_memory *m)
{
	(void)b;
	*m = (struct backend_memory){0};
	return true;
}

void backend_memory_put(struct backend_memory *m)
{
	(void)m;
}

unsigned backend_memory_iovec(
	struct backend_memory *m, uint64_t gpa, uint64_t len, struct iovec *v, unsigned n)
{
	(void)m;
	require(gpa < NUM && len <= BUF && n == 1, "a buffer that was announced");
	v[0] = (struct iovec){f.memory[gpa], len};
	return 1;
}

void backend_memory_wrote(struct backend_memory *m, uint64_t gpa, uint64_t len)
{
	(void)m;
	require(gpa < NUM && len <= BUF, "a buffer that was announced");
}

struct element *virtqueue_pop(struct virtqueue *q)
{
	require(q->index == QUEUE_TX, "nothing is popped from a reversed ring");
	if (!f.has_frame)
		return NULL;
	f.has_frame = false;
	f.tx = (struct element){.queue = q};
	f.iov = (struct iovec){f.frame, f.len};
	cursor_init(&f.tx.rd, &f.iov, 1);
	return &f.tx;
}

void virtqueue_push(struct element *e)
{
	require(e == &f.tx, "what was popped");
}

void virtqueue_wake(void *arg)
{
	(void)arg;
}

void virtqueue_break(struct virtqueue *q, const char *fmt, ...)
{
	(void)fmt;
	q->broken = true;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

struct vring_driver *virtqueue_driver(struct virtqueue *q)
{
	return q->broken ? NULL : &f.driver;
}

const struct vring_driver_buf *virtqueue_announced(struct virtqueue *q, bool *continues)
{
	(void)q;
	*continues = false;
	return f.announced;
}

void virtqueue_show(struct virtqueue *q)
{
	require(q->index == QUEUE_RX, "the reversed ring");
}

int vring_driver_add(struct vring_driver *d, const struct vring_driver_buf *b, unsigned n, void *cookie)
{
	const uint8_t *p = f.memory[b->addr];
	size_t len = b->len - f.c.headroom - f.c.tailroom;

	(void)d;
	require(n == 1 && !b->wr && b->len <= BUF, "one descriptor for the guest to read");
	require(f.nout < NUM, "a buffer is sent once");
	require(len >= 5 && le16_load(p + f.c.headroom) == len - 2, "the length of a frame");
	require(p[f.c.headroom + 2] <= CAIF_LINKS, "a link that can be");
	f.out[f.nout++] = cookie;
	return 0;
}

int vring_driver_get(struct vring_driver *d, void **cookie, uint32_t *len)
{
	(void)d;
	(void)len;
	if (f.keep || !f.nout)
		return 0;
	*cookie = f.out[--f.nout];
	return 1;
}

/* Steps */

static void turns(void)
{
	for (unsigned i = 0; i < 3; i++) {
		rx_ready(&f.b, &f.queue[QUEUE_RX]);
		tx_ready(&f.b, &f.queue[QUEUE_TX]);
	}
	require(f.c.nfree + f.nout == NUM, "no buffer is lost");
}

/* A frame around n bytes of input. */
static void say(unsigned link, size_t n, int lie)
{
	size_t head = f.c.headroom;

	memset(f.frame, 0, head);
	le16_store(f.frame + head, (uint16_t)((int)n + 3 + lie));
	f.frame[head + 2] = (uint8_t)link;
	input_bytes(&f.in, f.frame + head + 3, n);
	f.len = head + 3 + n + 2;
	f.has_frame = true;
	turns();
}

static void step(void)
{
	struct port *p;
	uint8_t how;

	switch (input_u8(&f.in) % OPS) {
	case OP_FRAME:
		how = input_u8(&f.in);
		say(how % 8, input_u16(&f.in) % FRAME_MAX, how < 240 ? 0 : (how - 248) * 100);
		break;
	case OP_CONTROL:
		say(0, input_u8(&f.in), 0);
		break;
	case OP_HOST:
		p = &f.ports[input_u8(&f.in) % f.nports];
		p->says += input_u16(&f.in);
		p->ops->data(p);
		break;
	case OP_TAKE:
		p = &f.ports[input_u8(&f.in) % f.nports];
		p->room += input_u16(&f.in);
		p->ops->room(p);
		break;
	case OP_BUFFERS:
		f.keep = input_u8(&f.in) % 2;
		break;
	case OP_RESET:
		caif_stop(&f.b, &f.queue[QUEUE_RX]);
		caif_reset(&f.b);
		f.nout = 0;
		require(caif_start(&f.b, &f.queue[QUEUE_RX]) == 0, "it starts again");
		break;
	}
	turns();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const channels[] = {"at,host", "debug,host", "utility,host", "datagram:1,host",
		"datagram:2,loop", "utility:u,host", "rfm,host"};

	memset(&f, 0, sizeof(f));
	log_set_level(LOG_LEVEL_ERROR);
	f.in = (struct input){data, data + size};
	f.b = (struct backend){.dev = &device_caif, .state = &f.c, .config = (uint8_t *)&f.config};
	f.c.mtu = BUF;
	f.c.headroom = f.c.tailroom = 16;
	f.driver.num = NUM;
	for (unsigned i = 0; i < NUM; i++)
		f.announced[i] = (struct vring_driver_buf){.addr = i, .len = BUF};
	for (unsigned i = 0; i < ARRAY_SIZE(channels); i++)
		require(!parse_channel(&f.c, channels[i]), "options");
	require(caif_open(&f.b) == 0, "it opens");
	for (unsigned i = 0; i < 2; i++) {
		f.queue[i].index = i;
		require(caif_start(&f.b, &f.queue[i]) == 0, "queues start");
	}
	for (unsigned i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	caif_reset(&f.b);
	caif_close(&f.b);
	return 0;
}

static void seed_control(struct seed *s, const void *data, uint8_t n)
{
	seed_u8(s, OP_CONTROL);
	seed_u8(s, n);
	seed_put(s, data, n);
}

static void seed_frame(struct seed *s, uint8_t link, uint16_t n)
{
	static const uint8_t zeros[FRAME_MAX];

	seed_u8(s, OP_FRAME);
	seed_u8(s, link);
	seed_u16(s, n);
	seed_put(s, zeros, n);
}

static void seed_number(struct seed *s, uint8_t op, uint8_t port, uint16_t n)
{
	seed_u8(s, op);
	seed_u8(s, port);
	seed_u16(s, n);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t utility[25] = {0, CAIF_UTIL, 0, 0, 0, 0, 0, 0, 'u'};
	struct seed s = {.n = 0};

	seed_control(&s, (uint8_t[]){0, 0x20 | CAIF_VEI, 0, 0}, 4);
	seed_control(&s, (uint8_t[]){0, CAIF_DEBUG, 0, 0}, 4);
	seed_control(&s, utility, sizeof(utility));
	seed_control(&s, (uint8_t[]){0, CAIF_DATAGRAM, 0, 0, 1, 0, 0, 0}, 8);
	seed_control(&s, (uint8_t[]){0, CAIF_DATAGRAM, 0, 0, 2, 0, 0, 0}, 8);
	seed_control(&s, (uint8_t[]){0, 0x30 | CAIF_DATAGRAM, 0, 0, 9, 0, 0, 0}, 8);
	for (uint8_t i = 1; i < 7; i++)
		seed_frame(&s, i, 40);
	for (uint8_t i = 0; i < 5; i++) {
		seed_number(&s, OP_TAKE, i, 20);
		seed_number(&s, OP_HOST, i, 2000);
		seed_number(&s, OP_TAKE, i, 2000);
	}
	seed_u8(&s, OP_BUFFERS);
	seed_u8(&s, 1);
	seed_frame(&s, 5, 300);
	seed_u8(&s, OP_BUFFERS);
	seed_u8(&s, 0);
	seed_control(&s, (uint8_t[]){1, 1}, 2);
	seed_control(&s, (uint8_t[]){3, 0}, 2);
	seed_u8(&s, OP_RESET);
	emit("links", s.bytes, s.n);
}
