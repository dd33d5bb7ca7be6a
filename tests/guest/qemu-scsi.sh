#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end and two emulated processors on our SCSI disks: a queue for each
# processor, threads, a unit that comes while the guest runs, a reboot. fio checks
# what it wrote in the guest, and once more on the host.

limit=200
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires e2fsck debugfs sha256sum mke2fs fio

disk=$tmp/disk.img
truncate -s 64M "$disk"
truncate -s 32M "$tmp/second.img"
guest_cpus=2

# fio and its libraries, on a unit of their own
fio=$(command -v fio)
mkdir -p "$tmp/root/dev" "$tmp/root/proc" "$tmp/root/tmp" "$tmp/root/bin"
cp -L "$fio" "$tmp/root/bin"
for library in $(ldd "$fio" | grep -o '/[^ )]*'); do
	mkdir -p "$tmp/root$(dirname "$library")"
	cp -L "$library" "$tmp/root$library"
done
mke2fs -q -t ext4 -O ^has_journal -d "$tmp/root" "$tmp/fio.img" 192M >/dev/null
rm -r "$tmp/root"
verified=(--name=verify --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --size=16M --verify=crc32c --verify_fatal=1
	--ioengine=libaio --iodepth=16 --thread)

backend disk scsi --lun="0:0,file=$disk" --lun="2:0,file=$tmp/fio.img,ro" --threads=2 --control-path="$tmp/control"
guest_reboots=1 qemu_start guest 150 -chardev "socket,id=c,path=$socket" \
	-device vhost-user-scsi-pci,chardev=c,num_queues=2 <<GUEST
verified='${verified[*]}'
$(cat <<'REST'
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
	check "fio's unit" await 20 there 2
	mount -o ro -t ext4 "/dev/$(disk 2)" /mnt
	mount -o bind /dev /mnt/dev
	mount -t tmpfs tmp /mnt/tmp
	check "fio --verify" eval 'chroot /mnt fio $verified --filename="/dev/$(disk 1)" --direct=1 >/tmp/fio 2>&1 || { cat /tmp/fio; false; }'
	umount /mnt/tmp /mnt/dev /mnt
	grown()
	{
		[ "$(cat "/sys/block/$(disk 1)/size")" = 98304 ]
	}
	echo grow
	check "it grows" await 20 grown
	echo "rebooting"
	drain
	reboot -f
fi
check "data after a reboot" eval 'cd /mnt && sha256sum -c sums >/dev/null'
cd /
umount /mnt
REST
)
GUEST
ok "the guest has its disk" guest_await guest 100 '^ready$'
ok "add a unit" "$vum" ctl "$tmp/control" lun-add lun="1:0,file=$tmp/second.img"
ok "the guest has used it" guest_await guest 100 '^grow$'
ok "make it longer" "$vum" ctl "$tmp/control" resize lun=1:0 size=48M
guest_wait guest
ok "it did reboot" guest_said guest '^rebooting$'
ok "the back-end ends at SIGTERM" stop disk
ok "fio finds the same on the host" fio "${verified[@]}" --filename="$tmp/second.img" --verify_only --output="$tmp/fio.log"
ok "the image is a sound file system" e2fsck -fn "$disk"
for file in sums 1 2 3 4; do
	debugfs -R "dump /$file $tmp/$file" "$disk" 2>/dev/null
done
ok "the host reads the same data" env -C "$tmp" sha256sum -c sums

done_testing
