/* SPDX-License-Identifier: MIT */
/* See input-backlog.h. */
#include "input-backlog.h"

#include <string.h>

#include "log.h"
#include "util.h"

/* State */

static bool bit_of(const uint8_t *bits, unsigned n)
{
	return bits[n / 8] >> n % 8 & 1;
}

static void bit_set(uint8_t *bits, unsigned n, bool on)
{
	if (on)
		bits[n / 8] |= (uint8_t)(1 << n % 8);
	else
		bits[n / 8] &= (uint8_t) ~(1 << n % 8);
}

void input_state_init(struct input_state *s)
{
	unsigned i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < INPUT_SLOTS; i++)
		s->contact[i][INPUT_MT_ID] = -1;
}

static bool is_contact(const struct input_model *m, unsigned code)
{
	return code >= INPUT_MT_FIRST && code < INPUT_MT_FIRST + INPUT_MT_CNT &&
	       input_model_has(m, EV_ABS, ABS_MT_SLOT);
}

static void apply_abs(struct input_state *s, const struct input_model *m, unsigned code, int32_t value)
{
	if (code == ABS_MT_SLOT)
		s->slot = value;
	else if (!is_contact(m, code))
		s->abs[code] = value;
	else if (s->slot >= 0 && s->slot < INPUT_SLOTS)
		s->contact[s->slot][code - INPUT_MT_FIRST] = value;
}

static void apply(struct input_state *s, const struct input_model *m, const struct input_ev *ev)
{
	switch (ev->type) {
	case EV_KEY:
		if (ev->value != 2)
			bit_set(s->key, ev->code, ev->value);
		break;
	case EV_SW:
		bit_set(s->sw, ev->code, ev->value);
		break;
	case EV_ABS:
		apply_abs(s, m, ev->code, ev->value);
		break;
	default:
		break;
	}
}

/* No key and no contact that `held` has not. */
static void release(struct input_state *s, const struct input_state *held)
{
	size_t i;

	for (i = 0; i < sizeof(s->key); i++)
		s->key[i] &= held->key[i];
	for (i = 0; i < INPUT_SLOTS; i++)
		if (held->contact[i][INPUT_MT_ID] < 0)
			s->contact[i][INPUT_MT_ID] = -1;
}

/* The ring */

static struct input_ev *at(struct input_backlog *l, uint32_t pos)
{
	return &l->ring[pos % INPUT_BACKLOG];
}

static bool ends_report(const struct input_ev *ev)
{
	return ev->type == EV_SYN && ev->code == SYN_REPORT;
}

/* What was begun is finished, the rest goes, what came in of the next report counts. */
static void overflow(struct input_backlog *l)
{
	uint32_t pos = l->tail, end = l->head;

	for (; pos != l->fill; pos++)
		apply(&l->host, l->model, at(l, pos));
	while (l->begun && end != l->tail && !ends_report(at(l, end++)))
		;
	log_guest_info("the guest does not take its events: %u are dropped", l->fill - end);
	l->midway = l->fill != l->tail;
	l->tail = l->fill = end;
	l->dropping = true;
	l->overflows++;
}

static void put(struct input_backlog *l, struct input_ev ev)
{
	if (!l->dropping && l->fill - l->head == INPUT_BACKLOG)
		overflow(l);
	if (l->dropping) {
		apply(&l->host, l->model, &ev);
		l->midway = true;
		return;
	}
	*at(l, l->fill++) = ev;
}

/* The kernel marks its own reports, such as repetitions, in the value of SYN_REPORT; that means nothing to a guest. */
static void commit(struct input_backlog *l)
{
	if (!l->dropping && l->fill != l->tail)
		put(l, (struct input_ev){EV_SYN, SYN_REPORT, 0});
	l->midway = false;
	for (; l->tail != l->fill; l->tail++)
		apply(&l->host, l->model, at(l, l->tail));
}

static bool passes(const struct input_model *m, unsigned type, unsigned code, int32_t value)
{
	switch (type) {
	case EV_SYN:
		return code == SYN_MT_REPORT;
	case EV_KEY:
		return input_model_has(m, type, code) && (value != 2 || !input_model_has_type(m, EV_REP));
	case EV_REL:
	case EV_ABS:
	case EV_MSC:
	case EV_SW:
		return input_model_has(m, type, code);
	default:
		return false;
	}
}

void input_backlog_add(struct input_backlog *l, unsigned type, unsigned code, int32_t value)
{
	bool end = type == EV_SYN && code == SYN_REPORT;

	if (l->skip) {
		l->skip = !end;
		return;
	}
	if (type == EV_SW || (type == EV_KEY && value != 2))
		value = !!value;
	if (end)
		commit(l);
	else if (passes(l->model, type, code, value))
		put(l, (struct input_ev){(uint16_t)type, (uint16_t)code, value});
}

/* Differences */

static void select_slot(struct input_backlog *l, int32_t *current, int32_t slot)
{
	if (*current != slot)
		input_backlog_add(l, EV_ABS, ABS_MT_SLOT, slot);
	*current = slot;
}

static void change_contact(
	struct input_backlog *l, int32_t *current, int32_t slot, const int32_t *from, const int32_t *to)
{
	unsigned i;

	for (i = 0; i < INPUT_MT_CNT; i++) {
		if (from[i] == to[i] || (to[INPUT_MT_ID] < 0 && i != INPUT_MT_ID))
			continue;
		select_slot(l, current, slot);
		input_backlog_add(l, EV_ABS, INPUT_MT_FIRST + i, to[i]);
	}
}

/* A contact that became another one is lifted first, in a report of its own. */
static void lift_contacts(struct input_backlog *l, struct input_state *from, const struct input_state *to)
{
	bool lifted = false;
	int i;

	for (i = 0; i < INPUT_SLOTS; i++) {
		int32_t *id = &from->contact[i][INPUT_MT_ID], next = to->contact[i][INPUT_MT_ID];

		if (*id < 0 || next < 0 || *id == next)
			continue;
		select_slot(l, &from->slot, i);
		input_backlog_add(l, EV_ABS, ABS_MT_TRACKING_ID, -1);
		*id = -1;
		lifted = true;
	}
	if (lifted)
		commit(l);
}

static void change_contacts(struct input_backlog *l, struct input_state *from, const struct input_state *to)
{
	int i;

	if (!input_model_has(l->model, EV_ABS, ABS_MT_SLOT))
		return;
	lift_contacts(l, from, to);
	for (i = 0; i < INPUT_SLOTS; i++)
		change_contact(l, &from->slot, i, from->contact[i], to->contact[i]);
	select_slot(l, &from->slot, to->slot);
}

/* Releases first, so that no chord comes about that never was. */
static void change_keys(struct input_backlog *l, const struct input_state *from, const struct input_state *to)
{
	int value;
	unsigned i;

	for (value = 0; value <= 1; value++)
		for (i = 0; i < KEY_CNT; i++)
			if (bit_of(from->key, i) != bit_of(to->key, i) && bit_of(to->key, i) == value)
				input_backlog_add(l, EV_KEY, i, value);
}

/* Queues a report that leads from the host's last state to this one. */
static void change(struct input_backlog *l, const struct input_state *to)
{
	struct input_state from = l->host, next = *to;
	unsigned i;

	change_contacts(l, &from, &next);
	change_keys(l, &from, &next);
	for (i = 0; i < SW_CNT; i++)
		if (bit_of(from.sw, i) != bit_of(next.sw, i))
			input_backlog_add(l, EV_SW, i, bit_of(next.sw, i));
	for (i = 0; i < ABS_CNT; i++)
		if (i != ABS_MT_SLOT && !is_contact(l->model, i) && from.abs[i] != next.abs[i])
			input_backlog_add(l, EV_ABS, i, next.abs[i]);
	commit(l);
	l->host = next;
}

static void drop_unfinished(struct input_backlog *l)
{
	l->fill = l->tail;
	l->midway = l->skip = false;
}

void input_backlog_release(struct input_backlog *l)
{
	struct input_state now = l->host, none;

	drop_unfinished(l);
	input_state_init(&none);
	release(&now, &none);
	change(l, &now);
}

void input_backlog_sync(struct input_backlog *l, const struct input_state *state)
{
	struct input_state now = *state;

	drop_unfinished(l);
	release(&now, &l->host);
	change(l, &now);
}

void input_backlog_restart(struct input_backlog *l)
{
	struct input_state now = l->host;
	bool unfinished = l->skip || l->midway || l->fill != l->tail;

	input_backlog_init(l, l->model);
	release(&now, &l->host);
	change(l, &now);
	l->skip = unfinished;
}

void input_backlog_init(struct input_backlog *l, const struct input_model *model)
{
	l->model = model;
	l->head = l->tail = l->fill = 0;
	l->begun = l->dropping = l->midway = l->skip = false;
	input_state_init(&l->host);
	input_state_init(&l->guest);
}

/* The guest's side */

static void recover(struct input_backlog *l)
{
	struct input_state now = l->host;

	l->dropping = false;
	l->host = l->guest;
	put(l, (struct input_ev){EV_SYN, SYN_DROPPED, 0});
	commit(l);
	change(l, &now);
}

bool input_backlog_peek(struct input_backlog *l, struct input_ev *ev)
{
	if (l->head == l->tail && l->dropping && !l->midway)
		recover(l);
	if (l->head == l->tail)
		return false;
	*ev = *at(l, l->head);
	return true;
}

void input_backlog_take(struct input_backlog *l)
{
	const struct input_ev *ev = at(l, l->head++);

	l->begun = !ends_report(ev);
	apply(&l->guest, l->model, ev);
}

bool input_backlog_room(const struct input_backlog *l)
{
	if (l->dropping)
		return l->midway;
	return l->head == l->tail || INPUT_BACKLOG - (l->fill - l->head) >= INPUT_BACKLOG_ROOM;
}
