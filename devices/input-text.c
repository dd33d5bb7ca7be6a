/* SPDX-License-Identifier: MIT */
/* See input-text.h. */
#include "input-text.h"

#include <errno.h>
#include <libevdev/libevdev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MICROSECONDS = 1000000, DELAY_MAX_S = 24 * 60 * 60 };

static bool parse_number(const char *text, long long min, long long max, long long *out)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	return end != text && !*end && !errno && *out >= min && *out <= max;
}

/* "12", "0.25": seconds, to the microsecond. */
static const char *parse_delay(char *text, uint64_t *ns)
{
	char *point = strchr(text, '.');
	long long seconds, micro = 0;
	size_t digits, i;

	if (point)
		*point++ = '\0';
	if (*text < '0' || *text > '9' || !parse_number(text, 0, DELAY_MAX_S, &seconds))
		return "a delay is +SECONDS, at most a day";
	digits = point ? strlen(point) : 0;
	for (i = 0; i < digits; i++)
		if (point[i] < '0' || point[i] > '9')
			return "a delay is +SECONDS, at most a day";
	for (i = 0; i < 6; i++)
		micro = micro * 10 + (i < digits ? point[i] - '0' : 0);
	*ns = ((uint64_t)seconds * MICROSECONDS + (uint64_t)micro) * 1000;
	return NULL;
}

static bool parse_code(char *text, struct input_ev *ev)
{
	char *colon = strchr(text, ':');
	long long type, code;
	int named;

	if (colon) {
		*colon = '\0';
		if (!parse_number(text, 0, EV_MAX, &type) || !parse_number(colon + 1, 0, KEY_MAX, &code))
			return false;
	} else {
		type = libevdev_event_type_from_code_name(text);
		named = type < 0 ? -1 : libevdev_event_code_from_code_name(text);
		if (named < 0)
			return false;
		code = named;
	}
	ev->type = (uint16_t)type;
	ev->code = (uint16_t)code;
	return true;
}

static const char *parse_event(char *text, struct input_ev *ev)
{
	char *equals = strchr(text, '=');
	long long value;

	if (!equals)
		return "an event is CODE=VALUE";
	*equals = '\0';
	if (!parse_code(text, ev))
		return "there is no such code";
	if (!parse_number(equals + 1, INT32_MIN, INT32_MAX, &value))
		return "a value is a number of 32 bits";
	if (ev->type == EV_SYN && ev->code != SYN_MT_REPORT)
		return "the end of the line ends the report";
	ev->value = (int32_t)value;
	return NULL;
}

const char *input_text_parse(struct input_line *line, char *text)
{
	const char *blank = " \t\r", *why;
	char *save = NULL, *word;
	bool first = true;

	text[strcspn(text, "#")] = '\0';
	line->n = 0;
	line->delay_ns = 0;
	for (word = strtok_r(text, blank, &save); word; word = strtok_r(NULL, blank, &save), first = false) {
		if (first && *word == '+') {
			why = parse_delay(word + 1, &line->delay_ns);
		} else if (line->n == INPUT_LINE_EVENTS) {
			why = "too many events in a report";
		} else {
			why = parse_event(word, &line->events[line->n++]);
		}
		if (why)
			return why;
	}
	return NULL;
}

static int print_event(const struct input_ev *ev, char *text, size_t size)
{
	const char *name = libevdev_event_code_get_name(ev->type, ev->code);

	if (name)
		return snprintf(text, size, " %s=%d", name, ev->value);
	return snprintf(text, size, " %u:%u=%d", ev->type, ev->code, ev->value);
}

size_t input_text_print(const struct input_line *line, char *text, size_t size)
{
	uint64_t us = line->delay_ns / 1000;
	size_t at = 0;
	unsigned i;
	int n;

	if (us) {
		n = snprintf(text, size, " +%llu.%06llu", (unsigned long long)(us / MICROSECONDS),
			(unsigned long long)(us % MICROSECONDS));
		at = (size_t)n;
	}
	for (i = 0; i < line->n && at < size; i++)
		at += (size_t)print_event(&line->events[i], text + at, size - at);
	if (!at || at >= size)
		return 0;
	memmove(text, text + 1, --at); /* the first blank */
	text[at++] = '\n';
	return at;
}
