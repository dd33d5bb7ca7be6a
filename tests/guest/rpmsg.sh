#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our end of its rpmsg bus: a terminal, messages that come back by
# the hundred thousand, programs of the host, endpoints that the guest makes, and
# services that come and go.

limit=240
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
io=$(realpath "${builddir_abs:-.}/tests/guest/portio")
[ -x "$io" ] || lacking "no $io"
dir=$tmp/guest
messages=${RPMSG_MESSAGES:-100000}

ctl()
{
	"$vum" ctl "$tmp/ctl" "$@"
}

backend rpmsg rpmsg --control-path="$tmp/ctl" \
	--service="name=rpmsg-tty,host=pty:link=$tmp/tty" \
	--service="name=rpmsg-raw,echo,addr=2000" \
	--service="name=elsewhere,host=unix:$tmp/messages,server,addr=3000"
exec 7<>"$tmp/tty"
spawn tty "$io" echo "$tmp/tty"
spawn echo "$io" echo "seq:$tmp/messages"
uml_start guest 200 virtio_uml.device="$socket:7" <<'GUEST'
check "the terminal is there" await 10 test -e /dev/ttyRPMSG0
check "the terminal echoes" portio both 7 7 20000 /dev/ttyRPMSG0
check "how many" await 10 test -s /host/messages
check "the endpoint is there" await 10 test -e /dev/rpmsg0
check "messages come back" portio messages "$(cat /host/messages)" /dev/rpmsg0

check "make an endpoint" portio channel /dev/rpmsg_ctrl0 mine 0xffffffff 3000
check "it is there" await 10 test -e /dev/rpmsg1
check "messages through a host program" portio messages 5000 /dev/rpmsg1
check "unmake it" portio free /dev/rpmsg1
touch /host/echoed

bus=/sys/bus/rpmsg/devices
for round in 1 2 3; do
	check "a service appears" await 20 eval "cat $bus/*/name | grep -q late$round"
	touch /host/seen$round
	check "and vanishes" await 20 eval "! cat $bus/*/name | grep -q late$round"
	touch /host/gone$round
done

uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.0 >$uml/unbind"
touch /host/unbound
check "the back-end is started again" await 30 test -e /host/again
check "the front-end connects again" eval "echo virtio-uml.0 >$uml/bind"
check "the endpoint is there" await 10 test -e /dev/rpmsg0
check "messages after that" portio messages 2000 /dev/rpmsg0
GUEST
echo "$messages" >"$dir/messages"
ok "all messages came back" await 150 test -e "$dir/echoed"
for round in 1 2 3; do
	await 60 test -e "$dir/gone$((round - 1))" -o $round = 1
	ok "announce service $round" ctl service-add "service=name=late$round,echo"
	ok "the guest sees it" await 60 test -e "$dir/seen$round"
	ok "take it back" ctl service-remove "name=late$round"
done
ok "the guest lets go" await 60 test -e "$dir/unbound"
ok "the back-end ends at SIGTERM" stop rpmsg
backend rpmsg rpmsg --service="name=rpmsg-raw,echo"
touch "$dir/again"
guest_wait guest
ok "the back-end ends at SIGTERM" stop rpmsg

done_testing
