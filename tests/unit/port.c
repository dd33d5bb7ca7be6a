/* SPDX-License-Identifier: MIT */
/* A host end by itself: its text form, the backlog, what a program of the host sees when it comes late, goes and comes again. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "log.h"
#include "port-host.h"
#include "tap.h"

/* --- text form --- */

struct item {
	const char *name, *value;
};

static void check_list(const char *list, const struct item *want)
{
	const char *name, *value;
	char buf[16];

	for (; want->name; want++) {
		CHECK_EQ(port_list_next(&list, buf, sizeof(buf), &name, &value), 1);
		CHECK_STR(name, want->name);
		CHECK_EQ(!value, !want->value);
		if (value)
			CHECK_STR(value, want->value);
	}
	CHECK_EQ(port_list_next(&list, buf, sizeof(buf), &name, &value), 0);
}

static void lists(void *arg)
{
	const char *list = "name=0123456789a,b", *name, *value;
	char buf[16];

	(void)arg;
	check_list("", (struct item[]){{0}});
	check_list("a", (struct item[]){{"a", NULL}, {0}});
	check_list("a=", (struct item[]){{"a", ""}, {0}});
	check_list("a=b=c,d,e=f", (struct item[]){{"a", "b=c"}, {"d", NULL}, {"e", "f"}, {0}});
	check_list("a=b,,c,d", (struct item[]){{"a", "b,c"}, {"d", NULL}, {0}});
	check_list("a=,,,,,b", (struct item[]){{"a", ",,"}, {"b", NULL}, {0}});
	check_list("a,", (struct item[]){{"a", NULL}, {0}});
	check_list("name=0123456789", (struct item[]){{"name", "0123456789"}, {0}});
	CHECK_EQ(port_list_next(&list, buf, sizeof(buf), &name, &value), -EINVAL);
}

/* Takes a whole list; NULL or why not. */
static const char *parse(struct port_config *c, const char *list)
{
	const char *why = NULL, *name, *value;
	char buf[256];

	*c = (struct port_config){.messages = c->messages};
	while (!why && port_list_next(&list, buf, sizeof(buf), &name, &value) > 0)
		why = port_config_item(c, name, value);
	return why ? why : port_config_check(c);
}

static void hosts(void *arg)
{
	struct port_config c = {0};

	(void)arg;
	CHECK(!parse(&c, "host=null"));
	CHECK_EQ(c.kind, PORT_NULL);
	CHECK_STR(c.host, "null");
	CHECK(!c.path && !c.backlog && !c.patience_ms && !c.server);
	port_config_free(&c);
	CHECK(!c.host);

	CHECK(!parse(&c, "backlog=4k,host=unix:/a:b,server,patience=2s,log=/l"));
	CHECK_EQ(c.kind, PORT_UNIX);
	CHECK_STR(c.path, "/a:b");
	CHECK_STR(c.log, "/l");
	CHECK_EQ(c.backlog, 4096);
	CHECK_EQ(c.patience_ms, 2000);
	CHECK(c.server);
	port_config_free(&c);

	CHECK(!parse(&c, "host=tcp:[::1]:http"));
	CHECK_EQ(c.kind, PORT_TCP);
	CHECK_STR(c.path, "::1");
	CHECK_STR(c.service, "http");
	port_config_free(&c);
	CHECK(!parse(&c, "host=tcp:host.example:80"));
	CHECK_STR(c.path, "host.example");
	CHECK_STR(c.service, "80");
	port_config_free(&c);

	CHECK(!parse(&c, "host=pty"));
	CHECK(c.kind == PORT_PTY && !c.path);
	port_config_free(&c);
	CHECK(!parse(&c, "host=pty:link=/x"));
	CHECK_STR(c.path, "/x");
	port_config_free(&c);
	CHECK(!parse(&c, "host=fd:7"));
	CHECK(c.kind == PORT_FD && c.fd == 7);
	port_config_free(&c);
	CHECK(!parse(&c, "signals,host=stdio"));
	CHECK(c.kind == PORT_STDIO && c.signals);
	port_config_free(&c);
}

static void refused(void *row)
{
	const char *const *r = row;
	struct port_config c = {.messages = r[2] != NULL};
	const char *why = parse(&c, r[0]);

	if (!why || !strstr(why, r[1]))
		FAIL("%s: %s", r[0], why ? why : "was taken");
	port_config_free(&c);
}

/* --- a port and its owner --- */

struct owner {
	struct port *port;
	struct loop *loop;
	unsigned ups, downs, rooms;
};

static struct owner *owner_of(struct port *p)
{
	return port_owner(p);
}

static void on_data(struct port *p)
{
	port_want(p, false);
}

static void on_room(struct port *p)
{
	owner_of(p)->rooms++;
}

static void on_link(struct port *p, bool up)
{
	struct owner *o = owner_of(p);

	o->ups += up;
	o->downs += !up;
}

static const struct port_ops ops = {.data = on_data, .room = on_room, .link = on_link};

struct pause {
	struct timer timer;
	struct loop *loop;
};

static void pause_ended(struct timer *t)
{
	loop_stop(container_of(t, struct pause, timer)->loop);
}

static void run_a_while(struct owner *o)
{
	struct pause p = {.timer.expired = pause_ended, .loop = o->loop};

	timer_arm_in(o->loop, &p.timer, 1000000);
	loop_run(o->loop);
}

/* Runs the loop until *n is at least `want`. */
static void until(struct owner *o, const unsigned *n, unsigned want)
{
	uint64_t end = time_ns() + UINT64_C(10000000000);

	while (*n < want) {
		CHECK(time_ns() < end);
		run_a_while(o);
	}
}

static void open_port(struct owner *o, const char *list)
{
	struct port_config c = {0};

	*o = (struct owner){0};
	CHECK(!parse(&c, list));
	CHECK_EQ(loop_new(&o->loop, "test"), 0);
	CHECK_EQ(port_open(&o->port, o->loop, &c, "a port", &ops, o), 0);
}

static void close_port(struct owner *o)
{
	port_close(o->port);
	loop_free(o->loop);
}

static size_t say(struct owner *o, const char *text)
{
	struct iovec v[2] = {
		{(char *)text, strlen(text) / 2}, {(char *)text + strlen(text) / 2, (strlen(text) + 1) / 2}};

	return port_send(o->port, v, 2);
}

static const char *waits(const struct owner *o)
{
	static char text[64];
	struct iovec v[2];

	port_waiting(o->port, v);
	CHECK(v[0].iov_len + v[1].iov_len < sizeof(text));
	if (v[0].iov_len)
		memcpy(text, v[0].iov_base, v[0].iov_len);
	if (v[1].iov_len)
		memcpy(text + v[0].iov_len, v[1].iov_base, v[1].iov_len);
	text[v[0].iov_len + v[1].iov_len] = '\0';
	return text;
}

static const char *path(void)
{
	static char p[64];

	snprintf(p, sizeof(p), "/tmp/port-unit.%d", getpid());
	return p;
}

static struct sockaddr_un address(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path());
	return a;
}

static const char *list_of(const char *more)
{
	static char text[128];

	snprintf(text, sizeof(text), "host=unix:%s%s", path(), more);
	return text;
}

static int reach(void)
{
	struct sockaddr_un a = address();
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK_SYS(connect(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static void reads(int fd, const char *want)
{
	char got[64] = "";
	size_t n = strlen(want);

	CHECK_EQ(recv(fd, got, n, MSG_WAITALL), n);
	CHECK_STR(got, want);
}

/* The newest bytes are kept, whatever their pieces are; they come first. */
static void backlog(void *arg)
{
	struct owner o;
	int fd;

	(void)arg;
	open_port(&o, list_of(",server,backlog=8"));
	CHECK_STR(waits(&o), "");
	CHECK_EQ(say(&o, "abc"), 3);
	CHECK_STR(waits(&o), "abc");
	CHECK_EQ(say(&o, "defghi"), 6);
	CHECK_STR(waits(&o), "bcdefghi");
	CHECK_EQ(say(&o, "jk"), 2);
	CHECK_STR(waits(&o), "defghijk");
	CHECK_EQ(say(&o, "0123456789ABCDEF"), 16);
	CHECK_STR(waits(&o), "89ABCDEF");
	port_restore(o.port, "xyz", 3);
	CHECK_STR(waits(&o), "BCDEFxyz");
	CHECK(!o.ups && port_flushed(o.port));
	fd = reach();
	until(&o, &o.ups, 1);
	reads(fd, "BCDEFxyz");
	CHECK_STR(waits(&o), "");
	CHECK_EQ(say(&o, "now"), 3);
	reads(fd, "now");
	CHECK_STR(waits(&o), "");
	close(fd);
	close_port(&o);
}

/* Without one nothing is taken while nobody is there, and the owner is told when somebody is. */
static void no_backlog(void *arg)
{
	struct owner o;
	int fd;

	(void)arg;
	open_port(&o, list_of(",server"));
	CHECK_EQ(say(&o, "abc"), 0);
	port_restore(o.port, "lost", 4);
	CHECK_STR(waits(&o), "");
	fd = reach();
	until(&o, &o.rooms, 1);
	CHECK_EQ(say(&o, "abc"), 3);
	reads(fd, "abc");
	close(fd);
	port_want(o.port, true);
	until(&o, &o.downs, 1);
	CHECK(!port_is_up(o.port));
	CHECK_EQ(say(&o, "def"), 0);
	fd = reach();
	until(&o, &o.rooms, 2);
	CHECK_EQ(o.ups, 2);
	CHECK_EQ(say(&o, "def"), 3);
	reads(fd, "def");
	close(fd);
	close_port(&o);
}

/* A reader that takes nothing: as much as the kernel takes, then the owner waits; what it was told to keep comes whole. */
static void full(void *arg)
{
	struct owner o;
	char *block = calloc(1, 65536), got[4096];
	size_t sent = 0, n, seen = 0;
	int fd;

	(void)arg;
	open_port(&o, list_of(",server"));
	fd = reach();
	until(&o, &o.ups, 1);
	do {
		struct iovec v = {block, 65536};

		for (size_t i = 0; i < 65536; i++)
			block[i] = (char)((sent + i) * 7 >> 3);
		n = port_send(o.port, &v, 1);
		sent += n;
		CHECK(sent < 64 << 20);
	} while (n == 65536);
	CHECK(!o.rooms);
	while (seen < sent) {
		ssize_t r = read(fd, got, sizeof(got));

		CHECK(r > 0);
		for (ssize_t i = 0; i < r; i++)
			CHECK_EQ(got[i], (char)((seen + (size_t)i) * 7 >> 3));
		seen += (size_t)r;
	}
	until(&o, &o.rooms, 1);
	close(fd);
	close_port(&o);
	free(block);
}

/* A client tries again, more and more slowly, up to once in a second; at first again after a connection. */
static void retries(void *arg)
{
	struct sockaddr_un a = address();
	struct owner o;
	uint64_t last = 0;
	int listener, fd;

	(void)arg;
	open_port(&o, list_of(""));
	for (unsigned i = 0; i < 4; i++) {
		uint64_t delay = o.port->sock.delay_ns, end = time_ns() + UINT64_C(10000000000);

		while (delay == last) {
			CHECK(time_ns() < end);
			run_a_while(&o);
			delay = o.port->sock.delay_ns;
		}
		CHECK(delay <= 1000000000 && (!last ? delay > 0 : delay <= 2 * last));
		last = delay;
	}
	unlink(path());
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_SYS(bind(listener, (struct sockaddr *)&a, sizeof(a)));
	CHECK_SYS(listen(listener, 1));
	until(&o, &o.ups, 1);
	CHECK_EQ(o.port->sock.delay_ns, 0);
	fd = accept(listener, NULL, NULL);
	CHECK_EQ(say(&o, "hello"), 5);
	reads(fd, "hello");
	close(fd);
	port_want(o.port, true);
	until(&o, &o.downs, 1);
	until(&o, &o.ups, 2); /* the listener is still there */
	close(listener);
	unlink(path());
	close_port(&o);
}

int main(void)
{
	static const char *const bad[][3] = {
		{"", "host= is missing"},
		{"host", "needs a value"},
		{"host=", "no such host"},
		{"host=nul", "no such host"},
		{"host=nullx", "no such host"},
		{"host=null:x", "nothing can follow"},
		{"host=unix", "no more than its kind"},
		{"host=unix:", "needs a path"},
		{"host=tcp:80", "HOST:PORT"},
		{"host=tcp::80", "HOST:PORT"},
		{"host=tcp:h:", "HOST:PORT"},
		{"host=pty:/x", "only link=PATH"},
		{"host=pty:link=", "needs a path"},
		{"host=fd:-1", "number of a descriptor"},
		{"host=fd:4294967296", "number of a descriptor"},
		{"host=null,host=null", "given twice"},
		{"host=null,server", "only unix and tcp"},
		{"host=unix:/x,server=yes", "takes no value"},
		{"host=pty,signals", "signals is for stdio"},
		{"host=null,log=", "needs a path"},
		{"host=null,backlog", "at most 64M"},
		{"host=null,backlog=65M", "at most 64M"},
		{"host=null,patience=25h", "at most 24h"},
		{"host=null,color=red", "unknown item"},
		{"host=unix:/x,backlog=1k", "has no backlog", "messages"},
	};

	log_set_level(LOG_LEVEL_ERROR);
	tap_case("lists", lists, NULL);
	tap_case("hosts", hosts, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		tap_case(bad[i][0][0] ? bad[i][0] : "nothing", refused, (void *)bad[i]);
	tap_case("backlog", backlog, NULL);
	tap_case("no backlog", no_backlog, NULL);
	tap_case("a reader that takes nothing", full, NULL);
	tap_case("a client tries again", retries, NULL);
	return tap_done();
}
