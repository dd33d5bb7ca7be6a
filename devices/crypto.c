/* SPDX-License-Identifier: MIT */
/*
 * Crypto device (virtio 1.3, 5.9): data queues, then the control queue, which makes and closes sessions. QEMU keeps the control
 * queue to itself and sends CREATE_CRYPTO_SESSION and CLOSE_CRYPTO_SESSION instead.
 *
 * Requests are worked off in their queue's thread. Each queue keeps the engines of the sessions it has worked with; a session
 * that is closed is invalid at once, and what the queues still hold of it is freed in their threads.
 *
 * The status is the last byte of what the driver lets us write, wherever the result ends.
 */
#include "crypto.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

struct crypto_library ossl;

#define SYMBOL(name) LIBRARY_SYMBOL(crypto_library, name)

struct crypto_queue {
	struct crypto *c;
	struct virtqueue *q; /* while it runs */
	struct crypto_worker worker;
	struct post purge;
	struct timer refill;
};

struct crypto {
	/* options */
	uint32_t data_queues, threads, max_sessions;
	uint64_t max_size, bps;
	uint64_t iops;

	struct backend *b;
	struct crypto_sessions sessions;
	struct crypto_queue queues[CRYPTO_DATA_QUEUES];
	/* what is left of the present tenth of a second, for all queues */
	pthread_mutex_t quota;
	uint64_t quota_until, ops_left, bytes_left;
};

static const struct option_spec crypto_options[] = {
	{"num-queues", OPTION_U32, OPTION_FIELD(struct crypto, data_queues), .def = "8", .min = 1,
		.max = CRYPTO_DATA_QUEUES, .arg = "N", .help = "data queues"},
	{"threads", OPTION_U32, OPTION_FIELD(struct crypto, threads),
		.no_def = "one per queue, as many as there are CPUs", .max = CRYPTO_DATA_QUEUES + 1,
		.arg = "N", .help = "threads that the queues share"},
	{"max-sessions", OPTION_U32, OPTION_FIELD(struct crypto, max_sessions), .def = "1024", .min = 1,
		.max = 65535, .arg = "N", .help = "sessions at a time"},
	{"max-size", OPTION_SIZE, OPTION_FIELD(struct crypto, max_size), .def = "1M", .min = 4096,
		.max = 64 << 20, .help = "largest request"},
	{"iops", OPTION_U64, OPTION_FIELD(struct crypto, iops), .def = "0", .no_def = "no limit", .arg = "N",
		.help = "requests per second, of all queues"},
	{"bps", OPTION_SIZE, OPTION_FIELD(struct crypto, bps), .def = "0", .no_def = "no limit",
		.help = "bytes per second, of all queues"},
	OPTIONS_END,
};

/* ---- quota ---- */

enum { QUOTA_NS = 100 * 1000 * 1000 };

/* Takes one request of len bytes out of the quota. False: there is none left, *at is when there will be. */
static bool quota_take(struct crypto *c, uint64_t now, size_t len, uint64_t *at)
{
	bool ok = true;

	pthread_mutex_lock(&c->quota);
	if (now >= c->quota_until) {
		c->quota_until = now + QUOTA_NS;
		c->ops_left = (c->iops + 9) / 10;
		c->bytes_left = (c->bps + 9) / 10;
	}
	if ((c->iops && !c->ops_left) || (c->bps && !c->bytes_left))
		ok = false;
	*at = c->quota_until;
	if (ok && c->iops)
		c->ops_left--;
	if (ok && c->bps) /* a large request may overdraw a period, and makes the next ones wait */
		c->bytes_left -= MIN(len, c->bytes_left);
	pthread_mutex_unlock(&c->quota);
	return ok;
}

static void refilled(struct timer *t)
{
	struct crypto_queue *cq = container_of(t, struct crypto_queue, refill);

	if (cq->q)
		virtqueue_wake(cq->q);
}

/* ---- sessions, as the queues have them ---- */

static void purge(struct post *p)
{
	struct crypto_queue *cq = container_of(p, struct crypto_queue, purge);

	for (unsigned i = 0; cq->worker.engines && i < cq->c->max_sessions; i++) {
		struct crypto_engine *e = cq->worker.engines[i];

		if (!e || crypto_session_slot(&cq->c->sessions, e->id) >= 0)
			continue;
		crypto_engine_free(e);
		cq->worker.engines[i] = NULL;
	}
}

static bool session_close(struct crypto *c, uint64_t id)
{
	bool was = crypto_session_close(&c->sessions, id);

	for (unsigned i = 0; was && i < c->data_queues; i++) {
		struct virtqueue *q = __atomic_load_n(&c->queues[i].q, __ATOMIC_ACQUIRE);

		if (q)
			loop_post(virtqueue_loop(q), &c->queues[i].purge);
	}
	return was;
}

/* ---- data queues ---- */

static void request(struct crypto_queue *cq, struct element *e)
{
	struct cursor dst;
	uint8_t status;

	if (!e->wr.left) {
		log_guest_warn("request without room for a status");
		virtqueue_count_error(e->queue);
		return;
	}
	cursor_split(&e->wr, e->wr.left - 1, &dst);
	status = crypto_data_run(&cq->worker, e, &dst);
	if (status != VIRTIO_CRYPTO_OK)
		virtqueue_count_error(e->queue);
	cursor_put(&e->wr, &status, sizeof(status));
}

static void data_ready(struct crypto *c, struct virtqueue *q)
{
	struct crypto_queue *cq = &c->queues[virtqueue_index(q)];
	bool limited = c->iops || c->bps;
	struct element *e;
	uint64_t at;

	while ((e = virtqueue_pop(q))) {
		if (limited && !quota_take(c, loop_now(virtqueue_loop(q)), e->rd.left, &at)) {
			virtqueue_unpop(e);
			timer_arm(virtqueue_loop(q), &cq->refill, at);
			return;
		}
		request(cq, e);
		virtqueue_push(e);
	}
}

/* ---- sessions ---- */

static void sym_params(const struct virtio_crypto_sym_create_session_req *s, struct crypto_params *p)
{
	const struct virtio_crypto_cipher_session_para *c = &s->u.cipher.para;
	const struct virtio_crypto_alg_chain_session_para *a = &s->u.chain.para;

	p->chain = le32toh(s->op_type) == VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING;
	if (p->chain) {
		c = &a->cipher_param;
		p->hash_first =
			le32toh(a->alg_chain_order) == VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_HASH_THEN_CIPHER;
		p->keyed = le32toh(a->hash_mode) == VIRTIO_CRYPTO_SYM_HASH_MODE_AUTH;
		p->digest = le32toh(a->u.mac_param.algo);
		p->result_len = le32toh(a->u.mac_param.hash_result_len);
		p->auth_len = p->keyed ? le32toh(a->u.mac_param.auth_key_len) : 0;
		p->aad_len = le32toh(a->aad_len);
	}
	p->cipher = le32toh(c->algo);
	p->key_len = le32toh(c->keylen);
	p->encrypt = le32toh(c->op) == VIRTIO_CRYPTO_OP_ENCRYPT;
}

static void mac_params(const struct virtio_crypto_mac_session_para *m, struct crypto_params *p)
{
	p->keyed = true;
	p->digest = le32toh(m->algo);
	p->result_len = le32toh(m->hash_result_len);
	p->auth_len = le32toh(m->auth_key_len);
}

static void aead_params(const struct virtio_crypto_aead_session_para *a, struct crypto_params *p)
{
	p->aead = le32toh(a->algo);
	p->key_len = le32toh(a->key_len);
	p->tag_len = le32toh(a->hash_result_len);
	p->aad_len = le32toh(a->aad_len);
	p->encrypt = le32toh(a->op) == VIRTIO_CRYPTO_OP_ENCRYPT;
}

static void akcipher_params(const struct virtio_crypto_akcipher_session_para *a, struct crypto_params *p)
{
	p->akcipher = le32toh(a->algo);
	p->private = le32toh(a->keytype) == VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_PRIVATE;
	p->key_len = le32toh(a->keylen);
	p->padding = le32toh(a->u.rsa.padding_algo);
	p->rsa_hash = le32toh(a->u.rsa.hash_algo);
	p->curve = le32toh(a->u.ecdsa.curve_id);
}

static uint8_t session_create(
	struct crypto *c, const struct virtio_crypto_op_ctrl_req *req, struct cursor *rd, uint64_t *id)
{
	uint8_t key[CRYPTO_ASYM_KEY_MAX], auth[CRYPTO_AUTH_KEY_MAX], status = VIRTIO_CRYPTO_ERR;
	struct crypto_params p = {.service = le32toh(req->header.opcode) >> 8, .key = key, .auth = auth};

	switch (le32toh(req->header.opcode)) {
	case VIRTIO_CRYPTO_CIPHER_CREATE_SESSION:
		sym_params(&req->u.sym_create_session, &p);
		break;
	case VIRTIO_CRYPTO_HASH_CREATE_SESSION:
		p.digest = le32toh(req->u.hash_create_session.para.algo);
		p.result_len = le32toh(req->u.hash_create_session.para.hash_result_len);
		break;
	case VIRTIO_CRYPTO_MAC_CREATE_SESSION:
		mac_params(&req->u.mac_create_session.para, &p);
		break;
	case VIRTIO_CRYPTO_AEAD_CREATE_SESSION:
		aead_params(&req->u.aead_create_session.para, &p);
		break;
	case VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION:
		akcipher_params(&req->u.akcipher_create_session.para, &p);
		break;
	default:
		return VIRTIO_CRYPTO_NOTSUPP;
	}
	if (crypto_keys_get(rd, &p))
		status = crypto_session_create(&c->sessions, &p, id);
	ossl.OPENSSL_cleanse(key, sizeof(key));
	ossl.OPENSSL_cleanse(auth, sizeof(auth));
	return status;
}

static bool is_destroy(uint32_t opcode)
{
	return opcode == VIRTIO_CRYPTO_AKCIPHER_DESTROY_SESSION ||
	       (opcode >> 8 < VIRTIO_CRYPTO_SERVICE_AKCIPHER && (opcode & 0xff) == 3);
}

/* Bytes of a control request's fixed fields in revision 1; before they were padded to those of the longest. */
static size_t control_size(uint32_t opcode)
{
	switch (opcode) {
	case VIRTIO_CRYPTO_HASH_CREATE_SESSION:
		return 8;
	case VIRTIO_CRYPTO_MAC_CREATE_SESSION:
		return sizeof(struct virtio_crypto_mac_session_para);
	case VIRTIO_CRYPTO_AEAD_CREATE_SESSION:
		return sizeof(struct virtio_crypto_aead_session_para);
	case VIRTIO_CRYPTO_CIPHER_CREATE_SESSION:
	case VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION:
		return sizeof(struct virtio_crypto_op_ctrl_req) - sizeof(struct virtio_crypto_ctrl_header);
	default:
		return is_destroy(opcode) ? sizeof(uint64_t) : 0;
	}
}

static void control_request(struct crypto *c, struct element *e)
{
	struct virtio_crypto_session_input input = {.session_id = 0};
	struct virtio_crypto_op_ctrl_req req;
	uint64_t id = 0;
	uint8_t status = VIRTIO_CRYPTO_ERR;
	bool revision_1 = backend_has(c->b, CRYPTO_F_REVISION_1), whole;

	whole = cursor_get(&e->rd, &req.header, sizeof(req.header)) && !e->fault &&
		cursor_get(&e->rd, &req.u,
			revision_1 ? control_size(le32toh(req.header.opcode)) : sizeof(req.u));
	if (whole && is_destroy(le32toh(req.header.opcode)))
		status = session_close(c, le64toh(req.u.destroy_session.session_id)) ? VIRTIO_CRYPTO_OK
										     : VIRTIO_CRYPTO_ERR;
	else if (whole)
		status = session_create(c, &req, &e->rd, &id);
	if (status == VIRTIO_CRYPTO_NOSPC && !revision_1)
		status = VIRTIO_CRYPTO_ERR;
	if (status != VIRTIO_CRYPTO_OK)
		virtqueue_count_error(e->queue);
	if (e->wr.left < sizeof(input)) { /* the answer to DESTROY is the status alone */
		cursor_put(&e->wr, &status, sizeof(status));
		if (id)
			session_close(c, id); /* nobody got to know it */
		return;
	}
	input.session_id = htole64(id);
	input.status = htole32(status);
	cursor_put(&e->wr, &input, sizeof(input));
}

static void control_ready(struct crypto *c, struct virtqueue *q)
{
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		control_request(c, e);
		virtqueue_push(e);
	}
}

/* ---- sessions by message: QEMU ---- */

/* The symmetric part is the same in both layouts. */
static void message_sym(struct crypto_message_sym *m, struct crypto_params *p)
{
	p->service = VIRTIO_CRYPTO_SERVICE_CIPHER;
	p->cipher = m->cipher_alg;
	p->key_len = m->key_len;
	p->key = m->key;
	p->encrypt = m->direction == VIRTIO_CRYPTO_OP_ENCRYPT;
	p->chain = m->op_type == VIRTIO_CRYPTO_SYM_OP_ALGORITHM_CHAINING;
	if (!p->chain)
		return;
	p->hash_first = m->alg_chain_order == VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_HASH_THEN_CIPHER;
	p->keyed = m->hash_mode == VIRTIO_CRYPTO_SYM_HASH_MODE_AUTH;
	p->digest = m->hash_alg;
	p->result_len = m->hash_result_len;
	p->aad_len = m->aad_len;
	p->auth = m->auth_key;
	p->auth_len = p->keyed ? m->auth_key_len : 0;
}

static void message_asym(struct crypto_message_asym *m, struct crypto_params *p)
{
	p->service = VIRTIO_CRYPTO_SERVICE_AKCIPHER;
	p->akcipher = m->algo;
	p->private = m->key_type == VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_PRIVATE;
	p->key_len = m->key_len;
	p->key = m->key;
	p->padding = m->padding;
	p->rsa_hash = m->hash;
	p->curve = m->padding;
}

/* Answered in place: the session's number, or -1. */
static int create_by_message(struct crypto *c, struct request *r)
{
	struct crypto_params p = {0};
	int64_t *answer;
	uint64_t id = 0;
	bool ok;

	if (r->size == sizeof(struct crypto_message_7)) {
		struct crypto_message_7 *m = r->payload;

		answer = &m->session_id;
		message_sym(&m->sym, &p);
		ok = p.key_len <= sizeof(m->sym.key) && p.auth_len <= sizeof(m->sym.auth_key);
	} else if (r->size == sizeof(struct crypto_message_8)) {
		struct crypto_message_8 *m = r->payload;
		bool asym = m->op_code == VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION;

		answer = &m->session_id;
		if (asym)
			message_asym(&m->u.asym, &p);
		else
			message_sym(&m->u.sym, &p);
		ok = p.key_len <= (asym ? sizeof(m->u.asym.key) : sizeof(m->u.sym.key)) &&
		     p.auth_len <= sizeof(m->u.sym.auth_key);
	} else {
		log_guest_error("CREATE_CRYPTO_SESSION of %zu bytes: not known", r->size);
		return -EINVAL;
	}
	*answer = -1;
	if (ok && crypto_session_create(&c->sessions, &p, &id) == VIRTIO_CRYPTO_OK)
		*answer = (int64_t)id;
	else
		log_guest_warn(
			"a session of cipher %u with a key of %u bytes is refused", p.cipher, p.key_len);
	return 0;
}

static int crypto_request(struct backend *b, struct request *r)
{
	struct crypto *c = b->state;
	uint64_t id;

	switch (r->type) {
	case REQUEST_CREATE_CRYPTO:
		return create_by_message(c, r);
	case REQUEST_CLOSE_CRYPTO:
		memcpy(&id, r->payload, sizeof(id));
		return session_close(c, id) ? 0 : -ENOENT;
	default:
		return -ENOTSUP;
	}
}

/* ---- life ---- */

static void queue_ready(struct backend *b, struct virtqueue *q)
{
	struct crypto *c = b->state;

	if (virtqueue_index(q) < c->data_queues)
		data_ready(c, q);
	else
		control_ready(c, q);
}

static int crypto_start(struct backend *b, struct virtqueue *q)
{
	struct crypto *c = b->state;
	struct crypto_queue *cq = &c->queues[virtqueue_index(q)];

	if (virtqueue_index(q) >= c->data_queues)
		return 0;
	cq->worker.engines = calloc(c->max_sessions, sizeof(struct crypto_engine *));
	cq->worker.scratch = malloc(2 * c->max_size + 64);
	if (!cq->worker.engines || !cq->worker.scratch) {
		free(cq->worker.engines);
		free(cq->worker.scratch);
		cq->worker.engines = NULL;
		cq->worker.scratch = NULL;
		return log_errno(ENOMEM, "queue %u", virtqueue_index(q));
	}
	cq->worker.sessions = &c->sessions;
	cq->worker.max_size = c->max_size;
	cq->worker.revision_1 = backend_has(b, CRYPTO_F_REVISION_1);
	for (unsigned i = 0; i < CRYPTO_SERVICES; i++)
		cq->worker.stateless[i] = backend_has(b, CRYPTO_F_CIPHER_STATELESS + i);
	__atomic_store_n(&cq->q, q, __ATOMIC_RELEASE);
	return 0;
}

static void crypto_stop(struct backend *b, struct virtqueue *q)
{
	struct crypto *c = b->state;
	struct crypto_queue *cq = &c->queues[virtqueue_index(q)];

	if (virtqueue_index(q) >= c->data_queues)
		return;
	__atomic_store_n(&cq->q, NULL, __ATOMIC_RELEASE);
	timer_disarm(&cq->refill);
	for (unsigned i = 0; i < c->max_sessions; i++)
		crypto_engine_free(cq->worker.engines[i]);
	free(cq->worker.engines);
	if (cq->worker.scratch)
		ossl.OPENSSL_cleanse(cq->worker.scratch, 2 * c->max_size + 64);
	free(cq->worker.scratch);
	cq->worker.engines = NULL;
	cq->worker.scratch = NULL;
}

static void crypto_reset(struct backend *b)
{
	struct crypto *c = b->state;

	crypto_sessions_close_all(&c->sessions);
}

/* A service is there if one of its algorithms is. */
static void service_fill(struct virtio_crypto_config *config, unsigned service, uint32_t algorithms)
{
	if (algorithms)
		config->crypto_services |= htole32(1U << service);
}

static void config_fill(struct crypto *c, struct virtio_crypto_config *config)
{
	config->status = htole32(VIRTIO_CRYPTO_S_HW_READY);
	config->max_dataqueues = htole32(c->data_queues);
	crypto_sym_config(config);
	config->akcipher_algo = htole32(crypto_asym_algorithms());
	service_fill(config, VIRTIO_CRYPTO_SERVICE_CIPHER, config->cipher_algo_l | config->cipher_algo_h);
	service_fill(config, VIRTIO_CRYPTO_SERVICE_HASH, config->hash_algo);
	service_fill(config, VIRTIO_CRYPTO_SERVICE_MAC, config->mac_algo_l | config->mac_algo_h);
	service_fill(config, VIRTIO_CRYPTO_SERVICE_AEAD, config->aead_algo);
	service_fill(config, VIRTIO_CRYPTO_SERVICE_AKCIPHER, config->akcipher_algo);
	config->max_cipher_key_len = htole32(CRYPTO_CIPHER_KEY_MAX);
	config->max_auth_key_len = htole32(CRYPTO_AUTH_KEY_MAX);
	config->max_size = htole64(c->max_size);
}

static int crypto_open(struct backend *b)
{
	static const struct library_symbol symbols[] = {CRYPTO_FUNCTIONS(SYMBOL)};
	struct crypto *c = b->state;
	struct virtio_crypto_config *config = (struct virtio_crypto_config *)b->config;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int err = library_load("libcrypto.so.3", symbols, ARRAY_SIZE(symbols), &ossl);

	if (err)
		return err;
	config_fill(c, config);
	if (!config->crypto_services)
		return log_errno(ENOTSUP, "libcrypto, as it is configured, has none of the algorithms");
	err = crypto_sessions_init(&c->sessions, c->max_sessions);
	if (err)
		return log_errno(err, "--max-sessions=%u", c->max_sessions);
	c->b = b;
	pthread_mutex_init(&c->quota, NULL);
	for (unsigned i = 0; i < CRYPTO_DATA_QUEUES; i++) {
		c->queues[i].c = c;
		c->queues[i].purge.run = purge;
		c->queues[i].refill.expired = refilled;
	}
	b->num_queues = c->data_queues + 1;
	b->queue_num = c->data_queues;
	b->threads = c->threads ? c->threads : MIN(c->data_queues, cpus > 0 ? (unsigned)cpus : 1U);
	return 0;
}

static void crypto_close(struct backend *b)
{
	struct crypto *c = b->state;

	crypto_sessions_free(&c->sessions);
	pthread_mutex_destroy(&c->quota);
}

static const struct feature_name crypto_features[] = {
	{CRYPTO_F_REVISION_1, "revision-1"},
	{CRYPTO_F_CIPHER_STATELESS + VIRTIO_CRYPTO_SERVICE_CIPHER, "cipher-stateless"},
	{CRYPTO_F_CIPHER_STATELESS + VIRTIO_CRYPTO_SERVICE_HASH, "hash-stateless"},
	{CRYPTO_F_CIPHER_STATELESS + VIRTIO_CRYPTO_SERVICE_MAC, "mac-stateless"},
	{CRYPTO_F_CIPHER_STATELESS + VIRTIO_CRYPTO_SERVICE_AEAD, "aead-stateless"},
	{CRYPTO_F_CIPHER_STATELESS + VIRTIO_CRYPTO_SERVICE_AKCIPHER, "akcipher-stateless"},
	{0, NULL},
};

static const struct queue_spec crypto_queues[] = {{"data", queue_ready, 0, 0}};

const struct device device_crypto = {
	.name = "crypto",
	.summary = "ciphers, hashes, MACs, authenticated encryption, RSA and ECDSA, by OpenSSL",
	.virtio_id = VIRTIO_ID_CRYPTO,
	.features = BIT(CRYPTO_F_CIPHER_STATELESS + CRYPTO_SERVICES) - 1,
	.feature_names = crypto_features,
	.protocol_features = CRYPTO_PROTOCOL_FEATURES,
	.state_size = sizeof(struct crypto),
	.config_size = sizeof(struct virtio_crypto_config),
	.options = crypto_options,
	.queues = crypto_queues,
	.nqueues = 1,
	.repeat = 1,
	.max_queues = CRYPTO_DATA_QUEUES + 1,
	.queue_threads = true,
	.enable_on_kick = true,
	.in_order = true,
	.open = crypto_open,
	.close = crypto_close,
	.start = crypto_start,
	.stop = crypto_stop,
	.reset = crypto_reset,
	.request = crypto_request,
};
