#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end and two emulated processors on our SCSI disks: a queue for each
# processor, threads, a unit that comes while the guest runs, a reboot.

limit=200
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires e2fsck debugfs sha256sum

disk=$tmp/disk.img
truncate -s 64M "$disk"
truncate -s 32M "$tmp/second.img"
guest_cpus=2

backend disk scsi --lun="0:0,file=$disk" --threads=2 --control-path="$tmp/control"
guest_reboots=1 qemu_start guest 150 -chardev "socket,id=c,path=$socket" \
	-device vhost-user-scsi-pci,chardev=c,num_queues=2 <<'GUEST'
modprobe virtio_scsi
modprobe sd_mod
# disk TARGET: the block device of its unit 0; names come as the units are found, in any order
disk()
{
	basename /sys/class/scsi_device/*:0:"$1":0/device/block/*
}
there()
{
	test -b "/dev/$(disk "$1")"
}
await 20 there 0
sda=$(disk 0)
if ! mount -t ext4 "/dev/$sda" /mnt 2>/dev/null; then
	is "64 MiB" "$(cat "/sys/block/$sda/size")" 131072
	is "a queue per processor" "$(ls "/sys/block/$sda/mq" | wc -l)" 2
	is "write back" "$(cat "/sys/block/$sda"/device/scsi_disk/*/cache_type)" "write back"
	check "mkfs" mkfs.ext4 -q "/dev/$sda"
	check "mount" mount -t ext4 "/dev/$sda" /mnt
	for n in 1 2 3 4; do
		dd if=/dev/urandom of=/mnt/$n bs=64k count=32 2>/dev/null &
	done
	wait
	check "sums" eval 'cd /mnt && sha256sum 1 2 3 4 >sums'
	cd /
	check "umount" umount /mnt
	echo ready
	check "a unit comes" await 20 there 1
	check "the load's data is right" blkload "/dev/$(disk 1)" 16 4 /nothing 3
	echo "rebooting"
	drain
	reboot -f
fi
check "data after a reboot" eval 'cd /mnt && sha256sum -c sums >/dev/null'
cd /
umount /mnt
GUEST
ok "the guest has its disk" guest_await guest 100 '^ready$'
ok "add a unit" "$vum" ctl "$tmp/control" lun-add lun="1:0,file=$tmp/second.img"
guest_wait guest
ok "it did reboot" guest_said guest '^rebooting$'
ok "the back-end ends at SIGTERM" stop disk
ok "the image is a sound file system" e2fsck -fn "$disk"
for file in sums 1 2 3 4; do
	debugfs -R "dump /$file $tmp/$file" "$disk" 2>/dev/null
done
ok "the host reads the same data" env -C "$tmp" sha256sum -c sums

done_testing
