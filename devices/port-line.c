/* SPDX-License-Identifier: MIT */
/*
 * The two directions of a serial line; see port-line.h.
 */
#include "port-line.h"

#define SOON_NS (UINT64_C(300) * 1000 * 1000)

/* What the host says */

static void fill(struct element **e, unsigned n, size_t len)
{
	for (unsigned i = 0; i < n; i++) {
		size_t part = MIN(len, e[i]->wr.left);

		len -= part;
		cursor_skip(&e[i]->wr, part);
		virtqueue_push(e[i]);
	}
}

static void give_back(struct element **e, unsigned n)
{
	while (n)
		virtqueue_unpop(e[--n]);
}

/* How many of e[0..n) a read of len bytes has begun to fill. */
static unsigned begun(struct element **e, unsigned n, size_t len)
{
	unsigned i;

	for (i = 0; i < n && len; i++)
		len -= MIN(len, e[i]->wr.left);
	return i;
}

/* True: there may be more. */
static bool receive(struct line *l)
{
	struct element *e[LINE_BATCH];
	struct iovec v[PORT_IOV];
	unsigned n = 0, nv = 0, used;
	size_t room = 0;
	ssize_t got;

	while (n < l->batch && nv < PORT_IOV && (e[n] = virtqueue_pop(l->rx))) {
		if (!e[n]->wr.left) {
			if (n) {
				virtqueue_unpop(e[n]);
				break;
			}
			virtqueue_push(e[n]); /* holds nothing */
			return true;
		}
		nv += cursor_iovec(&e[n]->wr, SIZE_MAX, v + nv, PORT_IOV - nv);
		room += e[n]->wr.left;
		n++;
	}
	if (!n) {
		if (!virtqueue_pending(l->rx))
			port_want(l->port, false);
		return false;
	}
	got = port_receive(l->port, v, nv);
	if (got <= 0) {
		l->have = false;
		give_back(e, n);
		return false;
	}
	used = begun(e, n, (size_t)got);
	give_back(e + used, n - used);
	fill(e, used, (size_t)got);
	if ((size_t)got < room)
		l->batch = MAX(used, 1u);
	else
		l->batch = MIN(l->batch * 2, (unsigned)LINE_BATCH);
	return true;
}

static void rx_ready(struct line *l)
{
	if (!l->port || !l->open)
		return;
	port_want(l->port, true);
	while (l->have && l->port && receive(l))
		;
}

void line_data(struct line *l)
{
	l->have = true;
	if (l->rx)
		virtqueue_wake(l->rx);
}

/* What the guest says */

static void take_all(struct line *l)
{
	struct element *e;

	while (l->nheld < LINE_BATCH && (e = virtqueue_pop(l->tx))) {
		if (l->skip) {
			cursor_skip(&e->rd, MIN(l->skip, e->rd.left));
			l->skip = 0;
		}
		l->held[l->nheld++] = e;
	}
}

static void forget(struct line *l, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		virtqueue_push(l->held[i]);
	l->nheld -= n;
	for (unsigned i = 0; i < l->nheld; i++)
		l->held[i] = l->held[i + n];
}

/* len bytes went: gives back what is through. */
static void passed(struct line *l, size_t len)
{
	unsigned n;

	for (n = 0; n < l->nheld; n++) {
		struct cursor *rd = &l->held[n]->rd;
		size_t part = MIN(len, rd->left);

		cursor_skip(rd, part);
		len -= part;
		if (rd->left)
			break;
	}
	forget(l, n);
}

/* True: all of it went. */
static bool send_held(struct line *l)
{
	struct iovec v[PORT_IOV];
	unsigned n = 0;
	size_t asked = 0, sent;

	for (unsigned i = 0; i < l->nheld && n < PORT_IOV; i++)
		n += cursor_iovec(&l->held[i]->rd, SIZE_MAX, v + n, PORT_IOV - n);
	for (unsigned i = 0; i < n; i++)
		asked += v[i].iov_len;
	sent = n ? port_send(l->port, v, n) : 0;
	passed(l, sent);
	return sent == asked;
}

static void tx_ready(struct line *l)
{
	for (;;) {
		take_all(l);
		if (!l->nheld)
			return;
		if (l->soon.at) {
			timer_disarm(&l->soon);
			line_open(l, true);
		}
		if (!l->port)
			forget(l, l->nheld);
		else if (!send_held(l))
			return;
	}
}

void line_room(struct line *l)
{
	if (l->tx)
		virtqueue_wake(l->tx);
}

bool line_drained(const struct line *l)
{
	return !l->nheld && (!l->tx || !virtqueue_pending(l->tx));
}

/* Life */

void line_ready(struct line *l, struct virtqueue *q)
{
	if (q == l->rx)
		rx_ready(l);
	else if (q == l->tx)
		tx_ready(l);
}

void line_start(struct line *l, struct virtqueue *q, bool rx)
{
	if (!l->batch)
		l->batch = 1;
	if (rx) {
		l->rx = q;
	} else {
		l->tx = q;
		if (!virtqueue_continues(q) && !virtqueue_resumed(q) && !l->loaded)
			l->skip = 0; /* a new driver */
		l->loaded = false;
	}
	virtqueue_wake(q);
}

void line_stop(struct line *l, struct virtqueue *q)
{
	if (q == l->rx) {
		timer_disarm(&l->soon);
		l->rx = NULL;
		if (l->port)
			port_want(l->port, false);
	}
	if (q != l->tx)
		return;
	l->tx = NULL;
	if (l->nheld)
		l->skip = l->held[0]->rd.done;
	give_back(l->held, l->nheld);
	l->nheld = 0;
}

void line_reset(struct line *l)
{
	line_open(l, false);
}

void line_open(struct line *l, bool open)
{
	l->open = open;
	if (l->port && !open)
		port_want(l->port, false);
	if (l->rx)
		virtqueue_wake(l->rx);
}

static void soon(struct timer *t)
{
	line_open(container_of(t, struct line, soon), true);
}

void line_open_soon(struct line *l)
{
	if (!l->rx)
		return;
	if (virtqueue_resumed(l->rx)) {
		line_open(l, true);
		return;
	}
	l->open = false;
	l->soon.expired = soon;
	timer_arm_in(virtqueue_loop(l->rx), &l->soon, SOON_NS);
}

void line_set_port(struct line *l, struct port *p)
{
	l->port = p;
	l->have = false;
	if (l->nheld && l->held[0]->rd.done)
		forget(l, 1);
	if (!p)
		forget(l, l->nheld);
	if (l->tx)
		virtqueue_wake(l->tx);
	if (l->rx)
		virtqueue_wake(l->rx);
}
