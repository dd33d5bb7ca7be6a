/* SPDX-License-Identifier: MIT */
/*
 * Reading directories. The offset of an entry is the cookie that the host's file system gave us for the place behind it
 * (d_off of getdents64(2)), so a reader goes on where it was whatever was made or removed meanwhile, also with a
 * descriptor that was closed and opened again; nothing is kept in memory.
 */
#include "9p.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

enum { CHUNK = 32 << 10 }; /* bytes asked of the host at once */

struct host_entry { /* struct linux_dirent64 */
	uint64_t ino;
	int64_t off;
	uint16_t size;
	uint8_t type;
	char name[];
};

static int seek_to(struct p9_fid *f, uint64_t offset)
{
	if (f->dir_at == offset)
		return 0;
	if (lseek(f->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	f->dir_at = offset;
	return 0;
}

int p9_read_dir(struct p9_request *r, uint64_t offset, size_t count, p9_each_entry *each, void *arg)
{
	struct p9_fid *f = r->fid[0];
	int err = seek_to(f, offset);

	while (err == 0) {
		_Alignas(8) char buf[CHUNK];
		long n = syscall(SYS_getdents64, f->fd, buf, MIN(sizeof(buf), MAX(count, 4096u)));

		f->dir_at = UINT64_MAX;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		for (long at = 0; at < n && err == 0;) {
			const struct host_entry *e = (const void *)(buf + at);

			if (!p9_name_hidden(r->s, e->name))
				err = each(r, e->name, e->ino, e->type, (uint64_t)e->off, arg);
			if (err == 0)
				f->dir_at = (uint64_t)e->off;
			at += e->size;
		}
	}
	/* a chunk that was not used up: the descriptor stands behind it */
	f->dir_at = UINT64_MAX;
	return err;
}

struct fill {
	struct cursor out;
	size_t left;
};

/* The guest's kind, which the host's directory does not tell. */
static uint8_t mapped_type(const struct p9_request *r, const char *name, uint8_t type)
{
	CLEANUP_FD int fd = -1;
	struct statx st;

	if (type != DT_REG || !p9_mapped(r->s))
		return type;
	fd = p9_lookup(r->fid[0]->node->fd, name, 0);
	if (fd < 0 || p9_stat(fd, &st) < 0)
		return type;
	p9_map_stat(r->s, fd, r->fid[0]->node->fd, name, &st);
	return (uint8_t)IFTODT(st.stx_mode);
}

static int fill_entry(
	struct p9_request *r, const char *name, uint64_t ino, uint8_t type, uint64_t next, void *arg)
{
	const struct p9_node *dir = r->fid[0]->node;
	struct fill *fill = arg;
	size_t size = P9_QID + 8 + 1 + 2 + strlen(name);
	struct p9_qid q = {0};

	if (size > fill->left)
		return 1;
	/* what is above the root is not the guest's business */
	if (strcmp(name, "..") == 0 && dir->ino == r->s->root->ino && dir->dev == r->s->root->dev)
		ino = dir->ino;
	type = mapped_type(r, name, type);
	q.type = type == DT_DIR ? 0x80 : type == DT_LNK ? 0x02 : 0;
	q.path = p9_qid_path(r->s, dir->dev, ino);
	p9_put_qid(&fill->out, &q);
	p9_put_u64(&fill->out, next);
	p9_put_u8(&fill->out, type);
	p9_put_string(&fill->out, name);
	fill->left -= size;
	return 0;
}

/* fid[4] offset[8] count[4] → count[4] count*(qid[13] offset[8] type[1] name[s]) */
int p9_op_readdir(struct p9_request *r)
{
	uint64_t offset = p9_get_u64(&r->in);
	uint32_t count = p9_get_u32(&r->in);
	struct fill fill;
	int err;

	if (r->in.bad || offset > INT64_MAX)
		return -EINVAL;
	if (r->fid[0]->kind != P9_DIR)
		return r->fid[0]->kind == P9_FILE ? -ENOTDIR : -EBADF;
	if (r->body.left < 4)
		return -EMSGSIZE;
	count = (uint32_t)MIN(count, r->body.left - 4);
	fill = (struct fill){.out = r->body, .left = count};
	cursor_skip(&fill.out, 4);
	err = p9_read_dir(r, offset, count, fill_entry, &fill);
	if (err < 0)
		return err;
	if (err > 0 && fill.left == count)
		return -EINVAL; /* no room for a single one: it would look like the end */
	p9_put_u32(&r->body, count - (uint32_t)fill.left);
	cursor_skip(&r->body, count - fill.left);
	return 0;
}
