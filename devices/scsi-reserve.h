/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC-4, 5.13) as a state machine without a transport: who registered which key, who holds a
 * reservation of which type. A nexus is a number that indexes `names`; a front-end is one nexus, the others are those of
 * other processes that were here before us, known from the file that keeps the state over a loss of power (APTPL).
 */
#ifndef SCSI_RESERVE_H
#define SCSI_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

#define PR_MAX	64u /* registrations of a unit */
#define PR_NAME 64u

enum pr_type {
	PR_NONE = 0,
	PR_WRITE_EXCLUSIVE = 1,
	PR_EXCLUSIVE = 3,
	PR_WRITE_EXCLUSIVE_REGISTRANTS = 5,
	PR_EXCLUSIVE_REGISTRANTS = 6,
	PR_WRITE_EXCLUSIVE_ALL = 7,
	PR_EXCLUSIVE_ALL = 8,
};

struct pr_registration {
	uint64_t key; /* 0: not used */
	char name[PR_NAME];
};

struct scsi_pr {
	uint32_t generation;
	uint8_t type;	/* enum pr_type */
	bool persist;	/* APTPL */
	uint8_t holder; /* index; of no meaning for the types ALL */
	struct pr_registration who[PR_MAX];
};

#endif
