/* SPDX-License-Identifier: MIT */
/*
 * Looks at an input device from inside a test guest.
 *
 *	inputtest describe NODE              all that the kernel knows of it, one line per thing
 *	inputtest read NODE READY REPORTS    makes the file READY, then prints so many reports, one line each:
 *	                                     TYPE:CODE=VALUE …; the kernel's own repetitions of keys are left out
 *	inputtest repeats NODE READY         makes the file READY, ends when a key repeats
 *	inputtest set NODE TYPE CODE VALUE   writes an event: a LED, the repeat rate
 *	inputtest held NODE                  the keys and LEDs that are on
 *	inputtest find NAME                  the node of the device with this name
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "inputtest: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int node(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		die(path);
	return fd;
}

static void print_bits(const char *what, const uint8_t *bits, unsigned n)
{
	unsigned i;

	printf("%s", what);
	for (i = 0; i < n; i++)
		if (bits[i / 8] >> i % 8 & 1)
			printf(" %u", i);
	printf("\n");
}

static void print_axis(int fd, unsigned code)
{
	struct input_absinfo a;

	if (ioctl(fd, EVIOCGABS(code), &a) < 0)
		die("EVIOCGABS");
	printf("axis %u: %d to %d, fuzz %d, flat %d, resolution %d\n", code, a.minimum, a.maximum, a.fuzz,
		a.flat, a.resolution);
}

static void describe(int fd)
{
	uint8_t types[EV_CNT / 8] = {0}, bits[KEY_CNT / 8], props[INPUT_PROP_CNT / 8] = {0};
	char text[256] = "", what[16];
	struct input_id id;
	unsigned i;

	if (ioctl(fd, EVIOCGNAME(sizeof(text)), text) < 0 || ioctl(fd, EVIOCGID, &id) < 0 ||
		ioctl(fd, EVIOCGPROP(sizeof(props)), props) < 0 ||
		ioctl(fd, EVIOCGBIT(0, sizeof(types)), types) < 0)
		die("ioctl");
	printf("name %s\n", text);
	memset(text, 0, sizeof(text));
	if (ioctl(fd, EVIOCGUNIQ(sizeof(text)), text) >= 0)
		printf("serial %s\n", text);
	printf("id %x:%x:%x:%x\n", id.bustype, id.vendor, id.product, id.version);
	print_bits("props", props, INPUT_PROP_CNT);
	print_bits("types", types, EV_CNT);
	for (i = EV_SYN + 1; i < EV_CNT; i++) {
		memset(bits, 0, sizeof(bits));
		if (!(types[i / 8] >> i % 8 & 1) || ioctl(fd, EVIOCGBIT(i, sizeof(bits)), bits) < 0)
			continue;
		snprintf(what, sizeof(what), "type %u:", i);
		print_bits(what, bits, KEY_CNT);
	}
	memset(bits, 0, sizeof(bits));
	if (ioctl(fd, EVIOCGBIT(EV_ABS, sizeof(bits)), bits) >= 0)
		for (i = 0; i < ABS_CNT; i++)
			if (bits[i / 8] >> i % 8 & 1)
				print_axis(fd, i);
}

static struct input_event next_event(int fd)
{
	struct input_event ev;

	if (read(fd, &ev, sizeof(ev)) != sizeof(ev))
		die("read");
	return ev;
}

static void ready(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	if (fd < 0)
		die(path);
	close(fd);
}

static void read_reports(int fd, unsigned reports)
{
	unsigned events = 0;

	while (reports) {
		struct input_event ev = next_event(fd);

		if (ev.type == EV_KEY && ev.value == 2)
			continue;
		if (ev.type != EV_SYN || ev.code == SYN_DROPPED) {
			printf("%s%u:%u=%d", events++ ? " " : "", ev.type, ev.code, ev.value);
		} else if (ev.code == SYN_REPORT && events) {
			printf("\n");
			fflush(stdout);
			events = 0;
			reports--;
		}
	}
}

static void await_repetition(int fd)
{
	struct input_event ev;

	do
		ev = next_event(fd);
	while (ev.type != EV_KEY || ev.value != 2);
	printf("key %u repeats\n", ev.code);
}

static void set(int fd, char **argv)
{
	struct input_event ev[2] = {
		{.type = (uint16_t)atoi(argv[0]), .code = (uint16_t)atoi(argv[1]), .value = atoi(argv[2])},
		{.type = EV_SYN, .code = SYN_REPORT}};

	if (write(fd, ev, sizeof(ev)) != sizeof(ev))
		die("write");
}

static void held(int fd)
{
	uint8_t keys[KEY_CNT / 8] = {0}, leds[LED_CNT / 8] = {0};

	if (ioctl(fd, EVIOCGKEY(sizeof(keys)), keys) < 0 || ioctl(fd, EVIOCGLED(sizeof(leds)), leds) < 0)
		die("ioctl");
	print_bits("keys", keys, KEY_CNT);
	print_bits("LEDs", leds, LED_CNT);
}

static int find(const char *name)
{
	char path[32], text[256];
	int i, fd;

	for (i = 0; i < 32; i++) {
		snprintf(path, sizeof(path), "/dev/input/event%d", i);
		fd = open(path, O_RDONLY);
		memset(text, 0, sizeof(text));
		if (fd >= 0 && ioctl(fd, EVIOCGNAME(sizeof(text)), text) >= 0 && strcmp(text, name) == 0) {
			printf("%s\n", path);
			return 0;
		}
		if (fd >= 0)
			close(fd);
	}
	return 1;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";

	if (strcmp(verb, "describe") == 0 && argc == 3) {
		describe(node(argv[2], O_RDONLY));
	} else if (strcmp(verb, "read") == 0 && argc == 5) {
		int fd = node(argv[2], O_RDONLY);

		ready(argv[3]);
		read_reports(fd, (unsigned)atoi(argv[4]));
	} else if (strcmp(verb, "repeats") == 0 && argc == 4) {
		int fd = node(argv[2], O_RDONLY);

		ready(argv[3]);
		await_repetition(fd);
	} else if (strcmp(verb, "set") == 0 && argc == 6) {
		set(node(argv[2], O_RDWR), argv + 3);
	} else if (strcmp(verb, "held") == 0 && argc == 3) {
		held(node(argv[2], O_RDONLY));
	} else if (strcmp(verb, "find") == 0 && argc == 3) {
		return find(argv[2]);
	} else {
		fprintf(stderr, "inputtest: see the source for its usage\n");
		return 2;
	}
	return 0;
}
