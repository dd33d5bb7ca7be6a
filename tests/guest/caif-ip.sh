#!/bin/bash
# SPDX-License-Identifier: MIT
#
# IP packets of a Linux guest over CAIF links: its network interface of that kind, a network in user space and a TUN interface.
#
# All of it happens in a network namespace of its own: nothing can get out.

limit=120
if [ -z "${in_namespace-}" ]; then
	options=(--net --mount)
	[ "$(id -u)" = 0 ] || options+=(--map-root-user)
	in_namespace=1 exec unshare "${options[@]}" -- bash "$0" "$@"
fi
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires ip busybox socat
ip link set lo up

mkdir "$tmp/www"
head -c 5000000 /dev/urandom >"$tmp/www/file"
spawn httpd busybox httpd -f -p 127.0.0.1:8080 -h "$tmp/www"

backend caif caif --channel=pdp:1,user,forward=tcp:2000:3000 --channel=pdp:2,tun=vmtun
ip addr add 10.8.0.1 peer 10.8.0.2 dev vmtun
ip link set vmtun up
spawn www busybox httpd -f -p 10.8.0.1:80 -h "$tmp/www"
uml_start guest 90 virtio_uml.device="$socket:12" <<'GUEST'
ip link set cfvrt up
check "the link layer is up" await 10 grep -q up /sys/class/net/cfvrt/operstate

check "an interface" caifnet pdp1 1
ip addr add 10.0.2.15/24 dev pdp1
check "its link" ip link set pdp1 up
check "ping the router" ping -q -c 3 -i 0.2 -W 20 10.0.2.2
check "a download" wget -q -O /tmp/file http://10.0.2.2:8080/file
cp /tmp/file /host/user
nc -l -p 3000 </tmp/file &
check "it listens" await 10 eval "cat /proc/net/tcp* | grep -q ':0BB8 '"
touch /host/listens
check "the host has the upload" await 20 test -e /host/next

check "an interface on TUN" caifnet pdp2 2
ip addr add 10.8.0.2 peer 10.8.0.1 dev pdp2
check "its link" ip link set pdp2 up
check "ping" ping -q -c 3 -i 0.2 -W 20 10.8.0.1
check "ping with 1400 bytes" ping -q -c 3 -i 0.2 -W 20 -s 1400 10.8.0.1
check "a download from TUN" wget -q -O /host/tun http://10.8.0.1/file
touch /host/answers
check "the host is answered" await 20 test -e /host/answered
refuse "one link at a time has a channel" eval "caifnet pdp3 2 && ip link set pdp3 up"
check "the interface goes" ip link set pdp2 down
touch /host/down
check "the host saw it come back" await 20 test -e /host/again
check "the interface comes back" ip link set pdp2 up
check "ping after that" await 10 ping -q -c 3 -i 0.2 -W 2 10.8.0.1
GUEST
dir=$tmp/guest
ok "the guest listens" await 60 test -e "$dir/listens"
ok "a forwarded port" socat -u TCP:127.0.0.1:2000 "CREATE:$tmp/upload"
touch "$dir/next"
ok "the guest answers" await 60 test -e "$dir/answers"
ok "ping the guest" busybox ping -q -c 3 -W 20 10.8.0.2
touch "$dir/answered"
ok "the guest has no link" await 60 test -e "$dir/down"
ip link del vmtun
ip tuntap add vmtun mode tun
ip addr add 10.8.0.1 peer 10.8.0.2 dev vmtun
ip link set vmtun up
ok "the interface is taken again" await 10 eval "ip link show vmtun | grep -q LOWER_UP"
touch "$dir/again"
guest_wait guest
for file in "$dir/user" "$dir/tun" "$tmp/upload"; do
	ok "$(basename "$file") has the bytes" cmp "$file" "$tmp/www/file"
done
ok "the back-end ends at SIGTERM" stop caif

done_testing
