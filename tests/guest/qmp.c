/* SPDX-License-Identifier: MIT */
/*
 * Sends one command to a QEMU monitor (QMP) and prints what it returns, as JSON without blanks.
 *
 * usage: qmp SOCKET COMMAND [JSON-ARGUMENTS]
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "json.h"

static struct json_value *parse(const char *text, size_t len)
{
	char why[JSON_ERROR_LEN];
	struct json_value *v = json_parse(text, len, why, sizeof(why));

	if (!v)
		errx(1, "%.*s: %s", (int)len, text, why);
	return v;
}

/* The next message that is no event. */
static struct json_value *answer(FILE *monitor)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	while ((len = getline(&line, &size, monitor)) > 0) {
		struct json_value *message = parse(line, (size_t)len);

		if (!json_get(message, "event")) {
			free(line);
			return message;
		}
		json_value_free(message);
	}
	errx(1, "the connection ended");
}

/* The answer to a command; what it returns is a part of it. */
static struct json_value *execute(FILE *monitor, const char *command, const struct json_value *arguments)
{
	CLEANUP_JSON struct json *j = json_new(false);
	struct json_value *message;

	json_object_begin(j);
	json_key(j, "execute");
	json_string(j, command);
	if (arguments) {
		json_key(j, "arguments");
		json_copy(j, arguments);
	}
	json_object_end(j);
	if (json_write_fd(j, fileno(monitor)) < 0)
		errx(1, "%s: could not be sent", command);
	message = answer(monitor);
	if (json_get(message, "error"))
		errx(1, "%s: %s", command, json_get_string(json_get(message, "error"), "desc"));
	return message;
}

int main(int argc, char **argv)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	CLEANUP_JSON struct json *out = json_new(false);
	CLEANUP_JSON_VALUE struct json_value *arguments = NULL, *message = NULL;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *monitor;

	if (argc < 3 || argc > 4)
		errx(2, "usage: qmp SOCKET COMMAND [JSON-ARGUMENTS]");
	if (strlen(argv[1]) >= sizeof(addr.sun_path))
		errx(1, "%s: too long", argv[1]);
	strcpy(addr.sun_path, argv[1]);
	alarm(100);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || !(monitor = fdopen(fd, "r")))
		err(1, "%s", argv[1]);
	if (argc > 3)
		arguments = parse(argv[3], strlen(argv[3]));
	json_value_free(answer(monitor)); /* the greeting */
	json_value_free(execute(monitor, "qmp_capabilities", NULL));
	message = execute(monitor, argv[2], arguments);
	json_copy(out, json_get(message, "return"));
	fclose(monitor);
	return json_write_fd(out, STDOUT_FILENO) < 0;
}
