#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end on our entropy: the bytes of a given source arrive unaltered,
# before and after a reboot of the guest.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu

# 16 MiB of words that count upwards: the guest's kernel takes some for itself
seq -f %08.0f 4194304 | tr -d '\n' | basenc -d --base16 >"$tmp/numbers"

backend rng rng --source="$tmp/numbers"
guest_reboots=1 qemu_start guest 100 -chardev "socket,id=c,path=$socket" -device vhost-user-rng-pci,chardev=c <<'GUEST'
rng=/sys/class/misc/hw_random
is "current" "$(cat $rng/rng_current)" virtio_rng.0
dd if=/dev/hwrng of=/tmp/bytes bs=64 count=32 iflag=fullblock 2>/dev/null
is "all of it came" "$(wc -c </tmp/bytes)" 2048
for word in $(hexdump -v -e '4/1 "%02x" "\n"' /tmp/bytes); do
	echo "word $word"
done
echo ready
read -r boot
echo "boot $boot"
if [ "$boot" = first ]; then
	drain
	reboot -f
fi
GUEST

# ready N: has it asked N times, or ended?
ready()
{
	[ "$(grep -c '^ready$' "$tmp/guest/out")" -ge "$1" ] || gone guest
}

await 30 ready 1
guest_tell guest first
ok "the guest reboots" guest_await guest 30 '^boot first$'
await 30 ready 2
guest_tell guest second
guest_wait guest
ok "it did reboot" guest_said guest '^boot second$'
ok "the back-end ends at SIGTERM" stop rng

sed -n 's/^word //p' "$tmp/guest/out" >"$tmp/words"
is "two boots' words" "$(wc -l <"$tmp/words")" 1024
ok "they are the file's, in order" env LC_ALL=C sort -c -u "$tmp/words"
ok "and within it" test "$(tail -n 1 "$tmp/words")" '<' 00400001

done_testing
