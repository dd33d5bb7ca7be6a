#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Figures, one line each: ring code, block against qemu-storage-daemon, rng's
# start and size, input's latency, net against DPDK's testpmd (of build-dpdk) and QEMU's own card, gpu against QEMU's own vhost-user-gpu and its built-in card (of build-qemu). Columns: name, ours, the daemon's, the ratio ours/daemon's,
# unit, and where there is one the target and whether it was met.
#
#	BENCH_SECONDS=S	length of a slice (0.5; 0.1 is for a quick look)
#	BENCH_SLICES=N	slices per back-end and figure (5); medians are printed
#	BENCH_ONLY=RE	only figures whose group matches: ring, control, balloon, crypto, null, tmpfs, file, nbd, scsi, 9p, net, vsock, console, rng, input, gpu
#	BENCH_DIR=DIR	where the real file is made (the current directory)
#	BENCH_ARGS=...	more options for our back-end
#
# The load generator (blkbench) has CPU 0 for itself, all back-ends share CPU 1
# and take turns, so a figure is what one core can do. cpu figures count the
# requests per second of the back-end's own processor time, all its threads.
# The generator behaves like a guest: it sleeps until the interrupt. In figures
# with "spin" it looks at the ring instead, and never asks for an interrupt.
#
# The daemon is measured twice: "uring" has aio=io_uring and an iothread (which
# polls, as is its default), "threads" has aio=threads and no iothread.
#
# In figures of vsock the daemon is a bare Unix socket with the same writes and reads.

limit=900
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib/guest.sh"

seconds=${BENCH_SECONDS:-0.5}
slices=${BENCH_SLICES:-5}
size=$((128 << 20))
blkbench=${BLKBENCH:-./tests/bench/blkbench}
p9bench=${P9BENCH:-./tests/bench/9pbench}
netbench=${NETBENCH:-./tests/bench/netbench}
portbench=${PORTBENCH:-./tests/bench/portbench}
vsockbench=${VSOCKBENCH:-./tests/bench/vsockbench}
startbench=${STARTBENCH:-./tests/bench/startbench}
balloonbench=${BALLOONBENCH:-./tests/bench/balloonbench}
cryptobench=${CRYPTOBENCH:-./tests/bench/cryptobench}
inputbench=${INPUTBENCH:-./tests/bench/inputbench}
gpubench=${GPUBENCH:-./tests/bench/gpubench}
generator=0
core=$(($(nproc) > 1 ? 1 : 0))
read -ra more <<<"${BENCH_ARGS-}"
dirs=("$tmp")
inside=() # of a network of its own: what commands begin with
declare -A got=()

# figure NAME OURS PEER RATIO UNIT [least|most TARGET]; - where there is none
figure()
{
	local verdict=
	[ $# -lt 7 ] || verdict=$(awk -v kind="$6" -v target="$7" -v value="$([ "$4" = - ] && echo "$2" || echo "$4")" \
		'BEGIN { met = kind == "least" ? value >= target : value <= target
			printf "%s %s %s", kind == "least" ? ">=" : "<=", target, met ? "met" : "MISSED" }')
	printf '%-36s %10s %10s %6s  %-12s %s\n' "$1" "$2" "$3" "$4" "$5" "$verdict"
}

# over A B: A/B
over()
{
	awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}

wanted()
{
	[[ $1 =~ ${BENCH_ONLY-} ]]
}

# what is in $tmp/out, a line "NAME KEY=VALUE..." per target, goes to got[NAME.KEY]
read_figures()
{
	local name line pair
	while read -r name line; do
		for pair in $line; do
			got[$name.${pair%%=*}]=${pair#*=}
		done
	done <"$tmp/out"
}

# measure TARGETS... -- OPTION...: fills got[NAME.KEY]
measure()
{
	local targets=() prefix
	while [ "$1" != -- ]; do
		prefix=
		[ "$1" != scsi ] || prefix=scsi:
		targets+=("$1=$prefix$tmp/$1.sock:${child_pid[$1]}")
		shift
	done
	shift
	"$blkbench" cpu=$generator seconds="$seconds" slices="$slices" "$@" "${targets[@]}" >"$tmp/out" || {
		note <"$tmp/out"
		exit 1
	}
	read_figures
}

# ours NAME OPTION...
ours()
{
	local name=$1
	shift
	spawn_server "$name" "$tmp/$name.sock" taskset -c "$core" \
		"$vum" block --socket-path="$tmp/$name.sock" "$@" "${more[@]}"
}

# daemon NAME BLOCKDEV [EXPORT-OPTION [OPTION...]]
daemon()
{
	local name=$1 blockdev=$2 export=${3-}
	shift 2
	[ $# -eq 0 ] || shift
	spawn_server "$name" "$tmp/$name.sock" taskset -c "$core" qemu-storage-daemon "$@" \
		--blockdev "node-name=disk,$blockdev" \
		--export "vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=$tmp/$name.sock,writable=on,num-queues=2$export"
}

# serve FILE | serve: ours and the two of the daemon, on a file or on no disk
serve()
{
	local file=${1-}
	if [ -n "$file" ]; then
		ours ours --blk-file="$file" --lock=off &&
			daemon uring "driver=file,filename=$file,locking=off,aio=io_uring" ,iothread=t --object iothread,id=t &&
			daemon threads "driver=file,filename=$file,locking=off,aio=threads"
	else
		ours ours --null="$size" --packed=on &&
			daemon uring "driver=null-co,size=$size,read-zeroes=off" ,iothread=t --object iothread,id=t &&
			daemon threads "driver=null-co,size=$size,read-zeroes=off"
	fi || exit 1
}

unserve()
{
	stop ours
	stop uring
	stop threads
}

# compare NAME [OPTION...]: ours against both of the daemon's, four lines
compare()
{
	local name=$1 peer iops=() cpu=()
	shift
	case $name in
	*.d1) iops=(least 1.00) ;;
	null.*) ;;
	nbd.*) iops=(least 1.00) cpu=(least 0.90) ;; # both mostly wait for the server and its socket
	*.d32) cpu=(least 2.00) ;;
	esac
	measure ours uring threads -- "$@"
	for peer in uring threads; do
		figure "$name.iops/$peer" "${got[ours.iops]}" "${got[$peer.iops]}" "${got[$peer.iops_ratio]}" \
			req/s "${iops[@]}"
		figure "$name.cpu/$peer" "${got[ours.cpu_iops]}" "${got[$peer.cpu_iops]}" "${got[$peer.cpu_ratio]}" \
			req/cpu-s "${cpu[@]}"
	done
	figure "$name.p99" "${got[ours.p99_us]}" "${got[uring.p99_us]}" - us
}

rings()
{
	local ring depth
	ours ours --null="$size" --packed=on || exit 1
	for ring in {split,packed}{,+event-idx}{,+indirect}; do
		for depth in 1 32; do
			measure ours -- ring="$ring" depth=$depth op=randread wait=spin
			figure "ring.$ring.d$depth.cpu" "${got[ours.cpu_ns]}" - - ns/req
			figure "ring.$ring.d$depth.iops" "${got[ours.iops]}" - - req/s
		done
	done
	stop ours
}

nulls()
{
	serve
	compare null.randread4k.d1 depth=1 op=randread
	compare null.randread4k.spin1 depth=1 op=randread wait=spin
	compare null.randread4k.d32 depth=32 op=randread
	compare null.randread4k.spin32 depth=32 op=randread wait=spin
	figure null.randread4k.spin32.rate "${got[ours.iops]}" - - req/s least 1500000
	unserve
}

# files NAME DIRECTORY
files()
{
	local dir op depth
	dir=$(mktemp -d "$2/bench.XXXXXX") || exit 1
	dirs+=("$dir")
	# in small pieces: newer kernels would make the page cache's folios so large that a write's cost is finding its place
	dd if=/dev/urandom bs=1M count=$((size >> 20)) iflag=fullblock status=none |
		dd of="$dir/disk" bs=4k iflag=fullblock conv=fsync status=none || exit 1
	serve "$dir/disk"
	for op in read write; do
		for depth in 1 32; do
			compare "$1.rand${op}4k.d$depth" depth=$depth op=rand$op
		done
		compare "$1.${op}128k.d8" depth=8 op=$op size=$((128 << 10))
	done
	compare "$1.randread4k.q2d16" depth=16 queues=2 op=randread
	unserve
	rm -rf "$dir"
}

# An NBD server between us and the memory, the same one for ours and the
# daemon's. Its time counts for nobody; it shares the generator's processor.
nbds()
{
	local op depth
	spawn_server nbd "$tmp/nbd.server" taskset -c "$generator" nbdkit -f -U "$tmp/nbd.server" memory "$size" &&
		ours ours --nbd="nbd+unix:///?socket=$tmp/nbd.server" &&
		daemon uring "driver=nbd,server.type=unix,server.path=$tmp/nbd.server" ,iothread=t --object iothread,id=t &&
		daemon threads "driver=nbd,server.type=unix,server.path=$tmp/nbd.server" || exit 1
	for op in read write; do
		for depth in 1 32; do
			compare "nbd.rand${op}4k.depth$depth" depth=$depth op=rand$op
		done
		compare "nbd.${op}128k.depth8" depth=8 op=$op size=$((128 << 10))
	done
	unserve
	stop nbd
}

start()
{
	local pair
	VUM=$vum "$startbench" >"$tmp/out" || {
		note <"$tmp/out"
		exit 1
	}
	tr ' ' '\n' <"$tmp/out" >"$tmp/pairs"
	while read -r pair; do
		got[${pair%%=*}]=${pair#*=}
	done <"$tmp/pairs"
	figure rng.ready "${got[ready_us]}" - - us most 10000
	figure rng.rss "${got[rss_kib]}" - - KiB most 5120
	figure rng.pss "${got[pss_kib]}" - - KiB
	figure rng.end "${got[end_us]}" - - us most 100000
}

# frames PROGRAM NAME [ARGUMENT...]: one slice of frames; adds to $tmp/NAME.KEY
frames()
{
	local program=$1 name=$2 line pair
	line=$(VUM=$program taskset -c "$core" "$gpubench" "$seconds" "${@:3}" 2>"$tmp/out") || {
		note <"$tmp/out"
		exit 1
	}
	for pair in $line; do
		echo "${pair#*=}" >>"$tmp/$name.${pair%%=*}"
	done
}

# started NAME [OPTION...]: start-up and memory of a gpu that nobody uses yet
started()
{
	local name=$1 ready rss
	shift
	VUM=$vum "$startbench" 5 gpu "$@" >"$tmp/out" || {
		note <"$tmp/out"
		exit 1
	}
	ready=$(sed "s/ .*//; s/ready_us=//" "$tmp/out")
	rss=$(sed "s/.*rss_kib=//; s/ .*//" "$tmp/out")
	figure "$name.ready" "$ready" - - us
	figure "$name.rss" "$rss" - - KiB
}

# median FILE
median()
{
	sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# An event of a program until it is in the guest's used ring. No other back-end
# takes events without a device of the host, so there is nothing to compare with.
input()
{
	local line pair
	line=$("$inputbench") || exit 1
	for pair in $line; do
		got[${pair%%=*}]=${pair#*=}
	done
	figure input.wake "${got[wake_us]}" - - us
	figure input.wake.p99 "${got[wake_p99_us]}" - - us
	figure input.flow "${got[flow_us]}" - - us
	figure input.flow.p99 "${got[flow_p99_us]}" - - us
}

# port_figures NAME DIR [files]: bytes to a file beside what the file system takes, and beside QEMU's own console; the rest has
# nobody to be compared with
port_figures()
{
	local name rate theirs cpu cpu_theirs unit ratio
	VUM=$vum "$portbench" "$2" "$slices" "${@:3}" >"$tmp/out" || {
		note <"$tmp/out"
		exit 1
	}
	while read -r name rate theirs cpu cpu_theirs unit; do
		case $name in
		messages) name=rpmsg.echo ;;
		*) name=console.${name/#file/$1} ;;
		esac
		if [ "$theirs" = - ]; then
			figure "$name" "$rate" - - "$unit"
			continue
		fi
		ratio=$(awk -v a="$rate" -v b="$theirs" 'BEGIN { printf "%.2f", a / b }')
		if [[ $name != *.qemu ]]; then
			figure "$name/floor" "$rate" "$theirs" "$ratio" "$unit"
			[[ $name == *.d1 ]] || figure "$name.rate" "$rate" - - "$unit" least 1000
			continue
		fi
		figure "${name/%.qemu//qemu}" "$rate" "$theirs" "$ratio" "$unit" least 1.00
		figure "${name/%.qemu/.cpu/qemu}" "$cpu" "$cpu_theirs" \
			"$(awk -v a="$cpu" -v b="$cpu_theirs" 'BEGIN { printf "%.2f", a / b }')" MB/cpu-s least 1.00
	done <"$tmp/out"
}

ports()
{
	local dir
	port_figures tmpfs /dev/shm
	dir=$(mktemp -d "${BENCH_DIR:-.}/bench.XXXXXX") || exit 1
	dirs+=("$dir")
	port_figures file "$dir" files
}

# 2D at 1920x1080: transfer, flush, and the display takes all of the pixels; 3D: the
# renderer fills the picture, and it is read back.
# Front-end and back-end share a core, so frames count less than processor time.
gpu()
{
	local qemu peer='' theirs=- ratio=- i key
	started gpu
	if "$vum" gpu --print-capabilities | grep -q virgl; then
		started gpu.virgl --virgl
		for ((i = 0; i < slices; i++)); do
			frames "$vum" three gpu --virgl
		done
		figure gpu.3d.frames "$(median "$tmp/three.fps")" - - frames/s
	fi
	qemu=$("$srcdir/tests/guest/build-qemu" --cached) && peer=$qemu/root/usr/lib/qemu/vhost-user-gpu
	[ -x "$peer" ] || note "no vhost-user-gpu of QEMU to compare with (tests/guest/build-qemu gets it)"
	for ((i = 0; i < slices; i++)); do
		frames "$vum" ours gpu
		[ ! -x "$peer" ] || frames "$peer" theirs
	done
	for key in fps frames_per_cpu_second; do
		if [ -x "$peer" ]; then
			theirs=$(median "$tmp/theirs.$key")
			ratio=$(awk -v a="$(median "$tmp/ours.$key")" -v b="$theirs" 'BEGIN { printf "%.2f", a / b }')
		fi
		if [ $key = fps ]; then
			figure gpu.2d.frames "$(median "$tmp/ours.$key")" "$theirs" "$ratio" frames/s
		else
			figure gpu.2d.cpu "$(median "$tmp/ours.$key")" "$theirs" "$ratio" frames/cpu-s least 1.5
		fi
	done
	[ ! -x "$peer" ] || gpu_guests
}

# gpu_guest NAME QEMU-OPTION...: fills got[NAME.frames] a second, and got[NAME.cpu] per second of the host's processors
gpu_guest()
{
	local name=$1 frames=1000 ticks pids start
	shift
	guest_memory=256M qemu_start "$name" 120 "$@" <<GUEST
modprobe virtio-gpu
gpudraw 1 1920x1080 -$frames
GUEST
	pids=("${child_pid[$name]}")
	[ "$name" != ours ] || pids+=("${child_pid[gpu]}")
	guest_await "$name" 80 '^drawn$' || return
	ticks=$(cpu_ticks "${pids[@]}")
	start=${EPOCHREALTIME/[^0-9]/}
	guest_tell "$name" go
	guest_await "$name" 60 '^worked$' || return
	ticks=$(($(cpu_ticks "${pids[@]}") - ticks))
	got[$name.frames]=$(awk -v n=$frames -v us=$((${EPOCHREALTIME/[^0-9]/} - start)) 'BEGIN { printf "%.1f", n * 1e6 / us }')
	got[$name.cpu]=$(awk -v n=$frames -v ticks=$ticks -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.1f", n * hz / ticks }')
	stop "$name"
}

# A guest that draws 1920x1080 anew, on our back-end and on the card that is built into QEMU, which has the least to do: its
# display is its own, and nobody looks at it. An emulated processor counts in both.
gpu_guests()
{
	local options=xres=1920,yres=1080
	if ! pc=$("$guestdir/build-pc" --cached) || ! initramfs=$("$guestdir/build-initramfs"); then
		note "no PC kernel for guests (tests/guest/build-pc makes it)"
		return
	fi
	PATH=$qemu:$PATH
	backend gpu gpu
	gpu_guest ours -chardev "socket,id=c,path=$socket" -device "vhost-user-vga,chardev=c,$options" &&
		gpu_guest builtin -device "virtio-vga,$options" || exit 1
	figure gpu.guest.frames/qemu "${got[ours.frames]}" "${got[builtin.frames]}" \
		"$(over "${got[ours.frames]}" "${got[builtin.frames]}")" frames/s
	figure gpu.guest.cpu/qemu "${got[ours.cpu]}" "${got[builtin.cpu]}" \
		"$(over "${got[ours.cpu]}" "${got[builtin.cpu]}")" frames/cpu-s
	stop gpu
}

# What statistics cost: with a control socket every request is timed.
control()
{
	local depth
	ours ours --null="$size" --packed=on --control-path="$tmp/control" &&
		ours untimed --null="$size" --packed=on || exit 1
	for depth in 1 32; do
		measure ours untimed -- ring=split+event-idx depth=$depth op=randread wait=spin
		figure "control.d$depth.cpu/untimed" "${got[ours.cpu_ns]}" "${got[untimed.cpu_ns]}" \
			"$(awk -v a="${got[ours.cpu_ns]}" -v b="${got[untimed.cpu_ns]}" 'BEGIN { printf "%.2f", a / b }')" ns/req
	done
	stop ours
	stop untimed
}

balloon()
{
	local line pair
	line=$(taskset -c "$core" "$balloonbench") || exit 1
	for pair in $line; do
		figure "balloon.${pair%%=*}" "${pair#*=}" - - GiB/s
	done
}

# The shared folder against QEMU's, which is driven without a guest (9pbench.c says how): ours and theirs in the same way.
shared_folder()
{
	local dir=$1 name=$2 figure rate theirs ratio cpu cpu_theirs cpu_ratio floor floor_ratio
	command -v qemu-system-x86_64 >/dev/null || return 0
	"$p9bench" "$dir" "$seconds" "$slices" >"$tmp/9p" || {
		note <"$tmp/9p"
		exit 1
	}
	while read -r figure rate theirs ratio cpu cpu_theirs cpu_ratio floor floor_ratio; do
		if [ "$figure" = qemu-notification ]; then
			note "a notification of QEMU's takes $rate us, $theirs us of its processor time"
			continue
		fi
		figure "9p.$name.$figure" "$rate" "$theirs" "$ratio" op/s
		if [ "$floor" = 0 ]; then
			figure "9p.$name.$figure.cpu" "$cpu" "$cpu_theirs" "$cpu_ratio" op/cpu-s least 1.5
			continue
		fi
		# both copy once, which is nearly all of it: what there is to win is the distance to the bare system calls
		figure "9p.$name.$figure.cpu" "$cpu" "$cpu_theirs" "$cpu_ratio" op/cpu-s least 0.90
		figure "9p.$name.$figure.cpu/floor" "$cpu" "$floor" "$floor_ratio" op/cpu-s least 0.80
	done <"$tmp/9p"
}

p9()
{
	local dir
	for dir in /dev/shm "${BENCH_DIR:-.}"; do
		dir=$(mktemp -d "$dir/bench.XXXXXX") || exit 1
		dirs+=("$dir")
		case $dir in
		/dev/shm/*) shared_folder "$dir" tmpfs ;;
		*) shared_folder "$dir" file ;;
		esac
	done
}

# compare_frames OPTION... TARGET...: what netbench says, in got[NAME.KEY]
compare_frames()
{
	"${inside[@]}" "$netbench" cpu=$generator core="$core" seconds="$seconds" slices="$slices" "$@" >"$tmp/out" 2>&1 || {
		note <"$tmp/out"
		exit 1
	}
	read_figures
}

# port NAME OPTION...: a network card of ours (listening() does not see into another network)
port()
{
	spawn "$1" "${inside[@]}" taskset -c "$core" "$vum" net --socket-path="$tmp/$1.sock" "${@:2}"
	await 10 test -S "$tmp/$1.sock" || exit 1
}

# pair NAME: as a target of netbench
pair()
{
	local processes=${child_pid[$1]-}
	echo "$1=vhost:$tmp/$1-a.sock,$tmp/$1-b.sock:${processes:-${child_pid[$1-a]},${child_pid[$1-b]}}"
}

# DPDK's vhost back-end, which never sleeps: two sockets, frames of one go to the other
testpmd()
{
	local dpdk
	dpdk=$("$srcdir/tests/guest/build-dpdk" --cached) && [ "$core" != $generator ] || return 1
	mkfifo "$tmp/stdin"
	exec 9<>"$tmp/stdin" # which must not end
	# shellcheck disable=SC2016 # for sh
	spawn testpmd sh -c 'exec "$@" <"$0"' "$tmp/stdin" "$dpdk/testpmd" --no-huge --no-pci --no-shconf --no-telemetry \
		-m 256 -l "$generator,$core" --main-lcore=$generator \
		--vdev "net_vhost0,iface=$tmp/testpmd-a.sock" --vdev "net_vhost1,iface=$tmp/testpmd-b.sock" \
		-- --disable-link-check --no-lsc-interrupt --total-num-mbufs=32768
	await 20 listening "$tmp/testpmd-b.sock"
}

# together NAME OPTION...: two ports of one process
together()
{
	spawn "$1" taskset -c "$core" "$vum" net --socket-path="$tmp/$1-a.sock" --socket-path="$tmp/$1-b.sock" "${@:2}"
	await 10 test -S "$tmp/$1-b.sock" || exit 1
}

# Frames between two guests through the switch, in one process or each in its own (-apart); the ports sleep when idle, or poll.
switched()
{
	local bytes name theirs peers=() least=()
	together sleeping
	together polling --poll-us=50
	for name in a b; do
		port "sleeping-apart-$name" --switch="$tmp/sleeping"
		port "polling-apart-$name" --switch="$tmp/polling" --poll-us=50
	done
	if testpmd; then
		peers=("testpmd=vhost:$tmp/testpmd-a.sock,$tmp/testpmd-b.sock:${child_pid[testpmd]}")
	else
		note "no testpmd to compare with (tests/guest/build-dpdk gets it)"
	fi
	for bytes in 64 1514 65214; do
		for name in {sleeping,polling}{,-apart}; do
			compare_frames bytes=$bytes "$(pair "$name")" "${peers[@]}"
			least=()
			[ $bytes != 64 ] || [ ${#peers[@]} = 0 ] || case $name in
			sleeping) least=(least 0.50) ;;
			polling) least=(least 1.00) ;;
			esac
			theirs=${got[testpmd.pps]--}
			figure "net.switch.$bytes.$name/testpmd" "${got[$name.pps]}" "$theirs" "${got[testpmd.pps_ratio]--}" \
				frames/s "${least[@]}"
			figure "net.switch.$bytes.$name.cpu/testpmd" "${got[$name.cpu_pps]}" "${got[testpmd.cpu_pps]--}" \
				"${got[testpmd.cpu_ratio]--}" frames/cpu-s
			figure "net.switch.$bytes.$name.gbps/testpmd" "${got[$name.gbps]}" "${got[testpmd.gbps]--}" - Gb/s
		done
	done
	for name in sleeping polling {sleeping,polling}-apart-{a,b} "${peers[@]:+testpmd}"; do
		stop "$name"
	done
}

# The same through two TAP interfaces and the kernel's bridge between them, against QEMU's own network cards (qtest.h says how).
tapped()
{
	local bytes name
	{ [ "$(id -u)" = 0 ] && command -v ip nsenter >/dev/null; } || {
		note "no TAP interfaces without root and ip"
		return
	}
	spawn network unshare --net sleep infinity
	await 5 unshared network || exit 1
	inside=(nsenter "--net=/proc/${child_pid[network]}/ns/net" --)
	for name in taps-a taps-b; do
		port "$name" --tap="$name"
	done
	# shellcheck disable=SC2016 # for sh
	"${inside[@]}" sh -e -c 'for bridge in taps qemu; do
			ip link add "$bridge" type bridge
			ip link set "$bridge" up
			for port in a b; do
				[ $bridge = taps ] || ip tuntap add "$bridge-$port" mode tap vnet_hdr
				ip link set "$bridge-$port" master "$bridge" up
			done
		done
		for filter in /proc/sys/net/bridge/bridge-nf-call-*; do
			[ ! -e "$filter" ] || echo 0 >"$filter"
		done' || exit 1
	for bytes in 64 65214; do
		compare_frames bytes=$bytes gso=$((bytes > 1514)) "$(pair taps)" qemu=qemu:qemu-a,qemu-b
		figure "net.tap.$bytes/qemu" "${got[taps.pps]}" "${got[qemu.pps]}" "${got[qemu.pps_ratio]}" frames/s
		figure "net.tap.$bytes.cpu/qemu" "${got[taps.cpu_pps]}" "${got[qemu.cpu_pps]}" "${got[qemu.cpu_ratio]}" frames/cpu-s
		figure "net.tap.$bytes.gbps/qemu" "${got[taps.gbps]}" "${got[qemu.gbps]}" - Gb/s
	done
	stop taps-a
	stop taps-b
	stop network
	inside=()
}

# unshared NAME: is it in a network of its own?
unshared()
{
	[ "$(readlink "/proc/${child_pid[$1]}/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

net()
{
	switched
	tapped
}

# Sockets against the bare Unix socket behind them: what the same writes and reads cost without a device.
vsock()
{
	local name ours floor cpu floor_cpu
	VUM=$vum "$vsockbench" "$seconds" "$slices" >"$tmp/out" || {
		note <"$tmp/out"
		exit 1
	}
	while read -r name ours floor cpu floor_cpu; do
		if [ "$name" = connections ]; then
			figure vsock.connections "$ours" "$floor" "$(over "$ours" "$floor")" conn/s
			figure vsock.connections.cpu "$cpu" - - ns/conn
			continue
		fi
		figure "vsock.$name" "$ours" "$floor" "$(over "$ours" "$floor")" MB/s
		figure "vsock.$name.cpu" "$cpu" "$floor_cpu" "$(over "$cpu" "$floor_cpu")" ns/write most 1.5
	done <"$tmp/out"
}

# compare_scsi NAME OPTION...: our SCSI disk against our block device, and the daemon's
compare_scsi()
{
	local name=$1 iops=() cpu=() own=(least 0.85)
	shift
	case $name in
	*.null.*) own=() ;; # of so little work, what SCSI adds is a fifth
	*.d1) iops=(least 1.00) ;;
	*.d32) cpu=(least 2.00) ;;
	esac
	measure scsi ours uring -- "$@"
	figure "$name.iops/block" "${got[scsi.iops]}" "${got[ours.iops]}" "${got[ours.iops_ratio]}" req/s "${own[@]}"
	figure "$name.cpu/block" "${got[scsi.cpu_iops]}" "${got[ours.cpu_iops]}" "${got[ours.cpu_ratio]}" \
		req/cpu-s "${own[@]}"
	figure "$name.iops/uring" "${got[scsi.iops]}" "${got[uring.iops]}" "${got[uring.iops_ratio]}" req/s "${iops[@]}"
	figure "$name.cpu/uring" "${got[scsi.cpu_iops]}" "${got[uring.cpu_iops]}" "${got[uring.cpu_ratio]}" \
		req/cpu-s "${cpu[@]}"
}

# scsi OPTION...: our SCSI disk
scsi()
{
	spawn_server scsi "$tmp/scsi.sock" taskset -c "$core" "$vum" scsi --socket-path="$tmp/scsi.sock" "$@"
}

scsis()
{
	local dir op depth
	dir=$(mktemp -d /dev/shm/bench.XXXXXX) || exit 1
	dirs+=("$dir")
	dd if=/dev/urandom of="$dir/disk" bs=1M count=256 status=none || exit 1
	serve "$dir/disk"
	scsi --blk-file="$dir/disk" --lock=off || exit 1
	for op in read write; do
		for depth in 1 32; do
			compare_scsi scsi.rand${op}4k.d$depth depth=$depth op=rand$op
		done
		compare_scsi scsi.${op}128k.d8 depth=8 op=$op size=$((128 << 10))
	done
	compare_scsi scsi.randread4k.q2d16 depth=16 queues=2 op=randread
	stop scsi
	unserve
	serve
	scsi --null="$size" || exit 1
	for depth in 1 32; do
		compare_scsi scsi.null.randread4k.spin$depth depth=$depth op=randread wait=spin
	done
	stop scsi
	unserve
}

# speed ALGORITHM BYTES: operations per second by the openssl command, of its processor time
speed()
{
	taskset -c "$core" openssl speed -mr -seconds 1 -bytes "$2" -evp "aes-128-$1" 2>/dev/null |
		awk -F: -v n="$2" '/^\+F/ { printf "%.0f\n", $4 / n }'
}

# AES-128, 8 requests at a time, against openssl in turns on the same core: in
# a second, and in a second of our processor time. It has one buffer that stays in
# the cache, sets no IV and takes no tag, which is why only the large ones have a target.
crypto()
{
	local mode bytes slice rate cpu theirs target
	for mode in cbc gcm; do
		for bytes in 64 1024 16384; do
			rm -f "$tmp"/crypto.*
			for ((slice = 0; slice < (slices + 1) / 2; slice++)); do
				VUM=$vum "$cryptobench" $mode $bytes "$seconds" 8 "$core" >"$tmp/out" || {
					note <"$tmp/out"
					exit 1
				}
				read -r rate cpu <"$tmp/out"
				echo "$rate" >>"$tmp/crypto.rate"
				echo "$cpu" >>"$tmp/crypto.cpu"
				speed $mode $bytes >>"$tmp/crypto.speed"
			done
			target=()
			[ $bytes != 16384 ] || target=(least 0.80)
			rate=$(median "$tmp/crypto.rate")
			cpu=$(median "$tmp/crypto.cpu")
			theirs=$(median "$tmp/crypto.speed")
			figure crypto.$mode.$bytes "$rate" "$theirs" "$(over "$rate" "$theirs")" req/s "${target[@]}"
			figure crypto.$mode.$bytes.cpu "$cpu" "$theirs" "$(over "$cpu" "$theirs")" req/cpu-s "${target[@]}"
		done
	done
	crypto_guests
}

# cpu_ticks PID...: processor time of the processes and of those that they have started
cpu_ticks()
{
	local pid
	for pid in "$@" $(pgrep -P "$1"); do
		cut -d' ' -f14-17 "/proc/$pid/stat"
	done 2>/dev/null | awk '{ sum += $1 + $2 + $3 + $4 } END { print sum }'
}

# crypto_guest NAME QEMU-OPTION...: fills got[NAME.rate] in KiB/s and got[NAME.cpu] in KiB per second of the host's processors
crypto_guest()
{
	local name=$1 ticks pids
	shift
	qemu_start "$name" 60 "$@" -device virtio-crypto-pci,cryptodev=cr,vectors=0 <<'GUEST'
modprobe algif_skcipher
modprobe virtio_crypto
registered()
{
	grep -q virtio_crypto_aes_cbc /proc/crypto
}
await 20 registered
algtest virtio_crypto_aes_cbc - 16 0.5
echo ready
read -r go
algtest virtio_crypto_aes_cbc - 16 3
echo worked
read -r go
GUEST
	pids=("${child_pid[$name]}")
	[ "$name" != ours ] || pids+=("${child_pid[crypto]}")
	guest_await "$name" 50 '^ready$' || return
	ticks=$(cpu_ticks "${pids[@]}")
	guest_tell "$name" go
	guest_await "$name" 20 '^worked$' || return
	ticks=$(($(cpu_ticks "${pids[@]}") - ticks))
	got[$name.rate]=$(sed -n 's/^rate //p' "$tmp/$name/out" | tail -n 1)
	got[$name.cpu]=$(awk -v rate="${got[$name.rate]}" -v ticks=$ticks -v hz="$(getconf CLK_TCK)" \
		'BEGIN { printf "%.0f", rate * 3 * hz / ticks }')
	guest_tell "$name" go
	reap "$name" 20
}

# A guest that encrypts 16 KiB at a time by AF_ALG, with our back-end and with the one that is built into QEMU.
crypto_guests()
{
	if ! pc=$("$guestdir/build-pc" --cached) || ! initramfs=$("$guestdir/build-initramfs"); then
		note "no PC kernel for guests (tests/guest/build-pc makes it)"
		return
	fi
	backend crypto crypto
	crypto_guest ours -chardev "socket,id=c,path=$socket" -object cryptodev-vhost-user,id=cr,chardev=c &&
		crypto_guest builtin -object cryptodev-backend-builtin,id=cr || exit 1
	figure crypto.guest.cbc.16384/qemu "${got[ours.rate]}" "${got[builtin.rate]}" \
		"$(over "${got[ours.rate]}" "${got[builtin.rate]}")" KiB/s
	figure crypto.guest.cbc.16384.cpu/qemu "${got[ours.cpu]}" "${got[builtin.cpu]}" \
		"$(over "${got[ours.cpu]}" "${got[builtin.cpu]}")" KiB/cpu-s
	stop crypto
}

# instead of the tests' cleanup alone
finish()
{
	rm -rf "${dirs[@]:1}"
	cleanup
}
trap finish EXIT

requires qemu-storage-daemon taskset awk
"$vum" --version | note
qemu-storage-daemon --version | head -n 1 | note
note "$(uname -sr), $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs," \
	"load $(cut -d' ' -f1 /proc/loadavg); $slices slices of $seconds s"
printf '%-36s %10s %10s %6s  %-12s %s\n' '# figure' ours daemon ratio unit target
! wanted ring || rings
! wanted control || control
! wanted balloon || balloon
! wanted crypto || { command -v openssl >/dev/null && crypto; }
! wanted null || nulls
! wanted tmpfs || files tmpfs /dev/shm
! wanted file || files file "${BENCH_DIR:-.}"
! wanted nbd || { command -v nbdkit >/dev/null && nbds; }
! wanted scsi || scsis
! wanted 9p || p9
! wanted net || net
! wanted vsock || vsock
! wanted console || ports
! wanted rng || start
! wanted input || input
! wanted gpu || gpu
note "load $(cut -d' ' -f1 /proc/loadavg) at the end"
tap_planned=1
exit 0
