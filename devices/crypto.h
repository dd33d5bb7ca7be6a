/* SPDX-License-Identifier: MIT */
/*
 * The parts of the crypto device: queues and how sessions are made (crypto.c), their table (crypto-session.c), requests
 * (crypto-data.c), and the algorithms, which are libcrypto's: symmetric ones (crypto-sym.c) and those with two keys
 * (crypto-asym.c).
 *
 * A session is what the driver described: algorithm, direction, keys. The table of sessions has a lock, for making and closing
 * them. To work with a session a queue has an engine made of it: libcrypto's contexts, keyed and ready, which only
 * the queue's thread touches. So a request takes no lock, and queues share nothing but the numbers of the sessions that are valid.
 */
#ifndef CRYPTO_H
#define CRYPTO_H

#include <linux/virtio_crypto.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <pthread.h>

#include "crypto-wire.h"
#include "device.h"
#include "library.h"

enum {
	CRYPTO_CIPHER_KEY_MAX = 64, /* bytes: AES-256-XTS */
	CRYPTO_AUTH_KEY_MAX = 512,
	CRYPTO_ASYM_KEY_MAX = 8192, /* bytes of DER */
	CRYPTO_DIGEST_MAX = 64,
	CRYPTO_DATA_QUEUES = 16,
	CRYPTO_SERVICES = VIRTIO_CRYPTO_SERVICE_AKCIPHER + 1,
};

/* clang-format off */
#define CRYPTO_FUNCTIONS(F) \
	F(EVP_CIPHER_fetch) \
	F(EVP_CIPHER_free) \
	F(EVP_CIPHER_CTX_new) \
	F(EVP_CIPHER_CTX_free) \
	F(EVP_CIPHER_CTX_ctrl) \
	F(EVP_CIPHER_CTX_set_padding) \
	F(EVP_CipherInit_ex2) \
	F(EVP_CipherUpdate) \
	F(EVP_CipherFinal_ex) \
	F(EVP_MD_fetch) \
	F(EVP_MD_free) \
	F(EVP_MD_get_size) \
	F(EVP_MD_CTX_new) \
	F(EVP_MD_CTX_free) \
	F(EVP_DigestInit_ex2) \
	F(EVP_DigestUpdate) \
	F(EVP_DigestFinal_ex) \
	F(EVP_DigestFinalXOF) \
	F(EVP_MAC_fetch) \
	F(EVP_MAC_free) \
	F(EVP_MAC_CTX_new) \
	F(EVP_MAC_CTX_free) \
	F(EVP_MAC_CTX_get_mac_size) \
	F(EVP_MAC_init) \
	F(EVP_MAC_update) \
	F(EVP_MAC_final) \
	F(OSSL_PARAM_construct_utf8_string) \
	F(OSSL_PARAM_construct_octet_string) \
	F(OSSL_PARAM_construct_end) \
	F(EVP_PKEY_free) \
	F(EVP_PKEY_get_size) \
	F(EVP_PKEY_CTX_new) \
	F(EVP_PKEY_CTX_new_from_name) \
	F(EVP_PKEY_CTX_free) \
	F(EVP_PKEY_CTX_set_rsa_padding) \
	F(EVP_PKEY_CTX_set_signature_md) \
	F(EVP_PKEY_encrypt_init) \
	F(EVP_PKEY_encrypt) \
	F(EVP_PKEY_decrypt_init) \
	F(EVP_PKEY_decrypt) \
	F(EVP_PKEY_sign_init) \
	F(EVP_PKEY_sign) \
	F(EVP_PKEY_verify_init) \
	F(EVP_PKEY_verify) \
	F(EVP_PKEY_verify_recover_init) \
	F(EVP_PKEY_verify_recover) \
	F(EVP_PKEY_fromdata_init) \
	F(EVP_PKEY_fromdata) \
	F(d2i_PublicKey) \
	F(d2i_PrivateKey) \
	F(OPENSSL_cleanse) \
	F(ERR_clear_error)
/* clang-format on */

LIBRARY(crypto_library, CRYPTO_FUNCTIONS);
extern struct crypto_library ossl;

/* What a session is made of. Plain numbers of the host's; keys are the session's own memory. */
struct crypto_params {
	uint32_t service; /* VIRTIO_CRYPTO_SERVICE_* */
	bool chain;	  /* CIPHER: with a hash or MAC beside it */
	bool hash_first, keyed;
	bool encrypt;				 /* CIPHER, AEAD */
	bool private;				 /* AKCIPHER */
	uint32_t cipher, digest, aead, akcipher; /* algorithms; digest: HASH's, or MAC's where keyed */
	uint32_t result_len, aad_len, tag_len;
	uint32_t padding, rsa_hash, curve;
	uint8_t *key, *auth;
	uint32_t key_len, auth_len;
};

/* Of a key pair: the low byte of VIRTIO_CRYPTO_AKCIPHER_*. */
enum crypto_op { CRYPTO_ENCRYPT, CRYPTO_DECRYPT, CRYPTO_SIGN, CRYPTO_VERIFY };

/* One session as one queue works with it. */
struct crypto_engine {
	uint64_t id;
	uint32_t service;
	bool chain, hash_first, encrypt, private;
	bool whole; /* cipher: must be given all at once */
	bool gcm, ccm, xof;
	uint32_t block, iv_len, tag_len, result_len, digest_len, padding;
	EVP_CIPHER_CTX *cipher;
	EVP_MD_CTX *md_ctx;
	EVP_MD *md;
	EVP_MAC_CTX *mac;
	EVP_PKEY *pkey;
	EVP_MD *signature_md;
	bool ecdsa;
	EVP_PKEY_CTX *ops[4]; /* by enum crypto_op; made at first use */
	uint8_t ccm_key[32];  /* CCM takes it with each message */
};

/* One request's parts. src and dst stand at their data. */
struct crypto_job {
	bool chain, aad_first; /* chain: with a hash or MAC beside the cipher */
	const uint8_t *iv, *aad;
	size_t iv_len, aad_len, src_len, dst_len, tag_len, result_len;
	size_t cipher_at, cipher_len, hash_at, hash_len; /* chain, bytes from the start of src */
	struct cursor *src, *dst;
	uint8_t *scratch; /* max_size bytes and more */
};

/* ---- crypto-sym.c: all return VIRTIO_CRYPTO_* ---- */

/* Fills in the masks of what libcrypto really has. */
void crypto_sym_config(struct virtio_crypto_config *config);
uint8_t crypto_sym_setup(struct crypto_engine *e, const struct crypto_params *p);
uint8_t crypto_sym_cipher(struct crypto_engine *e, struct crypto_job *j);
uint8_t crypto_sym_chain(struct crypto_engine *e, struct crypto_job *j);
uint8_t crypto_sym_aead(struct crypto_engine *e, struct crypto_job *j);
/* HASH and MAC. */
uint8_t crypto_sym_digest(struct crypto_engine *e, struct crypto_job *j);

/* ---- crypto-asym.c ---- */

/* The mask of what libcrypto really has. */
uint32_t crypto_asym_algorithms(void);
uint8_t crypto_asym_setup(struct crypto_engine *e, const struct crypto_params *p);
/* opcode: VIRTIO_CRYPTO_AKCIPHER_*. For VERIFY dst is a part of what the driver gave: the digest. */
uint8_t crypto_asym_run(struct crypto_engine *e, struct crypto_job *j, uint32_t opcode);

/* ---- crypto-session.c ---- */

struct crypto_session {
	uint64_t id; /* 0: free. Read by queues without the lock */
	struct crypto_params params;
};

struct crypto_sessions {
	pthread_mutex_t lock;
	struct crypto_session *table;
	unsigned max, next, used;
	uint64_t generation;
};

int crypto_sessions_init(struct crypto_sessions *s, unsigned max);
void crypto_sessions_free(struct crypto_sessions *s);
/* Checks p by making an engine, keeps copies of the keys. VIRTIO_CRYPTO_*; *id > 0 on success. */
uint8_t crypto_session_create(struct crypto_sessions *s, const struct crypto_params *p, uint64_t *id);
/* False: there is none. */
bool crypto_session_close(struct crypto_sessions *s, uint64_t id);
void crypto_sessions_close_all(struct crypto_sessions *s);
/* The slot of a valid session; -1: none. Any thread, no lock. */
int crypto_session_slot(const struct crypto_sessions *s, uint64_t id);
/* Another engine of a session. NULL: it is closed, or memory is short. */
struct crypto_engine *crypto_session_engine(struct crypto_sessions *s, uint64_t id);

/* Reads the keys, whose lengths p tells, to p->key and p->auth, which have room for CRYPTO_ASYM_KEY_MAX and
 * CRYPTO_AUTH_KEY_MAX bytes. False: too long, or missing. */
bool crypto_keys_get(struct cursor *rd, const struct crypto_params *p);
uint8_t crypto_engine_new(struct crypto_engine **out, const struct crypto_params *p);
void crypto_engine_free(struct crypto_engine *e);

/* ---- crypto-data.c ---- */

/* What works off the requests of one queue, in its thread. */
struct crypto_worker {
	struct crypto_sessions *sessions;
	struct crypto_engine **engines; /* by slot of their session */
	uint8_t *scratch; /* max_size bytes for data, as many and 64 for IV and associated data */
	size_t max_size;
	bool revision_1, stateless[CRYPTO_SERVICES]; /* as negotiated */
};

/* Works one request off: VIRTIO_CRYPTO_*. dst: where the result goes, a part of e->wr. */
uint8_t crypto_data_run(struct crypto_worker *w, struct element *e, struct cursor *dst);

#endif
