/* SPDX-License-Identifier: MIT */
/*
 * Frames per second through the switch: two of our processes, and a driver on each that sends to the other as fast as it goes. Both
 * drivers are in this process and never sleep, as DPDK's do; ours do as they are told (--poll-us).
 *
 * usage: netbench SECONDS FRAME-BYTES [OPTION...]: prints "pps=N gbps=N cpu_ns=N", the CPU time of both processes per frame.
 */
#include "frontend.h"

#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RING = 256, HDR = 12, F_HASH_REPORT = 57, F_RSS = 60 };

#define MASK ~(BIT(F_HASH_REPORT) | BIT(F_RSS) | BIT(VIRTIO_NET_F_CTRL_VLAN) | BIT(VIRTIO_NET_F_CTRL_VQ))

struct side {
	struct fe fe;
	struct fe_queue *rx, *tx;
	uint8_t *frame;
	size_t buffer;
	uint64_t got;
};

static void give(struct side *s, uint8_t *p)
{
	struct vring_driver_buf b = fe_wr(&s->fe, p, (uint32_t)s->buffer);

	fe_submit_direct(s->rx, &b, 1, p);
}

static void side_start(struct side *s, unsigned id, size_t len, const char *const *args)
{
	static const struct fe_mode mode = {.packed = true, .event_idx = true};

	fe_init(&s->fe, &mode);
	s->fe.device_mask = MASK;
	fe_spawn(&s->fe, args);
	fe_handshake(&s->fe);
	fe_memory_default(&s->fe);
	s->rx = fe_queue_up(&s->fe, 0, RING);
	s->tx = fe_queue_up(&s->fe, 1, RING);
	s->buffer = len + HDR;
	s->frame = fe_alloc(&s->fe, len + HDR, 64, NULL);
	memcpy(s->frame + HDR,
		(uint8_t[]){
			0x52, 0x54, 0, 0, 0, (uint8_t)(3 - id), 0x52, 0x54, 0, 0, 0, (uint8_t)id, 0x88, 0xb5},
		14);
	for (unsigned i = 0; i < RING; i++)
		give(s, fe_alloc(&s->fe, s->buffer, 64, NULL));
	fe_flush(s->rx);
}

static void side_step(struct side *s)
{
	struct vring_driver_buf b = fe_rd(&s->fe, s->frame, (uint32_t)s->buffer);
	void *cookie;
	uint32_t len;
	unsigned n;

	while (fe_collect(s->tx, NULL, &len))
		;
	for (n = 0; n < 64 && s->tx->ring.nfree; n++)
		fe_submit_direct(s->tx, &b, 1, NULL);
	if (n)
		fe_flush(s->tx);
	for (n = 0; n < 64 && fe_collect(s->rx, &cookie, &len); n++) {
		s->got++;
		give(s, cookie);
	}
	if (n)
		fe_flush(s->rx);
}

int main(int argc, char **argv)
{
	static struct side a, b;
	const char *args[16] = {"net"};
	char option[128];
	double seconds = argc > 2 ? atof(argv[1]) : 0;
	size_t len = argc > 2 ? (size_t)atoi(argv[2]) : 0;
	int64_t start, end;
	uint64_t cpu, frames;

	if (seconds <= 0 || len < 60 || len > 65550 || argc > 16)
		return 2;
	snprintf(option, sizeof(option), "--switch=%s/switch", fe_tmpdir());
	args[1] = option;
	for (int i = 3; i < argc; i++)
		args[i - 1] = argv[i];
	side_start(&a, 1, len, args);
	side_start(&b, 2, len, args);
	fe_config_changed(&a.fe); /* the link is up */
	for (end = fe_now_ms() + 100; fe_now_ms() < end;) {
		side_step(&a);
		side_step(&b);
	}
	cpu = fe_process_cpu_ms(&a.fe.process) + fe_process_cpu_ms(&b.fe.process);
	frames = a.got + b.got;
	start = fe_now_ms();
	for (end = start + (int64_t)(seconds * 1000); fe_now_ms() < end;) {
		side_step(&a);
		side_step(&b);
	}
	end = fe_now_ms();
	frames = a.got + b.got - frames;
	cpu = fe_process_cpu_ms(&a.fe.process) + fe_process_cpu_ms(&b.fe.process) - cpu;
	printf("pps=%.0f gbps=%.2f cpu_ns=%.0f\n", (double)frames * 1000 / (double)(end - start),
		(double)frames * (double)len * 8 / 1e6 / (double)(end - start),
		frames ? (double)cpu * 1e6 / (double)frames : 0);
	fe_process_kill(&a.fe.process);
	fe_process_kill(&b.fe.process);
	return 0;
}
