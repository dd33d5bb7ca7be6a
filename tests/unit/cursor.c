/* SPDX-License-Identifier: MIT */
/*
 * Cursors. Besides the cases written out, random sequences of all steps run side by side with a model: a flat
 * byte array with a position, an end and a count.
 */
#include "../../src/cursor.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>

#include "../../src/util.h"
#include "../lib/tap.h"

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((random_state >> 33) % limit);
}

static void empty(void *arg)
{
	struct iovec none[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}}, v[2];
	struct cursor c, head;
	unsigned n = 9;

	(void)arg;
	for (unsigned segments = 0; segments <= 3; segments += 3) {
		char byte = 'x';

		cursor_init(&c, segments ? none : NULL, segments);
		CHECK_EQ(c.left, 0);
		CHECK(cursor_get(&c, &byte, 0));
		CHECK(cursor_skip(&c, 0));
		CHECK(cursor_split(&c, 0, &head));
		CHECK_EQ(head.left, 0);
		CHECK(!c.bad);
		CHECK_EQ(cursor_iovec(&c, SIZE_MAX, v, 2), 0);
		cursor_whole(&c, &n);
		CHECK_EQ(n, 0);
		CHECK_EQ(cursor_readv(&c, -1, 10), 0);
		CHECK_EQ(byte, 'x');
		CHECK(!cursor_get(&c, &byte, 1));
		CHECK_EQ(byte, 0);
		CHECK(c.bad);
		CHECK(!cursor_put(&c, &byte, 1));
		CHECK(!cursor_zero(&c, SIZE_MAX));
		CHECK_EQ(c.done, 0);
	}
}

static void short_steps_move_nothing(void *arg)
{
	char a[3] = "abc", b[2] = "de", out[8];
	struct iovec v[2] = {{a, 3}, {b, 2}};
	struct cursor c, head;

	(void)arg;
	cursor_init(&c, v, 2);
	CHECK(cursor_get(&c, out, 1));
	memset(out, 'x', sizeof(out));
	CHECK(!cursor_get(&c, out, 5));
	CHECK_MEM(out, "\0\0\0\0\0xxx", 8);
	CHECK(c.bad);
	CHECK_EQ(c.left, 4);
	CHECK_EQ(c.done, 1);
	CHECK(!cursor_put(&c, "vwxyz", 5));
	CHECK(!cursor_zero(&c, 5));
	CHECK(!cursor_skip(&c, 5));
	CHECK(!cursor_split(&c, 5, &head));
	CHECK(head.bad);
	CHECK_EQ(head.left, 0);
	CHECK(!c.split);
	CHECK_MEM(a, "abc", 3);
	CHECK(cursor_get(&c, out, 4));
	CHECK_MEM(out, "bcde", 4);
	CHECK(c.bad); /* sticky */
}

static void split_status_byte_off(void *arg)
{
	char data[10], status[1];
	struct iovec v[3] = {{data, 4}, {data + 4, 6}, {status, 1}};
	struct cursor c, payload;
	const struct iovec *whole;
	unsigned n;

	(void)arg;
	cursor_init(&c, v, 3);
	CHECK(cursor_split(&c, c.left - 1, &payload));
	CHECK(c.split);
	CHECK_EQ(c.done, 0);
	CHECK_EQ(c.left, 1);
	whole = cursor_whole(&payload, &n);
	CHECK(whole == v);
	CHECK_EQ(n, 2);
	CHECK(cursor_put(&c, "S", 1));
	CHECK(cursor_put(&payload, "0123456789", 10));
	CHECK(!cursor_put(&payload, "!", 1));
	CHECK_MEM(data, "0123456789", 10);
	CHECK_EQ(status[0], 'S');
	CHECK_EQ(c.done, 11);
	CHECK_EQ(payload.done, 10);
	CHECK(!c.bad);
}

static void nested_splits_count_upwards(void *arg)
{
	char data[16] = "0123456789abcdef", out[4];
	struct iovec v[1] = {{data, 16}};
	struct cursor c, mid, leaf;

	(void)arg;
	cursor_init(&c, v, 1);
	CHECK(cursor_split(&c, 8, &mid));
	CHECK(cursor_skip(&mid, 2));
	CHECK(cursor_split(&mid, 4, &leaf));
	CHECK(cursor_get(&leaf, out, 4));
	CHECK_MEM(out, "2345", 4);
	CHECK_EQ(leaf.done, 4);
	CHECK_EQ(mid.done, 6);
	CHECK_EQ(c.done, 6);
	CHECK(cursor_get(&mid, out, 2));
	CHECK_MEM(out, "67", 2);
	CHECK(cursor_get(&c, out, 2));
	CHECK_MEM(out, "89", 2);
	CHECK_EQ(c.done, 10);
}

static void whole_only_at_borders(void *arg)
{
	char data[8];
	struct iovec v[4] = {{data, 0}, {data, 3}, {data, 0}, {data, 5}};
	struct cursor c, head;
	unsigned n;

	(void)arg;
	cursor_init(&c, v, 4);
	CHECK(cursor_whole(&c, &n) == v + 1);
	CHECK_EQ(n, 3);
	CHECK(cursor_skip(&c, 1));
	CHECK(!cursor_whole(&c, &n));
	CHECK_EQ(n, 0);
	CHECK(cursor_skip(&c, 2));
	CHECK(cursor_whole(&c, &n) == v + 3);
	CHECK_EQ(n, 1);
	CHECK(cursor_split(&c, 4, &head));
	CHECK(!cursor_whole(&head, &n));
}

static void many_segments_to_a_pipe(void *arg)
{
	enum { SEGMENTS = IOV_MAX + 500 };
	static uint8_t out[SEGMENTS], in[SEGMENTS + 10];
	static struct iovec v[SEGMENTS];
	struct cursor c;
	int fd[2];

	(void)arg;
	for (unsigned i = 0; i < SEGMENTS; i++) {
		out[i] = (uint8_t)(i * 7);
		v[i] = (struct iovec){&out[i], 1};
	}
	CHECK_SYS(pipe2(fd, O_NONBLOCK));
	cursor_init(&c, v, SEGMENTS);
	CHECK_EQ(cursor_writev(&c, fd[1], SIZE_MAX), IOV_MAX); /* a short count, not an error */
	CHECK_EQ(cursor_writev(&c, fd[1], 400), 400);
	CHECK_EQ(cursor_writev(&c, fd[1], SIZE_MAX), 100);
	CHECK_EQ(cursor_writev(&c, fd[1], SIZE_MAX), 0);
	CHECK_EQ(c.done, SEGMENTS);
	CHECK_EQ(read(fd[0], in, sizeof(in)), SEGMENTS);
	CHECK_MEM(in, out, SEGMENTS);
}

static void read_results(void *arg)
{
	char data[6] = "......";
	struct iovec v[2] = {{data, 2}, {data + 2, 4}};
	struct cursor c;
	int fd[2];

	(void)arg;
	CHECK_SYS(pipe2(fd, O_NONBLOCK));
	cursor_init(&c, v, 2);
	CHECK_EQ(cursor_readv(&c, fd[0], SIZE_MAX), -EAGAIN);
	CHECK_EQ(write(fd[1], "abc", 3), 3);
	CHECK_EQ(cursor_readv(&c, fd[0], SIZE_MAX), 3);
	CHECK_EQ(c.done, 3);
	CHECK_EQ(write(fd[1], "de", 2), 2);
	CHECK_EQ(cursor_readv(&c, fd[0], 1), 1);
	CHECK_MEM(data, "abcd..", 6);
	close(fd[1]);
	CHECK_EQ(cursor_readv(&c, fd[0], SIZE_MAX), 1);
	CHECK_EQ(cursor_readv(&c, fd[0], SIZE_MAX), 0); /* end of file */
	CHECK_EQ(c.left, 1);
	CHECK_EQ(cursor_readv(&c, -1, SIZE_MAX), -EBADF);
	CHECK_EQ(c.done, 5);
}

/* The model: bytes[pos..end) are to come, done were passed. */
struct model {
	struct cursor c;
	size_t pos, end, done;
	int up;
	bool bad;
};

enum { MODEL_BYTES = 600, MODEL_CURSORS = 4 };

static struct {
	uint8_t real[4 * MODEL_BYTES], want[MODEL_BYTES];
	size_t place[MODEL_BYTES]; /* of the model's byte in real[] */
	struct model m[MODEL_CURSORS];
	int fd;
} w;

/* Scatters MODEL_BYTES bytes in segments with gaps between them. */
static unsigned model_scatter(struct iovec *v, unsigned max)
{
	size_t at = 0, model = 0;
	unsigned n = 0;

	while (n < max && model < MODEL_BYTES) {
		size_t len = random_below(5) ? random_below(40) : 0;

		len = MIN(len, MODEL_BYTES - model);
		at += 1 + random_below(3);
		v[n++] = (struct iovec){w.real + at, len};
		for (size_t i = 0; i < len; i++)
			w.place[model++] = at++;
	}
	memset(w.real, 0xee, sizeof(w.real));
	for (size_t i = 0; i < model; i++)
		w.real[w.place[i]] = w.want[i] = (uint8_t)random_below(256);
	w.m[0] = (struct model){.end = model, .up = -1};
	cursor_init(&w.m[0].c, v, n);
	return n;
}

static void model_check(const struct model *m)
{
	struct iovec v[64];
	size_t max = random_below(100), sum = 0;
	unsigned n = cursor_iovec(&m->c, max, v, 64), whole_n;
	const struct iovec *whole = cursor_whole(&m->c, &whole_n);

	CHECK_EQ(m->c.left, m->end - m->pos);
	CHECK_EQ(m->c.done, m->done);
	CHECK_EQ(m->c.bad, m->bad);
	for (unsigned i = 0; i < n; i++) {
		CHECK(v[i].iov_len > 0);
		CHECK(v[i].iov_base == &w.real[w.place[m->pos + sum]]);
		sum += v[i].iov_len;
	}
	CHECK(sum == MIN(max, m->c.left) || n == 64);
	if (!whole)
		return;
	sum = 0;
	for (unsigned i = 0; i < whole_n; i++) {
		if (whole[i].iov_len)
			CHECK(whole[i].iov_base == &w.real[w.place[m->pos + sum]]);
		sum += whole[i].iov_len;
	}
	CHECK_EQ(sum, m->c.left);
}

static bool model_move(int i, size_t n, bool count)
{
	struct model *m = &w.m[i];

	if (n > m->end - m->pos) {
		m->bad = true;
		return false;
	}
	m->pos += n;
	for (; count && i >= 0; i = w.m[i].up)
		w.m[i].done += n;
	return true;
}

static void model_transfer(int i, size_t n)
{
	struct model *m = &w.m[i];
	uint8_t buf[MODEL_BYTES];
	size_t pos = m->pos, len = MIN(n, m->end - m->pos);
	ssize_t got;

	for (size_t k = 0; k < len; k++)
		buf[k] = (uint8_t)random_below(256);
	CHECK_EQ(ftruncate(w.fd, 0), 0);
	CHECK_EQ(lseek(w.fd, 0, SEEK_SET), 0);
	if (random_below(2)) {
		got = cursor_writev(&m->c, w.fd, n);
		CHECK_EQ(got, len);
		CHECK_EQ(pread(w.fd, buf, sizeof(buf), 0), len);
		CHECK_MEM(buf, w.want + pos, len);
	} else {
		CHECK_EQ(pwrite(w.fd, buf, len, 0), len);
		got = cursor_readv(&m->c, w.fd, n);
		CHECK_EQ(got, len);
		memcpy(w.want + pos, buf, len);
	}
	model_move(i, len, true);
}

static void model_step(int i)
{
	struct model *m = &w.m[i];
	size_t n = random_below(4) ? random_below(30) : random_below(4) ? 0 : MODEL_BYTES, pos = m->pos;
	uint8_t buf[MODEL_BYTES], zero[MODEL_BYTES] = {0};
	bool ok;

	switch (random_below(6)) {
	case 0:
		memset(buf, 0x55, sizeof(buf));
		ok = cursor_get(&m->c, buf, n);
		CHECK_EQ(ok, model_move(i, n, true));
		CHECK_MEM(buf, ok ? w.want + pos : zero, n);
		break;
	case 1:
		for (size_t k = 0; k < n; k++)
			buf[k] = (uint8_t)random_below(256);
		ok = cursor_put(&m->c, buf, n);
		CHECK_EQ(ok, model_move(i, n, true));
		if (ok)
			memcpy(w.want + pos, buf, n);
		break;
	case 2:
		ok = cursor_zero(&m->c, n);
		CHECK_EQ(ok, model_move(i, n, true));
		if (ok)
			memset(w.want + pos, 0, n);
		break;
	case 3:
		ok = cursor_skip(&m->c, n);
		CHECK_EQ(ok, model_move(i, n, true));
		break;
	case 4:
		model_transfer(i, n);
		break;
	default:
		if (i + 1 == MODEL_CURSORS)
			break;
		n *= 3;
		ok = cursor_split(&m->c, n, &w.m[i + 1].c);
		CHECK_EQ(ok, model_move(i, n, false));
		w.m[i + 1].pos = pos;
		w.m[i + 1].end = ok ? pos + n : pos;
		w.m[i + 1].done = 0;
		w.m[i + 1].bad = !ok;
		w.m[i + 1].up = i;
		for (int k = i + 2; k < MODEL_CURSORS; k++)
			w.m[k].up = -2;
		break;
	}
}

static void against_the_model(void *arg)
{
	struct iovec v[200];

	(void)arg;
	w.fd = memfd_create("cursor", MFD_CLOEXEC);
	CHECK_SYS(w.fd);
	for (unsigned round = 0; round < 3000; round++) {
		random_state = round;
		for (int i = 1; i < MODEL_CURSORS; i++)
			w.m[i].up = -2; /* not in use */
		model_scatter(v, ARRAY_SIZE(v));
		for (unsigned step = 0; step < 40; step++) {
			int i = (int)random_below(MODEL_CURSORS);

			if (w.m[i].up == -2)
				continue;
			model_step(i);
			for (int k = 0; k < MODEL_CURSORS; k++)
				if (w.m[k].up != -2)
					model_check(&w.m[k]);
		}
		for (size_t i = 0; i < w.m[0].end; i++)
			CHECK_EQ(w.real[w.place[i]], w.want[i]);
		for (size_t i = 0, k = 0; i < sizeof(w.real); i++) {
			while (k < MODEL_BYTES && w.place[k] < i)
				k++;
			if (k == MODEL_BYTES || w.place[k] != i)
				CHECK_EQ(w.real[i], 0xee); /* gaps untouched */
		}
	}
}

int main(void)
{
	tap_case("empty", empty, NULL);
	tap_case("short steps move nothing", short_steps_move_nothing, NULL);
	tap_case("split the status byte off", split_status_byte_off, NULL);
	tap_case("nested splits count upwards", nested_splits_count_upwards, NULL);
	tap_case("whole only at borders", whole_only_at_borders, NULL);
	tap_case("more segments than IOV_MAX", many_segments_to_a_pipe, NULL);
	tap_case("results of reading", read_results, NULL);
	tap_case("random steps against a model", against_the_model, NULL);
	return tap_done();
}
