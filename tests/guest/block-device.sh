#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Our block device on block devices of its host, where the host is a guest: it
# has loop devices, whatever the machine below permits.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
program=${builddir_abs:-.}/tests/device/block-device
[ -x "$program" ] || lacking "$program is not built"
guest_memory=192M
uml_runs loop 120 "$program"
refuses "no case was skipped" grep SKIP "$tmp/loop/tap"
done_testing
