#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end on our sockets: bytes and messages both ways, a guest that reboots by itself or is reset with connections open, and
# a back-end that is killed and comes again.

limit=240
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
	await 10 grep -q listening "$tmp/$name.log" || result 1 "$name listens"
}

server echo serve "unix:$tmp/v_1000"
server messages serve "seq:unix:$tmp/v_1001"

# The script of the guest that runs anew with each boot, as it is told.
cat >"$tmp/script" <<'GUEST'
modprobe vmw_vsock_virtio_transport
vsockio serve vsock:4294967295:7 >/tmp/stream &
vsockio serve seq:vsock:4294967295:8 >/tmp/messages &
check "it listens" await 20 grep -q listening /tmp/messages
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
		check "it is connected" await 20 grep -q connected /tmp/idle
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

# said N REGEX: has the guest printed N such lines, or ended?
said()
{
	[ "$(grep -c -a -E -e "$2" "$tmp/guest/out")" -ge "$1" ] || gone guest
}

# count: the connections that the back-end has
count()
{
	"$vum" ctl "$tmp/ctl" query-connections | tr -d ' \n' | sed 's/.*"count":\([0-9]*\).*/\1/'
}

has_none()
{
	[ "$(count)" = 0 ]
}

# open_both N: connections from both sides that nobody closes, for the Nth time
open_both()
{
	guest_tell guest open
	ok "open from the guest" await 30 said "$1" '^done open$'
	spawn "idle$1" "$io" idle "hybrid:$tmp/v:7"
	ok "open from the host" await 20 grep -q connected "$tmp/idle$1.log"
	is "two connections" "$(count)" 2
}

# ended N: what open_both left on the host has come to its end
ended()
{
	ok "the host's program sees the end" reap "idle$1" 30
	ok "no connection is left" await 20 has_none
}

backend vsock vsock --guest-cid=33 --uds-path="$tmp/v" --control-path="$tmp/ctl"
guest_reboots=1 qemu_start guest 200 -chardev "socket,id=c,path=$socket" -device vhost-user-vsock-pci,chardev=c <"$tmp/script"
ok "the guest listens" await 60 said 1 '^ready$'
guest_tell guest load
ok "the guest's load" await 60 said 1 '^done load$'
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
guest_tell guest load
ok "the guest's load" await 60 said 2 '^done load$'
ok "the VM ends" qmp guest quit
reap guest 10
guest_results guest <"$tmp/guest/out"
ok "the back-end ends at SIGTERM" stop vsock
stop echo
stop messages
done_testing
