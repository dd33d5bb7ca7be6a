/* SPDX-License-Identifier: MIT */
/* le.h: byte order, alignment of the access, and the fence in Dekker's game between two threads. */
#include "../../src/le.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "../lib/tap.h"

static void bytes_are_little_endian(void *arg)
{
	uint8_t b[8] __attribute__((aligned(8)));
	static const uint8_t want[8] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};

	(void)arg;
	memset(b, 0, sizeof(b));
	le64_store(b, UINT64_C(0x1122334455667788));
	CHECK_MEM(b, want, 8);
	CHECK_EQ(le16_load(b), 0x7788);
	CHECK_EQ(le32_load(b), 0x55667788);
	CHECK_EQ(le64_load(b), UINT64_C(0x1122334455667788));
	CHECK_EQ(le32_load_acquire(b + 4), 0x11223344);

	memset(b, 0xaa, sizeof(b));
	le16_store_release(b + 2, 0x0102);
	le32_store_release(b + 4, 0x03040506);
	CHECK_MEM(b, "\xaa\xaa\x02\x01\x06\x05\x04\x03", 8);
	le64_store_release(b, 1);
	CHECK_EQ(le64_load_acquire(b), 1);
}

/* What one thread stored before a release is seen by the one that acquired. */
struct relay {
	uint32_t data, flag;
};

enum { RELAY_ROUNDS = 20000 };

static void *relay_write(void *arg)
{
	struct relay *r = arg;

	for (uint32_t i = 1; i <= RELAY_ROUNDS; i++) {
		while (le32_load_acquire(&r->flag) != 2 * (i - 1))
			sched_yield();
		le32_store(&r->data, i * 2654435761u);
		le32_store_release(&r->flag, 2 * i - 1);
	}
	return NULL;
}

static void release_and_acquire(void *arg)
{
	struct relay r = {0, 0};
	pthread_t thread;

	(void)arg;
	CHECK_EQ(pthread_create(&thread, NULL, relay_write, &r), 0);
	for (uint32_t i = 1; i <= RELAY_ROUNDS; i++) {
		while (le32_load_acquire(&r.flag) != 2 * i - 1)
			sched_yield();
		CHECK_EQ(le32_load(&r.data), (uint32_t)(i * 2654435761u));
		le32_store_release(&r.flag, 2 * i);
	}
	pthread_join(thread, NULL);
}

/* Event suppression: each side stores its own word, fences, and looks at the other's. Both may not see
 * "nothing". */
struct dekker {
	uint16_t word[2] __attribute__((aligned(64)));
	uint16_t saw[2];
	pthread_barrier_t barrier;
};

enum { DEKKER_ROUNDS = 3000 };

struct dekker_side {
	struct dekker *d;
	int me;
};

static void *dekker_run(void *arg)
{
	struct dekker_side *s = arg;
	struct dekker *d = s->d;

	for (int i = 0; i < DEKKER_ROUNDS; i++) {
		pthread_barrier_wait(&d->barrier);
		le16_store(&d->word[s->me], 1);
		le_barrier();
		d->saw[s->me] = le16_load(&d->word[!s->me]);
		pthread_barrier_wait(&d->barrier);
		if (s->me == 0) {
			CHECK(d->saw[0] || d->saw[1]);
			d->word[0] = d->word[1] = 0;
		}
	}
	return NULL;
}

static void barrier_orders_store_and_load(void *arg)
{
	struct dekker d = {.word = {0, 0}};
	struct dekker_side side[2] = {{&d, 0}, {&d, 1}};
	pthread_t thread;

	(void)arg;
	pthread_barrier_init(&d.barrier, NULL, 2);
	CHECK_EQ(pthread_create(&thread, NULL, dekker_run, &side[1]), 0);
	dekker_run(&side[0]);
	pthread_join(thread, NULL);
}

int main(void)
{
	tap_case("bytes are little-endian", bytes_are_little_endian, NULL);
	tap_case("release and acquire", release_and_acquire, NULL);
	tap_case("barrier orders a store and a load", barrier_orders_store_and_load, NULL);
	return tap_done();
}
