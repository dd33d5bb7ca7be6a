/* SPDX-License-Identifier: MIT */
/*
 * The life of a process and of its backends; see backend.h. There is one backend, or as many as there are sockets, all of one
 * device type (device.several).
 *
 * The main thread runs the control loop: connections, the protocol, signals (through a signalfd), and the queues of
 * devices without threads of their own. With b->threads there are that many more loops, each made when its first queue
 * is set up. A backend has one session at a time; its listener is asked for the next connection when the last has ended. What
 * one front-end does ends its own session only.
 *
 * The end: SIGTERM and SIGINT close the listeners, which removes our sockets, let the requests in flight finish, and end
 * the process with status 0, after END_NS at the latest: what is then still in flight was never acknowledged. That this
 * happens even when the control loop itself hangs is term.c's. Without a signal the process ends when no backend has a
 * connection to come.
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
	loop_set_spin(*l, c->process->opt->poll_us * 1000);
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
	if (c->process->opt->control_path)
		q->latency = calloc(1, sizeof(*q->latency)); /* without it no times are taken */
	q->socket = c->b.num_sockets > 1 ? (int)c->b.socket : -1;
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

struct backend *backend_of_socket(struct backend *b, unsigned i)
{
	return &core_of(b)->process->cores[i].b;
}

/* Connections and the end */

static bool any_session(const struct process *p)
{
	unsigned i;

	for (i = 0; i < p->opt->nsockets; i++)
		if (p->cores[i].host.session)
			return true;
	return false;
}

static void finish(struct process *p)
{
	loop_stop(p->loop);
}

static void end(struct process *p, int status)
{
	unsigned i;

	if (p->ending)
		return;
	p->ending = true;
	p->status = status;
	for (i = 0; i < p->opt->nsockets; i++)
		listener_close(&p->cores[i].listener);
	control_quiet(&p->control);
	term_begin(&p->term, status);
	if (!any_session(p)) {
		finish(p);
		return;
	}
	timer_arm_in(p->loop, &p->deadline, END_NS);
	for (i = 0; i < p->opt->nsockets; i++)
		if (p->cores[i].host.session)
			session_end(p->cores[i].host.session, false, true);
}

/* No connection comes to this backend any more; the last one ends the process. */
static void core_done(struct core *c, int status)
{
	struct process *p = c->process;
	unsigned i;
	int sum = 0;

	c->done = true;
	c->status = status;
	for (i = 0; i < p->opt->nsockets; i++) {
		if (!p->cores[i].done)
			return;
		sum |= p->cores[i].status;
	}
	end(p, sum);
}

static void tell(struct core *c, const char *name, struct json *data)
{
	struct process *p = c->process;

	if (p->opt->nsockets > 1)
		control_event_of(&p->control, c->b.socket, name, data);
	else
		control_event(&p->control, name, data);
}

static void session_ended(struct session_host *host, bool orderly)
{
	struct core *c = container_of(host, struct core, host);

	if (c->process->ending) {
		if (!any_session(c->process))
			finish(c->process);
		return;
	}
	tell(c, "disconnected", NULL);
	if (!listener_next(&c->listener))
		core_done(c, orderly ? 0 : 1);
}

static void connected(struct listener *l, int fd)
{
	struct core *c = container_of(l, struct core, listener);

	if (!session_new(&c->host, fd)) {
		end(c->process, 1);
		return;
	}
	tell(c, "connected", NULL);
}

/* Quiescing took too long. The kernel may still be busy for us, so no tidying up. */
static void deadline_expired(struct timer *t)
{
	struct process *p = container_of(t, struct process, deadline);

	log_warn("requests in flight did not end in time");
	_exit(p->status);
}

static void term_ready(struct watch *w, uint32_t events)
{
	struct process *p = container_of(w, struct process, term_watch);

	(void)events;
	watch_del(w);
	if (!p->ending)
		log_info("ended by signal %d", term_signal());
	end(p, 0);
}

/* With several front-ends only the one whose memory it was is to blame. */
static void memory_lost(struct watch *w, uint32_t events)
{
	struct process *p = container_of(w, struct process, lost);
	uint64_t count;
	unsigned i;

	(void)events;
	if (read(w->fd, &count, sizeof(count)) < 0 || !shmem_lost())
		return;
	log_error("memory shared by the front-end is gone: its file was truncated");
	for (i = 0; i < p->opt->nsockets; i++) {
		struct session *s = p->cores[i].host.session;

		if (s && (p->opt->nsockets == 1 || session_memory_lost(s)))
			session_end(s, true, false);
	}
}

bool backend_event_wanted(const struct backend *b)
{
	return control_has_clients(&container_of(b, const struct core, b)->process->control);
}

void backend_event(struct backend *b, const char *name, struct json *data)
{
	tell(core_of(b), name, data);
	json_free(data);
}

void backend_config_changed(struct backend *b)
{
	struct core *c = core_of(b);

	if (c->host.session)
		session_config_changed(c->host.session);
}

static void fail_run(struct post *post)
{
	end(container_of(post, struct core, fail_post)->process, 1);
}

static void quit_run(struct post *post)
{
	log_info("ended by a command");
	end(container_of(post, struct process, quit_post), 0);
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

static int watch_signals(struct process *p)
{
	int err = term_start(&p->term);

	return err ? err : watch_add(p->loop, &p->term_watch, p->term.fd, EPOLLIN);
}

static int watch_memory(struct process *p)
{
	int fd = shmem_guard();

	if (fd < 0)
		return log_errno(-fd, "SIGBUS handler");
	return watch_add(p->loop, &p->lost, fd, EPOLLIN);
}

static int open_control(struct process *p)
{
	int err;

	p->control.b = &p->cores[0].b;
	p->control.loop = p->loop;
	err = backend_commands_init(p);
	if (err)
		return log_errno(-err, "--control-path");
	return p->opt->control_path ? control_open(&p->control, p->opt->control_path) : 0;
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

static int open_listener(struct core *c)
{
	const struct backend_options *opt = c->process->opt;

	c->listener.path.has_group = opt->has_socket_group;
	c->listener.path.group = opt->socket_group;
	return listener_open(&c->listener, c->b.loop, c->socket->path, opt->socket_mode, c->socket->fd,
		c->socket->connect);
}

static int each_core(struct process *p, int (*fn)(struct core *c))
{
	unsigned i;
	int err = 0;

	for (i = 0; i < p->opt->nsockets && !err; i++)
		err = fn(&p->cores[i]);
	return err;
}

static int core_init(struct core *c)
{
	struct process *p = c->process;

	c->b.loop = p->loop;
	c->host.term_fd = p->term.fd;
	return 0;
}

static int first_connection(struct core *c)
{
	return listener_next(&c->listener) ? 0 : -EIO;
}

static int set_up(struct process *p)
{
	int err = loop_new(&p->loop, "control");

	if (err)
		return log_errno(-err, "event loop");
	loop_set_spin(p->loop, p->opt->poll_us * 1000);
	raise_fd_limit();
	err = watch_signals(p);
	if (!err)
		err = watch_memory(p);
	if (!err)
		err = each_core(p, core_init);
	if (!err)
		err = each_core(p, open_device);
	if (!err)
		err = open_control(p);
	if (!err)
		err = each_core(p, open_listener);
	if (!err)
		err = each_core(p, first_connection);
	return err;
}

static void free_queues(struct core *c)
{
	unsigned i;

	for (i = 0; c->host.queues && i < c->host.nqueues; i++)
		virtqueue_free(c->host.queues[i]);
	free(c->host.queues);
}

static void core_close(struct core *c)
{
	unsigned i;

	if (c->opened && c->b.dev->close)
		c->b.dev->close(&c->b);
	for (i = 0; i < BACKEND_MAX_THREADS; i++)
		if (c->thread[i])
			loop_free(c->thread[i]);
	free(c->b.config);
	if (c->b.socket)
		free(c->b.state);
}

static void tear_down(struct process *p)
{
	unsigned i, n = p->opt->nsockets;

	for (i = 0; i < n; i++)
		listener_close(&p->cores[i].listener);
	control_close(&p->control);
	for (i = 0; i < n; i++)
		free_queues(&p->cores[i]);
	timer_disarm(&p->deadline);
	for (i = 0; i < n; i++)
		core_close(&p->cores[i]);
	watch_del(&p->term_watch);
	watch_del(&p->lost);
	if (p->loop)
		loop_free(p->loop);
	term_finish(&p->term);
	for (i = 0; i < ARRAY_SIZE(p->tables); i++)
		free(p->tables[i]);
	free(p->cores);
}

/* The first backend has the state that main filled in, the others copies. */
static int make_core(struct process *p, unsigned i, const struct device *dev, void *state)
{
	struct core *c = &p->cores[i];

	*c = (struct core){
		.process = p,
		.b = {.dev = dev,
			.state = state,
			.offered = dev->features,
			.num_queues = dev->max_queues,
			.socket = i,
			.num_sockets = p->opt->nsockets},
		.socket = &p->opt->sockets[i],
		.host = {.b = &c->b,
			.inband = p->opt->inband,
			.packed = p->opt->packed,
			.term_fd = -1,
			.queue = host_queue,
			.ended = session_ended},
		.listener = {.fd = -1, .watch.fd = -1, .connected = connected},
		.fail_post.run = fail_run,
	};
	if (i) {
		c->b.state = malloc(MAX(dev->state_size, (size_t)1));
		if (!c->b.state)
			return log_errno(ENOMEM, "%s", dev->name);
		memcpy(c->b.state, state, dev->state_size);
	}
	return 0;
}

int backend_run(const struct device *dev, void *state, const struct backend_options *opt)
{
	struct process p = {
		.opt = opt,
		.control = {.listener = {.fd = -1, .watch.fd = -1}},
		.term = TERM_INIT,
		.term_watch = {.fd = -1, .ready = term_ready},
		.lost = {.fd = -1, .ready = memory_lost},
		.deadline.expired = deadline_expired,
		.quit_post.run = quit_run,
	};
	int err = 0;
	unsigned i;

	p.cores = calloc(opt->nsockets, sizeof(*p.cores));
	if (!p.cores) {
		log_errno(ENOMEM, "%s", dev->name);
		return 1;
	}
	for (i = 0; i < opt->nsockets; i++) /* all, so that there is something to tear down */
		err |= make_core(&p, i, dev, state);
	if (!err && set_up(&p) == 0)
		loop_run(p.loop);
	else
		p.status = 1;
	tear_down(&p);
	return p.status;
}
