#!/bin/bash
# SPDX-License-Identifier: MIT
#
# QEMU's front-end on our input devices: the guest knows of each what it should,
# its programs read what was sent although QEMU gives us four buffers only, LEDs
# come back; after a reboot, and after a pause with a key held, all of it again.
# Of devices of the host that umockdev presents evtest says the same as there.

limit=180
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"
# shellcheck source=tests/lib/evdev.sh
. "$(dirname "$0")/../lib/evdev.sh"

requires_qemu
requires socat umockdev-run evtest
qemu=$("$guestdir/build-qemu" --cached) || lacking "no QEMU of the backports (tests/guest/build-qemu gets it)"
PATH=$qemu:$PATH

kinds=(keyboard tablet multitouch)
declare -A ends=()

# program KIND: connects to the source of that back-end
program()
{
	local fd
	mkfifo "$tmp/$1.in"
	exec {fd}<>"$tmp/$1.in"
	ends[$1]=$fd
	spawn "$1.program" socat -t 60 "UNIX-CONNECT:$tmp/$1.source" "OPEN:$tmp/$1.in!!CREATE:$tmp/$1.back"
}

say()
{
	printf '%s\n' "${@:2}" >&"${ends[$1]}"
}

# got TAG: the lines that the guest printed with this tag
got()
{
	sed -n "s/^$1: //p" "$tmp/guest/out"
}

# got_lines TAG N
got_lines()
{
	[ "$(got "$1" | wc -l)" -ge "$2" ]
}

# seen KIND N: has the guest's evtest seen so many reports?
seen()
{
	[ "$(got "evdev-$1" | evdev_reports | wc -l)" -ge "$2" ]
}

heard()
{
	grep -qxF -e "$2" "$tmp/$1.back" 2>/dev/null
}

arguments=()
for kind in "${kinds[@]}"; do
	backend "$kind" input --source="$tmp/$kind.source" --kind="$kind"
	arguments+=(-chardev "socket,id=$kind,path=$socket" -device "vhost-user-input-pci,chardev=$kind")
	program "$kind"
done

for kind in "${evdev_kinds[@]}"; do
	evdev_backend "$kind"
	arguments+=(-chardev "socket,id=evdev-$kind,path=$socket" -device "vhost-user-input-pci,chardev=evdev-$kind")
	evdev_host "$kind" >"$tmp/evdev.$kind.host"
done

guest_reboots=1 qemu_start guest 160 "${arguments[@]}" <<'GUEST'
modprobe virtio_input
modprobe evdev
node() { inputtest find "vhost-user-multi $1"; }
# tag TEXT: before each line, at once (sed would look for the next line first)
tag() { while IFS= read -r line; do echo "$1: $line"; done; }
await 20 test -n "$(node multitouch)"
echo booted
read -r boot
for kind in keyboard tablet multitouch; do
	inputtest describe "$(node $kind)" | tag $boot-$kind
	rm -f /tmp/ready.$kind
	inputtest read "$(node $kind)" /tmp/ready.$kind 64 | tag $boot-$kind-events &
done
for kind in keyboard tablet multitouch; do
	check "$boot: $kind is read" await 10 test -e /tmp/ready.$kind
done
echo "ready $boot"
wait
check "$boot: LED" inputtest set "$(node keyboard)" 17 1 1
rm -f /tmp/ready.held
inputtest read "$(node keyboard)" /tmp/ready.held 1 | tag $boot-held &
await 10 test -e /tmp/ready.held
echo "reading $boot"
wait
echo "held $boot"
read -r go
is "$boot: no key is held after the pause" "$(inputtest held "$(node keyboard)" | head -n 1)" keys
drain
[ "$boot" = last ] || reboot -f
mocked() { inputtest find "Test $1"; }
for kind in keyboard mouse tablet touchscreen; do
	evtest "$(mocked $kind)" | tag evdev-$kind &
done
read -r go
killall evtest
wait
check "LED on" inputtest set "$(mocked keyboard)" 17 1 1
check "LED off" inputtest set "$(mocked keyboard)" 17 1 0
check "sound" inputtest set "$(mocked keyboard)" 18 2 440
read -r go
GUEST

# report KIND I
report()
{
	local i=$2 j
	case $1 in
	keyboard) echo "KEY_A=$((i % 2)) KEY_LEFTSHIFT=$((i % 2))" ;;
	tablet) echo "ABS_X=$((i * 16)) ABS_Y=$((32000 - i)) BTN_LEFT=$((i % 2))" ;;
	multitouch)
		for j in {0..9}; do
			printf 'ABS_MT_SLOT=%s ABS_MT_TRACKING_ID=%s ' "$j" $((i % 2 ? i * 10 + j : -1))
		done
		echo "BTN_TOUCH=$((i % 2))"
		;;
	esac
}

# numbers <LINES: as the guest prints them; its kernel leaves out a slot that is
# the current one
numbers()
{
	sed -E -e 's/KEY_A=/1:30=/; s/KEY_LEFTSHIFT=/1:42=/; s/BTN_LEFT=/1:272=/; s/BTN_TOUCH=/1:330=/' \
		-e 's/ABS_X=/3:0=/; s/ABS_Y=/3:1=/; s/ABS_MT_SLOT=/3:47=/g; s/ABS_MT_TRACKING_ID=/3:57=/g' \
		-e '1s/^3:47=0 //'
}

booted=0
for boot in first last; do
	booted=$((booted + 1))
	# shellcheck disable=SC2317 # called by name
	again()
	{
		[ "$(grep -c '^booted$' "$tmp/guest/out")" -ge "$booted" ] || gone guest
	}
	await 60 again
	guest_tell guest $boot
	guest_await guest 30 "^ready $boot\$"
	result $? "$boot: the guest is ready" || break
	for ((n = 0; n < 64; n += 8)); do
		for kind in "${kinds[@]}"; do
			for ((i = n + 1; i <= n + 8; i++)); do
				report "$kind" $i
			done >&"${ends[$kind]}"
		done
		for kind in "${kinds[@]}"; do
			await 10 got_lines "$boot-$kind-events" $((n + 8)) || break 2
		done
	done
	for kind in "${kinds[@]}"; do
		for ((i = 1; i <= 64; i++)); do
			report "$kind" $i
		done | numbers >"$tmp/wanted"
		got "$boot-$kind-events" >"$tmp/got"
		ok "$boot: $kind: all events" cmp "$tmp/wanted" "$tmp/got"
	done
	await 10 heard keyboard LED_CAPSL=1
	result $? "$boot: the program hears of the LED"
	: >"$tmp/keyboard.back"

	# the release comes while the guest stands still
	guest_await guest 10 "^reading $boot\$"
	say keyboard KEY_B=1
	guest_await guest 10 "^held $boot\$"
	is "$boot: a key is held" "$(got "$boot-held")" "1:48=1"
	ok "$boot: stop" qmp guest stop
	say keyboard KEY_B=0
	ok "$boot: cont" qmp guest cont
	guest_tell guest go
done
# ---- devices of the host, as umockdev presents them ----

evdev_count=32 # reports of each
for kind in "${evdev_kinds[@]}"; do
	guest_await guest 20 "^evdev-$kind: Testing"
	result $? "the guest's evtest reads the $kind"
done
for ((n = 0; n < evdev_count; n += 8)); do
	for kind in "${evdev_kinds[@]}"; do
		evdev_play "$kind" $((n + 1)) $((n + 8))
	done
	for kind in "${evdev_kinds[@]}"; do
		await 10 seen "$kind" $((n + 8)) || break 2
	done
done
guest_tell guest go
await 20 evdev_heard_is keyboard 17:1=1 17:1=0 18:2=440
result $? "LEDs and sounds reach the device" || evdev_heard keyboard | note
guest_tell guest go
guest_wait guest
for kind in "${evdev_kinds[@]}"; do
	got "evdev-$kind" | evdev_capabilities >"$tmp/got"
	ok "$kind: evtest says the same of it in the guest and on the host" diff "$tmp/evdev.$kind.host" "$tmp/got"
	evdev_wanted "$kind" $evdev_count >"$tmp/wanted"
	got "evdev-$kind" | evdev_reports >"$tmp/got"
	ok "$kind: and sees the same events" diff "$tmp/wanted" "$tmp/got"
	ok "$kind: its back-end ends at SIGTERM" stop "evdev.$kind"
done

is "keyboard" "$(got first-keyboard | grep -E '^(name|id|types)' | tr '\n' ' ')" \
	"name vhost-user-multi keyboard id 6:0:1:1 types 0 1 17 20 "
is "tablet" "$(got first-tablet | grep -E '^(name|id|types|axis)' | tr '\n' ' ')" \
	"name vhost-user-multi tablet id 6:0:3:1 types 0 1 2 3 axis 0: 0 to 32767, fuzz 0, flat 0, resolution 0 axis 1: 0 to 32767, fuzz 0, flat 0, resolution 0 "
is "multitouch" "$(got first-multitouch | grep -E '^(name|props|type 3|axis 47)' | tr '\n' ' ')" \
	"name vhost-user-multi multitouch props 1 type 3: 0 1 47 53 54 57 axis 47: 0 to 9, fuzz 0, flat 0, resolution 0 "
for kind in "${kinds[@]}"; do
	is "$kind: the same after the reboot" "$(got "last-$kind")" "$(got "first-$kind")"
	ok "$kind: the back-end ends at SIGTERM" stop "$kind"
done

done_testing
