/* SPDX-License-Identifier: MIT */
/*
 * Network device (virtio 1.3, 5.1): options, configuration space, life. The frames' ways are in net-receive.c and net-send.c,
 * the control queue in net-ctrl.c, the host ends behind net-host.h.
 *
 * Queue 2i receives and queue 2i + 1 transmits for pair i; the control queue is the last one. A pair lives in one loop. With a host
 * end that has a lane for each pair, each pair may have a thread, and shares nothing with the others; with any other host end,
 * or where frames are to be steered by their hash, all are in the control loop.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "net-host.h"
#include "user-net.h"
#include "net-offload.h"

enum { PROTOCOL_RARP = 2, PROTOCOL_MTU = 4 };
enum { MTU_MIN = 68, RARP_LEN = 60 };

#define TX_QUEUES UINT64_C(0xaaaaaaaaaaaaaaaa)

/* Options */

static const char *parse_mac(void *base, const char *value)
{
	struct net *net = base;
	unsigned v[6], i;
	char end;

	if (strlen(value) != 17 || sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%c", &v[0], &v[1], &v[2], &v[3],
					   &v[4], &v[5], &end) != 6)
		return "not six bytes like 52:54:00:12:34:56";
	for (i = 0; i < 6; i++)
		net->mac[i] = (uint8_t)v[i];
	if (net->mac[0] & 1)
		return "an address of a group";
	net->mac_given = true;
	return NULL;
}

static const char *parse_tap_fd(void *base, const char *value)
{
	struct net *net = base;
	uint64_t fd;

	if (!options_parse_u64(value, &fd) || fd > INT32_MAX)
		return "not a descriptor";
	if (net->ntap_fds == NET_MAX_PAIRS)
		return "too many";
	net->tap_fds[net->ntap_fds++] = (int)fd;
	return NULL;
}

static const char *parse_threads(void *base, const char *value)
{
	struct net *net = base;
	uint64_t n;

	if (!options_parse_u64(value, &n) || n > NET_MAX_PAIRS)
		return "not a number up to 32";
	net->threads = (uint32_t)n;
	net->threads_given = true;
	return NULL;
}

static const char *parse_forward(void *base, const char *value)
{
	struct net *net = base;
	const char *why = user_net_check_forward(value);

	if (why)
		return why;
	if (net->nforwards == ARRAY_SIZE(net->forwards))
		return "too many";
	net->forwards[net->nforwards++] = value;
	return NULL;
}

static const struct option_spec net_options[] = {
	{"user", OPTION_FLAG, OPTION_FIELD(struct net, user),
		.help = "a network in user space, with DHCP and DNS, that needs no privilege; the default"},
	{"forward", OPTION_CALLBACK, .arg = "tcp|udp:[ADDRESS:]PORT:GUESTPORT", .parse = parse_forward,
		.help = "with --user, connect a port of the host, at 127.0.0.1 by default, to one of the guest"},
	{"restrict", OPTION_FLAG, OPTION_FIELD(struct net, restricted),
		.help = "with --user, no connections of the guest to the outside"},
	{"tap", OPTION_STRING, OPTION_FIELD(struct net, tap), .arg = "NAME",
		.help = "a TAP interface, made if there is none"},
	{"tap-fd", OPTION_CALLBACK, .arg = "FD", .parse = parse_tap_fd,
		.help = "an open TAP interface; once per queue pair"},
	{"stream", OPTION_PATH, OPTION_FIELD(struct net, stream), .arg = "SOCKET",
		.help = "a Unix socket with frames behind their lengths: passt, another QEMU"},
	{"dgram", OPTION_PATH, OPTION_FIELD(struct net, dgram), .arg = "SOCKET",
		.help = "a Unix socket, a frame in a datagram"},
	{"dgram-local", OPTION_PATH, OPTION_FIELD(struct net, dgram_local), .arg = "SOCKET",
		.no_def = "a name of the kernel's",
		.help = "with --dgram, where frames for the guest come to"},
	{"switch", OPTION_PATH, OPTION_FIELD(struct net, join), .arg = "DIRECTORY",
		.help = "a switch of all processes that name this directory, made if there is none"},
	{"packet", OPTION_STRING, OPTION_FIELD(struct net, packet), .arg = "INTERFACE",
		.help = "the wire that an interface of the host is on"},
	{"mac", OPTION_CALLBACK, .arg = "ADDRESS", .parse = parse_mac, .no_def = "a random one",
		.help = "Ethernet address of the guest, where the front-end has none"},
	{"mtu", OPTION_U32, OPTION_FIELD(struct net, mtu), .arg = "BYTES", .no_def = "the driver's own",
		.min = MTU_MIN, .max = 65535, .help = "tell the guest the largest packet"},
	{"speed", OPTION_U32, OPTION_FIELD(struct net, speed), .arg = "MBIT", .no_def = "unknown", .min = 1,
		.max = INT32_MAX, .help = "tell the guest a speed of the line"},
	{"queues", OPTION_U32, OPTION_FIELD(struct net, npairs), .arg = "PAIRS", .def = "1", .min = 1,
		.max = NET_MAX_PAIRS, .help = "queue pairs"},
	{"threads", OPTION_CALLBACK, .arg = "THREADS", .parse = parse_threads,
		.no_def = "1 per queue pair of a TAP, else 0",
		.help = "threads for the queue pairs; 0: none besides the main thread"},
	{"offload", OPTION_SWITCH, OPTION_FIELD(struct net, offload), .def = "on",
		.help = "offer checksum and segmentation offloads"},
	{"rx-rate", OPTION_SIZE, OPTION_FIELD(struct net, rx_rate), .arg = "BYTES", .def = "0",
		.no_def = "no limit", .help = "bytes per second to the guest at most"},
	{"tx-rate", OPTION_SIZE, OPTION_FIELD(struct net, tx_rate), .arg = "BYTES", .def = "0",
		.no_def = "no limit", .help = "bytes per second from the guest at most"},
	{"pcap", OPTION_PATH, OPTION_FIELD(struct net, pcap), .arg = "FILE",
		.help = "write all frames to a capture file"},
	OPTIONS_END,
};

/* Configuration space */

static struct virtio_net_config *config_of(struct net *net)
{
	return (struct virtio_net_config *)net->b->config;
}

void net_status(struct net *net, uint16_t set, uint16_t clear, bool tell)
{
	struct virtio_net_config *c = config_of(net);
	uint16_t old = le16toh(c->status), new = (uint16_t)((old | set) & ~clear);

	c->status = htole16(new);
	if (tell && new != old)
		backend_config_changed(net->b);
}

static void link_update(struct net *net)
{
	bool up = net->host_up && !net->link_off;
	bool announce = up && backend_has(net->b, VIRTIO_NET_F_GUEST_ANNOUNCE) && net_ctrl_index(net) >= 0;

	if (up == net->link)
		return;
	__atomic_store_n(&net->link, up, __ATOMIC_RELAXED);
	if (up)
		net_status(net, VIRTIO_NET_S_LINK_UP | (announce ? VIRTIO_NET_S_ANNOUNCE : 0), 0, true);
	else
		net_status(net, 0, VIRTIO_NET_S_LINK_UP, true);
	if (backend_event_wanted(net->b)) {
		struct json *data = json_new(false);

		if (data) {
			json_object_begin(data);
			json_key(data, "up");
			json_bool(data, up);
			json_object_end(data);
		}
		backend_event(net->b, "link", data);
	}
}

void net_link(struct net_host *h, bool up)
{
	h->net->host_up = up;
	link_update(h->net);
}

static void config_fill(struct net *net)
{
	struct virtio_net_config *c = config_of(net);

	memcpy(c->mac, net->mac, 6);
	c->max_virtqueue_pairs = htole16((uint16_t)net->npairs);
	c->mtu = htole16((uint16_t)net->mtu);
	c->speed = htole32(net->speed ? net->speed : UINT32_MAX);
	c->duplex = net->speed ? 1 : 0xff;
	c->rss_max_key_size = NET_RSS_KEY;
	c->rss_max_indirection_table_length = htole16(NET_RSS_TABLE);
	c->supported_hash_types = htole32(NET_HASH_TYPES);
}

/* Drivers before virtio 1.0 set their address here. */
static void net_config_write(struct backend *b, size_t off, const void *data, size_t len)
{
	struct net *net = b->state;

	if (off + len > 6 || backend_has(b, FEATURE_VERSION_1))
		return;
	memcpy(b->config + off, data, len);
	memcpy(net->filter.mac, b->config, 6);
}

/* Queues */

static void net_ready(struct backend *b, struct virtqueue *q)
{
	struct net *net = b->state;
	unsigned i = virtqueue_index(q);

	if ((int)i == net_ctrl_index(net))
		net_ctrl_ready(net, q);
	else if (i / 2 < net->npairs && i % 2)
		net_tx_ready(&net->pairs[i / 2]);
	else if (i / 2 < net->npairs)
		net_rx_ready(&net->pairs[i / 2]);
}

static void first_start(struct net *net, const struct virtqueue *q)
{
	if (net->loaded) {
		net_ctrl_loaded(net);
		return;
	}
	if (virtqueue_continues(q))
		return;
	net_ctrl_reset(net);
	if (virtqueue_resumed(q)) /* of a driver that lives on, and had VLANs perhaps */
		net->filter.vlans_on = false;
}

static int net_start(struct backend *b, struct virtqueue *q)
{
	struct net *net = b->state;
	unsigned i = virtqueue_index(q);
	struct net_pair *p = &net->pairs[i / 2];

	if (!net->running++)
		first_start(net, q);
	if ((int)i == net_ctrl_index(net) || i / 2 >= net->npairs)
		return 0;
	p->mergeable = backend_has(b, VIRTIO_NET_F_MRG_RXBUF);
	p->hdr_len = backend_has(b, VIRTIO_NET_F_HASH_REPORT)		 ? NET_HDR_MAX
		     : p->mergeable || backend_has(b, FEATURE_VERSION_1) ? NET_HDR
									 : sizeof(struct virtio_net_hdr);
	if (i % 2)
		net_tx_start(p, q);
	else
		net_rx_start(p, q);
	return 0;
}

static void net_stop(struct backend *b, struct virtqueue *q)
{
	struct net *net = b->state;
	unsigned i = virtqueue_index(q);
	struct net_pair *p = &net->pairs[i / 2];

	net->running--;
	if ((int)i == net_ctrl_index(net) || i / 2 >= net->npairs)
		return;
	if (i % 2)
		net_tx_stop(p);
	else
		net_rx_stop(p);
}

static void net_reset(struct backend *b)
{
	net_ctrl_reset(b->state);
}

/* Requests of the front-end */

/* The guest cannot say where it is now, so we do: a reverse ARP as if it came from there. */
static int send_rarp(struct net *net, const uint8_t *mac)
{
	static const uint8_t head[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
	uint8_t frame[RARP_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct iovec v = {frame, sizeof(frame)};
	struct net_packet p = {.iov = &v, .n = 1, .len = sizeof(frame)};

	memcpy(frame + 6, mac, 6);
	memcpy(frame + 12, head, sizeof(head));
	memcpy(frame + 22, mac, 6); /* sender */
	memcpy(frame + 32, mac, 6); /* target */
	if (net->link && net->host->ops->send(net->host, 0, &p, 1) == 1 && net->pcap)
		net_tee(net, &p, 1);
	return 0;
}

static int net_request(struct backend *b, struct request *r)
{
	struct net *net = b->state;
	uint64_t v;

	if (r->size < sizeof(v))
		return -EINVAL;
	memcpy(&v, r->payload, sizeof(v));
	switch (r->type) {
	case REQUEST_SEND_RARP:
		return send_rarp(net, r->payload);
	case REQUEST_SET_MTU:
		if (v < MTU_MIN || v > 65535 || (net->mtu && v > net->mtu))
			return -EINVAL;
		config_of(net)->mtu = htole16((uint16_t)v);
		return 0;
	default:
		return -ENOTSUP;
	}
}

/* Commands */

static int command_link(struct backend *b, struct command *c)
{
	struct net *net = b->state;
	bool up;

	if (!command_bool(c, "up", &up))
		return command_error(c, EINVAL, "up is missing");
	net->link_off = !up;
	link_update(net);
	return 0;
}

static void member(struct json *out, const char *key, uint64_t v)
{
	json_key(out, key);
	json_u64(out, v);
}

static int command_query(struct backend *b, struct command *c)
{
	struct net *net = b->state;
	struct net_counters sum = {0};
	char mac[18];
	unsigned i;

	for (i = 0; i < net->npairs; i++) { /* counters of running queues: a look, not a balance */
		const struct net_counters *n = &net->pairs[i].count;

		sum.rx_packets += n->rx_packets;
		sum.rx_bytes += n->rx_bytes;
		sum.rx_dropped += n->rx_dropped;
		sum.rx_filtered += n->rx_filtered;
		sum.tx_packets += n->tx_packets;
		sum.tx_bytes += n->tx_bytes;
		sum.tx_dropped += n->tx_dropped;
		sum.segmented += n->segmented;
	}
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", b->config[0], b->config[1], b->config[2],
		b->config[3], b->config[4], b->config[5]);
	json_object_begin(c->out);
	json_key(c->out, "host");
	json_string(c->out, net->host->kind);
	if (net->host->ops->describe)
		net->host->ops->describe(net->host, c->out);
	json_key(c->out, "link");
	json_bool(c->out, net->link);
	json_key(c->out, "mac");
	json_string(c->out, mac);
	json_key(c->out, "promiscuous");
	json_bool(c->out, net->filter.promisc);
	member(c->out, "queue-pairs", net->active);
	member(c->out, "rx-packets", sum.rx_packets);
	member(c->out, "rx-bytes", sum.rx_bytes);
	member(c->out, "rx-dropped", sum.rx_dropped);
	member(c->out, "rx-filtered", sum.rx_filtered);
	member(c->out, "tx-packets", sum.tx_packets);
	member(c->out, "tx-bytes", sum.tx_bytes);
	member(c->out, "tx-dropped", sum.tx_dropped);
	member(c->out, "segmented", sum.segmented);
	json_object_end(c->out);
	return 0;
}

static const struct command_arg link_args[] = {
	{"up", COMMAND_BOOL, true, "whether the guest shall see a link, if the host end has one"},
	{.name = NULL},
};

static const struct command_spec net_commands[] = {
	{"link", "take the guest's link down or up", link_args, command_link},
	{"query-net", "the host end, the link, the guest's address and what was transferred", NULL,
		command_query},
	{.name = NULL},
};

/* Opening */

static int open_host(struct net *net)
{
	const struct {
		bool given;
		int (*open)(struct net_host **out, struct net *net);
	} hosts[] = {
		{net->user, net_user_open},
		{net->tap || net->ntap_fds, net_tap_open},
		{net->stream, net_stream_open},
		{net->dgram, net_dgram_open},
		{net->join, net_switch_open},
		{net->packet, net_packet_open},
	};
	int (*open)(struct net_host * *out, struct net * net) =
		net->b->num_sockets > 1 ? net_switch_open : net_user_open;
	unsigned i, given = 0;

	for (i = 0; i < ARRAY_SIZE(hosts); i++)
		if (hosts[i].given) {
			open = hosts[i].open;
			given++;
		}
	if (net->b->num_sockets > 1 && open != net_switch_open) {
		log_error("several guests in one process can only have a switch between them");
		return -EINVAL;
	}
	if (given > 1 || (net->tap && net->ntap_fds)) {
		log_error("more than one host end is given");
		return -EINVAL;
	}
	if ((net->nforwards || net->restricted) && open != net_user_open) {
		log_error("--%s is for --user only", net->nforwards ? "forward" : "restrict");
		return -EINVAL;
	}
	if (net->dgram_local && open != net_dgram_open) {
		log_error("--dgram-local is for --dgram only");
		return -EINVAL;
	}
	return open(&net->host, net);
}

static int choose_threads(struct net *net)
{
	bool can = net->host->lanes >= net->npairs;

	if (!net->threads_given)
		net->threads = can && net->npairs > 1 && !net->rx_rate && !net->tx_rate ? net->npairs : 0;
	if (!net->threads)
		return 0;
	if (!can) {
		log_error("--threads=%u: this host end can't be used by several threads", net->threads);
		return -EINVAL;
	}
	if (net->rx_rate || net->tx_rate) {
		log_error("--threads=%u: a rate is limited in one thread only", net->threads);
		return -EINVAL;
	}
	net->threads = MIN(net->threads, net->npairs);
	return 0;
}

static void choose_features(struct net *net)
{
	struct backend *b = net->b;

	if (net->offload)
		b->offered |= NET_HOST_OFFLOADS | net->host->gives;
	if (net->offload && net->host->gives)
		b->offered |= BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	if (net->mtu)
		b->offered |= BIT(VIRTIO_NET_F_MTU);
	if (net->npairs > 1)
		b->offered |= BIT(VIRTIO_NET_F_MQ);
	if (net->threads)
		return;
	b->offered |= BIT(VIRTIO_NET_F_HASH_REPORT);
	if (net->npairs > 1)
		b->offered |= BIT(VIRTIO_NET_F_RSS);
}

static void rx_bucket_full(struct timer *t)
{
	struct net *net = container_of(t, struct net, rx_bucket.timer);
	unsigned i;

	for (i = 0; i < net->npairs; i++)
		if (net->pairs[i].rx)
			virtqueue_wake(net->pairs[i].rx);
}

static void tx_bucket_full(struct timer *t)
{
	struct net *net = container_of(t, struct net, tx_bucket.timer);
	unsigned i;

	for (i = 0; i < net->npairs; i++)
		if (net->pairs[i].tx)
			virtqueue_wake(net->pairs[i].tx);
}

/* The guests of one process have addresses one after the other. False: they run over the maker's part. */
static bool mac_add(uint8_t mac[6], unsigned n)
{
	uint32_t v = (uint32_t)mac[3] << 16 | (uint32_t)mac[4] << 8 | mac[5];

	v += n;
	mac[3] = (uint8_t)(v >> 16);
	mac[4] = (uint8_t)(v >> 8);
	mac[5] = (uint8_t)v;
	return v < 1u << 24;
}

static void net_close(struct backend *b)
{
	struct net *net = b->state;
	unsigned i;

	if (net->host)
		net->host->ops->close(net->host);
	timer_disarm(&net->rx_bucket.timer);
	timer_disarm(&net->tx_bucket.timer);
	for (i = 0; net->pairs && i < net->npairs; i++)
		net_pair_free(&net->pairs[i]);
	free(net->pairs);
	fd_close(&net->pcap_fd);
}

static void announcement_due(struct post *p)
{
	net_status(container_of(p, struct net, announce), VIRTIO_NET_S_ANNOUNCE, 0, true);
}

static int net_open(struct backend *b)
{
	struct net *net = b->state;
	unsigned i;
	int err;

	net->b = b;
	net->pcap_fd = -1;
	net->announce.run = announcement_due;
	net->active = net->npairs;
	net->rx_bucket = (struct net_bucket){.rate = net->rx_rate, .timer.expired = rx_bucket_full};
	net->tx_bucket = (struct net_bucket){.rate = net->tx_rate, .timer.expired = tx_bucket_full};
	if (!net->mac_given) {
		if (getrandom(net->mac, 6, 0) != 6)
			return log_errno(errno, "getrandom");
		memcpy(net->mac, "\x52\x54\x00", 3);
	} else if (!mac_add(net->mac, b->socket)) {
		log_error("--mac: there are not enough addresses after it for %u guests", b->num_sockets);
		return -EINVAL;
	}
	net->pairs = calloc(net->npairs, sizeof(*net->pairs));
	err = net->pairs ? 0 : -ENOMEM;
	for (i = 0; i < net->npairs && !err; i++)
		err = net_pair_init(&net->pairs[i], net, i);
	if (err)
		log_errno(err, "net");
	net_filter_reset(&net->filter, net->mac, false);
	config_fill(net);
	if (!err && net->pcap)
		err = net_pcap_open(net);
	if (!err)
		err = open_host(net);
	if (!err)
		err = choose_threads(net);
	if (err) {
		net_close(b);
		return err;
	}
	choose_features(net);
	b->num_queues = net->npairs * 2 + 1;
	b->queue_num = net->npairs;
	b->threads = net->threads;
	b->thread_queues = 2;
	return 0;
}

static const struct queue_spec net_queues[] = {{"rx", net_ready, 0, 0}, {"tx", net_ready, 0, 0}};

static const struct feature_name net_features[] = {
	{VIRTIO_NET_F_CSUM, "csum"},
	{VIRTIO_NET_F_GUEST_CSUM, "guest-csum"},
	{VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "ctrl-guest-offloads"},
	{VIRTIO_NET_F_MTU, "mtu"},
	{VIRTIO_NET_F_MAC, "mac"},
	{VIRTIO_NET_F_GUEST_TSO4, "guest-tso4"},
	{VIRTIO_NET_F_GUEST_TSO6, "guest-tso6"},
	{VIRTIO_NET_F_GUEST_ECN, "guest-ecn"},
	{VIRTIO_NET_F_GUEST_UFO, "guest-ufo"},
	{VIRTIO_NET_F_HOST_TSO4, "host-tso4"},
	{VIRTIO_NET_F_HOST_TSO6, "host-tso6"},
	{VIRTIO_NET_F_HOST_ECN, "host-ecn"},
	{VIRTIO_NET_F_HOST_UFO, "host-ufo"},
	{VIRTIO_NET_F_MRG_RXBUF, "mrg-rxbuf"},
	{VIRTIO_NET_F_STATUS, "status"},
	{VIRTIO_NET_F_CTRL_VQ, "ctrl-vq"},
	{VIRTIO_NET_F_CTRL_RX, "ctrl-rx"},
	{VIRTIO_NET_F_CTRL_VLAN, "ctrl-vlan"},
	{VIRTIO_NET_F_CTRL_RX_EXTRA, "ctrl-rx-extra"},
	{VIRTIO_NET_F_GUEST_ANNOUNCE, "guest-announce"},
	{VIRTIO_NET_F_MQ, "mq"},
	{VIRTIO_NET_F_CTRL_MAC_ADDR, "ctrl-mac-addr"},
	{NET_F_VQ_NOTF_COAL, "vq-notf-coal"},
	{NET_F_NOTF_COAL, "notf-coal"},
	{NET_F_GUEST_USO4, "guest-uso4"},
	{NET_F_GUEST_USO6, "guest-uso6"},
	{NET_F_HOST_USO, "host-uso"},
	{VIRTIO_NET_F_HASH_REPORT, "hash-report"},
	{VIRTIO_NET_F_RSS, "rss"},
	{VIRTIO_NET_F_RSC_EXT, "rsc-ext"},
	{VIRTIO_NET_F_STANDBY, "standby"},
	{VIRTIO_NET_F_SPEED_DUPLEX, "speed-duplex"},
	{0, NULL},
};

const struct device device_net = {
	.name = "net",
	.summary = "network card, connected to a TAP interface, a network in user space, or others",
	.virtio_id = VIRTIO_ID_NET,
	.features = BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) |
		    BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_VLAN) |
		    BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
		    BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) | BIT(VIRTIO_NET_F_SPEED_DUPLEX) | BIT(NET_F_NOTF_COAL) |
		    BIT(NET_F_VQ_NOTF_COAL),
	.protocol_features = BIT(PROTOCOL_RARP) | BIT(PROTOCOL_MTU),
	.state_size = sizeof(struct net),
	.config_size = sizeof(struct virtio_net_config),
	.options = net_options,
	.feature_names = net_features,
	.commands = net_commands,
	.queues = net_queues,
	.nqueues = 2,
	.repeat = 2,
	.max_queues = NET_MAX_PAIRS * 2 + 1,
	.only_read = TX_QUEUES, /* DPDK marks headers in tables of packed rings as writable */
	.queue_threads = true,
	.several = true,
	.in_order = true,
	.open = net_open,
	.close = net_close,
	.start = net_start,
	.stop = net_stop,
	.reset = net_reset,
	.config_write = net_config_write,
	.request = net_request,
	.save = net_save,
	.load = net_load,
};
