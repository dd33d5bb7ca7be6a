/* SPDX-License-Identifier: MIT */
/*
 * Entropy device (virtio 1.3, 5.4): one queue of device-writable buffers that we fill with random bytes.
 *
 * A read must return at least one byte, so a buffer is given back only with something in it. When the source has nothing
 * just now (a FIFO without a writer's bytes) or the quota of this period is spent, the buffer at hand is kept, the
 * others stay in the ring, and the queue is woken by the descriptor or the timer: nobody ever waits in the loop.
 *
 * The quota is a token bucket that is refilled to --max-bytes every --period.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "device.h"

enum { CHUNK = 256 };	      /* getrandom() never returns less than asked for up to this size */
enum { MAX_FILL = 64 << 10 }; /* bytes in a buffer, which may be gigabytes large: the loop has to go on */

struct rng {
	const char *source; /* NULL: getrandom(2) */
	uint64_t max_bytes, period_ms;

	struct backend *b;
	int fd;		     /* -1: getrandom(2) */
	bool pollable;	     /* the source can be waited for */
	struct watch watch;  /* while it is dry */
	struct timer refill; /* armed while the bucket is not full */
	uint64_t tokens;
	struct virtqueue *q;  /* while it runs */
	struct element *kept; /* waits for bytes */
};

static const struct option_spec rng_options[] = {
	{"source", OPTION_PATH, OPTION_FIELD(struct rng, source), .no_def = "the kernel's getrandom(2)",
		.help = "file, device or FIFO to read the bytes from"},
	{"max-bytes", OPTION_SIZE, OPTION_FIELD(struct rng, max_bytes), .def = "0", .no_def = "no limit",
		.help = "give at most this many bytes in a period; 0: no limit"},
	{"period", OPTION_DURATION, OPTION_FIELD(struct rng, period_ms), .def = "1s", .min = 1,
		.max = 86400000, .help = "length of a period"},
	OPTIONS_END,
};

/* Bytes into the buffer: > 0, or -EAGAIN when there are none now, -ENODATA at the end of the source, -errno. */
static ssize_t read_source(struct rng *rng, struct cursor *wr, size_t max)
{
	uint8_t buf[CHUNK];
	size_t done = 0;

	if (rng->fd >= 0) {
		ssize_t n = cursor_readv(wr, rng->fd, max);

		return n ? n : -ENODATA;
	}
	while (done < max) {
		size_t n = MIN(max - done, sizeof(buf));
		ssize_t got = getrandom(buf, n, GRND_NONBLOCK);

		if (got < 0)
			return done ? (ssize_t)done : -errno;
		cursor_put(wr, buf, (size_t)got);
		done += (size_t)got;
	}
	return (ssize_t)done;
}

static void wait_for_source(struct rng *rng)
{
	int fd = rng->fd;

	if (fd < 0 || !rng->pollable || watch_add(rng->b->loop, &rng->watch, fd, EPOLLIN) < 0)
		timer_arm_in(rng->b->loop, &rng->refill, rng->period_ms * 1000000);
}

/* The end of a FIFO means that its writers went: new ones may come. The end of anything else is the end. */
static int source_error(struct rng *rng, ssize_t err)
{
	struct stat st;

	if (err == -EAGAIN || err == -EINTR)
		return 0;
	if (err == -ENODATA && fstat(rng->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		return lseek(rng->fd, 0, SEEK_SET) == 0 ? 0
							: -errno; /* a file of random bytes begins again */
	backend_fail(rng->b, "--source=%s: %s", rng->source ? rng->source : "getrandom",
		err == -ENODATA ? "no more bytes" : strerror((int)-err));
	return (int)err;
}

/* True: the buffer has bytes and may go back. */
static bool fill(struct rng *rng, struct element *e)
{
	size_t want = MIN(e->wr.left, MAX_FILL);
	ssize_t n;

	if (!want)
		return true; /* nothing can be written; the driver gets it back empty */
	if (rng->max_bytes) {
		if (!rng->tokens)
			return false; /* the refill timer is armed */
		want = MIN(want, rng->tokens);
	}
	n = read_source(rng, &e->wr, want);
	if (n == -ENODATA && source_error(rng, n) == 0)
		n = read_source(rng, &e->wr, want);
	if (n <= 0) {
		if (source_error(rng, n ? n : -ENODATA) == 0)
			wait_for_source(rng);
		return false;
	}
	if (rng->max_bytes) {
		rng->tokens -= (uint64_t)n;
		if (!rng->refill.at)
			timer_arm_in(rng->b->loop, &rng->refill, rng->period_ms * 1000000);
	}
	return true;
}

static void rng_ready(struct backend *b, struct virtqueue *q)
{
	struct rng *rng = b->state;
	struct element *e;

	if (rng->watch.fd >= 0)
		return;
	while ((e = rng->kept ? rng->kept : virtqueue_pop(q))) {
		rng->kept = NULL;
		if (!fill(rng, e)) {
			rng->kept = e;
			return;
		}
		virtqueue_push(e);
	}
}

static void source_ready(struct watch *w, uint32_t events)
{
	struct rng *rng = container_of(w, struct rng, watch);

	(void)events;
	watch_del(w);
	if (rng->q)
		virtqueue_wake(rng->q);
}

static void refilled(struct timer *t)
{
	struct rng *rng = container_of(t, struct rng, refill);

	rng->tokens = rng->max_bytes;
	if (rng->q)
		virtqueue_wake(rng->q);
}

static int rng_start(struct backend *b, struct virtqueue *q)
{
	struct rng *rng = b->state;

	rng->q = q;
	return 0;
}

static void rng_stop(struct backend *b, struct virtqueue *q)
{
	struct rng *rng = b->state;
	struct element *e = rng->kept;

	(void)q;
	watch_del(&rng->watch);
	rng->q = NULL;
	rng->kept = NULL;
	if (e)
		virtqueue_unpop(e);
}

static int rng_open(struct backend *b)
{
	struct rng *rng = b->state;
	struct pollfd p = {.events = POLLIN};
	struct stat st;
	int fd = -1, writer, flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;

	rng->b = b;
	rng->fd = rng->watch.fd = -1;
	rng->watch.ready = source_ready;
	rng->refill.expired = refilled;
	rng->tokens = rng->max_bytes;
	if (!rng->source)
		return 0;
	fd = open(rng->source, flags);
	if (fd < 0)
		return log_errno(errno, "--source=%s", rng->source);
	if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && !st.st_size)) {
		log_error(
			"--source=%s: %s", rng->source, S_ISDIR(st.st_mode) ? "is a directory" : "is empty");
		close(fd);
		return -EINVAL;
	}
	if (S_ISFIFO(st.st_mode)) { /* a writer of our own: the FIFO never ends when the others go */
		writer = open(rng->source, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (writer >= 0) {
			close(fd);
			fd = writer;
		}
	}
	p.fd = fd;
	rng->pollable = !S_ISREG(st.st_mode) && poll(&p, 1, 0) >= 0;
	rng->fd = fd;
	return 0;
}

static void rng_close(struct backend *b)
{
	struct rng *rng = b->state;

	watch_del(&rng->watch);
	timer_disarm(&rng->refill);
	fd_close(&rng->fd);
}

static const struct queue_spec rng_queues[] = {{"requests", rng_ready, 0, 0}};

const struct device device_rng = {
	.name = "rng",
	.summary = "entropy from the host's random number generator or a file",
	.virtio_id = VIRTIO_ID_RNG,
	.state_size = sizeof(struct rng),
	.options = rng_options,
	.queues = rng_queues,
	.nqueues = 1,
	.max_queues = 1,
	.in_order = true,
	.open = rng_open,
	.close = rng_close,
	.start = rng_start,
	.stop = rng_stop,
};
