#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end and four emulated processors on our disk: a queue for each of
# them, a guest that reboots, an image that becomes larger, a back-end that is
# killed and started again under load, again and again.

limit=300
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
echo growing
check "it has become larger" await 20 eval '[ "$(cat /sys/block/vda/size)" = 196608 ]'
check "its new end is there" dd if=/dev/vda of=/dev/null bs=1M skip=95 count=1 iflag=direct
GUEST
guest_await reboot 100 '^growing$'
truncate -s 96M "$disk"
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

# written GUEST: how many writes it has reported
written()
{
	sed -n '1i 0
		s/^writes //p' "$tmp/$1/out" | tail -n 1
}

# beyond GUEST COUNT: has it made more, or ended?
beyond()
{
	[ "$(written "$1")" -gt "$2" ] || gone "$1"
}

# killing NAME TIMES DEVICE-PROPERTIES: the guest NAME writes, the back-end dies
killing()
{
	local name=$1 times=$2 properties=$3 round count status
	backend victim block --blk-file="$disk"
	qemu_start "$name" 100 -chardev "socket,id=c,path=$socket,reconnect=1" \
		-device "vhost-user-blk-pci,chardev=c$properties" <<-'GUEST'
			blkload /dev/vda 64 16 /stop 300 &
			read -r word
			touch /stop
			check "all acknowledged data is there" wait $!
			is "and so the host said" "$word" enough
			echo "disk $(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1)"
		GUEST
	ok "$name: the load is on" guest_await "$name" 90 '^running$'
	for ((round = 1; round <= times; round++)); do
		await 30 beyond "$name" "$(written "$name")"
		status=0
		stop victim KILL || status=$?
		is "$name: killed, round $round" $status 137
		count=$(written "$name")
		backend victim block --blk-file="$disk"
		# the first report may be about the time before
		await 30 beyond "$name" "$count"
		count=$(written "$name")
		await 30 beyond "$name" "$count"
		ok "$name: the writers go on after $count" test "$(written "$name")" -gt "$count"
	done
	guest_tell "$name" enough
	guest_wait "$name"
	ok "$name: the back-end ends at SIGTERM" stop victim
	ok "$name: the host has what the guest read" \
		guest_said "$name" "^disk $(sha256sum <"$disk" | cut -d ' ' -f 1)"
}

killing queues 2 ""
# in one queue, requests overtake each other: only the front-end's record of
# those in flight tells which ones were lost
killing overtaking 3 ,num-queues=1

done_testing
