/* SPDX-License-Identifier: MIT */
/* The rng device as a probe of the core; see protocol.h. */
#include "protocol.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

enum { GUARD = 16, UNTOUCHED = 0x5a };

/* --- a source of known bytes --- */

static uint8_t stream_byte(uint64_t pos)
{
	uint64_t x = (pos + 1) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint8_t)(x >> 56 ^ x >> 24);
}

void source_open(struct source *s)
{
	snprintf(s->path, sizeof(s->path), "%s/source", fe_tmpdir());
	snprintf(s->option, sizeof(s->option), "--source=%s", s->path);
	CHECK_SYS(mkfifo(s->path, 0600));
	s->fd = open(s->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	CHECK(s->fd >= 0);
	s->fed = 0;
}

void source_close(struct source *s)
{
	close(s->fd);
	unlink(s->path);
}

void source_feed(struct source *s, size_t n)
{
	CLEANUP_FREE uint8_t *bytes = malloc(n);

	CHECK(bytes);
	for (size_t i = 0; i < n; i++)
		bytes[i] = stream_byte(s->fed + i);
	CHECK_EQ(write(s->fd, bytes, n), n);
	s->fed += n;
}

void source_drained(const struct source *s)
{
	struct timespec pause = {.tv_nsec = 1000000};
	int64_t end = fe_now_ms() + fe_limit_ms;
	int left;

	for (;;) {
		CHECK_SYS(ioctl(s->fd, FIONREAD, &left));
		if (!left)
			return;
		if (fe_now_ms() > end)
			FAIL("source: expected it to be read, %d bytes are left", left);
		nanosleep(&pause, NULL);
	}
}

void source_check(uint64_t pos, const void *p, size_t n)
{
	const uint8_t *got = p;

	for (size_t i = 0; i < n; i++)
		if (got[i] != stream_byte(pos + i))
			FAIL("byte %zu of %zu: expected 0x%02x (position %llu of the stream), got 0x%02x", i,
				n, stream_byte(pos + i), (unsigned long long)(pos + i), got[i]);
}

/* --- requests --- */

/* Random bytes: not what was there before, and no long run of anything. */
static void check_random(const uint8_t *p, uint32_t n)
{
	unsigned run = 0;

	for (uint32_t i = 1; i < n; i++) {
		run = p[i] == p[i - 1] ? run + 1 : 0;
		if (run == 7)
			FAIL("byte %u of %u: eight times 0x%02x are not random", i, n, p[i]);
	}
}

static void check_guard(const uint8_t *p)
{
	for (unsigned i = 0; i < GUARD; i++)
		if (p[i] != UNTOUCHED)
			FAIL("a byte outside the buffers was written");
}

struct fill {
	uint8_t *mem; /* guard, segment, guard, segment, …, guard */
	uint32_t total;
	unsigned n;
	struct vring_driver_buf bufs[64];
};

static void fill_init(struct fe *fe, struct fill *f, uint32_t total, unsigned n)
{
	uint32_t at = GUARD, left = total;
	size_t size = total + (n + 1) * (size_t)GUARD;

	CHECK(n <= ARRAY_SIZE(f->bufs) && n <= total);
	f->total = total;
	f->n = n;
	f->mem = fe_alloc(fe, size, 1, NULL);
	memset(f->mem, UNTOUCHED, size);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = i + 1 < n ? (i == 0 ? 1 : (left - (n - i)) / (n - i) + 1) : left;

		f->bufs[i] = fe_wr(fe, f->mem + at, len);
		at += len + GUARD;
		left -= len;
	}
}

static void fill_check(struct fe *fe, const struct fill *f, uint32_t used)
{
	if (used != f->total)
		FAIL("used length: expected %u, got %u", f->total, used);
	check_guard(f->mem);
	for (unsigned i = 0; i < f->n; i++) {
		const uint8_t *p = fe_ptr(fe, f->bufs[i].addr);

		check_random(p, f->bufs[i].len);
		check_guard(p + f->bufs[i].len);
	}
}

void rng_fill(struct fe_queue *q, uint32_t total, unsigned n)
{
	size_t mark = fe_mark(q->fe);
	struct fill f;

	fill_init(q->fe, &f, total, n);
	fill_check(q->fe, &f, fe_transact(q, f.bufs, f.n));
	/* an indirect table that was made meanwhile stays */
	if (!q->fe->mode.indirect)
		fe_release(q->fe, mark);
}

void rng_works(struct fe_queue *q)
{
	rng_fill(q, 64, 1);
	rng_fill(q, 4096, MIN(3, q->num));
	rng_fill(q, 1, 1);
}

void rng_traffic(struct fe_queue *q, unsigned requests)
{
	CLEANUP_FREE struct fill *fills = calloc(q->num, sizeof(*fills));
	CLEANUP_FREE unsigned *spare = calloc(q->num, sizeof(*spare));
	unsigned nspare = q->num, sent = 0, got = 0, max = MIN(4, q->num);
	uint32_t len;
	void *cookie;

	CHECK(fills && spare);
	for (unsigned i = 0; i < q->num; i++) {
		unsigned n = 1 + i % max;

		fill_init(q->fe, &fills[i], n + i * 37 % 1500, n);
		spare[i] = i;
	}
	while (got < requests) {
		while (nspare && sent < requests) {
			struct fill *f = &fills[spare[nspare - 1]];

			/* as a direct chain at worst */
			if (q->ring.nfree < f->n)
				break;
			for (unsigned i = 0; i < f->n; i++)
				memset(fe_ptr(q->fe, f->bufs[i].addr), UNTOUCHED, f->bufs[i].len);
			nspare--;
			fe_submit(q, f->bufs, f->n, f);
			if (++sent % 3 == 0)
				fe_flush(q);
		}
		fe_flush(q);
		len = fe_wait(q, &cookie);
		fill_check(q->fe, cookie, len);
		spare[nspare++] = (unsigned)((struct fill *)cookie - fills);
		got++;
	}
}

/* --- a process that accepts again --- */

void server_start(struct server *s, const struct fe_mode *m, const char *const *args)
{
	const char *all[32] = {"rng"};
	unsigned n = 1;

	for (; args && args[n - 1]; n++) {
		CHECK(n + 1 < ARRAY_SIZE(all));
		all[n] = args[n - 1];
	}
	fe_init(&s->fe, m);
	snprintf(s->path, sizeof(s->path), "%s/socket", fe_tmpdir());
	fe_spawn_path(&s->fe, s->path, all);
}

void server_reconnect(struct server *s)
{
	struct fe_process p = s->fe.process;
	struct fe_mode m = s->fe.mode;

	fe_close(&s->fe);
	fe_init(&s->fe, &m);
	s->fe.process = p;
	fe_connect(&s->fe, s->path);
}

struct fe_queue *server_up(struct server *s)
{
	struct fe_queue *q;

	fe_handshake(&s->fe);
	fe_memory_default(&s->fe);
	q = fe_queue_up(&s->fe, 0, 64);
	rng_works(q);
	return q;
}

void server_end(struct server *s)
{
	fe_process_signal(&s->fe.process, SIGTERM);
	fe_process_exits(&s->fe.process, 0);
	fe_close(&s->fe);
	if (access(s->path, F_OK) == 0)
		FAIL("%s: expected it to be removed at exit", s->path);
}
