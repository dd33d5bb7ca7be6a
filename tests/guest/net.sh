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
requires ip busybox socat iperf3 passt
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
check "ping the router" ping -c 3 -i 0.2 -W 20 10.0.2.2
check "a download" wget -q -O /tmp/file http://10.0.2.2:8080/file
cp /tmp/file /host/file
nc -l -p 3000 </tmp/file &
check "it listens" await 10 eval "cat /proc/net/tcp* | grep -q ':0BB8 '"
touch /host/listens
wait
check "the host has the upload" await 10 test -e /host/uploaded
GUEST
spawn upload busybox sh -c "until [ -e $tmp/guest/listens ]; do usleep 20000; done
	socat -u TCP:127.0.0.1:2000 CREATE:$tmp/upload; touch $tmp/guest/uploaded"
guest_wait guest
ok "the download is the file" cmp "$tmp/guest/file" "$tmp/www/file"
ok "the upload through a forwarded port ends" reap upload 10
ok "the upload is the file" cmp "$tmp/upload" "$tmp/www/file"
ok "the back-end ends at SIGTERM" stop user
ok "the capture has all of it" test "$(stat -c %s "$tmp/user.pcap")" -gt 40000000

# ---- a TAP interface ----

backend tap net --tap=vmtap --mtu=9000 --speed=1000
ip addr add 10.1.0.1/24 dev vmtap
ip link set vmtap mtu 9000 up
spawn www busybox httpd -f -p 10.1.0.1:80 -h "$tmp/www"
spawn iperf iperf3 -s
uml_start guest-tap 60 virtio_uml.device="$socket:1" <<'GUEST'
ip addr add 10.1.0.2/24 dev eth0
ip link set eth0 up
is "the largest packet" "$(cat /sys/class/net/eth0/mtu)" 9000
is "the speed" "$(cat /sys/class/net/eth0/speed)" 1000
check "ping" ping -q -c 3 -i 0.1 -W 20 10.1.0.1
check "ping with 8900 bytes" ping -q -c 3 -i 0.1 -W 20 -s 8900 10.1.0.1
download()
{
	wget -q -O /tmp/file http://10.1.0.1/file && sha256sum /tmp/file >>/host/sums
}
rate()
{
	iperf3 -c 10.1.0.1 -f m "$@" | awk '/receiver/ { print "iperf3", $(NF - 2), $(NF - 1); ok = 1 } END { exit !ok }'
}
check "a download" download
check "iperf3 to the host" rate -t 1
check "iperf3 from the host" rate -t 1 -R
for off in "tx off" "tx on tso off" "tso on gso off" "gso on sg off" "sg on gro off" "gro on"; do
	check "ethtool -K eth0 $off" ethtool -K eth0 $off
	check "a download" download
	check "an upload" rate -n 4M
	check "reception" rate -n 4M -R
done
check "ethtool -K eth0 rx-gro-hw off" ethtool -K eth0 rx-gro-hw off
check "a download without large segments" download
check "ethtool -K eth0 rx-gro-hw on" ethtool -K eth0 rx-gro-hw on
ip link set eth0 mtu 1500
check "small packets: a download" download
check "small packets: iperf3" rate -t 1
ip link set eth0 promisc on
ip link set eth0 promisc off
check "ping after promiscuity" ping -q -c 3 -i 0.1 -W 20 10.1.0.1
ip link set eth0 address 52:54:00:00:00:77
check "ping with another address" ping -q -c 3 -i 0.1 -W 20 10.1.0.1
touch /host/works
carrier()
{
	[ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]
}
check "the interface goes, the link with it" await 10 carrier 0
touch /host/down
check "the interface comes back, the link too" await 10 carrier 1
check "ping" ping -q -c 3 -i 0.1 -W 20 10.1.0.1
GUEST
ok "the guest works" await 60 test -e "$tmp/guest-tap/works"
ip link del vmtap
ok "the guest has no link" await 20 test -e "$tmp/guest-tap/down"
ip tuntap add vmtap mode tap vnet_hdr
ip addr add 10.1.0.1/24 dev vmtap
ip link set vmtap up
guest_wait guest-tap
is "all downloads were the same" "$(cut -d ' ' -f 1 "$tmp/guest-tap/sums" | sort | uniq -c | xargs)" \
	"9 $(sha256sum <"$tmp/www/file" | cut -d ' ' -f 1)"
ok "the back-end ends at SIGTERM" stop tap

# ---- several queues, and what a driver says on the control queue ----

ip link del vmtap
backend queues net --tap=mqtap --queues=2 --threads=0 --control-path="$tmp/queues.ctl"
ip addr add 10.1.0.1/24 dev mqtap
ip link set mqtap up
uml_start guest-queues 60 virtio_uml.device="$socket:1" <<'GUEST'
ip addr add 10.1.0.2/24 dev eth0
ip link set eth0 up
download()
{
	wget -q -O /tmp/file http://10.1.0.1/file && sha256sum /tmp/file >>/host/sums
}
received()
{
	ethtool -S eth0 | sed -n "s/^ *rx_queue_$1_packets: //p"
}
check "two queue pairs" ethtool -L eth0 combined 2
check "a download" download
# TCP over IPv4 by the table, all of whose entries are the second queue, or the first
for queue in 1 0; do
	check "the table: queue $queue" ethtool -X eth0 weight $((1 - queue)) $queue
	before=$(received $queue) other=$(received $((1 - queue)))
	check "a download" download
	check "it came by queue $queue" test $(($(received $queue) - before)) -gt 100
	check "nothing else" test $(($(received $((1 - queue))) - other)) -lt 20
done
check "a key" ethtool -X eth0 hkey $(for i in $(seq 40); do printf "%02x" $i; done | sed "s/../&:/g; s/:$//")
check "addresses and no ports" ethtool -N eth0 rx-flow-hash tcp4 sd
check "a download" download
check "coalescing" ethtool -C eth0 rx-usecs 500 rx-frames 16 tx-usecs 500 tx-frames 16
check "a download" download
check "iperf3 with it" iperf3 -c 10.1.0.1 -n 8M
check "without" ethtool -C eth0 rx-usecs 0 rx-frames 1 tx-usecs 0 tx-frames 1
check "one queue pair" ethtool -L eth0 combined 1
check "a download" download
touch /host/one
check "the host has looked" await 10 test -e /host/looked
GUEST
ok "the guest is through" await 60 test -e "$tmp/guest-queues/one"
like "one pair is in use" "$("$vum" ctl "$tmp/queues.ctl" query-net)" '"queue-pairs": *1,'
touch "$tmp/guest-queues/looked"
guest_wait guest-queues
is "all downloads were the same" "$(cut -d ' ' -f 1 "$tmp/guest-queues/sums" | sort | uniq -c | xargs)" \
	"6 $(sha256sum <"$tmp/www/file" | cut -d ' ' -f 1)"
ok "the back-end ends at SIGTERM" stop queues

# ---- three guests on the switch, two of them on one process ----

backend port1 net --switch="$tmp/switch" --mac=52:54:00:00:00:01 --socket-path="$tmp/third.sock"
first=$socket
backend port2 net --switch="$tmp/switch" --mac=52:54:00:00:00:07 --offload=off
uml_start server 60 virtio_uml.device="$first:1" <<'GUEST'
ip addr add 10.2.0.1/24 dev eth0
ip link set eth0 up
ip link add link eth0 name eth0.5 type vlan id 5
ip addr add 10.5.0.1/24 dev eth0.5
ip link set eth0.5 up
iperf3 -s -1 -D -p 5202
iperf3 -s -1
head -c 5000000 /dev/urandom >/tmp/file
sha256sum /tmp/file >/host/sum
httpd -p 80 -h /tmp
touch /host/serves
check "the other one is done" await 50 test -e /host/done
GUEST
uml_start third 60 virtio_uml.device="$tmp/third.sock:1" <<'GUEST'
ip addr add 10.2.0.3/24 dev eth0
ip link set eth0 up
is "the second address of the process" "$(cat /sys/class/net/eth0/address)" 52:54:00:00:00:02
check "the other guest" await 20 ping -q -c 1 -W 1 10.2.0.1
check "iperf3 to it" await 10 iperf3 -c 10.2.0.1 -p 5202 -t 1
check "a download" await 30 wget -q -O /tmp/file http://10.2.0.1/file
sha256sum /tmp/file >/host/sum
check "the guest of the other process" await 20 ping -q -c 1 -W 1 10.2.0.2
touch /host/met
check "they are done" await 50 test -e /host/done
GUEST
uml_start client 60 virtio_uml.device="$socket:1" <<'GUEST'
ip addr add 10.2.0.2/24 dev eth0
ip link set eth0 up
ip link add link eth0 name eth0.5 type vlan id 5
ip addr add 10.5.0.2/24 dev eth0.5
ip link set eth0.5 up
check "the other guest" await 20 ping -q -c 1 -W 1 10.2.0.1
check "iperf3 to it" await 10 iperf3 -c 10.2.0.1 -t 1
check "a download" await 10 wget -q -O /tmp/file http://10.2.0.1/file
sha256sum /tmp/file >/host/sum
check "ping in a VLAN" ping -q -c 3 -i 0.1 -W 20 10.5.0.1
check "the third one is done" await 50 test -e /host/done
GUEST
ok "the third guest met the others" await 60 test -e "$tmp/third/met"
touch "$tmp/client/done" "$tmp/third/done"
guest_wait client
guest_wait third
touch "$tmp/server/done"
guest_wait server
ok "the file is the same" cmp "$tmp/server/sum" "$tmp/client/sum"
ok "and in the third guest" cmp "$tmp/server/sum" "$tmp/third/sum"
ok "the first port ends at SIGTERM" stop port1
ok "the second port ends at SIGTERM" stop port2

# ---- the wire of an interface, and passt on another ----

ip link add wire0 type veth peer name wire1
ip addr add 10.9.0.2/24 dev wire1
ip link set wire0 up
ip link set wire1 up
ip route add default via 10.9.0.1
chmod 755 "$tmp"
mkdir -m 777 "$tmp/passt" # it gives up being root
spawn passt passt -f --ipv4-only -s "$tmp/passt/socket"
ok "passt listens" await 10 test -S "$tmp/passt/socket"
backend stream net --stream="$tmp/passt/socket"
stream=$socket
backend wire net --packet=wire0
spawn wwwire busybox httpd -f -p 10.9.0.2:81 -h "$tmp/www"
uml_start guest-stream 60 virtio_uml.device="$stream:1" <<'GUEST'
cat >/tmp/dhcp <<'S'
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
S
chmod +x /tmp/dhcp
ip link set eth0 up
check "an address by passt's DHCP" udhcpc -i eth0 -f -n -q -t 5 -s /tmp/dhcp
check "a download through passt" wget -q -O /host/file http://10.9.0.1:8080/file
GUEST
uml_start guest-wire 60 virtio_uml.device="$socket:1" <<'GUEST'
ip addr add 10.9.0.3/24 dev eth0
ip link set eth0 up
check "ping" ping -q -c 3 -i 0.1 -W 20 10.9.0.2
check "a download through a packet socket" wget -q -O /host/file http://10.9.0.2:81/file
GUEST
guest_wait guest-stream
guest_wait guest-wire
ok "the download is the file" cmp "$tmp/guest-stream/file" "$tmp/www/file"
ok "this one too" cmp "$tmp/guest-wire/file" "$tmp/www/file"
ok "the stream's back-end ends at SIGTERM" stop stream
ok "the wire's back-end ends at SIGTERM" stop wire
done_testing
