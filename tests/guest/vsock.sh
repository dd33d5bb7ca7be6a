#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Linux guests on our sockets: bytes and messages go both ways, between guest and
# host and between two guests, a thousand connections at a time; a reader that
# stalls holds up nobody; each side may close first; a guest that reboots leaves
# nothing behind.

limit=240
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
io=$(realpath "${builddir_abs:-.}/tests/guest/vsockio")
[ -x "$io" ] || lacking "no $io"

# host NAME ARGUMENT...: a server of the host
host()
{
	local name=$1
	shift
	spawn "$name" "$io" "$@"
	await 10 grep -qs listening "$tmp/$name.log" || result 1 "$name listens"
}

mkdir "$tmp/group"
backend one vsock --guest-cid=33 --uds-path="$tmp/v" --group="$tmp/group" --control-path="$tmp/ctl"
one=$socket
backend two vsock --guest-cid=44 --uds-path="$tmp/w" --group="$tmp/group"
two=$socket

host echo serve "unix:$tmp/v_1000"
host echo-messages serve "seq:unix:$tmp/v_1001"
host hello hello "unix:$tmp/v_1002"
host hold hold "unix:$tmp/v_1003" "$tmp/go"

uml_start other 150 virtio_uml.device="$two:19" <<'GUEST'
vsockio serve vsock:4294967295:7 >/tmp/log &
vsockio serve seq:vsock:4294967295:8 >/tmp/log2 &
check "it listens" await 20 eval "grep -qs listening /tmp/log && grep -qs listening /tmp/log2"
touch /host/listens
check "it is told to end" await 140 test -e /host/end
GUEST
guest_memory=192M # for a server of 1000 connections
uml_start guest 150 virtio_uml.device="$one:19" <<'GUEST'
check "1 GiB there and back" vsockio bulk vsock:2:1000 1024
check "1000 connections at a time" vsockio many vsock:2:1000 1000
check "messages" vsockio messages seq:vsock:2:1001
check "the host closes first" vsockio greeted vsock:2:1002
check "nobody there" vsockio refused vsock:2:4444
check "no such guest" vsockio refused vsock:99:7
check "the wrong type" vsockio refused seq:vsock:2:1000
check "a reader that stalls" vsockio fill vsock:2:1003
check "others flow" vsockio bulk vsock:2:1000 4
touch /host/filled
vsockio serve vsock:4294967295:7 >/tmp/log &
vsockio hello vsock:4294967295:9 >/tmp/log2 &
check "it listens" await 20 eval "grep -qs listening /tmp/log && grep -qs listening /tmp/log2"
touch /host/listens
check "the other guest" await 60 test -e /host/other
check "16 MiB to the other guest and back" vsockio bulk vsock:44:7 16
check "messages to the other guest" vsockio messages seq:vsock:44:8
check "nobody there" vsockio refused vsock:44:5555
check "it is told to end" await 60 test -e /host/end
vsockio idle vsock:2:1000 >/tmp/idle 2>&1 &
check "a connection that nobody closes" await 20 grep -qs connected /tmp/idle
touch /host/idle
check "it is told to reconnect" await 60 test -e /host/again
uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.0 >$uml/unbind"
check "the guest's program sees the end" await 20 grep -qsE "closed|reset" /tmp/idle
check "and connects again" eval "echo virtio-uml.0 >$uml/bind"
check "4 MiB there and back" vsockio bulk vsock:2:1000 4
GUEST

ok "the guest fills a connection" await 60 test -e "$tmp/guest/filled"
touch "$tmp/go"
reap hold 30
filled=$(sed -n 's/.*filled //p' "$tmp/guest/out")
is "all of it reaches the reader, after the guest has closed" "$(sed -n 's/^held //p' "$tmp/hold.log")" "$filled"
ok "that was more than one buffer" test "${filled:-0}" -gt 262144
ok "the guest listens" await 60 test -e "$tmp/guest/listens"
ok "16 MiB from the host and back" "$io" bulk "hybrid:$tmp/v:7" 16
ok "1000 connections from the host" "$io" many "hybrid:$tmp/v:7" 1000
ok "the guest closes first" "$io" greeted "hybrid:$tmp/v:9"
ok "nobody there in the guest" "$io" refused "hybrid:$tmp/v:10"
ok "the other guest listens" await 60 test -e "$tmp/other/listens"
touch "$tmp/guest/other"
touch "$tmp/guest/end"
ok "the guest has a connection open" await 60 test -e "$tmp/guest/idle"
spawn idle "$io" idle "hybrid:$tmp/v:7"
ok "the host, too" await 20 grep -qs connected "$tmp/idle.log"
touch "$tmp/guest/again"
ok "the host's program sees the end" reap idle 30
guest_wait guest
touch "$tmp/other/end"
guest_wait other
none()
{
	"$vum" ctl "$tmp/ctl" query-connections | tr -d ' \n' | grep -q '"count":0[,}]'
}
ok "no connection is left" await 20 none
ok "the first back-end ends at SIGTERM" stop one
ok "the second back-end ends at SIGTERM" stop two
is "no socket is left" "$(find "$tmp/group" -type s)" ""
stop echo
stop echo-messages
stop hello
done_testing
