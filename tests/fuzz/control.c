/* SPDX-License-Identifier: MIT */
/*
 * The control socket with hostile clients: the input is a list of steps in which clients come, send pieces of lines, read
 * or not, hang up half or whole, and in which events happen.
 *
 * Checked besides the sanitizers' rules: every line that comes back is one JSON object with exactly one of return, error
 * and event; a client never gets more answers than it has sent lines; what is held for a client stays bounded.
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src/control.c"
#include "../unit/settle.h"

enum { CLIENTS = 4, HELD = 160000, STEPS_MAX = 400 };
enum { OP_COME, OP_BYTES, OP_LINE, OP_REPEAT, OP_READ, OP_HALF, OP_GO, OP_EVENT, OP_TURN, OPS };

static struct {
	struct input in;
	struct control c;
	struct loop *loop;
	struct fuzz_client {
		int fd; /* -1: is not there */
		size_t lines, answers;
		char got[1 << 16];
		size_t ngot;
	} client[CLIENTS];
} f;

/* Commands of all kinds */

static int answers(struct backend *b, struct command *c)
{
	uint64_t n;

	(void)b;
	json_array_begin(c->out);
	json_string(c->out, command_string(c, "text"));
	if (command_size(c, "size", &n))
		json_u64(c->out, n);
	json_array_end(c->out);
	return 0;
}

static int large(struct backend *b, struct command *c)
{
	char text[6000];

	(void)b;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	json_string(c->out, text);
	return 0;
}

static int fails(struct backend *b, struct command *c)
{
	bool on = false;

	(void)b;
	command_bool(c, "on", &on);
	return on ? command_error(c, EBUSY, "%s", "later") : -EIO;
}

static int tells(struct backend *b, struct command *c)
{
	(void)b;
	(void)c;
	control_event(&f.c, "told", NULL);
	return 0;
}

static const struct command_arg some_args[] = {{"text", COMMAND_STRING, true, "t"},
	{"size", COMMAND_SIZE, false, "s"}, {"number", COMMAND_U64, false, "n"}, {.name = NULL}};
static const struct command_arg on_args[] = {{"on", COMMAND_BOOL, false, "o"}, {.name = NULL}};
static const struct command_spec table[] = {{"answers", "a", some_args, answers}, {"large", "l", NULL, large},
	{"fails", "f", on_args, fails}, {"tells", "t", NULL, tells}, {.name = NULL}};

/* Clients */

static struct fuzz_client *pick(void)
{
	return &f.client[input_u8(&f.in) % CLIENTS];
}

static void turn(void)
{
	loop_settle(f.loop, 2);
}

static void come(struct fuzz_client *cl)
{
	int pair[2];

	if (cl->fd >= 0)
		return;
	require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0, "a socket");
	*cl = (struct fuzz_client){.fd = pair[0]};
	connected(&f.c.listener, pair[1]);
}

static void put(struct fuzz_client *cl, const char *bytes, size_t n)
{
	ssize_t sent = cl->fd < 0 ? 0 : send(cl->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	for (ssize_t i = 0; i < sent; i++)
		cl->lines += bytes[i] == '\n';
}

static void send_bytes(struct fuzz_client *cl)
{
	char bytes[256];
	uint8_t n = input_u8(&f.in);

	input_bytes(&f.in, bytes, n);
	put(cl, bytes, n);
}

static void send_line(struct fuzz_client *cl)
{
	static const char *const lines[] = {
		"{\"execute\":\"answers\",\"arguments\":{\"text\":\"x\",\"size\":\"1G\"}}\n",
		"{\"execute\":\"large\",\"id\":[{}]}\n",
		"{\"execute\":\"fails\",\"arguments\":{\"on\":true}}\n",
		"{\"execute\":\"tells\",\"id\":\"\\ud83d\\ude00\"}\n", "{\"execute\":\"fails\"}\n", "\n",
		" \r\n", "{\"execute\":\"answers\",\"arguments\":{\"text\":"};
	const char *line = lines[input_u8(&f.in) % ARRAY_SIZE(lines)];

	put(cl, line, strlen(line));
}

static void repeat(struct fuzz_client *cl)
{
	static char bytes[4096];
	uint8_t times = input_u8(&f.in);

	memset(bytes, input_u8(&f.in), sizeof(bytes));
	for (uint8_t i = 0; i < times % 32; i++) {
		put(cl, bytes, sizeof(bytes));
		turn();
	}
}

static void check_line(struct fuzz_client *cl, const char *line, size_t len)
{
	char why[JSON_ERROR_LEN];
	CLEANUP_JSON_VALUE struct json_value *v = json_parse(line, len, why, sizeof(why));
	bool answer, error, event;

	require(json_type(v) == JSON_OBJECT, "a line is an object");
	answer = json_get(v, "return");
	error = json_get(v, "error");
	event = json_get(v, "event");
	require(answer + error + event == 1, "a line is one of three");
	cl->answers += !event;
}

static void hear(struct fuzz_client *cl)
{
	ssize_t n =
		cl->fd < 0 ? 0 : recv(cl->fd, cl->got + cl->ngot, sizeof(cl->got) - cl->ngot, MSG_DONTWAIT);
	char *start = cl->got, *end;

	if (n <= 0)
		return;
	cl->ngot += (size_t)n;
	while ((end = memchr(start, '\n', cl->ngot - (size_t)(start - cl->got)))) {
		check_line(cl, start, (size_t)(end - start));
		start = end + 1;
	}
	cl->ngot -= (size_t)(start - cl->got);
	memmove(cl->got, start, cl->ngot);
	require(cl->ngot < sizeof(cl->got), "lines end");
	/* a line that is too long is answered before it ends */
	require(cl->answers <= cl->lines + 1, "no more answers than lines");
}

static void go(struct fuzz_client *cl)
{
	if (cl->fd >= 0)
		close(cl->fd);
	cl->fd = -1;
}

static void event(void)
{
	CLEANUP_JSON struct json *data = json_new(false);

	json_array_begin(data);
	for (unsigned i = input_u8(&f.in) % 32; i > 0; i--)
		json_string(data, "something or other");
	json_array_end(data);
	control_event(&f.c, "event", data);
}

static void step(void)
{
	uint8_t op = input_u8(&f.in) % OPS;
	struct fuzz_client *cl = pick();

	switch (op) {
	case OP_COME:
		come(cl);
		break;
	case OP_BYTES:
		send_bytes(cl);
		break;
	case OP_LINE:
		send_line(cl);
		break;
	case OP_REPEAT:
		repeat(cl);
		break;
	case OP_READ:
		hear(cl);
		break;
	case OP_HALF:
		if (cl->fd >= 0)
			shutdown(cl->fd, SHUT_WR);
		break;
	case OP_GO:
		go(cl);
		break;
	case OP_EVENT:
		event();
		break;
	default:
		turn();
		break;
	}
	for (struct control_client *held = f.c.clients; held; held = held->next)
		require(held->capacity <= HELD, "what is held for a client is bounded");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned i;

	log_set_level(LOG_LEVEL_ERROR);
	f.in = (struct input){data, data + size};
	require(loop_new(&f.loop, "fuzz") == 0, "memory");
	f.c = (struct control){.loop = f.loop, .core = table, .listener = {.fd = -1, .watch.fd = -1}};
	for (i = 0; i < CLIENTS; i++)
		f.client[i].fd = -1;
	come(&f.client[0]);
	for (i = 0; i < STEPS_MAX && input_left(&f.in); i++)
		step();
	for (i = 0; i < CLIENTS * 2; i++)
		turn();
	for (i = 0; i < CLIENTS; i++)
		go(&f.client[i]);
	for (i = 0; f.c.nclients && i < CONTROL_MAX_LINE; i++) /* each line they sent is still run */
		turn();
	require(f.c.nclients == 0, "clients that hung up are gone");
	control_close(&f.c);
	loop_free(f.loop);
	return 0;
}

static void seed_op(struct seed *s, uint8_t op, uint8_t client)
{
	seed_u8(s, op);
	seed_u8(s, client);
}

void fuzz_seeds(void (*emit)(const char *name, const void *data, size_t size))
{
	static const char json[] = "{\"id\":{\"a\":[1,-2.5e3,null,true,\"\\u00e9\"]},\"execute\":\"answers\","
				   "\"arguments\":{\"text\":\"y\",\"number\":7}}\n";
	struct seed s = {.n = 0};
	uint8_t i;

	for (i = 0; i < 8; i++) {
		seed_op(&s, OP_LINE, 0);
		seed_u8(&s, i);
		seed_op(&s, OP_TURN, 0);
		seed_op(&s, OP_READ, 0);
	}
	seed_op(&s, OP_BYTES, 0);
	seed_u8(&s, 4);
	seed_put(&s, "1}}\n", 4);
	seed_op(&s, OP_HALF, 0);
	seed_op(&s, OP_TURN, 0);
	seed_op(&s, OP_READ, 0);
	emit("lines", s.bytes, s.n);

	s.n = 0;
	for (i = 0; i < 4; i++) {
		seed_op(&s, OP_COME, i);
		seed_op(&s, OP_BYTES, i);
		seed_u8(&s, (uint8_t)strlen(json));
		seed_put(&s, json, strlen(json));
		seed_op(&s, OP_TURN, i);
	}
	for (i = 0; i < 4; i++) {
		seed_op(&s, OP_EVENT, i);
		seed_u8(&s, 200);
		seed_op(&s, OP_READ, i);
		seed_op(&s, OP_GO, i);
	}
	emit("clients", s.bytes, s.n);

	s.n = 0;
	for (i = 0; i < 12; i++) {
		seed_op(&s, OP_LINE, 0);
		seed_u8(&s, 1); /* large */
		seed_op(&s, OP_TURN, 0);
		seed_op(&s, OP_EVENT, 0);
		seed_u8(&s, 255);
	}
	for (i = 0; i < 12; i++) {
		seed_op(&s, OP_READ, 0);
		seed_op(&s, OP_TURN, 0);
	}
	emit("deaf", s.bytes, s.n);

	s.n = 0;
	for (i = 0; i < 3; i++) {
		seed_op(&s, OP_REPEAT, 0);
		seed_u8(&s, 31);
		seed_u8(&s, i == 1 ? '[' : 'x');
		seed_op(&s, OP_LINE, 0);
		seed_u8(&s, 5);
		seed_op(&s, OP_TURN, 0);
		seed_op(&s, OP_READ, 0);
	}
	emit("long", s.bytes, s.n);
}
