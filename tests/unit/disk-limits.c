/* SPDX-License-Identifier: MIT */
/*
 * Limits of a disk: the buckets with a clock of our own; then lanes that hold requests, let them go in turn, and give them
 * back. And what changes while a disk is open: its size, and how worn it is.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "disk-file.h"
#include "disk-throttle.h"
#include "log.h"
#include "tap.h"
#include "util.h"

#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

/* --- buckets, in pretended time --- */

/* What one lane gets through from `from` to `to`, asking again when it was told to. */
static uint64_t served(
	struct throttle *t, struct throttle_lane *l, uint64_t from, uint64_t to, uint64_t bytes)
{
	uint64_t n = 0, now = from;

	while (now < to) {
		uint64_t at = throttle_ask(t, l, now, bytes);

		CHECK(at == 0 || at > now);
		n += at == 0;
		now = MAX(now, at);
	}
	return n;
}

static void burst_then_rate(void *arg)
{
	struct throttle t = {0};
	struct throttle_lane l = {0};
	uint64_t now = 5 * S;

	(void)arg;
	throttle_bucket_init(&t.bucket[THROTTLE_OPS], 1000, 20);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(throttle_ask(&t, &l, now, 512), 0);
	CHECK_EQ(throttle_ask(&t, &l, now, 512), now + MS);
	CHECK_EQ(throttle_ask(&t, &l, now + MS - 1, 512), now + MS);
	CHECK_EQ(throttle_ask(&t, &l, now + MS, 512), 0);
	CHECK_EQ(served(&t, &l, now + MS + 1, now + 1001 * MS, 512), 999);
	/* a rest fills the bucket again, and no more than that; one more had its date before */
	now += 10 * S;
	CHECK_EQ(served(&t, &l, now, now + 1, 512), 20 + 1);
}

static void defaults(void *arg)
{
	struct throttle_bucket b;

	(void)arg;
	throttle_bucket_init(&b, 50000, 0);
	CHECK_EQ(b.burst, 5000);
	CHECK_EQ(b.slice, 50);
	throttle_bucket_init(&b, 3, 0);
	CHECK_EQ(b.burst, 1);
	CHECK_EQ(b.slice, 1);
	throttle_bucket_init(&b, 50000, 7);
	CHECK_EQ(b.slice, 7);
}

static void bytes_and_requests(void *arg)
{
	struct throttle t = {0};
	struct throttle_lane l = {0};

	(void)arg;
	throttle_bucket_init(&t.bucket[THROTTLE_OPS], 1000, 10);
	throttle_bucket_init(&t.bucket[THROTTLE_BYTES], 1 << 20, 65536);
	/* large ones: the bytes are what limits */
	served(&t, &l, S, 2 * S, 65536);
	CHECK_EQ(served(&t, &l, 2 * S, 12 * S, 65536), 160);
	/* small ones: the requests */
	CHECK(served(&t, &l, 20 * S, 21 * S, 512) <= 1000 + 10);
	CHECK_EQ(served(&t, &l, 21 * S, 22 * S, 512), 1000);
	/* without bytes */
	CHECK_EQ(served(&t, &l, 22 * S, 23 * S, 0), 1000);
}

static void larger_than_the_burst(void *arg)
{
	struct throttle t = {0};
	struct throttle_lane l = {0};

	(void)arg;
	throttle_bucket_init(&t.bucket[THROTTLE_BYTES], 1 << 20, 4096);
	CHECK_EQ(throttle_ask(&t, &l, 100 * S, 1 << 20), 0);
	/* the next waits for what this one took */
	CHECK(throttle_ask(&t, &l, 100 * S, 4096) >= 101 * S - 4 * MS);
	CHECK_EQ(served(&t, &l, 102 * S, 112 * S, 1 << 20), 10 + 1);
}

static void charged(void *arg)
{
	struct throttle t = {0};
	struct throttle_lane l = {0};

	(void)arg;
	throttle_bucket_init(&t.bucket[THROTTLE_OPS], 1000, 1);
	for (int i = 0; i < 100; i++)
		throttle_charge(&t, &l, S, 0);
	CHECK_EQ(throttle_ask(&t, &l, S, 0), S + 100 * MS);
}

/* Extreme numbers neither overflow nor stop the clock. */
static void extremes(void *arg)
{
	struct throttle t = {0};
	struct throttle_lane l = {0};
	uint64_t at;

	(void)arg;
	throttle_bucket_init(&t.bucket[THROTTLE_BYTES], 1, 1);
	CHECK_EQ(throttle_ask(&t, &l, S, UINT64_C(1) << 40), 0);
	at = throttle_ask(&t, &l, S, UINT64_C(1) << 40);
	CHECK(at > S && at < UINT64_MAX / 2);
	t = (struct throttle){0};
	l = (struct throttle_lane){0};
	throttle_bucket_init(&t.bucket[THROTTLE_OPS], UINT64_C(1) << 40, UINT64_C(1) << 40);
	for (int i = 0; i < 100000; i++)
		CHECK_EQ(throttle_ask(&t, &l, S, 0), 0);
}

enum { LANES = 5 };

/* Lanes that always have more to do share the limit evenly, whatever it is. */
static void lanes_share(void *arg)
{
	static const uint64_t rates[] = {10, 500, 20000, 300000};

	(void)arg;
	for (size_t r = 0; r < ARRAY_SIZE(rates); r++) {
		struct throttle t = {0};
		struct throttle_lane l[LANES] = {0};
		uint64_t again[LANES] = {0}, n[LANES] = {0}, total = 0, now = S, end = S + 10 * S;

		throttle_bucket_init(&t.bucket[THROTTLE_OPS], rates[r], 0);
		while (now < end) {
			uint64_t next = UINT64_MAX;

			/* lane 0 always asks first: it gains nothing by it */
			for (int i = 0; i < LANES; i++) {
				while (again[i] <= now) {
					uint64_t at = throttle_ask(&t, &l[i], now, 0);

					again[i] = at;
					n[i] += at == 0;
				}
				next = MIN(next, again[i]);
			}
			now = next;
		}
		for (int i = 0; i < LANES; i++) {
			total += n[i];
			CHECK(n[i] * LANES >= rates[r] * 9);
		}
		/* all together: the limit, the burst, and at most a slice that each had left over */
		CHECK(total <= 10 * rates[r] + t.bucket[0].burst + LANES * t.bucket[0].slice);
		CHECK(total >= 10 * rates[r] - LANES * t.bucket[0].slice);
	}
}

/* --- lanes --- */

enum { REQUESTS = 12 };

static struct disk *disk;
static struct disk_lane *lane;
static struct loop *loop;
static struct disk_io io[REQUESTS];
static unsigned done, begun, order[REQUESTS];

static void io_done(struct disk_io *r)
{
	order[done++] = (unsigned)(r - io);
	if (done == REQUESTS)
		loop_stop(loop);
}

static void io_begun(struct disk_io *r)
{
	CHECK(!r->held);
	begun++;
}

/* One request at once, the others after 5 ms each. */
static void limited_setup(void)
{
	CHECK_EQ(loop_new(&loop, "limits"), 0);
	CHECK_EQ(disk_open(&disk, &(struct disk_options){.null_size = 1 << 20, .iops = 200, .iops_burst = 1}),
		0);
	CHECK_EQ(disk_lane_get(disk, loop, &lane), 0);
}

static void limited_submit(unsigned flags)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		io[i] = (struct disk_io){
			.done = io_done, .begun = io_begun, .op = DISK_FLUSH, .flags = (uint8_t)flags};
		if (disk_submit(lane, &io[i]))
			io_done(&io[i]);
	}
}

static void limited_teardown(void)
{
	disk_close(disk);
	loop_free(loop);
}

static void held_in_order(void *arg)
{
	uint64_t start = time_ns();

	(void)arg;
	limited_setup();
	limited_submit(0);
	CHECK_EQ(done, 1);
	for (int i = 1; i < REQUESTS; i++)
		CHECK(io[i].held);
	loop_run(loop);
	CHECK(time_ns() - start >= (REQUESTS - 1) * 5 * MS);
	CHECK_EQ(begun, REQUESTS - 1);
	for (unsigned i = 0; i < REQUESTS; i++)
		CHECK_EQ(order[i], i);
	limited_teardown();
}

static void parts_pass(void *arg)
{
	(void)arg;
	limited_setup();
	limited_submit(DISK_PART);
	CHECK_EQ(done, REQUESTS);
	CHECK_EQ(begun, 0);
	limited_teardown();
}

static bool take_odd(struct disk_io *r, void *arg)
{
	unsigned *taken = arg;

	if ((r - io) % 2 == 0)
		return false;
	(*taken)++;
	memset(r, 0xee, sizeof(*r)); /* the caller's again */
	return true;
}

static bool take_all(struct disk_io *r, void *arg)
{
	unsigned *taken = arg;

	(void)r;
	(*taken)++;
	return true;
}

static void withdrawn(void *arg)
{
	unsigned odd = 0, all = 0;

	(void)arg;
	limited_setup();
	limited_submit(0);
	disk_withdraw(lane, take_odd, &odd);
	CHECK_EQ(odd, REQUESTS / 2);
	done = REQUESTS / 2 + 1; /* so that the last one ends the loop */
	loop_run(loop);
	CHECK_EQ(begun, REQUESTS / 2 - 1);
	done = 0;
	limited_submit(0);
	disk_withdraw(lane, take_all, &all);
	CHECK_EQ(all, REQUESTS - done);
	disk_withdraw(lane, take_all, &all);
	CHECK_EQ(all, REQUESTS - done);
	limited_teardown();
}

static void bad_limits_are_refused(void *arg)
{
	struct disk *d;

	(void)arg;
	CHECK_EQ(disk_open(&d, &(struct disk_options){.null_size = 512, .iops_burst = 1}), -EINVAL);
	CHECK_EQ(disk_open(&d, &(struct disk_options){.null_size = 512, .bps_burst = 1, .iops = 1}), -EINVAL);
}

/* --- the size --- */

static char path[] = "disk-XXXXXX";
static struct disk_watch watch[2];
static unsigned changes[2];

static void changed(struct disk_watch *w)
{
	changes[w - watch]++;
	if (changes[0] > 0 && changes[1] > 0)
		loop_stop(loop);
}

static void grown(off_t size)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK_SYS(ftruncate(fd, size));
	close(fd);
}

static void size_setup(bool read_only)
{
	int fd = mkstemp(path);

	CHECK_SYS(fd);
	CHECK_SYS(ftruncate(fd, 1 << 20));
	close(fd);
	CHECK_EQ(loop_new(&loop, "size"), 0);
	CHECK_EQ(disk_open(&disk, &(struct disk_options){.path = path, .read_only = read_only}), 0);
	for (int i = 0; i < 2; i++) {
		watch[i].changed = changed;
		CHECK_EQ(disk_watch_add(disk, loop, &watch[i]), 0);
	}
}

static void size_teardown(void)
{
	for (int i = 0; i < 2; i++)
		disk_watch_del(&watch[i]);
	disk_watch_del(&watch[0]);
	disk_close(disk);
	loop_free(loop);
	unlink(path);
}

static void all_are_told(void)
{
	memset(changes, 0, sizeof(changes));
	loop_run(loop);
	CHECK_EQ(changes[0], 1);
	CHECK_EQ(changes[1], 1);
}

static void file_grows(void *arg)
{
	(void)arg;
	size_setup(true);
	grown((1 << 20) + 700);
	all_are_told();
	CHECK_EQ(disk_size(disk), (1 << 20) + 512);
	grown(2 << 20);
	all_are_told();
	CHECK_EQ(disk_size(disk), 2 << 20);
	grown(1 << 19);
	all_are_told();
	CHECK_EQ(disk_size(disk), 1 << 19);
	size_teardown();
}

/* The file that is open, not another one that has its name by now. */
static void file_is_replaced(void *arg)
{
	char moved[32];

	(void)arg;
	size_setup(false);
	snprintf(moved, sizeof(moved), "%s.old", path);
	CHECK_SYS(rename(path, moved));
	close(open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600));
	grown(4 << 20);
	CHECK_EQ(disk_resize(disk, 0), 0);
	CHECK_EQ(disk_size(disk), 1 << 20);
	CHECK_SYS(truncate(moved, 3 << 20));
	CHECK_EQ(disk_resize(disk, 0), 0);
	all_are_told();
	CHECK_EQ(disk_size(disk), 3 << 20);
	unlink(moved);
	size_teardown();
}

static void resized(void *arg)
{
	struct stat st;

	(void)arg;
	size_setup(false);
	CHECK_EQ(disk_resize(disk, (1 << 20) + 1), -EINVAL);
	CHECK_EQ(disk_resize(disk, 1 << 19), -EINVAL);
	CHECK_EQ(disk_resize(disk, ALIGN_DOWN(UINT64_MAX, 512u)), -EINVAL);
	CHECK_EQ(disk_resize(disk, 8 << 20), 0);
	CHECK_EQ(disk_size(disk), 8 << 20);
	all_are_told();
	CHECK_SYS(stat(path, &st));
	CHECK_EQ(st.st_size, 8 << 20);
	/* nothing new, nobody is told */
	CHECK_EQ(disk_resize(disk, 8 << 20), 0);
	CHECK_EQ(disk_resize(disk, 0), 0);
	memset(changes, 0, sizeof(changes));
	disk_watch_del(&watch[1]);
	CHECK_EQ(changes[0], 0);
	size_teardown();
}

static void not_resized(void *arg)
{
	struct disk *null;

	(void)arg;
	size_setup(true);
	CHECK_EQ(disk_resize(disk, 8 << 20), -EROFS);
	size_teardown();
	CHECK_EQ(disk_open(&null, &(struct disk_options){.null_size = 1 << 20}), 0);
	CHECK_EQ(disk_resize(null, 0), -EOPNOTSUPP);
	disk_close(null);
}

/* --- wear, from a pretended sysfs --- */

static void attribute(const char *dir, const char *name, const char *text)
{
	char file[96];
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	f = fopen(file, "we");
	fputs(text, f);
	fclose(f);
}

static void lifetime(void *arg)
{
	char dir[] = "wear-XXXXXX", command[64];
	struct disk_lifetime l;

	(void)arg;
	CHECK(mkdtemp(dir) != NULL);
	CHECK(!disk_lifetime_read(dir, &l));
	attribute(dir, "pre_eol_info", "0x02\n");
	CHECK(!disk_lifetime_read(dir, &l));
	attribute(dir, "life_time", "0x03 0x0b\n");
	CHECK(disk_lifetime_read(dir, &l));
	CHECK_EQ(l.pre_eol_info, 2);
	CHECK_EQ(l.typ_a, 3);
	CHECK_EQ(l.typ_b, 11);
	attribute(dir, "life_time", "rubbish\n");
	CHECK(!disk_lifetime_read(dir, &l));
	attribute(dir, "life_time", "0x12345 0x1\n");
	CHECK(!disk_lifetime_read(dir, &l));
	snprintf(command, sizeof(command), "rm -r %s", dir);
	CHECK_EQ(system(command), 0);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	tap_case("a burst, then the rate", burst_then_rate, NULL);
	tap_case("defaults of bursts", defaults, NULL);
	tap_case("bytes and requests", bytes_and_requests, NULL);
	tap_case("a request larger than the burst", larger_than_the_burst, NULL);
	tap_case("what goes anyway is counted", charged, NULL);
	tap_case("extreme limits", extremes, NULL);
	tap_case("lanes share a limit", lanes_share, NULL);
	tap_case("a lane holds requests and lets them go in order", held_in_order, NULL);
	tap_case("parts of a request pass", parts_pass, NULL);
	tap_case("requests are withdrawn", withdrawn, NULL);
	tap_case("bad limits are refused", bad_limits_are_refused, NULL);
	tap_case("a file grows", file_grows, NULL);
	tap_case("a file is replaced", file_is_replaced, NULL);
	tap_case("a file is resized", resized, NULL);
	tap_case("what cannot be resized is not", not_resized, NULL);
	tap_case("how worn a device is", lifetime, NULL);
	return tap_done();
}
