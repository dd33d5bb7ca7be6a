/* SPDX-License-Identifier: MIT */
/*
 * The crypto device: every algorithm against known answers, with the data in one piece and in many, in the layouts without and
 * with revision 1, and stateless.
 */
#include "crypto-driver.h"
#include "crypto-vectors.h"

static const unsigned shapes[] = {1, 2, 7};

/* All of them, in each mode of the driver. */
static void each_driver(const struct fe_mode *m, void (*fn)(struct driver *d))
{
	for (unsigned mode = 0; mode < DRIVER_MODES; mode++) {
		struct driver d;

		driver_up(&d, m, mode, NULL);
		fn(&d);
		fe_end(&d.fe);
	}
}

static void cipher_answers(struct driver *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cipher_vectors) * ARRAY_SIZE(shapes); i++) {
		const struct cipher_vector *v = &cipher_vectors[i / ARRAY_SIZE(shapes)];
		struct bytes key = hex(v->key), iv = hex(v->iv), plain = hex(v->plain),
			     coded = hex(v->cipher);
		struct session s = {.algo = v->algo, .encrypt = true, .key = &key};
		struct work w = {.iv = &iv, .src = &plain, .dst_len = plain.n};

		d->pieces = shapes[i % ARRAY_SIZE(shapes)];
		CHECK_EQ(session_open(d, &s), OK);
		for (unsigned again = 0; again < 2; again++) {
			CHECK_EQ(session_run(
					 d, d->data[(i + again) % 2], &s, VIRTIO_CRYPTO_CIPHER_ENCRYPT, &w),
				OK);
			CHECK_MEM(d->in, coded.p, coded.n);
			CHECK_EQ(d->used, coded.n);
		}
		CHECK_EQ(session_run(d, d->data[0], &s, VIRTIO_CRYPTO_CIPHER_DECRYPT, &w),
			ERR); /* it encrypts */
		CHECK_EQ(session_close(d, &s), OK);
		s.encrypt = false;
		w.src = &coded;
		w.dst_len += 9; /* room to spare */
		CHECK_EQ(session_open(d, &s), OK);
		CHECK_EQ(session_run(d, d->data[0], &s, VIRTIO_CRYPTO_CIPHER_DECRYPT, &w), OK);
		CHECK_MEM(d->in, plain.p, plain.n);
		CHECK_EQ(session_close(d, &s), OK);
	}
}

static void ciphers(const struct fe_mode *m)
{
	each_driver(m, cipher_answers);
}

static void digest_answer(
	struct driver *d, struct session *s, const struct bytes *text, const struct bytes *want)
{
	uint32_t opcode = s->service << 8;
	struct work w = {.src = text, .result_len = want->n};

	s->result_len = (uint32_t)want->n;
	CHECK_EQ(session_open(d, s), OK);
	for (unsigned again = 0; again < 2; again++) {
		CHECK_EQ(session_run(d, d->data[0], s, opcode, &w), OK);
		CHECK_MEM(d->in, want->p, want->n);
	}
	if (d->mode != ALONE) {
		CHECK_EQ(session_run(d, d->data[0], s, opcode ^ 0x300, &w), ERR); /* another service */
		w.result_len++;
		CHECK_EQ(session_run(d, d->data[0], s, opcode, &w), ERR);
	}
	CHECK_EQ(session_close(d, s), OK);
}

static void digest_answers(struct driver *d)
{
	struct bytes abc = hex("616263");

	for (unsigned i = 0; i < ARRAY_SIZE(hash_vectors); i++) {
		struct bytes want = hex(hash_vectors[i].digest);

		d->pieces = shapes[i % ARRAY_SIZE(shapes)];
		digest_answer(d,
			&(struct session){
				.service = VIRTIO_CRYPTO_SERVICE_HASH, .algo = hash_vectors[i].algo},
			&abc, &want);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(mac_vectors); i++) {
		const struct mac_vector *v = &mac_vectors[i];
		struct bytes key = hex(v->key), text = hex(v->text), want = hex(v->mac);

		d->pieces = shapes[i % ARRAY_SIZE(shapes)];
		digest_answer(d,
			&(struct session){
				.service = VIRTIO_CRYPTO_SERVICE_MAC, .algo = v->algo, .auth = &key},
			&text, &want);
	}
}

static void digests(const struct fe_mode *m)
{
	each_driver(m, digest_answers);
}

static void check_wiped(const struct driver *d, size_t n)
{
	for (size_t i = 0; i < n; i++)
		CHECK_EQ(d->in[i], 0);
}

/* Sealed, opened, and refused when a bit of anything is different; then no plaintext is left behind. */
static void aead_answer(struct driver *d, const struct aead_vector *v, bool own_tag_len)
{
	struct bytes key = hex(v->key), iv = hex(v->iv), aad = hex(v->aad), plain = hex(v->plain),
		     sealed = hex(v->cipher), tag = hex(v->tag);
	struct session seal = {.service = VIRTIO_CRYPTO_SERVICE_AEAD,
		.algo = v->algo,
		.encrypt = true,
		.tag_len = (uint32_t)tag.n,
		.key = &key};
	struct session open = seal;
	struct work in = {.iv = &iv, .aad = &aad, .src = &plain}, out = in;

	memcpy(sealed.p + sealed.n, tag.p, tag.n);
	sealed.n += tag.n;
	open.encrypt = false;
	in.dst_len = sealed.n;
	in.tag_len = own_tag_len ? tag.n : 0;
	out.src = &sealed;
	out.dst_len = plain.n;
	CHECK_EQ(session_open(d, &seal), OK);
	CHECK_EQ(session_open(d, &open), OK);
	CHECK_EQ(session_run(d, d->data[0], &seal, VIRTIO_CRYPTO_AEAD_ENCRYPT, &in), OK);
	CHECK_MEM(d->in, sealed.p, sealed.n);
	CHECK_EQ(session_run(d, d->data[0], &open, VIRTIO_CRYPTO_AEAD_DECRYPT, &out), OK);
	CHECK_MEM(d->in, plain.p, plain.n);
	sealed.p[sealed.n - 1] ^= 1;
	CHECK_EQ(session_run(d, d->data[0], &open, VIRTIO_CRYPTO_AEAD_DECRYPT, &out), BADMSG);
	check_wiped(d, plain.n);
	sealed.p[sealed.n - 1] ^= 1;
	if (aad.n) {
		aad.p[0] ^= 0x80;
		CHECK_EQ(session_run(d, d->data[0], &open, VIRTIO_CRYPTO_AEAD_DECRYPT, &out), BADMSG);
		aad.p[0] ^= 0x80;
	}
	CHECK_EQ(session_run(d, d->data[0], &open, VIRTIO_CRYPTO_AEAD_DECRYPT, &out), OK);
	if (v->algo == VIRTIO_CRYPTO_AEAD_GCM) { /* the IV as a counter block */
		iv.n = 16;
		memcpy(iv.p + 12, "\0\0\0\1", 4);
		CHECK_EQ(session_run(d, d->data[0], &seal, VIRTIO_CRYPTO_AEAD_ENCRYPT, &in), OK);
		CHECK_MEM(d->in, sealed.p, sealed.n);
		iv.p[15] = 2;
		CHECK_EQ(session_run(d, d->data[0], &seal, VIRTIO_CRYPTO_AEAD_ENCRYPT, &in), ERR);
		iv.n = 12;
	}
	in.dst_len--; /* no room for the tag */
	CHECK_EQ(session_run(d, d->data[0], &seal, VIRTIO_CRYPTO_AEAD_ENCRYPT, &in), ERR);
	CHECK_EQ(session_run(d, d->data[0], &open, VIRTIO_CRYPTO_AEAD_ENCRYPT, &in), ERR);
	CHECK_EQ(session_close(d, &seal), OK);
	CHECK_EQ(session_close(d, &open), OK);
}

static void aead_answers(struct driver *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(aead_vectors) * ARRAY_SIZE(shapes); i++) {
		d->pieces = shapes[i % ARRAY_SIZE(shapes)];
		aead_answer(d, &aead_vectors[i / ARRAY_SIZE(shapes)], i % 2);
	}
}

static void aeads(const struct fe_mode *m)
{
	each_driver(m, aead_answers);
}

/* A cipher and a MAC in one request, in one order. */
static void chain_answer(struct driver *d, bool encrypt, bool hash_first, bool keyed, const struct bytes *aad)
{
	struct bytes key = hex(KEY_128), iv = hex(IV_128), plain = hex(PLAIN_64), auth = hex(HMAC_KEY),
		     coded = hex(cipher_vectors[1].cipher), covered = {.n = 0};
	uint32_t result = keyed ? 20 : 32;
	struct session mac = {.service = keyed ? VIRTIO_CRYPTO_SERVICE_MAC : VIRTIO_CRYPTO_SERVICE_HASH,
		.algo = keyed ? VIRTIO_CRYPTO_MAC_HMAC_SHA1 : VIRTIO_CRYPTO_HASH_SHA_256,
		.result_len = result,
		.auth = keyed ? &auth : NULL};
	struct bytes *in = encrypt ? &plain : &coded, *out = encrypt ? &coded : &plain;
	uint32_t opcode = encrypt ? VIRTIO_CRYPTO_CIPHER_ENCRYPT : VIRTIO_CRYPTO_CIPHER_DECRYPT;
	struct session s = aes_session(&key, encrypt);
	struct work w = {.iv = &iv,
		.src = in,
		.aad = aad,
		.dst_len = 64,
		.cipher_len = 64,
		.hash_at = 8,
		.hash_len = 40,
		.result_len = result};
	uint8_t want[64];

	memcpy(covered.p, aad->p, aad->n);
	memcpy(covered.p + aad->n, (hash_first ? in->p : out->p) + 8, 40);
	covered.n = aad->n + 40;
	CHECK_EQ(session_open(d, &mac), OK);
	CHECK_EQ(session_run(d, d->data[0], &mac, mac.service << 8,
			 &(struct work){.src = &covered, .result_len = result}),
		OK);
	memcpy(want, d->in, result);
	s.chain = true;
	s.hash_first = hash_first;
	s.keyed = keyed;
	s.digest = mac.algo;
	s.result_len = result;
	s.auth = mac.auth;
	CHECK_EQ(session_open(d, &s), OK);
	CHECK_EQ(session_run(d, d->data[0], &s, opcode, &w), OK);
	CHECK_MEM(d->in, out->p, out->n);
	CHECK_MEM(d->in + 64, want, result);
	w.hash_len = 57; /* one more than there is */
	CHECK_EQ(session_run(d, d->data[0], &s, opcode, &w), ERR);
	w.hash_len = 40;
	w.cipher_at = UINT32_MAX - 8;
	CHECK_EQ(session_run(d, d->data[0], &s, opcode, &w), ERR);
}

static void chain_answers(struct driver *d)
{
	struct bytes aad = hex("0a0b0c0d0e"), none = {.n = 0};

	for (unsigned i = 0; i < 16; i++) {
		d->pieces = shapes[i % ARRAY_SIZE(shapes)];
		chain_answer(d, i & 8, i & 1, i & 2, i & 4 ? &aad : &none);
	}
}

static void chains(const struct fe_mode *m)
{
	each_driver(m, chain_answers);
}

/* --- key pairs --- */

static struct session asym(
	struct driver *d, uint32_t algo, const struct bytes *key, bool private, uint32_t a, uint32_t b)
{
	struct session s = {.service = VIRTIO_CRYPTO_SERVICE_AKCIPHER,
		.algo = algo,
		.private = private,
		.key = key,
		.para = {a, b}};

	CHECK_EQ(session_open(d, &s), OK);
	return s;
}

static uint8_t asym_run(struct driver *d, const struct session *s, uint32_t opcode, const struct bytes *src,
	const struct bytes *more, size_t dst_len)
{
	return session_run(
		d, d->data[0], s, opcode, &(struct work){.src = src, .more = more, .dst_len = dst_len});
}

static void rsa_padded(struct driver *d, const struct bytes *key, const struct bytes *pub)
{
	struct bytes dg = hex(RSA_DIGEST), sig = hex(RSA_SIGNATURE), text = hex("00112233"), box = {.n = 256};
	struct session private, public;

	private = asym(d, VIRTIO_CRYPTO_AKCIPHER_RSA, key, true, VIRTIO_CRYPTO_RSA_PKCS1_PADDING,
		VIRTIO_CRYPTO_RSA_SHA256);
	public = asym(d, VIRTIO_CRYPTO_AKCIPHER_RSA, pub, false, VIRTIO_CRYPTO_RSA_PKCS1_PADDING,
		VIRTIO_CRYPTO_RSA_SHA256);
	CHECK_EQ(asym_run(d, &private, VIRTIO_CRYPTO_AKCIPHER_SIGN, &dg, NULL, 256), OK);
	CHECK_MEM(d->in, sig.p, sig.n);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_SIGN, &dg, NULL, 256), ERR);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &sig, &dg, 0), OK);
	dg.p[3] ^= 1;
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &sig, &dg, 0), REJECTED);
	d->pieces = 3;
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, &text, NULL, 256), OK);
	memcpy(box.p, d->in, 256);
	CHECK_EQ(asym_run(d, &private, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, &box, NULL, 256), OK);
	CHECK_MEM(d->in, text.p, text.n);
	CHECK_EQ(d->used, text.n);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, &box, NULL, 256), ERR);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, &text, NULL, 255), ERR); /* no room */
}

/* The number comes back with zeros before it, as long as the modulus. */
static void rsa_raw(struct driver *d, const struct bytes *key, const struct bytes *pub)
{
	struct bytes text = hex("00112233"), box = {.n = 256};
	struct session private, public;

	private = asym(d, VIRTIO_CRYPTO_AKCIPHER_RSA, key, true, VIRTIO_CRYPTO_RSA_RAW_PADDING, 0);
	public = asym(d, VIRTIO_CRYPTO_AKCIPHER_RSA, pub, false, VIRTIO_CRYPTO_RSA_RAW_PADDING, 0);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, &text, NULL, 256), OK);
	memcpy(box.p, d->in, 256);
	CHECK_EQ(asym_run(d, &private, VIRTIO_CRYPTO_AKCIPHER_DECRYPT, &box, NULL, 256), OK);
	CHECK_MEM(d->in + 252, text.p, text.n);
	CHECK_EQ(d->in[0], 0);
	memset(box.p, 0xff, 256); /* more than the modulus */
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, &box, NULL, 256), ERR);
	CHECK_EQ(asym_run(d, &private, VIRTIO_CRYPTO_AKCIPHER_SIGN, &text, NULL, 256), OK);
	memcpy(box.p, d->in, 256);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &box, &text, 0), OK);
}

static void rsa_answers(struct driver *d)
{
	struct bytes key = hex(RSA_PRIVATE), pub = hex(RSA_PUBLIC);

	rsa_padded(d, &key, &pub);
	rsa_raw(d, &key, &pub);
}

static void rsa(const struct fe_mode *m)
{
	each_driver(m, rsa_answers);
}

static void ecdsa_answers(struct driver *d)
{
	struct bytes key = hex(EC_PRIVATE), pub = hex(EC_PUBLIC), dg = hex(RSA_DIGEST), sig = {.n = 0};
	struct session private, public;

	/* by Linux's number and by the specification's */
	private = asym(d, VIRTIO_CRYPTO_AKCIPHER_ECDSA, &key, true, VIRTIO_CRYPTO_CURVE_NIST_P256, 0);
	public = asym(d, 2, &pub, false, VIRTIO_CRYPTO_CURVE_NIST_P256, 0);
	CHECK_EQ(asym_run(d, &private, VIRTIO_CRYPTO_AKCIPHER_SIGN, &dg, NULL, 100), OK);
	sig.n = d->used;
	CHECK(d->in[0] == 0x30 && d->in[1] + 2U == sig.n);
	memcpy(sig.p, d->in, sig.n);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &sig, &dg, 0), OK);
	dg.p[0] ^= 1;
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_VERIFY, &sig, &dg, 0), REJECTED);
	CHECK_EQ(asym_run(d, &public, VIRTIO_CRYPTO_AKCIPHER_ENCRYPT, &dg, NULL, 100), NOTSUPP);
}

static void ecdsa(const struct fe_mode *m)
{
	each_driver(m, ecdsa_answers);
}

/* What the configuration says is what the tests above have used, and nothing that is not there. */
static void config(const struct fe_mode *m)
{
	struct virtio_crypto_config c;
	struct driver d;
	uint32_t mask = 0;

	driver_up(&d, m, LEGACY, NULL);
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
	for (unsigned i = mask = 0; i < ARRAY_SIZE(aead_vectors); i++)
		mask |= 1U << aead_vectors[i].algo;
	CHECK_EQ(c.aead_algo, mask);
	CHECK_EQ(c.akcipher_algo,
		1U << VIRTIO_CRYPTO_AKCIPHER_RSA | 1U << VIRTIO_CRYPTO_AKCIPHER_ECDSA | 1U << 2);
	fe_end(&d.fe);
}

int main(void)
{
	fe_each_mode_in_order("ciphers", ciphers);
	fe_each_mode("digests", digests);
	fe_each_mode("authenticated encryption", aeads);
	fe_each_layout("cipher and hash", chains);
	fe_each_layout("RSA", rsa);
	fe_each_layout("ECDSA", ecdsa);
	fe_case("configuration", config, NULL);
	return tap_done();
}
