#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Our sockets between a guest and the AF_VSOCK of its host, where the host is a guest:
# it has a vsock loopback, whatever the machine below permits.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
program=${builddir_abs:-.}/tests/device/vsock-proxy
[ -x "$program" ] || lacking "$program is not built"
guest_memory=192M
uml_runs proxy 120 "$program"
refuses "no case was skipped" grep SKIP "$tmp/proxy/tap"
done_testing
