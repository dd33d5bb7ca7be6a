/* SPDX-License-Identifier: MIT */
/* See input-driver.h. */
#include "input-driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

void driver_give(struct driver *d, unsigned i)
{
	struct vring_driver_buf buf = fe_wr(&d->fe, &d->bufs[i], sizeof(d->bufs[i]));

	memset(&d->bufs[i], 0xee, sizeof(d->bufs[i]));
	fe_submit(d->events, &buf, 1, &d->bufs[i]);
}

void driver_up(struct driver *d, uint16_t num, unsigned nbufs)
{
	d->events = fe_queue_up(&d->fe, DRIVER_EVENTS, num);
	d->status = fe_queue_up(&d->fe, DRIVER_STATUS, num);
	d->bufs = fe_alloc(&d->fe, nbufs * sizeof(*d->bufs), 8, NULL);
	d->nbufs = nbufs;
	d->hold = false;
	for (unsigned i = 0; i < nbufs; i++)
		driver_give(d, i);
	fe_flush(d->events);
}

struct ev driver_next(struct driver *d)
{
	struct virtio_input_event *wire;
	struct ev ev;
	void *cookie;

	CHECK_EQ(fe_wait(d->events, &cookie), sizeof(*wire));
	wire = cookie;
	ev = (struct ev){le16toh(wire->type), le16toh(wire->code), (int32_t)le32toh(wire->value)};
	if (!d->hold) {
		driver_give(d, (unsigned)(wire - d->bufs));
		fe_flush(d->events);
	}
	return ev;
}

void driver_expect(struct driver *d, unsigned type, unsigned code, int value)
{
	struct ev ev = driver_next(d);

	if (ev.type != type || ev.code != code || ev.value != value)
		FAIL("expected event %u:%u=%d, got %u:%u=%d", type, code, value, ev.type, ev.code, ev.value);
}

void driver_expect_syn(struct driver *d)
{
	driver_expect(d, EV_SYN, SYN_REPORT, 0);
}

void driver_expect_one(struct driver *d, unsigned type, unsigned code, int value)
{
	driver_expect(d, type, code, value);
	driver_expect_syn(d);
}

void driver_quiet(struct driver *d, int ms)
{
	const struct virtio_input_event *wire;
	uint32_t len;
	void *cookie;

	if (!fe_wait_ms(d->events, &cookie, &len, ms))
		return;
	wire = cookie;
	FAIL("expected no event, got %u:%u=%d", wire->type, wire->code, (int)wire->value);
}

uint8_t driver_ask(struct driver *d, unsigned select, unsigned subsel, struct virtio_input_config *c)
{
	uint8_t a = (uint8_t)select, b = (uint8_t)subsel;

	CHECK_EQ(fe_config_set(&d->fe, 0, &a, 1, 0), 0);
	CHECK_EQ(fe_config_set(&d->fe, 1, &b, 1, 0), 0);
	fe_config_get(&d->fe, 0, c, sizeof(*c));
	CHECK_EQ(c->select, a);
	CHECK_EQ(c->subsel, b);
	return c->size;
}

bool driver_has(struct driver *d, unsigned type, unsigned code)
{
	struct virtio_input_config c;

	return driver_ask(d, VIRTIO_INPUT_CFG_EV_BITS, type, &c) > code / 8 &&
	       c.u.bitmap[code / 8] >> code % 8 & 1;
}

void driver_probe(struct driver *d)
{
	struct virtio_input_config c;

	CHECK(driver_ask(d, VIRTIO_INPUT_CFG_ID_NAME, 0, &c) > 0);
}

void driver_set(struct driver *d, unsigned type, unsigned code, int value)
{
	struct virtio_input_event *wire = fe_alloc(&d->fe, sizeof(*wire), 8, NULL);
	struct vring_driver_buf buf = fe_rd(&d->fe, wire, sizeof(*wire));

	wire->type = htole16((uint16_t)type);
	wire->code = htole16((uint16_t)code);
	wire->value = htole32((uint32_t)value);
	CHECK_EQ(fe_transact(d->status, &buf, 1), 0);
}

int source_connect(const char *path)
{
	struct timespec pause = {.tv_nsec = 2000000};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int64_t end = fe_now_ms() + fe_limit_ms;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && strlen(path) < sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (fe_now_ms() > end)
			FAIL("%s: %s", path, strerror(errno));
		nanosleep(&pause, NULL);
	}
	return fd;
}

void source_say(int fd, const char *text)
{
	CHECK_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void source_hears(int fd, const char *text)
{
	size_t n = 0, want = strlen(text);
	char buf[1024] = "";

	CHECK(want < sizeof(buf));
	while (n < want) {
		ssize_t r;

		if (!fe_poll(fd, POLLIN, fe_limit_ms))
			FAIL("source: expected \"%s\", got \"%s\"", text, buf);
		r = read(fd, buf + n, want - n);
		if (r <= 0)
			FAIL("source: expected \"%s\", got \"%s\" and its end", text, buf);
		n += (size_t)r;
	}
	CHECK_STR(buf, text);
}
