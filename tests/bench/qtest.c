/* SPDX-License-Identifier: MIT */
/* QEMU by its qtest socket; see qtest.h. Registers: virtio 1.3, 4.2.2. */
#include "qtest.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "frontend.h"

enum { MMIO = 0xfeb00000u, MMIO_SIZE = 512, MMIO_COUNT = 24, ARGS = 64 };
enum {
	DEVICE_ID = 0x8,
	DEVICE_FEATURES = 0x10,
	DEVICE_FEATURES_SEL = 0x14,
	DRIVER_FEATURES = 0x20,
	DRIVER_FEATURES_SEL = 0x24,
	QUEUE_SEL = 0x30,
	QUEUE_NUM = 0x38,
	QUEUE_READY = 0x44,
	QUEUE_NOTIFY = 0x50,
	STATUS = 0x70,
	QUEUE_DESC = 0x80,
	QUEUE_DRIVER = 0x90,
	QUEUE_DEVICE = 0xa0,
};

static uint64_t ask(struct qtest *t, const char *fmt, ...)
{
	char line[128], answer[128];
	unsigned long long v = 0;
	size_t at = 0;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	CHECK_EQ(write(t->fd, line, (size_t)n), n);
	do {
		ssize_t got = read(t->fd, answer + at, sizeof(answer) - 1 - at);

		CHECK(got > 0);
		at += (size_t)got;
	} while (answer[at - 1] != '\n');
	answer[at] = '\0';
	CHECK(strncmp(answer, "OK", 2) == 0);
	sscanf(answer, "OK %llx", &v);
	return v;
}

static uint32_t get(struct qtest *t, uint64_t mmio, unsigned reg)
{
	return (uint32_t)ask(t, "readl 0x%llx\n", (unsigned long long)(mmio + reg));
}

static void set(struct qtest *t, uint64_t mmio, unsigned reg, uint32_t v)
{
	ask(t, "writel 0x%llx 0x%x\n", (unsigned long long)(mmio + reg), v);
}

static void set64(struct qtest *t, uint64_t mmio, unsigned reg, uint64_t v)
{
	set(t, mmio, reg, (uint32_t)v);
	set(t, mmio, reg + 4, (uint32_t)(v >> 32));
}

/* Firmware whose first instructions are the last: cli, hlt, and again. */
static void make_firmware(const char *path)
{
	static uint8_t image[65536];
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	memcpy(image + 0xfff0, "\xfa\xf4\xeb\xfd", 4);
	CHECK(fd >= 0 && write(fd, image, sizeof(image)) == sizeof(image));
	close(fd);
}

static void run(size_t size, const char *memory, const char *socket, int cpu, const char *const *args)
{
	char object[256], test[300], megabytes[32], firmware[160];
	const char *v[ARGS] = {"qemu-system-x86_64", "-object", object, "-machine",
		"microvm,memory-backend=mem", "-accel", "tcg", "-bios", firmware, "-qtest", test,
		"-qtest-log", "/dev/null", "-global", "virtio-mmio.force-legacy=false", "-nodefaults",
		"-display", "none", "-m", megabytes};
	unsigned n = 20;
	cpu_set_t cpus;

	snprintf(object, sizeof(object), "memory-backend-file,id=mem,size=%zu,mem-path=%s,share=on", size,
		memory);
	snprintf(test, sizeof(test), "unix:%s,server=on,wait=off", socket);
	snprintf(firmware, sizeof(firmware), "%s.bios", socket);
	make_firmware(firmware);
	snprintf(megabytes, sizeof(megabytes), "%zuM", size >> 20);
	while (n < ARGS - 1 && *args)
		v[n++] = *args++;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&cpus);
	CPU_SET((unsigned)cpu, &cpus);
	if (cpu >= 0)
		sched_setaffinity(0, sizeof(cpus), &cpus);
	execvp(v[0], (char *const *)v);
	_exit(127);
}

static void reach(struct qtest *t, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int64_t end = fe_now_ms() + 20000;

	CHECK(strlen(path) < sizeof(a.sun_path));
	memcpy(a.sun_path, path, strlen(path) + 1);
	t->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	while (connect(t->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		CHECK(fe_now_ms() < end && waitpid(t->pid, NULL, WNOHANG) == 0);
		usleep(20000);
	}
}

void qtest_start(struct qtest *t, size_t size, int cpu, const char *const *args)
{
	char memory[128], socket[128];
	int fd;

	snprintf(memory, sizeof(memory), "/dev/shm/qtest.%d", getpid());
	snprintf(socket, sizeof(socket), "%s/qtest", fe_tmpdir());
	*t = (struct qtest){.size = size, .used = 1 << 20};
	fd = open(memory, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	t->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(t->mem != MAP_FAILED);
	close(fd);
	t->pid = fork();
	if (t->pid == 0)
		run(size, memory, socket, cpu, args);
	CHECK(t->pid > 0);
	reach(t, socket);
	get(t, MMIO, DEVICE_ID); /* it has the memory: it listens before */
	unlink(memory);
}

void qtest_end(struct qtest *t)
{
	kill(t->pid, SIGKILL);
	waitpid(t->pid, NULL, 0);
	close(t->fd);
	munmap(t->mem, t->size);
}

void *qtest_alloc(struct qtest *t, size_t len, size_t align)
{
	size_t at = ALIGN_UP(t->used, align);

	CHECK(at + len <= t->size);
	t->used = at + len;
	return t->mem + at;
}

uint64_t qtest_device(struct qtest *t, uint32_t type, unsigned n)
{
	unsigned i;

	for (i = 0; i < MMIO_COUNT; i++)
		if (get(t, MMIO + i * MMIO_SIZE, DEVICE_ID) == type && n-- == 0)
			return MMIO + i * MMIO_SIZE;
	FAIL("QEMU has no such device of type %u", type);
}

uint64_t qtest_features(struct qtest *t, uint64_t mmio, uint64_t features)
{
	set(t, mmio, STATUS, 0);
	set(t, mmio, STATUS, 3);
	for (unsigned half = 0; half < 2; half++) {
		set(t, mmio, DEVICE_FEATURES_SEL, half);
		features &= (uint64_t)get(t, mmio, DEVICE_FEATURES) << half * 32 |
			    UINT64_C(0xffffffff) << (32 - half * 32);
		set(t, mmio, DRIVER_FEATURES_SEL, half);
		set(t, mmio, DRIVER_FEATURES, (uint32_t)(features >> half * 32));
	}
	set(t, mmio, STATUS, 11);
	return features;
}

void qtest_queue(struct qtest *t, uint64_t mmio, unsigned index, uint16_t num,
	const struct vring_driver_mode *mode, struct vring_driver *ring)
{
	struct vring_driver_layout size;
	uint8_t *desc, *driver, *device;

	vring_driver_layout(mode->packed, num, &size);
	desc = qtest_alloc(t, size.desc, 4096);
	driver = qtest_alloc(t, size.driver, 4096);
	device = qtest_alloc(t, size.device, 4096);
	CHECK_EQ(
		vring_driver_init(ring, mode, num, vring_driver_base(mode->packed), desc, driver, device), 0);
	set(t, mmio, QUEUE_SEL, index);
	set(t, mmio, QUEUE_NUM, num);
	set64(t, mmio, QUEUE_DESC, (uint64_t)(desc - t->mem));
	set64(t, mmio, QUEUE_DRIVER, (uint64_t)(driver - t->mem));
	set64(t, mmio, QUEUE_DEVICE, (uint64_t)(device - t->mem));
	set(t, mmio, QUEUE_READY, 1);
}

void qtest_go(struct qtest *t, uint64_t mmio)
{
	set(t, mmio, STATUS, 15);
}

void qtest_notify(struct qtest *t, uint64_t mmio, unsigned index)
{
	set(t, mmio, QUEUE_NOTIFY, index);
}
