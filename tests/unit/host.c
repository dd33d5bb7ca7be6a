/* SPDX-License-Identifier: MIT */
/* See host.h. */
#include "host.h"

#include <errno.h>
#include <sys/socket.h>

/* --- the device --- */

struct dev dev;

int dev_get(const int *v)
{
	return __atomic_load_n(v, __ATOMIC_ACQUIRE);
}

static void add(int *v, int n)
{
	__atomic_fetch_add(v, n, __ATOMIC_ACQ_REL);
}

static void answer(struct element *e)
{
	uint8_t byte;

	CHECK(!e->fault);
	while (e->rd.left && cursor_get(&e->rd, &byte, 1)) {
		byte++;
		CHECK(cursor_put(&e->wr, &byte, 1));
	}
	virtqueue_push(e);
}

static void let_go(struct post *p)
{
	struct dev_held *h = container_of(p, struct dev_held, post);

	while (h->n) {
		answer(h->e[--h->n]);
		add(&dev.nheld, -1);
	}
}

static void test_ready(struct backend *b, struct virtqueue *q)
{
	struct dev_held *h = &dev.held[virtqueue_index(q)];
	struct element *e;

	__atomic_store_n(&dev.features, b->features, __ATOMIC_RELAXED);
	while ((e = virtqueue_pop(q))) {
		if (!dev_get(&dev.hold)) {
			answer(e);
			continue;
		}
		h->e[h->n++] = e;
		add(&dev.nheld, 1);
	}
}

static int test_start(struct backend *b, struct virtqueue *q)
{
	struct dev_held *h = &dev.held[virtqueue_index(q)];

	(void)b;
	h->q = q;
	h->post.run = let_go;
	add(&dev.started, 1);
	return 0;
}

static void test_stop(struct backend *b, struct virtqueue *q)
{
	struct dev_held *h = &dev.held[virtqueue_index(q)];

	(void)b;
	add(&dev.stopped, 1);
	while (dev_get(&dev.unpop) && h->n) {
		virtqueue_unpop(h->e[--h->n]);
		add(&dev.nheld, -1);
	}
}

static void test_reset(struct backend *b)
{
	(void)b;
	add(&dev.resets, 1);
}

static int test_open(struct backend *b)
{
	b->threads = dev.threads;
	return 0;
}

static int test_save(struct backend *b, int fd)
{
	(void)b;
	return write(fd, dev.state, HOST_STATE) == HOST_STATE ? 0 : -EIO;
}

static int test_load(struct backend *b, int fd)
{
	(void)b;
	return read(fd, dev.state, HOST_STATE) == HOST_STATE ? 0 : -EIO;
}

static const struct queue_spec test_queue = {.name = "test", .ready = test_ready};
static const struct device test_device = {.name = "test",
	.features = BIT(0) | BIT(1),
	.config_size = 8,
	.queues = &test_queue,
	.nqueues = 1,
	.repeat = 1,
	.max_queues = HOST_QUEUES,
	.queue_threads = true,
	.open = test_open,
	.start = test_start,
	.stop = test_stop,
	.reset = test_reset,
	.save = test_save,
	.load = test_load};

/* --- the back-end's thread --- */

int host_serve(const struct backend_options *opt)
{
	return backend_run(&test_device, &dev, opt);
}

static void *host_main(void *arg)
{
	struct host *h = arg;

	h->status = host_serve(&h->opt);
	add(&dev.ended, 1);
	return NULL;
}

void host_start(struct host *h, const struct fe_mode *m, int sndbuf)
{
	int s[2];

	fe_init(&h->fe, m);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	if (sndbuf)
		CHECK_SYS(setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)));
	h->fe.sock = s[0];
	h->opt = (struct backend_options){
		.sockets = {{.fd = s[1]}}, .nsockets = 1, .packed = true, .poll_us = dev.poll_us};
	CHECK_EQ(pthread_create(&h->thread, NULL, host_main, h), 0);
}

void host_up(struct host *h, const struct fe_mode *m)
{
	host_start(h, m, 0);
	fe_handshake(&h->fe);
	fe_memory_default(&h->fe);
}

void host_join(struct host *h, int status)
{
	pthread_join(h->thread, NULL);
	CHECK_EQ(h->status, status);
}

void host_end(struct host *h)
{
	fe_close(&h->fe);
	host_join(h, 0);
}

void dev_until(const int *v, int want)
{
	while (dev_get(v) != want)
		usleep(200);
}

void dev_release(void)
{
	for (unsigned i = 0; i < HOST_QUEUES; i++)
		if (dev.held[i].q)
			loop_post(virtqueue_loop(dev.held[i].q), &dev.held[i].post);
}

/* --- requests --- */

struct echo {
	uint8_t *rd, *wr;
	uint32_t n;
};

void echo_submit(struct fe_queue *q, uint32_t n)
{
	static struct echo all[1024]; /* more than are ever out */
	static unsigned next;
	struct echo *r = &all[next++ % ARRAY_SIZE(all)];
	struct vring_driver_buf b[2];

	r->n = n;
	r->rd = fe_alloc(q->fe, n, 1, NULL);
	r->wr = fe_alloc(q->fe, n, 1, NULL);
	for (uint32_t i = 0; i < n; i++)
		r->rd[i] = (uint8_t)(i * 3 + n);
	b[0] = fe_rd(q->fe, r->rd, n);
	b[1] = fe_wr(q->fe, r->wr, n);
	fe_submit(q, b, 2, r);
}

void echo_collect(struct fe_queue *q)
{
	void *cookie;
	uint32_t len = fe_wait(q, &cookie);
	struct echo *r = cookie;

	CHECK_EQ(len, r->n);
	for (uint32_t i = 0; i < r->n; i++)
		CHECK_EQ(r->wr[i], (uint8_t)(r->rd[i] + 1));
}

void echo_works(struct fe_queue *q)
{
	for (unsigned i = 1; i < 20; i++) {
		echo_submit(q, i);
		fe_flush(q);
		echo_collect(q);
	}
}

void echo_submit_held(struct fe_queue *q, unsigned n)
{
	int before = dev_get(&dev.nheld);

	__atomic_store_n(&dev.hold, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < n; i++)
		echo_submit(q, 10 + i);
	fe_flush(q);
	dev_until(&dev.nheld, before + (int)n);
	__atomic_store_n(&dev.hold, 0, __ATOMIC_RELEASE);
}

bool host_quiet(struct fe *fe)
{
	return !fe_poll(fe->sock, POLLIN, 50);
}

void host_expect(struct fe *fe, uint32_t request, int size)
{
	struct fe_msg m;

	fe_expect(fe, request, size, &m);
}

void host_expect_ack(struct fe *fe, uint32_t request)
{
	struct fe_msg m;

	fe_expect(fe, request, 8, &m);
	CHECK_EQ(*(uint64_t *)m.body, 0);
}
struct fe_region *host_more_memory(struct fe *fe)
{
	return fe_region_make(fe, UINT64_C(1) << 40, 1 << 20, 0x7a0000000000, -1, 0);
}
