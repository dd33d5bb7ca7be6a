/* SPDX-License-Identifier: MIT */
/*
 * The block device with an NBD server behind TCP and TLS: large and small requests, threads, a server that is killed, and
 * what must be refused: a key that is not the server's, a certificate that nobody we trust has signed, a server that has
 * no TLS, and one that insists on it.
 */
#include "block-rig.h"
#include "block-slots.h"
#include "nbd-server.h"

#include <arpa/inet.h>

static struct nbd_server server;
static const struct fe_mode split = {0};
static const char *keys; /* directory */

static void run_in(const char *dir, const char *script)
{
	char command[1024];

	snprintf(command, sizeof(command), "cd %s && exec 2>/dev/null && %s", dir, script);
	if (system(command) != 0)
		FAIL("failed: %s", command);
}

static const char *psk(const char *name, const char *key)
{
	static char path[2][160];
	static unsigned n;
	char *out = path[n++ % 2];
	FILE *f;

	keys = keys ? keys : fe_tmpdir();
	snprintf(out, sizeof(path[0]), "%s/%s.psk", keys, name);
	f = fopen(out, "we");
	CHECK(f && fprintf(f, "guest:%s\n", key) > 0 && fclose(f) == 0);
	return out;
}

/* A directory with an authority's certificate, and a server's that it has signed. */
static const char *certificates(void)
{
	const char *dir = fe_tmpdir();

	nbd_server_needs("openssl");
	run_in(dir, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 "
		    "-subj /CN=authority -keyout ca-key.pem -out ca-cert.pem");
	run_in(dir,
		"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		"-subj /CN=server -keyout server-key.pem -out req.pem && echo subjectAltName=IP:127.0.0.1 >ext && "
		"openssl x509 -req -days 9 -in req.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -extfile ext "
		"-out server-cert.pem");
	return dir;
}

static void needs_tls(void)
{
	nbd_server_needs("nbdkit");
	if (system("nbdkit --dump-config | grep -q tls=yes") != 0)
		tap_skip("nbdkit has no TLS");
}

/* What the server needs besides a disk. */
struct setting {
	const char *args[3];
};

static struct setting with_psk(bool tcp)
{
	static char option[192], rest[192];
	const char *path = psk("right", "00112233445566778899aabbccddeeff");

	needs_tls();
	snprintf(option, sizeof(option), "--tls-psk=%s", path);
	snprintf(rest, sizeof(rest), "?tls-psk-file=%s", path);
	if (tcp) {
		nbd_server_init_tcp(&server, "nbds://guest@", rest);
	} else {
		nbd_server_init(&server);
		snprintf(server.uri, sizeof(server.uri),
			"--nbd=nbds+unix://guest@/?socket=%s&tls-psk-file=%s", server.socket, path);
	}
	return (struct setting){{"--tls=require", option}};
}

static struct setting with_certificates(void)
{
	static char option[192], rest[192];
	const char *dir = certificates();

	needs_tls();
	snprintf(option, sizeof(option), "--tls-certificates=%s", dir);
	snprintf(rest, sizeof(rest), "?tls-certificates=%s", dir);
	nbd_server_init_tcp(&server, "nbds://", rest);
	return (struct setting){{"--tls=require", option}};
}

static struct setting without(void)
{
	nbd_server_needs("nbdkit");
	nbd_server_init_tcp(&server, "nbd://", "");
	return (struct setting){{"--tls=off", "--tls=off"}};
}

/* --- requests of all lengths --- */

static void lengths(const struct fe_mode *m, struct setting s)
{
	uint8_t *data;

	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "memory", "4M"));
	fe_start(&blk.fe, m, FE_ARGS("block", server.uri));
	blk.q = fe_queue_up(&blk.fe, 0, 128);
	data = blk_guest(MIB);
	for (uint32_t len = 512; len <= MIB; len *= 2) {
		blk_pattern(data, len, len);
		blk_wr_ok(3, data, len);
		blk_rd_ok(3, data, len);
	}
	blk_answers(blk_ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false), VIRTIO_BLK_S_OK);
	blk_still_works();
	fe_end(&blk.fe);
}

static void lengths_tcp(const struct fe_mode *m)
{
	lengths(m, without());
}

static void lengths_psk(const struct fe_mode *m)
{
	lengths(m, with_psk(false));
}

static void lengths_certificates(const struct fe_mode *m)
{
	lengths(m, with_certificates());
}

/* --- load, and a server that goes and comes back --- */

static void under_load(const struct fe_mode *m, struct setting s)
{
	load_image();
	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "file", load.image));
	snprintf(load.source, sizeof(load.source), "%s", server.uri);
	load_start(m, 2, FE_ARGS("--threads=2"));
	for (int round = 0; round < 3; round++) {
		load_run(300 + load_rnd(300));
		load_fill();
		nbd_server_kill(&server, SIGKILL);
		load_collect();
		load_fill();
		nbd_server_restart(&server);
		load_run(1);
	}
	load_end();
}

static void load_tcp(const struct fe_mode *m)
{
	under_load(m, without());
}

static void load_psk(const struct fe_mode *m)
{
	under_load(m, with_psk(true));
}

static void load_certificates(const struct fe_mode *m)
{
	under_load(m, with_certificates());
}

/* --- refused --- */

static void refused(const char *uri, const char *why)
{
	fe_process_start(&blk.fe.process, -1, FE_ARGS("block", uri, "--socket-path=/nowhere/s"));
	fe_process_logs(&blk.fe.process, uri);
	fe_process_logs(&blk.fe.process, why);
	fe_process_exits(&blk.fe.process, 1);
}

static void a_wrong_key(const struct fe_mode *m)
{
	struct setting s = with_psk(true);
	char uri[256];

	(void)m;
	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "memory", "4M"));
	snprintf(uri, sizeof(uri), "--nbd=nbds://guest@127.0.0.1:%u/?tls-psk-file=%s", ntohs(server.port),
		psk("wrong", "ffeeddccbbaa99887766554433221100"));
	refused(uri, "gnutls_handshake");
}

static void an_unknown_authority(const struct fe_mode *m)
{
	struct setting s = with_certificates();
	char uri[256];

	(void)m;
	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "memory", "4M"));
	snprintf(uri, sizeof(uri), "--nbd=nbds://127.0.0.1:%u/?tls-certificates=%s", ntohs(server.port),
		certificates());
	refused(uri, "certificate verification");
}

/* What somebody in between could make of it. */
static void no_tls_where_it_is_asked_for(const struct fe_mode *m)
{
	struct setting s = without();
	char uri[256];

	(void)m;
	needs_tls();
	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "memory", "4M"));
	snprintf(uri, sizeof(uri), "--nbd=nbds://guest@127.0.0.1:%u/?tls-psk-file=%s", ntohs(server.port),
		psk("right", "00112233445566778899aabbccddeeff"));
	refused(uri, "server refused TLS");
}

static void tls_where_it_is_not(const struct fe_mode *m)
{
	struct setting s = with_psk(true);
	char uri[256];

	(void)m;
	nbd_server_start(&server, FE_ARGS("nbdkit", s.args[0], s.args[1], "memory", "4M"));
	snprintf(uri, sizeof(uri), "--nbd=nbd://127.0.0.1:%u/", ntohs(server.port));
	refused(uri, "requires TLS");
}

int main(void)
{
	fe_each_layout("NBD over TCP: requests of all lengths", lengths_tcp);
	fe_each_layout("NBD over TLS with a key: requests of all lengths", lengths_psk);
	fe_each_layout("NBD over TLS with certificates: requests of all lengths", lengths_certificates);
	fe_each_layout("NBD over TCP: the server is killed under load", load_tcp);
	fe_each_layout("NBD over TLS with a key: the server is killed under load", load_psk);
	fe_each_layout("NBD over TLS with certificates: the server is killed under load", load_certificates);
	fe_case("NBD over TLS: a wrong key", a_wrong_key, &split);
	fe_case("NBD over TLS: an unknown authority", an_unknown_authority, &split);
	fe_case("NBD over TLS: a server without", no_tls_where_it_is_asked_for, &split);
	fe_case("NBD without TLS: a server that insists on it", tls_where_it_is_not, &split);
	return tap_done();
}
