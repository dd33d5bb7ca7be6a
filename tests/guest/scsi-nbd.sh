#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest's SCSI disks on NBD servers: nbdkit's memory and a file of nbdkit's, and a qcow2 image of qemu-nbd's. Under
# load the file's and the image's servers are killed and started again, and the memory's hangs while the guest resets the unit
# (Linux never aborts what takes long here). Each block holds what was acknowledged last. Unmapped blocks are told apart, and go from the image.

limit=150
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
requires nbdkit qemu-nbd qemu-img
! "$vum" block --nbd=none --socket-path="$tmp/none" 2>&1 | grep -q "built without" || lacking "built without libnbd"

# serve NAME: starts that server
serve()
{
	local socket=$tmp/$1.nbd
	rm -f "$socket"
	case $1 in
	memory) spawn_server memory "$socket" nbdkit -f -U "$socket" memory 16M ;;
	file) spawn_server file "$socket" nbdkit -f -U "$socket" file "$tmp/file.img" ;;
	image) spawn_server image "$socket" qemu-nbd -t -f qcow2 -e 8 --discard=unmap -k "$socket" "$tmp/image.qcow2" ;;
	esac
}

# asks NAME: does the guest want something, or is it gone?
asks()
{
	[ -e "$tmp/guest/$1" ] || gone guest
}

# unit NAME: as an option
unit()
{
	echo "nbd=nbd+unix:///?socket=$tmp/$1.nbd,serial=$1"
}

# has_space: how many bytes of the image have space behind them
has_space()
{
	qemu-img map -U --output=json "$tmp/image.qcow2" | sed -n 's/.*"length": \([0-9]*\).*"data": true.*/\1/p' | awk '{ n += $1 } END { print n + 0 }'
}

truncate -s 16M "$tmp/file.img"
qemu-img create -q -f qcow2 "$tmp/image.qcow2" 32M
for server in memory file image; do
	ok "$server: its server starts" serve $server
done

# of the image's server only what was flushed survives a kill
backend disks scsi --lun="0:0,$(unit memory)" --lun="0:1,$(unit file)" --lun="0:2,$(unit image),writethrough" --threads=2
uml_start guest 120 virtio_uml.device="$socket:8" <<'GUEST'
await 10 test -e /sys/bus/scsi/devices/0:0:0:2/block
disk()
{
	basename "/sys/bus/scsi/devices/0:0:0:$1/block"/*
}
extents()
{
	sg_get_lba_status --maxlen="$2" --lba="$1" "/dev/$(disk 2)" | sed -n 's,.*LBA: 0x0*\([0-9a-f]*[0-9a-f]\)  blocks: *,\1 ,p' | tr '\n' ';'
}
is "nothing has space yet" "$(extents 0 24)" "0 65536  deallocated;"
dd if=/dev/urandom of="/dev/$(disk 2)" bs=64k count=32 seek=16 oflag=direct 2>/dev/null
is "what was written has" "$(extents 0 72)" "0 2048  deallocated;800 4096  mapped (or unknown);1800 59392  deallocated;"
check "unmap" sg_unmap --lba=4096 --num=1024 --force "/dev/$(disk 2)"
is "what was unmapped has not" "$(extents 2048 72)" "800 2048  mapped (or unknown);1000 1024  deallocated;1400 1024  mapped (or unknown);1800 59392  deallocated;"
check "flush" sg_sync "/dev/$(disk 2)"
: >/host/unmapped

for n in 0 1 2; do
	blkload "/dev/$(disk $n)" 16 2 /host/stop 90 >/tmp/load.$n 2>&1 &
	eval "load_$n=$!"
done
running()
{
	grep -q running /tmp/load.0 && grep -q running /tmp/load.1 && grep -q running /tmp/load.2
}
check "all are under load" await 30 running
: >/host/loaded
check "a server hangs" await 60 test -e /host/hangs
check "a reset of its unit" sg_reset --device "/dev/$(disk 0)"
for n in 0 1 2; do
	eval "wait \$load_$n"
	result $? "disk $n: the load's data is right"
	tail -n 1 /tmp/load.$n
done
GUEST

ok "the guest unmapped a part" await 60 asks unmapped
is "the image has no space for it" "$(has_space)" $((3 << 19))
ok "the guest has begun" await 60 asks loaded
kill -STOP "${child_pid[memory]}"
sleep 0.1 # in which requests come to it
: >"$tmp/guest/hangs"
for n in 1 2 3; do
	for server in file image; do
		stop $server KILL
		ok "$server: again, round $n" serve $server
	done
	sleep 0.3 # under load again
done
gave_up()
{
	grep -q "memory.nbd: the server does not answer" "$tmp/disks.log" || gone guest
}
ok "the server that hangs is given up" await 60 gave_up
kill -CONT "${child_pid[memory]}"
sleep 0.5 # in which the load goes on there
: >"$tmp/guest/stop"
guest_wait guest
ok "the back-end ends at SIGTERM" stop disks
for server in memory file image; do
	ok "$server: its server ends" stop $server
done
qemu-img check -q "$tmp/image.qcow2"
like "the image is sound, but for clusters that a killed server may leave" $? '^[03]$'
done_testing
