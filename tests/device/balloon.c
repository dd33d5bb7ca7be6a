/* SPDX-License-Identifier: MIT */
/*
 * The balloon: memory goes back to the host exactly where it may, the guest's side of sizes, statistics, reports and
 * hints, and what hostile drivers name as pages. How much memory the guest's file takes is measured by its blocks.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "frontend.h"
#include "huge-pages.h"

enum { PAGE = 4096, HUGE = 2 << 20, AREA = 64 };
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_HINTS, Q_REPORTING };
enum { F_STATS = 1, F_OOM, F_HINT, F_POISON, F_REPORTING };
enum { C_TARGET = 0, C_ACTUAL = 4, C_HINT = 8, C_POISON = 12 };
#define HINT_FIRST UINT32_C(0x80000000)

static char path[160], option[192];
static int control = -1;

static void choose_path(void)
{
	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
}

/* The balloon with its first two queues, and a client of its control socket. */
static void start(struct fe *fe, const struct fe_mode *m, struct fe_queue **inflate,
	struct fe_queue **deflate, const char *more, const char *more2)
{
	choose_path();
	fe_start(fe, m, FE_ARGS("balloon", option, more ? more : "--initial=0", more2));
	*inflate = fe_queue_up(fe, Q_INFLATE, 16);
	*deflate = fe_queue_up(fe, Q_DEFLATE, 16);
	control = fe_control_open(path);
}

static void end(struct fe *fe)
{
	fd_close(&control);
	fe_end(fe);
}

static uint64_t field_of(const char *line, const char *key)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = strstr(line, quoted);
	if (!at)
		FAIL("no %s in %s", key, line);
	return strtoull(at + strlen(quoted), NULL, 10);
}

static uint64_t balloon(const char *key)
{
	return field_of(fe_control(control, "query-balloon"), key);
}

static void set_size(uint64_t size)
{
	char line[128];

	snprintf(line, sizeof(line), "{\"execute\":\"balloon\",\"arguments\":{\"size\":%llu}}",
		(unsigned long long)size);
	CHECK_STR(fe_control_ask(control, line), "{\"return\":{}}");
}

/* Pages that the file of guest memory takes. */
static uint64_t resident(const struct fe *fe)
{
	struct stat st;

	CHECK_SYS(fstat(fe->regions[0].fd, &st));
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void fill(uint8_t *p, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		memset(p + (size_t)i * PAGE, 0x11 + (int)(i % 0xee), PAGE);
}

static void check_page(const uint8_t *p, unsigned i, bool gone)
{
	for (unsigned k = 0; k < PAGE; k++)
		if (p[(size_t)i * PAGE + k] != (gone ? 0 : 0x11 + i % 0xee))
			FAIL("page %u, byte %u: 0x%x", i, k, p[(size_t)i * PAGE + k]);
}

/* One request with these page numbers. */
static void tell(struct fe_queue *q, const uint32_t *pfn, unsigned n)
{
	size_t mark = fe_mark(q->fe);
	uint32_t *list = fe_alloc(q->fe, n * sizeof(*list), 4, NULL);
	struct vring_driver_buf buf = fe_rd(q->fe, list, (uint32_t)(n * sizeof(*list)));

	memcpy(list, pfn, n * sizeof(*list));
	CHECK_EQ(fe_transact(q, &buf, 1), 0);
	fe_release(q->fe, mark);
}

/* Filled memory, and a place for requests that is not on its pages. */
static uint8_t *area(struct fe *fe, unsigned pages, uint32_t *first)
{
	uint64_t gpa;
	uint8_t *p = fe_alloc(fe, (size_t)pages * PAGE, PAGE, &gpa);

	fe_alloc(fe, PAGE, PAGE, NULL);
	fill(p, pages);
	*first = (uint32_t)(gpa / PAGE);
	return p;
}

/* --- inflate and deflate --- */

static void inflates(const struct fe_mode *m)
{
	static const uint32_t order[3][8] = {
		{0, 1, 2, 3, 10, 11, 40, 63}, {63, 40, 11, 10, 3, 2, 1, 0}, {11, 3, 63, 0, 2, 40, 1, 10}};
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t first, pfn[8];
	uint64_t before;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	p = area(&fe, AREA, &first);
	for (unsigned r = 0; r < 3; r++) {
		fill(p, AREA);
		tell(out, &first, 1); /* allocates what requests take */
		before = resident(&fe);
		for (unsigned i = 0; i < 8; i++)
			pfn[i] = first + order[r][i];
		tell(in, pfn, 8);
		CHECK_EQ(resident(&fe), before - 8);
		tell(in, pfn, 8); /* again: nothing is left to take */
		CHECK_EQ(resident(&fe), before - 8);
		for (unsigned i = 0; i < AREA; i++) {
			bool gone = false;

			for (unsigned k = 0; k < 8; k++)
				gone |= order[0][k] == i;
			check_page(p, i, gone);
		}
		tell(out, pfn, 8);
	}
	CHECK_EQ(balloon("inflated"), 3 * 2 * 8 * PAGE);
	CHECK_EQ(balloon("deflated"), 3 * 9 * PAGE);
	CHECK_EQ(balloon("discarded"), 3 * 2 * 8 * PAGE);
	CHECK_EQ(balloon("pages-outside"), 0);
	end(&fe);
}

/* More page numbers than one turn works on, with another queue served meanwhile. */
static void long_request(const struct fe_mode *m)
{
	enum { N = 300000 };
	struct fe fe;
	struct fe_queue *in, *out;
	struct vring_driver_buf buf;
	uint32_t first, *list;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	p = area(&fe, AREA, &first);
	list = fe_alloc(&fe, N * sizeof(*list) + 3, PAGE, NULL);
	for (unsigned i = 0; i < N; i++)
		list[i] = first + 1 + i % 7 * 2;
	buf = fe_rd(&fe, list, N * sizeof(*list) + 3);
	fe_submit(in, &buf, 1, NULL);
	fe_flush(in);
	tell(out, &first, 1);
	CHECK_EQ(fe_wait(in, NULL), 0);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, i % 2 && i < 14);
	CHECK_EQ(balloon("inflated"), (uint64_t)N * PAGE);
	end(&fe);
}

/* The ring stops in the middle of a long request, and goes on. */
static void stop_in_between(const struct fe_mode *m)
{
	enum { N = 300000, TIMES = 5 };
	struct fe fe;
	struct fe_queue *in, *out;
	struct vring_driver_buf buf;
	uint32_t first, *list;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	p = area(&fe, AREA, &first);
	list = fe_alloc(&fe, N * sizeof(*list), PAGE, NULL);
	for (unsigned i = 0; i < N; i++)
		list[i] = first + 1 + i % 7 * 2;
	buf = fe_rd(&fe, list, N * sizeof(*list));
	for (unsigned i = 0; i < 3; i++)
		fe_submit(in, &buf, 1, NULL);
	fe_flush(in);
	for (unsigned i = 0; i < TIMES; i++) {
		uint32_t base = fe_queue_stop(in);

		fe_queue_send(in, base);
		if (fe.features & BIT(FE_F_PROTOCOL))
			fe_queue_enable(in, true);
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(fe_wait(in, NULL), 0);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, i % 2 && i < 14);
	end(&fe);
}

static void hostile(const struct fe_mode *m)
{
	static const uint32_t odd[] = {
		0xffffffff, 0, 0xfffff, 0x10000 / PAGE - 1, 0x80000000, 0x10000 / PAGE + 256};
	struct vring_driver_buf none, write, both[2];
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t first, *list;
	uint64_t before;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	p = area(&fe, AREA, &first);
	list = fe_alloc(&fe, PAGE, PAGE, NULL);
	*list = first;
	tell(out, &first, 1); /* allocates what requests take */
	before = resident(&fe);
	tell(in, odd, ARRAY_SIZE(odd));
	tell(out, odd, ARRAY_SIZE(odd));
	none = fe_rd(&fe, list, 3); /* not a whole number */
	CHECK_EQ(fe_transact(in, &none, 1), 0);
	write = fe_wr(&fe, list, 4); /* writable: not ours to read */
	CHECK_EQ(fe_transact(in, &write, 1), 0);
	CHECK_EQ(resident(&fe), before);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, false);
	both[0] = fe_rd(&fe, list, 2); /* a number in two pieces */
	both[1] = fe_rd(&fe, (uint8_t *)list + 2, 2);
	CHECK_EQ(fe_transact(in, both, 2), 0);
	check_page(p, 0, true);
	CHECK(balloon("pages-outside") >= 5);
	CHECK_EQ(balloon("discarded"), PAGE);
	end(&fe);
}

/* All of guest memory: what rings lie in stays, and they go on. */
static void rings_stay(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out;
	struct vring_driver_buf buf;
	uint32_t *list, n = 0;
	struct fe_region *r;

	start(&fe, m, &in, &out, NULL, NULL);
	r = &fe.regions[0];
	list = fe_alloc(&fe, r->w.size / PAGE * 4, PAGE, NULL);
	for (uint64_t at = 0; at < r->w.size; at += PAGE) {
		uint8_t *page = r->ptr + at;

		if (page + PAGE <= (uint8_t *)list || page >= (uint8_t *)list + r->w.size / PAGE * 4)
			list[n++] = (uint32_t)((r->w.gpa + at) / PAGE);
	}
	buf = fe_rd(&fe, list, n * 4);
	CHECK_EQ(fe_transact(in, &buf, 1), 0);
	CHECK(balloon("discarded") < (uint64_t)n * PAGE);
	CHECK(balloon("discarded") > (uint64_t)(n - 20) * PAGE);
	for (unsigned i = 0; i < 40; i++) {
		tell(in, &list[i % n], 1);
		tell(out, &list[i % n], 1);
	}
	end(&fe);
}

/* --- when nothing may go --- */

static void not_while_logging(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t first, pfn;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	p = area(&fe, AREA, &first);
	fe_log_set(&fe, 1 << 18, 0);
	fe_set_features(&fe, fe.features | BIT(FE_F_LOG_ALL));
	pfn = first + 5;
	tell(in, &pfn, 1);
	check_page(p, 5, false);
	fe_set_features(&fe, fe.features & ~BIT(FE_F_LOG_ALL));
	tell(in, &pfn, 1);
	check_page(p, 5, true);
	end(&fe);
}

static void not_in_postcopy(const struct fe_mode *m)
{
	struct fe_msg reply;
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t first, pfn;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	if (!fe_has(&fe, FE_P_PAGEFAULT))
		tap_skip("no userfaultfd here");
	p = area(&fe, AREA, &first);
	fe_send(&fe, FE_POSTCOPY_ADVISE, 0, NULL, 0, NULL, 0);
	CHECK(fe_recv(&fe, &reply));
	fe_close_fds(reply.fds, reply.nfds);
	pfn = first + 5;
	tell(in, &pfn, 1);
	check_page(p, 5, false);
	CHECK_EQ(fe_get(&fe, FE_POSTCOPY_END), 0);
	tell(in, &pfn, 1);
	check_page(p, 5, true);
	end(&fe);
}

static void no_discard(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t first;
	uint8_t *p;

	start(&fe, m, &in, &out, "--no-discard", NULL);
	p = area(&fe, AREA, &first);
	tell(in, &first, 1);
	check_page(p, 0, false);
	CHECK_EQ(balloon("discarded"), 0);
	CHECK_EQ(balloon("inflated"), PAGE);
	end(&fe);
}

/* --- huge pages: parts are collected --- */

static void huge(const struct fe_mode *m)
{
	enum { PARTS = HUGE / PAGE };
	const uint64_t gpa = UINT64_C(8) << 30;
	struct fe fe;
	struct fe_queue *in, *out;
	struct fe_region *r;
	struct stat st;
	uint32_t pfn[PARTS];
	blkcnt_t full;
	int fd;

	fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | 21u << 26);
	if (fd < 0 || ftruncate(fd, 2 * HUGE) < 0 || fallocate(fd, 0, 0, 2 * HUGE) < 0)
		tap_skip("no huge pages: %s", strerror(errno));
	start(&fe, m, &in, &out, NULL, NULL);
	r = fe_region_make(&fe, gpa, 2 * HUGE, 0x7f0000000000, fd, 0);
	fe_region_add(&fe, r);
	memset(r->ptr, 0xaa, 2 * HUGE);
	CHECK_SYS(fstat(fd, &st));
	full = st.st_blocks;
	for (unsigned i = 0; i < PARTS; i++)
		pfn[i] = (uint32_t)(gpa / PAGE) + (i * 77) % PARTS; /* in disorder */
	for (unsigned i = 0; i < PARTS - 1; i++)
		tell(in, &pfn[i], 1);
	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_blocks, full); /* not before it is whole */
	tell(out, &pfn[3], 1);
	tell(in, &pfn[PARTS - 1], 1);
	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_blocks, full); /* a part was taken out again */
	CHECK_EQ(r->ptr[0], 0xaa);
	tell(in, &pfn[3], 1);
	CHECK_SYS(fstat(fd, &st));
	CHECK_EQ(st.st_blocks, full / 2);
	CHECK_EQ(balloon("discarded"), HUGE);
	CHECK_EQ(r->ptr[HUGE], 0xaa);
	CHECK_EQ(r->ptr[0], 0); /* in use again */
	tell(out, pfn, PARTS);
	CHECK_EQ(balloon("collecting"), 0);
	for (unsigned i = 0; i < PARTS; i++)
		pfn[i] = (uint32_t)(gpa / PAGE) + PARTS + i;
	tell(in, pfn, PARTS); /* whole in one request */
	CHECK_EQ(balloon("discarded"), 2 * HUGE);
	close(fd);
	end(&fe);
}

/* --- size and configuration --- */

static uint32_t config(struct fe *fe, uint32_t at)
{
	uint32_t v;

	fe_config_get(fe, at, &v, 4);
	return v;
}

static void sizes(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out;
	uint32_t actual = 256, wide[4] = {7, 512, 9, 0};
	const char *event;

	start(&fe, m, &in, &out, "--initial=4M", NULL);
	CHECK_EQ(config(&fe, C_TARGET), 1024);
	CHECK_EQ(config(&fe, C_ACTUAL), 0);
	set_size(3 << 20);
	fe_config_changed(&fe);
	CHECK_EQ(config(&fe, C_TARGET), 768);
	fe_config_set(&fe, C_ACTUAL, &actual, 4, 0);
	event = fe_control_event(control, "balloon-change");
	CHECK_EQ(field_of(event, "actual"), 1 << 20);
	CHECK_EQ(field_of(event, "target"), 3 << 20);
	fe_config_set(&fe, 0, wide, 16, 0); /* a front-end that writes all of it */
	event = fe_control_event(control, "balloon-change");
	CHECK_EQ(field_of(event, "actual"), 2 << 20);
	CHECK_EQ(config(&fe, C_TARGET), 768); /* not the guest's to set */
	CHECK_EQ(config(&fe, C_HINT), 0);
	CHECK_HAS(fe_control_ask(control, "{\"execute\":\"balloon\",\"arguments\":{\"size\":4097}}"),
		"InvalidArgument");
	CHECK_HAS(fe_control_ask(control, "{\"execute\":\"balloon\",\"arguments\":{\"size\":\"17T\"}}"),
		"InvalidArgument");
	CHECK_EQ(balloon("target"), 3 << 20);
	CHECK_EQ(balloon("actual"), 2 << 20);
	end(&fe);
}

/* Events of a size that changes all the time come now and then, the last one for sure. */
static void sizes_fast(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out;
	unsigned events = 0;
	uint64_t last = 0;

	start(&fe, m, &in, &out, NULL, NULL);
	for (uint32_t i = 1; i <= 2000; i++)
		fe_config_set(&fe, C_ACTUAL, &i, 4, 0);
	while (last != 2000 * PAGE) {
		last = field_of(fe_control_event(control, "balloon-change"), "actual");
		events++;
	}
	CHECK(events < 500);
	end(&fe);
}

/* --- statistics --- */

struct stat_entry {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

static void statistics(const struct fe_mode *m)
{
	struct stat_entry *s;
	struct vring_driver_buf buf;
	struct fe fe;
	struct fe_queue *in, *out, *q;
	const char *line;
	uint32_t base;

	start(&fe, m, &in, &out, NULL, NULL);
	CHECK_HAS(fe_control(control, "query-balloon-stats"), "NotFound");
	CHECK_HAS(fe_control(control, "ask-balloon-stats"), "Busy");
	q = fe_queue_up(&fe, Q_STATS, 16);
	s = fe_alloc(&fe, 20 * sizeof(*s), 8, NULL);
	for (uint16_t i = 0; i < 18; i++)
		s[i] = (struct stat_entry){i, 1000 + i};
	s[18] = (struct stat_entry){4, UINT64_MAX}; /* the last one counts: not known */
	s[19] = (struct stat_entry){0xffff, 1};
	buf = fe_rd(&fe, s, 20 * sizeof(*s));
	fe_submit(q, &buf, 1, s);
	fe_flush(q);
	line = fe_control_event(control, "balloon-stats");
	CHECK_EQ(field_of(line, "swap-in-bytes"), 1000);
	CHECK_EQ(field_of(line, "cache-bytes"), 1007);
	CHECK_EQ(field_of(line, "direct-reclaims"), 1015);
	CHECK(!strstr(line, "free-bytes"));
	CHECK_EQ(field_of(fe_control(control, "query-balloon-stats"), "total-bytes"), 1005);
	CHECK(!fe_wait_ms(q, NULL, &base, 20)); /* it is kept */
	CHECK_STR(fe_control(control, "ask-balloon-stats"), "{\"return\":{}}");
	CHECK_EQ(fe_wait(q, NULL), 0);
	/* on and on by itself; stopped and started with the buffer kept */
	fe_control_ask(
		control, "{\"execute\":\"set-balloon-stats-interval\",\"arguments\":{\"milliseconds\":5}}");
	for (unsigned i = 0; i < 5; i++) {
		s[0].value = 5000 + i;
		buf.len = sizeof(*s);
		fe_submit(q, &buf, 1, s);
		fe_flush(q);
		CHECK_EQ(fe_wait(q, NULL), 0);
		line = fe_control_event(control, "balloon-stats");
		CHECK_EQ(field_of(line, "swap-in-bytes"), 5000 + i);
		CHECK(!strstr(line, "total-bytes"));
	}
	fe_control_ask(
		control, "{\"execute\":\"set-balloon-stats-interval\",\"arguments\":{\"milliseconds\":0}}");
	fe_submit(q, &buf, 1, s);
	fe_flush(q);
	fe_control_event(control, "balloon-stats");
	base = fe_queue_stop(q);
	CHECK_HAS(fe_control(control, "ask-balloon-stats"), "Busy");
	fe_queue_send(q, base);
	if (fe.features & BIT(FE_F_PROTOCOL))
		fe_queue_enable(q, true);
	fe_control_event(control, "balloon-stats"); /* the same buffer again */
	fe_control(control, "ask-balloon-stats");
	CHECK_EQ(fe_wait(q, NULL), 0);
	/* two at once, an empty one */
	fe_submit(q, &buf, 1, s);
	fe_submit(q, &buf, 1, s);
	fe_flush(q);
	CHECK_EQ(fe_wait(q, NULL), 0);
	end(&fe);
}

/* --- free page reporting --- */

static void report(
	struct fe_queue *q, const struct fe *fe, uint8_t *p, unsigned from, unsigned to, bool split)
{
	struct vring_driver_buf buf[2];
	unsigned middle = split ? (from + to) / 2 : to;

	buf[0] = fe_wr(fe, p + (size_t)from * PAGE, (middle - from) * PAGE);
	if (split)
		buf[1] = fe_wr(fe, p + (size_t)middle * PAGE, (to - middle) * PAGE);
	CHECK_EQ(fe_transact(q, buf, split ? 2 : 1), 0);
}

static void reports(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out, *q;
	struct vring_driver_buf buf;
	uint32_t first, poison = 0xaaaaaaaa;
	uint64_t before;
	uint8_t *p;

	start(&fe, m, &in, &out, "--free-page-reporting", NULL);
	CHECK(fe.features & BIT(F_REPORTING));
	q = fe_queue_up(&fe, Q_REPORTING, 16);
	p = area(&fe, AREA, &first);
	tell(out, &first, 1);
	before = resident(&fe);
	report(q, &fe, p, 8, 40, true);
	CHECK_EQ(resident(&fe), before - 32);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, i >= 8 && i < 40);
	CHECK_EQ(balloon("reported"), 32 * PAGE);
	CHECK_EQ(balloon("discarded"), 32 * PAGE);
	/* parts of pages are not pages */
	fill(p, AREA);
	buf = fe_wr(&fe, p + 100, 2 * PAGE);
	CHECK_EQ(fe_transact(q, &buf, 1), 0);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, i == 1);
	/* a driver that poisons free pages wants to find the poison */
	fe_config_set(&fe, C_POISON, &poison, 4, 0);
	fill(p, AREA);
	report(q, &fe, p, 0, 64, false);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, false);
	poison = 0;
	fe_config_set(&fe, C_POISON, &poison, 4, 0);
	report(q, &fe, p, 0, 64, false);
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, true);
	end(&fe);
}

/* Drivers number queues without those that they did not negotiate, or by the specification. */
static void numbering(const struct fe_mode *m)
{
	for (unsigned fixed = 0; fixed < 2; fixed++) {
		struct fe fe;
		struct fe_queue *q;
		uint32_t first;
		uint8_t *p;

		choose_path();
		fe_init(&fe, m);
		fe.device_mask = ~(BIT(F_STATS) | BIT(F_HINT));
		fe_spawn(&fe, FE_ARGS("balloon", "--free-page-reporting"));
		fe_handshake(&fe);
		fe_memory_default(&fe);
		q = fe_queue_up(&fe, fixed ? Q_REPORTING : 2, 16);
		p = area(&fe, AREA, &first);
		report(q, &fe, p, 0, 8, false);
		for (unsigned i = 0; i < AREA; i++)
			check_page(p, i, i < 8);
		fe_end(&fe);
	}
}

/* --- free page hints --- */

static void hint_id(struct fe_queue *q, uint32_t id)
{
	uint32_t *p = fe_alloc(q->fe, 4, 4, NULL);
	struct vring_driver_buf buf = fe_rd(q->fe, p, 4);

	*p = id;
	CHECK_EQ(fe_transact(q, &buf, 1), 0);
}

static void hints(const struct fe_mode *m)
{
	struct fe fe;
	struct fe_queue *in, *out, *q;
	uint32_t first;
	uint8_t *p;

	start(&fe, m, &in, &out, NULL, NULL);
	q = fe_queue_up(&fe, Q_HINTS, 16);
	p = area(&fe, AREA, &first);
	report(q, &fe, p, 0, 64, true); /* unasked */
	for (uint32_t run = 0; run < 3; run++) {
		CHECK_STR(fe_control(control, "free-page-hints"), "{\"return\":{}}");
		fe_config_changed(&fe);
		CHECK_EQ(config(&fe, C_HINT), HINT_FIRST + run);
		hint_id(q, HINT_FIRST + run - 1); /* of the last run */
		report(q, &fe, p, 0, 64, false);
		hint_id(q, HINT_FIRST + run);
		report(q, &fe, p, 0, 10 + run, true);
		report(q, &fe, p, 20, 30, false);
		hint_id(q, 0);
		CHECK_EQ(field_of(fe_control_event(control, "free-page-hints"), "bytes"), (20 + run) * PAGE);
		fe_config_changed(&fe);
		CHECK_EQ(config(&fe, C_HINT), 1); /* done */
	}
	for (unsigned i = 0; i < AREA; i++)
		check_page(p, i, false); /* a hint is no promise */
	end(&fe);
}

/* --- life --- */

static void reconnects(const struct fe_mode *m)
{
	struct fe_process process = {0};
	char sock[160];
	struct fe fe;
	struct fe_queue *in;
	uint32_t first, actual = 5;
	uint8_t *p;

	choose_path();
	snprintf(sock, sizeof(sock), "%s/s", fe_tmpdir());
	for (unsigned i = 0; i < 3; i++) {
		fe_init(&fe, m);
		if (i == 0) {
			fe_spawn_path(&fe, sock, FE_ARGS("balloon", "--initial=1M", option));
			process = fe.process;
			control = fe_control_open(path);
		} else {
			fe_connect(&fe, sock);
		}
		fe_handshake(&fe);
		fe_memory_default(&fe);
		in = fe_queue_up(&fe, Q_INFLATE, 16);
		CHECK_EQ(config(&fe, C_TARGET), i ? 512 : 256); /* what was set stays */
		CHECK_EQ(config(&fe, C_ACTUAL), 0);		/* a new guest has an empty balloon */
		p = area(&fe, AREA, &first);
		tell(in, &first, 1);
		check_page(p, 0, true);
		fe_config_set(&fe, C_ACTUAL, &actual, 4, 0);
		set_size(2 << 20);
		fe_hangup(&fe);
		fe_control_event(control, "disconnected");
		fe_close(&fe);
	}
	fe_control(control, "quit");
	fe_process_exits(&process, 0);
	fd_close(&control);
}

int main(void)
{
	struct huge_pages pages;

	fe_each_mode_in_order("pages go and the others stay", inflates);
	fe_each_mode("a long request", long_request);
	fe_each_layout("stopped in a long request", stop_in_between);
	fe_each_mode("pages that there are not", hostile);
	fe_each_mode("pages of rings", rings_stay);
	fe_each_layout("not while writes are logged", not_while_logging);
	fe_each_layout("not in postcopy", not_in_postcopy);
	fe_each_layout("--no-discard", no_discard);
	huge_pages_reserve(&pages);
	fe_each_layout("huge pages", huge);
	huge_pages_release(&pages);
	fe_each_layout("target and actual size", sizes);
	fe_each_layout("a size that changes fast", sizes_fast);
	fe_each_mode("statistics", statistics);
	fe_each_mode("free page reporting", reports);
	fe_each_layout("numbers of queues", numbering);
	fe_each_mode("free page hints", hints);
	fe_each_layout("reconnect", reconnects);
	return tap_done();
}
