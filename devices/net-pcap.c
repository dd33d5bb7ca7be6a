/* SPDX-License-Identifier: MIT */
/*
 * A copy of all frames, both ways, in the classic libpcap format with nanoseconds. One append per frame, which the kernel makes
 * whole, so that threads share the file without a lock. Frames are as the guest has them: with offloads, a checksum may be
 * missing and a frame be large.
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

int net_pcap_open(struct net *net)
{
	const struct pcap_file head = {0xa1b23c4d, 2, 4, 0, 0, SNAP, LINK_ETHERNET};
	int fd = open(net->pcap, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0600);

	if (fd < 0)
		return log_errno(errno, "--pcap=%s", net->pcap);
	if (write(fd, &head, sizeof(head)) != sizeof(head)) {
		int err = log_errno(errno, "--pcap=%s", net->pcap);

		close(fd);
		return err;
	}
	net->pcap_fd = fd;
	return 0;
}

void net_tee(struct net *net, const struct net_packet *p, unsigned n)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	for (; n; n--, p++) {
		struct pcap_record r = {
			(uint32_t)now.tv_sec, (uint32_t)now.tv_nsec, (uint32_t)p->len, (uint32_t)p->len};
		struct iovec v[NET_BATCH_SEGS + 2];
		size_t left = p->len;
		unsigned i, used = 1;

		v[0] = (struct iovec){&r, sizeof(r)};
		for (i = 0; i < p->n && left && used < 1000; i++) {
			v[used] = p->iov[i];
			v[used].iov_len = MIN(v[used].iov_len, left);
			left -= v[used++].iov_len;
		}
		r.stored -= (uint32_t)left;
		if (writev(net->pcap_fd, v, (int)used) < 0)
			log_guest_warn("--pcap=%s: %s", net->pcap, strerror(errno));
	}
}
