/* SPDX-License-Identifier: MIT */
/* The rules of persistent reservations (SPC-4, 5.13.6 to 5.13.11). */
#include "scsi-pr.h"

#include <string.h>

#include "util.h"

static bool all_registrants(unsigned type)
{
	return type == PR_WRITE_EXCLUSIVE_ALL || type == PR_EXCLUSIVE_ALL;
}

static bool shared(unsigned type)
{
	return all_registrants(type) || type == PR_WRITE_EXCLUSIVE_REGISTRANTS ||
	       type == PR_EXCLUSIVE_REGISTRANTS;
}

bool pr_type_valid(unsigned type)
{
	return type == PR_WRITE_EXCLUSIVE || type == PR_EXCLUSIVE || shared(type);
}

int pr_find(const struct scsi_pr *pr, const char *name)
{
	for (unsigned i = 0; i < PR_MAX; i++)
		if (pr->who[i].key != 0 && strcmp(pr->who[i].name, name) == 0)
			return (int)i;
	return -1;
}

bool pr_holds(const struct scsi_pr *pr, unsigned i)
{
	return pr->type != PR_NONE && pr->who[i].key != 0 && (all_registrants(pr->type) || pr->holder == i);
}

static bool outsider(const struct scsi_pr *pr, const char *name)
{
	int i = pr_find(pr, name);

	if (pr->type == PR_NONE)
		return false;
	return i < 0 || !(shared(pr->type) || pr_holds(pr, (unsigned)i));
}

bool pr_forbids_writes(const struct scsi_pr *pr, const char *name)
{
	return outsider(pr, name);
}

bool pr_forbids_reads(const struct scsi_pr *pr, const char *name)
{
	bool reads = pr->type == PR_WRITE_EXCLUSIVE || pr->type == PR_WRITE_EXCLUSIVE_REGISTRANTS ||
		     pr->type == PR_WRITE_EXCLUSIVE_ALL;

	return !reads && outsider(pr, name);
}

/* All registered but this one. */
static uint64_t others(const struct scsi_pr *pr, int self)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < PR_MAX; i++)
		if (pr->who[i].key != 0 && (int)i != self)
			bits |= BIT(i);
	return bits;
}

static int add(struct scsi_pr *pr, const char *name, uint64_t key)
{
	for (unsigned i = 0; i < PR_MAX; i++) {
		if (pr->who[i].key != 0)
			continue;
		memset(&pr->who[i], 0, sizeof(pr->who[i]));
		memcpy(pr->who[i].name, name, strnlen(name, PR_NAME - 1));
		pr->who[i].key = key;
		return (int)i;
	}
	return -1;
}

static void release(struct scsi_pr *pr, int self, struct pr_effects *e)
{
	if (shared(pr->type))
		e->reservations_released |= others(pr, self);
	pr->type = PR_NONE;
}

static void unregister(struct scsi_pr *pr, int self, struct pr_effects *e)
{
	bool held = pr_holds(pr, (unsigned)self);

	pr->who[self].key = 0;
	if (held && (!all_registrants(pr->type) || others(pr, self) == 0))
		release(pr, self, e);
}

static enum pr_verdict enroll(struct scsi_pr *pr, const struct pr_request *r, int self, struct pr_effects *e)
{
	bool ignore = r->action == PR_REGISTER_AND_IGNORE;

	if (!ignore && r->key != (self < 0 ? 0 : pr->who[self].key))
		return PR_CONFLICT;
	if (self >= 0 && r->action_key != 0)
		pr->who[self].key = r->action_key;
	else if (self >= 0)
		unregister(pr, self, e);
	else if (r->action_key == 0)
		return PR_GOOD; /* leaving when one was never there changes nothing */
	else if (add(pr, r->name, r->action_key) < 0)
		return PR_NO_ROOM;
	pr->persist = r->persist;
	pr->generation++;
	return PR_GOOD;
}

static enum pr_verdict reserve(struct scsi_pr *pr, const struct pr_request *r, int self)
{
	if (pr->type == PR_NONE) {
		pr->type = r->type;
		pr->holder = (uint8_t)self;
		return PR_GOOD;
	}
	return pr_holds(pr, (unsigned)self) && pr->type == r->type ? PR_GOOD : PR_CONFLICT;
}

static enum pr_verdict give_up(struct scsi_pr *pr, const struct pr_request *r, int self, struct pr_effects *e)
{
	if (!pr_holds(pr, (unsigned)self))
		return PR_GOOD;
	if (pr->type != r->type)
		return PR_BAD_RELEASE;
	release(pr, self, e);
	return PR_GOOD;
}

static enum pr_verdict clear(struct scsi_pr *pr, int self, struct pr_effects *e)
{
	e->reservations_preempted = others(pr, self);
	memset(pr->who, 0, sizeof(pr->who));
	pr->type = PR_NONE;
	pr->generation++;
	return PR_GOOD;
}

/* Removes the others that have this key (0: any). Returns who they were. */
static uint64_t expel(struct scsi_pr *pr, uint64_t key, int self)
{
	uint64_t gone = 0;

	for (unsigned i = 0; i < PR_MAX; i++) {
		if ((int)i == self || pr->who[i].key == 0 || (key != 0 && pr->who[i].key != key))
			continue;
		gone |= BIT(i);
		pr->who[i].key = 0;
	}
	return gone;
}

/* 5.13.11.1.5: the reservation itself changes hands */
static void take_over(
	struct scsi_pr *pr, const struct pr_request *r, int self, uint64_t gone, struct pr_effects *e)
{
	if (shared(pr->type) && pr->type != r->type)
		e->reservations_released |= others(pr, self) & ~gone;
	pr->type = r->type;
	pr->holder = (uint8_t)self;
}

static enum pr_verdict preempt(struct scsi_pr *pr, const struct pr_request *r, int self, struct pr_effects *e)
{
	bool all = all_registrants(pr->type);
	bool holder = pr->type != PR_NONE && !all && pr->who[pr->holder].key == r->action_key;
	uint64_t gone;

	if (r->action_key == 0 && !all)
		return PR_BAD_PARAMETER;
	gone = expel(pr, r->action_key, self);
	if (gone == 0 && r->action_key != 0 && pr->who[self].key != r->action_key)
		return PR_CONFLICT;
	e->registrations_preempted = gone;
	if (holder || (all && r->action_key == 0))
		take_over(pr, r, self, gone, e);
	pr->generation++;
	return PR_GOOD;
}

/* 5.13.8 */
static enum pr_verdict move(struct scsi_pr *pr, const struct pr_request *r, int self, struct pr_effects *e)
{
	int to;

	if (pr->type == PR_NONE || all_registrants(pr->type) || !pr_holds(pr, (unsigned)self))
		return PR_CONFLICT;
	if (r->action_key == 0 || r->to == NULL || strcmp(r->to, r->name) == 0)
		return PR_BAD_PARAMETER;
	to = pr_find(pr, r->to);
	if (to < 0)
		to = add(pr, r->to, r->action_key);
	if (to < 0)
		return PR_NO_ROOM;
	pr->who[to].key = r->action_key;
	pr->holder = (uint8_t)to;
	if (r->unregister)
		unregister(pr, self, e);
	pr->persist = r->persist;
	pr->generation++;
	return PR_GOOD;
}

enum pr_verdict pr_out(struct scsi_pr *pr, const struct pr_request *r, struct pr_effects *effects)
{
	int self = pr_find(pr, r->name);

	*effects = (struct pr_effects){0};
	if (r->action == PR_REGISTER || r->action == PR_REGISTER_AND_IGNORE)
		return enroll(pr, r, self, effects);
	if (self < 0 || pr->who[self].key != r->key)
		return PR_CONFLICT;
	switch (r->action) {
	case PR_RESERVE:
		return reserve(pr, r, self);
	case PR_RELEASE:
		return give_up(pr, r, self, effects);
	case PR_CLEAR:
		return clear(pr, self, effects);
	case PR_REGISTER_AND_MOVE:
		return move(pr, r, self, effects);
	default:
		return preempt(pr, r, self, effects);
	}
}
