#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on what NBD servers have: a raw file of nbdkit's, whose server is
# killed again and again while the guest copies, and a qcow2 image of qemu-nbd's.
# Meanwhile disks become larger, and the guest sees it without a reboot.

limit=120
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires nbdkit qemu-nbd qemu-img e2fsck debugfs sha256sum
! "$vum" block --nbd=none --socket-path="$tmp/none" 2>&1 | grep -q "built without" || lacking "built without libnbd"

sha()
{
	sha256sum "$1" | cut -d ' ' -f 1
}

# serve_raw, serve_qcow2: starts the server of that name
serve_raw()
{
	rm -f "$tmp/raw.nbd"
	spawn_server raw "$tmp/raw.nbd" nbdkit -f -U "$tmp/raw.nbd" file "$tmp/raw.img"
}

serve_qcow2()
{
	spawn_server qcow2 "$tmp/qcow2.nbd" qemu-nbd -t -f qcow2 -e 4 -k "$tmp/qcow2.nbd" "$tmp/disk.qcow2"
}

truncate -s 64M "$tmp/raw.img" "$tmp/plain.img"
qemu-img create -q -f qcow2 "$tmp/disk.qcow2" 64M
dd if=/dev/urandom of="$tmp/data" bs=64k count=160 2>/dev/null
data_sum=$(sha "$tmp/data")
ok "nbdkit serves a file" serve_raw
ok "qemu-nbd serves a qcow2 image" serve_qcow2

backend a block --nbd="nbd+unix:///?socket=$tmp/raw.nbd" --serial=RAW --threads=1
a=$socket
backend b block --nbd="nbd+unix:///?socket=$tmp/qcow2.nbd" --serial=QCOW2
b=$socket
backend c block --blk-file="$tmp/plain.img" --serial=PLAIN
uml_start guest 90 virtio_uml.device="$a:2" virtio_uml.device="$b:2" virtio_uml.device="$socket:2" \
	data_sum="$data_sum" <<'GUEST'
for d in vda vdb vdc; do
	case $(cat /sys/block/$d/serial) in
	RAW) raw=$d ;;
	QCOW2) qcow2=$d ;;
	PLAIN) plain=$d ;;
	esac
done
sectors()
{
	[ "$(cat "/sys/block/$1/size")" = "$2" ]
}
check "64 MiB each" eval 'sectors $raw 131072 && sectors $qcow2 131072 && sectors $plain 131072'

check "mkfs on nbdkit" mkfs.ext4 -q -b 4096 /dev/$raw
check "mkfs on qemu-nbd" mkfs.ext4 -q -b 4096 /dev/$qcow2
mkdir /tmp/q
check "mount" mount -t ext4 /dev/$raw /mnt
check "mount" mount -t ext4 /dev/$qcow2 /tmp/q
while ! [ -e /host/data ]; do usleep 20000; done
check "copy to qemu-nbd" cp /host/data /tmp/q/data
for n in 1 2 3; do
	: >/host/killme.$n
	check "copy $n while the server is killed" eval "cp /host/data /mnt/$n && sync"
	check "it was" await 20 test -e /host/killed.$n
done
check "umount" umount /mnt
check "umount" umount /tmp/q
check "mount again" mount -t ext4 /dev/$raw /mnt
check "mount again" mount -t ext4 /dev/$qcow2 /tmp/q
for file in /mnt/1 /mnt/2 /mnt/3 /tmp/q/data; do
	is "$file" "$(sha $file)" "$data_sum"
done
umount /mnt
umount /tmp/q

: >/host/grow
check "the plain disk has 96 MiB" await 20 sectors $plain 196608
check "the served disk has 128 MiB" await 20 sectors $raw 262144
check "its new end is there" eval "dd if=/host/data of=/dev/$raw bs=1M count=4 seek=124 oflag=direct"
check "and the plain one's" eval "dd if=/host/data of=/dev/$plain bs=1M count=4 seek=92 oflag=direct"
GUEST
cp "$tmp/data" "$tmp/guest/data.new" && mv "$tmp/guest/data.new" "$tmp/guest/data"

# asks NAME: does the guest want something, or is it gone?
asks()
{
	[ -e "$tmp/guest/$1" ] || gone guest
}

for n in 1 2 3; do
	await 60 asks killme.$n
	sleep 0.02 # somewhere in the copy
	stop raw KILL
	ok "nbdkit again, round $n" serve_raw
	: >"$tmp/guest/killed.$n"
done
await 60 asks grow
truncate -s 96M "$tmp/plain.img"
stop raw KILL
truncate -s 128M "$tmp/raw.img"
ok "nbdkit with a larger file" serve_raw
guest_wait guest
for name in a b c; do
	ok "back-end $name ends at SIGTERM" stop $name
done
stop raw
ok "qemu-nbd ends" stop qcow2

ok "the guest wrote to the new end" cmp -n 4194304 -i 0:$((124 << 20)) "$tmp/data" "$tmp/raw.img"
ok "and to the plain one's" cmp -n 4194304 -i 0:$((92 << 20)) "$tmp/data" "$tmp/plain.img"
ok "nbdkit's image is a sound file system" e2fsck -fn "$tmp/raw.img"
qemu-img convert -O raw "$tmp/disk.qcow2" "$tmp/qcow2.img"
ok "qemu-nbd's image is a sound file system" e2fsck -fn "$tmp/qcow2.img"
for file in 1 2 3; do
	debugfs -R "dump /$file $tmp/$file" "$tmp/raw.img" 2>/dev/null
	is "the host reads the same $file" "$(sha "$tmp/$file")" "$data_sum"
done
debugfs -R "dump /data $tmp/q" "$tmp/qcow2.img" 2>/dev/null
is "the host reads the same from the qcow2 image" "$(sha "$tmp/q")" "$data_sum"

done_testing
