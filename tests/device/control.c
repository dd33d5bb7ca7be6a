/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a process at work: does it tell what the front-end knows to be true, while queues run, and does
 * nothing that a client does disturb them?
 */
#include "protocol.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "json.h"

static char path[160], option[192];

static void choose_path(void)
{
	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
}

/* What a command returned; to be freed. */
static struct json_value *ask(int fd, const char *command, const struct json_value **result)
{
	const char *line = fe_control(fd, command);
	char why[JSON_ERROR_LEN];
	struct json_value *v = json_parse(line, strlen(line), why, sizeof(why));

	if (!v)
		FAIL("%s: %s: %s", command, why, line);
	*result = json_get(v, "return");
	if (json_type(*result) == JSON_NULL)
		FAIL("%s: %s", command, line);
	return v;
}

static uint64_t number(const struct json_value *v, const char *key)
{
	uint64_t n;

	if (!json_get_u64(v, key, &n))
		FAIL("%s: %s", key, json_type_name(json_get(v, key)));
	return n;
}

static bool has_name(const struct json_value *list, const char *name)
{
	for (size_t i = 0; i < json_length(list); i++) {
		if (strcmp(json_as_string(json_at(list, i)), name) == 0)
			return true;
	}
	return false;
}

static bool truth(const struct json_value *v, const char *key)
{
	bool on = false;

	CHECK(json_get_bool(v, key, &on));
	return on;
}

/* --- query-status --- */

static void check_features(const struct fe *fe, const struct json_value *status)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = {{FE_F_INDIRECT, "indirect-desc"}, {FE_F_EVENT_IDX, "event-idx"},
		{FE_F_PROTOCOL, "protocol-features"}, {FE_F_VERSION_1, "version-1"},
		{FE_F_PACKED, "ring-packed"}, {FE_F_IN_ORDER, "in-order"}, {FE_F_LOG_ALL, "log-all"}};
	const struct json_value *list = json_get(status, "features");
	char bits[24];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		bool on = fe->features & BIT(names[i].bit);

		CHECK_EQ(has_name(list, names[i].name), on);
		n += on;
	}
	CHECK_EQ(json_length(list), n);
	snprintf(bits, sizeof(bits), "0x%llx", (unsigned long long)fe->features);
	CHECK_STR(json_get_string(status, "feature-bits"), bits);
	CHECK_EQ(has_name(json_get(status, "protocol-features"), "reply-ack"), fe_has(fe, FE_P_REPLY_ACK));
	CHECK_EQ(
		has_name(json_get(status, "protocol-features"), "inflight-shmfd"), fe_has(fe, FE_P_INFLIGHT));
}

static void check_memory(const struct fe *fe, const struct json_value *status)
{
	const struct json_value *list = json_get(status, "memory");

	CHECK_EQ(json_length(list), fe->nregions);
	for (unsigned i = 0; i < fe->nregions; i++) {
		const struct fe_wire_region *w = NULL;

		for (unsigned k = 0; k < fe->nregions; k++) {
			if (fe->regions[k].w.gpa == number(json_at(list, i), "guest-address"))
				w = &fe->regions[k].w;
		}
		CHECK(w);
		CHECK_EQ(number(json_at(list, i), "size"), w->size);
		CHECK_EQ(number(json_at(list, i), "user-address"), w->uaddr);
		CHECK_EQ(number(json_at(list, i), "file-offset"), w->offset);
		CHECK_EQ(number(json_at(list, i), "page-size"), 4096);
	}
}

static void check_queue(
	int fd, const struct fe_mode *m, const char *state, unsigned taken, unsigned in_flight)
{
	const struct json_value *status, *q;
	CLEANUP_JSON_VALUE UNUSED struct json_value *v = ask(fd, "query-status", &status);

	CHECK_EQ(json_length(json_get(status, "queues")), 1);
	q = json_at(json_get(status, "queues"), 0);
	CHECK_STR(json_get_string(q, "state"), state);
	CHECK_STR(json_get_string(q, "name"), "requests");
	CHECK_STR(json_get_string(q, "layout"), m->packed ? "packed" : "split");
	CHECK_EQ(number(q, "size"), 16);
	CHECK_EQ(truth(q, "event-idx"), m->event_idx);
	CHECK_EQ(number(q, "avail-index"), taken);
	CHECK_EQ(number(q, "in-flight"), in_flight);
}

static void status(const struct fe_mode *m)
{
	const struct json_value *result;
	struct json_value *v;
	struct fe fe;
	struct fe_queue *q;
	int fd;

	choose_path();
	fe_init(&fe, m);
	fe_spawn(&fe, FE_ARGS("rng", option));
	fd = fe_control_open(path);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	fe_barrier(&fe);
	v = ask(fd, "query-status", &result);
	CHECK_STR(json_get_string(result, "type"), "rng");
	CHECK(truth(result, "connected"));
	CHECK_EQ(number(result, "pid"), fe.process.pid);
	check_features(&fe, result);
	check_memory(&fe, result);
	json_value_free(v);
	check_queue(fd, m, "running", 0, 0);
	for (unsigned i = 0; i < 5; i++) {
		struct vring_driver_buf buf = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);

		CHECK_EQ(fe_transact(q, &buf, 1), 64);
	}
	check_queue(fd, m, "running", 5, 0);
	fe_queue_stop(q);
	check_queue(fd, m, "resting", 5, 0);
	fe_end(&fe);
	CHECK_EQ(access(path, F_OK), -1);
	close(fd);
}

/* --- query-stats --- */

static void stats(const struct fe_mode *m)
{
	enum { N = 300, LEN = 40, KEPT = 3 };
	const struct json_value *result, *s;
	struct json_value *v;
	struct vring_driver_buf buf;
	struct source src;
	struct fe fe;
	struct fe_queue *q;
	uint64_t age;
	int fd;

	choose_path();
	source_open(&src);
	fe_start(&fe, m, FE_ARGS("rng", src.option, option));
	fd = fe_control_open(path);
	q = fe_queue_up(&fe, 0, 16);
	buf = fe_wr(&fe, fe_alloc(&fe, LEN, 1, NULL), LEN);
	for (unsigned i = 0; i < N; i++) {
		source_feed(&src, LEN);
		CHECK_EQ(fe_transact(q, &buf, 1), LEN);
	}
	for (unsigned i = 0; i < KEPT;
		i++) /* they wait for the source; the device takes one and leaves the rest */
		fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	fe_barrier(&fe);
	do { /* the kick may still be on its way */
		v = ask(fd, "query-stats", &result);
		s = json_at(json_get(result, "queues"), 0);
		age = number(s, "requests");
		if (age < N + 1)
			json_value_free(v);
	} while (age < N + 1);
	CHECK_EQ(number(s, "requests"), N + 1);
	CHECK_EQ(number(s, "completed"), N);
	CHECK_EQ(number(s, "bytes-read"), 0);
	CHECK_EQ(number(s, "bytes-written"), N * LEN);
	CHECK(number(s, "kicks") >= 1 && number(s, "kicks") <= N + 2);
	CHECK(number(s, "interrupts") + number(s, "interrupts-suppressed") >= N);
	CHECK_EQ(number(s, "errors"), 0);
	CHECK_EQ(number(s, "in-flight"), 1);
	age = number(s, "oldest-ns");
	CHECK(age > 0);
	s = json_get(s, "latency-ns");
	CHECK_EQ(number(s, "count"), N);
	CHECK(number(s, "p50") > 0 && number(s, "p50") <= number(s, "p99"));
	CHECK(number(s, "p99") <= number(s, "max") && number(s, "max") < 60000000000);
	json_value_free(v);
	usleep(20000);
	v = ask(fd, "query-stats", &result);
	CHECK(number(json_at(json_get(result, "queues"), 0), "oldest-ns") >= age + 20000000);
	json_value_free(v);
	close(fd);
	fe_end(&fe);
	source_close(&src);
}

static void stats_of_errors(const struct fe_mode *m)
{
	const struct json_value *result, *s;
	struct json_value *v;
	struct vring_driver_buf buf = {UINT64_C(0x700000000000), 64, true};
	struct fe fe;
	struct fe_queue *q;
	int fd;

	choose_path();
	fe_start(&fe, m, FE_ARGS("rng", option));
	fd = fe_control_open(path);
	q = fe_queue_up(&fe, 0, 16);
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	fe_queue_fails(q);
	v = ask(fd, "query-stats", &result);
	s = json_at(json_get(result, "queues"), 0);
	CHECK_EQ(number(s, "errors"), 1);
	json_value_free(v);
	v = ask(fd, "query-status", &result);
	CHECK_STR(json_get_string(json_at(json_get(result, "queues"), 0), "state"), "broken");
	json_value_free(v);
	close(fd);
	fe_end(&fe);
}

/* A request of each type that makes no sense, in a queue of its own. */
struct nonsense {
	const char *type, *option;
	unsigned queue, readable, writable; /* bytes, all 0xee */
};

static const struct nonsense nonsense[] = {
	{"9p", "--path=/tmp", 0, 3, 64},
	{"balloon", NULL, 0, 5, 0},
	{"block", "--null=1M", 0, 16, 1},
	{"console", NULL, 3, 7, 0},
	{"crypto", NULL, 0, 72, 16},
	{"gpu", NULL, 0, 24, 24},
	{"gpu", NULL, 1, 24, 0},
	{"net", NULL, 1, 11, 0},
	{"rpmsg", "--service=name=e,echo", 1, 15, 0},
	{"scsi", "--lun=0:0,null=1M", 2, 51, 108},
	{"vsock", "--guest-cid=3", 1, 43, 0},
};

static uint64_t errors_of(const struct json_value *queues, unsigned index)
{
	for (size_t i = 0; i < json_length(queues); i++)
		if (number(json_at(queues, i), "index") == index)
			return number(json_at(queues, i), "errors");
	FAIL("queue %u is not told of", index);
}

static void stats_of_nonsense(const struct fe_mode *m)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nonsense); i++) {
		const struct nonsense *n = &nonsense[i];
		const struct json_value *result;
		struct vring_driver_buf buf[2];
		struct json_value *v;
		struct fe fe;
		uint8_t *p;
		int fd;

		choose_path();
		fe_start(&fe, m, FE_ARGS(n->type, option, n->option));
		fd = fe_control_open(path);
		p = fe_alloc(&fe, 256, 1, NULL);
		memset(p, 0xee, 256);
		buf[0] = fe_rd(&fe, p, n->readable);
		buf[1] = fe_wr(&fe, p + 128, n->writable);
		fe_transact(fe_queue_up(&fe, n->queue, 16), buf, n->writable ? 2 : 1);
		v = ask(fd, "query-stats", &result);
		if (errors_of(json_get(result, "queues"), n->queue) != 1)
			FAIL("%s, queue %u: errors are not counted", n->type, n->queue);
		json_value_free(v);
		close(fd);
		fe_end(&fe);
	}
}

static void metrics(const struct fe_mode *m)
{
	struct vring_driver_buf buf;
	struct fe fe;
	struct fe_queue *q;
	const char *text;
	int fd;

	choose_path();
	fe_start(&fe, m, FE_ARGS("rng", option));
	fd = fe_control_open(path);
	q = fe_queue_up(&fe, 0, 16);
	buf = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);
	for (unsigned i = 0; i < 7; i++)
		CHECK_EQ(fe_transact(q, &buf, 1), 64);
	text = fe_control(fd, "query-metrics");
	CHECK_HAS(text, "vhost_user_connected{type=\\\"rng\\\"} 1\\n");
	CHECK_HAS(text,
		"\\n# TYPE vhost_user_requests_total counter\\n"
		"vhost_user_requests_total{type=\\\"rng\\\",queue=\\\"0\\\",name=\\\"requests\\\"} 7\\n");
	CHECK_HAS(text,
		"vhost_user_written_bytes_total{type=\\\"rng\\\",queue=\\\"0\\\",name=\\\"requests\\\"} 448\\n");
	CHECK_HAS(text, "name=\\\"requests\\\",le=\\\"+Inf\\\"} 7\\n");
	CHECK_HAS(text,
		"vhost_user_latency_seconds_count{type=\\\"rng\\\",queue=\\\"0\\\",name=\\\"requests\\\"} 7\\n");
	close(fd);
	fe_end(&fe);
}

/* Queues with threads of their own answer while they work, and nothing is lost. */
static void threads(const struct fe_mode *m)
{
	enum { QUEUES = 3, ROUNDS = 400 };
	const struct json_value *result, *list;
	struct json_value *v;
	struct vring_driver_buf buf[3];
	struct fe_queue *q[QUEUES];
	struct fe fe;
	uint8_t *header;
	int fd;

	choose_path();
	fe_start(&fe, m, FE_ARGS("block", "--null=1M", "--num-queues=3", "--threads=3", option));
	fd = fe_control_open(path);
	for (unsigned i = 0; i < QUEUES; i++)
		q[i] = fe_queue_up(&fe, i, 16);
	header = fe_alloc(&fe, 16, 8, NULL); /* a read of sector 0 */
	buf[0] = fe_rd(&fe, header, 16);
	buf[1] = fe_wr(&fe, fe_alloc(&fe, 512, 8, NULL), 512);
	buf[2] = fe_wr(&fe, fe_alloc(&fe, 1, 1, NULL), 1);
	for (unsigned r = 0; r < ROUNDS; r++) {
		for (unsigned i = 0; i < QUEUES; i++) {
			fe_submit(q[i], buf, 3, NULL);
			fe_flush(q[i]);
		}
		if (r % 4 == 0)
			json_value_free(ask(fd, r % 8 ? "query-status" : "query-stats", &result));
		for (unsigned i = 0; i < QUEUES; i++)
			CHECK_EQ(fe_wait(q[i], NULL), 513);
	}
	v = ask(fd, "query-stats", &result);
	list = json_get(result, "queues");
	CHECK_EQ(json_length(list), QUEUES);
	for (unsigned i = 0; i < QUEUES; i++) {
		CHECK_EQ(number(json_at(list, i), "index"), i);
		CHECK_EQ(number(json_at(list, i), "completed"), ROUNDS);
		CHECK_EQ(number(json_at(list, i), "bytes-read"), ROUNDS * 16);
		CHECK_EQ(number(json_at(list, i), "bytes-written"), ROUNDS * 513);
		CHECK_EQ(number(json_get(json_at(list, i), "latency-ns"), "count"), ROUNDS);
	}
	json_value_free(v);
	close(fd);
	fe_end(&fe);
}

/* --- clients that misbehave, while the device works --- */

static void misbehave(const struct fe_mode *m)
{
	static char line[200000];
	int deaf[10], loud, fd;
	struct fe fe;
	struct fe_queue *q;
	size_t rss;

	choose_path();
	fe_start(&fe, m, FE_ARGS("rng", option));
	q = fe_queue_up(&fe, 0, 16);
	fd = fe_control_open(path);
	loud = fe_control_open(path);
	CHECK_EQ(fcntl(loud, F_SETFL, O_NONBLOCK), 0);
	memset(line, '[', sizeof(line));
	for (unsigned i = 0; i < ARRAY_SIZE(deaf); i++) {
		deaf[i] = fe_control_open(path);
		CHECK_EQ(fcntl(deaf[i], F_SETFL, O_NONBLOCK), 0);
	}
	rng_works(q);
	fe_control(fd, "query-stats");
	rss = fe_process_rss(&fe.process);
	for (unsigned r = 0; r < 200; r++) {
		for (unsigned i = 0; i < ARRAY_SIZE(deaf); i++)
			for (unsigned k = 0; k < 60; k++)
				if (send(deaf[i], "{\"execute\":\"query-schema\"}\n", 27, MSG_NOSIGNAL) < 0)
					CHECK_EQ(errno, EAGAIN);
		if (send(loud, line, sizeof(line), MSG_NOSIGNAL) < 0)
			CHECK_EQ(errno, EAGAIN);
		rng_works(q);
	}
	CHECK_HAS(fe_control(fd, "query-stats"), "\"return\"");
	/* freed memory may stay in quarantine under a sanitizer, so this only catches answers that pile up */
	CHECK(fe_process_rss(&fe.process) < rss + (200 << 20));
	for (unsigned i = 0; i < ARRAY_SIZE(deaf); i++)
		close(deaf[i]);
	close(loud);
	rng_traffic(q, 100);
	close(fd);
	fe_end(&fe);
}

static void hundred_clients(const struct fe_mode *m)
{
	int fd[100], late;
	struct fe fe;
	struct fe_queue *q;

	choose_path();
	fe_start(&fe, m, FE_ARGS("rng", option));
	q = fe_queue_up(&fe, 0, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = fe_control_open(path);
	for (unsigned r = 0; r < 3; r++) {
		for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
			fe_control_send(fd[i], "{\"execute\":\"query-stats\"}\n");
		rng_works(q);
		for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
			CHECK_HAS(fe_control_line(fd[i]), "\"return\":{\"time-ns\"");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	late = fe_control_open(path);
	CHECK_HAS(fe_control(late, "query-status"), "\"connected\":true");
	close(late);
	fe_end(&fe);
}

/* --- life --- */

/* Requests wait, and the process ends at once all the same, with its answer given and its sockets removed. */
static void quits(const struct fe_mode *m)
{
	struct vring_driver_buf buf;
	struct source src;
	struct fe fe;
	struct fe_queue *q;
	int fd;

	choose_path();
	source_open(&src);
	fe_start(&fe, m, FE_ARGS("rng", src.option, option));
	q = fe_queue_up(&fe, 0, 16);
	buf = fe_wr(&fe, fe_alloc(&fe, 64, 1, NULL), 64);
	fe_submit(q, &buf, 1, NULL);
	fe_flush(q);
	fd = fe_control_open(path);
	CHECK_STR(fe_control(fd, "quit"), "{\"return\":{}}");
	fe_process_exits(&fe.process, 0);
	CHECK_EQ(access(path, F_OK), -1);
	close(fd);
	fe_close(&fe);
	source_close(&src);
}

/* Killed, and started again on the same paths, with a request in flight; clients hear of connections. */
static void comes_back(const struct fe_mode *m)
{
	char sock[160];
	struct fe fe;
	struct fe_queue *q;
	int fd;

	choose_path();
	snprintf(sock, sizeof(sock), "%s/s", fe_tmpdir());
	fe_init(&fe, m);
	fe_spawn_path(&fe, sock, FE_ARGS("rng", option));
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fd = fe_control_open(path);
	CHECK_HAS(fe_control(fd, "query-status"), "\"connected\":true");
	fe_process_kill(&fe.process);
	CHECK_EQ(access(path, F_OK), 0);
	close(fd);
	fe_close(&fe);

	fe_init(&fe, m);
	fe_spawn_path(&fe, sock, FE_ARGS("rng", option));
	fd = fe_control_open(path);
	CHECK_HAS(fe_control(fd, "query-status"), "\"pid\"");
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_close(&fe);
	CHECK_HAS(fe_control_event(fd, "disconnected"), "\"data\":{}");
	CHECK_HAS(fe_control(fd, "query-status"), "\"connected\":false");
	fe_init(&fe, m);
	fe_connect(&fe, sock);
	CHECK_HAS(fe_control_event(fd, "connected"), "\"timestamp\"");
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	rng_works(q);
	fe_hangup(&fe);
	fe_control_event(fd, "disconnected");
	fe_control(fd, "quit");
	fe_close(&fe);
	close(fd);
}

int main(void)
{
	fe_each_mode_in_order("status", status);
	fe_each_mode("statistics", stats);
	fe_each_layout("statistics of errors", stats_of_errors);
	fe_each_layout("statistics of nonsense", stats_of_nonsense);
	fe_each_layout("metrics", metrics);
	fe_each_layout("queues with threads", threads);
	fe_each_layout("clients that misbehave", misbehave);
	fe_each_layout("a hundred clients", hundred_clients);
	fe_each_layout("quit with requests in flight", quits);
	fe_each_layout("killed and back", comes_back);
	return tap_done();
}
