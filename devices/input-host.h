/* SPDX-License-Identifier: MIT */
/*
 * The host's end of an input device: an evdev node (input-evdev.c), or a program that sends events
 * (input-source.c). It describes itself in the model and puts events into the backlog while the guest listens.
 */
#ifndef INPUT_HOST_H
#define INPUT_HOST_H

#include "input-backlog.h"
#include "loop.h"

struct input_host;

struct input_host_ops {
	void (*close)(struct input_host *h);
	/* The guest's driver listens; fresh: it is a new one. */
	void (*start)(struct input_host *h, bool fresh);
	/* It does not any more; also after failures. */
	void (*stop)(struct input_host *h);
	/* The guest sets a LED, a sound, the repeat rate, or plays an effect, which the model has. */
	void (*output)(struct input_host *h, const struct input_ev *ev);
	/* The backlog has room again. May be NULL. */
	void (*room)(struct input_host *h);
};

struct input_host {
	const struct input_host_ops *ops;
	struct loop *loop;
	struct input_model *model;
	struct input_backlog *backlog;
	/* The backlog has something to give. */
	void (*news)(struct input_host *h);
	void *owner;
	const char *serial; /* replaces the device's own; or NULL */
	bool running;	    /* between start and stop; set by the owner */
};

/* -errno, logged. The fields but ops are copied from *init; the model is filled. */
int input_evdev_open(struct input_host **out, const struct input_host *init, const char *path, bool grab);
int input_source_open(struct input_host **out, const struct input_host *init, const char *path);

#endif
