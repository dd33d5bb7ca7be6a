/* SPDX-License-Identifier: MIT */
/* The control socket: requests good and bad, many clients, clients that do not read, events. */
#include "control.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "device.h"
#include "settle.h"
#include "tap.h"

enum { BIG = 300000 };

struct rig {
	struct backend b;
	struct control c;
	struct loop *loop;
	char dir[64], path[80];
	unsigned runs;
};

static struct rig rig;

static int echo(struct backend *b, struct command *c)
{
	uint64_t n;
	bool on;

	CHECK(b == &rig.b);
	rig.runs++;
	json_object_begin(c->out);
	if (command_string(c, "text")) {
		json_key(c->out, "text");
		json_string(c->out, command_string(c, "text"));
	}
	if (command_u64(c, "number", &n)) {
		json_key(c->out, "number");
		json_u64(c->out, n);
	}
	if (command_size(c, "size", &n)) {
		json_key(c->out, "size");
		json_u64(c->out, n);
	}
	if (command_bool(c, "on", &on)) {
		json_key(c->out, "on");
		json_bool(c->out, on);
	}
	json_object_end(c->out);
	return 0;
}

static int needs(struct backend *b, struct command *c)
{
	(void)b;
	json_string(c->out, command_string(c, "must"));
	return 0;
}

static int fails(struct backend *b, struct command *c)
{
	uint64_t err = EIO;

	(void)b;
	json_string(c->out, "half an answer");
	command_u64(c, "errno", &err);
	return err == EIO ? command_error(c, EIO, "it is broken") : -(int)err;
}

static int quiet(struct backend *b, struct command *c)
{
	(void)b;
	(void)c;
	rig.runs++;
	return 0;
}

static int unfinished(struct backend *b, struct command *c)
{
	(void)b;
	json_object_begin(c->out);
	return 0;
}

static int big(struct backend *b, struct command *c)
{
	char *text = malloc(BIG + 1);

	(void)b;
	memset(text, 'x', BIG);
	text[BIG] = '\0';
	json_string(c->out, text);
	free(text);
	return 0;
}

static const struct command_arg echo_args[] = {
	{"text", COMMAND_STRING, false, "a text"},
	{"number", COMMAND_U64, false, "a number"},
	{"size", COMMAND_SIZE, false, "a size"},
	{"on", COMMAND_BOOL, false, "a truth"},
	{.name = NULL},
};
static const struct command_arg needs_args[] = {{"must", COMMAND_STRING, true, "needed"}, {.name = NULL}};
static const struct command_arg fails_args[] = {{"errno", COMMAND_U64, false, "how"}, {.name = NULL}};

static const struct command_spec core_table[] = {
	{"echo", "says it again", echo_args, echo},
	{"needs", "needs something", needs_args, needs},
	{"fails", "fails", fails_args, fails},
	{"unfinished", "is wrong", NULL, unfinished},
	{.name = NULL},
};
static const struct command_spec device_table[] = {
	{"quiet", "says nothing", NULL, quiet},
	{"big", "says much", NULL, big},
	{"echo", "is hidden", NULL, quiet},
	{.name = NULL},
};

static void rig_open(void)
{
	memset(&rig, 0, sizeof(rig));
	CHECK_EQ(loop_new(&rig.loop, "test"), 0);
	rig.c = (struct control){.b = &rig.b,
		.loop = rig.loop,
		.core = core_table,
		.device = device_table,
		.listener = {.fd = -1, .watch.fd = -1}};
	snprintf(rig.dir, sizeof(rig.dir), "/tmp/control-test.XXXXXX");
	CHECK(mkdtemp(rig.dir));
	snprintf(rig.path, sizeof(rig.path), "%s/c", rig.dir);
	CHECK_EQ(control_open(&rig.c, rig.path), 0);
}

static void rig_close(void)
{
	control_close(&rig.c);
	control_close(&rig.c);
	CHECK_EQ(rig.c.nclients, 0);
	loop_free(rig.loop);
	CHECK_EQ(rmdir(rig.dir), 0); /* the socket is removed */
}

static int try_client(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK_SYS(fd);
	memcpy(a.sun_path, rig.path, strlen(rig.path) + 1);
	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static int client(void)
{
	int fd = try_client();

	loop_settle(rig.loop, 3);
	return fd;
}

static void put(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t r = send(fd, bytes, n, MSG_NOSIGNAL);

		if (r < 0 && errno == EAGAIN) {
			loop_settle(rig.loop, 2);
			continue;
		}
		CHECK_SYS(r);
		bytes += r;
		n -= (size_t)r;
	}
}

static void say(int fd, const char *text)
{
	put(fd, text, strlen(text));
	loop_settle(rig.loop, 8);
}

/* All that has come; in a static buffer. Leaves the connection open. */
static const char *hear(int fd)
{
	static char buf[1 << 20];
	size_t n = 0;

	for (;;) {
		ssize_t r = recv(fd, buf + n, sizeof(buf) - 1 - n, 0);

		if (r <= 0)
			break;
		n += (size_t)r;
		loop_settle(rig.loop, 2);
	}
	buf[n] = '\0';
	return buf;
}

static bool closed(int fd)
{
	char c;

	loop_settle(rig.loop, 3);
	return recv(fd, &c, 1, 0) == 0;
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	while ((text = strchr(text, '\n'))) {
		text++;
		n++;
	}
	return n;
}

static void answers(void *arg)
{
	static const struct {
		const char *request, *answer;
	} cases[] = {
		{"{\"execute\":\"quiet\"}", "{\"return\":{}}"},
		{"{\"execute\":\"quiet\",\"arguments\":{}}", "{\"return\":{}}"},
		{" { \"execute\" : \"quiet\" , \"id\" : 7 } \r", "{\"return\":{},\"id\":7}"},
		{"{\"id\":\"a\\u0062c\",\"execute\":\"quiet\"}", "{\"return\":{},\"id\":\"abc\"}"},
		{"{\"execute\":\"quiet\",\"id\":[1.50,{\"x\":null},true,-3]}",
			"{\"return\":{},\"id\":[1.50,{\"x\":null},true,-3]}"},
		{"{\"execute\":\"echo\",\"arguments\":{\"text\":\"\\u00e9\",\"number\":18446744073709551615,"
		 "\"size\":\"3M\",\"on\":false}}",
			"{\"return\":{\"text\":\"\303\251\",\"number\":18446744073709551615,\"size\":3145728,"
			"\"on\":false}}"},
		{"{\"execute\":\"echo\",\"arguments\":{\"size\":12}}", "{\"return\":{\"size\":12}}"},
		{"{\"execute\":\"needs\",\"arguments\":{\"must\":\"x\"}}", "{\"return\":\"x\"}"},
	};
	int fd;

	(void)arg;
	rig_open();
	fd = client();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *got;

		say(fd, cases[i].request);
		CHECK_STR(hear(fd), ""); /* not before the end of the line */
		say(fd, "\n");
		got = hear(fd);
		CHECK_EQ(strlen(got), strlen(cases[i].answer) + 1);
		CHECK(strncmp(got, cases[i].answer, strlen(cases[i].answer)) == 0);
	}
	close(fd);
	rig_close();
}

static void errors(void *arg)
{
	static const struct {
		const char *request, *class, *text;
	} cases[] = {
		{"{", "BadRequest", "\"desc\":"},
		{"}", "BadRequest", "\"desc\":"},
		{"nonsense", "BadRequest", "\"desc\":"},
		{"[1]", "BadRequest", "object"},
		{"7", "BadRequest", "object"},
		{"null", "BadRequest", "object"},
		{"{}", "BadRequest", "execute"},
		{"{\"execute\":7}", "BadRequest", "execute"},
		{"{\"execute\":\"quiet\"} {}", "BadRequest", "\"desc\":"},
		{"{\"execute\":\"quiet\",\"argument\":{}}", "BadRequest", "argument"},
		{"{\"execute\":\"qui\\u0000et\"}", "BadRequest", "NUL"},
		{"{\"execute\":\"\377\376\"}", "BadRequest", "\"desc\":"},
		{"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "BadRequest", "deep"},
		{"{\"execute\":\"none\"}", "CommandNotFound", "none"},
		{"{\"execute\":\"\"}", "CommandNotFound", ""},
		{"{\"execute\":\"quiet\",\"arguments\":7}", "InvalidArgument", "object"},
		{"{\"execute\":\"quiet\",\"arguments\":{\"x\":1}}", "InvalidArgument", "x"},
		{"{\"execute\":\"echo\",\"arguments\":{\"text\":1}}", "InvalidArgument", "text"},
		{"{\"execute\":\"echo\",\"arguments\":{\"text\":\"\"}}", "InvalidArgument", "text"},
		{"{\"execute\":\"echo\",\"arguments\":{\"number\":-1}}", "InvalidArgument", "number"},
		{"{\"execute\":\"echo\",\"arguments\":{\"number\":1.5}}", "InvalidArgument", "number"},
		{"{\"execute\":\"echo\",\"arguments\":{\"number\":18446744073709551616}}", "InvalidArgument",
			"number"},
		{"{\"execute\":\"echo\",\"arguments\":{\"number\":\"1\"}}", "InvalidArgument", "number"},
		{"{\"execute\":\"echo\",\"arguments\":{\"size\":\"1X\"}}", "InvalidArgument", "size"},
		{"{\"execute\":\"echo\",\"arguments\":{\"on\":\"true\"}}", "InvalidArgument", "on"},
		{"{\"execute\":\"echo\",\"arguments\":{\"number\":1,\"number\":2}}", "InvalidArgument",
			"twice"},
		{"{\"execute\":\"needs\"}", "InvalidArgument", "must"},
		{"{\"execute\":\"needs\",\"arguments\":{}}", "InvalidArgument", "must"},
		{"{\"execute\":\"fails\"}", "Failed", "it is broken"},
		{"{\"execute\":\"fails\",\"arguments\":{\"errno\":2}}", "NotFound", "No such file"},
		{"{\"execute\":\"fails\",\"arguments\":{\"errno\":16}}", "Busy", "busy"},
		{"{\"execute\":\"fails\",\"arguments\":{\"errno\":95}}", "NotSupported", ""},
	};
	int fd;

	(void)arg;
	rig_open();
	fd = client();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char class[64];
		const char *got;

		say(fd, cases[i].request);
		say(fd, "\n");
		got = hear(fd);
		tap_note("%s", got);
		CHECK_EQ(lines(got), 1);
		snprintf(class, sizeof(class), "{\"error\":{\"class\":\"%s\",\"desc\":\"", cases[i].class);
		CHECK(strncmp(got, class, strlen(class)) == 0);
		CHECK_HAS(got, cases[i].text);
	}
	say(fd, "{\"execute\":\"fails\",\"id\":3}\n");
	CHECK_HAS(hear(fd), ",\"id\":3}");
	CHECK_EQ(rig.runs, 0);
	say(fd, "{\"execute\":\"quiet\"}\n"); /* it goes on */
	CHECK_STR(hear(fd), "{\"return\":{}}\n");
	say(fd, "{\"execute\":\"unfinished\"}\n");
	CHECK_STR(hear(fd), "{\"return\":null}\n");
	close(fd);
	rig_close();
}

static void pipelined(void *arg)
{
	const char *got;
	unsigned i;
	int fd;

	(void)arg;
	rig_open();
	fd = client();
	for (i = 0; i < 1000; i++)
		put(fd, "{\"execute\":\"quiet\"}\n\n \r\n", 24);
	shutdown(fd, SHUT_WR);
	for (i = 0; i < 20; i++)
		loop_settle(rig.loop, 20);
	got = hear(fd);
	CHECK_EQ(lines(got), 1000);
	CHECK_EQ(rig.runs, 1000);
	CHECK(closed(fd)); /* after the last answer */
	CHECK_EQ(rig.c.nclients, 0);
	close(fd);
	rig_close();
}

static void long_lines(void *arg)
{
	static char text[300000];
	const char *got;
	int fd;

	(void)arg;
	rig_open();
	fd = client();
	/* one that just fits */
	memset(text, ' ', sizeof(text));
	memcpy(text, "{\"execute\":\"quiet\"}", 19);
	put(fd, text, CONTROL_MAX_LINE - 1);
	say(fd, "\n");
	CHECK_STR(hear(fd), "{\"return\":{}}\n");
	/* one byte more, and much more */
	put(fd, text, CONTROL_MAX_LINE);
	say(fd, "\n{\"execute\":\"quiet\"}\n");
	got = hear(fd);
	CHECK_EQ(lines(got), 2);
	CHECK_HAS(got, "too long");
	CHECK_HAS(got, "\n{\"return\":{}}\n");
	put(fd, text, sizeof(text));
	loop_settle(rig.loop, 8);
	CHECK_EQ(lines(hear(fd)), 1);
	put(fd, text, sizeof(text));
	say(fd, "\n{\"execute\":\"quiet\"}\n");
	CHECK_STR(hear(fd), "{\"return\":{}}\n");
	CHECK_EQ(rig.runs, 3);
	/* the end of the connection in the middle of a line */
	say(fd, "{\"execute\":\"qui");
	shutdown(fd, SHUT_WR);
	CHECK(closed(fd));
	CHECK_EQ(rig.runs, 3);
	close(fd);
	rig_close();
}

static void many_clients(void *arg)
{
	int fd[CONTROL_MAX_CLIENTS], more;
	unsigned i;

	(void)arg;
	rig_open();
	for (i = 0; i < CONTROL_MAX_CLIENTS; i++)
		fd[i] = client();
	for (i = 0; i < CONTROL_MAX_CLIENTS; i++)
		put(fd[i], "{\"execute\":\"quiet\"}\n", 20);
	for (i = 0; i < 10; i++)
		loop_settle(rig.loop, 10);
	for (i = 0; i < CONTROL_MAX_CLIENTS; i++)
		CHECK_STR(hear(fd[i]), "{\"return\":{}}\n");
	more = client();
	CHECK_HAS(hear(more), "too many clients");
	CHECK(closed(more));
	close(more);
	close(fd[5]);
	loop_settle(rig.loop, 3);
	CHECK_EQ(rig.c.nclients, CONTROL_MAX_CLIENTS - 1);
	fd[5] = client();
	say(fd[5], "{\"execute\":\"quiet\"}\n");
	CHECK_STR(hear(fd[5]), "{\"return\":{}}\n");
	for (i = 0; i < CONTROL_MAX_CLIENTS; i++)
		close(fd[i]);
	loop_settle(rig.loop, 10);
	CHECK_EQ(rig.c.nclients, 0);
	rig_close();
}

static void events(void *arg)
{
	CLEANUP_JSON struct json *data = json_new(false);
	int a, b;

	(void)arg;
	rig_open();
	CHECK(!control_has_clients(&rig.c));
	control_event(&rig.c, "nobody", NULL);
	a = client();
	b = client();
	CHECK(control_has_clients(&rig.c));
	json_object_begin(data);
	json_key(data, "n");
	json_u64(data, 5);
	json_object_end(data);
	control_event(&rig.c, "first", data);
	control_event(&rig.c, "second", NULL);
	for (int i = 0; i < 2; i++) {
		const char *got = hear(i ? b : a);

		CHECK_EQ(lines(got), 2);
		CHECK_HAS(got, "{\"event\":\"first\",\"data\":{\"n\":5},\"timestamp\":{\"seconds\":1");
		CHECK_HAS(got, "{\"event\":\"second\",\"data\":{},\"timestamp\":{\"seconds\":1");
	}
	close(a);
	control_event(&rig.c, "third", NULL); /* to one that is gone too */
	loop_settle(rig.loop, 3);
	CHECK_EQ(rig.c.nclients, 1);
	CHECK_EQ(lines(hear(b)), 1);
	close(b);
	rig_close();
}

/* It gets no more answers and loses events, and all else goes on. */
static void never_reads(void *arg)
{
	CLEANUP_JSON struct json *data = json_new(false);
	char text[1001];
	unsigned i, n;
	int deaf, fine;
	const char *got;

	(void)arg;
	rig_open();
	deaf = client();
	fine = client();
	for (i = 0; i < 50; i++)
		say(deaf, "{\"execute\":\"big\"}\n{\"execute\":\"quiet\"}\n");
	CHECK(rig.runs < 10); /* its commands wait */
	n = rig.runs;
	memset(text, 'e', 1000);
	text[1000] = '\0';
	json_string(data, text);
	for (i = 0; i < 3000; i++) {
		control_event(&rig.c, "noise", data);
		if (i % 50 == 0)
			CHECK(lines(hear(fine)));
	}
	hear(fine);
	say(fine, "{\"execute\":\"echo\",\"arguments\":{\"number\":1}}\n");
	CHECK_STR(hear(fine), "{\"return\":{\"number\":1}}\n");
	CHECK_EQ(rig.runs, n + 1);
	/* at last it reads: its answers, the events that were kept, the number of those that were not */
	for (i = 0; rig.runs < n + 1 + (50 - n) && i < 1000; i++) {
		hear(deaf);
		loop_settle(rig.loop, 5);
	}
	CHECK_EQ(rig.runs, 51);
	hear(deaf);
	control_event(&rig.c, "last", NULL);
	got = hear(deaf);
	CHECK_EQ(lines(got), 2);
	CHECK_HAS(got, "{\"event\":\"events-lost\",\"data\":{\"count\":");
	CHECK_HAS(got, "\n{\"event\":\"last\"");
	/* one that goes without ever having read */
	say(deaf, "{\"execute\":\"big\"}\n{\"execute\":\"big\"}\n");
	close(deaf);
	loop_settle(rig.loop, 3);
	CHECK_EQ(rig.c.nclients, 1);
	close(fine);
	rig_close();
}

static void paths(void *arg)
{
	struct control other;
	struct stat st;
	int fd;

	(void)arg;
	rig_open();
	CHECK_EQ(stat(rig.path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	other = (struct control){.loop = rig.loop, .listener = {.fd = -1, .watch.fd = -1}};
	CHECK_EQ(control_open(&other, rig.path), -EADDRINUSE);
	control_close(&other);
	CHECK_EQ(control_open(&other, "/nowhere/at/all"), -ENOENT);
	control_close(&other);
	fd = client();
	say(fd, "{\"execute\":\"quiet\"}\n");
	CHECK_STR(hear(fd), "{\"return\":{}}\n");
	control_quiet(&rig.c); /* no more clients, but those that there are */
	CHECK_EQ(access(rig.path, F_OK), -1);
	say(fd, "{\"execute\":\"quiet\"}\n");
	CHECK_STR(hear(fd), "{\"return\":{}}\n");
	close(fd);
	rig_close();
}

static void described(void *arg)
{
	CLEANUP_JSON struct json *out = json_new(false), *schema = json_new(false);

	(void)arg;
	command_describe(&core_table[1], out);
	CHECK_STR(json_text(out, NULL),
		"{\"name\":\"needs\",\"help\":\"needs something\",\"arguments\":[{\"name\":"
		"\"must\",\"type\":\"string\",\"required\":true,\"help\":\"needed\"}]}");
	command_schema(&core_table[1], schema);
	CHECK_STR(json_text(schema, NULL),
		"{\"type\":\"object\",\"properties\":{\"must\":{\"$ref\":\"#/definitions/string\"}},"
		"\"required\":[\"must\"],\"additionalProperties\":false}");
}

/* As in a process with several backends: most commands say which one they are for. */
static struct backend *pick(struct control *c, struct command *cmd)
{
	uint64_t n;

	if (!command_u64(cmd, "which", &n) || n == 0)
		return c->b;
	command_error(cmd, EINVAL, "there is only 0");
	return NULL;
}

static void extended(void *arg)
{
	static const struct command_arg which = {"which", COMMAND_U64, true, "which one"};
	static const char *const except[] = {"fails", NULL};
	struct command_spec *table, *empty = command_extend(NULL, &which, NULL);
	int fd;

	(void)arg;
	CHECK(empty && !empty->name);
	free(empty);
	rig_open();
	table = command_extend(core_table, &which, except);
	CHECK(table != NULL);
	rig.c.core = table;
	rig.c.device = NULL;
	rig.c.pick = pick;
	fd = client();
	say(fd, "{\"execute\":\"needs\",\"arguments\":{\"must\":\"x\"}}\n");
	CHECK_HAS(hear(fd), "argument which: missing");
	say(fd, "{\"execute\":\"needs\",\"arguments\":{\"which\":0}}\n");
	CHECK_HAS(hear(fd), "argument must: missing");
	say(fd, "{\"execute\":\"needs\",\"arguments\":{\"which\":0,\"must\":\"x\"}}\n");
	CHECK_HAS(hear(fd), "\"return\"");
	say(fd, "{\"execute\":\"needs\",\"arguments\":{\"which\":1,\"must\":\"x\"}}\n");
	CHECK_HAS(hear(fd), "there is only 0");
	say(fd, "{\"execute\":\"fails\",\"arguments\":{\"which\":0}}\n");
	CHECK_HAS(hear(fd), "takes no argument");
	say(fd, "{\"execute\":\"quiet\",\"arguments\":{\"which\":0}}\n");
	CHECK_HAS(hear(fd), "CommandNotFound");
	control_event_of(&rig.c, 5, "told", NULL);
	CHECK_HAS(hear(fd), "{\"event\":\"told\",\"socket\":5,\"data\":{},");
	close(fd);
	rig_close();
	free(table);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	tap_case("answers", answers, NULL);
	tap_case("errors are answered, the connection goes on", errors, NULL);
	tap_case("commands one after the other, end of file", pipelined, NULL);
	tap_case("long lines", long_lines, NULL);
	tap_case("many clients", many_clients, NULL);
	tap_case("events", events, NULL);
	tap_case("a client that never reads", never_reads, NULL);
	tap_case("paths", paths, NULL);
	tap_case("descriptions", described, NULL);
	tap_case("several backends", extended, NULL);
	return tap_done();
}
