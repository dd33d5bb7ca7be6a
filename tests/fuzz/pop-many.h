/* SPDX-License-Identifier: MIT */
/* The target's own virtqueue_pop(), many times. */
#ifndef TESTS_POP_MANY_H
#define TESTS_POP_MANY_H

#include "virtqueue.h"

unsigned virtqueue_pop_many(struct virtqueue *q, struct element **e, unsigned max)
{
	unsigned n = 0;

	while (n < max && (e[n] = virtqueue_pop(q)))
		n++;
	return n;
}

#endif
