/* SPDX-License-Identifier: MIT */
/* The parts of the input device by themselves: configuration space, backlog, text form. */
#include <endian.h>
#include <stdlib.h>

#include "input-backlog.h"
#include "input-model.h"
#include "input-text.h"
#include "tap.h"
#include "util.h"

/* --- configuration space --- */

static uint8_t ask(
	const struct input_model *m, struct virtio_input_config *c, unsigned select, unsigned subsel)
{
	memset(c, 0xee, sizeof(*c));
	c->select = (uint8_t)select;
	c->subsel = (uint8_t)subsel;
	input_model_config(m, c);
	for (size_t i = 0; i < sizeof(c->reserved); i++)
		CHECK_EQ(c->reserved[i], 0);
	for (size_t i = c->size; i < sizeof(c->u); i++)
		CHECK_EQ(c->u.bitmap[i], 0);
	return c->size;
}

static void config_is_told(void *arg)
{
	struct input_model m = {.serial = "0123", .id = {BUS_USB, 0x1234, 0x5678, 0x9abc}};
	struct virtio_input_config c;

	(void)arg;
	memset(m.name, 'n', INPUT_STRING); /* as long as there is room: no NUL */
	input_model_add(&m, EV_KEY, KEY_ESC);
	input_model_add(&m, EV_KEY, KEY_MAX);
	input_model_add_axis(&m, ABS_MAX, -5, 0x12345678, 7);
	m.abs[ABS_MAX].fuzz = 3;
	m.abs[ABS_MAX].flat = -4;
	m.props[1] = 0x80;

	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_ID_NAME, 0), INPUT_STRING);
	CHECK_MEM(c.u.string, m.name, INPUT_STRING);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_ID_SERIAL, 0), 4);
	CHECK_MEM(c.u.string, "0123", 4);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_ID_DEVIDS, 0), 8);
	CHECK_MEM(&c.u.ids, "\x03\x00\x34\x12\x78\x56\xbc\x9a", 8);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_PROP_BITS, 0), 2);
	CHECK_EQ(c.u.bitmap[1], 0x80);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_EV_BITS, EV_KEY), 96);
	CHECK_EQ(c.u.bitmap[0], 1 << KEY_ESC);
	CHECK_EQ(c.u.bitmap[95], 0x80);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_EV_BITS, EV_ABS), 8);
	CHECK_EQ(c.u.bitmap[7], 0x80);
	CHECK_EQ(ask(&m, &c, VIRTIO_INPUT_CFG_ABS_INFO, ABS_MAX), 20);
	CHECK_MEM(&c.u.abs, "\xfb\xff\xff\xff\x78\x56\x34\x12\x03\0\0\0\xfc\xff\xff\xff\x07\0\0\0", 20);
}

/* Whatever is selected, size and content agree; only what there is has a size. */
static void config_is_absent(void *arg)
{
	struct input_model m = {.name = "x"};
	struct virtio_input_config c;
	unsigned found = 0;

	(void)arg;
	input_model_add(&m, EV_REP, REP_PERIOD);
	input_model_add_axis(&m, ABS_Y, 0, 1, 0);
	input_model_add(&m, EV_MAX + 1, 0);
	input_model_add(&m, EV_ABS, ABS_CNT);
	input_model_add(&m, EV_SW, SW_CNT);
	input_model_add(&m, EV_KEY, KEY_CNT);
	for (unsigned select = 0; select < 256; select++)
		for (unsigned subsel = 0; subsel < 256; subsel++)
			found += ask(&m, &c, select, subsel) != 0;
	/* name, identity, the bits of two types, one axis */
	CHECK_EQ(found, 5);
}

static void kinds_are_described(void *arg)
{
	static const uint16_t want[][3] = {{INPUT_KEYBOARD, EV_KEY, KEY_A},
		{INPUT_KEYBOARD, EV_LED, LED_CAPSL}, {INPUT_KEYBOARD, EV_REP, REP_DELAY},
		{INPUT_MOUSE, EV_REL, REL_X}, {INPUT_MOUSE, EV_KEY, BTN_LEFT}, {INPUT_TABLET, EV_ABS, ABS_Y},
		{INPUT_TABLET, EV_KEY, BTN_RIGHT}, {INPUT_MULTITOUCH, EV_ABS, ABS_MT_POSITION_X},
		{INPUT_MULTITOUCH, EV_KEY, BTN_TOUCH}};
	struct input_model m[4] = {0};

	(void)arg;
	for (int i = 0; i < 4; i++)
		input_model_synthetic(&m[i], (enum input_kind)i);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		CHECK(input_model_has(&m[want[i][0]], want[i][1], want[i][2]));
	CHECK_STR(m[INPUT_TABLET].name, "vhost-user-multi tablet");
	CHECK(!input_model_has(&m[INPUT_KEYBOARD], EV_KEY, BTN_LEFT));
	CHECK_EQ(m[INPUT_MULTITOUCH].abs[ABS_MT_SLOT].maximum, 9);
	CHECK_EQ(m[INPUT_MULTITOUCH].props[0], 1 << INPUT_PROP_DIRECT);
	CHECK(input_model_same(&m[0], &m[0]));
	CHECK(!input_model_same(&m[INPUT_MOUSE], &m[INPUT_TABLET]));
}

/* --- backlog --- */

struct test {
	struct input_model m;
	struct input_backlog l;
};

static struct test *test_new(enum input_kind kind)
{
	struct test *t = calloc(1, sizeof(*t));

	CHECK(t);
	input_model_synthetic(&t->m, kind);
	input_backlog_init(&t->l, &t->m);
	return t;
}

static void add(struct test *t, unsigned type, unsigned code, int value)
{
	input_backlog_add(&t->l, type, code, value);
}

static void syn(struct test *t)
{
	add(t, EV_SYN, SYN_REPORT, 0);
}

static void key(struct test *t, unsigned code, int value)
{
	add(t, EV_KEY, code, value);
	syn(t);
}

static void expect(struct test *t, unsigned type, unsigned code, int value)
{
	struct input_ev ev = {0};

	if (!input_backlog_peek(&t->l, &ev))
		FAIL("expected event %u:%u=%d, got none", type, code, value);
	if (ev.type != type || ev.code != code || ev.value != value)
		FAIL("expected event %u:%u=%d, got %u:%u=%d", type, code, value, ev.type, ev.code, ev.value);
	input_backlog_take(&t->l);
}

static void expect_syn(struct test *t)
{
	expect(t, EV_SYN, SYN_REPORT, 0);
}

static void expect_key(struct test *t, unsigned code, int value)
{
	expect(t, EV_KEY, code, value);
	expect_syn(t);
}

static void expect_none(struct test *t)
{
	struct input_ev ev;

	if (input_backlog_peek(&t->l, &ev))
		FAIL("expected no event, got %u:%u=%d", ev.type, ev.code, ev.value);
}

static void reports_are_whole(void *arg)
{
	struct test *t = test_new(INPUT_TABLET);

	(void)arg;
	add(t, EV_ABS, ABS_X, 5);
	expect_none(t); /* not before it is complete */
	add(t, EV_ABS, ABS_Y, 6);
	add(t, EV_KEY, BTN_LEFT, 1);
	expect_none(t);
	syn(t);
	expect(t, EV_ABS, ABS_X, 5);
	expect(t, EV_ABS, ABS_Y, 6);
	expect(t, EV_KEY, BTN_LEFT, 1);
	expect_syn(t);
	expect_none(t);
	free(t);
}

static void only_input_passes(void *arg)
{
	struct test *t = test_new(INPUT_KEYBOARD);

	(void)arg;
	add(t, EV_LED, LED_CAPSL, 1); /* an echo */
	add(t, EV_REP, REP_DELAY, 100);
	add(t, EV_KEY, BTN_LEFT, 1); /* not this device's */
	add(t, EV_REL, REL_X, 1);
	add(t, EV_KEY, 0xffff, 1);
	add(t, 0xffff, 0, 1);
	add(t, EV_SYN, SYN_DROPPED, 0);
	syn(t); /* nothing is left of the report: no report */
	expect_none(t);
	key(t, KEY_A, 1);
	key(t, KEY_A, 2); /* the guest repeats */
	key(t, KEY_A, -7);
	key(t, KEY_A, 0);
	expect_key(t, KEY_A, 1);
	expect_key(t, KEY_A, 1);
	expect_key(t, KEY_A, 0);
	expect_none(t);
	free(t);

	t = test_new(INPUT_MOUSE); /* has no EV_REP */
	key(t, BTN_LEFT, 1);
	key(t, BTN_LEFT, 2);
	expect_key(t, BTN_LEFT, 1);
	expect_key(t, BTN_LEFT, 2);
	free(t);
}

static void overflow_recovers(void *arg)
{
	struct test *t = test_new(INPUT_TABLET);
	struct input_ev ev;
	unsigned n = 0;

	(void)arg;
	add(t, EV_KEY, BTN_LEFT, 1);
	add(t, EV_ABS, ABS_X, 1);
	syn(t);
	expect(t, EV_KEY, BTN_LEFT, 1); /* begun */
	for (int i = 2; t->l.overflows == 0; i++, n++) {
		add(t, EV_ABS, ABS_X, i);
		add(t, EV_ABS, ABS_Y, i);
		add(t, EV_REL, REL_WHEEL, 1);
		syn(t);
		CHECK(n < INPUT_BACKLOG);
	}
	CHECK(n > INPUT_BACKLOG / 4 - 3);
	add(t, EV_KEY, BTN_LEFT, 0);
	add(t, EV_KEY, BTN_RIGHT, 1);
	add(t, EV_KEY, BTN_EXTRA, 1);
	add(t, EV_ABS, ABS_Y, 12345);
	syn(t);
	key(t, BTN_EXTRA, 0);
	CHECK(!input_backlog_room(&t->l));

	expect(t, EV_ABS, ABS_X, 1); /* the rest of what was begun */
	expect_syn(t);
	add(t, EV_ABS, ABS_X, 777); /* in the midst of a report there is no state to tell */
	expect_none(t);
	CHECK(input_backlog_room(&t->l));
	syn(t);
	expect(t, EV_SYN, SYN_DROPPED, 0);
	expect_syn(t);
	expect(t, EV_KEY, BTN_LEFT, 0);
	expect(t, EV_KEY, BTN_RIGHT, 1);
	expect(t, EV_ABS, ABS_X, 777);
	expect(t, EV_ABS, ABS_Y, 12345);
	expect_syn(t);
	CHECK(!input_backlog_peek(&t->l, &ev));

	key(t, BTN_RIGHT, 0); /* and all goes on */
	expect_key(t, BTN_RIGHT, 0);
	CHECK_EQ(t->l.overflows, 1);
	free(t);
}

/* Again and again, with a guest that takes a few events at a time: its idea of the state is right in the end. */
static void overflow_keeps_state(void *arg)
{
	struct test *t = test_new(INPUT_MULTITOUCH);
	struct input_state state;
	bool whole = true;
	unsigned seed = 1;
	struct input_ev ev;

	(void)arg;
	input_state_init(&state);
	for (int i = 0; i < 100000; i++) {
		unsigned r = rand_r(&seed), slot = r >> 8 & 7;

		add(t, EV_ABS, ABS_MT_SLOT, (int)slot);
		add(t, EV_ABS, ABS_MT_TRACKING_ID, r & 1 ? (int)(r >> 16 & 0xff) : -1);
		if (r & 1)
			add(t, EV_ABS, ABS_MT_POSITION_X, (int)(r >> 3 & 0xfff));
		add(t, EV_KEY, BTN_TOUCH, r & 2);
		syn(t);
		if (r % 5 == 0)
			for (unsigned n = r >> 20 & 31; n && input_backlog_peek(&t->l, &ev); n--)
				input_backlog_take(&t->l);
	}
	CHECK(t->l.overflows > 10);
	while (input_backlog_peek(&t->l, &ev)) {
		whole = ev.type == EV_SYN && ev.code == SYN_REPORT;
		input_backlog_take(&t->l);
	}
	CHECK(whole);
	state = t->l.host;
	CHECK_MEM(t->l.guest.key, state.key, sizeof(state.key));
	CHECK_EQ(t->l.guest.slot, state.slot);
	for (unsigned i = 0; i < INPUT_SLOTS; i++) {
		CHECK_EQ(t->l.guest.contact[i][INPUT_MT_ID], state.contact[i][INPUT_MT_ID]);
		if (state.contact[i][INPUT_MT_ID] >= 0)
			CHECK_MEM(t->l.guest.contact[i], state.contact[i], sizeof(state.contact[i]));
	}
	free(t);
}

/* A report without end neither fills memory nor blocks what comes after it. */
static void endless_report(void *arg)
{
	struct test *t = test_new(INPUT_MOUSE);

	(void)arg;
	key(t, BTN_LEFT, 1);
	expect_key(t, BTN_LEFT, 1);
	for (int i = 0; i < 3 * INPUT_BACKLOG; i++) {
		CHECK(input_backlog_room(&t->l));
		add(t, EV_REL, REL_X, 1);
	}
	add(t, EV_KEY, BTN_LEFT, 0);
	expect_none(t);
	syn(t);
	CHECK(!input_backlog_room(&t->l)); /* until the guest has been told */
	expect(t, EV_SYN, SYN_DROPPED, 0);
	expect_syn(t);
	expect_key(t, BTN_LEFT, 0);
	expect_none(t);
	CHECK(input_backlog_room(&t->l));
	free(t);
}

static void release_lets_go(void *arg)
{
	struct test *t = test_new(INPUT_MULTITOUCH);

	(void)arg;
	add(t, EV_ABS, ABS_MT_SLOT, 3);
	add(t, EV_ABS, ABS_MT_TRACKING_ID, 40);
	add(t, EV_ABS, ABS_MT_POSITION_X, 100);
	add(t, EV_KEY, BTN_TOUCH, 1);
	add(t, EV_ABS, ABS_X, 100);
	syn(t);
	add(t, EV_ABS, ABS_MT_POSITION_X, 200); /* unfinished: void */
	input_backlog_release(&t->l);
	expect(t, EV_ABS, ABS_MT_SLOT, 3);
	expect(t, EV_ABS, ABS_MT_TRACKING_ID, 40);
	expect(t, EV_ABS, ABS_MT_POSITION_X, 100);
	expect(t, EV_KEY, BTN_TOUCH, 1);
	expect(t, EV_ABS, ABS_X, 100);
	expect_syn(t);
	expect(t, EV_ABS, ABS_MT_TRACKING_ID, -1);
	expect(t, EV_KEY, BTN_TOUCH, 0);
	expect_syn(t);
	input_backlog_release(&t->l); /* nothing is held any more */
	expect_none(t);
	free(t);
}

static void sync_tells_changes(void *arg)
{
	struct test *t = test_new(INPUT_KEYBOARD);
	struct input_state now;

	(void)arg;
	input_model_add(&t->m, EV_SW, SW_LID);
	key(t, KEY_A, 1);
	key(t, KEY_B, 1);
	expect_key(t, KEY_A, 1);
	now = t->l.host;
	now.key[KEY_A / 8] &= (uint8_t) ~(1 << KEY_A % 8);
	now.key[KEY_C / 8] |= 1 << KEY_C % 8; /* pressed while nobody listened: not the guest's */
	now.sw[0] = 1 << SW_LID;
	input_backlog_sync(&t->l, &now);
	expect_key(t, KEY_B, 1); /* what was there goes first */
	expect(t, EV_KEY, KEY_A, 0);
	expect(t, EV_SW, SW_LID, 1);
	expect_syn(t);
	key(t, KEY_C, 0);
	expect_key(t, KEY_C, 0);
	expect_none(t);
	free(t);
}

static void restart_forgets(void *arg)
{
	struct test *t = test_new(INPUT_TABLET);

	(void)arg;
	add(t, EV_ABS, ABS_X, 10);
	add(t, EV_KEY, BTN_LEFT, 1);
	syn(t);
	key(t, BTN_RIGHT, 1);
	expect(t, EV_ABS, ABS_X, 10);
	add(t, EV_ABS, ABS_Y, 20);
	input_backlog_restart(&t->l);
	add(t, EV_ABS, ABS_X, 30); /* the rest of a report that was begun before */
	syn(t);
	expect(t, EV_ABS, ABS_X, 10); /* axes are told, keys are not */
	expect_syn(t);
	key(t, BTN_LEFT, 0);
	expect_key(t, BTN_LEFT, 0);
	expect_none(t);
	free(t);
}

/* --- text --- */

static struct input_line line;

static const char *parse(const char *text)
{
	char copy[256];

	snprintf(copy, sizeof(copy), "%s", text);
	return input_text_parse(&line, copy);
}

static void check_event(unsigned i, unsigned type, unsigned code, int value)
{
	CHECK(i < line.n);
	CHECK_EQ(line.events[i].type, type);
	CHECK_EQ(line.events[i].code, code);
	CHECK_EQ(line.events[i].value, value);
}

static void text_is_parsed(void *arg)
{
	(void)arg;
	CHECK(!parse("KEY_A=1"));
	CHECK_EQ(line.n, 1);
	CHECK_EQ(line.delay_ns, 0);
	check_event(0, EV_KEY, KEY_A, 1);
	CHECK(!parse("  +1.25\tABS_X=-3 1:30=0 BTN_LEFT=1   SYN_MT_REPORT=0 # and so on"));
	CHECK_EQ(line.delay_ns, UINT64_C(1250000000));
	CHECK_EQ(line.n, 4);
	check_event(0, EV_ABS, ABS_X, -3);
	check_event(1, EV_KEY, KEY_A, 0);
	check_event(2, EV_KEY, BTN_LEFT, 1);
	check_event(3, EV_SYN, SYN_MT_REPORT, 0);
	CHECK(!parse("+0.0000019"));
	CHECK_EQ(line.delay_ns, 1000);
	CHECK_EQ(line.n, 0);
	CHECK(!parse("REL_X=-2147483648 REL_Y=2147483647\r"));
	check_event(0, EV_REL, REL_X, INT32_MIN);
	check_event(1, EV_REL, REL_Y, INT32_MAX);
	CHECK(!parse(""));
	CHECK(!parse("   # a comment"));
	CHECK_EQ(line.n, 0);
}

static void text_is_refused(void *arg)
{
	static const char *const bad[] = {"KEY_A", "KEY_A=", "KEY_A=x", "KEY_A=1x", "=1", "KEY_NONE=1",
		"EV_KEY=1", "key_a=1", "1:768=1", "32:0=1", "-1:0=1", "1:=1", ":1=1", "1:2:3=4",
		"REL_X=2147483648", "REL_X=99999999999999999999", "+ KEY_A=1", "+-1", "+.5", "+1.5s",
		"+1.2.3", "+86401", "+1e3", "+99999999999999999999", "KEY_A=1 +1", "SYN_REPORT=0",
		"SYN_DROPPED=0", "\xff=1"};
	char *text = malloc(INPUT_LINE);

	(void)arg;
	CHECK(text);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!parse(bad[i]))
			FAIL("\"%s\" was taken", bad[i]);
	for (unsigned i = 0; i <= INPUT_LINE_EVENTS; i++)
		memcpy(text + i * 6, "1:1=1 ", 7);
	CHECK_STR(input_text_parse(&line, text), "too many events in a report");
	free(text);
}

static void text_is_printed(void *arg)
{
	struct input_line out = {.delay_ns = 1500000, .n = 3};
	char text[INPUT_LINE];
	size_t n;

	(void)arg;
	out.events[0] = (struct input_ev){EV_KEY, BTN_LEFT, 1};
	out.events[1] = (struct input_ev){EV_ABS, 0x3f, -5};
	out.events[2] = (struct input_ev){EV_KEY, 0x2fe, 0};
	n = input_text_print(&out, text, sizeof(text));
	CHECK_EQ(text[n - 1], '\n');
	text[n - 1] = '\0';
	CHECK_STR(text, "+0.001500 BTN_LEFT=1 ABS_MAX=-5 1:766=0");
	CHECK(!input_text_parse(&line, text));
	CHECK_EQ(line.delay_ns, out.delay_ns);
	CHECK_MEM(line.events, out.events, 3 * sizeof(line.events[0]));

	out = (struct input_line){.n = INPUT_LINE_EVENTS}; /* the longest line fits */
	for (unsigned i = 0; i < out.n; i++)
		out.events[i] = (struct input_ev){EV_ABS, ABS_MT_TRACKING_ID, INT32_MIN};
	n = input_text_print(&out, text, sizeof(text));
	CHECK(n > INPUT_LINE_EVENTS);
	text[n - 1] = '\0';
	CHECK(!input_text_parse(&line, text));
	CHECK_EQ(line.n, INPUT_LINE_EVENTS);
	for (size_t size = 1; size < 40; size++) /* or none of it does */
		CHECK_EQ(input_text_print(&out, text, size), 0);
	out.n = 0;
	CHECK_EQ(input_text_print(&out, text, sizeof(text)), 0);
}

int main(void)
{
	tap_case("the configuration space tells the model", config_is_told, NULL);
	tap_case("what there is not has no size", config_is_absent, NULL);
	tap_case("synthetic kinds", kinds_are_described, NULL);
	tap_case("reports are given whole", reports_are_whole, NULL);
	tap_case("echoes, repetitions and foreign codes do not pass", only_input_passes, NULL);
	tap_case("an overflow drops reports and recovers the state", overflow_recovers, NULL);
	tap_case("many overflows keep the state", overflow_keeps_state, NULL);
	tap_case("a report without end", endless_report, NULL);
	tap_case("a device that goes lets go of keys and contacts", release_lets_go, NULL);
	tap_case("a pause: changes are told", sync_tells_changes, NULL);
	tap_case("a new driver is told axes, not keys", restart_forgets, NULL);
	tap_case("text is parsed", text_is_parsed, NULL);
	tap_case("wrong text is refused", text_is_refused, NULL);
	tap_case("text is printed", text_is_printed, NULL);
	return tap_done();
}
