/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the network device share: frames, queue pairs, filters, and the device itself. The theory is in net.c.
 */
#ifndef NET_H
#define NET_H

#include <linux/virtio_net.h>
#include <string.h>
#include <sys/uio.h>

#include "device.h"

enum {
	NET_MAX_PAIRS = 32,
	NET_HDR = 12,	       /* struct virtio_net_hdr_v1: what hosts and we speak */
	NET_HDR_MAX = 20,      /* with a hash report */
	NET_MAX_FRAME = 65550, /* bytes: 64 KiB of IP behind an Ethernet header */
	NET_MIN_FRAME = 14,
	NET_BATCH = 64,	       /* frames to a host at once */
	NET_BATCH_SEGS = 1088, /* their pieces: a chain has at most 1028 */
	NET_HAND = 512,	       /* receive buffers that are taken ahead, at most */
	NET_MACS = 64,	       /* entries of the filter */
	NET_VLANS = 4096,
	NET_RSS_KEY = 40,
	NET_RSS_TABLE = 128,
	NET_HASH_TYPES = 0x3f, /* all VIRTIO_NET_RSS_HASH_TYPE_* but those of extension headers */
};

/* Feature bits and values newer than some headers */
enum {
	NET_F_VQ_NOTF_COAL = 52,
	NET_F_NOTF_COAL = 53,
	NET_F_GUEST_USO4 = 54,
	NET_F_GUEST_USO6 = 55,
	NET_F_HOST_USO = 56,
	NET_GSO_UDP_L4 = 5,
};

#define NET_GUEST_OFFLOADS                                                                            \
	(BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) | \
		BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(NET_F_GUEST_USO4) |   \
		BIT(NET_F_GUEST_USO6))
#define NET_HOST_OFFLOADS                                                                     \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | \
		BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO) | BIT(NET_F_HOST_USO))

/* A frame with its header; its bytes are the owner's, in pieces, maybe in guest memory. */
struct net_packet {
	struct virtio_net_hdr_v1 hdr; /* num_buffers is not used */
	const struct iovec *iov;
	unsigned n;
	size_t len; /* of the frame */
};

/* memcpy(); most frames are small, and of known sizes it is a few instructions. */
static inline void net_copy(uint8_t *dst, const uint8_t *src, size_t n)
{
	if (n >= 64 && n <= 128) { /* the two may overlap */
		memcpy(dst, src, 64);
		memcpy(dst + n - 64, src + n - 64, 64);
	} else {
		memcpy(dst, src, n);
	}
}

/* What the driver wants to receive (virtio 1.3, 5.1.6.5). Each pair has a copy that only its own loop touches. */
struct net_filter {
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool vlans_on; /* only frames of vlans, and those without a tag */
	uint8_t mac[6];
	uint8_t table[NET_MACS][6];
	unsigned first_multi, count; /* of table */
	bool uni_overflow, multi_overflow;
	uint32_t vlans[NET_VLANS / 32];
};

/* Hash types and steering (virtio 1.3, 5.1.6.5.6.4) */
struct net_rss {
	bool on; /* steer by the table */
	uint32_t types;
	uint16_t mask; /* entries of table - 1 */
	uint16_t unclassified;
	uint16_t table[NET_RSS_TABLE]; /* numbers of pairs */
	uint8_t key[NET_RSS_KEY];
};

/* Interrupts that may wait (virtio 1.3, 5.1.6.5.7): buffers are given back together. */
struct net_coalesce {
	uint32_t packets, usecs; /* usecs 0: off */
};

struct net_counters {
	uint64_t rx_packets, rx_bytes, rx_dropped, rx_filtered, tx_packets, tx_bytes, tx_dropped, segmented;
};

struct net_bucket {
	uint64_t rate; /* bytes per second; 0: no limit */
	int64_t tokens;
	uint64_t at; /* monotonic ns of the last refill */
	struct timer timer;
};

struct net;

struct net_pair {
	struct net *net;
	unsigned index;
	struct virtqueue *rx, *tx; /* while they run */
	bool rx_dead;		   /* the driver's buffers are of no use */
	size_t hdr_len;		   /* bytes before each frame in guest memory */
	bool mergeable;
	uint64_t offloads; /* GUEST_* that the driver takes now */
	struct net_filter filter;

	struct element *hand[NET_HAND]; /* receive buffers that were taken and are not filled; a ring */
	unsigned hand_first, nhand;
	size_t room; /* bytes in them */

	/* a frame that was read and waits for more buffers: its first `placed` bytes are in those at hand */
	size_t pending, placed;
	struct virtio_net_hdr_v1 pending_hdr;
	struct net_scratch *scratch;
	size_t bounced; /* length of a frame in scratch->frame that waits for its pair's buffers; 0: none */
	struct virtio_net_hdr_v1 bounced_hdr;
	bool used;	/* the host was told that the pair receives */
	bool listening; /* the host tells us when a frame is there */
	size_t expect;	/* bytes of buffers to have at hand before a frame is read */
	unsigned calm;	/* frames since it was needed */

	struct net_coalesce rx_coalesce, tx_coalesce;
	struct element *rx_held[NET_BATCH], *tx_held[NET_BATCH]; /* done, for the driver to find later */
	unsigned nrx_held, ntx_held, rx_held_packets;
	struct timer rx_timer, tx_timer;

	struct net_counters count;
};

struct net {
	/* options */
	bool user, restricted;
	const char *tap, *stream, *dgram, *dgram_local, *join, *packet, *pcap;
	int tap_fds[NET_MAX_PAIRS];
	unsigned ntap_fds;
	uint32_t npairs, threads, mtu, speed;
	bool offload, threads_given;
	uint64_t rx_rate, tx_rate;
	uint8_t mac[6];
	bool mac_given;
	const char *forwards[64];
	unsigned nforwards;

	struct backend *b;
	struct net_host *host;
	struct net_pair *pairs;
	unsigned active; /* pairs that the driver uses */
	bool link;	 /* the guest has one; any thread reads it */
	bool host_up;	 /* the host end is there */
	bool link_off;	 /* a command took the link down */
	int pcap_fd;
	unsigned running;	  /* queues */
	struct net_filter filter; /* what the control queue said, copied to the pairs */
	uint64_t guest_offloads;
	struct post announce;
	bool loaded; /* these are of a state that was loaded, for the next start */
	struct net_coalesce rx_coalesce[NET_MAX_PAIRS], tx_coalesce[NET_MAX_PAIRS];
	struct net_rss rss;
	struct net_bucket rx_bucket, tx_bucket;
};

/* ---- net.c ---- */

/* The driver has no link: nothing comes from it, nothing goes to it. */
static inline bool net_unlinked(const struct net *net)
{
	return unlikely(!__atomic_load_n(&net->link, __ATOMIC_RELAXED));
}

/* The bits of virtio_net_config.status; tell: the driver is to look. */
void net_status(struct net *net, uint16_t set, uint16_t clear, bool tell);

/* ---- net-pcap.c ---- */

/* Opens net->pcap; the guests of a process share it. -errno, logged. */
int net_pcap_open(struct net *net);
/* Copies frames into it, from any thread. */
void net_tee(struct net *net, const struct net_packet *p, unsigned n);

/* ---- net-queue.c, net-receive.c, net-send.c ---- */

/* What a pair needs besides; -ENOMEM. */
int net_pair_init(struct net_pair *p, struct net *net, unsigned index);
void net_pair_free(struct net_pair *p);

/* Begins or ends the use of the pair's lane, after what it depends on has changed. */
void net_pair_use(struct net_pair *p);
void net_rx_ready(struct net_pair *p);
void net_tx_ready(struct net_pair *p);
void net_rx_start(struct net_pair *p, struct virtqueue *q);
void net_rx_stop(struct net_pair *p);
void net_tx_start(struct net_pair *p, struct virtqueue *q);
void net_tx_stop(struct net_pair *p);

/* ---- net-filter.c ---- */

void net_filter_reset(struct net_filter *f, const uint8_t mac[6], bool vlans);
/* All frames pass. */
static inline bool net_filter_open(const struct net_filter *f)
{
	return f->promisc && !f->vlans_on;
}

bool net_filter_pass(const struct net_filter *f, const struct iovec *iov, unsigned n, size_t len);

/* ---- net-ctrl.c ---- */

/* The control queue's index, or -1 while there is none. */
int net_ctrl_index(const struct net *net);
void net_ctrl_ready(struct net *net, struct virtqueue *q);
void net_ctrl_reset(struct net *net);
/* After a state was loaded: what has to be known of it outside. */
void net_ctrl_loaded(struct net *net);

/* ---- net-state.c ---- */

int net_save(struct backend *b, int fd);
int net_load(struct backend *b, int fd);

#endif
