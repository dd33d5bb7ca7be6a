/* SPDX-License-Identifier: MIT */
/* The driver's side of the crypto device; see crypto-driver.h. virtio 1.3, 5.9.7. */
#include "crypto-driver.h"

enum { HEADER = 24, LEGACY_FIELDS = 48, CONTROL_HEADER = 16, LEGACY_CONTROL_FIELDS = 56 };

struct bytes hex(const char *text)
{
	struct bytes b = {.n = strlen(text) / 2};

	CHECK(b.n <= sizeof(b.p));
	for (size_t i = 0; i < b.n; i++) {
		unsigned v;

		CHECK_EQ(sscanf(text + 2 * i, "%2x", &v), 1);
		b.p[i] = (uint8_t)v;
	}
	return b;
}

void driver_ready(struct driver *d)
{
	fe_handshake(&d->fe);
	fe_memory_default(&d->fe);
	CHECK_EQ(d->fe.offered & 0xffffff, 0x3f);
	CHECK_EQ(d->fe.queue_num, DATA_QUEUES);
	for (unsigned i = 0; i < DATA_QUEUES; i++)
		d->data[i] = fe_queue_up(&d->fe, i, 64);
	d->control = fe_queue_up(&d->fe, CONTROL, 64);
	d->out = fe_alloc(&d->fe, AREA, 64, NULL);
	d->in = fe_alloc(&d->fe, AREA, 64, NULL);
	d->pieces = 1;
}

void driver_up(struct driver *d, const struct fe_mode *m, enum driver_mode mode, const char *extra)
{
	static const uint64_t features[DRIVER_MODES] = {[REVISION_1] = 1, [ALONE] = 0x3f};

	fe_init(&d->fe, m);
	d->mode = mode;
	d->fe.device_mask = features[mode];
	fe_spawn(&d->fe, FE_ARGS("crypto", "--num-queues=2", "--max-size=16K", extra));
	driver_ready(d);
}

void begin(struct driver *d)
{
	d->b.n = 0;
}

void add(struct driver *d, const void *p, size_t n)
{
	CHECK(d->b.n + n <= sizeof(d->b.p));
	if (n)
		memcpy(d->b.p + d->b.n, p, n);
	d->b.n += n;
}

void add32(struct driver *d, uint32_t v)
{
	uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};

	add(d, le, sizeof(le));
}

static void add_bytes(struct driver *d, const struct bytes *b)
{
	if (b)
		add(d, b->p, b->n);
}

static uint32_t len(const struct bytes *b)
{
	return b ? (uint32_t)b->n : 0;
}

/* Zeros up to n bytes of the request. */
static void fill(struct driver *d, size_t n)
{
	while (d->b.n < n)
		add(d, "", 1);
}

uint32_t transact(struct driver *d, struct fe_queue *q, size_t n)
{
	struct vring_driver_buf v[40];
	unsigned nv = 0;

	memcpy(d->out, d->b.p, d->b.n);
	memset(d->in, 0xee, AREA);
	for (unsigned side = 0; side < 2; side++) {
		size_t total = side ? n : d->b.n, at = 0;

		for (unsigned i = 0; at < total; i++) {
			size_t l = i + 1 == d->pieces ? total - at
						      : MIN(total - at, total / d->pieces + 1 + i % 3);

			v[nv++] = side ? fe_wr(&d->fe, d->in + at, (uint32_t)l)
				       : fe_rd(&d->fe, d->out + at, (uint32_t)l);
			at += l;
		}
	}
	return fe_transact(q, v, nv);
}

uint8_t finish(struct driver *d, struct fe_queue *q, size_t n)
{
	uint32_t used = transact(d, q, n + 1);

	CHECK(used >= 1 && used <= n + 1);
	d->used = used - 1;
	return d->in[n];
}

/* --- sessions --- */

static void add_cipher(struct driver *d, const struct session *s)
{
	add32(d, s->algo);
	add32(d, len(s->key));
	add32(d, s->encrypt ? VIRTIO_CRYPTO_OP_ENCRYPT : VIRTIO_CRYPTO_OP_DECRYPT);
}

static void add_sym(struct driver *d, const struct session *s)
{
	size_t at = d->b.n;

	if (s->chain) {
		add32(d, s->hash_first ? 1 : 2);
		add32(d, s->keyed ? 2 : 1);
	}
	add_cipher(d, s);
	add32(d, 0);
	if (s->chain) {
		add32(d, s->digest);
		add32(d, s->result_len);
		add32(d, len(s->auth));
	}
	fill(d, at + 48);
	add32(d, s->chain ? VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING : VIRTIO_CRYPTO_SYM_OP_CIPHER);
	add32(d, 0);
}

static void add_session(struct driver *d, const struct session *s)
{
	switch (s->service) {
	case VIRTIO_CRYPTO_SERVICE_CIPHER:
		add_sym(d, s);
		return;
	case VIRTIO_CRYPTO_SERVICE_HASH:
		add32(d, s->algo);
		add32(d, s->result_len);
		return;
	case VIRTIO_CRYPTO_SERVICE_MAC:
		add32(d, s->algo);
		add32(d, s->result_len);
		add32(d, len(s->auth));
		add32(d, 0);
		return;
	case VIRTIO_CRYPTO_SERVICE_AEAD:
		add32(d, s->algo);
		add32(d, len(s->key));
		add32(d, s->tag_len);
		add32(d, 0);
		add32(d, s->encrypt ? VIRTIO_CRYPTO_OP_ENCRYPT : VIRTIO_CRYPTO_OP_DECRYPT);
		add32(d, 0);
		return;
	default:
		add32(d, s->algo);
		add32(d, s->private ? 2 : 1);
		add32(d, len(s->key));
		add32(d, s->para[0]);
		add32(d, s->para[1]);
		fill(d, CONTROL_HEADER + LEGACY_CONTROL_FIELDS);
		return;
	}
}

uint32_t session_open(struct driver *d, struct session *s)
{
	struct virtio_crypto_session_input input;
	bool asym = s->service == VIRTIO_CRYPTO_SERVICE_AKCIPHER;

	s->id = 0;
	if (d->mode == ALONE)
		return OK;
	begin(d);
	add32(d, s->service << 8 | (asym ? 4 : 2));
	add32(d, s->algo);
	fill(d, CONTROL_HEADER);
	add_session(d, s);
	if (d->mode == LEGACY)
		fill(d, CONTROL_HEADER + LEGACY_CONTROL_FIELDS);
	add_bytes(d, s->key);
	add_bytes(d, s->auth);
	CHECK_EQ(transact(d, d->control, sizeof(input)), sizeof(input));
	memcpy(&input, d->in, sizeof(input));
	s->id = input.session_id;
	CHECK((s->id != 0) == (input.status == OK));
	return input.status;
}

uint8_t session_close(struct driver *d, struct session *s)
{
	if (d->mode == ALONE)
		return OK;
	begin(d);
	add32(d, s->service << 8 | (s->service == VIRTIO_CRYPTO_SERVICE_AKCIPHER ? 5 : 3));
	fill(d, CONTROL_HEADER);
	add(d, &s->id, sizeof(s->id));
	if (d->mode == LEGACY)
		fill(d, CONTROL_HEADER + LEGACY_CONTROL_FIELDS);
	CHECK_EQ(transact(d, d->control, 1), 1);
	return d->in[0];
}

/* --- requests --- */

static void add_chain_fields(struct driver *d, const struct work *w)
{
	add32(d, w->cipher_at);
	add32(d, w->cipher_len);
	add32(d, w->hash_at);
	add32(d, w->hash_len);
	add32(d, len(w->aad));
	add32(d, (uint32_t)w->result_len);
	add32(d, 0);
}

static void add_lengths(struct driver *d, const struct work *w)
{
	add32(d, len(w->iv));
	add32(d, len(w->src));
	add32(d, (uint32_t)w->dst_len);
}

static void add_sym_fields(struct driver *d, const struct session *s, const struct work *w)
{
	bool alone = d->mode == ALONE;

	if (alone && s->chain) {
		add32(d, s->hash_first ? 1 : 2);
		add32(d, len(w->aad));
	}
	if (alone)
		add_cipher(d, s);
	if (alone && s->chain) {
		add32(d, s->digest);
		add32(d, len(s->auth));
		add32(d, s->keyed ? 2 : 1);
	}
	add_lengths(d, w);
	if (s->chain)
		add_chain_fields(d, w);
	fill(d, HEADER + (alone ? 72 : 40));
	add32(d, s->chain ? VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING : VIRTIO_CRYPTO_SYM_OP_CIPHER);
	if (!alone)
		add32(d, 0);
}

static void add_aead_fields(struct driver *d, const struct session *s, const struct work *w)
{
	if (d->mode == ALONE)
		add_cipher(d, s);
	add32(d, len(w->iv));
	if (d->mode == ALONE)
		add32(d, (uint32_t)(w->tag_len ? w->tag_len : s->tag_len));
	add32(d, len(w->aad));
	add32(d, len(w->src));
	add32(d, (uint32_t)w->dst_len);
	if (d->mode == ALONE)
		return;
	add32(d, (uint32_t)w->tag_len);
	add32(d, 0);
}

static void add_digest_fields(struct driver *d, const struct session *s, const struct work *w)
{
	if (d->mode == ALONE)
		add32(d, s->algo);
	if (d->mode == ALONE && s->service == VIRTIO_CRYPTO_SERVICE_MAC)
		add32(d, len(s->auth));
	add32(d, len(w->src));
	add32(d, (uint32_t)w->result_len);
	if (d->mode == ALONE && s->service == VIRTIO_CRYPTO_SERVICE_HASH)
		add32(d, 0);
}

static void add_asym_fields(struct driver *d, const struct session *s, const struct work *w)
{
	if (d->mode == ALONE) {
		add32(d, s->algo);
		add32(d, s->private ? 2 : 1);
		add32(d, len(s->key));
		add32(d, s->para[0]);
		add32(d, s->para[1]);
	}
	add32(d, len(w->src));
	add32(d, w->more ? len(w->more) : (uint32_t)w->dst_len);
}

void add_fields(struct driver *d, const struct session *s, uint32_t opcode, const struct work *w)
{
	begin(d);
	add32(d, opcode);
	add32(d, s->algo);
	add(d, &s->id, sizeof(s->id));
	add32(d, d->mode == REVISION_1 ? 1 : 0); /* of a session */
	add32(d, 0);
	switch (opcode >> 8) {
	case VIRTIO_CRYPTO_SERVICE_CIPHER:
		add_sym_fields(d, s, w);
		break;
	case VIRTIO_CRYPTO_SERVICE_AEAD:
		add_aead_fields(d, s, w);
		break;
	case VIRTIO_CRYPTO_SERVICE_AKCIPHER:
		add_asym_fields(d, s, w);
		break;
	default:
		add_digest_fields(d, s, w);
		break;
	}
	if (d->mode == LEGACY)
		fill(d, HEADER + LEGACY_FIELDS);
}

uint8_t session_run(
	struct driver *d, struct fe_queue *q, const struct session *s, uint32_t opcode, const struct work *w)
{
	bool aad_first = d->mode == ALONE && s->chain;

	add_fields(d, s, opcode, w);
	if (d->mode == ALONE) {
		add_bytes(d, s->key);
		add_bytes(d, s->auth);
	}
	add_bytes(d, w->iv);
	if (aad_first)
		add_bytes(d, w->aad);
	add_bytes(d, w->src);
	if (!aad_first)
		add_bytes(d, w->aad);
	add_bytes(d, w->more);
	return finish(d, q, w->more ? 0 : w->dst_len + w->result_len);
}

struct session aes_session(const struct bytes *key, bool encrypt)
{
	return (struct session){.service = VIRTIO_CRYPTO_SERVICE_CIPHER,
		.algo = VIRTIO_CRYPTO_CIPHER_AES_CBC,
		.encrypt = encrypt,
		.key = key};
}
