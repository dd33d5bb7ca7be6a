/* SPDX-License-Identifier: MIT */
/* What the tests of 9p have in common; see 9p-rig.h. */
#include "9p-rig.h"

#include <fcntl.h>
#include <sys/stat.h>

struct client c;

const char *path_in(const char *dir, const char *name)
{
	static char *made[8];
	static unsigned next;
	char *path;

	CHECK(asprintf(&path, "%s/%s", dir, name) > 0);
	next = (next + 1) % ARRAY_SIZE(made);
	free(made[next]);
	made[next] = path;
	return path;
}

void host_write(const char *dir, const char *name, const char *text)
{
	int fd = open(path_in(dir, name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	CHECK_SYS(fd);
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

void host_is(const char *dir, const char *name, const char *text)
{
	int fd = open(path_in(dir, name), O_RDONLY | O_CLOEXEC);
	char got[256] = "";

	CHECK_SYS(fd);
	CHECK(read(fd, got, sizeof(got) - 1) >= 0);
	close(fd);
	CHECK_STR(got, text);
}

mode_t host_mode(const char *dir, const char *name)
{
	struct stat st;

	CHECK_SYS(lstat(path_in(dir, name), &st));
	return st.st_mode;
}

void guest_is(uint32_t fid, const char *text)
{
	char got[256] = "";

	CHECK_EQ(c_read(&c, fid, 0, got, sizeof(got) - 1), strlen(text));
	CHECK_STR(got, text);
}

/* Counts the entries of an open directory; the one called name must be among them when it is given. */
unsigned list(uint32_t fid, const char *name, uint32_t count)
{
	uint64_t at = 0;
	unsigned n = 0;
	bool found = false;

	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREADDIR);
		put_u32(&c, fid);
		put_u64(&c, at);
		put_u32(&c, count);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		CHECK_EQ(c.cur->answer, 11 + bytes);
		CHECK(bytes <= count);
		if (bytes == 0)
			break;
		while (c.cur->at < c.cur->answer) {
			uint8_t qid[13];
			char *entry;

			get_bytes(&c, qid, 13);
			at = get_u64(&c);
			get_u8(&c);
			entry = get_str(&c);
			found |= name && strcmp(entry, name) == 0;
			n += strcmp(entry, ".") != 0 && strcmp(entry, "..") != 0;
			free(entry);
		}
	}
	CHECK(found == (name != NULL));
	return n;
}

int set_xattr_by(uint32_t dir, const char *name, const char *key, const char *value, uint32_t flags)
{
	int r;

	CHECK_EQ(c_walk(&c, dir, 50, name), 0);
	client_begin(&c, TXATTRCREATE);
	put_u32(&c, 50);
	put_str(&c, key);
	put_u64(&c, strlen(value));
	put_u32(&c, flags);
	r = client_call(&c);
	if (r == 0 && *value)
		CHECK_EQ(c_write(&c, 50, 0, value, (uint32_t)strlen(value)), strlen(value));
	return r ? c_clunk(&c, 50), r : c_clunk(&c, 50);
}

int set_xattr(uint32_t dir, const char *name, const char *key, const char *value)
{
	return set_xattr_by(dir, name, key, value, 0);
}

int mknod_at(uint32_t dir, const char *name, uint32_t mode, uint32_t maj, uint32_t min)
{
	client_begin(&c, TMKNOD);
	put_u32(&c, dir);
	put_str(&c, name);
	put_u32(&c, mode);
	put_u32(&c, maj);
	put_u32(&c, min);
	put_u32(&c, 7);
	return client_call(&c);
}

int set_owner(uint32_t fid, uint32_t mode, uint32_t uid, uint32_t gid)
{
	client_begin(&c, TSETATTR);
	put_u32(&c, fid);
	put_u32(&c, 7);
	put_u32(&c, mode);
	put_u32(&c, uid);
	put_u32(&c, gid);
	for (unsigned k = 0; k < 5; k++)
		put_u64(&c, 0);
	return client_call(&c);
}

void host_lock(int fd, short type, off_t start, off_t len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	CHECK_SYS(fcntl(fd, F_OFD_SETLK, &l));
}

void send_lock(unsigned slot, uint32_t fid, uint64_t start, uint64_t len)
{
	client_use(&c, slot);
	client_begin(&c, TLOCK);
	put_u32(&c, fid);
	put_u8(&c, 1);
	put_u32(&c, 1);
	put_u64(&c, start);
	put_u64(&c, len);
	put_u32(&c, 1);
	put_str(&c, "client");
	client_send(&c);
	client_use(&c, 0);
}
