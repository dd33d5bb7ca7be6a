/* SPDX-License-Identifier: MIT */
/*
 * Sense data (SPC-4, 4.5): what went wrong, as key, additional sense code and qualifier in one number, and the bytes of
 * it in the fixed or in the descriptor format.
 */
#ifndef SCSI_SENSE_H
#define SCSI_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SENSE(key, asc, ascq) ((uint32_t)(key) << 16 | (asc) << 8 | (ascq))

enum {
	SENSE_NONE = 0,
	SENSE_BECOMING_READY = SENSE(0x02, 0x04, 0x01),
	SENSE_STOPPED = SENSE(0x02, 0x04, 0x02), /* initializing command required */
	SENSE_NO_MEDIUM = SENSE(0x02, 0x3a, 0x00),
	SENSE_WRITE_ERROR = SENSE(0x03, 0x0c, 0x00),
	SENSE_READ_ERROR = SENSE(0x03, 0x11, 0x00),
	SENSE_HARDWARE = SENSE(0x04, 0x44, 0x00), /* internal target failure */
	SENSE_PARAMETER_LENGTH = SENSE(0x05, 0x1a, 0x00),
	SENSE_OPCODE = SENSE(0x05, 0x20, 0x00),
	SENSE_LBA_RANGE = SENSE(0x05, 0x21, 0x00),
	SENSE_CDB_FIELD = SENSE(0x05, 0x24, 0x00),
	SENSE_NO_UNIT = SENSE(0x05, 0x25, 0x00),
	SENSE_PARAMETER_FIELD = SENSE(0x05, 0x26, 0x00),
	SENSE_PARAMETER_VALUE = SENSE(0x05, 0x26, 0x02),
	SENSE_INVALID_RELEASE = SENSE(0x05, 0x26, 0x04),
	SENSE_NO_SAVING = SENSE(0x05, 0x39, 0x00),
	SENSE_PREVENTED = SENSE(0x05, 0x53, 0x02),
	SENSE_NO_REGISTRATIONS = SENSE(0x05, 0x55, 0x04), /* insufficient registration resources */
	SENSE_POWER_ON = SENSE(0x06, 0x29, 0x00),
	SENSE_UNIT_RESET = SENSE(0x06, 0x29, 0x03),
	SENSE_NEXUS_LOSS = SENSE(0x06, 0x29, 0x07),
	SENSE_MEDIUM_CHANGED = SENSE(0x06, 0x28, 0x00),
	SENSE_MODE_CHANGED = SENSE(0x06, 0x2a, 0x01),
	SENSE_RESERVATIONS_PREEMPTED = SENSE(0x06, 0x2a, 0x03),
	SENSE_RESERVATIONS_RELEASED = SENSE(0x06, 0x2a, 0x04),
	SENSE_REGISTRATIONS_PREEMPTED = SENSE(0x06, 0x2a, 0x05),
	SENSE_CAPACITY_CHANGED = SENSE(0x06, 0x2a, 0x09),
	SENSE_LUNS_CHANGED = SENSE(0x06, 0x3f, 0x0e),
	SENSE_WRITE_PROTECTED = SENSE(0x07, 0x27, 0x00),
	SENSE_NO_SPACE = SENSE(0x07, 0x27, 0x07),
	SENSE_MISCOMPARE = SENSE(0x0e, 0x1d, 0x00),
};

#define SENSE_MAX	 32 /* bytes that sense_write() may write */
#define SENSE_NO_FIELD	 0xffff
#define SENSE_FIELD_DATA 0 /* the field is in the parameter data */
#define SENSE_FIELD_CDB	 1

struct scsi_sense {
	uint32_t code;
	bool has_info;
	uint64_t info;	/* of the first block that could not be read, the offset of a difference… */
	uint16_t field; /* byte that is wrong, of the CDB or of the parameter data; SENSE_NO_FIELD */
	bool field_in_cdb;
};

/* Writes it and returns how many bytes that are: 18 for the fixed format, 8 and more for descriptors. */
size_t sense_write(const struct scsi_sense *s, bool descriptors, uint8_t out[SENSE_MAX]);

#endif
