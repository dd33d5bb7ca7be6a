#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our console: somebody logs in through a pseudo-terminal, whose
# size the guest sees; 32 ports carry noise both ways while nobody reads another
# one; ports come and go under traffic; programs of the host are killed; the guest
# reboots, the back-end is started again.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
io=$(realpath "${builddir_abs:-.}/tests/guest/portio")
[ -x "$io" ] || lacking "no $io"
guest_memory=192M
dir=$tmp/guest

# ctl COMMAND [KEY=VALUE...]
ctl()
{
	"$vum" ctl "$tmp/ctl" "$@"
}

# shown TEXT: has the guest's terminal shown it?
shown()
{
	grep -q -a -e "$1" "$tmp/screen.log"
}

# types TEXT FILE LINE: types a command, which writes the line to a file of the guest's directory
types()
{
	printf '%s\n' "$1" >&7
	await 20 grep -q -s -x -e "$3" "$dir/$2"
}

ports=()
more=()
ends=()
for ((i = 1; i <= 32; i++)); do
	port=--port=name=org.test.$i,host=unix:$tmp/p$i,server
	ends+=("unix:$tmp/p$i")
	if ((i <= 20)); then
		ports+=("$port")
	else
		more+=("$port")
	fi
done

backend console console --control-path="$tmp/ctl" --max-ports=31 \
	--port="name=tty,host=pty:link=$tmp/tty,log=$tmp/tty.txt" "${ports[@]}" \
	--port="name=stalled,host=unix:$tmp/stalled,server" --port="name=file,host=file:$tmp/file"
console=$socket # User Mode Linux makes 64 queues at most for a device: 31 ports
backend second console --port=type=serial,host=null "${more[@]}"
stty -F "$tmp/tty" cols 97 rows 41
exec 7<>"$tmp/tty"
spawn screen cat "$tmp/tty"
spawn stalled env PORTIO_AFTER="$tmp/go" "$io" expect 900 5000000 "unix:$tmp/stalled"
spawn noise "$io" both 100 200 150000 "${ends[@]}"

uml_start guest 100 virtio_uml.device="$console:3" virtio_uml.device="$socket:3" <<'GUEST'
is "the name of port 7" "$(cat /sys/class/virtio-ports/vport0p7/name)" org.test.7
is "all ports are there" "$(echo /sys/class/virtio-ports/* | wc -w)" 36
echo root::0:0:root:/root:/bin/sh >/etc/passwd
setsid getty -i 38400 hvc0 &
all=
for i in $(seq 20); do
	all="$all /dev/vport0p$i"
done
for i in $(seq 12); do
	all="$all /dev/vport1p$i"
done
{
	portio send 900 5000000 /dev/vport0p21
	echo $? >/host/stalled
} &
check "noise on 32 ports" portio both 200 100 150000 $all
refuse "the port that nobody reads waits" test -e /host/stalled
portio send 5 100000 /dev/vport0p22
touch /host/flowed
check "the port that nobody reads is read" await 30 test -e /host/stalled
is "all was sent" "$(cat /host/stalled)" 0

portio both 21 22 3000000 /dev/vport0p1 &
traffic=$!
for round in 1 2 3 4 5 6; do
	check "port $round is plugged in" await 20 grep -q -s "hot$round\$" /sys/class/virtio-ports/vport0p23/name
	check "it echoes" portio both 7 7 20000 /dev/vport0p23
	touch /host/used$round
	check "it is unplugged" await 20 test ! -e /sys/class/virtio-ports/vport0p23
	touch /host/gone$round
done
check "the traffic went on" wait $traffic

portio send 1 4000000 /dev/vport0p2 &
touch /host/kill
check "the next program is there" await 30 test -e /host/killed
wait $!
touch /host/sent
check "the one after it may come" await 30 test -e /host/next
check "the next program has it" portio both 31 32 50000 /dev/vport0p2

check "the terminal is done" await 30 test -e /host/loggedout
driver=/sys/bus/virtio/drivers/virtio_console
uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.0 >$uml/unbind"
touch /host/unbound
check "the back-end is started again" await 30 test -e /host/again
check "the front-end connects again" eval "echo virtio-uml.0 >$uml/bind"
check "the ports are there" await 20 test -e /dev/vport0p2
check "noise after that" portio both 41 42 50000 /dev/vport0p1 /dev/vport0p2
GUEST

ok "a login is asked for" await 30 shown "login:"
echo root >&7
ok "the guest lets us in" await 20 shown "/root # "
ok "a shell answers" types 'echo in >/host/shell' shell in
ok "the size of the window" types 'stty size >/host/size' size "41 97"
stty -F "$tmp/tty" cols 132 rows 50
ok "the new size of the window" types 'stty size >/host/size' size "50 132"
ok "the log has it too" grep -q "stty size" "$tmp/tty.txt"

ok "the guest's noise" reap noise 60
ok "ports flow beside one that nobody reads" await 30 test -e "$dir/flowed"
touch "$tmp/go"
ok "nothing is lost on that one" reap stalled 30
ok "a file has what the guest sent" "$io" expect 5 100000 "$tmp/file"

spawn traffic "$io" both 22 21 3000000 "unix:$tmp/p1"
for round in 1 2 3 4 5 6; do
	ok "plug port $round in" ctl port-add "port=name=hot$round,host=unix:$tmp/hot,server"
	spawn echo "$io" echo "unix:$tmp/hot"
	await 30 test -e "$dir/used$round"
	ok "unplug it" ctl port-remove "name=hot$round"
	reap echo 10
	await 20 test -e "$dir/gone$round"
done
ok "the traffic went on" reap traffic 30

spawn victim env PORTIO_AFTER="$tmp/never" "$io" expect 1 4000000 "unix:$tmp/p2"
await 30 test -e "$dir/kill"
stop victim KILL
spawn heir "$io" drain "unix:$tmp/p2"
touch "$dir/killed"
await 30 test -e "$dir/sent"
stop heir KILL
touch "$dir/next"
spawn heir "$io" both 32 31 50000 "unix:$tmp/p2"
ok "a program after one that was killed" reap heir 30
touch "$dir/loggedout"

await 30 test -e "$dir/unbound"
ok "the back-end ends at SIGTERM" stop console
backend console console --port="name=tty,host=pty:link=$tmp/tty" "${ports[@]}"
spawn noise "$io" both 42 41 50000 "unix:$tmp/p1" "unix:$tmp/p2"
touch "$dir/again"
ok "noise after a new start" reap noise 30
guest_wait guest

# ---- the guest reboots ----

spawn noise "$io" both 51 52 50000 "${ends[@]:0:4}"
uml_start reboot 60 virtio_uml.device="$console:3" <<'GUEST'
check "noise after a reboot" portio both 52 51 50000 /dev/vport0p1 /dev/vport0p2 /dev/vport0p3 /dev/vport0p4
GUEST
guest_wait reboot
ok "the guest's noise" reap noise 30
ok "the back-end ends at SIGTERM" stop console
ok "the other too" stop second
refuses "the link is gone" test -L "$tmp/tty"

done_testing
