#!/bin/bash
# SPDX-License-Identifier: MIT
#
# libvirt starts our graphics for a domain with <driver name='vhostuser'/>: it
# finds our description file, asks for our capabilities, hands us one end of a
# socket pair, shows what the guest draws, and ends us with the domain.
#
# The daemon is a user's own, with directories in $tmp, in name spaces of users
# and processes: it takes root for an ordinary user, whose description files it
# reads, and nothing that it starts outlives it. The system's libvirt is neither
# asked nor configured.

limit=300
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

requires_qemu
requires libvirtd virsh unshare pgrep jq
qemu=$("$guestdir/build-qemu" --cached) || lacking "no QEMU of the backports (tests/guest/build-qemu gets it)"
picture=${builddir_abs:-.}/tests/guest/picture
[ -x "$picture" ] || lacking "$picture is not built"
apart=(unshare --user --map-user=1000 --map-group=1000 --pid --fork --kill-child --mount-proc)
"${apart[@]}" true 2>/dev/null || lacking "no name spaces of users and processes here"

export XDG_CONFIG_HOME=$tmp/config XDG_RUNTIME_DIR=$tmp/run XDG_CACHE_HOME=$tmp/cache XDG_DATA_HOME=$tmp/data \
	HOME=$tmp/home
mkdir -p "$tmp"/{config/libvirt,config/qemu/vhost-user,run,cache,data,home,libexec,bin}
cat >"$tmp/config/libvirt/qemu.conf" <<'CONFIG'
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
CONFIG

# Our file as it is installed, but before all others; the program says how it is called.
ln -s "$(realpath "$vum")" "$tmp/libexec/vhost-user-gpu"
sed "s|@backenddir@|$tmp/bin|" "$srcdir/data/60-vhost-user-multi-gpu.json.in" \
	>"$tmp/config/qemu/vhost-user/10-vhost-user-multi-gpu.json"
cat >"$tmp/bin/vhost-user-gpu" <<SCRIPT
#!/bin/sh
echo "\$*" >>$tmp/calls
exec $tmp/libexec/vhost-user-gpu "\$@"
SCRIPT
chmod 755 "$tmp/bin/vhost-user-gpu"

virsh()
{
	timeout $((60 * patience)) virsh -q -c "qemu:///session?socket=$tmp/run/libvirt/libvirt-sock" "$@"
}

# domain NAME [ACCELERATION]
domain()
{
	cat <<XML
<domain type='qemu'>
	<name>$1</name>
	<memory unit='MiB'>160</memory>
	<vcpu>1</vcpu>
	<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
	<os>
		<type arch='x86_64' machine='q35'>hvm</type>
		<kernel>$pc/vmlinux</kernel>
		<initrd>$tmp/guest/initrd</initrd>
		<cmdline>console=ttyS0 quiet panic=-1 random.trust_cpu=on report=ttyS0 modules=virtio_pci</cmdline>
	</os>
	<features><acpi/></features>
	<devices>
		<emulator>$qemu/qemu-system-x86_64</emulator>
		<controller type='usb' model='none'/>
		<memballoon model='none'/>
		<serial type='file'><source path='$tmp/$1.console'/></serial>
		<video>
			<driver name='vhostuser'/>
			<model type='virtio' heads='1'>${2-}</model>
		</video>
	</devices>
</domain>
XML
}

# ours: the processes that it started of us
ours()
{
	pgrep -f "^$tmp/libexec/vhost-user-gpu "
}

none_of_ours()
{
	! ours >/dev/null
}

# drawn NAME: is it on this domain's screen?
drawn()
{
	virsh screenshot "$1" "$tmp/screen.png" >"$tmp/picture.log" 2>&1 &&
		"$picture" "$tmp/screen.png" 7 1024 768 2>"$tmp/picture.log"
}

# starts NAME [ACCELERATION]
starts()
{
	rm -f "$tmp/calls"
	domain "$@" >"$tmp/$1.xml"
	logs+=("$1.console" "cache/libvirt/qemu/log/$1.log")
	ok "$1: libvirt creates the domain" virsh create "$tmp/$1.xml" || done_testing
	is "$1: it asked for our capabilities" "$(head -n 1 "$tmp/calls")" --print-capabilities
	is "$1: it started one of us" "$(ours | wc -l)" 1
	await 100 drawn "$1"
	result $? "$1: libvirt's screenshot is what the guest has drawn" || note <"$tmp/picture.log"
}

guest_dir guest <<'GUEST'
modprobe virtio-gpu
gpudraw 7 1024x768
sleep 1000
GUEST
(cd "$tmp/guest" && echo run.sh | cpio -o -H newc --quiet | gzip -1 >run.cpio.gz)
cat "$initramfs" "$pc/modules.cpio.gz" "$tmp/guest/run.cpio.gz" >"$tmp/guest/initrd"

# The shell, as the first process there, takes note of those that end.
# shellcheck disable=SC2016 # it is its own status
spawn_server libvirtd "$tmp/run/libvirt/libvirt-sock" "${apart[@]}" sh -c 'libvirtd --timeout 0; exit $?'
result $? "libvirt's daemon starts" || done_testing

starts first
like "first: with one end of a socket pair" "$(sed -n 2p "$tmp/calls")" '^--fd=[0-9]+$'
ok "first: libvirt stops it" virsh destroy first
ok "first: we end" await 10 none_of_ours

if "$vum" gpu --print-capabilities | jq -e '.features | index("virgl")' >/dev/null; then
	starts second "<acceleration accel3d='yes'/>"
	like "second: with 3D" "$(sed -n 2p "$tmp/calls")" '^--fd=[0-9]+ --virgl$'
else
	starts second
fi
kill -KILL "$(pgrep -f "^$qemu/.*guest=second,")"
ok "second: when QEMU is killed, we end" await 10 none_of_ours
domain_gone()
{
	! virsh domstate second 2>/dev/null | grep -q running
}
ok "second: libvirt saw it end" await 10 domain_gone

done_testing
