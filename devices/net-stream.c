/* SPDX-License-Identifier: MIT */
/*
 * A Unix stream as host end, each frame behind its length in four bytes, as QEMU's "-netdev stream" has them: passt, socket_vmnet,
 * another QEMU. We connect, and again when the other side went; meanwhile the link is down.
 *
 * A batch is sent by one call. What the socket does not take of a frame that it began is kept, and then nothing more is taken. What
 * comes is read in large pieces; while the guest has no buffers nothing is read.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net-host.h"
#include "sockpath.h"

#define RETRY_NS (UINT64_C(500) * 1000 * 1000)

enum { PREFIX = 4, INPUT = 1 << 18, FRAMES = 64 };

struct stream {
	struct net_host h;
	int fd; /* -1: not connected */
	struct sockaddr_un peer;
	struct watch watch;
	struct timer retry;
	bool paused;	   /* the guest has no buffers */
	size_t rest, sent; /* of a frame that was sent in part: bytes, and those of them that went later */
	size_t first, end; /* of what was read and not delivered */
	uint8_t out[PREFIX + NET_MAX_FRAME];
	uint8_t in[INPUT];
};

static struct stream *stream_of(struct net_host *h)
{
	return container_of(h, struct stream, h);
}

static void watch_update(struct stream *s)
{
	uint32_t events = (s->paused ? 0u : EPOLLIN) | (s->rest ? EPOLLOUT : 0u);

	if (s->fd < 0)
		return;
	if (!events)
		watch_del(&s->watch);
	else if (s->watch.fd >= 0)
		watch_modify(&s->watch, events);
	else
		watch_add(s->h.loop, &s->watch, s->fd, events);
}

static void lost(struct stream *s, const char *why)
{
	log_warn("--stream=%s: %s", s->peer.sun_path, why);
	watch_del(&s->watch);
	fd_close(&s->fd);
	s->rest = s->sent = s->first = s->end = 0;
	net_link(&s->h, false);
	timer_arm_in(s->h.loop, &s->retry, RETRY_NS);
	net_tx_room(&s->h, 0); /* what the guest sends is dropped from now on */
}

/* False: there is still something left. */
static bool flush_rest(struct stream *s)
{
	while (s->fd >= 0 && s->sent < s->rest) {
		ssize_t r = send(s->fd, s->out + s->sent, s->rest - s->sent, MSG_NOSIGNAL);

		if (r > 0) {
			s->sent += (size_t)r;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			return false;
		lost(s, strerror(errno));
	}
	s->rest = s->sent = 0;
	return true;
}

/* Keeps the bytes of the frame from `from` on, its prefix included. */
static void keep_rest(struct stream *s, const struct net_packet *p, size_t from)
{
	uint32_t len = htonl((uint32_t)p->len);
	size_t at = PREFIX;
	unsigned i;

	memcpy(s->out, &len, PREFIX);
	for (i = 0; i < p->n && at < PREFIX + p->len; i++) {
		size_t n = MIN(p->iov[i].iov_len, PREFIX + p->len - at);

		memcpy(s->out + at, p->iov[i].iov_base, n);
		at += n;
	}
	s->sent = from;
	s->rest = at;
	watch_update(s);
}

/* Frames from p on that fit in one call; *n: how many. */
static unsigned gather(
	const struct net_packet *p, unsigned n, struct iovec *v, uint32_t *lens, unsigned *frames)
{
	unsigned i, used = 0;

	for (i = 0; i < n && i < FRAMES && used + 1 + p[i].n <= IOV_MAX; i++) {
		lens[i] = htonl((uint32_t)p[i].len);
		v[used++] = (struct iovec){&lens[i], PREFIX};
		memcpy(v + used, p[i].iov, p[i].n * sizeof(*v));
		used += p[i].n;
	}
	*frames = i;
	return used;
}

static unsigned stream_send(struct net_host *h, unsigned lane, const struct net_packet *p, unsigned n)
{
	struct stream *s = stream_of(h);
	struct iovec v[IOV_MAX];
	uint32_t lens[FRAMES];
	unsigned done = 0;

	(void)lane;
	if (s->rest && !flush_rest(s))
		return 0;
	while (done < n && s->fd >= 0) {
		struct msghdr m = {.msg_iov = v};
		unsigned frames, i;
		ssize_t r;

		m.msg_iovlen = gather(p + done, n - done, v, lens, &frames);
		if (!frames) { /* in more pieces than a call takes */
			keep_rest(s, &p[done], 0);
			done++;
			if (!flush_rest(s))
				return done;
			continue;
		}
		r = sendmsg(s->fd, &m, MSG_NOSIGNAL);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			keep_rest(s, &p[done], 0);
			return done + 1;
		}
		if (r < 0) {
			lost(s, strerror(errno));
			break;
		}
		for (i = 0; i < frames && (size_t)r >= PREFIX + p[done + i].len; i++)
			r -= (ssize_t)(PREFIX + p[done + i].len);
		done += i;
		if (i < frames) {
			keep_rest(s, &p[done], (size_t)r);
			return done + 1;
		}
	}
	return n;
}

/* Delivers the frames that are whole. False: the guest has no room, or the connection is gone. */
static bool deliver(struct stream *s)
{
	while (s->end - s->first >= PREFIX) {
		struct iovec v;
		struct net_packet p;
		uint32_t len;

		memcpy(&len, s->in + s->first, PREFIX);
		len = ntohl(len);
		if (len > NET_MAX_FRAME) {
			lost(s, "a frame is too long");
			return false;
		}
		if (s->end - s->first < PREFIX + len)
			break;
		v = (struct iovec){s->in + s->first + PREFIX, len};
		p = (struct net_packet){.iov = &v, .n = 1, .len = len};
		if (len >= NET_MIN_FRAME && !net_receive(&s->h, &p, 1))
			return false;
		s->first += PREFIX + len;
	}
	memmove(s->in, s->in + s->first, s->end - s->first);
	s->end -= s->first;
	s->first = 0;
	return true;
}

static void pause_if(struct stream *s, bool pause)
{
	if (s->paused == pause)
		return;
	s->paused = pause;
	watch_update(s);
}

/* A bounded number of reads: others have their turn. */
static void receive(struct stream *s)
{
	unsigned i;

	for (i = 0; i < 4; i++) {
		ssize_t r;

		if (!deliver(s)) {
			pause_if(s, s->fd >= 0);
			return;
		}
		r = recv(s->fd, s->in + s->end, sizeof(s->in) - s->end, 0);
		if (r > 0) {
			s->end += (size_t)r;
			continue;
		}
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		lost(s, r ? strerror(errno) : "the other side has gone");
		return;
	}
	if (!deliver(s))
		pause_if(s, s->fd >= 0);
}

static void stream_room(struct net_host *h)
{
	struct stream *s = stream_of(h);

	if (s->fd < 0 || !s->paused)
		return;
	s->paused = false;
	receive(s);
	watch_update(s);
}

static void socket_ready(struct watch *w, uint32_t events)
{
	struct stream *s = container_of(w, struct stream, watch);

	if (s->rest && events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && flush_rest(s)) {
		watch_update(s);
		net_tx_room(&s->h, 0);
	}
	if (s->fd >= 0 && !s->paused && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(s);
}

static int try_connect(struct stream *s)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&s->peer, sizeof(s->peer)) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	s->fd = fd;
	s->paused = false;
	watch_update(s);
	net_link(&s->h, true);
	return 0;
}

static void retry_expired(struct timer *t)
{
	struct stream *s = container_of(t, struct stream, retry);

	if (try_connect(s) < 0)
		timer_arm_in(s->h.loop, &s->retry, RETRY_NS);
}

static void stream_close(struct net_host *h)
{
	struct stream *s = stream_of(h);

	timer_disarm(&s->retry);
	watch_del(&s->watch);
	fd_close(&s->fd);
	free(s);
}

static const struct net_host_ops stream_ops = {
	.close = stream_close, .send = stream_send, .room = stream_room};

int net_stream_open(struct net_host **out, struct net *net)
{
	struct stream *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return log_errno(ENOMEM, "--stream");
	s->h = (struct net_host){
		.ops = &stream_ops, .net = net, .loop = net->b->loop, .kind = "stream", .lanes = 1};
	s->fd = s->watch.fd = -1;
	s->watch.ready = socket_ready;
	s->retry.expired = retry_expired;
	err = sockpath_address(&s->peer, "--stream", net->stream);
	if (err) {
		free(s);
		return err;
	}
	err = try_connect(s);
	if (err) {
		log_warn("--stream=%s: %s", net->stream, strerror(-err));
		timer_arm_in(s->h.loop, &s->retry, RETRY_NS);
	}
	*out = &s->h;
	return 0;
}
