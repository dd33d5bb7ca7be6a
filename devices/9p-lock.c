/* SPDX-License-Identifier: MIT */
/*
 * Byte-range locks: locks of open file descriptions on the host (fcntl(2), F_OFD_SETLK), so that they hold against other
 * guests and against programs of the host. A fid has a description for each owner, that is for each client and process
 * of the guest that takes a lock through it; an owner without locks goes.
 *
 * Nobody waits in the kernel: a lock that somebody else has is tried again when one was given back here, and from time to
 * time (9p.c), so any number of guests' processes may wait and each wait can be flushed.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { TYPE_READ, TYPE_WRITE, TYPE_UNLOCK }; /* of the protocol */
enum { SUCCESS, BLOCKED, FAILED };	     /* status in Rlock */
enum { FLAG_BLOCK = 1 };
enum { MAX_CLIENT = 256 };

struct p9_owner {
	struct p9_owner *next;
	int fd;
	uint32_t proc_id;
	char client[];
};

struct lock {
	uint8_t type;
	uint32_t flags;
	uint64_t start, length;
	uint32_t proc_id;
	char client[MAX_CLIENT];
};

static void owner_free(struct p9 *s, struct p9_owner *o)
{
	close(o->fd);
	free(o);
	__atomic_fetch_sub(&s->nowners, 1, __ATOMIC_RELAXED);
}

void p9_owners_free(struct p9 *s, struct p9_fid *f)
{
	struct p9_owner *o;

	while ((o = f->owners)) {
		f->owners = o->next;
		owner_free(s, o);
	}
}

static struct p9_owner **owner_find(struct p9_fid *f, const struct lock *l)
{
	struct p9_owner **o = &f->owners;

	while (*o && ((*o)->proc_id != l->proc_id || strcmp((*o)->client, l->client) != 0))
		o = &(*o)->next;
	return o;
}

/*
 * A description of our own for the file: for both kinds of locks if it can be had. Not so in a tree that is read-only: a program
 * of the host could not be executed while the guest has it.
 */
static int open_for_locks(const struct p9 *s, const struct p9_fid *f)
{
	int fd = s->read_only ? -EROFS : p9_reopen(f->node->fd, O_RDWR | O_NONBLOCK);

	if (fd < 0)
		fd = p9_reopen(f->node->fd, (f->flags & O_ACCMODE) | O_NONBLOCK);
	return fd;
}

static int owner_new(struct p9 *s, struct p9_fid *f, const struct lock *l, struct p9_owner **out)
{
	size_t size = strlen(l->client) + 1;
	struct p9_owner *o;

	if (__atomic_add_fetch(&s->nowners, 1, __ATOMIC_RELAXED) > P9_MAX_OWNERS)
		goto fail;
	o = malloc(sizeof(*o) + size);
	if (!o)
		goto fail;
	o->fd = open_for_locks(s, f);
	if (o->fd < 0) {
		free(o);
		goto fail;
	}
	o->proc_id = l->proc_id;
	memcpy(o->client, l->client, size);
	o->next = NULL;
	*out = o;
	return 0;
fail:
	__atomic_fetch_sub(&s->nowners, 1, __ATOMIC_RELAXED);
	return -ENOLCK;
}

static int range_of(const struct lock *l, struct flock *to)
{
	if (l->start > INT64_MAX || l->length > INT64_MAX || l->start + l->length > (uint64_t)INT64_MAX + 1)
		return -EINVAL;
	*to = (struct flock){
		.l_type = l->type == TYPE_READ	  ? F_RDLCK
			  : l->type == TYPE_WRITE ? F_WRLCK
						  : F_UNLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)l->start,
		.l_len = (off_t)l->length,
	};
	return 0;
}

static int lock_get(struct p9_request *r, struct lock *l, bool flags)
{
	struct p9_fid *f = r->fid[0];
	int err;

	l->type = p9_get_u8(&r->in);
	l->flags = flags ? p9_get_u32(&r->in) : 0;
	l->start = p9_get_u64(&r->in);
	l->length = p9_get_u64(&r->in);
	l->proc_id = p9_get_u32(&r->in);
	err = p9_get_string(&r->in, l->client, sizeof(l->client));
	if (err == 0 && (r->in.bad || l->type > TYPE_UNLOCK))
		err = -EINVAL;
	if (err == 0 && f->kind != P9_FILE)
		err = -EBADF;
	return err;
}

static uint8_t set(struct p9 *s, struct p9_fid *f, const struct lock *l, struct flock *range)
{
	struct p9_owner **at = owner_find(f, l), *o = *at;
	int r;

	if (!o && l->type == TYPE_UNLOCK)
		return SUCCESS;
	if (!o && owner_new(s, f, l, &o) < 0)
		return FAILED;
	r = fcntl(o->fd, F_OFD_SETLK, range) < 0 ? errno : 0;
	if (!*at && r == 0) {
		*at = o;
	} else if (!*at) {
		owner_free(s, o);
	} else if (r == 0 && l->type == TYPE_UNLOCK && l->start == 0 && l->length == 0) {
		*at = o->next;
		owner_free(s, o);
	}
	return r == 0 ? SUCCESS : r == EAGAIN || r == EACCES ? BLOCKED : FAILED;
}

/* tag fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s] */
int p9_op_lock(struct p9_request *r)
{
	struct flock range;
	struct lock l;
	uint8_t status;
	int err = lock_get(r, &l, true);

	if (err == 0)
		err = range_of(&l, &range);
	if (err < 0)
		return err;
	status = set(r->s, r->fid[0], &l, &range);
	if (status == BLOCKED && (l.flags & FLAG_BLOCK) && r->lock_waits)
		return P9_WAIT;
	r->unlocked = status == SUCCESS && l.type == TYPE_UNLOCK;
	p9_put_u8(&r->body, status);
	return 0;
}

/* tag fid[4] type[1] start[8] length[8] proc_id[4] client_id[s] → the lock that is in the way, or TYPE_UNLOCK */
int p9_op_getlock(struct p9_request *r)
{
	CLEANUP_FD int own = -1;
	struct p9_owner *o;
	struct flock range;
	struct lock l;
	int err = lock_get(r, &l, false);

	if (err == 0)
		err = range_of(&l, &range);
	if (err < 0)
		return err;
	/* Linux asks with this type, whatever its program asked for */
	if (range.l_type == F_UNLCK)
		range.l_type = F_WRLCK;
	o = *owner_find(r->fid[0], &l);
	if (!o) {
		own = open_for_locks(r->s, r->fid[0]);
		if (own < 0)
			return own;
	}
	if (fcntl(o ? o->fd : own, F_OFD_GETLK, &range) < 0)
		return -errno;
	p9_put_u8(&r->body, range.l_type == F_RDLCK   ? TYPE_READ
			    : range.l_type == F_WRLCK ? TYPE_WRITE
						      : TYPE_UNLOCK);
	p9_put_u64(&r->body, range.l_type == F_UNLCK ? l.start : (uint64_t)range.l_start);
	p9_put_u64(&r->body, range.l_type == F_UNLCK ? l.length : (uint64_t)range.l_len);
	p9_put_u32(&r->body, range.l_type == F_UNLCK || range.l_pid < 0 ? l.proc_id : (uint32_t)range.l_pid);
	p9_put_string(&r->body, l.client);
	return 0;
}
