#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on the serial line of a remote processor: noise both ways, over
# rebinding of the driver and a program of the host that is killed.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
io=$(realpath "${builddir_abs:-.}/tests/guest/portio")
[ -x "$io" ] || lacking "no $io"
dir=$tmp/guest

# logged BYTES: has the log so many?
logged()
{
	[ "$(stat -c %s "$tmp/log")" = "$1" ]
}

connected()
{
	"$vum" ctl "$tmp/ctl" port | grep -q '"connected": *true'
}

backend rproc rproc-serial --port="host=unix:$tmp/line,server,log=$tmp/log" --control-path="$tmp/ctl"
uml_start guest 60 virtio_uml.device="$socket:11" <<'GUEST'
is "the driver" "$(basename "$(readlink /sys/bus/virtio/devices/virtio0/driver)")" virtio_rproc_serial
touch /host/up
check "noise both ways" portio both 2 1 2000000 /dev/vport0p0
driver=/sys/bus/virtio/drivers/virtio_rproc_serial
check "the driver lets go" eval "echo virtio0 >$driver/unbind"
check "the driver comes back" eval "echo virtio0 >$driver/bind"
touch /host/again
check "noise after that" portio both 4 3 200000 /dev/vport0p0
portio send 9 2000000 /dev/vport0p0 &
touch /host/kill
wait $!
touch /host/sent
check "it may go on" await 60 test -e /host/next
check "noise for the next program" portio both 6 5 200000 /dev/vport0p0
GUEST
ok "the guest is up" await 60 test -e "$dir/up"
spawn noise "$io" both 1 2 2000000 "unix:$tmp/line"
ok "the guest's noise" reap noise 60
ok "the driver comes back" await 30 test -e "$dir/again"
spawn noise "$io" both 3 4 200000 "unix:$tmp/line"
ok "the guest's noise after that" reap noise 30
ok "the guest speaks" await 30 test -e "$dir/kill"
spawn victim env PORTIO_AFTER="$tmp/never" "$io" expect 9 1 "unix:$tmp/line"
ok "a program that is going to die" await 10 connected
stop victim KILL
spawn drain "$io" drain "unix:$tmp/line"
ok "the guest has said all" await 30 test -e "$dir/sent"
ok "the log has all of it" await 10 logged 4200000
stop drain KILL
touch "$dir/next"
spawn noise "$io" both 5 6 200000 "unix:$tmp/line"
ok "the guest's noise for the next program" reap noise 30
guest_wait guest
ok "the back-end ends at SIGTERM" stop rproc

done_testing
