/* SPDX-License-Identifier: MIT */
/*
 * Libraries that only one type needs are loaded when it opens: linked in, they would double the memory and the start-up time
 * of every other type. A library is a list of functions, from which a table of pointers with their types is made:
 *
 *	#define PNG_FUNCTIONS(F) F(png_image_write_to_stdio) F(png_image_free)
 *	LIBRARY(png_library, PNG_FUNCTIONS);                    // struct png_library
 *	#define PNG_SYMBOL(name) LIBRARY_SYMBOL(png_library, name)
 *	static struct png_library png;
 *	…
 *	static const struct library_symbol symbols[] = {PNG_FUNCTIONS(PNG_SYMBOL)};
 *	err = library_load("libpng16.so.16", symbols, ARRAY_SIZE(symbols), &png);
 */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stddef.h>

struct library_symbol {
	const char *name;
	size_t offset; /* of its pointer in the table */
};

#define LIBRARY_MEMBER(name) __typeof__(name) *name;
#define LIBRARY(table, list)         \
	struct table {               \
		list(LIBRARY_MEMBER) \
	}
#define LIBRARY_SYMBOL(table, name) {#name, offsetof(struct table, name)},

/* 0, or -ENOENT after a line in the log that says what is missing. A library stays loaded. */
int library_load(const char *soname, const struct library_symbol *symbols, size_t n, void *table);

#endif
