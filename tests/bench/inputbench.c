/* SPDX-License-Identifier: MIT */
/*
 * Latency of the program under test as an input device: from the write of an event (with its SYN_REPORT) into the
 * --source socket until the driver sees both in the used ring.
 *
 *	inputbench [EVENTS]
 *
 * wake: driver and device sleep in between, as they do while a person types. flow: as fast as it goes, one after the
 * other. Microseconds:
 *	wake_us=… wake_p99_us=… flow_us=… flow_p99_us=…
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../device/input-driver.h"

enum { MAX_EVENTS = 100000, WAKE_EVENTS = 300 };

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t one(struct driver *d, int fd, int value)
{
	struct input_event ev[2] = {
		{.type = EV_KEY, .code = KEY_A, .value = value}, {.type = EV_SYN, .code = SYN_REPORT}};
	uint64_t start = time_ns(), end;

	CHECK_EQ(write(fd, ev, sizeof(ev)), sizeof(ev));
	d->hold = true; /* the time of our own driver is not the device's */
	driver_expect(d, EV_KEY, KEY_A, value);
	driver_expect_syn(d);
	end = time_ns();
	driver_give(d, value ? 0 : 2);
	driver_give(d, value ? 1 : 3);
	fe_flush(d->events);
	return end - start;
}

static void measure(struct driver *d, int fd, const char *name, unsigned n, bool rest)
{
	uint64_t *ns = calloc(n, sizeof(*ns));

	CHECK(ns);
	for (unsigned i = 0; i < n; i++) {
		if (rest)
			nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
		ns[i] = one(d, fd, !(i & 1));
	}
	qsort(ns, n, sizeof(*ns), compare);
	printf("%s_us=%.1f %s_p99_us=%.1f ", name, (double)ns[n / 2] / 1000, name,
		(double)ns[n - 1 - n / 100] / 1000);
	free(ns);
}

int main(int argc, char **argv)
{
	unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 5000;
	struct fe_mode m = {.event_idx = true, .indirect = true};
	char path[128], option[160];
	struct driver d;
	int fd;

	if (n < 1 || n > MAX_EVENTS)
		FAIL("usage: inputbench [EVENTS]");
	snprintf(path, sizeof(path), "%s/source", fe_tmpdir());
	snprintf(option, sizeof(option), "--source=%s", path);
	fe_start(&d.fe, &m, FE_ARGS("input", option));
	fd = source_connect(path);
	driver_probe(&d);
	driver_up(&d, 64, 4);
	measure(&d, fd, "wake", n < WAKE_EVENTS ? n : WAKE_EVENTS, true);
	measure(&d, fd, "flow", n, false);
	printf("\n");
	close(fd);
	fe_end(&d.fe);
	return 0;
}
