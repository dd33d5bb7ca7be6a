/* SPDX-License-Identifier: MIT */
/* Big-endian numbers anywhere in memory, as SCSI has them. */
#ifndef SCSI_BYTES_H
#define SCSI_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define BE_ACCESSORS(bits)                                         \
	static inline uint##bits##_t get_be##bits(const void *p)   \
	{                                                          \
		uint##bits##_t v;                                  \
                                                                   \
		memcpy(&v, p, sizeof(v));                          \
		return be##bits##toh(v);                           \
	}                                                          \
	static inline void put_be##bits(void *p, uint##bits##_t v) \
	{                                                          \
		v = htobe##bits(v);                                \
		memcpy(p, &v, sizeof(v));                          \
	}

BE_ACCESSORS(16)
BE_ACCESSORS(32)
BE_ACCESSORS(64)

#undef BE_ACCESSORS

static inline uint32_t get_be24(const uint8_t *p)
{
	return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}

#endif
