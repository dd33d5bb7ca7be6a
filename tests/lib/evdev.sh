# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# Sourced by guest tests after guest.sh: a keyboard, a mouse, a tablet and a touchscreen of the host, as umockdev
# presents them (their answers to ioctl() are in tests/device/input-evdev.d), and what Linux's evtest says of them.
#
# The node is a pseudo-terminal: what is written to it comes back here, as LEDs do. A pseudo-terminal hands out 4095 bytes at
# a time and cuts an event that goes past them, so no more than that may be on the way.

: "${srcdir:=}" "${tmp:=}" "${vum:=}" # of functions.sh

# shellcheck disable=SC2034 # for those who source this
evdev_kinds=(keyboard mouse tablet touchscreen)
evdev_data=$srcdir/tests/device/input-evdev.d
declare -A evdev_ends=()
mocked=() # the command under which /dev/input/event0 is the device; of evdev_mock

# evdev_answers KIND: the recorded answers, and each again in the size in which evtest asks (umockdev compares sizes)
evdev_answers()
{
	awk 'function zeros(hex, n) { while (length(hex) < 2 * n) hex = hex "00"; return substr(hex, 1, 2 * n) }
		{ print }
		/^EVIOCGNAME/ { print $1, $2, zeros($3, 256) }
		/^EVIOCGPROP/ { print $1, $2, zeros($3, 248) }
		/^EVIOCGBIT.0/ { print $1, $2, zeros($3, 31) }
		/^EVIOCGBIT.[1-9]/ { print $1, $2, zeros($3, 767) }
		/^EVIOCG(LED|SW)/ { print $1, $2, zeros($3, 6144) }
		END { print "EVIOCGSND(0)", 8, zeros("", 6144) }' "$evdev_data/$1.ioctl"
}

# evdev_mock KIND: there is this device; sets $mocked
evdev_mock()
{
	local kind=$1 node=$tmp/evdev.$1.node fd
	if [ -z "${evdev_ends[$kind]-}" ]; then
		evdev_answers "$kind" >"$tmp/evdev.$kind.ioctl"
		mkfifo "$tmp/evdev.$kind.in"
		exec {fd}<>"$tmp/evdev.$kind.in"
		evdev_ends[$kind]=$fd
		spawn "evdev.$kind.node" socat -b 1776 "PTY,link=$node,rawer" "OPEN:$tmp/evdev.$kind.in!!CREATE:$tmp/evdev.$kind.back"
		await 10 test -e "$node"
		exec {fd}<>"$node" # never closed: with its last user it would go away
	fi
	# shellcheck disable=SC2016 # for sh
	mocked=(env ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0
		umockdev-run -d "$evdev_data/event0.umockdev" -i "/dev/input/event0=$tmp/evdev.$kind.ioctl" --
		sh -c 'ln -sf "$0" "$UMOCKDEV_DIR/dev/input/event0" && exec "$@"' "$node")
}

# evdev_backend KIND [OPTION...]: the back-end with this device; sets $socket
evdev_backend()
{
	socket=$tmp/evdev.$1.sock
	evdev_mock "$1"
	spawn_server "evdev.$1" "$socket" "${mocked[@]}" "$vum" input --socket-path="$socket" \
		--evdev-path=/dev/input/event0 "${@:2}"
	result $? "the back-end has a $1 of umockdev"
}

# evdev_host KIND: what evtest on the host says of it. Linux's virtio_input has no force feedback.
evdev_host()
{
	evdev_mock "$1"
	spawn "evdev.$1.evtest" "${mocked[@]}" evtest /dev/input/event0
	await 20 grep -q ^Testing "$tmp/evdev.$1.evtest.log"
	stop "evdev.$1.evtest" INT
	evdev_capabilities <"$tmp/evdev.$1.evtest.log" | sed '/Event type 21 /,/^[^ ]/ { /^[^ ]/!d }'
}

# evdev_capabilities <EVTEST: what it said before the first event
evdev_capabilities()
{
	sed '/^Testing/,$d'
}

# evdev_reports <EVTEST: a line for each report that it saw, TYPE:CODE=VALUE …; without the kernel's repetitions of keys
evdev_reports()
{
	local line report='' type value
	while read -r line; do
		if [[ $line =~ type\ ([0-9]+)\ .*code\ ([0-9]+)\ .*value\ (-?[0-9a-f]+)$ ]]; then
			type=${BASH_REMATCH[1]} value=${BASH_REMATCH[3]}
			[ "$type" != 4 ] || value=$((16#$value))
			[ "$type=$value" = 1=2 ] || report+="${report:+ }$type:${BASH_REMATCH[2]}=$value"
		elif [[ $line == *SYN_REPORT* && -n $report ]]; then
			echo "$report"
			report=
		fi
	done
}

# evdev_report KIND I: its report number I
evdev_report()
{
	local i=$2
	case $1 in
	keyboard) echo "4:4=$i 1:$(((i + 1) / 2 % 2 ? 30 : 48))=$((i % 2))" ;;
	mouse) echo "2:0=$i 2:1=-$i 1:272=$((i % 2))" ;;
	tablet) echo "3:0=$((i * 100 - 1000)) 3:1=$((i * 100)) 3:24=$((i * 50)) 1:330=$((i % 2))" ;;
	touchscreen)
		if ((i % 2)); then
			echo "3:47=0 3:57=$i 3:53=$i 3:54=$((i + 2)) 3:47=1 3:57=$((i + 1)) 3:53=$((i + 500)) 1:330=1 3:0=$i"
		else
			echo "3:47=0 3:57=-1 3:47=1 3:57=-1 1:330=0"
		fi
		;;
	esac
}

# evdev_wanted KIND N: the first N reports as the guest's programs see them: its kernel leaves out a slot that is the current one
evdev_wanted()
{
	local i
	for ((i = 1; i <= $2; i++)); do
		evdev_report "$1" $i
	done | sed '1s/^3:47=0 //'
}

# evdev_play KIND FIRST LAST: the device reports
evdev_play()
{
	local bytes='' event one type code value i
	for ((i = $2; i <= $3; i++)); do
		for event in $(evdev_report "$1" $i) 0:0=0; do
			type=${event%%:*} value=${event#*=} code=${event#*:}
			code=${code%=*}
			printf -v one '\\x%02x' $((type & 255)) $((type >> 8)) $((code & 255)) $((code >> 8)) $((value & 255)) \
				$((value >> 8 & 255)) $((value >> 16 & 255)) $((value >> 24 & 255))
			bytes+='\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'$one
		done
	done
	# shellcheck disable=SC2059 # bytes; dd because printf writes at each newline what it has
	printf "$bytes" | dd obs=4k status=none >&"${evdev_ends[$1]}"
}

# evdev_heard KIND: what was written to the device, an event a line
evdev_heard()
{
	od -An -v -tu2 -w24 "$tmp/evdev.$1.back" | awk '$9 { print $9 ":" $10 "=" $11 }'
}

# evdev_heard_is KIND EVENT...: is it this?
evdev_heard_is()
{
	[ "$(evdev_heard "$1")" = "$(printf '%s\n' "${@:2}")" ]
}
