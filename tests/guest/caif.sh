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
		--channel="debug,host=unix:$tmp/debug,server" --channel="utility:psock,hangup,host=unix:$tmp/util,server" \
		--channel=datagram:8,loop --channel="rfm:disk,host=unix:$tmp/rfm,server"
}

start_modem caif
spawn dgram socat "UNIX-LISTEN:$tmp/dgram,type=5,fork" EXEC:cat,socktype=5
spawn debug "$io" echo "unix:$tmp/debug"
spawn util "$io" echo "unix:$tmp/util"
spawn rfm "$io" echo "unix:$tmp/rfm"
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
refuse "remote files of another volume" portio send 1 8 caif:rfm:1:other
check "remote files, in segments" portio both 6 6 300000 caif:rfm:1:disk

# ---- programs that are killed ----

for round in 1 2; do
	touch /host/flows$round # the shell may get no time while the bytes flow
	portio both 3 3 10000000000 caif:util:psock 2>/tmp/log
	is "the link is shut down $round" $? 1
	check "and says so $round" grep -q -e reset -e Broken /tmp/log
	check "the next program $round" await 20 test -e /host/next$round
	check "bytes both ways $round" portio both $((3 + round)) $((3 + round)) 300000 caif:util:psock
done
portio send 9 300000 caif:at &
check "the guest is done" await 20 test -e /host/dialled
wait $!
is "what was said to nobody is sent" $? 0

# ---- the driver goes and comes ----

caif=/sys/bus/virtio/drivers/caif_virtio
uml=/sys/bus/platform/drivers/virtio-uml
for round in 1 2; do
	check "unbind $round" eval "echo virtio0 >$caif/unbind"
	refuse "no link layer $round" portio send 1 8 caif:loop:5 2>/dev/null
	check "bind $round" eval "echo virtio0 >$caif/bind"
	check "the link layer is up $round" up
	check "datagrams $round" portio messages 500 caif:loop:5
	check "bytes both ways, again $round" portio both $round $round 300000 caif:util:psock
done

# ---- the modem is started again, with other sizes ----

for round in 1 2; do
	check "the front-end disconnects $round" eval "echo virtio-uml.0 >$uml/unbind"
	touch /host/unbound$round
	check "the modem is started again $round" await 20 test -e /host/again$round
	check "the front-end connects again $round" eval "echo virtio-uml.0 >$uml/bind"
	is "the longest frame $round" "$(cat /sys/class/net/cfvrt/mtu)" $((round * 2000 - 32))
	check "the link layer is up, again $round" up
	check "datagrams, again $round" portio messages 2000 caif:loop:5
	check "bytes after that $round" portio both 1 1 300000 caif:at
done
GUEST
echo "$messages" >"$dir/messages"

linked()
{
	"$vum" ctl "$tmp/ctl" channels | tr -d ' \n' | grep -q "\"service\":\"$1\"[^}]*\"link\":"
}

received()
{
	"$vum" ctl "$tmp/ctl" channels | tr -d ' \n' | sed "s/.*\"service\":\"utility\"[^}]*\"received\":\([0-9]*\).*/\1/"
}

flows()
{
	[ "$(received)" -gt $((before + 100000)) ]
}

for round in 1 2; do
	ok "the guest begins" await 60 test -e "$dir/flows$round"
	before=$(received)
	ok "bytes flow" await 20 flows
	stop util KILL
	ok "the link ends" await 20 eval '! linked utility'
	spawn util "$io" echo "unix:$tmp/util"
	touch "$dir/next$round"
done
spawn at "$io" expect 9 300000 "unix:$tmp/at"
ok "what was said to nobody is there" reap at 20
touch "$dir/dialled"
for round in 1 2; do
	ok "the guest lets go" await 60 test -e "$dir/unbound$round"
	ok "the back-end ends at SIGTERM" stop caif
	start_modem caif --mtu=$((round * 2000)) --tailroom=32
	spawn at "$io" echo "unix:$tmp/at"
	touch "$dir/again$round"
done
guest_wait guest
ok "the back-end ends at SIGTERM" stop caif

done_testing
