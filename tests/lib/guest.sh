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
}

# uml_start NAME SECONDS [KERNEL-ARGUMENT...] <SCRIPT
#
# The guest's memory is a file in TMPDIR, which must be a tmpfs; without trust
# in the CPU's random numbers it would wait for entropy; without the console
# options it would take over the terminal.
uml_start()
{
	local name=$1 seconds=$2 dir=$tmp/$1
	shift 2
	guest_dir "$name"
	TMPDIR=/dev/shm spawn "$name" timeout -k 1 "$seconds" \
		"$uml" mem="${guest_memory:-96}M" initrd="$initramfs" hostdir="$dir" uml_dir="$dir/uml" \
		con=null con0=null,fd:1 ssl=null random.trust_cpu=on "$@"
}

# guest_results NAME: what the guest's checks found, since the last call
guest_results()
{
	local line
	while IFS= read -r line; do
		case $line in
		"ok - "*) result 0 "$1: ${line#ok - }" ;;
		"not ok - "*) result 1 "$1: ${line#not ok - }" ;;
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
	[ ! -s "$dir/rc" ] || read -r rc <"$dir/rc"
	[ "$rc" = 0 ] || [ "$rc" = 1 ] # 1: a check failed, and says so itself
	result $? "$name: ran to its end" || note "exit status of the script: $rc"
}
