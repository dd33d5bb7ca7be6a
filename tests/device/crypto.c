/* SPDX-License-Identifier: MIT */
/*
 * The crypto device: sessions, by the control queue and by QEMU's messages; drivers that break the rules; pauses, limits.
 * What the algorithms give is in crypto-answers.c.
 */
#include "crypto-driver.h"

#include <fcntl.h>

#include "../../devices/crypto-wire.h"
#include "crypto-vectors.h"

static const uint32_t encrypt = VIRTIO_CRYPTO_CIPHER_ENCRYPT;

/* --- hostile --- */

static void broken_sessions(struct driver *d)
{
	struct bytes key = hex(KEY_128), none = {.n = 0}, odd = key;
	struct session good = aes_session(&key, true), s = good, over;

	odd.n = 15;
	s.key = &odd;
	CHECK_EQ(session_open(d, &s), ERR);
	s = good;
	s.algo = VIRTIO_CRYPTO_CIPHER_ZUC_EEA3;
	CHECK_EQ(session_open(d, &s), NOTSUPP);
	s.algo = 0xfffffff0;
	CHECK_EQ(session_open(d, &s), NOTSUPP);
	s = good;
	s.service = 7;
	CHECK_EQ(session_open(d, &s), NOTSUPP);
	s.service = VIRTIO_CRYPTO_SERVICE_AKCIPHER;
	s.algo = VIRTIO_CRYPTO_AKCIPHER_RSA;
	s.para[0] = VIRTIO_CRYPTO_RSA_PKCS1_PADDING;
	CHECK_EQ(session_open(d, &s), ERR); /* no key in DER */
	s.key = &none;
	CHECK_EQ(session_open(d, &s), ERR);
	for (unsigned i = 0; i < 4; i++) {
		s = good;
		CHECK_EQ(session_open(d, &s), OK);
	}
	over = good;
	CHECK_EQ(session_open(d, &over), d->mode == LEGACY ? ERR : NOSPC);
	CHECK_EQ(session_close(d, &s), OK);
	CHECK_EQ(session_close(d, &s), ERR);
	s.id = 0;
	CHECK_EQ(session_close(d, &s), ERR);
	s.id = UINT64_MAX;
	CHECK_EQ(session_close(d, &s), ERR);
	CHECK_EQ(session_open(d, &s), OK);
}

/* Control requests that end before, or say more than, they should. */
static void broken_control(struct driver *d)
{
	static const uint32_t opcodes[] = {0x002, 0x102, 0x202, 0x302, 0x404, 0x003, 0x405, 0x777};
	uint8_t garbage[40];

	memset(garbage, 0xff, sizeof(garbage));
	for (unsigned i = 0; i < ARRAY_SIZE(opcodes); i++) {
		for (unsigned n = 0; n <= sizeof(garbage); n += 8) {
			begin(d);
			add32(d, opcodes[i]);
			add(d, garbage, 12);
			add(d, garbage, n);
			CHECK_EQ(transact(d, d->control, sizeof(struct virtio_crypto_session_input)), 16);
			CHECK(d->in[8] == ERR || d->in[8] == NOTSUPP);
		}
	}
	begin(d);
	add(d, garbage, 10);
	CHECK_EQ(transact(d, d->control, 16), 16);
	CHECK_EQ(transact(d, d->control, 0), 0);
}

static void sessions(const struct fe_mode *m)
{
	for (unsigned mode = 0; mode < ALONE; mode++) {
		struct driver d;

		driver_up(&d, m, mode, "--max-sessions=4");
		broken_control(&d);
		broken_sessions(&d);
		fe_end(&d.fe);
	}
}

/* Sends a request whose fields say something else than what follows them. */
static uint8_t lie(struct driver *d, const struct session *s, const struct work *told, size_t n)
{
	struct bytes junk = {.n = n};

	add_fields(d, s, encrypt, told);
	add(d, junk.p, junk.n);
	return finish(d, d->data[0], 64);
}

static void broken_lengths(struct driver *d, const struct session *s)
{
	static const size_t lengths[] = {65, 4096, 20000, 0x7fffffff, 0xfffffff0, 0xffffffff};
	static struct bytes iv, src;
	struct work w = {.iv = &iv, .src = &src};

	for (unsigned i = 0; i < 3 * ARRAY_SIZE(lengths); i++) {
		size_t n = lengths[i / 3];

		iv.n = i % 3 == 0 ? n : 16;
		src.n = i % 3 == 1 ? n : 64;
		w.dst_len = i % 3 == 2 ? n : 64;
		CHECK_EQ(lie(d, s, &w, s->key->n + 16 + 64),
			i % 3 == 2 && n <= 4096 ? OK : ERR); /* there may be more room */
	}
}

static void broken_requests(struct driver *d)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct session s = aes_session(&key, true), other;
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct vring_driver_buf b;

	CHECK_EQ(session_open(d, &s), OK);
	broken_lengths(d, &s);
	other = s;
	other.id++;
	if (d->mode != ALONE)
		CHECK_EQ(session_run(d, d->data[0], &other, encrypt, &w), INVSESS);
	plain.n = 63;
	CHECK_EQ(session_run(d, d->data[0], &s, encrypt, &w), ERR);
	plain.n = 64;
	w.dst_len = 63;
	CHECK_EQ(session_run(d, d->data[0], &s, encrypt, &w), ERR);
	w.dst_len = 64;
	iv.n = 12;
	CHECK_EQ(session_run(d, d->data[0], &s, encrypt, &w), ERR);
	iv.n = 16;
	/* no room for a status; nothing but a status; half a header; services and operations that are not there */
	b = fe_rd(&d->fe, d->out, 72);
	CHECK_EQ(fe_transact(d->data[0], &b, 1), 0);
	b = fe_wr(&d->fe, d->in, 1);
	CHECK_EQ(fe_transact(d->data[0], &b, 1), 1);
	CHECK_EQ(d->in[0], ERR);
	add_fields(d, &s, encrypt, &w);
	for (d->b.n = 8; d->b.n < 56; d->b.n += 8)
		CHECK(finish(d, d->data[0], 8) != OK);
	CHECK(session_run(d, d->data[0], &s, 0x500, &w) != OK);
	CHECK(session_run(d, d->data[0], &s, 0xffffff00, &w) != OK);
	CHECK(session_run(d, d->data[0], &s, 0x007, &w) != OK);
	CHECK_EQ(session_run(d, d->data[0], &s, encrypt, &w), OK);
}

static void requests(const struct fe_mode *m)
{
	for (unsigned mode = 0; mode < DRIVER_MODES; mode++) {
		struct driver d;

		driver_up(&d, m, mode, NULL);
		broken_requests(&d);
		fe_end(&d.fe);
	}
}

/* --- stateless --- */

static void broken_alone(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64), long_key = {.n = 9000};
	struct session s = aes_session(&key, true), bad = s;
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d;

	driver_up(&d, m, ALONE, "--max-sessions=1");
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK);
	bad.algo = VIRTIO_CRYPTO_CIPHER_ZUC_EEA3;
	CHECK_EQ(session_run(&d, d.data[0], &bad, encrypt, &w), NOTSUPP);
	bad = s;
	key.n = 15;
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), ERR);
	key.n = 16;
	bad.key = &long_key;
	CHECK_EQ(session_run(&d, d.data[0], &bad, encrypt, &w), ERR);
	bad.service = VIRTIO_CRYPTO_SERVICE_AKCIPHER;
	bad.algo = VIRTIO_CRYPTO_AKCIPHER_RSA;
	CHECK_EQ(session_run(&d, d.data[0], &bad, VIRTIO_CRYPTO_AKCIPHER_SIGN, &w), ERR);
	long_key.n = 0x7fffffff; /* that they are */
	add_fields(&d, &bad, VIRTIO_CRYPTO_AKCIPHER_SIGN, &w);
	CHECK_EQ(finish(&d, d.data[0], 64), ERR);
	/* of a session, although stateless ones are allowed, in the layout of sessions */
	d.mode = REVISION_1;
	CHECK_EQ(session_open(&d, &s), OK);
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK);
	CHECK_EQ(session_close(&d, &s), OK);
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), INVSESS);
	fe_end(&d.fe);
}

/* Stateless requests of a service for which that was not negotiated. */
static void not_negotiated(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d;

	driver_up(&d, m, REVISION_1, NULL);
	d.mode = ALONE;
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), NOTSUPP);
	fe_end(&d.fe);
}

/* The process's memory does not hold the keys of requests and sessions that are over. */
static bool holds(pid_t pid, const void *key, size_t n)
{
	static uint8_t chunk[1 << 20];
	char path[40], line[300];
	bool found = false;
	FILE *maps;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(mem >= 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long from, to;
		char perm[8];

		/* guest memory is shared; a sanitizer's shadow is huge */
		if (sscanf(line, "%lx-%lx %4s", &from, &to, perm) != 3 || strncmp(perm, "rw-p", 4) != 0 ||
			to - from > 1UL << 32)
			continue;
		for (; from < to; from += sizeof(chunk) - n) {
			ssize_t got = pread(mem, chunk, MIN(sizeof(chunk), to - from), (off_t)from);

			found |= got > 0 && memmem(chunk, (size_t)got, key, n);
			if (to - from <= sizeof(chunk))
				break;
		}
	}
	fclose(maps);
	close(mem);
	return found;
}

static void wiped(const struct fe_mode *m)
{
	struct bytes key = hex("a7f3095e1b64c2d8907e5d3b12fc4a86"), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d;

	driver_up(&d, m, ALONE, NULL);
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK);
	CHECK(!holds(d.fe.process.pid, key.p, key.n));
	d.mode = REVISION_1;
	CHECK_EQ(session_open(&d, &s), OK);
	for (unsigned i = 0; i < DATA_QUEUES; i++)
		CHECK_EQ(session_run(&d, d.data[i], &s, encrypt, &w), OK);
	CHECK(holds(d.fe.process.pid, key.p, key.n)); /* that we would find it */
	CHECK_EQ(session_close(&d, &s), OK);
	for (unsigned i = 0; i < DATA_QUEUES; i++)
		CHECK_EQ(session_run(&d, d.data[i], &s, encrypt, &w), INVSESS);
	CHECK(!holds(d.fe.process.pid, key.p, key.n));
	fe_end(&d.fe);
}

/* --- QEMU --- */

/* Features never accepted, rings never enabled, sessions by message: in both layouts. */
static void qemu(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64),
		     coded = hex(cipher_vectors[1].cipher);
	static struct fe_msg reply;
	struct crypto_message_7 m7 = {.session_id = 5};
	struct crypto_message_8 m8 = {.op_code = VIRTIO_CRYPTO_CIPHER_CREATE_SESSION};
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d = {.pieces = 2};

	fe_init(&d.fe, m);
	d.fe.unacked = true;
	d.fe.device_mask = 0;
	fe_spawn(&d.fe, FE_ARGS("crypto", "--num-queues=2", "--max-size=16K"));
	fe_handshake(&d.fe);
	fe_set_features(&d.fe, BIT(FE_F_PROTOCOL));
	fe_memory_default(&d.fe);
	d.data[0] = fe_queue_make(&d.fe, 0, 64, FE_FRESH);
	fe_queue_send(d.data[0], 0);
	d.out = fe_alloc(&d.fe, AREA, 64, NULL);
	d.in = fe_alloc(&d.fe, AREA, 64, NULL);
	m7.sym.cipher_alg = VIRTIO_CRYPTO_CIPHER_AES_CBC;
	m7.sym.key_len = 16;
	m7.sym.op_type = VIRTIO_CRYPTO_SYM_OP_CIPHER;
	m7.sym.direction = VIRTIO_CRYPTO_OP_ENCRYPT;
	memcpy(m7.sym.key, key.p, 16);
	m8.u.sym = m7.sym;
	for (unsigned layout = 0; layout < 2; layout++) {
		int64_t id;

		fe_ask(&d.fe, 26, layout ? (void *)&m8 : &m7, layout ? sizeof(m8) : sizeof(m7), NULL, 0,
			&reply, layout ? sizeof(m8) : sizeof(m7));
		memcpy(&id, reply.body + (layout ? offsetof(struct crypto_message_8, session_id) : 0),
			sizeof(id));
		CHECK(id > 0);
		s.id = (uint64_t)id;
		CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK);
		CHECK_MEM(d.in, coded.p, 64);
		fe_set_u64(&d.fe, 27, s.id);
		CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), INVSESS);
	}
	m7.sym.key_len = 65; /* more than the message holds */
	fe_ask(&d.fe, 26, &m7, sizeof(m7), NULL, 0, &reply, sizeof(m7));
	memcpy(&m7, reply.body, sizeof(m7));
	CHECK_EQ(m7.session_id, -1);
	fe_end(&d.fe);
}

/* --- stop, reconnect --- */

static void pause_and_reset(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64),
		     coded = hex(cipher_vectors[1].cipher);
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d;
	uint32_t base;

	driver_up(&d, m, REVISION_1, NULL);
	CHECK_EQ(session_open(&d, &s), OK);
	base = fe_queue_stop(d.data[0]);
	fe_queue_send(d.data[0], base);
	fe_queue_enable(d.data[0], true);
	CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK); /* the session is still there */
	CHECK_MEM(d.in, coded.p, 64);
	fe_end(&d.fe);
}

/* The driver lets go and comes back on the same connection, as in User Mode Linux: rings disabled, then set up anew. */
static void rebind(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d;

	driver_up(&d, m, LEGACY, NULL);
	for (unsigned round = 0; round < 3; round++) {
		CHECK_EQ(session_open(&d, &s), OK);
		CHECK_EQ(session_run(&d, d.data[1], &s, encrypt, &w), OK);
		for (unsigned i = 0; i <= CONTROL; i++)
			fe_queue_enable(i == CONTROL ? d.control : d.data[i], false);
		for (unsigned i = 0; i <= CONTROL; i++) {
			struct fe_queue *q = i == CONTROL ? d.control : d.data[i];

			fe_queue_clear(q, FE_FRESH);
			fe_queue_send(q, m->packed ? 0x80008000 : 0);
			fe_queue_enable(q, true);
		}
	}
	fe_end(&d.fe);
}

enum { LOAD = 32 };

/* One request of 64 bytes in pieces of memory of its own; the status comes behind the result. */
static void load(
	struct driver *d, struct fe_queue *q, const struct session *s, const struct work *w, uint8_t *memory)
{
	uint8_t *in = memory + 256;
	struct vring_driver_buf v[2] = {fe_rd(&d->fe, memory, 0), fe_wr(&d->fe, in, 65)};

	add_fields(d, s, encrypt, w);
	add(d, w->iv->p, w->iv->n);
	add(d, w->src->p, w->src->n);
	memcpy(memory, d->b.p, d->b.n);
	v[0].len = (uint32_t)d->b.n;
	in[64] = 0xee;
	fe_submit(q, v, 2, in);
}

/* A session ends while two threads work with it: a request is done rightly, or has no session. */
static void closed_under_load(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64),
		     coded = hex(cipher_vectors[1].cipher);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	unsigned done = 0;
	struct driver d;
	uint8_t *memory;

	driver_up(&d, m, REVISION_1, "--threads=3");
	memory = fe_alloc(&d.fe, LOAD * 512, 64, NULL);
	for (unsigned round = 0; round < 100; round++) {
		struct session s = aes_session(&key, true);

		CHECK_EQ(session_open(&d, &s), OK);
		for (unsigned i = 0; i < LOAD; i++)
			load(&d, d.data[i % 2], &s, &w, memory + i * 512);
		fe_flush(d.data[0]);
		fe_flush(d.data[1]);
		CHECK_EQ(session_close(&d, &s), OK);
		for (unsigned i = 0; i < LOAD; i++) {
			void *cookie;
			const uint8_t *in;

			fe_wait(d.data[i % 2], &cookie);
			in = cookie;
			CHECK(in[64] == OK || in[64] == INVSESS);
			if (in[64] == INVSESS)
				continue;
			CHECK_MEM(in, coded.p, coded.n);
			done++;
		}
	}
	tap_note("%u of %u requests were in time", done, 100 * LOAD);
	fe_end(&d.fe);
}

/* Sessions belong to the connection. */
static void reconnect(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct session s = aes_session(&key, true), old;
	struct work w = {.iv = &iv, .src = &plain, .dst_len = 64};
	struct driver d = {.mode = LEGACY, .pieces = 1};
	char path[300];

	snprintf(path, sizeof(path), "%s/socket", fe_tmpdir());
	fe_init(&d.fe, m);
	d.fe.device_mask = 0;
	fe_spawn_path(&d.fe, path, FE_ARGS("crypto", "--num-queues=2", "--max-sessions=1"));
	for (unsigned round = 0; round < 3; round++) {
		struct fe_process process = d.fe.process;

		if (round) {
			fe_init(&d.fe, m);
			d.fe.process = process;
			d.fe.device_mask = 0;
			fe_connect(&d.fe, path);
		}
		driver_ready(&d);
		old = s;
		CHECK_EQ(session_open(&d, &s), OK); /* there is only one at a time */
		CHECK_EQ(session_run(&d, d.data[0], &s, encrypt, &w), OK);
		if (round)
			CHECK_EQ(session_run(&d, d.data[1], &old, encrypt, &w), INVSESS);
		fe_close(&d.fe);
	}
	fe_process_signal(&d.fe.process, SIGTERM);
	fe_process_exits(&d.fe.process, 0);
}

/* --- limits --- */

/* Milliseconds that n requests take with this limit, over both queues. */
static int64_t limited(const struct fe_mode *m, const char *limit, unsigned n)
{
	static struct bytes plain = {.n = 4096};
	struct bytes key = hex(KEY_128), iv = hex(IV_128);
	struct session s = aes_session(&key, true);
	struct work w = {.iv = &iv, .src = &plain, .dst_len = plain.n};
	struct driver d;
	int64_t start;

	driver_up(&d, m, LEGACY, limit);
	CHECK_EQ(session_open(&d, &s), OK);
	start = fe_now_ms();
	for (unsigned i = 0; i < n; i++)
		CHECK_EQ(session_run(&d, d.data[i % 2], &s, encrypt, &w), OK);
	start = fe_now_ms() - start;
	fe_end(&d.fe);
	return start;
}

static void limited_requests(const struct fe_mode *m)
{
	CHECK(limited(m, "--iops=50", 20) >= 200); /* five in each tenth of a second */
}

static void limited_bytes(const struct fe_mode *m)
{
	CHECK(limited(m, "--bps=120K", 12) >= 200); /* 12 KiB in each tenth of a second */
}

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("crypto", row[0], "--socket-path=x"));
	fe_process_logs(&p, row[1]);
	CHECK(fe_process_wait(&p) != 0);
}

/* An administrator has taken all algorithms away. */
static void nothing_left(const struct fe_mode *m)
{
	char path[300];
	struct fe_process p;
	FILE *f;

	(void)m;
	snprintf(path, sizeof(path), "%s/openssl.cnf", fe_tmpdir());
	f = fopen(path, "we");
	CHECK(f != NULL);
	fputs("openssl_conf = a\n[a]\nalg_section = b\n[b]\ndefault_properties = provider=none\n", f);
	fclose(f);
	setenv("OPENSSL_CONF", path, 1);
	fe_process_start(&p, -1, FE_ARGS("crypto", "--socket-path=x"));
	fe_process_logs(&p, "none of the algorithms");
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][2] = {
		{"--num-queues=0", "--num-queues=0"},
		{"--num-queues=17", "--num-queues=17"},
		{"--max-sessions=100000", "--max-sessions=100000"},
		{"--max-size=1", "--max-size=1"},
	};

	fe_each_layout("broken sessions", sessions);
	fe_each_mode("broken requests", requests);
	fe_each_layout("broken stateless requests", broken_alone);
	fe_case("stateless mode that was not negotiated", not_negotiated, NULL);
	fe_case("keys are wiped", wiped, NULL);
	fe_case("as QEMU does it", qemu, NULL);
	fe_each_layout("pause", pause_and_reset);
	fe_each_layout("driver comes back", rebind);
	fe_each_layout("sessions end under load", closed_under_load);
	fe_case("sessions end with the connection", reconnect, NULL);
	fe_case("no algorithms", nothing_left, NULL);
	fe_case("requests are limited", limited_requests, NULL);
	fe_case("bytes are limited", limited_bytes, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
