/* SPDX-License-Identifier: MIT */
/*
 * The input device on real evdev nodes, which uinput makes: what the guest can ask, events, the grab, LEDs, what
 * happens when the guest or the program is too slow, unplugging. Needs /dev/uinput and root, so tests/guest/input.sh
 * runs it inside User Mode Linux.
 */
#include "input-driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/uinput.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

/* --- devices --- */

enum kind { KEYBOARD, MOUSE, TABLET, TOUCH };

struct device {
	int fd; /* of /dev/uinput */
	char node[64], option[96];
};

static void allow(int fd, unsigned long set, unsigned type, const int *codes)
{
	CHECK_SYS(ioctl(fd, UI_SET_EVBIT, type));
	for (; *codes >= 0; codes++)
		CHECK_SYS(ioctl(fd, set, *codes));
}

#define ALLOW(fd, set, type, ...) allow(fd, set, type, (const int[]){__VA_ARGS__, -1})

static void axis(int fd, uint16_t code, int min, int max, int fuzz, int flat, int res)
{
	struct uinput_abs_setup setup = {.code = code,
		.absinfo = {.minimum = min, .maximum = max, .fuzz = fuzz, .flat = flat, .resolution = res}};

	CHECK_SYS(ioctl(fd, UI_ABS_SETUP, &setup));
}

static void allow_all(int fd, enum kind kind)
{
	switch (kind) {
	case KEYBOARD:
		ALLOW(fd, UI_SET_KEYBIT, EV_KEY, KEY_ESC, KEY_A, KEY_B, KEY_C, KEY_POWER, KEY_MAX);
		ALLOW(fd, UI_SET_LEDBIT, EV_LED, LED_NUML, LED_CAPSL);
		ALLOW(fd, UI_SET_MSCBIT, EV_MSC, MSC_SCAN);
		ALLOW(fd, UI_SET_SNDBIT, EV_SND, SND_TONE);
		ALLOW(fd, UI_SET_SWBIT, EV_SW, SW_LID, SW_TABLET_MODE);
		CHECK_SYS(ioctl(fd, UI_SET_EVBIT, EV_REP));
		break;
	case MOUSE:
		ALLOW(fd, UI_SET_KEYBIT, EV_KEY, BTN_LEFT, BTN_RIGHT);
		ALLOW(fd, UI_SET_RELBIT, EV_REL, REL_X, REL_Y, REL_WHEEL, REL_WHEEL_HI_RES);
		break;
	case TABLET:
		ALLOW(fd, UI_SET_KEYBIT, EV_KEY, BTN_TOUCH, BTN_TOOL_PEN);
		CHECK_SYS(ioctl(fd, UI_SET_EVBIT, EV_ABS));
		axis(fd, ABS_X, -1000, 30000, 4, 2, 100);
		axis(fd, ABS_Y, 0, 20000, 0, 0, 100);
		axis(fd, ABS_PRESSURE, 0, 8191, 0, 0, 0);
		ALLOW(fd, UI_SET_FFBIT, EV_FF, FF_RUMBLE, FF_GAIN);
		break;
	case TOUCH:
		ALLOW(fd, UI_SET_KEYBIT, EV_KEY, BTN_TOUCH);
		CHECK_SYS(ioctl(fd, UI_SET_EVBIT, EV_ABS));
		axis(fd, ABS_X, 0, 1919, 0, 0, 10);
		axis(fd, ABS_Y, 0, 1079, 0, 0, 10);
		axis(fd, ABS_MT_SLOT, 0, 4, 0, 0, 0);
		axis(fd, ABS_MT_TRACKING_ID, 0, 65535, 0, 0, 0);
		axis(fd, ABS_MT_POSITION_X, 0, 1919, 0, 0, 10);
		axis(fd, ABS_MT_POSITION_Y, 0, 1079, 0, 0, 10);
		CHECK_SYS(ioctl(fd, UI_SET_PROPBIT, INPUT_PROP_DIRECT));
		break;
	}
}

/* Waits for the node, whose name sysfs tells. */
static void find_node(struct device *u)
{
	struct timespec pause = {.tv_nsec = 2000000};
	int64_t end = fe_now_ms() + fe_limit_ms;
	char name[32], path[96];
	struct dirent *e;
	DIR *dir;

	CHECK_SYS(ioctl(u->fd, UI_GET_SYSNAME(sizeof(name)), name));
	snprintf(path, sizeof(path), "/sys/devices/virtual/input/%s", name);
	dir = opendir(path);
	CHECK(dir);
	while ((e = readdir(dir)) && strncmp(e->d_name, "event", 5) != 0)
		;
	CHECK(e);
	snprintf(u->node, sizeof(u->node), "/dev/input/%.20s", e->d_name);
	closedir(dir);
	while (access(u->node, R_OK | W_OK) < 0) {
		if (fe_now_ms() > end)
			FAIL("%s: expected it to appear", u->node);
		nanosleep(&pause, NULL);
	}
	snprintf(u->option, sizeof(u->option), "--evdev-path=%s", u->node);
}

static void plug(struct device *u, enum kind kind)
{
	static const char *const names[] = {"Test keyboard", "Test mouse", "Test tablet", "Test touchscreen"};
	struct uinput_setup setup = {.id = {BUS_USB, 0x1234, (uint16_t)(0x100 + kind), 7},
		.ff_effects_max = kind == TABLET ? 4 : 0};

	u->fd = open("/dev/uinput", O_RDWR | O_CLOEXEC);
	CHECK(u->fd >= 0);
	strcpy(setup.name, names[kind]);
	allow_all(u->fd, kind);
	CHECK_SYS(ioctl(u->fd, UI_DEV_SETUP, &setup));
	CHECK_SYS(ioctl(u->fd, UI_DEV_CREATE));
	find_node(u);
}

static void unplug(struct device *u)
{
	CHECK_SYS(ioctl(u->fd, UI_DEV_DESTROY));
	close(u->fd);
}

static void emit(struct device *u, unsigned type, unsigned code, int value)
{
	struct input_event ev = {.type = (uint16_t)type, .code = (uint16_t)code, .value = value};

	CHECK_EQ(write(u->fd, &ev, sizeof(ev)), sizeof(ev));
}

static void emit_one(struct device *u, unsigned type, unsigned code, int value)
{
	emit(u, type, code, value);
	emit(u, EV_SYN, SYN_REPORT, 0);
}

/* What the driver of the device was asked to do. */
static void asked(struct device *u, unsigned type, unsigned code, int value)
{
	struct input_event ev;

	do {
		if (!fe_poll(u->fd, POLLIN, fe_limit_ms))
			FAIL("expected %u:%u=%d to be set on the device", type, code, value);
		CHECK_EQ(read(u->fd, &ev, sizeof(ev)), sizeof(ev));
	} while (ev.type == EV_SYN || ev.type == EV_MSC); /* what we sent ourselves */
	if (ev.type != type || ev.code != code || ev.value != value)
		FAIL("expected %u:%u=%d to be set on the device, got %u:%u=%d", type, code, value, ev.type,
			ev.code, ev.value);
}

/* --- the host's own reader --- */

static int reader(const struct device *u)
{
	int fd = open(u->node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void reads(int fd, unsigned type, unsigned code, int value)
{
	struct input_event ev[2];

	CHECK_EQ(read(fd, ev, sizeof(ev)), sizeof(ev));
	CHECK_EQ(ev[0].type, type);
	CHECK_EQ(ev[0].code, code);
	CHECK_EQ(ev[0].value, value);
	CHECK_EQ(ev[1].type, EV_SYN);
}

static void reads_nothing(int fd)
{
	struct input_event ev;

	CHECK(read(fd, &ev, sizeof(ev)) < 0 && errno == EAGAIN);
}

/* --- */

static void up(struct driver *d)
{
	driver_probe(d);
	driver_up(d, 64, 32);
	fe_barrier(&d->fe);
}

static void start(struct driver *d, const struct fe_mode *m, struct device *u, enum kind kind)
{
	plug(u, kind);
	fe_start(&d->fe, m, FE_ARGS("input", u->option, "--log-level=info"));
}

static void check_bits(struct driver *d, int fd, unsigned type)
{
	struct virtio_input_config c;
	uint8_t want[KEY_CNT / 8] = {0};

	if (type == EV_REP) /* the kernel does not tell its codes */
		want[0] = 3;
	else
		CHECK(ioctl(fd, EVIOCGBIT(type, sizeof(want)), want) >= 0);
	driver_ask(d, VIRTIO_INPUT_CFG_EV_BITS, type, &c);
	CHECK_MEM(c.u.bitmap, want, sizeof(want));
	CHECK(!c.size || want[c.size - 1]);
}

static void check_axis(struct driver *d, int fd, unsigned code)
{
	struct virtio_input_config c;
	struct input_absinfo want;

	CHECK_SYS(ioctl(fd, EVIOCGABS(code), &want));
	CHECK_EQ(driver_ask(d, VIRTIO_INPUT_CFG_ABS_INFO, code, &c), 20);
	CHECK_EQ((int32_t)le32toh(c.u.abs.min), want.minimum);
	CHECK_EQ(le32toh(c.u.abs.max), want.maximum);
	CHECK_EQ(le32toh(c.u.abs.fuzz), want.fuzz);
	CHECK_EQ(le32toh(c.u.abs.flat), want.flat);
	CHECK_EQ(le32toh(c.u.abs.res), want.resolution);
}

/* All that the guest can ask is what the kernel says of the node. */
static void described(const struct fe_mode *m)
{
	struct virtio_input_config c;
	struct driver d;
	struct device u;
	char name[128] = "";
	uint8_t types[8] = {0}, props[8] = {0};
	int kind, fd;

	for (kind = KEYBOARD; kind <= TOUCH; kind++) {
		start(&d, m, &u, (enum kind)kind);
		fd = reader(&u);
		CHECK(ioctl(fd, EVIOCGNAME(sizeof(name)), name) > 0);
		CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_NAME, 0, &c), strlen(name));
		CHECK_MEM(c.u.string, name, strlen(name));
		CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_DEVIDS, 0, &c), 8);
		CHECK_EQ(le16toh(c.u.ids.bustype), BUS_USB);
		CHECK_EQ(le16toh(c.u.ids.vendor), 0x1234);
		CHECK_EQ(le16toh(c.u.ids.product), 0x100 + kind);
		CHECK_EQ(le16toh(c.u.ids.version), 7);
		CHECK(ioctl(fd, EVIOCGPROP(sizeof(props)), props) >= 0);
		CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_PROP_BITS, 0, &c), kind == TOUCH);
		CHECK_MEM(c.u.bitmap, props, sizeof(props));
		CHECK(ioctl(fd, EVIOCGBIT(0, sizeof(types)), types) >= 0);
		for (unsigned type = EV_SYN + 1; type < EV_CNT; type++)
			if (types[type / 8] >> type % 8 & 1)
				check_bits(&d, fd, type);
			else
				CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_EV_BITS, type, &c), 0);
		for (unsigned code = 0; code < ABS_CNT; code++)
			if (driver_has(&d, EV_ABS, code))
				check_axis(&d, fd, code);
			else
				CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ABS_INFO, code, &c), 0);
		close(fd);
		fe_end(&d.fe);
		unplug(&u);
	}
}

static void events(const struct fe_mode *m)
{
	struct driver d;
	struct device u;

	start(&d, m, &u, KEYBOARD);
	emit_one(&u, EV_KEY, KEY_B, 1); /* before a driver listens: the host's */
	emit_one(&u, EV_KEY, KEY_B, 0);
	up(&d);
	for (int i = 0; i < 200; i++) {
		emit(&u, EV_MSC, MSC_SCAN, 0x70004);
		emit_one(&u, EV_KEY, KEY_A, !(i & 1));
		driver_expect(&d, EV_MSC, MSC_SCAN, 0x70004);
		driver_expect_one(&d, EV_KEY, KEY_A, !(i & 1));
	}
	emit_one(&u, EV_KEY, KEY_A, 1);
	driver_expect_one(&d, EV_KEY, KEY_A, 1);
	driver_quiet(&d, 600); /* the host's repetitions are not the guest's */
	emit_one(&u, EV_KEY, KEY_A, 0);
	driver_expect_one(&d, EV_KEY, KEY_A, 0);
	fe_end(&d.fe);
	unplug(&u);
}

static void contacts(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	unsigned lifted = 0;
	bool released = false;

	start(&d, m, &u, TOUCH);
	driver_probe(&d);
	driver_up(&d, 4, 4);
	fe_barrier(&d.fe);
	for (int round = 0; round < 21; round++) {
		for (int i = 0; i < 5; i++) {
			emit(&u, EV_ABS, ABS_MT_SLOT, i);
			emit(&u, EV_ABS, ABS_MT_TRACKING_ID, round & 1 ? -1 : round * 5 + i);
			emit(&u, EV_ABS, ABS_MT_POSITION_X, 100 * i + round + 1);
			emit(&u, EV_ABS, ABS_MT_POSITION_Y, 200 * i + round + 1);
		}
		emit_one(&u, EV_KEY, BTN_TOUCH, !(round & 1));
		for (int i = 0; i < 5; i++) {
			if (round || i) /* the kernel leaves out what does not change */
				driver_expect(&d, EV_ABS, ABS_MT_SLOT, i);
			driver_expect(&d, EV_ABS, ABS_MT_TRACKING_ID, round & 1 ? -1 : round * 5 + i);
			driver_expect(&d, EV_ABS, ABS_MT_POSITION_X, 100 * i + round + 1);
			driver_expect(&d, EV_ABS, ABS_MT_POSITION_Y, 200 * i + round + 1);
		}
		driver_expect_one(&d, EV_KEY, BTN_TOUCH, !(round & 1));
	}
	unplug(&u); /* five fingers are lifted, and a key goes up: the kernel may have time to say that itself, or not */
	while (lifted != 5 || !released) {
		struct ev ev = driver_next(&d);

		if (ev.type == EV_ABS && ev.code == ABS_MT_TRACKING_ID) {
			CHECK_EQ(ev.value, -1);
			lifted++;
		}
		released |= ev.type == EV_KEY && ev.code == BTN_TOUCH && ev.value == 0;
	}
	driver_expect_syn(&d);
	driver_quiet(&d, 20);
	fe_end(&d.fe);
}

/* A new driver is told of axes and switches. */
static void state(const struct fe_mode *m)
{
	struct driver d;
	struct device u;

	start(&d, m, &u, KEYBOARD);
	emit_one(&u, EV_SW, SW_TABLET_MODE, 1);
	up(&d);
	driver_expect_one(&d, EV_SW, SW_TABLET_MODE, 1);
	driver_quiet(&d, 20);
	fe_end(&d.fe);
	unplug(&u);

	start(&d, m, &u, TABLET);
	emit(&u, EV_ABS, ABS_X, -500);
	emit_one(&u, EV_ABS, ABS_PRESSURE, 9);
	up(&d);
	driver_expect(&d, EV_ABS, ABS_X, -500);
	driver_expect_one(&d, EV_ABS, ABS_PRESSURE, 9);
	driver_quiet(&d, 20);
	fe_end(&d.fe);
	unplug(&u);
}

static void grab(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	int fd;

	start(&d, m, &u, MOUSE);
	fd = reader(&u);
	emit_one(&u, EV_REL, REL_X, 1);
	reads(fd, EV_REL, REL_X, 1);
	up(&d);
	emit_one(&u, EV_REL, REL_X, 2);
	reads_nothing(fd);
	driver_expect_one(&d, EV_REL, REL_X, 2);
	fe_queue_stop(d.events);
	emit_one(&u, EV_REL, REL_X, 3);
	reads(fd, EV_REL, REL_X, 3);
	fe_end(&d.fe);
	emit_one(&u, EV_REL, REL_X, 4);
	reads(fd, EV_REL, REL_X, 4);
	close(fd);

	fe_start(&d.fe, m, FE_ARGS("input", u.option, "--no-grab"));
	fd = reader(&u);
	up(&d);
	emit_one(&u, EV_REL, REL_X, 5);
	reads(fd, EV_REL, REL_X, 5);
	driver_expect_one(&d, EV_REL, REL_X, 5);
	fe_end(&d.fe);
	close(fd);
	unplug(&u);
}

/* Until fd sees nothing any more. What comes just behind the grab may be nobody's: not the guest's either. */
static void await_grab(struct driver *d, struct device *u, int fd)
{
	int64_t end = fe_now_ms() + fe_limit_ms;
	struct input_event seen;
	struct ev ev;

	for (emit_one(u, EV_MSC, MSC_SCAN, 1); read(fd, &seen, sizeof(seen)) > 0;
		emit_one(u, EV_MSC, MSC_SCAN, 1)) {
		while (read(fd, &seen, sizeof(seen)) > 0)
			;
		CHECK(fe_now_ms() < end);
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	fe_barrier(&d->fe);
	emit_one(u, EV_MSC, MSC_SCAN, 2);
	do
		ev = driver_next(d);
	while (ev.type != EV_MSC || ev.value != 2);
	driver_expect_syn(d);
}

/* The host shall see the release of what it saw pressed. */
static void grab_waits(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	int fd;

	start(&d, m, &u, KEYBOARD);
	fd = reader(&u);
	emit_one(&u, EV_KEY, KEY_A, 1);
	reads(fd, EV_KEY, KEY_A, 1);
	up(&d);
	emit_one(&u, EV_KEY, KEY_B, 1);
	reads(fd, EV_KEY, KEY_B, 1);
	emit_one(&u, EV_KEY, KEY_A, 0);
	reads(fd, EV_KEY, KEY_A, 0);
	driver_quiet(&d, 20);
	emit_one(&u, EV_KEY, KEY_B, 0);
	reads(fd, EV_KEY, KEY_B, 0);
	driver_quiet(&d, 20);
	emit_one(&u, EV_KEY, KEY_C, 1);
	driver_expect_one(&d, EV_KEY, KEY_C, 1);
	reads_nothing(fd);
	emit_one(&u, EV_KEY, KEY_C, 0);
	driver_expect_one(&d, EV_KEY, KEY_C, 0);

	/* a key that hangs does not hold up for ever */
	fe_queue_stop(d.events);
	emit_one(&u, EV_KEY, KEY_POWER, 1);
	reads(fd, EV_KEY, KEY_POWER, 1);
	driver_probe(&d);
	fe_queue_clear(d.events, FE_FRESH);
	fe_queue_send(d.events, d.fe.mode.packed ? 0x80008000u : 0);
	fe_queue_enable(d.events, true);
	for (unsigned i = 0; i < d.nbufs; i++)
		driver_give(&d, i);
	fe_flush(d.events);
	await_grab(&d, &u, fd);
	fe_end(&d.fe);
	close(fd);
	unplug(&u);
}

static void grab_refused(const struct fe_mode *m)
{
	struct fe_process p;
	struct device u;
	int fd;

	(void)m;
	plug(&u, MOUSE);
	fd = reader(&u);
	CHECK_SYS(ioctl(fd, EVIOCGRAB, 1));
	fe_process_start(&p, -1, FE_ARGS("input", "--socket-path=x", u.option));
	fe_process_logs(&p, "cannot be grabbed: Device or resource busy");
	fe_process_exits(&p, 1);
	close(fd);
	unplug(&u);
}

static void outputs(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	int fd;

	start(&d, m, &u, KEYBOARD);
	fd = open(u.node, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, &(struct input_event){.type = EV_LED, .code = LED_CAPSL, .value = 1},
			 sizeof(struct input_event)),
		sizeof(struct input_event));
	close(fd);
	asked(&u, EV_LED, LED_CAPSL, 1);
	up(&d);
	driver_set(&d, EV_LED, LED_NUML, 1);
	asked(&u, EV_LED, LED_NUML, 1);
	driver_set(&d, EV_LED, LED_CAPSL, 0);
	asked(&u, EV_LED, LED_CAPSL, 0);
	driver_set(&d, EV_LED, LED_MAIL, 1); /* not there */
	driver_set(&d, EV_SND, SND_TONE, 440);
	asked(&u, EV_SND, SND_TONE, 440);
	driver_set(&d, EV_REP, REP_DELAY, 700);
	asked(&u, EV_REP, REP_DELAY, 700);
	driver_quiet(&d, 50); /* no echo */
	emit_one(&u, EV_KEY, KEY_A, 1);
	driver_expect_one(&d, EV_KEY, KEY_A, 1);
	/* the host gets it back as it was */
	fe_end(&d.fe);
	asked(&u, EV_LED, LED_NUML, 0);
	asked(&u, EV_LED, LED_CAPSL, 1);
	asked(&u, EV_REP, REP_DELAY, 250);
	asked(&u, EV_SND, SND_TONE, 0);
	unplug(&u);

	start(&d, m, &u, TABLET);
	up(&d);
	driver_set(&d, EV_FF, FF_GAIN, 0x8000);
	asked(&u, EV_FF, FF_GAIN, 0x8000);
	fe_end(&d.fe);
	unplug(&u);
}

/* The same driver after a pause is told what is different. */
static void paused(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	uint32_t base;

	start(&d, m, &u, KEYBOARD);
	up(&d);
	emit_one(&u, EV_KEY, KEY_A, 1);
	emit_one(&u, EV_KEY, KEY_B, 1);
	driver_expect_one(&d, EV_KEY, KEY_A, 1);
	driver_expect_one(&d, EV_KEY, KEY_B, 1);
	base = fe_queue_stop(d.events);
	emit_one(&u, EV_KEY, KEY_A, 0);
	emit_one(&u, EV_KEY, KEY_C, 1);
	emit_one(&u, EV_KEY, KEY_C, 0);
	emit_one(&u, EV_SW, SW_LID, 1);
	emit_one(&u, EV_KEY, KEY_B, 0);
	fe_queue_send(d.events, base);
	fe_queue_enable(d.events, true);
	driver_expect(&d, EV_KEY, KEY_A, 0);
	driver_expect(&d, EV_KEY, KEY_B, 0);
	driver_expect_one(&d, EV_SW, SW_LID, 1);
	driver_quiet(&d, 20);
	emit_one(&u, EV_KEY, KEY_C, 1);
	driver_expect_one(&d, EV_KEY, KEY_C, 1);
	fe_end(&d.fe);
	unplug(&u);
}

static bool dropped(struct driver *d)
{
	CLEANUP_FREE char *log = fe_process_log(&d->fe.process);

	return log && strstr(log, "the guest does not take its events");
}

/* The guest takes nothing while thousands of reports come. */
static void guest_overflow(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	bool a = false, b = false, esc = true;
	unsigned reports = 0;
	struct ev ev;

	start(&d, m, &u, KEYBOARD);
	driver_probe(&d);
	driver_up(&d, 64, 2);
	fe_barrier(&d.fe);
	d.hold = true;
	emit(&u, EV_KEY, KEY_ESC, 1);
	emit(&u, EV_KEY, KEY_POWER, 1);
	emit_one(&u, EV_KEY, KEY_MAX, 1);
	driver_expect(&d, EV_KEY, KEY_ESC, 1);
	driver_expect(&d, EV_KEY, KEY_POWER, 1);
	for (int64_t end = fe_now_ms() + 2 * fe_limit_ms; !dropped(&d);) {
		CHECK(fe_now_ms() < end);
		for (int i = 0; i < 64; i++) {
			emit_one(&u, EV_KEY, KEY_A, i & 1);
			if (i % 8 == 0) /* it reads meanwhile, or the kernel would drop most of them */
				nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
		}
	}
	emit(&u, EV_KEY, KEY_ESC, 0);
	emit(&u, EV_KEY, KEY_A, 1);
	emit_one(&u, EV_KEY, KEY_B, 1);
	d.hold = false;
	driver_give(&d, 0);
	driver_give(&d, 1);
	fe_flush(d.events);
	driver_expect_one(&d, EV_KEY, KEY_MAX, 1); /* what was begun is finished */
	do {
		ev = driver_next(&d);
		reports += ev.type == EV_SYN && ev.code == SYN_REPORT;
	} while (ev.type != EV_SYN || ev.code != SYN_DROPPED);
	driver_expect_syn(&d);
	CHECK_EQ(reports, 0);
	do { /* A comes again and again, if not all was read when it was dropped */
		ev = driver_next(&d);
		if (ev.type != EV_KEY)
			continue;
		a = ev.code == KEY_A ? ev.value : a;
		b = ev.code == KEY_B ? ev.value : b;
		esc = ev.code == KEY_ESC ? ev.value : esc;
	} while (!a || !b || esc);
	fe_end(&d.fe);
	unplug(&u);
}

/* We take nothing while the kernel's buffer runs over. */
static void host_overflow(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	bool a = false, b = false;
	struct ev ev;

	start(&d, m, &u, KEYBOARD);
	up(&d);
	emit_one(&u, EV_KEY, KEY_B, 1);
	driver_expect_one(&d, EV_KEY, KEY_B, 1);
	fe_process_signal(&d.fe.process, SIGSTOP);
	for (int i = 0; i < 1000; i++)
		emit_one(&u, EV_KEY, KEY_C, !(i & 1));
	emit_one(&u, EV_KEY, KEY_A, 1);
	emit_one(&u, EV_KEY, KEY_B, 0);
	for (int i = 0; i < 1000; i++)
		emit_one(&u, EV_KEY, KEY_C, !(i & 1));
	fe_process_signal(&d.fe.process, SIGCONT);
	while (!a || !b) {
		ev = driver_next(&d);
		a |= ev.type == EV_KEY && ev.code == KEY_A && ev.value == 1;
		b |= ev.type == EV_KEY && ev.code == KEY_B && ev.value == 0;
	}
	emit_one(&u, EV_KEY, KEY_ESC, 1);
	do
		ev = driver_next(&d);
	while (ev.type != EV_KEY || ev.code != KEY_ESC);
	driver_expect_syn(&d);
	fe_end(&d.fe);
	unplug(&u);
}

/* Unplugged, plugged in again, at the same path; /dev/input itself goes and comes with it. */
static void replugged(const struct fe_mode *m)
{
	struct driver d;
	struct device u;
	char option[96];
	unsigned fds = 0;
	int fd;

	start(&d, m, &u, KEYBOARD);
	strcpy(option, u.option);
	up(&d);
	for (int i = 0; i < 3; i++) {
		emit_one(&u, EV_KEY, KEY_A, 1);
		driver_expect_one(&d, EV_KEY, KEY_A, 1);
		unplug(&u);
		driver_expect_one(&d, EV_KEY, KEY_A, 0);
		driver_set(&d, EV_LED, LED_CAPSL, 1);
		plug(&u, KEYBOARD);
		CHECK_STR(u.option, option);
		fd = reader(&u);
		await_grab(&d, &u, fd);
		close(fd);
		emit_one(&u, EV_KEY, KEY_A, 1);
		driver_expect_one(&d, EV_KEY, KEY_A, 1);
		driver_set(&d, EV_LED, LED_NUML, 1);
		asked(&u, EV_LED, LED_NUML, 1);
		emit_one(&u, EV_KEY, KEY_A, 0);
		driver_expect_one(&d, EV_KEY, KEY_A, 0);
		fds = fds ? fds : fe_process_fds(&d.fe.process);
		CHECK_EQ(fe_process_fds(&d.fe.process), fds);
	}
	unplug(&u);
	fe_process_logs(&d.fe.process, "unplugged; waiting for it to come back");
	fe_end(&d.fe); /* unplugged as it is */
}

/* Another device at the same path is not taken while a driver listens, and is afterwards. */
static void replaced(const struct fe_mode *m)
{
	struct virtio_input_config c;
	struct fe_process p;
	struct driver d;
	struct device u;
	char socket[128];

	plug(&u, KEYBOARD);
	fe_init(&d.fe, m);
	snprintf(socket, sizeof(socket), "%s/socket", fe_tmpdir());
	fe_spawn_path(&d.fe, socket, FE_ARGS("input", u.option, "--log-level=info"));
	fe_handshake(&d.fe);
	fe_memory_default(&d.fe);
	up(&d);
	unplug(&u);
	fe_process_logs(&d.fe.process, "unplugged");
	plug(&u, MOUSE);
	fe_process_logs(
		&d.fe.process, "now is another device, \"Test mouse\"; waiting for \"Test keyboard\"");
	emit_one(&u, EV_REL, REL_X, 1);
	p = d.fe.process;
	fe_close(&d.fe);
	fe_init(&d.fe, m);
	d.fe.process = p;
	fe_connect(&d.fe, socket);
	fe_process_logs(&p, "\"Test mouse\" is back");
	fe_handshake(&d.fe);
	fe_memory_default(&d.fe);
	CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_NAME, 0, &c), strlen("Test mouse"));
	up(&d);
	emit_one(&u, EV_REL, REL_X, 2);
	driver_expect_one(&d, EV_REL, REL_X, 2);
	/* unplugged while no driver listens */
	fe_queue_stop(d.events);
	unplug(&u);
	fe_process_logs(&p, "unplugged; waiting for it to come back");
	plug(&u, MOUSE);
	driver_probe(&d);
	fe_process_signal(&d.fe.process, SIGTERM);
	fe_process_exits(&d.fe.process, 0);
	fe_close(&d.fe);
	unplug(&u);
}

/* "plug KIND": plugs a device in until standard input ends, for those who record what the node says (umockdev). */
static int plug_and_wait(const char *kind)
{
	struct device u;
	char byte;

	plug(&u, (enum kind)atoi(kind));
	puts(u.node);
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3)
		return plug_and_wait(argv[2]);
	if (access("/dev/uinput", R_OK | W_OK) < 0) {
		printf("1..0 # SKIP /dev/uinput: %s\n", strerror(errno));
		return 0;
	}
	fe_case("the guest can ask all that the kernel knows", described, NULL);
	fe_each_layout("events", events);
	fe_each_layout("contacts, over many refills", contacts);
	fe_case("state of switches and axes", state, NULL);
	fe_case("grab", grab, NULL);
	fe_case("a grab waits for keys that are held", grab_waits, NULL);
	fe_case("a device that somebody else has grabbed", grab_refused, NULL);
	fe_case("LEDs, sounds, repeat rate, force feedback", outputs, NULL);
	fe_case("a pause", paused, NULL);
	fe_each_layout("a guest that does not take its events", guest_overflow);
	fe_case("a program that does not run", host_overflow, NULL);
	fe_case("unplugged and plugged in again", replugged, NULL);
	fe_case("replaced by another device", replaced, NULL);
	return tap_done();
}
