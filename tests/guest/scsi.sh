#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our SCSI disks: what it wrote is there after a remount, after
# its driver and its whole device went and came back, and on the host; several
# units, a CD-ROM, a read-only one.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires e2fsck debugfs sha256sum

sha()
{
	sha256sum "$1" | cut -d ' ' -f 1
}

# kib FILE: what it occupies
kib()
{
	sync "$1"
	du -k "$1" | cut -f 1
}

disk=$tmp/disk.img
truncate -s 64M "$disk"
dd if=/dev/urandom of="$tmp/cd.iso" bs=64k count=32 2>/dev/null
dd if=/dev/urandom of="$tmp/data" bs=64k count=160 2>/dev/null
data_sum=$(sha "$tmp/data")

backend disk scsi --lun="0:0,file=$disk,serial=CARGO-0815" --lun=3:7,null=1G,block-size=4096 \
	--lun="4:0,file=$tmp/cd.iso,cdrom" --lun="5:1,file=$tmp/data,ro"
uml_start guest 60 virtio_uml.device="$socket:8" data_sum="$data_sum" cd_sum="$(sha "$tmp/cd.iso")" <<'GUEST'
units=/sys/bus/scsi/devices
await 10 test -e /sys/block/sr0
# block ADDRESS: the name of the block device there
block()
{
	basename "$units/0:0:$1/block"/*
}
disk=$(block 0:0)
is "64 MiB" "$(cat "/sys/block/$disk/size")" 131072
is "made by" "$(cat "$units/0:0:0:0/vendor")" "VHOSTUSR"
is "write back" "$(cat "$units/0:0:0:0"/scsi_disk/*/cache_type)" "write back"
is "FUA" "$(cat "$units/0:0:0:0"/scsi_disk/*/FUA)" 1
is "unmap is what discards" "$(cat "$units/0:0:0:0"/scsi_disk/*/provisioning_mode)" unmap
is "its serial number" "$(tr -dc '[:alnum:]-' <"$units/0:0:0:0/vpd_pg80")" CARGO-0815
is "blocks of 4 KiB" "$(cat "/sys/block/$(block 3:7)/queue/logical_block_size")" 4096
is "the other one is read-only" "$(cat "/sys/block/$(block 5:1)/ro")" 1
is "a CD-ROM" "$(cat "$units/0:0:4:0/type")" 5
is "the CD's content" "$(sha /dev/sr0)" "$cd_sum"
is "the read-only disk's content" "$(sha "/dev/$(block 5:1)")" "$data_sum"
refuse "it takes no data" dd if=/dev/zero of="/dev/$(block 5:1)" bs=4k count=1

check "mkfs" mkfs.ext4 -q -b 4096 "/dev/$disk"
check "mount" mount -t ext4 "/dev/$disk" /mnt
check "copy" cp "/dev/$(block 5:1)" /mnt/data
check "umount" umount /mnt
check "mount again" mount -t ext4 "/dev/$disk" /mnt
is "data after a remount" "$(sha /mnt/data)" "$data_sum"
umount /mnt

check "the driver lets go" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_scsi/unbind'
refuse "no disk without a driver" test -e "/sys/block/$disk"
check "the driver comes back" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_scsi/bind'
check "the disk is back" await 10 test -b /dev/sda
for disk in /dev/sd?; do
	mount -t ext4 "$disk" /mnt 2>/dev/null && break
done
is "data after that" "$(sha /mnt/data)" "$data_sum"
cp /mnt/data /mnt/more
rm /mnt/data
sync
check "fstrim" fstrim -v /mnt
is "data after the trim" "$(sha /mnt/more)" "$data_sum"
umount /mnt
GUEST
guest_wait guest
ok "the back-end ends at SIGTERM" stop disk
refuses "and takes its socket along" test -e "$socket"
ok "the image is a sound file system" e2fsck -fn "$disk"
debugfs -R "dump /more $tmp/more" "$disk" 2>/dev/null
is "the host reads the same" "$(sha "$tmp/more")" "$data_sum"
ok "the trim left holes ($(kib "$disk") KiB)" test "$(kib "$disk")" -lt 22000

done_testing
