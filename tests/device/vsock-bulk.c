/* SPDX-License-Identifier: MIT */
/*
 * Much through one connection of the socket device: a gibibyte each way at once, all of it checked, and both ways closed by those who
 * send. Programs of the host are processes of their own.
 */
#include "vsock-guest.h"

#include <signal.h>
#include <sys/wait.h>

enum {
	CHUNK = 64 << 10,
	SLOTS = 32,
	BUFFERS = 128,
	BUFFER_LEN = 4096,
	HDR = sizeof(struct virtio_vsock_hdr)
};

static uint64_t total = UINT64_C(1) << 30; /* bytes each way */

/* What is sent: a number of 8 bytes after the other. */
static void fill(uint64_t *p, uint64_t chunk)
{
	uint64_t at = chunk * (CHUNK / 8);

	for (unsigned i = 0; i < CHUNK / 8; i++)
		p[i] = (at + i) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool right(const uint64_t *p, uint64_t chunk)
{
	uint64_t at = chunk * (CHUNK / 8), wrong = 0;

	for (unsigned i = 0; i < CHUNK / 8; i++)
		wrong |= p[i] ^ (at + i) * UINT64_C(0x9e3779b97f4a7c15);
	return !wrong;
}

/* --- programs of the host; the exit status says what was wrong --- */

_Noreturn static void host_writer(int fd)
{
	static uint64_t chunk[CHUNK / 8];

	for (uint64_t i = 0; i < total / CHUNK; i++) {
		fill(chunk, i);
		for (size_t at = 0; at < CHUNK;) {
			ssize_t n = send(fd, (char *)chunk + at, CHUNK - at, MSG_NOSIGNAL);

			if (n <= 0)
				_exit(1);
			at += (size_t)n;
		}
	}
	_exit(shutdown(fd, SHUT_WR) == 0 ? 0 : 2);
}

_Noreturn static void host_reader(int fd)
{
	static uint64_t chunk[CHUNK / 8];

	for (uint64_t i = 0; i < total / CHUNK; i++) {
		if (recv(fd, chunk, CHUNK, MSG_WAITALL) != CHUNK)
			_exit(1);
		if (!right(chunk, i))
			_exit(2);
	}
	_exit(recv(fd, chunk, 1, 0) == 0 ? 0 : 3);
}

static pid_t program(void (*run)(int fd), int fd)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	alarm(600);
	run(fd);
	_exit(99);
}

static void program_ends(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

/* --- the guest --- */

struct bulk {
	struct guest g;
	struct flow f;
	uint8_t *slot[SLOTS];
	unsigned nslots;
	uint64_t sent, got; /* chunks sent, bytes got */
	uint32_t told;
	uint64_t in[CHUNK / 8];
	bool ended; /* the host */
};

static void give_back(struct bulk *b, uint8_t *p)
{
	struct vring_driver_buf v = fe_wr(&b->g.fe, p, HDR + BUFFER_LEN);

	fe_submit(b->g.rx, &v, 1, p);
}

static void send_packet(struct bulk *b, uint16_t op, uint32_t flags, size_t len)
{
	uint8_t *p = b->slot[--b->nslots];
	struct vring_driver_buf v[2] = {fe_rd(&b->g.fe, p, HDR), fe_rd(&b->g.fe, p + HDR, (uint32_t)len)};
	struct virtio_vsock_hdr h = {.src_cid = CID,
		.dst_cid = HOST,
		.src_port = b->f.port,
		.dst_port = b->f.peer_port,
		.len = (uint32_t)len,
		.type = STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = b->f.alloc,
		.fwd_cnt = (uint32_t)b->got};

	memcpy(p, &h, sizeof(h));
	b->f.tx += (uint32_t)len;
	b->told = (uint32_t)b->got;
	fe_submit(b->g.tx, v, len ? 2 : 1, p);
	fe_flush(b->g.tx);
}

static void take(struct bulk *b, const struct virtio_vsock_hdr *h, const uint8_t *data)
{
	size_t at = b->got % CHUNK, head = MIN(CHUNK - at, (size_t)h->len);

	b->f.peer_fwd = h->fwd_cnt;
	b->f.peer_alloc = h->buf_alloc;
	CHECK(h->op == VIRTIO_VSOCK_OP_RW || h->op == VIRTIO_VSOCK_OP_CREDIT_UPDATE ||
		h->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST || h->op == VIRTIO_VSOCK_OP_SHUTDOWN);
	b->ended = b->ended || h->op == VIRTIO_VSOCK_OP_SHUTDOWN;
	if (h->op != VIRTIO_VSOCK_OP_RW)
		return;
	memcpy((uint8_t *)b->in + at, data, head);
	if (at + head == CHUNK) {
		CHECK(right(b->in, b->got / CHUNK));
		memcpy(b->in, data + head, h->len - head);
	}
	b->got += h->len;
}

/* True: something happened. */
static bool guest_step(struct bulk *b, int ms)
{
	bool busy = false;
	uint32_t len;
	void *cookie;

	while (fe_collect(b->g.tx, &cookie, &len))
		b->slot[b->nslots++] = cookie;
	while (b->sent < total / CHUNK && b->nslots > 1 &&
		b->f.peer_alloc - (b->f.tx - b->f.peer_fwd) >= CHUNK) {
		fill((uint64_t *)(b->slot[b->nslots - 1] + HDR), b->sent++);
		send_packet(b, VIRTIO_VSOCK_OP_RW, 0, CHUNK);
		if (b->sent == total / CHUNK)
			send_packet(b, VIRTIO_VSOCK_OP_SHUTDOWN, SEND, 0);
		busy = true;
	}
	while (fe_collect(b->g.rx, &cookie, &len) || (!busy && fe_wait_ms(b->g.rx, &cookie, &len, ms))) {
		struct virtio_vsock_hdr *h = cookie;

		CHECK_EQ(len, HDR + h->len);
		take(b, h, (uint8_t *)cookie + HDR);
		give_back(b, cookie);
		busy = true;
	}
	fe_flush(b->g.rx);
	if ((uint32_t)b->got - b->told >= b->f.alloc / 4 && b->nslots)
		send_packet(b, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0);
	return busy;
}

static void bulk(const struct fe_mode *m)
{
	static struct bulk b;
	char uds[192];
	pid_t writer, reader;
	int listener, fd;
	int64_t last;

	b.g.cid = CID;
	paths(&b.g);
	snprintf(uds, sizeof(uds), "--uds-path=%s", b.g.uds);
	fe_start(&b.g.fe, m, FE_ARGS("vsock", "--guest-cid=7", uds));
	b.g.rx = fe_queue_up(&b.g.fe, 0, BUFFERS);
	b.g.tx = fe_queue_up(&b.g.fe, 1, 2 * SLOTS);
	for (; b.nslots < SLOTS; b.nslots++)
		b.slot[b.nslots] = (uint8_t *)fe_alloc(&b.g.fe, HDR + CHUNK + 8, 8, NULL) +
				   4; /* the payload: 8-byte aligned */
	for (unsigned i = 0; i < BUFFERS; i++)
		give_back(&b, fe_alloc(&b.g.fe, HDR + BUFFER_LEN, 8, NULL));
	fe_flush(b.g.rx);
	listener = host_listens(&b.g, 6, SOCK_STREAM);
	b.f = flow_of(&b.g, STREAM, 5, 6);
	b.f.alloc = 256 << 10;
	send_packet(&b, VIRTIO_VSOCK_OP_REQUEST, 0, 0);
	fd = host_accepts(listener);
	CHECK(fe_wait(b.g.rx, NULL) == HDR);
	writer = program(host_writer, fd);
	reader = program(host_reader, fd);
	close(fd);
	b.f.peer_alloc = 256 << 10;
	for (last = fe_now_ms(); !b.ended || b.sent < total / CHUNK;)
		if (guest_step(&b, 100))
			last = fe_now_ms();
		else
			CHECK(fe_now_ms() - last < fe_limit_ms);
	CHECK_EQ(b.got, total);
	CHECK_EQ(b.sent, total / CHUNK);
	program_ends(writer);
	program_ends(reader);
	close(listener);
	fe_end(&b.g.fe);
}

int main(void)
{
	static const struct fe_mode usual = {.event_idx = true, .indirect = true};

	signal(SIGPIPE, SIG_IGN);
	fe_case("a gibibyte each way", bulk, &usual);
	total = 32 << 20;
	fe_each_mode_in_order("32 MiB each way", bulk);
	return tap_done();
}
