#!/bin/bash
# SPDX-License-Identifier: MIT
#
# DPDK's driver as a front-end that nobody here wrote: two ports of a testpmd are two ports of the switch, each on a process of
# its own, and again both on one. They pass on to each other what they receive, in every mode that the driver has. A bounded
# number of frames is on its way, so none may be lost: when both have stopped sending, what one sent is what the other received.

limit=150
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"

dpdk=$("$guestdir/build-dpdk" --cached) || lacking "no testpmd (tests/guest/build-dpdk gets it)"
cache_hold "$dpdk"
enough=20000
large_parts=2000,2000,2000,100
mkfifo "$tmp/commands"
exec {commands}<>"$tmp/commands"

say()
{
	printf '%s\n' "$@" >&"$commands"
}

# said PATTERN TIMES: is it that often in what testpmd wrote?
said()
{
	[ "$(grep -c -- "$1" "$tmp/testpmd.log")" -ge "$2" ] || gone testpmd
}

# look: a line with the counters of both ports: rx rx-bytes tx tx-bytes rx rx-bytes tx tx-bytes, and of what went wrong
look()
{
	local shown
	shown=$(grep -c 'Tx-pps:' "$tmp/testpmd.log")
	say "show port stats all"
	await 10 said 'Tx-pps:' $((shown + 2))
	tac "$tmp/testpmd.log" | awk '/NIC statistics for port/ && ++n == 2 { exit } { print }' | tac | awk '
		/RX-packets:/ { printf "%s %s ", $2, $6; bad += $4 }
		/TX-packets:/ { printf "%s %s ", $2, $6; bad += $4 }
		/RX-errors:|RX-nombuf:/ { bad += $2 }
		END { print bad + 0 }'
}

flows()
{
	local c
	read -ra c < <(look)
	[ "${c[0]}" -ge "$enough" ] && [ "${c[4]}" -ge "$enough" ]
}

drained()
{
	local c
	read -ra c < <(look)
	[ "${c[0]} ${c[4]}" = "${c[6]} ${c[2]}" ]
}

# serve: the ports, as $together says
serve()
{
	local port
	if [ $together = 1 ]; then
		backend a net --socket-path="$tmp/b.sock" --packed=on --control-path="$tmp/a.ctl"
		return
	fi
	for port in a b; do
		backend $port net --switch="$tmp/switch" --packed=on --control-path="$tmp/$port.ctl"
	done
}

# counters NAME SOCKET: what a port of ours counted: rx-packets tx-packets, and drops
counters()
{
	local at=("$tmp/$1.ctl" query-net)
	[ $together = 0 ] || at=("$tmp/a.ctl" query-net "socket=$2")
	"$vum" ctl "${at[@]}" |
		jq -r '"\(."rx-packets") \(."tx-packets") \(."rx-dropped" + ."tx-dropped" + ."rx-filtered")"'
}

# passes NAME PATHS DRIVER-OPTIONS PACKET-PARTS [EAL-OPTION...]: PATHS is a pattern of what the driver must say that it uses
passes()
{
	local name=$1 paths=$2 options=$3 parts=$4 large c
	shift 4
	large=()
	[ "$parts" != "$large_parts" ] || large=(--max-pkt-len=9200 --enable-scatter)
	[ $together = 0 ] || name+=", in one process"
	serve
	: >"$tmp/testpmd.log"
	# shellcheck disable=SC2016 # for sh
	spawn testpmd sh -c 'exec "$@" <"$0"' "$tmp/commands" stdbuf -oL "$dpdk/testpmd" \
		--no-huge --no-pci --no-shconf --no-telemetry -m 256 -l 0,$(($(nproc) > 1 ? 1 : 0)) \
		--log-level=pmd.net.virtio.init,info "$@" \
		--vdev "net_virtio_user0,path=$tmp/a.sock,queue_size=256,mac=52:54:00:00:00:01,$options" \
		--vdev "net_virtio_user1,path=$tmp/b.sock,queue_size=256,mac=52:54:00:00:00:02,$options" \
		-- -i --total-num-mbufs=8192 --tx-offloads=0x8000 "${large[@]}"
	await 30 said '^testpmd> ' 1
	is "$name: the driver's way" "$(grep -cE "using $paths path on port" "$tmp/testpmd.log")" 4
	# so many bursts of 32 frames that what has to wait has a place: in a ring between processes, else in the driver's buffers
	say "set txpkts $parts" "start tx_first $((together ? 1 : 4))"
	ok "$name: frames go around" await 20 flows || done_testing
	say stop
	await 10 said '^Done\.' 1
	say "set fwd rxonly" start
	ok "$name: all arrive" await 10 drained || done_testing
	read -ra c < <(look)
	note "$name: ${c[*]}"
	is "$name: none is lost on the way to the first" "${c[0]} ${c[1]}" "${c[6]} ${c[7]}"
	is "$name: none on the way to the second" "${c[4]} ${c[5]}" "${c[2]} ${c[3]}"
	is "$name: errors" "${c[8]}" 0
	is "$name: what the first port of the switch counted" "$(counters a 0)" "${c[0]} ${c[2]} 0"
	is "$name: and the second" "$(counters b 1)" "${c[4]} ${c[6]} 0"
	say stop quit
	ok "$name: testpmd ends" reap testpmd 10
	ok "$name: the first port ends at SIGTERM" stop a
	[ $together = 1 ] || ok "$name: the second port ends at SIGTERM" stop b
}

requires jq tac
for together in 0 1; do
	passes split "standard (Rx|Tx)" mrg_rxbuf=0,in_order=0,packed_vq=0 64
	passes mergeable "(mergeable buffer Rx|standard Tx)" mrg_rxbuf=1,in_order=0,packed_vq=0 $large_parts
	passes in-order "inorder (Rx|Tx)" mrg_rxbuf=1,in_order=1,packed_vq=0 64,1000
	passes vectorised "(vectorized Rx|standard Tx)" mrg_rxbuf=0,in_order=0,packed_vq=0,vectorized=1 64
	passes packed "packed ring standard (Rx|Tx)" mrg_rxbuf=0,in_order=0,packed_vq=1 64
	passes "packed, mergeable" "packed ring (mergeable buffer Rx|standard Tx)" mrg_rxbuf=1,in_order=0,packed_vq=1 $large_parts
	passes "packed, in order" "packed ring (mergeable buffer Rx|standard Tx)" mrg_rxbuf=1,in_order=1,packed_vq=1 64,1000
	if grep -qw avx512vl /proc/cpuinfo; then
		passes "packed, vectorised" "packed ring vectorized (Rx|Tx)" mrg_rxbuf=0,in_order=1,packed_vq=1,vectorized=1 64 \
			--force-max-simd-bitwidth=512
	fi
done
done_testing
