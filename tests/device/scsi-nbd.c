/* SPDX-License-Identifier: MIT */
/* The SCSI device with an NBD server behind a unit: data, and requests that end though their server hangs. */
#include "nbd-server.h"
#include "scsi-driver.h"

#include <sys/stat.h>
#include <time.h>

enum { REQUESTS = 8 };

static struct nbd_server server;
static const uint8_t read_one[16] = {0x28, 0, 0, 0, 0, 0, 0, 0, 1};

static void serve(const struct fe_mode *m, const char *filter, const char *threads)
{
	nbd_server_needs("nbdkit");
	nbd_server_init(&server);
	nbd_server_start(&server, FE_ARGS("nbdkit", filter, "memory", "4M"));
	begin(m, FE_ARGS("scsi", server.uri, "--nbd-retry=1h", threads));
}

static void reads_and_writes(const struct fe_mode *m)
{
	static const uint8_t write_cdb[16] = {0x2a, 0, 0, 0, 0, 5, 0, 8},
			     read_cdb[16] = {0x28, 0, 0, 0, 0, 5, 0, 8};
	uint8_t *data, *back;

	serve(m, "--filter=nozero", "--threads=1");
	data = guest(MIB);
	back = guest(MIB);
	pattern(data, MIB, 3);
	is_good(ask(write_cdb, data, MIB, NULL, 0));
	is_good(ask(read_cdb, NULL, 0, back, MIB));
	CHECK_MEM(back, data, MIB);
	is_good(ask(CDB(0x35), NULL, 0, NULL, 0));
	fe_end(&fe);
}

/* What the server says of its holes; one that says nothing has none. */
static void holes(const struct fe_mode *m, const char *filter, const char *want)
{
	uint8_t *data;
	char got[256] = "";

	serve(m, filter, "--threads=1");
	data = guest(MIB);
	pattern(data, MIB, 3);
	is_good(ask(CDB(0x2a, 0, BE32(2048), 0, BE16(2048)), data, MIB, NULL, 0));
	is_good(ask(CDB(0x9e, 0x12, BE64(0), BE32(8 + 4 * 16)), NULL, 0, data, 8 + 4 * 16));
	for (unsigned at = 8; at < get_be32(data) + 4; at += 16)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%u+%u %u ",
			(unsigned)get_be64(data + at), get_be32(data + at + 8), data[at + 12]);
	CHECK_STR(got, want);
	fe_end(&fe);
}

static void lba_status(const struct fe_mode *m)
{
	holes(m, "--filter=multi-conn", "0+2048 1 2048+2048 0 4096+4096 1 ");
}

static void lba_status_unknown(const struct fe_mode *m)
{
	holes(m, "--filter=noextents", "0+8192 0 ");
}

/* Some requests of two queues that the server does not answer. */
static void hang(struct fe_queue *queues[2], struct command *c[REQUESTS])
{
	queues[0] = rq;
	queues[1] = fe_queue_up(&fe, 3, 64);
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	nbd_server_hang(&server);
	for (unsigned i = 0; i < REQUESTS; i++)
		c[i] = issue(queues[i % 2], 0, 0, read_one, NULL, 0, guest(512), 512, 20 + i);
	for (unsigned i = 0; i < 2; i++)
		fe_flush(queues[i]);
}

static unsigned take(struct fe_queue *q, uint8_t response)
{
	void *cookie;
	uint32_t used;
	unsigned n;

	for (n = 0; fe_collect(q, &cookie, &used); n++)
		CHECK_EQ(((struct command *)cookie)->resp->response, response);
	return n;
}

static void aborts(const struct fe_mode *m)
{
	struct fe_queue *queues[2];
	struct command *c[REQUESTS];

	serve(m, "--filter=multi-conn", "--threads=2");
	hang(queues, c);
	for (unsigned i = 0; i < REQUESTS; i++) /* the queues may not have been looked at yet */
		while (tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 20 + i) != VIRTIO_SCSI_S_FUNCTION_SUCCEEDED)
			CHECK(!fe_queue_failed(queues[i % 2]));
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, 0, 0, 0), VIRTIO_SCSI_S_OK);
	CHECK_EQ(take(queues[0], VIRTIO_SCSI_S_ABORTED) + take(queues[1], VIRTIO_SCSI_S_ABORTED), REQUESTS);
	nbd_server_kill(&server, SIGKILL);
	nbd_server_restart(&server);
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	fe_end(&fe);
}

static void stops(const struct fe_mode *m)
{
	struct fe_queue *queues[2];
	struct command *c[REQUESTS];
	uint32_t base[2];

	serve(m, "--filter=multi-conn", "--threads=2");
	hang(queues, c);
	for (unsigned i = 0; i < 2; i++)
		base[i] = fe_queue_stop(queues[i]);
	nbd_server_kill(&server, SIGKILL);
	nbd_server_restart(&server);
	for (unsigned i = 0; i < 2; i++) {
		fe_queue_send(queues[i], base[i]);
		fe_queue_enable(queues[i], true);
		fe_kick(queues[i]);
	}
	for (unsigned i = 0; i < REQUESTS; i++) {
		void *cookie;
		uint32_t used = fe_wait(queues[i % 2], &cookie);

		is_good(answer_of(cookie, used));
	}
	fe_end(&fe);
}

static char late[192]; /* directory */

/* A server that keeps the first write until it is told to go on, and does it half a second later. */
static void serve_late(const struct fe_mode *m)
{
	char write[2048];

	nbd_server_needs("nbdkit");
	image_new();
	snprintf(late, sizeof(late), "%s", fe_tmpdir());
	snprintf(write, sizeof(write),
		"pwrite=cat >%s/$$; if mkdir %s/first; then while [ -d %s ] && ! [ -e %s/go ]; do sleep 0.02; done; sleep 0.5; fi; "
		"dd if=%s/$$ of=%s seek=$4 oflag=seek_bytes conv=notrunc; mkdir %s/done || mkdir %s/both",
		late, late, late, late, late, image, late, late);
	nbd_server_init(&server);
	nbd_server_start(&server, FE_ARGS("nbdkit", "eval", "thread_model=echo parallel", "get_size=echo 4M",
					  write, "pread=exit 1"));
	begin(m, FE_ARGS("scsi", server.uri, "--nbd-retry=1h", "--threads=1"));
}

/* A write that was aborted, and that the server does all the same, does not undo the one that followed. */
static void late_writes(const struct fe_mode *m)
{
	static const uint8_t write_one[16] = {0x2a, 0, 0, 0, 0, 5, 0, 0, 1};
	const struct timespec moment = {.tv_nsec = 10000000};
	uint8_t *before, *after;
	char path[256];

	serve_late(m);
	before = guest(512);
	after = guest(512);
	pattern(before, 512, 1);
	pattern(after, 512, 2);
	issue(rq, 0, 0, write_one, before, 512, NULL, 0, 20);
	fe_flush(rq);
	snprintf(path, sizeof(path), "%s/first", late);
	while (access(path, F_OK) < 0)
		nanosleep(&moment, NULL);
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 0, 20), VIRTIO_SCSI_S_OK);
	CHECK_EQ(take(rq, VIRTIO_SCSI_S_ABORTED), 1);
	snprintf(path, sizeof(path), "%s/go", late);
	CHECK_SYS(mkdir(path, 0700));
	is_good(ask(write_one, after, 512, NULL, 0));
	snprintf(path, sizeof(path), "%s/both", late);
	while (access(path, F_OK) < 0)
		nanosleep(&moment, NULL);
	image_is(5 * 512, after, 512);
	fe_end(&fe);
}

/* A read that the server does not answer is aborted, and its connection given up. */
static void give_up(void)
{
	nbd_server_hang(&server);
	issue(rq, 0, 0, read_one, NULL, 0, guest(512), 512, 20);
	fe_flush(rq);
	while (tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, 0, 0, 20) != VIRTIO_SCSI_S_FUNCTION_SUCCEEDED)
		CHECK(!fe_queue_failed(rq));
	CHECK_EQ(tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, 0, 0, 20), VIRTIO_SCSI_S_OK);
	CHECK_EQ(take(rq, VIRTIO_SCSI_S_ABORTED), 1);
}

/* Until it has closed the connection it is not asked anew: requests fail, and the end does not wait for it. */
static void given_up(const struct fe_mode *m)
{
	nbd_server_needs("nbdkit");
	nbd_server_init(&server);
	nbd_server_start(&server, FE_ARGS("nbdkit", "memory", "4M"));
	begin(m, FE_ARGS("scsi", server.uri, "--nbd-retry=100"));
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	give_up();
	fe_process_logs(&fe.process, "requests fail");
	CHECK_EQ(ask(read_one, NULL, 0, guest(512), 512).sense >> 16, 3);
	CHECK_SYS(kill(server.pid, SIGCONT));
	fe_process_logs(&fe.process, ": connected");
	is_good(ask(read_one, NULL, 0, guest(512), 512));
	give_up();
	fe_process_signal(&fe.process, SIGTERM);
	fe_process_exits(&fe.process, 0);
	fe_close(&fe);
}

int main(void)
{
	fe_each_layout("NBD: reads and writes", reads_and_writes);
	fe_each_layout("NBD: holes", lba_status);
	fe_each_layout("NBD: a server that does not tell of holes", lba_status_unknown);
	fe_each_layout("NBD: abort while the server hangs", aborts);
	fe_each_layout("NBD: a queue stops while its server hangs", stops);
	fe_each_layout("NBD: an aborted write does not come late", late_writes);
	fe_each_layout("NBD: a server that is given up", given_up);
	return tap_done();
}
