/* SPDX-License-Identifier: MIT */
/*
 * The block device with an NBD server behind it, request by request: what the server can do is what the guest is offered;
 * what happens when it goes for longer, comes back, or has another size then; and what is refused.
 */
#include "block-rig.h"
#include "nbd-server.h"

#include <sys/stat.h>
#include <time.h>

static struct nbd_server server;
static const struct fe_mode split = {0};

static void serve(const char *const *args)
{
	nbd_server_needs("nbdkit");
	nbd_server_init(&server);
	nbd_server_start(&server, args);
}

static void start(const struct fe_mode *m, const char *a, const char *b)
{
	fe_start(&blk.fe, m, FE_ARGS("block", server.uri, a, a ? b : NULL));
	blk.q = fe_queue_up(&blk.fe, 0, 128);
}

static void reads_and_writes(const struct fe_mode *m)
{
	uint8_t *data;

	serve(FE_ARGS("nbdkit", "memory", "4M"));
	start(m, NULL, NULL);
	CHECK_EQ(blk_config().capacity, BLK_SECTORS);
	data = blk_guest(MIB);
	for (uint32_t len = 512; len <= MIB; len *= 2) {
		blk_pattern(data, len, len);
		blk_wr_ok(3, data, len);
		blk_rd_ok(3, data, len);
	}
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, BLK_SECTORS, data, 512, true), VIRTIO_BLK_S_IOERR);
	blk_still_works();
	fe_end(&blk.fe);
}

/* Pieces of all lengths: large ones go straight to the guest's memory, small ones through a buffer. */
static void pieces_of_all_lengths(const struct fe_mode *m)
{
	static const uint32_t lengths[] = {1, 511, 512, 40960, 131072, 7, 33000, 299, 32768, 65536, 1000};
	uint8_t *data, *back, *status;
	uint32_t total = 0;

	serve(FE_ARGS("nbdkit", "memory", "4M"));
	start(m, NULL, NULL);
	data = blk_guest(MIB);
	back = blk_guest(2 * MIB);
	status = fe_alloc(&blk.fe, 1, 1, NULL);
	blk_pattern(data, MIB, 77);
	for (int wr = 0; wr < 2; wr++) {
		struct vring_driver_buf b[ARRAY_SIZE(lengths) + 3];
		uint32_t gap = wr ? 64 : 0;
		unsigned n = 0;

		total = 0;
		b[n++] = fe_rd(&blk.fe, blk_header(wr ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, 9), 16);
		for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
			b[n] = wr ? fe_wr(&blk.fe, back + total + i * gap, lengths[i])
				  : fe_rd(&blk.fe, data + total, lengths[i]);
			n++;
			total += lengths[i];
		}
		b[n] = wr ? fe_wr(&blk.fe, back + total + n * gap, ALIGN_UP(total, 512u) - total)
			  : fe_rd(&blk.fe, data + total, ALIGN_UP(total, 512u) - total);
		n++;
		b[n++] = fe_wr(&blk.fe, status, 1);
		*status = BLK_NOT_SEEN;
		CHECK_EQ(fe_transact(blk.q, b, n), (wr ? ALIGN_UP(total, 512u) : 0) + 1);
		CHECK_EQ(*status, VIRTIO_BLK_S_OK);
	}
	for (unsigned i = 0, at = 0; i < ARRAY_SIZE(lengths); at += lengths[i++])
		CHECK_MEM(back + at + i * 64, data + at, lengths[i]);
	blk_rd_ok(9, data, ALIGN_UP(total, 512u));
	fe_end(&blk.fe);
}

static void discards_and_zeroes(const struct fe_mode *m)
{
	struct virtio_blk_discard_write_zeroes *r;
	uint8_t *data;

	serve(FE_ARGS("nbdkit", "memory", "4M"));
	start(m, NULL, NULL);
	CHECK(blk_offers(VIRTIO_BLK_F_DISCARD) && blk_offers(VIRTIO_BLK_F_WRITE_ZEROES));
	CHECK(!blk_offers(VIRTIO_BLK_F_SECURE_ERASE));
	data = blk_guest(MIB);
	blk_pattern(data, MIB, 3);
	blk_wr_ok(0, data, MIB);
	r = blk_ranges(3);
	r[0] = (struct virtio_blk_discard_write_zeroes){.sector = 8, .num_sectors = 16};
	r[1] = (struct virtio_blk_discard_write_zeroes){.sector = 64, .num_sectors = 1};
	r[2] = (struct virtio_blk_discard_write_zeroes){.sector = 128, .num_sectors = 256, .flags = 1};
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_WRITE_ZEROES, r, 3), VIRTIO_BLK_S_OK);
	for (int i = 0; i < 3; i++)
		memset(data + r[i].sector * 512, 0, r[i].num_sectors * 512);
	blk_rd_ok(0, data, MIB);
	r[2].flags = 0;
	r[2].sector = 1024;
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_DISCARD, r, 3), VIRTIO_BLK_S_OK);
	memset(data + 1024 * 512, 0, 256 * 512); /* this server's memory forgets */
	blk_rd_ok(0, data, MIB);
	blk_answers(blk_ask_ranges(VIRTIO_BLK_T_SECURE_ERASE, r, 3), VIRTIO_BLK_S_UNSUPP);
	fe_end(&blk.fe);
}

static void read_only(const struct fe_mode *m)
{
	uint8_t *data;

	serve(FE_ARGS("nbdkit", "-r", "memory", "4M"));
	fe_process_start(&blk.fe.process, -1, FE_ARGS("block", server.uri, "--socket-path=/nowhere/s"));
	fe_process_logs(&blk.fe.process, "the server lets nobody write");
	fe_process_exits(&blk.fe.process, 1);
	start(m, "--read-only", NULL);
	CHECK(blk_offers(VIRTIO_BLK_F_RO) && !blk_offers(VIRTIO_BLK_F_DISCARD));
	data = blk_guest(512);
	blk_rd_ok(0, data, 512);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 0, data, 512, false), VIRTIO_BLK_S_IOERR);
	fe_end(&blk.fe);
}

/* What the server cannot do is not offered, or done otherwise. */
static void a_poor_server(const struct fe_mode *m)
{
	uint8_t *data;

	serve(FE_ARGS("nbdkit", "--filter=nozero", "--filter=fua", "memory", "4M", "zeromode=none"));
	start(m, "--cache=writethrough", NULL);
	CHECK(!blk_offers(VIRTIO_BLK_F_WRITE_ZEROES));
	data = blk_guest(MIB);
	blk_pattern(data, MIB, 8);
	blk_wr_ok(0, data, MIB);
	blk_rd_ok(0, data, MIB);
	fe_end(&blk.fe);
}

static void large_blocks(const struct fe_mode *m)
{
	uint8_t *data;

	serve(FE_ARGS("nbdkit", "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096",
		"blocksize-preferred=64k", "blocksize-maximum=128k", "blocksize-error-policy=error"));
	start(m, NULL, NULL);
	CHECK_EQ(blk_config().blk_size, 4096);
	CHECK_EQ(blk_config().physical_block_exp, 4);
	data = blk_guest(MIB);
	blk_pattern(data, MIB, 2);
	blk_wr_ok(8, data, MIB);
	blk_rd_ok(8, data, MIB);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 1, data, 512, false), VIRTIO_BLK_S_IOERR);
	blk_rd_ok(8, data, MIB);
	fe_end(&blk.fe);
}

static void errors_are_answers(const struct fe_mode *m)
{
	uint8_t *data;

	serve(FE_ARGS(
		"nbdkit", "--filter=error", "memory", "4M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"));
	start(m, NULL, NULL);
	data = blk_guest(MIB);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 0, data, MIB, false), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 0, data, MIB, true), VIRTIO_BLK_S_OK);
	fe_end(&blk.fe);
}

static void serve_file(void)
{
	blk_image_new(BLK_SECTORS * 512);
	serve(FE_ARGS("nbdkit", "file", blk.image));
}

/* The image's server comes back only after the requests failed. */
static void gives_up_and_comes_back(const struct fe_mode *m)
{
	uint8_t *data;

	serve_file();
	start(m, "--nbd-retry=100", NULL);
	blk_still_works();
	nbd_server_kill(&server, SIGKILL);
	data = blk_guest(4096);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 0, data, 4096, true), VIRTIO_BLK_S_IOERR);
	blk_answers(blk_ask(VIRTIO_BLK_T_OUT, 0, data, 4096, false), VIRTIO_BLK_S_IOERR);
	fe_process_logs(&blk.fe.process, "requests fail");
	nbd_server_restart(&server);
	fe_process_logs(&blk.fe.process, "connected");
	blk_still_works();
	fe_end(&blk.fe);
}

static void another_size(const struct fe_mode *m)
{
	serve_file();
	start(m, NULL, NULL);
	blk_still_works();
	nbd_server_kill(&server, SIGKILL);
	CHECK_SYS(truncate(blk.image, 8 * MIB));
	nbd_server_restart(&server);
	fe_config_changed(&blk.fe);
	CHECK_EQ(blk_config().capacity, 8 * MIB / 512);
	blk_answers(blk_ask(VIRTIO_BLK_T_IN, 8 * MIB / 512 - 1, blk_guest(512), 512, true), VIRTIO_BLK_S_OK);
	blk_still_works();
	fe_end(&blk.fe);
}

/* The server is still the same, only the command makes us ask it. */
static void size_by_command(const struct fe_mode *m)
{
	char path[160], option[192];
	int fd;

	snprintf(path, sizeof(path), "%s/c", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	serve_file();
	start(m, option, "--threads=1");
	fd = fe_control_open(path);
	CHECK_SYS(truncate(blk.image, 8 * MIB));
	blk_still_works();
	CHECK_EQ(blk_config().capacity, BLK_SECTORS);
	CHECK(strstr(fe_control(fd, "resize"), "return") != NULL);
	CHECK(strstr(fe_control_event(fd, "resized"), "8388608") != NULL);
	fe_config_changed(&blk.fe);
	CHECK_EQ(blk_config().capacity, 8 * MIB / 512);
	blk_still_works();
	CHECK(strstr(fe_control_ask(fd, "{\"execute\":\"resize\",\"arguments\":{\"size\":16777216}}"),
		      "error") != NULL);
	close(fd);
	fe_end(&blk.fe);
}

/* Nothing waits for the server then. */
static void ends_without_a_server(const struct fe_mode *m)
{
	struct vring_driver_buf b[3];
	uint8_t *data;

	serve_file();
	start(m, "--nbd-retry=1h", NULL);
	nbd_server_kill(&server, SIGKILL);
	data = blk_guest(4096);
	b[0] = fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_IN, 0), 16);
	b[1] = fe_wr(&blk.fe, data, 4096);
	b[2] = fe_wr(&blk.fe, data, 1);
	for (int i = 0; i < 8; i++)
		fe_submit(blk.q, b, 3, NULL);
	fe_flush(blk.q);
	fe_barrier(&blk.fe);
	fe_process_signal(&blk.fe.process, SIGTERM);
	fe_process_exits(&blk.fe.process, 0);
	fe_close(&blk.fe);
}

/* At the end a server that hangs is not waited for; neither is one that takes connections, and says nothing. */
static void ends_with_a_hung_server(const struct fe_mode *m)
{
	struct vring_driver_buf b[3];
	uint8_t *data;

	serve_file();
	start(m, "--nbd-retry=1h", "--threads=1");
	nbd_server_hang(&server);
	data = blk_guest(4096);
	b[0] = fe_rd(&blk.fe, blk_header(VIRTIO_BLK_T_IN, 0), 16);
	b[1] = fe_wr(&blk.fe, data, 4096);
	b[2] = fe_wr(&blk.fe, data, 1);
	for (int i = 0; i < 8; i++)
		fe_submit(blk.q, b, 3, NULL);
	fe_flush(blk.q);
	fe_barrier(&blk.fe);
	fe_process_signal(&blk.fe.process, SIGTERM);
	fe_process_exits(&blk.fe.process, 0);
	fe_close(&blk.fe);
}

/* There is the thread that waits for signals: from then on they are blocked. */
static void wait_prepared(pid_t pid)
{
	const struct timespec moment = {.tv_nsec = 2000000};
	struct stat st = {0};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	while (stat(path, &st) == 0 && st.st_nlink < 4) /* ., .., two threads */
		nanosleep(&moment, NULL);
}

static void ends_while_it_connects(const struct fe_mode *m)
{
	(void)m;
	serve_file();
	nbd_server_hang(&server);
	fe_process_start(&blk.fe.process, -1, FE_ARGS("block", server.uri, "--socket-path=/nowhere/s"));
	wait_prepared(blk.fe.process.pid);
	fe_process_signal(&blk.fe.process, SIGTERM);
	fe_process_exits(&blk.fe.process, 0);
}

static void refused(const char *uri, const char *why)
{
	char option[256];

	snprintf(option, sizeof(option), "--nbd=%s", uri);
	fe_process_start(&blk.fe.process, -1, FE_ARGS("block", option, "--socket-path=/nowhere/s"));
	fe_process_logs(&blk.fe.process, option);
	fe_process_logs(&blk.fe.process, why);
	fe_process_exits(&blk.fe.process, 1);
}

static void bad_servers_are_refused(const struct fe_mode *m)
{
	(void)m;
	refused("nonsense", "");
	refused("", "");
	refused("nbd+unix:///?socket=/nowhere/nbd", "No such file");
	refused("nbd://127.0.0.1:1/", "refused");
}

int main(void)
{
	fe_each_mode("NBD: reads and writes", reads_and_writes);
	fe_each_mode("NBD: pieces of all lengths", pieces_of_all_lengths);
	fe_each_layout("NBD: discards and zeroes", discards_and_zeroes);
	fe_case("NBD: read-only", read_only, &split);
	fe_case("NBD: a poor server", a_poor_server, &split);
	fe_case("NBD: large blocks", large_blocks, &split);
	fe_case("NBD: errors are answers", errors_are_answers, &split);
	fe_each_layout("NBD: gives up and comes back", gives_up_and_comes_back);
	fe_each_layout("NBD: another size", another_size);
	fe_case("NBD: the size by command", size_by_command, &split);
	fe_each_layout("NBD: ends without a server", ends_without_a_server);
	fe_each_layout("NBD: ends with a server that hangs", ends_with_a_hung_server);
	fe_case("NBD: ends while a server that hangs is asked", ends_while_it_connects, &split);
	fe_case("NBD: bad servers are refused", bad_servers_are_refused, &split);
	return tap_done();
}
