/* SPDX-License-Identifier: MIT */
/*
 * Algorithms with two keys (virtio 1.3, 5.9.7.6): RSA, raw or with PKCS#1 v1.5 padding, and ECDSA.
 *
 * RSA keys are the RSAPublicKey and RSAPrivateKey of PKCS#1 in DER. A private key of ECDSA is an ECPrivateKey in DER, a public
 * one the uncompressed point. Raw RSA takes numbers of any length up to the modulus's, and gives the modulus's.
 */
#include <string.h>

#include "crypto.h"

enum { MODULUS_MAX = 1024 }; /* bytes: 8192 bits */

static const char *const rsa_hashes[] = {
	[VIRTIO_CRYPTO_RSA_MD5] = "MD5",
	[VIRTIO_CRYPTO_RSA_SHA1] = "SHA1",
	[VIRTIO_CRYPTO_RSA_SHA224] = "SHA224",
	[VIRTIO_CRYPTO_RSA_SHA256] = "SHA256",
	[VIRTIO_CRYPTO_RSA_SHA384] = "SHA384",
	[VIRTIO_CRYPTO_RSA_SHA512] = "SHA512",
};

static const char *const curves[] = {
	[VIRTIO_CRYPTO_CURVE_NIST_P192] = "P-192",
	[VIRTIO_CRYPTO_CURVE_NIST_P224] = "P-224",
	[VIRTIO_CRYPTO_CURVE_NIST_P256] = "P-256",
	[VIRTIO_CRYPTO_CURVE_NIST_P384] = "P-384",
	[VIRTIO_CRYPTO_CURVE_NIST_P521] = "P-521",
};

static bool key_pair_works(const char *name)
{
	EVP_PKEY_CTX *ctx = ossl.EVP_PKEY_CTX_new_from_name(NULL, name, NULL);
	bool ok = ctx && ossl.EVP_PKEY_fromdata_init(ctx) == 1;

	ossl.EVP_PKEY_CTX_free(ctx);
	ossl.ERR_clear_error();
	return ok;
}

uint32_t crypto_asym_algorithms(void)
{
	uint32_t mask = 0;

	if (key_pair_works("RSA"))
		mask |= 1U << VIRTIO_CRYPTO_AKCIPHER_RSA;
	if (key_pair_works("EC"))
		mask |= 1U << VIRTIO_CRYPTO_AKCIPHER_ECDSA | 1U << CRYPTO_AKCIPHER_ECDSA_SPEC;
	return mask;
}

static uint8_t rsa_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	const unsigned char *der = p->key;
	const char *name = p->rsa_hash < ARRAY_SIZE(rsa_hashes) ? rsa_hashes[p->rsa_hash] : NULL;

	if (p->padding == VIRTIO_CRYPTO_RSA_RAW_PADDING)
		e->padding = RSA_NO_PADDING;
	else if (p->padding == VIRTIO_CRYPTO_RSA_PKCS1_PADDING)
		e->padding = RSA_PKCS1_PADDING;
	else
		return VIRTIO_CRYPTO_NOTSUPP;
	if (p->padding == VIRTIO_CRYPTO_RSA_PKCS1_PADDING && p->rsa_hash != VIRTIO_CRYPTO_RSA_NO_HASH) {
		e->signature_md = name ? ossl.EVP_MD_fetch(NULL, name, NULL) : NULL;
		if (!e->signature_md)
			return VIRTIO_CRYPTO_NOTSUPP;
	}
	e->pkey = p->private ? ossl.d2i_PrivateKey(EVP_PKEY_RSA, NULL, &der, p->key_len)
			     : ossl.d2i_PublicKey(EVP_PKEY_RSA, NULL, &der, p->key_len);
	return e->pkey && ossl.EVP_PKEY_get_size(e->pkey) <= MODULUS_MAX ? VIRTIO_CRYPTO_OK
									 : VIRTIO_CRYPTO_ERR;
}

static EVP_PKEY *point_key(const char *curve, const struct crypto_params *p)
{
	EVP_PKEY_CTX *ctx = ossl.EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	EVP_PKEY *pkey = NULL;
	OSSL_PARAM params[] = {
		ossl.OSSL_PARAM_construct_utf8_string(
			OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)curve, 0),
		ossl.OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, p->key, p->key_len),
		ossl.OSSL_PARAM_construct_end(),
	};

	if (ctx && ossl.EVP_PKEY_fromdata_init(ctx) == 1)
		ossl.EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params);
	ossl.EVP_PKEY_CTX_free(ctx);
	return pkey;
}

static uint8_t ecdsa_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	const unsigned char *der = p->key;
	const char *curve = p->curve < ARRAY_SIZE(curves) ? curves[p->curve] : NULL;

	e->ecdsa = true;
	if (!curve)
		return VIRTIO_CRYPTO_NOTSUPP;
	e->pkey = p->private ? ossl.d2i_PrivateKey(EVP_PKEY_EC, NULL, &der, p->key_len) : point_key(curve, p);
	return e->pkey ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

uint8_t crypto_asym_setup(struct crypto_engine *e, const struct crypto_params *p)
{
	switch (p->akcipher) {
	case VIRTIO_CRYPTO_AKCIPHER_RSA:
		return rsa_setup(e, p);
	case VIRTIO_CRYPTO_AKCIPHER_ECDSA:
	case CRYPTO_AKCIPHER_ECDSA_SPEC:
		return ecdsa_setup(e, p);
	default:
		return VIRTIO_CRYPTO_NOTSUPP;
	}
}

static bool op_init(const struct crypto_engine *e, EVP_PKEY_CTX *ctx, unsigned op)
{
	switch (op) {
	case CRYPTO_ENCRYPT:
		return ossl.EVP_PKEY_encrypt_init(ctx) == 1;
	case CRYPTO_DECRYPT:
		return ossl.EVP_PKEY_decrypt_init(ctx) == 1;
	case CRYPTO_SIGN:
		return ossl.EVP_PKEY_sign_init(ctx) == 1 &&
		       (!e->signature_md || ossl.EVP_PKEY_CTX_set_signature_md(ctx, e->signature_md) == 1);
	default:
		return ossl.EVP_PKEY_verify_init(ctx) == 1 &&
		       (!e->signature_md || ossl.EVP_PKEY_CTX_set_signature_md(ctx, e->signature_md) == 1);
	}
}

/* The context of an operation, made at its first use. */
static EVP_PKEY_CTX *op_context(struct crypto_engine *e, unsigned op)
{
	EVP_PKEY_CTX *ctx = e->ops[op];

	if (ctx)
		return ctx;
	ctx = ossl.EVP_PKEY_CTX_new(e->pkey, NULL);
	if (ctx && op_init(e, ctx, op) &&
		(e->ecdsa || ossl.EVP_PKEY_CTX_set_rsa_padding(ctx, (int)e->padding) == 1)) {
		e->ops[op] = ctx;
		return ctx;
	}
	ossl.EVP_PKEY_CTX_free(ctx);
	return NULL;
}

/* Puts leading zeros before the number at p, which has room for size bytes. */
static size_t pad(uint8_t *p, size_t len, size_t size)
{
	memmove(p + size - len, p, len);
	memset(p, 0, size - len);
	return size;
}

static uint8_t transform(struct crypto_engine *e, struct crypto_job *j, unsigned op, uint8_t *in, size_t len)
{
	EVP_PKEY_CTX *ctx = op_context(e, op);
	uint8_t out[MODULUS_MAX];
	size_t n = sizeof(out);
	int r;

	if (!ctx)
		return VIRTIO_CRYPTO_NOTSUPP;
	if (op == CRYPTO_ENCRYPT)
		r = ossl.EVP_PKEY_encrypt(ctx, out, &n, in, len);
	else if (op == CRYPTO_DECRYPT)
		r = ossl.EVP_PKEY_decrypt(ctx, out, &n, in, len);
	else
		r = ossl.EVP_PKEY_sign(ctx, out, &n, in, len);
	if (r != 1)
		return VIRTIO_CRYPTO_ERR;
	if (n > j->dst_len || !cursor_put(j->dst, out, n))
		r = 0;
	ossl.OPENSSL_cleanse(out, n);
	return r == 1 ? VIRTIO_CRYPTO_OK : VIRTIO_CRYPTO_ERR;
}

/* Raw: what the signature was made of must be the digest, leading zeros aside. */
static uint8_t verify_raw(
	struct crypto_engine *e, const uint8_t *sig, size_t sig_len, const uint8_t *digest, size_t len)
{
	EVP_PKEY_CTX *ctx = op_context(e, CRYPTO_ENCRYPT);
	uint8_t out[MODULUS_MAX];
	size_t n = sizeof(out);

	if (!ctx || ossl.EVP_PKEY_encrypt(ctx, out, &n, sig, sig_len) != 1 || len > n)
		return VIRTIO_CRYPTO_ERR;
	for (size_t i = 0; i < n - len; i++)
		if (out[i])
			return VIRTIO_CRYPTO_KEY_REJECTED;
	return memcmp(out + n - len, digest, len) ? VIRTIO_CRYPTO_KEY_REJECTED : VIRTIO_CRYPTO_OK;
}

static uint8_t verify(struct crypto_engine *e, struct crypto_job *j, const uint8_t *sig, size_t sig_len)
{
	uint8_t digest[MODULUS_MAX];
	EVP_PKEY_CTX *ctx;

	if (j->dst_len > sizeof(digest) || !cursor_get(j->dst, digest, j->dst_len))
		return VIRTIO_CRYPTO_ERR;
	if (!e->ecdsa && e->padding == RSA_NO_PADDING)
		return verify_raw(e, sig, sig_len, digest, j->dst_len);
	ctx = op_context(e, CRYPTO_VERIFY);
	if (!ctx)
		return VIRTIO_CRYPTO_NOTSUPP;
	return ossl.EVP_PKEY_verify(ctx, sig, sig_len, digest, j->dst_len) == 1 ? VIRTIO_CRYPTO_OK
										: VIRTIO_CRYPTO_KEY_REJECTED;
}

uint8_t crypto_asym_run(struct crypto_engine *e, struct crypto_job *j, uint32_t opcode)
{
	size_t size = (size_t)ossl.EVP_PKEY_get_size(e->pkey), len = j->src_len;
	bool raw = !e->ecdsa && e->padding == RSA_NO_PADDING;
	unsigned op = opcode & 0xff;
	uint8_t in[MODULUS_MAX], status;

	if (op > CRYPTO_VERIFY || (e->ecdsa && op < CRYPTO_SIGN))
		return VIRTIO_CRYPTO_NOTSUPP;
	if ((op == CRYPTO_DECRYPT || op == CRYPTO_SIGN) && !e->private)
		return VIRTIO_CRYPTO_ERR;
	if (!len || len > size || !cursor_get(j->src, in, len))
		return VIRTIO_CRYPTO_ERR;
	if (raw)
		len = pad(in, len, size);
	if (op == CRYPTO_VERIFY)
		status = verify(e, j, in, len);
	else
		status = transform(e, j, raw && op == CRYPTO_SIGN ? CRYPTO_DECRYPT : op, in, len);
	ossl.OPENSSL_cleanse(in, len);
	ossl.ERR_clear_error();
	return status;
}
