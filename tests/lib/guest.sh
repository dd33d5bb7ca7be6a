# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Sourced by the tests that boot a guest, instead of functions.sh.
#
#	backend disk block --blk-file="$tmp/disk"
#	uml_start guest 30 "virtio_uml.device=$socket:2" <<'GUEST'
#	is "size" "$(cat /sys/block/vda/size)" 8192
#	GUEST
#	guest_wait guest
#
# The script runs in the guest with busybox sh and tests/guest/check.sh. Its
# checks become TAP results here, its other output diagnostics. All it needs of
# the host while it runs goes through the shared directory $tmp/NAME, which
# User Mode Linux mounts at /host.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

guestdir=$srcdir/tests/guest
# shellcheck source=tests/guest/cache.sh
. "$guestdir/cache.sh"

# backend NAME TYPE [OPTION...]: starts the program under test on
# $tmp/NAME.sock; sets $socket
backend()
{
	local name=$1
	shift
	socket=$tmp/$name.sock
	spawn_server "$name" "$socket" "$vum" "$1" --socket-path="$socket" "${@:2}" && return
	result 1 "the back-end $name starts: $*"
	exit 1
}

# guest_dir NAME: the shared directory, with the script from standard input
guest_dir()
{
	local dir=$tmp/$1
	rm -rf "$dir"
	mkdir -p "$dir"
	{
		echo '. /lib/check.sh'
		cat
		echo guest_end
	} >"$dir/run.sh"
}

requires_uml()
{
	uml=$("$guestdir/build-uml" --cached) || lacking "no User Mode Linux kernel (tests/guest/build-uml makes it)"
	initramfs=$("$guestdir/build-initramfs") || lacking "no initramfs for the guest"
	cache_hold "$uml"
	cache_hold "$initramfs"
}

# roomy_shm: is there place for a guest's memory in /dev/shm? Containers have
# little.
roomy_shm()
{
	[ "$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1)" -ge 262144 ] 2>/dev/null
}

# Drivers of the test kernel that only some tests want. A test gives the argument again.
quiet_drivers=(cryptomgr.notests=1 null_blk.nr_devices=0 scsi_debug.add_host=0)

# uml_start NAME SECONDS [KERNEL-ARGUMENT...] <SCRIPT
#
# The guest's memory is a file in TMPDIR, best on a tmpfs; without trust in the
# CPU's random numbers it would wait for entropy; without the console options it
# would take over the terminal.
uml_start()
{
	local name=$1 seconds=$2 dir=$tmp/$1 memory=/dev/shm
	shift 2
	guest_dir "$name"
	roomy_shm || memory=$tmp
	TMPDIR=$memory spawn "$name" timeout -k 1 "$((seconds * patience))" \
		"$uml" mem="${guest_memory:-96M}" initrd="$initramfs" hostdir="$dir" uml_dir="$dir/uml" \
		con=null con0=null,fd:1 ssl=null random.trust_cpu=on "${quiet_drivers[@]}" "$@"
}

# guest_results NAME <OUTPUT: what the guest's checks found
guest_results()
{
	local line
	while IFS= read -r line; do
		case $line in
		"ok - "*) result 0 "$1: ${line#ok - }" ;;
		"not ok - "*) result 1 "$1: ${line#not ok - }" ;;
		rc=*) ;;
		*) note "$1: $line" ;;
		esac
	done
}

# guest_wait NAME: waits until the guest has halted, gives its results
guest_wait()
{
	local name=$1 dir=$tmp/$1 rc=none
	reap "$name" 600
	[ ! -r "$dir/out" ] || guest_results "$name" <"$dir/out"
	if [ -s "$dir/rc" ]; then
		read -r rc <"$dir/rc"
	elif [ -s "$dir/out" ]; then
		rc=$(sed -n '$s/^rc=//p' "$dir/out")
	fi
	[ "$rc" = 0 ] || [ "$rc" = 1 ] # 1: a check failed, and says so itself
	result $? "$name: ran to its end" || note "exit status of the script: $rc"
}

# uml_runs NAME SECONDS PROGRAM [KERNEL-ARGUMENT...]: a guest that sees the host's files and runs that TAP program, and the
# back-end, itself; $guest_environment: NAME=VALUE... for them
uml_runs()
{
	local name=$1 seconds=$2 program=$3
	shift 3
	cat >"$tmp/$name.script" <<GUEST
mkdir /tmp/root
mount -t hostfs -o / none /tmp/root
for dir in dev proc sys; do
	mount -o bind /\$dir /tmp/root/\$dir
done
mkdir -p /dev/shm
mount -t tmpfs shm /tmp/root/dev/shm
chroot /tmp/root env TMPDIR=/dev/shm FE_LIMIT=30000 ${guest_environment-} VUM='$(realpath "$vum")' '$(realpath "$program")' >/host/tap
is "exit status of the program" \$? 0
sed -nE 's/^((not )?ok) [0-9]+ - /\1 - /p; /^#/p' /host/tap
is "all cases were run" "\$(grep -cE '^(not )?ok .* - ' /host/tap)" "\$(sed -n 's/^1\.\.//p' /host/tap)"
GUEST
	uml_start "$name" "$seconds" "$@" <"$tmp/$name.script"
	guest_wait "$name"
}

# ---- guests that QEMU emulates ----

declare -A guest_input=()

requires_qemu()
{
	pc=$("$guestdir/build-pc" --cached) || lacking "no PC kernel (tests/guest/build-pc makes it)"
	initramfs=$("$guestdir/build-initramfs") || lacking "no initramfs for the guest"
	cache_hold "$pc"
	cache_hold "$initramfs"
	requires qemu-system-x86_64
}

# qemu_boot NAME SECONDS [QEMU-ARGUMENT...]: what qemu_start does, with a guest
# directory that is there already
qemu_boot()
{
	local name=$1 seconds=$2 dir=$tmp/$1 input
	shift 2
	[ -n "${guest_reboots-}" ] || set -- -no-reboot "$@"
	mkfifo "$dir/port.in"
	: >"$dir/out"
	ln -s out "$dir/port.out"
	exec {input}<>"$dir/port.in"
	guest_input[$name]=$input
	logs+=("$name/console")
	spawn "$name" timeout -k 1 "$((seconds * patience))" qemu-system-x86_64 \
		-machine q35,accel=tcg,memory-backend=memory -nodefaults -display none -smp "${guest_cpus:-1}" \
		-object "memory-backend-memfd,id=memory,share=on,size=${guest_memory:-192M}" \
		-kernel "$pc/vmlinux" -initrd "$dir/initrd" \
		-append "console=ttyS0 quiet panic=-1 no_timer_check random.trust_cpu=on report=ttyS1 modules=virtio_pci,virtio_blk,virtio-rng,ext4,crc32c_generic" \
		-serial "file:$dir/console" \
		-chardev "pipe,id=report,path=$dir/port" -serial chardev:report \
		-qmp "unix:$dir/qmp,server=on,wait=off" "$@"
}

# qemu_start NAME SECONDS [QEMU-ARGUMENT...] <SCRIPT
#
# The script's standard input is what guest_tell sends. A guest that reboots,
# say in a panic, ends; unless guest_reboots=1.
qemu_start()
{
	local name=$1 dir=$tmp/$1
	guest_dir "$name"
	(cd "$dir" && echo run.sh | cpio -o -H newc --quiet | gzip -1 >run.cpio.gz)
	cat "$initramfs" "$pc/modules.cpio.gz" "$dir/run.cpio.gz" >"$dir/initrd"
	qemu_boot "$@"
}

# qmp NAME COMMAND [JSON-ARGUMENTS]
qmp()
{
	"${builddir_abs:-.}/tests/guest/qmp" "$tmp/$1/qmp" "${@:2}"
}

# guest_tell NAME LINE
guest_tell()
{
	echo "$2" >&"${guest_input[$1]}"
}

# guest_said NAME REGEX: has it printed such a line?
guest_said()
{
	grep -q -a -E -e "$2" "$tmp/$1/out" 2>/dev/null
}

guest_said_or_gone()
{
	guest_said "$@" || gone "$1"
}

# guest_await NAME SECONDS REGEX: waits for such a line, or the guest's end
guest_await()
{
	await "$2" guest_said_or_gone "$1" "$3"
	guest_said "$1" "$3"
}
