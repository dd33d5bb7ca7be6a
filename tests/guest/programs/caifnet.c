/* SPDX-License-Identifier: MIT */
/*
 * Makes a network interface of the guest whose packets go over a CAIF datagram link (Linux's chnl_net), which ip(8) of busybox
 * cannot. The link is set up when the interface is.
 *
 * usage: caifnet NAME CONNECTION-ID
 */
#include <errno.h>
#include <linux/caif/if_caif.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
	struct nlmsghdr h;
	struct ifinfomsg i;
	char attributes[256];
} request;

static struct rtattr *add(unsigned short type, const void *data, size_t n)
{
	struct rtattr *a = (struct rtattr *)((char *)&request + NLMSG_ALIGN(request.h.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(n);
	memcpy(RTA_DATA(a), data, n);
	request.h.nlmsg_len = NLMSG_ALIGN(request.h.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void end(struct rtattr *a)
{
	a->rta_len = (unsigned short)((char *)&request + request.h.nlmsg_len - (char *)a);
}

int main(int argc, char **argv)
{
	struct rtattr *info, *data;
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
		char more[1024];
	} answer;
	uint32_t id;
	int fd;

	if (argc != 3)
		return 2;
	id = (uint32_t)strtoul(argv[2], NULL, 0);
	request.h = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(sizeof(request.i)),
		.nlmsg_type = RTM_NEWLINK,
		.nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK};
	add(IFLA_IFNAME, argv[1], strlen(argv[1]) + 1);
	info = add(IFLA_LINKINFO, "", 0);
	add(IFLA_INFO_KIND, "caif", 4);
	data = add(IFLA_INFO_DATA, "", 0);
	add(IFLA_CAIF_IPV4_CONNID, &id, sizeof(id));
	end(data);
	end(info);
	fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	if (fd < 0 || send(fd, &request, request.h.nlmsg_len, 0) < 0 ||
		recv(fd, &answer, sizeof(answer), 0) < 0) {
		perror("caifnet");
		return 1;
	}
	if (answer.h.nlmsg_type == NLMSG_ERROR && !answer.e.error)
		return 0;
	fprintf(stderr, "caifnet: %s\n", strerror(-answer.e.error));
	return 1;
}
