/* SPDX-License-Identifier: MIT */
/*
 * How many requests the crypto device works off: AES-128 of one size, in CBC or GCM, in one session, a number of them at a time.
 * The device has a processor for itself; the driver never sleeps.
 *
 * usage: cryptobench cbc|gcm BYTES SECONDS DEPTH CPU: requests per second, and per second of the device's processor time
 */
#include "../device/crypto-driver.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

enum { TAG = 16, IV = 16, DEPTH_MAX = 128, RING = 256 };

struct bench {
	struct driver d;
	struct fe_queue *q;
	struct session s;
	bool gcm;
	size_t size;
	struct vring_driver_buf v[DEPTH_MAX][4];
};

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

/* Buffers as Linux makes them: header, IV, source; destination, status. */
static void prepare(struct bench *b, unsigned i)
{
	static struct bytes iv = {.n = 0}, src;
	struct work w = {.iv = &iv, .src = &src, .dst_len = b->size + (b->gcm ? TAG : 0)};
	uint8_t *head, *data;

	iv.n = b->gcm ? 12 : IV;
	src.n = b->size;
	add_fields(&b->d, &b->s, b->gcm ? VIRTIO_CRYPTO_AEAD_ENCRYPT : VIRTIO_CRYPTO_CIPHER_ENCRYPT, &w);
	head = fe_alloc(&b->d.fe, b->d.b.n + iv.n, 64, NULL);
	memcpy(head, b->d.b.p, b->d.b.n);
	data = fe_alloc(&b->d.fe, b->size, 64, NULL);
	memset(data, (int)i, b->size);
	b->v[i][0] = fe_rd(&b->d.fe, head, (uint32_t)(b->d.b.n + iv.n));
	b->v[i][1] = fe_rd(&b->d.fe, data, (uint32_t)b->size);
	b->v[i][2] = fe_wr(&b->d.fe, fe_alloc(&b->d.fe, w.dst_len, 64, NULL), (uint32_t)w.dst_len);
	b->v[i][3] = fe_wr(&b->d.fe, fe_alloc(&b->d.fe, 1, 64, NULL), 1);
}

static void up(struct bench *b, int cpu)
{
	static const struct fe_mode mode = {.event_idx = true, .indirect = true};
	static struct bytes key = {.n = 16};
	int fd;

	run_on(cpu);
	fe_init(&b->d.fe, &mode);
	b->d.fe.device_mask = 0;
	fe_spawn(&b->d.fe, FE_ARGS("crypto", "--num-queues=1"));
	run_on(0);
	fe_handshake(&b->d.fe);
	fd = fe_memfd(16 << 20);
	fe_region_make(&b->d.fe, 0, 16 << 20, UINT64_C(0x7f0000000000), fd, 0);
	close(fd);
	fe_memory_send(&b->d.fe);
	b->q = fe_queue_up(&b->d.fe, 0, RING);
	b->d.control = fe_queue_up(&b->d.fe, 1, 16);
	b->d.out = fe_alloc(&b->d.fe, AREA, 64, NULL);
	b->d.in = fe_alloc(&b->d.fe, AREA, 64, NULL);
	b->d.pieces = 1;
	b->s = aes_session(&key, true);
	if (b->gcm) {
		b->s.service = VIRTIO_CRYPTO_SERVICE_AEAD;
		b->s.algo = VIRTIO_CRYPTO_AEAD_GCM;
		b->s.tag_len = TAG;
	}
	CHECK_EQ(session_open(&b->d, &b->s), OK);
}

static void again(struct bench *b, void *cookie)
{
	struct vring_driver_buf *v = cookie;

	CHECK_EQ(*(uint8_t *)fe_ptr(&b->d.fe, v[3].addr), OK);
	fe_submit(b->q, v, 4, v);
}

/* Requests that ended within so many nanoseconds. */
static uint64_t turn(struct bench *b, uint64_t ns)
{
	uint64_t start = time_ns(), n = 0;
	uint32_t len;
	void *cookie;

	while (time_ns() - start < ns) {
		for (; fe_collect(b->q, &cookie, &len); n++)
			again(b, cookie);
		fe_flush(b->q);
	}
	return n;
}

int main(int argc, char **argv)
{
	static struct bench b;
	unsigned depth = argc == 6 ? (unsigned)atoi(argv[4]) : 0;
	uint64_t start, cpu, n;
	struct timespec t[2];
	clockid_t clock;

	if (!depth || depth > DEPTH_MAX || atoi(argv[2]) > 65536)
		return 2;
	b.gcm = strcmp(argv[1], "gcm") == 0;
	b.size = (size_t)atoi(argv[2]);
	up(&b, atoi(argv[5]));
	for (unsigned i = 0; i < depth; i++) {
		prepare(&b, i);
		fe_submit(b.q, b.v[i], 4, b.v[i]);
	}
	fe_flush(b.q);
	CHECK_EQ(clock_getcpuclockid(b.d.fe.process.pid, &clock), 0);
	turn(&b, 50 * 1000 * 1000);
	clock_gettime(clock, &t[0]);
	start = time_ns();
	n = turn(&b, (uint64_t)(atof(argv[3]) * 1e9));
	start = time_ns() - start;
	clock_gettime(clock, &t[1]);
	cpu = (uint64_t)(t[1].tv_sec - t[0].tv_sec) * 1000000000u + (uint64_t)t[1].tv_nsec -
	      (uint64_t)t[0].tv_nsec;
	printf("%.0f %.0f\n", (double)n * 1e9 / (double)start, (double)n * 1e9 / (double)cpu);
	while (depth--)
		fe_wait(b.q, NULL);
	fe_end(&b.d.fe);
	return 0;
}
