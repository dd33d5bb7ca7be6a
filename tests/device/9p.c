/* SPDX-License-Identifier: MIT */
/*
 * The 9p device: data, directories, sessions, limits, the old dialect. Names and links are in 9p-name.c, attributes and
 * owners in 9p-attr.c, locks, flushes and what a hostile guest sends in 9p-request.c.
 */
#include "9p-rig.h"

#include <fcntl.h>
#include <sys/stat.h>

/* --- works --- */

static void works(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	struct attr a;

	host_write(dir, "there", "from the host");
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, "there"), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	guest_is(1, "from the host");
	CHECK_EQ(c_getattr(&c, 1, &a), 0);
	CHECK_EQ(a.size, 13);
	CHECK_EQ(a.mode, S_IFREG | 0644);
	CHECK_EQ(c_clunk(&c, 1), 0);

	CHECK_EQ(c_mkdir(&c, 0, "dir", 0755), 0);
	CHECK_EQ(c_walk(&c, 0, 1, "dir"), 0);
	CHECK_EQ(c_walk(&c, 1, 2, ""), 0);
	CHECK_EQ(c_create(&c, 2, "new", O_RDWR, 0640), 0);
	CHECK_EQ(c_write(&c, 2, 0, "0123456789", 10), 10);
	CHECK_EQ(c_write(&c, 2, 5, "abc", 3), 3);
	guest_is(2, "01234abc89");
	host_is(dir, "dir/new", "01234abc89");
	CHECK_EQ(host_mode(dir, "dir/new"), S_IFREG | 0640);
	CHECK_EQ(c_rename(&c, 1, "new", 0, "moved"), 0);
	host_is(dir, "moved", "01234abc89");
	guest_is(2, "01234abc89");
	CHECK_EQ(c_unlink(&c, 0, "moved", 0), 0);
	CHECK(access(path_in(dir, "moved"), F_OK) < 0);
	CHECK_EQ(c_clunk(&c, 2), 0);
	CHECK_EQ(c_unlink(&c, 0, "dir", 0), -EISDIR);
	CHECK_EQ(c_unlink(&c, 0, "dir", 0x200), 0);
	CHECK_EQ(c_walk(&c, 0, 2, ""), 0);
	CHECK_EQ(c_open(&c, 2, O_RDONLY), 0);
	CHECK_EQ(list(2, "there", 4096), 1);
	client_end(&c);
}

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(seed >> 24);
	}
}

/* Messages of 1 MiB, in one indirect descriptor table or a chain. */
static void large(const struct fe_mode *m)
{
	enum { SIZE = (1 << 20) - 24 };
	const char *dir = fe_tmpdir();
	uint8_t *want = malloc(SIZE), *got = malloc(SIZE);

	client_start(&c, m, dir, 1 << 20, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "big", O_RDWR, 0600), 0);
	for (uint32_t i = 0; i < 3; i++) {
		fill(want, SIZE, i);
		CHECK_EQ(c_write(&c, 1, (uint64_t)i * SIZE, want, SIZE), SIZE);
	}
	for (uint32_t i = 0; i < 3; i++) {
		fill(want, SIZE, i);
		CHECK_EQ(c_read(&c, 1, (uint64_t)i * SIZE, got, SIZE), SIZE);
		CHECK_MEM(got, want, SIZE);
	}
	CHECK_EQ(c_read(&c, 1, 3 * (uint64_t)SIZE - 5, got, SIZE), 5);
	CHECK_EQ(c_read(&c, 1, 3 * (uint64_t)SIZE, got, SIZE), 0);
	client_end(&c);
	free(want);
	free(got);
}

/* Random writes, truncations and reads against a copy in memory, and at the end against the host's file. */
static void model(const struct fe_mode *m)
{
	enum { SIZE = 200000, CHUNK = 20000 };
	static uint8_t want[SIZE], got[SIZE], data[CHUNK];
	const char *dir = fe_tmpdir();
	uint32_t seed = 4711, size = 0;
	int fd;

	client_start(&c, m, dir, 32768, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_create(&c, 1, "f", O_RDWR, 0600), 0);
	for (uint32_t i = 0; i < 600; i++) {
		uint32_t at, n;

		seed = seed * 1664525 + 1013904223;
		at = (seed >> 4) % (SIZE - CHUNK);
		n = (seed >> 9) % CHUNK;
		if (seed >> 30 == 0) {
			client_begin(&c, TSETATTR);
			put_u32(&c, 1);
			put_u32(&c, 8);
			for (unsigned k = 0; k < 3; k++)
				put_u32(&c, 0);
			put_u64(&c, at);
			for (unsigned k = 0; k < 4; k++)
				put_u64(&c, 0);
			CHECK_EQ(client_call(&c), 0);
			if (at < size)
				memset(want + at, 0, size - at);
			size = at;
		} else if (seed >> 30 == 1) {
			uint32_t there = at >= size ? 0 : MIN(n, size - at);

			CHECK_EQ(c_read(&c, 1, at, got, n), there);
			CHECK_MEM(got, want + at, there);
		} else {
			fill(data, n, seed);
			CHECK_EQ(c_write(&c, 1, at, data, n), n);
			memcpy(want + at, data, n);
			size = n ? MAX(size, at + n) : size;
		}
	}
	client_end(&c);
	fd = open(path_in(dir, "f"), O_RDONLY | O_CLOEXEC);
	CHECK_EQ(read(fd, got, SIZE), size);
	CHECK_MEM(got, want, size);
	close(fd);
}

/* Many entries, some of which go while they are read: those that stay are seen once. */
static void many(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char name[32];

	for (unsigned i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "entry-%u", i);
		CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
	}
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	CHECK_EQ(list(1, "entry-2999", 8000), 3000);
	CHECK_EQ(list(1, "entry-0", 200), 3000);
	client_begin(&c, TREADDIR);
	put_u32(&c, 1);
	put_u64(&c, 0);
	put_u32(&c, 10); /* no room for one */
	CHECK_EQ(client_call(&c), -EINVAL);
	client_end(&c);
}

static void changing(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	bool seen[1000] = {false};
	uint64_t at = 0;
	char name[32];
	unsigned gone = 1;

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
	}
	client_start(&c, m, dir, 8192, NULL);
	CHECK_EQ(c_walk(&c, 0, 1, ""), 0);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREADDIR);
		put_u32(&c, 1);
		put_u64(&c, at);
		put_u32(&c, 1000);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		if (bytes == 0)
			break;
		while (c.cur->at < c.cur->answer) {
			uint8_t qid[13];
			char *entry;

			get_bytes(&c, qid, 13);
			at = get_u64(&c);
			get_u8(&c);
			entry = get_str(&c);
			if (strchr("0123456789", entry[0])) {
				CHECK(!seen[atoi(entry)]);
				seen[atoi(entry)] = true;
			}
			free(entry);
		}
		/* odd ones go, others come */
		for (unsigned i = 0; i < 20 && gone < 1000; i++, gone += 2) {
			snprintf(name, sizeof(name), "%u", gone);
			CHECK_SYS(unlink(path_in(dir, name)));
			snprintf(name, sizeof(name), "new-%u", gone);
			CHECK_EQ(mknod(path_in(dir, name), S_IFREG | 0600, 0), 0);
		}
	}
	for (unsigned i = 0; i < 1000; i += 2)
		CHECK(seen[i]);
	client_end(&c);
}

/* More fids than descriptors: all go on working, also those whose file was renamed by us, or unlinked while open. */
static void limits(const struct fe_mode *m)
{
	enum { N = 120 };
	const char *dir = fe_tmpdir();
	char name[32], got[32];

	client_start(&c, m, dir, 8192, FE_ARGS("--max-files=64", "--max-fids=200"));
	CHECK_EQ(c_mkdir(&c, 0, "d", 0755), 0);
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		host_write(dir, path_in("d", name), name);
		CHECK_EQ(c_walk(&c, 0, 1 + i, path_in("d", name)), 0);
	}
	CHECK(fe_process_fds(&c.fe.process) < 64 + 40);
	CHECK_EQ(c_rename(&c, 0, "d", 0, "e"), 0);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++) {
			snprintf(name, sizeof(name), "f%u", i);
			CHECK_EQ(c_walk(&c, 1 + i, 190, ""), 0);
			CHECK_EQ(c_open(&c, 190, O_RDONLY), 0);
			CHECK_EQ(c_read(&c, 190, 0, got, sizeof(got)), strlen(name));
			CHECK_MEM(got, name, strlen(name));
			CHECK_EQ(c_clunk(&c, 190), 0);
		}
	}
	/* open ones keep one descriptor each, so that they survive unlinking */
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		CHECK_EQ(c_open(&c, 1 + i, O_RDWR), 0);
		CHECK_EQ(c_unlink(&c, 0, "nothing", 0), -ENOENT);
		CHECK_SYS(unlink(path_in(dir, path_in("e", name))));
	}
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		guest_is(1 + i, name);
	}
	CHECK(fe_process_fds(&c.fe.process) < 64 + 40);
	for (unsigned i = N + 1; i < 200; i++)
		CHECK_EQ(c_walk(&c, 0, i, ""), 0);
	CHECK_EQ(c_walk(&c, 0, 200, ""), -EMFILE);
	CHECK_EQ(c_clunk(&c, 199), 0);
	CHECK_EQ(c_walk(&c, 0, 200, ""), 0);
	client_end(&c);
}

static void read_only(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();

	host_write(dir, "f", "text");
	client_start(&c, m, dir, 8192, FE_ARGS("--read-only"));
	CHECK_EQ(c_mkdir(&c, 0, "d", 0755), -EROFS);
	CHECK_EQ(c_unlink(&c, 0, "f", 0), -EROFS);
	CHECK_EQ(c_rename(&c, 0, "f", 0, "g"), -EROFS);
	CHECK_EQ(set_xattr(0, "f", "user.x", "y"), -EROFS);
	CHECK_EQ(mknod_at(0, "n", S_IFIFO | 0600, 0, 0), -EROFS);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	CHECK_EQ(set_owner(1, 0, 0, 0), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDWR), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDONLY | O_TRUNC), -EROFS);
	CHECK_EQ(c_open(&c, 1, O_RDONLY), 0);
	guest_is(1, "text");
	CHECK_EQ(c_write(&c, 1, 0, "x", 1), -EBADF);
	CHECK_EQ(c_lock(&c, 1, 0, 0, 0, 0, 1), 0);
	CHECK_EQ(c_lock(&c, 1, 1, 0, 0, 0, 1), 2); /* it would have to be open for writing */
	client_begin(&c, TREMOVE);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), -EROFS);
	CHECK_EQ(c_read(&c, 1, 0, dir ? &(char[4]){0} : NULL, 4), -EBADF); /* remove clunks */
	host_is(dir, "f", "text");
	client_end(&c);
}

/* --- 9P2000.u --- */

static void unix_create(
	uint32_t fid, const char *name, uint32_t perm, uint8_t mode, const char *extension, int want)
{
	client_begin(&c, TCREATE);
	put_u32(&c, fid);
	put_str(&c, name);
	put_u32(&c, perm);
	put_u8(&c, mode);
	put_str(&c, extension);
	CHECK_EQ(client_call(&c), want);
}

static unsigned unix_list(uint32_t fid)
{
	uint64_t at = 0;
	unsigned n = 0;

	for (;;) {
		uint32_t bytes;

		client_begin(&c, TREAD);
		put_u32(&c, fid);
		put_u64(&c, at);
		put_u32(&c, 200);
		CHECK_EQ(client_call(&c), 0);
		bytes = get_u32(&c);
		if (bytes == 0)
			return n;
		at += bytes;
		for (; bytes; n++) {
			uint16_t size = get_u16(&c);

			CHECK((uint32_t)size + 2 <= bytes);
			c.cur->at += size;
			bytes -= size + 2u;
		}
	}
}

static void old_dialect(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char *text;

	host_write(dir, "f", "text");
	client_start(&c, m, dir, 8192, NULL);
	client_session(&c, "9P2000.u");
	CHECK_EQ(c_open(&c, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
	client_begin(&c, TSTAT);
	put_u32(&c, 1);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(get_u16(&c) + 9u, c.cur->answer);
	CHECK_EQ(get_u16(&c) + 11u, c.cur->answer);
	c.cur->at += 2 + 4 + 13;
	CHECK_EQ(get_u32(&c), 0644);
	c.cur->at += 8;
	CHECK_EQ(get_u64(&c), 4);
	text = get_str(&c);
	CHECK_STR(text, "f");
	free(text);
	client_begin(&c, TOPEN);
	put_u32(&c, 1);
	put_u8(&c, 2);
	CHECK_EQ(client_call(&c), 0);
	guest_is(1, "text");
	CHECK_EQ(c_walk(&c, 0, 2, ""), 0);
	unix_create(2, "d", 0x80000000u | 0755, 0, "", 0);
	CHECK_EQ(host_mode(dir, "d"), S_IFDIR | 0755);
	CHECK_EQ(c_walk(&c, 0, 3, ""), 0);
	unix_create(3, "s", 0x02000000u | 0777, 0, "target", 0);
	CHECK_EQ(host_mode(dir, "s"), S_IFLNK | 0777);
	CHECK_EQ(c_walk(&c, 0, 4, ""), 0);
	unix_create(4, "l", 0x01000000u, 0, "1\n", 0);
	host_is(dir, "l", "text");
	CHECK_EQ(c_walk(&c, 0, 5, ""), 0);
	unix_create(5, "f", 0600, 2, "", -EEXIST);
	unix_create(5, "n", 0600, 2, "", 0);
	CHECK_EQ(c_write(&c, 5, 0, "new", 3), 3);
	host_is(dir, "n", "new");
	CHECK_EQ(c_walk(&c, 0, 6, ""), 0);
	client_begin(&c, TOPEN);
	put_u32(&c, 6);
	put_u8(&c, 0);
	CHECK_EQ(client_call(&c), 0);
	CHECK_EQ(unix_list(6), 5); /* f d s l n */
	client_begin(&c, TWSTAT);
	put_u32(&c, 5);
	put_u16(&c, 0);
	put_u16(&c, 0);
	put_u16(&c, 0xffff);
	put_u32(&c, UINT32_MAX);
	for (unsigned i = 0; i < 13; i++)
		put_u8(&c, 0xff);
	put_u32(&c, 0640);
	put_u32(&c, UINT32_MAX);
	put_u32(&c, 1000000000);
	put_u64(&c, 2);
	put_str(&c, "renamed");
	for (unsigned i = 0; i < 4; i++)
		put_str(&c, "");
	for (unsigned i = 0; i < 3; i++)
		put_u32(&c, UINT32_MAX);
	CHECK_EQ(client_call(&c), 0);
	host_is(dir, "renamed", "ne");
	CHECK_EQ(host_mode(dir, "renamed"), S_IFREG | 0640);
	client_end(&c);
}

/* --- reconnect --- */

/* The front-end goes with requests in flight and comes back: a new session on the same tree, no descriptors left. */
static void reconnect(const struct fe_mode *m)
{
	const char *dir = fe_tmpdir();
	char socket[256], option[256];
	unsigned fds = 0;
	int fd;

	host_write(dir, "f", "locked");
	fd = open(path_in(dir, "f"), O_RDWR | O_CLOEXEC);
	host_lock(fd, F_WRLCK, 0, 0);
	snprintf(socket, sizeof(socket), "%s/sock", fe_tmpdir());
	snprintf(option, sizeof(option), "--path=%s", dir);
	memset(&c, 0, sizeof(c));
	fe_init(&c.fe, m);
	fe_spawn_path(&c.fe, socket, FE_ARGS("9p", option, "--threads=2"));
	for (unsigned round = 0; round < 3; round++) {
		fe_handshake(&c.fe);
		fe_memory_default(&c.fe);
		c.q = fe_queue_up(&c.fe, 0, 128);
		c.msize = c.room = 8192;
		for (unsigned i = 0; i < CLIENT_SLOTS; i++) {
			c.m[i] = (struct message){.tag = (uint16_t)i};
			c.m[i].tx = fe_alloc(&c.fe, c.msize, 16, NULL);
			c.m[i].rx = fe_alloc(&c.fe, c.msize, 16, NULL);
		}
		client_session(&c, "9P2000.L");
		CHECK_EQ(c_walk(&c, 0, 1, "f"), 0);
		CHECK_EQ(c_open(&c, 1, O_RDWR), 0);
		guest_is(1, "locked");
		if (round == 0)
			fds = fe_process_fds(&c.fe.process);
		CHECK_EQ(fe_process_fds(&c.fe.process), fds);
		send_lock(1, 1, 0, 1);
		for (unsigned i = 2; i < 10; i++) {
			client_use(&c, i);
			client_begin(&c, TFSYNC);
			put_u32(&c, 1);
			put_u32(&c, 0);
			client_send(&c);
		}
		client_use(&c, 0);
		if (round < 2) {
			struct fe_process p = c.fe.process;

			c.fe.process.pid = 0;
			fe_close(&c.fe);
			fe_init(&c.fe, m);
			c.fe.process = p;
			fe_connect(&c.fe, socket);
		}
	}
	fe_process_signal(&c.fe.process, SIGTERM);
	fe_process_exits(&c.fe.process, 0);
	fe_close(&c.fe);
	close(fd);
}

/* --- options --- */

static void refused(void *arg)
{
	const char *const *row = arg;
	struct fe_process p;

	fe_process_start(&p, -1, FE_ARGS("9p", "--socket-path=x", row[0], row[1]));
	fe_process_logs(&p, row[2]);
	CHECK(fe_process_wait(&p) != 0);
}

int main(void)
{
	static const char *const bad[][3] = {
		{"--path=/nonexistent/x", NULL, "--path=/nonexistent/x: No such file"},
		{"--path=/etc/passwd", NULL, "--path=/etc/passwd: Not a directory"},
		{"--path=/", "--tag=", "--tag="},
		{"--path=/", "--security=high", "--security=high"},
		{"--path=/", "--msize=2M", "--msize=2M"},
		{"--path=/", "--map-uid=1:2", "--map-uid=1:2: not of the form GUEST:HOST:COUNT"},
		{"--path=/", "--map-gid=1:2:0", "--map-gid=1:2:0: out of range"},
		{"--path=/", "--fmode=888", "--fmode=888: not a mode"},
		{"--path=/", "--fmode=640", "--fmode: only with --security=mapped"},
	};

	fe_each_mode("works", works);
	fe_each_mode("messages of 1 MiB", large);
	fe_each_mode("random reads, writes and truncations", model);
	fe_each_layout("a directory of 3000 entries", many);
	fe_case("a directory that changes while it is read", changing, NULL);
	fe_case("more fids than descriptors", limits, NULL);
	fe_case("read-only", read_only, NULL);
	fe_each_layout("9P2000.u", old_dialect);
	fe_each_mode("reconnect", reconnect);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][1] ? bad[i][1] : bad[i][0], refused, (void *)bad[i]);
	return tap_done();
}
