/* SPDX-License-Identifier: MIT */
/*
 * What happened on the input device and was not given to the guest yet: a bounded ring of events, in whole reports
 * (all up to a SYN_REPORT). A report is given only when it is complete, one event per buffer of the guest, so it may
 * be spread over many refills of a small ring, but once begun it is finished.
 *
 * When the ring is full, all reports that were not begun are dropped, and those that follow, until the guest has
 * taken the rest. It then gets SYN_DROPPED and SYN_REPORT, and one report with the difference between what it was
 * told and how things are now: keys, switches, axes, contacts. For that both are tracked. The same tracking releases
 * what is held when the device goes away.
 *
 * Only keys, relative and absolute axes, switches and MSC pass. LEDs, sounds and the repeat rate are the guest's to
 * set: an echo of what it wrote, given back late, would set it again, for ever. A guest that was offered EV_REP
 * repeats keys itself, so the host's repetitions are left out.
 */
#ifndef INPUT_BACKLOG_H
#define INPUT_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "input-model.h"

enum {
	INPUT_BACKLOG = 4096,	   /* events; more than the largest difference of states */
	INPUT_BACKLOG_ROOM = 1024, /* events that fit while there is room */
	INPUT_SLOTS = 64,	   /* contacts that are tracked */
	INPUT_MT_FIRST = ABS_MT_TOUCH_MAJOR,
	INPUT_MT_CNT = ABS_MT_TOOL_Y - INPUT_MT_FIRST + 1,
	INPUT_MT_ID = ABS_MT_TRACKING_ID - INPUT_MT_FIRST,
};

struct input_ev {
	uint16_t type, code;
	int32_t value;
};

struct input_state {
	uint8_t key[KEY_CNT / 8], sw[(SW_CNT + 7) / 8];
	int32_t abs[ABS_CNT];
	int32_t slot; /* current contact */
	int32_t contact[INPUT_SLOTS][INPUT_MT_CNT];
};

struct input_backlog {
	const struct input_model *model;
	struct input_ev ring[INPUT_BACKLOG];
	/* The next to be given, the end of complete reports, the end of the one that is coming in; they only grow. */
	uint32_t head, tail, fill;
	bool begun;		  /* part of the report at head was given */
	bool dropping;		  /* reports go to `host` only */
	bool midway;		  /* while dropping: in the midst of a report */
	bool skip;		  /* the rest of a report whose beginning is forgotten */
	struct input_state host;  /* after all complete reports */
	struct input_state guest; /* after all that was given */
	uint64_t overflows;
};

/* Of a zeroed or used one: a guest that knows nothing. The model is borrowed. */
void input_backlog_init(struct input_backlog *l, const struct input_model *model);
/* The host's event, SYN_REPORT ends a report. */
void input_backlog_add(struct input_backlog *l, unsigned type, unsigned code, int32_t value);
/* The device is gone: an unfinished report is void, keys and contacts are released. */
void input_backlog_release(struct input_backlog *l);
/* The device is now in this state, apart from keys and contacts that are only held now: a report says what changed. */
void input_backlog_sync(struct input_backlog *l, const struct input_state *now);
/* A new driver, which knows nothing: forgets all reports; switches and axes are told in a new one. */
void input_backlog_restart(struct input_backlog *l);

/* The next event for the guest. False: none. */
bool input_backlog_peek(struct input_backlog *l, struct input_ev *ev);
/* It was given. */
void input_backlog_take(struct input_backlog *l);
/* A source that can wait should do so while there is none. There is room for the rest of a report without end. */
bool input_backlog_room(const struct input_backlog *l);

void input_state_init(struct input_state *s);

#endif
