#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end and display on our graphics: what the guest draws on two
# screens is in QEMU's screendumps pixel by pixel, at another size, with a
# cursor beside it, and again after each of several resets.

limit=400
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
qemu=$("$guestdir/build-qemu" --cached) || lacking "no QEMU of the backports (tests/guest/build-qemu gets it)"
PATH=$qemu:$PATH
picture=${builddir_abs:-.}/tests/guest/picture
[ -x "$picture" ] || lacking "$picture is not built"

# drawn HEAD SEED WIDTH HEIGHT: is this what QEMU displays?
drawn()
{
	qmp guest screendump '{"filename": "'"$tmp/dump.ppm"'", "device": "vga", "head": '"$1"'}' >"$tmp/picture.log" 2>&1 &&
		"$picture" "$tmp/dump.ppm" "${@:2}" 2>"$tmp/picture.log"
}

# boots NAME: the guest has booted once more, and is told what to do
boot=0
boots()
{
	boot=$((boot + 1))
	await 90 ready
	result $? "boot $boot" || done_testing
	guest_tell guest "$1"
}

ready()
{
	[ "$(grep -c '^ready$' "$tmp/guest/out")" -ge "$boot" ]
}

# ours SEED WIDTH HEIGHT [CURSOR]: is this our own screenshot?
ours()
{
	"$picture" "$tmp/scanout-0.png" "$@" 2>"$tmp/picture.log"
}

# seen STEP HEAD SEED WIDTH HEIGHT: the guest has drawn, and it comes to be so
seen()
{
	guest_await guest 60 "^drawn $1\$" || {
		result 1 "$1: the guest draws"
		done_testing
	}
	await 10 drawn "${@:2}"
	result $? "$1: ${*:2}" || note <"$tmp/picture.log"
}

backend gpu gpu --screenshot-dir="$tmp" --screenshot-interval=20
guest_memory=256M guest_reboots=1 qemu_start guest 380 -chardev "socket,id=c,path=$socket" \
	-device vhost-user-vga,id=vga,chardev=c,max_outputs=2 <<'GUEST'
modprobe virtio-gpu
for card in /sys/class/drm/card0-*-2; do
	echo on >$card/status
done
# draw STEP ARGUMENT...: draws, and leaves it there until the host says so
draw()
{
	step=$1
	shift
	rm -f /tmp/out
	gpudraw "$@" >/tmp/out 2>&1 &
	pid=$!
	until grep -q drawn /tmp/out 2>/dev/null; do
		kill -0 $pid || break
		usleep 10000
	done
	check "$step: drawn" grep drawn /tmp/out || cat /tmp/out
	echo "drawn $step"
	read -r go
	kill $pid
	wait $pid # until then the card is its
}
echo ready
read -r boot
echo "boot $boot"
case $boot in
first)
	is "screens" "$(ls -d /sys/class/drm/card0-* | wc -l)" 2
	is "connected" "$(cat /sys/class/drm/card0-*-1/status)" connected
	is "the preferred mode" "$(head -n 1 /sys/class/drm/card0-*-1/modes)" 1280x800
	draw one 1 1024x768
	draw two 10 640x480 +100+50
	draw three 20 1024x768 +10+10
	;;
*)
	draw $boot 30 1024x768
	;;
esac
drain
[ $boot = last ] || reboot -f
GUEST
boots first
seen one 0 1 1024 768
seen one 1 2 1024 768
guest_tell guest go
seen two 0 10 640 480
seen two 1 11 640 480
await 10 ours 10 640 480 100 50
result $? "the cursor is none of QEMU's picture, but it is in ours" || note <"$tmp/picture.log"
guest_tell guest go
seen three 0 20 1024 768
guest_tell guest go
boots second
seen second 0 30 1024 768
ok "reset" qmp guest system_reset
for i in 1 2 3; do
	boots "again$i"
	seen "again$i" 0 30 1024 768
	ok "reset $i" qmp guest system_reset
done
boots last
seen last 0 30 1024 768
ok "stop" qmp guest stop
ok "cont" qmp guest cont
await 10 drawn 0 30 1024 768
result $? "the picture is there after a pause" || note <"$tmp/picture.log"
guest_tell guest go
guest_wait guest
ok "the back-end ends at SIGTERM" stop gpu

done_testing
