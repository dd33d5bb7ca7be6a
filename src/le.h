/* SPDX-License-Identifier: MIT */
/*
 * Single little-endian loads and stores of memory that somebody else writes at the same time
 * (virtio 1.3, 1.4: all fields are little-endian). Each call is exactly one access of naturally aligned
 * memory, so a value that was checked is the value that is used. `_acquire`/`_release` order the accesses
 * around it; le_barrier() is the full fence between a store and a load of different fields (event
 * suppression, virtio 1.3, 2.7.10.1 and 2.8.21.3.1).
 */
#ifndef LE_H
#define LE_H

#include <endian.h>
#include <stdint.h>

#define LE_ACCESSORS(bits)                                                                          \
	static inline uint##bits##_t le##bits##_load(const void *p)                                 \
	{                                                                                           \
		return le##bits##toh(__atomic_load_n((const uint##bits##_t *)p, __ATOMIC_RELAXED)); \
	}                                                                                           \
	static inline uint##bits##_t le##bits##_load_acquire(const void *p)                         \
	{                                                                                           \
		return le##bits##toh(__atomic_load_n((const uint##bits##_t *)p, __ATOMIC_ACQUIRE)); \
	}                                                                                           \
	static inline void le##bits##_store(void *p, uint##bits##_t v)                              \
	{                                                                                           \
		__atomic_store_n((uint##bits##_t *)p, htole##bits(v), __ATOMIC_RELAXED);            \
	}                                                                                           \
	static inline void le##bits##_store_release(void *p, uint##bits##_t v)                      \
	{                                                                                           \
		__atomic_store_n((uint##bits##_t *)p, htole##bits(v), __ATOMIC_RELEASE);            \
	}

LE_ACCESSORS(16)
LE_ACCESSORS(32)
LE_ACCESSORS(64)

#undef LE_ACCESSORS

static inline void le_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif
