#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our disk: what it wrote is there after a remount, after its
# driver and its whole device went and came back, and on the host.

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
dd if=/dev/urandom of="$tmp/data" bs=64k count=160 2>/dev/null
data_sum=$(sha "$tmp/data")

backend disk block --blk-file="$disk" --serial=CARGO-0815
uml_start guest 60 virtio_uml.device="$socket:2" data_sum="$data_sum" <<'GUEST'
is "64 MiB" "$(cat /sys/block/vda/size)" 131072
is "serial" "$(cat /sys/block/vda/serial)" CARGO-0815
is "writable" "$(cat /sys/block/vda/ro)" 0
is "discard is offered" "$(($(cat /sys/block/vda/queue/discard_max_bytes) > 0))" 1
is "write zeroes is offered" "$(($(cat /sys/block/vda/queue/write_zeroes_max_bytes) > 0))" 1

check "mkfs" mkfs.ext4 -q -b 4096 /dev/vda
check "mount" mount -t ext4 /dev/vda /mnt
while ! [ -e /host/data ]; do usleep 20000; done
check "copy" cp /host/data /mnt/data
check "umount" umount /mnt
check "mount again" mount -t ext4 /dev/vda /mnt
is "data after a remount" "$(sha /mnt/data)" "$data_sum"
umount /mnt

check "the driver lets go" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind'
refuse "no disk without a driver" test -e /sys/block/vda
check "the driver comes back" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind'
check "mount after that" mount -t ext4 /dev/vda /mnt
is "data after that" "$(sha /mnt/data)" "$data_sum"
umount /mnt

uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.0 >$uml/unbind"
refuse "no disk without a device" test -e /sys/block/vda
check "the front-end connects again" eval "echo virtio-uml.0 >$uml/bind"
check "the disk is back" await 5 test -b /dev/vda
check "mount after that" mount -t ext4 /dev/vda /mnt
is "data after that" "$(sha /mnt/data)" "$data_sum"
check "more data" cp /mnt/data /mnt/more
umount /mnt
GUEST
cp "$tmp/data" "$tmp/guest/data"
guest_wait guest
ok "the back-end ends at SIGTERM" stop disk
refuses "and takes its socket along" test -e "$socket"

ok "the image is a sound file system" e2fsck -fn "$disk"
for file in data more; do
	debugfs -R "dump /$file $tmp/$file.dump" "$disk" 2>/dev/null
	is "the host reads the same $file" "$(sha "$tmp/$file.dump")" "$data_sum"
done

# ---- read-only ----

disk_sum=$(sha "$disk")
backend readonly block --blk-file="$disk" --read-only
uml_start guest-ro 60 virtio_uml.device="$socket:2" data_sum="$data_sum" <<'GUEST'
is "the disk says so" "$(cat /sys/block/vda/ro)" 1
refuse "no raw write" dd if=/dev/zero of=/dev/vda bs=4k count=1
refuse "no mkfs" mkfs.ext4 -q -F /dev/vda
refuse "no discard" /sbin/blkdiscard -f /dev/vda
check "mount" mount -t ext4 -o ro /dev/vda /mnt
refuse "no writable mount" mount -o remount,rw /mnt
is "data" "$(sha /mnt/data)" "$data_sum"
umount /mnt
GUEST
guest_wait guest-ro
ok "the back-end ends at SIGTERM" stop readonly
is "the image is untouched" "$(sha "$disk")" "$disk_sum"

# ---- discard, write zeroes, another block size, cache switch ----

before=$(kib "$disk")
backend large block --blk-file="$disk" --block-size=4096
uml_start guest-4k 60 virtio_uml.device="$socket:2" data_sum="$data_sum" <<'GUEST'
is "logical blocks of 4 KiB" "$(cat /sys/block/vda/queue/logical_block_size)" 4096
is "64 MiB" "$(blockdev --getsize64 /dev/vda)" 67108864
check "mount" mount -t ext4 /dev/vda /mnt
is "data" "$(sha /mnt/data)" "$data_sum"
rm /mnt/more
sync
check "fstrim" fstrim -v /mnt
is "data after the trim" "$(sha /mnt/data)" "$data_sum"
umount /mnt

is "a write-back cache" "$(cat /sys/block/vda/cache_type)" "write back"
check "it can be switched" eval 'echo "write through" >/sys/block/vda/cache_type'
is "to write-through" "$(cat /sys/block/vda/cache_type)" "write through"
GUEST
guest_wait guest-4k
ok "the back-end ends at SIGTERM" stop large
after=$(kib "$disk")
ok "the trim freed space on the host ($before to $after KiB)" test $((before - after)) -ge 8192
ok "the image is a sound file system" e2fsck -fn "$disk"

# ---- raw access under load, several disks ----

truncate -s 16M "$tmp/a.img" "$tmp/b.img"
head -c 4M /dev/urandom | dd of="$tmp/a.img" conv=notrunc 2>/dev/null
backend a block --blk-file="$tmp/a.img" --serial=A
first=$socket
backend b block --blk-file="$tmp/b.img" --serial=B --cache=writethrough
uml_start guest-raw 60 virtio_uml.device="$first:2" virtio_uml.device="$socket:2" <<'GUEST'
for d in vda vdb; do
	case $(cat /sys/block/$d/serial) in
	A) a=/dev/$d ;;
	B) b=/dev/$d ;;
	esac
done
check "copy from disk to disk" dd if="$a" of="$b" bs=1M count=4 iflag=direct oflag=direct
check "zero the source" /sbin/blkdiscard -z -o 1048576 -l 2097152 "$a"
is "it reads as zeroes" "$(dd if="$a" bs=1M skip=1 count=2 iflag=direct | tr -d '\0' | wc -c)" 0
dd if="$a" bs=1M count=4 iflag=direct of=/host/a
dd if="$b" bs=1M count=4 iflag=direct of=/host/b
check "the load's data is right" blkload "$b" 16 4 /nothing 3
GUEST
cp "$tmp/a.img" "$tmp/a.orig"
guest_wait guest-raw
ok "first disk ends" stop a
ok "second disk ends" stop b
ok "the copy is exact" cmp -n 4194304 "$tmp/guest-raw/b" "$tmp/a.orig"
ok "what lay before the zeroes is left" cmp -n 1048576 "$tmp/a.img" "$tmp/a.orig"
ok "what lay behind the zeroes is left" cmp -i 3145728 -n 1048576 "$tmp/a.img" "$tmp/a.orig"
is "zeroes on the host" "$(dd if="$tmp/a.img" bs=1M skip=1 count=2 2>/dev/null | tr -d '\0' | wc -c)" 0
ok "the guest read what the host sees" cmp -n 4194304 "$tmp/guest-raw/a" "$tmp/a.img"

done_testing
