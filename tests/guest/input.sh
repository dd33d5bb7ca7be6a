#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A Linux guest on our input devices: it knows of each what it should, its
# programs read what was sent, report by report, and set LEDs; keys do not hang
# when driver or front-end come and go. Then the host's side, on devices that
# umockdev presents, of which evtest says the same as on the host, and on real ones
# that uinput makes: a guest in which the back-end itself runs.

limit=300
# shellcheck source=tests/lib/guest.sh
. "$(dirname "$0")/../lib/guest.sh"
# shellcheck source=tests/lib/evdev.sh
. "$(dirname "$0")/../lib/evdev.sh"

requires_uml
requires socat umockdev-run evtest
uinput=${builddir_abs:-.}/tests/device/input-uinput
[ -x "$uinput" ] || lacking "$uinput is not built"

# program KIND: connects to the source of that back-end; say KIND LINE..., and
# what comes back is in $tmp/KIND.back
declare -A ends=()
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

# heard KIND LINE: did the program get this line back?
heard()
{
	grep -qxF -e "$2" "$tmp/$1.back" 2>/dev/null
}

# same FILE FILE; the first differences are enough
same()
{
	cmp "$@" || {
		diff -U 1 "$@" | head -n 20
		return 1
	}
}

# wanted NAME <TEXT: what the guest found in that file is this
wanted()
{
	cat >"$tmp/wanted"
	found "$1"
}

found()
{
	ok "$1" same "$tmp/wanted" "$tmp/guest/$1"
}

ready()
{
	await 30 test -e "$tmp/guest/$1.ready" || result 1 "the guest is ready to read: $1"
}

reports=200 # for each device; the guest's script says so too
devices=()
for kind in keyboard mouse tablet multitouch; do
	backend $kind input --source="$tmp/$kind.source" --kind=$kind --serial="serial of $kind" --record="$tmp/$kind.record"
	devices+=("virtio_uml.device=$socket:18")
	program $kind
done

uml_start guest 120 "${devices[@]}" <<'GUEST'
node() { inputtest find "vhost-user-multi $1"; }
for kind in keyboard mouse tablet multitouch; do
	is "$kind: is there" "$(node $kind | wc -l)" 1
	inputtest describe "$(node $kind)" >/host/$kind
done

# as many reports for each, all at the same time
for kind in keyboard mouse tablet multitouch; do
	inputtest read "$(node $kind)" /host/$kind.ready 200 >/host/$kind.got &
done
wait

keyboard=$(node keyboard)
check "LED on" inputtest set "$keyboard" 17 1 1
check "repeat rate" inputtest set "$keyboard" 20 0 600
check "LED off" inputtest set "$keyboard" 17 1 0
check "another LED on" inputtest set "$keyboard" 17 0 1
is "LEDs" "$(inputtest held "$keyboard")" "$(printf 'keys\nLEDs 0')"

inputtest repeats "$keyboard" /host/repeats.ready >/host/repeats &
wait
is "a key is held" "$(inputtest held "$keyboard")" "$(printf 'keys 48\nLEDs 0')"

check "the driver lets go" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_input/unbind'
refuse "no device then" node keyboard
check "the driver comes back" eval 'echo virtio0 >/sys/bus/virtio/drivers/virtio_input/bind'
keyboard=$(node keyboard)
is "no key is held" "$(inputtest held "$keyboard")" "$(printf 'keys\nLEDs')"
inputtest read "$keyboard" /host/unbound.ready 2 >/host/unbound.got

uml=/sys/bus/platform/drivers/virtio-uml
check "the front-end disconnects" eval "echo virtio-uml.2 >$uml/unbind"
check "the front-end connects again" eval "echo virtio-uml.2 >$uml/bind"
tablet=$(node tablet)
inputtest read "$tablet" /host/rebound.ready 1 >/host/rebound.got
inputtest describe "$tablet" >/host/tablet.again
GUEST

# report KIND I: line I of what is sent to it
report()
{
	local i=$2 j
	case $1 in
	keyboard) echo "KEY_A=$((i % 2)) KEY_LEFTSHIFT=$((i % 2))" ;;
	mouse) echo "REL_X=$i REL_Y=-$i REL_WHEEL=1" ;;
	tablet) echo "ABS_X=$((i * 16)) ABS_Y=$((32000 - i)) BTN_LEFT=$((i % 2))" ;;
	multitouch)
		for j in {0..9}; do
			printf 'ABS_MT_SLOT=%s ABS_MT_TRACKING_ID=%s ' "$j" $((i % 2 ? i * 10 + j : -1))
			[ $((i % 2)) -eq 0 ] || printf 'ABS_MT_POSITION_X=%s ' "$((i * 20 + j))"
		done
		echo "BTN_TOUCH=$((i % 2))"
		;;
	esac
}

# read_of KIND N: has the guest read so many?
read_of()
{
	[ "$(wc -l <"$tmp/guest/$1.got")" -ge "$2" ]
}

# The kernel of the guest keeps some 60 events for a program that is slow to
# read, so it gets a few at a time.
for kind in keyboard mouse tablet multitouch; do
	ready $kind
done
for ((n = 0; n < reports; n += 8)); do
	for kind in keyboard mouse tablet multitouch; do
		for ((i = n + 1; i <= n + 8; i++)); do
			report $kind $i
		done >&"${ends[$kind]}"
	done
	for kind in keyboard mouse tablet multitouch; do
		await 10 read_of $kind $((n + 8)) || break 2
	done
done

await 60 heard keyboard LED_CAPSL=1
result $? "the program hears of a LED"
await 10 heard keyboard LED_NUML=1
result $? "and of another"
is "all that it hears" "$(tr '\n' ' ' <"$tmp/keyboard.back")" "LED_CAPSL=1 REP_DELAY=600 LED_CAPSL=0 LED_NUML=1 "
ready repeats
say keyboard KEY_B=1
ready unbound
say keyboard KEY_B=0 KEY_C=1 KEY_C=0
ready rebound
say tablet BTN_RIGHT=1
guest_wait guest

wanted keyboard <<TEXT
name vhost-user-multi keyboard
serial serial of keyboard
id 6:0:1:1
props
types 0 1 17 20
type 1: $(seq -s ' ' 1 248)
type 17: 0 1 2 3 4
TEXT
wanted mouse <<'TEXT'
name vhost-user-multi mouse
serial serial of mouse
id 6:0:2:1
props
types 0 1 2
type 1: 272 273 274 275 276
type 2: 0 1 6 8
TEXT
wanted tablet <<'TEXT'
name vhost-user-multi tablet
serial serial of tablet
id 6:0:3:1
props
types 0 1 2 3
type 1: 272 273 274 275 276
type 2: 6 8
type 3: 0 1
axis 0: 0 to 32767, fuzz 0, flat 0, resolution 0
axis 1: 0 to 32767, fuzz 0, flat 0, resolution 0
TEXT
ok "tablet, after it was connected again" cmp "$tmp/guest/tablet" "$tmp/guest/tablet.again"
wanted multitouch <<'TEXT'
name vhost-user-multi multitouch
serial serial of multitouch
id 6:0:4:1
props 1
types 0 1 3
type 1: 330
type 3: 0 1 47 53 54 57
axis 0: 0 to 32767, fuzz 0, flat 0, resolution 0
axis 1: 0 to 32767, fuzz 0, flat 0, resolution 0
axis 47: 0 to 9, fuzz 0, flat 0, resolution 0
axis 53: 0 to 32767, fuzz 0, flat 0, resolution 0
axis 54: 0 to 32767, fuzz 0, flat 0, resolution 0
axis 57: 0 to 65535, fuzz 0, flat 0, resolution 0
TEXT

# numbers <LINES: with the numbers of the codes instead of their names; the
# kernel of the guest leaves out a slot that is the current one already
numbers()
{
	sed -E -e 's/KEY_A=/1:30=/; s/KEY_LEFTSHIFT=/1:42=/; s/BTN_LEFT=/1:272=/; s/BTN_TOUCH=/1:330=/' \
		-e 's/REL_X=/2:0=/; s/REL_Y=/2:1=/; s/REL_WHEEL=/2:8=/; s/ABS_X=/3:0=/; s/ABS_Y=/3:1=/' \
		-e 's/ABS_MT_SLOT=/3:47=/g; s/ABS_MT_TRACKING_ID=/3:57=/g; s/ABS_MT_POSITION_X=/3:53=/g' \
		-e '1s/^3:47=0 //'
}

for kind in keyboard mouse tablet multitouch; do
	for ((i = 1; i <= reports; i++)); do
		report $kind $i
	done | numbers >"$tmp/wanted"
	found $kind.got
done
wanted repeats <<<"key 48 repeats"
wanted unbound.got <<<"1:46=1
1:46=0"
wanted rebound.got <<<"1:273=1"
is "what was recorded can be sent again" "$(head -n 2 "$tmp/mouse.record" | sed 's/^+[^ ]* //')" \
	"REL_X=1 REL_Y=-1 REL_WHEEL=1
REL_X=2 REL_Y=-2 REL_WHEEL=1"
for kind in keyboard mouse tablet multitouch; do
	ok "$kind: the back-end ends at SIGTERM" stop $kind
done

# ---- devices of the host, as umockdev presents them ----

evdev_count=64 # reports of each
devices=()
for kind in "${evdev_kinds[@]}"; do
	evdev_backend "$kind"
	devices+=("virtio_uml.device=$socket:18")
	evdev_host "$kind" >"$tmp/evdev.$kind.host"
done
uml_start evdev 60 "${devices[@]}" <<'GUEST'
node() { inputtest find "Test $1"; }
for kind in keyboard mouse tablet touchscreen; do
	evtest $(node $kind) >/host/$kind.evtest &
done
check "the host heard of all events" await 40 test -e /host/next
kill $(jobs -p)
wait
check "LED on" inputtest set $(node keyboard) 17 1 1
check "LED off" inputtest set $(node keyboard) 17 1 0
check "another LED on" inputtest set $(node keyboard) 17 0 1
check "sound" inputtest set $(node keyboard) 18 2 440
check "the host heard of the LEDs" await 20 test -e /host/lit
GUEST

# reading KIND: evtest waits for events
reading()
{
	grep -q -s ^Testing "$tmp/evdev/$1.evtest"
}

# seen KIND N: has the guest's evtest seen so many reports?
seen()
{
	[ "$(evdev_reports <"$tmp/evdev/$1.evtest" | wc -l)" -ge "$2" ]
}

for kind in "${evdev_kinds[@]}"; do
	await 30 reading "$kind"
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
touch "$tmp/evdev/next"
await 20 evdev_heard_is keyboard 17:1=1 17:1=0 17:0=1 18:2=440
result $? "LEDs and sounds reach the device" || evdev_heard keyboard | note
touch "$tmp/evdev/lit"
guest_wait evdev
for kind in "${evdev_kinds[@]}"; do
	evdev_capabilities <"$tmp/evdev/$kind.evtest" >"$tmp/capabilities"
	ok "$kind: evtest says the same of it in the guest and on the host" same "$tmp/evdev.$kind.host" "$tmp/capabilities"
	evdev_wanted "$kind" $evdev_count >"$tmp/wanted"
	evdev_reports <"$tmp/evdev/$kind.evtest" >"$tmp/got"
	ok "$kind: and sees the same events" same "$tmp/wanted" "$tmp/got"
	ok "$kind: the back-end ends at SIGTERM" stop "evdev.$kind"
done

# ---- real devices ----

uml_runs uinput 180 "$uinput"

done_testing
