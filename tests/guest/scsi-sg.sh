#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Pass-through of real SCSI devices: those of a guest, which are ours too. The
# guest runs the program once more, on its /dev/sg0 and /dev/sda, and the device
# test against it; what that wrote is here in the end.

limit=240
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_uml
program=${builddir_abs:-.}/tests/device/scsi-sg
[ -x "$program" ] || lacking "$program is not built"

disk=$tmp/disk.img
truncate -s 4M "$disk"
head -c 64k /dev/zero | tr '\0' c >"$tmp/cd.iso"
backend host scsi --lun="0:0,file=$disk" --lun=1:0,null=1M,iops=10,iops-burst=1 --lun="2:0,file=$tmp/cd.iso,cdrom" \
	--lun=3:0,null=1M,iops=1,iops-burst=1
guest_memory=192M guest_environment="SCSI_HOST=0" uml_runs inner 200 "$program" virtio_uml.device="$socket:8"
ok "the last case was run" grep -q "^ok .*last words" "$tmp/inner/tap"
ok "the back-end ends at SIGTERM" stop host
is "the host has what was written last" \
	"$(dd if="$disk" bs=4096 skip=512 count=1 2>/dev/null | sort | uniq -c | tr -s ' ')" " 256 passed on to it"
done_testing
