/* SPDX-License-Identifier: MIT */
/*
 * The file that keeps persistent reservations over a loss of power: two copies, each with a number and a sum; the newer
 * one that is whole counts, the other one is written next.
 */
#include "scsi-pr.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "log.h"
#include "util.h"

#define MAGIC "vum-pr-1"
#define PLACE 8192 /* bytes for each copy */

struct record {
	char magic[8];
	uint64_t number; /* all numbers are little-endian */
	uint32_t generation;
	uint8_t type, holder, persist, unused;
	struct pr_registration who[PR_MAX];
	uint64_t sum;
};

/* FNV-1a */
static uint64_t sum_of(const struct record *r)
{
	const uint8_t *p = (const uint8_t *)r;
	uint64_t h = 0xcbf29ce484222325;

	for (size_t i = 0; i < offsetof(struct record, sum); i++)
		h = (h ^ p[i]) * 0x100000001b3;
	return h;
}

static bool whole(const struct record *r)
{
	return memcmp(r->magic, MAGIC, sizeof(r->magic)) == 0 && le64toh(r->sum) == sum_of(r) &&
	       r->holder < PR_MAX && (r->type == PR_NONE || pr_type_valid(r->type));
}

/* The newer copy, and which one it is; false: there is none. */
static bool newest(int fd, struct record *out, int *place)
{
	bool found = false;

	for (int i = 0; i < 2; i++) {
		struct record r;

		if (pread(fd, &r, sizeof(r), i * PLACE) != sizeof(r) || !whole(&r))
			continue;
		if (found && le64toh(r.number) < le64toh(out->number))
			continue;
		*out = r;
		*place = i;
		found = true;
	}
	return found;
}

static void restore(const struct record *r, struct scsi_pr *pr)
{
	if (!r->persist)
		return;
	pr->generation = 0; /* SPC-4, 5.13.5.2: starts anew */
	pr->type = r->type;
	pr->holder = r->holder;
	pr->persist = true;
	for (unsigned i = 0; i < PR_MAX; i++) {
		pr->who[i] = r->who[i];
		pr->who[i].key = le64toh(r->who[i].key);
		pr->who[i].name[PR_NAME - 1] = '\0';
	}
}

int pr_file_open(const char *path, bool lock, struct scsi_pr *pr, int *out)
{
	CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct record r;
	int place;

	if (fd < 0)
		return log_errno(errno, "%s", path);
	if (lock && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return log_errno(errno, "%s: another process uses it", path);
	if (newest(fd, &r, &place))
		restore(&r, pr);
	else if (lseek(fd, 0, SEEK_END) > 0)
		return log_errno(EINVAL, "%s: holds no reservations", path);
	*out = fd_take(&fd);
	return 0;
}

void pr_file_refresh(int fd, struct scsi_pr *pr)
{
	struct record r;
	int place;

	if (!newest(fd, &r, &place) || (!r.persist && !pr->persist))
		return;
	memset(pr, 0, sizeof(*pr));
	restore(&r, pr);
	pr->generation = le32toh(r.generation);
}

int pr_file_save(int fd, const struct scsi_pr *pr)
{
	struct record r, old;
	int place = 1;
	uint64_t number = newest(fd, &old, &place) ? le64toh(old.number) + 1 : 1;

	memset(&r, 0, sizeof(r));
	memcpy(r.magic, MAGIC, sizeof(r.magic));
	r.number = htole64(number);
	r.generation = htole32(pr->generation);
	r.type = pr->type;
	r.holder = pr->holder;
	r.persist = pr->persist;
	for (unsigned i = 0; i < PR_MAX; i++) {
		memcpy(r.who[i].name, pr->who[i].name, PR_NAME);
		r.who[i].key = htole64(pr->who[i].key);
	}
	r.sum = htole64(sum_of(&r));
	if (pwrite(fd, &r, sizeof(r), (1 - place) * PLACE) != sizeof(r) || fdatasync(fd) < 0)
		return -(errno != 0 ? errno : EIO);
	return 0;
}
