/* SPDX-License-Identifier: MIT */
/*
 * What migrates of a network card besides its rings, where the front-end leaves the control queue to us: all that the driver has said
 * there. All numbers are little-endian. The other end has as many queue pairs; what is loaded is the front-end's word, and checked
 * before anything changes. It counts from the next start of a queue on, when features are known.
 */
#include <errno.h>
#include <string.h>

#include "net-host.h"

#define STATE_MAGIC "vum-net1"

struct saved_coalesce {
	uint32_t packets, usecs;
};

struct saved {
	char magic[8];
	uint64_t offloads;
	uint16_t pairs, active, first_multi, macs;
	uint32_t flags; /* one for each of flags_of(), in their order; then RSS */
	uint32_t hash_types;
	uint16_t mask, unclassified;
	uint8_t mac[6], unused[6];
	uint8_t key[NET_RSS_KEY];
	uint16_t table[NET_RSS_TABLE];
	uint8_t mac_table[NET_MACS][6];
	uint32_t vlans[NET_VLANS / 32];
	struct saved_coalesce rx[NET_MAX_PAIRS], tx[NET_MAX_PAIRS];
};

enum { FLAGS = 8 };

static bool *flag_of(struct net_filter *f, unsigned i)
{
	bool *const flags[FLAGS] = {&f->promisc, &f->allmulti, &f->alluni, &f->nomulti, &f->nouni,
		&f->nobcast, &f->uni_overflow, &f->multi_overflow};

	return flags[i];
}

/* Saving */

static void save_filter(struct saved *s, struct net_filter *f)
{
	uint32_t flags = 0;

	for (unsigned i = 0; i < FLAGS; i++)
		flags |= *flag_of(f, i) ? (uint32_t)BIT(i) : 0;
	s->flags = htole32(flags);
	s->first_multi = htole16((uint16_t)f->first_multi);
	s->macs = htole16((uint16_t)f->count);
	memcpy(s->mac, f->mac, 6);
	memcpy(s->mac_table, f->table, sizeof(s->mac_table));
	for (unsigned i = 0; i < NET_VLANS / 32; i++)
		s->vlans[i] = htole32(f->vlans[i]);
}

static void save_rss(struct saved *s, const struct net_rss *rss)
{
	s->flags |= htole32(rss->on ? (uint32_t)BIT(FLAGS) : 0);
	s->hash_types = htole32(rss->types);
	s->mask = htole16(rss->mask);
	s->unclassified = htole16(rss->unclassified);
	memcpy(s->key, rss->key, sizeof(s->key));
	for (unsigned i = 0; i < NET_RSS_TABLE; i++)
		s->table[i] = htole16(rss->table[i]);
}

static void save_coalesce(struct saved_coalesce *s, const struct net_coalesce *c)
{
	for (unsigned i = 0; i < NET_MAX_PAIRS; i++)
		s[i] = (struct saved_coalesce){htole32(c[i].packets), htole32(c[i].usecs)};
}

int net_save(struct backend *b, int fd)
{
	struct net *net = b->state;
	struct saved s = {.magic = STATE_MAGIC,
		.offloads = htole64(net->guest_offloads),
		.pairs = htole16((uint16_t)net->npairs),
		.active = htole16((uint16_t)net->active)};

	save_filter(&s, &net->filter);
	save_rss(&s, &net->rss);
	save_coalesce(s.rx, net->rx_coalesce);
	save_coalesce(s.tx, net->tx_coalesce);
	return write(fd, &s, sizeof(s)) == sizeof(s)
		       ? 0
		       : log_guest_errno(EIO, "device state could not be written");
}

/* Loading */

static bool rss_sound(const struct saved *s, unsigned npairs)
{
	unsigned mask = le16toh(s->mask);

	if (le32toh(s->hash_types) & ~(uint32_t)NET_HASH_TYPES || mask >= NET_RSS_TABLE ||
		mask & (mask + 1) || le16toh(s->unclassified) >= npairs)
		return false;
	for (unsigned i = 0; i < NET_RSS_TABLE; i++)
		if (le16toh(s->table[i]) >= npairs)
			return false;
	return true;
}

static bool sound(const struct saved *s, unsigned npairs)
{
	return memcmp(s->magic, STATE_MAGIC, sizeof(s->magic)) == 0 && le16toh(s->pairs) == npairs &&
	       le16toh(s->active) >= 1 && le16toh(s->active) <= npairs && le16toh(s->macs) <= NET_MACS &&
	       le16toh(s->first_multi) <= le16toh(s->macs) && le32toh(s->flags) < BIT(FLAGS + 1) &&
	       rss_sound(s, npairs);
}

static void load_filter(struct net_filter *f, const struct saved *s)
{
	for (unsigned i = 0; i < FLAGS; i++)
		*flag_of(f, i) = le32toh(s->flags) & BIT(i);
	f->first_multi = le16toh(s->first_multi);
	f->count = le16toh(s->macs);
	memcpy(f->mac, s->mac, 6);
	memcpy(f->table, s->mac_table, sizeof(f->table));
	for (unsigned i = 0; i < NET_VLANS / 32; i++)
		f->vlans[i] = le32toh(s->vlans[i]);
}

static void load_rss(struct net_rss *rss, const struct saved *s)
{
	rss->on = le32toh(s->flags) & BIT(FLAGS);
	rss->types = le32toh(s->hash_types);
	rss->mask = le16toh(s->mask);
	rss->unclassified = le16toh(s->unclassified);
	memcpy(rss->key, s->key, sizeof(rss->key));
	for (unsigned i = 0; i < NET_RSS_TABLE; i++)
		rss->table[i] = le16toh(s->table[i]);
}

static void load_coalesce(struct net_coalesce *c, const struct saved_coalesce *s)
{
	for (unsigned i = 0; i < NET_MAX_PAIRS; i++)
		c[i] = (struct net_coalesce){le32toh(s[i].packets), MIN(le32toh(s[i].usecs), 1000000u)};
}

/* The whole state, and nothing behind it. */
static bool read_all(int fd, struct saved *s)
{
	size_t got = 0;
	char more;

	while (got < sizeof(*s)) {
		ssize_t n = read(fd, (char *)s + got, sizeof(*s) - got);

		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return read(fd, &more, 1) == 0;
}

int net_load(struct backend *b, int fd)
{
	struct net *net = b->state;
	struct saved s;

	if (!read_all(fd, &s) || !sound(&s, net->npairs))
		return log_guest_errno(
			EINVAL, "device state is not that of a card with %u queue pairs", net->npairs);
	load_filter(&net->filter, &s);
	load_rss(&net->rss, &s);
	load_coalesce(net->rx_coalesce, s.rx);
	load_coalesce(net->tx_coalesce, s.tx);
	net->active = le16toh(s.active);
	net->guest_offloads = le64toh(s.offloads);
	memcpy(b->config, s.mac, 6);
	net->loaded = true;
	return 0;
}
