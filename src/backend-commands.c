/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket that all types have. What they tell of a queue is a copy that the queue's loop
 * makes (vring-info.h), so the data path knows nothing of them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend-core.h"
#include "vring-info.h"

/* Names */

static const struct feature_name ring_features[] = {
	{FEATURE_LOG_ALL, "log-all"},
	{FEATURE_INDIRECT_DESC, "indirect-desc"},
	{FEATURE_EVENT_IDX, "event-idx"},
	{FEATURE_PROTOCOL, "protocol-features"},
	{FEATURE_VERSION_1, "version-1"},
	{FEATURE_RING_PACKED, "ring-packed"},
	{FEATURE_IN_ORDER, "in-order"},
	{0, NULL},
};

static const struct feature_name protocol_features[] = {
	{PROTOCOL_MQ, "mq"},
	{PROTOCOL_LOG_SHMFD, "log-shmfd"},
	{PROTOCOL_RARP, "rarp"},
	{PROTOCOL_REPLY_ACK, "reply-ack"},
	{PROTOCOL_MTU, "mtu"},
	{PROTOCOL_BACKEND_REQ, "backend-req"},
	{PROTOCOL_CRYPTO_SESSION, "crypto-session"},
	{PROTOCOL_PAGEFAULT, "pagefault"},
	{PROTOCOL_CONFIG, "config"},
	{PROTOCOL_INFLIGHT_SHMFD, "inflight-shmfd"},
	{PROTOCOL_RESET_DEVICE, "reset-device"},
	{PROTOCOL_INBAND_NOTIFICATIONS, "inband-notifications"},
	{PROTOCOL_CONFIGURE_MEM_SLOTS, "configure-mem-slots"},
	{PROTOCOL_STATUS, "status"},
	{PROTOCOL_DEVICE_STATE, "device-state"},
	{0, NULL},
};

static const char *find_name(const struct feature_name *names, unsigned bit)
{
	for (; names && names->name; names++) {
		if (names->bit == bit)
			return names->name;
	}
	return NULL;
}

/* The first table goes first. Bits without a name are called bit-N. */
static void write_bits(struct json *out, const char *key, uint64_t bits, const struct feature_name *first,
	const struct feature_name *second)
{
	json_key(out, key);
	json_array_begin(out);
	for (unsigned bit = 0; bit < 64; bit++) {
		const char *name = find_name(first, bit);
		char unnamed[16];

		if (!(bits & BIT(bit)))
			continue;
		if (!name)
			name = find_name(second, bit);
		snprintf(unnamed, sizeof(unnamed), "bit-%u", bit);
		json_string(out, name ? name : unnamed);
	}
	json_array_end(out);
}

static void put_u64(struct json *out, const char *key, uint64_t value)
{
	json_key(out, key);
	json_u64(out, value);
}

static void put_bool(struct json *out, const char *key, bool value)
{
	json_key(out, key);
	json_bool(out, value);
}

static void put_string(struct json *out, const char *key, const char *value)
{
	json_key(out, key);
	json_string(out, value);
}

/* Which backend it is, where there are several. */
static void put_socket(struct json *out, const struct core *core)
{
	if (core->process->opt->nsockets == 1)
		return;
	put_u64(out, "socket", core->b.socket);
	if (core->socket->path)
		put_string(out, "socket-path", core->socket->path);
}

/* query-commands, query-schema */

static void describe_table(const struct command_spec *table, struct json *out)
{
	for (; table && table->name; table++)
		command_describe(table, out);
}

static int query_commands(struct backend *b, struct command *c)
{
	const struct control *control = &core_of(b)->process->control;

	json_array_begin(c->out);
	describe_table(control->core, c->out);
	describe_table(control->device, c->out);
	json_array_end(c->out);
	return 0;
}

static void schema_table(const struct command_spec *table, struct json *out)
{
	for (; table && table->name; table++) {
		bool required = false;

		for (const struct command_arg *a = table->args; a && a->name; a++)
			required |= a->required;
		json_object_begin(out);
		put_string(out, "description", table->help);
		json_key(out, "properties");
		json_object_begin(out);
		json_key(out, "execute");
		json_object_begin(out);
		put_string(out, "const", table->name);
		json_object_end(out);
		json_key(out, "arguments");
		command_schema(table, out);
		json_key(out, "id");
		json_object_begin(out);
		json_object_end(out);
		json_object_end(out);
		json_key(out, "required");
		json_array_begin(out);
		json_string(out, "execute");
		if (required)
			json_string(out, "arguments");
		json_array_end(out);
		put_bool(out, "additionalProperties", false);
		json_object_end(out);
	}
}

static int query_schema(struct backend *b, struct command *c)
{
	const struct control *control = &core_of(b)->process->control;
	struct json *out = c->out;
	char title[64];

	snprintf(title, sizeof(title), "What a client may send to vhost-user-%s", b->dev->name);
	json_object_begin(out);
	put_string(out, "$schema", "http://json-schema.org/draft-07/schema#");
	put_string(out, "title", title);
	put_string(out, "type", "object");
	json_key(out, "oneOf");
	json_array_begin(out);
	schema_table(control->core, out);
	schema_table(control->device, out);
	json_array_end(out);
	json_key(out, "definitions");
	command_schema_kinds(out);
	json_object_end(out);
	return 0;
}

/* query-status */

static void write_memory(struct json *out, const struct guestmem *mem)
{
	json_key(out, "memory");
	json_array_begin(out);
	for (unsigned i = 0; mem && i < mem->n; i++) {
		const struct guestmem_region *r = &mem->region[i];

		json_object_begin(out);
		put_u64(out, "guest-address", r->gpa);
		put_u64(out, "size", r->size);
		put_u64(out, "user-address", r->uaddr);
		put_u64(out, "file-offset", r->offset);
		put_u64(out, "page-size", r->shm->page);
		json_object_end(out);
	}
	json_array_end(out);
}

static void write_queue_status(struct json *out, const struct vring_info *q)
{
	static const char *const phases[] = {"resting", "running", "draining"};

	json_object_begin(out);
	put_u64(out, "index", q->index);
	put_string(out, "name", q->name);
	put_string(out, "state", q->broken ? "broken" : phases[q->phase]);
	put_bool(out, "started", q->started);
	put_bool(out, "enabled", q->enabled);
	put_u64(out, "size", q->size);
	put_string(out, "layout", q->packed ? "packed" : "split");
	put_bool(out, "event-idx", q->event_idx);
	put_string(out, "kick",
		q->polled     ? "polled"
		: q->has_kick ? "descriptor"
		: q->inband   ? "message"
			      : "none");
	put_string(out, "call", q->has_call ? "descriptor" : q->inband ? "message" : "none");
	put_u64(out, "avail-index", q->taken);
	if (!q->packed)
		put_u64(out, "avail-seen", q->made);
	put_u64(out, "used-index", q->used);
	if (q->packed) {
		put_bool(out, "avail-wrap", q->taken_wrap);
		put_bool(out, "used-wrap", q->used_wrap);
	}
	put_u64(out, "in-flight", q->out);
	put_u64(out, "to-resubmit", q->pending_resubmit);
	json_object_end(out);
}

/* Calls fn for every queue that was set up. */
static void each_queue(
	struct core *core, struct json *out, void (*fn)(struct json *out, const struct vring_info *q))
{
	struct vring_info info;

	for (unsigned i = 0; i < core->host.nqueues; i++) {
		if (!core->host.queues[i])
			continue;
		vring_info(core->host.queues[i], &info);
		fn(out, &info);
	}
}

static int query_status(struct backend *b, struct command *c)
{
	struct core *core = core_of(b);
	const struct session *s = core->host.session;
	struct json *out = c->out;
	char hex[24];

	json_object_begin(out);
	put_string(out, "type", b->dev->name);
	put_string(out, "version", core->process->opt->version);
	put_socket(out, core);
	put_u64(out, "pid", (uint64_t)getpid());
	put_bool(out, "connected", s);
	put_string(out, "log-level", log_level_names[log_level()]);
	put_u64(out, "max-queues", core->host.nqueues);
	put_u64(out, "threads", b->threads);
	write_bits(out, "offered-device-features", b->offered, b->dev->feature_names, NULL);
	write_bits(out, "features", s ? s->features : 0, ring_features, b->dev->feature_names);
	snprintf(hex, sizeof(hex), "0x%" PRIx64, s ? s->features : 0);
	put_string(out, "feature-bits", hex);
	write_bits(out, "protocol-features", s ? s->protocol : 0, protocol_features, NULL);
	put_bool(out, "logging", s && s->log && s->features & BIT(FEATURE_LOG_ALL));
	put_bool(out, "postcopy", s && postcopy_listening(&s->postcopy));
	write_memory(out, s ? s->mem : NULL);
	json_key(out, "queues");
	json_array_begin(out);
	each_queue(core, out, write_queue_status);
	json_array_end(out);
	json_object_end(out);
	return 0;
}

/* query-stats */

static void write_queue_stats(struct json *out, const struct vring_info *q)
{
	json_object_begin(out);
	put_u64(out, "index", q->index);
	put_string(out, "name", q->name);
	put_u64(out, "requests", q->stats.popped);
	put_u64(out, "completed", q->stats.pushed);
	put_u64(out, "bytes-read", q->stats.read);
	put_u64(out, "bytes-written", q->stats.written);
	put_u64(out, "kicks", q->stats.kicks);
	put_u64(out, "interrupts", q->stats.calls);
	put_u64(out, "interrupts-suppressed", q->stats.calls_suppressed);
	put_u64(out, "errors", q->stats.errors + q->stats.faults + q->stats.breaks);
	put_u64(out, "in-flight", q->out);
	put_u64(out, "oldest-ns", q->oldest_ns);
	if (q->timed) {
		json_key(out, "latency-ns");
		stats_write(out, &q->latency);
	}
	json_object_end(out);
}

static int query_stats(struct backend *b, struct command *c)
{
	json_object_begin(c->out);
	put_socket(c->out, core_of(b));
	put_u64(c->out, "time-ns", time_ns());
	json_key(c->out, "queues");
	json_array_begin(c->out);
	each_queue(core_of(b), c->out, write_queue_stats);
	json_array_end(c->out);
	json_object_end(c->out);
	return 0;
}

/* query-metrics: the text format of Prometheus, version 0.0.4 */

struct text {
	char *at;
	size_t len, room;
	bool failed;
};

static void PRINTF_LIKE(2, 3) text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	char line[256], *more;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (t->failed || n < 0 || (size_t)n >= sizeof(line)) {
		t->failed = true;
		return;
	}
	if (t->len + (size_t)n + 1 > t->room) {
		more = realloc(t->at, t->room * 2 + 4096);
		if (!more) {
			t->failed = true;
			return;
		}
		t->at = more;
		t->room = t->room * 2 + 4096;
	}
	memcpy(t->at + t->len, line, (size_t)n + 1);
	t->len += (size_t)n;
}

enum metric_kind { COUNTER, GAUGE };

static const struct metric {
	const char *name, *help;
	enum metric_kind kind;
	size_t offset; /* of a uint64_t in struct vring_info */
} metrics[] = {
#define STAT(field) offsetof(struct vring_info, stats.field)
	{"requests_total", "Requests taken from the queue", COUNTER, STAT(popped)},
	{"completed_total", "Requests given back", COUNTER, STAT(pushed)},
	{"read_bytes_total", "Bytes that the driver made readable", COUNTER, STAT(read)},
	{"written_bytes_total", "Bytes written for the driver", COUNTER, STAT(written)},
	{"kicks_total", "Notifications from the driver", COUNTER, STAT(kicks)},
	{"interrupts_total", "Interrupts sent", COUNTER, STAT(calls)},
	{"interrupts_suppressed_total", "Interrupts the driver did not want", COUNTER,
		STAT(calls_suppressed)},
	{"request_errors_total", "Requests answered with an error", COUNTER, STAT(errors)},
	{"faults_total", "Buffers outside of guest memory", COUNTER, STAT(faults)},
	{"breaks_total", "Times the driver broke the queue", COUNTER, STAT(breaks)},
	{"oldest_nanoseconds", "Age of the oldest request in flight", GAUGE,
		offsetof(struct vring_info, oldest_ns)},
#undef STAT
};

struct metric_queue {
	char labels[112];
	struct vring_info info;
};

/* type="net", and socket="1" where there are several */
static void backend_labels(const struct core *core, char *buf, size_t size)
{
	int n = snprintf(buf, size, "type=\"%s\"", core->b.dev->name);

	if (core->process->opt->nsockets > 1)
		snprintf(buf + n, size - (size_t)n, ",socket=\"%u\"", core->b.socket);
}

static void add_latency(struct text *t, const struct metric_queue *q)
{
	const struct stats_histogram *latency = &q->info.latency;

	for (unsigned shift = 10; shift <= 34; shift += 2)
		text_add(t, "vhost_user_latency_seconds_bucket{%s,le=\"%.9g\"} %" PRIu64 "\n", q->labels,
			(double)BIT(shift) / 1e9, stats_below(latency, BIT(shift)));
	text_add(t, "vhost_user_latency_seconds_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", q->labels,
		latency->count);
	text_add(t, "vhost_user_latency_seconds_sum{%s} %.9g\n", q->labels, (double)latency->sum / 1e9);
	text_add(t, "vhost_user_latency_seconds_count{%s} %" PRIu64 "\n", q->labels, latency->count);
}

static void add_metrics(struct text *t, const struct metric_queue *q, unsigned n)
{
	unsigned i;

	for (size_t m = 0; m < ARRAY_SIZE(metrics); m++) {
		text_add(t, "# HELP vhost_user_%s %s.\n# TYPE vhost_user_%s %s\n", metrics[m].name,
			metrics[m].help, metrics[m].name, metrics[m].kind == COUNTER ? "counter" : "gauge");
		for (i = 0; i < n; i++)
			text_add(t, "vhost_user_%s{%s} %" PRIu64 "\n", metrics[m].name, q[i].labels,
				*(const uint64_t *)((const char *)&q[i].info + metrics[m].offset));
	}
	text_add(t, "# HELP vhost_user_in_flight Requests in flight.\n# TYPE vhost_user_in_flight gauge\n");
	for (i = 0; i < n; i++)
		text_add(t, "vhost_user_in_flight{%s} %u\n", q[i].labels, q[i].info.out);
	text_add(t, "# HELP vhost_user_latency_seconds From taking a request to giving it back.\n"
		    "# TYPE vhost_user_latency_seconds histogram\n");
	for (i = 0; i < n; i++)
		add_latency(t, &q[i]);
}

static unsigned fill_metrics(const struct core *core, struct metric_queue *q)
{
	char labels[64];
	unsigned n = 0;

	backend_labels(core, labels, sizeof(labels));
	for (unsigned i = 0; i < core->host.nqueues; i++) {
		if (!core->host.queues[i])
			continue;
		vring_info(core->host.queues[i], &q[n].info);
		snprintf(q[n].labels, sizeof(q[n].labels), "%s,queue=\"%u\",name=\"%.20s\"", labels,
			q[n].info.index, q[n].info.name);
		n++;
	}
	return n;
}

static int query_metrics(struct backend *b, struct command *c)
{
	const struct process *p = core_of(b)->process;
	CLEANUP_FREE struct metric_queue *q = NULL;
	CLEANUP_FREE char *text = NULL;
	struct text t = {0};
	unsigned i, n = 0;

	for (i = 0; i < p->opt->nsockets; i++)
		n += p->cores[i].host.nqueues;
	q = calloc(n + 1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	text_add(&t,
		"# HELP vhost_user_connected A front-end is connected.\n# TYPE vhost_user_connected gauge\n");
	for (i = 0, n = 0; i < p->opt->nsockets; i++) {
		char labels[64];

		backend_labels(&p->cores[i], labels, sizeof(labels));
		text_add(&t, "vhost_user_connected{%s} %d\n", labels, p->cores[i].host.session != NULL);
		n += fill_metrics(&p->cores[i], q + n);
	}
	add_metrics(&t, q, n);
	text = t.at;
	if (t.failed)
		return -ENOMEM;
	json_string(c->out, text);
	return 0;
}

/* set-log-level, quit */

static int set_log_level(struct backend *b, struct command *c)
{
	const char *level = command_string(c, "level");

	(void)b;
	for (unsigned i = 0; log_level_names[i]; i++) {
		if (strcmp(level, log_level_names[i]) != 0)
			continue;
		log_set_level((enum log_level)i);
		return 0;
	}
	return command_error(
		c, EINVAL, "argument level: \"%.32s\" is none of error, warn, info, debug", level);
}

static int quit(struct backend *b, struct command *c)
{
	(void)c;
	loop_post(b->loop, &core_of(b)->process->quit_post);
	return 0;
}

static const struct command_arg log_level_args[] = {
	{"level", COMMAND_STRING, true, "error, warn, info or debug"},
	{.name = NULL},
};

const struct command_spec backend_commands[] = {
	{"query-commands", "the commands of this process, with their arguments", NULL, query_commands},
	{"query-metrics", "the statistics as text in the format of Prometheus", NULL, query_metrics},
	{"query-schema", "a JSON schema of what a client may send", NULL, query_schema},
	{"query-stats", "per queue: requests, bytes, notifications, errors, what is in flight, latency", NULL,
		query_stats},
	{"query-status", "connection, negotiated features, memory regions, state and indices of the queues",
		NULL, query_status},
	{"quit", "end the process in good order", NULL, quit},
	{"set-log-level", "how much to say in the log", log_level_args, set_log_level},
	{.name = NULL},
};

/* Several backends */

/* Commands about the process, or all its backends. */
static const char *const of_process[] = {
	"query-commands", "query-metrics", "query-schema", "quit", "set-log-level", NULL};

static const struct command_arg socket_arg = {
	"socket", COMMAND_U64, true, "which backend, in the order of the sockets that were given, from 0"};

static struct backend *pick(struct control *c, struct command *cmd)
{
	struct process *p = container_of(c, struct process, control);
	uint64_t i = 0;

	if (!command_u64(cmd, socket_arg.name, &i) || i < p->opt->nsockets)
		return &p->cores[i].b;
	command_error(
		cmd, EINVAL, "argument socket: %" PRIu64 " is none of 0 to %u", i, p->opt->nsockets - 1);
	return NULL;
}

int backend_commands_init(struct process *p)
{
	struct control *c = &p->control;

	c->core = backend_commands;
	c->device = c->b->dev->commands;
	if (p->opt->nsockets == 1 || !p->opt->control_path)
		return 0;
	p->tables[0] = command_extend(c->core, &socket_arg, of_process);
	p->tables[1] = command_extend(c->device, &socket_arg, NULL);
	if (!p->tables[0] || !p->tables[1])
		return -ENOMEM;
	c->core = p->tables[0];
	c->device = p->tables[1];
	c->pick = pick;
	return 0;
}
