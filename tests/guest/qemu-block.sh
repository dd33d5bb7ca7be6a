#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end and four emulated processors on our disk: a queue for each of
# them, a guest that reboots, a back-end that is killed and started again under
# load, again and again.

limit=240
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires e2fsck debugfs sha256sum

disk=$tmp/disk.img
truncate -s 64M "$disk"
guest_cpus=4

# ---- reboot ----

backend disk block --blk-file="$disk" --serial=CARGO-0815
guest_reboots=1 qemu_start reboot 100 -chardev "socket,id=c,path=$socket" -device vhost-user-blk-pci,chardev=c <<'GUEST'
if ! mount -t ext4 /dev/vda /mnt 2>/dev/null; then
	is "64 MiB" "$(cat /sys/block/vda/size)" 131072
	is "serial" "$(cat /sys/block/vda/serial)" CARGO-0815
	is "a queue per processor" "$(echo /sys/block/vda/mq/*)" \
		"/sys/block/vda/mq/0 /sys/block/vda/mq/1 /sys/block/vda/mq/2 /sys/block/vda/mq/3"
	check "mkfs" mkfs.ext4 -q /dev/vda
	check "mount" mount -t ext4 /dev/vda /mnt
	for n in 1 2 3 4; do
		dd if=/dev/urandom of=/mnt/$n bs=64k count=32 2>/dev/null &
	done
	wait
	check "sums" eval 'cd /mnt && sha256sum 1 2 3 4 >sums'
	cd /
	check "umount" umount /mnt
	echo "rebooting"
	drain
	reboot -f
fi
check "data after a reboot" eval 'cd /mnt && sha256sum -c sums >/dev/null'
echo "sums $(sha /mnt/sums)"
cd /
umount /mnt
GUEST
guest_wait reboot
ok "it did reboot" guest_said reboot '^rebooting$'
ok "the back-end ends at SIGTERM" stop disk
ok "the image is a sound file system" e2fsck -fn "$disk"
for file in sums 1 2 3 4; do
	debugfs -R "dump /$file $tmp/$file" "$disk" 2>/dev/null
done
ok "the host reads the same data" env -C "$tmp" sha256sum -c sums
ok "by the same sums" guest_said reboot "^sums $(sha256sum <"$tmp/sums" | cut -d ' ' -f 1)"

# ---- kill -9 under load ----

backend victim block --blk-file="$disk"
qemu_start load 120 -chardev "socket,id=c,path=$socket,reconnect=1" -device vhost-user-blk-pci,chardev=c <<'GUEST'
blkload /dev/vda 64 8 /stop 100 &
read -r word
touch /stop
check "all acknowledged data is there" wait $!
is "and so the host said" "$word" enough
echo "disk $(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1)"
GUEST
# written: how many writes the guest has reported
written()
{
	sed -n '1i 0
		s/^writes //p' "$tmp/load/out" | tail -n 1
}

# beyond COUNT: has it made more, or ended?
beyond()
{
	[ "$(written)" -gt "$1" ] || gone load
}

ok "the load is on" guest_await load 30 '^running$'
for round in 1 2 3; do
	await 30 beyond "$(written)"
	status=0
	stop victim KILL || status=$?
	is "killed, round $round" $status 137
	count=$(written)
	backend victim block --blk-file="$disk"
	# the first report may be about the time before
	await 30 beyond "$count"
	count=$(written)
	await 30 beyond "$count"
	ok "the writers go on after $count" test "$(written)" -gt "$count"
done
guest_tell load enough
guest_wait load
ok "the back-end ends at SIGTERM" stop victim
ok "the host has what the guest read" guest_said load "^disk $(sha256sum <"$disk" | cut -d ' ' -f 1)"

done_testing
