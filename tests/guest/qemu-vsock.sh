#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end on our sockets: bytes and messages both ways; a guest that reboots by itself or is reset with connections open; a back-end
# that is killed under it; and a migration. QEMU neither takes a new back-end for a running device of this kind nor migrates it:
# the device is unplugged and plugged in again, here or over there.

limit=300
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
io=$(realpath "${builddir_abs:-.}/tests/guest/vsockio")
[ -x "$io" ] || lacking "no $io"

# server NAME ARGUMENT...: a server of the host
server()
{
	local name=$1
	shift
	spawn "$name" "$io" "$@"
	await 10 grep -qs listening "$tmp/$name.log" || result 1 "$name listens"
}

server echo serve "unix:$tmp/v_1000"
server messages serve "seq:unix:$tmp/v_1001"

# The script of the guest that runs anew with each boot, as it is told.
cat >"$tmp/script" <<'GUEST'
modprobe vmw_vsock_virtio_transport
vsockio serve vsock:4294967295:7 >/tmp/stream &
vsockio serve seq:vsock:4294967295:8 >/tmp/messages &
check "it listens" await 20 eval "grep -qs listening /tmp/stream && grep -qs listening /tmp/messages"
echo "ready"
while read -r word; do
	case $word in
	load)
		check "8 MiB there and back" vsockio bulk vsock:2:1000 8
		check "100 connections at a time" vsockio many vsock:2:1000 100
		check "messages" vsockio messages seq:vsock:2:1001
		check "nobody there" vsockio refused vsock:2:4444
		check "no such guest" vsockio refused vsock:99:7
		;;
	open)
		vsockio idle vsock:2:1000 >/tmp/idle 2>&1 &
		check "it is connected" await 20 grep -qs connected /tmp/idle
		;;
	gone)
		check "the guest's program sees the end" await 20 grep -qsE "closed|reset" /tmp/idle
		;;
	reboot)
		echo "rebooting"
		drain
		reboot -f
		;;
	esac
	echo "done $word"
done
GUEST

guest=guest # the one we talk to

# said N REGEX: has it printed N such lines, or ended?
said()
{
	[ "$(grep -c -a -E -e "$2" "$tmp/$guest/out")" -ge "$1" ] || gone "$guest"
}

# does WORD: the guest does what the word means in its script
does()
{
	local before
	before=$(grep -c -x "done $1" "$tmp/$guest/out")
	guest_tell "$guest" "$1"
	ok "the guest does its part: $1" await 60 said $((before + 1)) "^done $1$"
}

# count: the connections that the back-end has
count()
{
	"$vum" ctl "$tmp/ctl" query-connections | tr -d ' \n' | sed 's/.*"count":\([0-9]*\).*/\1/'
}

has()
{
	[ "$(count)" = "$1" ]
}

# open_both N: connections from both sides that nobody closes, the Nth ones
open_both()
{
	does open
	spawn "idle$1" "$io" idle "hybrid:$tmp/v:7"
	ok "open from the host" await 20 grep -qs connected "$tmp/idle$1.log"
	ok "two connections" await 20 has 2
}

# ended N: what open_both left on the host has come to its end
ended()
{
	ok "the host's program sees the end" reap "idle$1" 30
	ok "no connection is left" await 20 has 0
}

backend vsock vsock --guest-cid=33 --uds-path="$tmp/v" --control-path="$tmp/ctl"
guest_reboots=1 qemu_start guest 200 -chardev "socket,id=c,path=$socket" -device vhost-user-vsock-pci,chardev=c <"$tmp/script"
ok "the guest listens" await 60 said 1 '^ready$'
does load
ok "8 MiB from the host and back" "$io" bulk "hybrid:$tmp/v:7" 8
ok "100 connections from the host" "$io" many "hybrid:$tmp/v:7" 100
ok "nobody there in the guest" "$io" refused "hybrid:$tmp/v:10"

open_both 1
guest_tell guest reboot
ok "the guest is there again" await 60 said 2 '^ready$'
ended 1
ok "1 MiB from the host and back" "$io" bulk "hybrid:$tmp/v:7" 1

open_both 2
qmp guest system_reset >/dev/null
ok "the guest is there again" await 60 said 3 '^ready$'
ended 2
does load
ok "the VM ends" qmp guest quit
reap guest 10
guest_results guest <"$tmp/guest/out"
ok "the back-end ends at SIGTERM" stop vsock

# ---- a back-end that is killed, and a migration ----

guest_memory=$((128 * 1024 + 8))K # see qemu-migrate.sh
card=(-device "pcie-root-port,id=hole")

# plug VM: puts the device into it, with the back-end on $socket
plug()
{
	local where="{\"type\":\"unix\",\"data\":{\"path\":\"$socket\"}}"
	qmp "$1" chardev-add "{\"id\":\"c\",\"backend\":{\"type\":\"socket\",\"data\":{\"addr\":$where,\"server\":false}}}" &&
		qmp "$1" device_add '{"driver":"vhost-user-vsock-pci","chardev":"c","bus":"hole","id":"v"}'
}

# unplug VM: the guest has to agree
unplug()
{
	qmp "$1" device_del '{"id":"v"}' && await 30 qmp "$1" chardev-remove '{"id":"c"}'
}

# answers: does the guest's server answer, through the back-end?
answers()
{
	"$io" bulk "hybrid:$tmp/v:7" 1
}

backend first vsock --guest-cid=33 --uds-path="$tmp/v" --control-path="$tmp/ctl"
qemu_start from 200 "${card[@]}" -chardev "socket,id=c,path=$socket" -device vhost-user-vsock-pci,chardev=c,bus=hole,id=v <"$tmp/script"
guest=from
ok "the guest listens" await 60 said 1 '^ready$'
open_both 3
status=0
stop first KILL || status=$?
is "killed" $status 137
ok "the host's program sees the end" reap idle3 30
ok "it is unplugged" unplug from
does gone
backend second vsock --guest-cid=33 --uds-path="$tmp/v" --control-path="$tmp/ctl"
ok "another one is plugged in" plug from
ok "the guest answers again" await 30 answers
does load

open_both 4
mkdir "$tmp/to"
cp "$tmp/from/initrd" "$tmp/to"
qemu_boot to 120 "${card[@]}" -incoming "unix:$tmp/wire"
ok "the other QEMU waits" await 20 test -S "$tmp/wire"
ok "it is unplugged" unplug from
ok "the host's program sees the end" reap idle4 30
ok "no connection is left" await 20 has 0
ok "migrate" qmp from migrate "{\"uri\": \"unix:$tmp/wire\"}"
migrated()
{
	[[ $(qmp from query-migrate) =~ \"status\":\"(completed|failed|cancelled)\" ]]
}
await 60 migrated
like "migration" "$(qmp from query-migrate)" '"status":"completed"'
qmp from quit >/dev/null
ok "the first QEMU ends" reap from 10
guest_results from <"$tmp/from/out"
ok "its back-end ends at SIGTERM" stop second
guest=to
backend third vsock --guest-cid=33 --uds-path="$tmp/v" --control-path="$tmp/ctl"
ok "another one is plugged in" plug to
ok "the guest answers again" await 30 answers
does gone
does load
ok "the VM ends" qmp to quit
reap to 10
guest_results to <"$tmp/to/out"
ok "the last back-end ends at SIGTERM" stop third
stop echo
stop messages
done_testing
