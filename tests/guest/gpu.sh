#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our graphics, without a display: its modes are those we were
# told, what it draws is in the screenshots pixel by pixel, with the cursor, on
# every screen; a driver that begins anew can draw again.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
picture=${builddir_abs:-.}/tests/guest/picture
[ -x "$picture" ] || lacking "$picture is not built"
mkdir "$tmp/shots"

# drawn N SEED WIDTH HEIGHT [CURSOR]: is this on screen N?
drawn()
{
	"$picture" "$tmp/shots/scanout-$1.png" "${@:2}" 2>"$tmp/picture.log"
}

backend gpu gpu --display=800x600,640x480,off --screenshot-dir="$tmp/shots" --screenshot-interval=20
uml_start guest 90 virtio_uml.device="$socket:16" <<'GUEST'
# draw STEP ARGUMENT...: draws, waits until the host has seen it
draw()
{
	step=$1
	shift
	gpudraw "$@" >/tmp/$step &
	pid=$!
	until grep -q drawn /tmp/$step 2>/dev/null; do
		kill -0 $pid || break
		usleep 10000
	done
	check "$step: drawn" grep -q drawn /tmp/$step
	touch /host/$step
	until [ -e /host/$step.seen ]; do
		usleep 10000
	done
	kill $pid
	wait $pid # until then the card is its
}

check "there is a card" test -c /dev/dri/card0
is "screens" "$(ls -d /sys/class/drm/card0-* | wc -l)" 3
is "the third is off" "$(cat /sys/class/drm/card0-Virtual-3/status)" disconnected
is "the preferred mode of the first" "$(head -n 1 /sys/class/drm/card0-Virtual-1/modes)" 800x600
is "the preferred mode of the second" "$(head -n 1 /sys/class/drm/card0-Virtual-2/modes)" 640x480
is "an EDID" "$(wc -c </sys/class/drm/card0-Virtual-1/edid)" 128
draw first 1
is "outputs" "$(grep -c output /tmp/first)" 2
draw second 10 640x480
draw third 20 +300+200

for device in /sys/bus/virtio/drivers/virtio_gpu/virtio*; do
	name=${device##*/}
done
check "the driver lets go" eval "echo $name >/sys/bus/virtio/drivers/virtio_gpu/unbind"
check "the driver comes back" eval "echo $name >/sys/bus/virtio/drivers/virtio_gpu/bind"
draw fourth 30
GUEST

# seen STEP COMMAND [ARG...]: the guest has drawn, and it comes to be so
seen()
{
	local step=$1
	shift
	ok "$step: the guest draws" await 60 test -e "$tmp/guest/$step"
	await 10 "$@"
	result $? "$step: $*" || note <"$tmp/picture.log"
}

seen first drawn 0 1 800 600
seen first drawn 1 2 640 480
touch "$tmp/guest/first.seen"
seen second drawn 0 10 640 480
touch "$tmp/guest/second.seen"
seen third drawn 0 20 800 600 300 200
touch "$tmp/guest/third.seen"
seen fourth drawn 0 30 800 600
touch "$tmp/guest/fourth.seen"
guest_wait guest
is "there is no third screen" "$(ls "$tmp/shots")" "scanout-0.png
scanout-1.png"
ok "the back-end ends at SIGTERM" stop gpu

done_testing
