/* SPDX-License-Identifier: MIT */
/* Guest-memory maps, against a list of regions that is searched from end to end. */
#include "../../src/guestmem.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>

#include "../lib/leaks.h"
#include "../lib/tap.h"

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE };

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % limit);
}

static int memory_file(uint64_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	CHECK_SYS(fd);
	CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	return fd;
}

/* Replaces *m by *m plus a region. The fd is dup'd as the protocol does. */
static int map_add(
	struct guestmem **m, int file, uint64_t gpa, uint64_t size, uint64_t uaddr, uint64_t offset)
{
	struct guestmem_spec spec = {.gpa = gpa, .size = size, .uaddr = uaddr, .offset = offset};
	struct guestmem *new = NULL;
	int fd = dup(file), err;

	CHECK_SYS(fd);
	err = guestmem_add(*m, &spec, &fd, RW, &new);
	if (err) {
		CHECK(fd >= 0); /* refused: still ours */
		CHECK(new == NULL);
		fd_close(&fd);
		return err;
	}
	CHECK_EQ(fd, -1);
	guestmem_unref(*m);
	*m = new;
	return 0;
}

static int map_remove(struct guestmem **m, uint64_t gpa, uint64_t size, uint64_t uaddr)
{
	struct guestmem_spec spec = {.gpa = gpa, .size = size, .uaddr = uaddr};
	struct guestmem *new = NULL;
	int err = guestmem_remove(*m, &spec, &new);

	if (err)
		return err;
	guestmem_unref(*m);
	*m = new;
	return 0;
}

static void empty_map(void *arg)
{
	struct guestmem *m = guestmem_new();
	struct guestmem_spec spec = {0};
	uint64_t avail, gpa;
	unsigned hint = 0;

	(void)arg;
	CHECK(m);
	CHECK_EQ(m->n, 0);
	CHECK_EQ(guestmem_find(m, 0), -1);
	CHECK(!guestmem_lookup(m, 0, &avail, &hint));
	CHECK(!guestmem_user(m, 0, 0));
	CHECK(!guestmem_gpa(m, 0, 1));
	CHECK(!guestmem_reverse(m, &avail, &gpa));
	CHECK_EQ(guestmem_remove(m, &spec, NULL), -ENOENT);
	guestmem_unref(m);
	guestmem_unref(NULL);
}

static void two_regions_of_one_file(void *arg)
{
	struct guestmem *m = guestmem_new();
	unsigned before = open_fds(), hint = 7;
	int file = memory_file(8 * PAGE);
	uint64_t avail, gpa;

	(void)arg;
	CHECK_EQ(pwrite(file, "low", 4, 0), 4);
	CHECK_EQ(pwrite(file, "high", 5, 5 * PAGE), 5);
	CHECK_EQ(map_add(&m, file, UINT64_C(1) << 32, 3 * PAGE, 0x705000, 5 * PAGE), 0);
	CHECK_EQ(map_add(&m, file, 0, 4 * PAGE, 0x500000, 0), 0);
	CHECK_EQ(m->n, 2);
	CHECK_STR((char *)guestmem_gpa(m, 0, 4), "low");
	CHECK_STR((char *)guestmem_gpa(m, UINT64_C(1) << 32, 3 * PAGE), "high");
	CHECK_STR((char *)guestmem_user(m, 0x705000, 5), "high");
	CHECK_STR((char *)guestmem_user(m, 0x500000, 4 * PAGE), "low");
	CHECK(!guestmem_user(m, 0x500001, 4 * PAGE));
	CHECK(!guestmem_user(m, 0x4fffff, 1));
	CHECK(!guestmem_user(m, 0x500001, UINT64_MAX));
	CHECK(!guestmem_gpa(m, 1, 4 * PAGE));
	CHECK(!guestmem_gpa(m, 4 * PAGE, 1));
	CHECK(!guestmem_gpa(m, PAGE, UINT64_MAX));
	CHECK(guestmem_lookup(m, 4 * PAGE - 1, &avail, &hint) == m->region[0].host + 4 * PAGE - 1);
	CHECK_EQ(avail, 1);
	CHECK_EQ(hint, 0);
	CHECK(guestmem_reverse(m, (char *)guestmem_gpa(m, (UINT64_C(1) << 32) + 77, 1), &gpa));
	CHECK_EQ(gpa, (UINT64_C(1) << 32) + 77);
	CHECK(!guestmem_reverse(m, &gpa, &gpa));
	guestmem_unref(m);
	close(file);
	CHECK_EQ(open_fds(), before);
	CHECK_EQ(mappings_of("memfd:guest"), 0);
}

static void refusals(void *arg)
{
	struct guestmem *m = guestmem_new();
	int file = memory_file(16 * PAGE), other = memory_file(16 * PAGE);

	(void)arg;
	CHECK_EQ(map_add(&m, file, 0x10000, 4 * PAGE, 0x800000, 0), 0);
	CHECK_EQ(map_add(&m, file, 0x20000, 0, 0x900000, 0), -EINVAL);
	CHECK_EQ(map_add(&m, file, UINT64_MAX - PAGE + 1, PAGE, 0x900000, 0), -EINVAL);
	CHECK_EQ(map_add(&m, file, UINT64_MAX, 2, 0x900000, 0), -EINVAL);
	CHECK_EQ(map_add(&m, file, 0x20000, PAGE, UINT64_MAX, 0), -EINVAL);
	CHECK_EQ(map_add(&m, file, 0x20000, PAGE, 0x900000, 16 * PAGE), -EINVAL);
	CHECK_EQ(map_add(&m, file, 0x20000, PAGE, 0x900000, UINT64_MAX), -EINVAL);
	CHECK_EQ(map_add(&m, file, 0x20000, UINT64_C(1) << 62, 0x900000, 0), -EINVAL);
	/* guest-physical overlap: before, behind, inside, around */
	CHECK_EQ(map_add(&m, file, 0x10000 - PAGE, 2 * PAGE, 0x900000, 8 * PAGE), -EEXIST);
	CHECK_EQ(map_add(&m, file, 0x10000 + 3 * PAGE, 2 * PAGE, 0x900000, 8 * PAGE), -EEXIST);
	CHECK_EQ(map_add(&m, file, 0x10000 + PAGE, PAGE, 0x900000, 8 * PAGE), -EEXIST);
	CHECK_EQ(map_add(&m, file, 0x10000 - PAGE, 6 * PAGE, 0x900000, 8 * PAGE), -EEXIST);
	/* user overlap with other bytes of the file, or another file */
	CHECK_EQ(map_add(&m, file, 0x20000, 4 * PAGE, 0x801000, 0), -EEXIST);
	CHECK_EQ(map_add(&m, other, 0x20000, 4 * PAGE, 0x800000, 0), -EEXIST);
	CHECK_EQ(map_add(&m, file, 0x20000, 2 * PAGE, 0x7ff000, 0), -EEXIST);
	/* the same region, but another file */
	CHECK_EQ(map_add(&m, other, 0x10000, 4 * PAGE, 0x800000, 0), -EEXIST);
	CHECK_EQ(m->n, 1);
	/* touching is not overlapping */
	CHECK_EQ(map_add(&m, file, 0x10000 - PAGE, PAGE, 0x7ff000, 8 * PAGE), 0);
	CHECK_EQ(map_add(&m, file, 0x10000 + 4 * PAGE, PAGE, 0x804000, 9 * PAGE), 0);
	CHECK_EQ(m->n, 3);
	CHECK_EQ(map_remove(&m, 0x10000, 4 * PAGE, 0x800001), -ENOENT);
	CHECK_EQ(map_remove(&m, 0x10000, 3 * PAGE, 0x800000), -ENOENT);
	CHECK_EQ(map_remove(&m, 0x10001, 4 * PAGE, 0x800000), -ENOENT);
	CHECK_EQ(map_remove(&m, 0x10000, 4 * PAGE, 0x800000), 0);
	CHECK_EQ(map_remove(&m, 0x10000, 4 * PAGE, 0x800000), -ENOENT);
	CHECK_EQ(m->n, 2);
	CHECK(!guestmem_gpa(m, 0x10000, 1));
	CHECK(guestmem_gpa(m, 0x10000 - 1, 1));
	CHECK(guestmem_gpa(m, 0x10000 + 4 * PAGE, PAGE));
	guestmem_unref(m);
	CHECK_EQ(mappings_of("memfd:guest"), 0);
}

static void the_same_region_again(void *arg)
{
	struct guestmem *m = guestmem_new(), *old;
	int file = memory_file(4 * PAGE);
	unsigned before;

	(void)arg;
	CHECK_EQ(map_add(&m, file, 0x1000, 2 * PAGE, 0x5000, PAGE), 0);
	before = open_fds();
	old = guestmem_ref(m);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(map_add(&m, file, 0x1000, 2 * PAGE, 0x5000, PAGE), 0);
	CHECK(m != old);
	CHECK_EQ(m->n, 1);
	CHECK_EQ(m->region[0].gpa, 0x1000);
	CHECK(m->region[0].host == old->region[0].host);
	CHECK_EQ(open_fds(), before);
	guestmem_unref(old);
	memcpy(guestmem_gpa(m, 0x1000, 4), "still", 5);
	guestmem_unref(m);
	CHECK_EQ(mappings_of("memfd:guest"), 0);
}

static void the_same_memory_twice(void *arg)
{
	struct guestmem *m = guestmem_new();
	int file = memory_file(8 * PAGE);

	(void)arg;
	CHECK_EQ(map_add(&m, file, 0x80000000, 8 * PAGE, 0x500000, 0), 0);
	CHECK_EQ(map_add(&m, file, 0, 4 * PAGE, 0x502000, 2 * PAGE), 0);
	CHECK_EQ(m->n, 2);
	memcpy(guestmem_gpa(m, 0x80000000 + 3 * PAGE, 5), "alias", 6);
	CHECK_STR((char *)guestmem_gpa(m, PAGE, 6), "alias");
	CHECK_STR((char *)guestmem_user(m, 0x503000, 6), "alias");
	CHECK(guestmem_user(m, 0x500000, 8 * PAGE)); /* though the first region holds only a part */
	CHECK_EQ(map_remove(&m, 0, 4 * PAGE, 0x502000), 0);
	CHECK_STR((char *)guestmem_user(m, 0x503000, 6), "alias");
	guestmem_unref(m);
}

static void count_release(void *arg)
{
	__atomic_fetch_add((unsigned *)arg, 1, __ATOMIC_SEQ_CST);
}

static void *drop_reference(void *arg)
{
	guestmem_unref(arg);
	return NULL;
}

static void a_pinned_map_keeps_its_mappings(void *arg)
{
	struct guestmem *m = guestmem_new(), *old;
	unsigned released = 0, before = open_fds();
	int file = memory_file(4 * PAGE);
	pthread_t thread[4];
	char *p;

	(void)arg;
	CHECK_EQ(map_add(&m, file, 0, PAGE, 0x1000, 0), 0);
	CHECK_EQ(map_add(&m, file, PAGE, PAGE, 0x2000, PAGE), 0);
	CHECK_EQ(mappings_of("memfd:guest"), 2);
	old = guestmem_ref(m);
	for (int i = 0; i < 4; i++)
		guestmem_ref(old); /* elements in flight */
	p = guestmem_gpa(m, PAGE, 1);
	guestmem_on_release(m, count_release, &released);
	CHECK_EQ(map_remove(&m, PAGE, PAGE, 0x2000), 0);
	guestmem_unref(old);
	CHECK_EQ(released, 0);
	CHECK_EQ(mappings_of("memfd:guest"), 2);
	*p = 'x'; /* I/O goes on */
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, drop_reference, old), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	CHECK_EQ(released, 1);
	CHECK_EQ(mappings_of("memfd:guest"), 1);
	guestmem_unref(m);
	CHECK_EQ(released, 1);
	CHECK_EQ(mappings_of("memfd:guest"), 0);
	close(file);
	CHECK_EQ(open_fds(), before);
}

/* Regions of 1 to 3 pages with gaps of 0 to 2 pages, added in random order, searched byte by byte at their
 * borders. */
struct list {
	struct guestmem_spec spec[GUESTMEM_MAX_REGIONS];
	unsigned n;
};

static const struct guestmem_spec *list_find(const struct list *list, uint64_t gpa)
{
	for (unsigned i = 0; i < list->n; i++)
		if (gpa >= list->spec[i].gpa && gpa < list->spec[i].gpa + list->spec[i].size)
			return &list->spec[i];
	return NULL;
}

static void list_compare(const struct list *list, const struct guestmem *m, uint64_t gpa, unsigned *hint)
{
	const struct guestmem_spec *want = list_find(list, gpa);
	uint64_t avail = 0, back;
	uint8_t *host = guestmem_lookup(m, gpa, &avail, hint);
	int i = guestmem_find(m, gpa);

	CHECK_EQ(host != NULL, want != NULL);
	CHECK_EQ(i >= 0, want != NULL);
	if (!want)
		return;
	CHECK_EQ(m->region[i].gpa, want->gpa);
	CHECK_EQ(*hint, i);
	CHECK_EQ(avail, want->gpa + want->size - gpa);
	CHECK(host == guestmem_user(m, want->uaddr + (gpa - want->gpa), avail));
	CHECK(!guestmem_gpa(m, gpa, avail + 1));
	CHECK(host == guestmem_gpa(m, gpa, avail));
	CHECK(guestmem_reverse(m, host, &back));
	CHECK_EQ(back, gpa);
	CHECK_EQ(*(uint64_t *)ALIGN_DOWN(
			 (uintptr_t)host, (uintptr_t)PAGE), /* the file's page numbers itself */
		want->offset / PAGE + (gpa - want->gpa) / PAGE);
}

static void list_build(struct list *list, int file)
{
	uint64_t gpa = 0, offset = 0;

	list->n = GUESTMEM_MAX_REGIONS;
	for (unsigned i = 0; i < list->n; i++) {
		uint64_t size = (1 + random_below(3)) * PAGE;

		gpa += random_below(3) * PAGE;
		list->spec[i] = (struct guestmem_spec){gpa, size, UINT64_C(0x7f0000000000) - 8 * gpa, offset};
		gpa += size;
		/* the kernel makes one mapping of two that go on in memory and in the file */
		offset += size + PAGE;
	}
	CHECK_EQ(ftruncate(file, (off_t)offset), 0);
	for (uint64_t page = 0; page < offset / PAGE; page++)
		CHECK_EQ(pwrite(file, &page, sizeof(page), (off_t)(page * PAGE)), sizeof(page));
	for (unsigned i = list->n - 1; i > 0; i--) {
		unsigned k = random_below(i + 1);
		struct guestmem_spec swap = list->spec[i];

		list->spec[i] = list->spec[k];
		list->spec[k] = swap;
	}
}

static void list_compare_all(const struct list *list, const struct guestmem *m)
{
	unsigned hint = 0;

	for (uint64_t gpa = 0; gpa < (uint64_t)GUESTMEM_MAX_REGIONS * 5 * PAGE; gpa += PAGE / 2)
		list_compare(list, m, gpa, &hint);
	for (unsigned i = 0; i < 2000; i++)
		list_compare(list, m, random_below(GUESTMEM_MAX_REGIONS * 5 * PAGE), &hint);
	list_compare(list, m, UINT64_MAX, &hint);
}

static void full_map_against_a_list(void *arg)
{
	static struct list list, added;
	struct guestmem *m = guestmem_new();
	struct rlimit limit = {4096, 4096};
	int file = memory_file(PAGE);

	(void)arg;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		tap_note("descriptor limit stays: %s", strerror(errno));
	list_build(&list, file);
	for (unsigned i = 0; i < list.n; i++) {
		const struct guestmem_spec *s = &list.spec[i];

		CHECK_EQ(map_add(&m, file, s->gpa, s->size, s->uaddr, s->offset), 0);
		added.spec[added.n++] = *s;
		if (i == 0 || i == 1 || i == 100)
			list_compare_all(&added, m);
	}
	CHECK_EQ(m->n, GUESTMEM_MAX_REGIONS);
	list_compare_all(&added, m);
	CHECK_EQ(map_add(&m, file, UINT64_C(1) << 40, PAGE, UINT64_C(1) << 46, 0), -ENOSPC);
	CHECK_EQ(map_add(&m, file, list.spec[0].gpa, list.spec[0].size, list.spec[0].uaddr,
			 list.spec[0].offset),
		0);
	for (unsigned i = 0; i < 300; i++) {
		const struct guestmem_spec *s = &added.spec[--added.n];

		CHECK_EQ(map_remove(&m, s->gpa, s->size, s->uaddr), 0);
	}
	list_compare_all(&added, m);
	CHECK_EQ(mappings_of("memfd:guest"), GUESTMEM_MAX_REGIONS - 300);
	guestmem_unref(m);
	CHECK_EQ(mappings_of("memfd:guest"), 0);
}

static void no_access_while_preparing(void *arg)
{
	struct guestmem_spec spec = {.gpa = 0, .size = PAGE, .uaddr = 0x1000, .offset = 0};
	struct guestmem *empty = guestmem_new(), *m;
	int fd = memory_file(PAGE), pipes[2];

	(void)arg;
	CHECK_EQ(guestmem_add(empty, &spec, &fd, PROT_NONE, &m), 0);
	CHECK_SYS(pipe(pipes));
	CHECK_EQ(write(pipes[1], guestmem_gpa(m, 0, 1), 1), -1);
	CHECK_EQ(errno, EFAULT);
	guestmem_unref(m);
	guestmem_unref(empty);
}

int main(void)
{
	tap_case("empty map", empty_map, NULL);
	tap_case("two regions of one file", two_regions_of_one_file, NULL);
	tap_case("refusals", refusals, NULL);
	tap_case("the same region again", the_same_region_again, NULL);
	tap_case("the same memory at two addresses", the_same_memory_twice, NULL);
	tap_case("a pinned map keeps its mappings", a_pinned_map_keeps_its_mappings, NULL);
	tap_case("a full map against a list", full_map_against_a_list, NULL);
	tap_case("no access while postcopy prepares", no_access_while_preparing, NULL);
	return tap_done();
}
