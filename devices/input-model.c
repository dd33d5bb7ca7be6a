/* SPDX-License-Identifier: MIT */
/* See input-model.h. */
#include "input-model.h"

#include <endian.h>
#include <string.h>

#include "util.h"

const char *const input_kind_names[] = {"keyboard", "mouse", "tablet", "multitouch", NULL};

static unsigned codes_of(unsigned type)
{
	switch (type) {
	case EV_ABS:
		return ABS_CNT;
	case EV_SW:
		return SW_CNT;
	default:
		return type < EV_CNT ? KEY_CNT : 0;
	}
}

void input_model_add(struct input_model *m, unsigned type, unsigned code)
{
	if (code < codes_of(type))
		m->codes[type][code / 8] |= (uint8_t)(1 << code % 8);
}

bool input_model_has(const struct input_model *m, unsigned type, unsigned code)
{
	return type < EV_CNT && code < KEY_CNT && m->codes[type][code / 8] >> code % 8 & 1;
}

/* Bytes of a bitmap up to the last one that is not zero. */
static uint8_t bitmap_size(const uint8_t *bits, size_t n)
{
	while (n && !bits[n - 1])
		n--;
	return (uint8_t)n;
}

bool input_model_has_type(const struct input_model *m, unsigned type)
{
	return type < EV_CNT && bitmap_size(m->codes[type], sizeof(m->codes[type]));
}

void input_model_add_axis(struct input_model *m, unsigned code, int min, int max, int resolution)
{
	input_model_add(m, EV_ABS, code);
	m->abs[code] = (struct input_absinfo){.minimum = min, .maximum = max, .resolution = resolution};
}

static bool same_axes(const struct input_model *a, const struct input_model *b)
{
	unsigned i;

	for (i = 0; i < ABS_CNT; i++)
		if (input_model_has(a, EV_ABS, i) &&
			(a->abs[i].minimum != b->abs[i].minimum || a->abs[i].maximum != b->abs[i].maximum))
			return false;
	return true;
}

bool input_model_same(const struct input_model *a, const struct input_model *b)
{
	return strcmp(a->name, b->name) == 0 && memcmp(&a->id, &b->id, sizeof(a->id)) == 0 &&
	       memcmp(a->props, b->props, sizeof(a->props)) == 0 &&
	       memcmp(a->codes, b->codes, sizeof(a->codes)) == 0 && same_axes(a, b);
}

/* Synthetic devices */

static void add_all(struct input_model *m, unsigned type, const uint16_t *codes, size_t n)
{
	while (n--)
		input_model_add(m, type, codes[n]);
}

static void synthetic_keyboard(struct input_model *m)
{
	unsigned code;

	for (code = KEY_ESC; code <= KEY_MICMUTE; code++)
		input_model_add(m, EV_KEY, code);
	for (code = LED_NUML; code <= LED_KANA; code++)
		input_model_add(m, EV_LED, code);
	input_model_add(m, EV_REP, REP_DELAY);
	input_model_add(m, EV_REP, REP_PERIOD);
}

/* Wheels without the high resolution codes: whoever announces those has to send them. */
static void synthetic_buttons(struct input_model *m)
{
	static const uint16_t keys[] = {BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA};
	static const uint16_t wheels[] = {REL_WHEEL, REL_HWHEEL};

	add_all(m, EV_KEY, keys, ARRAY_SIZE(keys));
	add_all(m, EV_REL, wheels, ARRAY_SIZE(wheels));
}

enum { AXIS_MAX = 32767, CONTACTS = 10, CONTACT_ID_MAX = 65535 };

static void synthetic_touch(struct input_model *m)
{
	input_model_add(m, EV_KEY, BTN_TOUCH);
	input_model_add_axis(m, ABS_X, 0, AXIS_MAX, 0);
	input_model_add_axis(m, ABS_Y, 0, AXIS_MAX, 0);
	input_model_add_axis(m, ABS_MT_SLOT, 0, CONTACTS - 1, 0);
	input_model_add_axis(m, ABS_MT_TRACKING_ID, 0, CONTACT_ID_MAX, 0);
	input_model_add_axis(m, ABS_MT_POSITION_X, 0, AXIS_MAX, 0);
	input_model_add_axis(m, ABS_MT_POSITION_Y, 0, AXIS_MAX, 0);
	m->props[0] = 1 << INPUT_PROP_DIRECT;
}

void input_model_synthetic(struct input_model *m, enum input_kind kind)
{
	strcpy(m->name, "vhost-user-multi ");
	strcat(m->name, input_kind_names[kind]);
	m->id = (struct input_id){.bustype = BUS_VIRTUAL, .product = (uint16_t)(kind + 1), .version = 1};
	switch (kind) {
	case INPUT_KEYBOARD:
		synthetic_keyboard(m);
		break;
	case INPUT_MOUSE:
		synthetic_buttons(m);
		input_model_add(m, EV_REL, REL_X);
		input_model_add(m, EV_REL, REL_Y);
		break;
	case INPUT_TABLET:
		synthetic_buttons(m);
		input_model_add_axis(m, ABS_X, 0, AXIS_MAX, 0);
		input_model_add_axis(m, ABS_Y, 0, AXIS_MAX, 0);
		break;
	case INPUT_MULTITOUCH:
		synthetic_touch(m);
		break;
	}
}

/* Configuration space */

static uint8_t config_string(struct virtio_input_config *c, const char *text)
{
	size_t n = strnlen(text, sizeof(c->u.string));

	memcpy(c->u.string, text, n);
	return (uint8_t)n;
}

static uint8_t config_bitmap(struct virtio_input_config *c, const uint8_t *bits, size_t n)
{
	memcpy(c->u.bitmap, bits, n);
	return bitmap_size(bits, n);
}

static uint8_t config_ids(struct virtio_input_config *c, const struct input_id *id)
{
	c->u.ids = (struct virtio_input_devids){
		.bustype = htole16(id->bustype),
		.vendor = htole16(id->vendor),
		.product = htole16(id->product),
		.version = htole16(id->version),
	};
	return sizeof(c->u.ids);
}

static uint8_t config_abs(struct virtio_input_config *c, const struct input_absinfo *abs)
{
	c->u.abs = (struct virtio_input_absinfo){
		.min = htole32((uint32_t)abs->minimum),
		.max = htole32((uint32_t)abs->maximum),
		.fuzz = htole32((uint32_t)abs->fuzz),
		.flat = htole32((uint32_t)abs->flat),
		.res = htole32((uint32_t)abs->resolution),
	};
	return sizeof(c->u.abs);
}

static uint8_t config_fill(const struct input_model *m, struct virtio_input_config *c)
{
	unsigned sub = c->subsel;

	switch (c->select) {
	case VIRTIO_INPUT_CFG_EV_BITS:
		return sub < EV_CNT ? config_bitmap(c, m->codes[sub], sizeof(m->codes[sub])) : 0;
	case VIRTIO_INPUT_CFG_ABS_INFO:
		return sub < ABS_CNT && input_model_has(m, EV_ABS, sub) ? config_abs(c, &m->abs[sub]) : 0;
	default:
		break;
	}
	if (sub)
		return 0;
	switch (c->select) {
	case VIRTIO_INPUT_CFG_ID_NAME:
		return config_string(c, m->name);
	case VIRTIO_INPUT_CFG_ID_SERIAL:
		return config_string(c, m->serial);
	case VIRTIO_INPUT_CFG_ID_DEVIDS:
		return config_ids(c, &m->id);
	case VIRTIO_INPUT_CFG_PROP_BITS:
		return config_bitmap(c, m->props, sizeof(m->props));
	default:
		return 0;
	}
}

void input_model_config(const struct input_model *m, struct virtio_input_config *c)
{
	memset(c->reserved, 0, sizeof(c->reserved));
	memset(&c->u, 0, sizeof(c->u));
	c->size = config_fill(m, c);
}
