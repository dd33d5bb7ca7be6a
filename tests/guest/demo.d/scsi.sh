# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

demo_scsi=$tmp/scsi.img
truncate -s 32M "$demo_scsi"
serve scsi 8 --blk-file="$demo_scsi" --serial=DEMO-0002

in_guest <<'GUEST'
unit=$(echo "$device"/host*/target*/*:0:0:0)
disk=$(basename "$unit"/block/*)
row "unit 0:0" "$(cat "$unit/vendor") $(cat "$unit/model")"
row "disk" "/dev/$disk, $(($(cat "/sys/block/$disk/size") / 2048)) MiB, cache: $(cat "$unit"/scsi_disk/*/cache_type)"
mkfs.ext4 -q "/dev/$disk" && mount -t ext4 "/dev/$disk" /mnt
confirm $? "ext4 made, mounted"
dd if=/dev/urandom of=/mnt/data bs=1M count=4 2>/dev/null
sum=$(sha /mnt/data)
echo "$sum" >/host/scsi.sum
umount /mnt
row "4 MiB, sha256" "$sum"
GUEST

demo_scsi_after()
{
	e2fsck -fn "$demo_scsi" >/dev/null 2>&1
	confirm $? "scsi.img is sound"
	debugfs -R "dump /data $tmp/scsi.data" "$demo_scsi" 2>/dev/null
	[ "$(sha256sum <"$tmp/scsi.data" | cut -d ' ' -f 1)" = "$(cat "$tmp/guest/scsi.sum")" ]
	confirm $? "same sha256 in it"
}
afterwards demo_scsi_after
