/* SPDX-License-Identifier: MIT */
/* A driver of the input device (virtio 1.3, 5.8) over the test front-end, and a program that feeds --source. */
#ifndef TESTS_INPUT_DRIVER_H
#define TESTS_INPUT_DRIVER_H

#include <linux/input.h>
#include <linux/virtio_input.h>

#include "frontend.h"

enum { DRIVER_EVENTS, DRIVER_STATUS, DRIVER_BUFFERS = 256 };

struct driver {
	struct fe fe;
	struct fe_queue *events, *status;
	struct virtio_input_event *bufs; /* guest memory */
	unsigned nbufs;			 /* in the event queue while it runs */
	bool hold;			 /* driver_next() does not give the buffer back */
};

struct ev {
	uint16_t type, code;
	int32_t value;
};

/* Queues with rings of num entries, nbufs buffers for events. */
void driver_up(struct driver *d, uint16_t num, unsigned nbufs);
/* Puts buffer i into the event queue, without a kick. */
void driver_give(struct driver *d, unsigned i);
/* The next event; waits for it. */
struct ev driver_next(struct driver *d);
void driver_expect(struct driver *d, unsigned type, unsigned code, int value);
void driver_expect_syn(struct driver *d);
/* One event and SYN_REPORT. */
void driver_expect_one(struct driver *d, unsigned type, unsigned code, int value);
/* No event comes within ms. */
void driver_quiet(struct driver *d, int ms);

/* Asks the configuration space field by field, as User Mode Linux does; the value is the size. */
uint8_t driver_ask(struct driver *d, unsigned select, unsigned subsel, struct virtio_input_config *c);
/* Looks at what a driver looks at when it begins: the device knows then that it is a new one. */
void driver_probe(struct driver *d);
bool driver_has(struct driver *d, unsigned type, unsigned code);
/* One event through the status queue. */
void driver_set(struct driver *d, unsigned type, unsigned code, int value);

/* Connects to the --source socket, waits for it to appear. */
int source_connect(const char *path);
void source_say(int fd, const char *text);
/* Reads until the text is what came; it must be. */
void source_hears(int fd, const char *text);

#endif
