/* SPDX-License-Identifier: MIT */
/*
 * The control queue (virtio 1.3, 5.1.6.5), for front-ends that leave it to us; QEMU keeps it to itself.
 *
 * A command is a class, a command, its data, and a place for the answer. What it sets is kept in the device, as the state of the
 * guest's driver, and copied to every queue pair in the pair's own loop, so that the data path needs no locks.
 */
#include <string.h>

#include "net-host.h"

enum { CTRL_NOTF_COAL = 6, NOTF_COAL_TX_SET = 0, NOTF_COAL_RX_SET, NOTF_COAL_VQ_SET, NOTF_COAL_VQ_GET };

/* What follows the acknowledgement */
struct result {
	uint32_t word[2];
	size_t len;
};

int net_ctrl_index(const struct net *net)
{
	const struct backend *b = net->b;

	if (!backend_has(b, VIRTIO_NET_F_CTRL_VQ))
		return -1;
	return backend_has(b, VIRTIO_NET_F_MQ) || backend_has(b, VIRTIO_NET_F_RSS) ? (int)net->npairs * 2 : 2;
}

/* Copies to the pairs */

static void pair_apply(void *arg)
{
	struct net_pair *p = arg;
	const struct net *net = p->net;

	p->filter = net->filter;
	p->offloads = net->guest_offloads;
	p->rx_coalesce = net->rx_coalesce[p->index];
	p->tx_coalesce = net->tx_coalesce[p->index];
	net_pair_use(p);
	if (p->rx)
		virtqueue_wake(p->rx);
}

static void apply(struct net *net)
{
	unsigned i;

	for (i = 0; i < net->npairs; i++)
		if (net->pairs[i].rx)
			loop_call(virtqueue_loop(net->pairs[i].rx), pair_apply, &net->pairs[i]);
}

static void accept_offloads(struct net *net, uint64_t offloads)
{
	net->guest_offloads = offloads;
	if (net->host->ops->accept)
		net->host->ops->accept(net->host, offloads);
}

void net_ctrl_reset(struct net *net)
{
	const struct backend *b = net->b;
	bool mq = backend_has(b, VIRTIO_NET_F_MQ) || backend_has(b, VIRTIO_NET_F_RSS);

	net->loaded = false;
	net_filter_reset(&net->filter, net->mac, backend_has(b, VIRTIO_NET_F_CTRL_VLAN));
	memcpy(b->config, net->mac, 6);
	net->active = backend_has(b, VIRTIO_NET_F_CTRL_VQ) && mq ? 1 : net->npairs;
	net->rss = (struct net_rss){0};
	memset(net->rx_coalesce, 0, sizeof(net->rx_coalesce));
	memset(net->tx_coalesce, 0, sizeof(net->tx_coalesce));
	accept_offloads(net, b->features & NET_GUEST_OFFLOADS);
}

/* The guest is somewhere else now, and says so when it is asked to. */
void net_ctrl_loaded(struct net *net)
{
	const struct backend *b = net->b;

	net->loaded = false;
	net->filter.vlans_on = backend_has(b, VIRTIO_NET_F_CTRL_VLAN);
	accept_offloads(net, net->guest_offloads & b->features & NET_GUEST_OFFLOADS);
	if (net->link && backend_has(b, VIRTIO_NET_F_GUEST_ANNOUNCE) && net_ctrl_index(net) >= 0)
		loop_post(b->loop, &net->announce); /* a queue starts, in its own thread perhaps */
}

/* Commands: true is VIRTIO_NET_OK. One that fails changes nothing. */

static bool get_u16(struct cursor *c, uint16_t *v)
{
	uint8_t raw[2];

	if (!cursor_get(c, raw, 2))
		return false;
	*v = (uint16_t)(raw[0] | raw[1] << 8);
	return true;
}

static bool get_u32(struct cursor *c, uint32_t *v)
{
	uint8_t raw[4];

	if (!cursor_get(c, raw, 4))
		return false;
	*v = raw[0] | (uint32_t)raw[1] << 8 | (uint32_t)raw[2] << 16 | (uint32_t)raw[3] << 24;
	return true;
}

static bool rx_mode(struct net *net, uint8_t command, struct cursor *c)
{
	struct net_filter *f = &net->filter;
	bool *const mode[] = {&f->promisc, &f->allmulti, &f->alluni, &f->nomulti, &f->nouni, &f->nobcast};
	uint8_t on;

	if (command >= ARRAY_SIZE(mode) || !cursor_get(c, &on, 1))
		return false;
	if (command > VIRTIO_NET_CTRL_RX_ALLMULTI && !backend_has(net->b, VIRTIO_NET_F_CTRL_RX_EXTRA))
		return false;
	*mode[command] = on;
	return true;
}

/* A list of addresses: as many as fit are kept, more stand for all. */
static bool mac_list(struct net_filter *f, struct cursor *c, bool *overflow)
{
	uint32_t n, i;

	if (!get_u32(c, &n) || n > c->left / 6)
		return false;
	*overflow = n > NET_MACS - f->count;
	if (*overflow)
		return cursor_skip(c, (size_t)n * 6);
	for (i = 0; i < n; i++)
		cursor_get(c, f->table[f->count++], 6);
	return true;
}

static bool mac(struct net *net, uint8_t command, struct cursor *c)
{
	struct net_filter *f = &net->filter, new = *f;

	if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
		if (!backend_has(net->b, VIRTIO_NET_F_CTRL_MAC_ADDR) || c->left != 6)
			return false;
		cursor_get(c, f->mac, 6);
		memcpy(net->b->config, f->mac, 6);
		return true;
	}
	if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET)
		return false;
	new.count = 0;
	if (!mac_list(&new, c, &new.uni_overflow))
		return false;
	new.first_multi = new.count;
	if (!mac_list(&new, c, &new.multi_overflow) || c->left)
		return false;
	*f = new;
	return true;
}

static bool vlan(struct net *net, uint8_t command, struct cursor *c)
{
	uint16_t id;

	if (!backend_has(net->b, VIRTIO_NET_F_CTRL_VLAN) || !get_u16(c, &id) || id >= NET_VLANS)
		return false;
	if (command == VIRTIO_NET_CTRL_VLAN_ADD)
		net->filter.vlans[id / 32] |= (uint32_t)BIT(id % 32);
	else if (command == VIRTIO_NET_CTRL_VLAN_DEL)
		net->filter.vlans[id / 32] &= (uint32_t)~BIT(id % 32);
	else
		return false;
	return true;
}

static bool announce(struct net *net, uint8_t command, struct cursor *c)
{
	(void)c;
	if (command != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !backend_has(net->b, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	net_status(net, 0, VIRTIO_NET_S_ANNOUNCE, false);
	return true;
}

static bool hash_key(struct net_rss *rss, struct cursor *c)
{
	uint8_t n;

	return cursor_get(c, &n, 1) && n <= NET_RSS_KEY && cursor_get(c, rss->key, n) && !c->left;
}

static bool rss_config(struct net *net, struct cursor *c)
{
	struct net_rss rss = {.on = true};
	uint16_t transmit;
	unsigned i;

	if (!backend_has(net->b, VIRTIO_NET_F_RSS) || !get_u32(c, &rss.types) ||
		(rss.types & ~(uint32_t)NET_HASH_TYPES) || !get_u16(c, &rss.mask) ||
		rss.mask >= NET_RSS_TABLE || (rss.mask & (rss.mask + 1)) || !get_u16(c, &rss.unclassified) ||
		rss.unclassified >= net->npairs)
		return false;
	for (i = 0; i <= rss.mask; i++)
		if (!get_u16(c, &rss.table[i]) || rss.table[i] >= net->npairs)
			return false;
	if (!get_u16(c, &transmit) || !transmit || transmit > net->npairs || !hash_key(&rss, c))
		return false;
	net->rss = rss;
	net->active = net->npairs;
	return true;
}

static bool hash_config(struct net *net, struct cursor *c)
{
	struct net_rss rss = {0};
	uint8_t reserved[8];

	if (!backend_has(net->b, VIRTIO_NET_F_HASH_REPORT) || !get_u32(c, &rss.types) ||
		(rss.types & ~(uint32_t)NET_HASH_TYPES) || !cursor_get(c, reserved, sizeof(reserved)) ||
		!hash_key(&rss, c))
		return false;
	net->rss = rss;
	return true;
}

static bool queues(struct net *net, uint8_t command, struct cursor *c)
{
	uint16_t n;

	if (command == VIRTIO_NET_CTRL_MQ_RSS_CONFIG)
		return rss_config(net, c);
	if (command == VIRTIO_NET_CTRL_MQ_HASH_CONFIG)
		return hash_config(net, c);
	if (command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !backend_has(net->b, VIRTIO_NET_F_MQ) ||
		!get_u16(c, &n) || !n || n > net->npairs)
		return false;
	net->active = n;
	net->rss.on = false;
	return true;
}

static bool offloads(struct net *net, uint8_t command, struct cursor *c)
{
	uint8_t raw[8];
	uint64_t v;

	if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
		!backend_has(net->b, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !cursor_get(c, raw, sizeof(raw)))
		return false;
	memcpy(&v, raw, sizeof(v));
	v = le64toh(v);
	if (v & ~(net->b->features & NET_GUEST_OFFLOADS))
		return false;
	accept_offloads(net, v);
	return true;
}

static bool coalesce_get(struct cursor *c, struct net_coalesce *v)
{
	struct net_coalesce new;

	if (!get_u32(c, &new.packets) || !get_u32(c, &new.usecs))
		return false;
	new.usecs = MIN(new.usecs, 1000000u);
	*v = new;
	return true;
}

/* Of all queues of a direction */
static bool coalesce_all(struct net *net, struct net_coalesce *all, struct cursor *c)
{
	struct net_coalesce v;
	unsigned i;

	if (!backend_has(net->b, NET_F_NOTF_COAL) || !coalesce_get(c, &v))
		return false;
	for (i = 0; i < net->npairs; i++)
		all[i] = v;
	return true;
}

/* Of one queue that runs */
static bool coalesce_one(struct net *net, bool set, struct cursor *c, struct result *r)
{
	uint16_t queue, reserved;
	struct net_coalesce *v;

	if (!backend_has(net->b, NET_F_VQ_NOTF_COAL) || !get_u16(c, &queue) || !get_u16(c, &reserved) ||
		queue / 2 >= net->npairs)
		return false;
	if (queue % 2 ? !net->pairs[queue / 2].tx : !net->pairs[queue / 2].rx)
		return false;
	v = queue % 2 ? &net->tx_coalesce[queue / 2] : &net->rx_coalesce[queue / 2];
	if (set)
		return coalesce_get(c, v);
	*r = (struct result){{htole32(v->packets), htole32(v->usecs)}, 2 * sizeof(uint32_t)};
	return true;
}

static bool coalesce(struct net *net, uint8_t command, struct cursor *c, struct result *r)
{
	switch (command) {
	case NOTF_COAL_TX_SET:
		return coalesce_all(net, net->tx_coalesce, c);
	case NOTF_COAL_RX_SET:
		return coalesce_all(net, net->rx_coalesce, c);
	case NOTF_COAL_VQ_SET:
	case NOTF_COAL_VQ_GET:
		return coalesce_one(net, command == NOTF_COAL_VQ_SET, c, r);
	}
	return false;
}

static bool run(struct net *net, struct cursor *c, struct result *r)
{
	uint8_t head[2];

	if (!cursor_get(c, head, 2))
		return false;
	switch (head[0]) {
	case VIRTIO_NET_CTRL_RX:
		return rx_mode(net, head[1], c);
	case VIRTIO_NET_CTRL_MAC:
		return mac(net, head[1], c);
	case VIRTIO_NET_CTRL_VLAN:
		return vlan(net, head[1], c);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return announce(net, head[1], c);
	case VIRTIO_NET_CTRL_MQ:
		return queues(net, head[1], c);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return offloads(net, head[1], c);
	case CTRL_NOTF_COAL:
		return coalesce(net, head[1], c, r);
	}
	return false;
}

void net_ctrl_ready(struct net *net, struct virtqueue *q)
{
	struct element *e;

	while ((e = virtqueue_pop(q))) {
		uint8_t ack = VIRTIO_NET_ERR;
		struct result r = {.len = 0};

		if (!e->wr.left) {
			virtqueue_break(q, "a command without room for its answer");
			virtqueue_unpop(e);
			return;
		}
		if (run(net, &e->rd, &r) && r.len < e->wr.left) {
			ack = VIRTIO_NET_OK;
			apply(net);
		} else {
			virtqueue_count_error(q);
		}
		cursor_put(&e->wr, &ack, 1);
		if (ack == VIRTIO_NET_OK)
			cursor_put(&e->wr, r.word, r.len);
		virtqueue_push(e);
	}
}
