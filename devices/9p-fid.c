/* SPDX-License-Identifier: MIT */
/*
 * Fids and the descriptors behind them. All of this belongs to the loop.
 *
 * A fid has a node: an O_PATH descriptor, which a rename or an unlink of the file does not touch. Fids that were cloned
 * share it. An open fid has a second descriptor for reading and writing.
 *
 * Guests may hold many thousands of fids, so descriptors are given back when there are too many, those first that were
 * not used for longest: of an open fid the one for reading and writing (it is made again of the node's), of a node
 * without open fids its only one (its path is kept, and what is found there later must be the same file). Open files
 * that were unlinked therefore keep working; a fid that was merely walked to may find its file gone, as with NFS.
 * A descriptor that holds locks stays.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Lists by last use */

static void node_unlist(struct p9 *s, struct p9_node *n)
{
	if (!n->listed)
		return;
	*(n->newer ? &n->newer->older : &s->newest) = n->older;
	*(n->older ? &n->older->newer : &s->oldest) = n->newer;
	n->listed = false;
	s->nfiles--;
}

static void node_list(struct p9 *s, struct p9_node *n)
{
	if (s->newest == n || n->fd < 0)
		return;
	node_unlist(s, n);
	n->older = s->newest;
	n->newer = NULL;
	*(s->newest ? &s->newest->newer : &s->oldest) = n;
	s->newest = n;
	n->listed = true;
	s->nfiles++;
}

static void fid_unlist(struct p9 *s, struct p9_fid *f)
{
	if (!f->listed)
		return;
	*(f->newer ? &f->newer->older : &s->newest_open) = f->older;
	*(f->older ? &f->older->newer : &s->oldest_open) = f->newer;
	f->listed = false;
	s->nfiles--;
}

static void fid_list(struct p9 *s, struct p9_fid *f)
{
	if (s->newest_open == f || f->fd < 0)
		return;
	fid_unlist(s, f);
	f->older = s->newest_open;
	f->newer = NULL;
	*(s->newest_open ? &s->newest_open->newer : &s->oldest_open) = f;
	s->newest_open = f;
	f->listed = true;
	s->nfiles++;
}

/* Nodes */

int p9_node_new(struct p9_node **out, int fd, const struct statx *st)
{
	struct p9_node *n = calloc(1, sizeof(*n));

	if (!n) {
		close(fd);
		return -ENOMEM;
	}
	n->fd = fd;
	n->refs = 1;
	n->type = st->stx_mode & S_IFMT;
	n->dev = makedev(st->stx_dev_major, st->stx_dev_minor);
	n->ino = st->stx_ino;
	*out = n;
	return 0;
}

int p9_node_gone(struct p9 *s, struct p9_node **out)
{
	struct p9_node *n = calloc(1, sizeof(*n));

	if (n)
		n->path = strdup("");
	if (!n || !n->path) {
		free(n);
		return -ENOMEM;
	}
	__atomic_fetch_add(&s->ngiven, 1, __ATOMIC_RELAXED);
	n->fd = -1;
	n->refs = 1;
	*out = n;
	return 0;
}

struct p9_node *p9_node_ref(struct p9_node *n)
{
	n->refs++;
	return n;
}

void p9_node_unref(struct p9 *s, struct p9_node *n)
{
	if (!n || --n->refs)
		return;
	if (n->path)
		__atomic_fetch_sub(&s->ngiven, 1, __ATOMIC_RELAXED);
	node_unlist(s, n);
	fd_close(&n->fd);
	free(n->path);
	free(n);
}

/* The only descriptor goes. */
static bool node_give_back(struct p9 *s, struct p9_node *n)
{
	char path[PATH_MAX];

	if (n->pins || n == s->root || p9_where(s, n->fd, path) < 0)
		return false;
	n->path = strdup(path);
	if (!n->path)
		return false;
	__atomic_fetch_add(&s->ngiven, 1, __ATOMIC_RELAXED);
	node_unlist(s, n);
	fd_close(&n->fd);
	return true;
}

static int node_use(struct p9 *s, struct p9_node *n)
{
	int fd;

	if (n->fd < 0) {
		fd = p9_lookup_same(s, n->path, n->dev, n->ino);
		if (fd < 0)
			return fd;
		n->fd = fd;
		free(n->path);
		n->path = NULL;
		__atomic_fetch_sub(&s->ngiven, 1, __ATOMIC_RELAXED);
	}
	n->pins++;
	node_list(s, n);
	return 0;
}

void p9_nodes_renamed(struct p9 *s, const char *from, const char *to)
{
	size_t len = strlen(from);

	for (unsigned i = 0; i < s->table_size; i++) {
		for (struct p9_fid *f = s->table[i]; f; f = f->next) {
			struct p9_node *n = f->node;
			char *path;

			if (!n || !n->path || strncmp(n->path, from, len) != 0 ||
				(n->path[len] != '\0' && n->path[len] != '/'))
				continue;
			if (asprintf(&path, "%s%s", to, n->path + len) < 0)
				continue;
			free(n->path);
			n->path = path;
		}
	}
}

/* Fids */

static struct p9_fid **chain_of(struct p9 *s, uint32_t id)
{
	return &s->table[id * UINT32_C(2654435769) >> 7 & (s->table_size - 1)];
}

struct p9_fid *p9_fid_find(struct p9 *s, uint32_t id)
{
	struct p9_fid *f;

	if (!s->table_size)
		return NULL;
	for (f = *chain_of(s, id); f && f->id != id; f = f->next)
		;
	return f;
}

static int table_grow(struct p9 *s)
{
	unsigned old_size = s->table_size, size = old_size ? old_size * 2 : 256;
	struct p9_fid **old = s->table, **table = calloc(size, sizeof(struct p9_fid *));

	if (!table)
		return -ENOMEM;
	s->table = table;
	s->table_size = size;
	for (unsigned i = 0; i < old_size; i++) {
		struct p9_fid *f, *next;

		for (f = old[i]; f; f = next) {
			struct p9_fid **chain = chain_of(s, f->id);

			next = f->next;
			f->next = *chain;
			*chain = f;
		}
	}
	free(old);
	return 0;
}

int p9_fid_new(struct p9 *s, uint32_t id, struct p9_fid **out)
{
	struct p9_fid *f, **chain;

	if (id == P9_NOFID)
		return -EINVAL;
	if (p9_fid_find(s, id))
		return -EEXIST;
	if (s->nfids >= s->max_fids)
		return -EMFILE;
	if (s->nfids >= s->table_size && table_grow(s) < 0)
		return -ENOMEM;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->id = id;
	f->fd = -1;
	f->uid = P9_NOUID;
	f->waiting_tail = &f->waiting;
	chain = chain_of(s, id);
	f->next = *chain;
	*chain = f;
	s->nfids++;
	*out = f;
	return 0;
}

static bool is_open(const struct p9_fid *f)
{
	return f->kind == P9_FILE || f->kind == P9_DIR;
}

bool p9_fid_free(struct p9 *s, struct p9_fid *f)
{
	struct p9_fid **at = chain_of(s, f->id);
	bool locks = f->owners;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	s->nfids--;
	fid_unlist(s, f);
	p9_owners_free(s, f);
	fd_close(&f->fd);
	if (f->xattr)
		__atomic_fetch_sub(&s->xattr_memory, f->xattr->size, __ATOMIC_RELAXED);
	free(f->xattr);
	if (f->pinned)
		f->node->pins--;
	p9_node_unref(s, f->node);
	free(f);
	return locks;
}

void p9_fid_free_all(struct p9 *s)
{
	for (unsigned i = 0; i < s->table_size; i++) {
		while (s->table[i])
			p9_fid_free(s, s->table[i]);
	}
}

/* A fid in use is not in the list, and neither is its node given back. */
int p9_fid_use(struct p9 *s, struct p9_fid *f)
{
	int r = node_use(s, f->node);
	if (r < 0)
		return r;
	if (!is_open(f) || f->fd >= 0)
		return 0;
	r = p9_reopen(f->node->fd, f->flags & ~(O_CREAT | O_EXCL | O_TRUNC));
	if (r < 0) {
		f->node->pins--;
		return r;
	}
	f->fd = r;
	f->dir_at = UINT64_MAX;
	return 0;
}

void p9_fid_unuse(struct p9 *s, struct p9_fid *f)
{
	f->node->pins--;
	node_list(s, f->node);
}

void p9_fid_settle(struct p9 *s, struct p9_fid *f)
{
	node_list(s, f->node);
	if (!is_open(f))
		return;
	fid_list(s, f);
	if (!f->pinned) {
		f->pinned = true;
		f->node->pins++;
	}
}

/* Giving back */

static void trim_open(struct p9 *s)
{
	struct p9_fid *f, *newer;

	for (f = s->oldest_open; f && s->nfiles >= s->max_files; f = newer) {
		newer = f->newer;
		if (f->users || f->owners)
			continue;
		fid_unlist(s, f);
		fd_close(&f->fd);
	}
}

static void trim_nodes(struct p9 *s)
{
	struct p9_node *n, *newer;

	for (n = s->oldest; n && s->nfiles >= s->max_files; n = newer) {
		newer = n->newer;
		node_give_back(s, n);
	}
}

int p9_files_trim(struct p9 *s)
{
	if (likely(s->nfiles < s->max_files))
		return 0;
	trim_open(s);
	trim_nodes(s);
	return s->nfiles < s->max_files ? 0 : -EMFILE;
}
