/* SPDX-License-Identifier: MIT */
/*
 * The crypto device: every algorithm against known answers, with the data in one piece and in many; sessions, by the control
 * queue and by QEMU's messages; drivers that break the rules.
 */
#include "frontend.h"

#include <linux/virtio_crypto.h>

#include "../../devices/crypto-wire.h"
#include "crypto-vectors.h"

enum { DATA_QUEUES = 2, CONTROL = DATA_QUEUES, AREA = 16384 };
enum {
	OK = VIRTIO_CRYPTO_OK,
	ERR = VIRTIO_CRYPTO_ERR,
	BADMSG = VIRTIO_CRYPTO_BADMSG,
	NOTSUPP = VIRTIO_CRYPTO_NOTSUPP
};

struct bytes {
	uint8_t p[4096];
	size_t n;
};

struct driver {
	struct fe fe;
	struct fe_queue *data[DATA_QUEUES], *control;
	uint8_t *out, *in; /* device-readable and device-writable memory */
	struct bytes b;	   /* the request being made */
	unsigned pieces;
};

static struct bytes hex(const char *text)
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

static void driver_up(struct driver *d, const struct fe_mode *m, const char *extra)
{
	fe_start(&d->fe, m, FE_ARGS("crypto", "--num-queues=2", "--max-size=16K", extra));
	CHECK_EQ(d->fe.queue_num, DATA_QUEUES);
	for (unsigned i = 0; i < DATA_QUEUES; i++)
		d->data[i] = fe_queue_up(&d->fe, i, 64);
	d->control = fe_queue_up(&d->fe, CONTROL, 64);
	d->out = fe_alloc(&d->fe, AREA, 64, NULL);
	d->in = fe_alloc(&d->fe, AREA, 64, NULL);
	d->pieces = 1;
}

static void begin(struct driver *d)
{
	d->b.n = 0;
}

static void add(struct driver *d, const void *p, size_t n)
{
	CHECK(d->b.n + n <= sizeof(d->b.p));
	memcpy(d->b.p + d->b.n, p, n);
	d->b.n += n;
}

/* Sends what was made; n bytes come back in d->in. In pieces of odd sizes; the value is the used length. */
static uint32_t transact(struct driver *d, struct fe_queue *q, size_t n)
{
	struct vring_driver_buf v[40];
	unsigned nv = 0;

	memcpy(d->out, d->b.p, d->b.n);
	memset(d->in, 0xee, AREA);
	for (unsigned side = 0; side < 2; side++) {
		size_t total = side ? n : d->b.n, at = 0;

		for (unsigned i = 0; at < total; i++) {
			size_t len = i + 1 == d->pieces ? total - at
							: MIN(total - at, total / d->pieces + 1 + i % 3);

			v[nv++] = side ? fe_wr(&d->fe, d->in + at, (uint32_t)len)
				       : fe_rd(&d->fe, d->out + at, (uint32_t)len);
			at += len;
		}
	}
	return fe_transact(q, v, nv);
}

/* --- sessions --- */

static uint32_t create(struct driver *d, const struct virtio_crypto_op_ctrl_req *req, const struct bytes *key,
	const struct bytes *auth, uint64_t *id)
{
	struct virtio_crypto_session_input input;

	begin(d);
	add(d, req, sizeof(*req));
	if (key)
		add(d, key->p, key->n);
	if (auth)
		add(d, auth->p, auth->n);
	CHECK_EQ(transact(d, d->control, sizeof(input)), sizeof(input));
	memcpy(&input, d->in, sizeof(input));
	*id = input.session_id;
	CHECK((*id != 0) == (input.status == OK));
	return input.status;
}

static uint8_t destroy(struct driver *d, uint32_t opcode, uint64_t id)
{
	struct virtio_crypto_op_ctrl_req req = {.header.opcode = opcode};

	req.u.destroy_session.session_id = id;
	begin(d);
	add(d, &req, sizeof(req));
	CHECK_EQ(transact(d, d->control, 1), 1);
	return d->in[0];
}

static uint64_t cipher_session(struct driver *d, uint32_t algo, const struct bytes *key, bool encrypt)
{
	struct virtio_crypto_op_ctrl_req req = {
		.header.opcode = VIRTIO_CRYPTO_CIPHER_CREATE_SESSION, .header.algo = algo};
	struct virtio_crypto_sym_create_session_req *s = &req.u.sym_create_session;
	uint64_t id;

	s->op_type = VIRTIO_CRYPTO_SYM_OP_CIPHER;
	s->u.cipher.para.algo = algo;
	s->u.cipher.para.keylen = (uint32_t)key->n;
	s->u.cipher.para.op = encrypt ? VIRTIO_CRYPTO_OP_ENCRYPT : VIRTIO_CRYPTO_OP_DECRYPT;
	CHECK_EQ(create(d, &req, key, NULL, &id), OK);
	return id;
}

/* --- requests --- */

/* Ends a request whose result has n bytes: the status. */
static uint8_t finish(struct driver *d, struct fe_queue *q, size_t n)
{
	uint32_t used = transact(d, q, n + 1);

	CHECK(used >= 1 && used <= n + 1);
	return d->in[n];
}

static uint8_t cipher(struct driver *d, struct fe_queue *q, uint64_t id, bool encrypt, const struct bytes *iv,
	const struct bytes *src, size_t dst_len)
{
	struct virtio_crypto_op_data_req req = {
		.header = {
			.opcode = encrypt ? VIRTIO_CRYPTO_CIPHER_ENCRYPT : VIRTIO_CRYPTO_CIPHER_DECRYPT,
			.session_id = id,
		}};

	req.u.sym_req.op_type = VIRTIO_CRYPTO_SYM_OP_CIPHER;
	req.u.sym_req.u.cipher.para.iv_len = (uint32_t)iv->n;
	req.u.sym_req.u.cipher.para.src_data_len = (uint32_t)src->n;
	req.u.sym_req.u.cipher.para.dst_data_len = (uint32_t)dst_len;
	begin(d);
	add(d, &req, sizeof(req));
	add(d, iv->p, iv->n);
	add(d, src->p, src->n);
	return finish(d, q, dst_len);
}

static uint8_t digest(struct driver *d, uint32_t opcode, uint64_t id, const struct bytes *src, size_t result)
{
	struct virtio_crypto_op_data_req req = {.header = {.opcode = opcode, .session_id = id}};

	req.u.hash_req.para.src_data_len = (uint32_t)src->n;
	req.u.hash_req.para.hash_result_len = (uint32_t)result;
	begin(d);
	add(d, &req, sizeof(req));
	add(d, src->p, src->n);
	return finish(d, d->data[0], result);
}

static uint8_t aead(struct driver *d, uint64_t id, bool encrypt, const struct bytes *iv,
	const struct bytes *aad, const struct bytes *src, size_t dst_len, size_t tag_len)
{
	struct virtio_crypto_op_data_req req = {
		.header = {
			.opcode = encrypt ? VIRTIO_CRYPTO_AEAD_ENCRYPT : VIRTIO_CRYPTO_AEAD_DECRYPT,
			.session_id = id,
		}};
	struct crypto_aead_para para = {.iv_len = (uint32_t)iv->n,
		.aad_len = (uint32_t)aad->n,
		.src_data_len = (uint32_t)src->n,
		.dst_data_len = (uint32_t)dst_len,
		.tag_len = (uint32_t)tag_len};

	memcpy(&req.u, &para, sizeof(para));
	begin(d);
	add(d, &req, sizeof(req));
	add(d, iv->p, iv->n);
	add(d, src->p, src->n);
	add(d, aad->p, aad->n);
	return finish(d, d->data[0], dst_len);
}

static uint8_t asym(struct driver *d, uint32_t opcode, uint64_t id, const struct bytes *src,
	const struct bytes *more, size_t dst_len)
{
	struct virtio_crypto_op_data_req req = {.header = {.opcode = opcode, .session_id = id}};

	req.u.akcipher_req.para.src_data_len = (uint32_t)src->n;
	req.u.akcipher_req.para.dst_data_len = (uint32_t)(more ? more->n : dst_len);
	begin(d);
	add(d, &req, sizeof(req));
	add(d, src->p, src->n);
	if (more)
		add(d, more->p, more->n);
	return finish(d, d->data[0], dst_len);
}

/* --- works --- */

static const unsigned shapes[] = {1, 2, 7};

static void ciphers(const struct fe_mode *m)
{
	struct driver d;

	driver_up(&d, m, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(cipher_vectors) * ARRAY_SIZE(shapes); i++) {
		const struct cipher_vector *v = &cipher_vectors[i / ARRAY_SIZE(shapes)];
		struct bytes key = hex(v->key), iv = hex(v->iv), plain = hex(v->plain),
			     coded = hex(v->cipher);
		uint64_t id;

		d.pieces = shapes[i % ARRAY_SIZE(shapes)];
		id = cipher_session(&d, v->algo, &key, true);
		CHECK_EQ(cipher(&d, d.data[i % 2], id, true, &iv, &plain, plain.n), OK);
		CHECK_MEM(d.in, coded.p, coded.n);
		CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &plain, plain.n), OK); /* and once more */
		CHECK_MEM(d.in, coded.p, coded.n);
		CHECK_EQ(cipher(&d, d.data[0], id, false, &iv, &plain, plain.n),
			BADMSG); /* the session encrypts */
		CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, id), OK);
		id = cipher_session(&d, v->algo, &key, false);
		CHECK_EQ(cipher(&d, d.data[0], id, false, &iv, &coded, plain.n + 9), OK); /* room to spare */
		CHECK_MEM(d.in, plain.p, plain.n);
		CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, id), OK);
	}
	fe_end(&d.fe);
}

static void digests(const struct fe_mode *m)
{
	struct bytes abc = hex("616263");
	struct driver d;
	uint64_t id;

	driver_up(&d, m, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(hash_vectors); i++) {
		struct virtio_crypto_op_ctrl_req req = {.header.opcode = VIRTIO_CRYPTO_HASH_CREATE_SESSION};
		struct bytes want = hex(hash_vectors[i].digest);

		d.pieces = shapes[i % ARRAY_SIZE(shapes)];
		req.u.hash_create_session.para.algo = hash_vectors[i].algo;
		req.u.hash_create_session.para.hash_result_len = (uint32_t)want.n;
		CHECK_EQ(create(&d, &req, NULL, NULL, &id), OK);
		for (unsigned again = 0; again < 2; again++) {
			CHECK_EQ(digest(&d, VIRTIO_CRYPTO_HASH, id, &abc, want.n), OK);
			CHECK_MEM(d.in, want.p, want.n);
		}
		CHECK_EQ(digest(&d, VIRTIO_CRYPTO_HASH, id, &abc, want.n + 1), BADMSG);
		CHECK_EQ(digest(&d, VIRTIO_CRYPTO_MAC, id, &abc, want.n), BADMSG);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(mac_vectors); i++) {
		struct virtio_crypto_op_ctrl_req req = {.header.opcode = VIRTIO_CRYPTO_MAC_CREATE_SESSION};
		struct bytes key = hex(mac_vectors[i].key), text = hex(mac_vectors[i].text),
			     want = hex(mac_vectors[i].mac);

		d.pieces = shapes[i % ARRAY_SIZE(shapes)];
		req.u.mac_create_session.para.algo = mac_vectors[i].algo;
		req.u.mac_create_session.para.hash_result_len = (uint32_t)want.n;
		req.u.mac_create_session.para.auth_key_len = (uint32_t)key.n;
		CHECK_EQ(create(&d, &req, &key, NULL, &id), OK);
		for (unsigned again = 0; again < 2; again++) {
			CHECK_EQ(digest(&d, VIRTIO_CRYPTO_MAC, id, &text, want.n), OK);
			CHECK_MEM(d.in, want.p, want.n);
		}
	}
	fe_end(&d.fe);
}

static uint64_t aead_session(struct driver *d, const struct aead_vector *v, bool encrypt)
{
	struct virtio_crypto_op_ctrl_req req = {.header.opcode = VIRTIO_CRYPTO_AEAD_CREATE_SESSION};
	struct bytes key = hex(v->key);
	uint64_t id;

	req.u.aead_create_session.para.algo = v->algo;
	req.u.aead_create_session.para.key_len = (uint32_t)key.n;
	req.u.aead_create_session.para.hash_result_len = (uint32_t)strlen(v->tag) / 2;
	req.u.aead_create_session.para.op = encrypt ? VIRTIO_CRYPTO_OP_ENCRYPT : VIRTIO_CRYPTO_OP_DECRYPT;
	CHECK_EQ(create(d, &req, &key, NULL, &id), OK);
	return id;
}

/* Sealed, opened, and refused when a bit of anything is different; then no plaintext is left behind. */
static void aeads(const struct fe_mode *m)
{
	struct driver d;

	driver_up(&d, m, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(aead_vectors) * ARRAY_SIZE(shapes); i++) {
		const struct aead_vector *v = &aead_vectors[i / ARRAY_SIZE(shapes)];
		struct bytes iv = hex(v->iv), aad = hex(v->aad), plain = hex(v->plain),
			     coded = hex(v->cipher), tag = hex(v->tag);
		struct bytes sealed = coded;
		uint64_t seal, open;

		memcpy(sealed.p + sealed.n, tag.p, tag.n);
		sealed.n += tag.n;
		d.pieces = shapes[i % ARRAY_SIZE(shapes)];
		seal = aead_session(&d, v, true);
		open = aead_session(&d, v, false);
		CHECK_EQ(aead(&d, seal, true, &iv, &aad, &plain, sealed.n, i % 2 ? tag.n : 0), OK);
		CHECK_MEM(d.in, sealed.p, sealed.n);
		CHECK_EQ(aead(&d, open, false, &iv, &aad, &sealed, plain.n, 0), OK);
		CHECK_MEM(d.in, plain.p, plain.n);
		sealed.p[sealed.n - 1] ^= 1;
		CHECK_EQ(aead(&d, open, false, &iv, &aad, &sealed, plain.n, 0), BADMSG);
		for (size_t k = 0; k < plain.n; k++)
			CHECK_EQ(d.in[k], 0);
		sealed.p[sealed.n - 1] ^= 1;
		if (aad.n) {
			aad.p[0] ^= 0x80;
			CHECK_EQ(aead(&d, open, false, &iv, &aad, &sealed, plain.n, 0), BADMSG);
			aad.p[0] ^= 0x80;
		}
		CHECK_EQ(aead(&d, open, false, &iv, &aad, &sealed, plain.n, 0), OK);
		CHECK_EQ(aead(&d, seal, true, &iv, &aad, &plain, sealed.n - 1, 0),
			BADMSG); /* no room for the tag */
	}
	fe_end(&d.fe);
}

/* A cipher and a MAC in one request, in both orders. */
static void chains(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64), auth = hex(HMAC_KEY),
		     coded = hex(cipher_vectors[1].cipher);
	struct driver d;

	driver_up(&d, m, NULL);
	for (unsigned first = 0; first < 2; first++) {
		struct virtio_crypto_op_ctrl_req ctrl = {
			.header.opcode = VIRTIO_CRYPTO_CIPHER_CREATE_SESSION};
		struct virtio_crypto_alg_chain_session_para *c = &ctrl.u.sym_create_session.u.chain.para;
		struct virtio_crypto_op_ctrl_req mac = {.header.opcode = VIRTIO_CRYPTO_MAC_CREATE_SESSION};
		struct virtio_crypto_op_data_req req = {.header.opcode = VIRTIO_CRYPTO_CIPHER_ENCRYPT};
		struct virtio_crypto_alg_chain_data_para *p = &req.u.sym_req.u.chain.para;
		struct bytes covered = first ? plain : coded, want = {.n = 20};
		uint64_t id;

		memmove(covered.p, covered.p + 8, 40);
		covered.n = 40;
		mac.u.mac_create_session.para.algo = VIRTIO_CRYPTO_MAC_HMAC_SHA1;
		mac.u.mac_create_session.para.hash_result_len = 20;
		mac.u.mac_create_session.para.auth_key_len = (uint32_t)auth.n;
		CHECK_EQ(create(&d, &mac, &auth, NULL, &id), OK);
		CHECK_EQ(digest(&d, VIRTIO_CRYPTO_MAC, id, &covered, 20), OK);
		memcpy(want.p, d.in, 20);
		ctrl.u.sym_create_session.op_type = VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING;
		c->alg_chain_order = first ? VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_HASH_THEN_CIPHER
					   : VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_CIPHER_THEN_HASH;
		c->hash_mode = VIRTIO_CRYPTO_SYM_HASH_MODE_AUTH;
		c->cipher_param.algo = VIRTIO_CRYPTO_CIPHER_AES_CBC;
		c->cipher_param.keylen = 16;
		c->cipher_param.op = VIRTIO_CRYPTO_OP_ENCRYPT;
		c->u.mac_param = mac.u.mac_create_session.para;
		CHECK_EQ(create(&d, &ctrl, &key, &auth, &id), OK);
		req.header.session_id = id;
		req.u.sym_req.op_type = VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING;
		p->iv_len = 16;
		p->src_data_len = p->dst_data_len = p->len_to_cipher = 64;
		p->hash_start_src_offset = 8;
		p->len_to_hash = 40;
		p->hash_result_len = 20;
		for (unsigned bad = 0; bad < 2; bad++) {
			begin(&d);
			add(&d, &req, sizeof(req));
			add(&d, iv.p, iv.n);
			add(&d, plain.p, plain.n);
			CHECK_EQ(finish(&d, d.data[0], 84), bad ? BADMSG : OK);
			if (bad)
				break;
			CHECK_MEM(d.in, coded.p, coded.n);
			CHECK_MEM(d.in + 64, want.p, 20);
			p->len_to_hash = 57; /* one more than there is */
		}
	}
	fe_end(&d.fe);
}

static uint64_t asym_session(
	struct driver *d, uint32_t algo, const char *key_text, bool private, uint32_t a, uint32_t b)
{
	struct virtio_crypto_op_ctrl_req req = {.header.opcode = VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION};
	struct virtio_crypto_akcipher_session_para *p = &req.u.akcipher_create_session.para;
	struct bytes key = hex(key_text);
	uint64_t id;

	p->algo = algo;
	p->keytype =
		private ? VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_PRIVATE : VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_PUBLIC;
	p->keylen = (uint32_t)key.n;
	p->u.rsa.padding_algo = a; /* of ECDSA the curve */
	p->u.rsa.hash_algo = b;
	CHECK_EQ(create(d, &req, &key, NULL, &id), OK);
	return id;
}

static void rsa(const struct fe_mode *m)
{
	struct bytes dg = hex(RSA_DIGEST), sig = hex(RSA_SIGNATURE), text = hex("00112233"), box = {.n = 256};
	struct driver d;
	uint64_t private, public;

	driver_up(&d, m, NULL);
	private = asym_session(&d, VIRTIO_CRYPTO_AKCIPHER_RSA, RSA_PRIVATE, true,
		VIRTIO_CRYPTO_RSA_PKCS1_PADDING, VIRTIO_CRYPTO_RSA_SHA256);
	public = asym_session(&d, VIRTIO_CRYPTO_AKCIPHER_RSA, RSA_PUBLIC, false,
		VIRTIO_CRYPTO_RSA_PKCS1_PADDING, VIRTIO_CRYPTO_RSA_SHA256);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_SIGN, private, &dg, NULL, 256), OK);
	CHECK_MEM(d.in, sig.p, sig.n);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_SIGN, public, &dg, NULL, 256), ERR);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_VERIFY, public, &sig, &dg, 0), OK);
	dg.p[3] ^= 1;
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_VERIFY, public, &sig, &dg, 0), VIRTIO_CRYPTO_KEY_REJECTED);
	d.pieces = 3;
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, public, &text, NULL, 256), OK);
	memcpy(box.p, d.in, 256);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, private, &box, NULL, 256), OK);
	CHECK_MEM(d.in, text.p, text.n);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, public, &box, NULL, 256), ERR);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, public, &text, NULL, 255), BADMSG); /* no room */
	/* raw: the number comes back with zeros before it, as long as the modulus */
	private = asym_session(
		&d, VIRTIO_CRYPTO_AKCIPHER_RSA, RSA_PRIVATE, true, VIRTIO_CRYPTO_RSA_RAW_PADDING, 0);
	public = asym_session(
		&d, VIRTIO_CRYPTO_AKCIPHER_RSA, RSA_PUBLIC, false, VIRTIO_CRYPTO_RSA_RAW_PADDING, 0);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, public, &text, NULL, 256), OK);
	memcpy(box.p, d.in, 256);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, private, &box, NULL, 256), OK);
	CHECK_MEM(d.in + 252, text.p, text.n);
	CHECK_EQ(d.in[0], 0);
	memset(box.p, 0xff, 256); /* more than the modulus */
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, public, &box, NULL, 256), ERR);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_SIGN, private, &text, NULL, 256), OK);
	memcpy(box.p, d.in, 256);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_VERIFY, public, &box, &text, 0), OK);
	fe_end(&d.fe);
}

static void ecdsa(const struct fe_mode *m)
{
	struct bytes dg = hex(RSA_DIGEST), sig = {.n = 0};
	struct driver d;
	uint64_t private, public;
	uint32_t used;

	driver_up(&d, m, NULL);
	private = asym_session(
		&d, VIRTIO_CRYPTO_AKCIPHER_ECDSA, EC_PRIVATE, true, VIRTIO_CRYPTO_CURVE_NIST_P256, 0);
	public = asym_session(
		&d, VIRTIO_CRYPTO_AKCIPHER_ECDSA, EC_PUBLIC, false, VIRTIO_CRYPTO_CURVE_NIST_P256, 0);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_SIGN, private, &dg, NULL, 100), OK);
	used = d.in[1] + 2U; /* SEQUENCE: its length is the second byte */
	CHECK(d.in[0] == 0x30 && used <= 72);
	memcpy(sig.p, d.in, used);
	sig.n = used;
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_VERIFY, public, &sig, &dg, 0), OK);
	dg.p[0] ^= 1;
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_VERIFY, public, &sig, &dg, 0), VIRTIO_CRYPTO_KEY_REJECTED);
	CHECK_EQ(asym(&d, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, public, &dg, NULL, 100), NOTSUPP);
	fe_end(&d.fe);
}

/* What the configuration says is what the tests above have used, and nothing that is not there. */
static void config(const struct fe_mode *m)
{
	struct virtio_crypto_config c;
	struct driver d;
	uint32_t mask = 0;

	driver_up(&d, m, NULL);
	fe_config_get(&d.fe, 0, &c, sizeof(c));
	CHECK_EQ(c.status, VIRTIO_CRYPTO_S_HW_READY);
	CHECK_EQ(c.max_dataqueues, DATA_QUEUES);
	CHECK_EQ(c.crypto_services, 0x1f);
	CHECK_EQ(c.max_size, 16384);
	for (unsigned i = 0; i < ARRAY_SIZE(cipher_vectors); i++)
		mask |= 1U << cipher_vectors[i].algo;
	CHECK_EQ(c.cipher_algo_l, mask);
	for (unsigned i = mask = 0; i < ARRAY_SIZE(hash_vectors); i++)
		mask |= 1U << hash_vectors[i].algo;
	CHECK_EQ(c.hash_algo, mask);
	for (unsigned i = mask = 0; i < ARRAY_SIZE(mac_vectors); i++)
		mask |= 1U << mac_vectors[i].algo;
	CHECK_EQ(c.mac_algo_l, mask);
	CHECK_EQ(c.mac_algo_h, 0);
	CHECK_EQ(c.aead_algo, 1U << VIRTIO_CRYPTO_AEAD_GCM | 1U << VIRTIO_CRYPTO_AEAD_CCM |
				      1U << VIRTIO_CRYPTO_AEAD_CHACHA20_POLY1305);
	fe_end(&d.fe);
}

/* --- hostile --- */

static void broken_sessions(const struct fe_mode *m)
{
	struct virtio_crypto_op_ctrl_req good = {.header.opcode = VIRTIO_CRYPTO_CIPHER_CREATE_SESSION}, req;
	struct virtio_crypto_cipher_session_para *p = &req.u.sym_create_session.u.cipher.para;
	struct bytes key = hex(KEY_128), none = {.n = 0};
	struct driver d;
	uint64_t id;

	driver_up(&d, m, "--max-sessions=4");
	good.u.sym_create_session.op_type = VIRTIO_CRYPTO_SYM_OP_CIPHER;
	good.u.sym_create_session.u.cipher.para = (struct virtio_crypto_cipher_session_para){
		.algo = VIRTIO_CRYPTO_CIPHER_AES_CBC, .keylen = 16, .op = 1};
	req = good;
	p->keylen = 15;
	CHECK_EQ(create(&d, &req, &key, NULL, &id), ERR);
	p->keylen = 16;
	CHECK_EQ(create(&d, &req, &none, NULL, &id), BADMSG); /* the key is missing */
	p->keylen = 0xffffffff;
	CHECK_EQ(create(&d, &req, &key, NULL, &id), BADMSG);
	req = good;
	p->algo = VIRTIO_CRYPTO_CIPHER_ZUC_EEA3;
	CHECK_EQ(create(&d, &req, &key, NULL, &id), NOTSUPP);
	p->algo = 0xfffffff0;
	CHECK_EQ(create(&d, &req, &key, NULL, &id), NOTSUPP);
	req = good;
	req.header.opcode = 0x777;
	CHECK_EQ(create(&d, &req, &key, NULL, &id), NOTSUPP);
	req.header.opcode = VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION;
	req.u.akcipher_create_session.para =
		(struct virtio_crypto_akcipher_session_para){.algo = VIRTIO_CRYPTO_AKCIPHER_RSA,
			.keytype = 1,
			.keylen = 16,
			.u.rsa = {VIRTIO_CRYPTO_RSA_PKCS1_PADDING, VIRTIO_CRYPTO_RSA_SHA1}};
	CHECK_EQ(create(&d, &req, &key, NULL, &id), ERR); /* no key in DER */
	/* half a request */
	begin(&d);
	add(&d, &good, 20);
	CHECK_EQ(transact(&d, d.control, sizeof(struct virtio_crypto_session_input)), 16);
	/* too many, and then not any more */
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(create(&d, &good, &key, NULL, &id), OK);
	req = good;
	{
		uint64_t over;

		CHECK_EQ(create(&d, &req, &key, NULL, &over), VIRTIO_CRYPTO_NOSPC);
	}
	CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, id), OK);
	CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, id), VIRTIO_CRYPTO_INVSESS);
	CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, 0), VIRTIO_CRYPTO_INVSESS);
	CHECK_EQ(destroy(&d, VIRTIO_CRYPTO_CIPHER_DESTROY_SESSION, UINT64_MAX), VIRTIO_CRYPTO_INVSESS);
	CHECK_EQ(create(&d, &good, &key, NULL, &id), OK);
	fe_end(&d.fe);
}

static void broken_requests(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64), odd = plain;
	struct virtio_crypto_op_data_req req = {.header.opcode = VIRTIO_CRYPTO_CIPHER_ENCRYPT};
	struct virtio_crypto_cipher_para *p = &req.u.sym_req.u.cipher.para;
	struct vring_driver_buf b;
	struct driver d;
	uint64_t id;

	driver_up(&d, m, NULL);
	id = cipher_session(&d, VIRTIO_CRYPTO_CIPHER_AES_CBC, &key, true);
	CHECK_EQ(cipher(&d, d.data[0], id + 1, true, &iv, &plain, 64), VIRTIO_CRYPTO_INVSESS);
	odd.n = 63;
	CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &odd, 64), BADMSG);
	CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &plain, 63), BADMSG);
	iv.n = 12;
	CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &plain, 64), BADMSG);
	iv.n = 16;
	/* lengths that are not so */
	req.header.session_id = id;
	req.u.sym_req.op_type = VIRTIO_CRYPTO_SYM_OP_CIPHER;
	for (unsigned i = 0; i < 4; i++) {
		p->iv_len = i == 0 ? 0xffffffff : 16;
		p->src_data_len = i == 1 ? 0xfffffff0 : i == 3 ? 4096 : 64;
		p->dst_data_len = i == 2 ? 0xfffffff0 : 64;
		begin(&d);
		add(&d, &req, sizeof(req));
		add(&d, iv.p, iv.n);
		add(&d, plain.p, plain.n);
		CHECK_EQ(finish(&d, d.data[0], 64), BADMSG);
	}
	/* no room for a status; nothing but a status; half a header */
	b = fe_rd(&d.fe, d.out, 72);
	CHECK_EQ(fe_transact(d.data[0], &b, 1), 0);
	b = fe_wr(&d.fe, d.in, 1);
	CHECK_EQ(fe_transact(d.data[0], &b, 1), 1);
	CHECK_EQ(d.in[0], BADMSG);
	begin(&d);
	add(&d, &req, 30);
	CHECK_EQ(finish(&d, d.data[0], 8), BADMSG);
	CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &plain, 64), OK);
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
		CHECK_EQ(cipher(&d, d.data[0], (uint64_t)id, true, &iv, &plain, 64), OK);
		CHECK_MEM(d.in, coded.p, 64);
		fe_set_u64(&d.fe, 27, (uint64_t)id);
		CHECK_EQ(cipher(&d, d.data[0], (uint64_t)id, true, &iv, &plain, 64), VIRTIO_CRYPTO_INVSESS);
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
	struct driver d;
	uint32_t base;
	uint64_t id;

	driver_up(&d, m, NULL);
	id = cipher_session(&d, VIRTIO_CRYPTO_CIPHER_AES_CBC, &key, true);
	base = fe_queue_stop(d.data[0]);
	fe_queue_send(d.data[0], base);
	fe_queue_enable(d.data[0], true);
	CHECK_EQ(cipher(&d, d.data[0], id, true, &iv, &plain, 64), OK); /* the session is still there */
	CHECK_MEM(d.in, coded.p, 64);
	fe_end(&d.fe);
}

/* The driver lets go and comes back on the same connection, as in User Mode Linux: rings disabled, then set up anew. */
static void rebind(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct driver d;
	uint64_t id;

	driver_up(&d, m, NULL);
	for (unsigned round = 0; round < 3; round++) {
		id = cipher_session(&d, VIRTIO_CRYPTO_CIPHER_AES_CBC, &key, true);
		CHECK_EQ(cipher(&d, d.data[1], id, true, &iv, &plain, 64), OK);
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

static void limited(const struct fe_mode *m)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64);
	struct driver d;
	int64_t start;
	uint64_t id;

	driver_up(&d, m, "--iops=50"); /* five in each tenth of a second */
	id = cipher_session(&d, VIRTIO_CRYPTO_CIPHER_AES_CBC, &key, true);
	start = fe_now_ms();
	for (unsigned i = 0; i < 20; i++)
		CHECK_EQ(cipher(&d, d.data[i % 2], id, true, &iv, &plain, 64), OK);
	CHECK(fe_now_ms() - start >= 200);
	fe_end(&d.fe);
}

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("crypto", row[0], "--socket-path=x"));
	fe_process_logs(&p, row[1]);
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

	fe_each_mode_in_order("ciphers", ciphers);
	fe_each_mode("digests", digests);
	fe_each_mode("authenticated encryption", aeads);
	fe_each_layout("cipher and hash", chains);
	fe_each_layout("RSA", rsa);
	fe_each_layout("ECDSA", ecdsa);
	fe_case("configuration", config, NULL);
	fe_each_layout("broken sessions", broken_sessions);
	fe_each_mode("broken requests", broken_requests);
	fe_case("as QEMU does it", qemu, NULL);
	fe_each_layout("pause", pause_and_reset);
	fe_each_layout("driver comes back", rebind);
	fe_case("limited", limited, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
