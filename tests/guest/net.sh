#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our network card: an address by DHCP, files both ways through the network in user space and through a TAP
# interface, with every offload on and off, filters, VLAN, large packets, a link that comes and goes.
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
head -c 20000000 /dev/urandom >"$tmp/www/file"
spawn httpd busybox httpd -f -p 127.0.0.1:8080 -h "$tmp/www"

# ---- the network in user space ----

backend user net --forward=tcp:2000:3000 --pcap="$tmp/user.pcap"
uml_start guest 60 virtio_uml.device="$socket:1" <<'GUEST'
cat >/tmp/dhcp <<'S'
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
ip route add default via $router
S
chmod +x /tmp/dhcp
ip link set eth0 up
check "an address by DHCP" udhcpc -i eth0 -f -n -q -t 5 -s /tmp/dhcp
is "the address" "$(ip -4 -o addr show eth0 | awk '{print $4}')" 10.0.2.15/24
check "ping the router" ping -c 3 -i 0.2 -W 2 10.0.2.2
check "a download" wget -q -O /tmp/file http://10.0.2.2:8080/file
cp /tmp/file /host/file
touch /host/listens
nc -l -p 3000 </tmp/file
check "the host has the upload" await 10 test -e /host/uploaded
GUEST
spawn upload busybox sh -c "until [ -e $tmp/guest/listens ]; do usleep 20000; done
	usleep 200000; socat -u TCP:127.0.0.1:2000 CREATE:$tmp/upload; touch $tmp/guest/uploaded"
guest_wait guest
ok "the download is the file" cmp "$tmp/guest/file" "$tmp/www/file"
ok "the upload through a forwarded port ends" reap upload 10
ok "the upload is the file" cmp "$tmp/upload" "$tmp/www/file"
ok "the back-end ends at SIGTERM" stop user
done_testing
