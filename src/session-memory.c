/* SPDX-License-Identifier: MIT */
/* Messages about memory: the guest's, the dirty log's, the in-flight area's, and postcopy. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "session.h"

/*
 * A map that was replaced, while elements that were translated with it are still out. Outlives the session if it has
 * to: the last user may be another thread.
 */
struct release {
	struct post post;
	struct loop *loop;
	struct session *session; /* NULL: it has ended */
};

static void release_done(struct post *p)
{
	struct release *r = container_of(p, struct release, post);
	struct session *s = r->session;

	free(r);
	if (!s)
		return;
	s->release = NULL;
	session_finish(s, 0);
}

static void release_post(void *arg)
{
	struct release *r = arg;

	loop_post(r->loop, &r->post);
}

/* Gives a new map to all queues and takes its reference. PENDING: the old one is in use and an answer is wanted. */
static int use_map(struct session *s, struct guestmem *m, bool wait)
{
	struct guestmem *old = s->mem;
	struct release *r = NULL;
	unsigned i;

	wait = wait && (s->in.m.h.flags & MESSAGE_NEED_REPLY);
	if (wait) {
		r = calloc(1, sizeof(*r));
		if (!r) {
			guestmem_unref(m);
			return -ENOMEM;
		}
		r->post.run = release_done;
		r->loop = s->b->loop;
		r->session = s;
	}
	s->mem = m;
	s->host->memory_generation++;
	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i])
			virtqueue_set_memory(s->host->queues[i], m);
	if (s->b->dev->memory)
		s->b->dev->memory(s->b);
	session_update_rings(s);
	if (r) {
		s->release = r;
		guestmem_on_release(old, release_post, r);
	}
	guestmem_unref(old);
	return r ? SESSION_PENDING : 0;
}

static struct guestmem_spec spec_of(const struct mem_region *r)
{
	return (struct guestmem_spec){
		.gpa = r->gpa, .size = r->size, .uaddr = r->uaddr, .offset = r->mmap_offset};
}

static int memory_error(int err, const struct mem_region *r)
{
	return log_guest_errno(err,
		"memory of 0x%" PRIx64 " bytes at 0x%" PRIx64 " (user address 0x%" PRIx64
		", file offset 0x%" PRIx64 ")",
		r->size, r->gpa, r->uaddr, r->mmap_offset);
}

/* QEMU ends a round of postcopy memory messages with one of 8 bytes. */
static int accept_postcopy(struct session *s)
{
	struct guestmem *m = NULL;
	int err = postcopy_accept(&s->postcopy, &m);

	if (err || !m)
		return err;
	return use_map(s, m, false);
}

static int prepare_reply(struct session *s, struct mem_region *region, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		region[i].uaddr = postcopy_base(&s->postcopy, region[i].gpa);
	return session_reply(s, s->in.m.bytes, s->in.m.h.size, -1);
}

int session_set_mem_table(struct session *s, struct message *m)
{
	bool postcopy = postcopy_listening(&s->postcopy);
	struct guestmem *map;
	uint32_t i, n;

	if (postcopy && m->h.size == sizeof(uint64_t))
		return accept_postcopy(s);
	n = m->table.n;
	if (n > MESSAGE_MAX_FDS ||
		m->h.size < offsetof(struct mem_table, region) + n * sizeof(struct mem_region) ||
		m->nfds != n)
		return -EINVAL;
	map = guestmem_new();
	if (!map)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		struct guestmem_spec spec = spec_of(&m->table.region[i]);
		struct guestmem *next = NULL;
		int err = guestmem_add(
			map, &spec, &m->fd[i], postcopy ? PROT_NONE : PROT_READ | PROT_WRITE, &next);

		guestmem_unref(map);
		if (err)
			return memory_error(-err, &m->table.region[i]);
		map = next;
	}
	if (!postcopy)
		return use_map(s, map, true);
	postcopy_prepare(&s->postcopy, map);
	return prepare_reply(s, m->table.region, n);
}

int session_add_mem_reg(struct session *s, struct message *m)
{
	bool postcopy = postcopy_listening(&s->postcopy);
	const struct guestmem *old = postcopy ? postcopy_base_map(&s->postcopy) : NULL;
	struct guestmem_spec spec;
	struct guestmem *map;
	int err;

	if (postcopy && m->h.size == sizeof(uint64_t))
		return accept_postcopy(s);
	if (m->h.size < sizeof(m->mem_reg) || m->nfds != 1)
		return -EINVAL;
	spec = spec_of(&m->mem_reg.region);
	err = guestmem_add(
		old ? old : s->mem, &spec, &m->fd[0], postcopy ? PROT_NONE : PROT_READ | PROT_WRITE, &map);
	if (err)
		return memory_error(-err, &m->mem_reg.region);
	if (!postcopy)
		return use_map(s, map, false);
	postcopy_prepare(&s->postcopy, map);
	return prepare_reply(s, &m->mem_reg.region, 1);
}

int session_rem_mem_reg(struct session *s, struct message *m)
{
	struct guestmem_spec spec;
	struct guestmem *map;
	int err;

	if (postcopy_listening(&s->postcopy) && m->h.size == sizeof(uint64_t))
		return accept_postcopy(s);
	if (m->h.size < sizeof(m->mem_reg))
		return -EINVAL;
	spec = spec_of(&m->mem_reg.region);
	err = guestmem_remove(s->mem, &spec, &map);
	if (err == -ENOENT) { /* front-ends with several queue pairs repeat themselves */
		log_debug("no memory at 0x%" PRIx64 " to remove", spec.gpa);
		return 0;
	}
	return err ? err : use_map(s, map, true);
}

/* Dirty log */

void session_update_log(struct session *s)
{
	unsigned i;

	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i])
			virtqueue_set_log(s->host->queues[i], s->log, s->features & BIT(FEATURE_LOG_ALL));
}

int session_set_log_base(struct session *s, struct message *m)
{
	CLEANUP_FD int fd = message_take_fd(m);
	struct dirtylog *log = NULL;
	int err = -EINVAL;

	if (m->h.size >= sizeof(m->log) && fd >= 0)
		err = dirtylog_new(&log, &fd, m->log.size, m->log.offset);
	if (!err) {
		struct dirtylog *old = s->log;

		s->log = log;
		session_update_log(s);
		dirtylog_unref(old);
	} else {
		log_guest_errno(-err, "SET_LOG_BASE");
	}
	if (!(s->protocol & BIT(PROTOCOL_LOG_SHMFD)))
		return err;
	return session_reply_u64(s, !!err);
}

/* Front-ends define this message and never send it: there is nobody to be told that a page was dirtied. */
int session_set_log_fd(struct session *s, struct message *m)
{
	(void)s;
	return m->nfds ? 0 : -EINVAL;
}

/* In-flight area */

int session_get_inflight(struct session *s, struct message *m)
{
	struct inflight_msg reply = m->inflight;
	CLEANUP_FD int fd = -1;
	size_t size = MIN(m->h.size, sizeof(reply));

	if (m->h.size < offsetof(struct inflight_msg, pad))
		return -EINVAL;
	reply.mmap_size = reply.mmap_offset = 0;
	if (reply.num_queues && reply.num_queues <= s->b->num_queues && reply.queue_size &&
		reply.queue_size <= VRING_MAX_SIZE)
		fd = inflight_create_fd(reply.num_queues, reply.queue_size);
	if (fd >= 0)
		reply.mmap_size = inflight_bytes(reply.num_queues, reply.queue_size);
	else
		log_guest_error("an in-flight area for %u queues of %u can't be made", reply.num_queues,
			reply.queue_size);
	return session_reply(s, &reply, size, fd);
}

int session_set_inflight(struct session *s, struct message *m)
{
	CLEANUP_FD int fd = message_take_fd(m);
	unsigned i;
	int err;

	if (m->h.size < offsetof(struct inflight_msg, pad))
		return -EINVAL;
	for (i = 0; i < s->host->nqueues; i++)
		if (s->host->queues[i] && s->host->queues[i]->phase != VRING_RESTING)
			return -EBUSY;
	if (fd < 0 && !m->inflight.mmap_size) { /* no tracking */
		inflight_unmap(&s->inflight);
		return 0;
	}
	if (fd < 0)
		return -EINVAL;
	err = inflight_map(&s->inflight, &fd, m->inflight.mmap_size, m->inflight.mmap_offset,
		m->inflight.num_queues, m->inflight.queue_size);
	return err ? log_guest_errno(-err, "SET_INFLIGHT_FD") : 0;
}

/* Postcopy */

int session_postcopy_advise(struct session *s, struct message *m)
{
	int fd = s->protocol & BIT(PROTOCOL_PAGEFAULT) ? postcopy_advise(&s->postcopy) : -ENOTSUP;

	(void)m;
	return session_reply(s, NULL, 0, fd < 0 ? -1 : fd);
}

int session_postcopy_listen(struct session *s, struct message *m)
{
	struct pollfd until[2] = {
		{.fd = s->fd, .events = POLLRDHUP}, {.fd = s->host->term_fd, .events = POLLIN}};

	(void)m;
	return postcopy_listen(&s->postcopy, s->mem, until, s->host->term_fd < 0 ? 1 : 2);
}

int session_postcopy_end(struct session *s, struct message *m)
{
	(void)m;
	postcopy_end(&s->postcopy);
	return session_reply_u64(s, 0);
}

void session_memory_free(struct session *s)
{
	if (s->release)
		s->release->session = NULL;
	postcopy_end(&s->postcopy);
	s->host->memory_generation++;
	guestmem_unref(s->mem);
	s->mem = NULL;
	dirtylog_unref(s->log);
	inflight_unmap(&s->inflight);
}

bool session_memory_lost(const struct session *s)
{
	unsigned i;

	for (i = 0; i < s->mem->n; i++)
		if (shmem_is_lost(s->mem->region[i].shm))
			return true;
	return (s->log && dirtylog_is_lost(s->log)) || (s->inflight.shm && shmem_is_lost(s->inflight.shm));
}
