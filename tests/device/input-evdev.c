/* SPDX-License-Identifier: MIT */
/*
 * The input device on evdev nodes that umockdev pretends to have, so that it is tested where there is no /dev/input:
 * what the guest can ask, and that reports arrive, whole and in order. input-uinput.c has the rest, and made the
 * devices whose answers to ioctl() are in input-evdev.d ("input-uinput plug 0", "umockdev-record --ioctl=…").
 *
 * The node is a FIFO that the test writes to. (umockdev would play events through a pseudo-terminal, by the clock, and when
 * 4 KiB have gathered there the last event is cut in two, as no input device does it.)
 */
#include "input-driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum kind { KEYBOARD, MOUSE, TABLET, TOUCH };

enum { FIRST = 2, REPORTS = 40, MAX_EVENTS = 8 };

struct kinds {
	const char *file, *name;
	struct {
		uint8_t type, size;
		const char *bits;
	} have[8];
};

static const struct kinds kinds[] = {
	[KEYBOARD] = {"keyboard", "Test keyboard",
		{{EV_KEY, 96, NULL}, {EV_MSC, 1, "\x10"}, {EV_SW, 1, "\x03"}, {EV_LED, 1, "\x03"},
			{EV_SND, 1, "\x04"}, {EV_REP, 1, "\x03"}}},
	[MOUSE] = {"mouse", "Test mouse", {{EV_KEY, 35, NULL}, {EV_REL, 2, "\x03\x09"}}},
	[TABLET] = {"tablet", "Test tablet",
		{{EV_KEY, 42, NULL}, {EV_ABS, 4, "\x03\0\0\x01"}, {EV_FF, 13, NULL}}},
	[TOUCH] = {"touchscreen", "Test touchscreen",
		{{EV_KEY, 42, NULL}, {EV_ABS, 8, "\x03\0\0\0\0\x80\x60\x02"}}},
};

/* The events of report i (from FIRST on, an even number: a contact comes before it goes) but its SYN_REPORT; how many. */
static unsigned report(enum kind kind, int i, struct ev *ev)
{
	unsigned n = 0;

	switch (kind) {
	case KEYBOARD:
		ev[n++] = (struct ev){EV_MSC, MSC_SCAN, i};
		ev[n++] = (struct ev){EV_KEY, KEY_A, i & 1};
		break;
	case MOUSE:
		ev[n++] = (struct ev){EV_REL, REL_X, i};
		ev[n++] = (struct ev){EV_REL, REL_Y, -i};
		ev[n++] = (struct ev){EV_KEY, BTN_LEFT, i & 1};
		break;
	case TABLET:
		ev[n++] = (struct ev){EV_ABS, ABS_X, i};
		ev[n++] = (struct ev){EV_ABS, ABS_Y, 2 * i};
		ev[n++] = (struct ev){EV_ABS, ABS_PRESSURE, i % 100};
		break;
	case TOUCH:
		ev[n++] = (struct ev){EV_ABS, ABS_X, i};
		ev[n++] = (struct ev){EV_ABS, ABS_MT_SLOT, i / 2 % 5};
		ev[n++] = (struct ev){EV_ABS, ABS_MT_TRACKING_ID, i & 1 ? -1 : i / 2};
		break;
	}
	return n;
}

/* Reports i to i + n - 1, each in one write. */
static void play(int node, enum kind kind, int i, int n)
{
	for (int end = i + n; i < end; i++) {
		struct input_event in[MAX_EVENTS] = {0};
		struct ev ev[MAX_EVENTS];
		unsigned nev = report(kind, i, ev);
		ssize_t size;

		ev[nev++] = (struct ev){EV_SYN, SYN_REPORT, 0};
		for (unsigned j = 0; j < nev; j++)
			in[j] = (struct input_event){
				.type = ev[j].type, .code = ev[j].code, .value = ev[j].value};
		size = (ssize_t)(nev * sizeof(in[0]));
		CHECK_EQ(write(node, in, (size_t)size), size);
	}
}

/* A program that runs the one under test where this device is, and becomes "the program under test". */
static void pretend(enum kind kind, const char *dir)
{
	const char *src = getenv("srcdir_abs");
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/program", dir);
	f = fopen(path, "w");
	CHECK(f);
	fprintf(f,
		"#!/bin/sh\n"
		"d='%s/tests/device/input-evdev.d' n=/dev/input/event0\n"
		"export ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0\n"
		"exec umockdev-run -d \"$d/event0.umockdev\" -i \"$n=$d/%s.ioctl\" -- sh -c \"\n"
		"	n=\\$UMOCKDEV_DIR$n; rm -f \\$n; mkfifo \\$n; ln -s \\$n '%s/node'\n"
		"	exec '%s' \\\"\\$@\\\"\" sh \"$@\"\n",
		src ? src : ".", kinds[kind].file, dir, fe_binary());
	CHECK_EQ(fclose(f), 0);
	CHECK_SYS(chmod(path, 0700));
	CHECK_SYS(setenv("VUM", path, 1));
}

static void check_config(struct driver *d, enum kind kind)
{
	const struct kinds *k = &kinds[kind];
	struct virtio_input_config c;
	unsigned types = 0, found = 0;

	CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_ID_NAME, 0, &c), strlen(k->name));
	CHECK_MEM(c.u.string, k->name, strlen(k->name));
	CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_ID_DEVIDS, 0, &c), 8);
	CHECK_EQ(le16toh(c.u.ids.vendor), 0x1234);
	CHECK_EQ(le16toh(c.u.ids.product), 0x100 + kind);
	CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_PROP_BITS, 0, &c), kind == TOUCH);
	for (; k->have[types].size; types++) {
		CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_EV_BITS, k->have[types].type, &c),
			k->have[types].size);
		if (k->have[types].bits)
			CHECK_MEM(c.u.bitmap, k->have[types].bits, k->have[types].size);
	}
	for (unsigned type = 0; type < 256; type++)
		found += driver_ask(d, VIRTIO_INPUT_CFG_EV_BITS, type, &c) != 0;
	CHECK_EQ(found, types);
	if (kind != TABLET)
		return;
	CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_ABS_INFO, ABS_X, &c), 20);
	CHECK_EQ((int32_t)le32toh(c.u.abs.min), -1000);
	CHECK_EQ(le32toh(c.u.abs.max), 30000);
	CHECK_EQ(le32toh(c.u.abs.fuzz), 4);
	CHECK_EQ(le32toh(c.u.abs.flat), 2);
	CHECK_EQ(le32toh(c.u.abs.res), 100);
}

static void check_stream(struct driver *d, enum kind kind, int i, int n)
{
	for (int end = i + n; i < end; i++) {
		struct ev ev[MAX_EVENTS];
		unsigned nev = report(kind, i, ev);

		for (unsigned j = 0; j < nev; j++)
			driver_expect(d, ev[j].type, ev[j].code, ev[j].value);
		driver_expect_syn(d);
	}
}

static void played(void *arg)
{
	const char *dir = fe_tmpdir();
	enum kind kind = (enum kind)(uintptr_t)arg;
	struct fe_mode m = {.event_idx = true};
	char socket[128], path[128];
	struct driver d;
	int node;

	pretend(kind, dir);
	snprintf(socket, sizeof(socket), "%s/socket", dir);
	snprintf(path, sizeof(path), "%s/node", dir);
	fe_init(&d.fe, &m);
	fe_spawn_path(&d.fe, socket, FE_ARGS("input", "--evdev-path=/dev/input/event0"));
	fe_handshake(&d.fe);
	fe_memory_default(&d.fe);
	check_config(&d, kind);
	driver_up(&d, 4, 4);
	node = open(path, O_RDWR | O_CLOEXEC);
	CHECK_SYS(node);
	play(node, kind, FIRST, REPORTS);
	check_stream(&d, kind, FIRST, REPORTS);
	driver_set(&d, EV_LED, LED_CAPSL, 1);
	for (int i = FIRST + REPORTS; i < FIRST + 2 * REPORTS; i++) {
		play(node, kind, i, 1);
		check_stream(&d, kind, i, 1);
	}
	close(node);
	fe_process_signal(&d.fe.process, SIGTERM);
	fe_process_exits(&d.fe.process, 0);
	fe_close(&d.fe);
}

int main(void)
{
	if (system("command -v umockdev-run >/dev/null") != 0) {
		printf("1..0 # SKIP no umockdev-run here\n");
		return getenv("TEST_NO_SKIP") != NULL;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		tap_case(kinds[i].file, played, (void *)(uintptr_t)i);
	return tap_done();
}
