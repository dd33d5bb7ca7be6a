#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end on our network card: several queues, a back-end that is killed and started again with traffic, and live migration
# from one port of the switch to another while a third pings. In a network namespace of its own.

limit=240
if [ -z "${in_namespace-}" ]; then
	options=(--net --mount)
	[ "$(id -u)" = 0 ] || options+=(--map-root-user)
	in_namespace=1 exec unshare "${options[@]}" -- bash "$0" "$@"
fi
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires_uml
requires ip socat sha256sum tcpdump
ip link set lo up
mkdir "$tmp/www"
head -c 1000000 /dev/urandom >"$tmp/www/file"
sum=$(sha256sum <"$tmp/www/file" | cut -d ' ' -f 1)

# card SOCKET [QUEUES [PROPERTIES]]: the options for QEMU. Without MSI-X, because QEMU 7.2 dies of a null pointer when vhost-net starts with
# it under TCG.
card()
{
	card=(-chardev "socket,id=c,path=$1,reconnect=1" -netdev "vhost-user,id=n,chardev=c,queues=${2:-1}"
		-device "virtio-net-pci,netdev=n,vectors=0,mac=52:54:00:00:00:10${3-}")
}

# ---- several queues on a TAP interface, and kill -9 ----

backend tap net --tap=vmtap --queues=2 --mtu=9000
ip addr add 10.1.0.1/24 dev vmtap
ip link set vmtap up
spawn www socat -U TCP-LISTEN:5000,fork,reuseaddr "OPEN:$tmp/www/file,rdonly"
guest_cpus=2
card "$socket" 2 ,mq=on,host_mtu=1400
qemu_start guest 100 "${card[@]}" <<'GUEST'
modprobe virtio_net
is "two queue pairs" "$(echo /sys/class/net/eth0/queues/*)" "/sys/class/net/eth0/queues/rx-0 /sys/class/net/eth0/queues/rx-1 /sys/class/net/eth0/queues/tx-0 /sys/class/net/eth0/queues/tx-1"
is "the front-end's MTU" "$(cat /sys/class/net/eth0/mtu)" 1400
ip addr add 10.1.0.2/24 dev eth0
ip link set eth0 up
ethtool -l eth0 | tail -n 2
check "ping" ping -q -c 3 -i 0.2 -W 20 10.1.0.1
check "ping in large packets" ping -q -c 3 -i 0.2 -W 20 -s 20000 10.1.0.1
mkfifo /tmp/hold
exec 9<>/tmp/hold # nc must not see an end of its input; then it sees none of its connection
# download NAME: the sum of what comes
download()
{
	: >/tmp/get.$1
	nc 10.1.0.1 5000 <&9 >/tmp/get.$1 2>/dev/null &
	await 10 eval "[ \$(stat -c %s /tmp/get.$1) = 1000000 ]"
	kill $! 2>/dev/null
	sha /tmp/get.$1
}
for i in 1 2 3; do
	download $i >/tmp/sum.$i &
	pids="$pids $!"
done
wait $pids
echo ready
read -r sum
is "three downloads at once" "$(cat /tmp/sum.? | xargs)" "$sum $sum $sum"
while ! read -r -t 0 word; do
	[ "$(download 4)" != "$sum" ] || echo "download"
done
check "ping after all of it" ping -q -c 3 -i 0.2 -W 20 10.1.0.1
GUEST
ok "the guest has a network" guest_await guest 60 '^ready$'
guest_tell guest "$sum"
downloads()
{
	grep -c '^download$' "$tmp/guest/out"
}
beyond()
{
	[ "$(downloads)" -gt "$1" ] || gone guest
}
for round in 1 2 3; do
	ok "downloads go on" await 30 beyond "$(downloads)"
	status=0
	stop tap KILL || status=$?
	is "killed, round $round" $status 137
	backend tap net --tap=vmtap --queues=2 --mtu=9000
	ip addr add 10.1.0.1/24 dev vmtap
	ip link set vmtap up
	before=$(downloads)
	ok "and come again" await 40 beyond "$((before + 1))"
done
guest_tell guest enough
guest_wait guest
ok "the back-end ends at SIGTERM" stop tap

# ---- live migration ----

guest_cpus=1
guest_memory=$((128 * 1024 + 8))K # see qemu-migrate.sh
backend from-port net --switch="$tmp/switch"
from=$socket
backend to-port net --switch="$tmp/switch"
to=$socket
backend third net --switch="$tmp/switch" --mac=52:54:00:00:00:30 --pcap="$tmp/third.pcap"
uml_start pinger 100 virtio_uml.device="$socket:1" <<'GUEST'
ip addr add 10.1.0.30/24 dev eth0
ip link set eth0 up
n=0
until [ -e /host/enough ]; do
	ping -q -c 1 -W 1 10.1.0.2 >/dev/null && n=$((n + 1)) && echo $n >/host/pings
	usleep 20000
done
GUEST
card "$from" 1 ,guest_announce=off # so that we are asked to say where the guest is
qemu_start from 100 "${card[@]}" <<'GUEST'
modprobe virtio_net
ip addr add 10.1.0.2/24 dev eth0
ip link set eth0 up
echo ready
read -r word
echo "told: $word"
check "ping the other way" ping -q -c 3 -i 0.2 -W 20 10.1.0.30
GUEST
ok "the guest is there" guest_await from 60 '^ready$'
pings()
{
	cat "$tmp/pinger/pings" 2>/dev/null || echo 0
}
more_pings()
{
	[ "$(pings)" -gt "$1" ]
}
ok "it is pinged" await 20 more_pings 5
mkdir "$tmp/to"
cp "$tmp/from/initrd" "$tmp/to"
card "$to" 1 ,guest_announce=off
qemu_boot to 100 "${card[@]}" -incoming "unix:$tmp/wire"
ok "the other QEMU waits" await 20 test -S "$tmp/wire"
ok "migrate" qmp from migrate "{\"uri\": \"unix:$tmp/wire\"}"
migrated()
{
	[[ $(qmp from query-migrate) =~ \"status\":\"(completed|failed|cancelled)\" ]]
}
await 60 migrated
like "migration" "$(qmp from query-migrate)" '"status":"completed"'
qmp from quit >/dev/null
ok "the first QEMU ends" reap from 10
before=$(pings)
ok "pings go on after $before" await 20 more_pings "$((before + 10))"
guest_tell to enough
reap to 60
ok "the host was heard in the other QEMU" guest_said to '^told: enough'
ok "the other way, too" guest_said to '^ok - ping the other way'
touch "$tmp/pinger/enough"
guest_wait pinger
rarp=$(tcpdump -Z root -enr - rarp <"$tmp/third.pcap" 2>"$tmp/tcpdump.log")
like "the second port said where the guest is" "$rarp" '52:54:00:00:00:10 > ff:ff:ff:ff:ff:ff.*Request who-is 52:54:00:00:00:10'
ok "the first port ends at SIGTERM" stop from-port
ok "the second port ends at SIGTERM" stop to-port
ok "the third port ends at SIGTERM" stop third

done_testing
