/* SPDX-License-Identifier: MIT */
/* `vhost-user-multi ctl PATH COMMAND`: a client of the control socket. */
#ifndef CTL_H
#define CTL_H

/* argv[0] is the path. Returns the exit status: 0 fine, 1 the command or the connection failed, 2 wrong usage. */
int ctl_main(int argc, char *const *argv);

#endif
