/* SPDX-License-Identifier: MIT */
/*
 * All device types, in the order of their names: the one list from which the table, --list, the tests and the installed
 * files are made. DEVICE(NAME) is built and defines `const struct device device_NAME`; PLANNED(NAME) is not there yet.
 * An underscore stands for the dash of rproc-serial. Included with both macros defined.
 */
/* clang-format off */
DEVICE(9p)
DEVICE(balloon)
DEVICE(block)
DEVICE(caif)
DEVICE(console)
DEVICE(crypto)
PLANNED(fs)
DEVICE(gpu)
DEVICE(input)
DEVICE(net)
DEVICE(rng)
DEVICE(rpmsg)
DEVICE(rproc_serial)
DEVICE(scsi)
DEVICE(vsock)
