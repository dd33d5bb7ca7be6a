/* SPDX-License-Identifier: MIT */
/*
 * A 9P client over a queue of the front-end in user space. A message is built with the put functions between client_begin()
 * and client_call(); the answer is read with the get functions.
 */
#ifndef TESTS_9P_CLIENT_H
#define TESTS_9P_CLIENT_H

#include "frontend.h"

enum {
	RLERROR = 7,
	TSTATFS = 8,
	TLOPEN = 12,
	TLCREATE = 14,
	TSYMLINK = 16,
	TMKNOD = 18,
	TRENAME = 20,
	TREADLINK = 22,
	TGETATTR = 24,
	TSETATTR = 26,
	TXATTRWALK = 30,
	TXATTRCREATE = 32,
	TREADDIR = 40,
	TFSYNC = 50,
	TLOCK = 52,
	TGETLOCK = 54,
	TLINK = 70,
	TMKDIR = 72,
	TRENAMEAT = 74,
	TUNLINKAT = 76,
	TVERSION = 100,
	TAUTH = 102,
	TATTACH = 104,
	RERROR = 107,
	TFLUSH = 108,
	TWALK = 110,
	TOPEN = 112,
	TCREATE = 114,
	TREAD = 116,
	TWRITE = 118,
	TCLUNK = 120,
	TREMOVE = 122,
	TSTAT = 124,
	TWSTAT = 126,
};

enum { CLIENT_SLOTS = 16 };

struct message {	  /* one that is built or in flight, and its answer */
	uint8_t *tx, *rx; /* guest memory */
	size_t n, at;	  /* bytes built; bytes read of the answer */
	uint32_t answer;  /* bytes of the answer: the used length */
	uint16_t tag;
	bool done;
};

struct client {
	struct fe fe;
	struct fe_queue *q;
	uint32_t msize, room; /* room: bytes offered for the answer */
	struct message m[CLIENT_SLOTS], *cur;
	int error; /* of the last answer */
};

/* Starts the program for dir, negotiates 9P2000.L with this msize, attaches fid 0. args: more options, or NULL. */
void client_start(
	struct client *c, const struct fe_mode *m, const char *dir, uint32_t msize, const char *const *args);
/* Version and attach once more; dialect: "9P2000.L". */
void client_session(struct client *c, const char *dialect);
/* The same client in another process, which has that device state: no session is begun. False: it could not be loaded. */
bool client_arrive(struct client *c, const struct fe_mode *m, const char *dir, uint32_t msize,
	const char *const *args, const void *state, size_t n);
void client_end(struct client *c);

/* Slot 0 unless client_use() said otherwise. The tag is the slot's number. */
void client_use(struct client *c, unsigned slot);
void client_begin(struct client *c, uint8_t type);
void put_u8(struct client *c, uint8_t v);
void put_u16(struct client *c, uint16_t v);
void put_u32(struct client *c, uint32_t v);
void put_u64(struct client *c, uint64_t v);
void put_str(struct client *c, const char *text);
void put_bytes(struct client *c, const void *data, size_t n);
/* Sends the message without waiting. client_wait(): until the slot's answer is there. */
void client_send(struct client *c);
bool client_poll(struct client *c, unsigned slot, int ms);
/* 0 or -errno, as the answer says. An answer of length 0: 1. */
int client_wait(struct client *c, unsigned slot);
int client_call(struct client *c);
uint8_t get_u8(struct client *c);
uint16_t get_u16(struct client *c);
uint32_t get_u32(struct client *c);
uint64_t get_u64(struct client *c);
void get_bytes(struct client *c, void *to, size_t n);
char *get_str(struct client *c); /* to be freed */

/* Whole requests; 0, a count, or -errno. path: names separated by '/'. */
int c_walk(struct client *c, uint32_t fid, uint32_t newfid, const char *path);
int c_open(struct client *c, uint32_t fid, uint32_t flags);
int c_create(struct client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode);
int c_read(struct client *c, uint32_t fid, uint64_t at, void *to, uint32_t n);
int c_write(struct client *c, uint32_t fid, uint64_t at, const void *data, uint32_t n);
int c_clunk(struct client *c, uint32_t fid);
int c_mkdir(struct client *c, uint32_t dir, const char *name, uint32_t mode);
int c_unlink(struct client *c, uint32_t dir, const char *name, uint32_t flags);
int c_rename(struct client *c, uint32_t dir, const char *name, uint32_t to, const char *new);
struct attr {
	uint8_t type;
	uint32_t version, mode, uid, gid;
	uint64_t path, nlink, rdev, size;
};
int c_getattr(struct client *c, uint32_t fid, struct attr *a);
/* type 0 read, 1 write, 2 unlock; the value is the status, or -errno */
int c_lock(struct client *c, uint32_t fid, uint8_t type, uint32_t flags, uint64_t start, uint64_t len,
	uint32_t pid);

#endif
