/* SPDX-License-Identifier: MIT */
/*
 * rpmsg between a hostile guest and a program of the host: the input is a list of steps that offer buffers, with messages and
 * announcements, stop and start queues, add and remove services, and let the host's program speak and go.
 */
#include "fuzz.h"

#include "port-queues.h"

#include <signal.h>
#include <sys/socket.h>

#include "../../devices/rpmsg-service.c"
#include "../../devices/rpmsg-state.c"
#include "../../devices/rpmsg.c"
#include "../../devices/port-config.c"
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
	OP_ADD_ECHO,
	OP_REMOVE,
	OP_HOST,
	OP_GO,
	OP_SETTLE,
	OP_MOVE,
	OPS
};

static int host = -1;

static void add_service(bool with_echo)
{
	char text[120];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	if (with_echo)
		snprintf(text, sizeof(text), "{\"service\":\"name=s%u,echo\"}", input_u8(&f.in) % 4);
	else
		snprintf(text, sizeof(text), "{\"service\":\"name=s%u,host=fd:%d\"}", input_u8(&f.in) % 4,
			pair[1]);
	run_command("service-add", text);
	close(pair[1]);
	if (host >= 0)
		close(host);
	host = pair[0];
}

static void step(void)
{
	uint8_t buf[256] = {0}, op = input_u8(&f.in) % OPS, q = input_u8(&f.in) % 2;
	struct rpmsg *r = f.b.state;
	char text[40];
	ssize_t n;

	if (op == OP_OFFER)
		offer(q);
	else if (op == OP_START)
		start(q);
	else if (op == OP_STOP)
		stop(q);
	else if (op == OP_ADD || op == OP_ADD_ECHO)
		add_service(op == OP_ADD_ECHO);
	if (op == OP_REMOVE) {
		snprintf(text, sizeof(text), "{\"name\":\"s%u\"}", input_u8(&f.in) % 4);
		run_command("service-remove", text);
	} else if (op == OP_HOST && host >= 0) {
		n = write(host, buf, sizeof(buf));
		n = read(host, buf, sizeof(buf));
		(void)n;
	} else if (op == OP_GO && host >= 0) {
		fd_close(&host);
	} else if (op == OP_SETTLE && r->rx) {
		timer_disarm(&r->settle);
		settled(&r->settle);
	} else if (op == OP_RESET) {
		stop(0);
		stop(1);
		f.b.features = q ? f.b.offered : 0;
		f.b.dev->reset(&f.b);
	} else if (op == OP_MOVE) {
		stop(0);
		stop(1);
		require(move_state(&f.b, &f.in) != MOVE_REFUSED, "it can always be saved");
	}
	turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	signal(SIGPIPE, SIG_IGN);
	memset(&f, 0, sizeof(f));
	f.in = (struct input){data, data + size};
	log_set_level(LOG_LEVEL_ERROR);
	f.b = (struct backend){.dev = &device_rpmsg,
		.state = calloc(1, sizeof(struct rpmsg)),
		.offered = device_rpmsg.features,
		.num_queues = device_rpmsg.max_queues};
	if (loop_new(&f.b.loop, "fuzz") < 0)
		abort();
	if (parse_service(f.b.state, "name=e,echo") || rpmsg_open(&f.b) < 0)
		abort();
	f.b.features = f.b.offered;
	for (unsigned i = 0; i < STEPS && input_left(&f.in); i++)
		step();
	stop(0);
	stop(1);
	require(f.nout == 0, "no buffer is held");
	rpmsg_close(&f.b);
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

static void put_message(struct seed *s, uint32_t src, uint32_t dst, uint16_t len)
{
	put_op(s, OP_OFFER, QUEUE_TX);
	seed_u8(s, (uint8_t)(16 + len));
	seed_u8(s, 1);
	seed_u32(s, src);
	seed_u32(s, dst);
	seed_u32(s, 0);
	seed_u16(s, len);
	seed_u16(s, 0);
	for (unsigned i = 0; i < len; i++)
		seed_u8(s, (uint8_t)('a' + i % 26));
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	struct seed s = {.n = 0};

	put_op(&s, OP_START, QUEUE_RX);
	put_op(&s, OP_START, QUEUE_TX);
	put_op(&s, OP_OFFER, QUEUE_RX);
	seed_u8(&s, 255);
	seed_u8(&s, 15);
	put_op(&s, OP_SETTLE, 0);
	put_op(&s, OP_ADD, 0);
	seed_u8(&s, 1);
	put_message(&s, 2000, RPMSG_FIRST_ADDRESS, 30);
	put_message(&s, 2000, RPMSG_FIRST_ADDRESS + 1, 30);
	put_op(&s, OP_HOST, 0);
	put_message(&s, 2001, RPMSG_NS_ADDRESS, sizeof(struct rpmsg_ns));
	put_op(&s, OP_STOP, QUEUE_RX);
	put_op(&s, OP_START, QUEUE_RX);
	put_op(&s, OP_GO, 0);
	put_op(&s, OP_REMOVE, 0);
	seed_u8(&s, 1);
	put_op(&s, OP_ADD_ECHO, 0);
	seed_u8(&s, 2);
	put_op(&s, OP_MOVE, 0);
	seed_u8(&s, 0);
	put_op(&s, OP_RESET, 1);
	emit("regular", s.bytes, s.n);
}
