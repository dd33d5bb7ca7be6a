/* SPDX-License-Identifier: MIT */
/* Stands for net-user.c where the program was built without libslirp. */
#include <errno.h>

#include "net-host.h"

int net_user_open(struct net_host **out, struct net *net)
{
	(void)out;
	(void)net;
	log_error("--user: this program was built without libslirp");
	return -ENOTSUP;
}

const char *net_user_check_forward(const char *text)
{
	(void)text;
	return "this program was built without libslirp";
}
