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
is "which leaves zeroes" "$(cat "$units/0:0:0:0"/scsi_disk/*/zeroing_mode)" writesame_16_unmap
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

# ---- what tools make of it; units that come, go and grow ----

extra=$tmp/extra.img
truncate -s 16M "$extra"
cp "$tmp/data" "$tmp/extra.orig"
dd if="$tmp/data" of="$extra" bs=1M count=4 conv=notrunc 2>/dev/null
backend disk scsi --lun="0:0,file=$disk,serial=CARGO-0815,reservations=$tmp/keys" --control-path="$tmp/control" --initiator=first
uml_start tools 60 virtio_uml.device="$socket:8" <<'GUEST'
quietly() { "$@" >/tmp/out 2>&1 || { cat /tmp/out; return 1; }; }
# says PATTERN COMMAND...: it succeeds, with a line like that
says() { says_what=$1; shift; quietly "$@" && { grep -qE -e "$says_what" /tmp/out || { cat /tmp/out; return 1; }; }; }
check "INQUIRY" says "^ Vendor identification: VHOSTUSR" sg_inq /dev/sda
check "version descriptors" says SPC-4 sg_inq -d /dev/sda
check "vital product data" says "Block limits" sg_inq -e -p 0 /dev/sda
check "all of it" says "Unit serial number: CARGO-0815" sg_vpd -a /dev/sda
check "page sn" says "Unit serial number: CARGO-0815" sg_vpd -p sn /dev/sda
check "page di" says "vendor specific: CARGO-0815" sg_vpd -p di /dev/sda
check "page ei" says "SIMPSUP=1" sg_vpd -p ei /dev/sda
check "page bl" says "Maximum compare and write length: 128 blocks" sg_vpd -p bl /dev/sda
check "page bdc" says "Non-rotating medium" sg_vpd -p bdc /dev/sda
check "page lbpv" says "Unmap command supported .LBPU.: 1" sg_vpd -p lbpv /dev/sda
check "unmapped blocks read as zeroes" says "LBPRZ.: 1" sg_vpd -p lbpv /dev/sda
check "mode pages are shared" says "Policy page code: 0x3f,0xff|shared" sg_vpd -p mpp /dev/sda
check "a port" says "elative port=1" sg_vpd -p sp /dev/sda
is "READ CAPACITY" "$(sg_readcap -b --16 /dev/sda)" "0x20000 0x200"
check "mode pages" says "08 12 04" sg_modes -a /dev/sda
check "opcodes" quietly sg_opcodes /dev/sda
is "all are there" "$(grep -cE "^ [0-9a-f]{2} " /tmp/out)" 53
check "COMPARE AND WRITE is one of them" says "89 f8 ff ff ff ff ff ff ff ff 00 00 00 ff 3f 04" sg_opcodes --opcode=0x89 /dev/sda
check "task management functions" says "Query task$" sg_opcodes --tmf /dev/sda
is "seven of them" "$(grep -c "^    " /tmp/out)" 7
check "the list of units" says "Report luns \[select_report=0x0\]|Lun list length = 8" sg_luns /dev/sda

dd if=/dev/urandom of=/tmp/a bs=512 count=1 2>/dev/null
dd if=/dev/urandom of=/tmp/b bs=512 count=1 2>/dev/null
dd if=/tmp/a of=/dev/sda bs=512 count=1 oflag=direct 2>/dev/null
cat /tmp/a /tmp/b >/tmp/ab
check "compare and write" quietly sg_compare_and_write --in=/tmp/ab --lba=0 --num=1 /dev/sda
sg_compare_and_write --in=/tmp/ab --lba=0 --num=1 /dev/sda
is "a second time: miscompare" $? 14
is "b is there" "$(dd if=/dev/sda bs=512 count=1 iflag=direct 2>/dev/null | cmp - /tmp/b && echo yes)" yes
check "verify" quietly sg_verify --lba=0 --count=8 /dev/sda
check "write same" quietly sg_write_same --16 --in=/tmp/a --lba=8 --num=64 /dev/sda
is "it is there" "$(dd if=/dev/sda bs=512 skip=71 count=1 iflag=direct 2>/dev/null | cmp - /tmp/a && echo yes)" yes
check "unmap" quietly sg_unmap --lba=8 --num=64 --force /dev/sda
is "zeroes" "$(dd if=/dev/sda bs=512 skip=8 count=64 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" 0
dd if=/tmp/ab of=/dev/sda bs=512 seek=72 count=2 oflag=direct 2>/dev/null
extents()
{
	sg_get_lba_status --maxlen="$2" --lba="$1" /dev/sda | sed -n 's,.*LBA: 0x0*\([0-9a-f]*[0-9a-f]\)  blocks: *,\1 ,p' | tr '\n' ';'
}
is "LBA status" "$(extents 0 40)" "0 8  mapped (or unknown);8 64  deallocated;"
is "behind it" "$(extents 72 24 | cut -d " " -f 1,3-)" "48  mapped (or unknown);"
is "of one extent" "$(extents 10 24)" "a 62  deallocated;"
check "a reset of the unit" quietly sg_reset --device /dev/sda
check "it goes on after that" quietly dd if=/dev/sda of=/tmp/x bs=512 count=1 iflag=direct
check "register" quietly sg_persist --out --register --param-sark=abc1 --param-aptpl /dev/sda
check "reserve" quietly sg_persist --out --reserve --param-rk=abc1 --prout-type=3 /dev/sda
is "the key" "$(sg_persist -k /dev/sda | grep -c 0xabc1)" 1
is "the reservation" "$(sg_persist -r /dev/sda | grep -c 'Exclusive Access')" 1
check "full status" says "Key=0xabc1" sg_persist -s /dev/sda
check "it may still write" quietly dd if=/dev/zero of=/dev/sda bs=512 count=1 oflag=direct

# partitions, and space given back, where the units end
check "label" quietly parted -s /dev/sda mklabel gpt
check "partitions" quietly parted -s /dev/sda mkpart one 1MiB 16MiB mkpart two ext4 16MiB 100%
check "parted finds them" says "^ 2 .*two" parted -s /dev/sda print
check "so does the kernel" await 10 test -b /dev/sda2
check "mkfs in one" quietly mkfs.ext4 -q /dev/sda2
dd if=/dev/urandom of=/dev/sda1 bs=1M count=15 oflag=direct 2>/dev/null
check "discard" quietly /sbin/blkdiscard -o 4M -l 8M /dev/sda1
is "zeroes there" "$(dd if=/dev/sda1 bs=1M skip=4 count=8 iflag=direct 2>/dev/null | tr -d "\0" | wc -c)" 0
check "zero" quietly /sbin/blkdiscard -z -o 1M -l 1M /dev/sda1
is "zeroes there too" "$(dd if=/dev/sda1 bs=1M skip=1 count=1 iflag=direct 2>/dev/null | tr -d "\0" | wc -c)" 0
is "and nowhere else" "$(dd if=/dev/sda1 bs=1M skip=2 count=2 iflag=direct 2>/dev/null | tr -d "\0" | wc -c | cut -c 1-3)" 208
sync

echo ready >/host/ready
check "a unit comes" await 10 test -b /dev/sdb
is "with its data" "$(dd if=/dev/sdb bs=1M count=4 2>/dev/null | cmp -n 4194304 - /host/data && echo yes)" yes
echo ready >/host/ready2
grown() { [ "$(cat /sys/block/sdb/size)" = 49152 ]; }
check "it grows" await 10 grown
check "there is data in the new part" quietly dd if=/tmp/ab of=/dev/sdb bs=512 seek=49150 count=2 oflag=direct
is "that can be read" "$(dd if=/dev/sdb bs=512 skip=49150 count=2 iflag=direct 2>/dev/null | cmp - /tmp/ab && echo yes)" yes
check "format" quietly sg_format --format --quick --wait /dev/sdb
is "nothing is left" "$(dd if=/dev/sdb bs=1M count=4 iflag=direct 2>/dev/null | tr -d '\0' | wc -c)" 0
echo ready >/host/ready3
check "it goes" await 10 test ! -e /sys/block/sdb
GUEST
cp "$tmp/data" "$tmp/tools/data"
ok "the guest uses the disk" await 30 test -e "$tmp/tools/ready"
ok "add a unit" "$vum" ctl "$tmp/control" lun-add lun="2:5,file=$extra"
ok "the guest has it" await 30 test -e "$tmp/tools/ready2"
ok "make it longer" "$vum" ctl "$tmp/control" resize lun=2:5 size=24M
ok "the guest uses that" await 30 test -e "$tmp/tools/ready3"
ok "take it away" "$vum" ctl "$tmp/control" lun-remove lun=2:5
guest_wait tools
ok "the back-end ends at SIGTERM" stop disk

# another initiator finds the reservation of the first
backend disk scsi --lun="0:0,file=$disk,reservations=$tmp/keys" --initiator=second
uml_start conflict 60 virtio_uml.device="$socket:8" <<'GUEST'
quietly() { "$@" >/tmp/out 2>&1 || { cat /tmp/out; return 1; }; }
is "the key is still there" "$(sg_persist -k /dev/sda | grep -c 0xabc1)" 1
refuse "no write" quietly dd if=/dev/zero of=/dev/sda bs=512 count=1 oflag=direct
refuse "no read" quietly dd if=/dev/sda of=/tmp/x bs=512 count=1 iflag=direct
check "register" quietly sg_persist --out --register --param-sark=def2 /dev/sda
check "preempt" quietly sg_persist --out --preempt --param-rk=def2 --param-sark=abc1 --prout-type=1 /dev/sda
check "write" quietly dd if=/dev/zero of=/dev/sda bs=512 count=1 oflag=direct
GUEST
guest_wait conflict
ok "the back-end ends at SIGTERM" stop disk

done_testing
