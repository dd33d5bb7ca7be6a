#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Memory that comes and goes while a Linux guest draws: the guest keeps a
# picture in memory that was plugged in after we started, and more is plugged
# in and taken away beside it. QEMU tells us of each with a message.

limit=400
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires jq
qemu=$("$guestdir/build-qemu" --cached) || lacking "no QEMU of the backports (tests/guest/build-qemu gets it)"
PATH=$qemu:$PATH
picture=${builddir_abs:-.}/tests/guest/picture
[ -x "$picture" ] || lacking "$picture is not built"

# drawn SEED: is this what QEMU displays?
drawn()
{
	qmp guest screendump '{"filename": "'"$tmp/dump.ppm"'", "device": "vga"}' >"$tmp/picture.log" 2>&1 &&
		"$picture" "$tmp/dump.ppm" "$1" 1024 768 2>"$tmp/picture.log"
}

# seen STEP SEED
seen()
{
	await 10 drawn "$2"
	result $? "$1: it is on the screen" || note <"$tmp/picture.log"
}

# says STEP: the guest has come so far
says()
{
	guest_await guest 90 "^$1\$"
	result $? "the guest: $1" || done_testing
}

# memory: bytes of the regions that we have been told of
memory()
{
	"$vum" ctl "$tmp/control" query-status | jq '[.memory[].size] | add'
}

memory_is()
{
	[ "$(memory)" = "$1" ]
}

# plug NAME
plug()
{
	qmp guest object-add '{"qom-type": "memory-backend-memfd", "id": "'"$1-memory"'", "size": 134217728, "share": true}' &&
		qmp guest device_add '{"driver": "pc-dimm", "id": "'"$1"'", "memdev": "'"$1-memory"'"}'
}

backend gpu gpu --control-path="$tmp/control"
guest_memory=256M qemu_start guest 380 -m 256M,slots=4,maxmem=1G -chardev "socket,id=c,path=$socket" \
	-device vhost-user-vga,id=vga,chardev=c <<'GUEST'
modprobe virtio-gpu
# draw SEED: draws, and leaves it there
draw()
{
	rm -f /tmp/out
	gpudraw $1 1024x768 >/tmp/out 2>&1 &
	pid=$!
	until grep -q drawn /tmp/out 2>/dev/null; do
		kill -0 $pid || break
		usleep 10000
	done
	check "picture $1: drawn" grep drawn /tmp/out || cat /tmp/out
}
# blocks STATE: the blocks of memory in that state
blocks()
{
	grep -l -x "$1" /sys/devices/system/memory/memory*/state
}
# plugged HOW: a block came, and is put to use
plugged()
{
	await 60 blocks offline >/tmp/blocks
	check "memory came" [ -s /tmp/blocks ]
	for state in $(cat /tmp/blocks); do
		check "it is put to use" sh -c "echo $1 >$state"
	done
}
# used: pages in use of the zone that only later memory is in
used()
{
	awk '$1 == "Node" { on = $4 == "Normal" } on && $1 == "pages" { free = $3 } on && $1 == "managed" { managed = $2 }
		END { print managed - free }' /proc/zoneinfo
}
draw 1
echo first
read -r go
plugged online_kernel
before=$(used)
kill $pid
wait $pid # until then the card is its
draw 2
echo "pages of it in use: $before, then $(used)"
check "the picture is in the memory that came" [ $(($(used) - before)) -ge 768 ]
echo second
read -r go
plugged online_movable
echo more
read -r go
kill $pid
wait $pid # until then the card is its
draw 3
echo third
read -r go
kill $pid
wait $pid # until then the card is its
drain
GUEST
says first
seen "before" 1
first=$(memory)
ok "memory is plugged in" plug one
guest_tell guest go
says second
seen "in the new memory" 2
is "we were told of it" "$(memory)" $((first + (128 << 20)))
ok "more is plugged in" plug two
guest_tell guest go
says more
is "we were told of that too" "$(memory)" $((first + (256 << 20)))
seen "with more memory" 2
ok "QEMU asks for it back" qmp guest device_del '{"id": "two"}'
ok "it is taken from us" await 60 memory_is $((first + (128 << 20)))
seen "when it has gone" 2
guest_tell guest go
says third
seen "after that" 3
guest_tell guest go
guest_wait guest
ok "the back-end ends at SIGTERM" stop gpu

done_testing
