/* SPDX-License-Identifier: MIT */
/* See net-hosts.h. */
#include "net-hosts.h"

#include <stdio.h>
#include <string.h>

void guest_connect(struct guest *g, const struct fe_mode *m)
{
	fe_init(&g->fe, m);
	g->fe.device_mask = PLAIN;
	fe_connect(&g->fe, g->path);
	guest_up(g);
}

void host_spawn(
	struct host *h, const struct fe_mode *m, unsigned first, unsigned n, const char *const *options)
{
	const char *dir = fe_tmpdir(), *args[24] = {"net", "--log-level=info"};
	char sockets[GUESTS][144], control[144];
	unsigned k = 2;

	h->first = first;
	h->n = n;
	snprintf(h->control, sizeof(h->control), "%s/c", dir);
	snprintf(control, sizeof(control), "--control-path=%s", h->control);
	args[k++] = control;
	while (*options)
		args[k++] = *options++;
	for (unsigned i = 0; i < n; i++) {
		h->g[i].id = first + i;
		snprintf(h->g[i].path, sizeof(h->g[i].path), "%s/%u", dir, i);
		snprintf(sockets[i], sizeof(sockets[i]), "--socket-path=%s", h->g[i].path);
		args[k++] = sockets[i];
	}
	if (m->packed)
		args[k++] = "--packed=on";
	fe_process_start(&h->process, -1, args);
}

void host_start(
	struct host *h, const struct fe_mode *m, unsigned first, unsigned n, const char *const *options)
{
	host_spawn(h, m, first, n, options);
	for (unsigned i = 0; i < n; i++)
		guest_connect(&h->g[i], m);
}

void host_end(struct host *h)
{
	for (unsigned i = 0; i < h->n; i++)
		if (h->g[i].fe.sock >= 0)
			fe_close(&h->g[i].fe);
	fe_process_signal(&h->process, SIGTERM);
	fe_process_exits(&h->process, 0);
}

size_t take(struct guest *g, uint8_t *out, bool wait)
{
	struct virtio_net_hdr_v1 h;
	void *cookie;
	uint32_t len;
	size_t at;
	unsigned n;

	if (wait)
		len = fe_wait(g->rx, &cookie);
	else if (!fe_collect(g->rx, &cookie, &len))
		return 0;

	memcpy(&h, cookie, HDR);
	at = len - HDR;
	memcpy(out, (uint8_t *)cookie + HDR, at);
	for (n = le16toh(h.num_buffers); n > 1; n--) {
		uint32_t more;

		CHECK(fe_collect(g->rx, &cookie, &more));
		memcpy(out + at, cookie, more);
		at += more;
	}
	return at;
}

void gets(struct guest *g, unsigned to, unsigned from, size_t len, unsigned seed)
{
	static uint8_t got[70000], want[70000];

	CHECK_EQ(take(g, got, true), len);
	make(want, to, from, len, seed);
	CHECK_MEM(got, want, len);
}

void announce(struct host *h, unsigned who)
{
	send_one(&h->g[who], 0, 60, who);
	for (unsigned i = 0; i < h->n; i++)
		if (i != who && h->g[i].fe.sock >= 0)
			gets(&h->g[i], 0, h->g[who].id, 60, who);
}

bool answers(int fd, const char *command, const char *arguments, const char *want)
{
	char line[200];

	snprintf(line, sizeof(line), "{\"execute\":\"%s\",\"arguments\":{%s}}", command, arguments);
	return strstr(fe_control_ask(fd, line), want) != NULL;
}

void await_peers(struct host *h, unsigned n)
{
	int64_t end = fe_now_ms() + fe_limit_ms;
	int fd = fe_control_open(h->control);
	char want[24], socket[24] = "";

	snprintf(want, sizeof(want), "\"peers\":%u,", n);
	for (unsigned i = 0; i < h->n; i++) {
		if (h->n > 1)
			snprintf(socket, sizeof(socket), "\"socket\":%u", i);
		while (!answers(fd, "query-net", socket, want)) {
			CHECK(fe_now_ms() < end);
			fe_back_serve(&h->g[i].fe, 2);
		}
	}
	close(fd);
}
