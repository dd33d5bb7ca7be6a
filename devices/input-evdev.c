/* SPDX-License-Identifier: MIT */
/*
 * An evdev node as the host's end, through libevdev.
 *
 * The device belongs to the host until a guest's driver listens: only then is it grabbed and read, and what it sent
 * before is not the guest's. A grab waits until all keys are up, because the host would not see their release; not
 * for long, a key may hang. When the driver goes, the host gets its device back as it was, LEDs and repeat rate too.
 *
 * A device that is unplugged is waited for: inotify says when something appears on the way to its path, of which
 * any part may be missing; a slow timer helps where inotify is not to be had or sees nothing. What comes back must
 * be the same device, as the guest knows it; another one is taken only while no driver listens.
 */
#include <errno.h>
#include <fcntl.h>
#include <libevdev/libevdev.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "input-host.h"
#include "log.h"
#include "util.h"

#define RETRY_NS  (UINT64_C(1000) * 1000 * 1000)
#define SETTLE_NS (UINT64_C(2000) * 1000 * 1000)

enum { READ_BUDGET = 1024, LED_BYTES = LED_CNT / 8 };

struct input_evdev {
	struct input_host h;
	const char *path;
	bool grab;

	struct libevdev *dev; /* NULL: unplugged */
	int fd;
	bool writable, grabbed, reading;
	bool syncing; /* libevdev tells what changed while the kernel dropped events */
	struct watch watch;
	struct task again;   /* the budget of a turn was spent */
	struct timer settle; /* while the grab waits for keys */

	int notify; /* inotify while unplugged, or -1 */
	struct watch appear;
	struct timer retry;
	bool foreign; /* another device is at our path, and that was said */

	/* as the host had them, of those the guest changed */
	uint8_t led_set[LED_BYTES], led_was[LED_BYTES];
	bool rep_set, snd_set;
	int rep_was[REP_CNT];
};

static void wait_for_path(struct input_evdev *d);

static struct input_evdev *evdev_of(struct input_host *h)
{
	return container_of(h, struct input_evdev, h);
}

/* What it is, and how it is now */

static void describe_codes(struct input_model *m, const struct libevdev *dev, unsigned type)
{
	int code, max = libevdev_event_type_get_max(type);

	for (code = 0; code <= max; code++)
		if (libevdev_has_event_code(dev, type, (unsigned)code))
			input_model_add(m, type, (unsigned)code);
}

static void describe(const struct input_evdev *d, struct input_model *m)
{
	const struct libevdev *dev = d->dev;
	const char *serial = d->h.serial ? d->h.serial : libevdev_get_uniq(dev);
	unsigned i;

	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "%s", libevdev_get_name(dev));
	snprintf(m->serial, sizeof(m->serial), "%s", serial ? serial : "");
	m->id = (struct input_id){
		.bustype = (uint16_t)libevdev_get_id_bustype(dev),
		.vendor = (uint16_t)libevdev_get_id_vendor(dev),
		.product = (uint16_t)libevdev_get_id_product(dev),
		.version = (uint16_t)libevdev_get_id_version(dev),
	};
	for (i = 0; i < INPUT_PROP_CNT; i++)
		if (libevdev_has_property(dev, i))
			m->props[i / 8] |= (uint8_t)(1 << i % 8);
	for (i = EV_SYN + 1; i < EV_CNT; i++)
		if (libevdev_has_event_type(dev, i))
			describe_codes(m, dev, i);
	for (i = 0; i < ABS_CNT; i++)
		if (input_model_has(m, EV_ABS, i))
			m->abs[i] = *libevdev_get_abs_info(dev, i);
}

static void read_contacts(const struct libevdev *dev, struct input_state *s)
{
	int slots = libevdev_get_num_slots(dev), slot;
	unsigned i;

	for (slot = 0; slot < MIN(slots, (int)INPUT_SLOTS); slot++)
		for (i = 0; i < INPUT_MT_CNT; i++)
			if (libevdev_has_event_code(dev, EV_ABS, INPUT_MT_FIRST + i))
				s->contact[slot][i] =
					libevdev_get_slot_value(dev, (unsigned)slot, INPUT_MT_FIRST + i);
	s->slot = MAX(libevdev_get_current_slot(dev), 0);
}

static void read_state(const struct libevdev *dev, struct input_state *s)
{
	unsigned i;

	input_state_init(s);
	for (i = 0; i < KEY_CNT; i++)
		if (libevdev_get_event_value(dev, EV_KEY, i))
			s->key[i / 8] |= (uint8_t)(1 << i % 8);
	for (i = 0; i < SW_CNT; i++)
		if (libevdev_get_event_value(dev, EV_SW, i))
			s->sw[i / 8] |= (uint8_t)(1 << i % 8);
	for (i = 0; i < ABS_CNT; i++)
		if (i < INPUT_MT_FIRST || libevdev_get_num_slots(dev) < 0)
			s->abs[i] = libevdev_get_event_value(dev, EV_ABS, i);
	if (libevdev_get_num_slots(dev) > 0)
		read_contacts(dev, s);
}

/* Grab */

static int set_grab(struct input_evdev *d, bool on)
{
	int err = 0;

	if (d->grab && d->dev && d->grabbed != on)
		err = libevdev_grab(d->dev, on ? LIBEVDEV_GRAB : LIBEVDEV_UNGRAB);
	if (!err)
		d->grabbed = d->grab && on;
	return err;
}

static bool keys_down(const struct libevdev *dev)
{
	unsigned i;

	for (i = 0; i < KEY_CNT; i++)
		if (libevdev_get_event_value(dev, EV_KEY, i))
			return true;
	return false;
}

/* Drops what the device sent so far and learns its state. */
static void catch_up(struct input_evdev *d)
{
	struct input_event ev;

	d->syncing = false;
	if (libevdev_next_event(d->dev, LIBEVDEV_READ_FLAG_FORCE_SYNC, &ev) < 0)
		return;
	while (libevdev_next_event(d->dev, LIBEVDEV_READ_FLAG_SYNC, &ev) == LIBEVDEV_READ_STATUS_SYNC)
		;
}

/* From here on events are the guest's. */
static void settled(struct input_evdev *d)
{
	struct input_state now;
	int err = set_grab(d, true);

	timer_disarm(&d->settle);
	if (err)
		log_warn("%s: cannot be grabbed: %s; the host may see its events, or take them", d->path,
			strerror(-err));
	d->reading = true;
	catch_up(d); /* what came before the grab was the host's */
	read_state(d->dev, &now);
	input_backlog_sync(d->h.backlog, &now);
	d->h.news(&d->h);
}

static void settle_expired(struct timer *t)
{
	struct input_evdev *d = container_of(t, struct input_evdev, settle);

	if (d->dev && !d->reading)
		settled(d);
}

/* Outputs */

static void write_event(struct input_evdev *d, unsigned type, unsigned code, int value)
{
	struct input_event ev[2] = {{.type = (uint16_t)type, .code = (uint16_t)code, .value = value},
		{.type = EV_SYN, .code = SYN_REPORT}};

	if (d->dev && d->writable && write(d->fd, ev, sizeof(ev)) < 0)
		log_guest_warn("%s: cannot set %s: %s", d->path, libevdev_event_code_get_name(type, code),
			strerror(errno));
}

static void remember(struct input_evdev *d, unsigned type, unsigned code)
{
	uint8_t bit = (uint8_t)(1 << code % 8);

	if (type == EV_LED && code < LED_CNT && !(d->led_set[code / 8] & bit)) {
		d->led_set[code / 8] |= bit;
		if (libevdev_get_event_value(d->dev, EV_LED, code))
			d->led_was[code / 8] |= bit;
	}
	if (type == EV_REP && !d->rep_set)
		d->rep_set =
			libevdev_get_repeat(d->dev, &d->rep_was[REP_DELAY], &d->rep_was[REP_PERIOD]) == 0;
	d->snd_set |= type == EV_SND;
}

static void evdev_output(struct input_host *h, const struct input_ev *ev)
{
	struct input_evdev *d = evdev_of(h);

	if (!d->dev)
		return;
	remember(d, ev->type, ev->code);
	write_event(d, ev->type, ev->code, ev->value);
}

static void forget_outputs(struct input_evdev *d)
{
	memset(d->led_set, 0, sizeof(d->led_set));
	memset(d->led_was, 0, sizeof(d->led_was));
	d->rep_set = d->snd_set = false;
}

static void restore_outputs(struct input_evdev *d)
{
	unsigned i;

	for (i = 0; i < LED_CNT; i++)
		if (d->led_set[i / 8] >> i % 8 & 1)
			write_event(d, EV_LED, i, d->led_was[i / 8] >> i % 8 & 1);
	for (i = 0; d->rep_set && i < REP_CNT; i++)
		write_event(d, EV_REP, i, d->rep_was[i]);
	for (i = 0; d->snd_set && i < SND_CNT; i++)
		if (libevdev_has_event_code(d->dev, EV_SND, i))
			write_event(d, EV_SND, i, 0);
	forget_outputs(d);
}

/* Reading */

static void let_go(struct input_evdev *d)
{
	watch_del(&d->watch);
	timer_disarm(&d->settle);
	loop_cancel(d->h.loop, &d->again);
	d->reading = false;
}

static void shut(struct input_evdev *d)
{
	let_go(d);
	libevdev_free(d->dev);
	d->dev = NULL;
	d->grabbed = false;
	fd_close(&d->fd);
}

static void unplugged(struct input_evdev *d, int err)
{
	log_warn("%s: %s; waiting for it to come back", d->path,
		err == -ENODEV ? "unplugged" : strerror(-err));
	shut(d);
	forget_outputs(d);
	input_backlog_release(d->h.backlog);
	d->h.news(&d->h);
	wait_for_path(d);
}

static void take_event(struct input_evdev *d, const struct input_event *ev)
{
	if (d->reading)
		input_backlog_add(d->h.backlog, ev->type, ev->code, ev->value);
	else if (ev->type == EV_SYN && !keys_down(d->dev))
		settled(d);
}

/* One event, or what there is instead. 1: go on; 0: nothing more now; -errno: the device is gone. */
static int read_event(struct input_evdev *d)
{
	struct input_event ev;
	int rc = libevdev_next_event(
		d->dev, d->syncing ? LIBEVDEV_READ_FLAG_SYNC : LIBEVDEV_READ_FLAG_NORMAL, &ev);

	if (rc == -EAGAIN && d->syncing) { /* the kernel dropped events, perhaps the end of a report */
		d->syncing = false;
		ev = (struct input_event){.type = EV_SYN, .code = SYN_REPORT};
		take_event(d, &ev);
		return 1;
	}
	if (rc < 0)
		return rc == -EAGAIN || rc == -EINTR ? 0 : rc;
	d->syncing = rc == LIBEVDEV_READ_STATUS_SYNC;
	take_event(d, &ev);
	return 1;
}

/* All that is there, but no more than the budget. */
static int read_events(struct input_evdev *d)
{
	unsigned i;
	int rc;

	for (i = 0; i < READ_BUDGET; i++) {
		rc = read_event(d);
		if (rc <= 0)
			return rc;
	}
	loop_again(d->h.loop, &d->again);
	return 0;
}

static void read_some(struct input_evdev *d)
{
	int err = read_events(d);

	if (err)
		unplugged(d, err);
	else
		d->h.news(&d->h);
}

static void read_again(struct task *t)
{
	read_some(container_of(t, struct input_evdev, again));
}

static void evdev_ready(struct watch *w, uint32_t events)
{
	struct input_evdev *d = container_of(w, struct input_evdev, watch);

	if (d->h.running)
		read_some(d);
	else if (events & (EPOLLERR | EPOLLHUP))
		unplugged(d, -ENODEV);
}

/* While no driver listens only its end is of interest. */
static void watch_device(struct input_evdev *d)
{
	uint32_t events = d->h.running ? EPOLLIN : 0;
	int err = d->watch.fd < 0 ? watch_add(d->h.loop, &d->watch, d->fd, events)
				  : watch_modify(&d->watch, events);

	if (err)
		log_errno(err, "%s", d->path);
}

static void listen_to(struct input_evdev *d)
{
	catch_up(d);
	watch_device(d);
	if (d->grab && keys_down(d->dev))
		timer_arm_in(d->h.loop, &d->settle, SETTLE_NS);
	else
		settled(d);
}

static void evdev_start(struct input_host *h, bool fresh)
{
	struct input_evdev *d = evdev_of(h);

	if (fresh)
		input_backlog_init(h->backlog, h->model);
	if (d->dev)
		listen_to(d);
}

static void evdev_stop(struct input_host *h)
{
	struct input_evdev *d = evdev_of(h);

	let_go(d);
	if (!d->dev)
		return;
	restore_outputs(d);
	set_grab(d, false);
	watch_device(d);
}

/* Plugging */

/* What it says is mostly about devices that break the rules, as often as they do. */
static void library_says(const struct libevdev *dev, enum libevdev_log_priority priority, void *data,
	const char *file, int line, const char *func, const char *format, va_list args)
{
	struct input_evdev *d = data;
	char text[160];

	(void)dev, (void)priority, (void)file, (void)line, (void)func;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_guest_info("%s: %s", d->path, text);
}

static int plug(struct input_evdev *d)
{
	int fd = open(d->path, O_RDWR | O_NONBLOCK | O_CLOEXEC), err;

	d->writable = fd >= 0;
	if (fd < 0 && (errno == EACCES || errno == EROFS))
		fd = open(d->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d->dev = libevdev_new();
	if (!d->dev) {
		close(fd);
		return -ENOMEM;
	}
	libevdev_set_device_log_function(d->dev, library_says, LIBEVDEV_LOG_INFO, d);
	err = libevdev_set_fd(d->dev, fd);
	if (err) {
		libevdev_free(d->dev);
		d->dev = NULL;
		close(fd);
		return err;
	}
	d->fd = fd;
	return 0;
}

/* Is what was plugged in what the guest knows? */
static bool accept_device(struct input_evdev *d)
{
	struct input_model m;

	describe(d, &m);
	if (input_model_same(&m, d->h.model))
		return true;
	if (!d->h.running) {
		*d->h.model = m;
		return true;
	}
	if (!d->foreign)
		log_warn("%s: now is another device, \"%s\"; waiting for \"%s\"", d->path, m.name,
			d->h.model->name);
	d->foreign = true;
	return false;
}

static void stop_waiting(struct input_evdev *d)
{
	watch_del(&d->appear);
	fd_close(&d->notify);
	timer_disarm(&d->retry);
}

static bool try_plug(struct input_evdev *d)
{
	if (plug(d))
		return false;
	if (!accept_device(d)) {
		shut(d);
		return false;
	}
	stop_waiting(d);
	d->foreign = false;
	log_info("%s: \"%s\" is back", d->path, d->h.model->name);
	if (d->h.running)
		listen_to(d);
	else
		watch_device(d);
	return true;
}

/* The deepest directory on the way to the path that exists. */
static void watch_directory(struct input_evdev *d)
{
	const uint32_t mask =
		IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
	CLEANUP_FREE char *dir = NULL;
	char *slash;

	if (asprintf(&dir, "%s%s", *d->path == '/' ? "" : "./", d->path) < 0)
		dir = NULL;
	watch_del(&d->appear);
	fd_close(&d->notify);
	d->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	while (dir && d->notify >= 0 && (slash = strrchr(dir, '/'))) {
		slash[slash == dir] = '\0';
		if (inotify_add_watch(d->notify, dir, mask) >= 0 || !strcmp(dir, "/"))
			break;
	}
	if (d->notify >= 0)
		watch_add(d->h.loop, &d->appear, d->notify, EPOLLIN);
}

static void wait_for_path(struct input_evdev *d)
{
	watch_directory(d);
	if (!try_plug(d))
		timer_arm_in(d->h.loop, &d->retry, RETRY_NS);
}

static void path_appeared(struct watch *w, uint32_t events)
{
	(void)events;
	wait_for_path(container_of(w, struct input_evdev, appear));
}

static void retry_expired(struct timer *t)
{
	wait_for_path(container_of(t, struct input_evdev, retry));
}

/* Life */

static void evdev_close(struct input_host *h)
{
	struct input_evdev *d = evdev_of(h);

	stop_waiting(d);
	if (d->dev) {
		restore_outputs(d);
		set_grab(d, false);
	}
	shut(d);
	free(d);
}

static const struct input_host_ops evdev_ops = {
	.close = evdev_close,
	.start = evdev_start,
	.stop = evdev_stop,
	.output = evdev_output,
};

/* An early answer to what would fail when the guest comes. */
static int try_out(struct input_evdev *d)
{
	int err = set_grab(d, true);

	if (err)
		return log_errno(err, "--evdev-path=%s: cannot be grabbed", d->path);
	set_grab(d, false);
	if (!d->writable)
		log_warn("--evdev-path=%s: is not writable: the guest cannot set LEDs", d->path);
	return 0;
}

int input_evdev_open(struct input_host **out, const struct input_host *init, const char *path, bool grab)
{
	struct input_evdev *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return log_errno(ENOMEM, "--evdev-path=%s", path);
	d->h = *init;
	d->h.ops = &evdev_ops;
	d->path = path;
	d->grab = grab;
	d->fd = d->notify = d->watch.fd = d->appear.fd = -1;
	d->watch.ready = evdev_ready;
	d->appear.ready = path_appeared;
	d->again.run = read_again;
	d->settle.expired = settle_expired;
	d->retry.expired = retry_expired;
	err = plug(d);
	if (err == -ENOTTY || err == -EINVAL)
		log_error("--evdev-path=%s: is no input device", path);
	else if (err)
		log_errno(err, "--evdev-path=%s", path);
	else
		err = try_out(d);
	if (err) {
		evdev_close(&d->h);
		return err;
	}
	describe(d, d->h.model);
	watch_device(d);
	*out = &d->h;
	return 0;
}
