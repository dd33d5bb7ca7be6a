/* SPDX-License-Identifier: MIT */
/* See console-driver.h. */
#include "console-driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

void inbox_post(struct inbox *in, void *buf)
{
	struct vring_driver_buf b = fe_wr(in->q->fe, buf, BUF);

	fe_submit(in->q, &b, 1, buf);
	in->posted++;
}

void inbox_up(struct inbox *in, struct fe *fe, unsigned index)
{
	in->q = fe_queue_up(fe, index, RING);
	in->mem = fe_alloc(fe, RING * BUF, 1, NULL);
	in->posted = 0;
	for (unsigned i = 0; i < RING / 2; i++)
		inbox_post(in, in->mem + i * BUF);
	fe_flush(in->q);
}

static void inbox_take(struct inbox *in, void *buf, uint32_t len)
{
	CHECK(len <= BUF);
	if (in->have + len > in->cap) {
		in->cap = (in->have + len) * 2;
		in->bytes = realloc(in->bytes, in->cap);
		CHECK(in->bytes);
	}
	memcpy(in->bytes + in->have, buf, len);
	in->have += len;
	in->posted--;
	inbox_post(in, buf);
	fe_flush(in->q);
}

/* Waits until n bytes have come, removes them. */
void inbox_read(struct inbox *in, void *to, size_t n)
{
	while (in->have < n) {
		void *buf;
		uint32_t len = fe_wait(in->q, &buf);

		inbox_take(in, buf, len);
	}
	memcpy(to, in->bytes, n);
	memmove(in->bytes, in->bytes + n, in->have - n);
	in->have -= n;
}

void inbox_expect(struct inbox *in, const char *text)
{
	char got[256];
	size_t n = strlen(text);

	inbox_read(in, got, n);
	CHECK_MEM(got, text, n);
}

bool inbox_quiet(struct inbox *in, int ms)
{
	void *buf;
	uint32_t len;

	return !in->have && !fe_wait_ms(in->q, &buf, &len, ms);
}

static unsigned rx_index(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

void guest_queues(struct guest *g, unsigned ports)
{
	g->multiport = g->fe.features & BIT(VIRTIO_CONSOLE_F_MULTIPORT);
	for (unsigned i = 0; i < ports; i++) {
		inbox_up(&g->rx[i], &g->fe, rx_index(i));
		g->tx[i] = fe_queue_up(&g->fe, rx_index(i) + 1, RING);
	}
	if (!g->multiport)
		return;
	inbox_up(&g->control, &g->fe, 2);
	g->control_tx = fe_queue_up(&g->fe, 3, RING);
}

void say_bytes(struct fe_queue *q, const void *text, size_t n)
{
	struct vring_driver_buf b;
	size_t mark = fe_mark(q->fe);
	void *p = fe_alloc(q->fe, n, 1, NULL);

	memcpy(p, text, n);
	b = fe_rd(q->fe, p, (uint32_t)n);
	CHECK_EQ(fe_transact(q, &b, 1), 0);
	fe_release(q->fe, mark);
}

void say(struct guest *g, unsigned port, const char *text)
{
	say_bytes(g->tx[port], text, strlen(text));
}

void control_say(struct guest *g, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control m = {id, event, value};

	say_bytes(g->control_tx, &m, sizeof(m));
}

/* The next control message; payload: what may follow the header. */
struct virtio_console_control control_next(struct guest *g, void *payload, size_t size, size_t *len)
{
	struct virtio_console_control m;
	void *buf;
	uint32_t n = fe_wait(g->control.q, &buf);

	CHECK(n >= sizeof(m) && n - sizeof(m) <= size);
	memcpy(&m, buf, sizeof(m));
	if (n > sizeof(m))
		memcpy(payload, (uint8_t *)buf + sizeof(m), n - sizeof(m));
	if (len)
		*len = n - sizeof(m);
	inbox_post(&g->control, buf);
	fe_flush(g->control.q);
	return m;
}

void control_expect(struct guest *g, uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control m = control_next(g, NULL, 0, NULL);

	CHECK_EQ(m.event, event);
	CHECK_EQ(m.id, id);
	CHECK_EQ(m.value, value);
}

void expect_name(struct guest *g, uint32_t id, const char *name)
{
	char got[128] = "";
	size_t len;
	struct virtio_console_control m = control_next(g, got, sizeof(got) - 1, &len);

	CHECK_EQ(m.event, VIRTIO_CONSOLE_PORT_NAME);
	CHECK_EQ(m.id, id);
	got[len] = '\0';
	CHECK_STR(got, name);
}

void expect_size(struct guest *g, uint32_t id, uint16_t cols, uint16_t rows)
{
	uint16_t got[2];
	struct virtio_console_control m = control_next(g, got, sizeof(got), NULL);

	CHECK_EQ(m.event, VIRTIO_CONSOLE_RESIZE);
	CHECK_EQ(m.id, id);
	CHECK_EQ(got[0], cols);
	CHECK_EQ(got[1], rows);
}

void guest_start(
	struct guest *g, const struct fe_mode *m, unsigned ports, uint64_t mask, const char *const *args)
{
	memset(g, 0, sizeof(*g));
	fe_init(&g->fe, m);
	g->fe.device_mask = mask;
	fe_spawn(&g->fe, args);
	fe_handshake(&g->fe);
	fe_memory_default(&g->fe);
	guest_queues(g, ports);
}

void guest_forget(struct guest *g)
{
	for (unsigned i = 0; i < MAX_PORTS; i++)
		free(g->rx[i].bytes);
	free(g->control.bytes);
}

void guest_end(struct guest *g)
{
	fe_end(&g->fe);
	guest_forget(g);
}

/* The host's programs */

static void address(struct sockaddr_un *a, const char *path)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	CHECK(strlen(path) < sizeof(a->sun_path));
	strcpy(a->sun_path, path);
}

int host_connect(const char *path)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int64_t end = fe_now_ms() + fe_limit_ms;

	address(&a, path);
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		if (fe_now_ms() > end)
			FAIL("%s: %s", path, strerror(errno));
		usleep(2000);
	}
	return fd;
}

int host_listen(const char *path)
{
	struct sockaddr_un a;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address(&a, path);
	CHECK_SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(fd, 4));
	return fd;
}

int host_accept(int listener)
{
	int fd;

	CHECK(fe_poll(listener, POLLIN, fe_limit_ms));
	CHECK_SYS(fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	return fd;
}

void host_write(int fd, const void *text, size_t n)
{
	CHECK_EQ(write(fd, text, n), n);
}

void host_read(int fd, void *to, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t r;

		CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
		r = read(fd, (uint8_t *)to + at, n - at);
		if (r <= 0)
			FAIL("end after %zu of %zu bytes", at, n);
		at += (size_t)r;
	}
}

void host_expect(int fd, const char *text)
{
	char got[256];

	host_read(fd, got, strlen(text));
	CHECK_MEM(got, text, strlen(text));
}

const char *path_in(const char *dir, const char *name)
{
	static char path[4][128];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

const char *arg(const char *fmt, const char *path)
{
	static char text[8][256];
	static unsigned next;
	char *p = text[next++ % 8];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(p, sizeof(text[0]), fmt, path);
#pragma GCC diagnostic pop
	return p;
}

/* Bytes that differ everywhere */
uint8_t pattern(size_t i, unsigned seed)
{
	return (uint8_t)((i * 2654435761u >> 13) ^ i ^ seed);
}
