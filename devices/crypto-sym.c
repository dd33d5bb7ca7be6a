/* SPDX-License-Identifier: MIT */
/*
 * Ciphers, hashes, MACs and authenticated encryption (virtio 1.3, 5.9.7.2 to 5.9.7.5), by libcrypto's EVP.
 *
 * Data goes between source and destination in guest memory without a copy, piece by piece as they are scattered. A block that
 * lies across pieces is put together aside; algorithms that must see everything at once (XTS, CCM) get a copy where
 * the data is scattered.
 *
 * The plaintext of a message whose tag turns out wrong is wiped from the destination.
 */
#include <string.h>

#include "crypto.h"

struct cipher_row {
	uint32_t algo;
	uint16_t key_len;
	uint8_t iv_len, block; /* block 1: any length */
	bool whole;
	const char *name;
};

static const struct cipher_row ciphers[] = {
	{VIRTIO_CRYPTO_CIPHER_AES_ECB, 16, 0, 16, false, "AES-128-ECB"},
	{VIRTIO_CRYPTO_CIPHER_AES_ECB, 24, 0, 16, false, "AES-192-ECB"},
	{VIRTIO_CRYPTO_CIPHER_AES_ECB, 32, 0, 16, false, "AES-256-ECB"},
	{VIRTIO_CRYPTO_CIPHER_AES_CBC, 16, 16, 16, false, "AES-128-CBC"},
	{VIRTIO_CRYPTO_CIPHER_AES_CBC, 24, 16, 16, false, "AES-192-CBC"},
	{VIRTIO_CRYPTO_CIPHER_AES_CBC, 32, 16, 16, false, "AES-256-CBC"},
	{VIRTIO_CRYPTO_CIPHER_AES_CTR, 16, 16, 1, false, "AES-128-CTR"},
	{VIRTIO_CRYPTO_CIPHER_AES_CTR, 24, 16, 1, false, "AES-192-CTR"},
	{VIRTIO_CRYPTO_CIPHER_AES_CTR, 32, 16, 1, false, "AES-256-CTR"},
	{VIRTIO_CRYPTO_CIPHER_AES_XTS, 32, 16, 1, true, "AES-128-XTS"},
	{VIRTIO_CRYPTO_CIPHER_AES_XTS, 64, 16, 1, true, "AES-256-XTS"},
	{VIRTIO_CRYPTO_CIPHER_3DES_ECB, 24, 0, 8, false, "DES-EDE3-ECB"},
	{VIRTIO_CRYPTO_CIPHER_3DES_CBC, 24, 8, 8, false, "DES-EDE3-CBC"},
};

static const struct cipher_row aeads[] = {
	{VIRTIO_CRYPTO_AEAD_GCM, 16, 12, 1, false, "AES-128-GCM"},
	{VIRTIO_CRYPTO_AEAD_GCM, 24, 12, 1, false, "AES-192-GCM"},
	{VIRTIO_CRYPTO_AEAD_GCM, 32, 12, 1, false, "AES-256-GCM"},
	{VIRTIO_CRYPTO_AEAD_CCM, 16, 12, 1, true, "AES-128-CCM"},
	{VIRTIO_CRYPTO_AEAD_CCM, 24, 12, 1, true, "AES-192-CCM"},
	{VIRTIO_CRYPTO_AEAD_CCM, 32, 12, 1, true, "AES-256-CCM"},
	{VIRTIO_CRYPTO_AEAD_CHACHA20_POLY1305, 32, 12, 1, false, "ChaCha20-Poly1305"},
};

static const char *const hashes[] = {
	[VIRTIO_CRYPTO_HASH_MD5] = "MD5",
	[VIRTIO_CRYPTO_HASH_SHA1] = "SHA1",
	[VIRTIO_CRYPTO_HASH_SHA_224] = "SHA224",
	[VIRTIO_CRYPTO_HASH_SHA_256] = "SHA256",
	[VIRTIO_CRYPTO_HASH_SHA_384] = "SHA384",
	[VIRTIO_CRYPTO_HASH_SHA_512] = "SHA512",
	[VIRTIO_CRYPTO_HASH_SHA3_224] = "SHA3-224",
	[VIRTIO_CRYPTO_HASH_SHA3_256] = "SHA3-256",
	[VIRTIO_CRYPTO_HASH_SHA3_384] = "SHA3-384",
	[VIRTIO_CRYPTO_HASH_SHA3_512] = "SHA3-512",
	[VIRTIO_CRYPTO_HASH_SHA3_SHAKE128] = "SHAKE128",
	[VIRTIO_CRYPTO_HASH_SHA3_SHAKE256] = "SHAKE256",
};

struct mac_row {
	uint32_t algo;
	uint16_t key_len; /* 0: any */
	const char *mac, *digest, *cipher;
};

static const struct mac_row macs[] = {
	{VIRTIO_CRYPTO_MAC_HMAC_MD5, 0, "HMAC", "MD5", NULL},
	{VIRTIO_CRYPTO_MAC_HMAC_SHA1, 0, "HMAC", "SHA1", NULL},
	{VIRTIO_CRYPTO_MAC_HMAC_SHA_224, 0, "HMAC", "SHA224", NULL},
	{VIRTIO_CRYPTO_MAC_HMAC_SHA_256, 0, "HMAC", "SHA256", NULL},
	{VIRTIO_CRYPTO_MAC_HMAC_SHA_384, 0, "HMAC", "SHA384", NULL},
	{VIRTIO_CRYPTO_MAC_HMAC_SHA_512, 0, "HMAC", "SHA512", NULL},
	{VIRTIO_CRYPTO_MAC_CMAC_3DES, 24, "CMAC", NULL, "DES-EDE3-CBC"},
	{VIRTIO_CRYPTO_MAC_CMAC_AES, 16, "CMAC", NULL, "AES-128-CBC"},
	{VIRTIO_CRYPTO_MAC_CMAC_AES, 24, "CMAC", NULL, "AES-192-CBC"},
	{VIRTIO_CRYPTO_MAC_CMAC_AES, 32, "CMAC", NULL, "AES-256-CBC"},
};

/* ---- what there is ---- */

static bool cipher_works(const char *name)
{
	EVP_CIPHER *c = ossl.EVP_CIPHER_fetch(NULL, name, NULL);

	ossl.EVP_CIPHER_free(c);
	return c != NULL;
}

static bool hash_works(const char *name)
{
	EVP_MD *md = ossl.EVP_MD_fetch(NULL, name, NULL);

	ossl.EVP_MD_free(md);
	return md != NULL;
}

static void mask_set(__le32 *low, __le32 *high, uint32_t algo)
{
	__le32 *word = algo < 32 ? low : high;

	*word = htole32(le32toh(*word) | 1U << algo % 32);
}

void crypto_sym_config(struct virtio_crypto_config *config)
{
	for (size_t i = 0; i < ARRAY_SIZE(ciphers); i++)
		if (cipher_works(ciphers[i].name))
			mask_set(&config->cipher_algo_l, &config->cipher_algo_h, ciphers[i].algo);
	for (size_t i = 0; i < ARRAY_SIZE(aeads); i++)
		if (cipher_works(aeads[i].name))
			mask_set(&config->aead_algo, NULL, aeads[i].algo);
	for (uint32_t i = 1; i < ARRAY_SIZE(hashes); i++)
		if (hash_works(hashes[i]))
			mask_set(&config->hash_algo, NULL, i);
	for (size_t i = 0; i < ARRAY_SIZE(macs); i++)
		if (macs[i].digest ? hash_works(macs[i].digest) : cipher_works(macs[i].cipher))
			mask_set(&config->mac_algo_l, &config->mac_algo_h, macs[i].algo);
	ossl.ERR_clear_error();
}

/* ---- engines ---- */

/* The row of an algorithm and key length; *known: the algorithm is one at all. */
static const struct cipher_row *row_find(
	const struct cipher_row *rows, size_t n, uint32_t algo, uint32_t key_len, bool *known)
{
	*known = false;
	for (size_t i = 0; i < n; i++) {
		*known |= rows[i].algo == algo;
		if (rows[i].algo == algo && rows[i].key_len == key_len)
			return &rows[i];
	}
	return NULL;
}

static uint8_t cipher_setup(struct crypto_engine *e, const struct cipher_row *row, const uint8_t *key)
{
	EVP_CIPHER *c = ossl.EVP_CIPHER_fetch(NULL, row->name, NULL);
	bool ok;

	e->cipher = ossl.EVP_CIPHER_CTX_new();
	ok = c && e->cipher && ossl.EVP_CipherInit_ex2(e->cipher, c, key, NULL, e->encrypt, NULL) == 1 &&
	     ossl.EVP_CIPHER_CTX_set_padding(e->cipher, 0) == 1;
	ossl.EVP_CIPHER_free(c);
	e->block = row->block;
	e->iv_len = row->iv_len;
	e->whole = row->whole;
	return ok ? VIRTIO_CRYPTO_OK : c ? VIRTIO_CRYPTO_ERR : VIRTIO_CRYPTO_NOTSUPP;
}

static uint8_t hash_setup(struct crypto_engine *e, uint32_t algo, uint32_t result_len)
{
	const char *name = algo < ARRAY_SIZE(hashes) ? hashes[algo] : NULL;

	e->md = name ? ossl.EVP_MD_fetch(NULL, name, NULL) : NULL;
	if (!e->md)
		return VIRTIO_CRYPTO_NOTSUPP;
	e->xof = algo == VIRTIO_CRYPTO_HASH_SHA3_SHAKE128 || algo == VIRTIO_CRYPTO_HASH_SHA3_SHAKE256;
	e->digest_len = e->xof ? CRYPTO_DIGEST_MAX : (uint32_t)ossl.EVP_MD_get_size(e->md);
	if (!result_len || result_len > e->digest_len)
		return VIRTIO_CRYPTO_ERR;
	e->result_len = result_len;
	e->md_ctx = ossl.EVP_MD_CTX_new();
	return e->md_ctx ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_NOSPC;
}

static const struct mac_row *mac_find(uint32_t algo, uint32_t key_len, bool *known)
{
	*known = false;
	for (size_t i = 0; i < ARRAY_SIZE(macs); i++) {
		*known |= macs[i].algo == algo;
		if (macs[i].algo == algo && (!macs[i].key_len || macs[i].key_len == key_len))
			return &macs[i];
	}
	return NULL;
}

static uint8_t mac_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	bool known, ok;
	const struct mac_row *row = mac_find(p->digest, p->auth_len, &known);
	OSSL_PARAM params[2];
	EVP_MAC *mac;

	if (!row)
		return known ? VIRTIO_CRYPTO_ERR : VIRTIO_CRYPTO_NOTSUPP;
	params[0] = row->digest ? ossl.OSSL_PARAM_construct_utf8_string(
					  OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t)row->digest, 0)
				: ossl.OSSL_PARAM_construct_utf8_string(
					  OSSL_MAC_PARAM_CIPHER, (char *)(uintptr_t)row->cipher, 0);
	params[1] = ossl.OSSL_PARAM_construct_end();
	mac = ossl.EVP_MAC_fetch(NULL, row->mac, NULL);
	e->mac = mac ? ossl.EVP_MAC_CTX_new(mac) : NULL;
	ossl.EVP_MAC_free(mac);
	ok = e->mac && ossl.EVP_MAC_init(e->mac, p->auth, p->auth_len, params) == 1;
	if (!ok)
		return VIRTIO_CRYPTO_ERR;
	e->digest_len = (uint32_t)ossl.EVP_MAC_CTX_get_mac_size(e->mac);
	if (!p->result_len || p->result_len > e->digest_len)
		return VIRTIO_CRYPTO_ERR;
	e->result_len = p->result_len;
	return VIRTIO_CRYPTO_OK;
}

static uint8_t aead_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	bool known;
	const struct cipher_row *row = row_find(aeads, ARRAY_SIZE(aeads), p->aead, p->key_len, &known);

	if (!row)
		return known ? VIRTIO_CRYPTO_ERR : VIRTIO_CRYPTO_NOTSUPP;
	e->gcm = p->aead == VIRTIO_CRYPTO_AEAD_GCM;
	e->ccm = p->aead == VIRTIO_CRYPTO_AEAD_CCM;
	e->tag_len = p->tag_len;
	if (p->tag_len > 16)
		return VIRTIO_CRYPTO_ERR;
	if (e->ccm)
		memcpy(e->ccm_key, p->key, p->key_len);
	return cipher_setup(e, row, e->ccm ? NULL : p->key);
}

uint8_t crypto_sym_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	const struct cipher_row *row;
	uint8_t status;
	bool known;

	switch (p->service) {
	case VIRTIO_CRYPTO_SERVICE_HASH:
		return hash_setup(e, p->digest, p->result_len);
	case VIRTIO_CRYPTO_SERVICE_MAC:
		return mac_setup(e, p);
	case VIRTIO_CRYPTO_SERVICE_AEAD:
		return aead_setup(e, p);
	default:
		break;
	}
	row = row_find(ciphers, ARRAY_SIZE(ciphers), p->cipher, p->key_len, &known);
	if (!row)
		return known ? VIRTIO_CRYPTO_ERR : VIRTIO_CRYPTO_NOTSUPP;
	status = cipher_setup(e, row, p->key);
	if (status != VIRTIO_CRYPTO_OK || !p->chain)
		return status;
	e->chain = true;
	e->hash_first = p->hash_first;
	return p->keyed ? mac_setup(e, p) : hash_setup(e, p->digest, p->result_len);
}

/* ---- data ---- */

static bool update(struct crypto_engine *e, uint8_t *to, const uint8_t *from, size_t len)
{
	int out = 0;

	return ossl.EVP_CipherUpdate(e->cipher, to, &out, from, (int)len) == 1 && (size_t)out == len;
}

/* All of it by way of the scratch buffer. */
static bool crypt_copied(struct crypto_engine *e, struct crypto_job *j, size_t len)
{
	return cursor_get(j->src, j->scratch, len) && update(e, j->scratch, j->scratch, len) &&
	       cursor_put(j->dst, j->scratch, len);
}

/* The next len bytes of src to dst. */
static bool crypt_bytes(struct crypto_engine *e, struct crypto_job *j, size_t len)
{
	while (len) {
		struct iovec s, d;
		uint8_t block[16];
		size_t n;

		if (!cursor_iovec(j->src, len, &s, 1) || !cursor_iovec(j->dst, len, &d, 1))
			return false;
		n = MIN(s.iov_len, d.iov_len);
		if (n < len && e->whole)
			return crypt_copied(e, j, len);
		if (n < len)
			n -= n % e->block;
		if (n) {
			if (!update(e, d.iov_base, s.iov_base, n) || !cursor_skip(j->src, n) ||
				!cursor_skip(j->dst, n))
				return false;
		} else {
			n = MIN((size_t)e->block, len);
			if (!cursor_get(j->src, block, n) || !update(e, block, block, n) ||
				!cursor_put(j->dst, block, n))
				return false;
		}
		len -= n;
	}
	return true;
}

static bool cipher_begin(struct crypto_engine *e, const struct crypto_job *j, size_t len)
{
	if (j->iv_len != e->iv_len || len % e->block || (e->whole && len < 16))
		return false;
	return ossl.EVP_CipherInit_ex2(e->cipher, NULL, NULL, e->iv_len ? j->iv : NULL, -1, NULL) == 1;
}

uint8_t crypto_sym_cipher(struct crypto_engine *e, struct crypto_job *j)
{
	if (j->dst_len < j->src_len || j->dst->left < j->src_len || !cipher_begin(e, j, j->src_len))
		return VIRTIO_CRYPTO_ERR;
	return crypt_bytes(e, j, j->src_len) ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

static bool digest_begin(struct crypto_engine *e)
{
	return e->mac ? ossl.EVP_MAC_init(e->mac, NULL, 0, NULL) == 1
		      : ossl.EVP_DigestInit_ex2(e->md_ctx, e->md, NULL) == 1;
}

static bool digest_add(struct crypto_engine *e, const void *data, size_t len)
{
	return e->mac ? ossl.EVP_MAC_update(e->mac, data, len) == 1
		      : ossl.EVP_DigestUpdate(e->md_ctx, data, len) == 1;
}

static bool digest_end(struct crypto_engine *e, uint8_t *out, size_t len)
{
	size_t got = 0;

	if (e->mac)
		return ossl.EVP_MAC_final(e->mac, out, &got, CRYPTO_DIGEST_MAX) == 1;
	return e->xof ? ossl.EVP_DigestFinalXOF(e->md_ctx, out, len) == 1
		      : ossl.EVP_DigestFinal_ex(e->md_ctx, out, NULL) == 1;
}

uint8_t crypto_sym_digest(struct crypto_engine *e, struct crypto_job *j)
{
	uint8_t out[CRYPTO_DIGEST_MAX];
	size_t left = j->src_len;

	if (j->result_len > e->result_len || j->result_len > j->dst->left)
		return VIRTIO_CRYPTO_ERR;
	if (!digest_begin(e))
		return VIRTIO_CRYPTO_ERR;
	while (left) {
		struct iovec s;

		if (!cursor_iovec(j->src, left, &s, 1) || !digest_add(e, s.iov_base, s.iov_len))
			return VIRTIO_CRYPTO_ERR;
		cursor_skip(j->src, s.iov_len);
		left -= s.iov_len;
	}
	if (!digest_end(e, out, e->result_len))
		return VIRTIO_CRYPTO_ERR;
	return cursor_put(j->dst, out, j->result_len) ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

static bool within(size_t at, size_t len, size_t size)
{
	return at <= size && len <= size - at;
}

static bool chain_digest(struct crypto_engine *e, const struct crypto_job *j, uint8_t *out)
{
	return digest_begin(e) && (!j->aad_len || digest_add(e, j->aad, j->aad_len)) &&
	       digest_add(e, j->scratch + j->hash_at, j->hash_len) && digest_end(e, out, e->result_len);
}

/* The digest covers the associated data and a part of the data: of what comes in, or of what goes out, as the order says. */
uint8_t crypto_sym_chain(struct crypto_engine *e, struct crypto_job *j)
{
	uint8_t out[CRYPTO_DIGEST_MAX];
	bool ok;

	if (!within(j->cipher_at, j->cipher_len, j->src_len) ||
		!within(j->hash_at, j->hash_len, j->src_len) || j->dst_len < j->src_len ||
		j->result_len > e->result_len || j->dst->left < j->dst_len + j->result_len ||
		!cipher_begin(e, j, j->cipher_len))
		return VIRTIO_CRYPTO_ERR;
	ok = cursor_get(j->src, j->scratch, j->src_len);
	if (ok && e->hash_first)
		ok = chain_digest(e, j, out);
	if (ok && j->cipher_len)
		ok = update(e, j->scratch + j->cipher_at, j->scratch + j->cipher_at, j->cipher_len);
	if (ok && !e->hash_first)
		ok = chain_digest(e, j, out);
	if (!ok)
		return VIRTIO_CRYPTO_ERR;
	cursor_put(j->dst, j->scratch, j->src_len);
	cursor_skip(j->dst, j->dst_len - j->src_len);
	return cursor_put(j->dst, out, j->result_len) ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

/* ---- authenticated encryption ---- */

static bool aead_begin(struct crypto_engine *e, const struct crypto_job *j, size_t len, uint8_t *tag)
{
	int out = 0;

	if (ossl.EVP_CIPHER_CTX_ctrl(e->cipher, EVP_CTRL_AEAD_SET_IVLEN, (int)j->iv_len, NULL) != 1)
		return false;
	if ((e->ccm || !e->encrypt) && ossl.EVP_CIPHER_CTX_ctrl(e->cipher, EVP_CTRL_AEAD_SET_TAG,
					       (int)j->tag_len, e->encrypt ? NULL : tag) != 1)
		return false;
	if (ossl.EVP_CipherInit_ex2(e->cipher, NULL, e->ccm ? e->ccm_key : NULL, j->iv, -1, NULL) != 1)
		return false;
	if (e->ccm && ossl.EVP_CipherUpdate(e->cipher, NULL, &out, NULL, (int)len) != 1)
		return false;
	return !j->aad_len || ossl.EVP_CipherUpdate(e->cipher, NULL, &out, j->aad, (int)j->aad_len) == 1;
}

static uint8_t aead_seal(struct crypto_engine *e, struct crypto_job *j)
{
	uint8_t tag[16];
	int out = 0;

	if (j->dst_len < j->src_len + j->tag_len || j->dst->left < j->src_len + j->tag_len)
		return VIRTIO_CRYPTO_ERR;
	if (!aead_begin(e, j, j->src_len, NULL) || !crypt_bytes(e, j, j->src_len) ||
		(!j->src_len && e->ccm && !update(e, tag, tag, 0)) ||
		ossl.EVP_CipherFinal_ex(e->cipher, tag, &out) != 1 ||
		ossl.EVP_CIPHER_CTX_ctrl(e->cipher, EVP_CTRL_AEAD_GET_TAG, (int)j->tag_len, tag) != 1)
		return VIRTIO_CRYPTO_ERR;
	return cursor_put(j->dst, tag, j->tag_len) ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

/* The tag stands behind the data. CCM checks it before it gives anything, the others at the end. */
static uint8_t aead_open(struct crypto_engine *e, struct crypto_job *j)
{
	size_t len = j->src_len - j->tag_len, room = j->dst->left;
	struct cursor data, wipe;
	uint8_t tag[16], none[16];
	bool ok;
	int out = 0;

	if (j->src_len < j->tag_len || j->dst_len < len || j->dst->left < len)
		return VIRTIO_CRYPTO_ERR;
	wipe = *j->dst;
	wipe.up = NULL;
	if (!cursor_split(j->src, len, &data) || !cursor_get(j->src, tag, j->tag_len))
		return VIRTIO_CRYPTO_ERR;
	j->src = &data;
	if (!aead_begin(e, j, len, tag))
		return VIRTIO_CRYPTO_ERR;
	ok = crypt_bytes(e, j, len) && (len || !e->ccm || update(e, none, none, 0)) &&
	     (e->ccm || ossl.EVP_CipherFinal_ex(e->cipher, none, &out) == 1);
	if (ok)
		return VIRTIO_CRYPTO_OK;
	cursor_zero(&wipe, len);
	cursor_skip(j->dst, len - (room - j->dst->left)); /* all of it was written */
	return VIRTIO_CRYPTO_BADMSG;
}

/* Sixteen bytes are the first counter block, which an IV of twelve, that libcrypto takes, has a one behind it in. */
static bool is_counter_block(const struct crypto_engine *e, const struct crypto_job *j)
{
	static const uint8_t one[4] = {0, 0, 0, 1};

	return e->gcm && j->iv_len == 16 && memcmp(j->iv + 12, one, sizeof(one)) == 0;
}

uint8_t crypto_sym_aead(struct crypto_engine *e, struct crypto_job *j)
{
	if (is_counter_block(e, j))
		j->iv_len = 12;
	if (!j->tag_len)
		j->tag_len = e->tag_len;
	if (!j->tag_len || j->tag_len > 16 ||
		(e->ccm ? j->iv_len < 7 || j->iv_len > 13 : !j->iv_len || j->iv_len > 12))
		return VIRTIO_CRYPTO_ERR;
	return e->encrypt ? aead_seal(e, j) : aead_open(e, j);
}
