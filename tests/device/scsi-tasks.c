/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight: task management, COMPARE AND WRITE over several queues, units that come and go, queues that stop,
 * connections that are lost. A disk with a limit (iops=) is what keeps requests in flight for as long as a test wants.
 */
#include "scsi-driver.h"

#include <signal.h>

static const struct fe_mode split = {0};

enum { QUEUES = 3 };
static struct fe_queue *queues[QUEUES];

/* Two units that serve one request, and then hardly any more. */
#define SLOW_UNITS                                                                        \
	"--lun=0:0,null=1M,iops=1,iops-burst=1", "--lun=0:1,null=1M,iops=1,iops-burst=1", \
		"--lun=1:0,null=1M,iops=1,iops-burst=1"

static const uint8_t read_one[16] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};

static struct command *rd(struct fe_queue *q, unsigned target, unsigned unit, uint64_t tag)
{
	return issue(q, target, unit, read_one, NULL, 0, guest(512), 512, tag);
}

/* Spends what a unit may do at once. */
static void spend(unsigned target, unsigned unit)
{
	calm(target, unit);
	is_good(ask_unit(target, unit, read_one, NULL, 0, guest(512), 512));
}

static void begin_slow(const struct fe_mode *m, const char *threads)
{
	begin(m, FE_ARGS("scsi", SLOW_UNITS, threads));
	queues[0] = rq;
	for (unsigned i = 1; i < QUEUES; i++)
		queues[i] = fe_queue_up(&fe, 2 + i, 64);
	spend(0, 0);
	spend(0, 1);
	spend(1, 0);
}

/* It must be complete by now, as *c, with this response. */
static void ended(struct fe_queue *q, const struct command *c, uint8_t response)
{
	void *cookie = NULL;
	uint32_t used = 0;

	CHECK(fe_collect(q, &cookie, &used));
	CHECK(cookie == c);
	CHECK_EQ(c->resp->response, response);
	CHECK_EQ(c->resp->status, 0);
}

static void nothing_ended(struct fe_queue *q)
{
	void *cookie;
	uint32_t used;

	CHECK(!fe_collect(q, &cookie, &used));
}

/* --- task management --- */

static void answers(const struct fe_mode *m)
{
	uint8_t *req, *resp;
	struct vring_driver_buf b[2];

	begin(m, FE_ARGS("scsi", "--null=1M"));
	for (uint32_t f = 0; f < 8; f++)
		if (f != VIRTIO_SCSI_T_TMF_CLEAR_ACA)
			CHECK_EQ(tmf(f, 0, 0, 5), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_CLEAR_ACA, 0, 0, 5), VIRTIO_SCSI_S_FUNCTION_REJECTED);
	CHECK_EQ(tmf(8, 0, 0, 5), VIRTIO_SCSI_S_FUNCTION_REJECTED);
	CHECK_EQ(tmf(UINT32_MAX, 0, 0, 5), VIRTIO_SCSI_S_FUNCTION_REJECTED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 9, 0, 5), VIRTIO_SCSI_S_BAD_TARGET);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, NO_ADDRESS, 0, 5), VIRTIO_SCSI_S_BAD_TARGET);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 1, 5), VIRTIO_SCSI_S_INCORRECT_LUN);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET, 0, 1, 5), VIRTIO_SCSI_S_OK);
	/* short ones, and ones of no known type */
	req = guest(64);
	resp = guest(64);
	for (uint32_t len = 0; len < 24; len += 5) {
		memset(resp, NOT_SEEN, 8);
		b[0] = fe_rd(&fe, req, MAX(len, 1u));
		b[1] = fe_wr(&fe, resp, 1);
		CHECK_EQ(fe_transact(ctl, b, 2), len >= 4 ? 1 : 0);
		CHECK_EQ(resp[0], len >= 4 ? VIRTIO_SCSI_S_FAILURE : NOT_SEEN);
	}
	b[0] = fe_rd(&fe, req, 24);
	CHECK_EQ(fe_transact(ctl, b, 1), 0);
	req[0] = 3;
	b[1] = fe_wr(&fe, resp, 64);
	CHECK_EQ(fe_transact(ctl, b, 2), 0);
	/* asynchronous notifications: there is nothing to tell of a disk */
	for (uint8_t type = 1; type <= 2; type++) {
		memset(req, 0, 64);
		memset(resp, NOT_SEEN, 8);
		req[0] = type;
		address(req + 4, 0, 0);
		memset(req + 12, 0xff, 4);
		b[0] = fe_rd(&fe, req, 16);
		b[1] = fe_wr(&fe, resp, 5);
		CHECK_EQ(fe_transact(ctl, b, 2), 5);
		CHECK_MEM(resp, "\0\0\0\0\0", 5);
		req[5] = 7;
		CHECK_EQ(fe_transact(ctl, b, 2), 5);
		CHECK_EQ(resp[4], VIRTIO_SCSI_S_BAD_TARGET);
	}
	fe_end(&fe);
}

static void abort_one(const struct fe_mode *m)
{
	struct command *c[4];

	begin_slow(m, NULL);
	for (unsigned i = 0; i < 4; i++)
		c[i] = rd(rq, 0, 0, 10 + i);
	fe_flush(rq);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 12), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 99), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 1, 12), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 1, 12), VIRTIO_SCSI_S_OK);
	nothing_ended(rq);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 0, 12), VIRTIO_SCSI_S_OK);
	ended(rq, c[2], VIRTIO_SCSI_S_ABORTED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 12), VIRTIO_SCSI_S_OK);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, 0, 0, 0), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	nothing_ended(rq);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	for (unsigned i = 0; i < 3; i++) {
		void *cookie;
		uint32_t used;

		CHECK(fe_collect(rq, &cookie, &used));
		CHECK_EQ(((struct command *)cookie)->resp->response, VIRTIO_SCSI_S_ABORTED);
	}
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	/* no unit attention for one's own doing */
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	fe_end(&fe);
}

/* In all queues, of the unit or target only. */
static void resets(const struct fe_mode *m, const char *threads, uint32_t function)
{
	bool nexus = function == VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET;
	uint8_t response =
		function == VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET ? VIRTIO_SCSI_S_ABORTED : VIRTIO_SCSI_S_RESET;
	struct command *c[QUEUES][3];

	begin_slow(m, threads);
	for (unsigned i = 0; i < QUEUES; i++) {
		c[i][0] = rd(queues[i], 0, 0, i);
		c[i][1] = rd(queues[i], 0, 1, i);
		c[i][2] = rd(queues[i], 1, 0, i);
		fe_flush(queues[i]);
	}
	CHECK_EQ(tmf(function, 0, 0, 0), VIRTIO_SCSI_S_OK);
	for (unsigned i = 0; i < QUEUES; i++) {
		void *cookie;
		uint32_t used, n = 0;

		while (fe_collect(queues[i], &cookie, &used)) {
			struct command *one = cookie;

			CHECK(one == c[i][0] || (nexus && one == c[i][1]));
			CHECK_EQ(one->resp->response, response);
			n++;
		}
		CHECK_EQ(n, nexus ? 2 : 1);
	}
	if (function != VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET)
		is_sense(ask(CDB(0), NULL, 0, NULL, 0), nexus ? SENSE(6, 0x29, 7) : SENSE(6, 0x29, 3));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	if (nexus)
		is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 7));
	is_good(ask_unit(1, 0, CDB(0), NULL, 0, NULL, 0));
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, 1, 0, 0), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	fe_end(&fe);
}

static void resets_all(const struct fe_mode *m)
{
	static const uint32_t functions[] = {VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET,
		VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET, VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET};

	for (unsigned i = 0; i < ARRAY_SIZE(functions); i++) {
		resets(m, NULL, functions[i]);
		resets(m, "--threads=3", functions[i]);
	}
}

/* --- COMPARE AND WRITE: counters that several queues increment --- */

enum { COUNTERS = 4, TURNS = 150 };

struct counter {
	struct command *c;
	uint8_t *data; /* 512 bytes as it should be, 512 as it shall be */
	uint64_t seen;
};

static struct command *increment(struct fe_queue *q, struct counter *n)
{
	put_be64(n->data, n->seen);
	put_be64(n->data + 512, n->seen + 1);
	return n->c = issue(q, 0, 0, CDB(0x89, 0, BE64(7), 0, 0, 0, 1), n->data, 1024, NULL, 0, 1);
}

/* Plain writes next to it, which must not be lost either. */
static struct command *write_beside(struct fe_queue *q, uint8_t *data, unsigned i)
{
	put_be64(data, i);
	return issue(q, 0, 0, CDB(0x2a, 0, BE32(100 + i % 64), 0, BE16(1)), data, 512, NULL, 0, 2);
}

static void atomic_increments(const struct fe_mode *m, const char *option, const char *threads)
{
	struct counter counters[QUEUES][COUNTERS] = {0};
	char spec[300];
	uint8_t got[8], *beside;
	uint64_t sum = 0;
	unsigned turns = 0;

	image_new();
	snprintf(spec, sizeof(spec), "--lun=0:0,file=%s%s", image, option);
	begin(m, FE_ARGS("scsi", spec, threads));
	queues[0] = rq;
	for (unsigned i = 1; i < QUEUES; i++)
		queues[i] = fe_queue_up(&fe, 2 + i, 64);
	beside = guest(512);
	for (unsigned i = 0; i < QUEUES; i++)
		for (unsigned j = 0; j < COUNTERS; j++)
			counters[i][j].data = guest(1024);
	for (; turns < TURNS; turns++) {
		size_t mark = fe_mark(&fe);

		for (unsigned i = 0; i < QUEUES; i++) {
			for (unsigned j = 0; j < COUNTERS; j++)
				increment(queues[i], &counters[i][j]);
			write_beside(queues[i], beside, turns);
			fe_flush(queues[i]);
		}
		for (unsigned i = 0; i < QUEUES; i++)
			for (unsigned j = 0; j < COUNTERS + 1; j++) {
				void *cookie;
				struct answer a;
				uint32_t used = fe_wait(queues[i], &cookie);

				a = answer_of(cookie, used);
				CHECK_EQ(a.response, 0);
				for (unsigned k = 0; k < COUNTERS; k++)
					if (counters[i][k].c == cookie) {
						CHECK(a.status == 0 || a.sense == SENSE(0xe, 0x1d, 0));
						sum += a.status == 0;
					}
			}
		is_good(ask(CDB(0x28, 0, BE32(7), 0, BE16(1)), NULL, 0, beside, 512));
		for (unsigned i = 0; i < QUEUES; i++)
			for (unsigned j = 0; j < COUNTERS; j++)
				counters[i][j].seen = get_be64(beside);
		CHECK_EQ(get_be64(beside), sum);
		fe_release(&fe, mark);
	}
	/* of those that tried at once exactly one had its way */
	CHECK_EQ(sum, TURNS);
	put_be64(got, sum);
	image_is(7 * 512, got, 8);
	fe_end(&fe);
}

static void increments(const struct fe_mode *m)
{
	atomic_increments(m, "", NULL);
	atomic_increments(m, "", "--threads=3");
	atomic_increments(m, ",direct", "--threads=2");
}

/* Its turn has come, but it is aborted; those behind it go on. */
static void aborted_in_line(const struct fe_mode *m)
{
	uint8_t *data;
	struct command *c[3], *w;

	begin_slow(m, "--threads=3");
	data = guest(1024);
	for (unsigned i = 0; i < QUEUES; i++) {
		c[i] = issue(queues[i], 0, 0, CDB(0x89, 0, BE64(7), 0, 0, 0, 1), data, 1024, NULL, 0, 50 + i);
		fe_flush(queues[i]);
		/* so that their order is known */
		CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 50 + i), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	}
	w = issue(queues[1], 0, 0, CDB(0x2a, 0, BE32(1), 0, BE16(1)), data, 512, NULL, 0, 60);
	fe_flush(queues[1]);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 60), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 0, 60), VIRTIO_SCSI_S_OK);
	ended(queues[1], w, VIRTIO_SCSI_S_ABORTED);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	for (unsigned i = 0; i < QUEUES; i++)
		ended(queues[i], c[i], VIRTIO_SCSI_S_RESET);
	calm(0, 0);
	fe_end(&fe);
}

/* --- queues that stop, processes that die --- */

static void stopped(const struct fe_mode *m)
{
	struct command *c[8];
	uint32_t base;

	begin(m, FE_ARGS("scsi", "--lun=0:0,null=1M,iops=200,iops-burst=1", "--threads=1"));
	spend(0, 0);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(c); i++)
			c[i] = rd(rq, 0, 0, i);
		fe_flush(rq);
		base = fe_queue_stop(rq);
		fe_queue_send(rq, base);
		fe_queue_enable(rq, true);
		fe_kick(rq);
		for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
			void *cookie;
			uint32_t used = fe_wait(rq, &cookie);

			is_good(answer_of(cookie, used));
		}
	}
	fe_end(&fe);
}

static void killed(const struct fe_mode *m)
{
	char path[200];
	const char *args[] = {"scsi", "--lun=0:0,null=1M,iops=50,iops-burst=1", NULL};
	unsigned done = 0;

	snprintf(path, sizeof(path), "%s/s", fe_tmpdir());
	fe_init(&fe, m);
	fe_spawn_path(&fe, path, args);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	fe_inflight_get(&fe, 3, 64);
	fe_inflight_set(&fe);
	rq = fe_queue_up(&fe, 2, 64);
	calm(0, 0);
	for (unsigned i = 0; i < 6; i++)
		rd(rq, 0, 0, i);
	fe_flush(rq);
	fe_wait(rq, NULL);
	done = 1;
	fe_process_signal(&fe.process, SIGKILL);
	fe_process_kill(&fe.process);
	fe_hangup(&fe);
	fe_spawn_path(&fe, path, args);
	fe_handshake(&fe);
	fe_memory_send(&fe);
	fe_inflight_set(&fe);
	fe_queue_send(rq, fe.mode.packed ? 0x80008000u : rq->ring.used->idx);
	fe_queue_enable(rq, true);
	fe_kick(rq);
	for (; done < 6; done++) {
		void *cookie;
		uint32_t used = fe_wait(rq, &cookie);
		struct answer a = answer_of(cookie, used);

		/* the new process has been powered on: the first one is told so */
		if (a.sense != SENSE(6, 0x29, 0))
			is_good(a);
	}
	calm(0, 0);
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_process_signal(&fe.process, SIGTERM);
	fe_process_exits(&fe.process, 0);
	fe_close(&fe);
}

/* --- units that come and go --- */

static int control;

static void begin_controlled(const struct fe_mode *m, const char *first)
{
	char path[200], option[240];

	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	begin(m, FE_ARGS("scsi", first, option, "--threads=2"));
	control = fe_control_open(path);
}

static const char *command(const char *name, const char *args)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"execute\":\"%s\",\"arguments\":{%s}}", name, args);
	return fe_control_ask(control, text);
}

static struct virtio_scsi_event *event_buffer(void)
{
	struct virtio_scsi_event *e = fe_alloc(&fe, sizeof(*e), 4, NULL);
	struct vring_driver_buf b = fe_wr(&fe, e, sizeof(*e));

	fe_submit(ev, &b, 1, e);
	fe_flush(ev);
	return e;
}

static void event_is(uint32_t event, unsigned target, unsigned unit, uint32_t reason)
{
	struct virtio_scsi_event *e;
	void *cookie;
	uint8_t lun[8];

	CHECK_EQ(fe_wait(ev, &cookie), sizeof(*e));
	e = cookie;
	CHECK_EQ(e->event, event);
	CHECK_EQ(e->reason, reason);
	address(lun, target, unit);
	if (unit < 256)
		lun[2] = 0; /* as Linux takes it, see scsi_address_write() */
	CHECK_MEM(e->lun, lun, 8);
}

static void hot_plug(const struct fe_mode *m)
{
	uint8_t *d;

	begin_controlled(m, "--lun=0:0,null=1M");
	d = guest(512);
	event_buffer();
	event_buffer();
	is_response(ask_unit(4, 2, CDB(0), NULL, 0, NULL, 0), VIRTIO_SCSI_S_BAD_TARGET);
	CHECK_HAS(command("lun-add", "\"lun\":\"4:2,null=2M,serial=NEW\""), "return");
	event_is(VIRTIO_SCSI_T_TRANSPORT_RESET, 4, 2, VIRTIO_SCSI_EVT_RESET_RESCAN);
	is_sense(ask_unit(4, 2, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 0));
	is_good(ask_unit(4, 2, read_one, NULL, 0, d, 512));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	CHECK_HAS(fe_control(control, "luns"), "\"serial\":\"NEW\"");
	/* one of the same target: the other unit says that the list has changed, until it was read */
	CHECK_HAS(command("lun-add", "\"lun\":\"0:1,null=1M\""), "return");
	event_is(VIRTIO_SCSI_T_TRANSPORT_RESET, 0, 1, VIRTIO_SCSI_EVT_RESET_RESCAN);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x3f, 0x0e));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	event_buffer();
	CHECK_HAS(command("lun-remove", "\"lun\":\"0:1\""), "return");
	event_is(VIRTIO_SCSI_T_TRANSPORT_RESET, 0, 1, VIRTIO_SCSI_EVT_RESET_REMOVED);
	is_good(ask(CDB(0xa0, 0, 0, 0, 0, 0, BE32(512)), NULL, 0, d, 512));
	CHECK_EQ(get_be32(d), 8);
	is_good(ask(CDB(0), NULL, 0, NULL, 0)); /* REPORT LUNS has told */
	is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(5, 0x25, 0));
	/* what is refused */
	CHECK_HAS(command("lun-add", "\"lun\":\"0:0,null=1M\""), "there already");
	CHECK_HAS(command("lun-add", "\"lun\":\"0:9,file=/nonexistent/x\""), "/nonexistent/x");
	CHECK_HAS(command("lun-add", "\"lun\":\"nonsense\""), "no TARGET:LUN");
	CHECK_HAS(command("lun-remove", "\"lun\":\"0:9\""), "there is none");
	CHECK_HAS(command("lun-remove", "\"lun\":\"x\""), "no TARGET:LUN");
	CHECK_HAS(command("eject", "\"lun\":\"0:0\""), "not removable");
	CHECK_HAS(command("resize", "\"lun\":\"0:7\""), "there is none");
	fe_end(&fe);
}

static void removed_in_use(const struct fe_mode *m)
{
	struct command *c[3];

	begin_controlled(m, "--lun=0:0,null=1M,iops=10,iops-burst=1");
	spend(0, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++)
		c[i] = rd(rq, 0, 0, i);
	fe_flush(rq);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 2), VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	CHECK_HAS(command("lun-remove", "\"lun\":\"0:0\""), "return");
	for (unsigned i = 0; i < ARRAY_SIZE(c); i++) {
		void *cookie;
		uint32_t used = fe_wait(rq, &cookie);

		is_good(answer_of(cookie, used));
	}
	is_response(ask(CDB(0), NULL, 0, NULL, 0), VIRTIO_SCSI_S_BAD_TARGET);
	/* and again and again */
	for (unsigned i = 0; i < 30; i++) {
		size_t mark = fe_mark(&fe);

		CHECK_HAS(command("lun-add", "\"lun\":\"0:0,null=1M\""), "return");
		calm(0, 0);
		is_good(ask(read_one, NULL, 0, guest(512), 512));
		CHECK_HAS(command("lun-remove", "\"lun\":\"0:0\""), "return");
		fe_release(&fe, mark);
	}
	fe_end(&fe);
}

static void missed_events(const struct fe_mode *m)
{
	unsigned missed = 0, n = 0;

	begin_controlled(m, "--lun=0:0,null=1M");
	for (unsigned i = 0; i < 30; i++) {
		CHECK_HAS(command("lun-add", "\"lun\":\"5:0,null=1M\""), "return");
		CHECK_HAS(command("lun-remove", "\"lun\":\"5:0\""), "return");
	}
	for (unsigned i = 0; i < 16; i++)
		event_buffer();
	for (; n < 32; n++) {
		void *cookie;
		struct virtio_scsi_event *e;

		fe_wait(ev, &cookie);
		e = cookie;
		if (e->event & VIRTIO_SCSI_T_EVENTS_MISSED)
			missed++;
		CHECK_EQ(e->event & ~VIRTIO_SCSI_T_EVENTS_MISSED, VIRTIO_SCSI_T_TRANSPORT_RESET);
		event_buffer();
	}
	CHECK_EQ(missed, 1);
	/* all is well again */
	CHECK_HAS(command("lun-add", "\"lun\":\"5:0,null=1M\""), "return");
	event_is(VIRTIO_SCSI_T_TRANSPORT_RESET, 5, 0, VIRTIO_SCSI_EVT_RESET_RESCAN);
	fe_end(&fe);
}

static void grown(const struct fe_mode *m)
{
	char first[300], size[64];
	uint8_t *d;

	image_new();
	snprintf(first, sizeof(first), "--lun=0:0,file=%s", image);
	begin_controlled(m, first);
	d = guest(64);
	event_buffer();
	snprintf(size, sizeof(size), "\"lun\":\"0:0\",\"size\":%u", 6 * MIB);
	CHECK_HAS(command("resize", size), "6291456");
	event_is(VIRTIO_SCSI_T_PARAM_CHANGE, 0, 0, 0x092a);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x2a, 9));
	is_good(ask(CDB(0x25), NULL, 0, d, 8));
	CHECK_EQ(get_be32(d), 6 * MIB / 512 - 1);
	/* somebody else makes it longer */
	event_buffer();
	CHECK_SYS(truncate(image, 8 * MIB));
	image_write(8 * MIB - 512, guest(512), 512);
	event_is(VIRTIO_SCSI_T_PARAM_CHANGE, 0, 0, 0x092a);
	is_sense(ask(CDB(0x25), NULL, 0, d, 8), SENSE(6, 0x2a, 9));
	is_good(ask(CDB(0x28, 0, BE32(8 * MIB / 512 - 1), 0, BE16(1)), NULL, 0, guest(512), 512));
	/* or cuts it off, to less than a block: then there is no last one */
	event_buffer();
	CHECK_SYS(truncate(image, 0));
	image_write(0, guest(512), 100);
	event_is(VIRTIO_SCSI_T_PARAM_CHANGE, 0, 0, 0x092a);
	is_sense(ask(CDB(0x25), NULL, 0, d, 8), SENSE(6, 0x2a, 9));
	is_sense(ask(CDB(0x25), NULL, 0, d, 8), SENSE(3, 0x11, 0));
	is_sense(ask(CDB(0x9e, 0x10, [13] = 32), NULL, 0, d, 32), SENSE(3, 0x11, 0));
	is_sense(ask(CDB(0x28, [8] = 1), NULL, 0, guest(512), 512), SENSE(5, 0x21, 0));
	fe_end(&fe);
}

static void media(const struct fe_mode *m)
{
	uint8_t *req, *resp;

	begin_controlled(m, "--lun=0:0,null=1M,cdrom");
	req = guest(64);
	resp = guest(64);
	req[0] = VIRTIO_SCSI_T_AN_SUBSCRIBE;
	address(req + 4, 0, 0);
	req[12] = 0xff;
	CHECK_EQ(fe_transact(ctl, (struct vring_driver_buf[]){fe_rd(&fe, req, 16), fe_wr(&fe, resp, 5)}, 2),
		5);
	CHECK_EQ(resp[0], 0x10);
	event_buffer();
	event_buffer();
	is_good(ask(CDB(0x1e, 0, 0, 0, 1), NULL, 0, NULL, 0));
	CHECK_HAS(command("eject", "\"lun\":\"0:0\""), "locked");
	is_good(ask(CDB(0x1e, 0, 0, 0, 0), NULL, 0, NULL, 0));
	CHECK_HAS(command("eject", "\"lun\":\"0:0\""), "return");
	event_is(VIRTIO_SCSI_T_ASYNC_NOTIFY, 0, 0, 0x10);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(2, 0x3a, 0));
	CHECK_HAS(command("insert", "\"lun\":\"0:0\""), "return");
	event_is(VIRTIO_SCSI_T_ASYNC_NOTIFY, 0, 0, 0x10);
	is_sense(ask(CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x28, 0));
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	fe_end(&fe);
}

int main(void)
{
	fe_case("answers of task management", answers, &split);
	fe_each_mode("tasks that are aborted", abort_one);
	fe_each_layout("resets over all queues", resets_all);
	fe_each_layout("compare and write over several queues", increments);
	fe_case("aborted in line", aborted_in_line, &split);
	fe_each_mode("a queue that stops", stopped);
	fe_each_layout("a process that is killed", killed);
	fe_each_layout("hot-plug", hot_plug);
	fe_case("a unit that is removed in use", removed_in_use, &split);
	fe_case("events that are missed", missed_events, &split);
	fe_case("a disk that grows", grown, &split);
	fe_case("media that change", media, &split);
	return tap_done();
}
