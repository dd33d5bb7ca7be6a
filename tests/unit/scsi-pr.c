/* SPDX-License-Identifier: MIT */
/* Persistent reservations: the rules with several initiators, and the file that keeps them. */
#include "scsi-pr.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "tap.h"
#include "util.h"

static struct scsi_pr pr;
static struct pr_effects e;

static enum pr_verdict out(const char *who, uint8_t action, uint8_t type, uint64_t key, uint64_t action_key)
{
	struct pr_request r = {
		.action = action, .type = type, .key = key, .action_key = action_key, .name = who};
	struct scsi_pr before = pr;
	enum pr_verdict v = pr_out(&pr, &r, &e);

	if (v != PR_GOOD)
		CHECK_MEM(&pr, &before, sizeof(pr));
	return v;
}

static enum pr_verdict move(const char *who, const char *to, uint64_t key, uint64_t action_key, bool leave)
{
	struct pr_request r = {.action = PR_REGISTER_AND_MOVE,
		.key = key,
		.action_key = action_key,
		.name = who,
		.to = to,
		.unregister = leave};

	return pr_out(&pr, &r, &e);
}

/* a, b and c, with the keys 1, 2 and 3 */
static void three(void)
{
	CHECK_EQ(out("a", PR_REGISTER, 0, 0, 1), PR_GOOD);
	CHECK_EQ(out("b", PR_REGISTER, 0, 0, 2), PR_GOOD);
	CHECK_EQ(out("c", PR_REGISTER, 0, 0, 3), PR_GOOD);
}

static unsigned at(const char *name)
{
	int i = pr_find(&pr, name);

	CHECK(i >= 0);
	return (unsigned)i;
}

static void registering(void *arg)
{
	uint32_t generation;

	(void)arg;
	CHECK_EQ(out("a", PR_REGISTER, 0, 9, 1), PR_CONFLICT);
	CHECK_EQ(out("a", PR_REGISTER, 0, 0, 1), PR_GOOD);
	CHECK_EQ(pr.generation, 1);
	CHECK_EQ(out("a", PR_REGISTER, 0, 0, 2), PR_CONFLICT);
	CHECK_EQ(out("a", PR_REGISTER, 0, 1, 2), PR_GOOD);
	CHECK_EQ(pr.who[at("a")].key, 2);
	CHECK_EQ(out("a", PR_REGISTER_AND_IGNORE, 0, 77, 3), PR_GOOD);
	CHECK_EQ(pr.who[at("a")].key, 3);
	CHECK_EQ(out("a", PR_REGISTER, 0, 3, 0), PR_GOOD);
	CHECK_EQ(pr_find(&pr, "a"), -1);
	/* leaving when one was never there is fine */
	generation = pr.generation;
	CHECK_EQ(out("b", PR_REGISTER, 0, 0, 0), PR_GOOD);
	CHECK_EQ(out("b", PR_REGISTER_AND_IGNORE, 0, 5, 0), PR_GOOD);
	CHECK_EQ(pr_find(&pr, "b"), -1);
	CHECK_EQ(pr.generation, generation);
	for (unsigned i = 0; i < PR_MAX; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%u", i);
		CHECK_EQ(out(name, PR_REGISTER, 0, 0, 1), PR_GOOD);
	}
	CHECK_EQ(out("more", PR_REGISTER, 0, 0, 1), PR_NO_ROOM);
}

static void conflicts(void *arg)
{
	static const struct {
		uint8_t type;
		bool reads, writes;	/* of somebody not registered */
		bool r_reads, r_writes; /* of one that is, but does not hold it */
	} types[] = {
		{PR_WRITE_EXCLUSIVE, true, false, true, false},
		{PR_EXCLUSIVE, false, false, false, false},
		{PR_WRITE_EXCLUSIVE_REGISTRANTS, true, false, true, true},
		{PR_EXCLUSIVE_REGISTRANTS, false, false, true, true},
		{PR_WRITE_EXCLUSIVE_ALL, true, false, true, true},
		{PR_EXCLUSIVE_ALL, false, false, true, true},
	};

	(void)arg;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		memset(&pr, 0, sizeof(pr));
		three();
		CHECK(!pr_forbids_writes(&pr, "x"));
		CHECK_EQ(out("x", PR_RESERVE, types[i].type, 1, 0), PR_CONFLICT);
		CHECK_EQ(out("a", PR_RESERVE, types[i].type, 2, 0), PR_CONFLICT);
		CHECK_EQ(out("a", PR_RESERVE, types[i].type, 1, 0), PR_GOOD);
		CHECK_EQ(out("a", PR_RESERVE, types[i].type, 1, 0), PR_GOOD);
		CHECK_EQ(out("a", PR_RESERVE, types[i].type == 1 ? 3 : 1, 1, 0), PR_CONFLICT);
		CHECK_EQ(out("b", PR_RESERVE, types[i].type, 2, 0),
			types[i].type >= 7 ? PR_GOOD : PR_CONFLICT);
		CHECK_EQ(!pr_forbids_reads(&pr, "x"), types[i].reads);
		CHECK_EQ(!pr_forbids_writes(&pr, "x"), types[i].writes);
		CHECK_EQ(!pr_forbids_reads(&pr, "b"), types[i].r_reads);
		CHECK_EQ(!pr_forbids_writes(&pr, "b"), types[i].r_writes);
		CHECK(!pr_forbids_reads(&pr, "a") && !pr_forbids_writes(&pr, "a"));
		/* release by one that does not hold it is fine, and nothing */
		CHECK_EQ(out("b", PR_RELEASE, types[i].type, 2, 0), PR_GOOD);
		if (types[i].type < 7)
			CHECK_EQ(pr.type, types[i].type);
		else
			continue;
		CHECK_EQ(out("a", PR_RELEASE, types[i].type == 1 ? 3 : 1, 1, 0), PR_BAD_RELEASE);
		CHECK_EQ(out("a", PR_RELEASE, types[i].type, 1, 0), PR_GOOD);
		CHECK_EQ(pr.type, PR_NONE);
		CHECK_EQ(e.reservations_released, types[i].type >= 5 ? BIT(at("b")) | BIT(at("c")) : 0);
	}
}

static void leaving(void *arg)
{
	(void)arg;
	three();
	CHECK_EQ(out("a", PR_RESERVE, PR_EXCLUSIVE_REGISTRANTS, 1, 0), PR_GOOD);
	CHECK_EQ(out("b", PR_REGISTER, 0, 2, 0), PR_GOOD);
	CHECK_EQ(pr.type, PR_EXCLUSIVE_REGISTRANTS);
	CHECK_EQ(out("a", PR_REGISTER, 0, 1, 0), PR_GOOD);
	CHECK_EQ(pr.type, PR_NONE);
	CHECK_EQ(e.reservations_released, BIT(at("c")));
	/* of all registrants: until the last has left */
	memset(&pr, 0, sizeof(pr));
	three();
	CHECK_EQ(out("a", PR_RESERVE, PR_WRITE_EXCLUSIVE_ALL, 1, 0), PR_GOOD);
	CHECK_EQ(out("a", PR_REGISTER, 0, 1, 0), PR_GOOD);
	CHECK_EQ(out("b", PR_REGISTER, 0, 2, 0), PR_GOOD);
	CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE_ALL);
	CHECK_EQ(out("c", PR_REGISTER, 0, 3, 0), PR_GOOD);
	CHECK_EQ(pr.type, PR_NONE);
}

static void clearing(void *arg)
{
	uint64_t rest;

	(void)arg;
	three();
	rest = BIT(at("a")) | BIT(at("c"));
	CHECK_EQ(out("a", PR_RESERVE, PR_EXCLUSIVE, 1, 0), PR_GOOD);
	CHECK_EQ(out("x", PR_CLEAR, 0, 1, 0), PR_CONFLICT);
	CHECK_EQ(out("b", PR_CLEAR, 0, 2, 0), PR_GOOD);
	CHECK_EQ(e.reservations_preempted, rest);
	CHECK_EQ(pr.type, PR_NONE);
	CHECK_EQ(pr_find(&pr, "a"), -1);
	CHECK_EQ(pr.generation, 4);
}

static void preempting(void *arg)
{
	uint64_t a, c;

	(void)arg;
	three();
	a = BIT(at("a"));
	c = BIT(at("c"));
	CHECK_EQ(out("a", PR_RESERVE, PR_WRITE_EXCLUSIVE_REGISTRANTS, 1, 0), PR_GOOD);
	/* a registration only */
	CHECK_EQ(out("b", PR_PREEMPT, PR_EXCLUSIVE, 2, 99), PR_CONFLICT);
	CHECK_EQ(out("b", PR_PREEMPT, PR_EXCLUSIVE, 2, 0), PR_BAD_PARAMETER);
	CHECK_EQ(out("b", PR_PREEMPT, PR_EXCLUSIVE, 2, 3), PR_GOOD);
	CHECK_EQ(e.registrations_preempted, c);
	CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE_REGISTRANTS);
	CHECK(pr_holds(&pr, at("a")));
	CHECK_EQ(out("c", PR_REGISTER, 0, 0, 3), PR_GOOD);
	/* the reservation; the third one learns that its rights are less */
	CHECK_EQ(out("b", PR_PREEMPT_AND_ABORT, PR_EXCLUSIVE, 2, 1), PR_GOOD);
	CHECK_EQ(e.registrations_preempted, a);
	CHECK_EQ(e.reservations_released, c);
	CHECK_EQ(pr.type, PR_EXCLUSIVE);
	CHECK(pr_holds(&pr, at("b")));
	CHECK_EQ(pr_find(&pr, "a"), -1);
	CHECK(pr_forbids_reads(&pr, "c"));
	/* one's own reservation becomes another one */
	CHECK_EQ(out("b", PR_PREEMPT, PR_WRITE_EXCLUSIVE, 2, 2), PR_GOOD);
	CHECK_EQ(pr.type, PR_WRITE_EXCLUSIVE);
	CHECK_EQ(pr.who[at("b")].key, 2);
	/* of all registrants: key 0 takes it from all of them */
	memset(&pr, 0, sizeof(pr));
	three();
	a = BIT(at("a"));
	CHECK_EQ(out("a", PR_RESERVE, PR_EXCLUSIVE_ALL, 1, 0), PR_GOOD);
	CHECK_EQ(out("c", PR_PREEMPT, PR_EXCLUSIVE, 3, 2), PR_GOOD);
	CHECK_EQ(pr.type, PR_EXCLUSIVE_ALL);
	CHECK_EQ(out("c", PR_PREEMPT, PR_EXCLUSIVE, 3, 0), PR_GOOD);
	CHECK_EQ(e.registrations_preempted, a);
	CHECK_EQ(pr.type, PR_EXCLUSIVE);
	CHECK(pr_holds(&pr, at("c")));
}

static void moving(void *arg)
{
	(void)arg;
	three();
	CHECK_EQ(move("a", "d", 1, 4, false), PR_CONFLICT); /* holds nothing */
	CHECK_EQ(out("a", PR_RESERVE, PR_EXCLUSIVE, 1, 0), PR_GOOD);
	CHECK_EQ(move("b", "d", 2, 4, false), PR_CONFLICT);
	CHECK_EQ(move("a", "a", 1, 4, false), PR_BAD_PARAMETER);
	CHECK_EQ(move("a", "d", 1, 0, false), PR_BAD_PARAMETER);
	CHECK_EQ(move("a", "d", 1, 4, false), PR_GOOD);
	CHECK(pr_holds(&pr, at("d")));
	CHECK_EQ(pr.who[at("d")].key, 4);
	CHECK_EQ(pr.who[at("a")].key, 1);
	CHECK_EQ(move("d", "b", 4, 5, true), PR_GOOD);
	CHECK(pr_holds(&pr, at("b")));
	CHECK_EQ(pr.who[at("b")].key, 5);
	CHECK_EQ(pr_find(&pr, "d"), -1);
	CHECK_EQ(pr.type, PR_EXCLUSIVE);
}

/* --- the file --- */

static char path[] = "/tmp/vum-pr-XXXXXX";

static void made(void)
{
	int fd = mkstemp(path);

	CHECK_SYS(fd);
	close(fd);
}

static void kept(void *arg)
{
	struct scsi_pr back = {0};
	int fd;

	(void)arg;
	made();
	three();
	CHECK_EQ(out("b", PR_RESERVE, PR_EXCLUSIVE, 2, 0), PR_GOOD);
	CHECK_EQ(pr_file_open(path, true, &back, &fd), 0);
	CHECK_EQ(back.type, PR_NONE);
	pr.persist = true;
	for (unsigned i = 0; i < 5; i++)
		CHECK_EQ(pr_file_save(fd, &pr), 0);
	close(fd);
	CHECK_EQ(pr_file_open(path, true, &back, &fd), 0);
	CHECK_EQ(back.type, PR_EXCLUSIVE);
	CHECK_EQ(back.who[back.holder].key, 2);
	CHECK_MEM(back.who, pr.who, sizeof(pr.who));
	/* what need not be kept is not */
	pr.persist = false;
	CHECK_EQ(pr_file_save(fd, &pr), 0);
	close(fd);
	memset(&back, 0, sizeof(back));
	CHECK_EQ(pr_file_open(path, true, &back, &fd), 0);
	CHECK_EQ(back.type, PR_NONE);
	CHECK_EQ(pr_find(&back, "a"), -1);
	close(fd);
	unlink(path);
}

/* Whatever byte of the copy written last is wrong, the one before it counts. */
static void torn(void *arg)
{
	struct scsi_pr back = {0};
	uint8_t place[2][8192];
	int fd, newer;

	(void)arg;
	made();
	CHECK_EQ(pr_file_open(path, true, &back, &fd), 0);
	pr.persist = true;
	CHECK_EQ(out("a", PR_REGISTER, 0, 0, 1), PR_GOOD);
	pr.persist = true;
	CHECK_EQ(pr_file_save(fd, &pr), 0);
	CHECK_EQ(out("a", PR_REGISTER, 0, 1, 2), PR_GOOD);
	pr.persist = true;
	CHECK_EQ(pr_file_save(fd, &pr), 0);
	memset(place, 0, sizeof(place));
	CHECK(pread(fd, place, sizeof(place), 0) > 8192);
	newer = place[1][8] > place[0][8];
	for (int at_byte = 0; at_byte < 4000; at_byte += 7) {
		uint8_t wrong = place[newer][at_byte] ^ 0x40;
		int again;

		CHECK_EQ(pwrite(fd, &wrong, 1, newer * 8192 + at_byte), 1);
		close(fd);
		memset(&back, 0, sizeof(back));
		CHECK_EQ(pr_file_open(path, true, &back, &again), 0);
		fd = again;
		CHECK_EQ(back.who[0].key, 1);
		CHECK_EQ(pwrite(fd, &place[newer][at_byte], 1, newer * 8192 + at_byte), 1);
	}
	close(fd);
	unlink(path);
}

static void refused(void *arg)
{
	struct scsi_pr back = {0};
	int fd, second;

	(void)arg;
	made();
	CHECK_EQ(pr_file_open(path, true, &back, &fd), 0);
	CHECK(pr_file_open(path, true, &back, &second) < 0);
	close(fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK_EQ(write(fd, "my diary", 8), 8);
	close(fd);
	CHECK_EQ(pr_file_open(path, true, &back, &second), -EINVAL);
	unlink(path);
	CHECK(pr_file_open("/nonexistent/file", true, &back, &second) < 0);
}

int main(void)
{
	tap_case("registering", registering, NULL);
	tap_case("conflicts of all types", conflicts, NULL);
	tap_case("leaving", leaving, NULL);
	tap_case("clear", clearing, NULL);
	tap_case("preempt", preempting, NULL);
	tap_case("move", moving, NULL);
	tap_case("kept in a file", kept, NULL);
	tap_case("a copy that was not written to its end", torn, NULL);
	tap_case("files that are refused", refused, NULL);
	return tap_done();
}
