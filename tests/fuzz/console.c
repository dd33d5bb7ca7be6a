/* SPDX-License-Identifier: MIT */
/*
 * The console between a hostile driver and programs of the host: the input is a list of steps that offer buffers, with control
 * messages and bytes, stop and start queues, plug and unplug ports, let the host's programs speak and go, and move to another process.
 */
#include "fuzz.h"

#include "port-queues.h"

#include <signal.h>
#include <sys/socket.h>

#define port_ready control_port_ready
#include "../../devices/console-control.c"
#undef port_ready
#include "../../devices/console.c"
#include "../../devices/console-state.c"
#include "../../devices/port-config.c"
#include "../../devices/port-line.c"
#include "../../devices/port-pty.c"
#include "../../devices/port-socket.c"
#include "../../devices/port-state.c"
#include "../../devices/port-tty.c"
#include "../../devices/port.c"

enum {
	OP_OFFER,
	OP_START,
	OP_STOP,
	OP_RESET,
	OP_ADD,
	OP_REMOVE,
	OP_RESIZE,
	OP_HOST,
	OP_GO,
	OP_EMERGENCY,
	OP_MOVE,
	OPS
};

static int host = -1;

static void add_port(void)
{
	char text[160];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	snprintf(text, sizeof(text), "{\"port\":\"name=p%u,type=%s,host=fd:%d,backlog=%u\"}",
		input_u8(&f.in) % 4, input_u8(&f.in) & 1 ? "console" : "serial", pair[1],
		input_u8(&f.in) % 2 * 100);
	run_command("port-add", text);
	close(pair[1]);
	if (host >= 0)
		close(host);
	host = pair[0];
}

static void remove_port(void)
{
	char text[40];

	snprintf(text, sizeof(text), "{\"name\":\"p%u\"}", input_u8(&f.in) % 4);
	run_command("port-remove", text);
}

static void step(void)
{
	uint8_t buf[256] = {0}, op = input_u8(&f.in) % OPS, q = input_u8(&f.in) % QUEUES;
	ssize_t n;

	if (op == OP_OFFER)
		offer(q);
	else if (op == OP_START)
		start(q);
	else if (op == OP_STOP)
		stop(q);
	else if (op == OP_ADD)
		add_port();
	else if (op == OP_REMOVE)
		remove_port();
	else if (op == OP_RESIZE)
		run_command("port-resize", "{\"name\":\"0\",\"cols\":80,\"rows\":25}");
	else if (op == OP_EMERGENCY)
		f.b.dev->config_write(&f.b, q, buf, sizeof(struct virtio_console_config) - q);
	if (op == OP_HOST && host >= 0) {
		n = write(host, buf, q * 16u);
		n = read(host, buf, sizeof(buf));
		(void)n;
	} else if (op == OP_GO && host >= 0) {
		fd_close(&host);
	} else if (op == OP_RESET) {
		for (unsigned i = 0; i < QUEUES; i++)
			stop(i);
		f.b.features = q & 1 ? f.b.offered : 0;
		f.b.dev->reset(&f.b);
	} else if (op == OP_MOVE) {
		for (unsigned i = 0; i < QUEUES; i++)
			stop(i);
		require(move_state(&f.b, &f.in) != MOVE_REFUSED, "it can always be saved");
	}
	turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t config[sizeof(struct virtio_console_config) + 1];

	signal(SIGPIPE, SIG_IGN);
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + size};
	log_set_level(LOG_LEVEL_ERROR);
	f.b = (struct backend){.dev = &device_console,
		.state = calloc(1, sizeof(struct console)),
		.config = config,
		.offered = device_console.features,
		.num_queues = device_console.max_queues};
	if (loop_new(&f.b.loop, "fuzz") < 0)
		abort();
	if (parse_port(f.b.state, "name=p,host=null") || console_open(&f.b) < 0)
		abort();
	f.b.features = f.b.offered;
	for (unsigned i = 0; i < STEPS && input_left(&f.in); i++)
		step();
	for (unsigned i = 0; i < QUEUES; i++)
		stop(i);
	require(f.nout == 0, "no buffer is held by a queue that stopped");
	console_close(&f.b);
	loop_free(f.b.loop);
	free(f.b.state);
	fd_close(&host);
	return 0;
}

static void put_op(struct seed *s, unsigned op, unsigned q)
{
	seed_u8(s, (uint8_t)op);
	seed_u8(s, (uint8_t)q);
}

/* One control message to the device. */
static void put_control(struct seed *s, uint32_t id, uint16_t event, uint16_t value)
{
	put_op(s, OP_OFFER, QUEUE_CONTROL_OUT);
	seed_u8(s, 8);
	seed_u8(s, 1);
	seed_u32(s, id);
	seed_u16(s, event);
	seed_u16(s, value);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	struct seed s = {.n = 0};

	for (unsigned i = 0; i < QUEUES; i++) {
		put_op(&s, OP_START, i);
		if (i < 2 || i > 3)
			i % 2 ? seed_u8(&s, 0) : (void)0;
	}
	put_op(&s, OP_OFFER, QUEUE_CONTROL_IN);
	seed_u8(&s, 100);
	seed_u8(&s, 15);
	put_op(&s, OP_ADD, 0);
	seed_u8(&s, 1);
	seed_u8(&s, 0);
	seed_u8(&s, 1);
	put_control(&s, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
	put_control(&s, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	put_control(&s, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	put_control(&s, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	put_op(&s, OP_OFFER, 4);
	seed_u8(&s, 64);
	seed_u8(&s, 4);
	put_op(&s, OP_HOST, 3);
	put_op(&s, OP_RESIZE, 0);
	put_op(&s, OP_OFFER, 5);
	seed_u8(&s, 16);
	seed_u8(&s, 1);
	seed_u64(&s, 1);
	seed_u64(&s, 2);
	put_op(&s, OP_EMERGENCY, 0);
	put_control(&s, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	put_op(&s, OP_GO, 0);
	put_op(&s, OP_REMOVE, 0);
	seed_u8(&s, 1);
	put_op(&s, OP_MOVE, 0);
	seed_u8(&s, 0);
	put_op(&s, OP_RESET, 1);
	emit("regular", s.bytes, s.n);
}
