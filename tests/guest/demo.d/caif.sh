# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

serve caif 12 --channel=datagram:7,loop --channel=pdp:1,user

in_guest <<'GUEST'
ip link set cfvrt up
await 10 grep -q up /sys/class/net/cfvrt/operstate
row "interface" "cfvrt"
portio messages 500 caif:loop:1 >/dev/null
confirm $? "500 datagrams"
portio messages 500 caif:datagram:7 >/dev/null
confirm $? "500 on a channel"
caifnet pdp 1
ip addr add 10.0.2.15 peer 10.0.2.2 dev pdp
ip link set pdp up && ping -q -c 2 -i 0.2 -W 20 10.0.2.2 >/dev/null
confirm $? "ping over IP"
ip link set pdp down
GUEST
