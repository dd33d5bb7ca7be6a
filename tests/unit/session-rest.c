/* SPDX-License-Identifier: MIT */
/* What waits for the buffers that a device holds, and what does not: rest, reset, removed memory, the end. */
#include <fcntl.h>
#include <sys/stat.h>

#include "host.h"
#include "leaks.h"

/* --- memory --- */

static bool mapped(const struct fe_region *r)
{
	char name[32];
	struct stat st;

	CHECK_SYS(fstat(r->fd, &st));
	snprintf(name, sizeof(name), " %llu ", (unsigned long long)st.st_ino);
	return mappings_of(name) > 1; /* ours is one */
}

/* Removal is acknowledged when the last element that uses the region has come back. */
static void removal_waits(const struct fe_mode *m)
{
	struct fe_queue *q, *other;
	struct fe_mem_reg msg = {0};
	struct fe_region *r;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 1, 16);
	echo_works(q);
	r = host_more_memory(&h.fe);
	fe_region_add(&h.fe, r);
	echo_submit_held(q, 3);
	CHECK(mapped(r));
	msg.region = r->w;
	fe_send(&h.fe, FE_REM_MEM_REG, FE_NEED_REPLY, &msg, sizeof(msg), NULL, 0);
	fe_send(&h.fe, FE_GET_FEATURES, 0, NULL, 0, NULL, 0); /* waits its turn */
	CHECK(host_quiet(&h.fe));
	CHECK(mapped(r));
	CHECK_EQ(dev_get(&dev.nheld), 3);
	dev_release();
	host_expect_ack(&h.fe, FE_REM_MEM_REG);
	CHECK(!mapped(r));
	host_expect(&h.fe, FE_GET_FEATURES, 8);
	echo_collect(q);
	echo_collect(q);
	echo_collect(q);
	/* without a wish for an answer nobody waits; the mapping stays as long as it is used */
	msg.region = r->w;
	fe_set(&h.fe, FE_ADD_MEM_REG, &msg, sizeof(msg), &r->fd, 1);
	echo_submit_held(q, 1);
	fe_send(&h.fe, FE_REM_MEM_REG, 0, &msg, sizeof(msg), NULL, 0);
	fe_barrier(&h.fe);
	CHECK(mapped(r));
	dev_release();
	echo_collect(q);
	dev_until(&dev.nheld, 0);
	fe_barrier(&h.fe);
	CHECK(!mapped(r));
	/* on our side, too */
	fe_set(&h.fe, FE_ADD_MEM_REG, &msg, sizeof(msg), &r->fd, 1);
	fe_region_remove(&h.fe, r);
	echo_works(q);
	echo_works(other);
	host_end(&h);
}

static void table_waits(const struct fe_mode *m)
{
	struct fe_mem_table t = {0};
	struct fe_queue *q;
	static struct host h;
	int fds[8];
	unsigned i;

	fe_init(&h.fe, m);
	host_start(&h, m, 0);
	h.fe.protocol_mask &= ~BIT(FE_P_MEM_SLOTS);
	fe_handshake(&h.fe);
	fe_memory_default(&h.fe);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	echo_submit_held(q, 2);
	t.n = h.fe.nregions;
	for (i = 0; i < t.n; i++) {
		t.region[i] = h.fe.regions[i].w;
		fds[i] = h.fe.regions[i].fd;
	}
	fe_send(&h.fe, FE_SET_MEM_TABLE, FE_NEED_REPLY, &t,
		offsetof(struct fe_mem_table, region) + t.n * sizeof(t.region[0]), fds, t.n);
	CHECK(host_quiet(&h.fe));
	dev_release();
	host_expect_ack(&h.fe, FE_SET_MEM_TABLE);
	echo_collect(q);
	echo_collect(q);
	echo_works(q);
	host_end(&h);
}

/* The front-end goes while it waits for removed memory. */
static void removal_and_hangup(const struct fe_mode *m)
{
	struct fe_mem_reg msg = {0};
	struct fe_queue *q;
	struct fe_region *r;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	r = host_more_memory(&h.fe);
	fe_region_add(&h.fe, r);
	echo_submit_held(q, 2);
	msg.region = r->w;
	fe_send(&h.fe, FE_REM_MEM_REG, FE_NEED_REPLY, &msg, sizeof(msg), NULL, 0);
	CHECK(host_quiet(&h.fe));
	fd_close(&h.fe.sock);
	dev_until(&dev.stopped, 1);
	usleep(20000);
	CHECK_EQ(dev_get(&dev.ended), 0); /* the elements are still out */
	dev_release();
	host_join(&h, 0);
	CHECK_EQ(dev_get(&dev.resets), 1);
	CHECK(!mapped(r));
	fe_close(&h.fe);
}

/* --- rest --- */

static void base_waits(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q, *other;
	struct fe_msg msg;
	static struct host h;
	uint32_t base;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 1, 16);
	echo_works(q);
	echo_submit_held(q, 3);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	CHECK(host_quiet(&h.fe));
	dev_until(&dev.stopped, 1);
	echo_works(other); /* nothing else stands still */
	echo_submit(q, 5); /* too late for this life of the ring */
	fe_flush(q);
	dev_release();
	fe_expect(&h.fe, FE_GET_VRING_BASE, sizeof(s), &msg);
	base = ((struct fe_vring_state *)msg.body)->num;
	CHECK(fe_collect(q, NULL, NULL) && fe_collect(q, NULL, NULL) && fe_collect(q, NULL, NULL));
	CHECK(!fe_collect(q, NULL, NULL));
	CHECK_EQ(fe_queue_stop(q), base); /* asked again: at once, the same */
	fe_queue_send(q, base);
	fe_kick(q);
	echo_collect(q);
	echo_works(q);
	/* what the device gives back is there after the start */
	__atomic_store_n(&dev.unpop, 1, __ATOMIC_RELEASE);
	echo_submit_held(q, 4);
	base = fe_queue_stop(q);
	CHECK(!fe_collect(q, NULL, NULL));
	fe_queue_send(q, base);
	fe_kick(q);
	echo_collect(q);
	echo_collect(q);
	echo_collect(q);
	echo_collect(q);
	echo_works(q);
	host_end(&h);
}

static void hangup_at_base(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	fe_queue_up(&h.fe, 1, 16);
	echo_works(q);
	echo_submit_held(q, 3);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	CHECK(host_quiet(&h.fe));
	fd_close(&h.fe.sock);
	dev_until(&dev.stopped, 2);
	usleep(20000);
	CHECK_EQ(dev_get(&dev.ended), 0);
	dev_release();
	host_join(&h, 0);
	CHECK(!fe_collect(q, NULL, NULL)); /* nobody wrote to the ring any more */
	fe_close(&h.fe);
}

static void disable_twice(const struct fe_mode *m)
{
	struct fe_vring_state off = {0, 0};
	struct fe_queue *q;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	echo_works(q);
	echo_submit_held(q, 2);
	fe_send(&h.fe, FE_SET_VRING_ENABLE, FE_NEED_REPLY, &off, sizeof(off), NULL, 0);
	fe_send(&h.fe, FE_SET_VRING_ENABLE, FE_NEED_REPLY, &off, sizeof(off), NULL, 0);
	CHECK(host_quiet(&h.fe));
	dev_release();
	host_expect_ack(&h.fe, FE_SET_VRING_ENABLE);
	host_expect_ack(&h.fe, FE_SET_VRING_ENABLE);
	CHECK_EQ(dev_get(&dev.stopped), 1);
	echo_collect(q);
	echo_collect(q);
	fe_queue_enable(q, false);
	echo_submit(q, 7);
	fe_flush(q);
	fe_kick(q);
	fe_barrier(&h.fe);
	CHECK_EQ(dev_get(&dev.started), 1);
	fe_queue_enable(q, true);
	fe_queue_enable(q, true);
	CHECK_EQ(dev_get(&dev.started), 2);
	echo_collect(q);
	echo_works(q);
	host_end(&h);
}

static void reset_waits(const struct fe_mode *m)
{
	struct fe_queue *q, *other;
	static struct host h;

	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 3, 16);
	echo_works(q);
	echo_submit_held(q, 2);
	echo_submit_held(other, 2);
	fe_send(&h.fe, FE_RESET_DEVICE, FE_NEED_REPLY, NULL, 0, NULL, 0);
	CHECK(host_quiet(&h.fe));
	CHECK_EQ(dev_get(&dev.resets), 0);
	dev_release();
	host_expect_ack(&h.fe, FE_RESET_DEVICE);
	CHECK_EQ(dev_get(&dev.resets), 1);
	host_end(&h);
}

/* --- nothing is waited for in silence --- */

static int log_file;

/* Our own stderr, from here on. */
static void log_catch(void)
{
	log_file = memfd_create("log", MFD_CLOEXEC);
	CHECK_SYS(log_file);
	CHECK_SYS(dup2(log_file, 2));
}

static void log_has(const char *want, unsigned times)
{
	static char text[65536];
	unsigned n;

	do {
		usleep(200);
		CHECK_SYS(pread(log_file, text, sizeof(text) - 1, 0));
		n = 0;
		for (const char *p = text; (p = strstr(p, want)); p++)
			n++;
	} while (n < times);
}

static void wait_is_logged(const struct fe_mode *m)
{
	struct fe_vring_state s = {0, 0};
	struct fe_queue *q, *other;
	static struct host h;

	loop_patience_ns = 20000000;
	log_catch();
	host_up(&h, m);
	q = fe_queue_up(&h.fe, 0, 16);
	other = fe_queue_up(&h.fe, 1, 16);
	echo_submit_held(q, 3);
	echo_submit_held(other, 1);
	fe_send(&h.fe, FE_GET_VRING_BASE, 0, &s, sizeof(s), NULL, 0);
	log_has("GET_VRING_BASE: waiting for ", 2); /* again later */
	log_has(" s, 4 buffers are still with the device\n", 2);
	dev_release();
	host_expect(&h.fe, FE_GET_VRING_BASE, sizeof(s));
	echo_collect(other);
	echo_submit_held(other, 2);
	fd_close(&h.fe.sock);
	log_has("end of the connection: waiting for ", 1);
	log_has(" s, 2 buffers are still with the device\n", 1);
	dev_release();
	host_join(&h, 0);
	fe_close(&h.fe);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	fe_each_layout("removed memory is waited for", removal_waits);
	fe_each_layout("a new table is waited for", table_waits);
	fe_case("removed memory, and the front-end goes", removal_and_hangup, NULL);
	fe_each_layout("GET_VRING_BASE waits", base_waits);
	fe_case("the front-end goes while GET_VRING_BASE waits", hangup_at_base, NULL);
	fe_case("a ring is disabled twice", disable_twice, NULL);
	fe_case("RESET_DEVICE waits", reset_waits, NULL);
	fe_case("a long wait is logged", wait_is_logged, NULL);
	return tap_done();
}
