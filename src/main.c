/* SPDX-License-Identifier: MIT */
/*
 * Which device this process becomes: `vhost-user-TYPE` says it by its own name, in any directory,
 * `vhost-user-multi TYPE` by its first argument. An alias (vhost-user-blk) works as well. Everything else
 * follows from the device table.
 *
 * Exit status: 0 fine, 1 failure, 2 wrong usage.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "capabilities.h"
#include "config.h"
#include "ctl.h"
#include "discover.h"
#include "table.h"

#define PROGRAM "vhost-user-multi"
#define PREFIX	"vhost-user-"

enum { STATUS_OK, STATUS_FAILURE, STATUS_USAGE };

/* The options that all types have. */
struct common_options {
	const struct device *dev;
	struct backend_options backend;
	enum log_level log_level;
	bool syslog;
	bool print_capabilities, help, version;
};

/* The next socket; NULL: there may be no more. */
static struct backend_socket *add_socket(struct common_options *common)
{
	struct backend_options *opt = &common->backend;
	struct backend_socket *s = &opt->sockets[opt->nsockets];

	if (opt->nsockets == BACKEND_MAX_SOCKETS)
		return NULL;
	opt->nsockets++;
	*s = (struct backend_socket){.fd = -1};
	return s;
}

/* For most types one process is one device, and each of these options is given once. */
static const char *store_path(struct common_options *common, size_t member, const char *value)
{
	const struct backend_options *opt = &common->backend;
	struct backend_socket *s;

	if (!*value)
		return "is empty";
	for (unsigned i = 0; i < opt->nsockets; i++) {
		const char *given = *(const char *const *)((const char *)&opt->sockets[i] + member);

		if (given && (!common->dev->several || strcmp(given, value) == 0))
			return "this option was given before";
	}
	s = add_socket(common);
	if (!s)
		return "too many";
	*(const char **)((char *)s + member) = value;
	return NULL;
}

static const char *parse_socket_path(void *base, const char *value)
{
	return store_path(base, offsetof(struct backend_socket, path), value);
}

static const char *parse_connect(void *base, const char *value)
{
	return store_path(base, offsetof(struct backend_socket, connect), value);
}

static const char *parse_fd(void *base, const char *value)
{
	struct common_options *common = base;
	struct backend_socket *s;
	uint64_t fd;

	if (!options_parse_u64(value, &fd))
		return "not a file descriptor number";
	if (fd > INT_MAX)
		return "not in the range from 0 to 2147483647";
	for (unsigned i = 0; i < common->backend.nsockets; i++) {
		int given = common->backend.sockets[i].fd;

		if (given == (int)fd || (given >= 0 && !common->dev->several))
			return "this option was given before";
	}
	s = add_socket(common);
	if (!s)
		return "too many";
	s->fd = (int)fd;
	return NULL;
}

static const char *parse_mode(void *base, const char *value)
{
	struct common_options *common = base;
	uint32_t mode = 0;

	if (strlen(value) < 3 || strlen(value) > 4 || strspn(value, "01234567") != strlen(value))
		return "not an octal mode such as 0660";
	for (const char *p = value; *p; p++)
		mode = mode * 8 + (uint32_t)(*p - '0');
	if (mode == 0 || mode > 0777)
		return "not in the range from 0001 to 0777";
	common->backend.socket_mode = mode;
	return NULL;
}

static const char *parse_group(void *base, const char *value)
{
	struct common_options *common = base;
	const struct group *group = getgrnam(value);
	unsigned long id;
	char *end;

	if (group) {
		common->backend.socket_group = group->gr_gid;
	} else {
		errno = 0;
		id = strtoul(value, &end, 10);
		if (*value < '0' || *value > '9' || *end || errno || id >= UINT32_MAX)
			return "no such group";
		common->backend.socket_group = (gid_t)id;
	}
	common->backend.has_socket_group = true;
	return NULL;
}

static const struct option_spec common_options[] = {
	{"socket-path", OPTION_CALLBACK, .parse = parse_socket_path, .arg = "PATH",
		.help = "create this Unix socket, listen, accept again after a disconnect"},
	{"fd", OPTION_CALLBACK, .parse = parse_fd, .arg = "N",
		.help = "use this open socket, listening or connected"},
	{"connect", OPTION_CALLBACK, .parse = parse_connect, .arg = "PATH",
		.help = "connect to this Unix socket, again and again after a disconnect"},
	{"socket-mode", OPTION_CALLBACK, .parse = parse_mode, .arg = "MODE", .no_def = "as the umask says",
		.help = "permissions of the socket that --socket-path creates, octal"},
	{"socket-group", OPTION_CALLBACK, .parse = parse_group, .arg = "GROUP",
		.no_def = "that of the process",
		.help = "group of the socket that --socket-path creates; its mode is 0660 then, if not given"},
	{"control-path", OPTION_PATH, OPTION_FIELD(struct common_options, backend.control_path),
		.no_def = "no control socket",
		.help = "create this Unix socket for commands and statistics (see the ctl command); times every request"},
	{"poll-us", OPTION_U64, OPTION_FIELD(struct common_options, backend.poll_us), .def = "32",
		.max = 1000000,
		.help = "look at the rings this many microseconds before sleeping, while that pays; 0: never"},
	{"packed", OPTION_SWITCH, OPTION_FIELD(struct common_options, backend.packed), .def = "off",
		.help = "offer packed virtqueues"},
	{"inband", OPTION_FLAG, OPTION_FIELD(struct common_options, backend.inband),
		.help = "offer in-band notifications (for User Mode Linux)"},
	{"log-level", OPTION_ENUM, OPTION_FIELD(struct common_options, log_level), .def = "warn",
		.choices = log_level_names, .help = "how much to say"},
	{"syslog", OPTION_FLAG, OPTION_FIELD(struct common_options, syslog),
		.help = "log to syslog; errors still go to standard error as well"},
	{"print-capabilities", OPTION_FLAG, OPTION_FIELD(struct common_options, print_capabilities),
		.help = "print what this type can do here as JSON, ignore all other options"},
	{"help", OPTION_FLAG, OPTION_FIELD(struct common_options, help), .help = "show this text"},
	{"version", OPTION_FLAG, OPTION_FIELD(struct common_options, version), .help = "show the version"},
	OPTIONS_END,
};

/* ---- types ---- */

static const struct device *find_device(const char *name)
{
	for (unsigned i = 0; device_table[i]; i++) {
		const struct device *dev = device_table[i];

		if (strcmp(dev->name, name) == 0 || (dev->alias && strcmp(dev->alias, name) == 0))
			return dev;
	}
	return NULL;
}

/* All type names, built or not; ends with NULL. In list.h an underscore stands for a dash. */
static const char *const *type_names(void)
{
	static char planned[32][32];
	static const char *names[64];
	unsigned n = 0;

	for (unsigned i = 0; device_table[i]; i++)
		names[n++] = device_table[i]->name;
	for (unsigned i = 0; device_planned[i]; i++) {
		snprintf(planned[i], sizeof(planned[i]), "%s", device_planned[i]);
		for (char *p = planned[i]; (p = strchr(p, '_'));)
			*p = '-';
		names[n++] = planned[i];
	}
	return names;
}

static bool is_type(const char *name)
{
	const char *const *names = type_names();

	for (unsigned i = 0; names[i]; i++) {
		if (strcmp(names[i], name) == 0)
			return true;
	}
	return find_device(name);
}

/* ---- output ---- */

static int finish_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return STATUS_OK;
	log_errno(errno, "standard output");
	return STATUS_FAILURE;
}

static int print_version(void)
{
	printf("%s %s\n", PROGRAM, PACKAGE_VERSION);
	return finish_stdout();
}

static int print_list(void)
{
	for (unsigned i = 0; device_table[i]; i++)
		printf("%-14s %s\n", device_table[i]->name, device_table[i]->summary);
	return finish_stdout();
}

static int print_help(void)
{
	printf("Usage: %s TYPE [OPTION]...      be a backend of this type, also when called %sTYPE\n"
	       "       %s TYPE --help           show the options of this type\n"
	       "       %s ctl PATH COMMAND      ask a running process (ctl --help)\n"
	       "       %s discover [OPTION]...  find a backend program (discover --help)\n"
	       "       %s --list | --help | --version\n\n"
	       "A vhost-user backend for every kind of virtio device. Types:\n",
		PROGRAM, PREFIX, PROGRAM, PROGRAM, PROGRAM, PROGRAM);
	for (unsigned i = 0; device_table[i]; i++)
		printf("  %-14s %s\n", device_table[i]->name, device_table[i]->summary);
	return finish_stdout();
}

static int print_type_help(const struct device *dev)
{
	const struct option_set sets[] = {
		{.specs = dev->options, .title = "Options of this type"},
		{.specs = common_options, .title = "Options of all types"},
	};

	printf("Usage: %s%s [OPTION]...\n%s\n", PREFIX, dev->name, dev->summary);
	options_help(sets, ARRAY_SIZE(sets), stdout);
	if (dev->several)
		printf("\n--socket-path, --fd or --connect may be given several times: the process is then the backend of\n"
		       "several guests.\n");
	return finish_stdout();
}

/* ---- one type ---- */

static bool has_argument(int argc, char *const *argv, const char *text)
{
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], text) == 0)
			return true;
	}
	return false;
}

static int check_common(const struct common_options *common)
{
	const struct backend_options *opt = &common->backend;
	unsigned paths = 0, fds = 0;

	for (unsigned i = 0; i < opt->nsockets; i++) {
		paths += !!opt->sockets[i].path;
		fds += opt->sockets[i].fd >= 0;
	}
	if (!opt->nsockets) {
		log_error("one of --socket-path, --fd and --connect is needed (see --help)");
		return -EINVAL;
	}
	if ((paths && paths < opt->nsockets) || (fds && fds < opt->nsockets)) {
		log_error("--socket-path, --fd and --connect exclude each other");
		return -EINVAL;
	}
	if (opt->socket_mode && !paths) {
		log_error("--socket-mode: only --socket-path creates a socket");
		return -EINVAL;
	}
	if (opt->has_socket_group && !paths) {
		log_error("--socket-group: only --socket-path creates a socket");
		return -EINVAL;
	}
	for (unsigned i = 0; i < paths && opt->control_path; i++) {
		if (strcmp(opt->control_path, opt->sockets[i].path) != 0)
			continue;
		log_error("--control-path=%s: is the same as --socket-path", opt->control_path);
		return -EINVAL;
	}
	return 0;
}

static int run_device(const struct device *dev, int argc, char *const *argv)
{
	CLEANUP_FREE void *state = calloc(1, MAX(dev->state_size, 1u));
	struct common_options common = {.dev = dev};
	const struct option_set sets[] = {
		{.specs = dev->options, .base = state},
		{.specs = common_options, .base = &common},
	};

	if (!state) {
		log_errno(ENOMEM, "%s", dev->name);
		return STATUS_FAILURE;
	}
	if (options_parse(sets, ARRAY_SIZE(sets), argc, argv) < 0 || check_common(&common) < 0)
		return STATUS_USAGE;
	log_set_level(common.log_level);
	if (common.syslog)
		log_to_syslog();
	if (common.backend.has_socket_group && !common.backend.socket_mode)
		common.backend.socket_mode = 0660;
	common.backend.version = PACKAGE_VERSION;
	return backend_run(dev, state, &common.backend);
}

static int become(const struct device *dev, int argc, char *const *argv)
{
	char prefix[64];

	snprintf(prefix, sizeof(prefix), "%s%s", PREFIX, dev->name);
	log_set_prefix(prefix);
	if (dev->helper && argc == 1 && strcmp(argv[0], HELPER_ARGUMENT) == 0)
		return dev->helper();
	if (has_argument(argc, argv, "--print-capabilities"))
		return capabilities_print(dev, STDOUT_FILENO) < 0 ? STATUS_FAILURE : STATUS_OK;
	if (has_argument(argc, argv, "--help"))
		return print_type_help(dev);
	if (has_argument(argc, argv, "--version"))
		return print_version();
	return run_device(dev, argc, argv);
}

static int run_type(const char *name, int argc, char *const *argv)
{
	const struct device *dev = find_device(name);

	if (dev)
		return become(dev, argc, argv);
	if (is_type(name)) {
		log_error("%s: this device type is not built yet", name);
		return STATUS_FAILURE;
	}
	log_error("%s: no such device type (see --list)", name);
	return STATUS_USAGE;
}

static int run_multi(int argc, char *const *argv)
{
	if (argc < 1) {
		log_error("a device type is needed (see --help)");
		return STATUS_USAGE;
	}
	if (strcmp(argv[0], "--help") == 0)
		return print_help();
	if (strcmp(argv[0], "--version") == 0)
		return print_version();
	if (strcmp(argv[0], "--list") == 0)
		return print_list();
	if (strcmp(argv[0], "ctl") == 0)
		return ctl_main(argc - 1, argv + 1);
	if (strcmp(argv[0], "discover") == 0)
		return discover_main(type_names(), argc - 1, argv + 1);
	if (argv[0][0] == '-') {
		log_error("%s: the first argument is a device type (see --help)", argv[0]);
		return STATUS_USAGE;
	}
	return run_type(argv[0], argc - 1, argv + 1);
}

/*
 * File descriptors 0, 1 and 2 must not become a socket or a disk that something is then printed to. What was
 * closed is opened the wrong way round, so using it still fails.
 */
static void occupy_stdio(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
	}
}

int main(int argc, char **argv)
{
	const char *name = argc > 0 ? argv[0] : PROGRAM;

	occupy_stdio();
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that is full is an error like others */
	if (strrchr(name, '/'))
		name = strrchr(name, '/') + 1;
	if (strncmp(name, PREFIX, strlen(PREFIX)) == 0 && is_type(name + strlen(PREFIX)))
		return run_type(name + strlen(PREFIX), argc - 1, argv + 1);
	return run_multi(argc - 1, argv + 1);
}
