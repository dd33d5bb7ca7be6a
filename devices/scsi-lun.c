/* SPDX-License-Identifier: MIT */
/*
 * The logical units: where they come from (`--lun=`, the control socket), how an address finds one, unit attentions, and
 * how one goes. A table of atomic pointers is what requests look into; a unit that was taken out of it is freed when no
 * queue has a request for it any more.
 */
#include "scsi.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SG_TIMEOUT     30000u		      /* ms */
#define SG_TIMEOUT_MAX (24u * 60 * 60 * 1000) /* ms */

/* Finding */

static unsigned slot_of(unsigned target, unsigned lun)
{
	return (target * 37 + lun) % SCSI_MAX_LUNS;
}

struct scsi_lun *scsi_lun_find(struct scsi *s, unsigned target, unsigned lun)
{
	unsigned first = slot_of(target, lun);

	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++) {
		struct scsi_lun *l =
			__atomic_load_n(&s->units[(first + i) % SCSI_MAX_LUNS], __ATOMIC_ACQUIRE);

		if (l != NULL && l->target == target && l->number == lun)
			return l;
	}
	return NULL;
}

void scsi_lun_each(struct scsi *s, int target, void (*fn)(struct scsi_lun *l, void *arg), void *arg)
{
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++) {
		struct scsi_lun *l = __atomic_load_n(&s->units[i], __ATOMIC_ACQUIRE);

		if (l != NULL && (target < 0 || l->target == target))
			fn(l, arg);
	}
}

static void count_unit(struct scsi_lun *l, void *arg)
{
	(void)l;
	++*(unsigned *)arg;
}

bool scsi_target_exists(struct scsi *s, unsigned target)
{
	unsigned n = 0;

	scsi_lun_each(s, (int)target, count_unit, &n);
	return n > 0;
}

uint64_t scsi_lun_blocks(const struct scsi_lun *l)
{
	return disk_size(l->disk) >> l->shift;
}

/* Unit attentions */

static const uint32_t attention_codes[ATTENTIONS] = {
	[ATTENTION_POWER_ON] = SENSE_POWER_ON,
	[ATTENTION_RESET] = SENSE_UNIT_RESET,
	[ATTENTION_NEXUS_LOSS] = SENSE_NEXUS_LOSS,
	[ATTENTION_MEDIUM] = SENSE_MEDIUM_CHANGED,
	[ATTENTION_LUNS] = SENSE_LUNS_CHANGED,
	[ATTENTION_CAPACITY] = SENSE_CAPACITY_CHANGED,
	[ATTENTION_MODE] = SENSE_MODE_CHANGED,
	[ATTENTION_RESERVATIONS_PREEMPTED] = SENSE_RESERVATIONS_PREEMPTED,
	[ATTENTION_RESERVATIONS_RELEASED] = SENSE_RESERVATIONS_RELEASED,
	[ATTENTION_REGISTRATIONS_PREEMPTED] = SENSE_REGISTRATIONS_PREEMPTED,
};

void scsi_lun_attention(struct scsi_lun *l, enum scsi_attention a)
{
	__atomic_fetch_or(&l->attention, 1u << a, __ATOMIC_SEQ_CST);
	scsi_lun_set(l, STATE_ATTENTION);
}

/* The bit in state goes first: one that comes meanwhile sets it again. */
static void attention_update(struct scsi_lun *l)
{
	scsi_lun_clear(l, STATE_ATTENTION);
	if (__atomic_load_n(&l->attention, __ATOMIC_SEQ_CST) != 0)
		scsi_lun_set(l, STATE_ATTENTION);
}

void scsi_lun_attention_clear(struct scsi_lun *l, enum scsi_attention a)
{
	if (!(__atomic_fetch_and(&l->attention, ~(1u << a), __ATOMIC_SEQ_CST) & 1u << a))
		return;
	attention_update(l);
}

uint32_t scsi_lun_attention_take(struct scsi_lun *l)
{
	for (;;) {
		uint32_t pending = __atomic_load_n(&l->attention, __ATOMIC_SEQ_CST);
		unsigned a;

		if (pending == 0) {
			attention_update(l);
			return SENSE_NONE;
		}
		a = (unsigned)__builtin_ctz(pending);
		if (__atomic_fetch_and(&l->attention, ~(1u << a), __ATOMIC_SEQ_CST) & 1u << a) {
			attention_update(l);
			return attention_codes[a];
		}
	}
}

/* What stays: the write cache as the driver switched it, for it may not notice; a stopped medium does not. */
void scsi_lun_reset(struct scsi_lun *l, enum scsi_attention a)
{
	struct scsi *s = l->scsi;

	pthread_mutex_lock(&s->lock);
	l->reserved = false;
	__atomic_fetch_and(&l->mode, (uint32_t)MODE_WCE, __ATOMIC_SEQ_CST);
	scsi_lun_clear(l, STATE_STOPPED | STATE_PREVENTED);
	pthread_mutex_unlock(&s->lock);
	scsi_lun_attention(l, a);
}

/* Making one */

bool scsi_lun_number(const char *text, unsigned *target, unsigned *lun)
{
	int n = 0;

	return sscanf(text, "%4u:%6u%n", target, lun, &n) == 2 && text[n] == '\0' && text[0] >= '0' &&
	       text[0] <= '9' && *target <= SCSI_MAX_TARGET && *lun <= SCSI_MAX_LUN;
}

/* What a specification says. */
struct spec {
	unsigned target, lun;
	struct disk_options disk;
	char *serial, *reservations, *sg;
	uint64_t block, sg_timeout;
	bool removable, cdrom, writethrough, all_commands;
	char *why;
	size_t size;
};

static int spec_error(struct spec *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int spec_error(struct spec *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why, p->size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* Cuts the next part off, at a comma; two commas stand for one. */
static char *spec_next(char **at)
{
	char *start = *at, *to = *at, *from = *at;

	if (start == NULL)
		return NULL;
	while (*from != '\0') {
		if (*from == ',' && *++from != ',')
			break;
		*to++ = *from++;
	}
	*at = *from != '\0' ? from : NULL;
	*to = '\0';
	return start;
}

static const struct {
	const char *name;
	size_t offset;
} spec_flags[] = {
	{"ro", offsetof(struct spec, disk.read_only)},
	{"direct", offsetof(struct spec, disk.direct)},
	{"removable", offsetof(struct spec, removable)},
	{"cdrom", offsetof(struct spec, cdrom)},
	{"writethrough", offsetof(struct spec, writethrough)},
	{"all-commands", offsetof(struct spec, all_commands)},
};

static int spec_flag(struct spec *p, const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(spec_flags); i++)
		if (strcmp(spec_flags[i].name, key) == 0) {
			*(bool *)((char *)p + spec_flags[i].offset) = true;
			return 0;
		}
	return spec_error(p, "%s: no such key", key);
}

static const struct {
	const char *name, *kind;
	size_t offset; /* of a uint64_t */
	uint64_t min;
	bool (*parse)(const char *text, uint64_t *out);
} spec_numbers[] = {
	{"null", "size of 512 bytes or more", offsetof(struct spec, disk.null_size), 512, options_parse_size},
	{"nbd-retry", "time", offsetof(struct spec, disk.nbd_retry), 0, options_parse_duration},
	{"sg-timeout", "time", offsetof(struct spec, sg_timeout), 0, options_parse_duration},
	{"iops", "number", offsetof(struct spec, disk.iops), 0, options_parse_u64},
	{"iops-burst", "number", offsetof(struct spec, disk.iops_burst), 0, options_parse_u64},
	{"bps", "size", offsetof(struct spec, disk.bps), 0, options_parse_size},
	{"bps-burst", "size", offsetof(struct spec, disk.bps_burst), 0, options_parse_size},
};

/* False: key is none of these. */
static bool spec_number(struct spec *p, const char *key, const char *value, int *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(spec_numbers); i++) {
		uint64_t *n = (uint64_t *)(void *)((char *)p + spec_numbers[i].offset);
		uint64_t max = spec_numbers[i].min != 0 ? INT64_MAX : DISK_LIMIT_MAX;

		if (strcmp(spec_numbers[i].name, key) != 0)
			continue;
		*r = 0;
		if (!spec_numbers[i].parse(value, n) || *n < spec_numbers[i].min || *n > max)
			*r = spec_error(p, "%s=%s: no %s", key, value, spec_numbers[i].kind);
		return true;
	}
	return false;
}

static int spec_value(struct spec *p, const char *key, char *value)
{
	int r;

	if (strcmp(key, "file") == 0 && value[0] != '\0')
		p->disk.path = value;
	else if (strcmp(key, "nbd") == 0 && value[0] != '\0')
		p->disk.nbd = value;
	else if (strcmp(key, "sg") == 0 && value[0] != '\0')
		p->sg = value;
	else if (strcmp(key, "serial") == 0)
		p->serial = value;
	else if (strcmp(key, "reservations") == 0 && value[0] != '\0')
		p->reservations = value;
	else if (strcmp(key, "lock") == 0 && (strcmp(value, "on") == 0 || strcmp(value, "off") == 0))
		p->disk.lock = value[1] == 'n';
	else if (spec_number(p, key, value, &r))
		return r;
	else if (strcmp(key, "block-size") == 0) {
		if (!options_parse_u64(value, &p->block) || p->block < 512 || p->block > 65536 ||
			(p->block & (p->block - 1)))
			return spec_error(p, "block-size=%s: no power of two from 512 to 65536", value);
	} else
		return spec_error(p, "%s=%s: no such key or value", key, value);
	return 0;
}

/* A real device has its properties itself. */
static int spec_check_sg(struct spec *p)
{
	const struct disk_options *d = &p->disk;

	if (p->sg == NULL && (p->sg_timeout != 0 || p->all_commands))
		return spec_error(p, "sg-timeout= and all-commands need sg=");
	if (p->sg != NULL &&
		(p->removable || p->cdrom || p->writethrough || p->block != 0 || p->serial != NULL ||
			p->reservations != NULL || d->read_only || d->direct || d->iops != 0 ||
			d->iops_burst != 0 || d->bps != 0 || d->bps_burst != 0))
		return spec_error(p, "sg= goes with sg-timeout= and all-commands only");
	if (p->sg_timeout > SG_TIMEOUT_MAX)
		return spec_error(p, "sg-timeout=: more than a day");
	return 0;
}

static int spec_parse(struct spec *p, char *text)
{
	char *part = spec_next(&text);
	int r = 0;

	if (part == NULL || !scsi_lun_number(part, &p->target, &p->lun))
		return spec_error(p, "%s: no TARGET:LUN up to %u:%u", part != NULL ? part : "",
			SCSI_MAX_TARGET, SCSI_MAX_LUN);
	while (r == 0 && (part = spec_next(&text)) != NULL) {
		char *value = strchr(part, '=');

		if (value == NULL) {
			r = spec_flag(p, part);
		} else {
			*value = '\0';
			r = spec_value(p, part, value + 1);
		}
	}
	if (r == 0 &&
		(p->disk.path != NULL) + (p->disk.nbd != NULL) + (p->disk.null_size != 0) + (p->sg != NULL) !=
			1)
		r = spec_error(p, "exactly one of file=, nbd=, null= and sg= is needed");
	if (r == 0)
		r = spec_check_sg(p);
	if (r == 0 && p->serial != NULL && (p->serial[0] == '\0' || strlen(p->serial) > SCSI_SERIAL))
		r = spec_error(p, "serial=%s: not 1 to %u bytes", p->serial, SCSI_SERIAL);
	return r;
}

static void lun_free(struct scsi_lun *l)
{
	disk_watch_del(&l->watch);
	disk_close(l->disk);
	scsi_sg_close(l->sg);
	fd_close(&l->pr_fd);
	free(l->source);
	free(l);
}

/* SBC-3, 4.4: the guest asks for the capacity again. */
static void size_changed(struct disk_watch *w)
{
	struct scsi_lun *l = container_of(w, struct scsi_lun, watch);

	scsi_lun_attention(l, ATTENTION_CAPACITY);
	scsi_event_send(l->scsi, VIRTIO_SCSI_T_PARAM_CHANGE, l->target, l->number, 0x2a | 0x09 << 8);
	scsi_tell(l, "resized");
}

static int lun_open_sg(struct scsi_lun *l, struct spec *p)
{
	uint32_t timeout = p->sg_timeout != 0 ? (uint32_t)p->sg_timeout : SG_TIMEOUT;
	const char *what;
	int r;

	l->source = strdup(p->sg);
	if (l->source == NULL)
		return spec_error(p, "out of memory");
	r = scsi_sg_open(&l->sg, p->sg, timeout, p->all_commands, &what);
	if (r == -ENODEV)
		return spec_error(p, "sg=%s: %s", p->sg, what);
	if (r < 0)
		spec_error(p, "sg=%s: %s: %s", p->sg, what, strerror(-r));
	return r;
}

static int lun_open(struct scsi_lun *l, struct spec *p)
{
	const char *source = p->disk.path != NULL ? p->disk.path : p->disk.nbd;
	int r;

	if (p->cdrom)
		p->disk.read_only = p->removable = true;
	l->options = p->disk;
	if (source != NULL) {
		l->source = strdup(source);
		if (l->source == NULL)
			return spec_error(p, "out of memory");
		*(p->disk.path != NULL ? &l->options.path : &l->options.nbd) = l->source;
	}
	r = disk_open(&l->disk, &l->options);
	if (r < 0) {
		spec_error(p, "%s: %s", source != NULL ? source : "null", strerror(-r));
		return r;
	}
	l->block = p->block != 0 ? (uint32_t)p->block
				 : MAX(disk_limits(l->disk)->logical, p->cdrom ? 2048u : 512u);
	l->shift = (unsigned)__builtin_ctz(l->block);
	if (l->block < disk_limits(l->disk)->logical)
		return spec_error(p, "block-size=%u: the disk has blocks of %u bytes", l->block,
			disk_limits(l->disk)->logical);
	if (scsi_lun_blocks(l) == 0)
		return spec_error(p, "%s: smaller than a block", disk_name(l->disk));
	if (p->reservations != NULL) {
		r = pr_file_open(p->reservations, p->disk.lock, &l->pr, &l->pr_fd);
		if (r < 0)
			return spec_error(p, "reservations=%s: %s", p->reservations, strerror(-r));
		l->pr_shared = !p->disk.lock;
		scsi_pr_apply(l);
	}
	l->watch.changed = size_changed;
	r = disk_watch_add(l->disk, l->scsi->b->loop, &l->watch);
	return r < 0 ? spec_error(p, "%s: cannot be watched", disk_name(l->disk)) : 0;
}

static void lun_describe(struct scsi_lun *l, const struct spec *p)
{
	l->target = (uint8_t)p->target;
	l->number = (uint16_t)p->lun;
	if (l->sg != NULL)
		return;
	l->type = p->cdrom ? SCSI_CDROM : SCSI_DISK;
	l->read_only = disk_limits(l->disk)->read_only;
	l->removable = p->removable;
	l->write_cache = !p->writethrough;
	l->mode = l->write_cache ? MODE_WCE : 0;
	l->exclusive_tail = &l->exclusive;
	if (p->serial != NULL)
		snprintf(l->serial, sizeof(l->serial), "%s", p->serial);
	else
		snprintf(l->serial, sizeof(l->serial), "vum-%03u-%05u", p->target, p->lun);
}

static bool lun_insert(struct scsi *s, struct scsi_lun *l)
{
	unsigned first = slot_of(l->target, l->number);

	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++) {
		struct scsi_lun **slot = &s->units[(first + i) % SCSI_MAX_LUNS];

		if (*slot != NULL)
			continue;
		scsi_lun_attention(l, ATTENTION_POWER_ON);
		__atomic_store_n(slot, l, __ATOMIC_RELEASE);
		return true;
	}
	return false;
}

static int lun_make(struct scsi *s, struct spec *p)
{
	struct scsi_lun *l;
	int r;

	if (scsi_lun_find(s, p->target, p->lun) != NULL)
		return spec_error(p, "%u:%u is there already", p->target, p->lun);
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return spec_error(p, "out of memory");
	l->scsi = s;
	l->pr_fd = -1;
	r = p->sg != NULL ? lun_open_sg(l, p) : lun_open(l, p);
	if (r == 0) {
		lun_describe(l, p);
		if (!lun_insert(s, l))
			r = spec_error(p, "%u logical units are there already", SCSI_MAX_LUNS);
	}
	if (r < 0)
		lun_free(l);
	return r;
}

int scsi_lun_add(struct scsi *s, const char *text, char *why, size_t size)
{
	struct spec p = {.disk = {.lock = true, .aio = s->options.aio, .nbd_retry = s->options.nbd_retry},
		.why = why,
		.size = size};
	CLEANUP_FREE char *copy = strdup(text);
	int r;

	if (copy == NULL)
		return spec_error(&p, "out of memory");
	r = spec_parse(&p, copy);
	return r < 0 ? r : lun_make(s, &p);
}

int scsi_lun_add_options(struct scsi *s, const struct disk_options *o)
{
	char why[160] = "";
	struct spec p = {.disk = *o, .block = s->block_size, .why = why, .size = sizeof(why)};
	CLEANUP_FREE char *serial = s->serial != NULL ? strdup(s->serial) : NULL;
	int r;

	if (s->serial != NULL && (s->serial[0] == '\0' || strlen(s->serial) > SCSI_SERIAL))
		return log_errno(EINVAL, "--serial=%s: not 1 to %u bytes", s->serial, SCSI_SERIAL);
	if (s->block_size & (s->block_size - 1))
		return log_errno(EINVAL, "--block-size=%u: not a power of two", s->block_size);
	p.serial = serial;
	r = lun_make(s, &p);
	if (r < 0)
		log_error("%s", why);
	return r;
}

/* Going */

static bool of_this_unit(const struct scsi_sweep *w, const struct scsi_request *r)
{
	return r->lun == w->lun;
}

static void nobody_left(struct scsi_sweep *w)
{
	struct scsi_lun *l = container_of(w, struct scsi_lun, gone), **link = &l->scsi->going;

	while (*link != NULL && *link != l)
		link = &(*link)->going_next;
	if (*link != NULL)
		*link = l->going_next;
	lun_free(l);
}

static struct scsi_lun **slot_with(struct scsi *s, const struct scsi_lun *l)
{
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++)
		if (s->units[i] == l)
			return &s->units[i];
	return NULL;
}

int scsi_lun_remove(struct scsi *s, unsigned target, unsigned lun)
{
	struct scsi_lun *l = scsi_lun_find(s, target, lun);

	if (l == NULL)
		return -ENOENT;
	__atomic_store_n(slot_with(s, l), NULL, __ATOMIC_SEQ_CST);
	l->gone.match = of_this_unit;
	l->gone.done = nobody_left;
	l->gone.loop = s->b->loop;
	l->gone.lun = l;
	l->going_next = s->going;
	s->going = l;
	scsi_sweep_start(s, &l->gone);
	return 0;
}

void scsi_lun_close_all(struct scsi *s)
{
	struct scsi_lun *l;

	pthread_mutex_lock(&s->lock);
	__atomic_store_n(&s->closed, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&s->sweeps, NULL, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&s->lock);
	while ((l = s->going) != NULL) {
		s->going = l->going_next;
		disk_watch_del(&l->watch);
		l->watch = (struct disk_watch){0};
		disk_close(l->disk);
		l->disk = NULL;
		/* else the loop still has its post, and frees it */
		if (!__atomic_load_n(&l->gone.post.queued, __ATOMIC_ACQUIRE))
			lun_free(l);
	}
	for (unsigned i = 0; i < SCSI_MAX_LUNS; i++)
		if (s->units[i] != NULL)
			lun_free(s->units[i]);
	memset(s->units, 0, sizeof(s->units));
}

/* REPORT LUNS (SPC-4, 6.33) */

enum { LUNS_ALL_BUT_WELL_KNOWN, LUNS_WELL_KNOWN, LUNS_ALL };

struct lun_list {
	unsigned n;
	bool whole_address;
	uint8_t address[SCSI_MAX_LUNS][8];
};

static void list_unit(struct scsi_lun *l, void *arg)
{
	struct lun_list *list = arg;
	uint8_t *a = list->address[list->n++];

	if (list->whole_address) {
		scsi_address_write(a, l->target, l->number);
		return;
	}
	memset(a, 0, 8);
	put_be16(a, l->number < 256 ? l->number : (uint16_t)(0x4000 | l->number));
}

static int by_address(const void *a, const void *b)
{
	return memcmp(a, b, 8);
}

static void heard_of_luns(struct scsi_lun *l, void *arg)
{
	(void)arg;
	scsi_lun_attention_clear(l, ATTENTION_LUNS);
}

void scsi_report_luns(struct scsi_request *r)
{
	CLEANUP_FREE struct lun_list *list = calloc(1, sizeof(*list));
	unsigned select = r->cdb[2];
	struct cursor *wr = &r->element->wr;
	uint8_t head[8] = {0};
	int target = r->well_known ? -1 : r->target;

	r->alloc = get_be32(r->cdb + 6);
	if (select > LUNS_ALL) {
		scsi_fail_cdb(r, 2);
		return;
	}
	if (r->alloc < 16) {
		scsi_fail_cdb(r, 6);
		return;
	}
	if (!scsi_wants_in(r, r->alloc))
		return;
	if (list == NULL) {
		scsi_status(r, STATUS_BUSY);
		return;
	}
	list->whole_address = r->well_known;
	if (select != LUNS_WELL_KNOWN)
		scsi_lun_each(r->queue->scsi, target, list_unit, list);
	qsort(list->address, list->n, 8, by_address);
	scsi_lun_each(r->queue->scsi, target, heard_of_luns, NULL);
	put_be32(head, list->n * 8);
	cursor_put(wr, head, sizeof(head));
	cursor_put(wr, list->address, MIN(list->n * 8, r->alloc - 8));
	scsi_good(r);
}
