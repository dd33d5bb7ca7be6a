/* SPDX-License-Identifier: MIT */
/*
 * What an input device is, as the guest reads it from the configuration space (virtio 1.3, 5.8.4): its name, its
 * identity, and the events it can send or take. Also the three synthetic ones of --kind.
 */
#ifndef INPUT_MODEL_H
#define INPUT_MODEL_H

#include <linux/input.h>
#include <linux/virtio_input.h>
#include <stdbool.h>
#include <stdint.h>

enum { INPUT_STRING = 128 }; /* bytes of a string in the configuration space, which has no NUL there */

enum input_kind { INPUT_KEYBOARD, INPUT_MOUSE, INPUT_TABLET, INPUT_MULTITOUCH };

extern const char *const input_kind_names[]; /* of enum input_kind, NULL at the end */

struct input_model {
	char name[INPUT_STRING + 1], serial[INPUT_STRING + 1];
	struct input_id id;
	uint8_t props[INPUT_PROP_CNT / 8];
	uint8_t codes[EV_CNT][KEY_CNT / 8]; /* a bit for each code of a type */
	struct input_absinfo abs[ABS_CNT];  /* of the axes that codes[EV_ABS] has */
};

/* Of any numbers; what is no type or code is ignored, or not there. */
void input_model_add(struct input_model *m, unsigned type, unsigned code);
bool input_model_has(const struct input_model *m, unsigned type, unsigned code);
bool input_model_has_type(const struct input_model *m, unsigned type);
/* An axis with its range and resolution in units per mm. */
void input_model_add_axis(struct input_model *m, unsigned code, int min, int max, int resolution);
/* What a device must not change while a guest drives it. */
bool input_model_same(const struct input_model *a, const struct input_model *b);

/* Fills a zeroed *m. */
void input_model_synthetic(struct input_model *m, enum input_kind kind);

/* Sets size and content of *c as its select and subsel ask; size 0: there is no such thing. */
void input_model_config(const struct input_model *m, struct virtio_input_config *c);

#endif
