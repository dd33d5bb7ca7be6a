/* SPDX-License-Identifier: MIT */
/* What the tests of console share: the driver of a guest, and programs of the host. */
#ifndef CONSOLE_DRIVER_H
#define CONSOLE_DRIVER_H

#include <linux/virtio_console.h>

#include "frontend.h"

enum { RING = 32, BUF = 1024, MAX_PORTS = 8 };
enum { ALL = 0xffffff, SINGLE = ALL & ~(1 << VIRTIO_CONSOLE_F_MULTIPORT) }; /* features to accept */

/* Buffers of rx queues are kept filled, what comes in is collected. */
struct inbox {
	struct fe_queue *q;
	uint8_t *mem;
	size_t n, at;
	uint8_t *bytes; /* what came and was not looked at */
	size_t have, cap;
	unsigned posted;
};

struct guest {
	struct fe fe;
	struct inbox rx[MAX_PORTS], control;
	struct fe_queue *tx[MAX_PORTS], *control_tx;
	bool multiport;
};

void guest_start(
	struct guest *g, const struct fe_mode *m, unsigned ports, uint64_t mask, const char *const *args);
/* Of a connection that has guest memory. */
void guest_queues(struct guest *g, unsigned ports);
void guest_forget(struct guest *g);
void guest_end(struct guest *g);

void inbox_up(struct inbox *in, struct fe *fe, unsigned index);
void inbox_post(struct inbox *in, void *buf);
/* Waits until n bytes have come, removes them. */
void inbox_read(struct inbox *in, void *to, size_t n);
void inbox_expect(struct inbox *in, const char *text);
bool inbox_quiet(struct inbox *in, int ms);

/* Waits until they were taken. */
void say_bytes(struct fe_queue *q, const void *text, size_t n);
void say(struct guest *g, unsigned port, const char *text);
void control_say(struct guest *g, uint32_t id, uint16_t event, uint16_t value);
/* The next control message; payload: what may follow the header. */
struct virtio_console_control control_next(struct guest *g, void *payload, size_t size, size_t *len);
void control_expect(struct guest *g, uint32_t id, uint16_t event, uint16_t value);
void expect_name(struct guest *g, uint32_t id, const char *name);
void expect_size(struct guest *g, uint32_t id, uint16_t cols, uint16_t rows);

/* The host's programs */
int host_connect(const char *path);
int host_listen(const char *path);
int host_accept(int listener);
void host_write(int fd, const void *text, size_t n);
void host_read(int fd, void *to, size_t n);
void host_expect(int fd, const char *text);

/* In static buffers, of which there are some. */
const char *path_in(const char *dir, const char *name);
const char *arg(const char *fmt, const char *path);
/* Bytes that differ everywhere */
uint8_t pattern(size_t i, unsigned seed);

#endif
