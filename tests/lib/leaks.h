/* SPDX-License-Identifier: MIT */
/* What a test counts before and after, to see that nothing is left behind. */
#ifndef TESTS_LEAKS_H
#define TESTS_LEAKS_H

#include <dirent.h>

#include "tap.h"

/* Open descriptors of this process. */
static inline unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 3; /* ".", ".." and the directory itself */
}

/* Mappings of this process whose name contains that. */
static inline unsigned mappings_of(const char *name)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned n = 0;

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, name) != NULL;
	fclose(f);
	return n;
}

#endif
