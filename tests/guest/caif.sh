#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest and the CAIF modem. Its transport cannot set up a reversed ring, so
# its driver refuses the device; nothing else is hurt, and the modem serves on.

limit=90
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml

backend caif caif --channel=at,host=null --control-path="$tmp/ctl"
for round in 1 2; do
	uml_start "guest$round" 60 virtio_uml.device="$socket:12" <<'GUEST'
is "the device" "$(cat /sys/bus/virtio/devices/virtio0/device)" 0x000c
check "there is a driver for it" test -d /sys/bus/virtio/drivers/caif_virtio
is "the driver has refused it" "$(ls -d /sys/bus/virtio/devices/virtio0/driver 2>/dev/null)" ""
GUEST
	guest_wait "guest$round"
	ok "the modem serves on" "$vum" ctl "$tmp/ctl" channels
done
ok "the back-end ends at SIGTERM" stop caif

done_testing
