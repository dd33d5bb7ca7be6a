#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Live migration of a guest that writes to our disk and reads from it, between
# two QEMUs with a back-end each, on one image. Afterwards the disk holds all
# that was acknowledged before and since, and the guest's memory what the first
# back-end wrote to it.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires sha256sum

disk=$tmp/disk.img
truncate -s 64M "$disk"
wire=$tmp/wire
guest_cpus=2
# QEMU before 9.0 loses what an emulated processor writes while memory is copied,
# where the size of that memory is a multiple of 256 KiB: it clears the dirty
# bits word by word and leaves the processor's TLB as it was. 8 KiB more make it
# go page by page, which does it right.
guest_memory=$((128 * 1024 + 8))K

migration()
{
	qmp from query-migrate | sed -n 's/.*"status":"\([a-z-]*\)".*/\1/p'
}

migrated()
{
	case $(migration) in
	completed | failed | cancelled) return 0 ;;
	esac
	return 1
}

case ${migrates:=block} in
block)
	device=vhost-user-blk-pci node=/dev/vda
	;;
scsi)
	device=vhost-user-scsi-pci node=/dev/sda
	;;
esac
backend first "$migrates" --blk-file="$disk" --lock=off
first=$socket
backend second "$migrates" --blk-file="$disk" --lock=off
second=$socket

qemu_start from 120 -chardev "socket,id=c,path=$first" -device "$device,chardev=c" <<GUEST
node=$node
$(cat <<'REST'
[ $node = /dev/vda ] || modprobe -a virtio_scsi sd_mod
await 20 test -b $node
blkload $node 64 4 /stop 300 &
read -r word
echo "told: $word"
touch /stop
check "all acknowledged data is there, on disk and in memory" wait $!
echo "disk $(dd if=$node bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1)"
REST
)
GUEST
ok "the load is on" guest_await from 30 '^writes'

mkdir "$tmp/to"
cp "$tmp/from/initrd" "$tmp/to"
qemu_boot to 120 -chardev "socket,id=c,path=$second" -device "$device,chardev=c" \
	-incoming "unix:$wire"
ok "the other QEMU waits" await 20 test -S "$wire"
# slow enough for the load to write while memory is copied
ok "limits" qmp from migrate-set-parameters '{"max-bandwidth": 50000000, "downtime-limit": 300}'
ok "migrate" qmp from migrate "{\"uri\": \"unix:$wire\"}"
await 60 migrated
is "migration" "$(migration)" completed
note "$(qmp from query-migrate)"
qmp from quit >/dev/null
ok "the first QEMU ends" reap from 10
ok "the first back-end ends at SIGTERM" stop first

# written NAME: the last count that the load has reported
written()
{
	sed -n '1i 0
		s/^writes //p' "$tmp/$1/out" | tail -n 1
}

ok "the guest goes on in the other QEMU" guest_await to 20 '^writes'
ok "from $(written from) writes to $(written to)" test "$(written from)" -lt "$(written to)"
guest_tell to enough
mv "$tmp/to/out" "$tmp/to/rest"
reap to 60
cat "$tmp/from/out" "$tmp/to/rest" >"$tmp/to/out"
guest_results guest <"$tmp/to/out"
ok "the guest ran to its end" guest_said to '^rc=0'
ok "the host was heard in the other QEMU" guest_said to '^told: enough'
ok "the second back-end ends at SIGTERM" stop second
ok "the host has what the guest read" guest_said to "^disk $(sha256sum <"$disk" | cut -d ' ' -f 1)"

done_testing
