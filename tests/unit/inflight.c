/* SPDX-License-Identifier: MIT */
/*
 * In-flight tracking. The crash test runs a device in a child process on shared memory and follows it instruction by
 * instruction. Whenever an instruction changed the memory, the process could have died just there: a copy of the memory
 * is recovered, and each buffer has to be used, taken again or still available, once. The driver of that copy then goes
 * on. The same is done for recoveries themselves, which may die too.
 *
 * Other cases put nonsense into the area.
 */
#include "inflight.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

#include "rig.h"

enum { HEAD_SPLIT = 16, ENTRY_SPLIT = 16, HEAD_PACKED = 32, ENTRY_PACKED = 32 };

/* --- the area as a whole --- */

static void area_sizes(void *arg)
{
	struct inflight in = {0};
	unsigned num;
	int fd;

	(void)arg;
	CHECK_EQ(inflight_bytes(1, 1), inflight_bytes(1, 256));
	CHECK(inflight_bytes(1, 1024) >= 32 + 32 * 1024);
	CHECK_EQ(inflight_bytes(7, 1024), 7 * inflight_bytes(1, 1024));
	CHECK(!inflight_queue(&in, 0, false, &num));
	CHECK_EQ(num, 0);
	CHECK_SYS(fd = inflight_create_fd(4, 512));
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512), 0, 0, 512), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512), 0, 4, 0), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512), 4, 4, 512), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512) + 1, 0, 4, 512), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512), 8, 4, 512), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, 4 * (16 + 16 * 512) - 1, 0, 4, 512), -EINVAL);
	CHECK_EQ(inflight_map(&in, &fd, UINT64_MAX, 0, 4, 512), -EINVAL);
	CHECK(fd >= 0);
	CHECK_EQ(inflight_map(&in, &fd, inflight_bytes(4, 512), 0, 4, 512), 0);
	CHECK_EQ(fd, -1);
	CHECK(inflight_queue(&in, 3, false, &num));
	CHECK(num >= 512);
	CHECK(inflight_queue(&in, 3, true, &num));
	CHECK(num >= 512);
	CHECK_EQ(
		(uint8_t *)inflight_queue(&in, 3, true, &num) - (uint8_t *)inflight_queue(&in, 2, true, &num),
		inflight_bytes(1, 512));
	CHECK(!inflight_queue(&in, 4, false, &num));
	CHECK_EQ(num, 0);
	/* again, smaller */
	CHECK_SYS(fd = inflight_create_fd(1, 1));
	CHECK_EQ(inflight_map(&in, &fd, 32, 0, 1, 1), 0);
	CHECK(inflight_queue(&in, 0, false, &num));
	CHECK_EQ(num, 1);
	CHECK(!inflight_queue(&in, 0, true, &num)); /* no room for a packed one */
	inflight_unmap(&in);
	inflight_unmap(&in);
	CHECK(!inflight_queue(&in, 0, false, &num));
}

/* --- crashes --- */

enum op { ADD, COLLECT, POP, PUSH, FLUSH, UNPOP, RESTART };

struct script {
	enum op op[160];
	unsigned n;
};

struct shared {		       /* with the child */
	volatile int stepping; /* while 1 the parent looks; 2: it need not */
	volatile unsigned op;
};

struct crash {
	struct rig r;	       /* the driver's; the child has the same, and the device's */
	struct rig scratch[2]; /* where copies are recovered: by ourselves, and by another child */
	uint8_t *copy[2];
	struct shared *sh;
	unsigned states[2], recovered, used;
	bool deep; /* recoveries are followed too */
};

static void random_script(struct script *s, unsigned n)
{
	static const enum op often[] = {ADD, ADD, COLLECT, POP, POP, POP, PUSH, PUSH, FLUSH, UNPOP};

	s->n = n;
	for (unsigned i = 0; i < n; i++)
		s->op[i] = i % 40 == 39 ? RESTART : often[rig_random(ARRAY_SIZE(often))];
	s->op[0] = RESTART; /* the first start */
	s->op[1] = ADD;
}

/* A bit of everything, for where each state costs a lot. */
static void short_script(struct script *s)
{
	static const enum op all[] = {RESTART, ADD, POP, POP, POP, PUSH, PUSH, FLUSH, COLLECT, ADD, POP,
		UNPOP, POP, PUSH, PUSH, FLUSH, ADD, POP, POP, PUSH, FLUSH, COLLECT};

	s->n = ARRAY_SIZE(all);
	memcpy(s->op, all, sizeof(all));
}

/* Pushes are only staged, the memory shows nothing of them. */
static bool shows(const struct rig *r, enum op op)
{
	return op == RESTART || op == POP || op == UNPOP || (op == FLUSH && r->q->nstaged);
}

static void add_some(struct rig *r)
{
	unsigned n = 1 + rig_random(3);

	while (n--) {
		unsigned descs = r->mode.features ? 1 + rig_random(3) : 1; /* see main() */

		if (descs > 1 && rig_random(4) == 0) {
			if (rig_add_indirect(r, 16, 1, 8, descs - 1, 8) < 0)
				return;
		} else if (rig_add(r, 16, 1, 8, descs - 1, descs > 1 ? 8 : 0) < 0) {
			return;
		}
	}
}

/* The child's part of an op. */
static void device_op(struct rig *r, enum op op)
{
	uint64_t youngest = r->q->seq - 1;
	unsigned i;

	switch (op) {
	case RESTART: /* as if another process did it; what the last one had is forgotten */
		r->nheld = 0;
		CHECK_EQ(rig_start(r), 0);
		r->q->budget = UINT32_MAX;
		break;
	case POP:
		r->held[r->nheld] = virtqueue_pop(r->q);
		r->nheld += r->held[r->nheld] != NULL;
		break;
	case PUSH:
		if (!r->nheld)
			break;
		i = rig_random(r->nheld);
		virtqueue_push(r->held[i]);
		r->nheld--;
		memmove(r->held + i, r->held + i + 1, (r->nheld - i) * sizeof(*r->held));
		break;
	case FLUSH:
		vring_flush(&r->q->flush);
		break;
	case UNPOP:
		if (!r->nheld || container_of(r->held[r->nheld - 1], struct vring_slot, e)->seq != youngest)
			break;
		virtqueue_unpop(r->held[--r->nheld]);
		break;
	default:
		break;
	}
}

static void child_run(struct crash *c, const struct script *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		c->sh->op = i;
		raise(SIGTRAP);
		if (s->op[i] == RESTART && c->r.q->phase == VRING_RUNNING)
			rig_queue_make(&c->r);
		c->sh->stepping = shows(&c->r, s->op[i]) ? 1 : 2;
		device_op(&c->r, s->op[i]);
		c->sh->stepping = 0;
		if (s->op[i] == POP && c->r.nheld && !c->r.held[c->r.nheld - 1]->rd.done)
			rig_answer(c->r.held[c->r.nheld - 1]);
	}
	_exit(0);
}

static void driver_clone(struct vring_driver *to, const struct vring_driver *from)
{
	struct vring_driver keep = *to;

	*to = *from;
	to->slots = keep.slots;
	to->link = keep.link;
	to->order = keep.order;
	to->desc = keep.desc;
	to->avail = keep.avail;
	to->used = keep.used;
	to->pdesc = keep.pdesc;
	to->driver_event = keep.driver_event;
	to->device_event = keep.device_event;
	memcpy(to->slots, from->slots, from->num * sizeof(*to->slots));
	memcpy(to->link, from->link, from->num * sizeof(*to->link));
	memcpy(to->order, from->order, from->num * sizeof(*to->order));
}

/* Puts memory and driver into the scratch rig, with a queue that has not run. */
static void rig_clone(struct rig *to, const struct rig *from, const uint8_t *memory)
{
	memcpy(to->ram, memory, to->ram_size);
	driver_clone(&to->d, &from->d);
	memcpy(to->req, from->req, from->mode.num * sizeof(*to->req));
	to->next_tag = from->next_tag;
	to->submitted = from->submitted;
	to->completed = from->completed;
	to->nheld = 0;
	virtqueue_free(to->q);
	rig_queue_make(to);
}

static void complete_each(struct rig *r)
{
	while (r->nheld) {
		unsigned i = rig_random(r->nheld);
		struct element *e = r->held[i];
		uint32_t tag = rig_tag(e), got[4];

		r->held[i] = r->held[--r->nheld];
		rig_answer(e);
		virtqueue_push(e);
		rig_turn(r);
		CHECK_EQ(rig_collect(r, got, 4), 1);
		CHECK_EQ(got[0], tag);
	}
	CHECK_EQ(r->submitted, r->completed);
}

/* Full rings, back in another order. */
static void goes_on(struct rig *r)
{
	for (unsigned lap = 0; lap < 2; lap++) {
		while (rig_add(r, 16, 1, 8, r->d.nfree > 1, r->d.nfree > 1 ? 8 : 0) == 0)
			;
		CHECK_EQ(r->d.nfree, 0);
		vring_driver_publish(&r->d);
		rig_hold(r);
		CHECK_EQ(r->nheld, r->d.nbusy);
		complete_each(r);
	}
}

/* The process died with this memory: nothing is lost, nothing comes twice. */
static void check_recovery(struct crash *c, const struct rig *driver, const uint8_t *memory)
{
	struct rig *r = &c->scratch[0];
	uint32_t tags[64], last = 0;
	unsigned i, used, at = driver->d.nbusy;

	rig_clone(r, driver, memory);
	used = rig_collect(r, tags, ARRAY_SIZE(tags));
	rig_signals(r->call);
	CHECK_EQ(rig_start(r), 0);
	CHECK(!used || rig_signals(r->call)); /* the dead one may not have told the driver */
	r->q->budget = UINT32_MAX;
	rig_hold(r);
	CHECK(!r->q->broken);
	c->used += used;
	c->recovered += r->nheld;
	CHECK_EQ(used + r->nheld, at);
	for (i = 0; i < r->nheld; i++) {
		uint32_t tag = rig_tag(r->held[i]);

		rig_index(r, tag); /* is one that the driver misses */
		CHECK(i == 0 || tag > last);
		last = tag;
	}
	CHECK_EQ(rig_collect(r, tags, ARRAY_SIZE(tags)), 0);
	complete_each(r);
	goes_on(r);
	rig_stop(r, false);
	rig_turn(r);
	CHECK_EQ(r->q->phase, VRING_RESTING);
}

static int wait_stop(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status)) {
		CHECK_EQ(WEXITSTATUS(status), 0);
		return 0;
	}
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
		FAIL("the device ended with status 0x%x", status);
	return 1;
}

static void go(pid_t pid, int how)
{
	if (ptrace((enum __ptrace_request)how, pid, NULL, NULL) < 0)
		FAIL("ptrace: %s", strerror(errno));
}

/* Follows one op of a stopped child; each new state of the memory is given to check(). */
static void follow(struct crash *c, pid_t pid, const uint8_t *memory, uint8_t *copy,
	void (*check)(struct crash *c, const uint8_t *copy))
{
	size_t size = c->r.ram_size;

	memcpy(copy, memory, size);
	do {
		go(pid, PTRACE_SINGLESTEP);
		CHECK_EQ(wait_stop(pid), 1);
	} while (!c->sh->stepping);
	if (c->sh->stepping == 2)
		return;
	do {
		go(pid, PTRACE_SINGLESTEP);
		CHECK_EQ(wait_stop(pid), 1);
		if (memcmp(copy, memory, size) == 0)
			continue;
		memcpy(copy, memory, size);
		check(c, copy);
	} while (c->sh->stepping);
}

static pid_t traced(struct crash *c, void (*fn)(struct crash *c, void *arg), void *arg)
{
	pid_t pid = fork();

	CHECK_SYS(pid);
	if (pid)
		return pid;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fn(c, arg);
	_exit(0);
}

static void deep_state(struct crash *c, const uint8_t *copy)
{
	c->states[1]++;
	check_recovery(c, &c->scratch[1], copy);
}

static void recover_traced(struct crash *c, void *arg)
{
	(void)arg;
	raise(SIGTRAP);
	c->sh->stepping = 1;
	CHECK_EQ(rig_start(&c->scratch[1]), 0);
	c->sh->stepping = 0;
}

static void state(struct crash *c, const uint8_t *copy)
{
	pid_t pid;

	c->states[0]++;
	check_recovery(c, &c->r, copy);
	if (!c->deep)
		return;
	rig_clone(&c->scratch[1], &c->r, copy);
	c->sh->stepping = 0;
	pid = traced(c, recover_traced, NULL);
	CHECK_EQ(wait_stop(pid), 1);
	follow(c, pid, c->scratch[1].ram, c->copy[1], deep_state);
	go(pid, PTRACE_CONT);
	CHECK_EQ(wait_stop(pid), 0);
	c->sh->stepping = 1;
}

static void run_child(struct crash *c, void *arg)
{
	child_run(c, arg);
}

static void ptrace_or_skip(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 ? errno : 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status))
		tap_skip("ptrace: %s", strerror(WEXITSTATUS(status)));
}

struct crash_case {
	struct rig_mode mode;
	unsigned seed;
	bool deep;
};

static void *shared_alloc(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static void crash(void *arg)
{
	const struct crash_case *t = arg;
	struct crash *c = calloc(1, sizeof(*c));
	struct script s;
	pid_t pid;
	unsigned i;

	ptrace_or_skip();
	CHECK(c);
	rig_seed(t->seed);
	if (t->deep)
		short_script(&s);
	else
		random_script(&s, 100);
	c->deep = t->deep;
	c->sh = shared_alloc(sizeof(*c->sh));
	rig_prepare(&c->r, &t->mode);
	for (i = 0; i < 2; i++) {
		rig_prepare(&c->scratch[i], &t->mode);
		CHECK((c->copy[i] = malloc(c->r.ram_size)));
	}
	pid = traced(c, run_child, &s);
	while (wait_stop(pid)) {
		enum op op = s.op[c->sh->op];

		if (op == ADD) {
			add_some(&c->r);
			vring_driver_publish(&c->r.d);
		} else if (op == COLLECT) {
			rig_collect(&c->r, NULL, c->r.mode.num);
		} else {
			follow(c, pid, c->r.ram, c->copy[0], state);
		}
		go(pid, PTRACE_CONT);
	}
	tap_note("%u states, %u in recoveries; %u buffers were taken again, %u had been used", c->states[0],
		c->states[1], c->recovered, c->used);
	CHECK(c->states[0] > 20 && c->recovered && c->used);
	rig_close(&c->r);
	for (i = 0; i < 2; i++) {
		rig_close(&c->scratch[i]);
		free(c->copy[i]);
	}
	free(c);
}

/* --- nonsense --- */

static void push_all(struct rig *r)
{
	while (r->nheld)
		virtqueue_push(r->held[--r->nheld]);
}

/* What a process leaves that had some requests and gave some back. */
static void leave_area(struct rig *r)
{
	unsigned n;

	CHECK_EQ(rig_start(r), 0);
	add_some(r);
	add_some(r);
	add_some(r);
	vring_driver_publish(&r->d);
	r->q->budget = UINT32_MAX;
	rig_hold(r);
	n = rig_random(r->nheld + 1);
	while (n-- > 0)
		virtqueue_push(r->held[--r->nheld]);
	vring_flush(&r->q->flush);
	rig_stop(r, true); /* leaves the area alone */
	push_all(r);
	rig_turn(r);
	CHECK_EQ(r->q->phase, VRING_RESTING);
	add_some(r);
	vring_driver_publish(&r->d);
}

static void spoil(struct rig *r, unsigned fields)
{
	size_t head = r->mode.packed ? HEAD_PACKED : HEAD_SPLIT,
	       size = head + r->mode.num * (size_t)(r->mode.packed ? ENTRY_PACKED : ENTRY_SPLIT);
	uint8_t *area = r->ram + r->area;

	while (fields--) {
		size_t at = 12 + rig_random((uint32_t)size - 13); /* version and number stay */

		switch (rig_random(4)) {
		case 0:
			area[at] = (uint8_t)rig_random(256);
			break;
		case 1:
			area[at] ^= 1;
			break;
		case 2: /* a small number, in a field of 16 bits */
			area[at & ~(size_t)1] = (uint8_t)rig_random(r->mode.num + 2u);
			area[at | 1] = 0;
			break;
		default:
			memset(area + (at & ~(size_t)1), 0xff, 2);
			break;
		}
	}
}

static void random_area(struct rig *r)
{
	uint8_t *area = r->ram + r->area;
	size_t i, size = r->ring_end - r->area;

	for (i = 0; i < size; i++)
		area[i] = (uint8_t)rig_random(rig_random(2) ? 256 : 2);
	if (rig_random(8)) {
		area[8] = 1;
		area[9] = 0;
		area[10] = (uint8_t)r->mode.num;
		area[11] = 0;
	}
}

/* Takes all there is, reads and writes it, in the end or one by one. */
static void use_all(struct rig *r, bool spoiling)
{
	struct element *e;
	unsigned n = 0;

	r->q->budget = 10000;
	while ((e = virtqueue_pop(r->q))) {
		uint8_t byte;

		CHECK(++n < 1000);
		while (e->rd.left)
			cursor_get(&e->rd, &byte, 1);
		cursor_zero(&e->wr, e->wr.left);
		if (rig_random(2)) {
			virtqueue_push(e);
			if (rig_random(2))
				vring_flush(&r->q->flush);
		} else {
			r->held[r->nheld++] = e;
		}
		if (spoiling)
			spoil(r, 3);
	}
	push_all(r);
	vring_flush(&r->q->flush);
}

static void hostile(void *arg)
{
	const struct rig_mode *m = arg;
	unsigned round, refused = 0, broken = 0, taken = 0;

	for (round = 0; round < 4000; round++) {
		bool spoiling = round % 3 == 1;
		unsigned rested;
		struct rig r;
		int err;

		rig_seed(round);
		rig_prepare(&r, m);
		leave_area(&r);
		if (round % 3 == 2)
			random_area(&r);
		else
			spoil(&r, spoiling ? 0 : 1 + rig_random(6));
		err = rig_start(&r);
		CHECK(err == 0 || err == -EINVAL);
		rested = r.rested;
		if (err) {
			refused++;
			CHECK_EQ(r.q->phase, VRING_RESTING);
		} else {
			if (spoiling) /* the front-end can write to it at any time */
				spoil(&r, 8);
			taken += r.q->nresubmit;
			use_all(&r, spoiling);
			broken += r.q->broken;
			if (r.q->packed)
				CHECK(r.q->packed_.next_used < r.mode.num &&
					r.q->packed_.next_avail < r.mode.num);
			rig_stop(&r, false);
			rig_turn(&r);
			CHECK_EQ(r.rested, rested + 1);
		}
		rig_close(&r);
	}
	tap_note("%u refused, %u broken, %u buffers taken again", refused, broken, taken);
	CHECK(taken > 1000 && (!m->packed || refused > 100));
}

/* The front-end changes the area between the start and the pop: nothing comes of it. */
static void changed_later(void *arg)
{
	const struct rig_mode *m = arg;
	unsigned round, i;

	for (round = 0; round < 200; round++) {
		struct rig r;

		rig_seed(round);
		rig_prepare(&r, m);
		CHECK_EQ(rig_start(&r), 0);
		add_some(&r);
		add_some(&r);
		vring_driver_publish(&r.d);
		rig_turn(&r);
		rig_hold(&r);
		rig_stop(&r, true);
		push_all(&r);
		rig_turn(&r);
		CHECK_EQ(rig_start(&r), 0);
		for (i = 0; i < m->num; i++) { /* all but where the buffers are */
			uint8_t *e =
				r.ram + r.area +
				(m->packed ? HEAD_PACKED + i * ENTRY_PACKED : HEAD_SPLIT + i * ENTRY_SPLIT);

			memset(e, 0xff, 16);
		}
		memset(r.ram + r.area + 12, 0xff, m->packed ? HEAD_PACKED - 12 : HEAD_SPLIT - 12);
		rig_turn(&r);
		rig_hold(&r);
		CHECK_EQ(r.nheld, r.d.nbusy);
		complete_each(&r);
		goes_on(&r);
		rig_close(&r);
	}
}

/* Fewer entries than the ring has: half a list would be worse than none. */
static void too_small(void *arg)
{
	const struct rig_mode *m = arg;
	static const uint8_t zeros[4096];
	struct rig r;

	rig_prepare(&r, m);
	CHECK_EQ(virtqueue_start(r.q, r.mem, NULL, r.ram + r.area, m->num - 1u), 0);
	rig_turn(&r);
	goes_on(&r);
	CHECK_MEM(r.ram + r.area, zeros, r.ring_end - r.area);
	rig_close(&r);
}

/* Ring and area were in use with another size, or layout: no crash, and the driver's buffers are there. */
static void other_version(void *arg)
{
	const struct rig_mode *m = arg;
	struct rig r;

	rig_prepare(&r, m);
	memset(r.ram + r.area, 0xab, r.ring_end - r.area);
	memset(r.ram + r.area + 8, 0, 2); /* version 0: nobody has used it */
	CHECK_EQ(rig_start(&r), 0);
	rig_turn(&r);
	goes_on(&r);
	rig_close(&r);
}

int main(void)
{
	static const struct {
		const char *name;
		struct rig_mode mode;
	} crashes[] = {
		/* features: chains, too; nobody looks at that bit */
		{"split", {.num = 4}},
		{"split, chains", {.num = 8, .features = 1}},
		{"packed", {.packed = true, .num = 4}},
		{"packed of 3", {.packed = true, .num = 3}},
		{"packed, chains", {.packed = true, .num = 8, .features = 1}},
		{"packed of 7, chains", {.packed = true, .num = 7, .features = 1}},
	};
	char name[80];
	unsigned i, seed;

	tap.limit_s = 240;
	tap_case("sizes of the area", area_sizes, NULL);
	for (i = 0; i < 2; i++) {
		struct rig_mode m = {.num = 8, .packed = i, .features = 1, .tracked = true};
		const char *kind = i ? "packed" : "split";

		snprintf(name, sizeof(name), "nonsense in the area, %s", kind);
		tap_case(name, hostile, &m);
		snprintf(name, sizeof(name), "the area changes under a queue, %s", kind);
		tap_case(name, changed_later, &m);
		snprintf(name, sizeof(name), "an area that is too small, %s", kind);
		tap_case(name, too_small, &m);
		snprintf(name, sizeof(name), "an area nobody used, %s", kind);
		tap_case(name, other_version, &m);
	}
	for (i = 0; i < ARRAY_SIZE(crashes); i++)
		for (seed = 1; seed <= (crashes[i].mode.num == 8 ? 3 : 2); seed++) {
			struct crash_case t = {.mode = crashes[i].mode, .seed = seed, .deep = seed == 3};

			t.mode.tracked = t.mode.no_kick = true;
			snprintf(name, sizeof(name), "death at any instruction, %s, %s %u", crashes[i].name,
				t.deep ? "in recovery too," : "script", seed);
			tap_case(name, crash, &t);
		}
	return tap_done();
}
