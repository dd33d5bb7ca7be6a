/* SPDX-License-Identifier: MIT */
/* The 9P client of the tests; see 9p-client.h. */
#include "9p-client.h"

void client_use(struct client *c, unsigned slot)
{
	c->cur = &c->m[slot];
}

void client_begin(struct client *c, uint8_t type)
{
	c->cur->n = 4;
	put_u8(c, type);
	put_u16(c, type == TVERSION ? 0xffff : c->cur->tag);
}

void put_bytes(struct client *c, const void *data, size_t n)
{
	CHECK(c->cur->n + n <= c->room);
	if (n)
		memcpy(c->cur->tx + c->cur->n, data, n);
	c->cur->n += n;
}

void put_u8(struct client *c, uint8_t v)
{
	put_bytes(c, &v, sizeof(v));
}

void put_u16(struct client *c, uint16_t v)
{
	put_bytes(c, &v, sizeof(v));
}

void put_u32(struct client *c, uint32_t v)
{
	put_bytes(c, &v, sizeof(v));
}

void put_u64(struct client *c, uint64_t v)
{
	put_bytes(c, &v, sizeof(v));
}

void put_str(struct client *c, const char *text)
{
	put_u16(c, (uint16_t)strlen(text));
	put_bytes(c, text, strlen(text));
}

void client_send(struct client *c)
{
	struct message *m = c->cur;
	uint32_t size = (uint32_t)m->n;
	/* header and body in buffers of their own, as Linux has them without a copy */
	struct vring_driver_buf bufs[4];
	unsigned n = 0;

	memcpy(m->tx, &size, sizeof(size));
	m->done = false;
	if (size > 23) {
		bufs[n++] = fe_rd(&c->fe, m->tx, 23);
		bufs[n++] = fe_rd(&c->fe, m->tx + 23, size - 23);
	} else {
		bufs[n++] = fe_rd(&c->fe, m->tx, size);
	}
	bufs[n++] = fe_wr(&c->fe, m->rx, 11);
	bufs[n++] = fe_wr(&c->fe, m->rx + 11, c->room - 11);
	fe_submit(c->q, bufs, n, m);
	fe_flush(c->q);
}

static void collected(void *cookie, uint32_t len)
{
	struct message *m = cookie;

	m->answer = len;
	m->at = 7;
	m->done = true;
}

bool client_poll(struct client *c, unsigned slot, int ms)
{
	void *cookie;
	uint32_t len;

	while (!c->m[slot].done) {
		if (!fe_wait_ms(c->q, &cookie, &len, ms))
			return false;
		collected(cookie, len);
	}
	return true;
}

int client_wait(struct client *c, unsigned slot)
{
	struct message *m = &c->m[slot];
	uint32_t size;
	uint16_t tag;
	void *cookie;

	c->cur = m;
	while (!m->done) {
		uint32_t len = fe_wait(c->q, &cookie);

		collected(cookie, len);
	}
	if (m->answer == 0)
		return 1;
	CHECK(m->answer >= 7);
	memcpy(&size, m->rx, 4);
	memcpy(&tag, m->rx + 5, 2);
	CHECK_EQ(size, m->answer);
	CHECK_EQ(tag, m->tx[4] == TVERSION ? 0xffff : m->tag);
	if (m->rx[4] == RLERROR) {
		CHECK_EQ(size, 11);
		c->error = (int)get_u32(c);
		return -c->error;
	}
	if (m->rx[4] == RERROR) {
		free(get_str(c));
		c->error = (int)get_u32(c);
		return -c->error;
	}
	CHECK_EQ(m->rx[4], m->tx[4] + 1);
	return 0;
}

int client_call(struct client *c)
{
	client_send(c);
	return client_wait(c, (unsigned)(c->cur - c->m));
}

void get_bytes(struct client *c, void *to, size_t n)
{
	struct message *m = c->cur;

	CHECK(m->at + n <= m->answer);
	memcpy(to, m->rx + m->at, n);
	m->at += n;
}

uint8_t get_u8(struct client *c)
{
	uint8_t v;

	get_bytes(c, &v, sizeof(v));
	return v;
}

uint16_t get_u16(struct client *c)
{
	uint16_t v;

	get_bytes(c, &v, sizeof(v));
	return v;
}

uint32_t get_u32(struct client *c)
{
	uint32_t v;

	get_bytes(c, &v, sizeof(v));
	return v;
}

uint64_t get_u64(struct client *c)
{
	uint64_t v;

	get_bytes(c, &v, sizeof(v));
	return v;
}

char *get_str(struct client *c)
{
	uint16_t n = get_u16(c);
	char *text = calloc(1, n + 1u);

	CHECK(text);
	get_bytes(c, text, n);
	return text;
}

/* Life */

void client_session(struct client *c, const char *dialect)
{
	char *got;

	client_use(c, 0);
	client_begin(c, TVERSION);
	put_u32(c, c->msize);
	put_str(c, dialect);
	CHECK_EQ(client_call(c), 0);
	CHECK_EQ(get_u32(c), c->msize);
	got = get_str(c);
	CHECK_STR(got, dialect);
	free(got);
	client_begin(c, TATTACH);
	put_u32(c, 0);
	put_u32(c, UINT32_MAX);
	put_str(c, "root");
	put_str(c, "");
	put_u32(c, 0);
	CHECK_EQ(client_call(c), 0);
}

static void begin(
	struct client *c, const struct fe_mode *m, const char *dir, uint32_t msize, const char *const *args)
{
	const char *all[16] = {"9p"};
	char path[256];
	unsigned n = 1;

	snprintf(path, sizeof(path), "--path=%s", dir);
	all[n++] = path;
	for (; args && *args; args++)
		all[n++] = *args;
	memset(c, 0, sizeof(*c));
	fe_start(&c->fe, m, all);
	c->msize = msize;
	c->room = msize;
}

static void queue_up(struct client *c)
{
	c->q = fe_queue_up(&c->fe, 0, 128);
	for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
		c->m[i].tag = (uint16_t)i;
		c->m[i].tx = fe_alloc(&c->fe, c->room, 16, NULL);
		c->m[i].rx = fe_alloc(&c->fe, c->room, 16, NULL);
		if (c->room > 65536 && i == 1)
			break;
	}
}

void client_start(
	struct client *c, const struct fe_mode *m, const char *dir, uint32_t msize, const char *const *args)
{
	begin(c, m, dir, msize, args);
	queue_up(c);
	client_session(c, "9P2000.L");
}

bool client_arrive(struct client *c, const struct fe_mode *m, const char *dir, uint32_t msize,
	const char *const *args, const void *state, size_t n)
{
	bool loaded;

	begin(c, m, dir, msize, args);
	loaded = fe_state_load(&c->fe, state, n) == 0;
	queue_up(c);
	client_use(c, 0);
	return loaded;
}

void client_end(struct client *c)
{
	fe_end(&c->fe);
}

/* Requests */

int c_walk(struct client *c, uint32_t fid, uint32_t newfid, const char *path)
{
	char copy[4096], *rest = copy, *name;
	uint16_t n = 0;
	size_t at;
	int r;

	snprintf(copy, sizeof(copy), "%s", path);
	client_begin(c, TWALK);
	put_u32(c, fid);
	put_u32(c, newfid);
	at = c->cur->n;
	put_u16(c, 0);
	while (*path && (name = strsep(&rest, "/"))) {
		put_str(c, name);
		n++;
	}
	memcpy(c->cur->tx + at, &n, 2);
	r = client_call(c);
	if (r < 0)
		return r;
	return get_u16(c) == n ? 0 : -ENOENT;
}

int c_open(struct client *c, uint32_t fid, uint32_t flags)
{
	client_begin(c, TLOPEN);
	put_u32(c, fid);
	put_u32(c, flags);
	return client_call(c);
}

int c_create(struct client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode)
{
	client_begin(c, TLCREATE);
	put_u32(c, fid);
	put_str(c, name);
	put_u32(c, flags);
	put_u32(c, mode);
	put_u32(c, 0);
	return client_call(c);
}

int c_read(struct client *c, uint32_t fid, uint64_t at, void *to, uint32_t n)
{
	uint32_t got;
	int r;

	client_begin(c, TREAD);
	put_u32(c, fid);
	put_u64(c, at);
	put_u32(c, n);
	r = client_call(c);
	if (r)
		return r;
	got = get_u32(c);
	CHECK(got <= n);
	CHECK_EQ(c->cur->answer, 11 + got);
	get_bytes(c, to, got);
	return (int)got;
}

int c_write(struct client *c, uint32_t fid, uint64_t at, const void *data, uint32_t n)
{
	int r;

	client_begin(c, TWRITE);
	put_u32(c, fid);
	put_u64(c, at);
	put_u32(c, n);
	put_bytes(c, data, n);
	r = client_call(c);
	return r ? r : (int)get_u32(c);
}

int c_clunk(struct client *c, uint32_t fid)
{
	client_begin(c, TCLUNK);
	put_u32(c, fid);
	return client_call(c);
}

int c_mkdir(struct client *c, uint32_t dir, const char *name, uint32_t mode)
{
	client_begin(c, TMKDIR);
	put_u32(c, dir);
	put_str(c, name);
	put_u32(c, mode);
	put_u32(c, 0);
	return client_call(c);
}

int c_unlink(struct client *c, uint32_t dir, const char *name, uint32_t flags)
{
	client_begin(c, TUNLINKAT);
	put_u32(c, dir);
	put_str(c, name);
	put_u32(c, flags);
	return client_call(c);
}

int c_rename(struct client *c, uint32_t dir, const char *name, uint32_t to, const char *new)
{
	client_begin(c, TRENAMEAT);
	put_u32(c, dir);
	put_str(c, name);
	put_u32(c, to);
	put_str(c, new);
	return client_call(c);
}

int c_getattr(struct client *c, uint32_t fid, struct attr *a)
{
	int r;

	client_begin(c, TGETATTR);
	put_u32(c, fid);
	put_u64(c, 0x7ff);
	r = client_call(c);
	if (r)
		return r;
	CHECK_EQ(c->cur->answer, 160);
	CHECK_EQ(get_u64(c) & 0x7ff, 0x7ff);
	a->type = get_u8(c);
	a->version = get_u32(c);
	a->path = get_u64(c);
	a->mode = get_u32(c);
	a->uid = get_u32(c);
	a->gid = get_u32(c);
	a->nlink = get_u64(c);
	a->rdev = get_u64(c);
	a->size = get_u64(c);
	return 0;
}

int c_lock(struct client *c, uint32_t fid, uint8_t type, uint32_t flags, uint64_t start, uint64_t len,
	uint32_t pid)
{
	int r;

	client_begin(c, TLOCK);
	put_u32(c, fid);
	put_u8(c, type);
	put_u32(c, flags);
	put_u64(c, start);
	put_u64(c, len);
	put_u32(c, pid);
	put_str(c, "client");
	r = client_call(c);
	return r ? r : get_u8(c);
}
