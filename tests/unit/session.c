/* SPDX-License-Identifier: MIT */
/*
 * A whole back-end in this process, with a device that holds its buffers until the test lets them go: what waits for
 * them, and what does not. The front-end is that of the device tests. With queue threads this is the test to run under
 * ThreadSanitizer.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "backend.h"
#include "frontend.h"

enum { QUEUES = 4, DEPTH = 64, STATE = 3 << 20 };

/* --- the device --- */

struct held {
	struct virtqueue *q;
	struct element *e[DEPTH];
	unsigned n;
	struct post post; /* lets them go, in the queue's loop */
};

/* What the test looks at is atomic, since it is in another thread. */
static struct {
	unsigned threads, poll_us;
	int hold, unpop; /* new buffers stay; they are given back at the stop */
	int nheld, started, stopped, resets, ended;
	uint64_t features; /* at the last request */
	uint8_t *state;
	struct held held[QUEUES];
} dev;

static int get(const int *v)
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
	struct held *h = container_of(p, struct held, post);

	while (h->n) {
		answer(h->e[--h->n]);
		add(&dev.nheld, -1);
	}
}

static void test_ready(struct backend *b, struct virtqueue *q)
{
	struct held *h = &dev.held[virtqueue_index(q)];
	struct element *e;

	__atomic_store_n(&dev.features, b->features, __ATOMIC_RELAXED);
	while ((e = virtqueue_pop(q))) {
		if (!get(&dev.hold)) {
			answer(e);
			continue;
		}
		h->e[h->n++] = e;
		add(&dev.nheld, 1);
	}
}

static int test_start(struct backend *b, struct virtqueue *q)
{
	struct held *h = &dev.held[virtqueue_index(q)];

	(void)b;
	h->q = q;
	h->post.run = let_go;
	add(&dev.started, 1);
	return 0;
}

static void test_stop(struct backend *b, struct virtqueue *q)
{
	struct held *h = &dev.held[virtqueue_index(q)];

	(void)b;
	add(&dev.stopped, 1);
	while (get(&dev.unpop) && h->n) {
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
	return write(fd, dev.state, STATE) == STATE ? 0 : -EIO;
}

static int test_load(struct backend *b, int fd)
{
	(void)b;
	return read(fd, dev.state, STATE) == STATE ? 0 : -EIO;
}

static const struct queue_spec test_queue = {.name = "test", .ready = test_ready};
static const struct device test_device = {.name = "test",
	.features = BIT(0) | BIT(1),
	.config_size = 8,
	.queues = &test_queue,
	.nqueues = 1,
	.repeat = 1,
	.max_queues = QUEUES,
	.queue_threads = true,
	.open = test_open,
	.start = test_start,
	.stop = test_stop,
	.reset = test_reset,
	.save = test_save,
	.load = test_load};

/* --- the back-end's thread --- */

struct host {
	struct fe fe;
	struct backend_options opt;
	pthread_t thread;
	int status;
};

static void *host_main(void *arg)
{
	struct host *h = arg;

	h->status = backend_run(&test_device, &dev, &h->opt);
	add(&dev.ended, 1);
	return NULL;
}

/* Starts it on one end of a socketpair; sndbuf: of its end, 0: as it is. */
static void host_start(struct host *h, const struct fe_mode *m, int sndbuf)
{
	int s[2];

	fe_init(&h->fe, m);
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	if (sndbuf)
		CHECK_SYS(setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf)));
	h->fe.sock = s[0];
	h->opt = (struct backend_options){.fd = s[1], .packed = true, .poll_us = dev.poll_us};
	CHECK_EQ(pthread_create(&h->thread, NULL, host_main, h), 0);
}

static void host_up(struct host *h, const struct fe_mode *m)
{
	host_start(h, m, 0);
	fe_handshake(&h->fe);
	fe_memory_default(&h->fe);
}

static void host_join(struct host *h, int status)
{
	pthread_join(h->thread, NULL);
	CHECK_EQ(h->status, status);
}

static void host_end(struct host *h)
{
	fe_close(&h->fe);
	host_join(h, 0);
}

/* Waits for what the other thread does; the case has a time limit. */
static void until(const int *v, int want)
{
	while (get(v) != want)
		usleep(200);
}

static void release_all(void)
{
	for (unsigned i = 0; i < QUEUES; i++)
		if (dev.held[i].q)
			loop_post(virtqueue_loop(dev.held[i].q), &dev.held[i].post);
}

/* --- requests --- */

struct echo {
	uint8_t *rd, *wr;
	uint32_t n;
};

static void submit(struct fe_queue *q, uint32_t n)
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

static void collect(struct fe_queue *q)
{
	void *cookie;
	uint32_t len = fe_wait(q, &cookie);
	struct echo *r = cookie;

	CHECK_EQ(len, r->n);
	for (uint32_t i = 0; i < r->n; i++)
		CHECK_EQ(r->wr[i], (uint8_t)(r->rd[i] + 1));
}

static void works(struct fe_queue *q)
{
	for (unsigned i = 1; i < 20; i++) {
		submit(q, i);
		fe_flush(q);
		collect(q);
	}
}

/* n requests that the device keeps. */
static void submit_held(struct fe_queue *q, unsigned n)
{
	int before = get(&dev.nheld);

	__atomic_store_n(&dev.hold, 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < n; i++)
		submit(q, 10 + i);
	fe_flush(q);
	until(&dev.nheld, before + (int)n);
	__atomic_store_n(&dev.hold, 0, __ATOMIC_RELEASE);
}

static bool quiet(struct fe *fe)
{
	return !fe_poll(fe->sock, POLLIN, 50);
}

static void expect(struct fe *fe, uint32_t request, int size)
{
	struct fe_msg m;

	fe_expect(fe, request, size, &m);
}

static void expect_ack(struct fe *fe, uint32_t request)
{
	struct fe_msg m;

	fe_expect(fe, request, 8, &m);
	CHECK_EQ(*(uint64_t *)m.body, 0);
}

/* --- memory --- */

static struct fe_region *more_memory(struct fe *fe)
{
	return fe_region_make(fe, UINT64_C(1) << 40, 1 << 20, 0x7a0000000000, -1, 0);
}

static bool mapped(const struct fe_region *r)
{
	char line[512], name[32];
	struct stat st;
	unsigned n = 0;
	FILE *f = fopen("/proc/self/maps", "r");

	CHECK(f);
	CHECK_SYS(fstat(r->fd, &st));
	snprintf(name, sizeof(name), " %llu ", (unsigned long long)st.st_ino);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, name) != NULL;
	fclose(f);
	return n > 1; /* ours is one */
}

/* Removal is acknowledged when the last element that uses the region has come back. */
static void removal_waits(const struct fe_mode *m)
{
	struct fe_queue *q, *other;
	struct fe_mem_reg msg = {0};
	struct fe_region *r;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 1, 16);
	works(q);
	r = more_memory(&h.fe);
	fe_region_add(&h.fe, r);
	submit_held(q, 3);
	CHECK(mapped(r));
	msg.region = r->w;
	fe_send(&h.fe, FE_REM_MEM_REG, FE_NEED_REPLY, &msg, sizeof(msg), NULL, 0);
	fe_send(&h.fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0); /* waits its turn */
	CHECK(quiet(&h.fe));
	CHECK(mapped(r));
	CHECK_EQ(get(&dev.nheld), 3);
	release_all();
	expect_ack(&h.fe, FE_REM_MEM_REG);
	CHECK(!mapped(r));
	expect(&h.fe, FE_GET_FEATURES, 8);
	collect(q);
	collect(q);
	collect(q);
	/* without a wish for an answer nobody waits; the mapping stays as long as it is used */
	msg.region = r->w;
	fe_set(&h.fe, FE_ADD_MEM_REG, &msg, sizeof(msg), &r->fd, 1);
	submit_held(q, 1);
	fe_send(&h.fe, FE_REM_MEM_REG, 0, &msg, sizeof(msg), NULL, 0);
	fe_barrier(&h.fe);
	CHECK(mapped(r));
	release_all();
	collect(q);
	until(&dev.nheld, 0);
	fe_barrier(&h.fe);
	CHECK(!mapped(r));
	/* on our side, too */
	fe_set(&h.fe, FE_ADD_MEM_REG, &msg, sizeof(msg), &r->fd, 1);
	fe_region_remove(&h.fe, r);
	works(q);
	works(other);
	host_end(&h);
}

static void table_waits(const struct fe_mode *m)
{
	struct fe_mem_table t = {0};
	struct fe_queue *q;
	static struct host h;
	int fds[8];
	unsigned i;

	fe_init(&h.fe, m);
	host_start(&h, m, 0);
	h.fe.protocol_mask &= ~BIT(FE_P_MEM_SLOTS);
	fe_handshake(&h.fe);
	fe_memory_default(&h.fe);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	submit_held(q, 2);
	t.n = h.fe.nregions;
	for (i = 0; i < t.n; i++) {
		t.region[i] = h.fe.regions[i].w;
		fds[i] = h.fe.regions[i].fd;
	}
	fe_send(&h.fe, FE_SET_MEM_TABLE, FE_NEED_REPLY, &t,
		offsetof(struct fe_mem_table, region) + t.n * sizeof(t.region[0]), fds, t.n);
	CHECK(quiet(&h.fe));
	release_all();
	expect_ack(&h.fe, FE_SET_MEM_TABLE);
	collect(q);
	collect(q);
	works(q);
	host_end(&h);
}

/* The front-end goes while it waits for removed memory. */
static void removal_and_hangup(const struct fe_mode *m)
{
	struct fe_mem_reg msg = {0};
	struct fe_queue *q;
	struct fe_region *r;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	r = more_memory(&h.fe);
	fe_region_add(&h.fe, r);
	submit_held(q, 2);
	msg.region = r->w;
	fe_send(&h.fe, FE_REM_MEM_REG, FE_NEED_REPLY, &msg, sizeof(msg), NULL, 0);
	CHECK(quiet(&h.fe));
	fd_close(&h.fe.sock);
	until(&dev.stopped, 1);
	usleep(20000);
	CHECK_EQ(get(&dev.ended), 0); /* the elements are still out */
	release_all();
	host_join(&h, 0);
	CHECK_EQ(get(&dev.resets), 1);
	CHECK(!mapped(r));
	fe_close(&h.fe);
}

/* --- rest --- */

static void base_waits(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q, *other;
	struct fe_msg msg;
	static struct host h;
	uint32_t base;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 1, 16);
	works(q);
	submit_held(q, 3);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	CHECK(quiet(&h.fe));
	until(&dev.stopped, 1);
	works(other); /* nothing else stands still */
	submit(q, 5); /* too late for this life of the ring */
	fe_flush(q);
	release_all();
	fe_expect(&h.fe, FE_GET_VRING_BASE, sizeof(s), &msg);
	base = ((struct fe_vring_state *)msg.body)->num;
	CHECK(fe_collect(q, NULL, NULL) && fe_collect(q, NULL, NULL) && fe_collect(q, NULL, NULL));
	CHECK(!fe_collect(q, NULL, NULL));
	CHECK_EQ(fe_queue_stop(q), base); /* asked again: at once, the same */
	fe_queue_send(q, base);
	fe_kick(q);
	collect(q);
	works(q);
	/* what the device gives back is there after the start */
	__atomic_store_n(&dev.unpop, 1, __ATOMIC_RELEASE);
	submit_held(q, 4);
	base = fe_queue_stop(q);
	CHECK(!fe_collect(q, NULL, NULL));
	fe_queue_send(q, base);
	fe_kick(q);
	collect(q);
	collect(q);
	collect(q);
	collect(q);
	works(q);
	host_end(&h);
}

static void hangup_at_base(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	fe_queue_up(&h.fe, 1, 16);
	works(q);
	submit_held(q, 3);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	CHECK(quiet(&h.fe));
	fd_close(&h.fe.sock);
	until(&dev.stopped, 2);
	usleep(20000);
	CHECK_EQ(get(&dev.ended), 0);
	release_all();
	host_join(&h, 0);
	CHECK(!fe_collect(q, NULL, NULL)); /* nobody wrote to the ring any more */
	fe_close(&h.fe);
}

static void disable_twice(const struct fe_mode *m)
{
	struct fe_vring_state off = {0, 0};
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	submit_held(q, 2);
	fe_send(&h.fe, FE_SET_VRING_ENABLE, FE_NEED_REPLY, &off, sizeof(off), NULL, 0);
	fe_send(&h.fe, FE_SET_VRING_ENABLE, FE_NEED_REPLY, &off, sizeof(off), NULL, 0);
	CHECK(quiet(&h.fe));
	release_all();
	expect_ack(&h.fe, FE_SET_VRING_ENABLE);
	expect_ack(&h.fe, FE_SET_VRING_ENABLE);
	CHECK_EQ(get(&dev.stopped), 1);
	collect(q);
	collect(q);
	fe_queue_enable(q, false);
	submit(q, 7);
	fe_flush(q);
	fe_kick(q);
	fe_barrier(&h.fe);
	CHECK_EQ(get(&dev.started), 1);
	fe_queue_enable(q, true);
	fe_queue_enable(q, true);
	CHECK_EQ(get(&dev.started), 2);
	collect(q);
	works(q);
	host_end(&h);
}

static void reset_waits(const struct fe_mode *m)
{
	struct fe_queue *q, *other;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 3, 16);
	works(q);
	submit_held(q, 2);
	submit_held(other, 2);
	fe_send(&h.fe, FE_RESET_DEVICE, FE_NEED_REPLY, NULL, 0, NULL, 0);
	CHECK(quiet(&h.fe));
	CHECK_EQ(get(&dev.resets), 0);
	release_all();
	expect_ack(&h.fe, FE_RESET_DEVICE);
	CHECK_EQ(get(&dev.resets), 1);
	host_end(&h);
}

/* Features are final while a ring runs; the log may be switched. */
static void features_on_running_rings(const struct fe_mode *m)
{
	uint64_t running, base = BIT(FE_F_PROTOCOL) | BIT(FE_F_VERSION_1);
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	running = h.fe.features & 3;
	CHECK_EQ(running, 3);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	fe_set_u64(&h.fe, FE_SET_FEATURES, base | BIT(FE_F_LOG_ALL) | 1);
	works(q);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & 3, 3);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & BIT(FE_F_LOG_ALL), 0);
	fe_set_u64(&h.fe, FE_SET_FEATURES, h.fe.features);
	fe_queue_send(q, fe_queue_stop(q));
	fe_kick(q);
	works(q);
	CHECK_EQ(__atomic_load_n(&dev.features, __ATOMIC_RELAXED) & 3, 3);
	host_end(&h);
}

/* --- a front-end that does not read --- */

static int unread(struct fe *fe)
{
	int n;

	CHECK_SYS(ioctl(fe->sock, FIONREAD, &n));
	return n;
}

/* Asks for features until no reply fits any more; how many did. */
static int fill_socket(struct fe *fe)
{
	int n = 0, ms;

	for (;;) {
		fe_send(fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0);
		for (ms = 0; unread(fe) == n * 20 && ms < 200; ms++)
			usleep(1000);
		if (unread(fe) == n * 20)
			return n;
		n++;
	}
}

static void replies(struct fe *fe, int n)
{
	while (n--)
		expect(fe, FE_GET_FEATURES, 8);
}

/* The reply of a message that had to wait finds no room: it comes when there is. */
static void late_reply(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q;
	static struct host h;
	int room, i;

	host_start(&h, m, 1);
	fe_handshake(&h.fe);
	fe_memory_default(&h.fe);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	room = fill_socket(&h.fe);
	replies(&h.fe, room + 1);
	fe_barrier(&h.fe);
	submit_held(q, 1);
	for (i = 0; i < room; i++)
		fe_send(&h.fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0);
	while (unread(&h.fe) < room * 20)
		usleep(200);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	until(&dev.stopped, 1);
	release_all();
	until(&dev.nheld, 0);
	usleep(20000);
	replies(&h.fe, room);
	expect(&h.fe, FE_GET_VRING_BASE, sizeof(s));
	fe_barrier(&h.fe);
	host_end(&h);
}

/* It says that it sends no more, and does not read either: the connection is over. */
static void half_closed(const struct fe_mode *m)
{
	static struct host h;

	host_start(&h, m, 1);
	fe_handshake(&h.fe);
	fill_socket(&h.fe);
	CHECK_SYS(shutdown(h.fe.sock, SHUT_WR));
	host_join(&h, 0);
	fe_close(&h.fe);
}

/* --- device state --- */

static uint64_t state_fd(struct fe *fe, uint32_t direction, int fd)
{
	struct fe_wire_state s = {.direction = direction};
	struct fe_msg m;

	fe_send(fe, FE_SET_DEVICE_STATE_FD, 0, &s, sizeof(s), &fd, 1);
	fe_expect(fe, FE_SET_DEVICE_STATE_FD, 8, &m);
	return *(uint64_t *)m.body;
}

static void state_moves(const struct fe_mode *m)
{
	uint8_t *copy = malloc(STATE);
	struct fe_queue *q;
	static struct host h;
	size_t done = 0;
	struct fe_msg msg;
	int p[2];

	CHECK(copy && (dev.state = malloc(STATE)));
	for (size_t i = 0; i < STATE; i++)
		dev.state[i] = (uint8_t)(i * 31 + i / 256);
	memcpy(copy, dev.state, STATE);
	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	works(q);
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK(state_fd(&h.fe, 0, p[1]) & 0xff); /* a ring runs */
	fe_queue_stop(q);
	CHECK_EQ(state_fd(&h.fe, 0, p[1]), 0x100);
	CHECK(state_fd(&h.fe, 0, p[1]) & 0xff); /* one at a time */
	close(p[1]);
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	CHECK(quiet(&h.fe));
	while (done < STATE) {
		uint8_t buf[5000];
		ssize_t n = read(p[0], buf, sizeof(buf));

		CHECK(n > 0);
		CHECK_MEM(buf, copy + done, (size_t)n);
		done += (size_t)n;
	}
	CHECK_EQ(read(p[0], copy, 1), 0);
	close(p[0]);
	fe_expect(&h.fe, FE_CHECK_DEVICE_STATE, 8, &msg);
	CHECK_EQ(*(uint64_t *)msg.body, 0);
	/* and in */
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK_EQ(state_fd(&h.fe, 1, p[0]), 0x100);
	close(p[0]);
	for (done = 0; done < STATE; done += 4096) {
		uint8_t page[4096];

		memset(page, (int)(done >> 12), sizeof(page));
		CHECK_EQ(write(p[1], page, sizeof(page)), sizeof(page));
	}
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	CHECK(quiet(&h.fe));
	close(p[1]);
	fe_expect(&h.fe, FE_CHECK_DEVICE_STATE, 8, &msg);
	CHECK_EQ(*(uint64_t *)msg.body, 0);
	fe_barrier(&h.fe);
	for (done = 0; done < STATE; done += 4096)
		CHECK_EQ(dev.state[done + 77], (uint8_t)(done >> 12));
	/* the front-end goes in the middle */
	CHECK_SYS(pipe2(p, O_CLOEXEC));
	CHECK_EQ(state_fd(&h.fe, 0, p[1]), 0x100);
	close(p[1]);
	fe_send(&h.fe, FE_CHECK_DEVICE_STATE, 0, NULL, 0, NULL, 0);
	host_end(&h);
	while (read(p[0], copy, 4096) > 0)
		;
	close(p[0]);
	free(copy);
}

/* --- the end of the process --- */

static void exits_in(pid_t pid, int status)
{
	int got;

	CHECK_EQ(waitpid(pid, &got, 0), pid);
	CHECK(WIFEXITED(got));
	CHECK_EQ(WEXITSTATUS(got), status);
}

/* held: elements are out and stay out; then the process ends all the same. */
static void terminated(const struct fe_mode *m, bool held)
{
	char path[128];
	struct fe_queue *q;
	struct fe fe;
	int64_t start;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/s", fe_tmpdir());
	fflush(NULL);
	pid = fork();
	CHECK_SYS(pid);
	if (pid == 0) {
		struct backend_options opt = {.socket_path = path, .fd = -1, .packed = true};

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dev.hold = held;
		_exit(backend_run(&test_device, &dev, &opt));
	}
	fe_init(&fe, m);
	fe_connect(&fe, path);
	fe_handshake(&fe);
	fe_memory_default(&fe);
	q = fe_queue_up(&fe, 0, 16);
	submit(q, 10);
	fe_flush(q);
	if (held)
		fe_barrier(&fe);
	else
		collect(q);
	CHECK_EQ(access(path, F_OK), 0);
	start = fe_now_ms();
	kill(pid, SIGTERM);
	fe_expect_eof(&fe);
	exits_in(pid, 0);
	CHECK(fe_now_ms() - start < 2000);
	CHECK_EQ(access(path, F_OK), -1);
	fe_close(&fe);
}

static void terminated_idle(const struct fe_mode *m)
{
	terminated(m, false);
}

static void terminated_busy(const struct fe_mode *m)
{
	terminated(m, true);
}

/* --- queue threads --- */

static void toggle(struct fe *fe, struct fe_queue *q, unsigned round)
{
	switch (round % 5) {
	case 0:
		fe_log_set(fe, 1 << 20, 0);
		fe_set_u64(fe, FE_SET_FEATURES, fe->features | BIT(FE_F_LOG_ALL));
		break;
	case 1:
		fe_set_u64(fe, FE_SET_FEATURES, fe->features);
		break;
	case 2:
		fe_queue_send_fd(q, FE_SET_VRING_CALL, q->call);
		fe_queue_send_fd(q, FE_SET_VRING_ERR, q->err);
		break;
	case 3:
		fe_queue_send_addr(q);
		break;
	default:
		fe_queue_send_fd(q, FE_SET_VRING_KICK, q->kick);
		break;
	}
	fe_barrier(fe);
}

/* Traffic on all queues while memory comes and goes, and everything else that may change under a running ring does. */
static void traffic_in_threads(const struct fe_mode *m, unsigned poll_us)
{
	struct fe_queue *q[QUEUES];
	unsigned round, i, k, rounds = 150;
	static struct host h;

	dev.threads = 2;
	dev.poll_us = poll_us;
	host_up(&h, m);
	for (i = 0; i < QUEUES; i++) {
		q[i] = fe_queue_up(&h.fe, i, DEPTH);
		works(q[i]);
	}
	for (round = 0; round < rounds; round++) {
		size_t mark = fe_mark(&h.fe);
		struct fe_region *r;

		for (i = 0; i < QUEUES; i++) {
			for (k = 0; k < 8; k++)
				submit(q[i], 1 + (round + k) % 100);
			fe_flush(q[i]);
		}
		r = more_memory(&h.fe);
		fe_region_add(&h.fe, r);
		for (i = 0; i < QUEUES; i++) {
			submit(q[i], 200);
			fe_flush(q[i]);
		}
		toggle(&h.fe, q[round % QUEUES], round);
		for (i = 0; i < QUEUES; i++)
			for (k = 0; k < 9; k++)
				collect(q[i]);
		fe_region_remove(&h.fe, r);
		if (round % 7 == 0) {
			submit(q[1], 50);
			submit(q[2], 50);
			fe_flush(q[1]);
			fe_flush(q[2]);
			fe_queue_send(q[1], fe_queue_stop(q[1]));
			fe_kick(q[1]);
			collect(q[1]);
			collect(q[2]);
		}
		fe_release(&h.fe, mark);
	}
	host_end(&h);
	CHECK_EQ(get(&dev.nheld), 0);
}

static void threads(const struct fe_mode *m)
{
	traffic_in_threads(m, 0);
}

static void polling_threads(const struct fe_mode *m)
{
	traffic_in_threads(m, 30);
}

/* The front-end goes while all threads are busy. */
static void threads_and_hangup(const struct fe_mode *m)
{
	struct fe_queue *q[QUEUES];
	unsigned i, k;
	static struct host h;

	dev.threads = 3;
	host_up(&h, m);
	for (i = 0; i < QUEUES; i++)
		q[i] = fe_queue_up(&h.fe, i, DEPTH);
	for (i = 0; i < QUEUES; i++) {
		for (k = 0; k < 16; k++)
			submit(q[i], 2000);
		fe_flush(q[i]);
	}
	fd_close(&h.fe.sock);
	host_join(&h, 0);
	CHECK_EQ(get(&dev.started), get(&dev.stopped));
	fe_close(&h.fe);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_layout("removed memory is waited for", removal_waits);
	fe_each_layout("a new table is waited for", table_waits);
	fe_case("removed memory, and the front-end goes", removal_and_hangup, NULL);
	fe_each_layout("GET_VRING_BASE waits", base_waits);
	fe_case("the front-end goes while GET_VRING_BASE waits", hangup_at_base, NULL);
	fe_case("a ring is disabled twice", disable_twice, NULL);
	fe_case("RESET_DEVICE waits", reset_waits, NULL);
	fe_case("features while a ring runs", features_on_running_rings, NULL);
	fe_case("a late reply finds no room", late_reply, NULL);
	fe_case("half closed and clogged", half_closed, NULL);
	fe_case("device state through the connection", state_moves, NULL);
	fe_case("SIGTERM", terminated_idle, NULL);
	fe_case("SIGTERM with buffers out", terminated_busy, NULL);
	fe_each_layout("queue threads", threads);
	fe_each_layout("queue threads that poll", polling_threads);
	fe_case("queue threads, and the front-end goes", threads_and_hangup, NULL);
	return tap_done();
}
