/* SPDX-License-Identifier: MIT */
/*
 * The crypto device with a hostile driver and front-end: the input is a list of steps that send requests on the control queue
 * and the data queues, in all layouts, sessions by message, stop queues and start them with other features, and reset the device.
 *
 * The device's files are part of this one; queues are made up here. Each buffer is allocated for itself, so that a byte too many
 * is noticed. Checked besides the sanitizers' rules: buffers come back at once, there are never more sessions than allowed, and
 * after a reset there are none.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "../../devices/crypto-asym.c"
#include "../../devices/crypto-data.c"
#include "../../devices/crypto-session.c"
#include "../../devices/crypto-sym.c"
#include "../../devices/crypto.c"
#include "../unit/settle.h"

enum { STEPS_MAX = 60, DATA = 2, QUEUES = DATA + 1, SESSIONS = 6, BUFFER = 1200, IDS = 8 };
enum { OP_CONTROL, OP_SESSION, OP_DATA, OP_MESSAGE, OP_CLOSE, OP_RESTART, OP_RESET, OP_TURN, OPS };

struct virtqueue {
	unsigned index;
	struct element *next; /* for the device to pop */
	bool out;	      /* it has it */
};

static struct {
	struct input in;
	struct backend b;
	struct crypto *dev;
	struct virtio_crypto_config config;
	struct virtqueue queue[QUEUES];
	uint64_t ids[IDS]; /* of the sessions that were made last */
	unsigned nids;
} f;

/* What the core does for a device */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct element *e = q->next;

	q->next = NULL;
	q->out |= e != NULL;
	return e;
}

void virtqueue_push(struct element *e)
{
	require(e->queue->out, "a buffer goes back once");
	e->queue->out = false;
}

void virtqueue_unpop(struct element *e)
{
	virtqueue_push(e);
}

void virtqueue_wake(void *arg)
{
	(void)arg;
}

unsigned virtqueue_index(const struct virtqueue *q)
{
	return q->index;
}

struct loop *virtqueue_loop(struct virtqueue *q)
{
	(void)q;
	return f.b.loop;
}

/* Steps */

static void remember(uint64_t id)
{
	if (id)
		f.ids[f.nids++ % IDS] = id;
}

/* Hands the queue a buffer: rd's n bytes in two pieces, wr_len bytes to write. What was written is in wr. */
static void send(unsigned index, const uint8_t *bytes, size_t n, uint8_t *wr, size_t wr_len)
{
	struct virtqueue *q = &f.queue[index];
	size_t first = n ? input_u8(&f.in) * 7u % n : 0,
	       wr_first = wr_len ? input_u8(&f.in) * 5u % wr_len : 0;
	uint8_t *part[4] = {malloc(first + 1), malloc(n - first + 1), malloc(wr_first + 1),
		malloc(wr_len - wr_first + 1)};
	struct iovec rd_iov[2] = {{part[0] + 1, first}, {part[1] + 1, n - first}};
	struct iovec wr_iov[2] = {{part[2] + 1, wr_first}, {part[3] + 1, wr_len - wr_first}};
	struct element e = {.queue = q};

	memcpy(rd_iov[0].iov_base, bytes, first);
	memcpy(rd_iov[1].iov_base, bytes + first, n - first);
	cursor_init(&e.rd, rd_iov, 2);
	cursor_init(&e.wr, wr_iov, 2);
	q->next = &e;
	queue_ready(&f.b, q);
	require(!q->out && !q->next, "a request ends");
	memcpy(wr, wr_iov[0].iov_base, wr_first);
	memcpy(wr + wr_first, wr_iov[1].iov_base, wr_len - wr_first);
	for (unsigned i = 0; i < ARRAY_SIZE(part); i++)
		free(part[i]);
	require(f.dev->sessions.used <= SESSIONS, "no more sessions than allowed");
}

/* As the input has it. */
static void step_control(void)
{
	static uint8_t rd[BUFFER], wr[256];
	size_t n = input_u16(&f.in) % BUFFER, wr_len = input_u8(&f.in) % 20;
	uint64_t id;

	memset(wr, 0, sizeof(wr));
	input_bytes(&f.in, rd, n);
	send(DATA, rd, n, wr, wr_len);
	memcpy(&id, wr, sizeof(id));
	if (wr_len >= 16)
		remember(id);
}

/* A header with an opcode that there is, of a session that there is or was. */
static void step_data(void)
{
	static const uint16_t opcodes[] = {
		0x000, 0x001, 0x100, 0x200, 0x300, 0x301, 0x400, 0x401, 0x402, 0x403, 0x500, 0x002};
	static uint8_t rd[BUFFER], wr[256];
	struct virtio_crypto_op_header h = {.opcode = opcodes[input_u8(&f.in) % ARRAY_SIZE(opcodes)]};
	size_t n = input_u16(&f.in) % (BUFFER - sizeof(h)), wr_len = input_u8(&f.in);

	h.session_id = f.ids[input_u8(&f.in) % IDS];
	h.flag = input_u8(&f.in);
	memcpy(rd, &h, sizeof(h));
	input_bytes(&f.in, rd + sizeof(h), n);
	send(input_u8(&f.in) % DATA, rd, n + sizeof(h), wr, wr_len);
}

static void step_message(void)
{
	static _Alignas(8) uint8_t payload[sizeof(struct crypto_message_8)];
	static const size_t sizes[] = {sizeof(struct crypto_message_7), sizeof(struct crypto_message_8), 100};
	struct request r = {.type = REQUEST_CREATE_CRYPTO, .payload = payload, .fd = -1};
	int64_t id;

	r.size = sizes[input_u8(&f.in) % ARRAY_SIZE(sizes)];
	input_bytes(&f.in, payload, r.size);
	if (crypto_request(&f.b, &r) < 0)
		return;
	memcpy(&id, payload + (r.size == sizeof(struct crypto_message_7) ? 0 : r.size - sizeof(id)),
		sizeof(id));
	require(id == -1 || id > 0, "a session's number is positive");
	remember(id > 0 ? (uint64_t)id : 0);
}

static void step_close(void)
{
	uint64_t id = f.ids[input_u8(&f.in) % IDS];
	struct request r = {.type = REQUEST_CLOSE_CRYPTO, .payload = &id, .size = sizeof(id), .fd = -1};

	crypto_request(&f.b, &r);
}

static void start(void)
{
	f.b.features = input_u8(&f.in) & device_crypto.features;
	for (unsigned i = 0; i < QUEUES; i++)
		require(crypto_start(&f.b, &f.queue[i]) == 0, "a queue starts");
}

static void stop(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		crypto_stop(&f.b, &f.queue[i]);
}

static void step(void)
{
	switch (input_u8(&f.in) % OPS) {
	case OP_CONTROL:
	case OP_SESSION:
		step_control();
		break;
	case OP_DATA:
		step_data();
		break;
	case OP_MESSAGE:
		step_message();
		break;
	case OP_CLOSE:
		step_close();
		break;
	case OP_RESTART:
		stop();
		start();
		break;
	case OP_RESET:
		stop();
		crypto_reset(&f.b);
		require(f.dev->sessions.used == 0, "a reset closes all sessions");
		start();
		break;
	default:
		loop_settle(f.b.loop, 3);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	log_set_level(LOG_LEVEL_ERROR);
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + size};
	f.dev = calloc(1, sizeof(*f.dev));
	f.b = (struct backend){.dev = &device_crypto, .state = f.dev, .config = (uint8_t *)&f.config};
	require(f.dev && loop_new(&f.b.loop, "fuzz") == 0, "memory");
	f.dev->data_queues = DATA;
	f.dev->max_sessions = SESSIONS;
	f.dev->max_size = 4096;
	require(crypto_open(&f.b) == 0, "the device opens");
	for (unsigned i = 0; i < QUEUES; i++)
		f.queue[i].index = i;
	start();
	for (unsigned i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	loop_settle(f.b.loop, 3);
	stop();
	crypto_reset(&f.b);
	crypto_close(&f.b);
	loop_free(f.b.loop);
	free(f.dev);
	return 0;
}

/* --- seeds --- */

/* A control request: fields of n numbers, then keys. */
static void seed_control(struct seed *s, uint32_t opcode, const uint32_t *fields, unsigned n, size_t keys)
{
	static const uint8_t key[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

	seed_u8(s, OP_CONTROL);
	seed_u16(s, (uint16_t)(16 + 56 + keys));
	seed_u8(s, 16);
	seed_u32(s, opcode);
	for (unsigned i = 1; i < 4; i++)
		seed_u32(s, 0);
	for (unsigned i = 0; i < 14; i++)
		seed_u32(s, i < n ? fields[i] : 0);
	seed_put(s, key, keys);
	seed_u8(s, 30);
	seed_u8(s, 3);
}

/* A data request: fields padded to `fields` numbers, then zeros of n bytes. opcode: the index in step_data(). */
static void seed_data(struct seed *s, uint8_t opcode, uint8_t session, const uint32_t *values, unsigned n,
	unsigned fields, unsigned rest)
{
	seed_u8(s, OP_DATA);
	seed_u8(s, opcode);
	seed_u16(s, (uint16_t)(fields * 4 + rest));
	seed_u8(s, 100);
	seed_u8(s, session);
	seed_u8(s, 0);
	for (unsigned i = 0; i < fields; i++)
		seed_u32(s, i < n ? values[i] : 0);
	for (unsigned i = 0; i < rest; i++)
		seed_u8(s, (uint8_t)i);
	seed_u8(s, 0);
	seed_u8(s, 11);
	seed_u8(s, 7);
}

#define SEED_FIELDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4

/* Sessions of all services and a request of each; in the layout without revision 1. */
static void seed_sessions(struct seed *s, void (*emit)(const char *name, const void *data, size_t size))
{
	seed_u8(s, 0);
	seed_control(s, 0x002, SEED_FIELDS(3, 16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 16);
	seed_control(s, 0x002, SEED_FIELDS(2, 2, 3, 16, 1, 0, 2, 20, 8, 0, 0, 0, 2), 24);
	seed_control(s, 0x102, SEED_FIELDS(4, 32), 0);
	seed_control(s, 0x202, SEED_FIELDS(2, 20, 8), 8);
	seed_control(s, 0x302, SEED_FIELDS(1, 16, 16, 0, 1), 16);
	seed_control(s, 0x302, SEED_FIELDS(2, 16, 16, 0, 2), 16);
	seed_data(s, 0, 0, SEED_FIELDS(16, 48, 48, 0, 0, 0, 0, 0, 0, 0, 1), 12, 64);
	seed_data(s, 0, 1, SEED_FIELDS(16, 48, 48, 0, 48, 4, 20, 5, 20, 0, 2), 12, 69);
	seed_data(s, 2, 2, SEED_FIELDS(60, 32), 12, 60);
	seed_data(s, 3, 3, SEED_FIELDS(60, 20), 12, 60);
	seed_data(s, 4, 4, SEED_FIELDS(12, 9, 30, 46, 16), 12, 51);
	seed_data(s, 5, 5, SEED_FIELDS(12, 9, 30, 14, 0), 12, 51);
	seed_u8(s, OP_CLOSE);
	seed_u8(s, 2);
	seed_u8(s, OP_TURN);
	seed_data(s, 2, 2, SEED_FIELDS(60, 32), 12, 60);
	emit("sessions", s->bytes, s->n);
}

static void seed_alone(struct seed *s, void (*emit)(const char *name, const void *data, size_t size))
{
	seed_u8(s, 0x3f);
	seed_data(s, 0, 0, SEED_FIELDS(3, 16, 1, 16, 48, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 19, 80);
	seed_data(s, 1, 0, SEED_FIELDS(4, 32, 2, 16, 47, 47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 19, 95);
	seed_data(
		s, 0, 0, SEED_FIELDS(1, 5, 3, 16, 1, 2, 8, 2, 16, 48, 48, 0, 48, 4, 20, 5, 20, 0, 2), 19, 93);
	seed_data(s, 2, 0, SEED_FIELDS(12, 40, 33, 0), 4, 40);
	seed_data(s, 3, 0, SEED_FIELDS(26, 16, 40, 16), 4, 56);
	seed_data(s, 4, 0, SEED_FIELDS(3, 32, 1, 12, 16, 5, 33, 49), 8, 82);
	seed_data(s, 5, 0, SEED_FIELDS(1, 24, 2, 12, 16, 5, 33, 17), 8, 74);
	seed_u8(s, OP_RESTART);
	seed_u8(s, 1);
	seed_data(s, 0, 0, SEED_FIELDS(16, 48, 48, 0, 0, 0, 0, 0, 0, 0, 1), 12, 64);
	seed_u8(s, OP_RESET);
	emit("stateless", s->bytes, s->n);
}

/* A public key of ECDSA, in a session and for one request; a message of QEMU's. */
static void seed_key_pairs(struct seed *s, void (*emit)(const char *name, const void *data, size_t size))
{
	static const uint8_t rsa[] = {0x30, 0x0d, 0x02, 0x08, 0x40, 1, 2, 3, 4, 5, 6, 7, 0x02, 0x01, 0x03};
	struct crypto_message_8 m = {.op_code = VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION,
		.u.asym = {.algo = 1, .key_type = 1, .key_len = sizeof(rsa)}};

	memcpy(m.u.asym.key, rsa, sizeof(rsa));
	seed_u8(s, 0);
	seed_u8(s, OP_MESSAGE);
	seed_u8(s, 1);
	seed_put(s, &m, sizeof(m));
	seed_data(s, 6, 0, SEED_FIELDS(7, 8), 12, 7);
	seed_data(s, 9, 0, SEED_FIELDS(8, 7), 12, 15);
	seed_data(s, 7, 0, SEED_FIELDS(8, 8), 12, 8);
	seed_control(s, 0x404, SEED_FIELDS(3, 1, 64, 3), 64);
	emit("key pairs", s->bytes, s->n);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static struct seed s;

	seed_sessions(&s, emit);
	s.n = 0;
	seed_alone(&s, emit);
	s.n = 0;
	seed_key_pairs(&s, emit);
}
