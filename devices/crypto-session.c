/* SPDX-License-Identifier: MIT */
/*
 * The table of sessions. A session's number holds its slot and a generation, so that the number of a closed session leads nowhere.
 * Keys are wiped when their session ends.
 */
#include <errno.h>
#include <string.h>

#include "crypto.h"

enum { SLOT_BITS = 16 };

uint8_t crypto_engine_new(struct crypto_engine **out, const struct crypto_params *p)
{
	struct crypto_engine *e = calloc(1, sizeof(*e));
	uint8_t status;

	if (!e)
		return VIRTIO_CRYPTO_NOSPC;
	e->service = p->service;
	e->encrypt = p->encrypt;
	e->private = p->private;
	status = p->service == VIRTIO_CRYPTO_SERVICE_AKCIPHER ? crypto_asym_setup(e, p)
							      : crypto_sym_setup(e, p);
	ossl.ERR_clear_error();
	if (status != VIRTIO_CRYPTO_OK) {
		crypto_engine_free(e);
		return status;
	}
	*out = e;
	return VIRTIO_CRYPTO_OK;
}

bool crypto_keys_get(struct cursor *rd, const struct crypto_params *p)
{
	size_t max =
		p->service == VIRTIO_CRYPTO_SERVICE_AKCIPHER ? CRYPTO_ASYM_KEY_MAX : CRYPTO_CIPHER_KEY_MAX;

	if (p->key_len > max || p->auth_len > CRYPTO_AUTH_KEY_MAX)
		return false;
	return cursor_get(rd, p->key, p->key_len) && cursor_get(rd, p->auth, p->auth_len);
}

/* libcrypto wipes the keys in its contexts when it frees them. */
void crypto_engine_free(struct crypto_engine *e)
{
	if (!e)
		return;
	ossl.EVP_CIPHER_CTX_free(e->cipher);
	ossl.EVP_MD_CTX_free(e->md_ctx);
	ossl.EVP_MD_free(e->md);
	ossl.EVP_MAC_CTX_free(e->mac);
	for (unsigned i = 0; i < ARRAY_SIZE(e->ops); i++)
		ossl.EVP_PKEY_CTX_free(e->ops[i]);
	ossl.EVP_PKEY_free(e->pkey);
	ossl.EVP_MD_free(e->signature_md);
	ossl.OPENSSL_cleanse(e, sizeof(*e));
	free(e);
}

int crypto_sessions_init(struct crypto_sessions *s, unsigned max)
{
	pthread_mutex_init(&s->lock, NULL);
	s->max = max;
	s->table = calloc(max, sizeof(*s->table));
	return s->table ? 0 : -ENOMEM;
}

void crypto_sessions_free(struct crypto_sessions *s)
{
	crypto_sessions_close_all(s);
	free(s->table);
	pthread_mutex_destroy(&s->lock);
}

static void key_free(uint8_t *key, size_t len)
{
	if (!key)
		return;
	ossl.OPENSSL_cleanse(key, len);
	free(key);
}

static void session_free(struct crypto_sessions *s, struct crypto_session *x)
{
	__atomic_store_n(&x->id, 0, __ATOMIC_RELEASE);
	key_free(x->params.key, x->params.key_len);
	key_free(x->params.auth, x->params.auth_len);
	memset(&x->params, 0, sizeof(x->params));
	s->used--;
}

static uint8_t *key_copy(const uint8_t *key, size_t len)
{
	uint8_t *copy = malloc(len + 1);

	if (copy && len)
		memcpy(copy, key, len);
	return copy;
}

/* With the lock. */
static uint8_t session_add(struct crypto_sessions *s, const struct crypto_params *p, uint64_t *id)
{
	struct crypto_session *x;

	if (s->used == s->max)
		return VIRTIO_CRYPTO_NOSPC;
	while (s->table[s->next].id)
		s->next = (s->next + 1) % s->max;
	x = &s->table[s->next];
	x->params = *p;
	x->params.key = key_copy(p->key, p->key_len);
	x->params.auth = key_copy(p->auth, p->auth_len);
	s->used++;
	if (!x->params.key || !x->params.auth) {
		session_free(s, x);
		return VIRTIO_CRYPTO_NOSPC;
	}
	*id = ++s->generation << SLOT_BITS | s->next;
	__atomic_store_n(&x->id, *id, __ATOMIC_RELEASE);
	s->next = (s->next + 1) % s->max;
	return VIRTIO_CRYPTO_OK;
}

uint8_t crypto_session_create(struct crypto_sessions *s, const struct crypto_params *p, uint64_t *id)
{
	struct crypto_engine *e = NULL;
	uint8_t status = crypto_engine_new(&e, p);

	if (status != VIRTIO_CRYPTO_OK)
		return status;
	crypto_engine_free(e);
	pthread_mutex_lock(&s->lock);
	status = session_add(s, p, id);
	pthread_mutex_unlock(&s->lock);
	return status;
}

int crypto_session_slot(const struct crypto_sessions *s, uint64_t id)
{
	unsigned slot = id & (BIT(SLOT_BITS) - 1);

	if (!id || slot >= s->max || __atomic_load_n(&s->table[slot].id, __ATOMIC_ACQUIRE) != id)
		return -1;
	return (int)slot;
}

bool crypto_session_close(struct crypto_sessions *s, uint64_t id)
{
	int slot;

	pthread_mutex_lock(&s->lock);
	slot = crypto_session_slot(s, id);
	if (slot >= 0)
		session_free(s, &s->table[slot]);
	pthread_mutex_unlock(&s->lock);
	return slot >= 0;
}

void crypto_sessions_close_all(struct crypto_sessions *s)
{
	for (unsigned i = 0; i < s->max; i++)
		if (s->table[i].id)
			crypto_session_close(s, s->table[i].id);
}

struct crypto_engine *crypto_session_engine(struct crypto_sessions *s, uint64_t id)
{
	struct crypto_engine *e = NULL;
	int slot;

	pthread_mutex_lock(&s->lock);
	slot = crypto_session_slot(s, id);
	if (slot >= 0 && crypto_engine_new(&e, &s->table[slot].params) == VIRTIO_CRYPTO_OK)
		e->id = id;
	pthread_mutex_unlock(&s->lock);
	return e;
}
