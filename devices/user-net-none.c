/* SPDX-License-Identifier: MIT */
/* Stands for user-net.c where the program was built without libslirp. */
#include <errno.h>

#include "device.h"
#include "user-net.h"

int user_net_open(struct user_net **out, const struct user_net_config *config)
{
	(void)out;
	log_error("%s: this program was built without libslirp", config->option);
	return -ENOTSUP;
}

void user_net_close(struct user_net *u)
{
	(void)u;
}

const char *user_net_check_forward(const char *text)
{
	(void)text;
	return "this program was built without libslirp";
}

int user_net_forward(struct user_net *u, const char *text)
{
	(void)u;
	(void)text;
	return -ENOTSUP;
}

void user_net_send(struct user_net *u, const struct iovec *v, unsigned n, size_t len)
{
	(void)u;
	(void)v;
	(void)n;
	(void)len;
}

void user_net_room(struct user_net *u)
{
	(void)u;
}
