/* SPDX-License-Identifier: MIT */
/* The program under test as a process: start, watch, end. Its stdout and stderr go to a memfd. */
#include "frontend.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <time.h>

int fe_limit_ms = 10000;

static struct fe_process *running[8]; /* for messages about failures */
static char tmp_root[64];
static pid_t tmp_owner;

/* --- failures and limits --- */

static void show_logs(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(running); i++) {
		char *text = running[i] ? fe_process_log(running[i]) : NULL;
		char *save = NULL;

		if (!text)
			continue;
		printf("# log of process %d:\n", (int)running[i]->pid);
		for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			printf("#   %s\n", line);
		free(text);
	}
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	remove(path);
	return 0;
}

static void remove_tmp(void)
{
	if (tmp_root[0] && getpid() == tmp_owner)
		nftw(tmp_root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

__attribute__((constructor)) static void setup(void)
{
	const char *limit = getenv("FE_LIMIT"), *dir = getenv("TMPDIR");

	if (limit)
		fe_limit_ms = atoi(limit);
	tap.on_fail = show_logs;
	signal(SIGPIPE, SIG_IGN);
	/* made here, before any case forks, so that one process owns it and removes it */
	snprintf(tmp_root, sizeof(tmp_root), "%s/vum-test-XXXXXX", dir && strlen(dir) < 40 ? dir : "/tmp");
	if (!mkdtemp(tmp_root))
		abort();
	tmp_owner = getpid();
	atexit(remove_tmp);
}

const char *fe_tmpdir(void)
{
	static char name[4][96];
	static unsigned n;
	char *dir = name[n++ % 4];

	snprintf(dir, sizeof(name[0]), "%s/XXXXXX", tmp_root);
	if (!mkdtemp(dir))
		FAIL("%s: %s", dir, strerror(errno));
	return dir;
}

int64_t fe_now_ms(void)
{
	return (int64_t)(time_ns() / 1000000);
}

bool fe_poll(int fd, short events, int ms)
{
	int64_t end = fe_now_ms() + ms, left;
	struct pollfd p = {.fd = fd, .events = events};
	int r;

	for (;;) {
		left = end - fe_now_ms();
		r = poll(&p, 1, left > 0 ? (int)left : 0);
		if (r > 0)
			return true;
		if (r < 0 && errno != EINTR)
			FAIL("poll: %s", strerror(errno));
		if (r == 0 && left <= 0)
			return false;
	}
}

/* --- start --- */

const char *fe_binary(void)
{
	const char *name = getenv("VUM");

	return name ? name : "./vhost-user-multi";
}

static void exec_child(const char *const *args, int keep, int log, pid_t parent)
{
	const char *argv[64] = {fe_binary()};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	for (unsigned i = 0; args[i]; i++) {
		if (i + 2 >= ARRAY_SIZE(argv))
			_exit(126);
		argv[i + 1] = args[i];
	}
	if (keep >= 0)
		fcntl(keep, F_SETFD, 0);
	dup2(null, 0);
	if (!getenv("FE_SHOW")) {
		dup2(log, 1);
		dup2(log, 2);
	} else {
		dup2(2, 1);
	}
	signal(SIGPIPE, SIG_DFL);
	signal(SIGHUP, SIG_DFL); /* ignored where the tests run under nohup */
	execv(argv[0], (char *const *)argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

void fe_process_start(struct fe_process *p, int keep, const char *const *args)
{
	pid_t parent = getpid();

	p->log = memfd_create("log", MFD_CLOEXEC);
	if (p->log < 0)
		FAIL("memfd: %s", strerror(errno));
	fcntl(p->log, F_SETFL, O_APPEND);
	fflush(NULL);
	p->pid = fork();
	if (p->pid < 0)
		FAIL("fork: %s", strerror(errno));
	if (p->pid == 0)
		exec_child(args, keep, p->log, parent);
	for (unsigned i = 0; i < ARRAY_SIZE(running); i++)
		if (!running[i]) {
			running[i] = p;
			break;
		}
}

/* --- end --- */

static void check_log(const struct fe_process *p)
{
	static const char *const bad[] = {"Sanitizer", "runtime error:", "Assertion"};
	char *text = fe_process_log(p);

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (strstr(text, bad[i]))
			FAIL("\"%s\" in the log of the process", bad[i]);
	free(text);
}

static void forget(struct fe_process *p)
{
	p->pid = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(running); i++)
		if (running[i] == p)
			running[i] = NULL;
	if (p->log >= 0)
		close(p->log);
	p->log = -1;
}

static int reap(struct fe_process *p)
{
	int pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0), status;

	if (pidfd < 0)
		FAIL("pidfd_open: %s", strerror(errno));
	if (!fe_poll(pidfd, POLLIN, fe_limit_ms))
		FAIL("process %d: expected it to end, still running after %d ms", (int)p->pid, fe_limit_ms);
	close(pidfd);
	CHECK_SYS(waitpid(p->pid, &status, 0));
	return status;
}

int fe_process_wait(struct fe_process *p)
{
	int status;

	CHECK(p->pid > 0);
	status = reap(p);
	check_log(p);
	forget(p);
	return status;
}

void fe_process_exits(struct fe_process *p, int want)
{
	int status;

	CHECK(p->pid > 0);
	status = reap(p);
	if (WIFSIGNALED(status))
		FAIL("process: expected exit status %d, killed by signal %d", want, WTERMSIG(status));
	if (WEXITSTATUS(status) != want)
		FAIL("process: expected exit status %d, got %d", want, WEXITSTATUS(status));
	check_log(p);
	forget(p);
}

void fe_process_signal(struct fe_process *p, int sig)
{
	CHECK(p->pid > 0);
	CHECK_SYS(kill(p->pid, sig));
}

void fe_process_kill(struct fe_process *p)
{
	if (p->pid <= 0)
		return;
	kill(p->pid, SIGKILL);
	fe_process_wait(p);
}

bool fe_process_running(const struct fe_process *p)
{
	siginfo_t info = {0};

	return p->pid > 0 && waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == 0;
}

/* --- what it looks like from outside --- */

unsigned fe_process_fds(const struct fe_process *p)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)p->pid);
	dir = opendir(path);
	if (!dir)
		FAIL("%s: %s", path, strerror(errno));
	for (const struct dirent *e = readdir(dir); e; e = readdir(dir))
		n += e->d_name[0] != '.';
	closedir(dir);
	return n;
}

static void proc_read(const struct fe_process *p, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)p->pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		FAIL("%s: %s", path, strerror(errno));
	n = read(fd, buf, size - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
}

size_t fe_process_rss(const struct fe_process *p)
{
	unsigned long pages = 0;
	char buf[256];

	proc_read(p, "statm", buf, sizeof(buf));
	CHECK_EQ(sscanf(buf, "%*u %lu", &pages), 1);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t fe_process_cpu_ms(const struct fe_process *p)
{
	unsigned long user = 0, sys = 0;
	const char *rest;
	char buf[1024];

	proc_read(p, "stat", buf, sizeof(buf));
	rest = strrchr(buf, ')');
	CHECK(rest &&
		sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) == 2);
	return (user + sys) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK);
}

static bool thread_sleeps(const struct fe_process *p, const char *tid)
{
	char path[96], buf[1024];
	const char *rest;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)p->pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true; /* it has ended */
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	rest = strrchr(buf, ')');
	return !rest || rest[2] == 'S';
}

bool fe_process_sleeps(const struct fe_process *p)
{
	bool sleeps = true;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)p->pid);
	dir = opendir(path);
	if (!dir)
		FAIL("%s: %s", path, strerror(errno));
	for (const struct dirent *e = readdir(dir); e; e = readdir(dir))
		if (e->d_name[0] != '.')
			sleeps &= thread_sleeps(p, e->d_name);
	closedir(dir);
	return sleeps;
}

char *fe_process_log(const struct fe_process *p)
{
	off_t size = p->log < 0 ? 0 : lseek(p->log, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	if (!text)
		abort();
	if (size && pread(p->log, text, (size_t)size, 0) < 0)
		text[0] = 0;
	return text;
}

void fe_process_logs(const struct fe_process *p, const char *want)
{
	struct timespec pause = {.tv_nsec = 2000000};
	int64_t end = fe_now_ms() + fe_limit_ms;
	bool found;

	/* a file gives no event that poll() could wait for */
	for (;;) {
		char *text = fe_process_log(p);

		found = strstr(text, want) != NULL;
		free(text);
		if (found)
			return;
		if (fe_now_ms() > end)
			FAIL("log: expected \"%s\" within %d ms", want, fe_limit_ms);
		nanosleep(&pause, NULL);
	}
}
