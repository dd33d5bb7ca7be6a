/* SPDX-License-Identifier: MIT */
/*
 * A fuzz target without a fuzzer: its seeds, the files and directories named as arguments (inputs that once failed), and
 * mutations of the seeds from a fixed random sequence. Prints TAP. With --seeds=DIR it writes the seeds there instead, for
 * libFuzzer.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "tap.h"

enum { SEEDS_MAX = 64, INPUT_MAX = 1 << 16, MUTATIONS = 400 };

static struct {
	const char *name;
	uint8_t *data;
	size_t size;
} seeds[SEEDS_MAX];

static unsigned nseeds;
static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % limit);
}

static void keep(const char *name, const void *data, size_t size)
{
	if (nseeds == SEEDS_MAX)
		abort();
	seeds[nseeds].name = name;
	seeds[nseeds].size = size;
	seeds[nseeds].data = malloc(size + 1);
	if (!seeds[nseeds].data)
		abort();
	memcpy(seeds[nseeds].data, data, size);
	nseeds++;
}

static void run_seed(void *arg)
{
	unsigned i = *(unsigned *)arg;

	LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
	LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size); /* nothing of the first run is left */
}

/* Overwrites, inserts, removes, repeats or borrows from another seed. */
static size_t mutate(uint8_t *buf, size_t n)
{
	static const uint8_t likely[] = {0, 1, 2, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255};
	size_t at = n ? random_below((uint32_t)n) : 0, len = 1 + random_below(16);
	unsigned other = random_below(nseeds);

	switch (random_below(6)) {
	case 0:
		buf[at] = (uint8_t)random_below(256);
		return n;
	case 1:
		buf[at] = likely[random_below(sizeof(likely))];
		return n;
	case 2:
		buf[at] ^= (uint8_t)(1u << random_below(8));
		return n;
	case 3:
		len = len < n - at ? len : n - at;
		memmove(buf + at, buf + at + len, n - at - len);
		return n - len;
	case 4:
		if (n + len > INPUT_MAX)
			return n;
		memmove(buf + at + len, buf + at, n - at);
		return n + len;
	default:
		len = seeds[other].size < INPUT_MAX - at ? seeds[other].size : INPUT_MAX - at;
		memcpy(buf + at, seeds[other].data, len);
		return at + len > n ? at + len : n;
	}
}

static void run_mutations(void *arg)
{
	static uint8_t buf[INPUT_MAX + 1];
	unsigned i = *(unsigned *)arg;

	random_state = i;
	for (unsigned round = 0; round < MUTATIONS; round++) {
		size_t n = seeds[i].size;

		memcpy(buf, seeds[i].data, n);
		for (unsigned k = 1 + random_below(8); k > 0; k--)
			n = mutate(buf, n);
		LLVMFuzzerTestOneInput(buf, n);
	}
}

static void run_file(void *arg)
{
	static uint8_t buf[INPUT_MAX];
	int fd = open(arg, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	CHECK_SYS(fd);
	CHECK_SYS(n = read(fd, buf, sizeof(buf)));
	close(fd);
	LLVMFuzzerTestOneInput(buf, (size_t)n);
}

static void run_path(const char *path)
{
	char sub[4096];
	struct dirent *e;
	DIR *dir = opendir(path);

	if (!dir) {
		tap_case(path, run_file, (void *)(uintptr_t)path);
		return;
	}
	while ((e = readdir(dir))) {
		snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
		if (e->d_name[0] != '.')
			tap_case(sub, run_file, sub);
	}
	closedir(dir);
}

static int write_seeds(const char *dir)
{
	for (unsigned i = 0; i < nseeds; i++) {
		char path[4096];
		int fd;

		snprintf(path, sizeof(path), "%s/seed-%s", dir, seeds[i].name);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fd < 0 || write(fd, seeds[i].data, seeds[i].size) != (ssize_t)seeds[i].size) {
			perror(path);
			return 1;
		}
		close(fd);
	}
	return 0;
}

int main(int argc, char **argv)
{
	fuzz_seeds(keep);
	if (argc == 2 && strncmp(argv[1], "--seeds=", 8) == 0)
		return write_seeds(argv[1] + 8);
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	for (unsigned i = 0; i < nseeds; i++) {
		char name[128];

		snprintf(name, sizeof(name), "seed %s", seeds[i].name);
		tap_case(name, run_seed, &i);
		snprintf(name, sizeof(name), "mutations of %s", seeds[i].name);
		tap_case(name, run_mutations, &i);
	}
	return tap_done();
}
