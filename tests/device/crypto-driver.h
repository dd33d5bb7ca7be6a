/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of the crypto device, for its tests: sessions and requests, in the layout without revision 1, in that
 * with it, and stateless, where a "session" is only remembered here and goes along with each request. The layouts are
 * written out here again, field by field from the specification.
 */
#ifndef TESTS_CRYPTO_DRIVER_H
#define TESTS_CRYPTO_DRIVER_H

#include <linux/virtio_crypto.h>

#include "frontend.h"

enum { DATA_QUEUES = 2, CONTROL = DATA_QUEUES, AREA = 65536, BYTES_MAX = 20000 };
enum {
	OK = VIRTIO_CRYPTO_OK,
	ERR = VIRTIO_CRYPTO_ERR,
	BADMSG = VIRTIO_CRYPTO_BADMSG,
	NOTSUPP = VIRTIO_CRYPTO_NOTSUPP,
	INVSESS = VIRTIO_CRYPTO_INVSESS,
	NOSPC = VIRTIO_CRYPTO_NOSPC,
	REJECTED = VIRTIO_CRYPTO_KEY_REJECTED,
};

enum driver_mode { LEGACY, REVISION_1, ALONE, DRIVER_MODES };

struct bytes {
	uint8_t p[BYTES_MAX];
	size_t n;
};

struct driver {
	struct fe fe;
	enum driver_mode mode;
	struct fe_queue *data[DATA_QUEUES], *control;
	uint8_t *out, *in; /* device-readable and device-writable memory */
	struct bytes b;	   /* the request being made */
	unsigned pieces;   /* that it is sent in */
	uint32_t used;	   /* by the last request, without its status */
};

/* An algorithm with its keys; id 0: not made. */
struct session {
	uint32_t service, algo, digest; /* digest: of a chain */
	bool encrypt, chain, hash_first, keyed, private;
	uint32_t result_len, tag_len;
	uint32_t para[2]; /* RSA: padding, hash; ECDSA: curve */
	const struct bytes *key, *auth;
	uint64_t id;
};

struct work {
	const struct bytes *iv, *src, *aad, *more; /* more: of VERIFY the digest; NULL: none */
	size_t dst_len, result_len, tag_len;
	uint32_t cipher_at, cipher_len, hash_at, hash_len;
};

struct bytes hex(const char *text);

/* extra: an option, or NULL. */
void driver_up(struct driver *d, const struct fe_mode *m, enum driver_mode mode, const char *extra);
/* What follows the process: handshake, memory, queues. */
void driver_ready(struct driver *d);

void begin(struct driver *d);
void add(struct driver *d, const void *p, size_t n);
void add32(struct driver *d, uint32_t v);
/* Sends what was made; n bytes come back in d->in. In pieces of odd sizes; the value is the used length. */
uint32_t transact(struct driver *d, struct fe_queue *q, size_t n);
/* The same of a request whose result has n bytes: its status. */
uint8_t finish(struct driver *d, struct fe_queue *q, size_t n);

uint32_t session_open(struct driver *d, struct session *s);
uint8_t session_close(struct driver *d, struct session *s);
/* What the request says before its keys, IV and data. */
void add_fields(struct driver *d, const struct session *s, uint32_t opcode, const struct work *w);
/* One request on a data queue: its status. The result is in d->in. */
uint8_t session_run(
	struct driver *d, struct fe_queue *q, const struct session *s, uint32_t opcode, const struct work *w);

/* The usual one of the tests: AES-128-CBC. */
struct session aes_session(const struct bytes *key, bool encrypt);

#endif
