# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: MIT

# Types into a file that the guest's keyboard is, as soon as the guest listens.
demo_type()
{
	local key
	await 60 test -e "$tmp/guest/listening" || return
	for key in H E L L O; do
		printf 'KEY_%s=1\n+0.02 KEY_%s=0\n+0.03\n' $key $key
	done >"$1"
}

mkfifo "$tmp/keys"
serve input 18 --source="$tmp/keys" --kind=keyboard
demo_type "$tmp/keys" &

in_guest <<'GUEST'
node=/dev/input/$(basename "$device"/input/input*/event*)
row "keyboard" "$(cat "$device"/input/input*/name), $node"
# ten reports: five keys, down and up
typed=$(inputtest read "$node" /host/listening 10 | sed -n 's/^1:\([0-9]*\)=1$/\1/p' | tr '\n' ' ')
row "codes of the keys" "$typed"
[ "$typed" = "35 18 38 38 24 " ]
confirm $? "they are HELLO"
GUEST

# Draws a line on a tablet, and clicks at its end.
demo_draw()
{
	local at
	await 60 test -e "$tmp/guest/watching" || return
	for at in 8192 16384 24576; do
		echo "+0.02 ABS_X=$at ABS_Y=$((at / 2))"
	done >"$1"
	echo "BTN_LEFT=1" >"$1"
}

mkfifo "$tmp/pointer"
as=tablet serve input 18 --source="$tmp/pointer" --kind=tablet
demo_draw "$tmp/pointer" &

in_guest <<'GUEST'
node=/dev/input/$(basename "$device"/input/input*/event*)
row "tablet" "$(cat "$device"/input/input*/name), $node"
drawn=$(inputtest read "$node" /host/watching 4 | tr '\n' ';')
row "codes and values" "$drawn"
[ "$drawn" = "3:0=8192 3:1=4096;3:0=16384 3:1=8192;3:0=24576 3:1=12288;1:272=1;" ]
confirm $? "they are a line, and a click"
GUEST
