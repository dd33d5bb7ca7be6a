/* SPDX-License-Identifier: MIT */
/*
 * The life of one device in one process; see backend.h.
 *
 * The main thread runs the control loop: connections, the protocol, signals (through a signalfd), and the queues of
 * devices without threads of their own. With b->threads there are that many more loops, each made when its first queue
 * is set up. One session at a time; the listener is asked for the next connection when the last has ended.
 *
 * The end: SIGTERM and SIGINT close the listener, which removes our socket, let the requests in flight finish, and end
 * the process with status 0, after END_NS at the latest: what is then still in flight was never acknowledged. That this
 * happens even when the control loop itself hangs is term.c's.
 */
#include "backend-core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "shmem.h"

#define END_NS (UINT64_C(60) * 1000 * 1000)

/* Queues */

static const struct queue_spec *spec_of(const struct device *dev, unsigned index)
{
	unsigned first = dev->nqueues - dev->repeat;

	if (index < dev->nqueues)
		return &dev->queues[index];
	return &dev->queues[first + (index - first) % dev->repeat];
}

static struct loop *queue_loop(struct core *c, unsigned index)
{
	struct loop **l;
	char name[24];

	if (!c->b.threads)
		return c->b.loop;
	index /= MAX(c->b.thread_queues, 1u);
	l = &c->thread[index % c->b.threads];
	if (*l)
		return *l;
	snprintf(name, sizeof(name), "queue-%u", index % c->b.threads);
	if (loop_new(l, name) < 0)
		return NULL;
	loop_set_spin(*l, c->opt->poll_us * 1000);
	if (loop_spawn(*l) < 0) {
		loop_free(*l);
		*l = NULL;
	}
	return *l;
}

static int queue_start(struct virtqueue *q)
{
	struct backend *b = virtqueue_backend(q);

	return b->dev->start ? b->dev->start(b, q) : 0;
}

static void queue_stop(struct virtqueue *q)
{
	struct backend *b = virtqueue_backend(q);

	if (b->dev->stop)
		b->dev->stop(b, q);
}

static struct virtqueue *host_queue(struct session_host *host, unsigned index)
{
	struct core *c = container_of(host, struct core, host);
	struct virtqueue *q;
	struct loop *loop;

	if (index >= host->nqueues)
		return NULL;
	if (host->queues[index])
		return host->queues[index];
	loop = queue_loop(c, index);
	if (!loop || virtqueue_new(&q, &c->b, spec_of(c->b.dev, index), index, c->b.dev->queue_state_size,
			     loop, c->b.loop) < 0) {
		log_error("queue %u: out of memory or threads", index);
		return NULL;
	}
	if (c->opt->control_path)
		q->latency = calloc(1, sizeof(*q->latency)); /* without it no times are taken */
	q->reverse = index < 64 && (c->b.dev->reversed & BIT(index));
	q->only_read = index < 64 && (c->b.dev->only_read & BIT(index));
	q->always_call = index < 64 && (c->b.dev->always_call & BIT(index));
	q->on_start = queue_start;
	q->on_stop = queue_stop;
	q->call_inband = session_call_inband;
	q->call_host = host;
	host->queues[index] = q;
	return q;
}

struct virtqueue *backend_queue(struct backend *b, unsigned index)
{
	struct core *c = core_of(b);

	return index < c->host.nqueues ? c->host.queues[index] : NULL;
}

/* Guest memory outside an element */

bool backend_memory_get(struct backend *b, struct backend_memory *m)
{
	const struct session *s = core_of(b)->host.session;

	if (!s || !s->mem)
		return false;
	*m = (struct backend_memory){.map = guestmem_ref(s->mem)};
	if (s->log && (s->features & BIT(FEATURE_LOG_ALL)))
		m->log = dirtylog_ref(s->log);
	return true;
}

void backend_memory_put(struct backend_memory *m)
{
	guestmem_unref(m->map);
	dirtylog_unref(m->log);
	*m = (struct backend_memory){0};
}

unsigned backend_memory_iovec(
	struct backend_memory *m, uint64_t gpa, uint64_t len, struct iovec *v, unsigned n)
{
	unsigned i = 0;

	while (len) {
		uint64_t avail;
		uint8_t *p = i < n ? guestmem_lookup(m->map, gpa, &avail, &m->hint) : NULL;

		if (!p)
			return 0;
		v[i].iov_base = p;
		v[i].iov_len = MIN(avail, len);
		len -= v[i].iov_len;
		if (len && !checked_add(gpa, v[i].iov_len, &gpa))
			return 0;
		i++;
	}
	return i;
}

void backend_memory_wrote(struct backend_memory *m, uint64_t gpa, uint64_t len)
{
	if (m->log)
		dirtylog_mark(m->log, gpa, len);
}

uint64_t backend_memory_generation(struct backend *b)
{
	return core_of(b)->host.memory_generation;
}

/* Connections and the end */

static void finish(struct core *c)
{
	loop_stop(c->b.loop);
}

static void end(struct core *c, int status)
{
	if (c->ending)
		return;
	c->ending = true;
	c->status = status;
	listener_close(&c->listener);
	control_quiet(&c->control);
	term_begin(&c->term, status);
	if (!c->host.session) {
		finish(c);
		return;
	}
	timer_arm_in(c->b.loop, &c->deadline, END_NS);
	session_end(c->host.session, false, true);
}

static void session_ended(struct session_host *host, bool orderly)
{
	struct core *c = container_of(host, struct core, host);

	if (c->ending) {
		finish(c);
		return;
	}
	control_event(&c->control, "disconnected", NULL);
	if (!listener_next(&c->listener))
		end(c, orderly ? 0 : 1);
}

static void connected(struct listener *l, int fd)
{
	struct core *c = container_of(l, struct core, listener);

	if (!session_new(&c->host, fd)) {
		end(c, 1);
		return;
	}
	control_event(&c->control, "connected", NULL);
}

/* Quiescing took too long. The kernel may still be busy for us, so no tidying up. */
static void deadline_expired(struct timer *t)
{
	struct core *c = container_of(t, struct core, deadline);

	log_warn("requests in flight did not end in time");
	_exit(c->status);
}

static void term_ready(struct watch *w, uint32_t events)
{
	struct core *c = container_of(w, struct core, term_watch);

	(void)events;
	watch_del(w);
	if (!c->ending)
		log_info("ended by signal %d", term_signal());
	end(c, 0);
}

static void memory_lost(struct watch *w, uint32_t events)
{
	struct core *c = container_of(w, struct core, lost);
	uint64_t count;

	(void)events;
	if (read(w->fd, &count, sizeof(count)) < 0 || !shmem_lost())
		return;
	log_error("memory shared by the front-end is gone: its file was truncated");
	if (c->host.session)
		session_end(c->host.session, true, false);
}

bool backend_event_wanted(const struct backend *b)
{
	return control_has_clients(&container_of(b, const struct core, b)->control);
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	control_event(&core_of(b)->control, name, data);
	json_free(data);
}

void backend_config_changed(struct backend *b)
{
	struct core *c = core_of(b);

	if (c->host.session)
		session_config_changed(c->host.session);
}

static void fail_run(struct post *p)
{
	end(container_of(p, struct core, fail_post), 1);
}

static void quit_run(struct post *p)
{
	log_info("ended by a command");
	end(container_of(p, struct core, quit_post), 0);
}

void backend_fail(struct backend *b, const char *fmt, ...)
{
	struct core *c = core_of(b);
	char why[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	log_error("%s", why);
	loop_post(b->loop, &c->fail_post);
}

/* Set-up */

/* Every memory region takes a descriptor. */
static void raise_fd_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int watch_signals(struct core *c)
{
	int err = term_start(&c->term);

	c->host.term_fd = c->term.fd;
	return err ? err : watch_add(c->b.loop, &c->term_watch, c->term.fd, EPOLLIN);
}

static int watch_memory(struct core *c)
{
	int fd = shmem_guard();

	if (fd < 0)
		return log_errno(-fd, "SIGBUS handler");
	return watch_add(c->b.loop, &c->lost, fd, EPOLLIN);
}

static int open_device(struct core *c)
{
	const struct device *dev = c->b.dev;
	int err;

	c->b.config = calloc(1, dev->config_size + 1);
	if (!c->b.config)
		return log_errno(ENOMEM, "%s", dev->name);
	err = dev->open ? dev->open(&c->b) : 0;
	if (err)
		return err;
	c->opened = true;
	c->b.threads = MIN(c->b.threads, (unsigned)BACKEND_MAX_THREADS);
	c->host.nqueues = c->b.num_queues;
	c->host.queues = calloc(c->host.nqueues, sizeof(*c->host.queues));
	return c->host.queues ? 0 : log_errno(ENOMEM, "%s", dev->name);
}

static int open_control(struct core *c)
{
	c->control.b = &c->b;
	c->control.loop = c->b.loop;
	c->control.core = backend_commands;
	c->control.device = c->b.dev->commands;
	return c->opt->control_path ? control_open(&c->control, c->opt->control_path) : 0;
}

static int set_up(struct core *c)
{
	int err = loop_new(&c->b.loop, "control");

	if (err)
		return log_errno(-err, "event loop");
	loop_set_spin(c->b.loop, c->opt->poll_us * 1000);
	raise_fd_limit();
	err = watch_signals(c);
	if (!err)
		err = watch_memory(c);
	if (!err)
		err = open_device(c);
	if (!err)
		err = open_control(c);
	if (!err) {
		c->listener.path.has_group = c->opt->has_socket_group;
		c->listener.path.group = c->opt->socket_group;
	}
	if (!err)
		err = listener_open(&c->listener, c->b.loop, c->opt->socket_path, c->opt->socket_mode,
			c->opt->fd, c->opt->connect_path);
	if (!err && !listener_next(&c->listener))
		err = -EIO;
	return err;
}

static void tear_down(struct core *c)
{
	unsigned i;

	listener_close(&c->listener);
	control_close(&c->control);
	for (i = 0; c->host.queues && i < c->host.nqueues; i++)
		virtqueue_free(c->host.queues[i]);
	free(c->host.queues);
	if (c->opened && c->b.dev->close)
		c->b.dev->close(&c->b);
	timer_disarm(&c->deadline);
	watch_del(&c->term_watch);
	watch_del(&c->lost);
	for (i = 0; i < BACKEND_MAX_THREADS; i++)
		if (c->thread[i])
			loop_free(c->thread[i]);
	if (c->b.loop)
		loop_free(c->b.loop);
	free(c->b.config);
	term_finish(&c->term);
}

int backend_run(const struct device *dev, void *state, const struct backend_options *opt)
{
	struct core c = {
		.b = {.dev = dev, .state = state, .offered = dev->features, .num_queues = dev->max_queues},
		.opt = opt,
		.host = {.b = &c.b,
			.inband = opt->inband,
			.packed = opt->packed,
			.term_fd = -1,
			.queue = host_queue,
			.ended = session_ended},
		.listener = {.fd = -1, .watch.fd = -1, .connected = connected},
		.control = {.listener = {.fd = -1, .watch.fd = -1}},
		.term = TERM_INIT,
		.term_watch = {.fd = -1, .ready = term_ready},
		.lost = {.fd = -1, .ready = memory_lost},
		.deadline.expired = deadline_expired,
		.fail_post.run = fail_run,
		.quit_post.run = quit_run,
	};

	if (set_up(&c) == 0)
		loop_run(c.b.loop);
	else
		c.status = 1;
	tear_down(&c);
	return c.status;
}
