/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC-4, 5.13) as a state machine without a transport: who registered which key, who holds a
 * reservation of which type. An initiator is known by its name. A front-end is one initiator; others are those that were
 * here before it, and are known from the file that keeps the state over a loss of power (APTPL).
 */
#ifndef SCSI_PR_H
#define SCSI_PR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PR_MAX	64u /* registrations of a unit */
#define PR_NAME 64u /* bytes of a name with its end */

enum pr_type {
	PR_NONE = 0,
	PR_WRITE_EXCLUSIVE = 1,
	PR_EXCLUSIVE = 3,
	PR_WRITE_EXCLUSIVE_REGISTRANTS = 5,
	PR_EXCLUSIVE_REGISTRANTS = 6,
	PR_WRITE_EXCLUSIVE_ALL = 7,
	PR_EXCLUSIVE_ALL = 8,
};

enum pr_action {
	PR_REGISTER,
	PR_RESERVE,
	PR_RELEASE,
	PR_CLEAR,
	PR_PREEMPT,
	PR_PREEMPT_AND_ABORT,
	PR_REGISTER_AND_IGNORE,
	PR_REGISTER_AND_MOVE,
};

struct pr_registration {
	uint64_t key; /* 0: not used */
	char name[PR_NAME];
};

struct scsi_pr {
	uint32_t generation;
	uint8_t type;	/* enum pr_type */
	uint8_t holder; /* index; of no meaning for the types ALL, where all are */
	bool persist;	/* APTPL: survives a loss of power */
	struct pr_registration who[PR_MAX];
};

struct pr_request {
	uint8_t action, type;
	bool persist, unregister; /* REGISTER…: APTPL; REGISTER AND MOVE: UNREG */
	uint64_t key, action_key;
	const char *name; /* who asks */
	const char *to;	  /* REGISTER AND MOVE: the new holder */
};

enum pr_verdict {
	PR_GOOD,
	PR_CONFLICT,
	PR_BAD_PARAMETER,
	PR_BAD_RELEASE,
	PR_NO_ROOM,
};

/* Who learns of it by a unit attention: bits by index, as it was before. */
struct pr_effects {
	uint64_t registrations_preempted, reservations_preempted, reservations_released;
};

/* Nothing is changed unless the verdict is PR_GOOD. */
enum pr_verdict pr_out(struct scsi_pr *pr, const struct pr_request *r, struct pr_effects *effects);
/* Index of an initiator's registration, or -1. */
int pr_find(const struct scsi_pr *pr, const char *name);
bool pr_type_valid(unsigned type);
bool pr_holds(const struct scsi_pr *pr, unsigned index);
/* What this initiator may not do. */
bool pr_forbids_writes(const struct scsi_pr *pr, const char *name);
bool pr_forbids_reads(const struct scsi_pr *pr, const char *name);

/*
 * The file that keeps it. Open: 0 and what it says in *pr, or -errno, logged; with lock it stays locked until it is closed.
 * Written twice, in turns, so that one of both is always whole.
 */
int pr_file_open(const char *path, bool lock, struct scsi_pr *pr, int *fd);
/* What another process has kept there since. */
void pr_file_refresh(int fd, struct scsi_pr *pr);
int pr_file_save(int fd, const struct scsi_pr *pr);

#endif
