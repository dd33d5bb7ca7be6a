/* SPDX-License-Identifier: MIT */
/* Loading shared libraries on demand, see library.h. */
#include "library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "log.h"

int library_load(const char *soname, const struct library_symbol *symbols, size_t n, void *table)
{
	void *library = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
	size_t i;

	if (!library) {
		log_error("%s", dlerror());
		return -ENOENT;
	}
	for (i = 0; i < n; i++) {
		void *f = dlsym(library, symbols[i].name);

		if (!f) {
			log_error("%s", dlerror());
			return -ENOENT;
		}
		memcpy((char *)table + symbols[i].offset, &f, sizeof(f));
	}
	return 0;
}
