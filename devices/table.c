/* SPDX-License-Identifier: MIT */
/* The device table, made of list.h. */
#include "table.h"

#define PLANNED(name)
#define DEVICE(name) extern const struct device device_##name;
#include "list.h"
#undef DEVICE

const struct device *const device_table[] = {
#define DEVICE(name) &device_##name,
#include "list.h"
#undef DEVICE
	NULL,
};
#undef PLANNED

const char *const device_planned[] = {
#define DEVICE(name)
#define PLANNED(name) #name,
#include "list.h"
	NULL,
};
