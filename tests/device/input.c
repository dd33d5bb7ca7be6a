/* SPDX-License-Identifier: MIT */
/*
 * The input device with a program as its host's end: configuration space, reports, LEDs, pauses, bad buffers, and
 * --source itself. What concerns a real evdev node is in input-evdev.c and input-uinput.c.
 */
#include "input-driver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char path[128]; /* of --source */
static char option[160];

static const char *source_option(void)
{
	snprintf(path, sizeof(path), "%s/source", fe_tmpdir());
	snprintf(option, sizeof(option), "--source=%s", path);
	return option;
}

/* A device of this kind; the value is the program's end of the source. */
static int start(struct driver *d, const struct fe_mode *m, const char *kind)
{
	fe_start(&d->fe, m, FE_ARGS("input", source_option(), "--kind", kind));
	return source_connect(path);
}

static void expect_key(struct driver *d, unsigned code, int value)
{
	driver_expect_one(d, EV_KEY, code, value);
}

/* --- events --- */

static void works(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "keyboard");

	driver_probe(&d);
	driver_up(&d, 64, 32);
	source_say(fd, "KEY_A=1\n");
	expect_key(&d, KEY_A, 1);
	source_say(fd, "KEY_A=0\n# nothing\n\nKEY_B=1 KEY_C=1\n");
	expect_key(&d, KEY_A, 0);
	driver_expect(&d, EV_KEY, KEY_B, 1);
	driver_expect_one(&d, EV_KEY, KEY_C, 1);
	for (unsigned i = 0; i < 500; i++) {
		source_say(fd, i % 2 ? "KEY_B=1\n" : "KEY_B=0\n");
		expect_key(&d, KEY_B, i % 2);
		driver_set(&d, EV_LED, LED_NUML, i % 2);
		source_hears(fd, i % 2 ? "LED_NUML=1\n" : "LED_NUML=0\n");
	}
	driver_quiet(&d, 1);
	close(fd);
	driver_expect(&d, EV_KEY, KEY_C, 0); /* in the order of their codes */
	expect_key(&d, KEY_B, 0);
	fe_end(&d.fe);
}

/* A report is spread over refills of a ring of four, and stays together. */
static void tiny_ring(const struct fe_mode *m)
{
	struct driver d;
	char text[1024], *p = text;
	int fd = start(&d, m, "multitouch");

	driver_probe(&d);
	driver_up(&d, 4, 4);
	for (int i = 0; i < 10; i++)
		p += sprintf(p,
			"ABS_MT_SLOT=%d ABS_MT_TRACKING_ID=%d ABS_MT_POSITION_X=%d ABS_MT_POSITION_Y=%d ", i,
			100 + i, 1000 + i, 2000 + i);
	strcpy(p, "BTN_TOUCH=1\nBTN_TOUCH=0\n");
	source_say(fd, text);
	for (int i = 0; i < 10; i++) {
		driver_expect(&d, EV_ABS, ABS_MT_SLOT, i);
		driver_expect(&d, EV_ABS, ABS_MT_TRACKING_ID, 100 + i);
		driver_expect(&d, EV_ABS, ABS_MT_POSITION_X, 1000 + i);
		driver_expect(&d, EV_ABS, ABS_MT_POSITION_Y, 2000 + i);
	}
	expect_key(&d, BTN_TOUCH, 1);
	expect_key(&d, BTN_TOUCH, 0);
	fe_end(&d.fe);
	close(fd);
}

/* Buffers of many small descriptors, or larger than an event. */
static void odd_buffers(const struct fe_mode *m)
{
	struct driver d;
	struct vring_driver_buf bufs[8], large;
	int fd = start(&d, m, "mouse");
	uint8_t *p;

	driver_probe(&d);
	driver_up(&d, 32, 0);
	p = fe_alloc(&d.fe, 4096, 8, NULL);
	for (unsigned i = 0; i < 8; i++)
		bufs[i] = fe_wr(&d.fe, p + 2 * i, 1);
	large = fe_wr(&d.fe, p + 64, 4000);
	fe_submit(d.events, bufs, 8, NULL);
	fe_submit(d.events, &large, 1, NULL);
	fe_flush(d.events);
	source_say(fd, "REL_X=-2\n");
	CHECK_EQ(fe_wait(d.events, NULL), 8);
	CHECK_EQ(fe_wait(d.events, NULL), 8);
	CHECK_MEM(p, "\2\0\0\0\0\0\0\0\xfe\0\xff\0\xff\0\xff\0", 16);
	CHECK_MEM(p + 64, "\0\0\0\0\0\0\0\0\0", 9);
	fe_end(&d.fe);
	close(fd);
}

/* Without buffers the program waits; then everything comes, in order. */
static void backpressure(const struct fe_mode *m)
{
	enum { N = 40000 };
	struct driver d;
	int fd = start(&d, m, "mouse"), sent = 0;
	char text[32];

	driver_probe(&d);
	driver_up(&d, 64, 0);
	CHECK_SYS(fcntl(fd, F_SETFL, O_NONBLOCK));
	while (sent < N) {
		int n = sprintf(text, "REL_X=%d\n", sent);

		if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
			CHECK_EQ(errno, EAGAIN);
			if (!fe_poll(fd, POLLOUT, 200))
				break;
			continue;
		}
		sent++;
	}
	CHECK(sent < N);
	d.nbufs = 64;
	d.bufs = fe_alloc(&d.fe, 64 * sizeof(*d.bufs), 8, NULL);
	for (unsigned i = 0; i < 64; i++)
		driver_give(&d, i);
	fe_flush(d.events);
	for (int i = 0; i < sent; i++)
		driver_expect_one(&d, EV_REL, REL_X, i);
	driver_quiet(&d, 1);
	fe_end(&d.fe);
	close(fd);
}

/* --- configuration space --- */

static void config_fields(const struct fe_mode *m)
{
	struct driver d;
	struct virtio_input_config c,
		whole = {.select = VIRTIO_INPUT_CFG_ID_NAME, .size = 77, .u.string = "stale"};
	uint8_t byte = VIRTIO_INPUT_CFG_ABS_INFO, both[2] = {VIRTIO_INPUT_CFG_PROP_BITS, 0};

	fe_start(&d.fe, m, FE_ARGS("input", source_option(), "--kind=multitouch", "--serial=S-1"));
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, 0);
	/* the whole space at once, what is read-only in it is ignored */
	CHECK_EQ(fe_config_set(&d.fe, 0, &whole, sizeof(whole), 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, strlen("vhost-user-multi multitouch"));
	CHECK_MEM(c.u.string, "vhost-user-multi multitouch", c.size);
	CHECK_EQ(c.u.string[c.size], 0);
	whole = c;
	whole.select = VIRTIO_INPUT_CFG_ABS_INFO;
	whole.subsel = ABS_MT_POSITION_Y;
	CHECK_EQ(fe_config_set(&d.fe, 0, &whole, sizeof(whole), 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, 20);
	CHECK_EQ(le32toh(c.u.abs.max), 32767);
	/* one field, the other stays */
	byte = ABS_MT_SLOT;
	CHECK_EQ(fe_config_set(&d.fe, 1, &byte, 1, 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(le32toh(c.u.abs.max), 9);
	byte = VIRTIO_INPUT_CFG_EV_BITS;
	CHECK_EQ(fe_config_set(&d.fe, 0, &byte, 1, 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, 0); /* there is no event type 0x2f */
	CHECK_EQ(fe_config_set(&d.fe, 0, both, 2, 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, 1);
	CHECK_EQ(c.u.bitmap[0], 1 << INPUT_PROP_DIRECT);
	/* what is behind them cannot be written */
	CHECK_EQ(fe_config_set(&d.fe, 2, &byte, 1, 0), 0);
	CHECK_EQ(fe_config_set(&d.fe, 8, "xyz", 3, 0), 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.size, 1);
	CHECK_EQ(c.u.bitmap[0], 1 << INPUT_PROP_DIRECT);
	/* pieces of any length */
	CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_SERIAL, 0, &c), 3);
	for (uint32_t n = 1; n <= sizeof(c); n++) {
		uint8_t part[sizeof(c)];

		fe_config_get(&d.fe, 0, part, n);
		CHECK_MEM(part, &c, n);
	}
	CHECK_MEM(c.u.string, "S-1", 3);
	fe_end(&d.fe);
}

static void config_kinds(const struct fe_mode *m)
{
	static const struct {
		const char *kind;
		uint16_t has[3][2], lacks[2];
	} kinds[] = {
		{"keyboard", {{EV_KEY, KEY_Z}, {EV_LED, LED_CAPSL}, {EV_REP, REP_DELAY}}, {EV_KEY, BTN_LEFT}},
		{"mouse", {{EV_KEY, BTN_LEFT}, {EV_REL, REL_X}, {EV_REL, REL_WHEEL}}, {EV_ABS, ABS_X}},
		{"tablet", {{EV_KEY, BTN_LEFT}, {EV_ABS, ABS_X}, {EV_ABS, ABS_Y}}, {EV_REL, REL_X}},
		{"multitouch", {{EV_KEY, BTN_TOUCH}, {EV_ABS, ABS_MT_SLOT}, {EV_ABS, ABS_X}},
			{EV_KEY, BTN_LEFT}}};
	struct virtio_input_config c;
	struct driver d;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		fe_start(&d.fe, m, FE_ARGS("input", source_option(), "--kind", kinds[i].kind));
		for (size_t j = 0; j < 3; j++)
			CHECK(driver_has(&d, kinds[i].has[j][0], kinds[i].has[j][1]));
		CHECK(!driver_has(&d, kinds[i].lacks[0], kinds[i].lacks[1]));
		CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_DEVIDS, 0, &c), 8);
		CHECK_EQ(le16toh(c.u.ids.bustype), BUS_VIRTUAL);
		CHECK_EQ(le16toh(c.u.ids.product), i + 1);
		CHECK_EQ(driver_ask(&d, VIRTIO_INPUT_CFG_ID_SERIAL, 0, &c), 0);
		fe_end(&d.fe);
	}
}

/* --- the status queue --- */

static void status(const struct fe_mode *m)
{
	struct driver d;
	struct vring_driver_buf buf[2];
	struct virtio_input_event *p;
	struct input_event raw[2];
	int fd = start(&d, m, "keyboard");

	driver_probe(&d);
	driver_up(&d, 16, 4);
	source_say(fd, "KEY_A=1\nKEY_A=0\n"); /* now the program is known to be connected */
	expect_key(&d, KEY_A, 1);
	expect_key(&d, KEY_A, 0);
	driver_set(&d, EV_LED, LED_CAPSL, 1);
	driver_set(&d, EV_LED, LED_MAIL, 1); /* the device has no such LED */
	driver_set(&d, EV_KEY, KEY_A, 1);    /* not the guest's to say */
	driver_set(&d, EV_SYN, SYN_REPORT, 0);
	driver_set(&d, 0xffff, 0xffff, -1);
	driver_set(&d, EV_REP, REP_DELAY, 300);
	source_hears(fd, "LED_CAPSL=1\nREP_DELAY=300\n");

	/* not whole, empty, not readable, several in one, too many in one */
	p = fe_alloc(&d.fe, 4096 * sizeof(*p), 8, NULL);
	for (unsigned i = 0; i < 4096; i++)
		p[i] = (struct virtio_input_event){.type = EV_LED, .code = LED_NUML, .value = i & 1};
	buf[0] = fe_rd(&d.fe, p, 7);
	CHECK_EQ(fe_transact(d.status, buf, 1), 0);
	buf[0] = fe_wr(&d.fe, p + 8, 64);
	CHECK_EQ(fe_transact(d.status, buf, 1), 0);
	buf[0] = fe_rd(&d.fe, p, 5);
	buf[1] = fe_rd(&d.fe, (uint8_t *)p + 5, 2 * sizeof(*p) - 5);
	CHECK_EQ(fe_transact(d.status, buf, 2), 0);
	source_hears(fd, "LED_NUML=0\nLED_NUML=1\n");
	buf[0] = fe_rd(&d.fe, p, 4096 * sizeof(*p));
	CHECK_EQ(fe_transact(d.status, buf, 1), 0);
	for (unsigned i = 0; i < 64; i++)
		source_hears(fd, i & 1 ? "LED_NUML=1\n" : "LED_NUML=0\n");
	driver_set(&d, EV_LED, LED_KANA, 1);
	source_hears(fd, "LED_KANA=1\n");

	/* a program that speaks in binary is answered in binary */
	close(fd);
	fd = source_connect(path);
	memset(raw, 0, sizeof(raw));
	raw[0] = (struct input_event){.type = EV_KEY, .code = KEY_A, .value = 1};
	CHECK_EQ(write(fd, raw, sizeof(raw)), sizeof(raw));
	expect_key(&d, KEY_A, 1);
	driver_set(&d, EV_LED, LED_SCROLLL, 1);
	CHECK(fe_poll(fd, POLLIN, fe_limit_ms));
	CHECK_EQ(recv(fd, raw, sizeof(raw), MSG_WAITALL), sizeof(raw));
	CHECK_EQ(raw[0].type, EV_LED);
	CHECK_EQ(raw[0].code, LED_SCROLLL);
	CHECK_EQ(raw[0].value, 1);
	CHECK_EQ(raw[1].type, EV_SYN);
	close(fd);
	expect_key(&d, KEY_A, 0);
	driver_set(&d, EV_LED, LED_SCROLLL, 0); /* nobody listens */
	fe_end(&d.fe);
}

/* A program that never reads holds up nothing. */
static void status_unread(const struct fe_mode *m)
{
	struct driver d;
	struct virtio_input_event *p;
	struct vring_driver_buf buf;
	int fd = start(&d, m, "keyboard");

	driver_probe(&d);
	driver_up(&d, 64, 4);
	p = fe_alloc(&d.fe, 64 * sizeof(*p), 8, NULL);
	for (unsigned i = 0; i < 64; i++)
		p[i] = (struct virtio_input_event){.type = EV_LED, .code = LED_NUML, .value = i & 1};
	buf = fe_rd(&d.fe, p, 64 * sizeof(*p));
	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(fe_transact(d.status, &buf, 1), 0);
	source_say(fd, "KEY_A=1\n");
	expect_key(&d, KEY_A, 1);
	fe_end(&d.fe);
	close(fd);
}

/* --- bad buffers --- */

static void short_buffer(const struct fe_mode *m)
{
	struct driver d;
	struct vring_driver_buf buf;
	int fd = start(&d, m, "keyboard");
	uint8_t *p;

	driver_probe(&d);
	driver_up(&d, 16, 0);
	p = fe_alloc(&d.fe, 64, 8, NULL);
	buf = fe_wr(&d.fe, p, 7);
	fe_submit(d.events, &buf, 1, NULL);
	fe_flush(d.events);
	source_say(fd, "KEY_A=1\n");
	fe_queue_fails(d.events);
	fe_process_logs(&d.fe.process, "a buffer has less than the 8 bytes of an event");
	driver_set(&d, EV_LED, LED_CAPSL, 1); /* the other queue lives */
	source_hears(fd, "LED_CAPSL=1\n");
	fe_end(&d.fe);
	close(fd);
}

static void readable_buffer(const struct fe_mode *m)
{
	struct driver d;
	struct vring_driver_buf buf;
	int fd = start(&d, m, "keyboard");

	driver_probe(&d);
	driver_up(&d, 16, 0);
	buf = fe_rd(&d.fe, fe_alloc(&d.fe, 64, 8, NULL), 64);
	fe_submit(d.events, &buf, 1, NULL);
	fe_flush(d.events);
	source_say(fd, "KEY_A=1\n");
	fe_queue_fails(d.events);
	fe_end(&d.fe);
	close(fd);
}

/* --- pauses and new drivers --- */

/* Stops the event queue and starts it again as it was, as a pause of the virtual machine does. */
static void pause_resume(struct driver *d)
{
	uint32_t base = fe_queue_stop(d->events);

	fe_queue_send(d->events, base);
	fe_queue_enable(d->events, true);
}

static void paused(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "tablet");

	driver_probe(&d);
	driver_up(&d, 16, 2);
	d.hold = true;
	source_say(fd, "ABS_X=1 ABS_Y=2 BTN_LEFT=1\nABS_X=3\nBTN_LEFT=0\n");
	driver_expect(&d, EV_ABS, ABS_X, 1);
	driver_expect(&d, EV_ABS, ABS_Y, 2);
	driver_quiet(&d, 20);
	pause_resume(&d);
	d.hold = false;
	driver_give(&d, 0);
	driver_give(&d, 1);
	fe_flush(d.events);
	expect_key(&d, BTN_LEFT, 1); /* the rest of the report */
	driver_expect_one(&d, EV_ABS, ABS_X, 3);
	expect_key(&d, BTN_LEFT, 0);
	pause_resume(&d);
	driver_quiet(&d, 20); /* nothing is told twice */
	source_say(fd, "ABS_X=4\n");
	driver_expect_one(&d, EV_ABS, ABS_X, 4);
	fe_end(&d.fe);
	close(fd);
}

/* A server to which front-ends come one after the other. */
static void serve(struct driver *d, const struct fe_mode *m, const char *socket, const char *kind)
{
	fe_init(&d->fe, m);
	fe_spawn_path(&d->fe, socket, FE_ARGS("input", source_option(), "--kind", kind));
	fe_handshake(&d->fe);
	fe_memory_default(&d->fe);
}

static void come_again(struct driver *d, const char *socket)
{
	struct fe_process p = d->fe.process;
	struct fe_mode m = d->fe.mode;

	fe_close(&d->fe);
	fe_init(&d->fe, &m);
	d->fe.process = p;
	fe_connect(&d->fe, socket);
	fe_handshake(&d->fe);
	fe_memory_default(&d->fe);
}

static void reconnect(const struct fe_mode *m)
{
	struct driver d;
	char socket[128];
	int fd;

	snprintf(socket, sizeof(socket), "%s/socket", fe_tmpdir());
	serve(&d, m, socket, "tablet");
	fd = source_connect(path);
	driver_probe(&d);
	driver_up(&d, 16, 8);
	source_say(fd, "ABS_X=1000\nBTN_LEFT=1\n");
	driver_expect_one(&d, EV_ABS, ABS_X, 1000);
	expect_key(&d, BTN_LEFT, 1);

	/* a new driver is told where the axes are, not that a button is held */
	come_again(&d, socket);
	driver_probe(&d);
	driver_up(&d, 4, 4);
	driver_expect_one(&d, EV_ABS, ABS_X, 1000);
	driver_quiet(&d, 20);
	source_say(fd, "BTN_LEFT=0\nBTN_RIGHT=1\n");
	expect_key(&d, BTN_LEFT, 0);
	expect_key(&d, BTN_RIGHT, 1);

	/* nothing is lost while no driver is there */
	come_again(&d, socket);
	source_say(fd, "ABS_X=2000\nBTN_RIGHT=0\n");
	driver_probe(&d);
	driver_up(&d, 4, 4);
	driver_expect_one(&d, EV_ABS, ABS_X, 1000);
	driver_expect_one(&d, EV_ABS, ABS_X, 2000);
	expect_key(&d, BTN_RIGHT, 0);

	/* the program goes while no driver is there: the same driver learns that its key is up */
	source_say(fd, "BTN_SIDE=1\n");
	expect_key(&d, BTN_SIDE, 1);
	come_again(&d, socket);
	close(fd);
	driver_up(&d, 4, 4);
	expect_key(&d, BTN_SIDE, 0);

	fe_process_signal(&d.fe.process, SIGTERM);
	fe_process_exits(&d.fe.process, 0);
	CHECK(access(path, F_OK) != 0); /* the socket of --source went too */
	fe_close(&d.fe);
}

static void reset(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "keyboard");
	struct virtio_input_config c;

	driver_probe(&d);
	driver_up(&d, 16, 8);
	source_say(fd, "KEY_A=1\n");
	expect_key(&d, KEY_A, 1);
	fe_set(&d.fe, FE_RESET_DEVICE, NULL, 0, NULL, 0);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.select, 0);
	CHECK_EQ(c.size, 0);
	driver_probe(&d);
	fe_queue_clear(d.events, FE_FRESH);
	fe_queue_send(d.events, (uint32_t)(d.fe.mode.packed ? 0x80008000u : 0));
	fe_queue_enable(d.events, true);
	for (unsigned i = 0; i < 8; i++)
		driver_give(&d, i);
	fe_flush(d.events);
	source_say(fd, "KEY_B=1\n");
	expect_key(&d, KEY_B, 1);
	fe_end(&d.fe);
	close(fd);
}

/* --- the source --- */

static void source_text(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "keyboard");
	char *longest = malloc(40000);
	int64_t begin;

	CHECK(longest);
	driver_probe(&d);
	driver_up(&d, 64, 32);
	source_say(fd, "KEY_A=1\nnonsense\nKEY_NO=1\nBTN_LEFT=1\nKEY_A=0\n");
	expect_key(&d, KEY_A, 1);
	expect_key(&d, KEY_A, 0);
	source_hears(fd, "# line 2: an event is CODE=VALUE\n# line 3: there is no such code\n"
			 "# line 4: the device does not have such events\n");
	/* line by line, byte by byte */
	for (const char *p = "1:30=1 1:48=1\nKEY_B=0\n"; *p; p++)
		CHECK_EQ(write(fd, p, 1), 1);
	driver_expect(&d, EV_KEY, KEY_A, 1);
	expect_key(&d, KEY_B, 1);
	expect_key(&d, KEY_B, 0);
	/* a line that is too long is left out, all of it */
	memset(longest, ' ', 39999);
	longest[39999] = '\0';
	source_say(fd, longest);
	source_say(fd, "KEY_C=1\nKEY_D=1\n");
	expect_key(&d, KEY_D, 1);
	source_hears(fd, "# line 8: is too long\n");
	/* a delay, and what is behind it waits */
	begin = fe_now_ms();
	source_say(fd, "+0.15 KEY_E=1\nKEY_E=0\n+0.15\nKEY_F=1\n");
	expect_key(&d, KEY_E, 1);
	CHECK(fe_now_ms() - begin >= 150);
	expect_key(&d, KEY_E, 0);
	expect_key(&d, KEY_F, 1);
	CHECK(fe_now_ms() - begin >= 300);
	/* the end in the midst of a line, and of a delay */
	source_say(fd, "+0.05 KEY_G=1\nKEY_H=1");
	close(fd);
	expect_key(&d, KEY_G, 1);
	driver_expect(&d, EV_KEY, KEY_A, 0);
	driver_expect(&d, EV_KEY, KEY_D, 0);
	driver_expect(&d, EV_KEY, KEY_F, 0);
	expect_key(&d, KEY_G, 0);
	fe_end(&d.fe);
	free(longest);
}

static void raw_event(int fd, unsigned type, unsigned code, int value, bool bytewise)
{
	struct input_event ev = {.time = {.tv_sec = 1234567890},
		.type = (uint16_t)type,
		.code = (uint16_t)code,
		.value = value};
	const char *p = (const char *)&ev;

	for (size_t i = 0, n = bytewise ? 1 : sizeof(ev); i < sizeof(ev); i += n)
		CHECK_EQ(write(fd, p + i, n), n);
}

static void source_binary(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "tablet"), second;

	driver_probe(&d);
	driver_up(&d, 64, 32);
	second = source_connect(path); /* waits for its turn */
	source_say(second, "BTN_RIGHT=1\n");
	raw_event(fd, EV_ABS, ABS_X, 7, true);
	raw_event(fd, EV_KEY, BTN_LEFT, 1, false);
	raw_event(fd, EV_LED, LED_CAPSL, 1, false);
	raw_event(fd, EV_SYN, SYN_DROPPED, 0, false);
	raw_event(fd, 0xffff, 0xffff, -1, false);
	raw_event(fd, EV_SYN, SYN_REPORT, 0, true);
	driver_expect(&d, EV_ABS, ABS_X, 7);
	expect_key(&d, BTN_LEFT, 1);
	raw_event(fd, EV_ABS, ABS_X, 8, false); /* not finished: void */
	CHECK_EQ(write(fd, "abc", 3), 3);
	close(fd);
	expect_key(&d, BTN_LEFT, 0);
	expect_key(&d, BTN_RIGHT, 1);
	/* a report without end is not kept, and ends */
	close(second);
	expect_key(&d, BTN_RIGHT, 0);
	fd = source_connect(path);
	for (int i = 0; i < 10000; i++)
		raw_event(fd, EV_REL, REL_WHEEL, 1, false);
	raw_event(fd, EV_ABS, ABS_Y, 9, false);
	raw_event(fd, EV_SYN, SYN_REPORT, 0, false);
	driver_expect_one(&d, EV_SYN, SYN_DROPPED, 0);
	driver_expect_one(&d, EV_ABS, ABS_Y, 9);
	close(fd);
	fe_end(&d.fe);
}

/* What was sent before the driver is there comes when it is. */
static void source_early(const struct fe_mode *m)
{
	struct driver d;
	int fd = start(&d, m, "keyboard");

	source_say(fd, "KEY_A=1\nKEY_A=0\n");
	close(fd);
	fd = source_connect(path);
	source_say(fd, "KEY_B=1\n");
	fe_barrier(&d.fe);
	driver_probe(&d);
	driver_up(&d, 16, 8);
	expect_key(&d, KEY_A, 1);
	expect_key(&d, KEY_A, 0);
	expect_key(&d, KEY_B, 1);
	fe_end(&d.fe);
	close(fd);
}

static void source_fifo(const struct fe_mode *m)
{
	struct driver d;
	struct stat st;
	const char *opt = source_option();
	int fd;

	CHECK_SYS(mkfifo(path, 0600));
	fe_start(&d.fe, m, FE_ARGS("input", opt));
	driver_probe(&d);
	driver_up(&d, 16, 8);
	for (int i = 0; i < 3; i++) { /* writers come and go; keys stay down */
		fd = open(path, O_WRONLY | O_CLOEXEC);
		CHECK(fd >= 0);
		CHECK_EQ(write(fd, "KEY_A=1\n", 8), 8);
		close(fd);
		expect_key(&d, KEY_A, 1);
	}
	driver_set(&d, EV_LED, LED_CAPSL, 1); /* a FIFO has no way back */
	driver_quiet(&d, 20);
	fe_end(&d.fe);
	CHECK_SYS(stat(path, &st)); /* it was not ours to remove */
}

static void record_and_replay(const struct fe_mode *m)
{
	struct driver d;
	char file[128], record[160], text[256] = "";
	int fd, i;
	ssize_t n;

	snprintf(file, sizeof(file), "%s/record", fe_tmpdir());
	snprintf(record, sizeof(record), "--record=%s", file);
	fe_start(&d.fe, m, FE_ARGS("input", source_option(), "--kind=mouse", record));
	fd = source_connect(path);
	driver_probe(&d);
	driver_up(&d, 16, 8);
	source_say(fd, "REL_X=5 REL_Y=-6\n+0.02 BTN_LEFT=1\n");
	driver_expect(&d, EV_REL, REL_X, 5);
	driver_expect_one(&d, EV_REL, REL_Y, -6);
	expect_key(&d, BTN_LEFT, 1);
	close(fd);
	expect_key(&d, BTN_LEFT, 0);
	fe_end(&d.fe);

	fd = open(file, O_RDONLY | O_CLOEXEC);
	n = read(fd, text, sizeof(text) - 1);
	CHECK(n > 0);
	close(fd);
	CHECK_EQ(strncmp(text, "REL_X=5 REL_Y=-6\n+0.0", 21), 0);
	CHECK_HAS(text, " BTN_LEFT=1\n+");
	CHECK_HAS(text, " BTN_LEFT=0\n");
	for (i = 0; i < 2; i++) {
		fd = start(&d, m, "mouse");
		driver_probe(&d);
		driver_up(&d, 16, 8);
		source_say(fd, text);
		driver_expect(&d, EV_REL, REL_X, 5);
		driver_expect_one(&d, EV_REL, REL_Y, -6);
		expect_key(&d, BTN_LEFT, 1);
		expect_key(&d, BTN_LEFT, 0);
		fe_end(&d.fe);
		close(fd);
	}
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("input", "--socket-path=x", row[0], row[1]));
	fe_process_logs(&p, row[2]);
	CHECK(fe_process_wait(&p) != 0);
}

static void bind_source(int *fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(addr.sun_path, path);
	CHECK_SYS(bind(*fd, (struct sockaddr *)&addr, sizeof(addr)));
	CHECK_SYS(listen(*fd, 1));
}

static void stale_socket(const struct fe_mode *m)
{
	const char *opt = source_option();
	struct fe_process p;
	struct driver d;
	int fd;

	bind_source(&fd);
	fe_process_start(&p, -1, FE_ARGS("input", "--socket-path=x", opt));
	fe_process_logs(&p, "another program listens there");
	fe_process_exits(&p, 1);
	CHECK_SYS(access(path, F_OK));
	close(fd);
	fe_start(&d.fe, m, FE_ARGS("input", opt));
	close(source_connect(path));
	/* a file of the same name that is not ours stays */
	CHECK_SYS(unlink(path));
	fd = open(path, O_CREAT | O_CLOEXEC | O_WRONLY, 0600);
	close(fd);
	fe_end(&d.fe);
	CHECK_SYS(access(path, F_OK));
}

int main(void)
{
	static const char *const bad[][3] = {
		{"--log-level=warn", "--kind=mouse", "one of --evdev-path=PATH and --source=PATH is needed"},
		{"--evdev-path=/dev/null", "--source=y", "exclude each other"},
		{"--evdev-path=/dev/null", "--no-grab", "--evdev-path=/dev/null: is no input device"},
		{"--evdev-path=/nonexistent/event0", "--no-grab",
			"--evdev-path=/nonexistent/event0: No such file or directory"},
		{"--evdev-path=/", "--no-grab", "--evdev-path=/: "},
		{"--source=no-source", "--no-grab", "--no-grab is for --evdev-path"},
		{"--source=/", "--kind=mouse", "--source=/: is neither a FIFO nor a socket"},
		{"--source=/nonexistent/x", "--kind=mouse",
			"--source=/nonexistent/x: No such file or directory"},
		{"--source=no-source", "--kind=fridge", "--kind=fridge"},
		{"--source=no-source", "--record=/nonexistent/x", "--record=/nonexistent/x: No such file"},
		{"--source=no-source",
			"--serial=0123456789012345678901234567890123456789012345678901234567890123456789"
			"01234567890123456789012345678901234567890123456789012345678",
			"has more than 128 bytes"},
	};

	fe_each_mode_in_order("works", works);
	fe_each_mode("a report over many refills", tiny_ring);
	fe_each_mode("buffers in pieces, buffers that are large", odd_buffers);
	fe_each_layout("a program waits for the guest", backpressure);
	fe_case("configuration space", config_fields, NULL);
	fe_case("kinds", config_kinds, NULL);
	fe_each_mode("status queue", status);
	fe_case("a program that does not read LEDs", status_unread, NULL);
	fe_each_layout("a buffer that is too short", short_buffer);
	fe_each_layout("a buffer that can't be written", readable_buffer);
	fe_each_mode("pause in the midst of a report", paused);
	fe_each_layout("reconnect", reconnect);
	fe_each_layout("reset", reset);
	fe_case("text", source_text, NULL);
	fe_case("binary", source_binary, NULL);
	fe_case("events before the driver", source_early, NULL);
	fe_case("FIFO", source_fifo, NULL);
	fe_case("record and replay", record_and_replay, NULL);
	fe_case("a socket that is there already", stale_socket, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][2], refused, (void *)bad[i]);
	return tap_done();
}
