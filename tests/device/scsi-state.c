/* SPDX-License-Identifier: MIT */
/*
 * Migration of the SCSI host adapter: what one back-end saves, another one loads. And reservations in a file that both
 * ends of a migration have open, where the front-end moves no state.
 */
#include "scsi-driver.h"

#include <fcntl.h>

static const struct fe_mode split = {0};

static uint8_t state[1 << 20];
static size_t state_len;

/* True: the back-end says that it went well. */
static bool transfer(uint32_t direction, int fd, bool (*move)(int fd), int mine)
{
	struct fe_wire_state w = {.direction = direction};
	struct fe_msg r;
	uint64_t how;
	bool moved;

	fe_ask(&fe, FE_SET_DEVICE_STATE_FD, &w, sizeof(w), &fd, 1, &r, 8);
	close(fd);
	memcpy(&how, r.body, 8);
	CHECK_EQ(how, 0x100);
	moved = move(mine);
	close(mine);
	CHECK(moved);
	return fe_get(&fe, FE_CHECK_DEVICE_STATE) == 0;
}

static bool read_all(int fd)
{
	ssize_t n;

	state_len = 0;
	while ((n = read(fd, state + state_len, sizeof(state) - state_len)) > 0)
		state_len += (size_t)n;
	return n == 0 && state_len > 0;
}

static bool write_all(int fd)
{
	size_t at = 0;

	while (at < state_len) {
		ssize_t n = write(fd, state + at, state_len - at);

		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

static void save(void)
{
	int ends[2];

	CHECK_SYS(pipe2(ends, O_CLOEXEC));
	CHECK(transfer(0, ends[1], read_all, ends[0]));
}

static bool load(void)
{
	int ends[2];

	CHECK_SYS(pipe2(ends, O_CLOEXEC));
	return transfer(1, ends[0], write_all, ends[1]);
}

static void queues_stop(void)
{
	fe_queue_stop(ctl);
	fe_queue_stop(ev);
	fe_queue_stop(rq);
}

/* The other end, before it has queues. */
static void arrive(const struct fe_mode *m, const char *const *args)
{
	fe_start(&fe, m, args);
}

static void arrived(void)
{
	ctl = fe_queue_up(&fe, 0, 16);
	ev = fe_queue_up(&fe, 1, 16);
	rq = fe_queue_up(&fe, 2, 128);
}

static void reserve(uint8_t action, uint64_t key, uint64_t new_key, uint8_t flags)
{
	uint8_t *data = guest(24);

	memset(data, 0, 24);
	put_be64(data, key);
	put_be64(data + 8, new_key);
	data[20] = flags;
	is_good(ask(CDB(0x5f, action, action == 1 ? 3 : 0, 0, 0, 0, 0, 0, 24), data, 24, NULL, 0));
}

static uint8_t mode_byte(uint8_t page)
{
	uint8_t *data = guest(64);

	is_good(ask(CDB(0x1a, 8, page, 0, 64), NULL, 0, data, 64));
	CHECK_EQ(data[4], page);
	return data[6];
}

#define UNITS "--lun=0:0,null=1M", "--lun=0:1,null=1M,removable", "--lun=3:300,null=1M"

static void set_up(void)
{
	static const uint8_t cache_off[24] = {[4] = 0x08, 0x12, 0};
	static const uint8_t descriptors[16] = {0, 0, 0, 0, 0x0a, 0x0a, 0x04, 0x10, 0, 0, 0, 0, 0xff, 0xff};
	uint32_t sense = 80;
	uint8_t *data = guest(64);

	CHECK_EQ(fe_config_set(&fe, 20, &sense, 4, 0), 0);
	sense = 96;
	CHECK_EQ(fe_config_set(&fe, 20, &sense, 4, 0), 0);
	memcpy(data, cache_off, 24);
	is_good(ask(CDB(0x15, 0x10, 0, 0, 24), data, 24, NULL, 0));
	memcpy(data, descriptors, 16);
	is_good(ask(CDB(0x15, 0x10, 0, 0, 16), data, 16, NULL, 0));
	reserve(6, 0, 0xfeed, 0);
	reserve(1, 0xfeed, 0, 0);
	calm(0, 1);
	is_good(ask_unit(0, 1, CDB(0x1e, 0, 0, 0, 1), NULL, 0, NULL, 0)); /* locked */
	is_good(ask_unit(0, 1, CDB(0x1b, 0, 0, 0, 0), NULL, 0, NULL, 0)); /* stopped */
}

static void is_set_up(void)
{
	uint8_t *data = guest(64);

	/* no unit attention where none was left, and one where it was not taken */
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	is_sense(ask_unit(3, 300, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 0));
	is_good(ask_unit(3, 300, CDB(0), NULL, 0, NULL, 0));
	CHECK_EQ(mode_byte(0x08) & 4, 0);
	CHECK_EQ(mode_byte(0x0a) & 4, 4);
	is_good(ask(CDB(0x5e, 1, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, data, 64));
	CHECK_EQ(get_be32(data), 1); /* generation */
	CHECK_EQ(get_be64(data + 8), 0xfeed);
	CHECK_EQ(data[21], 3);
	is_sense(ask_unit(0, 1, CDB(0), NULL, 0, NULL, 0), SENSE(2, 4, 2));
	is_sense(ask_unit(0, 1, CDB(0x1b, 0, 0, 0, 2), NULL, 0, NULL, 0), SENSE(5, 0x53, 2));
}

static void moves(const struct fe_mode *m)
{
	begin(m, FE_ARGS("scsi", UNITS));
	set_up();
	queues_stop();
	save();
	fe_end(&fe);
	arrive(m, FE_ARGS("scsi", UNITS, "--lun=9:0,null=1M"));
	CHECK(load());
	arrived();
	is_set_up();
	is_sense(ask_unit(9, 0, CDB(0), NULL, 0, NULL, 0), SENSE(6, 0x29, 0));
	fe_end(&fe);
}

/* It came back, for it could not be moved: nothing has changed. */
static void stays(const struct fe_mode *m)
{
	struct fe_queue *queues[3];
	uint32_t base[3];

	begin(m, FE_ARGS("scsi", UNITS));
	queues[0] = ctl;
	queues[1] = ev;
	queues[2] = rq;
	set_up();
	for (unsigned i = 0; i < 3; i++)
		base[i] = fe_queue_stop(queues[i]);
	save();
	for (unsigned i = 0; i < 3; i++) {
		fe_queue_send(queues[i], base[i]);
		fe_queue_enable(queues[i], true);
	}
	is_set_up();
	fe_end(&fe);
}

/* Events for which the driver had no buffer wait at the other end. */
static void events(const struct fe_mode *m)
{
	char path[200], option[256];
	struct virtio_scsi_event *e;
	struct vring_driver_buf b;
	int control;
	uint32_t base;

	snprintf(path, sizeof(path), "%s/control", fe_tmpdir());
	snprintf(option, sizeof(option), "--control-path=%s", path);
	begin(m, FE_ARGS("scsi", "--lun=0:0,null=1M", option));
	control = fe_control_open(path);
	e = guest(sizeof(*e));
	b = fe_wr(&fe, e, sizeof(*e));
	fe_submit(ev, &b, 1, NULL);
	fe_flush(ev);
	CHECK(strstr(fe_control_ask(
			     control, "{\"execute\":\"lun-add\",\"arguments\":{\"lun\":\"2:1,null=1M\"}}\n"),
		      "return") != NULL);
	CHECK_EQ(fe_wait(ev, NULL), sizeof(*e));
	CHECK(strstr(fe_control_ask(
			     control, "{\"execute\":\"lun-add\",\"arguments\":{\"lun\":\"3:1,null=1M\"}}\n"),
		      "return") != NULL);
	close(control);
	base = fe_queue_stop(ev);
	fe_queue_stop(ctl);
	fe_queue_stop(rq);
	save();
	fe_end(&fe);
	arrive(m, FE_ARGS("scsi", "--lun=0:0,null=1M", "--lun=2:1,null=1M", "--lun=3:1,null=1M"));
	CHECK(load());
	ctl = fe_queue_up(&fe, 0, 16);
	/* the ring goes on where it was */
	ev = fe_queue_make(&fe, 1, 16, (int)base);
	fe_queue_send(ev, base);
	fe_queue_enable(ev, true);
	e = guest(sizeof(*e));
	b = fe_wr(&fe, e, sizeof(*e));
	CHECK_EQ(fe_transact(ev, &b, 1), sizeof(*e));
	CHECK_EQ(e->event, VIRTIO_SCSI_T_TRANSPORT_RESET);
	CHECK_EQ(e->reason, VIRTIO_SCSI_EVT_RESET_RESCAN);
	CHECK_EQ(e->lun[1], 3);
	CHECK_EQ(e->lun[3], 1);
	fe_end(&fe);
}

/* Too short, too long, of other units, and with any byte changed: refused, or at least harmless. */
static void broken(const struct fe_mode *m)
{
	static const size_t at[] = {0, 7, 8, 12, 16, 20, 24, 32, 600, 700};
	size_t len, holder;

	begin(m, FE_ARGS("scsi", UNITS));
	set_up();
	queues_stop();
	save();
	len = state_len;
	fe_end(&fe);
	arrive(m, FE_ARGS("scsi", "--lun=0:0,null=1M", "--lun=0:1,null=1M"));
	CHECK(!load());
	fe_end(&fe);
	arrive(m, FE_ARGS("scsi", UNITS));
	for (state_len = 0; state_len < len; state_len += 1 + state_len)
		CHECK(!load());
	state_len = len - 1;
	CHECK(!load());
	state_len = len + 1;
	CHECK(!load());
	state_len = len;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		state[at[i]] ^= 0xff;
		load();
		state[at[i]] ^= 0xff;
	}
	/* a holder that is no index, of a unit that nobody has reserved: the second of three */
	holder = 544 + (len - 544) / 3 + 19;
	state[holder] = 200;
	CHECK(!load());
	state[holder] = 0;
	CHECK(load());
	for (size_t i = 540; i < len; i += 61) {
		state[i] ^= 0xff;
		load();
		state[i] ^= 0xff;
	}
	CHECK(load());
	arrived();
	is_set_up();
	fe_end(&fe);
}

/* Without a state that moves: reservations are kept in a file that the other end has open all the time. */
static void by_file(const struct fe_mode *m)
{
	char unit[256];
	struct fe_process other = {0};
	struct fe here;
	uint8_t *data;

	snprintf(unit, sizeof(unit), "null=1M,lock=off,reservations=%s/keys", fe_tmpdir());
	arrive(m, FE_ARGS("scsi", lun_option("0:0", unit)));
	here = fe;
	other = fe.process;
	begin(m, FE_ARGS("scsi", lun_option("0:0", unit)));
	reserve(6, 0, 0xabcd, 1);
	reserve(1, 0xabcd, 0, 0);
	fe_end(&fe);
	fe = here;
	fe.process = other;
	arrived();
	calm(0, 0);
	data = guest(64);
	is_good(ask(CDB(0x5e, 1, 0, 0, 0, 0, 0, BE16(64)), NULL, 0, data, 64));
	CHECK_EQ(get_be64(data + 8), 0xabcd);
	CHECK_EQ(data[21], 3);
	fe_end(&fe);
}

static void conflict(const uint8_t *cdb, const void *out, uint32_t out_len)
{
	struct answer a = ask(cdb, out, out_len, NULL, 0);

	CHECK_EQ(a.response, VIRTIO_SCSI_S_OK);
	CHECK_EQ(a.status, 0x18);
}

/* What another initiator may do in the face of a reservation, for reading too (SPC-4, 5.13.1; SBC-3, 4.17). */
static void conflicts(const struct fe_mode *m)
{
	char unit[256];
	uint8_t *d;

	snprintf(unit, sizeof(unit), "null=1M,removable,reservations=%s/keys", fe_tmpdir());
	begin(m, FE_ARGS("scsi", lun_option("0:0", unit), "--initiator=a"));
	reserve(6, 0, 1, 1);
	reserve(1, 1, 0, 0);
	fe_end(&fe);
	begin(m, FE_ARGS("scsi", lun_option("0:0", unit), "--initiator=b"));
	d = guest(4096);
	is_good(ask(CDB(0), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x12, 0, 0, 0, 96), NULL, 0, d, 96));
	is_good(ask(CDB(0x25), NULL, 0, d, 8));
	is_good(ask(CDB(0x1b, 0, 0, 0, 1), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x1e, 0, 0, 0, 0), NULL, 0, NULL, 0));
	conflict(CDB(0x1b, 0, 0, 0, 0), NULL, 0);
	conflict(CDB(0x1e, 0, 0, 0, 1), NULL, 0);
	conflict(CDB(0x28, [8] = 1), NULL, 0);
	conflict(CDB(0x2a, [8] = 1), d, 512);
	conflict(CDB(0x1a, 8, 8, 0, 64), NULL, 0);
	conflict(CDB(0x35), NULL, 0);
	conflict(CDB(0x9e, 0x12, [13] = 24), NULL, 0);
	conflict(CDB(0x16), NULL, 0);
	fe_end(&fe);
}

/* The old kind of reservation and the new one exclude each other (SPC-2, 5.5.1). */
static void old_and_new(const struct fe_mode *m)
{
	uint8_t *d;

	begin(m, FE_ARGS("scsi", lun_option("0:0", "null=1M")));
	d = guest(64);
	memset(d, 0, 24);
	d[15] = 7;
	is_good(ask(CDB(0x16), NULL, 0, NULL, 0));
	conflict(CDB(0x5f, 6, 0, 0, 0, 0, 0, 0, 24), d, 24);
	conflict(CDB(0x5e, 0), NULL, 0);
	is_good(ask(CDB(0x17), NULL, 0, NULL, 0));
	is_good(ask(CDB(0x5f, 6, 0, 0, 0, 0, 0, 0, 24), d, 24, NULL, 0));
	conflict(CDB(0x16), NULL, 0);
	conflict(CDB(0x17), NULL, 0);
	fe_end(&fe);
}

int main(void)
{
	fe_each_mode("what was set moves", moves);
	fe_case("what was saved may stay", stays, &split);
	fe_each_layout("events that wait", events);
	fe_case("broken state", broken, &split);
	fe_case("reservations in a file for both ends", by_file, &split);
	fe_case("another initiator's reservation", conflicts, &split);
	fe_case("two kinds of reservations", old_and_new, &split);
	return tap_done();
}
