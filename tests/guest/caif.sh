#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest and the CAIF modem: AF_CAIF sockets to loops and to programs of the host, links that are refused, programs that are
# killed, the driver let go and bound again, the modem started again, other sizes of frames.

limit=150
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
io=$(realpath "${builddir_abs:-.}/tests/guest/portio")
[ -x "$io" ] || lacking "no $io"
requires socat
dir=$tmp/guest
messages=${CAIF_MESSAGES:-20000}

# What an AT modem says to a dialler
cat >"$tmp/dialler" <<'SH'
IFS= read -r line
[ "${line%?}" = ATI ] && printf 'modem\r\nOK\r\n'
SH

start_modem()
{
	backend "$1" caif --control-path="$tmp/ctl" "${@:2}" \
		--channel="at,host=unix:$tmp/at,server" --channel="datagram:7,host=unix:$tmp/dgram" \
		--channel="debug,host=unix:$tmp/debug,server" --channel="utility:psock,host=unix:$tmp/util,server" \
		--channel=datagram:8,loop
}

start_modem caif
spawn dgram socat "UNIX-LISTEN:$tmp/dgram,type=5,fork" EXEC:cat,socktype=5
spawn debug "$io" echo "unix:$tmp/debug"
spawn util "$io" echo "unix:$tmp/util"
spawn at socat "UNIX-CONNECT:$tmp/at" "EXEC:sh $tmp/dialler"
uml_start guest 100 virtio_uml.device="$socket:12" <<'GUEST'
# The kernel takes frames when it has seen the carrier, and asks for a link once only.
up()
{
	ip link set cfvrt up && await 10 grep -q up /sys/class/net/cfvrt/operstate
}

is "the driver" "$(basename "$(readlink /sys/bus/virtio/devices/virtio0/driver)")" caif_virtio
is "the longest frame" "$(cat /sys/class/net/cfvrt/mtu)" 4092
check "the link layer is up" up
check "how many" await 10 test -s /host/messages
check "datagrams come back from the modem" portio messages "$(cat /host/messages)" caif:loop:5
check "from a loop of ours" portio messages 2000 caif:datagram:8
check "from a program" portio messages 5000 caif:datagram:7
is "AT commands" "$(portio ask ATI caif:at | tr -d '\r' | xargs)" "modem OK"
check "lines of bytes, with flow control" portio both 1 1 2000000 caif:util:psock
check "the debug service" portio both 2 2 200000 caif:debug
refuse "a datagram channel that is not there" portio send 1 8 caif:datagram:99
refuse "a utility that is not there" portio send 1 8 caif:util:other
refuse "remote files" portio send 1 8 caif:rfm:1:disk
GUEST
echo "$messages" >"$dir/messages"
guest_wait guest
ok "the back-end ends at SIGTERM" stop caif

done_testing
