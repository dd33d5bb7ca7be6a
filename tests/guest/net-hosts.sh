#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What a Linux guest's network card is connected to, with the programs that others wrote at the other end: names and datagrams through
# the network in user space, and what it keeps from a restricted guest; tcpdump reads the capture; passt that ends and comes
# back; QEMU's stream and dgram ends; an interface of the host that goes down, and a guest without offloads on its wire.
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
requires ip busybox socat iperf3 passt tcpdump qemu-system-x86_64
ip link set lo up

mkdir "$tmp/www"
head -c 3000000 /dev/urandom >"$tmp/www/file"
spawn httpd busybox httpd -f -p 127.0.0.1:8080 -h "$tmp/www"

# A name server for the host that knows one address for all names.
cat >"$tmp/dns" <<'S'
#!/bin/busybox sh
cat >"$0.$$"
{
	head -c 2 "$0.$$"
	printf '\201\200\0\1\0\1\0\0\0\0'
	tail -c +13 "$0.$$"
	printf '\300\014\0\1\0\1\0\0\0\074\0\4\012\010\007\006'
} >"$0.$$.answer"
cat "$0.$$.answer" # one datagram
S
chmod +x "$tmp/dns"
echo "nameserver 127.0.0.1" >"$tmp/resolv.conf"
mount --bind "$tmp/resolv.conf" /etc/resolv.conf
spawn dns socat UDP-RECVFROM:53,bind=127.0.0.1,fork "EXEC:$tmp/dns"

# The beginning of every script: an address by DHCP, and downloads that are the file.
sum=$(sha256sum <"$tmp/www/file" | cut -d ' ' -f 1)
cat >"$tmp/common" <<GUEST
cat >/tmp/dhcp <<'S'
[ "\$1" = bound ] || exit 0
ip addr add \$ip/24 dev \$interface
[ -z "\$router" ] || ip route add default via \$router
S
chmod +x /tmp/dhcp
ip link set eth0 up
dhcp()
{
	udhcpc -i eth0 -f -n -q -t 5 -s /tmp/dhcp
}
download()
{
	rm -f /tmp/file
	timeout 60 wget -q -O /tmp/file "\$1" && [ "\$(sha /tmp/file)" = $sum ]
}
carrier()
{
	[ "\$(cat /sys/class/net/eth0/carrier)" = "\$1" ]
}
GUEST

# guest NAME <SCRIPT: starts a guest on $socket
guest()
{
	uml_start "$1" 60 virtio_uml.device="$socket:1" < <(cat "$tmp/common" -)
}

# connects: does the guest answer at the forwarded port?
connects()
{
	[ "$(socat -u TCP:127.0.0.1:2002 -)" = "got you" ]
}

# ---- the network in user space ----

backend user net --forward=udp:2001:5201 --forward=tcp:2001:5201 --forward=tcp:2002:3002 --pcap="$tmp/user.pcap"
guest user-guest <<'GUEST'
check "an address by DHCP" dhcp
check "an address by its name" eval "nslookup -type=a some.host.test 10.0.2.3 | grep -q 'Address: 10.8.7.6'"
check "a download" download http://10.0.2.2:8080/file
iperf3 -s --forceflush >/tmp/iperf &
nc -l -p 3002 -e echo "got you" &
check "it listens" await 10 grep -q listening /tmp/iperf
touch /host/listens
check "the host has talked to it" await 20 test -e /host/talked
GUEST
ok "the guest listens" await 60 test -e "$tmp/user-guest/listens"
ok "datagrams to the guest" iperf3 -c 127.0.0.1 -p 2001 -u -b 20M -n 2M -l 1400
ok "and from it" iperf3 -c 127.0.0.1 -p 2001 -u -b 20M -n 2M -l 1400 -R
ok "a connection to the guest" await 10 connects
touch "$tmp/user-guest/talked"
guest_wait user-guest
ok "the back-end ends at SIGTERM" stop user

# dumped FILTER: how many frames of the capture are like this
dumped()
{
	tcpdump -Z root -nr - "$1" <"$tmp/user.pcap" 2>"$tmp/tcpdump.log" | wc -l
}
ok "tcpdump reads the capture to its end" tcpdump -Z root -nr - -w "$tmp/copy.pcap" <"$tmp/user.pcap"
is "and says nothing of a cut" "$(tcpdump -Z root -nr - <"$tmp/user.pcap" 2>&1 >/dev/null | grep -ci 'truncated\|bogus\|bad')" 0
is "its copy has as many frames" "$(tcpdump -Z root -nr - <"$tmp/copy.pcap" 2>/dev/null | wc -l)" "$(dumped '')"
ok "the address' four messages" test "$(dumped 'udp port 67 or udp port 68')" -ge 4
ok "the name's question and answer" test "$(dumped 'udp port 53')" -ge 2
ok "the download" test "$(dumped 'tcp src port 8080')" -gt 2000

backend restricted net --restrict --forward=tcp:2002:3002
guest restricted-guest <<'GUEST'
check "an address by DHCP" dhcp
ip route add default via 10.0.2.2
refuse "no download" timeout 2 wget -q -O /tmp/file http://10.0.2.2:8080/file
nc -l -p 3002 -e echo "got you" &
touch /host/listens
check "the host has talked to it" await 20 test -e /host/talked
GUEST
ok "the guest listens" await 60 test -e "$tmp/restricted-guest/listens"
ok "a connection to the guest" await 10 connects
touch "$tmp/restricted-guest/talked"
guest_wait restricted-guest
ok "the back-end ends at SIGTERM" stop restricted

# ---- QEMU's ends, to its own network in user space ----

# qemu_peer NAME NETDEV: QEMU without a machine
qemu_peer()
{
	spawn "$1" qemu-system-x86_64 -M none -nodefaults -display none -monitor none \
		-netdev user,id=user -netdev hubport,id=one,hubid=0,netdev=user \
		-netdev "$2" -netdev hubport,id=two,hubid=0,netdev=peer
}

qemu_peer qemu-stream "stream,id=peer,server=on,addr.type=unix,addr.path=$tmp/stream"
ok "QEMU listens" await 20 listening "$tmp/stream"
backend stream net --stream="$tmp/stream"
guest stream-guest <<'GUEST'
check "an address by DHCP" dhcp
check "a download" download http://10.0.2.2:8080/file
GUEST
qemu_peer qemu-dgram "dgram,id=peer,local.type=unix,local.path=$tmp/dgram,remote.type=unix,remote.path=$tmp/dgram-local"
ok "QEMU is there" await 20 test -S "$tmp/dgram"
backend dgram net --dgram="$tmp/dgram" --dgram-local="$tmp/dgram-local"
guest dgram-guest <<'GUEST'
check "an address by DHCP" dhcp
check "a download" download http://10.0.2.2:8080/file
GUEST
guest_wait stream-guest
guest_wait dgram-guest
ok "the stream's back-end ends at SIGTERM" stop stream
ok "the datagrams' back-end ends at SIGTERM" stop dgram
stop qemu-stream
stop qemu-dgram

# ---- passt that comes back, and the wire of an interface that goes down ----

ip link add wire0 type veth peer name wire1
ip addr add 10.9.0.2/24 dev wire1
ip link set wire0 up
ip link set wire1 up
ip route add default via 10.9.0.1
chmod 755 "$tmp"
mkdir -m 777 "$tmp/passt" # it gives up being root

passt_start()
{
	rm -f "$tmp/passt/socket"
	spawn passt passt -f --ipv4-only -s "$tmp/passt/socket"
	await 10 test -S "$tmp/passt/socket"
}
ok "passt listens" passt_start
backend passt-peer net --stream="$tmp/passt/socket"
guest passt-guest <<'GUEST'
check "an address by DHCP" dhcp
check "a download" download http://10.9.0.1:8080/file
touch /host/works
check "passt ends, and the link is down" await 20 carrier 0
touch /host/down
check "passt is back, and the link" await 20 carrier 1
check "a download" await 10 download http://10.9.0.1:8080/file
GUEST
backend wire net --packet=wire0 --offload=off
spawn wwwire busybox httpd -f -p 10.9.0.2:81 -h "$tmp/www"
guest wire-guest <<'GUEST'
ip addr add 10.9.0.3/24 dev eth0
check "a download without offloads" download http://10.9.0.2:81/file
touch /host/works
check "the interface goes down, and the link" await 20 carrier 0
touch /host/down
check "it comes up, and the link" await 20 carrier 1
check "a download" await 10 download http://10.9.0.2:81/file
GUEST
ok "the guest of passt works" await 60 test -e "$tmp/passt-guest/works"
stop passt
ok "it has no link" await 20 test -e "$tmp/passt-guest/down"
ok "passt listens again" passt_start
ok "the guest on the wire works" await 60 test -e "$tmp/wire-guest/works"
ip link set wire1 down
ok "it has no link" await 20 test -e "$tmp/wire-guest/down"
ip link set wire1 up
guest_wait passt-guest
guest_wait wire-guest
ok "passt's back-end ends at SIGTERM" stop passt-peer
ok "the wire's back-end ends at SIGTERM" stop wire
done_testing
