/* SPDX-License-Identifier: MIT */
/*
 * The block device under load with an NBD server behind it, over one connection or several, and while the server is killed
 * and started again, the back-end is, or both are: every request is answered once and well, and what was acknowledged is
 * there in the end.
 */
#include "block-slots.h"
#include "nbd-server.h"

static struct nbd_server server;

static void serve_file(const char *filter)
{
	nbd_server_needs("nbdkit");
	nbd_server_init(&server);
	load_image();
	if (filter)
		nbd_server_start(
			&server, FE_ARGS("nbdkit", filter, "file", load.image, "multi-conn-mode=disable"));
	else
		nbd_server_start(&server, FE_ARGS("nbdkit", "file", load.image));
	snprintf(load.source, sizeof(load.source), "%s", server.uri);
}

static void works(const struct fe_mode *m)
{
	serve_file(NULL);
	load_start(m, 1, FE_ARGS(NULL));
	load_run(1500);
	load_end();
}

static void a_connection_per_thread(const struct fe_mode *m)
{
	serve_file(NULL);
	load_start(m, QUEUES, FE_ARGS("--threads=3"));
	load_run(3000);
	load_end();
}

/* The server does not say that several connections are one disk. */
static void one_connection_for_all(const struct fe_mode *m)
{
	serve_file("--filter=multi-conn");
	load_start(m, QUEUES, FE_ARGS("--threads=3"));
	load_run(2000);
	load_end();
}

static void serve_again(void)
{
	nbd_server_kill(&server, SIGKILL);
	load_collect();
	load_fill();
	nbd_server_restart(&server);
}

static void server_killed(const struct fe_mode *m)
{
	serve_file(NULL);
	load_start(m, QUEUES, FE_ARGS("--threads=2"));
	for (int round = 0; round < 6; round++) {
		load_run(1 + load_rnd(300));
		load_fill();
		serve_again();
		load_run(1);
	}
	load_end();
}

static void server_killed_one_connection(const struct fe_mode *m)
{
	serve_file("--filter=multi-conn");
	load_start(m, QUEUES, FE_ARGS("--threads=2"));
	for (int round = 0; round < 4; round++) {
		load_run(1 + load_rnd(300));
		load_fill();
		serve_again();
		load_run(1);
	}
	load_end();
}

static void both_killed(const struct fe_mode *m)
{
	serve_file(NULL);
	load_tracked_start(m, 2, FE_ARGS("--threads=1"));
	for (int round = 0; round < 4; round++) {
		load_run(1 + load_rnd(200));
		load_fill();
		nbd_server_kill(&server, SIGKILL);
		fe_process_kill(&load.fe.process);
		fe_hangup(&load.fe);
		load_collect();
		nbd_server_restart(&server);
		fe_spawn_path(&load.fe, load.socket, load.args);
		load_connected_again();
	}
	load_tracked_end();
}

/* A queue stops at once though its server is away, and what it had taken is done after it goes on. */
static void stops_without_a_server(const struct fe_mode *m)
{
	serve_file(NULL);
	load_tracked_start(m, 2, FE_ARGS("--nbd-retry=1h"));
	for (int round = 0; round < 4; round++) {
		uint32_t base[2];

		load_run(1 + load_rnd(200));
		load_fill();
		nbd_server_kill(&server, SIGKILL);
		load_fill();
		for (unsigned i = 0; i < 2; i++)
			base[i] = fe_queue_stop(load.fe.queues[i]);
		load_collect();
		for (unsigned i = 0; i < 2; i++) {
			fe_queue_send(load.fe.queues[i], base[i]);
			fe_queue_enable(load.fe.queues[i], true);
			fe_kick(load.fe.queues[i]);
		}
		nbd_server_restart(&server);
		load_drain();
	}
	load_tracked_end();
}

static void replace_hung_server(void)
{
	nbd_server_kill(&server, SIGKILL);
	nbd_server_restart(&server);
}

/* Bounded, too: with a server that does not answer, but is there. Whatever it did not do is done by the next one. */
static void stops_with_a_hung_server(const struct fe_mode *m)
{
	uint32_t base[QUEUES];
	int64_t start;

	serve_file("--filter=multi-conn");
	load_tracked_start(m, QUEUES, FE_ARGS("--nbd-retry=1h", "--threads=2"));
	load_run(1 + load_rnd(200));
	load_fill();
	nbd_server_hang(&server);
	load_fill();
	start = fe_now_ms();
	for (unsigned i = 0; i < QUEUES; i++)
		base[i] = fe_queue_stop(load.fe.queues[i]);
	CHECK(fe_now_ms() - start < 2 * fe_limit_ms);
	load_collect();
	for (unsigned i = 0; i < QUEUES; i++) {
		fe_queue_send(load.fe.queues[i], base[i]);
		fe_queue_enable(load.fe.queues[i], true);
		fe_kick(load.fe.queues[i]);
	}
	replace_hung_server();
	load_drain();
	load_tracked_end();
}

/* A front-end that goes and comes back does not wait for it either. */
static void reconnects_with_a_hung_server(const struct fe_mode *m)
{
	serve_file(NULL);
	load_tracked_start(m, 2, FE_ARGS("--nbd-retry=1h"));
	load_run(1 + load_rnd(200));
	load_fill();
	nbd_server_hang(&server);
	load_fill();
	fe_hangup(&load.fe);
	fe_connect(&load.fe, load.socket);
	load_connected_again();
	replace_hung_server();
	load_drain();
	load_tracked_end();
}

/* qemu-nbd keeps tables of the image in its memory: what it acknowledged is safe only if it was told so. */
static void qcow2(const struct fe_mode *m)
{
	char create[512], convert[512], image[192];

	nbd_server_needs("qemu-nbd");
	nbd_server_init(&server);
	load_image();
	snprintf(image, sizeof(image), "%s/image.qcow2", fe_tmpdir());
	snprintf(create, sizeof(create), "qemu-img create -q -f qcow2 %s %u", image, LOAD_SIZE);
	CHECK_EQ(system(create), 0);
	nbd_server_start(&server, FE_ARGS("qemu-nbd", "-f", "qcow2", "-e", "8", image));
	snprintf(load.source, sizeof(load.source), "%s", server.uri);
	load_start(m, 2, FE_ARGS("--cache=writethrough"));
	for (int round = 0; round < 4; round++) {
		load_run(1 + load_rnd(300));
		load_fill();
		serve_again();
		load_run(1);
	}
	load_drain();
	fe_end(&load.fe);
	nbd_server_kill(&server, SIGTERM);
	snprintf(convert, sizeof(convert), "qemu-img convert -f qcow2 -O raw %s %s", image, load.image);
	CHECK_EQ(system(convert), 0);
	load_check();
}

int main(void)
{
	fe_each_mode("load on an NBD server", works);
	fe_each_layout("load on an NBD server: a connection per thread", a_connection_per_thread);
	fe_each_layout("load on an NBD server: one connection for all threads", one_connection_for_all);
	fe_each_layout("the server is killed under load", server_killed);
	fe_each_layout("the server is killed under load: one connection for all threads",
		server_killed_one_connection);
	fe_each_layout("server and back-end are killed under load", both_killed);
	fe_each_layout("a queue stops while its server is away", stops_without_a_server);
	fe_each_layout("a queue stops while its server hangs", stops_with_a_hung_server);
	fe_each_layout("a front-end comes back while the server hangs", reconnects_with_a_hung_server);
	fe_each_layout("qemu-nbd with a qcow2 image is killed under load", qcow2);
	return tap_done();
}
