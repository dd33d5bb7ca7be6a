/* SPDX-License-Identifier: MIT */
/*
 * The 9p device and a hostile guest: the input of this test is a list of messages, mostly well-formed, and of steps that let
 * jobs of the pool run, one at a time and late, let time pass for locks that wait, and stop, move and reset the device.
 *
 * The device's files are part of this one; queue and pool are made up here. Checked besides the sanitizers' rules: each
 * request is answered once, by its answer or an error, of the length that it says; nothing that lies outside of the tree
 * is ever read or changed, though links lead there.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../devices/9p.c"

#include "../../devices/9p-attr.c"
#include "../../devices/9p-dir.c"
#include "../../devices/9p-fid.c"
#include "../../devices/9p-file.c"
#include "../../devices/9p-fs.c"
#include "../../devices/9p-lock.c"
#include "../../devices/9p-map.c"
#include "../../devices/9p-message.c"
#include "../../devices/9p-name.c"
#include "../../devices/9p-request.c"
#include "../../devices/9p-state.c"
#include "../../devices/9p-unix.c"
#include "move.h"

enum { STEPS_MAX = 300, SLOTS = 12, TX_MAX = 4096, RX_MAX = 5000, OUTSIDE = 7 };
enum {
	STEP_RUN = 200,
	STEP_LOCKS = 240,
	STEP_STOP = 249,
	STEP_MOVE = 250,
	STEP_FORGE = 252,
	STEP_RESET = 253
};

struct virtqueue {
	bool running;
};

struct slot {
	struct element e;
	struct p9_request req;
	struct iovec in[2], out[2];
	uint8_t tx[TX_MAX], rx[RX_MAX];
	bool out_now;
};

static struct {
	struct backend b;
	struct p9 s;
	uint8_t config[CONFIG_SIZE];
	struct virtqueue q;
	struct slot slot[SLOTS];
	struct slot *ready; /* to be popped */
	struct job *jobs;
	char base[64];
	struct input in;
} f;

/* The core, as far as the device sees it */

struct element *virtqueue_pop(struct virtqueue *q)
{
	struct slot *slot = f.ready;

	if (!slot || !q->running)
		return NULL;
	f.ready = NULL;
	memset(&slot->req, 0, sizeof(slot->req));
	slot->e.queue = q;
	slot->e.req = &slot->req;
	slot->out_now = true;
	return &slot->e;
}

void virtqueue_push(struct element *e)
{
	struct slot *slot = container_of(e, struct slot, e);
	uint32_t size;

	require(slot->out_now, "a request comes back once");
	slot->out_now = false;
	require(!memmem(slot->rx, RX_MAX, "SECRET!", OUTSIDE), "nothing outside of the tree is read");
	if (e->wr.done == 0)
		return;
	require(e->wr.done >= P9_HEADER, "an answer has a header");
	memcpy(&size, slot->rx, sizeof(size));
	require(le32toh(size) == e->wr.done || e->wr.bad, "an answer is as long as it says");
	require(slot->rx[4] == slot->tx[4] + 1 || slot->rx[4] == RLERROR || slot->rx[4] == RERROR,
		"an answer is that of its request");
	require(memcmp(slot->rx + 5, slot->tx + 5, 2) == 0, "an answer has its request's tag");
}

void virtqueue_wake(void *q)
{
	(void)q;
}

bool virtqueue_pending(struct virtqueue *q)
{
	(void)q;
	return input_u8(&f.in) & 1;
}

bool virtqueue_running(const struct virtqueue *q)
{
	return q->running;
}

int pool_new(struct pool **out, unsigned max, const char *name)
{
	(void)max;
	(void)name;
	*out = NULL;
	return 0;
}

void pool_free(struct pool *p)
{
	(void)p;
}

void pool_submit(struct pool *p, struct job *j)
{
	struct job **at = &f.jobs;

	(void)p;
	while (*at)
		at = &(*at)->next;
	j->next = NULL;
	*at = j;
}

static bool run_job(unsigned skip)
{
	struct job **at = &f.jobs, *j;

	for (; skip && *at && (*at)->next; skip--)
		at = &(*at)->next;
	j = *at;
	if (!j)
		return false;
	*at = j->next;
	j->run(j);
	j->done(j);
	return true;
}

/* The tree */

static const char *below(const char *name)
{
	static char path[4][128];
	static unsigned next;

	next = (next + 1) % ARRAY_SIZE(path);
	snprintf(path[next], sizeof(path[next]), "%s/%s", f.base, name);
	return path[next];
}

static void make(const char *name, const char *text)
{
	int fd = open(below(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	require(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "a file can be made");
	close(fd);
}

static void plant(void)
{
	snprintf(f.base, sizeof(f.base), "/dev/shm/fuzz-9p.XXXXXX");
	require(mkdtemp(f.base), "a directory can be made");
	mkdir(below("out"), 0700);
	make("out/secret", "SECRET!");
	mkdir(below("root"), 0700);
	make("root/f", "data");
	mkdir(below("root/d"), 0700);
	make("root/d/g", "more data");
	require(symlink("../out", below("root/l")) == 0 &&
			symlink(below("out/secret"), below("root/a")) == 0 &&
			mkfifo(below("root/p"), 0600) == 0,
		"links can be made");
}

static int uproot_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void uproot(void)
{
	char got[16] = "";
	struct stat st;
	int fd = open(below("out/secret"), O_RDONLY | O_CLOEXEC);

	require(fd >= 0 && read(fd, got, sizeof(got)) == OUTSIDE && memcmp(got, "SECRET!", OUTSIDE) == 0,
		"nothing outside of the tree is changed");
	close(fd);
	require(stat(below("out"), &st) == 0 && st.st_nlink == 2, "nothing outside of the tree is made");
	nftw(f.base, uproot_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Messages */

static struct slot *writing;
static size_t at;

static void tx(const void *p, size_t n)
{
	if (at + n > TX_MAX)
		return;
	memcpy(writing->tx + at, p, n);
	at += n;
}

static void tx_number(uint64_t v, size_t n)
{
	v = htole64(v);
	tx(&v, n);
}

static void tx_name(void)
{
	static const char *const names[] = {"f", "d", "g", "l", "a", "p", "n", "m", "..", "", "d/g", "secret",
		"user.x", "system.posix_acl_access", ".virtfs_metadata", "user.virtfs.mode"};
	uint8_t which = input_u8(&f.in);
	const char *name = names[which % ARRAY_SIZE(names)];

	tx_number(strlen(name) + (which == 255), 2);
	tx(name, strlen(name));
}

/* Small, or anything. */
static uint64_t number(void)
{
	uint8_t v = input_u8(&f.in);

	return v < 250 ? v : v == 250 ? UINT64_MAX : v == 251 ? INT64_MAX : input_u64(&f.in);
}

/* What is behind the header, by type: f a fid, s a name, w names of a walk, d data with its length, else bytes of a number */
static const char *const forms[LAST_TYPE / 2 + 1] = {[4] = "f",
	[6] = "f4",
	[7] = "fs444",
	[8] = "fss4",
	[9] = "fs4444",
	[10] = "ffs",
	[11] = "f",
	[12] = "f8",
	[13] = "f444488888",
	[15] = "ffs",
	[16] = "fs84",
	[20] = "f84",
	[25] = "f4",
	[26] = "f14884s",
	[27] = "f1884s",
	[35] = "ffs",
	[36] = "fs44",
	[37] = "fsfs",
	[38] = "fs4",
	[50] = "4s",
	[51] = "fss4",
	[52] = "f4ss4",
	[54] = "2",
	[55] = "ffw",
	[56] = "f1",
	[57] = "fs41s",
	[58] = "f84",
	[59] = "f8d",
	[60] = "f",
	[61] = "f",
	[62] = "f",
	[63] = "f222444444448ssss444"};

static void fields(const char *form)
{
	for (; form && *form; form++) {
		unsigned n;

		switch (*form) {
		case 'f':
			tx_number(input_u8(&f.in) % 10, 4);
			break;
		case 's':
			tx_name();
			break;
		case 'w':
			n = input_u8(&f.in) % 5;
			tx_number(n, 2);
			while (n--)
				tx_name();
			break;
		case 'd':
			n = input_u8(&f.in);
			tx_number(n, 4);
			tx(writing->rx, n);
			break;
		default:
			tx_number(number(), (size_t)(*form - '0'));
		}
	}
}

static void send(uint8_t type)
{
	unsigned i, cut, room;

	for (i = 0; i < SLOTS && f.slot[i].out_now; i++)
		;
	if (i == SLOTS)
		return;
	writing = &f.slot[i];
	at = 4;
	tx_number(type, 1);
	tx_number(i, 2);
	fields(forms[type / 2 % ARRAY_SIZE(forms)]);
	cut = input_u8(&f.in);
	room = cut % 16 ? RX_MAX : input_u8(&f.in);
	if (cut < 16)
		at = MIN(at, cut);
	tx_number(0, 0);
	*(uint32_t *)(void *)writing->tx = htole32((uint32_t)at + (cut == 255));
	memset(writing->rx, 0, RX_MAX);
	writing->out[0] = (struct iovec){writing->tx, MIN(at, 9u)};
	writing->out[1] = (struct iovec){writing->tx + MIN(at, 9u), at - MIN(at, 9u)};
	writing->in[0] = (struct iovec){writing->rx, MIN(room, 11u)};
	writing->in[1] = (struct iovec){writing->rx + MIN(room, 11u), room - MIN(room, 11u)};
	cursor_init(&writing->e.rd, writing->out, 2);
	cursor_init(&writing->e.wr, writing->in, 2);
	f.ready = writing;
	p9_ready(&f.b, &f.q);
}

static void session(bool old)
{
	static const char *const names[] = {"9P2000.L", "9P2000.u"};
	const char *name = names[old];

	writing = &f.slot[0];
	at = 4;
	tx_number(TVERSION, 1);
	tx_number(0xffff, 2);
	tx_number(P9_MIN_MSIZE, 4);
	tx_number(strlen(name), 2);
	tx(name, strlen(name));
	*(uint32_t *)(void *)writing->tx = htole32((uint32_t)at);
	writing->out[0] = (struct iovec){writing->tx, at};
	writing->in[0] = (struct iovec){writing->rx, RX_MAX};
	cursor_init(&writing->e.rd, writing->out, 1);
	cursor_init(&writing->e.wr, writing->in, 1);
	f.ready = writing;
	p9_ready(&f.b, &f.q);
}

static bool some_out(void)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (f.slot[i].out_now)
			return true;
	}
	return false;
}

static void stop(void)
{
	f.q.running = false;
	p9_stop(&f.b, &f.q);
	while (run_job(0))
		;
	require(!some_out(), "all requests come back");
	f.ready = NULL;
}

/* What another process says that a guest had: files that are there, also outside, by ways of all kinds. */
static void forge_fid(int fd)
{
	static const char *const ways[] = {"", "f", "d", "d/g", "p", "l", "a", "../out/secret", "l/secret",
		"d/../../out/secret", "/dev/null", "..", "out/secret", "d/.", "root/f"};
	const char *way = ways[input_u8(&f.in) % ARRAY_SIZE(ways)],
		   *name = input_u8(&f.in) & 1 ? "user.x" : "";
	char path[256], data[16] = "";
	struct stat st = {0};
	struct saved_fid v = {.uid = htole32(P9_NOUID),
		.path_size = htole32((uint32_t)strlen(way)),
		.name_size = htole32((uint32_t)strlen(name))};
	bool value;

	v.id = htole32(input_u8(&f.in) % 10);
	v.kind = htole32(input_u8(&f.in) % 7);
	v.flags = htole32(input_u8(&f.in));
	v.gone = htole32(input_u8(&f.in) == 255);
	v.dir_start = htole64(number());
	v.data_size = htole32(input_u8(&f.in) % sizeof(data));
	v.data_done = htole32(input_u8(&f.in) % sizeof(data));
	v.data_flags = htole32(input_u8(&f.in) % 3);
	value = le32toh(v.kind) == P9_XATTR_GET || le32toh(v.kind) == P9_XATTR_SET;
	snprintf(path, sizeof(path), "%s/%s", below("root"), way);
	if (stat(path, &st) == 0 || lstat(path, &st) == 0)
		v.ino = htole64(st.st_ino);
	if (write(fd, &v, sizeof(v)) != sizeof(v) || dprintf(fd, "%s%s", way, value ? name : "") < 0 ||
		(value && write(fd, data, le32toh(v.data_size)) < 0))
		abort();
}

static void forge_state(void)
{
	int fd = memfd_create("state", MFD_CLOEXEC);
	unsigned n = input_u8(&f.in) % 6;
	struct saved_head head = {.magic = STATE_MAGIC,
		.dialect = htole32(input_u8(&f.in) & 1 ? P9_2000L : P9_2000U),
		.msize = htole32(P9_MIN_MSIZE),
		.fids = htole32(n)};

	require(fd >= 0 && write(fd, &head, sizeof(head)) == sizeof(head), "a file in memory");
	while (n--)
		forge_fid(fd);
	lseek(fd, 0, SEEK_SET);
	p9_state_load(&f.b, fd);
	close(fd);
}

static void next_step(void)
{
	uint8_t what = input_u8(&f.in);

	if (what < STEP_RUN) {
		send((uint8_t)(what < 126 ? what / 2 * 2 : (what - 126) / 8 * 2 + 108));
	} else if (what < STEP_LOCKS) {
		run_job(what % 4);
	} else if (what < STEP_STOP) {
		if (f.s.locks)
			f.s.lock_timer.expired(&f.s.lock_timer);
	} else {
		stop();
		if (what == STEP_FORGE)
			forge_state();
		else if (what >= STEP_MOVE && what < STEP_RESET)
			move_state(&f.b, &f.in);
		if (what >= STEP_RESET) {
			p9_reset(&f.b);
			f.q.running = true;
			session(what & 1);
		}
		f.q.running = true;
	}
}

static void set_up(uint8_t how)
{
	static struct loop *loop;
	static char root[80];

	if (!loop)
		require(loop_new(&loop, "fuzz") == 0, "there is a loop");
	plant();
	snprintf(root, sizeof(root), "%s/root", f.base);
	f.s = (struct p9){.path = root,
		.tag = "t",
		.read_only = (how & 0x70) == 0x70,
		.max_msize = P9_MAX_MSIZE,
		.security = how % 4,
		.threads = 1,
		.max_fids = 16,
		.max_files = 16,
		.squash = (how + 1) & 2 ? 0 : how >> 2 & 1};
	f.b = (struct backend){.dev = &device_9p, .state = &f.s, .config = f.config, .loop = loop};
	require(p9_open(&f.b) == 0, "the device opens");
	f.q.running = true;
	p9_start(&f.b, &f.q);
	session(how & 0x80);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	f.in = (struct input){data, data + size};
	log_set_level(LOG_LEVEL_ERROR);
	set_up(input_u8(&f.in));
	for (unsigned i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		next_step();
	stop();
	p9_reset(&f.b);
	p9_close(&f.b);
	require(f.s.nfids == 0 && f.s.nfiles == 0 && f.s.nowners == 0 && f.s.xattr_memory == 0 &&
			f.s.ngiven == 0,
		"nothing is left");
	uproot();
	return 0;
}

/* A guest of each model and dialect that does a little of all. */

static void seed_message(struct seed *s, uint8_t type, const char *bytes, size_t n)
{
	seed_u8(s, type);
	seed_put(s, bytes, n);
	seed_u8(s, 17); /* all of it, and room for the answer */
	seed_u8(s, STEP_RUN);
	seed_u8(s, STEP_RUN);
}

#define MESSAGE(s, type, bytes) seed_message(s, type, bytes, sizeof(bytes) - 1)

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const char *const names[] = {"passthrough", "mapped-xattr", "mapped-file", "none",
		"old passthrough", "old mapped-xattr", "old mapped-file", "old none"};

	for (unsigned how = 0; how < ARRAY_SIZE(names); how++) {
		struct seed s = {.n = 0};

		seed_u8(&s, (uint8_t)((how & 3) | (how & 4 ? 0x80 : 0)));
		for (uint8_t way = 0; way < 15; way++) {
			seed_u8(&s, STEP_FORGE);
			seed_put(&s, "\1\1", 2);
			seed_u8(&s, way);
			seed_put(&s, way == 1 ? "\0\0\2\2\0\0" : "\0\0\1\0\0\0", 6);
			seed_put(&s, "\0\0\0", 3);
			MESSAGE(&s, 12, "\0\0");
			MESSAGE(&s, 116, "\0\0\144");
		}
		seed_u8(&s, how & 4 ? STEP_RESET : STEP_RESET + 1); /* a session of that dialect */
		MESSAGE(&s, 104, "\0\372\6\11\0");		    /* attach fid 0 */
		MESSAGE(&s, 110, "\0\1\1\0");			    /* walk to f */
		MESSAGE(&s, 110, "\0\2\0");			    /* clone */
		MESSAGE(&s, 24, "\1\0");			    /* getattr */
		MESSAGE(&s, 12, "\1\2");			    /* open */
		MESSAGE(&s, 112, "\1\2");			    /* open, old */
		MESSAGE(&s, 118, "\1\1\5");			    /* write */
		MESSAGE(&s, 116, "\1\0\144");			    /* read */
		MESSAGE(&s, 14, "\2\6\2\200\0");		    /* create n */
		MESSAGE(&s, 114, "\2\6\200\2\6");		    /* create n, old */
		MESSAGE(&s, 110, "\0\3\0");			    /* clone */
		MESSAGE(&s, 12, "\3\0");			    /* open the directory */
		MESSAGE(&s, 112, "\3\0");			    /* old */
		MESSAGE(&s, 40, "\3\0\310");			    /* readdir */
		MESSAGE(&s, 116, "\3\0\310");			    /* old */
		MESSAGE(&s, 52, "\1\1\1\0\1\1\0");		    /* lock */
		MESSAGE(&s, 110, "\0\4\1\0");			    /* walk to f */
		MESSAGE(&s, 12, "\4\2");			    /* open */
		MESSAGE(&s, 52, "\4\1\1\0\1\2\0");		    /* lock, waits */
		seed_u8(&s, STEP_LOCKS);
		MESSAGE(&s, 54, "\4\1\0\1\2\0"); /* getlock */
		MESSAGE(&s, 108, "\0");		 /* flush */
		MESSAGE(&s, 120, "\1");		 /* clunk */
		seed_u8(&s, STEP_LOCKS);
		MESSAGE(&s, 72, "\0\7\144\0");		    /* mkdir m */
		MESSAGE(&s, 16, "\0\14\3\0");		    /* symlink */
		MESSAGE(&s, 18, "\0\13\144\1\3\0");	    /* mknod */
		MESSAGE(&s, 74, "\0\7\0\1");		    /* rename m over d */
		MESSAGE(&s, 30, "\0\5\14");		    /* xattrwalk */
		MESSAGE(&s, 110, "\0\6\1\0");		    /* walk to f */
		MESSAGE(&s, 32, "\6\14\5\0");		    /* xattrcreate */
		MESSAGE(&s, 118, "\6\0\5");		    /* its value */
		MESSAGE(&s, 120, "\6");			    /* set */
		MESSAGE(&s, 70, "\0\4\13");		    /* link */
		MESSAGE(&s, 20, "\4\0\7");		    /* rename by fid */
		MESSAGE(&s, 26, "\4\17\144\1\1\4\0\0\0\0"); /* setattr */
		MESSAGE(&s, 50, "\4\0");		    /* fsync */
		MESSAGE(&s, 8, "\0");			    /* statfs */
		MESSAGE(&s, 110, "\0\7\1\3");		    /* walk to the link */
		MESSAGE(&s, 22, "\7");			    /* readlink */
		MESSAGE(&s, 124, "\7");			    /* stat */
		MESSAGE(&s, 76, "\0\6\0");		    /* unlink */
		MESSAGE(&s, 122, "\4");			    /* remove */
		seed_u8(&s, STEP_STOP);
		seed_u8(&s, STEP_MOVE);
		seed_u8(&s, 0);
		MESSAGE(&s, 116, "\3\0\310"); /* the directory, as it is now */
		seed_u8(&s, STEP_RESET);
		emit(names[how], s.bytes, s.n);
	}
}
