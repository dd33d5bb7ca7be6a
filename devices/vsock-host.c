/* SPDX-License-Identifier: MIT */
/*
 * The host's ends of the socket device.
 *
 * --uds-path=PATH, the hybrid of Firecracker and cloud-hypervisor: a program of the host connects to PATH, says
 * "CONNECT <port>\n" and reads "OK <its own port>\n" when the guest has accepted; a guest that connects to the host's port N
 * reaches the socket PATH_N. --forward and --listen name single ports and where they lead.
 *
 * --group=DIRECTORY: guests reach each other by CID. Each process listens there on CID.stream and CID.seqpacket; whoever
 * connects says "CONNECT <port> FROM <cid> <port>\n" and reads the same answer. Whoever can write to the directory belongs to
 * the group: its permissions are the fence.
 *
 * What is said first is read by peeking up to the end of its line: what follows it belongs to the connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "vsock.h"

/* ---- options ---- */

static bool port_parse(const char **text, uint32_t *port)
{
	uint64_t value = 0;
	const char *p = *text;

	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (uint64_t)(*p - '0');
		if (value >= UINT32_MAX)
			return false;
	}
	if (p == *text)
		return false;
	*port = (uint32_t)value;
	*text = p;
	return true;
}

/* HOST:PORT with a numeric address; [ADDRESS]:PORT for IPv6. */
static const char *tcp_parse(struct vsock_route *r, const char *text)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&r->addr;
	struct sockaddr_in *in = (struct sockaddr_in *)&r->addr;
	const char *colon = strrchr(text, ':'), *rest = colon ? colon + 1 : text;
	char host[INET6_ADDRSTRLEN + 2];
	uint32_t port;
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!colon || !port_parse(&rest, &port) || *rest || port > UINT16_MAX)
		return "a TCP end is ADDRESS:PORT";
	if (!len || len >= sizeof(host))
		return "no numeric address";
	memcpy(host, text, len);
	host[len] = '\0';
	if (strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		r->addr_len = sizeof(*in6);
		return inet_pton(AF_INET6, host + 1, &in6->sin6_addr) == 1 ? NULL : "no numeric address";
	}
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	r->addr_len = sizeof(*in);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? NULL : "no numeric address";
}

/* CID:PORT, or CID alone behind a `*`; to listen: PORT. */
static const char *vsock_parse(struct vsock_route *r, const char *text, bool listens)
{
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&r->addr;
	uint32_t cid = VMADDR_CID_ANY, port = 0;

	if (!listens && !port_parse(&text, &cid))
		return "a vsock end is CID:PORT";
	if (!listens && !r->any_port && *text++ != ':')
		return "a vsock end is CID:PORT";
	if ((listens || !r->any_port) && !port_parse(&text, &port))
		return listens ? "a vsock end to listen on is a port" : "a vsock end is CID:PORT";
	if (*text)
		return "something follows the vsock address";
	vm->svm_family = AF_VSOCK;
	vm->svm_cid = cid;
	vm->svm_port = port;
	r->addr_len = sizeof(*vm);
	return NULL;
}

static const char *unix_parse(struct vsock_route *r, const char *path)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&r->addr;

	if (!*path || strlen(path) >= sizeof(un->sun_path))
		return "the path is empty or too long for a socket";
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path, path);
	r->addr_len = sizeof(*un);
	r->path = path;
	return NULL;
}

static const char *route_parse(struct vsock_route *routes, unsigned *n, const char *text, bool listens)
{
	struct vsock_route r = {.text = text};
	const char *reason;

	if (*n == VSOCK_ROUTES)
		return "too many of these";
	r.any_port = !listens && *text == '*';
	if (r.any_port)
		text++;
	else if (!port_parse(&text, &r.port))
		return "begins with no port of the guest's";
	if (strncmp(text, ":unix:", 6) == 0) {
		r.end = VSOCK_UNIX;
		reason = unix_parse(&r, text + 6);
	} else if (listens && strncmp(text, ":seqpacket:", 11) == 0) {
		r.end = VSOCK_UNIX;
		r.seqpacket = true;
		reason = unix_parse(&r, text + 11);
	} else if (strncmp(text, ":tcp:", 5) == 0) {
		r.end = VSOCK_TCP;
		reason = tcp_parse(&r, text + 5);
	} else if (strncmp(text, ":vsock:", 7) == 0) {
		r.end = VSOCK_VSOCK;
		reason = vsock_parse(&r, text + 7, listens);
	} else if (listens && strncmp(text, ":vsock-seqpacket:", 17) == 0) {
		r.end = VSOCK_VSOCK;
		r.seqpacket = true;
		reason = vsock_parse(&r, text + 17, listens);
	} else {
		return listens ? "the port is not followed by unix:, seqpacket:, tcp:, vsock: or vsock-seqpacket:"
			       : "the port is not followed by unix:, tcp: or vsock:";
	}
	if (!reason && r.any_port && r.end != VSOCK_VSOCK)
		reason = "any port can only be forwarded to vsock:CID";
	if (!reason)
		routes[(*n)++] = r;
	return reason;
}

static const char *forward_parse(void *base, const char *value)
{
	struct vsock *v = base;

	return route_parse(v->forward, &v->nforward, value, false);
}

static const char *listen_parse(void *base, const char *value)
{
	struct vsock *v = base;

	return route_parse(v->listen, &v->nlisten, value, true);
}

const struct option_spec vsock_options[] = {
	{"guest-cid", OPTION_U64, OPTION_FIELD(struct vsock, guest_cid), .def = "3", .min = 3,
		.max = UINT32_MAX - 1, .arg = "CID", .help = "the guest's context identifier"},
	{"uds-path", OPTION_PATH, OPTION_FIELD(struct vsock, uds_path), .no_def = "none",
		.help = "socket where programs of the host say CONNECT and a port; the guest's connections to port N go to "
			"PATH_N"},
	{"forward", OPTION_CALLBACK, .arg = "PORT:END", .parse = forward_parse,
		.help = "the guest's connections to this port of the host go to END: unix:PATH, tcp:ADDRESS:PORT or "
			"vsock:CID:PORT; *:vsock:CID for all ports; may be repeated"},
	{"listen", OPTION_CALLBACK, .arg = "PORT:END", .parse = listen_parse,
		.help = "connections to END go to this port of the guest: unix:PATH, seqpacket:PATH, tcp:ADDRESS:PORT, "
			"vsock:PORT or vsock-seqpacket:PORT; may be repeated"},
	{"group", OPTION_PATH, OPTION_FIELD(struct vsock, group), .arg = "DIRECTORY", .no_def = "none",
		.help = "directory where the back-ends of guests that may reach each other by CID meet"},
	{"buffer", OPTION_SIZE, OPTION_FIELD(struct vsock, buffer), .def = "256K", .min = 4096,
		.max = 1 << 26,
		.help = "bytes per connection that the guest may send before the host reads them"},
	{"max-connections", OPTION_U32, OPTION_FIELD(struct vsock, max_conns), .def = "4096", .min = 1,
		.max = 65536, .arg = "N",
		.help = "connections at a time; more are refused, or wait before they are accepted"},
	OPTIONS_END,
};

/* ---- from the guest ---- */

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int socket_of(const struct vsock_key *key, int family)
{
	int type = key->type == VIRTIO_VSOCK_TYPE_STREAM ? SOCK_STREAM : SOCK_SEQPACKET;
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (family == AF_INET || family == AF_INET6)
		no_delay(fd);
	return fd;
}

static int connect_to(const struct vsock_key *key, const void *addr, socklen_t len, enum vsock_greet *greet)
{
	int fd = socket_of(key, ((const struct sockaddr *)addr)->sa_family), err;

	if (fd < 0)
		return fd;
	err = connect(fd, addr, len) < 0 ? errno : 0;
	if (!err)
		*greet = VSOCK_GREET_NONE;
	if (!err || err == EINPROGRESS)
		return fd;
	close(fd);
	return -err;
}

static int connect_path(const struct vsock_key *key, const char *fmt, const char *path,
	unsigned long long number, const char *suffix, enum vsock_greet *greet)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), fmt, path, number, suffix);

	if (n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	return connect_to(key, &addr, sizeof(addr), greet);
}

static const char *type_suffix(uint16_t type)
{
	return type == VIRTIO_VSOCK_TYPE_STREAM ? "stream" : "seqpacket";
}

/* Another guest: its back-end is told who asks. */
static int connect_sibling(struct vsock *v, const struct vsock_key *key, enum vsock_greet *greet)
{
	char text[VSOCK_GREETING_LEN];
	int fd, n;

	if (!v->group || key->peer_cid < 3 || key->peer_cid >= UINT32_MAX || key->peer_cid == v->guest_cid)
		return -EHOSTUNREACH;
	fd = connect_path(key, "%s/%llu.%s", v->group, key->peer_cid, type_suffix(key->type), greet);
	if (fd < 0)
		return fd;
	n = snprintf(text, sizeof(text), "CONNECT %u FROM %llu %u\n", key->peer_port,
		(unsigned long long)v->guest_cid, key->guest_port);
	if (send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n) {
		close(fd);
		return -ECONNREFUSED;
	}
	*greet = VSOCK_GREET_AWAIT;
	return fd;
}

static int connect_route(const struct vsock_route *r, const struct vsock_key *key, enum vsock_greet *greet)
{
	struct sockaddr_vm vm;

	if (r->end == VSOCK_TCP && key->type != VIRTIO_VSOCK_TYPE_STREAM)
		return -EPROTOTYPE;
	if (!r->any_port)
		return connect_to(key, &r->addr, r->addr_len, greet);
	memcpy(&vm, &r->addr, sizeof(vm));
	vm.svm_port = key->peer_port;
	return connect_to(key, &vm, sizeof(vm), greet);
}

int vsock_host_connect(struct vsock *v, const struct vsock_key *key, enum vsock_greet *greet)
{
	const struct vsock_route *any = NULL;

	*greet = VSOCK_GREET_CONNECT;
	if (key->peer_cid != VSOCK_HOST)
		return connect_sibling(v, key, greet);
	for (unsigned i = 0; i < v->nforward; i++) {
		if (v->forward[i].any_port)
			any = &v->forward[i];
		else if (v->forward[i].port == key->peer_port)
			return connect_route(&v->forward[i], key, greet);
	}
	if (v->uds_path) {
		int fd = connect_path(key, "%s_%llu%s", v->uds_path, key->peer_port, "", greet);

		if (fd >= 0 || fd == -EAGAIN || !any)
			return fd;
	}
	return any ? connect_route(any, key, greet) : -ECONNREFUSED;
}

/* ---- from the host ---- */

static void greeting_free(struct vsock_greeting *g, bool close_fd)
{
	struct vsock *v = g->v;

	watch_del(&g->watch);
	if (close_fd)
		fd_close(&g->fd);
	TAILQ_REMOVE(&v->greetings, g, all);
	v->ngreetings--;
	free(g);
	vsock_host_resume(v);
}

void vsock_host_drop_greetings(struct vsock *v)
{
	struct vsock_greeting *g;

	while ((g = TAILQ_FIRST(&v->greetings)))
		greeting_free(g, true);
}

/* "CONNECT <port>\n", from a sibling "CONNECT <port> FROM <cid> <port>\n". */
static bool greeting_parse(const struct vsock_greeting *g, const char *text, struct vsock_key *key)
{
	uint32_t cid = VSOCK_HOST;

	if (strncmp(text, "CONNECT ", 8) != 0)
		return false;
	text += 8;
	if (!port_parse(&text, &key->guest_port))
		return false;
	if (g->sibling) {
		if (strncmp(text, " FROM ", 6) != 0)
			return false;
		text += 6;
		if (!port_parse(&text, &cid) || *text++ != ' ' || !port_parse(&text, &key->peer_port) ||
			cid < 3 || cid == g->v->guest_cid)
			return false;
	} else {
		key->peer_port = vsock_conn_port(g->v, key->guest_port, g->type);
	}
	key->peer_cid = cid;
	key->type = g->type;
	return *text == '\n' || (text[0] == '\r' && text[1] == '\n');
}

static void greeting_ready(struct watch *w, uint32_t events)
{
	struct vsock_greeting *g = container_of(w, struct vsock_greeting, watch);
	char text[VSOCK_GREETING_LEN + 1];
	struct vsock *v = g->v;
	struct vsock_key key = {0};
	ssize_t n;
	char *end;
	int fd;

	(void)events;
	n = recv(g->fd, text, VSOCK_GREETING_LEN, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	end = n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
	if (!end && n > 0 && n < VSOCK_GREETING_LEN && (size_t)n > g->len &&
		g->type == VIRTIO_VSOCK_TYPE_STREAM) {
		g->len = (size_t)n; /* not the whole line yet */
		return;
	}
	if (end)
		end[1] = '\0';
	if (!end || !greeting_parse(g, text, &key) ||
		recv(g->fd, text, (size_t)(end - text + 1), MSG_DONTWAIT) != end - text + 1) {
		log_info("a connection does not begin with CONNECT and a port: closed");
		greeting_free(g, true);
		return;
	}
	fd = g->fd;
	greeting_free(g, false);
	vsock_conn_request(v, &key, fd, VSOCK_GREET_ANSWER);
}

static void greet(struct vsock_listener *l, int fd)
{
	struct vsock *v = l->v;
	struct vsock_greeting *g = calloc(1, sizeof(*g));

	if (!g) {
		close(fd);
		return;
	}
	g->v = v;
	g->fd = fd;
	g->sibling = l->what == VSOCK_LISTEN_GROUP;
	g->type = l->type;
	g->deadline = loop_now(v->b->loop) + VSOCK_TIMEOUT_NS;
	g->watch.ready = greeting_ready;
	TAILQ_INSERT_TAIL(&v->greetings, g, all);
	v->ngreetings++;
	/* Each change once: what is peeked at stays readable. */
	if (watch_add(v->b->loop, &g->watch, fd, EPOLLIN | EPOLLRDHUP | EPOLLET) < 0) {
		g->watch.fd = -1;
		greeting_free(g, true);
		return;
	}
	if (!v->sweep.at)
		timer_arm(v->b->loop, &v->sweep, g->deadline);
}

static void accepting(struct vsock *v, bool on)
{
	struct vsock_listener *l;

	if (v->accepting == on)
		return;
	v->accepting = on;
	LIST_FOREACH(l, &v->listeners, all)
	{
		if (on)
			watch_add(v->b->loop, &l->watch, l->fd, EPOLLIN);
		else
			watch_del(&l->watch);
	}
}

static bool has_room(const struct vsock *v)
{
	return v->nconns + v->ngreetings < v->max_conns && v->ngreetings < VSOCK_GREETINGS;
}

void vsock_host_resume(struct vsock *v)
{
	if (has_room(v))
		accepting(v, true);
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct vsock_listener *l = container_of(w, struct vsock_listener, watch);
	struct vsock *v = l->v;
	struct vsock_key key = {.peer_cid = VSOCK_HOST, .type = l->type};
	int fd;

	(void)events;
	if (!has_room(v)) {
		accepting(v, false);
		if (!v->sweep.at)
			timer_arm_in(v->b->loop, &v->sweep, UINT64_C(1000) * 1000 * 1000);
		return;
	}
	fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		log_guest_error("accept: %s", strerror(errno));
		accepting(v, false);
		timer_arm_in(v->b->loop, &v->sweep, UINT64_C(1000) * 1000 * 1000);
		return;
	}
	if (l->what != VSOCK_LISTEN_ROUTE) {
		greet(l, fd);
		return;
	}
	if (l->route->end == VSOCK_TCP)
		no_delay(fd);
	key.guest_port = l->route->port;
	key.peer_port = vsock_conn_port(v, key.guest_port, key.type);
	vsock_conn_request(v, &key, fd, VSOCK_GREET_NONE);
}

void vsock_host_sweep(struct vsock *v, uint64_t now)
{
	struct vsock_greeting *g, *next;

	for (g = TAILQ_FIRST(&v->greetings); g; g = next) {
		next = TAILQ_NEXT(g, all);
		if (g->deadline <= now)
			greeting_free(g, true);
	}
	vsock_host_resume(v);
}

/* ---- what we listen on ---- */

static int listener_add(struct vsock *v, const struct vsock_listener *init, int fd)
{
	struct vsock_listener *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return log_errno(ENOMEM, "listen");
	}
	*l = *init;
	l->v = v;
	l->fd = fd;
	l->watch.ready = accept_ready;
	l->watch.fd = -1;
	LIST_INSERT_HEAD(&v->listeners, l, all);
	return 0;
}

static int listen_path(struct vsock *v, struct vsock_listener *init, const char *option, const char *path,
	int type, uint32_t mode)
{
	int fd = sockpath_listen(&init->path, option, path, type, mode, 128), err;

	if (fd < 0)
		return fd;
	err = listener_add(v, init, fd);
	if (err)
		sockpath_remove(&init->path);
	return err;
}

static int listen_route(struct vsock *v, const struct vsock_route *r)
{
	struct vsock_listener init = {
		.what = VSOCK_LISTEN_ROUTE, .route = r, .type = VIRTIO_VSOCK_TYPE_STREAM};
	int type = r->seqpacket ? SOCK_SEQPACKET : SOCK_STREAM;
	int family = ((const struct sockaddr *)&r->addr)->sa_family, one = 1, err;
	CLEANUP_FD int fd = -1;

	if (r->seqpacket)
		init.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	if (r->end == VSOCK_UNIX)
		return listen_path(v, &init, "--listen", r->path, type, 0);
	fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return log_errno(errno, "--listen=%s", r->text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&r->addr, r->addr_len) < 0 || listen(fd, 128) < 0)
		return log_errno(errno, "--listen=%s", r->text);
	err = listener_add(v, &init, fd);
	fd = -1;
	return err;
}

static int listen_group(struct vsock *v)
{
	static const struct {
		uint16_t type;
		int socket;
	} types[] = {
		{VIRTIO_VSOCK_TYPE_STREAM, SOCK_STREAM},
		{VIRTIO_VSOCK_TYPE_SEQPACKET, SOCK_SEQPACKET},
	};
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat st;

	if (stat(v->group, &st) < 0)
		return log_errno(errno, "--group=%s", v->group);
	if (!S_ISDIR(st.st_mode))
		return log_errno(ENOTDIR, "--group=%s", v->group);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		struct vsock_listener init = {.what = VSOCK_LISTEN_GROUP, .type = types[i].type};
		int n = snprintf(path, sizeof(path), "%s/%llu.%s", v->group, (unsigned long long)v->guest_cid,
			type_suffix(types[i].type));
		int err = (size_t)n >= sizeof(path)
				  ? log_errno(ENAMETOOLONG, "--group=%s", v->group)
				  : listen_path(v, &init, "--group", path, types[i].socket, 0);

		if (err)
			return err;
	}
	return 0;
}

void vsock_host_close(struct vsock *v)
{
	struct vsock_listener *l;

	while ((l = LIST_FIRST(&v->listeners))) {
		LIST_REMOVE(l, all);
		watch_del(&l->watch);
		fd_close(&l->fd);
		sockpath_remove(&l->path);
		free(l);
	}
}

int vsock_host_open(struct vsock *v)
{
	struct vsock_listener uds = {.what = VSOCK_LISTEN_UDS, .type = VIRTIO_VSOCK_TYPE_STREAM};
	int err = v->uds_path ? listen_path(v, &uds, "--uds-path", v->uds_path, SOCK_STREAM, 0) : 0;

	for (unsigned i = 0; i < v->nlisten && !err; i++)
		err = listen_route(v, &v->listen[i]);
	if (!err && v->group)
		err = listen_group(v);
	if (err)
		vsock_host_close(v);
	else
		accepting(v, true);
	return err;
}
