/* SPDX-License-Identifier: MIT */
/*
 * What migrates besides the rings: of the driver's choices the sizes of sense data and CDBs, events that wait for a
 * buffer, and of each unit its mode, unit attentions, medium, and reservations. All numbers are little-endian.
 *
 * The other end has the same units; one that it lacks makes loading fail, one that it has besides is new to the guest.
 * What is loaded is the front-end's word: all of it is checked before anything changes.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "scsi.h"

#define STATE_MAGIC "vum-sc-1"
#define SAVED_STATE ((uint32_t)(STATE_STOPPED | STATE_NO_MEDIUM | STATE_PREVENTED))
#define ALL_MODES   ((uint32_t)(MODE_WCE | MODE_D_SENSE | MODE_SWP))

struct saved_event {
	uint32_t event, reason;
	uint8_t lun[8];
};

struct saved_head {
	char magic[8];
	uint32_t sense_size, cdb_size;
	uint32_t units, events;
	uint8_t missed, unused[7];
	struct saved_event event[SCSI_EVENTS];
};

struct saved_unit {
	uint16_t target, number;
	uint32_t mode, attention, state;
	uint8_t reserved, watched_media;
	uint8_t type, holder, persist, unused[3]; /* of the reservation */
	uint32_t generation;
	uint32_t unused2;
	struct pr_registration who[PR_MAX];
};

/* Saving */

struct save {
	int fd;
	bool failed;
};

static void put(struct save *s, const void *data, size_t size)
{
	if (write(s->fd, data, size) != (ssize_t)size)
		s->failed = true;
}

static void save_unit(struct scsi_lun *l, void *arg)
{
	struct saved_unit u = {.target = htole16(l->target),
		.number = htole16(l->number),
		.mode = htole32(scsi_lun_mode(l)),
		.attention = htole32(__atomic_load_n(&l->attention, __ATOMIC_SEQ_CST)),
		.state = htole32(__atomic_load_n(&l->state, __ATOMIC_SEQ_CST) & SAVED_STATE),
		.reserved = l->reserved,
		.watched_media = __atomic_load_n(&l->watched_media, __ATOMIC_RELAXED),
		.type = l->pr.type,
		.holder = l->pr.holder,
		.persist = l->pr.persist,
		.generation = htole32(l->pr.generation)};

	for (unsigned i = 0; i < PR_MAX; i++) {
		u.who[i].key = htole64(l->pr.who[i].key);
		if (u.who[i].key != 0)
			memcpy(u.who[i].name, l->pr.who[i].name, PR_NAME);
	}
	put(arg, &u, sizeof(u));
}

static void count(struct scsi_lun *l, void *arg)
{
	(void)l;
	++*(uint32_t *)arg;
}

int scsi_state_save(struct backend *b, int fd)
{
	const struct virtio_scsi_config *c = (const void *)b->config;
	struct scsi *s = scsi_of(b);
	struct save save = {.fd = fd};
	struct saved_head h = {.magic = STATE_MAGIC,
		.sense_size = c->sense_size,
		.cdb_size = c->cdb_size,
		.events = htole32(s->events.n),
		.missed = s->events.missed};
	uint32_t units = 0;

	scsi_lun_each(s, -1, count, &units);
	h.units = htole32(units);
	for (unsigned i = 0; i < s->events.n; i++) {
		h.event[i].event = htole32(s->events.pending[i].event);
		h.event[i].reason = htole32(s->events.pending[i].reason);
		memcpy(h.event[i].lun, s->events.pending[i].lun, 8);
	}
	put(&save, &h, sizeof(h));
	scsi_lun_each(s, -1, save_unit, &save);
	return save.failed ? log_errno(EIO, "device state could not be written") : 0;
}

/* Loading */

static bool get(int fd, void *data, size_t size)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = read(fd, (char *)data + got, size - got);

		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return true;
}

static bool reservation_sound(const struct saved_unit *u)
{
	for (unsigned i = 0; i < PR_MAX; i++) {
		size_t len = strnlen(u->who[i].name, PR_NAME);

		if (u->who[i].key != 0 && (len == 0 || len == PR_NAME))
			return false;
	}
	if (u->holder >= PR_MAX)
		return false;
	return u->type == PR_NONE || (pr_type_valid(u->type) && u->who[u->holder].key != 0);
}

static bool unit_sound(const struct saved_unit *u)
{
	return u->reserved <= 1 && u->watched_media <= 1 && u->persist <= 1 &&
	       !(le32toh(u->mode) & ~ALL_MODES) && le32toh(u->attention) < 1u << ATTENTIONS &&
	       !(le32toh(u->state) & ~SAVED_STATE) && reservation_sound(u);
}

static bool head_sound(const struct saved_head *h)
{
	return memcmp(h->magic, STATE_MAGIC, sizeof(h->magic)) == 0 && le32toh(h->units) <= SCSI_MAX_LUNS &&
	       le32toh(h->events) <= SCSI_EVENTS && h->missed <= 1 &&
	       scsi_sizes_valid(h->sense_size, h->cdb_size);
}

static void load_reservation(struct scsi_lun *l, const struct saved_unit *u)
{
	struct scsi_pr *pr = &l->pr;
	bool kept = pr->persist;

	memset(pr, 0, sizeof(*pr));
	pr->generation = le32toh(u->generation);
	pr->type = u->type;
	pr->holder = u->holder;
	pr->persist = u->persist;
	for (unsigned i = 0; i < PR_MAX; i++) {
		pr->who[i].key = le64toh(u->who[i].key);
		if (pr->who[i].key != 0)
			memcpy(pr->who[i].name, u->who[i].name, PR_NAME);
	}
	if (l->pr_fd >= 0 && (kept || pr->persist) && pr_file_save(l->pr_fd, pr) < 0)
		log_warn("reservations of unit %u:%u could not be kept", l->target, l->number);
	scsi_pr_apply(l);
}

static void load_unit(struct scsi *s, const struct saved_unit *u)
{
	struct scsi_lun *l = scsi_lun_find(s, le16toh(u->target), le16toh(u->number));

	if (l == NULL)
		return;
	__atomic_store_n(&l->mode, le32toh(u->mode), __ATOMIC_SEQ_CST);
	__atomic_store_n(&l->attention, le32toh(u->attention), __ATOMIC_SEQ_CST);
	__atomic_store_n(&l->watched_media, u->watched_media != 0, __ATOMIC_RELAXED);
	scsi_lun_clear(l, SAVED_STATE | STATE_ATTENTION);
	scsi_lun_set(l, le32toh(u->state) | (u->attention != 0 ? STATE_ATTENTION : 0));
	l->reserved = u->reserved;
	if (l->sg == NULL)
		load_reservation(l, u);
}

static void load_head(struct backend *b, const struct saved_head *h)
{
	struct virtio_scsi_config *c = (void *)b->config;
	struct scsi *s = scsi_of(b);

	c->sense_size = h->sense_size;
	c->cdb_size = h->cdb_size;
	s->events.n = le32toh(h->events);
	s->events.missed = h->missed;
	s->events.loaded = true;
	for (unsigned i = 0; i < s->events.n; i++) {
		s->events.pending[i].event = le32toh(h->event[i].event);
		s->events.pending[i].reason = le32toh(h->event[i].reason);
		memcpy(s->events.pending[i].lun, h->event[i].lun, 8);
	}
}

static int units_check(struct scsi *s, const struct saved_unit *units, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned target = le16toh(units[i].target), number = le16toh(units[i].number);

		if (!unit_sound(&units[i]))
			return log_errno(EINVAL, "device state: unit %u:%u makes no sense", target, number);
		if (scsi_lun_find(s, target, number) == NULL)
			return log_errno(EINVAL, "device state: there is no unit %u:%u here", target, number);
	}
	return 0;
}

int scsi_state_load(struct backend *b, int fd)
{
	struct scsi *s = scsi_of(b);
	CLEANUP_FREE struct saved_unit *units = NULL;
	struct saved_head h;
	unsigned n;
	char more;
	int r;

	if (!get(fd, &h, sizeof(h)) || !head_sound(&h))
		return log_errno(EINVAL, "device state is not that of a SCSI host adapter");
	n = le32toh(h.units);
	units = malloc(MAX(n, 1u) * sizeof(*units));
	if (units == NULL)
		return log_errno(ENOMEM, "device state");
	if (!get(fd, units, n * sizeof(*units)) || read(fd, &more, 1) != 0)
		return log_errno(EINVAL, "device state does not end where it should");
	r = units_check(s, units, n);
	if (r < 0)
		return r;
	pthread_mutex_lock(&s->lock);
	load_head(b, &h);
	for (unsigned i = 0; i < n; i++)
		load_unit(s, &units[i]);
	pthread_mutex_unlock(&s->lock);
	return 0;
}
