/* SPDX-License-Identifier: MIT */
/*
 * Memory balloon (virtio 1.3, 5.5): the guest lends us pages, up to a target that we set, and we give their memory back to the
 * host by punching holes into the file it comes from. A page that the guest takes back reads as zeros.
 *
 * A page on the inflate queue is the balloon's until it comes on the deflate queue, so memory given back is lost to nobody.
 * A reported free page (free page reporting) is ours only while we hold the buffer: holes are punched before it goes back.
 * A hinted one (free page hints) may be in use again before we even see the hint, so hints are counted, and never acted on.
 *
 * Drivers number the queues without gaps: a queue whose feature was not negotiated takes no index; some follow the
 * specification's fixed numbers. role_of() understands both as far as they can be told apart.
 *
 * Requests are worked on in chunks, a chunk per turn, so that a long one does not keep others waiting.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "balloon-pages.h"
#include "balloon-stats.h"
#include "device.h"

#define MAX_PAGES UINT64_C(0xffffffff)
#define EVENT_NS  (UINT64_C(100) * 1000 * 1000) /* changes of the size are told so often */

enum { CHUNK = 1024 }; /* page numbers in a turn */
enum { F_PAGE_POISON = VIRTIO_BALLOON_F_PAGE_POISON, F_REPORTING = VIRTIO_BALLOON_F_REPORTING };
enum { HINT_STOP = 0, HINT_DONE = 1 };
#define HINT_FIRST UINT32_C(0x80000000)

enum role { INFLATE, DEFLATE, STATS, HINTS, REPORTING, ROLES };

struct balloon {
	uint64_t initial, stats_interval_ms;
	bool reporting, deflate_on_oom, no_discard;

	struct backend *b;
	struct balloon_pages pages;
	uint64_t generation;				  /* of the memory map that pages belong to */
	uint64_t inflated, deflated, reported, discarded; /* bytes so far: told, and given back to the host */
	uint64_t outside; /* pages that the driver named and that there are not */

	struct task more; /* goes on with long requests */
	struct virtqueue *stats_queue;
	struct element *stats_kept; /* the driver's buffer; giving it back asks for new statistics */
	struct balloon_stats stats;
	struct timer stats_due;

	struct timer change_due; /* armed: a change was told lately */
	bool changed;		 /* again since */

	uint32_t hint_id;
	bool hinting; /* the driver sends hints for this id */
	uint64_t hinted;
};

struct balloon_queue {
	struct element *now; /* a long request */
};

static struct virtio_balloon_config *config_of(struct backend *b)
{
	return (struct virtio_balloon_config *)b->config;
}

static uint64_t target_of(struct backend *b)
{
	return (uint64_t)le32toh(config_of(b)->num_pages) * BALLOON_PAGE;
}

static uint64_t actual_of(struct backend *b)
{
	return (uint64_t)le32toh(config_of(b)->actual) * BALLOON_PAGE;
}

/* Queues */

static enum role role_of(struct backend *b, unsigned index)
{
	static const unsigned needs[ROLES] = {[STATS] = VIRTIO_BALLOON_F_STATS_VQ,
		[HINTS] = VIRTIO_BALLOON_F_FREE_PAGE_HINT,
		[REPORTING] = F_REPORTING};
	unsigned at = 0, role;

	for (role = 0; role < ROLES; role++) {
		if (role >= STATS && !backend_has(b, needs[role]))
			continue;
		if (at++ == index)
			return (enum role)role;
	}
	return (enum role)index;
}

/* Pages */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Drivers send them in order, ascending or descending, more often than not. */
static void sort(uint32_t *pfn, unsigned n)
{
	unsigned up = 0, down = 0, i;

	for (i = 1; i < n; i++) {
		up += pfn[i] > pfn[i - 1];
		down += pfn[i] < pfn[i - 1];
	}
	if (n < 2 || up == n - 1)
		return;
	if (down < n - 1) {
		qsort(pfn, n, sizeof(*pfn), compare);
		return;
	}
	for (i = 0; i < n / 2; i++) {
		uint32_t t = pfn[i];

		pfn[i] = pfn[n - 1 - i];
		pfn[n - 1 - i] = t;
	}
}

static void discard(struct balloon *s, struct backend_memory *m, uint64_t from, uint64_t to)
{
	if (from < to && !s->no_discard)
		s->discarded += backend_memory_discard(s->b, m, from, to - from);
}

/* [from, to) went into the balloon. */
static void inflate(struct balloon *s, struct backend_memory *m, uint64_t from, uint64_t to)
{
	uint64_t start, size, small = from, at = from;

	if (!backend_has(s->b,
		    VIRTIO_BALLOON_F_MUST_TELL_HOST)) { /* nothing is known of pages of earlier requests */
		discard(s, m, from, to);
		return;
	}
	while (at < to) {
		bool known = backend_memory_page(m, at, &start, &size);

		if (known && size <= BALLOON_PAGE) {
			at += BALLOON_PAGE;
			continue;
		}
		discard(s, m, small, at);
		if (known) {
			uint64_t end = MIN(to, start + size);

			if (balloon_pages_add(&s->pages, start, size, at, end))
				discard(s, m, start, start + size);
			at = end;
		} else {
			s->outside++;
			at += BALLOON_PAGE;
		}
		small = at;
	}
	discard(s, m, small, to);
}

static void deflate(struct balloon *s, struct backend_memory *m, uint64_t from, uint64_t to)
{
	uint64_t start, size;

	while (from < to) {
		uint64_t end = from + BALLOON_PAGE;

		if (backend_memory_page(m, from, &start, &size) && size > BALLOON_PAGE) {
			end = MIN(to, start + size);
			balloon_pages_remove(&s->pages, start, size, from, end);
		}
		from = end;
	}
}

static void pages_chunk(struct balloon *s, enum role role, uint32_t *pfn, unsigned n)
{
	struct backend_memory m;
	unsigned i = 0;

	if (!backend_memory_get(s->b, &m))
		return;
	if (s->generation != backend_memory_generation(s->b))
		balloon_pages_clear(&s->pages);
	s->generation = backend_memory_generation(s->b);
	sort(pfn, n);
	while (i < n) {
		uint64_t from = (uint64_t)pfn[i] * BALLOON_PAGE, to = from + BALLOON_PAGE;

		for (i++; i < n && (uint64_t)pfn[i] * BALLOON_PAGE <= to; i++)
			to = MAX(to, ((uint64_t)pfn[i] + 1) * BALLOON_PAGE);
		if (role == INFLATE)
			inflate(s, &m, from, to);
		else
			deflate(s, &m, from, to);
	}
	backend_memory_put(&m);
}

/* True: all of the request is done. */
static bool pages_request(struct balloon *s, enum role role, struct element *e)
{
	uint32_t pfn[CHUNK];
	unsigned n = (unsigned)MIN(e->rd.left / sizeof(pfn[0]), (size_t)CHUNK), i;

	if (!cursor_get(&e->rd, pfn, n * sizeof(pfn[0])))
		return true;
	for (i = 0; i < n; i++)
		pfn[i] = le32toh(pfn[i]);
	if (role == INFLATE)
		s->inflated += (uint64_t)n * BALLOON_PAGE;
	else
		s->deflated += (uint64_t)n * BALLOON_PAGE;
	pages_chunk(s, role, pfn, n);
	if (e->rd.left >= sizeof(pfn[0]))
		return false;
	if (e->rd.left)
		virtqueue_count_error(e->queue);
	return true;
}

static void pages_ready(struct balloon *s, enum role role, struct virtqueue *q)
{
	struct balloon_queue *qs = virtqueue_state(q);
	struct element *e;

	while ((e = qs->now ? qs->now : virtqueue_pop(q))) {
		qs->now = NULL;
		if (!pages_request(s, role, e)) {
			qs->now = e;
			loop_again(s->b->loop, &s->more);
			return;
		}
		virtqueue_push(e);
	}
}

static void more_run(struct task *t)
{
	struct balloon *s = container_of(t, struct balloon, more);

	for (unsigned i = 0; i < ROLES; i++) {
		struct virtqueue *q = backend_queue(s->b, i);

		if (q && ((struct balloon_queue *)virtqueue_state(q))->now)
			virtqueue_wake(q);
	}
}

/* Free page reporting: what the driver wants back must be zeros, or as it was (virtio 1.3, 5.5.6.7). */
static void reporting_ready(struct balloon *s, struct virtqueue *q)
{
	bool poisoned = backend_has(s->b, F_PAGE_POISON) && config_of(s->b)->poison_val;
	struct backend_memory m;
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		uint64_t gpa, len;

		if (backend_memory_get(s->b, &m)) {
			for (unsigned i = 0; virtqueue_writable(e, i, &gpa, &len); i++) {
				s->reported += len;
				if (!poisoned)
					discard(s, &m, gpa, gpa + len);
			}
			backend_memory_put(&m);
		}
		virtqueue_push(e);
	}
}

/* Free page hints */

static void hint_id_set(struct balloon *s, uint32_t id)
{
	config_of(s->b)->free_page_hint_cmd_id = htole32(id);
	backend_config_changed(s->b);
}

static void hints_end(struct balloon *s)
{
	struct json *data = backend_event_wanted(s->b) ? json_new(false) : NULL;

	s->hinting = false;
	hint_id_set(s, HINT_DONE); /* the driver takes its pages back */
	if (data) {
		json_object_begin(data);
		json_key(data, "bytes");
		json_u64(data, s->hinted);
		json_object_end(data);
	}
	backend_event(s->b, "free-page-hints", data);
}

static void hints_ready(struct balloon *s, struct virtqueue *q)
{
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		uint64_t gpa, len;
		uint32_t id;

		if (e->rd.left >= sizeof(id) && cursor_get(&e->rd, &id, sizeof(id))) {
			id = le32toh(id);
			if (id == s->hint_id && id >= HINT_FIRST) {
				s->hinting = true;
				s->hinted = 0;
			} else if (s->hinting && id == HINT_STOP) {
				hints_end(s);
			}
		}
		for (unsigned i = 0; s->hinting && virtqueue_writable(e, i, &gpa, &len); i++)
			s->hinted += len;
		virtqueue_push(e);
	}
}

/* Statistics */

static void stats_ready(struct balloon *s, struct virtqueue *q)
{
	struct element *e;
	struct json *data;

	while ((e = virtqueue_pop(q))) {
		if (s->stats_kept)
			virtqueue_push(s->stats_kept);
		s->stats_kept = e;
		balloon_stats_read(&s->stats, &e->rd);
		data = backend_event_wanted(s->b) ? json_new(false) : NULL;
		if (data)
			balloon_stats_write(&s->stats, data);
		backend_event(s->b, "balloon-stats", data);
	}
}

static bool stats_ask(struct balloon *s)
{
	struct element *e = s->stats_kept;

	if (!e)
		return false;
	s->stats_kept = NULL;
	virtqueue_push(e);
	return true;
}

static void stats_timer(struct balloon *s)
{
	timer_disarm(&s->stats_due);
	if (s->stats_interval_ms && s->stats_queue)
		timer_arm_in(s->b->loop, &s->stats_due, s->stats_interval_ms * 1000000);
}

static void stats_expired(struct timer *t)
{
	struct balloon *s = container_of(t, struct balloon, stats_due);

	stats_ask(s);
	stats_timer(s);
}

/* Size */

static void tell_change(struct balloon *s)
{
	struct json *data;

	s->changed = true;
	if (s->change_due.at)
		return;
	s->changed = false;
	timer_arm_in(s->b->loop, &s->change_due, EVENT_NS);
	data = backend_event_wanted(s->b) ? json_new(false) : NULL;
	if (data) {
		json_object_begin(data);
		json_key(data, "actual");
		json_u64(data, actual_of(s->b));
		json_key(data, "target");
		json_u64(data, target_of(s->b));
		json_object_end(data);
	}
	backend_event(s->b, "balloon-change", data);
}

static void change_expired(struct timer *t)
{
	struct balloon *s = container_of(t, struct balloon, change_due);

	if (s->changed)
		tell_change(s);
}

/* The part of [off, off + len) that lies in a field. */
static bool write_field(void *field, size_t at, size_t off, const uint8_t *data, size_t len)
{
	size_t from = MAX(at, off), to = MIN(at + 4, off + len);

	if (from >= to)
		return false;
	memcpy((uint8_t *)field + (from - at), data + (from - off), to - from);
	return true;
}

static void balloon_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	struct virtio_balloon_config *c = config_of(b);
	uint32_t before = c->actual;

	write_field(&c->actual, offsetof(struct virtio_balloon_config, actual), off, data, len);
	write_field(&c->poison_val, offsetof(struct virtio_balloon_config, poison_val), off, data, len);
	if (c->actual != before)
		tell_change(b->state);
}

/* Life */

static void balloon_ready(struct backend *b, struct virtqueue *q)
{
	enum role role = role_of(b, virtqueue_index(q));

	switch (role) {
	case INFLATE:
	case DEFLATE:
		pages_ready(b->state, role, q);
		break;
	case STATS:
		stats_ready(b->state, q);
		break;
	case HINTS:
		hints_ready(b->state, q);
		break;
	default:
		reporting_ready(b->state, q);
		break;
	}
}

static int balloon_start(struct backend *b, struct virtqueue *q)
{
	struct balloon *s = b->state;

	if (role_of(b, virtqueue_index(q)) == STATS) {
		s->stats_queue = q;
		stats_timer(s);
	}
	return 0;
}

static void balloon_stop(struct backend *b, struct virtqueue *q)
{
	struct balloon *s = b->state;
	struct balloon_queue *qs = virtqueue_state(q);
	struct element *e = qs->now;

	qs->now = NULL;
	if (q == s->stats_queue) {
		timer_disarm(&s->stats_due);
		e = s->stats_kept;
		s->stats_kept = NULL;
		s->stats_queue = NULL;
	}
	if (e)
		virtqueue_unpop(e);
}

static void balloon_reset(struct backend *b)
{
	struct balloon *s = b->state;
	struct virtio_balloon_config *c = config_of(b);
	bool changed = c->actual;

	c->actual = c->free_page_hint_cmd_id = c->poison_val = 0;
	s->hint_id = 0;
	s->hinting = false;
	s->stats.at = s->stats.have = 0;
	balloon_pages_clear(&s->pages);
	if (changed)
		tell_change(s);
}

static int balloon_open(struct backend *b)
{
	struct balloon *s = b->state;

	s->b = b;
	s->more.run = more_run;
	s->stats_due.expired = stats_expired;
	s->change_due.expired = change_expired;
	if (s->initial % BALLOON_PAGE || s->initial / BALLOON_PAGE > MAX_PAGES) {
		log_error("--initial=%llu: not a multiple of 4K below 16T", (unsigned long long)s->initial);
		return -EINVAL;
	}
	config_of(b)->num_pages = htole32((uint32_t)(s->initial / BALLOON_PAGE));
	if (!s->reporting)
		b->offered &= ~BIT(F_REPORTING);
	if (!s->deflate_on_oom)
		b->offered &= ~BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	return 0;
}

static void balloon_close(struct backend *b)
{
	struct balloon *s = b->state;

	loop_cancel(b->loop, &s->more);
	timer_disarm(&s->stats_due);
	timer_disarm(&s->change_due);
	balloon_pages_clear(&s->pages);
}

/* The configuration is all that the guest relies on. Which parts of huge pages are in the balloon is not kept. */
static int balloon_save(struct backend *b, int fd)
{
	ssize_t n = write(fd, b->config, sizeof(struct virtio_balloon_config));

	if (n == (ssize_t)sizeof(struct virtio_balloon_config))
		return 0;
	return log_errno(n < 0 ? errno : EIO, "saving the state");
}

static int balloon_load(struct backend *b, int fd)
{
	struct virtio_balloon_config c;
	char more;

	if (read(fd, &c, sizeof(c)) != (ssize_t)sizeof(c) || read(fd, &more, 1) != 0) {
		log_error("the saved state is not one of a balloon");
		return -EINVAL;
	}
	c.free_page_hint_cmd_id = 0;
	memcpy(b->config, &c, sizeof(c));
	return 0;
}

/* Commands */

static int command_balloon(struct backend *b, struct command *c)
{
	uint64_t size = 0;

	command_size(c, "size", &size);
	if (size % BALLOON_PAGE || size / BALLOON_PAGE > MAX_PAGES)
		return command_error(c, EINVAL, "argument size: a multiple of 4K below 16T is needed");
	config_of(b)->num_pages = htole32((uint32_t)(size / BALLOON_PAGE));
	backend_config_changed(b);
	return 0;
}

static void put(struct json *out, const char *key, uint64_t value)
{
	json_key(out, key);
	json_u64(out, value);
}

static int command_query(struct backend *b, struct command *c)
{
	const struct balloon *s = b->state;

	json_object_begin(c->out);
	put(c->out, "target", target_of(b));
	put(c->out, "actual", actual_of(b));
	put(c->out, "inflated", s->inflated);
	put(c->out, "deflated", s->deflated);
	put(c->out, "reported", s->reported);
	put(c->out, "discarded", s->discarded);
	put(c->out, "collecting", s->pages.entries);
	put(c->out, "pages-outside", s->outside);
	put(c->out, "poison", le32toh(config_of(b)->poison_val));
	json_key(c->out, "discard");
	json_bool(c->out, !s->no_discard);
	put(c->out, "stats-interval-ms", s->stats_interval_ms);
	json_object_end(c->out);
	return 0;
}

static int command_query_stats(struct backend *b, struct command *c)
{
	const struct balloon *s = b->state;

	if (!s->stats.at)
		return command_error(c, ENOENT, "the guest has not sent statistics yet");
	balloon_stats_write(&s->stats, c->out);
	return 0;
}

static int command_ask_stats(struct backend *b, struct command *c)
{
	if (!stats_ask(b->state))
		return command_error(c, EAGAIN, "the guest does not wait for this");
	return 0;
}

static int command_interval(struct backend *b, struct command *c)
{
	struct balloon *s = b->state;
	uint64_t ms = 0;

	command_u64(c, "milliseconds", &ms);
	if (ms > 86400000)
		return command_error(c, EINVAL, "argument milliseconds: 86400000 at most");
	s->stats_interval_ms = ms;
	stats_timer(s);
	return 0;
}

static int command_hints(struct backend *b, struct command *c)
{
	struct balloon *s = b->state;

	if (!backend_has(b, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return command_error(c, ENOTSUP, "the guest gives no hints");
	s->hint_id = s->hint_id < HINT_FIRST || s->hint_id == UINT32_MAX ? HINT_FIRST : s->hint_id + 1;
	s->hinting = false;
	hint_id_set(s, s->hint_id);
	return 0;
}

static const struct command_arg size_args[] = {
	{"size", COMMAND_SIZE, true, "how much memory the guest shall give up"},
	{.name = NULL},
};
static const struct command_arg interval_args[] = {
	{"milliseconds", COMMAND_U64, true, "how often; 0: only when asked"},
	{.name = NULL},
};

static const struct command_spec balloon_commands[] = {
	{"ask-balloon-stats", "have the guest send its statistics now", NULL, command_ask_stats},
	{"balloon", "set the size of the balloon", size_args, command_balloon},
	{"free-page-hints", "have the guest say how much of its memory is free", NULL, command_hints},
	{"query-balloon", "target and actual size, and what was given back to the host", NULL, command_query},
	{"query-balloon-stats", "the statistics that the guest sent last", NULL, command_query_stats},
	{"set-balloon-stats-interval", "how often the guest sends its statistics", interval_args,
		command_interval},
	{.name = NULL},
};

static const struct feature_name balloon_features[] = {
	{VIRTIO_BALLOON_F_MUST_TELL_HOST, "must-tell-host"},
	{VIRTIO_BALLOON_F_STATS_VQ, "stats-vq"},
	{VIRTIO_BALLOON_F_DEFLATE_ON_OOM, "deflate-on-oom"},
	{VIRTIO_BALLOON_F_FREE_PAGE_HINT, "free-page-hint"},
	{F_PAGE_POISON, "page-poison"},
	{F_REPORTING, "reporting"},
	{0, NULL},
};

static const struct option_spec balloon_options[] = {
	{"initial", OPTION_SIZE, OPTION_FIELD(struct balloon, initial), .def = "0",
		.help = "size of the balloon until a command changes it"},
	{"free-page-reporting", OPTION_FLAG, OPTION_FIELD(struct balloon, reporting),
		.help = "have the guest report memory that it does not use, and give that back as well"},
	{"deflate-on-oom", OPTION_FLAG, OPTION_FIELD(struct balloon, deflate_on_oom),
		.help = "let the guest take pages back when it runs out of memory"},
	{"stats-interval", OPTION_DURATION, OPTION_FIELD(struct balloon, stats_interval_ms), .def = "0",
		.max = 86400000,
		.help = "how often the guest sends statistics of its memory; 0: only when asked"},
	{"no-discard", OPTION_FLAG, OPTION_FIELD(struct balloon, no_discard),
		.help = "give no memory back to the host (for guests with assigned devices)"},
	OPTIONS_END,
};

static const struct queue_spec balloon_queues[ROLES] = {
	[INFLATE] = {"inflate", balloon_ready, 0, 0},
	[DEFLATE] = {"deflate", balloon_ready, 0, 0},
	[STATS] = {"stats", balloon_ready, 0, 0},
	[HINTS] = {"free-page", balloon_ready, 0, 0},
	[REPORTING] = {"reporting", balloon_ready, 0, 0},
};

const struct device device_balloon = {
	.name = "balloon",
	.summary = "memory balloon: takes memory from the guest and gives it back to the host",
	.virtio_id = VIRTIO_ID_BALLOON,
	.features = BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) | BIT(VIRTIO_BALLOON_F_STATS_VQ) |
		    BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | BIT(VIRTIO_BALLOON_F_FREE_PAGE_HINT) |
		    BIT(F_PAGE_POISON) | BIT(F_REPORTING),
	.state_size = sizeof(struct balloon),
	.queue_state_size = sizeof(struct balloon_queue),
	.config_size = sizeof(struct virtio_balloon_config),
	.options = balloon_options,
	.feature_names = balloon_features,
	.commands = balloon_commands,
	.queues = balloon_queues,
	.nqueues = ROLES,
	.max_queues = ROLES,
	.in_order = true,
	.open = balloon_open,
	.close = balloon_close,
	.start = balloon_start,
	.stop = balloon_stop,
	.reset = balloon_reset,
	.config_write = balloon_config_write,
	.save = balloon_save,
	.load = balloon_load,
};
