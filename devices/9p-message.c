/* SPDX-License-Identifier: MIT */
/*
 * Numbers and strings of 9P messages (9P2000 manual, intro(5)): little-endian, unaligned, strings with a length of two
 * bytes before them. All that a guest sends as a name passes p9_get_name().
 */
#include "9p.h"

#include <errno.h>
#include <string.h>

uint8_t p9_get_u8(struct cursor *c)
{
	uint8_t v;

	cursor_get(c, &v, sizeof(v));
	return v;
}

uint16_t p9_get_u16(struct cursor *c)
{
	uint16_t v;

	cursor_get(c, &v, sizeof(v));
	return le16toh(v);
}

uint32_t p9_get_u32(struct cursor *c)
{
	uint32_t v;

	cursor_get(c, &v, sizeof(v));
	return le32toh(v);
}

uint64_t p9_get_u64(struct cursor *c)
{
	uint64_t v;

	cursor_get(c, &v, sizeof(v));
	return le64toh(v);
}

int p9_get_string(struct cursor *c, char *to, size_t size)
{
	size_t n = p9_get_u16(c);

	to[0] = '\0';
	if (n >= size) {
		if (!cursor_skip(c, n))
			return -EINVAL;
		return -ENAMETOOLONG;
	}
	if (!cursor_get(c, to, n) || memchr(to, '\0', n)) {
		to[0] = '\0';
		return -EINVAL;
	}
	to[n] = '\0';
	return 0;
}

bool p9_name_hidden(const struct p9 *s, const char *name)
{
	return s->security == P9_MAPPED_FILE && strncasecmp(name, ".virtfs_metadata", 16) == 0;
}

bool p9_path_hidden(const struct p9 *s, const char *path)
{
	for (; path; path = strchr(path, '/')) {
		path += *path == '/';
		if (p9_name_hidden(s, path))
			return true;
	}
	return false;
}

int p9_check_name(const struct p9 *s, const char *name)
{
	if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return p9_name_hidden(s, name) ? -ENOENT : 0;
}

int p9_get_name(const struct p9 *s, struct cursor *c, char name[NAME_MAX + 1])
{
	int r = p9_get_string(c, name, NAME_MAX + 1);

	return r < 0 ? r : p9_check_name(s, name);
}

void p9_put_u8(struct cursor *c, uint8_t v)
{
	cursor_put(c, &v, sizeof(v));
}

void p9_put_u16(struct cursor *c, uint16_t v)
{
	v = htole16(v);
	cursor_put(c, &v, sizeof(v));
}

void p9_put_u32(struct cursor *c, uint32_t v)
{
	v = htole32(v);
	cursor_put(c, &v, sizeof(v));
}

void p9_put_u64(struct cursor *c, uint64_t v)
{
	v = htole64(v);
	cursor_put(c, &v, sizeof(v));
}

void p9_put_string(struct cursor *c, const char *text)
{
	size_t n = MIN(strlen(text), (size_t)UINT16_MAX);

	p9_put_u16(c, (uint16_t)n);
	cursor_put(c, text, n);
}

void p9_put_qid(struct cursor *c, const struct p9_qid *q)
{
	p9_put_u8(c, q->type);
	p9_put_u32(c, q->version);
	p9_put_u64(c, q->path);
}
