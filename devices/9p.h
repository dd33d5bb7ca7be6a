/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the 9p device share. Who may touch what:
 *
 * - the table of fids, reference counts, the lists of descriptors, tags: only the loop;
 * - what a fid holds (kind, descriptors, lock owners …): the requests that have the fid, one at a time where they change
 *   it (struct p9_op.exclusive), so that it may be read and changed in a pool thread without a lock;
 * - options, the root, the dialect: do not change while requests run.
 */
#ifndef DEVICES_9P_H
#define DEVICES_9P_H

#include <limits.h>
#include <linux/limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "device.h"
#include "pool.h"

enum {
	P9_HEADER = 7, /* bytes: size[4] type[1] tag[2] */
	P9_ERROR =
		P9_HEADER + 4, /* of the smallest answer that every request must have room for; .u: 2 more */
	P9_MIN_MSIZE = 4096,
	P9_MAX_MSIZE = 1 << 20,
	P9_MAX_NAMES = 16, /* in a walk */
	P9_MAX_XATTR = 65536,
	P9_MAX_XATTR_MEMORY = 16 << 20, /* in all fids */
	P9_MAX_OWNERS = 1024,		/* of locks, in all fids */
	P9_QID = 13,			/* bytes */
	P9_TAGS = 65536,
	P9_MOUNTS = 16,
};

#define P9_NOFID UINT32_MAX
#define P9_NOUID UINT32_MAX

/* What an operation returns besides 0 and -errno. */
enum {
	P9_LATER = 1,	  /* it would block here: again in a pool thread */
	P9_WAIT = 2,	  /* a lock that somebody else has: again later */
	P9_CANCELLED = 3, /* not done, and not answered */
	P9_AWAY = 4,	  /* it comes to a file system that may ask others: again in the pool for these */
};

enum p9_dialect { P9_NONE, P9_2000U, P9_2000L };
enum p9_security { P9_PASSTHROUGH, P9_MAPPED_XATTR, P9_MAPPED_FILE, P9_SECURITY_NONE };
enum p9_squash { P9_SQUASH_NONE, P9_SQUASH_ROOT, P9_SQUASH_ALL };

struct p9_range { /* of ids: --map-uid, --map-gid */
	uint32_t guest, host, count;
};

enum { P9_RANGES = 16 };

struct p9_ids {
	struct p9_range range[P9_RANGES];
	unsigned n;
};

/* A file of the host: an O_PATH descriptor, shared by the fids that were cloned from each other. */
struct p9_node {
	int fd;	       /* -1: given back; path says where to find it again */
	unsigned refs; /* fids, and requests on their way to a fid */
	unsigned pins; /* requests that use fd now, and open fids: fd stays */
	mode_t type;   /* S_IFMT of the host's file */
	dev_t dev;
	ino_t ino;
	char *path; /* below the root, while fd is -1 */
	bool listed;
	struct p9_node *newer, *older; /* the nodes with a descriptor, by their last use */
};

enum p9_kind {
	P9_NEW,	 /* its first request is under way */
	P9_PATH, /* not open */
	P9_FILE,
	P9_DIR,
	P9_XATTR_GET,
	P9_XATTR_SET, /* set when the fid is clunked */
};

struct p9_xattr {
	uint64_t size, done;
	int flags;
	char name[XATTR_NAME_MAX + 1];
	uint8_t data[];
};

struct p9_owner; /* of locks: 9p-lock.c */
struct p9_request;

struct p9_fid {
	uint32_t id;
	enum p9_kind kind;
	struct p9_node *node; /* NULL only while it is P9_NEW */
	uint32_t uid;	      /* the guest's user who attached, P9_NOUID: not said */
	int fd; /* for reading and writing; -1: not open, or given back (flags say how to open it again) */
	int flags;
	bool blind_read, blind_write; /* the file system cannot tell that it would have to wait */
	bool remote;		      /* and who knows whom it would wait for */
	uint64_t dir_at;	      /* where the directory's descriptor stands; UINT64_MAX: somewhere */
	uint64_t dir_start;	      /* .u: the cookie where the next read goes on */
	uint64_t dir_bytes;	      /* .u: its offset */
	struct p9_xattr *xattr;
	struct p9_owner *owners;

	unsigned users;
	bool exclusive;
	struct p9_request *waiting, **waiting_tail;
	struct p9_fid *next; /* of its hash chain */
	bool pinned;	     /* it is open, and keeps the node's descriptor */
	bool listed;
	struct p9_fid *newer, *older; /* the fids with a descriptor, by their last use */
};

struct p9_op {
	const char *name;
	int (*run)(struct p9_request *r);
	uint8_t fids;	   /* that the request names, at its start: 0, 1 or 2 */
	bool second_later; /* the second comes behind a string */
	bool creates;	   /* the second one is new */
	bool exclusive;	   /* changes the fid */
	bool changes;	   /* changes the tree: not in one that is read-only */
	bool quick;	   /* is tried in the loop first */
	uint8_t dialects;  /* bit set of enum p9_dialect */
};

struct p9_request { /* in element->req */
	struct job job;
	struct p9 *s;
	struct element *e;
	const struct p9_op *op;
	struct cursor in;   /* behind the fids */
	struct cursor body; /* of the answer */
	uint32_t id[2];
	struct p9_fid *fid[2]; /* that it has */
	struct p9_fid *newfid;
	struct p9_node *made; /* for newfid, or in place of fid[0]'s */
	int result;
	uint16_t tag;
	uint8_t type;
	bool quick;		    /* runs in the loop: must not block */
	bool away;		    /* runs in the pool of that name, if not in the loop */
	bool cancelled;		    /* atomic: by a flush */
	bool lock_waits;	    /* a lock may wait: else it is answered */
	bool unlocked;		    /* a lock was given back */
	bool ends_node;		    /* a clunk of the only fid that has the node */
	bool in_names;		    /* a walk with names: not a clone */
	bool partial;		    /* a walk that did not come to its end */
	char *renamed[2];	    /* a path before and after, for the nodes without a descriptor */
	struct p9_request *next;    /* of those who wait for a fid, for a lock, or are runnable */
	struct p9_request *flushes; /* that wait for this one */
};

struct p9_mount { /* a file system below the root that has no disk of its own */
	dev_t dev;
	bool asks; /* another machine or process, for all we know */
};

struct p9 {
	/* options */
	const char *path, *tag;
	bool read_only;
	uint64_t max_msize;
	enum p9_security security;
	enum p9_squash squash;
	uint32_t anon_uid, anon_gid, threads, max_fids, max_files;
	uint32_t fmode, dmode; /* of the host's files where the guest's mode is kept elsewhere */
	struct p9_ids uids, gids;

	struct backend *b;
	struct pool *pool,
		*away; /* away: for what p9_asks_others(), so that it holds up nobody else; NULL: not needed yet */
	struct p9_node *root;
	bool remote; /* the file system may ask another machine at any time: nothing is quick */

	/* the session */
	enum p9_dialect dialect;
	uint32_t msize;
	unsigned inflight;
	struct p9_request **tags;
	struct p9_request *version; /* waits until nothing else is in flight */
	struct p9_request *runnable, **runnable_tail;
	struct p9_request *locks, **locks_tail; /* that wait, in the order they came */
	struct timer lock_timer;
	uint64_t lock_delay; /* ns */
	unsigned slow;	     /* transfers in the loop that took long, one after the other */
	uint64_t slow_until; /* ns: transfers that may wait go to the pool */
	struct virtqueue *q;

	/* fids and descriptors */
	struct p9_fid **table;
	unsigned table_size, nfids;
	struct p9_node *newest, *oldest;
	struct p9_fid *newest_open, *oldest_open;
	unsigned nfiles;     /* descriptors in the two lists */
	unsigned ngiven;     /* atomic: nodes that gave their descriptor back */
	unsigned nowners;    /* atomic */
	size_t xattr_memory; /* atomic */

	pthread_mutex_t devices_lock; /* of the table of mounts behind qids */
	dev_t *devices;
	unsigned ndevices;
	struct p9_mount mounts[P9_MOUNTS]; /* set before they are counted */
	unsigned nmounts;		   /* atomic */
};

/* 9p-message.c: numbers and strings of the protocol. A short message gives zeros and makes the cursor `bad`. */
uint8_t p9_get_u8(struct cursor *c);
uint16_t p9_get_u16(struct cursor *c);
uint32_t p9_get_u32(struct cursor *c);
uint64_t p9_get_u64(struct cursor *c);
/* A string of at most size - 1 bytes without NUL. 0, -EINVAL, -ENAMETOOLONG. */
int p9_get_string(struct cursor *c, char *to, size_t size);
/* A name in a directory: one that may be given to the host. */
int p9_get_name(const struct p9 *s, struct cursor *c, char name[NAME_MAX + 1]);
int p9_check_name(const struct p9 *s, const char *name);
/* Is it, or is part of that path, where we keep what the host's file system has no place for? */
bool p9_name_hidden(const struct p9 *s, const char *name);
bool p9_path_hidden(const struct p9 *s, const char *path);
void p9_put_u8(struct cursor *c, uint8_t v);
void p9_put_u16(struct cursor *c, uint16_t v);
void p9_put_u32(struct cursor *c, uint32_t v);
void p9_put_u64(struct cursor *c, uint64_t v);
void p9_put_string(struct cursor *c, const char *text);

struct p9_qid {
	uint8_t type;
	uint32_t version;
	uint64_t path;
};
void p9_put_qid(struct cursor *c, const struct p9_qid *q);

/* 9p-attr.c: one with room for so many bytes. 0, -ENOSPC (in all fids), -ENOMEM. */
int p9_xattr_new(struct p9 *s, uint64_t size, struct p9_xattr **out);

/* 9p-state.c */
int p9_state_save(struct backend *b, int fd);
int p9_state_load(struct backend *b, int fd);

/* 9p-fid.c: the loop's */
struct p9_fid *p9_fid_find(struct p9 *s, uint32_t id);
/* A fid of kind P9_NEW. -EEXIST (the id is in use), -EMFILE, -ENOMEM. */
int p9_fid_new(struct p9 *s, uint32_t id, struct p9_fid **out);
/* Takes it from the table, closes and frees all that it has. True: locks went with it. */
bool p9_fid_free(struct p9 *s, struct p9_fid *f);
void p9_fid_free_all(struct p9 *s);
/* The descriptors of a fid about to be used: opened again where they were given back. 0 or -errno. */
int p9_fid_use(struct p9 *s, struct p9_fid *f);
void p9_fid_unuse(struct p9 *s, struct p9_fid *f);
/* After a request that may have opened it, or given it another node. */
void p9_fid_settle(struct p9 *s, struct p9_fid *f);
/* Gives descriptors back until fewer than max_files are open, as far as that goes. */
int p9_files_trim(struct p9 *s);
/* Somebody renamed a file through us: nodes that gave their descriptor back are found at their new place. */
void p9_nodes_renamed(struct p9 *s, const char *from, const char *to);

/* Any thread: takes fd over, also on failure. */
int p9_node_new(struct p9_node **out, int fd, const struct statx *st);
/* Loop: one whose file is not to be found any more. */
int p9_node_gone(struct p9 *s, struct p9_node **out);
struct p9_node *p9_node_ref(struct p9_node *n);	     /* loop */
void p9_node_unref(struct p9 *s, struct p9_node *n); /* loop */

/* 9p-fs.c: the host's files, in any thread */
#define P9_LINK_SIZE 32
/* /proc/self/fd/N: the file itself by another way, whatever its name is now. */
const char *p9_fd_path(char buf[P9_LINK_SIZE], int fd);
/* A name in a directory, O_PATH; never leaves it. flags: RESOLVE_CACHED or 0. */
int p9_lookup(int dir, const char *name, uint64_t flags);
/* A path below a directory, of directories that are not reached by links. */
int p9_lookup_path(int dir, const char *path, int flags);
/* The file that is there below the root, O_PATH, if it is this one: else -ESTALE. */
int p9_lookup_same(const struct p9 *s, const char *path, dev_t dev, uint64_t ino);
/* Makes a regular file and opens it; it must not be there. */
int p9_create(int dir, const char *name, int flags, mode_t mode);
int p9_stat(int fd, struct statx *st);
/* As far as this kernel knows: other machines are not asked. */
int p9_stat_known(int fd, struct statx *st);
/* Does a file system wait for nothing but our own disks, if for anything? Not so FUSE, networks, and much of /proc. */
bool p9_fs_is_local(int fd);
/*
 * May it have to ask another machine or process, for all we know? It is mounted below the root, and has no disk of its own.
 * Then nothing is quick. In the pool we learn what it is.
 */
bool p9_asks_others(const struct p9 *s, dev_t dev);
void p9_learn_mount(struct p9 *s, int fd, dev_t dev);
int p9_reopen(int fd, int flags);
/* The directory that a file is in, and its name there. A descriptor, -EBUSY (the root), -ENOENT, -ESTALE. */
int p9_parent(const struct p9 *s, int fd, char name[NAME_MAX + 1]);
/* Where a file is below the root; empty: the root itself. */
int p9_where(const struct p9 *s, int fd, char path[PATH_MAX]);
void p9_qid_of(struct p9 *s, const struct statx *st, struct p9_qid *q);
uint64_t p9_qid_path(struct p9 *s, dev_t dev, uint64_t ino);
/* Once in a thread that makes files: its own umask, 0. */
void p9_own_umask(void);

/* 9p-map.c: owners, modes and kinds of files as the guest has them */
bool p9_mapped(const struct p9 *s);
uint32_t p9_to_host(const struct p9 *s, const struct p9_ids *ids, uint32_t id);
/* What the guest has in place of *st. dir, name: where the file is, if that is known, else -1. */
void p9_map_stat(const struct p9 *s, int fd, int dir, const char *name, struct statx *st);
struct p9_made {
	uint32_t uid, gid; /* the guest's; P9_NOUID: the host's */
	uint32_t mode;	   /* with its kind */
	uint64_t rdev;
};
/* The host's mode of a new file. */
mode_t p9_map_mode(const struct p9 *s, uint32_t mode);
/* A file was made: gives it owner and mode. */
int p9_map_made(const struct p9 *s, int fd, int dir, const char *name, const struct p9_made *m);
int p9_map_chmod(const struct p9 *s, int fd, uint32_t mode);
int p9_map_chown(const struct p9 *s, int fd, uint32_t uid, uint32_t gid);
/* What goes along with a change of names. */
void p9_map_unlinked(const struct p9 *s, int dir, const char *name);
void p9_map_linked(const struct p9 *s, int from, int dir, const char *name);
void p9_map_renamed(const struct p9 *s, int from, const char *old, int to, const char *new);
void p9_map_rmdir(const struct p9 *s, int dir, const char *name);
/* The name of an extended attribute on the host; -EACCES: it is not the guest's. */
int p9_map_xattr(const struct p9 *s, const char *name, char host[XATTR_NAME_MAX + 1]);
/* Names as the guest has them, in place; returns the new size. */
size_t p9_map_xattr_list(const struct p9 *s, char *list, size_t size);

/* What several of the operations do. */
/* The answer to all that opens. */
void p9_put_opened(struct p9_request *r, const struct statx *st);
int p9_open_check(const struct p9 *s, int flags);
int p9_fid_open(struct p9_request *r, int flags, struct statx *st);
int p9_fid_create(struct p9_request *r, const char *name, int flags, bool excl, uint32_t mode, uint32_t gid,
	struct statx *st);
int p9_make_dir(struct p9_request *r, const char *name, uint32_t mode, uint32_t gid, struct p9_qid *q);
int p9_make_link(struct p9_request *r, const char *name, const char *target, uint32_t gid, struct p9_qid *q);
int p9_make_node(
	struct p9_request *r, const char *name, uint32_t mode, dev_t dev, uint32_t gid, struct p9_qid *q);
int p9_link_file(struct p9_request *r, const struct p9_fid *file, const char *name);
int p9_rename_file(struct p9_request *r, int dir, const char *name);
/* The target of a link that is a file of the host; -EINVAL: it is none. */
ssize_t p9_stand_in_target(const struct p9 *s, int path, char target[PATH_MAX]);
int p9_set_size(const struct p9_fid *f, uint64_t size);
int p9_set_times(const struct p9_node *n, const struct timespec t[2]);
/* Calls each for the entries from offset on, with the offset behind it, until it returns other than 0, which is then the
 * value; 0: no more. count: about how many bytes are wanted. */
typedef int p9_each_entry(
	struct p9_request *r, const char *name, uint64_t ino, uint8_t type, uint64_t next, void *arg);
int p9_read_dir(struct p9_request *r, uint64_t offset, size_t count, p9_each_entry *each, void *arg);
int p9_read_dir_stats(struct p9_request *r, uint64_t at, uint32_t count);
uint32_t p9_link_fid(struct cursor *c);

/* 9p-lock.c */
void p9_owners_free(struct p9 *s, struct p9_fid *f);

/* 9p-request.c */
void p9_requests_init(struct p9 *s);
/* Takes what is in the queue. */
void p9_requests_take(struct p9 *s, struct virtqueue *q);
/* The queue stops: nobody goes on waiting for a lock. */
void p9_requests_stop(struct p9 *s);
/* Forgets the guest's fids. No request runs. */
void p9_session_end(struct p9 *s);

/* The operations. */
int p9_op_attach(struct p9_request *r);
int p9_op_walk(struct p9_request *r);
int p9_op_lopen(struct p9_request *r);
int p9_op_lcreate(struct p9_request *r);
int p9_op_read(struct p9_request *r);
int p9_op_write(struct p9_request *r);
int p9_op_clunk(struct p9_request *r);
int p9_op_remove(struct p9_request *r);
int p9_op_symlink(struct p9_request *r);
int p9_op_mknod(struct p9_request *r);
int p9_op_mkdir(struct p9_request *r);
int p9_op_rename(struct p9_request *r);
int p9_op_renameat(struct p9_request *r);
int p9_op_unlinkat(struct p9_request *r);
int p9_op_link(struct p9_request *r);
int p9_op_readlink(struct p9_request *r);
int p9_op_fsync(struct p9_request *r);
int p9_op_statfs(struct p9_request *r);
int p9_op_getattr(struct p9_request *r);
int p9_op_setattr(struct p9_request *r);
int p9_op_xattrwalk(struct p9_request *r);
int p9_op_xattrcreate(struct p9_request *r);
int p9_op_readdir(struct p9_request *r);
int p9_op_lock(struct p9_request *r);
int p9_op_getlock(struct p9_request *r);
int p9_op_open(struct p9_request *r);
int p9_op_create(struct p9_request *r);
int p9_op_stat(struct p9_request *r);
int p9_op_wstat(struct p9_request *r);
int p9_op_auth(struct p9_request *r);

#endif
