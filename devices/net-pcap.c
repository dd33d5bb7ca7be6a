/* SPDX-License-Identifier: MIT */
/*
 * A copy of all frames, both ways, in the classic libpcap format with nanoseconds. One append per frame, which the kernel makes
 * whole, so that threads share the file without a lock. Frames are as the guest has them: with offloads, a checksum may be
 * missing and a frame be large.
 *
 * Where the guests of one process talk to each other, each frame is copied once, when its sender's turn brings it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "net.h"

enum { SNAP = 262144, LINK_ETHERNET = 1 };

struct pcap_file {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, accuracy, snap, link;
};

struct pcap_record {
	uint32_t seconds, nanoseconds, stored, length;
};

/* Of the process's only capture: a frame found room for a part of it, so nothing may follow. */
static bool cut;

int net_pcap_open(struct net *net)
{
	const struct pcap_file head = {0xa1b23c4d, 2, 4, 0, 0, SNAP, LINK_ETHERNET};
	const struct net *first = backend_of_socket(net->b, 0)->state;
	int fd;

	if (first != net)
		fd = fcntl(first->pcap_fd, F_DUPFD_CLOEXEC, 0);
	else
		fd = open(net->pcap, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0)
		return log_errno(errno, "--pcap=%s", net->pcap);
	if (first == net && write(fd, &head, sizeof(head)) != sizeof(head)) {
		int err = log_errno(errno, "--pcap=%s", net->pcap);

		close(fd);
		return err;
	}
	net->pcap_fd = fd;
	return 0;
}

/* How many bytes of v are there for the frame; *n: pieces used. */
static size_t tee_pieces(const struct net_packet *p, struct iovec *v, unsigned *n)
{
	size_t left = p->len;

	for (*n = 0; *n < p->n && left && *n < 1000; (*n)++) {
		v[*n] = p->iov[*n];
		v[*n].iov_len = MIN(v[*n].iov_len, left);
		left -= v[*n].iov_len;
	}
	return p->len - left;
}

static void tee_one(struct net *net, const struct net_packet *p, const struct timespec *now)
{
	struct iovec v[NET_BATCH_SEGS];
	unsigned n;
	uint32_t stored = (uint32_t)tee_pieces(p, v + 1, &n);
	struct pcap_record r = {(uint32_t)now->tv_sec, (uint32_t)now->tv_nsec, stored, (uint32_t)p->len};
	ssize_t wrote;

	v[0] = (struct iovec){&r, sizeof(r)};
	wrote = writev(net->pcap_fd, v, (int)n + 1);
	if (wrote < 0) {
		log_guest_warn("--pcap=%s: %s", net->pcap, strerror(errno));
	} else if ((size_t)wrote < sizeof(r) + stored && !__atomic_exchange_n(&cut, true, __ATOMIC_RELAXED)) {
		log_error("--pcap=%s: there is no room for a frame, the capture ends in it", net->pcap);
	}
}

void net_tee(struct net *net, const struct net_packet *p, unsigned n)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	for (; n && !__atomic_load_n(&cut, __ATOMIC_RELAXED); n--, p++)
		tee_one(net, p, &now);
}
