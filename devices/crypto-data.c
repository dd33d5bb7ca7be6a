/* SPDX-License-Identifier: MIT */
/*
 * The requests of the data queues (virtio 1.3, 5.9.7.3 to 5.9.7.8): of a session, or stateless, with keys and parameters in each
 * request. A stateless request is worked off like one of a session that lives as long as the request.
 *
 * A request is a header, fields of a fixed length, then keys, IV, data and associated data of the lengths that those fields tell.
 * Without VIRTIO_CRYPTO_F_REVISION_1 the fields are padded to 48 bytes, and all requests are of sessions. Where the stateless
 * mode of a service is negotiated a flag in the header tells the two kinds apart, and so the layout of the fields.
 */
#include <string.h>

#include "crypto.h"

enum { IV_MAX = 64, FIELDS_LEGACY = 48 };

/* The fixed fields in their various forms. */
union fields {
	uint8_t bytes[80];
	struct virtio_crypto_sym_data_req sym;
	struct virtio_crypto_hash_para digest; /* HASH and MAC */
	struct crypto_aead_para aead;
	struct virtio_crypto_akcipher_para akcipher;
	struct crypto_sym_stateless sym_alone;
	struct crypto_hash_stateless hash_alone;
	struct crypto_mac_stateless mac_alone;
	struct crypto_aead_stateless aead_alone;
	struct crypto_akcipher_stateless akcipher_alone;
};

/* Bytes on the wire, by service. */
static const uint8_t fields_size[CRYPTO_SERVICES] = {
	[VIRTIO_CRYPTO_SERVICE_CIPHER] = sizeof(struct virtio_crypto_sym_data_req),
	[VIRTIO_CRYPTO_SERVICE_HASH] = sizeof(struct virtio_crypto_hash_para),
	[VIRTIO_CRYPTO_SERVICE_MAC] = sizeof(struct virtio_crypto_hash_para),
	[VIRTIO_CRYPTO_SERVICE_AEAD] = sizeof(struct crypto_aead_para),
	[VIRTIO_CRYPTO_SERVICE_AKCIPHER] = sizeof(struct virtio_crypto_akcipher_para),
};

static const uint8_t alone_size[CRYPTO_SERVICES] = {
	[VIRTIO_CRYPTO_SERVICE_CIPHER] = sizeof(struct crypto_sym_stateless),
	[VIRTIO_CRYPTO_SERVICE_HASH] = sizeof(struct crypto_hash_stateless),
	[VIRTIO_CRYPTO_SERVICE_MAC] = sizeof(struct crypto_mac_stateless),
	[VIRTIO_CRYPTO_SERVICE_AEAD] = sizeof(struct crypto_aead_stateless),
	[VIRTIO_CRYPTO_SERVICE_AKCIPHER] = sizeof(struct crypto_akcipher_stateless),
};

/* Reads IV and associated data, splits the data off. */
static bool job_parts(struct crypto_worker *w, struct cursor *rd, struct crypto_job *j, struct cursor *src)
{
	uint8_t *side = w->scratch + w->max_size;

	if (j->iv_len > IV_MAX || j->src_len + j->aad_len > w->max_size || j->dst_len > w->max_size)
		return false;
	j->iv = side;
	j->aad = side + IV_MAX;
	j->src = src;
	j->scratch = w->scratch;
	if (!cursor_get(rd, side, j->iv_len))
		return false;
	if (j->aad_first)
		return cursor_get(rd, side + IV_MAX, j->aad_len) && cursor_split(rd, j->src_len, src);
	return cursor_split(rd, j->src_len, src) && cursor_get(rd, side + IV_MAX, j->aad_len);
}

/* Works a request off whose parts are next in rd. */
static uint8_t job_run(struct crypto_worker *w, struct crypto_engine *x, struct cursor *rd,
	struct crypto_job *j, uint32_t opcode)
{
	bool decrypt = opcode & 1;
	struct cursor src;

	if (!job_parts(w, rd, j, &src))
		return VIRTIO_CRYPTO_ERR;
	switch (opcode) {
	case VIRTIO_CRYPTO_CIPHER_ENCRYPT:
	case VIRTIO_CRYPTO_CIPHER_DECRYPT:
		if (x->encrypt == decrypt || x->chain != j->chain)
			return VIRTIO_CRYPTO_ERR;
		return j->chain ? crypto_sym_chain(x, j) : crypto_sym_cipher(x, j);
	case VIRTIO_CRYPTO_HASH:
	case VIRTIO_CRYPTO_MAC:
		return crypto_sym_digest(x, j);
	case VIRTIO_CRYPTO_AEAD_ENCRYPT:
	case VIRTIO_CRYPTO_AEAD_DECRYPT:
		return x->encrypt == decrypt ? VIRTIO_CRYPTO_ERR : crypto_sym_aead(x, j);
	case VIRTIO_CRYPTO_AKCIPHER_VERIFY:
		j->dst = rd; /* the digest follows the signature */
		return crypto_asym_run(x, j, opcode);
	default:
		return x->service == VIRTIO_CRYPTO_SERVICE_AKCIPHER ? crypto_asym_run(x, j, opcode)
								    : VIRTIO_CRYPTO_NOTSUPP;
	}
}

/* ---- of a session ---- */

static void chain_fields(const struct virtio_crypto_alg_chain_data_para *a, struct crypto_job *j)
{
	j->chain = true;
	j->iv_len = le32toh(a->iv_len);
	j->src_len = le32toh(a->src_data_len);
	j->dst_len = le32toh(a->dst_data_len);
	j->cipher_at = le32toh(a->cipher_start_src_offset);
	j->cipher_len = le32toh(a->len_to_cipher);
	j->hash_at = le32toh(a->hash_start_src_offset);
	j->hash_len = le32toh(a->len_to_hash);
	j->aad_len = le32toh(a->aad_len);
	j->result_len = le32toh(a->hash_result_len);
}

static bool sym_fields(const struct virtio_crypto_sym_data_req *s, struct crypto_job *j)
{
	const struct virtio_crypto_cipher_para *p = &s->u.cipher.para;

	if (le32toh(s->op_type) == VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING) {
		chain_fields(&s->u.chain.para, j);
		return true;
	}
	j->iv_len = le32toh(p->iv_len);
	j->src_len = le32toh(p->src_data_len);
	j->dst_len = le32toh(p->dst_data_len);
	return le32toh(s->op_type) == VIRTIO_CRYPTO_SYM_OP_CIPHER;
}

static bool job_fields(const union fields *f, uint32_t service, struct crypto_job *j)
{
	switch (service) {
	case VIRTIO_CRYPTO_SERVICE_CIPHER:
		return sym_fields(&f->sym, j);
	case VIRTIO_CRYPTO_SERVICE_AEAD:
		j->iv_len = le32toh(f->aead.iv_len);
		j->aad_len = le32toh(f->aead.aad_len);
		j->src_len = le32toh(f->aead.src_data_len);
		j->dst_len = le32toh(f->aead.dst_data_len);
		j->tag_len = le32toh(f->aead.tag_len);
		return true;
	case VIRTIO_CRYPTO_SERVICE_AKCIPHER:
		j->src_len = le32toh(f->akcipher.src_data_len);
		j->dst_len = le32toh(f->akcipher.dst_data_len);
		return true;
	default:
		j->src_len = le32toh(f->digest.src_data_len);
		j->result_len = le32toh(f->digest.hash_result_len);
		return true;
	}
}

static struct crypto_engine *engine_of(struct crypto_worker *w, uint64_t id)
{
	int slot = crypto_session_slot(w->sessions, id);
	struct crypto_engine *e;

	if (slot < 0)
		return NULL;
	e = w->engines[slot];
	if (likely(e && e->id == id))
		return e;
	crypto_engine_free(e);
	return w->engines[slot] = crypto_session_engine(w->sessions, id);
}

static uint8_t run_session(struct crypto_worker *w, struct cursor *rd,
	const struct virtio_crypto_op_header *h, struct crypto_job *j)
{
	uint32_t opcode = le32toh(h->opcode), service = opcode >> 8;
	struct crypto_engine *x = engine_of(w, le64toh(h->session_id));
	union fields f;

	if (!x)
		return VIRTIO_CRYPTO_INVSESS;
	if (service != x->service ||
		!cursor_get(rd, &f, w->revision_1 ? fields_size[service] : FIELDS_LEGACY) ||
		!job_fields(&f, service, j))
		return VIRTIO_CRYPTO_ERR;
	return job_run(w, x, rd, j, opcode);
}

/* ---- stateless ---- */

static bool sym_alone(const struct crypto_sym_stateless *s, struct crypto_params *p, struct crypto_job *j)
{
	const struct crypto_cipher_stateless *c = &s->u.cipher;
	const struct crypto_chain_stateless *a = &s->u.chain;

	if (le32toh(s->op_type) == VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING) {
		p->chain = true;
		p->hash_first = le32toh(a->order) == VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_HASH_THEN_CIPHER;
		p->keyed = le32toh(a->hash_mode) == VIRTIO_CRYPTO_SYM_HASH_MODE_AUTH;
		p->digest = le32toh(a->hash_algo);
		p->auth_len = p->keyed ? le32toh(a->auth_key_len) : 0;
		p->cipher = le32toh(a->cipher_algo);
		p->key_len = le32toh(a->key_len);
		p->encrypt = le32toh(a->op) == VIRTIO_CRYPTO_OP_ENCRYPT;
		p->result_len = le32toh(a->para.hash_result_len);
		chain_fields(&a->para, j);
		j->aad_first = true;
		return true;
	}
	p->cipher = le32toh(c->algo);
	p->key_len = le32toh(c->key_len);
	p->encrypt = le32toh(c->op) == VIRTIO_CRYPTO_OP_ENCRYPT;
	j->iv_len = le32toh(c->iv_len);
	j->src_len = le32toh(c->src_len);
	j->dst_len = le32toh(c->dst_len);
	return le32toh(s->op_type) == VIRTIO_CRYPTO_SYM_OP_CIPHER;
}

static void aead_alone(const struct crypto_aead_stateless *a, struct crypto_params *p, struct crypto_job *j)
{
	p->aead = le32toh(a->algo);
	p->key_len = le32toh(a->key_len);
	p->encrypt = le32toh(a->op) == VIRTIO_CRYPTO_OP_ENCRYPT;
	p->tag_len = le32toh(a->tag_len);
	j->iv_len = le32toh(a->iv_len);
	j->aad_len = le32toh(a->aad_len);
	j->src_len = le32toh(a->src_len);
	j->dst_len = le32toh(a->dst_len);
}

static void akcipher_alone(
	const struct crypto_akcipher_stateless *a, struct crypto_params *p, struct crypto_job *j)
{
	p->akcipher = le32toh(a->algo);
	p->private = le32toh(a->key_type) == VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_PRIVATE;
	p->key_len = le32toh(a->key_len);
	p->padding = le32toh(a->u.rsa.padding_algo);
	p->rsa_hash = le32toh(a->u.rsa.hash_algo);
	p->curve = le32toh(a->u.ecdsa.curve_id);
	j->src_len = le32toh(a->src_len);
	j->dst_len = le32toh(a->dst_len);
}

static bool alone_fields(const union fields *f, struct crypto_params *p, struct crypto_job *j)
{
	switch (p->service) {
	case VIRTIO_CRYPTO_SERVICE_CIPHER:
		return sym_alone(&f->sym_alone, p, j);
	case VIRTIO_CRYPTO_SERVICE_HASH:
		p->digest = le32toh(f->hash_alone.algo);
		j->src_len = le32toh(f->hash_alone.src_len);
		p->result_len = le32toh(f->hash_alone.result_len);
		j->result_len = p->result_len;
		return true;
	case VIRTIO_CRYPTO_SERVICE_MAC:
		p->keyed = true;
		p->digest = le32toh(f->mac_alone.algo);
		p->auth_len = le32toh(f->mac_alone.key_len);
		j->src_len = le32toh(f->mac_alone.src_len);
		p->result_len = le32toh(f->mac_alone.result_len);
		j->result_len = p->result_len;
		return true;
	case VIRTIO_CRYPTO_SERVICE_AEAD:
		aead_alone(&f->aead_alone, p, j);
		return true;
	default:
		akcipher_alone(&f->akcipher_alone, p, j);
		return true;
	}
}

static uint8_t run_alone(struct crypto_worker *w, struct cursor *rd, uint32_t opcode, struct crypto_job *j)
{
	uint8_t key[CRYPTO_ASYM_KEY_MAX], auth[CRYPTO_AUTH_KEY_MAX], status = VIRTIO_CRYPTO_ERR;
	struct crypto_params p = {.service = opcode >> 8, .key = key, .auth = auth};
	struct crypto_engine *x = NULL;
	union fields f;

	if (cursor_get(rd, &f, alone_size[p.service]) && alone_fields(&f, &p, j) && crypto_keys_get(rd, &p))
		status = crypto_engine_new(&x, &p);
	ossl.OPENSSL_cleanse(key, MIN(p.key_len, sizeof(key)));
	ossl.OPENSSL_cleanse(auth, MIN(p.auth_len, sizeof(auth)));
	if (status != VIRTIO_CRYPTO_OK)
		return status;
	status = job_run(w, x, rd, j, opcode);
	crypto_engine_free(x);
	return status;
}

uint8_t crypto_data_run(struct crypto_worker *w, struct element *e, struct cursor *dst)
{
	struct crypto_job j = {.dst = dst};
	struct virtio_crypto_op_header h;
	uint32_t service;

	if (!cursor_get(&e->rd, &h, sizeof(h)) || e->fault)
		return VIRTIO_CRYPTO_ERR;
	service = le32toh(h.opcode) >> 8;
	if (service >= CRYPTO_SERVICES)
		return VIRTIO_CRYPTO_NOTSUPP;
	if (!w->revision_1 || le32toh(h.flag) & CRYPTO_FLAG_SESSION_MODE)
		return run_session(w, &e->rd, &h, &j);
	return w->stateless[service] ? run_alone(w, &e->rd, le32toh(h.opcode), &j) : VIRTIO_CRYPTO_NOTSUPP;
}
