/* SPDX-License-Identifier: MIT */
/*
 * 9P transport device (virtio 1.2, device id 9): one queue of T-messages with room for their R-messages, and a folder of
 * the host behind it. Dialects 9P2000.L and 9P2000.u. Here are its options and its life; requests are in 9p-request.c.
 */
#include "9p.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/virtio_9p.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>

enum {
	CONFIG_SIZE = 256,
	TAG_MAX = CONFIG_SIZE - 2,
};

static struct p9 *p9_of(struct backend *b)
{
	return b->state;
}

static void p9_ready(struct backend *b, struct virtqueue *q)
{
	p9_requests_take(p9_of(b), q);
}

static int p9_start(struct backend *b, struct virtqueue *q)
{
	p9_of(b)->q = q;
	return 0;
}

/* Locks that wait are answered that they are not to be had now: the guest asks again. */
static void p9_stop(struct backend *b, struct virtqueue *q)
{
	(void)q;
	p9_requests_stop(p9_of(b));
}

static void p9_reset(struct backend *b)
{
	p9_session_end(p9_of(b));
}

/* Options */

static const char *parse_mode(const char *value, uint32_t *mode)
{
	char *end;
	unsigned long v = strtoul(value, &end, 8);

	if (*value == '\0' || *value == '-' || *end || v > 0777)
		return "not a mode: octal, at most 0777";
	*mode = (uint32_t)v;
	return NULL;
}

static const char *parse_fmode(void *base, const char *value)
{
	return parse_mode(value, &((struct p9 *)base)->fmode);
}

static const char *parse_dmode(void *base, const char *value)
{
	return parse_mode(value, &((struct p9 *)base)->dmode);
}

static const char *parse_range(struct p9_ids *ids, const char *value)
{
	unsigned long long guest, host, count;
	struct p9_range *range = &ids->range[ids->n];
	char end;

	if (sscanf(value, "%llu:%llu:%llu%c", &guest, &host, &count, &end) != 3 || strchr(value, '-'))
		return "not of the form GUEST:HOST:COUNT";
	if (count == 0 || count > UINT32_MAX || guest > UINT32_MAX - count || host > UINT32_MAX - count)
		return "out of range";
	if (ids->n == P9_RANGES)
		return "too many";
	*range = (struct p9_range){(uint32_t)guest, (uint32_t)host, (uint32_t)count};
	ids->n++;
	return NULL;
}

static const char *parse_uids(void *base, const char *value)
{
	return parse_range(&((struct p9 *)base)->uids, value);
}

static const char *parse_gids(void *base, const char *value)
{
	return parse_range(&((struct p9 *)base)->gids, value);
}

static const char *const security_names[] = {"passthrough", "mapped-xattr", "mapped-file", "none", NULL};
static const char *const squash_names[] = {"none", "root", "all", NULL};

static const struct option_spec p9_options[] = {
	{"path", OPTION_PATH, OPTION_FIELD(struct p9, path), .required = true, .arg = "DIR",
		.help = "the directory that the guest gets"},
	{"tag", OPTION_STRING, OPTION_FIELD(struct p9, tag), .arg = "NAME", .def = "share",
		.help = "the name that the guest mounts it by"},
	{"read-only", OPTION_FLAG, OPTION_FIELD(struct p9, read_only), .help = "the guest changes nothing"},
	{"security", OPTION_ENUM, OPTION_FIELD(struct p9, security), .choices = security_names, .def = "none",
		.help = "where owners, modes and special files of the guest are kept"},
	{"squash", OPTION_ENUM, OPTION_FIELD(struct p9, squash), .choices = squash_names, .def = "none",
		.help = "whose files shall belong to --anon-uid and --anon-gid"},
	{"anon-uid", OPTION_U32, OPTION_FIELD(struct p9, anon_uid), .def = "65534",
		.help = "owner for those"},
	{"anon-gid", OPTION_U32, OPTION_FIELD(struct p9, anon_gid), .def = "65534",
		.help = "group for those"},
	{"map-uid", OPTION_CALLBACK, .arg = "GUEST:HOST:COUNT", .parse = parse_uids, .no_def = "as they are",
		.help = "a range of user ids of the guest and theirs on the host"},
	{"map-gid", OPTION_CALLBACK, .arg = "GUEST:HOST:COUNT", .parse = parse_gids, .no_def = "as they are",
		.help = "a range of group ids of the guest and theirs on the host"},
	{"fmode", OPTION_CALLBACK, .arg = "MODE", .parse = parse_fmode, .no_def = "0600",
		.help = "the host's mode of files in the mapped models"},
	{"dmode", OPTION_CALLBACK, .arg = "MODE", .parse = parse_dmode, .no_def = "0700",
		.help = "the host's mode of directories in the mapped models"},
	{"msize", OPTION_SIZE, OPTION_FIELD(struct p9, max_msize), .def = "1M", .min = P9_MIN_MSIZE,
		.max = P9_MAX_MSIZE, .help = "the largest message that the guest may ask for"},
	{"threads", OPTION_U32, OPTION_FIELD(struct p9, threads), .def = "16", .min = 1, .max = 256,
		.help = "threads for what has to wait for the disk"},
	{"max-fids", OPTION_U32, OPTION_FIELD(struct p9, max_fids), .def = "262144", .min = 16,
		.max = 1 << 24, .help = "files that the guest may hold on to"},
	{"max-files", OPTION_U32, OPTION_FIELD(struct p9, max_files), .no_def = "by the limit of the process",
		.min = 16, .max = 1 << 24, .help = "descriptors that may be open for that"},
	OPTIONS_END,
};

/* Life */

static int check_options(const struct p9 *s)
{
	if (s->tag[0] == '\0' || strlen(s->tag) > TAG_MAX)
		return log_errno(EINVAL, "--tag=%s: 1 to %d bytes", s->tag, TAG_MAX);
	if (p9_mapped(s) && (s->squash != P9_SQUASH_NONE || s->uids.n || s->gids.n))
		return log_errno(EINVAL, "--security=%s: owners are kept as the guest has them, without %s",
			security_names[s->security],
			s->squash != P9_SQUASH_NONE ? "--squash"
			: s->uids.n		    ? "--map-uid"
						    : "--map-gid");
	if (!p9_mapped(s) && (s->fmode || s->dmode))
		return log_errno(EINVAL, "--%s: only with --security=mapped-xattr and mapped-file",
			s->fmode ? "fmode" : "dmode");
	return 0;
}

/* Leaves room for memory regions, rings and what the operations have open for a moment. */
static void limit_files(struct p9 *s)
{
	struct rlimit limit = {1024, 1024};
	uint32_t usable;

	getrlimit(RLIMIT_NOFILE, &limit);
	usable = (uint32_t)MIN(limit.rlim_cur, (rlim_t)1 << 24);
	usable = usable > 2048 ? usable - 1024 : usable / 2;
	usable = MAX(usable, 16u);
	s->max_files = s->max_files ? MIN(s->max_files, usable) : usable;
}

/* Does it ask other machines, or another process? */
static bool is_remote(int fd)
{
	static const long magic[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
		CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, FUSE_SUPER_MAGIC, V9FS_MAGIC,
		OCFS2_SUPER_MAGIC};
	struct statfs st;

	if (fstatfs(fd, &st) < 0)
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(magic); i++) {
		if ((uint32_t)st.f_type == (uint32_t)magic[i])
			return true;
	}
	return false;
}

static int open_root(struct p9 *s)
{
	int fd = open(s->path, O_PATH | O_DIRECTORY | O_CLOEXEC), test;
	struct statx st;
	int err;

	if (fd < 0)
		return log_errno(errno, "--path=%s", s->path);
	test = p9_lookup_path(fd, "", O_PATH | O_DIRECTORY);
	if (test < 0 || p9_stat(fd, &st) < 0) {
		err = test < 0 ? -test : errno;
		close(fd);
		fd_close(&test);
		return log_errno(
			err, "--path=%s: this kernel cannot keep the guest inside (openat2)", s->path);
	}
	close(test);
	s->remote = is_remote(fd);
	err = p9_node_new(&s->root, fd, &st);
	return err < 0 ? log_errno(err, "--path=%s", s->path) : 0;
}

static void put_tag(struct backend *b)
{
	const char *tag = p9_of(b)->tag;
	uint16_t len = htole16((uint16_t)strlen(tag));

	memcpy(b->config, &len, sizeof(len));
	memcpy(b->config + sizeof(len), tag, strlen(tag));
}

static int p9_open(struct backend *b)
{
	struct p9 *s = p9_of(b);
	int err = check_options(s);

	if (err < 0)
		return err;
	s->b = b;
	s->fmode = s->fmode ? s->fmode : 0600;
	s->dmode = s->dmode ? s->dmode : 0700;
	p9_requests_init(s);
	limit_files(s);
	s->tags = calloc(P9_TAGS, sizeof(struct p9_request *));
	if (!s->tags)
		return log_errno(ENOMEM, "tags");
	pthread_mutex_init(&s->devices_lock, NULL);
	err = open_root(s);
	if (err == 0) {
		err = pool_new(&s->pool, s->threads, "9p");
		if (err < 0) {
			log_errno(err, "threads");
			p9_node_unref(s, s->root);
		}
	}
	if (err < 0) {
		free(s->tags);
		return err;
	}
	put_tag(b);
	return 0;
}

static void p9_close(struct backend *b)
{
	struct p9 *s = p9_of(b);

	pool_free(s->pool);
	if (s->away)
		pool_free(s->away);
	p9_fid_free_all(s);
	p9_node_unref(s, s->root);
	pthread_mutex_destroy(&s->devices_lock);
	free(s->devices);
	free(s->table);
	free(s->tags);
}

static const struct queue_spec p9_queues[] = {
	{.name = "requests", .ready = p9_ready, .req_size = sizeof(struct p9_request)},
};

static const struct feature_name p9_features[] = {
	{VIRTIO_9P_MOUNT_TAG, "mount-tag"},
	{0, NULL},
};

const struct device device_9p = {
	.name = "9p",
	.summary = "directory of the host, over 9P2000.L",
	.virtio_id = VIRTIO_ID_9P,
	.features = BIT(VIRTIO_9P_MOUNT_TAG),
	.state_size = sizeof(struct p9),
	.config_size = CONFIG_SIZE,
	.options = p9_options,
	.feature_names = p9_features,
	.queues = p9_queues,
	.nqueues = 1,
	.max_queues = 1,
	.open = p9_open,
	.close = p9_close,
	.start = p9_start,
	.stop = p9_stop,
	.reset = p9_reset,
	.save = p9_state_save,
	.load = p9_state_load,
};
