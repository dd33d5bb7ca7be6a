#!/bin/bash
# SPDX-License-Identifier: MIT
#
# 3D in a Linux guest: Mesa's driver for this device runs on the host's file
# system in the guest, and what a small OpenGL program draws there is in our
# screenshot pixel by pixel, on a host without a GPU too.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires jq
picture=$(realpath "${builddir_abs:-.}/tests/guest/picture")
program=$(realpath "${builddir_abs:-.}/tests/guest/glesdraw")
for file in "$picture" "$program"; do
	[ -x "$file" ] || lacking "$file is not built"
done
"$vum" gpu --print-capabilities | jq -e '.features | index("virgl")' >/dev/null || lacking "no 3D can be had on this host"

# drawn: is it on the screen?
drawn()
{
	"$picture" "$tmp/scanout-0.png" gles 800 600 2>"$tmp/picture.log"
}

backend gpu gpu --virgl --display=800x600 --screenshot-dir="$tmp" --screenshot-interval=20
guest_memory=256M uml_start guest 150 virtio_uml.device="$socket:16" program="$program" <<'GUEST'
read -r cmdline </proc/cmdline
for word in $cmdline; do
	case $word in
	program=*) program=${word#*=} ;;
	esac
done
mount -t hostfs -o / none /mnt
mount -t devtmpfs dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t sysfs sys /mnt/sys
export HOME=/nonexistent LC_ALL=C MESA_SHADER_CACHE_DISABLE=true
for round in first second; do
	chroot /mnt "$program" >/tmp/$round &
	until grep -q drawn /tmp/$round 2>/dev/null; do
		kill -0 $! || break
		usleep 20000
	done
	cat /tmp/$round
	check "$round: Mesa's driver is virgl" grep '^renderer virgl' /tmp/$round
	check "$round: drawn" grep drawn /tmp/$round
	touch /host/$round
	until [ -e /host/$round.seen ]; do
		usleep 10000
	done
	kill $!
	wait
done
GUEST
for round in first second; do
	ok "$round: the guest draws" await 100 test -e "$tmp/guest/$round"
	await 10 drawn
	result $? "$round: it is on the screen" || note <"$tmp/picture.log"
	rm -f "$tmp/scanout-0.png"
	touch "$tmp/guest/$round.seen"
done
guest_wait guest
ok "the back-end ends at SIGTERM" stop gpu

done_testing
