#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A host-managed zoned disk: tests/device/block-zoned and the back-end run in a
# guest whose kernel pretends to have one.

limit=150
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
program=${builddir_abs:-.}/tests/device/block-zoned
[ -x "$program" ] || lacking "$program is not built"
guest_memory=192M guest_environment="ZONED_DEVICE=/dev/nullb0" uml_runs zoned 120 "$program" \
	null_blk.nr_devices=1 null_blk.gb=1 null_blk.memory_backed=1 null_blk.zoned=1 \
	null_blk.zone_size=2 null_blk.zone_capacity=1 null_blk.zone_nr_conv=2 null_blk.zone_max_open=2 \
	null_blk.zone_max_active=3
refuses "no case was skipped" grep SKIP "$tmp/zoned/tap"
done_testing
