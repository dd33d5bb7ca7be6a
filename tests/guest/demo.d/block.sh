# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

demo_disk=$tmp/demo.img
truncate -s 64M "$demo_disk"
serve block 2 --blk-file="$demo_disk" --serial=DEMO-0001

in_guest <<'GUEST'
disk=$(basename "$device"/block/*)
row "disk" "/dev/$disk, $(($(cat "/sys/block/$disk/size") / 2048)) MiB, serial $(cat "/sys/block/$disk/serial")"
mkfs.ext4 -q "/dev/$disk" && mount -t ext4 "/dev/$disk" /mnt
confirm $? "ext4 made, mounted"
dd if=/dev/urandom of=/mnt/data bs=1M count=8 2>/dev/null
sum=$(sha /mnt/data)
echo "$sum" >/host/block.sum
umount /mnt
mount -t ext4 -o ro "/dev/$disk" /mnt
row "8 MiB, sha256" "$sum"
[ "$(sha /mnt/data)" = "$sum" ]
confirm $? "same after a remount"
umount /mnt
GUEST

demo_block_after()
{
	e2fsck -fn "$demo_disk" >/dev/null 2>&1
	confirm $? "disk.img is sound"
	debugfs -R "dump /data $tmp/demo.data" "$demo_disk" 2>/dev/null
	[ "$(sha256sum <"$tmp/demo.data" | cut -d ' ' -f 1)" = "$(cat "$tmp/guest/block.sum")" ]
	confirm $? "same sha256 in it"
}
afterwards demo_block_after
